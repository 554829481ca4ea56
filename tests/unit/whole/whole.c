/* SPDX-License-Identifier: MIT */
/* struct whole: static, of the test. Everything in it is made and taken down like in the processes. */
#include "whole.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/util.h"
#include "nicd/soft/device.h"
#include "nicd/soft/provider.h"
#include "proto/locator.h"
#include "proto/soft.pb-c.h"
#include "proto/wire.h"

enum { PATIENCE_NS = 20 * 1000 * 1000 /* times 1,000 */, PATIENT_TURNS = 200 };

static uint64_t deadline(void)
{
	return uv_hrtime() + UINT64_C(1000) * PATIENCE_NS;
}

/* ---- hooks */

/* The NIC layer's clock: it goes on by itself, and is turned on when all wait for a device that shall be asked again. */
static uint64_t ahead;
static uint64_t (*real_now)(struct nic_env *env);

static uint64_t hook_now(struct nic_env *env)
{
	return real_now(env) + ahead;
}

/* Not daemon/timers.c: without memory for an alarm that ends the process, and says so. */
static void hook_after(struct client_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	struct whole *whole = container_of(host, struct whole, host);

	assert_true(whole->n_alarms < WHOLE_ALARMS);
	whole->alarms[whole->n_alarms++] = (struct whole_alarm){ hook_now(host->env) + delay_ns, fn, arg };
}

static void alarms_ring(struct whole *whole)
{
	for (unsigned i = 0; i < whole->n_alarms;) {
		struct whole_alarm alarm = whole->alarms[i];

		if (alarm.at > hook_now(&whole->env.nic)) {
			i++;
			continue;
		}
		whole->alarms[i] = whole->alarms[--whole->n_alarms];
		alarm.fn(alarm.arg);
		i = 0;
	}
}

static void hook_log(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error)
{
}

static uint32_t hook_open_fds(struct client_host *host)
{
	return descriptors_open();
}

static void on_ended(struct sessions *sessions)
{
}

static void on_closed(void *userdata)
{
	*(bool *)userdata = true;
}

/* ---- the device, as daemon/device.c keeps it */

static void on_device(uv_poll_t *poll, int status, int events)
{
	struct whole *whole = container_of(poll, struct whole, device);

	if (status < 0)
		whole->events = 0;
	soft_provider_dispatch(whole->soft);
}

static void on_device_closed(uv_handle_t *handle)
{
	container_of((uv_poll_t *)(void *)handle, struct whole, device)->device_gone = true;
}

static void device_turn(struct whole *whole)
{
	int events;

	if (!whole->soft || uv_is_closing((uv_handle_t *)&whole->device))
		return;
	if (soft_provider_fd(whole->soft) < 0) {
		uv_close((uv_handle_t *)&whole->device, on_device_closed);
		return;
	}
	events = UV_READABLE | (soft_provider_wants_write(whole->soft) ? UV_WRITABLE : 0);
	if (events != whole->events && !uv_poll_start(&whole->device, events, on_device))
		whole->events = events;
}

static void turn_end(struct whole *whole)
{
	sessions_turn(&whole->sessions);
	nic_push(&whole->nic);
	device_turn(whole);
	(void)sessions_settled(&whole->sessions);
}

static void on_prepare(uv_prepare_t *prepare)
{
	turn_end(container_of(prepare, struct whole, prepare));
}

static void on_check(uv_check_t *check)
{
	struct whole *whole = container_of(check, struct whole, check);

	sessions_read(&whole->sessions);
	turn_end(whole);
}

/*
 * The provider's Hello waits for its answer, so that this has to be there before: one that was given to somebody who
 * asked first.
 */
static void device_greet(struct whole *whole, int pair[2])
{
	static const uint8_t hello[] = { 0x0a, 0x06, 0x08, 0x01, 0x52, 0x02, 0x08, NICD_MAJOR };
	uint8_t answer[256];
	struct nicd_error err;
	ssize_t n = -1;

	assert_int_equal(wire_send(pair[1], hello, sizeof(hello), NULL, 0), 0);
	while (n <= 0) {
		uv_run(&whole->loop, UV_RUN_NOWAIT);
		n = recv(pair[1], answer, sizeof(answer), MSG_DONTWAIT);
	}
	assert_int_equal(wire_send(pair[0], answer, (size_t)n, NULL, 0), 0);
	assert_int_equal(soft_provider_new(&whole->soft, pair[1], &err), 0);
	/* And the answer to that one is not for it. */
	do
		uv_run(&whole->loop, UV_RUN_NOWAIT);
	while (recv(pair[1], answer, sizeof(answer), MSG_DONTWAIT) <= 0);
}

static void device_new(struct whole *whole)
{
	const struct soft_control_options options = { .uid = getuid() };
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_storage bound;
	struct soft_device *device;
	char text[64];
	int pair[2];

	assert_int_equal(soft_control_new(&whole->control, &whole->loop, &options), 0);
	device = soft_control_device(whole->control);
	assert_int_equal(soft_engine_listen(soft_device_engine(device), (const struct sockaddr *)&any, &bound), 0);
	locator_addr_print(&bound, text);
	soft_device_advertise(device, text);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(soft_control_admit(whole->control, pair[0]), 0);
	device_greet(whole, pair);
	assert_int_equal(uv_poll_init(&whole->loop, &whole->device, soft_provider_fd(whole->soft)), 0);
	assert_int_equal(nic_adapter_new(&whole->adapter, &whole->nic, whole->soft), 0);
}

/* ---- all of it */

static void core_new(struct whole *whole)
{
	env_init(&whole->env, &whole->loop);
	real_now = whole->env.nic.now;
	whole->env.nic.now = hook_now;
	policy_init(&whole->policy);
	whole->policy.privileged_token = true;
	assert_int_equal(policy_add_network(&whole->policy, "127.0.0.0/8:1-65535"), 0);
	nic_init(&whole->nic, &whole->env.nic, &whole->policy.limits, NULL);
	whole->rules.admin_uid = getuid();
	whole->host = (struct client_host){
		.nic = &whole->nic,
		.env = &whole->env.nic,
		.policy = &whole->policy,
		.boot_id = "0123456789abcde",
		.after = hook_after,
		.log = hook_log,
		.open_fds = hook_open_fds,
	};
	assert_int_equal(client_host_init(&whole->host), 0);
}

void whole_new(struct whole *whole)
{
	const struct sessions_terms terms = {
		.loop = &whole->loop, .host = &whole->host, .descriptors = &whole->descriptors, .env = &whole->env,
		.rules = &whole->rules, .max = 64,
	};

	memset(whole, 0, sizeof(*whole));
	assert_int_equal(uv_loop_init(&whole->loop), 0);
	core_new(whole);
	device_new(whole);
	assert_int_equal(descriptors_init(&whole->descriptors, &whole->nic, &whole->env), 0);
	assert_int_equal(sessions_init(&whole->sessions, &terms), 0);
	whole->sessions.ended = on_ended;
	uv_prepare_init(&whole->loop, &whole->prepare);
	uv_prepare_start(&whole->prepare, on_prepare);
	uv_check_init(&whole->loop, &whole->check);
	uv_check_start(&whole->check, on_check);
}

void whole_free(struct whole *whole)
{
	bool closed = false;

	sessions_end(&whole->sessions);
	whole_until_clean(whole);
	sessions_close(&whole->sessions);
	uv_close((uv_handle_t *)&whole->prepare, NULL);
	uv_close((uv_handle_t *)&whole->check, NULL);
	if (!uv_is_closing((uv_handle_t *)&whole->device))
		uv_close((uv_handle_t *)&whole->device, on_device_closed);
	while (!whole->device_gone)
		uv_run(&whole->loop, UV_RUN_NOWAIT);
	client_host_deinit(&whole->host);
	nic_deinit(&whole->nic);
	soft_control_close(whole->control, on_closed, &closed);
	while (!closed)
		uv_run(&whole->loop, UV_RUN_ONCE);
	soft_control_free(whole->control);
	sessions_deinit(&whole->sessions);
	env_deinit(&whole->env);
	uv_run(&whole->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&whole->loop), 0);
}

/* `n` turns have brought nothing. */
static void turn(struct whole *whole, unsigned n)
{
	uv_run(&whole->loop, UV_RUN_NOWAIT);
	alarms_ring(whole);
	if (n % PATIENT_TURNS == PATIENT_TURNS - 1) {
		ahead += UINT64_C(1000000000);
		nic_tick(&whole->nic);
	}
}

bool whole_device_lost(const struct whole *whole)
{
	return whole->device_gone || uv_is_closing((const uv_handle_t *)&whole->device);
}

bool whole_is_clean(const struct whole *whole)
{
	struct soft_engine_stats stats;

	soft_engine_stats(soft_device_engine(soft_control_device(whole->control)), &stats);
	return !whole->sessions.n_all && !whole->descriptors.sessions && !whole->sessions.burying && !whole->env.closing &&
	       !whole->env.closer.pending && !whole->nic.held_fds && !whole->host.n_calls && !whole->host.n_clients && !stats.streams;
}

void whole_until_clean(struct whole *whole)
{
	uint64_t until = deadline();

	for (unsigned n = 0; !whole_is_clean(whole); n++) {
		turn(whole, n);
		if (uv_hrtime() > until)
			fail_msg("left: %u sessions, %u burying, %u closing, %u memories, %u calls, %u clients", whole->sessions.n_all,
				 whole->sessions.burying, whole->env.closing, (unsigned)whole->nic.held_fds,
				 (unsigned)whole->host.n_calls, whole->host.n_clients);
	}
}

/* ---- clients */

void whole_dial(struct whole *whole, struct whole_client *client)
{
	int pair[2];

	*client = (struct whole_client){ .whole = whole };
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	client->fd = pair[1];
	session_accept(&whole->sessions, pair[0], false);
}

static void forget(struct whole_client *client)
{
	while (client->n_frames)
		nicd__frame__free_unpacked(client->frames[--client->n_frames], NULL);
}

void whole_hang_up(struct whole_client *client)
{
	forget(client);
	close(client->fd);
}

static void hear(struct whole_client *client)
{
	static uint8_t buf[NICD_FRAME_MAX + 1];
	ssize_t n = recv(client->fd, buf, sizeof(buf), MSG_DONTWAIT);
	Nicd__Frame *frame;

	if (n < 0)
		return;
	if (!n) {
		client->ended = true;
		return;
	}
	frame = nicd__frame__unpack(NULL, (size_t)n, buf);
	assert_non_null(frame);
	assert_false(client->told);
	assert_true(client->n_frames < WHOLE_REPLIES);
	client->told = frame->fatal;
	client->frames[client->n_frames++] = frame;
}

const Nicd__Reply *whole_reply(const struct whole_client *client, uint32_t id)
{
	const Nicd__Reply *found = NULL;

	for (unsigned i = 0; i < client->n_frames; i++) {
		for (size_t j = 0; j < client->frames[i]->n_replies; j++) {
			if (client->frames[i]->replies[j]->id != id)
				continue;
			assert_null(found);
			found = client->frames[i]->replies[j];
		}
	}
	return found;
}

static bool is_answered(const struct whole_client *client, Nicd__Request **requests, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!whole_reply(client, requests[i]->id))
			return false;
	}
	return true;
}

void whole_ask(struct whole_client *client, Nicd__Request **requests, unsigned n, const int *fds, unsigned n_fds)
{
	static uint8_t buf[NICD_FRAME_MAX];
	Nicd__Frame frame = NICD__FRAME__INIT;
	uint64_t until = deadline();

	forget(client);
	frame.n_requests = n;
	frame.requests = requests;
	assert_true(nicd__frame__get_packed_size(&frame) <= sizeof(buf));
	/* To a session that has ended, too. */
	while (wire_send(client->fd, buf, nicd__frame__pack(&frame, buf), fds, n_fds) == -ETOOMANYREFS)
		turn(client->whole, 0);
	for (unsigned turns = 0; !client->ended && !is_answered(client, requests, n); turns++) {
		turn(client->whole, turns);
		hear(client);
		for (unsigned i = 0; i < n && uv_hrtime() > until; i++) {
			if (!whole_reply(client, requests[i]->id))
				fail_msg("request %u, call %u, has no answer", requests[i]->id, requests[i]->call_case);
		}
	}
}
