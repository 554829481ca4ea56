/* SPDX-License-Identifier: MIT */
#pragma once
/* The real world for the NIC layer: the kernel's clocks and randomness, malloc, and closing on a worker what takes long. */
#include <uv.h>

#include "daemon/closer.h"
#include "daemon/slabs.h"
#include "nicd/env.h"
#include "proto/wire.h"

enum { ENV_RANDOM_BLOCK = 4096 };

struct env {
	struct nic_env nic;         /* what the NIC layer is handed */
	uv_loop_t *loop;
	uint32_t closing;           /* descriptors on their way through a worker */
	struct closer closer;       /* for those that may be anything */
	struct wire_closer wire;    /* the same, for packets that are dropped */
	struct slabs slabs;
	uint32_t uid;               /* on whose behalf descriptors are closed now */
	size_t random_left;
	uint8_t random[ENV_RANDOM_BLOCK];
};

void env_init(struct env *env, uv_loop_t *loop);
/* Forgets the randomness. The loop must have run until `closing` is 0, and must run once more. */
void env_deinit(struct env *env);
