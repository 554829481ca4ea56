/* SPDX-License-Identifier: MIT */
/* What a device answers and tells, from the words of soft.proto into commands and events. What it says is copied: a frame does not outlive its turn. */
#include <stdio.h>
#include <string.h>

#include "nicd/soft/provider-private.h"

static void get_grant(const Soft__GrantInfo *from, struct nic_grant_info *to)
{
	*to = (struct nic_grant_info){0};
	if (from)
		*to = (struct nic_grant_info){from->remote_token, from->rights, from->iova, from->length, from->incarnation};
}

static void get_counters(const Soft__Stream *from, struct nic_counters *to)
{
	*to = (struct nic_counters){0};
	if (from)
		*to = (struct nic_counters){from->bytes_read, from->bytes_written, from->peer_read, from->peer_written};
}

static void get_connected(const Soft__Connected *from, struct nic_cmd *cmd)
{
	get_grant(from->grant, &cmd->connected.grant);
	strncpy(cmd->connected.peer, from->peer, sizeof(cmd->connected.peer) - 1);
	cmd->connected.peer[sizeof(cmd->connected.peer) - 1] = '\0';
}

static void get_caps(const Soft__StatsReply *from, struct nic_caps *to)
{
	if (!to)
		return;
	to->n = from->n_caps < NIC_CAPS ? (unsigned)from->n_caps : NIC_CAPS;
	for (unsigned i = 0; i < to->n; i++) {
		struct nic_cap *cap = &to->cap[i];

		*cap = (struct nic_cap){
			.limit = from->caps[i]->limit, .now = from->caps[i]->now, .refused = from->caps[i]->refused,
			.counted = from->caps[i]->counted,
		};
		snprintf(cap->name, sizeof(cap->name), "%s", from->caps[i]->name);
	}
}

static void get_result(const Soft__Reply *reply, struct nic_cmd *cmd)
{
	switch (reply->result_case) {
	case SOFT__REPLY__RESULT_TAGS:
		cmd->tags.local_token = reply->tags->local_token;
		cmd->tags.remote_token = reply->tags->remote_token;
		break;
	case SOFT__REPLY__RESULT_DROPPED:
		cmd->dropped.streams_cut = reply->dropped->streams_cut;
		break;
	case SOFT__REPLY__RESULT_KEY:
		cmd->key.v = reply->key->privileged;
		break;
	case SOFT__REPLY__RESULT_CONNECTED:
		get_connected(reply->connected, cmd);
		break;
	case SOFT__REPLY__RESULT_COMPLETION:
		cmd->completion.entries = reply->completion->entries;
		cmd->completion.bytes = reply->completion->bytes;
		cmd->completion.failed = reply->completion->failed;
		cmd->completion.inexact = reply->completion->inexact;
		cmd->completion.solicited = reply->completion->solicited;
		cmd->completion.invalidated = reply->completion->invalidated;
		cmd->completion.token = reply->completion->invalidated_token;
		break;
	case SOFT__REPLY__RESULT_STREAM:
		get_counters(reply->stream, &cmd->stream.counters);
		cmd->stream.connected = reply->stream->connected;
		break;
	case SOFT__REPLY__RESULT_STATS:
		get_caps(reply->stats, cmd->stats.caps);
		cmd->stats.memories = reply->stats->memories;
		cmd->stats.tags = reply->stats->tags;
		cmd->stats.tickets = reply->stats->tickets;
		cmd->stats.streams = reply->stats->streams;
		cmd->stats.turns = (struct turns_report){
			.turns = reply->stats->turns,
			.slow = reply->stats->slow_turns,
			.longest_us = reply->stats->longest_turn_us,
			.longest_cpu_us = reply->stats->longest_turn_cpu_us,
		};
		break;
	case SOFT__REPLY__RESULT__NOT_SET:
	default:
		break;
	}
}

static void get_error(const Soft__Reply *reply, struct nic_cmd *cmd)
{
	cmd->error = (struct nicd_error){
		.reason = reply->reason, .provider_error = reply->provider_error, .limit = reply->limit,
		.observed = reply->observed,
	};
}

/* Those that went with the first one. */
static void drops_end(struct soft_provider *p, struct nic_cmd *cmd, const Soft__Reply *reply)
{
	const Soft__Dropped *dropped = reply->result_case == SOFT__REPLY__RESULT_DROPPED ? reply->dropped : NULL;
	struct nic_cmd *next;

	for (size_t i = 0; cmd; cmd = next, i++) {
		next = cmd->next.stqe_next;
		get_error(reply, cmd);
		p->n_dropped++;
		cmd->dropped.streams_cut = dropped && i < dropped->n_more_streams_cut ? dropped->more_streams_cut[i] : 0;
		cmd->done(cmd);
	}
}

bool soft_provider_reply(struct soft_provider *p, const Soft__Reply *reply)
{
	struct nic_cmd *cmd = soft_slot_give(p, reply->id), *more;
	bool fits;

	if (!cmd)
		return false;
	/* A refusal may come without the result, a success never. */
	fits = reply->result_case == cmd->kind ||
	       (reply->reason != NICD_R_NONE && reply->result_case == SOFT__REPLY__RESULT__NOT_SET);
	if (!fits) {
		soft_cmds_end(cmd, NICD_R_DEVICE_LOST);
		return false;
	}
	more = cmd->next.stqe_next;
	get_error(reply, cmd);
	if (cmd->kind == SOFT__REPLY__RESULT_COMPLETION)
		memset(&cmd->completion, 0, sizeof(cmd->completion));
	get_result(reply, cmd);
	cmd->done(cmd);
	drops_end(p, more, reply);
	return true;
}

void soft_provider_event(struct soft_provider *p, const Soft__Event *event)
{
	const struct nic_provider_events *to = p->base.events;
	struct nicd_error why = {.reason = event->reason};
	struct nic_counters counters;

	if (!to)
		return;
	switch (event->kind) {
	case SOFT__EVENT__KIND__STREAM_OPENED:
		to->stream_opened(p->base.adapter, event->stream, event->door, event->peer);
		break;
	case SOFT__EVENT__KIND__STREAM_CLOSED:
		get_counters(event->counters, &counters);
		to->stream_closed(p->base.adapter, event->stream, &why, &counters);
		break;
	case SOFT__EVENT__KIND__DOOR_EXPIRED:
		to->door_expired(p->base.adapter, event->door);
		break;
	case SOFT__EVENT__KIND__NOTIFIED:
		to->stream_notified(p->base.adapter, event->stream, event->count);
		break;
	case SOFT__EVENT__KIND__REMOTE_INVALIDATED:
		to->tag_invalidated(p->base.adapter, event->tag, event->generation);
		break;
	case SOFT__EVENT__KIND__DOOR_SPENT:   /* nicd counts the uses itself */
	case SOFT__EVENT__KIND__NONE:
	default:
		break;
	}
}
