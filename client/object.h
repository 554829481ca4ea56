/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What all handles of things that live in nicd have in common. Embedded first in struct nicd_memory, nicd_pd, …
 *
 *   PENDING --answered--> LIVE
 *      '-----refused----> FAILED      closed: the caller's handle is gone, at any state
 *
 * References: one of the caller until it closes, one of each call that is about the object, one of each child. The session
 * lists all; nicd_free takes what is left.
 */
#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/nicd.h"

struct call;

enum object_state { OBJECT_PENDING, OBJECT_LIVE, OBJECT_FAILED };

struct object {
	struct nicd *n;
	TAILQ_ENTRY(object) of_session;
	RB_ENTRY(object) by_id;
	void (*fini)(struct object *object);   /* before it is freed; NULL: nothing to do */
	void (*event)(struct object *object, uint32_t kind);   /* nicd has news of it; NULL: nothing to do */
	struct object *parent;                 /* its PD; referenced */
	struct nicd_error_info *why;           /* FAILED, and there was memory for it */
	uint64_t id, serial;                   /* LIVE */
	uint64_t frame;                        /* PENDING: the frame its making went out with; 0: not yet */
	uint32_t request;                      /* PENDING: the id of that request */
	const struct call *settling;           /* the last one under way that changes its state; NULL: none */
	uint64_t settling_frame;               /* the frame that went out with */
	uint32_t type;                         /* NICD_TYPE_… */
	enum object_state state;
	unsigned refs;
	unsigned users;                        /* open handles that stand on it */
	unsigned deferred;                     /* calls on it that wait for the answer to another */
	uint64_t passed;                       /* number of the last walk over deferred calls that left one of its there */
	uint32_t news;                         /* 1 << kind of events that wait for nicd_dispatch */
	bool closed;
};

TAILQ_HEAD(object_list, object);
RB_HEAD(object_tree, object);

/* `size` bytes, zeroed, PENDING, one reference: the handle. Returns NULL without memory. */
void *object_new(struct nicd *n, uint32_t type, size_t size, struct object *parent, void (*fini)(struct object *object));
struct object *object_ref(struct object *object);
struct object *object_unref(struct object *object);
/* false: the answer makes no sense (id 0, or one that another object has). */
bool object_live(struct object *object, uint64_t id, uint64_t serial);
void object_fail(struct object *object, const struct nicd_error_info *why);
/* The caller has given its handle back: no more events, and the parent is used by one less. */
void object_close(struct object *object);
struct object *object_find(struct nicd *n, uint64_t id);
