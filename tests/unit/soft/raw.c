/* SPDX-License-Identifier: MIT */
/* The raw peer. Its socket never blocks; whoever waits turns the engine's loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raw.h"

#include "nicd/soft/bytes.h"

/* What is sent arrives as it was sent, not when the acknowledgement of something else comes. */
static void no_delay(struct raw *raw)
{
	const int one = 1;

	assert_int_equal(setsockopt(raw->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
}

struct raw raw_connect(struct host *host)
{
	return raw_connect_from(host, "127.0.0.1");
}

static struct raw socket_from(struct host *host, const char *address)
{
	struct raw raw = {.loop = host->loop, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	struct sockaddr_in own = {.sin_family = AF_INET};

	assert_true(raw.fd >= 0);
	assert_int_equal(inet_pton(AF_INET, address, &own.sin_addr), 1);
	assert_int_equal(bind(raw.fd, (struct sockaddr *)&own, sizeof(own)), 0);
	return raw;
}

static void socket_connect(struct raw *raw, struct host *host)
{
	assert_int_equal(connect(raw->fd, (struct sockaddr *)&host->addr, sizeof(struct sockaddr_in)), 0);
	no_delay(raw);
}

struct raw raw_connect_from(struct host *host, const char *address)
{
	struct raw raw = socket_from(host, address);

	socket_connect(&raw, host);
	return raw;
}

struct raw raw_connect_far(struct host *host)
{
	struct raw raw = socket_from(host, "127.0.0.1");

	raw_far(&raw);
	socket_connect(&raw, host);
	return raw;
}

void raw_far(struct raw *raw)
{
	const int mss = FAR_MSS;

	assert_int_equal(setsockopt(raw->fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss)), 0);
}

struct raw raw_listen(uv_loop_t *loop, struct sockaddr_storage *addr)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct raw raw = {.loop = loop, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	socklen_t len = sizeof(*addr);

	assert_int_equal(bind(raw.fd, (const struct sockaddr *)&any, sizeof(any)), 0);
	assert_int_equal(listen(raw.fd, 4), 0);
	assert_int_equal(getsockname(raw.fd, (struct sockaddr *)addr, &len), 0);
	return raw;
}

struct raw raw_accept(struct raw *listener)
{
	struct raw raw = {.loop = listener->loop, .fd = accept(listener->fd, NULL, NULL)};

	assert_true(raw.fd >= 0);
	no_delay(&raw);
	return raw;
}

void raw_close(struct raw *raw)
{
	close(raw->fd);
	raw->fd = -1;
}

/* -EAGAIN after `ms` without a byte. */
static ssize_t recv_within(struct raw *raw, void *buf, size_t len, unsigned ms)
{
	uint64_t until = uv_hrtime() + ms * UINT64_C(1000000);
	ssize_t n;

	do {
		n = recv(raw->fd, buf, len, MSG_DONTWAIT);
		if (n >= 0 || errno != EAGAIN)
			return n < 0 ? -errno : n;
		if (uv_run(raw->loop, UV_RUN_NOWAIT) == 0 || raw->loop->active_handles)
			usleep(100);
	} while (uv_hrtime() < until);
	return -EAGAIN;
}

void raw_send(struct raw *raw, const void *buf, size_t len)
{
	uint64_t until = uv_hrtime() + UINT64_C(5000000000);

	while (len > 0) {
		ssize_t n = send(raw->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		assert_true(n > 0 || errno == EAGAIN);
		if (n < 0)
			uv_run(raw->loop, UV_RUN_NOWAIT);
		n = n < 0 ? 0 : n;
		buf = (const uint8_t *)buf + n;
		len -= n;
		assert_true(uv_hrtime() < until);
	}
}

void raw_recv(struct raw *raw, void *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = recv_within(raw, buf, len, 5000);

		assert_true(n > 0);
		buf = (uint8_t *)buf + n;
		len -= n;
	}
}

ssize_t raw_drain(struct raw *raw, void *buf, size_t max, unsigned ms)
{
	size_t len = 0;
	ssize_t n;

	while ((n = recv_within(raw, (uint8_t *)buf + len, max - len, ms)) > 0)
		len += n;
	assert_int_not_equal(n, -EAGAIN);
	return n < 0 ? -1 : (ssize_t)len;
}

bool raw_is_silent(struct raw *raw, unsigned ms)
{
	uint8_t byte;

	return recv_within(raw, &byte, 1, ms) == -EAGAIN;
}

void raw_request(struct raw *raw, const struct mpa_frame *frame, const uint8_t *ticket)
{
	uint8_t buf[MPA_FRAME_MAX], pd[PEER_HELLO_SIZE];
	struct mpa_frame f = *frame;

	if (ticket) {
		peer_hello_encode(pd, ticket);
		f.pd = pd;
		f.pd_len = sizeof(pd);
	}
	raw_send(raw, buf, mpa_encode(buf, sizeof(buf), &f));
}

struct mpa_frame raw_reply(struct raw *raw, uint8_t buf[MPA_FRAME_MAX])
{
	struct mpa_frame f;
	size_t used;

	raw_recv(raw, buf, MPA_FRAME_HEADER);
	if (mpa_decode(buf, MPA_FRAME_HEADER, true, &f, &used) == MPA_DONE)
		return f;
	raw_recv(raw, buf + MPA_FRAME_HEADER, get_be16(buf + 18));
	assert_int_equal(mpa_decode(buf, MPA_FRAME_HEADER + get_be16(buf + 18), true, &f, &used), MPA_DONE);
	return f;
}

void raw_open(struct raw *raw, struct host *host, const uint8_t *ticket)
{
	const struct mpa_frame request = {.revision = 2, .enhanced = true, .ird = 4, .ord = 4};
	unsigned opened = host->opened;
	uint8_t buf[MPA_FRAME_MAX];
	struct mpa_frame reply;

	*raw = raw_connect(host);
	raw_request(raw, &request, ticket);
	reply = raw_reply(raw, buf);
	assert_false(reply.reject);
	raw->crc = reply.crc;
	raw_write(raw, 1, 0, true, NULL, 0);
	run_until_at_least(raw->loop, &host->opened, opened + 1);
}

void raw_fpdu(struct raw *raw, const struct rdmap_header *header, const void *payload, size_t len)
{
	static uint8_t buf[FPDU_MAX];
	size_t n = FPDU_LENGTH_SIZE + rdmap_encode(buf + FPDU_LENGTH_SIZE, header);

	if (len)
		memcpy(buf + n, payload, len);
	put_be16(buf, n - FPDU_LENGTH_SIZE + len);
	n += len;
	memset(buf + n, 0, FPDU_TAIL_MAX);
	n = fpdu_size(n - FPDU_LENGTH_SIZE);
	if (raw->crc)
		fpdu_crc_put(buf + n - FPDU_CRC_SIZE, fpdu_crc(FPDU_CRC_START, buf, n - FPDU_CRC_SIZE));
	raw_send(raw, buf, n);
}

void raw_write(struct raw *raw, uint32_t stag, uint64_t to, bool last, const void *payload, size_t len)
{
	const struct rdmap_header h = {.tagged = true, .last = last, .opcode = RDMAP_WRITE, .stag = stag, .to = to};

	raw_fpdu(raw, &h, payload, len);
}

void raw_read(struct raw *raw, uint32_t msn, const struct rdmap_read *read)
{
	const struct rdmap_header h = {.last = true, .opcode = RDMAP_READ_REQUEST, .queue = QUEUE_READ, .msn = msn};
	uint8_t buf[RDMAP_READ_SIZE];

	rdmap_read_encode(buf, read);
	raw_fpdu(raw, &h, buf, sizeof(buf));
}

size_t raw_frame(struct raw *raw, struct rdmap_header *header, uint8_t buf[FPDU_MAX])
{
	size_t ulpdu;

	raw_recv(raw, buf, 2);
	ulpdu = get_be16(buf);
	raw_recv(raw, buf + 2, fpdu_size(ulpdu) - 2);
	assert_true(!raw->crc || fpdu_crc_ok(buf, fpdu_size(ulpdu)));
	assert_int_equal(rdmap_decode(buf + 2, ulpdu, ulpdu, header), RDMAP_FINE);
	memmove(buf, buf + 2 + header->size, ulpdu - header->size);
	return ulpdu - header->size;
}

size_t raw_longest(struct raw *raw, enum rdmap_opcode opcode, size_t size)
{
	static uint8_t buf[FPDU_MAX];
	size_t longest = 0, got = 0;
	struct rdmap_header h;

	do {
		size_t n = raw_frame(raw, &h, buf);

		assert_int_equal(h.opcode, opcode);
		longest = n > longest ? n : longest;
		got += n;
	} while (!h.last);
	assert_int_equal(got, size);
	return longest;
}

struct rdmap_terminate raw_expect_terminate(struct raw *raw, enum rdmap_code code)
{
	static uint8_t buf[FPDU_MAX];
	struct rdmap_terminate t;
	struct rdmap_header h;
	size_t n = raw_frame(raw, &h, buf);

	assert_int_equal(h.opcode, RDMAP_TERMINATE);
	assert_true(rdmap_terminate_decode(buf, n, &t));
	assert_int_equal(t.code, code);
	assert_int_equal(raw_drain(raw, buf, 1, 1000), 0);
	return t;
}
