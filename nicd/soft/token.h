/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Tokens by value: which are live and what they name, which were released too lately to be drawn again, and drawing new ones. Only for
 * tag.c; everybody else goes through soft_tag_check.
 *
 * Live tokens of the two kinds are in two indexes, so that a local one is never found where a remote one is asked for, and the other
 * way round. What a token names is the place of a tag, which knows it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nicd/soft/key.h"

enum {
	SOFT_QUARANTINE_MS = 10000,
	SOFT_QUARANTINE_MAX = 1 << 20,
};

struct soft_released {
	uint32_t token;
	uint32_t ms;      /* when; the low 32 bits */
};
struct soft_tokens {
	struct soft_index local, remote;
	const struct soft_keys *keys;    /* which are drawn from the same numbers */
	/*
	 * Released ones, oldest first, in a ring that holds as many as can be in quarantine, and an index of it; both are mapped
	 * from the start and cost what was used of them. The place of a released token is where it is in the ring, and 1.
	 */
	struct soft_released *ring;
	uint32_t ring_head, ring_count;
	struct soft_index resting;
	void (*random)(void *buf, size_t len);
	uint64_t (*now)(void);
	/* Random bytes are asked for in bulk: a system call for every token would cost more than all the rest of a tag. */
	uint32_t pool[256];
	unsigned n_pool;
};

/* `local` and `remote` say which token of its kind the tag at a place has. It must not be moved. -ENOMEM. */
int soft_tokens_init(struct soft_tokens *tokens, void (*random)(void *buf, size_t len), uint64_t (*now)(void),
		     uint64_t (*local)(const void *owner, uint32_t place), uint64_t (*remote)(const void *owner, uint32_t place),
		     const void *owner);
void soft_tokens_deinit(struct soft_tokens *tokens);
/* Room for one more of each kind, so that nothing after it can fail. -ENOMEM. */
int soft_tokens_reserve(struct soft_tokens *tokens);
/* Fetches what drawing or releasing it will read and write into the cache. Any number will do. */
void soft_tokens_prefetch(const struct soft_tokens *tokens, uint32_t token);
/* A token that is neither live nor in quarantine; 0: none found. */
uint32_t soft_tokens_draw(struct soft_tokens *tokens);
/* Takes it out of its index and puts it into quarantine; `ms` is soft_tokens_ms. Does nothing for 0. */
void soft_token_release(struct soft_tokens *tokens, struct soft_index *kind, uint32_t token, uint32_t place, uint32_t ms);
uint32_t soft_tokens_ms(const struct soft_tokens *tokens);
bool soft_tokens_taken(const struct soft_tokens *tokens, uint32_t token);
/* Those whose time is not over yet. */
uint32_t soft_tokens_quarantined(const struct soft_tokens *tokens);
