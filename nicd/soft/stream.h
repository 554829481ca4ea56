/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The inside of the engine and of its streams, for engine.c, accept.c, stream.c, handshake.c, receive.c, transmit.c,
 * work.c and message.c only.
 *
 * Nothing calls out of the engine while a stream is at work: what others must hear is noted (stream_news) and told by
 * engine_tell, which runs with no stream's state on the stack. So no callback can drop a tag under a frame that is being built.
 */
#include <bsd/sys/tree.h>
#include <sys/queue.h>

#include "nicd/soft/engine.h"
#include "nicd/soft/mpa.h"
#include "nicd/soft/rdmap.h"
#include "nicd/soft/work.h"

enum {
	STREAM_QUANTUM = 256 * 1024,   /* bytes of a stream per turn and direction */
	STREAM_SEGMENT_MAX = 65520,    /* payload of the largest FPDU */
	RX_BUFFER = 256 * 1024,        /* must hold an FPDU and what was left of one */
	RX_PEEK = 4096,                /* read ahead of a large segment: more would only be copied twice */
	RX_LARGE = 8192,
	RX_PLACES = 256,               /* pieces of one process_vm_writev */
	TX_FRAMES = 64,                /* of one sendmsg */
	TX_PIECES = 1024,
	TX_HEAD = 80,                  /* the longest Terminate, or our MPA frames */
	STREAM_READS_KEPT = 8,         /* room for reads that an idle stream keeps */
	STREAM_DRAIN_MS = 2000,
	STREAM_NUDGE_MS = 500,         /* how long the answer to our first frame may take before we knock again */
	STREAM_TERMINATE_MS = 10000,
};
_Static_assert(RX_BUFFER >= 2 * FPDU_MAX, "a leftover and a whole FPDU fit");

enum stream_state {
	STREAM_CONNECTING,   /* out: TCP */
	STREAM_REQUESTING,   /* out: waits for the reply */
	STREAM_CONFIRMING,   /* out: waits for the answer to its first frame */
	STREAM_FAILED,       /* out: waits for the time that all failures share */
	STREAM_ACCEPTING,    /* in: waits for the request */
	STREAM_ADMITTED,     /* in: the reply is on its way, the ticket reserved; waits for the first frame */
	STREAM_OPEN,
	STREAM_TERMINATING,  /* is ending: sends what must go out before, and Terminate */
	STREAM_DRAINING,     /* has said all; reads and drops until the peer closes, so that no RST overtakes what we said */
	STREAM_CLOSED,       /* nothing moves any more; the handles are closing, or will be soon */
};

/* A peer's read: its answer is sent from here. */
struct stream_read {
	uint32_t msn;
	struct rdmap_read wire;
};

/* A read of ours. The STag exists only here: no lookup by token ever finds it. */
struct stream_sink {
	uint32_t stag;
	uint32_t length, received;
	struct soft_work *work;
	uint32_t entry;      /* work->n_entries: the zero-length read behind writes; without work: our first frame */
};

/*
 * Where sending stands, at a frame boundary. Frames are built ahead of a sendmsg on a copy; what the kernel did not take is
 * forgotten, and built and checked again later.
 */
enum tx_lane { TX_LANE_NONE, TX_LANE_RESPONSE, TX_LANE_WORK };
struct tx_cursor {
	enum tx_lane message;      /* of the tagged message under way: no other may come between */
	enum tx_lane last;         /* whose turn it was */
	bool terminated;
	bool notified;             /* the notice behind `work` is out */
	bool flushed;              /* the zero-length read behind `work` is out */
	uint32_t in_head, in_off;  /* response */
	struct soft_work *work;    /* NULL: all posted work is out */
	uint32_t entry, off;
	uint32_t out_tail;         /* reads sent so far */
	uint32_t send_msn;         /* of the last message that is out */
	uint32_t nudges;           /* sent so far */
};

struct tx_frame {
	uint8_t head[TX_HEAD];     /* all of a frame without payload */
	uint8_t tail[FPDU_TAIL_MAX + 1];
	uint8_t head_len, tail_len;
	uint32_t payload;
	struct soft_tag *tag;      /* of the payload; valid in this turn only, or while `half_use` holds it */
	uint64_t addr;
	uint8_t *staged;           /* the payload where no client writes: inline data of `work`, or a copy (CRC) */
	enum tx_lane lane;
	struct soft_work *work;    /* whose entry it is a part of */
	uint32_t entry;
	struct tx_cursor after;
};

struct stream_rx {
	uint8_t *rest;                     /* of a frame that is not whole yet */
	uint32_t rest_len;
	/* The segment being placed. */
	struct soft_use use;
	uint64_t addr;
	uint32_t left;                     /* bytes of payload to come */
	uint32_t skip;                     /* bytes of pad and CRC to come */
	uint16_t ulpdu;
	struct rdmap_header header;
	bool in_segment;
	bool notice;                       /* the segment is a notice */
	/* The message being received. */
	bool in_message;
	uint8_t opcode;
	uint32_t stag;
	uint64_t to;                       /* tagged */
	uint32_t mo;                       /* untagged */
	uint32_t send_msn;                 /* expected next */
	uint32_t notices;                  /* to be told once what is staged is placed */
	bool stalled;                      /* a message waits for a receive: nothing is read */
	bool overdue;                      /* it has waited long enough */
	bool again;                        /* what is kept is to be looked at before more is read */
	uint32_t read_msn;                 /* expected next */
	uint32_t arrived;                  /* reads of ours that are complete once what is staged is placed */
	bool staged_own;                   /* bytes for them are in the batch */
	bool large;                        /* the last message was: read the next header, then place directly */
};

struct stream_tx {
	struct tx_cursor at;
	struct tx_frame half;              /* the frame that the kernel took a part of */
	uint32_t half_sent, half_size;     /* size 0: none */
	struct soft_use half_use;
	bool blocked;                      /* the socket is full */
	bool alone;                        /* after EFAULT: one frame at a time, to find the one that it is about */
	bool must_terminate;
	struct rdmap_terminate terminate;
};

/* Somebody who has asked for this connection. */
struct stream_waiter {
	STAILQ_ENTRY(stream_waiter) next;
	void (*done)(void *userdata, const struct nicd_error *error, const struct soft_connected *result);
	void *userdata;
};

struct soft_stream {
	struct soft_engine *engine;
	uint64_t number;
	RB_ENTRY(soft_stream) by_number;
	LIST_ENTRY(soft_stream) of_engine;
	TAILQ_ENTRY(soft_stream) next_ready, next_news, next_stranger;
	STAILQ_ENTRY(soft_stream) next_grave;
	bool listed, is_ready, has_news;
	bool readable;
	bool reset;                        /* its socket is to be closed with a reset */
	bool broken;                       /* its socket has failed; what the peer said before that is still read */
	bool stranger;                     /* in: nothing has proved a right to be here */
	bool half_open;                    /* in: nor sent a frame */
	bool counted;                      /* in: as a stream of its address and PD */
	struct soft_tally *by_address, *by_pd;
	struct soft_place places[2];       /* in: by the ticket, and by the export that it is for */
	enum stream_state state;
	bool inbound;
	bool told;                         /* opened or connected has been told, so its end must be */
	bool crc;
	bool rtr_send;                     /* the first frame may be an empty Send */
	int fd;
	int polled;                        /* events */
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned handles;
	char peer[64];

	struct soft_scope remote, local;   /* what the peer may name; what our work requests may */
	struct soft_windows windows;       /* that only the peer may name */
	struct soft_ticket *ticket;        /* in: reserved, or spent */
	bool spent;
	uint64_t door;

	uint32_t segment;                  /* payload of our FPDUs */
	bool by_mss;
	uint64_t mss_read;                 /* loop time */
	uint32_t ird, ord;
	struct stream_rx rx;
	struct stream_tx tx;
	struct stream_read *in;            /* a ring that grows as reads wait, up to ird of them */
	uint32_t in_tail, in_room;         /* a power of two; 0: none yet */
	struct stream_sink *out;           /* ord of them, made at the first */
	uint32_t out_head;
	struct soft_works posted, ended;
	uint32_t n_posted;
	struct soft_works receives, arrived;   /* posted; filled, but not placed yet */
	uint32_t n_receives;                   /* in both */
	TAILQ_ENTRY(soft_stream) next_stall, next_notice;
	uint64_t stall_until;              /* loop time */
	size_t stall_cost;
	struct soft_tally *stall_pd;       /* while it is stalled: what counts that */
	uint64_t notified;                 /* by the peer, so far */
	bool noticed;                      /* not told yet */
	struct nic_counters counters;

	/* Connecting. */
	struct sockaddr_storage addr;
	uint64_t connect_by;               /* loop time */
	uint32_t nudges;                   /* to be sent in all */
	uint8_t ticket_secret[NICD_TICKET_SIZE];
	uint64_t ticket_mark;              /* what the secret was, to know it again */
	STAILQ_HEAD(, stream_waiter) waiters;
	struct soft_connected result;

	/* To be told. */
	bool tell_opened, tell_connected, tell_closed;
	struct nicd_error connect_error, why;
};

RB_HEAD(soft_streams, soft_stream);
/* Ten thousand idle peers shall cost little: what one needs only at work is lent to it then. */
_Static_assert(sizeof(struct soft_stream) + STREAM_READS_KEPT * sizeof(struct stream_read) <= 3072, "an idle stream is small");

static inline struct stream_read *stream_read_at(const struct soft_stream *s, uint32_t i)
{
	return &s->in[i & (s->in_room - 1)];
}

struct soft_listener {
	LIST_ENTRY(soft_listener) next;
	struct soft_engine *engine;
	int fd;
	uv_poll_t poll;
};

struct soft_engine {
	uv_loop_t *loop;
	struct soft_tags *tags;
	struct soft_tickets *tickets;
	struct soft_engine_options options;
	struct soft_engine_events events;
	struct soft_streams streams;                 /* listed ones, by number */
	LIST_HEAD(, soft_stream) all;
	TAILQ_HEAD(soft_ready, soft_stream) ready;
	TAILQ_HEAD(, soft_stream) news;
	STAILQ_HEAD(, soft_stream) graves;           /* closed ones of which the handles are still to be closed */
	struct soft_stream *reset_at;                /* the next one that a reset under way drops */
	LIST_HEAD(, soft_listener) listeners;
	uint64_t last_inbound;
	TAILQ_HEAD(soft_strangers, soft_stream) strangers;   /* oldest first */
	uint64_t n_streams, n_half_open;
	struct soft_caps caps;
	TAILQ_HEAD(, soft_stream) stalls;            /* oldest first */
	uint64_t stalled_bytes;
	uv_timer_t stall_timer;
	TAILQ_HEAD(, soft_stream) notices;           /* streams whose peers have notified */
	uv_prepare_t prepare;
	uv_check_t check;
	uv_timer_t dusk;                             /* then the dead are buried */
	bool buries;
	uv_idle_t idle;
	uint64_t quiet_at;                           /* when the last turn ended */
	bool spins;
	uv_timer_t accept_again;
	unsigned handles;
	bool closing;
	void (*closed)(void *userdata);
	void *closed_userdata;

	/* Scratch of one stream's turn. */
	uint8_t *rx_buffer;                          /* RX_BUFFER */
	uint8_t *tx_buffer;                          /* STREAM_QUANTUM + a segment, made when the first stream has CRC */
	struct tx_frame *frames;                     /* TX_FRAMES */
	struct iovec pieces[TX_PIECES];
	struct iovec place_from[RX_PLACES], place_to[RX_PLACES];
	unsigned n_place_from, n_place_to;
	size_t placing;
	uint32_t random[64];
	unsigned n_random;
};

/* engine.c */
struct soft_stream *engine_find(struct soft_engine *engine, uint64_t number);
void engine_ready(struct soft_stream *s);        /* it may have something to send */
void engine_unready(struct soft_stream *s);
void engine_readable(struct soft_stream *s);     /* it has something to read */
void engine_news(struct soft_stream *s);         /* it has something to tell */
void engine_tell(struct soft_stream *s);         /* tells now; never with a stream's turn on the stack */
void engine_bury(struct soft_stream *s);         /* its handles can be closed */
void engine_list(struct soft_stream *s);
void engine_unlist(struct soft_stream *s);
void engine_stranger(struct soft_stream *s, bool stranger);
void engine_half_open(struct soft_stream *s, bool half_open);
/* False: a cap, or no memory. */
bool engine_admit(struct soft_stream *s);
/* Takes it out of all counts. */
void engine_uncount(struct soft_stream *s);
void engine_stream_freed(struct soft_engine *engine);
/* accept.c: closes the listening sockets. */
void engine_unlisten(struct soft_engine *engine);
uint32_t engine_sink_stag(struct soft_stream *s);

/* stream.c */
struct soft_stream *stream_new(struct soft_engine *engine, uint64_t number, bool inbound);   /* NULL: no memory */
/* Closes the handles of one that has ended: the system calls of an end, which many ends at once may wait for. */
void stream_bury(struct soft_stream *s);
/* The struct goes when its handles are closed and everything is told. */
void stream_gone(struct soft_stream *s);
/* The ticket is not this stream's any more. */
void stream_leave(struct soft_stream *s);
int stream_accept(struct soft_engine *engine, int fd);    /* takes fd */
void stream_connect(struct soft_stream *s, uint32_t timeout_ms);
/* Our first frame goes out, and is followed by nudges until it is answered or the time is up. */
void stream_confirm(struct soft_stream *s);
void stream_poll(struct soft_stream *s);
void stream_timer(struct soft_stream *s, uint32_t ms);    /* what happens then depends on the state */
void stream_segment_init(struct soft_stream *s);
void stream_segment_enlarge(struct soft_stream *s);
void stream_refresh_mss(struct soft_stream *s);
bool stream_is_serving(const struct soft_stream *s);      /* frames may come and go */
void stream_note_connected(struct soft_stream *s, enum nicd_reason reason);
/* The caller is told when the time is up: how fast a connect fails says nothing about what is there. */
void stream_connect_failed(struct soft_stream *s);
/* All of these end posted work first (QP_LOST where the caller has not done it). */
/* At once, and nobody is told. */
void stream_destroy(struct soft_stream *s);
/* At once, with a reset. */
void stream_abort(struct soft_stream *s, enum nicd_reason reason, int provider_error);
/* Says why, after what must be said before. */
void stream_terminate(struct soft_stream *s, const struct rdmap_terminate *terminate, enum nicd_reason reason);
/* Closes our direction once everything is sent. */
void stream_finish(struct soft_stream *s, const struct nicd_error *why);
/* Everything is sent. */
void stream_shutdown(struct soft_stream *s);
/* The peer has closed its direction. */
void stream_eof(struct soft_stream *s);
/* The controller ends it: nothing is told of the stream; its work ends with `reason`. */
void stream_drop(struct soft_stream *s, enum nicd_reason reason, bool graceful);

/* handshake.c */
void stream_tcp_connected(struct soft_stream *s);
/* The handshake's bytes so far. */
void stream_handshake(struct soft_stream *s, const uint8_t *buf, size_t len);
/* The peer's first frame has come: the ticket is spent. False: it is not any more. */
bool stream_first_frame(struct soft_stream *s);
/* The peer has answered our first frame. */
void stream_confirmed(struct soft_stream *s);

/* receive.c */
void rx_init(struct soft_stream *s);
/* Reads up to a quantum. True: there is more. */
bool rx_turn(struct soft_stream *s);
void rx_stop(struct soft_stream *s);             /* drops what is half received */
/*
 * What is kept is looked at again, in the stream's turn: all of it is copied for that, and many receives that are posted together shall
 * not do it many times.
 */
void rx_resume(struct soft_stream *s);
/* What is staged is placed, and then what depends on it is told. False: the stream has ended. */
bool rx_flush(struct soft_stream *s);

/* message.c */
void message_engine_init(struct soft_engine *engine);
void message_init(struct soft_stream *s);
void message_stop(struct soft_stream *s);        /* nothing waits for a receive any more */
/* As in work.h, of a NIC_SEND; and what a write that notifies ends with. */
enum tx_result message_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame, enum nicd_reason *why);
enum tx_result message_notice_frame(const struct tx_cursor *at, struct tx_frame *frame);
/* The posted work that a copied header is about. */
bool message_find(struct soft_stream *s, const struct rdmap_header *h, struct soft_work **ret, uint32_t *entry);
/*
 * May this segment of `n` bytes come now? RDMAP_FINE, with the address in rx->addr and the tag; RDMAP_MORE: the stream is stalled, and of
 * what was read `have` bytes are to be kept; or what to terminate with, if the stream is still serving.
 */
enum rdmap_code message_segment(struct soft_stream *s, const struct rdmap_header *h, uint32_t n, size_t have,
				struct soft_tag **tag);
bool message_is_notice(const struct soft_stream *s, const struct rdmap_header *h, uint32_t n);
/* The segment rx->header of `n` bytes is complete. Last, for it may end the stream. */
void message_segment_end(struct soft_stream *s, uint32_t n);
/* What has arrived is placed. False: the stream has ended. */
bool message_flush(struct soft_stream *s);
/* True: one is being received, and is not complete. */
bool message_is_half(const struct soft_stream *s);
/* What has arrived, and the one under way, end with *why; all end with *why. */
void message_blame(struct soft_stream *s, const struct nicd_error *why);
void message_lost(struct soft_stream *s, const struct nicd_error *why);
void message_notice_tell(struct soft_stream *s);
void message_notice_drop(struct soft_stream *s);

/* transmit.c */
void tx_init(struct soft_stream *s);
/* True: the quantum is used up and there is more. */
bool tx_turn(struct soft_stream *s);
void tx_raw(struct soft_stream *s, const uint8_t *buf, size_t len);   /* an MPA frame */
void tx_stop(struct soft_stream *s);             /* drops what is half sent */
/* Fills head and tail of a frame with a header and `extra` inline bytes; the payload is sent behind the head. */
void tx_frame_make(struct tx_frame *frame, const struct rdmap_header *header, const uint8_t *inline_bytes, size_t n_inline,
		   uint32_t payload);
