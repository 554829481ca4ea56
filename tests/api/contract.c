/* SPDX-License-Identifier: MIT */
/*
 * What nicd.h promises of ends, against two real nicds: every call that was accepted is answered exactly once, however its session ends, with work
 * of each kind in flight; and sessions of different threads have nothing to do with each other.
 *
 * To be run with -Db_sanitize=thread too: `meson setup build-thread -Db_sanitize=thread && meson test -C build-thread contract`.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/api/work.h"

enum { ROUNDS = 2, THREADS = 2 };

struct thread {
	pthread_t id;
	unsigned number;
	int line;
	const char *what;
};

static void *run(void *arg)
{
	struct thread *thread = arg;

	for (unsigned i = 0; i < ROUNDS * WORK_ENDS && thread->line == 0; i++)
		thread->line = work_run(getenv("NICD_TEST_1"), getenv("NICD_TEST_2"), i % WORK_ENDS, thread->number * 1000 + i, &thread->what);
	return NULL;
}

static int finished(const struct thread *thread, const char *name)
{
	if (thread->line)
		fprintf(stderr, "%s: work.c:%d: %s\n", name, thread->line, thread->what);
	return thread->line != 0;
}

int main(void)
{
	struct thread alone = { .number = THREADS }, threads[THREADS];
	int failed;

	run(&alone);
	failed = finished(&alone, "alone");
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){ .number = i };
		if (pthread_create(&threads[i].id, NULL, run, &threads[i]) != 0)
			return 1;
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		failed |= finished(&threads[i], "thread");
	}
	return failed;
}
