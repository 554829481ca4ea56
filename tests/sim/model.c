/* SPDX-License-Identifier: MIT */
/*
 * The model's objects and what becomes of them. Everything that happens is told here; model_settle then follows the rules of NDK's object
 * lifetimes until nothing changes: what is closed ends when what stands on it is gone, what is revoked is dead when the device has let go.
 */
#include "tests/sim/model.h"

#include <string.h>

#include "tests/sim/trace.h"

#define BIT(n) (1u << (n))

void model_init(struct model *m, const struct model_terms *terms)
{
	m->terms = *terms;
	m->now = 0;
	m->oom = m->draining = m->armed = false;
	m->saved_for = NULL;
	memset(m->clients, 0, sizeof(m->clients));
	m->n_objects = m->n_live = m->n_requests = m->n_commands = m->n_adapters = m->n_released = 0;
	m->current = NULL;
	memset(m->buffered, 0, sizeof(m->buffered));
}

void model_now(struct model *m, uint64_t now)
{
	m->now = now;
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->unheard && now - o->since >= m->terms.revoke_timeout_ns && (o->state == M_REVOKING || o->killed))
			o->promised = true;
	}
}

void model_oom(struct model *m)
{
	m->oom = true;
}

/* ---- objects */

struct m_object *model_new(struct model *m, enum sim_type type, int client, struct m_object *parent)
{
	struct m_object *o = &m->objects[m->n_objects++];

	sim_must(m->n_objects < MODEL_OBJECTS, "the model is too small");
	memset(o, 0, sizeof(*o));
	o->type = type;
	o->client = client;
	o->account = client < 0 ? -1 : m->clients[client].account;
	o->parent = parent;
	o->adapter = -1;
	m->live[m->n_live++] = o;
	return o;
}

static void over(struct model *m, struct m_object *o)
{
	o->over = o->closing = true;
	for (unsigned i = 0; i < m->n_live; i++) {
		if (m->live[i] != o)
			continue;
		m->live[i] = m->live[--m->n_live];
		return;
	}
}

struct m_object *model_find(const struct model *m, int client, uint64_t id)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->id == id && id && !o->closing && (o->client == client || o->client < 0))
			return o;
	}
	return NULL;
}

struct m_object *model_serial(const struct model *m, uint64_t serial)
{
	for (unsigned i = 0; i < m->n_live && serial; i++)
		if (m->live[i]->serial == serial)
			return m->live[i];
	return NULL;
}

static struct m_object *stream_find(const struct model *m, int adapter, uint64_t stream)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type == T_QP && o->stream == stream && o->parent->parent->adapter == adapter)
			return o;
	}
	return NULL;
}

bool model_adapter_up(const struct m_object *pd)
{
	return pd->parent->up;
}

bool model_visible(const struct model *m, int client, const struct m_object *object)
{
	return object->client < 0 || m->clients[client].role == ROLE_ADMIN || m->clients[client].account == object->account;
}

static bool dying(const struct model *m, const struct m_object *o)
{
	return o->client >= 0 && m->clients[o->client].dying;
}

void model_owe(struct model *m, struct m_object *o, enum sim_event kind)
{
	struct m_client *c = &m->clients[o->client];

	o->may |= BIT(kind);
	if (c->dying)
		return;
	/* What is told while memory is short may become a RESYNC. */
	if (!m->oom && !c->resynced)
		o->owed |= BIT(kind);
}

uint64_t model_tag_cost(const struct model *m, uint64_t bytes)
{
	return bytes * m->terms.tag_percent / 100;
}

uint64_t model_attach_cost(const struct model *m, uint64_t bytes)
{
	return bytes * m->terms.attach_percent / 100;
}

/* ---- revoking */

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
		if (m->live[i]->mr == mr && m->live[i]->state != M_DEAD)
			model_kill_door(m, m->live[i], true);
}

static void grant_over(struct model *m, struct m_object *qp)
{
	struct m_object *door = qp->by_door;

	if (!door)
		return;
	qp->by_door = NULL;
	door->streams--;
	if (qp->grant) {
		door->grants += door->killed;
		over(m, qp->grant);
		qp->grant = NULL;
	}
}

static void qp_disconnected(struct model *m, struct m_object *qp, bool tell)
{
	qp->state = M_DISCONNECTED;
	grant_over(m, qp);
	if (tell)
		model_owe(m, qp, EV_DISCONNECTED);
}

/* ---- what follows */

/* The device let go of a door: nobody who came by it is there any more, whether it said so or not. */
static void door_shut(struct model *m, struct m_object *o)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *qp = m->live[i];

		if (qp->type != T_QP || qp->by_door != o)
			continue;
		if (qp->state == M_CONNECTED) {
			qp_disconnected(m, qp, true);
		} else {
			qp->gone = true;
			grant_over(m, qp);
		}
		i = UINT32_MAX;   /* from the start: the list has changed */
	}
}

/* Of a device that is down nothing is left; but who waits to ask it again finds out when it is lost. */
static bool holds(const struct m_object *o, const struct m_object *pd)
{
	return (o->tag || o->door) && (model_adapter_up(pd) || (o->stuck && !pd->parent->lost));
}

static bool settle_door(struct model *m, struct m_object *o)
{
	if (o->killed && o->state != M_DEAD && !o->inflight && !holds(o, o->parent)) {
		o->state = M_DEAD;
		if (o->door)
			door_shut(m, o);
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
		over(m, o);
		return true;
	}
	return false;
}

static bool settle_mr(struct model *m, struct m_object *o)
{
	if (o->state == M_REVOKING && !o->inflight && !holds(o, o->parent)) {
		for (unsigned i = 0; i < m->n_live; i++)
			if (m->live[i]->mr == o)
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
		over(m, o);
		return true;
	}
	return false;
}

static bool settle_qp(struct model *m, struct m_object *o)
{
	if (o->state == M_CONNECTED && o->closing && !model_adapter_up(o->parent) && !o->stuck && !o->inflight) {
		qp_disconnected(m, o, false);
		return true;
	}
	if (o->state == M_DISCONNECTED && (o->closing || o->inbound) && !o->inflight) {
		grant_over(m, o);
		over(m, o);
		return true;
	}
	return false;
}

static unsigned memory_users(const struct model *m, const struct m_object *memory)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->type == T_MR)
			for (unsigned j = 0; j < m->live[i]->n_ranges; j++)
				n += m->live[i]->ranges[j].memory == memory;
	return n;
}

static bool settle_memory(struct model *m, struct m_object *o)
{
	bool attached = false;

	if (!o->closing || memory_users(m, o))
		return false;
	for (unsigned i = 0; i < m->n_adapters; i++) {
		if (o->attached[i] == M_ATTACHED && !m->adapters[i]->up)
			o->attached[i] = M_NOT_ATTACHED;
		attached |= o->attached[i] != M_NOT_ATTACHED;
	}
	if (attached)
		return false;
	over(m, o);
	return true;
}

static bool settle_pd(struct model *m, struct m_object *o)
{
	if (!o->closing)
		return false;
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->parent == o)
			return false;
	over(m, o);
	return true;
}

void model_settle(struct model *m)
{
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];
		bool changed;

		switch (o->type) {
		case T_TICKET:
		case T_EXPORT:
			changed = settle_door(m, o);
			break;
		case T_MR:
			changed = settle_mr(m, o);
			break;
		case T_QP:
			changed = settle_qp(m, o);
			break;
		case T_MEMORY:
			changed = settle_memory(m, o);
			break;
		case T_PD:
			changed = settle_pd(m, o);
			break;
		default:
			changed = false;
			break;
		}
		if (changed)
			i = UINT32_MAX;   /* from the start */
	}
}

/* ---- sessions */

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
		if (c->live[i]->started && c->live[i]->object && (c->live[i]->say.call == CALL_REVOKE || c->live[i]->say.call == CALL_DEREGISTER_MR))
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
		if (o->type == T_MR || o->type == T_EXPORT || o->type == T_TICKET)
			sim_must(!holds(o, o->parent), "a session is gone, and the device has its object %llx", (unsigned long long)o->serial);
		for (unsigned j = 0; o->type == T_MEMORY && j < m->n_adapters; j++)
			sim_must(o->attached[j] == M_NOT_ATTACHED || (!m->adapters[j]->up && o->attached[j] == M_ATTACHED),
				 "a session is gone, and the device has its memory %llx", (unsigned long long)o->serial);
	}
	for (unsigned i = 0; i < m->n_live;) {
		if (m->live[i]->client == client)
			over(m, m->live[i]);
		else
			i++;
	}
	c->there = false;
	c->n_live = 0;
}

/* ---- adapters */

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

static bool on(const struct m_object *o, int adapter)
{
	return o->parent && o->parent->type == T_PD && o->parent->parent->adapter == adapter;
}

void model_adapter_lost(struct model *m, int adapter)
{
	m->adapters[adapter]->up = false;
	m->adapters[adapter]->lost = true;
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type == T_QP && on(o, adapter) && o->state == M_CONNECTED)
			qp_disconnected(m, o, true);
		if ((o->type == T_EXPORT || o->type == T_TICKET) && on(o, adapter) && (o->state == M_OPEN || o->state == M_EXPIRED))
			model_kill_door(m, o, true);
		if (o->type == T_MEMORY && (o->attached[adapter] == M_ATTACHED || o->attached[adapter] == M_DETACH_FAILED))
			o->attached[adapter] = M_NOT_ATTACHED;
	}
	for (unsigned i = 0; i < m->n_live; i++) {
		struct m_object *o = m->live[i];

		if (o->type == T_MR && on(o, adapter) && (o->state == M_REGISTERED || o->state == M_ERROR))
			model_revoke_mr(m, o, o->state == M_REGISTERED);
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
		if (dying(m, m->live[i]))
			continue;
		sim_must(m->live[i]->parent != o, "an adapter is gone under a PD");
		if (m->live[i]->type == T_MEMORY)
			sim_must(m->live[i]->attached[adapter] == M_NOT_ATTACHED, "an adapter is gone under a memory");
	}
	over(m, o);
}

/* ---- commands */

static void token_new(struct model *m, const struct m_object *o, uint32_t token)
{
	if (!token)
		return;
	for (unsigned i = 0; i < m->n_live; i++) {
		const struct m_object *other = m->live[i];

		if (other != o && other->tag && (other->local == token || other->remote == token))
			sim_must(!on(other, o->parent->parent->adapter), "token %x of %llx is a living one of %llx", token,
				 (unsigned long long)o->serial, (unsigned long long)other->serial);
	}
	for (unsigned i = 0; i < m->n_released; i++)
		sim_must(m->released[i].token != token || m->released[i].adapter != o->parent->parent->adapter || m->now - m->released[i].at > UINT64_C(10000000000),
			 "token %x is drawn again in its quarantine", token);
}

static void token_release(struct model *m, int adapter, uint32_t token)
{
	if (!token)
		return;
	m->released[m->n_released % 4096].token = token;
	m->released[m->n_released % 4096].adapter = adapter;
	m->released[m->n_released % 4096].at = m->now;
	if (m->n_released < 4095)
		m->n_released++;
}

static void check_tag(struct model *m, const struct m_object *o, int adapter, const struct sim_op_args *args)
{
	const struct m_object *mr = o->type == T_EXPORT ? o->mr : o;
	uint64_t skip = o->type == T_EXPORT ? o->iova - mr->iova : 0, left = o->length;
	unsigned n = 0;

	sim_must(!o->tag, "a tag is added twice");
	sim_must(args->pd == o->parent->serial, "a tag in another PD");
	sim_must(args->door == (o->type == T_EXPORT ? o->serial : 0), "a tag behind another door");
	sim_must(args->rights == o->rights && args->iova == o->iova && args->length == o->length, "a tag with other rights or another place");
	sim_must(o->type == T_EXPORT || (o->state == M_REGISTERING && args->generation > o->generation), "a tag that nobody asked for, or an old one");
	sim_must(o->type == T_MR || o->state == M_OPENING, "a tag for a door that is not opening");
	for (unsigned i = 0; i < mr->n_ranges && left; i++) {
		uint64_t part = mr->ranges[i].length;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part = part - skip < left ? part - skip : left;
		sim_must(n < args->n_ranges && args->ranges[n].memory == mr->ranges[i].memory->serial &&
			 args->ranges[n].offset == mr->ranges[i].offset + skip && args->ranges[n].length == part,
			 "a tag over other memory than asked for");
		sim_must(mr->ranges[i].memory->attached[adapter] == M_ATTACHED, "a tag over memory that the device does not have");
		left -= part;
		skip = 0;
		n++;
	}
	sim_must(n == args->n_ranges && !left, "a tag over other memory than asked for");
}

static void check_door(struct model *m, struct m_object *o, const struct sim_op_args *args)
{
	sim_must(o->state == M_OPENING && !o->door, "a door that nobody asked for");
	sim_must(args->pd == o->parent->serial && args->door == (o->type == T_EXPORT ? o->serial : 0), "a door to something else");
	sim_must(args->rights == o->rights && args->iova == o->iova && args->length == o->length, "a door gives something else");
	sim_must(args->max_streams == o->max_streams, "a door lets in %u, not %u", args->max_streams, o->max_streams);
	if (o->type == T_EXPORT)
		sim_must(args->token == o->remote && o->tag, "a door gives a token that is not its own");
	memcpy(o->hash, args->hash, sizeof(o->hash));
}

/* The Memory that came with a registration is seen here for the first time: its descriptor says which it is. */
static struct m_object *memory_of_attach(struct model *m, uint64_t serial, uint32_t fd)
{
	struct m_object *o = model_serial(m, serial);

	for (unsigned i = 0; i < m->n_live && !o; i++)
		if (m->live[i]->type == T_MEMORY && !m->live[i]->serial && m->live[i]->fd == fd)
			o = m->live[i];
	if (o)
		o->serial = serial;
	return o;
}

static struct m_object *object_of(struct model *m, enum sim_op op, int adapter, uint64_t serial, const struct sim_op_args *args)
{
	struct m_request *r = m->current;

	switch (op) {
	case OP_ATTACH:
		return memory_of_attach(m, serial, args->fd);
	case OP_POST:
	case OP_FLUSH:
	case OP_DISCONNECT:
	case OP_QUERY:
		return stream_find(m, adapter, serial);
	case OP_STATS:
		return NULL;
	default:
		break;
	}
	/* What a request makes has no serial yet when the device first hears of it. */
	if (!model_serial(m, serial) && r && r->object && !r->object->serial) {
		r->object->serial = serial;
		r->object->stream = op == OP_CONNECT ? serial : 0;
	}
	return model_serial(m, serial);
}

static void begin(struct model *m, struct m_command *k, const struct sim_op_args *args)
{
	struct m_object *o = k->object;

	switch (k->op) {
	case OP_ATTACH:
		sim_must(o->fd == args->fd, "memory is attached by the descriptor of another");
		sim_must(o->attached[k->adapter] == M_NOT_ATTACHED, "memory is attached twice");
		o->attached[k->adapter] = M_ATTACHING;
		break;
	case OP_DETACH:
		sim_must(o->attached[k->adapter] == M_ATTACHED || o->attached[k->adapter] == M_DETACH_FAILED, "memory is detached that is not there");
		sim_must(!memory_users(m, o) || dying(m, o), "memory is detached under a region");
		o->attached[k->adapter] = M_DETACHING;
		break;
	case OP_TAG_ADD:
		check_tag(m, o, k->adapter, args);
		o->generation = args->generation;
		o->tag = true;   /* from now on somebody may use it */
		break;
	case OP_TAG_DROP:
		sim_must(o->type == T_EXPORT || o->state == M_REVOKING || dying(m, o), "a tag is dropped that nobody revoked");
		if (o->type == T_EXPORT)
			sim_must(o->killed || dying(m, o), "an export's tag is dropped, and nobody revoked it");
		break;
	case OP_DOOR_ADD:
		check_door(m, o, args);
		o->door = true;
		break;
	case OP_DOOR_DROP:
		sim_must(o->killed || dying(m, o), "a door is dropped that nobody revoked");
		break;
	case OP_DISCONNECT:
		if (o->state == M_CONNECTING) {
			k->abort = true;
			o->aborts++;
		} else {
			o->state = M_DISCONNECTING;
		}
		break;
	case OP_POST:
		k->buffered = args->bytes;
		m->buffered[o->account] += k->buffered;
		break;
	default:
		break;
	}
}

void model_command(struct model *m, int adapter, unsigned number, enum sim_op op, uint64_t serial, const struct sim_op_args *args)
{
	struct m_command *k = &m->commands[number];

	sim_must(number < MODEL_COMMANDS, "too many commands for the model");
	memset(k, 0, sizeof(*k));
	k->op = op;
	k->live = true;
	k->adapter = adapter;
	k->request = m->current;
	k->object = object_of(m, op, adapter, serial, args);
	if (number >= m->n_commands)
		m->n_commands = number + 1;
	sim_must(op == OP_STATS || k->object, "command %u on %llx, which is nothing that a client has", op, (unsigned long long)serial);
	k->account = k->object ? k->object->account : -1;
	sim_must(!m->adapters[adapter]->lost, "a command to a device that is gone");
	if (k->object) {
		begin(m, k, args);
		k->object->inflight++;
	}
	if (k->request)
		k->request->commands++;
}

/* A lost device holds nothing: what was to be taken away from it is. */
static bool gone(uint32_t status)
{
	return status == S_SUCCESS || status == S_DEVICE_REMOVED;
}

static void end_door(struct model *m, struct m_object *o, bool ok)
{
	if (!ok || o->killed || !model_adapter_up(o->parent)) {
		o->closing = true;
		if (!o->killed)
			o->since = m->now;
		o->killed = true;
		o->state = M_CLOSING;
	}
}

static void end_connect(struct model *m, struct m_object *o, bool ok)
{
	if (!ok || !model_adapter_up(o->parent)) {
		o->state = M_DISCONNECTED;
		o->closing = true;
		return;
	}
	o->state = o->aborts ? M_DISCONNECTING : M_CONNECTED;
	if (o->gone && o->state == M_CONNECTED)
		qp_disconnected(m, o, true);
}

static void end_disconnect(struct model *m, struct m_command *k, uint32_t status)
{
	struct m_object *o = k->object;

	if (k->abort) {
		o->aborts--;
		if (o->state != M_DISCONNECTING)
			return;
	}
	o->stuck = !gone(status) && !o->gone;
	if (o->stuck)
		o->state = M_CONNECTED;
	else
		qp_disconnected(m, o, false);
}

static void end(struct model *m, struct m_command *k, uint32_t status, uint32_t local, uint32_t remote)
{
	struct m_object *o = k->object;
	bool ok = status == S_SUCCESS;

	switch (k->op) {
	case OP_ATTACH:
		o->attached[k->adapter] = ok ? M_ATTACHED : M_NOT_ATTACHED;
		break;
	case OP_DETACH:
		o->attached[k->adapter] = gone(status) ? M_NOT_ATTACHED : M_DETACH_FAILED;
		break;
	case OP_TAG_ADD:
		o->tag = ok;
		if (ok) {
			token_new(m, o, local);
			token_new(m, o, remote);
			sim_must(!local || local != remote, "the two tokens are one");
			o->local = local;
			o->remote = remote;
		}
		if (o->type == T_EXPORT)
			end_door(m, o, ok);
		else if (ok && o->closing)
			model_revoke_mr(m, o, false);
		break;
	case OP_TAG_DROP:
		o->stuck = !gone(status);
		if (gone(status)) {
			o->tag = false;
		} else if (o->type == T_MR && !o->closing && !o->promised) {
			o->state = M_ERROR;
		}
		break;
	case OP_DOOR_ADD:
		o->door = ok;
		end_door(m, o, ok);
		if (!o->killed) {
			o->state = M_OPEN;
			if (o->expired) {
				o->state = M_EXPIRED;
				model_owe(m, o, EV_EXPIRED);
				if (o->type == T_EXPORT)
					model_kill_door(m, o, false);
			}
		}
		break;
	case OP_DOOR_DROP:
		o->stuck = !gone(status);
		if (gone(status)) {
			o->door = false;
			door_shut(m, o);
		}
		break;
	case OP_CONNECT:
		end_connect(m, o, ok);
		break;
	case OP_POST:
		m->buffered[o->account] -= k->buffered;
		break;
	case OP_DISCONNECT:
		end_disconnect(m, k, status);
		break;
	default:
		break;
	}
}

void model_command_end(struct model *m, unsigned number, uint32_t status, uint32_t local, uint32_t remote)
{
	struct m_command *k = &m->commands[number];

	sim_must(k->live, "a command ends twice");
	k->live = false;
	m->current = k->request;
	if (k->request) {
		k->request->commands--;
		k->request->ended = BIT(status);
	}
	if (!k->object)
		return;
	k->object->inflight--;
	if (k->op == OP_TAG_DROP && gone(status) && k->object->tag) {
		/* The tokens of a tag that is dropped rest, whatever the model thinks they are by now. */
		token_release(m, k->adapter, local);
		token_release(m, k->adapter, remote);
	}
	end(m, k, status, local, remote);
	model_settle(m);
}

void model_command_over(struct model *m)
{
	m->current = NULL;
}

/* ---- what the device tells */

void model_stream_opened(struct model *m, int adapter, uint64_t stream, uint64_t serial, uint64_t qp, uint64_t id, uint64_t grant)
{
	struct m_object *door = model_serial(m, serial), *o;

	if (!door || (door->type != T_EXPORT && door->type != T_TICKET) || !on(door, adapter) || door->state == M_DEAD) {
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
	struct m_object *o = stream_find(m, adapter, stream);

	if (!o || o->state == M_DISCONNECTED)
		return;
	if (o->state == M_CONNECTED)
		qp_disconnected(m, o, true);
	else
		o->gone = true;
	model_settle(m);
}

void model_door_expired(struct model *m, int adapter, uint64_t serial)
{
	struct m_object *door = model_serial(m, serial);

	if (!door || (door->type != T_EXPORT && door->type != T_TICKET) || !on(door, adapter))
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

/* ---- what it comes to */

static void use(struct model_usage *u, enum sim_slot slot, uint64_t n, bool sure)
{
	u->low[slot] += sure ? n : 0;
	u->high[slot] += n;
}

static void use_memory(const struct model *m, const struct m_object *o, struct model_usage *u)
{
	bool sure = !dying(m, o);

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
			for (unsigned j = 0; m->live[i]->type == T_MR && m->live[i]->state == M_REGISTERING && j < m->live[i]->n_ranges; j++)
				wanted |= m->live[i]->ranges[j].memory == o && on(m->live[i], (int)a);
		if (wanted)
			use(u, SLOT_PINNED, model_attach_cost(m, o->size), false);
	}
}

static void use_object(const struct model *m, const struct m_object *o, struct model_usage *u)
{
	bool sure = !dying(m, o);

	switch (o->type) {
	case T_MEMORY:
		use_memory(m, o, u);
		break;
	case T_PD:
		use(u, SLOT_PDS, 1, sure);
		break;
	case T_MR:
		use(u, SLOT_MRS, 1, sure);
		if (o->state != M_CREATED)
			use(u, SLOT_PINNED, model_tag_cost(m, o->length), sure || holds(o, o->parent));
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
			use(u, SLOT_PINNED, model_tag_cost(m, o->length), sure || holds(o, o->parent));
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

		look = r->say.call == CALL_LIST || r->say.call == CALL_WHO || r->say.call == CALL_REVOKE;
		if ((r->is_call || waiting) && !(r->started && r->say.call == CALL_CLOSE))
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
	for (unsigned i = 0; i < MODEL_ACCOUNTS; i++)
		use(&usages[i], SLOT_BUFFERED, m->buffered[i], true);
}

int model_quota(const struct model *m, int account, enum sim_slot slot, uint64_t n)
{
	struct model_usage usages[MODEL_ACCOUNTS];
	uint64_t max = m->terms.max[slot];

	/* Most accounts may have more than anybody could want here. */
	if (max >= MODEL_PLENTY)
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
		low[m->live[i]->type] += !dying(m, m->live[i]);
		high[m->live[i]->type]++;
	}
}
