/* SPDX-License-Identifier: MIT */
/*
 * Calls: requests that are not answered yet. Each belongs to its client, lies in the tree of its request ids from the moment it
 * outlives its start, and is freed by its answer. A call that names others by result_of waits for them with its request packed
 * again, because the decoded one dies with its frame; the small ones need no memory for that.
 *
 * Freed calls are kept for the next ones, so that a busy session allocates nothing.
 */
#include "daemon/call.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/param.h>

#include "daemon/dispatch.h"
#include "daemon/util.h"

enum { CALLS_SPARE = 2048 };

static int call_compare(const struct call *a, const struct call *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}
RB_GENERATE(call_tree, call, of_client, call_compare)

void calls_init(struct calls *calls, const struct policy *policy)
{
	TAILQ_INIT(&calls->spare);
	LIST_INIT(&calls->sleepers);
	nic_fair_init(&calls->fair[NIC_TURN_DEVICE], 1, MIN(policy->device_share, policy->device_window), policy->device_window);
	nic_fair_init(&calls->fair[NIC_TURN_CONNECT], 1, MIN(policy->connect_share, policy->connect_window), policy->connect_window);
}

void calls_deinit(struct calls *calls, struct nic_env *env)
{
	struct sleeper *sleeper;
	struct call *call;

	while ((call = TAILQ_FIRST(&calls->spare))) {
		TAILQ_REMOVE(&calls->spare, call, link);
		env->free(env, call, sizeof(*call));
	}
	while ((sleeper = LIST_FIRST(&calls->sleepers))) {
		assert(!sleeper->call);
		LIST_REMOVE(sleeper, of_host);
		env->free(env, sleeper, sizeof(*sleeper));
	}
}

static void call_done(struct nic_done *done, const struct nicd_error *error)
{
	call_answer(container_of(done, struct call, done), error);
}

static struct call *call_take(struct client_host *host)
{
	struct calls *calls = &host->dispatch->calls;
	struct call *call = TAILQ_FIRST(&calls->spare);

	if (!call)
		return host->env->alloc(host->env, sizeof(*call));
	TAILQ_REMOVE(&calls->spare, call, link);
	calls->n_spare--;
	memset(call, 0, offsetof(struct call, store));
	return call;
}

static void call_give(struct client_host *host, struct call *call)
{
	struct calls *calls = &host->dispatch->calls;

	if (calls->n_spare >= CALLS_SPARE) {
		host->env->free(host->env, call, sizeof(*call));
		return;
	}
	TAILQ_INSERT_HEAD(&calls->spare, call, link);
	calls->n_spare++;
}

/* The admin socket pays for nothing but objects: a full account must not keep the admin from looking at it. */
static int call_charge(struct client *client, struct nic_charge *charge, enum nic_slot slot, uint64_t n, struct nicd_error *err)
{
	if (client->identity.admin_socket)
		return 0;
	return nic_charge(client->owner.account, charge, slot, n, err);
}

int call_new(struct call **ret, struct client *client, const struct method *method, uint32_t id, struct nicd_error *err)
{
	struct client_host *host = client->host;
	struct call *call;
	int r;

	if (client->n_calls >= host->policy->max_calls)
		return nicd_refuse_at(err, NICD_R_IN_FLIGHT, host->policy->max_calls, client->n_calls + 1);
	call = call_take(host);
	if (!call)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	r = call_charge(client, &call->charge, NIC_SLOT_CALLS, 1, err);
	if (r < 0) {
		call_give(host, call);
		return r;
	}
	call->client = client;
	call->method = method;
	call->id = id;
	call->state = CALL_STARTING;
	call->fd = -1;
	call->done.fn = call_done;
	TAILQ_INIT(&call->dependents);
	call->counted = true;
	client->n_calls++;
	host->n_calls++;
	*ret = call;
	return 0;
}

static void call_uncount(struct call *call)
{
	if (!call->counted)
		return;
	call->counted = false;
	call->client->n_calls--;
	call->client->host->n_calls--;
	nic_charge_release(&call->charge);
}

/* ---- turns */

static struct nic_fair *call_fair(const struct client *client, const struct method *method)
{
	return &client->host->dispatch->calls.fair[method->turn];
}

static struct nic_fair_queue *call_turns(const struct client *client, const struct method *method)
{
	return &client->owner.account->turns[method->turn];
}

/* Those whose turn it is are started with the next output of their clients, never here: we may be deep inside the NIC layer. */
static void calls_go_on(struct nic_fair *fair)
{
	struct nic_fair_item *item;

	while ((item = nic_fair_take(fair))) {
		struct call *call = container_of(item, struct call, turn);

		call->in_service = true;
		call->state = CALL_READY;
		TAILQ_INSERT_TAIL(&call->client->ready, call, link);
		client_wake(call->client);
	}
}

/* Nor does it overtake those of its session whose turn has come and that have not started yet. */
bool call_must_queue(const struct client *client, const struct method *method)
{
	return method->turn && (!TAILQ_EMPTY(&client->ready) ||
				!nic_fair_may_enter(call_fair(client, method), call_turns(client, method)));
}

bool call_serve(struct call *call)
{
	const struct method *method = call->method;

	if (method->turn && !call->in_service)
		call->in_service = nic_fair_enter(call_fair(call->client, method), call_turns(call->client, method));
	return !method->turn || call->in_service;
}

void call_queue(struct call *call)
{
	struct nic_fair *fair = call_fair(call->client, call->method);

	call->state = CALL_QUEUED;
	nic_fair_add(fair, call_turns(call->client, call->method), &call->turn);
	calls_go_on(fair);
}

void call_unserve(struct call *call)
{
	struct nic_fair *fair = call_fair(call->client, call->method);

	if (!call->in_service)
		return;
	call->in_service = false;
	nic_fair_leave(fair, call_turns(call->client, call->method), 0);
	calls_go_on(fair);
}

static struct call_dep *call_deps(struct call *call)
{
	return (struct call_dep *)(void *)(call->kept_size ? call->kept : call->store);
}

static void call_drop_sleeper(struct call *call)
{
	struct nic_env *env = call->client->host->env;

	if (!call->sleeper)
		return;
	if (call->sleeper->armed)
		call->sleeper->call = NULL;
	else
		env->free(env, call->sleeper, sizeof(*call->sleeper));
	call->sleeper = NULL;
}

/* Nothing points to or from other calls any more. */
static void call_unlink(struct call *call)
{
	struct call_dep *dep, *deps = call_deps(call);

	for (unsigned i = 0; i < call->n_deps; i++) {
		if (deps[i].on)
			TAILQ_REMOVE(&deps[i].on->dependents, &deps[i], of_call);
	}
	while ((dep = TAILQ_FIRST(&call->dependents))) {
		TAILQ_REMOVE(&call->dependents, dep, of_call);
		dep->on = NULL;
	}
	if (call->state == CALL_READY)
		TAILQ_REMOVE(&call->client->ready, call, link);
	nic_fair_remove(call_fair(call->client, call->method), &call->turn);
	call_unserve(call);
	if (call->watched)
		TAILQ_REMOVE(&call->watched->watchers, call, link);
	if (call->linked)
		RB_REMOVE(call_tree, &call->client->calls, call);
	if (call->slot)
		call->slot->call = NULL;
}

int call_take_fd(struct call *call)
{
	if (call->fd < 0)
		return -1;
	call->client->host->nic->held_fds--;
	nic_charge_release(&call->charge_fd);
	return fd_steal(&call->fd);
}

struct call *call_free(struct call *call)
{
	struct client_host *host;
	struct nic_env *env;
	int fd;

	if (!call)
		return NULL;
	host = call->client->host;
	env = host->env;
	call_unlink(call);
	call_uncount(call);
	call_drop_sleeper(call);
	/* Requests may name a privileged token. */
	if (call->kept_size) {
		explicit_bzero(call->kept, call->kept_size);
		env->free(env, call->kept, call->kept_size);
	} else if (call->packed_len) {
		explicit_bzero(call->store, sizeof(call->store));
	}
	nic_charge_release(&call->charge_kept);
	if (call->mem)
		env->free(env, call->mem, call->mem_size);
	nic_charge_release(&call->charge_mem);
	fd = call_take_fd(call);
	if (fd >= 0)
		env->close_fd(env, fd, UINT64_MAX);
	call_give(host, call);
	return NULL;
}

struct call *call_find(struct client *client, uint32_t id)
{
	struct call key;

	key.id = id;
	return RB_FIND(call_tree, &client->calls, &key);
}

static void call_link(struct call *call)
{
	if (!call->linked)
		RB_INSERT(call_tree, &call->client->calls, call);
	call->linked = true;
}

void call_started(struct call *call)
{
	if (call->state == CALL_DONE) {
		call_free(call);
		return;
	}
	call->state = CALL_PENDING;
	call_link(call);
	if (call->method->flags & METHOD_DEFERRED)
		call_uncount(call);
}

/* The dependencies and the packed request behind them: `deps` is copied. */
static int call_keep(struct call *call, const struct call_dep *deps, unsigned n_deps, size_t size, struct nicd_error *err)
{
	struct nic_env *env = call->client->host->env;
	int r;

	if (size > sizeof(call->store)) {
		r = call_charge(call->client, &call->charge_kept, NIC_SLOT_BUFFERED, size, err);
		if (r < 0)
			return r;
		call->kept = env->alloc(env, size);
		if (!call->kept)
			return nicd_refuse(err, NICD_R_NO_MEMORY);
		call->kept_size = size;
	}
	memcpy(call_deps(call), deps, n_deps * sizeof(*deps));
	return 0;
}

int call_wait(struct call *call, struct request *request, const struct call_dep *deps, unsigned n_deps, struct nicd_error *err)
{
	const ProtobufCMessage *message = &request->message->base;
	struct call_dep *kept;
	int r;

	call->packed_len = protobuf_c_message_get_packed_size(message);
	r = call_keep(call, deps, n_deps, n_deps * sizeof(*deps) + call->packed_len, err);
	if (r >= 0 && request->fd >= 0)
		r = call_charge(call->client, &call->charge_fd, NIC_SLOT_FDS, 1, err);
	if (r < 0)
		return r;
	kept = call_deps(call);
	for (unsigned i = 0; i < n_deps; i++) {
		kept[i].waiter = call;
		TAILQ_INSERT_TAIL(&kept[i].on->dependents, &kept[i], of_call);
	}
	call->n_deps = call->n_missing = n_deps;
	protobuf_c_message_pack(message, (uint8_t *)(kept + n_deps));
	if (request->fd >= 0)
		call->client->host->nic->held_fds++;
	call->fd = fd_steal(&request->fd);
	call->state = CALL_WAITING;
	call_link(call);
	if (!n_deps)
		call_queue(call);
	return 0;
}

const uint8_t *call_packed(struct call *call)
{
	return (const uint8_t *)(call_deps(call) + call->n_deps);
}

uint64_t call_result_of(struct call *call, uint32_t result_of)
{
	const struct call_dep *deps = call_deps(call);

	for (unsigned i = 0; i < call->n_deps; i++) {
		if (deps[i].result_of == result_of)
			return deps[i].id;
	}
	return 0;
}

bool call_dependency_failed(struct call *call)
{
	const struct call_dep *deps = call_deps(call);

	for (unsigned i = 0; i < call->n_deps; i++) {
		if (deps[i].refused)
			return true;
	}
	return false;
}

/* Those that waited for this one go on, once it was the last they waited for. */
static void call_tell_dependents(struct call *call, bool refused, uint64_t id)
{
	struct call_dep *dep;

	while ((dep = TAILQ_FIRST(&call->dependents))) {
		struct call *waiter = dep->waiter;

		TAILQ_REMOVE(&call->dependents, dep, of_call);
		dep->on = NULL;
		dep->refused = refused;
		dep->id = id;
		if (--waiter->n_missing)
			continue;
		waiter->state = CALL_READY;
		TAILQ_INSERT_TAIL(&waiter->client->ready, waiter, link);
	}
}

void call_settle(struct call *call, struct answer *answer)
{
	struct client *client = call->client;
	bool refused = answer->reply.error;

	/* Those that wait for it start with the client's next output. */
	if (call->silent && !refused && TAILQ_EMPTY(&call->dependents))
		client_reply_held(client, &answer->reply);
	else
		client_reply(client, &answer->reply);
	if (call->slot) {
		*call->slot = (struct frame_slot){ .state = refused ? SLOT_REFUSED : SLOT_DONE, .id = answer->result };
		call->slot = NULL;
	}
	call_tell_dependents(call, refused, answer->result);
	if (call->state == CALL_STARTING)
		call->state = CALL_DONE;
	else
		call_free(call);
	client_check_gone(client);
}

void call_answer(struct call *call, const struct nicd_error *error)
{
	bool refused = error && error->reason != NICD_R_NONE;
	struct answer answer;

	answer_init(&answer, call->id);
	if (refused) {
		answer_refuse(&answer, error);
		dispatch_log(call->client, call->method->name, error);
	}
	if (!refused || call->method->flags & METHOD_ALWAYS)
		call->method->finish(call, refused ? error : NULL, &answer);
	call_settle(call, &answer);
	answer_deinit(&answer);
}

void *call_alloc(struct call *call, size_t size, struct nicd_error *err)
{
	struct nic_env *env = call->client->host->env;

	if (call_charge(call->client, &call->charge_mem, NIC_SLOT_BUFFERED, size, err) < 0)
		return NULL;
	call->mem = env->alloc(env, size);
	call->mem_size = size;
	if (!call->mem)
		nicd_refuse(err, NICD_R_NO_MEMORY);
	return call->mem;
}

int call_sleeper(struct call *call, void (*fn)(struct call *call))
{
	struct client_host *host = call->client->host;

	call->sleeper = host->env->alloc(host->env, sizeof(*call->sleeper));
	if (!call->sleeper)
		return -ENOMEM;
	*call->sleeper = (struct sleeper){ .host = host, .call = call, .fn = fn };
	return 0;
}

static void sleeper_wake(void *arg)
{
	struct sleeper *sleeper = arg;
	struct client_host *host = sleeper->host;
	struct call *call = sleeper->call;

	LIST_REMOVE(sleeper, of_host);
	if (call) {
		call->sleeper = NULL;
		sleeper->fn(call);
	}
	host->env->free(host->env, sleeper, sizeof(*sleeper));
}

void call_sleep(struct call *call, uint64_t delay_ns)
{
	struct client_host *host = call->client->host;

	assert(call->sleeper && !call->sleeper->armed);
	call->sleeper->armed = true;
	LIST_INSERT_HEAD(&host->dispatch->calls.sleepers, call->sleeper, of_host);
	host->after(host, delay_ns, sleeper_wake, call->sleeper);
}

void calls_end(struct client *client)
{
	struct call *call, *next;

	RB_FOREACH_SAFE(call, call_tree, &client->calls, next) {
		if (call->state != CALL_PENDING || call->idle)
			call_free(call);
	}
}
