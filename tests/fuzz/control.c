/* SPDX-License-Identifier: MIT */
/*
 * What a controller says to nicd-soft: any bytes, with descriptors of any kind, over a real socket to the real control,
 * device and engine. An input: one byte of flags, then packets: u16 length, u8 how many descriptors, a byte for each of
 * them, the bytes.
 *
 * Connections go nowhere but to the device itself: no input reaches the network.
 */
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "nicd/soft/control.h"
#include "nicd/soft/device.h"
#include "proto/soft.pb-c.h"
#include "tests/fuzz/fds.h"
#include "tests/fuzz/input.h"

enum { HELLO = 1, KEEP = 2, AGAIN = 4, PACKETS = 32, TURNS = 3 };

static uv_loop_t loop;
static uint16_t port;   /* of the device; network byte order */

int __real_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)addr;

	if (addr->sa_family == AF_INET && ntohl(in->sin_addr.s_addr) == INADDR_LOOPBACK && in->sin_port == port)
		return __real_connect(fd, addr, len);
	errno = ECONNREFUSED;
	return -1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	signal(SIGPIPE, SIG_IGN);
	must(uv_loop_init(&loop) == 0);
	/* What libuv opens once is open before anything is counted. */
	uv_run(&loop, UV_RUN_NOWAIT);
	return 0;
}

static void on_closed(void *userdata)
{
	*(bool *)userdata = true;
}

static void hear(int fd)
{
	static uint8_t buf[NICD_FRAME_MAX + 1];
	bool fatal = false;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		Soft__Frame *frame = soft__frame__unpack(NULL, (size_t)n, buf);

		must(frame && !fatal && !frame->n_requests);
		fatal = frame->fatal;
		soft__frame__free_unpacked(frame, NULL);
	}
}

static void turn(int fd, unsigned n)
{
	while (n--) {
		uv_run(&loop, UV_RUN_NOWAIT);
		hear(fd);
	}
}

static void say_hello(int fd, bool keep)
{
	Soft__Frame frame = SOFT__FRAME__INIT;
	Soft__Request request = SOFT__REQUEST__INIT, *requests[] = { &request };
	Soft__Hello hello = SOFT__HELLO__INIT;
	uint8_t buf[64];

	hello.major = NICD_MAJOR;
	hello.keep = keep;
	request.id = UINT32_MAX;
	request.call_case = SOFT__REQUEST__CALL_HELLO;
	request.hello = &hello;
	frame.n_requests = 1;
	frame.requests = requests;
	must(wire_send(fd, buf, soft__frame__pack(&frame, buf), NULL, 0) == 0);
}

/* A controller that says `packets` packets, and goes. */
static void converse(struct soft_control *control, struct input *in, uint8_t flags, unsigned packets)
{
	int pair[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	must(soft_control_admit(control, pair[0]) == 0);
	if (flags & HELLO)
		say_hello(pair[1], flags & KEEP);
	while (packets-- && in->left) {
		fd_send(pair[1], in);
		turn(pair[1], 1);
	}
	turn(pair[1], TURNS);
	close(pair[1]);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static void device_listen(struct soft_control *control)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_storage bound;

	must(soft_engine_listen(soft_device_engine(soft_control_device(control)), (const struct sockaddr *)&any, &bound) == 0);
	port = ((struct sockaddr_in *)&bound)->sin_port;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct soft_control_options options = { .uid = getuid() };
	struct input in = { data, size };
	uint8_t flags = input_u8(&in);
	struct soft_control *control;
	bool closed = false;
	int lowest = fd_lowest();

	must(soft_control_new(&control, &loop, &options) == 0);
	device_listen(control);
	if (flags & AGAIN)
		converse(control, &in, flags, 2);
	converse(control, &in, flags, PACKETS);
	soft_control_close(control, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	must(closed);
	soft_control_free(control);
	must(fd_lowest() == lowest);
	return 0;
}
