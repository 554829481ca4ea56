/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Packets with descriptors on a SOCK_SEQPACKET socket: one recvmsg, one sendmsg. Received descriptors are owned here first and
 * judged later. Knows nothing of protobuf.
 */
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"

struct wire_packet {
	const uint8_t *data;          /* in the buffer of wire_recv */
	size_t len;
	unsigned n_fds;
	unsigned next_fd;             /* those before it are taken */
	int fds[NICD_FRAME_FDS];      /* CLOEXEC; owned until taken with wire_take_fd */
	unsigned n_came;              /* descriptors that the kernel delivered, also those of a packet that was dropped */
};

enum wire_result {
	WIRE_PACKET,     /* a packet; call wire_release when done */
	WIRE_AGAIN,      /* nothing there */
	WIRE_END,        /* the other side is gone (or sent an empty packet: the same to us) */
	WIRE_TOO_BIG,    /* a packet larger than a frame was dropped, its descriptors closed */
	WIRE_FDS,        /* more descriptors than NICD_FRAME_FDS, or (n_came is not more) some were lost; all closed */
	WIRE_ERROR,      /* errno */
};

enum { WIRE_KERNEL_FDS = 253 };   /* more do not come with one packet */

/* Closes a descriptor that is not wanted, at once or later: the last close of a stranger's file may take long. */
struct wire_closer {
	void (*close)(const struct wire_closer *closer, int fd);
};

/*
 * `size` is at least NICD_FRAME_MAX + 1, so that oversize shows. `closer` (NULL: close) gets the descriptors of a
 * packet that is dropped. Never blocks but in a close.
 */
enum wire_result wire_recv_from(int sock, void *buf, size_t size, struct wire_packet *ret, const struct wire_closer *closer);
static inline enum wire_result wire_recv(int sock, void *buf, size_t size, struct wire_packet *ret)
{
	return wire_recv_from(sock, buf, size, ret, NULL);
}
/* The next descriptor, now the caller's; -1: no more. */
int wire_take_fd(struct wire_packet *packet);
/* Closes what was not taken. */
void wire_release(struct wire_packet *packet);

/*
 * One packet. 0, -EAGAIN when the socket is full, or another negative errno. Descriptors are borrowed. Never blocks,
 * never SIGPIPE.
 */
int wire_send(int sock, const void *data, size_t len, const int *fds, unsigned n_fds);

/*
 * How often to ask a socket in one turn of the loop. A peer that waits for each answer never has a second packet there,
 * and asking for one costs it a system call: such a one is asked for more only now and then.
 */
enum { WIRE_PROBE_TURNS = 4 };
struct wire_pace {
	unsigned lone;   /* turns since more than one packet was there; 0: many come */
};
static inline unsigned wire_pace_begin(struct wire_pace *pace, unsigned max)
{
	return pace->lone && pace->lone++ % WIRE_PROBE_TURNS ? 1 : max;
}
/* `max` is what _begin said, `n` how many packets there were. */
static inline void wire_pace_end(struct wire_pace *pace, unsigned max, unsigned n)
{
	if (max > 1)
		pace->lone = n <= 1;
}
