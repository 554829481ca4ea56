/* SPDX-License-Identifier: MIT */
/*
 * The device: made once per process, driven by one controller after the other, closed with the process. It owns tags, tickets, engine and the
 * requests that are answered later (command.c runs them). An orphaned request is owned by the callback that will end it.
 */
#include "nicd/soft/device-private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum { DROP_NS = 300000 };

static int pending_compare(const struct soft_pending *a, const struct soft_pending *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}
RB_GENERATE_INTERNAL(soft_pendings, soft_pending, by_id, pending_compare, static __attribute__((unused)))

uint64_t soft_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Without randomness there are no tokens; the kernel's never fails once it has started. */
static void random_bytes(void *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = getrandom((char *)buf + done, len - done, 0);

		if (n < 0 && errno != EINTR)
			abort();
		if (n > 0)
			done += (size_t)n;
	}
}

/* Never 0, which in a lookup means none. */
static uint64_t draw_incarnation(void)
{
	uint64_t incarnation = 0;

	while (incarnation == 0)
		random_bytes(&incarnation, sizeof(incarnation));
	return incarnation;
}

struct soft_pending *soft_pending_new(struct soft_device *device, uint32_t id)
{
	struct soft_pending *pending = calloc(1, sizeof(*pending));

	if (!pending)
		return NULL;
	pending->device = device;
	pending->id = id;
	RB_INSERT(soft_pendings, &device->pendings, pending);
	return pending;
}

void soft_pending_answer(struct soft_pending *pending, Soft__Reply *reply)
{
	struct soft_device *device = pending->device;
	bool orphan = pending->orphan;

	reply->id = pending->id;
	if (!orphan)
		RB_REMOVE(soft_pendings, &device->pendings, pending);
	free(pending);
	if (!orphan)
		device->hooks.answer(device->hooks.userdata, reply);
}

bool soft_device_in_flight(const struct soft_device *device, uint32_t id)
{
	struct soft_pending key = {.id = id};

	return RB_FIND(soft_pendings, (struct soft_pendings *)&device->pendings, &key) != NULL;
}

void soft_reply_refuse(Soft__Reply *reply, const struct nicd_error *err)
{
	reply->reason = err->reason;
	reply->limit = err->limit;
	reply->observed = err->observed;
	reply->provider_error = err->provider_error;
}

void soft_counters_put(Soft__Stream *stream, const struct nic_counters *counters)
{
	stream->bytes_read = counters->bytes_read;
	stream->bytes_written = counters->bytes_written;
	stream->peer_read = counters->peer_read;
	stream->peer_written = counters->peer_written;
}

static void tell(struct soft_device *device, const Soft__Event *event)
{
	if (device->controlled)
		device->hooks.event(device->hooks.userdata, event);
}

static void on_opened(void *userdata, uint64_t stream, const struct soft_ticket *ticket, const char *peer)
{
	struct soft_device *device = userdata;
	struct soft_ticket *mine = soft_ticket_find(device->tickets, ticket->serial);
	Soft__Event event = SOFT__EVENT__INIT;

	event.kind = SOFT__EVENT__KIND__STREAM_OPENED;
	event.stream = stream;
	event.door = ticket->serial;
	event.peer = (char *)peer;
	tell(device, &event);
	/* Handshakes that still hold a use may give it back, so they keep the door from being spent. */
	if (!mine || mine->spent_told || mine->uses_left > 0 || mine->reserved > 0)
		return;
	mine->spent_told = true;
	event = (Soft__Event)SOFT__EVENT__INIT;
	event.kind = SOFT__EVENT__KIND__DOOR_SPENT;
	event.door = mine->serial;
	tell(device, &event);
}

static void on_closed(void *userdata, uint64_t stream, const struct nicd_error *why, const struct nic_counters *counters)
{
	struct soft_device *device = userdata;
	Soft__Event event = SOFT__EVENT__INIT;
	Soft__Stream sums = SOFT__STREAM__INIT;

	sums.stream = stream;
	soft_counters_put(&sums, counters);
	event.kind = SOFT__EVENT__KIND__STREAM_CLOSED;
	event.stream = stream;
	event.reason = why ? why->reason : NICD_R_NONE;
	event.counters = &sums;
	tell(device, &event);
}

static void on_notified(void *userdata, uint64_t stream, uint64_t door, uint64_t count)
{
	Soft__Event event = SOFT__EVENT__INIT;

	event.kind = SOFT__EVENT__KIND__NOTIFIED;
	event.stream = stream;
	event.door = door;
	event.count = count;
	tell(userdata, &event);
}

bool soft_device_notice(struct soft_device *device)
{
	return device->controlled && soft_engine_notices(device->engine, 1) > 0;
}

static void on_invalidated(void *userdata, uint64_t stream, uint64_t tag, uint32_t generation)
{
	Soft__Event event = SOFT__EVENT__INIT;

	event.kind = SOFT__EVENT__KIND__REMOTE_INVALIDATED;
	event.stream = stream;
	event.tag = tag;
	event.generation = generation;
	tell(userdata, &event);
}

static void on_expired(void *userdata, struct soft_ticket *ticket)
{
	Soft__Event event = SOFT__EVENT__INIT;

	event.kind = SOFT__EVENT__KIND__DOOR_EXPIRED;
	event.door = ticket->serial;
	tell(userdata, &event);
}

static void on_expiry(uv_timer_t *timer)
{
	struct soft_device *device = timer->data;

	soft_tickets_expire(device->tickets, on_expired, device);
	device->expiry_ns = UINT64_MAX;
	soft_device_arm_expiry(device);
}

void soft_device_arm_expiry(struct soft_device *device)
{
	uint64_t next = soft_tickets_next_expiry(device->tickets), now;

	if (next == device->expiry_ns)
		return;
	device->expiry_ns = next;
	uv_timer_stop(&device->expiry);
	if (next == UINT64_MAX)
		return;
	now = soft_now();
	uv_update_time(device->loop);
	/* Never 0, which would be this turn's again. */
	uv_timer_start(&device->expiry, on_expiry, next > now ? (next - now) / 1000000 + 1 : 1, 0);
}

/* One thing. False: all is dropped. */
static bool drop_step(struct soft_device *device)
{
	switch (device->dropping) {
	case SOFT_DROP_TICKETS:
		if (soft_tickets_reset_step(device->tickets))
			return true;
		soft_engine_reset_begin(device->engine);
		device->dropping = SOFT_DROP_STREAMS;
		return true;
	case SOFT_DROP_STREAMS:
		if (!soft_engine_reset_step(device->engine))
			device->dropping = SOFT_DROP_TAGS;
		return true;
	case SOFT_DROP_TAGS:
		return soft_tags_reset_step(device->tags);
	case SOFT_DROP_NOTHING:
	default:
		return false;
	}
}

static void answer_hello(struct soft_device *device)
{
	struct soft_pending *pending = device->hello;
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__HelloReply hello;

	if (!pending)
		return;
	device->hello = NULL;
	device->controlled = true;
	soft_hello_put(device, &reply, &hello);
	soft_pending_answer(pending, &reply);
}

/* True: done. */
static bool drop_turn(struct soft_device *device)
{
	uint64_t until = soft_now() + DROP_NS;

	while (drop_step(device))
		if (soft_now() >= until)
			return false;
	device->dropping = SOFT_DROP_NOTHING;
	device->incarnation = draw_incarnation();
	soft_device_arm_expiry(device);
	return true;
}

/* A turn of shutting doors, or of dropping, or one piece of memory unmapped or populated, per turn of the loop, so that streams go on meanwhile. */
static void on_idle(uv_idle_t *idle)
{
	struct soft_device *device = idle->data;

	if (!STAILQ_EMPTY(&device->cuts)) {
		soft_device_cut_turn(device);
	} else if (device->dropping) {
		if (drop_turn(device))
			answer_hello(device);
	} else if (!soft_memory_step(device->tags)) {
		uv_idle_stop(idle);
	}
}

void soft_device_tidy(struct soft_device *device)
{
	uv_idle_start(&device->tidying, on_idle);
}

bool soft_device_drop(struct soft_device *device)
{
	if (!device->dropping)
		device->dropping = SOFT_DROP_TICKETS;
	soft_device_tidy(device);
	return drop_turn(device);
}

void soft_device_abandon(struct soft_device *device)
{
	Soft__Reply nobody = SOFT__REPLY__INIT;
	struct soft_pending *pending;

	while ((pending = RB_MIN(soft_pendings, &device->pendings))) {
		RB_REMOVE(soft_pendings, &device->pendings, pending);
		pending->orphan = true;
	}
	if (device->hello)
		soft_pending_answer(device->hello, &nobody);
	device->hello = NULL;
	device->controlled = false;   /* nobody is told of what ends here */
	/* One that never said Hello has made nothing, and what an earlier one left to be kept is kept. */
	if (!device->keep)
		soft_device_drop(device);
}

void soft_device_limit_mappings(struct soft_device *device, uint32_t max)
{
	soft_memories_limit(device->tags, max);
}

struct soft_engine *soft_device_engine(struct soft_device *device)
{
	return device->engine;
}

void soft_device_advertise(struct soft_device *device, const char *address)
{
	snprintf(device->data_address, sizeof(device->data_address), "%s", address);
}

int soft_device_new(struct soft_device **ret, uv_loop_t *loop, const struct soft_device_hooks *hooks)
{
	struct soft_device *device = calloc(1, sizeof(*device));
	struct soft_engine_events events = {
		.opened = on_opened, .closed = on_closed, .notified = on_notified, .invalidated = on_invalidated, .userdata = device,
	};
	struct soft_engine_options options = {
		.max_ird = SOFT_MAX_READS, .max_ord = SOFT_MAX_READS,
	};
	int r = -ENOMEM;

	if (!device)
		return -ENOMEM;
	device->loop = loop;
	turns_init(&device->turns, soft_now());
	device->hooks = *hooks;
	device->incarnation = options.incarnation = draw_incarnation();
	device->expiry_ns = UINT64_MAX;
	RB_INIT(&device->pendings);
	RB_INIT(&device->tag_turns);
	STAILQ_INIT(&device->cuts);
	device->tags = soft_tags_new(random_bytes, soft_now);
	device->tickets = soft_tickets_new(soft_now);
	device->page = calloc(1, sizeof(*device->page));
	if (device->tags && device->tickets && device->page)
		r = soft_engine_new(&device->engine, loop, device->tags, device->tickets, &options, &events);
	if (r < 0) {
		soft_device_free(device);
		return r;
	}
	uv_timer_init(loop, &device->expiry);
	uv_idle_init(loop, &device->tidying);
	device->expiry.data = device;
	device->tidying.data = device;
	*ret = device;
	return 0;
}

static void handle_closed(struct soft_device *device)
{
	if (--device->open_handles == 0)
		device->closed(device->userdata);
}

static void on_handle_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

static void on_engine_closed(void *userdata)
{
	handle_closed(userdata);
}

void soft_device_close(struct soft_device *device, void (*closed)(void *userdata), void *userdata)
{
	device->controlled = false;
	device->closed = closed;
	device->userdata = userdata;
	device->open_handles = 3;
	soft_device_cut_all(device);
	uv_close((uv_handle_t *)&device->expiry, on_handle_closed);
	uv_close((uv_handle_t *)&device->tidying, on_handle_closed);
	soft_engine_close(device->engine, on_engine_closed, device);
}

bool soft_device_is_spent(const struct soft_device *device)
{
	return device->dropped > SOFT_DROPS;
}

void soft_device_turn_end(struct soft_device *device)
{
	device->dropped = 0;
	device->cut_until = 0;
	turns_end(&device->turns, soft_now(), uv_metrics_idle_time(device->loop), turns_cpu);
}

void soft_device_free(struct soft_device *device)
{
	if (!device)
		return;
	soft_engine_free(device->engine);
	soft_tickets_free(device->tickets);
	soft_tags_free(device->tags);
	assert(RB_EMPTY(&device->pendings));
	free(device->page);
	free(device);
}
