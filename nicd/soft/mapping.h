/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Mappings of the software RNIC: logical address ranges of an owner, for posted work that names a privileged key. To the engine one is a tag that has no
 * token: it is found by owner and address when work is posted, and then named by its place, which the work keeps until it has ended. It has local
 * rights and no others.
 */
#include "nicd/soft/pool.h"
#include "nicd/soft/tag.h"

struct soft_mapping {
	struct soft_tag tag;        /* iova: the logical address; no tokens */
	uint64_t owner;
	uint32_t place;
	uint32_t works;             /* entries of posted work */
	bool dropping;              /* in no tree any more, waits for these */
	bool gone;                  /* and opens nothing already */
	void (*dropped)(void *userdata);
	void *userdata;
	RB_ENTRY(soft_mapping) by_address, by_serial;
};
RB_HEAD(soft_mapping_addresses, soft_mapping);
RB_HEAD(soft_mapping_serials, soft_mapping);

struct soft_mappings {
	struct soft_pool pool;
	struct soft_mapping_addresses by_address;   /* owner, then address */
	struct soft_mapping_serials by_serial;
	uint32_t n;
};

void soft_mappings_init(struct soft_mappings *mappings);
void soft_mappings_deinit(struct soft_mappings *mappings);
/* At once: what work there is in them finds nothing any more. */
void soft_mappings_drop_all(struct soft_tags *tags);

/*
 * terms: serial, iova, length, ranges; all checked again. Same serial: success. Where it overlaps another of its owner's: DEVICE_BUSY, with that one's
 * address as limit.
 */
int soft_mapping_add(struct soft_tags *tags, uint64_t owner, const struct soft_tag_terms *terms, struct nicd_error *err);
/* No new work finds it from now on. True: it is gone. False: `done` is called when the last work in it has ended. */
bool soft_mapping_drop(struct soft_tags *tags, uint64_t serial, void (*done)(void *userdata), void *userdata);

/* The place of the owner's mapping that has this address, or whose end it is; counted until soft_mapping_leave. 0: none. */
uint32_t soft_mapping_enter(struct soft_tags *tags, uint64_t owner, uint64_t addr);
void soft_mapping_leave(struct soft_tags *tags, uint32_t place);
/* Of one that was entered, as soft_tag_check: LOCAL_RANGE, LOCAL_RIGHTS (part of its memory is read-only). Only for local access. */
enum nicd_reason soft_mapping_check(struct soft_tags *tags, uint32_t place, uint64_t addr, uint64_t len, enum soft_access access,
				    struct soft_tag **ret);
