/* SPDX-License-Identifier: MIT */
/*
 * A packet with descriptors. Every descriptor that the kernel delivers is ours from that moment, asked for or not: all are
 * taken out of all control messages first, and only then is the packet judged; a packet that is dropped takes its descriptors
 * with it.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/wire.h"

static void wire_close(const struct wire_closer *closer, int fd)
{
	if (closer)
		closer->close(closer, fd);
	else
		close(fd);
}

/* Moves what came into the packet; closes what a frame may not bring. false: there was more than that. */
static bool wire_own_fds(struct msghdr *msg, struct wire_packet *packet, const struct wire_closer *closer)
{
	bool fits = true;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		packet->n_came += (unsigned)n;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (packet->n_fds < NICD_FRAME_FDS) {
				packet->fds[packet->n_fds++] = fd;
			} else {
				wire_close(closer, fd);
				fits = false;
			}
		}
	}
	return fits;
}

static enum wire_result wire_drop(struct wire_packet *packet, const struct wire_closer *closer, enum wire_result result)
{
	for (int fd; (fd = wire_take_fd(packet)) >= 0;)
		wire_close(closer, fd);
	wire_release(packet);
	return result;
}

/*
 * There is room for all descriptors that a packet can bring, so that "too many" is counted here, and none is closed by
 * the kernel in the middle of the system call.
 */
enum wire_result wire_recv_from(int sock, void *buf, size_t size, struct wire_packet *ret, const struct wire_closer *closer)
{
	union {
		char bytes[CMSG_SPACE(WIRE_KERNEL_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t len;

	ret->data = buf;
	ret->len = 0;
	ret->n_fds = 0;
	ret->next_fd = 0;
	ret->n_came = 0;
	do
		len = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (len < 0 && errno == EINTR);
	if (len < 0) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return WIRE_AGAIN;
		/* The other side closed with our packets unread: gone like any other. */
		return errno == ECONNRESET ? WIRE_END : WIRE_ERROR;
	}
	ret->len = (size_t)len;

	/*
	 * CTRUNC also says that our own table of descriptors is full: then some are missing, and the packet cannot be
	 * used either.
	 */
	if (!wire_own_fds(&msg, ret, closer) || (msg.msg_flags & MSG_CTRUNC))
		return wire_drop(ret, closer, WIRE_FDS);
	if ((msg.msg_flags & MSG_TRUNC) || ret->len > NICD_FRAME_MAX)
		return wire_drop(ret, closer, WIRE_TOO_BIG);
	if (len == 0)
		return wire_drop(ret, closer, WIRE_END);
	return WIRE_PACKET;
}

int wire_take_fd(struct wire_packet *packet)
{
	return packet->next_fd < packet->n_fds ? packet->fds[packet->next_fd++] : -1;
}

void wire_release(struct wire_packet *packet)
{
	for (int fd; (fd = wire_take_fd(packet)) >= 0;)
		close(fd);
	packet->n_fds = 0;
	packet->next_fd = 0;
}

/* The descriptors as one control message. The length is exact: padding counted in would send what lies behind them. */
static void wire_pack_fds(struct msghdr *msg, const int *fds, unsigned n_fds)
{
	struct cmsghdr *c;

	msg->msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	memset(msg->msg_control, 0, msg->msg_controllen);
	c = CMSG_FIRSTHDR(msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
}

int wire_send(int sock, const void *data, size_t len, const int *fds, unsigned n_fds)
{
	union {
		char bytes[CMSG_SPACE(NICD_FRAME_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	/* An empty packet reads as the end of the file. */
	if (len == 0 || n_fds > NICD_FRAME_FDS)
		return -EINVAL;
	if (n_fds) {
		msg.msg_control = control.bytes;
		wire_pack_fds(&msg, fds, n_fds);
	}
	do
		sent = n_fds ? sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) : send(sock, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return 0;
	return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}
