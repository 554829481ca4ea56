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
 * A drop that waits for its turn in a stream is overtaken by a close or a revocation: they go on with an op of their own, and the old one
 * is an orphan, which only holds its Qp until the device answers.
 *
 * A callback of the caller is the last thing done to an MR that is not closing, because the callback may close it. One that is
 * closing is freed by frmr_end alone.
 */
#include "nicd/frmr.h"

#include <assert.h>

#include "nicd/op.h"
#include "nicd/revocation.h"

struct nic_frmr_op {
	struct nic_frmr *frmr;          /* NULL: an orphan */
	struct nic *nic;
	struct nic_qp *qp;              /* whose work it is; NULL: nobody's */
	struct nic_order order;
	struct nic_waiter waiter;
	struct nic_revocation revocation;   /* of a drop, of the reservation, too */
	struct nic_done *done;
	struct nic_done *closed;
	struct nic_receipt receipt;
	unsigned n_attached;            /* registering: the first of its ranges whose memories the device does not have */
	uint16_t place;
	bool gone;                      /* registering: a peer has invalidated it before we heard that it is there */
	bool waits;                     /* closing: for windows, which the owner is to end */
	struct nic_cmd cmd;
};

/* What an owner hears of a drop that it did not ask for. */
struct news {
	enum nic_event event;
	const struct nicd_error *why;
};

#define op_of(ptr, member) ((struct nic_frmr_op *)((char *)(ptr) - offsetof(struct nic_frmr_op, member)))

static void frmr_attached(struct nic_waiter *waiter, const struct nicd_error *error);
static void frmr_deadline(struct nic_deadline *deadline);
static void frmr_release(struct nic_frmr *frmr);
static void frmr_drop_start(struct nic_frmr *frmr, enum nic_life_step step, bool waits, const struct news *news);

static struct nic *frmr_nic(const struct nic_frmr *frmr)
{
	return frmr->object.owner->nic;
}

static void frmr_step(struct nic_frmr *frmr, enum nic_life_step step)
{
	int r = nic_life_step(NIC_KIND_FAST, &frmr->state, step, NULL);

	assert(r == 0);
	(void)r;
}

static int frmr_check(const struct nic_frmr *frmr, enum nic_life_step step, struct nicd_error *err)
{
	if (frmr->closing)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_FAST_CREATED, frmr->state);
	return nic_life_check(NIC_KIND_FAST, frmr->state, step, err);
}

/* ---- ops */

size_t nic_frmr_op_size(void)
{
	return sizeof(struct nic_frmr_op);
}

static struct nic_frmr_op *op_new(struct nic_frmr *frmr, struct nicd_error *err)
{
	struct nic *nic = frmr_nic(frmr);
	struct nic_frmr_op *op;
	uint16_t place;

	op = nic_pool_take(&nic->frmr_ops, &place);
	if (!op) {
		nicd_refuse(err, NICD_R_NO_MEMORY);
		return NULL;
	}
	op->frmr = frmr;
	op->nic = nic;
	op->place = place;
	op->waiter.fn = frmr_attached;
	op->revocation.deadline.fn = frmr_deadline;
	return op;
}

static int op_begin(struct nic_frmr *frmr, struct nicd_error *err)
{
	if (!frmr->op)
		frmr->op = op_new(frmr, err);
	return frmr->op ? 0 : -ENOMEM;
}

static struct nic_frmr_op *op_steal(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;

	frmr->op = NULL;
	return op;
}

/* The callback may read its receipt. */
static void op_tell(struct nic_frmr_op *op, struct nic_done *done, const struct nicd_error *error)
{
	const struct nic_receipt *outer = op->nic->telling;

	op->nic->telling = &op->receipt;
	nic_done_end(done, error);
	op->nic->telling = outer;
}

/* What is still to do is nobody's work: the Qp may go. */
static void op_leave_qp(struct nic_frmr_op *op)
{
	struct nic_qp *qp = op->qp;

	op->qp = NULL;
	if (qp)
		nic_qp_end_work(qp);
}

/* Its answer was given; the Qp that it was work of may go. */
static void op_end(struct nic_frmr_op *op)
{
	struct nic_qp *qp = op->qp;

	assert(!op->revocation.deadline.armed && !op->revocation.unconfirmed);
	nic_pool_give(&op->nic->frmr_ops, op, op->place);
	if (qp)
		nic_qp_end_work(qp);
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

/* Its close is over. `op` NULL: there was nothing to do for it. */
static void frmr_end(struct nic_frmr *frmr, struct nic_frmr_op *op, struct nic_done *closed)
{
	struct nic_owner *owner = frmr->object.owner;
	struct nic *nic = owner->nic;
	struct nic_pd *pd = frmr->pd;

	assert(frmr->closing && !frmr->op && !frmr->reservation && frmr->n_ranges == 0 && !frmr->tenants);
	nic_object_unlink(&frmr->object, nic);
	nic_account_give(owner->account, NIC_SLOT_MRS, 1);
	if (frmr->many)
		nic->env->free(nic->env, frmr->many, NICD_RANGES * sizeof(*frmr->many));
	if (frmr->spare)
		op_end(frmr->spare);
	if (op)
		op_tell(op, closed, NULL);
	else
		nic_done_end(closed, NULL);
	nic_pool_give(&nic->frmrs, frmr, frmr->object.place);
	if (op)
		op_end(op);
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

/* ---- what is registered */

static const struct nic_range *frmr_ranges(const struct nic_frmr *frmr)
{
	return frmr->n_ranges > 1 ? frmr->many : &frmr->one;
}

unsigned nic_frmr_tag_ranges(const struct nic_frmr *frmr, uint64_t offset, uint64_t length, struct nic_tag_range *ret)
{
	return nic_ranges_cut(frmr_ranges(frmr), frmr->n_ranges, offset, length, ret);
}

/* What it had in use, to be let go when the MR itself may be gone. */
struct users {
	struct nic_tenants *tenants;
	struct nic_mapping *mapping;
	struct nic_memory *memories[NICD_RANGES];
	unsigned n;
};

static void users_let_go(const struct users *users)
{
	for (unsigned i = 0; i < users->n; i++)
		nic_memory_unuse(users->memories[i]);
	if (users->mapping)
		nic_mapping_unuse(users->mapping);
	nic_tenants_free(users->tenants);
}

/* Nothing of a registration is left. */
static void frmr_reset(struct nic_frmr *frmr, struct users *users)
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
	frmr->rights = 0;
	frmr->iova = 0;
	frmr->length = 0;
	nic_account_give(frmr->object.owner->account, NIC_SLOT_PINNED, frmr->pinned);
	frmr->pinned = 0;
}

/* ---- initialize */

static void frmr_initialized(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = op_of(cmd, cmd);
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
		op_tell(op, nic_done_steal(&op->done), &error);
		frmr_release(frmr);
		return;
	}
	op_steal(frmr);
	op_tell(op, op->done, &error);
	op_end(op);
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
		r = op_begin(frmr, err);
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

/* ---- register: checks */

/* The ranges that a registration names, whichever way, and what of them it wants. */
struct extent {
	const struct nic_range *ranges;
	unsigned n_ranges;
	uint32_t first;           /* where they begin in the first page */
	uint64_t pages, total;
};

static int check_ranges(const struct nic_fast_register *what, struct extent *extent, struct nicd_error *err)
{
	int r;

	if (!what->mapping == !what->n_ranges)
		return nicd_refuse(err, NICD_R_MAPPING_OR_RANGES);
	if (what->mapping) {   /* checked when it was built */
		extent->ranges = what->mapping->ranges;
		extent->n_ranges = what->mapping->n_ranges;
		extent->first = nic_mapping_first_byte(what->mapping);
		extent->pages = nic_mapping_pages(what->mapping);
		extent->total = what->mapping->length;
		return 0;
	}
	extent->ranges = what->ranges;
	extent->n_ranges = what->n_ranges;
	r = nic_ranges_check(what->ranges, what->n_ranges, NICD_PAGE, &extent->total, err);
	for (unsigned i = 0; r == 0 && i < what->n_ranges; i++)
		extent->pages += (what->ranges[i].length - 1) / NICD_PAGE + 1;
	return r;
}

static int check_length(const struct nic_frmr *frmr, const struct nic_fast_register *what, const struct extent *extent,
			struct nicd_error *err)
{
	uint64_t skip, left;

	if (extent->pages > frmr->pages)
		return nicd_refuse_at(err, NICD_R_PAGES_BEYOND, frmr->pages, extent->pages);
	if (what->first_byte_offset >= NICD_PAGE)
		return nicd_refuse_at(err, NICD_R_FIRST_BYTE, NICD_PAGE, what->first_byte_offset);
	if (what->first_byte_offset < extent->first)   /* what is before it in its page is not the mapping's */
		return nicd_refuse_at(err, NICD_R_RANGE_BEYOND, extent->first, what->first_byte_offset);
	if (what->length == 0)
		return nicd_refuse_at(err, NICD_R_LENGTH_ZERO, 1, 0);
	skip = what->first_byte_offset - extent->first;
	left = skip < extent->total ? extent->total - skip : 0;
	if (what->length > left)
		return nicd_refuse_at(err, NICD_R_LENGTH_BEYOND, left, what->length);
	return 0;
}

static int check_iova(const struct nic_fast_register *what, struct nicd_error *err)
{
	if (what->iova == 0)
		return nicd_refuse_at(err, NICD_R_IOVA_ZERO, 1, 0);
	if (what->iova % NICD_PAGE != what->first_byte_offset)
		return nicd_refuse_at(err, NICD_R_IOVA_MISFIT, what->first_byte_offset, what->iova % NICD_PAGE);
	if (what->length > UINT64_MAX - what->iova)
		return nicd_refuse_at(err, NICD_R_IOVA_OVERFLOW, UINT64_MAX - what->length, what->iova);
	return 0;
}

static int check_rights(const struct nic_frmr *frmr, const struct nic_fast_register *what, const struct extent *extent, uint32_t rights,
			struct nicd_error *err)
{
	if (nic_rights_remote(rights) && !frmr->remote_access)
		return nicd_refuse_at(err, NICD_R_NO_REMOTE_ACCESS, 0, what->flags);
	for (unsigned i = 0; i < extent->n_ranges; i++)
		if ((rights & NIC_LOCAL_WRITE) && !extent->ranges[i].memory->facts.writable)
			return nicd_refuse_at(err, NICD_R_MEMORY_READ_ONLY, 0, rights);
	return 0;
}

/* The order is the one that frmr.h promises; what is about the Qp is nic_qp_begin_work's. */
static int frmr_check_register(const struct nic_frmr *frmr, const struct nic_fast_register *what, struct extent *extent, uint32_t *rights,
			       struct nicd_error *err)
{
	int r = frmr_check(frmr, NIC_STEP_FAST_REGISTER, err);

	if (r == 0 && !frmr->pd->adapter->provider->up)
		r = nicd_refuse(err, NICD_R_NO_ADAPTER);
	if (r == 0)
		r = nic_op_rights(NIC_OP_FAST_REGISTER, what->flags, rights, err);
	if (r == 0)
		r = check_ranges(what, extent, err);
	if (r == 0)
		r = check_length(frmr, what, extent, err);
	if (r == 0)
		r = check_iova(what, err);
	if (r < 0)
		return r;
	if (*rights & NIC_READ_SINK)   /* a sink is written to, by the device; never by a peer that was not asked */
		*rights |= NIC_LOCAL_WRITE;
	return check_rights(frmr, what, extent, *rights, err);
}

/* ---- register: taking */

static int frmr_take(struct nic_frmr *frmr, const struct nic_range *ranges, unsigned n, struct nicd_error *err)
{
	struct nic_adapter *adapter = frmr->pd->adapter;
	struct nic_env *env = frmr_nic(frmr)->env;
	int r;

	if (n > 1 && !frmr->many) {
		frmr->many = env->alloc(env, NICD_RANGES * sizeof(*frmr->many));
		if (!frmr->many)
			return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	r = op_begin(frmr, err);
	if (r == 0)
		r = nic_ranges_reserve(ranges, n, adapter, err);
	if (r < 0 && frmr->op)
		op_end(op_steal(frmr));
	return r;
}

static void frmr_use(struct nic_frmr *frmr, const struct nic_range *ranges, unsigned n)
{
	struct nic_range *to = n > 1 ? frmr->many : &frmr->one;

	frmr->n_ranges = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		to[i] = ranges[i];
		nic_memory_use(to[i].memory);
	}
}

static void frmr_register_failed(struct nic_frmr *frmr, const struct nicd_error *error)
{
	struct nic_frmr_op *op = frmr->op;
	struct users users;

	nic_ranges_cancel(frmr_ranges(frmr) + op->n_attached, frmr->n_ranges - op->n_attached, frmr->pd->adapter);
	frmr_step(frmr, NIC_STEP_FAILED);
	frmr_reset(frmr, &users);
	if (frmr->closing) {
		op_tell(op, nic_done_steal(&op->done), error);
		op_leave_qp(op);
		frmr_release(frmr);
	} else {
		op_steal(frmr);
		op_tell(op, op->done, error);
		op_end(op);
	}
	users_let_go(&users);
}

static void frmr_set_free(struct nic_frmr *frmr, enum nic_life_step step, struct users *users)
{
	frmr_step(frmr, step);
	assert(frmr->state == NIC_FAST_FREE);
	frmr_reset(frmr, users);
}

/* It was there, and is not any more: the owner hears so, by the answer and by the event. */
static void frmr_registered_and_gone(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = op_steal(frmr);
	struct nicd_error error;
	struct users users;

	frmr_set_free(frmr, NIC_STEP_GONE, &users);
	nicd_refuse(&error, NICD_R_REMOTELY_INVALIDATED);
	op_tell(op, op->done, &error);
	op_end(op);
	users_let_go(&users);
}

static void frmr_tagged(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = op_of(cmd, cmd);
	struct nic_frmr *frmr = op->frmr;
	struct nicd_error error = cmd->error;

	if (error.reason == NICD_R_NONE && !frmr->pd->adapter->provider->up)
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
	if (error.reason != NICD_R_NONE) {
		frmr_register_failed(frmr, &error);
		return;
	}
	if (op->gone && !frmr->closing) {
		frmr_registered_and_gone(frmr);
		return;
	}
	frmr_step(frmr, NIC_STEP_DONE);
	if (frmr->closing) {   /* too late: nobody is told the tokens */
		nicd_refuse(&error, NICD_R_REVOKED);
		op_tell(op, nic_done_steal(&op->done), &error);
		op_leave_qp(op);
		op->order = (struct nic_order){ 0 };
		frmr_drop_start(frmr, NIC_STEP_CLOSE, false, NULL);
		return;
	}
	frmr->valid.local = cmd->tags.local_token;
	frmr->valid.remote = nic_rights_remote(frmr->rights) ? cmd->tags.remote_token : 0;
	op_steal(frmr);
	op_tell(op, op->done, NULL);
	op_end(op);
}

static void frmr_add_tag(struct nic_frmr *frmr)
{
	struct nic_provider *provider = frmr->pd->adapter->provider;
	struct nic_tag_range ranges[NICD_RANGES];
	struct nic_tag what = {
		.serial = frmr->object.serial,
		.generation = frmr->generation,
		.rights = frmr->rights | (nic_rights_remote(frmr->rights) ? NIC_INVALIDATABLE : 0),
		.pd = frmr->pd->object.serial,
		.iova = frmr->iova,
		.length = frmr->length,
		.ranges = ranges,
		.order = frmr->op->order,
	};

	what.n_ranges = nic_frmr_tag_ranges(frmr, 0, frmr->length, ranges);
	nic_cmd_begin(&frmr->op->cmd, frmr_tagged);
	provider->ops->tag_add(provider, &what, &frmr->op->cmd);
}

/* Waits for one attachment after the other, then asks for the tag. */
static void frmr_go_on(struct nic_frmr *frmr)
{
	struct nic_adapter *adapter = frmr->pd->adapter;
	struct nic_frmr_op *op = frmr->op;
	struct nicd_error error;

	if (!nic_ranges_attach(frmr_ranges(frmr), frmr->n_ranges, &op->n_attached, adapter, &op->waiter))
		return;
	if (frmr->closing)
		nicd_refuse(&error, NICD_R_REVOKED);
	else if (!adapter->provider->up)
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
	else if (nic_qp_state(op->qp) != NIC_QP_CONNECTED)
		nicd_refuse(&error, NICD_R_FLUSHED);
	else {
		frmr_add_tag(frmr);
		return;
	}
	frmr_register_failed(frmr, &error);
}

static void frmr_attached(struct nic_waiter *waiter, const struct nicd_error *error)
{
	struct nic_frmr *frmr = op_of(waiter, waiter)->frmr;

	if (error)
		frmr_register_failed(frmr, error);
	else
		frmr_go_on(frmr);
}

/* As work of the Qp, which the op holds from now on. */
static int frmr_charge(struct nic_frmr *frmr, struct nic_qp *qp, const struct nic_range *ranges, unsigned n, uint64_t length,
		       struct nicd_error *err)
{
	struct nic_provider *provider = frmr->pd->adapter->provider;
	struct nic_account *account = frmr->object.owner->account;
	uint64_t pinned = provider->ops->cost(provider, NIC_COST_TAG, length);
	int r = nic_qp_begin_work(qp, frmr->pd, err);

	if (r < 0)
		return r;
	r = nic_account_take(account, NIC_SLOT_PINNED, pinned, err);
	if (r == 0) {
		r = frmr_take(frmr, ranges, n, err);
		if (r < 0)
			nic_account_give(account, NIC_SLOT_PINNED, pinned);
	}
	if (r < 0) {
		nic_qp_end_work(qp);
		return r;
	}
	frmr->pinned = pinned;
	frmr->op->qp = qp;
	frmr->op->order.qp = qp->stream;
	return 0;
}

static void frmr_uncharge(struct nic_frmr *frmr, const struct nic_range *ranges, unsigned n)
{
	nic_ranges_cancel(ranges, n, frmr->pd->adapter);
	nic_account_give(frmr->object.owner->account, NIC_SLOT_PINNED, frmr->pinned);
	frmr->pinned = 0;
	op_end(op_steal(frmr));
}

int nic_frmr_register(struct nic_frmr *frmr, struct nic_qp *qp, const struct nic_fast_register *what, struct nic_done *done,
		      struct nicd_error *err)
{
	struct nic_range ranges[NICD_RANGES];
	struct extent extent = { 0 };
	uint32_t rights;
	unsigned n;
	int r;

	r = frmr_check_register(frmr, what, &extent, &rights, err);
	if (r < 0)
		return r;
	n = nic_ranges_part(extent.ranges, extent.n_ranges, what->first_byte_offset - extent.first, what->length, ranges);
	r = frmr_charge(frmr, qp, ranges, n, what->length, err);
	if (r < 0)
		return r;
	if (what->mapping) {
		r = nic_mapping_use(what->mapping, err);
		if (r < 0) {
			frmr_uncharge(frmr, ranges, n);
			return r;
		}
	}
	frmr->mapping = what->mapping;
	frmr_use(frmr, ranges, n);
	frmr_step(frmr, NIC_STEP_FAST_REGISTER);
	frmr->generation++;
	frmr->rights = (uint8_t)rights;
	frmr->iova = what->iova;
	frmr->length = what->length;
	frmr->op->done = done;
	frmr->op->order.fence = what->flags & NIC_OP_READ_FENCE;
	frmr_go_on(frmr);
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

/* ---- invalidate */

static void frmr_confirmed(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;
	bool promised = op->revocation.promised, closing = frmr->closing;
	struct users users;

	if (op->done || op->closed || !frmr->object.owner->dying)   /* an owner that is dying hears nothing */
		op->receipt.at_ns = op->nic->env->wall(op->nic->env);
	nic_revocation_end(op->nic, &op->revocation);
	op->revocation.promised = false;
	frmr_set_free(frmr, NIC_STEP_DONE, &users);
	if (!closing)
		op_steal(frmr);
	if (promised)
		nic_object_emit(&frmr->object, NIC_EVENT_REVOKE_CONFIRMED, frmr->object.serial, NULL);
	else
		op_tell(op, nic_done_steal(&op->done), NULL);
	if (closing) {
		op_leave_qp(op);
		frmr_release(frmr);
	} else {
		op_end(op);
	}
	users_let_go(&users);
}

/* The device refused. Whoever waits for it may try again; when only the close or a promise is left, the deadline does. */
static void frmr_not_dropped(struct nic_frmr *frmr, const struct nicd_error *cause)
{
	struct nic_frmr_op *op = frmr->op;
	struct nicd_error error = nic_revocation_refused(cause);

	if (frmr->closing || op->revocation.promised) {
		op->order = (struct nic_order){ 0 };   /* nothing is under way that a close would have to overtake */
		nic_revocation_keep(op->nic, &op->revocation);
		op_tell(op, nic_done_steal(&op->done), &error);
		op_leave_qp(op);
		return;
	}
	frmr_step(frmr, NIC_STEP_FAILED);
	nic_revocation_end(op->nic, &op->revocation);   /* it has answered, after all */
	op_steal(frmr);
	op_tell(op, op->done, &error);
	op_end(op);
}

static void frmr_dropped(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = op_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (!op->frmr) {   /* overtaken */
		op_end(op);
	} else if (nic_cmd_gone(cmd)) {
		op->receipt.streams_cut += error.reason == NICD_R_NONE ? cmd->dropped.streams_cut : 0;
		frmr_confirmed(op->frmr);
	} else {
		frmr_not_dropped(op->frmr, &error);
	}
}

static void frmr_drop(struct nic_frmr *frmr)
{
	nic_cmd_begin(&frmr->op->cmd, frmr_dropped);
	nic_adapter_tag_drop(frmr->pd->adapter, frmr->object.serial, frmr->generation, &frmr->op->order, &frmr->op->cmd);
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

/* With an op, by a step that leads to INVALIDATING: the tokens are void from here on. `waits`: not for the device yet. */
static void frmr_drop_start(struct nic_frmr *frmr, enum nic_life_step step, bool waits, const struct news *news)
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
	r = op_begin(frmr, err);
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
static void frmr_deadline(struct nic_deadline *deadline)
{
	struct nic_frmr_op *op = op_of(deadline, revocation.deadline);
	struct nic_frmr *frmr = op->frmr;
	struct nic_done *done = nic_done_steal(&op->done);
	bool drops = frmr->state == NIC_FAST_INVALIDATING;
	struct nicd_error error;

	if (drops)
		nic_revocation_late(op->nic, &op->revocation);
	if (done) {
		error = nic_revocation_promise(&op->revocation);
		op_tell(op, done, &error);
	} else if (nic_revocation_again(op->nic, &op->revocation)) {
		if (drops)
			frmr_drop(frmr);
		else
			frmr_release(frmr);
	}
}

int nic_frmr_revoke(struct nic_frmr *frmr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	const struct news news = { NIC_EVENT_REVOKED, why };
	bool overtakes = !frmr->closing && is_ordered(frmr);
	struct nic_frmr_op *op;
	int r;

	if (frmr->closing && frmr->op && frmr->op->waits) {   /* closed by its owner, who has left windows behind */
		frmr->op->done = done;
		frmr_wait_no_more(frmr);
		nic_tenants_end(frmr->tenants, true, &frmr->op->receipt);
		return 0;
	}
	/* Whoever asked for that one is answered with it. */
	if (overtakes) {
		op = op_new(frmr, err);
		if (!op)
			return -ENOMEM;
		frmr_overtake(frmr, op);
		frmr_drop(frmr);
		return nicd_refuse(err, NICD_R_DEVICE_BUSY);
	}
	r = frmr_check(frmr, NIC_STEP_INVALIDATE, err);
	if (r == 0)
		r = op_begin(frmr, err);
	if (r < 0)
		return r;
	frmr->op->done = done;
	frmr_drop_start(frmr, NIC_STEP_INVALIDATE, false, why ? &news : NULL);
	return 0;
}

void nic_frmr_invalidated(struct nic_frmr *frmr, uint32_t generation)
{
	static const struct news news = { NIC_EVENT_REMOTE_INVALIDATED, NULL };
	struct users users;

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
		if (op_begin(frmr, NULL) == 0)
			frmr_drop_start(frmr, NIC_STEP_INVALIDATE, false, &news);
		return;
	}
	frmr_set_free(frmr, NIC_STEP_GONE, &users);
	nic_object_emit(&frmr->object, NIC_EVENT_REMOTE_INVALIDATED, frmr->object.serial, NULL);
	users_let_go(&users);
}

/* A drop under way is the provider's to end; one that waits for its next try has nothing to wait for any more. */
bool nic_frmr_lost(struct nic_frmr *frmr)
{
	struct nicd_error why;
	const struct news news = { NIC_EVENT_REVOKED, &why };
	bool valid = frmr->state == NIC_FAST_VALID;

	if (valid || frmr->state == NIC_FAST_ERROR) {
		if (op_begin(frmr, NULL) < 0)
			return false;
		nicd_refuse(&why, NICD_R_DEVICE_LOST);
		frmr_drop_start(frmr, NIC_STEP_LOST, false, valid ? &news : NULL);
	} else if (frmr->op && nic_revocation_hurry(&frmr->op->revocation)) {
		if (frmr->state == NIC_FAST_INVALIDATING)
			frmr_drop(frmr);
		else
			frmr_release(frmr);
	}
	return true;
}

/* ---- close */

static void frmr_released(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = op_of(cmd, cmd);
	struct nic_frmr *frmr = op->frmr;

	if (nic_cmd_gone(cmd)) {
		nic_revocation_end(op->nic, &op->revocation);
		frmr->reservation = 0;
		frmr_release(frmr);
		return;
	}
	nic_revocation_keep(op->nic, &op->revocation);
}

/* Closing, with nothing registered: the reservation goes, then it ends. */
static void frmr_release(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;

	assert(frmr->closing && (frmr->state == NIC_FAST_FREE || frmr->state == NIC_FAST_CREATED));
	if (frmr->reservation) {
		nic_cmd_begin(&op->cmd, frmr_released);
		nic_adapter_tag_drop(frmr->pd->adapter, frmr->reservation, 1, NULL, &op->cmd);
	} else {
		op_steal(frmr);
		frmr_end(frmr, op, op->closed);
	}
}

int nic_frmr_prepare_close(struct nic_frmr *frmr, struct nicd_error *err)
{
	if (frmr->state == NIC_FAST_CREATED)
		return 0;
	if (op_begin(frmr, err) < 0)
		return -ENOMEM;
	if (is_ordered(frmr) && !frmr->spare)
		frmr->spare = op_new(frmr, err);
	return is_ordered(frmr) && !frmr->spare ? -ENOMEM : 0;
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
	if (frmr->state == NIC_FAST_FREE)
		frmr_release(frmr);
	else if (frmr->state == NIC_FAST_VALID || frmr->state == NIC_FAST_ERROR)
		frmr_drop_start(frmr, NIC_STEP_CLOSE, waits, NULL);
}
