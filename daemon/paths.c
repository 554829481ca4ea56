/* SPDX-License-Identifier: MIT */
/* Completes the options once at start, with what is found on this machine. Keeps nothing. */
#include "daemon/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/options.h"
#include "daemon/util.h"

#define PATHS_SOCKET "/run/nicd/nicd.sock"
#define PATHS_SOFT_SOCKET "/run/nicd-soft/control.sock"
#define PATHS_SOFT_USER "nicd-soft"

int paths_private_directory(const char *path, char *message, size_t size)
{
	_cleanup_fd_ int fd = -1;
	struct stat st;
	const char *wrong;

	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		int r = -errno;

		snprintf(message, size, "cannot make the directory %s: %s; set XDG_RUNTIME_DIR, or name --socket and --admin-socket",
			 path, strerror(-r));
		return r;
	}
	fd = open(path, O_DIRECTORY | O_NOFOLLOW | O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		wrong = "is no directory, or a link to one";
	else if (st.st_uid != geteuid())
		wrong = "belongs to another user";
	else if (st.st_mode & 077)
		wrong = "may be entered by others";
	else
		return 0;
	snprintf(message, size, "%s %s, so the sockets in it could be another's; remove it, or set XDG_RUNTIME_DIR", path, wrong);
	return -EPERM;
}

static int runtime_directory(char *dir, size_t dir_size, char *message, size_t size)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	int n;

	if (xdg && *xdg == '/' && !stat(xdg, &st) && S_ISDIR(st.st_mode))
		n = snprintf(dir, dir_size, "%s/nicd", xdg);
	else
		n = snprintf(dir, dir_size, "/tmp/nicd-%u", geteuid());
	if (n < 0 || (size_t)n >= dir_size) {
		snprintf(message, size, "XDG_RUNTIME_DIR is too long for the path of a socket (107 bytes); set a shorter one");
		return -ENAMETOOLONG;
	}
	return paths_private_directory(dir, message, size);
}

/* `name` in the directory of `beside`. */
static int path_beside(char *dst, size_t size, const char *beside, const char *name)
{
	const char *slash = strrchr(beside, '/');
	int n = snprintf(dst, size, "%.*s%s", slash ? (int)(slash - beside + 1) : 0, beside, name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int complete_sockets(struct options *options, char *message, size_t size)
{
	char dir[OPTIONS_PATH], first[OPTIONS_PATH + 16];
	int r;

	if (!options->socket[0] && options->rootless) {
		r = runtime_directory(dir, sizeof(dir), message, size);
		if (r < 0)
			return r;
		snprintf(first, sizeof(first), "%s/nicd.sock", dir);
		if (strlen(first) >= sizeof(options->socket)) {
			snprintf(message, size, "%s is too long for the path of a socket (107 bytes); set a shorter XDG_RUNTIME_DIR", first);
			return -ENAMETOOLONG;
		}
		strcpy(options->socket, first);
	} else if (!options->socket[0]) {
		strcpy(options->socket, PATHS_SOCKET);
	}
	if (!options->admin_socket[0] &&
	    path_beside(options->admin_socket, sizeof(options->admin_socket), options->socket, "admin.sock")) {
		snprintf(message, size, "the path of the admin socket beside %s is too long; name it with --admin-socket", options->socket);
		return -ENAMETOOLONG;
	}
	if (!strcmp(options->socket, options->admin_socket)) {
		snprintf(message, size, "clients and admins cannot share the socket %s; name another with --admin-socket", options->socket);
		return -EINVAL;
	}
	return 0;
}

/* Installed beside each other, in the build tree, or in libexec. */
static void complete_program(struct options *options)
{
	static const char *const places[] = { "nicd-soft", "../nicd/soft/nicd-soft", "../libexec/nicd/nicd-soft" };
	char self[OPTIONS_FILE], path[OPTIONS_FILE];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n < 0 ? 0 : n] = '\0';
	for (unsigned i = 0; i < ELEMENTS(places); i++) {
		if (!path_beside(path, sizeof(path), self, places[i]) && !access(path, X_OK)) {
			strcpy(options->soft_program, path);
			return;
		}
	}
	snprintf(options->soft_program, sizeof(options->soft_program), "%s", NICD_LIBEXECDIR "/nicd-soft");
}

static void complete_soft_uid(struct options *options)
{
	const struct passwd *user = options->rootless ? NULL : getpwnam(PATHS_SOFT_USER);

	options->soft_uid = user ? user->pw_uid : geteuid();
	options->has_soft_uid = true;
}

int paths_complete(struct options *options, char *message, size_t size)
{
	int r = complete_sockets(options, message, size);

	if (r < 0)
		return r;
	if (!options->soft_socket[0] && !options->rootless)
		strcpy(options->soft_socket, PATHS_SOFT_SOCKET);
	if (!options->soft_program[0] && options->rootless)
		complete_program(options);
	if (!options->has_soft_uid)
		complete_soft_uid(options);
	return 0;
}
