/* SPDX-License-Identifier: MIT */
/*
 * Messages: RDMAP's Send in its four forms, both ways.
 *
 * Out, a Send is posted work like any other (work.c): its frames are made here, and a zero-length read behind it says that the peer has
 * placed it. In, messages fill the posted receives in their order:
 *
 *   s->receives (posted) --last segment--> s->arrived --its bytes are placed--> s->ended, told by engine_tell
 *
 * A posted receive holds a soft_use, so that a tag that goes takes its receives along: one that only waits fails alone, one that is half
 * filled ends the stream. A message for which there is no receive stops the reading of its stream, and of that only: what was read of it
 * is kept (bounded for all streams together and for each PD), the kernel keeps the rest, and one timer ends it when its time is up.
 *
 * An empty Send with Solicited Event on a stream that came in by a door is a notice: its peer says that what it wrote before is there.
 * It takes no receive. Notices are counted, not queued: one per stream waits to be told, whatever the number.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nicd/soft/stream.h"

enum {
	STALL_COST_MIN = 4096,                 /* what keeping a little costs at least */
	STALL_MAX = 64 * 1024 * 1024,          /* bytes kept of all stalled streams */
	STALL_PD_MAX = 4 * 1024 * 1024,        /* of those of one PD */
};

static const struct {
	bool solicited, invalidate;
} forms[] = {
	[RDMAP_SEND] = {false, false},
	[RDMAP_SEND_INVALIDATE] = {false, true},
	[RDMAP_SEND_SOLICITED] = {true, false},
	[RDMAP_SEND_SOLICITED_INVALIDATE] = {true, true},
};

static bool in_message(const struct soft_stream *s)
{
	return (s->rx.in_segment || s->rx.in_message) && !s->rx.header.tagged;
}

/* ---- out */

static uint8_t send_opcode(const struct soft_work *work)
{
	if (work->invalidate)
		return work->solicited ? RDMAP_SEND_SOLICITED_INVALIDATE : RDMAP_SEND_INVALIDATE;
	return work->solicited ? RDMAP_SEND_SOLICITED : RDMAP_SEND;
}

enum tx_result message_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame, enum nicd_reason *why)
{
	struct rdmap_header header = {
		.opcode = send_opcode(at->work), .queue = QUEUE_SEND, .msn = at->send_msn + 1, .mo = at->off,
		.stag = at->work->invalidate ? at->work->invalidate_token : 0,
	};
	uint32_t n, max = s->segment - (DDP_UNTAGGED_SIZE - DDP_TAGGED_SIZE);
	struct soft_tag *tag = NULL;
	struct work_entry e;

	work_entry_get(at->work, at->entry, &e);
	n = e.length - at->off;
	/* All of it before its first byte, then each segment again. */
	if (n > max && at->off > 0)
		n = max;
	if (n && !at->work->inline_data)
		*why = work_check(s, &e, e.local_addr + at->off, n, SOFT_LOCAL_READ, &tag);
	if (n && !at->work->inline_data && *why)
		return TX_FAULT;
	if (n > max)
		n = max;
	header.last = at->off + n == e.length;
	tx_frame_make(frame, &header, NULL, 0, n);
	frame->tag = tag;
	frame->staged = at->work->inline_data ? at->work->inline_data + at->off : NULL;
	frame->addr = e.local_addr + at->off;
	frame->lane = TX_LANE_WORK;
	frame->work = at->work;
	frame->entry = at->entry;
	frame->after = *at;
	frame->after.message = header.last ? TX_LANE_NONE : TX_LANE_WORK;
	frame->after.off = header.last ? 0 : at->off + n;
	frame->after.entry += header.last;
	frame->after.send_msn += header.last;
	at->work->msn = header.msn;
	at->work->numbered = true;
	return TX_FRAME;
}

enum tx_result message_notice_frame(const struct tx_cursor *at, struct tx_frame *frame)
{
	const struct rdmap_header header = {
		.opcode = RDMAP_SEND_SOLICITED, .last = true, .queue = QUEUE_SEND, .msn = at->send_msn + 1,
	};

	tx_frame_make(frame, &header, NULL, 0, 0);
	frame->after = *at;
	frame->after.notified = true;
	frame->after.send_msn++;
	at->work->msn = header.msn;
	at->work->numbered = true;
	return TX_FRAME;
}

bool message_find(struct soft_stream *s, const struct rdmap_header *h, struct soft_work **ret, uint32_t *entry)
{
	struct soft_work *work;

	TAILQ_FOREACH(work, &s->posted, next) {
		if (!work->numbered || work->msn != h->msn || work->confirmed == work->n_entries)
			continue;
		/* The peer goes through a stream in order: what a refused notice tells of is placed. */
		if (work->notify)
			work->confirmed = work->limit;
		*ret = work;
		*entry = work->confirmed;
		return true;
	}
	return false;
}

/* ---- the end of receives */

static void receive_end(struct soft_stream *s, struct soft_works *from, struct soft_work *work, const struct nicd_error *error)
{
	soft_use_end(&work->use);
	TAILQ_REMOVE(from, work, next);
	s->n_receives--;
	work->error = *error;
	if (error->reason == NICD_R_NONE) {
		work->completion.entries = 1;
	} else {
		work->completion = (struct soft_completion){0};
	}
	TAILQ_INSERT_TAIL(&s->ended, work, next);
	engine_news(s);
}

static void receives_end(struct soft_stream *s, struct soft_works *from, const struct nicd_error *error)
{
	struct soft_work *work;

	while ((work = TAILQ_FIRST(from)))
		receive_end(s, from, work, error);
}

void message_lost(struct soft_stream *s, const struct nicd_error *why)
{
	receives_end(s, &s->arrived, why);
	receives_end(s, &s->receives, why);
}

void message_blame(struct soft_stream *s, const struct nicd_error *why)
{
	receives_end(s, &s->arrived, why);
	if (in_message(s) && TAILQ_FIRST(&s->receives))
		receive_end(s, &s->receives, TAILQ_FIRST(&s->receives), why);
}

bool message_is_half(const struct soft_stream *s)
{
	return in_message(s);
}

/* ---- posting */

/* The tag under a posted receive goes. */
static void receive_cut(struct soft_use *use)
{
	struct soft_work *work = (struct soft_work *)((char *)use - offsetof(struct soft_work, use));
	const struct rdmap_terminate terminate = {.code = DDP_E_CATASTROPHIC};
	const struct nicd_error why = {.reason = NICD_R_LOCAL_GONE};
	struct soft_stream *s = work->stream;
	bool half = in_message(s) && work == TAILQ_FIRST(&s->receives);

	receive_end(s, &s->receives, work, &why);
	if (half)
		stream_terminate(s, &terminate, NICD_R_LOCAL_GONE);
}

static struct soft_work *receive_new(struct soft_stream *s, const uint8_t *entry, struct nicd_error *err)
{
	enum nicd_reason why = NICD_R_NONE;
	struct soft_tag *tag = NULL;
	struct soft_work *work;
	struct work_entry e;

	work = work_new(&(struct soft_post){.operation = NIC_RECEIVE, .entries = entry, .n_entries = 1});
	if (!work) {
		nicd_refuse(err, NICD_R_NO_MEMORY);
		return NULL;
	}
	work_enter_mappings(s, work);
	work_entry_get(work, 0, &e);
	if (e.length)
		why = work_check(s, &e, e.local_addr, e.length, SOFT_LOCAL_WRITE, &tag);
	if (why) {
		work_free(s, work);
		nicd_refuse(err, why);
		return NULL;
	}
	work->stream = s;
	work->use.cut = receive_cut;
	work->use.waits = true;
	if (tag)
		soft_use_begin(s->engine->tags, &work->use, tag);
	return work;
}

static void unstall(struct soft_stream *s)
{
	struct soft_engine *engine = s->engine;

	if (!s->rx.stalled)
		return;
	s->rx.stalled = false;
	TAILQ_REMOVE(&engine->stalls, s, next_stall);
	engine->stalled_bytes -= s->stall_cost;
	s->stall_pd->stalled -= s->stall_cost;
	s->stall_pd = soft_tally_put(&engine->caps, s->stall_pd);
	if (TAILQ_EMPTY(&engine->stalls))
		uv_timer_stop(&engine->stall_timer);
}

void soft_receive(struct soft_engine *engine, uint64_t stream, const uint8_t *entry,
		  void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
		  void *userdata)
{
	struct soft_stream *s = engine_find(engine, stream);
	const struct soft_completion nothing = {0};
	struct nicd_error error = {0};
	struct soft_work *work = NULL;

	if (!s || s->state != STREAM_OPEN)
		nicd_refuse(&error, NICD_R_QP_STATE);
	else if (s->n_receives >= NICD_QP_RECEIVES)
		nicd_refuse_at(&error, NICD_R_IN_FLIGHT, NICD_QP_RECEIVES, s->n_receives + 1);
	else
		work = receive_new(s, entry, &error);
	if (!work) {
		done(userdata, &error, &nothing);
		return;
	}
	work->done = done;
	work->userdata = userdata;
	TAILQ_INSERT_TAIL(&s->receives, work, next);
	s->n_receives++;
	if (!s->rx.stalled)
		return;
	unstall(s);
	rx_resume(s);
}

/* ---- waiting for a receive */

static void on_stall(uv_timer_t *timer);

static void stall_arm(struct soft_engine *engine)
{
	struct soft_stream *s = TAILQ_FIRST(&engine->stalls);
	uint64_t now = uv_now(engine->loop);

	if (s)
		uv_timer_start(&engine->stall_timer, on_stall, s->stall_until > now ? s->stall_until - now : 0, 0);
}

/* All wait for the same time, so the oldest is first. */
static void on_stall(uv_timer_t *timer)
{
	struct soft_engine *engine = timer->data;
	struct soft_stream *s;

	while ((s = TAILQ_FIRST(&engine->stalls)) && s->stall_until <= uv_now(engine->loop)) {
		unstall(s);
		s->rx.overdue = true;
		rx_resume(s);
	}
	stall_arm(engine);
}

/* Counts what is kept of a stream. False: it is too much, or there is no memory. */
static bool stall_admit(struct soft_stream *s, size_t cost)
{
	struct soft_engine *engine = s->engine;
	struct soft_tally *pd;

	if (engine->stalled_bytes + cost > STALL_MAX)
		return false;
	pd = soft_tally_of_pd(&engine->caps, s->local.pd);
	if (!pd || pd->stalled + cost > STALL_PD_MAX) {
		soft_tally_put(&engine->caps, pd);
		return false;
	}
	s->stall_cost = cost;
	s->stall_pd = pd;
	pd->stalled += cost;
	engine->stalled_bytes += cost;
	return true;
}

/* Reading goes no further until there is a receive. False: it is not to wait. */
static bool stall(struct soft_stream *s, size_t have)
{
	struct soft_engine *engine = s->engine;

	if (s->rx.overdue || !stall_admit(s, have < STALL_COST_MIN ? STALL_COST_MIN : have))
		return false;
	/* A peer that sends has our first frame: nobody could post a receive before we are connected. */
	if (s->state == STREAM_CONFIRMING)
		stream_confirmed(s);
	s->rx.stalled = true;
	s->stall_until = uv_now(engine->loop) + engine->options.receive_wait_ms;
	TAILQ_INSERT_TAIL(&engine->stalls, s, next_stall);
	if (TAILQ_FIRST(&engine->stalls) == s)
		stall_arm(engine);
	stream_poll(s);
	return true;
}

/* ---- in */

bool message_is_notice(const struct soft_stream *s, const struct rdmap_header *h, uint32_t n)
{
	return s->inbound && h->opcode == RDMAP_SEND_SOLICITED && n == 0 && h->last && !s->rx.in_message;
}

/* What a segment says of itself, against the message under way. */
static enum rdmap_code order_check(const struct soft_stream *s, const struct rdmap_header *h, uint32_t n)
{
	const struct stream_rx *rx = &s->rx;

	if (rx->in_message && (rx->header.tagged || h->opcode != rx->opcode))
		return RDMAP_E_OPCODE;
	if (h->msn != rx->send_msn)
		return DDP_E_MSN;
	if (h->mo != (rx->in_message ? rx->mo : 0))
		return DDP_E_MO;
	if (rx->in_message && h->stag != rx->stag)
		return RDMAP_E_STAG;
	/* One that brings nothing and ends nothing could be repeated for ever. */
	if (n == 0 && !h->last)
		return DDP_E_CATASTROPHIC;
	return RDMAP_FINE;
}

enum rdmap_code message_segment(struct soft_stream *s, const struct rdmap_header *h, uint32_t n, size_t have,
				struct soft_tag **tag)
{
	enum rdmap_code code = order_check(s, h, n);
	struct soft_work *work = TAILQ_FIRST(&s->receives);
	struct nicd_error why;
	struct work_entry e;

	if (code != RDMAP_FINE || message_is_notice(s, h, n))
		return code;
	if (!work)
		return stall(s, have) ? RDMAP_MORE : DDP_E_NO_BUFFER;
	work_entry_get(work, 0, &e);
	if (n > e.length - h->mo) {
		nicd_refuse_at(&why, NICD_R_RECEIVE_TOO_SMALL, e.length, (uint64_t)h->mo + n);
		if (rx_flush(s) && (work = TAILQ_FIRST(&s->receives)))
			receive_end(s, &s->receives, work, &why);
		return DDP_E_TOO_LONG;
	}
	work->use.waits = false;   /* to cut it is to cut the stream */
	s->rx.addr = e.local_addr + h->mo;
	*tag = n ? work->use.tag : NULL;
	return RDMAP_FINE;
}

void message_segment_end(struct soft_stream *s, uint32_t n)
{
	struct stream_rx *rx = &s->rx;
	struct soft_work *work = TAILQ_FIRST(&s->receives);

	rx->mo = rx->header.mo + n;
	if (!rx->header.last)
		return;
	rx->send_msn++;
	rx->overdue = false;
	if (rx->notice) {
		rx->notices++;
		return;
	}
	work->completion = (struct soft_completion){
		.bytes = rx->mo, .solicited = forms[rx->header.opcode].solicited,
		.invalidated = forms[rx->header.opcode].invalidate, .token = rx->header.stag,
	};
	soft_use_end(&work->use);
	TAILQ_REMOVE(&s->receives, work, next);
	TAILQ_INSERT_TAIL(&s->arrived, work, next);
	/* Its header is still at hand, should it be refused. */
	if (work->completion.invalidated)
		rx_flush(s);
}

/* False: the stream has ended. The tag goes as it goes by soft_tag_drop; that may cut this very stream. */
static bool message_invalidate(struct soft_stream *s, struct soft_work *work)
{
	const struct nicd_error fine = {0};
	struct rdmap_terminate terminate = {
		.code = RDMAP_E_INVALIDATE, .has_header = true, .header = s->rx.header, .ulpdu = s->rx.ulpdu,
	};
	struct soft_tag *tag = soft_tag_invalidatable(s->engine->tags, &s->remote, work->completion.token);

	if (!tag) {
		stream_terminate(s, &terminate, NICD_R_QP_LOST);
		return false;
	}
	work->tag = tag->serial;
	work->generation = tag->generation;
	receive_end(s, &s->arrived, work, &fine);
	soft_tag_drop(s->engine->tags, tag->serial, tag->generation);
	return stream_is_serving(s);
}

bool message_flush(struct soft_stream *s)
{
	const struct nicd_error fine = {0};
	struct soft_work *work;

	if (s->rx.notices) {
		s->notified += s->rx.notices;
		s->rx.notices = 0;
		if (!s->noticed)
			TAILQ_INSERT_TAIL(&s->engine->notices, s, next_notice);
		s->noticed = true;
	}
	while ((work = TAILQ_FIRST(&s->arrived))) {
		if (!work->completion.invalidated)
			receive_end(s, &s->arrived, work, &fine);
		else if (!message_invalidate(s, work))
			return false;
	}
	return true;
}

/* ---- notices */

void message_notice_drop(struct soft_stream *s)
{
	if (s->noticed)
		TAILQ_REMOVE(&s->engine->notices, s, next_notice);
	s->noticed = false;
}

void message_notice_tell(struct soft_stream *s)
{
	const struct soft_engine_events *events = &s->engine->events;

	if (!s->noticed)
		return;
	message_notice_drop(s);
	if (events->notified && (s->told || s->tell_closed))
		events->notified(events->userdata, s->number, s->door, s->notified);
}

unsigned soft_engine_notices(struct soft_engine *engine, unsigned max)
{
	struct soft_stream *s;
	unsigned n = 0;

	/* Nobody is told of a stream that he does not know yet. */
	while (n < max && (s = TAILQ_FIRST(&engine->notices)) && !s->tell_opened) {
		message_notice_tell(s);
		n++;
	}
	return n;
}

/* ---- life */

void message_init(struct soft_stream *s)
{
	TAILQ_INIT(&s->receives);
	TAILQ_INIT(&s->arrived);
	s->rx.send_msn = 1;
}

void message_stop(struct soft_stream *s)
{
	unstall(s);
}

void message_engine_init(struct soft_engine *engine)
{
	TAILQ_INIT(&engine->stalls);
	TAILQ_INIT(&engine->notices);
	uv_timer_init(engine->loop, &engine->stall_timer);
	engine->stall_timer.data = engine;
}
