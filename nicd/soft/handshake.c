/* SPDX-License-Identifier: MIT */
/*
 * How a stream begins: MPA's request and reply on either side, the ticket, and the first frame. Keeps nothing; the stream's owner is the engine.
 *
 * In: the ticket is reserved when the request names it and spent when the first frame proves that the reply has arrived. Whatever
 * is wrong with a request that is one at all gets the same refusal. Out: connected is who has an answer to the first frame.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "nicd/soft/stream.h"

/* What every engine can. */
enum { OWN_CAPS = PEER_CAP_LARGE_FRAMES };
_Static_assert(MPA_FRAME_HEADER + MPA_ENHANCED_SIZE + PEER_HELLO_MAX <= TX_HEAD &&
	       MPA_FRAME_HEADER + MPA_ENHANCED_SIZE + PEER_ACCEPT_MAX <= TX_HEAD, "our MPA frames fit");

static int crc_init(struct soft_stream *s, bool crc)
{
	struct soft_engine *engine = s->engine;

	if (crc && !engine->tx_buffer) {
		engine->tx_buffer = malloc(STREAM_QUANTUM + STREAM_SEGMENT_MAX);
		if (!engine->tx_buffer)
			return -ENOMEM;
	}
	s->crc = crc;
	return 0;
}

static uint32_t min_depth(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* The revision of the request, and what of RFC 6581 it used. */
static void reply_init(const struct soft_stream *s, const struct mpa_frame *request, struct mpa_frame *reply)
{
	*reply = (struct mpa_frame){
		.reply = true, .revision = request->revision, .enhanced = request->enhanced,
		.crc = request->crc || s->engine->options.crc, .large = request->large,
	};
}

/* Unknown, spent, expired, no hello, markers: one answer for all. */
static void handshake_reject(struct soft_stream *s, const struct mpa_frame *request)
{
	uint8_t buf[TX_HEAD];
	struct mpa_frame reply;

	reply_init(s, request, &reply);
	reply.reject = true;
	s->state = STREAM_TERMINATING;
	tx_raw(s, buf, mpa_encode(buf, sizeof(buf), &reply));
}

/* One of what the peer can do first; an empty write costs nothing. */
static void ready_choose(struct soft_stream *s, const struct mpa_frame *request, struct mpa_frame *reply)
{
	if (!request->peer_to_peer)
		return;
	reply->peer_to_peer = true;
	reply->rtr_read = request->rtr_read && !request->rtr_write;
	reply->rtr_send = request->rtr_send && !request->rtr_write && !request->rtr_read;
	reply->rtr_write = !reply->rtr_read && !reply->rtr_send;
	s->rtr_send = reply->rtr_send;
}

static void handshake_admit(struct soft_stream *s, const struct mpa_frame *request)
{
	const struct soft_engine_options *o = &s->engine->options;
	uint32_t caps = peer_hello_caps(request->pd, request->pd_len) & OWN_CAPS;
	uint8_t buf[TX_HEAD], pd[PEER_ACCEPT_MAX];
	struct mpa_frame reply;

	reply_init(s, request, &reply);
	if (crc_init(s, reply.crc) < 0) {
		stream_destroy(s);
		return;
	}
	s->door = s->ticket->serial;
	soft_ticket_scope(s->ticket, &s->remote);
	s->remote.stream = s->number;
	s->local.pd = s->ticket->pd;
	s->ird = min_depth(o->max_ird, request->enhanced ? request->ord : o->max_ird);
	s->ord = min_depth(o->max_ord, request->enhanced ? request->ird : 1);
	reply.ird = s->ird;
	reply.ord = s->ord;
	ready_choose(s, request, &reply);
	reply.pd = pd;
	reply.pd_len = peer_accept_encode(pd, s->ticket->grant.remote_token ? &s->ticket->grant : NULL, caps);
	if (request->large || (caps & PEER_CAP_LARGE_FRAMES))
		stream_segment_enlarge(s);
	s->state = STREAM_ADMITTED;
	stream_timer(s, request->peer_to_peer ? o->handshake_timeout_ms : o->first_frame_timeout_ms);
	tx_raw(s, buf, mpa_encode(buf, sizeof(buf), &reply));
}

static void handshake_request(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	uint8_t secret[NICD_TICKET_SIZE];
	struct mpa_frame request;
	size_t used = 0;

	switch (mpa_decode(buf, len, false, &request, &used)) {
	case MPA_MORE:
		return;
	case MPA_GARBAGE:
		stream_destroy(s);
		return;
	case MPA_MALFORMED:
		handshake_reject(s, &request);
		return;
	case MPA_DONE:
		break;
	}
	if (used < len) {
		stream_destroy(s);   /* nothing may be sent before our reply */
		return;
	}
	if (!request.markers && !request.reject && peer_hello_decode(request.pd, request.pd_len, secret))
		s->ticket = soft_ticket_reserve(s->engine->tickets, secret);
	explicit_bzero(secret, sizeof(secret));
	if (s->ticket && !engine_admit(s))
		stream_leave(s);
	if (s->ticket)
		handshake_admit(s, &request);
	else
		handshake_reject(s, &request);
}

bool stream_first_frame(struct soft_stream *s)
{
	if (s->ticket->dropped) {
		stream_destroy(s);
		return false;
	}
	soft_ticket_spend(s->engine->tickets, s->ticket);
	s->spent = true;
	engine_half_open(s, false);
	s->state = STREAM_OPEN;
	s->told = s->tell_opened = true;
	uv_timer_stop(&s->timer);
	engine_list(s);
	engine_news(s);
	return true;
}

/* Nothing may follow the reply: the responder waits for our first frame. */
static bool reply_suits(const struct mpa_frame *reply, size_t used, size_t len)
{
	return used == len && !reply->reject && !reply->markers && reply->enhanced && reply->ird > 0;
}

static void handshake_reply(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	const struct soft_engine_options *o = &s->engine->options;
	enum mpa_result r;
	struct mpa_frame reply;
	size_t used = 0;

	r = mpa_decode(buf, len, true, &reply, &used);
	if (r == MPA_MORE)
		return;
	if (r == MPA_DONE && reply_suits(&reply, used, len) && crc_init(s, reply.crc || o->crc) == 0) {
		s->ord = min_depth(o->max_ord, reply.ird);
		s->ird = min_depth(o->max_ird, reply.ord);
		s->out = calloc(s->ord, sizeof(*s->out));
	}
	if (!s->out) {
		stream_connect_failed(s);
		return;
	}
	if (peer_accept_caps(reply.pd, reply.pd_len) & PEER_CAP_LARGE_FRAMES)
		stream_segment_enlarge(s);
	s->result.has_grant = peer_grant_decode(reply.pd, reply.pd_len, &s->result.grant);
	memcpy(s->result.peer, s->peer, sizeof(s->result.peer));
	stream_confirm(s);
}

void stream_confirmed(struct soft_stream *s)
{
	s->state = STREAM_OPEN;
	s->told = true;
	uv_timer_stop(&s->timer);
	stream_note_connected(s, NICD_R_NONE);
}

void stream_handshake(struct soft_stream *s, const uint8_t *buf, size_t len)
{
	if (s->state == STREAM_ACCEPTING)
		handshake_request(s, buf, len);
	else
		handshake_reply(s, buf, len);
}

void stream_tcp_connected(struct soft_stream *s)
{
	const struct soft_engine_options *o = &s->engine->options;
	struct mpa_frame request = {
		.revision = 2, .enhanced = true, .crc = o->crc, .ird = o->max_ird, .ord = o->max_ord,
	};
	uint8_t buf[TX_HEAD], pd[PEER_HELLO_MAX];
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
		stream_connect_failed(s);
		return;
	}
	stream_segment_init(s);
	request.pd = pd;
	request.pd_len = peer_hello_encode_caps(pd, s->ticket_secret, OWN_CAPS);
	s->state = STREAM_REQUESTING;
	tx_raw(s, buf, mpa_encode(buf, sizeof(buf), &request));
	stream_poll(s);
	explicit_bzero(pd, sizeof(pd));
	explicit_bzero(buf, sizeof(buf));
	explicit_bzero(s->ticket_secret, sizeof(s->ticket_secret));
}
