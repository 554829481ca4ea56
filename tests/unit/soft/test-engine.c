/* SPDX-License-Identifier: MIT */
/* Two engines on loopback: transfers that must work, and how refused ones end. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_round_trips_small_frames),
		cmocka_unit_test(test_round_trips_crc),
		cmocka_unit_test(test_round_trips_crc_small_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
