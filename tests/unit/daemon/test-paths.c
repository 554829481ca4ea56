/* SPDX-License-Identifier: MIT */
/* The runtime directory of rootless mode, the paths that follow, and sockets that are never stolen. */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/listener.h"
#include "daemon/options.h"
#include "daemon/paths.h"

static char dir[64], path[128], message[512];

static int remove_one(const char *what, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(what);
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/nicd-paths-XXXXXX");
	message[0] = '\0';
	umask(077);
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *at(const char *name)
{
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void test_directory(void **state)
{
	struct stat st;

	assert_int_equal(paths_private_directory(at("a"), message, sizeof(message)), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(paths_private_directory(path, message, sizeof(message)), 0);
	/* mutation: do not look at the mode */
	assert_int_equal(chmod(path, 0710), 0);
	assert_int_equal(paths_private_directory(path, message, sizeof(message)), -EPERM);
	assert_non_null(strstr(message, "entered by others"));
}

static void test_directory_link(void **state)
{
	char target[128];

	strcpy(target, at("real"));
	assert_int_equal(mkdir(target, 0700), 0);
	assert_int_equal(symlink(target, at("link")), 0);
	/* mutation: open without O_NOFOLLOW */
	assert_int_equal(paths_private_directory(path, message, sizeof(message)), -EPERM);
	assert_non_null(strstr(message, "link"));
}

static void test_directory_not_one(void **state)
{
	fclose(fopen(at("file"), "w"));
	assert_int_equal(paths_private_directory(path, message, sizeof(message)), -EPERM);
	assert_int_equal(paths_private_directory(at("no/such"), message, sizeof(message)), -ENOENT);
	assert_non_null(strstr(message, "XDG_RUNTIME_DIR"));
}

static void test_directory_foreign(void **state)
{
	if (geteuid() != 0)
		return;   /* only root can be somebody else */
	assert_int_equal(mkdir(at("theirs"), 0700), 0);
	assert_int_equal(chown(path, 54321, 54321), 0);
	/* mutation: do not look at the owner */
	assert_int_equal(paths_private_directory(path, message, sizeof(message)), -EPERM);
	assert_non_null(strstr(message, "another user"));
}

static void test_complete(void **state)
{
	struct options options;

	options_init(&options);
	assert_int_equal(paths_complete(&options, message, sizeof(message)), 0);
	assert_string_equal(options.socket, "/run/nicd/nicd.sock");
	assert_string_equal(options.admin_socket, "/run/nicd/admin.sock");
	assert_string_equal(options.soft_socket, "/run/nicd-soft/control.sock");

	setenv("XDG_RUNTIME_DIR", dir, 1);
	options_init(&options);
	options.rootless = true;
	assert_int_equal(paths_complete(&options, message, sizeof(message)), 0);
	snprintf(path, sizeof(path), "%s/nicd/nicd.sock", dir);
	assert_string_equal(options.socket, path);
	snprintf(path, sizeof(path), "%s/nicd/admin.sock", dir);
	assert_string_equal(options.admin_socket, path);
	assert_int_equal(options.soft_uid, geteuid());

	options_init(&options);
	strcpy(options.socket, "here.sock");
	assert_int_equal(paths_complete(&options, message, sizeof(message)), 0);
	assert_string_equal(options.admin_socket, "admin.sock");
	options_init(&options);
	strcpy(options.socket, "x/admin.sock");
	assert_int_equal(paths_complete(&options, message, sizeof(message)), -EINVAL);
}

static void test_complete_too_long(void **state)
{
	struct options options;
	char deep[256];

	snprintf(deep, sizeof(deep), "%s/", dir);
	memset(deep + strlen(deep), 'd', 90);
	deep[strlen(dir) + 1 + 90] = '\0';
	assert_int_equal(mkdir(deep, 0700), 0);
	setenv("XDG_RUNTIME_DIR", deep, 1);
	options_init(&options);
	options.rootless = true;
	/* mutation: let snprintf cut the path */
	assert_int_equal(paths_complete(&options, message, sizeof(message)), -ENAMETOOLONG);
}

/* ---- sockets */

static int bind_at(struct listener *listener, const char *where, mode_t mode)
{
	struct listener_terms terms = { .path = where, .mode = mode };

	listener_init(listener);
	return listener_bind(listener, &terms, message, sizeof(message));
}

static int dial(const char *where, int type)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type, 0);

	strcpy(addr.sun_path, where);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void test_bind(void **state)
{
	struct listener listener;
	struct stat st;
	int fd;

	assert_int_equal(bind_at(&listener, at("s"), 0666), 0);
	assert_int_equal(stat(path, &st), 0);
	/* mutation: leave out chmod */
	assert_int_equal(st.st_mode & 0777, 0666);
	fd = dial(path, SOCK_SEQPACKET);
	assert_true(fd >= 0);
	close(fd);
	listener_close(&listener);
	/* mutation: leave the path, or the lock, behind */
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(access(at("s.lock"), F_OK), -1);
}

static void test_live_is_not_stolen(void **state)
{
	struct listener first, second;
	int fd;

	assert_int_equal(bind_at(&first, at("s"), 0600), 0);
	/* mutation: unlink the path before bind */
	assert_int_equal(bind_at(&second, path, 0600), -EADDRINUSE);
	assert_non_null(strstr(message, "another nicd"));
	listener_close(&second);
	/* mutation: the loser removes what it did not make */
	fd = dial(path, SOCK_SEQPACKET);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(access(at("s.lock"), F_OK), 0);
	listener_close(&first);
}

/* Somebody else, who knows no lock files, of another kind. */
static void test_foreign_is_not_stolen(void **state)
{
	static const int types[] = { SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM };

	for (unsigned i = 0; i < sizeof(types) / sizeof(*types); i++) {
		struct sockaddr_un addr = { .sun_family = AF_UNIX };
		struct listener listener;
		int fd = socket(AF_UNIX, types[i], 0);

		strcpy(addr.sun_path, at("other"));
		assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		if (types[i] != SOCK_DGRAM)
			assert_int_equal(listen(fd, 1), 0);
		/* mutation: take EPROTOTYPE for stale */
		assert_int_equal(bind_at(&listener, path, 0600), -EADDRINUSE);
		assert_non_null(strstr(message, "another process listens"));
		listener_close(&listener);
		assert_int_equal(access(at("other"), F_OK), 0);
		close(fd);
		unlink(path);
	}
}

static void test_stale_is_replaced(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct listener listener;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	strcpy(addr.sun_path, at("s"));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	close(fd);
	fclose(fopen(at("s.lock"), "w"));
	assert_int_equal(bind_at(&listener, at("s"), 0600), 0);
	fd = dial(path, SOCK_SEQPACKET);
	assert_true(fd >= 0);
	close(fd);
	listener_close(&listener);
}

static void test_file_is_not_replaced(void **state)
{
	struct listener listener;

	fclose(fopen(at("s"), "w"));
	/* mutation: leave out S_ISSOCK */
	assert_int_equal(bind_at(&listener, path, 0600), -EEXIST);
	listener_close(&listener);
	assert_int_equal(access(at("s"), F_OK), 0);
	assert_int_not_equal(bind_at(&listener, at("no/such/s"), 0600), 0);
	assert_non_null(strstr(message, "must exist"));
	listener_close(&listener);
}

static void test_take(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct listener listener;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	strcpy(addr.sun_path, at("s"));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	listener_init(&listener);
	assert_int_equal(listener_take(&listener, fd, message, sizeof(message)), 0);
	assert_string_equal(listener.path, path);
	listener_close(&listener);
	/* The service manager's path is not ours to remove. mutation: unlink always */
	assert_int_equal(access(path, F_OK), 0);

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	listener_init(&listener);
	/* mutation: leave out sd_is_socket_unix */
	assert_int_equal(listener_take(&listener, fd, message, sizeof(message)), -EINVAL);
	listener_close(&listener);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_directory), T(test_directory_link), T(test_directory_not_one), T(test_directory_foreign), T(test_complete),
		T(test_complete_too_long), T(test_bind), T(test_live_is_not_stolen), T(test_foreign_is_not_stolen),
		T(test_stale_is_replaced), T(test_file_is_not_replaced), T(test_take),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
