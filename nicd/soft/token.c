/* SPDX-License-Identifier: MIT */
/*
 * The life of a token: drawn at random -> bound to a tag in the map of its kind -> released into the quarantine -> after 10 s or
 * 2^20 later releases, whichever comes first, as good as any other number. The soft_tags own the one struct soft_tokens there is.
 */
#include "nicd/soft/token.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
	FIRST_SLOTS = 1024,
	DRAWS = 4096,     /* tries; with 2^32 tokens two are rarely needed, only a test's small space runs out */
	AHEAD = 8,        /* how far tables are fetched into the cache before they are asked */
	SWEEP = 16,       /* released tokens looked at per draw or release: the quarantine shrinks without ever taking long */
};

static int map_init(struct soft_token_map *map)
{
	map->slots = calloc(FIRST_SLOTS, sizeof(*map->slots));
	if (!map->slots)
		return -ENOMEM;
	map->mask = FIRST_SLOTS - 1;
	return 0;
}

static int map_reserve(struct soft_token_map *map)
{
	struct soft_token_map grown = {.mask = map->mask * 2 + 1};

	if (map->used < (map->mask + 1) / 2)
		return 0;
	if (map->mask > UINT32_MAX / 4)
		return -ENOMEM;
	grown.slots = calloc((size_t)grown.mask + 1, sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	for (uint32_t i = 0; i <= map->mask; i++)
		if (map->slots[i].token)
			soft_token_bind(&grown, map->slots[i].token, map->slots[i].tag);
	free(map->slots);
	*map = grown;
	return 0;
}

void soft_token_bind(struct soft_token_map *map, uint32_t token, struct soft_tag *tag)
{
	uint32_t i = token & map->mask;

	assert(token != 0 && map->used < map->mask);
	while (map->slots[i].token)
		i = (i + 1) & map->mask;
	map->slots[i] = (struct soft_token_slot){token, tag};
	map->used++;
}

/*
 * Of an open-addressed table with linear probing: whether the element at `i`, whose search starts at `home`, would still be found after it
 * moved to `hole`; that is, whether `hole` lies on the way from `home` to `i`.
 */
static bool may_move(uint32_t hole, uint32_t home, uint32_t i, uint32_t mask)
{
	return ((i - home) & mask) >= ((i - hole) & mask);
}

/* No tombstones: those after it move up, so that a table in which much comes and goes stays as fast as a new one. */
static void map_remove(struct soft_token_map *map, uint32_t token)
{
	uint32_t hole = token & map->mask;

	while (map->slots[hole].token != token) {
		assert(map->slots[hole].token != 0);
		hole = (hole + 1) & map->mask;
	}
	for (uint32_t i = (hole + 1) & map->mask; map->slots[i].token; i = (i + 1) & map->mask) {
		if (!may_move(hole, map->slots[i].token & map->mask, i, map->mask))
			continue;
		map->slots[hole] = map->slots[i];
		hole = i;
	}
	map->slots[hole] = (struct soft_token_slot){0};
	map->used--;
}

static void set_add(uint32_t *set, uint32_t mask, uint32_t token)
{
	uint32_t i = token & mask;

	while (set[i])
		i = (i + 1) & mask;
	set[i] = token;
}

static bool set_has(const uint32_t *set, uint32_t mask, uint32_t token)
{
	uint32_t i = token & mask;

	while (set[i] && set[i] != token)
		i = (i + 1) & mask;
	return set[i] != 0;
}

static void set_remove(uint32_t *set, uint32_t mask, uint32_t token)
{
	uint32_t hole = token & mask;

	while (set[hole] != token) {
		assert(set[hole] != 0);
		hole = (hole + 1) & mask;
	}
	for (uint32_t i = (hole + 1) & mask; set[i]; i = (i + 1) & mask) {
		if (!may_move(hole, set[i] & mask, i, mask))
			continue;
		set[hole] = set[i];
		hole = i;
	}
	set[hole] = 0;
}

/* The ring holds `slots` entries, the set twice as many. */
static int quarantine_grow(struct soft_tokens *tokens, uint32_t slots)
{
	struct soft_released *ring = malloc(slots * sizeof(*ring));
	uint32_t *set = calloc((size_t)slots * 2, sizeof(*set));

	if (!ring || !set) {
		free(ring);
		free(set);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < tokens->ring_count; i++) {
		ring[i] = tokens->ring[(tokens->ring_head + i) & tokens->ring_mask];
		set_add(set, slots * 2 - 1, ring[i].token);
	}
	free(tokens->ring);
	free(tokens->set);
	tokens->ring = ring;
	tokens->ring_mask = slots - 1;
	tokens->ring_head = 0;
	tokens->set = set;
	tokens->set_mask = slots * 2 - 1;
	return 0;
}

int soft_tokens_init(struct soft_tokens *tokens, void (*random)(void *buf, size_t len), uint64_t (*now)(void))
{
	*tokens = (struct soft_tokens){.random = random, .now = now};
	if (map_init(&tokens->local) < 0 || map_init(&tokens->remote) < 0 || quarantine_grow(tokens, FIRST_SLOTS) < 0) {
		soft_tokens_deinit(tokens);
		return -ENOMEM;
	}
	return 0;
}

void soft_tokens_deinit(struct soft_tokens *tokens)
{
	free(tokens->local.slots);
	free(tokens->remote.slots);
	free(tokens->ring);
	free(tokens->set);
	*tokens = (struct soft_tokens){0};
}

int soft_tokens_reserve(struct soft_tokens *tokens)
{
	uint64_t room = (uint64_t)tokens->ring_count + tokens->local.used + tokens->remote.used + 2;

	if (room > tokens->ring_mask && tokens->ring_mask + 1 < SOFT_QUARANTINE_MAX &&
	    quarantine_grow(tokens, (tokens->ring_mask + 1) * 2) < 0)
		return -ENOMEM;
	if (map_reserve(&tokens->local) < 0)
		return -ENOMEM;
	return map_reserve(&tokens->remote);
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

/* Tokens are all over the tables, which do not fit into a cache: what will be wanted soon is fetched ahead. */
static void prefetch_drawn(const struct soft_tokens *tokens, uint32_t token)
{
	__builtin_prefetch(&tokens->local.slots[token & tokens->local.mask]);
	__builtin_prefetch(&tokens->remote.slots[token & tokens->remote.mask]);
	__builtin_prefetch(&tokens->set[token & tokens->set_mask]);
}

static void prefetch_released(const struct soft_tokens *tokens, uint32_t i)
{
	__builtin_prefetch(&tokens->set[tokens->ring[i & tokens->ring_mask].token & tokens->set_mask]);
}

static void quarantine_pop(struct soft_tokens *tokens)
{
	prefetch_released(tokens, tokens->ring_head + AHEAD);
	set_remove(tokens->set, tokens->set_mask, tokens->ring[tokens->ring_head].token);
	tokens->ring_head = (tokens->ring_head + 1) & tokens->ring_mask;
	tokens->ring_count--;
}

static void quarantine_sweep(struct soft_tokens *tokens, uint32_t ms)
{
	for (unsigned i = 0; i < SWEEP && tokens->ring_count > 0 && is_over(&tokens->ring[tokens->ring_head], ms); i++)
		quarantine_pop(tokens);
}

void soft_token_release(struct soft_tokens *tokens, struct soft_token_map *map, uint32_t token, uint32_t ms)
{
	if (token == 0)
		return;
	map_remove(map, token);
	quarantine_sweep(tokens, ms);
	if (tokens->ring_count > tokens->ring_mask)
		quarantine_pop(tokens);   /* 2^20 came after it: soft_tokens_reserve kept room up to there */
	tokens->ring[(tokens->ring_head + tokens->ring_count++) & tokens->ring_mask] = (struct soft_released){token, ms};
	set_add(tokens->set, tokens->set_mask, token);
}

static uint32_t draw_once(struct soft_tokens *tokens)
{
	uint32_t token;

	if (tokens->n_pool == 0) {
		tokens->random(tokens->pool, sizeof(tokens->pool));
		tokens->n_pool = sizeof(tokens->pool) / sizeof(tokens->pool[0]);
	}
	if (tokens->n_pool > AHEAD)
		prefetch_drawn(tokens, tokens->pool[tokens->n_pool - 1 - AHEAD]);
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
	return token == 0 || soft_token_find(&tokens->local, token) || soft_token_find(&tokens->remote, token) ||
	       set_has(tokens->set, tokens->set_mask, token);
}

uint32_t soft_tokens_quarantined(const struct soft_tokens *tokens)
{
	uint32_t low = 0, high = tokens->ring_count, ms = soft_tokens_ms(tokens);

	/* The oldest come first: a binary search for the first one whose time is not over. */
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (is_over(&tokens->ring[(tokens->ring_head + mid) & tokens->ring_mask], ms))
			low = mid + 1;
		else
			high = mid;
	}
	return tokens->ring_count - low;
}
