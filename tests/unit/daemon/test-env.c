/* SPDX-License-Identifier: MIT */
/* The real world for the NIC layer, timers of the session core, and the count of descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/descriptors.h"
#include "daemon/env.h"
#include "daemon/timers.h"
#include "nicd/nic.h"

static uv_loop_t loop;
static struct env env;

static int setup(void **state)
{
	uv_loop_init(&loop);
	env_init(&env, &loop);
	return 0;
}

static int teardown(void **state)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	env_deinit(&env);
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

static void test_random(void **state)
{
	uint8_t seen[2 * ENV_RANDOM_BLOCK / 16][16];
	uint8_t big[ENV_RANDOM_BLOCK + 1] = { 0 };
	unsigned n = sizeof(seen) / sizeof(*seen), zeros = 0;

	/* Over the end of a block. */
	for (unsigned i = 0; i < n; i++)
		env.nic.random(&env.nic, seen[i], 16);
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < i; k++)
			/* mutation: hand out the same bytes again */
			assert_memory_not_equal(seen[i], seen[k], 16);
	}
	/* mutation: leave in the block what was handed out */
	for (unsigned i = (unsigned)env.random_left; i < sizeof(env.random); i++)
		assert_int_equal(env.random[i], 0);
	env.nic.random(&env.nic, big, sizeof(big));
	for (unsigned i = 0; i < sizeof(big); i++)
		zeros += !big[i];
	assert_true(zeros < sizeof(big) / 32);
}

static void test_clocks(void **state)
{
	uint64_t a = env.nic.now(&env.nic), b = env.nic.now(&env.nic);

	assert_true(a > 0 && b >= a);
	/* mutation: the wall clock for deadlines (2020 is far from any uptime) */
	assert_true(a < UINT64_C(1577836800000000000));
	assert_true(env.nic.wall(&env.nic) > UINT64_C(1577836800000000000));
}

static void test_alloc(void **state)
{
	static const uint8_t zero[512];
	uint8_t *p = env.nic.alloc(&env.nic, sizeof(zero));

	/* mutation: malloc */
	assert_memory_equal(p, zero, sizeof(zero));
	memset(p, 0xff, sizeof(zero));
	env.nic.free(&env.nic, p, sizeof(zero));
}

static void test_close(void **state)
{
	int small = memfd_create("small", 0), big = memfd_create("big", 0);

	env.nic.close_fd(&env.nic, small, 4096);
	assert_int_equal(fcntl(small, F_GETFD), -1);
	assert_int_equal(env.closing, 0);
	/* mutation: close everything at once */
	env.nic.close_fd(&env.nic, big, UINT64_C(1) << 30);
	assert_int_equal(env.closing, 1);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(env.closing, 0);
	assert_int_equal(fcntl(big, F_GETFD), -1);
}

static void test_descriptors(void **state)
{
	struct nic nic = { 0 };
	struct descriptors descriptors;
	uint32_t open = descriptors_open(), left;
	int fd = dup(0);

	assert_int_equal(descriptors_open(), open + 1);
	close(fd);
	assert_int_equal(descriptors_init(&descriptors, &nic, &env), 0);
	left = descriptors.limit - descriptors.base;
	assert_true(descriptors_free(&descriptors, left));
	assert_false(descriptors_free(&descriptors, left + 1));
	/* Each of these counts. mutation: leave one of them out */
	nic.held_fds = 3;
	assert_true(descriptors_free(&descriptors, left - 3));
	assert_false(descriptors_free(&descriptors, left - 2));
	descriptors.sessions = descriptors.pidfds = 2;
	assert_true(descriptors_free(&descriptors, left - 3 - 2 * DESCRIPTORS_PER_SESSION));
	assert_false(descriptors_free(&descriptors, left - 2 - 2 * DESCRIPTORS_PER_SESSION));
	env.closing = 1;
	assert_false(descriptors_free(&descriptors, left - 3 - 2 * DESCRIPTORS_PER_SESSION));
	env.closing = 0;
	/* mutation: let a sum wrap */
	nic.held_fds = UINT64_MAX - 10;
	assert_false(descriptors_free(&descriptors, UINT32_MAX));
}

static void test_descriptors_too_few(void **state)
{
	struct nic nic = { 0 };
	struct descriptors descriptors;
	struct rlimit few = { 400, 400 };
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(setrlimit(RLIMIT_NOFILE, &few) || descriptors_init(&descriptors, &nic, &env) != -EMFILE);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* mutation: start whatever the limit */
	assert_int_equal(status, 0);
}

static unsigned fired;

static void fire(void *arg)
{
	fired += *(unsigned *)arg;
}

static void test_timers(void **state)
{
	struct timers timers;
	unsigned one = 1, ten = 10, hundred = 100;
	uint64_t start = uv_hrtime();

	fired = 0;
	timers_init(&timers, &loop);
	timers_after(&timers, 20000000, fire, &ten);
	timers_after(&timers, 0, fire, &one);
	timers_after(&timers, UINT64_C(60000000000), fire, &hundred);
	/* mutation: call it from inside */
	assert_int_equal(fired, 0);
	while (fired < 11)
		uv_run(&loop, UV_RUN_ONCE);
	assert_true(uv_hrtime() - start >= 20000000);
	/* mutation: fire what is left when closing */
	timers_close(&timers);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(fired, 11);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_random), T(test_clocks), T(test_alloc), T(test_close), T(test_descriptors), T(test_descriptors_too_few),
		T(test_timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
