/* SPDX-License-Identifier: MIT */
#pragma once
/* Things to do later, once each: what the session core asks for with client_host.after. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

struct timers_entry;

struct timers {
	uv_loop_t *loop;
	LIST_HEAD(, timers_entry) pending;
};

void timers_init(struct timers *timers, uv_loop_t *loop);
/* Calls fn(arg) once, when delay_ns have passed, never from inside. Ends the process when there is no memory for it. */
void timers_after(struct timers *timers, uint64_t delay_ns, void (*fn)(void *arg), void *arg);
/* Those that have not fired never will. The loop must run once more. */
void timers_close(struct timers *timers);
