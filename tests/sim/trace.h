/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What happened in a run, in order: hashed, so that two runs of one seed can be compared, and the last of it kept for
 * when something is wrong. Knows nothing of nicd.
 */
#include <stdbool.h>
#include <stdint.h>

enum { TRACE_KEPT = 400 };

void trace_begin(uint64_t seed, const char *profile, bool print);
void trace_step(unsigned step);
/* `what` is a literal. */
void trace(const char *what, uint64_t a, uint64_t b, uint64_t c);
uint64_t trace_hash(void);
/* Says on stderr where a run is: seed, step, and what led there. */
void trace_report(const char *why);
/* A rule is broken: reports and ends the process. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
#define sim_must(condition, ...) \
	do { \
		if (!(condition)) \
			sim_fail(__VA_ARGS__); \
	} while (0)

/* splitmix64: small, and the same everywhere. */
struct sim_random {
	uint64_t state;
};
static inline uint64_t sim_random(struct sim_random *r)
{
	uint64_t z = (r->state += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}
static inline uint32_t sim_below(struct sim_random *r, uint32_t n)
{
	return n ? (uint32_t)(((sim_random(r) >> 32) * n) >> 32) : 0;
}
/* One in n. */
static inline bool sim_chance(struct sim_random *r, uint32_t n)
{
	return n && !sim_below(r, n);
}
