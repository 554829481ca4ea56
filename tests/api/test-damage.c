/* SPDX-License-Identifier: MIT */
/*
 * Frames as nicd would send them, damaged at random (from a seed), while a call of every kind is under way. Whatever comes, every
 * callback is called once, nothing is read or written where it should not be, and nothing is left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/api/fake.h"

enum { ROUNDS = 1500, CALLS = 12 };

static uint64_t random_state;

/* xorshift64*: the same in every run. */
static uint32_t draw(uint32_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1d) >> 32) % below;
}

/* What the calls fill in; it outlives the session. */
struct outputs {
	struct told told[CALLS];
	uint32_t token, local[2], remote[2];
	struct nicd_receipt receipt;
	struct nicd_completion completion;
	struct nicd_qp_info qp_info;
};

/* PD 2, memory 3, MR 4, Qp 5, then calls 6 to 17 on them. */
static void ask_everything(struct fake *fake, struct outputs *o)
{
	struct nicd_mr_attr mr_attr = { .size = sizeof(mr_attr) };
	struct nicd_export_attr export_attr = { .size = sizeof(export_attr), .name = "x" };
	struct nicd_connect_attr connect = { .size = sizeof(connect), .locator = "nicd1:x" };
	struct nicd_transfer t = { .length = 1 };
	struct nicd_export *door;
	struct nicd_ledger *ledger;
	struct nicd_buffer *buffer;
	struct nicd_list *list;
	struct nicd_mr *mr, *mrs[2];
	struct nicd_pd *pd;
	struct nicd_qp *qp;
	struct nicd *n = fake->n;
	unsigned i = 0;

	o->receipt.size = sizeof(o->receipt);
	o->completion.size = sizeof(o->completion);
	o->qp_info.size = sizeof(o->qp_info);
	assert_int_equal(nicd_pd_create_async(n, 0, &pd, NULL, NULL), 0);
	assert_int_equal(nicd_buffer_new_async(n, 4096, 0, &buffer, NULL, NULL), 0);
	assert_int_equal(nicd_mr_create_async(pd, &mr, NULL, NULL), 0);
	assert_int_equal(nicd_qp_connect_async(pd, &connect, &qp, NULL, NULL), 0);
	mr_attr.buffer = buffer;
	mrs[0] = mrs[1] = mr;
	assert_int_equal(nicd_mr_register_async(mr, &mr_attr, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_mr_get_local_token_async(mr, &o->token, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_query_tokens_async(n, mrs, 2, o->local, o->remote, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_export_create_async(mr, &export_attr, &door, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_qp_read_async(qp, &t, &o->completion, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_qp_query_async(qp, &o->qp_info, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_mr_deregister_async(mr, &o->receipt, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_list_new(n, NICD_TYPE_MR, &list), 0);
	assert_int_equal(nicd_list_fetch_async(list, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_ledger_new(n, &ledger), 0);
	assert_int_equal(nicd_ledger_fetch_async(ledger, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_adapter_query_async(n, 0, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_mr_close_async(mr, tell, &o->told[i++]), 0);
	assert_int_equal(nicd_buffer_close_async(buffer, tell, &o->told[i++]), 0);
	assert_int_equal(i, CALLS);
}

static void fill_lists(struct fake *fake)
{
	Nicd__Item item = NICD__ITEM__INIT;
	Nicd__Item *items[3] = { &item, &item, &item };
	Nicd__ListReply list = NICD__LIST_REPLY__INIT;
	Nicd__Charge charge = NICD__CHARGE__INIT;
	Nicd__Charge *charges[2] = { &charge, &charge };
	Nicd__AccountLedger account = NICD__ACCOUNT_LEDGER__INIT;
	Nicd__AccountLedger *accounts[2] = { &account, &account };
	Nicd__LedgerReply ledger = NICD__LEDGER_REPLY__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	item.name = item.peer = item.state = item.account = charge.slot = account.account = (char *)"some text";
	list.items = items;
	list.n_items = 3;
	reply.id = 13;
	reply.result_case = NICD__REPLY__RESULT_LIST;
	reply.list = &list;
	fake_reply(fake, &reply);
	account.charges = charges;
	account.n_charges = 2;
	ledger.accounts = accounts;
	ledger.n_accounts = 2;
	reply.id = 14;
	reply.result_case = NICD__REPLY__RESULT_LEDGER;
	reply.ledger = &ledger;
	fake_reply(fake, &reply);
}

static void fill_tokens(struct fake *fake)
{
	uint32_t tokens[2] = { 1, 2 };
	uint64_t exports[2] = { 3, 4 };
	Nicd__TokenList list = NICD__TOKEN_LIST__INIT;
	Nicd__Receipt receipt = NICD__RECEIPT__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	reply.id = 7;
	reply.result_case = NICD__REPLY__RESULT_TOKEN;
	reply.token = 5;
	fake_reply(fake, &reply);
	list.local_tokens = list.remote_tokens = tokens;
	list.n_local_tokens = list.n_remote_tokens = 2;
	reply.id = 8;
	reply.result_case = NICD__REPLY__RESULT_TOKENS;
	reply.tokens = &list;
	fake_reply(fake, &reply);
	receipt.exports = exports;
	receipt.n_exports = 2;
	reply.id = 12;
	reply.result_case = NICD__REPLY__RESULT_RECEIPT;
	reply.receipt = &receipt;
	fake_reply(fake, &reply);
}

static void fill_peers(struct fake *fake)
{
	Nicd__Grant grant = NICD__GRANT__INIT;
	Nicd__QpInfo qp = NICD__QP_INFO__INIT;
	Nicd__DoorInfo door = NICD__DOOR_INFO__INIT;
	Nicd__Completion completion = NICD__COMPLETION__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	qp.id = 105;
	qp.grant = &grant;
	qp.peer = (char *)"127.0.0.1:1";
	reply.result_case = NICD__REPLY__RESULT_QP;
	reply.qp = &qp;
	reply.id = 5;
	fake_reply(fake, &reply);
	reply.id = 11;
	fake_reply(fake, &reply);
	door.id = 106;
	door.locator = (char *)"nicd1:locator";
	reply.id = 9;
	reply.result_case = NICD__REPLY__RESULT_DOOR;
	reply.door = &door;
	fake_reply(fake, &reply);
	reply.id = 10;
	reply.result_case = NICD__REPLY__RESULT_COMPLETION;
	reply.completion = &completion;
	fake_reply(fake, &reply);
}

/* All the answers as one packet. Returns its length. */
static size_t answer_everything(struct fake *fake, uint8_t packet[NICD_FRAME_MAX])
{
	Nicd__AdapterInfo adapter = NICD__ADAPTER_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	int pair[2];
	ssize_t len;

	fake_reply_object(fake, 2, 102);
	fake_reply_memory(fake, 3, 103);
	fake_reply_object(fake, 4, 104);
	fill_peers(fake);
	fake_reply_mr(fake, 6, 1, 2);
	fill_tokens(fake);
	fill_lists(fake);
	reply.id = 15;
	reply.result_case = NICD__REPLY__RESULT_ADAPTER;
	reply.adapter = &adapter;
	fake_reply(fake, &reply);
	fake_reply_error(fake, 16, NICD_R_REVOKE_UNCONFIRMED);
	fake_reply_ok(fake, 17);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(frame_flush(&fake->out, pair[0]), 0);
	len = recv(pair[1], packet, NICD_FRAME_MAX, 0);
	assert_true(len > 0);
	close(pair[0]);
	close(pair[1]);
	return (size_t)len;
}

static size_t damage(uint8_t *packet, size_t len)
{
	for (uint32_t i = draw(6); i > 0; i--) {
		size_t at = draw((uint32_t)len);

		switch (draw(5)) {
		case 0:
			packet[at] ^= (uint8_t)(1u << draw(8));
			break;
		case 1:
			packet[at] = (uint8_t)draw(256);
			break;
		case 2:
			packet[at] = draw(2) ? 0xff : 0;
			break;
		case 3:
			memmove(packet + at, packet + draw((uint32_t)len), 1);
			break;
		default:
			if (draw(8) == 0 && at > 0)
				len = at;
			break;
		}
	}
	return len;
}

static void hear(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	(void)event;
}

/* mutation: query_finish (of tokens) without the comparison of the counts */
/* mutation: list_take allocating without the strings */
/* mutation: call_table_take leaving the call in the table */
static void test_damaged_frames(void **state)
{
	unsigned lost = 0, survived = 0;

	random_state = 20240607;
	for (unsigned round = 0; round < ROUNDS; round++) {
		static struct outputs o;
		uint8_t packet[NICD_FRAME_MAX];
		struct fake *fake;
		void *one = NULL;
		size_t len;

		memset(&o, 0, sizeof(o));
		assert_int_equal(fake_setup(&one), 0);
		fake = one;
		nicd_set_event_callback(fake->n, hear, NULL);
		ask_everything(fake, &o);
		assert_int_equal(nicd_flush(fake->n), 0);
		len = answer_everything(fake, packet);
		len = damage(packet, len);
		fake_send_bytes(fake, packet, len);
		while (nicd_dispatch(fake->n, 0) > 0)
			;
		if (nicd_get_fd(fake->n) < 0)
			lost++;
		else
			survived++;
		assert_int_equal(fake_teardown(&one), 0);
		for (unsigned i = 0; i < CALLS; i++)
			assert_int_equal(o.told[i].called, 1);
	}
	/* The damage must hurt often enough, and not always, to be worth the time. */
	assert_true(lost > ROUNDS / 10);
	assert_true(survived > ROUNDS / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
