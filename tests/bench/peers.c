/* SPDX-License-Identifier: MIT */
/*
 * Many peers: how long the revocation of an export takes that 1,000 of them hold, beside a bare ping-pong between two
 * processes, and what an idle one of 10,000 costs nicd-soft in memory.
 *
 *   bench-peers --nicd PATH --soft PATH [--json FILE] [--rounds N] [--only NAME]
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/nicd.h"
#include "nicd/soft/mpa.h"
#include "nicd/soft/rdmap.h"
#include "proto/locator.h"
#include "tests/bench/bench.h"

enum { HOLDERS = 1000, IDLE = 10000, ROUNDS_MAX = 201, TRIPS = 4000, PAGE = 4096 };

struct bench {
	struct daemon daemon;
	struct nicd *n;
	struct nicd_mr *mr;
	int echo;
	int socks[IDLE];
	FILE *json;
	bool first;
};

static void setup(struct bench *b)
{
	struct nicd_open_attr open = { .size = sizeof open };
	struct nicd_mr_attr attr = { .size = sizeof attr, .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE };
	struct nicd_pd *pd;
	char path[96];

	snprintf(path, sizeof path, "%s/nicd.sock", b->daemon.dir);
	open.socket = path;
	if (nicd_open(&b->n, &open) < 0 || nicd_pd_create(b->n, 0, &pd) < 0 || nicd_buffer_new(b->n, PAGE, 0, &attr.buffer) < 0 ||
	    nicd_mr_new(pd, &attr, &b->mr) < 0)
		bench_die("session");
}

/* ---- peers: sockets that have shaken hands, read a page, and say no more */

static size_t fpdu(uint8_t *buf, const struct rdmap_header *header, const uint8_t *payload, size_t len)
{
	size_t n = FPDU_LENGTH_SIZE + rdmap_encode(buf + FPDU_LENGTH_SIZE, header);

	memcpy(buf + n, payload, len);
	n += len;
	buf[0] = (uint8_t)((n - 2) >> 8);
	buf[1] = (uint8_t)(n - 2);
	memset(buf + n, 0, FPDU_TAIL_MAX);
	return fpdu_size(n - 2);
}

static int crowd_connect(const struct locator *to, const struct nicd_grant *grant)
{
	static const struct rdmap_header header = { .opcode = RDMAP_READ_REQUEST, .last = true, .queue = QUEUE_READ, .msn = 1 };
	const struct rdmap_read read = { .sink_stag = 1, .size = PAGE, .source_stag = grant->remote_token, .source_to = grant->iova };
	struct mpa_frame request = { .revision = 2, .enhanced = true, .ird = 1, .ord = 16 };
	uint8_t buf[2 * PAGE], hello[PEER_HELLO_SIZE], payload[RDMAP_READ_SIZE];
	size_t size = fpdu_size(DDP_TAGGED_SIZE + PAGE);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	peer_hello_encode(hello, to->ticket);
	request.pd = hello;
	request.pd_len = sizeof hello;
	rdmap_read_encode(payload, &read);
	if (fd < 0 || connect(fd, (const void *)&to->addr, sizeof(struct sockaddr_in)) < 0 ||
	    send(fd, buf, mpa_encode(buf, sizeof buf, &request), 0) < 0 || recv(fd, buf, MPA_FRAME_HEADER, MSG_WAITALL) < 0 ||
	    recv(fd, buf + MPA_FRAME_HEADER, buf[19], MSG_WAITALL) < 0 || (buf[16] & 0x20) ||
	    send(fd, buf, fpdu(buf, &header, payload, sizeof payload), 0) < 0 || recv(fd, buf, size, MSG_WAITALL) != (ssize_t)size)
		bench_die("peer");
	return fd;
}

static void drain(struct bench *b)
{
	while (nicd_dispatch(b->n, 0) > 0)
		;
}

static struct nicd_export *crowd(struct bench *b, unsigned n)
{
	struct nicd_export_attr attr = {
		.size = sizeof attr, .name = "crowd", .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE, .uses = n, .peers = n,
	};
	struct nicd_export *export;
	struct locator locator;

	if (nicd_export_create(b->mr, &attr, &export) < 0 || locator_parse(nicd_export_locator(export), &locator, NULL) < 0)
		bench_die("export");
	for (unsigned i = 0; i < n; i++) {
		b->socks[i] = crowd_connect(&locator, nicd_export_grant(export));
		if (i % 256 == 0)
			drain(b);
	}
	drain(b);
	return export;
}

static void disperse(struct bench *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(b->socks[i]);
}

/* ---- the cases */

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double percentile(double *v, unsigned n, unsigned per_cent)
{
	qsort(v, n, sizeof *v, order);
	return v[(n - 1) * per_cent / 100];
}

static void show(struct bench *b, const char *name, const char *what, double ours, double other, double goal)
{
	printf("%-62s %12.1f %12.1f %s\n", what, ours, other, goal == 0 ? "" : ours <= goal ? "met" : "MISSED");
	fflush(stdout);
	if (b->json)
		fprintf(b->json, "%s  {\"name\": \"%s\", \"ours\": %.6g, \"other\": %.6g, \"ratio\": %.4f, \"goal\": %.6g, \"met\": %s}",
			b->first ? "" : ",\n", name, ours, other, other > 0 ? ours / other : 0, goal,
			goal == 0 ? "null" : ours <= goal ? "true" : "false");
	b->first = false;
}

static void revoke_all(struct bench *b, unsigned rounds)
{
	static double t[ROUNDS_MAX], cpu_nicd[ROUNDS_MAX], cpu_soft[ROUNDS_MAX], trips[TRIPS];
	struct frame *ping = calloc(1, sizeof *ping);
	uint8_t buf[64];

	ping->len = 32;
	ping->data[0] = 'E';
	for (unsigned i = 0; i < rounds; i++) {
		struct nicd_export *export = crowd(b, HOLDERS);

		for (unsigned k = i * (TRIPS / rounds); k < (i + 1) * (TRIPS / rounds); k++) {
			uint64_t start = bench_now();
			frame_send(b->echo, ping, -1);
			if (recv(b->echo, buf, sizeof buf, 0) != 32)
				bench_die("echo");
			trips[k] = (double)(bench_now() - start) / 1000;
		}
		uint64_t nicd = bench_cpu(b->daemon.pid), soft = bench_cpu(b->daemon.soft), start = bench_now();
		if (nicd_export_close(export) < 0)
			bench_die("revoke");
		t[i] = (double)(bench_now() - start) / 1000;
		cpu_nicd[i] = (double)(bench_cpu(b->daemon.pid) - nicd) / 1000;
		cpu_soft[i] = (double)(bench_cpu(b->daemon.soft) - soft) / 1000;
		disperse(b, HOLDERS);
		drain(b);
		usleep(50000);
	}
	unsigned n = TRIPS / rounds * rounds;
	show(b, "revoke_1000_peers_p50_us", "revoking an export that 1,000 peers hold, p50 (us; bare ping-pong)", percentile(t, rounds, 50),
	     percentile(trips, n, 50), 1000);
	show(b, "revoke_1000_peers_p99_us", "the same, p99", percentile(t, rounds, 99), percentile(trips, n, 99), 0);
	show(b, "revoke_1000_peers_cpu_us", "CPU time up to its answer, p50 (us in nicd-soft; in nicd)", percentile(cpu_soft, rounds, 50),
	     percentile(cpu_nicd, rounds, 50), 0);
	free(ping);
}

static uint64_t rss(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kb = 0;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "RssAnon: %llu kB", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb * 1024;
}

static void idle(struct bench *b, unsigned rounds)
{
	uint64_t soft = rss(b->daemon.soft), nicd = rss(b->daemon.pid);
	struct nicd_export *export = crowd(b, IDLE);

	usleep(200000);
	show(b, "idle_peer_soft_bytes", "memory of an idle peer of 10,000 (bytes in nicd-soft; in nicd)",
	     (double)(rss(b->daemon.soft) - soft) / IDLE, (double)(rss(b->daemon.pid) - nicd) / IDLE, 4096);
	if (nicd_export_close(export) < 0)
		bench_die("close");
	disperse(b, IDLE);
}

static const struct {
	const char *name;
	void (*run)(struct bench *b, unsigned rounds);
} cases[] = { { "idle", idle }, { "revoke", revoke_all } };

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "nicd", required_argument, NULL, 'n' }, { "soft", required_argument, NULL, 's' },
		{ "json", required_argument, NULL, 'j' }, { "rounds", required_argument, NULL, 'r' },
		{ "only", required_argument, NULL, 'o' }, { NULL, 0, NULL, 0 },
	};
	static struct bench b = { .first = true };
	const char *nicd = NULL, *soft = NULL, *json_path = NULL, *only = NULL;
	unsigned rounds = 5;
	struct rlimit files;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 'n': nicd = optarg; break;
		case 's': soft = optarg; break;
		case 'j': json_path = optarg; break;
		case 'r': rounds = (unsigned)atoi(optarg); break;
		case 'o': only = optarg; break;
		default: return 2;
		}
	}
	if (!nicd || !soft || rounds < 1 || rounds > ROUNDS_MAX / 4)
		return 2;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	b.echo = echo_start(ECHO_UV, 0);
	daemon_start(&b.daemon, nicd, soft, 0);
	bench_pin(b.daemon.soft, 1);
	bench_pin(0, 1);
	setup(&b);
	b.json = json_path ? fopen(json_path, "we") : NULL;
	if (b.json)
		fputs("[\n", b.json);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (!only || strcmp(only, cases[i].name) == 0)
			cases[i].run(&b, 4 * rounds);
	if (b.json) {
		fputs("\n]\n", b.json);
		fclose(b.json);
	}
	nicd_free(b.n);
	daemon_stop(&b.daemon);
	return 0;
}
