/* SPDX-License-Identifier: MIT */
#include "fake-engine.h"

#include <stdlib.h>
#include <string.h>

struct fake_engine fake;

void fake_end_connect(enum nicd_reason reason)
{
	struct nicd_error error = {.reason = reason};
	struct soft_connected result = {.peer = "127.0.0.2:7190", .has_grant = true, .grant = {1, 2, 3, 4, 5}};
	void (*connected)(void *, const struct nicd_error *, const struct soft_connected *) = fake.connected;

	fake.connected = NULL;
	if (connected)
		connected(fake.connect_userdata, reason ? &error : NULL, reason ? NULL : &result);
}

void fake_end_post(enum nicd_reason reason, uint32_t entries)
{
	struct nicd_error error = {.reason = reason};
	struct soft_completion result = {.entries = entries, .bytes = entries * 100ull, .failed = entries, .inexact = true};
	void (*posted)(void *, const struct nicd_error *, const struct soft_completion *) = fake.posted;

	fake.posted = NULL;
	if (posted)
		posted(fake.post_userdata, reason ? &error : NULL, &result);
}

int soft_engine_new(struct soft_engine **ret, uv_loop_t *loop, struct soft_tags *tags, struct soft_tickets *tickets,
		    const struct soft_engine_options *options, const struct soft_engine_events *events)
{
	fake = (struct fake_engine){.events = *events};
	*ret = (struct soft_engine *)&fake;
	return 0;
}

void soft_engine_close(struct soft_engine *engine, void (*closed)(void *userdata), void *userdata)
{
	soft_engine_reset(engine);
	fake.closed = true;
	closed(userdata);
}

void soft_engine_reset(struct soft_engine *engine)
{
	fake.resets++;
	fake_end_connect(NICD_R_CONNECT);
	fake_end_post(NICD_R_FLUSHED, 0);
	for (unsigned i = 0; i < fake.n_streams; i++)
		fake.events.closed(fake.events.userdata, fake.streams[i].stream, NULL, &fake.streams[i].counters);
	fake.n_streams = 0;
}

void soft_engine_reset_begin(struct soft_engine *engine)
{
	soft_engine_reset(engine);
}

bool soft_engine_reset_step(struct soft_engine *engine)
{
	return false;
}

void soft_engine_free(struct soft_engine *engine)
{
}

int soft_engine_listen(struct soft_engine *engine, const struct sockaddr *addr, struct sockaddr_storage *bound)
{
	return 0;
}

int soft_engine_listen_fd(struct soft_engine *engine, int fd, struct sockaddr_storage *bound)
{
	return 0;
}

void soft_connect(struct soft_engine *engine, const struct soft_connect_terms *terms,
		  void (*done)(void *userdata, const struct nicd_error *error, const struct soft_connected *result),
		  void *userdata)
{
	fake_end_connect(NICD_R_CONNECT);   /* there is room for one */
	fake.connect = *terms;
	fake.connected = done;
	fake.connect_userdata = userdata;
	if (terms->timeout_ms == 1)
		fake_end_connect(NICD_R_CONNECT);   /* before the call returns */
}

void soft_post(struct soft_engine *engine, uint64_t stream, const struct soft_post *what,
	       void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
	       void *userdata)
{
	fake_end_post(NICD_R_FLUSHED, 0);
	fake.post = *what;
	fake.operation = what->operation;
	fake.post_entries = what->n_entries;
	memcpy(fake.first_entry, what->entries, sizeof(fake.first_entry));
	fake.posted = done;
	fake.post_userdata = userdata;
}

void soft_receive(struct soft_engine *engine, uint64_t stream, const uint8_t *entry,
		  void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
		  void *userdata)
{
	const struct soft_post what = {.operation = NIC_RECEIVE, .entries = entry, .n_entries = 1};

	soft_post(engine, stream, &what, done, userdata);
}

enum soft_turn soft_turn_of(struct soft_engine *engine, uint64_t stream, bool fence)
{
	fake.turn_stream = stream;
	fake.turn_fence = fence;
	return fake.turn;
}

/* It comes as the end of a post. */
struct soft_work *soft_turn_wait(struct soft_engine *engine, uint64_t stream, bool fence,
				 void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result),
				 void *userdata)
{
	fake_end_post(NICD_R_FLUSHED, 0);
	fake.posted = done;
	fake.post_userdata = userdata;
	return (struct soft_work *)&fake;   /* not looked into */
}

bool soft_turn_forget(struct soft_work *turn)
{
	if (fake.turn_has_come)
		return false;
	fake.posted = NULL;
	fake.turns_forgotten++;
	return true;
}

unsigned soft_engine_notices(struct soft_engine *engine, unsigned max)
{
	unsigned n = fake.notices < max ? fake.notices : max;

	for (unsigned i = 0; i < n; i++)
		fake.events.notified(fake.events.userdata, 77, 78, ++fake.noticed);
	fake.notices -= n;
	return n;
}

void soft_flush(struct soft_engine *engine, uint64_t stream)
{
	fake_end_post(NICD_R_FLUSHED, 3);
}

bool soft_disconnect(struct soft_engine *engine, uint64_t stream)
{
	fake.disconnected = stream;
	return false;
}

bool soft_engine_cut_door(struct soft_engine *engine, uint64_t serial, uint64_t until, unsigned *n)
{
	fake.cut = serial;
	*n += fake.cuts;
	if (fake.more_cuts == 0 || until == UINT64_MAX)
		return false;
	fake.more_cuts--;
	return true;
}

struct soft_windows *soft_stream_windows(struct soft_engine *engine, uint64_t stream)
{
	return NULL;
}

bool soft_stream_info(struct soft_engine *engine, uint64_t stream, struct soft_stream_info *ret)
{
	for (unsigned i = 0; i < fake.n_streams; i++) {
		if (fake.streams[i].stream != stream)
			continue;
		*ret = fake.streams[i];
		return true;
	}
	return false;
}

bool soft_stream_next(struct soft_engine *engine, uint64_t after, struct soft_stream_info *ret)
{
	for (unsigned i = 0; i < fake.n_streams; i++) {
		if (fake.streams[i].stream <= after)
			continue;
		*ret = fake.streams[i];
		return true;
	}
	return false;
}

void soft_engine_stats(const struct soft_engine *engine, struct soft_engine_stats *ret)
{
	*ret = (struct soft_engine_stats){.streams = fake.n_streams, .half_open = 7};
	for (unsigned i = 0; i < SOFT_CAPS; i++)
		ret->caps[i] = (struct soft_cap_stats){.limit = 100 + i, .refused = 300 + i};
	ret->caps[SOFT_CAP_STREAMS].now = 200;
	ret->caps[SOFT_CAP_STREAMS].counted = true;
}
