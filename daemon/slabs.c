/* SPDX-License-Identifier: MIT */
/*
 * A region is mapped when its first slab is taken and unmapped when its last is given back; struct slabs owns it
 * between. They are not malloc's, which would keep thousands of slabs until the last, and then give them back in one
 * long turn.
 */
#include "daemon/slabs.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

_Static_assert(SLABS_IN_REGION == 32, "a region's slabs are the bits of a word");

static int region_compare(const struct slabs_region *a, const struct slabs_region *b)
{
	return a->at < b->at ? -1 : a->at > b->at;
}
RB_GENERATE_INTERNAL(slabs_regions, slabs_region, by_address, region_compare, static __attribute__((unused)))

void slabs_init(struct slabs *slabs)
{
	*slabs = (struct slabs){ 0 };
	LIST_INIT(&slabs->open);
	RB_INIT(&slabs->regions);
}

void slabs_deinit(struct slabs *slabs)
{
	assert(!slabs->n_regions);
}

/* Aligned as huge pages are; NULL: no memory. */
static char *region_map(void)
{
	char *at = mmap(NULL, 2 * SLABS_REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t before;

	if (at == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)at % SLABS_REGION;
	if (before)
		(void)munmap(at, before);
	(void)munmap(at + before + SLABS_REGION, SLABS_REGION - before);
	return at + before;
}

static struct slabs_region *region_new(struct slabs *slabs)
{
	struct slabs_region *region = calloc(1, sizeof(*region));

	if (region)
		region->at = region_map();
	if (!region || !region->at) {
		free(region);
		return NULL;
	}
	/* The first one is all that a nicd with little to do ever has. */
	if (slabs->n_regions++)
		(void)madvise(region->at, SLABS_REGION, MADV_HUGEPAGE);
	LIST_INSERT_HEAD(&slabs->open, region, of_open);
	RB_INSERT(slabs_regions, &slabs->regions, region);
	return region;
}

static void region_free(struct slabs *slabs, struct slabs_region *region)
{
	LIST_REMOVE(region, of_open);
	RB_REMOVE(slabs_regions, &slabs->regions, region);
	slabs->n_regions--;
	/* A mapping may not be divided when there are too many already; then at least its memory goes. */
	if (munmap(region->at, SLABS_REGION) < 0)
		(void)madvise(region->at, SLABS_REGION, MADV_DONTNEED);
	free(region);
}

void *slabs_take(struct slabs *slabs)
{
	struct slabs_region *region = LIST_FIRST(&slabs->open);
	unsigned i;

	if (!region)
		region = region_new(slabs);
	if (!region)
		return NULL;
	i = (unsigned)__builtin_ctz(~region->used);
	region->used |= 1u << i;
	if (region->used == UINT32_MAX)
		LIST_REMOVE(region, of_open);
	return region->at + (size_t)i * NIC_SLAB;
}

void slabs_give(struct slabs *slabs, void *slab)
{
	size_t in_region = (uintptr_t)slab % SLABS_REGION;
	struct slabs_region key = { .at = (char *)slab - in_region };
	struct slabs_region *region = RB_FIND(slabs_regions, &slabs->regions, &key);
	uint32_t bit = 1u << in_region / NIC_SLAB;

	assert(region && region->used & bit && in_region % NIC_SLAB == 0);
	if (region->used == UINT32_MAX)
		LIST_INSERT_HEAD(&slabs->open, region, of_open);
	region->used &= ~bit;
	if (!region->used)
		region_free(slabs, region);
	else if (madvise(slab, NIC_SLAB, MADV_DONTNEED) < 0)   /* locked memory stays; the next one finds it zeroed all the same */
		memset(slab, 0, NIC_SLAB);
}
