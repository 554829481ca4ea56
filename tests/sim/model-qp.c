/* SPDX-License-Identifier: MIT */
/*
 * The model's Qps and grants: connected by a request or come in by a door, and gone when nobody is connected and nothing is under way.
 */
#include "tests/sim/model-private.h"

struct m_object *model_stream(const struct model *m, int adapter, uint64_t stream)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type == T_QP && o->stream == stream && o->parent->parent->adapter == adapter)
			return o;
	}
	return NULL;
}

void model_grant_over(struct model *m, struct m_object *qp)
{
	struct m_object *door = qp->by_door;

	if (!door)
		return;
	qp->by_door = NULL;
	door->streams--;
	if (qp->grant) {
		door->grants += door->killed;
		model_over(m, qp->grant);
		qp->grant = NULL;
	}
}

void model_disconnected(struct model *m, struct m_object *qp, bool tell)
{
	qp->state = M_DISCONNECTED;
	model_grant_over(m, qp);
	model_qp_lost(m, qp);
	if (tell)
		model_owe(m, qp, EV_DISCONNECTED);
}

bool model_settle_qp(struct model *m, struct m_object *o)
{
	if (o->state == M_CONNECTED && o->closing && !model_adapter_up(o->parent) && !o->stuck && !o->inflight) {
		model_disconnected(m, o, false);
		return true;
	}
	if (o->state == M_DISCONNECTED && (o->closing || o->inbound) && !o->inflight && !o->holds) {
		model_grant_over(m, o);
		model_over(m, o);
		return true;
	}
	return false;
}

void model_end_connect(struct model *m, struct m_object *o, bool ok)
{
	if (!ok || !model_adapter_up(o->parent)) {
		o->state = M_DISCONNECTED;
		o->closing = true;
		return;
	}
	o->state = o->aborts ? M_DISCONNECTING : M_CONNECTED;
	if (o->gone && o->state == M_CONNECTED)
		model_disconnected(m, o, true);
}

void model_end_disconnect(struct model *m, struct m_command *k, uint32_t status)
{
	struct m_object *o = k->object;

	if (k->abort) {
		o->aborts--;
		if (o->state != M_DISCONNECTING)
			return;
	}
	o->stuck = !model_let_go(status) && !o->gone;
	if (o->stuck)
		o->state = M_CONNECTED;
	else
		model_disconnected(m, o, false);
}

/* ---- what the device tells */

void model_stream_opened(struct model *m, int adapter, uint64_t stream, uint64_t serial, uint64_t qp, uint64_t id, uint64_t grant)
{
	struct m_object *door = model_serial(m, serial), *o;

	if (!door || (door->type != T_EXPORT && door->type != T_TICKET) || !model_on(door, adapter) || door->state == M_DEAD) {
		sim_must(!qp, "a peer came in by no door");
		return;
	}
	if (!qp) {
		sim_must(m->oom, "a peer that came in is not seen");
		model_kill_door(m, door, true);
		model_settle(m);
		return;
	}
	o = model_new(m, T_QP, door->client, door->parent);
	o->serial = qp;
	o->id = id;
	o->stream = stream;
	o->inbound = true;
	o->state = M_CONNECTED;
	o->by_door = door;
	o->came_by = serial;
	door->streams++;
	sim_must(!grant == (door->type == T_TICKET), "a peer that came by an export has a grant, one that came by a ticket has none");
	if (grant) {
		o->grant = model_new(m, T_GRANT, door->client, door);
		o->grant->serial = grant;
	}
	if (door->streams > door->max_streams)
		o->closing = true;
	else
		model_owe(m, door, EV_CONNECTED);
	model_settle(m);
}

void model_stream_closed(struct model *m, int adapter, uint64_t stream)
{
	struct m_object *o = model_stream(m, adapter, stream);

	if (!o || o->state == M_DISCONNECTED)
		return;
	if (o->state == M_CONNECTED)
		model_disconnected(m, o, true);
	else
		o->gone = true;
	model_settle(m);
}

void model_stream_notified(struct model *m, int adapter, uint64_t stream, uint64_t count)
{
	struct m_object *o = model_stream(m, adapter, stream), *door = o ? o->by_door : NULL;

	if (!door || count <= o->notified)
		return;
	door->notified += count - o->notified;
	door->notified_by = o->serial;
	o->notified = count;
	model_owe(m, door, EV_NOTIFIED);
}
