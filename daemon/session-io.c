/* SPDX-License-Identifier: MIT */
/*
 * What goes through the sockets of sessions, and when. A socket with something to read only gets its session into the
 * queue of its account; once the loop has told of all of them, they are read in the order that the fair queue gives,
 * for a share of the turn. What is left then keeps its place.
 *
 * Nothing is sent while packets are read: whoever has something to say is put on the dirty list and served once at the end of
 * the turn, so that the replies to many packets leave in few; also for a share of the turn.
 *
 * Who may not be read because something that many share is used up is in the list of those that starve, and is looked
 * at again when there may be more of it.
 */
#include "daemon/session-private.h"

#include <errno.h>
#include <string.h>
#include <sys/param.h>

#include "daemon/log.h"
#include "daemon/util.h"
#include "proto/nicd.pb-c.h"

enum {
	READ_PACKETS = 32,          /* of one session before another of its account */
	READ_QUANTUM = 32,          /* requests of one account before another's turn comes */
	READ_NS = 300000,           /* of a turn of the loop, for all */
	SERVE_NS = 300000,
	STARVING_TURN = 64,         /* looked at again in one turn */
	ENDLESS = 1 << 30,          /* no window: what is read is done at once */
};

static void on_socket(uv_poll_t *poll, int status, int events);

void session_blame(const struct session *session)
{
	session->sessions->env->uid = session->client->identity.uid;
}

/* ---- to do at the end of the turn */

void session_mark(struct session *session)
{
	if (session->dirty)
		return;
	session->dirty = true;
	STAILQ_INSERT_TAIL(&session->sessions->dirty, session, of_dirty);
}

void session_unmark(struct session *session)
{
	if (!session->dirty)
		return;
	session->dirty = false;
	STAILQ_REMOVE(&session->sessions->dirty, session, session, of_dirty);
}

/* ---- what the socket is polled for */

uint32_t session_reserve(bool admin)
{
	return DESCRIPTORS_RESERVE + (admin ? 0 : DESCRIPTORS_ADMINS);
}

static void starving_set(struct session *session, bool starving)
{
	if (session->starving == starving)
		return;
	session->starving = starving;
	session->sessions->n_starving += starving ? 1 : -1u;
	if (starving)
		TAILQ_INSERT_TAIL(&session->sessions->starving, session, of_starving);
	else
		TAILQ_REMOVE(&session->sessions->starving, session, of_starving);
}

static bool may_read(struct session *session)
{
	struct sessions *sessions = session->sessions;
	bool open = session->state == SESSION_OPEN && client_wants_input(session->client);

	starving_set(session, open && (!descriptors_free(sessions->descriptors, session_reserve(session->client->identity.admin_socket)) ||
				       !closer_has_room(&sessions->env->closer, session->client->identity.uid) ||
				       client_output_is_full(session->client)));
	return open && !session->starving;
}

void session_poll(struct session *session)
{
	int events = UV_DISCONNECT | (may_read(session) ? UV_READABLE : 0) | (session->blocked ? UV_WRITABLE : 0);

	if (events == session->events)
		return;
	session->events = events;
	if (uv_poll_start(&session->poll, events, on_socket) < 0)
		session_end(session, "the loop refuses to watch the socket");
}

/* Some of what they lack may be back. A few each turn, so that many of them are in nobody's way. */
static void starving_look(struct sessions *sessions)
{
	for (uint32_t n = MIN(sessions->n_starving, (uint32_t)STARVING_TURN); n; n--) {
		struct session *session = TAILQ_FIRST(&sessions->starving);

		starving_set(session, false);
		session_poll(session);
	}
}

/* ---- in */

static void session_violated(struct session *session)
{
	session->state = SESSION_LAST_WORDS;
	session_mark(session);
}

/* One packet. False: no more for now. */
static bool read_packet(struct session *session)
{
	struct sessions *sessions = session->sessions;
	struct wire_packet packet;

	switch (wire_recv_from(session->fd, sessions->buf, NICD_FRAME_MAX + 1, &packet, &sessions->env->wire)) {
	case WIRE_PACKET:
		if (client_frame(session->client, &packet))
			return true;
		break;
	case WIRE_AGAIN:
		return false;
	case WIRE_TOO_BIG:
		client_violation(session->client, NICD_R_FRAME_TOO_BIG, NICD_FRAME_MAX, packet.len);
		break;
	case WIRE_FDS:
		if (packet.n_came > NICD_FRAME_FDS)
			client_violation(session->client, NICD_R_FRAME_FDS_TRUNCATED, NICD_FRAME_FDS, packet.n_came);
		else
			client_violation(session->client, NICD_R_FRAME_FDS_LOST, sessions->descriptors->limit, packet.n_came);
		break;
	case WIRE_END:
		session_end(session, "closed");
		return false;
	case WIRE_ERROR:
		session_end(session, strerror(errno));
		return false;
	}
	session_violated(session);
	return false;
}

/* Is the time for reading up? It begins with the first question: most often there is nothing else to read. */
static bool read_enough(struct sessions *sessions)
{
	uint64_t now = uv_hrtime();

	if (!sessions->read_until)
		sessions->read_until = now + READ_NS;
	return now >= sessions->read_until || client_host_is_spent(sessions->host);
}

/* Reads until nothing is there, or another account's turn comes. Returns what that has cost. */
static uint64_t session_read(struct session *session)
{
	struct sessions *sessions = session->sessions;
	uint32_t credit = nic_fair_credit(&sessions->reading, session_turns(session, NIC_TURN_READ));
	unsigned max = wire_pace_begin(&session->pace, READ_PACKETS), n = 0;
	uint64_t before = sessions->host->work;

	session_blame(session);
	while (n < max && read_packet(session)) {
		if (++n == max || !may_read(session) || sessions->host->work - before >= credit || read_enough(sessions))
			break;
	}
	wire_pace_end(&session->pace, max, n);
	if (session->state == SESSION_OPEN)
		session_greets(session);
	return sessions->host->work - before;
}

void sessions_read(struct sessions *sessions)
{
	struct nic_fair_item *item;

	sessions->read_until = sessions->serve_until = 0;
	client_host_turn(sessions->host);
	while ((item = nic_fair_take(&sessions->reading))) {
		struct session *session = container_of(item, struct session, reading);
		struct nic_fair_queue *turns = session_turns(session, NIC_TURN_READ);
		uint64_t cost = may_read(session) ? session_read(session) : 0;

		/* The socket tells again of what is left. */
		nic_fair_leave(&sessions->reading, turns, cost > 1 ? (uint32_t)cost - 1 : 0);
		/* Also to poll for something else from now on; who has something to say is looked at anyway. */
		if (session->state <= SESSION_LAST_WORDS && !session->dirty && !may_read(session))
			session_mark(session);
		if (!TAILQ_EMPTY(&sessions->reading.ring) && read_enough(sessions))
			return;
	}
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct session *session = container_of(poll, struct session, poll);
	struct sessions *sessions = session->sessions;

	if (status < 0) {
		session_end(session, "the peer is gone with replies unread");
		return;
	}
	/* Whether it may be read is asked when its turn comes. */
	if (session->state == SESSION_OPEN && (events & UV_READABLE)) {
		if (!session->reading.queue)
			nic_fair_add(&sessions->reading, session_turns(session, NIC_TURN_READ), &session->reading);
	} else if (events & UV_DISCONNECT) {
		session_end(session, "closed");
	}
	if (session->state <= SESSION_LAST_WORDS && (events & UV_WRITABLE))
		session_mark(session);
}

/* ---- out */

static void blocked_set(struct session *session, bool blocked)
{
	struct sessions *sessions = session->sessions;

	if (session->blocked == blocked)
		return;
	session->blocked = blocked;
	session->progress_ms = uv_now(sessions->loop);
	sessions->n_blocked += blocked ? 1 : -1u;
}

/* Sends what the socket takes. False: the session is over. */
static bool session_flush(struct session *session)
{
	struct client *client = session->client;
	size_t before;
	int r;

	client_prepare_output(client);
	before = client->out.bytes;
	r = frame_flush(&client->out, session->fd);
	if (client->out.bytes < before)
		session->progress_ms = uv_now(session->sessions->loop);
	client_flushed(client);
	blocked_set(session, r == -EAGAIN);
	if (!r || r == -EAGAIN)
		return true;
	session_end(session, "the peer is gone");
	return false;
}

static void session_serve(struct session *session)
{
	session_blame(session);
	switch (session->state) {
	case SESSION_OPEN:
		if (session->kicked)
			session_end(session, "ended by revocation");
		else if (session_flush(session) && session->client->fatal)
			session_end(session, "ended: it broke the protocol, or nicd ran out of memory");
		else if (session->state == SESSION_OPEN)
			session_poll(session);
		return;
	case SESSION_LAST_WORDS:
		if (session_flush(session))
			session_end(session, "ended: it broke the protocol");
		return;
	case SESSION_RELEASING:
		return;
	case SESSION_WAITING:
		session_free(session);
		return;
	}
}

/* Is the time for serving up? Each turn at least one gets on. */
static bool serve_enough(struct sessions *sessions)
{
	uint64_t now = uv_hrtime();

	if (!sessions->serve_until)
		sessions->serve_until = now + SERVE_NS;
	return now >= sessions->serve_until;
}

void sessions_turn(struct sessions *sessions)
{
	struct session_work now = STAILQ_HEAD_INITIALIZER(now);
	struct session *session;

	/* Those that are woken meanwhile wait for the next round. */
	STAILQ_CONCAT(&now, &sessions->dirty);
	while ((session = STAILQ_FIRST(&now)) && !(sessions->serve_until && serve_enough(sessions))) {
		STAILQ_REMOVE_HEAD(&now, of_dirty);
		session->dirty = false;
		session_serve(session);
		if (!STAILQ_EMPTY(&now))
			(void)serve_enough(sessions);
	}
	STAILQ_CONCAT(&now, &sessions->dirty);
	STAILQ_CONCAT(&sessions->dirty, &now);
	starving_look(sessions);
	sessions_watch(sessions);
}

/* ---- those who do not read, and those who say nothing */

static void on_stall(uv_timer_t *timer)
{
	struct sessions *sessions = container_of(timer, struct sessions, stall);
	uint64_t now = uv_now(sessions->loop), max = sessions->host->policy->max_output;
	struct session *session = TAILQ_FIRST(&sessions->open);

	while (session) {
		struct session *next = TAILQ_NEXT(session, of_list);

		if (session->blocked && (session->client->out.bytes >= max || client_output_is_full(session->client)) &&
		    now - session->progress_ms >= sessions->stall_ms) {
			session_log(session, LOG_WARNING, "ended: it has not read its replies for too long");
			session_end(session, "stalled");
		}
		session = next;
	}
}

/* They are in the order in which they came. */
static void greeting_set(struct session *session, bool greeting)
{
	struct sessions *sessions = session->sessions;

	if (session->greeting == greeting)
		return;
	session->greeting = greeting;
	if (greeting)
		TAILQ_INSERT_TAIL(&sessions->greeting, session, of_greeting);
	else
		TAILQ_REMOVE(&sessions->greeting, session, of_greeting);
}

void session_greets(struct session *session)
{
	greeting_set(session, session->state == SESSION_OPEN && session->client->state == CLIENT_NEW);
}

static void on_greeting(uv_timer_t *timer)
{
	struct sessions *sessions = container_of(timer, struct sessions, greeting_timer);
	uint64_t now = uv_now(sessions->loop);
	struct session *session;

	while ((session = TAILQ_FIRST(&sessions->greeting)) && now - session->since_ms >= sessions->hello_ms) {
		greeting_set(session, false);
		client_violation(session->client, NICD_R_HELLO_FIRST, sessions->hello_ms, now - session->since_ms);
		session_violated(session);
	}
}

/* The timers run only while they are about somebody: an idle nicd sleeps. */
static void watch(uv_timer_t *timer, bool needed, uv_timer_cb cb, uint64_t after_ms)
{
	bool active = uv_is_active((uv_handle_t *)timer);

	if (needed && !active)
		uv_timer_start(timer, cb, after_ms, after_ms);
	else if (!needed && active)
		uv_timer_stop(timer);
}

void sessions_watch(struct sessions *sessions)
{
	watch(&sessions->stall, sessions->n_blocked, on_stall, sessions->stall_ms / 8 + 1);
	watch(&sessions->greeting_timer, !TAILQ_EMPTY(&sessions->greeting), on_greeting, sessions->hello_ms / 8 + 1);
}

void session_forget(struct session *session)
{
	struct sessions *sessions = session->sessions;

	nic_fair_remove(&sessions->reading, &session->reading);
	starving_set(session, false);
	blocked_set(session, false);
	greeting_set(session, false);
}

void sessions_io_init(struct sessions *sessions)
{
	nic_fair_init(&sessions->reading, READ_QUANTUM, ENDLESS, ENDLESS);
	TAILQ_INIT(&sessions->starving);
	TAILQ_INIT(&sessions->greeting);
	STAILQ_INIT(&sessions->dirty);
	uv_timer_init(sessions->loop, &sessions->stall);
	uv_timer_init(sessions->loop, &sessions->greeting_timer);
}
