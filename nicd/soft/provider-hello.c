/* SPDX-License-Identifier: MIT */
/* The first exchange with a device, before there is a loop: Hello, and what the device says of itself. It alone waits, HELLO_MS at most. */
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "nicd/soft/provider-private.h"
#include "proto/locator.h"

enum { FIELD_REQUESTS = 1, HELLO_MS = 5000 };

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Waits for `events` until `deadline`. */
static int wait_for(int sock, short events, uint64_t deadline)
{
	struct pollfd pollfd = {.fd = sock, .events = events};
	uint64_t now = now_ms();
	int n;

	if (now >= deadline)
		return -ETIMEDOUT;
	n = poll(&pollfd, 1, (int)(deadline - now));
	if (n < 0 && errno != EINTR)
		return -errno;
	return 0;   /* by chance for nothing: whoever waits tries and comes again */
}

static int hello_send(struct soft_provider *p, uint64_t deadline)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__Hello hello = SOFT__HELLO__INIT;
	int r;

	hello.major = NICD_MAJOR;
	request.id = 1;
	request.call_case = SOFT__REQUEST__CALL_HELLO;
	request.hello = &hello;
	r = frame_put(&p->out, FIELD_REQUESTS, &request.base, NULL, 0);
	while (r == 0 && (r = frame_flush(&p->out, p->sock)) == -EAGAIN)
		r = wait_for(p->sock, POLLOUT, deadline);
	return r;
}

static int hello_packet(struct soft_provider *p, uint64_t deadline, struct wire_packet *packet)
{
	for (;;) {
		enum wire_result result = wire_recv(p->sock, p->buf, SOFT_PROVIDER_BUF, packet);
		int r;

		if (result == WIRE_PACKET)
			return 0;
		if (result != WIRE_AGAIN)
			return -ECONNRESET;
		r = wait_for(p->sock, POLLIN, deadline);
		if (r < 0)
			return r;
	}
}

static int hello_take(struct soft_provider *p, const Soft__HelloReply *reply)
{
	struct nic_provider *base = &p->base;

	base->incarnation = reply->incarnation;
	base->max_inbound_read = reply->max_inbound_read;
	base->max_outbound_read = reply->max_outbound_read;
	base->max_mr = reply->max_tags;
	base->max_mw = reply->max_tags;
	base->max_qp = reply->max_streams;
	if (reply->data_address[0] && locator_addr_parse(reply->data_address, &base->data_addr) < 0)
		return -EPROTO;
	return 0;
}

/* The first packet is the answer and nothing but the answer. */
static int hello_answer(struct soft_provider *p, const struct wire_packet *packet, struct nicd_error *err)
{
	const Soft__Frame *frame;
	const Soft__Reply *reply;

	frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &p->arena, packet->data, packet->len, err);
	if (!frame || frame->n_replies != 1 || frame->replies[0]->id != 1)
		return nicd_refuse(err, NICD_R_DEVICE_LOST);
	reply = frame->replies[0];
	if (reply->reason != NICD_R_NONE)
		return nicd_refuse_at(err, reply->reason, reply->limit, reply->observed);
	if (reply->result_case != SOFT__REPLY__RESULT_HELLO || hello_take(p, reply->hello) < 0)
		return nicd_refuse(err, NICD_R_DEVICE_LOST);
	return 0;
}

int soft_provider_hello(struct soft_provider *p, struct nicd_error *err)
{
	uint64_t deadline = now_ms() + HELLO_MS;
	struct wire_packet packet;
	int r;

	r = hello_send(p, deadline);
	if (r == 0)
		r = hello_packet(p, deadline, &packet);
	if (r < 0) {
		nicd_refuse(err, NICD_R_DEVICE_LOST);
		if (err)
			err->provider_error = -r;
		return r;
	}
	r = hello_answer(p, &packet, err);
	wire_release(&packet);
	arena_reset(&p->arena);
	return r;
}
