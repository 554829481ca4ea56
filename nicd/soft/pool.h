/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Pools: things of one size, of which there may be millions, named by a place: 24 bits, never 0. They lie in slabs of
 * 1,024, mapped each for itself and given back when they are empty (one is kept), and do not move.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum { SOFT_POOL_SLAB = 1024, SOFT_PLACES = 1 << 24 };

struct soft_slab;

struct soft_pool {
	size_t size;
	struct soft_slab **slabs;   /* NULL: given back */
	uint32_t n_slabs, max_slabs;
	LIST_HEAD(, soft_slab) open;   /* those with room */
	struct soft_slab *empty;       /* one of them, without the others' place 0 */
};

struct soft_slab {
	char *items;
	uint32_t first;                /* its first place */
	uint32_t n_used;
	uint64_t used[SOFT_POOL_SLAB / 64];
	LIST_ENTRY(soft_slab) of_pool;
};

/* `size`: a multiple of 8. */
void soft_pool_init(struct soft_pool *pool, size_t size);
/* Whatever is in it goes with it. */
void soft_pool_deinit(struct soft_pool *pool);
/* Zeroed; 0: no memory, or no place left. */
uint32_t soft_pool_take(struct soft_pool *pool);
void soft_pool_give(struct soft_pool *pool, uint32_t place);
/* The first one that is taken from `place` on, looking at no more than one slab; 0: there is none in it, go on behind it. */
uint32_t soft_pool_next(const struct soft_pool *pool, uint32_t place);
/* Above all places there are. */
static inline uint32_t soft_pool_end(const struct soft_pool *pool)
{
	return pool->n_slabs * SOFT_POOL_SLAB;
}
static inline void *soft_pool_at(const struct soft_pool *pool, uint32_t place)
{
	return pool->slabs[place / SOFT_POOL_SLAB]->items + place % SOFT_POOL_SLAB * pool->size;
}
