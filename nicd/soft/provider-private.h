/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The inside of struct soft_provider: provider.c has the socket and the life of it, provider-hello.c its beginning, provider-flight.c the
 * commands that are in flight, provider-command.c says them, provider-reply.c takes the answers.
 */
#include "nicd/soft/provider.h"
#include "proto/frame.h"
#include "proto/soft.pb-c.h"

enum {
	SOFT_PROVIDER_BUF = NICD_FRAME_MAX + 1,
	SOFT_PROVIDER_DROPS = 256,   /* of one request */
};
#define SOFT_NO_SLOT UINT32_MAX

struct soft_slot;

/* Tags to drop that wait for others, until anything else is sent. */
struct soft_drops {
	struct nic_cmd *first, *last;   /* by next */
	size_t n;
	uint64_t serials[SOFT_PROVIDER_DROPS];
	uint32_t generations[SOFT_PROVIDER_DROPS];
};

struct soft_provider {
	struct nic_provider base;
	int sock;
	bool failed;             /* a send failed: dispatch will find the end of the socket */
	bool starved;            /* the last send found the kernel short */
	bool lost;               /* what was in flight is ending, up to n_ended; then the socket is closed */
	uint32_t n_ended;        /* slots */
	struct frame_out out;
	struct arena arena;
	struct soft_slot *slots; /* a command's id is its index + 1 */
	struct soft_drops drops;
	size_t n_dropped;        /* tags that went with others, in this dispatch */
	uint32_t n_slots, first_free;
	struct wire_pace pace;
	uint8_t *buf;            /* SOFT_PROVIDER_BUF */
};

static inline struct soft_provider *soft_provider(struct nic_provider *p)
{
	return (struct soft_provider *)p;
}

/* provider.c */
void soft_provider_push(struct nic_provider *provider);
void soft_provider_free(struct nic_provider *provider);

/* provider-hello.c: says it, and takes what the device says of itself. Waits. */
int soft_provider_hello(struct soft_provider *p, struct nicd_error *err);

/*
 * provider-flight.c: queues a request with this body for `cmd`, or ends it. Takes fd unless that is -1. A success must bring the result
 * that this call has.
 */
void soft_send(struct soft_provider *p, struct nic_cmd *cmd, Soft__Request__CallCase call, void *body, int fd);
/* A tag to drop; it goes with others. */
void soft_drops_add(struct soft_provider *p, uint64_t serial, uint32_t generation, struct nic_cmd *cmd);
/* Those that wait go now; they end, because the device is lost. */
void soft_drops_send(struct soft_provider *p);
void soft_drops_lose(struct soft_provider *p);
/* The command, out of the table; NULL: none has this id. */
struct nic_cmd *soft_slot_give(struct soft_provider *p, uint32_t id);
void soft_cmd_end(struct nic_cmd *cmd, enum nicd_reason reason, int provider_error);
/* A command and those that went with it; returns how many. */
unsigned soft_cmds_end(struct nic_cmd *cmd, enum nicd_reason reason);

/* provider-command.c */
extern const struct nic_provider_ops soft_provider_ops;

/* provider-reply.c. False: there is no such command, or the reply is not one to it. */
bool soft_provider_reply(struct soft_provider *p, const Soft__Reply *reply);
void soft_provider_event(struct soft_provider *p, const Soft__Event *event);
