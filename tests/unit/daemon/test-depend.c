/* SPDX-License-Identifier: MIT */
/* Requests that name the result of an earlier one of their frame. */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <string.h>

/* The arguments of a whole story in one frame: a PD, an MR in it, its registration, its token. */
struct chain {
	Nicd__CreatePd pd;
	Nicd__AddMemory memory;
	Nicd__CreateMr mr;
	Nicd__RegisterMr reg;
	Nicd__Range range, *ranges[1];
	Nicd__GetRemoteToken token;
	Nicd__DeregisterMr deregister;
	Nicd__Close close;
};

enum { PD = 11, MEMORY, MR, REGISTER, TOKEN, DEREGISTER, CLOSE };

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

static void chain_add(struct rig_client *c, struct chain *chain, uint64_t length)
{
	nicd__create_pd__init(&chain->pd);
	nicd__add_memory__init(&chain->memory);
	nicd__create_mr__init(&chain->mr);
	nicd__register_mr__init(&chain->reg);
	nicd__range__init(&chain->range);
	nicd__get_remote_token__init(&chain->token);
	nicd__deregister_mr__init(&chain->deregister);
	nicd__close__init(&chain->close);
	rig_add(c, PD, NICD__REQUEST__CALL_CREATE_PD, &chain->pd);
	rig_add(c, MEMORY, NICD__REQUEST__CALL_ADD_MEMORY, &chain->memory)->fds = 1;
	chain->mr.pd = rig_result(c, PD);
	rig_add(c, MR, NICD__REQUEST__CALL_CREATE_MR, &chain->mr);
	chain->range.memory = rig_result(c, MEMORY);
	chain->range.length = length;
	chain->ranges[0] = &chain->range;
	chain->reg.mr = rig_result(c, MR);
	chain->reg.n_ranges = 1;
	chain->reg.ranges = chain->ranges;
	chain->reg.iova = 0x20000;
	chain->reg.flags = NIC_REMOTE_READ;
	rig_add(c, REGISTER, NICD__REQUEST__CALL_REGISTER_MR, &chain->reg);
	chain->token.mr = rig_result(c, REGISTER);
	rig_add(c, TOKEN, NICD__REQUEST__CALL_GET_REMOTE_TOKEN, &chain->token);
	chain->deregister.mr = rig_result(c, REGISTER);
	rig_add(c, DEREGISTER, NICD__REQUEST__CALL_DEREGISTER_MR, &chain->deregister);
	chain->close.object = rig_result(c, MR);
	rig_add(c, CLOSE, NICD__REQUEST__CALL_CLOSE, &chain->close);
}

static void chain_send(struct rig_client *c, struct chain *chain, uint64_t length)
{
	int fd = rig_memfd(8192, F_SEAL_SHRINK);

	chain_add(c, chain, length);
	assert_true(rig_send(c, &fd, 1));
}

static void test_inline(void **state)
{
	struct rig_client *c = client(state);
	unsigned long allocs;
	struct chain chain;

	chain_send(c, &chain, 8192);
	for (uint32_t id = PD; id <= CLOSE; id++)
		assert_done(rig_reply(c, id));
	/* mutation: the result of RegisterMr is nothing */
	assert_int_equal(rig_reply(c, TOKEN)->token, rig_reply(c, REGISTER)->mr->remote_token);
	assert_int_equal(c->rig->nic.count[NIC_MR], 0);
	/* In order, when nothing waits; and then waiting costs nothing. */
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(c->frames[0]->replies[i]->id, PD + i);
	rig_forget(c);
	chain_send(c, &chain, 8192);
	rig_forget(c);
	allocs = c->rig->env.allocs;
	chain_send(c, &chain, 8192);
	/* PD, memory, its attachment, MR: not one for the requests. */
	assert_in_range(c->rig->env.allocs - allocs, 1, 5);
}

/* What was decoded is gone; with AddressSanitizer, looking at it is seen besides. */
static void spoil_arena(struct arena *arena)
{
	arena_reset(arena);
	memset(arena_alloc(arena, arena->size), 0xee, arena->size);
	arena_reset(arena);
}

static void test_asynchronous(void **state)
{
	struct rig_client *c = client(state);
	struct chain chain;
	unsigned turns = 0;

	fake_hold(c->rig->fake, FAKE_OPS, true);
	chain_send(c, &chain, 8192);
	/* What was decoded must not be needed any more. */
	spoil_arena(&c->rig->host.arena);
	assert_int_equal(rig_n_replies(c), 3);
	assert_null(rig_reply(c, REGISTER));
	/* mutation: start what waits at once */
	assert_null(rig_reply(c, TOKEN));
	/* Close depends on the MR only, and its registration is still under way. */
	assert_null(rig_reply(c, CLOSE));
	assert_int_equal(c->rig->host.n_calls, 3);
	while (fake_complete(c->rig->fake, FAKE_OPS)) {
		rig_n_replies(c);
		spoil_arena(&c->rig->host.arena);
		assert_true(turns++ < 20);
	}
	/* The close came while it was registering: nobody is told its tokens. */
	assert_reason(rig_reply(c, REGISTER), REVOKED);
	assert_reason(rig_reply(c, TOKEN), DEPENDENCY);
	assert_reason(rig_reply(c, DEREGISTER), DEPENDENCY);
	assert_done(rig_reply(c, CLOSE));
	assert_int_equal(c->rig->host.n_calls, 0);
}

/* The same with the close waiting for the end: everything goes well, one step of the device after the other. */
static void test_asynchronous_in_order(void **state)
{
	struct rig_client *c = client(state);
	int fd = rig_memfd(8192, F_SEAL_SHRINK);
	struct chain chain;

	fake_hold(c->rig->fake, FAKE_OPS, true);
	chain_add(c, &chain, 8192);
	chain.close.object->result_of = REGISTER;
	assert_true(rig_send(c, &fd, 1));
	assert_int_equal(rig_n_replies(c), 3);
	assert_true(fake_complete(c->rig->fake, FAKE_ATTACH));
	assert_int_equal(rig_n_replies(c), 3);
	assert_true(fake_complete(c->rig->fake, FAKE_TAG_ADD));
	/* mutation: forget to wake who waits */
	assert_done(rig_reply(c, REGISTER));
	/* mutation: start those that waited for the same one in another order than that of their frame */
	assert_done(rig_reply(c, TOKEN));
	assert_int_equal(rig_reply(c, TOKEN)->token, rig_reply(c, REGISTER)->mr->remote_token);
	assert_null(rig_reply(c, DEREGISTER));
	assert_true(c->rig->fake->pushes > 0);
	fake_complete_all(c->rig->fake);
	assert_done(rig_reply(c, DEREGISTER));
	assert_done(rig_reply(c, CLOSE));
}

/* A refusal in the middle, at once and later. */
static void test_refused(void **state)
{
	for (unsigned later = 0; later < 2; later++) {
		struct rig_client *c = client(state);
		struct chain chain;

		fake_hold(c->rig->fake, FAKE_OPS, later);
		if (later)
			fake_fail(c->rig->fake, FAKE_TAG_ADD, 0, 1, NICD_R_TAGS_EXHAUSTED);
		chain_add(c, &chain, later ? 8192 : 8193);
		/* Not the close, which names the MR only. */
		c->n_requests--;
		assert_true(rig_send(c, (int[]){ rig_memfd(8192, F_SEAL_SHRINK) }, 1));
		rig_n_replies(c);
		fake_complete_all(c->rig->fake);
		assert_done(rig_reply(c, MR));
		assert_true(rig_reply(c, REGISTER)->error != NULL);
		/* mutation: start those that depend on a refused one */
		assert_reason(rig_reply(c, TOKEN), DEPENDENCY);
		assert_int_equal(rig_reply(c, TOKEN)->error->status, NICD__STATUS__DEPENDENCY_FAILED);
		assert_reason(rig_reply(c, DEREGISTER), DEPENDENCY);
		assert_int_equal(c->rig->host.n_calls, 0);
	}
}

/* The result of a request that makes nothing is no object. */
static void test_no_result(void **state)
{
	struct rig_client *c = client(state);
	Nicd__List list = NICD__LIST__INIT;
	Nicd__Close close = NICD__CLOSE__INIT;

	list.type = NICD__TYPE__PD;
	rig_add(c, 1, NICD__REQUEST__CALL_LIST, &list);
	close.object = rig_result(c, 1);
	rig_add(c, 2, NICD__REQUEST__CALL_CLOSE, &close);
	assert_true(rig_send(c, NULL, 0));
	assert_reason(rig_reply(c, 2), HANDLE);
}

/* A result of the wrong type is as wrong as an id would be. */
static void test_wrong_type(void **state)
{
	struct rig_client *c = client(state);
	Nicd__CreatePd pd = NICD__CREATE_PD__INIT;
	Nicd__GetLocalToken token = NICD__GET_LOCAL_TOKEN__INIT;

	rig_add(c, 1, NICD__REQUEST__CALL_CREATE_PD, &pd);
	token.mr = rig_result(c, 1);
	rig_add(c, 2, NICD__REQUEST__CALL_GET_LOCAL_TOKEN, &token);
	assert_true(rig_send(c, NULL, 0));
	assert_reason(rig_reply(c, 2), HANDLE_TYPE);
}

/* One that waits for several, answered in any order; its own request ids may be used by others meanwhile. */
static void test_several(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), pd = rig_pd(c), mrs[2];
	Nicd__RegisterMr reg[2], joined = NICD__REGISTER_MR__INIT;
	Nicd__Range range[2], *ranges[2] = { &range[0], &range[1] };
	Nicd__Range parts[6], *many[6];

	mrs[0] = rig_mr(c, pd);
	mrs[1] = rig_mr(c, pd);
	for (unsigned i = 0; i < 2; i++) {
		nicd__register_mr__init(&reg[i]);
		nicd__range__init(&range[i]);
		range[i].memory = rig_id(c, memory);
		range[i].length = 4096;
		reg[i].mr = rig_id(c, mrs[i]);
		reg[i].n_ranges = 1;
		reg[i].ranges = &ranges[i];
		reg[i].iova = 0x1000;
		rig_add(c, 101 + i, NICD__REQUEST__CALL_REGISTER_MR, &reg[i]);
	}
	/* Nonsense, but it names both, one of them twice. */
	joined.mr = rig_result(c, 101);
	for (unsigned i = 0; i < 6; i++) {
		many[i] = &parts[i];
		nicd__range__init(&parts[i]);
		parts[i].memory = rig_result(c, i ? 102 : 101);
	}
	joined.n_ranges = 6;
	joined.ranges = many;
	rig_add(c, 103, NICD__REQUEST__CALL_REGISTER_MR, &joined);
	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	assert_true(rig_send(c, NULL, 0));
	assert_int_equal(c->rig->host.n_calls, 3);
	/* Two dependencies and six ranges do not fit the call itself. */
	assert_int_not_equal(c->client->owner.account->used[NIC_SLOT_BUFFERED], 0);
	assert_true(fake_complete_newest(c->rig->fake, FAKE_TAG_ADD));
	assert_done(rig_reply(c, 102));
	/* mutation: start when the first of them is answered */
	assert_null(rig_reply(c, 103));
	/* 102 is free again. */
	rig_add(c, 102, NICD__REQUEST__CALL_CREATE_PD, &(Nicd__CreatePd)NICD__CREATE_PD__INIT);
	rig_forget(c);
	assert_true(rig_send(c, NULL, 0));
	assert_done(rig_reply(c, 102));
	assert_true(fake_complete(c->rig->fake, FAKE_TAG_ADD));
	assert_done(rig_reply(c, 101));
	/* mutation: look the result up when it starts, by the request id that is somebody else's now */
	assert_reason(rig_reply(c, 103), HANDLE_TYPE);
	assert_int_equal(rig_reply(c, 103)->error->observed, NIC_MR);
	assert_int_equal(c->client->owner.account->used[NIC_SLOT_BUFFERED], 0);
}

/* What waits brings its descriptor along. */
static void test_descriptor_waits(void **state)
{
	for (unsigned ending = 0; ending < 4; ending++) {
		struct rig_client *c = client(state);
		uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));
		Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT, again = NICD__REGISTER_MR__INIT;
		Nicd__DeregisterMr deregister = NICD__DEREGISTER_MR__INIT;
		Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
		Nicd__Range own = NICD__RANGE__INIT, *owns[] = { &own };
		struct nic_account *account;
		uint64_t held;

		range.memory = rig_id(c, memory);
		range.length = own.length = 4096;
		reg.mr = rig_id(c, mr);
		reg.n_ranges = again.n_ranges = 1;
		reg.ranges = ranges;
		again.ranges = owns;
		reg.iova = again.iova = 0x1000;
		fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
		rig_add(c, 101, NICD__REQUEST__CALL_REGISTER_MR, &reg);
		deregister.mr = rig_result(c, 101);
		rig_add(c, 102, NICD__REQUEST__CALL_DEREGISTER_MR, &deregister);
		again.mr = rig_result(c, 101);
		rig_add(c, 103, NICD__REQUEST__CALL_REGISTER_MR, &again)->fds = 1;
		/* The Memories'; and there is none to spare in the end for what waits. */
		held = c->rig->nic.held_fds;
		account = c->client->owner.account;
		assert_int_equal(account->used[NIC_SLOT_FDS], held);
		if (ending == 3)
			account->limits.max[NIC_SLOT_FDS] = held;
		assert_true(rig_send(c, (int[]){ rig_memfd(4096, F_SEAL_SHRINK) }, 1));
		/* mutation: keep the descriptor without a charge; do not count it in held_fds */
		assert_int_equal(account->used[NIC_SLOT_FDS], ending == 3 ? held : held + 1);
		assert_int_equal(c->rig->nic.held_fds, ending == 3 ? held : held + 1);
		if (ending == 3) {
			assert_reason(rig_reply(c, 103), QUOTA);
			fake_hold(c->rig->fake, FAKE_TAG_ADD, false);
			fake_complete_all(c->rig->fake);
			assert_done(rig_reply(c, 102));
		} else if (ending == 0) {
			fake_hold(c->rig->fake, FAKE_TAG_ADD, false);
			fake_complete_all(c->rig->fake);
			assert_done(rig_reply(c, 102));
			assert_done(rig_reply(c, 103));
		} else if (ending == 1) {
			fake_complete_with(c->rig->fake, FAKE_TAG_ADD, NICD_R_DEVICE_FAILED);
			/* mutation: leave the descriptor of a refused one open (rig_teardown counts) */
			assert_reason(rig_reply(c, 103), DEPENDENCY);
			/* mutation: give the charge of a refused one back at the end of the session only */
			assert_int_equal(account->used[NIC_SLOT_FDS], held);
			assert_int_equal(c->rig->nic.held_fds, held);
		} else {
			/* mutation: free what waits without closing its descriptor (rig_teardown counts) */
			rig_end(c);
		}
	}
}

/* A whole frame in one chain: no recursion however long it is. */
static void test_long_chain(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));
	Nicd__RegisterMr reg[128];
	Nicd__DeregisterMr deregister[128];
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };

	range.memory = rig_id(c, memory);
	range.length = 4096;
	for (uint32_t i = 0; i < 128; i++) {
		nicd__register_mr__init(&reg[i]);
		nicd__deregister_mr__init(&deregister[i]);
		reg[i].mr = rig_id(c, mr);
		reg[i].n_ranges = 1;
		reg[i].ranges = ranges;
		reg[i].iova = 0x1000;
		rig_add(c, 2 * i + 101, NICD__REQUEST__CALL_REGISTER_MR, &reg[i]);
		deregister[i].mr = rig_result(c, 2 * i + 101);
		rig_add(c, 2 * i + 102, NICD__REQUEST__CALL_DEREGISTER_MR, &deregister[i]);
	}
	assert_true(rig_send(c, NULL, 0));
	for (uint32_t i = 0; i < 256; i++)
		assert_done(rig_reply(c, i + 101));
}

/* The session ends over chains longer than the calls that are kept for later: none is touched after it was freed. */
static void test_end_over_chains(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), pd = rig_pd(c), mrs[2];
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	static Nicd__QueryAdapter query[255];

	for (unsigned i = 0; i < 2; i++)
		mrs[i] = rig_mr(c, pd);
	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	range.length = 4096;
	reg.n_ranges = 1;
	reg.ranges = ranges;
	reg.iova = 0x1000;
	for (uint32_t i = 0; i < 2; i++) {
		range.memory = rig_id(c, memory);
		reg.mr = rig_id(c, mrs[i]);
		rig_add(c, 1000 * i + 1, NICD__REQUEST__CALL_REGISTER_MR, &reg);
		for (uint32_t j = 0; j < 255; j++) {
			nicd__query_adapter__init(&query[j]);
			query[j].adapter = rig_result(c, 1000 * i + 1 + j);
			rig_add(c, 1000 * i + 2 + j, NICD__REQUEST__CALL_QUERY_ADAPTER, &query[j]);
		}
		assert_true(rig_send(c, NULL, 0));
	}
	/* mutation: leave the dependency of a call pointing at one that was freed */
	rig_end(c);
	fake_complete_all(c->rig->fake);
}

/* Refusals run down a chain of what waits. */
static void test_chain_of_waiting(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	Nicd__QueryAdapter query[200];

	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	range.memory = rig_id(c, memory);
	range.length = 4096;
	reg.mr = rig_id(c, mr);
	reg.n_ranges = 1;
	reg.ranges = ranges;
	reg.iova = 0x1000;
	rig_add(c, 101, NICD__REQUEST__CALL_REGISTER_MR, &reg);
	for (uint32_t i = 0; i < 200; i++) {
		nicd__query_adapter__init(&query[i]);
		query[i].adapter = rig_result(c, 101 + i);
		rig_add(c, 102 + i, NICD__REQUEST__CALL_QUERY_ADAPTER, &query[i]);
	}
	assert_true(rig_send(c, NULL, 0));
	assert_int_equal(c->rig->host.n_calls, 201);
	fake_complete_all(c->rig->fake);
	/* The first gets an MR where it wants an adapter, the others depend on it. */
	assert_done(rig_reply(c, 101));
	assert_reason(rig_reply(c, 102), HANDLE_TYPE);
	for (uint32_t i = 1; i < 200; i++)
		assert_reason(rig_reply(c, 102 + i), DEPENDENCY);
	assert_int_equal(c->rig->host.n_calls, 0);
}

/* The session ends while those that waited are started: the others do not start. */
static void test_end_while_starting(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), pd = rig_pd(c), mr = rig_mr(c, pd);
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	Nicd__CreateTicket tickets[3];

	c->client->owner.account->limits.max[NIC_SLOT_DOORS] = 0;
	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	range.memory = rig_id(c, memory);
	range.length = 4096;
	reg.mr = rig_id(c, mr);
	reg.n_ranges = 1;
	reg.ranges = ranges;
	reg.iova = 0x1000;
	reg.flags = NIC_REMOTE_READ;
	rig_add(c, 101, NICD__REQUEST__CALL_REGISTER_MR, &reg);
	for (uint32_t i = 0; i < 3; i++) {
		nicd__create_ticket__init(&tickets[i]);
		tickets[i].mr = rig_result(c, 101);
		rig_add(c, 102 + i, NICD__REQUEST__CALL_CREATE_TICKET, &tickets[i]);
	}
	assert_true(rig_send(c, NULL, 0));
	fake_complete_all(c->rig->fake);
	c->rig->end_on_log = true;
	c->rig->n_logs = 0;
	/* mutation: start all that are ready, whatever became of the session */
	assert_violation(c, FRAME_EMPTY);
	/* The refusal of the first, and the end. */
	assert_int_equal(c->rig->n_logs, 2);
}

/* What waits is charged, and refused when the account has no room. */
static void test_waiting_is_charged(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	Nicd__CreateExport export = NICD__CREATE_EXPORT__INIT;
	char name[201];

	memset(name, 'x', 200);
	name[200] = 0;
	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	range.length = 4096;
	for (unsigned i = 0; i < 2; i++) {
		range.memory = rig_id(c, memory);
		reg.mr = rig_id(c, mr);
		reg.n_ranges = 1;
		reg.ranges = ranges;
		reg.iova = 0x1000;
		reg.flags = NIC_REMOTE_READ;
		rig_add(c, 101, NICD__REQUEST__CALL_REGISTER_MR, &reg);
		export.mr = rig_result(c, 101);
		export.name = name;
		export.flags = NIC_REMOTE_READ;
		rig_add(c, 102, NICD__REQUEST__CALL_CREATE_EXPORT, &export);
		c->client->owner.account->limits.max[NIC_SLOT_BUFFERED] = i ? 4096 : 100;
		assert_true(rig_send(c, NULL, 0));
		if (!i) {
			/* mutation: don't charge what waits */
			assert_reason(rig_reply(c, 102), QUOTA);
			fake_complete_with(c->rig->fake, FAKE_TAG_ADD, NICD_R_DEVICE_FAILED);
			rig_forget(c);
			continue;
		}
		assert_in_range(c->client->owner.account->used[NIC_SLOT_BUFFERED], 200, 400);
		fake_hold(c->rig->fake, FAKE_TAG_ADD, false);
		fake_complete_all(c->rig->fake);
		assert_done(rig_reply(c, 102));
		assert_int_equal(c->client->owner.account->used[NIC_SLOT_BUFFERED], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_inline),
		rig_test(test_asynchronous),
		rig_test(test_asynchronous_in_order),
		rig_test(test_refused),
		rig_test(test_no_result),
		rig_test(test_wrong_type),
		rig_test(test_several),
		rig_test(test_descriptor_waits),
		rig_test(test_long_chain),
		rig_test(test_end_over_chains),
		rig_test(test_chain_of_waiting),
		rig_test(test_end_while_starting),
		rig_test(test_waiting_is_charged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
