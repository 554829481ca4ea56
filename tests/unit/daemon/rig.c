/* SPDX-License-Identifier: MIT */
/* A world of clients for tests. Each test has one of its own, made and taken down around it. */
#undef NDEBUG
#include "tests/unit/daemon/rig.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/adapter.h"
#include "proto/locator.h"

unsigned rig_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---- hooks */

static void hook_wake(struct client *client)
{
	((struct rig_client *)client->userdata)->wakes++;
}

static void hook_kick(struct client *client)
{
	((struct rig_client *)client->userdata)->kicked = true;
}

static void hook_after(struct client_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	struct rig *rig = (struct rig *)((char *)host - offsetof(struct rig, host));

	assert(rig->n_timers < RIG_TIMERS);
	rig->timers[rig->n_timers].at = rig->env.now + delay_ns;
	rig->timers[rig->n_timers].fn = fn;
	rig->timers[rig->n_timers++].arg = arg;
}

static void hook_log(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error)
{
	struct rig *rig = (struct rig *)((char *)host - offsetof(struct rig, host));

	rig->n_logs++;
	rig->last_log = *error;
	snprintf(rig->last_method, sizeof(rig->last_method), "%s", method);
	if (rig->end_on_log) {
		rig->end_on_log = false;
		client_violation(client, NICD_R_FRAME_EMPTY, 0, 0);
	}
}

static uint32_t hook_open_fds(struct client_host *host)
{
	return rig_count_fds();
}

static bool hook_alive(struct client *client)
{
	return true;
}

/* ---- the world */

int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct nic_adapter *adapter;

	assert(rig);
	rig->n_fds = rig_count_fds();
	fake_env_init(&rig->env);
	rig->env.real_fds = true;
	policy_init(&rig->policy);
	nic_init(&rig->nic, &rig->env.env, &rig->policy.limits, NULL);
	rig->fake = fake_new();
	assert(locator_addr_parse("127.0.0.1:7190", &rig->fake->provider.data_addr) == 0);
	assert(nic_adapter_new(&adapter, &rig->nic, &rig->fake->provider) == 0);
	rig->host = (struct client_host){
		.nic = &rig->nic,
		.env = &rig->env.env,
		.policy = &rig->policy,
		.boot_id = "0123456789abcde",
		.wake = hook_wake,
		.kick = hook_kick,
		.after = hook_after,
		.log = hook_log,
		.open_fds = hook_open_fds,
		.alive = hook_alive,
	};
	assert(client_host_init(&rig->host) == 0);
	TAILQ_INIT(&rig->clients);
	*state = rig;
	return 0;
}

int rig_teardown(void **state)
{
	struct rig *rig = *state;
	struct rig_client *c, *next;

	rig->env.fail_at = 0;
	for (c = TAILQ_FIRST(&rig->clients); c; c = next) {
		next = TAILQ_NEXT(c, next);
		rig_end(c);
	}
	if (!rig->fake->lost) {
		fake_hold(rig->fake, FAKE_OPS, false);
		fake_complete_all(rig->fake);
	}
	rig_advance(rig, UINT64_C(100000000000));
	while ((c = TAILQ_FIRST(&rig->clients))) {
		rig_end(c);
		assert(!c->client);
		rig_forget(c);
		close(c->sock[0]);
		close(c->sock[1]);
		TAILQ_REMOVE(&rig->clients, c, next);
		free(c);
	}
	assert(rig->fake->lost || fake_holds_nothing(rig->fake));
	assert(!rig->host.n_calls && !rig->host.n_clients && !rig->host.n_admins);
	client_host_deinit(&rig->host);
	nic_deinit(&rig->nic);
	assert(!rig->env.live_blocks);
	assert(rig_count_fds() == rig->n_fds);
	free(rig);
	return 0;
}

struct rig_client *rig_connect(struct rig *rig, const char *account, enum client_role role)
{
	struct rig_client *c = calloc(1, sizeof(*c));
	struct client_identity identity = { .role = role, .admin_socket = role == CLIENT_ROLE_ADMIN, .pid = 42, .uid = 1000 };
	struct nicd_error err;

	assert(c);
	c->rig = rig;
	snprintf(identity.account, sizeof(identity.account), "%s", account);
	assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, c->sock) == 0);
	assert(client_new(&c->client, &rig->host, &identity, c, &err) == 0);
	TAILQ_INSERT_TAIL(&rig->clients, c, next);
	return c;
}

struct rig_client *rig_hello(struct rig *rig, const char *account, enum client_role role)
{
	struct rig_client *c = rig_connect(rig, account, role);
	Nicd__Hello hello = NICD__HELLO__INIT;

	hello.major = NICD_MAJOR;
	assert_done(rig_call(c, NICD__REQUEST__CALL_HELLO, &hello));
	rig_forget(c);
	return c;
}

void rig_end(struct rig_client *c)
{
	if (!c->client)
		return;
	while (client_release(c->client, 3))
		;
	if (client_gone(c->client))
		c->client = client_free(c->client);
}

void rig_advance(struct rig *rig, uint64_t ns)
{
	rig->env.now += ns;
	for (unsigned i = 0; i < rig->n_timers;) {
		void (*fn)(void *arg) = rig->timers[i].fn;
		void *arg = rig->timers[i].arg;

		if (rig->timers[i].at > rig->env.now) {
			i++;
			continue;
		}
		rig->timers[i] = rig->timers[--rig->n_timers];
		fn(arg);
		i = 0;
	}
	nic_tick(&rig->nic);
}

void rig_kicked(struct rig *rig)
{
	struct rig_client *c;

	TAILQ_FOREACH(c, &rig->clients, next) {
		if (c->kicked)
			rig_end(c);
	}
}

/* ---- frames */

Nicd__Request *rig_add(struct rig_client *c, uint32_t id, Nicd__Request__CallCase call, void *args)
{
	Nicd__Request *request = &c->requests[c->n_requests];

	assert(c->n_requests < RIG_REQUESTS);
	nicd__request__init(request);
	request->id = id;
	request->call_case = call;
	request->hello = args;
	c->pointers[c->n_requests++] = request;
	return request;
}

static Nicd__Ref *rig_ref(struct rig_client *c)
{
	Nicd__Ref *ref = &c->refs[c->n_refs++];

	assert(c->n_refs <= RIG_REFS);
	nicd__ref__init(ref);
	return ref;
}

Nicd__Ref *rig_id(struct rig_client *c, uint64_t id)
{
	Nicd__Ref *ref = rig_ref(c);

	ref->of_case = NICD__REF__OF_ID;
	ref->id = id;
	return ref;
}

Nicd__Ref *rig_result(struct rig_client *c, uint32_t request)
{
	Nicd__Ref *ref = rig_ref(c);

	ref->of_case = NICD__REF__OF_RESULT_OF;
	ref->result_of = request;
	return ref;
}

bool rig_send_raw(struct rig_client *c, const void *data, size_t len, const int *fds, unsigned n_fds)
{
	struct wire_packet packet = { .data = data, .len = len, .n_fds = n_fds };
	bool ok;

	for (unsigned i = 0; i < n_fds; i++)
		packet.fds[i] = fds[i];
	ok = client_frame(c->client, &packet);
	assert(packet.next_fd == n_fds);
	wire_release(&packet);
	return ok;
}

bool rig_send(struct rig_client *c, const int *fds, unsigned n_fds)
{
	Nicd__Frame frame = NICD__FRAME__INIT;
	uint8_t *data = malloc(4 * NICD_FRAME_MAX);
	size_t len;
	bool ok;

	frame.n_requests = c->n_requests;
	frame.requests = c->pointers;
	len = nicd__frame__get_packed_size(&frame);
	assert(data && len <= 4 * NICD_FRAME_MAX);
	nicd__frame__pack(&frame, data);
	c->n_requests = c->n_refs = 0;
	ok = rig_send_raw(c, data, len, fds, n_fds);
	free(data);
	return ok;
}

static void rig_receive(struct rig_client *c)
{
	static uint8_t buf[NICD_FRAME_MAX + 1];
	ssize_t n;

	while ((n = recv(c->sock[1], buf, sizeof(buf), 0)) > 0) {
		assert(n <= NICD_FRAME_MAX && c->n_frames < RIG_FRAMES);
		c->frames[c->n_frames] = nicd__frame__unpack(NULL, (size_t)n, buf);
		assert(c->frames[c->n_frames]);
		c->n_frames++;
	}
}

/* As whoever owns the socket does when it is woken. */
static void rig_pump(struct rig_client *c)
{
	int r;

	if (!c->client)
		return;
	client_prepare_output(c->client);
	do {
		r = frame_flush(&c->client->out, c->sock[0]);
		rig_receive(c);
	} while (r == -EAGAIN);
	client_flushed(c->client);
}

const Nicd__Reply *rig_reply(struct rig_client *c, uint32_t id)
{
	const Nicd__Reply *found = NULL;

	rig_pump(c);
	for (unsigned i = 0; i < c->n_frames; i++) {
		for (size_t j = 0; j < c->frames[i]->n_replies; j++) {
			if (c->frames[i]->replies[j]->id != id)
				continue;
			assert(!found);
			found = c->frames[i]->replies[j];
		}
	}
	return found;
}

unsigned rig_n_replies(struct rig_client *c)
{
	unsigned n = 0;

	rig_pump(c);
	for (unsigned i = 0; i < c->n_frames; i++)
		n += (unsigned)c->frames[i]->n_replies;
	return n;
}

unsigned rig_n_events(struct rig_client *c)
{
	unsigned n = 0;

	rig_pump(c);
	for (unsigned i = 0; i < c->n_frames; i++)
		n += (unsigned)c->frames[i]->n_events;
	return n;
}

const Nicd__Event *rig_event(struct rig_client *c, Nicd__Event__Kind kind)
{
	const Nicd__Event *found = NULL;

	rig_pump(c);
	for (unsigned i = 0; i < c->n_frames; i++) {
		for (size_t j = 0; j < c->frames[i]->n_events; j++) {
			if (c->frames[i]->events[j]->kind == kind)
				found = c->frames[i]->events[j];
		}
	}
	return found;
}

const Nicd__Fatal *rig_fatal(struct rig_client *c)
{
	rig_pump(c);
	for (unsigned i = 0; i < c->n_frames; i++) {
		if (!c->frames[i]->fatal)
			continue;
		assert(i == c->n_frames - 1);   /* the last thing that it hears */
		return c->frames[i]->fatal;
	}
	return NULL;
}

void rig_forget(struct rig_client *c)
{
	rig_pump(c);
	while (c->n_frames)
		nicd__frame__free_unpacked(c->frames[--c->n_frames], NULL);
}

const Nicd__Reply *rig_call_fd(struct rig_client *c, Nicd__Request__CallCase call, void *args, int fd)
{
	Nicd__Request *request = rig_add(c, ++c->last_id, call, args);

	request->fds = fd >= 0;
	assert(rig_send(c, &fd, fd >= 0));
	return rig_reply(c, c->last_id);
}

const Nicd__Reply *rig_call(struct rig_client *c, Nicd__Request__CallCase call, void *args)
{
	return rig_call_fd(c, call, args, -1);
}

void rig_assert_reason(const Nicd__Reply *reply, enum nicd_reason reason, const char *file, int line)
{
	const struct nicd_reason_info *info = nicd_reason_info(reason);

	if (!reply)
		_fail(file, line);
	if (reason == NICD_R_NONE) {
		if (reply->error)
			print_error("refused: %s\n", reply->error->name);
		_assert_true(!reply->error, "success", file, line);
		return;
	}
	_assert_true(reply->error != NULL, "refused", file, line);
	_assert_string_equal(reply->error->name, info->name, file, line);
	/* All of the row. */
	_assert_int_equal(reply->error->reason, (LargestIntegralType)reason, file, line);
	_assert_int_equal(reply->error->status, (LargestIntegralType)info->status, file, line);
	_assert_string_equal(reply->error->text, info->text, file, line);
	_assert_string_equal(reply->error->cure, info->cure, file, line);
}

void rig_assert_violation(struct rig_client *c, enum nicd_reason reason, const char *file, int line)
{
	const Nicd__Fatal *fatal = rig_fatal(c);

	_assert_true(fatal != NULL, "a violation", file, line);
	_assert_string_equal(fatal->name, nicd_reason_info(reason)->name, file, line);
	_assert_string_equal(fatal->cure, nicd_reason_info(reason)->cure, file, line);
	_assert_true(c->client->fatal && c->client->state == CLIENT_CLOSING, "the end", file, line);
}

/* ---- what most tests need */

int rig_memfd(uint64_t size, int seals)
{
	int fd = memfd_create("rig", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert(fd >= 0);
	assert(!size || fallocate(fd, 0, 0, (off_t)size) == 0);
	assert(!seals || fcntl(fd, F_ADD_SEALS, seals) == 0);
	return fd;
}

uint64_t rig_memory(struct rig_client *c, uint64_t size)
{
	Nicd__AddMemory args = NICD__ADD_MEMORY__INIT;
	const Nicd__Reply *reply = rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &args, rig_memfd(size, F_SEAL_SHRINK));

	assert_done(reply);
	assert_int_equal(reply->memory->size, size);
	return reply->memory->id;
}

uint64_t rig_pd(struct rig_client *c)
{
	Nicd__CreatePd args = NICD__CREATE_PD__INIT;
	const Nicd__Reply *reply = rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &args);

	assert_done(reply);
	return reply->object->id;
}

uint64_t rig_mr(struct rig_client *c, uint64_t pd)
{
	Nicd__CreateMr args = NICD__CREATE_MR__INIT;
	const Nicd__Reply *reply;

	args.pd = rig_id(c, pd);
	reply = rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &args);
	assert_done(reply);
	return reply->object->id;
}

const Nicd__Reply *rig_register(struct rig_client *c, uint64_t mr, uint64_t memory, uint64_t length, uint32_t flags)
{
	Nicd__RegisterMr args = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };

	range.memory = rig_id(c, memory);
	range.length = length;
	args.mr = rig_id(c, mr);
	args.n_ranges = 1;
	args.ranges = ranges;
	args.iova = 0x10000;
	args.flags = flags;
	return rig_call(c, NICD__REQUEST__CALL_REGISTER_MR, &args);
}

uint64_t rig_region(struct rig_client *c, uint32_t flags)
{
	uint64_t memory = rig_memory(c, 65536), mr = rig_mr(c, rig_pd(c));

	assert_done(rig_register(c, mr, memory, 65536, flags));
	return mr;
}

const Nicd__Reply *rig_close(struct rig_client *c, uint64_t id)
{
	Nicd__Close args = NICD__CLOSE__INIT;

	args.object = rig_id(c, id);
	return rig_call(c, NICD__REQUEST__CALL_CLOSE, &args);
}

uint64_t rig_serial_of(struct rig_client *c, uint64_t id)
{
	return nic_table_find(&c->client->owner.ids, id)->serial;
}

enum nic_type rig_makes(Nicd__Request__CallCase call)
{
	switch (call) {
	case NICD__REQUEST__CALL_ADD_MEMORY:
		return NIC_MEMORY;
	case NICD__REQUEST__CALL_CREATE_PD:
		return NIC_PD;
	case NICD__REQUEST__CALL_CREATE_MW:
	case NICD__REQUEST__CALL_BIND_MW:
		return NIC_MW;
	case NICD__REQUEST__CALL_CREATE_MR:
	case NICD__REQUEST__CALL_REGISTER_MR:
	case NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER:
	case NICD__REQUEST__CALL_FAST_REGISTER:
		return NIC_MR;
	case NICD__REQUEST__CALL_BUILD_MAPPING:
		return NIC_MAPPING;
	case NICD__REQUEST__CALL_CONNECT_QP:
		return NIC_QP;
	case NICD__REQUEST__CALL_CREATE_TICKET:
		return NIC_TICKET;
	case NICD__REQUEST__CALL_CREATE_EXPORT:
		return NIC_EXPORT;
	default:
		return NIC_NONE;
	}
}
