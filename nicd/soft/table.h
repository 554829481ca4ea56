/* SPDX-License-Identifier: MIT */
#pragma once
/* The inside of struct soft_tags, for memory.c and tag.c only. */
#include <sys/queue.h>

#include "nicd/soft/tag.h"
#include "nicd/soft/token.h"

RB_HEAD(soft_memories, soft_memory);
RB_HEAD(soft_tags_tree, soft_tag);
STAILQ_HEAD(soft_unmapping, soft_memory);

struct soft_tag_slab;
struct soft_tag_spare;

struct soft_tags {
	struct soft_tokens tokens;
	struct soft_tags_tree tags;
	uint64_t n_tags;
	SLIST_HEAD(, soft_tag_spare) spare;  /* room in slabs for tags of one range */
	SLIST_HEAD(, soft_tag_slab) slabs;
	struct soft_memories memories;
	uint64_t n_memories;
	uint32_t n_mappings, max_mappings;   /* 0: no limit */
	struct soft_unmapping unmapping;     /* in the order of their detach */
};

/* Unmaps everything; the done callbacks of detaches under way are called. */
void soft_memories_deinit(struct soft_tags *tags);
/* Starts unmapping one. No tag may be left. True: there are more. */
bool soft_memories_reset_step(struct soft_tags *tags);
