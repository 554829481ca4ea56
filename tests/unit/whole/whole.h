/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * nicd and nicd-soft in one process and on one loop: real sessions, NIC layer and provider, and behind a socket pair
 * the real control, device and engine with a data port on the loopback. A test connects as a client, and to its own
 * exports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <uv.h>

#include "daemon/client.h"
#include "daemon/descriptors.h"
#include "daemon/env.h"
#include "daemon/session.h"
#include "nicd/adapter.h"
#include "nicd/soft/control.h"
#include "proto/nicd.pb-c.h"

enum { WHOLE_REPLIES = 64, WHOLE_ALARMS = 64 };

struct whole {
	uv_loop_t loop;
	uv_prepare_t prepare;
	uv_check_t check;
	struct env env;
	struct whole_alarm {
		uint64_t at;
		void (*fn)(void *arg);
		void *arg;
	} alarms[WHOLE_ALARMS];
	unsigned n_alarms;
	struct nic nic;
	struct policy policy;
	struct client_host host;
	struct descriptors descriptors;
	struct identity_rules rules;
	struct sessions sessions;
	struct soft_control *control;
	struct nic_provider *soft;
	struct nic_adapter *adapter;
	uv_poll_t device;
	int events;
	bool device_gone;   /* and its poll handle closed */
};

void whole_new(struct whole *whole);
/* Ends everything and asserts that nothing is left. */
void whole_free(struct whole *whole);
/* nicd-soft and nicd do not talk any more: what they do about it is daemon/device.c's. */
bool whole_device_lost(const struct whole *whole);
/* Nobody is connected, and nothing is held for anybody. */
bool whole_is_clean(const struct whole *whole);
void whole_until_clean(struct whole *whole);

/* A client: its socket, and the replies to the requests of one frame. */
struct whole_client {
	struct whole *whole;
	int fd;
	bool ended;         /* the session, by nicd */
	bool told;          /* and why */
	Nicd__Frame *frames[WHOLE_REPLIES];
	unsigned n_frames;
};
void whole_dial(struct whole *whole, struct whole_client *client);
void whole_hang_up(struct whole_client *client);
/* Sends it, and turns the loop until each request has its reply or the session has ended. Fails the test when neither happens. */
void whole_ask(struct whole_client *client, Nicd__Request **requests, unsigned n, const int *fds, unsigned n_fds);
/* Of the last frame; NULL: the session ended before. */
const Nicd__Reply *whole_reply(const struct whole_client *client, uint32_t id);
