/* SPDX-License-Identifier: MIT */
/* The kinds. None of them is kept: whoever asked owns the descriptor. */
#include "tests/fuzz/fds.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

/* More than a frame may have. */
enum { FD_PACKET = 66 };

static int memory(off_t size, bool populate, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, size) < 0 || (populate && fallocate(fd, 0, 0, size) < 0) || fcntl(fd, F_ADD_SEALS, seals) < 0)
		abort();
	return fd;
}

static int reopened(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	close(fd);
	return again;
}

static int one_of(int pair[2])
{
	close(pair[1]);
	return pair[0];
}

static int make_page(void)
{
	return memory(4096, true, F_SEAL_SHRINK);
}

static int make_pages(void)
{
	return memory(4 * 4096, true, F_SEAL_SHRINK | F_SEAL_GROW);
}

static int make_odd(void)
{
	return memory(5000, true, F_SEAL_SHRINK);
}

static int make_sealed(void)
{
	return memory(4096, true, F_SEAL_SHRINK | F_SEAL_WRITE);
}

static int make_future(void)
{
	return memory(4096, true, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
}

static int make_read_only(void)
{
	return reopened(make_page(), O_RDONLY);
}

static int make_write_only(void)
{
	return reopened(make_page(), O_WRONLY);
}

static int make_path(void)
{
	return reopened(make_page(), O_PATH);
}

static int make_unsealed(void)
{
	return memory(4096, true, 0);
}

static int make_sparse(void)
{
	return memory(1 << 20, false, F_SEAL_SHRINK);
}

static int make_endless(void)
{
	return memory((off_t)1 << 50, false, F_SEAL_SHRINK);
}

static int make_empty(void)
{
	return memory(0, false, F_SEAL_SHRINK);
}

static int make_huge(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

	if (fd >= 0 && (ftruncate(fd, 2 << 20) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int make_secret(void)
{
	return (int)syscall(SYS_memfd_secret, O_CLOEXEC);
}

static int make_pipe(void)
{
	int pair[2];

	return pipe2(pair, O_CLOEXEC) < 0 ? -1 : one_of(pair);
}

static int make_socket(void)
{
	int pair[2];

	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -1 : one_of(pair);
}

/* With a memfd in flight inside it. */
static int make_carrier(void)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { (char[1]){ 0 }, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int)) };
	int pair[2], fd;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	fd = make_page();
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	(void)sendmsg(pair[1], &msg, MSG_DONTWAIT);
	close(fd);
	return one_of(pair);
}

static int make_listener(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		(void)listen(fd, 1);
	return fd;
}

static int make_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

static int make_epoll(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

static int make_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int make_timerfd(void)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

static int make_signalfd(void)
{
	sigset_t none;

	sigemptyset(&none);
	return signalfd(-1, &none, SFD_CLOEXEC);
}

static int make_inotify(void)
{
	return inotify_init1(IN_CLOEXEC);
}

static int make_pidfd(void)
{
	return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

static int make_directory(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int make_null(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int make_proc(void)
{
	return open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
}

const struct fd_kind fd_kinds[FD_KINDS] = {
	{ "page", make_page },
	{ "pages", make_pages },
	{ "odd", make_odd },
	{ "sealed", make_sealed },
	{ "future", make_future },
	{ "read-only", make_read_only },
	{ "write-only", make_write_only },
	{ "path", make_path },
	{ "unsealed", make_unsealed },
	{ "sparse", make_sparse },
	{ "endless", make_endless },
	{ "empty", make_empty },
	{ "huge", make_huge },
	{ "secret", make_secret },
	{ "pipe", make_pipe },
	{ "socket", make_socket },
	{ "carrier", make_carrier },
	{ "listener", make_listener },
	{ "netlink", make_netlink },
	{ "epoll", make_epoll },
	{ "eventfd", make_eventfd },
	{ "timerfd", make_timerfd },
	{ "signalfd", make_signalfd },
	{ "inotify", make_inotify },
	{ "pidfd", make_pidfd },
	{ "directory", make_directory },
	{ "null", make_null },
	{ "proc", make_proc },
};

int fd_make(unsigned kind)
{
	int fd = fd_kinds[kind % FD_KINDS].make();

	if (fd < 0)
		fd = make_null();
	assert(fd >= 0);
	return fd;
}

void fd_send(int sock, struct input *in)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(FD_PACKET * sizeof(int))];
	} control;
	size_t len = input_u16(in), got;
	unsigned n = input_u8(in) % (FD_PACKET + 1);
	int fds[FD_PACKET];
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	for (unsigned i = 0; i < n; i++)
		fds[i] = fd_make(input_u8(in));
	iov.iov_base = (void *)(uintptr_t)input_take(in, len, &got);
	iov.iov_len = got;
	if (n) {
		control.header = (struct cmsghdr){ CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_LEN(n * sizeof(int));
	}
	(void)sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

int fd_lowest(void)
{
	int fd = dup(STDERR_FILENO);

	must(fd >= 0);
	close(fd);
	return fd;
}

unsigned fd_sockets(void)
{
	enum { LOOK_AT = 512 };
	struct stat st;
	unsigned n = 0;

	for (int fd = 0; fd < LOOK_AT; fd++)
		n += fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	return n;
}
