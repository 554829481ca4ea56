/* SPDX-License-Identifier: MIT */
#pragma once
/* Where nicd-soft's sockets come from: a path of its own, or the service manager. */
#include <sys/types.h>

/*
 * Binds a listening SOCK_SEQPACKET socket at `path` that `uid` can reach. What a crash left there is removed, if nobody
 * answers on it. -EADDRINUSE: somebody does; -EEXIST: what is there is no socket. *ret is the caller's.
 */
int soft_listen_path(const char *path, uid_t uid, int *ret);

/* What came by LISTEN_FDS, now the caller's; -1: none of the kind. -EINVAL: one that is of no use here, or two of a kind. */
int soft_listen_inherited(int *control, int *data);
