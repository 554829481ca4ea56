/* SPDX-License-Identifier: MIT */
/*
 * The world around the session core. What daemon/session.c, daemon.c and env.c do with sockets, a loop and the kernel is done here with arrays
 * and numbers, in the same order: frames in, a turn in which output is prepared and read, ends in pieces.
 */
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/call.h"
#include "nicd/adapter.h"

struct world *world;

/* ---- environment */

struct block {
	size_t size;
	size_t pad;
};

static uint64_t env_now(struct nic_env *env)
{
	return world->now;
}

static uint64_t env_wall(struct nic_env *env)
{
	return UINT64_C(1700000000000000000) + world->now;
}

static void env_random(struct nic_env *env, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)(sim_random(&world->dice) >> 32);
}

static void *env_alloc(struct nic_env *env, size_t size)
{
	struct block *block;

	if (world->fail_in && !--world->fail_in) {
		if (world->fail_for && --world->fail_for)
			world->fail_in = 1;
		trace("no memory", size, 0, 0);
		model_oom(world->model);
		return NULL;
	}
	block = calloc(1, sizeof(*block) + size);
	if (!block)
		abort();
	block->size = size;
	world->live_blocks++;
	return block + 1;
}

static void env_free(struct nic_env *env, void *ptr, size_t size)
{
	struct block *block = (struct block *)ptr - 1;

	sim_must(block->size == size, "freed as %zu bytes, allocated as %zu", size, block->size);
	world->live_blocks--;
	free(block);
}

static void env_close_fd(struct nic_env *env, int fd, uint64_t size)
{
	trace("close", (uint64_t)fd, 0, 0);
	sim_must(fd >= 0 && fd < WORLD_FDS && world->fd_open[fd], "a descriptor is closed twice, or is none: %d", fd);
	world->fd_open[fd] = false;
	world->n_fds_open--;
}

int world_fd(const struct sim_fd *what)
{
	int fd;

	do
		fd = (int)(world->next_fd++ % WORLD_FDS);
	while (world->fd_open[fd]);
	world->fd_open[fd] = true;
	world->fds[fd] = *what;
	world->n_fds_open++;
	return fd;
}

static int check_memory(int fd, struct nic_memory_facts *ret, struct nicd_error *err)
{
	const struct sim_fd *what = &world->fds[fd];

	sim_must(world->fd_open[fd], "a descriptor that is closed is looked at");
	if (what->status == S_ACCESS_VIOLATION)
		return nicd_refuse(err, NICD_R_MEMORY_WRITE_ONLY);
	if (what->status == S_NOT_SUPPORTED)
		return nicd_refuse(err, NICD_R_MEMORY_KIND);
	if (what->status)
		return nicd_refuse(err, NICD_R_MEMORY_NOT_SEALED);
	*ret = (struct nic_memory_facts){ .fd = fd, .size = what->size, .page_size = what->page, .writable = what->writable };
	return 0;
}

/* ---- what clients hear */

static int client_index(const struct client *client)
{
	return (int)((struct world_client *)client->userdata - world->clients);
}

static void hear(int i, unsigned field, const uint8_t *data, size_t len)
{
	static struct sim_reply reply;
	enum sim_event kind;
	uint64_t object, serial, count;

	sim_must(!world->clients[i].fatal_seen, "something is said after the last word");
	switch (field) {
	case 2:
		say_decode_reply(data, len, &reply);
		world->replies++;
		trace("reply", (uint64_t)i, reply.id, reply.status);
		trace("", reply.object, reply.serial, reply.result);
		sim_must(!world->quiet || (!reply.status && model_is_silent(world->model, i, reply.id)), "nobody is woken for reply %u", reply.id);
		model_reply(world->model, i, &reply);
		break;
	case 3:
		say_decode_event(data, len, &kind, &object, &serial, &count);
		trace("event", (uint64_t)i, (uint64_t)kind, serial);
		model_event(world->model, i, kind, object, serial, count);
		break;
	case 4:
		trace("fatal", (uint64_t)i, 0, 0);
		world->clients[i].fatal_seen = true;
		model_fatal(world->model, i);
		break;
	default:
		sim_fail("a frame with field %u", field);
	}
}

/* Everything that was queued since the last look, in order; it stays queued. */
static void listen_to(int i)
{
	struct world_client *c = &world->clients[i];
	const uint8_t *data;
	size_t len;

	while ((data = frame_out_peek(&c->client->out, c->at_frame, &len))) {
		while (c->at < len) {
			uint8_t field = data[c->at++];
			size_t size = 0;
			unsigned shift = 0;
			uint8_t byte;

			do {
				byte = data[c->at++];
				size |= (size_t)(byte & 0x7f) << shift;
				shift += 7;
			} while (byte & 0x80);
			sim_must((field & 7) == 2 && c->at + size <= len, "a frame is damaged");
			c->at += size;
			hear(i, field >> 3, data + c->at - size, size);
		}
		/* The last one is still open: more may be appended to it. */
		if (!frame_out_peek(&c->client->out, c->at_frame + 1, &len))
			return;
		c->at_frame++;
		c->at = 0;
	}
}

/* The socket takes `n` frames. */
static void read_frames(int i, unsigned n)
{
	struct world_client *c = &world->clients[i];

	listen_to(i);
	while (n-- && !frame_out_empty(&c->client->out)) {
		frame_out_drop(&c->client->out);
		if (c->at_frame)
			c->at_frame--;
		else
			c->at = 0;
	}
}

void world_outputs(void)
{
	for (int i = 0; i < MODEL_CLIENTS; i++)
		world->model->clients[i].output = world->clients[i].client ? world->clients[i].client->out.bytes : 0;
}

/* ---- hooks */

/* Looked at later; but what was queued is heard now, in the order in which it happened. */
static void hook_wake(struct client *client)
{
	int i = client_index(client);

	if (!world->clients[i].dead)
		listen_to(i);
	world->woken = world->clients[i].woken = true;
	client->woken = false;   /* so that the next thing that happens is heard, too */
}

void world_overhear(struct client *client)
{
	int i = client_index(client);

	if (world->clients[i].dead)
		return;
	world->quiet = true;
	listen_to(i);
	world->quiet = false;
}

static void hook_kick(struct client *client)
{
	int i = client_index(client);

	trace("kick", (uint64_t)i, 0, 0);
	world->clients[i].kicked = true;
	model_kick(world->model, i);
}

static void hook_after(struct client_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	sim_must(world->n_timers < WORLD_TIMERS, "too many timers");
	world->timers[world->n_timers].at = world->now + delay_ns;
	world->timers[world->n_timers].fn = fn;
	world->timers[world->n_timers++].arg = arg;
}

static void hook_log(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error)
{
	sim_must(error->reason != NICD_R_INTERNAL, "nicd failed inside");
}

static uint32_t hook_open_fds(struct client_host *host)
{
	return world->n_fds_open;
}

static bool hook_alive(struct client *client)
{
	return !world->clients[client_index(client)].dead;
}

/* ---- the beginning */

/* The names of the slots are the protocol's; their order is each side's own. */
static enum sim_slot slot_of(unsigned nic_slot)
{
	static const char *const names[SLOT_COUNT] = { "sessions", "memories", "fds", "pinned_bytes", "pds", "mrs", "qps", "doors", "calls",
						       "buffered_bytes", "receives", "mws", "mappings" };
	static unsigned known[NIC_SLOT_COUNT];

	for (unsigned slot = 0; slot < SLOT_COUNT && !known[nic_slot]; slot++)
		if (!strcmp(names[slot], nic_slot_names[nic_slot]))
			known[nic_slot] = slot + 1;
	sim_must(known[nic_slot], "accounts pay for %s, of which the model knows nothing", nic_slot_names[nic_slot]);
	return (enum sim_slot)(known[nic_slot] - 1);
}

static void limits(struct model_terms *terms)
{
	static const uint64_t tight[SLOT_COUNT] = { 3, 4, 5, 24 * SIM_PAGE, 3, 5, 8, 4, 6, 2048, 4, 4, 4 };
	static const uint64_t wide[SLOT_COUNT] = { 4096, 4096, 4096, UINT64_C(1) << 40, 4096, 4096, 4096, 4096, 65536, UINT64_C(64) << 20, 4096, 4096, 4096 };
	struct nic_limits *to = &world->policy.limits;

	for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
		bool is = world->profile->tight && sim_chance(&world->random, 3);

		terms->max[slot] = is ? tight[slot] + sim_below(&world->random, 3) * (slot == SLOT_PINNED ? SIM_PAGE : 1) : wide[slot];
	}
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++)
		to->max[i] = terms->max[slot_of(i)];
}

void world_begin(uint64_t seed, const struct profile *profile)
{
	static struct model *model;
	struct model_terms terms = { 0 };
	struct nic_settings settings;

	if (!world)
		world = calloc(1, sizeof(*world));
	if (!model)
		model = calloc(1, sizeof(*model));
	sim_must(world && model, "no memory for a world");
	memset(world, 0, sizeof(*world));
	world->model = model;
	world->profile = profile;
	world->random.state = seed;
	world->dice.state = seed ^ UINT64_C(0x5deece66d);
	world->now = 1000000000;
	world->next_fd = 1;
	world->env = (struct nic_env){ env_now, env_wall, env_random, env_alloc, env_free, env_close_fd };
	policy_init(&world->policy);
	limits(&terms);
	terms.revoke_timeout_ns = world->policy.revoke_timeout_ns;
	world->policy.max_calls = terms.max_calls = profile->tight && sim_chance(&world->random, 4) ? 4 : 4096;
	world->policy.max_news = terms.max_news = profile->tight && sim_chance(&world->random, 4) ? 2 : 1024;
	world->policy.max_output = profile->slow ? 2048 : 256 * 1024;
	terms.narrow = profile->narrow && sim_chance(&world->random, profile->narrow);
	if (terms.narrow) {
		world->policy.device_window = 1 + sim_below(&world->random, 4);
		world->policy.device_share = 1 + sim_below(&world->random, 2);
		world->policy.connect_window = world->policy.connect_share = 1 + sim_below(&world->random, 2);
	}
	terms.max_registration = 32 * SIM_PAGE;
	terms.max_transfer = 65536;
	world->policy.privileged_token = terms.privileged = sim_chance(&world->random, 2);
	terms.attach_percent = sim_chance(&world->random, 4) ? 0 : 100;
	terms.tag_percent = sim_chance(&world->random, 2) ? 0 : 100;
	model_init(model, &terms);
	model_now(model, world->now);
	settings.revoke_timeout_ns = terms.revoke_timeout_ns;
	nic_init(&world->nic, &world->env, &world->policy.limits, &settings);
	world->host = (struct client_host){
		.nic = &world->nic,
		.env = &world->env,
		.policy = &world->policy,
		.wake = hook_wake,
		.kick = hook_kick,
		.after = hook_after,
		.log = hook_log,
		.open_fds = hook_open_fds,
		.alive = hook_alive,
		.check_memory = check_memory,
	};
	sim_must(client_host_init(&world->host) == 0, "no memory for a host");
	world->devices[0] = device_new();
}

bool world_connect(int i, int account, enum sim_role role)
{
	struct world_client *c = &world->clients[i];
	struct client_identity identity = { .role = (enum client_role)role, .admin_socket = role == ROLE_ADMIN, .pid = 42 };
	struct nicd_error err;

	sim_must(!c->client, "a place that is taken");
	*c = (struct world_client){ 0 };
	snprintf(identity.account, sizeof(identity.account), "uid:%d", account);
	if (client_new(&c->client, &world->host, &identity, c, &err) < 0) {
		trace("not let in", (uint64_t)i, (uint64_t)account, 0);
		model_not_accepted(world->model, account, identity.admin_socket);
		return false;
	}
	trace("connected", (uint64_t)i, (uint64_t)account, (uint64_t)role);
	model_accept(world->model, i, account, role, identity.admin_socket, c->client->serial);
	return true;
}

/* ---- frames */

void world_send_raw(int i, const void *data, size_t len, unsigned n_fds)
{
	static const struct sim_fd good = { .size = SIM_PAGE, .page = SIM_PAGE, .writable = true };
	struct world_client *c = &world->clients[i];
	struct wire_packet packet = { .data = data, .len = len, .n_fds = n_fds };
	bool ok;

	for (unsigned j = 0; j < n_fds; j++)
		packet.fds[j] = world_fd(&good);
	trace("raw frame", (uint64_t)i, len, n_fds);
	model_frame(world->model, i, NULL, 0, true);
	ok = client_frame(c->client, &packet);
	sim_must(!ok && packet.next_fd == n_fds, "a frame that breaks the protocol was taken");
}

void world_send(int i, struct sim_request *requests, unsigned n, bool bad)
{
	struct world_client *c = &world->clients[i];
	struct wire_packet packet = { .data = world->data };
	bool ok;

	packet.len = say_encode(requests, n, world->data, sizeof(world->data));
	for (unsigned j = 0; j < n; j++)
		for (unsigned k = requests[j].fds; k-- > world->lose_fd && packet.n_fds < NICD_FRAME_FDS;) {
			int fd = world_fd(&requests[j].fd);

			packet.fds[packet.n_fds++] = fd;
			if (k + 1 == requests[j].fds)
				requests[j].fd.number = (uint32_t)fd;
		}
	trace("frame", (uint64_t)i, n, packet.len);
	for (unsigned j = 0; j < n; j++)
		trace("request", requests[j].id, requests[j].call, requests[j].ref[0].v);
	world->requests += n;
	world->model->clients[i].full = c->client->out.bytes + 4096 > world->policy.max_output;
	model_frame(world->model, i, requests, n, bad);
	ok = client_frame(c->client, &packet);
	sim_must(packet.next_fd == packet.n_fds, "descriptors of a frame were left");
	sim_must(ok != bad, "a frame %s", bad ? "that breaks the protocol was taken" : "that breaks no rule ended the session");
}

/* ---- the end of sessions */

void world_hang_up(int i)
{
	struct world_client *c = &world->clients[i];

	if (!c->client || c->releasing)
		return;
	trace("hang up", (uint64_t)i, 0, 0);
	listen_to(i);
	c->releasing = c->dead = true;
	model_dying(world->model, i);
}

void world_release(int i, unsigned budget)
{
	struct world_client *c = &world->clients[i];

	if (!c->client || !c->releasing)
		return;
	trace("release", (uint64_t)i, budget, 0);
	if (!c->client->released)
		c->left_bytes = c->client->out.bytes;
	if (!client_gone(c->client))
		(void)client_release(c->client, budget);
	sim_must(c->client->out.bytes == c->left_bytes, "something is said to a session that has ended");
	model_settle(world->model);
	if (!client_gone(c->client))
		return;
	trace("gone", (uint64_t)i, 0, 0);
	model_gone(world->model, i);
	c->client = client_free(c->client);
}

/* ---- time */

void world_pass(uint64_t ns)
{
	world->now += ns;
	model_now(world->model, world->now);
	trace("time", world->now, 0, 0);
	for (unsigned i = 0; i < world->n_timers;) {
		void (*fn)(void *arg) = world->timers[i].fn;
		void *arg = world->timers[i].arg;

		if (world->timers[i].at > world->now) {
			i++;
			continue;
		}
		world->timers[i] = world->timers[--world->n_timers];
		fn(arg);
		i = 0;
	}
	nic_tick(&world->nic);
}

/* ---- the ledger */

static void check_account(const struct nic_account *account, const struct model_usage *u)
{
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++) {
		enum sim_slot slot = slot_of(i);

		sim_must(account->used[i] >= u->low[slot] && account->used[i] <= u->high[slot],
			 "%s pays for %llu %s, it has %llu to %llu", account->key, (unsigned long long)account->used[i], nic_slot_names[i],
			 (unsigned long long)u->low[slot], (unsigned long long)u->high[slot]);
		/* What is to be said cannot be refused. */
		sim_must(slot == SLOT_BUFFERED || account->used[i] <= account->limits.max[i], "%s has more %s than it may: %llu",
			 account->key, nic_slot_names[i], (unsigned long long)account->used[i]);
	}
}

static void check_ledger(void)
{
	struct model_usage usages[MODEL_ACCOUNTS];
	uint64_t low[T_COUNT], high[T_COUNT];

	model_usages(world->model, usages);
	for (struct nic_account *account = world->nic.accounts.by_key; account; account = account->hh.next)
		check_account(account, &usages[(account->key[4] - '0') % MODEL_ACCOUNTS]);
	model_counts(world->model, low, high);
	for (unsigned type = NIC_MEMORY; type < NIC_TYPE_COUNT; type++)
		sim_must(world->nic.count[type] >= low[type] && world->nic.count[type] <= high[type],
			 "there are %llu objects of type %u, not %llu to %llu", (unsigned long long)world->nic.count[type], type,
			 (unsigned long long)low[type], (unsigned long long)high[type]);
	sim_must(world->nic.held_fds == world->n_fds_open, "%u descriptors are open, %llu are known of", world->n_fds_open,
		 (unsigned long long)world->nic.held_fds);
}

static void serve(int i)
{
	struct world_client *c = &world->clients[i];

	if (!c->client || c->releasing)
		return;
	if (c->kicked) {
		world_hang_up(i);
		return;
	}
	/* What is there without a wake are silent successes. They wait: nothing is sent for them alone. */
	sim_must(c->client->n_held < SIM_HELD || c->woken, "too many replies are held back");
	if (c->client->n_held && !c->woken && !world->model->draining)
		return;
	c->woken = false;
	client_prepare_output(c->client);
	read_frames(i, c->slow ? 0 : UINT32_MAX);
	client_flushed(c->client);
	if (c->client->fatal)
		world_hang_up(i);
}

void world_turn(void)
{
	client_host_turn(&world->host);
	for (unsigned round = 0; round < 1000; round++) {
		world->woken = false;
		for (int i = 0; i < MODEL_CLIENTS; i++)
			serve(i);
		nic_push(&world->nic);
		/* Memory was short for as long as the turn; what waited for some goes on. */
		world->fail_in = world->fail_for = 0;
		if (!world->woken && nic_next_deadline(&world->nic) > world->now)
			break;
		nic_tick(&world->nic);
	}
	world_outputs();
	for (int i = 0; i < MODEL_CLIENTS; i++)
		world->model->clients[i].slow = world->clients[i].slow;
	model_turn(world->model);
	check_ledger();
}

/* ---- the end */

static void settle(void)
{
	for (unsigned i = 0; i < WORLD_DEVICES; i++)
		while (world->devices[i] && !device_lost(world->devices[i]) && device_step(world->devices[i], false))
			world_turn();
	world_turn();
}

void world_end(void)
{
	struct device *d;

	world->model->draining = true;
	for (int i = 0; i < MODEL_CLIENTS; i++)
		world->clients[i].slow = false;
	world_turn();
	for (unsigned i = 0; i < 4; i++) {
		settle();
		world_pass(UINT64_C(70000000000));
		for (int j = 0; j < MODEL_CLIENTS; j++)
			world_release(j, 3);
		world_turn();
	}
	settle();
	for (int i = 0; i < MODEL_CLIENTS; i++)
		for (unsigned j = 0; j < 1000 && world->clients[i].client && world->clients[i].releasing; j++) {
			world_release(i, 3);
			settle();
			if (j % 10 == 9)
				world_pass(UINT64_C(70000000000));
		}
	settle();
	/* Every session closes all it has, in any order; then nothing is open any more. */
	for (int i = 0; i < MODEL_CLIENTS; i++)
		for (unsigned j = 0; j < 10000 && play_close(i); j++)
			settle();
	for (unsigned i = 0; i < 4; i++) {
		world_pass(UINT64_C(70000000000));
		settle();
	}
	model_quiet(world->model);
	for (int i = 0; i < MODEL_CLIENTS; i++) {
		world_hang_up(i);
		for (unsigned j = 0; j < 1000 && world->clients[i].client; j++) {
			world_release(i, 1 + sim_below(&world->random, 4));
			settle();
			if (j % 10 == 9)
				world_pass(UINT64_C(70000000000));
		}
		sim_must(!world->clients[i].client, "a session never goes");
	}
	sim_must(!world->host.n_calls && !world->host.n_clients && !world->host.n_admins, "sessions or calls are left");
	for (unsigned i = 0; i < WORLD_DEVICES; i++)
		sim_must(!world->devices[i] || device_empty(world->devices[i]), "a device still holds something of nobody");
	world_pass(UINT64_C(70000000000));
	client_host_deinit(&world->host);
	nic_deinit(&world->nic);
	for (unsigned i = 0; i < WORLD_DEVICES; i++) {
		d = world->devices[i];
		sim_must(!d, "a device was not freed");
	}
	sim_must(!world->live_blocks, "%llu pieces of memory are left", (unsigned long long)world->live_blocks);
	sim_must(!world->n_fds_open, "%u descriptors are left open", world->n_fds_open);
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++)
		sim_must(!world->nic.accounts.used[i], "%s are still paid for", nic_slot_names[i]);
}
