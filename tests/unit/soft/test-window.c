/* SPDX-License-Identifier: MIT */
/* Tags of one stream: its peer alone may use them, on either side of a connection and behind any door, and they go with the stream. */
#include <string.h>

#include "raw.h"

enum { IOVA = 0x7000000, IOVA_A = 0x100000, SIZE = 65536, WINDOW = 8192, FIRST = 501, SECOND = 502, BY_EXPORT = 503 };

struct world {
	struct pair pair;                /* a is connected to b three times */
	struct mem mem_a, mem_b;
	struct soft_tag *own;            /* of a */
	uint64_t first, second, third;   /* at b */
};

static void world_new(struct world *w)
{
	const uint8_t secret[NICD_TICKET_SIZE] = "export";
	struct connected c;

	pair_new(&w->pair, NULL, NULL);
	w->mem_a = mem_new(&w->pair.a, SIZE);
	w->mem_b = mem_new(&w->pair.b, SIZE);
	memset(w->mem_b.map, 'b', SIZE);
	w->own = tag_new(&w->pair.a, &w->mem_a, PD, 0, NIC_LOCAL_WRITE, IOVA_A);
	connect_pd(&w->pair, FIRST);
	w->first = w->pair.b.stream;
	connect_pd(&w->pair, SECOND);
	w->second = w->pair.b.stream;
	ticket_new(&w->pair.b, secret, PD, EXPORT, 1, 60000);
	connect_as(&w->pair, BY_EXPORT, secret, 2000, &c);
	assert_int_equal(c.error.reason, NICD_R_NONE);
	run_until_at_least(&w->pair.loop, &w->pair.b.opened, 3);
	w->third = w->pair.b.stream;
}

static void world_free(struct world *w)
{
	pair_free(&w->pair);
	mem_free(&w->mem_a);
	mem_free(&w->mem_b);
}

static uint64_t n_tags(const struct host *host)
{
	struct soft_tags_stats stats;

	soft_tags_stats(host->tags, &stats);
	return stats.tags;
}

/* How a transfer of a's by this stream ends. */
static enum nicd_reason go(struct world *w, uint64_t stream, enum nic_operation operation, uint32_t token, uint64_t addr, uint32_t length)
{
	const struct entry entry = {w->own->local_token, token, IOVA_A, addr, length};

	return transfer(&w->pair, stream, operation, &entry, 1).error.reason;
}

static void test_one_peer(void **state)
{
	struct soft_tag *window;
	struct world w;

	world_new(&w);
	window = window_new(&w.pair.b, &w.mem_b, w.first, NIC_REMOTE_READ, IOVA, WINDOW);
	/* mutation: draw a local token for a window */
	assert_int_equal(window->local_token, 0);
	assert_int_equal(go(&w, FIRST, NIC_READ, window->remote_token, IOVA, WINDOW), NICD_R_NONE);
	assert_int_equal(w.mem_a.map[WINDOW - 1], 'b');
	/* A second peer of the same PD, and one behind an export's door. mutation: leave the stream out of the scope */
	assert_int_equal(go(&w, SECOND, NIC_READ, window->remote_token, IOVA, 1), NICD_R_REMOTE_TOKEN);
	assert_int_equal(go(&w, BY_EXPORT, NIC_READ, window->remote_token, IOVA, 1), NICD_R_REMOTE_TOKEN);
	/* Its own peer is not in the way of that, and has read rights, in this range only. mutation: a window of all rights */
	assert_int_equal(go(&w, FIRST, NIC_READ, window->remote_token, IOVA + WINDOW - 1, 1), NICD_R_NONE);
	/* DDP has no word for a right that lacks */
	assert_int_equal(go(&w, FIRST, NIC_WRITE, window->remote_token, IOVA, 1), NICD_R_REMOTE_TOKEN);
	assert_int_equal(w.mem_b.map[0], 'b');
	world_free(&w);
}

static void test_outside(void **state)
{
	struct soft_tag *mr, *window;
	struct world w;

	world_new(&w);
	mr = tag_new(&w.pair.b, &w.mem_b, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, IOVA);
	window = window_new(&w.pair.b, &w.mem_b, w.first, NIC_REMOTE_WRITE, IOVA, WINDOW);
	assert_int_equal(go(&w, SECOND, NIC_WRITE, mr->remote_token, IOVA + WINDOW, 1), NICD_R_NONE);
	/* mutation: check a window against its MR's range */
	assert_int_equal(go(&w, FIRST, NIC_WRITE, window->remote_token, IOVA + WINDOW, 1), NICD_R_REMOTE_RANGE);
	world_free(&w);
}

/* By whatever door the stream came: also one that otherwise reaches its export only, and one that this side has made. */
static void test_any_stream(void **state)
{
	struct soft_tag *by_export, *outbound, *own;
	struct posted posted;
	struct world w;

	world_new(&w);
	by_export = window_new(&w.pair.b, &w.mem_b, w.third, NIC_REMOTE_READ, IOVA, WINDOW);
	/* mutation: look at the grants before the window */
	assert_int_equal(go(&w, BY_EXPORT, NIC_READ, by_export->remote_token, IOVA, 1), NICD_R_NONE);
	outbound = window_new(&w.pair.a, &w.mem_a, FIRST, NIC_REMOTE_WRITE, IOVA, WINDOW);
	own = tag_new(&w.pair.b, &w.mem_b, PD, 0, 0, IOVA);
	post(&w.pair.b, w.first, NIC_WRITE, &(struct entry){own->local_token, outbound->remote_token, IOVA, IOVA, 5}, 1, &posted);
	run_until(&w.pair.loop, &posted.done);
	assert_int_equal(posted.error.reason, NICD_R_NONE);
	assert_memory_equal(w.mem_a.map, "bbbbb\0", 6);
	/* but not what its own side has in the PD. mutation: an outbound stream's peer has the PD's scope */
	post(&w.pair.b, w.first, NIC_WRITE, &(struct entry){own->local_token, w.own->remote_token, IOVA, IOVA_A, 5}, 1, &posted);
	run_until(&w.pair.loop, &posted.done);
	assert_int_equal(posted.error.reason, NICD_R_REMOTE_TOKEN);
	world_free(&w);
}

/* mutation: leave windows behind when a stream ends, in one of the ways, or take others along */
static void test_goes_with_stream(void **state)
{
	for (unsigned how = 0; how < 4; how++) {
		struct soft_tag *of_other;
		uint64_t before;
		struct world w;

		world_new(&w);
		before = n_tags(&w.pair.b);
		of_other = window_new(&w.pair.b, &w.mem_b, w.second, NIC_REMOTE_READ, IOVA, WINDOW);
		for (unsigned i = 0; i < 100; i++)
			assert_non_null(window_new(&w.pair.b, &w.mem_b, w.first, NIC_REMOTE_READ, IOVA + i, WINDOW));
		assert_int_equal(n_tags(&w.pair.b), before + 101);
		if (how == 0)
			soft_disconnect(w.pair.b.engine, w.first);
		else if (how == 1)
			soft_disconnect(w.pair.a.engine, FIRST);
		else if (how == 2)
			go(&w, FIRST, NIC_READ, 0x12345678, IOVA, 1);
		else
			soft_tags_reset(w.pair.b.tags);
		if (how == 1 || how == 2)
			run_until_at_least(&w.pair.loop, &w.pair.b.closed, 1);
		assert_int_equal(n_tags(&w.pair.b), how == 3 ? 0 : before + 1);
		if (how < 3) {
			assert_null(window_new(&w.pair.b, &w.mem_b, w.first, NIC_REMOTE_READ, IOVA, WINDOW));
			assert_int_equal(go(&w, SECOND, NIC_READ, of_other->remote_token, IOVA, 1), NICD_R_NONE);
		}
		world_free(&w);
	}
}

/* Dropped alone, in any order. mutation: leave a dropped one in its stream's list */
static void test_drop(void **state)
{
	struct soft_tag *windows[3];
	uint32_t token;
	struct world w;

	world_new(&w);
	for (unsigned i = 0; i < 3; i++)
		windows[i] = window_new(&w.pair.b, &w.mem_b, w.first, NIC_REMOTE_READ, IOVA, WINDOW);
	token = windows[1]->remote_token;
	soft_tag_drop(w.pair.b.tags, windows[1]->serial, 1);
	assert_int_equal(go(&w, FIRST, NIC_READ, windows[0]->remote_token, IOVA, 1), NICD_R_NONE);
	assert_int_equal(go(&w, FIRST, NIC_READ, windows[2]->remote_token, IOVA, 1), NICD_R_NONE);
	assert_int_equal(go(&w, FIRST, NIC_READ, token, IOVA, 1), NICD_R_REMOTE_TOKEN);
	world_free(&w);
}

/* A message of another peer does not invalidate it; one of its own does. mutation: leave the stream out of soft_tag_invalidatable */
static void test_invalidate(void **state)
{
	struct posted receive, send;
	struct soft_tag *window, *sink;
	uint32_t token;
	struct world w;

	world_new(&w);
	sink = tag_new(&w.pair.b, &w.mem_b, PD, 0, NIC_LOCAL_WRITE, IOVA);
	window = window_new(&w.pair.b, &w.mem_b, w.first, NIC_REMOTE_READ | NIC_INVALIDATABLE, IOVA, WINDOW);
	token = window->remote_token;
	post_receive(&w.pair.b, w.second, sink, IOVA, 100, &receive);
	post_send(&w.pair.a, SECOND, w.own, IOVA_A, 10, false, token, &send);
	run_until(&w.pair.loop, &send.done);
	assert_int_equal(send.error.reason, NICD_R_REMOTE_INVALIDATE);
	assert_int_equal(w.pair.b.invalidated, 0);
	assert_int_equal(go(&w, FIRST, NIC_READ, token, IOVA, 1), NICD_R_NONE);
	post_receive(&w.pair.b, w.first, sink, IOVA, 100, &receive);
	post_send(&w.pair.a, FIRST, w.own, IOVA_A, 10, false, token, &send);
	run_until(&w.pair.loop, &receive.done);
	assert_int_equal(receive.completion.token, token);
	assert_int_equal(w.pair.b.invalidated, 1);
	run_until(&w.pair.loop, &send.done);
	assert_int_equal(go(&w, FIRST, NIC_READ, token, IOVA, 1), NICD_R_REMOTE_TOKEN);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_peer),
		cmocka_unit_test(test_outside),
		cmocka_unit_test(test_any_stream),
		cmocka_unit_test(test_goes_with_stream),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_invalidate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
