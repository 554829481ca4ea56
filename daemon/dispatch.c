/* SPDX-License-Identifier: MIT */
/*
 * The one way from frames to methods. A frame is checked as a whole before any of its requests starts, so that a violation
 * leaves nothing behind. Then each request in turn passes the same checks: state, role, descriptors, dependencies, objects;
 * methods see typed arguments and live objects only.
 *
 * Requests that name the result of one that is not answered yet wait as calls (call.c) and start from dispatch_ready,
 * never from inside the answer that they waited for: the decoding arena serves one at a time.
 */
#include "daemon/dispatch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "daemon/util.h"
#include "proto/nicd.pb-c.h"

enum {
	DISPATCH_DEPS = METHOD_REFS + NICD_RANGES,
	READY_LOOK = 64,   /* calls that waited are started in one go */
};

struct dispatch *dispatch_new(struct nic_env *env, const struct policy *policy)
{
	struct dispatch *dispatch = env->alloc(env, sizeof(*dispatch));

	if (dispatch)
		calls_init(&dispatch->calls, policy);
	return dispatch;
}

struct dispatch *dispatch_free(struct dispatch *dispatch, struct nic_env *env)
{
	if (dispatch) {
		calls_deinit(&dispatch->calls, env);
		env->free(env, dispatch, sizeof(*dispatch));
	}
	return NULL;
}

void dispatch_log(struct client *client, const char *method, const struct nicd_error *error)
{
	switch (error->reason) {
	case NICD_R_NOT_PERMITTED:
	case NICD_R_QUOTA:
	case NICD_R_IN_FLIGHT:
	case NICD_R_NO_MEMORY:
	case NICD_R_INTERNAL:
	case NICD_R_REVOKE_UNCONFIRMED:
	case NICD_R_DEVICE_LOST:
	case NICD_R_DEVICE_FAILED:
		client->host->log(client->host, client, method, error);
		break;
	default:
		break;
	}
}

int method_to_come(struct request *request, struct answer *answer, struct nicd_error *err)
{
	return nicd_refuse(err, NICD_R_NOT_SUPPORTED);
}

/* ---- the references of a request: its own, then those of its ranges */

static unsigned refs_count(const struct method *method, const void *args)
{
	size_t n_ranges = method->ranges ? *(const size_t *)((const char *)args + method->ranges) : 0;

	/* The frame's budget of messages keeps it far below. */
	return METHOD_REFS + (unsigned)n_ranges;
}

/* NULL: absent. */
static Nicd__Ref *refs_at(const struct method *method, const void *args, unsigned i)
{
	const struct method_ref *ref;
	Nicd__Range **ranges;

	if (i < METHOD_REFS) {
		ref = &method->refs[i];
		return ref->need ? *(Nicd__Ref *const *)((const char *)args + ref->at) : NULL;
	}
	/* protobuf-c puts the array behind its count. */
	ranges = *(Nicd__Range **const *)((const char *)args + method->ranges + sizeof(size_t));
	return ranges[i - METHOD_REFS]->memory;
}

/* ---- the frame as a whole */

/* The place of an id of this frame: the one that has it, or the free one where it belongs. */
static unsigned ids_place(const struct dispatch *dispatch, uint32_t id)
{
	unsigned at = id * UINT32_C(0x9E3779B1) >> (32 - METHOD_IDS_BITS);

	while (dispatch->ids[at].epoch == dispatch->epoch && dispatch->ids[at].id != id)
		at = (at + 1) % METHOD_IDS;
	return at;
}

/* The index of the request with this id among those seen so far, or -1. */
static int ids_find(const struct dispatch *dispatch, uint32_t id)
{
	unsigned at = ids_place(dispatch, id);

	return dispatch->ids[at].epoch == dispatch->epoch ? (int)dispatch->ids[at].index : -1;
}

static bool ids_add(struct dispatch *dispatch, uint32_t id, unsigned index)
{
	unsigned at = ids_place(dispatch, id);

	if (dispatch->ids[at].epoch == dispatch->epoch)
		return false;
	dispatch->ids[at].epoch = dispatch->epoch;
	dispatch->ids[at].id = id;
	dispatch->ids[at].index = index;
	return true;
}

static void ids_clear(struct dispatch *dispatch)
{
	if (++dispatch->epoch)
		return;
	memset(dispatch->ids, 0, sizeof(dispatch->ids));
	dispatch->epoch = 1;
}

static int check_request(struct client *client, const Nicd__Request *message, unsigned index, struct nicd_error *violation)
{
	struct dispatch *dispatch = client->host->dispatch;
	const struct method *method = method_find(message->call_case);

	if (!method)
		return nicd_refuse_at(violation, NICD_R_REQUEST_EMPTY, 0, message->id);
	for (unsigned i = 0, n = refs_count(method, message->hello); i < n; i++) {
		const Nicd__Ref *ref = refs_at(method, message->hello, i);

		if (ref && ref->of_case == NICD__REF__OF_RESULT_OF && ids_find(dispatch, ref->result_of) < 0)
			return nicd_refuse_at(violation, NICD_R_REFERENCE_ORDER, message->id, ref->result_of);
	}
	if (!message->id || !ids_add(dispatch, message->id, index) || call_find(client, message->id))
		return nicd_refuse_at(violation, NICD_R_REQUEST_ID, 0, message->id);
	return 0;
}

int dispatch_check(struct client *client, const Nicd__Frame *frame, unsigned n_fds, struct nicd_error *violation)
{
	uint64_t fds = 0;
	int r;

	if (frame->n_replies || frame->n_events || frame->fatal)
		return nicd_refuse(violation, NICD_R_FRAME_DIRECTION);
	if (!frame->n_requests)
		return nicd_refuse(violation, NICD_R_FRAME_EMPTY);
	if (frame->n_requests > NICD_FRAME_REQUESTS)
		return nicd_refuse_at(violation, NICD_R_FRAME_REQUESTS, NICD_FRAME_REQUESTS, frame->n_requests);
	ids_clear(client->host->dispatch);
	for (unsigned i = 0; i < frame->n_requests; i++) {
		r = check_request(client, frame->requests[i], i, violation);
		if (r < 0)
			return r;
		fds += frame->requests[i]->fds;
	}
	if (fds != n_fds)
		return nicd_refuse_at(violation, NICD_R_FRAME_FDS_MISMATCH, fds, n_fds);
	return 0;
}

/* ---- one request */

/* Takes what the request names. More than the method wants are closed here; request_admit refuses them. */
static void request_take_fds(struct request *request, struct wire_packet *packet)
{
	struct nic_env *env = request->client->host->env;

	for (uint32_t n = request->message->fds; n; n--) {
		int fd = wire_take_fd(packet);

		assert(fd >= 0);
		if (request->fd < 0)
			request->fd = fd;
		else
			env->close_fd(env, fd, UINT64_MAX);
	}
}

static int request_admit(const struct request *request, struct nicd_error *err)
{
	const struct client *client = request->client;
	const struct method *method = request->method;
	const struct policy *policy = client->host->policy;
	uint32_t fds = request->message->fds;
	unsigned n_ranges = refs_count(method, request->args) - METHOD_REFS;

	if (!(method->states & 1u << client->state))
		return nicd_refuse(err, client->state == CLIENT_NEW ? NICD_R_HELLO_FIRST : NICD_R_HELLO_AGAIN);
	if (!(method->roles & 1u << client->identity.role))
		return nicd_refuse_at(err, NICD_R_NOT_PERMITTED, method->roles, client->identity.role);
	if (fds < method->min_fds || fds > method->max_fds)
		return nicd_refuse_at(err, NICD_R_FDS, method->max_fds, fds);
	if (n_ranges > NICD_RANGES)
		return nicd_refuse_at(err, NICD_R_COUNT, NICD_RANGES, n_ranges);
	if (method->flags & METHOD_BULK && client->out.bytes > policy->max_output)
		return nicd_refuse_at(err, NICD_R_IN_FLIGHT, policy->max_output, client->out.bytes);
	return 0;
}

/*
 * Puts ids in place of the result_ofs that have one; those of calls not answered yet go into `deps`. Returns how many
 * they are, or DEPENDENCY.
 */
static int request_dependencies(struct request *request, struct call_dep deps[DISPATCH_DEPS], struct nicd_error *err)
{
	struct dispatch *dispatch = request->client->host->dispatch;
	unsigned n_deps = 0;

	for (unsigned i = 0, n = refs_count(request->method, request->args); i < n; i++) {
		Nicd__Ref *ref = refs_at(request->method, request->args, i);
		const struct frame_slot *slot;

		if (!ref || ref->of_case != NICD__REF__OF_RESULT_OF)
			continue;
		slot = &dispatch->slots[ids_find(dispatch, ref->result_of)];
		if (slot->state == SLOT_REFUSED)
			return nicd_refuse_at(err, NICD_R_DEPENDENCY, 0, ref->result_of);
		if (slot->state == SLOT_PENDING) {
			deps[n_deps++] = (struct call_dep){ .on = slot->call, .result_of = ref->result_of };
			continue;
		}
		ref->of_case = NICD__REF__OF_ID;
		ref->id = slot->id;
	}
	return (int)n_deps;
}

static int request_resolve(struct request *request, struct nicd_error *err)
{
	const struct method *method = request->method;
	int r;

	for (unsigned i = 0, n = refs_count(method, request->args); i < n; i++) {
		const Nicd__Ref *ref = refs_at(method, request->args, i);
		enum ref_need need = i < METHOD_REFS ? method->refs[i].need : REF_OPTIONAL;
		enum nic_type type = i < METHOD_REFS ? method->refs[i].type : NIC_MEMORY;
		struct nic_object *object = NULL;

		if (need == REF_NONE || need == REF_UNREAD)
			continue;
		if (ref && ref->of_case == NICD__REF__OF_ID) {
			r = nic_owner_find(&request->client->owner, ref->id, type, &object, err);
			if (r < 0)
				return r;
		} else if (need == REF_REQUIRED) {
			return nicd_refuse(err, NICD_R_HANDLE);
		}
		if (i < METHOD_REFS)
			request->objects[i] = object;
		else
			request->memories[i - METHOD_REFS] = object ? container_of(object, struct nic_memory, object) : NULL;
	}
	return 0;
}

static void slot_end(struct frame_slot *slot, const struct answer *answer)
{
	if (slot)
		*slot = (struct frame_slot){ .state = answer->reply.error ? SLOT_REFUSED : SLOT_DONE, .id = answer->result };
}

/* The final reply of a request that is a call, or of one that never became one. */
static void request_end(struct request *request, struct call *call, struct frame_slot *slot, struct answer *answer)
{
	if (call) {
		call_settle(call, answer);
		call_started(call);
		return;
	}
	slot_end(slot, answer);
	client_reply(request->client, &answer->reply);
}

static void request_refuse(struct request *request, struct call *call, struct frame_slot *slot, const struct nicd_error *error)
{
	struct answer answer;

	dispatch_log(request->client, request->method->name, error);
	answer_init(&answer, request->id);
	answer_refuse(&answer, error);
	request_end(request, call, slot, &answer);
}

static int request_start(struct request *request, struct call **call, struct frame_slot *slot, struct nicd_error *err)
{
	int r;

	if (!*call) {
		r = call_new(call, request->client, request->method, request->id, err);
		if (r < 0)
			return r;
		(*call)->slot = slot;
		*slot = (struct frame_slot){ .state = SLOT_PENDING, .call = *call };
		(void)call_serve(*call);   /* dispatch_request has looked */
	}
	r = request->method->start(request, *call, err);
	if (r >= 0)
		call_started(*call);
	return r;
}

/* Everything is there: objects, then the method. `call` is one that has waited, or NULL with the slot of its frame. */
static void request_run(struct request *request, struct call *call, struct frame_slot *slot)
{
	struct nicd_error err = { 0 };
	struct answer answer;
	int r;

	r = request_resolve(request, &err);
	if (r < 0) {
		request_refuse(request, call, slot, &err);
	} else if (request->method->answer) {
		answer_init(&answer, request->id);
		r = request->method->answer(request, &answer, &err);
		if (r < 0)
			request_refuse(request, call, slot, &err);
		else
			request_end(request, call, slot, &answer);
		answer_deinit(&answer);
	} else {
		r = request_start(request, &call, slot, &err);
		if (r < 0)
			request_refuse(request, call, slot, &err);
	}
}

static void request_wait(struct request *request, struct frame_slot *slot, const struct call_dep *deps, unsigned n_deps)
{
	struct nicd_error err = { 0 };
	struct call *call = NULL;
	int r;

	r = call_new(&call, request->client, request->method, request->id, &err);
	if (r >= 0) {
		call->slot = slot;
		*slot = (struct frame_slot){ .state = SLOT_PENDING, .call = call };
		r = call_wait(call, request, deps, n_deps, &err);
	}
	if (r < 0)
		request_refuse(request, call, slot, &err);
}

static void request_close_fd(struct request *request)
{
	struct nic_env *env = request->client->host->env;

	if (request->fd >= 0)
		env->close_fd(env, fd_steal(&request->fd), UINT64_MAX);
}

static void dispatch_request(struct client *client, const Nicd__Request *message, struct frame_slot *slot,
			     struct wire_packet *packet)
{
	struct request request = {
		.client = client,
		.method = method_find(message->call_case),
		.id = message->id,
		.message = message,
		.args = message->hello,
		.fd = -1,
	};
	struct call_dep deps[DISPATCH_DEPS];
	struct nicd_error err = { 0 };
	int r;

	request_take_fds(&request, packet);
	r = request_admit(&request, &err);
	if (r >= 0)
		r = request_dependencies(&request, deps, &err);
	if (r < 0)
		request_refuse(&request, NULL, slot, &err);
	else if (r > 0 || call_must_queue(client, request.method))
		request_wait(&request, slot, deps, (unsigned)r);
	else
		request_run(&request, NULL, slot);
	request_close_fd(&request);
}

/* With a million objects each is somewhere else in memory: what the requests ahead name is fetched while this one runs. */
enum { DISPATCH_AHEAD = 16 };

static void dispatch_prefetch(const struct nic_table *ids, const Nicd__Frame *frame, unsigned i,
			      void (*prefetch)(const struct nic_table *ids, uint64_t id))
{
	const struct method *method = i < frame->n_requests ? method_find(frame->requests[i]->call_case) : NULL;
	const Nicd__Ref *ref = method && method->refs[0].need ? refs_at(method, frame->requests[i]->hello, 0) : NULL;

	if (ref && ref->of_case == NICD__REF__OF_ID)
		prefetch(ids, ref->id);
}

void dispatch_frame(struct client *client, const Nicd__Frame *frame, struct wire_packet *packet)
{
	struct dispatch *dispatch = client->host->dispatch;
	const struct nic_table *ids = &client->owner.ids;

	memset(dispatch->slots, 0, frame->n_requests * sizeof(*dispatch->slots));
	for (unsigned i = 0; i < DISPATCH_AHEAD && frame->n_requests > 1; i++)
		dispatch_prefetch(ids, frame, i, nic_table_prefetch_slot);
	for (unsigned i = 0; i < frame->n_requests; i++) {
		if (frame->n_requests > 1) {
			dispatch_prefetch(ids, frame, i + DISPATCH_AHEAD, nic_table_prefetch_slot);
			dispatch_prefetch(ids, frame, i + DISPATCH_AHEAD / 2, nic_table_prefetch_object);
		}
		dispatch_request(client, frame->requests[i], &dispatch->slots[i], packet);
	}
	for (unsigned i = 0; i < frame->n_requests; i++) {
		if (dispatch->slots[i].call)
			dispatch->slots[i].call->slot = NULL;
	}
}

/* Unpacks what a call waited with, and puts the ids it waited for into it. */
static const Nicd__Request *ready_unpack(struct call *call, struct arena *arena)
{
	Nicd__Request *message;

	arena_reset(arena);
	message = nicd__request__unpack(&arena->allocator, call->packed_len, call_packed(call));
	if (!message)
		return NULL;
	for (unsigned i = 0, n = refs_count(call->method, message->hello); i < n; i++) {
		Nicd__Ref *ref = refs_at(call->method, message->hello, i);

		if (ref && ref->of_case == NICD__REF__OF_RESULT_OF) {
			uint64_t id = call_result_of(call, ref->result_of);

			ref->of_case = NICD__REF__OF_ID;
			ref->id = id;
		}
	}
	return message;
}

static void ready_start(struct client *client, struct call *call)
{
	struct request request = { .client = client, .method = call->method, .id = call->id, .fd = call_take_fd(call) };
	struct nicd_error err = { 0 };
	int r = 0;

	if (call_dependency_failed(call))
		r = nicd_refuse(&err, NICD_R_DEPENDENCY);
	else if (!(request.message = ready_unpack(call, &client->host->arena)))
		r = nicd_refuse(&err, NICD_R_NO_MEMORY);
	if (r < 0) {
		request_refuse(&request, call, NULL, &err);
	} else {
		request.args = request.message->hello;
		request_run(&request, call, NULL);
	}
	request_close_fd(&request);
}

void dispatch_ready(struct client *client)
{
	struct client_host *host = client->host;
	struct call *call;
	bool any = false;

	for (unsigned n = 0; n < READY_LOOK && client->state != CLIENT_CLOSING && (call = TAILQ_FIRST(&client->ready)); n++) {
		TAILQ_REMOVE(&client->ready, call, link);
		call->state = CALL_STARTING;
		if (!call_dependency_failed(call) && !call_serve(call)) {
			call_queue(call);
			continue;
		}
		ready_start(client, call);
		any = true;
	}
	if (!any)
		return;
	arena_reset(&host->arena);
	/* The commands of those that started now would otherwise lie until the next turn. */
	nic_push(host->nic);
}
