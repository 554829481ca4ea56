/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A mapping, NDK's logical address map (NdkBuildLam): joined ranges of Memories at an address that is drawn here and names no physical memory.
 * Fast registrations name it, and work requests with the privileged token use its addresses.
 *
 *   BUILDING --ok--> BUILT --close, unused, dropped--> gone
 *
 * It belongs to its session, not to a PD, and its Memories are attached at the newest adapter. The device itself is told of it only when the owner may have
 * privileged tokens: nobody else can say its address to it.
 *
 * Closing drops the id at once and ends when no fast registration uses it and the device has no work under way in it. When the device goes away
 * its addresses mean nothing to the next one, but it can still be named by fast registrations.
 */
#include <bsd/sys/tree.h>

#include "nicd/range.h"

enum nic_mapping_state {
	NIC_MAPPING_BUILDING,
	NIC_MAPPING_BUILT,
	NIC_MAPPING_DROPPING,   /* the device is asked */
};

struct nic_mapping {
	struct nic_object object;
	RB_ENTRY(nic_mapping) by_address;    /* of the owner's */
	struct nic_adapter *adapter;         /* a user of it; NULL: it is lost */
	uint64_t address;                    /* of the first byte */
	uint64_t length;
	uint32_t users;
	enum nic_mapping_state state;
	bool closing;
	bool at_device;
	unsigned n_attached;                 /* BUILDING: the first of its ranges whose memories the device does not have */
	struct nic_charge charge, charge_pinned;
	struct nic_waiter waiter;
	struct nic_deadline deadline;        /* to ask again when the device refused to drop it */
	struct nic_cmd cmd;
	struct nic_done *done, *closed;
	unsigned n_ranges;
	struct nic_range ranges[];           /* each a user of its memory; together exactly `length` bytes */
};

/*
 * Checks everything before it takes anything. 0: done is called; *ret is valid from now on, and gone when done is called with an error. NO_ADAPTER;
 * those of nic_ranges_check; LENGTH_LIMIT; then QUOTA, NO_MEMORY.
 */
int nic_mapping_build(struct nic_mapping **ret, struct nic_owner *owner, struct nic_adapter *adapter, const struct nic_range *ranges,
		      unsigned n, struct nic_done *done, struct nicd_error *err);
/* Cannot fail. `done` may be NULL. */
void nic_mapping_close(struct nic_mapping *mapping, struct nic_done *done);

static inline uint32_t nic_mapping_first_byte(const struct nic_mapping *mapping)
{
	return (uint32_t)(mapping->address % NICD_PAGE);
}
/* Of NICD_PAGE bytes; the first and the last may be used in part. */
static inline uint64_t nic_mapping_pages(const struct nic_mapping *mapping)
{
	return (nic_mapping_first_byte(mapping) + mapping->length + NICD_PAGE - 1) / NICD_PAGE;
}
/* Its close may have to wait for what the owner has to end. */
static inline bool nic_mapping_busy(const struct nic_mapping *mapping)
{
	return mapping->users > 0 || mapping->at_device;
}
const char *nic_mapping_state_name(const struct nic_mapping *mapping);

/*
 * Only for nicd/. A fast registration uses it as long as its tag may be there; its Memories stay for as long. HANDLE: it is closing, or not
 * built yet.
 */
int nic_mapping_use(struct nic_mapping *mapping, struct nicd_error *err);
void nic_mapping_unuse(struct nic_mapping *mapping);   /* it may be gone afterwards */
void nic_mapping_lost(struct nic_mapping *mapping);
