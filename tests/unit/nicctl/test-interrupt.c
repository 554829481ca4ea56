/* SPDX-License-Identifier: MIT */
/* A signal that comes when nobody waits yet: the wait that follows ends all the same, and what is put away after that is left in peace. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/nicctl/nicctl.h"

enum { QUIET_MS = 200 };

static void test_before_the_wait(void **state)
{
	int pipes[2];
	char byte;

	assert_int_equal(pipe(pipes), 0);
	nicctl_interrupts_catch();
	assert_false(nicctl_interrupted());
	raise(SIGTERM);
	/* mutation: on_signal sets no timer (nothing ends this read then, and the runner ends the test); or one that rings once */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(read(pipes[0], &byte, 1), -1);
		assert_int_equal(errno, EINTR);
	}
	assert_true(nicctl_interrupted());
	/* mutation: who has seen the flag does not stop it */
	assert_int_equal(poll(NULL, 0, QUIET_MS), 0);
	assert_true(nicctl_interrupted());
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_before_the_wait) };

	return cmocka_run_group_tests_name("nicctl-interrupt", tests, NULL, NULL);
}
