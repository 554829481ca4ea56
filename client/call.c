/* SPDX-License-Identifier: MIT */
/*
 * Calls on their way: ids, order, references, answers.
 *
 * A request may name the object that an earlier one of the same frame makes. So when an object is not there yet, its calls
 * go out at once if its making is still in the open frame. If that frame has left and is not answered, they are kept,
 * packed, and go when the answer is there. Calls on one object never overtake each other: once one is kept, those that
 * follow on the same object are kept too.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/conn.h"

enum {
	CALL_TABLE_START = 256,
	CALL_SPARES = 1024,
};

struct deferred {
	unsigned n_deps;
	struct object *deps[CALL_DEPS];   /* referenced; NULL: that Ref is as it should be */
	size_t len;
	uint8_t packed[];
};

/* ----------------------------------------------------------------------------------------------------------------- life */

int call_new(struct call **ret, struct nicd *n, struct object *object,
	     int (*finish)(struct call *call, const Nicd__Reply *reply, int error))
{
	struct call *call;
	int r = conn_check(n);

	if (r < 0)
		return r;
	call = TAILQ_FIRST(&n->spare);
	if (call) {
		TAILQ_REMOVE(&n->spare, call, next);
		n->n_spare--;
	} else {
		call = malloc(sizeof(*call));
	}
	if (!call)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	*call = (struct call){ .n = n, .finish = finish, .fd = -1 };
	if (object)
		call->object = object_ref(object);
	*ret = call;
	return 0;
}

static void call_undefer(struct call *call)
{
	struct deferred *deferred = call->deferred;

	call->deferred = NULL;
	for (unsigned i = 0; deferred && i < deferred->n_deps; i++) {
		if (!deferred->deps[i])
			continue;
		deferred->deps[i]->deferred--;
		object_unref(deferred->deps[i]);
	}
	free(deferred);
}

struct call *call_free(struct call *call)
{
	struct nicd *n = call->n;

	if (call->fd >= 0)
		close(call->fd);
	call_undefer(call);
	object_unref(call->object);
	free(call->why);
	if (n->n_spare >= CALL_SPARES) {
		free(call);
		return NULL;
	}
	TAILQ_INSERT_HEAD(&n->spare, call, next);
	n->n_spare++;
	return NULL;
}

/* ------------------------------------------------------------------------------------------------------------------ ids */

/* Doubles the table; two ids that differ in the old one differ in the new one. */
static int call_table_grow(struct call_table *table)
{
	uint32_t size = table->slots ? (table->mask + 1) * 2 : CALL_TABLE_START;
	struct call **slots = size ? calloc(size, sizeof(struct call *)) : NULL;

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; table->slots && i <= table->mask; i++)
		if (table->slots[i])
			slots[table->slots[i]->id & (size - 1)] = table->slots[i];
	free(table->slots);
	table->slots = slots;
	table->mask = size - 1;
	return 0;
}

/* Ids count up, and skip those whose place is taken by a call that has been in flight for a whole round. */
static int call_table_reserve(struct call_table *table, uint32_t *ret)
{
	uint32_t id = table->last;
	int r;

	if (!table->slots || table->used > table->mask / 2) {
		r = call_table_grow(table);
		if (r < 0)
			return r;
	}
	do
		id++;
	while (id == 0 || table->slots[id & table->mask]);
	*ret = id;
	return 0;
}

static void call_table_add(struct call_table *table, struct call *call)
{
	table->slots[call->id & table->mask] = call;
	table->last = call->id;
	table->used++;
}

static struct call *call_table_take(struct call_table *table, uint32_t id)
{
	struct call *call = table->slots ? table->slots[id & table->mask] : NULL;

	if (!call || call->id != id)
		return NULL;
	table->slots[id & table->mask] = NULL;
	table->used--;
	return call;
}

void call_table_deinit(struct call_table *table)
{
	free(table->slots);
	*table = (struct call_table){ 0 };
}

/* -------------------------------------------------------------------------------------------------------------- the end */

/* For nicd_dispatch. Nobody waits for the answer of a call without callback, or for a silent success: it is gone. */
static void call_queue(struct call *call)
{
	if (!call->event && (!call->cb || (call->silent && call->error == 0))) {
		call_free(call);
		return;
	}
	TAILQ_INSERT_TAIL(&call->n->ready, call, next);
	call->n->n_ready++;
}

/* false: the answer makes no sense. */
static bool call_end(struct call *call, const Nicd__Reply *reply, int error)
{
	bool sane = true;

	call->stage = CALL_READY;
	call->error = call->finish ? call->finish(call, reply, error) : error;
	if (error == 0 && call->error == -EPROTO) {
		call->error = -ECONNRESET;
		sane = false;
	}
	if (call->makes && call->error < 0 && call->object->state == OBJECT_PENDING)
		object_fail(call->object, call->why ? call->why : &call->n->loss);
	if (call->makes)
		call->n->resolved = true;
	if (call->object && call->object->settling == call) {
		call->object->settling = NULL;
		call->n->resolved = true;
	}
	if (call->mode == CALL_LATER)
		call_queue(call);
	return sane;
}

void call_answer(struct call *call, int error)
{
	call_end(call, NULL, error);
}

/* Ends it with an error of this side. */
static void call_end_refused(struct call *call, const struct nicd_error_info *why)
{
	call->why = malloc(sizeof(*why));
	if (call->why)
		*call->why = *why;
	call_end(call, NULL, why->error);
}

static void call_end_dependency(struct call *call)
{
	const struct nicd_error error = { .reason = NICD_R_DEPENDENCY };
	struct nicd_error_info why;

	error_reason(&why, &error);
	call_end_refused(call, &why);
}

int call_finish_plain(struct call *call, const Nicd__Reply *reply, int error)
{
	return error;
}

bool call_reply(struct nicd *n, const Nicd__Reply *reply)
{
	struct call *call = call_table_take(&n->calls, reply->id);
	int error = 0;

	if (!call)
		return false;
	if (reply->error) {
		struct nicd_error_info why;

		error = error_reply(&why, reply->error);
		call->why = malloc(sizeof(why));
		if (call->why)
			*call->why = why;
	}
	return call_end(call, reply, error);
}

void call_abort(struct nicd *n)
{
	struct call *call;

	for (uint32_t i = 1; n->calls.used && i <= n->calls.mask + 1; i++) {
		call = n->calls.slots[(n->calls.last + i) & n->calls.mask];
		if (!call)
			continue;
		call_table_take(&n->calls, call->id);
		call_end(call, NULL, n->loss.error);
	}
	while ((call = TAILQ_FIRST(&n->deferred))) {
		TAILQ_REMOVE(&n->deferred, call, next);
		call_end(call, NULL, n->loss.error);
	}
}

/* ---------------------------------------------------------------------------------------------------------- the way out */

/* The Refs of a request, in the order of field numbers, with those of its ranges; NULL: left out. */
static unsigned call_refs(const Nicd__Request *request, Nicd__Ref *refs[CALL_DEPS])
{
	const ProtobufCMessage *body = &request->hello->base;   /* whichever it is */
	unsigned n = 0;

	for (unsigned i = 0; i < body->descriptor->n_fields && n < CALL_DEPS; i++) {
		const ProtobufCFieldDescriptor *field = &body->descriptor->fields[i];
		const uint8_t *at = (const uint8_t *)body + field->offset;

		if (field->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (field->descriptor == &nicd__ref__descriptor)
			refs[n++] = *(Nicd__Ref *const *)(const void *)at;
		else if (field->descriptor == &nicd__range__descriptor && field->label == PROTOBUF_C_LABEL_REPEATED)
			for (size_t j = 0; j < *(const size_t *)(const void *)((const uint8_t *)body + field->quantifier_offset) &&
					   n < CALL_DEPS; j++)
				refs[n++] = (*(Nicd__Range **const *)(const void *)at)[j]->memory;
	}
	return n;
}

static bool call_depends_on_failed(struct object *const *deps, unsigned n_deps)
{
	for (unsigned i = 0; i < n_deps; i++)
		if (deps[i] && deps[i]->state == OBJECT_FAILED)
			return true;
	return false;
}

/* What the call must wait for before it may name dep; false: the frame that it may be named in has left. */
static bool call_may_name(const struct call *call, const struct object *dep, bool first)
{
	uint64_t opened = call->n->out.opened;

	if (dep->state == OBJECT_PENDING && (dep->frame == 0 || dep->frame != opened))
		return false;
	if (first && call->order != CALL_FREE && dep->settling)
		return dep->settling->order == CALL_SETTLES_MR && dep->settling_frame == opened;
	return true;
}

/* Puts names into the Refs. false: one of the objects has none yet in the frame where the request would go. */
static bool call_resolve(struct call *call, Nicd__Request *request, struct object *const *deps, unsigned n_deps)
{
	Nicd__Ref *refs[CALL_DEPS];
	unsigned n_refs = call_refs(request, refs);
	bool pending = false;

	for (unsigned i = 0; i < n_deps && i < n_refs; i++) {
		const struct object *dep = deps[i];
		bool settling;

		if (!dep)
			continue;
		if (!call_may_name(call, dep, i == 0))
			return false;
		settling = i == 0 && call->order != CALL_FREE && dep->settling;
		if (dep->state == OBJECT_LIVE && !settling) {
			refs[i]->of_case = NICD__REF__OF_ID;
			refs[i]->id = dep->id;
			continue;
		}
		refs[i]->of_case = NICD__REF__OF_RESULT_OF;
		refs[i]->result_of = settling ? dep->settling->id : dep->request;
		pending = true;
	}
	/* The id of this request is not drawn yet: the longest. */
	request->id = UINT32_MAX;
	request->fds = call->fd >= 0;
	return !pending || frame_joins(&call->n->out, FRAME_REQUESTS, &request->base, call->fd >= 0);
}

static int call_send(struct call *call, Nicd__Request *request)
{
	struct nicd *n = call->n;
	int r = call_table_reserve(&n->calls, &call->id);

	if (r < 0)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	request->id = call->id;
	request->fds = call->fd >= 0;
	r = frame_put(&n->out, FRAME_REQUESTS, &request->base, &call->fd, call->fd >= 0);
	call->fd = -1;
	if (r < 0)
		return conn_fail(n, r == -EMSGSIZE ? ERROR_MESSAGE_TOO_BIG : ERROR_NO_MEMORY, NICD_FRAME_MAX, 0);
	call_table_add(&n->calls, call);
	call->stage = CALL_SENT;
	if (call->makes) {
		call->object->request = call->id;
		call->object->frame = n->out.opened;
	}
	if (call->order >= CALL_SETTLES) {
		call->object->settling = call;
		call->object->settling_frame = n->out.opened;
	}
	return 0;
}

static int call_defer(struct call *call, Nicd__Request *request, struct object *const *deps, unsigned n_deps)
{
	size_t len = protobuf_c_message_get_packed_size(&request->base);
	struct deferred *deferred = malloc(sizeof(*deferred) + len);

	if (!deferred)
		return conn_fail(call->n, ERROR_NO_MEMORY, 0, 0);
	deferred->n_deps = n_deps;
	for (unsigned i = 0; i < n_deps; i++) {
		deferred->deps[i] = deps[i] ? object_ref(deps[i]) : NULL;
		if (deps[i])
			deps[i]->deferred++;
	}
	deferred->len = protobuf_c_message_pack(&request->base, deferred->packed);
	call->deferred = deferred;
	call->stage = CALL_DEFERRED;
	TAILQ_INSERT_TAIL(&call->n->deferred, call, next);
	return 0;
}

static bool call_must_queue(struct object *const *deps, unsigned n_deps)
{
	for (unsigned i = 0; i < n_deps; i++)
		if (deps[i] && deps[i]->deferred)
			return true;
	return false;
}

int call_submit(struct call *call, Nicd__Request *request, struct object *const *deps, unsigned n_deps)
{
	int r;

	if (call_depends_on_failed(deps, n_deps)) {
		call_end_dependency(call);
		return 0;
	}
	if (call_must_queue(deps, n_deps) || !call_resolve(call, request, deps, n_deps))
		r = call_defer(call, request, deps, n_deps);
	else
		r = call_send(call, request);
	if (r < 0)
		call_free(call);
	return r;
}

int call_submit_ref(struct call *call, Nicd__Request__CallCase call_case, struct object *dep)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field(&nicd__request__descriptor, (unsigned)call_case);
	Nicd__Ref ref = NICD__REF__INIT;
	/* All bodies that are one Ref look like this one. */
	Nicd__Close body = NICD__CLOSE__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	body.base.descriptor = field->descriptor;
	assert(body.base.descriptor->sizeof_message == sizeof(body));
	body.object = &ref;
	request.call_case = call_case;
	request.close = &body;
	return call_submit(call, &request, &dep, 1);
}

/* ------------------------------------------------------------------------------------------------------- deferred calls */

static bool call_is_blocked(const struct call *call)
{
	const struct deferred *deferred = call->deferred;

	for (unsigned i = 0; i < deferred->n_deps; i++) {
		const struct object *dep = deferred->deps[i];

		if (!dep)
			continue;
		if (dep->passed == call->n->walk || !call_may_name(call, dep, i == 0))
			return true;
	}
	return false;
}

/* true: it is on its way, or ended. The arena is free between two frames. */
static bool call_try(struct call *call)
{
	struct nicd *n = call->n;
	struct deferred *deferred = call->deferred;
	Nicd__Request *request;
	bool gone = true;

	if (call_depends_on_failed(deferred->deps, deferred->n_deps)) {
		TAILQ_REMOVE(&n->deferred, call, next);
		call_undefer(call);
		call_end_dependency(call);
		return true;
	}
	if (call_is_blocked(call))
		return false;
	request = nicd__request__unpack(&n->arena.allocator, deferred->len, deferred->packed);
	if (request && !call_resolve(call, request, deferred->deps, deferred->n_deps)) {
		gone = false;
	} else {
		TAILQ_REMOVE(&n->deferred, call, next);
		call_undefer(call);
		if (!request)
			conn_fail(n, ERROR_NO_MEMORY, 0, 0);
		if (!request || call_send(call, request) < 0)
			call_end_refused(call, &n->error);
	}
	arena_reset(&n->arena);
	return gone;
}

static void call_pass(struct call *call)
{
	for (unsigned i = 0; i < call->deferred->n_deps; i++)
		if (call->deferred->deps[i])
			call->deferred->deps[i]->passed = call->n->walk;
}

void call_release(struct nicd *n)
{
	while (n->resolved && !n->lost) {
		struct call *call, *next;

		n->resolved = false;
		n->walk++;
		for (call = TAILQ_FIRST(&n->deferred); call; call = next) {
			next = TAILQ_NEXT(call, next);
			if (!call_try(call))
				call_pass(call);
		}
	}
}

/* -------------------------------------------------------------------------------------------------------- to the caller */

void call_silence(struct call *call, uint32_t *flags, bool waits)
{
	if (waits)
		*flags &= ~(uint32_t)NICD_OP_SILENT_SUCCESS;
	call->silent = *flags & NICD_OP_SILENT_SUCCESS;
}

int call_wait(struct call *call)
{
	struct nicd *n = call->n;
	int r;

	call->mode = CALL_WAITED;
	conn_wait(n, call, -1);
	r = call->error;
	if (r < 0)
		n->error = call->why ? *call->why : n->loss;
	call_free(call);
	return r;
}

int call_later(struct call *call, nicd_callback cb, void *userdata)
{
	call->mode = CALL_LATER;
	call->cb = cb;
	call->userdata = userdata;
	if (call->stage == CALL_READY)
		call_queue(call);
	return 0;
}

static void call_deliver_event(struct call *call)
{
	struct nicd *n = call->n;
	struct object *object = call->object;
	struct nicd_event event = {
		.size = sizeof(event),
		.kind = call->event,
		.type = object ? object->type : NICD_TYPE_NONE,
		.object = object && !object->closed ? object : NULL,
		.serial = call->serial,
		.error = call->why,
		.count = call->event_count,
	};

	if (object)
		object->news &= ~(1u << call->event);
	if (n->event && !n->freeing)
		n->event(n, &event, n->event_userdata);
}

void call_deliver(struct call *call)
{
	struct nicd *n = call->n;

	TAILQ_REMOVE(&n->ready, call, next);
	n->n_ready--;
	if (call->event) {
		call_deliver_event(call);
	} else {
		if (call->error < 0)
			n->error = call->why ? *call->why : n->loss;
		call->cb(n, call->error, call->userdata);
	}
	call_free(call);
}

/* --------------------------------------------------------------------------------------------------------------- events */

/* The same news that wait for nicd_dispatch, for the latest wins. Without a handle it is known by its serial. */
static struct call *call_event_find(struct nicd *n, const struct object *object, const Nicd__Event *event)
{
	struct call *call;

	if (object && !(object->news & (1u << event->kind)))
		return NULL;
	TAILQ_FOREACH(call, &n->ready, next)
		if (call->event == (uint32_t)event->kind && call->object == object && (object || call->serial == event->serial))
			return call;
	return NULL;
}

static struct call *call_event_new(struct nicd *n, struct object *object, uint32_t kind)
{
	struct call *call;

	if (call_new(&call, n, object, NULL) < 0)
		return NULL;
	call->event = kind;
	if (object)
		object->news |= 1u << kind;
	call_queue(call);
	return call;
}

void call_event(struct nicd *n, const Nicd__Event *event)
{
	struct object *object = event->object ? object_find(n, event->object) : NULL;
	struct call *call;

	if (event->kind <= 0 || event->kind >= 32)
		return;
	if (object && object->event)
		object->event(object, event->kind);
	if (!n->event)
		return;
	call = call_event_find(n, object, event);
	if (!call)
		call = call_event_new(n, object, event->kind);
	/* Without memory it is lost like those that nicd drops. */
	if (!call)
		return;
	call->serial = event->serial;
	call->event_count = event->count;
	if (event->error && !call->why)
		call->why = malloc(sizeof(*call->why));
	if (event->error && call->why) {
		error_reply(call->why, event->error);
	} else {
		free(call->why);
		call->why = NULL;
	}
}
