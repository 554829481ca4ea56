/* SPDX-License-Identifier: MIT */
#pragma once
/* The real world for the NIC layer: the kernel's clocks and randomness, malloc, and closing on a worker what takes long. */
#include <uv.h>

#include "nicd/env.h"

enum { ENV_RANDOM_BLOCK = 4096 };

struct env {
	struct nic_env nic;         /* what the NIC layer is handed */
	uv_loop_t *loop;
	uint32_t closing;           /* descriptors on their way through a worker */
	size_t random_left;
	uint8_t random[ENV_RANDOM_BLOCK];
};

void env_init(struct env *env, uv_loop_t *loop);
/* Forgets the randomness. The loop must have run until `closing` is 0. */
void env_deinit(struct env *env);
