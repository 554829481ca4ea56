/* SPDX-License-Identifier: MIT */
/* The journal: nothing that a client says can forge a line or fill it, and nobody waits for a reader of stderr. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/log.h"

static int reading;

/* stderr is a pipe that we read. */
static int setup(void **state)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK) || dup2(fds[1], STDERR_FILENO) < 0 || fcntl(STDERR_FILENO, F_SETFL, 0) < 0)
		return -1;
	close(fds[1]);
	reading = fds[0];
	unsetenv("JOURNAL_STREAM");
	log_init(LOG_INFO);
	return 0;
}

static int teardown(void **state)
{
	return close(reading);
}

static const char *written(void)
{
	static char text[65536 * 2];
	ssize_t n = read(reading, text, sizeof(text) - 1);

	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void test_escape(void **state)
{
	char out[64];

	assert_string_equal(log_escape(out, sizeof(out), "plain text"), "plain text");
	/* mutation: let control bytes through */
	assert_string_equal(log_escape(out, sizeof(out), "a\nb\x1b[31m\x7f"), "a\\x0ab\\x1b[31m\\x7f");
	/* mutation: let bytes above 0x7f through (0xc2 0x9b is a terminal's control sequence) */
	assert_string_equal(log_escape(out, sizeof(out), "\xc2\x9b"), "\\xc2\\x9b");
	/* mutation: cut an escape in two, or write past the end */
	assert_string_equal(log_escape(out, 6, "abc\n"), "abc");
	assert_string_equal(log_escape(out, 8, "abc\n"), "abc\\x0a");
	assert_string_equal(log_escape(out, 3, "abc"), "ab");
	assert_string_equal(log_escape(out, 1, "abc"), "");
}

static void test_lines(void **state)
{
	struct log_client who = { .pid = 7, .uid = 1000, .session = 42 };

	log_write(LOG_NOTICE, "two %s", "words");
	assert_string_equal(written(), "nicd: two words\n");
	log_client(LOG_NOTICE, &who, "label %s", "x\nnicd: forged");
	/* mutation: write what came as it came */
	assert_string_equal(written(), "nicd: session 42 uid 1000 pid 7: label x\\x0anicd: forged\n");
	/* mutation: ignore the level */
	log_write(LOG_DEBUG, "not wanted");
	assert_string_equal(written(), "");
	assert_true(log_wants(LOG_INFO));
	assert_false(log_wants(LOG_DEBUG));
}

static void test_rate(void **state)
{
	struct log_client who = { .pid = 7 };
	unsigned lines = 0;
	const char *text;

	for (unsigned i = 0; i < 1000; i++)
		log_client(LOG_NOTICE, &who, "flood");
	for (text = written(); (text = strchr(text, '\n')); text++)
		lines++;
	/* mutation: no limit for clients */
	assert_true(lines >= 50 && lines <= 150);
	/* mutation: a limit for the daemon's own */
	log_write(LOG_NOTICE, "own");
	assert_string_equal(written(), "nicd: own\n");
	nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 100000000 }, NULL);
	log_client(LOG_NOTICE, &who, "later");
	text = written();
	/* mutation: say nothing about those that were left out */
	assert_non_null(strstr(text, "lines left out"));
	assert_non_null(strstr(text, "later\n"));
}

/* Nobody reads: lines are dropped, the caller goes on. */
static void test_full_pipe(void **state)
{
	/* mutation: write without asking poll (this would hang) */
	for (unsigned i = 0; i < 5000; i++)
		log_write(LOG_NOTICE, "a line that is long enough to fill a pipe of 64 KiB some day, and then nobody is there to read it");
	assert_true(strlen(written()) >= 32768);
}

static void test_long_line(void **state)
{
	char text[5000];
	const char *line;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_write(LOG_NOTICE, "%s", text);
	line = written();
	assert_true(strlen(line) > 1000 && strlen(line) < 1100);
	assert_int_equal(line[strlen(line) - 1], '\n');
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape), T(test_lines), T(test_full_pipe), T(test_long_line), T(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
