/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What the owner of the regions and its peers, which are processes of their own, share: where the regions are, and who
 * is in the middle of which.
 *
 * A slot is one region. Its state is 2 x rounds, plus 1 while the region is registered. A peer first says where it goes
 * (`at`), then looks again whether the state is still what it was: so when the owner has told the end of a round and
 * sees nobody there, nobody sends to it any more, and nothing sent to it is on its way, for a peer leaves only when all
 * it sent has been placed or can't be.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/locator.h"

enum {
	BOARD_SLOTS = 16,
	BOARD_PEERS = 8,

	/* Every write of a peer is made of bytes with the top bit, and nothing that the owner fills with is. */
	BYTE_GUARD = 0x55,
	BYTE_PEER = 0x80,
};

/* What a region holds while it is registered, and what it is filled with the moment the answer to its revocation is here. */
static inline uint8_t byte_live(uint64_t state)
{
	return (uint8_t)(1 + (state / 2) % 15);
}
static inline uint8_t byte_dead(uint64_t state)
{
	return (uint8_t)(0x20 + (state / 2) % 32);
}

struct board_slot {
	_Atomic uint32_t state32;      /* the low half of `state`: what is slept on */
	_Atomic uint64_t state;
	uint32_t token, length;
	uint64_t iova;
	char locator[LOCATOR_TEXT_MAX];   /* of the round's export; "" where peers have the PD's ticket */
};

enum board_phase {
	PHASE_OUT,
	PHASE_IN,        /* frames are under way, whole ones too */
	PHASE_HALF,      /* a part of a frame, or of an answer, is out, and the rest waits for the region's end */
};

struct board_peer {
	_Atomic uint32_t at;           /* slot + 1; 0: nowhere */
	_Atomic uint32_t phase;
	_Atomic uint64_t shots, stale, connects, answered, leaked, bytes;
};

struct board {
	_Atomic uint32_t ready, stop;
	bool reading;                  /* peers read, else they write */
	char locator[LOCATOR_TEXT_MAX];
	struct board_slot slots[BOARD_SLOTS];
	struct board_peer peers[BOARD_PEERS];
};

struct board *board_new(bool reading);
void board_free(struct board *board);
/* Tells a new state, and wakes who sleeps on the old one. */
void board_tell(struct board_slot *slot, uint64_t state);
/* Sleeps until the slot's state is another one, for some milliseconds at most. */
void board_sleep(struct board_slot *slot, uint64_t state);

/* hammer.c: a peer's process. Never returns. */
_Noreturn void hammer_run(struct board *board, unsigned number);
