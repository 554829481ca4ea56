/* SPDX-License-Identifier: MIT */
/*
 * MPA on bytes: request and reply frames, and what stands around a ULPDU. Nothing here is kept; whoever calls owns the buffers.
 */
#include <isa-l/crc.h>
#include <string.h>

#include "nicd/soft/bytes.h"
#include "nicd/soft/mpa.h"

enum {
	KEY_SIZE = 16,
	FLAG_MARKERS = 0x8000,
	FLAG_CRC = 0x4000,
	FLAG_REJECT = 0x2000,
	FLAG_ENHANCED = 0x1000,
	FLAG_LARGE = 0x0800,   /* reserved by the RFCs; siw's hint */
	BIT_A = 0x8000,   /* in IRD: peer to peer */
	BIT_B = 0x4000,   /* in IRD: zero-length send */
	BIT_C = 0x8000,   /* in ORD: zero-length write */
	BIT_D = 0x4000,   /* in ORD: zero-length read */
	DEPTH_MASK = 0x3fff,
};

static const char mpa_keys[2][KEY_SIZE + 1] = {"MPA ID Req Frame", "MPA ID Rep Frame"};

static void enhanced_decode(const uint8_t *buf, struct mpa_frame *ret)
{
	uint16_t ird = get_be16(buf), ord = get_be16(buf + 2);

	ret->peer_to_peer = ird & BIT_A;
	ret->rtr_send = ird & BIT_B;
	ret->rtr_write = ord & BIT_C;
	ret->rtr_read = ord & BIT_D;
	ret->ird = ird & DEPTH_MASK;
	ret->ord = ord & DEPTH_MASK;
}

enum mpa_result mpa_decode(const uint8_t *buf, size_t len, bool reply, struct mpa_frame *ret, size_t *used)
{
	uint16_t flags, pd_len;

	*ret = (struct mpa_frame){.reply = reply};
	if (memcmp(buf, mpa_keys[reply], len < KEY_SIZE ? len : KEY_SIZE) != 0)
		return MPA_GARBAGE;
	if (len < MPA_FRAME_HEADER)
		return MPA_MORE;
	flags = get_be16(buf + KEY_SIZE);
	pd_len = get_be16(buf + KEY_SIZE + 2);
	ret->revision = flags & 0xff;
	if (pd_len > MPA_PD_MAX || ret->revision < 1 || ret->revision > 2)
		return MPA_GARBAGE;
	ret->markers = flags & FLAG_MARKERS;
	ret->crc = flags & FLAG_CRC;
	ret->reject = flags & FLAG_REJECT;
	ret->large = flags & FLAG_LARGE;
	ret->enhanced = ret->revision == 2 && (flags & FLAG_ENHANCED);
	if (ret->enhanced && pd_len < MPA_ENHANCED_SIZE)
		return MPA_MALFORMED;
	if (len < MPA_FRAME_HEADER + (size_t)pd_len)
		return MPA_MORE;
	ret->pd = buf + MPA_FRAME_HEADER;
	ret->pd_len = pd_len;
	if (ret->enhanced) {
		enhanced_decode(ret->pd, ret);
		ret->pd += MPA_ENHANCED_SIZE;
		ret->pd_len -= MPA_ENHANCED_SIZE;
	}
	*used = MPA_FRAME_HEADER + pd_len;
	return MPA_DONE;
}

static void enhanced_encode(uint8_t *buf, const struct mpa_frame *frame)
{
	put_be16(buf, (frame->ird & DEPTH_MASK) | (frame->peer_to_peer ? BIT_A : 0) | (frame->rtr_send ? BIT_B : 0));
	put_be16(buf + 2, (frame->ord & DEPTH_MASK) | (frame->rtr_write ? BIT_C : 0) | (frame->rtr_read ? BIT_D : 0));
}

size_t mpa_encode(uint8_t *buf, size_t size, const struct mpa_frame *frame)
{
	size_t extra = frame->enhanced ? MPA_ENHANCED_SIZE : 0;
	uint16_t flags = frame->revision;

	if (frame->pd_len > MPA_PD_USER_MAX || size < MPA_FRAME_HEADER + extra + frame->pd_len)
		return 0;
	flags |= frame->markers ? FLAG_MARKERS : 0;
	flags |= frame->crc ? FLAG_CRC : 0;
	flags |= frame->reject ? FLAG_REJECT : 0;
	flags |= frame->enhanced ? FLAG_ENHANCED : 0;
	flags |= frame->large ? FLAG_LARGE : 0;
	memcpy(buf, mpa_keys[frame->reply], KEY_SIZE);
	put_be16(buf + KEY_SIZE, flags);
	put_be16(buf + KEY_SIZE + 2, (uint16_t)(extra + frame->pd_len));
	if (frame->enhanced)
		enhanced_encode(buf + MPA_FRAME_HEADER, frame);
	if (frame->pd_len)
		memcpy(buf + MPA_FRAME_HEADER + extra, frame->pd, frame->pd_len);
	return MPA_FRAME_HEADER + extra + frame->pd_len;
}

uint32_t fpdu_crc(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	/* ISA-L takes an int and does not write to the buffer. */
	return len ? crc32_iscsi((unsigned char *)(uintptr_t)p, (int)len, crc) : crc;
}

void fpdu_crc_put(uint8_t buf[FPDU_CRC_SIZE], uint32_t crc)
{
	crc = htole32(~crc);   /* the one little-endian field of MPA */
	memcpy(buf, &crc, FPDU_CRC_SIZE);
}

bool fpdu_crc_ok(const uint8_t *buf, size_t len)
{
	uint8_t want[FPDU_CRC_SIZE];

	fpdu_crc_put(want, fpdu_crc(FPDU_CRC_START, buf, len - FPDU_CRC_SIZE));
	return memcmp(want, buf + len - FPDU_CRC_SIZE, FPDU_CRC_SIZE) == 0;
}
