/* SPDX-License-Identifier: MIT */
/* Tokens: drawing, quarantine, and the tables under load, in small spaces where everything that can happen does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/soft/token.h"

static const uint64_t MS = 1000000;

static uint64_t clock_ns;
static uint32_t seed, token_mask, token_shift;
static unsigned draws;

static uint64_t now(void)
{
	return clock_ns;
}

static void draw(void *buf, size_t len)
{
	uint32_t *words = buf;

	draws++;
	for (size_t i = 0; i < len / sizeof(*words); i++) {
		seed = seed * 1664525u + 1013904223u;
		words[i] = ((seed >> 8) & token_mask) << token_shift;
	}
}

/* What tags have in place: which token the tag at a place has. */
static uint32_t known[1 << 17];

static uint64_t key(const void *owner, uint32_t place)
{
	return ((const uint32_t *)owner)[place];
}

/* Tokens of `bits` bits, moved up by `shift`. */
static void init(struct soft_tokens *tokens, unsigned bits, unsigned shift)
{
	seed = 1;
	draws = 0;
	clock_ns = 1000 * MS;
	token_mask = (1u << bits) - 1;
	token_shift = shift;
	assert_int_equal(soft_tokens_init(tokens, draw, now, key, key, known), 0);
}

static uint32_t take(struct soft_tokens *tokens, struct soft_index *kind, uint32_t place)
{
	uint32_t token;

	assert_int_equal(soft_tokens_reserve(tokens), 0);
	token = soft_tokens_draw(tokens);
	if (!token)
		return 0;
	known[place] = token;
	soft_index_add(kind, token, place);
	return token;
}

static void release(struct soft_tokens *tokens, struct soft_index *kind, uint32_t token)
{
	soft_token_release(tokens, kind, token, soft_index_find(kind, token), soft_tokens_ms(tokens));
}

/* With 8 bits there are 255 tokens: each is drawn exactly once, over both kinds, and then there are none. */
static void test_all_different(void **state)
{
	struct soft_tokens tokens;
	bool seen[256] = {true};

	init(&tokens, 8, 0);
	for (uint32_t i = 1; i <= 255; i++) {
		uint32_t token = take(&tokens, i % 2 ? &tokens.local : &tokens.remote, i);

		/* mutation: accept 0 as a token */
		/* mutation: ask only one of the maps whether a token is taken */
		assert_true(token > 0 && token < 256);
		assert_false(seen[token]);
		seen[token] = true;
	}
	assert_int_equal(take(&tokens, &tokens.local, 1), 0);
	soft_tokens_deinit(&tokens);
}

/* All 255 released: none comes back until 10 s are over, then all do. */
static void test_quarantine_time(void **state)
{
	struct soft_tokens tokens;
	uint32_t taken[256];

	init(&tokens, 8, 0);
	for (uint32_t i = 1; i <= 255; i++)
		taken[i] = take(&tokens, &tokens.remote, i);
	for (unsigned i = 1; i <= 255; i++)
		release(&tokens, &tokens.remote, taken[i]);
	assert_int_equal(soft_tokens_quarantined(&tokens), 255);
	/* mutation: let a released token be drawn at once */
	assert_int_equal(take(&tokens, &tokens.remote, 1), 0);
	clock_ns += 10000 * MS;
	/* mutation: end the quarantine early, at < in place of <= */
	assert_int_equal(soft_tokens_quarantined(&tokens), 255);
	assert_int_equal(take(&tokens, &tokens.remote, 1), 0);
	clock_ns += MS;
	/* mutation: never end the quarantine */
	assert_int_equal(soft_tokens_quarantined(&tokens), 0);
	for (uint32_t i = 1; i <= 255; i++)
		assert_int_not_equal(take(&tokens, &tokens.local, i), 0);
	soft_tokens_deinit(&tokens);
}

/* The milliseconds are a 32-bit number that wraps after 49 days; the quarantine does not care. */
static void test_quarantine_wrap(void **state)
{
	struct soft_tokens tokens;
	uint32_t token;

	init(&tokens, 1, 0);
	clock_ns = (0x100000000ull - 5000) * MS;
	token = take(&tokens, &tokens.local, 1);
	assert_int_equal(token, 1);
	release(&tokens, &tokens.local, token);
	/* mutation: compare times, not their difference */
	clock_ns += 1000 * MS;
	assert_int_equal(take(&tokens, &tokens.local, 1), 0);
	clock_ns += 8999 * MS;
	assert_int_equal(take(&tokens, &tokens.local, 1), 0);
	clock_ns += 2 * MS;
	assert_int_equal(take(&tokens, &tokens.local, 1), 1);
	soft_tokens_deinit(&tokens);
}

/* With the clock standing still a token comes back after exactly 2^20 later releases. */
static void test_quarantine_count(void **state)
{
	struct soft_tokens tokens;
	uint32_t first;

	init(&tokens, 24, 0);
	first = take(&tokens, &tokens.local, 1);
	release(&tokens, &tokens.local, first);
	for (unsigned i = 0; i < SOFT_QUARANTINE_MAX; i++) {
		uint32_t token = take(&tokens, &tokens.local, 1);

		/* mutation: keep fewer than 2^20 */
		assert_true(soft_tokens_taken(&tokens, first));
		assert_int_not_equal(token, first);
		release(&tokens, &tokens.local, token);
		assert_int_equal(soft_index_find(&tokens.local, token), 0);
	}
	/* mutation: keep more than 2^20 (memory without bound) */
	assert_false(soft_tokens_taken(&tokens, first));
	assert_int_equal(soft_tokens_quarantined(&tokens), SOFT_QUARANTINE_MAX);
	soft_tokens_deinit(&tokens);
}

/*
 * Random taking and releasing against an array, with tokens of few bits and whose low bits hardly differ. The clock
 * goes on, so that the quarantine's own index is emptied too.
 */
static void churn(unsigned bits, unsigned shift, unsigned rounds)
{
	struct soft_tokens tokens;
	uint32_t n = 1u << bits, *live = calloc(n, sizeof(*live)), n_live = 0, released = 0;
	uint64_t *free_at = calloc(n, sizeof(*free_at));

	init(&tokens, bits, shift);
	for (unsigned i = 0; i < rounds; i++) {
		uint32_t r = (uint32_t)rand();

		clock_ns += MS * (r % 64);
		if (r & 0x100 && n_live > 0) {
			uint32_t k = (r >> 9) % n_live, token = live[k];

			release(&tokens, &tokens.remote, token);
			free_at[token >> shift] = clock_ns + 10000 * MS;
			live[k] = live[--n_live];
			released++;
		} else if (n_live < n / 2) {
			uint32_t token = take(&tokens, &tokens.remote, i + 1);

			if (token == 0)
				continue;   /* all others are in quarantine */
			/* mutation: forget, or count wrongly, what passed a full bucket */
			assert_true(clock_ns >= free_at[token >> shift]);
			assert_int_equal(soft_index_find(&tokens.remote, token), i + 1);
			live[n_live++] = token;
		}
		if (i % 64)
			continue;
		assert_int_equal(tokens.remote.used, n_live);
		for (uint32_t k = 0; k < n_live; k++)
			assert_int_not_equal(soft_index_find(&tokens.remote, live[k]), 0);
	}
	assert_true(released > rounds / 8);
	free(live);
	free(free_at);
	soft_tokens_deinit(&tokens);
}

static void test_churn_dense(void **state)
{
	churn(9, 0, 100000);
}

static void test_churn_clustered(void **state)
{
	churn(9, 22, 20000);
	churn(12, 5, 100000);
}

/* Thousands of each kind: the tables grow and lose nothing. */
static void test_grow(void **state)
{
	enum { N = 20000 };
	struct soft_tokens tokens;
	uint32_t *local = calloc(N, sizeof(*local)), *remote = calloc(N, sizeof(*remote));

	init(&tokens, 24, 8);
	for (uint32_t i = 0; i < N; i++) {
		local[i] = take(&tokens, &tokens.local, 2 * i + 1);
		remote[i] = take(&tokens, &tokens.remote, 2 * i + 2);
	}
	/* mutation: ask for randomness once per token */
	assert_true(draws < 2 * N / 100);
	for (uint32_t i = 0; i < N; i++) {
		/* mutation: lose an element in growing */
		assert_int_equal(soft_index_find(&tokens.local, local[i]), 2 * i + 1);
		assert_int_equal(soft_index_find(&tokens.remote, remote[i]), 2 * i + 2);
		assert_int_equal(soft_index_find(&tokens.local, remote[i]), 0);
	}
	/* mutation: a quarantine that is smaller than what may be released at once */
	for (unsigned i = 0; i < N; i++) {
		release(&tokens, &tokens.local, local[i]);
		release(&tokens, &tokens.remote, remote[i]);
	}
	assert_int_equal(soft_tokens_quarantined(&tokens), 2 * N);
	for (unsigned i = 0; i < N; i++)
		assert_true(soft_tokens_taken(&tokens, local[i]) && soft_tokens_taken(&tokens, remote[i]));
	free(local);
	free(remote);
	soft_tokens_deinit(&tokens);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_different),   cmocka_unit_test(test_quarantine_time),
		cmocka_unit_test(test_quarantine_wrap), cmocka_unit_test(test_quarantine_count),
		cmocka_unit_test(test_churn_dense),     cmocka_unit_test(test_churn_clustered),
		cmocka_unit_test(test_grow),
	};

	srand(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
