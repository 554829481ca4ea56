/* SPDX-License-Identifier: MIT */
/*
 * The model's adapters: one comes, is down, is lost with all that was on it, and is gone when nothing stands on it.
 */
#include "tests/sim/model-private.h"

int model_adapter(struct model *m, uint64_t serial, uint64_t id)
{
	struct m_object *o = model_new(m, T_ADAPTER, -1, NULL);

	sim_must(m->n_adapters < MODEL_ADAPTERS, "too many adapters for the model");
	o->serial = serial;
	o->id = id;
	o->up = true;
	o->adapter = (int)m->n_adapters;
	m->adapters[m->n_adapters++] = o;
	return o->adapter;
}

void model_adapter_down(struct model *m, int adapter)
{
	m->adapters[adapter]->up = false;
	model_settle(m);
}

void model_adapter_lost(struct model *m, int adapter)
{
	m->adapters[adapter]->up = false;
	m->adapters[adapter]->lost = true;
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type == T_QP && model_on(o, adapter) && o->state == M_CONNECTED) {
			model_disconnected(m, o, true);
			i = UINT32_MAX;   /* from the start: its grant is over */
			continue;
		}
		if ((o->type == T_EXPORT || o->type == T_TICKET) && model_on(o, adapter) && (o->state == M_OPEN || o->state == M_EXPIRED))
			model_kill_door(m, o, true);
	}
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (model_on(o, adapter) && (o->state == M_VALID || o->state == M_BOUND || ((o->fast || o->type == T_MW) && o->state == M_ERROR))) {
			if (o->state != M_ERROR)
				model_owe(m, o, EV_REVOKED);
			model_invalidate(m, o);
			model_evict(m, o);
		}
		if (o->type == T_MEMORY && (o->attached[adapter] == M_ATTACHED || o->attached[adapter] == M_DETACH_FAILED))
			o->attached[adapter] = M_NOT_ATTACHED;
		if (o->type == T_MAPPING && o->adapter == adapter)
			model_mapping_lost(o);
		if (o->type == T_MR && !o->fast && model_on(o, adapter) && (o->state == M_REGISTERED || o->state == M_ERROR)) {
			model_revoke_mr(m, o, o->state == M_REGISTERED);
			model_evict(m, o);
		}
	}
	for (int i = 0; i < MODEL_CLIENTS; i++) {
		m->clients[i].may_device |= BIT(adapter);
		if (m->clients[i].there && !m->clients[i].dying && !m->oom && !m->clients[i].resynced)
			m->clients[i].owed_device |= BIT(adapter);
	}
	model_settle(m);
}

void model_adapter_gone(struct model *m, int adapter)
{
	struct m_object *o = m->adapters[adapter];

	for (unsigned i = 0; i < m->n_live; i++) {
		if (model_leaving(m, m->live[i]))
			continue;
		sim_must(m->live[i]->parent != o, "an adapter is gone under a PD");
		if (m->live[i]->type == T_MEMORY)
			sim_must(m->live[i]->attached[adapter] == M_NOT_ATTACHED, "an adapter is gone under a memory");
	}
	model_over(m, o);
}
