/* SPDX-License-Identifier: MIT */
/* Handles for the Qps of peers that came in. */
#include <errno.h>
#include <stdlib.h>

#include "client/api.h"

static int open_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_QP)
		return -EPROTO;
	if (object_find(call->n, reply->qp->id)) {
		call->why = malloc(sizeof(*call->why));
		return call->why ? error_local(call->why, ERROR_HAS_HANDLE, 0, 0) : -EEXIST;
	}
	return object_live(call->object, reply->qp->id, reply->qp->serial) ? 0 : -EPROTO;
}

static int open_start(struct nicd *n, uint64_t serial, struct nicd_qp **ret, struct call **call)
{
	Nicd__QueryQp body = NICD__QUERY_QP__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct nicd_qp *qp;
	int r = conn_check(n);

	if (r < 0)
		return r;
	qp = object_new(n, NICD_TYPE_QP, sizeof(*qp), NULL, NULL);
	if (!qp)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	qp->inbound = true;
	body.serial = serial;
	request.call_case = NICD__REQUEST__CALL_QUERY_QP;
	request.query_qp = &body;
	r = call_new(call, n, &qp->object, open_finish);
	if (r >= 0) {
		(*call)->makes = true;
		r = call_submit(*call, &request, NULL, 0);
	}
	if (r < 0)
		object_close(&qp->object);
	else
		*ret = qp;
	return r;
}

NICD_API int nicd_qp_open(struct nicd *n, uint64_t serial, struct nicd_qp **ret)
{
	struct nicd_qp *qp;
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = open_start(n, serial, &qp, &call);
	if (r >= 0)
		r = handle_wait(&qp->object, call);
	if (r >= 0)
		*ret = qp;
	return r;
}

NICD_API int nicd_qp_open_async(struct nicd *n, uint64_t serial, struct nicd_qp **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = open_start(n, serial, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}
