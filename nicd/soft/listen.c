/* SPDX-License-Identifier: MIT */
/* Listening sockets, made or inherited. Whoever asked for them owns them. */
#include "nicd/soft/listen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/*
 * Asks with a datagram socket, which a living listener of another type turns away (EPROTOTYPE) without seeing it come:
 * a real connection would for a moment be its controller. Only "refused" says clearly that nobody is there.
 */
static int somebody_listens(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 && errno == ECONNREFUSED ? 0 : 1;
	close(fd);
	return r;
}

static int remove_stale(const struct sockaddr_un *addr)
{
	struct stat st;
	int r;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	r = somebody_listens(addr);
	if (r < 0)
		return r;
	if (r > 0)
		return -EADDRINUSE;
	return unlink(addr->sun_path) < 0 ? -errno : 0;
}

/* Who gets in is decided by uid when it connects. The mode only keeps others from trying, where we may set it so. */
static int make_reachable(const char *path, uid_t uid)
{
	if (uid == geteuid() || lchown(path, uid, (gid_t)-1) == 0)
		return 0;
	return chmod(path, 0666) < 0 ? -errno : 0;
}

static int bind_private(int fd, const struct sockaddr_un *addr)
{
	mode_t old = umask(0177);
	int r = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;

	umask(old);
	return r;
}

int soft_listen_path(const char *path, uid_t uid, int *ret)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	r = remove_stale(&addr);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = bind_private(fd, &addr);
	if (r == 0 && listen(fd, 4) < 0)
		r = -errno;
	if (r == 0)
		r = make_reachable(path, uid);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}

static int take(int *slot, int fd)
{
	if (*slot >= 0)
		return -EINVAL;
	*slot = fd;
	return 0;
}

int soft_listen_inherited(int *control, int *data)
{
	int n = sd_listen_fds(1), r = 0;

	*control = *data = -1;
	for (int fd = SD_LISTEN_FDS_START; r == 0 && fd < SD_LISTEN_FDS_START + n; fd++) {
		if (sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) > 0)
			r = take(control, fd);
		else if (sd_is_socket(fd, AF_INET, SOCK_STREAM, 1) > 0 || sd_is_socket(fd, AF_INET6, SOCK_STREAM, 1) > 0)
			r = take(data, fd);
		else
			r = -EINVAL;
	}
	return n < 0 ? n : r;
}
