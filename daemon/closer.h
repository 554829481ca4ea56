/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Closes descriptors that may be anything: a client can pass a file of its own FUSE server, and close() waits for that
 * server. So they have threads of their own, which may hang without anybody else waiting, and are counted by user, so
 * that one who makes them hang is not read any more while others are.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

enum {
	CLOSER_PER_USER = 64,          /* descriptors of one user that wait */
	CLOSER_THREADS = 16,
	CLOSER_THREADS_PER_USER = 2,   /* so that nobody makes all of them hang */
};

struct closer_job;
struct closer_user;
STAILQ_HEAD(closer_jobs, closer_job);
LIST_HEAD(closer_users, closer_user);

struct closer {
	uv_loop_t *loop;
	struct closer_users users;    /* with something pending; the loop's */
	uint32_t pending;             /* of all users; the loop's */
	struct closer_shared *shared; /* with the threads; NULL: none was needed yet */
	uv_async_t *async;
	int (*close)(int fd);         /* close(2); a test puts its own here */
};

void closer_init(struct closer *closer, uv_loop_t *loop);
/* Takes fd. */
void closer_close(struct closer *closer, int fd, uint32_t uid);
/* May more be taken of this user? */
bool closer_has_room(const struct closer *closer, uint32_t uid);
/* Does not wait for those that hang. The loop must run once more. */
void closer_deinit(struct closer *closer);
