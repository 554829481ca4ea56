/* SPDX-License-Identifier: MIT */
/*
 * Work requests on queue pairs: reads, writes and messages. nicd_qp_post takes all of them with all flags; the others are it with some
 * of it filled in.
 *
 * A silent success wakes nobody, so a call that waits is never sent as one: it might wait for ever.
 */
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"
#include "proto/op-flags.h"

SAME_OP_FLAGS(NICD_OP_);

_Static_assert(sizeof(struct nicd_transfer) == NICD_TRANSFER_ENTRY_SIZE, "struct nicd_transfer is what the protocol sends");

/* A work request on its way into a frame. */
struct post {
	struct nicd_work_attr attr;
	bool list;                 /* as a list, even of one */
};

/* A failed one may tell how far it came. Of a silent success nobody is told, and `ret` may be gone. */
static int work_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_completion completion = { 0 };

	if (!reply || reply->result_case != NICD__REPLY__RESULT_COMPLETION)
		return error < 0 || !reply ? error : -EPROTO;
	if (call->silent && error == 0)
		return 0;
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
static int work_new(struct call **call, struct nicd_qp *qp, struct nicd_completion *ret)
{
	int r = attr_check(qp->object.n, ret, offsetof(struct nicd_completion, solicited));

	if (r >= 0)
		r = call_new(call, qp->object.n, &qp->object, work_finish);
	if (r >= 0)
		(*call)->ret = ret;
	return r;
}

static int work_submit(struct call *call, Nicd__Request__CallCase call_case, void *body)
{
	Nicd__Request request = NICD__REQUEST__INIT;

	request.call_case = call_case;
	request.hello = body;   /* all bodies lie in the same place */
	return call_submit(call, &request, &call->object, 1);
}

/* ---- what is in the requests */

static ProtobufCBinaryData inline_of(const struct nicd_work_attr *attr, uint32_t length)
{
	ProtobufCBinaryData data = { 0 };

	if (attr->flags & NICD_OP_INLINE) {
		data.data = (uint8_t *)attr->inline_data;
		data.len = length;
	}
	return data;
}

static int submit_read(struct call *call, const struct nicd_work_attr *attr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Read body = NICD__READ__INIT;

	body.qp = &ref;
	body.local_token = attr->transfers->local_token;
	body.local_addr = attr->transfers->local_addr;
	body.remote_token = attr->transfers->remote_token;
	body.remote_addr = attr->transfers->remote_addr;
	body.length = attr->transfers->length;
	body.flags = attr->flags;
	return work_submit(call, NICD__REQUEST__CALL_READ, &body);
}

static int submit_write(struct call *call, const struct nicd_work_attr *attr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Write body = NICD__WRITE__INIT;

	body.qp = &ref;
	body.local_token = attr->transfers->local_token;
	body.local_addr = attr->transfers->local_addr;
	body.remote_token = attr->transfers->remote_token;
	body.remote_addr = attr->transfers->remote_addr;
	body.length = attr->transfers->length;
	body.flags = attr->flags;
	body.inline_data = inline_of(attr, body.length);
	return work_submit(call, NICD__REQUEST__CALL_WRITE, &body);
}

static int submit_list(struct call *call, const struct nicd_work_attr *attr)
{
	struct nicd_transfer entries[NICD_TRANSFER_ENTRIES];
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__TransferList body = NICD__TRANSFER_LIST__INIT;

	for (unsigned i = 0; i < attr->count; i++) {
		const struct nicd_transfer *from = &attr->transfers[i];

		entries[i] = (struct nicd_transfer){
			.local_token = htole32(from->local_token),
			.remote_token = htole32(from->remote_token),
			.local_addr = htole64(from->local_addr),
			.remote_addr = htole64(from->remote_addr),
			.length = htole32(from->length),
			.zero = htole32(from->zero),
		};
	}
	body.qp = &ref;
	body.operation = attr->operation == NICD_WORK_WRITE ? NICD__TRANSFER_LIST__OPERATION__WRITE :
							      NICD__TRANSFER_LIST__OPERATION__READ;
	body.flags = attr->flags;
	body.entries.data = (uint8_t *)entries;
	body.entries.len = attr->count * sizeof(entries[0]);
	return work_submit(call, NICD__REQUEST__CALL_TRANSFER_LIST, &body);
}

static int submit_send(struct call *call, const struct nicd_work_attr *attr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Send body = NICD__SEND__INIT;

	body.qp = &ref;
	body.local_token = attr->message->local_token;
	body.local_addr = attr->message->local_addr;
	body.length = attr->message->length;
	body.flags = attr->flags;
	body.invalidate_token = attr->message->invalidate_token;
	body.inline_data = inline_of(attr, body.length);
	return work_submit(call, NICD__REQUEST__CALL_SEND, &body);
}

static int submit_receive(struct call *call, const struct nicd_work_attr *attr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Receive body = NICD__RECEIVE__INIT;

	body.qp = &ref;
	body.local_token = attr->message->local_token;
	body.local_addr = attr->message->local_addr;
	body.length = attr->message->length;
	return work_submit(call, NICD__REQUEST__CALL_RECEIVE, &body);
}

static const struct {
	int (*submit)(struct call *call, const struct nicd_work_attr *attr);
	bool message;
} operations[] = {
	[NICD_WORK_READ] = { submit_read, false },
	[NICD_WORK_WRITE] = { submit_write, false },
	[NICD_WORK_SEND] = { submit_send, true },
	[NICD_WORK_RECEIVE] = { submit_receive, true },
};

/* ---- posting */

/* What would be read from the caller's memory must be there; the rest is nicd's to judge. */
static int post_check(struct nicd *n, const struct post *post)
{
	const struct nicd_work_attr *attr = &post->attr;
	bool message = attr->operation <= NICD_WORK_RECEIVE && operations[attr->operation].message;
	uint32_t length;

	if (attr->operation > NICD_WORK_RECEIVE || (message ? !attr->message : !attr->transfers && attr->count))
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (attr->operation == NICD_WORK_RECEIVE && (attr->flags || attr->message->invalidate_token))
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (!message && (attr->count < 1 || attr->count > NICD_TRANSFER_ENTRIES))
		return conn_refuse(n, NICD_R_TRANSFER_ENTRIES, NICD_TRANSFER_ENTRIES, attr->count);
	if (!(attr->flags & NICD_OP_INLINE) || (!message && attr->count > 1))
		return 0;
	length = message ? attr->message->length : attr->transfers->length;
	if (length > NICD_INLINE)
		return conn_refuse(n, NICD_R_INLINE_LENGTH, NICD_INLINE, length);
	return length && !attr->inline_data ? conn_fail(n, ERROR_ARGUMENT, 0, 0) : 0;
}

/* Takes the post over as it should be: its attributes may be changed. */
static int post_start(struct nicd_qp *qp, struct post post, struct nicd_completion *ret, bool waits, struct call **call)
{
	struct nicd_work_attr *attr = &post.attr;
	int r = conn_check(qp->object.n);

	if (r >= 0 && attr->message)
		attr->flags |= attr->message->flags;
	if (r >= 0)
		r = post_check(qp->object.n, &post);
	if (r >= 0)
		r = work_new(call, qp, ret);
	if (r < 0)
		return r;
	call_silence(*call, &attr->flags, waits);
	if (!operations[attr->operation].message && (post.list || attr->count > 1))
		return submit_list(*call, attr);
	return operations[attr->operation].submit(*call, attr);
}

static int attr_start(struct nicd_qp *qp, const struct nicd_work_attr *attr, struct nicd_completion *ret, bool waits,
		      struct call **call)
{
	struct nicd *n = qp->object.n;
	struct post post = { 0 };
	int r = conn_check(n);

	if (r >= 0)
		r = attr_get(&n->error, &post.attr, sizeof(post.attr), sizeof(post.attr), attr);
	return r < 0 ? r : post_start(qp, post, ret, waits, call);
}

CALL_TWINS(nicd_qp_post, (struct nicd_qp *qp, const struct nicd_work_attr *attr, struct nicd_completion *ret),
	   attr_start(qp, attr, ret, waits, &call))

/* ---- the short ways */

static int transfer_start(struct nicd_qp *qp, uint32_t operation, const struct nicd_transfer *transfer, struct nicd_completion *ret,
			  bool waits, struct call **call)
{
	const struct post post = { .attr = { .operation = operation, .transfers = transfer, .count = 1 } };

	return post_start(qp, post, ret, waits, call);
}

static int list_start(struct nicd_qp *qp, struct nicd_work_attr attr, struct nicd_completion *ret, bool waits, struct call **call)
{
	return post_start(qp, (struct post){ .attr = attr, .list = true }, ret, waits, call);
}

static int message_start(struct nicd_qp *qp, uint32_t operation, const struct nicd_message *message, struct nicd_completion *ret,
			 bool waits, struct call **call)
{
	return post_start(qp, (struct post){ .attr = { .operation = operation, .message = message } }, ret, waits, call);
}

CALL_TWINS(nicd_qp_read, (struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret),
	   transfer_start(qp, NICD_WORK_READ, transfer, ret, waits, &call))

CALL_TWINS(nicd_qp_write, (struct nicd_qp *qp, const struct nicd_transfer *transfer, struct nicd_completion *ret),
	   transfer_start(qp, NICD_WORK_WRITE, transfer, ret, waits, &call))

#define LIST(op, op_flags) ((struct nicd_work_attr){ .operation = (op), .flags = (op_flags), .transfers = list, .count = count })

CALL_TWINS(nicd_qp_read_list,
	   (struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret),
	   list_start(qp, LIST(NICD_WORK_READ, 0), ret, waits, &call))

CALL_TWINS(nicd_qp_write_list,
	   (struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret),
	   list_start(qp, LIST(NICD_WORK_WRITE, 0), ret, waits, &call))

CALL_TWINS(nicd_qp_write_notify,
	   (struct nicd_qp *qp, const struct nicd_transfer *list, unsigned count, struct nicd_completion *ret),
	   list_start(qp, LIST(NICD_WORK_WRITE, NICD_OP_NOTIFY), ret, waits, &call))

CALL_TWINS(nicd_qp_send, (struct nicd_qp *qp, const struct nicd_message *message, struct nicd_completion *ret),
	   message_start(qp, NICD_WORK_SEND, message, ret, waits, &call))

CALL_TWINS(nicd_qp_receive, (struct nicd_qp *qp, const struct nicd_message *room, struct nicd_completion *ret),
	   message_start(qp, NICD_WORK_RECEIVE, room, ret, waits, &call))
