/* SPDX-License-Identifier: MIT */
/*
 * Mappings, and the privileged token. A mapping keeps its memories in use until its handle has gone and nicd has answered the close; it is nobody's
 * child but the session's.
 */
#include <errno.h>

#include "client/api.h"

/* ------------------------------------------------------------------------------------------------------------- mappings */

static void mapping_fini(struct object *object)
{
	struct nicd_mapping *mapping = (struct nicd_mapping *)object;

	for (unsigned i = 0; i < mapping->n_memories; i++) {
		mapping->memories[i]->object.users--;
		object_unref(&mapping->memories[i]->object);
	}
}

static int build_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_mapping *mapping = (struct nicd_mapping *)call->object;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_MAPPING ||
	    !object_live(&mapping->object, reply->mapping->id, reply->mapping->serial))
		return -EPROTO;
	mapping->address = reply->mapping->logical_address;
	mapping->length = reply->mapping->length;
	mapping->pages = reply->mapping->pages;
	return 0;
}

static int build_submit(struct call *call, const struct nicd_range *ranges, unsigned n_ranges)
{
	Nicd__BuildMapping body = NICD__BUILD_MAPPING__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Ref refs[MR_RANGES];
	Nicd__Range parts[MR_RANGES], *pointers[MR_RANGES];
	struct object *deps[MR_RANGES];

	for (unsigned i = 0; i < n_ranges; i++) {
		nicd__ref__init(&refs[i]);
		nicd__range__init(&parts[i]);
		parts[i].memory = &refs[i];
		parts[i].offset = ranges[i].offset;
		parts[i].length = ranges[i].length;
		pointers[i] = &parts[i];
		deps[i] = &ranges[i].memory->object;
	}
	body.n_ranges = n_ranges;
	body.ranges = pointers;
	request.call_case = NICD__REQUEST__CALL_BUILD_MAPPING;
	request.build_mapping = &body;
	return call_submit(call, &request, deps, n_ranges);
}

static int build_check(struct nicd *n, const struct nicd_range *ranges, unsigned n_ranges)
{
	int r = conn_check(n);

	if (r < 0)
		return r;
	if (n_ranges < 1 || n_ranges > MR_RANGES)
		return conn_refuse(n, NICD_R_COUNT, MR_RANGES, n_ranges);
	for (unsigned i = 0; i < n_ranges; i++)
		if (!ranges || !ranges[i].memory || ranges[i].memory->object.n != n)
			return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	return 0;
}

static int build_start(struct nicd *n, const struct nicd_range *ranges, unsigned n_ranges, struct nicd_mapping **ret,
		       struct call **call)
{
	struct nicd_mapping *mapping;
	int r = build_check(n, ranges, n_ranges);

	if (r < 0)
		return r;
	mapping = object_new(n, NICD_TYPE_MAPPING, sizeof(*mapping), NULL, mapping_fini);
	if (!mapping)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	for (unsigned i = 0; i < n_ranges; i++) {
		mapping->memories[mapping->n_memories++] = ranges[i].memory;
		object_ref(&ranges[i].memory->object);
		ranges[i].memory->object.users++;
	}
	r = call_new(call, n, &mapping->object, build_finish);
	if (r >= 0) {
		(*call)->makes = true;
		r = build_submit(*call, ranges, n_ranges);
	}
	if (r < 0)
		object_close(&mapping->object);
	else
		*ret = mapping;
	return r;
}

NICD_API int nicd_mapping_build(struct nicd *n, const struct nicd_range *ranges, unsigned n_ranges, struct nicd_mapping **ret)
{
	struct nicd_mapping *mapping;
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = build_start(n, ranges, n_ranges, &mapping, &call);
	if (r >= 0)
		r = handle_wait(&mapping->object, call);
	if (r >= 0)
		*ret = mapping;
	return r;
}

NICD_API int nicd_mapping_build_async(struct nicd *n, const struct nicd_range *ranges, unsigned n_ranges,
				      struct nicd_mapping **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = build_start(n, ranges, n_ranges, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API uint64_t nicd_mapping_address(const struct nicd_mapping *mapping)
{
	return mapping->address;
}

NICD_API uint64_t nicd_mapping_length(const struct nicd_mapping *mapping)
{
	return mapping->length;
}

NICD_API uint32_t nicd_mapping_pages(const struct nicd_mapping *mapping)
{
	return mapping->pages;
}

NICD_API uint64_t nicd_mapping_serial(const struct nicd_mapping *mapping)
{
	return mapping->object.serial;
}

NICD_API int nicd_mapping_close(struct nicd_mapping *mapping)
{
	return handle_close(mapping ? &mapping->object : NULL, NULL);
}

NICD_API int nicd_mapping_close_async(struct nicd_mapping *mapping, nicd_callback cb, void *userdata)
{
	return handle_close_async(mapping ? &mapping->object : NULL, NULL, cb, userdata);
}

/* ------------------------------------------------------------------------------------------------- the privileged token */

static int privileged_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_PRIVILEGED)
		return -EPROTO;
	*(uint32_t *)call->ret = reply->privileged->value;
	return 0;
}

static int privileged_start(struct nicd_pd *pd, uint32_t *ret, struct call **call)
{
	Nicd__GetPrivilegedToken body = NICD__GET_PRIVILEGED_TOKEN__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Ref ref = NICD__REF__INIT;
	struct object *dep = &pd->object;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = call_new(call, pd->object.n, &pd->object, privileged_finish);
	if (r < 0)
		return r;
	(*call)->ret = ret;
	body.pd = &ref;
	request.call_case = NICD__REQUEST__CALL_GET_PRIVILEGED_TOKEN;
	request.get_privileged_token = &body;
	return call_submit(*call, &request, &dep, 1);
}

CALL_TWINS(nicd_pd_privileged_token, (struct nicd_pd *pd, uint32_t *ret), privileged_start(pd, ret, &call))
