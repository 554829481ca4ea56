/* SPDX-License-Identifier: MIT */
/*
 * Memory windows. The handle remembers what the last bind answered. Binding and invalidating one are asked for in the order in which they were
 * called: each waits, or names what it waits for, until the one before is done.
 */
#include <errno.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"

struct nicd_mw {
	struct object object;
	struct region region;
};

/* --------------------------------------------------------------------------------------------------------------- making */

static int create_start(struct nicd_pd *pd, struct nicd_mw **ret, struct call **call)
{
	struct nicd *n = pd->object.n;
	struct nicd_mw *mw;
	int r = conn_check(n);

	if (r < 0)
		return r;
	mw = object_new(n, NICD_TYPE_MW, sizeof(*mw), &pd->object, NULL);
	if (!mw)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	r = call_new(call, n, &mw->object, object_info_finish);
	if (r >= 0) {
		(*call)->makes = true;
		r = call_submit_ref(*call, NICD__REQUEST__CALL_CREATE_MW, &pd->object);
	}
	if (r < 0)
		object_close(&mw->object);
	else
		*ret = mw;
	return r;
}

NICD_API int nicd_mw_new(struct nicd_pd *pd, struct nicd_mw **ret)
{
	struct nicd_mw *mw;
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = create_start(pd, &mw, &call);
	if (r >= 0)
		r = handle_wait(&mw->object, call);
	if (r >= 0)
		*ret = mw;
	return r;
}

NICD_API int nicd_mw_new_async(struct nicd_pd *pd, struct nicd_mw **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = create_start(pd, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

/* -------------------------------------------------------------------------------------------------------------- binding */

static int bind_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	return region_take(&((struct nicd_mw *)call->object)->region, reply, error);
}

static int bind_submit(struct call *call, struct nicd_mw *mw, const struct nicd_bind_attr *attr)
{
	Nicd__Ref refs[3] = { NICD__REF__INIT, NICD__REF__INIT, NICD__REF__INIT };
	Nicd__BindMw body = NICD__BIND_MW__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *deps[3] = { &mw->object, &attr->mr->object, &attr->qp->object };

	body.mw = &refs[0];
	body.mr = &refs[1];
	body.qp = &refs[2];
	body.iova = attr->iova;
	body.length = attr->length;
	body.flags = attr->flags;
	request.call_case = NICD__REQUEST__CALL_BIND_MW;
	request.bind_mw = &body;
	call->order = CALL_SETTLES_MR;
	return call_submit(call, &request, deps, 3);
}

static int bind_start(struct nicd_mw *mw, const struct nicd_bind_attr *user_attr, bool waits, struct call **call)
{
	struct nicd *n = mw->object.n;
	struct nicd_bind_attr attr;
	int r = conn_check(n);

	if (r >= 0)
		r = attr_get(&n->error, &attr, sizeof(attr), sizeof(attr), user_attr);
	if (r < 0)
		return r;
	if (!attr.mr || !attr.qp || attr.mr->object.n != n || attr.qp->object.n != n)
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	r = call_new(call, n, &mw->object, bind_finish);
	if (r < 0)
		return r;
	region_silence(*call, &attr.flags, waits);
	return bind_submit(*call, mw, &attr);
}

CALL_TWINS(nicd_mw_bind, (struct nicd_mw *mw, const struct nicd_bind_attr *attr), bind_start(mw, attr, waits, &call))

/* --------------------------------------------------------------------------------------------------------------- tokens */

NICD_API uint32_t nicd_mw_remote_token(const struct nicd_mw *mw)
{
	return mw->region.remote_token;
}

NICD_API uint64_t nicd_mw_iova(const struct nicd_mw *mw)
{
	return mw->region.iova;
}

NICD_API uint64_t nicd_mw_length(const struct nicd_mw *mw)
{
	return mw->region.length;
}

NICD_API uint32_t nicd_mw_flags(const struct nicd_mw *mw)
{
	return mw->region.flags;
}

NICD_API uint32_t nicd_mw_generation(const struct nicd_mw *mw)
{
	return mw->region.generation;
}

NICD_API uint64_t nicd_mw_serial(const struct nicd_mw *mw)
{
	return mw->object.serial;
}

CALL_TWINS(nicd_mw_get_remote_token, (struct nicd_mw *mw, uint32_t *ret),
	   region_token_start(&mw->object, NICD__REQUEST__CALL_GET_REMOTE_TOKEN, ret, &call))

/* -------------------------------------------------------------------------------------------------------------- the end */

static int invalidate_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	return region_receipt_finish(&((struct nicd_mw *)call->object)->region, call, reply, error);
}

CALL_TWINS(nicd_mw_invalidate, (struct nicd_mw *mw, struct nicd_qp *qp, uint32_t flags, struct nicd_receipt *ret),
	   region_invalidate_start(&mw->object, &(struct region_invalidate){ qp, flags, ret }, waits, invalidate_finish, &call))

NICD_API int nicd_mw_close(struct nicd_mw *mw)
{
	return handle_close(mw ? &mw->object : NULL, NULL);
}

NICD_API int nicd_mw_close_async(struct nicd_mw *mw, nicd_callback cb, void *userdata)
{
	return handle_close_async(mw ? &mw->object : NULL, NULL, cb, userdata);
}
