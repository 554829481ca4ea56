/* SPDX-License-Identifier: MIT */
/*
 * The model's requests, from the frame that brings them to their start: with which statuses each must be refused, given what the session
 * holds. Where several rules are broken any of their statuses will do: nothing promises an order.
 */
#include <stddef.h>
#include <string.h>

#include "tests/sim/model-private.h"

/* What a call names, in the order of its fields; `any` of T_ANY names whatever there is. */
struct takes {
	enum sim_type type;
	enum { NO, MUST, MAY } need;
};
static const struct {
	struct takes refs[3];
	bool call;       /* its answer may take time */
	bool deferred;   /* and while it does, it is not counted as in flight */
	enum { NO_TURN, DEVICE, CONNECT } turn;   /* what it may have to wait for */
	bool gateway;    /* also for the gateway's socket */
	uint8_t min_fds, max_fds;
	bool later;      /* named by the protocol, not there yet */
	bool bulk;
} calls[CALL_COUNT] = {
	[CALL_HELLO] = { .gateway = true },
	[CALL_RESUME] = { .gateway = true, .later = true },
	[CALL_QUERY_ADAPTER] = { { { T_ADAPTER, MUST } }, .gateway = true },
	[CALL_QUERY_EXTENSION] = { { { T_ANY, MUST } }, .gateway = true },
	[CALL_ADD_MEMORY] = { .min_fds = 1, .max_fds = 1 },
	[CALL_CREATE_PD] = { { { T_ADAPTER, MAY } } },
	[CALL_GET_PRIVILEGED_TOKEN] = { { { T_PD, MUST } }, .call = true, .turn = DEVICE },
	[CALL_CREATE_MR] = { { { T_PD, MUST } } },
	[CALL_REGISTER_MR] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE, .max_fds = 1 },
	[CALL_DEREGISTER_MR] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_GET_LOCAL_TOKEN] = { { { T_MR, MUST } } },
	[CALL_GET_REMOTE_TOKEN] = { { { T_ANY, MUST } } },
	[CALL_QUERY_TOKENS] = { .call = false },
	[CALL_INITIALIZE_FAST_REGISTER] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_FAST_REGISTER] = { { { T_MR, MUST }, { T_QP, MAY }, { T_MAPPING, MAY } }, .call = true },
	[CALL_INVALIDATE] = { { { T_ANY, MUST }, { T_QP, MAY } }, .call = true },
	[CALL_CREATE_MW] = { { { T_PD, MUST } } },
	[CALL_BIND_MW] = { { { T_MW, MUST }, { T_MR, MUST }, { T_QP, MUST } }, .call = true },
	[CALL_BUILD_MAPPING] = { .call = true, .turn = DEVICE },
	[CALL_CONNECT_QP] = { { { T_PD, MUST } }, .call = true, .turn = CONNECT },
	[CALL_READ] = { { { T_QP, MUST } }, .call = true },
	[CALL_WRITE] = { { { T_QP, MUST } }, .call = true },
	[CALL_TRANSFER_LIST] = { { { T_QP, MUST } }, .call = true },
	[CALL_SEND] = { { { T_QP, MUST } }, .call = true },
	[CALL_RECEIVE] = { { { T_QP, MUST } }, .call = true, .deferred = true },
	[CALL_FLUSH] = { { { T_QP, MUST } }, .call = true },
	[CALL_DISCONNECT] = { { { T_QP, MUST } }, .call = true },
	[CALL_QUERY_QP] = { { { T_QP, MAY } }, .call = true },
	[CALL_CREATE_TICKET] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_CREATE_EXPORT] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_CLOSE] = { { { T_ANY, MUST } }, .call = true, .deferred = true, .turn = DEVICE, .gateway = true },
	[CALL_LIST] = { .call = true, .gateway = true, .bulk = true },
	[CALL_WHO] = { .call = true, .gateway = true, .bulk = true },
	[CALL_REVOKE] = { .call = true },
	[CALL_LEDGER] = { .call = true, .bulk = true },
};

bool model_is_call(enum sim_call call)
{
	return calls[call].call;
}

bool model_counts_as_call(const struct m_request *r)
{
	return (r->is_call || r->waiting) && !(r->started && calls[r->say.call].deferred);
}

/* The request of the same frame that this one names. */
static struct m_request *earlier(const struct model *m, const struct m_request *r, uint64_t id)
{
	const struct m_client *c = &m->clients[r->client];

	for (unsigned i = 0; i < r->n_results; i++)
		if (r->results[i]->say.id == id)
			return r->results[i];
	for (unsigned i = 0; i < c->n_frame; i++)
		if (c->frame[i]->say.id == id && c->frame[i] != r)
			return c->frame[i];
	return NULL;
}

struct m_object *model_resolve(struct model *m, const struct m_request *r, const struct sim_ref *ref)
{
	const struct m_request *by;

	if (ref->kind == REF_RESULT) {
		by = earlier(m, r, ref->v);
		return by && by->answered ? model_find(m, r->client, by->result) : NULL;
	}
	return ref->kind == REF_ID ? model_find(m, r->client, ref->v) : NULL;
}

/* ---- before its method is called */

static void check_ref(struct model *m, struct m_request *r, const struct sim_ref *ref, struct takes takes, uint32_t *refused)
{
	const struct m_object *o;

	if (takes.need == NO)
		return;
	if (ref->kind == REF_ABSENT) {
		if (takes.need == MUST)
			*refused |= BIT(S_INVALID_HANDLE);
		return;
	}
	o = model_resolve(m, r, ref);
	if (!o || (takes.type != T_ANY && o->type != takes.type))
		*refused |= BIT(S_INVALID_HANDLE);
}

static void check_dependency(struct model *m, struct m_request *r, const struct sim_ref *ref, uint32_t *refused, bool *waits)
{
	const struct m_request *by;

	if (ref->kind != REF_RESULT)
		return;
	by = earlier(m, r, ref->v);
	if (by && by->answered && !by->ok)
		*refused |= BIT(S_DEPENDENCY_FAILED);
	else if (!by || !by->answered)
		*waits = true;
}

/* Is everything there that it names? Statuses with which it is refused before its method sees it. */
uint32_t model_admission(struct model *m, struct m_request *r, bool *waits)
{
	const struct m_client *c = &m->clients[r->client];
	enum sim_call call = r->say.call;
	uint32_t refused = 0;

	*waits = false;
	if (!r->waiting) {
		if ((call == CALL_HELLO) == c->ready)
			refused |= BIT(S_INVALID_DEVICE_STATE);
		if (c->role == ROLE_GATEWAY && !calls[call].gateway)
			refused |= BIT(S_ACCESS_DENIED);
		if (r->say.fds < calls[call].min_fds || r->say.fds > calls[call].max_fds || r->say.n_ranges > 16)
			refused |= BIT(S_INVALID_PARAMETER);
	}
	for (unsigned i = 0; i < 3; i++)
		check_dependency(m, r, &r->say.ref[i], &refused, waits);
	for (unsigned i = 0; i < r->say.n_ranges; i++)
		check_dependency(m, r, &r->say.ranges[i].memory, &refused, waits);
	if (*waits || (refused & BIT(S_DEPENDENCY_FAILED)))
		return refused;
	for (unsigned i = 0; i < 3; i++)
		check_ref(m, r, &r->say.ref[i], calls[call].refs[i], &refused);
	for (unsigned i = 0; i < r->say.n_ranges; i++)
		check_ref(m, r, &r->say.ranges[i].memory, (struct takes){ T_MEMORY, MAY }, &refused);
	return refused;
}

/* May it wait although nothing that it names is missing? Not when its account has nothing at the device that it could wait for. */
bool model_may_queue(const struct model *m, const struct m_request *r)
{
	int account = m->clients[r->client].account;

	if (!calls[r->say.call].turn || !m->terms.narrow)
		return false;
	for (int i = 0; i < MODEL_CLIENTS; i++) {
		const struct m_client *c = &m->clients[i];

		for (unsigned j = 0; c->there && c->account == account && j < c->n_live; j++)
			if ((c->live[j]->started || c->dying) && calls[c->live[j]->say.call].turn == calls[r->say.call].turn)
				return true;
	}
	return false;
}

/* What may besides keep it from starting, or not. */
static uint32_t admission_may(const struct model *m, const struct m_request *r, bool waits)
{
	const struct m_client *c = &m->clients[r->client];
	uint32_t may = 0;
	unsigned n = 0;

	if (m->oom || (calls[r->say.call].bulk && c->full))
		may |= BIT(S_INSUFFICIENT_RESOURCES);
	if (!calls[r->say.call].call && !waits)
		return may;
	waits |= calls[r->say.call].turn;
	for (unsigned i = 0; i < c->n_live; i++)
		n += model_counts_as_call(c->live[i]);
	if (n + 1 > m->terms.max_calls || (!c->admin_socket && model_quota(m, c->account, SLOT_CALLS, 1)))
		may |= BIT(S_INSUFFICIENT_RESOURCES);
	if (waits && !c->admin_socket &&
	    (model_quota(m, c->account, SLOT_BUFFERED, 65536) || (r->say.fds && model_quota(m, c->account, SLOT_FDS, 1))))
		may |= BIT(S_INSUFFICIENT_RESOURCES);
	return may;
}

/* ---- frames */

static void follow(struct model *m, struct m_request *r, const struct sim_ref *ref)
{
	struct m_request *by = ref->kind == REF_RESULT ? earlier(m, r, ref->v) : NULL;

	if (by)
		r->results[r->n_results++] = by;
}

void model_frame(struct model *m, int client, const struct sim_request *requests, unsigned n, bool bad)
{
	struct m_client *c = &m->clients[client];

	c->n_frame = 0;
	if (bad) {
		c->fatal = true;
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		struct m_request *r = &m->requests[m->n_requests++];

		sim_must(m->n_requests < MODEL_REQUESTS && c->n_live < 1024, "too many requests for the model");
		r->say = requests[i];
		memset((char *)r + offsetof(struct m_request, client), 0, sizeof(*r) - offsetof(struct m_request, client));
		r->client = client;
		for (unsigned j = 0; j < 3; j++)
			follow(m, r, &r->say.ref[j]);
		for (unsigned j = 0; j < r->say.n_ranges; j++)
			follow(m, r, &r->say.ranges[j].memory);
		c->frame[c->n_frame++] = r;
		c->live[c->n_live++] = r;
	}
}

static struct m_request *live(const struct model *m, int client, uint32_t id)
{
	const struct m_client *c = &m->clients[client];

	for (unsigned i = 0; i < c->n_live; i++)
		if (c->live[i]->say.id == id)
			return c->live[i];
	return NULL;
}

/* Those of the frame in front of this one have started, been refused, or wait. */
static void frame_order(const struct model *m, const struct m_request *r)
{
	const struct m_client *c = &m->clients[r->client];
	bool behind = false;

	for (unsigned i = 0; i < c->n_frame; i++) {
		behind |= c->frame[i] == r;
		if (behind && c->frame[i] != r)
			sim_must(c->frame[i]->waiting || (!c->frame[i]->started && !c->frame[i]->answered),
				 "request %u starts before %u", c->frame[i]->say.id, r->say.id);
	}
}

/* Those of the frame that were passed over wait for others. */
static void passed(struct model *m, int client, const struct m_request *until)
{
	struct m_client *c = &m->clients[client];

	for (unsigned i = 0; i < c->n_frame && c->frame[i] != until; i++) {
		struct m_request *r = c->frame[i];
		bool waits;

		if (r->started || r->answered || r->waiting)
			continue;
		(void)model_admission(m, r, &waits);
		/* Nor does it overtake others of its session that are about to go on; and what it waited for may have been answered since. */
		sim_must(waits || r->n_results || calls[r->say.call].turn, "request %u (call %u) was passed over", r->say.id, r->say.call);
		r->waiting = true;
	}
}

/* Memory may be refused to it before it has done anything: then all is as it was. */
static void save(struct model *m, struct m_request *r)
{
	m->saved_for = NULL;
	if (m->n_objects > 1024)
		return;
	memcpy(m->saved, m->objects, m->n_objects * sizeof(*m->objects));
	memcpy(m->saved_live, m->live, m->n_live * sizeof(*m->live));
	m->n_saved = m->n_objects;
	m->n_saved_live = m->n_live;
	m->saved_for = r;
}

void model_restore(struct model *m)
{
	memcpy(m->objects, m->saved, m->n_saved * sizeof(*m->objects));
	memcpy(m->live, m->saved_live, m->n_saved_live * sizeof(*m->live));
	m->n_live = m->n_saved_live;
}

static bool is_revocation(enum sim_call call)
{
	return call == CALL_CLOSE || call == CALL_DEREGISTER_MR || call == CALL_REVOKE || call == CALL_INVALIDATE;
}

void model_start(struct model *m, int client, uint32_t id)
{
	struct m_client *c = &m->clients[client];
	struct m_request *r = live(m, client, id);
	uint32_t refused, maybe = 0;
	bool waits;

	sim_must(r && !r->started, "request %u is started, which is not there or started already", id);
	sim_must(!c->dying && !c->fatal, "a request of a session that has ended is started");
	if (!r->waiting) {
		frame_order(m, r);
		passed(m, client, r);
	}
	refused = model_admission(m, r, &waits);
	sim_must(!refused && !waits, "request %u (call %u) is started and should not: %x", id, r->say.call, refused);
	r->waited = r->waiting;
	r->waiting = false;
	r->started = true;
	r->is_call = calls[r->say.call].call;
	r->at = m->now;
	r->order = ++m->n_started;
	m->current = r;
	if (m->armed && is_revocation(r->say.call))
		save(m, r);
	if (calls[r->say.call].later)
		refused = BIT(S_NOT_SUPPORTED);
	else
		refused = model_begin(m, r, &maybe);
	r->now = refused || !r->is_call;
	r->allowed = refused | maybe | (refused || r->is_call ? 0 : BIT(S_SUCCESS));
	model_settle(m);
}

void model_started(struct model *m)
{
	m->current = NULL;
}

void model_named(struct model *m, int client, uint32_t request, uint64_t serial, uint64_t id)
{
	struct m_request *r = live(m, client, request);

	if (!r || !r->object)
		return;
	sim_must(!r->object->serial || r->object->serial == serial, "the device was told another serial than the object has");
	r->object->serial = serial;
	r->object->id = id;
	if (r->object->type == T_QP)
		r->object->stream = serial;
}

/* An answer before its method was called: there must be a reason. */
uint32_t model_unstarted(struct model *m, struct m_request *r)
{
	uint32_t refused;
	bool waits;

	if (!r->waiting)
		passed(m, r->client, r);
	refused = model_admission(m, r, &waits);
	return refused | admission_may(m, r, waits);
}
