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

uint32_t model_begin_work(struct model *m, struct m_request *r, uint32_t *maybe)
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
	model_need(m, r, SLOT_BUFFERED, r->say.n_bytes, &refused, maybe);
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
