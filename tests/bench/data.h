/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The data path, ours and others', measured side by side. A contender is a server and a client process (and whatever they start),
 * made once and idle between its rounds. The client gets orders on a socket and answers how long each took.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { DATA_PIDS = 6, DATA_BUFFER = 16 << 20, SERVER_CPU = 0, CLIENT_CPU = 1 };

/* `count` transfers of `size` bytes, `depth` of them under way; transfer i is at slot i % depth of either side's buffer. */
struct order {
	uint32_t write, size, depth, count;
};

struct contender {
	const char *name;
	/* Forks the processes. False: not on this machine, and says so. */
	bool (*start)(struct contender *c);
	bool lists;                /* posts lists of 8 */
	int orders;                /* our end of the client's socket */
	pid_t pids[DATA_PIDS];     /* whose CPU time counts; all end with the benchmark */
	unsigned n_pids, first_own; /* those before it are daemons */
	const char *nicd, *soft;   /* programs */
};

bool tcp_start(struct contender *c);
bool engine_start(struct contender *c);
bool nicd_start(struct contender *c);
void nicd_stop(void);       /* its daemons */
bool fabric_start(struct contender *c);

/* A child that dies with the benchmark, pinned. 0: in the child. */
pid_t data_fork(struct contender *c, int cpu);
/* The client's loop: takes orders from `sock` until it closes, never returns. */
_Noreturn void data_serve_orders(int sock, void (*run)(void *userdata, const struct order *order), void *userdata);
/* Populated memory of DATA_BUFFER bytes; with `fd` shared memory behind a sealed memfd. */
void *data_buffer(int *fd);
void data_pair(int sock[2]);
/* One message there, or here; dies at the end of the socket. */
void data_put(int sock, const void *buf, size_t len);
void data_get(int sock, void *buf, size_t len);
