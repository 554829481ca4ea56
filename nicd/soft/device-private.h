/* SPDX-License-Identifier: MIT */
#pragma once
/* The inside of struct soft_device, for device.c, cut.c and command.c only. */
#include <bsd/sys/tree.h>

#include "nicd/soft/device.h"
#include "proto/turns.h"

enum {
	SOFT_MAX_READS = 64,     /* IRD and ORD offered to peers */
	SOFT_DROPS = 255,        /* of a DropTag, besides the first */
	SOFT_LIST_PAGE = 1024,   /* entries; below a frame at their largest */
};

/* A request that is answered later. An orphan's controller has gone: its answer is dropped. */
struct soft_pending {
	struct soft_device *device;
	uint32_t id;
	bool orphan;
	RB_ENTRY(soft_pending) by_id;
};
RB_HEAD(soft_pendings, soft_pending);

/* AddTags and DropTags that wait for their turn in a stream, by serial (command.c). */
struct tag_turn;
RB_HEAD(tag_turns, tag_turn);

/* What the entries of a List reply are made of. */
struct soft_page {
	Soft__Entry entries[SOFT_LIST_PAGE];
	Soft__Entry *pointers[SOFT_LIST_PAGE];
	uint32_t cut[SOFT_DROPS];   /* and a Dropped */
};

/* A DropTicket under way: answered when the last who came in by it is out. */
struct soft_cut {
	struct soft_pending *pending;
	uint64_t serial;
	unsigned n;
	STAILQ_ENTRY(soft_cut) next;
};

struct soft_device {
	uv_loop_t *loop;
	struct soft_device_hooks hooks;
	struct soft_tags *tags;
	struct soft_tickets *tickets;
	struct soft_engine *engine;
	uint64_t incarnation;
	char data_address[64];
	bool controlled;                 /* Hello was said */
	bool keep;                       /* by the last Hello */
	struct soft_pendings pendings;   /* without the orphans */
	struct tag_turns tag_turns;
	struct soft_page *page;
	uv_timer_t expiry;
	uint64_t expiry_ns;              /* what it is set to; UINT64_MAX: not */
	uv_idle_t tidying;               /* dropping, unmapping, populating */
	enum soft_dropping {
		SOFT_DROP_NOTHING, SOFT_DROP_TICKETS, SOFT_DROP_STREAMS, SOFT_DROP_TAGS
	} dropping;                      /* what is being dropped, in this order: nobody new, out with those who are in, then the rest */
	struct soft_pending *hello;      /* waits for the end of that */
	STAILQ_HEAD(, soft_cut) cuts;    /* one after the other, as long as cut_until lets them */
	uint64_t cut_until;              /* in this turn; 0: there was none yet */
	struct turns turns;              /* of the loop */
	size_t dropped;                  /* tags, in this turn */
	unsigned open_handles;
	void (*closed)(void *userdata);
	void *userdata;
};

uint64_t soft_now(void);   /* ns, monotonic */
/*
 * Begins to end tickets, then streams, tags and memory, and to draw a new incarnation; a device may hold a million tags, so it is done in
 * turns of DROP_NS. True: it is done already.
 */
bool soft_device_drop(struct soft_device *device);
/* What Hello answers once that is done. */
void soft_hello_put(const struct soft_device *device, Soft__Reply *reply, Soft__HelloReply *hello);
/* After tickets have come; after memory has come or gone. */
void soft_device_arm_expiry(struct soft_device *device);
void soft_device_tidy(struct soft_device *device);

/* cut.c: ends who came in by this ticket. True: it is done, *n were cut. False: it takes more turns, and `id` is answered then. */
bool soft_device_cut(struct soft_device *device, uint64_t serial, uint32_t id, unsigned *n);
void soft_device_cut_turn(struct soft_device *device);
void soft_device_cut_all(struct soft_device *device);   /* in as long a turn as it takes */
void soft_dropped_put(Soft__Reply *reply, Soft__Dropped *dropped, unsigned streams_cut);

/* NULL: out of memory. */
struct soft_pending *soft_pending_new(struct soft_device *device, uint32_t id);
/* Answers (sets the reply's id) and frees. */
void soft_pending_answer(struct soft_pending *pending, Soft__Reply *reply);

/* Of a reply, from an error; and of the counters. */
void soft_reply_refuse(Soft__Reply *reply, const struct nicd_error *err);
void soft_counters_put(Soft__Stream *stream, const struct nic_counters *counters);
