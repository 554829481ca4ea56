/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How many connections there may be: of strangers, and of peers with a ticket, all together, by address and by PD. (By
 * ticket and export it is the ticket's own `max_streams`.) An IPv6 address stands for its /64, which one host has to
 * itself.
 *
 * Strangers beyond a cap push out the oldest of them; a peer with a good ticket beyond one is refused like one with a
 * bad ticket, and its use of the ticket is given back. What was refused is counted, and told at most once in
 * SOFT_CAP_QUIET_MS for each cap.
 */
#include <bsd/sys/tree.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

enum soft_cap {
	SOFT_CAP_HALF_OPEN,
	SOFT_CAP_HALF_OPEN_ADDRESS,
	SOFT_CAP_STREAMS,
	SOFT_CAP_STREAMS_ADDRESS,
	SOFT_CAP_STREAMS_PD,
	SOFT_CAP_DESCRIPTORS,        /* kept free of peers' connections, for everything else */
	SOFT_CAPS
};
enum { SOFT_CAP_QUIET_MS = 10000 };

/* What a cap is called on nicd-soft's command line, what it means, and what it is by default. */
struct soft_cap_row {
	const char *name, *help, *told;
	uint32_t normal;
};
extern const struct soft_cap_row soft_cap_rows[SOFT_CAPS];

/* One address, PD or door that has connections. Owned by the caps, lives as long as it is held. */
struct soft_stream;
struct soft_tally {
	RB_ENTRY(soft_tally) by_key;
	LIST_HEAD(, soft_place) places;   /* of a door */
	uint8_t key[17];                  /* family or kind, then address or number */
	uint32_t held, half_open, streams;
	uint64_t stalled;                 /* bytes kept for the stalled streams of a PD */
};
/* A stream that came in by a door, in its list. */
struct soft_place {
	LIST_ENTRY(soft_place) next;
	struct soft_tally *door;          /* NULL: not in a list */
	struct soft_stream *stream;
};
RB_HEAD(soft_tallies, soft_tally);

struct soft_caps {
	uint32_t max[SOFT_CAPS];
	uint64_t refused[SOFT_CAPS];
	uint64_t told_ms[SOFT_CAPS]; /* when it was told last; 0: never */
	uint32_t half_open, streams;
	struct soft_tallies tallies;
	/* To the process, which logs it. */
	void (*tell)(void *userdata, enum soft_cap cap, uint32_t limit, uint64_t refused, const char *peer);
	void *userdata;
};

void soft_caps_init(struct soft_caps *caps);

/* NULL: out of memory. */
struct soft_tally *soft_tally_of_address(struct soft_caps *caps, const struct sockaddr_storage *addr);
struct soft_tally *soft_tally_of_pd(struct soft_caps *caps, uint64_t pd);
/* Borrowed; NULL: nobody is here by this door. */
struct soft_tally *soft_tally_find_door(struct soft_caps *caps, uint64_t door);
/* False: out of memory. */
bool soft_place_take(struct soft_caps *caps, struct soft_place *place, uint64_t door, struct soft_stream *stream);
void soft_place_leave(struct soft_caps *caps, struct soft_place *place);
/* NULL is allowed; returns NULL. */
struct soft_tally *soft_tally_put(struct soft_caps *caps, struct soft_tally *tally);

/* Counts and, when it is time, tells. `peer` is the one that it happened to; "" where there is none. */
void soft_cap_hit(struct soft_caps *caps, enum soft_cap cap, uint64_t now_ms, const char *peer);
/* True: one stream more of this address and PD is within all caps, and counted. */
bool soft_caps_admit(struct soft_caps *caps, struct soft_tally *address, struct soft_tally *pd, uint64_t now_ms, const char *peer);
void soft_caps_leave(struct soft_caps *caps, struct soft_tally *address, struct soft_tally *pd);
