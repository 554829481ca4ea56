/* SPDX-License-Identifier: MIT */
/* Methods of fast-register MRs; Invalidate, which is for windows, too, is in method-mw.c. */
#include "daemon/method.h"

#include <errno.h>

#include "daemon/util.h"

/* Its first object, of the kind that the call is for. */
static int fast_mr(const struct request *request, struct call *call, struct nicd_error *err)
{
	call->frmr = nic_object_frmr(request->objects[0]);
	return call->frmr ? 0 : nicd_refuse(err, NICD_R_MR_KIND);
}

/* Whose work it is. NULL: none was named. */
static struct nic_qp *fast_qp(const struct request *request, struct nicd_error *err)
{
	if (request->objects[1])
		return container_of(request->objects[1], struct nic_qp, object);
	nicd_refuse(err, NICD_R_HANDLE);
	return NULL;
}

void method_fast_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_frmr(answer, call->frmr);
}

int method_initialize_fast_register(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__InitializeFastRegister *args = request->args;
	int r = fast_mr(request, call, err);

	return r < 0 ? r : nic_frmr_initialize(call->frmr, args->adapter_page_count, args->remote_access, &call->done, err);
}

static int fast_ranges(const struct request *request, struct nic_range *ranges, struct nicd_error *err)
{
	const Nicd__FastRegister *args = request->args;

	for (unsigned i = 0; i < args->n_ranges; i++) {
		ranges[i] = (struct nic_range){ request->memories[i], args->ranges[i]->offset, args->ranges[i]->length };
		if (!ranges[i].memory)
			return nicd_refuse(err, NICD_R_HANDLE);
	}
	return 0;
}

int method_fast_register(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__FastRegister *args = request->args;
	struct nic_object *mapping = request->objects[2];
	struct nic_range ranges[NICD_RANGES];
	struct nic_fast_register what = {
		.mapping = mapping ? container_of(mapping, struct nic_mapping, object) : NULL,
		.ranges = ranges,
		.n_ranges = (unsigned)args->n_ranges,
		.first_byte_offset = args->first_byte_offset,
		.length = args->length,
		.iova = args->iova,
		.flags = args->flags,
	};
	struct nic_qp *qp;
	int r = fast_mr(request, call, err);

	if (r >= 0)
		r = fast_ranges(request, ranges, err);
	if (r < 0)
		return r;
	qp = fast_qp(request, err);
	if (!qp)
		return -EBADF;
	method_silence(call, qp, args->flags);
	return nic_frmr_register(call->frmr, qp, &what, &call->done, err);
}
