/* SPDX-License-Identifier: MIT */
/* Pools and indexes: what stands behind a million tags. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/soft/index.h"
#include "nicd/soft/pool.h"

enum { N = 100000 };

static uint64_t keys[N + 1];
static unsigned asked;

static uint64_t key_of(const void *owner, uint32_t place)
{
	asked++;
	return ((const uint64_t *)owner)[place];
}

/* mutation: lose what is in the old table, look only into one, or forget where a full bucket sent something */
static void test_grows_in_pieces(void **state)
{
	struct soft_index index;
	unsigned growing = 0;

	assert_int_equal(soft_index_init(&index, 1, key_of, keys), 0);
	for (uint32_t i = 1; i <= N; i++) {
		keys[i] = i * UINT64_C(0x1234567);
		asked = 0;
		assert_int_equal(soft_index_reserve(&index), 0);
		soft_index_add(&index, keys[i], i);
		/* mutation: move everything to the new table at once */
		assert_true(asked <= SOFT_BUCKET);
		growing += index.old.at != NULL;
		if (i % 97 == 0 || index.old.at)
			for (uint32_t k = 1; k <= i; k += 1 + i / 20)
				assert_int_equal(soft_index_find(&index, keys[k]), k);
		assert_int_equal(soft_index_find(&index, keys[i] + 1), 0);
	}
	assert_true(growing > 1000);
	assert_int_equal(index.used, N);
	/* mutation: grow by more than half, or leave more room than 15 % and a growth: a tag would cost more than 64 bytes */
	assert_true((uint64_t)index.now.n * sizeof(struct soft_bucket) * 3 / N <= 23);
	for (uint32_t i = 1; i <= N; i += 2)
		soft_index_remove(&index, keys[i], i);
	for (uint32_t i = 1; i <= N; i++)
		assert_int_equal(soft_index_find(&index, keys[i]), i % 2 ? 0 : i);
	for (uint32_t i = 2; i <= N; i += 2)
		soft_index_remove(&index, keys[i], i);
	for (uint32_t i = 0; i < index.now.n; i++)
		assert_int_equal(index.now.at[i].passed, 0);
	soft_index_deinit(&index);
}

/* Keys that all want the same bucket: those that come after it is full pass it, and are found, and leave nothing behind. */
static void test_full_bucket(void **state)
{
	enum { SAME = 200 };
	struct soft_index index;
	uint32_t n = 0;

	assert_int_equal(soft_index_init(&index, 1, key_of, keys), 0);
	for (uint64_t key = 1; n < SAME; key++)
		if ((uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32) >> 26 == 63)
			keys[++n] = key;
	for (uint32_t i = 1; i <= SAME; i++)
		soft_index_add(&index, keys[i], i);
	/* mutation: stop at the end of the table */
	assert_true(index.now.at[0].slots[0].place != 0);
	for (uint32_t i = SAME; i >= 1; i -= 1) {
		assert_int_equal(soft_index_find(&index, keys[i]), i);
		if (i % 3)
			soft_index_remove(&index, keys[i], i);
	}
	for (uint32_t i = 1; i <= SAME; i++)
		assert_int_equal(soft_index_find(&index, keys[i]), i % 3 ? 0 : i);
	for (uint32_t i = 3; i <= SAME; i += 3)
		soft_index_remove(&index, keys[i], i);
	for (uint32_t i = 0; i < index.now.n; i++)
		assert_int_equal(index.now.at[i].passed, 0);
	soft_index_deinit(&index);
}

/* mutation: hand out place 0 or one place twice, let items overlap, keep empty slabs */
static void test_pool(void **state)
{
	enum { ITEMS = 10 * SOFT_POOL_SLAB };
	static uint32_t places[ITEMS];
	struct soft_pool pool;
	uint32_t n = 0, at = 0, kept = 0;

	soft_pool_init(&pool, 40);
	for (unsigned i = 0; i < ITEMS; i++) {
		uint64_t *item;

		places[i] = soft_pool_take(&pool);
		assert_int_not_equal(places[i], 0);
		item = soft_pool_at(&pool, places[i]);
		for (unsigned k = 0; k < 5; k++) {
			assert_int_equal(item[k], 0);
			item[k] = places[i];
		}
	}
	while (at < soft_pool_end(&pool)) {
		uint32_t place = soft_pool_next(&pool, at);

		n += place != 0;
		at = place ? place + 1 : (at / SOFT_POOL_SLAB + 1) * SOFT_POOL_SLAB;
	}
	assert_int_equal(n, ITEMS);
	for (unsigned i = 0; i < ITEMS; i++) {
		unsigned j = i * 7919 % ITEMS;
		const uint64_t *item = soft_pool_at(&pool, places[j]);

		for (unsigned k = 0; k < 5; k++)
			assert_int_equal(item[k], places[j]);
		soft_pool_give(&pool, places[j]);
		assert_int_not_equal(soft_pool_next(&pool, places[j]), places[j]);
	}
	for (uint32_t i = 0; i < pool.n_slabs; i++)
		kept += pool.slabs[i] != NULL;
	assert_true(kept <= 2);
	assert_int_not_equal(soft_pool_take(&pool), 0);
	soft_pool_deinit(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows_in_pieces),
		cmocka_unit_test(test_full_bucket),
		cmocka_unit_test(test_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
