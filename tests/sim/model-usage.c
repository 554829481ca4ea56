/* SPDX-License-Identifier: MIT */
/*
 * What all of it comes to: the charges of every account, from below and from above, and how many objects there are.
 */
#include <string.h>

#include "tests/sim/model-private.h"

static void use(struct model_usage *u, enum sim_slot slot, uint64_t n, bool sure)
{
	u->low[slot] += sure ? n : 0;
	u->high[slot] += n;
}

static bool is_coming(const struct m_object *o)
{
	return o->state == M_REGISTERING || o->state == M_VALID_PENDING || o->state == M_BUILDING;
}

static void use_memory(const struct model *m, const struct m_object *o, struct model_usage *u)
{
	bool sure = !model_leaving(m, o);

	use(u, SLOT_MEMORIES, 1, sure);
	use(u, SLOT_FDS, 1, sure);
	for (unsigned a = 0; a < m->n_adapters; a++) {
		bool wanted = false;

		if (o->attached[a] != M_NOT_ATTACHED) {
			use(u, SLOT_PINNED, model_attach_cost(m, o->size), m->adapters[a]->up || sure);
			continue;
		}
		/* A registration that waits for another memory has reserved this one. */
		for (unsigned i = 0; i < m->n_live && !wanted; i++)
			for (unsigned j = 0; is_coming(m->live[i]) && j < m->live[i]->n_ranges; j++)
				wanted |= m->live[i]->ranges[j].memory == o &&
					  (m->live[i]->adapter == (int)a || model_on(m->live[i], (int)a));
		if (wanted)
			use(u, SLOT_PINNED, model_attach_cost(m, o->size), false);
	}
}

static void use_object(const struct model *m, const struct m_object *o, struct model_usage *u)
{
	bool sure = !model_leaving(m, o);

	switch (o->type) {
	case T_MEMORY:
		use_memory(m, o, u);
		break;
	case T_PD:
		use(u, SLOT_PDS, 1, sure);
		break;
	case T_MR:
		use(u, SLOT_MRS, 1, sure);
		if (o->state != M_CREATED && o->state != M_INITIALIZING && o->state != M_FREE)
			use(u, SLOT_PINNED, model_tag_cost(m, o->length), sure || model_holds(o, o->parent));
		break;
	case T_MW:
		use(u, SLOT_MWS, 1, sure);
		/* Being dropped in two ways at once: the first counts, or the second. */
		if (o->state != M_FREE)
			use(u, SLOT_PINNED, model_tag_cost(m, o->length), o->state == M_INVALIDATING ? o->tag : sure || model_holds(o, o->parent));
		break;
	case T_MAPPING:
		use(u, SLOT_MAPPINGS, 1, sure);
		use(u, SLOT_PINNED, model_tag_cost(m, o->length), sure);
		break;
	case T_QP:
		if (!o->inbound)
			use(u, SLOT_QPS, 1, sure);
		break;
	case T_TICKET:
	case T_EXPORT:
		use(u, SLOT_DOORS, 1, sure);
		if (o->state != M_DEAD)
			use(u, SLOT_QPS, o->max_streams, sure);
		if (o->state != M_DEAD && o->type == T_EXPORT)
			use(u, SLOT_PINNED, model_tag_cost(m, o->length), sure || model_holds(o, o->parent));
		break;
	default:
		break;
	}
}

static void use_requests(const struct model *m, const struct m_client *c, struct model_usage *u)
{
	use(u, SLOT_SESSIONS, !c->admin_socket, true);
	use(u, SLOT_BUFFERED, c->admin_socket ? 0 : c->output, true);
	for (unsigned j = 0; j < c->n_live && !c->admin_socket; j++) {
		const struct m_request *r = c->live[j];
		bool waiting = r->waiting || (c->dying && !r->started), look;

		look = r->say.call == CALL_LIST || r->say.call == CALL_WHO || r->say.call == CALL_REVOKE ||
		       r->say.call == CALL_GET_PRIVILEGED_TOKEN;
		if (model_counts_as_call(r) || (waiting && !r->waiting))
			use(u, SLOT_CALLS, 1, !c->dying);
		if (waiting && r->say.fds)
			use(u, SLOT_FDS, 1, !c->dying);
		/* What these keep is nicd's own affair. */
		if (waiting || r->waited || look)
			use(u, SLOT_BUFFERED, 65536, false);
	}
}

void model_usages(const struct model *m, struct model_usage usages[MODEL_ACCOUNTS])
{
	memset(usages, 0, MODEL_ACCOUNTS * sizeof(*usages));
	for (int i = 0; i < MODEL_CLIENTS; i++)
		if (m->clients[i].there)
			use_requests(m, &m->clients[i], &usages[m->clients[i].account]);
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->account >= 0)
			use_object(m, m->live[i], &usages[m->live[i]->account]);
	for (unsigned i = 0; i < MODEL_ACCOUNTS; i++) {
		use(&usages[i], SLOT_BUFFERED, m->buffered[i], true);
		use(&usages[i], SLOT_RECEIVES, m->receives[i], true);
	}
}

int model_quota(const struct model *m, int account, enum sim_slot slot, uint64_t n)
{
	struct model_usage usages[MODEL_ACCOUNTS];
	uint64_t max = m->terms.max[slot];

	/* Most accounts may have more than anybody could want here. */
	if (max >= (slot == SLOT_PINNED ? UINT64_C(1) << 40 : MODEL_PLENTY))
		return n > max ? 2 : 0;
	model_usages(m, usages);
	if (n && usages[account].low[slot] + n > max)
		return 2;
	return n && usages[account].high[slot] + n > max ? 1 : 0;
}

void model_counts(const struct model *m, uint64_t low[T_COUNT], uint64_t high[T_COUNT])
{
	for (unsigned type = 0; type < T_COUNT; type++)
		low[type] = high[type] = 0;
	for (unsigned i = 0; i < m->n_live; i++) {
		low[m->live[i]->type] += !model_leaving(m, m->live[i]);
		high[m->live[i]->type]++;
	}
}
