/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The session: socket, frames in and out, calls in flight, and the queue of callbacks that wait for nicd_dispatch. One
 * struct nicd is used by one thread at a time; nothing here is shared.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/call.h"
#include "client/error.h"
#include "client/nicd.h"
#include "client/object.h"
#include "proto/frame.h"

struct adapter {
	uint64_t id;
	struct nicd_adapter_info info;   /* its strings are owned here */
};

struct nicd {
	int fd;                        /* -1: lost */
	uint8_t *alive;                /* a page of its own that fork() wipes: 0 in a child */
	bool ended;                    /* the socket has said so once */
	bool lost;
	bool calling;                  /* a callback runs */
	bool freeing;                  /* nicd_free runs, or has run inside a callback */
	bool resolved;                 /* an object left PENDING: deferred calls may go */

	struct frame_out out;
	struct arena arena;            /* one decoded frame */
	uint8_t *in;                   /* one packet */

	struct call_table calls;       /* sent, not answered */
	struct call_list deferred;     /* wait for the answer to an earlier one, in the order in which they were made */
	struct call_list ready;        /* answered, callback not called; and events */
	unsigned n_ready;
	struct call_list spare;        /* free ones */
	unsigned n_spare;
	uint64_t walk;                 /* number of the walk over deferred calls */

	struct object_list objects;
	struct object_tree ids;
	LIST_HEAD(, pages) pages;      /* lists and ledgers */

	struct nicd_session_info session;
	struct adapter *adapters;
	unsigned n_adapters;

	nicd_event_callback event;
	void *event_userdata;
	nicd_log_callback log;
	void *log_userdata;

	struct nicd_error_info error;  /* of the last failure */
	struct nicd_error_info loss;   /* why the connection ended */

	uint64_t random[32];           /* drawn, to be used from the end */
	unsigned n_random;
};

/* Field numbers of nicd.Frame. */
enum { FRAME_REQUESTS = 1 };

/* Without a socket yet: fd is -1. -ENOMEM. */
int conn_new(struct nicd **ret);
/* Frees everything, calls nothing. */
struct nicd *conn_free(struct nicd *n);
/* Ends all that is under way with `why`, and closes the socket. */
void conn_lose(struct nicd *n, const struct nicd_error_info *why);

/* 0, or the -EOWNERDEAD or -ENOTCONN that every call gives. */
int conn_check(struct nicd *n);
/* As well, for calls that answer with a handle: -EINVAL without a place for it. */
int conn_check_ret(struct nicd *n, const void *ret);
/* In a child of fork()? */
static inline bool conn_forked(const struct nicd *n)
{
	return !*n->alive;
}
/* Sends what the socket takes. */
void conn_output(struct nicd *n);
/* Reads and handles packets that are there, at most `max`; how many. */
unsigned conn_input(struct nicd *n, unsigned max);
/* Sends and receives until the call is answered (or the connection lost), at most `timeout_ms` (-1: for ever): -ETIMEDOUT. */
int conn_wait(struct nicd *n, const struct call *call, int timeout_ms);
/* Calls the callbacks that are ready now; how many, or -ECANCELED when one of them freed the session. */
int conn_deliver(struct nicd *n);

/* Sets the last error and returns it. */
int conn_fail(struct nicd *n, enum error_local which, uint64_t limit, uint64_t observed);
int conn_refuse(struct nicd *n, enum nicd_reason reason, uint64_t limit, uint64_t observed);
int conn_fail_system(struct nicd *n, int err, const char *what, const char *cure);

uint64_t conn_random(struct nicd *n);
