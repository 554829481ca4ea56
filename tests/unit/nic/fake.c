/* SPDX-License-Identifier: MIT */
/* The fake device: a model of what it holds, a list of what it was asked and did not answer yet. */
/* uthash's hash function falls through on purpose; clang sees that in our file. */
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"

#include "tests/unit/nic/fake.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>

#define must(condition, ...) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "fake device: " __VA_ARGS__); \
			fprintf(stderr, "\n"); \
			abort(); \
		} \
	} while (0)

/* ---- environment */

struct block {
	size_t size;
	size_t pad;
};

static uint64_t env_now(struct nic_env *e)
{
	return ((struct fake_env *)e)->now;
}

static uint64_t env_wall(struct nic_env *e)
{
	return ((struct fake_env *)e)->wall;
}

/* splitmix64 */
static void env_random(struct nic_env *e, void *buf, size_t len)
{
	struct fake_env *env = (struct fake_env *)e;

	for (size_t i = 0; i < len; i++) {
		uint64_t z = (env->seed += UINT64_C(0x9E3779B97F4A7C15));

		z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
		((uint8_t *)buf)[i] = (uint8_t)((z ^ (z >> 27)) >> 24);
	}
}

static void *env_alloc(struct nic_env *e, size_t size)
{
	struct fake_env *env = (struct fake_env *)e;
	struct block *block;

	env->allocs++;
	if (env->fail_at > 0 && (env->allocs == env->fail_at || (env->fail_on && env->allocs > env->fail_at))) {
		env->failed = true;
		return NULL;
	}
	block = calloc(1, sizeof(*block) + size);
	if (!block)
		return NULL;
	block->size = size;
	env->live_blocks++;
	env->live_bytes += size;
	return block + 1;
}

static void env_free(struct nic_env *e, void *ptr, size_t size)
{
	struct fake_env *env = (struct fake_env *)e;
	struct block *block = (struct block *)ptr - 1;

	must(block->size == size, "freed as %zu bytes, allocated as %zu", size, block->size);
	env->live_blocks--;
	env->live_bytes -= size;
	free(block);
}

static void env_close_fd(struct nic_env *e, int fd, uint64_t size)
{
	struct fake_env *env = (struct fake_env *)e;

	if (env->n_closed < FAKE_CLOSED)
		env->closed[env->n_closed] = fd;
	env->n_closed++;
	if (env->real_fds)
		close(fd);
}

void fake_env_init(struct fake_env *env)
{
	memset(env, 0, sizeof(*env));
	env->env = (struct nic_env){
		.now = env_now,
		.wall = env_wall,
		.random = env_random,
		.alloc = env_alloc,
		.free = env_free,
		.close_fd = env_close_fd,
	};
	env->now = 1000;
	env->wall = UINT64_C(1700000000000000000);
}

/* ---- what it holds */

struct fake_thing {
	uint64_t serial;
	uint32_t generation, token;
	uint64_t door;                         /* stream: that it came in by */
	uint64_t stream;                       /* tag: a window that goes with it */
	unsigned users;                        /* memory: ranges of tags */
	unsigned n_memories;                   /* tag */
	uint64_t memories[NICD_RANGES];
	uint64_t owner, address, length;       /* mapping, key */
	UT_hash_handle hh;
};

static struct fake_thing *thing_find(struct fake_thing *head, uint64_t serial)
{
	struct fake_thing *thing;

	HASH_FIND(hh, head, &serial, sizeof(serial), thing);
	return thing;
}

static struct fake_thing *thing_add(struct fake_thing **head, uint64_t serial)
{
	struct fake_thing *thing = calloc(1, sizeof(*thing));

	must(thing, "out of memory");
	must(!thing_find(*head, serial), "%llu is there already", (unsigned long long)serial);
	thing->serial = serial;
	HASH_ADD(hh, *head, serial, sizeof(thing->serial), thing);
	return thing;
}

static void thing_remove(struct fake_thing **head, struct fake_thing *thing)
{
	HASH_DEL(*head, thing);
	free(thing);
}

static void things_free(struct fake_thing **head)
{
	while (*head)
		thing_remove(head, *head);
}

/* ---- commands */

struct fake_command {
	TAILQ_ENTRY(fake_command) next;
	enum fake_op op;
	struct nic_cmd *cmd;
	uint64_t serial;
	uint64_t pd, door;
	uint64_t order;          /* stream */
	uint32_t generation, rights;
	bool cut, only_qp;
	uint32_t entries;
	uint64_t bytes;
	unsigned n_ranges;
	uint64_t memories[NICD_RANGES];
	uint64_t owner, address, length;
};

static struct fake *fake_of(struct nic_provider *p)
{
	return (struct fake *)p;
}

static void tag_remove(struct fake *fake, struct fake_thing *tag)
{
	for (unsigned i = 0; i < tag->n_memories; i++)
		thing_find(fake->memories, tag->memories[i])->users--;
	thing_remove(&fake->tags, tag);
}

/* With a stream go its windows. */
static void stream_remove(struct fake *fake, struct fake_thing *stream)
{
	struct fake_thing *tag, *next;

	HASH_ITER(hh, fake->tags, tag, next)
		if (tag->stream == stream->serial)
			tag_remove(fake, tag);
	thing_remove(&fake->streams, stream);
}

static void stream_end(struct fake *fake, struct fake_thing *stream, enum nicd_reason reason, bool report,
		       const struct nic_counters *counters)
{
	static const struct nic_counters zero;
	uint64_t serial = stream->serial;
	struct nicd_error why;

	stream_remove(fake, stream);
	nicd_refuse(&why, reason);
	if (report)
		fake->provider.events->stream_closed(fake->provider.adapter, serial, &why, counters ? counters : &zero);
}

static void apply_detach(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *memory = thing_find(fake->memories, command->serial);

	must(memory, "detach of what is not attached");
	must(memory->users == 0, "detach under %u ranges of tags", memory->users);
	thing_remove(&fake->memories, memory);
}

static void thing_use_memories(struct fake *fake, struct fake_thing *thing, const struct fake_command *command)
{
	thing->n_memories = command->n_ranges;
	for (unsigned i = 0; i < command->n_ranges; i++) {
		struct fake_thing *memory = thing_find(fake->memories, command->memories[i]);

		must(memory, "a tag or mapping on memory that is not attached");
		memory->users++;
		thing->memories[i] = command->memories[i];
	}
}

static void apply_tag_add(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *tag = thing_add(&fake->tags, command->serial);

	tag->generation = command->generation;
	tag->stream = command->only_qp ? command->order : 0;
	thing_use_memories(fake, tag, command);
	/* Drawn whether it may be used or not, as devices do: not passing it on is the NIC layer's. */
	tag->token = ++fake->last_token << 8 | 0x42;
	command->cmd->tags.local_token = command->door || command->only_qp ? 0 : fake->last_token << 8 | 0x17;
	command->cmd->tags.remote_token = tag->token;
}

void fake_tag_gone(struct fake *fake, uint64_t serial)
{
	struct fake_thing *tag = thing_find(fake->tags, serial);

	if (tag)
		tag_remove(fake, tag);
}

static void apply_tag_drop(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *tag = thing_find(fake->tags, command->serial);

	/* One that was overtaken finds what it meant gone. */
	if (!tag || (command->order && tag->generation != command->generation))
		return;
	must(tag->generation == command->generation, "drop of generation %u, there is %u", command->generation, tag->generation);
	tag_remove(fake, tag);
	command->cmd->dropped.streams_cut = fake->cut_by_tag;
}

static void apply_mapping_add(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *mapping = thing_add(&fake->mappings, command->serial), *other, *next;

	mapping->owner = command->owner;
	mapping->address = command->address;
	mapping->length = command->length;
	HASH_ITER(hh, fake->mappings, other, next)
		must(other == mapping || other->owner != mapping->owner || other->address >= mapping->address + mapping->length ||
		     mapping->address >= other->address + other->length, "two mappings overlap");
	thing_use_memories(fake, mapping, command);
}

static void apply_mapping_drop(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *mapping = thing_find(fake->mappings, command->serial);

	must(mapping, "drop of a mapping that there is not");
	for (unsigned i = 0; i < mapping->n_memories; i++)
		thing_find(fake->memories, mapping->memories[i])->users--;
	thing_remove(&fake->mappings, mapping);
}

/* Said again, it answers what it answered before. */
static void apply_key_add(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *key = thing_find(fake->keys, command->serial);

	if (!key) {
		key = thing_add(&fake->keys, command->serial);
		key->owner = command->owner;
		key->token = ++fake->last_token << 8 | 0x99;
	}
	must(key->owner == command->owner, "a key of two owners");
	command->cmd->key.v = key->token;
}

static void apply_key_drop(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *key = thing_find(fake->keys, command->serial);

	if (key)
		thing_remove(&fake->keys, key);
}

static void apply_door_drop(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *door = thing_find(fake->doors, command->serial), *stream, *next;
	uint32_t cut = 0;

	HASH_ITER(hh, fake->streams, stream, next)
		if (command->cut && stream->door == command->serial) {
			stream_end(fake, stream, NICD_R_REVOKED, !fake->silent_cut, NULL);
			cut++;
		}
	if (door)
		thing_remove(&fake->doors, door);
	command->cmd->dropped.streams_cut = cut;
}

static void apply_connect(struct fake *fake, const struct fake_command *command)
{
	thing_add(&fake->streams, command->serial);
	command->cmd->connected.grant = (struct nic_grant_info){
		.remote_token = 0x5151, .rights = 0x7, .iova = 0x10000, .length = 4096, .incarnation = 77 };
	strcpy(command->cmd->connected.peer, "127.0.0.2:7190");
}

static void apply_disconnect(struct fake *fake, const struct fake_command *command)
{
	struct fake_thing *stream = thing_find(fake->streams, command->serial);

	if (stream)
		stream_remove(fake, stream);
}

static void apply(struct fake *fake, const struct fake_command *command)
{
	struct nic_cmd *cmd = command->cmd;

	switch (command->op) {
	case FAKE_ATTACH:
		thing_add(&fake->memories, command->serial);
		break;
	case FAKE_DETACH:
		apply_detach(fake, command);
		break;
	case FAKE_TAG_ADD:
		apply_tag_add(fake, command);
		break;
	case FAKE_TAG_DROP:
		apply_tag_drop(fake, command);
		break;
	case FAKE_MAPPING_ADD:
		apply_mapping_add(fake, command);
		break;
	case FAKE_MAPPING_DROP:
		apply_mapping_drop(fake, command);
		break;
	case FAKE_KEY_ADD:
		apply_key_add(fake, command);
		break;
	case FAKE_KEY_DROP:
		apply_key_drop(fake, command);
		break;
	case FAKE_DOOR_ADD:
		thing_add(&fake->doors, command->serial);
		break;
	case FAKE_DOOR_DROP:
		apply_door_drop(fake, command);
		break;
	case FAKE_CONNECT:
		apply_connect(fake, command);
		break;
	case FAKE_POST:
		cmd->completion.bytes = command->bytes;
		cmd->completion.entries = command->entries;
		break;
	case FAKE_DISCONNECT:
		apply_disconnect(fake, command);
		break;
	case FAKE_QUERY:
		cmd->stream.counters = (struct nic_counters){ .bytes_read = 1, .bytes_written = 2, .peer_read = 3, .peer_written = 4 };
		cmd->stream.connected = true;
		break;
	case FAKE_STATS:
		fake_stats(fake, &cmd->stats.memories, &cmd->stats.tags, &cmd->stats.tickets, &cmd->stats.streams);
		break;
	case FAKE_FLUSH:
	case FAKE_OPS:
		break;
	}
}

/* Takes the command. */
static void end(struct fake *fake, struct fake_command *command, enum nicd_reason reason)
{
	struct fake_failure *failure = &fake->fail[command->op];
	struct nic_cmd *cmd = command->cmd;

	if (reason == NICD_R_NONE && failure->times > 0) {
		if (failure->skip > 0) {
			failure->skip--;
		} else {
			failure->times--;
			reason = failure->reason;
		}
	}
	if (reason == NICD_R_NONE && command->op == FAKE_TAG_ADD && command->order && !thing_find(fake->streams, command->order))
		reason = NICD_R_QP_LOST;
	if (reason == NICD_R_NONE)
		apply(fake, command);
	else
		nicd_refuse(&cmd->error, reason);
	free(command);
	cmd->done(cmd);
}

/*
 * Posts, flushes and queries may overlap on one stream, what connects may be disconnected, and what is ordered overtaken by a drop;
 * other commands on one object may not.
 */
static bool may_overlap(enum fake_op op, const struct fake_command *other)
{
	enum fake_op before = other->op;

	if (other->order && (op == FAKE_TAG_DROP || before == FAKE_TAG_DROP))
		return true;
	if (op == FAKE_KEY_ADD)
		return before == FAKE_KEY_ADD;
	if (op == FAKE_POST || op == FAKE_FLUSH || op == FAKE_QUERY || op == FAKE_STATS)
		return true;
	return before == FAKE_CONNECT ? op == FAKE_DISCONNECT :
	       before == FAKE_POST || before == FAKE_FLUSH || before == FAKE_QUERY || before == FAKE_STATS;
}

static struct fake_command *begin(struct fake *fake, enum fake_op op, uint64_t serial, struct nic_cmd *cmd)
{
	struct fake_command *command;

	must(!fake->told_lost, "a command after the device was lost");
	must(cmd->done && cmd->error.reason == NICD_R_NONE, "a command that was not begun");
	TAILQ_FOREACH(command, &fake->pending, next) {
		must(command->cmd != cmd, "a command given twice");
		must(may_overlap(op, command) || command->serial != serial,
		     "a command on an object whose last one has not ended");
	}
	command = calloc(1, sizeof(*command));
	must(command, "out of memory");
	command->op = op;
	command->serial = serial;
	command->cmd = cmd;
	fake->calls[op]++;
	return command;
}

static void go(struct fake *fake, struct fake_command *command)
{
	if (fake->lost)   /* and nobody was told yet */
		end(fake, command, NICD_R_DEVICE_LOST);
	else if (fake->hold[command->op])
		TAILQ_INSERT_TAIL(&fake->pending, command, next);
	else
		end(fake, command, NICD_R_NONE);
}

/* ---- ops */

static uint64_t fake_cost(struct nic_provider *p, enum nic_cost what, uint64_t bytes)
{
	struct fake *fake = fake_of(p);

	return bytes * (what == NIC_COST_ATTACH ? fake->attach_percent : fake->tag_percent) / 100;
}

static void op_attach(struct nic_provider *p, const struct nic_attach *what, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->attach = *what;
	go(fake, begin(fake, FAKE_ATTACH, what->memory, cmd));
}

static void op_detach(struct nic_provider *p, uint64_t memory, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->serial = memory;
	go(fake, begin(fake, FAKE_DETACH, memory, cmd));
}

static void op_tag_add(struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);
	struct fake_command *command = begin(fake, FAKE_TAG_ADD, what->serial, cmd);
	uint64_t total = 0;

	must(what->n_ranges >= !what->reserve && what->n_ranges <= (what->reserve ? 0 : NICD_RANGES), "a tag of %u ranges", what->n_ranges);
	must(!what->order.qp || thing_find(fake->streams, what->order.qp), "work of a stream that there is not");
	must(!what->only_qp || what->order.qp, "a window of no Qp");
	for (unsigned i = 0; i < what->n_ranges; i++) {
		total += what->ranges[i].length;
		command->memories[i] = what->ranges[i].memory;
	}
	must(total == what->length, "the ranges of a tag are not as long as it");
	command->n_ranges = what->n_ranges;
	command->generation = what->generation;
	command->door = what->door;
	command->only_qp = what->only_qp;
	command->order = what->order.qp;
	if (what->n_ranges > 0)
		memcpy(fake->ranges, what->ranges, what->n_ranges * sizeof(*what->ranges));
	fake->tag = *what;
	fake->tag.ranges = fake->ranges;
	go(fake, command);
}

static void op_tag_drop(struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order,
			struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);
	struct fake_command *command = begin(fake, FAKE_TAG_DROP, serial, cmd);

	must(!order || !order->qp || thing_find(fake->streams, order->qp), "work of a stream that there is not");
	command->generation = generation;
	command->order = order ? order->qp : 0;
	fake->drop_order = order ? *order : (struct nic_order){ 0 };
	fake->serial = serial;
	fake->generation = generation;
	go(fake, command);
}

static void op_mapping_add(struct nic_provider *p, const struct nic_map *what, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);
	struct fake_command *command = begin(fake, FAKE_MAPPING_ADD, what->serial, cmd);
	uint64_t total = 0;

	must(what->n_ranges > 0 && what->n_ranges <= NICD_RANGES, "a mapping of %u ranges", what->n_ranges);
	for (unsigned i = 0; i < what->n_ranges; i++) {
		total += what->ranges[i].length;
		command->memories[i] = what->ranges[i].memory;
	}
	must(total == what->length, "the ranges of a mapping are not as long as it");
	must(what->address != 0 && what->address <= UINT64_MAX - what->length, "a mapping at no address");
	must(what->address % NICD_PAGE == what->ranges[0].offset % NICD_PAGE, "an address that does not fit the first byte");
	command->n_ranges = what->n_ranges;
	command->owner = what->owner;
	command->address = what->address;
	command->length = what->length;
	memcpy(fake->ranges, what->ranges, what->n_ranges * sizeof(*what->ranges));
	fake->map = *what;
	fake->map.ranges = fake->ranges;
	go(fake, command);
}

static void op_mapping_drop(struct nic_provider *p, uint64_t serial, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->serial = serial;
	go(fake, begin(fake, FAKE_MAPPING_DROP, serial, cmd));
}

/* Questions for one key may be under way at the same time. */
static void op_key_add(struct nic_provider *p, uint64_t pd, uint64_t owner, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);
	struct fake_command *command = begin(fake, FAKE_KEY_ADD, pd, cmd);

	command->owner = owner;
	fake->serial = pd;
	go(fake, command);
}

static void op_key_drop(struct nic_provider *p, uint64_t pd, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->serial = pd;
	go(fake, begin(fake, FAKE_KEY_DROP, pd, cmd));
}

static void op_door_add(struct nic_provider *p, const struct nic_door *what, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->door = *what;
	go(fake, begin(fake, FAKE_DOOR_ADD, what->serial, cmd));
}

static void op_door_drop(struct nic_provider *p, uint64_t serial, bool cut, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);
	struct fake_command *command = begin(fake, FAKE_DOOR_DROP, serial, cmd);

	command->cut = cut;
	fake->serial = serial;
	go(fake, command);
}

static void op_connect(struct nic_provider *p, const struct nic_connect *what, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->connect = *what;
	go(fake, begin(fake, FAKE_CONNECT, what->qp, cmd));
}

static void op_post(struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);
	struct fake_command *command = begin(fake, FAKE_POST, what->qp, cmd);

	command->entries = what->n_entries;
	for (uint32_t i = 0; i < what->n_entries; i++)
		command->bytes += what->entries[i * NICD_TRANSFER_ENTRY_SIZE + 24];   /* tests use short lengths */
	fake->post = *what;
	fake->post.entries = NULL;
	go(fake, command);
}

static void op_qp(struct nic_provider *p, enum fake_op op, uint64_t qp, struct nic_cmd *cmd)
{
	struct fake *fake = fake_of(p);

	fake->serial = qp;
	go(fake, begin(fake, op, qp, cmd));
}

static void op_flush(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	op_qp(p, FAKE_FLUSH, qp, cmd);
}

static void op_disconnect(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	op_qp(p, FAKE_DISCONNECT, qp, cmd);
}

static void op_query(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	op_qp(p, FAKE_QUERY, qp, cmd);
}

static void op_stats(struct nic_provider *p, struct nic_cmd *cmd)
{
	op_qp(p, FAKE_STATS, 0, cmd);
}

static void op_push(struct nic_provider *p)
{
	fake_of(p)->pushes++;
}

static void end_pending(struct fake *fake, enum nicd_reason reason)
{
	struct fake_command *command;

	while ((command = TAILQ_FIRST(&fake->pending))) {
		TAILQ_REMOVE(&fake->pending, command, next);
		end(fake, command, reason);
	}
}

static void op_free(struct nic_provider *p)
{
	struct fake *fake = fake_of(p);

	fake->lost = fake->told_lost = true;
	end_pending(fake, NICD_R_DEVICE_LOST);
	things_free(&fake->tags);
	things_free(&fake->mappings);
	things_free(&fake->keys);
	things_free(&fake->memories);
	things_free(&fake->doors);
	things_free(&fake->streams);
	if (fake->freed)
		*fake->freed = true;
	free(fake);
}

static const struct nic_provider_ops fake_ops = {
	.name = "fake",
	.cost = fake_cost,
	.memory_attach = op_attach,
	.memory_detach = op_detach,
	.tag_add = op_tag_add,
	.tag_drop = op_tag_drop,
	.mapping_add = op_mapping_add,
	.mapping_drop = op_mapping_drop,
	.key_add = op_key_add,
	.key_drop = op_key_drop,
	.door_add = op_door_add,
	.door_drop = op_door_drop,
	.qp_connect = op_connect,
	.qp_post = op_post,
	.qp_flush = op_flush,
	.qp_disconnect = op_disconnect,
	.qp_query = op_query,
	.stats = op_stats,
	.push = op_push,
	.free = op_free,
};

struct fake *fake_new(void)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	must(fake, "out of memory");
	fake->provider = (struct nic_provider){
		.ops = &fake_ops,
		.name = "fake0",
		.incarnation = 4711,
		.adapter_flags = 0x2,
		.max_registration = UINT64_C(1) << 40,
		.max_transfer = UINT64_C(1) << 30,
		.max_inbound_read = 64,
		.max_outbound_read = 64,
		.up = true,
	};
	fake->attach_percent = 100;
	fake->last_stream = UINT64_C(1) << 63;
	TAILQ_INIT(&fake->pending);
	return fake;
}

/* ---- playing */

void fake_hold(struct fake *fake, enum fake_op op, bool hold)
{
	if (op < FAKE_OPS)
		fake->hold[op] = hold;
	else
		for (unsigned i = 0; i < FAKE_OPS; i++)
			fake->hold[i] = hold;
}

void fake_fail(struct fake *fake, enum fake_op op, unsigned skip, unsigned times, enum nicd_reason reason)
{
	fake->fail[op] = (struct fake_failure){ .reason = reason, .skip = skip, .times = times };
}

unsigned fake_pending(const struct fake *fake, enum fake_op op)
{
	const struct fake_command *command;
	unsigned n = 0;

	TAILQ_FOREACH(command, &fake->pending, next)
		n += op == FAKE_OPS || command->op == op;
	return n;
}

static bool complete(struct fake *fake, enum fake_op op, bool newest, enum nicd_reason reason)
{
	struct fake_command *command, *found = NULL;

	TAILQ_FOREACH(command, &fake->pending, next)
		if ((op == FAKE_OPS || command->op == op) && (newest || !found))
			found = command;
	if (!found)
		return false;
	TAILQ_REMOVE(&fake->pending, found, next);
	end(fake, found, reason);
	return true;
}

bool fake_complete(struct fake *fake, enum fake_op op)
{
	return complete(fake, op, false, NICD_R_NONE);
}

bool fake_complete_newest(struct fake *fake, enum fake_op op)
{
	return complete(fake, op, true, NICD_R_NONE);
}

bool fake_complete_with(struct fake *fake, enum fake_op op, enum nicd_reason reason)
{
	return complete(fake, op, false, reason);
}

unsigned fake_complete_all(struct fake *fake)
{
	unsigned n = 0;

	while (complete(fake, FAKE_OPS, false, NICD_R_NONE))
		n++;
	return n;
}

void fake_stats(const struct fake *fake, uint64_t *memories, uint64_t *tags, uint64_t *doors, uint64_t *streams)
{
	*memories = HASH_COUNT(fake->memories);
	*tags = HASH_COUNT(fake->tags);
	*doors = HASH_COUNT(fake->doors);
	*streams = HASH_COUNT(fake->streams);
}

bool fake_holds_nothing(const struct fake *fake)
{
	return !fake->memories && !fake->tags && !fake->mappings && !fake->keys && !fake->doors && !fake->streams;
}

uint32_t fake_tag_token(const struct fake *fake, uint64_t serial)
{
	const struct fake_thing *tag = thing_find(fake->tags, serial);

	return tag ? tag->token : 0;
}

/* ---- news */

uint64_t fake_stream_open(struct fake *fake, uint64_t door, const char *peer)
{
	struct fake_thing *stream = thing_add(&fake->streams, ++fake->last_stream);
	uint64_t serial = stream->serial;

	stream->door = door;
	fake->provider.events->stream_opened(fake->provider.adapter, serial, door, peer);
	return serial;
}

void fake_stream_close(struct fake *fake, uint64_t stream, enum nicd_reason why, const struct nic_counters *counters)
{
	struct fake_thing *thing = thing_find(fake->streams, stream);

	must(thing, "no such stream to close");
	stream_end(fake, thing, why, true, counters);
}

void fake_expire(struct fake *fake, uint64_t door)
{
	fake->provider.events->door_expired(fake->provider.adapter, door);
}

void fake_lose(struct fake *fake, bool event_first)
{
	fake->lost = true;
	if (!event_first) {
		fake->provider.up = fake->half_lost;   /* like nicd-soft's provider, which knows first */
		end_pending(fake, NICD_R_DEVICE_LOST);
	}
	fake->told_lost = true;
	fake->provider.events->lost(fake->provider.adapter);
	end_pending(fake, NICD_R_DEVICE_LOST);
}
