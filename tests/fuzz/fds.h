/* SPDX-License-Identifier: MIT */
#pragma once
/* Descriptors of every kind, made anew each time: good memory first, then everything else that a client could pass. */

struct fd_kind {
	const char *name;
	int (*make)(void);   /* -1: this machine has none */
};

enum { FD_KINDS = 28 };
extern const struct fd_kind fd_kinds[FD_KINDS];

/* The kind with this number, counted around; never fails: where the machine has none, /dev/null. */
int fd_make(unsigned kind);
