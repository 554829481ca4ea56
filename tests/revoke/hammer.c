/* SPDX-License-Identifier: MIT */
/*
 * A peer's process: shot after shot at regions of the board until it is told to stop. A shot is one region and one way
 * to be in the middle of it:
 *
 *   half     a frame is begun and its rest sent after the region's end
 *   pieces   a frame in small pieces, whenever
 *   whole    some frames, one after another
 *   edge     up to the region's last byte, or over it
 *   stale    like whole, but the region was gone before it began
 *   read     answers are asked for, of which the owner's kernel cannot take all; they are read after the region's end
 *
 * A shot is over when everything that was sent has been placed, or the other side has ended the connection.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "board.h"
#include "peer.h"

enum { READS = 32, WHOLE_MAX = 4, RECEIVE_BUFFER = 4096 };

struct hammer {
	struct board *board;
	struct board_peer *me;
	unsigned number;
	uint64_t random;
	struct locator locator;        /* the PD's */
	struct peer peer;

	/* Of this shot. */
	struct board_slot *slot;
	uint64_t state;
	uint32_t token, length;
	uint64_t iova;
};

static uint32_t draw(struct hammer *h, uint32_t n)
{
	h->random ^= h->random << 13;
	h->random ^= h->random >> 7;
	h->random ^= h->random << 17;
	return (uint32_t)(h->random >> 32) % n;
}

static bool gone(const struct hammer *h)
{
	return atomic_load(&h->slot->state) != h->state;
}

/* Half of the peers want CRC, so that frames are staged whole before they are placed. */
static bool connect_to(struct hammer *h, const struct locator *to, struct locator_grant *grant)
{
	const struct peer_terms terms = {
		.to = to, .crc = h->number % 2, .source = 0x7f000200 + h->number,
		.receive_buffer = h->board->reading ? RECEIVE_BUFFER : 0,
	};

	h->me->connects++;
	return peer_connect(&h->peer, &terms, grant);
}

/* By the PD's ticket there is one connection for many shots; an export's is for this one. */
static bool connect_shot(struct hammer *h)
{
	struct nicd_error err;
	struct locator locator;
	struct locator_grant grant;

	if (!h->slot->locator[0])
		return h->peer.fd >= 0 || connect_to(h, &h->locator, NULL);
	peer_reset(&h->peer);
	if (locator_parse(h->slot->locator, &locator, &err) < 0 || !connect_to(h, &locator, &grant))
		return false;
	return grant.remote_token == h->token;
}

static void half(struct hammer *h)
{
	atomic_store(&h->me->phase, PHASE_HALF);
	while (!gone(h) && !atomic_load(&h->board->stop))
		board_sleep(h->slot, h->state);
	atomic_store(&h->me->phase, PHASE_IN);
}

/* ---- writing */

/* Somewhere in the region. */
static size_t make_write(struct hammer *h)
{
	uint32_t length = 1 + draw(h, h->length), offset = draw(h, h->length - length + 1);

	return peer_make_write(&h->peer, h->token, h->iova + offset, length, (uint8_t)(BYTE_PEER + draw(h, 128)));
}

static bool shoot_half(struct hammer *h)
{
	size_t size = make_write(h), part = 1 + draw(h, (uint32_t)size - 1);

	if (!peer_send(&h->peer, h->peer.out, part))
		return false;
	half(h);
	return peer_send(&h->peer, h->peer.out + part, size - part);
}

static bool shoot_pieces(struct hammer *h)
{
	size_t size = make_write(h), sent = 0;

	while (sent < size) {
		size_t n = 1 + draw(h, (uint32_t)(size - sent));

		if (!peer_send(&h->peer, h->peer.out + sent, n))
			return false;
		sent += n;
		sched_yield();
	}
	return true;
}

static bool shoot_whole(struct hammer *h)
{
	for (uint32_t n = 1 + draw(h, WHOLE_MAX); n > 0; n--) {
		size_t size = make_write(h);

		if (!peer_send(&h->peer, h->peer.out, size))
			return false;
	}
	return true;
}

static bool shoot_edge(struct hammer *h)
{
	uint32_t length = 1 + draw(h, 64), over = draw(h, 2) * (1 + draw(h, length));
	size_t size = peer_make_write(&h->peer, h->token, h->iova + h->length - length + over, length,
				      (uint8_t)(BYTE_PEER + draw(h, 128)));

	return peer_send(&h->peer, h->peer.out, size);
}

static bool write_shot(struct hammer *h)
{
	static bool (*const ways[])(struct hammer *h) = {
		shoot_half, shoot_half, shoot_half, shoot_half, shoot_half, shoot_pieces, shoot_edge, shoot_whole,
	};
	bool live = h->state & 1;

	h->me->stale += !live;
	return (live ? ways[draw(h, sizeof(ways) / sizeof(ways[0]))] : shoot_whole)(h) && peer_flush(&h->peer);
}

/* ---- reading */

static void read_check(struct hammer *h, const struct peer_frame *frame)
{
	uint8_t live = byte_live(h->state);

	h->me->bytes += frame->length;
	for (size_t i = 0; i < frame->length; i++) {
		if (frame->payload[i] == live)
			continue;
		if (h->me->leaked++ == 0)
			fprintf(stderr, "revoke: peer %u read 0x%02x where 0x%02x was until the answer\n", h->number,
				frame->payload[i], live);
		return;
	}
}

static bool read_shot(struct hammer *h)
{
	struct peer_frame frame;
	unsigned answered = 0;

	for (unsigned i = 0; i < READS; i++) {
		size_t size = peer_make_read(&h->peer, h->token, h->iova, h->length);

		if (!peer_send(&h->peer, h->peer.out, size))
			return false;
	}
	if (!peer_wait(&h->peer))
		return false;
	half(h);
	while (answered < READS && peer_next(&h->peer, &frame)) {
		if (frame.opcode != PEER_READ_RESPONSE)
			continue;
		read_check(h, &frame);
		answered += frame.last;
	}
	return answered == READS;
}

/* ---- the run */

static bool aim(struct hammer *h)
{
	unsigned i = draw(h, BOARD_SLOTS);

	h->slot = &h->board->slots[i];
	h->state = atomic_load(&h->slot->state);
	/* Of those that are gone only some, lest they are never alone. */
	if (h->state == 0 || (!(h->state & 1) && (h->board->reading || draw(h, 16))))
		return false;
	atomic_store(&h->me->at, i + 1);
	atomic_store(&h->me->phase, PHASE_IN);
	if (gone(h))
		return false;
	h->token = h->slot->token;
	h->iova = h->slot->iova;
	h->length = h->slot->length;
	return true;
}

static void leave(struct hammer *h)
{
	atomic_store(&h->me->phase, PHASE_OUT);
	atomic_store(&h->me->at, 0);
}

static void shot(struct hammer *h)
{
	bool alive;

	if (!aim(h)) {
		leave(h);
		usleep(20);
		return;
	}
	alive = connect_shot(h);
	if (alive) {
		h->me->shots++;
		alive = h->board->reading ? read_shot(h) : write_shot(h);
		h->me->answered += alive;
	}
	if (!alive || h->slot->locator[0])
		peer_reset(&h->peer);
	leave(h);
}

_Noreturn void hammer_run(struct board *board, unsigned number)
{
	struct hammer *h = calloc(1, sizeof(*h));
	struct nicd_error err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	*h = (struct hammer){.board = board, .me = &board->peers[number], .number = number, .random = 0x9e3779b97f4a7c15u + number};
	h->peer.fd = -1;
	while (!atomic_load(&board->ready))
		usleep(1000);
	if (locator_parse(board->locator, &h->locator, &err) < 0)
		_exit(2);
	while (!atomic_load(&board->stop))
		shot(h);
	peer_reset(&h->peer);
	free(h);
	_exit(0);
}
