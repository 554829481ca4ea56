/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A socket that clients connect to: made at a path that is locked for as long as it lives, or handed in by the service
 * manager. Accepts while it is told to; never takes a path from somebody who listens there.
 */
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "daemon/options.h"

struct listener {
	uv_poll_t poll;
	uv_timer_t again;            /* after a failed accept */
	int fd;
	int lock;                    /* of the lock file; -1: handed in */
	bool bound;                  /* the path is ours to remove */
	bool accepting;
	unsigned open_handles;
	char path[OPTIONS_PATH];
	/* A connection, now the callee's. False: no more for now, until listener_start. */
	bool (*accepted)(struct listener *listener, int fd);
	void *userdata;
};

struct listener_terms {
	const char *path;
	mode_t mode;
	bool has_group;
	gid_t group;
};

void listener_init(struct listener *listener);
/* Makes the socket. Negative errno with what, why and a cure in `message`. */
int listener_bind(struct listener *listener, const struct listener_terms *terms, char *message, size_t size);
/* Takes a listening socket. */
int listener_take(struct listener *listener, int fd, char *message, size_t size);
/*
 * The sockets that the service manager passed: by name "nicd", "nicd.socket" into *client, "admin", "nicd-admin.socket" into
 * *admin; -1 where there is none. Negative errno with a message when there is one that nobody knows.
 */
int listener_passed(int *client, int *admin, char *message, size_t size);

int listener_open(struct listener *listener, uv_loop_t *loop);
void listener_start(struct listener *listener);
void listener_stop(struct listener *listener);
/* Removes the path, then the lock. The loop must run until open_handles is 0. */
void listener_close(struct listener *listener);
