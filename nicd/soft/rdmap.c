/* SPDX-License-Identifier: MIT */
/*
 * DDP and RDMAP headers on bytes. Nothing here is kept; whoever calls owns the buffers and decides what the fields mean
 * to a stream.
 */
#include "nicd/soft/bytes.h"
#include "nicd/soft/rdmap.h"

enum {
	DDP_TAGGED = 0x80,
	DDP_LAST = 0x40,
	DDP_VERSION_MASK = 0x03,
	DDP_VERSION = 1,
	RDMAP_VERSION_SHIFT = 6,
	RDMAP_VERSION = 1,
	RDMAP_OPCODE_MASK = 0x0f,

	/* HdrCt of Terminate, as RFC 5040 places it and as siw on little-endian machines does. */
	TERM_M = 0x80, TERM_D = 0x40, TERM_R = 0x20,
	TERM_SIW_M = 0x01, TERM_SIW_D = 0x02, TERM_SIW_R = 0x04,
	TERM_CONTROL_SIZE = 4,
	TERM_SEGMENT_SIZE = 2,
};

/* Of each opcode: its kind, and its queue when it is untagged. */
static const struct {
	bool tagged;
	uint8_t queue;
} opcodes[] = {
	[RDMAP_WRITE] = {true, 0},
	[RDMAP_READ_REQUEST] = {false, QUEUE_READ},
	[RDMAP_READ_RESPONSE] = {true, 0},
	[RDMAP_SEND] = {false, QUEUE_SEND},
	[RDMAP_SEND_INVALIDATE] = {false, QUEUE_SEND},
	[RDMAP_SEND_SOLICITED] = {false, QUEUE_SEND},
	[RDMAP_SEND_SOLICITED_INVALIDATE] = {false, QUEUE_SEND},
	[RDMAP_TERMINATE] = {false, QUEUE_TERMINATE},
};

static void header_fields(const uint8_t *buf, struct rdmap_header *ret)
{
	ret->tagged = buf[0] & DDP_TAGGED;
	ret->last = buf[0] & DDP_LAST;
	ret->opcode = buf[1] & RDMAP_OPCODE_MASK;
	ret->size = ret->tagged ? DDP_TAGGED_SIZE : DDP_UNTAGGED_SIZE;
	ret->stag = get_be32(buf + 2);
	if (ret->tagged) {
		ret->to = get_be64(buf + 6);
		return;
	}
	ret->queue = get_be32(buf + 6);
	ret->msn = get_be32(buf + 10);
	ret->mo = get_be32(buf + 14);
}

enum rdmap_code rdmap_decode(const uint8_t *buf, size_t have, size_t ulpdu, struct rdmap_header *ret)
{
	size_t size;

	*ret = (struct rdmap_header){0};
	if (ulpdu < DDP_TAGGED_SIZE)
		return DDP_E_CATASTROPHIC;
	if (have < 2)
		return RDMAP_MORE;
	size = buf[0] & DDP_TAGGED ? DDP_TAGGED_SIZE : DDP_UNTAGGED_SIZE;
	if (ulpdu < size)
		return DDP_E_CATASTROPHIC;
	if (have < size)
		return RDMAP_MORE;
	header_fields(buf, ret);
	if ((buf[0] & DDP_VERSION_MASK) != DDP_VERSION)
		return ret->tagged ? DDP_E_VERSION : DDP_E_UNTAGGED_VERSION;
	if (!ret->tagged && ret->queue > QUEUE_TERMINATE)
		return DDP_E_QUEUE;
	if (buf[1] >> RDMAP_VERSION_SHIFT != RDMAP_VERSION)
		return RDMAP_E_VERSION;
	if (ret->opcode >= sizeof(opcodes) / sizeof(opcodes[0]) || opcodes[ret->opcode].tagged != ret->tagged)
		return RDMAP_E_OPCODE;
	if (!ret->tagged && opcodes[ret->opcode].queue != ret->queue)
		return RDMAP_E_OPCODE;
	return RDMAP_FINE;
}

size_t rdmap_encode(uint8_t buf[DDP_UNTAGGED_SIZE], const struct rdmap_header *header)
{
	buf[0] = DDP_VERSION | (header->tagged ? DDP_TAGGED : 0) | (header->last ? DDP_LAST : 0);
	buf[1] = RDMAP_VERSION << RDMAP_VERSION_SHIFT | header->opcode;
	put_be32(buf + 2, header->stag);
	if (header->tagged) {
		put_be64(buf + 6, header->to);
		return DDP_TAGGED_SIZE;
	}
	put_be32(buf + 6, header->queue);
	put_be32(buf + 10, header->msn);
	put_be32(buf + 14, header->mo);
	return DDP_UNTAGGED_SIZE;
}

void rdmap_read_decode(const uint8_t buf[RDMAP_READ_SIZE], struct rdmap_read *ret)
{
	ret->sink_stag = get_be32(buf);
	ret->sink_to = get_be64(buf + 4);
	ret->size = get_be32(buf + 12);
	ret->source_stag = get_be32(buf + 16);
	ret->source_to = get_be64(buf + 20);
}

void rdmap_read_encode(uint8_t buf[RDMAP_READ_SIZE], const struct rdmap_read *read)
{
	put_be32(buf, read->sink_stag);
	put_be64(buf + 4, read->sink_to);
	put_be32(buf + 12, read->size);
	put_be32(buf + 16, read->source_stag);
	put_be64(buf + 20, read->source_to);
}

size_t rdmap_terminate_encode(uint8_t buf[RDMAP_TERMINATE_MAX], const struct rdmap_terminate *terminate)
{
	const struct rdmap_header header = {
		.opcode = RDMAP_TERMINATE, .last = true, .queue = QUEUE_TERMINATE, .msn = 1,
	};
	uint8_t *p = buf + rdmap_encode(buf, &header);
	bool has_read = terminate->has_header && terminate->has_read;

	p[0] = terminate->code >> 8;
	p[1] = terminate->code & 0xff;
	p[2] = (terminate->has_header ? TERM_M | TERM_D : 0) | (has_read ? TERM_R : 0);
	p[3] = 0;
	p += TERM_CONTROL_SIZE;
	if (terminate->has_header) {
		put_be16(p, terminate->ulpdu);
		p += TERM_SEGMENT_SIZE;
		p += rdmap_encode(p, &terminate->header);
	}
	if (has_read) {
		rdmap_read_encode(p, &terminate->read);
		p += RDMAP_READ_SIZE;
	}
	return (size_t)(p - buf);
}

/*
 * siw's C bit-fields put Layer into the low nibble and M, D, R into bits 0 to 2. Without header bits only its CRC error
 * can be told from anything in the RFCs, whose 0/2 codes start at 5.
 */
static bool terminate_is_siw(const uint8_t *buf)
{
	if (buf[2] & (TERM_M | TERM_D | TERM_R))
		return false;
	return (buf[2] & (TERM_SIW_M | TERM_SIW_D | TERM_SIW_R)) || (buf[0] == 0x02 && buf[1] < 5);
}

static void terminate_copies(const uint8_t *buf, size_t len, bool has_read, struct rdmap_terminate *ret)
{
	size_t size;

	if (len < TERM_SEGMENT_SIZE + DDP_TAGGED_SIZE)
		return;
	size = buf[TERM_SEGMENT_SIZE] & DDP_TAGGED ? DDP_TAGGED_SIZE : DDP_UNTAGGED_SIZE;
	if (len < TERM_SEGMENT_SIZE + size)
		return;
	ret->ulpdu = get_be16(buf);
	header_fields(buf + TERM_SEGMENT_SIZE, &ret->header);
	ret->has_header = true;
	buf += TERM_SEGMENT_SIZE + size;
	len -= TERM_SEGMENT_SIZE + size;
	if (!has_read || ret->header.tagged || ret->header.opcode != RDMAP_READ_REQUEST || len < RDMAP_READ_SIZE)
		return;
	rdmap_read_decode(buf, &ret->read);
	ret->has_read = true;
}

bool rdmap_terminate_decode(const uint8_t *buf, size_t len, struct rdmap_terminate *ret)
{
	bool siw, d, r;

	*ret = (struct rdmap_terminate){0};
	if (len < TERM_CONTROL_SIZE)
		return false;
	siw = terminate_is_siw(buf);
	ret->code = buf[0] << 8 | buf[1];
	if (siw)
		ret->code = (buf[0] & 0x0f) << 12 | (buf[0] >> 4) << 8 | buf[1];
	d = buf[2] & (siw ? TERM_SIW_D : TERM_D);
	r = buf[2] & (siw ? TERM_SIW_R : TERM_R);
	/* The length field is there with D too: siw never sets D without M, and the RFC's layouts all have both. */
	if (d)
		terminate_copies(buf + TERM_CONTROL_SIZE, len - TERM_CONTROL_SIZE, r, ret);
	return true;
}
