/* SPDX-License-Identifier: MIT */
/* The fast-register MR: every cell of its rows in the table of NDK semantics, its checks, and what device, peers and admin may do to it. */
#include "tests/unit/nic/rig.h"

#include "nicd/op.h"
#include "nicd/region.h"

enum { PAGES = 8, IOVA = 0x7000000 };

struct stage {
	struct rig *rig;
	struct nic_qp *qp;
	struct nic_frmr *frmr;
};

static struct nic_frmr *frmr_new(struct rig *rig)
{
	struct nicd_error err;
	struct nic_frmr *frmr;

	assert_int_equal(nic_frmr_new(&frmr, rig->pd, &err), 0);
	return frmr;
}

static int stage_setup(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));
	struct rig_done done = { 0 };
	void *own;

	rig_setup(&own);
	stage->rig = own;
	stage->qp = rig_connect(stage->rig, &done);
	assert_ended(done);
	stage->frmr = frmr_new(stage->rig);
	*state = stage;
	return 0;
}

static int stage_teardown(void **state)
{
	struct stage *stage = *state;
	void *own = stage->rig;

	rig_teardown(&own);
	free(stage);
	return 0;
}
#define stage_test(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)

static void initialize(struct stage *stage, bool remote)
{
	struct rig_done done = { 0 };
	struct nicd_error err;

	assert_int_equal(nic_frmr_initialize(stage->frmr, PAGES, remote, rig_done(&done), &err), 0);
	assert_ended(done);
}

static int try_register(struct stage *stage, const struct nic_fast_register *what, struct rig_done *done, struct nicd_error *err)
{
	return nic_frmr_register(stage->frmr, stage->qp, what, rig_done(done), err);
}

/* Two pages of the rig's memory, or so many. */
static int fast_pages(struct stage *stage, uint64_t pages, uint32_t flags, struct rig_done *done, struct nicd_error *err)
{
	struct nic_range range = { stage->rig->memory, 2 * RIG_PAGE, pages * RIG_PAGE };
	struct nic_fast_register what = {
		.ranges = &range, .n_ranges = 1, .length = pages * RIG_PAGE, .iova = IOVA, .flags = flags };

	return try_register(stage, &what, done, err);
}

static int fast(struct stage *stage, uint32_t flags, struct rig_done *done, struct nicd_error *err)
{
	return fast_pages(stage, 2, flags, done, err);
}

static void valid(struct stage *stage, uint32_t flags)
{
	struct rig_done done = { 0 };
	struct nicd_error err;

	assert_int_equal(fast(stage, flags, &done, &err), 0);
	assert_ended(done);
	assert_int_equal(stage->frmr->state, NIC_FAST_VALID);
}

/* Brings the MR into a state; what is under way ends in `done`. */
static void bring(struct stage *stage, enum nic_fast_state state, struct rig_done *done)
{
	struct fake *fake = stage->rig->fake;
	struct nicd_error err;

	rig_done(done);
	if (state == NIC_FAST_CREATED)
		return;
	fake_hold(fake, FAKE_TAG_ADD, state == NIC_FAST_INITIALIZING);
	assert_int_equal(nic_frmr_initialize(stage->frmr, PAGES, true, rig_done(done), &err), 0);
	if (state == NIC_FAST_INITIALIZING || state == NIC_FAST_FREE)
		return;
	fake_hold(fake, FAKE_TAG_ADD, state == NIC_FAST_VALID_PENDING);
	assert_int_equal(fast(stage, NIC_OP_REMOTE_READ, done, &err), 0);
	if (state == NIC_FAST_VALID_PENDING || state == NIC_FAST_VALID)
		return;
	if (state == NIC_FAST_INVALIDATING)
		fake_hold(fake, FAKE_TAG_DROP, true);
	else
		fake_fail(fake, FAKE_TAG_DROP, 0, 1, NICD_R_DEVICE_BUSY);
	assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(done), &err), 0);
}

/* ---- cells */

struct cell {
	enum nic_fast_state state;
	bool local, remote, initialize, fast, invalidate, revoke;
};

static const struct cell cells[NIC_FAST_STATE_COUNT] = {
	{ NIC_FAST_CREATED, false, false, true, false, false, false },
	{ NIC_FAST_INITIALIZING, false, false, false, false, false, false },
	{ NIC_FAST_FREE, true, true, true, true, false, false },
	{ NIC_FAST_VALID_PENDING, false, false, false, false, false, false },
	{ NIC_FAST_VALID, true, true, false, false, true, true },
	{ NIC_FAST_INVALIDATING, false, false, false, false, false, false },
	{ NIC_FAST_ERROR, false, false, false, false, true, true },
};

enum call { LOCAL, REMOTE, INITIALIZE, FAST, INVALIDATE, REVOKE, CALLS };

static int call_it(struct stage *stage, enum call call, struct rig_done *done, struct nicd_error *err)
{
	uint32_t token;

	rig_done(done);
	switch (call) {
	case LOCAL:
		return nic_region_local_token(&stage->frmr->object, &token, err);
	case REMOTE:
		return nic_region_remote_token(&stage->frmr->object, &token, err);
	case INITIALIZE:
		return nic_frmr_initialize(stage->frmr, PAGES, true, &done->done, err);
	case FAST:
		return fast(stage, NIC_OP_REMOTE_READ, done, err);
	case INVALIDATE:
		return nic_frmr_invalidate(stage->frmr, stage->qp, 0, &done->done, err);
	case REVOKE:
		return nic_revoke(&stage->rig->nic, &stage->frmr->object, &done->done, err);
	case CALLS:
	default:
		return 0;
	}
}

/* mutation: leave out the state check of any call, or let a cell of NIC_FAST_LIFE allow one state more or less */
static void test_cells(void **state)
{
	for (unsigned i = 0; i < NIC_FAST_STATE_COUNT; i++)
		for (enum call call = 0; call < CALLS; call++) {
			const struct cell *cell = &cells[i];
			const bool allowed[CALLS] = {
				cell->local, cell->remote, cell->initialize, cell->fast, cell->invalidate, cell->revoke };
			struct rig_done one = { 0 }, two = { 0 };
			struct nicd_error err = { 0 };
			struct stage *stage;
			void *own;
			int r;

			stage_setup(&own);
			stage = own;
			bring(stage, cell->state, &one);
			assert_int_equal(stage->frmr->state, cell->state);
			r = call_it(stage, call, &two, &err);
			assert_int_equal(r == 0, allowed[call]);
			/* In the middle of a registration or an Invalidate it overtakes that: further on. */
			if (r < 0 && !(call == REVOKE && (cell->state == NIC_FAST_INVALIDATING || cell->state == NIC_FAST_VALID_PENDING))) {
				assert_int_equal(err.reason, NICD_R_MR_STATE);
				assert_int_equal(err.observed, cell->state);
				assert_int_equal(two.calls, 0);
				assert_int_equal(stage->frmr->state, cell->state);
			}
			stage_teardown(&own);
		}
}

/* mutation: let the names and numbers of a fast MR's states be those of a normal one (nic_region) */
static void test_region(void **state)
{
	struct stage *stage = *state;
	struct nic_region region;

	assert_true(nic_is_frmr(&stage->frmr->object) && !nic_is_frmr(&stage->rig->mr->object) && !nic_is_frmr(&stage->rig->pd->object));
	assert_null(nic_object_mr(&stage->frmr->object));
	assert_null(nic_object_frmr(&stage->rig->mr->object));
	initialize(stage, true);
	valid(stage, NIC_OP_REMOTE_WRITE);
	region = nic_region(&stage->frmr->object);
	assert_ptr_equal(region.pd, stage->rig->pd);
	assert_int_equal(region.state, NIC_FAST_VALID);
	assert_int_equal(region.rights, NIC_REMOTE_WRITE);
	assert_int_equal(region.iova, IOVA);
	assert_int_equal(region.length, 2 * RIG_PAGE);
	assert_int_equal(region.n_ranges, 1);
}

/* ---- initialize */

/* mutation: let 0, or one page more than there may be, pass; ask the device on a second time */
static void test_initialize(void **state)
{
	struct stage *stage = *state;
	struct fake *fake = stage->rig->fake;
	struct rig_done done = { 0 };
	struct nicd_error err;
	uint32_t local, remote, again;

	assert_refusal(nic_frmr_initialize(stage->frmr, 0, true, rig_done(&done), &err), err, PAGE_COUNT, NICD_FAST_PAGES, 0);
	assert_refusal(nic_frmr_initialize(stage->frmr, NICD_FAST_PAGES + 1, true, rig_done(&done), &err), err, PAGE_COUNT,
		       NICD_FAST_PAGES, NICD_FAST_PAGES + 1);
	assert_int_equal(done.calls, 0);
	assert_int_equal(stage->frmr->state, NIC_FAST_CREATED);
	initialize(stage, true);
	assert_int_equal(fake->calls[FAKE_TAG_ADD], 1);
	/* mutation: reserve under the MR's own serial, which its tags need, or with rights, or ranges */
	assert_true(fake->tag.reserve && fake->tag.rights == 0 && fake->tag.n_ranges == 0 && fake->tag.order.qp == 0);
	assert_true(fake->tag.serial != stage->frmr->object.serial && fake->tag.serial != 0);
	assert_int_equal(nic_frmr_local_token(stage->frmr, &local, &err), 0);
	assert_int_equal(nic_frmr_remote_token(stage->frmr, &remote, &err), 0);
	assert_true(local && remote && local != remote);
	/* The same arguments, then others: they count, and the tokens stay. */
	initialize(stage, true);
	assert_int_equal(nic_frmr_initialize(stage->frmr, 1, false, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(fake->calls[FAKE_TAG_ADD], 1);
	assert_int_equal(nic_frmr_local_token(stage->frmr, &again, &err), 0);
	assert_int_equal(again, local);
	/* mutation: show the reserved remote token of an MR without remote access */
	assert_refusal(nic_frmr_remote_token(stage->frmr, &again, &err), err, NO_REMOTE_RIGHTS, NIC_REMOTE_READ, 0);
	assert_refusal(fast(stage, 0, &done, &err), err, PAGES_BEYOND, 1, 2);
	assert_refusal(fast_pages(stage, 1, NIC_OP_REMOTE_READ, &done, &err), err, NO_REMOTE_ACCESS, 0, NIC_OP_REMOTE_READ);
	assert_int_equal(fast_pages(stage, 1, 0, &done, &err), 0);
	assert_ended(done);
}

/* mutation: keep INITIALIZING, or the serial of a reservation that is not there, when the device refuses */
static void test_initialize_fails(void **state)
{
	struct stage *stage = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	fake_fail(stage->rig->fake, FAKE_TAG_ADD, 0, 1, NICD_R_TAGS_EXHAUSTED);
	assert_int_equal(nic_frmr_initialize(stage->frmr, PAGES, true, rig_done(&done), &err), 0);
	assert_refused(done, TAGS_EXHAUSTED);
	assert_int_equal(stage->frmr->state, NIC_FAST_CREATED);
	assert_int_equal(stage->frmr->reservation, 0);
	initialize(stage, true);
}

/* ---- fast register: checks, in the order of frmr.h */

struct bad {
	struct nic_range ranges[3];
	unsigned n_ranges;
	uint32_t first_byte_offset;
	uint64_t length, iova;
	uint32_t flags;
	enum nicd_reason reason;
	uint64_t limit, observed;
};

/* mutation: leave out any of the checks of frmr_check_register, or move one behind another: the case that has both says the later one */
static void test_bad_input(void **state)
{
	struct stage *stage = *state;
	struct nic_memory *m = stage->rig->memory, *read_only = rig_memory(stage->rig, 4, false);
	const struct bad bad[] = {
		{ .n_ranges = 0, .length = 1, .iova = IOVA, .flags = 0x4, .reason = NICD_R_OP_FLAGS, .limit = 0x2bb, .observed = 0x4 },
		{ { { m, 0, RIG_PAGE } }, 1, 0, RIG_PAGE, IOVA, 0x20, NICD_R_FLAGS, 0x2bb, 0x20 },
		{ .n_ranges = 0, .length = 1, .iova = IOVA, .reason = NICD_R_MAPPING_OR_RANGES },
		{ { { m, 0, 0 } }, 1, 0, 1, IOVA, 0, NICD_R_LENGTH_ZERO, 1, 0 },
		{ { { m, RIG_PAGE, UINT64_MAX } }, 1, 0, 1, IOVA, 0, NICD_R_RANGE_OVERFLOW, UINT64_MAX - RIG_PAGE, UINT64_MAX },
		{ { { m, 15 * RIG_PAGE, RIG_PAGE + 1 } }, 1, 0, 1, IOVA, 0, NICD_R_RANGE_BEYOND, 16 * RIG_PAGE, 16 * RIG_PAGE + 1 },
		{ { { m, 100, RIG_PAGE } }, 1, 0, 1, IOVA, 0, NICD_R_RANGE_NOT_JOINED, RIG_PAGE, 100 },
		{ { { m, 0, 100 }, { m, 0, RIG_PAGE } }, 2, 0, 1, IOVA, 0, NICD_R_RANGE_NOT_JOINED, RIG_PAGE, 100 },
		{ { { m, 0, (PAGES + 1) * RIG_PAGE } }, 1, RIG_PAGE, 1, IOVA, 0, NICD_R_PAGES_BEYOND, PAGES, PAGES + 1 },
		{ { { m, 0, PAGES * RIG_PAGE }, { m, 0, 1 } }, 2, 0, 1, IOVA, 0, NICD_R_PAGES_BEYOND, PAGES, PAGES + 1 },
		{ { { m, 0, RIG_PAGE } }, 1, RIG_PAGE, 0, IOVA, 0, NICD_R_FIRST_BYTE, RIG_PAGE, RIG_PAGE },
		{ { { m, 0, RIG_PAGE } }, 1, UINT32_MAX, 0, IOVA, 0, NICD_R_FIRST_BYTE, RIG_PAGE, UINT32_MAX },
		{ { { m, 0, RIG_PAGE } }, 1, 0, 0, 0, 0, NICD_R_LENGTH_ZERO, 1, 0 },
		{ { { m, 0, RIG_PAGE } }, 1, 16, RIG_PAGE - 15, 0, 0, NICD_R_LENGTH_BEYOND, RIG_PAGE - 16, RIG_PAGE - 15 },
		{ { { m, 0, RIG_PAGE } }, 1, 0, UINT64_MAX, IOVA, 0, NICD_R_LENGTH_BEYOND, RIG_PAGE, UINT64_MAX },
		/* The bytes behind the end of the last range are nobody's word. */
		{ { { m, 0, 100 } }, 1, 0, 101, IOVA, 0, NICD_R_LENGTH_BEYOND, 100, 101 },
		{ { { m, 0, 100 } }, 1, 200, 1, IOVA + 200, 0, NICD_R_LENGTH_BEYOND, 0, 1 },
		{ { { m, 0, RIG_PAGE } }, 1, 0, 1, 0, 0, NICD_R_IOVA_ZERO, 1, 0 },
		{ { { m, 0, RIG_PAGE } }, 1, 16, 1, IOVA + 17, 0, NICD_R_IOVA_MISFIT, 16, 17 },
		{ { { m, 0, 2 * RIG_PAGE } }, 1, 0, RIG_PAGE + 1, UINT64_MAX - RIG_PAGE + 1, 0, NICD_R_IOVA_OVERFLOW,
		  UINT64_MAX - RIG_PAGE - 1, UINT64_MAX - RIG_PAGE + 1 },
		{ { { read_only, 0, RIG_PAGE } }, 1, 0, 1, IOVA, NIC_OP_REMOTE_READ | NIC_OP_LOCAL_WRITE, NICD_R_NO_REMOTE_ACCESS, 0, 0x18 },
		{ { { m, 0, RIG_PAGE } }, 1, 0, 1, IOVA, NIC_OP_REMOTE_WRITE, NICD_R_NO_REMOTE_ACCESS, 0, 0x30 },
		{ { { read_only, 0, RIG_PAGE } }, 1, 0, 1, IOVA, NIC_OP_LOCAL_WRITE, NICD_R_MEMORY_READ_ONLY, 0, NIC_LOCAL_WRITE },
		/* mutation: let a sink be read-only */
		{ { { m, 0, RIG_PAGE }, { read_only, 0, RIG_PAGE } }, 2, 0, 1, IOVA, NIC_OP_READ_SINK, NICD_R_MEMORY_READ_ONLY, 0,
		  NIC_LOCAL_WRITE | NIC_READ_SINK },
	};
	unsigned before;

	initialize(stage, false);
	before = stage->rig->fake->calls[FAKE_TAG_ADD];
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct nic_fast_register what = {
			NULL, bad[i].ranges, bad[i].n_ranges, bad[i].first_byte_offset, bad[i].length, bad[i].iova, bad[i].flags };
		struct nicd_error err = { 0 };
		struct rig_done done;
		int r = try_register(stage, &what, &done, &err);

		assert_int_equal(err.reason, bad[i].reason);
		assert_int_equal(r, -nicd_reason_info(bad[i].reason)->err);
		assert_int_equal(err.limit, bad[i].limit);
		assert_int_equal(err.observed, bad[i].observed);
		assert_int_equal(done.calls, 0);
		assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
	}
	assert_int_equal(stage->rig->fake->calls[FAKE_TAG_ADD], before);
	assert_int_equal(stage->rig->fake->calls[FAKE_ATTACH], 0);
	assert_int_equal(stage->qp->posted, 0);
}

/* mutation: leave out the comparison of PDs, of the Qp's state, or its count of work, in nic_qp_begin_work */
static void test_bad_qp(void **state)
{
	struct stage *stage = *state;
	struct nic_pd *other, *own = stage->rig->pd;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_qp *stranger;

	initialize(stage, true);
	assert_int_equal(nic_pd_new(&other, &stage->rig->owner, stage->rig->adapter, &err), 0);
	stage->rig->pd = other;
	stranger = rig_connect(stage->rig, &done);
	stage->rig->pd = own;
	assert_refusal(nic_frmr_register(stage->frmr, stranger,
					 &(struct nic_fast_register){ NULL, &(struct nic_range){ stage->rig->memory, 0, RIG_PAGE }, 1, 0, 1, IOVA, 0 },
					 rig_done(&done), &err),
		       err, PD_MISMATCH, 0, 0);
	valid(stage, 0);
	assert_refusal(nic_frmr_invalidate(stage->frmr, stranger, 0, rig_done(&done), &err), err, PD_MISMATCH, 0, 0);
	assert_refusal(nic_frmr_invalidate(stage->frmr, stage->qp, NIC_OP_REMOTE_READ, rig_done(&done), &err), err, OP_FLAGS, 0x203, 0x8);
	stage->qp->posted = NICD_QP_WORK;
	assert_refusal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), err, IN_FLIGHT, NICD_QP_WORK, NICD_QP_WORK + 1);
	stage->qp->posted = 0;
	assert_int_equal(nic_qp_disconnect(stage->qp, rig_done(&done), &err), 0);
	assert_refusal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), err, QP_STATE, NIC_QP_CONNECTED,
		       NIC_QP_DISCONNECTED);
	assert_int_equal(stage->frmr->state, NIC_FAST_VALID);
	/* Without a Qp there is still the admin's way. */
	assert_int_equal(nic_revoke(&stage->rig->nic, &stage->frmr->object, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_refusal(fast(stage, 0, &done, &err), err, QP_STATE, NIC_QP_CONNECTED, NIC_QP_DISCONNECTED);
	assert_int_equal(stage->qp->posted, 0);
}

/* mutation: attach what is behind `length`, or let the tag begin at the page instead of the first byte */
static void test_ranges(void **state)
{
	struct stage *stage = *state;
	struct nic_memory *m = stage->rig->memory, *n = rig_memory(stage->rig, 4, true), *unused = rig_memory(stage->rig, 4, true);
	struct nic_range ranges[] = { { m, 3 * RIG_PAGE, RIG_PAGE }, { n, 0, 2 * RIG_PAGE }, { unused, 0, 10 } };
	struct nic_fast_register what = { NULL, ranges, 3, 0x123, 2 * RIG_PAGE, IOVA + 0x123, NIC_OP_READ_FENCE };
	struct fake *fake = stage->rig->fake;
	struct rig_done done = { 0 };
	struct nicd_error err;

	initialize(stage, false);
	assert_int_equal(try_register(stage, &what, &done, &err), 0);
	assert_ended(done);
	assert_int_equal(fake->tag.n_ranges, 2);
	assert_int_equal(fake->ranges[0].memory, m->object.serial);
	assert_int_equal(fake->ranges[0].offset, 3 * RIG_PAGE + 0x123);
	assert_int_equal(fake->ranges[0].length, RIG_PAGE - 0x123);
	assert_int_equal(fake->ranges[1].offset, 0);
	assert_int_equal(fake->ranges[1].length, RIG_PAGE + 0x123);
	assert_int_equal(fake->tag.length, 2 * RIG_PAGE);
	assert_int_equal(fake->tag.iova, IOVA + 0x123);
	assert_int_equal(fake->tag.rights, 0);
	/* mutation: forget the Qp, or the fence, on the way to the device */
	assert_int_equal(fake->tag.order.qp, stage->qp->stream);
	assert_true(fake->tag.order.fence);
	assert_int_equal(m->users, 1);
	assert_int_equal(n->users, 1);
	assert_int_equal(unused->users, 0);
	assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, NIC_OP_READ_FENCE, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(fake->drop_order.qp, stage->qp->stream);
	assert_true(fake->drop_order.fence);
	/* mutation: forget to let go of a range */
	assert_int_equal(m->users + n->users, 0);
	valid(stage, 0);
	assert_false(fake->tag.order.fence);
}

/* mutation: let peers invalidate what they may not touch, or not what they may */
static void test_rights(void **state)
{
	static const struct {
		uint32_t op, rights;
	} rows[] = {
		{ 0, 0 },
		{ NIC_OP_LOCAL_WRITE, NIC_LOCAL_WRITE },
		{ NIC_OP_READ_SINK, NIC_LOCAL_WRITE | NIC_READ_SINK },
		{ NIC_OP_REMOTE_READ, NIC_REMOTE_READ | NIC_INVALIDATABLE },
		{ NIC_OP_REMOTE_WRITE, NIC_REMOTE_WRITE | NIC_INVALIDATABLE },
		{ NIC_OP_REMOTE_WRITE | NIC_OP_REMOTE_READ | NIC_OP_READ_SINK, NIC_RIGHTS_ALL | NIC_INVALIDATABLE },
	};
	struct stage *stage = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	uint32_t token;

	initialize(stage, true);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		valid(stage, rows[i].op);
		assert_int_equal(stage->rig->fake->tag.rights, rows[i].rights);
		/* mutation: pass on the remote token that devices draw in any case */
		assert_int_equal(nic_frmr_remote_token(stage->frmr, &token, &err) == 0, nic_rights_remote(rows[i].rights));
		assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
		assert_ended(done);
	}
}

/* ---- life */

/* mutation: keep a token or a generation over an invalidation; show VALID's in FREE */
static void test_tokens(void **state)
{
	struct stage *stage = *state;
	uint32_t reserved, seen[20];
	struct rig_done done = { 0 };
	struct nicd_error err;

	initialize(stage, true);
	assert_int_equal(nic_frmr_remote_token(stage->frmr, &reserved, &err), 0);
	for (unsigned i = 0; i < 20; i++) {
		uint32_t token;

		valid(stage, NIC_OP_REMOTE_READ);
		assert_int_equal(stage->rig->fake->tag.generation, i + 1);
		assert_int_equal(nic_frmr_remote_token(stage->frmr, &seen[i], &err), 0);
		assert_int_equal(seen[i], fake_tag_token(stage->rig->fake, stage->frmr->object.serial));
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(seen[i], seen[k]);
		assert_int_not_equal(seen[i], reserved);
		assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
		assert_ended(done);
		assert_int_equal(nic_frmr_remote_token(stage->frmr, &token, &err), 0);
		assert_int_equal(token, reserved);
	}
}

/* mutation: forget to charge, to cancel an attachment, or to give back, when the device refuses the tag or the memory */
static void test_register_fails(void **state)
{
	static const enum fake_op failing[] = { FAKE_ATTACH, FAKE_TAG_ADD };
	struct stage *stage = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	stage->rig->fake->tag_percent = 100;
	initialize(stage, true);
	for (unsigned i = 0; i < 2; i++) {
		fake_fail(stage->rig->fake, failing[i], 0, 1, NICD_R_DEVICE_FAILED);
		assert_int_equal(fast(stage, NIC_OP_REMOTE_READ, &done, &err), 0);
		assert_refused(done, DEVICE_FAILED);
		assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
		assert_int_equal(stage->qp->posted, 0);
		assert_int_equal(stage->rig->memory->users, 0);
	}
	assert_int_equal(rig_used(stage->rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);   /* the attachment stays */
	valid(stage, NIC_OP_REMOTE_READ);
	assert_int_equal(rig_used(stage->rig, NIC_SLOT_PINNED), 18 * RIG_PAGE);
	assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
	assert_int_equal(rig_used(stage->rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
}

/* mutation: take the bytes without charging, or post the work before the charge */
static void test_quota(void **state)
{
	struct stage *stage = *state;
	struct nic_account *account = stage->rig->owner.account;
	struct rig_done done = { 0 };
	struct nicd_error err;

	stage->rig->fake->tag_percent = 100;
	initialize(stage, true);
	account->limits.max[NIC_SLOT_PINNED] = 17 * RIG_PAGE;
	assert_int_equal(fast(stage, 0, &done, &err), -nicd_reason_info(NICD_R_QUOTA)->err);
	assert_int_equal(err.reason, NICD_R_QUOTA);
	assert_int_equal(stage->qp->posted, 0);
	account->limits.max[NIC_SLOT_PINNED] = 18 * RIG_PAGE;
	valid(stage, 0);
	account->limits.max[NIC_SLOT_MRS] = 2;
	assert_int_equal(nic_frmr_new(&stage->frmr, stage->rig->pd, &err), -nicd_reason_info(NICD_R_QUOTA)->err);
}

/* The attachment takes its time; meanwhile the Qp goes, the MR is closed, or the device goes. */
/* mutation: send the tag to a stream that is over, or answer the close before the registration */
static void test_while_attaching(void **state)
{
	static const enum nicd_reason why[] = { NICD_R_FLUSHED, NICD_R_REVOKED, NICD_R_DEVICE_LOST };
	struct nicd_error err;

	for (unsigned i = 0; i < 3; i++) {
		struct rig_done done = { 0 }, other = { 0 };
		struct stage *stage;
		void *own;

		stage_setup(&own);
		stage = own;
		initialize(stage, true);
		fake_hold(stage->rig->fake, FAKE_ATTACH, true);
		assert_int_equal(fast(stage, NIC_OP_REMOTE_READ, &done, &err), 0);
		assert_int_equal(done.calls, 0);
		assert_int_equal(stage->qp->posted, 1);
		rig_done(&other);
		if (i == 0)
			assert_int_equal(nic_qp_disconnect(stage->qp, &other.done, &err), 0);
		else if (i == 1)
			nic_frmr_close(stage->frmr, &other.done);
		else
			fake_lose(stage->rig->fake, true);
		assert_int_equal(other.calls, i == 0);
		if (i < 2)
			fake_complete_all(stage->rig->fake);
		assert_int_equal(done.calls, 1);
		assert_int_equal(done.error.reason, why[i]);
		assert_int_equal(other.calls, i < 2);
		if (i == 1)
			assert_true(done.order < other.order);
		else
			assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
		stage_teardown(&own);
	}
}

/* In each state: the close is answered once, last, and all is given back (the teardown says so). */
/* mutation: end before what is under way; forget the tag, or the reservation; answer twice */
static void test_close_in_each_state(void **state)
{
	for (unsigned i = 0; i < NIC_FAST_STATE_COUNT; i++)
		for (unsigned hold = 0; hold < 2; hold++) {
			struct rig_done done = { 0 }, closed = { 0 };
			struct stage *stage;
			struct fake *fake;
			uint64_t serial, id;
			void *own;

			stage_setup(&own);
			stage = own;
			fake = stage->rig->fake;
			serial = stage->frmr->object.serial;
			id = stage->frmr->object.id;
			bring(stage, cells[i].state, &done);
			if (hold)
				fake_hold(fake, FAKE_TAG_DROP, true);
			rig_done(&closed);
			nic_frmr_close(stage->frmr, &closed.done);
			assert_null(nic_table_find(&stage->rig->owner.ids, id));
			assert_int_equal(closed.calls, (!hold || i == NIC_FAST_CREATED) && i != NIC_FAST_INITIALIZING && i != NIC_FAST_VALID_PENDING && i != NIC_FAST_INVALIDATING);
			fake_complete_all(fake);
			assert_ended(closed);
			assert_int_equal(done.calls, i != NIC_FAST_CREATED);
			if (i == NIC_FAST_INITIALIZING || i == NIC_FAST_VALID_PENDING)
				assert_int_equal(done.error.reason, NICD_R_REVOKED);
			if (i != NIC_FAST_CREATED && i != NIC_FAST_ERROR)
				assert_true(done.order < closed.order);
			assert_null(nic_find(&stage->rig->nic, NIC_MR, serial));
			assert_int_equal(fake_tag_token(fake, serial), 0);
			assert_int_equal(stage->qp->posted, 0);
			stage_teardown(&own);
		}
}

/* mutation: wait for the turn of an Invalidate that stands behind other work; end the Qp under its orphan */
static void test_close_overtakes(void **state)
{
	struct stage *stage = *state;
	struct fake *fake = stage->rig->fake;
	struct rig_done done = { 0 }, closed = { 0 }, qp_closed = { 0 };

	bring(stage, NIC_FAST_INVALIDATING, &done);
	assert_int_equal(fake->drop_order.qp, stage->qp->stream);
	rig_done(&closed);
	nic_frmr_close(stage->frmr, &closed.done);
	assert_int_equal(fake->drop_order.qp, 0);
	assert_int_equal(fake_pending(fake, FAKE_TAG_DROP), 2);
	assert_true(fake_complete_newest(fake, FAKE_TAG_DROP));   /* the tag is gone */
	assert_ended(done);
	assert_true(fake_complete_newest(fake, FAKE_TAG_DROP));   /* the reservation, too */
	assert_ended(closed);
	assert_int_equal(stage->qp->posted, 1);
	nic_qp_close(stage->qp, rig_done(&qp_closed));
	assert_int_equal(qp_closed.calls, 0);
	assert_true(fake_complete(fake, FAKE_TAG_DROP));
	assert_ended(qp_closed);
}

enum hurried { FLUSHED, ADDED, ADDED_AND_GONE, HURRIED };

/*
 * mutation: wait for the turn of a registration that stands behind other work; take the hurry's answer for the drop's; end while it is under way;
 * mutation: give an admin MR_STATE, or leave the registration waiting
 */
static void check_hurried(enum hurried how, bool closes)
{
	struct rig_done done = { 0 }, ended = { 0 };
	struct nicd_error err;
	struct stage *stage;
	struct fake *fake;
	void *own;

	stage_setup(&own);
	stage = own;
	fake = stage->rig->fake;
	bring(stage, NIC_FAST_VALID_PENDING, &done);
	fake_hold(fake, FAKE_TAG_DROP, true);
	if (closes)
		nic_frmr_close(stage->frmr, rig_done(&ended));
	else
		assert_refusal(nic_revoke(&stage->rig->nic, &stage->frmr->object, rig_done(&ended), &err), err, DEVICE_BUSY, 0, 0);
	assert_int_equal(fake_pending(fake, FAKE_TAG_ADD), 1);
	assert_int_equal(fake_pending(fake, FAKE_TAG_DROP), 1);
	assert_int_equal(fake->drop_order.qp, 0);
	if (how == ADDED_AND_GONE)
		fake_complete(fake, FAKE_TAG_DROP);
	if (how == FLUSHED)
		assert_true(fake_complete_with(fake, FAKE_TAG_ADD, NICD_R_FLUSHED));
	else
		assert_true(fake_complete(fake, FAKE_TAG_ADD));
	assert_refused(done, REVOKED);
	assert_int_equal(stage->qp->posted, 0);
	assert_int_equal(ended.calls, 0);
	fake_hold(fake, FAKE_OPS, false);
	fake_complete_all(fake);
	if (closes)
		assert_ended(ended);
	else
		valid(stage, NIC_OP_REMOTE_READ);   /* another registration is not to go */
	assert_int_equal(done.calls, 1);
	stage_teardown(&own);
}

static void test_close_hurries(void **state)
{
	for (unsigned how = 0; how < HURRIED; how++)
		check_hurried(how, true);
}

static void test_revoke_hurries(void **state)
{
	for (unsigned how = 0; how < HURRIED; how++)
		check_hurried(how, false);
}

/* mutation: let the admin wait for the owner's other work */
static void test_revoke_overtakes(void **state)
{
	struct stage *stage = *state;
	struct fake *fake = stage->rig->fake;
	struct rig_done done = { 0 }, revoked = { 0 };
	struct nicd_error err;

	bring(stage, NIC_FAST_INVALIDATING, &done);
	assert_refusal(nic_revoke(&stage->rig->nic, &stage->frmr->object, rig_done(&revoked), &err), err, DEVICE_BUSY, 0, 0);
	assert_int_equal(fake->drop_order.qp, 0);
	assert_int_equal(fake_pending(fake, FAKE_TAG_DROP), 2);
	assert_true(fake_complete_newest(fake, FAKE_TAG_DROP));
	assert_ended(done);
	assert_int_equal(revoked.calls, 0);
	assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
	/* The first one still waits for its turn, and the MR does not care. */
	valid(stage, NIC_OP_REMOTE_READ);
	assert_true(fake_complete_with(fake, FAKE_TAG_DROP, NICD_R_DEVICE_FAILED));
	assert_int_equal(stage->frmr->state, NIC_FAST_VALID);
	assert_int_equal(stage->qp->posted, 0);
}

/* mutation: forget the event, or the serial in it, or tell of it in another generation or state */
static void test_remote_invalidation(void **state)
{
	for (unsigned i = 0; i < NIC_FAST_STATE_COUNT; i++) {
		struct rig_done done = { 0 };
		struct stage *stage;
		struct fake *fake;
		const struct nic_provider_events *events;
		struct nicd_error err;
		uint64_t serial;
		void *own;

		stage_setup(&own);
		stage = own;
		fake = stage->rig->fake;
		events = fake->provider.events;
		serial = stage->frmr->object.serial;
		bring(stage, cells[i].state, &done);
		events->tag_invalidated(stage->rig->adapter, serial, stage->frmr->generation + 1);
		events->tag_invalidated(stage->rig->adapter, serial + 1000, stage->frmr->generation);
		assert_int_equal(stage->frmr->state, cells[i].state);
		assert_int_equal(stage->rig->n_events, 0);
		fake_tag_gone(fake, serial);
		events->tag_invalidated(stage->rig->adapter, serial, stage->frmr->generation);
		assert_int_equal(rig_events(stage->rig, NIC_EVENT_REMOTE_INVALIDATED, serial), i == NIC_FAST_VALID || i == NIC_FAST_ERROR);
		if (i == NIC_FAST_VALID || i == NIC_FAST_ERROR) {
			assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
			assert_int_equal(stage->rig->memory->users, 0);
			/* A later Invalidate of it fails. */
			assert_refusal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), err, MR_STATE,
				       NIC_FAST_VALID, NIC_FAST_FREE);
			rig_done(&done);
			fake_hold(fake, FAKE_TAG_DROP, false);
		} else {
			assert_int_equal(stage->frmr->state, cells[i].state);
		}
		fake_complete_all(fake);
		if (i == NIC_FAST_VALID_PENDING) {
			/* mutation: be VALID although the peer was faster than the device's answer */
			assert_refused(done, REMOTELY_INVALIDATED);
			fake_tag_gone(fake, serial);
			assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
		}
		stage_teardown(&own);
	}
}

static void close_on_event(struct rig *rig, struct nic_object *object, enum nic_event event)
{
	if (nic_is_frmr(object) && !object->ending)
		nic_frmr_close((struct nic_frmr *)object, NULL);
}

static void close_in_done(struct rig_done *done)
{
	struct nic_object *object;

	TAILQ_FOREACH(object, &done->rig->owner.objects[NIC_MR], of_owner)
		if (nic_is_frmr(object) && !object->ending) {
			nic_frmr_close((struct nic_frmr *)object, NULL);
			return;
		}
}

/* mutation: touch the MR after nic_object_emit in nic_frmr_invalidated, frmr_drop_start or frmr_confirmed */
static void test_close_inside_event(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		struct rig_done done = { 0 };
		struct stage *stage;
		struct nicd_error err;
		void *own;

		stage_setup(&own);
		stage = own;
		initialize(stage, true);
		valid(stage, NIC_OP_REMOTE_READ);
		stage->rig->on_event = close_on_event;
		if (i == 0) {
			fake_tag_gone(stage->rig->fake, stage->frmr->object.serial);
			stage->rig->fake->provider.events->tag_invalidated(stage->rig->adapter, stage->frmr->object.serial, 1);
		} else if (i == 1) {
			assert_int_equal(nic_revoke(&stage->rig->nic, &stage->frmr->object, rig_done(&done), &err), 0);
			assert_ended(done);
		} else {
			fake_hold(stage->rig->fake, FAKE_TAG_DROP, true);
			assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
			rig_later(stage->rig, 5000);
			assert_refused(done, REVOKE_UNCONFIRMED);
			fake_complete_all(stage->rig->fake);
		}
		assert_int_equal(stage->rig->nic.count[NIC_MR], 1);
		stage_teardown(&own);
	}
}

/* mutation: touch the MR after op_tell in frmr_initialized, frmr_tagged, frmr_register_failed, frmr_confirmed or frmr_not_dropped */
static void test_close_inside_done(void **state)
{
	for (unsigned i = 0; i < 7; i++) {
		struct rig_done done = { .then = close_in_done };
		struct stage *stage;
		struct fake *fake;
		struct nicd_error err;
		void *own;

		stage_setup(&own);
		stage = own;
		fake = stage->rig->fake;
		done.rig = stage->rig;
		if (i > 1)
			initialize(stage, true);
		if (i > 4)
			valid(stage, NIC_OP_REMOTE_READ);
		if (i == 1 || i == 3)
			fake_fail(fake, FAKE_TAG_ADD, 0, 1, NICD_R_DEVICE_FAILED);
		if (i == 4)
			fake_fail(fake, FAKE_ATTACH, 0, 1, NICD_R_DEVICE_FAILED);
		if (i == 6)
			fake_fail(fake, FAKE_TAG_DROP, 0, 1, NICD_R_DEVICE_FAILED);
		if (i <= 1)
			assert_int_equal(nic_frmr_initialize(stage->frmr, PAGES, true, rig_done(&done), &err), 0);
		else if (i <= 4)
			assert_int_equal(fast(stage, NIC_OP_REMOTE_READ, &done, &err), 0);
		else
			assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
		assert_int_equal(done.calls, 1);
		assert_int_equal(stage->rig->nic.count[NIC_MR], 1);   /* the rig's own */
		stage_teardown(&own);
	}
}

/* mutation: leave what is VALID, or ERROR, as it is when the device goes; do not tell the owner; tell of what was not VALID */
static void test_device_loss(void **state)
{
	for (unsigned i = 0; i < NIC_FAST_STATE_COUNT; i++)
		for (unsigned first = 0; first < 2; first++) {
			struct rig_done done = { 0 };
			struct stage *stage;
			struct nicd_error err;
			uint64_t serial;
			void *own;

			stage_setup(&own);
			stage = own;
			serial = stage->frmr->object.serial;
			bring(stage, cells[i].state, &done);
			fake_lose(stage->rig->fake, first);
			assert_int_equal(rig_events(stage->rig, NIC_EVENT_REVOKED, serial), i == NIC_FAST_VALID);
			assert_int_equal(done.calls, i != NIC_FAST_CREATED);
			if (i == NIC_FAST_INITIALIZING || i == NIC_FAST_VALID_PENDING)
				assert_int_equal(done.error.reason, NICD_R_DEVICE_LOST);
			assert_int_equal(stage->frmr->state, i <= NIC_FAST_INITIALIZING ? NIC_FAST_CREATED : NIC_FAST_FREE);
			assert_int_equal(stage->rig->memory->users, 0);
			if (stage->frmr->state == NIC_FAST_FREE)
				assert_refusal(fast(stage, 0, &done, &err), err, NO_ADAPTER, 0, 0);
			assert_refusal(nic_frmr_initialize(stage->frmr, PAGES, true, rig_done(&done), &err), err, NO_ADAPTER, 0, 0);
			stage_teardown(&own);
		}
}

/* mutation: answer success, give the charge back, or forget REVOKE_CONFIRMED or the count, when the device takes its time */
static void test_revoke_pending(void **state)
{
	struct stage *stage = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	stage->rig->fake->tag_percent = 100;
	bring(stage, NIC_FAST_INVALIDATING, &done);
	rig_later(stage->rig, 4999);
	assert_int_equal(done.calls, 0);
	rig_later(stage->rig, 1);
	assert_refused(done, REVOKE_UNCONFIRMED);
	assert_int_equal(stage->rig->nic.quarantined, 1);
	assert_int_equal(rig_used(stage->rig, NIC_SLOT_PINNED), 18 * RIG_PAGE);
	assert_int_equal(stage->rig->memory->users, 1);
	assert_refusal(fast(stage, 0, &done, &err), err, MR_STATE, NIC_FAST_FREE, NIC_FAST_INVALIDATING);
	/* It refuses then: asked again until it does not. */
	assert_true(fake_complete_with(stage->rig->fake, FAKE_TAG_DROP, NICD_R_DEVICE_FAILED));
	assert_int_equal(stage->frmr->state, NIC_FAST_INVALIDATING);
	assert_int_equal(fake_pending(stage->rig->fake, FAKE_TAG_DROP), 0);
	rig_later(stage->rig, 5000);
	assert_int_equal(fake_pending(stage->rig->fake, FAKE_TAG_DROP), 1);
	fake_complete_all(stage->rig->fake);
	assert_int_equal(rig_events(stage->rig, NIC_EVENT_REVOKE_CONFIRMED, stage->frmr->object.serial), 1);
	assert_int_equal(stage->frmr->state, NIC_FAST_FREE);
	assert_int_equal(stage->rig->nic.quarantined, 0);
	assert_int_equal(rig_used(stage->rig, NIC_SLOT_PINNED), 16 * RIG_PAGE);
}

/* mutation: lose the count, or the promise, when a close overtakes an Invalidate that was promised */
static void test_close_after_pending(void **state)
{
	struct stage *stage = *state;
	struct rig_done done = { 0 }, closed = { 0 };

	bring(stage, NIC_FAST_INVALIDATING, &done);
	rig_later(stage->rig, 5000);
	assert_refused(done, REVOKE_UNCONFIRMED);
	rig_done(&closed);
	nic_frmr_close(stage->frmr, &closed.done);
	assert_int_equal(stage->rig->nic.quarantined, 1);
	fake_complete_all(stage->rig->fake);
	assert_ended(closed);
	assert_int_equal(stage->rig->nic.quarantined, 0);
	assert_int_equal(rig_events(stage->rig, NIC_EVENT_REVOKE_CONFIRMED, 0), 1);
}

/* mutation: give a close up when the device refuses to drop the tag, or the reservation */
static void test_close_is_tried_again(void **state)
{
	for (unsigned skip = 0; skip < 2; skip++) {
		struct rig_done closed = { 0 };
		struct stage *stage;
		void *own;

		stage_setup(&own);
		stage = own;
		initialize(stage, true);
		valid(stage, NIC_OP_REMOTE_READ);
		fake_fail(stage->rig->fake, FAKE_TAG_DROP, skip, 1, NICD_R_DEVICE_FAILED);
		rig_done(&closed);
		nic_frmr_close(stage->frmr, &closed.done);
		assert_int_equal(closed.calls, 0);
		rig_later(stage->rig, 5000);
		assert_ended(closed);
		stage_teardown(&own);
	}
}

/* mutation: forget the Qp's stream in the receipt, or let the receipt of another show */
static void test_receipt(void **state)
{
	struct stage *stage = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;

	initialize(stage, true);
	valid(stage, NIC_OP_REMOTE_READ);
	stage->rig->fake->cut_by_tag = 3;
	assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig_receipt.streams_cut, 3);
	assert_int_equal(rig_receipt.at_ns, stage->rig->env.wall);
	assert_int_equal(nic_mr_receipt(&stage->rig->nic)->at_ns, 0);
}

/* ---- memory */

/* mutation: allocate the op, the ranges or anything else per registration */
static void test_no_allocation_per_pair(void **state)
{
	struct stage *stage = *state;
	struct nic_range ranges[] = { { stage->rig->memory, 0, RIG_PAGE }, { stage->rig->memory, 4 * RIG_PAGE, RIG_PAGE } };
	struct nic_fast_register what = { NULL, ranges, 2, 0, 2 * RIG_PAGE, IOVA, NIC_OP_REMOTE_READ };
	struct rig_done done = { 0 };
	struct nicd_error err;
	unsigned long before = 0;

	initialize(stage, true);
	for (unsigned i = 0; i < 100; i++) {
		if (i == 1)
			before = stage->rig->env.allocs;
		assert_int_equal(try_register(stage, &what, &done, &err), 0);
		assert_ended(done);
		assert_int_equal(nic_frmr_invalidate(stage->frmr, stage->qp, 0, rig_done(&done), &err), 0);
		assert_ended(done);
	}
	assert_int_equal(stage->rig->env.allocs, before);
}

/* One life of it; whatever refuses for lack of memory has changed nothing. */
static void live(struct stage *stage)
{
	struct nic_range ranges[] = { { stage->rig->memory, 0, RIG_PAGE }, { stage->rig->memory, 4 * RIG_PAGE, RIG_PAGE } };
	struct nic_fast_register what = { NULL, ranges, 2, 0, 2 * RIG_PAGE, IOVA, NIC_OP_REMOTE_READ };
	struct rig_done done = { 0 };
	struct nic_frmr *frmr;
	struct nicd_error err;

	if (nic_frmr_new(&frmr, stage->rig->pd, &err) < 0)
		return;
	stage->frmr = frmr;
	if (nic_frmr_initialize(frmr, PAGES, true, rig_done(&done), &err) == 0 && try_register(stage, &what, &done, &err) == 0 &&
	    done.error.reason == NICD_R_NONE && nic_frmr_invalidate(frmr, stage->qp, 0, rig_done(&done), &err) == 0)
		assert_ended(done);
	if (nic_frmr_prepare_close(frmr, &err) == 0)
		nic_frmr_close(frmr, NULL);
}

/* mutation: forget to give something back on any path of an allocation that fails (the teardown looks at all that there is) */
static void test_nth_allocation_fails(void **state)
{
	bool failed = true;

	for (unsigned long n = 1; failed; n++) {
		struct stage *stage;
		void *own;

		stage_setup(&own);
		stage = own;
		stage->rig->env.fail_at = stage->rig->env.allocs + n;
		live(stage);
		failed = stage->rig->env.failed;
		stage->rig->env.fail_at = 0;
		assert_int_equal(stage->qp->posted, 0);
		stage_teardown(&own);
		assert_true(n < 100);
	}
}

/* A session that goes has no memory to go with: its MRs wait, in whatever state, and go when there is some. */
/* mutation: abort, or drop the MR without its tag, when there is no op for the end */
static void test_release_without_memory(void **state)
{
	struct stage *stage = *state;

	initialize(stage, true);
	valid(stage, NIC_OP_REMOTE_READ);
	stage->rig->env.fail_at = stage->rig->env.allocs + 1;
	stage->rig->env.fail_on = true;
	for (unsigned i = 0; i < 10; i++)
		nic_owner_release(&stage->rig->owner, 100);
	stage->rig->env.fail_at = 0;
	stage->rig->env.fail_on = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cells),
		stage_test(test_region),
		stage_test(test_initialize),
		stage_test(test_initialize_fails),
		stage_test(test_bad_input),
		stage_test(test_bad_qp),
		stage_test(test_ranges),
		stage_test(test_rights),
		stage_test(test_tokens),
		stage_test(test_register_fails),
		stage_test(test_quota),
		cmocka_unit_test(test_while_attaching),
		cmocka_unit_test(test_close_in_each_state),
		stage_test(test_close_overtakes),
		cmocka_unit_test(test_close_hurries),
		cmocka_unit_test(test_revoke_hurries),
		stage_test(test_revoke_overtakes),
		cmocka_unit_test(test_remote_invalidation),
		cmocka_unit_test(test_close_inside_event),
		cmocka_unit_test(test_close_inside_done),
		cmocka_unit_test(test_device_loss),
		stage_test(test_revoke_pending),
		stage_test(test_close_after_pending),
		cmocka_unit_test(test_close_is_tried_again),
		stage_test(test_receipt),
		stage_test(test_no_allocation_per_pair),
		cmocka_unit_test(test_nth_allocation_fails),
		stage_test(test_release_without_memory),
	};

	return cmocka_run_group_tests_name("frmr", tests, NULL, NULL);
}
