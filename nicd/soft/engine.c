/* SPDX-License-Identifier: MIT */
/*
 * The engine: the registry of streams, whose turn it is, and what others are told. One per process; borrowed by it are the loop,
 * the tags and the tickets, which must outlive it.
 *
 * Streams with something to read or to send wait in `ready`, first come first served, for a turn of a quantum each way; as long as
 * there are any the loop doesn't sleep. Turns have a time budget, so however many streams are busy the loop comes round to timers,
 * commands and newcomers. News wait in `news` and are told between turns.
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "nicd/soft/stream.h"

enum {
	TURNS_NS = 500000,      /* of all streams, before the loop looks at what else there is */
	GRAVES_MS = 2,          /* until the sockets of what has ended are closed: whoever ended it is answered first */
	GRAVES_NS = 50000,      /* of that in a turn: a command that comes meanwhile waits no longer */
	CUT_LOOK = 64,          /* streams that are cut between two looks at the clock */
	SPIN_NS = 50000,        /* how long the loop looks again before it sleeps */
	SPIN_IF_NS = 100000,    /* when the last pause was no longer: a wake-up takes up to 50 us */
};

static int stream_compare(const struct soft_stream *a, const struct soft_stream *b)
{
	return a->number < b->number ? -1 : a->number > b->number;
}
RB_GENERATE_INTERNAL(soft_streams, soft_stream, by_number, stream_compare, static __attribute__((unused)))

/* ---- registry */

struct soft_stream *engine_find(struct soft_engine *engine, uint64_t number)
{
	struct soft_stream key = {.number = number};

	return RB_FIND(soft_streams, &engine->streams, &key);
}

void engine_list(struct soft_stream *s)
{
	if (s->listed)
		return;
	RB_INSERT(soft_streams, &s->engine->streams, s);
	s->engine->n_streams++;
	s->listed = true;
}

void engine_unlist(struct soft_stream *s)
{
	if (!s->listed)
		return;
	RB_REMOVE(soft_streams, &s->engine->streams, s);
	s->engine->n_streams--;
	s->listed = false;
}

uint32_t engine_sink_stag(struct soft_stream *s)
{
	struct soft_engine *engine = s->engine;
	uint32_t stag;

	do {
		if (engine->n_random == 0) {
			engine->n_random = sizeof(engine->random) / sizeof(engine->random[0]);
			/* Up to 256 bytes come whole or not at all. */
			while (getrandom(engine->random, sizeof(engine->random), 0) < 0)
				assert(errno == EINTR);
		}
		stag = engine->random[--engine->n_random];
		for (uint32_t i = s->out_head; stag && i != s->tx.at.out_tail; i++)
			if (s->out[i % s->ord].stag == stag)
				stag = 0;
	} while (stag == 0 || soft_token_taken(engine->tags, stag));
	return stag;
}

/* ---- turns and news */

void engine_ready(struct soft_stream *s)
{
	if (s->is_ready || s->state == STREAM_CLOSED || s->state == STREAM_FAILED)
		return;
	TAILQ_INSERT_TAIL(&s->engine->ready, s, next_ready);
	s->is_ready = true;
}

void engine_unready(struct soft_stream *s)
{
	if (s->is_ready)
		TAILQ_REMOVE(&s->engine->ready, s, next_ready);
	s->is_ready = false;
}

void engine_readable(struct soft_stream *s)
{
	s->readable = true;
	engine_ready(s);
}

void engine_news(struct soft_stream *s)
{
	if (s->has_news)
		return;
	TAILQ_INSERT_TAIL(&s->engine->news, s, next_news);
	s->has_news = true;
}

static void deliver_ended(struct soft_stream *s)
{
	const struct soft_engine_events *events = &s->engine->events;
	struct soft_work *work;

	while ((work = TAILQ_FIRST(&s->ended))) {
		TAILQ_REMOVE(&s->ended, work, next);
		if (work->completion.invalidated && events->invalidated)
			events->invalidated(events->userdata, s->number, work->tag, work->generation);
		work->done(work->userdata, &work->error, &work->completion);
		work_free(s, work);
	}
}

static void deliver_connected(struct soft_stream *s)
{
	struct stream_waiter *waiter;

	while ((waiter = STAILQ_FIRST(&s->waiters))) {
		STAILQ_REMOVE_HEAD(&s->waiters, next);
		waiter->done(waiter->userdata, &s->connect_error, &s->result);
		free(waiter);
	}
}

static void deliver(struct soft_stream *s)
{
	const struct soft_engine_events *events = &s->engine->events;
	struct nicd_error why = s->why;

	if (s->tell_connected) {
		s->tell_connected = false;
		deliver_connected(s);
	}
	if (s->tell_opened) {
		s->tell_opened = false;
		events->opened(events->userdata, s->number, s->ticket, s->peer);
		if (s->state == STREAM_CLOSED)
			stream_leave(s);
	}
	deliver_ended(s);
	if (s->tell_closed) {
		message_notice_tell(s);
		s->tell_closed = false;
		events->closed(events->userdata, s->number, &why, &s->counters);
	}
}

void engine_tell(struct soft_stream *s)
{
	if (s->has_news)
		TAILQ_REMOVE(&s->engine->news, s, next_news);
	s->has_news = false;
	deliver(s);
	stream_gone(s);
}

static void on_dusk(uv_timer_t *timer)
{
	struct soft_engine *engine = timer->data;

	engine->buries = true;
}

void engine_bury(struct soft_stream *s)
{
	struct soft_engine *engine = s->engine;

	STAILQ_INSERT_TAIL(&engine->graves, s, next_grave);
	if (!engine->buries && !uv_is_active((uv_handle_t *)&engine->dusk))
		uv_timer_start(&engine->dusk, on_dusk, GRAVES_MS, 0);
}

/* A quantum of reading, then one of sending. A peer that has come in is told of first, and answered then. */
static void stream_turn(struct soft_stream *s)
{
	bool again = false;

	if (s->readable) {
		s->readable = false;
		again = rx_turn(s);
		s->readable = again;
	}
	if (s->tell_opened || tx_turn(s) || again)
		engine_ready(s);
}

static bool is_busy(const struct soft_engine *engine)
{
	return !TAILQ_EMPTY(&engine->ready) || !TAILQ_EMPTY(&engine->news);
}

static bool has_turns(const struct soft_engine *engine)
{
	return is_busy(engine) || engine->buries;
}

static void grave_step(struct soft_engine *engine)
{
	struct soft_stream *s = STAILQ_FIRST(&engine->graves);

	if (!s) {
		engine->buries = false;
		return;
	}
	STAILQ_REMOVE_HEAD(&engine->graves, next_grave);
	stream_bury(s);
	engine_news(s);
}

/* One thing of the most urgent kind: who was told may have something to say at once. */
static void engine_step(struct soft_engine *engine)
{
	struct soft_stream *s;

	if ((s = TAILQ_FIRST(&engine->news))) {
		engine_tell(s);
	} else if ((s = TAILQ_FIRST(&engine->ready))) {
		engine_unready(s);
		stream_turn(s);
	} else {
		grave_step(engine);
	}
}

/*
 * To be woken up costs more than all else about a small transfer. So when the last pause was short the loop looks a few more times before
 * it sleeps, giving way to whoever else wants this processor. Who waits for a turn when the time is up is served first next time, so that
 * nobody is passed over however many there are.
 */
static void on_check(uv_check_t *check)
{
	struct soft_engine *engine = check->data;
	uint64_t now, until;

	if (!has_turns(engine))
		return;
	now = uv_hrtime();
	until = now + TURNS_NS;
	engine->spins = now - engine->quiet_at < SPIN_IF_NS;
	for (; is_busy(engine) && now < until; now = uv_hrtime())
		engine_step(engine);
	until = now + GRAVES_NS;
	/* The dead come last, but they come: they have descriptors still, and others wait to be told of them. */
	for (; engine->buries && now < until; now = uv_hrtime())
		grave_step(engine);
	engine->quiet_at = now;
}

static void on_idle(uv_idle_t *idle)
{
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct soft_engine *engine = prepare->data;

	if (has_turns(engine)) {
		uv_idle_start(&engine->idle, on_idle);
	} else if (engine->spins && uv_hrtime() - engine->quiet_at < SPIN_NS) {
		uv_idle_start(&engine->idle, on_idle);
		sched_yield();
	} else {
		uv_idle_stop(&engine->idle);
	}
}

/* ---- counts */

void engine_stranger(struct soft_stream *s, bool stranger)
{
	struct soft_engine *engine = s->engine;

	if (s->stranger == stranger)
		return;
	s->stranger = stranger;
	if (stranger) {
		TAILQ_INSERT_TAIL(&engine->strangers, s, next_stranger);
		engine->caps.half_open++;
		s->by_address->half_open++;
	} else {
		TAILQ_REMOVE(&engine->strangers, s, next_stranger);
		engine->caps.half_open--;
		s->by_address->half_open--;
	}
}

void engine_half_open(struct soft_stream *s, bool half_open)
{
	s->engine->n_half_open += half_open;
	s->engine->n_half_open -= s->half_open;
	s->half_open = half_open;
}

bool engine_admit(struct soft_stream *s)
{
	struct soft_caps *caps = &s->engine->caps;

	s->by_pd = soft_tally_of_pd(caps, s->ticket->pd);
	s->counted = s->by_pd && soft_caps_admit(caps, s->by_address, s->by_pd, uv_now(s->engine->loop), s->peer);
	if (s->counted && soft_place_take(caps, &s->places[0], s->ticket->serial, s) &&
	    (s->ticket->door == 0 || s->ticket->door == s->ticket->serial ||
	     soft_place_take(caps, &s->places[1], s->ticket->door, s))) {
		engine_stranger(s, false);
		return true;
	}
	soft_place_leave(caps, &s->places[0]);
	if (s->counted)
		soft_caps_leave(caps, s->by_address, s->by_pd);
	s->counted = false;
	s->by_pd = soft_tally_put(caps, s->by_pd);
	return false;
}

void engine_uncount(struct soft_stream *s)
{
	struct soft_caps *caps = &s->engine->caps;

	engine_stranger(s, false);
	if (s->counted)
		soft_caps_leave(caps, s->by_address, s->by_pd);
	s->counted = false;
	for (int i = 0; i < 2; i++)
		soft_place_leave(caps, &s->places[i]);
	s->by_pd = soft_tally_put(caps, s->by_pd);
	s->by_address = soft_tally_put(caps, s->by_address);
}

struct soft_caps *soft_engine_caps(struct soft_engine *engine)
{
	return &engine->caps;
}

/* ---- commands */

static uint64_t ticket_mark(const uint8_t ticket[NICD_TICKET_SIZE])
{
	uint8_t hash[NICD_TICKET_HASH_SIZE];
	uint64_t mark;

	locator_ticket_hash(ticket, hash);
	memcpy(&mark, hash, sizeof(mark));
	return mark;
}

static bool same_terms(const struct soft_stream *s, const struct soft_connect_terms *terms)
{
	return !s->inbound && s->local.pd == terms->pd && s->ticket_mark == ticket_mark(terms->ticket) &&
	       memcmp(&s->addr, &terms->addr, sizeof(s->addr)) == 0;
}

static struct soft_stream *connect_begin(struct soft_engine *engine, const struct soft_connect_terms *terms)
{
	struct soft_stream *s = stream_new(engine, terms->stream, false);

	if (!s)
		return NULL;
	s->local.pd = s->remote.pd = terms->pd;
	s->addr = terms->addr;
	s->ticket_mark = ticket_mark(terms->ticket);
	memcpy(s->ticket_secret, terms->ticket, sizeof(s->ticket_secret));
	engine_list(s);
	stream_connect(s, terms->timeout_ms ? terms->timeout_ms : engine->options.handshake_timeout_ms);
	return s;
}

void soft_connect(struct soft_engine *engine, const struct soft_connect_terms *terms,
		  void (*done)(void *userdata, const struct nicd_error *error, const struct soft_connected *result),
		  void *userdata)
{
	struct soft_stream *s = engine_find(engine, terms->stream);
	const struct soft_connected nothing = {0};
	struct nicd_error error = {.reason = NICD_R_CONNECT};
	struct stream_waiter *waiter = NULL;

	if (s && (!same_terms(s, terms) || s->state > STREAM_OPEN))
		error.reason = NICD_R_DEVICE_BUSY;
	else if (!engine->closing && (waiter = calloc(1, sizeof(*waiter))) && !s)
		s = connect_begin(engine, terms);
	if (!waiter || !s) {
		free(waiter);
		done(userdata, &error, &nothing);
		return;
	}
	waiter->done = done;
	waiter->userdata = userdata;
	STAILQ_INSERT_TAIL(&s->waiters, waiter, next);
	if (s->state == STREAM_OPEN && !s->tell_connected)   /* asked again: the same answer */
		stream_note_connected(s, NICD_R_NONE);
}

/* NULL: *error. */
static struct soft_work *post_new(struct soft_stream *s, const struct soft_post *what, struct nicd_error *error)
{
	uint32_t max = what->operation == NIC_SEND ? 1 : NICD_TRANSFER_ENTRIES;
	struct soft_work *work = NULL;

	if (!s || s->state != STREAM_OPEN || s->ord == 0)
		nicd_refuse(error, NICD_R_QP_STATE);
	else if (what->n_entries == 0 || what->n_entries > max)
		nicd_refuse_at(error, NICD_R_TRANSFER_ENTRIES, max, what->n_entries);
	else if ((!s->out && !(s->out = calloc(s->ord, sizeof(*s->out)))) ||
		 !(work = work_new(what)))
		nicd_refuse(error, NICD_R_NO_MEMORY);
	return work;
}

static void post(struct soft_stream *s, struct soft_work *work)
{
	TAILQ_INSERT_TAIL(&s->posted, work, next);
	s->n_posted++;
	if (!s->tx.at.work)
		s->tx.at.work = work;
	engine_ready(s);
}

void soft_post(struct soft_engine *engine, uint64_t stream, const struct soft_post *what,
	       void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
	       void *userdata)
{
	struct soft_stream *s = engine_find(engine, stream);
	const struct soft_completion nothing = {0};
	struct nicd_error error = {0};
	struct soft_work *work = post_new(s, what, &error);

	if (!work) {
		done(userdata, &error, &nothing);
		return;
	}
	work_enter_mappings(s, work);
	work->done = done;
	work->userdata = userdata;
	post(s, work);
}

enum soft_turn soft_turn_of(struct soft_engine *engine, uint64_t stream, bool fence)
{
	const struct soft_stream *s = engine_find(engine, stream);

	if (!s || s->state != STREAM_OPEN)
		return SOFT_TURN_NEVER;
	return !s->tx.at.work && work_is_clear(s, fence) ? SOFT_TURN_NOW : SOFT_TURN_LATER;
}

struct soft_work *soft_turn_wait(struct soft_engine *engine, uint64_t stream, bool fence,
				 void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
				 void *userdata)
{
	struct soft_stream *s = engine_find(engine, stream);
	struct soft_work *work = work_new_turn(s, fence);

	if (!work)
		return NULL;
	work->done = done;
	work->userdata = userdata;
	post(s, work);
	return work;
}

bool soft_turn_forget(struct soft_work *turn)
{
	return work_forget_turn(turn);
}

void soft_flush(struct soft_engine *engine, uint64_t stream)
{
	struct soft_stream *s = engine_find(engine, stream);
	const struct nicd_error why = {.reason = NICD_R_FLUSHED};
	bool on_wire;

	if (!s || s->state != STREAM_OPEN)
		return;
	on_wire = work_on_wire(s) || message_is_half(s);
	work_lost(s, NICD_R_FLUSHED, 0);
	if (on_wire)
		stream_finish(s, &why);
	engine_tell(s);
}

bool soft_disconnect(struct soft_engine *engine, uint64_t stream)
{
	struct soft_stream *s = engine_find(engine, stream);

	if (!s)
		return false;
	stream_drop(s, NICD_R_FLUSHED, true);
	engine_tell(s);
	return true;
}

/* What there is to tell of it is told when it is buried. */
static void engine_hush(struct soft_stream *s)
{
	if (s->has_news)
		TAILQ_REMOVE(&s->engine->news, s, next_news);
	s->has_news = false;
}

/* Only the ends themselves: whoever revokes waits for this. The sockets are closed and the ends are told a little later, in turns. */
bool soft_engine_cut_door(struct soft_engine *engine, uint64_t serial, uint64_t until, unsigned *n)
{
	struct soft_tally *door = soft_tally_find_door(&engine->caps, serial);
	bool more;

	if (!door)
		return false;
	door->held++;
	for (unsigned i = 1; !LIST_EMPTY(&door->places) && (i % CUT_LOOK || uv_hrtime() < until); i++) {
		struct soft_stream *s = LIST_FIRST(&door->places)->stream;

		if (!LIST_EMPTY(&s->windows))   /* they go with it, and may be thousands: look at the clock behind it */
			i |= CUT_LOOK - 1;
		*n += s->state < STREAM_DRAINING;
		stream_abort(s, NICD_R_REVOKED, 0);
		engine_hush(s);
	}
	more = !LIST_EMPTY(&door->places);
	soft_tally_put(&engine->caps, door);
	return more;
}

void soft_engine_framing(struct soft_engine *engine, uint32_t fpdu, bool crc)
{
	engine->options.fpdu = fpdu;
	engine->options.crc = crc;
}

void soft_engine_reset_begin(struct soft_engine *engine)
{
	engine->reset_at = LIST_FIRST(&engine->all);
}

bool soft_engine_reset_step(struct soft_engine *engine)
{
	struct soft_stream *s = engine->reset_at;

	if (s) {
		engine->reset_at = LIST_NEXT(s, of_engine);
		stream_drop(s, NICD_R_FLUSHED, false);
	}
	return engine->reset_at;
}

void soft_engine_reset(struct soft_engine *engine)
{
	soft_engine_reset_begin(engine);
	while (soft_engine_reset_step(engine))
		;
}

/* ---- looking */

static void info_fill(const struct soft_stream *s, struct soft_stream_info *ret)
{
	*ret = (struct soft_stream_info){
		.stream = s->number, .door = s->door, .pd = s->local.pd, .connected = s->state == STREAM_OPEN,
		.posted = s->n_posted, .counters = s->counters,
	};
	memcpy(ret->peer, s->peer, sizeof(ret->peer));
}

struct soft_windows *soft_stream_windows(struct soft_engine *engine, uint64_t stream)
{
	struct soft_stream *s = engine_find(engine, stream);

	return s && s->state == STREAM_OPEN ? &s->windows : NULL;
}

bool soft_stream_info(struct soft_engine *engine, uint64_t stream, struct soft_stream_info *ret)
{
	const struct soft_stream *s = engine_find(engine, stream);

	if (s)
		info_fill(s, ret);
	return s;
}

bool soft_stream_next(struct soft_engine *engine, uint64_t after, struct soft_stream_info *ret)
{
	struct soft_stream key = {.number = after + 1};
	const struct soft_stream *s = after == UINT64_MAX ? NULL : RB_NFIND(soft_streams, &engine->streams, &key);

	if (s)
		info_fill(s, ret);
	return s;
}

void soft_engine_stats(const struct soft_engine *engine, struct soft_engine_stats *ret)
{
	const struct soft_caps *caps = &engine->caps;

	*ret = (struct soft_engine_stats){.streams = engine->n_streams, .half_open = engine->n_half_open};
	for (unsigned i = 0; i < SOFT_CAPS; i++)
		ret->caps[i] = (struct soft_cap_stats){.limit = caps->max[i], .refused = caps->refused[i]};
	ret->caps[SOFT_CAP_HALF_OPEN].now = caps->half_open;
	ret->caps[SOFT_CAP_STREAMS].now = caps->streams;
	ret->caps[SOFT_CAP_HALF_OPEN].counted = ret->caps[SOFT_CAP_STREAMS].counted = true;
}

/* ---- life */

static void options_fill(struct soft_engine_options *o)
{
	o->handshake_timeout_ms = o->handshake_timeout_ms ? o->handshake_timeout_ms : 5000;
	o->first_frame_timeout_ms = o->first_frame_timeout_ms ? o->first_frame_timeout_ms : 60000;
	o->receive_wait_ms = o->receive_wait_ms ? o->receive_wait_ms : 5000;
	o->max_ird = o->max_ird ? o->max_ird : 64;
	o->max_ord = o->max_ord ? o->max_ord : 64;
	if (o->max_ird >= MPA_NOT_NEGOTIATED)
		o->max_ird = MPA_NOT_NEGOTIATED - 1;
	if (o->max_ord >= MPA_NOT_NEGOTIATED)
		o->max_ord = MPA_NOT_NEGOTIATED - 1;
}

int soft_engine_new(struct soft_engine **ret, uv_loop_t *loop, struct soft_tags *tags, struct soft_tickets *tickets,
		    const struct soft_engine_options *options, const struct soft_engine_events *events)
{
	struct soft_engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return -ENOMEM;
	engine->rx_buffer = malloc(RX_BUFFER);
	engine->frames = calloc(TX_FRAMES, sizeof(*engine->frames));
	if (!engine->rx_buffer || !engine->frames) {
		soft_engine_free(engine);
		return -ENOMEM;
	}
	engine->loop = loop;
	engine->tags = tags;
	engine->tickets = tickets;
	engine->options = *options;
	engine->events = *events;
	options_fill(&engine->options);
	soft_caps_init(&engine->caps);
	if (options->max_half_open)
		engine->caps.max[SOFT_CAP_HALF_OPEN] = options->max_half_open;
	RB_INIT(&engine->streams);
	TAILQ_INIT(&engine->ready);
	TAILQ_INIT(&engine->news);
	TAILQ_INIT(&engine->strangers);
	STAILQ_INIT(&engine->graves);
	uv_prepare_init(loop, &engine->prepare);
	uv_check_init(loop, &engine->check);
	uv_timer_init(loop, &engine->dusk);
	uv_idle_init(loop, &engine->idle);
	uv_timer_init(loop, &engine->accept_again);
	message_engine_init(engine);
	engine->prepare.data = engine->check.data = engine->dusk.data = engine->idle.data = engine->accept_again.data = engine;
	engine->handles = 6;
	uv_prepare_start(&engine->prepare, on_prepare);
	uv_check_start(&engine->check, on_check);
	uv_unref((uv_handle_t *)&engine->prepare);
	uv_unref((uv_handle_t *)&engine->check);
	uv_unref((uv_handle_t *)&engine->idle);
	*ret = engine;
	return 0;
}

void engine_stream_freed(struct soft_engine *engine)
{
	void (*closed)(void *userdata) = engine->closed;

	if (!engine->closing || engine->handles || !LIST_EMPTY(&engine->all) || !closed)
		return;
	engine->closed = NULL;
	closed(engine->closed_userdata);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct soft_engine *engine = handle->data;

	engine->handles--;
	engine_stream_freed(engine);
}

void soft_engine_close(struct soft_engine *engine, void (*closed)(void *userdata), void *userdata)
{
	engine->closing = true;
	engine->closed = closed;
	engine->closed_userdata = userdata;
	soft_engine_reset(engine);
	engine->buries = true;
	while (has_turns(engine))
		engine_step(engine);
	engine_unlisten(engine);
	uv_close((uv_handle_t *)&engine->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&engine->check, on_handle_closed);
	uv_close((uv_handle_t *)&engine->dusk, on_handle_closed);
	uv_close((uv_handle_t *)&engine->idle, on_handle_closed);
	uv_close((uv_handle_t *)&engine->accept_again, on_handle_closed);
	uv_close((uv_handle_t *)&engine->stall_timer, on_handle_closed);
}

void soft_engine_free(struct soft_engine *engine)
{
	if (!engine)
		return;
	assert(engine->handles == 0 && LIST_EMPTY(&engine->all));
	free(engine->rx_buffer);
	free(engine->tx_buffer);
	free(engine->frames);
	free(engine);
}
