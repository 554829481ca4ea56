/* SPDX-License-Identifier: MIT */
/* The child of rootless mode: what it is handed, and that it goes. A shell script stands for nicd-soft. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/options.h"
#include "daemon/softproc.h"

static char dir[64];
static struct options options;
static struct softproc softproc;
static uv_loop_t loop;
static char how[128], message[512];
static pid_t janitor;
static int alive;   /* the janitor sees it close */

static int remove_one(const char *what, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(what);
}

/*
 * Removes the directory when the test is over, also when somebody has killed it: then this is all that is left, and not
 * for long.
 */
static void janitor_start(void)
{
	int watch[2];
	char byte;

	assert_int_equal(pipe2(watch, O_CLOEXEC), 0);
	janitor = fork();
	if (!janitor) {
		setsid();
		close(watch[1]);
		while (read(watch[0], &byte, 1) < 0 && errno == EINTR)
			;
		_exit(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) < 0);
	}
	close(watch[0]);
	alive = watch[1];
}

static int janitor_end(void)
{
	int status = -1;

	close(alive);
	return waitpid(janitor, &status, 0) == janitor ? status : -1;
}

static void on_ended(struct softproc *s, const char *text)
{
	snprintf(how, sizeof(how), "%s", text);
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/nicd-softproc-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	janitor_start();
	options_init(&options);
	options.rootless = true;
	snprintf(options.socket, sizeof(options.socket), "%s/nicd.sock", dir);
	snprintf(options.soft_program, sizeof(options.soft_program), "%s/soft", dir);
	how[0] = '\0';
	uv_loop_init(&loop);
	softproc.ended = on_ended;
	return softproc_init(&softproc, &loop, &options);
}

static int teardown(void **state)
{
	assert_int_equal(softproc.pid, 0);
	softproc_close(&softproc);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(softproc.open_handles, 0);
	assert_int_equal(uv_loop_close(&loop), 0);
	return janitor_end();
}

static void script(const char *text)
{
	FILE *file = fopen(options.soft_program, "w");

	fprintf(file, "#!/bin/sh\n%s\n", text);
	fclose(file);
	assert_int_equal(chmod(options.soft_program, 0755), 0);
}

static void run_until_ended(void)
{
	while (!how[0])
		uv_run(&loop, UV_RUN_ONCE);
}

/* The service manager's protocol, the options, a socket as descriptor 3 and nothing else of ours. */
static void test_what_it_gets(void **state)
{
	char command[512], text[8192];
	int fd;
	FILE *file;
	size_t n;

	strcpy(options.data_listen, "127.0.0.1:0");
	strcpy(options.soft_options, " --max-streams  7\t--max-half-open=9 ");
	snprintf(command, sizeof(command),
		 "{ echo \"$$ $LISTEN_PID\"; echo \"fds $LISTEN_FDS\"; echo \"$@\"; ls -l /proc/$$/fd; "
		 "echo \"three $(readlink /proc/$$/fd/3)\"; echo \"notify $NOTIFY_SOCKET\"; cat /proc/$$/status | grep SigIgn; } >%s/out",
		 dir);
	script(command);
	setenv("NOTIFY_SOCKET", "/nowhere", 1);
	setenv("LISTEN_PID", "1", 1);
	signal(SIGPIPE, SIG_IGN);
	fd = softproc_start(&softproc, message, sizeof(message));
	assert_true(fd >= 0);
	/* Connected, and the path is gone already. mutation: leave it behind */
	snprintf(command, sizeof(command), "%s.soft", options.socket);
	assert_int_equal(access(command, F_OK), -1);
	run_until_ended();
	assert_string_equal(how, "exit code 0");
	snprintf(command, sizeof(command), "%s/out", dir);
	file = fopen(command, "r");
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	snprintf(command, sizeof(command), "%ld", strtol(text, NULL, 10));
	/* mutation: the parent's pid in LISTEN_PID */
	assert_int_equal(strncmp(text + strlen(command) + 1, command, strlen(command)), 0);
	assert_non_null(strstr(text, "\nfds 1\n"));
	/* mutation: all words as one argument; an empty word */
	assert_non_null(strstr(text, "--exit-with-controller --data-listen 127.0.0.1:0 --max-streams 7 --max-half-open=9\n"));
	/* mutation: dup2 the connection in place of the listening socket's descriptor, or leave it CLOEXEC */
	assert_non_null(strstr(text, "\nthree socket:["));
	/* Nothing of our loop. mutation: a loop made without CLOEXEC */
	assert_null(strstr(text, "eventpoll"));
	/* mutation: pass our NOTIFY_SOCKET on */
	assert_non_null(strstr(text, "notify \n"));
	/* mutation: leave SIGPIPE ignored */
	assert_null(strstr(text, "SigIgn:\t0000000000001000"));
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_PID");
	options.soft_options[0] = '\0';
	close(fd);
}

/* The connection ends when the child does, also before it has accepted. */
static void test_dies_early(void **state)
{
	char byte;
	int fd;

	script("exit 3");
	fd = softproc_start(&softproc, message, sizeof(message));
	assert_true(fd >= 0);
	run_until_ended();
	assert_string_equal(how, "exit code 3");
	/* mutation: keep the listening end open here */
	assert_true(recv(fd, &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN);
	close(fd);
}

static void test_cannot_start(void **state)
{
	/* mutation: fork and find out later */
	assert_int_equal(softproc_start(&softproc, message, sizeof(message)), -ENOENT);
	assert_non_null(strstr(message, "--soft-program"));
	script("");
	strcpy(options.socket, "/no/such/dir/nicd.sock");
	assert_int_equal(softproc_start(&softproc, message, sizeof(message)), -ENOENT);
	assert_non_null(strstr(message, "control socket"));
	assert_int_equal(softproc.pid, 0);
}

/* An executable that cannot be executed. */
static void test_not_a_program(void **state)
{
	FILE *file = fopen(options.soft_program, "w");
	int fd;

	fputs("\177ELF nonsense", file);
	fclose(file);
	assert_int_equal(chmod(options.soft_program, 0755), 0);
	fd = softproc_start(&softproc, message, sizeof(message));
	assert_true(fd >= 0);
	run_until_ended();
	assert_string_equal(how, "could not be executed");
	close(fd);
}

static void test_stop(void **state)
{
	int fd;

	script("exec sleep 1000");
	fd = softproc_start(&softproc, message, sizeof(message));
	softproc_stop(&softproc);
	run_until_ended();
	assert_non_null(strstr(how, "killed by"));
	close(fd);
}

/* Deaf to SIGTERM: it is killed when patience ends. */
static void test_stop_insists(void **state)
{
	uint64_t start = uv_hrtime();
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/up", dir);
	/* But not immortal: who is killed with its test's process goes too. */
	script("trap '' TERM; : >$0.up; while kill -0 $PPID; do sleep 0.05; done");
	snprintf(path, sizeof(path), "%s/soft.up", dir);
	fd = softproc_start(&softproc, message, sizeof(message));
	while (access(path, F_OK))
		usleep(1000);
	softproc_stop(&softproc);
	/* mutation: ask once and wait for ever */
	run_until_ended();
	assert_string_equal(how, "killed by Killed");
	assert_true(uv_hrtime() - start < UINT64_C(6000000000));
	close(fd);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_what_it_gets), T(test_dies_early), T(test_cannot_start), T(test_not_a_program), T(test_stop), T(test_stop_insists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
