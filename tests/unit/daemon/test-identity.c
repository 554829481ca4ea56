/* SPDX-License-Identifier: MIT */
/* Who is at the other end: real sockets, a real child, and what cgroup files say. */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/identity.h"

/* One that is nobody's here. */
enum { STRANGER = 54321, STRANGE_GROUP = 54322 };

static struct identity_rules rules_of(enum policy_account_by by)
{
	return (struct identity_rules){ .account_by = by, .admin_uid = geteuid() };
}

static int get(struct client_identity *who, const struct identity_rules *rules, bool admin, struct nicd_error *err)
{
	int pair[2], pidfd = -1, r;

	memset(err, 0, sizeof(*err));
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	r = identity_get(who, &pidfd, rules, pair[0], admin, 42, err);
	if (!r)
		assert_true(identity_alive(pidfd));
	if (pidfd >= 0)
		close(pidfd);
	close(pair[0]);
	close(pair[1]);
	return r;
}

static void test_accounts(void **state)
{
	struct identity_rules rules = rules_of(POLICY_BY_UID);
	struct client_identity who;
	struct nicd_error err;
	char want[64];

	assert_int_equal(get(&who, &rules, false, &err), 0);
	snprintf(want, sizeof(want), "uid:%u", geteuid());
	assert_string_equal(who.account, want);
	assert_int_equal(who.pid, getpid());
	assert_int_equal(who.uid, geteuid());
	assert_int_equal(who.gid, getegid());
	rules.account_by = POLICY_BY_GID;
	assert_int_equal(get(&who, &rules, false, &err), 0);
	snprintf(want, sizeof(want), "gid:%u", getegid());
	assert_string_equal(who.account, want);
	rules.account_by = POLICY_BY_SESSION;
	assert_int_equal(get(&who, &rules, false, &err), 0);
	assert_string_equal(who.account, "session:42");
	rules.account_by = POLICY_BY_CGROUP;
	if (!get(&who, &rules, false, &err))
		assert_int_equal(strncmp(who.account, "cgroup", 6), 0);
}

static void test_roles(void **state)
{
	struct identity_rules rules = rules_of(POLICY_BY_UID);
	struct client_identity who;
	struct nicd_error err;

	assert_int_equal(get(&who, &rules, true, &err), 0);
	assert_int_equal(who.role, CLIENT_ROLE_ADMIN);
	assert_true(who.admin_socket);
	/* mutation: the role by uid alone, whichever the socket */
	assert_int_equal(get(&who, &rules, false, &err), 0);
	assert_int_equal(who.role, CLIENT_ROLE_CLIENT);
	assert_false(who.admin_socket);
	rules.has_gateway_uid = true;
	rules.gateway_uid = STRANGER;
	assert_int_equal(get(&who, &rules, false, &err), 0);
	assert_int_equal(who.role, CLIENT_ROLE_CLIENT);
	rules.gateway_uid = geteuid();
	assert_int_equal(get(&who, &rules, false, &err), 0);
	assert_int_equal(who.role, CLIENT_ROLE_GATEWAY);
}

/* Connects as another user, with or without an extra group, and lives until told; needs root. */
static pid_t stranger_connect(const char *path, bool in_group, int *tell)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	gid_t group = STRANGE_GROUP;
	int pipe_fds[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(pipe_fds), 0);
	pid = fork();
	if (pid) {
		close(pipe_fds[0]);
		*tell = pipe_fds[1];
		return pid;
	}
	close(pipe_fds[1]);
	strcpy(addr.sun_path, path);
	if (!setgroups(in_group, &group) && !setgid(STRANGER) && !setuid(STRANGER)) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
			(void)!read(pipe_fds[0], &c, 1);
	}
	_exit(0);
}

static int stranger_get(struct client_identity *who, const struct identity_rules *rules, bool in_group, struct nicd_error *err)
{
	char dir[] = "/tmp/nicd-identity-XXXXXX";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), pidfd = -1, tell, peer, r;
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(chmod(addr.sun_path, 0666), 0);
	assert_int_equal(listen(fd, 1), 0);
	pid = stranger_connect(addr.sun_path, in_group, &tell);
	peer = accept(fd, NULL, NULL);
	assert_true(peer >= 0);
	memset(err, 0, sizeof(*err));
	r = identity_get(who, &pidfd, rules, peer, true, 1, err);
	close(tell);
	waitpid(pid, NULL, 0);
	if (!r) {
		assert_int_equal(who->pid, pid);
		/* mutation: identity_alive is always true */
		assert_false(identity_alive(pidfd));
		close(pidfd);
	}
	close(peer);
	close(fd);
	unlink(addr.sun_path);
	rmdir(dir);
	return r;
}

static void test_strangers(void **state)
{
	struct identity_rules rules = { .admin_uid = 0 };
	struct client_identity who;
	struct nicd_error err;

	if (geteuid() != 0)
		return;   /* only root can be somebody else */
	/* mutation: everybody on the admin socket is an admin */
	assert_int_not_equal(stranger_get(&who, &rules, false, &err), 0);
	assert_int_equal(err.reason, NICD_R_NOT_PERMITTED);
	rules.has_admin_gid = true;
	rules.admin_gid = STRANGE_GROUP;
	assert_int_not_equal(stranger_get(&who, &rules, false, &err), 0);
	/* mutation: look at the primary group only */
	assert_int_equal(stranger_get(&who, &rules, true, &err), 0);
	assert_int_equal(who.role, CLIENT_ROLE_ADMIN);
	assert_int_equal(who.uid, STRANGER);
	rules.admin_gid = STRANGER;
	assert_int_equal(stranger_get(&who, &rules, false, &err), 0);
	rules.has_admin_gid = false;
	rules.admin_uid = STRANGER;
	assert_int_equal(stranger_get(&who, &rules, false, &err), 0);
}

static void test_cgroup_keys(void **state)
{
	char key[256], other[256], text[1024];

	assert_int_equal(identity_cgroup_key(key, sizeof(key), "0::/system.slice/a.service\n"), 0);
	assert_string_equal(key, "cgroup:/system.slice/a.service");
	assert_int_equal(identity_cgroup_key(key, sizeof(key), "1:name=x:/y\n0::/z\n"), 0);
	assert_string_equal(key, "cgroup:/z");
	assert_int_equal(identity_cgroup_key(key, sizeof(key), ""), -EINVAL);
	assert_int_equal(identity_cgroup_key(key, sizeof(key), "1:name=x:/y\n"), -EINVAL);
	assert_int_equal(identity_cgroup_key(key, sizeof(key), "0::\n"), -EINVAL);

	/* mutation: cut long paths short: two that begin alike would be one account */
	memset(text, 'a', 500);
	memcpy(text, "0::/", 4);
	text[500] = '\0';
	assert_int_equal(identity_cgroup_key(key, sizeof(key), text), 0);
	text[499] = 'b';
	assert_int_equal(identity_cgroup_key(other, sizeof(other), text), 0);
	assert_string_not_equal(key, other);
	/* mutation: pass through what is no text */
	assert_int_equal(identity_cgroup_key(key, sizeof(key), "0::/\xff\xfe\n"), 0);
	assert_int_equal(strncmp(key, "cgroup-sha256:", 14), 0);
}

/* Somebody's cgroup cannot be told once the process is gone: refused, not charged to anybody. */
static void test_cgroup_dead(void **state)
{
	struct identity_rules rules = { .account_by = POLICY_BY_CGROUP };
	struct client_identity who;
	struct nicd_error err = { 0 };
	char dir[] = "/tmp/nicd-identity-XXXXXX";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), pidfd = -1, peer;
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	pid = fork();
	if (!pid) {
		int sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		_exit(connect(sock, (struct sockaddr *)&addr, sizeof(addr)) ? 1 : 0);
	}
	waitpid(pid, NULL, 0);
	peer = accept(fd, NULL, NULL);
	/* mutation: on failure charge to "cgroup:" */
	assert_int_not_equal(identity_get(&who, &pidfd, &rules, peer, false, 1, &err), 0);
	assert_int_equal(err.reason, NICD_R_NOT_PERMITTED);
	assert_int_equal(pidfd, -1);
	close(peer);
	close(fd);
	unlink(addr.sun_path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accounts), cmocka_unit_test(test_roles), cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_cgroup_keys), cmocka_unit_test(test_cgroup_dead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
