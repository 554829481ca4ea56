/* SPDX-License-Identifier: MIT */
/* What nicctl says when it can say no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/nicctl/nicctl.h"

/* Not asked here. */
bool nicctl_answers(struct nicctl *c)
{
	return false;
}

const struct nicd_error_info *nicd_last_error(struct nicd *n)
{
	return NULL;
}

static void without_memory(bool json, char *text, size_t size)
{
	int pipes[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		dup2(pipes[1], STDERR_FILENO);
		nicctl_no_memory(json);
	}
	close(pipes[1]);
	n = read(pipes[0], text, size - 1);
	assert_true(n > 0);
	text[n] = 0;
	close(pipes[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == NICCTL_REFUSED);
}

static void squeeze(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (*text != ' ' && *text != '\n')
			*to++ = *text;
	*to = 0;
}

/* mutation: plain text for whoever asked for JSON */
static void test_no_memory(void **state)
{
	char text[1024];

	without_memory(false, text, sizeof(text));
	assert_string_equal(text, "nicctl: out of memory\n");
	without_memory(true, text, sizeof(text));
	squeeze(text);
	assert_string_equal(text, "{\"error\":[{\"name\":\"ENOMEM\",\"status\":\"\",\"text\":\"outofmemory\",\"limit\":0,\"observed\":0,"
				  "\"cure\":\"\",\"reason\":0,\"errno\":12,\"provider_error\":0}]}");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_no_memory) };

	return cmocka_run_group_tests_name("nicctl-report", tests, NULL, NULL);
}
