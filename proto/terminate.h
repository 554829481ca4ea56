/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The third column of the table of errors: what a Terminate on the wire says, and what whoever posted the work is told then. The numbers are
 * 0xLTCC: layer (0 RDMAP, RFC 5040; 1 DDP, RFC 5041; 2 MPA, RFC 5044), error type, error code. nicd-soft sends these and no others;
 * what it does not know it tells as REMOTE_TERMINATE.
 *
 * X(number, NAME, reason, text)
 */
#include "proto/reason.h"

#define NICD_TERMINATES(X) \
	X(0x0000, RDMAP_E_CATASTROPHIC, REMOTE_TERMINATE, "the peer failed inside") \
	X(0x0100, RDMAP_E_STAG, REMOTE_TOKEN, "a read names no token of the peer's") \
	X(0x0101, RDMAP_E_BOUNDS, REMOTE_RANGE, "a read goes beyond what its token covers") \
	X(0x0102, RDMAP_E_RIGHTS, REMOTE_RIGHTS, "a read by a token that does not allow it") \
	X(0x0103, RDMAP_E_STREAM, REMOTE_TOKEN, "a read names the token of another stream") \
	X(0x0104, RDMAP_E_WRAP, REMOTE_RANGE, "a read goes beyond the last address") \
	X(0x0109, RDMAP_E_INVALIDATE, REMOTE_INVALIDATE, "a message names a token that others may not invalidate") \
	X(0x0205, RDMAP_E_VERSION, REMOTE_TERMINATE, "a version of RDMAP that the peer does not speak") \
	X(0x0206, RDMAP_E_OPCODE, REMOTE_TERMINATE, "an operation that the peer does not know") \
	X(0x0207, RDMAP_E_STREAM_BROKEN, REMOTE_TERMINATE, "the peer cannot go on with this stream") \
	X(0x0209, RDMAP_E_INVALIDATE_UNKNOWN, REMOTE_INVALIDATE, "a message invalidates a token that is none (siw says it so)") \
	X(0x1000, DDP_E_CATASTROPHIC, REMOTE_TERMINATE, "the peer's memory went while it was being written") \
	X(0x1100, DDP_E_STAG, REMOTE_TOKEN, "a write names no token of the peer's, or one that does not allow it: DDP has no code for that") \
	X(0x1101, DDP_E_BOUNDS, REMOTE_RANGE, "a write goes beyond what its token covers") \
	X(0x1102, DDP_E_STREAM, REMOTE_TOKEN, "a write names the token of another stream") \
	X(0x1103, DDP_E_WRAP, REMOTE_RANGE, "a write goes beyond the last address") \
	X(0x1104, DDP_E_VERSION, REMOTE_TERMINATE, "a version of DDP that the peer does not speak, in a tagged segment") \
	X(0x1201, DDP_E_QUEUE, REMOTE_TERMINATE, "a queue that there is not") \
	X(0x1202, DDP_E_NO_BUFFER, NO_RECEIVE, "a message for which the peer had no receive, or one read too many at once") \
	X(0x1203, DDP_E_MSN, REMOTE_TERMINATE, "a message out of its order") \
	X(0x1204, DDP_E_MO, REMOTE_TERMINATE, "a piece of a message out of its order") \
	X(0x1205, DDP_E_TOO_LONG, REMOTE_RECEIVE, "a message that is longer than the receive") \
	X(0x1206, DDP_E_UNTAGGED_VERSION, REMOTE_TERMINATE, "a version of DDP that the peer does not speak, in an untagged segment") \
	X(0x2002, MPA_E_CRC, REMOTE_TERMINATE, "a checksum is wrong")

/* What whoever posted the work is told of this code. */
enum nicd_reason nicd_terminate_reason(uint32_t code);
/* The index-th code that comes to `reason`; -1: no more. */
int nicd_terminate_code(enum nicd_reason reason, unsigned index);
