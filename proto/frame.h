/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Frames: what stands between packets and messages, for every process. Decoding uses an arena with a budget in place of
 * malloc, because a small packet can unpack to a great many messages. Encoding appends one message after the other to an open
 * frame (a repeated field is nothing but its elements in a row), so that all that is ready leaves in as few packets as
 * possible.
 */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "proto/reason.h"
#include "proto/wire.h"

/* Memory for one decoded frame at a time. Zero-initialise `limit` fields through arena_init. */
struct arena {
	ProtobufCAllocator allocator;   /* for protobuf-c; free is a no-op */
	uint8_t *mem;
	size_t used, size;
	unsigned allocs, max_allocs;
	bool spent;                     /* a budget was exceeded */
};
int arena_init(struct arena *arena, size_t size, unsigned max_allocs);   /* -ENOMEM */
void arena_deinit(struct arena *arena);
void *arena_alloc(struct arena *arena, size_t size);   /* 16-byte aligned, not zeroed; NULL: spent */
/* What was decoded with it is gone. */
void arena_reset(struct arena *arena);

/* The message, in the arena; NULL: violation FRAME_EMPTY, FRAME_UNDECODABLE or FRAME_BUDGET. */
ProtobufCMessage *frame_decode(const ProtobufCMessageDescriptor *descriptor, struct arena *arena, const uint8_t *data,
			       size_t len, struct nicd_error *violation);

/*
 * Empty buffers that many queues lend: one that is not full keeps 64 KiB for the next frame, which is too much for each of
 * thousands of sessions that say nothing. The last one back is the first one out, because it is still in the cache.
 */
struct frame_buf;
struct frame_pool {
	STAILQ_HEAD(, frame_buf) bufs;
	unsigned n, max;                /* more than max are freed */
};
void frame_pool_init(struct frame_pool *pool, unsigned max);
void frame_pool_deinit(struct frame_pool *pool);

/* Encoded frames on their way out. */
struct frame_out {
	STAILQ_HEAD(, frame_buf) bufs;  /* the last one is open */
	size_t bytes;                   /* queued */
	uint64_t opened;                /* frames begun so far: the number of the open one */
	struct frame_buf *spare;
	bool secret;                    /* what was sent is wiped; set after frame_out_init */
	struct frame_pool *pool;        /* instead of the spare one, when set after frame_out_init; borrowed */
};
void frame_out_init(struct frame_out *out);
void frame_out_deinit(struct frame_out *out);   /* closes queued descriptors */
/*
 * Appends `message` as an element of the envelope's field `field` (a length-delimited one, number < 16). Starts a new frame
 * when it does not fit, when the open frame holds elements of another field, or NICD_FRAME_REQUESTS of them. Takes the
 * fds, also on failure. -EMSGSIZE: the message alone is larger than a frame; -ENOMEM.
 */
int frame_put(struct frame_out *out, unsigned field, const ProtobufCMessage *message, const int *fds, unsigned n_fds);
/*
 * Would `message` join the open frame, out->opened, rather than begin a new one? Then it may name the results of what
 * is in there.
 */
bool frame_joins(const struct frame_out *out, unsigned field, const ProtobufCMessage *message, unsigned n_fds);
static inline bool frame_out_empty(const struct frame_out *out)
{
	return STAILQ_EMPTY(&out->bufs);
}
/*
 * Without a socket: the frame that is `n` behind the first, whose descriptors stay queued, or NULL; the first one is
 * dropped as if it had been sent.
 */
const uint8_t *frame_out_peek(const struct frame_out *out, unsigned n, size_t *len);
void frame_out_drop(struct frame_out *out);
/* Sends what it can. 0: all gone; -EAGAIN: the socket is full; or a negative errno. */
int frame_flush(struct frame_out *out, int sock);

/* UTF-8 of 1 to `max` bytes without control characters or '/'. NULL and "" are not. */
bool text_is_name(const char *text, size_t max);
/* UTF-8 of 0 to `max` bytes; NULL is. */
bool text_is_utf8(const char *text, size_t max);
