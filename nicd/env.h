/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What the NIC layer needs from the outside: time, randomness, memory, and somebody who closes descriptors. It does no
 * I/O of its own, so that a test or a simulation hands in a clock that it turns and a seed that it chose.
 */
#include <stddef.h>
#include <stdint.h>

/* The size in which memory for many small things is asked for. */
enum { NIC_SLAB = 64 * 1024 };

struct nic_env {
	uint64_t (*now)(struct nic_env *env);   /* ns, monotonic; for deadlines */
	uint64_t (*wall)(struct nic_env *env);  /* ns, CLOCK_REALTIME; only for receipts and lists */
	void (*random)(struct nic_env *env, void *buf, size_t len);
	/* Zeroed; NULL: none. NIC_SLAB bytes come and go like others, but giving them back must not take long. */
	void *(*alloc)(struct nic_env *env, size_t size);
	void (*free)(struct nic_env *env, void *ptr, size_t size);
	/* Takes fd and closes it, at once or later: the last close of a big memfd takes long. `size`: bytes behind it. */
	void (*close_fd)(struct nic_env *env, int fd, uint64_t size);
};
