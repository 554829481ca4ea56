/* SPDX-License-Identifier: MIT */
/*
 * Packets from a client: any bytes, with descriptors of any kind, over a real socket to a real session, its frames
 * decoded and dispatched into the NIC layer. Whatever comes, nicd lives, a Fatal is the last thing that a session
 * hears, and when its socket has ended nothing is left.
 *
 * An input: one byte of flags, then packets: u16 length, u8 how many descriptors, a byte for each of them, the bytes.
 */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/nicd.pb-c.h"
#include "proto/wire.h"
#include "tests/fuzz/fds.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/world.h"

enum { HELLO = 1, ADMIN = 2, HOLD = 4, IMPATIENT = 8, PACKETS = 32, SETTLE = 64 };

static struct world world;
static unsigned runs;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	signal(SIGPIPE, SIG_IGN);
	return world_init(&world);
}

/* True: the session has ended, and said why if it said anything. */
static bool hear(int fd)
{
	static uint8_t buf[NICD_FRAME_MAX + 1];
	bool fatal = false;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		Nicd__Frame *frame = nicd__frame__unpack(NULL, (size_t)n, buf);

		must(frame && !fatal && n <= NICD_FRAME_MAX);
		must(!frame->n_requests && (frame->n_replies || frame->n_events || frame->fatal));
		fatal = frame->fatal;
		nicd__frame__free_unpacked(frame, NULL);
	}
	return n == 0;
}

static void say_hello(int fd)
{
	Nicd__Frame frame = NICD__FRAME__INIT;
	Nicd__Request request = NICD__REQUEST__INIT, *requests[] = { &request };
	Nicd__Hello hello = NICD__HELLO__INIT;
	uint8_t buf[64];

	hello.major = NICD_MAJOR;
	request.id = UINT32_MAX;
	request.call_case = NICD__REQUEST__CALL_HELLO;
	request.hello = &hello;
	frame.n_requests = 1;
	frame.requests = requests;
	must(wire_send(fd, buf, nicd__frame__pack(&frame, buf), NULL, 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t flags = input_u8(&in);
	int fd = world_dial(&world, flags & ADMIN);
	bool ended = false;

	must(fd >= 0);
	if (flags & HELLO)
		say_hello(fd);
	fake_hold(world.fake, FAKE_OPS, flags & HOLD);
	for (unsigned i = 0; i < PACKETS && in.left && !ended; i++) {
		fd_send(fd, &in);
		world_turn(&world, 1);
		ended = hear(fd);
	}
	if (!(flags & IMPATIENT)) {
		world_turn(&world, 1);
		world_answer(&world);
		world_turn(&world, 1);
		hear(fd);
	}
	close(fd);
	/* Threads are waited for now and then: it takes longer than all the rest. */
	world_until_gone(&world, ++runs % SETTLE == 0);
	must(world_is_clean(&world));
	return 0;
}
