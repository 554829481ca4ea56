/* SPDX-License-Identifier: MIT */
/*
 * The model's tickets and exports: opened by the device, ended by their owner, their time or their MR, dead when the
 * device has let go.
 */
#include "tests/sim/model-private.h"

void model_kill_door(struct model *m, struct m_object *door, bool tell)
{
	if (door->killed)
		return;
	door->killed = true;
	door->since = m->now;
	if (door->state == M_OPENING)
		return;
	door->state = M_CLOSING;
	if (tell)
		model_owe(m, door, EV_REVOKED);
}

/* The device let go of a door: nobody who came by it is there any more, whether it said so or not. */
void model_door_shut(struct model *m, struct m_object *o)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *qp = m->live[i];

		if (qp->type != T_QP || qp->by_door != o)
			continue;
		if (qp->state == M_CONNECTED) {
			model_disconnected(m, qp, true);
		} else {
			qp->gone = true;
			model_grant_over(m, qp);
		}
		i = UINT32_MAX;   /* from the start: the list has changed */
	}
}

bool model_settle_door(struct model *m, struct m_object *o)
{
	if (o->killed && o->state != M_DEAD && !o->inflight && !model_holds(o, o->parent)) {
		o->state = M_DEAD;
		if (o->door)
			model_door_shut(m, o);
		o->tag = o->door = false;
		if (o->mr && o->mr->state == M_REVOKING) {
			if (o->mr->n_died < 64)
				o->mr->died[o->mr->n_died] = o->serial;
			o->mr->n_died++;
			o->mr->grants += o->grants;
		}
		o->mr = NULL;
		if (o->promised)
			model_owe(m, o, EV_REVOKE_CONFIRMED);
		o->promised = false;
		return true;
	}
	if (o->closing && o->state == M_DEAD) {
		model_over(m, o);
		return true;
	}
	return false;
}

void model_end_door(struct model *m, struct m_object *o, bool ok)
{
	if (!ok || o->killed || !model_adapter_up(o->parent)) {
		o->closing = true;
		if (!o->killed)
			o->since = m->now;
		o->killed = true;
		o->state = M_CLOSING;
	}
}

void model_door_expired(struct model *m, int adapter, uint64_t serial)
{
	struct m_object *door = model_serial(m, serial);

	if (!door || (door->type != T_EXPORT && door->type != T_TICKET) || !model_on(door, adapter))
		return;
	if (door->state == M_OPENING) {
		door->expired = true;
	} else if (door->state == M_OPEN) {
		door->state = M_EXPIRED;
		model_owe(m, door, EV_EXPIRED);
		if (door->type == T_EXPORT)
			model_kill_door(m, door, false);
	}
	model_settle(m);
}
