/* SPDX-License-Identifier: MIT */
/* Memories and attachments: shared by registrations, kept, given back; deferred closes of Memories and PDs. */
#include "tests/unit/nic/rig.h"

/* mutation: attach per registration, or let the second one go on before the device has the memory */
static void test_attachment_is_shared(void **state)
{
	struct rig *rig = *state;
	struct rig_done done[3] = { 0 };
	struct nic_mr *mrs[3] = { rig->mr, rig_mr(rig), rig_mr(rig) };

	fake_hold(rig->fake, FAKE_ATTACH, true);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rig_register(mrs[i], rig->memory, i, 1, 0, &done[i]), 0);
	assert_int_equal(rig->fake->calls[FAKE_ATTACH], 1);
	assert_int_equal(rig->fake->calls[FAKE_TAG_ADD], 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
	assert_true(fake_complete(rig->fake, FAKE_ATTACH));
	for (unsigned i = 0; i < 3; i++)
		assert_ended(done[i]);
	assert_true(done[0].order < done[1].order && done[1].order < done[2].order);
	assert_int_equal(rig->fake->attach.fd, 100);
	assert_int_equal(rig->fake->attach.size, 16 * RIG_PAGE);
}

/* mutation: fail only the first of those that wait, or keep the charge of what failed */
static void test_failed_attach_fails_all(void **state)
{
	struct rig *rig = *state;
	struct rig_done done[3] = { 0 };
	struct nic_mr *mrs[3] = { rig->mr, rig_mr(rig), rig_mr(rig) };

	fake_hold(rig->fake, FAKE_ATTACH, true);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rig_register(mrs[i], rig->memory, i, 1, 0, &done[i]), 0);
	assert_true(fake_complete_with(rig->fake, FAKE_ATTACH, NICD_R_MEMORY_MAP));
	for (unsigned i = 0; i < 3; i++) {
		assert_refused(done[i], MEMORY_MAP);
		assert_int_equal(mrs[i]->state, NIC_MR_CREATED);
	}
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 0);
	assert_int_equal(rig->memory->users, 0);
	fake_hold(rig->fake, FAKE_ATTACH, false);
	rig_registered(rig);
	assert_int_equal(rig->fake->calls[FAKE_ATTACH], 2);
}

static void register_again(struct rig_done *done)
{
	struct rig *rig = done->rig;

	done->then = NULL;
	if (done->error.reason != NICD_R_NONE)
		assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, 0, done), 0);
}

/* mutation: wake those who wait from the attachment's own list: the one that comes back is failed again, for ever */
static void test_trying_again_inside_done(void **state)
{
	struct rig *rig = *state;
	struct rig_done done[2] = { { .then = register_again, .rig = rig } };
	struct nic_mr *other = rig_mr(rig);

	fake_hold(rig->fake, FAKE_ATTACH, true);
	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, 0, &done[0]), 0);
	assert_int_equal(rig_register(other, rig->memory, 1, 1, 0, &done[1]), 0);
	assert_true(fake_complete_with(rig->fake, FAKE_ATTACH, NICD_R_MEMORY_MAP));
	assert_int_equal(rig->fake->calls[FAKE_ATTACH], 2);
	assert_refused(done[1], MEMORY_MAP);
	assert_int_equal(done[0].calls, 0);
	fake_complete_all(rig->fake);
	assert_ended(done[0]);
}

/* Memories one after the other; one that fails gives back what the others reserved. */
/* mutation: keep a reservation of a registration that failed before asking for it */
static void test_second_memory_fails(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *two = rig_memory(rig, 4, true), *three = rig_memory(rig, 8, true);
	struct nic_range ranges[] = { { rig->memory, 0, RIG_PAGE }, { two, 0, RIG_PAGE }, { three, 0, RIG_PAGE } };
	struct nic_register what = { .ranges = ranges, .n_ranges = 3, .iova = 0x100000 };
	struct rig_done done = { 0 };
	struct nicd_error err;

	fake_fail(rig->fake, FAKE_ATTACH, 1, 1, NICD_R_MEMORY_MAP);
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_refused(done, MEMORY_MAP);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
	assert_true(LIST_EMPTY(&two->attachments));
	assert_true(LIST_EMPTY(&three->attachments));
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 28 * RIG_PAGE);
}

/* Two registrations over two memories in opposite orders: each reserved what the other one waits for. */
/* mutation: cancel a reservation without letting the other one make it again */
static void test_cancelled_reservation_of_another(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *two = rig_memory(rig, 4, true);
	struct nic_range ab[] = { { rig->memory, 0, RIG_PAGE }, { two, 0, RIG_PAGE } };
	struct nic_register what = { .ranges = ab, .n_ranges = 2, .iova = 0x100000 };
	struct nic_mr *other = rig_mr(rig);
	struct rig_done one = { 0 }, another = { 0 };
	struct nicd_error err;

	fake_hold(rig->fake, FAKE_ATTACH, true);
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&one), &err), 0);
	assert_int_equal(nic_mr_register(other, &what, rig_done(&another), &err), 0);
	nic_mr_close(rig->mr, NULL);
	assert_true(fake_complete(rig->fake, FAKE_ATTACH));   /* the first goes on to `two`, and so does the other */
	assert_true(fake_complete_with(rig->fake, FAKE_ATTACH, NICD_R_MEMORY_MAP));
	assert_int_equal(one.calls, 1);
	assert_refused(another, MEMORY_MAP);
	assert_int_equal(fake_pending(rig->fake, FAKE_OPS), 0);
}

/* mutation: end the Memory while a range names it, or before the device has let go */
static void test_close_is_deferred(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 }, dereg = { 0 };
	struct nicd_error err;
	uint64_t serial = rig->memory->object.serial;

	rig_registered(rig);
	nic_memory_close(rig->memory, rig_done(&closed));
	assert_int_equal(rig->mr->state, NIC_MR_REGISTERED);   /* closing never deregisters */
	assert_int_equal(rig->env.n_closed, 0);
	fake_hold(rig->fake, FAKE_DETACH, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&dereg), &err), 0);
	assert_ended(dereg);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
	assert_int_equal(rig->fake->serial, serial);
	fake_complete_all(rig->fake);
	assert_ended(closed);
	assert_int_equal(rig->env.n_closed, 1);
	assert_int_equal(rig->env.closed[0], 100);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_FDS), 0);
	assert_int_equal(rig->nic.held_fds, 0);
	assert_null(nic_find(&rig->nic, NIC_MEMORY, serial));
}

/* mutation: detach a Memory that was never attached, or wait for it */
static void test_close_unused(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };

	nic_memory_close(rig->memory, rig_done(&closed));
	assert_ended(closed);
	assert_int_equal(rig->fake->calls[FAKE_DETACH], 0);
	assert_int_equal(rig->env.n_closed, 1);
}

/* mutation: let a Memory go that the device refuses to detach */
static void test_detach_refused(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };

	rig_registered(rig);
	nic_mr_close(rig->mr, NULL);
	fake_fail(rig->fake, FAKE_DETACH, 0, 2, NICD_R_DEVICE_BUSY);
	nic_memory_close(rig->memory, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	rig_later(rig, 5000);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
	rig_later(rig, 5000);
	assert_ended(closed);
	assert_int_equal(rig->fake->calls[FAKE_DETACH], 3);
}

/* A Memory that only a registration knows: it goes with it. */
/* mutation: give an unnamed Memory an id, or keep it after its last user */
static void test_unnamed(void **state)
{
	struct rig *rig = *state;
	struct nic_memory_facts facts = { .fd = 55, .size = RIG_PAGE, .page_size = RIG_PAGE, .writable = true };
	struct rig_done done = { 0 };
	struct nic_memory *memory;
	struct nicd_error err;

	assert_int_equal(nic_memory_new(&memory, &rig->owner, &facts, false, &err), 0);
	assert_int_equal(memory->object.id, 0);
	assert_int_equal(rig_register(rig->mr, memory, 0, 1, 0, &done), 0);
	nic_memory_close(memory, NULL);
	assert_ended(done);
	assert_int_equal(rig->env.n_closed, 0);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(rig->env.n_closed, 1);
	assert_int_equal(rig->env.closed[0], 55);
	assert_int_equal(nic_memory_new(&memory, &rig->owner, &facts, false, &err), 0);
	assert_int_equal(rig_register(rig->mr, memory, 1, 1, 0, &done), -EINVAL);
	nic_memory_close(memory, NULL);
	assert_int_equal(rig->env.n_closed, 2);
}

/* NDK: an antecedent's close is answered after those of its successors, and closing it first has no other effect. */
/* mutation: end the PD when it is closed, or before its last child was answered */
static void test_pd_close_is_deferred(void **state)
{
	struct rig *rig = *state;
	struct rig_done pd = { 0 }, mr = { 0 }, memory = { 0 };
	struct nicd_error err;
	struct nic_object *object;
	uint64_t id = rig->pd->object.id;

	rig_registered(rig);
	nic_pd_close(rig->pd, rig_done(&pd));
	nic_memory_close(rig->memory, rig_done(&memory));
	assert_int_equal(nic_owner_find(&rig->owner, id, NIC_PD, &object, &err), -EBADF);
	assert_int_equal(pd.calls + memory.calls, 0);
	assert_int_equal(rig->mr->state, NIC_MR_REGISTERED);
	assert_int_equal(rig_used(rig, NIC_SLOT_PDS), 1);
	nic_mr_close(rig->mr, rig_done(&mr));
	assert_ended(mr);
	assert_ended(pd);
	assert_ended(memory);
	assert_true(mr.order < pd.order && mr.order < memory.order);
	assert_int_equal(rig_used(rig, NIC_SLOT_PDS), 0);
}

static void test_pd_close_without_children(void **state)
{
	struct rig *rig = *state;
	struct rig_done pd = { 0 };

	nic_mr_close(rig->mr, NULL);
	nic_pd_close(rig->pd, rig_done(&pd));
	assert_ended(pd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_attachment_is_shared),
		rig_test(test_failed_attach_fails_all),
		rig_test(test_trying_again_inside_done),
		rig_test(test_second_memory_fails),
		rig_test(test_cancelled_reservation_of_another),
		rig_test(test_close_is_deferred),
		rig_test(test_close_unused),
		rig_test(test_detach_refused),
		rig_test(test_unnamed),
		rig_test(test_pd_close_is_deferred),
		rig_test(test_pd_close_without_children),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
