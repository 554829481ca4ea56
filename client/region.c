/* SPDX-License-Identifier: MIT */
/* What memory regions of either kind and windows have in common: what is told of them, and calls that differ in the handle only. */
#include <errno.h>

#include "client/api.h"
#include "client/attr.h"

int region_take(struct region *region, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_MR)
		return -EPROTO;
	*region = (struct region){
		.local_token = reply->mr->local_token,
		.remote_token = reply->mr->remote_token,
		.iova = reply->mr->iova,
		.length = reply->mr->length,
		.flags = reply->mr->flags,
		.generation = reply->mr->generation,
	};
	return 0;
}

void region_forget(struct region *region)
{
	*region = (struct region){ .generation = region->generation };
}

/* Whose success may be silent has nothing to tell then, and `ret` may be gone. */
int region_receipt_finish(struct region *region, struct call *call, const Nicd__Reply *reply, int error)
{
	if (call->silent && error == 0)
		call->ret = NULL;
	error = receipt_finish(call, reply, error);
	if (error == 0 || error == -EINPROGRESS)
		region_forget(region);
	return error;
}

static int token_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_TOKEN)
		return -EPROTO;
	*(uint32_t *)call->ret = reply->token;
	return 0;
}

int region_token_start(struct object *object, Nicd__Request__CallCase call_case, uint32_t *ret, struct call **call)
{
	int r = call_new(call, object->n, object, token_finish);

	if (r < 0)
		return r;
	(*call)->ret = ret;
	(*call)->order = CALL_SETTLED;
	return call_submit_ref(*call, call_case, object);
}

void region_silence(struct call *call, uint32_t *flags, bool waits)
{
	call_silence(call, flags, waits);
	*flags &= ~(uint32_t)NICD_OP_SILENT_SUCCESS;
}

int region_invalidate_start(struct object *object, const struct region_invalidate *what, bool waits,
			    int (*finish)(struct call *call, const Nicd__Reply *reply, int error), struct call **call)
{
	Nicd__Ref refs[2] = { NICD__REF__INIT, NICD__REF__INIT };
	Nicd__Invalidate body = NICD__INVALIDATE__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *deps[2] = { object, what->qp ? &what->qp->object : NULL };
	struct nicd *n = object->n;
	int r = attr_check(n, what->ret, sizeof(*what->ret));

	if (r >= 0 && (!what->qp || what->qp->object.n != n))
		r = conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (r >= 0)
		r = call_new(call, n, object, finish);
	if (r < 0)
		return r;
	body.object = &refs[0];
	body.qp = &refs[1];
	body.flags = what->flags;
	region_silence(*call, &body.flags, waits);
	request.call_case = NICD__REQUEST__CALL_INVALIDATE;
	request.invalidate = &body;
	(*call)->ret = what->ret;
	(*call)->order = CALL_SETTLES;
	return call_submit(*call, &request, deps, 2);
}
