/* SPDX-License-Identifier: MIT */
/*
 * What the local protocol costs. A table of cases; each measures ours and, where there is one, the other in turn, ROUNDS times, and
 * reports medians and their ratio. Latency is measured with both ends on one core, where the figures are steady; throughput is
 * given per second of the daemon's own CPU time.
 *
 *   bench --nicd PATH --soft PATH [--json FILE] [--rounds N]
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/rpc.h"

enum { ROUNDS_MAX = 31, BATCH = 256, SETS = 8, MRS = (1 + SETS) * BATCH, QPS = 4, WINDOW = 64, PACKED = 4096 };

struct bench {
	struct daemon daemon;
	struct peer peer;
	int echo_uv, echo_blocking;
	int memfd;
	uint64_t pd, memory, mr[MRS];   /* the first BATCH of the MRs are registered all the time */
	uint64_t qp[QPS], mw[SETS * BATCH], fast[SETS * BATCH];   /* made by the first that needs them */
	struct frame *ring[WINDOW];
	double pair_cpu;                /* of nicd, for each pair of the last `pairs` */
};

/* ---- frames */

static void add_register(struct bench *b, struct frame *frame, uint32_t id, uint64_t mr)
{
	Nicd__Ref mr_ref = NICD__REF__INIT, memory_ref = NICD__REF__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges = &range;
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	mr_ref.of_case = memory_ref.of_case = NICD__REF__OF_ID;
	mr_ref.id = mr;
	memory_ref.id = b->memory;
	range.memory = &memory_ref;
	range.length = 4096;
	reg.mr = &mr_ref;
	reg.n_ranges = 1;
	reg.ranges = &ranges;
	reg.iova = 0x10000;
	reg.flags = NICD__MR_FLAG__MR_ALLOW_REMOTE_WRITE | NICD__MR_FLAG__MR_ALLOW_REMOTE_READ;
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_REGISTER_MR;
	request.register_mr = &reg;
	frame_add(frame, &request);
}

static void add_deregister(struct frame *frame, uint32_t id, uint64_t mr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__DeregisterMr dereg = NICD__DEREGISTER_MR__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = mr;
	dereg.mr = &ref;
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_DEREGISTER_MR;
	request.deregister_mr = &dereg;
	frame_add(frame, &request);
}

static void add_memory(struct frame *frame, uint32_t id)
{
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	request.id = id;
	request.fds = 1;
	request.call_case = NICD__REQUEST__CALL_ADD_MEMORY;
	request.add_memory = &add;
	frame_add(frame, &request);
}

static void add_close(struct frame *frame, uint32_t id, uint32_t result_of)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Close close_it = NICD__CLOSE__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	ref.of_case = NICD__REF__OF_RESULT_OF;
	ref.result_of = result_of;
	close_it.object = &ref;
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_CLOSE;
	request.close = &close_it;
	frame_add(frame, &request);
}

static struct frame *ring(struct bench *b, unsigned i)
{
	b->ring[i]->len = 0;
	return b->ring[i];
}

static void collect(struct bench *b, unsigned replies, bool check)
{
	while (replies) {
		unsigned n = peer_replies(&b->peer, check);
		if (n > replies)
			bench_die("more replies than requests");
		replies -= n;
	}
}

/* ---- the cases: nanoseconds of one operation */

static double echo_round(int sock, char what, int fd, unsigned n)
{
	static struct frame frame;
	uint8_t buf[64];

	memset(frame.data, 0, 32);
	frame.len = 32;
	frame.data[0] = (uint8_t)what;
	uint64_t start = bench_now();
	for (unsigned i = 0; i < n; i++) {
		frame_send(sock, &frame, fd);
		if (recv(sock, buf, sizeof buf, 0) != 32)
			bench_die("echo");
	}
	return (double)(bench_now() - start) / n;
}

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof *v, order);
	return v[n / 2];
}

/* The p50 of many single round trips. */
enum { TRIPS = 4000 };

static double trips_echo(int sock)
{
	static double t[TRIPS];

	for (unsigned i = 0; i < TRIPS; i++)
		t[i] = echo_round(sock, 'E', -1, 1);
	return median(t, TRIPS);
}

static double query_ours(struct bench *b)
{
	static double t[TRIPS];
	struct frame *f = ring(b, 0);

	frame_add_query(f, 1, b->mr[0]);
	for (unsigned i = 0; i < TRIPS; i++) {
		uint64_t start = bench_now();
		frame_send(b->peer.sock, f, -1);
		collect(b, 1, i == 0);
		t[i] = (double)(bench_now() - start);
	}
	return median(t, TRIPS);
}

static double query_echo(struct bench *b)
{
	return trips_echo(b->echo_uv);
}

static double query_blocking(struct bench *b)
{
	return trips_echo(b->echo_blocking);
}

static double query_rpc(struct bench *b)
{
	static double t[TRIPS];

	for (unsigned i = 0; i < TRIPS; i++) {
		uint64_t start = bench_now();
		rpc_call();
		t[i] = (double)(bench_now() - start);
	}
	return median(t, TRIPS);
}

/* The same query, with thousands of idle sessions beside it and without. */
static double query_crowded(struct bench *b)
{
	idle_open(&b->daemon);
	return query_ours(b);
}

static double query_alone(struct bench *b)
{
	idle_close(&b->daemon);
	return query_ours(b);
}

/* Memory that each of them costs nicd. */
static double idle_session(struct bench *b)
{
	static uint64_t before;   /* there was any; what they leave behind is kept for the next ones */

	if (!before)
		before = daemon_pss(&b->daemon);
	idle_open(&b->daemon);
	return (double)(daemon_pss(&b->daemon) - before) / IDLE_SESSIONS;
}

/* Sends what `fill` puts into frames of `per_frame` requests, `frames` of them on their way at once; ns of daemon CPU per request. */
static double flood(struct bench *b, unsigned frames, unsigned per_frame, unsigned total,
		    void (*fill)(struct bench *b, struct frame *f, unsigned frame, unsigned per_frame))
{
	unsigned waiting[WINDOW], sent = 0, got = 0;

	for (unsigned i = 0; i < frames; i++)
		fill(b, ring(b, i), i, per_frame);
	for (unsigned i = 0; i < frames; i++) {   /* warm, and look at the replies once */
		frame_send(b->peer.sock, b->ring[i], -1);
		collect(b, per_frame, true);
		waiting[i] = 0;
	}
	uint64_t cpu = bench_cpu(b->daemon.pid);
	unsigned in_flight = 0, head = 0, tail = 0, left = 0;
	while (got < total) {
		while (in_flight < frames && sent < total) {
			frame_send(b->peer.sock, b->ring[head], -1);
			waiting[head] = per_frame;
			head = (head + 1) % frames;
			sent += per_frame;
			in_flight++;
		}
		unsigned n = peer_replies(&b->peer, false);
		got += n;
		for (n += left, left = 0; in_flight && n >= waiting[tail]; in_flight--) {
			n -= waiting[tail];
			tail = (tail + 1) % frames;
		}
		left = n;
	}
	return (double)(bench_cpu(b->daemon.pid) - cpu) / total;
}

static void fill_queries(struct bench *b, struct frame *f, unsigned frame, unsigned per_frame)
{
	for (unsigned i = 0; i < per_frame; i++)
		frame_add_query(f, frame * per_frame + i + 1, b->mr[i % BATCH]);
}

static double pipelined_ours(struct bench *b)
{
	return flood(b, WINDOW, 1, 100000, fill_queries);
}

static double batch_ours(struct bench *b)
{
	return flood(b, 4, BATCH, 4000 * BATCH, fill_queries);
}

static void fill_packed(struct bench *b, struct frame *f, unsigned frame, unsigned per_frame)
{
	static uint64_t ids[PACKED];
	Nicd__QueryTokens query = NICD__QUERY_TOKENS__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	for (unsigned i = 0; i < PACKED; i++)
		ids[i] = b->mr[i % BATCH];
	query.n_mrs = PACKED;
	query.mrs = ids;
	request.id = frame + 1;
	request.call_case = NICD__REQUEST__CALL_QUERY_TOKENS;
	request.query_tokens = &query;
	frame_add(f, &request);
}

static double packed_ours(struct bench *b)
{
	return flood(b, 4, 1, 4000, fill_packed) / PACKED;
}

static double memory_ours(struct bench *b)
{
	enum { N = 2000 };
	Nicd__Reply *reply;
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__AddMemory message = NICD__ADD_MEMORY__INIT;
	uint64_t spent = 0;

	for (unsigned i = 0; i < N; i++) {
		request.call_case = NICD__REQUEST__CALL_ADD_MEMORY;
		request.add_memory = &message;
		uint64_t start = bench_now();
		reply = peer_call(&b->peer, &request, b->memfd);
		spent += bench_now() - start;
		Nicd__Ref ref = NICD__REF__INIT;
		Nicd__Close close_it = NICD__CLOSE__INIT;
		ref.of_case = NICD__REF__OF_ID;
		ref.id = reply->memory->id;
		close_it.object = &ref;
		nicd__reply__free_unpacked(reply, NULL);
		Nicd__Request second = NICD__REQUEST__INIT;
		second.call_case = NICD__REQUEST__CALL_CLOSE;
		second.close = &close_it;
		start = bench_now();
		reply = peer_call(&b->peer, &second, -1);
		spent += bench_now() - start;
		nicd__reply__free_unpacked(reply, NULL);
	}
	return (double)spent / N;
}

static double memory_bare(struct bench *b)
{
	enum { N = 2000 };
	double sum = 0;

	for (unsigned i = 0; i < N; i++) {
		sum += echo_round(b->echo_uv, 'M', b->memfd, 1);
		sum += echo_round(b->echo_uv, 'U', -1, 1);
	}
	return sum / N;
}

/* Both in one frame, the second naming the first's result. */
static double memory_frame_ours(struct bench *b)
{
	enum { N = 4000 };
	struct frame *f = ring(b, 0);

	add_memory(f, 1);
	add_close(f, 2, 1);
	uint64_t start = bench_now();
	for (unsigned i = 0; i < N; i++) {
		frame_send(b->peer.sock, f, b->memfd);
		collect(b, 2, i == 0);
	}
	return (double)(bench_now() - start) / N;
}

static double pair_ours(struct bench *b)
{
	enum { N = 4000 };
	struct frame *reg = ring(b, 0), *dereg = ring(b, 1);

	add_register(b, reg, 1, b->mr[BATCH]);
	add_deregister(dereg, 2, b->mr[BATCH]);
	uint64_t start = bench_now();
	for (unsigned i = 0; i < N; i++) {
		frame_send(b->peer.sock, reg, -1);
		collect(b, 1, i == 0);
		frame_send(b->peer.sock, dereg, -1);
		collect(b, 1, i == 0);
	}
	return (double)(bench_now() - start) / N;
}

static double pair_echo(struct bench *b)
{
	return 2 * echo_round(b->echo_uv, 'E', -1, 8000);
}

/*
 * Begins and ends eight sets of 256 things, a frame each, one after the other per set, the sets side by side; wall time, because
 * nicd-soft works on the other core meanwhile.
 */
static double pairs(struct bench *b, void (*begin)(struct bench *b, struct frame *frame, uint32_t id, unsigned n),
		    void (*end)(struct bench *b, struct frame *frame, uint32_t id, unsigned n))
{
	enum { LAPS = 150 };
	unsigned waiting[SETS] = { 0 }, laps = 0, turn = 0;

	for (unsigned s = 0; s < SETS; s++) {
		struct frame *reg = ring(b, 2 * s), *dereg = ring(b, 2 * s + 1);
		for (unsigned i = 0; i < BATCH; i++) {
			begin(b, reg, 1 + s * BATCH + i, s * BATCH + i);
			end(b, dereg, 1 + s * BATCH + i, s * BATCH + i);
		}
		frame_send(b->peer.sock, reg, -1);
		collect(b, BATCH, true);
		frame_send(b->peer.sock, dereg, -1);
		collect(b, BATCH, true);
	}
	uint64_t start = bench_now(), cpu = bench_cpu(b->daemon.pid);
	unsigned step[SETS] = { 0 };
	for (unsigned s = 0; s < SETS; s++) {
		frame_send(b->peer.sock, b->ring[2 * s], -1);
		waiting[s] = BATCH;
	}
	while (laps < SETS * LAPS) {
		unsigned n = peer_replies(&b->peer, false);
		while (n) {
			unsigned take = n < waiting[turn] ? n : waiting[turn];
			n -= take;
			waiting[turn] -= take;
			if (waiting[turn])
				continue;
			step[turn]++;
			laps += step[turn] % 2 == 0;
			if (step[turn] < 2 * LAPS) {
				frame_send(b->peer.sock, b->ring[2 * turn + step[turn] % 2], -1);
				waiting[turn] = BATCH;
			}
			turn = (turn + 1) % SETS;
		}
	}
	b->pair_cpu = (double)(bench_cpu(b->daemon.pid) - cpu) / (SETS * LAPS * BATCH);
	return (double)(bench_now() - start) / (SETS * LAPS * BATCH);
}

static void begin_register(struct bench *b, struct frame *frame, uint32_t id, unsigned n)
{
	add_register(b, frame, id, b->mr[BATCH + n]);
}

static void end_register(struct bench *b, struct frame *frame, uint32_t id, unsigned n)
{
	add_deregister(frame, id, b->mr[BATCH + n]);
}

static double pairs_ours(struct bench *b)
{
	return pairs(b, begin_register, end_register);
}

static void begin_bind(struct bench *b, struct frame *frame, uint32_t id, unsigned n)
{
	Nicd__Ref refs[3] = { NICD__REF__INIT, NICD__REF__INIT, NICD__REF__INIT };
	Nicd__BindMw bind = NICD__BIND_MW__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	for (unsigned i = 0; i < 3; i++)
		refs[i].of_case = NICD__REF__OF_ID;
	refs[0].id = b->mw[n];
	refs[1].id = b->mr[0];
	refs[2].id = b->qp[n / BATCH % QPS];
	bind.mw = &refs[0];
	bind.mr = &refs[1];
	bind.qp = &refs[2];
	bind.iova = 0x10000 + n;
	bind.length = 1000;
	bind.flags = NICD__OP_FLAG__OP_ALLOW_REMOTE_READ;
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_BIND_MW;
	request.bind_mw = &bind;
	frame_add(frame, &request);
}

/* Of a window or a fast-register MR. */
static void add_invalidate(struct bench *b, struct frame *frame, uint32_t id, uint64_t object, unsigned n)
{
	Nicd__Ref refs[2] = { NICD__REF__INIT, NICD__REF__INIT };
	Nicd__Invalidate invalidate = NICD__INVALIDATE__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	refs[0].of_case = refs[1].of_case = NICD__REF__OF_ID;
	refs[0].id = object;
	refs[1].id = b->qp[n / BATCH % QPS];
	invalidate.object = &refs[0];
	invalidate.qp = &refs[1];
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_INVALIDATE;
	request.invalidate = &invalidate;
	frame_add(frame, &request);
}

static void end_bind(struct bench *b, struct frame *frame, uint32_t id, unsigned n)
{
	add_invalidate(b, frame, id, b->mw[n], n);
}

static void begin_fast(struct bench *b, struct frame *frame, uint32_t id, unsigned n)
{
	Nicd__Ref refs[3] = { NICD__REF__INIT, NICD__REF__INIT, NICD__REF__INIT };
	Nicd__FastRegister fast = NICD__FAST_REGISTER__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges = &range;
	Nicd__Request request = NICD__REQUEST__INIT;

	for (unsigned i = 0; i < 3; i++)
		refs[i].of_case = NICD__REF__OF_ID;
	refs[0].id = b->fast[n];
	refs[1].id = b->qp[n / BATCH % QPS];
	refs[2].id = b->memory;
	range.memory = &refs[2];
	range.length = 4096;
	fast.mr = &refs[0];
	fast.qp = &refs[1];
	fast.n_ranges = 1;
	fast.ranges = &ranges;
	fast.length = 4096;
	fast.iova = 0x10000;
	fast.flags = NICD__OP_FLAG__OP_ALLOW_REMOTE_READ | NICD__OP_FLAG__OP_ALLOW_REMOTE_WRITE;
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_FAST_REGISTER;
	request.fast_register = &fast;
	frame_add(frame, &request);
}

static void end_fast(struct bench *b, struct frame *frame, uint32_t id, unsigned n)
{
	add_invalidate(b, frame, id, b->fast[n], n);
}

/* Qps to another session. */
static void need_qps(struct bench *b)
{
	static struct peer other;
	uint64_t mr;
	char *locator;

	if (b->qp[0])
		return;
	peer_open(&other, &b->daemon);
	mr = peer_create_mr(&other, peer_create_pd(&other));
	peer_register(&other, mr, peer_add_memory(&other, b->memfd));
	locator = peer_ticket(&other, mr, QPS);
	for (unsigned i = 0; i < QPS; i++)
		b->qp[i] = peer_connect(&b->peer, b->pd, locator);
	free(locator);
}

static double binds_ours(struct bench *b)
{
	need_qps(b);
	for (unsigned i = 0; i < SETS * BATCH && !b->mw[i]; i++)
		b->mw[i] = peer_create_mw(&b->peer, b->pd);
	return pairs(b, begin_bind, end_bind);
}

static double fasts_ours(struct bench *b)
{
	need_qps(b);
	for (unsigned i = 0; i < SETS * BATCH && !b->fast[i]; i++)
		b->fast[i] = peer_create_fast(&b->peer, b->pd);
	return pairs(b, begin_fast, end_fast);
}

static double idle_pss(struct bench *b)
{
	return (double)daemon_pss(&b->daemon);
}

/* What one processor would do if it ran nicd alone: the machine may have none for the device and the client beside it. */
static double pairs_cpu(struct bench *b)
{
	pairs_ours(b);
	return b->pair_cpu;
}

static double fasts_cpu(struct bench *b)
{
	fasts_ours(b);
	return b->pair_cpu;
}

static double binds_cpu(struct bench *b)
{
	binds_ours(b);
	return b->pair_cpu;
}

/* ---- the table */

enum unit { NS, PER_SECOND, BYTES };

static const struct bench_case {
	const char *name;
	const char *what;
	double (*ours)(struct bench *b);
	double (*other)(struct bench *b);
	enum unit unit;
	double goal;         /* NS with an other: at most this ratio; PER_SECOND: at least; BYTES: at most */
	int soft_cpu, own_cpu;
	bool rpc;            /* only where there is gRPC */
} cases[] = {
	{ "idle_pss", "memory of an idle nicd (PSS)", idle_pss, NULL, BYTES, 4e6, 0, 0 },
	{ "token_query_p50", "token query, against the same echo by a bare libuv loop", query_ours, query_echo, NS, 1.15, 0, 0 },
	{ "token_query_p50_blocking", "token query, against a blocking echo", query_ours, query_blocking, NS, 0, 0, 0 },
	{ "token_query_p50_grpc", "token query, against a unary echo of gRPC over a unix socket", query_ours, query_rpc, NS, 0, 0, 0, true },
	{ "idle_session_pss", "memory of an idle session (PSS of nicd, 10,000 of them)", idle_session, NULL, BYTES, 4096, 0, 0 },
	{ "token_query_p50_sessions", "token query, with 10,000 idle sessions, against without", query_crowded, query_alone, NS, 1.1, 0, 0 },
	{ "token_query_pipelined", "token queries, one a frame, 64 in flight", pipelined_ours, NULL, PER_SECOND, 0.7e6, 1, 1 },
	{ "token_query_batched", "token queries, 256 a frame", batch_ours, NULL, PER_SECOND, 5e6, 1, 1 },
	{ "token_query_packed", "ids, 4096 in one request", packed_ours, NULL, PER_SECOND, 20e6, 1, 1 },
	{ "memory", "AddMemory + release, against fd echo, seals, fstat, mmap, munmap", memory_ours, memory_bare, NS, 1.5, 0, 0 },
	{ "memory_one_frame", "AddMemory + release in one frame, against the same in two", memory_frame_ours, memory_bare, NS, 0, 0, 0 },
	{ "register_pair", "RegisterMr + DeregisterMr, against two bare echoes", pair_ours, pair_echo, NS, 2.5, 0, 0 },
	{ "register_batched", "RegisterMr + DeregisterMr, 256 a frame, wall time", pairs_ours, NULL, PER_SECOND, 500e3, 1, 1 },
	{ "register_batched_cpu", "the same, by nicd's CPU time", pairs_cpu, NULL, PER_SECOND, 500e3, 1, 1 },
	{ "fast_batched", "FastRegister + Invalidate, 256 a frame, wall time", fasts_ours, NULL, PER_SECOND, 500e3, 1, 1 },
	{ "fast_batched_cpu", "the same, by nicd's CPU time", fasts_cpu, NULL, PER_SECOND, 500e3, 1, 1 },
	{ "bind_batched", "BindMw + Invalidate, 256 a frame, wall time", binds_ours, NULL, PER_SECOND, 500e3, 1, 1 },
	{ "bind_batched_cpu", "the same, by nicd's CPU time", binds_cpu, NULL, PER_SECOND, 500e3, 1, 1 },
};

static void show(FILE *json, const struct bench_case *c, double ours, double other, bool first)
{
	double value = c->unit == PER_SECOND ? 1e9 / ours : ours;
	double ratio = other > 0 ? ours / other : 0;
	bool met = c->unit == PER_SECOND ? value >= c->goal : c->unit == BYTES ? value <= c->goal : ratio <= c->goal;
	const char *verdict = c->goal == 0 ? "" : met ? "met" : "MISSED";
	char goal[32] = "", figure[32], against[32] = "", times[32] = "";

	if (c->unit == NS) {
		snprintf(figure, sizeof figure, "%.2f us", ours / 1000);
		snprintf(against, sizeof against, "%.2f us", other / 1000);
		snprintf(times, sizeof times, "%.2f", ratio);
		if (c->goal > 0)
			snprintf(goal, sizeof goal, "<= %.2f", c->goal);
	} else if (c->unit == PER_SECOND) {
		snprintf(figure, sizeof figure, "%.2f M/s", value / 1e6);
		snprintf(goal, sizeof goal, ">= %.2f M/s", c->goal / 1e6);
	} else if (c->goal < 1e6) {
		snprintf(figure, sizeof figure, "%.0f B", value);
		snprintf(goal, sizeof goal, "<= %.0f B", c->goal);
	} else {
		snprintf(figure, sizeof figure, "%.2f MB", value / 1e6);
		snprintf(goal, sizeof goal, "<= %.2f MB", c->goal / 1e6);
	}
	printf("%-68s %11s %11s %6s %12s %s\n", c->what, figure, against, times, goal, verdict);
	fflush(stdout);
	if (json)
		fprintf(json, "%s  {\"name\": \"%s\", \"ours\": %.6g, \"other\": %.6g, \"ratio\": %.4f, \"goal\": %.6g, \"met\": %s}",
			first ? "" : ",\n", c->name, value, other, ratio, c->goal, c->goal == 0 ? "null" : met ? "true" : "false");
}

static void measure(struct bench *b, const struct bench_case *c, unsigned rounds, FILE *json, bool first)
{
	double ours[ROUNDS_MAX], other[ROUNDS_MAX];

	bench_pin(b->daemon.soft, c->soft_cpu);
	bench_pin(0, c->own_cpu);
	for (unsigned i = 0; i < rounds; i++) {
		ours[i] = c->ours(b);
		other[i] = c->other ? c->other(b) : 0;
	}
	show(json, c, median(ours, rounds), median(other, rounds), first);
}

static void setup(struct bench *b)
{
	peer_open(&b->peer, &b->daemon);
	b->pd = peer_create_pd(&b->peer);
	b->memfd = bench_memfd(1 << 20);
	b->memory = peer_add_memory(&b->peer, b->memfd);
	for (unsigned i = 0; i < MRS; i++)
		b->mr[i] = peer_create_mr(&b->peer, b->pd);
	for (unsigned i = 0; i < BATCH; i++)
		peer_register(&b->peer, b->mr[i], b->memory);
	for (unsigned i = 0; i < WINDOW; i++)
		b->ring[i] = malloc(sizeof *b->ring[i]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "nicd", required_argument, NULL, 'n' }, { "soft", required_argument, NULL, 's' },
		{ "json", required_argument, NULL, 'j' }, { "rounds", required_argument, NULL, 'r' },
		{ "only", required_argument, NULL, 'o' }, { NULL, 0, NULL, 0 }
	};
	static struct bench b;
	const char *nicd = NULL, *soft = NULL, *json_path = NULL, *only = NULL;
	unsigned rounds = 5;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (o == 'n')
			nicd = optarg;
		else if (o == 's')
			soft = optarg;
		else if (o == 'j')
			json_path = optarg;
		else if (o == 'o')
			only = optarg;
		else if (o == 'r')
			rounds = (unsigned)atoi(optarg);
		else
			return 2;
	}
	if (!nicd || !soft || rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench --nicd PATH --soft PATH [--json FILE] [--rounds 1..%d] [--only NAME]\n", ROUNDS_MAX);
		return 2;
	}
	FILE *json = json_path ? fopen(json_path, "we") : NULL;
	if (json_path && !json)
		bench_die(json_path);
	bool rpc;

	idle_prepare();
	b.echo_uv = echo_start(ECHO_UV, 0);
	b.echo_blocking = echo_start(ECHO_BLOCKING, 0);
	daemon_start(&b.daemon, nicd, soft, 0);
	rpc = rpc_start(0);
	usleep(200000);

	printf("%-68s %11s %11s %6s %12s\n", "what (median of the rounds)", "nicd", "other", "ratio", "goal");
	if (json)
		fprintf(json, "[\n");
	bool first = true;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		if ((only && strcmp(only, cases[i].name) != 0) || (cases[i].rpc && !rpc))
			continue;
		if (cases[i].unit != BYTES && !b.pd)
			setup(&b);
		measure(&b, &cases[i], rounds, json, first);
		first = false;
	}
	if (json) {
		fprintf(json, "\n]\n");
		fclose(json);
	}
	if (b.pd)
		close(b.peer.sock);
	daemon_stop(&b.daemon);
	if (rpc)
		rpc_stop();
	return 0;
}
