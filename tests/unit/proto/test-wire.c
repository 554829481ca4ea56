/* SPDX-License-Identifier: MIT */
/* Packets with descriptors over a socketpair; every test counts the process's descriptors before and after. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/wire.h"

enum { SENT_MAX = 253 };   /* SCM_MAX_FD */

struct fixture {
	int sock[2];
	unsigned fds_before;
	struct wire_packet packet;
	uint8_t buf[NICD_FRAME_MAX + 1];
	uint8_t data[NICD_FRAME_MAX * 2];
};

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int size = 1 << 20;

	f->fds_before = count_fds();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->sock), 0);
	setsockopt(f->sock[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close(f->sock[0]);
	close(f->sock[1]);
	assert_int_equal(count_fds(), f->fds_before);
	free(f);
	return 0;
}

static enum wire_result recv_packet(struct fixture *f)
{
	return wire_recv(f->sock[1], f->buf, sizeof(f->buf), &f->packet);
}

/* Sends what wire_send would not: up to SENT_MAX copies of one descriptor, with any data. */
static void raw_send(struct fixture *f, size_t len, unsigned n_fds)
{
	union {
		char bytes[CMSG_SPACE(SENT_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = f->data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (unsigned i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &f->sock[0], sizeof(int));
	}
	assert_int_equal(sendmsg(f->sock[0], &msg, 0), (ssize_t)len);
}

static void test_packet(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(recv_packet(f), WIRE_AGAIN);
	assert_int_equal(wire_send(f->sock[0], "abc", 3, NULL, 0), 0);
	assert_int_equal(wire_send(f->sock[0], "de", 2, NULL, 0), 0);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_int_equal(f->packet.len, 3);
	assert_memory_equal(f->packet.data, "abc", 3);
	assert_int_equal(f->packet.n_fds, 0);
	assert_int_equal(wire_take_fd(&f->packet), -1);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_int_equal(f->packet.len, 2);
	/* mutation: wire_recv without MSG_DONTWAIT (hangs) */
	assert_int_equal(recv_packet(f), WIRE_AGAIN);
}

static void test_fds_owned(void **state)
{
	struct fixture *f = *state;
	unsigned before = count_fds();
	int fds[3] = { 0, 1, 2 };
	int mine;

	assert_int_equal(wire_send(f->sock[0], "x", 1, fds, 3), 0);
	/* Borrowed by wire_send. */
	assert_true(fcntl(2, F_GETFD) >= 0);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_int_equal(f->packet.n_fds, 3);
	assert_int_equal(count_fds(), before + 3);
	for (unsigned i = 0; i < 3; i++) {
		/* mutation: wire_recv without MSG_CMSG_CLOEXEC */
		assert_true(fcntl(f->packet.fds[i], F_GETFD) & FD_CLOEXEC);
	}
	mine = wire_take_fd(&f->packet);
	assert_true(mine >= 0);
	wire_release(&f->packet);
	/* mutation: wire_release closes from the first one, taken or not; or does nothing */
	assert_int_equal(count_fds(), before + 1);
	assert_true(fcntl(mine, F_GETFD) >= 0);
	close(mine);
	/* A second release closes nothing of others. */
	wire_release(&f->packet);
	assert_int_equal(wire_take_fd(&f->packet), -1);
}

/* In order: each a file of its own. */
static void test_fds_order(void **state)
{
	struct fixture *f = *state;
	int fds[NICD_FRAME_FDS];
	struct stat a, b;

	for (unsigned i = 0; i < NICD_FRAME_FDS; i++)
		fds[i] = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(wire_send(f->sock[0], "x", 1, fds, NICD_FRAME_FDS), 0);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_int_equal(f->packet.n_fds, NICD_FRAME_FDS);
	for (unsigned i = 0; i < NICD_FRAME_FDS; i++) {
		int fd = wire_take_fd(&f->packet);

		assert_int_equal(fstat(fds[i], &a), 0);
		assert_int_equal(fstat(fd, &b), 0);
		assert_int_equal(a.st_ino, b.st_ino);
		close(fd);
		close(fds[i]);
	}
	assert_int_equal(wire_take_fd(&f->packet), -1);
}

/* From the first surplus one, which still has room in the control buffer, to the most that the kernel lets through. */
static void test_fds_too_many(void **state)
{
	static const unsigned counts[] = { 65, 66, 79, 80, 81, 82, 100, SENT_MAX };
	struct fixture *f = *state;
	unsigned before = count_fds();

	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		raw_send(f, 1, counts[i]);
		/* mutation: wire_own_fds answers true; wire_recv without the test of MSG_CTRUNC */
		assert_int_equal(recv_packet(f), WIRE_FDS);
		assert_int_equal(f->packet.n_fds, 0);
		/* mutation: n_came counts only those that are kept */
		assert_int_equal(f->packet.n_came, counts[i]);
		/* mutation: wire_own_fds does not close the surplus; wire_drop does not release */
		assert_int_equal(count_fds(), before);
	}
	/* The socket is still good. */
	assert_int_equal(wire_send(f->sock[0], "x", 1, f->sock, 1), 0);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	wire_release(&f->packet);
}

/* Our own table is full: recvmsg succeeds with fewer, and says so only by MSG_CTRUNC. */
static void test_fds_table_full(void **state)
{
	struct fixture *f = *state;
	unsigned before = count_fds();
	struct rlimit old, low;
	int top = dup(0);

	close(top);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)top + 3;
	raw_send(f, 1, 10);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	/* mutation: wire_recv without the test of MSG_CTRUNC */
	assert_int_equal(recv_packet(f), WIRE_FDS);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(f->packet.n_came, 3);
	assert_int_equal(count_fds(), before);
}

static void test_oversize(void **state)
{
	struct fixture *f = *state;
	unsigned before = count_fds();

	raw_send(f, NICD_FRAME_MAX, 0);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_int_equal(f->packet.len, NICD_FRAME_MAX);
	/* Exactly the buffer: the kernel does not call that truncated. */
	raw_send(f, NICD_FRAME_MAX + 1, 2);
	/* mutation: wire_recv judges by MSG_TRUNC only */
	assert_int_equal(recv_packet(f), WIRE_TOO_BIG);
	assert_int_equal(count_fds(), before);
	raw_send(f, NICD_FRAME_MAX + 2, 2);
	assert_int_equal(recv_packet(f), WIRE_TOO_BIG);
	assert_int_equal(count_fds(), before);
	raw_send(f, NICD_FRAME_MAX * 2, 0);
	assert_int_equal(recv_packet(f), WIRE_TOO_BIG);
	/* Dropped whole: the next packet is the next one. */
	assert_int_equal(wire_send(f->sock[0], "abc", 3, NULL, 0), 0);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_memory_equal(f->packet.data, "abc", 3);
}

static void test_empty(void **state)
{
	struct fixture *f = *state;
	unsigned before = count_fds();

	/* mutation: wire_send sends nothing */
	assert_int_equal(wire_send(f->sock[0], "", 0, NULL, 0), -EINVAL);
	assert_int_equal(recv_packet(f), WIRE_AGAIN);
	raw_send(f, 0, 3);
	assert_int_equal(recv_packet(f), WIRE_END);
	/* mutation: wire_recv answers WIRE_END without wire_drop */
	assert_int_equal(count_fds(), before);
}

static void test_end(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(wire_send(f->sock[0], "abc", 3, NULL, 0), 0);
	close(f->sock[0]);
	assert_int_equal(recv_packet(f), WIRE_PACKET);
	assert_int_equal(recv_packet(f), WIRE_END);
	assert_int_equal(wire_send(f->sock[1], "abc", 3, NULL, 0), -EPIPE);
	f->sock[0] = -1;
}

/* The other side left with our packets unread. */
static void test_end_reset(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(wire_send(f->sock[1], "abc", 3, NULL, 0), 0);
	close(f->sock[0]);
	/* mutation: wire_recv makes an error of ECONNRESET */
	assert_int_equal(recv_packet(f), WIRE_END);
	f->sock[0] = -1;
}

static void test_error(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(wire_recv(-1, f->buf, sizeof(f->buf), &f->packet), WIRE_ERROR);
	assert_int_equal(errno, EBADF);
	assert_int_equal(wire_send(-1, "a", 1, NULL, 0), -EBADF);
}

static void test_send_limits(void **state)
{
	struct fixture *f = *state;
	int fds[NICD_FRAME_FDS + 1] = { 0 };
	int r;

	/* mutation: wire_send does not compare n_fds */
	assert_int_equal(wire_send(f->sock[0], "a", 1, fds, NICD_FRAME_FDS + 1), -EINVAL);
	while ((r = wire_send(f->sock[0], f->data, NICD_FRAME_MAX, NULL, 0)) == 0)
		;
	assert_int_equal(r, -EAGAIN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_packet),
		TEST(test_fds_owned),
		TEST(test_fds_order),
		TEST(test_fds_too_many),
		TEST(test_fds_table_full),
		TEST(test_oversize),
		TEST(test_empty),
		TEST(test_end),
		TEST(test_end_reset),
		TEST(test_error),
		TEST(test_send_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
