/* SPDX-License-Identifier: MIT */
/*
 * A slab is a mapping of 1,024 items and, apart from it, what is known of them. Place 0 is nobody's: in the first slab
 * it is taken from the start, so that slab is never empty.
 */
#include "nicd/soft/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nicd/poison.h"

enum { FIRST_SLABS = 16, WORDS = SOFT_POOL_SLAB / 64 };

void soft_pool_init(struct soft_pool *pool, size_t size)
{
	*pool = (struct soft_pool){.size = size};
	LIST_INIT(&pool->open);
}

static void slab_free(struct soft_pool *pool, struct soft_slab *slab)
{
	pool->slabs[slab->first / SOFT_POOL_SLAB] = NULL;
	unpoison(slab->items, pool->size * SOFT_POOL_SLAB);
	munmap(slab->items, pool->size * SOFT_POOL_SLAB);
	free(slab);
}

void soft_pool_deinit(struct soft_pool *pool)
{
	for (uint32_t i = 0; i < pool->n_slabs; i++)
		if (pool->slabs[i])
			slab_free(pool, pool->slabs[i]);
	free(pool->slabs);
	soft_pool_init(pool, pool->size);
}

/* Where the next slab goes; what is copied are pointers, 8 bytes for 1,024 items. */
static int slabs_room(struct soft_pool *pool, uint32_t *ret)
{
	uint32_t max = pool->max_slabs ? pool->max_slabs * 2 : FIRST_SLABS;
	struct soft_slab **slabs;

	for (uint32_t i = 0; i < pool->n_slabs; i++)
		if (!pool->slabs[i]) {
			*ret = i;
			return 0;
		}
	if (pool->n_slabs == pool->max_slabs) {
		if (max > SOFT_PLACES / SOFT_POOL_SLAB)
			return -ENOMEM;
		slabs = realloc(pool->slabs, max * sizeof(struct soft_slab *));
		if (!slabs)
			return -ENOMEM;
		pool->slabs = slabs;
		pool->max_slabs = max;
	}
	pool->slabs[pool->n_slabs] = NULL;
	*ret = pool->n_slabs++;
	return 0;
}

static struct soft_slab *slab_new(struct soft_pool *pool)
{
	struct soft_slab *slab;
	uint32_t i;

	if (slabs_room(pool, &i) < 0)
		return NULL;
	slab = calloc(1, sizeof(*slab));
	if (!slab)
		return NULL;
	slab->items = mmap(NULL, pool->size * SOFT_POOL_SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (slab->items == MAP_FAILED) {
		free(slab);
		return NULL;
	}
	poison(slab->items, pool->size * SOFT_POOL_SLAB);
	slab->first = i * SOFT_POOL_SLAB;
	if (i == 0) {
		slab->used[0] = 1;
		slab->n_used = 1;
	} else {
		pool->empty = slab;
	}
	pool->slabs[i] = slab;
	LIST_INSERT_HEAD(&pool->open, slab, of_pool);
	return slab;
}

uint32_t soft_pool_take(struct soft_pool *pool)
{
	struct soft_slab *slab = LIST_FIRST(&pool->open);
	unsigned word = 0, bit;
	char *item;

	if (!slab)
		slab = slab_new(pool);
	if (!slab)
		return 0;
	while (slab->used[word] == UINT64_MAX)
		word++;
	bit = (unsigned)__builtin_ctzll(~slab->used[word]);
	slab->used[word] |= UINT64_C(1) << bit;
	if (pool->empty == slab)
		pool->empty = NULL;
	if (++slab->n_used == SOFT_POOL_SLAB)
		LIST_REMOVE(slab, of_pool);
	item = slab->items + (word * 64 + bit) * pool->size;
	unpoison(item, pool->size);
	memset(item, 0, pool->size);
	return slab->first + word * 64 + bit;
}

void soft_pool_give(struct soft_pool *pool, uint32_t place)
{
	struct soft_slab *slab = pool->slabs[place / SOFT_POOL_SLAB];
	unsigned at = place % SOFT_POOL_SLAB;

	assert(place != 0 && (slab->used[at / 64] & UINT64_C(1) << at % 64));
	poison(slab->items + at * pool->size, pool->size);
	slab->used[at / 64] &= ~(UINT64_C(1) << at % 64);
	if (slab->n_used-- == SOFT_POOL_SLAB)
		LIST_INSERT_HEAD(&pool->open, slab, of_pool);
	if (slab->n_used > 0)
		return;
	if (!pool->empty) {
		pool->empty = slab;
		return;
	}
	LIST_REMOVE(slab, of_pool);
	slab_free(pool, slab);
}

uint32_t soft_pool_next(const struct soft_pool *pool, uint32_t place)
{
	const struct soft_slab *slab = place < soft_pool_end(pool) ? pool->slabs[place / SOFT_POOL_SLAB] : NULL;
	unsigned at = place % SOFT_POOL_SLAB;

	for (unsigned word = at / 64; slab && word < WORDS; word++) {
		uint64_t used = slab->used[word];

		if (word == at / 64)
			used &= UINT64_MAX << at % 64;
		if (slab->first == 0 && word == 0)
			used &= ~UINT64_C(1);
		if (used)
			return slab->first + word * 64 + (unsigned)__builtin_ctzll(used);
	}
	return 0;
}
