/* SPDX-License-Identifier: MIT */
/* Requests that the device works on wait for their account's turn: who is served how often is counted, nothing is timed. */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/dispatch.h"

enum { STORM = 60, NORMAL = 7, CLIENTS = STORM + NORMAL, EACH = 6, SHARE = 2, FULL = 16 };

static struct nic_fair *device_turns(struct rig *rig)
{
	struct nic_fair *fair = &rig->host.dispatch->calls.fair[NIC_TURN_DEVICE];

	fair->share = SHARE;
	fair->full = FULL;
	return fair;
}

/* A client with MRs to register and a Memory that the device has already. */
struct worker {
	struct rig_client *c;
	uint64_t memory, mrs[EACH + 1];
	Nicd__RegisterMr args[EACH];
	Nicd__Range range[EACH], *ranges[EACH];
};

static void worker_init(struct worker *worker, struct rig *rig, const char *account)
{
	uint64_t pd;

	worker->c = rig_hello(rig, account, CLIENT_ROLE_CLIENT);
	worker->memory = rig_memory(worker->c, 4096);
	pd = rig_pd(worker->c);
	for (unsigned i = 0; i <= EACH; i++)
		worker->mrs[i] = rig_mr(worker->c, pd);
	assert_done(rig_register(worker->c, worker->mrs[EACH], worker->memory, 4096, NIC_REMOTE_READ));
	rig_forget(worker->c);
}

/* All its registrations in one frame, ids 1001 and on. */
static void worker_ask(struct worker *worker)
{
	for (unsigned i = 0; i < EACH; i++) {
		Nicd__RegisterMr *args = &worker->args[i];

		nicd__register_mr__init(args);
		nicd__range__init(&worker->range[i]);
		worker->ranges[i] = &worker->range[i];
		worker->range[i].memory = rig_id(worker->c, worker->memory);
		worker->range[i].length = 4096;
		args->mr = rig_id(worker->c, worker->mrs[i]);
		args->n_ranges = 1;
		args->ranges = &worker->ranges[i];
		args->iova = 0x10000;
		args->flags = NIC_REMOTE_READ;
		rig_add(worker->c, 1001 + i, NICD__REQUEST__CALL_REGISTER_MR, args);
	}
	assert_true(rig_send(worker->c, NULL, 0));
}

static unsigned total(struct worker *workers, unsigned n)
{
	unsigned replies = 0;

	for (unsigned i = 0; i < n; i++)
		replies += rig_n_replies(workers[i].c);
	return replies;
}

/* mutation: call_must_queue is always false: 360 of the storm's registrations stand before the first one of the others */
static void test_a_storm_of_sessions_weighs_one(void **state)
{
	static struct worker workers[CLIENTS];
	struct rig *rig = *state;
	unsigned served = 0;

	device_turns(rig);
	for (unsigned i = 0; i < CLIENTS; i++) {
		char account[32];

		snprintf(account, sizeof(account), "uid:%u", i < STORM ? 1 : 2 + i - STORM);
		worker_init(&workers[i], rig, account);
	}
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	for (unsigned i = 0; i < CLIENTS; i++)
		worker_ask(&workers[i]);
	while (total(workers + STORM, NORMAL) < NORMAL * EACH) {
		assert_true(fake_complete(rig->fake, FAKE_TAG_ADD));
		served++;
		(void)total(workers, CLIENTS);
	}
	/* What the storm had there when it was alone, and then as much as each of the others, give or take what is under way. */
	assert_true(served <= NORMAL * EACH + EACH + FULL + 2 * SHARE);
	fake_hold(rig->fake, FAKE_TAG_ADD, false);
	while (fake_complete_all(rig->fake))
		(void)total(workers, CLIENTS);
	/* Nobody is forgotten. */
	assert_int_equal(total(workers, CLIENTS), CLIENTS * EACH);
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_done(rig_reply(workers[i].c, 1000 + EACH));
}

/* The device has what its window holds, the rest waits, and each answer lets one more go there. */
static void test_window(void **state)
{
	static struct worker workers[4];
	struct rig *rig = *state;

	device_turns(rig);
	for (unsigned i = 0; i < 4; i++)
		worker_init(&workers[i], rig, "uid:1");
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	for (unsigned i = 0; i < 4; i++)
		worker_ask(&workers[i]);
	(void)total(workers, 4);
	/* mutation: call_serve does not count: all 24 are there */
	assert_int_equal(fake_pending(rig->fake, FAKE_TAG_ADD), FULL);
	for (unsigned i = 0; i < 4 * EACH - FULL; i++) {
		assert_true(fake_complete(rig->fake, FAKE_TAG_ADD));
		(void)total(workers, 4);
		/* mutation: call_free without call_unserve: the window never opens again */
		assert_int_equal(fake_pending(rig->fake, FAKE_TAG_ADD), FULL);
	}
	fake_complete_all(rig->fake);
	assert_int_equal(total(workers, 4), 4 * EACH);
}

/* What is not the device's work is answered while the window is full; and the order of what waits stays. */
static void test_only_slow_work_waits(void **state)
{
	static struct worker worker;
	struct rig *rig = *state;
	struct nic_fair *fair = device_turns(rig);
	Nicd__DeregisterMr args = NICD__DEREGISTER_MR__INIT;
	uint32_t deregister;

	worker_init(&worker, rig, "uid:1");
	fair->share = fair->full = 1;
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	worker_ask(&worker);
	args.mr = rig_id(worker.c, worker.mrs[EACH - 1]);
	/* mutation: nic_fair_enter lets it overtake: refused, because that MR is not registered yet */
	assert_null(rig_call(worker.c, NICD__REQUEST__CALL_DEREGISTER_MR, &args));
	deregister = worker.c->last_id;
	assert_true(rig_pd(worker.c));
	assert_int_equal(fake_pending(rig->fake, FAKE_TAG_ADD), 1);
	for (unsigned i = 0; i < EACH; i++) {
		assert_true(fake_complete(rig->fake, FAKE_TAG_ADD));
		(void)total(&worker, 1);
	}
	assert_done(rig_reply(worker.c, deregister));
}

/* The turn of one has come, but it has not started yet, when the next one arrives. */
static void test_nobody_overtakes_who_is_about_to_start(void **state)
{
	static struct worker worker;
	struct rig *rig = *state;
	struct nic_fair *fair = device_turns(rig);
	Nicd__DeregisterMr args = NICD__DEREGISTER_MR__INIT;

	worker_init(&worker, rig, "uid:1");
	fair->share = fair->full = EACH - 1;
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	worker_ask(&worker);
	(void)total(&worker, 1);
	for (unsigned i = 0; i < EACH - 1; i++)
		assert_true(fake_complete(rig->fake, FAKE_TAG_ADD));
	args.mr = rig_id(worker.c, worker.mrs[EACH - 1]);
	rig_add(worker.c, 3001, NICD__REQUEST__CALL_DEREGISTER_MR, &args);
	assert_true(rig_send(worker.c, NULL, 0));
	/* mutation: call_must_queue without a look at client->ready: MR_STATE, because it was not registered yet */
	fake_hold(rig->fake, FAKE_TAG_ADD, false);
	assert_int_equal(total(&worker, 1), EACH + 1);
	assert_done(rig_reply(worker.c, 1000 + EACH));
	assert_done(rig_reply(worker.c, 3001));
}

/* mutation: calls_end, or call_free, leaves what is queued in the ring: used after it is freed */
static void test_the_end_of_a_session_that_waits(void **state)
{
	static struct worker workers[2];
	struct rig *rig = *state;
	struct nic_fair *fair = device_turns(rig);

	for (unsigned i = 0; i < 2; i++)
		worker_init(&workers[i], rig, "uid:1");
	fair->share = fair->full = 2;
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	worker_ask(&workers[0]);
	worker_ask(&workers[1]);
	rig_end(workers[0].c);
	/* Two of the first one are at the device still; then it is the turn of the second. */
	while (rig_n_replies(workers[1].c) < EACH)
		assert_true(fake_complete(rig->fake, FAKE_TAG_ADD));
	assert_int_equal(total(workers + 1, 1), EACH);
}

/* mutation: method_close without close_is_deferred: the Memory waits for MRs whose closing waits for it */
static void test_who_waits_for_others_is_not_in_their_way(void **state)
{
	static struct worker worker;
	struct rig *rig = *state;
	struct nic_fair *fair = device_turns(rig);
	Nicd__Close memory = NICD__CLOSE__INIT, mr = NICD__CLOSE__INIT;

	worker_init(&worker, rig, "uid:1");
	fair->share = fair->full = 1;
	memory.object = rig_id(worker.c, worker.memory);
	assert_null(rig_call(worker.c, NICD__REQUEST__CALL_CLOSE, &memory));
	mr.object = rig_id(worker.c, worker.mrs[EACH]);
	assert_done(rig_call(worker.c, NICD__REQUEST__CALL_CLOSE, &mr));
}

/* A descriptor that waits is charged, counted and given back like one that waits for another call. */
static void test_what_waits_with_a_descriptor(void **state)
{
	static struct worker worker;
	struct rig *rig = *state;
	struct nic_fair *fair = device_turns(rig);
	struct nic_account *account;
	Nicd__RegisterMr args = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	uint64_t held, used;

	worker_init(&worker, rig, "uid:1");
	account = worker.c->client->owner.account;
	fair->share = fair->full = 1;
	fake_hold(rig->fake, FAKE_TAG_ADD, true);
	assert_null(rig_register(worker.c, worker.mrs[0], worker.memory, 4096, NIC_REMOTE_READ));
	held = rig->nic.held_fds;
	used = account->used[NIC_SLOT_FDS];
	range.length = 4096;
	args.mr = rig_id(worker.c, worker.mrs[1]);
	args.n_ranges = 1;
	args.ranges = ranges;
	args.iova = 0x10000;
	assert_null(rig_call_fd(worker.c, NICD__REQUEST__CALL_REGISTER_MR, &args, rig_memfd(4096, F_SEAL_SHRINK)));
	assert_int_equal(rig->nic.held_fds, held + 1);
	assert_int_equal(account->used[NIC_SLOT_FDS], used + 1);
	fake_hold(rig->fake, FAKE_TAG_ADD, false);
	fake_complete_all(rig->fake);
	assert_done(rig_reply(worker.c, worker.c->last_id));
}

/* An earlier one of its frame is refused while it waits for the window: it never goes there. */
static void test_dependencies_come_before_turns(void **state)
{
	static struct worker worker;
	struct rig *rig = *state;
	struct nic_fair *fair = device_turns(rig);
	Nicd__CreateTicket ticket = NICD__CREATE_TICKET__INIT;
	Nicd__DeregisterMr again = NICD__DEREGISTER_MR__INIT;

	worker_init(&worker, rig, "uid:1");
	fair->share = fair->full = 1;
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	again.mr = rig_id(worker.c, worker.mrs[EACH]);
	assert_null(rig_call(worker.c, NICD__REQUEST__CALL_DEREGISTER_MR, &again));
	again.mr = rig_id(worker.c, worker.mrs[0]);   /* not registered: refused when its turn comes */
	rig_add(worker.c, 2001, NICD__REQUEST__CALL_DEREGISTER_MR, &again);
	ticket.mr = rig_result(worker.c, 2001);
	rig_add(worker.c, 2002, NICD__REQUEST__CALL_CREATE_TICKET, &ticket);
	assert_true(rig_send(worker.c, NULL, 0));
	assert_null(rig_reply(worker.c, 2001));
	fake_complete_all(rig->fake);
	(void)rig_n_replies(worker.c);
	assert_reason(rig_reply(worker.c, 2001), MR_STATE);
	assert_reason(rig_reply(worker.c, 2002), DEPENDENCY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_a_storm_of_sessions_weighs_one),
		rig_test(test_window),
		rig_test(test_only_slow_work_waits),
		rig_test(test_nobody_overtakes_who_is_about_to_start),
		rig_test(test_the_end_of_a_session_that_waits),
		rig_test(test_who_waits_for_others_is_not_in_their_way),
		rig_test(test_what_waits_with_a_descriptor),
		rig_test(test_dependencies_come_before_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
