/* SPDX-License-Identifier: MIT */
/* The normal MR's state machine: every cell of its rows in the table of NDK semantics, and what the device may do to it. */
#include "tests/unit/nic/rig.h"

/* Brings the rig's MR into a state; what is under way ends in `done`. */
static void bring(struct rig *rig, enum nic_mr_state state, struct rig_done *done)
{
	struct nicd_error err;

	if (state == NIC_MR_CREATED)
		return;
	if (state == NIC_MR_REGISTERING)
		fake_hold(rig->fake, FAKE_TAG_ADD, true);
	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 16, NIC_REMOTE_READ, done), 0);
	if (state == NIC_MR_REGISTERING || state == NIC_MR_REGISTERED)
		return;
	if (state == NIC_MR_REVOKING)
		fake_hold(rig->fake, FAKE_TAG_DROP, true);
	else
		fake_fail(rig->fake, FAKE_TAG_DROP, 0, 1, NICD_R_DEVICE_BUSY);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(done), &err), 0);
}

struct cell {
	enum nic_mr_state state;
	enum nicd_reason local, remote, reg, dereg;   /* NICD_R_NONE: allowed */
};

#define IDS NICD_R_MR_STATE
static const struct cell cells[] = {
	{ NIC_MR_CREATED, IDS, IDS, NICD_R_NONE, IDS },
	{ NIC_MR_REGISTERING, IDS, IDS, IDS, IDS },
	{ NIC_MR_REGISTERED, NICD_R_NONE, NICD_R_NONE, IDS, NICD_R_NONE },
	{ NIC_MR_REVOKING, IDS, IDS, IDS, IDS },
	{ NIC_MR_ERROR, IDS, IDS, IDS, NICD_R_NONE },
};
#undef IDS

/* mutation: leave out the state check of any of the four calls, or allow one state more: a cell fails */
static void test_cells(void **state)
{
	for (unsigned i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
		const struct cell *cell = &cells[i];
		struct rig_done one = { 0 }, two = { 0 };
		struct nicd_error err;
		struct rig *rig;
		uint32_t token;
		void *own;
		int r;

		rig_setup(&own);
		rig = own;
		bring(rig, cell->state, &one);
		assert_int_equal(rig->mr->state, cell->state);
		err = (struct nicd_error){ 0 };
		r = nic_mr_local_token(rig->mr, &token, &err);
		assert_int_equal(err.reason, cell->local);
		assert_int_equal(r < 0, cell->local != NICD_R_NONE);
		if (r < 0)
			assert_int_equal(err.observed, cell->state);
		err = (struct nicd_error){ 0 };
		r = nic_mr_remote_token(rig->mr, &token, &err);
		assert_int_equal(err.reason, cell->remote);
		if (cell->reg != NICD_R_NONE) {
			assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, 0, &two), -EBUSY);
			assert_int_equal(two.calls, 0);
		}
		if (cell->dereg != NICD_R_NONE) {
			assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&two), &err), -EBUSY);
			assert_int_equal(err.reason, cell->dereg);
			assert_int_equal(two.calls, 0);
			assert_int_equal(rig->mr->state, cell->state);
		} else {
			assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&two), &err), 0);
			assert_ended(two);
			assert_int_equal(rig->mr->state, NIC_MR_CREATED);
		}
		if (cell->reg == NICD_R_NONE) {
			assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, 0, &two), 0);
			assert_ended(two);
		}
		rig_teardown(&own);
	}
}

/* The last column: Close is allowed everywhere, answers once, last, and leaves nothing. */
/* mutation: in nic_mr_close free the MR at once in REGISTERING or REVOKING: use after free, and the order is wrong */
static void test_close_in_each_state(void **state)
{
	for (unsigned i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
		struct rig_done under_way = { 0 }, closed = { 0 };
		bool waits = cells[i].state == NIC_MR_REGISTERING || cells[i].state == NIC_MR_REVOKING;
		struct rig *rig;
		uint64_t serial, id;
		struct nic_object *object;
		struct nicd_error err;
		void *own;

		rig_setup(&own);
		rig = own;
		bring(rig, cells[i].state, &under_way);
		serial = rig->mr->object.serial;
		id = rig->mr->object.id;
		nic_mr_close(rig->mr, rig_done(&closed));
		assert_int_equal(nic_owner_find(&rig->owner, id, NIC_MR, &object, &err), -EBADF);
		assert_int_equal(closed.calls, waits ? 0 : 1);
		fake_hold(rig->fake, FAKE_OPS, false);
		fake_complete_all(rig->fake);
		assert_ended(closed);
		assert_null(nic_find(&rig->nic, NIC_MR, serial));
		assert_int_equal(rig_used(rig, NIC_SLOT_MRS), 0);
		if (cells[i].state == NIC_MR_REGISTERING)
			assert_refused(under_way, REVOKED);
		if (waits)
			assert_true(under_way.order < closed.order);
		rig_teardown(&own);
	}
}

/* mutation: answer GetRemoteToken with whatever the device drew, without asking for the rights */
static void test_no_remote_token_without_remote_rights(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	uint32_t token;

	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, NIC_LOCAL_WRITE | NIC_READ_SINK, &done), 0);
	assert_ended(done);
	assert_int_equal(nic_mr_remote_token(rig->mr, &token, &err), -EACCES);
	assert_int_equal(err.reason, NICD_R_NO_REMOTE_RIGHTS);
	assert_int_equal(rig->mr->remote_token, 0);
	assert_int_equal(nic_mr_local_token(rig->mr, &token, &err), 0);
	assert_int_not_equal(token, 0);
}

/* mutation: keep the tokens until the device confirms */
static void test_tokens_die_when_the_request_starts(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	uint32_t token;

	rig_registered(rig);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(done.calls, 0);
	assert_int_equal(nic_mr_local_token(rig->mr, &token, &err), -EBUSY);
	assert_int_equal(rig->mr->local_token, 0);
	assert_int_equal(rig->mr->remote_token, 0);
	fake_complete_all(rig->fake);
	assert_ended(done);
}

/* mutation: do not raise the generation: the device is asked to drop the wrong one, or tokens of two registrations mix */
static void test_register_again(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	uint32_t first;

	rig_registered(rig);
	first = rig->mr->local_token;
	assert_int_equal(rig->mr->generation, 1);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->mr->rights, 0);
	rig_registered(rig);
	assert_int_equal(rig->mr->generation, 2);
	assert_int_not_equal(rig->mr->local_token, first);
	assert_int_equal(rig->fake->tag.generation, 2);
	assert_int_equal(rig->memory->users, 1);
}

/* mutation: answer success, or release the charge, when the device has not confirmed in time */
static void test_unconfirmed_then_confirmed(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig->fake->tag_percent = 100;
	rig_registered(rig);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(nic_next_deadline(&rig->nic), rig->env.now + 5000);
	rig_later(rig, 4999);
	assert_int_equal(done.calls, 0);
	rig_later(rig, 1);
	assert_refused(done, REVOKE_UNCONFIRMED);
	assert_int_equal(rig->nic.quarantined, 1);
	assert_int_equal(rig->mr->state, NIC_MR_REVOKING);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 2 * 16 * RIG_PAGE);
	assert_int_equal(rig->memory->users, 1);
	assert_int_equal(rig->n_events, 0);
	fake_complete_all(rig->fake);
	assert_int_equal(done.calls, 1);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKE_CONFIRMED, rig->mr->object.serial), 1);
	assert_int_equal(rig->nic.quarantined, 0);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
	rig_registered(rig);
}

/* mutation: answer the close at the deadline, or not at all */
static void test_close_while_unconfirmed(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, closed = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	rig_later(rig, 5000);
	assert_refused(done, REVOKE_UNCONFIRMED);
	nic_mr_close(rig->mr, rig_done(&closed));
	rig_later(rig, 50000);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_MRS), 1);
	fake_complete_all(rig->fake);
	assert_ended(closed);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKE_CONFIRMED, 0), 1);
	assert_int_equal(rig_used(rig, NIC_SLOT_MRS), 0);
}

/* A close that the device keeps waiting is counted as well, though nobody is answered. */
/* mutation: count quarantine only where somebody waits for an answer */
static void test_close_of_registered_is_quarantined(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };

	rig_registered(rig);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	nic_mr_close(rig->mr, rig_done(&closed));
	rig_later(rig, 5000);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(rig->nic.quarantined, 1);
	fake_complete_all(rig->fake);
	assert_ended(closed);
	assert_int_equal(rig->nic.quarantined, 0);
}

/* mutation: go to CREATED when the device refuses the drop */
static void test_device_refuses_the_drop(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	fake_fail(rig->fake, FAKE_TAG_DROP, 0, 2, NICD_R_DEVICE_BUSY);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_refused(done, DEVICE_FAILED);
	assert_int_equal(done.error.provider_error, EBUSY);
	assert_int_equal(rig->mr->state, NIC_MR_ERROR);
	assert_int_equal(rig->memory->users, 1);
	assert_int_equal(nic_next_deadline(&rig->nic), UINT64_MAX);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_refused(done, DEVICE_FAILED);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->memory->users, 0);
}

/* mutation: give up a close that the device refuses: its tag would stay for ever */
static void test_close_asks_again(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };

	rig_registered(rig);
	fake_fail(rig->fake, FAKE_TAG_DROP, 0, 3, NICD_R_DEVICE_FAILED);
	nic_mr_close(rig->mr, rig_done(&closed));
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(closed.calls, 0);
		assert_int_equal(rig->fake->calls[FAKE_TAG_DROP], i + 1);
		rig_later(rig, 5000);
	}
	assert_int_equal(rig->fake->calls[FAKE_TAG_DROP], 4);
	assert_ended(closed);
}

/* Refused after REVOKE_UNCONFIRMED was answered: the promise stands, so nicd itself asks again. */
/* mutation: go to ERROR there: REVOKE_CONFIRMED never comes */
static void test_refused_after_the_promise(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	rig_later(rig, 5000);
	assert_refused(done, REVOKE_UNCONFIRMED);
	assert_true(fake_complete_with(rig->fake, FAKE_TAG_DROP, NICD_R_DEVICE_BUSY));
	assert_int_equal(rig->nic.quarantined, 1);
	fake_hold(rig->fake, FAKE_TAG_DROP, false);
	rig_later(rig, 5000);
	assert_int_equal(rig->nic.quarantined, 0);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKE_CONFIRMED, rig->mr->object.serial), 1);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
}

/* mutation: keep a user, a charge or the state when the device refuses the tag */
static void test_register_fails(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };

	rig->fake->tag_percent = 100;
	fake_fail(rig->fake, FAKE_TAG_ADD, 0, 1, NICD_R_TAGS_EXHAUSTED);
	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 16, 0, &done), 0);
	assert_refused(done, TAGS_EXHAUSTED);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
	assert_int_equal(rig->memory->users, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);   /* of the attachment */
	rig_registered(rig);
}

static void close_in_done(struct rig_done *done)
{
	nic_mr_close(done->rig->mr, NULL);
}

/* NDK: a completion may come before the call returns, and the consumer may close inside it. */
/* mutation: touch the MR after nic_done_end in mr_tagged, mr_register_failed, mr_confirmed or mr_not_dropped */
static void test_close_inside_done(void **state)
{
	static const enum fake_op failing[] = { FAKE_OPS, FAKE_ATTACH, FAKE_TAG_ADD };
	struct nicd_error err;

	for (unsigned i = 0; i < 3; i++) {
		struct rig *rig;
		struct rig_done done = { .then = close_in_done };
		void *own;

		rig_setup(&own);
		rig = own;
		done.rig = rig;
		if (failing[i] != FAKE_OPS)
			fake_fail(rig->fake, failing[i], 0, 1, NICD_R_DEVICE_FAILED);
		assert_int_equal(rig_register(rig->mr, rig->memory, 0, 16, 0, &done), 0);
		assert_int_equal(done.calls, 1);
		assert_int_equal(rig->nic.count[NIC_MR], 0);
		rig_teardown(&own);
	}
	for (unsigned i = 0; i < 2; i++) {
		struct rig *rig;
		struct rig_done done = { .then = close_in_done };
		void *own;

		rig_setup(&own);
		rig = own;
		done.rig = rig;
		rig_registered(rig);
		if (i > 0)
			fake_fail(rig->fake, FAKE_TAG_DROP, 0, 1, NICD_R_DEVICE_FAILED);
		assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
		assert_int_equal(done.calls, 1);
		assert_int_equal(rig->nic.count[NIC_MR], 0);
		rig_teardown(&own);
	}
}

static void close_on_event(struct rig *rig, struct nic_object *object, enum nic_event event)
{
	if (object->type == NIC_MR && !object->ending)
		nic_mr_close((struct nic_mr *)object, NULL);
}

/* mutation: touch the MR after nic_object_emit in mr_confirmed, or end it twice */
static void test_close_inside_event(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	rig->on_event = close_on_event;
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	rig_later(rig, 5000);
	fake_complete_all(rig->fake);
	assert_int_equal(rig->nic.count[NIC_MR], 0);
}

/* mutation: do not tell the owner, or tell it without REVOKED */
static void test_revoke_by_another(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	assert_int_equal(nic_revoke(&rig->nic, &rig->mr->object, rig_done(&done), &err), -EBUSY);
	assert_int_equal(err.reason, NICD_R_MR_STATE);
	assert_int_equal(rig->n_events, 0);
	rig_registered(rig);
	assert_int_equal(nic_revoke(&rig->nic, &rig->mr->object, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, rig->mr->object.serial), 1);
	assert_int_equal(rig->events[0].reason, NICD_R_REVOKED);
	assert_int_equal(rig->events[0].id, rig->mr->object.id);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
	assert_int_equal(rig_receipt.at_ns, rig->env.wall);
	rig->on_event = close_on_event;
	rig_registered(rig);
	assert_int_equal(nic_revoke(&rig->nic, &rig->mr->object, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_MR], 0);
}

/* mutation: let Memories, PDs or adapters be revoked */
static void test_revoke_other_types(void **state)
{
	struct rig *rig = *state;
	struct nic_object *objects[] = { &rig->memory->object, &rig->pd->object, &rig->adapter->object };
	struct rig_done done = { 0 };
	struct nicd_error err;

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(nic_revoke(&rig->nic, objects[i], rig_done(&done), &err), -EBADF);
		assert_int_equal(err.reason, NICD_R_HANDLE_TYPE);
		assert_int_equal(done.calls, 0);
	}
}

/* mutation: forget what tag_drop says it cut */
static void test_receipt(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	rig->fake->cut_by_tag = 3;
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig_receipt.streams_cut, 3);
	assert_int_equal(rig_receipt.at_ns, rig->env.wall);
	assert_int_equal(rig_receipt.n_exports, 0);
}

/* 500,000 pairs a second leave no time for allocations. */
/* mutation: allocate ranges, receipt or attachment per registration */
static void test_no_allocation_per_pair(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	unsigned long before;

	rig_registered(rig);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	before = rig->env.allocs;
	for (unsigned i = 0; i < 100; i++) {
		rig_registered(rig);
		assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
		assert_ended(done);
	}
	assert_int_equal(rig->env.allocs, before);
}

/* mutation: let a closing PD have new children */
static void test_new_in_closing_pd(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };
	struct nicd_error err;
	struct nic_mr *mr;

	nic_pd_close(rig->pd, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	assert_int_equal(nic_mr_new(&mr, rig->pd, &err), -EBADF);
	rig_registered(rig);   /* closing an antecedent has no other effect */
	nic_mr_close(rig->mr, NULL);
	assert_ended(closed);
}

static void test_state_names(void **state)
{
	assert_string_equal(nic_life_state_name(NIC_KIND_NORMAL, NIC_MR_REGISTERED), "REGISTERED");
	assert_string_equal(nic_life_state_name(NIC_KIND_NORMAL, NIC_MR_ERROR), "ERROR");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cells),
		cmocka_unit_test(test_close_in_each_state),
		rig_test(test_no_remote_token_without_remote_rights),
		rig_test(test_tokens_die_when_the_request_starts),
		rig_test(test_register_again),
		rig_test(test_unconfirmed_then_confirmed),
		rig_test(test_close_while_unconfirmed),
		rig_test(test_close_of_registered_is_quarantined),
		rig_test(test_device_refuses_the_drop),
		rig_test(test_close_asks_again),
		rig_test(test_refused_after_the_promise),
		rig_test(test_register_fails),
		cmocka_unit_test(test_close_inside_done),
		rig_test(test_close_inside_event),
		rig_test(test_revoke_by_another),
		rig_test(test_revoke_other_types),
		rig_test(test_receipt),
		rig_test(test_no_allocation_per_pair),
		rig_test(test_new_in_closing_pd),
		rig_test(test_state_names),
	};

	return cmocka_run_group_tests_name("mr", tests, NULL, NULL);
}
