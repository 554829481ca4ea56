/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How many file descriptors this process may still open. A socket is read only while a frame's worth of them is free, so that a
 * truncated packet is always the client's doing; connections are accepted only while that stays so.
 */
#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct env;
struct nic;

enum {
	DESCRIPTORS_RESERVE = WIRE_KERNEL_FDS + 32, /* what one recvmsg may bring, before it is counted */
	DESCRIPTORS_ADMINS = 128,                   /* besides, kept for admins: who else could make room? */
	DESCRIPTORS_PER_SESSION = 2,                /* socket, pidfd: at its beginning */
};

struct descriptors {
	uint32_t limit;
	uint32_t base;        /* open without any session, and what may be under way unseen */
	uint32_t sessions;    /* open ones; kept by session.c */
	uint32_t pidfds;      /* of those that have to keep one; by session.c too */
	const struct nic *nic;
	const struct env *env;
};

/* Raises RLIMIT_NOFILE to the hard limit. -EMFILE: that is too low to serve anybody. */
int descriptors_init(struct descriptors *descriptors, const struct nic *nic, const struct env *env);
/* Are `want` free, by our own count? */
bool descriptors_free(const struct descriptors *descriptors, uint32_t want);
/* What the kernel says is open now. */
uint32_t descriptors_open(void);
