/* SPDX-License-Identifier: MIT */
#pragma once
/* What a client asks for: mostly something that makes sense, given what it has. */
#include "tests/sim/world.h"

static inline struct sim_random *dice(void)
{
	return &world->random;
}

static inline uint32_t below(uint32_t n)
{
	return sim_below(dice(), n);
}

static inline bool chance(uint32_t n)
{
	return sim_chance(dice(), n);
}

static inline bool wild(void)
{
	return chance(world->profile->wild);
}

/* One object of this session, or of any (-1), of this type, or of any; NULL: there is none. */
struct m_object *some(int client, enum sim_type type, bool (*fits)(const struct m_object *o));
bool is_connected(const struct m_object *o);
/* The request behind n others of its frame. */
void ask(int client, const struct sim_request *frame, unsigned n, struct sim_request *r);
