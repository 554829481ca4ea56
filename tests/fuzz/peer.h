/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A peer on the data port that says whatever the input tells it to, and an engine behind it with memory, tags and
 * tickets. Some of the memory no door leads to: its bytes must stay as they are, and never leave.
 *
 * An input is a list of commands, each one byte and its operands (peer.c); a command may leave its bytes lying for the
 * next to be sent with.
 */
#include <uv.h>

#include "nicd/soft/engine.h"
#include "nicd/soft/mpa.h"
#include "nicd/soft/rdmap.h"
#include "tests/fuzz/input.h"

enum { PEER_TAGS = 5, PEER_PAGES = 16, PEER_PD = 7, PEER_POSTS = 64 };

struct peer {
	uv_loop_t loop;
	struct soft_tags *tags;
	struct soft_tickets *tickets;
	struct soft_engine *engine;
	struct sockaddr_storage addr;             /* where the engine listens */
	uint8_t *map;                             /* our own look at the memory */
	uint32_t remote[PEER_TAGS], local[PEER_TAGS];
	unsigned told;

	/* One run. */
	int fd;                                   /* the peer's socket, -1 before it has one */
	bool is_responder;                        /* the peer is: it answers the engine's request */
	bool crc, mpa_done;
	bool greeted;                             /* the handshake was a good one */
	uint8_t in[1 << 18], out[1 << 18];        /* heard and not looked at; not sent yet */
	size_t n_in, n_out;
	uint32_t msn[3];                          /* next of each queue */
	struct rdmap_read last_read;              /* that the engine sent */
	uint64_t stream;                          /* the engine's */
	bool done[PEER_POSTS];                    /* what was posted on it and is answered */
	unsigned asked;
};

void peer_init(struct peer *peer, bool crc);
/* A run begins. */
void peer_begin(void);
/* Connects to the engine, when the peer has no socket yet. */
void peer_dial(struct peer *peer);
void peer_run(struct peer *peer, struct input *in, void (*act)(struct peer *peer, struct input *in));
/* Posts something on the engine's stream: a command's operand. */
void peer_work(struct peer *peer, struct input *in);
/* Ends the streams and checks all that must be. */
void peer_finish(struct peer *peer);
void peer_turn(struct peer *peer, unsigned n);

/* The secret of the ticket to the PD (0) or to the export (1). */
const uint8_t *peer_secret(unsigned which);
