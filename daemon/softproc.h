/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The nicd-soft of rootless mode: a child process that is handed a listening socket as the service manager would, and
 * that ends when its controller goes. One at a time.
 */
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct options;

struct softproc {
	const struct options *options;
	uv_signal_t child;           /* SIGCHLD */
	uv_timer_t patience;         /* while it is being stopped */
	pid_t pid;                   /* 0: none runs */
	unsigned asked;              /* how often it was asked to end */
	unsigned open_handles;
	void (*ended)(struct softproc *softproc, const char *how);
	void *userdata;
};

int softproc_init(struct softproc *softproc, uv_loop_t *loop, const struct options *options);
/*
 * Starts it and returns a connection to its control socket; or a negative errno with a message. Its end is told by `ended`, never
 * before this returns.
 */
int softproc_start(struct softproc *softproc, char *message, size_t size);
/* Asks it to end, then insists; `ended` follows if it runs. */
void softproc_stop(struct softproc *softproc);
/* When none runs. The loop must run until open_handles is 0. */
void softproc_close(struct softproc *softproc);
