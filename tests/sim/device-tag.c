/* SPDX-License-Identifier: MIT */
/*
 * Tags of the simulated device. One that is asked for as work of a stream is added and dropped whenever the seed wants, for nobody knows what is
 * posted in front of it; when the stream ends first, it was not added, and is dropped. A window goes with the stream of its peer.
 */
#include <string.h>

#include "tests/sim/device-private.h"

static uint32_t token_draw(struct device *d)
{
	for (unsigned i = 0; i < 100000; i++) {
		uint32_t token = sim_below(&world->dice, TOKENS);

		if (!token || d->rests_until[token] > world->now)
			continue;
		d->rests_until[token] = UINT64_MAX;
		return token;
	}
	sim_fail("the device has no tokens left");
}

void device_tag_gone(struct device *d, const struct thing *tag)
{
	const struct thing gone = *tag;

	device_cut(d, &gone);
	d->rests_until[gone.local] = d->rests_until[gone.remote] = world->now + REST_MS * UINT64_C(1000000) + 1;
	device_thing_remove(d, device_thing(d, THING_TAG, gone.serial));
}

void device_windows_gone(struct device *d, uint64_t stream)
{
	for (unsigned i = 0; i < d->n_things; i++) {
		const struct thing *tag = &d->things[i];
		struct m_tag gone = { tag->serial, tag->generation, tag->local, tag->remote };

		if (tag->kind != THING_TAG || tag->only_stream != stream || !tag->settled)
			continue;
		trace("window gone", (uint64_t)d->index, gone.serial, stream);
		device_tag_gone(d, tag);
		model_tag_gone(world->model, d->index, &gone);
		i = UINT32_MAX;   /* from the start: the list has changed */
	}
}

/* ---- commands end */

/* One that came with a stream that has ended was not added; and what was to be dropped is. */
enum nicd_reason device_tag_judge(struct device *d, const struct command *c, enum nicd_reason reason)
{
	const struct thing *stream = device_thing(d, THING_STREAM, c->order);

	if (!c->order || (stream && !stream->doomed) || reason == NICD_R_DEVICE_LOST)
		return reason;
	if (c->op == OP_TAG_DROP)
		return NICD_R_NONE;
	return sim_chance(&world->random, 2) ? NICD_R_QP_LOST : NICD_R_FLUSHED;
}

void device_tag_added(struct device *d, const struct command *c, uint32_t *local, uint32_t *remote)
{
	struct thing *tag = device_thing(d, THING_TAG, c->serial);

	tag->settled = true;
	*local = c->cmd->tags.local_token = tag->local;
	*remote = c->cmd->tags.remote_token = tag->remote;
}

/* One that is still being added is not there yet: nothing is dropped. */
void device_tag_dropped(struct device *d, const struct command *c, uint32_t *local, uint32_t *remote)
{
	const struct thing *tag = device_thing(d, THING_TAG, c->serial);

	if (!tag || !tag->settled || tag->generation != c->generation)
		return;
	*local = tag->local;
	*remote = tag->remote;
	device_tag_gone(d, tag);
}

/* ---- commands come */

void device_op_tag_add(struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd)
{
	struct device *d = device_of(p);
	struct sim_op_args args = {
		.pd = what->pd, .door = what->door, .iova = what->iova, .length = what->length, .rights = what->rights,
		.generation = what->generation, .n_ranges = what->n_ranges, .order = what->order.qp, .fence = what->order.fence,
		.only_qp = what->only_qp, .reserve = what->reserve };
	struct thing *tag;

	sim_must(what->n_ranges <= SIM_RANGES, "a tag of too many ranges");
	for (unsigned i = 0; i < what->n_ranges; i++) {
		args.ranges[i].memory = what->ranges[i].memory;
		args.ranges[i].offset = what->ranges[i].offset;
		args.ranges[i].length = what->ranges[i].length;
	}
	sim_must(!device_thing(d, THING_TAG, what->serial), "a tag is added twice");
	tag = device_thing_add(d, THING_TAG, what->serial);
	tag->generation = what->generation;
	tag->pd = what->pd;
	tag->door = what->door;
	tag->iova = what->iova;
	tag->length = what->length;
	tag->rights = what->rights;
	tag->reserve = what->reserve;
	tag->only_stream = what->only_qp ? what->order.qp : 0;
	/* Both are drawn, also when nobody may use one of them, as devices do: not to pass it on is the NIC layer's. */
	tag->remote = token_draw(d);
	if (!what->door && !what->only_qp)
		tag->local = token_draw(d);
	device_go(d, OP_TAG_ADD, what->serial, cmd, &args, &(struct command){ .order = what->order.qp });
}

void device_op_tag_drop(struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order,
			struct nic_cmd *cmd)
{
	const struct thing *tag = device_thing(device_of(p), THING_TAG, serial);
	struct sim_op_args args = { .generation = generation, .order = order ? order->qp : 0, .fence = order && order->fence };

	sim_must(!tag || tag->generation == generation, "the tag of another registration is dropped");
	device_go(device_of(p), OP_TAG_DROP, serial, cmd, &args, &(struct command){ .order = args.order, .generation = generation });
}

/* ---- mappings and privileged keys */

void device_op_mapping_add(struct nic_provider *p, const struct nic_map *what, struct nic_cmd *cmd)
{
	struct sim_op_args args = { .iova = what->address, .length = what->length, .owner = what->owner, .n_ranges = what->n_ranges };

	sim_must(what->n_ranges <= SIM_RANGES, "a mapping of too many ranges");
	for (unsigned i = 0; i < what->n_ranges; i++) {
		args.ranges[i].memory = what->ranges[i].memory;
		args.ranges[i].offset = what->ranges[i].offset;
		args.ranges[i].length = what->ranges[i].length;
	}
	device_thing_add(device_of(p), THING_MAPPING, what->serial);
	device_go(device_of(p), OP_MAPPING_ADD, what->serial, cmd, &args, &(struct command){ 0 });
}

void device_op_mapping_drop(struct nic_provider *p, uint64_t serial, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_MAPPING_DROP, serial, cmd, NULL, &(struct command){ 0 });
}

void device_op_key_add(struct nic_provider *p, uint64_t pd, uint64_t owner, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_KEY_ADD, pd, cmd, &(struct sim_op_args){ .owner = owner }, &(struct command){ 0 });
}

void device_op_key_drop(struct nic_provider *p, uint64_t pd, struct nic_cmd *cmd)
{
	device_go(device_of(p), OP_KEY_DROP, pd, cmd, NULL, &(struct command){ 0 });
}

uint32_t device_key(struct device *d, uint64_t pd)
{
	struct thing *key = device_thing(d, THING_KEY, pd);

	if (!key) {
		key = device_thing_add(d, THING_KEY, pd);
		key->local = token_draw(d);
	}
	return key->local;
}
