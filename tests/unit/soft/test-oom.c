/* SPDX-License-Identifier: MIT */
/*
 * Out of memory at every allocation, once each: the device, its control socket and the provider are made and driven with the first
 * allocation failing, then the second, until a run needs none any more. Nothing crashes, nothing stays, and after a failure the next
 * command works or the connection has ended. The linker puts these functions in place of malloc and its kin in our own code.
 */
#include <errno.h>
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
#include "proto/soft.pb-c.h"

static bool armed;
static unsigned until;   /* allocations until one fails */
static bool failed;
static long live;

static bool fails(void)
{
	if (!armed || failed || --until > 0)
		return false;
	failed = true;
	return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *mem, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *mem);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *mem, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *mem);

void *__wrap_malloc(size_t size)
{
	if (fails())
		return NULL;
	live++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	if (fails())
		return NULL;
	live++;
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *mem, size_t size)
{
	if (fails())
		return NULL;
	live += !mem;
	return __real_realloc(mem, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	if (fails())
		return NULL;
	live++;
	return __real_aligned_alloc(align, size);
}

void __wrap_free(void *mem)
{
	live -= mem != NULL;
	__real_free(mem);
}

/* ---- the device */

static int memfd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	return fd;
}

static void put(struct frame_out *out, Soft__Request *request, uint32_t id, int fd)
{
	request->id = id;
	request->fds = fd >= 0;
	assert_int_equal(frame_put(out, 1, &request->base, &fd, fd >= 0), 0);
}

/* A session that takes every way through which memory is allocated. */
static void script(struct frame_out *out)
{
	uint8_t bytes[NICD_TICKET_HASH_SIZE] = {1};
	char address[] = "127.0.0.1:1";
	Soft__Hello hello = SOFT__HELLO__INIT;
	Soft__AttachMemory attach = SOFT__ATTACH_MEMORY__INIT;
	Soft__DetachMemory detach = SOFT__DETACH_MEMORY__INIT;
	Soft__TagRange range = SOFT__TAG_RANGE__INIT, *ranges[2] = {&range, &range};
	Soft__AddTag add = SOFT__ADD_TAG__INIT;
	Soft__AddTicket ticket = SOFT__ADD_TICKET__INIT;
	Soft__Connect connect = SOFT__CONNECT__INIT;
	Soft__Post post = SOFT__POST__INIT;
	Soft__Request r = SOFT__REQUEST__INIT;
	uint32_t id = 1;

#define SAY(member, CASE, fd) \
	do { \
		r.call_case = SOFT__REQUEST__CALL_##CASE; \
		r.member = &member##_; \
		put(out, &r, id++, fd); \
	} while (0)
#define hello_ hello
#define attach_memory_ attach
#define detach_memory_ detach
#define add_tag_ add
#define add_ticket_ ticket
#define connect_ connect
#define post_ post
	hello.major = NICD_MAJOR;
	SAY(hello, HELLO, -1);
	attach.serial = 1;
	attach.size = 64 << 20;
	SAY(attach_memory, ATTACH_MEMORY, memfd());
	attach.serial = 2;
	SAY(attach_memory, ATTACH_MEMORY, memfd());
	range.memory = 1;
	range.length = 1;
	add.ranges = ranges;
	add.n_ranges = 2;
	add.generation = add.length = add.iova = 1;
	add.rights = 2;
	add.serial = 9;
	SAY(add_tag, ADD_TAG, -1);
	add.n_ranges = 1;
	for (add.serial = 10; add.serial < 700; add.serial++)
		SAY(add_tag, ADD_TAG, -1);
	ticket.serial = 20;
	ticket.hash.data = bytes;
	ticket.hash.len = sizeof(bytes);
	ticket.uses = ticket.max_streams = 1;
	ticket.ttl_ms = 100000;
	SAY(add_ticket, ADD_TICKET, -1);
	connect.stream = 1;
	connect.address = address;
	connect.ticket.data = bytes;
	connect.ticket.len = NICD_TICKET_SIZE;
	SAY(connect, CONNECT, -1);
	post.stream = 1;
	post.entries.data = bytes;
	post.entries.len = NICD_TRANSFER_ENTRY_SIZE;
	SAY(post, POST, -1);
	detach.serial = 2;
	SAY(detach_memory, DETACH_MEMORY, -1);
	SAY(detach_memory, DETACH_MEMORY, -1);   /* again, while the first is under way */
}

static void on_closed(void *userdata)
{
	*(bool *)userdata = true;
}

static void turns(uv_loop_t *loop, unsigned n)
{
	armed = true;
	while (n-- > 0)
		uv_run(loop, UV_RUN_NOWAIT);
	armed = false;
}

/* Sends all, reads all. */
static void converse(uv_loop_t *loop, int sock)
{
	struct frame_out out;
	char buf[1024];

	frame_out_init(&out);
	script(&out);
	for (unsigned i = 0; i < 20; i++) {
		frame_flush(&out, sock);
		turns(loop, 2);
		while (recv(sock, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
	}
	frame_out_deinit(&out);
}

static void one_session(uv_loop_t *loop)
{
	struct soft_control_options options = {.uid = getuid()};
	struct soft_control *control = NULL;
	bool closed = false;
	int pair[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	armed = true;
	r = soft_control_new(&control, loop, &options);
	armed = false;
	if (r < 0) {
		assert_true(r == -ENOMEM && !control);
		close(pair[0]);
	} else {
		armed = true;
		r = soft_control_admit(control, pair[0]);
		armed = false;
		if (r == 0)
			converse(loop, pair[1]);
		else
			assert_int_equal(r, -ENOMEM);
		soft_control_close(control, on_closed, &closed);
		uv_run(loop, UV_RUN_DEFAULT);
		assert_true(closed);
		soft_control_free(control);
	}
	close(pair[1]);
}

/* mutation: publish, link or charge before the last allocation of any constructor, or forget one in its error path */
static void test_device(void **state)
{
	uv_loop_t loop;
	unsigned k = 1;

	assert_int_equal(uv_loop_init(&loop), 0);
	for (failed = true; failed; k++) {
		long before = live;

		failed = false;
		until = k;
		one_session(&loop);
		assert_int_equal(live, before);
		assert_false(uv_loop_alive(&loop));
	}
	assert_true(k > 20);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- the provider */

static void on_done(struct nic_cmd *cmd)
{
	assert_true(cmd->error.reason == NICD_R_NO_MEMORY || cmd->error.reason == NICD_R_DEVICE_LOST);
	cmd->cookie++;
}

static void answer_hello(int sock)
{
	Soft__HelloReply hello = SOFT__HELLO_REPLY__INIT;
	Soft__Reply reply = SOFT__REPLY__INIT;
	struct frame_out out;

	hello.major = NICD_MAJOR;
	reply.id = 1;
	reply.result_case = SOFT__REPLY__RESULT_HELLO;
	reply.hello = &hello;
	frame_out_init(&out);
	assert_int_equal(frame_put(&out, 2, &reply.base, NULL, 0), 0);
	assert_int_equal(frame_flush(&out, sock), 0);
	frame_out_deinit(&out);
}

static void one_provider(void)
{
	enum { N = 600 };
	static struct nic_cmd cmds[N];
	struct nic_provider *provider = NULL;
	struct nicd_error err = {.reason = NICD_R_NONE};
	int pair[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	answer_hello(pair[0]);
	armed = true;
	r = soft_provider_new(&provider, pair[1], &err);
	for (unsigned i = 0; r == 0 && i < N; i++) {
		cmds[i] = (struct nic_cmd){.done = on_done};
		if (i % 2)
			provider->ops->tag_drop(provider, i, 1, NULL, &cmds[i]);
		else
			provider->ops->qp_flush(provider, i, &cmds[i]);
	}
	armed = false;
	close(pair[0]);
	if (r < 0) {
		assert_null(provider);
		assert_int_not_equal(err.reason, NICD_R_NONE);
		return;
	}
	soft_provider_dispatch(provider);
	for (unsigned i = 0; i < N; i++)
		/* mutation: end a command twice, or never, when it could not be sent */
		assert_int_equal(cmds[i].cookie, 1);
	provider->ops->free(provider);
}

static void test_provider(void **state)
{
	unsigned k = 1;

	for (failed = true; failed; k++) {
		long before = live;

		failed = false;
		until = k;
		one_provider();
		assert_int_equal(live, before);
	}
	assert_true(k > 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_provider),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
