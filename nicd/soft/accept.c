/* SPDX-License-Identifier: MIT */
/*
 * Where peers come in: the listening sockets of an engine, and what is taken from them. A listener belongs to its engine, from
 * soft_engine_listen until the engine closes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/soft/stream.h"

enum {
	ACCEPTS_PER_TURN = 16,
	ACCEPT_AGAIN_MS = 100,
	BACKLOG = 1024,
};

/* The oldest stranger of this address, or of all, goes. */
static void stranger_evict(struct soft_engine *engine, enum soft_cap cap, const struct soft_tally *address)
{
	struct soft_stream *s;

	TAILQ_FOREACH(s, &engine->strangers, next_stranger)
		if (!address || s->by_address == address)
			break;
	if (!s)
		return;
	soft_cap_hit(&engine->caps, cap, uv_now(engine->loop), s->peer);
	stream_abort(s, NICD_R_QP_LOST, 0);
}

/* After one has come. */
static void strangers_trim(struct soft_engine *engine)
{
	const struct soft_caps *caps = &engine->caps;
	const struct soft_stream *newest = TAILQ_LAST(&engine->strangers, soft_strangers);

	if (newest && newest->by_address->half_open > caps->max[SOFT_CAP_HALF_OPEN_ADDRESS])
		stranger_evict(engine, SOFT_CAP_HALF_OPEN_ADDRESS, newest->by_address);
	else if (caps->half_open > caps->max[SOFT_CAP_HALF_OPEN])
		stranger_evict(engine, SOFT_CAP_HALF_OPEN, NULL);
}

/* The lowest free descriptor says how many there are left: the last ones are not for peers. */
static bool descriptors_left(struct soft_engine *engine, int listener)
{
	struct rlimit limit = {0};
	int fd = fcntl(listener, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return false;
	close(fd);
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return true;
	return (rlim_t)fd + engine->caps.max[SOFT_CAP_DESCRIPTORS] < limit.rlim_cur;
}

static void on_accept(uv_poll_t *poll, int status, int events);

static void on_accept_again(uv_timer_t *timer)
{
	struct soft_engine *engine = timer->data;
	struct soft_listener *l;

	LIST_FOREACH(l, &engine->listeners, next)
		uv_poll_start(&l->poll, UV_READABLE, on_accept);
}

/* Out of descriptors or memory: trying again at once would only burn the processor. */
static void accept_pause(struct soft_engine *engine)
{
	struct soft_listener *l;

	LIST_FOREACH(l, &engine->listeners, next)
		uv_poll_stop(&l->poll);
	uv_timer_start(&engine->accept_again, on_accept_again, ACCEPT_AGAIN_MS, 0);
}

/*
 * At the cap the oldest stranger goes. Were the newest kept out, a few silent connections would keep out everybody; so they only
 * keep out each other, for who has a ticket shows it at once.
 */
static void on_accept(uv_poll_t *poll, int status, int events)
{
	struct soft_listener *l = poll->data;
	struct soft_engine *engine = l->engine;
	int fd;

	if (!descriptors_left(engine, l->fd)) {
		soft_cap_hit(&engine->caps, SOFT_CAP_DESCRIPTORS, uv_now(engine->loop), "");
		accept_pause(engine);
		return;
	}
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno == EAGAIN)
			break;
		if (fd < 0 || stream_accept(engine, fd) < 0) {
			accept_pause(engine);
			break;
		}
		strangers_trim(engine);
	}
}

int soft_engine_listen_fd(struct soft_engine *engine, int fd, struct sockaddr_storage *bound)
{
	struct soft_listener *l = calloc(1, sizeof(*l));
	socklen_t len = sizeof(*bound);
	int r = l ? 0 : -ENOMEM;

	if (r == 0 && getsockname(fd, (struct sockaddr *)bound, &len) < 0)
		r = -errno;
	if (r == 0)
		r = uv_poll_init(engine->loop, &l->poll, fd);   /* makes it non-blocking */
	if (r < 0) {
		free(l);
		close(fd);
		return r;
	}
	l->engine = engine;
	l->fd = fd;
	l->poll.data = l;
	engine->handles++;
	LIST_INSERT_HEAD(&engine->listeners, l, next);
	uv_poll_start(&l->poll, UV_READABLE, on_accept);
	return 0;
}

int soft_engine_listen(struct soft_engine *engine, const struct sockaddr *addr, struct sockaddr_storage *bound)
{
	socklen_t len = addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	const int one = 1;
	int fd, r;

	if (addr->sa_family != AF_INET && addr->sa_family != AF_INET6)
		return -EAFNOSUPPORT;
	fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, addr, len) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return soft_engine_listen_fd(engine, fd, bound);
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct soft_listener *l = handle->data;
	struct soft_engine *engine = l->engine;

	free(l);
	engine->handles--;
	engine_stream_freed(engine);
}

void engine_unlisten(struct soft_engine *engine)
{
	struct soft_listener *l;

	while ((l = LIST_FIRST(&engine->listeners))) {
		LIST_REMOVE(l, next);
		uv_close((uv_handle_t *)&l->poll, on_listener_closed);
		close(l->fd);
	}
}
