/* SPDX-License-Identifier: MIT */
/*
 * A device without hardware. It draws its tokens from a small space and keeps what it was given; what is added may be used
 * from the moment it is asked for, what is taken away until its command has ended: the worst that a NIC may do. Commands end in any order,
 * at once or as late as the seed wants, or fail and change nothing. Peers come, go, and doors expire when it pleases; and all of it may go
 * away.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/locator.h"
#include "tests/sim/device-private.h"

struct thing *device_thing(struct device *d, unsigned kind, uint64_t serial)
{
	for (unsigned i = 0; i < d->n_things; i++)
		if (d->things[i].kind == kind && d->things[i].serial == serial)
			return &d->things[i];
	return NULL;
}

struct thing *device_thing_add(struct device *d, unsigned kind, uint64_t serial)
{
	struct thing *thing = &d->things[d->n_things++];

	sim_must(d->n_things < THINGS, "the device is too small");
	*thing = (struct thing){ .kind = kind, .serial = serial };
	return thing;
}

void device_thing_remove(struct device *d, struct thing *thing)
{
	if (thing)
		*thing = d->things[--d->n_things];
}

static struct nic_counters counters(void)
{
	return (struct nic_counters){ .bytes_read = 1, .bytes_written = 2, .peer_read = 3, .peer_written = 4 };
}

/* A stream is gone; nicd hears of it, or has to find out. */
void device_stream_end(struct device *d, struct thing *stream, enum nicd_reason why, bool tell)
{
	struct nic_counters last = counters();
	struct nicd_error error = { .reason = why };
	uint64_t serial = stream->serial;

	device_thing_remove(d, stream);
	device_windows_gone(d, serial);
	if (!tell)
		return;
	trace("stream closed", (uint64_t)d->index, serial, why);
	model_stream_closed(world->model, d->index, serial);
	d->provider.events->stream_closed(d->provider.adapter, serial, &error, &last);
	model_command_over(world->model);
}

/* ---- commands end */

static void apply_door_drop(struct device *d, const struct command *c)
{
	bool tell = sim_chance(&world->random, 2);
	uint32_t cut = 0;

	for (unsigned i = 0; i < d->n_things; i++) {
		if (d->things[i].kind != THING_STREAM || d->things[i].door != c->serial)
			continue;
		device_stream_end(d, &d->things[i], NICD_R_REVOKED, tell);
		cut++;
		i = UINT32_MAX;
	}
	device_thing_remove(d, device_thing(d, THING_DOOR, c->serial));
	c->cmd->dropped.streams_cut = cut;
}

static void apply_connect(struct device *d, const struct command *c)
{
	struct thing *stream = device_thing_add(d, THING_STREAM, c->serial);

	stream->settled = true;
	stream->pd = c->pd;
	c->cmd->connected.grant = (struct nic_grant_info){
		.remote_token = 0x5151, .rights = 0x7, .iova = 0x10000, .length = 4096, .incarnation = 77 };
	strcpy(c->cmd->connected.peer, "127.0.0.2:7190");
}

/* It succeeded. Before anything is told: the model knows first. */
static void apply(struct device *d, const struct command *c, uint32_t *local, uint32_t *remote)
{
	struct thing *key;

	switch (c->op) {
	case OP_ATTACH:
		device_thing(d, THING_MEMORY, c->serial)->settled = true;
		break;
	case OP_DETACH:
		device_thing_remove(d, device_thing(d, THING_MEMORY, c->serial));
		break;
	case OP_TAG_ADD:
		device_tag_added(d, c, local, remote);
		break;
	case OP_TAG_DROP:
		device_tag_dropped(d, c, local, remote);
		break;
	case OP_DOOR_ADD:
		device_thing(d, THING_DOOR, c->serial)->settled = true;
		break;
	case OP_CONNECT:
		apply_connect(d, c);
		break;
	case OP_FLUSH:
		device_cancel(d, c->serial, c->number);
		break;
	case OP_DISCONNECT:
		if (sim_chance(&world->random, 2))
			device_cancel(d, c->serial, c->number);
		c->cmd->stream.connected = device_thing(d, THING_STREAM, c->serial);
		c->cmd->stream.counters = counters();
		device_thing_remove(d, device_thing(d, THING_STREAM, c->serial));
		device_windows_gone(d, c->serial);
		break;
	case OP_MAPPING_DROP:
		device_thing_remove(d, device_thing(d, THING_MAPPING, c->serial));
		break;
	case OP_KEY_ADD:
		*local = c->cmd->key.v = device_key(d, c->serial);
		break;
	case OP_KEY_DROP:
		key = device_thing(d, THING_KEY, c->serial);
		if (key)
			d->rests_until[key->local] = world->now + REST_MS * UINT64_C(1000000) + 1;
		device_thing_remove(d, key);
		break;
	case OP_QUERY:
		c->cmd->stream.connected = true;
		c->cmd->stream.counters = counters();
		break;
	case OP_STATS:
		for (unsigned i = 0; i < d->n_things; i++) {
			c->cmd->stats.memories += d->things[i].kind == THING_MEMORY;
			c->cmd->stats.tags += d->things[i].kind == THING_TAG;
			c->cmd->stats.tickets += d->things[i].kind == THING_DOOR;
			c->cmd->stats.streams += d->things[i].kind == THING_STREAM;
		}
		break;
	default:
		break;
	}
}

/* It failed: what was added is taken back. */
static void take_back(struct device *d, const struct command *c)
{
	struct thing *thing = NULL;

	if (c->op == OP_ATTACH)
		thing = device_thing(d, THING_MEMORY, c->serial);
	if (c->op == OP_TAG_ADD)
		thing = device_thing(d, THING_TAG, c->serial);
	if (c->op == OP_DOOR_ADD)
		thing = device_thing(d, THING_DOOR, c->serial);
	if (c->op == OP_MAPPING_ADD)
		thing = device_thing(d, THING_MAPPING, c->serial);
	if (thing && thing->kind == THING_TAG)
		device_tag_gone(d, thing);
	else
		device_thing_remove(d, thing);
}

static enum nicd_reason failure(const struct command *c)
{
	static const enum nicd_reason adds[] = { NICD_R_DEVICE_FAILED, NICD_R_NO_MEMORY, NICD_R_MEMORY_MAP, NICD_R_TAGS_EXHAUSTED,
						 NICD_R_DEVICE_BUSY };
	static const enum nicd_reason drops[] = { NICD_R_DEVICE_FAILED, NICD_R_NO_MEMORY, NICD_R_DEVICE_BUSY };
	static const enum nicd_reason connects[] = { NICD_R_CONNECT, NICD_R_CONNECT, NICD_R_CONNECT, NICD_R_DEVICE_FAILED };
	static const enum nicd_reason queries[] = { NICD_R_QP_STATE, NICD_R_DEVICE_FAILED };

	switch (c->op) {
	case OP_ATTACH:
	case OP_TAG_ADD:
	case OP_DOOR_ADD:
	case OP_MAPPING_ADD:
	case OP_KEY_ADD:
		return adds[sim_below(&world->random, 5)];
	case OP_CONNECT:
		return connects[sim_below(&world->random, 4)];
	case OP_POST:
		return device_work_failure(c);
	case OP_QUERY:
		return queries[sim_below(&world->random, 2)];
	default:
		return drops[sim_below(&world->random, 3)];
	}
}

static void end(struct device *d, const struct command *c, enum nicd_reason reason)
{
	struct m_request *outer = world->model->current;
	uint32_t local = 0, remote = 0, status;

	if (c->op == OP_POST)
		reason = device_work_judge(d, c, reason);
	if (c->op == OP_TAG_ADD || c->op == OP_TAG_DROP)
		reason = device_tag_judge(d, c, reason);
	status = nicd_reason_info(reason)->status;
	if (reason == NICD_R_NONE && c->op == OP_DOOR_DROP)
		apply_door_drop(d, c);
	else if (reason == NICD_R_NONE)
		apply(d, c, &local, &remote);
	else
		take_back(d, c);
	if (reason != NICD_R_NONE)
		nicd_refuse(&c->cmd->error, reason);
	if (c->op == OP_POST)
		device_work_complete(c, reason);
	trace("command ends", c->number, c->op, status);
	model_command_end(world->model, c->number, status, local, remote);
	c->cmd->done(c->cmd);
	world->model->current = outer;
}

void device_end(struct device *d, unsigned i, enum nicd_reason reason)
{
	const struct command c = d->commands[i];

	d->commands[i] = d->commands[--d->n_commands];
	end(d, &c, reason);
}

/* ---- commands come */

void device_opened(void)
{
	struct world_opening how = world->opening;
	const struct nic_object *object = nic_next(&world->nic, NIC_QP, how.before);
	const struct nic_qp *qp = (const struct nic_qp *)object;

	world->opening.stream = 0;
	if (!how.stream)
		return;
	if (object && qp->stream == how.stream)
		model_stream_opened(world->model, how.device, how.stream, how.door, object->serial, object->id,
				    qp->grant ? qp->grant->object.serial : 0);
	else
		model_stream_opened(world->model, how.device, how.stream, how.door, 0, 0, 0);
}

/* Receives mostly wait, and for those in front of them. */
static bool may_end_now(const struct device *d, const struct command *c)
{
	if (!world->profile->inline_end || world->model->draining)
		return false;
	if (c->op != OP_POST || c->work.operation != WORK_RECEIVE || c->broken != NICD_R_NONE)
		return true;
	return device_oldest_receive(d, c->serial) == UINT32_MAX && sim_chance(&world->random, 4);
}

void device_go(struct device *d, enum sim_op op, uint64_t serial, struct nic_cmd *cmd, const struct sim_op_args *args, struct command *fill)
{
	struct command c = *fill;

	c.op = op;
	c.serial = serial;
	c.cmd = cmd;
	c.number = (unsigned)world->commands++;
	sim_must(!d->told, "a command to a device that is lost");
	sim_must(cmd->done && cmd->error.reason == NICD_R_NONE, "a command that was not begun");
	for (unsigned i = 0; i < d->n_commands; i++)
		sim_must(d->commands[i].cmd != cmd, "a command is given twice");
	device_opened();
	trace("command", c.number, op, serial);
	model_command(world->model, d->index, c.number, op, serial, args);
	if (d->lost) {
		end(d, &c, NICD_R_DEVICE_LOST);
		return;
	}
	if (may_end_now(d, &c) && sim_chance(&world->random, world->profile->inline_end)) {
		end(d, &c, sim_chance(&world->random, world->profile->fail) ? failure(&c) : NICD_R_NONE);
		return;
	}
	sim_must(d->n_commands < COMMANDS, "the device is too small");
	d->commands[d->n_commands++] = c;
}

static uint64_t op_cost(struct nic_provider *p, enum nic_cost what, uint64_t bytes)
{
	return bytes * (what == NIC_COST_ATTACH ? world->model->terms.attach_percent : world->model->terms.tag_percent) / 100;
}

static void op_attach(struct nic_provider *p, const struct nic_attach *what, struct nic_cmd *cmd)
{
	struct device *d = device_of(p);
	struct sim_op_args args = { 0 };

	sim_must(what->fd >= 0 && what->fd < WORLD_FDS && world->fd_open[what->fd], "memory with a descriptor that is closed");
	sim_must(world->fds[what->fd].size == what->size, "memory of another size");
	sim_must(!device_thing(d, THING_MEMORY, what->memory), "memory is attached twice");
	device_thing_add(d, THING_MEMORY, what->memory);
	args.fd = (uint32_t)what->fd;
	device_go(d, OP_ATTACH, what->memory, cmd, &args, &(struct command){ 0 });
}

static void op_detach(struct nic_provider *p, uint64_t memory, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_DETACH, memory, cmd, NULL, &(struct command){ 0 });
}

static void op_door_add(struct nic_provider *p, const struct nic_door *what, struct nic_cmd *cmd)
{
	struct device *d = device_of(p);
	struct sim_op_args args = {
		.pd = what->pd, .door = what->door, .iova = what->grant.iova, .length = what->grant.length, .rights = what->grant.rights,
		.token = what->grant.remote_token, .uses = what->uses, .max_streams = what->max_streams };
	struct thing *door;

	memcpy(args.hash, what->hash, sizeof(args.hash));
	door = device_thing_add(d, THING_DOOR, what->serial);
	door->uses = what->uses;
	door->pd = what->pd;
	door->max_streams = what->max_streams;
	device_go(d, OP_DOOR_ADD, what->serial, cmd, &args, &(struct command){ 0 });
}

static void op_door_drop(struct nic_provider *p, uint64_t serial, bool cut, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_DOOR_DROP, serial, cmd, NULL, &(struct command){ 0 });
}

static void op_connect(struct nic_provider *p, const struct nic_connect *what, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_CONNECT, what->qp, cmd, NULL, &(struct command){ .pd = what->pd });
}

static void op_post(struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd)
{
	static const enum sim_operation operations[] = {
		[NIC_READ] = WORK_READ, [NIC_WRITE] = WORK_WRITE, [NIC_SEND] = WORK_SEND, [NIC_RECEIVE] = WORK_RECEIVE };
	struct sim_op_args args = { .bytes = what->n_entries * NICD_TRANSFER_ENTRY_SIZE };
	struct command c = { .entries = what->n_entries, .serial = what->qp };
	uint32_t length;

	for (uint32_t i = 0; i < what->n_entries; i++) {
		memcpy(&length, &what->entries[i * NICD_TRANSFER_ENTRY_SIZE + 24], sizeof(length));
		c.bytes += length;
	}
	args.work = (struct sim_work){
		.operation = operations[what->operation], .notify = what->notify, .solicited = what->solicited,
		.invalidate = what->invalidate, .invalidate_token = what->invalidate_token, .fence = what->fence,
		.is_inline = what->is_inline };
	memcpy(&args.work.local_token, what->entries, 4);
	memcpy(&args.work.remote_token, what->entries + 4, 4);
	memcpy(&args.work.local_addr, what->entries + 8, 8);
	memcpy(&args.work.remote_addr, what->entries + 16, 8);
	memcpy(&args.work.length, what->entries + 24, 4);
	args.bytes += what->is_inline ? args.work.length : 0;
	c.work = args.work;
	if (c.work.operation == WORK_RECEIVE)
		c.broken = device_work_check(device_of(p), &c);
	device_go(device_of(p), OP_POST, what->qp, cmd, &args, &c);
}

static void op_flush(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_FLUSH, qp, cmd, NULL, &(struct command){ 0 });
}

static void op_disconnect(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_DISCONNECT, qp, cmd, NULL, &(struct command){ 0 });
}

static void op_query(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_QUERY, qp, cmd, NULL, &(struct command){ 0 });
}

static void op_stats(struct nic_provider *p, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_STATS, 0, cmd, NULL, &(struct command){ 0 });
}

static void op_push(struct nic_provider *p)
{
}

static void end_all(struct device *d, enum nicd_reason reason)
{
	while (d->n_commands) {
		struct command c = d->commands[0];

		memmove(d->commands, d->commands + 1, --d->n_commands * sizeof(c));
		end(d, &c, reason);
	}
}

static void op_free(struct nic_provider *p)
{
	struct device *d = device_of(p);

	d->lost = d->told = true;
	end_all(d, NICD_R_DEVICE_LOST);
	for (unsigned i = 0; i < WORLD_DEVICES; i++)
		if (world->devices[i] == d)
			world->devices[i] = NULL;
	trace("device freed", (uint64_t)d->index, 0, 0);
	if (d->index >= 0)
		model_adapter_gone(world->model, d->index);
	free(d);
}

static struct nic_provider_ops ops;

struct device *device_new(void)
{
	struct device *d = calloc(1, sizeof(*d));
	struct nic_adapter *adapter;

	/* What is not done here is answered by the provider that has nothing. */
	if (!ops.cost) {
		ops = nic_provider_none;
		ops.name = "sim";
		ops.cost = op_cost;
		ops.memory_attach = op_attach;
		ops.memory_detach = op_detach;
		ops.tag_add = device_op_tag_add;
		ops.tag_drop = device_op_tag_drop;
		ops.mapping_add = device_op_mapping_add;
		ops.mapping_drop = device_op_mapping_drop;
		ops.key_add = device_op_key_add;
		ops.key_drop = device_op_key_drop;
		ops.door_add = op_door_add;
		ops.door_drop = op_door_drop;
		ops.qp_connect = op_connect;
		ops.qp_post = op_post;
		ops.qp_flush = op_flush;
		ops.qp_disconnect = op_disconnect;
		ops.qp_query = op_query;
		ops.stats = op_stats;
		ops.push = op_push;
		ops.free = op_free;
	}
	sim_must(d, "no memory for the device");
	d->provider = (struct nic_provider){
		.ops = &ops,
		.incarnation = sim_random(&world->dice),
		.adapter_flags = 0x2,
		.max_registration = world->model->terms.max_registration,
		.max_transfer = world->model->terms.max_transfer,
		.max_inbound_read = 64,
		.max_outbound_read = 64,
		.up = true,
	};
	strcpy(d->provider.name, "sim0");
	d->provider.name[3] = (char)('0' + world->n_device_names++ % 10);
	sim_must(locator_addr_parse("127.0.0.1:7190", &d->provider.data_addr) == 0, "an address");
	d->last_stream = UINT64_C(1) << 63;
	d->index = -1;
	if (nic_adapter_new(&adapter, &world->nic, &d->provider) < 0)
		return NULL;   /* and it was freed */
	d->index = model_adapter(world->model, adapter->object.serial, adapter->object.id);
	trace("device", (uint64_t)d->index, adapter->object.serial, 0);
	return d;
}

struct nic_provider *device_provider(struct device *d)
{
	return &d->provider;
}

/* ---- what it does by itself */

/* Receives are filled in their order; and mostly they wait longer than other work. */
static unsigned some_command(const struct device *d)
{
	unsigned i = sim_below(&world->random, d->n_commands);

	for (unsigned n = 0; n < 2 && d->commands[i].work.operation == WORK_RECEIVE && !world->model->draining; n++)
		i = sim_below(&world->random, d->n_commands);
	if (d->commands[i].op == OP_POST && d->commands[i].work.operation == WORK_RECEIVE)
		i = device_oldest_receive(d, d->commands[i].serial);
	return i;
}

bool device_step(struct device *d, bool may_fail)
{
	struct command c;
	unsigned i;

	if (device_peer_doomed(d))
		return true;
	if (!d->n_commands)
		return false;
	i = some_command(d);
	c = d->commands[i];
	if (may_fail && sim_chance(&world->random, world->profile->fail)) {
		device_end(d, i, failure(&c));
		return true;
	}
	if (c.op == OP_POST && device_work_judge(d, &c, NICD_R_NONE) == NICD_R_NONE && c.work.operation == WORK_RECEIVE && may_fail) {
		d->commands[i] = d->commands[--d->n_commands];
		device_peer_invalidates(d, &c);
		end(d, &c, NICD_R_NONE);
		return true;
	}
	device_end(d, i, NICD_R_NONE);
	return true;
}

void device_lose(struct device *d)
{
	bool first = sim_chance(&world->random, 2);

	trace("device lost", (uint64_t)d->index, first, 0);
	d->lost = true;
	if (sim_chance(&world->random, 2)) {
		/* It says that it is down before it tells, like the provider of nicd-soft. */
		d->provider.up = false;
		model_adapter_down(world->model, d->index);
	}
	if (!first)
		end_all(d, NICD_R_DEVICE_LOST);
	d->provider.up = false;
	model_adapter_lost(world->model, d->index);
	d->provider.events->lost(d->provider.adapter);
	d->told = true;
	end_all(d, NICD_R_DEVICE_LOST);
	d->n_things = 0;
}

bool device_lost(const struct device *d)
{
	return d->lost;
}

bool device_empty(const struct device *d)
{
	return d->lost || (!d->n_things && !d->n_commands);
}

unsigned device_pending(const struct device *d)
{
	return d->n_commands;
}
