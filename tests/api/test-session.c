/* SPDX-License-Identifier: MIT */
/* Opening a session, what Hello tells, the attribute's versions, the rule for forks. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/attr.h"
#include "tests/api/fake.h"

/* ---------------------------------------------------------------------------------------------------------------- Hello */

/* mutation: hello_finish without the loop over adapters */
static void test_what_hello_tells(void **state)
{
	struct fake *fake = *state;
	const struct nicd_session_info *session = nicd_session(fake->n);
	const struct nicd_adapter_info *adapter = nicd_adapter(fake->n, 0);

	assert_int_equal(session->size, sizeof(*session));
	assert_int_equal(session->major, NICD_MAJOR);
	assert_int_equal(session->minor, 3);
	assert_int_equal(session->serial, 42);
	assert_int_equal(session->role, NICD_ROLE_CLIENT);
	assert_string_equal(session->daemon, "nicd fake");
	assert_string_equal(session->account, "uid:7");
	assert_int_equal(session->boot_id[0], 0xb0);
	assert_int_equal(nicd_adapter_count(fake->n), 1);
	assert_string_equal(adapter->name, "soft0");
	assert_string_equal(adapter->data_address, "127.0.0.1:7190");
	assert_int_equal(adapter->up, 1);
	assert_null(nicd_adapter(fake->n, 1));
}

/* mutation: adapter_take without freeing the old strings */
static void test_adapter_query(void **state)
{
	struct fake *fake = *state;
	Nicd__AdapterInfo info = NICD__ADAPTER_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	info.id = 0x0100000000000001;
	info.name = (char *)"soft0";
	info.max_mr = 99;
	reply.id = 2;
	reply.result_case = NICD__REPLY__RESULT_ADAPTER;
	reply.adapter = &info;
	fake_reply(fake, &reply);
	fake_send(fake);
	assert_int_equal(nicd_adapter_query(fake->n, 0), 0);
	assert_int_equal(fake_read(fake)->requests[0]->query_adapter->adapter->id, 0x0100000000000001);
	assert_int_equal(nicd_adapter(fake->n, 0)->max_mr, 99);
	assert_int_equal(nicd_adapter(fake->n, 0)->up, 0);
	assert_int_equal(nicd_adapter_query(fake->n, 1), -ENODEV);
}

/* mutation: hello_label returning the name as it is */
static void test_hello_is_said(void **state)
{
	struct fake *fake = *state;
	struct nicd_open_attr attr = { .size = sizeof(attr), .client = "a label", .timeout_ms = 10 };
	const Nicd__Hello *hello;

	assert_int_equal(fake_open(fake, &attr), -ETIMEDOUT);
	hello = fake_read(fake)->requests[0]->hello;
	assert_int_equal(hello->major, NICD_MAJOR);
	assert_int_equal(hello->min_minor, NICD_MINOR);
	assert_string_equal(hello->client, "a label");
	fake_hang_up(fake);
	/* A program's name may be anything; a label may not. */
	program_invocation_short_name = (char *)"bad name/\xff";
	attr.client = NULL;
	assert_int_equal(fake_open(fake, &attr), -ETIMEDOUT);
	assert_string_equal(fake_read(fake)->requests[0]->hello->client, "bad_name__");
}

/* mutation: open_failed without filling attr->error */
static void test_refused_hello(void **state)
{
	struct fake *fake = *state;
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = { .size = sizeof(attr), .flags = NICD_OPEN_FD, .error = &error };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	fake->sock = pair[0];
	attr.fd = pair[1];
	fake_reply_error(fake, 1, NICD_R_VERSION);
	fake_send(fake);
	assert_int_equal(nicd_open(&fake->n, &attr), -EPROTONOSUPPORT);
	assert_null(fake->n);
	assert_string_equal(error.name, "VERSION");
	assert_int_equal(error.error, -EPROTONOSUPPORT);
	assert_int_equal(error.size, sizeof(error));
}

static int signals_left;

/* Stops after a while, so that also a library that starts anew at each signal comes to an end. */
static void on_alarm(int signal)
{
	struct itimerval never = { .it_value = { .tv_usec = 0 } };

	if (--signals_left == 0)
		setitimer(ITIMER_REAL, &never, NULL);
}

/* mutation: open_hello waiting for ever */
/* mutation: conn_left_ms without the look at the clock */
static void test_silent_daemon(void **state)
{
	struct fake *fake = *state;
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = { .size = sizeof(attr), .timeout_ms = 100, .error = &error };
	struct itimerval often = { .it_value = { .tv_usec = 20000 }, .it_interval = { .tv_usec = 20000 } };
	struct itimerval never = { .it_value = { .tv_usec = 0 } };
	struct sigaction action = { .sa_handler = on_alarm }, before;

	signals_left = 100;
	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	assert_int_equal(fake_open(fake, &attr), -ETIMEDOUT);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
	assert_string_equal(error.name, "GREETING_TIMEOUT");
	assert_true(signals_left > 0);
}

/* mutation: open_failed without close(attr->fd) */
static void test_socket_is_taken_on_failure(void **state)
{
	struct fake *fake = *state;
	struct nicd_open_attr attr = { .size = sizeof(attr), .flags = NICD_OPEN_FD | 0x80, .fd = dup(0) };
	int pair[2];

	assert_int_equal(nicd_open(&fake->n, &attr), -EINVAL);
	assert_int_equal(fcntl(attr.fd, F_GETFD), -1);
	attr.flags = NICD_OPEN_FD;
	attr.fd = dup(0);
	assert_true(nicd_open(&fake->n, &attr) < 0);
	assert_int_equal(fcntl(attr.fd, F_GETFD), -1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	attr.fd = pair[1];
	assert_int_equal(nicd_open(&fake->n, &attr), -EPROTOTYPE);
	close(pair[0]);
	assert_null(fake->n);
}

/* ----------------------------------------------------------------------------------------------- versions of attributes */

/* mutation: attr_get without the look at unknown bytes */
static void test_attribute_sizes(void **state)
{
	struct fake *fake = *state;
	struct {
		struct nicd_open_attr attr;
		uint64_t newer[2];
	} grown = { .attr = { .size = sizeof(grown), .client = "x" } };

	grown.attr.size = sizeof(grown.attr) - 1;
	assert_int_equal(nicd_open(&fake->n, &grown.attr), -EINVAL);
	grown.attr.size = 0;
	assert_int_equal(nicd_open(&fake->n, &grown.attr), -EINVAL);
	grown.attr.size = sizeof(grown);
	grown.newer[1] = 1;
	assert_int_equal(nicd_open(&fake->n, &grown.attr), -E2BIG);
	grown.newer[1] = 0;
	grown.attr.socket = "/nonexistent/nicd.sock";
	assert_int_equal(nicd_open(&fake->n, &grown.attr), -ENOENT);
}

/* A caller that was compiled with an earlier version, whose struct was smaller. */
/* mutation: attr_put writing `size` bytes always */
/* mutation: attr_get copying `size` bytes always */
static void test_earlier_versions(void **state)
{
	struct fake *fake = *state;
	const struct nicd_transfer from = { .local_token = 99, .remote_token = 1, .local_addr = 2, .remote_addr = 3 };
	struct nicd_transfer to, old = { .local_token = 16, .remote_token = 7, .local_addr = 8, .remote_addr = 9 };

	/* (Any struct does whose first member is 32 bits.) */
	assert_int_equal(attr_get(&fake->n->error, &to, sizeof(to), 16, &old), 0);
	assert_int_equal(to.local_addr, 8);
	assert_int_equal(to.remote_addr, 0);
	attr_put(&old, &from, sizeof(from));
	assert_int_equal(old.local_token, 16);
	assert_int_equal(old.local_addr, 2);
	assert_int_equal(old.remote_addr, 9);
	attr_put(NULL, &from, sizeof(from));
}

/* mutation: attr_put without the memset */
static void test_output_sizes(void **state)
{
	struct fake *fake = *state;
	struct {
		struct nicd_receipt receipt;
		uint64_t newer;
		uint64_t guard;
	} grown;
	Nicd__Receipt from = NICD__RECEIPT__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	memset(&grown, 0xee, sizeof(grown));
	grown.receipt.size = sizeof(grown.receipt) - 1;
	assert_int_equal(nicd_revoke(fake->n, 1, &grown.receipt), -EINVAL);
	grown.receipt.size = offsetof(__typeof__(grown), guard);
	from.serial = 5;
	reply.id = 2;
	reply.result_case = NICD__REPLY__RESULT_RECEIPT;
	reply.receipt = &from;
	fake_reply(fake, &reply);
	fake_send(fake);
	assert_int_equal(nicd_revoke(fake->n, 5, &grown.receipt), 0);
	assert_int_equal(grown.receipt.serial, 5);
	assert_int_equal(grown.receipt.size, offsetof(__typeof__(grown), guard));
	/* What this library doesn't know is 0; what is not the struct's is untouched. */
	assert_int_equal(grown.newer, 0);
	assert_int_equal(grown.guard, 0xeeeeeeeeeeeeeeee);
}

/* -------------------------------------------------------------------------------------------------------- where nicd is */

static char where[64];

static void listen_at(const char *path, int *sock)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	*sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(*sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(*sock, 1), 0);
}

/* Who is called is who has a connection in its backlog; nobody answers. */
static bool called(int sock)
{
	int fd = accept(sock, NULL, NULL);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* mutation: path_default asking XDG_RUNTIME_DIR first */
/* mutation: path_admin returning the path as it is */
static void test_where_nicd_is(void **state)
{
	struct fake *fake = *state;
	struct nicd_open_attr attr = { .size = sizeof(attr), .timeout_ms = 10 };
	char text[128];
	int named, runtime, admin, given;

	snprintf(where, sizeof(where), "/tmp/nicd-test-XXXXXX");
	assert_non_null(mkdtemp(where));
	snprintf(text, sizeof(text), "%s/nicd", where);
	assert_int_equal(mkdir(text, 0700), 0);
	snprintf(text, sizeof(text), "%s/nicd/nicd.sock", where);
	listen_at(text, &runtime);
	snprintf(text, sizeof(text), "%s/nicd/admin.sock", where);
	listen_at(text, &admin);
	snprintf(text, sizeof(text), "%s/given.sock", where);
	listen_at(text, &given);
	snprintf(text, sizeof(text), "%s/named.sock", where);
	listen_at(text, &named);

	setenv("XDG_RUNTIME_DIR", where, 1);
	setenv("NICD_SOCKET", text, 1);
	nicd_open(&fake->n, &attr);
	assert_true(called(named) && !called(runtime) && !called(admin) && !called(given));
	unsetenv("NICD_SOCKET");
	nicd_open(&fake->n, &attr);
	assert_true(!called(named) && called(runtime) && !called(admin) && !called(given));
	attr.flags = NICD_OPEN_ADMIN;
	nicd_open(&fake->n, &attr);
	assert_true(!called(named) && !called(runtime) && called(admin) && !called(given));
	snprintf(text, sizeof(text), "%s/given.sock", where);
	attr.flags = 0;
	attr.socket = text;
	nicd_open(&fake->n, &attr);
	assert_true(!called(named) && !called(runtime) && !called(admin) && called(given));
	assert_null(fake->n);

	unsetenv("XDG_RUNTIME_DIR");
	close(named);
	close(runtime);
	close(admin);
	close(given);
	snprintf(text, sizeof(text), "rm -r %s", where);
	assert_int_equal(system(text), 0);
}

/* mutation: open_path without the check of len */
static void test_bad_paths(void **state)
{
	struct fake *fake = *state;
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = { .size = sizeof(attr), .error = &error };
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	attr.socket = path;
	assert_int_equal(nicd_open(&fake->n, &attr), -ENAMETOOLONG);
	attr.socket = "";
	assert_int_equal(nicd_open(&fake->n, &attr), -EINVAL);
	attr.socket = "/nonexistent/nicd.sock";
	assert_int_equal(nicd_open(&fake->n, &attr), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/nicd.sock"));
	assert_null(fake->n);
}

/* ----------------------------------------------------------------------------------------------------------------- fork */

/* mutation: conn_forked returning false */
static void test_fork(void **state)
{
	struct fake *fake = *state;
	struct told told = { 0 };
	struct nicd_pd *pd, *other;
	int status;
	pid_t pid;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &told), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int ok = nicd_pd_create(fake->n, 0, &other) == -EOWNERDEAD &&
			 nicd_pd_create_async(fake->n, 0, &other, tell, &told) == -EOWNERDEAD &&
			 nicd_flush(fake->n) == -EOWNERDEAD && nicd_dispatch(fake->n, 0) == -EOWNERDEAD &&
			 nicd_pd_close(pd) == -EOWNERDEAD && !strcmp(nicd_last_error(fake->n)->name, "FORKED");

		nicd_free(fake->n);
		_exit(ok && told.called == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	/* The parent's session has not noticed. */
	fake_silent(fake);
	assert_int_equal(nicd_flush(fake->n), 0);
	assert_int_equal(fake_read(fake)->n_requests, 1);
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(told.error, 0);
}

static void log_line(void *userdata, int priority, const char *text)
{
	snprintf(userdata, 128, "%d %s", priority, text);
}

/* mutation: conn_lose without calling n->log */
static void test_log_hook(void **state)
{
	struct fake *fake = *state;
	char line[128] = "";
	struct nicd_open_attr attr = { .size = sizeof(attr), .log = log_line, .log_userdata = line, .timeout_ms = 10 };

	assert_int_equal(fake_open(fake, &attr), -ETIMEDOUT);
	assert_string_equal(line, "");
	fake_hang_up(fake);
	attr = (struct nicd_open_attr){ .size = sizeof(attr), .log = log_line, .log_userdata = line, .flags = NICD_OPEN_FD };
	attr.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(nicd_open(&fake->n, &attr), -ENOTSOCK);
	{
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
		fake->sock = pair[0];
		attr.fd = pair[1];
		fake_hang_up(fake);
	}
	assert_int_equal(nicd_open(&fake->n, &attr), -EPROTO);
	assert_memory_equal(line, "3 CONNECTION_LOST", 17);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_open(test_what_hello_tells),
		test_open(test_adapter_query),
		test_closed(test_hello_is_said),
		test_closed(test_refused_hello),
		test_closed(test_silent_daemon),
		test_closed(test_socket_is_taken_on_failure),
		test_closed(test_attribute_sizes),
		test_open(test_earlier_versions),
		test_open(test_output_sizes),
		test_closed(test_where_nicd_is),
		test_closed(test_bad_paths),
		test_open(test_fork),
		test_closed(test_log_hook),
	};

	unsetenv("NICD_SOCKET");
	unsetenv("XDG_RUNTIME_DIR");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
