/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * One piece of work with libnicd, as a plugin or a thread would do it: a session on each of two nicds, one of every object, one call of every kind in
 * flight, and then an end in the middle of that. Everything that it uses is its own.
 */
enum work_end {
	WORK_ANTECEDENTS_FIRST,   /* closes all handles, PDs and buffers before what stands on them */
	WORK_SUCCESSORS_FIRST,
	WORK_IN_CALLBACK,         /* closes all handles in the first callback */
	WORK_FREE,                /* nicd_free with everything in flight */
	WORK_FREE_IN_CALLBACK,
	WORK_ENDS
};

/* 0, or the line of work.c where something was not as it should be; *what then says more. `number` makes names unique. */
typedef int (*work_run_fn)(const char *owner_socket, const char *peer_socket, enum work_end end, unsigned number, const char **what);
__attribute__((visibility("default"))) int work_run(const char *owner_socket, const char *peer_socket, enum work_end end, unsigned number,
						    const char **what);
