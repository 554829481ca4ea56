/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Where the slabs of the NIC layer come from (NIC_SLAB bytes each): cut from regions of 2 MiB, so that the processor
 * finds its way through a million objects with few entries of its tables; the kernel is asked for huge pages once there
 * is more than one region. What a slab used goes back to the kernel with it, and a region with its last slab.
 */
#include <bsd/sys/tree.h>
#include <stdint.h>
#include <sys/queue.h>

#include "nicd/env.h"

enum { SLABS_REGION = 2 * 1024 * 1024, SLABS_IN_REGION = SLABS_REGION / NIC_SLAB };

struct slabs_region {
	char *at;
	uint32_t used;                        /* a bit for each slab */
	LIST_ENTRY(slabs_region) of_open;     /* while one is free */
	RB_ENTRY(slabs_region) by_address;
};
RB_HEAD(slabs_regions, slabs_region);

struct slabs {
	LIST_HEAD(, slabs_region) open;
	struct slabs_regions regions;
	uint32_t n_regions;
};

void slabs_init(struct slabs *slabs);
/* Zeroed; NULL: no memory. */
void *slabs_take(struct slabs *slabs);
void slabs_give(struct slabs *slabs, void *slab);
/* Asserts that all have been given back. */
void slabs_deinit(struct slabs *slabs);
