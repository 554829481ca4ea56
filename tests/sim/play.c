/* SPDX-License-Identifier: MIT */
/*
 * What happens in a step: mostly a client asks for something; or the device goes on, tells something, or goes away; or
 * time passes, or somebody leaves.
 */
#include "tests/sim/ask.h"

/* ---- frames */

static void spoil(int client, struct sim_request *frame, unsigned n)
{
	static const uint8_t garbage[] = { 0x0a, 0x7f, 0x08, 0x01 };
	const struct m_client *c = &world->model->clients[client];
	struct sim_request *r = &frame[below(n)];
	uint8_t noise[64];

	switch (below(8)) {
	case 0:
		world_send_raw(client, garbage, sizeof(garbage), below(3));
		return;
	case 1:
		world_send_raw(client, "", 0, 0);
		return;
	case 2:
		r->id = 0;
		break;
	case 3:   /* twice the same */
		if (n < 2)
			frame[n++] = *r;
		frame[n - 1].id = frame[0].id;
		break;
	case 4:   /* of its own */
		r->call = CALL_CLOSE;
		r->ref[0] = (struct sim_ref){ REF_RESULT, r->id };
		break;
	case 5:   /* of a later one, or of none */
		frame[0].call = CALL_CLOSE;
		frame[0].ref[0] = (struct sim_ref){ REF_RESULT, frame[n - 1].id + (n == 1) };
		break;
	case 6:   /* in flight */
		if (!c->n_live) {
			r->id = 0;
			break;
		}
		r->id = c->live[0]->say.id;
		break;
	case 7:
		for (unsigned i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)sim_random(dice());
		noise[0] = 0xff;   /* field 31, of no type that there is */
		world_send_raw(client, noise, sizeof(noise), 0);
		return;
	}
	world_send(client, frame, n, true);
}

static void play_frame(int client)
{
	static struct sim_request frame[33];
	unsigned n = chance(world->profile->batch) ? 2 + below(chance(8) ? 30 : 6) : 1;
	unsigned fds = 0;

	if (!client_wants_input(world->clients[client].client) || client_output_is_full(world->clients[client].client))
		return;
	for (unsigned i = 0; i < n; i++) {
		ask(client, frame, i, &frame[i]);
		fds += frame[i].fds;
	}
	if (chance(world->profile->bad)) {
		if (fds && chance(4)) {
			world->lose_fd = true;
			world_send(client, frame, n, true);
			world->lose_fd = false;
		} else {
			spoil(client, frame, n);
		}
		return;
	}
	world_send(client, frame, n, false);
}

/* More receives than a Qp may have; everything else of it goes on. */
static void play_flood(int client)
{
	static struct sim_request frame[60];
	const struct m_object *qp = some(client, T_QP, is_connected);

	if (!qp || world->model->clients[client].n_live > 100)
		return;
	for (unsigned i = 0; i < 5; i++) {
		if (!client_wants_input(world->clients[client].client) || client_output_is_full(world->clients[client].client))
			return;
		for (unsigned j = 0; j < 60; j++)
			frame[j] = (struct sim_request){
				.id = ++world->clients[client].last_id, .call = CALL_RECEIVE, .text = "", .ref = { { REF_ID, qp->id } },
				.n_bytes = 32, .entries_ok = true };
		world_send(client, frame, 60, false);
	}
}

/* ---- steps */

static int somebody(void)
{
	int at = (int)below(MODEL_CLIENTS);

	for (int i = 0; i < MODEL_CLIENTS; i++, at = (at + 1) % MODEL_CLIENTS)
		if (world->clients[at].client && !world->clients[at].releasing)
			return at;
	return -1;
}

static void play_connect(void)
{
	static const enum sim_role roles[] = { ROLE_CLIENT, ROLE_CLIENT, ROLE_CLIENT, ROLE_CLIENT, ROLE_CLIENT, ROLE_ADMIN, ROLE_GATEWAY };

	for (int i = 0; i < MODEL_CLIENTS; i++) {
		if (world->clients[i].client)
			continue;
		world_connect(i, (int)below(3), roles[below(sizeof(roles) / sizeof(*roles))]);
		return;
	}
}

static struct device *some_device(void)
{
	unsigned at = below(WORLD_DEVICES);

	for (unsigned i = 0; i < WORLD_DEVICES; i++, at = (at + 1) % WORLD_DEVICES)
		if (world->devices[at])
			return world->devices[at];
	return NULL;
}

/* What daemon/device.c does when a device comes back: what is left of earlier ones goes when nothing stands on it. */
static void play_device(void)
{
	struct nic_object *object, *next;

	for (object = TAILQ_FIRST(&world->nic.adapters); object; object = next) {
		struct nic_adapter *adapter = (struct nic_adapter *)object;

		next = TAILQ_NEXT(object, of_owner);
		if (!adapter->provider->up && !nic_adapter_used(adapter))
			nic_adapter_free(adapter);
	}
	for (unsigned i = 0; i < WORLD_DEVICES; i++) {
		if (world->devices[i] || world->n_device_names >= MODEL_ADAPTERS)
			continue;
		world->devices[i] = device_new();
		return;
	}
}

static void play_time(void)
{
	uint64_t next = nic_next_deadline(&world->nic);

	switch (below(4)) {
	case 0:
		world_pass(next == UINT64_MAX || next < world->now ? 1000000 : next - world->now);
		break;
	case 1:
		world_pass(below(1000000));
		break;
	case 2:
		world_pass(UINT64_C(1000000) * below(20000));
		break;
	default:
		world_pass(UINT64_C(1000000000) * below(100));
		break;
	}
}

bool play_close(int client)
{
	struct sim_request r = { .id = ++world->clients[client].last_id, .call = CALL_CLOSE };
	const struct m_object *o = NULL;

	if (!world->clients[client].client || world->clients[client].releasing)
		return false;
	for (unsigned i = 0; i < 8 && (!o || o->type == T_ADAPTER); i++)
		o = some(client, T_MEMORY + below(T_EXPORT - T_MEMORY + 1), NULL);
	for (unsigned type = T_MEMORY; type <= T_EXPORT && !o; type++)
		o = some(client, type, NULL);
	if (!o)
		return false;
	r.ref[0] = (struct sim_ref){ REF_ID, o->id };
	world_send(client, &r, 1, false);
	return true;
}

void play_step(void)
{
	const struct profile *profile = world->profile;
	struct device *device = some_device();
	int client = somebody();

	if (chance(profile->oom)) {
		world->fail_in = 1 + below(8);
		world->fail_for = chance(3) ? 100 : 1;
		world->model->armed = true;
	}
	if (client < 0 || chance(40)) {
		play_connect();
	} else if (chance(profile->die)) {
		world_hang_up(client);
	} else if (chance(1000)) {
		play_flood(client);
	} else if (chance(profile->slow)) {
		world->clients[client].slow = !world->clients[client].slow;
	} else if (chance(profile->jump)) {
		play_time();
	} else if (device && chance(profile->lose) && !device_lost(device)) {
		device_lose(device);
	} else if (!device || (profile->lose && chance(12))) {
		play_device();
	} else if (!device_lost(device) && chance(profile->news)) {
		device_news(device);
	} else if (chance(3) && !device_lost(device) && device_pending(device)) {
		for (unsigned n = 1 + below(4); n-- && !device_lost(device);)
			(void)device_step(device, true);
	} else {
		play_frame(client);
	}
	for (int i = 0; i < MODEL_CLIENTS; i++)
		if (world->clients[i].releasing && chance(4))
			world_release(i, 1 + below(4));
	world_turn();
}
