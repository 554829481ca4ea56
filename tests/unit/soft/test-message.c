/* SPDX-License-Identifier: MIT */
/*
 * Messages: two engines that send to each other, and one against a peer of plain bytes that breaks a rule each. What a
 * receive says, what ends a stream, what waits, and what is told of notices.
 */
#include <string.h>
#include <sys/socket.h>

#include "raw.h"

#include "nicd/soft/bytes.h"

enum { KIB = 1 << 10, SIZE = 1 << 20, IOVA_A = 0x100000, IOVA_B = 0x7000000, STREAM = 5 };

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde";

/* a is connected to b, whose end of the stream is b.stream. */
struct both {
	struct pair pair;
	struct mem from, to;
	struct soft_tag *a, *b, *readable;
};

static void both_new(struct both *w, const struct soft_engine_options *options)
{
	pair_new(&w->pair, options, options);
	w->from = mem_new(&w->pair.a, SIZE);
	w->to = mem_new(&w->pair.b, SIZE);
	fill(w->from.map, SIZE, 9);
	w->a = tag_new(&w->pair.a, &w->from, PD, 0, NIC_LOCAL_WRITE, IOVA_A);
	w->b = tag_new(&w->pair.b, &w->to, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA_B);
	w->readable = tag_new(&w->pair.b, &w->to, PD, 0, NIC_REMOTE_READ, IOVA_B);
	connect_pd(&w->pair, STREAM);
}

static void both_free(struct both *w)
{
	pair_free(&w->pair);
	mem_free(&w->from);
	mem_free(&w->to);
}

static void send_from_a(struct both *w, uint64_t offset, uint32_t length, struct posted *posted)
{
	post_send(&w->pair.a, STREAM, w->a, IOVA_A + offset, length, false, 0, posted);
}

static void receive_at_b(struct both *w, uint64_t offset, uint32_t length, struct posted *posted)
{
	post_receive(&w->pair.b, w->pair.b.stream, w->b, IOVA_B + offset, length, posted);
}

static void ends(struct both *w, struct posted *posted, enum nicd_reason reason)
{
	run_until(&w->pair.loop, &posted->done);
	assert_int_equal(posted->error.reason, reason);
}

/* ---- two engines */

static void sizes(const struct soft_engine_options *options)
{
	static const uint32_t lengths[] = {0, 1, 2, 3, 5, 100, 1423, 1424, 1425, 4096, 65515, 65516, 65517, 65536, 200001, SIZE - 16};
	struct posted sent, received;
	struct both w;

	both_new(&w, options);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		memset(w.to.map, 0, SIZE);
		receive_at_b(&w, 3, SIZE - 3, &received);
		send_from_a(&w, i, lengths[i], &sent);
		ends(&w, &sent, NICD_R_NONE);
		/* mutation: say that it is placed when it is sent */
		assert_true(received.done);
		ends(&w, &received, NICD_R_NONE);
		assert_int_equal(received.completion.bytes, lengths[i]);
		assert_int_equal(received.completion.entries, 1);
		assert_false(received.completion.solicited || received.completion.invalidated);
		assert_int_equal(sent.completion.bytes, lengths[i]);
		/* mutation: put the second segment where the first one is */
		assert_memory_equal(w.to.map + 3, w.from.map + i, lengths[i]);
		assert_int_equal(w.to.map[3 + lengths[i]], 0);
		assert_int_equal(w.to.map[2], 0);
	}
	both_free(&w);
}

static void test_sizes(void **state)
{
	const struct soft_engine_options crc = {.crc = true}, small = {.fpdu = 1448}, both = {.crc = true, .fpdu = 1448};

	sizes(NULL);
	sizes(&crc);
	sizes(&small);
	sizes(&both);
}

/* From the side that was connected to. */
static void test_back(void **state)
{
	struct posted sent, received;
	struct both w;

	both_new(&w, NULL);
	memcpy(w.to.map, "answer", 6);
	post_receive(&w.pair.a, STREAM, w.a, IOVA_A + 100, 10, &received);
	post_send(&w.pair.b, w.pair.b.stream, w.b, IOVA_B, 6, true, 0, &sent);
	ends(&w, &received, NICD_R_NONE);
	ends(&w, &sent, NICD_R_NONE);
	assert_true(received.completion.solicited);
	assert_memory_equal(w.from.map + 100, "answer", 6);
	/* An empty one, too, takes a receive here: only who came in by a door gives notice. */
	post_receive(&w.pair.a, STREAM, w.a, IOVA_A, 0, &received);
	post_send(&w.pair.b, w.pair.b.stream, w.b, IOVA_B, 0, true, 0, &sent);
	ends(&w, &received, NICD_R_NONE);
	/* mutation: take every empty one for a notice */
	assert_true(received.completion.solicited);
	assert_int_equal(received.completion.bytes, 0);
	both_free(&w);
}

/* Messages between writes and reads: all in the order in which they were posted. */
static void test_order(void **state)
{
	enum { ROUNDS = 40 };
	static struct posted sent[ROUNDS], written[ROUNDS], read[ROUNDS], received[ROUNDS];
	struct both w;

	both_new(&w, NULL);
	for (unsigned i = 0; i < ROUNDS; i++)
		receive_at_b(&w, 512 * KIB + i * 64, 64, &received[i]);
	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct entry e = {w.a->local_token, w.b->remote_token, IOVA_A, IOVA_B, 70000 + i};

		post(&w.pair.a, STREAM, NIC_WRITE, &e, 1, &written[i]);
		send_from_a(&w, i, i, &sent[i]);
		post(&w.pair.a, STREAM, NIC_READ, &(struct entry){w.a->local_token, w.b->remote_token, IOVA_A + 600 * KIB, IOVA_B, 99},
		     1, &read[i]);
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		ends(&w, &received[i], NICD_R_NONE);
		assert_int_equal(received[i].completion.bytes, i);
		assert_memory_equal(w.to.map + 512 * KIB + i * 64, w.from.map + i, i);
		/* mutation: let messages pass writes */
		assert_int_equal(w.to.map[70000 + i - 1], w.from.map[70000 + i - 1]);
		ends(&w, &sent[i], NICD_R_NONE);
		ends(&w, &written[i], NICD_R_NONE);
		ends(&w, &read[i], NICD_R_NONE);
	}
	both_free(&w);
}

static void test_both_ways(void **state)
{
	enum { N = 100 };
	static struct posted sent_a[N], sent_b[N], received_a[N], received_b[N];
	struct both w;

	both_new(&w, NULL);
	for (unsigned i = 0; i < N; i++) {
		post_receive(&w.pair.a, STREAM, w.a, IOVA_A + 600 * KIB, 100 * KIB, &received_a[i]);
		receive_at_b(&w, 0, 100 * KIB, &received_b[i]);
	}
	for (unsigned i = 0; i < N; i++) {
		send_from_a(&w, 0, 100 * KIB, &sent_a[i]);
		post_send(&w.pair.b, w.pair.b.stream, w.b, IOVA_B, 100 * KIB, false, 0, &sent_b[i]);
	}
	for (unsigned i = 0; i < N; i++) {
		ends(&w, &sent_a[i], NICD_R_NONE);
		ends(&w, &sent_b[i], NICD_R_NONE);
		ends(&w, &received_a[i], NICD_R_NONE);
		ends(&w, &received_b[i], NICD_R_NONE);
	}
	both_free(&w);
}

static void test_post_refused(void **state)
{
	static struct posted many[NICD_QP_RECEIVES], one;
	struct both w;

	both_new(&w, NULL);
	post_receive(&w.pair.b, 999, w.b, IOVA_B, 10, &one);
	assert_int_equal(one.error.reason, NICD_R_QP_STATE);
	/* mutation: check the buffer when the message comes */
	receive_at_b(&w, SIZE - 9, 10, &one);
	assert_int_equal(one.error.reason, NICD_R_LOCAL_RANGE);
	post_receive(&w.pair.b, w.pair.b.stream, w.readable, IOVA_B, 10, &one);
	assert_int_equal(one.error.reason, NICD_R_LOCAL_RIGHTS);
	post_receive(&w.pair.b, w.pair.b.stream, &(struct soft_tag){.local_token = w.b->local_token ^ 1}, IOVA_B, 10, &one);
	assert_int_equal(one.error.reason, NICD_R_LOCAL_TOKEN);
	for (unsigned i = 0; i < NICD_QP_RECEIVES; i++)
		receive_at_b(&w, 0, 1, &many[i]);
	receive_at_b(&w, 0, 1, &one);
	/* mutation: as many as anybody likes */
	assert_int_equal(one.error.reason, NICD_R_IN_FLIGHT);
	assert_false(many[0].done);
	/* A Send of memory that is none: what was posted before is done first. */
	post_send(&w.pair.a, STREAM, &(struct soft_tag){.local_token = 1}, IOVA_A, 5, false, 0, &one);
	ends(&w, &one, NICD_R_LOCAL_TOKEN);
	both_free(&w);
}

static void test_too_long(void **state)
{
	static struct posted sent, first, second;
	struct both w;

	both_new(&w, NULL);
	memset(w.to.map, 0, SIZE);
	receive_at_b(&w, 0, 70000, &first);
	receive_at_b(&w, 0, 100000, &second);
	send_from_a(&w, 0, 70001, &sent);
	ends(&w, &sent, NICD_R_REMOTE_RECEIVE);
	ends(&w, &first, NICD_R_RECEIVE_TOO_SMALL);
	assert_int_equal(first.error.limit, 70000);
	assert_int_equal(first.error.observed, 70001);
	ends(&w, &second, NICD_R_QP_LOST);
	/* mutation: place as much as fits */
	assert_int_equal(w.to.map[70000], 0);
	run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
	both_free(&w);
}

/* Nobody receives: the stream is not read, and then it ends. Others go on meanwhile. */
static void test_no_receive(void **state)
{
	static struct posted sent, written;
	struct both w;

	both_new(&w, NULL);
	send_from_a(&w, 0, 100 * KIB, &sent);
	connect_pd(&w.pair, STREAM + 1);
	written = transfer(&w.pair, STREAM + 1, NIC_WRITE, &(struct entry){w.a->local_token, w.b->remote_token, IOVA_A, IOVA_B, 1}, 1);
	assert_int_equal(written.error.reason, NICD_R_NONE);
	/* mutation: no timer */
	ends(&w, &sent, NICD_R_NO_RECEIVE);
	run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
	both_free(&w);
}

/* A receive in time: what waited arrives, and what came behind it. */
static void test_late_receive(void **state)
{
	const struct soft_engine_options patient = {.receive_wait_ms = 60000};
	static struct posted sent[20], received[20], written;
	struct both w;

	both_new(&w, &patient);
	for (unsigned i = 0; i < 20; i++)
		send_from_a(&w, i, 30000 + i, &sent[i]);
	post(&w.pair.a, STREAM, NIC_WRITE, &(struct entry){w.a->local_token, w.b->remote_token, IOVA_A, IOVA_B + 512 * KIB, 9}, 1,
	     &written);
	run_ms(&w.pair.loop, 50);
	/* mutation: read on */
	assert_false(sent[0].done || written.done);
	for (unsigned i = 0; i < 20; i++) {
		receive_at_b(&w, 0, 40000, &received[i]);
		ends(&w, &received[i], NICD_R_NONE);
		assert_int_equal(received[i].completion.bytes, 30000 + i);
		assert_memory_equal(w.to.map, w.from.map + i, 30000 + i);
	}
	ends(&w, &sent[19], NICD_R_NONE);
	ends(&w, &written, NICD_R_NONE);
	both_free(&w);
}

/* Many receives at once look at what is kept once: each look copies all of it, and would be in everybody's way. */
static void test_late_receives(void **state)
{
	const struct soft_engine_options patient = {.receive_wait_ms = 60000};
	static struct posted sent[NICD_QP_RECEIVES], received[NICD_QP_RECEIVES];
	struct both w;

	both_new(&w, &patient);
	memset(w.to.map, 'z', SIZE);
	for (unsigned i = 0; i < NICD_QP_RECEIVES; i++)
		send_from_a(&w, i, 10, &sent[i]);
	run_ms(&w.pair.loop, 50);
	for (unsigned i = 0; i < NICD_QP_RECEIVES; i++) {
		receive_at_b(&w, 10 * i, 10, &received[i]);
		/* mutation: look at what is kept with each receive */
		assert_int_equal(w.to.map[10 * i], 'z');
	}
	for (unsigned i = 0; i < NICD_QP_RECEIVES; i++) {
		ends(&w, &received[i], NICD_R_NONE);
		assert_memory_equal(w.to.map + 10 * i, w.from.map + i, 10);
		ends(&w, &sent[i], NICD_R_NONE);
	}
	both_free(&w);
}

static void on_late(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* While it waits: the loop sleeps, tags go, flushes and disconnects work, and the peer's end of it too. */
static void test_stalled(void **state)
{
	const struct soft_engine_options patient = {.receive_wait_ms = 60000};
	static struct posted sent, other, back;
	struct both w;
	uint64_t turns = 0;
	uv_timer_t timer;
	bool late = false;

	both_new(&w, &patient);
	send_from_a(&w, 0, 300 * KIB, &sent);
	run_ms(&w.pair.loop, 50);
	uv_timer_init(&w.pair.loop, &timer);
	timer.data = &late;
	uv_timer_start(&timer, on_late, 200, 0);
	for (; !late; turns++)
		uv_run(&w.pair.loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&w.pair.loop, UV_RUN_NOWAIT);
	/* mutation: poll for input all the same (a turn for each look) */
	assert_true(turns < 1000);
	assert_int_equal(soft_tag_drop(w.pair.b.tags, w.b->serial, w.b->generation), 0);
	soft_flush(w.pair.b.engine, w.pair.b.stream);
	assert_false(sent.done);
	/* It can still send. */
	post_receive(&w.pair.a, STREAM, w.a, IOVA_A, 10, &other);
	post_send(&w.pair.b, w.pair.b.stream, w.readable, IOVA_B, 10, false, 0, &back);
	ends(&w, &other, NICD_R_NONE);
	assert_true(soft_disconnect(w.pair.b.engine, w.pair.b.stream));
	ends(&w, &sent, NICD_R_QP_LOST);
	ends(&w, &back, NICD_R_FLUSHED);
	both_free(&w);
}

/* ---- the end of receives */

static void test_receives_end(void **state)
{
	static struct posted first, second;
	struct both w;

	both_new(&w, NULL);
	receive_at_b(&w, 0, 10, &first);
	receive_at_b(&w, 0, 10, &second);
	soft_flush(w.pair.b.engine, w.pair.b.stream);
	/* mutation: flush only what is sent */
	assert_true(first.done && second.done);
	assert_int_equal(first.error.reason, NICD_R_FLUSHED);
	assert_int_equal(second.error.reason, NICD_R_FLUSHED);
	/* The stream goes on. */
	receive_at_b(&w, 0, 10, &first);
	send_from_a(&w, 0, 10, &second);
	ends(&w, &first, NICD_R_NONE);
	ends(&w, &second, NICD_R_NONE);
	receive_at_b(&w, 0, 10, &first);
	assert_true(soft_disconnect(w.pair.b.engine, w.pair.b.stream));
	/* mutation: forget them when the stream goes */
	assert_int_equal(first.error.reason, NICD_R_FLUSHED);
	run_until_at_least(&w.pair.loop, &w.pair.a.closed, 1);
	connect_pd(&w.pair, STREAM);
	receive_at_b(&w, 0, 10, &first);
	soft_disconnect(w.pair.a.engine, STREAM);
	ends(&w, &first, NICD_R_PEER_CLOSED);
	both_free(&w);
}

/* The memory of a posted receive goes: it fails alone, the next one is filled, and nobody was cut. */
static void test_revoked(void **state)
{
	static struct posted first, second, sent;
	struct soft_tag *other;
	struct both w;

	both_new(&w, NULL);
	other = tag_new(&w.pair.b, &w.to, PD, 0, NIC_LOCAL_WRITE, IOVA_B);
	receive_at_b(&w, 0, 10, &first);
	post_receive(&w.pair.b, w.pair.b.stream, other, IOVA_B + 100, 10, &second);
	/* mutation: no soft_use for what is posted (the next message is placed into memory of nobody) */
	assert_int_equal(soft_tag_drop(w.pair.b.tags, w.b->serial, w.b->generation), 0);
	ends(&w, &first, NICD_R_LOCAL_GONE);
	memset(w.to.map, 'z', 200);
	send_from_a(&w, 0, 10, &sent);
	ends(&w, &second, NICD_R_NONE);
	ends(&w, &sent, NICD_R_NONE);
	assert_int_equal(w.to.map[0], 'z');
	assert_memory_equal(w.to.map + 100, w.from.map, 10);
	assert_int_equal(w.pair.b.closed, 0);
	both_free(&w);
}

/* ---- against bytes */

struct world {
	uv_loop_t loop;
	struct host host;
	struct mem mem;
	struct soft_tag *tag, *invalidatable;
	struct raw raw;
};

static struct soft_tag *invalidatable_new(struct world *w, uint64_t door)
{
	return tag_new(&w->host, &w->mem, PD, door, NIC_REMOTE_READ | NIC_REMOTE_WRITE | NIC_INVALIDATABLE, IOVA_B);
}

static void world_new(struct world *w, const struct soft_engine_options *options)
{
	assert_int_equal(uv_loop_init(&w->loop), 0);
	host_new(&w->host, &w->loop, options);
	w->mem = mem_new(&w->host, SIZE);
	memset(w->mem.map, 'a', SIZE);
	w->tag = tag_new(&w->host, &w->mem, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA_B);
	w->invalidatable = invalidatable_new(w, 0);
	ticket_new(&w->host, ticket, PD, 0, 100, 60000);
	raw_open(&w->raw, &w->host, ticket);
}

static void world_free(struct world *w)
{
	raw_close(&w->raw);
	host_free(&w->host);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	mem_free(&w->mem);
}

static struct rdmap_header send_header(uint32_t msn, uint32_t mo, bool last)
{
	return (struct rdmap_header){.opcode = RDMAP_SEND, .queue = QUEUE_SEND, .msn = msn, .mo = mo, .last = last};
}

static void receive(struct world *w, struct posted *posted)
{
	post_receive(&w->host, w->host.stream, w->tag, IOVA_B, 100, posted);
	assert_false(posted->done);
}

/* A first segment that is right, and a second frame that is not. `mo` 8 is what is expected. */
static void test_hostile(void **state)
{
	static const struct {
		bool alone;               /* there is no first segment */
		struct rdmap_header second;
		uint32_t size;
		enum rdmap_code code;
	} rows[] = {
		/* mutation: any MSN */
		{true, {.opcode = RDMAP_SEND, .msn = 2, .last = true}, 8, DDP_E_MSN},
		{true, {.opcode = RDMAP_SEND, .msn = 0, .last = true}, 8, DDP_E_MSN},
		{true, {.opcode = RDMAP_SEND_SOLICITED, .msn = 2, .last = true}, 0, DDP_E_MSN},
		/* mutation: any MO */
		{true, {.opcode = RDMAP_SEND, .msn = 1, .mo = 8, .last = true}, 8, DDP_E_MO},
		{true, {.opcode = RDMAP_SEND, .msn = 1, .mo = UINT32_MAX, .last = true}, 8, DDP_E_MO},
		{true, {.opcode = RDMAP_SEND, .msn = 1, .last = false}, 0, DDP_E_CATASTROPHIC},
		{true, {.opcode = RDMAP_SEND, .msn = 1, .last = true}, 101, DDP_E_TOO_LONG},
		{false, {.opcode = RDMAP_SEND, .msn = 1, .mo = 7, .last = true}, 8, DDP_E_MO},
		{false, {.opcode = RDMAP_SEND, .msn = 1, .mo = 9, .last = true}, 8, DDP_E_MO},
		{false, {.opcode = RDMAP_SEND, .msn = 1, .mo = 0, .last = true}, 8, DDP_E_MO},
		{false, {.opcode = RDMAP_SEND, .msn = 2, .mo = 8, .last = true}, 8, DDP_E_MSN},
		/* mutation: let the message end as another one */
		{false, {.opcode = RDMAP_SEND_SOLICITED, .msn = 1, .mo = 8, .last = true}, 8, RDMAP_E_OPCODE},
		{false, {.opcode = RDMAP_SEND_INVALIDATE, .msn = 1, .mo = 8, .last = true}, 8, RDMAP_E_OPCODE},
		{false, {.opcode = RDMAP_SEND_SOLICITED, .msn = 2, .last = true}, 0, RDMAP_E_OPCODE},
		/* mutation: let a write come in between */
		{false, {.opcode = RDMAP_WRITE, .tagged = true, .last = true}, 8, RDMAP_E_OPCODE},
		{false, {.opcode = RDMAP_READ_REQUEST, .queue = QUEUE_READ, .msn = 1, .last = true}, 28, RDMAP_E_OPCODE},
		{false, {.opcode = RDMAP_SEND, .msn = 1, .mo = 8, .last = false}, 0, DDP_E_CATASTROPHIC},
		{false, {.opcode = RDMAP_SEND, .msn = 1, .mo = 8, .last = true}, 93, DDP_E_TOO_LONG},
		/* mutation: another token in the second half */
		{false, {.opcode = RDMAP_SEND, .msn = 1, .mo = 8, .last = true, .stag = 7}, 8, RDMAP_E_STAG},
	};
	static const uint8_t payload[128];
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct rdmap_header first = send_header(1, 0, false);
		struct rdmap_header second = rows[i].second;

		raw_close(&w.raw);
		raw_open(&w.raw, &w.host, ticket);
		receive(&w, &received);
		if (!rows[i].alone)
			raw_fpdu(&w.raw, &first, payload, 8);
		if (second.tagged) {
			second.stag = w.tag->remote_token;
			second.to = IOVA_B;
		}
		raw_fpdu(&w.raw, &second, payload, rows[i].size);
		raw_expect_terminate(&w.raw, rows[i].code);
		run_until(&w.loop, &received.done);
		assert_int_not_equal(received.error.reason, NICD_R_NONE);
		assert_int_equal(received.completion.bytes, 0);
	}
	world_free(&w);
}

/* A message amid a write. */
static void test_amid_write(void **state)
{
	const struct rdmap_header h = send_header(1, 0, true);
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	receive(&w, &received);
	raw_write(&w.raw, w.tag->remote_token, IOVA_B, false, "half", 4);
	raw_fpdu(&w.raw, &h, "x", 1);
	raw_expect_terminate(&w.raw, RDMAP_E_OPCODE);
	world_free(&w);
}

/* One byte at a time, the header too. */
static void test_bytewise(void **state)
{
	const struct rdmap_header h = send_header(1, 0, true);
	uint8_t buf[FPDU_LENGTH_SIZE + DDP_UNTAGGED_SIZE + 10 + FPDU_TAIL_MAX] = {0};
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	receive(&w, &received);
	put_be16(buf, DDP_UNTAGGED_SIZE + 10);
	rdmap_encode(buf + 2, &h);
	memcpy(buf + 20, "0123456789", 10);
	for (size_t i = 0; i < fpdu_size(DDP_UNTAGGED_SIZE + 10); i++) {
		raw_send(&w.raw, buf + i, 1);
		run_ms(&w.loop, 1);
	}
	run_until(&w.loop, &received.done);
	assert_int_equal(received.completion.bytes, 10);
	assert_memory_equal(w.mem.map, "0123456789a", 11);
	world_free(&w);
}

/* A part of the payload is there when the buffer goes. */
static void half_filled(bool segments)
{
	const struct rdmap_header h = send_header(1, 0, !segments), rest = send_header(1, 50, true);
	uint8_t buf[FPDU_LENGTH_SIZE + DDP_UNTAGGED_SIZE + 100 + FPDU_TAIL_MAX] = {0};
	struct posted received, other;
	struct world w;

	world_new(&w, NULL);
	receive(&w, &received);
	receive(&w, &other);
	memset(buf + 20, 'b', 50);
	put_be16(buf, DDP_UNTAGGED_SIZE + (segments ? 50 : 100));
	rdmap_encode(buf + 2, &h);
	raw_send(&w.raw, buf, segments ? fpdu_size(DDP_UNTAGGED_SIZE + 50) : 20 + 50);
	run_ms(&w.loop, 10);
	assert_int_equal(w.mem.map[49], 'b');
	/* mutation: a receive that is under way counts as one that waits */
	assert_true(soft_tag_drop(w.host.tags, w.tag->serial, w.tag->generation) >= 1);
	memset(w.mem.map, 'z', 200);
	run_until(&w.loop, &received.done);
	assert_int_equal(received.error.reason, NICD_R_LOCAL_GONE);
	run_until(&w.loop, &other.done);
	if (segments)
		raw_fpdu(&w.raw, &rest, buf + 20, 50);
	else
		raw_send(&w.raw, buf + 70, 50);
	raw_expect_terminate(&w.raw, DDP_E_CATASTROPHIC);
	/* mutation: place what comes after the drop */
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(w.mem.map[i], 'z');
	world_free(&w);
}

static void test_half_filled(void **state)
{
	half_filled(false);
	half_filled(true);
}

/* Flushed while it is half filled: the stream ends, for the rest has no place. */
static void test_flush_half(void **state)
{
	const struct rdmap_header h = send_header(1, 0, false);
	uint8_t byte;
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	receive(&w, &received);
	raw_fpdu(&w.raw, &h, "half", 4);
	run_ms(&w.loop, 10);
	soft_flush(w.host.engine, w.host.stream);
	assert_int_equal(received.error.reason, NICD_R_FLUSHED);
	/* mutation: the next receive is filled from the middle of this message */
	assert_int_equal(raw_drain(&w.raw, &byte, 1, 3000), 0);
	world_free(&w);
}

/* A peer that sends much and is never received from keeps a bounded amount here, and one PD does not take all of it. */
static void test_stall_bounded(void **state)
{
	const struct soft_engine_options patient = {.receive_wait_ms = 60000};
	enum { PEERS = 90, EACH = 250 * KIB };
	static struct raw raws[PEERS];
	const struct rdmap_header h = send_header(1, 0, true);
	static uint8_t bytes[EACH];
	unsigned open = 0;
	struct world w;

	world_new(&w, &patient);
	for (unsigned i = 0; i < PEERS; i++) {
		raw_open(&raws[i], &w.host, ticket);
		put_be16(bytes, DDP_UNTAGGED_SIZE + 1000);
		rdmap_encode(bytes + 2, &h);
		/* In one piece, so that it is read as one. */
		send(raws[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		run_ms(&w.loop, 5);
	}
	run_ms(&w.loop, 50);
	for (unsigned i = 0; i < PEERS; i++) {
		uint8_t byte;

		open += recv(raws[i].fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0;
		raw_close(&raws[i]);
	}
	/* mutation: no bound */
	assert_in_range(open, 1, PEERS - 1);
	world_free(&w);
}

/* ---- notices */

static void notice(struct world *w, uint32_t msn)
{
	const struct rdmap_header h = {.opcode = RDMAP_SEND_SOLICITED, .queue = QUEUE_SEND, .msn = msn, .last = true};

	raw_fpdu(&w->raw, &h, NULL, 0);
}

static void test_notice(void **state)
{
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	raw_write(&w.raw, w.tag->remote_token, IOVA_B, true, "data", 4);
	notice(&w, 1);
	run_ms(&w.loop, 20);
	assert_int_equal(soft_engine_notices(w.host.engine, 10), 1);
	assert_int_equal(w.host.notified, 1);
	assert_int_equal(w.host.notifier, w.host.stream);
	assert_memory_equal(w.mem.map, "dataa", 5);
	assert_int_equal(soft_engine_notices(w.host.engine, 10), 0);
	/* They pile up in a number, not in a queue; and they take no receive. */
	receive(&w, &received);
	for (uint32_t i = 2; i <= 1001; i++)
		notice(&w, i);
	run_ms(&w.loop, 50);
	assert_int_equal(soft_engine_notices(w.host.engine, 10), 1);
	/* mutation: tell of each one */
	assert_int_equal(w.host.notices, 2);
	assert_int_equal(w.host.notified, 1001);
	/* mutation: let one fill a receive */
	assert_false(received.done);
	/* What was not told when the peer went is told before that. */
	notice(&w, 1002);
	shutdown(w.raw.fd, SHUT_WR);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	/* mutation: forget it with the stream */
	assert_int_equal(w.host.notified, 1002);
	world_free(&w);
}

/* By our own initiator, behind a list of writes; its completion says that the peer has been told. */
static void test_write_notify(void **state)
{
	uint8_t entries[3 * NICD_TRANSFER_ENTRY_SIZE] = {0};
	struct soft_post what = {.operation = NIC_WRITE, .notify = true, .entries = entries, .n_entries = 3};
	struct posted posted = {0}, received;
	struct both w;

	both_new(&w, NULL);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *p = entries + i * NICD_TRANSFER_ENTRY_SIZE;

		put_le32(p, w.a->local_token);
		put_le32(p + 4, w.b->remote_token);
		put_le64(p + 8, IOVA_A);
		put_le64(p + 16, IOVA_B + i * 100000);
		put_le32(p + 24, 100000);
	}
	receive_at_b(&w, 0, 5, &received);
	soft_post(w.pair.a.engine, STREAM, &what, on_posted, &posted);
	ends(&w, &posted, NICD_R_NONE);
	assert_int_equal(posted.completion.entries, 3);
	/* mutation: put the notice behind the read that confirms */
	assert_int_equal(soft_engine_notices(w.pair.b.engine, 10), 1);
	assert_int_equal(w.pair.b.notified, 1);
	assert_memory_equal(w.to.map + 200000, w.from.map, 100000);
	assert_false(received.done);
	/* The next message has the next number. */
	send_from_a(&w, 0, 5, &posted);
	ends(&w, &posted, NICD_R_NONE);
	assert_true(received.done);
	/* Nobody is told of what failed before. */
	put_le32(entries + 2 * NICD_TRANSFER_ENTRY_SIZE, 1);
	posted = (struct posted){0};
	soft_post(w.pair.a.engine, STREAM, &what, on_posted, &posted);
	ends(&w, &posted, NICD_R_LOCAL_TOKEN);
	assert_int_equal(posted.completion.entries, 2);
	run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
	/* mutation: notify all the same */
	assert_int_equal(w.pair.b.notified, 1);
	both_free(&w);
}

/* ---- invalidation */

static void invalidate(struct world *w, uint32_t msn, uint32_t token)
{
	const struct rdmap_header h = {
		.opcode = RDMAP_SEND_SOLICITED_INVALIDATE, .queue = QUEUE_SEND, .msn = msn, .last = true, .stag = token,
	};

	raw_fpdu(&w->raw, &h, "done", 4);
}

static void test_invalidate(void **state)
{
	uint64_t serial;
	uint32_t token;
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	serial = w.invalidatable->serial;
	token = w.invalidatable->remote_token;
	receive(&w, &received);
	raw_write(&w.raw, token, IOVA_B + 50, true, "last", 4);
	invalidate(&w, 1, token);
	run_until(&w.loop, &received.done);
	assert_int_equal(received.error.reason, NICD_R_NONE);
	assert_true(received.completion.invalidated && received.completion.solicited);
	assert_int_equal(received.completion.token, token);
	assert_int_equal(received.completion.bytes, 4);
	assert_memory_equal(w.mem.map + 50, "last", 4);
	/* mutation: only say that it is gone */
	assert_null(soft_tag_find(w.host.tags, serial));
	/* mutation: tell nobody */
	assert_int_equal(w.host.invalidated, 1);
	assert_int_equal(w.host.invalid, serial);
	/* Both of its tokens are void, and are not drawn again. */
	assert_true(soft_token_taken(w.host.tags, token));
	raw_write(&w.raw, token, IOVA_B, true, "late", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	world_free(&w);
}

/* Others that are in the middle of it are cut, as by any drop. */
static void test_invalidate_cuts(void **state)
{
	struct posted received, waiting;
	struct world w;

	world_new(&w, NULL);
	receive(&w, &received);
	post_receive(&w.host, w.host.stream, w.invalidatable, IOVA_B, 10, &waiting);
	invalidate(&w, 1, w.invalidatable->remote_token);
	run_until(&w.loop, &received.done);
	assert_int_equal(received.error.reason, NICD_R_NONE);
	run_until(&w.loop, &waiting.done);
	assert_int_equal(waiting.error.reason, NICD_R_LOCAL_GONE);
	world_free(&w);
}

/* What a peer must not invalidate: what is not marked, what it may not even use, what is not there, and local tokens. */
static void test_invalidate_refused(void **state)
{
	struct soft_tag *tags[4];
	struct posted received;
	struct world w;

	world_new(&w, NULL);
	tags[0] = w.tag;
	tags[1] = tag_new(&w.host, &w.mem, OTHER_PD, 0, NIC_REMOTE_READ | NIC_INVALIDATABLE, IOVA_B);
	tags[2] = invalidatable_new(&w, EXPORT);
	tags[3] = w.invalidatable;
	for (unsigned i = 0; i < 6; i++) {
		uint32_t token = i < 3 ? tags[i]->remote_token : i == 3 ? tags[3]->local_token : i == 4 ? tags[3]->remote_token ^ 1 : 0;
		struct rdmap_terminate t;

		raw_close(&w.raw);
		raw_open(&w.raw, &w.host, ticket);
		receive(&w, &received);
		invalidate(&w, 1, token);
		/* mutation: every tag may be invalidated; whatever its PD; whatever its door */
		t = raw_expect_terminate(&w.raw, RDMAP_E_INVALIDATE);
		assert_int_equal(t.header.stag, token);
		run_until(&w.loop, &received.done);
		assert_int_equal(received.error.reason, NICD_R_QP_LOST);
		assert_false(received.completion.invalidated);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_non_null(soft_tag_find(w.host.tags, tags[i]->serial));
	assert_int_equal(w.host.invalidated, 0);
	world_free(&w);
}

/* Out: towards a peer that has it, and what one says that has not. */
static void test_invalidate_out(void **state)
{
	struct posted sent, received;
	struct soft_tag *tag;
	uint64_t serial;
	struct both w;

	both_new(&w, NULL);
	tag = tag_new(&w.pair.b, &w.to, PD, 0, NIC_REMOTE_READ | NIC_INVALIDATABLE, IOVA_B);
	serial = tag->serial;
	receive_at_b(&w, 0, 10, &received);
	post_send(&w.pair.a, STREAM, w.a, IOVA_A, 4, false, tag->remote_token, &sent);
	ends(&w, &sent, NICD_R_NONE);
	ends(&w, &received, NICD_R_NONE);
	assert_true(received.completion.invalidated && !received.completion.solicited);
	assert_null(soft_tag_find(w.pair.b.tags, serial));
	receive_at_b(&w, 0, 10, &received);
	post_send(&w.pair.a, STREAM, w.a, IOVA_A, 4, true, w.b->remote_token, &sent);
	ends(&w, &sent, NICD_R_REMOTE_INVALIDATE);
	both_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_back),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_post_refused),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_no_receive),
		cmocka_unit_test(test_late_receive),
		cmocka_unit_test(test_late_receives),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_receives_end),
		cmocka_unit_test(test_revoked),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_amid_write),
		cmocka_unit_test(test_bytewise),
		cmocka_unit_test(test_half_filled),
		cmocka_unit_test(test_flush_half),
		cmocka_unit_test(test_stall_bounded),
		cmocka_unit_test(test_notice),
		cmocka_unit_test(test_write_notify),
		cmocka_unit_test(test_invalidate),
		cmocka_unit_test(test_invalidate_cuts),
		cmocka_unit_test(test_invalidate_refused),
		cmocka_unit_test(test_invalidate_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
