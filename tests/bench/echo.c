/* SPDX-License-Identifier: MIT */
/*
 * What a user would compare nicd with: a server on the same kind of socket that does the bare work and nothing else. One is a
 * libuv loop as nicd is, the other a blocking loop, the floor. Both run in a child that dies with the benchmark.
 *
 * The first byte of a packet says what to do: 'E' echo; 'M' take a memfd, look at its seals, its flags and its size,
 * map it, echo; 'U' unmap and close what 'M' brought, echo.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "tests/bench/bench.h"

struct echo {
	uv_poll_t poll;
	int sock;
	int fd;
	void *map;
	size_t size;
};

static void echo_map(struct echo *echo, int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fcntl(fd, F_GETFL) < 0 || fstat(fd, &st) < 0)
		abort();
	echo->fd = fd;
	echo->size = (size_t)st.st_size;
	echo->map = mmap(NULL, echo->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (echo->map == MAP_FAILED)
		abort();
}

static void echo_unmap(struct echo *echo)
{
	munmap(echo->map, echo->size);
	close(echo->fd);
}

static bool echo_once(struct echo *echo, int flags)
{
	static uint8_t buf[65536];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { buf, sizeof buf };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t n = recvmsg(echo->sock, &msg, flags | MSG_CMSG_CLOEXEC);

	if (n <= 0)
		return false;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (buf[0] == 'M' && c) {
		int fd;
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
		echo_map(echo, fd);
	} else if (buf[0] == 'U') {
		echo_unmap(echo);
	}
	return send(echo->sock, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct echo *echo = poll->data;
	unsigned n = 0;

	(void)status;
	(void)events;
	while (n < 32 && echo_once(echo, MSG_DONTWAIT))
		n++;
	if (n == 0)
		_exit(0); /* the benchmark closed its end */
}

static void serve_uv(int sock)
{
	struct echo echo = { .sock = sock };
	uv_loop_t loop;

	uv_loop_init(&loop);
	uv_poll_init(&loop, &echo.poll, sock);
	echo.poll.data = &echo;
	uv_poll_start(&echo.poll, UV_READABLE, on_readable);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void serve_blocking(int sock)
{
	struct echo echo = { .sock = sock };

	while (echo_once(&echo, 0))
		continue;
}

int echo_start(enum echo_kind kind, int cpu)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		bench_die("socketpair");
	pid_t pid = fork();
	if (pid < 0)
		bench_die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sv[0]);
		bench_pin(0, cpu);
		(kind == ECHO_UV ? serve_uv : serve_blocking)(sv[1]);
		_exit(0);
	}
	close(sv[1]);
	return sv[0];
}
