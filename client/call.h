/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A call: one request and what becomes of its answer.
 *
 *   NEW --submit--> SENT ------------answered----> READY --callback called, or waiting call returned--> freed
 *           '-----> DEFERRED --sent--^  '---lost---^
 *
 * Whoever makes a call fills it, submits it, and then says exactly one of call_wait and call_later.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/nicd.h"
#include "proto/nicd.pb-c.h"

struct object;
struct deferred;

enum call_stage { CALL_NEW, CALL_DEFERRED, CALL_SENT, CALL_READY };
enum call_mode { CALL_UNDECIDED, CALL_WAITED, CALL_LATER };

/*
 * How a call stands to what changes the state of the first object that it names: registering and deregistering an MR.
 * Others on the same MR would be refused while one of these is under way, so they wait; not for the answer if the request
 * may name its result.
 */
enum call_order {
	CALL_FREE,        /* indifferent */
	CALL_SETTLED,     /* wants it done */
	CALL_SETTLES,     /* is one, and wants earlier ones done */
	CALL_SETTLES_MR,  /* the same, and its answer holds the MR, so that it can be named */
};

struct call {
	TAILQ_ENTRY(call) next;          /* deferred, ready or spare */
	struct nicd *n;
	enum call_stage stage;
	enum call_mode mode;
	uint32_t id;                     /* of the request; SENT */
	int error;                       /* READY */
	struct nicd_error_info *why;     /* READY with an error; NULL: n->loss */
	/*
	 * Takes the answer over: fills what the caller gave, and the object. `reply` is NULL when there is none (error is
	 * set then). Returns the call's error; -EPROTO in place of success says that nicd makes no sense. May be NULL.
	 */
	int (*finish)(struct call *call, const Nicd__Reply *reply, int error);
	struct object *object;           /* what it is about; referenced */
	bool makes;                      /* it makes the object */
	bool silent;                     /* of a success nobody is told: no callback, nothing is filled in */
	enum call_order order;
	int fd;                          /* to be sent; owned; -1: none */
	void *ret, *ret2;                /* the caller's, or NULL */
	unsigned count;
	nicd_callback cb;
	void *userdata;
	struct deferred *deferred;
	uint32_t event;                  /* not a call but an event of this kind */
	uint64_t serial, event_count;    /* of the event */
};
TAILQ_HEAD(call_list, call);

struct call_table {
	struct call **slots;             /* by id & mask */
	uint32_t mask, used, last;
};

enum { CALL_DEPS = 19 };                 /* an MR, a Qp, a mapping and 16 memories */

/* `object` may be NULL. The errors of conn_check, -ENOMEM. */
int call_new(struct call **ret, struct nicd *n, struct object *object,
	     int (*finish)(struct call *call, const Nicd__Reply *reply, int error));
/* Gives it back unsubmitted, or done. */
struct call *call_free(struct call *call);

/*
 * Sends the request, or keeps it until the objects that it names are there. deps[i] is the object that the request's i-th
 * Ref (in the order of field numbers) is to name, or NULL to leave that Ref as it is. Takes the call: an error means that
 * it is gone.
 */
int call_submit(struct call *call, Nicd__Request *request, struct object *const *deps, unsigned n_deps);
/* The same for a call whose body is one Ref, to `dep`. */
int call_submit_ref(struct call *call, Nicd__Request__CallCase call_case, struct object *dep);
/* An answer without asking. */
void call_answer(struct call *call, int error);

/*
 * Of a work request, with its flags (NICD_OP_…), before it is submitted: a success may be silent, but not when somebody waits for it, who is
 * taken the flag.
 */
void call_silence(struct call *call, uint32_t *flags, bool waits);
/* Waits for the answer and returns its error; the call is gone. */
int call_wait(struct call *call);
/* Returns 0: the callback is called once, by nicd_dispatch. */
int call_later(struct call *call, nicd_callback cb, void *userdata);

/*
 * A function of the public interface, twice: `name` waits for the answer, `name`_async takes a callback for it. `params` are in parentheses;
 * `start`, in terms of them and of `waits`, makes `call` and submits it.
 */
#define CALL_TWINS(name, params, start) \
	NICD_API int name(CALL_PARAMS params) \
	{ \
		const bool waits __attribute__((unused)) = true; \
		struct call *call; \
		int r = start; \
\
		return r < 0 ? r : call_wait(call); \
	} \
\
	NICD_API int name##_async(CALL_PARAMS params, nicd_callback cb, void *userdata) \
	{ \
		const bool waits __attribute__((unused)) = false; \
		struct call *call; \
		int r = start; \
\
		return r < 0 ? r : call_later(call, cb, userdata); \
	}
#define CALL_PARAMS(...) __VA_ARGS__

/* For conn.c. A reply to a call that is in flight; false: nicd makes no sense. */
bool call_reply(struct nicd *n, const Nicd__Reply *reply);
/* Sends deferred calls that may go now. */
void call_release(struct nicd *n);
/* Ends all calls without an answer; their error is that of n->loss. */
void call_abort(struct nicd *n);
void call_deliver(struct call *call);
void call_event(struct nicd *n, const Nicd__Event *event);
void call_table_deinit(struct call_table *table);

/* For finish functions that need nothing from the answer. */
int call_finish_plain(struct call *call, const Nicd__Reply *reply, int error);
