/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * An iWARP peer on a blocking socket, of as few lines as the test needs and sharing none with nicd-soft: MPA request,
 * RDMA Write, Read Request and its answer, and taking apart what comes. It sends frames in pieces, which no honest peer
 * would.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/locator.h"

enum {
	PEER_FRAME_MAX = 65536 + 64,
	PEER_WRITE_HEAD = 16,          /* bytes before the payload */
	PEER_WRITE = 0,
	PEER_READ_REQUEST = 1,
	PEER_READ_RESPONSE = 2,
	PEER_TERMINATE = 7,
};

struct peer {
	int fd;                        /* -1: not connected */
	bool crc;
	uint32_t msn;                  /* of the last Read Request */
	size_t have;                   /* bytes in `in` */
	size_t taken;                  /* of these, the frame handed out last */
	uint8_t in[PEER_FRAME_MAX];
	uint8_t out[PEER_FRAME_MAX];   /* the frame made last */
};

struct peer_frame {
	uint8_t opcode;
	bool last;
	const uint8_t *payload;
	size_t length;
};

struct peer_terms {
	const struct locator *to;
	uint32_t source;               /* 127.x.y.z to connect from: a port of its own for everybody, however many were used lately */
	bool crc;
	int receive_buffer;            /* 0: the kernel's */
};

/* False: refused, or ended before the reply. *grant (may be NULL) is what the accept gave; token 0: nothing. */
bool peer_connect(struct peer *peer, const struct peer_terms *terms, struct locator_grant *grant);
/* The other way round: a socket that peers connect to, its address in *at (with port); and who comes, whatever its ticket. */
int peer_listen(struct locator *at, int receive_buffer);
bool peer_accept(struct peer *peer, int listener, bool crc);
/* Gone at once, with a reset, so that no port waits. Does nothing when not connected. */
void peer_reset(struct peer *peer);

/* Make a frame in peer->out; return its size. The payload of a write is `length` bytes of `fill`. */
size_t peer_make_write(struct peer *peer, uint32_t stag, uint64_t to, uint32_t length, uint8_t fill);
size_t peer_make_read(struct peer *peer, uint32_t stag, uint64_t from, uint32_t length);
size_t peer_make_send(struct peer *peer, uint32_t length, uint8_t fill);   /* the first message */
/* The answer to a Read Request, in one frame of `fill`. */
size_t peer_make_answer(struct peer *peer, const struct peer_frame *request, uint8_t fill);

/* False: the other side has ended the connection. */
bool peer_send(struct peer *peer, const void *buf, size_t len);
/* Waits for a byte. */
bool peer_wait(struct peer *peer);
/* The next frame; the payload points into peer->in. False: the connection is over, and everything before that was looked at. */
bool peer_next(struct peer *peer, struct peer_frame *frame);
/* An empty read: when it is answered, all that was written before it is placed. False: the connection is over. */
bool peer_flush(struct peer *peer);
