/* SPDX-License-Identifier: MIT */
/*
 * The model's judgement of what nicd says: every reply, event and Fatal. Success is believed only when what it says is true: a region that is
 * deregistered is one that the device cannot touch any more.
 */
#include <string.h>

#include "tests/sim/model-private.h"

static void unlist(struct m_client *c, const struct m_request *r)
{
	for (unsigned i = 0; i < c->n_live; i++) {
		if (c->live[i] != r)
			continue;
		c->live[i] = c->live[--c->n_live];
		return;
	}
}

static bool held(const struct m_object *o)
{
	return (o->tag || o->door) && o->parent && o->parent->type == T_PD && model_adapter_up(o->parent);
}

/* It never came to be, whatever was expected. */
static void unmake(struct model *m, struct m_object *o)
{
	o->over = o->closing = true;
	for (unsigned i = 0; i < m->n_live; i++) {
		if (m->live[i] != o)
			continue;
		m->live[i] = m->live[--m->n_live];
		return;
	}
}

/* ---- what may be answered when it took its time */

static uint32_t allow_register(struct model *m, const struct m_request *r)
{
	const struct m_object *mr = r->object;

	if (mr->tag && !mr->inflight && mr->state == M_REGISTERING && model_adapter_up(mr->parent))
		return BIT(S_SUCCESS);
	if (mr->closing && mr->state == M_REVOKING)   /* the device was too late with it */
		return BIT(S_CANCELLED);
	/* One that waits for a memory that another registration attaches is refused with that one's reason. */
	return BIT(S_INSUFFICIENT_RESOURCES) | BIT(S_DEVICE_BUSY) | BIT(S_DEVICE_REMOVED) | (mr->closing ? BIT(S_CANCELLED) : 0);
}

static uint32_t allow_revocation(const struct model *m, const struct m_request *r, const struct m_object *o, bool done)
{
	uint32_t allowed = 0;

	if (done)
		allowed |= BIT(S_SUCCESS);
	else if (model_late(m, o))
		allowed |= BIT(S_REVOKE_PENDING);
	if ((o->type == T_MR || o->type == T_MW) && (o->state == M_ERROR || o->stuck || (o->closing && !done)))
		allowed |= BIT(S_INSUFFICIENT_RESOURCES);
	return allowed;
}

static uint32_t allow_door(const struct model *m, const struct m_request *r)
{
	const struct m_object *o = r->object;

	if (o->state == M_OPEN || o->state == M_EXPIRED || (o->killed && !o->closing && o->expired))
		return BIT(S_SUCCESS);
	if (!o->over && held(o) && !model_late(m, o))
		return 0;   /* not before the device holds nothing of it */
	return BIT(S_CANCELLED) | BIT(S_DEVICE_REMOVED) | BIT(S_INSUFFICIENT_RESOURCES) | BIT(S_DEVICE_BUSY);
}

static uint32_t allow_connect(const struct model *m, const struct m_request *r)
{
	const struct m_object *o = r->object;
	uint32_t allowed = 0;

	if (o && !o->over && o->state != M_CONNECTING && !o->closing)
		return BIT(S_SUCCESS);
	if (m->now >= r->refused_at && (!o || (r->ended & BIT(S_CONNECTION_REFUSED))))
		allowed |= BIT(S_CONNECTION_REFUSED);
	allowed |= r->ended & ~BIT(S_SUCCESS) & ~BIT(S_CONNECTION_REFUSED);
	if (o && o->closing)
		allowed |= BIT(S_CANCELLED);
	if (o && !model_adapter_up(o->parent))
		allowed |= BIT(S_DEVICE_REMOVED);
	return allowed;
}

static uint32_t allow_disconnect(const struct model *m, const struct m_request *r)
{
	const struct m_object *o = r->object;

	if (o->over || o->state == M_DISCONNECTED || !model_adapter_up(o->parent))
		return BIT(S_SUCCESS) | BIT(S_CONNECTION_INVALID);
	/* Somebody else disconnects it, or the device refused to. */
	if (o->state == M_DISCONNECTING || o->closing)
		return BIT(S_CONNECTION_INVALID) | BIT(S_INSUFFICIENT_RESOURCES);
	return BIT(S_INSUFFICIENT_RESOURCES);
}

static uint32_t allow_revoke(struct model *m, const struct m_request *r)
{
	const struct m_object *o = r->object;

	if (r->session) {
		if (m->now - r->at >= m->terms.revoke_timeout_ns)
			return BIT(S_SUCCESS) | BIT(S_REVOKE_PENDING);
		return m->clients[r->session - 1].there && m->clients[r->session - 1].serial == r->say.serial ? 0 : BIT(S_SUCCESS);
	}
	if (m->clients[o->client].dying) {
		if (o->type == T_QP || o->type == T_GRANT)
			return ~0u;
		return ~(held(o) ? BIT(S_SUCCESS) : 0u);
	}
	if (o->type == T_QP) {
		if (o->over || o->state == M_DISCONNECTED)
			return BIT(S_SUCCESS);
		return o->state == M_CONNECTED || o->closing ? BIT(S_INSUFFICIENT_RESOURCES) : 0;
	}
	return allow_revocation(m, r, o, model_is_revoked(o));
}

/* What it asked about may have gone while the device was asked; of a session that is being released nobody knows. */
static uint32_t allow_who(const struct model *m, const struct m_request *r)
{
	const struct m_object *o = model_serial(m, r->say.serial);

	if (!o)
		return BIT(S_INVALID_HANDLE);
	return BIT(S_SUCCESS) | (model_leaving(m, o) ? BIT(S_INVALID_HANDLE) : 0);
}

/* One that the device has not heard of yet waits for memories, and ends with its Qp and its MR, or when others could not have these. */
static uint32_t allow_work_tag(const struct model *m, const struct m_request *r)
{
	if (r->object->verdict || r->commands)
		return r->object->verdict;
	return (r->ended & ~BIT(S_SUCCESS)) | BIT(S_CANCELLED) | BIT(S_INSUFFICIENT_RESOURCES) | BIT(S_DEVICE_BUSY) | BIT(S_DEVICE_REMOVED);
}

/* Somebody closes it, or has asked for its end. */
static bool is_going(const struct model *m, const struct m_object *qp)
{
	for (int i = 0; i < MODEL_CLIENTS; i++)
		for (unsigned j = 0; m->clients[i].there && j < m->clients[i].n_live; j++) {
			const struct m_request *r = m->clients[i].live[j];

			if (r->started && r->object == qp && (r->say.call == CALL_DISCONNECT || r->say.call == CALL_REVOKE))
				return true;
		}
	return qp->closing;
}

/*
 * Of a device that is down a Qp that is to end is gone whenever nicd looks at it next, and its windows with it: that it has looked is seen by
 * what waited for these.
 */
static uint32_t allow_close(struct model *m, struct m_object *o)
{
	for (unsigned i = 0; i < m->n_live && !o->over && o->type == T_MR && !model_adapter_up(o->parent); i++) {
		struct m_object *mw = m->live[i];

		if (mw->type == T_MW && mw->mr == o && mw->qp && mw->qp->state == M_CONNECTED && is_going(m, mw->qp)) {
			model_disconnected(m, mw->qp, false);
			i = UINT32_MAX;   /* from the start: the list has changed */
		}
	}
	model_settle(m);
	return o->over ? BIT(S_SUCCESS) : 0;
}

static uint32_t allow(struct model *m, struct m_request *r)
{
	switch (r->say.call) {
	case CALL_REGISTER_MR:
		return allow_register(m, r);
	case CALL_INITIALIZE_FAST_REGISTER:
		if (r->object->closing)
			return r->commands ? 0 : BIT(S_CANCELLED) | (r->ended & ~BIT(S_SUCCESS));
		return r->object->state == M_FREE ? BIT(S_SUCCESS) : r->commands ? 0 : r->ended & ~BIT(S_SUCCESS);
	case CALL_BUILD_MAPPING:
		if (model_mapping_stands(m, r->object))
			return r->object->closing ? BIT(S_CANCELLED) : BIT(S_SUCCESS);
		return (r->ended & ~BIT(S_SUCCESS)) | BIT(S_INSUFFICIENT_RESOURCES) | BIT(S_DEVICE_BUSY) | BIT(S_DEVICE_REMOVED) |
		       (r->object->closing ? BIT(S_CANCELLED) : 0);
	case CALL_FAST_REGISTER:
	case CALL_BIND_MW:
		return allow_work_tag(m, r);
	case CALL_DEREGISTER_MR:
	case CALL_INVALIDATE:
		return allow_revocation(m, r, r->object, model_is_revoked(r->object));
	case CALL_CLOSE:
		return allow_close(m, r->object);
	case CALL_REVOKE:
		return allow_revoke(m, r);
	case CALL_CREATE_TICKET:
	case CALL_CREATE_EXPORT:
		return allow_door(m, r);
	case CALL_CONNECT_QP:
		return allow_connect(m, r);
	case CALL_READ:
	case CALL_WRITE:
	case CALL_TRANSFER_LIST:
	case CALL_SEND:
	case CALL_RECEIVE:
	case CALL_FLUSH:
	case CALL_GET_PRIVILEGED_TOKEN:
		return r->commands ? 0 : r->ended;
	case CALL_QUERY_QP:
		if (r->commands)
			return 0;
		/* A connection that ended meanwhile has its last counters. */
		return r->ended & (BIT(S_CONNECTION_INVALID) | BIT(S_DEVICE_REMOVED)) || !r->ended ? BIT(S_SUCCESS) : r->ended;
	case CALL_DISCONNECT:
		return r->commands ? 0 : allow_disconnect(m, r);
	case CALL_WHO:
		return r->commands ? 0 : allow_who(m, r);
	case CALL_LIST:
	case CALL_LEDGER:
		return r->commands ? 0 : BIT(S_SUCCESS);
	default:
		return BIT(S_SUCCESS);
	}
}

/* ---- what a success says */

static void check_receipt(struct model *m, const struct m_request *r, const struct sim_reply *p, const struct m_object *mr)
{
	uint64_t seen = 0;

	sim_must(p->result == 32 && p->serial == mr->serial, "a receipt for something else");
	sim_must(!mr->tag || !model_adapter_up(mr->parent), "the device can still touch a region that is deregistered");
	sim_must(p->n_exports == (mr->n_died < 64 ? mr->n_died : 64), "a receipt names %u exports, %u died", p->n_exports, mr->n_died);
	sim_must(p->grants == mr->grants, "a receipt counts %u grants, %u ended", p->grants, mr->grants);
	for (unsigned i = 0; i < p->n_exports; i++)
		for (unsigned j = 0; j < mr->n_died && j < 64; j++)
			if (mr->died[j] == p->exports[i])
				seen |= UINT64_C(1) << j;
	sim_must(p->n_exports >= 64 || seen == (UINT64_C(1) << p->n_exports) - 1, "a receipt names other exports than died");
}

static void check_hello(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	m->clients[r->client].ready = true;
	sim_must(p->result == 10 && p->serial == m->clients[r->client].serial, "Hello answers another session");
}

static void check_register(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct m_object *mr = r->object;

	if (!mr->fast)
		mr->state = M_REGISTERED;
	sim_must(p->result == 31 && p->object == mr->id && p->serial == mr->serial, "RegisterMr answers another MR");
	sim_must(p->iova == mr->iova && p->length == mr->length && p->flags == mr->rights && p->generation == mr->generation,
		 "RegisterMr answers another registration");
	sim_must(p->local == mr->local, "not the local token that the device drew");
	sim_must(p->remote == (model_remote_rights(mr->rights) ? mr->remote : 0), "not the remote token that the device drew");
	r->result = mr->id;
}

static void check_bind(struct m_request *r, const struct sim_reply *p)
{
	const struct m_object *o = r->object;

	sim_must(p->result == 31 && p->object == o->id && p->serial == o->serial, "another window is bound");
	sim_must(p->iova == o->iova && p->length == o->length && p->flags == o->rights && p->generation == o->generation, "a window is bound elsewhere");
	sim_must(!p->local && p->remote == o->remote && p->remote, "not the token that the device drew");
	r->result = o->id;
}

static void check_made(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct m_object *o = r->object;

	sim_must(p->result == (o->type == T_MEMORY ? 20 : 25), "another result");
	for (unsigned i = 0; i < m->n_live; i++)
		sim_must(m->live[i] == o || (m->live[i]->serial != p->serial && (m->live[i]->id != p->object ||
			 m->live[i]->client != r->client || m->live[i]->closing)), "an id or serial is given twice");
	sim_must(p->object >> 56 == o->type && p->serial, "an id of another type");
	o->id = r->result = p->object;
	o->serial = p->serial;
	if (o->type == T_MEMORY)
		sim_must(p->size == o->size && p->page == o->page && p->writable == o->writable, "another memory than was passed");
}

/* Those that may be told. */
static void tokens_of(const struct m_object *o, uint32_t *local, uint32_t *remote)
{
	if (!o || o->type != T_MR)
		return;
	if (o->state == M_FREE) {
		*local = o->reserved_local;
		*remote = o->remote_access ? o->reserved_remote : 0;
	} else if (o->state == M_REGISTERED || o->state == M_VALID) {
		*local = o->local;
		*remote = model_remote_rights(o->rights) ? o->remote : 0;
	}
}

static void check_tokens(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	sim_must(p->result == 35 && p->n_tokens == r->say.n_ids, "another number of tokens than ids");
	for (unsigned i = 0; i < r->say.n_ids; i++) {
		struct m_object *o = model_find(m, r->client, r->say.ids[i]);
		uint32_t local = 0, remote = 0;

		tokens_of(o, &local, &remote);
		sim_must(p->locals[i] == local, "the local token of %llx", (unsigned long long)r->say.ids[i]);
		sim_must(p->remotes[i] == remote, "the remote token of %llx", (unsigned long long)r->say.ids[i]);
	}
}

static void check_door(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct m_object *o = r->object;

	sim_must(p->result == 60 && p->serial == o->serial && o->serial, "a door answers for another");
	sim_must(p->has_hash && !memcmp(p->hash, o->hash, sizeof(o->hash)), "the locator's ticket is not the one that the device knows");
	sim_must(p->iova == o->iova && p->length == o->length && p->flags == o->rights && p->remote == o->remote, "a locator gives something else");
	o->id = r->result = p->object;
}

static void check_qp(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct m_object *o = r->object;

	sim_must(p->result == 50 && p->serial == o->serial, "another Qp");
	if (r->say.call == CALL_CONNECT_QP) {
		o->id = p->object;
		sim_must(p->connected == (o->state == M_CONNECTED), "a connection that is not there");
	}
	r->result = p->object;
}

static void check_list(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	bool sure = !r->say.cursor && !p->cursor && m->clients[r->client].there;
	unsigned n = 0;

	sim_must(p->result == 70, "another result");
	if (r->say.call == CALL_LIST && r->say.type == T_SESSION) {
		for (int i = 0; i < MODEL_CLIENTS; i++)
			n += m->clients[i].there && (m->clients[r->client].role == ROLE_ADMIN || m->clients[i].account == m->clients[r->client].account);
		sim_must(!sure || n == p->n_items, "%u sessions are listed, there are %u", p->n_items, n);
		return;
	}
	for (unsigned i = 0; i < p->n_items; i++) {
		const struct m_object *o = model_serial(m, p->items[i].serial);

		/* What no answer has named yet the model does not know. */
		if (!o)
			continue;
		sim_must(o->type == p->items[i].type && model_visible(m, r->client, o), "a list shows what is not for this session");
	}
	if (r->say.call != CALL_LIST)
		return;
	for (unsigned i = 0; i < m->n_live; i++) {
		const struct m_object *o = m->live[i];

		if (o->type != r->say.type || !model_visible(m, r->client, o))
			continue;
		if (o->client >= 0 && m->clients[o->client].dying)
			sure = false;
		n++;
	}
	/* A Qp whose last command is the question for this list is there until that is answered. */
	if (r->say.type == T_QP && r->ended && p->n_items == n + 1)
		n++;
	sim_must(!sure || n == p->n_items, "%u objects of type %u are listed, there are %u", p->n_items, r->say.type, n);
}

static void check_ledger(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct model_usage usages[MODEL_ACCOUNTS], *u;
	uint32_t sessions = 0;

	sim_must(p->result == 73, "another result");
	for (int i = 0; i < MODEL_CLIENTS; i++)
		sessions += m->clients[i].there && !m->clients[i].admin_socket &&
			    (m->clients[r->client].role == ROLE_ADMIN || m->clients[i].account == m->clients[r->client].account);
	sim_must(sessions == p->sessions, "the ledger counts %u sessions, there are %u", p->sessions, sessions);
	model_usages(m, usages);
	for (unsigned i = 0; i < p->n_accounts; i++) {
		u = &usages[(p->accounts[i][4] - '0') % MODEL_ACCOUNTS];
		for (int slot = 0; slot < SLOT_COUNT; slot++) {
			if (slot == SLOT_CALLS || slot == SLOT_BUFFERED)
				continue;   /* this request is among them */
			sim_must(p->used[i][slot] >= u->low[slot] && p->used[i][slot] <= u->high[slot],
				 "the ledger says %llu in slot %d, it is %llu to %llu", (unsigned long long)p->used[i][slot], slot,
				 (unsigned long long)u->low[slot], (unsigned long long)u->high[slot]);
		}
	}
}

static void succeeded(struct model *m, struct m_request *r, const struct sim_reply *p)
{
	struct m_object *o = r->object;

	switch (r->say.call) {
	case CALL_HELLO:
		check_hello(m, r, p);
		break;
	case CALL_ADD_MEMORY:
	case CALL_CREATE_PD:
	case CALL_CREATE_MR:
	case CALL_CREATE_MW:
		check_made(m, r, p);
		break;
	case CALL_INITIALIZE_FAST_REGISTER:
		sim_must(p->result == 31 && p->object == o->id && p->serial == o->serial, "another MR is initialized");
		sim_must(p->local == o->reserved_local && p->remote == (o->remote_access ? o->reserved_remote : 0), "not the tokens that were reserved");
		r->result = o->id;
		break;
	case CALL_FAST_REGISTER:
		check_register(m, r, p);
		break;
	case CALL_BIND_MW:
		check_bind(r, p);
		break;
	case CALL_BUILD_MAPPING:
		model_check_mapping(m, r, p);
		break;
	case CALL_GET_PRIVILEGED_TOKEN:
		sim_must(p->result == 26 && p->token && p->token == o->key, "not the key that the device drew");
		break;
	case CALL_INVALIDATE:
		check_receipt(m, r, p, o);
		break;
	case CALL_REGISTER_MR:
		check_register(m, r, p);
		break;
	case CALL_DEREGISTER_MR:
		check_receipt(m, r, p, o);
		break;
	case CALL_GET_LOCAL_TOKEN:
		sim_must(p->result == 33 && p->token == (o->state == M_FREE ? o->reserved_local : o->local), "the local token");
		break;
	case CALL_GET_REMOTE_TOKEN:
		sim_must(p->result == 33 && p->token && p->token == (o->type == T_MR && o->state == M_FREE ? o->reserved_remote : o->remote),
			 "the remote token");
		break;
	case CALL_QUERY_TOKENS:
		check_tokens(m, r, p);
		break;
	case CALL_CREATE_TICKET:
	case CALL_CREATE_EXPORT:
		check_door(m, r, p);
		break;
	case CALL_CONNECT_QP:
	case CALL_QUERY_QP:
		check_qp(m, r, p);
		break;
	case CALL_QUERY_ADAPTER:
		sim_must(p->result == 15 && p->serial == o->serial && p->up == o->up, "another adapter");
		r->result = p->object;
		break;
	case CALL_QUERY_EXTENSION:
		sim_must(p->result == 16, "no extensions");
		break;
	case CALL_LIST:
	case CALL_WHO:
		check_list(m, r, p);
		break;
	case CALL_LEDGER:
		check_ledger(m, r, p);
		break;
	case CALL_REVOKE:
		if (o && (o->type == T_MR || o->type == T_MW) && !m->clients[o->client].dying)
			check_receipt(m, r, p, o);
		sim_must(p->result == 32, "no receipt");
		break;
	case CALL_DISCONNECT:
		/* The device may be gone, and was not asked. */
		if (o->state != M_DISCONNECTED)
			model_disconnected(m, o, false);
		break;
	case CALL_FLUSH:
		model_check_flushed(m, r, o);
		break;
	case CALL_CLOSE:
		if (o->type == T_QP)
			model_check_flushed(m, r, o);
		/* It is over: nothing of it is anywhere. */
		sim_must(!o->inflight && (!(o->type == T_MR || o->type == T_MW || o->type == T_TICKET || o->type == T_EXPORT) || !held(o)),
			 "an object is closed that the device holds");
		for (unsigned i = 0; o->type == T_PD && i < m->n_live; i++)
			sim_must(m->live[i]->parent != o, "a PD is closed under its child");
		break;
	default:
		break;
	}
}

/* What was expected to be did not come. */
static void refused(struct model *m, struct m_request *r, uint32_t status)
{
	struct m_object *o = r->object;

	if (!r->started || (r->now && !(r->allowed & BIT(S_SUCCESS))))
		return;
	if (m->saved_for == r && status == S_INSUFFICIENT_RESOURCES && !r->ended && !r->commands && m->oom) {
		model_restore(m);
		return;
	}
	switch (r->say.call) {
	case CALL_ADD_MEMORY:
	case CALL_CREATE_PD:
	case CALL_CREATE_MR:
	case CALL_CREATE_MW:
		unmake(m, o);
		break;
	case CALL_BUILD_MAPPING:
		/* Closed before it was there: what the device has of it goes next. */
		if (o->tag) {
			o->state = M_BUILT;
			break;
		}
		o->n_ranges = 0;
		unmake(m, o);
		break;
	case CALL_INITIALIZE_FAST_REGISTER:
	case CALL_FAST_REGISTER:
		model_fast_failed(o);
		break;
	case CALL_BIND_MW:
		model_bind_failed(o);
		break;
	case CALL_REGISTER_MR:
		if (o->state == M_REGISTERING) {
			o->state = M_CREATED;
			o->n_ranges = 0;
			o->length = 0;
			o->rights = 0;
			sim_must(!held(o), "a registration failed and left its tag");
		}
		break;
	case CALL_CREATE_TICKET:
	case CALL_CREATE_EXPORT:
		if (!o->serial)
			unmake(m, o);
		break;
	case CALL_CONNECT_QP:
		if (o && !o->serial)
			unmake(m, o);
		break;
	case CALL_DEREGISTER_MR:
	case CALL_INVALIDATE:
	case CALL_REVOKE:
		if (status == S_REVOKE_PENDING && o)
			o->promised = true;
		break;
	default:
		break;
	}
}

void model_reply(struct model *m, int client, const struct sim_reply *p)
{
	struct m_client *c = &m->clients[client];
	struct m_request *r = NULL;
	uint32_t allowed;

	for (unsigned i = 0; i < c->n_live && !r; i++)
		if (c->live[i]->say.id == p->id)
			r = c->live[i];
	sim_must(r, "an answer to request %u, which was answered or never made", p->id);
	sim_must(!c->dying, "an answer on a session that has ended");
	m->statuses[r->say.call][p->status]++;
	if (!r->started)
		allowed = model_unstarted(m, r);
	else if (r->now)
		allowed = r->allowed;
	else
		allowed = allow(m, r) | r->allowed;
	if (m->oom && (!r->now || (r->allowed & BIT(S_SUCCESS)) || !r->started))
		allowed |= BIT(S_INSUFFICIENT_RESOURCES);
	if (m->oom && r->now)
		allowed |= BIT(S_INSUFFICIENT_RESOURCES);
	sim_must(allowed & BIT(p->status), "request %u (call %u) is answered %u, and may be: %x", p->id, r->say.call, p->status, allowed);
	r->answered = true;
	r->ok = p->status == S_SUCCESS;
	r->waiting = false;
	unlist(c, r);
	if (model_is_post(r->say.call))
		model_check_completion(m, r, p);
	if (r->ok)
		succeeded(m, r, p);
	else
		refused(m, r, p->status);
	model_settle(m);
}
