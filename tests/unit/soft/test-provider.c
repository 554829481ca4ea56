/* SPDX-License-Identifier: MIT */
/*
 * The provider against the real control socket and device (with a fake engine), over a socketpair in one process with a real loop; and against
 * a device that breaks the protocol.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "fake-engine.h"
#include "nicd/soft/control.h"
#include "nicd/soft/device.h"
#include "nicd/soft/provider.h"
#include "proto/frame.h"
#include "proto/locator.h"
#include "proto/soft.pb-c.h"

enum { FIELD_REQUESTS = 1, FIELD_REPLIES = 2, FIELD_FATAL = 4, MIB = 1 << 20 };

/* A command and what became of it. */
struct cmd {
	struct nic_cmd cmd;
	unsigned done;
	unsigned order;          /* the how manieth to be done */
	struct nic_provider *again; /* gives itself once more when it is done */
};

struct fixture {
	uv_loop_t loop;
	struct soft_control *control;
	struct nic_provider *provider;
	int theirs;              /* the other end, when a test plays the device */
	int fds;
	struct arena arena;
	uint8_t buf[NICD_FRAME_MAX + 1];
};

static int send_errno;   /* what the kernel says; 0: it sends */

ssize_t __real_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
	if (!send_errno)
		return __real_send(fd, data, len, flags);
	errno = send_errno;
	return -1;
}

static unsigned n_done, n_lost, n_opened, n_closed, n_expired;
static uint64_t last_stream, last_door, last_peer_read;
static enum nicd_reason last_reason;

static void opened(struct nic_adapter *a, uint64_t stream, uint64_t door, const char *peer)
{
	assert_string_equal(peer, "127.0.0.1:4711");
	last_stream = stream;
	last_door = door;
	n_opened++;
}

static void closed(struct nic_adapter *a, uint64_t stream, const struct nicd_error *why, const struct nic_counters *counters)
{
	last_stream = stream;
	last_reason = why->reason;
	last_peer_read = counters->peer_read;
	n_closed++;
}

static uint64_t last_notified, last_invalidated;

static void notified(struct nic_adapter *a, uint64_t stream, uint64_t count)
{
	last_stream = stream;
	last_notified = count;
}

static void invalidated(struct nic_adapter *a, uint64_t serial, uint32_t generation)
{
	last_invalidated = serial * 1000 + generation;
}

static void expired(struct nic_adapter *a, uint64_t door)
{
	last_door = door;
	n_expired++;
}

static void lost(struct nic_adapter *a)
{
	/* mutation: tell of the loss before the commands have ended */
	n_lost = n_lost ? n_lost + 1 : 1000 + n_done;
}

static const struct nic_provider_events events = {
	.stream_opened = opened, .stream_closed = closed, .door_expired = expired, .lost = lost,
	.stream_notified = notified, .tag_invalidated = invalidated,
};

static void on_done(struct nic_cmd *cmd)
{
	struct cmd *c = (struct cmd *)cmd;

	c->done++;
	c->order = ++n_done;
	if (c->again && c->done < 3)
		c->again->ops->stats(c->again, cmd);
}

static struct cmd *fresh(struct cmd *c)
{
	*c = (struct cmd){.cmd.done = on_done};
	return c;
}

/* ---- the device in this process */

static void turn(struct fixture *f)
{
	f->provider->ops->push(f->provider);
	for (unsigned i = 0; i < 4; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	soft_provider_dispatch(f->provider);
}

static void await(struct fixture *f, const struct cmd *c)
{
	for (unsigned i = 0; i < 100 && !c->done; i++)
		turn(f);
	assert_int_equal(c->done, 1);
}

static void await_reason(struct fixture *f, const struct cmd *c, enum nicd_reason reason)
{
	await(f, c);
	assert_int_equal(c->cmd.error.reason, reason);
}

struct hello {
	int sock;
	struct nic_provider *provider;
	struct nicd_error err;
	int r;
	_Atomic bool over;
};

static void *say_hello(void *arg)
{
	struct hello *hello = arg;

	hello->r = soft_provider_new(&hello->provider, hello->sock, &hello->err);
	hello->over = true;
	return NULL;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = -3;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static struct fixture *fixture_new(int pair[2])
{
	struct fixture *f = calloc(1, sizeof(*f));

	n_done = n_lost = n_opened = n_closed = n_expired = 0;
	f->fds = count_fds();
	f->theirs = -1;
	assert_int_equal(arena_init(&f->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	return f;
}

static void fixture_free(struct fixture *f)
{
	arena_deinit(&f->arena);
	assert_int_equal(count_fds(), f->fds);
	free(f);
}

static int setup(void **state)
{
	struct soft_control_options options = {.uid = getuid()};
	struct hello hello = {.r = 1};
	pthread_t thread;
	int pair[2];
	struct fixture *f = fixture_new(pair);

	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(soft_control_new(&f->control, &f->loop, &options), 0);
	soft_device_advertise(soft_control_device(f->control), "127.0.0.3:7777");
	assert_int_equal(soft_control_admit(f->control, pair[0]), 0);
	hello.sock = pair[1];
	pthread_create(&thread, NULL, say_hello, &hello);
	while (!hello.over)
		uv_run(&f->loop, UV_RUN_NOWAIT);
	pthread_join(thread, NULL);
	assert_int_equal(hello.r, 0);
	f->provider = hello.provider;
	f->provider->events = &events;
	*state = f;
	return 0;
}

static void on_closed(void *userdata)
{
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->provider->ops->free(f->provider);
	if (f->control) {
		soft_control_close(f->control, on_closed, NULL);
		uv_run(&f->loop, UV_RUN_DEFAULT);
		soft_control_free(f->control);
	}
	assert_int_equal(uv_loop_close(&f->loop), 0);
	fixture_free(f);
	return 0;
}

static void attach(struct fixture *f, uint64_t serial, uint64_t size)
{
	struct cmd c;
	struct nic_attach what = {.memory = serial, .fd = memfd_create("test", MFD_CLOEXEC), .size = size, .writable = true};

	assert_int_equal(ftruncate(what.fd, (off_t)size), 0);
	f->provider->ops->memory_attach(f->provider, &what, &fresh(&c)->cmd);
	/* mutation: send the descriptor itself in place of a duplicate */
	assert_int_equal(close(what.fd), 0);
	await_reason(f, &c, NICD_R_NONE);
}

static const struct nic_tag_range page_of_1 = {.memory = 1, .length = NICD_PAGE};

static struct nic_tag tag_of(uint64_t serial)
{
	return (struct nic_tag){
		.serial = serial, .generation = 1, .rights = 2, .pd = 5, .iova = 0x1000, .length = NICD_PAGE, .n_ranges = 1,
		.ranges = &page_of_1,
	};
}

static void test_facts(void **state)
{
	struct fixture *f = *state;
	struct nic_provider *p = f->provider;
	char text[64];

	assert_true(p->up);
	assert_int_not_equal(p->incarnation, 0);
	locator_addr_print(&p->data_addr, text);
	assert_string_equal(text, "127.0.0.3:7777");
	assert_int_equal(p->adapter_flags, 0x10002);
	assert_true(p->max_inbound_read > 0 && p->max_outbound_read > 0);
	assert_int_equal(p->ops->cost(p, NIC_COST_ATTACH, 12345), 12345);
	assert_int_equal(p->ops->cost(p, NIC_COST_TAG, 12345), 0);
	for (const void *const *op = (const void *const *)p->ops; op < (const void *const *)(p->ops + 1); op++)
		assert_non_null(*op);
}

static void test_tag_life(void **state)
{
	struct fixture *f = *state;
	const struct nic_provider_ops *ops = f->provider->ops;
	struct nic_tag tag = tag_of(10);
	struct cmd add, drop, detach, count;
	struct nic_caps caps = {0};

	attach(f, 1, 2 * NICD_PAGE);
	ops->tag_add(f->provider, &tag, &fresh(&add)->cmd);
	await_reason(f, &add, NICD_R_NONE);
	assert_true(add.cmd.tags.local_token && add.cmd.tags.remote_token);
	fresh(&count)->cmd.stats.caps = &caps;
	ops->stats(f->provider, &count.cmd);
	await_reason(f, &count, NICD_R_NONE);
	/* mutation: get_caps is not called; takes one too few; mixes limit and now */
	assert_int_equal(caps.n, SOFT_CAPS);
	assert_string_equal(caps.cap[SOFT_CAP_STREAMS].name, "--max-streams");
	assert_int_equal(caps.cap[SOFT_CAP_STREAMS].limit, 100 + SOFT_CAP_STREAMS);
	assert_int_equal(caps.cap[SOFT_CAP_STREAMS].now, 200);
	assert_int_equal(caps.cap[SOFT_CAP_STREAMS].refused, 300 + SOFT_CAP_STREAMS);
	assert_true(caps.cap[SOFT_CAP_STREAMS].counted && !caps.cap[SOFT_CAP_STREAMS_PD].counted);
	assert_int_equal(count.cmd.stats.memories, 1);
	assert_int_equal(count.cmd.stats.tags, 1);
	ops->memory_detach(f->provider, 1, &fresh(&detach)->cmd);
	await_reason(f, &detach, NICD_R_DEVICE_BUSY);
	assert_int_equal(detach.cmd.error.observed, 1);
	ops->tag_drop(f->provider, 10, 1, NULL, &fresh(&drop)->cmd);
	await_reason(f, &drop, NICD_R_NONE);
	assert_int_equal(drop.cmd.dropped.streams_cut, 0);
	ops->memory_detach(f->provider, 1, &fresh(&detach)->cmd);
	await_reason(f, &detach, NICD_R_NONE);
}

/* What every field says on one side it says on the other. */
static void test_fields(void **state)
{
	struct fixture *f = *state;
	const struct nic_provider_ops *ops = f->provider->ops;
	struct nic_door door = {
		.serial = 30, .pd = 5, .door = 30, .uses = 3, .max_streams = 2, .ttl_ms = 1, .grant = {11, 2, 13, 14, 15},
	};
	struct nic_connect connect = {.qp = 40, .pd = 5, .timeout_ms = 2345, .ticket = {1, 2, 3}};
	uint8_t entries[3 * NICD_TRANSFER_ENTRY_SIZE] = {77};
	struct nic_post post = {.qp = 40, .operation = NIC_WRITE, .entries = entries, .n_entries = 3};
	struct soft_ticket spent = {.serial = 30};
	struct nicd_error why = {.reason = NICD_R_QP_LOST};
	struct nic_counters counters = {.peer_read = 99};
	char text[64];
	struct cmd c;

	memset(door.hash, 0xab, sizeof(door.hash));
	ops->door_add(f->provider, &door, &fresh(&c)->cmd);
	await_reason(f, &c, NICD_R_NONE);
	for (unsigned i = 0; i < 100 && !n_expired; i++, usleep(1000))
		turn(f);
	assert_int_equal(n_expired, 1);
	assert_int_equal(last_door, 30);
	fake.cuts = 4;
	ops->door_drop(f->provider, 30, true, &fresh(&c)->cmd);
	await_reason(f, &c, NICD_R_NONE);
	assert_int_equal(c.cmd.dropped.streams_cut, 4);

	locator_addr_parse("127.0.0.9:99", &connect.addr);
	ops->qp_connect(f->provider, &connect, &fresh(&c)->cmd);
	turn(f);
	locator_addr_print(&fake.connect.addr, text);
	assert_string_equal(text, "127.0.0.9:99");
	assert_int_equal(fake.connect.stream, 40);
	assert_int_equal(fake.connect.pd, 5);
	assert_int_equal(fake.connect.timeout_ms, 2345);
	assert_memory_equal(fake.connect.ticket, connect.ticket, NICD_TICKET_SIZE);
	fake_end_connect(NICD_R_NONE);
	await_reason(f, &c, NICD_R_NONE);
	assert_string_equal(c.cmd.connected.peer, "127.0.0.2:7190");
	assert_int_equal(c.cmd.connected.grant.remote_token, 1);
	assert_int_equal(c.cmd.connected.grant.rights, 2);
	assert_int_equal(c.cmd.connected.grant.iova, 3);
	assert_int_equal(c.cmd.connected.grant.length, 4);
	assert_int_equal(c.cmd.connected.grant.incarnation, 5);

	ops->qp_post(f->provider, &post, &fresh(&c)->cmd);
	turn(f);
	assert_int_equal(fake.operation, NIC_WRITE);
	assert_int_equal(fake.post_entries, 3);
	assert_int_equal(fake.first_entry[0], 77);
	fake_end_post(NICD_R_REMOTE_TOKEN, 2);
	await_reason(f, &c, NICD_R_REMOTE_TOKEN);
	/* mutation: lose the completion that comes with an error */
	assert_int_equal(c.cmd.completion.entries, 2);
	assert_int_equal(c.cmd.completion.bytes, 200);
	assert_int_equal(c.cmd.completion.failed, 2);
	assert_true(c.cmd.completion.inexact);

	/* Messages, and what the device says of them. */
	post.operation = NIC_SEND;
	post.n_entries = 1;
	post.solicited = post.invalidate = true;
	post.invalidate_token = 0x1234;
	ops->qp_post(f->provider, &post, &fresh(&c)->cmd);
	turn(f);
	assert_int_equal(fake.operation, NIC_SEND);
	assert_true(fake.post.solicited && fake.post.invalidate && !fake.post.notify);
	assert_int_equal(fake.post.invalidate_token, 0x1234);
	fake_end_post(NICD_R_NONE, 1);
	await_reason(f, &c, NICD_R_NONE);
	post.operation = NIC_RECEIVE;
	ops->qp_post(f->provider, &post, &fresh(&c)->cmd);
	turn(f);
	/* mutation: post it as a list */
	assert_int_equal(fake.operation, NIC_RECEIVE);
	assert_int_equal(fake.first_entry[0], 77);
	fake_end_post(NICD_R_RECEIVE_TOO_SMALL, 0);
	await_reason(f, &c, NICD_R_RECEIVE_TOO_SMALL);
	fake.notices = 3;
	turn(f);
	turn(f);
	assert_int_equal(last_stream, 77);
	assert_int_equal(last_notified, 3);
	fake.events.invalidated(fake.events.userdata, 40, 5, 6);
	turn(f);
	turn(f);
	assert_int_equal(last_invalidated, 5006);

	fake.n_streams = 1;
	fake.streams[0] = (struct soft_stream_info){.stream = 40, .connected = true, .counters = {1, 2, 3, 4}};
	ops->qp_query(f->provider, 40, &fresh(&c)->cmd);
	await_reason(f, &c, NICD_R_NONE);
	assert_true(c.cmd.stream.connected);
	assert_memory_equal(&c.cmd.stream.counters, &fake.streams[0].counters, sizeof(counters));
	ops->qp_query(f->provider, 41, &fresh(&c)->cmd);
	await_reason(f, &c, NICD_R_QP_STATE);
	ops->qp_flush(f->provider, 40, &fresh(&c)->cmd);
	await_reason(f, &c, NICD_R_NONE);
	ops->qp_disconnect(f->provider, 40, &fresh(&c)->cmd);
	await_reason(f, &c, NICD_R_NONE);
	assert_int_equal(fake.disconnected, 40);

	fake.events.opened(fake.events.userdata, 1ull << 63, &spent, "127.0.0.1:4711");
	fake.events.closed(fake.events.userdata, 1ull << 63, &why, &counters);
	turn(f);
	assert_int_equal(n_opened, 1);
	assert_int_equal(n_closed, 1);
	assert_true(last_stream == 1ull << 63);
	assert_int_equal(last_reason, NICD_R_QP_LOST);
	assert_int_equal(last_peer_read, 99);
}

/* Many at once, more than a frame and than the first table hold: each ends once, in order, with tokens of its own. */
static void test_many(void **state)
{
	enum { N = 3000 };
	struct fixture *f = *state;
	struct cmd *adds = calloc(N, sizeof(*adds)), *drops = calloc(N, sizeof(*drops));

	attach(f, 1, NICD_PAGE);
	n_done = 0;
	for (unsigned i = 0; i < N; i++) {
		struct nic_tag tag = tag_of(100 + i);

		f->provider->ops->tag_add(f->provider, &tag, &fresh(&adds[i])->cmd);
	}
	for (unsigned i = 0; i < 100 && n_done < N; i++)
		turn(f);
	for (unsigned i = 0; i < N; i++) {
		/* mutation: give an id to two commands when the table grows */
		assert_int_equal(adds[i].done, 1);
		assert_int_equal(adds[i].order, i + 1);
		assert_int_not_equal(adds[i].cmd.tags.remote_token, 0);
		f->provider->ops->tag_drop(f->provider, 100 + i, 1, NULL, &fresh(&drops[i])->cmd);
	}
	for (unsigned i = 0; i < 100 && n_done < 2 * N; i++)
		turn(f);
	for (unsigned i = 0; i < N; i++)
		assert_true(drops[i].done == 1 && drops[i].cmd.error.reason == NICD_R_NONE);
	/* mutation: never give an id back */
	assert_true(drops[N - 1].cmd.id <= 4096);
	assert_false(soft_provider_wants_write(f->provider));
	free(adds);
	free(drops);
}

static void device_cut(struct fixture *f)
{
	soft_control_close(f->control, on_closed, NULL);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	soft_control_free(f->control);
	f->control = NULL;
}

static void test_lost(void **state)
{
	struct fixture *f = *state;
	struct nic_connect connect = {.qp = 40, .pd = 5};
	struct nic_attach memory = {.memory = 1, .fd = STDIN_FILENO, .size = 1};
	struct cmd waiting, again, late;

	locator_addr_parse("127.0.0.9:99", &connect.addr);
	f->provider->ops->qp_connect(f->provider, &connect, &fresh(&waiting)->cmd);
	turn(f);
	device_cut(f);
	/* Queued, not sent; and it gives itself again when it is told. */
	fresh(&again)->again = f->provider;
	f->provider->ops->stats(f->provider, &again.cmd);
	f->provider->ops->push(f->provider);
	assert_int_equal(n_done, 0);
	soft_provider_dispatch(f->provider);
	/* mutation: forget commands in flight when the device goes */
	assert_int_equal(waiting.done, 1);
	assert_int_equal(waiting.cmd.error.reason, NICD_R_DEVICE_LOST);
	assert_int_equal(again.done, 3);
	assert_int_equal(n_lost, 1000 + n_done);
	assert_false(f->provider->up);
	assert_int_equal(soft_provider_fd(f->provider), -1);
	f->provider->ops->stats(f->provider, &fresh(&late)->cmd);
	/* mutation: queue commands for a device that is gone */
	assert_int_equal(late.done, 1);
	assert_int_equal(late.cmd.error.reason, NICD_R_DEVICE_LOST);
	f->provider->ops->memory_attach(f->provider, &memory, &fresh(&late)->cmd);
	assert_int_equal(late.cmd.error.reason, NICD_R_DEVICE_LOST);
	soft_provider_dispatch(f->provider);
	assert_int_equal(n_lost, 1000 + n_done - 2);
}

/* mutation: end all in the first turn; tell of the loss before the last has ended; take commands meanwhile */
static void test_lost_in_turns(void **state)
{
	enum { N = 5000, PER_TURN = 1024 };
	struct fixture *f = *state;
	struct cmd *cmds = calloc(N, sizeof(*cmds)), late;
	struct nic_connect connect = {.pd = 5};
	unsigned turns = 0, before;

	for (unsigned i = 0; i < N; i++) {
		connect.qp = 40 + i;
		f->provider->ops->qp_connect(f->provider, &connect, &fresh(&cmds[i])->cmd);
	}
	device_cut(f);
	while (soft_provider_fd(f->provider) >= 0) {
		assert_int_equal(n_lost, 0);
		before = n_done;
		soft_provider_dispatch(f->provider);
		assert_true(n_done - before <= PER_TURN);
		assert_false(f->provider->up);
		assert_false(soft_provider_wants_write(f->provider));
		f->provider->ops->stats(f->provider, &fresh(&late)->cmd);
		assert_int_equal(late.done, 1);
		assert_int_equal(late.cmd.error.reason, NICD_R_DEVICE_LOST);
		turns++;
	}
	assert_true(turns > N / PER_TURN);
	for (unsigned i = 0; i < N; i++)
		assert_true(cmds[i].done == 1 && cmds[i].cmd.error.reason == NICD_R_DEVICE_LOST);
	assert_int_equal(n_lost, 1000 + n_done - 1);
	free(cmds);
}

/* Short of memory, or of descriptors in flight: the socket says all the time that it can be written to. */
static void test_starved(void **state)
{
	static const int errors[] = {ENOBUFS, ENOMEM, ETOOMANYREFS};
	struct fixture *f = *state;
	struct cmd cmd;

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		send_errno = errors[i];
		f->provider->ops->stats(f->provider, &fresh(&cmd)->cmd);
		f->provider->ops->push(f->provider);
		/* mutation: poll for writing all the same, which spins */
		assert_false(soft_provider_wants_write(f->provider));
		assert_true(soft_provider_is_starved(f->provider));
		soft_provider_dispatch(f->provider);
		assert_true(soft_provider_is_starved(f->provider));
		send_errno = 0;
		assert_int_equal(cmd.done, 0);
		f->provider->ops->push(f->provider);
		assert_false(soft_provider_is_starved(f->provider));
		turn(f);
		/* mutation: lose the device for that */
		assert_true(cmd.done == 1 && cmd.cmd.error.reason == NICD_R_NONE);
	}
	assert_true(f->provider->up);
}

static void test_free_in_flight(void **state)
{
	struct fixture *f = *state;
	struct nic_connect connect = {.qp = 40, .pd = 5};
	struct cmd sent, queued;

	locator_addr_parse("127.0.0.9:99", &connect.addr);
	f->provider->ops->qp_connect(f->provider, &connect, &fresh(&sent)->cmd);
	turn(f);
	f->provider->ops->stats(f->provider, &fresh(&queued)->cmd);
	f->provider->ops->free(f->provider);
	/* mutation: free without ending what is in flight */
	assert_true(sent.done == 1 && queued.done == 1);
	assert_int_equal(sent.cmd.error.reason, NICD_R_DEVICE_LOST);
	/* Give teardown one to free. */
	{
		struct hello hello = {.r = 1};
		pthread_t thread;
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
		uv_run(&f->loop, UV_RUN_NOWAIT);
		uv_run(&f->loop, UV_RUN_NOWAIT);
		assert_int_equal(soft_control_admit(f->control, pair[0]), 0);
		hello.sock = pair[1];
		pthread_create(&thread, NULL, say_hello, &hello);
		while (!hello.over)
			uv_run(&f->loop, UV_RUN_NOWAIT);
		pthread_join(thread, NULL);
		assert_int_equal(hello.r, 0);
		f->provider = hello.provider;
	}
}

/* ---- a device that this test plays */

static void answer(int sock, unsigned field, const ProtobufCMessage *message)
{
	struct frame_out out;

	frame_out_init(&out);
	assert_int_equal(frame_put(&out, field, message, NULL, 0), 0);
	assert_int_equal(frame_flush(&out, sock), 0);
	frame_out_deinit(&out);
}

/* Starts a provider whose Hello gets this answer; `reply` NULL: the end of the socket. */
static int meet(struct fixture *f, int pair[2], unsigned field, const ProtobufCMessage *message, struct nicd_error *err)
{
	struct hello hello = {.sock = pair[1], .r = 1};
	pthread_t thread;

	f->theirs = pair[0];
	if (message)
		answer(f->theirs, field, message);   /* before it is asked: the socket keeps it */
	else
		shutdown(f->theirs, SHUT_RDWR);
	pthread_create(&thread, NULL, say_hello, &hello);
	pthread_join(thread, NULL);
	f->provider = hello.provider;
	*err = hello.err;
	return hello.r;
}

static Soft__Reply hello_reply(Soft__HelloReply *hello)
{
	static char address[] = "127.0.0.1:1";
	Soft__Reply reply = SOFT__REPLY__INIT;

	*hello = (Soft__HelloReply)SOFT__HELLO_REPLY__INIT;
	hello->major = 1;
	hello->incarnation = 9;
	hello->data_address = address;
	reply.id = 1;
	reply.result_case = SOFT__REPLY__RESULT_HELLO;
	reply.hello = hello;
	return reply;
}

static void test_bad_hello(void **state)
{
	Soft__HelloReply hello;
	Soft__Event event = SOFT__EVENT__INIT;
	char nonsense[] = "localhost:x";

	for (unsigned i = 0; i < 6; i++) {
		Soft__Reply reply = hello_reply(&hello);
		const ProtobufCMessage *message = &reply.base;
		enum nicd_reason want = NICD_R_DEVICE_LOST;
		struct nicd_error err;
		int pair[2];
		struct fixture *f = fixture_new(pair);

		switch (i) {
		case 0: message = NULL; break;
		/* mutation: take any reply for that to Hello */
		case 1: reply.id = 2; break;
		case 2: reply.result_case = SOFT__REPLY__RESULT__NOT_SET; break;
		case 3: reply.reason = want = NICD_R_VERSION; reply.limit = 7000; break;
		case 4: hello.data_address = nonsense; break;
		case 5: message = &event.base; break;
		}
		assert_true(meet(f, pair, message == &event.base ? 3 : FIELD_REPLIES, message, &err) < 0);
		assert_int_equal(err.reason, want);
		if (want == NICD_R_VERSION)
			assert_int_equal(err.limit, 7000);
		assert_null(f->provider);
		close(f->theirs);
		/* mutation: keep the socket of a provider that could not be made */
		fixture_free(f);
	}
}

/* Drops that come one after the other are one request; each is answered for itself, in order, whatever happens to the request. */
static void test_drops_together(void **state)
{
	enum { N = 300, FIRST = 256 };

	for (unsigned how = 0; how < 3; how++) {
		static struct cmd cmds[N];
		Soft__HelloReply hello;
		Soft__Reply first = hello_reply(&hello), reply = SOFT__REPLY__INIT;
		Soft__Dropped dropped = SOFT__DROPPED__INIT;
		uint32_t cut[FIRST - 1] = {5, 0, 7};
		struct wire_packet packet, rest;
		struct nicd_error err;
		Soft__Frame *frame;
		int pair[2];
		struct fixture *f = fixture_new(pair);

		assert_int_equal(meet(f, pair, FIELD_REPLIES, &first.base, &err), 0);
		assert_int_equal(wire_recv(f->theirs, f->buf, sizeof(f->buf), &packet), WIRE_PACKET);   /* Hello */
		f->provider->events = &events;
		for (unsigned i = 0; i < N; i++)
			f->provider->ops->tag_drop(f->provider, 100 + i, i, NULL, &fresh(&cmds[i])->cmd);
		/* mutation: forget those that wait for others */
		assert_true(soft_provider_wants_write(f->provider));
		/* As many as one request holds are there already, so that the device need not wait. mutation: send them with the rest */
		assert_int_equal(wire_recv(f->theirs, f->buf, sizeof(f->buf), &packet), WIRE_PACKET);
		f->provider->ops->push(f->provider);
		assert_int_equal(wire_recv(f->theirs, f->buf + packet.len, sizeof(f->buf) - packet.len, &rest), WIRE_PACKET);
		arena_reset(&f->arena);
		/* Frames that follow each other are one. */
		frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &f->arena, packet.data, packet.len + rest.len, &err);
		/* mutation: a request for each */
		assert_int_equal(frame->n_requests, 2);
		assert_int_equal(frame->requests[0]->drop_tag->n_more_serials, FIRST - 1);
		assert_int_equal(frame->requests[0]->drop_tag->serial, 100);
		assert_int_equal(frame->requests[0]->drop_tag->more_serials[254], 355);
		assert_int_equal(frame->requests[0]->drop_tag->more_generations[254], 255);
		assert_int_equal(frame->requests[1]->drop_tag->serial, 356);
		reply.id = frame->requests[0]->id;
		reply.result_case = SOFT__REPLY__RESULT_DROPPED;
		reply.dropped = &dropped;
		dropped.streams_cut = 3;
		dropped.n_more_streams_cut = how == 0 ? FIRST - 1 : 0;
		dropped.more_streams_cut = cut;
		if (how == 1)
			reply.reason = NICD_R_NO_MEMORY;
		if (how < 2)
			answer(f->theirs, FIELD_REPLIES, &reply.base);
		else
			close(f->theirs);
		soft_provider_dispatch(f->provider);
		for (unsigned i = 0; i < FIRST; i++) {
			/* mutation: answer only the first of them */
			assert_int_equal(cmds[i].done, 1);
			assert_int_equal(cmds[i].cmd.error.reason,
					 how == 0 ? NICD_R_NONE : how == 1 ? NICD_R_NO_MEMORY : NICD_R_DEVICE_LOST);
			/* mutation: give one what was cut by another */
			if (how == 0)
				assert_int_equal(cmds[i].cmd.dropped.streams_cut, i == 0 ? 3 : i == 1 ? 5 : i == 3 ? 7 : 0);
		}
		for (unsigned i = FIRST; i < N; i++)
			assert_int_equal(cmds[i].done, how == 2);
		/* mutation: lose those that hang on another, or that were not sent yet, when the provider goes */
		f->provider->ops->tag_drop(f->provider, 1, 1, NULL, &fresh(&cmds[0])->cmd);
		f->provider->ops->free(f->provider);
		for (unsigned i = 0; i < N; i++)
			assert_int_equal(cmds[i].done, 1);
		assert_int_equal(cmds[0].cmd.error.reason, NICD_R_DEVICE_LOST);
		if (how < 2)
			close(f->theirs);
		fixture_free(f);
	}
}

/* So many are ended by one dispatch, and what else came waits for the next. */
static void test_drops_in_turns(void **state)
{
	enum { TURNS = 4, EACH = 256 };
	static struct cmd cmds[TURNS * EACH];
	Soft__HelloReply hello;
	Soft__Reply first = hello_reply(&hello), reply = SOFT__REPLY__INIT;
	Soft__Dropped dropped = SOFT__DROPPED__INIT;
	struct wire_packet packet;
	struct nicd_error err;
	unsigned done;
	int pair[2];
	struct fixture *f = fixture_new(pair);

	assert_int_equal(meet(f, pair, FIELD_REPLIES, &first.base, &err), 0);
	f->provider->events = &events;
	for (unsigned i = 0; i < TURNS * EACH; i++)
		f->provider->ops->tag_drop(f->provider, 100 + i, i, NULL, &fresh(&cmds[i])->cmd);
	reply.result_case = SOFT__REPLY__RESULT_DROPPED;
	reply.dropped = &dropped;
	for (unsigned i = 0; i < TURNS; i++) {
		reply.id = cmds[i * EACH].cmd.id;
		answer(f->theirs, FIELD_REPLIES, &reply.base);
	}
	for (unsigned turn = 1; turn <= TURNS / 2; turn++) {
		soft_provider_dispatch(f->provider);
		done = 0;
		for (unsigned i = 0; i < TURNS * EACH; i++)
			done += (unsigned)cmds[i].done;
		/* mutation: end all that there are */
		assert_int_equal(done, turn * 2 * EACH);
	}
	while (wire_recv(f->theirs, f->buf, sizeof(f->buf), &packet) == WIRE_PACKET)
		;
	f->provider->ops->free(f->provider);
	close(f->theirs);
	fixture_free(f);
}

static void test_bad_device(void **state)
{
	for (unsigned i = 0; i < 9; i++) {
		Soft__HelloReply hello;
		Soft__Reply first = hello_reply(&hello), reply = SOFT__REPLY__INIT;
		Soft__Request request = SOFT__REQUEST__INIT;
		Soft__Fatal fatal = SOFT__FATAL__INIT;
		Soft__Tags tags = SOFT__TAGS__INIT;
		Soft__Completion completion = SOFT__COMPLETION__INIT;
		struct nicd_error err;
		struct cmd c;
		int pair[2];
		struct fixture *f = fixture_new(pair);

		assert_int_equal(meet(f, pair, FIELD_REPLIES, &first.base, &err), 0);
		f->provider->events = &events;
		f->provider->ops->stats(f->provider, &fresh(&c)->cmd);
		f->provider->ops->push(f->provider);
		reply.id = c.cmd.id;
		switch (i) {
		/* mutation: index the table of commands with whatever id comes */
		case 0: reply.id = 0; break;
		case 1: reply.id = 4000000000u; break;
		case 2: reply.id = c.cmd.id + 1; break;
		/* mutation: take a result of another kind */
		case 3: reply.result_case = SOFT__REPLY__RESULT_TAGS; reply.tags = &tags; break;
		/* mutation: take a success without a result */
		case 4: break;
		/* The same two, as protobuf-c decodes them and not the fast path. */
		case 5: reply.result_case = SOFT__REPLY__RESULT_COMPLETION; reply.completion = &completion; break;
		case 6: reply.limit = 1; break;
		default: break;
		}
		if (i < 7)
			answer(f->theirs, FIELD_REPLIES, &reply.base);
		/* mutation: ignore requests, or Fatal, from the device */
		if (i == 7)
			answer(f->theirs, FIELD_REQUESTS, &request.base);
		if (i == 8)
			answer(f->theirs, FIELD_FATAL, &fatal.base);
		soft_provider_dispatch(f->provider);
		assert_int_equal(c.done, 1);
		assert_int_equal(c.cmd.error.reason, NICD_R_DEVICE_LOST);
		assert_int_equal(n_lost, 1000 + n_done);
		f->provider->ops->free(f->provider);
		close(f->theirs);
		fixture_free(f);
	}
}

/* A device that does not read: commands wait in the queue, it says that it wants to write, and all arrive in the end. */
static void test_slow_device(void **state)
{
	enum { N = 200000 };
	Soft__HelloReply hello;
	Soft__Reply first = hello_reply(&hello);
	struct cmd *cmds = calloc(N, sizeof(*cmds));
	struct wire_packet packet;
	struct nicd_error err;
	size_t n = 0;
	int pair[2];
	struct fixture *f = fixture_new(pair);

	assert_int_equal(meet(f, pair, FIELD_REPLIES, &first.base, &err), 0);
	for (unsigned i = 0; i < N; i++)
		f->provider->ops->tag_drop(f->provider, i, 1, NULL, &fresh(&cmds[i])->cmd);
	f->provider->ops->push(f->provider);
	/* mutation: take a full socket for a lost one */
	assert_int_equal(n_done, 0);
	assert_true(soft_provider_wants_write(f->provider));
	for (unsigned i = 0; i < 2 * N && n < N + 1; i++) {
		Soft__Frame *frame;

		soft_provider_dispatch(f->provider);
		if (wire_recv(f->theirs, f->buf, sizeof(f->buf), &packet) != WIRE_PACKET)
			continue;
		arena_reset(&f->arena);
		frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &f->arena, packet.data, packet.len, &err);
		assert_non_null(frame);
		for (size_t k = 0; k < frame->n_requests; k++)
			n += 1 + (frame->requests[k]->call_case == SOFT__REQUEST__CALL_DROP_TAG ?
					  frame->requests[k]->drop_tag->n_more_serials : 0);
	}
	assert_int_equal(n, N + 1);   /* and Hello */
	assert_false(soft_provider_wants_write(f->provider));
	close(f->theirs);
	while (soft_provider_fd(f->provider) >= 0)
		soft_provider_dispatch(f->provider);
	assert_int_equal(n_done, N);
	f->provider->ops->free(f->provider);
	fixture_free(f);
	free(cmds);
}

/* libuv's first loop and the first thread open what they keep for the process. */
static int warm_up(void **state)
{
	uv_loop_t loop;

	return uv_loop_init(&loop) < 0 || uv_loop_close(&loop) < 0 ? -1 : 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(facts), TEST(tag_life), TEST(fields), TEST(many), TEST(lost), TEST(lost_in_turns), TEST(starved), TEST(free_in_flight),
		cmocka_unit_test(test_bad_hello), cmocka_unit_test(test_drops_together), cmocka_unit_test(test_drops_in_turns),
		cmocka_unit_test(test_bad_device), cmocka_unit_test(test_slow_device),
	};

	return cmocka_run_group_tests(tests, warm_up, NULL);
}
