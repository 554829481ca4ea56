/* SPDX-License-Identifier: MIT */
/* Memory windows: every cell of their row of lives, what is refused before anything is posted, and all the ways in which one may end. */
#include <errno.h>

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

/* ---- what is refused, before anything is taken or sent */

struct bad {
	uint64_t offset, length;
	uint32_t flags;
	enum nicd_reason reason;
	uint64_t limit, observed;
};

/* mutation: leave out any check of bind_check, or let a sum wrap */
static void test_bad_input(void **state)
{
	const uint64_t end = base + size, both = READ | WRITE;
	const uint32_t taken = NIC_OP_ANY | READ | WRITE;
	const struct bad bad[] = {
		{ 0, size, 0, NICD_R_FLAGS, both, 0 },
		{ 0, size, NIC_OP_READ_FENCE, NICD_R_FLAGS, both, NIC_OP_READ_FENCE },
		{ 0, size, READ | NIC_OP_LOCAL_WRITE, NICD_R_OP_FLAGS, taken, READ | NIC_OP_LOCAL_WRITE },
		{ 0, size, READ | 0x20, NICD_R_FLAGS, taken, READ | 0x20 },
		{ 0, size, READ | NIC_OP_READ_SINK, NICD_R_OP_FLAGS, taken, READ | NIC_OP_READ_SINK },
		{ 0, size, READ | 0x80000000, NICD_R_FLAGS, taken, READ | 0x80000000 },
		{ 0, 0, READ, NICD_R_LENGTH_ZERO, 1, 0 },
		{ size, 0, READ, NICD_R_LENGTH_ZERO, 1, 0 },
		{ 0, size + 1, READ, NICD_R_WINDOW_RANGE, end, end + 1 },
		{ 1, size, READ, NICD_R_WINDOW_RANGE, end, end + 1 },
		{ size, 1, READ, NICD_R_WINDOW_RANGE, end, end + 1 },
		{ size - 1, 2, WRITE, NICD_R_WINDOW_RANGE, end, end + 1 },
		{ (uint64_t)-1, 1, READ, NICD_R_WINDOW_RANGE, end, base },
		{ (uint64_t)-1, size + 2, READ, NICD_R_WINDOW_RANGE, end, end + 1 },
		{ -base, 1, READ, NICD_R_WINDOW_RANGE, end, 1 },
		{ 0, UINT64_MAX, READ, NICD_R_IOVA_OVERFLOW, 0, base },
		{ UINT64_MAX - base, 1, READ, NICD_R_IOVA_OVERFLOW, UINT64_MAX - 1, UINT64_MAX },
		{ UINT64_MAX - base, UINT64_MAX, READ, NICD_R_IOVA_OVERFLOW, 0, UINT64_MAX },
	};
	struct rig_done done = { 0 };
	struct scene s;

	scene_init(&s, *state);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t blocks = s.rig->env.live_blocks;
		struct nicd_error err = { 0 };
		int r = window_bind(s.rig, s.mw, s.qp, bad[i].offset, bad[i].length, bad[i].flags, &done, &err);

		assert_int_equal(err.reason, bad[i].reason);
		assert_int_equal(r, -nicd_reason_info(bad[i].reason)->err);
		assert_int_equal(err.limit, bad[i].limit);
		assert_int_equal(err.observed, bad[i].observed);
		assert_int_equal(done.calls, 0);
		assert_int_equal(s.mw->state, NIC_MW_FREE);
		assert_int_equal(s.rig->fake->calls[FAKE_TAG_ADD], 1);   /* the MR's */
		assert_int_equal(s.rig->env.live_blocks, blocks);
	}
}

/* mutation: test the MR's remote rights; take remote write for what 0x4 says */
static void test_rights_of_the_mr(void **state)
{
	static const struct {
		uint32_t mr;
		bool read, write;
	} rows[] = {
		{ 0, true, false }, { NIC_LOCAL_WRITE, true, true }, { NIC_REMOTE_READ, true, false }, { NIC_REMOTE_WRITE, true, true },
		{ NIC_READ_SINK, true, true },   /* which is local write */
	};
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);
	struct nic_mw *mw = new_window(rig);

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(rig_register(rig->mr, rig->memory, 0, 16, rows[i].mr, &done), 0);
		for (unsigned write = 0; write < 2; write++) {
			bool may = write ? rows[i].write : rows[i].read;
			int r = window_bind(rig, mw, qp, 0, 1, write ? WRITE : READ, &done, &err);

			if (!may) {
				assert_int_equal(err.reason, NICD_R_WINDOW_RIGHTS);
				assert_int_equal(r, -EACCES);
				continue;
			}
			assert_int_equal(r, 0);
			assert_ended(done);
			assert_int_equal(nic_mw_invalidate(mw, qp, 0, rig_done(&done), &err), 0);
			assert_ended(done);
		}
		assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	}
}

/* mutation: compare the PD of one of them only; look at the MR's or Qp's state before the PD; bind to an MR that is closing */
static void test_wrong_objects(void **state)
{
	struct rig_done done = { 0 }, closed = { 0 };
	struct nicd_error err;
	struct nic_pd *other;
	struct nic_mw *foreign;
	struct scene s;
	int r;

	scene_init(&s, *state);
	assert_int_equal(nic_pd_new(&other, &s.rig->owner, s.rig->adapter, &err), 0);
	assert_int_equal(nic_mw_new(&foreign, other, &err), 0);
	r = window_bind(s.rig, foreign, s.qp, 0, 1, READ, &done, &err);
	assert_refusal(r, err, PD_MISMATCH, 0, 0);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 1, READ, &done, &err), 0);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, READ, rig_done(&done), &err), -EINVAL);
	assert_int_equal(err.reason, NICD_R_OP_FLAGS);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&done), &err), 0);
	/* an MR that is not registered */
	assert_int_equal(nic_mr_deregister(s.rig->mr, rig_done(&done), &err), 0);
	r = window_bind(s.rig, s.mw, s.qp, 0, 1, READ, &done, &err);
	assert_refusal(r, err, MR_STATE, NIC_MR_REGISTERED, NIC_MR_CREATED);
	rig_registered(s.rig);
	/* a Qp that is not connected */
	assert_int_equal(nic_qp_disconnect(s.qp, rig_done(&done), &err), 0);
	r = window_bind(s.rig, s.mw, s.qp, 0, 1, READ, &done, &err);
	assert_refusal(r, err, QP_STATE, NIC_QP_CONNECTED, NIC_QP_DISCONNECTED);
	/* a PD that is closing */
	nic_pd_close(other, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	assert_int_equal(nic_mw_new(&foreign, other, &err), -EBADF);
	nic_mw_close((struct nic_mw *)TAILQ_FIRST(&s.rig->owner.objects[NIC_MW]), NULL);
	assert_ended(closed);
}

/* mutation: no cap, or one less */
static void test_many_on_one_qp(void **state)
{
	static struct nic_mw *windows[NICD_QP_WINDOWS + 1];
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct scene s;
	int r;

	scene_init(&s, *state);
	for (unsigned i = 0; i <= NICD_QP_WINDOWS; i++) {
		windows[i] = new_window(s.rig);
		r = window_bind(s.rig, windows[i], s.qp, i % 100, 1 + i % 1000, i % 2 ? READ : WRITE, &done, &err);
		if (i == NICD_QP_WINDOWS)
			break;
		assert_int_equal(r, 0);
		assert_int_equal(windows[i]->rights, i % 2 ? NIC_REMOTE_READ : NIC_REMOTE_WRITE);
	}
	assert_refusal(r, err, QP_WINDOWS, NICD_QP_WINDOWS, NICD_QP_WINDOWS + 1);
	assert_int_equal(nic_mw_invalidate(windows[7], s.qp, 0, rig_done(&done), &err), 0);
	assert_int_equal(window_bind(s.rig, windows[NICD_QP_WINDOWS], s.qp, 0, 1, READ, &done, &err), 0);
	/* all at once, by the MR's revocation */
	s.rig->owner.event = NULL;
	assert_int_equal(nic_revoke(&s.rig->nic, &s.rig->mr->object, rig_done(&s.ended), &err), 0);
	assert_ended(s.ended);
	for (unsigned i = 0; i <= NICD_QP_WINDOWS; i++)
		assert_int_equal(windows[i]->state, NIC_MW_FREE);
}

/* mutation: keep a charge, a window or the MR's tenants when memory fails, or the tag costs more than the account has */
static void test_nth_allocation(void **state)
{
	for (unsigned n = 1;; n++) {
		struct rig_done done = { 0 };
		struct nicd_error err;
		struct nic_mw *mw;
		struct scene s;
		bool failed;
		void *own;

		rig_setup(&own);
		scene_init(&s, own);
		s.rig->env.allocs = 0;
		s.rig->env.fail_at = n;
		s.rig->env.failed = false;
		if (nic_mw_new(&mw, s.rig->pd, &err) == 0) {
			if (window_bind(s.rig, mw, s.qp, 0, size, READ, &done, &err) == 0)
				assert_ended(done);
			else
				assert_int_equal(err.reason, NICD_R_NO_MEMORY);
		} else {
			assert_int_equal(err.reason, NICD_R_NO_MEMORY);
		}
		failed = s.rig->env.failed;
		s.rig->env.fail_at = 0;
		rig_teardown(&own);
		if (!failed)
			break;
		assert_true(n < 20);
	}
}

static void test_quota(void **state)
{
	struct nicd_error err;
	struct nic_mw *mw;
	struct scene s;
	int r;

	scene_init(&s, *state);
	s.rig->owner.account->limits.max[NIC_SLOT_MWS] = 1;
	/* mutation: charge windows as MRs */
	r = nic_mw_new(&mw, s.rig->pd, &err);
	assert_refusal(r, err, QUOTA, 1, 2);
	/* a device whose tags cost pinned bytes */
	s.rig->fake->tag_percent = 100;
	s.rig->owner.account->limits.max[NIC_SLOT_PINNED] = rig_used(s.rig, NIC_SLOT_PINNED) + 99;
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 100, READ, &s.bound, &err), -EDQUOT);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 99, READ, &s.bound, &err), 0);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 99, READ, &s.ended, &err), -EBUSY);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&s.ended), &err), 0);
	/* mutation: keep what was pinned for it */
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 99, READ, &s.bound, &err), 0);
}

/* ---- its MR */

/* mutation: deregister under a window; answer the close at once; kill the window for it */
static void test_mr_waits(void **state)
{
	struct rig_done closed = { 0 };
	struct nic_object *object;
	struct nicd_error err;
	uint64_t serial, id;
	struct scene s;
	int r;

	scene_bound(&s, *state);
	serial = s.rig->mr->object.serial;
	id = s.rig->mr->object.id;
	r = nic_mr_deregister(s.rig->mr, rig_done(&closed), &err);
	assert_refusal(r, err, WINDOW_BOUND, 0, 0);
	assert_int_equal(s.rig->mr->state, NIC_MR_REGISTERED);
	nic_mr_close(s.rig->mr, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	assert_int_equal(nic_owner_find(&s.rig->owner, id, NIC_MR, &object, &err), -EBADF);
	rig_later(s.rig, 100000);   /* nobody's fault: no deadline */
	assert_int_equal(s.rig->nic.quarantined, 0);
	assert_int_equal(s.rig->owner.n_closing, 0);
	assert_int_not_equal(fake_tag_token(s.rig->fake, serial), 0);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&s.ended), &err), 0);
	assert_ended(s.ended);
	assert_ended(closed);
	assert_null(nic_find(&s.rig->nic, NIC_MR, serial));
}

/* An admin ends it nevertheless, and its windows first. mutation: refuse it because it is closing */
static void test_revoke_of_waiting(void **state)
{
	struct rig_done closed = { 0 }, revoked = { 0 };
	struct nicd_error err;
	struct scene s;

	scene_bound(&s, *state);
	nic_mr_close(s.rig->mr, rig_done(&closed));
	assert_int_equal(nic_revoke(&s.rig->nic, &s.rig->mr->object, rig_done(&revoked), &err), 0);
	assert_ended(revoked);
	assert_ended(closed);
	assert_true(revoked.order < closed.order);
	assert_int_equal(s.mw->state, NIC_MW_FREE);
	assert_int_equal(rig_events(s.rig, NIC_EVENT_REVOKED, s.mw->object.serial), 1);
}

/* In each state of the window, all that stands on the MR goes before it. */
/* mutation: drop the MR's tag with a window still there; do not overtake an Invalidate; tell nobody */
static void test_revoke_mr_in_each_state(void **state)
{
	for (unsigned i = 0; i < NIC_MW_STATES; i++) {
		struct rig_done revoked = { 0 };
		struct nicd_error err;
		struct scene s;
		bool waits;
		void *own;

		rig_setup(&own);
		bring(&s, own, cells[i].state);
		waits = s.ended.calls == 0 && fake_pending(s.rig->fake, FAKE_OPS) > 0;
		assert_int_equal(nic_revoke(&s.rig->nic, &s.rig->mr->object, rig_done(&revoked), &err), 0);
		assert_int_equal(revoked.calls, !waits);
		/* what is ordered at the device is overtaken by a drop that is not */
		if (waits)
			assert_int_equal(s.rig->fake->drop_order.qp, 0);
		if (cells[i].state == NIC_MW_INVALIDATING) {
			fake_complete_newest(s.rig->fake, FAKE_TAG_DROP);
			assert_null(s.mw->tenants);
			fake_complete_newest(s.rig->fake, FAKE_TAG_DROP);   /* the MR's own */
			assert_ended(revoked);
			assert_int_equal(s.ended.calls, 0);
		}
		fake_hold(s.rig->fake, FAKE_OPS, false);
		fake_complete_all(s.rig->fake);
		assert_ended(revoked);
		assert_int_equal(s.mw->state, NIC_MW_FREE);
		assert_int_equal(rig_events(s.rig, NIC_EVENT_REVOKED, s.mw->object.serial), cells[i].state == NIC_MW_BOUND);
		if (cells[i].state == NIC_MW_BIND_PENDING)
			assert_refused(s.ended, REVOKED);
		else if (waits)
			assert_ended(s.ended);
		rig_teardown(&own);
	}
}

/* mutation: refuse the admin while a bind or an Invalidate waits for other work, and leave it waiting */
static void test_revoke_overtakes(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct rig_done revoked = { 0 };
		struct nicd_error err;
		struct scene s;
		void *own;

		rig_setup(&own);
		bring(&s, own, i ? NIC_MW_INVALIDATING : NIC_MW_BIND_PENDING);
		fake_hold(s.rig->fake, FAKE_TAG_DROP, true);
		assert_true(nic_revoke(&s.rig->nic, &s.mw->object, rig_done(&revoked), &err) < 0);
		assert_int_equal(err.reason, NICD_R_DEVICE_BUSY);
		assert_int_equal(fake_pending(s.rig->fake, FAKE_TAG_DROP), i ? 2 : 1);
		assert_int_equal(s.rig->fake->drop_order.qp, 0);
		fake_hold(s.rig->fake, FAKE_OPS, false);
		fake_complete_all(s.rig->fake);
		assert_int_equal(revoked.calls, 0);
		assert_int_equal(s.ended.calls, 1);
		assert_int_equal(s.ended.error.reason, i ? NICD_R_NONE : NICD_R_REVOKED);
		assert_int_equal(s.mw->state, NIC_MW_FREE);
		rig_teardown(&own);
	}
}

/* ---- its Qp */

/* mutation: leave a window BOUND when its Qp ends, or tell the owner nothing */
static void test_qp_ends_in_each_state(void **state)
{
	for (unsigned how = 0; how < 3; how++)
		for (unsigned i = 0; i < NIC_MW_STATES; i++) {
			struct rig_done gone = { 0 };
			struct nicd_error err;
			struct scene s;
			uint64_t serial;
			bool was;
			void *own;

			rig_setup(&own);
			bring(&s, own, cells[i].state);
			serial = s.mw->object.serial;
			was = cells[i].state == NIC_MW_BOUND;
			if (how == 0)
				fake_stream_close(s.rig->fake, s.qp->stream, NICD_R_PEER_CLOSED, NULL);
			else if (how == 1)
				assert_int_equal(nic_qp_disconnect(s.qp, rig_done(&gone), &err), 0);
			else
				nic_qp_close(s.qp, rig_done(&gone));
			fake_hold(s.rig->fake, FAKE_OPS, false);
			fake_complete_all(s.rig->fake);
			assert_int_equal(gone.calls, how > 0);
			assert_int_equal(s.mw->state, NIC_MW_FREE);
			assert_null(s.mw->qp);
			assert_null(s.mw->tenants);
			assert_int_equal(fake_tag_token(s.rig->fake, serial), 0);
			assert_int_equal(rig_events(s.rig, NIC_EVENT_REVOKED, serial), was);
			if (was)
				assert_int_equal(s.rig->events[how == 0 ? 0 : s.rig->n_events - 1].reason, NICD_R_QP_LOST);
			if (cells[i].state == NIC_MW_BIND_PENDING)
				assert_refused(s.ended, QP_LOST);
			assert_int_equal(nic_mr_deregister(s.rig->mr, rig_done(&gone), &err), 0);
			assert_ended(gone);
			rig_teardown(&own);
		}
}

/* A bind that its Qp's end, or Flush, took away. mutation: leave it a tenant of the MR */
static void test_flushed_bind(void **state)
{
	struct nicd_error err;
	struct scene s;

	scene_init(&s, *state);
	fake_hold(s.rig->fake, FAKE_TAG_ADD, true);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, size, READ, &s.bound, &err), 0);
	fake_complete_with(s.rig->fake, FAKE_TAG_ADD, NICD_R_FLUSHED);
	assert_refused(s.bound, FLUSHED);
	assert_int_equal(s.mw->state, NIC_MW_FREE);
	assert_null(s.mw->tenants);
}

/* ---- by the peer */

/* mutation: take another generation's, or one that is not bound; tell of it twice */
static void test_remotely_invalidated(void **state)
{
	const struct nic_provider_events *events;
	struct nicd_error err;
	struct scene s;
	uint32_t token;

	scene_bound(&s, *state);
	events = s.rig->fake->provider.events;
	events->tag_invalidated(s.rig->adapter, s.mw->object.serial, 2);
	assert_int_equal(s.mw->state, NIC_MW_BOUND);
	fake_tag_gone(s.rig->fake, s.mw->object.serial);
	for (unsigned i = 0; i < 2; i++) {
		events->tag_invalidated(s.rig->adapter, s.mw->object.serial, 1);
		assert_int_equal(s.mw->state, NIC_MW_FREE);
		assert_int_equal(rig_events(s.rig, NIC_EVENT_REMOTE_INVALIDATED, s.mw->object.serial), 1);
	}
	assert_int_equal(nic_mw_remote_token(s.mw, &token, &err), -EBUSY);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&s.ended), &err), -EBUSY);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 1, READ, &s.bound, &err), 0);
	assert_ended(s.bound);
	/* One that races the owner's own Invalidate is that one's. */
	fake_hold(s.rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&s.ended), &err), 0);
	events->tag_invalidated(s.rig->adapter, s.mw->object.serial, 2);
	fake_complete_all(s.rig->fake);
	assert_ended(s.ended);
	assert_int_equal(rig_events(s.rig, NIC_EVENT_REMOTE_INVALIDATED, s.mw->object.serial), 1);
}

/* ---- the end of everything */

/* mutation: in lost_order or release_order put MRs before windows, or forget these */
static void test_lost_in_each_state(void **state)
{
	for (unsigned first = 0; first < 2; first++)
		for (unsigned i = 0; i < NIC_MW_STATES; i++) {
			struct scene s;
			void *own;

			rig_setup(&own);
			bring(&s, own, cells[i].state);
			fake_lose(s.rig->fake, first);
			assert_int_equal(s.mw->state, NIC_MW_FREE);
			assert_int_equal(s.rig->mr->state, NIC_MR_CREATED);
			assert_int_equal(rig_events(s.rig, NIC_EVENT_REVOKED, s.mw->object.serial), cells[i].state == NIC_MW_BOUND);
			assert_int_equal(s.rig->nic.quarantined, 0);
			rig_teardown(&own);
		}
}

static void test_release_in_each_state(void **state)
{
	for (unsigned budget = 1; budget < 4; budget++)
		for (unsigned i = 0; i < NIC_MW_STATES; i++) {
			struct scene s;
			void *own;

			rig_setup(&own);
			bring(&s, own, cells[i].state);
			while (nic_owner_release(&s.rig->owner, budget))
				;
			fake_hold(s.rig->fake, FAKE_OPS, false);
			fake_complete_all(s.rig->fake);
			assert_int_equal(s.rig->owner.n_objects, 0);
			assert_int_equal(s.rig->n_events, 0);
			rig_teardown(&own);
		}
}

/* So many MRs that wait for windows when their session ends are in nobody's way. */
/* mutation: count an MR that waits for its window as one that the device is to end: the release waits for itself */
static void test_release_of_waiting(void **state)
{
	enum { N = NIC_OWNER_CLOSING + 100 };
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	for (unsigned i = 0; i < N; i++) {
		struct nic_mr *mr = rig_mr(rig);
		struct nic_bind what = { .mr = &mr->object, .qp = qp, .iova = base, .length = 1, .flags = READ };

		assert_int_equal(rig_register(mr, rig->memory, 0, 1, 0, &done), 0);
		assert_int_equal(nic_mw_bind(new_window(rig), &what, rig_done(&done), &err), 0);
		nic_mr_close(mr, NULL);
	}
	assert_int_equal(rig->owner.n_closing, 0);
	while (nic_owner_release(&rig->owner, 64))
		;
	assert_int_equal(rig->owner.n_objects, 0);
}

/* ---- a device that refuses, or does not answer */

/* mutation: give the deadline no second try, or answer a close before the device has */
static void test_refused_drop(void **state)
{
	struct rig_done closed = { 0 }, revoked = { 0 };
	struct nicd_error err;
	struct scene s;

	scene_bound(&s, *state);
	fake_fail(s.rig->fake, FAKE_TAG_DROP, 0, 2, NICD_R_DEVICE_BUSY);
	nic_mw_close(s.mw, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	rig_later(s.rig, 6000);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(s.rig->nic.quarantined, 1);
	rig_later(s.rig, 6000);
	assert_ended(closed);
	assert_int_equal(s.rig->nic.quarantined, 0);
	/* and the admin's, which is answered in time */
	s.mw = new_window(s.rig);
	assert_int_equal(window_bind(s.rig, s.mw, s.qp, 0, 1, READ, &s.bound, &err), 0);
	fake_hold(s.rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_revoke(&s.rig->nic, &s.mw->object, rig_done(&revoked), &err), 0);
	rig_later(s.rig, 6000);
	assert_refused(revoked, REVOKE_UNCONFIRMED);
	assert_int_equal(s.rig->nic.quarantined, 1);
	fake_complete_all(s.rig->fake);
	assert_int_equal(s.rig->nic.quarantined, 0);
	assert_int_equal(rig_events(s.rig, NIC_EVENT_REVOKE_CONFIRMED, s.mw->object.serial), 1);
	assert_int_equal(s.mw->state, NIC_MW_FREE);
}

/* What is ordered may wait for long, and is nobody's fault. mutation: arm the deadline for it */
static void test_ordered_has_no_deadline(void **state)
{
	struct nicd_error err;
	struct scene s;

	scene_bound(&s, *state);
	fake_hold(s.rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&s.ended), &err), 0);
	rig_later(s.rig, 1000000);
	assert_int_equal(s.ended.calls, 0);
	assert_int_equal(s.rig->nic.quarantined, 0);
	fake_complete_all(s.rig->fake);
	assert_ended(s.ended);
	assert_int_equal(s.mw->streams_cut, 0);
}

static unsigned bound_left(struct rig *rig)
{
	struct nic_object *object = NULL;
	uint64_t serial = 0;
	unsigned n = 0;

	for (; (object = nic_next(&rig->nic, NIC_MW, serial)); serial = object->serial)
		n += ((struct nic_mw *)object)->state == NIC_MW_BOUND;
	return n;
}

/* mutation: count a Qp as one in the turns of a door that is shut, or of a device that is lost */
static void test_windows_weigh(void **state)
{
	enum { QPS = 60, EACH = 40, AT_ONCE = 2, PER_TICK = 7, LOST_AT_ONCE = 25 };

	for (unsigned lost = 0; lost < 2; lost++) {
		struct rig_done done = { 0 };
		struct nic_export *door;
		struct nicd_error err;
		struct rig *rig;
		void *own;

		rig_setup(&own);
		rig = own;
		rig_registered(rig);
		rig->owner.event = NULL;
		door = rig_ticket(rig, rig->mr, QPS, &done);
		for (unsigned i = 0; i < QPS; i++) {
			struct nic_qp *qp;

			door->max_streams = QPS;
			fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
			qp = TAILQ_FIRST(&door->qps);
			for (struct nic_qp *next = qp; next; next = TAILQ_NEXT(next, of_door))
				qp = next;
			for (unsigned j = 0; j < EACH; j++)
				assert_int_equal(window_bind(rig, new_window(rig), qp, 0, size, READ, &done, &err), 0);
		}
		rig->fake->silent_cut = true;
		if (lost)
			fake_lose(rig->fake, true);
		else
			nic_door_close(door, NULL);
		assert_int_equal(bound_left(rig), (QPS - (lost ? LOST_AT_ONCE : AT_ONCE)) * EACH);
		nic_tick(&rig->nic);
		assert_int_equal(bound_left(rig), (QPS - (lost ? LOST_AT_ONCE : AT_ONCE) - PER_TICK) * EACH);
		while (nic_next_deadline(&rig->nic) == 0)
			nic_tick(&rig->nic);
		assert_int_equal(bound_left(rig), 0);
		rig_teardown(&own);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cells),
		cmocka_unit_test(test_close_in_each_state),
		rig_test(test_tag),
		rig_test(test_bad_input),
		rig_test(test_rights_of_the_mr),
		rig_test(test_wrong_objects),
		rig_test(test_many_on_one_qp),
		cmocka_unit_test(test_nth_allocation),
		rig_test(test_quota),
		rig_test(test_mr_waits),
		rig_test(test_revoke_of_waiting),
		cmocka_unit_test(test_revoke_mr_in_each_state),
		cmocka_unit_test(test_revoke_overtakes),
		cmocka_unit_test(test_qp_ends_in_each_state),
		rig_test(test_flushed_bind),
		rig_test(test_remotely_invalidated),
		cmocka_unit_test(test_lost_in_each_state),
		cmocka_unit_test(test_release_in_each_state),
		rig_test(test_release_of_waiting),
		rig_test(test_refused_drop),
		rig_test(test_ordered_has_no_deadline),
		cmocka_unit_test(test_windows_weigh),
	};

	return cmocka_run_group_tests_name("mw", tests, NULL, NULL);
}
