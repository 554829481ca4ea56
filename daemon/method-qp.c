/* SPDX-License-Identifier: MIT */
/*
 * Methods of queue pairs. ConnectQp lets nobody measure networks that they may not reach: whatever goes wrong before there is a
 * connection, and also what policy forbids, is one refusal after one time.
 */
#include "daemon/method.h"

#include <errno.h>
#include <string.h>

#include "daemon/util.h"
#include "nicd/op.h"
#include "proto/entry.h"
#include "proto/op-flags.h"

enum {
	CONNECT_DEFAULT_MS = 10000,
	CONNECT_MAX_MS = 60000,
};

static struct nic_qp *request_qp(const struct request *request)
{
	return container_of(request->objects[0], struct nic_qp, object);
}

/* ---- ConnectQp */

static void connect_refuse(struct call *call)
{
	call_answer(call, &call->error);
}

/* Now, or when the time that every refusal takes has passed. */
static void connect_refuse_later(struct call *call, const struct nicd_error *error)
{
	struct nic_env *env = call->client->host->env;
	uint64_t now = env->now(env);

	call->error = *error;
	if (now >= call->until || call->client->state == CLIENT_CLOSING) {
		connect_refuse(call);
		return;
	}
	call->idle = true;
	call_unserve(call);
	call_sleep(call, call->until - now);
}

static void connect_done(struct nic_done *done, const struct nicd_error *error)
{
	struct call *call = container_of(done, struct call, done);

	if (error && error->reason == NICD_R_CONNECT)
		connect_refuse_later(call, &(struct nicd_error){ .reason = NICD_R_CONNECT });
	else
		call_answer(call, error);
}

static int connect_prepare(struct request *request, struct call *call, uint32_t timeout_ms, struct nicd_error *err)
{
	struct nic_env *env = request->client->host->env;

	if (call_sleeper(call, connect_refuse) < 0)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	call->until = env->now(env) + timeout_ms * UINT64_C(1000000);
	call->done.fn = connect_done;
	return 0;
}

/* The admin learns from the journal what the client may not. */
static void connect_log_forbidden(struct request *request, const struct sockaddr_storage *addr)
{
	struct client_host *host = request->client->host;
	struct nicd_error error = { .reason = NICD_R_NETWORK, .observed = policy_port(addr) };

	host->log(host, request->client, request->method->name, &error);
}

int method_connect_qp(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__ConnectQp *args = request->args;
	struct client_host *host = request->client->host;
	struct nic_connect_terms terms = { .timeout_ms = args->timeout_ms ? args->timeout_ms : CONNECT_DEFAULT_MS };
	struct locator locator;
	int r;

	if (terms.timeout_ms > CONNECT_MAX_MS)
		return nicd_refuse_at(err, NICD_R_VALUE, CONNECT_MAX_MS, terms.timeout_ms);
	r = locator_parse(args->locator, &locator, err);
	if (r >= 0)
		r = connect_prepare(request, call, terms.timeout_ms, err);
	if (r < 0)
		return r;
	if (!policy_may_connect(host->policy, &locator.addr)) {
		connect_log_forbidden(request, &locator.addr);
		connect_refuse_later(call, &(struct nicd_error){ .reason = NICD_R_CONNECT });
		return 0;
	}
	terms.addr = locator.addr;
	memcpy(terms.ticket, locator.ticket, sizeof(terms.ticket));
	r = nic_qp_connect(&call->qp, container_of(request->objects[0], struct nic_pd, object), &terms, &call->done, err);
	explicit_bzero(&terms, sizeof(terms));
	explicit_bzero(&locator, sizeof(locator));
	return r;
}

void method_qp_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_qp(answer, call->qp);
}

/* ---- transfers */

SAME_OP_FLAGS(NIC_OP_);

void method_silence(struct call *call, const struct nic_qp *qp, uint32_t flags)
{
	/* Who has much under way must hear in time that there is room for more. */
	call->silent = (flags & NIC_OP_SILENT_SUCCESS) && !nic_qp_is_half_full(qp);
}

/*
 * DEFER is a hint, and the work goes out with the turn anyway. READ_LOCAL_INVALIDATE is ignored where the adapter does not have it,
 * as NDK says; none has.
 */
static int post(struct request *request, struct call *call, enum nic_op op, uint32_t flags, struct nic_request *what,
		struct nicd_error *err)
{
	int r = nic_op_check(op, flags, err);

	if (r < 0)
		return r;
	what->notify = flags & NIC_OP_NOTIFY;
	what->solicited = flags & NIC_OP_SOLICIT_EVENT;
	what->fence = flags & NIC_OP_READ_FENCE;
	what->is_inline = flags & NIC_OP_INLINE;
	method_silence(call, request_qp(request), flags);
	return nic_qp_post(request_qp(request), what, &call->work, &call->done, err);
}

/* Write begins with the fields of Read; both are lists of one entry. */
_Static_assert(sizeof(Nicd__Read) <= sizeof(Nicd__Write) && offsetof(Nicd__Read, flags) == offsetof(Nicd__Write, flags), "");

static int transfer_one(struct request *request, struct call *call, enum nic_op op, struct nic_request *what, struct nicd_error *err)
{
	const Nicd__Read *args = request->args;
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { 0 };
	int r;

	what->entries = entry;
	what->len = sizeof(entry);
	nicd_entry_put_local(entry, args->local_token, args->local_addr, args->length);
	nicd_entry_put_remote(entry, args->remote_token, args->remote_addr);
	r = post(request, call, op, args->flags, what, err);
	explicit_bzero(entry, sizeof(entry));   /* it may name the privileged token */
	return r;
}

int method_read(struct request *request, struct call *call, struct nicd_error *err)
{
	return transfer_one(request, call, NIC_OP_READ, &(struct nic_request){ .operation = NIC_READ }, err);
}

int method_write(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Write *args = request->args;
	struct nic_request what = {
		.operation = NIC_WRITE, .inline_data = args->inline_data.data, .inline_len = args->inline_data.len,
	};

	return transfer_one(request, call, NIC_OP_WRITE, &what, err);
}

int method_transfer_list(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__TransferList *args = request->args;
	bool write = args->operation == NICD__TRANSFER_LIST__OPERATION__WRITE;
	struct nic_request what = {
		.operation = write ? NIC_WRITE : NIC_READ, .entries = args->entries.data, .len = args->entries.len,
	};

	if (!write && args->operation != NICD__TRANSFER_LIST__OPERATION__READ)
		return nicd_refuse_at(err, NICD_R_VALUE, NICD__TRANSFER_LIST__OPERATION__WRITE, (uint64_t)args->operation);
	return post(request, call, write ? NIC_OP_WRITE_LIST : NIC_OP_READ_LIST, args->flags, &what, err);
}

int method_send(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Send *args = request->args;
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { 0 };
	struct nic_request what = {
		.operation = NIC_SEND, .entries = entry, .len = sizeof(entry), .invalidate = args->invalidate_token,
		.invalidate_token = args->invalidate_token, .inline_data = args->inline_data.data,
		.inline_len = args->inline_data.len,
	};
	int r;

	nicd_entry_put_local(entry, args->local_token, args->local_addr, args->length);
	r = post(request, call, NIC_OP_SEND, args->flags, &what, err);
	explicit_bzero(entry, sizeof(entry));
	return r;
}

int method_receive(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Receive *args = request->args;
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { 0 };
	struct nic_request what = { .operation = NIC_RECEIVE, .entries = entry, .len = sizeof(entry) };
	int r;

	nicd_entry_put_local(entry, args->local_token, args->local_addr, args->length);
	r = nic_qp_post(request_qp(request), &what, &call->work, &call->done, err);
	explicit_bzero(entry, sizeof(entry));
	return r;
}

void method_transfer_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_completion(answer, &call->work.cmd);
}

/* ---- the rest */

int method_flush(struct request *request, struct call *call, struct nicd_error *err)
{
	return nic_qp_flush(request_qp(request), &call->work, &call->done, err);
}

/*
 * Disconnect flushes, then takes the counters while the device has them, then disconnects. Until each step's answer has returned the
 * Qp is there, whoever closes it.
 */
static void disconnect_done(struct nic_done *done, const struct nicd_error *error)
{
	call_answer(container_of(done, struct call, done), error);
}

static void disconnect_counted(struct nic_done *done, const struct nicd_error *error)
{
	struct call *call = container_of(done, struct call, done);
	struct nicd_error err;

	done->fn = disconnect_done;
	if (nic_qp_disconnect(call->qp, done, &err) < 0)
		call_answer(call, &err);
}

static void disconnect_flushed(struct nic_done *done, const struct nicd_error *error)
{
	struct call *call = container_of(done, struct call, done);
	struct nicd_error err;

	done->fn = disconnect_counted;
	if (nic_qp_query(call->qp, &call->work, done, &err) < 0)
		call_answer(call, &err);
}

int method_disconnect(struct request *request, struct call *call, struct nicd_error *err)
{
	call->qp = request_qp(request);
	call->done.fn = disconnect_flushed;
	return nic_qp_flush(call->qp, &call->work, &call->done, err);
}

void method_nothing_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
}

/* By serial: only of this session, for an id means nothing to another. */
static struct nic_qp *query_find(struct request *request, struct nicd_error *err)
{
	const Nicd__QueryQp *args = request->args;
	struct nic_object *object = request->objects[0];

	if (object || args->serial == 0)
		return object ? request_qp(request) : (nicd_refuse(err, NICD_R_HANDLE), NULL);
	object = nic_find(request->client->host->nic, NIC_QP, args->serial);
	if (object && object->owner == &request->client->owner && object->id != 0)
		return container_of(object, struct nic_qp, object);
	nicd_refuse_at(err, NICD_R_SERIAL, 0, args->serial);
	return NULL;
}

int method_query_qp(struct request *request, struct call *call, struct nicd_error *err)
{
	call->qp = query_find(request, err);
	if (!call->qp)
		return -EINVAL;
	return nic_qp_query(call->qp, &call->work, &call->done, err);
}
