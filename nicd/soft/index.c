/* SPDX-License-Identifier: MIT */
/* The tables of an index are mapped, so that the memory of a large one comes as it is used. */
#include "nicd/soft/index.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

enum {
	FIRST_BUCKETS = 64,     /* a page */
	FULL_PERCENT = 85,      /* of the slots */
};

/* Keys may be any numbers; what is taken of them is spread over 32 bits. */
static uint32_t hash_of(uint64_t key)
{
	return (uint32_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32);
}

static struct soft_bucket *home_of(const struct soft_buckets *buckets, uint32_t hash)
{
	return &buckets->at[(uint64_t)hash * buckets->n >> 32];
}

static struct soft_bucket *next_of(const struct soft_buckets *buckets, struct soft_bucket *bucket)
{
	return ++bucket == buckets->at + buckets->n ? buckets->at : bucket;
}

static uint32_t room_of(const struct soft_buckets *buckets)
{
	return (uint32_t)((uint64_t)buckets->n * SOFT_BUCKET * FULL_PERCENT / 100);
}

/* ---- one table */

static int buckets_map(struct soft_buckets *buckets, uint32_t n)
{
	void *at = mmap(NULL, (size_t)n * sizeof(struct soft_bucket), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	*buckets = (struct soft_buckets){.at = at, .n = n};
	return 0;
}

static void buckets_unmap(struct soft_buckets *buckets)
{
	if (buckets->at)
		munmap(buckets->at, (size_t)buckets->n * sizeof(struct soft_bucket));
	*buckets = (struct soft_buckets){0};
}

static void buckets_add(struct soft_buckets *buckets, uint32_t hash, uint32_t place)
{
	struct soft_bucket *bucket = home_of(buckets, hash);

	for (;; bucket = next_of(buckets, bucket)) {
		for (unsigned i = 0; i < SOFT_BUCKET; i++)
			if (bucket->slots[i].place == 0) {
				bucket->slots[i].place = place & 0xffffff;
				bucket->slots[i].mark = hash & 0xff;
				return;
			}
		bucket->passed++;
	}
}

/* The bucket that has it, or NULL. */
static struct soft_bucket *buckets_search(const struct soft_buckets *buckets, uint32_t hash, uint32_t place, unsigned *slot)
{
	struct soft_bucket *bucket = home_of(buckets, hash);

	for (uint32_t n = buckets->n; n > 0; n--) {
		for (unsigned i = 0; i < SOFT_BUCKET; i++)
			if (bucket->slots[i].place == place) {
				*slot = i;
				return bucket;
			}
		if (bucket->passed == 0)
			break;
		bucket = next_of(buckets, bucket);
	}
	return NULL;
}

static bool buckets_remove(struct soft_buckets *buckets, uint32_t hash, uint32_t place)
{
	unsigned slot;
	struct soft_bucket *has = buckets_search(buckets, hash, place, &slot), *bucket = home_of(buckets, hash);

	if (!has)
		return false;
	has->slots[slot].place = 0;
	for (; bucket != has; bucket = next_of(buckets, bucket))
		bucket->passed--;
	return true;
}

static uint32_t buckets_find(const struct soft_index *index, const struct soft_buckets *buckets, uint64_t key)
{
	uint32_t hash = hash_of(key);
	struct soft_bucket *bucket = home_of(buckets, hash);

	for (uint32_t n = buckets->n; n > 0; n--) {
		for (unsigned i = 0; i < SOFT_BUCKET; i++) {
			uint32_t place = bucket->slots[i].place;

			if (bucket->slots[i].mark == (hash & 0xff) && place && index->key(index->owner, place) == key)
				return place;
		}
		if (bucket->passed == 0)
			break;
		bucket = next_of(buckets, bucket);
	}
	return 0;
}

/* ---- the index */

int soft_index_init(struct soft_index *index, uint32_t room, uint64_t (*key)(const void *owner, uint32_t place), const void *owner)
{
	uint32_t n = (uint32_t)((uint64_t)room * 100 / FULL_PERCENT / SOFT_BUCKET) + 1;

	*index = (struct soft_index){.key = key, .owner = owner};
	return buckets_map(&index->now, n > FIRST_BUCKETS ? n : FIRST_BUCKETS);
}

void soft_index_deinit(struct soft_index *index)
{
	buckets_unmap(&index->now);
	buckets_unmap(&index->old);
}

/* Moves one bucket of the old table. */
static void index_move(struct soft_index *index)
{
	struct soft_bucket *bucket;

	if (!index->old.at)
		return;
	bucket = &index->old.at[index->emptied];
	for (unsigned i = 0; i < SOFT_BUCKET; i++) {
		uint32_t place = bucket->slots[i].place, hash;

		if (!place)
			continue;
		hash = hash_of(index->key(index->owner, place));
		buckets_remove(&index->old, hash, place);
		buckets_add(&index->now, hash, place);
	}
	if (++index->emptied == index->old.n)
		buckets_unmap(&index->old);
}

int soft_index_reserve(struct soft_index *index)
{
	struct soft_buckets grown;

	if (index->used < room_of(&index->now))
		return 0;
	/* There were 15 moved with each that came: long done. */
	assert(!index->old.at);
	if (buckets_map(&grown, index->now.n + index->now.n / 2) < 0)
		return -ENOMEM;
	index->old = index->now;
	index->now = grown;
	index->emptied = 0;
	return 0;
}

void soft_index_add(struct soft_index *index, uint64_t key, uint32_t place)
{
	buckets_add(&index->now, hash_of(key), place);
	index->used++;
	index_move(index);
}

void soft_index_remove(struct soft_index *index, uint64_t key, uint32_t place)
{
	uint32_t hash = hash_of(key);
	bool found = buckets_remove(&index->now, hash, place) || (index->old.at && buckets_remove(&index->old, hash, place));

	assert(found);
	(void)found;
	index->used--;
	index_move(index);
}

uint32_t soft_index_find(const struct soft_index *index, uint64_t key)
{
	uint32_t place = buckets_find(index, &index->now, key);

	return place || !index->old.at ? place : buckets_find(index, &index->old, key);
}

void soft_index_prefetch(const struct soft_index *index, uint64_t key)
{
	__builtin_prefetch(home_of(&index->now, hash_of(key)));
}
