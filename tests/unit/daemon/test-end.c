/* SPDX-License-Identifier: MIT */
/*
 * Ends: of sessions with work in flight, at every moment of it, and of memory, at every allocation. rig_teardown finds
 * what was left behind.
 */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <string.h>

#include "proto/locator.h"

/* All of these depend on what stands before them; with a device that holds everything, much of it waits. */
struct story {
	Nicd__Hello hello;
	Nicd__CreatePd pd;
	Nicd__AddMemory memory;
	Nicd__CreateMr mr;
	Nicd__RegisterMr reg;
	Nicd__Range range, *ranges[1];
	Nicd__CreateTicket ticket;
	Nicd__CreateExport export;
	Nicd__ConnectQp connect[2];
	Nicd__Read read;
	Nicd__QueryQp query;
	Nicd__List list;
	Nicd__Who who;
	Nicd__Ledger ledger;
	Nicd__QueryTokens tokens;
	Nicd__DeregisterMr deregister;
	Nicd__Close close[3];
	char locator[2][LOCATOR_TEXT_MAX];
	uint64_t ids[2];
};

enum {
	HELLO = 1, PD, MEMORY, MR, REGISTER, TICKET, EXPORT, CONNECT, FORBIDDEN, READ, QUERY, LIST, WHO, LEDGER, TOKENS, DEREGISTER,
	CLOSE_QP, CLOSE_PD, CLOSE_MEMORY, STORY_END
};

static void story_locator(char text[LOCATOR_TEXT_MAX], const char *addr)
{
	struct locator locator = { .ticket = "0123456789abcde" };

	assert_int_equal(locator_addr_parse(addr, &locator.addr), 0);
	locator_print(&locator, text);
}

static void story_init(struct story *s)
{
	memset(s, 0, sizeof(*s));
	nicd__hello__init(&s->hello);
	nicd__create_pd__init(&s->pd);
	nicd__add_memory__init(&s->memory);
	nicd__create_mr__init(&s->mr);
	nicd__register_mr__init(&s->reg);
	nicd__range__init(&s->range);
	nicd__create_ticket__init(&s->ticket);
	nicd__create_export__init(&s->export);
	for (unsigned i = 0; i < 2; i++)
		nicd__connect_qp__init(&s->connect[i]);
	nicd__read__init(&s->read);
	nicd__query_qp__init(&s->query);
	nicd__list__init(&s->list);
	nicd__who__init(&s->who);
	nicd__ledger__init(&s->ledger);
	nicd__query_tokens__init(&s->tokens);
	nicd__deregister_mr__init(&s->deregister);
	for (unsigned i = 0; i < 3; i++)
		nicd__close__init(&s->close[i]);
	story_locator(s->locator[0], "127.0.0.2:7190");
	story_locator(s->locator[1], "10.0.0.1:7190");
}

static void story_add_objects(struct rig_client *c, struct story *s)
{
	s->hello.major = 1;
	rig_add(c, HELLO, NICD__REQUEST__CALL_HELLO, &s->hello);
	rig_add(c, PD, NICD__REQUEST__CALL_CREATE_PD, &s->pd);
	rig_add(c, MEMORY, NICD__REQUEST__CALL_ADD_MEMORY, &s->memory)->fds = 1;
	s->mr.pd = rig_result(c, PD);
	rig_add(c, MR, NICD__REQUEST__CALL_CREATE_MR, &s->mr);
	s->range.memory = rig_result(c, MEMORY);
	s->range.length = 4096;
	s->ranges[0] = &s->range;
	s->reg.mr = rig_result(c, MR);
	s->reg.n_ranges = 1;
	s->reg.ranges = s->ranges;
	s->reg.iova = 0x1000;
	s->reg.flags = NIC_REMOTE_READ | NIC_REMOTE_WRITE;
	rig_add(c, REGISTER, NICD__REQUEST__CALL_REGISTER_MR, &s->reg);
	s->ticket.mr = rig_result(c, REGISTER);
	rig_add(c, TICKET, NICD__REQUEST__CALL_CREATE_TICKET, &s->ticket);
	s->export.mr = rig_result(c, REGISTER);
	s->export.name = (char *)"a name that is so long that its request does not fit into the call which waits for its registration "
				 "and needs memory of its own";
	s->export.flags = NIC_REMOTE_READ;
	rig_add(c, EXPORT, NICD__REQUEST__CALL_CREATE_EXPORT, &s->export);
}

static void story_add_qp(struct rig_client *c, struct story *s)
{
	for (unsigned i = 0; i < 2; i++) {
		s->connect[i].pd = rig_result(c, PD);
		s->connect[i].locator = s->locator[i];
		rig_add(c, CONNECT + i, NICD__REQUEST__CALL_CONNECT_QP, &s->connect[i]);
	}
	s->read.qp = rig_result(c, CONNECT);
	s->read.length = 8;
	rig_add(c, READ, NICD__REQUEST__CALL_READ, &s->read);
	s->query.qp = rig_result(c, CONNECT);
	rig_add(c, QUERY, NICD__REQUEST__CALL_QUERY_QP, &s->query);
}

static void story_add_rest(struct rig_client *c, struct story *s)
{
	s->list.type = NICD__TYPE__MR;
	rig_add(c, LIST, NICD__REQUEST__CALL_LIST, &s->list);
	rig_add(c, WHO, NICD__REQUEST__CALL_WHO, &s->who);
	rig_add(c, LEDGER, NICD__REQUEST__CALL_LEDGER, &s->ledger);
	s->tokens.n_mrs = 2;
	s->tokens.mrs = s->ids;
	rig_add(c, TOKENS, NICD__REQUEST__CALL_QUERY_TOKENS, &s->tokens);
	s->deregister.mr = rig_result(c, REGISTER);
	rig_add(c, DEREGISTER, NICD__REQUEST__CALL_DEREGISTER_MR, &s->deregister);
	s->close[0].object = rig_result(c, CONNECT);
	rig_add(c, CLOSE_QP, NICD__REQUEST__CALL_CLOSE, &s->close[0]);
	s->close[1].object = rig_result(c, PD);
	rig_add(c, CLOSE_PD, NICD__REQUEST__CALL_CLOSE, &s->close[1]);
	s->close[2].object = rig_result(c, MEMORY);
	rig_add(c, CLOSE_MEMORY, NICD__REQUEST__CALL_CLOSE, &s->close[2]);
}

static bool story_send(struct rig_client *c, struct story *s)
{
	int fd = rig_memfd(4096, F_SEAL_SHRINK);

	story_init(s);
	story_add_objects(c, s);
	story_add_qp(c, s);
	story_add_rest(c, s);
	return rig_send(c, &fd, 1);
}

/* Every request has exactly one reply, except closes of what still stands under something. */
static void story_check(struct rig_client *c, bool all)
{
	for (uint32_t id = HELLO; id < STORY_END; id++) {
		const Nicd__Reply *reply = rig_reply(c, id);

		if (all && id != CLOSE_PD && id != CLOSE_MEMORY)
			assert_non_null(reply);
	}
}

static void test_story(void **state)
{
	struct rig_client *c = rig_connect(*state, "uid:1", CLIENT_ROLE_CLIENT);
	struct story s;

	assert_true(story_send(c, &s));
	rig_advance(c->rig, UINT64_C(10000000000));
	story_check(c, true);
	assert_done(rig_reply(c, READ));
	assert_done(rig_reply(c, EXPORT));
	assert_reason(rig_reply(c, FORBIDDEN), CONNECT);
	assert_reason(rig_reply(c, WHO), SERIAL);
}

/* The session ends after the k-th step of a device that holds everything. */
static void test_end_at_every_step(void **state)
{
	unsigned steps = 0;

	for (unsigned k = 0;; k++) {
		struct rig_client *c;
		struct story s;
		unsigned n = 0;

		rig_teardown(state);
		rig_setup(state);
		c = rig_connect(*state, "uid:1", CLIENT_ROLE_CLIENT);
		fake_hold(c->rig->fake, FAKE_OPS, true);
		assert_true(story_send(c, &s));
		while (n < k && (rig_n_replies(c), fake_complete(c->rig->fake, FAKE_OPS)))
			n++;
		/* mutation: answer into a session that has ended */
		rig_end(c);
		if (n < k) {
			steps = n;
			break;
		}
		if (k % 2)
			fake_complete_all(c->rig->fake);
	}
	assert_in_range(steps, 8, 30);
}

/* The same, with a device that goes away instead. */
static void test_device_lost_at_every_step(void **state)
{
	for (unsigned k = 0; k < 20; k++) {
		struct rig_client *c;
		struct story s;

		rig_teardown(state);
		rig_setup(state);
		c = rig_connect(*state, "uid:1", CLIENT_ROLE_CLIENT);
		fake_hold(c->rig->fake, FAKE_OPS, true);
		assert_true(story_send(c, &s));
		for (unsigned n = 0; n < k; n++) {
			rig_n_replies(c);
			fake_complete(c->rig->fake, FAKE_OPS);
		}
		fake_lose(c->rig->fake, true);
		rig_advance(c->rig, UINT64_C(10000000000));
		for (unsigned i = 0; i < 5; i++)
			rig_n_replies(c);
		story_check(c, true);
	}
}

/* A device that does everything out of order. */
static void test_out_of_order(void **state)
{
	struct rig_client *c = rig_connect(*state, "uid:1", CLIENT_ROLE_CLIENT);
	struct story s;

	fake_hold(c->rig->fake, FAKE_OPS, true);
	assert_true(story_send(c, &s));
	do
		rig_n_replies(c);
	while (fake_complete_newest(c->rig->fake, FAKE_OPS));
	rig_advance(c->rig, UINT64_C(10000000000));
	story_check(c, true);
	assert_done(rig_reply(c, DEREGISTER));
}

/* A violation with work in flight: nobody is answered any more, and all of it ends. */
static void test_violation_with_calls(void **state)
{
	struct rig_client *c = rig_connect(*state, "uid:1", CLIENT_ROLE_CLIENT);
	struct story s;
	unsigned before;

	fake_hold(c->rig->fake, FAKE_OPS, true);
	assert_true(story_send(c, &s));
	before = rig_n_replies(c);
	assert_false(rig_send_raw(c, "", 0, NULL, 0));
	assert_violation(c, FRAME_EMPTY);
	fake_complete_all(c->rig->fake);
	/* mutation: replies behind the Fatal */
	assert_int_equal(rig_n_replies(c), before);
	rig_end(c);
	fake_complete_all(c->rig->fake);
	rig_end(c);
	assert_null(c->client);
}

/* Release comes in chunks, and says whether there is more. */
static void test_release_in_chunks(void **state)
{
	struct rig_client *c = rig_hello(*state, "uid:1", CLIENT_ROLE_CLIENT);
	unsigned chunks = 0;

	for (unsigned i = 0; i < 100; i++)
		rig_pd(c);
	assert_false(client_gone(c->client));
	while (client_release(c->client, 10))
		chunks++;
	/* mutation: everything at once */
	assert_in_range(chunks, 9, 11);
	assert_true(client_gone(c->client));
}

/* The device does not confirm: the session stays, hears no more, and says when it is gone. */
static void test_kept_by_device(void **state)
{
	struct rig_client *c = rig_hello(*state, "uid:1", CLIENT_ROLE_CLIENT);
	unsigned wakes;

	rig_region(c, NIC_REMOTE_READ);
	fake_hold(c->rig->fake, FAKE_TAG_DROP, true);
	rig_end(c);
	assert_non_null(c->client);
	assert_int_equal(c->rig->host.n_clients, 1);
	wakes = c->wakes;
	fake_complete_all(c->rig->fake);
	assert_int_equal(c->wakes, wakes + 1);
	assert_true(client_gone(c->client));
}

/* ---- memory */

static bool may_follow(const Nicd__Reply *reply)
{
	switch (reply->error->reason) {
	case NICD_R_NO_MEMORY:
	/* Of those that came before it. */
	case NICD_R_DEPENDENCY:
	case NICD_R_HELLO_FIRST:
	case NICD_R_SERIAL:
	case NICD_R_CONNECT:
	case NICD_R_QP_STATE:
	case NICD_R_FLUSHED:
	case NICD_R_REVOKED:
	case NICD_R_MR_STATE:
		return true;
	default:
		return false;
	}
}

/* One allocation fails, or all from there on: NO_MEMORY and nothing worse, and afterwards all is well. */
static void walk_allocations(void **state, bool hold, bool on)
{
	unsigned k = 0;
	bool failed;

	do {
		struct rig_client *c;
		struct story s;

		rig_teardown(state);
		rig_setup(state);
		c = rig_connect(*state, "uid:1", CLIENT_ROLE_CLIENT);
		fake_hold(c->rig->fake, FAKE_OPS, hold);
		c->rig->env.fail_at = c->rig->env.allocs + ++k;
		c->rig->env.fail_on = on;
		assert_true(story_send(c, &s));
		do
			rig_n_replies(c);
		while (fake_complete(c->rig->fake, FAKE_OPS));
		rig_advance(c->rig, UINT64_C(10000000000));
		/* mutation: leave out one of the checks for NULL */
		for (uint32_t id = HELLO; id < STORY_END; id++) {
			const Nicd__Reply *reply = rig_reply(c, id);

			if (id != CLOSE_PD && id != CLOSE_MEMORY)
				assert_non_null(reply);
			if (reply && reply->error && !may_follow(reply))
				fail_msg("%u: %s", id, reply->error->name);
		}
		failed = c->rig->env.failed;
		c->rig->env.fail_at = 0;
		/* The session lives. */
		rig_forget(c);
		if (c->client->state == CLIENT_NEW)
			assert_done(rig_call(c, NICD__REQUEST__CALL_HELLO, &s.hello));
		rig_pd(c);
	} while (failed);
	assert_in_range(k, 10, 100);
}

static void test_no_memory_once(void **state)
{
	walk_allocations(state, false, false);
}

static void test_no_memory_once_asynchronous(void **state)
{
	walk_allocations(state, true, false);
}

static void test_no_memory_from_then_on(void **state)
{
	walk_allocations(state, false, true);
	walk_allocations(state, true, true);
}

static void test_no_memory_for_session(void **state)
{
	struct rig *rig = *state;
	struct client_identity identity = { .account = "uid:7" };
	struct client *client;
	struct nicd_error err;
	unsigned k = 0;
	int r;

	do {
		uint64_t blocks = rig->env.live_blocks;

		rig->env.failed = false;
		rig->env.fail_at = rig->env.allocs + ++k;
		r = client_new(&client, &rig->host, &identity, NULL, &err);
		rig->env.fail_at = 0;
		if (r >= 0)
			break;
		assert_int_equal(err.reason, NICD_R_NO_MEMORY);
		assert_int_equal(rig->env.live_blocks, blocks);
	} while (k < 20);
	assert_in_range(k, 3, 10);
	client_release(client, 1);
	client_free(client);
}

static void test_no_memory_for_host(void **state)
{
	struct rig *rig = *state;
	struct client_host host = { .env = &rig->env.env, .nic = &rig->nic };

	rig->env.fail_at = rig->env.allocs + 1;
	assert_true(client_host_init(&host) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_story),
		rig_test(test_end_at_every_step),
		rig_test(test_device_lost_at_every_step),
		rig_test(test_out_of_order),
		rig_test(test_violation_with_calls),
		rig_test(test_release_in_chunks),
		rig_test(test_kept_by_device),
		rig_test(test_no_memory_once),
		rig_test(test_no_memory_once_asynchronous),
		rig_test(test_no_memory_from_then_on),
		rig_test(test_no_memory_for_session),
		rig_test(test_no_memory_for_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
