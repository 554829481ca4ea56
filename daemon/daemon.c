/* SPDX-License-Identifier: MIT */
/*
 * struct daemon owns everything of the process, on the stack of daemon_run. It connects the parts and decides the order in which
 * they start and end; what they do is theirs.
 *
 *   STARTING --device up--> SERVING --signal--> ENDING (sessions) --> UNPLUGGING (device) --> CLOSING (handles)
 *       \---device failed: rootless ends, else SERVING without it
 *
 * A turn of the loop: sockets are read, then once, before it waits again, commands go to the device and replies to the clients
 * (turn_end). Callbacks from the parts only note that there is something to look at, which is done there too.
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "daemon/client.h"
#include "daemon/descriptors.h"
#include "daemon/device.h"
#include "daemon/env.h"
#include "daemon/identity.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/session.h"
#include "daemon/timers.h"
#include "daemon/util.h"
#include "proto/locator.h"

#define ADMIN_GROUP "nicd-admin"

enum {
	CLIENTS, ADMINS, LISTENERS,
	ROUNDS = 4,                /* of the end of a turn: an answer may start the next request */
	PATIENCE_MS = 5000,        /* for sessions to end; then the device is cut off, and then we are */
};

enum daemon_state { DAEMON_STARTING, DAEMON_SERVING, DAEMON_ENDING, DAEMON_UNPLUGGING, DAEMON_CLOSING };

struct daemon {
	const struct options *options;
	enum daemon_state state;
	bool has_host;
	bool ready;
	bool look;                 /* something has changed */
	bool device_up;            /* as last told */
	int status;
	unsigned impatience;       /* how often patience ended */
	uv_loop_t loop;
	struct env env;
	struct nic nic;
	struct client_host host;
	struct descriptors descriptors;
	struct identity_rules rules;
	struct sessions sessions;
	struct device device;
	struct listener listeners[LISTENERS];
	struct timers timers;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_timer_t deadline;       /* of the NIC layer */
	uint64_t deadline_at;
	uv_timer_t patience;
	uv_signal_t signals[3];
	char message[1024];
};

static const int daemon_signals[] = { SIGTERM, SIGINT, SIGHUP };

/* ---- the turn */

static void on_deadline(uv_timer_t *timer)
{
	struct daemon *d = container_of(timer, struct daemon, deadline);

	d->deadline_at = UINT64_MAX;
	nic_tick(&d->nic);
}

static void deadline_arm(struct daemon *d)
{
	uint64_t at = nic_next_deadline(&d->nic), now;

	if (at == d->deadline_at)
		return;
	d->deadline_at = at;
	if (at == UINT64_MAX) {
		uv_timer_stop(&d->deadline);
		return;
	}
	now = d->env.nic.now(&d->env.nic);
	uv_timer_start(&d->deadline, on_deadline, at > now ? (at - now) / 1000000 + 1 : 0, 0);
}

static void daemon_look(struct daemon *d);

static void turn_end(struct daemon *d)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		sessions_turn(&d->sessions);
		nic_push(&d->nic);
		device_turn(&d->device);
		if (sessions_settled(&d->sessions))
			break;
	}
	deadline_arm(d);
	while (d->look) {
		d->look = false;
		daemon_look(d);
	}
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct daemon *d = container_of(prepare, struct daemon, prepare);

	turn_end(d);
	turns_end(&d->host.turns, d->env.nic.now(&d->env.nic), uv_metrics_idle_time(&d->loop), turns_cpu);
}

static void on_check(uv_check_t *check)
{
	struct daemon *d = container_of(check, struct daemon, check);

	sessions_read(&d->sessions);
	turn_end(d);
}

/* ---- what the parts tell */

static void on_device_changed(struct device *device)
{
	container_of(device, struct daemon, device)->look = true;
}

static void on_session_ended(struct sessions *sessions)
{
	container_of(sessions, struct daemon, sessions)->look = true;
}

static bool on_accepted(struct listener *listener, int fd)
{
	struct daemon *d = listener->userdata;

	bool admin = listener == &d->listeners[ADMINS];

	session_accept(&d->sessions, fd, admin);
	return sessions_have_room(&d->sessions, admin);
}

static void host_after(struct client_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	timers_after(&container_of(host, struct daemon, host)->timers, delay_ns, fn, arg);
}

static void host_log(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error)
{
	const struct nicd_reason_info *info = nicd_reason_info(error->reason);
	struct log_client who = { .method = method, .reason = error->reason == NICD_R_NONE ? NULL : info->name };
	char figures[80] = "";

	if (client) {
		who.pid = client->identity.pid;
		who.uid = client->identity.uid;
		who.session = client->serial;
	}
	if (error->limit || error->observed)
		snprintf(figures, sizeof(figures), " (limit %llu, observed %llu)", (unsigned long long)error->limit,
			 (unsigned long long)error->observed);
	if (error->reason == NICD_R_NONE)
		log_client(LOG_NOTICE, &who, "%s: accepted, serial %llu", method, (unsigned long long)error->observed);
	else
		log_client(LOG_NOTICE, &who, "%s: %s: %s; %s%s", method, info->name, info->text, info->cure, figures);
}

static uint32_t host_open_fds(struct client_host *host)
{
	return descriptors_open();
}

/* ---- serving */

static void accept_if_room(struct daemon *d)
{
	for (unsigned i = 0; i < LISTENERS; i++) {
		if (sessions_have_room(&d->sessions, i == ADMINS))
			listener_start(&d->listeners[i]);
	}
}

/* Whoever has this list, as most have the default one, cannot use the locators that are made here. */
static void warn_unreachable(const struct daemon *d)
{
	const struct policy *policy = &d->options->policy;
	const struct sockaddr_storage *addr = &d->device.adapter->provider->data_addr;
	char text[64];

	if (!d->options->rootless || !policy->n_networks || !addr->ss_family || policy_may_connect(policy, addr))
		return;
	locator_addr_print(addr, text);
	log_write(LOG_WARNING, "locators made here name %s, where clients of this nicd may not connect to; start it, and those of the "
		  "peers, with --allow-connect %s or [connect] allow in nicd.conf (it replaces the default list)", text, text);
}

static void tell_device(struct daemon *d)
{
	bool up = d->device.state == DEVICE_UP;
	char text[128], status[512];

	if (up == d->device_up && d->ready)
		return;
	d->device_up = up;
	device_describe(&d->device, text, sizeof(text));
	snprintf(status, sizeof(status), "socket %s, admin %s, device %s", d->listeners[CLIENTS].path, d->listeners[ADMINS].path, text);
	if (!d->ready && (up || d->options->provider == OPTIONS_NONE)) {
		d->ready = true;
		if (up)
			warn_unreachable(d);
		notify_ready(status, d->options->ready_fd);
	} else if (d->ready) {
		if (up)
			log_write(LOG_NOTICE, "the device is back: %s", text);
		notify_status("%s", up ? status : d->device.message);
	}
}

static void daemon_end(struct daemon *d);

/* Clients are let in when the device is there, or when it is clear that it will take longer: then they are told so. */
static void look_starting(struct daemon *d)
{
	bool failed = d->device.failures > 0;

	if (failed && d->options->rootless && d->device.state != DEVICE_UP) {
		d->status = 1;
		daemon_end(d);
	} else if (failed || d->device.state == DEVICE_UP || d->options->provider == OPTIONS_NONE) {
		d->state = DAEMON_SERVING;
		d->look = true;
	}
}

/* ---- ending */

static void on_patience(uv_timer_t *timer)
{
	struct daemon *d = container_of(timer, struct daemon, patience);

	if (d->impatience++ == 0) {
		log_write(LOG_WARNING, "stopping takes too long (%u sessions left); the device is cut off", d->sessions.n_all);
		device_cut(&d->device);
		uv_timer_start(&d->patience, on_patience, PATIENCE_MS, 0);
		return;
	}
	log_write(LOG_ERR, "stopping failed: %u sessions left, device %s", d->sessions.n_all, device_stopped(&d->device) ? "gone" : "there");
	_exit(1);
}

static void daemon_end(struct daemon *d)
{
	if (d->state >= DAEMON_ENDING)
		return;
	notify_stopping();
	d->state = DAEMON_ENDING;
	d->look = true;
	uv_timer_start(&d->patience, on_patience, PATIENCE_MS, 0);
	for (unsigned i = 0; i < LISTENERS; i++)
		listener_close(&d->listeners[i]);
	sessions_end(&d->sessions);
}

static void on_signal(uv_signal_t *handle, int signum)
{
	struct daemon *d = handle->data;

	if (signum == SIGHUP) {
		log_write(LOG_NOTICE, "SIGHUP: the configuration is read at start only; restart nicd to change it");
		return;
	}
	log_write(LOG_NOTICE, "stopping: %s", signum == SIGINT ? "interrupted" : "asked to");
	daemon_end(d);
}

static void daemon_close(struct daemon *d)
{
	d->state = DAEMON_CLOSING;
	sessions_close(&d->sessions);
	device_close(&d->device);
	timers_close(&d->timers);
	for (unsigned i = 0; i < ELEMENTS(d->signals); i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
	uv_close((uv_handle_t *)&d->prepare, NULL);
	uv_close((uv_handle_t *)&d->check, NULL);
	uv_close((uv_handle_t *)&d->deadline, NULL);
	uv_close((uv_handle_t *)&d->patience, NULL);
}

static void daemon_look(struct daemon *d)
{
	switch (d->state) {
	case DAEMON_STARTING:
		look_starting(d);
		return;
	case DAEMON_SERVING:
		accept_if_room(d);
		tell_device(d);
		return;
	case DAEMON_ENDING:
		if (d->sessions.n_all || d->sessions.n_open)
			return;
		d->state = DAEMON_UNPLUGGING;
		device_stop(&d->device);
		return;
	case DAEMON_UNPLUGGING:
		if (device_stopped(&d->device))
			daemon_close(d);
		return;
	case DAEMON_CLOSING:
		return;
	}
}

/* ---- the beginning */

static int fail(struct daemon *d, const char *what, int r)
{
	snprintf(d->message, sizeof(d->message), "%s: %s", what, strerror(-r));
	return r;
}

static void init_rules(struct daemon *d)
{
	const struct group *group = getgrnam(ADMIN_GROUP);

	d->rules = (struct identity_rules){
		.account_by = d->options->policy.account_by,
		.has_admin_gid = group != NULL,
		.admin_gid = group ? group->gr_gid : 0,
		.admin_uid = d->options->rootless ? geteuid() : 0,
		.has_gateway_uid = d->options->has_gateway_uid,
		.gateway_uid = d->options->gateway_uid,
	};
}

static int init_host(struct daemon *d)
{
	sd_id128_t boot;
	int r;

	d->host.nic = &d->nic;
	d->host.env = &d->env.nic;
	d->host.policy = &d->options->policy;
	d->host.after = host_after;
	d->host.log = host_log;
	d->host.open_fds = host_open_fds;
	r = sd_id128_get_boot(&boot);
	if (r < 0)
		return fail(d, "the kernel does not tell the boot id (/proc/sys/kernel/random/boot_id)", r);
	memcpy(d->host.boot_id, boot.bytes, sizeof(d->host.boot_id));
	r = client_host_init(&d->host);
	if (r < 0)
		return fail(d, "no memory for sessions", r);
	d->has_host = true;
	return 0;
}

static int init_sessions(struct daemon *d)
{
	const struct sessions_terms terms = {
		.loop = &d->loop,
		.host = &d->host,
		.descriptors = &d->descriptors,
		.env = &d->env,
		.rules = &d->rules,
		.max = d->options->max_sessions,
		.bind_to_pid = d->options->bind_to_pid,
		.stall_ms = (uint32_t)(d->options->policy.stall_timeout_ns / 1000000),
		.hello_ms = (uint32_t)(d->options->policy.hello_timeout_ns / 1000000),
	};
	int r = sessions_init(&d->sessions, &terms);

	if (r < 0)
		return fail(d, "no memory for sessions", r);
	d->sessions.ended = on_session_ended;
	return 0;
}

/* What the service manager passed is taken; the rest is made. */
static int init_listeners(struct daemon *d)
{
	const struct options *o = d->options;
	const struct listener_terms terms[LISTENERS] = {
		[CLIENTS] = { .path = o->socket, .mode = 0666 },
		[ADMINS] = { .path = o->admin_socket, .mode = 0660, .has_group = d->rules.has_admin_gid && !o->rootless,
			     .group = d->rules.admin_gid },
	};
	int passed[LISTENERS], r;

	r = listener_passed(&passed[CLIENTS], &passed[ADMINS], d->message, sizeof(d->message));
	for (unsigned i = 0; i < LISTENERS && r >= 0; i++) {
		struct listener *listener = &d->listeners[i];

		listener->accepted = on_accepted;
		listener->userdata = d;
		if (passed[i] >= 0)
			r = listener_take(listener, passed[i], d->message, sizeof(d->message));
		else
			r = listener_bind(listener, &terms[i], d->message, sizeof(d->message));
		if (r >= 0 && listener_open(listener, &d->loop) < 0)
			r = fail(d, "the loop refuses a socket", -ENOMEM);
	}
	return r;
}

static int init_loop(struct daemon *d)
{
	int r = 0;

	timers_init(&d->timers, &d->loop);
	uv_prepare_init(&d->loop, &d->prepare);
	uv_prepare_start(&d->prepare, on_prepare);
	uv_check_init(&d->loop, &d->check);
	uv_check_start(&d->check, on_check);
	uv_timer_init(&d->loop, &d->deadline);
	d->deadline_at = UINT64_MAX;
	uv_timer_init(&d->loop, &d->patience);
	for (unsigned i = 0; i < ELEMENTS(d->signals); i++) {
		d->signals[i].data = d;
		if (uv_signal_init(&d->loop, &d->signals[i]) < 0 || uv_signal_start(&d->signals[i], on_signal, daemon_signals[i]) < 0)
			r = -ENOMEM;
	}
	return r < 0 ? fail(d, "the loop refuses a signal", r) : 0;
}

/* Parts that failed to start can be ended like those that did; the caller's message says which it was. */
static int daemon_init(struct daemon *d)
{
	const struct nic_settings settings = { .revoke_timeout_ns = d->options->policy.revoke_timeout_ns };
	int r;

	env_init(&d->env, &d->loop);
	nic_init(&d->nic, &d->env.nic, &d->options->policy.limits, &settings);
	d->nic.accounts.pool[NIC_SLOT_MEMORIES] = d->options->policy.all_memories;
	init_rules(d);
	r = init_loop(d);
	if (!r)
		r = init_host(d);
	if (!r)
		r = init_sessions(d);
	if (!r)
		r = init_listeners(d);
	d->device.changed = on_device_changed;
	if (!r && device_init(&d->device, &d->loop, &d->nic, d->options) < 0)
		r = fail(d, "the loop refuses the device", -ENOMEM);
	if (!r && descriptors_init(&d->descriptors, &d->nic, &d->env) < 0)
		r = fail(d, "RLIMIT_NOFILE is too low to serve clients; raise it (ulimit -n, LimitNOFILE=) to 1024 or more", -EMFILE);
	/* Sessions need the other half. */
	if (!r)
		d->nic.accounts.pool[NIC_SLOT_FDS] = (d->descriptors.limit - d->descriptors.base) / 2;
	return r;
}

static void daemon_deinit(struct daemon *d)
{
	if (d->has_host)
		client_host_deinit(&d->host);
	sessions_deinit(&d->sessions);
	nic_deinit(&d->nic);
	/* The last closes that this may have queued. */
	uv_run(&d->loop, UV_RUN_DEFAULT);
	env_deinit(&d->env);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

/* Nothing has run yet, so whatever handles there are can just be closed. */
static void daemon_abandon(struct daemon *d)
{
	for (unsigned i = 0; i < LISTENERS; i++)
		listener_close(&d->listeners[i]);
	uv_walk(&d->loop, close_handle, NULL);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	daemon_deinit(d);
}

int daemon_run(const struct options *options)
{
	struct daemon d = { .options = options };
	int r = uv_loop_init(&d.loop);

	if (!r)
		r = uv_loop_configure(&d.loop, UV_METRICS_IDLE_TIME);

	if (r < 0) {
		log_write(LOG_ERR, "cannot start: no event loop: %s", uv_strerror(r));
		return 1;
	}
	for (unsigned i = 0; i < LISTENERS; i++)
		listener_init(&d.listeners[i]);
	if (daemon_init(&d) < 0) {
		log_write(LOG_ERR, "cannot start: %s", d.message);
		daemon_abandon(&d);
		return 1;
	}
	d.look = true;
	if (options->provider != OPTIONS_NONE)
		device_start(&d.device);
	turns_init(&d.host.turns, d.env.nic.now(&d.env.nic));
	uv_run(&d.loop, UV_RUN_DEFAULT);
	daemon_deinit(&d);
	return d.status;
}
