/* SPDX-License-Identifier: MIT */
/*
 * Engine to engine: two processes with nothing but a loop, tags, tickets and the engine of nicd-soft. A work request is
 * one transfer.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "nicd/object.h"
#include "nicd/soft/bytes.h"
#include "nicd/soft/engine.h"
#include "tests/bench/bench.h"
#include "tests/bench/data.h"

enum { PD = 1, IOVA = 1 << 20, STREAM = 5 };

struct node {
	uv_loop_t loop;
	struct soft_tags *tags;
	struct soft_tickets *tickets;
	struct soft_engine *engine;
	struct soft_tag *tag;

	/* Client. */
	uint32_t remote_token;
	const struct order *order;
	uint32_t posted, done;
	bool connected;
};

/* What the server says of itself. */
struct place {
	struct sockaddr_storage addr;
	uint32_t token;
};
static const uint8_t secret[NICD_TICKET_SIZE] = "benchmark-ticket";

static void random_bytes(void *buf, size_t len)
{
	if (getrandom(buf, len, 0) != (ssize_t)len)
		bench_die("getrandom");
}

static void on_opened(void *userdata, uint64_t stream, const struct soft_ticket *ticket, const char *peer)
{
}

static void on_closed(void *userdata, uint64_t stream, const struct nicd_error *why, const struct nic_counters *counters)
{
	if (((struct node *)userdata)->order)
		bench_die("the stream ended");
}

static void node_init(struct node *node)
{
	const struct soft_engine_options options = { .incarnation = 1 };
	const struct soft_engine_events events = { .opened = on_opened, .closed = on_closed, .userdata = node };
	struct soft_tag_terms terms = {
		.serial = 2, .generation = 1, .rights = NIC_REMOTE_READ | NIC_REMOTE_WRITE, .pd = PD, .iova = IOVA,
		.length = DATA_BUFFER, .n_ranges = 1, .ranges = { { 1, 0, DATA_BUFFER } },
	};
	int fd;

	data_buffer(&fd);
	uv_loop_init(&node->loop);
	node->tags = soft_tags_new(random_bytes, bench_now);
	node->tickets = soft_tickets_new(bench_now);
	if (soft_engine_new(&node->engine, &node->loop, node->tags, node->tickets, &options, &events) < 0 ||
	    soft_memory_attach(node->tags, 1, fd, DATA_BUFFER, true, NULL) < 0 ||
	    soft_tag_add(node->tags, &terms, &node->tag, NULL) < 0)
		bench_die("engine");
}

_Noreturn static void serve(int sock)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct soft_ticket ticket = { .serial = 1, .pd = PD, .uses_left = 1, .max_streams = 1, .expires_ns = UINT64_MAX };
	struct place place = { 0 };
	struct node node = { 0 };

	node_init(&node);
	locator_ticket_hash(secret, ticket.hash);
	if (soft_ticket_add(node.tickets, &ticket, NULL) < 0 ||
	    soft_engine_listen(node.engine, (const struct sockaddr *)&any, &place.addr) < 0)
		bench_die("engine");
	place.token = node.tag->remote_token;
	data_put(sock, &place, sizeof place);
	uv_run(&node.loop, UV_RUN_DEFAULT);
	_exit(0);
}

static void post_next(struct node *node);

static void on_posted(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	struct node *node = userdata;

	if (error->reason != NICD_R_NONE)
		bench_die("a transfer failed");
	node->done++;
	post_next(node);
	if (node->done == node->order->count)
		uv_stop(&node->loop);
}

static void post_next(struct node *node)
{
	const struct order *o = node->order;
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { 0 };
	const struct soft_post what = { .operation = o->write ? NIC_WRITE : NIC_READ, .entries = entry, .n_entries = 1 };

	if (node->posted == o->count)
		return;
	uint64_t at = IOVA + (uint64_t)(node->posted++ % o->depth) * o->size;
	put_le32(entry, node->tag->local_token);
	put_le32(entry + 4, node->remote_token);
	memcpy(entry + 8, &(uint64_t){ htole64(at) }, 8);
	memcpy(entry + 16, &(uint64_t){ htole64(at) }, 8);
	put_le32(entry + 24, o->size);
	soft_post(node->engine, STREAM, &what, on_posted, node);
}

static void run(void *userdata, const struct order *order)
{
	struct node *node = userdata;

	node->order = order;
	node->posted = node->done = 0;
	for (uint32_t i = 0; i < order->depth; i++)
		post_next(node);
	uv_run(&node->loop, UV_RUN_DEFAULT);
}

static void on_connected(void *userdata, const struct nicd_error *error, const struct soft_connected *result)
{
	struct node *node = userdata;

	if (error->reason != NICD_R_NONE)
		bench_die("not connected");
	node->connected = true;
}

_Noreturn static void order_and_run(int hello, int orders)
{
	struct soft_connect_terms terms = { .stream = STREAM, .pd = PD };
	struct node node = { 0 };
	struct place place;

	node_init(&node);
	data_get(hello, &place, sizeof place);
	terms.addr = place.addr;
	node.remote_token = place.token;
	memcpy(terms.ticket, secret, sizeof terms.ticket);
	soft_connect(node.engine, &terms, on_connected, &node);
	while (!node.connected)
		uv_run(&node.loop, UV_RUN_ONCE);
	data_serve_orders(orders, run, &node);
}

bool engine_start(struct contender *c)
{
	int hello[2], sock[2];

	data_pair(hello);
	data_pair(sock);
	if (data_fork(c, SERVER_CPU) == 0)
		serve(hello[0]);
	if (data_fork(c, CLIENT_CPU) == 0) {
		close(sock[0]);
		order_and_run(hello[1], sock[1]);
	}
	close(sock[1]);
	c->orders = sock[0];
	return true;
}
