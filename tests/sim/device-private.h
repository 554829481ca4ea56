/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The inside of the simulated device, for device.c (commands), device-tag.c (tags, which may be work of a stream), device-work.c (what is posted)
 * and device-peer.c (what peers do).
 */
#include "nicd/adapter.h"
#include "nicd/qp.h"
#include "tests/sim/world.h"

enum {
	COMMANDS = 2048,
	THINGS = 512,
	TOKENS = 4096,      /* there are, but 0: so few that one would come again soon if nobody took care */
	REST_MS = 10000,    /* of a token that was released */
};

struct command {
	enum sim_op op;
	unsigned number;
	uint64_t serial, pd;
	struct nic_cmd *cmd;
	struct sim_work work;
	uint32_t entries;
	uint64_t bytes;
	enum nicd_reason broken; /* a receive that was no good when it was posted */
	uint32_t generation;     /* of the tag that is dropped */
	uint64_t order;          /* a tag as work of this stream; 0: at once */
};

struct thing {
	enum { THING_MEMORY, THING_TAG, THING_DOOR, THING_STREAM, THING_MAPPING, THING_KEY } kind;
	uint64_t serial, door, pd;
	uint64_t iova, length;
	uint32_t rights;
	uint32_t local, remote, generation;
	uint64_t only_stream;    /* a tag: of a window, for the peer of this one */
	bool reserve;            /* a tag that grants nothing */
	bool settled;            /* its command has ended */
	uint32_t uses, max_streams;
	bool doomed;             /* a stream: its end has not been told yet */
	uint64_t notified;       /* by its peer, so often */
};

struct device {
	struct nic_provider provider;
	int index;               /* the model's */
	bool lost, told;
	uint64_t rests_until[TOKENS];   /* UINT64_MAX: it lives */
	unsigned n_commands, n_things;
	struct command commands[COMMANDS];
	struct thing things[THINGS];
	uint64_t last_stream;
};

/* ---- device.c */

struct thing *device_thing(struct device *d, unsigned kind, uint64_t serial);
struct thing *device_thing_add(struct device *d, unsigned kind, uint64_t serial);
void device_thing_remove(struct device *d, struct thing *thing);
static inline struct device *device_of(struct nic_provider *p)
{
	return (struct device *)p;
}
/* A command comes; `fill` has what the device keeps of it besides. */
void device_go(struct device *d, enum sim_op op, uint64_t serial, struct nic_cmd *cmd, const struct sim_op_args *args, struct command *fill);
/* Takes a command out and ends it as it is told. */
void device_end(struct device *d, unsigned i, enum nicd_reason reason);
/* A stream is gone; nicd hears of it, or has to find out. */
void device_stream_end(struct device *d, struct thing *stream, enum nicd_reason why, bool tell);

/* Tells the model what nicd made of a peer that came in: its Qp has a serial of nicd's own. */
void device_opened(void);

/* ---- device-tag.c */

void device_op_tag_add(struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd);
void device_op_tag_drop(struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order, struct nic_cmd *cmd);
void device_op_mapping_add(struct nic_provider *p, const struct nic_map *what, struct nic_cmd *cmd);
void device_op_mapping_drop(struct nic_provider *p, uint64_t serial, struct nic_cmd *cmd);
void device_op_key_add(struct nic_provider *p, uint64_t pd, uint64_t owner, struct nic_cmd *cmd);
void device_op_key_drop(struct nic_provider *p, uint64_t pd, struct nic_cmd *cmd);
/* The key of a PD, drawn when there is none yet. */
uint32_t device_key(struct device *d, uint64_t pd);
/* They have ended well. */
void device_tag_added(struct device *d, const struct command *c, uint32_t *local, uint32_t *remote);
void device_tag_dropped(struct device *d, const struct command *c, uint32_t *local, uint32_t *remote);
/* How one that is to end so ends, in the state that the device is in by now. */
enum nicd_reason device_tag_judge(struct device *d, const struct command *c, enum nicd_reason reason);
/* Nobody can use a tag any more: what waits for it fails, its tokens rest. */
void device_tag_gone(struct device *d, const struct thing *tag);
/* A stream has ended, and the windows of its peer with it. */
void device_windows_gone(struct device *d, uint64_t stream);

/* ---- device-work.c */

enum nicd_reason device_work_check(struct device *d, const struct command *c);
/* How work ends that is to end so, in the state that the device is in by now. */
enum nicd_reason device_work_judge(struct device *d, const struct command *c, enum nicd_reason reason);
enum nicd_reason device_work_failure(const struct command *c);
void device_work_complete(const struct command *c, enum nicd_reason reason);
/* The place of the oldest receive of this stream; UINT32_MAX: none. */
unsigned device_oldest_receive(const struct device *d, uint64_t stream);
/* What was posted on a stream before this command ends. */
void device_cancel(struct device *d, uint64_t stream, unsigned before);
/* Receives into this tag end alone. */
void device_cut(struct device *d, const struct thing *tag);

/* ---- device-peer.c */

/* The message that ends this command invalidates a tag, maybe. */
void device_peer_invalidates(struct device *d, const struct command *c);
/* A stream whose end was not told yet. */
bool device_peer_doomed(struct device *d);
