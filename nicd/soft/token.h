/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Tokens by value: which are live and what they name, which were released too lately to be drawn again, and drawing new ones. Only for
 * tag.c; everybody else goes through soft_tag_check.
 *
 * Live tokens of the two kinds are in two maps, so that a local one is never found where a remote one is asked for, and the other way
 * round. Both maps and the quarantine's set are open-addressed with the token itself as hash: tokens are uniformly random and
 * drawn by us, a stranger only chooses which ones to ask for.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct soft_tag;

enum {
	SOFT_QUARANTINE_MS = 10000,
	SOFT_QUARANTINE_MAX = 1 << 20,
};

struct soft_token_slot {
	uint32_t token;   /* 0: free */
	struct soft_tag *tag;
};
struct soft_token_map {
	struct soft_token_slot *slots;
	uint32_t mask;    /* slots - 1, a power of two less one */
	uint32_t used;    /* at most half of the slots */
};

struct soft_released {
	uint32_t token;
	uint32_t ms;      /* when; the low 32 bits */
};
struct soft_tokens {
	struct soft_token_map local, remote;
	/* Released ones, oldest first, in a ring of a power of two, and as a set. */
	struct soft_released *ring;
	uint32_t ring_mask, ring_head, ring_count;
	uint32_t *set;
	uint32_t set_mask;
	void (*random)(void *buf, size_t len);
	uint64_t (*now)(void);
	/* Random bytes are asked for in bulk: a system call for every token would cost more than all the rest of a tag. */
	uint32_t pool[256];
	unsigned n_pool;
};

int soft_tokens_init(struct soft_tokens *tokens, void (*random)(void *buf, size_t len), uint64_t (*now)(void));   /* -ENOMEM */
void soft_tokens_deinit(struct soft_tokens *tokens);
/* Room for one more of each kind, live now and released later, so that nothing after it can fail. -ENOMEM. */
int soft_tokens_reserve(struct soft_tokens *tokens);
/* A token that is neither live nor in quarantine; 0: none found. */
uint32_t soft_tokens_draw(struct soft_tokens *tokens);
/* After soft_tokens_reserve. */
void soft_token_bind(struct soft_token_map *map, uint32_t token, struct soft_tag *tag);
/* Takes it out of its map and puts it into quarantine; `ms` is soft_tokens_ms. Does nothing for 0. */
void soft_token_release(struct soft_tokens *tokens, struct soft_token_map *map, uint32_t token, uint32_t ms);
uint32_t soft_tokens_ms(const struct soft_tokens *tokens);
bool soft_tokens_taken(const struct soft_tokens *tokens, uint32_t token);
/* Those whose time is not over yet. */
uint32_t soft_tokens_quarantined(const struct soft_tokens *tokens);

static inline struct soft_tag *soft_token_find(const struct soft_token_map *map, uint32_t token)
{
	uint32_t i = token & map->mask;

	/* A free slot ends the search before it is compared, so 0 is never found. */
	while (map->slots[i].token != 0) {
		if (map->slots[i].token == token)
			return map->slots[i].tag;
		i = (i + 1) & map->mask;
	}
	return NULL;
}
