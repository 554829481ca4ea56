/* SPDX-License-Identifier: MIT */
/*
 * Sees requests start. The simulation is linked with --wrap=method_find: dispatch asks here for a call's row and gets a copy of the real one
 * whose functions tell the model before they do what they do. And with --wrap=client_reply_held: what wakes nobody is heard when it is said, too.
 */
#include <string.h>

#include "daemon/dispatch.h"
#include "nicd/mapping.h"
#include "nicd/nic.h"
#include "tests/sim/world.h"

const struct method *__real_method_find(unsigned call_case);
const struct method *__wrap_method_find(unsigned call_case);
void __real_client_reply_held(struct client *client, const struct Nicd__Reply *reply);
void __wrap_client_reply_held(struct client *client, const struct Nicd__Reply *reply);

static struct method rows[CALL_COUNT];

static const struct method *real_row(const struct method *copy)
{
	return __real_method_find((unsigned)(copy - rows));
}

static int client_of(const struct request *request)
{
	for (int i = 0; i < MODEL_CLIENTS; i++)
		if (world->clients[i].client == request->client)
			return i;
	sim_fail("a request of nobody starts");
}

static int tap_answer(struct request *request, struct answer *answer, struct nicd_error *err)
{
	int client = client_of(request), r;

	trace("start", (uint64_t)client, request->id, (uint64_t)(request->method - rows));
	world_outputs();
	model_start(world->model, client, request->id);
	r = real_row(request->method)->answer(request, answer, err);
	model_started(world->model);
	return r;
}

/* The object that a call is making has a serial before its answer. */
static void tell_name(int client, const struct call *call, unsigned which)
{
	const struct nic_object *object = NULL;

	if (call->state != CALL_STARTING || call->idle)
		return;
	if (which == CALL_CONNECT_QP && call->qp)
		object = &call->qp->object;
	if ((which == CALL_CREATE_TICKET || which == CALL_CREATE_EXPORT) && call->door)
		object = &call->door->object;
	if (which == CALL_BUILD_MAPPING && call->mapping)
		object = &call->mapping->object;
	if (object)
		model_named(world->model, client, call->id, object->serial, object->id);
}

static int tap_start(struct request *request, struct call *call, struct nicd_error *err)
{
	int client = client_of(request), r;
	unsigned which = (unsigned)(request->method - rows);

	trace("start", (uint64_t)client, request->id, which);
	world_outputs();
	model_start(world->model, client, request->id);
	r = real_row(request->method)->start(request, call, err);
	if (r >= 0)
		tell_name(client, call, which);
	model_started(world->model);
	return r;
}

const struct method *__wrap_method_find(unsigned call_case)
{
	const struct method *real = __real_method_find(call_case);

	if (!real || call_case >= CALL_COUNT)
		return real;
	if (!rows[call_case].name) {
		rows[call_case] = *real;
		if (real->answer)
			rows[call_case].answer = tap_answer;
		if (real->start)
			rows[call_case].start = tap_start;
	}
	return &rows[call_case];
}

void __wrap_client_reply_held(struct client *client, const struct Nicd__Reply *reply)
{
	__real_client_reply_held(client, reply);
	world_overhear(client);
}
