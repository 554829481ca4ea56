/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The owner of the regions: registers, lets the peers at them, deregisters, and looks whether a byte changes after the
 * answer. All rounds of all regions are under way at the same time.
 */
#include <stdbool.h>
#include <stdint.h>

struct owner_terms {
	const char *socket;
	uint64_t count;         /* rounds */
	bool reading;           /* peers read */
	bool exports;           /* a round is an export of a registered region, not a registration */
	bool first;             /* stop at the first things that must not be: they are expected */
};

/* What was counted. The last four must be 0. */
struct owner_tally {
	uint64_t rounds;
	uint64_t raced;         /* with a peer in the middle of it when the answer came */
	uint64_t half;          /* with a half sent frame, or answer, already when it was asked for */
	uint64_t cut;           /* connections that the device says it cut */
	uint64_t landed;        /* with bytes of peers in it */
	uint64_t connects, shots, stale, answered, read_bytes;
	double seconds;

	uint64_t changed;       /* regions with a byte that changed after the answer */
	uint64_t outside;       /* bytes that no peer wrote, or beside a region */
	uint64_t leaked;        /* peers that read a byte written after the answer */
	uint64_t redrawn;       /* tokens drawn in their quarantine */
};

/* False: something failed, and that was told on stderr. */
bool owner_run(const struct owner_terms *terms, struct owner_tally *ret);
