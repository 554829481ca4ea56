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

struct nicd_mr {
	struct object object;
	LIST_HEAD(, mr_use) uses;
	uint32_t local_token, remote_token;   /* as last told; 0 when deregistered */
	uint64_t iova, length;
	uint32_t flags, generation;
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

/* For calls that answer with ObjectInfo. */
int object_info_finish(struct call *call, const Nicd__Reply *reply, int error);

void grant_take(struct nicd_grant *grant, const Nicd__Grant *from);
