/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A call: a request whose answer may come later. Calls that are answered at once never become one.
 *
 *   STARTING --answered at once--> freed            WAITING --last dependency answered--> READY --started--> STARTING
 *      '--not answered when start returns--> PENDING --answered--> freed         QUEUED --its turn--^
 *
 * What the device works on, or a peer, goes through a fair queue by account: it waits QUEUED, if it must, before it starts or when it would.
 *
 * A call belongs to its client and keeps it: what is PENDING at the NIC layer when the session ends is answered into the void.
 */
#include <sys/queue.h>

#include "daemon/client.h"
#include "nicd/qp.h"
#include "nicd/region.h"

struct answer;
struct call;
struct frame_slot;
struct method;
struct nic_mapping;
struct request;

enum call_state {
	CALL_STARTING,   /* on the stack of its start */
	CALL_WAITING,    /* for calls it names by result_of */
	CALL_QUEUED,     /* for its account's turn */
	CALL_READY,
	CALL_PENDING,    /* at the NIC layer, or asleep */
	CALL_DONE,       /* answered while STARTING */
};

/* One call waits for another. Lies in the waiting one's memory. */
struct call_dep {
	TAILQ_ENTRY(call_dep) of_call;  /* in on->dependents */
	struct call *waiter;
	struct call *on;                /* NULL: answered */
	uint32_t result_of;
	bool refused;
	uint64_t id;                    /* what result_of means */
};

/* An alarm that a call may have set; outlives it because there is no cancelling. */
struct sleeper {
	LIST_ENTRY(sleeper) of_host;    /* once armed */
	struct client_host *host;
	struct call *call;              /* NULL: gone */
	void (*fn)(struct call *call);
	bool armed;
};

enum { CALL_STORE = 128 };

struct call {
	struct client *client;
	const struct method *method;
	uint32_t id;                    /* of the request */
	enum call_state state;
	bool counted;                   /* in n_calls; not so once a Close or Receive is pending */
	bool idle;                      /* PENDING, but not at the NIC layer: may be dropped when the session ends */
	bool linked;                    /* in client->calls */
	bool in_service;                /* in its account's window */
	bool silent;                    /* its success wakes nobody (OP_SILENT_SUCCESS) */
	struct nic_fair_item turn;      /* QUEUED */
	RB_ENTRY(call) of_client;
	TAILQ_ENTRY(call) link;         /* ready; watchers of another client; free list */
	struct frame_slot *slot;        /* while its frame is being worked on */
	TAILQ_HEAD(, call_dep) dependents;   /* in the order of their frame */
	struct nic_charge charge;       /* CALLS */

	/* What a waiting one needs to start: the packed request and its dependencies, in `store` or in memory of its own. */
	uint8_t *kept;
	size_t kept_size;               /* 0: in store */
	size_t packed_len;
	unsigned n_deps, n_missing;
	int fd;                         /* owned, or -1 */
	struct nic_charge charge_kept;  /* BUFFERED */
	struct nic_charge charge_fd;    /* FDS */

	/* What methods need while pending. */
	struct nic_done done;           /* answers the call; a method may put its own fn here */
	struct nic_work work;
	struct sleeper *sleeper;
	struct client *watched;         /* in its watchers */
	void *mem;                      /* of call_alloc */
	size_t mem_size;
	struct nic_charge charge_mem;   /* BUFFERED */
	union {
		struct nic_mr *mr;           /* object in the answer */
		struct nic_mw *mw;
		struct nic_frmr *frmr;
		struct nic_qp *qp;
		struct nic_export *door;
		struct nic_mapping *mapping;
		struct nic_key *key;         /* in mem */
		struct {
			struct nic_object *object;
			enum nic_type type;
			uint64_t serial;
			bool receipt;
			struct nic_receipt held;   /* a session's: what it held when it was revoked */
		} ended;                     /* Close, Revoke */
		struct {
			struct nic_object *asked;      /* the adapter; NULL: all were */
			uint64_t cursor;
			uint64_t memories, tags, tickets, streams;
		} ledger;
		struct {
			enum nic_type type;
			uint64_t what;                 /* Who: the serial asked for */
			uint64_t cursor;
			uint32_t max;
			uint32_t steps;                /* that the page may take */
			uint32_t pending;              /* answers of the device that are missing, and 1 while asking */
		} list;
	};
	uint64_t until;                 /* ConnectQp: no refusal is told earlier */
	struct nicd_error error;        /* ConnectQp: the refusal */

	uint8_t store[CALL_STORE] __attribute__((aligned(16)));
};
RB_PROTOTYPE(call_tree, call, of_client, call_compare)

/* What all calls of a process share. */
struct calls {
	TAILQ_HEAD(, call) spare;       /* for the next ones */
	unsigned n_spare;
	LIST_HEAD(, sleeper) sleepers;
	struct nic_fair fair[NIC_TURN_COUNT];   /* of these, those that methods name */
};
void calls_init(struct calls *calls, const struct policy *policy);
void calls_deinit(struct calls *calls, struct nic_env *env);

/* IN_FLIGHT, QUOTA, NO_MEMORY. */
int call_new(struct call **ret, struct client *client, const struct method *method, uint32_t id, struct nicd_error *err);
/* Gives everything back, not answering. */
struct call *call_free(struct call *call);
struct call *call_find(struct client *client, uint32_t id);

/* Would a new one of this method have to wait for its account's turn? */
bool call_must_queue(const struct client *client, const struct method *method);
/* Is it its turn? True: it is in service until it is freed, or call_unserve. */
bool call_serve(struct call *call);
/* It waits for that with its request packed; then it is READY. */
void call_queue(struct call *call);
/* What it waits for from now on is not the device: it is in nobody's way. */
void call_unserve(struct call *call);

/* After start: keeps it until it is answered, or frees it when it is. */
void call_started(struct call *call);
/*
 * Keeps a request until the calls that it depends on (on and result_of are set; copied) are answered, or, with none, until its
 * account's turn; takes request->fd. QUOTA, NO_MEMORY.
 */
int call_wait(struct call *call, struct request *request, const struct call_dep *deps, unsigned n_deps, struct nicd_error *err);
/* Of a call that waited: its request, and what its dependencies came to. */
const uint8_t *call_packed(struct call *call);
/* Its descriptor, now the caller's and no longer charged; -1: none. */
int call_take_fd(struct call *call);
uint64_t call_result_of(struct call *call, uint32_t result_of);
bool call_dependency_failed(struct call *call);

/* The final reply: refused, or what the method's finish makes of it. The call is gone unless it is STARTING. */
void call_answer(struct call *call, const struct nicd_error *error);
/* The same with an answer that is there already. */
void call_settle(struct call *call, struct answer *answer);

/* Zeroed memory that lives as long as the call, once. NULL: QUOTA, NO_MEMORY. */
void *call_alloc(struct call *call, size_t size, struct nicd_error *err);

/* Prepares an alarm, so that setting it cannot fail. -ENOMEM. */
int call_sleeper(struct call *call, void (*fn)(struct call *call));
void call_sleep(struct call *call, uint64_t delay_ns);

/* The session ends: drops every call that is not at the NIC layer. */
void calls_end(struct client *client);
