/* SPDX-License-Identifier: MIT */
#pragma once
/* The inside of struct soft_tags, for key.c, mapping.c, memory.c and tag.c only. */
#include <sys/queue.h>

#include "nicd/soft/key.h"
#include "nicd/soft/mapping.h"
#include "nicd/soft/pool.h"
#include "nicd/soft/tag.h"
#include "nicd/soft/token.h"

RB_HEAD(soft_memories, soft_memory);
RB_HEAD(soft_homes, soft_home);
STAILQ_HEAD(soft_unmapping, soft_memory);
TAILQ_HEAD(soft_populating, soft_memory);

/*
 * What tags have in common: where they are and who may use them. A million tags over a few Memories have few homes. A tag that has
 * more to say (several ranges, 4 GiB and more, a door, one stream, an iova unlike its offset) has a home of its own, with ranges and length.
 */
struct soft_home {
	uint32_t place;
	uint32_t n_tags;
	uint64_t pd, door;
	uint32_t rights;
	uint16_t n_ranges;               /* 0: shared */
	bool window;                     /* not shared: of one stream */
	bool reserved;                   /* of no memory: its tokens open nothing */
	uint64_t length;                 /* not shared */
	struct soft_memory *memory;      /* shared */
	struct soft_tag_range *ranges;   /* not shared */
	union {
		RB_ENTRY(soft_home) of_tags;     /* shared */
		struct {
			LIST_ENTRY(soft_home) of_stream;
			uint64_t stream;
			uint32_t tag;            /* the place of the only one that it is for */
		} only;                          /* of a window */
	};
};

enum { SOFT_USES = 4096 };

struct soft_tags {
	struct soft_tokens tokens;
	struct soft_index by_serial;
	struct soft_pool pool, home_pool;    /* struct soft_tag, struct soft_home */
	struct soft_homes homes;
	LIST_HEAD(, soft_use) uses[SOFT_USES];   /* by tag */
	struct soft_keys keys;
	struct soft_mappings mappings;
	uint32_t n_tags;
	uint32_t reserved;                   /* the place of the home of all reserved ones; 0: there are none */
	uint32_t reset;                      /* the place up to which a reset has come */
	struct soft_memories memories;
	uint64_t n_memories;
	uint32_t n_mappings, max_mappings;   /* 0: no limit */
	struct soft_unmapping unmapping;     /* in the order of their detach */
	struct soft_populating populating;
};

/* Starts unmapping one. No tag may be left. True: there are more. */
bool soft_memories_reset_step(struct soft_tags *tags);

/* A tag without tokens, which is in no index: checked like any other, and its Memories held, until soft_tag_bare_end, which cuts whoever is in it. */
int soft_tag_bare(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_tag *ret, struct nicd_error *err);
void soft_tag_bare_end(struct soft_tags *tags, struct soft_tag *tag);
/* Of soft_tag_check what is about the tag: its rights, then its range. */
enum nicd_reason soft_tag_allows(const struct soft_tags *tags, struct soft_tag *tag, uint64_t addr, uint64_t len, enum soft_access access,
				 struct soft_tag **ret);
