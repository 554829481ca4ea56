/* SPDX-License-Identifier: MIT */
/*
 * The receiving half of a stream. A turn reads up to a quantum and takes it apart frame by frame:
 *
 *   recvmsg -> [rest of the segment being placed, straight into the mapping] [staging buffer]
 *           -> per frame: length, header, checks, token lookup -> payload from staging into a batch of places
 *           -> one process_vm_writev for the batch -> reads that are now complete are confirmed
 *
 * With CRC a frame is staged whole and judged before a byte of it is placed. What is not whole at the end of a turn is kept in
 * rx->rest (without CRC never more than a header, but for a message that waits for a receive); a segment that is half placed holds a
 * soft_use, by which a tag that goes cuts the stream. Neither half ever waits for the other: reading goes on while nothing can be sent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "nicd/soft/bytes.h"
#include "nicd/soft/stream.h"

static bool reads(const struct soft_stream *s)
{
	return !s->rx.stalled && s->state != STREAM_CONNECTING && s->state != STREAM_FAILED && s->state != STREAM_CLOSED;
}

/* ---- placing */

/* One process_vm_writev to ourselves: EFAULT where a store would be a SIGBUS. False: not all of it could be placed. */
static bool places_flush(struct soft_engine *engine)
{
	size_t want = engine->placing;
	ssize_t n = 0;

	if (engine->n_place_from)
		n = process_vm_writev(getpid(), engine->place_from, engine->n_place_from, engine->place_to,
				      engine->n_place_to, 0);
	engine->n_place_from = engine->n_place_to = 0;
	engine->placing = 0;
	return n >= 0 && (size_t)n == want;
}

static struct stream_sink *sink_current(struct soft_stream *s)
{
	return &s->out[(s->out_head + s->rx.arrived) % s->ord];
}

static bool sink_expected(const struct soft_stream *s)
{
	return s->out && s->out_head + s->rx.arrived != s->tx.at.out_tail;
}

/*
 * Memory that is mapped but cannot be written. If any of it was for reads of ours, the oldest of them is blamed; with more than one in
 * the batch they can no longer be told apart.
 */
static void rx_fault(struct soft_stream *s)
{
	const struct rdmap_terminate terminate = {.code = DDP_E_CATASTROPHIC};
	const struct nicd_error why = {.reason = NICD_R_LOCAL_GONE, .provider_error = EFAULT};
	struct stream_rx *rx = &s->rx;

	message_blame(s, &why);
	if (rx->staged_own || (rx->in_segment && rx->header.opcode == RDMAP_READ_RESPONSE)) {
		struct stream_sink *sink = &s->out[s->out_head % s->ord];

		work_blame(s, sink->work, sink->entry, rx->arrived > 0, &why);
	}
	rx_stop(s);
	stream_terminate(s, &terminate, NICD_R_LOCAL_GONE);
}

bool rx_flush(struct soft_stream *s)
{
	struct nicd_error why;

	if (!places_flush(s->engine)) {
		rx_fault(s);
		return false;
	}
	s->rx.staged_own = false;
	for (; s->rx.arrived; s->rx.arrived--)
		work_confirm(s);
	if (!message_flush(s))
		return false;
	if (work_settle(s, &why)) {
		stream_finish(s, &why);
		return false;
	}
	return true;
}

/* The peer broke a rule: what was right before it is done first. */
static void rx_refuse(struct soft_stream *s, enum rdmap_code code, const struct rdmap_header *header, uint16_t ulpdu,
		      const struct rdmap_read *read)
{
	struct rdmap_terminate terminate = {.code = code, .has_header = header, .has_read = read, .ulpdu = ulpdu};

	if (header)
		terminate.header = *header;
	if (read)
		terminate.read = *read;
	if (s->state == STREAM_ADMITTED)
		stream_abort(s, NICD_R_QP_LOST, 0);
	else if (rx_flush(s))
		stream_terminate(s, &terminate, NICD_R_QP_LOST);
}

static void count_placed(struct soft_stream *s, size_t n)
{
	if (s->rx.header.opcode == RDMAP_READ_RESPONSE)
		s->counters.bytes_read += n;
	else
		s->counters.peer_written += n;
}

static void segment_end(struct soft_stream *s)
{
	struct stream_rx *rx = &s->rx;

	soft_use_end(&rx->use);
	rx->in_segment = false;
	if (!rx->in_message)
		rx->large = rx->ulpdu >= RX_LARGE;
	rx->skip = fpdu_pad(rx->ulpdu) + FPDU_CRC_SIZE;
	rx->in_message = !rx->header.last;
	rx->opcode = rx->header.opcode;
	rx->stag = rx->header.stag;
	if (!rx->header.tagged) {
		message_segment_end(s, rx->ulpdu - DDP_UNTAGGED_SIZE);
		return;
	}
	rx->to = rx->header.to + (rx->ulpdu - DDP_TAGGED_SIZE);
	if (rx->header.opcode == RDMAP_READ_RESPONSE && rx->header.last)
		rx->arrived++;
}

/* `n` bytes of the segment are where they belong, or on their way in the batch. */
static void segment_placed(struct soft_stream *s, size_t n)
{
	s->rx.addr += n;
	s->rx.left -= n;
	count_placed(s, n);
	if (s->rx.left == 0)
		segment_end(s);
}

/* Adds staged bytes to the batch. Returns how many; 0: the stream has ended. */
static size_t segment_stage(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	struct soft_engine *engine = s->engine;
	uint64_t covered;

	if (len > s->rx.left)
		len = s->rx.left;
	if (engine->n_place_from == RX_PLACES || engine->n_place_to + NICD_RANGES > RX_PLACES) {
		if (!rx_flush(s))
			return 0;
	}
	engine->place_from[engine->n_place_from++] = (struct iovec){(void *)(uintptr_t)buf, len};
	engine->n_place_to += soft_tag_iov(engine->tags, s->rx.use.tag, s->rx.addr, len, engine->place_to + engine->n_place_to, NICD_RANGES,
					   &covered);
	engine->placing += len;
	s->rx.staged_own |= s->rx.header.opcode == RDMAP_READ_RESPONSE;
	segment_placed(s, len);
	return len;
}

/* The tag under a half placed segment goes. */
static void rx_cut(struct soft_use *use)
{
	struct soft_stream *s = (struct soft_stream *)((char *)use - offsetof(struct soft_stream, rx.use));
	struct rdmap_terminate terminate = {
		.code = DDP_E_STAG, .has_header = true, .header = s->rx.header, .ulpdu = s->rx.ulpdu,
	};
	const struct nicd_error why = {.reason = NICD_R_LOCAL_GONE};
	bool own = s->rx.header.opcode != RDMAP_WRITE;

	soft_use_end(use);
	if (!s->rx.header.tagged) {
		terminate = (struct rdmap_terminate){.code = DDP_E_CATASTROPHIC};
		message_blame(s, &why);
	} else if (own) {
		work_blame(s, sink_current(s)->work, sink_current(s)->entry, false, &why);
	}
	stream_terminate(s, &terminate, own ? NICD_R_LOCAL_GONE : NICD_R_REVOKED);
}

/* ---- tagged frames */

static enum rdmap_code write_check(struct soft_stream *s, const struct rdmap_header *h, uint32_t n, struct soft_tag **tag)
{
	if (n == 0)
		return RDMAP_FINE;   /* nothing is named by it, and its STag may be anything */
	switch (soft_tag_check(s->engine->tags, &s->remote, h->stag, h->to, n, SOFT_REMOTE_WRITE, tag)) {
	case NICD_R_NONE:
		return RDMAP_FINE;
	case NICD_R_REMOTE_RANGE:
		return DDP_E_BOUNDS;
	default:
		return DDP_E_STAG;
	}
}

/*
 * Only what the oldest read of ours still waits for, and its last byte exactly with Last. But siw, asked for nothing while it answers
 * another read, sends as many bytes as that one wanted: those are read and dropped.
 */
static enum rdmap_code response_check(struct soft_stream *s, const struct rdmap_header *h, uint32_t n, struct soft_tag **tag)
{
	const struct nicd_error gone = {.reason = NICD_R_LOCAL_GONE};
	struct stream_sink *sink;
	struct work_entry e;

	if (!sink_expected(s))
		return DDP_E_STAG;
	sink = sink_current(s);
	if (sink->length == 0)
		return n == 0 || h->stag == sink->stag ? RDMAP_FINE : DDP_E_STAG;
	if (n > sink->length - sink->received || h->last != (n == sink->length - sink->received))
		return DDP_E_BOUNDS;
	if (h->stag != sink->stag)
		return DDP_E_STAG;
	if (h->to != sink->received)
		return DDP_E_BOUNDS;
	work_entry_get(sink->work, sink->entry, &e);
	if (work_check(s, &e, e.local_addr + sink->received, n, SOFT_LOCAL_WRITE, tag)) {
		struct soft_work *work = sink->work;
		uint32_t entry = sink->entry;

		if (rx_flush(s))
			work_blame(s, work, entry, false, &gone);
		return DDP_E_CATASTROPHIC;
	}
	s->rx.addr = e.local_addr + sink->received;
	sink->received += n;
	return RDMAP_FINE;
}

static enum rdmap_code tagged_check(struct soft_stream *s, const struct rdmap_header *h, uint32_t n, struct soft_tag **tag)
{
	struct stream_rx *rx = &s->rx;

	if (rx->in_message && h->opcode != rx->opcode)
		return RDMAP_E_OPCODE;
	if (rx->in_message && h->stag != rx->stag)
		return DDP_E_STAG;
	if (rx->in_message && h->to != rx->to)
		return DDP_E_BOUNDS;
	if (h->to > UINT64_MAX - n)
		return DDP_E_WRAP;
	rx->addr = h->to;
	return h->opcode == RDMAP_WRITE ? write_check(s, h, n, tag) : response_check(s, h, n, tag);
}

/* The segment's payload is next. Returns the bytes before it. */
static size_t segment_begin(struct soft_stream *s, const struct rdmap_header *h, uint16_t ulpdu, struct soft_tag *tag)
{
	bool nowhere = h->opcode == RDMAP_READ_RESPONSE && !tag;
	struct stream_rx *rx = &s->rx;

	rx->header = *h;
	rx->ulpdu = ulpdu;
	rx->left = nowhere ? 0 : ulpdu - h->size;
	rx->in_segment = true;
	s->rtr_send = false;
	if (tag)
		soft_use_begin(s->engine->tags, &rx->use, tag);
	if (rx->left == 0)
		segment_end(s);
	if (nowhere)
		rx->skip += ulpdu - h->size;
	return FPDU_LENGTH_SIZE + h->size;
}

/* Returns the bytes before the payload; 0: the stream has ended. */
static size_t rx_tagged(struct soft_stream *s, const struct rdmap_header *h, uint16_t ulpdu)
{
	struct soft_tag *tag = NULL;
	enum rdmap_code code = tagged_check(s, h, ulpdu - DDP_TAGGED_SIZE, &tag);

	if (code == RDMAP_FINE)
		return segment_begin(s, h, ulpdu, tag);
	if (stream_is_serving(s))
		rx_refuse(s, code, h, ulpdu, NULL);
	return 0;
}

/* ---- untagged frames */

static enum rdmap_code source_check(struct soft_stream *s, const struct rdmap_read *read)
{
	struct soft_tag *tag;

	if (read->sink_to > UINT64_MAX - read->size || read->source_to > UINT64_MAX - read->size)
		return RDMAP_E_WRAP;
	if (read->size == 0)
		return RDMAP_FINE;
	switch (soft_tag_check(s->engine->tags, &s->remote, read->source_stag, read->source_to, read->size, SOFT_REMOTE_READ,
			       &tag)) {
	case NICD_R_NONE:
		return RDMAP_FINE;
	case NICD_R_REMOTE_RANGE:
		return RDMAP_E_BOUNDS;
	case NICD_R_REMOTE_RIGHTS:
		return RDMAP_E_RIGHTS;
	default:
		return RDMAP_E_STAG;
	}
}

/* Room for one more read that waits. False: no memory. */
static bool reads_grow(struct soft_stream *s)
{
	uint32_t room = s->in_room ? 2 * s->in_room : STREAM_READS_KEPT;
	struct stream_read *in;

	if (s->in_tail - s->tx.at.in_head < s->in_room)
		return true;
	in = calloc(room, sizeof(*in));
	if (!in)
		return false;
	for (uint32_t i = s->tx.at.in_head; i != s->in_tail; i++)
		in[i & (room - 1)] = *stream_read_at(s, i);
	free(s->in);
	s->in = in;
	s->in_room = room;
	return true;
}

static enum rdmap_code read_check(struct soft_stream *s, const struct rdmap_header *h, uint16_t ulpdu)
{
	if (s->rx.in_message)
		return RDMAP_E_OPCODE;
	if (h->msn != s->rx.read_msn)
		return DDP_E_MSN;
	if (h->mo != 0)
		return DDP_E_MO;
	if (ulpdu < RDMAP_READ_ULPDU)
		return DDP_E_CATASTROPHIC;
	if (ulpdu > RDMAP_READ_ULPDU || !h->last)
		return DDP_E_TOO_LONG;
	if (s->in_tail - s->tx.at.in_head >= s->ird)
		return DDP_E_NO_BUFFER;
	return reads_grow(s) ? RDMAP_FINE : RDMAP_E_STREAM_BROKEN;
}

static void rx_read_request(struct soft_stream *s, const struct rdmap_header *h, const uint8_t *payload)
{
	struct stream_read *item = stream_read_at(s, s->in_tail);
	enum rdmap_code code;

	item->msn = h->msn;
	rdmap_read_decode(payload, &item->wire);
	code = source_check(s, &item->wire);
	if (code != RDMAP_FINE) {
		rx_refuse(s, code, h, RDMAP_READ_ULPDU, &item->wire);
		return;
	}
	s->rx.read_msn++;
	s->in_tail++;
	engine_ready(s);
}

static void rx_terminate(struct soft_stream *s, const uint8_t *payload, size_t len)
{
	struct rdmap_terminate terminate;
	struct nicd_error why = {.reason = NICD_R_QP_LOST};

	if (!rx_flush(s))
		return;
	if (rdmap_terminate_decode(payload, len, &terminate))
		work_terminated(s, &terminate, &why);
	s->in_tail = s->tx.at.in_head;   /* nobody waits for what we would still send */
	if (s->tx.half_size)
		stream_abort(s, why.reason, 0);
	else
		stream_finish(s, &why);
}

/* The empty message by which a peer says that it is there: it takes no receive. Returns as rx_untagged. */
static size_t rx_ready(struct soft_stream *s, const struct rdmap_header *h, uint16_t ulpdu, size_t have)
{
	if (have < fpdu_size(ulpdu))
		return 0;
	s->rtr_send = false;
	s->rx.send_msn += h->msn == s->rx.send_msn;   /* whether it counts is not agreed */
	return fpdu_size(ulpdu);
}

/* A message. Returns the bytes before the payload; 0: it must wait for a receive, or the stream has ended. */
static size_t rx_send(struct soft_stream *s, const struct rdmap_header *h, uint16_t ulpdu, size_t have)
{
	uint32_t n = ulpdu - DDP_UNTAGGED_SIZE;
	struct soft_tag *tag = NULL;
	enum rdmap_code code;

	if (s->rtr_send && n == 0)
		return rx_ready(s, h, ulpdu, have);
	code = message_segment(s, h, n, have, &tag);
	if (code == RDMAP_MORE)
		return 0;
	if (code != RDMAP_FINE) {
		if (stream_is_serving(s))
			rx_refuse(s, code, h, ulpdu, NULL);
		return 0;
	}
	s->rx.notice = message_is_notice(s, h, n);
	return segment_begin(s, h, ulpdu, tag);
}

/* Returns the bytes of the whole frame; 0: more must come, or the stream has ended. */
static size_t rx_untagged(struct soft_stream *s, const struct rdmap_header *h, const uint8_t *fpdu, size_t have, uint16_t ulpdu)
{
	const uint8_t *payload = fpdu + FPDU_LENGTH_SIZE + DDP_UNTAGGED_SIZE;
	enum rdmap_code code = RDMAP_FINE;

	if (h->opcode == RDMAP_READ_REQUEST)
		code = read_check(s, h, ulpdu);
	else if (ulpdu > RDMAP_TERMINATE_MAX)
		code = DDP_E_TOO_LONG;
	if (code != RDMAP_FINE) {
		rx_refuse(s, code, h, ulpdu, NULL);
		return 0;
	}
	if (have < fpdu_size(ulpdu))
		return 0;
	if (h->opcode == RDMAP_READ_REQUEST)
		rx_read_request(s, h, payload);
	else
		rx_terminate(s, payload, ulpdu - DDP_UNTAGGED_SIZE);
	s->rtr_send = false;
	s->rx.large = false;
	return fpdu_size(ulpdu);
}

/* ---- frames */

/* Takes one frame's header, or all of an untagged frame. 0: more must come, or the stream has ended. */
static size_t rx_frame(struct soft_stream *s, const uint8_t *buf, size_t have)
{
	struct rdmap_header h;
	enum rdmap_code code;
	uint16_t ulpdu;

	if (have < FPDU_LENGTH_SIZE)
		return 0;
	ulpdu = get_be16(buf);
	if (s->crc && have < fpdu_size(ulpdu))
		return 0;
	if (s->crc && !fpdu_crc_ok(buf, fpdu_size(ulpdu))) {
		rx_refuse(s, MPA_E_CRC, NULL, 0, NULL);
		return 0;
	}
	have -= FPDU_LENGTH_SIZE;
	code = rdmap_decode(buf + FPDU_LENGTH_SIZE, have < ulpdu ? have : ulpdu, ulpdu, &h);
	if (code == RDMAP_MORE)
		return 0;
	if (code != RDMAP_FINE) {
		rx_refuse(s, code, h.size ? &h : NULL, ulpdu, NULL);
		return 0;
	}
	if (s->state == STREAM_ADMITTED && !stream_first_frame(s))
		return 0;
	if (h.tagged)
		return rx_tagged(s, &h, ulpdu);
	if (h.queue == QUEUE_SEND)
		return rx_send(s, &h, ulpdu, have + FPDU_LENGTH_SIZE);
	return rx_untagged(s, &h, buf, have + FPDU_LENGTH_SIZE, ulpdu);
}

/* Returns how much of it is done with. */
static size_t rx_parse(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	size_t pos = 0, n;

	while (pos < len && stream_is_serving(s)) {
		if (s->rx.left) {
			n = segment_stage(s, buf + pos, len - pos);
		} else if (s->rx.skip) {
			n = s->rx.skip < len - pos ? s->rx.skip : len - pos;
			s->rx.skip -= n;
		} else {
			n = rx_frame(s, buf + pos, len - pos);
		}
		if (n == 0)
			break;
		pos += n;
	}
	if (stream_is_serving(s))
		rx_flush(s);
	return pos;
}

/* Keeps the beginning of a frame for the next turn. */
static void rest_keep(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	if (len == 0)
		return;
	s->rx.rest = malloc(len);
	if (!s->rx.rest) {
		stream_abort(s, NICD_R_QP_LOST, ENOMEM);
		return;
	}
	memcpy(s->rx.rest, buf, len);
	s->rx.rest_len = len;
}

static void rx_bytes(struct soft_stream *s, size_t len)
{
	const uint8_t *buf = s->engine->rx_buffer;
	size_t used;

	free(s->rx.rest);
	s->rx.rest = NULL;
	s->rx.rest_len = 0;
	if (s->state == STREAM_ACCEPTING || s->state == STREAM_REQUESTING) {
		stream_handshake(s, buf, len);
		if (s->state == STREAM_ACCEPTING || s->state == STREAM_REQUESTING)
			rest_keep(s, buf, len);
		return;
	}
	if (!stream_is_serving(s))
		return;   /* read only to be dropped */
	used = rx_parse(s, buf, len);
	if (stream_is_serving(s))
		rest_keep(s, buf + used, len - used);
}

void rx_resume(struct soft_stream *s)
{
	s->rx.again = true;
	stream_poll(s);
	engine_readable(s);
}

static void rx_again(struct soft_stream *s)
{
	s->rx.again = false;
	if (s->rx.rest_len)
		memcpy(s->engine->rx_buffer, s->rx.rest, s->rx.rest_len);
	rx_bytes(s, s->rx.rest_len);
}

/* How much to read into the staging buffer. */
static size_t rx_room(const struct soft_stream *s)
{
	if (s->state == STREAM_ACCEPTING || s->state == STREAM_REQUESTING)
		return MPA_FRAME_MAX + 1 - s->rx.rest_len;
	if (!s->crc && stream_is_serving(s) && s->rx.large)
		return RX_PEEK;
	return RX_BUFFER - s->rx.rest_len;
}

/* Returns what recvmsg does, or negative errno; *direct bytes of it are placed, *asked would have been taken. */
static ssize_t rx_fill(struct soft_stream *s, size_t *direct, size_t *asked)
{
	struct iovec iov[NICD_RANGES + 1];
	struct msghdr msg = {.msg_iov = iov};
	struct stream_rx *rx = &s->rx;
	uint64_t covered = 0;
	unsigned n = 0;
	ssize_t r;

	if (rx->left && stream_is_serving(s))
		n = soft_tag_iov(s->engine->tags, rx->use.tag, rx->addr, rx->left, iov, NICD_RANGES, &covered);
	if (rx->rest_len)
		memcpy(s->engine->rx_buffer, rx->rest, rx->rest_len);
	iov[n] = (struct iovec){s->engine->rx_buffer + rx->rest_len, rx_room(s)};
	*asked = covered + iov[n].iov_len;
	msg.msg_iovlen = n + 1;
	r = recvmsg(s->fd, &msg, MSG_DONTWAIT);
	*direct = r > 0 && (uint64_t)r > covered ? covered : r > 0 ? (size_t)r : 0;
	return r < 0 ? -errno : r;
}

static void rx_failed(struct soft_stream *s, int r)
{
	if (r == -EFAULT && s->rx.left)
		rx_fault(s);
	else
		stream_abort(s, NICD_R_QP_LOST, -r);
}

bool rx_turn(struct soft_stream *s)
{
	size_t quantum = STREAM_QUANTUM, direct, asked;
	ssize_t n;

	if (s->rx.again && reads(s))
		rx_again(s);
	while (quantum > 0 && reads(s)) {
		n = rx_fill(s, &direct, &asked);
		if (n == -EINTR)
			return true;
		if (n == -EAGAIN && s->broken)
			stream_abort(s, NICD_R_QP_LOST, 0);
		if (n == -EAGAIN)
			return false;
		if (n < 0) {
			rx_failed(s, n);
			return false;
		}
		if (n == 0) {
			stream_eof(s);
			return false;
		}
		if (direct)
			segment_placed(s, direct);
		rx_bytes(s, s->rx.rest_len + (n - direct));
		if (!s->broken && (size_t)n < asked)
			return false;
		quantum -= quantum < (size_t)n ? quantum : (size_t)n;
	}
	return reads(s);
}

void rx_init(struct soft_stream *s)
{
	s->rx.use.cut = rx_cut;
	s->rx.read_msn = 1;
}

void rx_stop(struct soft_stream *s)
{
	message_stop(s);
	soft_use_end(&s->rx.use);
	free(s->rx.rest);
	s->rx.rest = NULL;
	s->rx.rest_len = 0;
	s->rx.left = s->rx.skip = 0;
	s->rx.again = false;
	s->rx.in_segment = s->rx.in_message = false;
	s->engine->n_place_from = s->engine->n_place_to = 0;
	s->engine->placing = 0;
}
