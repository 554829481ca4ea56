/* SPDX-License-Identifier: MIT */
/* How many connections there may be. Addresses of loopback stand for hosts. */
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "raw.h"

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde", other[NICD_TICKET_SIZE] = "another", export[NICD_TICKET_SIZE] = "export";
static const struct mpa_frame plain = {.revision = 2, .enhanced = true, .ird = 4, .ord = 4};

struct world {
	uv_loop_t loop;
	struct host host;
	struct soft_caps *caps;
	unsigned told;
	uint64_t refused;
};

static void on_cap(void *userdata, enum soft_cap cap, uint32_t limit, uint64_t refused, const char *peer)
{
	struct world *w = userdata;

	assert_int_equal(limit, w->caps->max[cap]);
	w->told++;
	w->refused = refused;
}

static void world_new(struct world *w)
{
	*w = (struct world){.told = 0};
	assert_int_equal(uv_loop_init(&w->loop), 0);
	host_new(&w->host, &w->loop, NULL);
	w->caps = soft_engine_caps(w->host.engine);
	w->caps->tell = on_cap;
	w->caps->userdata = w;
	ticket_new(&w->host, ticket, PD, 0, 100, 60000);
	ticket_new(&w->host, other, OTHER_PD, 0, 100, 60000);
	ticket_new(&w->host, export, PD, EXPORT, 100, 60000);
}

/* Nothing may be left that counts for anybody. */
static void world_free(struct world *w)
{
	run_ms(&w->loop, 20);
	/* mutation: forget to count somebody out */
	assert_int_equal(w->caps->half_open, 0);
	assert_int_equal(w->caps->streams, 0);
	assert_null(RB_ROOT(&w->caps->tallies));
	host_free(&w->host);
	assert_int_equal(uv_loop_close(&w->loop), 0);
}

/* True: let in. */
static bool enter(struct world *w, struct raw *raw, const char *from, const uint8_t *with)
{
	uint8_t buf[MPA_FRAME_MAX];

	*raw = raw_connect_from(&w->host, from);
	raw_request(raw, &plain, with);
	if (raw_reply(raw, buf).reject)
		return false;
	raw_write(raw, 1, 0, true, NULL, 0);
	run_ms(&w->loop, 5);
	return true;
}

static bool ended(struct raw *raw)
{
	uint8_t byte;

	return raw_drain(raw, &byte, 1, 1000) <= 0;
}

/* Who crowds in from one address pushes out its own only. */
static void test_half_open_by_address(void **state)
{
	enum { CAP = 3 };
	struct raw crowd[2 * CAP], quiet;
	struct world w;

	world_new(&w);
	w.caps->max[SOFT_CAP_HALF_OPEN_ADDRESS] = CAP;
	quiet = raw_connect_from(&w.host, "127.0.0.2");
	for (int i = 0; i < 2 * CAP; i++) {
		crowd[i] = raw_connect_from(&w.host, "127.0.0.3");
		run_ms(&w.loop, 2);
	}
	/* mutation: no cap by address */
	assert_int_equal(w.caps->half_open, CAP + 1);
	for (int i = 0; i < CAP; i++)
		assert_true(ended(&crowd[i]));
	/* mutation: the oldest of all goes */
	assert_true(raw_is_silent(&quiet, 5));
	assert_true(raw_is_silent(&crowd[2 * CAP - 1], 5));
	assert_int_equal(w.caps->refused[SOFT_CAP_HALF_OPEN_ADDRESS], CAP);
	/* mutation: a line in the journal for each */
	assert_int_equal(w.told, 1);
	assert_int_equal(w.refused, 1);
	for (int i = 0; i < 2 * CAP; i++)
		raw_close(&crowd[i]);
	raw_close(&quiet);
	world_free(&w);
}

static uint32_t uses_left(struct world *w)
{
	uint32_t sum = 0;

	for (struct soft_ticket *t = NULL; (t = soft_ticket_next(w->host.tickets, t ? t->serial : 0));)
		sum += t->uses_left;
	return sum;
}

/* Each cap by itself: who is in, who may not come in beside them, and who may. */
static void test_streams(void **state)
{
	static const struct {
		enum soft_cap cap;
		const char *in_from[2];
		const uint8_t *in_with[2];
		const char *out_from, *fine_from;        /* fine_from NULL: nobody */
		const uint8_t *out_with, *fine_with;
	} rows[] = {
		/* mutation: no cap on streams of all */
		{SOFT_CAP_STREAMS, {"127.0.0.2", "127.0.0.3"}, {ticket, other}, "127.0.0.4", NULL, export, NULL},
		/* mutation: no cap by address; count all addresses as one */
		{SOFT_CAP_STREAMS_ADDRESS, {"127.0.0.2", "127.0.0.2"}, {ticket, other}, "127.0.0.2", "127.0.0.3", export, ticket},
		/* mutation: no cap by PD; count exports apart from their PD; count all PDs as one */
		{SOFT_CAP_STREAMS_PD, {"127.0.0.2", "127.0.0.3"}, {ticket, export}, "127.0.0.4", "127.0.0.2", ticket, other},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct raw in[2], out, fine;
		uint32_t uses;
		struct world w;

		world_new(&w);
		w.caps->max[rows[i].cap] = 2;
		for (int k = 0; k < 2; k++)
			assert_true(enter(&w, &in[k], rows[i].in_from[k], rows[i].in_with[k]));
		uses = uses_left(&w);
		assert_false(enter(&w, &out, rows[i].out_from, rows[i].out_with));
		assert_int_equal(w.caps->refused[rows[i].cap], 1);
		assert_int_equal(w.told, 1);
		/* mutation: the use of the ticket is lost */
		assert_int_equal(uses_left(&w), uses);
		if (rows[i].fine_from) {
			assert_true(enter(&w, &fine, rows[i].fine_from, rows[i].fine_with));
			raw_close(&fine);
		}
		raw_close(&out);
		raw_close(&in[0]);
		run_ms(&w.loop, 20);
		/* mutation: a stream that ended goes on counting */
		assert_true(enter(&w, &out, rows[i].out_from, rows[i].out_with));
		raw_close(&out);
		raw_close(&in[1]);
		world_free(&w);
	}
}

/* Addresses: a /64 is one; a v4 address is the same in both families. */
static void test_addresses(void **state)
{
	static const struct {
		uint8_t a[16], b[16];
		bool same;
	} rows[] = {
		{{0x20, 1, 0, 0, 0, 0, 0, 1, 5}, {0x20, 1, 0, 0, 0, 0, 0, 1, 6}, true},
		/* mutation: compare less than the network */
		{{0x20, 1, 0, 0, 0, 0, 0, 1}, {0x20, 1, 0, 0, 0, 0, 0, 2}, false},
		/* mutation: all v4-mapped addresses are one */
		{{[10] = 0xff, 0xff, 10, 0, 0, 1}, {[10] = 0xff, 0xff, 10, 0, 0, 2}, false},
	};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
	struct sockaddr_storage a = {.ss_family = AF_INET6}, b = {.ss_family = AF_INET6};
	struct soft_tally *x, *y;
	struct soft_caps caps;

	soft_caps_init(&caps);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memcpy(&((struct sockaddr_in6 *)&a)->sin6_addr, rows[i].a, 16);
		memcpy(&((struct sockaddr_in6 *)&b)->sin6_addr, rows[i].b, 16);
		x = soft_tally_of_address(&caps, &a);
		y = soft_tally_of_address(&caps, &b);
		assert_int_equal(x == y, rows[i].same);
		soft_tally_put(&caps, x);
		soft_tally_put(&caps, y);
	}
	memcpy(&((struct sockaddr_in6 *)&a)->sin6_addr, rows[2].a, 16);
	memcpy(&b, &v4, sizeof(v4));
	x = soft_tally_of_address(&caps, &a);
	y = soft_tally_of_address(&caps, &b);
	assert_ptr_equal(x, y);
	soft_tally_put(&caps, x);
	soft_tally_put(&caps, y);
	assert_null(RB_ROOT(&caps.tallies));
}

static void on_turn(uv_prepare_t *prepare)
{
	++*(unsigned *)prepare->data;
}

/* With only the reserve left newcomers wait in line, the loop sleeps, and they are served when there is room again. */
static void test_descriptors(void **state)
{
	struct rlimit limit;
	unsigned turns = 0;
	uv_prepare_t count;
	struct raw raw;
	struct world w;
	int next;

	world_new(&w);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	raw = raw_connect(&w.host);
	next = dup(raw.fd);
	close(next);
	w.caps->max[SOFT_CAP_DESCRIPTORS] = limit.rlim_cur - next;
	uv_prepare_init(&w.loop, &count);
	count.data = &turns;
	uv_prepare_start(&count, on_turn);
	run_ms(&w.loop, 150);
	/* mutation: accept while there is any descriptor */
	assert_int_equal(w.caps->half_open, 0);
	assert_true(w.caps->refused[SOFT_CAP_DESCRIPTORS] >= 1);
	/* mutation: ask again at once, for ever */
	assert_true(turns < 100);
	w.caps->max[SOFT_CAP_DESCRIPTORS] = 16;
	run_ms(&w.loop, 150);
	/* mutation: never ask again */
	assert_int_equal(w.caps->half_open, 1);
	uv_close((uv_handle_t *)&count, NULL);
	raw_close(&raw);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_open_by_address),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
