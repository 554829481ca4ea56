/* SPDX-License-Identifier: MIT */
#pragma once
/* Who is at the other end of a socket, decided once, at accept, by what the kernel says. */
#include "daemon/client.h"

/* Who counts as what. */
struct identity_rules {
	enum policy_account_by account_by;
	bool has_admin_gid, has_gateway_uid;
	gid_t admin_gid;         /* group nicd-admin */
	uid_t admin_uid;         /* besides root: own uid in rootless mode, else 0 */
	uid_t gateway_uid;
};

/*
 * Reads the peer of `sock` into *ret, and its pidfd into *pidfd (the caller's; -1 where the kernel gives none).
 * `number` makes the account of policy POLICY_BY_SESSION. NOT_PERMITTED: on the admin socket, not an admin; or no
 * account can be told.
 */
int identity_get(struct client_identity *ret, int *pidfd, const struct identity_rules *rules, int sock, bool admin_socket,
		 uint64_t number, struct nicd_error *err);

/* The pidfd of the peer, dead or alive, as often as one asks: -1: the kernel cannot tell (before Linux 6.5). */
int identity_pidfd(int sock);
/* Has the process behind the pidfd not ended? Unknown (-1) counts as alive. */
bool identity_alive(int pidfd);

/* For tests: the account key of a unified cgroup file's text. -EINVAL: there is no "0::" line. */
int identity_cgroup_key(char *key, size_t size, const char *text);
