/* SPDX-License-Identifier: MIT */
#pragma once
/* Ranges of Memories, as clients name them for a registration, a fast registration or a mapping: checked in one place. */
#include "nicd/memory.h"
#include "nicd/provider.h"

struct nic_range {
	struct nic_memory *memory;
	uint64_t offset;
	uint64_t length;
};

/*
 * Ranges that one address covers: every inner boundary is at a page of the memory on either side (`page` 0), or at one of `page` bytes,
 * and then the first range begins at one, too. *total is what they come to. COUNT (1 to NICD_RANGES); per range HANDLE (its memory is
 * closing), LENGTH_ZERO, RANGE_OVERFLOW, RANGE_BEYOND, RANGE_NOT_JOINED.
 */
int nic_ranges_check(const struct nic_range *ranges, unsigned n, uint64_t page, uint64_t *total, struct nicd_error *err);

/* The parts of `ranges` that [offset, offset + length) of them all is, as a device wants them; at most n. Returns how many. */
unsigned nic_ranges_cut(const struct nic_range *ranges, unsigned n, uint64_t offset, uint64_t length, struct nic_tag_range *ret);
/* The same, as ranges. */
unsigned nic_ranges_part(const struct nic_range *ranges, unsigned n, uint64_t offset, uint64_t length, struct nic_range *ret);

/* Reserves attachments for them; on failure none of this call's is left. QUOTA, NO_MEMORY. */
int nic_ranges_reserve(const struct nic_range *ranges, unsigned n, struct nic_adapter *adapter, struct nicd_error *err);
/*
 * Attaches one after the other, from *attached on, which counts them. True: all of them are. False: the waiter is called with what comes of
 * the one under way, and may ask again.
 */
bool nic_ranges_attach(const struct nic_range *ranges, unsigned n, unsigned *attached, struct nic_adapter *adapter, struct nic_waiter *waiter);
/* Those that were reserved, and not attached yet. */
void nic_ranges_cancel(const struct nic_range *ranges, unsigned n, struct nic_adapter *adapter);
