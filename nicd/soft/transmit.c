/* SPDX-License-Identifier: MIT */
/*
 * The sending half of a stream. Nothing is queued but intentions: the peer's reads (s->in) and posted work. A turn builds frames on a copy
 * of the cursor, each with the token looked up anew, hands as many as fit to one sendmsg, and moves the cursor over those that the
 * kernel took. What it did not take is forgotten. Of a frame that it took in part the rest is kept (tx->half) with a soft_use,
 * by which a tag that goes cuts the stream.
 *
 * The payload goes from the mapping to the kernel; sendmsg answers EFAULT where a load would be a SIGBUS. With CRC it is first copied into a
 * private buffer with process_vm_readv, because a checksum over memory that another process writes would not be that of the
 * bytes sent.
 *
 * A tagged message is never interrupted by another one. Answers and own work take turns by the message.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "nicd/soft/bytes.h"
#include "nicd/soft/stream.h"

/* Frames of one sendmsg. */
struct tx_batch {
	struct tx_frame *frames;
	unsigned n;
	size_t bytes;
	unsigned n_pieces;
};

static size_t frame_size(const struct tx_frame *frame)
{
	return (size_t)frame->head_len + frame->payload + frame->tail_len;
}

void tx_frame_make(struct tx_frame *frame, const struct rdmap_header *header, const uint8_t *inline_bytes, size_t n_inline,
		   uint32_t payload)
{
	uint8_t *p = frame->head + FPDU_LENGTH_SIZE;
	size_t ulpdu;

	p += rdmap_encode(p, header);
	if (n_inline)
		memcpy(p, inline_bytes, n_inline);
	p += n_inline;
	frame->head_len = p - frame->head;
	frame->payload = payload;
	ulpdu = frame->head_len - FPDU_LENGTH_SIZE + payload;
	put_be16(frame->head, ulpdu);
	frame->tail_len = fpdu_pad(ulpdu) + FPDU_CRC_SIZE;
	memset(frame->tail, 0, sizeof(frame->tail));
	frame->tag = NULL;
	frame->staged = NULL;
	frame->lane = TX_LANE_NONE;
	frame->work = NULL;
}

/* ---- what to send next */

/* A segment of the answer to the oldest read of the peer. */
static enum tx_result response_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame)
{
	const struct stream_read *item;
	struct rdmap_header header = {.tagged = true, .opcode = RDMAP_READ_RESPONSE};
	struct soft_tag *tag = NULL;
	uint64_t from;
	uint32_t n;

	if (at->in_head == s->in_tail)
		return TX_NOTHING;
	item = stream_read_at(s, at->in_head);
	n = item->wire.size - at->in_off;
	if (n > s->segment)
		n = s->segment;
	from = item->wire.source_to + at->in_off;
	if (n && soft_tag_check(s->engine->tags, &s->remote, item->wire.source_stag, from, n, SOFT_REMOTE_READ, &tag))
		return TX_FAULT;
	header.stag = item->wire.sink_stag;
	header.to = item->wire.sink_to + at->in_off;
	header.last = at->in_off + n == item->wire.size;
	tx_frame_make(frame, &header, NULL, 0, n);
	frame->tag = tag;
	frame->addr = from;
	frame->lane = TX_LANE_RESPONSE;
	frame->after = *at;
	frame->after.message = header.last ? TX_LANE_NONE : TX_LANE_RESPONSE;
	frame->after.last = TX_LANE_RESPONSE;
	frame->after.in_off = header.last ? 0 : at->in_off + n;
	frame->after.in_head += header.last;
	return TX_FRAME;
}

static enum tx_result terminate_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame)
{
	static const struct rdmap_header header = {
		.opcode = RDMAP_TERMINATE, .last = true, .queue = QUEUE_TERMINATE, .msn = 1,
	};
	uint8_t ulpdu[RDMAP_TERMINATE_MAX];
	size_t n;

	if (!s->tx.must_terminate || at->terminated)
		return TX_NOTHING;
	n = rdmap_terminate_encode(ulpdu, &s->tx.terminate);
	tx_frame_make(frame, &header, ulpdu + DDP_UNTAGGED_SIZE, n - DDP_UNTAGGED_SIZE, 0);
	frame->after = *at;
	frame->after.terminated = true;
	return TX_FRAME;
}

/* What opens an outbound stream; then a write of nothing to nowhere whenever the answer takes too long. */
static enum tx_result first_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame)
{
	static const struct rdmap_header header = {.tagged = true, .last = true, .opcode = RDMAP_WRITE};
	enum tx_result r = work_first_frame(s, at, frame);

	if (r != TX_NOTHING || at->nudges == s->nudges)
		return r;
	tx_frame_make(frame, &header, NULL, 0, 0);
	frame->after = *at;
	frame->after.nudges++;
	return TX_FRAME;
}

/* TX_FAULT: *lane and *why. */
static enum tx_result next_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame, enum tx_lane *lane,
				 enum nicd_reason *why)
{
	static const enum tx_lane order[][2] = {
		[TX_LANE_NONE] = {TX_LANE_RESPONSE, TX_LANE_WORK},
		[TX_LANE_RESPONSE] = {TX_LANE_WORK, TX_LANE_RESPONSE},
		[TX_LANE_WORK] = {TX_LANE_RESPONSE, TX_LANE_WORK},
	};
	enum tx_result r = TX_NOTHING;

	if (s->state == STREAM_TERMINATING) {
		*lane = TX_LANE_RESPONSE;
		r = response_frame(s, at, frame);
		return r == TX_NOTHING ? terminate_frame(s, at, frame) : r;
	}
	if (s->state == STREAM_CONFIRMING)
		return first_frame(s, at, frame);
	if (s->state != STREAM_OPEN)
		return TX_NOTHING;
	for (int i = 0; i < 2 && r == TX_NOTHING; i++) {
		*lane = at->message ? at->message : order[at->last][i];
		r = *lane == TX_LANE_RESPONSE ? response_frame(s, at, frame) : work_frame(s, at, frame, why);
		if (at->message)
			break;
	}
	return r;
}

/* The memory behind the frame to be sent next is not there (any more). */
static void tx_fault(struct soft_stream *s, enum tx_lane lane, enum nicd_reason why, enum rdmap_code code)
{
	struct rdmap_terminate terminate = {.code = code};
	const struct stream_read *item;
	struct nicd_error end;

	if (lane == TX_LANE_WORK) {
		if (work_fault(s, why)) {
			if (work_settle(s, &end))
				stream_finish(s, &end);
			return;
		}
		terminate.code = DDP_E_CATASTROPHIC;
	} else {
		item = stream_read_at(s, s->tx.at.in_head);
		terminate.has_header = terminate.has_read = true;
		terminate.ulpdu = RDMAP_READ_ULPDU;
		terminate.header = (struct rdmap_header){
			.opcode = RDMAP_READ_REQUEST, .last = true, .queue = QUEUE_READ, .msn = item->msn,
		};
		terminate.read = item->wire;
		s->in_tail = s->tx.at.in_head;   /* those behind it are not answered */
		s->tx.at.in_off = 0;
		s->tx.at.message = TX_LANE_NONE;
	}
	stream_terminate(s, &terminate, why);
}

/* ---- building */

/* False: the frame to be sent next cannot be, and that has been dealt with. */
static bool batch_collect(struct soft_stream *s, struct tx_batch *batch, size_t quantum, unsigned max)
{
	struct tx_cursor at = s->tx.at;
	enum nicd_reason why = NICD_R_REVOKED;
	enum tx_lane lane = TX_LANE_NONE;
	enum tx_result r = TX_FRAME;

	while (batch->n < max && batch->bytes < quantum && batch->n_pieces + NICD_RANGES + 2 <= TX_PIECES) {
		struct tx_frame *frame = &batch->frames[batch->n];

		r = next_frame(s, &at, frame, &lane, &why);
		if (r != TX_FRAME)
			break;
		at = frame->after;
		batch->n++;
		batch->n_pieces += 2 + (frame->tag ? soft_tag_ranges(s->engine->tags, frame->tag) : !!frame->staged);
		batch->bytes += frame_size(frame);
	}
	/* Blame falls on the frame only when all that comes before it is out. */
	if (r != TX_FAULT || batch->n > 0 || s->tx.half_size)
		return true;
	tx_fault(s, lane, why, RDMAP_E_STAG);
	return false;
}

static void frame_checksum(struct tx_frame *frame)
{
	uint32_t crc = fpdu_crc(FPDU_CRC_START, frame->head, frame->head_len);

	crc = fpdu_crc(crc, frame->staged, frame->payload);
	crc = fpdu_crc(crc, frame->tail, frame->tail_len - FPDU_CRC_SIZE);
	fpdu_crc_put(frame->tail + frame->tail_len - FPDU_CRC_SIZE, crc);
}

/* Copies the payloads into the private buffer, as far as they can be read; those that are private already stay where they are. */
static void batch_stage(struct soft_stream *s, struct tx_batch *batch)
{
	struct soft_engine *engine = s->engine;
	struct iovec to = {engine->tx_buffer, 0};
	unsigned n = 0, whole = 0;
	uint64_t covered, want = 0;
	ssize_t r = 0;

	for (unsigned i = 0; i < batch->n; i++) {
		struct tx_frame *frame = &batch->frames[i];

		if (frame->staged)
			continue;
		frame->staged = engine->tx_buffer + to.iov_len;
		if (!frame->payload)
			continue;
		n += soft_tag_iov(engine->tags, frame->tag, frame->addr, frame->payload, engine->pieces + n, NICD_RANGES, &covered);
		to.iov_len += frame->payload;
	}
	if (n)
		r = process_vm_readv(getpid(), &to, 1, engine->pieces, n, 0);
	for (; whole < batch->n; whole++) {
		want += batch->frames[whole].tag ? batch->frames[whole].payload : 0;
		if (want > (uint64_t)(r < 0 ? 0 : r))
			break;
	}
	batch->n = whole;
	for (unsigned i = 0; i < batch->n; i++)
		frame_checksum(&batch->frames[i]);
}

/* The pieces of a frame behind its first `skip` bytes. */
static unsigned frame_pieces(const struct soft_tags *tags, const struct tx_frame *frame, size_t skip, struct iovec *iov)
{
	uint64_t covered;
	unsigned n = 0;

	if (skip < frame->head_len)
		iov[n++] = (struct iovec){(void *)(uintptr_t)(frame->head + skip), frame->head_len - skip};
	skip -= skip < frame->head_len ? skip : frame->head_len;
	if (skip < frame->payload && frame->staged)
		iov[n++] = (struct iovec){frame->staged + skip, frame->payload - skip};
	else if (skip < frame->payload)
		n += soft_tag_iov(tags, frame->tag, frame->addr + skip, frame->payload - skip, iov + n, NICD_RANGES, &covered);
	skip -= skip < frame->payload ? skip : frame->payload;
	if (skip < frame->tail_len)
		iov[n++] = (struct iovec){(void *)(uintptr_t)(frame->tail + skip), frame->tail_len - skip};
	return n;
}

/* ---- what the kernel took */

static void count_sent(struct soft_stream *s, const struct tx_frame *frame)
{
	if (frame->lane == TX_LANE_RESPONSE)
		s->counters.peer_read += frame->payload;
	else if (frame->lane == TX_LANE_WORK)
		s->counters.bytes_written += frame->payload;
}

static void half_end(struct soft_stream *s)
{
	soft_use_end(&s->tx.half_use);
	free(s->tx.half.staged);
	s->tx.half.staged = NULL;
	s->tx.half_size = 0;
}

/* False: no memory; the stream has ended. */
static bool half_begin(struct soft_stream *s, const struct tx_frame *frame, size_t sent)
{
	s->tx.half = *frame;
	s->tx.half_sent = sent;
	s->tx.half_size = frame_size(frame);
	if (frame->payload == 0 || sent >= (size_t)frame->head_len + frame->payload) {
		s->tx.half.staged = NULL;
		return true;
	}
	if (frame->tag)
		soft_use_begin(s->engine->tags, &s->tx.half_use, frame->tag);
	if (!frame->staged)
		return true;
	s->tx.half.staged = malloc(frame->payload);
	if (!s->tx.half.staged) {
		stream_abort(s, NICD_R_QP_LOST, ENOMEM);
		return false;
	}
	memcpy(s->tx.half.staged, frame->staged, frame->payload);
	return true;
}

/* Whatever is left of the half frame no longer touches the memory. */
static void half_advance(struct soft_stream *s, size_t n)
{
	s->tx.half_sent += n;
	if (s->tx.half_sent == s->tx.half_size)
		half_end(s);
	else if (s->tx.half_sent >= (size_t)s->tx.half.head_len + s->tx.half.payload)
		soft_use_end(&s->tx.half_use);
}

static void batch_commit(struct soft_stream *s, const struct tx_batch *batch, size_t n)
{
	if (s->tx.half_size) {
		size_t rest = s->tx.half_size - s->tx.half_sent;

		half_advance(s, n < rest ? n : rest);
		n -= n < rest ? n : rest;
	}
	for (unsigned i = 0; i < batch->n && n > 0; i++) {
		const struct tx_frame *frame = &batch->frames[i];
		size_t size = frame_size(frame);

		s->tx.at = frame->after;
		count_sent(s, frame);
		if (n < size) {
			half_begin(s, frame, n);
			return;
		}
		n -= size;
	}
}

/* ---- the turn */

static unsigned batch_pieces(struct soft_stream *s, const struct tx_batch *batch)
{
	struct iovec *iov = s->engine->pieces;
	unsigned n = 0;

	if (s->tx.half_size)
		n += frame_pieces(s->engine->tags, &s->tx.half, s->tx.half_sent, iov);
	for (unsigned i = 0; i < batch->n; i++)
		n += frame_pieces(s->engine->tags, &batch->frames[i], 0, iov + n);
	return n;
}

/* The rest of the half sent frame can never be sent. */
static void half_lost(struct soft_stream *s, enum nicd_reason reason, int provider_error)
{
	const struct nicd_error why = {.reason = reason, .provider_error = provider_error};

	if (s->tx.half.work)
		work_blame(s, s->tx.half.work, s->tx.half.entry, false, &why);
	stream_abort(s, reason, provider_error);
}

/*
 * EFAULT says only that some piece cannot be read. Asked again with one frame alone, it says which; a frame that is half out already
 * cannot be taken back.
 */
static void tx_efault(struct soft_stream *s)
{
	enum tx_lane lane = s->engine->frames[0].lane;

	if (!s->tx.alone) {
		s->tx.alone = true;
		return;
	}
	s->tx.alone = false;
	if (s->tx.half_size)
		half_lost(s, NICD_R_LOCAL_GONE, EFAULT);
	else
		tx_fault(s, lane, NICD_R_LOCAL_GONE, RDMAP_E_CATASTROPHIC);
}

/* One sendmsg. Bytes taken, or 1: try again; 0: nothing to send, or it cannot be now; negative: the socket's error. */
static ssize_t tx_send(struct soft_stream *s, size_t quantum)
{
	struct tx_batch batch = {.frames = s->engine->frames, .n_pieces = s->tx.half_size ? NICD_RANGES + 2 : 0};
	struct msghdr msg = {.msg_iov = s->engine->pieces};
	unsigned max = s->tx.alone ? !s->tx.half_size : TX_FRAMES;
	ssize_t n;
	int err;

	if (!batch_collect(s, &batch, quantum, max))
		return 1;   /* there may be something else to send now */
	if (batch.n == 0 && !s->tx.half_size)
		return 0;
	if (s->crc && batch.n)
		batch_stage(s, &batch);
	if (batch.n == 0 && !s->tx.half_size) {
		tx_fault(s, s->engine->frames[0].lane, NICD_R_LOCAL_GONE, RDMAP_E_CATASTROPHIC);
		return 1;
	}
	msg.msg_iovlen = batch_pieces(s, &batch);
	n = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	err = errno;
	if (n > 0) {
		s->tx.alone = false;
		batch_commit(s, &batch, n);
		return n;
	}
	s->tx.blocked = err == EAGAIN;
	if (err == EFAULT)
		tx_efault(s);
	if (err == EFAULT || err == EINTR)
		return 1;
	return err == EAGAIN ? 0 : -err;
}

static bool sends(const struct soft_stream *s)
{
	return s->state == STREAM_OPEN || s->state == STREAM_CONFIRMING || s->state == STREAM_TERMINATING || s->tx.half_size;
}

/* An idle stream gives back what a busy one needed. */
static void reads_shrink(struct soft_stream *s)
{
	if (s->in_room <= STREAM_READS_KEPT || s->tx.at.in_head != s->in_tail)
		return;
	free(s->in);
	s->in = NULL;
	s->in_room = 0;
}

bool tx_turn(struct soft_stream *s)
{
	size_t quantum = STREAM_QUANTUM;

	if (s->broken || s->fd < 0)
		return false;
	s->tx.blocked = false;
	if (s->by_mss)
		stream_refresh_mss(s);
	while (quantum > 0 && sends(s) && s->state < STREAM_DRAINING) {
		ssize_t n;

		if (work_takes_turn(s))
			return true;
		n = tx_send(s, quantum);

		if (s->state == STREAM_CLOSED)
			return false;
		if (n < 0) {
			/* What the peer has said before it went is still to be read. */
			s->broken = true;
			engine_readable(s);
			return false;
		}
		if (n == 0)
			break;
		quantum -= quantum < (size_t)n ? quantum : (size_t)n;
	}
	reads_shrink(s);
	if (s->state == STREAM_TERMINATING && !s->tx.blocked && quantum > 0)
		stream_shutdown(s);
	else
		stream_poll(s);
	return quantum == 0;
}

void tx_raw(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	struct tx_frame frame = {.head_len = len};

	memcpy(frame.head, buf, len);
	half_begin(s, &frame, 0);
	engine_ready(s);
}

/* The tag under a half sent frame goes: the rest of it can never be sent. */
static void tx_cut(struct soft_use *use)
{
	struct soft_stream *s = (struct soft_stream *)((char *)use - offsetof(struct soft_stream, tx.half_use));

	soft_use_end(use);
	half_lost(s, s->tx.half.work ? NICD_R_LOCAL_GONE : NICD_R_REVOKED, 0);
}

void tx_init(struct soft_stream *s)
{
	s->tx.half_use.cut = tx_cut;
}

void tx_stop(struct soft_stream *s)
{
	half_end(s);
	s->tx.blocked = false;
}
