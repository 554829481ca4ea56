/* SPDX-License-Identifier: MIT */
/*
 * The model's judgement of events, and of what is due at the end of a turn: nothing that could be said is not.
 */
#include "tests/sim/model-private.h"

/* The door of the peer whose Qp this is. */
static uint64_t came_by(const struct model *m, uint64_t qp)
{
	for (unsigned i = 0; i < m->n_objects; i++)
		if (m->objects[i].type == T_QP && m->objects[i].serial == qp)
			return m->objects[i].came_by;
	sim_fail("a peer came in that the device never told of: Qp %llx", (unsigned long long)qp);
}

/* The latest wins: those not told yet are in it, and each is told once. */
static void check_notified(struct m_object *door, uint64_t by, uint64_t count)
{
	sim_must(count == door->notified && by == door->notified_by, "door %llx was notified %llu times, last by %llx, and told %llu by %llx",
		 (unsigned long long)door->serial, (unsigned long long)door->notified, (unsigned long long)door->notified_by,
		 (unsigned long long)count, (unsigned long long)by);
	sim_must(count > door->told, "notice %llu of door %llx is told twice", (unsigned long long)count, (unsigned long long)door->serial);
	door->told = count;
}

void model_event(struct model *m, int client, enum sim_event kind, uint64_t id, uint64_t serial, uint64_t count)
{
	struct m_client *c = &m->clients[client];
	uint64_t by = serial;

	sim_must(!c->dying, "an event on a session that has ended");
	m->events[kind]++;
	if (kind == EV_RESYNC) {
		sim_must(c->resynced || m->oom || m->terms.max_news < 64, "RESYNC without need");
		for (unsigned i = 0; i < m->n_objects; i++)
			if (m->objects[i].client == client)
				m->objects[i].owed = 0;
		c->owed_device = 0;
		return;
	}
	if (kind == EV_DEVICE_STATE) {
		for (unsigned a = 0; a < m->n_adapters; a++) {
			if (m->adapters[a]->serial != serial)
				continue;
			sim_must(c->may_device & BIT(a), "news of an adapter that did not change");
			c->owed_device &= ~BIT(a);
			return;
		}
		sim_fail("news of an adapter that never was");
	}
	if (kind == EV_CONNECTED || kind == EV_NOTIFIED)
		serial = came_by(m, serial);
	for (unsigned i = 0; i < m->n_objects; i++) {
		struct m_object *o = &m->objects[i];

		if (o->client != client || o->serial != serial)
			continue;
		sim_must(o->may & BIT(kind), "event %u of object %llx, to which that did not happen", kind, (unsigned long long)serial);
		sim_must(!id || id == o->id, "an event names object %llx, not %llx", (unsigned long long)id, (unsigned long long)o->id);
		if (kind == EV_NOTIFIED)
			check_notified(o, by, count);
		o->owed &= ~BIT(kind);
		return;
	}
	sim_fail("event %u of object %llx, which this session never had", kind, (unsigned long long)serial);
}

void model_fatal(struct model *m, int client)
{
	sim_must(m->clients[client].fatal, "a session is ended that broke no rule");
}

/* ---- the end of a turn */

static void check_due(struct model *m, struct m_request *r)
{
	const struct m_object *o = r->object;
	bool due = false, waits;

	if (!r->started) {
		(void)model_admission(m, r, &waits);
		sim_must(waits || model_may_queue(m, r), "request %u (call %u) waits for nothing", r->say.id, r->say.call);
		r->waiting = true;
		return;
	}
	if (r->now)
		due = true;
	switch (r->say.call) {
	case CALL_REGISTER_MR:
		due |= o->state != M_REGISTERING && !(o->closing && o->state == M_REVOKING);
		break;
	case CALL_INITIALIZE_FAST_REGISTER:
		due |= o->state != M_INITIALIZING;
		break;
	case CALL_BUILD_MAPPING:
		due |= model_mapping_stands(m, o);
		break;
	case CALL_GET_PRIVILEGED_TOKEN:
		due |= !r->commands;
		break;
	case CALL_FAST_REGISTER:
		due |= o->state != M_VALID_PENDING;
		break;
	case CALL_BIND_MW:
		due |= o->state != M_BIND_PENDING;
		break;
	case CALL_INVALIDATE:
		due |= o->state != M_INVALIDATING || (o->fast && model_late(m, o));
		break;
	case CALL_DEREGISTER_MR:
		due |= o->state != M_REVOKING || model_late(m, o);
		break;
	case CALL_CLOSE:
		due |= o->over;
		break;
	case CALL_REVOKE:
		if (r->session)
			due |= m->now - r->at >= m->terms.revoke_timeout_ns;
		else if (!m->clients[o->client].dying)
			due |= o->type == T_QP ? o->state != M_DISCONNECTING : model_is_revoked(o) || model_late(m, o);
		break;
	case CALL_CREATE_TICKET:
	case CALL_CREATE_EXPORT:
		due |= o->over || o->state == M_OPEN;
		break;
	case CALL_CONNECT_QP:
		due |= m->now >= r->refused_at && !r->commands;
		break;
	case CALL_READ:
	case CALL_WRITE:
	case CALL_TRANSFER_LIST:
	case CALL_SEND:
	case CALL_RECEIVE:
	case CALL_FLUSH:
	case CALL_QUERY_QP:
	case CALL_LIST:
	case CALL_WHO:
	case CALL_LEDGER:
		due |= !r->commands;
		break;
	case CALL_DISCONNECT:
		due |= !r->commands;
		break;
	default:
		break;
	}
	sim_must(!due, "request %u (call %u) is not answered, and could be", r->say.id, r->say.call);
}

void model_turn(struct model *m)
{
	for (int i = 0; i < MODEL_CLIENTS; i++) {
		struct m_client *c = &m->clients[i];

		if (m->oom)
			c->resynced = true;
		for (unsigned j = 0; c->there && !c->dying && !c->fatal && j < c->n_live; j++)
			check_due(m, c->live[j]);
	}
	for (unsigned i = 0; i < m->n_live; i++) {
		const struct m_object *o = m->live[i];
		const struct m_client *c = o->client < 0 ? NULL : &m->clients[o->client];

		if (c && c->there && !c->dying && !c->fatal && !c->slow && !c->resynced)
			sim_must(!o->owed, "the events %x of object %llx are not told", o->owed, (unsigned long long)o->serial);
	}
	m->oom = false;
	m->armed = false;
	m->saved_for = NULL;
}

void model_quiet(struct model *m)
{
	for (int i = 0; i < MODEL_CLIENTS; i++) {
		struct m_client *c = &m->clients[i];

		if (!c->there || c->dying)
			continue;
		sim_must(!c->n_live, "request %u (call %u) is never answered", c->live[0]->say.id, c->live[0]->say.call);
		sim_must(!c->owed_device || c->resynced, "a session never hears that its device was lost");
		for (unsigned j = 0; j < m->n_objects && !c->resynced; j++)
			sim_must(m->objects[j].client != i || m->objects[j].over || !m->objects[j].owed,
				 "the events %x of object %llx are never told", m->objects[j].owed, (unsigned long long)m->objects[j].serial);
	}
}
