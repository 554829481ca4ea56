/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The way to the NIC: finds or starts nicd-soft, makes an adapter of it, polls its socket, and begins again when it is lost. Each time it
 * comes back it is a new adapter: everything of the old one is gone.
 *
 *   OFF --start--> OPENING --answered Hello--> UP --lost--> WAITING --timer--> OPENING …
 *                     \---failed--> WAITING        any --stop--> STOPPED
 */
#include <stdbool.h>
#include <uv.h>

#include "daemon/fault.h"
#include "daemon/options.h"
#include "daemon/softproc.h"
#include "nicd/adapter.h"
#include "nicd/nic.h"

enum device_state { DEVICE_OFF, DEVICE_OPENING, DEVICE_UP, DEVICE_WAITING, DEVICE_STOPPED };

struct device_opening;

struct device {
	uv_loop_t *loop;
	struct nic *nic;
	const struct options *options;
	struct softproc softproc;           /* rootless */
	enum device_state state;
	struct nic_adapter *adapter;        /* UP: ours to look at, the NIC layer's to free */
	struct nic_provider *soft;          /* UP: what is polled; the adapter's, or inside it */
	struct device_opening *opening;     /* on a worker */
	uv_poll_t *poll;                    /* UP */
	int events;
	uv_timer_t retry;                   /* WAITING: to open it; UP: to send what the kernel could not take */
	struct fault fault;
	unsigned failures;                  /* in a row */
	unsigned open_handles;
	char message[512];                  /* WAITING: why */
	void (*changed)(struct device *device);
	void *userdata;
};

/* The hook and userdata are the caller's to set before. */
int device_init(struct device *device, uv_loop_t *loop, struct nic *nic, const struct options *options);
/* The first attempt, before the loop runs: waits for the device to answer, at most some seconds. */
void device_start(struct device *device);
/* The end of a turn of the loop: polls for what the provider wants now. */
void device_turn(struct device *device);
/* "soft0 data 127.0.0.1:7190" */
void device_describe(const struct device *device, char *text, size_t size);
/* No new adapter from now on; nicd-soft is stopped if it is ours. `changed` follows, at once or later, when device_stopped. */
void device_stop(struct device *device);
bool device_stopped(const struct device *device);
/* Cuts the line: every command in flight ends with DEVICE_LOST. For when a clean end takes too long. */
void device_cut(struct device *device);
/* When stopped. The loop must run until device_closed. */
void device_close(struct device *device);
bool device_closed(const struct device *device);
