/* SPDX-License-Identifier: MIT */
/*
 * What the peers of the simulated device do, when it pleases: come in by a door, go, say that what they wrote is there, take a tag away; and
 * doors whose time is up.
 */
#include "nicd/region.h"
#include "tests/sim/device-private.h"

static struct thing *pick(struct device *d, unsigned kind)
{
	unsigned n = 0, at;

	for (unsigned i = 0; i < d->n_things; i++)
		n += d->things[i].kind == kind && d->things[i].settled;
	at = sim_below(&world->random, n);
	for (unsigned i = 0; i < d->n_things; i++)
		if (d->things[i].kind == kind && d->things[i].settled && !at--)
			return &d->things[i];
	return NULL;
}

static struct thing *pick_inbound(struct device *d)
{
	struct thing *found = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_things; i++)
		if (d->things[i].kind == THING_STREAM && d->things[i].door && !sim_below(&world->random, ++n))
			found = &d->things[i];
	return found;
}

static void news_opened(struct device *d, const struct thing *door)
{
	uint64_t serial = door->serial;
	struct thing *stream;
	uint32_t in = 0;

	for (unsigned i = 0; i < d->n_things; i++)
		in += d->things[i].kind == THING_STREAM && d->things[i].door == serial;
	/* A device that lets in one too many is wrong, and nicd has to cope. */
	if (in >= door->max_streams && !sim_chance(&world->random, 8))
		return;
	stream = device_thing_add(d, THING_STREAM, ++d->last_stream);
	stream->door = serial;
	stream->settled = true;
	stream->pd = door->pd;
	trace("stream opened", (uint64_t)d->index, d->last_stream, serial);
	world->opening = (struct world_opening){
		.device = d->index, .stream = d->last_stream, .door = serial, .before = world->nic.last_serial };
	d->provider.events->stream_opened(d->provider.adapter, d->last_stream, serial, "127.0.0.3:999");
	device_opened();
}

/* Often the device counts several before it tells. */
static void news_notified(struct device *d, struct thing *stream)
{
	uint64_t serial = stream->serial;

	stream->notified += 1 + sim_below(&world->random, 3);
	if (sim_chance(&world->random, 4))
		return;
	trace("notified", (uint64_t)d->index, serial, stream->notified);
	model_stream_notified(world->model, d->index, serial, stream->notified);
	d->provider.events->stream_notified(d->provider.adapter, serial, stream->notified);
}

/* One that the peer of this stream may take away; NULL: any peer. Devices that let them take a normal region away are wrong, and there are some. */
static struct thing *some_invalidatable(struct device *d, const struct thing *stream)
{
	uint32_t rights = RIGHT_INVALIDATABLE | (sim_chance(&world->random, 4) ? 6 : 0);
	struct thing *found = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_things; i++) {
		struct thing *t = &d->things[i];

		if (t->kind != THING_TAG || !t->settled || t->door || !(t->rights & rights))
			continue;
		if ((!stream || (t->pd == stream->pd && (!t->only_stream || t->only_stream == stream->serial))) &&
		    !sim_below(&world->random, ++n))
			found = t;
	}
	return found;
}

static void news_invalidated(struct device *d, const struct thing *tag)
{
	struct m_tag gone = { .serial = tag->serial, .generation = tag->generation, .local = tag->local, .remote = tag->remote };
	const struct m_object *object = model_serial(world->model, tag->serial);
	struct nic_object *region;
	const struct nic_mr *mr;
	bool revoked;

	/* A fast registration with windows needs memory to end: without, it stays, with tokens that nobody knows. */
	if (world->model->armed && object && object->fast)
		return;
	trace("invalidated", (uint64_t)d->index, gone.serial, gone.generation);
	device_tag_gone(d, tag);
	model_command_over(world->model);
	revoked = model_tag_invalidated(world->model, d->index, &gone);
	d->provider.events->tag_invalidated(d->provider.adapter, gone.serial, gone.generation);
	region = nic_find(&world->nic, NIC_MR, gone.serial);
	mr = region ? nic_object_mr(region) : NULL;
	sim_must(!revoked || !mr || mr->state != NIC_MR_REGISTERED || mr->generation != gone.generation,
		 "a region that a peer invalidated is still registered");
	model_command_over(world->model);
}

void device_peer_invalidates(struct device *d, const struct command *c)
{
	const struct thing *stream = device_thing(d, THING_STREAM, c->serial), *tag;

	if (!stream || !sim_chance(&world->random, 4))
		return;
	tag = some_invalidatable(d, stream);
	if (!tag)
		return;
	c->cmd->completion.invalidated = true;
	c->cmd->completion.token = tag->remote;
	news_invalidated(d, tag);
}

bool device_peer_doomed(struct device *d)
{
	for (unsigned i = 0; i < d->n_things; i++)
		if (d->things[i].kind == THING_STREAM && d->things[i].doomed) {
			device_stream_end(d, &d->things[i], NICD_R_QP_LOST, true);
			return true;
		}
	return false;
}

void device_news(struct device *d)
{
	struct thing *thing;

	switch (sim_below(&world->random, 9)) {
	case 0:
	case 1:
	case 2:
		thing = pick(d, THING_DOOR);
		if (thing)
			news_opened(d, thing);
		break;
	case 3:
	case 4:
		thing = pick(d, THING_STREAM);
		if (thing)
			device_stream_end(d, thing, NICD_R_PEER_CLOSED, true);
		break;
	case 5:
		thing = pick(d, THING_DOOR);
		if (!thing)
			break;
		trace("door expired", (uint64_t)d->index, thing->serial, 0);
		model_door_expired(world->model, d->index, thing->serial);
		d->provider.events->door_expired(d->provider.adapter, thing->serial);
		break;
	case 6:
	case 7:
		do {
			thing = pick_inbound(d);
			if (thing)
				news_notified(d, thing);
		} while (thing && sim_chance(&world->random, 2));
		break;
	case 8:
		thing = some_invalidatable(d, NULL);
		if (thing)
			news_invalidated(d, thing);
		break;
	}
	model_command_over(world->model);
}
