/* SPDX-License-Identifier: MIT */
/* MPA frames against literal bytes, and against bytes that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/soft/mpa.h"

/* What a stock siw client sends: revision 2, enhanced, IRD and ORD 128, no private data of the user. */
static const uint8_t siw_request[] = "MPA ID Req Frame\x10\x02\x00\x04\x00\x80\x00\x80";
/* A patched one: CRC, its private GSO bit, peer to peer with an empty write; eight bytes of the user's. */
static const uint8_t siw_p2p[] = "MPA ID Req Frame\x58\x02\x00\x0c\x80\x80\x80\x80ticket!!";
static const uint8_t plain_reply[] = "MPA ID Rep Frame\x00\x01\x00\x03" "abc";

#define SIZE(array) (sizeof(array) - 1)

static void test_request(void **state)
{
	struct mpa_frame f;
	size_t used;

	assert_int_equal(mpa_decode(siw_request, SIZE(siw_request), false, &f, &used), MPA_DONE);
	assert_int_equal(used, SIZE(siw_request));
	assert_int_equal(f.revision, 2);
	assert_true(f.enhanced);
	assert_false(f.crc || f.markers || f.reject || f.peer_to_peer);
	assert_int_equal(f.ird, 128);
	assert_int_equal(f.ord, 128);
	assert_int_equal(f.pd_len, 0);
}

static void test_request_with_everything(void **state)
{
	struct mpa_frame f;
	size_t used;

	assert_int_equal(mpa_decode(siw_p2p, SIZE(siw_p2p), false, &f, &used), MPA_DONE);
	assert_true(f.enhanced && f.crc && f.peer_to_peer && f.rtr_write && f.large);
	/* mutation: swap the bits of IRD and ORD */
	assert_false(f.rtr_read || f.rtr_send || f.markers || f.reject);
	assert_int_equal(f.ird, 128);
	assert_int_equal(f.pd_len, 8);
	assert_memory_equal(f.pd, "ticket!!", 8);
}

static void test_reply_of_revision_1(void **state)
{
	struct mpa_frame f;
	size_t used;

	assert_int_equal(mpa_decode(plain_reply, SIZE(plain_reply), true, &f, &used), MPA_DONE);
	assert_int_equal(f.revision, 1);
	assert_false(f.enhanced);
	assert_int_equal(f.pd_len, 3);
	/* mutation: accept either key */
	assert_int_equal(mpa_decode(plain_reply, SIZE(plain_reply), false, &f, &used), MPA_GARBAGE);
}

/* Every prefix asks for more; nothing behind the frame is taken. */
static void test_prefixes(void **state)
{
	uint8_t longer[SIZE(siw_p2p) + 5];
	struct mpa_frame f;
	size_t used;

	/* mutation: decode before all of the private data is there */
	for (size_t n = 0; n < SIZE(siw_p2p); n++) {
		uint8_t *exact = malloc(n ? n : 1);

		memcpy(exact, siw_p2p, n);
		assert_int_equal(mpa_decode(exact, n, false, &f, &used), MPA_MORE);
		free(exact);
	}
	memcpy(longer, siw_p2p, SIZE(siw_p2p));
	assert_int_equal(mpa_decode(longer, sizeof(longer), false, &f, &used), MPA_DONE);
	assert_int_equal(used, SIZE(siw_p2p));
}

static enum mpa_result decode_patched(size_t at, uint8_t value)
{
	uint8_t buf[MPA_FRAME_HEADER + MPA_PD_MAX + 8] = {0};
	struct mpa_frame f;
	size_t used;

	memcpy(buf, siw_p2p, SIZE(siw_p2p));
	buf[at] = value;
	return mpa_decode(buf, sizeof(buf), false, &f, &used);
}

static void test_out_of_range(void **state)
{
	/* mutation: no limit for PD_Length */
	assert_int_equal(decode_patched(18, 0x02), MPA_GARBAGE);    /* 0x20c */
	assert_int_equal(decode_patched(18, 0xff), MPA_GARBAGE);
	assert_int_equal(decode_patched(18, 0x01), MPA_DONE);       /* 0x10c */
	/* mutation: any revision will do */
	assert_int_equal(decode_patched(17, 0), MPA_GARBAGE);
	assert_int_equal(decode_patched(17, 3), MPA_GARBAGE);
	assert_int_equal(decode_patched(17, 1), MPA_DONE);
	assert_int_equal(decode_patched(0, 'N'), MPA_GARBAGE);
	assert_int_equal(decode_patched(15, 'f'), MPA_GARBAGE);
	/* The frame that siw sends when its user has 252 bytes or more. mutation: read the four bytes that are not there */
	for (uint8_t n = 0; n < 4; n++)
		assert_int_equal(decode_patched(19, n), MPA_MALFORMED);
	assert_int_equal(decode_patched(19, 4), MPA_DONE);
}

static void test_encode(void **state)
{
	const struct mpa_frame request = {
		.revision = 2, .enhanced = true, .crc = true, .large = true, .peer_to_peer = true, .rtr_write = true,
		.ird = 128, .ord = 128, .pd = (const uint8_t *)"ticket!!", .pd_len = 8,
	};
	const struct mpa_frame reply = {.reply = true, .revision = 1, .pd = (const uint8_t *)"abc", .pd_len = 3};
	const struct mpa_frame reject = {.reply = true, .revision = 2, .enhanced = true, .reject = true};
	uint8_t buf[600];

	assert_int_equal(mpa_encode(buf, sizeof(buf), &request), SIZE(siw_p2p));
	assert_memory_equal(buf, siw_p2p, SIZE(siw_p2p));
	assert_int_equal(mpa_encode(buf, sizeof(buf), &reply), SIZE(plain_reply));
	assert_memory_equal(buf, plain_reply, SIZE(plain_reply));
	assert_int_equal(mpa_encode(buf, sizeof(buf), &reject), 24);
	assert_memory_equal(buf, "MPA ID Rep Frame\x30\x02\x00\x04\0\0\0", 24);
	/* mutation: write without room */
	assert_int_equal(mpa_encode(buf, SIZE(siw_p2p) - 1, &request), 0);
}

static void test_never_more_than_252(void **state)
{
	const uint8_t pd[253] = {0};
	struct mpa_frame reply = {.reply = true, .revision = 2, .enhanced = true, .pd = pd, .pd_len = 252};
	uint8_t buf[600];

	assert_int_equal(mpa_encode(buf, sizeof(buf), &reply), MPA_FRAME_HEADER + 256);
	reply.pd_len = 253;
	/* mutation: 512 as the RFC allows */
	assert_int_equal(mpa_encode(buf, sizeof(buf), &reply), 0);
}

static void test_fpdu_sizes(void **state)
{
	/* Length field, ULPDU and pad are a multiple of 4; siw's Read Request is 52 bytes, a full Ethernet frame 1448. */
	assert_int_equal(fpdu_size(46), 52);
	assert_int_equal(fpdu_size(14 + 1428), 1448);
	assert_int_equal(fpdu_pad(14), 0);
	assert_int_equal(fpdu_pad(15), 3);
	assert_int_equal(fpdu_pad(17), 1);
	assert_int_equal(fpdu_size(FPDU_ULPDU_MAX), FPDU_MAX - 3 + fpdu_pad(FPDU_ULPDU_MAX));
}

static void test_crc(void **state)
{
	uint8_t frame[13] = "123456789";

	/* The check value of CRC-32C is 0xe3069283; MPA stores it least significant byte first. mutation: big-endian */
	fpdu_crc_put(frame + 9, fpdu_crc(FPDU_CRC_START, frame, 9));
	assert_memory_equal(frame + 9, "\x83\x92\x06\xe3", 4);
	assert_true(fpdu_crc_ok(frame, sizeof(frame)));
	/* In pieces it is the same. */
	fpdu_crc_put(frame + 9, fpdu_crc(fpdu_crc(fpdu_crc(FPDU_CRC_START, frame, 4), frame, 0), frame + 4, 5));
	assert_true(fpdu_crc_ok(frame, sizeof(frame)));
	for (size_t bit = 0; bit < 8 * sizeof(frame); bit++) {
		frame[bit / 8] ^= 1 << bit % 8;
		assert_false(fpdu_crc_ok(frame, sizeof(frame)));
		frame[bit / 8] ^= 1 << bit % 8;
	}
}

static uint64_t seed;
static uint64_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* Frames with a few bytes changed and cut anywhere, in buffers of exactly their size for AddressSanitizer to watch. */
static void test_mutations(void **state)
{
	enum { ROUNDS = 1000000 };
	unsigned done = 0;

	seed = 88172645463325252u;
	for (int i = 0; i < ROUNDS; i++) {
		bool p2p = draw() % 2;
		const uint8_t *from = p2p ? siw_p2p : siw_request;
		size_t size = p2p ? SIZE(siw_p2p) : SIZE(siw_request), len = draw() % 4 ? size : draw() % (size + 1);
		uint8_t *buf = malloc(len ? len : 1);
		struct mpa_frame f;
		size_t used = 0;

		memcpy(buf, from, len);
		for (uint64_t n = draw() % 4; n && len; n--)
			buf[draw() % 2 || len < 20 ? draw() % len : 16 + draw() % 4] = draw();
		if (mpa_decode(buf, len, draw() % 8 == 0, &f, &used) == MPA_DONE) {
			done++;
			assert_true(used <= len && f.pd >= buf && f.pd + f.pd_len == buf + used);
			assert_true(f.pd_len <= MPA_PD_MAX && f.ird <= 0x3fff && f.ord <= 0x3fff);
		}
		free(buf);
	}
	assert_true(done > ROUNDS / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_request_with_everything),
		cmocka_unit_test(test_reply_of_revision_1),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_never_more_than_252),
		cmocka_unit_test(test_fpdu_sizes),
		cmocka_unit_test(test_crc),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
