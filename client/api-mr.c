/* SPDX-License-Identifier: MIT */
/*
 * Memory regions. The handle remembers what the last registration answered, and which memories stand under it: from the
 * request to register until it is refused, or undone, or the handle is closed, those are in use.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/api.h"
#include "client/attr.h"
#include "client/buffer.h"

/* What to register, in the protocol's words. */
struct mr_plan {
	Nicd__Ref mr_ref;
	Nicd__Ref refs[MR_RANGES];
	Nicd__Range ranges[MR_RANGES];
	Nicd__Range *pointers[MR_RANGES];
	Nicd__RegisterMr body;
	struct object *deps[CALL_DEPS];
	int fd;               /* borrowed; -1: none */
	size_t page_size;     /* of the first range */
};

/* ------------------------------------------------------------------------------------------------------ memories in use */

static void use_release(struct mr_use *use)
{
	while (use->n_memories > 0) {
		struct object *memory = &use->memories[--use->n_memories]->object;

		memory->users--;
		object_unref(memory);
	}
}

static struct mr_use *use_free(struct mr_use *use)
{
	LIST_REMOVE(use, next);
	use_release(use);
	free(use);
	return NULL;
}

static struct mr_use *use_new(struct nicd_mr *mr, const struct mr_plan *plan)
{
	struct mr_use *use = calloc(1, sizeof(*use));

	if (!use)
		return NULL;
	for (size_t i = 0; i < plan->body.n_ranges; i++) {
		struct object *memory = plan->deps[1 + i];

		if (!memory)
			continue;
		memory->users++;
		use->memories[use->n_memories++] = (struct nicd_memory *)object_ref(memory);
	}
	LIST_INSERT_HEAD(&mr->uses, use, next);
	return use;
}

/* The registration is over. */
static void mr_release(struct nicd_mr *mr)
{
	struct mr_use *use, *next;

	for (use = LIST_FIRST(&mr->uses); use; use = next) {
		next = LIST_NEXT(use, next);
		if (use->granted)
			use_free(use);
	}
}

static void mr_fini(struct object *object)
{
	struct nicd_mr *mr = (struct nicd_mr *)object;

	while (!LIST_EMPTY(&mr->uses))
		use_free(LIST_FIRST(&mr->uses));
}

/* A confirmation comes after the tokens were forgotten; while there are some, it is of an earlier registration. */
static void mr_event(struct object *object, uint32_t kind)
{
	struct nicd_mr *mr = (struct nicd_mr *)object;

	if (kind == NICD_EVENT_REVOKED || (kind == NICD_EVENT_REVOKE_CONFIRMED && !mr->region.local_token))
		mr_release(mr);
}

/* ----------------------------------------------------------------------------------------------------- what to register */

static void plan_init(struct mr_plan *plan, struct nicd_mr *mr, int fd)
{
	plan->fd = fd;
	plan->page_size = NICD_PAGE;
	nicd__ref__init(&plan->mr_ref);
	nicd__register_mr__init(&plan->body);
	plan->body.mr = &plan->mr_ref;
	plan->body.ranges = plan->pointers;
	plan->body.n_ranges = 0;
	plan->deps[0] = &mr->object;
}

static void plan_add(struct mr_plan *plan, struct nicd_memory *memory, uint64_t offset, uint64_t length)
{
	size_t i = plan->body.n_ranges++;

	nicd__ref__init(&plan->refs[i]);
	nicd__range__init(&plan->ranges[i]);
	plan->ranges[i].memory = memory ? &plan->refs[i] : NULL;
	plan->ranges[i].offset = offset;
	plan->ranges[i].length = length;
	plan->pointers[i] = &plan->ranges[i];
	plan->deps[1 + i] = memory ? &memory->object : NULL;
}

static int plan_add_buffer(struct mr_plan *plan, struct nicd *n, const struct nicd_mr_attr *attr)
{
	struct nicd_memory *memory = nicd_buffer_memory(attr->buffer);
	uint64_t size = nicd_buffer_size(attr->buffer);

	if (attr->ranges || attr->n_ranges || plan->fd >= 0 || memory->object.n != n)
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (attr->offset >= size)
		return conn_refuse(n, NICD_R_RANGE_BEYOND, size, attr->offset);
	plan_add(plan, memory, attr->offset, attr->length ? attr->length : size - attr->offset);
	plan->page_size = nicd_buffer_page_size(attr->buffer);
	return 0;
}

static int plan_add_ranges(struct mr_plan *plan, struct nicd *n, const struct nicd_mr_attr *attr)
{
	if (attr->n_ranges < 1 || attr->n_ranges > MR_RANGES)
		return conn_refuse(n, NICD_R_COUNT, MR_RANGES, attr->n_ranges);
	if (!attr->ranges || attr->offset)
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	for (uint32_t i = 0; i < attr->n_ranges; i++) {
		const struct nicd_range *range = &attr->ranges[i];

		if (range->memory ? range->memory->object.n != n : plan->fd < 0)
			return conn_fail(n, ERROR_ARGUMENT, 0, 0);
		plan_add(plan, range->memory, range->offset, range->length);
	}
	if (attr->ranges[0].memory)
		plan->page_size = attr->ranges[0].memory->page_size;
	plan->body.length = attr->length;
	return 0;
}

/* All of the fd that comes with the registration. What is not a memfd is nicd's to refuse. */
static int plan_add_fd(struct mr_plan *plan, struct nicd *n, const struct nicd_mr_attr *attr)
{
	struct stat st;

	if (fstat(plan->fd, &st) < 0)
		return conn_fail_system(n, errno, "the registration's fd", "pass an open memfd");
	plan_add(plan, NULL, 0, st.st_size > 0 ? (uint64_t)st.st_size : 1);
	plan->body.length = attr->length;
	return 0;
}

static uint64_t plan_length(const struct mr_plan *plan)
{
	uint64_t length = plan->body.length;

	/* A sum that wraps is refused by nicd; here it only moves the address. */
	for (size_t i = 0; plan->body.length == 0 && i < plan->body.n_ranges; i++)
		length += plan->ranges[i].length;
	return length;
}

/*
 * An address for peers that tells nothing about this process: random below 2^47, never on page 0, and in its page where the
 * memory is in its own, huge ones included.
 */
static uint64_t plan_iova(const struct mr_plan *plan, struct nicd *n)
{
	const uint64_t end = (uint64_t)1 << 47;
	uint64_t page = plan->page_size, length = plan_length(plan), pages;

	/* The first page, the one of the offset and the one that the length begins are not to be had. */
	pages = length < end - 3 * page ? (end - length) / page - 2 : 1;
	return (1 + conn_random(n) % pages) * page + plan->ranges[0].offset % page;
}

static int plan_make(struct mr_plan *plan, struct nicd_mr *mr, int fd, const struct nicd_mr_attr *user_attr)
{
	struct nicd *n = mr->object.n;
	struct nicd_mr_attr attr;
	int r = conn_check(n);

	plan_init(plan, mr, fd);
	if (r >= 0)
		r = attr_get(&n->error, &attr, sizeof(attr), sizeof(attr), user_attr);
	if (r < 0)
		return r;
	if (attr.reserved)
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (fd >= 0)
		buffer_page_size(fd, &plan->page_size);
	if (attr.buffer)
		r = plan_add_buffer(plan, n, &attr);
	else if (fd >= 0 && attr.n_ranges == 0)
		r = plan_add_fd(plan, n, &attr);
	else
		r = plan_add_ranges(plan, n, &attr);
	if (r < 0)
		return r;
	plan->body.flags = attr.flags;
	plan->body.iova = attr.iova ? attr.iova : plan_iova(plan, n);
	return 0;
}

/* ---------------------------------------------------------------------------------------------------------- registering */

static int register_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_mr *mr = (struct nicd_mr *)call->object;
	struct mr_use *use = call->ret;

	if (error < 0 || !reply || reply->result_case != NICD__REPLY__RESULT_MR) {
		use_free(use);
		return error < 0 ? error : -EPROTO;
	}
	mr_release(mr);
	use->granted = true;
	return region_take(&mr->region, reply, error);
}

/* The registration of a new MR, whose making may have failed: that is the error then. */
static int register_new_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	const struct object *object = call->object;

	error = register_finish(call, reply, error);
	if (error < 0 && object->state == OBJECT_FAILED && object->why && call->why) {
		*call->why = *object->why;
		error = object->why->error;
	}
	return error;
}

static int register_start(struct nicd_mr *mr, struct mr_plan *plan,
			  int (*finish)(struct call *call, const Nicd__Reply *reply, int error), struct call **ret)
{
	struct nicd *n = mr->object.n;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct mr_use *use;
	struct call *call;
	int r = call_new(&call, n, &mr->object, finish);

	if (r < 0)
		return r;
	if (plan->fd >= 0 && (call->fd = fcntl(plan->fd, F_DUPFD_CLOEXEC, 0)) < 0) {
		r = conn_fail_system(n, errno, "the registration's fd", "pass an open memfd");
		call_free(call);
		return r;
	}
	use = use_new(mr, plan);
	if (!use) {
		call_free(call);
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	}
	call->ret = use;
	call->order = CALL_SETTLES_MR;
	request.call_case = NICD__REQUEST__CALL_REGISTER_MR;
	request.register_mr = &plan->body;
	*ret = call;
	r = call_submit(call, &request, plan->deps, 1 + (unsigned)plan->body.n_ranges);
	if (r < 0)
		use_free(use);
	return r;
}

static int mr_register(struct nicd_mr *mr, int fd, const struct nicd_mr_attr *attr, struct call **call)
{
	struct mr_plan plan;
	int r = plan_make(&plan, mr, fd, attr);

	return r < 0 ? r : register_start(mr, &plan, register_finish, call);
}

CALL_TWINS(nicd_mr_register, (struct nicd_mr *mr, const struct nicd_mr_attr *attr), mr_register(mr, -1, attr, &call))

static int mr_register_fd(struct nicd_mr *mr, int fd, const struct nicd_mr_attr *attr, struct call **call)
{
	if (fd < 0)
		return conn_fail(mr->object.n, ERROR_ARGUMENT, 0, 0);
	return mr_register(mr, fd, attr, call);
}

CALL_TWINS(nicd_mr_register_fd, (struct nicd_mr *mr, int fd, const struct nicd_mr_attr *attr),
	   mr_register_fd(mr, fd, attr, &call))

/* --------------------------------------------------------------------------------------------------------------- making */

static int create_start(struct nicd_pd *pd, bool fast_register, struct nicd_mr **ret, struct call **call)
{
	struct nicd *n = pd->object.n;
	struct nicd_mr *mr;
	int r = conn_check(n);

	if (r < 0)
		return r;
	mr = object_new(n, NICD_TYPE_MR, sizeof(*mr), &pd->object, mr_fini);
	if (!mr)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	mr->object.event = mr_event;
	LIST_INIT(&mr->uses);
	r = call_new(call, n, &mr->object, object_info_finish);
	if (r >= 0) {
		Nicd__Ref ref = NICD__REF__INIT;
		Nicd__CreateMr body = NICD__CREATE_MR__INIT;
		Nicd__Request request = NICD__REQUEST__INIT;
		struct object *dep = &pd->object;

		(*call)->makes = true;
		body.pd = &ref;
		body.fast_register = fast_register;
		request.call_case = NICD__REQUEST__CALL_CREATE_MR;
		request.create_mr = &body;
		r = call_submit(*call, &request, &dep, 1);
	}
	if (r < 0)
		object_close(&mr->object);
	else
		*ret = mr;
	return r;
}

static int create_wait(struct nicd_pd *pd, bool fast_register, struct nicd_mr **ret)
{
	struct nicd_mr *mr;
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = create_start(pd, fast_register, &mr, &call);
	if (r >= 0)
		r = handle_wait(&mr->object, call);
	if (r >= 0)
		*ret = mr;
	return r;
}

static int create_later(struct nicd_pd *pd, bool fast_register, struct nicd_mr **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = create_start(pd, fast_register, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API int nicd_mr_create(struct nicd_pd *pd, struct nicd_mr **ret)
{
	return create_wait(pd, false, ret);
}

NICD_API int nicd_mr_create_async(struct nicd_pd *pd, struct nicd_mr **ret, nicd_callback cb, void *userdata)
{
	return create_later(pd, false, ret, cb, userdata);
}

NICD_API int nicd_mr_create_fast(struct nicd_pd *pd, struct nicd_mr **ret)
{
	return create_wait(pd, true, ret);
}

NICD_API int nicd_mr_create_fast_async(struct nicd_pd *pd, struct nicd_mr **ret, nicd_callback cb, void *userdata)
{
	return create_later(pd, true, ret, cb, userdata);
}

static int new_start(struct nicd_pd *pd, const struct nicd_mr_attr *attr, struct nicd_mr **ret, struct call **call)
{
	struct nicd_mr *mr;
	struct mr_plan plan;
	struct call *create;
	int r = create_start(pd, false, &mr, &create);

	if (r < 0)
		return r;
	call_later(create, NULL, NULL);
	r = plan_make(&plan, mr, -1, attr);
	if (r >= 0)
		r = register_start(mr, &plan, register_new_finish, call);
	if (r < 0)
		handle_discard(&mr->object);
	else
		*ret = mr;
	return r;
}

NICD_API int nicd_mr_new(struct nicd_pd *pd, const struct nicd_mr_attr *attr, struct nicd_mr **ret)
{
	struct nicd_mr *mr;
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = new_start(pd, attr, &mr, &call);
	if (r >= 0)
		r = handle_wait(&mr->object, call);
	if (r >= 0)
		*ret = mr;
	return r;
}

NICD_API int nicd_mr_new_async(struct nicd_pd *pd, const struct nicd_mr_attr *attr, struct nicd_mr **ret, nicd_callback cb,
			       void *userdata)
{
	struct call *call;
	int r = conn_check_ret(pd->object.n, ret);

	if (r >= 0)
		r = new_start(pd, attr, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

/* --------------------------------------------------------------------------------------------------------------- tokens */

NICD_API uint32_t nicd_mr_local_token(const struct nicd_mr *mr)
{
	return mr->region.local_token;
}

NICD_API uint32_t nicd_mr_remote_token(const struct nicd_mr *mr)
{
	return mr->region.remote_token;
}

NICD_API uint64_t nicd_mr_iova(const struct nicd_mr *mr)
{
	return mr->region.iova;
}

NICD_API uint64_t nicd_mr_length(const struct nicd_mr *mr)
{
	return mr->region.length;
}

NICD_API uint32_t nicd_mr_flags(const struct nicd_mr *mr)
{
	return mr->region.flags;
}

NICD_API uint32_t nicd_mr_generation(const struct nicd_mr *mr)
{
	return mr->region.generation;
}

NICD_API uint64_t nicd_mr_serial(const struct nicd_mr *mr)
{
	return mr->object.serial;
}

CALL_TWINS(nicd_mr_get_local_token, (struct nicd_mr *mr, uint32_t *ret),
	   region_token_start(&mr->object, NICD__REQUEST__CALL_GET_LOCAL_TOKEN, ret, &call))

CALL_TWINS(nicd_mr_get_remote_token, (struct nicd_mr *mr, uint32_t *ret),
	   region_token_start(&mr->object, NICD__REQUEST__CALL_GET_REMOTE_TOKEN, ret, &call))

static int query_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_TOKENS || reply->tokens->n_local_tokens != call->count ||
	    reply->tokens->n_remote_tokens != call->count)
		return -EPROTO;
	if (call->ret)
		memcpy(call->ret, reply->tokens->local_tokens, call->count * sizeof(uint32_t));
	if (call->ret2)
		memcpy(call->ret2, reply->tokens->remote_tokens, call->count * sizeof(uint32_t));
	return 0;
}

static int query_start(struct nicd *n, struct nicd_mr *const *mrs, unsigned count, uint32_t *local_tokens,
		       uint32_t *remote_tokens, struct call **call)
{
	Nicd__QueryTokens body = NICD__QUERY_TOKENS__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	uint64_t ids[NICD_QUERY_IDS];
	int r = conn_check(n);

	if (r >= 0 && (count < 1 || count > NICD_QUERY_IDS))
		r = conn_refuse(n, NICD_R_COUNT, NICD_QUERY_IDS, count);
	if (r >= 0)
		r = call_new(call, n, NULL, query_finish);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < count; i++)
		ids[i] = mrs[i]->object.n == n ? mrs[i]->object.id : 0;
	(*call)->ret = local_tokens;
	(*call)->ret2 = remote_tokens;
	(*call)->count = count;
	body.mrs = ids;
	body.n_mrs = count;
	request.call_case = NICD__REQUEST__CALL_QUERY_TOKENS;
	request.query_tokens = &body;
	return call_submit(*call, &request, NULL, 0);
}

CALL_TWINS(nicd_query_tokens,
	   (struct nicd *n, struct nicd_mr *const *mrs, unsigned count, uint32_t *local_tokens, uint32_t *remote_tokens),
	   query_start(n, mrs, count, local_tokens, remote_tokens, &call))

/* -------------------------------------------------------------------------------------------------------------- the end */

static int deregister_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_mr *mr = (struct nicd_mr *)call->object;

	error = receipt_finish(call, reply, error);
	if (error == 0 || error == -EINPROGRESS)
		region_forget(&mr->region);
	if (error == 0)
		mr_release(mr);
	return error;
}

static int deregister_start(struct nicd_mr *mr, struct nicd_receipt *ret, struct call **call)
{
	int r = attr_check(mr->object.n, ret, sizeof(*ret));

	if (r >= 0)
		r = call_new(call, mr->object.n, &mr->object, deregister_finish);
	if (r < 0)
		return r;
	(*call)->ret = ret;
	(*call)->order = CALL_SETTLES;
	return call_submit_ref(*call, NICD__REQUEST__CALL_DEREGISTER_MR, &mr->object);
}

CALL_TWINS(nicd_mr_deregister, (struct nicd_mr *mr, struct nicd_receipt *ret), deregister_start(mr, ret, &call))

/*
 * What the handle stands on is free to be closed: nicd answers that after this. Registrations under way still know their
 * use.
 */
static void mr_before_close(struct object *object)
{
	struct mr_use *use;

	LIST_FOREACH(use, &((struct nicd_mr *)object)->uses, next)
		use_release(use);
}

NICD_API int nicd_mr_close(struct nicd_mr *mr)
{
	return handle_close(mr ? &mr->object : NULL, mr_before_close);
}

NICD_API int nicd_mr_close_async(struct nicd_mr *mr, nicd_callback cb, void *userdata)
{
	return handle_close_async(mr ? &mr->object : NULL, mr_before_close, cb, userdata);
}
