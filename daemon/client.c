/* SPDX-License-Identifier: MIT */
/*
 * A client: what one session is and holds, from the first frame to the last object. It is made when its socket is accepted and belongs to
 * whoever owns the socket; the host's list finds it. It ends in three steps: CLOSING, from which on nobody is answered;
 * client_release, which closes what it holds; client_free, once nothing of it is at the device any more.
 */
#include "daemon/client.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "daemon/dispatch.h"
#include "daemon/memfd.h"
#include "daemon/news.h"
#include "daemon/util.h"
#include "proto/nicd.pb-c.h"

enum { FRAME_REPLIES = 2, FRAME_FATAL = 4 };   /* fields of nicd.Frame */

static int client_serial_compare(const struct client *a, const struct client *b)
{
	return (a->serial > b->serial) - (a->serial < b->serial);
}

static int client_account_compare(const struct client *a, const struct client *b)
{
	uintptr_t one = (uintptr_t)a->owner.account, other = (uintptr_t)b->owner.account;

	return one == other ? client_serial_compare(a, b) : (one > other) - (one < other);
}

RB_GENERATE(client_serials, client, of_serial, client_serial_compare)
RB_GENERATE(client_accounts, client, of_account, client_account_compare)

struct client *client_find(struct client_host *host, uint64_t serial)
{
	struct client key = { .serial = serial };

	return RB_FIND(client_serials, &host->serials, &key);
}

struct client *client_next(struct client_host *host, const struct nic_account *account, uint64_t after)
{
	struct client key = { .serial = after + 1, .owner.account = (struct nic_account *)account };
	struct client *client;

	if (after == UINT64_MAX)
		return NULL;
	if (!account)
		return RB_NFIND(client_serials, &host->serials, &key);
	client = RB_NFIND(client_accounts, &host->accounts, &key);
	return client && client->owner.account == account ? client : NULL;
}

int client_host_init(struct client_host *host)
{
	int r;

	TAILQ_INIT(&host->clients);
	RB_INIT(&host->serials);
	RB_INIT(&host->accounts);
	frame_pool_init(&host->frames, CLIENT_POOL);
	if (!host->check_memory)
		host->check_memory = memfd_check;
	host->dispatch = dispatch_new(host->env, host->policy);
	if (!host->dispatch)
		return -ENOMEM;
	r = arena_init(&host->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS);
	if (r < 0)
		host->dispatch = dispatch_free(host->dispatch, host->env);
	return r;
}

void client_host_deinit(struct client_host *host)
{
	assert(TAILQ_EMPTY(&host->clients) && !host->n_calls);
	arena_deinit(&host->arena);
	frame_pool_deinit(&host->frames);
	host->dispatch = dispatch_free(host->dispatch, host->env);
}

static void client_event(struct nic_owner *owner, struct nic_object *object, enum nic_event event, uint64_t serial,
			 const struct nicd_error *error)
{
	news_add(container_of(owner, struct client, owner), object, event, serial, error);
}

static void client_empty(struct nic_owner *owner)
{
	client_check_gone(container_of(owner, struct client, owner));
}

static void client_init(struct client *client, struct client_host *host, const struct client_identity *identity)
{
	struct nic_env *env = host->env;

	client->host = host;
	client->identity = *identity;
	client->serial = nic_serial(host->nic);
	client->since_ns = env->wall(env);
	env->random(env, client->resume_secret, sizeof(client->resume_secret));
	frame_out_init(&client->out);
	client->out.secret = host->policy->privileged_token;
	client->out.pool = &host->frames;
	RB_INIT(&client->calls);
	TAILQ_INIT(&client->ready);
	TAILQ_INIT(&client->watchers);
	TAILQ_INIT(&client->news);
	RB_INIT(&client->news_tree);
}

int client_new(struct client **ret, struct client_host *host, const struct client_identity *identity, void *userdata,
	       struct nicd_error *err)
{
	struct nic_account *account = NULL;
	struct client *client;
	int r = 0;

	client = host->env->alloc(host->env, sizeof(*client));
	if (!client || nic_account_get(&host->nic->accounts, identity->account, &account) < 0) {
		if (client)
			host->env->free(host->env, client, sizeof(*client));
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	if (!identity->admin_socket)
		r = nic_charge(account, &client->charge, NIC_SLOT_SESSIONS, 1, err);
	if (r < 0) {
		nic_account_unref(account);
		host->env->free(host->env, client, sizeof(*client));
		return r;
	}
	client_init(client, host, identity);
	nic_owner_init(&client->owner, host->nic, account, client->serial);
	client->owner.privileged = host->policy->privileged_token;
	nic_account_unref(account);
	client->owner.event = client_event;
	client->owner.empty = client_empty;
	client->userdata = userdata;
	TAILQ_INSERT_TAIL(&host->clients, client, of_host);
	RB_INSERT(client_serials, &host->serials, client);
	RB_INSERT(client_accounts, &host->accounts, client);
	host->n_clients += !identity->admin_socket;
	host->n_admins += identity->admin_socket;
	*ret = client;
	return 0;
}

void client_wake(struct client *client)
{
	if (client->woken)
		return;
	client->woken = true;
	client->host->wake(client);
}

/* The session ends, and what is queued is the last that it hears. */
static void client_end(struct client *client)
{
	client->state = CLIENT_CLOSING;
	client->fatal = true;
	client_wake(client);
}

/* What is to be said cannot be refused any more: over its limit the account is not read. */
static void client_charge_output(struct client *client)
{
	if (!client->identity.admin_socket)
		nic_charge_adjust(client->owner.account, &client->charge_out, NIC_SLOT_BUFFERED, client->out.bytes);
}

static void client_violate(struct client *client, const struct nicd_error *violation)
{
	const struct nicd_reason_info *info = nicd_reason_info(violation->reason);
	Nicd__Fatal fatal;

	if (client->state == CLIENT_CLOSING)
		return;
	client->host->log(client->host, client, "Frame", violation);
	nicd__fatal__init(&fatal);
	fatal.reason = info->reason;
	fatal.name = (char *)info->name;
	fatal.text = (char *)info->text;
	fatal.cure = (char *)info->cure;
	fatal.limit = violation->limit;
	fatal.observed = violation->observed;
	/* Without memory for it the end of the socket says it all. */
	(void)frame_put(&client->out, FRAME_FATAL, &fatal.base, NULL, 0);
	client_charge_output(client);
	client_end(client);
}

void client_violation(struct client *client, enum nicd_reason reason, uint64_t limit, uint64_t observed)
{
	client_violate(client, &(struct nicd_error){ .reason = reason, .limit = limit, .observed = observed });
}

/* True: it is in the output. */
static bool client_put_reply(struct client *client, const Nicd__Reply *reply)
{
	struct nicd_error error = { 0 };
	Nicd__Reply instead;
	Nicd__Error internal;
	int r;

	if (client->state == CLIENT_CLOSING)
		return false;
	r = frame_put(&client->out, FRAME_REPLIES, &reply->base, NULL, 0);
	if (r == -EMSGSIZE) {
		nicd_refuse(&error, NICD_R_INTERNAL);
		client->host->log(client->host, client, "Reply", &error);
		answer_error(&internal, &error);
		nicd__reply__init(&instead);
		instead.id = reply->id;
		instead.error = &internal;
		r = frame_put(&client->out, FRAME_REPLIES, &instead.base, NULL, 0);
	}
	if (r >= 0) {
		client_charge_output(client);
		return true;
	}
	/* A request without its reply would break the promise: better no session. */
	nicd_refuse(&error, NICD_R_NO_MEMORY);
	client->host->log(client->host, client, "Reply", &error);
	client_end(client);
	return false;
}

void client_reply(struct client *client, const Nicd__Reply *reply)
{
	if (client_put_reply(client, reply))
		client_wake(client);
}

/*
 * What is held lies in the output like every reply: it keeps its place before later ones, and is charged. It must not be what keeps
 * the session from being read, for then the frame would never come that brings it out.
 */
void client_reply_held(struct client *client, const Nicd__Reply *reply)
{
	if (!client_put_reply(client, reply))
		return;
	if (++client->n_held >= CLIENT_HELD || client->out.bytes >= client->host->policy->max_output / 2 ||
	    client_output_is_full(client))
		client_wake(client);
}

/* Descriptors that nobody took. What they are is unknown, so closing them may take long. */
static void client_close_fds(struct client *client, struct wire_packet *packet)
{
	struct nic_env *env = client->host->env;
	int fd;

	while ((fd = wire_take_fd(packet)) >= 0)
		env->close_fd(env, fd, UINT64_MAX);
}

bool client_frame(struct client *client, struct wire_packet *packet)
{
	struct client_host *host = client->host;
	struct nicd_error violation = { 0 };
	ProtobufCMessage *message;

	/* It is awake: now it may as well hear of what ended silently before. */
	if (client->n_held)
		client_wake(client);
	host->bulk_steps = CLIENT_BULK_STEPS;
	arena_reset(&host->arena);
	message = frame_decode(&nicd__frame__descriptor, &host->arena, packet->data, packet->len, &violation);
	if (message && dispatch_check(client, (const Nicd__Frame *)message, packet->n_fds, &violation) >= 0) {
		dispatch_frame(client, (const Nicd__Frame *)message, packet);
		host->work += ((const Nicd__Frame *)message)->n_requests;
	} else {
		client_violate(client, &violation);
	}
	host->turn_steps += CLIENT_BULK_STEPS - host->bulk_steps;
	host->work += (CLIENT_BULK_STEPS - host->bulk_steps) / CLIENT_WORK_STEPS;
	client_close_fds(client, packet);
	arena_reset(&host->arena);
	return client->state != CLIENT_CLOSING;
}

bool client_wants_input(const struct client *client)
{
	const struct policy *policy = client->host->policy;

	if (client->state == CLIENT_CLOSING || client->out.bytes >= policy->max_output)
		return false;
	/* A whole frame of requests still fits, so that who waits for replies is never refused for being too fast. */
	return !client->n_calls || client->n_calls + NICD_FRAME_REQUESTS <= policy->max_calls;
}

void client_prepare_output(struct client *client)
{
	if (client->state == CLIENT_CLOSING)
		return;
	dispatch_ready(client);
	news_flush(client);
	client_charge_output(client);
}

void client_flushed(struct client *client)
{
	client_charge_output(client);
	client->woken = false;
	client->n_held = 0;
	/* More than one look could start. */
	if (!TAILQ_EMPTY(&client->ready) && client->state != CLIENT_CLOSING)
		client_wake(client);
}

bool client_release(struct client *client, unsigned budget)
{
	client->state = CLIENT_CLOSING;
	if (!client->released) {
		client->released = true;
		calls_end(client);
		news_drop(client);
	}
	return nic_owner_release(&client->owner, budget);
}

bool client_gone(const struct client *client)
{
	return client->released && !client->owner.n_objects && RB_EMPTY(&client->calls);
}

void client_check_gone(struct client *client)
{
	if (client_gone(client))
		client->host->wake(client);
}

struct client *client_free(struct client *client)
{
	struct client_host *host;
	struct call *call;

	if (!client)
		return NULL;
	assert(client_gone(client));
	host = client->host;
	/* Whoever revoked this session is told that it has ended. */
	while ((call = TAILQ_FIRST(&client->watchers)))
		call_answer(call, NULL);
	TAILQ_REMOVE(&host->clients, client, of_host);
	RB_REMOVE(client_serials, &host->serials, client);
	RB_REMOVE(client_accounts, &host->accounts, client);
	host->n_clients -= !client->identity.admin_socket;
	host->n_admins -= client->identity.admin_socket;
	frame_out_deinit(&client->out);
	nic_charge_release(&client->charge);
	nic_charge_release(&client->charge_out);
	nic_owner_deinit(&client->owner);
	explicit_bzero(client->resume_secret, sizeof(client->resume_secret));
	host->env->free(host->env, client, sizeof(*client));
	return NULL;
}
