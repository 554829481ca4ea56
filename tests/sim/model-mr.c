/* SPDX-License-Identifier: MIT */
/*
 * The model's MRs: how one is revoked, by whomever, and when that is over.
 */
#include "tests/sim/model-private.h"

bool model_remote_rights(uint32_t rights)
{
	return (rights & RIGHT_REMOTE_READ) || (rights & RIGHT_REMOTE_WRITE) == RIGHT_REMOTE_WRITE;
}

bool model_is_revoked(const struct m_object *o)
{
	return o->over || o->state == M_CREATED || o->state == M_FREE || o->state == M_DEAD;
}

bool model_late(const struct model *m, const struct m_object *o)
{
	return m->now - o->since >= m->terms.revoke_timeout_ns;
}

void model_revoke_mr(struct model *m, struct m_object *mr, bool tell)
{
	mr->state = M_REVOKING;
	mr->since = m->now;
	mr->local = mr->remote = 0;
	mr->n_died = 0;
	mr->unheard = false;
	mr->grants = 0;
	if (tell)
		model_owe(m, mr, EV_REVOKED);
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->mr == mr && m->live[i]->type == T_EXPORT && m->live[i]->state != M_DEAD)
			model_kill_door(m, m->live[i], true);
}

bool model_settle_mr(struct model *m, struct m_object *o)
{
	if (o->state == M_REVOKING && !o->inflight && !model_holds(o, o->parent)) {
		for (unsigned i = 0; i < m->n_live; i++)
			if (m->live[i]->mr == o && !m->live[i]->left)
				return false;
		o->state = M_CREATED;
		o->tag = false;
		o->rights = 0;
		o->n_ranges = 0;
		o->length = 0;
		if (o->promised)
			model_owe(m, o, EV_REVOKE_CONFIRMED);
		o->promised = false;
		return true;
	}
	if (o->closing && o->state == M_CREATED) {
		model_over(m, o);
		return true;
	}
	return false;
}

/*
 * What stands on a tag that a peer took away goes as when its owner deregisters it. The model's `tag` stays until the device was told to
 * drop it, for so long does nicd keep what was paid.
 */
bool model_tag_invalidated(struct model *m, int adapter, const struct m_tag *tag)
{
	struct m_object *o = model_serial(m, tag->serial);

	model_token_rests(m, adapter, tag->local);
	model_token_rests(m, adapter, tag->remote);
	if (!o || (o->type != T_MR && o->type != T_MW) || o->generation != tag->generation)
		return false;
	if (o->fast || o->type == T_MW) {
		o->tag = false;
		if (model_leaving(m, o) || !(o->fast ? model_fast_invalidated(m, o) : model_mw_invalidated(m, o)))
			return false;
		model_settle(m);
		return true;
	}
	if (model_leaving(m, o))
		o->local = o->remote = 0;
	if (model_leaving(m, o) || o->state != M_REGISTERED)
		return false;
	model_owe(m, o, EV_REMOTE_INVALIDATED);
	model_revoke_mr(m, o, false);
	model_evict(m, o);
	return true;
}

void model_tag_gone(struct model *m, int adapter, const struct m_tag *tag)
{
	struct m_object *o = model_serial(m, tag->serial);

	model_token_rests(m, adapter, tag->local);
	model_token_rests(m, adapter, tag->remote);
	if (o && o->type == T_MW && o->generation == tag->generation)
		o->tag = false;
}
