/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Sessions without sockets, for tests: clients whose frames are put together by hand and whose replies are decoded, over the NIC layer
 * and the fake device, in one process and with a clock that the test turns. rig_teardown asserts that nothing is left: memory, descriptors,
 * charges, objects, what the device holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/client.h"
#include "proto/nicd.pb-c.h"
#include "tests/unit/nic/fake.h"

enum { RIG_REQUESTS = 300, RIG_REFS = 1024, RIG_FRAMES = 4096, RIG_TIMERS = 4096 };

struct rig_client {
	struct rig *rig;
	struct client *client;          /* NULL: gone */
	int sock[2];
	bool kicked;
	unsigned wakes;
	unsigned n_frames;              /* what it was told */
	Nicd__Frame *frames[RIG_FRAMES];
	uint32_t last_id;
	/* the frame being put together */
	unsigned n_requests, n_refs;
	Nicd__Request requests[RIG_REQUESTS];
	Nicd__Request *pointers[RIG_REQUESTS];
	Nicd__Ref refs[RIG_REFS];
	TAILQ_ENTRY(rig_client) next;
};

struct rig {
	struct fake_env env;
	struct nic nic;
	struct policy policy;
	struct client_host host;
	struct fake *fake;
	TAILQ_HEAD(, rig_client) clients;
	struct {
		uint64_t at;
		void (*fn)(void *arg);
		void *arg;
	} timers[RIG_TIMERS];
	unsigned n_timers;
	unsigned n_logs;
	bool end_on_log;                /* whoever something is logged about ends in the middle of it */
	struct nicd_error last_log;
	char last_method[32];
	unsigned n_fds;                 /* when it was set up */
	uint64_t blocks;                /* of memory, then */
};

int rig_setup(void **state);
int rig_teardown(void **state);
#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

unsigned rig_count_fds(void);
/* A client that has not said Hello; one that has. */
struct rig_client *rig_connect(struct rig *rig, const char *account, enum client_role role);
struct rig_client *rig_hello(struct rig *rig, const char *account, enum client_role role);
/* Its socket ends; what it held is released as far as the device lets go. */
void rig_end(struct rig_client *c);
/* Time passes: alarms and the NIC layer's deadlines. */
void rig_advance(struct rig *rig, uint64_t ns);
/* Every client that was revoked ends. */
void rig_kicked(struct rig *rig);

/* ---- frames */

/* Adds a request to the frame; `args` must live until rig_send. Returns it. */
Nicd__Request *rig_add(struct rig_client *c, uint32_t id, Nicd__Request__CallCase call, void *args);
Nicd__Ref *rig_id(struct rig_client *c, uint64_t id);
Nicd__Ref *rig_result(struct rig_client *c, uint32_t request);
/* Sends the frame with these fds, which are given away. False: a violation. */
bool rig_send(struct rig_client *c, const int *fds, unsigned n_fds);
bool rig_send_raw(struct rig_client *c, const void *data, size_t len, const int *fds, unsigned n_fds);

/* The only reply to this request since rig_forget, or NULL. */
const Nicd__Reply *rig_reply(struct rig_client *c, uint32_t id);
unsigned rig_n_replies(struct rig_client *c);
const Nicd__Event *rig_event(struct rig_client *c, Nicd__Event__Kind kind);
unsigned rig_n_events(struct rig_client *c);
const Nicd__Fatal *rig_fatal(struct rig_client *c);
void rig_forget(struct rig_client *c);

/* One request in a frame of its own, with an id of its own (c->last_id); NULL: not answered yet. */
const Nicd__Reply *rig_call(struct rig_client *c, Nicd__Request__CallCase call, void *args);
const Nicd__Reply *rig_call_fd(struct rig_client *c, Nicd__Request__CallCase call, void *args, int fd);

#define assert_reason(reply, wanted) rig_assert_reason(reply, NICD_R_##wanted, __FILE__, __LINE__)
#define assert_done(reply) rig_assert_reason(reply, NICD_R_NONE, __FILE__, __LINE__)
#define assert_violation(c, wanted) rig_assert_violation(c, NICD_R_##wanted, __FILE__, __LINE__)
void rig_assert_reason(const Nicd__Reply *reply, enum nicd_reason reason, const char *file, int line);
void rig_assert_violation(struct rig_client *c, enum nicd_reason reason, const char *file, int line);

/* ---- what most tests need */

int rig_memfd(uint64_t size, int seals);   /* populated */
uint64_t rig_memory(struct rig_client *c, uint64_t size);
uint64_t rig_pd(struct rig_client *c);
uint64_t rig_mr(struct rig_client *c, uint64_t pd);
const Nicd__Reply *rig_register(struct rig_client *c, uint64_t mr, uint64_t memory, uint64_t length, uint32_t flags);
/* A registered MR over 64 KiB of new memory in a new PD, with these rights. */
uint64_t rig_region(struct rig_client *c, uint32_t flags);
const Nicd__Reply *rig_close(struct rig_client *c, uint64_t id);
uint64_t rig_serial_of(struct rig_client *c, uint64_t id);
/* What the result of this call is; NIC_NONE: nothing that others could name. */
enum nic_type rig_makes(Nicd__Request__CallCase call);
