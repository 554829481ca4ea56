/* SPDX-License-Identifier: MIT */
/* Methods of memory windows, and Invalidate, which is for windows and fast-register MRs. */
#include "daemon/method.h"
#include "daemon/util.h"
#include "nicd/mw.h"

static struct nic_mw *request_mw(const struct request *request)
{
	return container_of(request->objects[0], struct nic_mw, object);
}

int method_create_mw(struct request *request, struct answer *answer, struct nicd_error *err)
{
	struct nic_mw *mw;
	int r = nic_mw_new(&mw, container_of(request->objects[0], struct nic_pd, object), err);

	if (r == 0)
		answer_object(answer, &mw->object);
	return r;
}

int method_bind_mw(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__BindMw *args = request->args;
	struct nic_bind what = {
		.mr = request->objects[1],
		.qp = container_of(request->objects[2], struct nic_qp, object),
		.iova = args->iova,
		.length = args->length,
		.flags = args->flags,
	};

	call->mw = request_mw(request);
	method_silence(call, what.qp, args->flags);
	return nic_mw_bind(call->mw, &what, &call->done, err);
}

void method_bind_mw_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_mw(answer, call->mw);
}

int method_invalidate(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Invalidate *args = request->args;
	struct nic_object *object = request->objects[0];
	struct nic_qp *qp;

	if (object->type != NIC_MW && object->type != NIC_MR)
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, NIC_MW, object->type);
	if (object->type == NIC_MR && !nic_is_frmr(object))
		return nicd_refuse(err, NICD_R_MR_KIND);
	if (!request->objects[1])
		return nicd_refuse(err, NICD_R_HANDLE);
	call->ended.object = object;
	call->ended.type = object->type;
	call->ended.serial = object->serial;
	call->ended.receipt = true;
	qp = container_of(request->objects[1], struct nic_qp, object);
	method_silence(call, qp, args->flags);
	if (nic_is_frmr(object))
		return nic_frmr_invalidate(nic_object_frmr(object), qp, args->flags, &call->done, err);
	return nic_mw_invalidate(container_of(object, struct nic_mw, object), qp, args->flags, &call->done, err);
}
