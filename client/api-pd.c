/* SPDX-License-Identifier: MIT */
/* Protection domains. Its users are the open handles of its MRs, Qps, tickets and exports. */
#include <errno.h>

#include "client/api.h"

static int pd_start(struct nicd *n, unsigned adapter, struct nicd_pd **ret, struct call **call)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__CreatePd body = NICD__CREATE_PD__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct nicd_pd *pd;
	int r = conn_check(n);

	if (r < 0)
		return r;
	if (adapter >= n->n_adapters)
		return conn_refuse(n, NICD_R_NO_ADAPTER, n->n_adapters, adapter);
	pd = object_new(n, NICD_TYPE_PD, sizeof(*pd), NULL, NULL);
	if (!pd)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	r = call_new(call, n, &pd->object, object_info_finish);
	if (r >= 0) {
		(*call)->makes = true;
		ref.of_case = NICD__REF__OF_ID;
		ref.id = n->adapters[adapter].id;
		body.adapter = &ref;
		request.call_case = NICD__REQUEST__CALL_CREATE_PD;
		request.create_pd = &body;
		r = call_submit(*call, &request, NULL, 0);
	}
	if (r < 0)
		object_close(&pd->object);
	else
		*ret = pd;
	return r;
}

NICD_API int nicd_pd_create(struct nicd *n, unsigned adapter, struct nicd_pd **ret)
{
	struct nicd_pd *pd;
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = pd_start(n, adapter, &pd, &call);
	if (r >= 0)
		r = handle_wait(&pd->object, call);
	if (r >= 0)
		*ret = pd;
	return r;
}

NICD_API int nicd_pd_create_async(struct nicd *n, unsigned adapter, struct nicd_pd **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = pd_start(n, adapter, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API uint64_t nicd_pd_serial(const struct nicd_pd *pd)
{
	return pd->object.serial;
}

NICD_API int nicd_pd_close(struct nicd_pd *pd)
{
	return handle_close(pd ? &pd->object : NULL, NULL);
}

NICD_API int nicd_pd_close_async(struct nicd_pd *pd, nicd_callback cb, void *userdata)
{
	return handle_close_async(pd ? &pd->object : NULL, NULL, cb, userdata);
}
