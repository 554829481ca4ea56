/* SPDX-License-Identifier: MIT */
/*
 * Identity is what SO_PEERCRED says: the credentials of who connected, taken by the kernel at connect(). The pid is a
 * label. Where an account is a cgroup, the pid must lead to /proc, and then the pidfd is asked afterwards whether the
 * process still is the one that connected.
 */
#include "daemon/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/util.h"

/* Linux 6.5; older headers lack it. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

enum { GROUPS_MAX = 65536 };

int identity_pidfd(int sock)
{
	int fd = -1;
	socklen_t len = sizeof(fd);

	return getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) ? -1 : fd;
}

/* Before 6.5 the pid may have been given to another process meanwhile: good enough to show, and cgroup accounts check more. */
static int peer_pidfd(int sock, pid_t pid)
{
	int fd = identity_pidfd(sock);

	if (fd >= 0)
		return fd;
	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

bool identity_alive(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return pidfd < 0 || poll(&p, 1, 0) == 0;
}

/* The supplementary groups of the peer at connect(), as the kernel keeps them: no name service is asked. */
static bool peer_in_group(int sock, gid_t gid)
{
	socklen_t len = 0;
	gid_t *groups;
	bool found = false;

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) || errno != ERANGE || len > GROUPS_MAX * sizeof(*groups))
		return false;
	groups = malloc(len);
	if (groups && !getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &len)) {
		for (size_t i = 0; i < len / sizeof(*groups) && !found; i++)
			found = groups[i] == gid;
	}
	free(groups);
	return found;
}

static bool is_admin(const struct identity_rules *rules, int sock, const struct ucred *cred)
{
	if (cred->uid == 0 || cred->uid == rules->admin_uid)
		return true;
	return rules->has_admin_gid && (cred->gid == rules->admin_gid || peer_in_group(sock, rules->admin_gid));
}

int identity_cgroup_key(char *key, size_t size, const char *text)
{
	const char *line = !strncmp(text, "0::", 3) ? text : strstr(text, "\n0::");
	char hash[SHA256_DIGEST_STRING_LENGTH];
	size_t len;
	bool plain = true;

	if (!line)
		return -EINVAL;
	line = strchr(line, '/');
	len = line ? strcspn(line, "\n") : 0;
	if (!len)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		plain &= line[i] > 0x20 && line[i] < 0x7f;
	if (plain && len + sizeof("cgroup:") <= size) {
		snprintf(key, size, "cgroup:%.*s", (int)len, line);
	} else {
		/* Too long or not text; cut short, two would share an account. */
		snprintf(key, size, "cgroup-sha256:%s", SHA256Data((const uint8_t *)line, len, hash));
	}
	return 0;
}

static int cgroup_key(char *key, size_t size, pid_t pid, int pidfd)
{
	char path[64], text[8192];
	_cleanup_fd_ int fd = -1;
	ssize_t n;

	if (pid <= 0 || pidfd < 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	/* Still the process that connected: else the file was another's. */
	if (!identity_alive(pidfd))
		return -ESRCH;
	return identity_cgroup_key(key, size, text);
}

static int account_key(struct client_identity *who, const struct identity_rules *rules, int pidfd, uint64_t number)
{
	switch (rules->account_by) {
	case POLICY_BY_UID:
		snprintf(who->account, sizeof(who->account), "uid:%u", who->uid);
		return 0;
	case POLICY_BY_GID:
		snprintf(who->account, sizeof(who->account), "gid:%u", who->gid);
		return 0;
	case POLICY_BY_SESSION:
		snprintf(who->account, sizeof(who->account), "session:%llu", (unsigned long long)number);
		return 0;
	case POLICY_BY_CGROUP:
		return cgroup_key(who->account, sizeof(who->account), (pid_t)who->pid, pidfd);
	}
	return -EINVAL;
}

int identity_get(struct client_identity *ret, int *pidfd, const struct identity_rules *rules, int sock, bool admin_socket,
		 uint64_t number, struct nicd_error *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	_cleanup_fd_ int pid_fd = -1;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return nicd_refuse(err, NICD_R_NOT_PERMITTED);
	*ret = (struct client_identity){
		.role = CLIENT_ROLE_CLIENT,
		.admin_socket = admin_socket,
		.pid = (uint32_t)cred.pid,
		.uid = cred.uid,
		.gid = cred.gid,
	};
	if (admin_socket) {
		if (!is_admin(rules, sock, &cred))
			return nicd_refuse(err, NICD_R_NOT_PERMITTED);
		ret->role = CLIENT_ROLE_ADMIN;
	} else if (rules->has_gateway_uid && cred.uid == rules->gateway_uid) {
		ret->role = CLIENT_ROLE_GATEWAY;
	}
	pid_fd = peer_pidfd(sock, cred.pid);
	if (account_key(ret, rules, pid_fd, number) < 0)
		return nicd_refuse(err, NICD_R_NOT_PERMITTED);
	*pidfd = fd_steal(&pid_fd);
	return 0;
}
