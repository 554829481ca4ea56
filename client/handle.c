/* SPDX-License-Identifier: MIT */
/*
 * What all handles do alike: being closed, and taking answers of a common form. A handle is the caller's until it is
 * closed; the object behind it lives on until the last call about it is answered.
 */
#include <errno.h>
#include <stdlib.h>

#include "client/api.h"
#include "client/attr.h"

/* Closing cannot fail. What was never made is closed already. */
static int handle_close_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error == -ECANCELED && call->why && call->why->reason == NICD_R_DEPENDENCY)
		return 0;
	/* Its peer went first. */
	if (error == -EBADF && call->object->type == NICD_TYPE_QP && ((const struct nicd_qp *)call->object)->inbound)
		return 0;
	return error;
}

/* The handle is gone afterwards, but for -EOWNERDEAD. */
static int handle_close_start(struct object *object, void (*before)(struct object *object), struct call **call)
{
	int r;

	if (conn_forked(object->n))
		return conn_fail(object->n, ERROR_FORKED, 0, 0);
	r = call_new(call, object->n, object, handle_close_finish);
	if (before)
		before(object);
	if (r >= 0 && object->state == OBJECT_FAILED)
		call_answer(*call, 0);
	else if (r >= 0)
		r = call_submit_ref(*call, NICD__REQUEST__CALL_CLOSE, object);
	object_close(object);
	return r;
}

int handle_close(struct object *object, void (*before)(struct object *object))
{
	struct call *call;
	int r;

	if (!object)
		return 0;
	if (object->users > 0 && !object->n->lost)
		return conn_fail(object->n, ERROR_STILL_USED, 0, object->users);
	r = handle_close_start(object, before, &call);
	return r < 0 ? r : call_wait(call);
}

int handle_close_async(struct object *object, void (*before)(struct object *object), nicd_callback cb, void *userdata)
{
	struct call *call;
	int r;

	if (!object)
		return 0;
	r = handle_close_start(object, before, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

void handle_discard(struct object *object)
{
	struct nicd *n = object->n;
	struct nicd_error_info error = n->error;

	handle_close_async(object, NULL, NULL, NULL);
	conn_output(n);
	n->error = error;
}

int handle_wait(struct object *object, struct call *call)
{
	int r = call_wait(call);

	if (r < 0)
		handle_discard(object);
	return r;
}

int object_info_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_OBJECT)
		return -EPROTO;
	return object_live(call->object, reply->object->id, reply->object->serial) ? 0 : -EPROTO;
}

int receipt_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_receipt receipt = { 0 };

	if (error < 0 || !reply)
		return error;
	if (reply->result_case == NICD__REPLY__RESULT__NOT_SET) {
		attr_put(call->ret, &receipt, sizeof(receipt));
		return 0;
	}
	if (reply->result_case != NICD__REPLY__RESULT_RECEIPT)
		return -EPROTO;
	receipt.streams_cut = reply->receipt->streams_cut;
	receipt.serial = reply->receipt->serial;
	receipt.at_ns = reply->receipt->at_ns;
	receipt.grants = reply->receipt->grants;
	receipt.n_exports = (uint32_t)reply->receipt->n_exports;
	for (size_t i = 0; i < reply->receipt->n_exports && i < NICD_RECEIPT_EXPORTS; i++)
		receipt.exports[i] = reply->receipt->exports[i];
	attr_put(call->ret, &receipt, sizeof(receipt));
	return 0;
}

void grant_take(struct nicd_grant *grant, const Nicd__Grant *from)
{
	if (!from)
		return;
	*grant = (struct nicd_grant){
		.remote_token = from->remote_token,
		.flags = from->flags,
		.iova = from->iova,
		.length = from->length,
		.incarnation = from->incarnation,
	};
}
