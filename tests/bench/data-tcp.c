/* SPDX-License-Identifier: MIT */
/*
 * What we compare with: a plain TCP program, as one would write it for speed. Blocking, one thread a side, an 8-byte
 * header before everything, one send and one receive per transfer, TCP_NODELAY, 4 MiB of socket buffers. A read is a
 * header there and header and data back; a write header and data there and a header back.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/data.h"

struct header {
	uint32_t write_slot;   /* top bit: a write */
	uint32_t size;
};

static void tune(int fd)
{
	const int one = 1, buffer = 4 << 20;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
}

static void send_all(int fd, struct header *header, void *data, uint32_t size)
{
	struct iovec iov[2] = { { header, sizeof *header }, { data, size } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };

	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (n <= 0)
			bench_die("send");
		for (int i = 0; i < 2; i++) {
			size_t take = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;
			iov[i].iov_base = (char *)iov[i].iov_base + take;
			iov[i].iov_len -= take;
			n -= take;
		}
	}
}

/* False: the end. */
static bool receive(int fd, struct header *header, void *data, uint32_t size)
{
	struct iovec iov[2] = { { header, header ? sizeof *header : 0 }, { data, size } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t want = iov[0].iov_len + size;

	return (size_t)recvmsg(fd, &msg, MSG_WAITALL) == want;
}

static void serve(int fd, char *buffer)
{
	struct header h;

	/* The client says first how large its transfers are, so that a write is one receive, too. */
	while (receive(fd, &h, NULL, 0)) {
		uint32_t size = h.size, slots = DATA_BUFFER / size, count;
		bool write = h.write_slot >> 31;

		if (!receive(fd, &h, NULL, 0))
			return;
		count = h.size;
		for (uint32_t i = 0; i < count; i++) {
			char *at = buffer + (size_t)(i % slots) * size;
			if (!receive(fd, &h, at, write ? size : 0))
				return;
			send_all(fd, &h, at, write ? 0 : size);
		}
	}
}

struct client {
	int fd;
	char *buffer;
};

static void run(void *userdata, const struct order *o)
{
	struct client *c = userdata;
	struct header h = { o->write << 31, o->size };
	uint32_t sent = 0;

	send_all(c->fd, &h, NULL, 0);
	h.size = o->count;
	send_all(c->fd, &h, NULL, 0);
	for (uint32_t got = 0; got < o->count; got++) {
		for (; sent < o->count && sent - got < o->depth; sent++) {
			h = (struct header){ o->write << 31 | sent % o->depth, o->size };
			send_all(c->fd, &h, c->buffer + (size_t)(sent % o->depth) * o->size, o->write ? o->size : 0);
		}
		if (!receive(c->fd, &h, c->buffer + (size_t)(got % o->depth) * o->size, o->write ? 0 : o->size))
			bench_die("tcp");
	}
}

bool tcp_start(struct contender *c)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof addr;
	int sock[2], listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	tune(listener);
	if (bind(listener, (void *)&addr, len) < 0 || listen(listener, 1) < 0 || getsockname(listener, (void *)&addr, &len) < 0)
		bench_die("listen");
	if (data_fork(c, SERVER_CPU) == 0) {
		int fd = accept(listener, NULL, NULL);
		tune(fd);
		serve(fd, data_buffer(NULL));
		_exit(0);
	}
	data_pair(sock);
	if (data_fork(c, CLIENT_CPU) == 0) {
		struct client client = { socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), data_buffer(NULL) };
		tune(client.fd);
		if (connect(client.fd, (void *)&addr, sizeof addr) < 0)
			bench_die("connect");
		close(sock[0]);
		data_serve_orders(sock[1], run, &client);
	}
	close(sock[1]);
	close(listener);
	c->orders = sock[0];
	return true;
}
