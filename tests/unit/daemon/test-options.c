/* SPDX-License-Identifier: MIT */
/* The command line and the configuration file: one table, two ways in, errors with their place. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/config.h"
#include "daemon/options.h"

static char path[64];

static void write_config(const char *text, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	fclose(file);
}

static int read_config(struct options *options, const char *text, char *message, size_t size)
{
	write_config(text, strlen(text));
	options_init(options);
	message[0] = '\0';
	return config_read(options, path, message, size);
}

static enum options_result read_argv(struct options *options, const char *const *args)
{
	char *argv[16] = { (char *)"nicd" };
	int argc = 1;

	while (args[argc - 1]) {
		argv[argc] = (char *)args[argc - 1];
		argc++;
	}
	options_init(options);
	return options_read(options, argc, argv);
}
#define READ_ARGV(options, ...) read_argv(options, (const char *const[]){ __VA_ARGS__, NULL })

/* The errors are printed; here they would disturb. */
static int quiet(void **state)
{
	return freopen("/dev/null", "w", stderr) ? 0 : -1;
}

static void test_config_values(void **state)
{
	struct options options;
	char message[256];

	assert_int_equal(read_config(&options,
				     "# a comment\n[nicd]\nprovider = none\nsocket = /x/y.sock ; inline\naccount-by = cgroup\n"
				     "log-level = debug\nbind-to-pid = yes\nrevoke-timeout = 7\ngateway-user = 77\n"
				     "[soft]\nuid = 12\nsocket = /a/b\n"
				     "[limits]\npinned-bytes = 3G\nmrs = 17\n[session]\nmax-output = 64K\nmax-calls = 9\n"
				     "[connect]\nallow = 10.0.0.0/8\nallow = [fd00::]/8:7190\n",
				     message, sizeof(message)),
			 0);
	assert_string_equal(message, "");
	assert_int_equal(options.provider, OPTIONS_NONE);
	assert_string_equal(options.socket, "/x/y.sock");
	assert_int_equal(options.policy.account_by, POLICY_BY_CGROUP);
	assert_int_equal(options.log_priority, LOG_DEBUG);
	assert_true(options.bind_to_pid);
	assert_int_equal(options.policy.revoke_timeout_ns, UINT64_C(7000000000));
	assert_true(options.has_gateway_uid);
	assert_int_equal(options.gateway_uid, 77);
	assert_int_equal(options.soft_uid, 12);
	assert_string_equal(options.soft_socket, "/a/b");
	assert_int_equal(options.policy.limits.max[NIC_SLOT_PINNED], UINT64_C(3) << 30);
	assert_int_equal(options.policy.limits.max[NIC_SLOT_MRS], 17);
	assert_int_equal(options.policy.limits.max[NIC_SLOT_PDS], nic_limits_default.max[NIC_SLOT_PDS]);
	assert_int_equal(options.policy.max_output, 65536);
	assert_int_equal(options.policy.max_calls, 9);
	/* mutation: keep the default networks when some are named */
	assert_int_equal(options.policy.n_networks, 2);
}

static void test_config_errors(void **state)
{
	static const struct {
		const char *text, *line, *what;
	} wrong[] = {
		{ "[nicd]\nprovder = soft\n", ":2:", "'provder' is no key of this section" },
		{ "[nicd]\n\n\n[nic]\nx = 1\n", ":5:", "'nic' is no section" },
		{ "socket = /x\n", ":1:", "'' is no section" },
		{ "[nicd]\nsocket = x.sock\n", ":2:", "absolute" },
		{ "[nicd]\nprovider = verbs\n", ":2:", "not built" },
		{ "[nicd]\nprovider = magic\n", ":2:", "auto, soft or none" },
		{ "[nicd]\nwhat is this\n", ":2:", "neither [section] nor key" },
		{ "[nicd\nsocket = /x\n", ":1:", "neither [section] nor key" },
		{ "[limits]\nmrs = -1\n", ":2:", "no number" },
		{ "[limits]\nmrs = 12x\n", ":2:", "no number" },
		{ "[limits]\nmrs =\n", ":2:", "no number" },
		/* mutation: leave out the overflow check of units */
		{ "[limits]\n\npinned-bytes = 99999999T\n", ":3:", "no number" },
		{ "[limits]\nmrs = 99999999999999999999\n", ":2:", "no number" },
		{ "[session]\nmax-calls = 0\n", ":2:", "1 to" },
		{ "[nicd]\nrevoke-timeout = 0\n", ":2:", "seconds" },
		{ "[nicd]\nbind-to-pid = maybe\n", ":2:", "yes nor no" },
		{ "[connect]\nallow = 10.0.0.1/8\n", ":2:", "no network" },
		{ "[soft]\nuid = no-such-user-here\n", ":2:", "no user" },
		/* the first of two errors is the one that is told */
		{ "[nicd]\nfirst = 1\nsecond = 2\n", ":2:", "'first'" },
		{ "[nicd]\nnot a line\nsecond = 2\n", ":2:", "neither" },
	};
	struct options options;
	char message[512];

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		assert_int_equal(read_config(&options, wrong[i].text, message, sizeof(message)), -EINVAL);
		/* mutation: count lines from 0, or only those with keys */
		if (strncmp(message, path, strlen(path)) || strncmp(message + strlen(path), wrong[i].line, strlen(wrong[i].line)) ||
		    !strstr(message, wrong[i].what))
			fail_msg("config %u: '%s'", i, message);
	}
}

/* What inih would cut in two and take for two lines. */
static void test_config_long_line(void **state)
{
	struct options options;
	char text[512] = "[nicd]\nsocket = /", message[512];

	memset(text + strlen(text), 'a', 300);
	strcat(text, "\n");
	assert_int_equal(read_config(&options, text, message, sizeof(message)), -EINVAL);
	/* mutation: leave out the check for a missing newline */
	assert_non_null(strstr(message, ":2: the line is too long"));
}

/* A byte 0 hides the rest of the line from everybody who reads strings. */
static void test_config_binary(void **state)
{
	static const char text[] = "[nicd]\nlog-level = info\0x\n";
	struct options options;
	char message[512];

	write_config(text, sizeof(text) - 1);
	options_init(&options);
	assert_int_equal(config_read(&options, path, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, ":2:"));
}

static void test_config_missing(void **state)
{
	struct options options;
	char message[512];

	options_init(&options);
	assert_int_equal(config_read(&options, "/no/such/file", message, sizeof(message)), -ENOENT);
	assert_non_null(strstr(message, "/no/such/file: cannot be read"));
	/* mutation: run on without the file that was named */
	assert_int_equal(READ_ARGV(&options, "--config", "/no/such/file"), OPTIONS_FAILED);
}

static void test_argv_wins(void **state)
{
	static const char text[] = "[nicd]\nlog-level = error\naccount-by = gid\n[connect]\nallow = 10.0.0.0/8\nallow = 11.0.0.0/8\n";
	struct options options;

	write_config(text, strlen(text));
	/* mutation: read the file after the command line */
	assert_int_equal(READ_ARGV(&options, "--log-level", "debug", "--allow-connect", "12.0.0.0/8", "--config", path), OPTIONS_RUN);
	assert_int_equal(options.log_priority, LOG_DEBUG);
	assert_int_equal(options.policy.account_by, POLICY_BY_GID);
	/* mutation: the command line's networks are added to the file's */
	assert_int_equal(options.policy.n_networks, 1);
	assert_int_equal(READ_ARGV(&options, "--allow-connect=none", "--config", path), OPTIONS_RUN);
	assert_int_equal(options.policy.n_networks, 0);
}

static void test_argv_values(void **state)
{
	struct options options;

	assert_int_equal(READ_ARGV(&options, "--rootless", "--provider=soft", "--socket", "a.sock", "--ready-fd", "5", "--data-listen",
				   "127.0.0.1:0", "--allow-connect", "10.0.0.0/8", "--allow-connect", "11.0.0.0/8:1-2"),
			 OPTIONS_RUN);
	assert_true(options.rootless);
	assert_int_equal(options.provider, OPTIONS_SOFT);
	assert_string_equal(options.socket, "a.sock");
	assert_int_equal(options.ready_fd, 5);
	assert_string_equal(options.data_listen, "127.0.0.1:0");
	assert_int_equal(options.policy.n_networks, 2);
	assert_int_equal(options.policy.connect[1].port_max, 2);
}

static void test_argv_wrong(void **state)
{
	static const char *const wrong[][4] = {
		{ "--no-such-option" }, { "word" }, { "--socket" }, { "--provider", "verbs" }, { "--provider", "x" },
		{ "--rootless=yes" },   { "--ready-fd", "-1" }, { "--ready-fd", "x" }, { "--soft-uid", "-5" }, { "--soft-uid", "4294967295" },
		{ "--allow-connect", "x" }, { "--log-level", "loud" }, { "-x" }, { "--socket", "" },
	};
	char long_path[OPTIONS_PATH + 1];
	struct options options;

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		if (read_argv(&options, wrong[i]) != OPTIONS_USAGE)
			fail_msg("%s %s was taken", wrong[i][0], wrong[i][1] ? wrong[i][1] : "");
	}
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	/* mutation: copy with > instead of >= */
	assert_int_equal(READ_ARGV(&options, "--socket", long_path), OPTIONS_USAGE);
	long_path[sizeof(long_path) - 2] = '\0';
	assert_int_equal(READ_ARGV(&options, "--socket", long_path), OPTIONS_RUN);
}

static void test_help_and_version(void **state)
{
	struct options options;
	int out = dup(STDOUT_FILENO);

	assert_non_null(freopen("/dev/null", "w", stdout));
	assert_int_equal(READ_ARGV(&options, "--help"), OPTIONS_EXIT);
	assert_int_equal(READ_ARGV(&options, "--version", "--socket", "x"), OPTIONS_EXIT);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	close(out);
}

struct sample {
	char *text;
	char wrong[512];
};

static void find_key(void *userdata, const char *section, const char *key)
{
	struct sample *sample = userdata;
	char head[128], line[128];
	const char *from, *to, *at;

	snprintf(head, sizeof(head), "\n[%s]\n", section);
	snprintf(line, sizeof(line), "\n#%s = ", key);
	from = strstr(sample->text, head);
	to = from ? strstr(from + 1, "\n[") : NULL;
	at = from ? strstr(from, line) : NULL;
	if (!at || (to && at > to))
		snprintf(sample->wrong, sizeof(sample->wrong), "%s.%s", section, key);
}

/* Every key is in the sample, and every line of the sample works when the # before it goes. */
static void test_sample(void **state)
{
	struct sample sample = { .text = calloc(1, 65536) };
	FILE *file = fopen(NICD_SAMPLE, "r");
	struct options options;
	char message[512], *at;

	assert_non_null(file);
	assert_true(fread(sample.text, 1, 65535, file) > 0);
	fclose(file);
	options_each_key(find_key, &sample);
	/* mutation: take a key out of packaging/nicd.conf */
	assert_string_equal(sample.wrong, "");
	assert_int_equal(read_config(&options, sample.text, message, sizeof(message)), 0);
	for (at = sample.text; (at = strstr(at, "\n#")); at++) {
		if (at[2] != ' ' && at[2] != '\n')
			at[1] = ' ';
	}
	for (at = sample.text; (at = strstr(at, "\n ")); )
		memmove(at + 1, at + 2, strlen(at + 2) + 1);
	if (read_config(&options, sample.text, message, sizeof(message)))
		fail_msg("%s", message);
	free(sample.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config_values), cmocka_unit_test(test_config_errors), cmocka_unit_test(test_config_long_line),
		cmocka_unit_test(test_config_binary), cmocka_unit_test(test_config_missing), cmocka_unit_test(test_argv_wins),
		cmocka_unit_test(test_argv_values), cmocka_unit_test(test_argv_wrong), cmocka_unit_test(test_help_and_version),
		cmocka_unit_test(test_sample),
	};
	int r;

	snprintf(path, sizeof(path), "/tmp/nicd-options-XXXXXX");
	close(mkstemp(path));
	r = cmocka_run_group_tests(tests, quiet, NULL);
	unlink(path);
	return r;
}
