/* SPDX-License-Identifier: MIT */
/* Pools, and what a million MRs come to in tables and pools: counted in bytes asked for, at a size that a test has time for. */
#include "tests/unit/nic/rig.h"

#include <string.h>

enum { SIZE = 160, ITEMS = 5000 };

static struct {
	unsigned char *ptr;
	uint16_t place;
} items[ITEMS];

static void take(struct nic_pool *pool, unsigned i)
{
	items[i].ptr = nic_pool_take(pool, &items[i].place);
	assert_non_null(items[i].ptr);
	for (unsigned k = 0; k < SIZE; k++)
		assert_int_equal(items[i].ptr[k], 0);
	memset(items[i].ptr, 1 + (int)(i % 255), SIZE);
}

static void check_and_give(struct nic_pool *pool, unsigned i)
{
	for (unsigned k = 0; k < SIZE; k++)
		assert_int_equal(items[i].ptr[k], 1 + i % 255);
	nic_pool_give(pool, items[i].ptr, items[i].place);
}

/* mutation: hand out a place twice, let places overlap, or do not clear what was there before */
static void test_items_are_apart(void **state)
{
	struct fake_env env;
	struct nic_pool pool;

	fake_env_init(&env);
	nic_pool_init(&pool, &env.env, SIZE);
	for (unsigned lap = 0; lap < 3; lap++) {
		for (unsigned i = 0; i < ITEMS; i++)
			take(&pool, i);
		for (unsigned i = 0; i < ITEMS; i += 3)
			check_and_give(&pool, i);
		for (unsigned i = 0; i < ITEMS; i += 3)
			take(&pool, i);
		for (unsigned i = 0; i < ITEMS; i++)
			check_and_give(&pool, (i * 7919) % ITEMS);
		assert_int_equal(pool.n_items, 0);
	}
	nic_pool_deinit(&pool);
	assert_int_equal(env.live_blocks, 0);
}

/* mutation: keep empty slabs, or give one back when it is the last: then one item that comes and goes costs a slab each time */
static void test_slabs_go_back(void **state)
{
	struct fake_env env;
	struct nic_pool pool;
	unsigned long allocs;

	fake_env_init(&env);
	nic_pool_init(&pool, &env.env, SIZE);
	for (unsigned i = 0; i < ITEMS; i++)
		take(&pool, i);
	assert_int_equal(pool.n_slabs, (ITEMS + pool.per_slab - 1) / pool.per_slab);
	assert_true(env.live_bytes <= (uint64_t)pool.n_slabs * NIC_SLAB);
	for (unsigned i = 0; i < ITEMS; i++)
		check_and_give(&pool, i);
	assert_int_equal(pool.n_slabs, 1);
	allocs = env.allocs;
	for (unsigned i = 0; i < 100; i++) {
		take(&pool, 0);
		check_and_give(&pool, 0);
	}
	assert_int_equal(env.allocs, allocs);
	env.fail_at = env.allocs + 1;
	for (unsigned i = 0; i < pool.per_slab; i++)
		take(&pool, i);
	assert_null(nic_pool_take(&pool, &items[pool.per_slab].place));
	for (unsigned i = 0; i < pool.per_slab; i++)
		check_and_give(&pool, i);
	nic_pool_deinit(&pool);
	assert_int_equal(env.live_blocks, 0);
}

/* mutation: put anything of more than 8 bytes into struct nic_mr, or allocate something for each */
static void test_bytes_of_an_mr(void **state)
{
	enum { N = 20000 };
	static struct nic_mr *mrs[N];
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	uint64_t before;

	rig_registered(rig);   /* what the first one brings for all */
	before = rig->env.live_bytes;
	for (unsigned i = 0; i < N; i++) {
		mrs[i] = rig_mr(rig);
		assert_int_equal(rig_register(mrs[i], rig->memory, i % 16, 1, NIC_REMOTE_READ, &done), 0);
		assert_ended(done);
	}
	assert_true((rig->env.live_bytes - before) / N < 184);
	for (unsigned i = 0; i < N; i += 2) {
		assert_int_equal(nic_mr_deregister(mrs[i], rig_done(&done), NULL), 0);
		assert_ended(done);
	}
	/* What a revocation needs does not stay with the MR. */
	assert_true((rig->env.live_bytes - before) / N < 184);
	assert_true(rig->nic.n_spare_ops < 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items_are_apart),
		cmocka_unit_test(test_slabs_go_back),
		rig_test(test_bytes_of_an_mr),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
