/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A device that a test plays on, and an environment that it turns by hand. The device keeps a model of what it was given (memories,
 * tags, doors, streams) and aborts when it is asked for something that the NIC layer must never ask: a tag on memory that is not
 * attached, a detach under a tag, a command on an object whose last one has not ended.
 *
 * Commands end before the op returns, unless their kind is held: then they wait for fake_complete*. Either way fake_fail decides
 * how; what ends with an error has changed nothing.
 */
#include "nicd/env.h"
#include "nicd/provider.h"

/* ---- environment */

enum { FAKE_CLOSED = 64 };

struct fake_env {
	struct nic_env env;
	uint64_t now, wall;
	uint64_t seed;
	unsigned long allocs;         /* made so far */
	unsigned long fail_at;        /* this one fails (they count from 1); 0: none */
	bool fail_on;                 /* and all after it */
	bool failed;                  /* it came to that */
	uint64_t live_blocks, live_bytes;
	unsigned n_closed;
	int closed[FAKE_CLOSED];      /* fds given to close_fd, the first of them */
	bool real_fds;                /* close them, too */
};
void fake_env_init(struct fake_env *env);

/* ---- device */

enum fake_op {
	FAKE_ATTACH,
	FAKE_DETACH,
	FAKE_TAG_ADD,
	FAKE_TAG_DROP,
	FAKE_MAPPING_ADD,
	FAKE_MAPPING_DROP,
	FAKE_KEY_ADD,
	FAKE_KEY_DROP,
	FAKE_DOOR_ADD,
	FAKE_DOOR_DROP,
	FAKE_CONNECT,
	FAKE_POST,
	FAKE_FLUSH,
	FAKE_DISCONNECT,
	FAKE_QUERY,
	FAKE_STATS,
	FAKE_OPS   /* also: any of them */
};

struct fake_failure {
	enum nicd_reason reason;
	unsigned skip, times;
};

struct fake_thing;
struct fake_command;
TAILQ_HEAD(fake_commands, fake_command);

struct fake {
	struct nic_provider provider;
	/* How it behaves. */
	bool hold[FAKE_OPS];
	struct fake_failure fail[FAKE_OPS];
	uint64_t attach_percent, tag_percent;   /* of the bytes: what is to be charged; default 100 and 0, like nicd-soft */
	bool half_lost;                         /* fake_lose: still says it is up while it ends what is pending */
	bool silent_cut;                        /* door_drop does not report the streams it cuts */
	uint32_t cut_by_tag;                    /* what tag_drop says it cut */
	/* What it was asked. */
	unsigned calls[FAKE_OPS];
	unsigned pushes;
	struct nic_attach attach;               /* the last ones */
	struct nic_tag tag;
	struct nic_map map;
	struct nic_tag_range ranges[NICD_RANGES];
	struct nic_door door;
	struct nic_connect connect;
	struct nic_post post;
	uint64_t serial;                        /* of detach, drops, keys, flush, disconnect, query */
	uint32_t generation;
	struct nic_order drop_order;            /* of the last tag_drop */
	/* What it holds. */
	struct fake_thing *memories, *tags, *mappings, *keys, *doors, *streams;
	struct fake_commands pending;
	uint32_t last_token;
	uint64_t last_stream;
	bool lost, told_lost;
	bool *freed;                            /* set when it is freed; may be NULL */
};

/* Given to nic_adapter_new as &fake->provider; freed by its ops->free. */
struct fake *fake_new(void);

void fake_hold(struct fake *fake, enum fake_op op, bool hold);
/* After `skip` more, `times` commands of this kind end with `reason`. */
void fake_fail(struct fake *fake, enum fake_op op, unsigned skip, unsigned times, enum nicd_reason reason);

unsigned fake_pending(const struct fake *fake, enum fake_op op);
/* Ends the oldest, or newest, pending command of this kind; false: there is none. */
bool fake_complete(struct fake *fake, enum fake_op op);
bool fake_complete_newest(struct fake *fake, enum fake_op op);
bool fake_complete_with(struct fake *fake, enum fake_op op, enum nicd_reason reason);
/* Until none is left, also of those that come meanwhile; returns how many. */
unsigned fake_complete_all(struct fake *fake);

void fake_stats(const struct fake *fake, uint64_t *memories, uint64_t *tags, uint64_t *doors, uint64_t *streams);
bool fake_holds_nothing(const struct fake *fake);
/* The remote token of a tag that the device has, by serial; 0: none. */
uint32_t fake_tag_token(const struct fake *fake, uint64_t serial);

/* ---- news */

/* What the device does when a peer's message invalidates this tag; the event is the test's to tell. */
void fake_tag_gone(struct fake *fake, uint64_t serial);

uint64_t fake_stream_open(struct fake *fake, uint64_t door, const char *peer);
void fake_stream_close(struct fake *fake, uint64_t stream, enum nicd_reason why, const struct nic_counters *counters);
void fake_expire(struct fake *fake, uint64_t door);
/* The device goes away: what is pending ends with DEVICE_LOST, before or after the event. */
void fake_lose(struct fake *fake, bool event_first);
