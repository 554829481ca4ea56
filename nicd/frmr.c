/* SPDX-License-Identifier: MIT */
/*
 * Fast-register memory regions: what their states in life.h stand for. One lives from nic_frmr_new until its close ends. What is
 * under way is its op, from a pool, so that registering allocates nothing:
 *
 *   initialize   the reservation is asked for          INITIALIZING -> FREE
 *   register     memories are attached, a tag is added  VALID_PENDING -> VALID
 *   drop         the tag is dropped                     INVALIDATING -> FREE
 *   release      closing only: the reservation is dropped, then the end
 *
 * A callback of the caller is the last thing done to an MR that is not closing, because the callback may close it. One that is
 * closing is freed by frmr_end alone.
 */
#include "nicd/frmr-private.h"

void frmr_step(struct nic_frmr *frmr, enum nic_life_step step)
{
	int r = nic_life_step(NIC_KIND_FAST, &frmr->state, step, NULL);

	assert(r == 0);
	(void)r;
}

int frmr_check(const struct nic_frmr *frmr, enum nic_life_step step, struct nicd_error *err)
{
	if (frmr->closing)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_FAST_CREATED, frmr->state);
	return nic_life_check(NIC_KIND_FAST, frmr->state, step, err);
}

/* ---- making and ending */

int nic_frmr_new(struct nic_frmr **ret, struct nic_pd *pd, struct nicd_error *err)
{
	struct nic_owner *owner = pd->object.owner;
	struct nic *nic = owner->nic;
	struct nic_frmr *frmr;
	uint16_t place;
	int r;

	if (pd->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	r = nic_account_take(owner->account, NIC_SLOT_MRS, 1, err);
	if (r < 0)
		return r;
	frmr = nic_pool_take(&nic->frmrs, &place);
	if (!frmr || nic_object_link(&frmr->object, nic, owner, NIC_MR, true) < 0) {
		if (frmr)
			nic_pool_give(&nic->frmrs, frmr, place);
		nic_account_give(owner->account, NIC_SLOT_MRS, 1);
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	frmr->object.kind = NIC_KIND_FAST;
	frmr->object.place = place;
	frmr->pd = pd;
	nic_pd_ref(pd);
	*ret = frmr;
	return 0;
}

void frmr_end(struct nic_frmr *frmr, struct nic_frmr_op *op, struct nic_done *closed)
{
	struct nic_owner *owner = frmr->object.owner;
	struct nic *nic = owner->nic;
	struct nic_pd *pd = frmr->pd;

	assert(frmr->closing && !frmr->op && !frmr->reservation && frmr->n_ranges == 0 && !frmr->tenants && !frmr->hurry);
	nic_object_unlink(&frmr->object, nic);
	nic_account_give(owner->account, NIC_SLOT_MRS, 1);
	if (frmr->many)
		nic->env->free(nic->env, frmr->many, NICD_RANGES * sizeof(*frmr->many));
	if (frmr->spare)
		frmr_op_end(frmr->spare);
	if (op)
		frmr_op_tell(op, closed, NULL);
	else
		nic_done_end(closed, NULL);
	nic_pool_give(&nic->frmrs, frmr, frmr->object.place);
	if (op)
		frmr_op_end(op);
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

/* ---- what is registered */

unsigned nic_frmr_tag_ranges(const struct nic_frmr *frmr, uint64_t offset, uint64_t length, struct nic_tag_range *ret)
{
	return nic_ranges_cut(frmr_ranges(frmr), frmr->n_ranges, offset, length, ret);
}

void frmr_users_let_go(const struct frmr_users *users)
{
	for (unsigned i = 0; i < users->n; i++)
		nic_memory_unuse(users->memories[i]);
	if (users->mapping)
		nic_mapping_unuse(users->mapping);
	nic_tenants_free(users->tenants);
}

void frmr_reset(struct nic_frmr *frmr, struct frmr_users *users)
{
	const struct nic_range *ranges = frmr_ranges(frmr);

	assert(frmr->state == NIC_FAST_FREE);
	users->tenants = frmr->tenants;
	frmr->tenants = NULL;
	users->mapping = frmr->mapping;
	frmr->mapping = NULL;
	users->n = frmr->n_ranges;
	for (unsigned i = 0; i < users->n; i++)
		users->memories[i] = ranges[i].memory;
	frmr->n_ranges = 0;
	frmr->evicted = false;
	frmr->rights = 0;
	frmr->iova = 0;
	frmr->length = 0;
	nic_account_give(frmr->object.owner->account, NIC_SLOT_PINNED, frmr->pinned);
	frmr->pinned = 0;
}

void frmr_set_free(struct nic_frmr *frmr, enum nic_life_step step, struct frmr_users *users)
{
	frmr_step(frmr, step);
	assert(frmr->state == NIC_FAST_FREE);
	frmr_reset(frmr, users);
}

/* ---- initialize */

static void frmr_initialized(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = frmr_op_of(cmd, cmd);
	struct nic_frmr *frmr = op->frmr;
	struct nicd_error error = cmd->error;

	frmr_step(frmr, error.reason == NICD_R_NONE ? NIC_STEP_DONE : NIC_STEP_FAILED);
	if (error.reason == NICD_R_NONE) {
		frmr->reserved = (struct nic_frmr_tokens){ cmd->tags.local_token, cmd->tags.remote_token };
		if (frmr->closing)   /* too late: nobody is told */
			nicd_refuse(&error, NICD_R_REVOKED);
	} else {
		frmr->reservation = 0;
		frmr->pages = 0;
	}
	if (frmr->closing) {
		frmr_op_tell(op, nic_done_steal(&op->done), &error);
		frmr_release(frmr);
		return;
	}
	frmr_op_steal(frmr);
	frmr_op_tell(op, op->done, &error);
	frmr_op_end(op);
}

/* A serial of its own, for the tag that shares nothing with the MR's but its end. */
static void frmr_reserve(struct nic_frmr *frmr)
{
	struct nic_provider *provider = frmr->pd->adapter->provider;
	struct nic_tag what = { .generation = 1, .pd = frmr->pd->object.serial, .reserve = true };

	frmr->reservation = what.serial = nic_serial(frmr_nic(frmr));
	nic_cmd_begin(&frmr->op->cmd, frmr_initialized);
	provider->ops->tag_add(provider, &what, &frmr->op->cmd);
}

int nic_frmr_initialize(struct nic_frmr *frmr, uint32_t pages, bool remote_access, struct nic_done *done, struct nicd_error *err)
{
	int r = frmr_check(frmr, NIC_STEP_INITIALIZE, err);

	if (r < 0)
		return r;
	if (!frmr->pd->adapter->provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	if (pages == 0 || pages > NICD_FAST_PAGES)
		return nicd_refuse_at(err, NICD_R_PAGE_COUNT, NICD_FAST_PAGES, pages);
	if (frmr->state == NIC_FAST_CREATED) {
		r = frmr_op_begin(frmr, err);
		if (r < 0)
			return r;
	}
	frmr_step(frmr, NIC_STEP_INITIALIZE);
	frmr->pages = pages;
	frmr->remote_access = remote_access;
	if (frmr->state == NIC_FAST_FREE) {
		nic_done_end(done, NULL);
		return 0;
	}
	frmr->op->done = done;
	frmr_reserve(frmr);
	return 0;
}

/* ---- tokens */

static const struct nic_frmr_tokens *frmr_tokens(const struct nic_frmr *frmr)
{
	return frmr->state == NIC_FAST_VALID ? &frmr->valid : &frmr->reserved;
}

int nic_frmr_local_token(const struct nic_frmr *frmr, uint32_t *ret, struct nicd_error *err)
{
	int r = nic_life_check(NIC_KIND_FAST, frmr->state, NIC_STEP_GET_LOCAL_TOKEN, err);

	if (r == 0)
		*ret = frmr_tokens(frmr)->local;
	return r;
}

int nic_frmr_remote_token(const struct nic_frmr *frmr, uint32_t *ret, struct nicd_error *err)
{
	int r = nic_life_check(NIC_KIND_FAST, frmr->state, NIC_STEP_GET_REMOTE_TOKEN, err);

	if (r < 0)
		return r;
	if (frmr->state == NIC_FAST_VALID ? !nic_rights_remote(frmr->rights) : !frmr->remote_access)
		return nicd_refuse_at(err, NICD_R_NO_REMOTE_RIGHTS, NIC_REMOTE_READ, frmr->rights);
	*ret = frmr_tokens(frmr)->remote;
	return 0;
}
