/* SPDX-License-Identifier: MIT */
/*
 * Frames as a whole: every violation ends the session with its Fatal, nothing of a violating frame takes effect, and no
 * descriptor is lost on any path (rig_teardown counts them).
 */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/dispatch.h"

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

/* A request that would show: it makes a PD. */
static Nicd__CreatePd harmless = NICD__CREATE_PD__INIT;

static void add_harmless(struct rig_client *c, uint32_t id)
{
	rig_add(c, id, NICD__REQUEST__CALL_CREATE_PD, &harmless);
}

/* Every case of the oneof has its row, with something that answers it. */
static void test_table_is_complete(void **state)
{
	const ProtobufCMessageDescriptor *d = &nicd__request__descriptor;
	unsigned calls = 0;

	for (unsigned i = 0; i < d->n_fields; i++) {
		const struct method *method;

		if (!(d->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
			continue;
		calls++;
		/* mutation: leave a row out of the table */
		method = method_find(d->fields[i].id);
		assert_non_null(method);
		/* mutation: give a row two functions, or a start without its finish */
		assert_true(!method->answer == !!method->start);
		assert_true(!method->start == !method->finish);
		assert_true(method->max_fds <= 1 && method->min_fds <= method->max_fds);
		assert_true(method->roles && method->states);
	}
	assert_int_equal(calls, 35);
	assert_null(method_find(0));
	assert_null(method_find(9));
	assert_null(method_find(74));
	assert_null(method_find(UINT32_MAX));
}

static void test_undecodable(void **state)
{
	struct rig_client *c = client(state);

	assert_false(rig_send_raw(c, "\xff\xff\xff", 3, NULL, 0));
	assert_violation(c, FRAME_UNDECODABLE);
	/* mutation: go on reading after a violation */
	add_harmless(c, 1);
	assert_false(rig_send(c, NULL, 0));
	assert_null(rig_reply(c, 1));
	assert_int_equal(c->rig->nic.count[NIC_PD], 0);
	assert_false(client_wants_input(c->client));
}

static void test_empty(void **state)
{
	/* An unknown field only. */
	static const uint8_t unknown[] = { 15 << 3 | 0, 1 };
	struct rig_client *c = client(state);

	assert_false(rig_send_raw(c, unknown, sizeof(unknown), NULL, 0));
	assert_violation(c, FRAME_EMPTY);
}

static void test_direction(void **state)
{
	Nicd__Reply reply = NICD__REPLY__INIT, *replies[] = { &reply };
	Nicd__Event event = NICD__EVENT__INIT, *events[] = { &event };
	Nicd__Fatal fatal = NICD__FATAL__INIT;
	Nicd__Request request = NICD__REQUEST__INIT, *requests[] = { &request };

	request.id = 7;
	request.call_case = NICD__REQUEST__CALL_CREATE_PD;
	request.create_pd = &harmless;
	for (unsigned which = 0; which < 3; which++) {
		struct rig_client *c = client(state);
		Nicd__Frame frame = NICD__FRAME__INIT;
		uint8_t buf[256];

		frame.n_requests = 1;
		frame.requests = requests;
		/* mutation: leave one of the three out of the check */
		frame.n_replies = which == 0;
		frame.replies = replies;
		frame.n_events = which == 1;
		frame.events = events;
		frame.fatal = which == 2 ? &fatal : NULL;
		assert_false(rig_send_raw(c, buf, nicd__frame__pack(&frame, buf), NULL, 0));
		assert_violation(c, FRAME_DIRECTION);
		assert_int_equal(c->rig->nic.count[NIC_PD], 0);
	}
}

static void test_too_many_requests(void **state)
{
	struct rig_client *c = client(state);

	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++)
		add_harmless(c, i + 1);
	assert_true(rig_send(c, NULL, 0));
	assert_int_equal(rig_n_replies(c), NICD_FRAME_REQUESTS);
	rig_forget(c);
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS + 1; i++)
		add_harmless(c, i + 1);
	/* mutation: >= instead of > */
	assert_false(rig_send(c, NULL, 0));
	assert_violation(c, FRAME_REQUESTS);
	assert_int_equal(rig_fatal(c)->limit, NICD_FRAME_REQUESTS);
	assert_int_equal(rig_fatal(c)->observed, NICD_FRAME_REQUESTS + 1);
	assert_int_equal(c->rig->nic.count[NIC_PD], NICD_FRAME_REQUESTS);
}

static void test_request_id_zero(void **state)
{
	struct rig_client *c = client(state);

	add_harmless(c, 1);
	add_harmless(c, 0);
	/* mutation: check ids only when the request starts */
	assert_false(rig_send(c, NULL, 0));
	assert_violation(c, REQUEST_ID);
	assert_int_equal(c->rig->nic.count[NIC_PD], 0);
}

static void test_request_id_twice(void **state)
{
	/* Also with ids that meet in the hash. */
	static const uint32_t pairs[][3] = { { 1, 2, 1 }, { 512, 1024, 512 }, { UINT32_MAX, 1, UINT32_MAX } };

	for (unsigned i = 0; i < 3; i++) {
		struct rig_client *c = client(state);

		for (unsigned j = 0; j < 3; j++)
			add_harmless(c, pairs[i][j]);
		/* mutation: ids_add always true */
		assert_false(rig_send(c, NULL, 0));
		assert_violation(c, REQUEST_ID);
		assert_int_equal(rig_fatal(c)->observed, pairs[i][0]);
		assert_int_equal(c->rig->nic.count[NIC_PD], 0);
	}
}

static void test_request_id_in_flight(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));

	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	assert_null(rig_register(c, mr, memory, 4096, 0));
	add_harmless(c, c->last_id + 1);
	add_harmless(c, c->last_id);
	/* mutation: drop call_find from the check */
	assert_false(rig_send(c, NULL, 0));
	assert_violation(c, REQUEST_ID);
	assert_int_equal(c->rig->nic.count[NIC_PD], 1);
}

/* An id that was answered may be used again, in the next frame. */
static void test_request_id_again(void **state)
{
	struct rig_client *c = client(state);

	for (unsigned i = 0; i < 3; i++) {
		add_harmless(c, 5);
		assert_true(rig_send(c, NULL, 0));
		assert_done(rig_reply(c, 5));
		rig_forget(c);
	}
}

/* The hash of ids is cleared by an epoch that wraps. */
static void test_request_id_epoch(void **state)
{
	struct rig_client *c = client(state);

	c->rig->host.dispatch->epoch = UINT32_MAX - 1;
	for (unsigned i = 0; i < 4; i++) {
		add_harmless(c, 5);
		add_harmless(c, 6);
		/* mutation: don't clear the table when the epoch wraps */
		assert_true(rig_send(c, NULL, 0));
		assert_int_not_equal(c->rig->host.dispatch->epoch, 0);
	}
}

static void test_no_call(void **state)
{
	struct rig_client *c = client(state);

	add_harmless(c, 1);
	rig_add(c, 2, NICD__REQUEST__CALL__NOT_SET, NULL);
	assert_false(rig_send(c, NULL, 0));
	assert_violation(c, REQUEST_EMPTY);
	assert_int_equal(rig_fatal(c)->observed, 2);
	assert_int_equal(c->rig->nic.count[NIC_PD], 0);
}

/* A call of a later version: an unknown field of the request. */
static void test_unknown_call(void **state)
{
	static const uint8_t frame[] = { 1 << 3 | 2, 5, 1 << 3, 9, 99 % 16 << 3 | 2 | 0x80, 99 / 16, 0 };
	struct rig_client *c = client(state);

	assert_false(rig_send_raw(c, frame, sizeof(frame), NULL, 0));
	assert_violation(c, REQUEST_EMPTY);
}

static void test_reference_order(void **state)
{
	/* Forward, to itself, to one that is not there, to none. */
	static const uint32_t wrong[] = { 3, 2, 9, 0 };

	for (unsigned i = 0; i < 4; i++) {
		struct rig_client *c = client(state);
		Nicd__CreateMr mr = NICD__CREATE_MR__INIT;

		add_harmless(c, 1);
		mr.pd = rig_result(c, wrong[i]);
		rig_add(c, 2, NICD__REQUEST__CALL_CREATE_MR, &mr);
		add_harmless(c, 3);
		/* mutation: add the id before its references are looked at */
		assert_false(rig_send(c, NULL, 0));
		assert_violation(c, REFERENCE_ORDER);
		assert_int_equal(rig_fatal(c)->observed, wrong[i]);
		assert_int_equal(c->rig->nic.count[NIC_PD], 0);
	}
}

/* References in ranges count, also those of calls to come. */
static void test_reference_in_range(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct rig_client *c = client(state);
		Nicd__RegisterMr args = NICD__REGISTER_MR__INIT;
		Nicd__BuildMapping mapping = NICD__BUILD_MAPPING__INIT;
		Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };

		add_harmless(c, 1);
		range.memory = rig_result(c, 77);
		args.n_ranges = mapping.n_ranges = 1;
		args.ranges = mapping.ranges = ranges;
		if (i)
			rig_add(c, 2, NICD__REQUEST__CALL_BUILD_MAPPING, &mapping);
		else
			rig_add(c, 2, NICD__REQUEST__CALL_REGISTER_MR, &args);
		/* mutation: refs_count without the ranges */
		assert_false(rig_send(c, NULL, 0));
		assert_violation(c, REFERENCE_ORDER);
		assert_int_equal(c->rig->nic.count[NIC_PD], 0);
	}
}

/* ---- descriptors */

static void test_fds_mismatch(void **state)
{
	/* named, sent */
	static const uint32_t cases[][2] = { { 1, 0 }, { 0, 1 }, { 2, 1 }, { 1, 2 }, { UINT32_MAX, 1 }, { 0, 64 } };

	for (unsigned i = 0; i < 6; i++) {
		struct rig_client *c = client(state);
		Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;
		int fds[NICD_FRAME_FDS];

		for (unsigned j = 0; j < cases[i][1]; j++)
			fds[j] = rig_memfd(4096, F_SEAL_SHRINK);
		add_harmless(c, 1);
		rig_add(c, 2, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = cases[i][0];
		/* mutation: compare with > instead of != */
		assert_false(rig_send(c, fds, cases[i][1]));
		assert_violation(c, FRAME_FDS_MISMATCH);
		assert_int_equal(rig_fatal(c)->limit, cases[i][0]);
		assert_int_equal(rig_fatal(c)->observed, cases[i][1]);
		assert_int_equal(c->rig->nic.count[NIC_PD], 0);
		assert_int_equal(c->rig->nic.count[NIC_MEMORY], 0);
	}
}

/* The sum does not wrap. */
static void test_fds_overflow(void **state)
{
	struct rig_client *c = client(state);

	rig_add(c, 1, NICD__REQUEST__CALL_CREATE_PD, &harmless)->fds = UINT32_MAX;
	rig_add(c, 2, NICD__REQUEST__CALL_CREATE_PD, &harmless)->fds = 1;
	/* mutation: sum in 32 bits */
	assert_false(rig_send(c, NULL, 0));
	assert_violation(c, FRAME_FDS_MISMATCH);
}

/* A call that takes another number is refused; its descriptors are closed, those of the others reach them. */
static void test_fds_of_each(void **state)
{
	struct rig_client *c = client(state);
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;
	int fds[5];

	for (unsigned i = 0; i < 5; i++)
		fds[i] = rig_memfd(4096 * (i + 1), F_SEAL_SHRINK);
	rig_add(c, 1, NICD__REQUEST__CALL_CREATE_PD, &harmless)->fds = 1;
	rig_add(c, 2, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = 1;
	rig_add(c, 3, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = 2;
	rig_add(c, 4, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = 0;
	rig_add(c, 5, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = 1;
	assert_true(rig_send(c, fds, 5));
	/* mutation: max_fds of CreatePd 1 */
	assert_reason(rig_reply(c, 1), FDS);
	assert_int_equal(rig_reply(c, 1)->error->limit, 0);
	assert_int_equal(rig_reply(c, 1)->error->observed, 1);
	assert_done(rig_reply(c, 2));
	assert_int_equal(rig_reply(c, 2)->memory->size, 8192);
	assert_reason(rig_reply(c, 3), FDS);
	assert_reason(rig_reply(c, 4), FDS);
	/* mutation: don't take the descriptors of refused requests */
	assert_int_equal(rig_reply(c, 5)->memory->size, 5 * 4096);
}

/* Before Hello nothing is taken either. */
static void test_fds_before_hello(void **state)
{
	struct rig_client *c = rig_connect(*state, "uid:1000", CLIENT_ROLE_CLIENT);
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;

	assert_reason(rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &add, rig_memfd(4096, F_SEAL_SHRINK)), HELLO_FIRST);
}

/* ---- budget */

static void test_in_flight(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), pd = rig_pd(c), mrs[4];
	struct rig *rig = c->rig;

	rig->policy.max_calls = 3;
	for (unsigned i = 0; i < 4; i++)
		mrs[i] = rig_mr(c, pd);
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	for (unsigned i = 0; i < 3; i++)
		assert_null(rig_register(c, mrs[i], memory, 4096, 0));
	assert_int_equal(rig->host.n_calls, 3);
	/* mutation: > instead of >= in call_new */
	assert_reason(rig_register(c, mrs[3], memory, 4096, 0), IN_FLIGHT);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, 3);
	assert_string_equal(rig->last_method, "RegisterMr");
	/* mutation: wants input as long as one request fits */
	assert_false(client_wants_input(c->client));
	fake_hold(rig->fake, FAKE_TAG_ADD, false);
	fake_complete_all(rig->fake);
	assert_int_equal(rig->host.n_calls, 0);
	assert_true(client_wants_input(c->client));
	assert_done(rig_register(c, mrs[3], memory, 4096, 0));
}

/* Read on only while a whole frame more would fit. */
static void test_wants_input(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), pd = rig_pd(c), mrs[3];

	c->rig->policy.max_calls = NICD_FRAME_REQUESTS + 2;
	for (unsigned i = 0; i < 3; i++)
		mrs[i] = rig_mr(c, pd);
	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	for (unsigned i = 0; i < 3; i++) {
		/* mutation: room for one request is enough */
		assert_true(client_wants_input(c->client));
		assert_null(rig_register(c, mrs[i], memory, 4096, 0));
	}
	assert_false(client_wants_input(c->client));
	fake_complete(c->rig->fake, FAKE_TAG_ADD);
	assert_true(client_wants_input(c->client));
}

static void test_calls_are_charged(void **state)
{
	struct rig_client *c = client(state), *other = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));
	uint64_t memory2 = rig_memory(other, 4096), mr2 = rig_mr(other, rig_pd(other));
	struct nic_account *account = c->client->owner.account;

	assert_ptr_equal(account, other->client->owner.account);
	account->limits.max[NIC_SLOT_CALLS] = 1;
	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	assert_null(rig_register(c, mr, memory, 4096, 0));
	assert_int_equal(account->used[NIC_SLOT_CALLS], 1);
	/* mutation: don't charge calls */
	assert_reason(rig_register(other, mr2, memory2, 4096, 0), QUOTA);
	fake_complete_all(c->rig->fake);
	/* mutation: don't release the charge of an answered call */
	assert_int_equal(account->used[NIC_SLOT_CALLS], 0);
}

/* Small requests with big replies are not taken while the client does not read. */
static void test_output_is_bounded(void **state)
{
	struct rig_client *c = client(state);
	Nicd__List list = NICD__LIST__INIT;
	unsigned done = 0, refused = 0;

	c->rig->policy.max_output = 20000;
	for (unsigned i = 0; i < 200; i++)
		rig_pd(c);
	rig_forget(c);
	list.type = NICD__TYPE__PD;
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++)
		rig_add(c, i + 1, NICD__REQUEST__CALL_LIST, &list);
	assert_true(rig_send(c, NULL, 0));
	assert_false(client_wants_input(c->client));
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++) {
		const Nicd__Reply *reply = rig_reply(c, i + 1);

		done += !reply->error;
		refused += !!reply->error;
	}
	/* mutation: no METHOD_BULK on List */
	assert_in_range(done, 1, 4);
	assert_int_equal(done + refused, NICD_FRAME_REQUESTS);
	assert_true(client_wants_input(c->client));
}

/* The transport's own findings. */
static void test_transport_violation(void **state)
{
	struct rig_client *c = client(state);

	client_violation(c->client, NICD_R_FRAME_FDS_TRUNCATED, NICD_FRAME_FDS, 65);
	client_violation(c->client, NICD_R_FRAME_TOO_BIG, 1, 2);
	/* mutation: a second Fatal for a second violation */
	assert_violation(c, FRAME_FDS_TRUNCATED);
	assert_string_equal(c->rig->last_method, "Frame");
	assert_int_equal(c->rig->last_log.reason, NICD_R_FRAME_FDS_TRUNCATED);
}

/* Replies that were ready before the violation still go, before the Fatal. */
static void test_fatal_is_last(void **state)
{
	struct rig_client *c = client(state);

	add_harmless(c, 1);
	assert_true(rig_send(c, NULL, 0));
	assert_false(rig_send_raw(c, "\xff", 1, NULL, 0));
	assert_done(rig_reply(c, 1));
	assert_violation(c, FRAME_UNDECODABLE);
}

/* The session ends in the middle of a frame: what is left of it does not start, and its descriptors are closed. */
static void test_end_in_a_frame(void **state)
{
	struct rig_client *c = client(state);
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;

	c->client->owner.account->limits.max[NIC_SLOT_MEMORIES] = 0;
	c->rig->end_on_log = true;
	rig_add(c, 1, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = 1;
	add_harmless(c, 2);
	rig_add(c, 3, NICD__REQUEST__CALL_ADD_MEMORY, &add)->fds = 1;
	assert_false(rig_send(c, (int[]){ rig_memfd(4096, F_SEAL_SHRINK), rig_memfd(4096, F_SEAL_SHRINK) }, 2));
	/* mutation: CLOSING among the states of CreatePd */
	assert_int_equal(c->rig->nic.count[NIC_PD], 0);
	assert_violation(c, FRAME_EMPTY);
}

/* What outlives its frame must not point into it. */
static void test_slot_is_let_go(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));

	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	assert_null(rig_register(c, mr, memory, 4096, 0));
	/* mutation: leave the slot to the call, which would then answer for a request of a later frame */
	assert_null(call_find(c->client, c->last_id)->slot);
}

static void test_wake_once(void **state)
{
	struct rig_client *c = client(state);
	unsigned before = c->wakes;

	for (unsigned i = 1; i < 5; i++) {
		add_harmless(c, i);
		assert_true(rig_send(c, NULL, 0));
	}
	/* mutation: wake at every reply */
	assert_int_equal(c->wakes, before + 1);
	rig_forget(c);
	add_harmless(c, 9);
	assert_true(rig_send(c, NULL, 0));
	assert_int_equal(c->wakes, before + 2);
}

/* What is queued and not read is the account's, and so is what events add; what was read is nobody's. */
static void test_output_is_charged(void **state)
{
	struct rig *rig = *state;
	struct rig_client *c = rig_hello(rig, "uid:1000", CLIENT_ROLE_CLIENT), *admin = rig_hello(rig, "uid:0", CLIENT_ROLE_ADMIN);
	struct nic_account *account = c->client->owner.account;
	Nicd__CreatePd pd = NICD__CREATE_PD__INIT;

	assert_int_equal(account->used[NIC_SLOT_BUFFERED], 0);
	for (unsigned i = 1; i <= 20; i++)
		rig_add(c, 100 + i, NICD__REQUEST__CALL_CREATE_PD, &pd);
	assert_true(rig_send(c, NULL, 0));
	/* mutation: client_reply without client_charge_output */
	assert_true(c->client->out.bytes > 100);
	assert_int_equal(account->used[NIC_SLOT_BUFFERED], c->client->out.bytes);
	assert_false(client_output_is_full(c->client));
	account->limits.max[NIC_SLOT_BUFFERED] = 100;
	assert_true(client_output_is_full(c->client));
	assert_int_equal(rig_n_replies(c), 20);
	/* mutation: client_flushed without it */
	assert_int_equal(account->used[NIC_SLOT_BUFFERED], 0);
	assert_false(client_output_is_full(c->client));
	/* Nothing keeps an admin from looking at what is full. mutation: charge the admin socket too */
	rig_add(admin, 1, NICD__REQUEST__CALL_CREATE_PD, &pd);
	assert_true(rig_send(admin, NULL, 0));
	assert_int_equal(admin->client->owner.account->used[NIC_SLOT_BUFFERED], 0);
	/* The teardown asserts that the charge of who ends with output goes too. */
	rig_add(c, 200, NICD__REQUEST__CALL_CREATE_PD, &pd);
	assert_true(rig_send(c, NULL, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table_is_complete),
		rig_test(test_undecodable),
		rig_test(test_empty),
		rig_test(test_direction),
		rig_test(test_too_many_requests),
		rig_test(test_request_id_zero),
		rig_test(test_request_id_twice),
		rig_test(test_request_id_in_flight),
		rig_test(test_request_id_again),
		rig_test(test_request_id_epoch),
		rig_test(test_no_call),
		rig_test(test_unknown_call),
		rig_test(test_reference_order),
		rig_test(test_reference_in_range),
		rig_test(test_fds_mismatch),
		rig_test(test_fds_overflow),
		rig_test(test_fds_of_each),
		rig_test(test_fds_before_hello),
		rig_test(test_in_flight),
		rig_test(test_wants_input),
		rig_test(test_calls_are_charged),
		rig_test(test_output_is_bounded),
		rig_test(test_transport_violation),
		rig_test(test_fatal_is_last),
		rig_test(test_end_in_a_frame),
		rig_test(test_slot_is_let_go),
		rig_test(test_wake_once),
		rig_test(test_output_is_charged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
