/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * MPA (RFC 5044, RFC 6581): the handshake before, and the frames around what DDP sends. Pure functions on bytes.
 *
 * A connection starts with one request frame and one reply frame: a 16-byte key, flags and revision, PD_Length, private data. In
 * revision 2 the enhanced form puts four bytes (IRD, ORD and the ready-to-receive bits) before the private data.
 * After that everything is FPDUs: u16 length of the ULPDU, the ULPDU, zeros up to a multiple of 4, CRC-32C.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MPA_FRAME_HEADER = 20,
	MPA_ENHANCED_SIZE = 4,
	MPA_PD_MAX = 512,            /* RFC 5044 */
	MPA_PD_USER_MAX = 252,       /* what we send: a siw client's kernel oopses when a reply has more than 256 in all */
	MPA_FRAME_MAX = MPA_FRAME_HEADER + MPA_PD_MAX,

	MPA_NOT_NEGOTIATED = 0x3fff, /* an IRD or ORD that says nothing */

	FPDU_LENGTH_SIZE = 2,
	FPDU_CRC_SIZE = 4,
	FPDU_ULPDU_MAX = 65535,
	FPDU_TAIL_MAX = 3 + FPDU_CRC_SIZE,
	FPDU_MAX = FPDU_LENGTH_SIZE + FPDU_ULPDU_MAX + FPDU_TAIL_MAX,
};

/*
 * A request or a reply. The ready-to-receive bits are B, C and D of RFC 6581; they mean something only with
 * `peer_to_peer` (A).
 */
struct mpa_frame {
	bool reply;
	bool markers, crc, reject, enhanced;
	bool large;                  /* siw's: frames may be larger than a TCP segment; in a reply only where it was asked */
	uint8_t revision;
	bool peer_to_peer, rtr_send, rtr_write, rtr_read;
	uint16_t ird, ord;           /* of the sender; 14 bits */
	const uint8_t *pd;           /* the user's private data, borrowed from the buffer */
	size_t pd_len;
};

enum mpa_result {
	MPA_DONE,        /* *used bytes were the frame */
	MPA_MORE,        /* so far it could become one */
	MPA_GARBAGE,     /* not MPA, another revision, or PD_Length out of range: drop it without a word */
	MPA_MALFORMED,   /* enhanced, but PD_Length has no room for that: *ret has all but the private data; refuse it */
};

/* `reply`: which of the two is expected. */
enum mpa_result mpa_decode(const uint8_t *buf, size_t len, bool reply, struct mpa_frame *ret, size_t *used);
/* Bytes written; 0: it does not fit, or the private data is longer than MPA_PD_USER_MAX. */
size_t mpa_encode(uint8_t *buf, size_t size, const struct mpa_frame *frame);

/* Zeros behind a ULPDU of this length. */
static inline size_t fpdu_pad(size_t ulpdu)
{
	return -(ulpdu + FPDU_LENGTH_SIZE) & 3;
}
static inline size_t fpdu_size(size_t ulpdu)
{
	return FPDU_LENGTH_SIZE + ulpdu + fpdu_pad(ulpdu) + FPDU_CRC_SIZE;
}

/* CRC-32C over pieces: start with FPDU_CRC_START, end with fpdu_crc_put. It covers everything before itself. */
#define FPDU_CRC_START 0xffffffffu
uint32_t fpdu_crc(uint32_t crc, const void *buf, size_t len);
void fpdu_crc_put(uint8_t buf[FPDU_CRC_SIZE], uint32_t crc);
/* `len` is the whole FPDU's, at least FPDU_CRC_SIZE. */
bool fpdu_crc_ok(const uint8_t *buf, size_t len);
