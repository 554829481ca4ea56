/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * All of nicd but its listeners and its device: real sockets, sessions, environment and NIC layer on a real loop in
 * this process, over the fake device of tests/unit/nic. A test connects through socket pairs, turns the loop itself,
 * and asks that nothing is left.
 */
#include <uv.h>

#include "daemon/client.h"
#include "daemon/descriptors.h"
#include "daemon/env.h"
#include "daemon/session.h"
#include "tests/unit/nic/fake.h"

enum { WORLD_ALARMS = 4096 };

struct world {
	uv_loop_t loop;
	uv_prepare_t prepare;
	struct env env;
	struct nic nic;
	struct policy policy;
	struct client_host host;
	struct descriptors descriptors;
	struct identity_rules rules;
	struct sessions sessions;
	struct fake *fake;
	struct {
		void (*fn)(void *arg);
		void *arg;
	} alarms[WORLD_ALARMS];
	unsigned n_alarms;
	uint32_t open_before;
};

/* -1: no memory, or no descriptors; nothing stays. */
int world_init(struct world *world);
void world_deinit(struct world *world);
/* The client's end of a new session, which does not block; -1: no descriptors. */
int world_dial(struct world *world, bool admin);
void world_turn(struct world *world, unsigned n);
/* All alarms go off, and the device answers all that it held. */
void world_answer(struct world *world);
/* Until every session is released; and, `threads`, every descriptor closed that was on its way through a thread. */
void world_until_gone(struct world *world, bool threads);
/* Is everything given back that sessions held? */
bool world_is_clean(const struct world *world);
