/* SPDX-License-Identifier: MIT */
/* The initiator against a responder of plain bytes: what it says, and what it takes for an answer. */
#include <string.h>
#include <sys/socket.h>

#include "raw.h"

#include "nicd/soft/bytes.h"

enum { IOVA = 0x7000000, SIZE = 1 << 20, THERE = 0x1000, NO_MESSAGE = 1, STAG = 0x0a0b0c0d };

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde";
static const struct mpa_frame good_reply = {.reply = true, .revision = 2, .enhanced = true, .ird = 4, .ord = 4};

struct world {
	uv_loop_t loop;
	struct host host;
	struct mem mem;
	struct soft_tag *tag;
	struct raw listener, raw;
	struct soft_connect_terms terms;
	struct connected connected;
};

static void world_new(struct world *w, const struct soft_engine_options *options)
{
	assert_int_equal(uv_loop_init(&w->loop), 0);
	host_new(&w->host, &w->loop, options);
	w->mem = mem_new(&w->host, SIZE);
	fill(w->mem.map, SIZE, 3);
	w->tag = tag_new(&w->host, &w->mem, PD, 0, NIC_LOCAL_WRITE | NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	w->terms = (struct soft_connect_terms){.pd = PD, .timeout_ms = 2000};
	w->listener = raw_listen(&w->loop, &w->terms.addr);
	memcpy(w->terms.ticket, ticket, sizeof(ticket));
}

static void world_free(struct world *w)
{
	raw_close(&w->raw);
	raw_close(&w->listener);
	host_free(&w->host);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	mem_free(&w->mem);
}

/* Lets the engine connect, and takes its request. */
static struct mpa_frame take_request(struct world *w, uint8_t buf[MPA_FRAME_MAX])
{
	struct mpa_frame f;
	size_t used;

	w->terms.stream++;
	w->connected = (struct connected){0};
	soft_connect(w->host.engine, &w->terms, on_connected, &w->connected);
	w->raw = raw_accept(&w->listener);
	raw_recv(&w->raw, buf, MPA_FRAME_HEADER);
	raw_recv(&w->raw, buf + MPA_FRAME_HEADER, get_be16(buf + 18));
	assert_int_equal(mpa_decode(buf, MPA_FRAME_MAX, false, &f, &used), MPA_DONE);
	return f;
}

static void respond(struct world *w, uint32_t stag, uint64_t to, bool last, const void *payload, size_t len)
{
	const struct rdmap_header h = {.tagged = true, .last = last, .opcode = RDMAP_READ_RESPONSE, .stag = stag, .to = to};

	raw_fpdu(&w->raw, &h, payload, len);
}

/* The first frame: an empty read. */
static struct rdmap_read take_first(struct world *w)
{
	static uint8_t buf[FPDU_MAX];
	struct rdmap_header h;
	struct rdmap_read read;

	assert_int_equal(raw_frame(&w->raw, &h, buf), RDMAP_READ_SIZE);
	assert_int_equal(h.opcode, RDMAP_READ_REQUEST);
	assert_int_equal(h.msn, 1);
	rdmap_read_decode(buf, &read);
	assert_int_equal(read.size, 0);
	return read;
}

/* All the way to an open stream. */
static void open_stream(struct world *w)
{
	uint8_t buf[MPA_FRAME_MAX];

	take_request(w, buf);
	raw_request(&w->raw, &good_reply, NULL);
	respond(w, take_first(w).sink_stag, 0, true, NULL, 0);
	run_until(&w->loop, &w->connected.done);
	assert_int_equal(w->connected.error.reason, NICD_R_NONE);
}

static void terminate(struct world *w, const struct rdmap_terminate *t)
{
	const struct rdmap_header h = {.last = true, .opcode = RDMAP_TERMINATE, .queue = QUEUE_TERMINATE, .msn = 1};
	uint8_t buf[RDMAP_TERMINATE_MAX];
	size_t n = rdmap_terminate_encode(buf, t);

	raw_fpdu(&w->raw, &h, buf + DDP_UNTAGGED_SIZE, n - DDP_UNTAGGED_SIZE);
}

static void test_request(void **state)
{
	const struct soft_engine_options o = {.max_ird = 7, .max_ord = 9, .crc = true};
	uint8_t buf[MPA_FRAME_MAX], secret[NICD_TICKET_SIZE];
	struct rdmap_read read;
	struct mpa_frame f;
	struct world w;

	world_new(&w, &o);
	f = take_request(&w, buf);
	assert_int_equal(f.revision, 2);
	assert_true(f.enhanced && f.crc);
	assert_false(f.markers || f.reject);
	assert_int_equal(f.ird, 7);
	assert_int_equal(f.ord, 9);
	assert_true(peer_hello_decode(f.pd, f.pd_len, secret));
	assert_memory_equal(secret, ticket, sizeof(secret));
	assert_true(raw_is_silent(&w.raw, 10));
	raw_request(&w.raw, &good_reply, NULL);
	w.raw.crc = true;
	/* mutation: wait for the first work request before the first frame */
	read = take_first(&w);
	/* mutation: say connected when the reply has come, and nobody over there knows of it yet */
	assert_true(raw_is_silent(&w.raw, 10));
	assert_false(w.connected.done);
	respond(&w, read.sink_stag, 0, true, NULL, 0);
	run_until(&w.loop, &w.connected.done);
	assert_int_equal(w.connected.error.reason, NICD_R_NONE);
	world_free(&w);
}

/* Instead of the answer to the first frame. */
static void test_unconfirmed(void **state)
{
	const struct rdmap_terminate t = {.code = DDP_E_STAG};
	uint8_t buf[MPA_FRAME_MAX];
	uint64_t start;
	struct world w;

	world_new(&w, NULL);
	w.terms.timeout_ms = 60;
	for (int i = 0; i < 5; i++) {
		start = uv_hrtime();
		take_request(&w, buf);
		raw_request(&w.raw, &good_reply, NULL);
		take_first(&w);
		if (i == 1)
			terminate(&w, &t);
		else if (i == 2)
			respond(&w, 1, 0, true, "evil", 4);
		else if (i == 3)
			raw_write(&w.raw, 1, 1, true, "evil", 4);
		if (i == 4)
			raw_close(&w.raw);
		run_until(&w.loop, &w.connected.done);
		assert_int_equal(w.connected.error.reason, NICD_R_CONNECT);
		assert_true(uv_hrtime() - start >= 55000000);
		raw_close(&w.raw);
	}
	assert_int_equal(w.host.closed, 0);
	world_free(&w);
}

static void test_replies(void **state)
{
	static const struct {
		struct mpa_frame reply;
		const char *behind;
		bool good;
	} rows[] = {
		{good_reply, NULL, true},
		{{.reply = true, .revision = 2, .enhanced = true, .ird = 4, .ord = 4, .crc = true}, NULL, true},
		/* mutation: take a refusal for an answer */
		{{.reply = true, .revision = 2, .enhanced = true, .ird = 4, .ord = 4, .reject = true}, NULL, false},
		{{.reply = true, .revision = 2, .enhanced = true, .ird = 4, .ord = 4, .markers = true}, NULL, false},
		{{.reply = true, .revision = 2}, NULL, false},
		{{.reply = true, .revision = 1}, NULL, false},
		/* No reads at all: nothing could ever be completed. */
		{{.reply = true, .revision = 2, .enhanced = true, .ird = 0, .ord = 4}, NULL, false},
		/* mutation: read on behind the reply */
		{good_reply, "first", false},
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4}, NULL, false},
	};
	uint8_t buf[MPA_FRAME_MAX + 8];
	struct world w;

	world_new(&w, NULL);
	w.terms.timeout_ms = 60;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t n;

		take_request(&w, buf);
		n = mpa_encode(buf, sizeof(buf), &rows[i].reply);
		if (rows[i].behind)
			memcpy(buf + n, rows[i].behind, 5);
		raw_send(&w.raw, buf, n + (rows[i].behind ? 5 : 0));
		w.raw.crc = rows[i].reply.crc;
		if (rows[i].good)
			respond(&w, take_first(&w).sink_stag, 0, true, NULL, 0);
		else
			assert_true(raw_drain(&w.raw, buf, sizeof(buf), 1000) <= 0);
		run_until(&w.loop, &w.connected.done);
		assert_int_equal(w.connected.error.reason, rows[i].good ? NICD_R_NONE : NICD_R_CONNECT);
		raw_close(&w.raw);
	}
	take_request(&w, buf);
	run_until(&w.loop, &w.connected.done);
	assert_int_equal(w.connected.error.reason, NICD_R_CONNECT);
	world_free(&w);
}

static struct entry entry_of(const struct world *w, uint64_t local, uint64_t remote, uint32_t length)
{
	return (struct entry){w->tag->local_token, STAG, IOVA + local, THERE + remote, length};
}

/* Posts one read and takes its request. */
static struct rdmap_read take_read(struct world *w, uint32_t length, struct posted *posted)
{
	const struct entry e = entry_of(w, 0, 0, length);
	static uint8_t buf[FPDU_MAX];
	struct rdmap_header h;
	struct rdmap_read read;

	post(&w->host, w->terms.stream, NIC_READ, &e, 1, posted);
	assert_int_equal(raw_frame(&w->raw, &h, buf), RDMAP_READ_SIZE);
	assert_int_equal(h.opcode, RDMAP_READ_REQUEST);
	rdmap_read_decode(buf, &read);
	return read;
}

/* What the request says, and the frames of a write to a responder that answers this. */
static void test_large_frames(void **state)
{
	static const struct {
		const char *answer;
		size_t len;
		bool large;
	} rows[] = {
		/* mutation: large frames for everybody */
		{"", 0, false},
		{"nicd\1\0\0\0", 8, false},
		{"nicd\1\0\0\0\0\0\0\0\0\0\0\1", 16, false},
		{"nicd\1\0\0\0caps\xff\0\0\xfe", 16, false},
		/* mutation: only behind a grant; only without one */
		{"nicd\1\0\0\0caps\0\0\0\1", 16, true},
		{"nicd\1\1\0\0\1\1\1\1\0\0\0\7\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1caps\0\0\0\1", 48, true},
		{"nicd\1\1\0\0\1\1\1\1\0\0\0\7\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1", 40, false},
	};
	const struct soft_engine_options o = {.fpdu = SOFT_FPDU_MSS};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct mpa_frame f, reply = good_reply;
		uint8_t buf[MPA_FRAME_MAX];
		struct posted p;
		struct entry e;
		size_t longest;
		struct world w;

		world_new(&w, &o);
		raw_far(&w.listener);
		f = take_request(&w, buf);
		/* mutation: say nothing, or more than there is */
		assert_int_equal(f.pd_len, 32);
		assert_memory_equal(f.pd + 24, "caps\0\0\0\1", 8);
		reply.pd = (const uint8_t *)rows[i].answer;
		reply.pd_len = rows[i].len;
		raw_request(&w.raw, &reply, NULL);
		respond(&w, take_first(&w).sink_stag, 0, true, NULL, 0);
		run_until(&w.loop, &w.connected.done);
		assert_int_equal(w.connected.error.reason, NICD_R_NONE);
		assert_int_equal(w.connected.result.has_grant, rows[i].len >= 40);
		e = entry_of(&w, 0, 0, SIZE);
		post(&w.host, w.terms.stream, NIC_WRITE, &e, 1, &p);
		longest = raw_longest(&w.raw, RDMAP_WRITE, SIZE);
		assert_in_range(longest, rows[i].large ? 60000 : 1000, rows[i].large ? FPDU_ULPDU_MAX : FAR_MSS);
		world_free(&w);
	}
}

static void test_sink_is_no_token(void **state)
{
	struct rdmap_read first, second;
	struct posted p, q;
	struct world w;

	world_new(&w, NULL);
	open_stream(&w);
	first = take_read(&w, 100, &p);
	second = take_read(&w, 200, &q);
	/* mutation: put the local token on the wire */
	assert_int_not_equal(first.sink_stag, w.tag->local_token);
	assert_int_not_equal(first.sink_stag, w.tag->remote_token);
	assert_int_not_equal(first.sink_stag, 0);
	assert_int_not_equal(first.sink_stag, second.sink_stag);
	/* mutation: put the local address on the wire */
	assert_int_equal(first.sink_to, 0);
	assert_int_equal(first.size, 100);
	assert_int_equal(first.source_stag, STAG);
	assert_int_equal(first.source_to, THERE);
	/* mutation: let writes into a read's sink */
	raw_write(&w.raw, first.sink_stag, first.sink_to, true, "evil", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	assert_true(p.done && q.done);
	assert_int_equal(p.error.reason, NICD_R_QP_LOST);
	world_free(&w);
}

/* The peer may not name the memory of whoever connects to it. */
static void test_nothing_is_exposed(void **state)
{
	const struct rdmap_read read = {.sink_stag = 1, .size = 8, .source_to = IOVA};
	struct rdmap_read mine = read;
	struct world w;

	world_new(&w, NULL);
	mine.source_stag = w.tag->remote_token;
	open_stream(&w);
	raw_read(&w.raw, 1, &mine);
	raw_expect_terminate(&w.raw, RDMAP_E_STAG);
	raw_close(&w.raw);
	open_stream(&w);
	raw_write(&w.raw, w.tag->remote_token, IOVA, true, "evil", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	raw_close(&w.raw);
	open_stream(&w);
	raw_write(&w.raw, w.tag->local_token, IOVA, true, "evil", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	world_free(&w);
}

static void test_responses(void **state)
{
	static const struct {
		uint32_t stag_off, to_off, n;
		bool last;
		enum rdmap_code code;    /* of the second segment; the first is 40 of 100 bytes */
	} rows[] = {
		{0, 0, 60, true, RDMAP_FINE},
		/* mutation: any STag */
		{1, 0, 60, true, DDP_E_STAG},
		/* mutation: any TO */
		{0, 1, 60, true, DDP_E_BOUNDS},
		{0, -1u, 60, true, DDP_E_BOUNDS},
		/* mutation: more than was asked for */
		{0, 0, 61, true, DDP_E_BOUNDS},
		{0, 0, 61, false, DDP_E_BOUNDS},
		/* mutation: less than was asked for */
		{0, 0, 59, true, DDP_E_BOUNDS},
		{0, 0, 60, false, DDP_E_BOUNDS},
	};
	uint8_t payload[128], after[8];
	struct posted p;
	struct world w;

	world_new(&w, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct rdmap_read read;

		fill(payload, sizeof(payload), i);
		open_stream(&w);
		memcpy(after, w.mem.map + 100, sizeof(after));
		read = take_read(&w, 100, &p);
		respond(&w, read.sink_stag, read.sink_to, false, payload, 40);
		respond(&w, read.sink_stag + rows[i].stag_off, read.sink_to + 40 + (int32_t)rows[i].to_off, rows[i].last,
			payload + 40, rows[i].n);
		if (rows[i].code == RDMAP_FINE) {
			run_until(&w.loop, &p.done);
			assert_int_equal(p.error.reason, NICD_R_NONE);
			assert_memory_equal(w.mem.map, payload, 100);
			/* The sink died with the read. mutation: keep it */
			respond(&w, read.sink_stag, read.sink_to, true, payload, 100);
			raw_expect_terminate(&w.raw, DDP_E_STAG);
		} else {
			raw_expect_terminate(&w.raw, rows[i].code);
			assert_true(p.done);
			assert_int_equal(p.error.reason, NICD_R_QP_LOST);
			assert_int_equal(p.completion.entries, 0);
		}
		assert_memory_equal(w.mem.map + 100, after, sizeof(after));
		raw_close(&w.raw);
	}
	world_free(&w);
}

/* A first segment that is not the beginning. */
static void test_wrong_start(void **state)
{
	struct rdmap_read read;
	struct posted p;
	struct world w;

	world_new(&w, NULL);
	open_stream(&w);
	read = take_read(&w, 100, &p);
	/* mutation: compare TO between segments only */
	respond(&w, read.sink_stag, read.sink_to + 1, false, "abcd", 4);
	raw_expect_terminate(&w.raw, DDP_E_BOUNDS);
	assert_true(p.done);
	world_free(&w);
}

/* Answers out of order are no answers. */
static void test_wrong_order(void **state)
{
	struct rdmap_read first, second;
	struct posted p, q;
	struct world w;

	world_new(&w, NULL);
	open_stream(&w);
	first = take_read(&w, 4, &p);
	second = take_read(&w, 4, &q);
	assert_int_not_equal(first.sink_stag, second.sink_stag);
	/* mutation: look for the sink among all reads */
	respond(&w, second.sink_stag, 0, true, "2222", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	world_free(&w);
}

/* Whose fault it is: by the copied header, else the first that is not confirmed. */
static void test_blame(void **state)
{
	static const struct {
		enum rdmap_code code;
		uint64_t to;             /* 0: no header; NO_MESSAGE: that of message 0, which was never sent */
		bool read;               /* a read list, its second request copied */
		enum nicd_reason reason;
		uint32_t failed;
		bool inexact;
	} rows[] = {
		{DDP_E_STAG, THERE + 100, false, NICD_R_REMOTE_TOKEN, 1, false},
		{DDP_E_BOUNDS, THERE + 205, false, NICD_R_REMOTE_RANGE, 2, false},
		/* No entry of ours is there. mutation: call it exact */
		{DDP_E_STAG, THERE + 5000, false, NICD_R_REMOTE_TOKEN, 0, true},
		{DDP_E_STAG, 0, false, NICD_R_REMOTE_TOKEN, 0, true},
		{RDMAP_E_RIGHTS, 0, true, NICD_R_REMOTE_RIGHTS, 1, false},
		{RDMAP_E_BOUNDS, 0, true, NICD_R_REMOTE_RANGE, 1, false},
		{MPA_E_CRC, 0, false, NICD_R_REMOTE_TERMINATE, 0, true},
		/* mutation: take work without a number for message 0 */
		{DDP_E_NO_BUFFER, NO_MESSAGE, false, NICD_R_NO_RECEIVE, 0, true},
	};
	static uint8_t buf[FPDU_MAX];
	struct world w;

	world_new(&w, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct entry list[3] = {entry_of(&w, 0, 0, 10), entry_of(&w, 0, 100, 10), entry_of(&w, 0, 200, 10)};
		struct rdmap_terminate t = {
			.code = rows[i].code, .has_header = rows[i].to, .ulpdu = 24,
			.header = {.tagged = true, .opcode = RDMAP_WRITE, .stag = STAG, .to = rows[i].to},
		};
		unsigned closed = w.host.closed;
		struct posted p, behind;
		struct rdmap_header h;

		if (rows[i].to == NO_MESSAGE)
			t.header = (struct rdmap_header){.opcode = RDMAP_SEND, .queue = QUEUE_SEND};
		open_stream(&w);
		post(&w.host, w.terms.stream, rows[i].read ? NIC_READ : NIC_WRITE, list, 3, &p);
		post(&w.host, w.terms.stream, NIC_WRITE, list, 1, &behind);
		for (int k = 0; k < 3; k++) {
			raw_frame(&w.raw, &h, buf);
			if (!rows[i].read || k != 1)
				continue;
			t.has_header = t.has_read = true;
			t.header = h;
			rdmap_read_decode(buf, &t.read);
		}
		terminate(&w, &t);
		run_until(&w.loop, &behind.done);
		assert_int_equal(p.error.reason, rows[i].reason);
		assert_int_equal(p.error.observed, rows[i].code);
		assert_int_equal(p.completion.failed, rows[i].failed);
		assert_int_equal(p.completion.inexact, rows[i].inexact);
		assert_int_equal(behind.error.reason, NICD_R_QP_LOST);
		run_until_at_least(&w.loop, &w.host.closed, closed + 1);
		assert_int_equal(w.host.why.reason, rows[i].reason);
		raw_close(&w.raw);
	}
	world_free(&w);
}

/* siw closes right behind its Terminate, and with input that it has not read: a reset follows. */
static void test_terminate_and_reset(void **state)
{
	const struct rdmap_terminate t = {.code = DDP_E_STAG};
	struct posted p;
	struct world w;

	world_new(&w, NULL);
	open_stream(&w);
	{
		const struct entry e = entry_of(&w, 0, 0, 10000);

		post(&w.host, w.terms.stream, NIC_WRITE, &e, 1, &p);
	}
	run_ms(&w.loop, 10);
	terminate(&w, &t);
	raw_close(&w.raw);
	run_until(&w.loop, &p.done);
	/* mutation: stop reading at the error */
	assert_int_equal(p.error.reason, NICD_R_REMOTE_TOKEN);
	world_free(&w);
}

/* A write that is half out when it is cancelled: nothing of the memory leaves any more. */
static void test_flush_amid_write(void **state)
{
	enum { HUGE_SIZE = 32 << 20 };
	static uint8_t got[HUGE_SIZE + SIZE];
	struct soft_tag *tag;
	struct posted p;
	struct mem mem;
	struct world w;
	ssize_t n = 0, r;

	world_new(&w, NULL);
	mem = mem_new(&w.host, HUGE_SIZE);
	memset(mem.map, 'a', HUGE_SIZE);
	tag = tag_new(&w.host, &mem, PD, 0, 0, IOVA);
	open_stream(&w);
	{
		const struct entry e = {tag->local_token, STAG, IOVA, THERE, HUGE_SIZE};

		post(&w.host, w.terms.stream, NIC_WRITE, &e, 1, &p);
	}
	run_ms(&w.loop, 30);
	assert_false(p.done);
	soft_flush(w.host.engine, w.terms.stream);
	assert_true(p.done);
	assert_int_equal(p.error.reason, NICD_R_FLUSHED);
	memset(mem.map, 'z', HUGE_SIZE);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	while ((r = recv(w.raw.fd, got + n, sizeof(got) - n, 0)) > 0)
		n += r;
	/* mutation: finish the frame */
	assert_null(memmem(got, n, "zzzzzzzz", 8));
	world_free(&w);
	mem_free(&mem);
}

/* Gone without a word, amid work. */
static void test_lost(void **state)
{
	struct posted p;
	struct world w;

	world_new(&w, NULL);
	open_stream(&w);
	take_read(&w, 100, &p);
	raw_close(&w.raw);
	run_until(&w.loop, &p.done);
	assert_int_equal(p.error.reason, NICD_R_QP_LOST);
	assert_true(p.completion.inexact);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	assert_int_equal(w.host.why.reason, NICD_R_QP_LOST);
	world_free(&w);
}

/* Four reads were granted. */
static void test_depth(void **state)
{
	static uint8_t buf[FPDU_MAX];
	struct entry list[10];
	uint32_t sinks[10];
	struct rdmap_read read;
	struct rdmap_header h;
	struct posted p;
	struct world w;

	world_new(&w, NULL);
	open_stream(&w);
	for (uint32_t i = 0; i < 10; i++)
		list[i] = entry_of(&w, 4 * i, 4 * i, 4);
	post(&w.host, w.terms.stream, NIC_READ, list, 10, &p);
	/* mutation: send them all at once */
	for (uint32_t sent = 0, answered = 0; answered < 10; answered++) {
		for (; sent < 10 && sent < answered + 4; sent++) {
			raw_frame(&w.raw, &h, buf);
			assert_int_equal(h.msn, sent + 2);
			rdmap_read_decode(buf, &read);
			assert_int_equal(read.source_to, THERE + 4 * sent);
			sinks[sent] = read.sink_stag;
		}
		assert_true(raw_is_silent(&w.raw, 5));
		assert_false(p.done);
		respond(&w, sinks[answered], 0, true, "abcd", 4);
	}
	run_until(&w.loop, &p.done);
	assert_int_equal(p.error.reason, NICD_R_NONE);
	assert_int_equal(p.completion.bytes, 40);
	world_free(&w);
}

/* Said again, while it connects and when it has: one connection, and the same answer for all. */
static void test_said_again(void **state)
{
	struct connected again = {0}, later = {0}, other = {0};
	uint8_t buf[MPA_FRAME_MAX];
	struct soft_engine_stats stats;
	struct world w;

	world_new(&w, NULL);
	take_request(&w, buf);
	soft_connect(w.host.engine, &w.terms, on_connected, &again);
	/* mutation: refuse, or answer before it is known */
	assert_false(again.done);
	raw_send(&w.raw, buf, mpa_encode(buf, sizeof(buf), &good_reply));
	respond(&w, take_first(&w).sink_stag, 0, true, NULL, 0);
	run_until(&w.loop, &w.connected.done);
	run_until(&w.loop, &again.done);
	assert_int_equal(w.connected.error.reason, NICD_R_NONE);
	assert_int_equal(again.error.reason, NICD_R_NONE);
	soft_connect(w.host.engine, &w.terms, on_connected, &later);
	run_until(&w.loop, &later.done);
	/* mutation: another connection */
	assert_int_equal(later.error.reason, NICD_R_NONE);
	assert_string_equal(later.result.peer, w.connected.result.peer);
	soft_engine_stats(w.host.engine, &stats);
	assert_int_equal(stats.streams, 1);
	/* mutation: look at the number alone */
	w.terms.ticket[0] ^= 1;
	soft_connect(w.host.engine, &w.terms, on_connected, &other);
	assert_true(other.done);
	assert_int_equal(other.error.reason, NICD_R_DEVICE_BUSY);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_said_again),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_unconfirmed),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_large_frames),
		cmocka_unit_test(test_sink_is_no_token),
		cmocka_unit_test(test_nothing_is_exposed),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_wrong_start),
		cmocka_unit_test(test_wrong_order),
		cmocka_unit_test(test_blame),
		cmocka_unit_test(test_terminate_and_reset),
		cmocka_unit_test(test_flush_amid_write),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
