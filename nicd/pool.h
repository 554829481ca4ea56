/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A pool of things of one size, for what there may be a million of. They lie in slabs of NIC_SLAB bytes, which cost less than an
 * allocation each and go back to the environment when they are empty (one is kept, for whoever comes and goes).
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "nicd/env.h"

struct nic_pool_slab;
LIST_HEAD(nic_pool_slabs, nic_pool_slab);

struct nic_pool {
	struct nic_env *env;
	uint32_t size, per_slab;
	struct nic_pool_slabs open;      /* those with room */
	struct nic_pool_slab *empty;     /* one of them */
	uint32_t n_slabs;
	uint64_t n_items;
};

/* `size`: a multiple of 8, small against NIC_SLAB. */
void nic_pool_init(struct nic_pool *pool, struct nic_env *env, size_t size);
/* Asserts that nothing is left in it. */
void nic_pool_deinit(struct nic_pool *pool);
/* Zeroed. *place is what nic_pool_give wants to know. NULL: out of memory. */
void *nic_pool_take(struct nic_pool *pool, uint16_t *place);
void nic_pool_give(struct nic_pool *pool, void *item, uint16_t place);
