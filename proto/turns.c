/* SPDX-License-Identifier: MIT */
/* struct turns is arithmetic on clocks that it is handed; it lives as long as the loop it is about. */
#include "proto/turns.h"

#include <time.h>

enum { US = 1000 };

uint64_t turns_cpu(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void turns_init(struct turns *turns, uint64_t now_ns)
{
	*turns = (struct turns){ .end_ns = now_ns };
}

/* Between two looks at the processor's clock lies one turn, with the little that its wait costs. */
static void cpu_end(struct turns *turns, uint64_t cpu_ns)
{
	if (turns->cpu_ns && cpu_ns - turns->cpu_ns > turns->since.longest_cpu_us)
		turns->since.longest_cpu_us = cpu_ns - turns->cpu_ns;
	turns->cpu_ns = cpu_ns;
}

void turns_end(struct turns *turns, uint64_t now_ns, uint64_t idle_ns, uint64_t (*cpu)(void))
{
	uint64_t all = now_ns - turns->end_ns, waited = idle_ns - turns->idle_ns;
	uint64_t length = all > waited ? all - waited : 0;

	turns->end_ns = now_ns;
	turns->idle_ns = idle_ns;
	turns->since.turns++;
	turns->since.slow += length > TURNS_SLOW_US * US;
	if (length > turns->since.longest_us)
		turns->since.longest_us = length;
	if (now_ns < turns->watched_until_ns)
		cpu_end(turns, cpu());
	else
		turns->cpu_ns = 0;
}

struct turns_report turns_take(struct turns *turns, uint64_t now_ns)
{
	struct turns_report report = turns->since;

	report.longest_us = (report.longest_us + US - 1) / US;
	report.longest_cpu_us = (report.longest_cpu_us + US - 1) / US;
	turns->since = (struct turns_report){ 0 };
	turns->watched_until_ns = now_ns + UINT64_C(1000000000) * TURNS_WATCH_S;
	return report;
}
