/* SPDX-License-Identifier: MIT */
/* What the tests of the engine share. A test owns its pair; pair_free checks that nothing is left. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

#include "nicd/soft/bytes.h"

static void random_bytes(void *buf, size_t len)
{
	assert_int_equal(getrandom(buf, len, 0), len);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void on_opened(void *userdata, uint64_t stream, const struct soft_ticket *ticket, const char *peer)
{
	struct host *host = userdata;
	uint8_t byte;

	assert_true(stream >> 63);
	assert_non_null(ticket);
	assert_int_not_equal(peer[0], 0);
	if (host->watch)
		assert_int_equal(recv(host->watch, &byte, 1, MSG_PEEK | MSG_DONTWAIT), -1);
	host->opened++;
	host->stream = stream;
}

static void on_closed(void *userdata, uint64_t stream, const struct nicd_error *why, const struct nic_counters *counters)
{
	struct host *host = userdata;
	struct soft_stream_info info;

	assert_false(soft_stream_info(host->engine, stream, &info));
	host->closed++;
	host->why = *why;
	host->counters = *counters;
}

static void on_notified(void *userdata, uint64_t stream, uint64_t door, uint64_t count)
{
	struct host *host = userdata;

	assert_int_not_equal(door, 0);
	host->notices++;
	host->notifier = stream;
	host->notified = count;
}

static void on_invalidated(void *userdata, uint64_t stream, uint64_t tag, uint32_t generation)
{
	struct host *host = userdata;

	assert_null(soft_tag_find(host->tags, tag));
	assert_int_equal(generation, 1);
	host->invalidated++;
	host->invalid = tag;
}

void host_new(struct host *host, uv_loop_t *loop, const struct soft_engine_options *options)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct soft_engine_events events = {
		.opened = on_opened, .closed = on_closed, .notified = on_notified, .invalidated = on_invalidated, .userdata = host,
	};
	const struct soft_engine_options defaults = {.incarnation = 1, .receive_wait_ms = 100};

	*host = (struct host){.loop = loop, .serial = 100};
	host->tags = soft_tags_new(random_bytes, now_ns);
	host->tickets = soft_tickets_new(now_ns);
	assert_int_equal(soft_engine_new(&host->engine, loop, host->tags, host->tickets, options ? options : &defaults, &events), 0);
	assert_int_equal(soft_engine_listen(host->engine, (const struct sockaddr *)&any, &host->addr), 0);
}

void pair_new(struct pair *pair, const struct soft_engine_options *a, const struct soft_engine_options *b)
{
	assert_int_equal(uv_loop_init(&pair->loop), 0);
	host_new(&pair->a, &pair->loop, a);
	host_new(&pair->b, &pair->loop, b);
}

static void on_gone(void *userdata)
{
	struct host *host = userdata;

	host->gone = true;
}

void host_free(struct host *host)
{
	struct soft_engine_stats stats;

	soft_engine_close(host->engine, on_gone, host);
	run_until(host->loop, &host->gone);
	soft_engine_stats(host->engine, &stats);
	assert_int_equal(stats.streams, 0);
	assert_int_equal(stats.half_open, 0);
	soft_engine_free(host->engine);
	soft_tickets_free(host->tickets);
	soft_tags_free(host->tags);
}

void pair_free(struct pair *pair)
{
	host_free(&pair->a);
	host_free(&pair->b);
	assert_int_equal(uv_loop_close(&pair->loop), 0);
}

static void on_watchdog(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

static bool flag_is_set(const void *flag)
{
	return *(const bool *)flag;
}

struct least {
	const unsigned *n;
	unsigned least;
};

static bool is_at_least(const void *userdata)
{
	const struct least *l = userdata;

	return *l->n >= l->least;
}

/* False: the time is up. */
static bool run_while_not(uv_loop_t *loop, bool (*until)(const void *), const void *userdata, unsigned ms)
{
	bool late = false;
	uv_timer_t timer;

	uv_timer_init(loop, &timer);
	timer.data = &late;
	uv_update_time(loop);
	uv_timer_start(&timer, on_watchdog, ms, 0);
	while (!until(userdata) && !late)
		uv_run(loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(loop, UV_RUN_NOWAIT);   /* lets go of the timer before it leaves the stack */
	return !late;
}

void run_until(uv_loop_t *loop, const bool *flag)
{
	assert_true(run_while_not(loop, flag_is_set, flag, 5000));
}

void run_until_at_least(uv_loop_t *loop, const unsigned *n, unsigned least)
{
	const struct least l = {n, least};

	assert_true(run_while_not(loop, is_at_least, &l, 5000));
}

void run_ms(uv_loop_t *loop, unsigned ms)
{
	const bool never = false;

	run_while_not(loop, flag_is_set, &never, ms);
}

struct mem mem_new(struct host *host, size_t size)
{
	struct mem mem = {.serial = ++host->serial, .size = size};

	mem.fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(mem.fd >= 0);
	assert_int_equal(ftruncate(mem.fd, size), 0);
	mem.map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, mem.fd, 0);
	assert_true(mem.map != MAP_FAILED);
	assert_int_equal(soft_memory_attach(host->tags, mem.serial, mem.fd, size, true, NULL), 0);
	mem.memory = soft_memory_find(host->tags, mem.serial);
	return mem;
}

void mem_free(struct mem *mem)
{
	munmap(mem->map, mem->size);
	close(mem->fd);
}

void fill(uint8_t *p, size_t n, uint64_t seed)
{
	uint64_t x = seed * 2654435761u + 88172645463325252u;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x >> 32;
	}
}

struct soft_tag *tag_new(struct host *host, const struct mem *mem, uint64_t pd, uint64_t door, uint32_t rights, uint64_t iova)
{
	const struct soft_tag_terms terms = {
		.serial = ++host->serial, .generation = 1, .rights = rights, .pd = pd, .door = door, .iova = iova,
		.length = mem->size, .n_ranges = 1, .ranges = {{mem->serial, 0, mem->size}},
	};
	struct soft_tag *tag;

	assert_int_equal(soft_tag_add(host->tags, &terms, &tag, NULL), 0);
	return tag;
}

struct soft_tag *window_new(struct host *host, const struct mem *mem, uint64_t stream, uint32_t rights, uint64_t iova, uint64_t length)
{
	const struct soft_tag_terms terms = {
		.serial = ++host->serial, .generation = 1, .rights = rights, .pd = PD, .iova = iova, .length = length,
		.stream = stream, .windows = soft_stream_windows(host->engine, stream),
		.n_ranges = 1, .ranges = {{mem->serial, 0, length}},
	};
	struct soft_tag *tag;

	if (!terms.windows)
		return NULL;
	assert_int_equal(soft_tag_add(host->tags, &terms, &tag, NULL), 0);
	return tag;
}

uint64_t ticket_new(struct host *host, const uint8_t secret[NICD_TICKET_SIZE], uint64_t pd, uint64_t door, uint32_t uses,
		    uint64_t ttl_ms)
{
	struct soft_ticket terms = {
		.serial = ++host->serial, .pd = pd, .door = door, .uses_left = uses, .max_streams = uses,
		.expires_ns = now_ns() + ttl_ms * 1000000,
		.grant = {.remote_token = door ? 0x01020304 : 0, .rights = NIC_REMOTE_READ, .iova = 4096, .length = 5, .incarnation = 6},
	};

	locator_ticket_hash(secret, terms.hash);
	assert_int_equal(soft_ticket_add(host->tickets, &terms, NULL), 0);
	return terms.serial;
}

void on_connected(void *userdata, const struct nicd_error *error, const struct soft_connected *result)
{
	struct connected *c = userdata;

	assert_false(c->done);
	c->done = true;
	c->error = *error;
	c->result = *result;
}

void on_posted(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	struct posted *p = userdata;

	assert_int_equal(p->times++, 0);
	p->done = true;
	p->error = *error;
	p->completion = *result;
}

void connect_as(struct pair *pair, uint64_t number, const uint8_t secret[NICD_TICKET_SIZE], uint32_t timeout_ms,
		struct connected *ret)
{
	struct soft_connect_terms terms = {.stream = number, .pd = PD, .addr = pair->b.addr, .timeout_ms = timeout_ms};

	*ret = (struct connected){0};
	memcpy(terms.ticket, secret, NICD_TICKET_SIZE);
	soft_connect(pair->a.engine, &terms, on_connected, ret);
	run_until(&pair->loop, &ret->done);
}

void connect_pd(struct pair *pair, uint64_t number)
{
	uint8_t secret[NICD_TICKET_SIZE];
	struct connected c;
	unsigned opened = pair->b.opened;

	random_bytes(secret, sizeof(secret));
	ticket_new(&pair->b, secret, PD, 0, 1, 60000);
	connect_as(pair, number, secret, 2000, &c);
	assert_int_equal(c.error.reason, NICD_R_NONE);
	run_until_at_least(&pair->loop, &pair->b.opened, opened + 1);
}

static void put_entry(uint8_t *p, const struct entry *e)
{
	put_le32(p, e->local_token);
	put_le32(p + 4, e->remote_token);
	put_le64(p + 8, e->local_addr);
	put_le64(p + 16, e->remote_addr);
	put_le32(p + 24, e->length);
}

void post(struct host *host, uint64_t stream, enum nic_operation operation, const struct entry *entries, uint32_t n,
	  struct posted *posted)
{
	uint8_t *buf = calloc(n ? n : 1, NICD_TRANSFER_ENTRY_SIZE);

	for (uint32_t i = 0; i < n; i++)
		put_entry(buf + i * NICD_TRANSFER_ENTRY_SIZE, &entries[i]);
	*posted = (struct posted){0};
	soft_post(host->engine, stream, &(struct soft_post){.operation = operation, .entries = buf, .n_entries = n}, on_posted, posted);
	free(buf);
}

void post_send(struct host *host, uint64_t stream, const struct soft_tag *tag, uint64_t addr, uint32_t length, bool solicited,
	       uint32_t invalidate, struct posted *posted)
{
	const struct entry e = {.local_token = tag->local_token, .local_addr = addr, .length = length};
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = {0};
	const struct soft_post what = {
		.operation = NIC_SEND, .solicited = solicited, .invalidate = invalidate, .invalidate_token = invalidate,
		.entries = entry, .n_entries = 1,
	};

	put_entry(entry, &e);
	*posted = (struct posted){0};
	soft_post(host->engine, stream, &what, on_posted, posted);
}

void post_receive(struct host *host, uint64_t stream, const struct soft_tag *tag, uint64_t addr, uint32_t length,
		  struct posted *posted)
{
	const struct entry e = {.local_token = tag->local_token, .local_addr = addr, .length = length};
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = {0};

	put_entry(entry, &e);
	*posted = (struct posted){0};
	soft_receive(host->engine, stream, entry, on_posted, posted);
}

struct posted transfer(struct pair *pair, uint64_t stream, enum nic_operation operation, const struct entry *entries, uint32_t n)
{
	struct posted posted;

	post(&pair->a, stream, operation, entries, n, &posted);
	run_until(&pair->loop, &posted.done);
	return posted;
}
