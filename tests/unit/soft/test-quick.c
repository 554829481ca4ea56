/* SPDX-License-Identifier: MIT */
/* The messages that are encoded and decoded by hand, against protobuf-c: the same bytes, the same values, and never a value of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/soft/quick.h"
#include "proto/soft.pb-c.h"

enum { FRAME = 1 << 16 };

static uint64_t seed = 1;

static uint32_t chance(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

/* Zero, small, around a power of two, or as large as it gets. */
static uint64_t number(void)
{
	uint64_t power = 1ull << chance(64);

	switch (chance(5)) {
	case 0: return 0;
	case 1: return chance(300);
	case 2: return power - 1;
	case 3: return power;
	default: return UINT64_MAX - chance(2);
	}
}

static struct quick_request random_request(void)
{
	struct quick_request q = {.id = (uint32_t)number(), .drop = chance(2), .generation = (uint32_t)number(), .serial = number()};

	if (q.drop)
		return q;
	q.rights = (uint32_t)number();
	q.pd = number();
	q.door = number();
	q.iova = number();
	q.length = number();
	q.range.memory = number();
	q.range.offset = number();
	q.range.length = number();
	return q;
}

static size_t pack_request(uint8_t *buf, const struct quick_request *q)
{
	Soft__Request request = SOFT__REQUEST__INIT;
	Soft__AddTag add = SOFT__ADD_TAG__INIT;
	Soft__DropTag drop = SOFT__DROP_TAG__INIT;
	Soft__TagRange range = SOFT__TAG_RANGE__INIT, *ranges = &range;

	request.id = q->id;
	if (q->drop) {
		drop.serial = q->serial;
		drop.generation = q->generation;
		request.call_case = SOFT__REQUEST__CALL_DROP_TAG;
		request.drop_tag = &drop;
	} else {
		range.memory = q->range.memory;
		range.offset = q->range.offset;
		range.length = q->range.length;
		add.serial = q->serial;
		add.generation = q->generation;
		add.pd = q->pd;
		add.door = q->door;
		add.n_ranges = 1;
		add.ranges = &ranges;
		add.iova = q->iova;
		add.length = q->length;
		add.rights = q->rights;
		request.call_case = SOFT__REQUEST__CALL_ADD_TAG;
		request.add_tag = &add;
	}
	return soft__request__pack(&request, buf);
}

static struct quick_reply random_reply(void)
{
	struct quick_reply q = {.id = (uint32_t)number(), .result = (enum quick_result)chance(3)};

	if (q.result == QUICK_TAGS) {
		q.local_token = (uint32_t)number();
		q.remote_token = (uint32_t)number();
	}
	if (q.result == QUICK_DROPPED)
		q.streams_cut = (uint32_t)number();
	return q;
}

static size_t pack_reply(uint8_t *buf, const struct quick_reply *q)
{
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Tags tags = SOFT__TAGS__INIT;
	Soft__Dropped dropped = SOFT__DROPPED__INIT;

	reply.id = q->id;
	tags.local_token = q->local_token;
	tags.remote_token = q->remote_token;
	dropped.streams_cut = q->streams_cut;
	if (q->result == QUICK_TAGS) {
		reply.result_case = SOFT__REPLY__RESULT_TAGS;
		reply.tags = &tags;
	}
	if (q->result == QUICK_DROPPED) {
		reply.result_case = SOFT__REPLY__RESULT_DROPPED;
		reply.dropped = &dropped;
	}
	return soft__reply__pack(&reply, buf);
}

/* mutation: write a field that is 0, or in another order, or with another key */
static void test_same_bytes(void **state)
{
	for (unsigned i = 0; i < 100000; i++) {
		struct quick_request request = random_request();
		struct quick_reply reply = random_reply();
		uint8_t ours[QUICK_SIZE], theirs[2 * QUICK_SIZE];
		size_t n = quick_request_encode(ours, &request);

		assert_int_equal(n, pack_request(theirs, &request));
		assert_memory_equal(ours, theirs, n);
		n = quick_reply_encode(ours, &reply);
		assert_int_equal(n, pack_reply(theirs, &reply));
		assert_memory_equal(ours, theirs, n);
	}
}

/* ---- frames */

static size_t append(uint8_t *frame, size_t len, uint8_t key, const uint8_t *element, size_t size)
{
	frame[len] = key;
	frame[len + 1] = (uint8_t)size;   /* all are shorter than 128 */
	memcpy(frame + len + 2, element, size);
	return len + 2 + size;
}

static size_t random_requests(uint8_t *frame, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		struct quick_request request = random_request();
		uint8_t element[QUICK_SIZE];

		len = append(frame, len, 0x0a, element, quick_request_encode(element, &request));
	}
	return len;
}

static size_t random_replies(uint8_t *frame, unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		struct quick_reply reply = random_reply();
		uint8_t element[QUICK_SIZE];

		len = append(frame, len, 0x12, element, quick_reply_encode(element, &reply));
	}
	return len;
}

/* What was accepted is what protobuf-c reads in it. */
static void assert_requests(const uint8_t *frame, size_t len, const struct quick_request *q, unsigned n)
{
	Soft__Frame *f = soft__frame__unpack(NULL, len, frame);

	assert_non_null(f);
	assert_true(!f->n_replies && !f->n_events && !f->fatal);
	assert_int_equal(f->n_requests, n);
	for (unsigned i = 0; i < n; i++) {
		const Soft__Request *r = f->requests[i];

		assert_int_equal(r->id, q[i].id);
		assert_int_equal(r->fds, 0);
		if (q[i].drop) {
			assert_int_equal(r->call_case, SOFT__REQUEST__CALL_DROP_TAG);
			assert_true(r->drop_tag->serial == q[i].serial && r->drop_tag->generation == q[i].generation);
			continue;
		}
		assert_int_equal(r->call_case, SOFT__REQUEST__CALL_ADD_TAG);
		assert_true(r->add_tag->serial == q[i].serial && r->add_tag->generation == q[i].generation);
		assert_true(r->add_tag->pd == q[i].pd && r->add_tag->door == q[i].door && r->add_tag->iova == q[i].iova);
		assert_true(r->add_tag->length == q[i].length && r->add_tag->rights == q[i].rights);
		assert_int_equal(r->add_tag->n_ranges, 1);
		assert_true(r->add_tag->ranges[0]->memory == q[i].range.memory);
		assert_true(r->add_tag->ranges[0]->offset == q[i].range.offset);
		assert_true(r->add_tag->ranges[0]->length == q[i].range.length);
	}
	soft__frame__free_unpacked(f, NULL);
}

static void assert_replies(const uint8_t *frame, size_t len, const struct quick_reply *q, unsigned n)
{
	Soft__Frame *f = soft__frame__unpack(NULL, len, frame);

	assert_non_null(f);
	assert_true(!f->n_requests && !f->n_events && !f->fatal);
	assert_int_equal(f->n_replies, n);
	for (unsigned i = 0; i < n; i++) {
		const Soft__Reply *r = f->replies[i];

		assert_int_equal(r->id, q[i].id);
		assert_true(!r->reason && !r->limit && !r->observed && !r->provider_error);
		switch (q[i].result) {
		case QUICK_NOTHING:
			assert_int_equal(r->result_case, SOFT__REPLY__RESULT__NOT_SET);
			break;
		case QUICK_TAGS:
			assert_int_equal(r->result_case, SOFT__REPLY__RESULT_TAGS);
			assert_true(r->tags->local_token == q[i].local_token && r->tags->remote_token == q[i].remote_token);
			break;
		case QUICK_DROPPED:
			assert_int_equal(r->result_case, SOFT__REPLY__RESULT_DROPPED);
			assert_int_equal(r->dropped->streams_cut, q[i].streams_cut);
			break;
		}
	}
	soft__frame__free_unpacked(f, NULL);
}

static void test_good_frames(void **state)
{
	static struct quick_request requests[NICD_FRAME_REQUESTS];
	static struct quick_reply replies[NICD_FRAME_REQUESTS];
	static uint8_t frame[FRAME];

	for (unsigned n = 1; n <= NICD_FRAME_REQUESTS; n += n < 4 ? 1 : 63) {
		size_t len = random_requests(frame, n);

		/* mutation: give up where there is no reason to */
		assert_int_equal(quick_requests_decode(frame, len, requests), n);
		assert_requests(frame, len, requests, n);
		assert_int_equal(quick_replies_decode(frame, len, replies), 0);
		len = random_replies(frame, n);
		assert_int_equal(quick_replies_decode(frame, len, replies), n);
		assert_replies(frame, len, replies, n);
		assert_int_equal(quick_requests_decode(frame, len, requests), 0);
	}
	/* mutation: write beyond the array at the 257th */
	assert_int_equal(quick_requests_decode(frame, random_requests(frame, 257), requests), 0);
	assert_int_equal(quick_replies_decode(frame, random_replies(frame, 257), replies), 0);
	assert_int_equal(quick_requests_decode(frame, 0, requests), 0);
}

/* Changes, drops and doubles bytes of a good frame; also takes numbers out of their range and cuts the end off. */
static size_t spoil(uint8_t *frame, size_t len)
{
	for (unsigned i = chance(4) + 1; i > 0 && len > 1; i--) {
		size_t at = chance((uint32_t)len);

		switch (chance(5)) {
		case 0: frame[at] = (uint8_t)chance(256); break;
		case 1: frame[at] ^= (uint8_t)(1u << chance(8)); break;
		case 2: memmove(frame + at, frame + at + 1, --len - at); break;
		case 3: memmove(frame + at + 1, frame + at, len++ - at); break;
		case 4: len = chance(4) ? len : at + 1; break;
		}
	}
	return len;
}

static void test_spoiled_frames(void **state)
{
	static struct quick_request requests[NICD_FRAME_REQUESTS];
	static struct quick_reply replies[NICD_FRAME_REQUESTS];
	unsigned accepted = 0, given_up = 0;

	for (unsigned i = 0; i < 300000; i++) {
		uint8_t room[4 * QUICK_SIZE], *frame;
		bool asks = chance(2);
		unsigned n = chance(3) + 1;
		size_t len = spoil(room, asks ? random_requests(room, n) : random_replies(room, n));

		/* At the end of what may be read, so that the sanitizer sees a byte too many. */
		frame = malloc(len);
		memcpy(frame, room, len);
		n = asks ? quick_requests_decode(frame, len, requests) : quick_replies_decode(frame, len, replies);
		/* mutation: leave out the check of a length, or of a message's end */
		/* mutation: take the last of two messages, where protobuf merges them */
		/* mutation: cut a number to 32 bits, or shift it too far */
		if (n && asks)
			assert_requests(frame, len, requests, n);
		else if (n)
			assert_replies(frame, len, replies, n);
		accepted += n > 0;
		given_up += n == 0;
		free(frame);
	}
	/* Both happen, or nothing was tested. */
	assert_true(accepted > 30000 && given_up > 30000);
}

static void test_gives_up(void **state)
{
	static struct quick_request requests[NICD_FRAME_REQUESTS];
	static const struct {
		const char *bytes;
		size_t len;
	} frames[] = {
#define BYTES(s) {s, sizeof(s) - 1}
		BYTES("\x0a\x02\x08\x01"),                                   /* no call */
		BYTES("\x0a\x04\x08\x01\x6a\x00"),                           /* a tag without a range */
		BYTES("\x0a\x08\x08\x01\x6a\x04\x2a\x00\x2a\x00"),           /* with two */
		BYTES("\x0a\x06\x08\x01\x72\x00\x72\x00"),                   /* two calls */
		BYTES("\x0a\x06\x08\x01\x10\x01\x72\x00"),                   /* descriptors */
		BYTES("\x0a\x04\x08\x01\x52\x00"),                           /* another call */
		BYTES("\x0a\x05\x08\x01\x72\x00\x70"),                       /* a key and no more */
		BYTES("\x0a\x08\x08\x80\x80\x80\x80\x10\x72\x00"),           /* an id of 33 bits */
		BYTES("\x0a\x04\x08\x01\x72\x00\x22\x00"),                   /* and a Fatal */
		BYTES("\x0a\x85\x80\x80\x80\x80\x80\x80\x80\x80\x01\x08\x01\x72\x00"),   /* a length of 64 bits */
		BYTES("\x0a\x0d\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02\x72\x00"),   /* a number of 65 */
	};

	for (unsigned i = 0; i < sizeof(frames) / sizeof(frames[0]); i++)
		/* mutation: skip what is not known */
		assert_int_equal(quick_requests_decode((const uint8_t *)frames[i].bytes, frames[i].len, requests), 0);
	/* And one that is good, so that the bytes above are wrong for their own reason. */
	assert_int_equal(quick_requests_decode((const uint8_t *)"\x0a\x04\x08\x01\x72\x00", 6, requests), 1);
	assert_int_equal(quick_requests_decode((const uint8_t *)"\x0a\x06\x08\x01\x6a\x02\x2a\x00", 8, requests), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_bytes),
		cmocka_unit_test(test_good_frames),
		cmocka_unit_test(test_spoiled_frames),
		cmocka_unit_test(test_gives_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
