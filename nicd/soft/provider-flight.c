/* SPDX-License-Identifier: MIT */
/*
 * The commands in flight. A command's id is its place in a table that grows and never shrinks, so that neither sending one nor finding the
 * one a reply is for looks anything up or allocates. Whoever gave a command is called back once, also when it could not even be sent.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "nicd/soft/provider-private.h"

enum { FIELD_REQUESTS = 1, FIRST_SLOTS = 256 };

struct soft_slot {
	struct nic_cmd *cmd;   /* NULL: free */
	uint32_t next_free;
};

/* What a success must bring: nothing, where it is not said. */
static uint32_t result_of(Soft__Request__CallCase call)
{
	static const Soft__Reply__ResultCase results[] = {
		[SOFT__REQUEST__CALL_ADD_TAG] = SOFT__REPLY__RESULT_TAGS,
		[SOFT__REQUEST__CALL_DROP_TAG] = SOFT__REPLY__RESULT_DROPPED,
		[SOFT__REQUEST__CALL_ADD_KEY] = SOFT__REPLY__RESULT_KEY,
		[SOFT__REQUEST__CALL_DROP_TICKET] = SOFT__REPLY__RESULT_DROPPED,
		[SOFT__REQUEST__CALL_CONNECT] = SOFT__REPLY__RESULT_CONNECTED,
		[SOFT__REQUEST__CALL_RECEIVE] = SOFT__REPLY__RESULT_COMPLETION,
		[SOFT__REQUEST__CALL_POST] = SOFT__REPLY__RESULT_COMPLETION,
		[SOFT__REQUEST__CALL_DISCONNECT] = SOFT__REPLY__RESULT_STREAM,
		[SOFT__REQUEST__CALL_QUERY_STREAM] = SOFT__REPLY__RESULT_STREAM,
		[SOFT__REQUEST__CALL_STATS] = SOFT__REPLY__RESULT_STATS,
	};

	return call < sizeof(results) / sizeof(results[0]) ? results[call] : SOFT__REPLY__RESULT__NOT_SET;
}

void soft_cmd_end(struct nic_cmd *cmd, enum nicd_reason reason, int provider_error)
{
	cmd->error = (struct nicd_error){.reason = reason, .provider_error = provider_error};
	cmd->done(cmd);
}

unsigned soft_cmds_end(struct nic_cmd *cmd, enum nicd_reason reason)
{
	struct nic_cmd *next;
	unsigned n;

	for (n = 0; cmd; cmd = next, n++) {
		next = cmd->next.stqe_next;
		soft_cmd_end(cmd, reason, 0);
	}
	return n;
}

/* ---- the table */

static int slots_grow(struct soft_provider *p)
{
	uint32_t n = p->n_slots ? p->n_slots * 2 : FIRST_SLOTS;
	struct soft_slot *slots;

	if (n < p->n_slots || n > UINT32_MAX / 2)
		return -ENOMEM;
	slots = realloc(p->slots, n * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = p->n_slots; i < n; i++)
		slots[i] = (struct soft_slot){.next_free = i + 1 < n ? i + 1 : SOFT_NO_SLOT};
	p->first_free = p->n_slots;
	p->slots = slots;
	p->n_slots = n;
	return 0;
}

static int slot_take(struct soft_provider *p, struct nic_cmd *cmd)
{
	uint32_t i;

	if (p->first_free == SOFT_NO_SLOT && slots_grow(p) < 0)
		return -ENOMEM;
	i = p->first_free;
	p->first_free = p->slots[i].next_free;
	p->slots[i].cmd = cmd;
	cmd->id = i + 1;
	return 0;
}

struct nic_cmd *soft_slot_give(struct soft_provider *p, uint32_t id)
{
	struct nic_cmd *cmd;

	if (id == 0 || id > p->n_slots || !p->slots[id - 1].cmd)
		return NULL;
	cmd = p->slots[id - 1].cmd;
	p->slots[id - 1] = (struct soft_slot){.next_free = p->first_free};
	p->first_free = id - 1;
	return cmd;
}

/* ---- sending */

/* A place in the table for `cmd`, or its end. */
static bool send_begin(struct soft_provider *p, struct nic_cmd *cmd, Soft__Request__CallCase call)
{
	cmd->kind = result_of(call);
	cmd->next.stqe_next = NULL;
	if (p->lost)
		soft_cmd_end(cmd, NICD_R_DEVICE_LOST, 0);
	else if (slot_take(p, cmd) < 0)
		soft_cmd_end(cmd, NICD_R_NO_MEMORY, 0);
	else
		return true;
	return false;
}

static void send_end(struct soft_provider *p, struct nic_cmd *cmd, int r)
{
	if (r == 0)
		return;
	soft_slot_give(p, cmd->id);
	soft_cmds_end(cmd, NICD_R_NO_MEMORY);
}

/* Drops that came one after the other go as one request, whose command is the first one's; the others hang on it. */
void soft_drops_send(struct soft_provider *p)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DropTag drop = SOFT__DROP_TAG__INIT;
	struct soft_drops *drops = &p->drops;
	struct nic_cmd *first = drops->first;

	if (!first)
		return;
	drop.serial = drops->serials[0];
	drop.generation = drops->generations[0];
	drop.n_more_serials = drop.n_more_generations = drops->n - 1;
	drop.more_serials = drops->serials + 1;
	drop.more_generations = drops->generations + 1;
	drops->first = drops->last = NULL;
	drops->n = 0;
	if (slot_take(p, first) < 0) {
		soft_cmds_end(first, NICD_R_NO_MEMORY);
		return;
	}
	request.id = first->id;
	request.call_case = SOFT__REQUEST__CALL_DROP_TAG;
	request.drop_tag = &drop;
	send_end(p, first, frame_put(&p->out, FIELD_REQUESTS, &request.base, NULL, 0));
}

void soft_drops_add(struct soft_provider *p, uint64_t serial, uint32_t generation, struct nic_cmd *cmd)
{
	struct soft_drops *drops = &p->drops;

	if (p->lost) {
		soft_cmd_end(cmd, NICD_R_DEVICE_LOST, 0);
		return;
	}
	cmd->kind = result_of(SOFT__REQUEST__CALL_DROP_TAG);
	cmd->next.stqe_next = NULL;
	drops->serials[drops->n] = serial;
	drops->generations[drops->n++] = generation;
	if (drops->first)
		drops->last->next.stqe_next = cmd;
	else
		drops->first = cmd;
	drops->last = cmd;
	/* The device begins with them while the next ones are collected. */
	if (drops->n == SOFT_PROVIDER_DROPS)
		soft_provider_push(&p->base);
}

void soft_drops_lose(struct soft_provider *p)
{
	struct nic_cmd *first = p->drops.first;

	p->drops.first = p->drops.last = NULL;
	p->drops.n = 0;
	soft_cmds_end(first, NICD_R_DEVICE_LOST);
}

void soft_send(struct soft_provider *p, struct nic_cmd *cmd, Soft__Request__CallCase call, void *body, int fd)
{
	Soft__Request request = SOFT__REQUEST__INIT;

	soft_drops_send(p);
	if (!send_begin(p, cmd, call)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	request.call_case = call;
	request.hello = body;   /* all bodies lie in the same place */
	request.id = cmd->id;
	request.fds = fd >= 0;
	send_end(p, cmd, frame_put(&p->out, FIELD_REQUESTS, &request.base, &fd, request.fds));
}
