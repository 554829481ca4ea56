/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * From a decoded frame to method functions: one table with a row for each call of nicd.proto, and one way through it that checks
 * the frame as a whole, then for each request state, role, descriptors, dependencies and objects, before any method sees it.
 */
#include "daemon/answer.h"
#include "daemon/call.h"
#include "daemon/client.h"

enum {
	METHOD_REFS = 3,
	METHOD_IDS_BITS = 9,
	METHOD_IDS = 1 << METHOD_IDS_BITS,   /* at least twice NICD_FRAME_REQUESTS */
};

enum ref_need {
	REF_NONE,
	REF_REQUIRED,
	REF_OPTIONAL,   /* absent, or right */
	REF_UNREAD,     /* of a type that does not exist yet: only its order in the frame is checked */
};

/* A Ref among a call's arguments. */
struct method_ref {
	uint16_t at;            /* offset of the pointer in the call's message */
	uint8_t type;           /* enum nic_type; NIC_NONE: any */
	uint8_t need;           /* enum ref_need */
};

/* One request on its way, on the stack. */
struct request {
	struct client *client;
	const struct method *method;
	uint32_t id;
	const Nicd__Request *message;
	const void *args;                               /* the call's message */
	struct nic_object *objects[METHOD_REFS];        /* as the row's refs; NULL: absent */
	struct nic_memory *memories[NICD_RANGES];       /* of the ranges; NULL: absent */
	int fd;                                         /* -1, or owned: a method that takes it puts -1 here */
};

enum {
	METHOD_DEFERRED = 1u << 0,   /* pending, it doesn't count as in flight */
	METHOD_ALWAYS = 1u << 1,     /* finish is called for failures too */
	METHOD_BULK = 1u << 2,       /* a small request with a big reply */
};

struct method {
	const char *name;
	uint8_t roles;                   /* 1 << enum client_role */
	uint8_t states;                  /* 1 << enum client_state */
	uint8_t min_fds, max_fds;        /* max_fds <= 1 */
	uint8_t flags;
	uint8_t turn;                    /* enum nic_turn: what it waits for among accounts, with .start only; NONE: it is not slow */
	uint16_t ranges;                 /* offset of n_ranges; 0: none */
	struct method_ref refs[METHOD_REFS];
	Nicd__Reply__ResultCase result;
	/* Answers at once; or */
	int (*answer)(struct request *request, struct answer *answer, struct nicd_error *err);
	/* starts, and call_answer follows, maybe before this returns; refusals are returned and then nothing follows; */
	int (*start)(struct request *request, struct call *call, struct nicd_error *err);
	/* and then this fills the answer in. */
	void (*finish)(struct call *call, const struct nicd_error *error, struct answer *answer);
};
/* NULL: no such call. */
const struct method *method_find(unsigned call_case);

/* How a request of the frame that is being worked on ended. */
struct frame_slot {
	enum { SLOT_NONE, SLOT_DONE, SLOT_REFUSED, SLOT_PENDING } state;
	struct call *call;   /* PENDING */
	uint64_t id;         /* DONE: the object it made */
};

struct dispatch {
	struct calls calls;
	/* The request ids of one frame: a hash that is cleared by going to the next epoch. */
	uint32_t epoch;
	struct {
		uint32_t epoch, id, index;
	} ids[METHOD_IDS];
	struct frame_slot slots[NICD_FRAME_REQUESTS];
	uint32_t tokens[2][NICD_QUERY_IDS];   /* QueryTokens */
};
struct dispatch *dispatch_new(struct nic_env *env, const struct policy *policy);
struct dispatch *dispatch_free(struct dispatch *dispatch, struct nic_env *env);

/* Checks the whole frame and changes nothing. A negative errno: *violation says why. */
int dispatch_check(struct client *client, const Nicd__Frame *frame, unsigned n_fds, struct nicd_error *violation);
/* Starts the requests of a frame that was checked. */
void dispatch_frame(struct client *client, const Nicd__Frame *frame, struct wire_packet *packet);
/* Starts the calls whose dependencies were answered. */
void dispatch_ready(struct client *client);

/* A journal line for refusals that are decisions. */
void dispatch_log(struct client *client, const char *method, const struct nicd_error *error);

/* NOT_SUPPORTED, for the rows to come. */
int method_to_come(struct request *request, struct answer *answer, struct nicd_error *err);
