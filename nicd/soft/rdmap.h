/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * DDP (RFC 5041) and RDMAP (RFC 5040) headers and the Terminate message. Pure functions on bytes: a ULPDU in, fields out.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/terminate.h"

enum rdmap_opcode {
	RDMAP_WRITE = 0,
	RDMAP_READ_REQUEST = 1,
	RDMAP_READ_RESPONSE = 2,
	RDMAP_SEND = 3,
	RDMAP_SEND_INVALIDATE = 4,
	RDMAP_SEND_SOLICITED = 5,
	RDMAP_SEND_SOLICITED_INVALIDATE = 6,
	RDMAP_TERMINATE = 7,
};

enum {
	DDP_TAGGED_SIZE = 14,
	DDP_UNTAGGED_SIZE = 18,
	RDMAP_READ_SIZE = 28,
	RDMAP_READ_ULPDU = DDP_UNTAGGED_SIZE + RDMAP_READ_SIZE,
	RDMAP_TERMINATE_MAX = DDP_UNTAGGED_SIZE + 4 + 2 + DDP_UNTAGGED_SIZE + RDMAP_READ_SIZE,

	QUEUE_SEND = 0,
	QUEUE_READ = 1,
	QUEUE_TERMINATE = 2,
};

/* What a Terminate says: proto/terminate.h. */
enum rdmap_code {
	RDMAP_FINE = -1,
	RDMAP_MORE = -2,             /* the header is not whole yet */
#define X(number, name, reason, text) name = (number),
	NICD_TERMINATES(X)
#undef X
};

struct rdmap_header {
	bool tagged, last;
	uint8_t opcode;
	uint8_t size;                /* of this header in the ULPDU */
	uint32_t stag;               /* tagged; of the untagged ones only Send with Invalidate has one */
	uint64_t to;                 /* tagged */
	uint32_t queue, msn, mo;     /* untagged */
};

struct rdmap_read {
	uint32_t sink_stag, size, source_stag;
	uint64_t sink_to, source_to;
};

/*
 * `have` bytes of a ULPDU of `ulpdu` bytes are there. RDMAP_FINE, RDMAP_MORE, or what to terminate with: a wrong
 * version, a header longer than the ULPDU, a queue that is none, an opcode that is unknown or of the other kind.
 */
enum rdmap_code rdmap_decode(const uint8_t *buf, size_t have, size_t ulpdu, struct rdmap_header *ret);
/* Writes header->size bytes: the caller need not set it. */
size_t rdmap_encode(uint8_t buf[DDP_UNTAGGED_SIZE], const struct rdmap_header *header);

void rdmap_read_decode(const uint8_t buf[RDMAP_READ_SIZE], struct rdmap_read *ret);
void rdmap_read_encode(uint8_t buf[RDMAP_READ_SIZE], const struct rdmap_read *read);

/* The reason and, where there is one, the segment it is about. */
struct rdmap_terminate {
	enum rdmap_code code;
	bool has_header, has_read;
	uint16_t ulpdu;              /* of the segment */
	struct rdmap_header header;
	struct rdmap_read read;      /* of a Read Request */
};
/* The whole ULPDU. */
size_t rdmap_terminate_encode(uint8_t buf[RDMAP_TERMINATE_MAX], const struct rdmap_terminate *terminate);
/* `buf` starts behind the DDP header. Understands siw's bit order too. False: too short to say anything. */
bool rdmap_terminate_decode(const uint8_t *buf, size_t len, struct rdmap_terminate *ret);
