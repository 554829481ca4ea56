/* SPDX-License-Identifier: MIT */
/* Queue pairs: connecting to a locator, and reading and writing there. */
#include <endian.h>
#include <errno.h>
#include <stddef.h>
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

/* -------------------------------------------------------------------------------------------------- reading and writing */

/* A failed work request may tell how far it came. */
static int work_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_completion completion = { 0 };

	if (!reply || reply->result_case != NICD__REPLY__RESULT_COMPLETION)
		return error < 0 || !reply ? error : -EPROTO;
	completion.entries = reply->completion->entries;
	completion.bytes = reply->completion->bytes;
	completion.failed = reply->completion->failed;
	completion.inexact = reply->completion->inexact;
	completion.solicited = reply->completion->solicited;
	completion.invalidated_token = reply->completion->invalidated ? reply->completion->invalidated_token : 0;
	attr_put(call->ret, &completion, sizeof(completion));
	return error;
}

/* What came after the first version of the struct may be missing. */
int qp_work_new(struct call **call, struct nicd_qp *qp, struct nicd_completion *ret)
{
	int r = attr_check(qp->object.n, ret, offsetof(struct nicd_completion, solicited));

	if (r >= 0)
		r = call_new(call, qp->object.n, &qp->object, work_finish);
	if (r >= 0)
		(*call)->ret = ret;
	return r;
}

static int read_start(struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret, struct call **call)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Read body = NICD__READ__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &qp->object;
	int r = qp_work_new(call, qp, ret);

	if (r < 0)
		return r;
	body.qp = &ref;
	body.local_token = transfer->local_token;
	body.local_addr = transfer->local_addr;
	body.remote_token = transfer->remote_token;
	body.remote_addr = transfer->remote_addr;
	body.length = transfer->length;
	request.call_case = NICD__REQUEST__CALL_READ;
	request.read = &body;
	return call_submit(*call, &request, &dep, 1);
}

static int write_start(struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret, struct call **call)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Write body = NICD__WRITE__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &qp->object;
	int r = qp_work_new(call, qp, ret);

	if (r < 0)
		return r;
	body.qp = &ref;
	body.local_token = transfer->local_token;
	body.local_addr = transfer->local_addr;
	body.remote_token = transfer->remote_token;
	body.remote_addr = transfer->remote_addr;
	body.length = transfer->length;
	request.call_case = NICD__REQUEST__CALL_WRITE;
	request.write = &body;
	return call_submit(*call, &request, &dep, 1);
}

CALL_TWINS(nicd_qp_read, (struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret),
	   read_start(qp, transfer, ret, &call))

CALL_TWINS(nicd_qp_write, (struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret),
	   write_start(qp, transfer, ret, &call))

/* ---------------------------------------------------------------------------------------------------------------- lists */

_Static_assert(sizeof(struct nicd_transfer) == NICD_TRANSFER_ENTRY_SIZE, "struct nicd_transfer is what the protocol sends");

static void list_encode(struct nicd_transfer *to, const struct nicd_transfer *from, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		to[i] = (struct nicd_transfer){
			.local_token = htole32(from[i].local_token),
			.remote_token = htole32(from[i].remote_token),
			.local_addr = htole64(from[i].local_addr),
			.remote_addr = htole64(from[i].remote_addr),
			.length = htole32(from[i].length),
			.zero = htole32(from[i].zero),
		};
}

static int list_start(struct nicd_qp *qp, Nicd__TransferList__Operation operation, uint32_t flags,
		      const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret, struct call **call)
{
	struct nicd_transfer entries[NICD_TRANSFER_ENTRIES];
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__TransferList body = NICD__TRANSFER_LIST__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &qp->object;
	int r = qp_work_new(call, qp, ret);

	if (r < 0)
		return r;
	if (count < 1 || count > NICD_TRANSFER_ENTRIES) {
		call_free(*call);
		return conn_refuse(qp->object.n, NICD_R_TRANSFER_ENTRIES, NICD_TRANSFER_ENTRIES, count);
	}
	list_encode(entries, list, count);
	body.qp = &ref;
	body.operation = operation;
	body.flags = flags;
	body.entries.data = (uint8_t *)entries;
	body.entries.len = count * sizeof(entries[0]);
	request.call_case = NICD__REQUEST__CALL_TRANSFER_LIST;
	request.transfer_list = &body;
	return call_submit(*call, &request, &dep, 1);
}

CALL_TWINS(nicd_qp_read_list,
	   (struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret),
	   list_start(qp, NICD__TRANSFER_LIST__OPERATION__READ, 0, list, count, ret, &call))

CALL_TWINS(nicd_qp_write_list,
	   (struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret),
	   list_start(qp, NICD__TRANSFER_LIST__OPERATION__WRITE, 0, list, count, ret, &call))

CALL_TWINS(nicd_qp_write_notify,
	   (struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret),
	   list_start(qp, NICD__TRANSFER_LIST__OPERATION__WRITE, NICD__OP_FLAG__OP_NOTIFY, list, count, ret, &call))

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
