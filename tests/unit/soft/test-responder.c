/* SPDX-License-Identifier: MIT */
/* The responder against a peer of plain bytes: the handshake in all its forms, and frames that break a rule each. */
#include <string.h>
#include <sys/socket.h>

#include "raw.h"

#include "nicd/soft/bytes.h"

enum { IOVA = 0x7000000, SIZE = 1 << 20, STAG_NONE = 0 };

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde";
static const struct mpa_frame plain = {.revision = 2, .enhanced = true, .ird = 4, .ord = 4};

struct world {
	uv_loop_t loop;
	struct host host;
	struct mem mem;
	struct soft_tag *tag, *read_only;
	struct raw raw;
};

static void world_new(struct world *w, const struct soft_engine_options *options)
{
	assert_int_equal(uv_loop_init(&w->loop), 0);
	host_new(&w->host, &w->loop, options);
	w->mem = mem_new(&w->host, SIZE);
	fill(w->mem.map, SIZE, 3);
	w->tag = tag_new(&w->host, &w->mem, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	w->read_only = tag_new(&w->host, &w->mem, PD, 0, NIC_REMOTE_READ, IOVA);
	ticket_new(&w->host, ticket, PD, 0, 100, 60000);
}

static void world_free(struct world *w)
{
	raw_close(&w->raw);
	host_free(&w->host);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	mem_free(&w->mem);
}

static void half_open_is(struct world *w, uint64_t n)
{
	struct soft_engine_stats stats;

	run_ms(&w->loop, 20);
	soft_engine_stats(w->host.engine, &stats);
	assert_int_equal(stats.half_open, n);
}

/* ---- handshake */

/* What is asked, and what must be answered. */
static void test_handshakes(void **state)
{
	static const struct {
		struct mpa_frame request;
		bool named;              /* with a ticket */
		uint16_t flags;          /* of the reply, with the revision */
		uint16_t ird, ord;       /* with the bits */
	} rows[] = {
		{{.revision = 1}, true, 0x0001, 0, 0},
		{{.revision = 2}, true, 0x0002, 0, 0},
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4}, true, 0x1002, 4, 4},
		/* mutation: answer IRD with IRD */
		{{.revision = 2, .enhanced = true, .ird = 1, .ord = 5}, true, 0x1002, 5, 1},
		/* mutation: grant what is asked for, without min */
		{{.revision = 2, .enhanced = true, .ird = 128, .ord = 9000}, true, 0x1002, 64, 64},
		{{.revision = 2, .enhanced = true, .ird = MPA_NOT_NEGOTIATED, .ord = MPA_NOT_NEGOTIATED}, true, 0x1002, 64, 64},
		{{.revision = 2, .enhanced = true, .ird = 1, .ord = 0}, true, 0x1002, 0, 1},
		/* mutation: forget the C bit in the reply */
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .crc = true}, true, 0x5002, 4, 4},
		/* mutation: do not echo A */
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .peer_to_peer = true, .rtr_write = true}, true,
		 0x1002, 0x8004, 0x8004},
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .peer_to_peer = true, .rtr_read = true}, true,
		 0x1002, 0x8004, 0x4004},
		/* mutation: echo all bits in place of one */
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .peer_to_peer = true, .rtr_read = true, .rtr_write = true,
		  .rtr_send = true}, true, 0x1002, 0x8004, 0x8004},
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .peer_to_peer = true, .rtr_send = true}, true,
		 0x1002, 0xc004, 0x0004},
		/* mutation: admit whoever says nothing */
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4}, false, 0x3002, 0, 0},
		{{.revision = 1}, false, 0x2001, 0, 0},
		/* mutation: promise markers that are never sent */
		{{.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .markers = true}, true, 0x3002, 0, 0},
	};
	struct world w;

	world_new(&w, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t buf[MPA_FRAME_MAX];
		struct mpa_frame reply;

		w.raw = raw_connect(&w.host);
		raw_request(&w.raw, &rows[i].request, rows[i].named ? ticket : NULL);
		reply = raw_reply(&w.raw, buf);
		assert_int_equal(get_be16(buf + 16), rows[i].flags);
		if (reply.enhanced) {
			assert_int_equal(get_be16(buf + 20), rows[i].ird);
			assert_int_equal(get_be16(buf + 22), rows[i].ord);
		}
		if (reply.reject) {
			assert_int_equal(raw_drain(&w.raw, buf, 1, 1000), 0);
		} else {
			/* mutation: send something before the initiator has */
			assert_true(raw_is_silent(&w.raw, 10));
		}
		assert_int_equal(w.host.opened, 0);
		raw_close(&w.raw);
		run_ms(&w.loop, 5);
	}
	half_open_is(&w, 0);
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

/* Frames as long as the path's segments to a stranger; longer ones to who says that it takes them, and is told so. */
static void test_large_frames(void **state)
{
	static const struct {
		const char *behind;      /* the hello */
		size_t len;
		const char *answer;
		size_t answer_len;
		uint32_t fpdu;
		size_t least, most;      /* the longest payload */
	} rows[] = {
		/* mutation: large frames for everybody */
		{"", 0, "", 0, SOFT_FPDU_MSS, 1000, FAR_MSS},
		/* mutation: take what rdma_cm pads with for a capability */
		{"\0\0\0\0\0\0\0\1", 8, "", 0, SOFT_FPDU_MSS, 1000, FAR_MSS},
		{"caps\0\0\0\0", 8, "", 0, SOFT_FPDU_MSS, 1000, FAR_MSS},
		/* mutation: any bit means large frames; say a bit again that is unknown here */
		{"caps\x80\0\0\2", 8, "", 0, SOFT_FPDU_MSS, 1000, FAR_MSS},
		/* mutation: answer, and send as before; measure the path again later */
		{"caps\0\0\0\1", 8, "nicd\1\0\0\0caps\0\0\0\1", 16, SOFT_FPDU_MSS, 60000, FPDU_ULPDU_MAX},
		{"caps\x80\0\0\3and more", 16, "nicd\1\0\0\0caps\0\0\0\1", 16, SOFT_FPDU_MSS, 60000, FPDU_ULPDU_MAX},
		/* mutation: longer frames than were asked for on the command line */
		{"caps\0\0\0\1", 8, "nicd\1\0\0\0caps\0\0\0\1", 16, 512, 400, 512},
		{"", 0, "", 0, 0, 60000, FPDU_ULPDU_MAX},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct soft_engine_options o = {.fpdu = rows[i].fpdu};
		struct rdmap_read read = {.sink_stag = 5, .size = SIZE, .source_to = IOVA};
		uint8_t buf[MPA_FRAME_MAX], pd[64];
		struct mpa_frame request = plain, reply;
		struct world w;

		world_new(&w, &o);
		read.source_stag = w.tag->remote_token;
		w.raw = raw_connect_far(&w.host);
		peer_hello_encode(pd, ticket);
		memcpy(pd + PEER_HELLO_SIZE, rows[i].behind, rows[i].len);
		request.pd = pd;
		request.pd_len = PEER_HELLO_SIZE + rows[i].len;
		raw_request(&w.raw, &request, NULL);
		reply = raw_reply(&w.raw, buf);
		assert_false(reply.reject);
		assert_int_equal(reply.pd_len, rows[i].answer_len);
		assert_memory_equal(reply.pd, rows[i].answer, rows[i].answer_len);
		for (uint32_t msn = 1; msn <= 2; msn++) {
			size_t longest;

			raw_read(&w.raw, msn, &read);
			longest = raw_longest(&w.raw, RDMAP_READ_RESPONSE, SIZE);
			assert_in_range(longest, rows[i].least, rows[i].most);
		}
		world_free(&w);
	}
}

/* The engine's own wish for CRC is in every reply. */
static void test_crc_by_option(void **state)
{
	const struct soft_engine_options o = {.crc = true};
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, &o);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &plain, ticket);
	assert_true(raw_reply(&w.raw, buf).crc);
	world_free(&w);
}

/* Frames that are answered with nothing but the end. */
static void test_garbage(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} rows[] = {
		{"GET / HTTP/1.1\r\n\r\n", 18},
		{"MPA ID Rep Frame\x10\x02\0\x04\0\4\0\4", 24},
		/* mutation: believe any PD_Length */
		{"MPA ID Req Frame\x10\x02\x02\x01\0\4\0\4", 24},
		{"MPA ID Req Frame\x10\x02\xff\xff\0\4\0\4", 24},
		{"MPA ID Req Frame\x10\x00\0\x04\0\4\0\4", 24},
		{"MPA ID Req Frame\x10\x03\0\x04\0\4\0\4", 24},
		/* mutation: take bytes behind the request as frames */
		{"MPA ID Req Frame\x10\x02\0\x04\0\4\0\4" "and more", 32},
	};
	uint8_t byte;
	struct world w;

	world_new(&w, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		w.raw = raw_connect(&w.host);
		raw_send(&w.raw, rows[i].bytes, rows[i].len);
		assert_true(raw_drain(&w.raw, &byte, 1, 1000) <= 0);
		raw_close(&w.raw);
	}
	half_open_is(&w, 0);
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

/* What siw sends when its user has too much private data: S set, PD_Length 0 to 3, rubbish behind. */
static void test_malformed_is_rejected(void **state)
{
	static const char request[] = "MPA ID Req Frame\x10\x02\0\x02" "rubbish of any length";
	uint8_t buf[MPA_FRAME_MAX];
	struct mpa_frame reply;
	struct world w;

	world_new(&w, NULL);
	w.raw = raw_connect(&w.host);
	raw_send(&w.raw, request, sizeof(request));
	reply = raw_reply(&w.raw, buf);
	/* mutation: treat it like garbage */
	assert_true(reply.reject && reply.enhanced);
	assert_int_equal(reply.revision, 2);
	world_free(&w);
}

static void test_half_a_request(void **state)
{
	const struct soft_engine_options o = {.handshake_timeout_ms = 60};
	uint64_t start = uv_hrtime();
	uint8_t byte;
	struct world w;

	world_new(&w, &o);
	w.raw = raw_connect(&w.host);
	raw_send(&w.raw, "MPA ID Req Frame\x10", 17);
	half_open_is(&w, 1);
	/* mutation: no handshake timer */
	assert_true(raw_drain(&w.raw, &byte, 1, 1000) <= 0);
	assert_true(uv_hrtime() - start >= 55000000);
	half_open_is(&w, 0);
	world_free(&w);
}

/* A peer that says nothing after the reply gives its use of the ticket back. */
static void test_silent_after_the_reply(void **state)
{
	const struct soft_engine_options o = {.handshake_timeout_ms = 60};
	const struct mpa_frame p2p = {
		.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .peer_to_peer = true, .rtr_write = true,
	};
	static const uint8_t once[NICD_TICKET_SIZE] = "once";
	struct soft_ticket *t;
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, &o);
	t = soft_ticket_find(w.host.tickets, ticket_new(&w.host, once, PD, 0, 1, 60000));
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &p2p, once);
	assert_false(raw_reply(&w.raw, buf).reject);
	assert_int_equal(t->reserved, 1);
	assert_int_equal(t->uses_left, 0);
	assert_true(raw_drain(&w.raw, buf, 1, 1000) <= 0);
	/* mutation: spend the ticket when the request comes */
	assert_int_equal(t->reserved, 0);
	assert_int_equal(t->uses_left, 1);
	assert_int_equal(w.host.opened, 0);
	raw_close(&w.raw);
	raw_open(&w.raw, &w.host, once);
	assert_int_equal(t->uses_left, 0);
	world_free(&w);
}

/* Who did not promise to speak at once has longer; a verbs program may have nothing to say for a while. */
static void test_silent_without_promise(void **state)
{
	const struct soft_engine_options o = {.handshake_timeout_ms = 20, .first_frame_timeout_ms = 240};
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, &o);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &plain, ticket);
	assert_false(raw_reply(&w.raw, buf).reject);
	/* mutation: one timeout for both */
	assert_true(raw_is_silent(&w.raw, 60));
	assert_true(raw_drain(&w.raw, buf, 1, 1000) <= 0);
	world_free(&w);
}

/* The first frame and the end in one turn: told in this order. */
static void test_opened_and_lost(void **state)
{
	const struct linger linger = {.l_onoff = 1};
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, NULL);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &plain, ticket);
	assert_false(raw_reply(&w.raw, buf).reject);
	raw_write(&w.raw, 1, 0, true, NULL, 0);
	setsockopt(w.raw.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	raw_close(&w.raw);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	/* mutation: let go of the ticket before opened is told (pair.c looks at it) */
	assert_int_equal(w.host.opened, 1);
	assert_int_equal(w.host.why.reason, NICD_R_QP_LOST);
	world_free(&w);
}

/* Whoever has an answer may ask nicd about the stream. */
static void test_told_before_answered(void **state)
{
	const struct rdmap_read read = {.sink_stag = 5, .size = 100};
	static uint8_t buf[FPDU_MAX];
	struct rdmap_header h;
	struct rdmap_read r = read;
	struct world w;

	world_new(&w, NULL);
	r.source_stag = w.tag->remote_token;
	r.source_to = IOVA;
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &plain, ticket);
	assert_false(raw_reply(&w.raw, buf).reject);
	/* mutation: answer the first frame in the turn that reads it */
	w.host.watch = w.raw.fd;
	raw_read(&w.raw, 1, &r);
	assert_int_equal(raw_frame(&w.raw, &h, buf), 100);
	assert_int_equal(w.host.opened, 1);
	w.host.watch = 0;
	world_free(&w);
}

/* Garbage in place of the first frame is a handshake that died, too. */
static void test_bad_first_frame(void **state)
{
	static const uint8_t once[NICD_TICKET_SIZE] = "once";
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, NULL);
	ticket_new(&w.host, once, PD, 0, 1, 60000);
	for (int i = 0; i < 2; i++) {
		w.raw = raw_connect(&w.host);
		raw_request(&w.raw, &plain, once);
		assert_false(raw_reply(&w.raw, buf).reject);
		raw_send(&w.raw, "\0\x0e\xc2\x40 wrong version...", 20);
		assert_true(raw_drain(&w.raw, buf, 1, 1000) <= 0);
		raw_close(&w.raw);
	}
	assert_int_equal(w.host.opened, 0);
	raw_open(&w.raw, &w.host, once);
	world_free(&w);
}

static void test_half_open_cap(void **state)
{
	enum { CAP = 4 };
	const struct soft_engine_options o = {.max_half_open = CAP};
	struct raw idle[CAP + 2];
	uint8_t byte;
	struct world w;

	world_new(&w, &o);
	for (int i = 0; i < CAP + 2; i++)
		idle[i] = raw_connect(&w.host);
	/* mutation: accept without a cap */
	half_open_is(&w, CAP);
	/* mutation: keep the newest out */
	assert_true(raw_drain(&idle[0], &byte, 1, 1000) <= 0);
	assert_true(raw_drain(&idle[1], &byte, 1, 1000) <= 0);
	assert_true(raw_is_silent(&idle[CAP + 1], 5));
	raw_open(&w.raw, &w.host, ticket);
	half_open_is(&w, CAP - 1);
	for (int i = 0; i < CAP + 2; i++)
		raw_close(&idle[i]);
	half_open_is(&w, 0);
	world_free(&w);
}

/* Those who were refused are strangers still, until they have gone. */
static void test_refused_count(void **state)
{
	enum { CAP = 4 };
	const struct soft_engine_options o = {.max_half_open = CAP};
	static const uint8_t wrong[NICD_TICKET_SIZE] = "wrong";
	struct raw refused[3 * CAP];
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, &o);
	for (int i = 0; i < 3 * CAP; i++) {
		refused[i] = raw_connect(&w.host);
		raw_request(&refused[i], &plain, wrong);
		assert_true(raw_reply(&refused[i], buf).reject);
	}
	/* mutation: let refused ones linger without a cap */
	half_open_is(&w, CAP);
	for (int i = 0; i < 3 * CAP; i++)
		raw_close(&refused[i]);
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

/* The ticket was dropped between the reply and the first frame. */
static void test_dropped_in_between(void **state)
{
	static const uint8_t once[NICD_TICKET_SIZE] = "once";
	uint8_t buf[MPA_FRAME_MAX];
	uint64_t serial;
	struct world w;

	world_new(&w, NULL);
	serial = ticket_new(&w.host, once, PD, 0, 1, 60000);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &plain, once);
	assert_false(raw_reply(&w.raw, buf).reject);
	soft_ticket_drop(w.host.tickets, serial);
	raw_write(&w.raw, 1, 0, true, NULL, 0);
	/* mutation: do not ask the ticket again */
	assert_true(raw_drain(&w.raw, buf, 1, 1000) <= 0);
	assert_int_equal(w.host.opened, 0);
	world_free(&w);
}

/* ---- frames */

static struct rdmap_read read_of(const struct world *w, uint64_t offset, uint32_t size)
{
	return (struct rdmap_read){
		.sink_stag = 0x5151, .sink_to = 0x1000, .size = size, .source_stag = w->tag->remote_token, .source_to = IOVA + offset,
	};
}

static void test_write_and_read(void **state)
{
	static uint8_t buf[FPDU_MAX];
	struct rdmap_read read;
	struct rdmap_header h;
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	raw_write(&w.raw, w.tag->remote_token, IOVA + 10, false, "hello ", 6);
	raw_write(&w.raw, w.tag->remote_token, IOVA + 16, true, "world", 5);
	read = read_of(&w, 9, 13);
	raw_read(&w.raw, 1, &read);
	assert_int_equal(raw_frame(&w.raw, &h, buf), 13);
	assert_int_equal(h.opcode, RDMAP_READ_RESPONSE);
	assert_int_equal(h.stag, 0x5151);
	assert_int_equal(h.to, 0x1000);
	assert_true(h.last);
	assert_memory_equal(buf + 1, "hello world", 11);
	assert_memory_equal(buf, w.mem.map + 9, 13);
	/* The flush: size 0, any token. */
	read = (struct rdmap_read){.sink_stag = 1};
	raw_read(&w.raw, 2, &read);
	assert_int_equal(raw_frame(&w.raw, &h, buf), 0);
	assert_true(h.last);
	world_free(&w);
}

/* Each byte a packet of its own: every state of the parser is one to wait in. */
static void test_byte_by_byte(void **state)
{
	static uint8_t bytes[4096], buf[FPDU_MAX];
	struct rdmap_read read;
	struct rdmap_header h = {.tagged = true, .opcode = RDMAP_WRITE};
	size_t n = 0;
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	for (unsigned i = 0; i < 5; i++) {
		h.stag = w.tag->remote_token;
		h.to = IOVA + 100 * i;
		h.last = true;
		put_be16(bytes + n, DDP_TAGGED_SIZE + 9 + i);
		rdmap_encode(bytes + n + 2, &h);
		fill(bytes + n + 16, 9 + i, i);
		n += fpdu_size(DDP_TAGGED_SIZE + 9 + i);
	}
	for (size_t i = 0; i < n; i++) {
		raw_send(&w.raw, bytes + i, 1);
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	read = read_of(&w, 0, 500);
	raw_read(&w.raw, 1, &read);
	raw_frame(&w.raw, &h, buf);
	for (unsigned i = 0; i < 5; i++) {
		uint8_t want[16];

		fill(want, 9 + i, i);
		assert_memory_equal(buf + 100 * i, want, 9 + i);
	}
	world_free(&w);
}

/* More than a quantum, and nothing else that wakes the loop. */
static void test_quantum(void **state)
{
	struct soft_stream_info info;
	struct rdmap_read read;
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	read = read_of(&w, 0, SIZE);
	raw_read(&w.raw, 1, &read);
	run_ms(&w.loop, 30);
	assert_true(soft_stream_info(w.host.engine, w.host.stream, &info));
	/* mutation: sleep while a stream is ready */
	assert_true(info.counters.peer_read > 700 * 1024);
	world_free(&w);
}

enum frame { WRITE, READ, SEND };

/* A frame that is right but for one thing, and the Terminate for that. */
static void test_refused_frames(void **state)
{
	enum { READ_ONLY = 1, UNKNOWN = 2 };
	static const struct {
		enum frame frame;
		unsigned token;
		uint64_t offset;
		uint32_t size;
		uint32_t msn, mo;
		bool more;               /* without Last */
		int opcode;              /* in place of the frame's; 0: its own */
		enum rdmap_code code;
	} rows[] = {
		/* mutation: skip soft_tag_check for writes */
		{.frame = WRITE, .token = UNKNOWN, .size = 8, .code = DDP_E_STAG},
		{.frame = WRITE, .offset = SIZE - 7, .size = 8, .code = DDP_E_BOUNDS},
		{.frame = WRITE, .offset = -1, .size = 8, .code = DDP_E_BOUNDS},
		/* mutation: let to + length wrap */
		{.frame = WRITE, .offset = -(uint64_t)IOVA - 4, .size = 8, .code = DDP_E_WRAP},
		{.frame = WRITE, .token = READ_ONLY, .size = 8, .code = DDP_E_STAG},
		{.frame = READ, .msn = 1, .token = UNKNOWN, .size = 8, .code = RDMAP_E_STAG},
		{.frame = READ, .msn = 1, .offset = SIZE - 7, .size = 8, .code = RDMAP_E_BOUNDS},
		{.frame = READ, .msn = 1, .offset = 0, .size = SIZE + 1, .code = RDMAP_E_BOUNDS},
		{.frame = READ, .msn = 1, .offset = -(uint64_t)IOVA - 4, .size = 8, .code = RDMAP_E_WRAP},
		/* mutation: any MSN */
		{.frame = READ, .msn = 2, .size = 8, .code = DDP_E_MSN},
		{.frame = READ, .msn = 0, .size = 8, .code = DDP_E_MSN},
		/* mutation: any MO */
		{.frame = READ, .msn = 1, .mo = 4, .size = 8, .code = DDP_E_MO},
		{.frame = READ, .msn = 1, .size = 8, .more = true, .code = DDP_E_TOO_LONG},
		{.frame = SEND, .msn = 1, .opcode = RDMAP_SEND, .code = DDP_E_NO_BUFFER},
		{.frame = SEND, .msn = 1, .opcode = RDMAP_SEND_INVALIDATE, .code = DDP_E_NO_BUFFER},
		{.frame = SEND, .msn = 1, .opcode = RDMAP_SEND_SOLICITED, .code = DDP_E_NO_BUFFER},
		{.frame = SEND, .msn = 1, .opcode = RDMAP_SEND_SOLICITED_INVALIDATE, .code = DDP_E_NO_BUFFER},
		/* atomics, and the rest */
		{.frame = SEND, .msn = 1, .opcode = 0xa, .code = RDMAP_E_OPCODE},
		{.frame = SEND, .msn = 1, .opcode = 0xf, .code = RDMAP_E_OPCODE},
		/* mutation: take a response that nobody asked for */
		{.frame = WRITE, .opcode = RDMAP_READ_RESPONSE, .size = 8, .code = DDP_E_STAG},
	};
	static const uint8_t payload[8] = "deadbeef";
	uint8_t before[16];
	struct world w;

	world_new(&w, NULL);
	memcpy(before, w.mem.map, sizeof(before));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct rdmap_header h = {.opcode = rows[i].opcode, .last = !rows[i].more, .msn = rows[i].msn, .mo = rows[i].mo};
		uint32_t stag = rows[i].token == READ_ONLY ? w.read_only->remote_token :
				rows[i].token == UNKNOWN   ? w.tag->remote_token ^ 1 : w.tag->remote_token;
		struct rdmap_read read = read_of(&w, rows[i].offset, rows[i].size);
		uint8_t buf[RDMAP_READ_SIZE];
		struct rdmap_terminate t;
		unsigned closed = w.host.closed;

		raw_open(&w.raw, &w.host, ticket);
		if (rows[i].frame == WRITE) {
			h.tagged = true;
			h.stag = stag;
			h.to = IOVA + rows[i].offset;
			raw_fpdu(&w.raw, &h, payload, rows[i].size);
		} else if (rows[i].frame == READ) {
			h.opcode = RDMAP_READ_REQUEST;
			h.queue = QUEUE_READ;
			read.source_stag = stag;
			rdmap_read_encode(buf, &read);
			raw_fpdu(&w.raw, &h, buf, sizeof(buf));
		} else {
			raw_fpdu(&w.raw, &h, payload, sizeof(payload));
		}
		t = raw_expect_terminate(&w.raw, rows[i].code);
		assert_true(t.has_header);
		if (rows[i].frame == WRITE)
			assert_int_equal(t.header.to, h.to);
		if (rows[i].frame == READ && rows[i].code >> 8 == 1)
			assert_int_equal(t.read.sink_stag, 0x5151);
		assert_int_equal(w.host.closed, closed + 1);
		assert_int_equal(w.host.why.reason, NICD_R_QP_LOST);
		assert_int_equal(w.host.why.observed, rows[i].code);
		/* mutation: place before the check */
		assert_memory_equal(w.mem.map, before, sizeof(before));
		raw_close(&w.raw);
	}
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

static void test_no_right_to_read(void **state)
{
	struct soft_tag *write_only;
	struct rdmap_read read;
	struct world w;

	world_new(&w, NULL);
	write_only = tag_new(&w.host, &w.mem, PD, 0, NIC_REMOTE_WRITE, IOVA);
	raw_open(&w.raw, &w.host, ticket);
	read = read_of(&w, 0, 8);
	read.source_stag = write_only->remote_token;
	raw_read(&w.raw, 1, &read);
	raw_expect_terminate(&w.raw, RDMAP_E_RIGHTS);
	world_free(&w);
}

/* Good answers leave before the Terminate for the bad one; what follows it is not answered. */
static void test_order_of_answers(void **state)
{
	static uint8_t buf[FPDU_MAX];
	struct rdmap_read read;
	struct rdmap_terminate t;
	struct rdmap_header h;
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	for (uint32_t msn = 1; msn <= 4; msn++) {
		read = read_of(&w, 100 * msn, 50);
		read.source_stag ^= msn == 3;
		raw_read(&w.raw, msn, &read);
	}
	for (uint32_t msn = 1; msn <= 2; msn++) {
		assert_int_equal(raw_frame(&w.raw, &h, buf), 50);
		assert_memory_equal(buf, w.mem.map + 100 * msn, 50);
	}
	t = raw_expect_terminate(&w.raw, RDMAP_E_STAG);
	assert_int_equal(t.header.msn, 3);
	world_free(&w);
}

/* IRD 4 was granted. */
static void test_too_many_reads(void **state)
{
	uint8_t bytes[6 * 52] = {0}, *p = bytes;
	static uint8_t buf[FPDU_MAX];
	struct rdmap_header h = {.last = true, .opcode = RDMAP_READ_REQUEST, .queue = QUEUE_READ};
	struct rdmap_read read;
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	for (h.msn = 1; h.msn <= 6; h.msn++, p += 52) {
		read = read_of(&w, 0, 10);
		put_be16(p, RDMAP_READ_ULPDU);
		rdmap_read_encode(p + 2 + rdmap_encode(p + 2, &h), &read);
	}
	raw_send(&w.raw, bytes, sizeof(bytes));
	for (int i = 0; i < 4; i++)
		assert_int_equal(raw_frame(&w.raw, &h, buf), 10);
	/* mutation: queue them without a bound */
	raw_expect_terminate(&w.raw, DDP_E_NO_BUFFER);
	world_free(&w);
}

/* A message that changes its mind between two segments. */
static void test_interrupted_message(void **state)
{
	struct rdmap_read read;
	struct world w;

	world_new(&w, NULL);
	/* mutation: forget the message between segments */
	raw_open(&w.raw, &w.host, ticket);
	raw_write(&w.raw, w.tag->remote_token, IOVA, false, "abcd", 4);
	raw_write(&w.raw, w.tag->remote_token, IOVA + 8, true, "efgh", 4);
	raw_expect_terminate(&w.raw, DDP_E_BOUNDS);
	raw_close(&w.raw);

	raw_open(&w.raw, &w.host, ticket);
	raw_write(&w.raw, w.tag->remote_token, IOVA, false, "abcd", 4);
	raw_write(&w.raw, w.read_only->remote_token, IOVA + 4, true, "efgh", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	raw_close(&w.raw);

	raw_open(&w.raw, &w.host, ticket);
	raw_write(&w.raw, w.tag->remote_token, IOVA, false, "abcd", 4);
	read = read_of(&w, 0, 4);
	raw_read(&w.raw, 1, &read);
	raw_expect_terminate(&w.raw, RDMAP_E_OPCODE);
	world_free(&w);
}

static void test_lengths(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum rdmap_code code;
	} rows[] = {
		{"\0\0", 2, DDP_E_CATASTROPHIC},
		{"\0\x0d\xc1\x40", 4, DDP_E_CATASTROPHIC},
		{"\0\x11\x41\x41", 4, DDP_E_CATASTROPHIC},
		/* a Read Request of 45 and of 47 bytes. mutation: read 28 bytes whatever the length */
		{"\0\x2d\x41\x41\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0\0", 20, DDP_E_CATASTROPHIC},
		{"\0\x2f\x41\x41\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0\0", 20, DDP_E_TOO_LONG},
		{"\xff\xff\x41\x47\0\0\0\0\0\0\0\2\0\0\0\1\0\0\0\0", 20, DDP_E_TOO_LONG},
	};
	struct world w;

	world_new(&w, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		raw_open(&w.raw, &w.host, ticket);
		raw_send(&w.raw, rows[i].bytes, rows[i].len);
		raw_expect_terminate(&w.raw, rows[i].code);
		raw_close(&w.raw);
	}
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

static void test_bad_crc(void **state)
{
	const struct mpa_frame crc = {.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .crc = true};
	uint8_t buf[MPA_FRAME_MAX], bytes[2 + 14 + 4 + 4], byte;
	struct rdmap_header h = {.tagged = true, .last = true, .opcode = RDMAP_WRITE};
	struct world w;

	world_new(&w, NULL);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &crc, ticket);
	assert_true(raw_reply(&w.raw, buf).crc);
	memset(bytes, 0, sizeof(bytes));
	h.stag = w.tag->remote_token;
	h.to = IOVA;
	put_be16(bytes, 14 + 4);
	rdmap_encode(bytes + 2, &h);
	memcpy(bytes + 16, "good", 4);
	fpdu_crc_put(bytes + sizeof(bytes) - 4, fpdu_crc(FPDU_CRC_START, bytes, sizeof(bytes) - 4));
	raw_send(&w.raw, bytes, sizeof(bytes));
	run_until_at_least(&w.loop, &w.host.opened, 1);
	assert_memory_equal(w.mem.map, "good", 4);
	memcpy(bytes + 16, "evil", 4);
	raw_send(&w.raw, bytes, sizeof(bytes));
	raw_recv(&w.raw, buf, 2 + 18 + 4);
	assert_memory_equal(buf + 20, "\x20\x02\0\0", 4);
	raw_recv(&w.raw, buf, 4);
	assert_int_equal(raw_drain(&w.raw, &byte, 1, 1000), 0);
	/* mutation: place, then check */
	assert_memory_equal(w.mem.map, "good", 4);
	world_free(&w);
}

/* The end of the stream between two frames is how connections end; inside one it is not. */
static void test_ends(void **state)
{
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	raw_close(&w.raw);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	assert_int_equal(w.host.why.reason, NICD_R_PEER_CLOSED);
	raw_open(&w.raw, &w.host, ticket);
	raw_send(&w.raw, "\0\x20\xc1", 3);
	raw_close(&w.raw);
	run_until_at_least(&w.loop, &w.host.closed, 2);
	/* mutation: any end is a good one */
	assert_int_equal(w.host.why.reason, NICD_R_QP_LOST);
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

/* A peer that keeps the connection after it was told why it is over. */
static void test_drain(void **state)
{
	struct world w;

	world_new(&w, NULL);
	raw_open(&w.raw, &w.host, ticket);
	raw_write(&w.raw, STAG_NONE, IOVA, true, "evil", 4);
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	raw_send(&w.raw, "more", 4);
	run_ms(&w.loop, 1500);
	assert_int_equal(send(w.raw.fd, "more", 4, MSG_NOSIGNAL), 4);
	run_ms(&w.loop, 700);
	/* mutation: drain for ever */
	send(w.raw.fd, "more", 4, MSG_NOSIGNAL);
	assert_int_equal(send(w.raw.fd, "more", 4, MSG_NOSIGNAL), -1);
	world_free(&w);
}

/* With the empty Send as the first frame, and never again. */
static void test_ready_by_send(void **state)
{
	const struct mpa_frame p2p = {
		.revision = 2, .enhanced = true, .ird = 4, .ord = 4, .peer_to_peer = true, .rtr_send = true,
	};
	struct rdmap_header h = {.last = true, .opcode = RDMAP_SEND, .queue = QUEUE_SEND, .msn = 1};
	uint8_t buf[MPA_FRAME_MAX];
	struct world w;

	world_new(&w, NULL);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &p2p, ticket);
	assert_true(raw_reply(&w.raw, buf).rtr_send);
	raw_fpdu(&w.raw, &h, NULL, 0);
	run_until_at_least(&w.loop, &w.host.opened, 1);
	assert_true(raw_is_silent(&w.raw, 10));
	/* mutation: the first one takes no number */
	h.msn = 2;
	raw_fpdu(&w.raw, &h, NULL, 0);
	raw_expect_terminate(&w.raw, DDP_E_NO_BUFFER);
	world_free(&w);
}

/* Random frames with a good beginning: whatever happens, the engine lives and the stream ends. */
static void test_random_frames(void **state)
{
	enum { ROUNDS = 300 };
	static uint8_t bytes[3000], out[1 << 16];
	uint64_t deadline = uv_hrtime() + UINT64_C(2000000000);
	struct world w;

	world_new(&w, NULL);
	for (unsigned i = 0; i < ROUNDS && uv_hrtime() < deadline; i++) {
		struct rdmap_header h = {.tagged = i % 3, .last = i % 2, .opcode = i % 8, .queue = i % 4, .msn = i % 3};

		ticket_new(&w.host, (const uint8_t *)&(struct { uint64_t n[2]; }){{i, 1}}, PD, 0, 1, 60000);
		raw_open(&w.raw, &w.host, (const uint8_t *)&(struct { uint64_t n[2]; }){{i, 1}});
		fill(bytes, sizeof(bytes), i);
		h.stag = w.tag->remote_token;
		h.to = IOVA + i;
		put_be16(bytes, i * 7 % 300);
		rdmap_encode(bytes + 2, &h);
		if (i % 5)
			bytes[i % 24] ^= 1 << i % 8;
		raw_send(&w.raw, bytes, 1 + i * 37 % sizeof(bytes));
		shutdown(w.raw.fd, SHUT_WR);
		raw_drain(&w.raw, out, sizeof(out), 3000);
		raw_close(&w.raw);
	}
	run_ms(&w.loop, 10);
	assert_int_equal(w.host.opened, w.host.closed);
	w.raw = raw_connect(&w.host);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handshakes),
		cmocka_unit_test(test_large_frames),
		cmocka_unit_test(test_crc_by_option),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_malformed_is_rejected),
		cmocka_unit_test(test_half_a_request),
		cmocka_unit_test(test_silent_after_the_reply),
		cmocka_unit_test(test_silent_without_promise),
		cmocka_unit_test(test_opened_and_lost),
		cmocka_unit_test(test_told_before_answered),
		cmocka_unit_test(test_bad_first_frame),
		cmocka_unit_test(test_half_open_cap),
		cmocka_unit_test(test_refused_count),
		cmocka_unit_test(test_dropped_in_between),
		cmocka_unit_test(test_write_and_read),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_quantum),
		cmocka_unit_test(test_refused_frames),
		cmocka_unit_test(test_no_right_to_read),
		cmocka_unit_test(test_order_of_answers),
		cmocka_unit_test(test_too_many_reads),
		cmocka_unit_test(test_interrupted_message),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_bad_crc),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_ready_by_send),
		cmocka_unit_test(test_random_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
