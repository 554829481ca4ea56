/* SPDX-License-Identifier: MIT */
/* struct world: static, of the test; made once and used for many sessions. */
#include "tests/fuzz/world.h"

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/util.h"
#include "nicd/adapter.h"
#include "proto/locator.h"
#include "tests/fuzz/input.h"

enum { PATIENCE_S = 60 };

static void on_prepare(uv_prepare_t *prepare)
{
	struct world *world = container_of(prepare, struct world, prepare);

	sessions_read(&world->sessions);
	sessions_turn(&world->sessions);
	(void)sessions_settled(&world->sessions);
}

static void on_ended(struct sessions *sessions)
{
}

static void hook_after(struct client_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	struct world *world = container_of(host, struct world, host);

	must(world->n_alarms < WORLD_ALARMS);
	world->alarms[world->n_alarms].fn = fn;
	world->alarms[world->n_alarms++].arg = arg;
}

static void hook_log(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error)
{
	must(nicd_reason_info(error->reason)->text);
}

static uint32_t hook_open_fds(struct client_host *host)
{
	return descriptors_open();
}

static void world_set(struct world *world)
{
	struct nic_adapter *adapter;

	env_init(&world->env, &world->loop);
	policy_init(&world->policy);
	nic_init(&world->nic, &world->env.nic, &world->policy.limits, NULL);
	world->rules.admin_uid = getuid();
	world->fake = fake_new();
	must(world->fake && locator_addr_parse("127.0.0.1:7190", &world->fake->provider.data_addr) == 0);
	must(nic_adapter_new(&adapter, &world->nic, &world->fake->provider) == 0);
	world->host = (struct client_host){
		.nic = &world->nic,
		.env = &world->env.nic,
		.policy = &world->policy,
		.boot_id = "0123456789abcde",
		.after = hook_after,
		.log = hook_log,
		.open_fds = hook_open_fds,
	};
	must(client_host_init(&world->host) == 0);
}

int world_init(struct world *world)
{
	struct sessions_terms terms = {
		.loop = &world->loop,
		.host = &world->host,
		.descriptors = &world->descriptors,
		.env = &world->env,
		.rules = &world->rules,
		.max = 64,
	};

	memset(world, 0, sizeof(*world));
	world->open_before = descriptors_open();
	must(uv_loop_init(&world->loop) == 0);
	world_set(world);
	must(descriptors_init(&world->descriptors, &world->nic, &world->env) == 0);
	must(sessions_init(&world->sessions, &terms) == 0);
	world->sessions.ended = on_ended;
	uv_prepare_init(&world->loop, &world->prepare);
	uv_prepare_start(&world->prepare, on_prepare);
	return 0;
}

void world_deinit(struct world *world)
{
	sessions_end(&world->sessions);
	world_until_gone(world, true);
	must(world_is_clean(world));
	sessions_close(&world->sessions);
	uv_close((uv_handle_t *)&world->prepare, NULL);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	sessions_deinit(&world->sessions);
	client_host_deinit(&world->host);
	nic_deinit(&world->nic);
	env_deinit(&world->env);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	must(uv_loop_close(&world->loop) == 0);
	must(descriptors_open() == world->open_before);
}

int world_dial(struct world *world, bool admin)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	session_accept(&world->sessions, pair[0], admin);
	return pair[1];
}

void world_turn(struct world *world, unsigned n)
{
	while (n--)
		uv_run(&world->loop, UV_RUN_NOWAIT);
}

void world_answer(struct world *world)
{
	fake_hold(world->fake, FAKE_OPS, false);
	fake_complete_all(world->fake);
	/* An alarm may set another one. */
	while (world->n_alarms) {
		unsigned last = --world->n_alarms;

		world->alarms[last].fn(world->alarms[last].arg);
	}
}

static bool threads_busy(const struct world *world)
{
	return world->sessions.burying || world->env.closing || world->env.closer.pending;
}

void world_until_gone(struct world *world, bool threads)
{
	time_t until = time(NULL) + PATIENCE_S;

	while (world->sessions.n_all || world->descriptors.sessions || (threads && threads_busy(world))) {
		world_turn(world, 1);
		world_answer(world);
		must(time(NULL) < until);
	}
	world_turn(world, 2);
}

bool world_is_clean(const struct world *world)
{
	return fake_holds_nothing(world->fake) && !world->nic.held_fds && !world->host.n_calls && !world->host.n_clients &&
	       !world->host.n_admins && !world->descriptors.sessions;
}
