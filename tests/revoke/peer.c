/* SPDX-License-Identifier: MIT */
/*
 * The peer. See peer.h. A wait of more than PATIENCE_S is a hang of the other side and ends the process, which the test
 * takes for a failure.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <isa-l.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PATIENCE_S = 60, TAGGED_HEAD = 16, UNTAGGED_HEAD = 20, READ_HEAD = UNTAGGED_HEAD + 28, CRC = 4 };

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	return (uint8_t *)memcpy(p, &v, sizeof(v)) + sizeof(v);
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	return (uint8_t *)memcpy(p, &v, sizeof(v)) + sizeof(v);
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	return (uint8_t *)memcpy(p, &v, sizeof(v)) + sizeof(v);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "revoke: peer: %s: %s\n", what, strerror(errno));
	_exit(3);
}

/* ---- beginning and end */

static int open_socket(const struct peer_terms *terms)
{
	struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(terms->source)};
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	const int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) < 0 ||
	    bind(fd, (const struct sockaddr *)&source, sizeof(source)) < 0)
		die("socket");
	if (terms->receive_buffer)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &terms->receive_buffer, sizeof(int));
	return fd;
}

static ssize_t receive(struct peer *peer)
{
	ssize_t n;

	do {
		n = recv(peer->fd, peer->in + peer->have, sizeof(peer->in) - peer->have, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		die("nothing comes");
	if (n > 0)
		peer->have += (size_t)n;
	return n;
}

static void drop(struct peer *peer, size_t n)
{
	peer->have -= n;
	memmove(peer->in, peer->in + n, peer->have);
}

/* Revision 2 with IRD and ORD 32, the ticket as private data. */
static size_t make_request(uint8_t *buf, const uint8_t *ticket, bool crc)
{
	uint8_t *p = buf;

	memcpy(p, "MPA ID Req Frame", 16);
	p = put16(p + 16, (crc ? 0x4000 : 0) | 0x1000 | 2);
	p = put16(p, 4 + PEER_HELLO_SIZE);
	p = put16(p, 32);
	p = put16(p, 32);
	peer_hello_encode(p, ticket);
	return (size_t)(p - buf) + PEER_HELLO_SIZE;
}

/* A whole request or reply; false: it does not come. */
static bool take_mpa(struct peer *peer, const char key[16], size_t *length)
{
	*length = 0;
	while (peer->have < 20 || peer->have < 20 + *length) {
		if (receive(peer) <= 0)
			return false;
		*length = peer->have < 20 ? 0 : (size_t)(peer->in[18] << 8 | peer->in[19]);
	}
	return memcmp(peer->in, key, 16) == 0 && *length >= 4;
}

static bool take_reply(struct peer *peer, struct locator_grant *grant)
{
	size_t length;

	if (!take_mpa(peer, "MPA ID Rep Frame", &length) || (peer->in[16] & 0x20))
		return false;
	peer->crc = peer->in[16] & 0x40;
	if (grant && !peer_grant_decode(peer->in + 24, length - 4, grant))
		grant->remote_token = 0;
	drop(peer, 20 + length);
	return true;
}

bool peer_connect(struct peer *peer, const struct peer_terms *terms, struct locator_grant *grant)
{
	const struct sockaddr *to = (const struct sockaddr *)&terms->to->addr;
	size_t n = make_request(peer->out, terms->to->ticket, terms->crc);

	peer->have = peer->taken = 0;
	peer->msn = 0;
	peer->fd = open_socket(terms);
	if (connect(peer->fd, to, sizeof(struct sockaddr_in)) == 0 && peer_send(peer, peer->out, n) && take_reply(peer, grant))
		return true;
	peer_reset(peer);
	return false;
}

int peer_listen(struct locator *at, int receive_buffer)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(at->addr);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(int)) < 0 ||
	    bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 4) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at->addr, &len) < 0)
		die("listening");
	return fd;
}

bool peer_accept(struct peer *peer, int listener, bool crc)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	size_t length;
	uint8_t *p;

	peer->have = peer->taken = 0;
	peer->crc = crc;
	peer->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (peer->fd < 0 || setsockopt(peer->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
		die("accepting");
	if (!take_mpa(peer, "MPA ID Req Frame", &length))
		return false;
	peer->crc |= peer->in[16] & 0x40;
	drop(peer, 20 + length);
	memcpy(peer->out, "MPA ID Rep Frame", 16);
	p = put16(put16(peer->out + 16, (peer->crc ? 0x4000 : 0) | 0x1000 | 2), 4);
	p = put16(put16(p, 32), 32);
	return peer_send(peer, peer->out, (size_t)(p - peer->out));
}

void peer_reset(struct peer *peer)
{
	const struct linger linger = {.l_onoff = 1};

	if (peer->fd < 0)
		return;
	setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(peer->fd);
	peer->fd = -1;
}

/* ---- frames */

/* Length in front, zeros up to a multiple of 4 and CRC behind `end`. */
static size_t finish(struct peer *peer, uint8_t *end)
{
	uint32_t crc;

	put16(peer->out, (uint16_t)(end - peer->out - 2));
	while ((end - peer->out) % 4)
		*end++ = 0;
	crc = peer->crc ? htole32(~crc32_iscsi(peer->out, (int)(end - peer->out), ~0u)) : 0;
	memcpy(end, &crc, CRC);
	return (size_t)(end - peer->out) + CRC;
}

size_t peer_make_write(struct peer *peer, uint32_t stag, uint64_t to, uint32_t length, uint8_t fill)
{
	uint8_t *p = peer->out + 2;

	*p++ = 0xc1;   /* tagged, last, DDP 1 */
	*p++ = 0x40;   /* RDMAP 1, Write */
	p = put64(put32(p, stag), to);
	memset(p, fill, length);
	return finish(peer, p + length);
}

size_t peer_make_send(struct peer *peer, uint32_t length, uint8_t fill)
{
	uint8_t *p = peer->out + 2;

	*p++ = 0x41;   /* last, DDP 1 */
	*p++ = 0x43;   /* RDMAP 1, Send */
	p = put32(put32(put32(put32(p, 0), 0), 1), 0);
	memset(p, fill, length);
	return finish(peer, p + length);
}

size_t peer_make_read(struct peer *peer, uint32_t stag, uint64_t from, uint32_t length)
{
	uint8_t *p = peer->out + 2;

	*p++ = 0x41;   /* last, DDP 1 */
	*p++ = 0x41;   /* RDMAP 1, Read Request */
	p = put32(put32(put32(put32(p, 0), 1), ++peer->msn), 0);
	p = put64(put32(p, peer->msn), 0);   /* the sink's STag: nobody looks it up but us */
	p = put64(put32(put32(p, length), stag), from);
	return finish(peer, p);
}

size_t peer_make_answer(struct peer *peer, const struct peer_frame *request, uint8_t fill)
{
	uint32_t length = be32toh(*(const uint32_t *)(request->payload + 12));
	uint8_t *p = peer->out + 2;

	*p++ = 0xc1;   /* tagged, last, DDP 1 */
	*p++ = 0x42;   /* RDMAP 1, Read Response */
	memcpy(p, request->payload, 12);   /* the sink's STag and offset */
	memset(p + 12, fill, length);
	return finish(peer, p + 12 + length);
}

bool peer_send(struct peer *peer, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = send(peer->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			die("nothing is taken");
		if (n < 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

bool peer_wait(struct peer *peer)
{
	return peer->have > 0 || receive(peer) > 0;
}

bool peer_next(struct peer *peer, struct peer_frame *frame)
{
	size_t ulpdu, size, head;

	/* The payload handed out last time is done with. */
	drop(peer, peer->taken);
	peer->taken = 0;
	for (;;) {
		ulpdu = peer->have < 4 ? 0 : (size_t)(peer->in[0] << 8 | peer->in[1]);
		size = ((2 + ulpdu + 3) & ~(size_t)3) + CRC;
		if (ulpdu && peer->have >= size)
			break;
		if (receive(peer) <= 0)
			return false;
	}
	head = peer->in[2] & 0x80 ? TAGGED_HEAD : UNTAGGED_HEAD;
	*frame = (struct peer_frame){
		.opcode = peer->in[3] & 0x0f, .last = peer->in[2] & 0x40, .payload = peer->in + head, .length = 2 + ulpdu > head ? 2 + ulpdu - head : 0,
	};
	peer->taken = size;
	return true;
}

bool peer_flush(struct peer *peer)
{
	struct peer_frame frame;
	size_t n = peer_make_read(peer, 0, 0, 0);

	/* What the other side said before it went is not asked for: it is over. */
	if (!peer_send(peer, peer->out, n))
		return false;
	while (peer_next(peer, &frame)) {
		if (frame.opcode == PEER_READ_RESPONSE)
			return true;
	}
	return false;
}
