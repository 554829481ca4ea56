/* SPDX-License-Identifier: MIT */
/*
 * Work of our own in memory that goes. The peer is this process, too, so that the region goes at the worst moment:
 *
 *   read     half of the answer has been sent, and is placed; the rest is sent after the region's end
 *   receive  half of a message has been sent, and is placed
 *   write    nothing is read until after the region's end, so that a frame is half out
 *
 * What is written into the region after the answer must stay there, and must never be seen by the peer. Every other
 * connection has CRC, but with messages, of which then nothing would be placed until all is there.
 */
#include "local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/nicd.h"
#include "peer.h"

enum {
	REGION = 60000, WRITES = 200, RECEIVE_BUFFER = 4096, ENOUGH = 2,
	BYTE_LIVE = 0x11, BYTE_DEAD = 0x22, BYTE_ANSWER = 0xaa,
	TOKEN = 0x12345678, IOVA = 0x10000,
};

struct local {
	const struct local_terms *terms;
	struct local_tally tally;
	struct nicd *n;
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	struct nicd_qp *qp;
	volatile uint8_t *bytes;
	int listener;
	char locator[LOCATOR_TEXT_MAX];
	struct peer peer;
	uint64_t random;
	int connected, posted;           /* 1: not answered yet */
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool must(struct local *local, int r, const char *what)
{
	char text[512];

	if (r >= 0)
		return true;
	nicd_error_print(nicd_last_error(local->n), text, sizeof(text));
	fprintf(stderr, "revoke: %s: %s\n", what, text);
	return false;
}

static bool peer_must(bool ok, const char *what)
{
	if (!ok)
		fprintf(stderr, "revoke: the connection ended while %s\n", what);
	return ok;
}

static void on_answered(struct nicd *n, int error, void *userdata)
{
	*(int *)userdata = error;
}

static bool wait_for(struct local *local, const int *answer)
{
	while (*answer == 1) {
		int r = nicd_dispatch(local->n, -1);

		if (!must(local, r == -EINTR ? 0 : r, "dispatching"))
			return false;
	}
	return true;
}

/* ---- a round */

/* The initiator's first frame is an empty read: who has its answer is connected. */
static bool connect_round(struct local *local)
{
	struct nicd_connect_attr attr = {.size = sizeof(attr), .locator = local->locator};
	struct peer_frame frame;
	size_t n;

	local->connected = 1;
	if (!must(local, nicd_qp_connect_async(local->pd, &attr, &local->qp, on_answered, &local->connected), "connecting") ||
	    !must(local, nicd_flush(local->n), "connecting"))
		return false;
	if (!peer_must(peer_accept(&local->peer, local->listener, local->tally.rounds % 2 && !local->terms->receiving), "shaking hands") ||
	    !peer_must(peer_next(&local->peer, &frame), "beginning"))
		return false;
	n = peer_make_answer(&local->peer, &frame, 0);
	return peer_must(peer_send(&local->peer, local->peer.out, n), "beginning") && wait_for(local, &local->connected) &&
	       must(local, local->connected, "connecting");
}

static bool post(struct local *local)
{
	struct nicd_transfer list[WRITES];
	struct nicd_message room = {
		.local_token = nicd_mr_local_token(local->mr), .local_addr = nicd_mr_iova(local->mr), .length = REGION,
	};
	int r;

	for (unsigned i = 0; i < WRITES; i++)
		list[i] = (struct nicd_transfer){
			.local_token = nicd_mr_local_token(local->mr), .local_addr = nicd_mr_iova(local->mr),
			.remote_token = TOKEN, .remote_addr = IOVA, .length = REGION,
		};
	local->posted = 1;
	if (local->terms->writing)
		r = nicd_qp_write_list_async(local->qp, list, WRITES, NULL, on_answered, &local->posted);
	else if (local->terms->receiving)
		r = nicd_qp_receive_async(local->qp, &room, NULL, on_answered, &local->posted);
	else
		r = nicd_qp_read_async(local->qp, list, NULL, on_answered, &local->posted);
	return must(local, r, "posting") && must(local, nicd_flush(local->n), "posting");
}

/* With CRC nothing is placed before all is there; then the bytes have at least been sent. */
static bool answer_begin(struct local *local, size_t *part, size_t *size)
{
	struct peer_frame frame;

	if (local->terms->receiving) {
		*size = peer_make_send(&local->peer, REGION, BYTE_ANSWER);
	} else {
		if (!peer_must(peer_next(&local->peer, &frame), "being asked"))
			return false;
		*size = peer_make_answer(&local->peer, &frame, BYTE_ANSWER);
	}
	local->random = local->random * 6364136223846793005u + 1442695040888963407u;
	*part = 21 + (local->random >> 33) % (*size - 21);   /* a byte of payload at least */
	if (!peer_must(peer_send(&local->peer, local->peer.out, *part), "answering"))
		return false;
	for (unsigned ms = 0; local->bytes[0] != BYTE_ANSWER && ms < (local->peer.crc ? 1 : 5000); ms++)
		usleep(1000);
	return true;
}

/* Until no more comes in, because no more fits. */
static void writes_begin(struct local *local)
{
	int before = -1, now = 0;

	while (now != before || now == 0) {
		before = now;
		usleep(2000);
		if (ioctl(local->peer.fd, FIONREAD, &now) < 0)
			return;
	}
}

/* To the end of the connection, also of a frame that is cut off: was anything sent that was written after the answer? */
static bool sent_dead(struct local *local)
{
	struct peer *peer = &local->peer;
	struct peer_frame frame;
	bool seen = false;

	while (peer_next(peer, &frame)) {
		if (frame.opcode == PEER_WRITE)
			seen |= memchr(frame.payload, BYTE_DEAD, frame.length) != NULL;
		else if (frame.opcode == PEER_READ_REQUEST)   /* are the writes placed? */
			peer_send(peer, peer->out, peer_make_answer(peer, &frame, 0));
	}
	return seen || (peer->have > PEER_WRITE_HEAD && memchr(peer->in + PEER_WRITE_HEAD, BYTE_DEAD, peer->have - PEER_WRITE_HEAD));
}

static bool region_is(const struct local *local, uint8_t byte)
{
	const uint8_t *p = (const uint8_t *)local->bytes;

	return p[0] == byte && memcmp(p, p + 1, REGION - 1) == 0;
}

static bool round_run(struct local *local)
{
	struct nicd_mr_attr attr = {.size = sizeof(attr), .flags = NICD_MR_LOCAL_WRITE, .buffer = local->buffer, .length = REGION};
	struct nicd_receipt receipt = {.size = sizeof(receipt)};
	bool writing = local->terms->writing, wrong = false;
	size_t part = 0, size = 0;

	memset((void *)local->bytes, BYTE_LIVE, REGION);
	if (!connect_round(local) || !must(local, nicd_mr_register(local->mr, &attr), "registering") || !post(local))
		return false;
	if (writing)
		writes_begin(local);
	else if (!answer_begin(local, &part, &size))
		return false;
	if (!must(local, nicd_mr_deregister(local->mr, &receipt), "deregistering"))
		return false;
	memset((void *)local->bytes, BYTE_DEAD, REGION);
	if (!writing)
		peer_send(&local->peer, local->peer.out + part, size - part);
	else
		wrong = sent_dead(local);
	if (!wait_for(local, &local->posted))
		return false;
	/* A read that has failed has ended the connection, and then all that we sent has been looked at. */
	if (!writing && local->posted < 0)
		sent_dead(local);
	wrong |= !region_is(local, BYTE_DEAD);
	if (wrong && local->tally.changed++ == 0)
		fprintf(stderr, "revoke: local memory %s\n", writing ? "was sent after the answer" : "changed after the answer");
	local->tally.cut += receipt.streams_cut;
	local->tally.rounds++;
	peer_reset(&local->peer);
	nicd_qp_close(local->qp);
	return true;
}

/* ---- beginning and end */

static bool local_open(struct local *local)
{
	struct nicd_open_attr attr = {.size = sizeof(attr), .socket = local->terms->socket};
	struct locator at = {
		.ticket = "whoever comes", .has_grant = true,
		.grant = {.remote_token = TOKEN, .rights = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE, .iova = IOVA, .length = REGION},
	};

	local->listener = peer_listen(&at, RECEIVE_BUFFER);
	locator_print(&at, local->locator);
	if (nicd_open(&local->n, &attr) < 0) {
		fprintf(stderr, "revoke: there is no nicd\n");
		return false;
	}
	if (!must(local, nicd_buffer_new(local->n, REGION, 0, &local->buffer), "a buffer") ||
	    !must(local, nicd_pd_create(local->n, 0, &local->pd), "a PD") || !must(local, nicd_mr_create(local->pd, &local->mr), "an MR"))
		return false;
	local->bytes = nicd_buffer_address(local->buffer);
	return true;
}

bool local_run(const struct local_terms *terms, struct local_tally *ret)
{
	struct local *local = calloc(1, sizeof(*local));
	uint64_t start = now_ns();
	bool ok;

	if (!local)
		abort();
	local->terms = terms;
	local->random = 1;
	local->peer.fd = -1;
	ok = local_open(local);
	while (ok && local->tally.rounds < terms->count && !(terms->first && local->tally.changed >= ENOUGH))
		ok = round_run(local);
	local->tally.seconds = (double)(now_ns() - start) / 1e9;
	*ret = local->tally;
	peer_reset(&local->peer);
	close(local->listener);
	nicd_free(local->n);
	free(local);
	return ok;
}
