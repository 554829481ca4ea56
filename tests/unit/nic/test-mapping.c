/* SPDX-License-Identifier: MIT */
/* Mappings: what is checked before one is built, their addresses, who keeps them, and their end in every state. */
#include <string.h>

#include "nicd/mapping.h"
#include "tests/unit/nic/rig.h"

static struct nic_mapping *build(struct rig *rig, struct nic_memory *memory, uint64_t offset, uint64_t length, struct rig_done *done)
{
	struct nic_range range = { memory, offset, length };
	struct nic_mapping *mapping;
	struct nicd_error err;

	assert_int_equal(nic_mapping_build(&mapping, &rig->owner, rig->adapter, &range, 1, rig_done(done), &err), 0);
	return mapping;
}

static struct nic_mapping *built(struct rig *rig, uint64_t offset, uint64_t length)
{
	struct rig_done done = { 0 };
	struct nic_mapping *mapping = build(rig, rig->memory, offset, length, &done);

	assert_ended(done);
	return mapping;
}

/* mutation: an address that is not the first byte's, is 0, or is drawn the same twice */
static void test_what_it_says(void **state)
{
	struct rig *rig = *state;
	struct nic_mapping *one = built(rig, 100, 2 * RIG_PAGE), *two = built(rig, 100, 2 * RIG_PAGE);

	assert_int_equal(nic_mapping_first_byte(one), 100);
	assert_int_equal(nic_mapping_pages(one), 3);
	assert_int_equal(one->length, 2 * RIG_PAGE);
	assert_true(one->address >= RIG_PAGE && one->address + one->length <= UINT64_C(1) << 47);
	assert_int_not_equal(one->address, two->address);
	assert_string_equal(nic_mapping_state_name(one), "built");
	assert_int_equal(rig_used(rig, NIC_SLOT_MAPPINGS), 2);
	assert_int_equal(rig->memory->users, 2);
	/* One attachment for both, as for registrations; no tag, and no word to the device of what nobody may use. */
	assert_int_equal(rig->fake->calls[FAKE_ATTACH], 1);
	assert_int_equal(rig->fake->calls[FAKE_TAG_ADD], 0);
	assert_int_equal(rig->fake->calls[FAKE_MAPPING_ADD], 0);
	assert_int_equal(nic_mapping_pages(built(rig, 0, 1)), 1);
	assert_int_equal(nic_mapping_pages(built(rig, 4095, 2)), 2);
}

/* mutation: check ranges otherwise than a registration does, or take something before all is checked */
static void test_refusals(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *closing = rig_memory(rig, 4, true);
	struct nic_memory *m = rig->memory;
	const struct {
		struct nic_range ranges[2];
		unsigned n;
		enum nicd_reason reason;
	} rows[] = {
		{ { { m, 0, RIG_PAGE } }, 0, NICD_R_COUNT },
		{ { { m, 0, RIG_PAGE } }, NICD_RANGES + 1, NICD_R_COUNT },
		{ { { m, 0, 0 } }, 1, NICD_R_LENGTH_ZERO },
		{ { { m, UINT64_MAX, 2 } }, 1, NICD_R_RANGE_OVERFLOW },
		{ { { m, 16 * RIG_PAGE, 1 } }, 1, NICD_R_RANGE_BEYOND },
		{ { { m, 1, 16 * RIG_PAGE } }, 1, NICD_R_RANGE_BEYOND },
		{ { { m, 0, 100 }, { m, 0, RIG_PAGE } }, 2, NICD_R_RANGE_NOT_JOINED },
		{ { { m, 0, RIG_PAGE }, { m, 100, RIG_PAGE } }, 2, NICD_R_RANGE_NOT_JOINED },
		{ { { closing, 0, 1 } }, 1, NICD_R_HANDLE },
	};
	struct rig_done done = { 0 }, closed = { 0 };
	struct nic_mapping *keeps = build(rig, closing, 0, RIG_PAGE, &done), *mapping = NULL;
	struct nicd_error err;

	nic_memory_close(closing, rig_done(&closed));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(nic_mapping_build(&mapping, &rig->owner, rig->adapter, rows[i].ranges, rows[i].n, rig_done(&done), &err) < 0);
		assert_int_equal(err.reason, rows[i].reason);
		assert_int_equal(done.calls, 0);
		assert_null(mapping);
		assert_int_equal(rig_used(rig, NIC_SLOT_MAPPINGS), 1);
	}
	assert_int_equal(closed.calls, 0);   /* a mapping keeps its Memory */
	nic_mapping_close(keeps, NULL);
	assert_ended(closed);
}

/* mutation: keep a charge, an attachment, an address or a name of what was not built */
static void test_nothing_is_left_of_a_failure(void **state)
{
	struct rig *rig = *state;
	struct nic_range range = { rig->memory, 0, RIG_PAGE };
	struct nic_mapping *mapping;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig->owner.privileged = true;
	rig->owner.account->limits.max[NIC_SLOT_MAPPINGS] = 0;
	assert_refusal(nic_mapping_build(&mapping, &rig->owner, rig->adapter, &range, 1, rig_done(&done), &err), err, QUOTA, 0, 1);
	rig->owner.account->limits.max[NIC_SLOT_MAPPINGS] = 8;
	rig->owner.account->limits.max[NIC_SLOT_PINNED] = RIG_PAGE;
	assert_refusal(nic_mapping_build(&mapping, &rig->owner, rig->adapter, &range, 1, rig_done(&done), &err), err, QUOTA, RIG_PAGE,
		       16 * RIG_PAGE);
	rig->owner.account->limits.max[NIC_SLOT_PINNED] = 16 * RIG_PAGE;
	for (unsigned long n = 1; ; n++) {
		rig->env.fail_at = rig->env.allocs + n;
		rig->env.failed = false;
		if (nic_mapping_build(&mapping, &rig->owner, rig->adapter, &range, 1, rig_done(&done), &err) == 0)
			break;
		assert_int_equal(err.reason, NICD_R_NO_MEMORY);
		assert_int_equal(rig_used(rig, NIC_SLOT_MAPPINGS), 0);
		assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 0);
		assert_true(RB_EMPTY(&rig->owner.mappings));
	}
	rig->env.fail_at = 0;
	assert_ended(done);
	nic_mapping_close(mapping, NULL);
	fake_fail(rig->fake, FAKE_MAPPING_ADD, 0, 1, NICD_R_DEVICE_FAILED);
	build(rig, rig->memory, 0, RIG_PAGE, &done);
	assert_refused(done, DEVICE_FAILED);
	assert_int_equal(rig->nic.count[NIC_MAPPING], 0);
	assert_int_equal(rig->memory->users, 0);
	assert_true(RB_EMPTY(&rig->owner.mappings));
}

static void always_zero(struct nic_env *env, void *buf, size_t len)
{
	memset(buf, 0, len);
}

/* mutation: look only at where a mapping begins, or let one more draw in when all were taken */
static void test_addresses_never_overlap(void **state)
{
	struct rig *rig = *state;
	void (*random)(struct nic_env *env, void *buf, size_t len) = rig->env.env.random;
	struct nic_range range = { rig->memory, 0, 16 * RIG_PAGE };
	struct nic_mapping *mapping;
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig->env.env.random = always_zero;
	assert_int_equal(built(rig, 0, RIG_PAGE)->address, RIG_PAGE);
	assert_true(nic_mapping_build(&mapping, &rig->owner, rig->adapter, &range, 1, rig_done(&done), &err) < 0);
	assert_int_equal(err.reason, NICD_R_QUOTA);
	assert_int_equal(rig_used(rig, NIC_SLOT_MAPPINGS), 1);
	rig->env.env.random = random;
	/* Side by side in a space made narrow: the fake device aborts when two of an owner's overlap. */
	rig->owner.privileged = true;
	for (unsigned i = 0; i < 200; i++)
		built(rig, 0, 16 * RIG_PAGE);
}

/* mutation: end it while a fast registration uses it, or let a closing one be used anew */
static void test_users_keep_it(void **state)
{
	struct rig *rig = *state;
	struct nic_mapping *mapping = built(rig, 0, RIG_PAGE);
	struct rig_done closed = { 0 };
	struct nicd_error err;
	uint64_t id = mapping->object.id;

	assert_int_equal(nic_mapping_use(mapping, &err), 0);
	assert_int_equal(nic_mapping_use(mapping, &err), 0);
	nic_mapping_close(mapping, rig_done(&closed));
	assert_null(nic_table_find(&rig->owner.ids, id));
	assert_string_equal(nic_mapping_state_name(mapping), "closing");
	assert_int_equal(nic_mapping_use(mapping, &err), -EBADF);
	nic_mapping_unuse(mapping);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(rig->memory->users, 1);
	nic_mapping_unuse(mapping);
	assert_ended(closed);
	assert_int_equal(rig->memory->users, 0);
}

/* mutation: let a fast registration in before the device has the memory */
static void test_not_usable_while_built(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_mapping *mapping;
	struct nicd_error err;

	fake_hold(rig->fake, FAKE_ATTACH, true);
	mapping = build(rig, rig->memory, 0, RIG_PAGE, &done);
	assert_int_equal(nic_mapping_use(mapping, &err), -EBADF);
	assert_string_equal(nic_mapping_state_name(mapping), "building");
	fake_complete_all(rig->fake);
	assert_ended(done);
	assert_int_equal(nic_mapping_use(mapping, &err), 0);
	nic_mapping_unuse(mapping);
}

/* What the device is told of one whose owner may have privileged tokens. */
/* mutation: tell it another owner, address or length; answer the close before the device has */
static void test_at_the_device(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *two = rig_memory(rig, 4, false);
	struct nic_range ranges[] = { { rig->memory, 3 * RIG_PAGE + 7, 2 * RIG_PAGE - 7 }, { two, RIG_PAGE, 99 } };
	struct rig_done done = { 0 }, closed = { 0 };
	struct nic_mapping *mapping;
	struct nicd_error err;

	rig->owner.privileged = true;
	fake_hold(rig->fake, FAKE_MAPPING_ADD, true);
	fake_hold(rig->fake, FAKE_MAPPING_DROP, true);
	assert_int_equal(nic_mapping_build(&mapping, &rig->owner, rig->adapter, ranges, 2, rig_done(&done), &err), 0);
	assert_int_equal(done.calls, 0);
	assert_int_equal(rig->fake->map.serial, mapping->object.serial);
	assert_int_equal(rig->fake->map.owner, rig->owner.session);
	assert_int_equal(rig->fake->map.address, mapping->address);
	assert_int_equal(rig->fake->map.length, 2 * RIG_PAGE - 7 + 99);
	assert_int_equal(rig->fake->map.n_ranges, 2);
	assert_int_equal(rig->fake->ranges[1].memory, two->object.serial);
	assert_int_equal(rig->fake->ranges[1].length, 99);
	fake_complete(rig->fake, FAKE_MAPPING_ADD);
	assert_ended(done);
	nic_mapping_close(mapping, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	assert_int_equal(rig->memory->users, 1);   /* the device may still have work in it */
	/* It refuses once; then the deadline asks again. */
	fake_complete_with(rig->fake, FAKE_MAPPING_DROP, NICD_R_DEVICE_FAILED);
	assert_int_equal(closed.calls, 0);
	rig_later(rig, 6000);
	fake_complete(rig->fake, FAKE_MAPPING_DROP);
	assert_ended(closed);
	assert_int_equal(rig->fake->calls[FAKE_MAPPING_DROP], 2);
}

/* The stages at which a close, a lost device or the session's end may come. */
enum stage { ATTACHING, ADDING, BUILT, USED, DROPPING, REFUSED, STAGES };

static struct nic_mapping *stage_at(struct rig *rig, enum stage stage, struct rig_done *done)
{
	struct nic_mapping *mapping;
	struct nicd_error err;

	rig->owner.privileged = true;
	fake_hold(rig->fake, FAKE_ATTACH, stage == ATTACHING);
	fake_hold(rig->fake, FAKE_MAPPING_ADD, stage == ADDING);
	fake_hold(rig->fake, FAKE_MAPPING_DROP, stage == DROPPING);
	mapping = build(rig, rig->memory, 0, RIG_PAGE, done);
	if (stage == USED)
		assert_int_equal(nic_mapping_use(mapping, &err), 0);
	if (stage == REFUSED)
		fake_fail(rig->fake, FAKE_MAPPING_DROP, 0, 1, NICD_R_DEVICE_FAILED);
	if (stage == DROPPING || stage == REFUSED)
		nic_mapping_close(mapping, NULL);
	return mapping;
}

/* mutation: answer a build or a close twice or never; free one whose command is at the device */
static void test_close_in_every_state(void **state)
{
	struct rig *rig = *state;

	for (enum stage stage = 0; stage < STAGES; stage++) {
		struct rig_done done = { 0 }, closed = { 0 };
		struct nic_mapping *mapping = stage_at(rig, stage, &done);

		nic_mapping_close(mapping, rig_done(&closed));
		if (stage == USED)
			nic_mapping_unuse(mapping);
		fake_hold(rig->fake, FAKE_OPS, false);
		fake_complete_all(rig->fake);
		rig_later(rig, 6000);
		assert_ended(closed);
		assert_int_equal(done.calls, 1);
		assert_int_equal(done.error.reason, stage < BUILT ? NICD_R_FLUSHED : NICD_R_NONE);
		assert_true(done.order < closed.order);
		assert_int_equal(rig->nic.count[NIC_MAPPING], 0);
		assert_int_equal(rig_used(rig, NIC_SLOT_MAPPINGS), 0);
	}
}

static void lose_at(struct rig *rig, enum stage stage, bool event_first)
{
	struct rig_done done = { 0 }, closed = { 0 };
	struct nic_mapping *mapping = stage_at(rig, stage, &done);
	struct nicd_error err;

	fake_lose(rig->fake, event_first);
	if (stage < BUILT) {
		assert_refused(done, DEVICE_LOST);
	} else if (stage == BUILT || stage == USED) {
		/* Its addresses are nobody's now; fast registrations may go on naming it. */
		assert_null(mapping->adapter);
		assert_int_equal(nic_mapping_use(mapping, &err), 0);
		nic_mapping_unuse(mapping);
		nic_mapping_close(mapping, rig_done(&closed));
		if (stage == USED)
			nic_mapping_unuse(mapping);
		assert_ended(closed);
	}
	assert_int_equal(rig->nic.count[NIC_MAPPING], 0);
}

/* mutation: leave a mapping of a lost device counted among its users, or ask the lost device to drop it */
static void test_lost_in_every_state(void **state)
{
	rig_teardown(state);
	for (enum stage stage = 0; stage < STAGES; stage++)
		for (unsigned event_first = 0; event_first < 2; event_first++) {
			rig_setup(state);
			lose_at(*state, stage, event_first);
			rig_teardown(state);
		}
	rig_setup(state);
}

/* The teardown releases the owner in the midst of it. */
/* mutation: close Memories before mappings, or leave mappings out of the release */
static void test_released_in_every_state(void **state)
{
	rig_teardown(state);
	for (enum stage stage = 0; stage < STAGES; stage++) {
		struct rig_done done = { 0 };
		struct nic_mapping *mapping;
		struct rig *rig;

		rig_setup(state);
		rig = *state;
		mapping = stage_at(rig, stage, &done);
		if (stage == USED) {
			while (nic_owner_release(&rig->owner, 1))
				;
			nic_mapping_unuse(mapping);
		}
		rig_teardown(state);
		assert_int_equal(done.calls, 1);
	}
	rig_setup(state);
}

enum { MANY = NIC_OWNER_CLOSING + 10 };

/* More than may be closing at a time were closed before, and wait for others. */
/* mutation: count them, so that the session's release waits for what it has not closed yet */
static void test_many_closed_before_the_release(void **state)
{
	struct rig *rig = *state;
	static struct nic_mapping *mappings[MANY];
	struct nicd_error err;

	for (unsigned i = 0; i < MANY; i++) {
		mappings[i] = built(rig, 0, RIG_PAGE);
		assert_int_equal(nic_mapping_use(mappings[i], &err), 0);
		nic_mapping_close(mappings[i], NULL);
	}
	assert_int_equal(rig->owner.n_closing, 0);
	while (nic_owner_release(&rig->owner, 100))
		;
	assert_int_equal(rig->nic.count[NIC_MR], 0);
	for (unsigned i = 0; i < MANY; i++)
		nic_mapping_unuse(mappings[i]);
}

/* mutation: let a mapping be revoked: nobody remote can reach it */
static void test_nothing_to_revoke(void **state)
{
	struct rig *rig = *state;
	struct nic_mapping *mapping = built(rig, 0, RIG_PAGE);
	struct rig_done done = { 0 };
	struct nicd_error err;

	assert_refusal(nic_revoke(&rig->nic, &mapping->object, rig_done(&done), &err), err, HANDLE_TYPE, NIC_MR, NIC_MAPPING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_what_it_says),
		rig_test(test_refusals),
		rig_test(test_nothing_is_left_of_a_failure),
		rig_test(test_addresses_never_overlap),
		rig_test(test_users_keep_it),
		rig_test(test_not_usable_while_built),
		rig_test(test_at_the_device),
		rig_test(test_close_in_every_state),
		rig_test(test_lost_in_every_state),
		rig_test(test_released_in_every_state),
		rig_test(test_many_closed_before_the_release),
		rig_test(test_nothing_to_revoke),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
