/* SPDX-License-Identifier: MIT */
/*
 * Fast registrations: checked, paid for, and made known to the device, one memory after the other and then the tag. On failure nothing of
 * one is left.
 */
#include "nicd/frmr-private.h"
#include "nicd/op.h"

static void frmr_tagged(struct nic_cmd *cmd);

/* ---- checks */

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

/* ---- taking */

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
	r = frmr_op_begin(frmr, err);
	if (r == 0)
		r = nic_ranges_reserve(ranges, n, adapter, err);
	if (r < 0 && frmr->op)
		frmr_op_end(frmr_op_steal(frmr));
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
	frmr_op_end(frmr_op_steal(frmr));
}

/* ---- the device */

static bool is_to_go(const struct nic_frmr *frmr)
{
	return frmr->closing || frmr->evicted;
}

static void frmr_register_failed(struct nic_frmr *frmr, const struct nicd_error *error)
{
	struct nic_frmr_op *op = frmr->op;
	struct frmr_users users;

	nic_ranges_cancel(frmr_ranges(frmr) + op->n_attached, frmr->n_ranges - op->n_attached, frmr->pd->adapter);
	frmr_step(frmr, NIC_STEP_FAILED);
	frmr_reset(frmr, &users);
	if (frmr->closing) {
		frmr_op_tell(op, nic_done_steal(&op->done), error);
		frmr_op_leave_qp(op);
		frmr_release(frmr);
	} else {
		frmr_op_steal(frmr);
		frmr_op_tell(op, op->done, error);
		frmr_op_end(op);
	}
	frmr_users_let_go(&users);
}

/* It was there, and is not any more: the owner hears so, by the answer and by the event. */
static void frmr_registered_and_gone(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr_op_steal(frmr);
	struct nicd_error error;
	struct frmr_users users;

	frmr_set_free(frmr, NIC_STEP_GONE, &users);
	nicd_refuse(&error, NICD_R_REMOTELY_INVALIDATED);
	frmr_op_tell(op, op->done, &error);
	frmr_op_end(op);
	frmr_users_let_go(&users);
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
	if (is_to_go(frmr))
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

void frmr_attached(struct nic_waiter *waiter, const struct nicd_error *error)
{
	struct nic_frmr *frmr = frmr_op_of(waiter, waiter)->frmr;

	if (error)
		frmr_register_failed(frmr, error);
	else
		frmr_go_on(frmr);
}

/* Nobody is told the tokens. */
static void frmr_registered_too_late(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;
	struct nic_done *done = nic_done_steal(&op->done);
	struct nicd_error error;

	nicd_refuse(&error, NICD_R_REVOKED);
	frmr_op_leave_qp(op);
	op->order = (struct nic_order){ 0 };
	if (frmr->closing) {
		frmr_op_tell(op, done, &error);
		frmr_drop_start(frmr, NIC_STEP_CLOSE, false, NULL);
	} else {
		frmr_drop_start(frmr, NIC_STEP_INVALIDATE, false, NULL);
		nic_done_end(done, &error);
	}
}

static void frmr_tagged(struct nic_cmd *cmd)
{
	struct nic_frmr_op *op = frmr_op_of(cmd, cmd);
	struct nic_frmr *frmr = op->frmr;
	struct nicd_error error = cmd->error;

	if (error.reason == NICD_R_NONE && !frmr->pd->adapter->provider->up)
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
	if (error.reason == NICD_R_FLUSHED && is_to_go(frmr))
		nicd_refuse(&error, NICD_R_REVOKED);
	if (error.reason != NICD_R_NONE) {
		frmr_register_failed(frmr, &error);
		return;
	}
	if (op->gone && !is_to_go(frmr)) {
		frmr_registered_and_gone(frmr);
		return;
	}
	frmr_step(frmr, NIC_STEP_DONE);
	if (is_to_go(frmr)) {
		frmr_registered_too_late(frmr);
		return;
	}
	frmr->valid.local = cmd->tags.local_token;
	frmr->valid.remote = nic_rights_remote(frmr->rights) ? cmd->tags.remote_token : 0;
	frmr_op_steal(frmr);
	frmr_op_tell(op, op->done, NULL);
	frmr_op_end(op);
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
