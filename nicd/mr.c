/* SPDX-License-Identifier: MIT */
/*
 * Memory regions: the state machine of mr.h. An MR lives from nic_mr_new until its close ends. While it is registered, each of its
 * ranges is a user of a Memory. Revoking has one way for all who ask (deregister, revoke, close, a lost device):
 *
 *   mr_revoke_start -> exports killed -> mr_drop -> mr_dropped -> mr_confirmed
 *
 * A callback of the caller is the last thing done to an MR that is not closing, because the callback may close it. One that is
 * closing is freed by mr_end alone.
 */
#include "nicd/mr.h"

#include <assert.h>
#include <string.h>

#include "nicd/door.h"

static void mr_tagged(struct nic_cmd *cmd);
static void mr_dropped(struct nic_cmd *cmd);
static void mr_deadline(struct nic_deadline *deadline);
static void mr_attached(struct nic_waiter *waiter, const struct nicd_error *error);

#define mr_of(ptr, member) ((struct nic_mr *)((char *)(ptr) - offsetof(struct nic_mr, member)))

const char *nic_mr_state_name(enum nic_mr_state state)
{
	static const char *const names[] = {
		[NIC_MR_CREATED] = "CREATED",
		[NIC_MR_REGISTERING] = "REGISTERING",
		[NIC_MR_REGISTERED] = "REGISTERED",
		[NIC_MR_REVOKING] = "REVOKING",
		[NIC_MR_ERROR] = "ERROR",
	};

	return names[state];
}

static struct nic *mr_nic(const struct nic_mr *mr)
{
	return mr->object.owner->nic;
}

int nic_mr_new(struct nic_mr **ret, struct nic_pd *pd, struct nicd_error *err)
{
	struct nic_owner *owner = pd->object.owner;
	struct nic_env *env = owner->nic->env;
	struct nic_mr *mr;
	int r;

	if (pd->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	mr = env->alloc(env, sizeof(*mr));
	if (!mr)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	r = nic_charge(owner->account, &mr->charge, NIC_SLOT_MRS, 1, err);
	if (r == 0 && nic_object_link(&mr->object, owner->nic, owner, NIC_MR, true) < 0)
		r = nicd_refuse(err, NICD_R_NO_MEMORY);
	if (r < 0) {
		nic_charge_release(&mr->charge);
		env->free(env, mr, sizeof(*mr));
		return r;
	}
	mr->pd = pd;
	nic_pd_ref(pd);
	TAILQ_INIT(&mr->exports);
	mr->waiter.fn = mr_attached;
	mr->deadline.fn = mr_deadline;
	mr->receipt = &mr->last;
	*ret = mr;
	return 0;
}

/* Its close is over. */
static void mr_end(struct nic_mr *mr)
{
	struct nic_owner *owner = mr->object.owner;
	struct nic_env *env = owner->nic->env;
	struct nic_pd *pd = mr->pd;
	struct nic_done *closed = nic_done_steal(&mr->closed);

	assert(mr->state == NIC_MR_CREATED && mr->closing && !mr->done && !mr->deadline.armed);
	nic_object_unlink(&mr->object, owner->nic);
	nic_charge_release(&mr->charge);
	nic_done_end(closed, NULL);
	if (mr->last.exports)
		env->free(env, mr->last.exports, NIC_RECEIPT_EXPORTS * sizeof(*mr->last.exports));
	env->free(env, mr, sizeof(*mr));
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

/* ---- ranges */

/* Ranges taken from an MR, to be let go when the MR itself may be gone. */
struct ranges {
	struct nic *nic;
	struct nic_range one;
	struct nic_range *many;
	unsigned n;
};

static struct ranges mr_take_ranges(struct nic_mr *mr)
{
	struct ranges ranges = { .nic = mr_nic(mr), .one = mr->one, .n = mr->n_ranges };

	if (mr->ranges != &mr->one)
		ranges.many = mr->ranges;
	mr->ranges = NULL;
	mr->n_ranges = 0;
	return ranges;
}

static void ranges_let_go(struct ranges *ranges)
{
	struct nic_env *env = ranges->nic->env;

	for (unsigned i = 0; i < ranges->n; i++)
		nic_memory_unuse(ranges->many ? ranges->many[i].memory : ranges->one.memory);
	if (ranges->many)
		env->free(env, ranges->many, ranges->n * sizeof(*ranges->many));
}

unsigned nic_mr_tag_ranges(const struct nic_mr *mr, uint64_t offset, uint64_t length, struct nic_tag_range *ret)
{
	unsigned n = 0;

	for (unsigned i = 0; i < mr->n_ranges && length > 0; i++) {
		const struct nic_range *range = &mr->ranges[i];
		uint64_t part;

		if (offset >= range->length) {
			offset -= range->length;
			continue;
		}
		part = range->length - offset;
		if (part > length)
			part = length;
		ret[n++] = (struct nic_tag_range){
			.memory = range->memory->object.serial,
			.offset = range->offset + offset,
			.length = part,
		};
		offset = 0;
		length -= part;
	}
	return n;
}

/* ---- register: checks */

/* What a registration comes to. */
struct plan {
	unsigned n_ranges;   /* those that `length` needs */
	uint64_t length;
	uint32_t rights;
};

static int check_range(const struct nic_register *what, unsigned i, struct nicd_error *err)
{
	const struct nic_range *range = &what->ranges[i];
	uint64_t page = range->memory->facts.page_size, size = range->memory->facts.size, end;

	if (range->memory->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	if (range->length == 0)
		return nicd_refuse_at(err, NICD_R_LENGTH_ZERO, 1, 0);
	if (range->length > UINT64_MAX - range->offset)
		return nicd_refuse_at(err, NICD_R_RANGE_OVERFLOW, UINT64_MAX - range->offset, range->length);
	end = range->offset + range->length;
	if (!nic_range_ok(range->offset, range->length, size))
		return nicd_refuse_at(err, NICD_R_RANGE_BEYOND, size, end);
	if (i > 0 && range->offset % page != 0)
		return nicd_refuse_at(err, NICD_R_RANGE_NOT_JOINED, page, range->offset);
	if (i + 1 < what->n_ranges && end % page != 0)
		return nicd_refuse_at(err, NICD_R_RANGE_NOT_JOINED, page, end);
	return 0;
}

static int check_ranges(const struct nic_register *what, struct plan *plan, struct nicd_error *err)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < what->n_ranges; i++) {
		int r = check_range(what, i, err);

		if (r < 0)
			return r;
		if (what->ranges[i].length > UINT64_MAX - total)
			return nicd_refuse_at(err, NICD_R_RANGE_OVERFLOW, UINT64_MAX - total, what->ranges[i].length);
		total += what->ranges[i].length;
		if (plan->n_ranges == 0 && what->length > 0 && total >= what->length)
			plan->n_ranges = i + 1;
	}
	if (what->length > total)
		return nicd_refuse_at(err, NICD_R_LENGTH_BEYOND, total, what->length);
	plan->length = what->length ? what->length : total;
	if (plan->n_ranges == 0)
		plan->n_ranges = what->n_ranges;
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

	if (mr->state != NIC_MR_CREATED || mr->closing)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_CREATED, mr->state);
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

/* ---- register: taking */

static int mr_reserve(struct nic_mr *mr, const struct nic_register *what, const struct plan *plan, struct nicd_error *err)
{
	struct nic_adapter *adapter = mr->pd->adapter;
	struct nic_provider *provider = adapter->provider;
	struct nic_env *env = mr_nic(mr)->env;
	unsigned reserved = 0;
	int r;

	r = nic_charge(mr->object.owner->account, &mr->charge_pinned, NIC_SLOT_PINNED,
		       provider->ops->cost(provider, NIC_COST_TAG, plan->length), err);
	while (r == 0 && reserved < plan->n_ranges) {
		r = nic_memory_reserve(what->ranges[reserved].memory, adapter, err);
		reserved += r == 0;
	}
	mr->ranges = &mr->one;
	if (r == 0 && plan->n_ranges > 1) {
		mr->ranges = env->alloc(env, plan->n_ranges * sizeof(*mr->ranges));
		if (!mr->ranges)
			r = nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	if (r == 0)
		return 0;
	while (reserved-- > 0)
		nic_memory_cancel(what->ranges[reserved].memory, adapter);
	nic_charge_release(&mr->charge_pinned);
	mr->ranges = NULL;
	return r;
}

static void mr_use_ranges(struct nic_mr *mr, const struct nic_register *what, const struct plan *plan)
{
	uint64_t left = plan->length;

	mr->n_ranges = plan->n_ranges;
	for (unsigned i = 0; i < plan->n_ranges; i++) {
		mr->ranges[i] = what->ranges[i];
		if (mr->ranges[i].length > left)
			mr->ranges[i].length = left;
		left -= mr->ranges[i].length;
		nic_memory_use(mr->ranges[i].memory);
	}
}

/* Back to CREATED: nothing of a registration is left. The caller lets go of the ranges when it is done with the MR. */
static struct ranges mr_reset(struct nic_mr *mr)
{
	mr->state = NIC_MR_CREATED;
	mr->local_token = 0;
	mr->remote_token = 0;
	mr->rights = 0;
	mr->iova = 0;
	mr->length = 0;
	nic_charge_release(&mr->charge_pinned);
	return mr_take_ranges(mr);
}

static void mr_register_failed(struct nic_mr *mr, const struct nicd_error *error)
{
	struct nic_adapter *adapter = mr->pd->adapter;
	struct nic_done *done = nic_done_steal(&mr->done);
	bool closing = mr->closing;
	struct ranges ranges;

	for (unsigned i = mr->n_attached; i < mr->n_ranges; i++)
		nic_memory_cancel(mr->ranges[i].memory, adapter);
	ranges = mr_reset(mr);
	nic_done_end(done, error);
	if (closing)
		mr_end(mr);
	ranges_let_go(&ranges);
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
	nic_cmd_begin(&mr->cmd, mr_tagged);
	provider->ops->tag_add(provider, &what, &mr->cmd);
}

/* Waits for one attachment after the other, then asks for the tag. */
static void mr_go_on(struct nic_mr *mr)
{
	struct nic_adapter *adapter = mr->pd->adapter;
	struct nicd_error error;

	for (; mr->n_attached < mr->n_ranges; mr->n_attached++) {
		struct nic_memory *memory = mr->ranges[mr->n_attached].memory;

		if (!nic_memory_attached(memory, adapter)) {
			nic_memory_attach(memory, adapter, &mr->waiter);
			return;
		}
	}
	if (adapter->provider->up && !mr->closing) {
		mr_add_tag(mr);
		return;
	}
	nicd_refuse(&error, mr->closing ? NICD_R_REVOKED : NICD_R_DEVICE_LOST);
	mr_register_failed(mr, &error);
}

static void mr_attached(struct nic_waiter *waiter, const struct nicd_error *error)
{
	struct nic_mr *mr = mr_of(waiter, waiter);

	if (error)
		mr_register_failed(mr, error);
	else
		mr_go_on(mr);
}

int nic_mr_register(struct nic_mr *mr, const struct nic_register *what, struct nic_done *done, struct nicd_error *err)
{
	struct plan plan = { 0 };
	int r;

	r = mr_check(mr, what, &plan, err);
	if (r < 0)
		return r;
	r = mr_reserve(mr, what, &plan, err);
	if (r < 0)
		return r;
	mr_use_ranges(mr, what, &plan);
	mr->state = NIC_MR_REGISTERING;
	mr->generation++;
	mr->rights = plan.rights;
	mr->iova = what->iova;
	mr->length = plan.length;
	mr->n_attached = 0;
	mr->done = done;
	mr_go_on(mr);
	return 0;
}

static void mr_revoke_start(struct nic_mr *mr, const struct nicd_error *why);

static void mr_tagged(struct nic_cmd *cmd)
{
	struct nic_mr *mr = mr_of(cmd, cmd);
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
	if (mr->closing) {   /* too late: nobody is told the tokens */
		mr->state = NIC_MR_REVOKING;
		nicd_refuse(&error, NICD_R_REVOKED);
		nic_done_end(nic_done_steal(&mr->done), &error);
		mr_revoke_start(mr, NULL);
		return;
	}
	mr->state = NIC_MR_REGISTERED;
	mr->local_token = cmd->tags.local_token;
	mr->remote_token = nic_rights_remote(mr->rights) ? cmd->tags.remote_token : 0;
	nic_done_end(nic_done_steal(&mr->done), NULL);
}

/* ---- tokens */

int nic_mr_local_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err)
{
	if (mr->state != NIC_MR_REGISTERED)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_REGISTERED, mr->state);
	*ret = mr->local_token;
	return 0;
}

int nic_mr_remote_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err)
{
	if (mr->state != NIC_MR_REGISTERED)
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_REGISTERED, mr->state);
	if (!nic_rights_remote(mr->rights))
		return nicd_refuse_at(err, NICD_R_NO_REMOTE_RIGHTS, NIC_REMOTE_READ, mr->rights);
	*ret = mr->remote_token;
	return 0;
}

/* ---- revoke */

static void mr_confirmed(struct nic_mr *mr)
{
	struct nic *nic = mr_nic(mr);
	struct nic_done *done = nic_done_steal(&mr->done);
	bool closing = mr->closing, promised = mr->promised;
	struct ranges ranges;

	mr->last.at_ns = nic->env->wall(nic->env);
	nic_deadline_disarm(nic, &mr->deadline);
	if (mr->unconfirmed)
		nic->quarantined--;
	mr->unconfirmed = false;
	mr->promised = false;
	mr->retry = false;
	ranges = mr_reset(mr);
	if (promised)
		nic_object_emit(&mr->object, NIC_EVENT_REVOKE_CONFIRMED, mr->object.serial, NULL);
	else
		nic_done_end(done, NULL);
	if (closing)
		mr_end(mr);
	ranges_let_go(&ranges);
}

/* The device refused. Whoever waits for it may try again; when only the close or a promise is left, the deadline does. */
static void mr_not_dropped(struct nic_mr *mr, const struct nicd_error *cause)
{
	struct nic_done *done = nic_done_steal(&mr->done);
	struct nicd_error error;

	nicd_refuse(&error, NICD_R_DEVICE_FAILED);
	error.provider_error = cause->provider_error ? cause->provider_error : nicd_reason_info(cause->reason)->err;
	error.observed = cause->reason;
	if (mr->closing || mr->promised) {
		mr->retry = true;
		if (!mr->deadline.armed)
			nic_deadline_arm(mr_nic(mr), &mr->deadline);
	} else {
		mr->state = NIC_MR_ERROR;
		nic_deadline_disarm(mr_nic(mr), &mr->deadline);
	}
	nic_done_end(done, &error);
}

static void mr_dropped(struct nic_cmd *cmd)
{
	struct nic_mr *mr = mr_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (nic_cmd_gone(cmd)) {
		mr->last.streams_cut += error.reason == NICD_R_NONE ? cmd->dropped.streams_cut : 0;
		mr_confirmed(mr);
	} else {
		mr_not_dropped(mr, &error);
	}
}

static void mr_drop(struct nic_mr *mr)
{
	nic_cmd_begin(&mr->cmd, mr_dropped);
	nic_adapter_tag_drop(mr->pd->adapter, mr->object.serial, mr->generation, &mr->cmd);
}

/*
 * From REGISTERED or ERROR: the tokens are void from here on. Exports that are being killed stand behind the others in the list, so the
 * loop ends at the first of them; each that dies leaves the list, and the last one goes on with mr_drop.
 */
static void mr_revoke_start(struct nic_mr *mr, const struct nicd_error *why)
{
	struct nic_export *door;

	mr->state = NIC_MR_REVOKING;
	mr->local_token = 0;
	mr->remote_token = 0;
	mr->last.at_ns = 0;
	mr->last.streams_cut = 0;
	mr->last.grants = 0;
	mr->last.n_exports = 0;
	nic_deadline_arm(mr_nic(mr), &mr->deadline);
	mr->killing = true;
	if (why)
		nic_object_emit(&mr->object, NIC_EVENT_REVOKED, mr->object.serial, why);
	while ((door = TAILQ_FIRST(&mr->exports)) && !door->killed)
		nic_door_kill(door, NULL);
	mr->killing = false;
	if (TAILQ_EMPTY(&mr->exports))
		mr_drop(mr);
}

void nic_mr_export_died(struct nic_mr *mr, const struct nic_export *door)
{
	if (mr->state != NIC_MR_REVOKING)
		return;
	if (mr->last.n_exports < NIC_RECEIPT_EXPORTS)
		mr->last.exports[mr->last.n_exports] = door->object.serial;
	mr->last.n_exports++;
	mr->last.grants += door->grants;
	mr->last.streams_cut += door->streams_cut;
	if (TAILQ_EMPTY(&mr->exports) && !mr->killing)
		mr_drop(mr);
}

int nic_mr_expect_exports(struct nic_mr *mr, struct nicd_error *err)
{
	struct nic_env *env = mr_nic(mr)->env;

	if (!mr->last.exports)
		mr->last.exports = env->alloc(env, NIC_RECEIPT_EXPORTS * sizeof(*mr->last.exports));
	return mr->last.exports ? 0 : nicd_refuse(err, NICD_R_NO_MEMORY);
}

/* Not confirmed in time. An answer is owed by now to whoever asked; a refused drop is asked for again. */
static void mr_deadline(struct nic_deadline *deadline)
{
	struct nic_mr *mr = mr_of(deadline, deadline);
	struct nic_done *done = nic_done_steal(&mr->done);
	struct nicd_error error;

	if (!mr->unconfirmed)
		mr_nic(mr)->quarantined++;
	mr->unconfirmed = true;
	if (done) {
		mr->promised = true;
		nicd_refuse(&error, NICD_R_REVOKE_UNCONFIRMED);
		nic_done_end(done, &error);
	} else if (mr->retry) {
		mr->retry = false;
		nic_deadline_arm(mr_nic(mr), &mr->deadline);
		mr_drop(mr);
	}
}

int nic_mr_revoke(struct nic_mr *mr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	if (mr->closing || (mr->state != NIC_MR_REGISTERED && mr->state != NIC_MR_ERROR))
		return nicd_refuse_at(err, NICD_R_MR_STATE, NIC_MR_REGISTERED, mr->state);
	mr->done = done;
	mr_revoke_start(mr, why);
	return 0;
}

int nic_mr_deregister(struct nic_mr *mr, struct nic_done *done, struct nicd_error *err)
{
	return nic_mr_revoke(mr, NULL, done, err);
}

/* A drop under way is the provider's to end; one that waits for its next try has nothing to wait for any more. */
void nic_mr_lost(struct nic_mr *mr)
{
	struct nicd_error why;

	if (mr->state == NIC_MR_REGISTERED) {
		nicd_refuse(&why, NICD_R_DEVICE_LOST);
		mr_revoke_start(mr, &why);
	} else if (mr->state == NIC_MR_ERROR) {
		mr_revoke_start(mr, NULL);
	} else if (mr->retry) {
		mr->retry = false;
		mr_drop(mr);
	}
}

void nic_mr_close(struct nic_mr *mr, struct nic_done *done)
{
	assert(!mr->closed || !done);
	if (done)
		mr->closed = done;
	if (mr->closing)
		return;
	mr->closing = true;
	nic_object_unname(&mr->object);
	if (mr->state == NIC_MR_CREATED)
		mr_end(mr);
	else if (mr->state == NIC_MR_REGISTERED || mr->state == NIC_MR_ERROR)
		mr_revoke_start(mr, NULL);
}
