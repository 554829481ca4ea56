/* SPDX-License-Identifier: MIT */
/*
 * The model's objects and what becomes of them. Everything that happens is told to its parts; model_settle then follows the rules of NDK's
 * object lifetimes until nothing changes: what is closed ends when what stands on it is gone, what is revoked is dead when the device has let
 * go.
 */
#include <string.h>

#include "tests/sim/model-private.h"

void model_init(struct model *m, const struct model_terms *terms)
{
	m->terms = *terms;
	m->now = 0;
	m->oom = m->draining = m->armed = false;
	m->saved_for = NULL;
	memset(m->clients, 0, sizeof(m->clients));
	m->n_objects = m->n_live = m->n_requests = m->n_commands = m->n_adapters = m->n_released = 0;
	m->current = NULL;
	memset(m->buffered, 0, sizeof(m->buffered));
	memset(m->receives, 0, sizeof(m->receives));
	m->n_started = 0;
}

void model_now(struct model *m, uint64_t now)
{
	m->now = now;
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->unheard && now - o->since >= m->terms.revoke_timeout_ns && (o->state == M_REVOKING || o->state == M_INVALIDATING || o->killed))
			o->promised = true;
	}
}

void model_oom(struct model *m)
{
	m->oom = true;
}

/* ---- objects */

struct m_object *model_new(struct model *m, enum sim_type type, int client, struct m_object *parent)
{
	struct m_object *o = &m->objects[m->n_objects++];

	sim_must(m->n_objects < MODEL_OBJECTS, "the model is too small");
	memset(o, 0, sizeof(*o));
	o->type = type;
	o->client = client;
	o->account = client < 0 ? -1 : m->clients[client].account;
	o->parent = parent;
	o->adapter = -1;
	m->live[m->n_live++] = o;
	return o;
}

void model_over(struct model *m, struct m_object *o)
{
	o->over = o->closing = true;
	for (unsigned i = 0; i < m->n_live; i++) {
		if (m->live[i] != o)
			continue;
		m->live[i] = m->live[--m->n_live];
		return;
	}
}

struct m_object *model_find(const struct model *m, int client, uint64_t id)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->id == id && id && !o->closing && (o->client == client || o->client < 0))
			return o;
	}
	return NULL;
}

struct m_object *model_serial(const struct model *m, uint64_t serial)
{
	for (unsigned i = 0; i < m->n_live && serial; i++)
		if (m->live[i]->serial == serial)
			return m->live[i];
	return NULL;
}

bool model_adapter_up(const struct m_object *pd)
{
	return pd->parent->up;
}

bool model_visible(const struct model *m, int client, const struct m_object *object)
{
	return object->client < 0 || m->clients[client].role == ROLE_ADMIN || m->clients[client].account == object->account;
}

bool model_leaving(const struct model *m, const struct m_object *o)
{
	return o->client >= 0 && m->clients[o->client].dying;
}

bool model_on(const struct m_object *o, int adapter)
{
	return o->parent && o->parent->type == T_PD && o->parent->parent->adapter == adapter;
}

/* Of a device that is down nothing is left; but who waits to ask it again finds out when it is lost. */
bool model_holds(const struct m_object *o, const struct m_object *pd)
{
	return (o->tag || o->door) && (model_adapter_up(pd) || (o->stuck && !pd->parent->lost));
}

void model_owe(struct model *m, struct m_object *o, enum sim_event kind)
{
	struct m_client *c = &m->clients[o->client];

	o->may |= BIT(kind);
	if (c->dying)
		return;
	/* What is told while memory is short may become a RESYNC. */
	if (!m->oom && !c->resynced)
		o->owed |= BIT(kind);
}

uint64_t model_tag_cost(const struct model *m, uint64_t bytes)
{
	return bytes * m->terms.tag_percent / 100;
}

uint64_t model_attach_cost(const struct model *m, uint64_t bytes)
{
	return bytes * m->terms.attach_percent / 100;
}

/* ---- what follows */

unsigned model_memory_users(const struct model *m, const struct m_object *memory)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->type == T_MR || m->live[i]->type == T_MAPPING)
			for (unsigned j = 0; j < m->live[i]->n_ranges; j++)
				n += m->live[i]->ranges[j].memory == memory;
	return n;
}

static bool settle_memory(struct model *m, struct m_object *o)
{
	bool attached = false;

	if (!o->closing || model_memory_users(m, o))
		return false;
	for (unsigned i = 0; i < m->n_adapters; i++) {
		if (o->attached[i] == M_ATTACHED && !m->adapters[i]->up)
			o->attached[i] = M_NOT_ATTACHED;
		attached |= o->attached[i] != M_NOT_ATTACHED;
	}
	if (attached)
		return false;
	model_over(m, o);
	return true;
}

static bool settle_pd(struct model *m, struct m_object *o)
{
	if (!o->closing)
		return false;
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->parent == o)
			return false;
	/* Its privileged key goes last. */
	if (o->inflight || (o->tag && (o->parent->up || (o->stuck && !o->parent->lost))))
		return false;
	model_over(m, o);
	return true;
}

void model_settle(struct model *m)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];
		bool changed;

		switch (o->type) {
		case T_TICKET:
		case T_EXPORT:
			changed = model_settle_door(m, o);
			break;
		case T_MR:
			changed = o->fast ? model_settle_fast(m, o) : model_settle_mr(m, o);
			break;
		case T_MW:
			changed = model_settle_mw(m, o);
			break;
		case T_QP:
			changed = model_settle_qp(m, o);
			break;
		case T_MEMORY:
			changed = settle_memory(m, o);
			break;
		case T_MAPPING:
			changed = model_settle_mapping(m, o);
			break;
		case T_PD:
			changed = settle_pd(m, o);
			break;
		default:
			changed = false;
			break;
		}
		if (changed)
			i = UINT32_MAX;   /* from the start */
	}
}
