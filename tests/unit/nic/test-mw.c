/* SPDX-License-Identifier: MIT */
/* Memory windows: every cell of their row of lives, what is refused before anything is posted, and all the ways in which one may end. */
#include "tests/unit/nic/rig.h"

#include "nicd/mw.h"
#include "nicd/op.h"

enum { READ = NIC_OP_REMOTE_READ, WRITE = NIC_OP_REMOTE_WRITE };
static const uint64_t base = 0x7000000, size = 16 * RIG_PAGE;

static struct nic_mw *new_window(struct rig *rig)
{
	struct nicd_error err;
	struct nic_mw *mw;

	assert_int_equal(nic_mw_new(&mw, rig->pd, &err), 0);
	return mw;
}

static int window_bind(struct rig *rig, struct nic_mw *mw, struct nic_qp *qp, uint64_t offset, uint64_t length, uint32_t flags,
		struct rig_done *done, struct nicd_error *err)
{
	struct nic_bind what = { .mr = &rig->mr->object, .qp = qp, .iova = base + offset, .length = length, .flags = flags };

	return nic_mw_bind(mw, &what, rig_done(done), err);
}

/* What all tests of one window need. */
struct scene {
	struct rig *rig;
	struct nic_qp *qp;
	struct nic_mw *mw;
	struct rig_done connected, bound, ended;
};

static void scene_init(struct scene *s, struct rig *rig)
{
	*s = (struct scene){ .rig = rig };
	rig_registered(rig);
	s->qp = rig_connect(rig, &s->connected);
	assert_ended(s->connected);
	s->mw = new_window(rig);
}

static void scene_bound(struct scene *s, struct rig *rig)
{
	struct nicd_error err;

	scene_init(s, rig);
	assert_int_equal(window_bind(rig, s->mw, s->qp, 0, size, READ | WRITE, &s->bound, &err), 0);
	assert_ended(s->bound);
	assert_int_equal(s->mw->state, NIC_MW_BOUND);
}

/* Brings the window into a state; what is under way ends in `ended`. */
static void bring(struct scene *s, struct rig *rig, enum nic_mw_state state)
{
	struct nicd_error err;

	if (state == NIC_MW_FREE || state == NIC_MW_BIND_PENDING)
		scene_init(s, rig);
	else
		scene_bound(s, rig);
	if (state == NIC_MW_BIND_PENDING) {
		fake_hold(rig->fake, FAKE_TAG_ADD, true);
		assert_int_equal(window_bind(rig, s->mw, s->qp, 0, size, READ, &s->ended, &err), 0);
	} else if (state == NIC_MW_INVALIDATING) {
		fake_hold(rig->fake, FAKE_TAG_DROP, true);
		assert_int_equal(nic_mw_invalidate(s->mw, s->qp, 0, rig_done(&s->ended), &err), 0);
	} else if (state == NIC_MW_ERROR) {
		fake_fail(rig->fake, FAKE_TAG_DROP, 0, 1, NICD_R_DEVICE_BUSY);
		assert_int_equal(nic_mw_invalidate(s->mw, s->qp, 0, rig_done(&s->ended), &err), 0);
		assert_refused(s->ended, DEVICE_FAILED);
	}
	assert_int_equal(s->mw->state, state);
}

struct cell {
	enum nic_mw_state state;
	bool token, bind, invalidate;
};
static const struct cell cells[] = {
	{ NIC_MW_FREE, false, true, false },
	{ NIC_MW_BIND_PENDING, false, false, false },
	{ NIC_MW_BOUND, true, false, true },
	{ NIC_MW_INVALIDATING, false, false, false },
	{ NIC_MW_ERROR, false, false, true },
};
_Static_assert(sizeof(cells) / sizeof(cells[0]) == NIC_MW_STATES, "");

/* mutation: leave out check_state in any of the calls, or keep the token when an Invalidate begins */
static void test_cells(void **state)
{
	for (unsigned i = 0; i < NIC_MW_STATES; i++) {
		const struct cell *cell = &cells[i];
		struct nicd_error err = { 0 };
		struct rig_done done = { 0 };
		struct scene s;
		uint32_t token = 0;
		void *own;
		int r;

		rig_setup(&own);
		bring(&s, own, cell->state);
		r = nic_mw_remote_token(s.mw, &token, &err);
		if (cell->token) {
			assert_int_equal(r, 0);
			assert_int_equal(token, fake_tag_token(s.rig->fake, s.mw->object.serial));
		} else {
			assert_refusal(r, err, MW_STATE, NIC_MW_BOUND, cell->state);
		}
		if (!cell->bind) {
			r = window_bind(s.rig, s.mw, s.qp, 0, size, READ, &done, &err);
			assert_refusal(r, err, MW_STATE, NIC_MW_FREE, cell->state);
			assert_int_equal(done.calls, 0);
		}
		r = nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&done), &err);
		if (!cell->invalidate) {
			assert_refusal(r, err, MW_STATE, NIC_MW_BOUND, cell->state);
			assert_int_equal(done.calls, 0);
			assert_int_equal(s.mw->state, cell->state);
		} else {
			assert_int_equal(r, 0);
			assert_ended(done);
			assert_int_equal(s.mw->state, NIC_MW_FREE);
		}
		if (cell->bind) {
			assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, size, READ, &done, &err), 0);
			assert_ended(done);
		}
		rig_teardown(&own);
	}
}

/* Close is allowed everywhere, answers once, last, and leaves nothing. */
/* mutation: in nic_mw_close free what is under way at once, or do not drop what the device has */
static void test_close_in_each_state(void **state)
{
	for (unsigned i = 0; i < NIC_MW_STATES; i++) {
		struct rig_done closed = { 0 };
		struct nic_object *object;
		struct nicd_error err;
		uint64_t serial, id;
		struct scene s;
		bool waits;
		void *own;

		rig_setup(&own);
		bring(&s, own, cells[i].state);
		waits = s.ended.calls == 0 && fake_pending(s.rig->fake, FAKE_OPS) > 0;
		serial = s.mw->object.serial;
		id = s.mw->object.id;
		nic_mw_close(s.mw, rig_done(&closed));
		assert_int_equal(nic_owner_find(&s.rig->owner, id, NIC_MW, &object, &err), -EBADF);
		assert_int_equal(closed.calls, waits ? 0 : 1);
		fake_hold(s.rig->fake, FAKE_OPS, false);
		fake_complete_all(s.rig->fake);
		assert_ended(closed);
		assert_null(nic_find(&s.rig->nic, NIC_MW, serial));
		assert_int_equal(fake_tag_token(s.rig->fake, serial), 0);
		assert_int_equal(rig_used(s.rig, NIC_SLOT_MWS), 0);
		if (cells[i].state == NIC_MW_BIND_PENDING)
			assert_refused(s.ended, REVOKED);
		else if (waits)
			assert_ended(s.ended);
		if (waits)
			assert_true(s.ended.order < closed.order);
		/* and its MR is nobody's any more */
		assert_int_equal(nic_mr_deregister(s.rig->mr, rig_done(&closed), &err), 0);
		assert_ended(closed);
		rig_teardown(&own);
	}
}

/* ---- what the device is told */

/* mutation: forget only_qp, NIC_INVALIDATABLE, the fence, the Qp's stream or the next generation; give the MR's rights or range */
static void test_tag(void **state)
{
	struct nicd_error err;
	struct scene s;

	scene_init(&s, *state);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, RIG_PAGE + 7, 100, WRITE | NIC_OP_READ_FENCE, &s.bound, &err), 0);
	assert_ended(s.bound);
	assert_int_equal(s.rig->fake->tag.serial, s.mw->object.serial);
	assert_int_equal(s.rig->fake->tag.generation, 1);
	assert_int_equal(s.rig->fake->tag.rights, NIC_REMOTE_WRITE | NIC_INVALIDATABLE);
	assert_int_equal(s.rig->fake->tag.pd, s.rig->pd->object.serial);
	assert_int_equal(s.rig->fake->tag.door, 0);
	assert_int_equal(s.rig->fake->tag.iova, base + RIG_PAGE + 7);
	assert_int_equal(s.rig->fake->tag.length, 100);
	assert_int_equal(s.rig->fake->tag.n_ranges, 1);
	assert_int_equal(s.rig->fake->ranges[0].offset, RIG_PAGE + 7);
	assert_int_equal(s.rig->fake->ranges[0].length, 100);
	assert_int_equal(s.rig->fake->tag.order.qp, s.qp->stream);
	assert_true(s.rig->fake->tag.order.fence);
	assert_true(s.rig->fake->tag.only_qp);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, NIC_OP_READ_FENCE, rig_done(&s.ended), &err), 0);
	assert_ended(s.ended);
	assert_int_equal(s.rig->fake->serial, s.mw->object.serial);
	assert_int_equal(s.rig->fake->generation, 1);
	assert_int_equal(s.rig->fake->drop_order.qp, s.qp->stream);
	assert_true(s.rig->fake->drop_order.fence);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 1, READ, &s.bound, &err), 0);
	assert_int_equal(s.rig->fake->tag.generation, 2);
	assert_int_equal(s.rig->fake->tag.rights, NIC_REMOTE_READ | NIC_INVALIDATABLE);
	assert_false(s.rig->fake->tag.order.fence);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cells),
		cmocka_unit_test(test_close_in_each_state),
		rig_test(test_tag),
	};

	return cmocka_run_group_tests_name("mw", tests, NULL, NULL);
}
