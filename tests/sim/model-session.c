/* SPDX-License-Identifier: MIT */
/*
 * The model's sessions: let in, dying, gone. When one is gone, the device has nothing of it.
 */
#include <string.h>

#include "tests/sim/model-private.h"

void model_accept(struct model *m, int client, int account, enum sim_role role, bool admin_socket, uint64_t serial)
{
	struct m_client *c = &m->clients[client];

	if (!admin_socket)
		sim_must(model_quota(m, account, SLOT_SESSIONS, 1) != 2, "more sessions than the account may have");
	memset(c, 0, sizeof(*c));
	c->there = true;
	c->account = account;
	c->role = role;
	c->admin_socket = admin_socket;
	c->serial = serial;
}

void model_not_accepted(struct model *m, int account, bool admin_socket)
{
	sim_must(m->oom || (!admin_socket && model_quota(m, account, SLOT_SESSIONS, 1)), "a session was refused without a reason");
}

void model_dying(struct model *m, int client)
{
	struct m_client *c = &m->clients[client];

	c->dying = true;
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->client == client)
			m->live[i]->owed = 0;
	for (unsigned i = 0; i < c->n_live; i++)
		if (c->live[i]->started && c->live[i]->object && (c->live[i]->say.call == CALL_REVOKE || c->live[i]->say.call == CALL_DEREGISTER_MR || c->live[i]->say.call == CALL_INVALIDATE))
			c->live[i]->object->unheard = true;
}

void model_kick(struct model *m, int client)
{
	m->clients[client].kicked = true;
}

void model_gone(struct model *m, int client)
{
	struct m_client *c = &m->clients[client];

	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->client != client)
			continue;
		sim_must(!o->inflight, "a session is gone with a command of its object %llx at the device", (unsigned long long)o->serial);
		if (o->type == T_MR || o->type == T_MW || o->type == T_EXPORT || o->type == T_TICKET)
			sim_must(!model_holds(o, o->parent) && (!o->reserved || !model_adapter_up(o->parent)),
				 "a session is gone, and the device has its object %llx", (unsigned long long)o->serial);
		sim_must(o->type != T_PD || !o->tag || !o->parent->up, "a session is gone, and the device has a privileged key of it");
		for (unsigned j = 0; o->type == T_MEMORY && j < m->n_adapters; j++)
			sim_must(o->attached[j] == M_NOT_ATTACHED || (!m->adapters[j]->up && o->attached[j] == M_ATTACHED),
				 "a session is gone, and the device has its memory %llx", (unsigned long long)o->serial);
	}
	for (unsigned i = 0; i < m->n_live;) {
		if (m->live[i]->client == client)
			model_over(m, m->live[i]);
		else
			i++;
	}
	c->there = false;
	c->n_live = 0;
}
