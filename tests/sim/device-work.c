/* SPDX-License-Identifier: MIT */
/*
 * What is posted at the simulated device. Its local sides are looked at as a NIC does: those of receives when they come, those of the rest when
 * they are about to end. Messages fill the receives of a stream in order; after work that failed the stream is doomed, and nothing of it
 * succeeds any more. Flushing ends what was posted before, and a tag that goes takes its receives along.
 */
#include <string.h>

#include "tests/sim/device-private.h"

static const struct thing *tag_of(const struct device *d, uint32_t token)
{
	for (unsigned i = 0; i < d->n_things && token; i++)
		if (d->things[i].kind == THING_TAG && d->things[i].local == token)
			return &d->things[i];
	return NULL;
}

enum nicd_reason device_work_check(struct device *d, const struct command *c)
{
	const struct thing *stream = device_thing(d, THING_STREAM, c->serial), *tag = tag_of(d, c->work.local_token);
	uint64_t offset;

	if (!stream)
		return NICD_R_QP_STATE;
	if (!c->work.length)
		return NICD_R_NONE;
	if (!tag || tag->pd != stream->pd)
		return NICD_R_LOCAL_TOKEN;
	offset = c->work.local_addr - tag->iova;
	if (c->work.local_addr < tag->iova || offset > tag->length || c->work.length > tag->length - offset)
		return NICD_R_LOCAL_RANGE;
	return c->work.operation == WORK_RECEIVE && !(tag->rights & 1) ? NICD_R_LOCAL_RIGHTS : NICD_R_NONE;
}

enum nicd_reason device_work_judge(struct device *d, const struct command *c, enum nicd_reason reason)
{
	struct thing *stream = device_thing(d, THING_STREAM, c->serial);

	if (c->broken != NICD_R_NONE && reason != NICD_R_DEVICE_LOST)
		return c->broken;
	if (reason == NICD_R_NONE && (!stream || stream->doomed))
		reason = NICD_R_QP_LOST;
	if (reason == NICD_R_NONE && c->work.operation == WORK_SEND)
		reason = device_work_check(d, c);
	/* One that is cancelled, or whose memory goes while it waits, fails alone. */
	if (stream && reason != NICD_R_NONE && reason != NICD_R_FLUSHED && reason != NICD_R_LOCAL_GONE && c->work.operation >= WORK_SEND)
		stream->doomed = true;
	return reason;
}

enum nicd_reason device_work_failure(const struct command *c)
{
	static const enum nicd_reason transfers[] = { NICD_R_REMOTE_TOKEN, NICD_R_LOCAL_RANGE, NICD_R_QP_LOST, NICD_R_FLUSHED };
	static const enum nicd_reason sends[] = { NICD_R_NO_RECEIVE, NICD_R_REMOTE_RECEIVE, NICD_R_REMOTE_INVALIDATE, NICD_R_QP_LOST };
	static const enum nicd_reason receives[] = { NICD_R_RECEIVE_TOO_SMALL, NICD_R_LOCAL_GONE, NICD_R_RECEIVE_TOO_SMALL, NICD_R_QP_LOST };
	unsigned i = sim_below(&world->random, 4);

	return c->work.operation == WORK_RECEIVE ? receives[i] : c->work.operation == WORK_SEND ? sends[i] : transfers[i];
}

/* The model is told, so that it can tell whether the client is told the same. */
void device_work_complete(const struct command *c, enum nicd_reason reason)
{
	struct nic_cmd *cmd = c->cmd;
	struct sim_completion tell;

	if (reason == NICD_R_NONE) {
		cmd->completion.entries = c->entries;
		cmd->completion.bytes = c->bytes;
	} else {
		cmd->completion.failed = cmd->completion.entries = sim_below(&world->random, c->entries);
		cmd->completion.inexact = sim_chance(&world->random, 2);
		cmd->completion.invalidated = false;
		cmd->completion.token = 0;
	}
	/* Messages may be shorter than the receives that they fill. */
	if (reason == NICD_R_NONE && c->work.operation == WORK_RECEIVE) {
		if (sim_chance(&world->random, 2))
			cmd->completion.bytes = sim_below(&world->random, c->work.length);
		cmd->completion.solicited = sim_chance(&world->random, 2);
	}
	tell = (struct sim_completion){
		.entries = cmd->completion.entries, .bytes = cmd->completion.bytes, .failed = cmd->completion.failed,
		.inexact = cmd->completion.inexact, .solicited = cmd->completion.solicited,
		.invalidated = cmd->completion.invalidated, .token = cmd->completion.token };
	model_completed(world->model, c->number, &tell);
}

/* Of commands that fit, the one that came first. */
static unsigned oldest(const struct device *d, bool (*fits)(const struct command *c, uint64_t arg), uint64_t arg)
{
	unsigned found = UINT32_MAX;

	for (unsigned i = 0; i < d->n_commands; i++)
		if ((d->commands[i].op == OP_POST || d->commands[i].order) && fits(&d->commands[i], arg) &&
		    (found == UINT32_MAX || d->commands[i].number < d->commands[found].number))
			found = i;
	return found;
}

static bool is_receive(const struct command *c, uint64_t stream)
{
	return c->op == OP_POST && c->work.operation == WORK_RECEIVE && c->serial == stream;
}

unsigned device_oldest_receive(const struct device *d, uint64_t stream)
{
	return oldest(d, is_receive, stream);
}

static bool is_of_stream(const struct command *c, uint64_t stream)
{
	return c->op == OP_POST ? c->serial == stream : c->order == stream;
}

void device_cancel(struct device *d, uint64_t stream, unsigned before)
{
	unsigned i;

	/* What was to be dropped is. */
	while ((i = oldest(d, is_of_stream, stream)) != UINT32_MAX && d->commands[i].number < before)
		device_end(d, i, d->commands[i].op == OP_TAG_DROP ? NICD_R_NONE : NICD_R_FLUSHED);
}

static bool is_into(const struct command *c, uint64_t token)
{
	return c->op == OP_POST && c->work.operation == WORK_RECEIVE && c->broken == NICD_R_NONE && c->work.length && c->work.local_token == token;
}

void device_cut(struct device *d, const struct thing *tag)
{
	unsigned i;

	while (tag->local && (i = oldest(d, is_into, tag->local)) != UINT32_MAX)
		device_end(d, i, NICD_R_LOCAL_GONE);
}
