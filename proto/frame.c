/* SPDX-License-Identifier: MIT */
/*
 * Frames in and out. A decoded frame lives in its arena until that is reset. An encoded one is a buffer of the largest packet's
 * size in a queue: the last is open and grows by one element at a time, the first is sent. A buffer that was sent becomes
 * the spare one, so that a busy session allocates nothing and an idle one keeps one buffer, of which only the pages used so far
 * are there; or it goes back to the pool that many queues share, and an idle one keeps nothing.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/codec.h"
#include "proto/frame.h"

struct frame_buf {
	STAILQ_ENTRY(frame_buf) next;
	size_t len;
	unsigned field, elements;
	unsigned n_fds;
	int fds[NICD_FRAME_FDS];   /* owned */
	uint8_t data[NICD_FRAME_MAX];
};

/* true: nothing of the envelope is set. It consists of messages and repeated messages only. */
static bool frame_is_hollow(const ProtobufCMessage *frame)
{
	const ProtobufCMessageDescriptor *d = frame->descriptor;

	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &d->fields[i];
		const uint8_t *at = (const uint8_t *)frame;

		if (field->label == PROTOBUF_C_LABEL_REPEATED ? *(const size_t *)(at + field->quantifier_offset) != 0 :
								*(void *const *)(at + field->offset) != NULL)
			return false;
	}
	return true;
}

/* What the fast path leaves to protobuf-c. */
static ProtobufCMessage *frame_decode_unusual(const ProtobufCMessageDescriptor *descriptor, struct arena *arena, const uint8_t *data,
					      size_t len)
{
	uint8_t *copy;

	arena_reset(arena);
	copy = arena_alloc(arena, len);
	if (!copy)
		return NULL;
	memcpy(copy, data, len);
	codec_expose_nuls(descriptor, copy, len);
	return protobuf_c_message_unpack(descriptor, &arena->allocator, len, copy);
}

ProtobufCMessage *frame_decode(const ProtobufCMessageDescriptor *descriptor, struct arena *arena, const uint8_t *data,
			       size_t len, struct nicd_error *violation)
{
	ProtobufCMessage *frame;

	if (len > NICD_FRAME_MAX) {
		nicd_refuse_at(violation, NICD_R_FRAME_TOO_BIG, NICD_FRAME_MAX, len);
		return NULL;
	}
	frame = codec_unpack(descriptor, arena, data, len);
	if (!frame && !arena->spent)
		frame = frame_decode_unusual(descriptor, arena, data, len);
	/* Spent comes first: it is never an excuse that something was decoded nevertheless. */
	if (arena->spent) {
		if (arena->allocs > arena->max_allocs)
			nicd_refuse_at(violation, NICD_R_FRAME_BUDGET, arena->max_allocs, arena->allocs);
		else
			nicd_refuse_at(violation, NICD_R_FRAME_BUDGET, arena->size, arena->used);
		return NULL;
	}
	if (!frame) {
		nicd_refuse_at(violation, NICD_R_FRAME_UNDECODABLE, 0, len);
		return NULL;
	}
	if (frame_is_hollow(frame)) {
		nicd_refuse_at(violation, NICD_R_FRAME_EMPTY, 1, 0);
		return NULL;
	}
	return frame;
}

static void frame_close_fds(const int *fds, unsigned n_fds)
{
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
}

static void frame_buf_free(struct frame_buf *buf)
{
	if (buf)
		frame_close_fds(buf->fds, buf->n_fds);
	free(buf);
}

/* ---- the pool */

void frame_pool_init(struct frame_pool *pool, unsigned max)
{
	*pool = (struct frame_pool){ .max = max };
	STAILQ_INIT(&pool->bufs);
}

void frame_pool_deinit(struct frame_pool *pool)
{
	struct frame_buf *buf;

	while ((buf = STAILQ_FIRST(&pool->bufs))) {
		STAILQ_REMOVE_HEAD(&pool->bufs, next);
		free(buf);
	}
	pool->n = 0;
}

/* An empty buffer, or NULL. */
static struct frame_buf *frame_buf_take(struct frame_out *out)
{
	struct frame_buf *buf = out->spare;

	out->spare = NULL;
	if (!buf && out->pool && (buf = STAILQ_FIRST(&out->pool->bufs))) {
		STAILQ_REMOVE_HEAD(&out->pool->bufs, next);
		out->pool->n--;
	}
	return buf ? buf : malloc(sizeof(*buf));
}

static void frame_buf_give(struct frame_out *out, struct frame_buf *buf)
{
	if (out->pool && out->pool->n < out->pool->max) {
		STAILQ_INSERT_HEAD(&out->pool->bufs, buf, next);
		out->pool->n++;
	} else if (out->pool || out->spare) {
		free(buf);
	} else {
		out->spare = buf;
	}
}

/* ---- encoding */

void frame_out_init(struct frame_out *out)
{
	*out = (struct frame_out){ 0 };
	STAILQ_INIT(&out->bufs);
}

void frame_out_deinit(struct frame_out *out)
{
	struct frame_buf *buf;

	while ((buf = STAILQ_FIRST(&out->bufs))) {
		STAILQ_REMOVE_HEAD(&out->bufs, next);
		if (out->secret)
			explicit_bzero(buf->data, buf->len);
		frame_buf_free(buf);
	}
	frame_buf_free(out->spare);
	frame_out_init(out);
}

/* The last of the queue, or NULL. */
static struct frame_buf *frame_buf_last(const struct frame_out *out)
{
	if (frame_out_empty(out))
		return NULL;
	return (struct frame_buf *)((char *)out->bufs.stqh_last - offsetof(struct frame_buf, next));
}

static struct frame_buf *frame_buf_open(struct frame_out *out, unsigned field)
{
	struct frame_buf *buf = frame_buf_take(out);

	if (!buf)
		return NULL;
	buf->len = 0;
	buf->field = field;
	buf->elements = 0;
	buf->n_fds = 0;
	out->opened++;
	STAILQ_INSERT_TAIL(&out->bufs, buf, next);
	return buf;
}

/* The head, now sent or not wanted any more: its descriptors are closed. */
static void frame_buf_retire(struct frame_out *out)
{
	struct frame_buf *buf = STAILQ_FIRST(&out->bufs);

	STAILQ_REMOVE_HEAD(&out->bufs, next);
	out->bytes -= buf->len;
	frame_close_fds(buf->fds, buf->n_fds);
	buf->n_fds = 0;
	if (out->secret)
		explicit_bzero(buf->data, buf->len);
	frame_buf_give(out, buf);
}

/* Takes back a frame that was opened for an element that then did not fit any. It is the only one. */
static void frame_buf_unopen(struct frame_out *out)
{
	if (frame_out_empty(out) || STAILQ_FIRST(&out->bufs)->elements)
		return;
	out->opened--;
	frame_buf_retire(out);
}

static bool frame_buf_fits(const struct frame_buf *buf, unsigned field, size_t len, unsigned n_fds)
{
	return buf && buf->field == field && buf->elements < NICD_FRAME_REQUESTS && len <= NICD_FRAME_MAX - buf->len &&
	       n_fds <= NICD_FRAME_FDS - buf->n_fds;
}

/* An element of `len` bytes was written to the end; its descriptors are taken. */
static void frame_buf_grow(struct frame_out *out, struct frame_buf *buf, size_t len, const int *fds, unsigned n_fds)
{
	buf->len += len;
	buf->elements++;
	for (unsigned i = 0; i < n_fds; i++)
		buf->fds[buf->n_fds++] = fds[i];
	out->bytes += len;
}

static size_t frame_varint(uint8_t *at, size_t value)
{
	size_t n = 0;

	while (value >= 0x80) {
		at[n++] = (uint8_t)value | 0x80;
		value >>= 7;
	}
	at[n++] = (uint8_t)value;
	return n;
}

static size_t frame_head(uint8_t *head, unsigned field, size_t size)
{
	head[0] = (uint8_t)(field << 3 | 2);   /* length-delimited */
	return 1 + frame_varint(head + 1, size);
}

bool frame_joins(const struct frame_out *out, unsigned field, const ProtobufCMessage *message, unsigned n_fds)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t head[1 + 10];

	return size <= NICD_FRAME_MAX &&
	       frame_buf_fits(frame_buf_last(out), field, frame_head(head, field, size) + size, n_fds);
}

/* Into this frame, in one pass. false: it does not fit there, or is not for the fast path. */
static bool frame_put_fast(struct frame_out *out, struct frame_buf *buf, unsigned field, const ProtobufCMessage *message,
			   const int *fds, unsigned n_fds)
{
	ssize_t len;

	if (!frame_buf_fits(buf, field, 0, n_fds))
		return false;
	len = codec_pack_element(field, message, buf->data + buf->len, NICD_FRAME_MAX - buf->len);
	if (len < 0)
		return false;
	frame_buf_grow(out, buf, (size_t)len, fds, n_fds);
	return true;
}

/* Room for an element of `size` bytes, its head written; takes the fds. */
static int frame_reserve(struct frame_out *out, unsigned field, size_t size, const int *fds, unsigned n_fds, uint8_t **ret)
{
	struct frame_buf *buf = frame_buf_last(out);
	uint8_t head[1 + 10];
	size_t head_len = frame_head(head, field, size);

	if (size > NICD_FRAME_MAX - head_len || n_fds > NICD_FRAME_FDS) {
		frame_close_fds(fds, n_fds);
		return -EMSGSIZE;
	}
	if (!frame_buf_fits(buf, field, head_len + size, n_fds))
		buf = frame_buf_open(out, field);
	if (!buf) {
		frame_close_fds(fds, n_fds);
		return -ENOMEM;
	}
	memcpy(buf->data + buf->len, head, head_len);
	*ret = buf->data + buf->len + head_len;
	frame_buf_grow(out, buf, head_len + size, fds, n_fds);
	return 0;
}

int frame_put(struct frame_out *out, unsigned field, const ProtobufCMessage *message, const int *fds, unsigned n_fds)
{
	uint8_t *at;
	int r;

	if (frame_put_fast(out, frame_buf_last(out), field, message, fds, n_fds))
		return 0;
	/* Most often because there is no open frame. */
	if (frame_out_empty(out) && frame_put_fast(out, frame_buf_open(out, field), field, message, fds, n_fds))
		return 0;
	r = frame_reserve(out, field, protobuf_c_message_get_packed_size(message), fds, n_fds, &at);
	if (r == 0)
		protobuf_c_message_pack(message, at);
	else
		frame_buf_unopen(out);
	return r;
}

const uint8_t *frame_out_peek(const struct frame_out *out, unsigned n, size_t *len)
{
	const struct frame_buf *buf = STAILQ_FIRST(&out->bufs);

	while (buf && n--)
		buf = STAILQ_NEXT(buf, next);
	if (!buf)
		return NULL;
	*len = buf->len;
	return buf->data;
}

void frame_out_drop(struct frame_out *out)
{
	frame_buf_retire(out);
}

int frame_flush(struct frame_out *out, int sock)
{
	struct frame_buf *buf;

	while ((buf = STAILQ_FIRST(&out->bufs))) {
		int r = wire_send(sock, buf->data, buf->len, buf->fds, buf->n_fds);

		if (r < 0)
			return r;
		frame_buf_retire(out);
	}
	return 0;
}
