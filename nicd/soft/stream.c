/* SPDX-License-Identifier: MIT */
/*
 * One connection: its socket, its states and its end.
 *
 *   in:   ACCEPTING --request, ticket reserved--> ADMITTED --first frame, ticket spent--> OPEN
 *   out:  CONNECTING --> REQUESTING --reply--> CONFIRMING --first frame answered--> OPEN
 *         any failure before --> FAILED, told when the time is up
 *   end:  OPEN --> TERMINATING --all is sent--> DRAINING --peer closed, or 2 s--> CLOSED;  or at once --> CLOSED
 *
 * A stream is owned by its engine. It is freed when its libuv handles are closed and its news are told. A socket with unread
 * input is never just closed where the peer should hear something: the RST would overtake it; so we drain first.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/soft/stream.h"

bool stream_is_serving(const struct soft_stream *s)
{
	return s->state == STREAM_OPEN || s->state == STREAM_ADMITTED || s->state == STREAM_CONFIRMING;
}

/* ---- handles */

static void handle_closed(struct soft_stream *s)
{
	s->handles--;
	stream_gone(s);
}

static void on_poll_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

void stream_gone(struct soft_stream *s)
{
	struct soft_engine *engine = s->engine;

	if (s->state != STREAM_CLOSED || s->handles || s->has_news)
		return;
	if (engine->reset_at == s)
		engine->reset_at = LIST_NEXT(s, of_engine);
	LIST_REMOVE(s, of_engine);
	message_notice_drop(s);
	free(s->in);
	free(s->out);
	free(s);
	engine_stream_freed(engine);
}

static void socket_close(struct soft_stream *s)
{
	if (s->fd < 0)
		return;
	uv_close((uv_handle_t *)&s->poll, on_poll_closed);
	close(s->fd);
	s->fd = -1;
	s->polled = 0;
}

void stream_leave(struct soft_stream *s)
{
	if (s->ticket && s->spent)
		soft_ticket_left(s->engine->tickets, s->ticket);
	else if (s->ticket)
		soft_ticket_give_back(s->engine->tickets, s->ticket);
	s->ticket = NULL;
}

static void halves_stop(struct soft_stream *s)
{
	rx_stop(s);
	tx_stop(s);
}

void stream_destroy(struct soft_stream *s)
{
	if (s->state == STREAM_CLOSED)
		return;
	halves_stop(s);
	work_lost(s, NICD_R_QP_LOST, 0);
	soft_windows_drop(s->engine->tags, &s->windows);
	engine_unlist(s);
	engine_uncount(s);
	engine_unready(s);
	engine_half_open(s, false);
	s->state = STREAM_CLOSED;
	if (!s->tell_opened)
		stream_leave(s);   /* else when that is told */
	engine_bury(s);
}

/* With a reset: else the kernel would go on sending what it has, after we said that nothing more can leave. */
void stream_bury(struct soft_stream *s)
{
	const struct linger linger = {.l_onoff = 1};

	if (s->reset && s->fd >= 0)
		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	socket_close(s);
	uv_close((uv_handle_t *)&s->timer, on_poll_closed);
}

static void note_end(struct soft_stream *s, const struct nicd_error *why)
{
	if (!s->told)
		return;
	s->told = false;
	s->why = *why;
	s->tell_closed = true;
	engine_news(s);
}

void stream_note_connected(struct soft_stream *s, enum nicd_reason reason)
{
	s->tell_connected = true;
	s->connect_error.reason = reason;
	engine_news(s);
}

/* ---- ends */

static void connect_timer(struct soft_stream *s, uint64_t ms)
{
	uint64_t now = uv_now(s->engine->loop), left = s->connect_by > now ? s->connect_by - now : 0;

	stream_timer(s, ms < left ? ms : left);
}

/* The caller is told when the time is up: how fast a connect fails says nothing about what is there. */
void stream_connect_failed(struct soft_stream *s)
{
	halves_stop(s);
	socket_close(s);
	explicit_bzero(s->ticket_secret, sizeof(s->ticket_secret));
	s->state = STREAM_FAILED;
	connect_timer(s, UINT32_MAX);
}

/*
 * siw takes its socket over only after it has sent its reply, and does not look at what came in between until more comes. So a first
 * frame that is fast enough is never seen; a write of nothing, which every device takes at any time, wakes it up.
 */
void stream_confirm(struct soft_stream *s)
{
	s->state = STREAM_CONFIRMING;
	connect_timer(s, STREAM_NUDGE_MS);
	engine_ready(s);
}

void stream_abort(struct soft_stream *s, enum nicd_reason reason, int provider_error)
{
	const struct nicd_error why = {.reason = reason, .provider_error = provider_error};

	if (s->state == STREAM_CLOSED || s->state == STREAM_FAILED)
		return;
	if (s->state < STREAM_FAILED) {
		stream_connect_failed(s);
		return;
	}
	work_lost(s, NICD_R_QP_LOST, provider_error);
	note_end(s, s->state == STREAM_TERMINATING ? &s->why : &why);
	s->reset = true;
	stream_destroy(s);
}

static void on_timer(uv_timer_t *timer)
{
	struct soft_stream *s = timer->data;

	if (s->state == STREAM_CONFIRMING && uv_now(s->engine->loop) < s->connect_by) {
		s->nudges++;
		engine_ready(s);
		connect_timer(s, STREAM_NUDGE_MS);
		return;
	}
	switch (s->state) {
	case STREAM_CONNECTING:
	case STREAM_REQUESTING:
	case STREAM_CONFIRMING:
	case STREAM_FAILED:
		stream_note_connected(s, NICD_R_CONNECT);
		stream_destroy(s);
		break;
	case STREAM_TERMINATING:
		stream_abort(s, NICD_R_QP_LOST, ETIMEDOUT);
		break;
	default:
		stream_destroy(s);
		break;
	}
}

void stream_timer(struct soft_stream *s, uint32_t ms)
{
	uv_timer_start(&s->timer, on_timer, ms, 0);
}

/* Own payload that is half out cannot be finished once its work request has ended. */
static bool half_is_own(const struct soft_stream *s)
{
	return s->tx.half_size && s->tx.half.work && s->tx.half.payload;
}

static void begin_end(struct soft_stream *s, const struct nicd_error *why)
{
	bool own = half_is_own(s);

	rx_stop(s);
	work_lost(s, NICD_R_QP_LOST, 0);
	if (own || s->state != STREAM_OPEN) {
		stream_abort(s, why->reason, why->provider_error);
		return;
	}
	s->why = *why;
	s->state = STREAM_TERMINATING;
	stream_timer(s, STREAM_TERMINATE_MS);
	engine_ready(s);
}

void stream_terminate(struct soft_stream *s, const struct rdmap_terminate *terminate, enum nicd_reason reason)
{
	const struct nicd_error why = {.reason = reason, .observed = terminate->code};

	if (!stream_is_serving(s))
		return;
	s->tx.must_terminate = true;
	s->tx.terminate = *terminate;
	begin_end(s, &why);
}

void stream_finish(struct soft_stream *s, const struct nicd_error *why)
{
	if (stream_is_serving(s))
		begin_end(s, why);
}

void stream_shutdown(struct soft_stream *s)
{
	shutdown(s->fd, SHUT_WR);
	note_end(s, &s->why);
	engine_unlist(s);
	tx_stop(s);
	soft_windows_drop(s->engine->tags, &s->windows);
	s->state = STREAM_DRAINING;
	stream_timer(s, STREAM_DRAIN_MS);
	stream_poll(s);
}

void stream_eof(struct soft_stream *s)
{
	const struct stream_rx *rx = &s->rx;
	bool amid = rx->left || rx->skip || rx->rest_len || rx->in_message;
	struct nicd_error why = {.reason = amid || s->n_posted ? NICD_R_QP_LOST : NICD_R_PEER_CLOSED};

	if (s->state < STREAM_FAILED) {
		stream_connect_failed(s);
		return;
	}
	message_lost(s, &why);
	work_lost(s, NICD_R_QP_LOST, 0);
	note_end(s, s->state == STREAM_TERMINATING ? &s->why : &why);
	stream_destroy(s);
}

void stream_drop(struct soft_stream *s, enum nicd_reason reason, bool graceful)
{
	const struct nicd_error why = {.reason = reason};
	bool own = half_is_own(s);

	work_lost(s, reason, 0);
	s->told = s->tell_opened = s->tell_closed = false;
	soft_windows_drop(s->engine->tags, &s->windows);
	if (s->state == STREAM_CLOSED) {
		stream_leave(s);   /* nobody is told any more that it had opened */
	} else if (s->state <= STREAM_FAILED) {
		stream_note_connected(s, NICD_R_CONNECT);
		stream_destroy(s);
	} else if (graceful && !own && s->state == STREAM_OPEN && !(s->tx.half_size && s->tx.half.payload)) {
		engine_unlist(s);
		stream_leave(s);
		s->in_tail = s->tx.at.in_head;
		stream_finish(s, &why);
	} else if (s->state < STREAM_DRAINING || !graceful) {
		stream_abort(s, reason, 0);
	}
}

/* ---- sockets */

static void on_poll(uv_poll_t *poll, int status, int events);

void stream_poll(struct soft_stream *s)
{
	int events = s->rx.stalled ? 0 : UV_READABLE;

	if (s->fd < 0)
		return;
	if (s->state == STREAM_CONNECTING)
		events = UV_WRITABLE;
	else if (s->tx.blocked)
		events |= UV_WRITABLE;
	if (events != s->polled && uv_poll_start(&s->poll, events, on_poll) == 0)
		s->polled = events;
}

static void socket_options(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 10},
		{IPPROTO_TCP, TCP_KEEPINTVL, 5},
		{IPPROTO_TCP, TCP_KEEPCNT, 4},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, 30000},
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

/* Takes fd. */
static int socket_take(struct soft_stream *s, int fd)
{
	int r = uv_poll_init(s->engine->loop, &s->poll, fd);

	if (r < 0) {
		close(fd);
		return r;
	}
	s->poll.data = s;
	s->handles++;
	s->fd = fd;
	socket_options(fd);
	return 0;
}

static bool addr_is_loopback(const struct sockaddr_storage *addr)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;

	if (addr->ss_family == AF_INET)
		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

/* Both ends on this host: the same address, or 127/8. */
static bool is_local(int fd, const struct sockaddr_storage *peer)
{
	struct sockaddr_storage own = {0};
	socklen_t len = sizeof(own);

	if (addr_is_loopback(peer))
		return true;
	if (getsockname(fd, (struct sockaddr *)&own, &len) < 0 || own.ss_family != peer->ss_family)
		return false;
	if (own.ss_family == AF_INET)
		return ((struct sockaddr_in *)&own)->sin_addr.s_addr == ((const struct sockaddr_in *)peer)->sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&((struct sockaddr_in6 *)&own)->sin6_addr,
				  &((const struct sockaddr_in6 *)peer)->sin6_addr);
}

static uint32_t segment_of(uint32_t fpdu)
{
	uint32_t overhead = FPDU_LENGTH_SIZE + DDP_TAGGED_SIZE + FPDU_CRC_SIZE;
	uint32_t n = fpdu < 128 ? 128 : fpdu;

	n = (n & ~3u) - overhead;
	return n > STREAM_SEGMENT_MAX ? STREAM_SEGMENT_MAX : n;
}

void stream_refresh_mss(struct soft_stream *s)
{
	uint64_t now = uv_now(s->engine->loop);
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (s->mss_read && now - s->mss_read < 1000)
		return;
	if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_snd_mss)
		s->segment = segment_of(info.tcpi_snd_mss);
	s->mss_read = now ? now : 1;
}

/* Large frames where nothing in between cares; else one TCP segment each, as RNICs want them. */
void stream_segment_init(struct soft_stream *s)
{
	uint32_t fpdu = s->engine->options.fpdu;

	s->by_mss = fpdu == SOFT_FPDU_MSS || (!fpdu && !is_local(s->fd, &s->addr));
	s->segment = segment_of(s->by_mss ? 1448 : fpdu ? fpdu : FPDU_MAX);
}

/* The peer has said that it takes them, and that we do is what it knows: what is in between does not care. A fixed size stays. */
void stream_segment_enlarge(struct soft_stream *s)
{
	if (!s->by_mss)
		return;
	s->by_mss = false;
	s->segment = segment_of(FPDU_MAX);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct soft_stream *s = poll->data;

	if (s->state == STREAM_CLOSED) {
		uv_poll_stop(poll);
	} else if (s->state == STREAM_CONNECTING) {
		stream_tcp_connected(s);
	} else if (status < 0) {
		/* The socket has an error; what the peer said before it is still there. */
		s->polled = 0;
		s->broken = true;
		engine_readable(s);
	} else if (events & UV_READABLE) {
		engine_readable(s);
	} else {
		engine_ready(s);
	}
}

/* ---- beginnings */

struct soft_stream *stream_new(struct soft_engine *engine, uint64_t number, bool inbound)
{
	struct soft_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->engine = engine;
	s->number = number;
	s->inbound = inbound;
	s->fd = -1;
	s->state = inbound ? STREAM_ACCEPTING : STREAM_CONNECTING;
	s->remote.by_grant = true;   /* nothing but its windows, until a ticket says more */
	s->remote.stream = number;
	LIST_INIT(&s->windows);
	STAILQ_INIT(&s->waiters);
	TAILQ_INIT(&s->posted);
	TAILQ_INIT(&s->ended);
	message_init(s);
	rx_init(s);
	tx_init(s);
	uv_timer_init(engine->loop, &s->timer);
	s->timer.data = s;
	s->handles = 1;
	LIST_INSERT_HEAD(&engine->all, s, of_engine);
	return s;
}

int stream_accept(struct soft_engine *engine, int fd)
{
	struct soft_stream *s = stream_new(engine, ++engine->last_inbound | UINT64_C(1) << 63, true);
	socklen_t len = sizeof(s->addr);
	int r;

	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	r = socket_take(s, fd);
	if (r < 0 || getpeername(s->fd, (struct sockaddr *)&s->addr, &len) < 0) {
		stream_destroy(s);
		return r;
	}
	s->by_address = soft_tally_of_address(&engine->caps, &s->addr);
	if (!s->by_address) {
		stream_destroy(s);
		return -ENOMEM;
	}
	locator_addr_print(&s->addr, s->peer);
	engine_stranger(s, true);
	engine_half_open(s, true);
	stream_segment_init(s);
	stream_timer(s, engine->options.handshake_timeout_ms);
	stream_poll(s);
	return 0;
}

static socklen_t addr_len(const struct sockaddr_storage *addr)
{
	return addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

void stream_connect(struct soft_stream *s, uint32_t timeout_ms)
{
	int fd = -1;

	uv_update_time(s->engine->loop);
	s->connect_by = uv_now(s->engine->loop) + timeout_ms;
	stream_timer(s, timeout_ms);
	if (s->addr.ss_family == AF_INET || s->addr.ss_family == AF_INET6)
		fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || socket_take(s, fd) < 0) {
		stream_connect_failed(s);
		return;
	}
	locator_addr_print(&s->addr, s->peer);
	if (connect(fd, (const struct sockaddr *)&s->addr, addr_len(&s->addr)) < 0 && errno != EINPROGRESS) {
		stream_connect_failed(s);
		return;
	}
	stream_poll(s);
}
