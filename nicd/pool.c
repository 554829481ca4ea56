/* SPDX-License-Identifier: MIT */
/*
 * Pools. A slab is a header, the links of its free places, and the places. It is owned by its pool from the first item
 * in it until the last has gone; nothing in a free place is ever read, so that a sanitizer may watch over it.
 */
#include "nicd/pool.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "nicd/poison.h"

enum { NO_PLACE = UINT16_MAX };

struct nic_pool_slab {
	LIST_ENTRY(nic_pool_slab) of_pool;   /* while it has room */
	uint16_t n_used, first_free;
	uint16_t next_free[];
};

/* Places follow the links, aligned for whatever is in them. */
static size_t places_at(uint32_t per_slab)
{
	return (sizeof(struct nic_pool_slab) + per_slab * sizeof(uint16_t) + 15) / 16 * 16;
}

static char *place_of(const struct nic_pool *pool, struct nic_pool_slab *slab, uint16_t place)
{
	return (char *)slab + places_at(pool->per_slab) + (size_t)place * pool->size;
}

void nic_pool_init(struct nic_pool *pool, struct nic_env *env, size_t size)
{
	uint32_t per_slab = (uint32_t)((NIC_SLAB - sizeof(struct nic_pool_slab) - 15) / (size + sizeof(uint16_t)));

	assert(size % 8 == 0 && per_slab > 16 && per_slab < NO_PLACE);
	*pool = (struct nic_pool){ .env = env, .size = (uint32_t)size, .per_slab = per_slab };
	LIST_INIT(&pool->open);
}

static void slab_free(struct nic_pool *pool, struct nic_pool_slab *slab)
{
	LIST_REMOVE(slab, of_pool);
	pool->n_slabs--;
	unpoison(slab, NIC_SLAB);
	pool->env->free(pool->env, slab, NIC_SLAB);
}

void nic_pool_deinit(struct nic_pool *pool)
{
	assert(pool->n_items == 0);
	if (pool->empty)
		slab_free(pool, pool->empty);
	pool->empty = NULL;
	assert(pool->n_slabs == 0);
}

static struct nic_pool_slab *slab_new(struct nic_pool *pool)
{
	struct nic_pool_slab *slab = pool->env->alloc(pool->env, NIC_SLAB);

	if (!slab)
		return NULL;
	for (uint32_t i = 0; i < pool->per_slab; i++)
		slab->next_free[i] = (uint16_t)(i + 1 < pool->per_slab ? i + 1 : NO_PLACE);
	poison(place_of(pool, slab, 0), (size_t)pool->per_slab * pool->size);
	LIST_INSERT_HEAD(&pool->open, slab, of_pool);
	pool->n_slabs++;
	pool->empty = slab;
	return slab;
}

void *nic_pool_take(struct nic_pool *pool, uint16_t *place)
{
	struct nic_pool_slab *slab = LIST_FIRST(&pool->open);
	void *item;

	if (!slab)
		slab = slab_new(pool);
	if (!slab)
		return NULL;
	if (pool->empty == slab)
		pool->empty = NULL;
	*place = slab->first_free;
	slab->first_free = slab->next_free[*place];
	slab->n_used++;
	if (slab->first_free == NO_PLACE)
		LIST_REMOVE(slab, of_pool);
	pool->n_items++;
	item = place_of(pool, slab, *place);
	unpoison(item, pool->size);
	memset(item, 0, pool->size);
	return item;
}

void nic_pool_give(struct nic_pool *pool, void *item, uint16_t place)
{
	struct nic_pool_slab *slab = (struct nic_pool_slab *)((char *)item - places_at(pool->per_slab) - (size_t)place * pool->size);
	bool full = slab->first_free == NO_PLACE;

	assert(slab->n_used > 0 && pool->n_items > 0);
	poison(item, pool->size);
	slab->next_free[place] = slab->first_free;
	slab->first_free = place;
	slab->n_used--;
	pool->n_items--;
	if (full)
		LIST_INSERT_HEAD(&pool->open, slab, of_pool);
	if (slab->n_used > 0)
		return;
	if (pool->empty)
		slab_free(pool, slab);
	else
		pool->empty = slab;
}
