/* SPDX-License-Identifier: MIT */
/* Descriptors whose close may take for ever, as those of a hostile FUSE server do: a close() of the test's own hangs at will. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/closer.h"

enum { MALLORY = 1000, ALICE = 1001, HANGING = 1000000 };

static uv_loop_t loop;
static uv_prepare_t alive;   /* as a loop with clients is */
static struct closer closer;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool hang;
static unsigned closed, hanging;
static int let, order[2000];   /* one that hangs no more; what was closed when */

static int slow_close(int fd)
{
	pthread_mutex_lock(&mutex);
	hanging += fd >= HANGING;
	pthread_cond_broadcast(&cond);
	while (fd >= HANGING && hang && fd != let)
		pthread_cond_wait(&cond, &mutex);
	hanging -= fd >= HANGING;
	order[closed++] = fd;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
	return 0;
}

static void let_go(void)
{
	pthread_mutex_lock(&mutex);
	hang = false;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
}

static void on_prepare(uv_prepare_t *prepare)
{
}

static int setup(void **state)
{
	uv_loop_init(&loop);
	uv_prepare_init(&loop, &alive);
	uv_prepare_start(&alive, on_prepare);
	closer_init(&closer, &loop);
	closer.close = slow_close;
	closed = hanging = 0;
	let = -1;
	hang = true;
	return 0;
}

static void wait_pending(uint32_t n)
{
	uint64_t until = uv_hrtime() + UINT64_C(10000000000);

	while (closer.pending > n && uv_hrtime() < until) {
		uv_run(&loop, UV_RUN_NOWAIT);
		usleep(100);
	}
	assert_int_equal(closer.pending, n);
}

static int teardown(void **state)
{
	let_go();
	wait_pending(0);
	closer_deinit(&closer);
	uv_close((uv_handle_t *)&alive, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

static void wait_hanging(unsigned n)
{
	pthread_mutex_lock(&mutex);
	while (hanging < n)
		pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
}

static void test_closes(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	closer.close = close;
	closer_close(&closer, fd, ALICE);
	wait_pending(0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_true(LIST_EMPTY(&closer.users));
}

static void test_many(void **state)
{
	for (int i = 0; i < 1000; i++)
		closer_close(&closer, i, ALICE + (uint32_t)i % 7);
	wait_pending(0);
	/* mutation: lose one between the queues */
	assert_int_equal(closed, 1000);
	assert_true(LIST_EMPTY(&closer.users));
}

/* All threads hang. The first that is free again does not go on with what brought most, but with whoever has waited too. */
static void test_next_is_who_has_had_less(void **state)
{
	enum { USERS = CLOSER_THREADS / CLOSER_THREADS_PER_USER, MANY = 50 };

	for (int i = 0; i < CLOSER_THREADS; i++)
		closer_close(&closer, HANGING + i, MALLORY + 10 + (uint32_t)i % USERS);
	wait_hanging(CLOSER_THREADS);
	for (int i = 0; i < MANY; i++)
		closer_close(&closer, i, MALLORY + 10);
	for (int i = 0; i < 3; i++)
		closer_close(&closer, MANY + i, ALICE);
	pthread_mutex_lock(&mutex);
	let = HANGING;   /* one of Mallory's */
	pthread_cond_broadcast(&cond);
	while (closed < 1 + MANY + 3)
		pthread_cond_wait(&cond, &mutex);
	assert_int_equal(order[0], HANGING);
	/* mutation: jobs in the order in which they came: Alice's are the last three */
	for (int i = 0; i < 3; i++)
		assert_in_range(order[1 + 2 * i] >= MANY ? order[1 + 2 * i] : order[2 + 2 * i], MANY, MANY + 2);
	pthread_mutex_unlock(&mutex);
}

static void test_hangs_alone(void **state)
{
	for (int i = 0; i < 200; i++)
		closer_close(&closer, HANGING + i, MALLORY);
	wait_hanging(CLOSER_THREADS_PER_USER);
	/* mutation: no limit of threads per user (then all hang, and Alice waits) */
	for (int i = 0; i < 20; i++)
		closer_close(&closer, i, ALICE);
	wait_pending(200);
	assert_int_equal(closed, 20);
	assert_int_equal(hanging, CLOSER_THREADS_PER_USER);
	/* mutation: room by the number of all */
	assert_true(closer_has_room(&closer, ALICE));
	/* mutation: room always */
	assert_false(closer_has_room(&closer, MALLORY));
	let_go();
	wait_pending(0);
	assert_true(closer_has_room(&closer, MALLORY));
	assert_int_equal(closed, 220);
}

/* The loop ends while somebody hangs: it does not wait, and nothing is touched that is gone. */
static void test_end_while_hanging(void **state)
{
	uint64_t start = uv_hrtime();

	closer_close(&closer, HANGING, MALLORY);
	wait_hanging(1);
	closer_deinit(&closer);
	uv_run(&loop, UV_RUN_NOWAIT);
	/* mutation: wait for the threads */
	assert_true(uv_hrtime() - start < UINT64_C(5000000000));
	let_go();
	while (closed < 1)
		usleep(100);
	usleep(20000);
	closer_init(&closer, &loop);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_closes), T(test_many), T(test_next_is_who_has_had_less),
					    T(test_hangs_alone), T(test_end_while_hanging) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
