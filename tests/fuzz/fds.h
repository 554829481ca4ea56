/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Descriptors of every kind, made anew each time: good memory first, then everything else that a client could pass; and
 * packets with them.
 */
#include "tests/fuzz/input.h"

struct fd_kind {
	const char *name;
	int (*make)(void);   /* -1: this machine has none */
};

enum { FD_KINDS = 28 };
extern const struct fd_kind fd_kinds[FD_KINDS];

/* The kind with this number, counted around; never fails: where the machine has none, /dev/null. */
int fd_make(unsigned kind);

/* Sends a packet as the input has it: u16 length, u8 how many descriptors, a byte for the kind of each, the bytes. */
void fd_send(int sock, struct input *in);
/* The lowest number that is free: the same at two times when as many are open. */
int fd_lowest(void);
/* How many sockets are open. The sanitizers' own descriptors come and go; they have none. */
unsigned fd_sockets(void);
