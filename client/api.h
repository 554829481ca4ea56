/* SPDX-License-Identifier: MIT */
#pragma once
/* What the api-*.c files share: the handles, and how handles are closed. */
#include "client/conn.h"

struct nicd_memory {
	struct object object;      /* its users: registrations that name it */
	uint64_t size;
	uint32_t page_size;        /* as measured here; nicd's once it is answered */
	bool writable;
};

struct nicd_pd {
	struct object object;
};

enum { MR_RANGES = 16 };

/* A logical address map; it and each of its memories are in use by it. */
struct nicd_mapping {
	struct object object;
	uint64_t address, length;  /* 0 until it is answered */
	uint32_t pages;
	unsigned n_memories;
	struct nicd_memory *memories[MR_RANGES];
};

/* A registration, asked for or granted: the MR's memories are in use. Each is referenced. */
struct mr_use {
	LIST_ENTRY(mr_use) next;
	bool granted;
	unsigned n_memories;
	struct nicd_memory *memories[MR_RANGES];
};

/* What was last told of an MR or window; all but the generation 0 when that is over. */
struct region {
	uint32_t local_token, remote_token;
	uint64_t iova, length;
	uint32_t flags, generation;
};

struct nicd_mr {
	struct object object;
	LIST_HEAD(, mr_use) uses;
	struct region region;
};

struct nicd_qp {
	struct object object;
	struct nicd_grant grant;
	bool inbound;              /* nicd forgets it when its peer goes */
};

/* Tickets and exports. */
struct door {
	struct object object;
	struct nicd_grant grant;
	char *locator;             /* NULL until it is answered */
};

/*
 * NdkClose*: the handle is gone unless it is refused with -EBUSY or -EOWNERDEAD. `before` (may be NULL) is called once it
 * is not refused. NULL objects are allowed.
 */
int handle_close(struct object *object, void (*before)(struct object *object));
int handle_close_async(struct object *object, void (*before)(struct object *object), nicd_callback cb, void *userdata);

/* Closes what came of a failure; the last error stays what it is. */
void handle_discard(struct object *object);
/*
 * Waits for the call that makes `object`; on failure the handle is gone, and nicd is told if it had made the object
 * nevertheless.
 */
int handle_wait(struct object *object, struct call *call);

/* For calls that answer with a receipt: call->ret is a struct nicd_receipt or NULL. */
int receipt_finish(struct call *call, const Nicd__Reply *reply, int error);

/* region.c: for calls that answer with MrTokens; and for those that end what was told, with a receipt. */
int region_take(struct region *region, const Nicd__Reply *reply, int error);
void region_forget(struct region *region);
int region_receipt_finish(struct region *region, struct call *call, const Nicd__Reply *reply, int error);

/* Asks for a token of the handle. */
int region_token_start(struct object *object, Nicd__Request__CallCase call_case, uint32_t *ret, struct call **call);

/* The silence is ours: later calls may wait for the answer, which nicd would hold back until it hears from us again. */
void region_silence(struct call *call, uint32_t *flags, bool waits);

/* Of an MR or window; what came of it is for `finish`. */
struct region_invalidate {
	struct nicd_qp *qp;
	uint32_t flags;
	struct nicd_receipt *ret;
};
int region_invalidate_start(struct object *object, const struct region_invalidate *what, bool waits,
			    int (*finish)(struct call *call, const Nicd__Reply *reply, int error), struct call **call);

/* For calls that answer with ObjectInfo. */
int object_info_finish(struct call *call, const Nicd__Reply *reply, int error);

void grant_take(struct nicd_grant *grant, const Nicd__Grant *from);
