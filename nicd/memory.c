/* SPDX-License-Identifier: MIT */
/*
 * Memories and their attachments. A Memory lives from its handing over until it was closed, no range names it, and every device
 * has let go of it; then its descriptor goes to whoever closes descriptors. The attachments are the Memory's own.
 */
#include "nicd/memory.h"

#include <assert.h>

static void memory_settle(struct nic_memory *memory);
static void attachment_attached(struct nic_cmd *cmd);
static void attachment_detached(struct nic_cmd *cmd);
static void attachment_retry(struct nic_deadline *deadline);

/* ---- attachments */

static struct nic_attachment *attachment_find(const struct nic_memory *memory, const struct nic_adapter *adapter)
{
	struct nic_attachment *attachment;

	LIST_FOREACH(attachment, &memory->attachments, of_memory)
		if (attachment->adapter == adapter)
			return attachment;
	return NULL;
}

static void attachment_free(struct nic_attachment *attachment)
{
	struct nic *nic = attachment->memory->nic;

	assert(TAILQ_EMPTY(&attachment->waiters));
	nic_deadline_disarm(nic, &attachment->deadline);
	nic_charge_release(&attachment->charge);
	LIST_REMOVE(attachment, of_memory);
	attachment->adapter->users--;
	nic->env->free(nic->env, attachment, sizeof(*attachment));
}

int nic_memory_reserve(struct nic_memory *memory, struct nic_adapter *adapter, struct nicd_error *err)
{
	struct nic_provider *provider = adapter->provider;
	struct nic *nic = memory->nic;
	struct nic_attachment *attachment;
	int r;

	if (attachment_find(memory, adapter))
		return 0;
	attachment = nic->env->alloc(nic->env, sizeof(*attachment));
	if (!attachment)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	r = nic_charge(memory->object.owner->account, &attachment->charge, NIC_SLOT_PINNED,
		       provider->ops->cost(provider, NIC_COST_ATTACH, memory->facts.size), err);
	if (r < 0) {
		nic->env->free(nic->env, attachment, sizeof(*attachment));
		return r;
	}
	attachment->memory = memory;
	attachment->adapter = adapter;
	attachment->state = NIC_ATTACHMENT_RESERVED;
	attachment->deadline.fn = attachment_retry;
	TAILQ_INIT(&attachment->waiters);
	LIST_INSERT_HEAD(&memory->attachments, attachment, of_memory);
	adapter->users++;
	return 0;
}

void nic_memory_cancel(struct nic_memory *memory, struct nic_adapter *adapter)
{
	struct nic_attachment *attachment = attachment_find(memory, adapter);

	if (attachment && attachment->state == NIC_ATTACHMENT_RESERVED)
		attachment_free(attachment);
}

bool nic_memory_attached(const struct nic_memory *memory, const struct nic_adapter *adapter)
{
	const struct nic_attachment *attachment = attachment_find(memory, adapter);

	return attachment && attachment->state == NIC_ATTACHMENT_READY;
}

void nic_memory_attach(struct nic_memory *memory, struct nic_adapter *adapter, struct nic_waiter *waiter)
{
	struct nic_provider *provider = adapter->provider;
	struct nic_attachment *attachment;
	struct nicd_error error;

	if (!provider->up) {
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
		waiter->fn(waiter, &error);
		return;
	}
	if (nic_memory_reserve(memory, adapter, &error) < 0) {   /* another registration's reservation was cancelled */
		waiter->fn(waiter, &error);
		return;
	}
	attachment = attachment_find(memory, adapter);
	TAILQ_INSERT_TAIL(&attachment->waiters, waiter, next);
	if (attachment->state == NIC_ATTACHMENT_RESERVED) {
		struct nic_attach what = {
			.memory = memory->object.serial,
			.fd = memory->facts.fd,
			.size = memory->facts.size,
			.writable = memory->facts.writable,
		};

		attachment->state = NIC_ATTACHMENT_STARTED;
		nic_cmd_begin(&attachment->cmd, attachment_attached);
		provider->ops->memory_attach(provider, &what, &attachment->cmd);
	}
}

/* Wakes all who wait, from a list of its own: they may come back to wait for the next try. */
static void attachment_attached(struct nic_cmd *cmd)
{
	struct nic_attachment *attachment = (struct nic_attachment *)((char *)cmd - offsetof(struct nic_attachment, cmd));
	struct nic_waiters waiters = TAILQ_HEAD_INITIALIZER(waiters);
	struct nicd_error error = cmd->error;
	struct nic_waiter *waiter;

	TAILQ_CONCAT(&waiters, &attachment->waiters, next);
	if (error.reason == NICD_R_NONE)
		attachment->state = NIC_ATTACHMENT_READY;
	else
		attachment_free(attachment);
	while ((waiter = TAILQ_FIRST(&waiters))) {
		TAILQ_REMOVE(&waiters, waiter, next);
		waiter->fn(waiter, error.reason == NICD_R_NONE ? NULL : &error);
	}
}

static void attachment_detach(struct nic_attachment *attachment)
{
	attachment->state = NIC_ATTACHMENT_DETACHING;
	nic_cmd_begin(&attachment->cmd, attachment_detached);
	nic_adapter_detach(attachment->adapter, attachment->memory->object.serial, &attachment->cmd);
}

static void attachment_detached(struct nic_cmd *cmd)
{
	struct nic_attachment *attachment = (struct nic_attachment *)((char *)cmd - offsetof(struct nic_attachment, cmd));
	struct nic_memory *memory = attachment->memory;

	if (!nic_cmd_gone(cmd)) {
		nic_deadline_arm(memory->nic, &attachment->deadline);
		return;
	}
	attachment_free(attachment);
	memory_settle(memory);
}

static void attachment_retry(struct nic_deadline *deadline)
{
	attachment_detach((struct nic_attachment *)((char *)deadline - offsetof(struct nic_attachment, deadline)));
}

void nic_memory_lost(struct nic_memory *memory, struct nic_adapter *adapter)
{
	struct nic_attachment *attachment = attachment_find(memory, adapter);

	if (!attachment)
		return;
	if (attachment->state == NIC_ATTACHMENT_DETACHING && attachment->deadline.armed) {
		nic_deadline_disarm(memory->nic, &attachment->deadline);
		attachment_detach(attachment);
	} else if (attachment->state == NIC_ATTACHMENT_READY) {
		attachment_free(attachment);
	}
}

/* ---- memories */

int nic_memory_new(struct nic_memory **ret, struct nic_owner *owner, const struct nic_memory_facts *facts, bool named,
		   struct nicd_error *err)
{
	struct nic_env *env = owner->nic->env;
	struct nic_memory *memory = env->alloc(env, sizeof(*memory));
	int r;

	assert(facts->page_size > 0 && (facts->page_size & (facts->page_size - 1)) == 0);
	if (!memory) {
		r = nicd_refuse(err, NICD_R_NO_MEMORY);
		goto close_fd;
	}
	memory->nic = owner->nic;
	memory->facts = *facts;
	LIST_INIT(&memory->attachments);
	r = nic_charge(owner->account, &memory->charge, NIC_SLOT_MEMORIES, 1, err);
	if (r < 0)
		goto release;
	r = nic_charge(owner->account, &memory->charge_fd, NIC_SLOT_FDS, 1, err);
	if (r < 0)
		goto release;
	if (nic_object_link(&memory->object, owner->nic, owner, NIC_MEMORY, named) < 0) {
		r = nicd_refuse(err, NICD_R_NO_MEMORY);
		goto release;
	}
	owner->nic->held_fds++;
	*ret = memory;
	return 0;
release:
	nic_charge_release(&memory->charge);
	nic_charge_release(&memory->charge_fd);
	env->free(env, memory, sizeof(*memory));
close_fd:
	env->close_fd(env, facts->fd, facts->size);
	return r;
}

static void memory_end(struct nic_memory *memory)
{
	struct nic_owner *owner = memory->object.owner;
	struct nic *nic = memory->nic;
	struct nic_done *closed = nic_done_steal(&memory->closed);

	nic_object_unlink(&memory->object, nic);
	nic->env->close_fd(nic->env, memory->facts.fd, memory->facts.size);
	nic->held_fds--;
	nic_charge_release(&memory->charge);
	nic_charge_release(&memory->charge_fd);
	nic_done_end(closed, NULL);
	nic->env->free(nic->env, memory, sizeof(*memory));
	nic_owner_leave(owner);
}

/* An attachment that nobody has begun to give back, once the Memory is closed and unused. */
static struct nic_attachment *memory_attached(struct nic_memory *memory)
{
	struct nic_attachment *attachment;

	LIST_FOREACH(attachment, &memory->attachments, of_memory)
		if (attachment->state != NIC_ATTACHMENT_DETACHING)
			return attachment;
	return NULL;
}

/* What closing still has to do. Detaching may end inside, and then comes back here; the outermost one ends the Memory. */
static void memory_settle(struct nic_memory *memory)
{
	struct nic_attachment *attachment;

	if (!memory->closing || memory->users > 0 || memory->settling)
		return;
	memory->settling = true;
	while ((attachment = memory_attached(memory)))
		attachment_detach(attachment);
	memory->settling = false;
	if (LIST_EMPTY(&memory->attachments))
		memory_end(memory);
}

void nic_memory_close(struct nic_memory *memory, struct nic_done *done)
{
	assert(!memory->closed || !done);
	if (done)
		memory->closed = done;
	memory->closing = true;
	nic_object_unname(&memory->object);
	memory_settle(memory);
}

void nic_memory_use(struct nic_memory *memory)
{
	memory->users++;
}

void nic_memory_unuse(struct nic_memory *memory)
{
	assert(memory->users > 0);
	memory->users--;
	memory_settle(memory);
}
