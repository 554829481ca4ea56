/* SPDX-License-Identifier: MIT */
/*
 * The rules of NDK's object lifetimes, for every kind of object and every kind of operation together: a close cannot fail, takes the name at once,
 * and is answered last; an antecedent may be closed first, and is answered after its successors; every
 * request is answered once, inline or later, whatever the device says and in whichever order; any of it may be called from inside a callback.
 *
 * Each case makes one of everything, begins one operation, closes all in some order, and lets the device end what it has in some order.
 */
#include "tests/unit/nic/rig.h"

#include <string.h>

#include "nicd/mw.h"
#include "nicd/op.h"
#include "nicd/region.h"

enum operation { REGISTER, DEREGISTER, INITIALIZE, FAST_REGISTER, INVALIDATE_MR, BIND, INVALIDATE_MW, TRANSFER, RECEIVE, FLUSH, CONNECT, OPERATIONS };
/* What is closed, antecedents first. OTHER: an MR that is not registered, or the Qp that is connecting. */
enum thing { PD, MEMORY, QP, MR, FAST, WINDOW, OTHER, THINGS };
enum device { INLINE, OLDEST_FIRST, NEWEST_FIRST, REFUSES, LOST, DEVICES };

struct watch {
	struct nic_done done;
	struct scene *scene;
	enum thing thing;
	bool is_close;
	unsigned calls, order;
};

struct scene {
	struct rig *rig;
	struct nic_qp *qp, *other_qp;
	struct nic_mr *other;
	struct nic_frmr *frmr;
	struct nic_mw *mw;
	struct nic_work work;
	struct watch begun, closed[THINGS];
	unsigned order;
	unsigned shuffle;
	bool close_in_callback, closing;
};

static void close_all(struct scene *s);

/* What the operation is about, and so what is answered after it. */
static enum thing subject(enum operation op)
{
	static const enum thing things[OPERATIONS] = {
		[REGISTER] = OTHER, [DEREGISTER] = MR, [INITIALIZE] = FAST, [FAST_REGISTER] = FAST, [INVALIDATE_MR] = FAST, [BIND] = WINDOW,
		[INVALIDATE_MW] = WINDOW, [TRANSFER] = QP, [RECEIVE] = QP, [FLUSH] = QP, [CONNECT] = OTHER,
	};

	return things[op];
}

static void on_done(struct nic_done *done, const struct nicd_error *error)
{
	struct watch *watch = (struct watch *)done;
	struct scene *s = watch->scene;

	watch->calls++;
	watch->order = ++s->order;
	if (!watch->is_close) {
		if (s->close_in_callback)
			close_all(s);
		return;
	}
	assert_int_equal(error->reason, NICD_R_NONE);
}

static struct nic_done *watch(struct scene *s, struct watch *watch, enum thing thing, bool is_close)
{
	*watch = (struct watch){ .done.fn = on_done, .scene = s, .thing = thing, .is_close = is_close };
	return &watch->done;
}

/* ---- the scene */

static int fast_register(struct scene *s, struct nic_done *done, struct nicd_error *err)
{
	struct nic_range range = { s->rig->memory, 0, 2 * RIG_PAGE };
	struct nic_fast_register what = {
		.ranges = &range, .n_ranges = 1, .length = 2 * RIG_PAGE, .iova = 0x7000000, .flags = NIC_OP_REMOTE_READ,
	};

	return nic_frmr_register(s->frmr, s->qp, &what, done, err);
}

static int bind_window(struct scene *s, struct nic_done *done, struct nicd_error *err)
{
	struct nic_bind what = { .mr = &s->rig->mr->object, .qp = s->qp, .iova = 0x7000000, .length = RIG_PAGE, .flags = NIC_OP_REMOTE_READ };

	return nic_mw_bind(s->mw, &what, done, err);
}

static void prepare(struct scene *s, enum operation op)
{
	struct rig_done done = { 0 };
	struct nicd_error err;

	rig_registered(s->rig);
	s->qp = rig_connect(s->rig, &done);
	assert_int_equal(nic_frmr_new(&s->frmr, s->rig->pd, &err), 0);
	assert_int_equal(nic_mw_new(&s->mw, s->rig->pd, &err), 0);
	if (op != CONNECT)
		s->other = rig_mr(s->rig);
	if (op == FAST_REGISTER || op == INVALIDATE_MR)
		assert_int_equal(nic_frmr_initialize(s->frmr, 8, true, rig_done(&done), &err), 0);
	if (op == INVALIDATE_MR)
		assert_int_equal(fast_register(s, rig_done(&done), &err), 0);
	if (op != BIND && op != DEREGISTER)
		assert_int_equal(bind_window(s, rig_done(&done), &err), 0);
}

static int post(struct scene *s, enum nic_operation operation, struct nic_done *done, struct nicd_error *err)
{
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { [24] = 100 };

	return nic_qp_post(s->qp, &(struct nic_request){ .operation = operation, .entries = entry, .len = sizeof(entry) }, &s->work, done, err);
}

static int begin(struct scene *s, enum operation op, struct nicd_error *err)
{
	struct nic_done *done = watch(s, &s->begun, subject(op), false);
	struct nic_connect_terms terms = { .ticket = "0123456789abcde", .timeout_ms = 1000 };
	struct nic_range range = { s->rig->memory, 0, RIG_PAGE };
	struct nic_register what = { .ranges = &range, .n_ranges = 1, .iova = 0x7000000, .flags = NIC_REMOTE_READ };

	switch (op) {
	case REGISTER:
		return nic_mr_register(s->other, &what, done, err);
	case DEREGISTER:
		return nic_mr_deregister(s->rig->mr, done, err);
	case INITIALIZE:
		return nic_frmr_initialize(s->frmr, 8, true, done, err);
	case FAST_REGISTER:
		return fast_register(s, done, err);
	case INVALIDATE_MR:
		return nic_frmr_invalidate(s->frmr, s->qp, 0, done, err);
	case BIND:
		return bind_window(s, done, err);
	case INVALIDATE_MW:
		return nic_mw_invalidate(s->mw, s->qp, 0, done, err);
	case TRANSFER:
		return post(s, NIC_WRITE, done, err);
	case RECEIVE:
		return post(s, NIC_RECEIVE, done, err);
	case FLUSH:
		return nic_qp_flush(s->qp, &s->work, done, err);
	case CONNECT:
		return nic_qp_connect(&s->other_qp, s->rig->pd, &terms, done, err);
	case OPERATIONS:
	default:
		return -1;
	}
}

/* ---- closing */

static struct nic_object *object_of(struct scene *s, enum thing thing)
{
	struct nic_object *objects[THINGS] = {
		[PD] = &s->rig->pd->object, [MEMORY] = &s->rig->memory->object, [QP] = &s->qp->object, [MR] = &s->rig->mr->object,
		[FAST] = &s->frmr->object, [WINDOW] = &s->mw->object, [OTHER] = s->other ? &s->other->object : &s->other_qp->object,
	};

	return objects[thing];
}

static void close_it(struct scene *s, enum thing thing)
{
	struct nic_done *done = watch(s, &s->closed[thing], thing, true);
	struct nic_object *object = object_of(s, thing), *found;
	struct nic_owner *owner = &s->rig->owner;
	uint64_t id = object->id;
	struct nicd_error err;

	if (thing == PD)
		nic_pd_close(s->rig->pd, done);
	else if (thing == MEMORY)
		nic_memory_close(s->rig->memory, done);
	else if (thing == QP || (thing == OTHER && !s->other))
		nic_qp_close((struct nic_qp *)object, done);
	else if (thing == WINDOW)
		nic_mw_close(s->mw, done);
	else
		nic_region_close(object, done);
	/* mutation: take the name only when the close ends */
	assert_int_equal(nic_owner_find(owner, id, NIC_NONE, &found, &err), -nicd_reason_info(NICD_R_HANDLE)->err);
}

/* 0: antecedents first; 1: successors first; else in some order. */
static void close_all(struct scene *s)
{
	enum thing things[THINGS];
	unsigned seed = s->shuffle;

	if (s->closing)
		return;
	s->closing = true;
	for (unsigned i = 0; i < THINGS; i++)
		things[i] = s->shuffle == 1 ? THINGS - 1 - i : i;
	for (unsigned i = THINGS - 1; s->shuffle > 1 && i > 0; i--) {
		enum thing thing = things[i];
		unsigned j;

		seed = seed * 1103515245 + 12345;
		j = seed / 65536 % (i + 1);
		things[i] = things[j];
		things[j] = thing;
	}
	for (unsigned i = 0; i < THINGS; i++)
		close_it(s, things[i]);
}

/* ---- the device */

static void drain(struct scene *s, enum device device)
{
	struct fake *fake = s->rig->fake;
	bool more = true;

	if (device == LOST)
		fake_lose(fake, s->shuffle % 2);
	for (enum fake_op op = 0; op < FAKE_OPS && device == REFUSES; op++)
		fake_fail(fake, op, 0, 2, NICD_R_DEVICE_FAILED);
	for (unsigned turn = 0; turn < 20; turn++) {
		while (more)
			more = device == NEWEST_FIRST ? fake_complete_newest(fake, FAKE_OPS) : fake_complete(fake, FAKE_OPS);
		more = true;
		rig_later(s->rig, 10000);   /* what was refused is tried again */
	}
}

static void play(struct rig *rig, enum operation op, enum device device, unsigned shuffle, bool in_callback)
{
	struct scene s = { .rig = rig, .shuffle = shuffle, .close_in_callback = in_callback };
	struct nicd_error err;

	prepare(&s, op);
	fake_hold(rig->fake, FAKE_OPS, device != INLINE);
	assert_int_equal(begin(&s, op, &err), 0);
	assert_int_equal(s.begun.calls, device == INLINE);
	if (!in_callback)
		close_all(&s);
	drain(&s, device);
	assert_true(s.closing);
	/* mutation: answer twice, or never: leave out any nic_done_steal, or any nic_done_end */
	assert_int_equal(s.begun.calls, 1);
	for (unsigned i = 0; i < THINGS; i++)
		assert_int_equal(s.closed[i].calls, 1);
	/* mutation: answer a close before what was under way, or an antecedent's before its successors' */
	assert_true(s.closed[s.begun.thing].order > s.begun.order);
	for (unsigned i = MEMORY + 1; i < THINGS; i++)
		assert_true(s.closed[PD].order > s.closed[i].order);
	/* A Memory waits for what is registered, and not for the MR. */
	assert_true(op == DEREGISTER || device == LOST || s.closed[MEMORY].order > s.closed[MR].order);
	assert_int_equal(rig->owner.n_objects, 0);
}

/* ---- tests */

static void test_close_with_work_in_flight(void **state)
{
	for (enum operation op = 0; op < OPERATIONS; op++)
		for (enum device device = 0; device < DEVICES; device++)
			for (unsigned shuffle = 0; shuffle < 12; shuffle++) {
				void *own;

				rig_setup(&own);
				play(own, op, device, shuffle, false);
				rig_teardown(&own);
			}
}

/* mutation: touch what was answered after its callback */
static void test_close_inside_the_callback(void **state)
{
	for (enum operation op = 0; op < OPERATIONS; op++)
		for (enum device device = 0; device < DEVICES; device++)
			for (unsigned shuffle = 0; shuffle < 6; shuffle++) {
				void *own;

				/* Of what connects inline, the caller does not know the Qp yet when it is told. */
				if (op == CONNECT && (device == INLINE || device == REFUSES || device == LOST))
					continue;
				rig_setup(&own);
				play(own, op, device, shuffle, true);
				rig_teardown(&own);
			}
}

/* The session ends instead. */
/* mutation: call back for an operation of a dying owner twice, or never */
static void test_release_with_work_in_flight(void **state)
{
	for (enum operation op = 0; op < OPERATIONS; op++)
		for (enum device device = OLDEST_FIRST; device < DEVICES; device++) {
			struct scene s = { 0 };
			struct nicd_error err;
			void *own;

			rig_setup(&own);
			s.rig = own;
			prepare(&s, op);
			fake_hold(s.rig->fake, FAKE_OPS, true);
			assert_int_equal(begin(&s, op, &err), 0);
			while (nic_owner_release(&s.rig->owner, 2))
				;
			assert_int_equal(s.begun.calls, 0);
			drain(&s, device);
			assert_int_equal(s.begun.calls, 1);
			assert_int_equal(s.rig->owner.n_objects, 0);
			assert_int_equal(s.rig->n_empty, 1);
			rig_teardown(&own);
		}
}

/* Closing a PD is nothing but a dereference: what is in it works on. */
/* mutation: end, revoke or refuse anything because its PD is closing */
static void test_closed_pd_kills_nothing(void **state)
{
	static struct rig_done closed;   /* called when the rig is taken down */
	struct rig_done done = { 0 };
	struct scene s = { .rig = *state };
	struct nicd_error err;

	prepare(&s, FAST_REGISTER);
	nic_pd_close(s.rig->pd, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	assert_int_equal(fast_register(&s, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(bind_window(&s, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(post(&s, NIC_WRITE, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(nic_frmr_invalidate(s.frmr, s.qp, 0, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(closed.calls, 0);
	s.rig->pd = NULL;
}

/* An MR that is closed under a window ends with it: unbinding is enough, whoever does that. */
/* mutation: close the MR at once, or only when the window is closed */
static void test_close_of_mr_waits_for_window(void **state)
{
	struct rig_done closed = { 0 }, done = { 0 };
	struct scene s = { .rig = *state };
	struct nicd_error err;

	prepare(&s, TRANSFER);
	fake_hold(s.rig->fake, FAKE_OPS, true);
	assert_int_equal(nic_mr_deregister(s.rig->mr, rig_done(&done), &err), -nicd_reason_info(NICD_R_WINDOW_BOUND)->err);
	nic_mr_close(s.rig->mr, rig_done(&closed));
	assert_int_equal(fake_pending(s.rig->fake, FAKE_OPS), 0);
	rig_later(s.rig, 100000);
	assert_int_equal(closed.calls, 0);
	assert_int_equal(s.rig->nic.quarantined, 0);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&done), &err), 0);
	assert_int_equal(closed.calls, 0);
	fake_complete_all(s.rig->fake);
	assert_ended(done);
	assert_ended(closed);
	assert_true(closed.order > done.order);
	assert_int_equal(s.mw->state, NIC_MW_FREE);
	s.rig->mr = NULL;
}

/* ---- refused here, and done there */

/* mutation: in mw_rushed only leave the MR: the close, with nothing under way, never ends */
static void test_refused_beside_a_rush(void **state)
{
	struct rig_done done = { 0 }, closed = { 0 };
	struct scene s = { .rig = *state };
	struct nicd_error err;

	prepare(&s, TRANSFER);
	fake_hold(s.rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_mw_invalidate(s.mw, s.qp, 0, rig_done(&done), &err), 0);
	nic_mw_close(s.mw, rig_done(&closed));
	assert_int_equal(fake_pending(s.rig->fake, FAKE_TAG_DROP), 2);
	assert_true(fake_complete_with(s.rig->fake, FAKE_TAG_DROP, NICD_R_DEVICE_BUSY));
	assert_refused(done, DEVICE_FAILED);
	assert_int_equal(closed.calls, 0);
	assert_true(fake_complete(s.rig->fake, FAKE_TAG_DROP));
	assert_ended(closed);
}

/* mutation: keep the order of a drop that the device has refused: the close overtakes what is not under way, and its Qp is held for ever */
static void test_close_after_a_refused_promise(void **state)
{
	struct rig_done done = { 0 }, closed = { 0 }, qp_closed = { 0 };
	struct scene s = { .rig = *state };
	struct nicd_error err;

	prepare(&s, INVALIDATE_MR);
	fake_hold(s.rig->fake, FAKE_TAG_DROP, true);
	assert_int_equal(nic_frmr_invalidate(s.frmr, s.qp, 0, rig_done(&done), &err), 0);
	rig_later(s.rig, 10000);
	assert_refused(done, REVOKE_UNCONFIRMED);
	assert_true(fake_complete_with(s.rig->fake, FAKE_TAG_DROP, NICD_R_DEVICE_BUSY));
	nic_region_close(&s.frmr->object, rig_done(&closed));
	nic_qp_close(s.qp, rig_done(&qp_closed));
	fake_hold(s.rig->fake, FAKE_TAG_DROP, false);
	drain(&s, OLDEST_FIRST);
	assert_ended(closed);
	assert_ended(qp_closed);
}

/* The device's answer to a bind is late, and a peer has used and invalidated the window meanwhile. */
/* mutation: forget it: the window is BOUND for ever, by a token that the device does not know */
static void test_invalidated_before_the_answer(void **state)
{
	struct rig_done done = { 0 };
	struct scene s = { .rig = *state };
	struct nic_provider *provider = &s.rig->fake->provider;
	struct nicd_error err;

	prepare(&s, BIND);
	fake_hold(s.rig->fake, FAKE_TAG_ADD, true);
	assert_int_equal(bind_window(&s, rig_done(&done), &err), 0);
	provider->events->tag_invalidated(provider->adapter, s.mw->object.serial, s.mw->generation);
	assert_int_equal(s.mw->state, NIC_MW_BIND_PENDING);
	fake_complete_all(s.rig->fake);
	assert_refused(done, REMOTELY_INVALIDATED);
	assert_int_equal(s.mw->state, NIC_MW_FREE);
	fake_tag_gone(s.rig->fake, s.mw->object.serial);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_close_with_work_in_flight),
		cmocka_unit_test(test_close_inside_the_callback),
		cmocka_unit_test(test_release_with_work_in_flight),
		rig_test(test_closed_pd_kills_nothing),
		rig_test(test_close_of_mr_waits_for_window),
		rig_test(test_refused_beside_a_rush),
		rig_test(test_close_after_a_refused_promise),
		rig_test(test_invalidated_before_the_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
