/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Sessions: the sockets of clients, and the clients behind them. This side moves bytes and descriptors and decides
 * when; what they mean is the client's (daemon/client.h).
 *
 *   OPEN --violation--> LAST_WORDS --sent, or not taken--> RELEASING --all closed--> WAITING --device confirmed--> freed
 *     \---end of socket, kicked, stalled, shutdown----------^
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "daemon/client.h"
#include "daemon/descriptors.h"
#include "daemon/env.h"
#include "daemon/identity.h"

struct session;
STAILQ_HEAD(session_work, session);
TAILQ_HEAD(session_list, session);

struct sessions {
	uv_loop_t *loop;
	struct client_host *host;
	struct descriptors *descriptors;
	struct env *env;
	const struct identity_rules *rules;
	uint32_t max;                  /* open at the same time */
	bool bind_to_pid;
	uint32_t stall_ms;             /* no progress on a full output for so long ends a session */
	uint32_t hello_ms;             /* so long without Hello, too */
	struct session_list open;      /* OPEN, LAST_WORDS */
	struct session_list starving;  /* not read for lack of what many share: descriptors, threads that close, their account's output */
	struct session_list greeting;  /* have not said Hello, in the order in which they came */
	struct nic_fair reading;       /* those whose socket has something, by account */
	struct nic_fair releasing;     /* those that have ended, by account */
	struct session_work dirty;     /* something to do at the end of the turn */
	uint64_t read_until, serve_until;   /* when the turn's share of that is over; 0: not begun */
	uint32_t n_open, n_all;
	uint32_t burying;              /* sockets that a worker empties and closes */
	uint64_t n_accepted;
	uint32_t n_starving;
	uv_idle_t idle;                /* turns the loop while there is something to release or to do */
	uv_timer_t stall;              /* looks after those whose output is full */
	uv_timer_t greeting_timer;
	unsigned n_blocked;
	unsigned open_handles;
	uint8_t *buf;                  /* one packet, of whoever is read now */
	/* A session ended: there may be room for another, or nobody left. */
	void (*ended)(struct sessions *sessions);
	void *userdata;
};

struct sessions_terms {
	uv_loop_t *loop;
	struct client_host *host;
	struct descriptors *descriptors;
	struct env *env;
	const struct identity_rules *rules;
	uint32_t max;
	bool bind_to_pid;
	uint32_t stall_ms;             /* 0: 30 s */
	uint32_t hello_ms;             /* 0: 10 s */
};

/* Sets the host's hooks wake, kick and alive. -ENOMEM. */
int sessions_init(struct sessions *sessions, const struct sessions_terms *terms);
/* Takes fd, whatever comes of it: who may not come in is told why and hung up on. */
void session_accept(struct sessions *sessions, int fd, bool admin_socket);
/* May another be accepted? Admins have room when clients have none left. */
bool sessions_have_room(const struct sessions *sessions, bool admin_socket);
/* When the loop has told of all sockets: a turn begins, and they are read in the order that is fair, for a share of it. */
void sessions_read(struct sessions *sessions);
/* The end of a turn of the loop: what is ready goes out, and reading goes on where it may. */
void sessions_turn(struct sessions *sessions);
/* Call it last before the loop waits. False: somebody has been woken since; the loop is kept turning until that is done. */
bool sessions_settled(struct sessions *sessions);
/* All of them end; `ended` is called for each. */
void sessions_end(struct sessions *sessions);
/* Nothing left but handles: closes them; the loop must run until open_handles is 0. */
void sessions_close(struct sessions *sessions);
void sessions_deinit(struct sessions *sessions);
