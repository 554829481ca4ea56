/* SPDX-License-Identifier: MIT */
/*
 * The model's requests, from the frame that brings them to their start: with which statuses each must be refused, given what the session
 * holds. Where several rules are broken any of their statuses will do: nothing promises an order.
 */
#include <stddef.h>
#include <string.h>

#include "tests/sim/model.h"
#include "tests/sim/trace.h"

#define BIT(n) (1u << (n))

enum { RIGHT_WRITE = 1, RIGHT_REMOTE_READ = 2, RIGHT_REMOTE_WRITE = 5, RIGHT_SINK = 8 };

static bool remote(uint32_t rights)
{
	return (rights & RIGHT_REMOTE_READ) || (rights & RIGHT_REMOTE_WRITE) == RIGHT_REMOTE_WRITE;
}

/* What a call names, in the order of its fields; `any` of T_ANY names whatever there is. */
struct takes {
	enum sim_type type;
	enum { NO, MUST, MAY, UNREAD } need;
};
static const struct {
	struct takes refs[3];
	bool call;       /* its answer may take time */
	enum { NO_TURN, DEVICE, CONNECT } turn;   /* what it may have to wait for */
	bool gateway;    /* also for the gateway's socket */
	uint8_t min_fds, max_fds;
	bool later;      /* named by the protocol, not there yet */
	bool bulk;
} calls[CALL_COUNT] = {
	[CALL_HELLO] = { .gateway = true },
	[CALL_RESUME] = { .gateway = true, .later = true },
	[CALL_QUERY_ADAPTER] = { { { T_ADAPTER, MUST } }, .gateway = true },
	[CALL_QUERY_EXTENSION] = { { { T_ANY, MAY } }, .gateway = true, .later = true },
	[CALL_ADD_MEMORY] = { .min_fds = 1, .max_fds = 1 },
	[CALL_CREATE_PD] = { { { T_ADAPTER, MAY } } },
	[CALL_GET_PRIVILEGED_TOKEN] = { { { T_PD, MAY } }, .later = true },
	[CALL_CREATE_MR] = { { { T_PD, MUST } } },
	[CALL_REGISTER_MR] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE, .max_fds = 1 },
	[CALL_DEREGISTER_MR] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_GET_LOCAL_TOKEN] = { { { T_MR, MUST } } },
	[CALL_GET_REMOTE_TOKEN] = { { { T_MR, MUST } } },
	[CALL_QUERY_TOKENS] = { .call = false },
	[CALL_INITIALIZE_FAST_REGISTER] = { { { T_MR, MAY } } },
	[CALL_FAST_REGISTER] = { { { T_MR, MAY }, { T_QP, UNREAD }, { T_MAPPING, UNREAD } } },
	[CALL_INVALIDATE] = { { { T_MR, MAY }, { T_QP, UNREAD } } },
	[CALL_CREATE_MW] = { { { T_PD, MAY } }, .later = true },
	[CALL_BIND_MW] = { { { T_MW, UNREAD }, { T_MR, MAY }, { T_QP, MAY } }, .later = true },
	[CALL_BUILD_MAPPING] = { .later = true },
	[CALL_CONNECT_QP] = { { { T_PD, MUST } }, .call = true, .turn = CONNECT },
	[CALL_READ] = { { { T_QP, MUST } }, .call = true },
	[CALL_WRITE] = { { { T_QP, MUST } }, .call = true },
	[CALL_TRANSFER_LIST] = { { { T_QP, MUST } }, .call = true },
	[CALL_FLUSH] = { { { T_QP, MUST } }, .call = true },
	[CALL_DISCONNECT] = { { { T_QP, MUST } }, .call = true },
	[CALL_QUERY_QP] = { { { T_QP, MAY } }, .call = true },
	[CALL_CREATE_TICKET] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_CREATE_EXPORT] = { { { T_MR, MUST } }, .call = true, .turn = DEVICE },
	[CALL_CLOSE] = { { { T_ANY, MUST } }, .call = true, .turn = DEVICE, .gateway = true },
	[CALL_LIST] = { .call = true, .gateway = true, .bulk = true },
	[CALL_WHO] = { .call = true, .gateway = true, .bulk = true },
	[CALL_REVOKE] = { .call = true },
	[CALL_LEDGER] = { .call = true, .bulk = true },
};

bool model_is_call(enum sim_call call)
{
	return calls[call].call;
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

	if (takes.need == NO || takes.need == UNREAD)
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
		n += (c->live[i]->is_call || c->live[i]->waiting) && !(c->live[i]->started && c->live[i]->say.call == CALL_CLOSE);
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
		/* Nor does it overtake others of its session that are about to go on. */
		sim_must(waits || calls[r->say.call].turn, "request %u (call %u) was passed over", r->say.id, r->say.call);
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
	m->current = r;
	if (m->armed && (r->say.call == CALL_CLOSE || r->say.call == CALL_DEREGISTER_MR || r->say.call == CALL_REVOKE))
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

/* ---- what each call is refused for */

static void need(struct model *m, struct m_request *r, enum sim_slot slot, uint64_t n, uint32_t *refused, uint32_t *maybe)
{
	int how = model_quota(m, m->clients[r->client].account, slot, n);

	if (how == 2)
		*refused |= BIT(S_INSUFFICIENT_RESOURCES);
	if (how == 1)
		*maybe |= BIT(S_INSUFFICIENT_RESOURCES);
}

static uint32_t begin_create_pd(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *adapter = model_resolve(m, r, &r->say.ref[0]);
	uint32_t refused = 0;

	for (unsigned i = m->n_adapters; i-- > 0 && !adapter;)
		if (!m->adapters[i]->over)
			adapter = m->adapters[i];
	if (!adapter || !adapter->up)
		refused |= BIT(S_DEVICE_REMOVED);
	need(m, r, SLOT_PDS, 1, &refused, maybe);
	if (!refused)
		r->object = model_new(m, T_PD, r->client, adapter);
	return refused;
}

static uint32_t begin_add_memory(struct model *m, struct m_request *r, uint32_t *maybe)
{
	uint32_t refused = r->say.fd.status ? BIT(r->say.fd.status) : 0;

	need(m, r, SLOT_MEMORIES, 1, &refused, maybe);
	need(m, r, SLOT_FDS, 1, &refused, maybe);
	if (refused)
		return refused;
	r->object = model_new(m, T_MEMORY, r->client, NULL);
	r->object->size = r->say.fd.size;
	r->object->page = r->say.fd.page;
	r->object->writable = r->say.fd.writable;
	r->object->fd = r->say.fd.number;
	r->object->named = true;
	return 0;
}

static uint32_t begin_create_mr(struct model *m, struct m_request *r, uint32_t *maybe)
{
	uint32_t refused = 0;

	if (r->say.fast)
		return BIT(S_NOT_SUPPORTED);
	need(m, r, SLOT_MRS, 1, &refused, maybe);
	if (!refused) {
		r->object = model_new(m, T_MR, r->client, model_resolve(m, r, &r->say.ref[0]));
		r->object->state = M_CREATED;
	}
	return refused;
}

static bool too_long(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b;
}

/* The chain: every inner boundary on a page, every piece inside its memory. */
static uint32_t check_chain(const struct sim_request *say, struct m_object *const *memories, uint64_t *total)
{
	uint32_t refused = 0;

	*total = 0;
	for (unsigned i = 0; i < say->n_ranges; i++) {
		uint64_t offset = say->ranges[i].offset, length = say->ranges[i].length;

		if (!memories[i]) {
			refused |= BIT(S_INVALID_HANDLE);
			continue;
		}
		if (!length || too_long(offset, length) || offset + length > memories[i]->size)
			refused |= BIT(S_INVALID_PARAMETER);
		else if ((i && offset % memories[i]->page) || (i + 1 < say->n_ranges && (offset + length) % memories[i]->page))
			refused |= BIT(S_INVALID_PARAMETER);
		if (too_long(*total, length))
			refused |= BIT(S_INVALID_PARAMETER);
		*total += length;
	}
	return refused;
}

static struct m_object *brought(struct model *m, struct m_request *r, uint32_t *refused, uint32_t *maybe)
{
	struct m_object *o;

	if (!r->say.fds)
		return NULL;
	if (r->say.fd.status) {
		*refused |= BIT(r->say.fd.status);
		return NULL;
	}
	need(m, r, SLOT_MEMORIES, 1, refused, maybe);
	need(m, r, SLOT_FDS, 1, refused, maybe);
	if (*refused)
		return NULL;
	o = r->brought = model_new(m, T_MEMORY, r->client, NULL);
	o->size = r->say.fd.size;
	o->page = r->say.fd.page;
	o->writable = r->say.fd.writable;
	o->fd = r->say.fd.number;
	o->closing = true;
	return o;
}

static uint64_t attach_need(const struct model *m, const struct m_object *mr)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < mr->n_ranges; i++) {
		const struct m_object *memory = mr->ranges[i].memory;
		bool before = false;

		for (unsigned j = 0; j < i; j++)
			before |= mr->ranges[j].memory == memory;
		if (!before && memory->attached[mr->parent->parent->adapter] == M_NOT_ATTACHED)
			n += model_attach_cost(m, memory->size);
	}
	return n;
}

static uint32_t begin_register(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	struct m_object *mr = model_resolve(m, r, &say->ref[0]), *memories[SIM_RANGES];
	uint64_t total = 0, length, sum = 0;
	uint32_t refused = 0, rights = say->flags;
	struct m_object *with;
	enum m_state before = mr->state;

	r->object = mr;
	with = brought(m, r, &refused, maybe);
	for (unsigned i = 0; i < say->n_ranges; i++) {
		memories[i] = model_resolve(m, r, &say->ranges[i].memory);
		if (say->ranges[i].memory.kind == REF_ABSENT)
			memories[i] = with;
	}
	if (mr->state != M_CREATED)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (!model_adapter_up(mr->parent))
		refused |= BIT(S_DEVICE_REMOVED);
	if (!say->n_ranges || say->n_ranges > 16 || (rights & ~15u) || ((rights & 4) && !(rights & 1)))
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->n_ranges)
		refused |= check_chain(say, memories, &total);
	length = say->length ? say->length : total;
	if (say->length > total)
		refused |= BIT(S_INVALID_PARAMETER);
	if (length > m->terms.max_registration)
		refused |= BIT(S_IMPLEMENTATION_LIMIT);
	if (!say->iova || too_long(say->iova, length))
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->n_ranges && memories[0] && say->iova % memories[0]->page != say->ranges[0].offset % memories[0]->page)
		refused |= BIT(S_INVALID_PARAMETER);
	if (rights & RIGHT_SINK)
		rights |= RIGHT_WRITE;
	for (unsigned i = 0; i < say->n_ranges && sum < length; i++) {
		sum += say->ranges[i].length;
		if (memories[i] && (rights & RIGHT_WRITE) && !memories[i]->writable)
			refused |= BIT(S_ACCESS_VIOLATION);
	}
	if (refused)
		return refused;
	mr->length = length;
	mr->iova = say->iova;
	mr->rights = rights;
	sum = 0;
	for (unsigned i = 0; i < say->n_ranges && sum < length; i++) {
		uint64_t part = say->ranges[i].length < length - sum ? say->ranges[i].length : length - sum;

		mr->ranges[i].memory = memories[i];
		mr->ranges[i].offset = say->ranges[i].offset;
		mr->ranges[i].length = part;
		mr->n_ranges = i + 1;
		sum += part;
	}
	need(m, r, SLOT_PINNED, model_tag_cost(m, length) + attach_need(m, mr), &refused, maybe);
	if (refused) {
		mr->n_ranges = 0;
		mr->state = before;
		return refused;
	}
	mr->state = M_REGISTERING;
	return 0;
}

static uint32_t begin_deregister(struct model *m, struct m_request *r)
{
	struct m_object *mr = r->object = model_resolve(m, r, &r->say.ref[0]);

	if (mr->state != M_REGISTERED && mr->state != M_ERROR)
		return BIT(S_INVALID_DEVICE_STATE);
	model_revoke_mr(m, mr, false);
	return 0;
}

static uint32_t begin_token(struct model *m, struct m_request *r)
{
	struct m_object *mr = r->object = model_resolve(m, r, &r->say.ref[0]);

	if (mr->state != M_REGISTERED)
		return BIT(S_INVALID_DEVICE_STATE);
	return r->say.call == CALL_GET_REMOTE_TOKEN && !remote(mr->rights) ? BIT(S_ACCESS_DENIED) : 0;
}

static struct m_object *door_new(struct model *m, struct m_request *r, enum sim_type type, struct m_object *mr)
{
	const struct sim_request *say = &r->say;
	struct m_object *o = r->object = model_new(m, type, r->client, mr->parent);
	uint32_t uses = say->uses ? say->uses : 1, peers = say->peers ? say->peers : 16;

	o->state = M_OPENING;
	o->max_streams = peers < uses ? peers : uses;
	o->mr_serial = mr->serial;
	return o;
}

static uint32_t door_quota(struct model *m, struct m_request *r, uint32_t *maybe)
{
	uint32_t uses = r->say.uses ? r->say.uses : 1, peers = r->say.peers ? r->say.peers : 16, refused = 0;

	need(m, r, SLOT_DOORS, 1, &refused, maybe);
	need(m, r, SLOT_QPS, peers < uses ? peers : uses, &refused, maybe);
	return refused;
}

static uint32_t begin_ticket(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *mr = model_resolve(m, r, &r->say.ref[0]), *o;
	uint32_t refused = 0;

	if (mr->state != M_REGISTERED)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	else if (!remote(mr->rights))
		refused |= BIT(S_ACCESS_DENIED);
	refused |= door_quota(m, r, maybe);
	if (refused)
		return refused;
	o = door_new(m, r, T_TICKET, mr);
	o->iova = mr->iova;
	o->length = mr->length;
	/* What peers get: local write alone is no right of theirs. */
	o->rights = (mr->rights & RIGHT_REMOTE_READ) | ((mr->rights & 5) == RIGHT_REMOTE_WRITE ? RIGHT_REMOTE_WRITE : 0);
	o->remote = mr->remote;
	return 0;
}

static bool name_taken(const struct model *m, int account, const char *name)
{
	for (unsigned i = 0; i < m->n_live; i++)
		if (m->live[i]->type == T_EXPORT && m->live[i]->account == account && m->live[i]->state != M_DEAD &&
		    !strcmp(m->live[i]->name, name))
			return true;
	return false;
}

static uint32_t begin_export(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	struct m_object *mr = model_resolve(m, r, &say->ref[0]), *o;
	uint64_t length = say->length ? say->length : say->offset < mr->length ? mr->length - say->offset : 0;
	uint32_t refused = 0;

	if (mr->state != M_REGISTERED)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (mr->state == M_REGISTERED && !remote(mr->rights))
		refused |= BIT(S_ACCESS_DENIED);
	if (!say->text_ok || (say->flags & ~7u) || !remote(say->flags) || !(say->flags & 4) != !(say->flags & 1))
		refused |= BIT(S_INVALID_PARAMETER);
	if ((mr->rights & say->flags) != say->flags)
		refused |= BIT(S_ACCESS_VIOLATION);
	if (!length || too_long(say->offset, length) || say->offset + length > mr->length)
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->text_ok && name_taken(m, m->clients[r->client].account, say->text)) {
		/* Not certain when it is that of a session that is just being released. */
		*maybe |= BIT(S_INVALID_PARAMETER);
		for (unsigned i = 0; i < m->n_live; i++)
			if (m->live[i]->type == T_EXPORT && m->live[i]->account == m->clients[r->client].account &&
			    m->live[i]->state != M_DEAD && !strcmp(m->live[i]->name, say->text) &&
			    !m->clients[m->live[i]->client].dying)
				refused |= BIT(S_INVALID_PARAMETER);
	}
	refused |= door_quota(m, r, maybe);
	if (!(refused & BIT(S_INVALID_PARAMETER)))
		need(m, r, SLOT_PINNED, model_tag_cost(m, length), &refused, maybe);
	if (refused)
		return refused;
	o = door_new(m, r, T_EXPORT, mr);
	strncpy(o->name, say->text, sizeof(o->name) - 1);
	o->mr = mr;
	o->iova = mr->iova + say->offset;
	o->length = length;
	o->rights = say->flags;
	return 0;
}

static uint32_t begin_connect(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	struct m_object *pd = model_resolve(m, r, &say->ref[0]);
	uint32_t refused = 0;

	if (say->ttl_ms > 60000 || !say->text_ok)
		refused |= BIT(S_INVALID_PARAMETER);
	r->refused_at = m->now + (say->ttl_ms ? say->ttl_ms : 10000) * UINT64_C(1000000);
	if (!refused && !say->allowed)
		return 0;   /* refused when its time is over, like everything that nobody answers */
	if (!model_adapter_up(pd))
		refused |= BIT(S_DEVICE_REMOVED);
	need(m, r, SLOT_QPS, 1, &refused, maybe);
	if (refused)
		return refused;
	r->object = model_new(m, T_QP, r->client, pd);
	r->object->state = M_CONNECTING;
	return 0;
}

static uint32_t begin_work(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *qp = r->object = model_resolve(m, r, &r->say.ref[0]);
	bool post = r->say.call == CALL_READ || r->say.call == CALL_WRITE || r->say.call == CALL_TRANSFER_LIST;
	uint32_t refused = 0;

	if (qp->state != M_CONNECTED)
		refused |= BIT(S_CONNECTION_INVALID);
	if (!post)
		return refused;
	if (r->say.flags)
		refused |= BIT(S_NOT_SUPPORTED);
	if (!r->say.entries_ok || r->say.operation > 1)
		refused |= BIT(S_INVALID_PARAMETER) | (r->say.call == CALL_TRANSFER_LIST ? BIT(S_NOT_SUPPORTED) : 0);
	need(m, r, SLOT_BUFFERED, r->say.n_bytes, &refused, maybe);
	return refused;
}

/* By id, or by the serial that an event told. */
static uint32_t begin_query(struct model *m, struct m_request *r)
{
	struct m_object *qp = model_resolve(m, r, &r->say.ref[0]);

	if (!qp && r->say.ref[0].kind == REF_ABSENT)
		qp = model_serial(m, r->say.serial);
	if (!qp || qp->type != T_QP || qp->client != r->client || qp->closing)
		return BIT(S_INVALID_HANDLE);
	r->object = qp;
	return 0;
}

static uint32_t begin_close(struct model *m, struct m_request *r)
{
	struct m_object *o = r->object = model_resolve(m, r, &r->say.ref[0]);

	if (o->type == T_ADAPTER)
		return BIT(S_INVALID_HANDLE);
	o->closing = true;
	if (o->type == T_MR && (o->state == M_REGISTERED || o->state == M_ERROR))
		model_revoke_mr(m, o, false);
	if (o->type == T_TICKET || o->type == T_EXPORT)
		model_kill_door(m, o, false);
	return 0;
}

/* What an answer needs while it is being made is nicd's own affair: a small budget may refuse it. */
static void look_quota(struct model *m, const struct m_request *r, uint32_t *maybe)
{
	const struct m_client *c = &m->clients[r->client];

	if (!c->admin_socket && model_quota(m, c->account, SLOT_BUFFERED, 65536))
		*maybe |= BIT(S_INSUFFICIENT_RESOURCES);
}

static uint32_t begin_revoke(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *o = model_serial(m, r->say.serial);
	const struct m_client *c = &m->clients[r->client];

	for (int i = 0; i < MODEL_CLIENTS; i++)
		if (m->clients[i].there && m->clients[i].serial == r->say.serial &&
		    (c->role == ROLE_ADMIN || m->clients[i].account == c->account)) {
			r->session = (uint32_t)i + 1;
			look_quota(m, r, maybe);
			return 0;
		}
	if (!o || !model_visible(m, r->client, o))
		return BIT(S_INVALID_HANDLE);
	r->object = o;
	if (o->client >= 0 && m->clients[o->client].dying)
		return 0;   /* how far it is, is not known */
	switch (o->type) {
	case T_MR:
		if (o->closing || (o->state != M_REGISTERED && o->state != M_ERROR))
			return BIT(S_INVALID_DEVICE_STATE);
		model_revoke_mr(m, o, true);
		return 0;
	case T_TICKET:
	case T_EXPORT:
		if (o->state == M_DEAD)
			return BIT(S_INVALID_DEVICE_STATE);
		if (o->killed)
			return BIT(S_DEVICE_BUSY);
		model_kill_door(m, o, true);
		return 0;
	case T_GRANT:
	case T_QP:
		for (unsigned i = 0; i < m->n_live && o->type == T_GRANT; i++)
			if (m->live[i]->grant == o)
				o = m->live[i];
		if (o->state != M_CONNECTED || o->closing)
			return BIT(S_CONNECTION_INVALID);
		r->object = o;
		model_owe(m, o, EV_REVOKED);
		return 0;
	default:
		return BIT(S_INVALID_HANDLE);
	}
}

static uint32_t begin_look(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	const struct m_object *o;
	uint32_t refused = 0;

	if (say->call == CALL_LEDGER)
		return 0;
	if (say->call == CALL_LIST && (say->type < T_ADAPTER || say->type >= T_COUNT))
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->call == CALL_WHO) {
		o = model_serial(m, say->serial);
		if (!o || !model_visible(m, r->client, o) || (o->type != T_MR && o->type != T_EXPORT))
			refused |= BIT(S_INVALID_HANDLE);
		else if (m->clients[o->client].dying)
			*maybe |= BIT(S_INVALID_HANDLE);
	}
	if (say->cursor == UINT64_MAX)
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->call == CALL_WHO || say->type == T_QP || say->type == T_GRANT)
		look_quota(m, r, maybe);
	return refused;
}

uint32_t model_begin(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	uint32_t refused = 0;

	switch (say->call) {
	case CALL_HELLO:
		if (say->major != 1 || say->minor > 0)
			refused |= BIT(S_BAD_VERSION);
		if (!say->text_ok)
			refused |= BIT(S_INVALID_PARAMETER);
		return refused;
	case CALL_ADD_MEMORY:
		return begin_add_memory(m, r, maybe);
	case CALL_CREATE_PD:
		return begin_create_pd(m, r, maybe);
	case CALL_CREATE_MR:
		return begin_create_mr(m, r, maybe);
	case CALL_REGISTER_MR:
		refused = begin_register(m, r, maybe);
		if (refused && r->brought)
			r->brought->n_ranges = 0;
		return refused;
	case CALL_DEREGISTER_MR:
		return begin_deregister(m, r);
	case CALL_GET_LOCAL_TOKEN:
	case CALL_GET_REMOTE_TOKEN:
		return begin_token(m, r);
	case CALL_QUERY_TOKENS:
		return say->n_ids ? 0 : BIT(S_INVALID_PARAMETER);
	case CALL_INITIALIZE_FAST_REGISTER:
	case CALL_FAST_REGISTER:
	case CALL_INVALIDATE:
		return say->ref[0].kind == REF_ABSENT ? BIT(S_NOT_SUPPORTED) : BIT(S_INVALID_PARAMETER);
	case CALL_CREATE_TICKET:
		return begin_ticket(m, r, maybe);
	case CALL_CREATE_EXPORT:
		return begin_export(m, r, maybe);
	case CALL_CONNECT_QP:
		return begin_connect(m, r, maybe);
	case CALL_READ:
	case CALL_WRITE:
	case CALL_TRANSFER_LIST:
	case CALL_FLUSH:
	case CALL_DISCONNECT:
		return begin_work(m, r, maybe);
	case CALL_QUERY_QP:
		return begin_query(m, r);
	case CALL_QUERY_ADAPTER:
		r->object = model_resolve(m, r, &say->ref[0]);
		return 0;
	case CALL_CLOSE:
		return begin_close(m, r);
	case CALL_REVOKE:
		return begin_revoke(m, r, maybe);
	case CALL_LIST:
	case CALL_WHO:
	case CALL_LEDGER:
		return begin_look(m, r, maybe);
	default:
		return 0;
	}
}
