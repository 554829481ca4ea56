/* SPDX-License-Identifier: MIT */
/*
 * The session's life and its socket. Made without a socket by conn_new, given one by nicd_open, lost once: by the end of
 * the socket, by a Fatal, or because what comes is not what nicd says. Then all calls under way end with the reason kept in
 * n->loss, and every new one gets -ENOTCONN. The struct stays until nicd_free.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "client/conn.h"
#include "client/pages.h"

enum {
	/* A page of a listing holds many more messages than a frame of requests. */
	CONN_ARENA = 4 * 1024 * 1024,
	CONN_ALLOCS = 65536,
	CONN_IN = NICD_FRAME_MAX + 1,
	CONN_PACKETS = 64,   /* read at a time before callbacks get their turn */
};

/* ----------------------------------------------------------------------------------------------------------------- life */

int conn_new(struct nicd **ret)
{
	struct nicd *n = calloc(1, sizeof(*n));
	int r = 0;

	if (!n)
		return -ENOMEM;
	n->fd = -1;
	frame_out_init(&n->out);
	TAILQ_INIT(&n->deferred);
	TAILQ_INIT(&n->ready);
	TAILQ_INIT(&n->spare);
	TAILQ_INIT(&n->objects);
	RB_INIT(&n->ids);
	LIST_INIT(&n->pages);
	n->alive = mmap(NULL, NICD_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (n->alive == MAP_FAILED || madvise(n->alive, NICD_PAGE, MADV_WIPEONFORK) < 0)
		r = -errno;
	n->in = malloc(CONN_IN);
	if (r < 0 || !n->in || arena_init(&n->arena, CONN_ARENA, CONN_ALLOCS) < 0) {
		conn_free(n);
		return r < 0 ? r : -ENOMEM;
	}
	*n->alive = 1;
	*ret = n;
	return 0;
}

/* Handles refer to each other: each lets go of the others while all are still there. */
static void conn_free_objects(struct nicd *n)
{
	struct object *object;

	TAILQ_FOREACH(object, &n->objects, of_session)
		object->refs++;
	TAILQ_FOREACH(object, &n->objects, of_session) {
		if (object->fini)
			object->fini(object);
		object_unref(object->parent);
	}
	while ((object = TAILQ_FIRST(&n->objects))) {
		TAILQ_REMOVE(&n->objects, object, of_session);
		free(object->why);
		free(object);
	}
}

static void conn_free_calls(struct nicd *n)
{
	struct call *call;

	for (uint32_t i = 0; n->calls.slots && i <= n->calls.mask; i++)
		if (n->calls.slots[i])
			call_free(n->calls.slots[i]);
	call_table_deinit(&n->calls);
	while ((call = TAILQ_FIRST(&n->deferred))) {
		TAILQ_REMOVE(&n->deferred, call, next);
		call_free(call);
	}
	while ((call = TAILQ_FIRST(&n->ready))) {
		TAILQ_REMOVE(&n->ready, call, next);
		call_free(call);
	}
	while ((call = TAILQ_FIRST(&n->spare))) {
		TAILQ_REMOVE(&n->spare, call, next);
		free(call);
	}
}

static void conn_free_adapters(struct nicd *n)
{
	for (unsigned i = 0; i < n->n_adapters; i++) {
		free((char *)n->adapters[i].info.name);
		free((char *)n->adapters[i].info.provider);
		free((char *)n->adapters[i].info.data_address);
	}
	free(n->adapters);
	free((char *)n->session.daemon);
	free((char *)n->session.account);
}

struct nicd *conn_free(struct nicd *n)
{
	if (n->fd >= 0)
		close(n->fd);
	frame_out_deinit(&n->out);
	conn_free_calls(n);
	pages_free_all(n);
	conn_free_objects(n);
	conn_free_adapters(n);
	arena_deinit(&n->arena);
	free(n->in);
	if (n->alive && n->alive != MAP_FAILED)
		munmap(n->alive, NICD_PAGE);
	free(n);
	return NULL;
}

void conn_lose(struct nicd *n, const struct nicd_error_info *why)
{
	if (n->lost)
		return;
	n->lost = true;
	n->loss = *why;
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
	frame_out_deinit(&n->out);
	if (n->log && !n->freeing) {
		char text[1024];

		nicd_error_print(why, text, sizeof(text));
		n->log(n->log_userdata, LOG_ERR, text);
	}
	call_abort(n);
}

static void conn_lose_local(struct nicd *n, enum error_local which)
{
	struct nicd_error_info why;

	error_local(&why, which, 0, 0);
	/* To those under way it is all the same: no answer will come. */
	why.error = -ECONNRESET;
	conn_lose(n, &why);
}

static void conn_lose_system(struct nicd *n, int err)
{
	struct nicd_error_info why;

	error_system(&why, err, "nicd's socket", "open a new session with nicd_open()");
	why.error = -ECONNRESET;
	conn_lose(n, &why);
}

/* --------------------------------------------------------------------------------------------------------------- errors */

int conn_fail(struct nicd *n, enum error_local which, uint64_t limit, uint64_t observed)
{
	return error_local(&n->error, which, limit, observed);
}

int conn_refuse(struct nicd *n, enum nicd_reason reason, uint64_t limit, uint64_t observed)
{
	const struct nicd_error error = { .reason = reason, .limit = limit, .observed = observed };

	return error_reason(&n->error, &error);
}

int conn_fail_system(struct nicd *n, int err, const char *what, const char *cure)
{
	return error_system(&n->error, err, what, cure);
}

int conn_check(struct nicd *n)
{
	if (conn_forked(n))
		return conn_fail(n, ERROR_FORKED, 0, 0);
	if (n->lost)
		return conn_fail(n, ERROR_NOT_CONNECTED, 0, 0);
	return 0;
}

int conn_check_ret(struct nicd *n, const void *ret)
{
	int r = conn_check(n);

	return r < 0 || ret ? r : conn_fail(n, ERROR_ARGUMENT, 0, 0);
}

/* -------------------------------------------------------------------------------------------------------------- traffic */

void conn_output(struct nicd *n)
{
	int r;

	if (n->lost || frame_out_empty(&n->out))
		return;
	r = frame_flush(&n->out, n->fd);
	/* What nicd said last, perhaps a Fatal, is still to be read: the end of the socket is found there. */
	if (r < 0 && r != -EAGAIN && r != -EPIPE && r != -ECONNRESET)
		conn_lose_system(n, -r);
	else if (r == -EPIPE || r == -ECONNRESET)
		frame_out_deinit(&n->out);
}

/* false: it makes no sense. */
static bool conn_frame(struct nicd *n, const Nicd__Frame *frame)
{
	if (frame->n_requests > 0)
		return false;
	for (size_t i = 0; i < frame->n_replies; i++)
		if (!call_reply(n, frame->replies[i]))
			return false;
	for (size_t i = 0; i < frame->n_events; i++)
		call_event(n, frame->events[i]);
	return true;
}

static void conn_packet(struct nicd *n, const struct wire_packet *packet)
{
	Nicd__Frame *frame =
		(Nicd__Frame *)frame_decode(&nicd__frame__descriptor, &n->arena, packet->data, packet->len, NULL);
	bool sane = frame && conn_frame(n, frame);

	if (sane && frame->fatal) {
		struct nicd_error_info why;

		error_fatal(&why, frame->fatal);
		conn_lose(n, &why);
	}
	if (!sane)
		conn_lose_local(n, ERROR_NOT_NICD);
	arena_reset(&n->arena);
	call_release(n);
}

unsigned conn_input(struct nicd *n, unsigned max)
{
	unsigned packets = 0;

	while (!n->lost && packets < max) {
		struct wire_packet packet;

		switch (wire_recv(n->fd, n->in, CONN_IN, &packet)) {
		case WIRE_PACKET:
			packets++;
			conn_packet(n, &packet);
			wire_release(&packet);   /* nicd sends no descriptors */
			break;
		case WIRE_AGAIN:
			return packets;
		case WIRE_END:
			/*
			 * The kernel tells of a reset before it hands out what came earlier, perhaps a Fatal: ask once more.
			 */
			if (n->ended)
				conn_lose_local(n, ERROR_CONNECTION_LOST);
			n->ended = true;
			break;
		case WIRE_TOO_BIG:
		case WIRE_FDS:
			conn_lose_local(n, ERROR_NOT_NICD);
			break;
		case WIRE_ERROR:
			conn_lose_system(n, errno);
			break;
		}
	}
	return packets;
}

static int64_t conn_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Milliseconds left of `timeout_ms` since `start`; -1 stays. */
static int conn_left_ms(int64_t start, int timeout_ms)
{
	int64_t left;

	if (timeout_ms < 0)
		return -1;
	left = start + timeout_ms - conn_now_ms();
	return left > 0 ? (int)left : 0;
}

/* 1: the socket is ready; 0: time is up; -EINTR. */
static int conn_poll(struct nicd *n, int timeout_ms)
{
	struct pollfd p = { .fd = n->fd, .events = (short)nicd_get_events(n) };
	int r = poll(&p, 1, timeout_ms);

	return r < 0 ? -errno : r;
}

int conn_wait(struct nicd *n, const struct call *call, int timeout_ms)
{
	int64_t start = timeout_ms < 0 ? 0 : conn_now_ms();

	conn_output(n);
	while (call->stage != CALL_READY) {
		int r;

		if (conn_input(n, 1) > 0 || n->lost) {
			/* Requests that waited for this answer may go now. */
			conn_output(n);
			continue;
		}
		r = conn_poll(n, conn_left_ms(start, timeout_ms));
		if (r == 0)
			return -ETIMEDOUT;
		conn_output(n);
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------------ for the caller's loop */

int conn_deliver(struct nicd *n)
{
	int delivered = 0;

	n->calling = true;
	/* Those that become ready meanwhile wait for the next turn. */
	for (unsigned count = n->n_ready; count > 0 && n->n_ready > 0; count--) {
		const struct call *call = TAILQ_FIRST(&n->ready);

		delivered += call->cb != NULL || n->event != NULL;
		call_deliver(TAILQ_FIRST(&n->ready));
		if (n->freeing) {
			conn_free(n);
			return -ECANCELED;
		}
	}
	n->calling = false;
	return delivered;
}

/* Waits until callbacks are ready, or the connection is lost. */
static int conn_turn(struct nicd *n, int timeout_ms)
{
	int64_t start = timeout_ms <= 0 ? 0 : conn_now_ms();

	for (;;) {
		int r;

		conn_output(n);
		conn_input(n, CONN_PACKETS);
		if (n->n_ready > 0 || n->lost)
			return 0;
		r = conn_poll(n, conn_left_ms(start, timeout_ms));
		if (r <= 0)
			return r;
	}
}

NICD_API int nicd_dispatch(struct nicd *n, int timeout_ms)
{
	int delivered;

	if (conn_forked(n))
		return conn_fail(n, ERROR_FORKED, 0, 0);
	if (n->calling)
		return conn_fail(n, ERROR_IN_CALLBACK, 0, 0);
	if (!n->lost) {
		int r = conn_turn(n, timeout_ms);

		if (r < 0)
			return r == -EINTR ? r : conn_fail_system(n, -r, "poll", "");
	}
	if (n->lost && n->n_ready == 0)
		return conn_fail(n, ERROR_NOT_CONNECTED, 0, 0);
	delivered = conn_deliver(n);
	/* What the callbacks asked for. */
	if (delivered >= 0)
		conn_output(n);
	return delivered;
}

NICD_API int nicd_flush(struct nicd *n)
{
	int r = conn_check(n);

	if (r < 0)
		return r;
	conn_output(n);
	return n->lost ? conn_fail(n, ERROR_NOT_CONNECTED, 0, 0) : 0;
}

NICD_API int nicd_get_fd(struct nicd *n)
{
	return n->fd;
}

NICD_API int nicd_get_events(struct nicd *n)
{
	return frame_out_empty(&n->out) ? POLLIN : POLLIN | POLLOUT;
}

NICD_API int nicd_get_timeout(struct nicd *n)
{
	return n->n_ready > 0 || n->lost ? 0 : -1;
}

/* ------------------------------------------------------------------------------------------------------- random numbers */

uint64_t conn_random(struct nicd *n)
{
	if (n->n_random == 0) {
		/* 256 bytes at once never fail, once the kernel's pool is initialised; before that it blocks. */
		while (getrandom(n->random, sizeof(n->random), 0) != (ssize_t)sizeof(n->random))
			;
		n->n_random = sizeof(n->random) / sizeof(n->random[0]);
	}
	return n->random[--n->n_random];
}
