/* SPDX-License-Identifier: MIT */
/*
 * Each entry is a libuv timer of its own, owned by the list until it fires, then by the loop until it is closed. What
 * is to be done later must be done (somebody's reply hangs on it), so there is no way to fail but the end.
 */
#include "daemon/timers.h"

#include <stdlib.h>

#include "daemon/log.h"
#include "daemon/util.h"

struct timers_entry {
	uv_timer_t timer;
	LIST_ENTRY(timers_entry) next;
	void (*fn)(void *arg);
	void *arg;
};

void timers_init(struct timers *timers, uv_loop_t *loop)
{
	timers->loop = loop;
	LIST_INIT(&timers->pending);
}

static void on_closed(uv_handle_t *handle)
{
	free(container_of((uv_timer_t *)(void *)handle, struct timers_entry, timer));
}

static void entry_close(struct timers_entry *entry)
{
	LIST_REMOVE(entry, next);
	uv_close((uv_handle_t *)&entry->timer, on_closed);
}

static void on_timer(uv_timer_t *timer)
{
	struct timers_entry *entry = container_of(timer, struct timers_entry, timer);

	entry_close(entry);
	entry->fn(entry->arg);
}

void timers_after(struct timers *timers, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	struct timers_entry *entry = malloc(sizeof(*entry));

	if (!entry) {
		log_write(LOG_CRIT, "out of memory for a timer; a reply would be lost");
		abort();
	}
	entry->fn = fn;
	entry->arg = arg;
	LIST_INSERT_HEAD(&timers->pending, entry, next);
	uv_timer_init(timers->loop, &entry->timer);
	uv_timer_start(&entry->timer, on_timer, delay_ns / 1000000 + 1, 0);
}

void timers_close(struct timers *timers)
{
	while (!LIST_EMPTY(&timers->pending))
		entry_close(LIST_FIRST(&timers->pending));
}
