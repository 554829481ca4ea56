/* SPDX-License-Identifier: MIT */
/*
 * What each call is refused for, given what the session holds; and what begins when it is not. Where several rules are broken any of their
 * statuses will do: nothing promises an order.
 */
#include <string.h>

#include "tests/sim/model-private.h"

void model_need(struct model *m, struct m_request *r, enum sim_slot slot, uint64_t n, uint32_t *refused, uint32_t *maybe)
{
	int how = model_quota(m, m->clients[r->client].account, slot, n);

	if (how == 2)
		*refused |= BIT(S_INSUFFICIENT_RESOURCES);
	if (how == 1)
		*maybe |= BIT(S_INSUFFICIENT_RESOURCES);
}

struct m_object *model_newest_adapter(const struct model *m)
{
	for (unsigned i = m->n_adapters; i-- > 0;)
		if (!m->adapters[i]->over)
			return m->adapters[i];
	return NULL;
}

static uint32_t begin_create_pd(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *adapter = model_resolve(m, r, &r->say.ref[0]);
	uint32_t refused = 0;

	if (!adapter)
		adapter = model_newest_adapter(m);
	if (!adapter || !adapter->up)
		refused |= BIT(S_DEVICE_REMOVED);
	model_need(m, r, SLOT_PDS, 1, &refused, maybe);
	if (!refused)
		r->object = model_new(m, T_PD, r->client, adapter);
	return refused;
}

static uint32_t begin_add_memory(struct model *m, struct m_request *r, uint32_t *maybe)
{
	uint32_t refused = r->say.fd.status ? BIT(r->say.fd.status) : 0;

	model_need(m, r, SLOT_MEMORIES, 1, &refused, maybe);
	model_need(m, r, SLOT_FDS, 1, &refused, maybe);
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

	model_need(m, r, SLOT_MRS, 1, &refused, maybe);
	if (!refused) {
		r->object = model_new(m, T_MR, r->client, model_resolve(m, r, &r->say.ref[0]));
		r->object->state = M_CREATED;
		r->object->fast = r->say.fast;
	}
	return refused;
}

static bool too_long(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b;
}

/* The chain: every inner boundary on a page, every piece inside its memory. */
uint32_t model_check_chain(const struct m_range *ranges, unsigned n, uint32_t page, uint64_t *total)
{
	uint32_t refused = 0;

	*total = 0;
	for (unsigned i = 0; i < n; i++) {
		uint64_t offset = ranges[i].offset, length = ranges[i].length;
		uint32_t size;

		if (!ranges[i].memory) {
			refused |= BIT(S_INVALID_HANDLE);
			continue;
		}
		size = page ? page : ranges[i].memory->page;
		if (!length || too_long(offset, length) || offset + length > ranges[i].memory->size)
			refused |= BIT(S_INVALID_PARAMETER);
		else if ((i && offset % size) || (i + 1 < n && (offset + length) % size))
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
	model_need(m, r, SLOT_MEMORIES, 1, refused, maybe);
	model_need(m, r, SLOT_FDS, 1, refused, maybe);
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

struct m_range model_range(struct model *m, const struct m_request *r, unsigned i)
{
	return (struct m_range){ model_resolve(m, r, &r->say.ranges[i].memory), r->say.ranges[i].offset, r->say.ranges[i].length };
}

uint64_t model_attach_need(const struct model *m, const struct m_object *mr, int adapter)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < mr->n_ranges; i++) {
		const struct m_object *memory = mr->ranges[i].memory;
		bool before = false;

		for (unsigned j = 0; j < i; j++)
			before |= mr->ranges[j].memory == memory;
		if (!before && memory->attached[adapter] == M_NOT_ATTACHED)
			n += model_attach_cost(m, memory->size);
	}
	return n;
}

static uint32_t begin_register(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	struct m_object *mr = model_resolve(m, r, &say->ref[0]);
	struct m_range ranges[SIM_RANGES];
	uint64_t total = 0, length, sum = 0;
	uint32_t refused = 0, rights = say->flags;
	struct m_object *with;
	enum m_state before = mr->state;

	r->object = mr;
	if (mr->fast)
		return BIT(S_INVALID_PARAMETER);
	with = brought(m, r, &refused, maybe);
	for (unsigned i = 0; i < say->n_ranges; i++) {
		ranges[i] = model_range(m, r, i);
		if (say->ranges[i].memory.kind == REF_ABSENT)
			ranges[i].memory = with;
	}
	if (mr->state != M_CREATED)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (!model_adapter_up(mr->parent))
		refused |= BIT(S_DEVICE_REMOVED);
	if (!say->n_ranges || say->n_ranges > 16 || (rights & ~15u) || ((rights & 4) && !(rights & 1)))
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->n_ranges)
		refused |= model_check_chain(ranges, say->n_ranges, 0, &total);
	length = say->length ? say->length : total;
	if (say->length > total)
		refused |= BIT(S_INVALID_PARAMETER);
	if (length > m->terms.max_registration)
		refused |= BIT(S_IMPLEMENTATION_LIMIT);
	if (!say->iova || too_long(say->iova, length))
		refused |= BIT(S_INVALID_PARAMETER);
	if (say->n_ranges && ranges[0].memory && say->iova % ranges[0].memory->page != ranges[0].offset % ranges[0].memory->page)
		refused |= BIT(S_INVALID_PARAMETER);
	if (rights & RIGHT_SINK)
		rights |= RIGHT_WRITE;
	for (unsigned i = 0; i < say->n_ranges && sum < length; i++) {
		sum += say->ranges[i].length;
		if (ranges[i].memory && (rights & RIGHT_WRITE) && !ranges[i].memory->writable)
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

		mr->ranges[i] = ranges[i];
		mr->ranges[i].length = part;
		mr->n_ranges = i + 1;
		sum += part;
	}
	model_need(m, r, SLOT_PINNED, model_tag_cost(m, length) + model_attach_need(m, mr, mr->parent->parent->adapter), &refused, maybe);
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

	if (mr->fast)
		return BIT(S_INVALID_PARAMETER);
	if (model_has_windows(m, mr))
		return BIT(S_DEVICE_BUSY) | (mr->state != M_REGISTERED && mr->state != M_ERROR ? BIT(S_INVALID_DEVICE_STATE) : 0);
	if (mr->state != M_REGISTERED && mr->state != M_ERROR)
		return BIT(S_INVALID_DEVICE_STATE);
	model_revoke_mr(m, mr, false);
	return 0;
}

static uint32_t begin_token(struct model *m, struct m_request *r)
{
	struct m_object *mr = r->object = model_resolve(m, r, &r->say.ref[0]);

	if (mr->type != T_MR && mr->type != T_MW)
		return BIT(S_INVALID_HANDLE);
	if (mr->type == T_MW)
		return mr->state == M_BOUND ? 0 : BIT(S_INVALID_DEVICE_STATE);
	if (mr->state != (mr->fast ? M_VALID : M_REGISTERED) && (!mr->fast || mr->state != M_FREE))
		return BIT(S_INVALID_DEVICE_STATE);
	if (r->say.call == CALL_GET_LOCAL_TOKEN)
		return 0;
	return (mr->state == M_FREE ? mr->remote_access : model_remote_rights(mr->rights)) ? 0 : BIT(S_ACCESS_DENIED);
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

	model_need(m, r, SLOT_DOORS, 1, &refused, maybe);
	model_need(m, r, SLOT_QPS, peers < uses ? peers : uses, &refused, maybe);
	return refused;
}

static uint32_t begin_ticket(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *mr = model_resolve(m, r, &r->say.ref[0]), *o;
	uint32_t refused = 0;

	if (mr->fast)
		return BIT(S_INVALID_PARAMETER);
	if (mr->state != M_REGISTERED)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	else if (!model_remote_rights(mr->rights))
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

	if (mr->fast)
		return BIT(S_INVALID_PARAMETER);
	if (mr->state != M_REGISTERED)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (mr->state == M_REGISTERED && !model_remote_rights(mr->rights))
		refused |= BIT(S_ACCESS_DENIED);
	if (!say->text_ok || (say->flags & ~7u) || !model_remote_rights(say->flags) || !(say->flags & 4) != !(say->flags & 1))
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
		model_need(m, r, SLOT_PINNED, model_tag_cost(m, length), &refused, maybe);
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

static uint32_t begin_close(struct model *m, struct m_request *r)
{
	struct m_object *o = r->object = model_resolve(m, r, &r->say.ref[0]);

	if (o->type == T_ADAPTER)
		return BIT(S_INVALID_HANDLE);
	o->closing = true;
	if (o->type == T_MR && !o->fast && (o->state == M_REGISTERED || o->state == M_ERROR))
		model_revoke_mr(m, o, false);
	if ((o->type == T_MW || o->fast) && (o->state == M_VALID || o->state == M_BOUND || o->state == M_ERROR))
		model_invalidate(m, o);
	else if (o->type == T_MW)
		model_overtake(o);
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

static uint32_t begin_revoke_fast(struct model *m, struct m_request *r, struct m_object *o)
{
	if (o->closing && o->state == M_INVALIDATING && model_waits_for_windows(m, o)) {
		o->since = m->now;
		model_evict(m, o);
		return 0;
	}
	if ((o->state == M_INVALIDATING || o->state == M_VALID_PENDING) && !o->closing) {
		o->killed |= o->state == M_VALID_PENDING;
		return BIT(S_DEVICE_BUSY) | BIT(S_INVALID_DEVICE_STATE);
	}
	if (o->closing || (o->state != M_VALID && o->state != M_ERROR))
		return BIT(S_INVALID_DEVICE_STATE);
	model_owe(m, o, EV_REVOKED);
	model_invalidate(m, o);
	model_evict(m, o);
	return 0;
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
	case T_MW:
		/* What waits for other work is overtaken, and told to whoever asked for it. */
		if (!o->closing && (o->state == M_BIND_PENDING || (o->state == M_INVALIDATING && o->ordered && o->inflight))) {
			o->killed = true;
			model_overtake(o);
			return BIT(S_DEVICE_BUSY) | BIT(S_INVALID_DEVICE_STATE);
		}
		if (o->closing || (o->state != M_BOUND && o->state != M_ERROR))
			return BIT(S_INVALID_DEVICE_STATE);
		if (o->state == M_BOUND)
			model_owe(m, o, EV_REVOKED);
		model_invalidate(m, o);
		return 0;
	case T_MR:
		if (o->fast)
			return begin_revoke_fast(m, r, o);
		if (o->closing && o->state == M_REVOKING && model_waits_for_windows(m, o)) {
			/* Its owner has closed it, and left windows behind. */
			o->since = m->now;
			model_evict(m, o);
			return 0;
		}
		if (o->closing || (o->state != M_REGISTERED && o->state != M_ERROR))
			return BIT(S_INVALID_DEVICE_STATE);
		model_revoke_mr(m, o, true);
		model_evict(m, o);
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
		if (!o || !model_visible(m, r->client, o) || (o->type != T_MR && o->type != T_MW && o->type != T_EXPORT))
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
		return model_begin_initialize(m, r);
	case CALL_FAST_REGISTER:
		return model_begin_fast_register(m, r, maybe);
	case CALL_INVALIDATE:
		return model_begin_invalidate(m, r);
	case CALL_CREATE_MW:
		return model_begin_create_mw(m, r, maybe);
	case CALL_BIND_MW:
		return model_begin_bind(m, r, maybe);
	case CALL_BUILD_MAPPING:
		return model_begin_mapping(m, r, maybe);
	case CALL_GET_PRIVILEGED_TOKEN:
		look_quota(m, r, maybe);
		return model_begin_privileged(m, r);
	case CALL_CREATE_TICKET:
		return begin_ticket(m, r, maybe);
	case CALL_CREATE_EXPORT:
		return begin_export(m, r, maybe);
	case CALL_CONNECT_QP:
		return model_begin_connect(m, r, maybe);
	case CALL_READ:
	case CALL_WRITE:
	case CALL_TRANSFER_LIST:
	case CALL_SEND:
	case CALL_RECEIVE:
	case CALL_FLUSH:
	case CALL_DISCONNECT:
		return model_begin_work(m, r, maybe);
	case CALL_QUERY_QP:
		return model_begin_query(m, r);
	case CALL_QUERY_ADAPTER:
	case CALL_QUERY_EXTENSION:
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
