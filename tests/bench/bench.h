/* SPDX-License-Identifier: MIT */
#pragma once
/* Benchmarks: both sides in one run, interleaved, on the same core; ratios, because absolute times mean nothing on shared machines. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/nicd.pb-c.h"

_Noreturn void bench_die(const char *what);
void bench_pin(pid_t pid, int cpu); /* pid 0: the caller */
uint64_t bench_now(void);           /* ns */
uint64_t bench_cpu(pid_t pid);      /* CPU time of a process so far, ns */
int bench_memfd(size_t size);       /* sealed, populated */

/* echo.c: a bare server on one end of a socketpair; returns the other end. */
enum echo_kind { ECHO_UV, ECHO_BLOCKING };
int echo_start(enum echo_kind kind, int cpu);

/* daemon.c: a nicd with its nicd-soft, in a directory of its own; dies with the benchmark. */
struct daemon {
	pid_t pid, soft;
	char dir[64];
};
void daemon_start(struct daemon *daemon, const char *nicd, const char *soft, int cpu);
void daemon_stop(struct daemon *daemon);
uint64_t daemon_pss(const struct daemon *daemon); /* bytes, of nicd alone */

/* idle.c: sessions that say nothing; both do nothing when it is so already. */
enum { IDLE_SESSIONS = 10000 };
void idle_prepare(void);   /* before the daemon is started */
void idle_open(const struct daemon *daemon);
void idle_close(const struct daemon *daemon);

/* An encoded frame. */
struct frame {
	size_t len;
	uint8_t data[65536];
};
void frame_add(struct frame *frame, Nicd__Request *request);
void frame_add_query(struct frame *frame, uint32_t id, uint64_t mr);   /* GetLocalToken */
void frame_send(int sock, const struct frame *frame, int fd);

/* peer.c: a session that speaks the protocol with as little of its own as possible. */
struct peer {
	int sock;
	uint32_t next_id;
	uint8_t buf[65536 + 1];
};
void peer_open(struct peer *peer, const struct daemon *daemon);
void peer_open_admin(struct peer *peer, const struct daemon *daemon);
/* One request, one reply; dies when it is refused. The reply is the caller's: nicd__reply__free_unpacked. */
Nicd__Reply *peer_call(struct peer *peer, Nicd__Request *request, int fd);
uint64_t peer_add_memory(struct peer *peer, int fd);
uint64_t peer_create_pd(struct peer *peer);
uint64_t peer_create_mr(struct peer *peer, uint64_t pd);
uint64_t peer_create_fast(struct peer *peer, uint64_t pd);   /* fast-register, initialized for 16 pages and remote access */
uint64_t peer_create_mw(struct peer *peer, uint64_t pd);
uint64_t peer_connect(struct peer *peer, uint64_t pd, const char *locator);
char *peer_ticket(struct peer *peer, uint64_t mr, uint32_t uses);     /* its locator, to be freed */
void peer_register(struct peer *peer, uint64_t mr, uint64_t memory);
/* How many replies the next packet holds. `check`: unpacks them, and dies when one is an error. */
unsigned peer_replies(struct peer *peer, bool check);
