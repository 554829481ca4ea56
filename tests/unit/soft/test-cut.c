/* SPDX-License-Identifier: MIT */
/*
 * Memory that goes away under transfers: tags dropped, doors cut, pages gone. After a drop no byte of the tag's memory is read or placed
 * any more, which the test sees through its own mapping; whoever was not in the middle of it goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "raw.h"

#include "nicd/soft/bytes.h"
#include "nicd/soft/stream.h"

enum { MIB = 1 << 20, IOVA = 0x7000000, IOVA_A = 0x100000, SIZE = 32 * MIB };

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde";

/* A host and a peer of bytes that is connected to it. */
struct world {
	uv_loop_t loop;
	struct host host;
	struct mem mem;
	struct soft_tag *tag, *other;
	uint32_t token;   /* of `tag`, also when that is gone */
	struct raw raw;
	uint64_t door;
};

static void world_new(struct world *w, const struct soft_engine_options *options)
{
	assert_int_equal(uv_loop_init(&w->loop), 0);
	host_new(&w->host, &w->loop, options);
	w->mem = mem_new(&w->host, SIZE);
	memset(w->mem.map, 'a', SIZE);
	w->tag = tag_new(&w->host, &w->mem, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	w->token = w->tag->remote_token;
	w->other = tag_new(&w->host, &w->mem, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	w->door = ticket_new(&w->host, ticket, PD, 0, 100, 60000);
	raw_open(&w->raw, &w->host, ticket);
}

/* The same through a window, for this peer alone. */
static void world_new_window(struct world *w, const struct soft_engine_options *options)
{
	world_new(w, options);
	w->tag = window_new(&w->host, &w->mem, w->host.stream, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA, SIZE);
	assert_non_null(w->tag);
	w->token = w->tag->remote_token;
}

static void (*const worlds[])(struct world *w, const struct soft_engine_options *options) = {world_new, world_new_window};

static void world_free(struct world *w)
{
	raw_close(&w->raw);
	host_free(&w->host);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	mem_free(&w->mem);
}

static unsigned drop(struct host *host, const struct soft_tag *tag)
{
	return soft_tag_drop(host->tags, tag->serial, tag->generation);
}

static void read_all(struct world *w, uint32_t msn, uint32_t size)
{
	const struct rdmap_read read = {.sink_stag = 5, .size = size, .source_stag = w->token, .source_to = IOVA};

	raw_read(&w->raw, msn, &read);
}

/* The length field and header of a write of which the payload is still to be sent. */
static void write_begin(struct world *w, uint64_t offset, uint16_t length)
{
	const struct rdmap_header h = {
		.tagged = true, .last = true, .opcode = RDMAP_WRITE, .stag = w->token, .to = IOVA + offset,
	};
	uint8_t buf[2 + DDP_UNTAGGED_SIZE];

	put_be16(buf, DDP_TAGGED_SIZE + length);
	rdmap_encode(buf + 2, &h);
	raw_send(&w->raw, buf, 2 + DDP_TAGGED_SIZE);
}

/* The peer does not read, so an FPDU is half sent when the tag goes. */
static void half_sent(unsigned kind, const struct soft_engine_options *options)
{
	static uint8_t got[SIZE + MIB];
	struct world w;
	ssize_t n = 0, r;

	worlds[kind](&w, options);
	read_all(&w, 1, SIZE);
	run_ms(&w.loop, 30);
	assert_int_equal(drop(&w.host, w.other), 0);
	/* mutation: no soft_use around a half sent FPDU */
	assert_int_equal(drop(&w.host, w.tag), 1);
	memset(w.mem.map, 'z', SIZE);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	assert_int_equal(w.host.why.reason, NICD_R_REVOKED);
	while ((r = recv(w.raw.fd, got + n, sizeof(got) - n, 0)) > 0)
		n += r;
	/* mutation: send the rest all the same */
	assert_null(memmem(got, n, "zzzzzzzz", 8));   /* one alone may be in a header */
	assert_true(n < SIZE);
	/* mutation: let the kernel go on sending what it has */
	assert_int_equal(r, -1);
	assert_int_equal(errno, ECONNRESET);
	world_free(&w);
}

static void test_half_sent(void **state)
{
	const struct soft_engine_options crc = {.crc = true}, small = {.fpdu = 1448};

	for (unsigned kind = 0; kind < 2; kind++) {
		half_sent(kind, NULL);
		half_sent(kind, &crc);
		half_sent(kind, &small);
	}
}

/* A part of the payload is there, the rest comes after the drop. */
static void half_placed(unsigned kind, size_t part)
{
	static uint8_t payload[60000];
	struct rdmap_terminate t;
	struct world w;

	worlds[kind](&w, NULL);
	memset(payload, 'b', sizeof(payload));
	write_begin(&w, 0, sizeof(payload));
	raw_send(&w.raw, payload, part);
	run_ms(&w.loop, 10);
	/* mutation: keep what was received until the FPDU is whole */
	assert_true(part == 0 || w.mem.map[part - 1] == 'b');
	assert_int_equal(drop(&w.host, w.other), 0);
	/* mutation: no soft_use around a half placed FPDU */
	assert_int_equal(drop(&w.host, w.tag), 1);
	memset(w.mem.map, 'z', sizeof(payload) + 100);
	raw_send(&w.raw, payload + part, sizeof(payload) - part);
	t = raw_expect_terminate(&w.raw, DDP_E_STAG);
	assert_int_equal(t.header.to, IOVA);
	/* mutation: place what comes after the drop */
	for (size_t i = 0; i < sizeof(payload) + 100; i++)
		assert_int_equal(w.mem.map[i], 'z');
	assert_int_equal(w.host.closed, 1);
	assert_int_equal(w.host.why.reason, NICD_R_REVOKED);
	world_free(&w);
}

static void test_half_placed(void **state)
{
	for (unsigned kind = 0; kind < 2; kind++) {
		half_placed(kind, 0);
		half_placed(kind, 1);
		half_placed(kind, 30000);
		half_placed(kind, 59999);
	}
}

/* Between two FPDUs nobody is in the middle of anything: the stream loses the next use only. */
static void test_between_frames(void **state)
{
	static uint8_t payload[1000], buf[FPDU_MAX];
	struct rdmap_header h;
	struct rdmap_read read;
	struct world w;

	world_new(&w, NULL);
	raw_write(&w.raw, w.token, IOVA, false, payload, sizeof(payload));
	raw_write(&w.raw, w.token, IOVA + sizeof(payload), true, payload, sizeof(payload));
	read_all(&w, 1, 100);
	raw_frame(&w.raw, &h, buf);
	assert_int_equal(drop(&w.host, w.tag), 0);
	assert_int_equal(w.host.closed, 0);
	read = (struct rdmap_read){.sink_stag = 5, .size = 8, .source_stag = w.other->remote_token, .source_to = IOVA};
	raw_read(&w.raw, 2, &read);
	assert_int_equal(raw_frame(&w.raw, &h, buf), 8);
	read_all(&w, 3, 100);
	raw_expect_terminate(&w.raw, RDMAP_E_STAG);
	world_free(&w);
}

/* Between two segments of one message: the next segment finds no tag. */
static void test_between_segments(void **state)
{
	static uint8_t payload[1000];
	struct world w;

	world_new(&w, NULL);
	memset(payload, 'b', sizeof(payload));
	raw_write(&w.raw, w.token, IOVA, false, payload, sizeof(payload));
	run_ms(&w.loop, 10);
	assert_int_equal(w.mem.map[0], 'b');
	/* mutation: hold on to the tag for the whole message */
	assert_int_equal(drop(&w.host, w.tag), 0);
	memset(w.mem.map, 'z', 3000);
	raw_write(&w.raw, 0, IOVA + sizeof(payload), true, payload, sizeof(payload));
	raw_expect_terminate(&w.raw, DDP_E_STAG);
	for (size_t i = 0; i < 3000; i++)
		assert_int_equal(w.mem.map[i], 'z');
	world_free(&w);
}

/* A whole frame is staged with CRC; a half one has no use of the tag yet. */
static void test_half_staged(void **state)
{
	const struct soft_engine_options crc = {.crc = true};
	static uint8_t payload[1000];
	struct world w;

	assert_int_equal(uv_loop_init(&w.loop), 0);
	host_new(&w.host, &w.loop, &crc);
	w.mem = mem_new(&w.host, SIZE);
	w.tag = tag_new(&w.host, &w.mem, PD, 0, NIC_REMOTE_WRITE, IOVA);
	w.token = w.tag->remote_token;
	ticket_new(&w.host, ticket, PD, 0, 1, 60000);
	w.raw = raw_connect(&w.host);
	raw_request(&w.raw, &(struct mpa_frame){.revision = 2, .enhanced = true, .ird = 4, .ord = 4}, ticket);
	{
		uint8_t buf[MPA_FRAME_MAX];

		assert_true(raw_reply(&w.raw, buf).crc);
	}
	memset(payload, 'b', sizeof(payload));
	write_begin(&w, 0, sizeof(payload));
	raw_send(&w.raw, payload, 500);
	run_ms(&w.loop, 10);
	/* mutation: place before the CRC has been seen */
	assert_int_equal(w.mem.map[0], 0);
	assert_int_equal(drop(&w.host, w.tag), 0);
	world_free(&w);
}

/* ---- two engines */

struct two {
	struct pair pair;
	struct mem ma, mb;
	struct soft_tag *ta, *tb;
	struct entry all;
};

static void two_new(struct two *t, const struct soft_engine_options *o)
{
	pair_new(&t->pair, o, o);
	t->ma = mem_new(&t->pair.a, SIZE);
	t->mb = mem_new(&t->pair.b, SIZE);
	memset(t->ma.map, 'a', SIZE);
	memset(t->mb.map, 'b', SIZE);
	t->ta = tag_new(&t->pair.a, &t->ma, PD, 0, NIC_LOCAL_WRITE, IOVA_A);
	t->tb = tag_new(&t->pair.b, &t->mb, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	t->all = (struct entry){t->ta->local_token, t->tb->remote_token, IOVA_A, IOVA, SIZE};
	connect_pd(&t->pair, 1);
}

static void two_free(struct two *t)
{
	pair_free(&t->pair);
	mem_free(&t->ma);
	mem_free(&t->mb);
}

enum side { A, B };

/*
 * A transfer of 32 MiB; the tag of one side goes while it is under way. Whatever was there at the drop is all there ever is: on the
 * side of the drop nothing is placed, and nothing that is written to its memory afterwards reaches the other side.
 */
static void amid(const struct soft_engine_options *o, enum nic_operation operation, enum side side)
{
	struct two t;
	struct host *host;
	uint8_t *sink, *source, from, *last;
	struct posted p;

	two_new(&t, o);
	host = side == A ? &t.pair.a : &t.pair.b;
	sink = operation == NIC_READ ? t.ma.map : t.mb.map;
	source = operation == NIC_READ ? t.mb.map : t.ma.map;
	from = source[0];
	post(&t.pair.a, 1, operation, &t.all, 1, &p);
	while (!p.done && sink[MIB] != from)
		uv_run(&t.pair.loop, UV_RUN_ONCE);
	assert_false(p.done);
	drop(host, side == A ? t.ta : t.tb);
	last = memrchr(sink, from, SIZE);
	/* What is read from now on would show. */
	if ((side == A) == (operation == NIC_WRITE))
		memset(source, 'z', SIZE);
	run_until(&t.pair.loop, &p.done);
	/* The drop hit a frame (a lost stream, or Terminate), or the next one. */
	assert_true(p.error.reason == (side == A ? NICD_R_LOCAL_GONE : NICD_R_REMOTE_TOKEN) ||
		    (side == B && p.error.reason == NICD_R_QP_LOST));
	assert_int_equal(p.completion.failed, 0);
	assert_int_equal(p.completion.bytes, 0);
	run_until_at_least(&t.pair.loop, &t.pair.a.closed, 1);
	run_until_at_least(&t.pair.loop, &t.pair.b.closed, 1);
	/* mutation: drop without cutting */
	assert_null(memchr(sink, 'z', SIZE));
	if ((side == A) == (operation == NIC_READ))
		assert_ptr_equal(memrchr(sink, from, SIZE), last);
	assert_int_not_equal(sink[SIZE - 1], from);
	two_free(&t);
}

static void test_revoke_amid(void **state)
{
	const struct soft_engine_options crc = {.crc = true}, small = {.fpdu = 1448};

	for (enum side side = A; side <= B; side++) {
		for (enum nic_operation o = NIC_READ; o <= NIC_WRITE; o++) {
			amid(NULL, o, side);
			amid(&crc, o, side);
			amid(&small, o, side);
		}
	}
}

/* Memory that is mapped but not to be touched stands for a huge page that was punched out and cannot be had back. */
static void unreadable(const struct soft_engine_options *o, enum nic_operation operation, enum side side)
{
	struct entry e, spare;
	struct posted p, q;
	struct mem mem;
	struct two t;

	two_new(&t, o);
	mem = mem_new(side == A ? &t.pair.a : &t.pair.b, MIB);
	spare = t.all;
	spare.length = 1000;
	connect_pd(&t.pair, 2);
	assert_int_equal(mprotect((side == A ? t.ma : t.mb).memory->map + 49 * 4096, 4096, PROT_NONE), 0);
	e = t.all;
	e.length = 3 * MIB;
	post(&t.pair.a, 1, operation, &e, 1, &p);
	post(&t.pair.a, 2, operation, &spare, 1, &q);
	run_until(&t.pair.loop, &p.done);
	run_until(&t.pair.loop, &q.done);
	/* mutation: touch the memory in user space (the test dies) */
	assert_int_not_equal(p.error.reason, NICD_R_NONE);
	if (side == A)
		assert_int_equal(p.error.reason, NICD_R_LOCAL_GONE);
	/* mutation: end every stream of the tag */
	assert_int_equal(q.error.reason, NICD_R_NONE);
	run_until_at_least(&t.pair.loop, &t.pair.b.closed, 1);
	q = transfer(&t.pair, 2, operation, &spare, 1);
	assert_int_equal(q.error.reason, NICD_R_NONE);
	assert_int_equal(t.pair.a.closed, 1);
	assert_int_equal(t.pair.b.closed, 1);
	two_free(&t);
	mem_free(&mem);
}

static void test_unreadable(void **state)
{
	const struct soft_engine_options crc = {.crc = true}, small = {.fpdu = 1448};

	for (enum side side = A; side <= B; side++) {
		for (enum nic_operation o = NIC_READ; o <= NIC_WRITE; o++) {
			unreadable(NULL, o, side);
			unreadable(&crc, o, side);
			unreadable(&small, o, side);
		}
	}
}

/* Of many small frames in one sendmsg, one cannot be read: it alone is to blame, and those before it are done. */
static void blame_one(const struct soft_engine_options *o, enum nic_operation operation)
{
	enum { N = 12, BAD = 7 };
	struct entry list[N];
	struct posted p;
	struct two t;

	two_new(&t, o);
	for (uint32_t i = 0; i < N; i++) {
		list[i] = t.all;
		list[i].local_addr += 4096 * i;
		list[i].remote_addr += 4096 * i;
		list[i].length = 500;
	}
	assert_int_equal(mprotect((operation == NIC_WRITE ? t.ma : t.mb).memory->map + 4096 * BAD, 4096, PROT_NONE), 0);
	p = transfer(&t.pair, 1, operation, list, N);
	assert_int_equal(p.error.reason, operation == NIC_WRITE ? NICD_R_LOCAL_GONE : NICD_R_REMOTE_TERMINATE);
	/* mutation: blame the first frame of the sendmsg */
	assert_int_equal(p.completion.failed, BAD);
	assert_false(p.completion.inexact);
	assert_int_equal(p.completion.entries, BAD);
	two_free(&t);
}

static void test_blame_one(void **state)
{
	const struct soft_engine_options crc = {.crc = true};

	for (enum nic_operation o = NIC_READ; o <= NIC_WRITE; o++) {
		blame_one(NULL, o);
		blame_one(&crc, o);
	}
}

/* Holes punched all the time: transfers see new pages, and nobody is hurt. */
static void test_punched(void **state)
{
	struct posted p;
	struct two t;

	two_new(&t, NULL);
	for (enum nic_operation o = NIC_READ; o <= NIC_WRITE; o++) {
		post(&t.pair.a, 1, o, &t.all, 1, &p);
		while (!p.done) {
			assert_int_equal(fallocate(t.ma.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE), 0);
			assert_int_equal(fallocate(t.mb.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE), 0);
			uv_run(&t.pair.loop, UV_RUN_ONCE);
		}
		assert_int_equal(p.error.reason, NICD_R_NONE);
		assert_int_equal(p.completion.bytes, SIZE);
	}
	two_free(&t);
}

/* ---- doors */

static unsigned cut_door(struct host *host, uint64_t serial)
{
	unsigned n = 0;

	assert_false(soft_engine_cut_door(host->engine, serial, UINT64_MAX, &n));
	return n;
}

static void test_cut_door(void **state)
{
	static const uint8_t second[NICD_TICKET_SIZE] = "second", export[NICD_TICKET_SIZE] = "export";
	struct raw by_second, by_export, waiting;
	struct soft_stream_info info;
	uint8_t buf[MPA_FRAME_MAX];
	uint64_t serial;
	struct world w;

	world_new(&w, NULL);
	ticket_new(&w.host, second, PD, 0, 1, 60000);
	serial = ticket_new(&w.host, export, PD, EXPORT, 2, 60000);
	raw_open(&by_second, &w.host, second);
	raw_open(&by_export, &w.host, export);
	/* One that has been admitted and has said nothing yet. */
	waiting = raw_connect(&w.host);
	raw_request(&waiting, &(struct mpa_frame){.revision = 1}, ticket);
	assert_false(raw_reply(&waiting, buf).reject);
	read_all(&w, 1, SIZE);
	run_ms(&w.loop, 20);
	assert_int_equal(cut_door(&w.host, w.door), 2);
	/* Ended before the call returns. mutation: end them later */
	assert_false(soft_stream_info(w.host.engine, w.host.stream, &info) && info.door == w.door);
	assert_int_equal(cut_door(&w.host, w.door), 0);
	assert_int_equal(w.host.closed, 0);
	run_until_at_least(&w.loop, &w.host.closed, 1);
	assert_int_equal(w.host.why.reason, NICD_R_REVOKED);
	assert_true(raw_drain(&waiting, buf, 1, 1000) <= 0);
	assert_int_equal(drop(&w.host, w.tag), 0);
	/* mutation: cut everybody */
	assert_true(raw_is_silent(&by_second, 5));
	assert_true(raw_is_silent(&by_export, 5));
	/* By the ticket's serial, or by that of the export on the grant list. */
	assert_int_equal(cut_door(&w.host, EXPORT), 1);
	assert_int_equal(cut_door(&w.host, serial), 0);
	run_until_at_least(&w.loop, &w.host.closed, 2);
	raw_close(&by_second);
	raw_close(&by_export);
	raw_close(&waiting);
	world_free(&w);
}

/* mutation: no look at the clock; none before the first stream, so that a clock that is late ends nobody */
static void test_cut_crowd(void **state)
{
	enum { CROWD = 100, AT_LEAST = 63 };
	static const uint8_t crowd[NICD_TICKET_SIZE] = "crowd";
	struct raw peers[CROWD];
	struct world w;
	uint64_t door;
	unsigned n = 0;

	world_new(&w, NULL);
	door = ticket_new(&w.host, crowd, PD, 0, CROWD, 60000);
	for (unsigned i = 0; i < CROWD; i++)
		raw_open(&peers[i], &w.host, crowd);
	assert_true(soft_engine_cut_door(w.host.engine, door, 0, &n));
	assert_int_equal(n, AT_LEAST);
	assert_false(soft_engine_cut_door(w.host.engine, door, 0, &n));
	assert_int_equal(n, CROWD);
	run_until_at_least(&w.loop, &w.host.closed, CROWD);
	for (unsigned i = 0; i < CROWD; i++)
		raw_close(&peers[i]);
	world_free(&w);
}

/* A receive of stream[at] whose tag goes at once; when that is told, the same of the other one: the engine never runs out of news. */
struct chatter {
	struct host *host;
	const struct mem *mem;
	uint64_t stream[2];
	unsigned at, left;
	bool over;
};

static void chatter_go_on(struct chatter *c);

static void on_chatter(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	struct chatter *c = userdata;

	assert_int_equal(error->reason, NICD_R_LOCAL_GONE);
	c->over = c->host->closed > 0 || --c->left == 0;
	if (!c->over)
		chatter_go_on(c);
}

static void chatter_go_on(struct chatter *c)
{
	struct soft_tag *tag = tag_new(c->host, c->mem, PD, 0, NIC_LOCAL_WRITE, IOVA);
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = {0};

	put_le32(entry, tag->local_token);
	put_le64(entry + 8, IOVA);
	put_le32(entry + 24, 1);
	c->at = !c->at;
	soft_receive(c->host->engine, c->stream[c->at], entry, on_chatter, c);
	assert_int_equal(drop(c->host, tag), 0);
}

/* Whoever was cut is told and buried, however busy others are. */
static void test_cut_when_busy(void **state)
{
	static const uint8_t cut[NICD_TICKET_SIZE] = "cut";
	struct chatter c = {.left = 20000};
	struct raw other, victim;
	struct world w;

	world_new(&w, NULL);
	c.host = &w.host;
	c.mem = &w.mem;
	c.stream[0] = w.host.stream;
	raw_open(&other, &w.host, ticket);
	c.stream[1] = w.host.stream;
	w.door = ticket_new(&w.host, cut, PD, 0, 1, 60000);
	raw_open(&victim, &w.host, cut);
	assert_int_equal(cut_door(&w.host, w.door), 1);
	chatter_go_on(&c);
	run_until(&w.loop, &c.over);
	/* mutation: close what has ended only when nothing else is to do */
	assert_int_not_equal(c.left, 0);
	assert_int_equal(w.host.closed, 1);
	raw_close(&other);
	raw_close(&victim);
	world_free(&w);
}

/* A peer is cut and everything dropped before anybody was told that it had come. */
static void test_cut_untold(void **state)
{
	static const uint8_t second[NICD_TICKET_SIZE] = "second";
	struct soft_stream *s;
	struct world w;
	struct raw raw;
	uint64_t door;

	world_new(&w, NULL);
	door = ticket_new(&w.host, second, PD, 0, 1, 60000);
	raw_open(&raw, &w.host, second);
	/* As if the turn had been over just then. */
	s = engine_find(w.host.engine, w.host.stream);
	s->tell_opened = true;
	engine_news(s);
	assert_int_equal(cut_door(&w.host, door), 1);
	soft_tickets_reset(w.host.tickets);
	soft_engine_reset(w.host.engine);
	/* mutation: keep what a stream holds that had ended before it was dropped (a ticket is left, which its owner's end finds) */
	raw_close(&raw);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_sent),
		cmocka_unit_test(test_half_placed),
		cmocka_unit_test(test_between_frames),
		cmocka_unit_test(test_between_segments),
		cmocka_unit_test(test_half_staged),
		cmocka_unit_test(test_revoke_amid),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_blame_one),
		cmocka_unit_test(test_punched),
		cmocka_unit_test(test_cut_door),
		cmocka_unit_test(test_cut_crowd),
		cmocka_unit_test(test_cut_when_busy),
		cmocka_unit_test(test_cut_untold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
