/* SPDX-License-Identifier: MIT */
/*
 * struct listener belongs to the daemon, which has two. Its life: init, bind or take, open (joins the loop), start/stop as
 * there is room, close.
 *
 * A path is guarded twice: by a lock file beside it, held for life, against another nicd; and by trying to connect,
 * against anybody else. Only then is a leftover socket removed.
 */
#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/util.h"

enum {
	LISTENER_BACKLOG = 1024,
	ACCEPT_TURN = 16,        /* connections in one turn of the loop */
	ACCEPT_AGAIN_MS = 100,
};

void listener_init(struct listener *listener)
{
	memset(listener, 0, sizeof(*listener));
	listener->fd = listener->lock = -1;
}

static int fail(char *message, size_t size, int r, const char *what, const char *path, const char *cure)
{
	snprintf(message, size, "%s %s: %s; %s", what, path, strerror(-r), cure);
	return r;
}

static void lock_path(char *dst, size_t size, const char *path)
{
	snprintf(dst, size, "%s.lock", path);
}

/* Whoever removes a lock file does so with the lock held: one that is not at its path any more locks nothing. */
static int lock_take(const char *path)
{
	for (;;) {
		struct stat held, there;
		int r, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &held) < 0) {
			r = -errno;
			close(fd);
			return r;
		}
		if (!stat(path, &there) && held.st_dev == there.st_dev && held.st_ino == there.st_ino)
			return fd;
		close(fd);
	}
}

static void unix_address(struct sockaddr_un *addr, const char *path)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(addr->sun_path, sizeof(addr->sun_path), "%s", path);
}

/* Does anybody hold it? Whatever does not say clearly that nobody does (a socket of another type: EPROTOTYPE), counts as yes. */
static bool somebody_listens(const struct sockaddr_un *addr)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 || !connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || (errno != ECONNREFUSED && errno != ENOENT);
}

/* A socket that a crash left behind goes; anything else stays and is an error. */
static int remove_stale(const struct sockaddr_un *addr, char *message, size_t size)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return fail(message, size, -EEXIST, "cannot listen on", addr->sun_path,
			    "something that is no socket is there; remove it, or name another --socket");
	if (somebody_listens(addr))
		return fail(message, size, -EADDRINUSE, "cannot listen on", addr->sun_path,
			    "another process listens there; stop it, or name another --socket");
	unlink(addr->sun_path);
	return 0;
}

/* The umask of the process keeps everybody out until the mode is set. */
static int bind_path(struct listener *listener, const struct sockaddr_un *addr, const struct listener_terms *terms)
{
	listener->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0 || bind(listener->fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		return -errno;
	listener->bound = true;
	if (terms->has_group && lchown(addr->sun_path, (uid_t)-1, terms->group) < 0)
		log_write(LOG_WARNING, "cannot give %s to its group: %s; only root and nicd's own user reach it", addr->sun_path,
			  strerror(errno));
	if (listen(listener->fd, LISTENER_BACKLOG) < 0 || chmod(addr->sun_path, terms->mode) < 0)
		return -errno;
	return 0;
}

int listener_bind(struct listener *listener, const struct listener_terms *terms, char *message, size_t size)
{
	char lock[OPTIONS_PATH + 8];
	struct sockaddr_un addr;
	int r;

	snprintf(listener->path, sizeof(listener->path), "%s", terms->path);
	unix_address(&addr, terms->path);
	lock_path(lock, sizeof(lock), terms->path);
	listener->lock = lock_take(lock);
	if (listener->lock == -EWOULDBLOCK)
		return fail(message, size, -EADDRINUSE, "cannot listen on", terms->path,
			    "another nicd holds its lock; stop it, or name another --socket");
	if (listener->lock < 0)
		return fail(message, size, listener->lock, "cannot make the lock file", lock,
			    "its directory must exist and be writable (or use --rootless)");
	r = remove_stale(&addr, message, size);
	if (r < 0)
		return r;
	r = bind_path(listener, &addr, terms);
	return r < 0 ? fail(message, size, r, "cannot listen on", terms->path, "its directory must exist and be writable") : 0;
}

int listener_take(struct listener *listener, int fd, char *message, size_t size)
{
	struct sockaddr_un addr = { 0 };
	socklen_t len = sizeof(addr);
	int flags = fcntl(fd, F_GETFL);

	listener->fd = fd;
	if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0) {
		snprintf(message, size, "a socket of the service manager is no listening AF_UNIX SOCK_SEQPACKET one; "
			 "use ListenSequentialPacket= in its unit");
		return -EINVAL;
	}
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return fail(message, size, -errno, "cannot use", "the socket of the service manager", "see its unit");
	snprintf(listener->path, sizeof(listener->path), "%.*s", (int)sizeof(addr.sun_path), addr.sun_path);
	return 0;
}

int listener_passed(int *client, int *admin, char *message, size_t size)
{
	static const struct {
		const char *name;
		bool admin;
	} names[] = { { "nicd", false }, { "nicd.socket", false }, { "admin", true }, { "nicd-admin", true },
		      { "nicd-admin.socket", true } };
	char **passed = NULL;
	int n = sd_listen_fds_with_names(1, &passed), r = 0;

	*client = *admin = -1;
	for (int i = 0; i < n; i++) {
		int *at = NULL;

		for (unsigned k = 0; k < ELEMENTS(names); k++) {
			if (!strcmp(passed[i], names[k].name))
				at = names[k].admin ? admin : client;
		}
		if (at && *at < 0) {
			*at = SD_LISTEN_FDS_START + i;
		} else if (!r) {
			snprintf(message, size, "the service manager passed a socket named '%s'%s; give FileDescriptorName=nicd or admin",
				 passed[i], at ? " twice" : "");
			r = -EINVAL;
		}
		free(passed[i]);
	}
	free(passed);
	return n < 0 ? n : r;
}

/* ---- accepting */

/* Out of descriptors or memory: those who wait go on waiting, and the loop does not spin. */
static void accept_failed(struct listener *listener, int err);

static void on_again(uv_timer_t *timer)
{
	listener_start(container_of(timer, struct listener, again));
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct listener *listener = container_of(poll, struct listener, poll);

	for (unsigned i = 0; i < ACCEPT_TURN && listener->accepting; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				accept_failed(listener, errno);
			return;
		}
		if (!listener->accepted(listener, fd))
			listener_stop(listener);
	}
}

static void accept_failed(struct listener *listener, int err)
{
	static const struct log_client nobody = { 0 };

	log_client(LOG_WARNING, &nobody, "cannot accept on %s: %s; trying again in %d ms", listener->path, strerror(err), ACCEPT_AGAIN_MS);
	listener_stop(listener);
	uv_timer_start(&listener->again, on_again, ACCEPT_AGAIN_MS, 0);
}

int listener_open(struct listener *listener, uv_loop_t *loop)
{
	int r = uv_timer_init(loop, &listener->again);

	if (r < 0)
		return r;
	listener->open_handles++;
	r = uv_poll_init(loop, &listener->poll, listener->fd);
	if (r < 0)
		return r;
	listener->open_handles++;
	return 0;
}

void listener_start(struct listener *listener)
{
	if (listener->fd < 0 || listener->accepting || listener->open_handles < 2)
		return;
	uv_timer_stop(&listener->again);
	listener->accepting = !uv_poll_start(&listener->poll, UV_READABLE, on_connection);
}

void listener_stop(struct listener *listener)
{
	if (!listener->accepting)
		return;
	uv_poll_stop(&listener->poll);
	listener->accepting = false;
}

static void on_closed(uv_handle_t *handle)
{
	struct listener *listener = handle->data;

	if (--listener->open_handles == 0)
		listener->fd = fd_close(listener->fd);
}

static void handle_close(struct listener *listener, uv_handle_t *handle)
{
	handle->data = listener;
	uv_close(handle, on_closed);
}

void listener_close(struct listener *listener)
{
	char lock[OPTIONS_PATH + 8];

	listener_stop(listener);
	if (listener->bound)
		unlink(listener->path);
	listener->bound = false;
	if (listener->lock >= 0) {
		lock_path(lock, sizeof(lock), listener->path);
		unlink(lock);
		listener->lock = fd_close(listener->lock);
	}
	if (listener->open_handles == 2)
		handle_close(listener, (uv_handle_t *)&listener->poll);
	if (listener->open_handles)
		handle_close(listener, (uv_handle_t *)&listener->again);
	else
		listener->fd = fd_close(listener->fd);
}
