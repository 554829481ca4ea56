/* SPDX-License-Identifier: MIT */
/*
 * What happens in a step: mostly a client asks for something that makes sense, sometimes for something that does not; or the device goes on,
 * tells something, or goes away; or time passes, or somebody leaves.
 */
#include <stdio.h>
#include <string.h>

#include "proto/locator.h"
#include "tests/sim/world.h"

static struct sim_random *dice(void)
{
	return &world->random;
}

static uint32_t below(uint32_t n)
{
	return sim_below(dice(), n);
}

static bool chance(uint32_t n)
{
	return sim_chance(dice(), n);
}

static bool wild(void)
{
	return chance(world->profile->wild);
}

/* ---- what to name */

static struct m_object *some(int client, enum sim_type type, bool (*fits)(const struct m_object *o))
{
	struct model *m = world->model;
	struct m_object *found = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if ((client >= 0 && o->client != client && o->type != T_ADAPTER) || (type != T_ANY && o->type != type) || (fits && !fits(o)))
			continue;
		if (client >= 0 && (o->closing || !o->id))
			continue;
		if (!below(++n))
			found = o;
	}
	return found;
}

static bool is_created(const struct m_object *o)
{
	return o->state == M_CREATED;
}

static bool is_registered(const struct m_object *o)
{
	return o->state == M_REGISTERED || o->state == M_ERROR;
}

static bool is_open_to_peers(const struct m_object *o)
{
	return o->state == M_REGISTERED && (o->rights & 6);
}

static bool is_connected(const struct m_object *o)
{
	return o->state == M_CONNECTED;
}

/* A request of this frame that makes such an object. */
static const struct sim_request *maker(const struct sim_request *frame, unsigned n, enum sim_type type)
{
	static const enum sim_call makers[T_COUNT] = { [T_MEMORY] = CALL_ADD_MEMORY, [T_PD] = CALL_CREATE_PD, [T_MR] = CALL_CREATE_MR,
						       [T_QP] = CALL_CONNECT_QP, [T_TICKET] = CALL_CREATE_TICKET,
						       [T_EXPORT] = CALL_CREATE_EXPORT };

	for (unsigned i = n; i-- > 0;)
		if (makers[type] && (frame[i].call == makers[type] || (type == T_MR && frame[i].call == CALL_REGISTER_MR)))
			return &frame[i];
	return NULL;
}

static struct sim_ref ref(int client, const struct sim_request *frame, unsigned n, enum sim_type type,
			  bool (*fits)(const struct m_object *o))
{
	struct model *m = world->model;
	const struct sim_request *by = n && chance(2) ? maker(frame, n, type) : NULL;
	struct m_object *o;

	if (by && !wild())
		return (struct sim_ref){ REF_RESULT, by->id };
	if (n && wild())
		return (struct sim_ref){ REF_RESULT, frame[below(n)].id };
	if (wild()) {
		switch (below(6)) {
		case 0:
			return (struct sim_ref){ REF_ABSENT, 0 };
		case 1:   /* whatever there ever was, of whomever */
			return (struct sim_ref){ REF_ID, m->n_objects ? m->objects[below(m->n_objects)].id : 0 };
		case 2:   /* an id that may have been */
			return (struct sim_ref){ REF_ID, (uint64_t)(T_MEMORY + below(8)) << 56 | (uint64_t)(1 + below(3)) << 32 | below(16) };
		case 3:
			return (struct sim_ref){ REF_ID, sim_random(dice()) };
		case 4:
			o = some(client, T_ANY, NULL);
			return (struct sim_ref){ REF_ID, o ? o->id : 0 };
		default:   /* the generation before, or after */
			o = some(client, type, NULL);
			return (struct sim_ref){ REF_ID, (o ? o->id : 0) + (chance(2) ? UINT64_C(1) << 32 : -(UINT64_C(1) << 32)) };
		}
	}
	o = some(client, type, fits);
	if (!o)
		o = some(client, type, NULL);
	if (!o && by)
		return (struct sim_ref){ REF_RESULT, by->id };
	return (struct sim_ref){ REF_ID, o ? o->id : (uint64_t)type << 56 };
}

static uint64_t some_serial(int client)
{
	struct model *m = world->model;
	struct m_object *o;

	switch (below(8)) {
	case 0:
		return m->clients[below(MODEL_CLIENTS)].serial;
	case 1:
		return 1 + below((uint32_t)world->nic.last_serial + 2);
	case 2:
		return sim_random(dice());
	case 3:
		o = some(-1, T_GRANT, NULL);
		break;
	case 4:
		o = some(-1, T_QP, NULL);
		break;
	case 5:
		o = some(-1, T_MR, is_registered);
		break;
	case 6:
		o = some(-1, chance(2) ? T_EXPORT : T_TICKET, NULL);
		break;
	default:
		o = some(-1, T_ANY, NULL);
		break;
	}
	return o ? o->serial : 0;
}

/* ---- requests */

static struct sim_fd some_fd(void)
{
	struct sim_fd fd = { .size = (1 + below(8)) * SIM_PAGE, .page = SIM_PAGE, .writable = !chance(6) };

	if (chance(8))
		fd.page = 4 * SIM_PAGE, fd.size = (1 + below(2)) * fd.page;
	if (wild())
		fd.status = chance(2) ? S_INVALID_PARAMETER : chance(2) ? S_NOT_SUPPORTED : S_ACCESS_VIOLATION;
	return fd;
}

static uint64_t strange_number(void)
{
	switch (below(6)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX - below(SIM_PAGE);
	case 2:
		return UINT64_MAX;
	case 3:
		return below(16);
	case 4:
		return below(64) * SIM_PAGE;
	default:
		return sim_random(dice());
	}
}

static uint32_t some_rights(void)
{
	static const uint32_t rights[] = { 0, 1, 2, 3, 5, 7, 7, 7, 5, 8, 10, 15 };

	return wild() ? below(40) : rights[below(sizeof(rights) / sizeof(*rights))];
}

static void ask_register(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_object *memory;
	uint64_t first;

	r->ref[0] = ref(client, frame, n, T_MR, is_created);
	r->fds = chance(6);
	r->fd = some_fd();
	r->n_ranges = chance(3) ? 1 + below(4) : 1;
	if (wild())
		r->n_ranges = below(SIM_RANGES);
	for (unsigned i = 0; i < r->n_ranges; i++) {
		r->ranges[i].memory = ref(client, frame, n, T_MEMORY, NULL);
		if (r->fds && !chance(4))
			r->ranges[i].memory.kind = REF_ABSENT;
		memory = r->ranges[i].memory.kind == REF_ID ? model_find(world->model, client, r->ranges[i].memory.v) : NULL;
		r->ranges[i].length = (1 + below(memory && memory->type == T_MEMORY ? (uint32_t)(memory->size / SIM_PAGE) : 2)) * SIM_PAGE;
		if (memory && memory->type == T_MEMORY && memory->page > SIM_PAGE)
			r->ranges[i].length = memory->page;
		if (!i && chance(4)) {
			r->ranges[i].offset = r->n_ranges > 1 ? SIM_PAGE - 64 : below(SIM_PAGE);
			r->ranges[i].length = r->n_ranges > 1 ? 64 : 1 + below(SIM_PAGE);
		}
		if (wild())
			r->ranges[i].offset = strange_number();
		if (wild())
			r->ranges[i].length = strange_number();
	}
	first = r->n_ranges ? r->ranges[0].offset % SIM_PAGE : 0;
	r->iova = (16 + below(1000)) * (uint64_t)(4 * SIM_PAGE) + first;
	if (wild())
		r->iova = strange_number();
	if (chance(5))
		r->length = 1 + below(2 * SIM_PAGE);
	if (wild())
		r->length = strange_number();
	r->flags = some_rights();
}

static void ask_door(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	static char names[16][8];
	const struct m_object *mr;
	unsigned name = below(16);

	r->ref[0] = ref(client, frame, n, T_MR, is_open_to_peers);
	mr = r->ref[0].kind == REF_ID ? model_find(world->model, client, r->ref[0].v) : NULL;
	r->uses = below(4);
	r->peers = below(3);
	r->ttl_ms = below(3) * 1000;
	snprintf(names[name], sizeof(names[name]), "e%u", name);
	r->text = names[name];
	r->text_ok = true;
	if (wild()) {
		r->text = chance(2) ? "" : "a/b";
		r->text_ok = false;
	}
	r->flags = mr && mr->type == T_MR ? mr->rights & 7 : 2;
	r->flags = (r->flags & 5) == 5 ? r->flags : r->flags & 2;
	if (r->flags == 7 && chance(2))
		r->flags = 2;
	if (wild())
		r->flags = below(16);
	if (chance(3)) {
		r->offset = below(SIM_PAGE);
		r->length = 1 + below(SIM_PAGE);
	}
	if (wild())
		r->offset = strange_number();
	if (wild())
		r->length = strange_number();
}

static void ask_connect(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	static char good[LOCATOR_TEXT_MAX], forbidden[LOCATOR_TEXT_MAX];
	struct locator locator = { 0 };

	if (!good[0]) {
		(void)locator_addr_parse("127.0.0.1:7190", &locator.addr);
		locator_print(&locator, good);
		(void)locator_addr_parse("10.1.2.3:7190", &locator.addr);
		locator_print(&locator, forbidden);
	}
	r->ref[0] = ref(client, frame, n, T_PD, NULL);
	r->allowed = !chance(6);
	r->text = r->allowed ? good : forbidden;
	r->text_ok = true;
	if (wild()) {
		r->text = "nicd1:nothing";
		r->text_ok = false;
	}
	r->ttl_ms = wild() ? 70000 : below(3) * 5000;
}

static void ask_transfer(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->ref[0] = ref(client, frame, n, T_QP, is_connected);
	r->operation = below(2);
	r->flags = wild() ? 1 : 0;
	r->entries_ok = true;
	r->n_bytes = 32;
	if (r->call != CALL_TRANSFER_LIST) {
		r->operation = 0;
		r->length = below(100);
		return;
	}
	r->n_bytes = (1 + below(40)) * 32;
	if (wild()) {
		r->n_bytes = chance(2) ? 0 : 33;
		r->entries_ok = false;
	}
}

static void ask_tokens(int client, struct sim_request *r)
{
	r->n_ids = wild() ? 0 : 1 + below(SIM_IDS);
	for (unsigned i = 0; i < r->n_ids; i++) {
		struct sim_ref it = ref(client, NULL, 0, T_MR, NULL);

		r->ids[i] = it.kind == REF_ID ? it.v : 0;
	}
}

/* Closing something is asked for less often than making it, but more often when there is a lot. */
static const struct {
	enum sim_call call;
	unsigned weight;
} weights[] = {
	{ CALL_ADD_MEMORY, 8 }, { CALL_CREATE_PD, 5 }, { CALL_CREATE_MR, 10 }, { CALL_REGISTER_MR, 16 }, { CALL_DEREGISTER_MR, 8 },
	{ CALL_GET_LOCAL_TOKEN, 2 }, { CALL_GET_REMOTE_TOKEN, 2 }, { CALL_QUERY_TOKENS, 3 }, { CALL_CREATE_TICKET, 5 },
	{ CALL_CREATE_EXPORT, 9 }, { CALL_CONNECT_QP, 6 }, { CALL_READ, 3 }, { CALL_WRITE, 3 }, { CALL_TRANSFER_LIST, 5 }, { CALL_FLUSH, 3 },
	{ CALL_DISCONNECT, 3 }, { CALL_QUERY_QP, 3 }, { CALL_CLOSE, 16 }, { CALL_LIST, 4 }, { CALL_WHO, 2 }, { CALL_REVOKE, 6 },
	{ CALL_LEDGER, 3 }, { CALL_QUERY_ADAPTER, 1 }, { CALL_HELLO, 1 }, { CALL_RESUME, 1 }, { CALL_QUERY_EXTENSION, 1 },
	{ CALL_GET_PRIVILEGED_TOKEN, 1 }, { CALL_INITIALIZE_FAST_REGISTER, 1 }, { CALL_FAST_REGISTER, 1 }, { CALL_INVALIDATE, 1 },
	{ CALL_CREATE_MW, 1 }, { CALL_BIND_MW, 1 }, { CALL_BUILD_MAPPING, 1 },
};

static enum sim_call some_call(void)
{
	unsigned sum = 0, at;

	for (unsigned i = 0; i < sizeof(weights) / sizeof(*weights); i++)
		sum += weights[i].weight;
	at = below(sum);
	for (unsigned i = 0;; i++) {
		if (at < weights[i].weight)
			return weights[i].call;
		at -= weights[i].weight;
	}
}

static void ask_close(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	static const enum sim_type types[] = { T_MEMORY, T_PD, T_MR, T_MR, T_QP, T_TICKET, T_EXPORT };
	enum sim_type type = types[below(sizeof(types) / sizeof(*types))];

	r->ref[0] = ref(client, frame, n, type, NULL);
}

/* What a call needs and the client does not have, it makes first. */
static enum sim_call sensible(int client, const struct sim_request *frame, unsigned n, enum sim_call call)
{
	static const struct {
		enum sim_call call;
		enum sim_type type;
		bool (*fits)(const struct m_object *o);
		enum sim_call instead;
	} needs[] = {
		{ CALL_READ, T_QP, is_connected, CALL_CONNECT_QP }, { CALL_WRITE, T_QP, is_connected, CALL_CONNECT_QP },
		{ CALL_TRANSFER_LIST, T_QP, is_connected, CALL_CONNECT_QP }, { CALL_FLUSH, T_QP, is_connected, CALL_CONNECT_QP },
		{ CALL_DISCONNECT, T_QP, is_connected, CALL_CONNECT_QP }, { CALL_QUERY_QP, T_QP, NULL, CALL_CONNECT_QP },
		{ CALL_CREATE_TICKET, T_MR, is_open_to_peers, CALL_REGISTER_MR }, { CALL_CREATE_EXPORT, T_MR, is_open_to_peers, CALL_REGISTER_MR },
		{ CALL_DEREGISTER_MR, T_MR, is_registered, CALL_REGISTER_MR }, { CALL_GET_REMOTE_TOKEN, T_MR, NULL, CALL_REGISTER_MR },
		{ CALL_REGISTER_MR, T_MR, is_created, CALL_CREATE_MR }, { CALL_REGISTER_MR, T_MEMORY, NULL, CALL_ADD_MEMORY },
		{ CALL_CREATE_MR, T_PD, NULL, CALL_CREATE_PD }, { CALL_CONNECT_QP, T_PD, NULL, CALL_CREATE_PD },
	};

	for (unsigned i = 0; i < sizeof(needs) / sizeof(*needs); i++)
		if (needs[i].call == call && !maker(frame, n, needs[i].type) && !some(client, needs[i].type, needs[i].fits))
			call = needs[i].instead;
	return call;
}

static void ask(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_client *c = &world->model->clients[client];

	*r = (struct sim_request){ .id = ++world->clients[client].last_id, .call = some_call(), .text = "", .text_ok = true, .major = 1 };
	if (!c->ready && !n && !chance(8))
		r->call = CALL_HELLO;
	else if (!wild())
		r->call = sensible(client, frame, n, r->call);
	switch (r->call) {
	case CALL_HELLO:
		r->major = wild() ? 2 : 1;
		r->minor = wild();
		r->text = "sim";
		break;
	case CALL_QUERY_ADAPTER:
		r->ref[0] = ref(client, frame, n, T_ADAPTER, NULL);
		break;
	case CALL_CREATE_PD:
		if (chance(4))
			r->ref[0] = ref(client, frame, n, T_ADAPTER, NULL);
		break;
	case CALL_ADD_MEMORY:
		r->fds = wild() ? below(3) : 1;
		r->fd = some_fd();
		break;
	case CALL_CREATE_MR:
		r->ref[0] = ref(client, frame, n, T_PD, NULL);
		r->fast = wild();
		break;
	case CALL_REGISTER_MR:
		ask_register(client, frame, n, r);
		break;
	case CALL_DEREGISTER_MR:
	case CALL_GET_LOCAL_TOKEN:
	case CALL_GET_REMOTE_TOKEN:
		r->ref[0] = ref(client, frame, n, T_MR, is_registered);
		break;
	case CALL_QUERY_TOKENS:
		ask_tokens(client, r);
		break;
	case CALL_CREATE_TICKET:
	case CALL_CREATE_EXPORT:
		ask_door(client, frame, n, r);
		break;
	case CALL_CONNECT_QP:
		ask_connect(client, frame, n, r);
		break;
	case CALL_READ:
	case CALL_WRITE:
	case CALL_TRANSFER_LIST:
		ask_transfer(client, frame, n, r);
		break;
	case CALL_QUERY_QP:
		if (chance(2)) {
			r->serial = some_serial(client);
			break;
		}
		/* fall through */
	case CALL_FLUSH:
	case CALL_DISCONNECT:
		r->ref[0] = ref(client, frame, n, T_QP, is_connected);
		break;
	case CALL_CLOSE:
		ask_close(client, frame, n, r);
		break;
	case CALL_LIST:
		r->type = wild() ? below(20) : 1 + below(T_COUNT - 1);
		r->max = chance(2) ? 0 : 1 + below(4);
		r->cursor = wild() ? UINT64_MAX : chance(4) ? below((uint32_t)world->nic.last_serial + 1) : 0;
		break;
	case CALL_WHO:
	case CALL_REVOKE:
		r->serial = some_serial(client);
		break;
	case CALL_QUERY_EXTENSION:
		r->ref[0] = ref(client, frame, n, T_PD, NULL);
		break;
	case CALL_GET_PRIVILEGED_TOKEN:
	case CALL_CREATE_MW:
		r->ref[0] = ref(client, frame, n, T_PD, NULL);
		break;
	case CALL_INITIALIZE_FAST_REGISTER:
	case CALL_INVALIDATE:
	case CALL_FAST_REGISTER:
		if (!chance(4))
			r->ref[0] = ref(client, frame, n, T_MR, NULL);
		break;
	case CALL_BIND_MW:
		r->ref[1] = ref(client, frame, n, T_MR, NULL);
		r->ref[2] = ref(client, frame, n, T_QP, NULL);
		break;
	case CALL_BUILD_MAPPING:
		r->n_ranges = below(3);
		for (unsigned i = 0; i < r->n_ranges; i++)
			r->ranges[i].memory = ref(client, frame, n, T_MEMORY, NULL);
		break;
	default:
		break;
	}
	if (r->call != CALL_ADD_MEMORY && r->call != CALL_REGISTER_MR && wild() && chance(4))
		r->fds = 1, r->fd = some_fd();
}

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
