/* SPDX-License-Identifier: MIT */
/*
 * The simulation:
 *
 *   sim --seeds N [--from SEED]     plays N seeds of each profile, one after the other, and prints TAP
 *   sim --seed SEED [--profile P]   plays one, and prints the hash of its trace; --trace prints the trace
 *   --steps N                       the length of a run
 *   --skip A-B[,C-D…]               leaves steps out
 *   --before N                      plays N seeds before those that count
 *   --count                         says how often each call had each answer
 *
 * A run that breaks a rule ends the process: it says seed, profile and step, and what led there.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/world.h"

enum { STEPS = 250 };

static const struct profile profiles[] = {
	{ "calm", .inline_end = 3, .jump = 40, .news = 12, .wild = 60, .die = 200 },
	{ "inline", .batch = 3, .narrow = 4, .inline_end = 1, .fail = 12, .jump = 40, .news = 10, .wild = 40, .die = 120 },
	{ "batches", .batch = 2, .narrow = 2, .inline_end = 3, .jump = 40, .news = 12, .wild = 30, .bad = 200, .die = 200 },
	{ "failures", .batch = 6, .inline_end = 4, .fail = 4, .jump = 15, .news = 10, .wild = 60, .die = 100 },
	{ "losses", .batch = 6, .inline_end = 5, .fail = 20, .jump = 30, .news = 10, .wild = 60, .lose = 30, .die = 100 },
	{ "deaths", .batch = 6, .narrow = 3, .inline_end = 4, .fail = 20, .jump = 25, .news = 10, .wild = 60, .die = 15, .bad = 100 },
	{ "tight", .batch = 4, .inline_end = 3, .fail = 15, .jump = 30, .news = 10, .wild = 80, .tight = true, .die = 80 },
	{ "memory", .batch = 4, .inline_end = 3, .fail = 20, .jump = 25, .news = 8, .wild = 60, .oom = 6, .die = 60, .lose = 120 },
	{ "slow", .batch = 3, .inline_end = 3, .fail = 20, .jump = 15, .news = 8, .wild = 60, .slow = 8, .tight = true, .die = 60 },
	{ "all", .batch = 3, .narrow = 3, .inline_end = 4, .fail = 8, .oom = 25, .lose = 60, .die = 30, .slow = 20, .bad = 80, .wild = 25, .jump = 12,
	  .tight = true, .news = 8 },
};
enum { PROFILES = sizeof(profiles) / sizeof(*profiles) };

struct skip {
	unsigned n;
	struct {
		unsigned from, to;
	} parts[256];
};

static bool skipped(const struct skip *skip, unsigned step)
{
	for (unsigned i = 0; i < skip->n; i++)
		if (step >= skip->parts[i].from && step <= skip->parts[i].to)
			return true;
	return false;
}

static void skip_parse(struct skip *skip, const char *text)
{
	char *end;

	while (*text && skip->n < 256) {
		skip->parts[skip->n].from = skip->parts[skip->n].to = (unsigned)strtoul(text, &end, 10);
		if (*end == '-')
			skip->parts[skip->n].to = (unsigned)strtoul(end + 1, &end, 10);
		skip->n++;
		text = *end ? end + 1 : end;
	}
}

/* Each step draws from a stream of its own, so that the others stay alike when one is left out. */
static uint64_t step_seed(uint64_t seed, unsigned step)
{
	struct sim_random r = { seed * UINT64_C(0x2545F4914F6CDD1D) + step };

	return sim_random(&r);
}

static uint64_t run(uint64_t seed, const struct profile *profile, unsigned steps, const struct skip *skip, bool print)
{
	trace_begin(seed, profile->name, print);
	world_begin(step_seed(seed, UINT32_MAX), profile);
	for (unsigned step = 1; step <= steps; step++) {
		if (skip && skipped(skip, step))
			continue;
		trace_step(step);
		world->random.state = step_seed(seed, step);
		play_step();
	}
	trace_step(steps + 1);
	world->random.state = step_seed(seed, steps + 1);
	world_end();
	return trace_hash();
}

static void on_signal(int signal)
{
	trace_report(signal == SIGABRT ? "aborted" : signal == SIGALRM ? "it never ends" : "crashed");
	_Exit(2);
}

void __asan_on_error(void);
__attribute__((visibility("default"))) void __asan_on_error(void)
{
	trace_report("memory is misused");
}

static int play(uint64_t from, uint64_t seeds, unsigned steps, uint64_t before)
{
	printf("1..%d\n", PROFILES);
	for (unsigned i = 0; i < PROFILES; i++) {
		uint64_t hash = 0, requests = 0, commands = 0;

		for (uint64_t seed = from - before; seed < from; seed++)
			(void)run(seed, &profiles[i], steps, NULL, false);
		for (uint64_t seed = from; seed < from + seeds; seed++) {
			alarm(60);
			hash ^= run(seed, &profiles[i], steps, NULL, false) * (seed * 2 + 1);
			requests += world->requests;
			commands += world->commands;
		}
		printf("ok %u - %s: seeds %llu to %llu, %llu requests, %llu commands, hash %016llx\n", i + 1, profiles[i].name,
		       (unsigned long long)from, (unsigned long long)(from + seeds - 1), (unsigned long long)requests,
		       (unsigned long long)commands, (unsigned long long)hash);
		fflush(stdout);
	}
	return 0;
}

static const struct profile *profile_find(const char *name)
{
	for (unsigned i = 0; i < PROFILES; i++)
		if (!strcmp(profiles[i].name, name))
			return &profiles[i];
	fprintf(stderr, "sim: there is no profile %s\n", name);
	exit(2);
}

static void statuses(void)
{
	for (unsigned call = 0; call < CALL_COUNT; call++)
		for (unsigned status = 0; status < 32; status++)
			if (world->model->statuses[call][status])
				printf("call %u status %u: %llu\n", call, status, (unsigned long long)world->model->statuses[call][status]);
	for (unsigned kind = 0; kind < 16; kind++)
		if (world->model->events[kind])
			printf("event %u: %llu\n", kind, (unsigned long long)world->model->events[kind]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 'n' }, { "from", required_argument, NULL, 'f' }, { "seed", required_argument, NULL, 's' },
		{ "profile", required_argument, NULL, 'p' }, { "steps", required_argument, NULL, 'l' }, { "trace", no_argument, NULL, 't' },
		{ "skip", required_argument, NULL, 'k' }, { "before", required_argument, NULL, 'b' }, { "count", no_argument, NULL, 'c' }, { 0 } };
	static struct skip skip;
	uint64_t seeds = 0, from = 1, seed = 0, before = 0;
	const struct profile *profile = NULL;
	unsigned steps = STEPS;
	bool print = false, count = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'n':
			seeds = strtoull(optarg, NULL, 0);
			break;
		case 'f':
			from = strtoull(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			profile = profile_find(optarg);
			break;
		case 'l':
			steps = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 't':
			print = true;
			break;
		case 'k':
			skip_parse(&skip, optarg);
			break;
		case 'b':
			before = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			count = true;
			break;
		default:
			return 2;
		}
	}
	for (unsigned i = 0; i < 4; i++)
		signal((const int[]){ SIGABRT, SIGSEGV, SIGALRM, SIGFPE }[i], on_signal);
	if (seeds) {
		c = play(from, seeds, steps, before);
		if (count)
			statuses();
		return c;
	}
	alarm(60);
	for (unsigned i = 0; i < PROFILES; i++)
		if (!profile || profile == &profiles[i])
			printf("%s %llu %016llx\n", profiles[i].name, (unsigned long long)seed,
			       (unsigned long long)run(seed, &profiles[i], steps, &skip, print));
	return 0;
}
