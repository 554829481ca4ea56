/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The other end of a session, in the test's hand: a socket whose packets the test reads and writes itself. No thread: what
 * a waiting call is to be answered is sent before the call is made (request ids count up, Hello is 1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/nicd.h"
#include "proto/frame.h"
#include "proto/nicd.pb-c.h"

struct fake {
	int sock;                 /* nicd's end */
	struct nicd *n;           /* the client's; NULL when the test has freed it */
	struct frame_out out;
	struct arena arena;
	uint8_t in[NICD_FRAME_MAX + 1];
	int fds[NICD_FRAME_FDS];  /* that came with the last frame read; closed with the next */
	unsigned n_fds;
	unsigned fds_before;      /* open in this process when the test began */
};

/*
 * cmocka fixtures: a session that has said Hello (id 1); the next request is 2. The teardown frees it and compares open fds.
 */
int fake_setup(void **state);
int fake_teardown(void **state);
/* The same without a session. */
int fake_setup_closed(void **state);

/* Frees the session now: for tests whose callbacks are still to come, to variables of the test. */
void fake_free(struct fake *fake);

/* The reply to Hello, and nicd_open over the socket pair. What nicd_open returns. */
int fake_open(struct fake *fake, struct nicd_open_attr *attr);
void fake_say_hello(struct fake *fake);

/* The next frame that the client has sent; valid until the next. Fails the test when there is none. */
Nicd__Frame *fake_read(struct fake *fake);
/* The client has sent nothing. */
void fake_silent(struct fake *fake);

/* Collects replies; fake_send sends them in one frame. */
void fake_reply(struct fake *fake, Nicd__Reply *reply);
void fake_reply_ok(struct fake *fake, uint32_t id);
void fake_reply_object(struct fake *fake, uint32_t id, uint64_t object);
void fake_reply_memory(struct fake *fake, uint32_t id, uint64_t object);
void fake_reply_mr(struct fake *fake, uint32_t id, uint32_t local, uint32_t remote);
void fake_reply_error(struct fake *fake, uint32_t id, enum nicd_reason reason);
void fake_event(struct fake *fake, Nicd__Event__Kind kind, uint64_t object, uint64_t serial);
void fake_send(struct fake *fake);
/* A packet of any bytes. */
void fake_send_bytes(struct fake *fake, const void *data, size_t len);
void fake_hang_up(struct fake *fake);

unsigned count_fds(void);

/* What a callback saw. */
struct told {
	int called;
	int error;
	char reason[48];
	unsigned at;              /* its place among all callbacks of the test, from 1 */
};
extern unsigned told_count;
void tell(struct nicd *n, int error, void *told);

#define test_open(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
#define test_closed(name) cmocka_unit_test_setup_teardown(name, fake_setup_closed, fake_teardown)
