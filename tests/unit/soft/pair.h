/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Two software RNICs on one loop, for the tests of the engine: each with tags, tickets, memories that the test sees through a
 * second mapping, and a note of what it was told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <uv.h>

#include "nicd/object.h"
#include "nicd/soft/engine.h"

enum { PD = 7, OTHER_PD = 8, EXPORT = 1000 };

struct host {
	uv_loop_t *loop;
	struct soft_tags *tags;
	struct soft_tickets *tickets;
	struct soft_engine *engine;
	struct sockaddr_storage addr;
	uint64_t serial;
	unsigned opened, closed;
	uint64_t stream;                 /* of the last opened */
	struct nicd_error why;           /* of the last closed */
	struct nic_counters counters;    /* of the last closed */
	unsigned notices;                /* how often something was told of notices, and how many there were */
	uint64_t notified, notifier;
	unsigned invalidated;
	uint64_t invalid;                /* tag */
	bool gone;
	int watch;                       /* a peer's socket that must have no answer yet when it is told of; 0: none */
};

struct pair {
	uv_loop_t loop;
	struct host a, b;                /* a connects to b */
};

struct mem {
	struct soft_memory *memory;
	uint64_t serial;
	uint8_t *map;                    /* the test's own */
	size_t size;
	int fd;
};

struct connected {
	bool done;
	struct nicd_error error;
	struct soft_connected result;
};

struct posted {
	bool done;
	unsigned times;
	struct nicd_error error;
	struct soft_completion completion;
};

/* `options`: NULL for the defaults. */
void pair_new(struct pair *pair, const struct soft_engine_options *a, const struct soft_engine_options *b);
void pair_free(struct pair *pair);
void host_new(struct host *host, uv_loop_t *loop, const struct soft_engine_options *options);
void host_free(struct host *host);

/* Turns the loop until *flag; fails the test after 5 s. */
void run_until(uv_loop_t *loop, const bool *flag);
void run_until_at_least(uv_loop_t *loop, const unsigned *n, unsigned least);
void run_ms(uv_loop_t *loop, unsigned ms);

struct mem mem_new(struct host *host, size_t size);
void mem_free(struct mem *mem);
void fill(uint8_t *p, size_t n, uint64_t seed);

/* The whole memory, at iova. `door` 0: of the PD. */
struct soft_tag *tag_new(struct host *host, const struct mem *mem, uint64_t pd, uint64_t door, uint32_t rights, uint64_t iova);

/* The first `length` bytes, for the peer of one stream of the host. NULL: the stream is not open. */
struct soft_tag *window_new(struct host *host, const struct mem *mem, uint64_t stream, uint32_t rights, uint64_t iova, uint64_t length);

/* Adds a ticket of which `secret` is the secret. */
uint64_t ticket_new(struct host *host, const uint8_t secret[NICD_TICKET_SIZE], uint64_t pd, uint64_t door, uint32_t uses,
		    uint64_t ttl_ms);

void on_connected(void *userdata, const struct nicd_error *error, const struct soft_connected *result);
void on_posted(void *userdata, const struct nicd_error *error, const struct soft_completion *result);

/* Connects a to b as stream `number` and waits for the answer. */
void connect_as(struct pair *pair, uint64_t number, const uint8_t secret[NICD_TICKET_SIZE], uint32_t timeout_ms,
		struct connected *ret);
/* With a new PD ticket; must succeed. */
void connect_pd(struct pair *pair, uint64_t number);

struct entry {
	uint32_t local_token, remote_token;
	uint64_t local_addr, remote_addr;
	uint32_t length;
};
void post(struct host *host, uint64_t stream, enum nic_operation operation, const struct entry *entries, uint32_t n,
	  struct posted *posted);
/* A message; `invalidate` 0: none. And a receive for one. */
void post_send(struct host *host, uint64_t stream, const struct soft_tag *tag, uint64_t addr, uint32_t length, bool solicited,
	       uint32_t invalidate, struct posted *posted);
void post_receive(struct host *host, uint64_t stream, const struct soft_tag *tag, uint64_t addr, uint32_t length,
		  struct posted *posted);
/* Posts and waits. */
struct posted transfer(struct pair *pair, uint64_t stream, enum nic_operation operation, const struct entry *entries,
		       uint32_t n);
