/* SPDX-License-Identifier: MIT */
/* Registering: every refusal with its figures, their order, what is registered, and what it is charged for. */
#include "tests/unit/nic/rig.h"

#include <string.h>

#define P ((uint64_t)RIG_PAGE)

enum which { WHOLE, SMALL, READ_ONLY, HUGE_PAGES, MEMORIES };

struct row {
	const char *what;
	unsigned n;
	struct {
		enum which memory;
		uint64_t offset, length;
	} ranges[3];
	uint64_t iova, length;
	uint32_t flags;
	enum nicd_reason reason;
	uint64_t limit, observed;
};

#define HUGE UINT64_C(0x200000)
#define IOVA UINT64_C(0x40000000)

/* WHOLE has 16 pages, SMALL 2, READ_ONLY 4, HUGE_PAGES 2 of 2 MiB. */
/* mutation: take out, or turn by one, any check of mr_check, check_ranges, check_range or check_iova: a row fails */
static const struct row rows[] = {
	{ "one byte", 1, { { WHOLE, 0, 1 } }, IOVA, 0, 0, NICD_R_NONE },
	{ "all", 1, { { WHOLE, 0, 16 * P } }, IOVA, 16 * P, 7, NICD_R_NONE },
	{ "the last byte", 1, { { WHOLE, 16 * P - 1, 1 } }, IOVA + P - 1, 0, 0, NICD_R_NONE },
	{ "no ranges", 0, { { WHOLE, 0, 1 } }, IOVA, 0, 0, NICD_R_COUNT, 16, 0 },
	{ "undefined flag", 1, { { WHOLE, 0, 1 } }, IOVA, 0, 0x10, NICD_R_FLAGS, 0xf, 0x10 },
	{ "remote write without its local half", 1, { { WHOLE, 0, 1 } }, IOVA, 0, 0x4, NICD_R_FLAGS, 0xf, 0x4 },
	{ "the same with others", 1, { { WHOLE, 0, 1 } }, IOVA, 0, 0xe, NICD_R_FLAGS, 0xf, 0xe },
	{ "a high bit", 1, { { WHOLE, 0, 1 } }, IOVA, 0, 0x80000000, NICD_R_FLAGS, 0xf, 0x80000000 },
	{ "nothing", 1, { { WHOLE, 0, 0 } }, IOVA, 0, 0, NICD_R_LENGTH_ZERO, 1, 0 },
	{ "a second range of nothing", 2, { { WHOLE, 0, P }, { SMALL, 0, 0 } }, IOVA, 0, 0, NICD_R_LENGTH_ZERO, 1, 0 },
	{ "a sum that wraps", 1, { { WHOLE, 2, UINT64_MAX - 1 } }, IOVA, 0, 0, NICD_R_RANGE_OVERFLOW, UINT64_MAX - 2,
	  UINT64_MAX - 1 },
	{ "a sum that just does not", 1, { { WHOLE, 2, UINT64_MAX - 2 } }, IOVA, 0, 0, NICD_R_RANGE_BEYOND, 16 * P, UINT64_MAX },
	{ "one byte too many", 1, { { WHOLE, 0, 16 * P + 1 } }, IOVA, 0, 0, NICD_R_RANGE_BEYOND, 16 * P, 16 * P + 1 },
	{ "starts at the end", 1, { { WHOLE, 16 * P, 1 } }, IOVA, 0, 0, NICD_R_RANGE_BEYOND, 16 * P, 16 * P + 1 },
	{ "second range beyond", 2, { { WHOLE, 0, P }, { SMALL, P, P + 1 } }, IOVA, 0, 0, NICD_R_RANGE_BEYOND, 2 * P, 2 * P + 1 },
	{ "first ends inside a page", 2, { { WHOLE, 0, P - 1 }, { SMALL, 0, P } }, IOVA, 0, 0, NICD_R_RANGE_NOT_JOINED, P, P - 1 },
	{ "second starts inside a page", 2, { { WHOLE, 0, P }, { SMALL, 8, P } }, IOVA, 0, 0, NICD_R_RANGE_NOT_JOINED, P, 8 },
	{ "joined, first and last free", 2, { { WHOLE, 100, P - 100 }, { SMALL, 0, 50 } }, IOVA + 100, 0, 0, NICD_R_NONE },
	{ "the middle one must be whole pages", 3, { { WHOLE, 0, P }, { SMALL, 0, P + 1 }, { WHOLE, P, P } }, IOVA, 0, 0,
	  NICD_R_RANGE_NOT_JOINED, P, P + 1 },
	{ "huge pages are joined on theirs", 2, { { HUGE_PAGES, 0, P }, { SMALL, 0, P } }, IOVA, 0, 0, NICD_R_RANGE_NOT_JOINED, HUGE,
	  P },
	{ "the same memory twice", 2, { { WHOLE, 0, P }, { WHOLE, 0, P } }, IOVA, 0, 0, NICD_R_NONE },
	{ "longer than the ranges", 2, { { WHOLE, 0, P }, { SMALL, 0, P } }, IOVA, 2 * P + 1, 0, NICD_R_LENGTH_BEYOND, 2 * P, 2 * P + 1 },
	{ "shorter than the ranges", 2, { { WHOLE, 0, P }, { SMALL, 0, P } }, IOVA, P + 1, 0, NICD_R_NONE },
	{ "more than the device can", 1, { { WHOLE, 0, 16 * P } }, IOVA, 0, 0, NICD_R_LENGTH_LIMIT, 16 * P - 1, 16 * P },
	{ "iova 0", 1, { { WHOLE, 0, P } }, 0, 0, 0, NICD_R_IOVA_ZERO, 1, 0 },
	{ "iova not congruent", 1, { { WHOLE, 5, P } }, IOVA + 6, 0, 0, NICD_R_IOVA_MISFIT, 5, 6 },
	{ "nor to a huge page", 1, { { HUGE_PAGES, P, P } }, IOVA + 2 * P, 0, 0, NICD_R_IOVA_MISFIT, P, 2 * P },
	{ "congruent to a huge page", 1, { { HUGE_PAGES, P, P } }, IOVA + P, 0, 0, NICD_R_NONE },
	{ "iova + length wraps", 1, { { WHOLE, 0, 2 * P } }, UINT64_MAX - P + 1, 0, 0, NICD_R_IOVA_OVERFLOW, UINT64_MAX - 2 * P,
	  UINT64_MAX - P + 1 },
	{ "local write on read-only memory", 1, { { READ_ONLY, 0, P } }, IOVA, 0, 1, NICD_R_MEMORY_READ_ONLY, 0, 1 },
	{ "remote write on read-only memory", 1, { { READ_ONLY, 0, P } }, IOVA, 0, 5, NICD_R_MEMORY_READ_ONLY, 0, 5 },
	{ "a sink on read-only memory", 1, { { READ_ONLY, 0, P } }, IOVA, 0, 8, NICD_R_MEMORY_READ_ONLY, 0, 9 },
	{ "remote read on read-only memory", 1, { { READ_ONLY, 0, P } }, IOVA, 0, 2, NICD_R_NONE },
	{ "a second range read-only", 2, { { WHOLE, 0, P }, { READ_ONLY, 0, P } }, IOVA, 0, 1, NICD_R_MEMORY_READ_ONLY, 0, 1 },
	/* The order: state, adapter, count, flags, ranges, length, iova, rights. */
	{ "flags before ranges", 1, { { WHOLE, 0, 0 } }, 0, 0, 4, NICD_R_FLAGS, 0xf, 4 },
	{ "ranges before length", 1, { { WHOLE, 0, 0 } }, 0, 99, 0, NICD_R_LENGTH_ZERO, 1, 0 },
	{ "length before iova", 1, { { WHOLE, 0, P } }, 0, P + 1, 0, NICD_R_LENGTH_BEYOND, P, P + 1 },
	{ "iova before rights", 1, { { READ_ONLY, 0, P } }, 0, 0, 1, NICD_R_IOVA_ZERO, 1, 0 },
};

static void make_memories(struct rig *rig, struct nic_memory *memories[MEMORIES])
{
	struct nic_memory_facts facts = { .fd = 100, .size = 2 * HUGE, .page_size = HUGE, .writable = true };
	struct nicd_error err;

	memories[WHOLE] = rig->memory;
	memories[SMALL] = rig_memory(rig, 2, true);
	memories[READ_ONLY] = rig_memory(rig, 4, false);
	assert_int_equal(nic_memory_new(&memories[HUGE_PAGES], &rig->owner, &facts, true, &err), 0);
}

static void test_refusals(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *memories[MEMORIES];

	make_memories(rig, memories);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct nic_range ranges[3];
		struct nic_register what = {
			.ranges = ranges, .n_ranges = row->n, .iova = row->iova, .length = row->length, .flags = row->flags };
		uint64_t used = rig_used(rig, NIC_SLOT_PINNED);
		struct rig_done done = { 0 };
		struct nicd_error err = { 0 };
		int r;

		for (unsigned j = 0; j < 3; j++)
			ranges[j] = (struct nic_range){ memories[row->ranges[j].memory], row->ranges[j].offset, row->ranges[j].length };
		rig->fake->provider.max_registration = row->reason == NICD_R_LENGTH_LIMIT ? 16 * P - 1 : 16 * P;
		r = nic_mr_register(rig->mr, &what, rig_done(&done), &err);
		if (row->reason != err.reason)
			fail_msg("%s: refused with %s", row->what, nicd_reason_info(err.reason)->name);
		if (row->reason == NICD_R_NONE) {
			assert_int_equal(r, 0);
			assert_ended(done);
			assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
			assert_ended(done);
			continue;
		}
		assert_int_equal(r, -nicd_reason_info(row->reason)->err);
		if (err.limit != row->limit || err.observed != row->observed)
			fail_msg("%s: limit %llu, observed %llu", row->what, (unsigned long long)err.limit,
				 (unsigned long long)err.observed);
		assert_int_equal(done.calls, 0);
		assert_int_equal(rig->mr->state, NIC_MR_CREATED);
		assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), used);
		for (unsigned j = 0; j < MEMORIES; j++)
			assert_int_equal(memories[j]->users, 0);
	}
}

/* mutation: n_ranges > 16 is let through: the stack of the tag is written over */
static void test_too_many_ranges(void **state)
{
	struct rig *rig = *state;
	struct nic_range ranges[17];
	struct nic_register what = { .ranges = ranges, .iova = IOVA };
	struct rig_done done = { 0 };
	struct nicd_error err;

	for (unsigned i = 0; i < 17; i++)
		ranges[i] = (struct nic_range){ rig->memory, (i % 16) * P, P };
	what.n_ranges = 17;
	assert_refusal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), err, COUNT, 16, 17);
	what.n_ranges = UINT32_MAX;
	assert_refusal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), err, COUNT, 16, UINT32_MAX);
	what.n_ranges = 16;
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->memory->users, 16);
	assert_int_equal(rig->fake->tag.n_ranges, 16);
}

/* mutation: look at the ranges before the state */
static void test_state_first(void **state)
{
	struct rig *rig = *state;
	struct nic_register what = { 0 };
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	assert_refusal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), err, MR_STATE, NIC_MR_CREATED, NIC_MR_REGISTERED);
}

/* mutation: give the device more than `length`, or use memories that it does not reach */
static void test_what_the_device_gets(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *memories[MEMORIES];
	struct nic_range ranges[3];
	struct nic_register what = { .ranges = ranges, .n_ranges = 3, .iova = IOVA + 100, .length = 2 * P, .flags = 7 };
	struct rig_done done = { 0 };
	struct nicd_error err;

	make_memories(rig, memories);
	ranges[0] = (struct nic_range){ memories[WHOLE], 3 * P + 100, P - 100 };
	ranges[1] = (struct nic_range){ memories[SMALL], 0, 2 * P };
	ranges[2] = (struct nic_range){ memories[READ_ONLY], 0, P };   /* not reached, so its rights don't matter */
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->fake->tag.serial, rig->mr->object.serial);
	assert_int_equal(rig->fake->tag.pd, rig->pd->object.serial);
	assert_int_equal(rig->fake->tag.door, 0);
	assert_int_equal(rig->fake->tag.rights, 7);
	assert_int_equal(rig->fake->tag.iova, IOVA + 100);
	assert_int_equal(rig->fake->tag.length, 2 * P);
	assert_int_equal(rig->fake->tag.n_ranges, 2);
	assert_int_equal(rig->fake->ranges[0].memory, memories[WHOLE]->object.serial);
	assert_int_equal(rig->fake->ranges[0].offset, 3 * P + 100);
	assert_int_equal(rig->fake->ranges[0].length, P - 100);
	assert_int_equal(rig->fake->ranges[1].memory, memories[SMALL]->object.serial);
	assert_int_equal(rig->fake->ranges[1].length, P + 100);
	assert_int_equal(memories[READ_ONLY]->users, 0);
	assert_int_equal(rig->fake->calls[FAKE_ATTACH], 2);
	assert_int_equal(rig->mr->length, 2 * P);
	assert_int_equal(rig->fake->attach.writable, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	what.length = P - 100;   /* all of the first one, nothing of the second */
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->fake->tag.n_ranges, 1);
	assert_int_equal(memories[SMALL]->users, 0);
}

/* mutation: let READ_SINK add a remote right, or no local write */
static void test_effective_rights(void **state)
{
	static const struct {
		uint32_t asked, effective;
		bool remote;
	} cases[] = { { 0, 0, false }, { 1, 1, false }, { 2, 2, true }, { 5, 5, true },   { 7, 7, true },
		      { 8, 9, false }, { 9, 9, false }, { 10, 11, true }, { 13, 13, true }, { 15, 15, true } };
	struct rig *rig = *state;
	struct nicd_error err;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig_done done = { 0 };
		uint32_t token;

		assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, cases[i].asked, &done), 0);
		assert_ended(done);
		assert_int_equal(rig->mr->rights, cases[i].effective);
		assert_int_equal(rig->fake->tag.rights, cases[i].effective);
		assert_int_equal(nic_mr_remote_token(rig->mr, &token, &err) == 0, cases[i].remote);
		assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	}
}

/* mutation: charge after asking the device, or leave a charge of a refused registration */
static void test_quota(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_range range = { rig->memory, 0, 2 * P };
	struct nic_register what = { .ranges = &range, .n_ranges = 1, .iova = IOVA };

	rig->fake->tag_percent = 100;
	rig->owner.account->limits.max[NIC_SLOT_PINNED] = 17 * P;   /* the attachment, and one page more */
	assert_refusal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), err, QUOTA, 17 * P, 18 * P);
	assert_int_equal(rig->fake->calls[FAKE_ATTACH], 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 0);
	assert_true(LIST_EMPTY(&rig->memory->attachments));
	range.length = P;
	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 17 * P);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 16 * P);   /* pinned once per Memory and device */
}

/* mutation: leave the first range's reservation when the second one's is refused */
static void test_quota_of_the_second_memory(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *second = rig_memory(rig, 4, true);
	struct nic_range ranges[] = { { rig->memory, 0, P }, { second, 0, P } };
	struct nic_register what = { .ranges = ranges, .n_ranges = 2, .iova = IOVA };
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig->owner.account->limits.max[NIC_SLOT_PINNED] = 19 * P;
	assert_refusal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), err, QUOTA, 19 * P, 20 * P);
	assert_int_equal(rig_used(rig, NIC_SLOT_PINNED), 0);
	assert_true(LIST_EMPTY(&rig->memory->attachments));
	assert_true(LIST_EMPTY(&second->attachments));
}

/* mutation: register on a device that is down */
static void test_no_adapter(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_pd *pd;

	fake_lose(rig->fake, false);
	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, 0, &done), -ENODEV);
	assert_int_equal(nic_pd_new(&pd, &rig->owner, rig->adapter, &err), -ENODEV);
	assert_int_equal(err.reason, NICD_R_NO_ADAPTER);
}

/* mutation: let a range name a Memory that is closing */
static void test_closing_memory(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, closed = { 0 };
	struct nic_mr *other = rig_mr(rig);

	rig_registered(rig);
	nic_memory_close(rig->memory, rig_done(&closed));
	assert_int_equal(rig_register(other, rig->memory, 0, 1, 0, &done), -EBADF);
	assert_int_equal(closed.calls, 0);
	nic_mr_close(rig->mr, NULL);
	assert_ended(closed);
}

/* Quotas of the objects themselves. */
/* mutation: make an object without charging it */
static void test_object_quotas(void **state)
{
	struct rig *rig = *state;
	struct nic_memory_facts facts = { .fd = 7, .size = P, .page_size = P };
	uint64_t *max = rig->owner.account->limits.max;
	struct nic_memory *memory;
	struct nicd_error err;
	struct nic_mr *mr;
	struct nic_pd *pd;

	max[NIC_SLOT_MRS] = 1;
	assert_refusal(nic_mr_new(&mr, rig->pd, &err), err, QUOTA, 1, 2);
	max[NIC_SLOT_PDS] = 1;
	assert_refusal(nic_pd_new(&pd, &rig->owner, rig->adapter, &err), err, QUOTA, 1, 2);
	max[NIC_SLOT_MEMORIES] = 1;
	assert_refusal(nic_memory_new(&memory, &rig->owner, &facts, true, &err), err, QUOTA, 1, 2);
	assert_int_equal(rig->env.n_closed, 1);   /* taken, also on failure */
	assert_int_equal(rig->env.closed[0], 7);
	max[NIC_SLOT_MEMORIES] = 2;
	max[NIC_SLOT_FDS] = 1;
	assert_refusal(nic_memory_new(&memory, &rig->owner, &facts, true, &err), err, QUOTA, 1, 2);
	assert_int_equal(rig->env.n_closed, 2);
	assert_int_equal(rig_used(rig, NIC_SLOT_MEMORIES), 1);
	assert_int_equal(rig->nic.held_fds, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_refusals),
		rig_test(test_too_many_ranges),
		rig_test(test_state_first),
		rig_test(test_what_the_device_gets),
		rig_test(test_effective_rights),
		rig_test(test_quota),
		rig_test(test_quota_of_the_second_memory),
		rig_test(test_no_adapter),
		rig_test(test_closing_memory),
		rig_test(test_object_quotas),
	};

	return cmocka_run_group_tests_name("register", tests, NULL, NULL);
}
