/* SPDX-License-Identifier: MIT */
/* Two engines on loopback: transfers that must work, and how refused ones end. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "pair.h"

enum { MIB = 1 << 20, IOVA_A = 0x100000, IOVA_B = 0x7000000 };

struct world {
	struct pair pair;
	struct mem ma, mb;
	struct soft_tag *ta, *tb;
};

static void world_new(struct world *w, const struct soft_engine_options *a, const struct soft_engine_options *b, size_t size)
{
	pair_new(&w->pair, a, b);
	w->ma = mem_new(&w->pair.a, size);
	w->mb = mem_new(&w->pair.b, size);
	w->ta = tag_new(&w->pair.a, &w->ma, PD, 0, NIC_LOCAL_WRITE, IOVA_A);
	w->tb = tag_new(&w->pair.b, &w->mb, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA_B);
}

static void world_free(struct world *w)
{
	pair_free(&w->pair);
	mem_free(&w->ma);
	mem_free(&w->mb);
}

static struct entry entry(const struct world *w, uint64_t local, uint64_t remote, uint32_t length)
{
	return (struct entry){w->ta->local_token, w->tb->remote_token, IOVA_A + local, IOVA_B + remote, length};
}

/* mutation: send the bytes from the start of the memory, whatever the address */
static void round_trips(const struct soft_engine_options *a, const struct soft_engine_options *b)
{
	static const uint32_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 100, 1427, 1428, 1429, 4096, 8191, 65519, 65520, 65521, 65536,
					 300001, 1 << 20, (2 << 20) + 3};
	struct world w;
	uint64_t total = 0;

	world_new(&w, a, b, 4 * MIB);
	connect_pd(&w.pair, 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t n = sizes[i], local = 3 * i + 1, remote = 4099 * i + 5;
		struct entry e = entry(&w, local, remote, n);
		struct posted p;

		fill(w.ma.map, w.ma.size, i + 1);
		memset(w.mb.map, 0xee, w.mb.size);
		p = transfer(&w.pair, 1, NIC_WRITE, &e, 1);
		assert_int_equal(p.error.reason, NICD_R_NONE);
		assert_int_equal(p.completion.entries, 1);
		assert_int_equal(p.completion.bytes, n);
		assert_memory_equal(w.mb.map + remote, w.ma.map + local, n);
		assert_int_equal(w.mb.map[remote - 1], 0xee);
		assert_int_equal(w.mb.map[remote + n], 0xee);

		fill(w.mb.map, w.mb.size, i + 1000);
		memset(w.ma.map, 0xdd, w.ma.size);
		p = transfer(&w.pair, 1, NIC_READ, &e, 1);
		assert_int_equal(p.error.reason, NICD_R_NONE);
		assert_int_equal(p.completion.bytes, n);
		assert_memory_equal(w.ma.map + local, w.mb.map + remote, n);
		assert_int_equal(w.ma.map[local - 1], 0xdd);
		assert_int_equal(w.ma.map[local + n], 0xdd);
		total += n;
	}
	assert_true(soft_disconnect(w.pair.a.engine, 1));
	run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
	assert_int_equal(w.pair.b.why.reason, NICD_R_PEER_CLOSED);
	/* mutation: count a frame when it is built, not when the kernel has it */
	assert_int_equal(w.pair.b.counters.peer_read, total);
	assert_int_equal(w.pair.b.counters.peer_written, total);
	assert_int_equal(w.pair.b.counters.bytes_read, 0);
	assert_int_equal(w.pair.a.closed, 0);
	world_free(&w);
}

static void test_round_trips(void **state)
{
	round_trips(NULL, NULL);
}

static void test_round_trips_small_frames(void **state)
{
	const struct soft_engine_options o = {.fpdu = 1448};

	round_trips(&o, &o);
}

static void test_round_trips_crc(void **state)
{
	const struct soft_engine_options o = {.crc = true};

	round_trips(&o, NULL);
	round_trips(NULL, &o);
}

static void test_round_trips_crc_small_frames(void **state)
{
	const struct soft_engine_options o = {.crc = true, .fpdu = 512};

	round_trips(&o, &o);
}

/* Lists of reads and writes of every small size, deeper than what may be in flight. */
static void test_long_lists(void **state)
{
	enum { N = NICD_TRANSFER_ENTRIES };
	static struct entry entries[N];
	uint64_t total = 0;
	struct posted p, q;
	struct world w;

	world_new(&w, NULL, NULL, 2 * MIB);
	fill(w.ma.map, w.ma.size, 1);
	for (uint32_t i = 0; i < N; i++) {
		entries[i] = entry(&w, 2000 * i, 2000 * i + i % 7, i);
		total += i;
	}
	connect_pd(&w.pair, 1);
	p = transfer(&w.pair, 1, NIC_WRITE, entries, N);
	assert_int_equal(p.error.reason, NICD_R_NONE);
	assert_int_equal(p.completion.entries, N);
	assert_int_equal(p.completion.bytes, total);
	for (uint32_t i = 0; i < N; i++)
		assert_memory_equal(w.mb.map + 2000 * i + i % 7, w.ma.map + 2000 * i, i);
	fill(w.mb.map, w.mb.size, 2);
	post(&w.pair.a, 1, NIC_READ, entries, N, &p);
	post(&w.pair.a, 1, NIC_READ, entries, N, &q);
	/* mutation: more reads in flight than were granted (the responder ends it) */
	run_until(&w.pair.loop, &q.done);
	assert_true(p.done);
	assert_int_equal(p.error.reason, NICD_R_NONE);
	assert_int_equal(q.error.reason, NICD_R_NONE);
	assert_int_equal(q.completion.bytes, total);
	for (uint32_t i = 0; i < N; i++)
		assert_memory_equal(w.ma.map + 2000 * i, w.mb.map + 2000 * i + i % 7, i);
	world_free(&w);
}

/* Granted one read at a time by one side, many asked by the other. */
static void test_shallow_peer(void **state)
{
	const struct soft_engine_options shallow = {.max_ird = 1};
	struct entry entries[20];
	struct posted p;
	struct world w;

	world_new(&w, NULL, &shallow, MIB);
	for (uint32_t i = 0; i < 20; i++)
		entries[i] = entry(&w, 1000 * i, 1000 * i, 900);
	fill(w.mb.map, w.mb.size, 2);
	connect_pd(&w.pair, 1);
	p = transfer(&w.pair, 1, NIC_READ, entries, 20);
	/* mutation: use our own limit in place of the granted one */
	assert_int_equal(p.error.reason, NICD_R_NONE);
	for (uint32_t i = 0; i < 20; i++)
		assert_memory_equal(w.ma.map + 1000 * i, w.mb.map + 1000 * i, 900);
	world_free(&w);
}

/* A write list is complete when it is placed; a read behind it sees it, and both sides may do both at once. */
static void test_mixed(void **state)
{
	enum { N = 40 };
	struct posted p[2 * N];
	struct soft_tag *local_b, *remote_a;
	struct world w;

	world_new(&w, NULL, NULL, 4 * MIB);
	local_b = tag_new(&w.pair.b, &w.mb, PD, 0, NIC_LOCAL_WRITE, IOVA_A);
	remote_a = tag_new(&w.pair.a, &w.ma, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA_B);
	connect_pd(&w.pair, 1);
	fill(w.ma.map, MIB, 9);
	for (int i = 0; i < N; i++) {
		struct entry there = entry(&w, 0, MIB, MIB - i), back = entry(&w, 2 * MIB, MIB, MIB - i);

		post(&w.pair.a, 1, NIC_WRITE, &there, 1, &p[2 * i]);
		post(&w.pair.a, 1, NIC_READ, &back, 1, &p[2 * i + 1]);
	}
	run_until(&w.pair.loop, &p[2 * N - 1].done);
	for (int i = 0; i < 2 * N; i++)
		assert_int_equal(p[i].error.reason, NICD_R_NONE);
	assert_memory_equal(w.ma.map + 2 * MIB, w.ma.map, MIB - N);
	/* The way back by the responder's own request: the initiator's memory is not exposed by connecting. */
	{
		struct entry e = {local_b->local_token, remote_a->remote_token, IOVA_A, IOVA_B, 8};
		struct posted own;

		post(&w.pair.b, w.pair.b.stream, NIC_READ, &e, 1, &own);
		run_until(&w.pair.loop, &own.done);
		/* mutation: give an outbound stream its PD's scope */
		assert_int_equal(own.error.reason, NICD_R_REMOTE_TOKEN);
		assert_false(own.completion.inexact);
	}
	world_free(&w);
}

/* Both directions full: nobody waits for the other to read first. */
static void test_no_deadlock(void **state)
{
	const struct soft_engine_options small = {.fpdu = 1448};
	struct posted p[2];
	struct world w;
	struct entry e;

	world_new(&w, &small, &small, 32 * MIB);
	connect_pd(&w.pair, 1);
	e = entry(&w, 0, 16 * MIB, 16 * MIB);
	fill(w.mb.map, w.mb.size, 3);
	fill(w.ma.map + 16 * MIB, 16 * MIB, 4);
	post(&w.pair.a, 1, NIC_READ, &e, 1, &p[0]);
	e = entry(&w, 16 * MIB, 0, 16 * MIB);
	post(&w.pair.a, 1, NIC_WRITE, &e, 1, &p[1]);
	run_until(&w.pair.loop, &p[1].done);
	run_until(&w.pair.loop, &p[0].done);
	assert_memory_equal(w.ma.map, w.mb.map + 16 * MIB, 16 * MIB);
	assert_memory_equal(w.mb.map, w.ma.map + 16 * MIB, 16 * MIB);
	world_free(&w);
}

/* Tags of several ranges in two memories, read and written across every boundary. */
static void multi_range(const struct soft_engine_options *o)
{
	enum { RANGES = 5, LENGTH = 3 * NICD_PAGE + 2 * NICD_PAGE + NICD_PAGE + 4 * NICD_PAGE + 100 };
	struct soft_tag_terms terms = {
		.generation = 1, .rights = NIC_REMOTE_READ | NIC_REMOTE_WRITE, .pd = PD, .iova = IOVA_B + 50, .length = LENGTH - 50,
		.n_ranges = RANGES,
	};
	static uint8_t expect[LENGTH];
	struct mem second;
	struct soft_tag *tag;
	struct world w;

	world_new(&w, o, o, MIB);
	second = mem_new(&w.pair.b, MIB);
	fill(w.mb.map, MIB, 5);
	fill(second.map, MIB, 6);
	terms.serial = ++w.pair.b.serial;
	terms.ranges[0].memory = w.mb.serial, terms.ranges[0].offset = 50, terms.ranges[0].length = 3 * NICD_PAGE - 50;
	terms.ranges[1].memory = second.serial, terms.ranges[1].offset = 8 * NICD_PAGE, terms.ranges[1].length = 2 * NICD_PAGE;
	terms.ranges[2].memory = w.mb.serial, terms.ranges[2].offset = 40 * NICD_PAGE, terms.ranges[2].length = NICD_PAGE;
	terms.ranges[3].memory = second.serial, terms.ranges[3].offset = 0, terms.ranges[3].length = 4 * NICD_PAGE;
	terms.ranges[4].memory = w.mb.serial, terms.ranges[4].offset = 50 * NICD_PAGE, terms.ranges[4].length = 4096;
	assert_int_equal(soft_tag_add(w.pair.b.tags, &terms, &tag, NULL), 0);
	memcpy(expect + 50, w.mb.map + 50, 3 * NICD_PAGE - 50);
	memcpy(expect + 3 * NICD_PAGE, second.map + 8 * NICD_PAGE, 2 * NICD_PAGE);
	memcpy(expect + 5 * NICD_PAGE, w.mb.map + 40 * NICD_PAGE, NICD_PAGE);
	memcpy(expect + 6 * NICD_PAGE, second.map, 4 * NICD_PAGE);
	memcpy(expect + 10 * NICD_PAGE, w.mb.map + 50 * NICD_PAGE, 100);
	connect_pd(&w.pair, 1);
	for (uint32_t from = 50; from < LENGTH; from += 1777) {
		for (uint32_t n = 1; n <= LENGTH - from; n = n * 3 + 1) {
			struct entry e = {w.ta->local_token, tag->remote_token, IOVA_A + 7, IOVA_B + from, n};
			struct posted p = transfer(&w.pair, 1, NIC_READ, &e, 1);

			assert_int_equal(p.error.reason, NICD_R_NONE);
			/* mutation: take the first range for all of it */
			assert_memory_equal(w.ma.map + 7, expect + from, n);
			fill(w.ma.map + 7, n, from + n);
			memcpy(expect + from, w.ma.map + 7, n);
			p = transfer(&w.pair, 1, NIC_WRITE, &e, 1);
			assert_int_equal(p.error.reason, NICD_R_NONE);
		}
	}
	assert_memory_equal(w.mb.map + 50, expect + 50, 3 * NICD_PAGE - 50);
	assert_memory_equal(second.map + 8 * NICD_PAGE, expect + 3 * NICD_PAGE, 2 * NICD_PAGE);
	assert_memory_equal(second.map, expect + 6 * NICD_PAGE, 4 * NICD_PAGE);
	world_free(&w);
	mem_free(&second);
}

static void test_multi_range(void **state)
{
	const struct soft_engine_options crc = {.crc = true};

	multi_range(NULL);
	multi_range(&crc);
}

/* ---- refused */

static struct posted refused(struct world *w, enum nic_operation operation, struct entry bad)
{
	struct entry list[4] = {entry(w, 0, 0, 10), entry(w, 20, 20, 10), bad, entry(w, 40, 40, 10)};
	unsigned closed = w->pair.a.closed, there = w->pair.b.closed;
	struct posted p, behind;
	static uint64_t number = 1;

	connect_pd(&w->pair, ++number);
	post(&w->pair.a, number, operation, list, 4, &p);
	post(&w->pair.a, number, operation, list, 1, &behind);
	run_until(&w->pair.loop, &behind.done);
	assert_true(p.done);
	/* mutation: blame the list behind, too */
	assert_true(behind.error.reason == NICD_R_QP_LOST || behind.error.reason == NICD_R_FLUSHED);
	run_until_at_least(&w->pair.loop, &w->pair.a.closed, closed + 1);
	run_until_at_least(&w->pair.loop, &w->pair.b.closed, there + 1);
	post(&w->pair.a, number, operation, list, 1, &behind);
	assert_int_equal(behind.error.reason, NICD_R_QP_STATE);
	return p;
}

static void test_refused(void **state)
{
	struct soft_tag *read_only, *write_only, *foreign, *exported, *local_read_only, *local_foreign;
	struct mem frozen;
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	frozen = mem_new(&w.pair.a, MIB);
	read_only = tag_new(&w.pair.b, &w.mb, PD, 0, NIC_REMOTE_READ, IOVA_B);
	write_only = tag_new(&w.pair.b, &w.mb, PD, 0, NIC_REMOTE_WRITE, IOVA_B);
	foreign = tag_new(&w.pair.b, &w.mb, OTHER_PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA_B);
	exported = tag_new(&w.pair.b, &w.mb, PD, EXPORT, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA_B);
	local_read_only = tag_new(&w.pair.a, &frozen, PD, 0, 0, IOVA_A);
	local_foreign = tag_new(&w.pair.a, &frozen, OTHER_PD, 0, NIC_LOCAL_WRITE, IOVA_A);
	{
		const struct entry good = entry(&w, 100, 100, 8);
		struct {
			enum nic_operation operation;
			struct entry bad;
			enum nicd_reason reason;
		} rows[] = {
			/* mutation: map all codes to REMOTE_TERMINATE */
			{NIC_READ, good, NICD_R_REMOTE_TOKEN}, {NIC_WRITE, good, NICD_R_REMOTE_TOKEN},
			{NIC_READ, good, NICD_R_REMOTE_RANGE}, {NIC_WRITE, good, NICD_R_REMOTE_RANGE},
			{NIC_READ, good, NICD_R_REMOTE_RIGHTS},
			/* DDP has no code for a missing right. */
			{NIC_WRITE, good, NICD_R_REMOTE_TOKEN},
			{NIC_READ, good, NICD_R_REMOTE_TOKEN}, {NIC_READ, good, NICD_R_REMOTE_TOKEN},
			{NIC_READ, good, NICD_R_REMOTE_TOKEN},
			{NIC_READ, good, NICD_R_LOCAL_TOKEN}, {NIC_WRITE, good, NICD_R_LOCAL_TOKEN},
			{NIC_READ, good, NICD_R_LOCAL_RANGE}, {NIC_WRITE, good, NICD_R_LOCAL_RANGE},
			{NIC_READ, good, NICD_R_LOCAL_RIGHTS}, {NIC_READ, good, NICD_R_LOCAL_TOKEN},
		};

		rows[0].bad.remote_token ^= 0x40;
		rows[1].bad.remote_token ^= 0x40;
		rows[2].bad.remote_addr = IOVA_B + MIB - 7;
		rows[3].bad.remote_addr = IOVA_B - 1;
		rows[4].bad.remote_token = write_only->remote_token;
		rows[5].bad.remote_token = read_only->remote_token;
		rows[6].bad.remote_token = foreign->remote_token;
		rows[7].bad.remote_token = exported->remote_token;
		rows[8].bad.remote_token = w.tb->local_token;
		/* mutation: look local tokens up among remote ones */
		rows[9].bad.local_token = w.tb->remote_token;
		rows[10].bad.local_token = 0;
		rows[11].bad.local_addr = IOVA_A + MIB - 7;
		rows[12].bad.length = MIB;
		rows[13].bad.local_token = local_read_only->local_token;
		/* mutation: check local tokens without the PD */
		rows[14].bad.local_token = local_foreign->local_token;
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			struct posted p = refused(&w, rows[i].operation, rows[i].bad);

			assert_int_equal(p.error.reason, rows[i].reason);
			/* mutation: blame the first entry */
			assert_int_equal(p.completion.failed, 2);
			assert_false(p.completion.inexact);
			assert_int_equal(p.completion.entries, 2);
			assert_int_equal(p.completion.bytes, 20);
		}
	}
	world_free(&w);
	mem_free(&frozen);
}

/* What an export's ticket opens: its own tag; not that of the MR behind it, not another export's. */
static void test_export_ticket(void **state)
{
	static const uint8_t secret[NICD_TICKET_SIZE] = "export";
	struct soft_tag *mine, *other;
	struct connected c;
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	mine = tag_new(&w.pair.b, &w.mb, PD, EXPORT, NIC_REMOTE_READ, IOVA_B);
	other = tag_new(&w.pair.b, &w.mb, PD, EXPORT + 1, NIC_REMOTE_READ, IOVA_B);
	ticket_new(&w.pair.b, secret, PD, EXPORT, 3, 60000);
	for (uint64_t i = 0; i < 3; i++) {
		uint32_t tokens[] = {mine->remote_token, other->remote_token, w.tb->remote_token};
		struct entry e = {w.ta->local_token, tokens[i], IOVA_A, IOVA_B, 100};
		struct posted p;

		connect_as(&w.pair, 10 + i, secret, 2000, &c);
		assert_int_equal(c.error.reason, NICD_R_NONE);
		assert_true(c.result.has_grant);
		assert_int_equal(c.result.grant.remote_token, 0x01020304);
		assert_int_equal(c.result.grant.length, 5);
		assert_string_not_equal(c.result.peer, "");
		p = transfer(&w.pair, 10 + i, NIC_READ, &e, 1);
		/* mutation: an inbound stream may name whatever its PD has */
		assert_int_equal(p.error.reason, i == 0 ? NICD_R_NONE : NICD_R_REMOTE_TOKEN);
	}
	world_free(&w);
}

/* ---- connecting */

/* However it fails, it takes the same time and says the same. */
static void test_failing_connects(void **state)
{
	static const uint8_t once[NICD_TICKET_SIZE] = "once", expired[NICD_TICKET_SIZE] = "expired",
			     unknown[NICD_TICKET_SIZE] = "unknown", dropped[NICD_TICKET_SIZE] = "dropped";
	const uint8_t *secrets[] = {once, expired, unknown, dropped, once, once};
	struct sockaddr_storage nobody = {.ss_family = AF_INET}, unix_addr = {.ss_family = AF_UNIX}, real;
	struct soft_connect_terms terms = {.pd = PD, .timeout_ms = 80};
	struct connected c;
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	real = w.pair.b.addr;
	((struct sockaddr_in *)&nobody)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	((struct sockaddr_in *)&nobody)->sin_port = htons(1);
	ticket_new(&w.pair.b, once, PD, 0, 1, 60000);
	ticket_new(&w.pair.b, expired, PD, 0, 1, 0);
	soft_ticket_drop(w.pair.b.tickets, ticket_new(&w.pair.b, dropped, PD, 0, 1, 60000));
	connect_as(&w.pair, 1, once, 1000, &c);
	assert_int_equal(c.error.reason, NICD_R_NONE);
	run_until_at_least(&w.pair.loop, &w.pair.b.opened, 1);
	for (uint64_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
		uint64_t start = uv_hrtime();

		c = (struct connected){0};
		terms.stream = 10 + i;
		terms.addr = i == 4 ? nobody : i == 5 ? unix_addr : real;
		memcpy(terms.ticket, secrets[i], NICD_TICKET_SIZE);
		uv_update_time(&w.pair.loop);
		soft_connect(w.pair.a.engine, &terms, on_connected, &c);
		run_until(&w.pair.loop, &c.done);
		assert_int_equal(c.error.reason, NICD_R_CONNECT);
		/* mutation: say so as soon as it is known */
		assert_true(uv_hrtime() - start >= 75000000);
	}
	assert_int_equal(w.pair.b.opened, 1);
	/* A number that is taken. */
	terms.stream = 1;
	c = (struct connected){0};
	soft_connect(w.pair.a.engine, &terms, on_connected, &c);
	assert_int_equal(c.error.reason, NICD_R_DEVICE_BUSY);
	world_free(&w);
}

static void test_abandoned_connect(void **state)
{
	struct soft_connect_terms terms = {.stream = 5, .pd = PD, .timeout_ms = 60000};
	struct soft_stream_info info;
	struct connected c = {0};
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	terms.addr = w.pair.b.addr;
	soft_connect(w.pair.a.engine, &terms, on_connected, &c);
	assert_true(soft_stream_info(w.pair.a.engine, 5, &info));
	assert_false(info.connected);
	assert_true(soft_disconnect(w.pair.a.engine, 5));
	assert_true(c.done);
	assert_int_equal(c.error.reason, NICD_R_CONNECT);
	assert_false(soft_stream_info(w.pair.a.engine, 5, &info));
	assert_false(soft_disconnect(w.pair.a.engine, 5));
	world_free(&w);
}

/* Over IPv6, by a listening socket that somebody else made. */
static void test_ipv6_and_listen_fd(void **state)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct posted p;
	struct entry e;
	struct world w;

	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 4) < 0) {
		print_message("# there is no IPv6\n");
		skip();
	}
	world_new(&w, NULL, NULL, MIB);
	assert_int_equal(soft_engine_listen_fd(w.pair.b.engine, fd, &w.pair.b.addr), 0);
	connect_pd(&w.pair, 1);
	e = entry(&w, 0, 0, 100000);
	fill(w.mb.map, MIB, 1);
	p = transfer(&w.pair, 1, NIC_READ, &e, 1);
	assert_int_equal(p.error.reason, NICD_R_NONE);
	assert_memory_equal(w.ma.map, w.mb.map, 100000);
	assert_int_equal(soft_engine_listen(w.pair.b.engine, (struct sockaddr *)&(struct sockaddr_in){.sin_family = AF_UNIX},
					    &w.pair.b.addr), -EAFNOSUPPORT);
	world_free(&w);
}

/* ---- looking and ending */

static void test_info(void **state)
{
	struct soft_engine_stats stats;
	struct soft_stream_info info;
	struct entry e;
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	for (uint64_t i = 3; i > 0; i--)
		connect_pd(&w.pair, i * 10);
	e = entry(&w, 0, 0, 1000);
	transfer(&w.pair, 20, NIC_WRITE, &e, 1);
	e.length = 77;
	transfer(&w.pair, 20, NIC_READ, &e, 1);
	assert_true(soft_stream_info(w.pair.a.engine, 20, &info));
	assert_true(info.connected);
	assert_int_equal(info.pd, PD);
	assert_int_equal(info.counters.bytes_written, 1000);
	assert_int_equal(info.counters.bytes_read, 77);
	assert_int_equal(info.counters.peer_read + info.counters.peer_written, 0);
	assert_true(soft_stream_next(w.pair.a.engine, 0, &info));
	assert_int_equal(info.stream, 10);
	assert_true(soft_stream_next(w.pair.a.engine, 20, &info));
	assert_int_equal(info.stream, 30);
	assert_false(soft_stream_next(w.pair.a.engine, 30, &info));
	assert_false(soft_stream_next(w.pair.a.engine, UINT64_MAX, &info));
	assert_true(soft_stream_next(w.pair.b.engine, 0, &info));
	assert_int_equal(info.stream >> 63, 1);
	soft_engine_stats(w.pair.b.engine, &stats);
	assert_int_equal(stats.streams, 3);
	world_free(&w);
}

/* Not yet on the wire: cancelled, and the stream goes on. On it: the stream ends, and nothing is placed any more. */
static void test_flush(void **state)
{
	struct posted p, q;
	struct entry e;
	struct world w;

	world_new(&w, NULL, NULL, 16 * MIB);
	connect_pd(&w.pair, 1);
	e = entry(&w, 0, 0, 16 * MIB);
	fill(w.mb.map, w.mb.size, 1);
	post(&w.pair.a, 1, NIC_READ, &e, 1, &p);
	soft_flush(w.pair.a.engine, 1);
	assert_true(p.done);
	assert_int_equal(p.error.reason, NICD_R_FLUSHED);
	e.length = 5;
	q = transfer(&w.pair, 1, NIC_READ, &e, 1);
	assert_int_equal(q.error.reason, NICD_R_NONE);

	e.length = 16 * MIB;
	post(&w.pair.a, 1, NIC_READ, &e, 1, &p);
	post(&w.pair.a, 1, NIC_READ, &e, 1, &q);
	while (w.ma.map[MIB] == 0 && w.ma.map[MIB + 1] == 0)
		uv_run(&w.pair.loop, UV_RUN_ONCE);
	assert_false(p.done);
	soft_flush(w.pair.a.engine, 1);
	assert_true(p.done && q.done);
	assert_int_equal(p.error.reason, NICD_R_FLUSHED);
	memset(w.ma.map, 0xaa, w.ma.size);
	run_until_at_least(&w.pair.loop, &w.pair.a.closed, 1);
	run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
	assert_int_equal(w.pair.a.why.reason, NICD_R_FLUSHED);
	/* mutation: leave the sink of a flushed read open */
	for (size_t i = 0; i < w.ma.size; i++)
		assert_int_equal(w.ma.map[i], 0xaa);
	soft_flush(w.pair.a.engine, 1);
	world_free(&w);
}

static void test_disconnect_amid_work(void **state)
{
	struct posted p;
	struct entry e;
	struct world w;

	world_new(&w, NULL, NULL, 16 * MIB);
	for (uint64_t i = 0; i < 2; i++) {
		connect_pd(&w.pair, i);
		e = entry(&w, 0, 0, 16 * MIB);
		post(&w.pair.a, i, i ? NIC_READ : NIC_WRITE, &e, 1, &p);
		for (int turn = 0; turn < 5; turn++)
			uv_run(&w.pair.loop, UV_RUN_ONCE);
		assert_true(soft_disconnect(w.pair.a.engine, i));
		assert_true(p.done);
		assert_int_equal(p.error.reason, NICD_R_FLUSHED);
		run_until_at_least(&w.pair.loop, &w.pair.b.closed, i + 1);
	}
	/* mutation: tell of the end that was asked for */
	assert_int_equal(w.pair.a.closed, 0);
	world_free(&w);
}

/* The responder's side ends it. */
static void test_disconnect_by_responder(void **state)
{
	struct posted p;
	struct entry e;
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	connect_pd(&w.pair, 1);
	assert_true(soft_disconnect(w.pair.b.engine, w.pair.b.stream));
	run_until_at_least(&w.pair.loop, &w.pair.a.closed, 1);
	assert_int_equal(w.pair.a.why.reason, NICD_R_PEER_CLOSED);
	assert_int_equal(w.pair.b.closed, 0);
	e = entry(&w, 0, 0, 1);
	post(&w.pair.a, 1, NIC_READ, &e, 1, &p);
	assert_int_equal(p.error.reason, NICD_R_QP_STATE);
	world_free(&w);
}

static void test_reset(void **state)
{
	struct soft_engine_stats stats;
	struct posted p;
	struct entry e;
	struct world w;

	world_new(&w, NULL, NULL, 16 * MIB);
	connect_pd(&w.pair, 1);
	e = entry(&w, 0, 0, 16 * MIB);
	post(&w.pair.a, 1, NIC_WRITE, &e, 1, &p);
	for (int turn = 0; turn < 3; turn++)
		uv_run(&w.pair.loop, UV_RUN_ONCE);
	soft_engine_reset(w.pair.a.engine);
	run_until(&w.pair.loop, &p.done);
	assert_int_equal(p.error.reason, NICD_R_FLUSHED);
	soft_engine_stats(w.pair.a.engine, &stats);
	assert_int_equal(stats.streams, 0);
	run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
	assert_int_equal(w.pair.a.closed, 0);
	connect_pd(&w.pair, 1);
	world_free(&w);
}

static void test_bad_posts(void **state)
{
	struct entry e[1] = {0};
	struct posted p;
	struct world w;

	world_new(&w, NULL, NULL, MIB);
	connect_pd(&w.pair, 1);
	post(&w.pair.a, 2, NIC_READ, e, 1, &p);
	assert_int_equal(p.error.reason, NICD_R_QP_STATE);
	post(&w.pair.a, 1, NIC_READ, e, 0, &p);
	assert_int_equal(p.error.reason, NICD_R_TRANSFER_ENTRIES);
	/* Zero bytes are a transfer like any other. */
	e[0] = entry(&w, 0, 0, 0);
	p = transfer(&w.pair, 1, NIC_READ, e, 1);
	assert_int_equal(p.error.reason, NICD_R_NONE);
	p = transfer(&w.pair, 1, NIC_WRITE, e, 1);
	assert_int_equal(p.error.reason, NICD_R_NONE);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_round_trips_small_frames),
		cmocka_unit_test(test_round_trips_crc),
		cmocka_unit_test(test_round_trips_crc_small_frames),
		cmocka_unit_test(test_long_lists),
		cmocka_unit_test(test_shallow_peer),
		cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_no_deadlock),
		cmocka_unit_test(test_multi_range),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_export_ticket),
		cmocka_unit_test(test_failing_connects),
		cmocka_unit_test(test_abandoned_connect),
		cmocka_unit_test(test_ipv6_and_listen_fd),
		cmocka_unit_test(test_info),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_disconnect_amid_work),
		cmocka_unit_test(test_disconnect_by_responder),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_bad_posts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
