/* SPDX-License-Identifier: MIT */
/* Thousands of sessions that have said Hello and say nothing more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/bench.h"

static int socks[IDLE_SESSIONS];
static bool open_now;

static void hello_send(int sock)
{
	static struct frame frame;
	Nicd__Hello hello = NICD__HELLO__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	hello.major = 1;
	hello.client = (char *)"idle";
	request.id = 1;
	request.call_case = NICD__REQUEST__CALL_HELLO;
	request.hello = &hello;
	frame.len = 0;
	frame_add(&frame, &request);
	frame_send(sock, &frame, -1);
}

static int idle_connect(const struct daemon *daemon)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%.80s/nicd.sock", daemon->dir);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof addr) < 0)
		bench_die("connect: are there 20,000 descriptors (ulimit -Hn)?");
	return sock;
}

void idle_open(const struct daemon *daemon)
{
	uint8_t buf[4096];

	if (open_now)
		return;
	for (unsigned i = 0; i < IDLE_SESSIONS; i++) {
		socks[i] = idle_connect(daemon);
		hello_send(socks[i]);
		if (recv(socks[i], buf, sizeof buf, 0) <= 0)
			bench_die("an idle session was refused");
	}
	open_now = true;
}

void idle_close(const struct daemon *daemon)
{
	if (!open_now)
		return;
	for (unsigned i = 0; i < IDLE_SESSIONS; i++)
		close(socks[i]);
	/* As the next connection is not served before they have gone, but their objects and sockets may take a little. */
	close(idle_connect(daemon));
	usleep(300000);
	open_now = false;
}

void idle_prepare(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		bench_die("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		bench_die("setrlimit");
}
