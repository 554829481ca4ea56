/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * AddTag and DropTag and their answers, encoded and decoded by hand. Nearly all that nicd and nicd-soft say to each other is these four, by
 * the hundred in a frame, and protobuf-c takes more than half of the time that one of them costs. The bytes are those of
 * soft.proto. What does not look as expected is not judged here: the whole frame is left to protobuf-c.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"

/* AddTag with one range, or DropTag. */
struct quick_request {
	uint32_t id;
	bool drop;
	uint32_t generation, rights;
	uint64_t serial, pd, door, iova, length;
	struct {
		uint64_t memory, offset, length;
	} range;
};

/* A success: with tokens, with the number of streams cut, or with nothing. */
enum quick_result { QUICK_NOTHING, QUICK_TAGS, QUICK_DROPPED };
struct quick_reply {
	uint32_t id;
	enum quick_result result;
	uint32_t local_token, remote_token;
	uint32_t streams_cut;
};

/* One element of Frame.requests or Frame.replies, without its head; returns the length. */
enum { QUICK_SIZE = 128 };
size_t quick_request_encode(uint8_t buf[QUICK_SIZE], const struct quick_request *request);
size_t quick_reply_encode(uint8_t buf[QUICK_SIZE], const struct quick_reply *reply);

/* How many are in the frame, all of them in `ret`; 0: it holds anything else. */
unsigned quick_requests_decode(const uint8_t *frame, size_t len, struct quick_request ret[NICD_FRAME_REQUESTS]);
unsigned quick_replies_decode(const uint8_t *frame, size_t len, struct quick_reply ret[NICD_FRAME_REQUESTS]);
