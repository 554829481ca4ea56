/* SPDX-License-Identifier: MIT */
/*
 * Fast-register memory regions. A handle of theirs is a struct nicd_mr like any other, and remembers what the last fast registration
 * answered. What the memory is in use for nicd knows alone: it may be invalidated by a peer, whom nobody asks here.
 */
#include <errno.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"

static int fast_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	return region_take(&((struct nicd_mr *)call->object)->region, reply, error);
}

/* ----------------------------------------------------------------------------------------------------------- initialize */

static int init_start(struct nicd_mr *mr, uint32_t pages, int remote_access, struct call **call)
{
	Nicd__InitializeFastRegister body = NICD__INITIALIZE_FAST_REGISTER__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Ref ref = NICD__REF__INIT;
	struct object *dep = &mr->object;
	int r = call_new(call, mr->object.n, &mr->object, fast_finish);

	if (r < 0)
		return r;
	body.mr = &ref;
	body.adapter_page_count = pages;
	body.remote_access = remote_access;
	request.call_case = NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER;
	request.initialize_fast_register = &body;
	(*call)->order = CALL_SETTLES_MR;
	return call_submit(*call, &request, &dep, 1);
}

CALL_TWINS(nicd_mr_init_fast_register, (struct nicd_mr *mr, uint32_t pages, int remote_access),
	   init_start(mr, pages, remote_access, &call))

/* -------------------------------------------------------------------------------------------------------- fast register */

enum { FIRST_RANGE = 3 };

/* What to register, in the protocol's words. */
struct fast_plan {
	Nicd__Ref refs[FIRST_RANGE + MR_RANGES];
	Nicd__Range ranges[MR_RANGES];
	Nicd__Range *pointers[MR_RANGES];
	Nicd__FastRegister body;
	struct object *deps[FIRST_RANGE + MR_RANGES];   /* as the fields of the request: the MR, the Qp, the mapping or NULL, the memories */
};

static int plan_make(struct fast_plan *plan, struct nicd_mr *mr, const struct nicd_fast_attr *attr)
{
	struct nicd *n = mr->object.n;

	if (!attr->qp || attr->qp->object.n != n || (attr->n_ranges > 0 && !attr->ranges) ||
	    (attr->mapping && attr->mapping->object.n != n))
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (attr->mapping && attr->n_ranges > 0)
		return conn_refuse(n, NICD_R_MAPPING_OR_RANGES, 0, attr->n_ranges);
	if ((attr->n_ranges < 1 && !attr->mapping) || attr->n_ranges > MR_RANGES)
		return conn_refuse(n, NICD_R_COUNT, MR_RANGES, attr->n_ranges);
	for (unsigned i = 0; i < FIRST_RANGE + attr->n_ranges; i++)
		nicd__ref__init(&plan->refs[i]);
	nicd__fast_register__init(&plan->body);
	plan->deps[0] = &mr->object;
	plan->deps[1] = &attr->qp->object;
	plan->deps[2] = attr->mapping ? &attr->mapping->object : NULL;
	plan->body.mapping = attr->mapping ? &plan->refs[2] : NULL;
	plan->body.mr = &plan->refs[0];
	plan->body.qp = &plan->refs[1];
	plan->body.first_byte_offset = attr->first_byte_offset;
	plan->body.length = attr->length;
	plan->body.iova = attr->iova;
	plan->body.flags = attr->flags;
	plan->body.n_ranges = attr->n_ranges;
	plan->body.ranges = plan->pointers;
	for (unsigned i = 0; i < attr->n_ranges; i++) {
		if (!attr->ranges[i].memory || attr->ranges[i].memory->object.n != n)
			return conn_fail(n, ERROR_ARGUMENT, 0, 0);
		nicd__range__init(&plan->ranges[i]);
		plan->ranges[i].memory = &plan->refs[FIRST_RANGE + i];
		plan->ranges[i].offset = attr->ranges[i].offset;
		plan->ranges[i].length = attr->ranges[i].length;
		plan->pointers[i] = &plan->ranges[i];
		plan->deps[FIRST_RANGE + i] = &attr->ranges[i].memory->object;
	}
	return 0;
}

static int fast_start(struct nicd_mr *mr, const struct nicd_fast_attr *user_attr, bool waits, struct call **call)
{
	Nicd__Request request = NICD__REQUEST__INIT;
	struct nicd *n = mr->object.n;
	struct nicd_fast_attr attr;
	struct fast_plan plan;
	int r = conn_check(n);

	if (r >= 0)
		r = attr_get(&n->error, &attr, sizeof(attr), sizeof(attr), user_attr);
	if (r >= 0)
		r = plan_make(&plan, mr, &attr);
	if (r >= 0)
		r = call_new(call, n, &mr->object, fast_finish);
	if (r < 0)
		return r;
	region_silence(*call, &plan.body.flags, waits);
	request.call_case = NICD__REQUEST__CALL_FAST_REGISTER;
	request.fast_register = &plan.body;
	(*call)->order = CALL_SETTLES_MR;
	return call_submit(*call, &request, plan.deps, FIRST_RANGE + attr.n_ranges);
}

CALL_TWINS(nicd_mr_fast_register, (struct nicd_mr *mr, const struct nicd_fast_attr *attr), fast_start(mr, attr, waits, &call))

/* ----------------------------------------------------------------------------------------------------------- invalidate */

static int invalidate_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	return region_receipt_finish(&((struct nicd_mr *)call->object)->region, call, reply, error);
}

CALL_TWINS(nicd_mr_invalidate, (struct nicd_mr *mr, struct nicd_qp *qp, uint32_t flags, struct nicd_receipt *ret),
	   region_invalidate_start(&mr->object, &(struct region_invalidate){ qp, flags, ret }, waits, invalidate_finish, &call))
