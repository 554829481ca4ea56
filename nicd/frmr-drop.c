/* SPDX-License-Identifier: MIT */
/*
 * How what a fast-register MR has at the device goes away again. All who ask for it go the same way:
 *
 *   frmr_drop_start -> tenants ended -> frmr_drop -> frmr_dropped -> frmr_confirmed (-> frmr_release, when it is closing)
 *
 * A drop that waits for its turn in a stream is overtaken by a close or a revocation: they go on with an op of their own, and the old one
 * is an orphan, which only holds its Qp until the device answers. Beside a registration that waits so they send a drop that waits for
 * nobody, by an op of its own, the hurry: then it fails. Has it come to something after all, then its tag is dropped once more.
 */
#include "nicd/frmr-private.h"
#include "nicd/op.h"

static void frmr_hurried(struct nic_cmd *cmd);

/* ---- the drop */

static void frmr_confirmed(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;
	bool promised = op->revocation.promised, closing = frmr->closing;
	struct frmr_users users;

	if (op->done || op->closed || !frmr->object.owner->dying)   /* an owner that is dying hears nothing */
		op->receipt.at_ns = op->nic->env->wall(op->nic->env);
	nic_revocation_end(op->nic, &op->revocation);
	op->revocation.promised = false;
	frmr_set_free(frmr, NIC_STEP_DONE, &users);
	if (!closing)
		frmr_op_steal(frmr);
	if (promised)
		nic_object_emit(&frmr->object, NIC_EVENT_REVOKE_CONFIRMED, frmr->object.serial, NULL);
	else
		frmr_op_tell(op, nic_done_steal(&op->done), NULL);
	if (closing) {
		frmr_op_leave_qp(op);
		frmr_release(frmr);
	} else {
		frmr_op_end(op);
	}
	frmr_users_let_go(&users);
}

/* The device refused. Whoever waits for it may try again; when only the close, an eviction or a promise is left, the deadline does. */
static void frmr_not_dropped(struct nic_frmr *frmr, const struct nicd_error *cause)
{
	struct nic_frmr_op *op = frmr->op;
	struct nicd_error error = nic_revocation_refused(cause);

	if (frmr->closing || frmr->evicted || op->revocation.promised) {
		op->order = (struct nic_order){ 0 };   /* nothing is under way that a close would have to overtake */
		nic_revocation_keep(op->nic, &op->revocation);
		frmr_op_tell(op, nic_done_steal(&op->done), &error);
		frmr_op_leave_qp(op);
		return;
	}
	frmr_step(frmr, NIC_STEP_FAILED);
	nic_revocation_end(op->nic, &op->revocation);   /* it has answered, after all */
	frmr_op_steal(frmr);
	frmr_op_tell(op, op->done, &error);
	frmr_op_end(op);
}

static void frmr_dropped(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = frmr_op_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (!op->frmr) {   /* overtaken */
		frmr_op_end(op);
	} else if (nic_cmd_gone(cmd)) {
		op->receipt.streams_cut += error.reason == NICD_R_NONE ? cmd->dropped.streams_cut : 0;
		frmr_confirmed(op->frmr);
	} else {
		frmr_not_dropped(op->frmr, &error);
	}
}

/* One after the other: a drop of the same tag goes on with this one. */
static void frmr_drop(struct nic_frmr *frmr)
{
	if (frmr->hurry && frmr->hurry->generation == frmr->generation) {
		frmr->op->revocation.retry = true;
		return;
	}
	nic_cmd_begin(&frmr->op->cmd, frmr_dropped);
	nic_adapter_tag_drop(frmr->pd->adapter, frmr->object.serial, frmr->generation, &frmr->op->order, &frmr->op->cmd);
}

static void frmr_again(struct nic_frmr *frmr)
{
	if (frmr->state == NIC_FAST_INVALIDATING)
		frmr_drop(frmr);
	else
		frmr_release(frmr);
}

/* ---- the drop beside a registration */

/* True: its tag may be waiting for other work. */
static bool is_queued(const struct nic_frmr *frmr)
{
	return frmr->state == NIC_FAST_VALID_PENDING && frmr->op->n_attached == frmr->n_ranges;
}

/* The tag that waits is not added any more. */
static void frmr_hurry(struct nic_frmr *frmr, struct nic_frmr_op *op)
{
	frmr->hurry = op;
	op->generation = frmr->generation;
	nic_cmd_begin(&op->cmd, frmr_hurried);
	nic_adapter_tag_drop(frmr->pd->adapter, frmr->object.serial, frmr->generation, NULL, &op->cmd);
}

/* What it says does not count; whatever stands behind it goes on. */
static void frmr_hurried(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = frmr_op_of(cmd, cmd);
	struct nic_frmr *frmr = op->frmr;

	if (op->generation != frmr->generation && is_queued(frmr) && (frmr->closing || frmr->evicted)) {
		frmr_hurry(frmr, op);   /* it was a former registration's, and this one is to go, too */
		return;
	}
	if (op->generation == frmr->generation && frmr->state == NIC_FAST_INVALIDATING && cmd->error.reason == NICD_R_NONE)
		frmr->op->receipt.streams_cut += cmd->dropped.streams_cut;
	frmr->hurry = NULL;
	frmr_op_end(op);
	if (frmr->op && nic_revocation_hurry(&frmr->op->revocation))
		frmr_again(frmr);
}

/* What it waits for from now on is the device. */
static void frmr_wait_no_more(struct nic_frmr *frmr)
{
	frmr->op->waits = false;
	nic_object_wait(&frmr->object, false);
	nic_revocation_begin(frmr_nic(frmr), &frmr->op->revocation);
}

/* Nothing stands on it any more. */
static void frmr_left(struct nic_object *object)
{
	struct nic_frmr *frmr = (struct nic_frmr *)object;

	if (frmr->op->waits)
		frmr_wait_no_more(frmr);
	frmr_drop(frmr);
}

int nic_frmr_expect(struct nic_frmr *frmr, struct nicd_error *err)
{
	return nic_tenants_expect(&frmr->tenants, &frmr->object, frmr_left, false, err);
}

void frmr_drop_start(struct nic_frmr *frmr, enum nic_life_step step, bool waits, const struct frmr_news *news)
{
	frmr_step(frmr, step);
	assert(frmr->state == NIC_FAST_INVALIDATING);
	frmr->valid = (struct nic_frmr_tokens){ 0 };
	frmr->op->waits = waits;
	if (!waits)
		nic_revocation_begin(frmr_nic(frmr), &frmr->op->revocation);
	if (news)
		nic_object_emit(&frmr->object, news->event, frmr->object.serial, news->why);
	if (frmr->tenants)
		nic_tenants_end(frmr->tenants, !waits, &frmr->op->receipt);
	else
		frmr_drop(frmr);
}

int nic_frmr_invalidate(struct nic_frmr *frmr, struct nic_qp *qp, uint32_t flags, struct nic_done *done, struct nicd_error *err)
{
	uint32_t none;
	int r = frmr_check(frmr, NIC_STEP_INVALIDATE, err);

	if (r == 0)
		r = nic_op_rights(NIC_OP_INVALIDATE, flags, &none, err);
	if (r == 0)
		r = nic_tenants_check(frmr->tenants, err);
	if (r == 0)
		r = nic_qp_begin_work(qp, frmr->pd, err);
	if (r < 0)
		return r;
	r = frmr_op_begin(frmr, err);
	if (r < 0) {
		nic_qp_end_work(qp);
		return r;
	}
	frmr->op->done = done;
	frmr->op->qp = qp;
	frmr->op->order = (struct nic_order){ qp->stream, flags & NIC_OP_READ_FENCE };
	frmr_drop_start(frmr, NIC_STEP_INVALIDATE, false, NULL);
	return 0;
}

/* ---- what waits for nothing */

/* True: its drop may be waiting for other work. */
static bool is_ordered(const struct nic_frmr *frmr)
{
	return frmr->state == NIC_FAST_INVALIDATING && frmr->op->order.qp;
}

/* The drop under way goes on with `op`, out of order; what it was is an orphan from now on. */
static void frmr_overtake(struct nic_frmr *frmr, struct nic_frmr_op *op)
{
	struct nic_frmr_op *old = frmr->op;

	op->done = nic_done_steal(&old->done);
	nic_revocation_move(op->nic, &op->revocation, &old->revocation);
	old->frmr = NULL;
	frmr->op = op;
}

/* Not confirmed in time. An answer is owed by now to whoever asked; a refused drop is asked for again. */
void frmr_deadline(struct nic_deadline *deadline)
{
	struct nic_frmr_op *op = frmr_op_of(deadline, revocation.deadline);
	struct nic_frmr *frmr = op->frmr;
	struct nic_done *done = nic_done_steal(&op->done);
	bool drops = frmr->state == NIC_FAST_INVALIDATING;
	struct nicd_error error;

	if (drops)
		nic_revocation_late(op->nic, &op->revocation);
	if (done) {
		error = nic_revocation_promise(&op->revocation);
		frmr_op_tell(op, done, &error);
	} else if (nic_revocation_again(op->nic, &op->revocation)) {
		frmr_again(frmr);
	}
}

/* Whoever asked for the registration is answered with it. */
static int frmr_evict(struct nic_frmr *frmr, struct nicd_error *err)
{
	struct nic_frmr_op *op;

	if (is_queued(frmr) && !frmr->hurry) {
		op = frmr_op_new(frmr, err);
		if (!op)
			return -ENOMEM;
		frmr_hurry(frmr, op);
	}
	frmr->evicted = true;
	return nicd_refuse(err, NICD_R_DEVICE_BUSY);
}

int nic_frmr_revoke(struct nic_frmr *frmr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	const struct frmr_news news = { NIC_EVENT_REVOKED, why };
	bool overtakes = !frmr->closing && is_ordered(frmr);
	struct nic_frmr_op *op;
	int r;

	if (frmr->closing && frmr->op && frmr->op->waits) {   /* closed by its owner, who has left windows behind */
		frmr->op->done = done;
		frmr_wait_no_more(frmr);
		nic_tenants_end(frmr->tenants, true, &frmr->op->receipt);
		return 0;
	}
	if (!frmr->closing && frmr->state == NIC_FAST_VALID_PENDING)
		return frmr_evict(frmr, err);
	/* Whoever asked for that one is answered with it. */
	if (overtakes) {
		op = frmr_op_new(frmr, err);
		if (!op)
			return -ENOMEM;
		frmr_overtake(frmr, op);
		frmr_drop(frmr);
		return nicd_refuse(err, NICD_R_DEVICE_BUSY);
	}
	r = frmr_check(frmr, NIC_STEP_INVALIDATE, err);
	if (r == 0)
		r = frmr_op_begin(frmr, err);
	if (r < 0)
		return r;
	frmr->op->done = done;
	frmr_drop_start(frmr, NIC_STEP_INVALIDATE, false, why ? &news : NULL);
	return 0;
}

void nic_frmr_invalidated(struct nic_frmr *frmr, uint32_t generation)
{
	static const struct frmr_news news = { NIC_EVENT_REMOTE_INVALIDATED, NULL };
	struct frmr_users users;

	if (frmr->generation != generation)
		return;
	if (frmr->state == NIC_FAST_VALID_PENDING) {
		frmr->op->gone = true;
		return;
	}
	if (frmr->state != NIC_FAST_VALID && frmr->state != NIC_FAST_ERROR)
		return;   /* being invalidated, or over */
	/* What stands on its memory goes first. Without memory it stays VALID, with tokens that nobody knows any more, until it is invalidated. */
	if (nic_tenants_check(frmr->tenants, NULL) < 0) {
		if (frmr_op_begin(frmr, NULL) == 0)
			frmr_drop_start(frmr, NIC_STEP_INVALIDATE, false, &news);
		return;
	}
	frmr_set_free(frmr, NIC_STEP_GONE, &users);
	nic_object_emit(&frmr->object, NIC_EVENT_REMOTE_INVALIDATED, frmr->object.serial, NULL);
	frmr_users_let_go(&users);
}

/* A drop under way is the provider's to end; one that waits for its next try has nothing to wait for any more. */
bool nic_frmr_lost(struct nic_frmr *frmr)
{
	struct nicd_error why;
	const struct frmr_news news = { NIC_EVENT_REVOKED, &why };
	bool valid = frmr->state == NIC_FAST_VALID;

	if (valid || frmr->state == NIC_FAST_ERROR) {
		if (frmr_op_begin(frmr, NULL) < 0)
			return false;
		nicd_refuse(&why, NICD_R_DEVICE_LOST);
		frmr_drop_start(frmr, NIC_STEP_LOST, false, valid ? &news : NULL);
	} else if (frmr->op && nic_revocation_hurry(&frmr->op->revocation)) {
		frmr_again(frmr);
	}
	return true;
}

/* ---- close */

static void frmr_released(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = frmr_op_of(cmd, cmd);
	struct nic_frmr *frmr = op->frmr;

	if (nic_cmd_gone(cmd)) {
		nic_revocation_end(op->nic, &op->revocation);
		frmr->reservation = 0;
		frmr_release(frmr);
		return;
	}
	nic_revocation_keep(op->nic, &op->revocation);
}

void frmr_release(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;

	assert(frmr->closing && (frmr->state == NIC_FAST_FREE || frmr->state == NIC_FAST_CREATED));
	if (frmr->reservation) {
		nic_cmd_begin(&op->cmd, frmr_released);
		nic_adapter_tag_drop(frmr->pd->adapter, frmr->reservation, 1, NULL, &op->cmd);
	} else if (frmr->hurry) {
		op->revocation.retry = true;
	} else {
		frmr_op_steal(frmr);
		frmr_end(frmr, op, op->closed);
	}
}

int nic_frmr_prepare_close(struct nic_frmr *frmr, struct nicd_error *err)
{
	bool overtakes;

	if (frmr->state == NIC_FAST_CREATED)
		return 0;
	if (frmr_op_begin(frmr, err) < 0)
		return -ENOMEM;
	overtakes = is_ordered(frmr) || is_queued(frmr);
	if (overtakes && !frmr->spare)
		frmr->spare = frmr_op_new(frmr, err);
	return overtakes && !frmr->spare ? -ENOMEM : 0;
}

void nic_frmr_close(struct nic_frmr *frmr, struct nic_done *done)
{
	bool waits;
	int r;

	assert(!frmr->closing || !done);
	if (frmr->closing)
		return;
	r = nic_frmr_prepare_close(frmr, NULL);
	assert(r == 0);
	(void)r;
	frmr->closing = true;
	waits = nic_tenants_check(frmr->tenants, NULL) < 0;
	nic_object_unname(&frmr->object);
	nic_object_wait(&frmr->object, waits);
	if (frmr->state == NIC_FAST_CREATED) {
		frmr_end(frmr, NULL, done);
		return;
	}
	if (is_ordered(frmr)) {
		frmr_overtake(frmr, frmr->spare);
		frmr->spare = NULL;
		frmr->op->closed = done;
		frmr_drop(frmr);
		return;
	}
	frmr->op->closed = done;
	if (is_queued(frmr) && !frmr->hurry) {
		frmr_hurry(frmr, frmr->spare);
		frmr->spare = NULL;
	} else if (frmr->state == NIC_FAST_FREE) {
		frmr_release(frmr);
	} else if (frmr->state == NIC_FAST_VALID || frmr->state == NIC_FAST_ERROR) {
		frmr_drop_start(frmr, NIC_STEP_CLOSE, waits, NULL);
	}
}
