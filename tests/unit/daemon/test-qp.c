/* SPDX-License-Identifier: MIT */
/* Queue pairs through the protocol: connecting, what refusals may tell, transfers and how they end. */
#include "tests/unit/daemon/rig.h"

#include <arpa/inet.h>
#include <string.h>

#include "proto/locator.h"

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

static const Nicd__Reply *connect_to(struct rig_client *c, uint64_t pd, const char *addr, uint32_t timeout_ms)
{
	Nicd__ConnectQp args = NICD__CONNECT_QP__INIT;
	struct locator locator = { .ticket = "0123456789abcde" };
	char text[LOCATOR_TEXT_MAX];

	assert_int_equal(locator_addr_parse(addr, &locator.addr), 0);
	locator_print(&locator, text);
	args.pd = rig_id(c, pd);
	args.locator = text;
	args.timeout_ms = timeout_ms;
	return rig_call(c, NICD__REQUEST__CALL_CONNECT_QP, &args);
}

static uint64_t connected(struct rig_client *c, uint64_t pd)
{
	const Nicd__Reply *reply = connect_to(c, pd, "127.0.0.2:7190", 0);

	assert_done(reply);
	return reply->qp->id;
}

static void test_connect(void **state)
{
	struct rig_client *c = client(state);
	uint64_t pd = rig_pd(c);
	const Nicd__Reply *reply = connect_to(c, pd, "127.0.0.2:7190", 0);
	const struct nic_connect *asked = &c->rig->fake->connect;
	char addr[64];

	assert_done(reply);
	assert_int_equal(reply->qp->id >> 56, NIC_QP);
	assert_string_equal(reply->qp->peer, "127.0.0.2:7190");
	assert_true(reply->qp->connected);
	assert_false(reply->qp->inbound);
	assert_int_equal(reply->qp->grant->remote_token, 0x5151);
	assert_int_equal(reply->qp->grant->length, 4096);
	assert_int_equal(reply->qp->grant->incarnation, 77);
	locator_addr_print(&asked->addr, addr);
	assert_string_equal(addr, "127.0.0.2:7190");
	assert_memory_equal(asked->ticket, "0123456789abcde", 16);
	/* mutation: another default */
	assert_int_equal(asked->timeout_ms, 10000);
	assert_int_equal(c->rig->n_timers, 0);
	assert_done(connect_to(c, pd, "127.0.0.2:7190", 60000));
	assert_int_equal(asked->timeout_ms, 60000);
}

static void test_connect_refused_at_once(void **state)
{
	struct rig_client *c = client(state);
	Nicd__ConnectQp args = NICD__CONNECT_QP__INIT;
	uint64_t pd = rig_pd(c);

	args.pd = rig_id(c, pd);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CONNECT_QP, &args), LOCATOR);
	args.pd = rig_id(c, pd);
	args.locator = "nicd1:nonsense";
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CONNECT_QP, &args), LOCATOR);
	assert_reason(connect_to(c, pd, "127.0.0.2:7190", 60001), VALUE);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, 60000);
	assert_reason(connect_to(c, 0, "127.0.0.2:7190", 0), HANDLE);
	c->client->owner.account->limits.max[NIC_SLOT_QPS] = 0;
	assert_reason(connect_to(c, pd, "127.0.0.2:7190", 0), QUOTA);
	assert_int_equal(c->rig->fake->calls[FAKE_CONNECT], 0);
	assert_int_equal(c->rig->n_timers, 0);
}

/* What policy forbids, what is refused, and what is silent: the same words after the same time. */
static void test_connect_refusals_look_alike(void **state)
{
	struct rig_client *c = client(state);
	struct rig *rig = c->rig;
	uint64_t pd = rig_pd(c);
	uint32_t forbidden, refused, silent;
	const Nicd__Error *errors[3];

	assert_null(connect_to(c, pd, "10.0.0.1:7190", 3000));
	/* mutation: refuse at once what policy forbids */
	forbidden = c->last_id;
	assert_int_equal(rig->fake->calls[FAKE_CONNECT], 0);
	/* mutation: log what policy forbids like any other failure */
	assert_int_equal(rig->last_log.reason, NICD_R_NETWORK);
	assert_int_equal(rig->last_log.observed, 7190);
	fake_fail(rig->fake, FAKE_CONNECT, 0, 1, NICD_R_CONNECT);
	/* mutation: answer the device's refusal when it comes */
	assert_null(connect_to(c, pd, "127.0.0.2:7190", 3000));
	refused = c->last_id;
	fake_hold(rig->fake, FAKE_CONNECT, true);
	assert_null(connect_to(c, pd, "127.0.0.3:7190", 3000));
	silent = c->last_id;
	assert_int_equal(rig->fake->calls[FAKE_CONNECT], 2);
	rig_advance(rig, UINT64_C(2999999999));
	assert_null(rig_reply(c, forbidden));
	assert_null(rig_reply(c, refused));
	rig_advance(rig, 1);
	fake_complete_with(rig->fake, FAKE_CONNECT, NICD_R_CONNECT);
	assert_reason(rig_reply(c, forbidden), CONNECT);
	assert_reason(rig_reply(c, refused), CONNECT);
	assert_reason(rig_reply(c, silent), CONNECT);
	errors[0] = rig_reply(c, forbidden)->error;
	errors[1] = rig_reply(c, refused)->error;
	errors[2] = rig_reply(c, silent)->error;
	for (unsigned i = 1; i < 3; i++) {
		/* mutation: pass the device's figures on */
		assert_int_equal(errors[i]->limit, errors[0]->limit);
		assert_int_equal(errors[i]->observed, errors[0]->observed);
		assert_int_equal(errors[i]->provider_error, errors[0]->provider_error);
	}
	assert_int_equal(rig->host.n_calls, 0);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

/* The port is part of what policy allows. */
static void test_connect_policy_port(void **state)
{
	struct rig_client *c = client(state);

	assert_null(connect_to(c, rig_pd(c), "127.0.0.1:22", 1));
	assert_int_equal(c->rig->fake->calls[FAKE_CONNECT], 0);
	rig_advance(c->rig, 1000000);
	assert_reason(rig_reply(c, c->last_id), CONNECT);
}

/* The session ends while a refusal is still held back: the alarm goes off for nobody. */
static void test_connect_and_end(void **state)
{
	struct rig_client *c = client(state);
	struct rig *rig = c->rig;
	uint64_t pd = rig_pd(c);

	assert_null(connect_to(c, pd, "10.0.0.1:7190", 3000));
	fake_fail(rig->fake, FAKE_CONNECT, 0, 1, NICD_R_CONNECT);
	assert_null(connect_to(c, pd, "127.0.0.2:7190", 3000));
	fake_hold(rig->fake, FAKE_CONNECT, true);
	assert_null(connect_to(c, pd, "127.0.0.3:7190", 3000));
	rig_end(c);
	/* mutation: let what sleeps keep the session */
	assert_non_null(c->client);
	assert_int_equal(rig->host.n_calls, 1);
	fake_complete_with(rig->fake, FAKE_CONNECT, NICD_R_CONNECT);
	rig_end(c);
	assert_null(c->client);
	/* mutation: leave the call in the alarm */
	rig_advance(rig, UINT64_C(5000000000));
}

/* ---- transfers */

struct entry {
	uint32_t local_token, remote_token;
	uint64_t local_addr, remote_addr;
	uint32_t length, zero;
} __attribute__((packed));

static const Nicd__Reply *transfer(struct rig_client *c, uint64_t qp, int operation, const void *entries, size_t len)
{
	Nicd__TransferList args = NICD__TRANSFER_LIST__INIT;

	args.qp = rig_id(c, qp);
	args.operation = (Nicd__TransferList__Operation)operation;
	args.entries.data = (uint8_t *)entries;
	args.entries.len = len;
	return rig_call(c, NICD__REQUEST__CALL_TRANSFER_LIST, &args);
}

static void test_read_write(void **state)
{
	struct rig_client *c = client(state);
	uint64_t pd = rig_pd(c), qp = connected(c, pd);
	Nicd__Read read = NICD__READ__INIT;
	Nicd__Write write = NICD__WRITE__INIT;
	const Nicd__Reply *reply;

	read.qp = rig_id(c, qp);
	read.length = 100;
	reply = rig_call(c, NICD__REQUEST__CALL_READ, &read);
	assert_done(reply);
	assert_int_equal(reply->completion->entries, 1);
	assert_int_equal(reply->completion->bytes, 100);
	assert_int_equal(c->rig->fake->post.operation, NIC_READ);
	assert_int_equal(c->rig->fake->post.n_entries, 1);
	write.qp = rig_id(c, qp);
	write.length = 0;
	reply = rig_call(c, NICD__REQUEST__CALL_WRITE, &write);
	assert_done(reply);
	assert_int_equal(c->rig->fake->post.operation, NIC_WRITE);
	read.qp = rig_id(c, qp);
	read.flags = NICD__OP_FLAG__OP_INLINE;
	/* mutation: ignore flags */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_READ, &read), OP_FLAGS);
	write.qp = rig_id(c, qp);
	write.flags = 0x400;
	assert_reason(rig_call(c, NICD__REQUEST__CALL_WRITE, &write), FLAGS);
	read.flags = 0;
	read.qp = rig_id(c, pd);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_READ, &read), HANDLE_TYPE);
	assert_null(rig_reply(c, c->last_id)->completion);
}

/* A single Read looks to the device like an entry of a list. */
static uint8_t posted_entry[NICD_TRANSFER_ENTRY_SIZE];
static void (*fake_qp_post)(struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd);

static void spy_post(struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd)
{
	memcpy(posted_entry, what->entries, sizeof(posted_entry));
	fake_qp_post(p, what, cmd);
}

static void test_entry(void **state)
{
	struct rig_client *c = client(state);
	uint64_t qp = connected(c, rig_pd(c));
	struct nic_provider_ops ops = *c->rig->fake->provider.ops;
	const struct nic_provider_ops *before = c->rig->fake->provider.ops;
	static const uint8_t wanted[NICD_TRANSFER_ENTRY_SIZE] = {
		4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11, 8, 7, 6, 5, 4, 3, 2, 1, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 5,
	};
	Nicd__Read read = NICD__READ__INIT;

	fake_qp_post = ops.qp_post;
	ops.qp_post = spy_post;
	c->rig->fake->provider.ops = &ops;
	read.qp = rig_id(c, qp);
	read.local_token = 0x01020304;
	read.remote_token = 0x11121314;
	read.local_addr = UINT64_C(0x0102030405060708);
	read.remote_addr = UINT64_C(0x2122232425262728);
	read.length = 5;
	assert_done(rig_call(c, NICD__REQUEST__CALL_READ, &read));
	/* mutation: swap two fields, or their bytes */
	assert_memory_equal(posted_entry, wanted, sizeof(wanted));
	c->rig->fake->provider.ops = before;
}

static void test_transfer_list(void **state)
{
	struct rig_client *c = client(state);
	uint64_t qp = connected(c, rig_pd(c));
	static struct entry entries[NICD_TRANSFER_ENTRIES + 1];
	const Nicd__Reply *reply;

	for (unsigned i = 0; i < NICD_TRANSFER_ENTRIES; i++)
		entries[i].length = 1;
	reply = transfer(c, qp, NICD__TRANSFER_LIST__OPERATION__WRITE, entries, NICD_TRANSFER_ENTRIES * 32);
	assert_done(reply);
	assert_int_equal(reply->completion->entries, NICD_TRANSFER_ENTRIES);
	assert_int_equal(reply->completion->bytes, NICD_TRANSFER_ENTRIES);
	assert_reason(transfer(c, qp, 0, entries, 0), TRANSFER_ENTRIES);
	assert_reason(transfer(c, qp, 0, entries, 31), TRANSFER_ENTRIES);
	assert_reason(transfer(c, qp, 0, entries, sizeof(entries)), TRANSFER_ENTRIES);
	/* mutation: an unknown operation is a read */
	assert_reason(transfer(c, qp, 2, entries, 32), VALUE);
	assert_reason(transfer(c, qp, -1, entries, 32), VALUE);
	assert_int_equal(c->rig->fake->calls[FAKE_POST], 1);
}

/* A failure has both: the error, and how far it came. */
static void test_transfer_fails(void **state)
{
	struct rig_client *c = client(state);
	uint64_t qp = connected(c, rig_pd(c));
	static struct entry entries[3];
	Nicd__Read read = NICD__READ__INIT;
	Nicd__Write write = NICD__WRITE__INIT;
	const Nicd__Reply *reply;

	fake_fail(c->rig->fake, FAKE_POST, 0, 1, NICD_R_REMOTE_TOKEN);
	reply = transfer(c, qp, 0, entries, sizeof(entries));
	assert_reason(reply, REMOTE_TOKEN);
	assert_int_equal(reply->error->status, NICD__STATUS__REMOTE_ERROR);
	/* mutation: no METHOD_ALWAYS on transfers */
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT_COMPLETION);
	fake_fail(c->rig->fake, FAKE_POST, 0, 2, NICD_R_REMOTE_RANGE);
	read.qp = rig_id(c, qp);
	reply = rig_call(c, NICD__REQUEST__CALL_READ, &read);
	assert_reason(reply, REMOTE_RANGE);
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT_COMPLETION);
	write.qp = rig_id(c, qp);
	reply = rig_call(c, NICD__REQUEST__CALL_WRITE, &write);
	assert_reason(reply, REMOTE_RANGE);
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT_COMPLETION);
}

/* As List shows it, which asks the device first. */
static uint32_t qp_in_flight(struct rig_client *c)
{
	Nicd__List list = NICD__LIST__INIT;
	const Nicd__Reply *reply;

	list.type = NICD__TYPE__QP;
	reply = rig_call(c, NICD__REQUEST__CALL_LIST, &list);
	assert_done(reply);
	assert_int_equal(reply->list->n_items, 1);
	return reply->list->items[0]->count;
}

static void test_flush_disconnect(void **state)
{
	struct rig_client *c = client(state);
	uint64_t qp = connected(c, rig_pd(c));
	static struct entry entries[1];
	Nicd__Flush flush = NICD__FLUSH__INIT;
	Nicd__Disconnect disconnect = NICD__DISCONNECT__INIT;
	Nicd__QueryQp query = NICD__QUERY_QP__INIT;
	const Nicd__Reply *reply;
	uint32_t posted;

	fake_hold(c->rig->fake, FAKE_POST, true);
	assert_null(transfer(c, qp, 0, entries, 32));
	posted = c->last_id;
	/* mutation: count what List itself asks the device, or don't count what is posted */
	assert_int_equal(qp_in_flight(c), 1);
	flush.qp = rig_id(c, qp);
	assert_done(rig_call(c, NICD__REQUEST__CALL_FLUSH, &flush));
	assert_int_equal(rig_reply(c, c->last_id)->result_case, NICD__REPLY__RESULT__NOT_SET);
	fake_complete_with(c->rig->fake, FAKE_POST, NICD_R_FLUSHED);
	assert_reason(rig_reply(c, posted), FLUSHED);
	assert_int_equal(qp_in_flight(c), 0);
	query.qp = rig_id(c, qp);
	reply = rig_call(c, NICD__REQUEST__CALL_QUERY_QP, &query);
	assert_done(reply);
	assert_int_equal(reply->qp->bytes_read, 1);
	assert_int_equal(reply->qp->peer_written, 4);
	assert_true(reply->qp->connected);
	disconnect.qp = rig_id(c, qp);
	assert_done(rig_call(c, NICD__REQUEST__CALL_DISCONNECT, &disconnect));
	disconnect.qp = rig_id(c, qp);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_DISCONNECT, &disconnect), QP_STATE);
	/* The object stays: its counters can be read. */
	query.qp = rig_id(c, qp);
	reply = rig_call(c, NICD__REQUEST__CALL_QUERY_QP, &query);
	assert_done(reply);
	assert_false(reply->qp->connected);
	assert_reason(transfer(c, qp, 0, entries, 32), QP_STATE);
	assert_done(rig_close(c, qp));
	assert_int_equal(rig_reply(c, c->last_id)->result_case, NICD__REPLY__RESULT__NOT_SET);
}

/* Disconnect flushes, keeps the last counters, then disconnects. */
static void test_disconnect_steps(void **state)
{
	static const enum fake_op steps[] = { FAKE_FLUSH, FAKE_QUERY, FAKE_DISCONNECT };
	struct rig_client *c = client(state);
	uint64_t qp = connected(c, rig_pd(c));
	Nicd__Disconnect disconnect = NICD__DISCONNECT__INIT;
	Nicd__QueryQp query = NICD__QUERY_QP__INIT;

	fake_hold(c->rig->fake, FAKE_OPS, true);
	disconnect.qp = rig_id(c, qp);
	assert_null(rig_call(c, NICD__REQUEST__CALL_DISCONNECT, &disconnect));
	for (unsigned i = 0; i < 3; i++) {
		assert_null(rig_reply(c, c->last_id));
		assert_int_equal(fake_pending(c->rig->fake, FAKE_OPS), 1);
		/* mutation: leave out a step */
		assert_true(fake_complete(c->rig->fake, steps[i]));
	}
	assert_done(rig_reply(c, c->last_id));
	query.qp = rig_id(c, qp);
	/* mutation: disconnect without asking for the counters */
	assert_int_equal(rig_call(c, NICD__REQUEST__CALL_QUERY_QP, &query)->qp->bytes_read, 1);
}

/* Closed by us, or lost, after each of the steps: one answer, and no harm. */
static void test_disconnect_overtaken(void **state)
{
	for (unsigned what = 0; what < 6; what++) {
		struct rig_client *c = client(state);
		uint64_t qp = connected(c, rig_pd(c)), serial = rig_serial_of(c, qp);
		Nicd__Disconnect disconnect = NICD__DISCONNECT__INIT;
		uint32_t id;

		fake_hold(c->rig->fake, FAKE_OPS, true);
		disconnect.qp = rig_id(c, qp);
		assert_null(rig_call(c, NICD__REQUEST__CALL_DISCONNECT, &disconnect));
		id = c->last_id;
		for (unsigned i = 0; i < what / 2; i++)
			assert_true(fake_complete(c->rig->fake, FAKE_OPS));
		if (what % 2)
			rig_close(c, qp);
		else
			fake_stream_close(c->rig->fake, serial, NICD_R_PEER_CLOSED, NULL);
		fake_complete_all(c->rig->fake);
		/* mutation: go on with the next step on a Qp that is gone */
		assert_non_null(rig_reply(c, id));
		assert_int_equal(c->rig->host.n_calls, 0);
		fake_hold(c->rig->fake, FAKE_OPS, false);
	}
}

/* The peer goes: news, and the work that was under way has its answers. */
static void test_lost(void **state)
{
	struct rig_client *c = client(state);
	uint64_t qp = connected(c, rig_pd(c)), serial = rig_serial_of(c, qp);
	static struct entry entries[1];
	const Nicd__Event *event;
	uint32_t posted;

	fake_hold(c->rig->fake, FAKE_POST, true);
	assert_null(transfer(c, qp, 0, entries, 32));
	posted = c->last_id;
	fake_complete_with(c->rig->fake, FAKE_POST, NICD_R_QP_LOST);
	fake_stream_close(c->rig->fake, serial, NICD_R_PEER_CLOSED, NULL);
	assert_reason(rig_reply(c, posted), QP_LOST);
	event = rig_event(c, NICD__EVENT__KIND__DISCONNECTED);
	assert_non_null(event);
	assert_int_equal(event->object, qp);
	assert_int_equal(event->serial, serial);
	assert_string_equal(event->error->name, "PEER_CLOSED");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_connect),
		rig_test(test_connect_refused_at_once),
		rig_test(test_connect_refusals_look_alike),
		rig_test(test_connect_policy_port),
		rig_test(test_connect_and_end),
		rig_test(test_read_write),
		rig_test(test_entry),
		rig_test(test_transfer_list),
		rig_test(test_transfer_fails),
		rig_test(test_flush_disconnect),
		rig_test(test_disconnect_steps),
		rig_test(test_disconnect_overtaken),
		rig_test(test_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
