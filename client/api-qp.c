/* SPDX-License-Identifier: MIT */
/* Queue pairs: connecting to a locator, asking, and the end. Work on them is in api-work.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"

/* ----------------------------------------------------------------------------------------------------------- connecting */

static int connect_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_qp *qp = (struct nicd_qp *)call->object;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_QP || !object_live(call->object, reply->qp->id, reply->qp->serial))
		return -EPROTO;
	grant_take(&qp->grant, reply->qp->grant);
	return 0;
}

static int connect_submit(struct call *call, struct nicd_pd *pd, const struct nicd_connect_attr *attr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__ConnectQp body = NICD__CONNECT_QP__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &pd->object;

	call->makes = true;
	body.pd = &ref;
	body.locator = (char *)attr->locator;
	body.timeout_ms = attr->timeout_ms;
	request.call_case = NICD__REQUEST__CALL_CONNECT_QP;
	request.connect_qp = &body;
	return call_submit(call, &request, &dep, 1);
}

static int connect_start(struct nicd_pd *pd, const struct nicd_connect_attr *user_attr, struct nicd_qp **ret, struct call **call)
{
	struct nicd *n = pd->object.n;
	struct nicd_connect_attr attr;
	struct nicd_qp *qp;
	int r = conn_check(n);

	if (r >= 0)
		r = attr_get(&n->error, &attr, sizeof(attr), sizeof(attr), user_attr);
	if (r < 0)
		return r;
	if (!attr.locator)
		return conn_refuse(n, NICD_R_LOCATOR, 0, 0);
	qp = object_new(n, NICD_TYPE_QP, sizeof(*qp), &pd->object, NULL);
	if (!qp)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	r = call_new(call, n, &qp->object, connect_finish);
	if (r >= 0)
		r = connect_submit(*call, pd, &attr);
	if (r < 0)
		object_close(&qp->object);
	else
		*ret = qp;
	return r;
}

NICD_API int nicd_qp_connect(struct nicd_pd *pd, const struct nicd_connect_attr *attr, struct nicd_qp **ret)
{
	struct nicd_qp *qp;
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = connect_start(pd, attr, &qp, &call);
	if (r >= 0)
		r = handle_wait(&qp->object, call);
	if (r >= 0)
		*ret = qp;
	return r;
}

NICD_API int nicd_qp_connect_async(struct nicd_pd *pd, const struct nicd_connect_attr *attr, struct nicd_qp **ret,
				   nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = connect_start(pd, attr, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API uint64_t nicd_qp_serial(const struct nicd_qp *qp)
{
	return qp->object.serial;
}

NICD_API const struct nicd_grant *nicd_qp_grant(const struct nicd_qp *qp)
{
	return &qp->grant;
}

/* --------------------------------------------------------------------------------------------------------------- asking */

static int query_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_qp_info info = { 0 };
	const Nicd__QpInfo *qp;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_QP)
		return -EPROTO;
	qp = reply->qp;
	info.connected = qp->connected;
	info.inbound = qp->inbound;
	info.serial = qp->serial;
	grant_take(&info.grant, qp->grant);
	info.bytes_read = qp->bytes_read;
	info.bytes_written = qp->bytes_written;
	info.peer_read = qp->peer_read;
	info.peer_written = qp->peer_written;
	info.door = qp->door;
	snprintf(info.peer, sizeof(info.peer), "%s", qp->peer);
	attr_put(call->ret, &info, sizeof(info));
	return 0;
}

static int query_start(struct nicd_qp *qp, struct nicd_qp_info *ret, struct call **call)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__QueryQp body = NICD__QUERY_QP__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &qp->object;
	int r = attr_check(qp->object.n, ret, sizeof(*ret));

	if (r >= 0)
		r = call_new(call, qp->object.n, &qp->object, query_finish);
	if (r < 0)
		return r;
	(*call)->ret = ret;
	body.qp = &ref;
	request.call_case = NICD__REQUEST__CALL_QUERY_QP;
	request.query_qp = &body;
	return call_submit(*call, &request, &dep, 1);
}

CALL_TWINS(nicd_qp_query, (struct nicd_qp *qp, struct nicd_qp_info *ret), query_start(qp, ret, &call))

/* -------------------------------------------------------------------------------------------------------------- the end */

/* Flush and Disconnect: they answer nothing. */
static int plain_start(struct nicd_qp *qp, Nicd__Request__CallCase call_case, struct call **call)
{
	int r = call_new(call, qp->object.n, &qp->object, NULL);

	return r < 0 ? r : call_submit_ref(*call, call_case, &qp->object);
}

CALL_TWINS(nicd_qp_flush, (struct nicd_qp *qp), plain_start(qp, NICD__REQUEST__CALL_FLUSH, &call))

CALL_TWINS(nicd_qp_disconnect, (struct nicd_qp *qp), plain_start(qp, NICD__REQUEST__CALL_DISCONNECT, &call))

NICD_API int nicd_qp_close(struct nicd_qp *qp)
{
	return handle_close(qp ? &qp->object : NULL, NULL);
}

NICD_API int nicd_qp_close_async(struct nicd_qp *qp, nicd_callback cb, void *userdata)
{
	return handle_close_async(qp ? &qp->object : NULL, NULL, cb, userdata);
}
