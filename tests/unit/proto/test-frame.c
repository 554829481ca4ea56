/* SPDX-License-Identifier: MIT */
/* Arena, decoding under a budget, and the queue of encoded frames. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/frame.h"
#include "proto/nicd.pb-c.h"

enum { FIELD_REQUESTS = 1, FIELD_REPLIES = 2, FIELD_EVENTS = 3, FIELD_FATAL = 4 };

struct fixture {
	struct arena arena;
	struct frame_out out;
	int sock[2];
	uint8_t buf[NICD_FRAME_MAX + 1];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(arena_init(&f->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS), 0);
	frame_out_init(&f->out);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->sock), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	frame_out_deinit(&f->out);
	arena_deinit(&f->arena);
	close(f->sock[0]);
	close(f->sock[1]);
	free(f);
	return 0;
}

static void put_request(struct fixture *f, uint32_t id)
{
	Nicd__Request request = NICD__REQUEST__INIT;

	request.id = id;
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, NULL, 0), 0);
}

/* The next packet, decoded into the arena; its descriptors are closed. */
static Nicd__Frame *receive(struct fixture *f, unsigned *n_fds)
{
	struct wire_packet packet;
	struct nicd_error error;
	Nicd__Frame *frame;

	if (wire_recv(f->sock[1], f->buf, sizeof(f->buf), &packet) != WIRE_PACKET)
		return NULL;
	arena_reset(&f->arena);
	frame = (Nicd__Frame *)frame_decode(&nicd__frame__descriptor, &f->arena, packet.data, packet.len, &error);
	assert_non_null(frame);
	if (n_fds)
		*n_fds = packet.n_fds;
	wire_release(&packet);
	return frame;
}

static void refused(struct fixture *f, size_t len, enum nicd_reason reason, struct nicd_error *error)
{
	struct nicd_error own;

	if (!error)
		error = &own;
	arena_reset(&f->arena);
	assert_null(frame_decode(&nicd__frame__descriptor, &f->arena, f->buf, len, error));
	assert_int_equal(error->reason, reason);
}

/* ---- arena */

static void test_arena_aligns(void **state)
{
	struct fixture *f = *state;

	for (size_t size = 0; size < 100; size++) {
		uint8_t *mem = arena_alloc(&f->arena, size);

		assert_non_null(mem);
		/* mutation: arena_alloc adds `size` instead of the rounded size */
		assert_int_equal((uintptr_t)mem % 16, 0);
		memset(mem, 0xff, size);
	}
}

static void test_arena_bytes(void **state)
{
	struct arena arena;

	assert_int_equal(arena_init(&arena, 4096, 1000), 0);
	assert_non_null(arena_alloc(&arena, 4000));
	/* mutation: arena_alloc does not compare with what is left */
	assert_null(arena_alloc(&arena, 97));
	/* mutation: arena_alloc does not stay spent */
	assert_null(arena_alloc(&arena, 1));
	arena_reset(&arena);
	assert_non_null(arena_alloc(&arena, 4096));
	assert_null(arena_alloc(&arena, 1));
	arena_reset(&arena);
	/* mutation: arena_alloc rounds the size before it compares (it wraps to 0) */
	assert_null(arena_alloc(&arena, SIZE_MAX));
	arena_reset(&arena);
	assert_non_null(arena_alloc(&arena, 16));
	assert_null(arena_alloc(&arena, SIZE_MAX - 7));
	arena_deinit(&arena);
}

static void test_arena_calls(void **state)
{
	struct arena arena;

	assert_int_equal(arena_init(&arena, 4096, 3), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_non_null(arena_alloc(&arena, 1));
	/* mutation: arena_alloc does not count its calls */
	assert_null(arena_alloc(&arena, 1));
	arena_reset(&arena);
	assert_non_null(arena_alloc(&arena, 1));
	arena_deinit(&arena);
}

/* What a greedy frame touched goes back; the arena is usable as before. */
static void test_arena_gives_back(void **state)
{
	struct fixture *f = *state;
	uint8_t *mem = arena_alloc(&f->arena, NICD_FRAME_ARENA);

	memset(mem, 0xff, NICD_FRAME_ARENA);
	arena_reset(&f->arena);
	mem = arena_alloc(&f->arena, NICD_FRAME_ARENA);
	assert_non_null(mem);
	assert_int_equal(mem[0], 0xff);
	/* mutation: arena_reset without madvise */
	assert_int_equal(mem[NICD_FRAME_ARENA - 1], 0);
}

/* ---- decoding */

static void test_decode_empty(void **state)
{
	struct fixture *f = *state;
	struct nicd_error error;

	/* No bytes are a message of which nothing is set. */
	refused(f, 0, NICD_R_FRAME_EMPTY, &error);
	assert_int_equal(error.limit, 1);
	/* Nothing but an unknown field. */
	memcpy(f->buf, "\xf8\x01\x07", 3);
	/* mutation: frame_decode does not ask frame_is_hollow */
	refused(f, 3, NICD_R_FRAME_EMPTY, NULL);
}

static void test_decode_too_big(void **state)
{
	struct fixture *f = *state;
	struct nicd_error error;

	/* mutation: frame_decode does not look at len > NICD_FRAME_MAX */
	refused(f, NICD_FRAME_MAX + 1, NICD_R_FRAME_TOO_BIG, &error);
	assert_int_equal(error.limit, NICD_FRAME_MAX);
	assert_int_equal(error.observed, NICD_FRAME_MAX + 1);
}

static void test_decode_garbage(void **state)
{
	struct fixture *f = *state;

	memset(f->buf, 0xff, 100);
	refused(f, 100, NICD_R_FRAME_UNDECODABLE, NULL);
	/* An element that ends beyond the packet. */
	memcpy(f->buf, "\x0a\x05\x08\x01", 4);
	refused(f, 4, NICD_R_FRAME_UNDECODABLE, NULL);
	/* Every prefix of an honest frame is refused or decoded, never more than that. */
	put_request(f, 1);
	put_request(f, 300);
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	assert_int_equal(receive(f, NULL)->n_requests, 2);
	for (size_t len = 1; len < 8; len++) {
		arena_reset(&f->arena);
		frame_decode(&nicd__frame__descriptor, &f->arena, f->buf, len, NULL);
	}
}

/* Two bytes each: the packet of 64 KiB that would be 32,000 allocations. */
static void test_decode_empty_submessages(void **state)
{
	struct fixture *f = *state;
	struct nicd_error error;

	for (size_t i = 0; i + 2 <= 64000; i += 2)
		memcpy(f->buf + i, "\x0a\x00", 2);
	/* mutation: arena_alloc without any budget; frame_decode without the test of `spent` */
	refused(f, 64000, NICD_R_FRAME_BUDGET, &error);
	assert_true(error.limit > 0);
	assert_true(error.observed > error.limit);
	/* The arena is good for the next one. */
	arena_reset(&f->arena);
	assert_non_null(frame_decode(&nicd__frame__descriptor, &f->arena, f->buf, 2, &error));
}

/* The call budget alone: many small messages inside one element. */
static void test_decode_calls(void **state)
{
	struct fixture *f = *state;
	struct nicd_error error;
	struct arena arena;

	assert_int_equal(arena_init(&arena, 4 << 20, 64), 0);
	for (size_t i = 0; i < 200; i += 2)
		memcpy(f->buf + i, "\x0a\x00", 2);
	assert_null(frame_decode(&nicd__frame__descriptor, &arena, f->buf, 200, &error));
	assert_int_equal(error.reason, NICD_R_FRAME_BUDGET);
	assert_int_equal(error.limit, 64);
	assert_int_equal(error.observed, 65);
	arena_deinit(&arena);
}

/* Whatever the budget ends, protobuf-c gives up cleanly: the n-th allocation fails, for every n. */
static void test_decode_nth_failure(void **state)
{
	struct fixture *f = *state;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[3] = { &range, &range, &range };
	Nicd__RegisterMr call = NICD__REGISTER_MR__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Ref ref = NICD__REF__INIT;
	struct wire_packet packet;
	unsigned max = 0;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = 7;
	range.memory = &ref;
	range.length = 4096;
	call.mr = &ref;
	call.n_ranges = 3;
	call.ranges = ranges;
	request.id = 1;
	request.call_case = NICD__REQUEST__CALL_REGISTER_MR;
	request.register_mr = &call;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, NULL, 0), 0);
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	assert_int_equal(wire_recv(f->sock[1], f->buf, sizeof(f->buf), &packet), WIRE_PACKET);
	for (;; max++) {
		struct nicd_error error;
		struct arena arena;
		bool done;

		assert_int_equal(arena_init(&arena, NICD_FRAME_ARENA, 1), 0);
		memset(arena_alloc(&arena, NICD_FRAME_ARENA), 0xa5, NICD_FRAME_ARENA);
		arena_reset(&arena);
		arena.max_allocs = max;
		done = frame_decode(&nicd__frame__descriptor, &arena, packet.data, packet.len, &error);
		assert_true(done || error.reason == NICD_R_FRAME_BUDGET);
		arena_deinit(&arena);
		if (done)
			break;
	}
	assert_true(max > 20 * 5);
}

/* The most that the protocol allows in one frame fits into the budgets. */
static void test_decode_fullest(void **state)
{
	struct fixture *f = *state;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[NICD_RANGES];
	Nicd__RegisterMr call = NICD__REGISTER_MR__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Ref ref = NICD__REF__INIT;

	ref.of_case = NICD__REF__OF_RESULT_OF;
	ref.result_of = 1;
	range.memory = &ref;
	range.offset = 1;
	range.length = 1;
	for (unsigned i = 0; i < NICD_RANGES; i++)
		ranges[i] = &range;
	call.mr = &ref;
	call.n_ranges = NICD_RANGES;
	call.ranges = ranges;
	request.call_case = NICD__REQUEST__CALL_REGISTER_MR;
	request.register_mr = &call;
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++) {
		request.id = i + 1;
		assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, NULL, 0), 0);
	}
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	/* mutation: NICD_FRAME_ALLOCS or NICD_FRAME_ARENA too small for honest frames */
	assert_int_equal(receive(f, NULL)->n_requests, NICD_FRAME_REQUESTS);
	assert_null(receive(f, NULL));
}

/* A string is never cut at a NUL: neither by the fast path, nor by protobuf-c, which an unknown field calls in. */
static void test_decode_nul(void **state)
{
	static const uint8_t bytes[] = { 0x0a, 9, 8, 1, 0x52, 5, 0x1a, 3, 'a', 0, 'b', 0xf8, 1, 0 };
	struct fixture *f = *state;

	for (size_t len = sizeof(bytes) - 3; len <= sizeof(bytes); len += 3) {
		Nicd__Frame *frame;

		arena_reset(&f->arena);
		frame = (Nicd__Frame *)frame_decode(&nicd__frame__descriptor, &f->arena, bytes, len, NULL);
		assert_non_null(frame);
		/* mutation: unpack_bytes without expose_nuls; frame_decode_unusual without codec_expose_nuls */
		assert_string_equal(frame->requests[0]->hello->client, "a\xff" "b");
		assert_false(text_is_utf8(frame->requests[0]->hello->client, NICD_STRING));
	}
}

/* ---- encoding */

static void test_put_coalesces(void **state)
{
	struct fixture *f = *state;
	Nicd__Frame *frame;

	assert_true(frame_out_empty(&f->out));
	for (uint32_t i = 1; i <= NICD_FRAME_REQUESTS + 1; i++)
		put_request(f, i);
	assert_false(frame_out_empty(&f->out));
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	assert_true(frame_out_empty(&f->out));
	assert_int_equal(f->out.bytes, 0);

	/* mutation: frame_buf_fits without the number of elements */
	frame = receive(f, NULL);
	assert_int_equal(frame->n_requests, NICD_FRAME_REQUESTS);
	for (uint32_t i = 0; i < NICD_FRAME_REQUESTS; i++)
		assert_int_equal(frame->requests[i]->id, i + 1);
	frame = receive(f, NULL);
	assert_int_equal(frame->n_requests, 1);
	assert_int_equal(frame->requests[0]->id, NICD_FRAME_REQUESTS + 1);
	assert_null(receive(f, NULL));
}

static void test_put_other_field(void **state)
{
	struct fixture *f = *state;
	Nicd__Reply reply = NICD__REPLY__INIT;
	Nicd__Event event = NICD__EVENT__INIT;
	Nicd__Frame *frame;

	reply.id = 1;
	event.kind = NICD__EVENT__KIND__RESYNC;
	assert_int_equal(frame_put(&f->out, FIELD_REPLIES, &reply.base, NULL, 0), 0);
	assert_int_equal(frame_put(&f->out, FIELD_EVENTS, &event.base, NULL, 0), 0);
	reply.id = 2;
	assert_int_equal(frame_put(&f->out, FIELD_REPLIES, &reply.base, NULL, 0), 0);
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	/* mutation: frame_buf_fits without the field */
	frame = receive(f, NULL);
	assert_int_equal(frame->n_replies, 1);
	assert_int_equal(frame->n_events, 0);
	frame = receive(f, NULL);
	assert_int_equal(frame->n_events, 1);
	assert_int_equal(frame->events[0]->kind, NICD__EVENT__KIND__RESYNC);
	frame = receive(f, NULL);
	assert_int_equal(frame->n_replies, 1);
	assert_int_equal(frame->replies[0]->id, 2);
}

/* A Resume whose element, with tag and length, takes `total` bytes of the frame. */
static int put_sized(struct fixture *f, size_t total)
{
	static uint8_t secret[NICD_FRAME_MAX * 2];
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Resume call = NICD__RESUME__INIT;

	request.id = 1;
	request.call_case = NICD__REQUEST__CALL_RESUME;
	request.resume = &call;
	call.secret.data = secret;
	call.secret.len = total;
	for (;; call.secret.len--) {
		size_t size = protobuf_c_message_get_packed_size(&request.base);

		if (1 + (size < 128 ? 1 : size < 16384 ? 2 : 3) + size == total)
			break;
		assert_true(call.secret.len > 0);
	}
	return frame_put(&f->out, FIELD_REQUESTS, &request.base, NULL, 0);
}

static void test_put_boundary(void **state)
{
	struct fixture *f = *state;

	/* mutation: frame_put forgets frame_buf_unopen, and an empty packet goes out */
	assert_int_equal(put_sized(f, NICD_FRAME_MAX + 1), -EMSGSIZE);
	assert_true(frame_out_empty(&f->out));
	assert_int_equal(f->out.opened, 0);
	/* To the last byte, in one and in two elements. */
	assert_int_equal(put_sized(f, NICD_FRAME_MAX), 0);
	assert_int_equal(f->out.bytes, NICD_FRAME_MAX);
	/* mutation: frame_put compares without tag and length */
	assert_int_equal(put_sized(f, NICD_FRAME_MAX + 1), -EMSGSIZE);
	assert_int_equal(put_sized(f, NICD_FRAME_MAX + 4), -EMSGSIZE);
	assert_int_equal(f->out.bytes, NICD_FRAME_MAX);
	assert_int_equal(put_sized(f, NICD_FRAME_MAX - 100), 0);
	assert_int_equal(put_sized(f, 100), 0);
	/* mutation: frame_buf_fits with < instead of <=, or without the length */
	assert_int_equal(put_sized(f, 100), 0);
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	assert_int_equal(receive(f, NULL)->n_requests, 1);
	assert_int_equal(receive(f, NULL)->n_requests, 2);
	assert_int_equal(receive(f, NULL)->n_requests, 1);
	assert_null(receive(f, NULL));
}

static bool fd_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int new_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void test_put_fds(void **state)
{
	struct fixture *f = *state;
	Nicd__Request request = NICD__REQUEST__INIT;
	int fds[NICD_FRAME_FDS + 1];
	unsigned n_fds;

	request.id = 1;
	/* 60 and 5 do not fit together. */
	for (unsigned i = 0; i < 65; i++)
		fds[i] = new_fd();
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, fds, 60), 0);
	/* mutation: frame_buf_fits without the number of descriptors */
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, fds + 60, 5), 0);
	assert_true(fd_is_open(fds[0]));
	assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
	for (unsigned i = 0; i < 65; i++) {
		/* mutation: frame_buf_retire does not close */
		assert_false(fd_is_open(fds[i]));
	}
	receive(f, &n_fds);
	assert_int_equal(n_fds, 60);
	receive(f, &n_fds);
	assert_int_equal(n_fds, 5);

	/* Taken also when refused. */
	for (unsigned i = 0; i < 65; i++)
		fds[i] = new_fd();
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, fds, 65), -EMSGSIZE);
	for (unsigned i = 0; i < 65; i++) {
		/* mutation: frame_put does not close on -EMSGSIZE */
		assert_false(fd_is_open(fds[i]));
	}
	assert_true(frame_out_empty(&f->out));
}

static void test_deinit_closes_fds(void **state)
{
	struct fixture *f = *state;
	Nicd__Request request = NICD__REQUEST__INIT;
	int fd = new_fd();

	request.id = 1;
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request.base, &fd, 1), 0);
	assert_true(fd_is_open(fd));
	frame_out_deinit(&f->out);
	/* mutation: frame_out_deinit only frees */
	assert_false(fd_is_open(fd));
	assert_true(frame_out_empty(&f->out));
	assert_int_equal(f->out.bytes, 0);
}

/* A full socket: nothing is lost, doubled, or out of order, also with what is put while it is full. */
static void test_flush_resumes(void **state)
{
	struct fixture *f = *state;
	uint32_t put = 0, got = 0;
	Nicd__Frame *frame;
	bool was_full = false;
	size_t bytes;
	int r;

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 3000; i++)
			put_request(f, ++put);
		bytes = f->out.bytes;
		r = frame_flush(&f->out, f->sock[0]);
		assert_true(r == 0 || r == -EAGAIN);
		/* mutation: frame_buf_retire does not count down */
		assert_true(r == 0 ? f->out.bytes == 0 : f->out.bytes > 0 && f->out.bytes <= bytes);
		was_full |= r == -EAGAIN;
		if (!(frame = receive(f, NULL)))
			continue;
		for (size_t i = 0; i < frame->n_requests; i++)
			assert_int_equal(frame->requests[i]->id, ++got);
	}
	/* mutation: wire_send without MSG_DONTWAIT (hangs) */
	assert_true(was_full);
	while (got < put) {
		r = frame_flush(&f->out, f->sock[0]);
		assert_true(r == 0 || r == -EAGAIN);
		frame = receive(f, NULL);
		assert_non_null(frame);
		for (size_t i = 0; i < frame->n_requests; i++)
			assert_int_equal(frame->requests[i]->id, ++got);
	}
	assert_true(frame_out_empty(&f->out));
}

static void test_flush_peer_gone(void **state)
{
	struct fixture *f = *state;

	close(f->sock[1]);
	f->sock[1] = -1;
	put_request(f, 1);
	/* Without a SIGPIPE, which this test would not survive. (Linux sends none for SEQPACKET; others do.) */
	assert_int_equal(frame_flush(&f->out, f->sock[0]), -EPIPE);
	assert_false(frame_out_empty(&f->out));
}

/* A session at work allocates nothing: the buffer that was sent is the next one. */
static void test_put_reuses(void **state)
{
	struct fixture *f = *state;
	struct frame_buf *buf;

	put_request(f, 1);
	buf = STAILQ_FIRST(&f->out.bufs);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(frame_flush(&f->out, f->sock[0]), 0);
		assert_non_null(receive(f, NULL));
		/* mutation: frame_buf_retire frees always */
		assert_ptr_equal(f->out.spare, buf);
		put_request(f, 1);
		assert_ptr_equal(STAILQ_FIRST(&f->out.bufs), buf);
	}
}

/* Two queues, one pool: what was sent from one is filled by the other, and who says nothing keeps nothing. */
static void test_pool(void **state)
{
	Nicd__Reply reply = NICD__REPLY__INIT;
	struct frame_out a, b;
	struct frame_pool pool;
	struct frame_buf *first;

	frame_pool_init(&pool, 1);
	frame_out_init(&a);
	frame_out_init(&b);
	a.pool = b.pool = &pool;
	reply.id = 1;
	assert_int_equal(frame_put(&a, 2, &reply.base, NULL, 0), 0);
	assert_int_equal(frame_put(&b, 2, &reply.base, NULL, 0), 0);
	first = STAILQ_FIRST(&a.bufs);
	frame_out_drop(&a);
	/* mutation: frame_buf_give keeps a spare one besides: 64 KiB for each session */
	assert_null(a.spare);
	assert_int_equal(pool.n, 1);
	frame_out_drop(&b);
	/* mutation: frame_buf_give without a look at `max`: it grows to the most that there ever was */
	assert_int_equal(pool.n, 1);
	assert_null(b.spare);
	assert_int_equal(frame_put(&b, 2, &reply.base, NULL, 0), 0);
	/* mutation: frame_buf_take never looks into the pool */
	assert_ptr_equal(STAILQ_FIRST(&b.bufs), first);
	assert_int_equal(pool.n, 0);
	frame_out_deinit(&a);
	frame_out_deinit(&b);
	frame_pool_deinit(&pool);
}

/* What a socket would be sent is what a test without one sees. */
static void test_peek_and_drop(void **state)
{
	struct fixture *f = *state;
	Nicd__Reply reply = NICD__REPLY__INIT;
	const uint8_t *first, *second;
	size_t len;

	assert_null(frame_out_peek(&f->out, 0, &len));
	put_request(f, 1);
	assert_int_equal(frame_put(&f->out, FIELD_REPLIES, &reply.base, NULL, 0), 0);
	first = frame_out_peek(&f->out, 0, &len);
	assert_non_null(first);
	assert_int_equal(first[0], FIELD_REQUESTS << 3 | 2);
	second = frame_out_peek(&f->out, 1, &len);
	assert_non_null(second);
	assert_int_equal(len, 2);
	assert_int_equal(second[0], FIELD_REPLIES << 3 | 2);
	/* mutation: frame_out_peek does not stop at the last one */
	assert_null(frame_out_peek(&f->out, 2, &len));
	/* mutation: frame_out_drop does nothing */
	frame_out_drop(&f->out);
	assert_ptr_equal(frame_out_peek(&f->out, 0, &len), second);
	assert_int_equal(f->out.bytes, 2);
	frame_out_drop(&f->out);
	assert_true(frame_out_empty(&f->out));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_arena_aligns),
		TEST(test_arena_bytes),
		TEST(test_arena_calls),
		TEST(test_arena_gives_back),
		TEST(test_decode_empty),
		TEST(test_decode_too_big),
		TEST(test_decode_garbage),
		TEST(test_decode_empty_submessages),
		TEST(test_decode_calls),
		TEST(test_decode_nth_failure),
		TEST(test_decode_fullest),
		TEST(test_decode_nul),
		TEST(test_put_coalesces),
		TEST(test_put_other_field),
		TEST(test_put_boundary),
		TEST(test_put_fds),
		TEST(test_deinit_closes_fds),
		TEST(test_flush_resumes),
		TEST(test_flush_peer_gone),
		TEST(test_put_reuses),
		cmocka_unit_test(test_pool),
		TEST(test_peek_and_drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
