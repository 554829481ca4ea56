/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Indexes: from a key to the place (pool.h) of what has it. An index keeps the places only, four bytes each, and asks
 * its owner for the key of one: so a token is not stored twice.
 *
 * Places are in buckets of a cache line. One that finds its bucket full goes into a later one, and each bucket counts
 * what passed it that way: a search ends at the first that nothing passed, and removing leaves nothing behind. An index
 * grows by half into a new table, a bucket of the old one with every element that comes or goes, so that growing never
 * takes long.
 */
#include <stdint.h>

enum { SOFT_BUCKET = 15 };

struct soft_bucket {
	struct {
		uint32_t place : 24;    /* 0: free */
		uint32_t mark : 8;      /* of the key's hash: nearly all others are told apart without asking the owner */
	} slots[SOFT_BUCKET];
	uint32_t passed;
};
_Static_assert(sizeof(struct soft_bucket) == 64, "a bucket is a cache line");

struct soft_buckets {
	struct soft_bucket *at;
	uint32_t n;
};

struct soft_index {
	struct soft_buckets now, old;   /* old: being emptied; at NULL: none */
	uint32_t emptied;               /* buckets of it */
	uint32_t used;
	uint64_t (*key)(const void *owner, uint32_t place);
	const void *owner;
};

/* Has room for `room` elements from the start, and does not have to grow for them. -ENOMEM. */
int soft_index_init(struct soft_index *index, uint32_t room, uint64_t (*key)(const void *owner, uint32_t place), const void *owner);
void soft_index_deinit(struct soft_index *index);
/* Room for one more, so that adding cannot fail. -ENOMEM. */
int soft_index_reserve(struct soft_index *index);
/* When it is added, and until it is removed, the owner must know its key. No key twice. */
void soft_index_add(struct soft_index *index, uint64_t key, uint32_t place);
void soft_index_remove(struct soft_index *index, uint64_t key, uint32_t place);
/* 0: nobody has it. */
uint32_t soft_index_find(const struct soft_index *index, uint64_t key);
void soft_index_prefetch(const struct soft_index *index, uint64_t key);
