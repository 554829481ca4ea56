/* SPDX-License-Identifier: MIT */
/*
 * struct session: a socket with a client behind it. Owned by struct sessions; made by session_accept, freed when its handles are closed
 * and the client says that all it held is gone.
 *
 * Nothing is sent while packets are read: whoever has something to say is put on the dirty list and served once at the end of
 * the turn, so that the replies to many packets leave in few. Nothing here waits, and each kind of work has a share of a turn.
 */
#include "daemon/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/log.h"
#include "daemon/util.h"
#include "proto/nicd.pb-c.h"

enum {
	READ_PACKETS = 32,          /* of one session in one turn */
	READ_NS = 500000,
	RELEASE_NS = 200000,        /* for all that are being released */
	RELEASE_CHUNK = 16,
	ADMINS_MORE = 16,           /* sessions of admins above the maximum */
	STALL_MS = 30000,
	FATAL_FIELD = 4,            /* of nicd.Frame */
};

enum session_state { SESSION_OPEN, SESSION_LAST_WORDS, SESSION_RELEASING, SESSION_WAITING };

struct session {
	struct sessions *sessions;
	struct client *client;
	TAILQ_ENTRY(session) of_list;
	STAILQ_ENTRY(session) of_dirty;
	enum session_state state;
	bool dirty;
	bool kicked;
	bool starved;
	bool blocked;               /* the socket takes no more */
	bool pid_watched;
	struct wire_pace pace;
	int fd, pidfd;
	int events;                 /* polled for */
	unsigned open_handles;
	uint64_t progress_ms;       /* when something was sent last */
	uv_poll_t poll;
	uv_poll_t pid_poll;         /* policy bind-to-pid */
};

static void session_end(struct session *session, const char *why);

/* Descriptors that are closed from now on are this client's. */
static void session_blame(const struct session *session)
{
	session->sessions->env->uid = session->client->identity.uid;
}

/* ---- to do at the end of the turn */

static void session_mark(struct session *session)
{
	if (session->dirty)
		return;
	session->dirty = true;
	STAILQ_INSERT_TAIL(&session->sessions->dirty, session, of_dirty);
}

static void session_unmark(struct session *session)
{
	if (!session->dirty)
		return;
	session->dirty = false;
	STAILQ_REMOVE(&session->sessions->dirty, session, session, of_dirty);
}

static void host_wake(struct client *client)
{
	session_mark(client->userdata);
}

static void host_kick(struct client *client)
{
	struct session *session = client->userdata;

	session->kicked = true;
	session_mark(session);
}

static bool host_alive(struct client *client)
{
	return identity_alive(((struct session *)client->userdata)->pidfd);
}

static void session_log(const struct session *session, int priority, const char *what)
{
	const struct client *client = session->client;
	struct log_client who = { .pid = client->identity.pid, .uid = client->identity.uid, .session = client->serial };

	log_client(priority, &who, "%s (%s%s%s)", what, client->identity.account, client->label[0] ? ", " : "", client->label);
}

/* ---- what the socket is polled for */

static void on_socket(uv_poll_t *poll, int status, int events);

static uint32_t reserve_of(bool admin)
{
	return DESCRIPTORS_RESERVE + (admin ? 0 : DESCRIPTORS_ADMINS);
}

static bool may_read(struct session *session)
{
	struct sessions *sessions = session->sessions;
	bool admin;

	if (session->state != SESSION_OPEN || !client_wants_input(session->client))
		return false;
	admin = session->client->identity.admin_socket;
	session->starved = !descriptors_free(sessions->descriptors, reserve_of(admin)) ||
			   !closer_has_room(&sessions->env->closer, session->client->identity.uid);
	sessions->starved[admin] |= session->starved;
	return !session->starved;
}

static void session_poll(struct session *session)
{
	int events = UV_DISCONNECT | (may_read(session) ? UV_READABLE : 0) | (session->blocked ? UV_WRITABLE : 0);

	if (events == session->events)
		return;
	session->events = events;
	if (uv_poll_start(&session->poll, events, on_socket) < 0)
		session_end(session, "the loop refuses to watch the socket");
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

/* Reads until nothing is there. */
static void session_read(struct session *session)
{
	unsigned max = wire_pace_begin(&session->pace, READ_PACKETS), n = 0;
	uint64_t until = 0, now;

	session_blame(session);
	while (n < max && read_packet(session)) {
		if (++n == max || !may_read(session))
			break;
		/* The clock starts behind the first packet: most often there is no other. */
		now = uv_hrtime();
		if (!until)
			until = now + READ_NS;
		else if (now >= until)
			break;
	}
	wire_pace_end(&session->pace, max, n);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct session *session = container_of(poll, struct session, poll);

	if (status < 0) {
		session_end(session, "the peer is gone with replies unread");
		return;
	}
	if (session->state == SESSION_OPEN && (events & UV_READABLE) && may_read(session))
		session_read(session);
	else if (events & UV_DISCONNECT)
		session_end(session, "closed");
	/* Also to poll for something else from now on. */
	if (session->state <= SESSION_LAST_WORDS && ((events & UV_WRITABLE) || !may_read(session)))
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

static void session_free(struct session *session);

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

/* ---- the end */

struct burial {
	uv_work_t work;
	struct sessions *sessions;
	int fd;
};

/* What was sent and never read may hold the last reference to a big memfd. */
static void burial_run(uv_work_t *work)
{
	struct burial *burial = container_of(work, struct burial, work);
	struct msghdr msg;
	int on = 1;

	/*
	 * With packets left in it the close would reset the connection, and the peer would see that before our last words. An empty packet
	 * reads as the end does, but that it came with credentials, for which there is no room.
	 */
	setsockopt(burial->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	do
		msg = (struct msghdr){ 0 };
	while (recvmsg(burial->fd, &msg, MSG_DONTWAIT | MSG_TRUNC) > 0 || (msg.msg_flags & MSG_CTRUNC));
	close(burial->fd);
}

static void burial_done(uv_work_t *work, int status)
{
	struct burial *burial = container_of(work, struct burial, work);

	burial->sessions->burying--;
	burial->sessions->env->closing--;
	free(burial);
}

/* Closes the socket on a worker: no question about what is in it has an answer that counts packets without bytes. */
static void socket_close(struct sessions *sessions, int fd)
{
	struct burial *burial = malloc(sizeof(*burial));

	shutdown(fd, SHUT_RDWR);
	if (!burial) {
		close(fd);
		return;
	}
	*burial = (struct burial){ .sessions = sessions, .fd = fd };
	sessions->burying++;
	sessions->env->closing++;
	if (uv_queue_work(sessions->loop, &burial->work, burial_run, burial_done) < 0) {
		burial_done(&burial->work, 0);
		close(fd);
	}
}

static void session_unref_handle(uv_handle_t *handle)
{
	struct session *session = handle->data;
	struct sessions *sessions = session->sessions;

	if (--session->open_handles)
		return;
	socket_close(sessions, session->fd);
	session->fd = -1;
	session->pidfd = fd_close(session->pidfd);
	sessions->descriptors->sessions--;
	if (!session->client)
		free(session);
	sessions->ended(sessions);
}

static void handle_close(struct session *session, uv_poll_t *poll)
{
	poll->data = session;
	uv_close((uv_handle_t *)poll, session_unref_handle);
}

static void on_idle(uv_idle_t *idle);

/* The socket is let go of at once, what the client held in pieces, as there is time. */
static void session_end(struct session *session, const char *why)
{
	struct sessions *sessions = session->sessions;

	if (session->state >= SESSION_RELEASING)
		return;
	session_log(session, LOG_DEBUG, why);
	/* Replies that were ready when the end came still go, if the socket takes them. */
	if (session->state == SESSION_OPEN)
		(void)frame_flush(&session->client->out, session->fd);
	blocked_set(session, false);
	session->state = SESSION_RELEASING;
	TAILQ_REMOVE(&sessions->open, session, of_list);
	TAILQ_INSERT_TAIL(&sessions->releasing, session, of_list);
	sessions->n_open--;
	handle_close(session, &session->poll);
	if (session->pid_watched)
		handle_close(session, &session->pid_poll);
	uv_idle_start(&sessions->idle, on_idle);
}

/* When the client is gone; else it says so later with a wake. */
static void session_free(struct session *session)
{
	struct sessions *sessions = session->sessions;

	if (!client_gone(session->client))
		return;
	session->client = client_free(session->client);
	session_unmark(session);
	sessions->n_all--;
	if (!session->open_handles)
		free(session);
	sessions->ended(sessions);
}

static void on_idle(uv_idle_t *idle)
{
	struct sessions *sessions = container_of(idle, struct sessions, idle);
	uint64_t until = uv_hrtime() + RELEASE_NS;
	struct session *session;

	while ((session = TAILQ_FIRST(&sessions->releasing))) {
		TAILQ_REMOVE(&sessions->releasing, session, of_list);
		session_blame(session);
		if (client_release(session->client, RELEASE_CHUNK)) {
			TAILQ_INSERT_TAIL(&sessions->releasing, session, of_list);
		} else {
			session->state = SESSION_WAITING;
			session_free(session);
		}
		if (uv_hrtime() >= until)
			return;
	}
}

/* ---- those who do not read */

static void on_stall(uv_timer_t *timer)
{
	struct sessions *sessions = container_of(timer, struct sessions, stall);
	uint64_t now = uv_now(sessions->loop), max = sessions->host->policy->max_output;
	struct session *session = TAILQ_FIRST(&sessions->open);

	while (session) {
		struct session *next = TAILQ_NEXT(session, of_list);

		if (session->blocked && session->client->out.bytes >= max && now - session->progress_ms >= sessions->stall_ms) {
			session_log(session, LOG_WARNING, "ended: it has not read its replies for too long");
			session_end(session, "stalled");
		}
		session = next;
	}
}

/* The timer runs only while somebody is blocked: an idle nicd sleeps. */
static void stall_watch(struct sessions *sessions)
{
	bool active = uv_is_active((uv_handle_t *)&sessions->stall);

	if (sessions->n_blocked && !active)
		uv_timer_start(&sessions->stall, on_stall, sessions->stall_ms / 8 + 1, sessions->stall_ms / 8 + 1);
	else if (!sessions->n_blocked && active)
		uv_timer_stop(&sessions->stall);
}

/* ---- the beginning */

/* Who may not come in learns why from the first packet, which is the last. */
static void refuse(struct sessions *sessions, int fd, const struct nicd_error *error)
{
	const struct nicd_reason_info *info = nicd_reason_info(error->reason);
	Nicd__Fatal fatal = NICD__FATAL__INIT;
	struct frame_out out;

	fatal.reason = error->reason;
	fatal.name = (char *)info->name;
	fatal.text = (char *)info->text;
	fatal.cure = (char *)info->cure;
	fatal.limit = error->limit;
	fatal.observed = error->observed;
	frame_out_init(&out);
	if (!frame_put(&out, FATAL_FIELD, &fatal.base, NULL, 0))
		(void)frame_flush(&out, fd);
	frame_out_deinit(&out);
	socket_close(sessions, fd);
}

static void on_pid_end(uv_poll_t *poll, int status, int events)
{
	session_end(container_of(poll, struct session, pid_poll), "its process has ended");
}

static int session_watch(struct session *session)
{
	struct sessions *sessions = session->sessions;
	int r = uv_poll_init(sessions->loop, &session->poll, session->fd);

	if (r < 0)
		return r;
	session->open_handles++;
	if (sessions->bind_to_pid && session->pidfd >= 0 && !uv_poll_init(sessions->loop, &session->pid_poll, session->pidfd)) {
		session->open_handles++;
		session->pid_watched = true;
		uv_poll_start(&session->pid_poll, UV_READABLE, on_pid_end);
	}
	return 0;
}

static int session_new(struct sessions *sessions, int fd, bool admin_socket, struct nicd_error *err)
{
	struct client_identity identity = { 0 };
	struct session *session = calloc(1, sizeof(*session));
	int r;

	if (!session)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	session->sessions = sessions;
	session->fd = fd;
	session->pidfd = -1;
	r = identity_get(&identity, &session->pidfd, sessions->rules, fd, admin_socket, ++sessions->n_accepted, err);
	if (!r)
		r = client_new(&session->client, sessions->host, &identity, session, err);
	if (!r && session_watch(session) < 0) {
		/* Nothing is held yet: released and gone at once. */
		(void)client_release(session->client, RELEASE_CHUNK);
		client_free(session->client);
		session_unmark(session);
		r = nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	if (r < 0) {
		struct log_client who = { .pid = identity.pid, .uid = identity.uid, .reason = nicd_reason_info(err->reason)->name };

		log_client(LOG_NOTICE, &who, "not let in: %s", nicd_reason_info(err->reason)->text);
		fd_close(session->pidfd);
		free(session);
		return r;
	}
	TAILQ_INSERT_TAIL(&sessions->open, session, of_list);
	sessions->n_open++;
	sessions->n_all++;
	sessions->descriptors->sessions++;
	session_log(session, LOG_DEBUG, "connected");
	session_poll(session);
	return 0;
}

void session_accept(struct sessions *sessions, int fd, bool admin_socket)
{
	struct nicd_error err = { 0 };

	if (session_new(sessions, fd, admin_socket, &err) < 0)
		refuse(sessions, fd, &err);
}

/* ---- all of them */

bool sessions_have_room(const struct sessions *sessions, bool admin_socket)
{
	uint32_t max = sessions->max + (admin_socket ? ADMINS_MORE : 0);

	return sessions->n_open < max && descriptors_free(sessions->descriptors, reserve_of(admin_socket) + 2 * DESCRIPTORS_PER_SESSION);
}

/* Descriptors are back: those that waited for them are read again. */
static void unstarve(struct sessions *sessions)
{
	struct session *session, *next;
	bool again = false;

	for (unsigned admin = 0; admin < 2; admin++) {
		if (sessions->starved[admin] && descriptors_free(sessions->descriptors, reserve_of(admin))) {
			sessions->starved[admin] = false;
			again = true;
		}
	}
	for (session = again ? TAILQ_FIRST(&sessions->open) : NULL; session; session = next) {
		next = TAILQ_NEXT(session, of_list);
		if (session->starved)
			session_poll(session);
	}
}

void sessions_turn(struct sessions *sessions)
{
	struct session_work now = STAILQ_HEAD_INITIALIZER(now);
	struct session *session;

	/* Those that are woken meanwhile wait for the next round. */
	STAILQ_CONCAT(&now, &sessions->dirty);
	while ((session = STAILQ_FIRST(&now))) {
		STAILQ_REMOVE_HEAD(&now, of_dirty);
		session->dirty = false;
		session_serve(session);
	}
	unstarve(sessions);
	stall_watch(sessions);
}

bool sessions_settled(struct sessions *sessions)
{
	if (!STAILQ_EMPTY(&sessions->dirty) || !TAILQ_EMPTY(&sessions->releasing))
		uv_idle_start(&sessions->idle, on_idle);
	else if (uv_is_active((uv_handle_t *)&sessions->idle))
		uv_idle_stop(&sessions->idle);
	return STAILQ_EMPTY(&sessions->dirty);
}

int sessions_init(struct sessions *sessions, const struct sessions_terms *terms)
{
	*sessions = (struct sessions){
		.loop = terms->loop,
		.host = terms->host,
		.descriptors = terms->descriptors,
		.env = terms->env,
		.rules = terms->rules,
		.max = terms->max,
		.bind_to_pid = terms->bind_to_pid,
		.stall_ms = terms->stall_ms ? terms->stall_ms : STALL_MS,
	};
	TAILQ_INIT(&sessions->open);
	TAILQ_INIT(&sessions->releasing);
	STAILQ_INIT(&sessions->dirty);
	sessions->buf = malloc(NICD_FRAME_MAX + 1);
	if (!sessions->buf)
		return -ENOMEM;
	uv_idle_init(terms->loop, &sessions->idle);
	uv_timer_init(terms->loop, &sessions->stall);
	sessions->open_handles = 2;
	terms->host->wake = host_wake;
	terms->host->kick = host_kick;
	terms->host->alive = host_alive;
	return 0;
}

void sessions_end(struct sessions *sessions)
{
	struct session *session;

	while ((session = TAILQ_FIRST(&sessions->open)))
		session_end(session, "nicd is stopping");
}

static void on_handle_closed(uv_handle_t *handle)
{
	((struct sessions *)handle->data)->open_handles--;
}

void sessions_close(struct sessions *sessions)
{
	sessions->idle.data = sessions->stall.data = sessions;
	uv_close((uv_handle_t *)&sessions->idle, on_handle_closed);
	uv_close((uv_handle_t *)&sessions->stall, on_handle_closed);
}

void sessions_deinit(struct sessions *sessions)
{
	free(sessions->buf);
	sessions->buf = NULL;
}
