/* SPDX-License-Identifier: MIT */
/*
 * A soft_provider owns the socket to nicd-soft and the commands in flight on it. New (Hello answered) -> up -> lost (end of socket, or
 * nicd-soft broke the protocol): every command in flight ends with DEVICE_LOST, later ones at once. Freed by nicd in either state.
 *
 * A command's id is its place in a table that grows and never shrinks, so that neither sending one nor finding the one a reply
 * is for looks anything up or allocates.
 */
#include "nicd/soft/provider.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "nicd/soft/bytes.h"
#include "proto/frame.h"
#include "proto/locator.h"
#include "proto/secret.h"
#include "proto/nicd.pb-c.h"
#include "proto/soft.pb-c.h"

enum {
	FIELD_REQUESTS = 1,
	HELLO_MS = 5000,
	BUF = NICD_FRAME_MAX + 1,
	READS = 32,          /* frames per dispatch; the caller's poll comes again */
	FIRST_SLOTS = 256,
	DROPS = 256,         /* of one request */
	LOST_PER_TURN = 1024, /* commands that end in a dispatch once the device is lost */
	LOST_SLOTS = 16,     /* empty slots cost as much as one of them */
	DROPS_READ = 256,    /* ended in a dispatch, then the rest waits: with each of them goes an MR */
};
#define NO_SLOT UINT32_MAX

struct slot {
	struct nic_cmd *cmd;   /* NULL: free */
	uint32_t next_free;
};

/* Tags to drop that wait for others, until anything else is sent. */
struct drops {
	struct nic_cmd *first, *last;   /* by next */
	size_t n;
	uint64_t serials[DROPS];
	uint32_t generations[DROPS];
};

struct soft_provider {
	struct nic_provider base;
	int sock;
	bool failed;           /* a send failed: dispatch will find the end of the socket */
	bool starved;          /* the last send found the kernel short */
	bool lost;             /* what was in flight is ending, up to n_ended; then the socket is closed */
	uint32_t n_ended;      /* slots */
	struct frame_out out;
	struct arena arena;
	struct slot *slots;    /* a command's id is its index + 1 */
	struct drops drops;
	size_t n_dropped;      /* tags that went with others, in this dispatch */
	uint32_t n_slots, first_free;
	struct wire_pace pace;
	uint8_t *buf;          /* BUF */
};

static struct soft_provider *soft_provider(struct nic_provider *p)
{
	return (struct soft_provider *)p;
}

static void end(struct nic_cmd *cmd, enum nicd_reason reason, int provider_error)
{
	cmd->error = (struct nicd_error){.reason = reason, .provider_error = provider_error};
	cmd->done(cmd);
}

/* ---- commands in flight */

static int slots_grow(struct soft_provider *p)
{
	uint32_t n = p->n_slots ? p->n_slots * 2 : FIRST_SLOTS;
	struct slot *slots;

	if (n < p->n_slots || n > UINT32_MAX / 2)
		return -ENOMEM;
	slots = realloc(p->slots, n * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = p->n_slots; i < n; i++)
		slots[i] = (struct slot){.next_free = i + 1 < n ? i + 1 : NO_SLOT};
	p->first_free = p->n_slots;
	p->slots = slots;
	p->n_slots = n;
	return 0;
}

static int slot_take(struct soft_provider *p, struct nic_cmd *cmd)
{
	uint32_t i;

	if (p->first_free == NO_SLOT && slots_grow(p) < 0)
		return -ENOMEM;
	i = p->first_free;
	p->first_free = p->slots[i].next_free;
	p->slots[i].cmd = cmd;
	cmd->id = i + 1;
	return 0;
}

/* The command, out of the table; NULL: none has this id. */
static struct nic_cmd *slot_give(struct soft_provider *p, uint32_t id)
{
	struct nic_cmd *cmd;

	if (id == 0 || id > p->n_slots || !p->slots[id - 1].cmd)
		return NULL;
	cmd = p->slots[id - 1].cmd;
	p->slots[id - 1] = (struct slot){.next_free = p->first_free};
	p->first_free = id - 1;
	return cmd;
}

/* A place in the table for `cmd`, or its end. */
static bool send_begin(struct soft_provider *p, struct nic_cmd *cmd, uint32_t kind)
{
	cmd->kind = kind;
	cmd->next.stqe_next = NULL;
	if (p->lost)
		end(cmd, NICD_R_DEVICE_LOST, 0);
	else if (slot_take(p, cmd) < 0)
		end(cmd, NICD_R_NO_MEMORY, 0);
	else
		return true;
	return false;
}

/* A command and those that went with it; returns how many. */
static unsigned end_all(struct nic_cmd *cmd, enum nicd_reason reason)
{
	struct nic_cmd *next;
	unsigned n;

	for (n = 0; cmd; cmd = next, n++) {
		next = cmd->next.stqe_next;
		end(cmd, reason, 0);
	}
	return n;
}

static void send_end(struct soft_provider *p, struct nic_cmd *cmd, int r)
{
	if (r == 0)
		return;
	slot_give(p, cmd->id);
	end_all(cmd, NICD_R_NO_MEMORY);
}

/* Drops that came one after the other go as one request, whose command is the first one's; the others hang on it. */
static void drops_send(struct soft_provider *p)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DropTag drop = SOFT__DROP_TAG__INIT;
	struct drops *drops = &p->drops;
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
		end_all(first, NICD_R_NO_MEMORY);
		return;
	}
	request.id = first->id;
	request.call_case = SOFT__REQUEST__CALL_DROP_TAG;
	request.drop_tag = &drop;
	send_end(p, first, frame_put(&p->out, FIELD_REQUESTS, &request.base, NULL, 0));
}

/* Queues a request for `cmd`, or ends it. Takes fd unless that is -1. `kind` is the result that a success must bring. */
static void send_cmd(struct soft_provider *p, struct nic_cmd *cmd, Soft__Request *request, uint32_t kind, int fd)
{
	drops_send(p);
	if (!send_begin(p, cmd, kind)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	request->id = cmd->id;
	request->fds = fd >= 0;
	send_end(p, cmd, frame_put(&p->out, FIELD_REQUESTS, &request->base, &fd, request->fds));
}

/*
 * Not the socket's fault, and over in a while: no memory, or too many descriptors of our user are in flight (rootless, of anybody's program).
 * It is tried again as if the socket were full; who would lose the device for that would lose all tokens.
 */
static bool kernel_is_short(int r)
{
	return r == -ETOOMANYREFS || r == -ENOBUFS || r == -ENOMEM;
}

static void soft_push(struct nic_provider *provider)
{
	struct soft_provider *p = soft_provider(provider);
	int r;

	if (p->lost)
		return;
	drops_send(p);
	if (p->failed || frame_out_empty(&p->out))
		return;
	r = frame_flush(&p->out, p->sock);
	p->starved = kernel_is_short(r);
	if (r == 0 || r == -EAGAIN || p->starved)
		return;
	/* Commands do not end in here, where nobody expects it: the end of the socket now shows in dispatch. */
	p->failed = true;
	shutdown(p->sock, SHUT_RDWR);
}

/* ---- operations */

static uint64_t soft_cost(struct nic_provider *provider, enum nic_cost what, uint64_t bytes)
{
	return what == NIC_COST_ATTACH ? bytes : 0;
}

static void soft_memory_attach(struct nic_provider *provider, const struct nic_attach *what, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__AttachMemory attach = SOFT__ATTACH_MEMORY__INIT;
	int fd = fcntl(what->fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0) {
		end(cmd, NICD_R_DEVICE_FAILED, errno);
		return;
	}
	attach.serial = what->memory;
	attach.size = what->size;
	attach.writable = what->writable;
	request.call_case = SOFT__REQUEST__CALL_ATTACH_MEMORY;
	request.attach_memory = &attach;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, fd);
}

static void soft_memory_detach(struct nic_provider *provider, uint64_t memory, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DetachMemory detach = SOFT__DETACH_MEMORY__INIT;

	detach.serial = memory;
	request.call_case = SOFT__REQUEST__CALL_DETACH_MEMORY;
	request.detach_memory = &detach;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, -1);
}

/* Ranges as a message has them. */
struct put_ranges {
	Soft__TagRange ranges[NICD_RANGES], *pointers[NICD_RANGES];
};

static void put_ranges(struct put_ranges *put, const struct nic_tag_range *ranges, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		put->ranges[i] = (Soft__TagRange)SOFT__TAG_RANGE__INIT;
		put->ranges[i].memory = ranges[i].memory;
		put->ranges[i].offset = ranges[i].offset;
		put->ranges[i].length = ranges[i].length;
		put->pointers[i] = &put->ranges[i];
	}
}

static void soft_tag_add(struct nic_provider *provider, const struct nic_tag *what, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__AddTag add = SOFT__ADD_TAG__INIT;
	struct put_ranges ranges;

	if (what->n_ranges < !what->reserve || what->n_ranges > NICD_RANGES) {
		end(cmd, NICD_R_COUNT, 0);
		return;
	}
	put_ranges(&ranges, what->ranges, what->n_ranges);
	add.serial = what->serial;
	add.generation = what->generation;
	add.pd = what->pd;
	add.door = what->door;
	add.n_ranges = what->n_ranges;
	add.ranges = ranges.pointers;
	add.iova = what->iova;
	add.length = what->length;
	add.rights = what->rights;
	add.stream = what->order.qp;
	add.fence = what->order.fence;
	add.only_stream = what->only_qp;
	add.reserve = what->reserve;
	request.call_case = SOFT__REQUEST__CALL_ADD_TAG;
	request.add_tag = &add;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_TAGS, -1);
}

static void soft_tag_drop_ordered(struct soft_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order,
				  struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DropTag drop = SOFT__DROP_TAG__INIT;

	drop.serial = serial;
	drop.generation = generation;
	drop.stream = order->qp;
	drop.fence = order->fence;
	request.call_case = SOFT__REQUEST__CALL_DROP_TAG;
	request.drop_tag = &drop;
	send_cmd(p, cmd, &request, SOFT__REPLY__RESULT_DROPPED, -1);
}

static void soft_tag_drop(struct nic_provider *provider, uint64_t serial, uint32_t generation, const struct nic_order *order,
			  struct nic_cmd *cmd)
{
	struct soft_provider *p = soft_provider(provider);
	struct drops *drops = &p->drops;

	if (order && order->qp) {
		soft_tag_drop_ordered(p, serial, generation, order, cmd);
		return;
	}
	if (p->lost) {
		end(cmd, NICD_R_DEVICE_LOST, 0);
		return;
	}
	cmd->kind = SOFT__REPLY__RESULT_DROPPED;
	cmd->next.stqe_next = NULL;
	drops->serials[drops->n] = serial;
	drops->generations[drops->n++] = generation;
	if (drops->first)
		drops->last->next.stqe_next = cmd;
	else
		drops->first = cmd;
	drops->last = cmd;
	/* The device begins with them while the next ones are collected. */
	if (drops->n == DROPS)
		soft_push(provider);
}

static void soft_mapping_add(struct nic_provider *provider, const struct nic_map *what, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__AddMapping add = SOFT__ADD_MAPPING__INIT;
	struct put_ranges ranges;

	if (what->n_ranges == 0 || what->n_ranges > NICD_RANGES) {
		end(cmd, NICD_R_COUNT, 0);
		return;
	}
	put_ranges(&ranges, what->ranges, what->n_ranges);
	add.serial = what->serial;
	add.owner = what->owner;
	add.n_ranges = what->n_ranges;
	add.ranges = ranges.pointers;
	add.address = what->address;
	add.length = what->length;
	request.call_case = SOFT__REQUEST__CALL_ADD_MAPPING;
	request.add_mapping = &add;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, -1);
}

static void soft_mapping_drop(struct nic_provider *provider, uint64_t serial, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DropMapping drop = SOFT__DROP_MAPPING__INIT;

	drop.serial = serial;
	request.call_case = SOFT__REQUEST__CALL_DROP_MAPPING;
	request.drop_mapping = &drop;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, -1);
}

static void soft_key_add(struct nic_provider *provider, uint64_t pd, uint64_t owner, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__AddKey add = SOFT__ADD_KEY__INIT;

	add.serial = pd;
	add.owner = owner;
	request.call_case = SOFT__REQUEST__CALL_ADD_KEY;
	request.add_key = &add;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_KEY, -1);
}

static void soft_key_drop(struct nic_provider *provider, uint64_t pd, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DropKey drop = SOFT__DROP_KEY__INIT;

	drop.serial = pd;
	request.call_case = SOFT__REQUEST__CALL_DROP_KEY;
	request.drop_key = &drop;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, -1);
}

static void soft_door_add(struct nic_provider *provider, const struct nic_door *what, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__AddTicket add = SOFT__ADD_TICKET__INIT;
	Soft__GrantInfo grant = SOFT__GRANT_INFO__INIT;

	grant.remote_token = what->grant.remote_token;
	grant.iova = what->grant.iova;
	grant.length = what->grant.length;
	grant.rights = what->grant.rights;
	grant.incarnation = what->grant.incarnation;
	add.serial = what->serial;
	add.hash.data = (uint8_t *)what->hash;
	add.hash.len = sizeof(what->hash);
	add.pd = what->pd;
	add.door = what->door;
	add.uses = what->uses;
	add.ttl_ms = what->ttl_ms;
	add.grant = &grant;
	add.max_streams = what->max_streams;
	request.call_case = SOFT__REQUEST__CALL_ADD_TICKET;
	request.add_ticket = &add;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, -1);
}

static void soft_door_drop(struct nic_provider *provider, uint64_t serial, bool cut, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__DropTicket drop = SOFT__DROP_TICKET__INIT;

	drop.serial = serial;
	drop.cut = cut;
	request.call_case = SOFT__REQUEST__CALL_DROP_TICKET;
	request.drop_ticket = &drop;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_DROPPED, -1);
}

static void soft_qp_connect(struct nic_provider *provider, const struct nic_connect *what, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Connect connect = SOFT__CONNECT__INIT;
	char address[64];

	locator_addr_print(&what->addr, address);
	connect.stream = what->qp;
	connect.pd = what->pd;
	connect.address = address;
	connect.ticket.data = (uint8_t *)what->ticket;
	connect.ticket.len = sizeof(what->ticket);
	connect.timeout_ms = what->timeout_ms;
	request.call_case = SOFT__REQUEST__CALL_CONNECT;
	request.connect = &connect;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_CONNECTED, -1);
}

static void soft_receive_post(struct nic_provider *provider, const struct nic_post *what, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Receive receive = SOFT__RECEIVE__INIT;

	receive.stream = what->qp;
	receive.local_token = get_le32(what->entries);
	receive.local_addr = get_le64(what->entries + 8);
	receive.length = get_le32(what->entries + 24);
	request.call_case = SOFT__REQUEST__CALL_RECEIVE;
	request.receive = &receive;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_COMPLETION, -1);
}

static void soft_qp_post(struct nic_provider *provider, const struct nic_post *what, struct nic_cmd *cmd)
{
	static const Soft__Post__Operation operations[] = {
		[NIC_READ] = SOFT__POST__OPERATION__READ, [NIC_WRITE] = SOFT__POST__OPERATION__WRITE,
		[NIC_SEND] = SOFT__POST__OPERATION__SEND,
	};
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Post post = SOFT__POST__INIT;

	if (what->n_entries > NICD_TRANSFER_ENTRIES) {
		end(cmd, NICD_R_TRANSFER_ENTRIES, 0);
		return;
	}
	if (what->operation == NIC_RECEIVE) {
		soft_receive_post(provider, what, cmd);
		return;
	}
	post.stream = what->qp;
	post.operation = operations[what->operation];
	post.notify = what->notify;
	post.solicited = what->solicited;
	post.invalidate = what->invalidate;
	post.invalidate_token = what->invalidate_token;
	post.fence = what->fence;
	post.is_inline = what->is_inline;
	if (what->is_inline) {
		post.inline_data.data = (uint8_t *)what->inline_data;
		post.inline_data.len = get_le32(what->entries + 24);
	}
	post.entries.data = (uint8_t *)what->entries;
	post.entries.len = (size_t)what->n_entries * NICD_TRANSFER_ENTRY_SIZE;
	request.call_case = SOFT__REQUEST__CALL_POST;
	request.post = &post;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_COMPLETION, -1);
}

static void soft_qp_flush(struct nic_provider *provider, uint64_t qp, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Flush flush = SOFT__FLUSH__INIT;

	flush.stream = qp;
	request.call_case = SOFT__REQUEST__CALL_FLUSH;
	request.flush = &flush;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT__NOT_SET, -1);
}

static void soft_qp_disconnect(struct nic_provider *provider, uint64_t qp, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Disconnect disconnect = SOFT__DISCONNECT__INIT;

	disconnect.stream = qp;
	request.call_case = SOFT__REQUEST__CALL_DISCONNECT;
	request.disconnect = &disconnect;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_STREAM, -1);
}

static void soft_qp_query(struct nic_provider *provider, uint64_t qp, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__QueryStream query = SOFT__QUERY_STREAM__INIT;

	query.stream = qp;
	request.call_case = SOFT__REQUEST__CALL_QUERY_STREAM;
	request.query_stream = &query;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_STREAM, -1);
}

static void soft_stats(struct nic_provider *provider, struct nic_cmd *cmd)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Stats stats = SOFT__STATS__INIT;

	request.call_case = SOFT__REQUEST__CALL_STATS;
	request.stats = &stats;
	send_cmd(soft_provider(provider), cmd, &request, SOFT__REPLY__RESULT_STATS, -1);
}

/* ---- replies and events */

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

/* false: there is no such command, or the reply is not one to it. */
static bool on_reply(struct soft_provider *p, const Soft__Reply *reply)
{
	struct nic_cmd *cmd = slot_give(p, reply->id), *more;
	bool fits;

	if (!cmd)
		return false;
	/* A refusal may come without the result, a success never. */
	fits = reply->result_case == cmd->kind ||
	       (reply->reason != NICD_R_NONE && reply->result_case == SOFT__REPLY__RESULT__NOT_SET);
	if (!fits) {
		end_all(cmd, NICD_R_DEVICE_LOST);
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

static void on_event(struct soft_provider *p, const Soft__Event *event)
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

/* Ends all commands; new ones that their callbacks give end at once, because the socket is gone first. */
static void lose_begin(struct soft_provider *p)
{
	struct nic_cmd *drops = p->drops.first;

	p->lost = true;
	p->base.up = false;
	/* Whatever the reason, dispatch is called again for as long as it is open. */
	shutdown(p->sock, SHUT_RDWR);
	frame_out_deinit(&p->out);
	p->drops.first = p->drops.last = NULL;
	p->drops.n = 0;
	end_all(drops, NICD_R_DEVICE_LOST);
}

/* True: nothing is in flight any more. */
static bool lose_step(struct soft_provider *p, uint64_t budget)
{
	uint64_t spent = 0;

	for (; p->n_ended < p->n_slots && spent < budget; p->n_ended++)
		spent += 1 + LOST_SLOTS * (uint64_t)end_all(slot_give(p, p->n_ended + 1), NICD_R_DEVICE_LOST);
	if (p->n_ended < p->n_slots)
		return false;
	close(p->sock);
	p->sock = -1;
	return true;
}

/* false: the device is not to be talked to any more. */
static bool on_frame(struct soft_provider *p, const struct wire_packet *packet)
{
	struct nicd_error err;
	Soft__Frame *frame;
	bool good;

	frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &p->arena, packet->data, packet->len, &err);
	good = frame && !frame->n_requests && !frame->fatal && packet->n_fds == 0;
	for (size_t i = 0; good && i < frame->n_replies; i++)
		good = on_reply(p, frame->replies[i]);
	for (size_t i = 0; good && i < frame->n_events; i++)
		on_event(p, frame->events[i]);
	arena_reset(&p->arena);
	return good;
}

/* true: there may be more. */
static bool read_frame(struct soft_provider *p, bool *lost)
{
	struct wire_packet packet;
	enum wire_result result = wire_recv(p->sock, p->buf, BUF, &packet);

	if (result == WIRE_AGAIN)
		return false;
	*lost = result != WIRE_PACKET || !on_frame(p, &packet);
	if (result == WIRE_PACKET)
		wire_release(&packet);
	return !*lost;
}

void soft_provider_dispatch(struct nic_provider *provider)
{
	struct soft_provider *p = soft_provider(provider);
	bool lost = false;
	unsigned max, n = 0;

	if (p->sock < 0)
		return;
	p->n_dropped = 0;
	max = wire_pace_begin(&p->pace, READS);
	while (!p->lost && n < max && p->n_dropped < DROPS_READ && read_frame(p, &lost))
		n++;
	wire_pace_end(&p->pace, max, n);
	if (lost)
		lose_begin(p);
	if (!p->lost)
		soft_push(provider);
	else if (lose_step(p, LOST_PER_TURN * LOST_SLOTS) && p->base.events)
		p->base.events->lost(p->base.adapter);
}

int soft_provider_fd(const struct nic_provider *provider)
{
	return ((const struct soft_provider *)provider)->sock;
}

bool soft_provider_wants_write(const struct nic_provider *provider)
{
	const struct soft_provider *p = (const struct soft_provider *)provider;

	return !p->lost && !p->failed && !p->starved && (p->drops.first || !frame_out_empty(&p->out));
}

bool soft_provider_is_starved(const struct nic_provider *provider)
{
	const struct soft_provider *p = (const struct soft_provider *)provider;

	return !p->lost && !p->failed && p->starved;
}

static void soft_free(struct nic_provider *provider)
{
	struct soft_provider *p = soft_provider(provider);

	if (!p)
		return;
	if (!p->lost)
		lose_begin(p);
	if (p->sock >= 0)
		lose_step(p, UINT64_MAX);
	frame_out_deinit(&p->out);
	arena_deinit(&p->arena);
	secret_unmap(p->buf, BUF);
	free(p->slots);
	free(p);
}

static const struct nic_provider_ops soft_ops = {
	.name = "soft",
	.cost = soft_cost,
	.memory_attach = soft_memory_attach,
	.memory_detach = soft_memory_detach,
	.tag_add = soft_tag_add,
	.tag_drop = soft_tag_drop,
	.mapping_add = soft_mapping_add,
	.mapping_drop = soft_mapping_drop,
	.key_add = soft_key_add,
	.key_drop = soft_key_drop,
	.door_add = soft_door_add,
	.door_drop = soft_door_drop,
	.qp_connect = soft_qp_connect,
	.qp_post = soft_qp_post,
	.qp_flush = soft_qp_flush,
	.qp_disconnect = soft_qp_disconnect,
	.qp_query = soft_qp_query,
	.stats = soft_stats,
	.push = soft_push,
	.free = soft_free,
};

/* ---- Hello */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Waits for `events` until `deadline`. */
static int wait_for(int sock, short events, uint64_t deadline)
{
	struct pollfd pollfd = {.fd = sock, .events = events};
	uint64_t now = now_ms();
	int n;

	if (now >= deadline)
		return -ETIMEDOUT;
	n = poll(&pollfd, 1, (int)(deadline - now));
	if (n < 0 && errno != EINTR)
		return -errno;
	return 0;   /* by chance for nothing: whoever waits tries and comes again */
}

static int hello_send(struct soft_provider *p, uint64_t deadline)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Hello hello = SOFT__HELLO__INIT;
	int r;

	hello.major = NICD_MAJOR;
	request.id = 1;
	request.call_case = SOFT__REQUEST__CALL_HELLO;
	request.hello = &hello;
	r = frame_put(&p->out, FIELD_REQUESTS, &request.base, NULL, 0);
	while (r == 0 && (r = frame_flush(&p->out, p->sock)) == -EAGAIN)
		r = wait_for(p->sock, POLLOUT, deadline);
	return r;
}

static int hello_packet(struct soft_provider *p, uint64_t deadline, struct wire_packet *packet)
{
	for (;;) {
		enum wire_result result = wire_recv(p->sock, p->buf, BUF, packet);
		int r;

		if (result == WIRE_PACKET)
			return 0;
		if (result != WIRE_AGAIN)
			return -ECONNRESET;
		r = wait_for(p->sock, POLLIN, deadline);
		if (r < 0)
			return r;
	}
}

static int hello_take(struct soft_provider *p, const Soft__HelloReply *reply)
{
	struct nic_provider *base = &p->base;

	base->incarnation = reply->incarnation;
	base->max_inbound_read = reply->max_inbound_read;
	base->max_outbound_read = reply->max_outbound_read;
	base->max_mr = reply->max_tags;
	base->max_mw = reply->max_tags;
	base->max_qp = reply->max_streams;
	if (reply->data_address[0] && locator_addr_parse(reply->data_address, &base->data_addr) < 0)
		return -EPROTO;
	return 0;
}

/* The first packet is the answer and nothing but the answer. */
static int hello_answer(struct soft_provider *p, const struct wire_packet *packet, struct nicd_error *err)
{
	const Soft__Frame *frame;
	const Soft__Reply *reply;

	frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &p->arena, packet->data, packet->len, err);
	if (!frame || frame->n_replies != 1 || frame->replies[0]->id != 1)
		return nicd_refuse(err, NICD_R_DEVICE_LOST);
	reply = frame->replies[0];
	if (reply->reason != NICD_R_NONE)
		return nicd_refuse_at(err, reply->reason, reply->limit, reply->observed);
	if (reply->result_case != SOFT__REPLY__RESULT_HELLO || hello_take(p, reply->hello) < 0)
		return nicd_refuse(err, NICD_R_DEVICE_LOST);
	return 0;
}

static int say_hello(struct soft_provider *p, struct nicd_error *err)
{
	uint64_t deadline = now_ms() + HELLO_MS;
	struct wire_packet packet;
	int r;

	r = hello_send(p, deadline);
	if (r == 0)
		r = hello_packet(p, deadline, &packet);
	if (r < 0) {
		nicd_refuse(err, NICD_R_DEVICE_LOST);
		if (err)
			err->provider_error = -r;
		return r;
	}
	r = hello_answer(p, &packet, err);
	wire_release(&packet);
	arena_reset(&p->arena);
	return r;
}

int soft_provider_new(struct nic_provider **ret, int sock, struct nicd_error *err)
{
	struct soft_provider *p = calloc(1, sizeof(*p));
	int r;

	if (!p || !(p->buf = secret_map(BUF)) || arena_init(&p->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS) < 0) {
		if (p)
			secret_unmap(p->buf, BUF);
		free(p);
		close(sock);
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	p->sock = sock;
	p->first_free = NO_SLOT;
	frame_out_init(&p->out);
	p->out.secret = true;
	p->base = (struct nic_provider){
		.ops = &soft_ops,
		.name = "soft0",
		.adapter_flags = NICD__ADAPTER_FLAG__RDMA_READ_SINK_NOT_REQUIRED | NICD__ADAPTER_FLAG__LOOPBACK,
		.max_registration = 1ull << 46,
		.max_transfer = UINT32_MAX,
		.max_window = 1ull << 46,
		.max_fast_pages = NICD_FAST_PAGES,
		.frmr_pages = NICD_FRMR_PAGES,
		.max_inline = NICD_INLINE,
		.up = true,
	};
	r = say_hello(p, err);
	if (r < 0) {
		soft_free(&p->base);
		return r;
	}
	*ret = &p->base;
	return 0;
}
