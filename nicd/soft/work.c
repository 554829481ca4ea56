/* SPDX-License-Identifier: MIT */
/*
 * Posted transfer lists: copied in -> entries turned into frames in order, the local token looked up when an entry's turn comes and again
 * for each segment -> confirmed by Read Responses -> ended (moved to s->ended, told by engine_tell, freed there). Owned
 * by their stream.
 *
 * In the queue, too, is what else has its turn there (tags that are added and dropped): nothing is made of it, and the stream stops until
 * it was told.
 *
 * One with a fence begins when the reads before it are confirmed; what is posted behind it waits with it. Inline data is copied with the
 * list, and no token is looked at for it.
 *
 * A read is confirmed by its own response. Writes and messages are confirmed by a zero-length read behind them, because responses
 * come only after what was written before is placed. One failure ends the stream, for iWARP has no other way; only the blame
 * has to be found.
 */
#include <stdlib.h>
#include <string.h>

#include "nicd/soft/bytes.h"
#include "nicd/soft/key.h"
#include "nicd/soft/mapping.h"
#include "nicd/soft/stream.h"

struct soft_work *work_new(const struct soft_post *what)
{
	size_t size = (size_t)what->n_entries * NICD_TRANSFER_ENTRY_SIZE, extra;
	struct soft_work *work;

	if (what->n_entries == 0 || what->n_entries > NICD_TRANSFER_ENTRIES)
		return NULL;
	extra = what->is_inline ? get_le32(what->entries + 24) : 0;
	work = malloc(sizeof(*work) + size + extra);
	if (!work)
		return NULL;
	*work = (struct soft_work){
		.operation = what->operation, .n_entries = what->n_entries, .limit = what->n_entries,
		.notify = what->operation == NIC_WRITE && what->notify, .solicited = what->solicited, .fence = what->fence,
		.invalidate = what->invalidate, .invalidate_token = what->invalidate_token,
		.inline_data = what->is_inline ? work->entries + size : NULL,
	};
	memcpy(work->entries, what->entries, size);
	if (extra)
		memcpy(work->inline_data, what->inline_data, extra);
	return work;
}

struct soft_work *work_new_turn(struct soft_stream *s, bool fence)
{
	struct soft_work *work = calloc(1, sizeof(*work));

	if (work) {
		work->is_turn = true;
		work->stream = s;
		work->operation = NIC_RECEIVE;   /* none of those that are posted */
		work->n_entries = work->limit = 1;
		work->fence = fence;
	}
	return work;
}

void work_entry_get(const struct soft_work *work, uint32_t i, struct work_entry *ret)
{
	const uint8_t *p = work->entries + (size_t)i * NICD_TRANSFER_ENTRY_SIZE;

	ret->local_token = get_le32(p);
	ret->remote_token = get_le32(p + 4);
	ret->local_addr = get_le64(p + 8);
	ret->remote_addr = get_le64(p + 16);
	ret->length = get_le32(p + 24);
	ret->mapping = get_le32(p + 28);
}

/* ---- the privileged key */

static uint8_t *entry_at(struct soft_work *work, uint32_t i)
{
	return work->entries + (size_t)i * NICD_TRANSFER_ENTRY_SIZE;
}

/* The last word of an entry is zero when it comes, and ours from then on. */
void work_enter_mappings(const struct soft_stream *s, struct soft_work *work)
{
	struct soft_tags *tags = s->engine->tags;
	const struct soft_key *key = soft_key_of(tags, s->local.pd);

	for (uint32_t i = 0; i < work->n_entries; i++) {
		uint8_t *entry = entry_at(work, i);
		uint32_t place = 0;

		if (key && soft_key_is(tags, key, get_le32(entry))) {
			place = work->inline_data ? 0 : soft_mapping_enter(tags, key->owner, get_le64(entry + 8));
			put_le32(entry, 0);
			work->privileged |= place != 0;
			place = place ? place : WORK_NOWHERE;
		}
		put_le32(entry + 28, place);
	}
}

void work_free(const struct soft_stream *s, struct soft_work *work)
{
	for (uint32_t i = 0; work->privileged && i < work->n_entries; i++) {
		uint32_t place = get_le32(entry_at(work, i) + 28);

		if (place && place != WORK_NOWHERE)
			soft_mapping_leave(s->engine->tags, place);
	}
	free(work);
}

enum nicd_reason work_check(const struct soft_stream *s, const struct work_entry *e, uint64_t addr, uint64_t len, enum soft_access access,
			    struct soft_tag **ret)
{
	if (!e->mapping)
		return soft_tag_check(s->engine->tags, &s->local, e->local_token, addr, len, access, ret);
	if (e->mapping == WORK_NOWHERE)
		return NICD_R_LOCAL_RANGE;
	return soft_mapping_check(s->engine->tags, e->mapping, addr, len, access, ret);
}

static uint64_t entries_bytes(const struct soft_work *work, uint32_t n)
{
	struct work_entry e;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		work_entry_get(work, i, &e);
		sum += e.length;
	}
	return sum;
}

/* ---- frames */

/* True: a frame of the list at the cursor has gone out. Those before it have begun, those behind it have not. */
static bool cursor_inside(const struct tx_cursor *at)
{
	return at->entry > 0 || at->off > 0;
}

/* The next list starts where this one is out. */
static void cursor_next(struct tx_cursor *at, struct soft_work *work)
{
	at->work = TAILQ_NEXT(work, next);
	at->entry = at->off = 0;
	at->notified = at->flushed = false;
}

/* A Read Request; its sink counts only once the cursor has moved over the frame. */
static enum tx_result read_frame(struct soft_stream *s, const struct tx_cursor *at, const struct work_entry *e,
				 struct tx_frame *frame)
{
	struct rdmap_header header = {
		.opcode = RDMAP_READ_REQUEST, .last = true, .queue = QUEUE_READ, .msn = at->out_tail + 1,
	};
	struct rdmap_read read = {
		.size = e->length, .source_stag = e->remote_token, .source_to = e->remote_addr,
	};
	uint8_t buf[RDMAP_READ_SIZE];

	if (at->out_tail - s->out_head >= s->ord)
		return TX_NOTHING;
	read.sink_stag = engine_sink_stag(s);
	s->out[at->out_tail % s->ord] = (struct stream_sink){
		.stag = read.sink_stag, .length = e->length, .work = at->work, .entry = at->entry,
	};
	rdmap_read_encode(buf, &read);
	tx_frame_make(frame, &header, buf, sizeof(buf), 0);
	frame->after = *at;
	frame->after.out_tail++;
	return TX_FRAME;
}

static enum tx_result read_entry_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame,
				       enum nicd_reason *why)
{
	struct soft_tag *tag;
	struct work_entry e;

	work_entry_get(at->work, at->entry, &e);
	*why = work_check(s, &e, e.local_addr, e.length, SOFT_LOCAL_WRITE, &tag);
	if (*why)
		return TX_FAULT;
	if (read_frame(s, at, &e, frame) != TX_FRAME)
		return TX_NOTHING;
	if (++frame->after.entry == at->work->limit)
		cursor_next(&frame->after, at->work);
	return TX_FRAME;
}

static enum tx_result write_entry_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame,
					enum nicd_reason *why)
{
	struct rdmap_header header = {.tagged = true, .opcode = RDMAP_WRITE};
	struct soft_tag *tag = NULL;
	struct work_entry e;
	uint32_t n;

	work_entry_get(at->work, at->entry, &e);
	n = e.length - at->off;
	/* All of it before its first byte, then each segment again. */
	if (n > s->segment && at->off > 0)
		n = s->segment;
	if (!at->work->inline_data)
		*why = work_check(s, &e, e.local_addr + at->off, n, SOFT_LOCAL_READ, &tag);
	if (!at->work->inline_data && *why)
		return TX_FAULT;
	if (n > s->segment)
		n = s->segment;
	header.stag = e.remote_token;
	header.to = e.remote_addr + at->off;
	header.last = at->off + n == e.length;
	tx_frame_make(frame, &header, NULL, 0, n);
	frame->tag = n ? tag : NULL;
	frame->staged = at->work->inline_data ? at->work->inline_data + at->off : NULL;
	frame->addr = e.local_addr + at->off;
	frame->lane = TX_LANE_WORK;
	frame->work = at->work;
	frame->entry = at->entry;
	frame->after = *at;
	frame->after.message = header.last ? TX_LANE_NONE : TX_LANE_WORK;
	frame->after.off = header.last ? 0 : at->off + n;
	frame->after.entry += header.last;
	return TX_FRAME;
}

/* The zero-length read behind writes. */
static enum tx_result flush_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame)
{
	const struct work_entry nothing = {0};

	if (read_frame(s, at, &nothing, frame) != TX_FRAME)
		return TX_NOTHING;
	frame->after.flushed = true;
	if (at->work->limit == at->work->n_entries)
		cursor_next(&frame->after, at->work);
	return TX_FRAME;
}

enum tx_result work_first_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame)
{
	const struct work_entry nothing = {0};

	return at->out_tail ? TX_NOTHING : read_frame(s, at, &nothing, frame);
}

static enum tx_result entry_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame,
				  enum nicd_reason *why)
{
	if (at->work->operation == NIC_READ)
		return read_entry_frame(s, at, frame, why);
	if (at->work->operation == NIC_SEND)
		return message_frame(s, at, frame, why);
	return write_entry_frame(s, at, frame, why);
}

/* Reads that were asked for, not those behind writes. The cursor may be ahead of what is out. */
static bool reads_under_way(const struct soft_stream *s, const struct tx_cursor *at)
{
	for (uint32_t i = s->out_head; i != at->out_tail; i++) {
		const struct soft_work *work = s->out[i % s->ord].work;

		if (work && work->operation == NIC_READ)
			return true;
	}
	return false;
}

enum tx_result work_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame, enum nicd_reason *why)
{
	const struct soft_work *work = at->work;
	enum tx_result r = TX_NOTHING;

	if (!work || work->is_turn || (work->fence && !cursor_inside(at) && reads_under_way(s, at)))
		return TX_NOTHING;
	if (at->entry < work->limit)
		r = entry_frame(s, at, frame, why);
	else if (work->notify && work->limit == work->n_entries && !at->notified)
		r = message_notice_frame(at, frame);
	else if (work->operation != NIC_READ && work->limit > 0 && !at->flushed)
		r = flush_frame(s, at, frame);
	if (r == TX_FRAME)
		frame->after.last = TX_LANE_WORK;
	return r;
}

bool work_fault(struct soft_stream *s, enum nicd_reason why)
{
	struct tx_cursor *at = &s->tx.at;
	struct nicd_error error = {.reason = why};

	if (at->off > 0) {
		error.reason = NICD_R_LOCAL_GONE;   /* it was there when the message began */
		work_blame(s, at->work, at->entry, false, &error);
		return false;
	}
	at->work->limit = at->entry;
	at->work->error = error;
	return true;
}

/* ---- confirmation */

/* Takes the list off the stream's queue; it is told later. */
static void work_end(struct soft_stream *s, struct soft_work *work)
{
	if (s->tx.at.work == work)
		s->tx.at.work = NULL;
	TAILQ_REMOVE(&s->posted, work, next);
	s->n_posted--;
	work->stream = NULL;
	work->completion.entries = work->confirmed;
	work->completion.bytes = work->is_turn ? 0 : entries_bytes(work, work->confirmed);
	TAILQ_INSERT_TAIL(&s->ended, work, next);
	engine_news(s);
}

void work_confirm(struct soft_stream *s)
{
	struct stream_sink *sink = &s->out[s->out_head++ % s->ord];

	if (!sink->work && s->state == STREAM_CONFIRMING)
		stream_confirmed(s);
	else if (!sink->work)
		;   /* a message of the peer came before */
	else if (sink->work->operation == NIC_READ)
		sink->work->confirmed++;
	else
		sink->work->confirmed = sink->work->limit;
	engine_ready(s);   /* a place for another read */
}

/* What is half out still reads its memory. */
bool work_is_clear(const struct soft_stream *s, bool fence)
{
	bool half = s->tx.half_size && s->tx.half.work && s->tx.half_use.tag;

	return !half && !(fence && reads_under_way(s, &s->tx.at));
}

bool work_takes_turn(struct soft_stream *s)
{
	struct soft_work *work = s->tx.at.work;

	if (!work || !work->is_turn || s->state != STREAM_OPEN || !work_is_clear(s, work->fence))
		return false;
	cursor_next(&s->tx.at, work);
	work_end(s, work);
	return true;
}

bool work_forget_turn(struct soft_work *work)
{
	struct soft_stream *s = work->stream;

	if (!s)
		return false;
	if (s->tx.at.work == work)
		cursor_next(&s->tx.at, work);
	TAILQ_REMOVE(&s->posted, work, next);
	s->n_posted--;
	work_free(s, work);
	engine_ready(s);   /* what waited behind it */
	return true;
}

bool work_settle(struct soft_stream *s, struct nicd_error *why)
{
	struct soft_work *work;

	while ((work = TAILQ_FIRST(&s->posted)) && work->confirmed == work->limit) {
		if (work->limit < work->n_entries) {
			const struct nicd_error error = work->error;

			*why = error;
			work_blame(s, work, work->limit, false, &error);
			return true;
		}
		work_end(s, work);
	}
	return false;
}

/* ---- the end */

bool work_on_wire(const struct soft_stream *s)
{
	const struct soft_work *work = TAILQ_FIRST(&s->posted);

	return work && (work != s->tx.at.work || cursor_inside(&s->tx.at));
}

/*
 * All but `except`, in their order. When there is nobody to blame the first is told why, even if it had not begun. In one pass, for
 * a stream may have many.
 */
static void work_lost_all(struct soft_stream *s, const struct soft_work *except, const struct nicd_error *begun)
{
	const struct soft_work *told = except ? except : TAILQ_FIRST(&s->posted);
	const struct tx_cursor at = s->tx.at;
	bool out = true;
	struct soft_work *work;

	while ((work = TAILQ_FIRST(&s->posted))) {
		if (work == at.work)
			out = cursor_inside(&at);
		if (work != except) {
			work->error = work == told || out ? *begun : (struct nicd_error){.reason = NICD_R_FLUSHED};
			work->completion.failed = work->confirmed;
			work->completion.inexact = true;
		}
		if (work == at.work)
			out = false;
		work_end(s, work);
	}
	s->tx.at.work = NULL;
	message_lost(s, begun);
}

void work_lost(struct soft_stream *s, enum nicd_reason begun, int provider_error)
{
	const struct nicd_error error = {.reason = begun, .provider_error = provider_error};

	work_lost_all(s, NULL, &error);
}

void work_blame(struct soft_stream *s, struct soft_work *work, uint32_t entry, bool inexact, const struct nicd_error *why)
{
	const struct nicd_error lost = {.reason = NICD_R_QP_LOST};

	if (entry >= work->n_entries)   /* the read behind the writes: one of them */
		entry = work->confirmed;
	/* The peer goes through writes in order: those before the one that it names are placed. */
	if (!inexact && work->operation == NIC_WRITE && why->reason != NICD_R_LOCAL_GONE)
		work->confirmed = entry;
	work->error = *why;
	work->completion.failed = entry;
	work->completion.inexact = inexact;
	work_lost_all(s, work, &lost);
}

/* The entry of the write that a copied DDP header is about: the first of its token and range that is not confirmed. */
static bool write_find(struct soft_stream *s, const struct rdmap_header *h, struct soft_work **ret, uint32_t *entry)
{
	struct work_entry e;
	struct soft_work *work;

	TAILQ_FOREACH(work, &s->posted, next) {
		if (work->operation != NIC_WRITE)
			continue;
		for (uint32_t i = work->confirmed; i < work->limit; i++) {
			work_entry_get(work, i, &e);
			if (e.remote_token != h->stag || h->to < e.remote_addr || h->to - e.remote_addr >= e.length)
				continue;
			*ret = work;
			*entry = i;
			return true;
		}
	}
	return false;
}

static bool read_find(struct soft_stream *s, const struct rdmap_read *read, struct soft_work **ret, uint32_t *entry)
{
	for (uint32_t i = s->out_head; i != s->tx.at.out_tail; i++) {
		const struct stream_sink *sink = &s->out[i % s->ord];

		if (sink->stag != read->sink_stag)
			continue;
		*ret = sink->work;
		*entry = sink->entry;
		return true;
	}
	return false;
}

void work_terminated(struct soft_stream *s, const struct rdmap_terminate *terminate, struct nicd_error *why)
{
	struct soft_work *work = NULL;
	bool found = false;
	uint32_t entry = 0;

	*why = (struct nicd_error){.reason = nicd_terminate_reason(terminate->code), .observed = terminate->code};
	if (terminate->has_read)
		found = read_find(s, &terminate->read, &work, &entry);
	else if (terminate->has_header && terminate->header.tagged && terminate->header.opcode == RDMAP_WRITE)
		found = write_find(s, &terminate->header, &work, &entry);
	else if (terminate->has_header && !terminate->header.tagged && terminate->header.queue == QUEUE_SEND)
		found = message_find(s, &terminate->header, &work, &entry);
	if (!found)
		work = TAILQ_FIRST(&s->posted);
	if (work)
		work_blame(s, work, found ? entry : work->confirmed, !found, why);
}
