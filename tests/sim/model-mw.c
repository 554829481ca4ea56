/* SPDX-License-Identifier: MIT */
/*
 * The model's windows: bound to a part of an MR for the peer of one Qp, and free again when their owner says so, when that Qp ends, when its peer
 * says so, or when the MR ends by other orders than its owner's.
 */
#include "tests/sim/model-private.h"

/* Windows stand on this MR. */
bool model_has_windows(const struct model *m, const struct m_object *mr)
{
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->type == T_MW && m->live[i]->mr == mr && !m->live[i]->left)
			return true;
	return false;
}

/* And nobody has told them to go. */
bool model_waits_for_windows(const struct model *m, const struct m_object *mr)
{
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->type == T_MW && m->live[i]->mr == mr && !m->live[i]->left && !m->live[i]->killed)
			return true;
	return false;
}

static void mw_free(struct m_object *o)
{
	o->state = M_FREE;
	o->mr = o->qp = NULL;
	o->remote = o->rights = 0;
	o->iova = o->length = 0;
	o->killed = o->tag = o->stuck = o->left = false;
}

void model_evict(struct model *m, struct m_object *mr)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type != T_MW || o->mr != mr)
			continue;
		o->killed = true;
		if (o->state == M_BOUND)
			model_owe(m, o, EV_REVOKED);
		if (o->state == M_BOUND || o->state == M_ERROR)
			model_invalidate(m, o);
		else
			model_overtake(o);
	}
}

/* One that waits for other work is overtaken; a device that is down is not asked for that. */
void model_overtake(struct m_object *o)
{
	if (o->state == M_INVALIDATING && o->ordered && o->inflight && !model_adapter_up(o->parent))
		o->left = true;
}

/* A Qp has ended: the windows of its peer go with it; what is under way the device ends. */
void model_qp_lost(struct model *m, struct m_object *qp)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type != T_MW || o->qp != qp)
			continue;
		o->qp = NULL;
		if (o->state == M_BOUND)
			model_owe(m, o, EV_REVOKED);
		/* Told to go with others, and gone before its turn came: nobody drops it any more. */
		if (o->state == M_BOUND || o->state == M_ERROR || (o->state == M_INVALIDATING && !o->inflight && !o->stuck))
			mw_free(o);
	}
}

bool model_settle_mw(struct model *m, struct m_object *o)
{
	if (model_dropped(o)) {
		if (o->promised)
			model_owe(m, o, EV_REVOKE_CONFIRMED);
		o->promised = false;
		mw_free(o);
		return true;
	}
	if (o->closing && o->state == M_FREE && !o->inflight) {
		model_over(m, o);
		return true;
	}
	return false;
}

/* The device has it, or does not; what is answered. */
uint32_t model_bound(struct model *m, struct m_object *o, uint32_t status, uint32_t remote)
{
	uint32_t overtaken = 0;

	if (o->closing || o->killed)
		overtaken |= BIT(S_CANCELLED);
	if (!model_adapter_up(o->parent))
		overtaken |= BIT(S_DEVICE_REMOVED);
	if (!o->qp)
		overtaken |= BIT(S_CONNECTION_INVALID);
	if (status != S_SUCCESS) {
		mw_free(o);
		return BIT(status) | overtaken;
	}
	if (overtaken) {
		model_invalidate(m, o);
		return overtaken;
	}
	o->state = M_BOUND;
	o->remote = remote;
	return BIT(S_SUCCESS);
}

/* It failed before the device heard of it. */
void model_bind_failed(struct m_object *o)
{
	if (o->state == M_BIND_PENDING)
		mw_free(o);
}

/* The peer took it away. */
bool model_mw_invalidated(struct model *m, struct m_object *o)
{
	if (o->state != M_BOUND && o->state != M_ERROR)
		return false;
	if (o->state == M_BOUND)
		model_owe(m, o, EV_REMOTE_INVALIDATED);
	mw_free(o);
	return true;
}

/* ---- calls */

uint32_t model_begin_create_mw(struct model *m, struct m_request *r, uint32_t *maybe)
{
	uint32_t refused = 0;

	model_need(m, r, SLOT_MWS, 1, &refused, maybe);
	if (!refused) {
		r->object = model_new(m, T_MW, r->client, model_resolve(m, r, &r->say.ref[0]));
		r->object->state = M_FREE;
	}
	return refused;
}

uint32_t model_flags_refused(uint32_t flags, uint32_t taken)
{
	bool half = (flags & FLAG_REMOTE_WRITE & ~(uint32_t)FLAG_LOCAL_WRITE) && !(flags & FLAG_LOCAL_WRITE);

	return flags & ~taken || half ? BIT(S_INVALID_PARAMETER) : 0;
}

uint32_t model_rights_of(uint32_t flags)
{
	uint32_t rights = flags & FLAG_REMOTE_READ ? RIGHT_REMOTE_READ : 0;

	if (flags & FLAG_LOCAL_WRITE)
		rights |= RIGHT_WRITE;
	if ((flags & FLAG_REMOTE_WRITE) == FLAG_REMOTE_WRITE)
		rights |= RIGHT_REMOTE_WRITE;
	return flags & FLAG_READ_SINK ? rights | RIGHT_SINK | RIGHT_WRITE : rights;
}

/* Work on a Qp for an object of this PD. */
uint32_t model_work_refused(const struct m_object *qp, const struct m_object *pd)
{
	uint32_t refused = 0;

	if (qp->parent != pd)
		refused |= BIT(S_INVALID_PARAMETER);
	if (qp->state != M_CONNECTED)
		refused |= BIT(S_CONNECTION_INVALID);
	return refused | (qp->works >= SIM_QP_WORK ? BIT(S_INSUFFICIENT_RESOURCES) : 0);
}

uint32_t model_begin_bind(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	struct m_object *mw = r->object = model_resolve(m, r, &say->ref[0]), *mr = model_resolve(m, r, &say->ref[1]);
	struct m_object *qp = model_resolve(m, r, &say->ref[2]);
	uint32_t refused = model_flags_refused(say->flags, FLAG_ANY | FLAG_REMOTE_READ | FLAG_REMOTE_WRITE);
	uint32_t rights = model_rights_of(say->flags);

	refused |= model_work_refused(qp, mw->parent);
	if (mw->state != M_FREE || (mr->state != M_REGISTERED && mr->state != M_VALID))
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (mr->parent != mw->parent)
		refused |= BIT(S_INVALID_PARAMETER);
	/* Local write is no right of a window, but for the half of remote write. */
	if (!model_remote_rights(rights) || ((rights & RIGHT_WRITE) && (rights & RIGHT_REMOTE_WRITE) != RIGHT_REMOTE_WRITE))
		refused |= BIT(S_INVALID_PARAMETER);
	if ((rights & RIGHT_WRITE) && !(mr->rights & RIGHT_WRITE))
		refused |= BIT(S_ACCESS_VIOLATION);
	if (!say->length || say->length > UINT64_MAX - say->iova || say->iova < mr->iova || say->iova - mr->iova > mr->length ||
	    say->length > mr->length - (say->iova - mr->iova))
		refused |= BIT(S_INVALID_PARAMETER);
	if (!model_adapter_up(mw->parent))
		refused |= BIT(S_DEVICE_REMOVED);
	if (!refused)
		model_need(m, r, SLOT_PINNED, model_tag_cost(m, say->length), &refused, maybe);
	if (refused)
		return refused;
	mw->state = M_BIND_PENDING;
	mw->verdict = 0;
	mw->mr = mr;
	mw->qp = qp;
	mw->iova = say->iova;
	mw->length = say->length;
	mw->rights = rights;
	mw->fence = say->flags & FLAG_FENCE;
	return 0;
}

uint32_t model_begin_invalidate(struct model *m, struct m_request *r)
{
	struct m_object *o = r->object = model_resolve(m, r, &r->say.ref[0]), *qp = model_resolve(m, r, &r->say.ref[1]);
	uint32_t refused = model_flags_refused(r->say.flags, FLAG_ANY);

	if (o->type == T_MR && !o->fast)
		return BIT(S_INVALID_PARAMETER) | (qp ? 0 : BIT(S_INVALID_HANDLE));
	if (!qp || (o->type != T_MR && o->type != T_MW))
		return BIT(S_INVALID_HANDLE);
	refused |= model_work_refused(qp, o->parent);
	if (o->state != M_VALID && o->state != M_BOUND && o->state != M_ERROR)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (o->type == T_MR && model_has_windows(m, o))
		refused |= BIT(S_DEVICE_BUSY);
	if (refused)
		return refused;
	o->fence = r->say.flags & FLAG_FENCE;
	o->qp = o->type == T_MR ? qp : o->qp;
	model_invalidate(m, o);
	return 0;
}
