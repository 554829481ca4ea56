/* SPDX-License-Identifier: MIT */
/*
 * --fault in builds for tests: time for the faulty provider. A timer lives until it has fired, or until the device closes; then
 * it fires early, because what it would wake must be freed.
 */
#include "daemon/fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/log.h"
#include "daemon/util.h"

struct fault_timer {
	uv_timer_t timer;
	LIST_ENTRY(fault_timer) next;
	void (*fn)(void *arg);
	void *arg;
};

static void on_closed(uv_handle_t *handle)
{
	free(container_of((uv_timer_t *)(void *)handle, struct fault_timer, timer));
}

static void fire(struct fault_timer *timer)
{
	LIST_REMOVE(timer, next);
	uv_close((uv_handle_t *)&timer->timer, on_closed);
	timer->fn(timer->arg);
}

static void on_timer(uv_timer_t *handle)
{
	fire(container_of(handle, struct fault_timer, timer));
}

static void fault_after(const struct nic_faulty_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	struct fault *fault = container_of((struct nic_faulty_host *)host, struct fault, host);
	struct fault_timer *timer = malloc(sizeof(*timer));

	if (!timer) {
		log_write(LOG_CRIT, "out of memory for a delay");
		abort();
	}
	timer->fn = fn;
	timer->arg = arg;
	LIST_INSERT_HEAD(&fault->pending, timer, next);
	uv_timer_init(fault->loop, &timer->timer);
	uv_timer_start(&timer->timer, on_timer, delay_ns / 1000000 + 1, 0);
}

void fault_init(struct fault *fault, uv_loop_t *loop)
{
	fault->host.timer = fault_after;
	fault->loop = loop;
	LIST_INIT(&fault->pending);
}

int fault_wrap(struct fault *fault, struct nic_provider **provider, const char *spec, char *message, size_t size)
{
	struct nicd_error error;
	int r = nic_faulty_new(provider, *provider, spec, &fault->host, &error);

	if (r == -ENOMEM)
		snprintf(message, size, "--fault: out of memory");
	else if (r < 0)
		snprintf(message, size, "--fault: '%s' is wrong at character %u; see nicd/faulty.h", spec, (unsigned)error.observed + 1);
	return r;
}

void fault_deinit(struct fault *fault)
{
	while (!LIST_EMPTY(&fault->pending))
		fire(LIST_FIRST(&fault->pending));
}
