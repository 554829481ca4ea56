/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * --fault: a provider in front of the real one that delays and fails. Only in builds for tests; elsewhere fault-none.c refuses.
 * Delayed answers wait on the loop. Belongs to the device, and outlives every provider that was wrapped.
 */
#include <stddef.h>
#include <sys/queue.h>
#include <uv.h>

#include "nicd/faulty.h"

struct fault_timer;

struct fault {
	struct nic_faulty_host host;
	uv_loop_t *loop;
	LIST_HEAD(, fault_timer) pending;
};

void fault_init(struct fault *fault, uv_loop_t *loop);
/*
 * Puts the faulty provider that `spec` describes in front of *provider, which it then owns. Negative errno with a
 * message; *provider is unchanged.
 */
int fault_wrap(struct fault *fault, struct nic_provider **provider, const char *spec, char *message, size_t size);
/* Answers that still wait are given now, to nobody if their provider is gone. The loop must run once more. */
void fault_deinit(struct fault *fault);
