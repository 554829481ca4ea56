/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Privileged keys of the software RNIC, one of a PD at most. A key is not a token of a tag: it is in a table of its own, in memory that no core dump has,
 * and its only use is soft_key_is, which the local side of posted work asks. What comes from a peer is refused when it is a key, before anything
 * else is looked up: soft_keys_have.
 */
#include <stdbool.h>
#include <stdint.h>

#include "nicd/ptok.h"
#include "nicd/soft/index.h"
#include "proto/reason.h"

struct soft_tags;

enum { SOFT_KEYS = 1 << 16, SOFT_KEY_MARKS = 1 << 12 };

struct soft_key {
	uint64_t pd, owner;      /* serials: of the PD, and of the session whose mappings it opens */
	uint32_t next_free;
};

struct soft_keys {
	struct nic_ptok *values; /* SOFT_KEYS, by place */
	/* How many keys there are of each hash, behind the values: what peers say is nearly always told apart by one look. */
	uint16_t *marks;
	struct soft_key *keys;   /* by place; place 0 is nobody's */
	struct soft_index by_value, by_pd;
	uint32_t n, n_places, max_places, first_free;
};

/* It must not be moved. -ENOMEM. */
int soft_keys_init(struct soft_keys *keys);
void soft_keys_deinit(struct soft_keys *keys);
static inline uint32_t soft_key_mark(uint32_t number)
{
	return number * 2654435761u >> 20;
}
static inline bool soft_keys_have(const struct soft_keys *keys, uint32_t number)
{
	return keys->marks[soft_key_mark(number)] && soft_index_find(&keys->by_value, number);
}

/* Said again, it answers what it answered before. DEVICE_BUSY (another owner's), SERIAL, TAGS_EXHAUSTED, NO_MEMORY. */
int soft_key_add(struct soft_tags *tags, uint64_t pd, uint64_t owner, struct nic_ptok *ret, struct nicd_error *err);
void soft_key_drop(struct soft_tags *tags, uint64_t pd);
void soft_keys_drop_all(struct soft_tags *tags);
/* Of this PD; NULL: it has none. Valid until keys come or go. */
const struct soft_key *soft_key_of(const struct soft_tags *tags, uint64_t pd);
/* Is what a client said as a local token this key? */
bool soft_key_is(const struct soft_tags *tags, const struct soft_key *key, uint32_t said);
