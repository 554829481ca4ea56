/* SPDX-License-Identifier: MIT */
/*
 * Registrations: checked, paid for, and made known to the device, one memory after the other and then the tag. On failure nothing of one is
 * left.
 */
#include "nicd/mr-private.h"

static void mr_tagged(struct nic_cmd *cmd);

/* ---- checks */

/* What a registration comes to. */
struct plan {
	unsigned n_ranges;   /* those that `length` needs */
	uint64_t length;
	uint32_t rights;
};

static int check_ranges(const struct nic_register *what, struct plan *plan, struct nicd_error *err)
{
	uint64_t total, sum = 0;
	int r = nic_ranges_check(what->ranges, what->n_ranges, 0, &total, err);

	if (r < 0)
		return r;
	if (what->length > total)
		return nicd_refuse_at(err, NICD_R_LENGTH_BEYOND, total, what->length);
	plan->length = what->length ? what->length : total;
	while (sum < plan->length)
		sum += what->ranges[plan->n_ranges++].length;
	return 0;
}

static int check_iova(const struct nic_register *what, uint64_t length, struct nicd_error *err)
{
	uint64_t page = what->ranges[0].memory->facts.page_size;
	uint64_t wanted = what->ranges[0].offset % page;

	if (what->iova == 0)
		return nicd_refuse_at(err, NICD_R_IOVA_ZERO, 1, 0);
	if (what->iova % page != wanted)
		return nicd_refuse_at(err, NICD_R_IOVA_MISFIT, wanted, what->iova % page);
	if (length > UINT64_MAX - what->iova)
		return nicd_refuse_at(err, NICD_R_IOVA_OVERFLOW, UINT64_MAX - length, what->iova);
	return 0;
}

/* The order is the one that mr.h promises. */
static int mr_check(struct nic_mr *mr, const struct nic_register *what, struct plan *plan, struct nicd_error *err)
{
	const struct nic_provider *provider = mr->pd->adapter->provider;
	int r;

	if (mr->closing)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_CREATED, mr->state);
	r = nic_life_check(NIC_KIND_NORMAL, mr->state, NIC_STEP_REGISTER, err);
	if (r < 0)
		return r;
	if (!provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	if (what->n_ranges == 0 || what->n_ranges > NICD_RANGES)
		return nicd_refuse_at(err, NICD_R_COUNT, NICD_RANGES, what->n_ranges);
	if ((what->flags & ~(uint32_t)NIC_RIGHTS_ALL) || ((what->flags & 0x4) && !(what->flags & NIC_LOCAL_WRITE)))
		return nicd_refuse_at(err, NICD_R_FLAGS, NIC_RIGHTS_ALL, what->flags);
	r = check_ranges(what, plan, err);
	if (r < 0)
		return r;
	if (provider->max_registration > 0 && plan->length > provider->max_registration)
		return nicd_refuse_at(err, NICD_R_LENGTH_LIMIT, provider->max_registration, plan->length);
	r = check_iova(what, plan->length, err);
	if (r < 0)
		return r;
	plan->rights = what->flags;
	if (plan->rights & NIC_READ_SINK)   /* a sink is written to, by the device; never by a peer that was not asked */
		plan->rights |= NIC_LOCAL_WRITE;
	for (unsigned i = 0; i < plan->n_ranges; i++)
		if ((plan->rights & NIC_LOCAL_WRITE) && !what->ranges[i].memory->facts.writable)
			return nicd_refuse_at(err, NICD_R_MEMORY_READ_ONLY, 0, plan->rights);
	return 0;
}

/* ---- taking */

static int mr_reserve(struct nic_mr *mr, const struct nic_register *what, const struct plan *plan, struct nic_range **many,
		      struct nicd_error *err)
{
	struct nic_adapter *adapter = mr->pd->adapter;
	struct nic_env *env = mr_nic(mr)->env;
	unsigned n = plan->n_ranges;
	int r = nic_ranges_reserve(what->ranges, n, adapter, err);

	*many = NULL;
	if (r < 0)
		return r;
	if (n > 1) {
		*many = env->alloc(env, n * sizeof(**many));
		if (!*many)
			r = nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	if (r == 0)
		r = mr_op_begin(mr, false, err);
	if (r == 0)
		return 0;
	if (*many)
		env->free(env, *many, n * sizeof(**many));
	nic_ranges_cancel(what->ranges, n, adapter);
	return r;
}

/* All that a registration needs, before it starts. */
static int mr_take(struct nic_mr *mr, const struct nic_register *what, const struct plan *plan, struct nic_range **many,
		   struct nicd_error *err)
{
	struct nic_provider *provider = mr->pd->adapter->provider;
	uint64_t pinned = provider->ops->cost(provider, NIC_COST_TAG, plan->length);
	int r = nic_account_take(mr->object.owner->account, NIC_SLOT_PINNED, pinned, err);

	if (r < 0)
		return r;
	r = mr_reserve(mr, what, plan, many, err);
	if (r < 0)
		nic_account_give(mr->object.owner->account, NIC_SLOT_PINNED, pinned);
	else
		mr->pinned = pinned;
	return r;
}

static void mr_use_ranges(struct nic_mr *mr, const struct nic_register *what, const struct plan *plan, struct nic_range *many)
{
	uint64_t left = plan->length;

	mr->n_ranges = (uint8_t)plan->n_ranges;
	if (many) {
		mr->many = many;
	} else {
		mr->one.memory = what->ranges[0].memory;
		mr->one.offset = what->ranges[0].offset;
	}
	for (unsigned i = 0; i < plan->n_ranges; i++) {
		if (many) {
			many[i] = what->ranges[i];
			if (many[i].length > left)
				many[i].length = left;
			left -= many[i].length;
		}
		nic_memory_use(what->ranges[i].memory);
	}
}

/* ---- the device */

static void mr_register_failed(struct nic_mr *mr, const struct nicd_error *error)
{
	unsigned attached = mr->op->n_attached;
	struct nic *nic = mr_nic(mr);
	bool closing = mr->closing;
	struct mr_ranges ranges;
	struct nic_range one;
	struct nic_mr_op *op;

	nic_ranges_cancel(mr_ranges(mr, &one) + attached, mr->n_ranges - attached, mr->pd->adapter);
	mr_step(mr, NIC_STEP_FAILED);
	ranges = mr_reset(mr);
	op = mr_op_steal(mr);
	op->receipt.at_ns = nic->env->wall(nic->env);
	nic_done_end(op->done, error);
	if (closing)
		mr_end(mr, op->closed);
	mr_op_end(nic, op);
	mr_ranges_let_go(&ranges);
}

static void mr_add_tag(struct nic_mr *mr)
{
	struct nic_provider *provider = mr->pd->adapter->provider;
	struct nic_tag_range ranges[NICD_RANGES];
	struct nic_tag what = {
		.serial = mr->object.serial,
		.generation = mr->generation,
		.rights = mr->rights,
		.pd = mr->pd->object.serial,
		.iova = mr->iova,
		.length = mr->length,
		.ranges = ranges,
	};

	what.n_ranges = nic_mr_tag_ranges(mr, 0, mr->length, ranges);
	nic_cmd_begin(&mr->op->cmd, mr_tagged);
	provider->ops->tag_add(provider, &what, &mr->op->cmd);
}

/* Waits for one attachment after the other, then asks for the tag. */
static void mr_go_on(struct nic_mr *mr)
{
	struct nic_adapter *adapter = mr->pd->adapter;
	struct nic_mr_op *op = mr->op;
	struct nicd_error error;
	struct nic_range one;

	if (!nic_ranges_attach(mr_ranges(mr, &one), mr->n_ranges, &op->n_attached, adapter, &op->waiter))
		return;
	if (adapter->provider->up && !mr->closing) {
		mr_add_tag(mr);
		return;
	}
	nicd_refuse(&error, mr->closing ? NICD_R_REVOKED : NICD_R_DEVICE_LOST);
	mr_register_failed(mr, &error);
}

void mr_attached(struct nic_waiter *waiter, const struct nicd_error *error)
{
	struct nic_mr *mr = mr_op_of(waiter, waiter)->mr;

	if (error)
		mr_register_failed(mr, error);
	else
		mr_go_on(mr);
}

static void mr_tagged(struct nic_cmd *cmd)
{
	struct nic_mr_op *op = mr_op_of(cmd, cmd);
	struct nic_mr *mr = op->mr;
	struct nic *nic = mr_nic(mr);
	struct nicd_error error = cmd->error;

	if (error.reason != NICD_R_NONE) {
		mr_register_failed(mr, &error);
		return;
	}
	if (!mr->pd->adapter->provider->up) {
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
		mr_register_failed(mr, &error);
		return;
	}
	mr_step(mr, NIC_STEP_DONE);
	if (mr->closing) {   /* too late: nobody is told the tokens */
		nicd_refuse(&error, NICD_R_REVOKED);
		nic_done_end(nic_done_steal(&op->done), &error);
		mr_revoke_start(mr, NIC_STEP_CLOSE, false, NULL);
		return;
	}
	mr->local_token = cmd->tags.local_token;
	mr->remote_token = nic_rights_remote(mr->rights) ? cmd->tags.remote_token : 0;
	mr_op_steal(mr);
	nic_done_end(op->done, NULL);
	mr_op_end(nic, op);
}

int nic_mr_register(struct nic_mr *mr, const struct nic_register *what, struct nic_done *done, struct nicd_error *err)
{
	struct plan plan = { 0 };
	struct nic_range *many;
	int r;

	r = mr_check(mr, what, &plan, err);
	if (r < 0)
		return r;
	r = mr_take(mr, what, &plan, &many, err);
	if (r < 0)
		return r;
	mr_use_ranges(mr, what, &plan, many);
	mr_step(mr, NIC_STEP_REGISTER);
	mr->generation++;
	mr->rights = (uint8_t)plan.rights;
	mr->iova = what->iova;
	mr->length = plan.length;
	mr->op->done = done;
	mr_go_on(mr);
	return 0;
}
