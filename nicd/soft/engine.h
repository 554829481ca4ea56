/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The iWARP engine of the software RNIC: MPA (RFC 5044, 6581), DDP (RFC 5041) and RDMAP (RFC 5040) over TCP, as responder and as
 * initiator, on one libuv loop. It reads and writes client memory only through soft_tag_check and soft_tag_iov.
 *
 * Files: mpa.c (handshake and FPDU framing, pure functions on bytes), rdmap.c (DDP/RDMAP headers and Terminate, pure), stream.c
 * (one connection: states and end), handshake.c (its beginning), receive.c and transmit.c (its two halves), work.c (posted
 * transfer lists), message.c (Send and receive), engine.c (connects, registry, turns),
 * accept.c (listeners).
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "nicd/provider.h"   /* struct nic_counters, enum nic_operation */
#include "nicd/soft/caps.h"
#include "nicd/soft/tag.h"
#include "nicd/soft/ticket.h"

struct soft_engine;
struct soft_stream;

struct soft_engine_events {
	/* An inbound peer has sent its first frame: the ticket is spent. */
	void (*opened)(void *userdata, uint64_t stream, const struct soft_ticket *ticket, const char *peer);
	/* A stream that was told as opened or connected ended; not for those that soft_disconnect was called on. */
	void (*closed)(void *userdata, uint64_t stream, const struct nicd_error *why, const struct nic_counters *counters);
	/* The peer of an inbound stream says that what it wrote is there; `count` times so far. Only from soft_engine_notices. */
	void (*notified)(void *userdata, uint64_t stream, uint64_t door, uint64_t count);
	/* A message invalidated this tag: it is gone. Told before the message's receive ends. */
	void (*invalidated)(void *userdata, uint64_t stream, uint64_t tag, uint32_t generation);
	void *userdata;
};

/* In place of a frame's size: by the path's MSS to strangers on loopback too. */
enum { SOFT_FPDU_MSS = 1 };

struct soft_engine_options {
	uint64_t incarnation;
	uint32_t handshake_timeout_ms;   /* 5,000: from the connection to the request, and from the request to the end of an outbound one */
	uint32_t first_frame_timeout_ms; /* 60,000: a peer that was let in and did not promise its first frame at once */
	uint32_t max_half_open;          /* as in soft_engine_caps; 0: the default */
	uint32_t receive_wait_ms;        /* 5,000: how long a message waits for a receive */
	uint32_t max_ird, max_ord;       /* 64 */
	uint32_t fpdu;                   /* 0: by the path's MSS to strangers, 64 KiB to our kind and on loopback; SOFT_FPDU_MSS; or a size */
	bool crc;                        /* ask for CRC; a peer that asks gets it in any case */
};

int soft_engine_new(struct soft_engine **ret, uv_loop_t *loop, struct soft_tags *tags, struct soft_tickets *tickets,
		    const struct soft_engine_options *options, const struct soft_engine_events *events);
/* Ends all streams at once and closes; the loop must run until `closed`. */
void soft_engine_close(struct soft_engine *engine, void (*closed)(void *userdata), void *userdata);
/* Drops all streams that there are (a new controller): one by one, true: there are more; or all at once. */
void soft_engine_reset_begin(struct soft_engine *engine);
bool soft_engine_reset_step(struct soft_engine *engine);
void soft_engine_reset(struct soft_engine *engine);
void soft_engine_free(struct soft_engine *engine);

/* To be set before there are connections, or to be raised at any time; what has been refused is there to be read. */
struct soft_caps *soft_engine_caps(struct soft_engine *engine);

/* For streams to come, as in the options. */
void soft_engine_framing(struct soft_engine *engine, uint32_t fpdu, bool crc);
/* Port 0: any; *bound is the real address. Negative errno. */
int soft_engine_listen(struct soft_engine *engine, const struct sockaddr *addr, struct sockaddr_storage *bound);
/* Takes a listening socket made by someone else. */
int soft_engine_listen_fd(struct soft_engine *engine, int fd, struct sockaddr_storage *bound);

struct soft_connect_terms {
	uint64_t stream;      /* number, chosen by the controller, top bit clear */
	uint64_t pd;
	struct sockaddr_storage addr;
	uint8_t ticket[NICD_TICKET_SIZE];
	uint32_t timeout_ms;
};
struct soft_connected {
	char peer[64];
	bool has_grant;
	struct locator_grant grant;
};
/*
 * Said again with the same terms while there is such a stream: the answer that the first one gets or got; with others: DEVICE_BUSY.
 * `done` exactly once, maybe before the call returns, with reason NONE for success (here and in soft_post): then the ticket is
 * spent and the other side has told of the stream. Error CONNECT for every failure (all failures before the handshake ends
 * come after the same time: timeout_ms).
 */
void soft_connect(struct soft_engine *engine, const struct soft_connect_terms *terms,
		  void (*done)(void *userdata, const struct nicd_error *error, const struct soft_connected *result),
		  void *userdata);

struct soft_completion {
	uint32_t entries;
	uint64_t bytes;
	uint32_t failed;
	bool inexact;
	bool solicited, invalidated;   /* of a message received */
	uint32_t token;                /* what it invalidated */
};
struct soft_post {
	enum nic_operation operation;  /* NIC_READ, NIC_WRITE, NIC_SEND */
	bool notify;                   /* NIC_WRITE: tell the peer's owner, once it is placed */
	bool solicited, invalidate;    /* NIC_SEND */
	uint32_t invalidate_token;
	bool fence;                    /* begins when the stream's earlier reads have ended */
	bool is_inline;                /* NIC_WRITE, NIC_SEND of one entry: its local side means nothing, these are its bytes (copied) */
	const uint8_t *inline_data;    /* as many as the entry is long, at most NICD_INLINE */
	const uint8_t *entries;        /* NIC_SEND: one, of which the remote side means nothing */
	uint32_t n_entries;
};
/*
 * Posts a transfer list or a message (copied). Local tokens are checked when an entry's turn comes; failing there ends the stream like a
 * remote error, after what was posted before has completed. Writes and messages are done when the peer has placed them. `done`
 * exactly once. QP_STATE when there is no such connected stream.
 */
void soft_post(struct soft_engine *engine, uint64_t stream, const struct soft_post *what,
	       void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
	       void *userdata);
/*
 * Something else in the order of a stream's work: is it its turn, behind what was posted before and has not read its memory yet, and, with
 * `fence`, behind the reads? NEVER: there is no such connected stream.
 */
enum soft_turn { SOFT_TURN_NOW, SOFT_TURN_LATER, SOFT_TURN_NEVER };
enum soft_turn soft_turn_of(struct soft_engine *engine, uint64_t stream, bool fence);
/*
 * When it is later: `done` once, with reason NONE when its turn has come and before the stream goes on, or with why the stream has ended
 * first. What is returned is valid until then. NULL: no memory.
 */
struct soft_work *soft_turn_wait(struct soft_engine *engine, uint64_t stream, bool fence,
				 void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
				 void *userdata);
/* Takes it out of its queue: it is gone, and `done` is not called. False: its turn has come, and `done` is about to be called. */
bool soft_turn_forget(struct soft_work *turn);
/*
 * Posts a receive: the local side of one entry, checked now. Filled by the messages of the peer, in order. A message that finds none
 * waits for receive_wait_ms, and what follows it in the stream with it.
 */
void soft_receive(struct soft_engine *engine, uint64_t stream, const uint8_t *entry,
		  void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
		  void *userdata);
/* Posted work and receives end with FLUSHED before it returns. */
void soft_flush(struct soft_engine *engine, uint64_t stream);
/* Flushes, closes gracefully; no closed event. False: no such stream. */
bool soft_disconnect(struct soft_engine *engine, uint64_t stream);
/* Tells of at most `max` streams whose peers have notified; returns of how many. Whoever is told calls it when there is room. */
unsigned soft_engine_notices(struct soft_engine *engine, unsigned max);
/*
 * Ends streams that came in by this ticket or hold this grant, for as long as it is not `until` (ns, monotonic; at least a few), and adds to
 * *n how many. True: there are more. They are told of later.
 */
bool soft_engine_cut_door(struct soft_engine *engine, uint64_t serial, uint64_t until, unsigned *n);

struct soft_stream_info {
	uint64_t stream, door, pd;   /* door: the ticket's serial */
	char peer[64];
	bool connected;
	uint32_t posted;
	struct nic_counters counters;
};
/* Where its windows go; NULL: no such stream, or it is not open. */
struct soft_windows *soft_stream_windows(struct soft_engine *engine, uint64_t stream);
bool soft_stream_info(struct soft_engine *engine, uint64_t stream, struct soft_stream_info *ret);
/* The first one with a number above `after`. */
bool soft_stream_next(struct soft_engine *engine, uint64_t after, struct soft_stream_info *ret);
struct soft_cap_stats {
	uint64_t limit, now, refused;
	bool counted;         /* `now` is one number */
};
struct soft_engine_stats {
	uint64_t streams, half_open;
	struct soft_cap_stats caps[SOFT_CAPS];
};
void soft_engine_stats(const struct soft_engine *engine, struct soft_engine_stats *ret);
