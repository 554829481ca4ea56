/* SPDX-License-Identifier: MIT */
/*
 * The model's MRs for fast registration. Their tokens are reserved when they are initialized, and grant nothing; each fast registration is a tag
 * with tokens of its own, added and dropped as work of a Qp.
 */
#include "tests/sim/model-private.h"

static void fast_free(struct m_object *o)
{
	o->state = M_FREE;
	o->local = o->remote = o->rights = 0;
	o->iova = o->length = 0;
	o->n_ranges = 0;
	o->tag = o->stuck = o->killed = false;
	o->mapping = NULL;
	model_let_qp_go(o);
}

void model_let_qp_go(struct m_object *o)
{
	if (o->work_of)
		o->work_of->holds--;
	o->work_of = NULL;
}

/* Its tokens are void from now on. */
void model_invalidate(struct model *m, struct m_object *o)
{
	o->state = M_INVALIDATING;
	o->since = m->now;
	o->local = o->remote = 0;
	o->unheard = o->let_go = o->left = o->stuck = false;
}

/* Nobody asks the device to drop it any more: it has, or it is down, and who waits to ask again knows. */
static bool is_down(const struct m_object *o)
{
	return !o->inflight && !model_adapter_up(o->parent) && (!o->stuck || o->parent->parent->lost);
}

bool model_dropped(const struct m_object *o)
{
	return o->state == M_INVALIDATING && (o->let_go || is_down(o));
}

bool model_settle_fast(struct model *m, struct m_object *o)
{
	if (model_dropped(o) && !model_has_windows(m, o)) {
		if (o->promised)
			model_owe(m, o, EV_REVOKE_CONFIRMED);
		o->promised = false;
		fast_free(o);
		return true;
	}
	if (o->closing && (o->state == M_FREE || o->state == M_CREATED) && !o->inflight && (!o->reserved || is_down(o))) {
		model_over(m, o);
		return true;
	}
	return false;
}

/* ---- what the device says */

void model_reserved(struct model *m, struct m_object *o, uint32_t status, uint32_t local, uint32_t remote)
{
	o->state = status == S_SUCCESS ? M_FREE : M_CREATED;
	o->reserved = status == S_SUCCESS;
	o->reserved_local = local;
	o->reserved_remote = remote;
}

/* The device has it, or does not; what is answered. */
uint32_t model_fast_registered(struct model *m, struct m_object *o, uint32_t status, uint32_t local, uint32_t remote)
{
	if (status == S_SUCCESS && !model_adapter_up(o->parent))
		status = S_DEVICE_REMOVED;
	if (status != S_SUCCESS) {
		status = BIT(status) | (o->closing || o->killed ? BIT(S_CANCELLED) : 0);
		fast_free(o);
		return status;
	}
	model_let_qp_go(o);
	if (o->closing || o->killed) {
		model_invalidate(m, o);
		return BIT(S_CANCELLED);
	}
	o->state = M_VALID;
	o->local = local;
	o->remote = remote;
	return BIT(S_SUCCESS);
}

/* It failed before the device heard of it. */
void model_fast_failed(struct m_object *o)
{
	if (o->state == M_VALID_PENDING)
		fast_free(o);
	if (o->state == M_INITIALIZING)
		o->state = M_CREATED;
}

bool model_fast_invalidated(struct model *m, struct m_object *o)
{
	if (o->state != M_VALID && o->state != M_ERROR)
		return false;
	model_owe(m, o, EV_REMOTE_INVALIDATED);
	if (model_has_windows(m, o)) {
		model_invalidate(m, o);
		model_evict(m, o);
	} else {
		fast_free(o);
	}
	return true;
}

/* ---- calls */

uint32_t model_begin_initialize(struct model *m, struct m_request *r)
{
	struct m_object *o = r->object = model_resolve(m, r, &r->say.ref[0]);
	uint32_t refused = 0;

	if (!o->fast)
		return BIT(S_INVALID_PARAMETER);
	if (o->state != M_CREATED && o->state != M_FREE)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (!model_adapter_up(o->parent))
		refused |= BIT(S_DEVICE_REMOVED);
	if (!r->say.pages || r->say.pages > SIM_FAST_PAGES)
		refused |= BIT(S_IMPLEMENTATION_LIMIT);
	if (refused)
		return refused;
	o->pages = r->say.pages;
	o->remote_access = r->say.remote_access;
	if (o->state == M_CREATED)
		o->state = M_INITIALIZING;
	return 0;
}

/* Where it begins and ends in what is named: whole pages, of which the first byte's offset and the length take a part. */
static uint32_t check_place(const struct sim_request *say, const struct m_object *o, uint64_t first, uint64_t total, uint64_t pages)
{
	uint32_t refused = 0;

	/* What is before a mapping in its first page is not the mapping's. */
	if (pages > o->pages || say->offset >= SIM_PAGE || say->offset < first || !say->length || say->offset - first > total ||
	    say->length > total - (say->offset - first))
		refused |= BIT(S_INVALID_PARAMETER);
	if (!say->iova || say->iova % SIM_PAGE != say->offset || say->length > UINT64_MAX - say->iova)
		refused |= BIT(S_INVALID_PARAMETER);
	return refused;
}

static uint32_t check_rights(const struct sim_request *say, const struct m_object *o, bool writable)
{
	uint32_t refused = model_flags_refused(say->flags, FLAG_ANY | FLAG_REMOTE_READ | FLAG_REMOTE_WRITE | FLAG_READ_SINK);
	uint32_t rights = model_rights_of(say->flags);

	if ((model_remote_rights(rights) && !o->remote_access) || ((rights & RIGHT_WRITE) && !writable))
		refused |= BIT(S_ACCESS_VIOLATION);
	return refused;
}

/* The part of what is named that is registered. */
static void take_ranges(struct m_object *o, uint64_t skip, uint64_t length, const struct m_range *ranges, unsigned n)
{
	o->n_ranges = 0;
	for (unsigned i = 0; i < n && length; i++) {
		uint64_t part = ranges[i].length;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part = part - skip < length ? part - skip : length;
		o->ranges[o->n_ranges] = ranges[i];
		o->ranges[o->n_ranges].offset += skip;
		o->ranges[o->n_ranges++].length = part;
		length -= part;
		skip = 0;
	}
}

uint32_t model_begin_fast_register(struct model *m, struct m_request *r, uint32_t *maybe)
{
	const struct sim_request *say = &r->say;
	struct m_object *o = r->object = model_resolve(m, r, &say->ref[0]), *qp = model_resolve(m, r, &say->ref[1]);
	struct m_object *mapping = model_resolve(m, r, &say->ref[2]);
	struct m_range ranges[SIM_RANGES];
	uint64_t total = 0, pages = 0, first = mapping ? mapping->iova % SIM_PAGE : 0;
	bool writable = true;
	uint32_t refused;
	unsigned n;

	if (!o->fast)
		return BIT(S_INVALID_PARAMETER);
	if (!qp)
		return BIT(S_INVALID_HANDLE);
	refused = model_work_refused(qp, o->parent);
	if (o->state != M_FREE)
		refused |= BIT(S_INVALID_DEVICE_STATE);
	if (!model_adapter_up(o->parent))
		refused |= BIT(S_DEVICE_REMOVED);
	for (unsigned i = 0; i < say->n_ranges; i++)
		if (!model_range(m, r, i).memory)
			refused |= BIT(S_INVALID_HANDLE);
	if (!mapping == !say->n_ranges)
		return refused | BIT(S_INVALID_PARAMETER);
	/* Its address has been told nobody. */
	if (mapping && mapping->state != M_BUILT)
		return refused | BIT(S_INVALID_HANDLE) | BIT(S_INVALID_PARAMETER) | BIT(S_ACCESS_VIOLATION);
	n = mapping ? mapping->n_ranges : say->n_ranges;
	for (unsigned i = 0; i < n; i++) {
		ranges[i] = mapping ? mapping->ranges[i] : model_range(m, r, i);
		if (!ranges[i].memory)
			return refused | BIT(S_INVALID_HANDLE) | BIT(S_INVALID_PARAMETER);
		writable &= ranges[i].memory->writable;
	}
	refused |= model_check_chain(ranges, n, mapping ? 0 : SIM_PAGE, &total);
	for (unsigned i = 0; i < n && !mapping; i++)
		pages += (ranges[i].length + SIM_PAGE - 1) / SIM_PAGE;
	if (mapping)
		pages = (first + total + SIM_PAGE - 1) / SIM_PAGE;
	for (unsigned i = 0; i < n && !mapping; i++)
		if (ranges[i].offset % SIM_PAGE)
			refused |= BIT(S_INVALID_PARAMETER);
	refused |= check_place(say, o, first, total, pages) | check_rights(say, o, writable);
	if (refused)
		return refused;
	take_ranges(o, say->offset - first, say->length, ranges, n);
	model_need(m, r, SLOT_PINNED, model_tag_cost(m, say->length) + model_attach_need(m, o, o->parent->parent->adapter), &refused, maybe);
	if (refused) {
		o->n_ranges = 0;
		return refused;
	}
	o->iova = say->iova;
	o->length = say->length;
	o->rights = model_rights_of(say->flags);
	o->fence = say->flags & FLAG_FENCE;
	o->qp = o->work_of = qp;
	qp->holds++;
	o->mapping = mapping;
	o->state = M_VALID_PENDING;
	o->verdict = 0;
	return 0;
}
