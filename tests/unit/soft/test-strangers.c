/* SPDX-License-Identifier: MIT */
/*
 * What streams do to each other and to the engine: two that write at each other, clients that rewrite and punch the
 * memory under a transfer, and what an idle peer costs.
 *
 *   test-soft-strangers [TRANSFERS]
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raw.h"

#include "nicd/soft/stream.h"

enum { MIB = 1 << 20, IOVA = 0x7000000, LIST = 64, PIECE = 4096, LISTS = 4 };

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde";
static unsigned n_transfers = 4096;

static struct soft_stream *stream_of(struct host *host, uint64_t number)
{
	struct soft_stream *s;

	LIST_FOREACH(s, &host->engine->all, of_engine)
		if (s->number == number)
			break;
	assert_non_null(s);
	return s;
}

/* Every stream, whichever side made it, and the other way round, too: b connects to a. */
static void connect_both(struct pair *pair)
{
	struct soft_connect_terms terms = {.stream = 1, .pd = PD, .addr = pair->a.addr, .timeout_ms = 2000};
	struct connected c = {0};

	connect_pd(pair, 1);
	memcpy(terms.ticket, ticket, sizeof(terms.ticket));
	ticket_new(&pair->a, ticket, PD, 0, 1, 60000);
	soft_connect(pair->b.engine, &terms, on_connected, &c);
	run_until(&pair->loop, &c.done);
	assert_int_equal(c.error.reason, NICD_R_NONE);
}

/* ---- at each other */

static void small_buffers(struct soft_stream *s)
{
	const int out = 8192, in = 65536;   /* with less to receive loopback's segments of 64 KiB crawl */

	assert_int_equal(setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &out, sizeof(out)), 0);
	assert_int_equal(setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &in, sizeof(in)), 0);
}

static void all_small(struct host *host)
{
	struct soft_stream *s;

	LIST_FOREACH(s, &host->engine->all, of_engine)
		small_buffers(s);
}

/* One side's memory: what it gives away and where it takes to. Its writes and the answers to its reads meet on its own stream. */
struct side {
	struct host *host;
	struct mem mem;
	struct soft_tag *tag;
	struct posted posted[2];
};

static void side_init(struct side *side, struct host *host, size_t size, uint64_t seed)
{
	*side = (struct side){.host = host, .mem = mem_new(host, 4 * size)};
	fill(side->mem.map, 2 * size, seed);
	side->tag = tag_new(host, &side->mem, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	all_small(host);
}

/* Writes its first quarter to the other's third, and reads the other's second into its fourth. */
static void side_post(struct side *side, const struct side *other, uint32_t size)
{
	const struct entry write = {side->tag->local_token, other->tag->remote_token, IOVA, IOVA + 2 * size, size};
	const struct entry read = {side->tag->local_token, other->tag->remote_token, IOVA + 3 * size, IOVA + size, size};

	post(side->host, 1, NIC_READ, &read, 1, &side->posted[0]);
	post(side->host, 1, NIC_WRITE, &write, 1, &side->posted[1]);
}

static void both_ways(const struct soft_engine_options *options)
{
	enum { SIZE = 2 * MIB };
	struct side a, b;
	struct pair pair;

	pair_new(&pair, options, options);
	connect_both(&pair);
	side_init(&a, &pair.a, SIZE, 1);
	side_init(&b, &pair.b, SIZE, 2);
	side_post(&a, &b, SIZE);
	side_post(&b, &a, SIZE);
	/* mutation: read only when all is sent; send only when nothing is to be read */
	for (int i = 0; i < 2; i++) {
		run_until(&pair.loop, &a.posted[i].done);
		run_until(&pair.loop, &b.posted[i].done);
		assert_int_equal(a.posted[i].error.reason, NICD_R_NONE);
		assert_int_equal(b.posted[i].error.reason, NICD_R_NONE);
	}
	/* mutation: a frame of one message inside another */
	assert_memory_equal(b.mem.map + 2 * SIZE, a.mem.map, SIZE);
	assert_memory_equal(a.mem.map + 2 * SIZE, b.mem.map, SIZE);
	assert_memory_equal(a.mem.map + 3 * SIZE, b.mem.map + SIZE, SIZE);
	assert_memory_equal(b.mem.map + 3 * SIZE, a.mem.map + SIZE, SIZE);
	pair_free(&pair);
	mem_free(&a.mem);
	mem_free(&b.mem);
}

static void test_both_ways(void **state)
{
	const struct soft_engine_options crc = {.crc = true}, small = {.fpdu = 1448};

	both_ways(NULL);
	both_ways(&crc);
	both_ways(&small);
}

/* ---- memory that its client plays with */

/* A process that rewrites these and punches holes into them, and tries to shrink them, until it is killed. */
static pid_t vandal_start(const struct mem *mem, unsigned n)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint32_t i = 1;; i = i * 1664525 + 1013904223) {
		const struct mem *m = &mem[i % n];
		size_t at = (i >> 8) % (m->size / PIECE) * PIECE;

		memset(m->map + at, (int)(i >> 24), PIECE);
		if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, PIECE) < 0 || ftruncate(m->fd, 0) == 0)
			_exit(1);
	}
}

static void seal(const struct mem *mem)
{
	assert_int_equal(fcntl(mem->fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
}

/* A list over all of the memory, starting somewhere. */
static void list_make(struct entry *list, const struct soft_tag *local, const struct soft_tag *remote, size_t size, unsigned round)
{
	for (unsigned i = 0; i < LIST; i++) {
		uint64_t at = (uint64_t)(round * 7 + i) % (size / PIECE) * PIECE;

		list[i] = (struct entry){local->local_token, remote->remote_token, IOVA + at, IOVA + at, PIECE};
	}
}

static void vandals(const struct soft_engine_options *options)
{
	enum { SIZE = MIB };
	struct mem wild[2], tame[2];
	struct soft_tag *wild_tag[2], *tame_tag[2];
	struct entry list[LIST];
	struct posted p[LISTS];
	struct pair pair;
	int status;
	pid_t pid;

	pair_new(&pair, options, options);
	connect_both(&pair);
	connect_pd(&pair, 2);
	for (int i = 0; i < 2; i++) {
		struct host *host = i ? &pair.b : &pair.a;

		wild[i] = mem_new(host, SIZE);
		tame[i] = mem_new(host, SIZE);
		seal(&wild[i]);
		fill(tame[i].map, SIZE, 9);
		wild_tag[i] = tag_new(host, &wild[i], PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
		tame_tag[i] = tag_new(host, &tame[i], PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	}
	pid = vandal_start(wild, 2);
	for (unsigned done = 0, round = 0; done < n_transfers; done += 3 * LIST + 1, round++) {
		list_make(list, wild_tag[0], wild_tag[1], SIZE, round);
		post(&pair.a, 1, NIC_WRITE, list, LIST, &p[0]);
		post(&pair.a, 1, NIC_READ, list, LIST, &p[1]);
		post(&pair.b, 1, NIC_WRITE, &(struct entry){wild_tag[1]->local_token, wild_tag[0]->remote_token, IOVA, IOVA, SIZE}, 1, &p[2]);
		list_make(list, tame_tag[0], tame_tag[1], SIZE, round);
		memset(tame[0].map, 0, SIZE);
		post(&pair.a, 2, NIC_READ, list, LIST, &p[3]);
		for (int i = 0; i < LISTS; i++) {
			run_until(&pair.loop, &p[i].done);
			/* mutation: checksum memory that others write, or check it there; load or store it in user space */
			assert_int_equal(p[i].error.reason, NICD_R_NONE);
		}
		for (unsigned i = 0; i < LIST; i++) {
			uint64_t at = list[i].local_addr - IOVA;

			assert_memory_equal(tame[0].map + at, tame[1].map + at, PIECE);
		}
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));   /* it did not find a way to shrink them */
	assert_int_equal(pair.a.closed + pair.b.closed, 0);
	pair_free(&pair);
	for (int i = 0; i < 2; i++) {
		mem_free(&wild[i]);
		mem_free(&tame[i]);
	}
}

static void test_vandals(void **state)
{
	const struct soft_engine_options crc = {.crc = true};

	vandals(NULL);
	vandals(&crc);
}

/* ---- idle peers */

/* What a stream at work is lent goes back when it has nothing to do. */
static void test_idle(void **state)
{
	enum { READS = 60, SIZE = 1000 };
	const struct mpa_frame request = {.revision = 2, .enhanced = true, .ird = 4, .ord = 64};
	static uint8_t buf[FPDU_MAX];
	struct soft_stream *s;
	struct soft_tag *tag;
	struct host host;
	struct mem mem;
	struct raw raw;
	uv_loop_t loop;

	assert_int_equal(uv_loop_init(&loop), 0);
	host_new(&host, &loop, NULL);
	mem = mem_new(&host, SIZE);
	tag = tag_new(&host, &mem, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	ticket_new(&host, ticket, PD, 0, 1, 60000);
	raw = raw_connect(&host);
	raw_request(&raw, &request, ticket);
	assert_false(raw_reply(&raw, buf).reject);
	for (uint32_t i = 1; i <= READS; i++)
		raw_read(&raw, i, &(struct rdmap_read){.sink_stag = i, .size = SIZE, .source_stag = tag->remote_token, .source_to = IOVA});
	for (uint32_t i = 1; i <= READS; i++) {
		struct rdmap_header h;

		assert_int_equal(raw_frame(&raw, &h, buf), SIZE);
		/* mutation: lose the order, or a read, when the room for them grows */
		assert_int_equal(h.stag, i);
	}
	run_ms(&loop, 5);
	s = stream_of(&host, host.stream);
	/* mutation: keep room for as many reads as there ever were */
	assert_true(s->in_room <= STREAM_READS_KEPT);
	assert_null(s->out);
	/* mutation: a buffer for each stream */
	assert_null(s->rx.rest);
	assert_null(s->tx.half.staged);
	raw_send(&raw, "\0", 1);
	run_ms(&loop, 5);
	assert_int_equal(s->rx.rest_len, 1);
	raw_close(&raw);
	host_free(&host);
	assert_int_equal(uv_loop_close(&loop), 0);
	mem_free(&mem);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_vandals),
		cmocka_unit_test(test_idle),
	};

	if (argc > 1)
		n_transfers = (unsigned)strtoul(argv[1], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
