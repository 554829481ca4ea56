/* SPDX-License-Identifier: MIT */
/*
 * A million memory regions: what each costs in both processes, what a query costs beside what it costs with a thousand, and what others
 * feel when a client with a hundred thousand of them, or with 4 GiB of memory, goes away.
 *
 * Memory is counted as what both processes hold privately (RssAnon) before and after. The turns of the loops are nicd's own account of
 * them (Ledger), as CPU time, so that a machine that is busy with something else does not spoil them.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/bench.h"

enum {
	FEW = 1000,
	MANY = 1000000,
	DYING = 100000,
	SAMPLES = 20000,
	FRAMES = 400,        /* of a measurement of throughput */
	PER_FRAME = 256,
	PAIRS = 100,         /* CreateMr and RegisterMr in one frame */
};

struct scale {
	struct daemon daemon;
	struct peer peer, admin;
	uint64_t pd, memory;
	uint32_t n;
	uint64_t *ids;
	FILE *json;
	bool first;
};

/* ---- what came out */

static void show(struct scale *s, const char *name, const char *what, double value, double other, double goal, bool at_least)
{
	bool met = at_least ? value >= goal : value <= goal;

	printf("%-68s %12.2f %12.2f %12s%-8.2f %s\n", what, value, other, at_least ? ">= " : "<= ", goal, met ? "met" : "MISSED");
	fflush(stdout);
	if (s->json)
		fprintf(s->json, "%s  {\"name\": \"%s\", \"ours\": %.6g, \"other\": %.6g, \"ratio\": %.4f, \"goal\": %.6g, \"met\": %s}",
			s->first ? "" : ",\n", name, value, other, other > 0 ? value / other : 0, goal, met ? "true" : "false");
	s->first = false;
}

static uint64_t rss_of(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kb = 0;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		bench_die(path);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "RssAnon: %llu kB", &kb) == 1)
			break;
	fclose(f);
	return kb * 1024;
}

struct look {
	uint64_t objects, tags, memories, nicd_us, soft_us;
};

/* The first page has what is wanted here, when there is one account. */
static struct look look(struct scale *s)
{
	Nicd__Request request = NICD__REQUEST__INIT;
	Nicd__Ledger ledger = NICD__LEDGER__INIT;

	request.call_case = NICD__REQUEST__CALL_LEDGER;
	request.ledger = &ledger;
	Nicd__Reply *reply = peer_call(&s->admin, &request, -1);
	struct look seen = {
		.objects = reply->ledger->objects, .tags = reply->ledger->provider_tags, .memories = reply->ledger->provider_memories,
		.nicd_us = reply->ledger->longest_turn_cpu_us, .soft_us = reply->ledger->provider_longest_turn_cpu_us,
	};
	nicd__reply__free_unpacked(reply, NULL);
	return seen;
}

/* ---- making them */

static void add_pair(struct peer *peer, struct frame *frame, uint64_t pd, uint64_t memory, uint32_t number)
{
	Nicd__Ref pd_ref = NICD__REF__INIT, mr_ref = NICD__REF__INIT, memory_ref = NICD__REF__INIT;
	Nicd__CreateMr create = NICD__CREATE_MR__INIT;
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges = &range;
	Nicd__Request request = NICD__REQUEST__INIT, second = NICD__REQUEST__INIT;

	pd_ref.of_case = memory_ref.of_case = NICD__REF__OF_ID;
	pd_ref.id = pd;
	memory_ref.id = memory;
	create.pd = &pd_ref;
	request.id = ++peer->next_id;
	request.call_case = NICD__REQUEST__CALL_CREATE_MR;
	request.create_mr = &create;
	frame_add(frame, &request);
	mr_ref.of_case = NICD__REF__OF_RESULT_OF;
	mr_ref.result_of = request.id;
	range.memory = &memory_ref;
	range.offset = number % 256 * 4096;
	range.length = 4096;
	reg.mr = &mr_ref;
	reg.n_ranges = 1;
	reg.ranges = &ranges;
	reg.iova = UINT64_C(0x100000000) + number * UINT64_C(4096);
	reg.flags = NICD__MR_FLAG__MR_ALLOW_REMOTE_WRITE | NICD__MR_FLAG__MR_ALLOW_REMOTE_READ;
	second.id = ++peer->next_id;
	second.call_case = NICD__REQUEST__CALL_REGISTER_MR;
	second.register_mr = &reg;
	frame_add(frame, &second);
}

/* Up to `n` of them; their ids, unless `ids` is NULL. */
static void make(struct peer *peer, uint64_t pd, uint64_t memory, uint32_t from, uint32_t n, uint64_t *ids)
{
	static struct frame frame;

	while (from < n) {
		uint32_t pairs = n - from < PAIRS ? n - from : PAIRS, replies = 0;

		frame.len = 0;
		for (uint32_t i = 0; i < pairs; i++)
			add_pair(peer, &frame, pd, memory, from + i);
		frame_send(peer->sock, &frame, -1);
		while (replies < 2 * pairs) {
			ssize_t len = recv(peer->sock, peer->buf, sizeof peer->buf, 0);
			Nicd__Frame *f = len > 0 ? nicd__frame__unpack(NULL, (size_t)len, peer->buf) : NULL;

			if (!f || f->fatal)
				bench_die("nicd ended the session");
			for (size_t i = 0; i < f->n_replies; i++, replies++) {
				const Nicd__Reply *r = f->replies[i];

				if (r->error)
					bench_die(r->error->text);
				if (ids && r->result_case == NICD__REPLY__RESULT_MR)
					ids[from++] = r->mr->id;
			}
			nicd__frame__free_unpacked(f, NULL);
		}
		if (!ids)
			from += pairs;
	}
}

/* ---- asking for tokens */

static uint32_t draw(void)
{
	static uint64_t seed = 1;

	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(seed >> 33);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t query_one(struct peer *peer, uint64_t id)
{
	static struct frame frame;

	frame.len = 0;
	frame_add_query(&frame, 1, id);
	uint64_t start = bench_now();
	frame_send(peer->sock, &frame, -1);
	while (!peer_replies(peer, false))
		;
	return bench_now() - start;
}

/* us */
static double query_p50(struct scale *s)
{
	static uint64_t samples[SAMPLES];

	for (unsigned i = 0; i < SAMPLES; i++)
		samples[i] = query_one(&s->peer, s->ids[draw() % s->n]);
	qsort(samples, SAMPLES, sizeof samples[0], compare);
	return (double)samples[SAMPLES / 2] / 1000;
}

/* Queries of nicd's second. */
static double query_batched(struct scale *s)
{
	static struct frame frames[16];
	uint64_t cpu;

	for (unsigned i = 0; i < 16; i++) {
		frames[i].len = 0;
		for (unsigned k = 0; k < PER_FRAME; k++)
			frame_add_query(&frames[i], k + 1, s->ids[draw() % s->n]);
	}
	cpu = bench_cpu(s->daemon.pid);
	for (unsigned i = 0; i < FRAMES; i++) {
		unsigned n = 0;

		if (i % 16 == 0)   /* others than before: what was asked for stays in the cache */
			for (unsigned f = 0; f < 16; f++) {
				frames[f].len = 0;
				for (unsigned k = 0; k < PER_FRAME; k++)
					frame_add_query(&frames[f], k + 1, s->ids[draw() % s->n]);
			}
		frame_send(s->peer.sock, &frames[i % 16], -1);
		while (n < PER_FRAME)
			n += peer_replies(&s->peer, false);
	}
	return (double)FRAMES * PER_FRAME * 1e9 / (double)(bench_cpu(s->daemon.pid) - cpu);
}

static double median(double *values, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = i + 1; k < n; k++)
			if (values[k] < values[i]) {
				double v = values[i];
				values[i] = values[k];
				values[k] = v;
			}
	return values[n / 2];
}

/* ---- the measurements */

static void a_million(struct scale *s)
{
	enum { ROUNDS = 5 };
	double few_p50[ROUNDS], few_batched[ROUNDS], p50[ROUNDS], batched[ROUNDS];

	make(&s->peer, s->pd, s->memory, 0, FEW, s->ids);
	s->n = FEW;
	uint64_t nicd = rss_of(s->daemon.pid), soft = rss_of(s->daemon.soft);
	for (unsigned i = 0; i < ROUNDS; i++) {
		few_p50[i] = query_p50(s);
		few_batched[i] = query_batched(s);
	}
	make(&s->peer, s->pd, s->memory, FEW, MANY, s->ids);
	s->n = MANY;
	sleep(1);
	double each = (double)(rss_of(s->daemon.pid) - nicd) / (MANY - FEW);
	show(s, "mr_bytes_nicd", "bytes for each of 1,000,000 MRs in nicd", each, 0, 192, false);
	each = (double)(rss_of(s->daemon.soft) - soft) / (MANY - FEW);
	show(s, "mr_bytes_soft", "bytes for each of 1,000,000 MRs in nicd-soft", each, 0, 64, false);
	for (unsigned i = 0; i < ROUNDS; i++) {
		p50[i] = query_p50(s);
		batched[i] = query_batched(s);
	}
	show(s, "query_p50_million", "query p50 with 1,000,000 MRs, over that with 1,000 (us)", median(p50, ROUNDS) / median(few_p50, ROUNDS),
	     median(few_p50, ROUNDS), 1.1, false);
	show(s, "query_batched_million", "batched queries with 1,000,000 MRs, over those with 1,000 (M/s)",
	     median(batched, ROUNDS) / median(few_batched, ROUNDS), median(few_batched, ROUNDS) / 1e6, 0.7, true);
}

static double p99(uint64_t *samples, unsigned n)
{
	qsort(samples, n, sizeof samples[0], compare);
	return (double)samples[n * 99 / 100] / 1000;
}

/* Another client asks on while `dying` goes; until both processes hold nothing of it. */
static void a_death(struct scale *s, struct peer *dying, const char *name, const char *what, double goal_ms)
{
	static uint64_t before[SAMPLES], during[SAMPLES];
	char text[100], id[64];
	struct look seen, rest;
	unsigned n = 0;

	rest = look(s);
	for (unsigned i = 0; i < SAMPLES; i++)
		before[i] = query_one(&s->peer, s->ids[draw() % s->n]);
	uint64_t target_tags = s->n, start = bench_now(), asked = start, nicd_us = 0, soft_us = 0;
	close(dying->sock);
	do {
		if (n < SAMPLES)
			during[n++] = query_one(&s->peer, s->ids[draw() % s->n]);
		seen = rest;
		if (bench_now() - asked < 2000000)
			continue;
		seen = look(s);
		asked = bench_now();
		nicd_us = seen.nicd_us > nicd_us ? seen.nicd_us : nicd_us;
		soft_us = seen.soft_us > soft_us ? seen.soft_us : soft_us;
	} while (seen.tags > target_tags || seen.memories > 1 || seen.objects > target_tags + 2);
	double ms = (double)(bench_now() - start) / 1e6;
	double quiet = p99(before, SAMPLES), then = p99(during, n);
	snprintf(id, sizeof id, "%s_ms", name);
	snprintf(text, sizeof text, "%s: gone after (ms)", what);
	show(s, id, text, ms, 0, goal_ms, false);
	snprintf(id, sizeof id, "%s_p99", name);
	snprintf(text, sizeof text, "%s: another's query p99 grows by (us; before)", what);
	show(s, id, text, then - quiet, quiet, 300, false);
	snprintf(id, sizeof id, "%s_turn_nicd", name);
	snprintf(text, sizeof text, "%s: longest turn of nicd (us of CPU)", what);
	show(s, id, text, (double)nicd_us, 0, 1000, false);
	snprintf(id, sizeof id, "%s_turn_soft", name);
	snprintf(text, sizeof text, "%s: longest turn of nicd-soft (us of CPU)", what);
	show(s, id, text, (double)soft_us, 0, 1000, false);
}

static void deaths(struct scale *s, uint64_t gib)
{
	struct peer dying;
	uint64_t pd;
	int fd;

	peer_open(&dying, &s->daemon);
	pd = peer_create_pd(&dying);
	fd = bench_memfd(1 << 20);
	make(&dying, pd, peer_add_memory(&dying, fd), 0, DYING, NULL);
	close(fd);
	a_death(s, &dying, "death_mrs", "a client with 100,000 MRs dies", 100);
	peer_open(&dying, &s->daemon);
	pd = peer_create_pd(&dying);
	fd = bench_memfd((size_t)gib << 30);
	make(&dying, pd, peer_add_memory(&dying, fd), 0, 1, NULL);
	close(fd);
	sleep(2);   /* nicd-soft populates */
	a_death(s, &dying, "death_memfd", gib == 4 ? "a client with a memfd of 4 GiB dies" : "a client with a memfd of 1 GiB dies", 5000);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "nicd", required_argument, NULL, 'n' }, { "soft", required_argument, NULL, 's' },
		{ "json", required_argument, NULL, 'j' }, { "rounds", required_argument, NULL, 'r' },
		{ "only", required_argument, NULL, 'o' }, { NULL, 0, NULL, 0 }
	};
	static struct scale s = { .first = true };
	const char *nicd = NULL, *soft = NULL, *json = NULL;
	bool wanted = true;
	int fd;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (o == 'n')
			nicd = optarg;
		else if (o == 's')
			soft = optarg;
		else if (o == 'j')
			json = optarg;
		else if (o == 'o')
			wanted = strcmp(optarg, "scale") == 0;
		else if (o != 'r')
			return 2;
	}
	if (!nicd || !soft)
		return 2;
	s.json = json ? fopen(json, "we") : NULL;
	if (json && !s.json)
		bench_die(json);
	if (s.json)
		fprintf(s.json, "[\n");
	if (wanted) {
		daemon_start(&s.daemon, nicd, soft, 0);
		bench_pin(s.daemon.soft, 1);
		bench_pin(0, 0);
		usleep(200000);
		s.ids = malloc(MANY * sizeof *s.ids);
		peer_open(&s.peer, &s.daemon);
		peer_open_admin(&s.admin, &s.daemon);
		s.pd = peer_create_pd(&s.peer);
		fd = bench_memfd(1 << 20);
		s.memory = peer_add_memory(&s.peer, fd);
		printf("%-68s %12s %12s\n", "what", "value", "beside");
		a_million(&s);
		/* Beside a client of usual size. */
		close(s.peer.sock);
		while (look(&s).objects > 0)
			usleep(10000);
		peer_open(&s.peer, &s.daemon);
		s.pd = peer_create_pd(&s.peer);
		s.memory = peer_add_memory(&s.peer, fd);
		make(&s.peer, s.pd, s.memory, 0, FEW, s.ids);
		s.n = FEW;
		deaths(&s, sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE) > 6L << 30 ? 4 : 1);
		daemon_stop(&s.daemon);
	}
	if (s.json) {
		fprintf(s.json, "\n]\n");
		fclose(s.json);
	}
	return 0;
}
