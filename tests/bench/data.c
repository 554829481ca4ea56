/* SPDX-License-Identifier: MIT */
/*
 * How fast the data goes: our engine, nicd through libnicd, and libfabric's tcp provider against a plain TCP program,
 * READ and WRITE at three sizes. All take turns within a round, ROUNDS times; reported are medians, the ratio of
 * throughputs and that of the CPU time of all processes of a contender per byte.
 *
 *   bench-data [--nicd PATH --soft PATH] [--json FILE] [--rounds N] [--only NAME]
 */
#include "tests/bench/data.h"

#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"

enum { ROUNDS_MAX = 31, CONTENDERS = 4, BYTES = 192 << 20 };

static const struct cell {
	const char *name;
	bool write;
	uint32_t size, depth;
	bool lists;        /* for those who post lists of 8; two are under way */
} cells[] = {
	{ "read_4k_16", false, 4096, 16 },   { "write_4k_16", true, 4096, 16 },  { "read_64k_8", false, 65536, 8 },
	{ "write_64k_8", true, 65536, 8 },   { "read_1m_4", false, 1 << 20, 4 }, { "write_1m_4", true, 1 << 20, 4 },
	{ "read_4k_2x8", false, 4096, 16, .lists = true },   { "write_4k_2x8", true, 4096, 16, .lists = true },
	{ "read_64k_2x8", false, 65536, 16, .lists = true }, { "write_64k_2x8", true, 65536, 16, .lists = true },
	{ "read_1m_2x8", false, 1 << 20, 16, .lists = true }, { "write_1m_2x8", true, 1 << 20, 16, .lists = true },
};
enum { CELLS = sizeof cells / sizeof *cells };

struct result {
	double bytes_per_second, cpu_per_byte;
};

/* ---- what contenders share */

pid_t data_fork(struct contender *c, int cpu)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0 || c->n_pids == DATA_PIDS)
		bench_die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(1);
		bench_pin(0, cpu);
		return 0;
	}
	c->pids[c->n_pids++] = pid;
	return pid;
}

void data_pair(int sock[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		bench_die("socketpair");
}

void data_put(int sock, const void *buf, size_t len)
{
	if (send(sock, buf, len, MSG_NOSIGNAL) != (ssize_t)len)
		bench_die("a process of the benchmark is gone");
}

void data_get(int sock, void *buf, size_t len)
{
	if (recv(sock, buf, len, 0) != (ssize_t)len)
		bench_die("a process of the benchmark is gone");
}

void data_serve_orders(int sock, void (*run)(void *userdata, const struct order *order), void *userdata)
{
	struct order order;

	while (recv(sock, &order, sizeof order, 0) == sizeof order) {
		uint64_t start = bench_now();
		run(userdata, &order);
		start = bench_now() - start;
		data_put(sock, &start, sizeof start);
	}
	_exit(0);
}

void *data_buffer(int *fd)
{
	void *p;

	if (fd && (*fd = bench_memfd(DATA_BUFFER)) < 0)
		bench_die("memfd");
	p = mmap(NULL, DATA_BUFFER, PROT_READ | PROT_WRITE, (fd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) | MAP_POPULATE,
		 fd ? *fd : -1, 0);
	if (p == MAP_FAILED)
		bench_die("mmap");
	return p;
}

/* ---- measuring */

static struct result measure(const struct contender *c, const struct cell *cell)
{
	struct order order = { cell->write, cell->size, cell->depth, BYTES / cell->size };
	uint64_t cpu = 0, ns;

	for (unsigned i = 0; i < c->n_pids; i++)
		cpu -= bench_cpu(c->pids[i]);
	data_put(c->orders, &order, sizeof order);
	data_get(c->orders, &ns, sizeof ns);
	for (unsigned i = 0; i < c->n_pids; i++)
		cpu += bench_cpu(c->pids[i]);
	return (struct result){ BYTES * 1e9 / (double)ns, (double)cpu / BYTES };
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof *v, compare);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Of each round the ratio to the first contender in the same round; of those the median. */
struct figures {
	double mib, ratio, cpu_ratio;
};

static void cell_run(struct contender *const *c, unsigned n, const struct cell *cell, unsigned rounds, struct figures *ret)
{
	static struct result r[CONTENDERS][ROUNDS_MAX];
	double v[ROUNDS_MAX];

	for (unsigned i = 0; i < n; i++)   /* warm */
		measure(c[i], cell);
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned i = 0; i < n; i++)
			r[i][round] = measure(c[i], cell);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < rounds; k++)
			v[k] = r[i][k].bytes_per_second / (1 << 20);
		ret[i].mib = median(v, rounds);
		for (unsigned k = 0; k < rounds; k++)
			v[k] = r[i][k].bytes_per_second / r[0][k].bytes_per_second;
		ret[i].ratio = median(v, rounds);
		for (unsigned k = 0; k < rounds; k++)
			v[k] = r[i][k].cpu_per_byte / r[0][k].cpu_per_byte;
		ret[i].cpu_ratio = median(v, rounds);
	}
}

/* ---- goals */

/* The engine: geometric mean >= 1.0, no cell < 0.9. Through libnicd: >= 0.9 from 64 KiB up. Others stand beside. */
static double goal_of(const struct contender *c, const struct cell *cell)
{
	if (strcmp(c->name, "engine") == 0 || (strcmp(c->name, "libnicd") == 0 && cell->size >= 65536))
		return 0.9;
	return 0;
}

static void json_line(FILE *json, const char *name, double ours, double other, double ratio, double goal)
{
	static bool first = true;

	if (!json)
		return;
	fprintf(json, "%s  {\"name\": \"%s\", \"ours\": %.6g, \"other\": %.6g, \"ratio\": %.4f, \"goal\": %.6g, \"met\": %s}",
		first ? "" : ",\n", name, ours, other, ratio, goal, goal == 0 ? "null" : ratio >= goal ? "true" : "false");
	first = false;
}

static void show(FILE *json, struct contender *const *c, unsigned n, const struct cell *cell, const struct figures *f)
{
	char name[64];

	printf("%-13s %-8s %6.0f MiB/s\n", cell->name, c[0]->name, f[0].mib);
	for (unsigned i = 1; i < n; i++) {
		double goal = goal_of(c[i], cell);

		printf("%-13s %-8s %6.0f MiB/s  x %.2f  cpu x %.2f  %s\n", "", c[i]->name, f[i].mib, f[i].ratio, f[i].cpu_ratio,
		       goal == 0 ? "" : f[i].ratio >= goal ? "met" : "MISSED");
		snprintf(name, sizeof name, "data_%s_%s", c[i]->name, cell->name);
		json_line(json, name, f[i].mib, f[0].mib, f[i].ratio, goal);
	}
	fflush(stdout);
}

static void contender_stop(struct contender *c)
{
	close(c->orders);
	for (unsigned i = c->first_own; i < c->n_pids; i++)
		kill(c->pids[i], SIGTERM);
	for (unsigned i = c->first_own; i < c->n_pids; i++)
		waitpid(c->pids[i], NULL, 0);
	if (c->start == nicd_start)
		nicd_stop();
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "nicd", required_argument, NULL, 'n' }, { "soft", required_argument, NULL, 's' },
		{ "json", required_argument, NULL, 'j' }, { "rounds", required_argument, NULL, 'r' },
		{ "only", required_argument, NULL, 'o' }, { "cell", required_argument, NULL, 'c' }, { NULL, 0, NULL, 0 },
	};
	static struct contender all[CONTENDERS] = {
		{ "tcp", tcp_start }, { "engine", engine_start }, { "libnicd", nicd_start, .lists = true }, { "fabric", fabric_start },
	}, c[CONTENDERS], *at[CONTENDERS];
	const char *json_path = NULL, *only = NULL, *only_cell = NULL, *nicd = NULL, *soft = NULL;
	unsigned rounds = 7, n = 0, n_cells = 0;
	struct figures f[CONTENDERS];
	double log_sum = 0;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 'n': nicd = optarg; break;
		case 's': soft = optarg; break;
		case 'j': json_path = optarg; break;
		case 'r': rounds = (unsigned)atoi(optarg); break;
		case 'o': only = optarg; break;
		case 'c': only_cell = optarg; break;
		default: return 2;
		}
	}
	if (rounds < 1 || rounds > ROUNDS_MAX)
		return 2;
	for (unsigned i = 0; i < CONTENDERS; i++) {
		if (i > 0 && only && strcmp(only, all[i].name) != 0)
			continue;
		c[n] = all[i];
		c[n].nicd = nicd;
		c[n].soft = soft;
		n += c[n].start(&c[n]);
	}
	FILE *json = json_path ? fopen(json_path, "we") : NULL;
	if (json_path && !json)
		bench_die(json_path);
	if (json)
		fprintf(json, "[\n");
	for (unsigned i = 0; i < CELLS; i++) {
		unsigned m = 0;

		if (only_cell && strcmp(only_cell, cells[i].name) != 0)
			continue;
		for (unsigned k = 0; k < n; k++)
			if (k == 0 || c[k].lists == cells[i].lists)
				at[m++] = &c[k];
		if (m < 2)
			continue;
		cell_run(at, m, &cells[i], rounds, f);
		show(json, at, m, &cells[i], f);
		if (strcmp(at[1]->name, "engine") == 0) {
			log_sum += log(f[1].ratio);
			n_cells++;
		}
	}
	if (n_cells) {
		double mean = exp(log_sum / n_cells);
		printf("engine: geometric mean x %.3f (goal >= 1.0): %s\n", mean, mean >= 1 ? "met" : "MISSED");
		json_line(json, "data_engine_geometric_mean", mean, 1, mean, 1);
	}
	if (json) {
		fprintf(json, "\n]\n");
		fclose(json);
	}
	for (unsigned i = 0; i < n; i++)
		contender_stop(&c[i]);
	return 0;
}
