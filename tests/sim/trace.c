/* SPDX-License-Identifier: MIT */
/* The trace of the run under way. There is one run at a time in a process. */
#include "tests/sim/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	uint64_t seed, hash;
	const char *profile;
	unsigned step;
	bool print;
	uint64_t n;
	struct {
		const char *what;
		unsigned step;
		uint64_t a, b, c;
	} kept[TRACE_KEPT];
} now;

void trace_begin(uint64_t seed, const char *profile, bool print)
{
	memset(&now, 0, sizeof(now));
	now.seed = seed;
	now.profile = profile;
	now.print = print;
	now.hash = UINT64_C(0xcbf29ce484222325);
}

static void mix(uint64_t value)
{
	now.hash = (now.hash ^ value) * UINT64_C(0x100000001b3);
	now.hash ^= now.hash >> 29;
}

void trace_step(unsigned step)
{
	now.step = step;
	mix(step);
}

static void trace_print(FILE *to, uint64_t i)
{
	fprintf(to, "  %4u  %-18s %llx %llx %llx\n", now.kept[i % TRACE_KEPT].step, now.kept[i % TRACE_KEPT].what,
		(unsigned long long)now.kept[i % TRACE_KEPT].a, (unsigned long long)now.kept[i % TRACE_KEPT].b,
		(unsigned long long)now.kept[i % TRACE_KEPT].c);
}

void trace(const char *what, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t i = now.n++ % TRACE_KEPT;

	for (const char *at = what; *at; at++)
		mix((uint8_t)*at);
	mix(a);
	mix(b);
	mix(c);
	now.kept[i].what = what;
	now.kept[i].step = now.step;
	now.kept[i].a = a;
	now.kept[i].b = b;
	now.kept[i].c = c;
	if (now.print)
		trace_print(stdout, i);
}

uint64_t trace_hash(void)
{
	return now.hash;
}

void trace_report(const char *why)
{
	uint64_t from = now.n > 60 ? now.n - 60 : 0;

	fflush(stdout);
	for (uint64_t i = from; i < now.n && !now.print; i++)
		trace_print(stderr, i);
	fprintf(stderr, "simulation: seed %llu, profile %s, step %u: %s\n", (unsigned long long)now.seed, now.profile, now.step, why);
	fflush(stderr);
}

void sim_fail(const char *format, ...)
{
	char why[512];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	trace_report(why);
	_Exit(1);
}
