/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How long the turns of an event loop took: the promise is that none takes longer than a millisecond, and this is where
 * it shows. A turn is what lies between two waits; waiting is not counted. Embedded by whoever owns the loop.
 */
#include <stdint.h>

enum {
	TURNS_SLOW_US = 1000,   /* more than that is a slow turn */
	TURNS_WATCH_S = 60,     /* the processor's time is counted so long after somebody has asked: each look at that clock is a system call */
};

struct turns_report {
	uint64_t turns;
	uint64_t slow;            /* of these, longer than TURNS_SLOW_US */
	uint64_t longest_us;      /* by the wall: also what other processes took of it */
	uint64_t longest_cpu_us;  /* the most that the thread itself worked in one; while watched */
};

struct turns {
	struct turns_report since;               /* the last take; in ns where it says us */
	uint64_t end_ns, idle_ns, cpu_ns;        /* at the end of the last turn */
	uint64_t watched_until_ns;
};

/* All zero, then this before the first turn. */
void turns_init(struct turns *turns, uint64_t now_ns);
/* A turn ends, the loop waits next. idle_ns: what it has waited since it was made; cpu tells what the thread has worked. */
void turns_end(struct turns *turns, uint64_t now_ns, uint64_t idle_ns, uint64_t (*cpu)(void));
/* What has been since the last take. From now on the processor's time is counted too, for a while. */
struct turns_report turns_take(struct turns *turns, uint64_t now_ns);
/* For turns_end: CLOCK_THREAD_CPUTIME_ID. */
uint64_t turns_cpu(void);
