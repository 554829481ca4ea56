/* SPDX-License-Identifier: MIT */
#pragma once
/* The other side of a connection: local memory that is deregistered under reads, writes and receives of our own. */
#include <stdbool.h>
#include <stdint.h>

struct local_terms {
	const char *socket;
	uint64_t count;
	bool writing;        /* else reading, or */
	bool receiving;
	bool first;          /* stop at the first things that must not be: they are expected */
};

struct local_tally {
	uint64_t rounds;
	uint64_t cut;        /* rounds in which the device says that it cut the connection */
	double seconds;
	uint64_t changed;    /* reads: local memory changed after the answer; writes: bytes were sent that were written after it */
};

/* False: something failed, and that was told on stderr. */
bool local_run(const struct local_terms *terms, struct local_tally *ret);
