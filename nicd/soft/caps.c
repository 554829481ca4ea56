/* SPDX-License-Identifier: MIT */
/* Counts of connections against their caps. One per engine; streams hold a tally of their address from accept to their end, and one of their PD
 * from admission. */
#include "nicd/soft/caps.h"

#include <stdlib.h>
#include <string.h>

const struct soft_cap_row soft_cap_rows[SOFT_CAPS] = {
	[SOFT_CAP_HALF_OPEN] = {
		"--max-half-open", "connections that have shown no ticket; at the cap the oldest goes (256)",
		"connections without a ticket; the oldest was closed", 256,
	},
	[SOFT_CAP_HALF_OPEN_ADDRESS] = {
		"--max-half-open-per-address", "the same, from one address (128)",
		"connections without a ticket from one address; its oldest was closed", 128,
	},
	[SOFT_CAP_STREAMS] = {
		"--max-streams", "connections of peers that were let in (32768)", "connections of peers; a new one was refused", 32768,
	},
	[SOFT_CAP_STREAMS_ADDRESS] = {
		"--max-streams-per-address", "the same, from one address (16384)",
		"connections of peers from one address; a new one was refused", 16384,
	},
	[SOFT_CAP_STREAMS_PD] = {
		"--max-streams-per-pd", "the same, into one PD and its exports (16384)",
		"connections of peers into one PD; a new one was refused", 16384,
	},
	[SOFT_CAP_DESCRIPTORS] = {
		"--reserved-descriptors", "file descriptors that connections of peers never take (64)",
		"file descriptors are kept free; new connections wait", 64,
	},
};

static int tally_compare(const struct soft_tally *a, const struct soft_tally *b)
{
	return memcmp(a->key, b->key, sizeof(a->key));
}
RB_GENERATE_INTERNAL(soft_tallies, soft_tally, by_key, tally_compare, static __attribute__((unused)))

void soft_caps_init(struct soft_caps *caps)
{
	*caps = (struct soft_caps){.half_open = 0};
	for (unsigned i = 0; i < SOFT_CAPS; i++)
		caps->max[i] = soft_cap_rows[i].normal;
	RB_INIT(&caps->tallies);
}

static struct soft_tally *tally_get(struct soft_caps *caps, const struct soft_tally *key)
{
	struct soft_tally *tally = RB_FIND(soft_tallies, &caps->tallies, (struct soft_tally *)key);

	if (!tally) {
		tally = calloc(1, sizeof(*tally));
		if (!tally)
			return NULL;
		memcpy(tally->key, key->key, sizeof(tally->key));
		RB_INSERT(soft_tallies, &caps->tallies, tally);
	}
	tally->held++;
	return tally;
}

struct soft_tally *soft_tally_of_address(struct soft_caps *caps, const struct sockaddr_storage *addr)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
	struct soft_tally key = {.key = {'4'}};

	if (addr->ss_family == AF_INET) {
		memcpy(key.key + 1, &in->sin_addr, 4);
	} else if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(key.key + 1, in6->sin6_addr.s6_addr + 12, 4);
	} else {
		key.key[0] = '6';
		memcpy(key.key + 1, &in6->sin6_addr, 8);
	}
	return tally_get(caps, &key);
}

static struct soft_tally key_of(char kind, uint64_t number)
{
	struct soft_tally key = {.key = {(uint8_t)kind}};

	memcpy(key.key + 1, &number, sizeof(number));
	return key;
}

struct soft_tally *soft_tally_of_pd(struct soft_caps *caps, uint64_t pd)
{
	const struct soft_tally key = key_of('P', pd);

	return tally_get(caps, &key);
}

struct soft_tally *soft_tally_find_door(struct soft_caps *caps, uint64_t door)
{
	struct soft_tally key = key_of('D', door);

	return RB_FIND(soft_tallies, &caps->tallies, &key);
}

bool soft_place_take(struct soft_caps *caps, struct soft_place *place, uint64_t door, struct soft_stream *stream)
{
	const struct soft_tally key = key_of('D', door);

	place->door = tally_get(caps, &key);
	if (!place->door)
		return false;
	place->stream = stream;
	LIST_INSERT_HEAD(&place->door->places, place, next);
	return true;
}

void soft_place_leave(struct soft_caps *caps, struct soft_place *place)
{
	if (!place->door)
		return;
	LIST_REMOVE(place, next);
	place->door = soft_tally_put(caps, place->door);
}

struct soft_tally *soft_tally_put(struct soft_caps *caps, struct soft_tally *tally)
{
	if (tally && --tally->held == 0) {
		RB_REMOVE(soft_tallies, &caps->tallies, tally);
		free(tally);
	}
	return NULL;
}

void soft_cap_hit(struct soft_caps *caps, enum soft_cap cap, uint64_t now_ms, const char *peer)
{
	caps->refused[cap]++;
	if (!caps->tell || (caps->told_ms[cap] && now_ms - caps->told_ms[cap] < SOFT_CAP_QUIET_MS))
		return;
	caps->told_ms[cap] = now_ms ? now_ms : 1;
	caps->tell(caps->userdata, cap, caps->max[cap], caps->refused[cap], peer);
}

bool soft_caps_admit(struct soft_caps *caps, struct soft_tally *address, struct soft_tally *pd, uint64_t now_ms, const char *peer)
{
	const struct {
		enum soft_cap cap;
		uint32_t n;
	} counts[] = {
		{SOFT_CAP_STREAMS, caps->streams}, {SOFT_CAP_STREAMS_ADDRESS, address->streams}, {SOFT_CAP_STREAMS_PD, pd->streams},
	};

	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		if (counts[i].n < caps->max[counts[i].cap])
			continue;
		soft_cap_hit(caps, counts[i].cap, now_ms, peer);
		return false;
	}
	caps->streams++;
	address->streams++;
	pd->streams++;
	return true;
}

void soft_caps_leave(struct soft_caps *caps, struct soft_tally *address, struct soft_tally *pd)
{
	caps->streams--;
	address->streams--;
	pd->streams--;
}
