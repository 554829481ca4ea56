/* SPDX-License-Identifier: MIT */
/*
 * Normal memory regions: what their states in life.h stand for. An MR lives from nic_mr_new until its close ends. While it is registered
 * (mr-register.c), each of its ranges is a user of a Memory. Revoking has one way for all who ask (deregister, revoke, close, a lost device):
 *
 *   mr_revoke_start -> tenants ended -> mr_drop -> mr_dropped -> mr_confirmed
 *
 * struct nic_mr_op is what is under way: a registration, or a revocation with the close that may follow it. Its MR has it until it
 * ends; whoever ends it takes it out first, calls back, and gives it back last.
 *
 * A callback of the caller is the last thing done to an MR that is not closing, because the callback may close it. One that is
 * closing is freed by mr_end alone.
 */
#include "nicd/mr-private.h"

#include <errno.h>
#include <string.h>

static void mr_dropped(struct nic_cmd *cmd);
static void mr_deadline(struct nic_deadline *deadline);

enum {
	OPS_READY = 8,      /* ops that are kept for those that may not fail */
	OPS_SPARE = NIC_OWNER_CLOSING + NIC_OWNER_BATCH,   /* and for the next ones: a release takes and gives no memory for each MR */
};

void mr_step(struct nic_mr *mr, enum nic_life_step step)
{
	int r = nic_life_step(NIC_KIND_NORMAL, &mr->state, step, NULL);

	assert(r == 0);
	(void)r;
}

/* ---- ops */

static struct nic_mr_op *op_unspare(struct nic *nic)
{
	struct nic_mr_op *op = nic->spare_ops;

	nic->spare_ops = op->next;
	nic->n_spare_ops--;
	return op;
}

static void op_spare(struct nic *nic, struct nic_mr_op *op)
{
	op->next = nic->spare_ops;
	nic->spare_ops = op;
	nic->n_spare_ops++;
}

int nic_mr_ops_reserve(struct nic *nic)
{
	while (nic->n_spare_ops < OPS_READY) {
		struct nic_mr_op *op = nic->env->alloc(nic->env, sizeof(*op));

		if (!op)
			return -ENOMEM;
		op_spare(nic, op);
	}
	return 0;
}

void nic_mr_ops_free(struct nic *nic)
{
	while (nic->n_spare_ops > 0)
		nic->env->free(nic->env, op_unspare(nic), sizeof(struct nic_mr_op));
}

int mr_op_begin(struct nic_mr *mr, bool must, struct nicd_error *err)
{
	struct nic *nic = mr_nic(mr);
	struct nic_mr_op *op;

	if (mr->op)
		return 0;
	if (nic->n_spare_ops > OPS_READY)
		op = op_unspare(nic);
	else
		op = nic->env->alloc(nic->env, sizeof(*op));
	if (!op && must && nic->n_spare_ops > 0)
		op = op_unspare(nic);
	if (!op)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	memset(op, 0, offsetof(struct nic_mr_op, cmd));
	op->mr = mr;
	op->waiter.fn = mr_attached;
	op->revocation.deadline.fn = mr_deadline;
	mr->op = op;
	return 0;
}

struct nic_mr_op *mr_op_steal(struct nic_mr *mr)
{
	struct nic_mr_op *op = mr->op;
	struct nic *nic = mr_nic(mr);

	mr->op = NULL;
	op->outer = nic->telling;
	nic->telling = &op->receipt;
	return op;
}

void mr_op_end(struct nic *nic, struct nic_mr_op *op)
{
	assert(nic->telling == &op->receipt && !op->revocation.deadline.armed);
	nic->telling = op->outer;
	if (nic->n_spare_ops < OPS_SPARE)
		op_spare(nic, op);
	else
		nic->env->free(nic->env, op, sizeof(*op));
}

const struct nic_receipt *nic_mr_receipt(const struct nic *nic)
{
	static const struct nic_receipt none;

	return nic->telling ? nic->telling : &none;
}

/* ---- making and ending */

int nic_mr_new(struct nic_mr **ret, struct nic_pd *pd, struct nicd_error *err)
{
	struct nic_owner *owner = pd->object.owner;
	struct nic *nic = owner->nic;
	struct nic_mr *mr;
	uint16_t place;
	int r;

	if (pd->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	r = nic_account_take(owner->account, NIC_SLOT_MRS, 1, err);
	if (r < 0)
		return r;
	mr = nic_pool_take(&nic->mrs, &place);
	if (!mr || nic_object_link(&mr->object, nic, owner, NIC_MR, true) < 0) {
		if (mr)
			nic_pool_give(&nic->mrs, mr, place);
		nic_account_give(owner->account, NIC_SLOT_MRS, 1);
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	mr->object.place = place;
	mr->pd = pd;
	nic_pd_ref(pd);
	*ret = mr;
	return 0;
}

void mr_end(struct nic_mr *mr, struct nic_done *closed)
{
	struct nic_owner *owner = mr->object.owner;
	struct nic_pd *pd = mr->pd;

	assert(mr->state == NIC_MR_CREATED && mr->closing && !mr->op && !mr->tenants);
	nic_object_unlink(&mr->object, owner->nic);
	nic_account_give(owner->account, NIC_SLOT_MRS, 1);
	nic_done_end(closed, NULL);
	nic_pool_give(&owner->nic->mrs, mr, mr->object.place);
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

/* ---- ranges */

const struct nic_range *mr_ranges(const struct nic_mr *mr, struct nic_range *one)
{
	if (mr->n_ranges > 1)
		return mr->many;
	*one = (struct nic_range){ .memory = mr->one.memory, .offset = mr->one.offset, .length = mr->length };
	return one;
}

static struct mr_ranges mr_take_ranges(struct nic_mr *mr)
{
	struct mr_ranges ranges = { .nic = mr_nic(mr), .n = mr->n_ranges };

	if (mr->n_ranges > 1)
		ranges.many = mr->many;
	else
		ranges.one = mr->one.memory;
	mr->one.memory = NULL;
	mr->one.offset = 0;
	mr->n_ranges = 0;
	return ranges;
}

void mr_ranges_let_go(struct mr_ranges *ranges)
{
	struct nic_env *env = ranges->nic->env;

	for (unsigned i = 0; i < ranges->n; i++)
		nic_memory_unuse(ranges->many ? ranges->many[i].memory : ranges->one);
	if (ranges->many)
		env->free(env, ranges->many, ranges->n * sizeof(*ranges->many));
}

unsigned nic_mr_tag_ranges(const struct nic_mr *mr, uint64_t offset, uint64_t length, struct nic_tag_range *ret)
{
	struct nic_range one;

	return nic_ranges_cut(mr_ranges(mr, &one), mr->n_ranges, offset, length, ret);
}

struct mr_ranges mr_reset(struct nic_mr *mr)
{
	struct mr_ranges ranges = mr_take_ranges(mr);

	assert(mr->state == NIC_MR_CREATED);
	mr->local_token = 0;
	mr->remote_token = 0;
	mr->rights = 0;
	mr->iova = 0;
	mr->length = 0;
	nic_account_give(mr->object.owner->account, NIC_SLOT_PINNED, mr->pinned);
	mr->pinned = 0;
	return ranges;
}

/* ---- tokens */

int nic_mr_local_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err)
{
	int r = nic_life_check(NIC_KIND_NORMAL, mr->state, NIC_STEP_GET_LOCAL_TOKEN, err);

	if (r < 0)
		return r;
	*ret = mr->local_token;
	return 0;
}

int nic_mr_remote_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err)
{
	int r = nic_life_check(NIC_KIND_NORMAL, mr->state, NIC_STEP_GET_REMOTE_TOKEN, err);

	if (r < 0)
		return r;
	if (!nic_rights_remote(mr->rights))
		return nicd_refuse_at(err, NICD_R_NO_REMOTE_RIGHTS, NIC_REMOTE_READ, mr->rights);
	*ret = mr->remote_token;
	return 0;
}

/* ---- revoke */

static void mr_confirmed(struct nic_mr *mr)
{
	struct nic_tenants *tenants = mr->tenants;
	struct nic_mr_op *op = mr_op_steal(mr);
	struct nic *nic = mr_nic(mr);
	bool closing = mr->closing;
	struct mr_ranges ranges;

	/* An owner that is dying hears nothing. */
	if (op->done || op->closed || !mr->object.owner->dying)
		op->receipt.at_ns = nic->env->wall(nic->env);
	nic_revocation_end(nic, &op->revocation);
	mr->tenants = NULL;
	mr_step(mr, NIC_STEP_DONE);
	ranges = mr_reset(mr);
	if (op->revocation.promised)
		nic_object_emit(&mr->object, NIC_EVENT_REVOKE_CONFIRMED, mr->object.serial, NULL);
	else
		nic_done_end(op->done, NULL);
	if (closing)
		mr_end(mr, op->closed);
	mr_op_end(nic, op);
	nic_tenants_free(tenants);
	mr_ranges_let_go(&ranges);
}

/* The device refused. Whoever waits for it may try again; when only the close or a promise is left, the deadline does. */
static void mr_not_dropped(struct nic_mr *mr, const struct nicd_error *cause)
{
	struct nic *nic = mr_nic(mr);
	struct nic_mr_op *op = mr->op;
	struct nicd_error error = nic_revocation_refused(cause);

	if (mr->closing || op->revocation.promised) {
		nic_revocation_keep(nic, &op->revocation);
		nic_done_end(nic_done_steal(&op->done), &error);
		return;
	}
	mr_step(mr, NIC_STEP_FAILED);
	nic_revocation_end(nic, &op->revocation);   /* it has answered, after all */
	mr_op_steal(mr);
	nic_done_end(op->done, &error);
	mr_op_end(nic, op);
}

static void mr_dropped(struct nic_cmd *cmd)
{
	struct nic_mr_op *op = mr_op_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (nic_cmd_gone(cmd)) {
		op->receipt.streams_cut += error.reason == NICD_R_NONE ? cmd->dropped.streams_cut : 0;
		mr_confirmed(op->mr);
	} else {
		mr_not_dropped(op->mr, &error);
	}
}

static void mr_drop(struct nic_mr *mr)
{
	nic_cmd_begin(&mr->op->cmd, mr_dropped);
	nic_adapter_tag_drop(mr->pd->adapter, mr->object.serial, mr->generation, NULL, &mr->op->cmd);
}

/* What it waited for is over. */
static void mr_wait_no_more(struct nic_mr *mr)
{
	mr->op->waits = false;
	nic_object_wait(&mr->object, false);
	nic_revocation_begin(mr_nic(mr), &mr->op->revocation);
}

/* Nothing stands on it any more. */
static void mr_left(struct nic_object *object)
{
	struct nic_mr *mr = (struct nic_mr *)object;

	if (mr->op->waits)
		mr_wait_no_more(mr);
	mr_drop(mr);
}

int nic_mr_expect(struct nic_mr *mr, bool exports, struct nicd_error *err)
{
	return nic_tenants_expect(&mr->tenants, &mr->object, mr_left, exports, err);
}

void mr_revoke_start(struct nic_mr *mr, enum nic_life_step step, bool waits, const struct nicd_error *why)
{
	struct nic_mr_op *op = mr->op;

	mr_step(mr, step);
	assert(mr->state == NIC_MR_REVOKING);
	mr->local_token = 0;
	mr->remote_token = 0;
	op->waits = waits;
	if (!waits)
		nic_revocation_begin(mr_nic(mr), &op->revocation);
	if (why)
		nic_object_emit(&mr->object, NIC_EVENT_REVOKED, mr->object.serial, why);
	if (mr->tenants)
		nic_tenants_end(mr->tenants, !waits, &op->receipt);
	else
		mr_drop(mr);
}

/* Not confirmed in time. An answer is owed by now to whoever asked; a refused drop is asked for again. */
static void mr_deadline(struct nic_deadline *deadline)
{
	struct nic_mr_op *op = mr_op_of(deadline, revocation.deadline);
	struct nic_mr *mr = op->mr;
	struct nic_done *done = nic_done_steal(&op->done);
	struct nicd_error error;

	nic_revocation_late(mr_nic(mr), &op->revocation);
	if (done) {
		error = nic_revocation_promise(&op->revocation);
		nic_done_end(done, &error);
	} else if (nic_revocation_again(mr_nic(mr), &op->revocation)) {
		mr_drop(mr);
	}
}

/* Closed by its owner, who has left windows behind. */
static void mr_evict(struct nic_mr *mr, struct nic_done *done)
{
	mr->op->done = done;
	mr_wait_no_more(mr);
	nic_tenants_end(mr->tenants, true, &mr->op->receipt);
}

int nic_mr_revoke(struct nic_mr *mr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	int r;

	if (mr->closing && mr->op && mr->op->waits) {
		mr_evict(mr, done);
		return 0;
	}
	if (mr->closing)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_REGISTERED, mr->state);
	r = nic_life_check(NIC_KIND_NORMAL, mr->state, NIC_STEP_DEREGISTER, err);
	if (r < 0)
		return r;
	r = mr_op_begin(mr, true, err);
	if (r < 0)
		return r;
	mr->op->done = done;
	mr_revoke_start(mr, NIC_STEP_DEREGISTER, false, why);
	return 0;
}

int nic_mr_deregister(struct nic_mr *mr, struct nic_done *done, struct nicd_error *err)
{
	int r = nic_tenants_check(mr->tenants, err);

	return r < 0 ? r : nic_mr_revoke(mr, NULL, done, err);
}

/* A drop under way is the provider's to end; one that waits for its next try has nothing to wait for any more. */
bool nic_mr_lost(struct nic_mr *mr)
{
	struct nicd_error why;

	if (mr->state == NIC_MR_REGISTERED || mr->state == NIC_MR_ERROR) {
		if (mr_op_begin(mr, true, NULL) < 0)
			return false;
		nicd_refuse(&why, NICD_R_DEVICE_LOST);
		mr_revoke_start(mr, NIC_STEP_LOST, false, mr->state == NIC_MR_REGISTERED ? &why : NULL);
	} else if (mr->op && nic_revocation_hurry(&mr->op->revocation)) {
		mr_drop(mr);
	}
	return true;
}

int nic_mr_prepare_close(struct nic_mr *mr, struct nicd_error *err)
{
	return mr->state == NIC_MR_CREATED ? 0 : mr_op_begin(mr, true, err);
}

void nic_mr_close(struct nic_mr *mr, struct nic_done *done)
{
	struct nicd_error none;
	bool waits;
	int r;

	if (mr->state != NIC_MR_CREATED) {
		r = nic_mr_prepare_close(mr, &none);
		assert(r == 0 && (!mr->op->closed || !done));
		(void)r;
		if (done)
			mr->op->closed = done;
	}
	if (mr->closing)
		return;
	mr->closing = true;
	waits = nic_tenants_check(mr->tenants, &none) < 0;
	nic_object_unname(&mr->object);
	nic_object_wait(&mr->object, waits);
	if (mr->state == NIC_MR_CREATED)
		mr_end(mr, done);
	else if (mr->state == NIC_MR_REGISTERED || mr->state == NIC_MR_ERROR)
		mr_revoke_start(mr, NIC_STEP_CLOSE, waits, NULL);
}
