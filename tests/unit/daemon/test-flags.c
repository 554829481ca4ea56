/* SPDX-License-Identifier: MIT */
/*
 * The flags of work requests, as a session knows them: which request takes which, inline bytes and who pays for them, and successes of
 * which nobody is woken: what holds them back, and everything that brings them out.
 */
#include <string.h>

#include "tests/unit/daemon/rig.h"

#include "daemon/call.h"
#include "nicd/op.h"
#include "proto/locator.h"

enum { SILENT = NIC_OP_SILENT_SUCCESS };

static uint8_t bytes[NICD_INLINE + 1];

static struct rig_client *client(void **state, struct rig **rig)
{
	*rig = *state;
	return rig_hello(*rig, "uid:1", CLIENT_ROLE_CLIENT);
}

static uint64_t connected(struct rig_client *c, uint64_t pd)
{
	struct locator locator = { 0 };
	char text[LOCATOR_TEXT_MAX];
	Nicd__ConnectQp args = NICD__CONNECT_QP__INIT;

	assert_int_equal(locator_addr_parse("127.0.0.2:7190", &locator.addr), 0);
	memset(locator.ticket, 7, sizeof(locator.ticket));
	locator_print(&locator, text);
	args.pd = rig_id(c, pd);
	args.locator = text;
	assert_done(rig_call(c, NICD__REQUEST__CALL_CONNECT_QP, &args));
	return rig_reply(c, c->last_id)->qp->id;
}

/* Sends a write of 3 bytes and looks at nothing; its id. */
static uint32_t write_later(struct rig_client *c, uint64_t qp, uint32_t flags)
{
	Nicd__Write write = NICD__WRITE__INIT;

	write.qp = rig_id(c, qp);
	write.length = 3;
	write.flags = flags;
	rig_add(c, ++c->last_id, NICD__REQUEST__CALL_WRITE, &write);
	assert_true(rig_send(c, NULL, 0));
	return c->last_id;
}

/* Which flags, on every request that has some. */
static void test_each_request(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { 0 };
	Nicd__Read read = NICD__READ__INIT;
	Nicd__Write write = NICD__WRITE__INIT;
	Nicd__Send send = NICD__SEND__INIT;
	Nicd__TransferList list = NICD__TRANSFER_LIST__INIT;
	struct {
		Nicd__Request__CallCase call;
		void *args;
		Nicd__Ref **qp;
		uint32_t *flags;
		enum nic_op op;
		int operation;
	} rows[] = {
		{ NICD__REQUEST__CALL_READ, &read, &read.qp, &read.flags, NIC_OP_READ, 0 },
		{ NICD__REQUEST__CALL_WRITE, &write, &write.qp, &write.flags, NIC_OP_WRITE, 0 },
		{ NICD__REQUEST__CALL_SEND, &send, &send.qp, &send.flags, NIC_OP_SEND, 0 },
		{ NICD__REQUEST__CALL_TRANSFER_LIST, &list, &list.qp, &list.flags, NIC_OP_READ_LIST, 0 },
		{ NICD__REQUEST__CALL_TRANSFER_LIST, &list, &list.qp, &list.flags, NIC_OP_WRITE_LIST, 1 },
	};

	list.entries.data = entry;
	list.entries.len = sizeof(entry);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned bit = 0; bit < 32; bit++) {
			uint32_t flag = UINT32_C(1) << bit;
			struct nicd_error err = { 0 };
			const Nicd__Reply *reply;

			list.operation = (Nicd__TransferList__Operation)rows[i].operation;
			*rows[i].qp = rig_id(c, qp);
			*rows[i].flags = flag;
			reply = rig_call(c, rows[i].call, rows[i].args);
			/* mutation: check with the row of another request */
			nic_op_check(rows[i].op, flag, &err);
			rig_assert_reason(reply, err.reason, __FILE__, __LINE__);
			if (err.reason)
				assert_int_equal(reply->error->limit, err.limit);
			/* mutation: drop a flag on its way to the device, or add one */
			else
				assert_true(rig->fake->post.fence == (flag == NIC_OP_READ_FENCE) &&
					    rig->fake->post.is_inline == (flag == NIC_OP_INLINE) &&
					    rig->fake->post.notify == (flag == NIC_OP_NOTIFY) &&
					    rig->fake->post.solicited == (flag == NIC_OP_SOLICIT_EVENT));
			rig_forget(c);
		}
	}
}

/* What is in the request is as long as it says, and is paid for while it is at the device. */
static void test_inline(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c)), before;
	static const struct {
		uint32_t flags, length;
		size_t given;
		enum nicd_reason reason;
		uint32_t limit;
	} rows[] = {
		{ NIC_OP_INLINE, 5, 5, 0, 0 }, { NIC_OP_INLINE, 0, 0, 0, 0 }, { NIC_OP_INLINE, NICD_INLINE, NICD_INLINE, 0, 0 },
		{ NIC_OP_INLINE, 5, 4, NICD_R_INLINE_LENGTH, NICD_INLINE }, { NIC_OP_INLINE, 5, 6, NICD_R_INLINE_LENGTH, NICD_INLINE },
		{ NIC_OP_INLINE, 5, 0, NICD_R_INLINE_LENGTH, NICD_INLINE },
		{ NIC_OP_INLINE, NICD_INLINE + 1, NICD_INLINE + 1, NICD_R_INLINE_LENGTH, NICD_INLINE },
		{ NIC_OP_INLINE, NICD_INLINE + 1, NICD_INLINE, NICD_R_INLINE_LENGTH, NICD_INLINE }, { 0, 5, 5, NICD_R_INLINE_LENGTH, 0 },
	};
	struct nic_account *account = c->client->owner.account;

	fake_hold(rig->fake, FAKE_POST, true);
	for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
		Nicd__Write write = NICD__WRITE__INIT;
		Nicd__Send send = NICD__SEND__INIT;
		unsigned at = i / 2;
		const Nicd__Reply *reply;

		before = account->used[NIC_SLOT_BUFFERED];
		write.qp = send.qp = rig_id(c, qp);
		write.length = send.length = rows[at].length;
		write.flags = send.flags = rows[at].flags;
		write.inline_data = send.inline_data = (ProtobufCBinaryData){ .data = bytes, .len = rows[at].given };
		reply = i % 2 ? rig_call(c, NICD__REQUEST__CALL_WRITE, &write) : rig_call(c, NICD__REQUEST__CALL_SEND, &send);
		if (rows[at].reason) {
			/* mutation: don't compare with the length; allow bytes without the flag; let the limit be exceeded */
			rig_assert_reason(reply, rows[at].reason, __FILE__, __LINE__);
			assert_int_equal(reply->error->limit, rows[at].limit);
			assert_int_equal(reply->error->observed, rows[at].given);
		} else {
			assert_null(reply);
			assert_true(rig->fake->post.is_inline);
			/* mutation: charge the entry only */
			assert_int_equal(account->used[NIC_SLOT_BUFFERED] - before, NICD_TRANSFER_ENTRY_SIZE + rows[at].given);
			assert_true(fake_complete(rig->fake, FAKE_POST));
			assert_done(rig_reply(c, c->last_id));
			assert_int_equal(account->used[NIC_SLOT_BUFFERED], before);
		}
		rig_forget(c);
	}
}

static void test_inline_quota(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	struct nic_account *account = c->client->owner.account;
	Nicd__Write write = NICD__WRITE__INIT;

	write.qp = rig_id(c, qp);
	write.length = 1000;
	write.flags = NIC_OP_INLINE;
	write.inline_data = (ProtobufCBinaryData){ .data = bytes, .len = 1000 };
	account->limits.max[NIC_SLOT_BUFFERED] = 1000;
	/* mutation: let the bytes be free */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_WRITE, &write), QUOTA);
}

/* ---- silent successes */

/* Nobody is woken, and the reply is there once the next goes out. */
static void test_silence(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	uint32_t silent, loud;
	unsigned wakes;

	rig_forget(c);
	wakes = c->wakes;
	silent = write_later(c, qp, SILENT);
	/* mutation: wake for it */
	assert_int_equal(c->wakes, wakes);
	assert_int_equal(c->client->n_held, 1);
	/* mutation: keep the call while its reply is held */
	assert_int_equal(rig->host.n_calls, 0);
	fake_hold(rig->fake, FAKE_POST, true);
	wakes = c->wakes;
	loud = write_later(c, qp, 0);
	/* It is awake: what was silent comes with its next frame, not with the answer to that. mutation: only with another reply */
	assert_int_equal(c->wakes, wakes + 1);
	assert_done(rig_reply(c, silent));
	assert_null(rig_reply(c, loud));
	assert_int_equal(c->client->n_held, 0);
	assert_true(fake_complete(rig->fake, FAKE_POST));
	assert_done(rig_reply(c, loud));
	assert_int_equal(rig_n_replies(c), 2);
}

/* In its place: before what was answered after it. */
static void test_order(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	Nicd__Write write[3] = { NICD__WRITE__INIT, NICD__WRITE__INIT, NICD__WRITE__INIT };
	uint32_t first = c->last_id + 1;

	rig_forget(c);
	for (unsigned i = 0; i < 3; i++) {
		write[i].qp = rig_id(c, qp);
		write[i].flags = i < 2 ? SILENT : 0;
		rig_add(c, ++c->last_id, NICD__REQUEST__CALL_WRITE, &write[i]);
	}
	assert_true(rig_send(c, NULL, 0));
	assert_int_equal(rig_n_replies(c), 3);
	/* mutation: put what is held behind what is not */
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(c->frames[0]->replies[i]->id, first + i);
}

static void test_failure_is_told(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	uint32_t id;
	unsigned wakes;

	rig_forget(c);
	fake_hold(rig->fake, FAKE_POST, true);
	id = write_later(c, qp, SILENT);
	wakes = c->wakes;
	fake_complete_with(rig->fake, FAKE_POST, NICD_R_REMOTE_RANGE);
	/* mutation: hold failures too */
	assert_int_equal(c->wakes, wakes + 1);
	assert_reason(rig_reply(c, id), REMOTE_RANGE);
	assert_non_null(rig_reply(c, id)->completion);
	/* Refused at once. */
	rig_forget(c);
	wakes = c->wakes;
	write_later(c, qp, SILENT | NIC_OP_REMOTE_READ);
	assert_int_equal(c->wakes, wakes + 1);
	assert_reason(rig_reply(c, c->last_id), OP_FLAGS);
}

/* However many there are, nicd keeps a few. */
static void test_sixty_four(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	unsigned wakes;

	rig_forget(c);
	fake_hold(rig->fake, FAKE_POST, true);
	for (unsigned i = 0; i < CLIENT_HELD; i++)
		write_later(c, qp, SILENT);
	rig_forget(c);
	wakes = c->wakes;
	for (unsigned i = 0; i < CLIENT_HELD - 1; i++)
		assert_true(fake_complete(rig->fake, FAKE_POST));
	assert_int_equal(c->wakes, wakes);
	assert_int_equal(c->client->n_held, CLIENT_HELD - 1);
	assert_true(fake_complete(rig->fake, FAKE_POST));
	/* mutation: hold any number of them */
	assert_int_equal(c->wakes, wakes + 1);
	assert_int_equal(rig_n_replies(c), CLIENT_HELD);
	assert_int_equal(c->client->n_held, 0);
}

/* What is held is paid for, and never what keeps the frame from being read that brings it out. */
static void test_held_and_full(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	struct nic_account *account = c->client->owner.account;
	unsigned wakes;

	rig_forget(c);
	fake_hold(rig->fake, FAKE_POST, true);
	for (unsigned i = 0; i < 2; i++)
		write_later(c, qp, SILENT);
	rig_forget(c);
	assert_true(fake_complete(rig->fake, FAKE_POST));
	assert_int_equal(account->used[NIC_SLOT_BUFFERED] - NICD_TRANSFER_ENTRY_SIZE, c->client->out.bytes);
	assert_true(c->client->out.bytes > 0);
	account->limits.max[NIC_SLOT_BUFFERED] = 1;
	wakes = c->wakes;
	assert_true(fake_complete(rig->fake, FAKE_POST));
	/* mutation: hold replies while the account's output is full */
	assert_int_equal(c->wakes, wakes + 1);
	assert_int_equal(rig_n_replies(c), 2);
}

/* Who has half of what the Qp takes under way is told in time that there is room. */
static void test_half_full(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	unsigned wakes;

	fake_hold(rig->fake, FAKE_POST, true);
	for (unsigned i = 0; i < NICD_QP_WORK / 2 + 1; i++)
		write_later(c, qp, SILENT);
	rig_forget(c);
	wakes = c->wakes;
	/* mutation: always be silent */
	assert_true(fake_complete_newest(rig->fake, FAKE_POST));
	assert_int_equal(c->wakes, wakes + 1);
	rig_forget(c);
	wakes = c->wakes;
	assert_true(fake_complete_newest(rig->fake, FAKE_POST));
	/* mutation: never be silent when more than half is under way at the end */
	assert_int_equal(c->wakes, wakes);
	fake_complete_all(rig->fake);
	rig_forget(c);
}

/* Flush, Disconnect and Close bring them out, before their own answers; and what they cancel is told in order, silent or not. */
static void test_brought_out(void **state)
{
	static const Nicd__Request__CallCase calls[] = {
		NICD__REQUEST__CALL_FLUSH, NICD__REQUEST__CALL_DISCONNECT, NICD__REQUEST__CALL_CLOSE,
	};

	for (unsigned i = 0; i < 3; i++) {
		struct rig *rig;
		struct rig_client *c = client(state, &rig);
		uint64_t qp = connected(c, rig_pd(c));
		Nicd__Flush args = NICD__FLUSH__INIT;   /* all three are one Ref */
		uint32_t first = c->last_id + 1, last;
		unsigned n = 0;

		rig_forget(c);
		fake_hold(rig->fake, FAKE_POST, true);
		for (unsigned j = 0; j < 4; j++)
			write_later(c, qp, j % 2 ? 0 : SILENT);
		assert_true(fake_complete(rig->fake, FAKE_POST));
		assert_int_equal(c->client->n_held, 1);
		args.qp = rig_id(c, qp);
		rig_add(c, last = ++c->last_id, calls[i], &args);
		if (calls[i] == NICD__REQUEST__CALL_DISCONNECT)
			args.base.descriptor = &nicd__disconnect__descriptor;
		if (calls[i] == NICD__REQUEST__CALL_CLOSE)
			args.base.descriptor = &nicd__close__descriptor;
		fake_hold(rig->fake, FAKE_FLUSH, true);
		fake_hold(rig->fake, FAKE_DISCONNECT, true);
		assert_true(rig_send(c, NULL, 0));
		while (fake_pending(rig->fake, FAKE_POST))
			fake_complete_with(rig->fake, FAKE_POST, NICD_R_FLUSHED);
		fake_hold(rig->fake, FAKE_FLUSH, false);
		fake_hold(rig->fake, FAKE_DISCONNECT, false);
		fake_complete_all(rig->fake);
		assert_done(rig_reply(c, first));
		for (uint32_t id = first + 1; id < last; id++)
			/* mutation: a cancelled silent one is not told */
			assert_reason(rig_reply(c, id), FLUSHED);
		assert_done(rig_reply(c, last));
		/* mutation: forget what is held when the Qp goes; answer Close before */
		for (unsigned f = 0; f < c->n_frames; f++)
			for (size_t j = 0; j < c->frames[f]->n_replies; j++)
				assert_int_equal(c->frames[f]->replies[j]->id, first + n++);
		assert_int_equal(n, last - first + 1);
		fake_hold(rig->fake, FAKE_POST, false);
		rig_forget(c);
	}
}

/* A request that names one which then succeeds silently starts nevertheless. */
static void test_dependents(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));
	Nicd__Write write = NICD__WRITE__INIT;
	Nicd__CreateMr create = NICD__CREATE_MR__INIT;
	unsigned wakes;

	rig_forget(c);
	fake_hold(rig->fake, FAKE_POST, true);
	write.qp = rig_id(c, qp);
	write.flags = SILENT;
	rig_add(c, ++c->last_id, NICD__REQUEST__CALL_WRITE, &write);
	create.pd = rig_result(c, c->last_id);   /* which makes no PD */
	rig_add(c, ++c->last_id, NICD__REQUEST__CALL_CREATE_MR, &create);
	assert_true(rig_send(c, NULL, 0));
	rig_forget(c);
	wakes = c->wakes;
	assert_true(fake_complete(rig->fake, FAKE_POST));
	/* mutation: hold the reply although others wait for the request */
	assert_int_equal(c->wakes, wakes + 1);
	assert_reason(rig_reply(c, c->last_id), HANDLE);
}

/* The session ends with replies held: they go with it. */
static void test_end(void **state)
{
	struct rig *rig;
	struct rig_client *c = client(state, &rig);
	uint64_t qp = connected(c, rig_pd(c));

	write_later(c, qp, SILENT);
	assert_int_equal(c->client->n_held, 1);
	/* mutation: keep a call for each; rig_teardown counts */
	rig_end(c);
	assert_null(c->client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_each_request),
		rig_test(test_inline),
		rig_test(test_inline_quota),
		rig_test(test_silence),
		rig_test(test_order),
		rig_test(test_failure_is_told),
		rig_test(test_sixty_four),
		rig_test(test_held_and_full),
		rig_test(test_half_full),
		rig_test(test_brought_out),
		rig_test(test_dependents),
		rig_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
