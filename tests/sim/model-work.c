/* SPDX-License-Identifier: MIT */
/*
 * Qps at work: connecting, transfers and messages: what is refused, and what the end of one must look like.
 */
#include "tests/sim/model-private.h"

uint32_t model_begin_connect(struct model *m, struct m_request *r, uint32_t *maybe)
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
	model_need(m, r, SLOT_QPS, 1, &refused, maybe);
	if (refused)
		return refused;
	r->object = model_new(m, T_QP, r->client, pd);
	r->object->state = M_CONNECTING;
	return 0;
}

bool model_is_post(enum sim_call call)
{
	return call == CALL_READ || call == CALL_WRITE || call == CALL_TRANSFER_LIST || call == CALL_SEND || call == CALL_RECEIVE;
}

static bool is_work(enum sim_call call)
{
	return (model_is_post(call) && call != CALL_RECEIVE) || call == CALL_FAST_REGISTER || call == CALL_INVALIDATE || call == CALL_BIND_MW;
}

static enum sim_operation operation_of(const struct sim_request *say)
{
	switch (say->call) {
	case CALL_READ:
		return WORK_READ;
	case CALL_WRITE:
		return WORK_WRITE;
	case CALL_SEND:
		return WORK_SEND;
	case CALL_RECEIVE:
		return WORK_RECEIVE;
	default:
		return (enum sim_operation)say->operation;
	}
}

static uint32_t flags_of(const struct sim_request *say)
{
	if (say->call == CALL_RECEIVE)
		return 0;
	if (say->call == CALL_SEND)
		return FLAG_ANY | FLAG_SOLICIT | FLAG_INLINE;
	if (operation_of(say) != WORK_WRITE)
		return FLAG_ANY | FLAG_LOCAL_INVALIDATE;
	return FLAG_ANY | FLAG_NOTIFY | (say->call == CALL_WRITE ? FLAG_INLINE : 0);
}

static bool inline_fits(const struct sim_request *say)
{
	if (!(say->flags & FLAG_INLINE))
		return !say->n_inline;
	return say->n_inline <= SIM_INLINE && say->n_inline == say->length;
}

bool model_is_silent(struct model *m, int client, uint32_t id)
{
	const struct m_client *c = &m->clients[client];

	for (unsigned i = 0; i < c->n_live; i++)
		if (c->live[i]->say.id == id)
			return is_work(c->live[i]->say.call) && (c->live[i]->say.flags & FLAG_SILENT);
	return false;
}

/* Receives wait for others: they have a cap and a slot of their own. */
uint32_t model_begin_work(struct model *m, struct m_request *r, uint32_t *maybe)
{
	struct m_object *qp = r->object = model_resolve(m, r, &r->say.ref[0]);
	bool receive = r->say.call == CALL_RECEIVE;
	uint32_t refused = 0;

	if (qp->state != M_CONNECTED)
		refused |= BIT(S_CONNECTION_INVALID);
	if (receive ? qp->receives >= SIM_QP_RECEIVES : qp->works >= SIM_QP_WORK)
		refused |= BIT(S_INSUFFICIENT_RESOURCES);
	if (!model_is_post(r->say.call))
		return refused;
	if (r->say.flags & ~flags_of(&r->say))
		refused |= BIT(S_INVALID_PARAMETER);
	if (!r->say.entries_ok || !inline_fits(&r->say) || (r->say.call == CALL_TRANSFER_LIST && r->say.operation > WORK_WRITE))
		refused |= BIT(S_INVALID_PARAMETER);
	if (r->say.call != CALL_TRANSFER_LIST && r->say.length > m->terms.max_transfer)
		refused |= BIT(S_INVALID_PARAMETER);
	model_need(m, r, receive ? SLOT_RECEIVES : SLOT_BUFFERED, receive ? 1 : r->say.n_bytes, &refused, maybe);
	return refused;
}

/* By id, or by the serial that an event told. */
uint32_t model_begin_query(struct model *m, struct m_request *r)
{
	struct m_object *qp = model_resolve(m, r, &r->say.ref[0]);

	if (!qp && r->say.ref[0].kind == REF_ABSENT)
		qp = model_serial(m, r->say.serial);
	if (!qp || qp->type != T_QP || qp->client != r->client || qp->closing)
		return BIT(S_INVALID_HANDLE);
	r->object = qp;
	return 0;
}

/* ---- at the device */

static void check_work(const struct sim_request *say, const struct sim_op_args *args)
{
	const struct sim_work *work = &args->work;
	enum sim_operation operation = operation_of(say);
	uint32_t invalidate = operation == WORK_SEND ? say->invalidate_token : 0;

	sim_must(work->operation == operation && args->bytes == say->n_bytes, "other work than was asked for");
	sim_must(work->notify == !!(say->flags & FLAG_NOTIFY) && work->solicited == !!(say->flags & FLAG_SOLICIT), "work with other flags");
	sim_must(work->fence == !!(say->flags & FLAG_FENCE) && work->is_inline == !!(say->flags & FLAG_INLINE), "work without its flags");
	sim_must(work->invalidate == !!invalidate && work->invalidate_token == invalidate, "a message that invalidates something else");
	if (say->call == CALL_TRANSFER_LIST)
		return;
	sim_must(work->local_token == say->local_token && work->local_addr == say->local_addr && work->length == say->length,
		 "work from or to another place");
	if (operation == WORK_READ || operation == WORK_WRITE)
		sim_must(work->remote_token == say->remote_token && work->remote_addr == say->remote_addr, "work at another place of the peer's");
	else
		sim_must(!work->remote_token && !work->remote_addr, "a message with a place at the peer's");
}

void model_post(struct model *m, struct m_command *k, const struct sim_op_args *args)
{
	struct m_request *r = k->request;

	sim_must(r && model_is_post(r->say.call) && r->object == k->object && !r->posted, "work that nobody asked for");
	check_work(&r->say, args);
	r->posted = true;
	k->receive = args->work.operation == WORK_RECEIVE;
	if (k->receive) {
		k->object->receives++;
		m->receives[k->account]++;
		return;
	}
	k->object->works++;
	k->buffered = args->bytes;
	m->buffered[k->account] += k->buffered;
}

void model_unpost(struct model *m, struct m_command *k)
{
	k->object->receives -= k->receive;
	k->object->works -= !k->receive;
	m->receives[k->account] -= k->receive;
	m->buffered[k->account] -= k->buffered;
}

void model_completed(struct model *m, unsigned number, const struct sim_completion *completion)
{
	m->commands[number].request->completion = *completion;
}

/* ---- its answer */

/* Messages fill receives in their order. */
static void check_order(struct model *m, const struct m_request *r)
{
	const struct m_client *c = &m->clients[r->client];

	for (unsigned i = 0; i < c->n_live; i++)
		sim_must(c->live[i]->say.call != CALL_RECEIVE || !c->live[i]->posted || c->live[i]->object != r->object ||
			 c->live[i]->order > r->order, "receive %u was filled before %u", r->say.id, c->live[i]->say.id);
}

void model_check_completion(struct model *m, const struct m_request *r, const struct sim_reply *p)
{
	const struct sim_completion *is = &p->completion, *was = &r->completion;

	sim_must(p->result == (r->posted ? 51 : 0), "work that the device never had is complete, or the other way round");
	if (!r->posted)
		return;
	sim_must(is->entries == was->entries && is->bytes == was->bytes && is->failed == was->failed && is->inexact == was->inexact,
		 "work request %u ended otherwise than at the device", r->say.id);
	sim_must(is->solicited == was->solicited && is->invalidated == was->invalidated && is->token == was->token,
		 "receive %u tells of another message", r->say.id);
	if (r->ok && r->say.call == CALL_RECEIVE)
		check_order(m, r);
}

void model_check_flushed(struct model *m, const struct m_request *r, const struct m_object *qp)
{
	const struct m_client *c = &m->clients[r->client];

	for (unsigned i = 0; i < c->n_live; i++)
		sim_must(!c->live[i]->posted || c->live[i]->object != qp || c->live[i]->order > r->order,
			 "request %u is answered before the work %u in front of it", r->say.id, c->live[i]->say.id);
}
