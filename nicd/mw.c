/* SPDX-License-Identifier: MIT */
/*
 * Memory windows: what their states in life.h stand for. A window lives from nic_mw_new until its close ends. While the device may hold a tag of
 * it, it is a tenant of its MR, which does not end before it, and linked to its Qp, which may end without asking. All that takes a
 * window away by force goes the same way:
 *
 *   mw_overtake -> mw_revoke_start -> mw_drop -> mw_dropped -> mw_freed
 *
 * A bind or an Invalidate waits at the device for other work of its Qp. Force does not: it sends a drop of its own beside it, the rush. What
 * that says of an Invalidate counts; of a bind it does not, which is dropped once more when it has come to something after all.
 *
 * `held` keeps a window while callbacks run that may close it.
 */
#include "nicd/mw.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "nicd/op.h"
#include "nicd/region.h"

static void mw_tagged(struct nic_cmd *cmd);
static void mw_dropped(struct nic_cmd *cmd);
static void mw_rushed(struct nic_cmd *cmd);
static void mw_deadline(struct nic_deadline *deadline);

#define mw_of(ptr, member) ((struct nic_mw *)((char *)(ptr) - offsetof(struct nic_mw, member)))

static struct nic *mw_nic(const struct nic_mw *mw)
{
	return mw->object.owner->nic;
}

static void mw_step(struct nic_mw *mw, enum nic_life_step step)
{
	int r = nic_life_step(NIC_KIND_WINDOW, &mw->state, step, NULL);

	assert(r == 0);
	(void)r;
}

/* ---- making and ending */

int nic_mw_new(struct nic_mw **ret, struct nic_pd *pd, struct nicd_error *err)
{
	struct nic_owner *owner = pd->object.owner;
	struct nic *nic = owner->nic;
	struct nic_mw *mw;
	int r;

	if (pd->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	r = nic_account_take(owner->account, NIC_SLOT_MWS, 1, err);
	if (r < 0)
		return r;
	mw = nic->env->alloc(nic->env, sizeof(*mw));
	if (!mw || nic_object_link(&mw->object, nic, owner, NIC_MW, true) < 0) {
		if (mw)
			nic->env->free(nic->env, mw, sizeof(*mw));
		nic_account_give(owner->account, NIC_SLOT_MWS, 1);
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	mw->object.kind = NIC_KIND_WINDOW;
	mw->revocation.deadline.fn = mw_deadline;
	mw->pd = pd;
	nic_pd_ref(pd);
	*ret = mw;
	return 0;
}

static void mw_end(struct nic_mw *mw)
{
	struct nic_owner *owner = mw->object.owner;
	struct nic_env *env = owner->nic->env;
	struct nic_pd *pd = mw->pd;

	assert(!mw->tenants && !mw->qp && !mw->revocation.deadline.armed && !mw->done);
	nic_object_unlink(&mw->object, owner->nic);
	nic_account_give(owner->account, NIC_SLOT_MWS, 1);
	nic_done_end(nic_done_steal(&mw->closed), NULL);
	env->free(env, mw, sizeof(*mw));
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

static void mw_hold(struct nic_mw *mw)
{
	mw->held++;
}

static void mw_let_go(struct nic_mw *mw)
{
	if (--mw->held == 0 && mw->closing && mw->state == NIC_MW_FREE && !mw->rushing)
		mw_end(mw);
}

/* ---- bind: checks */

static int check_mr(const struct nic_object *mr, const struct nic_region *base, struct nicd_error *err)
{
	if (base->closing)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_REGISTERED, base->state);
	return nic_life_check(mr->kind, base->state, NIC_STEP_BIND_TO, err);
}

static int check_state(const struct nic_mw *mw, enum nic_life_step step, struct nicd_error *err)
{
	if (mw->closing)
		return nicd_refuse_at(err, NICD_R_MW_STATE, NIC_MW_FREE, mw->state);
	return nic_life_check(NIC_KIND_WINDOW, mw->state, step, err);
}

static int check_qp(const struct nic_qp *qp, struct nicd_error *err)
{
	if (nic_qp_state(qp) != NIC_QP_CONNECTED || qp->closing)
		return nicd_refuse_at(err, NICD_R_QP_STATE, NIC_QP_CONNECTED, nic_qp_state(qp));
	return 0;
}

static int check_range(const struct nic_bind *what, const struct nic_region *base, struct nicd_error *err)
{
	uint64_t end = base->iova + base->length;   /* a registration does not wrap */

	if (what->length == 0)
		return nicd_refuse_at(err, NICD_R_LENGTH_ZERO, 1, 0);
	if (what->length > UINT64_MAX - what->iova)
		return nicd_refuse_at(err, NICD_R_IOVA_OVERFLOW, UINT64_MAX - what->length, what->iova);
	if (what->iova < base->iova || !nic_range_ok(what->iova - base->iova, what->length, base->length))
		return nicd_refuse_at(err, NICD_R_WINDOW_RANGE, end, what->iova + what->length);
	return 0;
}

static int check_rights(uint32_t flags, const struct nic_region *base, uint32_t *rights, struct nicd_error *err)
{
	int r = nic_op_rights(NIC_OP_BIND, flags, rights, err);

	if (r < 0)
		return r;
	if (!nic_rights_remote(*rights))
		return nicd_refuse_at(err, NICD_R_FLAGS, NIC_OP_REMOTE_READ | NIC_OP_REMOTE_WRITE, flags);
	if (nic_rights_has(*rights, NIC_REMOTE_WRITE) && !nic_rights_has(base->rights, NIC_LOCAL_WRITE))
		return nicd_refuse_at(err, NICD_R_WINDOW_RIGHTS, base->rights, *rights);
	return 0;
}

/* The order is the one that mw.h promises. */
static int bind_check(const struct nic_mw *mw, const struct nic_bind *what, uint32_t *rights, struct nicd_error *err)
{
	const struct nic_region base = nic_region(what->mr);
	int r = check_state(mw, NIC_STEP_BIND, err);

	if (r < 0)
		return r;
	if (base.pd != mw->pd || what->qp->pd != mw->pd)
		return nicd_refuse(err, NICD_R_PD_MISMATCH);
	r = check_mr(what->mr, &base, err);
	if (r == 0)
		r = check_qp(what->qp, err);
	if (r == 0)
		r = check_rights(what->flags, &base, rights, err);
	if (r == 0)
		r = check_range(what, &base, err);
	if (r == 0 && !mw->pd->adapter->provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	if (r == 0 && what->qp->n_windows >= NICD_QP_WINDOWS)   /* they go in one turn when it ends */
		return nicd_refuse_at(err, NICD_R_QP_WINDOWS, NICD_QP_WINDOWS, what->qp->n_windows + 1);
	return r;
}

/* ---- bind */

static struct nic_order order_of(const struct nic_qp *qp, uint32_t flags)
{
	return (struct nic_order){ .qp = qp->stream, .fence = flags & NIC_OP_READ_FENCE };
}

static int mw_enter(struct nic_mw *mw, const struct nic_bind *what, struct nicd_error *err)
{
	struct nic_provider *provider = mw->pd->adapter->provider;
	uint64_t pinned = provider->ops->cost(provider, NIC_COST_TAG, what->length);
	struct nic_tenants *tenants = nic_region_expect(what->mr, err);
	int r;

	if (!tenants)
		return -nicd_reason_info(NICD_R_NO_MEMORY)->err;
	r = nic_account_take(mw->object.owner->account, NIC_SLOT_PINNED, pinned, err);
	if (r < 0)
		return r;
	mw->pinned = pinned;
	mw->tenants = tenants;
	TAILQ_INSERT_HEAD(&tenants->windows, mw, of_mr);
	mw->qp = what->qp;
	TAILQ_INSERT_HEAD(&mw->qp->windows, mw, of_qp);
	mw->qp->n_windows++;
	return 0;
}

static void mw_leave_qp(struct nic_mw *mw)
{
	if (!mw->qp)
		return;
	TAILQ_REMOVE(&mw->qp->windows, mw, of_qp);
	mw->qp->n_windows--;
	mw->qp = NULL;
}

/* The device holds nothing of it any more. Held by the caller; its MR and others may be gone afterwards. */
static void mw_leave(struct nic_mw *mw)
{
	struct nic_tenants *tenants = mw->tenants;

	if (!tenants)
		return;
	nic_revocation_end(mw_nic(mw), &mw->revocation);
	mw->evicted = false;
	nic_account_give(mw->object.owner->account, NIC_SLOT_PINNED, mw->pinned);
	mw_leave_qp(mw);
	mw->tenants = NULL;
	TAILQ_REMOVE(&tenants->windows, mw, of_mr);
	nic_tenants_window_gone(tenants, mw->streams_cut);
}

/* By a step that leads to FREE. `error`: what the call under way is told. The window may be gone afterwards. */
static void mw_freed(struct nic_mw *mw, enum nic_life_step step, const struct nicd_error *error)
{
	struct nic_env *env = mw_nic(mw)->env;
	struct nic_done *done = nic_done_steal(&mw->done);
	bool promised = mw->revocation.promised;

	mw_hold(mw);
	mw_step(mw, step);
	assert(mw->state == NIC_MW_FREE);
	mw->remote_token = 0;
	mw->rights = 0;
	mw->iova = mw->length = 0;
	mw->revocation.promised = mw->revocation.retry = false;
	mw->ordered = mw->rush_counts = false;
	mw->at_ns = done || mw->closed ? env->wall(env) : 0;
	mw_leave(mw);
	if (promised)
		nic_object_emit(&mw->object, NIC_EVENT_REVOKE_CONFIRMED, mw->object.serial, NULL);
	nic_done_end(done, error);
	mw_let_go(mw);
}

static void mw_add_tag(struct nic_mw *mw, const struct nic_order *order)
{
	struct nic_provider *provider = mw->pd->adapter->provider;
	struct nic_tag_range ranges[NICD_RANGES];
	struct nic_tag what = {
		.serial = mw->object.serial,
		.generation = mw->generation,
		.rights = mw->rights | NIC_INVALIDATABLE,
		.pd = mw->pd->object.serial,
		.iova = mw->iova,
		.length = mw->length,
		.ranges = ranges,
		.order = *order,
		.only_qp = true,
	};

	what.n_ranges = nic_region_tag_ranges(mw->tenants->mr, mw->iova - nic_region(mw->tenants->mr).iova, mw->length, ranges);
	mw->ordered = true;
	nic_cmd_begin(&mw->cmd, mw_tagged);
	provider->ops->tag_add(provider, &what, &mw->cmd);
}

int nic_mw_bind(struct nic_mw *mw, const struct nic_bind *what, struct nic_done *done, struct nicd_error *err)
{
	struct nic_order order = order_of(what->qp, what->flags);
	uint32_t rights = 0;
	int r = bind_check(mw, what, &rights, err);

	if (r == 0)
		r = nic_qp_begin_work(what->qp, mw->pd, err);
	if (r < 0)
		return r;
	r = mw_enter(mw, what, err);
	if (r < 0) {
		nic_qp_end_work(what->qp);
		return r;
	}
	mw->work = what->qp;
	mw_step(mw, NIC_STEP_BIND);
	mw->generation++;
	mw->rights = (uint8_t)nic_rights_of_peers(rights);
	mw->iova = what->iova;
	mw->length = what->length;
	mw->streams_cut = 0;
	mw->gone = false;
	mw->done = done;
	mw_add_tag(mw, &order);
	return 0;
}

/* ---- force */

static void mw_drop(struct nic_mw *mw, const struct nic_order *order)
{
	mw->ordered = order;
	nic_cmd_begin(&mw->cmd, mw_dropped);
	nic_adapter_tag_drop(mw->pd->adapter, mw->object.serial, mw->generation, order, &mw->cmd);
}

static void mw_rush(struct nic_mw *mw)
{
	mw->rushing = true;
	mw->rush_counts = mw->state == NIC_MW_INVALIDATING;
	nic_cmd_begin(&mw->rush, mw_rushed);
	nic_adapter_tag_drop(mw->pd->adapter, mw->object.serial, mw->generation, NULL, &mw->rush);
}

/* By a step that leads to INVALIDATING: the token is void from here on. `error`: what a call under way is told now. */
static void mw_revoke_start(struct nic_mw *mw, enum nic_life_step step, const struct nicd_error *why, const struct nicd_error *error)
{
	mw_step(mw, step);
	assert(mw->state == NIC_MW_INVALIDATING);
	mw->remote_token = 0;
	mw->ordered = false;
	nic_revocation_begin(mw_nic(mw), &mw->revocation);
	if (error)
		nic_done_end(nic_done_steal(&mw->done), error);
	if (why)
		nic_object_emit(&mw->object, NIC_EVENT_REVOKED, mw->object.serial, why);
	if (mw->rushing)   /* one after the other: that one goes on with it */
		mw->revocation.retry = true;
	else
		mw_drop(mw, NULL);
}

/* `why` NULL: the owner is not told. Held by the caller. */
static void mw_overtake(struct nic_mw *mw, enum nic_life_step step, const struct nicd_error *why)
{
	if (mw->state == NIC_MW_BOUND || mw->state == NIC_MW_ERROR) {
		mw_revoke_start(mw, step, mw->state == NIC_MW_BOUND ? why : NULL, NULL);
		return;
	}
	if (!mw->ordered || mw->rushing || !mw->tenants)
		return;
	if (mw->state == NIC_MW_INVALIDATING && !mw->revocation.deadline.armed)
		nic_revocation_begin(mw_nic(mw), &mw->revocation);
	mw_rush(mw);
}

static void mw_rushed(struct nic_cmd *cmd)
{
	struct nic_mw *mw = mw_of(cmd, rush);

	mw_hold(mw);
	mw->rushing = false;
	if (mw->rush_counts && nic_cmd_gone(cmd)) {
		mw->streams_cut += cmd->error.reason == NICD_R_NONE ? cmd->dropped.streams_cut : 0;
		if (mw->revocation.retry)   /* what it was sent beside has been refused: nothing else will end it */
			mw_freed(mw, NIC_STEP_DONE, NULL);
		else
			mw_leave(mw);
	} else if (nic_revocation_hurry(&mw->revocation)) {
		mw_drop(mw, NULL);
	}
	mw_let_go(mw);
}

/* What a bind that the device has carried out comes to; NONE: what was asked for. */
static enum nicd_reason mw_overtaken(const struct nic_mw *mw)
{
	if (mw->closing || mw->evicted)
		return NICD_R_REVOKED;
	if (!mw->pd->adapter->provider->up)
		return NICD_R_DEVICE_LOST;
	return mw->qp ? NICD_R_NONE : NICD_R_QP_LOST;
}

/* The command is over: the Qp whose work it was may go, when it was answered. */
static struct nic_qp *mw_steal_work(struct nic_mw *mw)
{
	struct nic_qp *work = mw->work;

	mw->work = NULL;
	return work;
}

static void mw_bound(struct nic_mw *mw, const struct nic_cmd *cmd)
{
	enum nicd_reason reason = mw_overtaken(mw);
	struct nicd_error error = cmd->error;

	if (error.reason != NICD_R_NONE) {
		if (reason != NICD_R_NONE)
			nicd_refuse(&error, reason);
		mw_freed(mw, NIC_STEP_FAILED, &error);
		return;
	}
	if (reason == NICD_R_NONE && mw->gone) {   /* it was there, and is not any more */
		nicd_refuse(&error, NICD_R_REMOTELY_INVALIDATED);
		mw_freed(mw, NIC_STEP_GONE, &error);
		return;
	}
	mw_hold(mw);
	mw_step(mw, NIC_STEP_DONE);
	mw->ordered = false;
	if (reason != NICD_R_NONE) {   /* too late: nobody is told the token */
		nicd_refuse(&error, reason);
		mw_revoke_start(mw, NIC_STEP_INVALIDATE, NULL, &error);
	} else {
		mw->remote_token = cmd->tags.remote_token;
		nic_done_end(nic_done_steal(&mw->done), NULL);
	}
	mw_let_go(mw);
}

static void mw_tagged(struct nic_cmd *cmd)
{
	struct nic_qp *work = mw_steal_work(mw_of(cmd, cmd));

	mw_bound(mw_of(cmd, cmd), cmd);
	nic_qp_end_work(work);
}

/* The device refused. Whoever waits for it may try again; when only the close, an eviction or a promise is left, the deadline does. */
static void mw_not_dropped(struct nic_mw *mw, const struct nicd_error *cause)
{
	struct nic *nic = mw_nic(mw);
	struct nicd_error error = nic_revocation_refused(cause);

	mw->ordered = false;
	mw_hold(mw);
	if (mw->closing || mw->evicted || mw->revocation.promised) {
		nic_revocation_keep(nic, &mw->revocation);
	} else {
		mw_step(mw, NIC_STEP_FAILED);
		nic_revocation_end(nic, &mw->revocation);   /* it has answered, after all */
	}
	nic_done_end(nic_done_steal(&mw->done), &error);
	mw_let_go(mw);
}

static void mw_dropped(struct nic_cmd *cmd)
{
	struct nic_mw *mw = mw_of(cmd, cmd);
	struct nic_qp *work = mw_steal_work(mw);
	struct nicd_error error = cmd->error;

	if (nic_cmd_gone(cmd) || !mw->tenants) {
		mw->streams_cut += error.reason == NICD_R_NONE ? cmd->dropped.streams_cut : 0;
		mw_freed(mw, NIC_STEP_DONE, NULL);
	} else {
		mw_not_dropped(mw, &error);
	}
	if (work)
		nic_qp_end_work(work);
}

/* Not confirmed in time. An answer is owed by now to whoever asked; a refused drop is asked for again. */
static void mw_deadline(struct nic_deadline *deadline)
{
	struct nic_mw *mw = mw_of(deadline, revocation.deadline);
	struct nic_done *done = nic_done_steal(&mw->done);
	struct nicd_error error;

	nic_revocation_late(mw_nic(mw), &mw->revocation);
	mw_hold(mw);
	if (done) {
		error = nic_revocation_promise(&mw->revocation);
		nic_done_end(done, &error);
	}
	if (!mw->rushing && nic_revocation_again(mw_nic(mw), &mw->revocation))
		mw_drop(mw, NULL);
	mw_let_go(mw);
}

/* ---- those who end it */

int nic_mw_invalidate(struct nic_mw *mw, struct nic_qp *qp, uint32_t flags, struct nic_done *done, struct nicd_error *err)
{
	struct nic_order order = order_of(qp, flags);
	uint32_t rights;
	int r = check_state(mw, NIC_STEP_INVALIDATE, err);

	if (r < 0)
		return r;
	if (qp->pd != mw->pd)
		return nicd_refuse(err, NICD_R_PD_MISMATCH);
	r = check_qp(qp, err);
	if (r == 0)
		r = nic_op_rights(NIC_OP_INVALIDATE, flags, &rights, err);
	if (r == 0)
		r = nic_qp_begin_work(qp, mw->pd, err);
	if (r < 0)
		return r;
	mw->work = qp;
	mw_step(mw, NIC_STEP_INVALIDATE);
	mw->remote_token = 0;
	mw->done = done;
	mw_drop(mw, &order);
	return 0;
}

int nic_mw_remote_token(const struct nic_mw *mw, uint32_t *ret, struct nicd_error *err)
{
	int r = check_state(mw, NIC_STEP_GET_REMOTE_TOKEN, err);

	if (r == 0)
		*ret = mw->remote_token;
	return r;
}

int nic_mw_revoke(struct nic_mw *mw, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	int r;

	/* Whoever asked for that one is answered with it. */
	if (mw->ordered && mw->tenants && !mw->closing) {
		nic_mw_evict(mw, why);
		return nicd_refuse(err, NICD_R_DEVICE_BUSY);
	}
	r = check_state(mw, NIC_STEP_INVALIDATE, err);
	if (r < 0)
		return r;
	mw->done = done;
	mw_revoke_start(mw, NIC_STEP_INVALIDATE, mw->state == NIC_MW_BOUND ? why : NULL, NULL);
	return 0;
}

void nic_mw_evict(struct nic_mw *mw, const struct nicd_error *why)
{
	mw_hold(mw);
	mw->evicted = true;
	TAILQ_REMOVE(&mw->tenants->windows, mw, of_mr);
	TAILQ_INSERT_TAIL(&mw->tenants->windows, mw, of_mr);
	mw_overtake(mw, NIC_STEP_INVALIDATE, why);
	mw_let_go(mw);
}

void nic_mw_close(struct nic_mw *mw, struct nic_done *done)
{
	assert(!mw->closed || !done);
	if (done)
		mw->closed = done;
	if (mw->closing)
		return;
	mw_hold(mw);
	mw->closing = true;
	nic_object_unname(&mw->object);
	mw_overtake(mw, NIC_STEP_CLOSE, NULL);
	mw_let_go(mw);
}

/* Gone without our asking. */
static void mw_gone(struct nic_mw *mw, enum nic_event event, const struct nicd_error *why)
{
	bool told = mw->state == NIC_MW_BOUND;

	mw_hold(mw);
	mw_freed(mw, NIC_STEP_GONE, NULL);
	if (told)
		nic_object_emit(&mw->object, event, mw->object.serial, why);
	mw_let_go(mw);
}

/* What is under way is answered by the device, which ends it with the Qp. */
void nic_mw_qp_gone(struct nic_mw *mw, const struct nicd_error *why)
{
	mw_leave_qp(mw);
	if (mw->state == NIC_MW_BOUND || mw->state == NIC_MW_ERROR)
		mw_gone(mw, NIC_EVENT_REVOKED, why);
}

void nic_mw_invalidated(struct nic_mw *mw, uint32_t generation)
{
	if (mw->generation != generation)
		return;
	if (mw->state == NIC_MW_BIND_PENDING)
		mw->gone = true;
	else if (mw->state == NIC_MW_BOUND || mw->state == NIC_MW_ERROR)
		mw_gone(mw, NIC_EVENT_REMOTE_INVALIDATED, NULL);
}

/* A drop under way is the provider's to end; one that waits for its next try has nothing to wait for any more. */
void nic_mw_lost(struct nic_mw *mw)
{
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_DEVICE_LOST);
	mw_hold(mw);
	if (mw->state == NIC_MW_BOUND || mw->state == NIC_MW_ERROR) {
		mw_revoke_start(mw, NIC_STEP_LOST, mw->state == NIC_MW_BOUND ? &why : NULL, NULL);
	} else if (!mw->rushing && nic_revocation_hurry(&mw->revocation)) {
		mw_drop(mw, NULL);
	}
	mw_let_go(mw);
}
