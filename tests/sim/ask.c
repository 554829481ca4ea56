/* SPDX-License-Identifier: MIT */
/*
 * Requests. What they name is mostly there and fits; sometimes it is another's, long gone, or was never there, and numbers are nonsense. What a
 * call needs and the client does not have, it makes first.
 */
#include "tests/sim/ask.h"

#include <stdio.h>
#include <string.h>

#include "proto/locator.h"

/* ---- what to name */

struct m_object *some(int client, enum sim_type type, bool (*fits)(const struct m_object *o))
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
	return !o->fast && o->state == M_CREATED;
}

static bool is_fast(const struct m_object *o)
{
	return o->fast;
}

static bool is_registered(const struct m_object *o)
{
	return !o->fast && (o->state == M_REGISTERED || o->state == M_ERROR);
}

static bool has_tokens(const struct m_object *o)
{
	return o->state == M_REGISTERED || o->state == M_VALID || o->state == M_BOUND;
}

static bool is_bindable(const struct m_object *o)
{
	return o->state == M_REGISTERED || o->state == M_VALID;
}

static bool is_free(const struct m_object *o)
{
	return o->state == M_FREE;
}

static bool is_initializable(const struct m_object *o)
{
	return o->fast && (o->state == M_CREATED || o->state == M_FREE);
}

static bool is_to_be_invalidated(const struct m_object *o)
{
	return o->state == M_VALID || o->state == M_BOUND;
}

static bool is_open_to_peers(const struct m_object *o)
{
	return o->state == M_REGISTERED && (o->rights & 6);
}

bool is_connected(const struct m_object *o)
{
	return o->state == M_CONNECTED;
}

/* A request of this frame that makes such an object. */
static const struct sim_request *maker(const struct sim_request *frame, unsigned n, enum sim_type type)
{
	static const struct {
		enum sim_type type;
		enum sim_call calls[4];
	} makers[] = {
		{ T_MEMORY, { CALL_ADD_MEMORY } }, { T_PD, { CALL_CREATE_PD } },
		{ T_MR, { CALL_CREATE_MR, CALL_REGISTER_MR, CALL_INITIALIZE_FAST_REGISTER, CALL_FAST_REGISTER } },
		{ T_MW, { CALL_CREATE_MW, CALL_BIND_MW } }, { T_MAPPING, { CALL_BUILD_MAPPING } }, { T_QP, { CALL_CONNECT_QP } },
		{ T_TICKET, { CALL_CREATE_TICKET } }, { T_EXPORT, { CALL_CREATE_EXPORT } },
	};

	for (unsigned i = n; i-- > 0;)
		for (unsigned j = 0; j < sizeof(makers) / sizeof(*makers); j++)
			for (unsigned k = 0; k < 4 && makers[j].type == type && makers[j].calls[k]; k++)
				if (frame[i].call == makers[j].calls[k])
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

	switch (below(10)) {
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
		o = some(-1, T_MR, is_bindable);
		break;
	case 8:
		o = some(-1, T_MW, has_tokens);
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
	r->allowed = !chance(6);
	r->text = r->allowed ? good : forbidden;
	r->text_ok = true;
	if (wild()) {
		r->text = "nicd1:nothing";
		r->text_ok = false;
	}
	r->ttl_ms = wild() ? 70000 : below(3) * 5000;
}

static void ask_flags(struct sim_request *r)
{
	if (chance(3))
		r->flags |= FLAG_SILENT;
	if (chance(4))
		r->flags |= FLAG_FENCE;
	if (wild())
		r->flags = 1u << below(18);
}

/* The bytes in the request, mostly as many as it says. */
static void ask_inline(struct sim_request *r)
{
	if (!chance(4))
		return;
	r->flags |= FLAG_INLINE;
	r->n_inline = (uint32_t)r->length;
	if (wild())
		r->n_inline = chance(2) ? SIM_INLINE + 1 : r->n_inline + 1;
	if (r->n_inline > SIM_INLINE + 1)
		r->n_inline = SIM_INLINE + 1;
	if (wild())
		r->flags &= ~(uint32_t)FLAG_INLINE;
	r->n_bytes += r->n_inline;
}

static void ask_transfer(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->operation = wild() ? 2 : below(2);
	r->entries_ok = true;
	r->n_bytes = 32;
	if ((r->call == CALL_WRITE || (r->call == CALL_TRANSFER_LIST && r->operation == WORK_WRITE)) && chance(3))
		r->flags = FLAG_NOTIFY;
	ask_flags(r);
	if (r->call != CALL_TRANSFER_LIST) {
		r->operation = 0;
		r->length = wild() ? 65530 + below(16) : below(100);
		if (r->call == CALL_WRITE)
			ask_inline(r);
		r->local_token = below(4096);
		r->local_addr = sim_random(dice());
		r->remote_token = (uint32_t)sim_random(dice());
		r->remote_addr = sim_random(dice());
		return;
	}
	r->n_bytes = (1 + below(40)) * 32;
	if (wild()) {
		r->n_bytes = chance(2) ? 0 : 33;
		r->entries_ok = false;
	}
}

static struct m_object *some_mr_in(int client, const struct m_object *pd)
{
	struct model *m = world->model;
	struct m_object *found = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < m->n_live && pd; i++) {
		struct m_object *o = m->live[i];

		if (o->type == T_MR && o->client == client && o->parent == pd && o->state == M_REGISTERED && !below(++n))
			found = o;
	}
	return found;
}

/* Mostly from or into an MR of the Qp's PD; else a token that may be another's, or nobody's. */
static void ask_message(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_object *qp, *mr;
	uint64_t offset;

	qp = r->ref[0].kind == REF_ID ? model_find(world->model, client, r->ref[0].v) : NULL;
	mr = qp && qp->type == T_QP && !chance(8) ? some_mr_in(client, qp->parent) : NULL;
	r->entries_ok = true;
	r->n_bytes = 32;
	r->local_token = below(4096);
	r->local_addr = strange_number();
	r->length = chance(2) ? 0 : below(64);
	if (mr) {
		offset = below((uint32_t)mr->length);
		r->local_token = mr->local;
		r->local_addr = mr->iova + offset;
		r->length = below((uint32_t)(mr->length - offset) + 1);
		r->length = r->length < 65536 ? r->length : 65536;
	}
	if (wild())
		r->local_addr = strange_number();
	if (wild())
		r->length = chance(2) ? 65530 + below(16) : UINT32_MAX - below(2);
	if (r->call == CALL_RECEIVE)
		return;
	r->flags = chance(2) ? FLAG_SOLICIT : 0;
	ask_flags(r);
	ask_inline(r);
	r->invalidate_token = chance(3) ? (uint32_t)sim_random(dice()) : 0;
}

static void ask_tokens(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->n_ids = wild() ? 0 : 1 + below(SIM_IDS);
	for (unsigned i = 0; i < r->n_ids; i++) {
		struct sim_ref it = ref(client, NULL, 0, T_MR, NULL);

		r->ids[i] = it.kind == REF_ID ? it.v : 0;
	}
}

/* ---- windows, fast registrations, mappings */

/* One of this session's in this PD that fits, if there is one. */
static struct sim_ref ref_in(int client, const struct sim_request *frame, unsigned n, const struct m_object *pd, enum sim_type type,
			     bool (*fits)(const struct m_object *o))
{
	struct model *m = world->model;
	struct m_object *found = NULL;
	unsigned count = 0;

	for (unsigned i = 0; i < m->n_live && pd; i++) {
		struct m_object *o = m->live[i];

		if (o->client == client && o->parent == pd && o->type == type && o->id && !o->closing && fits(o) && !below(++count))
			found = o;
	}
	return found && !wild() ? (struct sim_ref){ REF_ID, found->id } : ref(client, frame, n, type, fits);
}

static const struct m_object *named(int client, const struct sim_ref *it)
{
	return it->kind == REF_ID ? model_find(world->model, client, it->v) : NULL;
}

static uint32_t some_order(void)
{
	uint32_t flags = chance(6) ? FLAG_FENCE : 0;

	if (chance(6))
		flags |= FLAG_DEFER;
	if (chance(4))
		flags |= FLAG_SILENT;
	return wild() ? flags | 1u << below(18) : flags;
}

static uint32_t some_op_rights(bool window)
{
	static const uint32_t rights[] = { 0x38, 0x08, 0x30, 0x08, 0x38, 0x18, 0x10, 0x00, 0x90, 0x88 };

	return wild() ? 1u << below(18) : rights[below(window ? 5 : sizeof(rights) / sizeof(*rights))];
}

static void ask_initialize(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->pages = wild() ? (chance(2) ? 0 : 250 + below(10)) : 1 + below(12);
	r->remote_access = !chance(4);
}

static void ask_ranges(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_object *memory;

	r->n_ranges = chance(3) ? 1 + below(4) : 1;
	if (wild())
		r->n_ranges = below(SIM_RANGES);
	for (unsigned i = 0; i < r->n_ranges; i++) {
		r->ranges[i].memory = ref(client, frame, n, T_MEMORY, NULL);
		memory = named(client, &r->ranges[i].memory);
		if (memory && memory->type != T_MEMORY)
			memory = NULL;
		r->ranges[i].length = memory ? memory->page : SIM_PAGE;
		if (memory && chance(2))
			r->ranges[i].length *= 1 + below((uint32_t)(memory->size / memory->page));
		if (wild())
			r->ranges[i].offset = chance(2) ? strange_number() : below(SIM_PAGE);
		if (wild())
			r->ranges[i].length = strange_number();
	}
}

static void ask_fast_register(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_object *mr = named(client, &r->ref[0]), *mapping;
	uint64_t size = 0;

	r->ref[1] = ref_in(client, frame, n, mr ? mr->parent : NULL, T_QP, is_connected);
	if (chance(3) && (some(client, T_MAPPING, NULL) || maker(frame, n, T_MAPPING)))
		r->ref[2] = ref(client, frame, n, T_MAPPING, NULL);
	else
		ask_ranges(client, frame, n, r);
	if (wild())
		ask_ranges(client, frame, n, r);
	for (unsigned i = 0; i < r->n_ranges; i++)
		size += r->ranges[i].length;
	mapping = named(client, &r->ref[2]);
	if (mapping && mapping->type == T_MAPPING) {
		r->offset = chance(3) ? mapping->iova % SIM_PAGE + below((uint32_t)(mapping->length % SIM_PAGE) + 1) : mapping->iova % SIM_PAGE;
		r->offset %= SIM_PAGE;
		size = mapping->iova % SIM_PAGE + mapping->length;
	} else if (chance(3)) {
		r->offset = below(SIM_PAGE);
	}
	if (wild())
		r->offset = (uint32_t)strange_number();
	r->length = size > r->offset ? size - r->offset : 1;
	if (chance(3))
		r->length = 1 + below((uint32_t)(r->length < UINT32_MAX ? r->length : UINT32_MAX));
	if (wild())
		r->length = strange_number();
	r->iova = (16 + below(1000)) * (uint64_t)SIM_PAGE + r->offset % SIM_PAGE;
	if (wild())
		r->iova = strange_number();
	r->flags = some_op_rights(false) | some_order();
}

static void ask_invalidate(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_object *o;

	r->ref[0] = ref(client, frame, n, chance(2) ? T_MR : T_MW, is_to_be_invalidated);
	o = named(client, &r->ref[0]);
	r->ref[1] = ref_in(client, frame, n, o ? o->parent : NULL, T_QP, is_connected);
	r->flags = some_order();
}

static void ask_bind(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_object *mw = named(client, &r->ref[0]), *mr;

	r->ref[1] = ref_in(client, frame, n, mw ? mw->parent : NULL, T_MR, is_bindable);
	r->ref[2] = ref_in(client, frame, n, mw ? mw->parent : NULL, T_QP, is_connected);
	mr = named(client, &r->ref[1]);
	if (mr && mr->type == T_MR && mr->length && chance(2)) {
		r->iova = mr->iova + below((uint32_t)mr->length);
		r->length = 1 + below((uint32_t)(mr->iova + mr->length - r->iova));
	} else if (mr && mr->type == T_MR) {
		r->iova = mr->iova;
		r->length = mr->length;
	}
	/* Its neighbours. */
	if (wild())
		r->length += 1 + below(2 * SIM_PAGE);
	if (wild())
		r->iova -= 1 + below(2 * SIM_PAGE);
	if (wild())
		r->iova = strange_number();
	if (wild())
		r->length = strange_number();
	r->flags = some_op_rights(true) | some_order();
	if (wild())
		r->flags = some_order();
}

static void ask_mapping(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	ask_ranges(client, frame, n, r);
	if (r->n_ranges == 1 && chance(3)) {
		r->ranges[0].offset = below(SIM_PAGE);
		r->ranges[0].length = 1 + below((uint32_t)(SIM_PAGE - r->ranges[0].offset));
	}
}

/* ---- looks, and the rest */

static void ask_hello(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->major = wild() ? 2 : 1;
	r->minor = wild();
	r->text = "sim";
}

static void ask_create_pd(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	if (chance(4))
		r->ref[0] = ref(client, frame, n, T_ADAPTER, NULL);
}

static void ask_add_memory(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->fds = wild() ? below(3) : 1;
	r->fd = some_fd();
}

static void ask_create_mr(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->fast = chance(2);
}

static void ask_query_qp(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	if (!chance(2))
		return;
	r->ref[0] = (struct sim_ref){ REF_ABSENT, 0 };
	r->serial = some_serial(client);
}

static void ask_close(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	static const enum sim_type types[] = { T_MEMORY, T_PD, T_MR, T_MR, T_MR, T_MW, T_MW, T_MAPPING, T_QP, T_TICKET, T_EXPORT };

	r->ref[0] = ref(client, frame, n, types[below(sizeof(types) / sizeof(*types))], NULL);
}

static void ask_list(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->type = wild() ? below(20) : 1 + below(T_COUNT - 1);
	r->max = chance(2) ? 0 : 1 + below(4);
	r->cursor = wild() ? UINT64_MAX : chance(4) ? below((uint32_t)world->nic.last_serial + 1) : 0;
}

static void ask_serial(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	r->serial = some_serial(client);
}

/*
 * How often a call is made, what it names first, what it says besides, and what the client makes instead when it has nothing that the call needs.
 * Closing something is asked for less often than making it, but more often when there is a lot.
 */
static const struct asked {
	unsigned weight;
	enum sim_type type;                     /* T_ANY: nothing, or chosen by `rest` */
	bool (*fits)(const struct m_object *o);
	void (*rest)(int client, const struct sim_request *frame, unsigned n, struct sim_request *r);
	struct {
		enum sim_type type;
		bool (*fits)(const struct m_object *o);
		enum sim_call instead;
	} needs[3];
} table[CALL_COUNT] = {
	[CALL_HELLO] = { 1, T_ANY, NULL, ask_hello, { { 0 } } },
	[CALL_RESUME] = { 1, T_ANY, NULL, NULL, { { 0 } } },
	[CALL_QUERY_ADAPTER] = { 1, T_ADAPTER, NULL, NULL, { { 0 } } },
	[CALL_QUERY_EXTENSION] = { 1, T_PD, NULL, NULL, { { 0 } } },
	[CALL_ADD_MEMORY] = { 8, T_ANY, NULL, ask_add_memory, { { 0 } } },
	[CALL_CREATE_PD] = { 5, T_ANY, NULL, ask_create_pd, { { 0 } } },
	[CALL_GET_PRIVILEGED_TOKEN] = { 2, T_PD, NULL, NULL, { { T_PD, NULL, CALL_CREATE_PD } } },
	[CALL_CREATE_MR] = { 12, T_PD, NULL, ask_create_mr, { { T_PD, NULL, CALL_CREATE_PD } } },
	[CALL_REGISTER_MR] = { 16, T_MR, is_created, ask_register,
			       { { T_MR, is_created, CALL_CREATE_MR }, { T_MEMORY, NULL, CALL_ADD_MEMORY } } },
	[CALL_DEREGISTER_MR] = { 8, T_MR, is_registered, NULL, { { T_MR, is_registered, CALL_REGISTER_MR } } },
	[CALL_GET_LOCAL_TOKEN] = { 2, T_MR, has_tokens, NULL, { { 0 } } },
	[CALL_GET_REMOTE_TOKEN] = { 3, T_MR, has_tokens, NULL, { { T_MR, NULL, CALL_REGISTER_MR } } },
	[CALL_QUERY_TOKENS] = { 3, T_ANY, NULL, ask_tokens, { { 0 } } },
	[CALL_INITIALIZE_FAST_REGISTER] = { 10, T_MR, is_initializable, ask_initialize, { { T_MR, is_fast, CALL_CREATE_MR } } },
	[CALL_FAST_REGISTER] = { 24, T_MR, is_free, ask_fast_register,
				 { { T_MR, is_free, CALL_INITIALIZE_FAST_REGISTER }, { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_INVALIDATE] = { 14, T_ANY, NULL, ask_invalidate, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_CREATE_MW] = { 6, T_PD, NULL, NULL, { { T_PD, NULL, CALL_CREATE_PD } } },
	[CALL_BIND_MW] = { 20, T_MW, is_free, ask_bind,
			   { { T_MW, is_free, CALL_CREATE_MW }, { T_MR, is_bindable, CALL_REGISTER_MR },
			     { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_BUILD_MAPPING] = { 7, T_ANY, NULL, ask_mapping, { { T_MEMORY, NULL, CALL_ADD_MEMORY } } },
	[CALL_CONNECT_QP] = { 6, T_PD, NULL, ask_connect, { { T_PD, NULL, CALL_CREATE_PD } } },
	[CALL_READ] = { 3, T_QP, is_connected, ask_transfer, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_WRITE] = { 3, T_QP, is_connected, ask_transfer, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_TRANSFER_LIST] = { 5, T_QP, is_connected, ask_transfer, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_SEND] = { 5, T_QP, is_connected, ask_message, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_RECEIVE] = { 9, T_QP, is_connected, ask_message, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_FLUSH] = { 3, T_QP, is_connected, NULL, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_DISCONNECT] = { 3, T_QP, is_connected, NULL, { { T_QP, is_connected, CALL_CONNECT_QP } } },
	[CALL_QUERY_QP] = { 3, T_QP, is_connected, ask_query_qp, { { T_QP, NULL, CALL_CONNECT_QP } } },
	[CALL_CREATE_TICKET] = { 5, T_MR, is_open_to_peers, ask_door, { { T_MR, is_open_to_peers, CALL_REGISTER_MR } } },
	[CALL_CREATE_EXPORT] = { 9, T_MR, is_open_to_peers, ask_door, { { T_MR, is_open_to_peers, CALL_REGISTER_MR } } },
	[CALL_CLOSE] = { 16, T_ANY, NULL, ask_close, { { 0 } } },
	[CALL_LIST] = { 4, T_ANY, NULL, ask_list, { { 0 } } },
	[CALL_WHO] = { 2, T_ANY, NULL, ask_serial, { { 0 } } },
	[CALL_REVOKE] = { 7, T_ANY, NULL, ask_serial, { { 0 } } },
	[CALL_LEDGER] = { 3, T_ANY, NULL, NULL, { { 0 } } },
};

static enum sim_call some_call(void)
{
	unsigned sum = 0, at, call = 0;

	for (unsigned i = 0; i < CALL_COUNT; i++)
		sum += table[i].weight;
	for (at = below(sum); at >= table[call].weight; call++)
		at -= table[call].weight;
	return (enum sim_call)call;
}

/* What a call needs and the client does not have, it makes first. */
static enum sim_call sensible(int client, const struct sim_request *frame, unsigned n, enum sim_call call)
{
	for (unsigned i = 0; i < 3 && table[call].needs[i].instead; i++) {
		enum sim_type type = table[call].needs[i].type;

		if (!maker(frame, n, type) && !some(client, type, table[call].needs[i].fits))
			return sensible(client, frame, n, table[call].needs[i].instead);
	}
	return call;
}

void ask(int client, const struct sim_request *frame, unsigned n, struct sim_request *r)
{
	const struct m_client *c = &world->model->clients[client];
	const struct asked *asked;

	*r = (struct sim_request){ .id = ++world->clients[client].last_id, .call = some_call(), .text = "", .text_ok = true, .major = 1 };
	if (!c->ready && !n && !chance(8))
		r->call = CALL_HELLO;
	else if (!wild())
		r->call = sensible(client, frame, n, r->call);
	asked = &table[r->call];
	if (asked->type)
		r->ref[0] = ref(client, frame, n, asked->type, asked->fits);
	if (asked->rest)
		asked->rest(client, frame, n, r);
	if (r->call != CALL_ADD_MEMORY && r->call != CALL_REGISTER_MR && wild() && chance(4))
		r->fds = 1, r->fd = some_fd();
}
