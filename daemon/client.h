/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A client: one session as the protocol sees it, without its socket. Frames come in through client_frame, encoded frames pile up
 * in client->out, and whoever owns the socket (daemon/session.c, or a test) moves them. Nothing here or in dispatch.c and
 * method-*.c knows libuv or a socket, so that a test can drive it in one process.
 *
 *   NEW --Hello--> READY --violation, end of socket, shutdown--> CLOSING --everything released--> freed by its owner
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/policy.h"
#include "nicd/memory.h"
#include "nicd/nic.h"
#include "proto/frame.h"
#include "proto/turns.h"

struct call;
struct client;
struct client_news;
struct dispatch;

/* The numbers are those of enum Role in nicd.proto. */
enum client_role { CLIENT_ROLE_CLIENT, CLIENT_ROLE_GATEWAY, CLIENT_ROLE_ADMIN };
enum client_state { CLIENT_NEW, CLIENT_READY, CLIENT_CLOSING };

struct client_identity {
	enum client_role role;
	bool admin_socket;     /* counted apart in the ledger */
	uint32_t pid, uid, gid;
	char account[256];     /* "uid:1000" */
};

/* What all clients of a process share, and what they need from it. */
struct client_host {
	struct nic *nic;
	struct nic_env *env;
	const struct policy *policy;
	uint8_t boot_id[NICD_BOOT_ID_SIZE];
	struct arena arena;                        /* one frame at a time is decoded in the process */
	struct frame_pool frames;                  /* for the output of all clients */
	TAILQ_HEAD(, client) clients;              /* in the order of their serials */
	RB_HEAD(client_serials, client) serials;   /* the same, to find */
	RB_HEAD(client_accounts, client) accounts; /* the same by account, then serial: one's own without a look at those of others */
	uint32_t bulk_steps;                       /* what List and Who may still look at in this frame, together */
	uint32_t turn_steps;                       /* what they have looked at in this turn of the loop */
	uint64_t work;                             /* what requests have cost so far: one each, and what they looked at; for the fair queue */
	uint32_t n_clients, n_admins;
	uint64_t n_calls;                          /* requests in flight */
	struct turns turns;                        /* of the loop, which calls turns_end */
	struct turns_report device_turns;          /* of the devices' loops, since an admin last looked */
	struct dispatch *dispatch;                 /* what dispatch.c and call.c keep for all clients */
	/*
	 * There is something to send, a request that waited can start (client_prepare_output does it), or reading may go on:
	 * called at most once until client_flushed. Once more when a closing client is gone. May come from deep inside the NIC layer: the
	 * client is looked at later, never here.
	 */
	void (*wake)(struct client *client);
	/* Ends a client's session (Revoke of a session), maybe that of the caller; later, never here. */
	void (*kick)(struct client *client);
	/*
	 * Calls fn(arg) once, when delay_ns have passed, never from inside. There is no cancelling: after client_host_deinit fn must not
	 * be called any more.
	 */
	void (*after)(struct client_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg);
	/* One line for the journal; `client` may be NULL. */
	void (*log)(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error);
	/* Open descriptors of the process; for the ledger. */
	uint32_t (*open_fds)(struct client_host *host);
	/* Its process lives, by pidfd; for lists. */
	bool (*alive)(struct client *client);
	/* What is behind a descriptor that came as memory; client_host_init puts memfd_check here when there is none. */
	int (*check_memory)(int fd, struct nic_memory_facts *ret, struct nicd_error *err);
};

int client_host_init(struct client_host *host);   /* -ENOMEM; the pointers and hooks are set by the caller */
void client_host_deinit(struct client_host *host);

enum {
	CLIENT_BULK_STEPS = 4096,   /* of a frame: about half a millisecond */
	CLIENT_TURN_STEPS = 2048,   /* of a turn of the loop: then no more frames are read in it */
	CLIENT_POOL = 64,           /* buffers kept for output that is to come */
	CLIENT_WORK_STEPS = 8,      /* that cost as much as a request */
	CLIENT_HELD = 64,           /* replies to silent successes that lie in the output without waking anybody */
};

/* A turn of the loop begins. */
static inline void client_host_turn(struct client_host *host)
{
	host->turn_steps = 0;
}
/* Has so much been looked at that the next frame should wait for the next turn? */
static inline bool client_host_is_spent(const struct client_host *host)
{
	return host->turn_steps >= CLIENT_TURN_STEPS;
}

struct client {
	struct client_host *host;
	TAILQ_ENTRY(client) of_host;
	RB_ENTRY(client) of_serial;
	RB_ENTRY(client) of_account;
	struct client_identity identity;
	enum client_state state;
	uint64_t serial;
	uint64_t since_ns;                /* wall clock */
	char label[NICD_STRING + 1];      /* from Hello */
	uint8_t resume_secret[NICD_RESUME_SECRET_SIZE];
	struct nic_owner owner;
	struct nic_charge charge;         /* SESSIONS; not of the admin socket, which a full account must not lock out */
	struct nic_charge charge_out;     /* BUFFERED: what is queued; nor this */
	struct frame_out out;
	RB_HEAD(call_tree, call) calls;   /* in flight, by request id */
	TAILQ_HEAD(, call) ready;         /* of those, the ones that waited for others and may start now */
	TAILQ_HEAD(, call) watchers;      /* Revoke calls of others that wait for the end of this session */
	uint32_t n_calls;                 /* in flight, without Close */
	TAILQ_HEAD(, client_news) news;   /* pending events: one per object and kind */
	RB_HEAD(news_tree, client_news) news_tree;   /* the same, to find */
	uint32_t n_news;
	bool resync;
	bool woken;
	uint32_t n_held;                   /* replies to silent successes since the output was last flushed */
	bool released;                    /* client_release was called */
	bool fatal;                       /* a Fatal is queued: send what is there, then end */
	void *userdata;                   /* of whoever owns the socket */
};

RB_PROTOTYPE(client_serials, client, of_serial, client_serial_compare)
RB_PROTOTYPE(client_accounts, client, of_account, client_account_compare)

/* The session of this serial, or NULL. */
struct client *client_find(struct client_host *host, uint64_t serial);
/* The session with the next higher serial, of one account or (NULL) of all; NULL: no more. */
struct client *client_next(struct client_host *host, const struct nic_account *account, uint64_t after);

/* Charges a session to the account. QUOTA, NO_MEMORY. */
int client_new(struct client **ret, struct client_host *host, const struct client_identity *identity, void *userdata,
	       struct nicd_error *err);

/*
 * One packet: decode, check, start every request. Takes the packet's descriptors, not the packet. False: a violation; Fatal is queued, and
 * the session must end once client->out is sent or the socket does not take it.
 */
bool client_frame(struct client *client, struct wire_packet *packet);
/* For what the transport itself finds wrong (oversize, MSG_CTRUNC). */
void client_violation(struct client *client, enum nicd_reason reason, uint64_t limit, uint64_t observed);

/* May another frame be read? Not while too much output or too many requests are pending. */
bool client_wants_input(const struct client *client);
/* Is there more output queued to the sessions of its account, together, than they may have? Then none of them should be read. */
static inline bool client_output_is_full(const struct client *client)
{
	const struct nic_account *account = client->owner.account;

	return !client->identity.admin_socket && account->used[NIC_SLOT_BUFFERED] >= account->limits.max[NIC_SLOT_BUFFERED];
}
/* Starts requests that waited for others and turns pending events into frames; call on wake, before flushing client->out. */
void client_prepare_output(struct client *client);
/* After flushing: woken is false again, unless there is more to start. */
void client_flushed(struct client *client);

/*
 * The end of the session: no more replies, everything it holds is closed in chunks of `budget` objects. True: call again.
 * client_free may be called when client_gone says so (objects whose device has not confirmed, and calls that the device has not
 * answered, keep it); when that becomes true later, wake is called.
 */
bool client_release(struct client *client, unsigned budget);
bool client_gone(const struct client *client);
struct client *client_free(struct client *client);

/* For call.c, dispatch.c and news.c. */
struct Nicd__Reply;
void client_reply(struct client *client, const struct Nicd__Reply *reply);   /* not after the end */
/* The same, but nobody is woken for it: it goes with whatever goes next, with the session's next frame, or when CLIENT_HELD of them are there. */
void client_reply_held(struct client *client, const struct Nicd__Reply *reply);
void client_wake(struct client *client);
void client_check_gone(struct client *client);
