/* SPDX-License-Identifier: MIT */
/* Owners: release in order and in chunks, devices that go away, memory that runs out, and all of it at random. */
#include "tests/unit/nic/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An owner with something of everything. */
static void furnish(struct rig *rig)
{
	struct rig_done done = { 0 };
	struct nic_export *door;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 4, &done);
	rig_ticket(rig, rig->mr, 1, &done);
	rig_connect(rig, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
}

/* mutation: tell a dying owner news */
/* mutation: release in another order, more than the budget, or the same object twice */
static void test_order_and_budget(void **state)
{
	static const enum fake_op order[] = { FAKE_DISCONNECT, FAKE_DISCONNECT, FAKE_DOOR_DROP, FAKE_DOOR_DROP };
	struct rig *rig = *state;
	unsigned steps = 0;
	uint64_t door;

	furnish(rig);
	door = nic_next(&rig->nic, NIC_EXPORT, 0)->serial;
	fake_hold(rig->fake, FAKE_OPS, true);
	for (; steps < 4; steps++) {
		unsigned before = fake_pending(rig->fake, order[steps]);

		assert_true(nic_owner_release(&rig->owner, 1));
		assert_int_equal(fake_pending(rig->fake, order[steps]), before + 1);
		assert_int_equal(fake_pending(rig->fake, FAKE_OPS), steps + 1);
	}
	assert_true(rig->owner.dying);
	while (nic_owner_release(&rig->owner, 1))
		steps++;
	assert_int_equal(steps, 6);   /* MR, Memory; then the PD, and no more */
	assert_false(nic_owner_release(&rig->owner, 100));
	assert_int_equal(rig->n_empty, 0);
	assert_true(rig->owner.n_objects > 0);
	rig->n_events = 0;
	fake_stream_open(rig->fake, door, "127.0.0.2:2");   /* one more slips in before the device shuts the door */
	fake_complete_all(rig->fake);
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(rig->n_empty, 1);
	assert_int_equal(rig->n_events, 0);   /* the dying hear nothing */
}

/* mutation: call empty from inside the release, or not at all when the device answers later */
static void test_empty_is_told_once(void **state)
{
	struct rig *rig = *state;

	furnish(rig);
	assert_true(nic_owner_release(&rig->owner, 0));
	assert_false(nic_owner_release(&rig->owner, UINT32_MAX));
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(rig->n_empty, 0);
	assert_false(nic_owner_release(&rig->owner, UINT32_MAX));
	assert_int_equal(rig->n_empty, 0);
}

/* mutation: release what another owner holds */
static void test_two_owners(void **state)
{
	struct rig *rig = *state;
	struct nic_owner other;
	struct nicd_error err;
	struct nic_pd *pd;

	nic_owner_init(&other, &rig->nic, rig->owner.account, nic_serial(&rig->nic));
	assert_int_equal(nic_pd_new(&pd, &other, rig->adapter, &err), 0);
	furnish(rig);
	while (nic_owner_release(&rig->owner, 2))
		;
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(other.n_objects, 1);
	assert_int_equal(rig_used(rig, NIC_SLOT_PDS), 1);
	assert_ptr_equal(nic_find(&rig->nic, NIC_PD, pd->object.serial), &pd->object);
	while (nic_owner_release(&other, 2))
		;
	nic_owner_deinit(&other);
}

/* A session with 100,000 MRs goes in steps whose cost does not grow. */
/* mutation: look at every object again in each step: this takes minutes */
static void test_many_objects(void **state)
{
	enum { N = 100000 };
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	unsigned turns = 1;

	for (unsigned i = 0; i < N; i++)
		assert_int_equal(rig_register(rig_mr(rig), rig->memory, 0, 1, 0, &done), 0);
	fake_hold(rig->fake, FAKE_DETACH, true);
	while (nic_owner_release(&rig->owner, 64))
		turns++;
	assert_int_equal(turns, (N + 3 + 63) / 64);
	fake_complete_all(rig->fake);
	assert_int_equal(rig->owner.n_objects, 0);
}

/* mutation: leave tokens, Qps, charges or exports of a lost device; tell nobody; ask the lost device for anything */
static void test_device_lost(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		struct rig_done dereg = { 0 }, reg = { 0 };
		struct nic_memory *memory;
		struct nicd_error err;
		struct nic_mr *revoking, *registering;
		struct rig *rig;
		bool pending = i & 1;
		uint64_t mr;
		void *own;

		rig_setup(&own);
		rig = own;
		furnish(rig);
		mr = rig->mr->object.serial;
		memory = rig_memory(rig, 2, true);
		revoking = rig_mr(rig);
		registering = rig_mr(rig);
		assert_int_equal(rig_register(revoking, rig->memory, 0, 1, 0, &reg), 0);
		if (pending)
			fake_hold(rig->fake, FAKE_OPS, true);
		assert_int_equal(nic_mr_deregister(revoking, rig_done(&dereg), &err), 0);
		assert_int_equal(rig_register(registering, memory, 0, 1, 0, &reg), 0);
		rig->n_events = 0;
		rig->fake->half_lost = i & 4;
		fake_lose(rig->fake, i & 2);
		assert_false(rig->adapter->provider->up);
		assert_int_equal(rig->mr->state, NIC_MR_CREATED);
		assert_int_equal(revoking->state, NIC_MR_CREATED);
		assert_int_equal(registering->state, NIC_MR_CREATED);
		assert_ended(dereg);
		if (pending)
			assert_refused(reg, DEVICE_LOST);
		assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, mr), 1);
		assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, 0), pending ? 3 : 4);   /* MRs; export, ticket */
		assert_int_equal(rig_events(rig, NIC_EVENT_DISCONNECTED, 0), 2);
		assert_int_equal(rig_events(rig, NIC_EVENT_DEVICE_STATE, rig->adapter->object.serial), 1);
		assert_int_equal(rig->events[rig->n_events - 1].reason, NICD_R_DEVICE_LOST);
		assert_int_equal(rig->nic.count[NIC_GRANT], 0);
		assert_int_equal(rig->nic.count[NIC_QP], 1);   /* the outbound one, to be closed */
		assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 0);
		fake_lose(rig->fake, true);   /* said twice */
		assert_int_equal(rig_events(rig, NIC_EVENT_DEVICE_STATE, 0), 1);
		rig_teardown(&own);
	}
}

/* mutation: leave waiting for its deadline what the device had refused, when the device goes */
static void test_device_lost_after_it_refused(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed[4] = { 0 }, done = { 0 };
	struct nic_export *door;
	struct nic_qp *qp;
	struct nic_mr *error;
	struct nicd_error err;

	rig_registered(rig);
	error = rig_mr(rig);
	assert_int_equal(rig_register(error, rig->memory, 0, 1, 0, &done), 0);
	door = rig_ticket(rig, rig->mr, 1, &done);
	qp = rig_connect(rig, &done);
	for (unsigned i = 0; i < FAKE_OPS; i++)
		fake_fail(rig->fake, i, 0, 100, NICD_R_DEVICE_BUSY);
	assert_int_equal(nic_mr_deregister(error, rig_done(&done), &err), 0);
	assert_int_equal(error->state, NIC_MR_ERROR);
	nic_mr_close(rig->mr, rig_done(&closed[0]));
	nic_door_close(door, rig_done(&closed[1]));
	nic_qp_close(qp, rig_done(&closed[2]));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(closed[i].calls, 0);
	fake_lose(rig->fake, true);
	for (unsigned i = 0; i < 3; i++)
		assert_ended(closed[i]);
	assert_int_equal(error->state, NIC_MR_CREATED);
}

/* A Memory whose detach the device refused. */
/* mutation: as above */
static void test_device_lost_while_detaching(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };

	rig_registered(rig);
	nic_mr_close(rig->mr, NULL);
	fake_fail(rig->fake, FAKE_DETACH, 0, 9, NICD_R_DEVICE_BUSY);
	nic_memory_close(rig->memory, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	assert_true(nic_adapter_used(rig->adapter));   /* by its PD, and by what it does not let go of */
	fake_lose(rig->fake, false);
	assert_ended(closed);
	assert_true(nic_adapter_used(rig->adapter));
	nic_pd_close(rig->pd, NULL);
	assert_false(nic_adapter_used(rig->adapter));
}

/* The process ends: what devices still owe is ended by freeing them. */
/* mutation: assert before the adapters are freed */
static void test_deinit_ends_what_is_owed(void **state)
{
	struct rig *rig;
	bool freed = false;
	void *own;

	rig_setup(&own);
	rig = own;
	furnish(rig);
	rig->fake->freed = &freed;
	fake_hold(rig->fake, FAKE_OPS, true);
	while (nic_owner_release(&rig->owner, 10))
		;
	assert_true(rig->owner.n_objects > 0);
	nic_adapter_free(rig->adapter);
	assert_true(freed);
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(rig->n_empty, 1);
	nic_owner_deinit(&rig->owner);
	nic_deinit(&rig->nic);
	assert_int_equal(rig->env.live_blocks, 0);
	free(rig);
}

/* ---- every allocation fails once */

struct story {
	struct rig *rig;
	struct nic_owner owner;
	unsigned refused;
};

static void story_end(struct rig_done *done)
{
	if (done->error.reason != NICD_R_NONE)
		assert_int_equal(done->error.reason, NICD_R_NO_MEMORY);
}

/* What a session does, as far as it gets. Each refusal must be NO_MEMORY. */
static void story(struct rig *rig, struct nic_owner *owner, struct rig_done *done)
{
	struct nic_memory_facts facts = { .fd = 9, .size = 8 * RIG_PAGE, .page_size = RIG_PAGE, .writable = true };
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ, .uses = 2 };
	struct nic_connect_terms connect = { 0 };
	struct nic_memory *memory;
	struct nic_range ranges[2];
	struct nic_register what = { .ranges = ranges, .n_ranges = 2, .iova = 0x5000, .flags = 7 };
	struct nicd_error err = { 0 };
	struct nic_export *door;
	struct nic_qp *qp;
	struct nic_pd *pd;
	struct nic_mr *mr;

	done->then = story_end;
	if (nic_memory_new(&memory, owner, &facts, true, &err) < 0 || nic_pd_new(&pd, owner, rig->adapter, &err) < 0 ||
	    nic_mr_new(&mr, pd, &err) < 0)
		goto refused;
	ranges[0] = (struct nic_range){ memory, 0, RIG_PAGE };
	ranges[1] = (struct nic_range){ memory, 4 * RIG_PAGE, RIG_PAGE };
	if (nic_mr_register(mr, &what, rig_done(done), &err) < 0)
		goto refused;
	if (mr->state != NIC_MR_REGISTERED)
		return;
	if (nic_export_new(&door, mr, &terms, rig_done(done), &err) < 0 || nic_ticket_new(&door, mr, &terms, rig_done(done), &err) < 0 ||
	    nic_qp_connect(&qp, pd, &connect, rig_done(done), &err) < 0)
		goto refused;
	return;
refused:
	assert_int_equal(err.reason, NICD_R_NO_MEMORY);
}

/* mutation: forget one undo in any constructor; the blocks, charges or descriptors of some k do not come back */
static void test_every_allocation_fails(void **state)
{
	for (unsigned always = 0; always < 2; always++) {
		unsigned k;

		for (k = 1; k < 100; k++) {
			struct rig_done done = { 0 };
			struct nic_owner owner;
			struct rig *rig;
			uint64_t blocks;
			unsigned fds;
			void *own;

			rig_setup(&own);
			rig = own;
			blocks = rig->env.live_blocks - rig->nic.n_spare_ops;
			fds = rig->env.n_closed;
			nic_owner_init(&owner, &rig->nic, rig->owner.account, nic_serial(&rig->nic));
			rig->env.fail_at = rig->env.allocs + k;
			rig->env.fail_on = always;
			story(rig, &owner, &done);
			while (nic_owner_release(&owner, 3))
				;
			assert_int_equal(owner.n_objects, 0);
			nic_owner_deinit(&owner);
			assert_int_equal(rig->env.live_blocks - rig->nic.n_spare_ops, blocks);
			assert_int_equal(rig->env.n_closed, fds + 1);
			rig->env.fail_at = 0;
			if (!rig->env.failed) {
				rig_teardown(&own);
				break;
			}
			rig_teardown(&own);
		}
		assert_true(k > 10 && k < 100);
	}
}

/* mutation: close all at once, start the next one only when all have gone, or forget to start it */
static void test_release_in_pieces(void **state)
{
	enum { N = 3 * NIC_OWNER_CLOSING };
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	for (unsigned i = 0; i < N; i++) {
		struct nic_mr *mr;

		assert_int_equal(nic_mr_new(&mr, rig->pd, &err), 0);
		assert_int_equal(rig_register(mr, rig->memory, i % 16, 1, NIC_REMOTE_READ, &done), 0);
	}
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	while (nic_owner_release(&rig->owner, 100))
		;
	assert_int_equal(fake_pending(rig->fake, FAKE_TAG_DROP), NIC_OWNER_CLOSING);
	assert_true(rig->owner.held_back);
	/* mutation: leave the clock stopped when the release has done its piece: then no deadline ever comes */
	assert_int_equal(rig->nic.clock_ns, 0);
	for (unsigned i = 0; i < N - NIC_OWNER_CLOSING; i++) {
		unsigned pending = fake_pending(rig->fake, FAKE_TAG_DROP);

		assert_true(fake_complete(rig->fake, FAKE_TAG_DROP));
		/* mutation: start one for each that has gone: then each takes a message, and a turn of the device, for itself */
		assert_int_equal(fake_pending(rig->fake, FAKE_TAG_DROP),
				 pending - 1 > NIC_OWNER_CLOSING - NIC_OWNER_BATCH ? pending - 1 : NIC_OWNER_CLOSING);
		assert_int_equal(rig->n_empty, 0);
	}
	fake_complete_all(rig->fake);
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(rig->n_empty, 1);
}

/* The device goes while a big session is released: nothing ends any more that would bring the rest on. */
static void test_device_lost_while_held_back(void **state)
{
	enum { N = NIC_OWNER_CLOSING * NIC_OWNER_BATCH };   /* more than all that is closing can bring on */
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	unsigned turns = 0;

	for (unsigned i = 0; i < N; i++)
		assert_int_equal(rig_register(rig_mr(rig), rig->memory, 0, 1, 0, &done), 0);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	while (nic_owner_release(&rig->owner, 100))
		;
	assert_true(rig->owner.held_back);
	fake_lose(rig->fake, true);
	while (nic_next_deadline(&rig->nic) == 0 && turns++ < N)
		nic_tick(&rig->nic);
	/* mutation: go on only when something of it ends */
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(rig->n_empty, 1);
}

/* mutation: abort, or leave the MR alone, when there is no memory for its revocation: the release must try again */
static void test_release_without_memory(void **state)
{
	enum { N = 100 };
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	unsigned laps = 0;

	for (unsigned i = 0; i < N; i++) {
		struct nic_mr *mr = rig_mr(rig);

		assert_int_equal(rig_register(mr, rig->memory, i % 16, 1, NIC_REMOTE_READ, &done), 0);
	}
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	rig->env.fail_at = rig->env.allocs + 1;
	rig->env.fail_on = true;
	while (nic_owner_release(&rig->owner, 7) && laps++ < 1000)
		;
	assert_true(laps < 1000);   /* one that ends starts the next one */
	assert_true(rig->owner.held_back);
	assert_true(fake_pending(rig->fake, FAKE_TAG_DROP) >= 8);
	assert_true(fake_pending(rig->fake, FAKE_TAG_DROP) < N);
	fake_complete_all(rig->fake);
	assert_int_equal(rig->owner.n_objects, 0);
	assert_int_equal(rig->n_empty, 1);
	rig->env.fail_at = 0;
}

/* mutation: end everything of a lost device in one go, skip what a step left, or tell the tokens of those that come later */
static void test_device_lost_in_pieces(void **state)
{
	enum { N = 3000 };
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	static struct nic_mr *mrs[N];
	unsigned left = N, laps = 0;

	for (unsigned i = 0; i < N; i++) {
		mrs[i] = rig_mr(rig);
		assert_int_equal(rig_register(mrs[i], rig->memory, i % 16, 1, NIC_REMOTE_READ, &done), 0);
	}
	rig->n_events = 0;
	rig->owner.event = NULL;
	fake_lose(rig->fake, true);
	while (left > 0 && laps++ < 100) {
		unsigned still = 0;

		for (unsigned i = 0; i < N; i++)
			still += mrs[i]->state == NIC_MR_REGISTERED;
		assert_true(left - still <= 1024);
		left = still;
		assert_int_equal(nic_next_deadline(&rig->nic), left > 0 ? 0 : nic_next_deadline(&rig->nic));
		nic_tick(&rig->nic);
	}
	assert_true(laps > 3 && laps < 100);
	while (nic_next_deadline(&rig->nic) == 0)
		nic_tick(&rig->nic);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(mrs[i]->state, NIC_MR_CREATED);
}

static unsigned n_told;

static void count_told(struct nic_owner *owner, struct nic_object *object, enum nic_event event, uint64_t serial,
		       const struct nicd_error *error)
{
	n_told++;
}

/*
 * Thousands of sessions hear of a lost device, in pieces; some go before it is their turn.
 * mutation: nic_adapter_tell without a budget; nic_owner_deinit does not move `telling` on; nic_next_deadline does not look at it
 */
static void test_device_lost_told_in_pieces(void **state)
{
	enum { N = 5000, GONE = 100 };
	struct rig *rig = *state;
	struct nic_owner *owners = calloc(N, sizeof(*owners));
	unsigned before, laps = 0, gone = 0;

	for (unsigned i = 0; i < N; i++) {
		nic_owner_init(&owners[i], &rig->nic, rig->owner.account, nic_serial(&rig->nic));
		owners[i].event = count_told;
	}
	n_told = 0;
	fake_lose(rig->fake, true);
	assert_in_range(n_told, 1, 1024);
	while (rig->adapter->telling && laps++ < 100) {
		struct nic_owner *next = rig->adapter->telling;

		/* mutation: forget an adapter that has something to tell */
		assert_true(nic_adapter_used(rig->adapter));
		assert_int_equal(nic_next_deadline(&rig->nic), 0);
		if (gone < GONE) {
			gone++;
			nic_owner_deinit(next);
			memset(next, 0, sizeof(*next));
		}
		before = n_told;
		nic_tick(&rig->nic);
		assert_in_range(n_told - before, 0, 256);
	}
	assert_in_range(laps, 10, 99);
	assert_int_equal(n_told, N - gone);
	for (unsigned i = 0; i < N; i++)
		if (owners[i].event)
			nic_owner_deinit(&owners[i]);
	free(owners);
	while (nic_next_deadline(&rig->nic) == 0)
		nic_tick(&rig->nic);
	assert_int_equal(n_told, N - gone);
}

/* mutation: lose the provider, or the adapter, when there is no memory */
static void test_no_memory_for_an_adapter(void **state)
{
	struct rig *rig = *state;
	struct nic_adapter *adapter = NULL;
	struct fake *fake = fake_new();
	bool freed = false;

	fake->freed = &freed;
	rig->env.fail_at = rig->env.allocs + 1;
	assert_int_equal(nic_adapter_new(&adapter, &rig->nic, &fake->provider), -ENOMEM);
	assert_null(adapter);
	assert_true(freed);
	assert_null(nic_adapter_free(NULL));
}

/* ---- at random */

enum { DONES = 4096 };

struct chaos {
	struct rig *rig;
	uint64_t seed;
	unsigned n_dones;
	struct rig_done *dones;
};

static unsigned draw(struct chaos *chaos, unsigned n)
{
	chaos->seed = chaos->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(chaos->seed >> 33) % n;
}

static struct nic_done *next_done(struct chaos *chaos)
{
	assert_true(chaos->n_dones < DONES);
	return rig_done(&chaos->dones[chaos->n_dones++]);
}

/* The caller of a refused call is not answered. */
static void undo(struct chaos *chaos, int r)
{
	if (r < 0)
		chaos->n_dones--;
}

/* Some object of this type that is not ending, or NULL. */
static struct nic_object *some(struct chaos *chaos, enum nic_type type)
{
	struct nic_object *object = TAILQ_FIRST(&chaos->rig->owner.objects[type]);

	for (unsigned i = draw(chaos, 4); i > 0 && object && TAILQ_NEXT(object, of_owner); i--)
		object = TAILQ_NEXT(object, of_owner);
	return object && !object->ending ? object : NULL;
}

static void chaos_make(struct chaos *chaos, struct nic_pd *pd, struct nic_mr *mr)
{
	struct nic_door_terms terms = { .rights = NIC_REMOTE_READ, .uses = 2 };
	struct nic_connect_terms connect = { 0 };
	struct nic_export *door;
	struct nicd_error err;
	struct nic_qp *qp;
	char name[8];

	switch (draw(chaos, 5)) {
	case 0:
		rig_memory(chaos->rig, 16, true);
		break;
	case 1:
		nic_mr_new(&mr, pd, &err);
		break;
	case 2:
		snprintf(name, sizeof(name), "%u", draw(chaos, 5));
		terms.name = name;
		undo(chaos, mr ? nic_export_new(&door, mr, &terms, next_done(chaos), &err) : 0);
		break;
	case 3:
		undo(chaos, mr ? nic_ticket_new(&door, mr, &terms, next_done(chaos), &err) : 0);
		break;
	case 4:
		undo(chaos, nic_qp_connect(&qp, pd, &connect, next_done(chaos), &err));
		break;
	}
}

static void chaos_use(struct chaos *chaos, struct nic_mr *mr, struct nic_memory *memory, struct nic_qp *qp)
{
	struct nic_range range = { memory, draw(chaos, 16) * (uint64_t)RIG_PAGE, RIG_PAGE };
	struct nic_register what = { .ranges = &range, .n_ranges = 1, .iova = 0x1000, .flags = 7 };
	struct nic_object *object;
	struct nicd_error err;

	switch (draw(chaos, 4)) {
	case 0:
	case 1:
		if (mr && memory)
			undo(chaos, nic_mr_register(mr, &what, next_done(chaos), &err));
		break;
	case 2:
		if (mr)
			undo(chaos, nic_mr_deregister(mr, next_done(chaos), &err));
		break;
	case 3:
		object = some(chaos, (enum nic_type[]){ NIC_MR, NIC_EXPORT, NIC_TICKET, NIC_QP }[draw(chaos, 4)]);
		if (object)
			undo(chaos, nic_revoke(&chaos->rig->nic, object, next_done(chaos), &err));
		break;
	}
}

static void chaos_close(struct chaos *chaos)
{
	struct nic_object *object = some(chaos, (enum nic_type[]){ NIC_MR, NIC_EXPORT, NIC_TICKET, NIC_QP, NIC_MEMORY }[draw(chaos, 5)]);

	if (!object)
		return;
	switch (object->type) {
	case NIC_MR:
		nic_mr_close((struct nic_mr *)object, next_done(chaos));
		break;
	case NIC_QP:
		nic_qp_close((struct nic_qp *)object, next_done(chaos));
		break;
	case NIC_MEMORY:
		nic_memory_close((struct nic_memory *)object, next_done(chaos));
		break;
	default:
		nic_door_close((struct nic_export *)object, next_done(chaos));
		break;
	}
}

static void chaos_device(struct chaos *chaos)
{
	struct fake *fake = chaos->rig->fake;
	struct nic_object *door = some(chaos, draw(chaos, 2) ? NIC_EXPORT : NIC_TICKET);

	switch (draw(chaos, 6)) {
	case 0:
		fake_hold(fake, draw(chaos, FAKE_OPS), draw(chaos, 3));
		break;
	case 1:
		fake_fail(fake, draw(chaos, FAKE_OPS), draw(chaos, 2), 1, NICD_R_DEVICE_BUSY);
		break;
	case 2:
		fake_complete_newest(fake, FAKE_OPS);
		break;
	case 3:
		fake_complete(fake, FAKE_OPS);
		break;
	case 4:
		if (door && ((struct nic_export *)door)->state == NIC_DOOR_OPEN)
			fake_stream_open(fake, door->serial, "127.0.0.2:1");
		break;
	case 5:
		if (door)
			fake_expire(fake, door->serial);
		rig_later(chaos->rig, draw(chaos, 3000));
		break;
	}
}

static void chaos_run(uint64_t seed)
{
	struct chaos chaos = { .seed = seed, .dones = calloc(DONES, sizeof(*chaos.dones)) };
	struct rig *rig;
	void *own;

	rig_setup(&own);
	rig = chaos.rig = own;
	rig->owner.event = NULL;
	for (unsigned i = 0; i < 400; i++) {
		struct nic_mr *mr = (struct nic_mr *)some(&chaos, NIC_MR);

		switch (draw(&chaos, 5)) {
		case 0:
			chaos_make(&chaos, rig->pd, mr);
			break;
		case 1:
			chaos_use(&chaos, mr, (struct nic_memory *)some(&chaos, NIC_MEMORY), (struct nic_qp *)some(&chaos, NIC_QP));
			break;
		case 2:
			chaos_close(&chaos);
			break;
		default:
			chaos_device(&chaos);
			break;
		}
		if (rig->fake->lost)
			break;
		rig->fake->half_lost = draw(&chaos, 2);
		if (draw(&chaos, 400) == 0)
			fake_lose(rig->fake, draw(&chaos, 2));
		if (rig->fake->lost)
			break;
	}
	rig_teardown(&own);
	for (unsigned i = 0; i < chaos.n_dones; i++)
		if (chaos.dones[i].calls != 1)
			fail_msg("seed %llu: answer %u came %u times", (unsigned long long)seed, i, chaos.dones[i].calls);
	free(chaos.dones);
}

/* Whatever happens: one answer each, and nothing left. */
/* mutation: nearly any of those named in these tests, and those that nobody thought of */
static void test_at_random(void **state)
{
	const char *seed = getenv("NIC_SEED");

	for (uint64_t i = 1; i <= 1500 && !seed; i++)
		chaos_run(i);
	if (seed)
		chaos_run(strtoull(seed, NULL, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_order_and_budget),
		rig_test(test_empty_is_told_once),
		rig_test(test_two_owners),
		rig_test(test_many_objects),
		cmocka_unit_test(test_device_lost),
		rig_test(test_device_lost_after_it_refused),
		rig_test(test_device_lost_while_detaching),
		cmocka_unit_test(test_deinit_ends_what_is_owed),
		cmocka_unit_test(test_every_allocation_fails),
		rig_test(test_release_in_pieces),
		rig_test(test_device_lost_while_held_back),
		rig_test(test_release_without_memory),
		rig_test(test_device_lost_in_pieces),
		rig_test(test_device_lost_told_in_pieces),
		rig_test(test_no_memory_for_an_adapter),
		cmocka_unit_test(test_at_random),
	};

	return cmocka_run_group_tests_name("owner", tests, NULL, NULL);
}
