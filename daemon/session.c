/* SPDX-License-Identifier: MIT */
/*
 * struct session: a socket with a client behind it. Owned by struct sessions; made by session_accept, freed when its
 * handles are closed and the client says that all it held is gone. What goes through the socket is in session-io.c;
 * this file is about its life.
 *
 * Nothing here waits, and what ends is released in pieces, for a share of each turn, in turns of its account.
 */
#include "daemon/session-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/log.h"
#include "daemon/util.h"
#include "proto/nicd.pb-c.h"
#include "proto/secret.h"

enum {
	RELEASE_NS = 200000,        /* for all that are being released */
	RELEASE_CHUNK = 16,
	ADMINS_MORE = 16,           /* sessions of admins above the maximum */
	STALL_MS = 30000,           /* where the terms do not say */
	HELLO_MS = 10000,
	ENDLESS = 1 << 30,          /* no window: a piece is released at once */
	FATAL_FIELD = 4,            /* of nicd.Frame */
};

/* ---- from the clients */

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
	const struct session *session = client->userdata;
	_cleanup_fd_ int asked = session->pidfd < 0 && session->fd >= 0 ? identity_pidfd(session->fd) : -1;

	return identity_alive(session->pidfd >= 0 ? session->pidfd : asked);
}

void session_log(const struct session *session, int priority, const char *what)
{
	const struct client *client = session->client;
	struct log_client who = { .pid = client->identity.pid, .uid = client->identity.uid, .session = client->serial };

	log_client(priority, &who, "%s (%s%s%s)", what, client->identity.account, client->label[0] ? ", " : "", client->label);
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
	 * With packets left in it the close would reset the connection, and the peer would see that before our last
	 * words. An empty packet reads as the end does, but that it came with credentials, for which there is no room.
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
	sessions->descriptors->pidfds -= session->pidfd >= 0;
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
void session_end(struct session *session, const char *why)
{
	struct sessions *sessions = session->sessions;

	if (session->state >= SESSION_RELEASING)
		return;
	session_log(session, LOG_DEBUG, why);
	/* Replies that were ready when the end came still go, if the socket takes them. */
	if (session->state == SESSION_OPEN)
		(void)frame_flush(&session->client->out, session->fd);
	session_forget(session);
	session->state = SESSION_RELEASING;
	TAILQ_REMOVE(&sessions->open, session, of_list);
	nic_fair_add(&sessions->releasing, session_turns(session, NIC_TURN_RELEASE), &session->releasing);
	sessions->n_open--;
	handle_close(session, &session->poll);
	if (session->pid_watched)
		handle_close(session, &session->pid_poll);
	uv_idle_start(&sessions->idle, on_idle);
}

/* When the client is gone; else it says so later with a wake. */
void session_free(struct session *session)
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
	struct nic_fair_item *item;

	while ((item = nic_fair_take(&sessions->releasing))) {
		struct session *session = container_of(item, struct session, releasing);
		struct nic_fair_queue *turns = session_turns(session, NIC_TURN_RELEASE);
		bool more;

		session_blame(session);
		more = client_release(session->client, RELEASE_CHUNK);
		nic_fair_leave(&sessions->releasing, turns, 0);
		if (more) {
			nic_fair_add(&sessions->releasing, turns, &session->releasing);
		} else {
			session->state = SESSION_WAITING;
			session_free(session);
		}
		if (uv_hrtime() >= until)
			return;
	}
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

/* Where the socket can be asked again, and nobody watches it, a pidfd would only cost each session a descriptor. */
static void pidfd_spare(struct session *session)
{
	_cleanup_fd_ int again = session->sessions->bind_to_pid || session->pidfd < 0 ? -1 : identity_pidfd(session->fd);

	if (again >= 0)
		session->pidfd = fd_close(session->pidfd);
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
		pidfd_spare(session);
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
	session->since_ms = uv_now(sessions->loop);
	session_greets(session);
	sessions->n_open++;
	sessions->n_all++;
	sessions->descriptors->sessions++;
	sessions->descriptors->pidfds += session->pidfd >= 0;
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

	return sessions->n_open < max && descriptors_free(sessions->descriptors, session_reserve(admin_socket) + 2 * DESCRIPTORS_PER_SESSION);
}

bool sessions_settled(struct sessions *sessions)
{
	if (!STAILQ_EMPTY(&sessions->dirty) || !TAILQ_EMPTY(&sessions->releasing.ring))
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
		.hello_ms = terms->hello_ms ? terms->hello_ms : HELLO_MS,
	};
	TAILQ_INIT(&sessions->open);
	nic_fair_init(&sessions->releasing, 1, ENDLESS, ENDLESS);
	sessions->buf = secret_map(NICD_FRAME_MAX + 1);
	if (!sessions->buf)
		return -ENOMEM;
	uv_idle_init(terms->loop, &sessions->idle);
	sessions_io_init(sessions);
	sessions->open_handles = 3;
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
	sessions->idle.data = sessions->stall.data = sessions->greeting_timer.data = sessions;
	uv_close((uv_handle_t *)&sessions->idle, on_handle_closed);
	uv_close((uv_handle_t *)&sessions->stall, on_handle_closed);
	uv_close((uv_handle_t *)&sessions->greeting_timer, on_handle_closed);
}

void sessions_deinit(struct sessions *sessions)
{
	sessions->buf = secret_unmap(sessions->buf, NICD_FRAME_MAX + 1);
}
