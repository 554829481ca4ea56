/* SPDX-License-Identifier: MIT */
/*
 * The life of a token: drawn at random -> added to the index of its kind -> released into the quarantine -> after 10 s or 2^20 later
 * releases, whichever comes first, as good as any other number. The soft_tags own the one struct soft_tokens there is.
 */
#include "nicd/soft/token.h"

#include <errno.h>
#include <sys/mman.h>

enum {
	FIRST_TOKENS = 512,
	RING_MASK = SOFT_QUARANTINE_MAX - 1,
	DRAWS = 4096,     /* tries; with 2^32 tokens two are rarely needed, only a test's small space runs out */
	AHEAD = 8,        /* how far tables are fetched into the cache before they are asked */
	SWEEP = 4,        /* released tokens looked at per draw or release: the quarantine shrinks without ever taking long */
};
_Static_assert((SOFT_QUARANTINE_MAX & RING_MASK) == 0, "the ring is a power of two");

static uint64_t released_key(const void *owner, uint32_t place)
{
	return ((const struct soft_tokens *)owner)->ring[place - 1].token;
}

static int ring_init(struct soft_tokens *tokens)
{
	void *ring = mmap(NULL, SOFT_QUARANTINE_MAX * sizeof(*tokens->ring), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ring == MAP_FAILED)
		return -ENOMEM;
	tokens->ring = ring;
	return soft_index_init(&tokens->resting, SOFT_QUARANTINE_MAX, released_key, tokens);
}

int soft_tokens_init(struct soft_tokens *tokens, void (*random)(void *buf, size_t len), uint64_t (*now)(void),
		     uint64_t (*local)(const void *owner, uint32_t place), uint64_t (*remote)(const void *owner, uint32_t place),
		     const void *owner)
{
	*tokens = (struct soft_tokens){.random = random, .now = now};
	if (soft_index_init(&tokens->local, FIRST_TOKENS, local, owner) < 0 ||
	    soft_index_init(&tokens->remote, FIRST_TOKENS, remote, owner) < 0 || ring_init(tokens) < 0) {
		soft_tokens_deinit(tokens);
		return -ENOMEM;
	}
	return 0;
}

void soft_tokens_deinit(struct soft_tokens *tokens)
{
	soft_index_deinit(&tokens->local);
	soft_index_deinit(&tokens->remote);
	soft_index_deinit(&tokens->resting);
	if (tokens->ring)
		munmap(tokens->ring, SOFT_QUARANTINE_MAX * sizeof(*tokens->ring));
	*tokens = (struct soft_tokens){0};
}

int soft_tokens_reserve(struct soft_tokens *tokens)
{
	if (soft_index_reserve(&tokens->local) < 0)
		return -ENOMEM;
	return soft_index_reserve(&tokens->remote);
}

uint32_t soft_tokens_ms(const struct soft_tokens *tokens)
{
	return (uint32_t)(tokens->now() / 1000000);
}

/* Milliseconds are cut off, so one more than the time is surely over. */
static bool is_over(const struct soft_released *released, uint32_t ms)
{
	return ms - released->ms > SOFT_QUARANTINE_MS;
}

/* Tokens are all over the tables, which do not fit into a cache. */
void soft_tokens_prefetch(const struct soft_tokens *tokens, uint32_t token)
{
	soft_index_prefetch(&tokens->local, token);
	soft_index_prefetch(&tokens->remote, token);
	soft_index_prefetch(&tokens->resting, token);
}

static void quarantine_pop(struct soft_tokens *tokens)
{
	soft_index_prefetch(&tokens->resting, tokens->ring[(tokens->ring_head + AHEAD) & RING_MASK].token);
	soft_index_remove(&tokens->resting, tokens->ring[tokens->ring_head].token, tokens->ring_head + 1);
	tokens->ring_head = (tokens->ring_head + 1) & RING_MASK;
	tokens->ring_count--;
}

static void quarantine_sweep(struct soft_tokens *tokens, uint32_t ms)
{
	for (unsigned i = 0; i < SWEEP && tokens->ring_count > 0 && is_over(&tokens->ring[tokens->ring_head], ms); i++)
		quarantine_pop(tokens);
}

void soft_token_release(struct soft_tokens *tokens, struct soft_index *kind, uint32_t token, uint32_t place, uint32_t ms)
{
	uint32_t at;

	if (token == 0)
		return;
	soft_index_remove(kind, token, place);
	quarantine_sweep(tokens, ms);
	if (tokens->ring_count > RING_MASK)
		quarantine_pop(tokens);   /* 2^20 came after it */
	at = (tokens->ring_head + tokens->ring_count++) & RING_MASK;
	tokens->ring[at] = (struct soft_released){token, ms};
	soft_index_add(&tokens->resting, token, at + 1);
}

static uint32_t draw_once(struct soft_tokens *tokens)
{
	uint32_t token;

	if (tokens->n_pool == 0) {
		tokens->random(tokens->pool, sizeof(tokens->pool));
		tokens->n_pool = sizeof(tokens->pool) / sizeof(tokens->pool[0]);
	}
	if (tokens->n_pool > AHEAD)
		soft_tokens_prefetch(tokens, tokens->pool[tokens->n_pool - 1 - AHEAD]);
	token = tokens->pool[--tokens->n_pool];
	tokens->pool[tokens->n_pool] = 0;
	return token;
}

uint32_t soft_tokens_draw(struct soft_tokens *tokens)
{
	for (unsigned i = 0; i < DRAWS; i++) {
		uint32_t token = draw_once(tokens);

		if (!soft_tokens_taken(tokens, token))
			return token;
		quarantine_sweep(tokens, soft_tokens_ms(tokens));
	}
	return 0;
}

/* 0 always is. */
bool soft_tokens_taken(const struct soft_tokens *tokens, uint32_t token)
{
	if (tokens->keys && soft_keys_have(tokens->keys, token))
		return true;
	return token == 0 || soft_index_find(&tokens->local, token) || soft_index_find(&tokens->remote, token) ||
	       soft_index_find(&tokens->resting, token);
}

uint32_t soft_tokens_quarantined(const struct soft_tokens *tokens)
{
	uint32_t low = 0, high = tokens->ring_count, ms = soft_tokens_ms(tokens);

	/* The oldest come first: a binary search for the first one whose time is not over. */
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (is_over(&tokens->ring[(tokens->ring_head + mid) & RING_MASK], ms))
			low = mid + 1;
		else
			high = mid;
	}
	return tokens->ring_count - low;
}
