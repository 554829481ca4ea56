/* SPDX-License-Identifier: MIT */
/*
 * No state. A decoder reads fields until the bytes are used up; it gives up at the first key that it does not know, at a number that is too
 * large for its field, at a message that comes twice (protobuf would merge them), and at every end that is not where it was said to be.
 * Giving up is never wrong, only slower.
 */
#include "nicd/soft/quick.h"

#include <endian.h>
#include <string.h>

/* Key bytes: number << 3 | wire type. */
enum {
	VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5,
#define KEY(number, type) ((number) << 3 | (type))
	FRAME_REQUESTS = KEY(1, BYTES), FRAME_REPLIES = KEY(2, BYTES),
	ID = KEY(1, VARINT),
	CALL_ADD_TAG = KEY(13, BYTES), CALL_DROP_TAG = KEY(14, BYTES),
	RESULT_TAGS = KEY(13, BYTES), RESULT_DROPPED = KEY(14, BYTES),
	TAG_SERIAL = KEY(1, FIXED64), TAG_GENERATION = KEY(2, VARINT), ADD_PD = KEY(3, FIXED64), ADD_DOOR = KEY(4, FIXED64),
	ADD_RANGES = KEY(5, BYTES), ADD_IOVA = KEY(6, FIXED64), ADD_LENGTH = KEY(7, VARINT), ADD_RIGHTS = KEY(8, VARINT),
	RANGE_MEMORY = KEY(1, FIXED64), RANGE_OFFSET = KEY(2, VARINT), RANGE_LENGTH = KEY(3, VARINT),
	TAGS_LOCAL = KEY(1, FIXED32), TAGS_REMOTE = KEY(2, FIXED32),
	DROPPED_STREAMS = KEY(1, VARINT),
};

/* ---- writing: fields that are 0 are left out, as protobuf does */

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
	while (value >= 0x80) {
		*at++ = (uint8_t)value | 0x80;
		value >>= 7;
	}
	*at++ = (uint8_t)value;
	return at;
}

static uint8_t *put_number(uint8_t *at, uint8_t key, uint64_t value)
{
	if (value == 0)
		return at;
	*at++ = key;
	return put_varint(at, value);
}

static uint8_t *put_fixed64(uint8_t *at, uint8_t key, uint64_t value)
{
	uint64_t le = htole64(value);

	if (value == 0)
		return at;
	*at++ = key;
	memcpy(at, &le, sizeof(le));
	return at + sizeof(le);
}

static uint8_t *put_fixed32(uint8_t *at, uint8_t key, uint32_t value)
{
	uint32_t le = htole32(value);

	if (value == 0)
		return at;
	*at++ = key;
	memcpy(at, &le, sizeof(le));
	return at + sizeof(le);
}

/* The head of a message whose length is not known yet; all of ours are shorter than 128. */
static uint8_t *open_message(uint8_t *at, uint8_t key)
{
	*at++ = key;
	return at + 1;
}

static uint8_t *close_message(uint8_t *start, uint8_t *end)
{
	start[-1] = (uint8_t)(end - start);
	return end;
}

static uint8_t *put_range(uint8_t *at, const struct quick_request *request)
{
	uint8_t *start = at = open_message(at, ADD_RANGES);

	at = put_fixed64(at, RANGE_MEMORY, request->range.memory);
	at = put_number(at, RANGE_OFFSET, request->range.offset);
	at = put_number(at, RANGE_LENGTH, request->range.length);
	return close_message(start, at);
}

static uint8_t *put_add(uint8_t *at, const struct quick_request *request)
{
	uint8_t *start = at = open_message(at, CALL_ADD_TAG);

	at = put_fixed64(at, TAG_SERIAL, request->serial);
	at = put_number(at, TAG_GENERATION, request->generation);
	at = put_fixed64(at, ADD_PD, request->pd);
	at = put_fixed64(at, ADD_DOOR, request->door);
	at = put_range(at, request);
	at = put_fixed64(at, ADD_IOVA, request->iova);
	at = put_number(at, ADD_LENGTH, request->length);
	at = put_number(at, ADD_RIGHTS, request->rights);
	return close_message(start, at);
}

static uint8_t *put_drop(uint8_t *at, const struct quick_request *request)
{
	uint8_t *start = at = open_message(at, CALL_DROP_TAG);

	at = put_fixed64(at, TAG_SERIAL, request->serial);
	at = put_number(at, TAG_GENERATION, request->generation);
	return close_message(start, at);
}

size_t quick_request_encode(uint8_t buf[QUICK_SIZE], const struct quick_request *request)
{
	uint8_t *at = put_number(buf, ID, request->id);

	at = request->drop ? put_drop(at, request) : put_add(at, request);
	return (size_t)(at - buf);
}

size_t quick_reply_encode(uint8_t buf[QUICK_SIZE], const struct quick_reply *reply)
{
	uint8_t *at = put_number(buf, ID, reply->id), *start;

	if (reply->result == QUICK_TAGS) {
		start = at = open_message(at, RESULT_TAGS);
		at = put_fixed32(at, TAGS_LOCAL, reply->local_token);
		at = put_fixed32(at, TAGS_REMOTE, reply->remote_token);
		at = close_message(start, at);
	} else if (reply->result == QUICK_DROPPED) {
		start = at = open_message(at, RESULT_DROPPED);
		at = put_number(at, DROPPED_STREAMS, reply->streams_cut);
		at = close_message(start, at);
	}
	return (size_t)(at - buf);
}

/* ---- reading */

/* What is left to read; `bad` once something is not as expected, and then nothing is left. */
struct reader {
	const uint8_t *at, *end;
	bool bad;
};

static void give_up(struct reader *r)
{
	r->bad = true;
	r->at = r->end;
}

static uint64_t get_varint(struct reader *r)
{
	uint64_t value = 0;

	for (unsigned shift = 0; r->at < r->end && shift < 63; shift += 7) {
		uint8_t byte = *r->at++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return value;
	}
	/* The tenth byte holds the one bit that is left. */
	if (r->at < r->end && *r->at <= 1)
		return value | (uint64_t)*r->at++ << 63;
	give_up(r);
	return 0;
}

static uint32_t get_varint32(struct reader *r)
{
	uint64_t value = get_varint(r);

	if (value > UINT32_MAX)
		give_up(r);
	return (uint32_t)value;
}

static uint64_t get_fixed64(struct reader *r)
{
	uint64_t le = 0;

	if ((size_t)(r->end - r->at) < sizeof(le)) {
		give_up(r);
		return 0;
	}
	memcpy(&le, r->at, sizeof(le));
	r->at += sizeof(le);
	return le64toh(le);
}

static uint32_t get_fixed32(struct reader *r)
{
	uint32_t le = 0;

	if ((size_t)(r->end - r->at) < sizeof(le)) {
		give_up(r);
		return 0;
	}
	memcpy(&le, r->at, sizeof(le));
	r->at += sizeof(le);
	return le32toh(le);
}

/* The message that starts here, which is skipped. */
static struct reader get_message(struct reader *r)
{
	uint64_t len = get_varint(r);
	struct reader inner = {r->at, r->at, false};

	if (r->bad || len > (uint64_t)(r->end - r->at)) {
		give_up(r);
		return inner;
	}
	r->at += len;
	inner.end = r->at;
	return inner;
}

/* A message that may come once. */
static struct reader get_only_message(struct reader *r, bool *seen)
{
	if (*seen)
		give_up(r);
	*seen = true;
	return get_message(r);
}

static bool get_range(struct reader r, struct quick_request *ret)
{
	while (r.at < r.end) {
		switch (*r.at++) {
		case RANGE_MEMORY: ret->range.memory = get_fixed64(&r); break;
		case RANGE_OFFSET: ret->range.offset = get_varint(&r); break;
		case RANGE_LENGTH: ret->range.length = get_varint(&r); break;
		default: give_up(&r); break;
		}
	}
	return !r.bad;
}

static bool get_add(struct reader r, struct quick_request *ret)
{
	bool ranges = false;

	while (r.at < r.end) {
		switch (*r.at++) {
		case TAG_SERIAL: ret->serial = get_fixed64(&r); break;
		case TAG_GENERATION: ret->generation = get_varint32(&r); break;
		case ADD_PD: ret->pd = get_fixed64(&r); break;
		case ADD_DOOR: ret->door = get_fixed64(&r); break;
		case ADD_RANGES:
			if (!get_range(get_only_message(&r, &ranges), ret))
				give_up(&r);
			break;
		case ADD_IOVA: ret->iova = get_fixed64(&r); break;
		case ADD_LENGTH: ret->length = get_varint(&r); break;
		case ADD_RIGHTS: ret->rights = get_varint32(&r); break;
		default: give_up(&r); break;
		}
	}
	return !r.bad && ranges;
}

static bool get_drop(struct reader r, struct quick_request *ret)
{
	ret->drop = true;
	while (r.at < r.end) {
		switch (*r.at++) {
		case TAG_SERIAL: ret->serial = get_fixed64(&r); break;
		case TAG_GENERATION: ret->generation = get_varint32(&r); break;
		default: give_up(&r); break;
		}
	}
	return !r.bad;
}

static bool get_request(struct reader r, struct quick_request *ret)
{
	bool call = false;

	*ret = (struct quick_request){0};
	while (r.at < r.end) {
		bool good = true;

		switch (*r.at++) {
		case ID: ret->id = get_varint32(&r); break;
		case CALL_ADD_TAG: good = get_add(get_only_message(&r, &call), ret); break;
		case CALL_DROP_TAG: good = get_drop(get_only_message(&r, &call), ret); break;
		default: good = false; break;
		}
		if (!good)
			give_up(&r);
	}
	return !r.bad && call;
}

unsigned quick_requests_decode(const uint8_t *frame, size_t len, struct quick_request ret[NICD_FRAME_REQUESTS])
{
	struct reader r = {frame, frame + len, false};
	unsigned n = 0;

	for (; r.at < r.end; n++)
		if (n == NICD_FRAME_REQUESTS || *r.at++ != FRAME_REQUESTS || !get_request(get_message(&r), &ret[n]))
			return 0;
	return r.bad ? 0 : n;
}

static bool get_tags(struct reader r, struct quick_reply *ret)
{
	ret->result = QUICK_TAGS;
	while (r.at < r.end) {
		switch (*r.at++) {
		case TAGS_LOCAL: ret->local_token = get_fixed32(&r); break;
		case TAGS_REMOTE: ret->remote_token = get_fixed32(&r); break;
		default: give_up(&r); break;
		}
	}
	return !r.bad;
}

static bool get_dropped(struct reader r, struct quick_reply *ret)
{
	ret->result = QUICK_DROPPED;
	while (r.at < r.end) {
		switch (*r.at++) {
		case DROPPED_STREAMS: ret->streams_cut = get_varint32(&r); break;
		default: give_up(&r); break;
		}
	}
	return !r.bad;
}

static bool get_reply(struct reader r, struct quick_reply *ret)
{
	bool result = false;

	*ret = (struct quick_reply){0};
	while (r.at < r.end) {
		bool good = true;

		switch (*r.at++) {
		case ID: ret->id = get_varint32(&r); break;
		case RESULT_TAGS: good = get_tags(get_only_message(&r, &result), ret); break;
		case RESULT_DROPPED: good = get_dropped(get_only_message(&r, &result), ret); break;
		default: good = false; break;
		}
		if (!good)
			give_up(&r);
	}
	return !r.bad;
}

unsigned quick_replies_decode(const uint8_t *frame, size_t len, struct quick_reply ret[NICD_FRAME_REQUESTS])
{
	struct reader r = {frame, frame + len, false};
	unsigned n = 0;

	for (; r.at < r.end; n++)
		if (n == NICD_FRAME_REQUESTS || *r.at++ != FRAME_REPLIES || !get_reply(get_message(&r), &ret[n]))
			return 0;
	return r.bad ? 0 : n;
}
