/* SPDX-License-Identifier: MIT */
/* An open-addressed table that only grows: tokens are random, so they are their own hash. See tokens.h. */
#include "tokens.h"

#include <stdlib.h>

static const uint64_t QUARANTINE_NS = UINT64_C(10000000000);
static const uint64_t QUARANTINE_RELEASES = 1 << 20;
/* What is counted before the device does it may be that much ahead. */
static const uint64_t SLACK = 1024;

struct released {
	uint32_t token;   /* 0: free */
	uint64_t ns, count;
};

struct tokens {
	uint64_t mask, count;
	struct released slots[];
};

struct tokens *tokens_new(uint64_t max)
{
	uint64_t n = 1024;
	struct tokens *tokens;

	while (n < 2 * max)
		n *= 2;
	tokens = calloc(1, sizeof(*tokens) + n * sizeof(tokens->slots[0]));
	if (!tokens)
		abort();
	tokens->mask = n - 1;
	return tokens;
}

void tokens_free(struct tokens *tokens)
{
	free(tokens);
}

static uint64_t find(const struct tokens *tokens, uint32_t token)
{
	uint64_t i = token & tokens->mask;

	while (tokens->slots[i].token && tokens->slots[i].token != token)
		i = (i + 1) & tokens->mask;
	return i;
}

void tokens_released(struct tokens *tokens, uint32_t token, uint64_t ns)
{
	if (token)
		tokens->slots[find(tokens, token)] = (struct released){token, ns, tokens->count++};
}

bool tokens_drawn(const struct tokens *tokens, uint32_t token, uint64_t ns)
{
	const struct released *r = &tokens->slots[find(tokens, token)];

	return !token || !r->token || ns - r->ns >= QUARANTINE_NS || tokens->count - r->count + SLACK >= QUARANTINE_RELEASES;
}
