/* SPDX-License-Identifier: MIT */
/*
 * The model's mappings: logical addresses of a session's, which fast registrations name, and which the device knows only where policy allows
 * privileged keys; and these, one of each PD that was asked for it.
 */
#include <string.h>

#include "tests/sim/model-private.h"

enum { ADDRESS_BITS = 47 };

static bool is_up(const struct model *m, const struct m_object *o)
{
	return o->adapter >= 0 && m->adapters[o->adapter]->up;
}

static bool is_used(const struct model *m, const struct m_object *mapping)
{
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->mapping == mapping)
			return true;
	return false;
}

/* All that it stands on is there. */
bool model_mapping_stands(const struct model *m, const struct m_object *o)
{
	for (unsigned i = 0; i < o->n_ranges; i++)
		if (o->adapter < 0 || o->ranges[i].memory->attached[o->adapter] != M_ATTACHED)
			return false;
	return is_up(m, o) && (!m->terms.privileged || o->tag);
}

bool model_settle_mapping(struct model *m, struct m_object *o)
{
	if (!o->closing || o->state == M_BUILDING || is_used(m, o) || o->inflight)
		return false;
	if (o->tag && (is_up(m, o) || (o->stuck && o->adapter >= 0 && !m->adapters[o->adapter]->lost)))
		return false;
	o->n_ranges = 0;
	model_over(m, o);
	return true;
}

void model_mapping_lost(struct m_object *o)
{
	if (o->state == M_BUILT) {
		o->tag = false;
		o->adapter = -1;
	}
}

uint32_t model_begin_mapping(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *adapter = model_newest_adapter(m), *o;
	struct m_object it = { .n_ranges = r->say.n_ranges };
	uint32_t refused = r->say.n_ranges ? 0 : BIT(S_INVALID_PARAMETER);
	uint64_t total = 0;

	for (unsigned i = 0; i < r->say.n_ranges; i++)
		it.ranges[i] = model_range(m, r, i);
	if (!adapter || !adapter->up)
		refused |= BIT(S_DEVICE_REMOVED);
	refused |= model_check_chain(it.ranges, it.n_ranges, 0, &total);
	if (total > m->terms.max_registration)
		refused |= BIT(S_IMPLEMENTATION_LIMIT);
	model_need(m, r, SLOT_MAPPINGS, 1, &refused, maybe);
	if (!refused)
		model_need(m, r, SLOT_PINNED, model_tag_cost(m, total) + model_attach_need(m, &it, adapter->adapter), &refused, maybe);
	if (refused)
		return refused;
	o = r->object = model_new(m, T_MAPPING, r->client, NULL);
	o->adapter = adapter->adapter;
	o->state = M_BUILDING;
	o->length = total;
	o->n_ranges = it.n_ranges;
	memcpy(o->ranges, it.ranges, sizeof(o->ranges));
	return 0;
}

uint32_t model_begin_privileged(struct model *m, struct m_request *r)
{
	struct m_object *pd = r->object = model_resolve(m, r, &r->say.ref[0]);

	if (!m->terms.privileged)
		return BIT(S_ACCESS_DENIED);
	return model_adapter_up(pd) ? 0 : BIT(S_DEVICE_REMOVED);
}

void model_check_mapping(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct m_object *o = r->object;

	sim_must(p->result == 45 && (!o->serial || o->serial == p->serial), "another mapping");
	sim_must(!o->tag || o->iova == p->iova, "a mapping is told another address than the device knows");
	sim_must(p->iova && p->iova < UINT64_C(1) << ADDRESS_BITS && p->iova % SIM_PAGE == o->ranges[0].offset % SIM_PAGE, "a strange address");
	sim_must(p->length == o->length && p->first_byte == p->iova % SIM_PAGE, "a mapping of something else");
	sim_must(p->pages == (p->first_byte + p->length + SIM_PAGE - 1) / SIM_PAGE, "%u pages", p->pages);
	for (unsigned i = 0; i < m->n_live; i++) {
		const struct m_object *other = m->live[i];

		sim_must(other == o || other->type != T_MAPPING || other->client != r->client || other->state == M_BUILDING ||
			 p->iova >= other->iova + other->length || other->iova >= p->iova + p->length, "two mappings have one address");
	}
	o->state = M_BUILT;
	o->iova = p->iova;
	o->serial = p->serial;
	o->id = r->result = p->object;
}

/* ---- at the device */

void model_map(struct model *m, struct m_object *o, const struct sim_op_args *args)
{
	sim_must(m->terms.privileged, "the device hears of a mapping that no privileged key may use");
	sim_must(o->state == M_BUILDING && !o->tag && args->owner == m->clients[o->client].serial, "a mapping that nobody asked for, or of another");
	sim_must(args->length == o->length && args->n_ranges == o->n_ranges, "a mapping over something else");
	for (unsigned i = 0; i < o->n_ranges; i++)
		sim_must(args->ranges[i].memory == o->ranges[i].memory->serial && args->ranges[i].offset == o->ranges[i].offset &&
			 args->ranges[i].length == o->ranges[i].length && o->ranges[i].memory->attached[o->adapter] == M_ATTACHED,
			 "a mapping over other memory than asked for");
	o->iova = args->iova;
}

void model_key(struct model *m, struct m_object *pd, const struct sim_op_args *args)
{
	const struct m_request *r = m->current;

	sim_must(m->terms.privileged && r && r->say.call == CALL_GET_PRIVILEGED_TOKEN && r->object == pd, "a privileged key that nobody asked for");
	sim_must(args->owner == m->clients[pd->client].serial, "a privileged key for another's mappings");
	pd->tag = true;
}
