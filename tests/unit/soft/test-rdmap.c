/* SPDX-License-Identifier: MIT */
/* DDP and RDMAP headers against literal bytes, and against bytes that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/soft/rdmap.h"

/* ULPDUs, without MPA's length. */
static const uint8_t write_last[14] = {0xc1, 0x40, 1, 2, 3, 4, 0, 0, 0, 0x10, 0, 0, 0x20, 0x30};
static const uint8_t response_more[14] = {0x81, 0x42, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0};
static const uint8_t read_request[46] = {
	0x41, 0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0,
	0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 1, 2, 3, 4, 0, 0, 0, 0x10, 0, 0, 0x20, 0x30,
};
static const uint8_t send_invalidate[18] = {0x41, 0x44, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0};

static void test_write(void **state)
{
	struct rdmap_header h;
	uint8_t buf[DDP_UNTAGGED_SIZE];

	assert_int_equal(rdmap_decode(write_last, sizeof(write_last), 114, &h), RDMAP_FINE);
	assert_true(h.tagged && h.last);
	assert_int_equal(h.opcode, RDMAP_WRITE);
	assert_int_equal(h.size, DDP_TAGGED_SIZE);
	assert_int_equal(h.stag, 0x01020304);
	/* mutation: read TO as little-endian */
	assert_int_equal(h.to, UINT64_C(0x1000002030));
	assert_int_equal(rdmap_encode(buf, &h), DDP_TAGGED_SIZE);
	assert_memory_equal(buf, write_last, DDP_TAGGED_SIZE);
}

static void test_response(void **state)
{
	struct rdmap_header h;
	uint8_t buf[DDP_UNTAGGED_SIZE];

	assert_int_equal(rdmap_decode(response_more, sizeof(response_more), 1442, &h), RDMAP_FINE);
	assert_int_equal(h.opcode, RDMAP_READ_RESPONSE);
	assert_false(h.last);
	assert_int_equal(rdmap_encode(buf, &h), DDP_TAGGED_SIZE);
	assert_memory_equal(buf, response_more, DDP_TAGGED_SIZE);
}

static void test_read_request(void **state)
{
	struct rdmap_header h;
	struct rdmap_read r;
	uint8_t buf[RDMAP_READ_ULPDU];

	assert_int_equal(rdmap_decode(read_request, sizeof(read_request), sizeof(read_request), &h), RDMAP_FINE);
	assert_int_equal(h.queue, QUEUE_READ);
	assert_int_equal(h.msn, 9);
	rdmap_read_decode(read_request + DDP_UNTAGGED_SIZE, &r);
	assert_int_equal(r.sink_stag, 0xdeadbeef);
	assert_int_equal(r.size, 4096);
	assert_int_equal(r.source_stag, 0x01020304);
	assert_int_equal(r.source_to, UINT64_C(0x1000002030));
	assert_int_equal(rdmap_encode(buf, &h), DDP_UNTAGGED_SIZE);
	rdmap_read_encode(buf + DDP_UNTAGGED_SIZE, &r);
	assert_memory_equal(buf, read_request, sizeof(buf));
}

static enum rdmap_code decode_patched(const uint8_t *from, size_t size, size_t at, uint8_t value)
{
	struct rdmap_header h;
	uint8_t buf[64];

	memcpy(buf, from, size);
	buf[at] = value;
	return rdmap_decode(buf, size, size, &h);
}

static void test_refused(void **state)
{
	struct rdmap_header h;

	/* mutation: any DDP version */
	assert_int_equal(decode_patched(write_last, 14, 0, 0xc0), DDP_E_VERSION);
	assert_int_equal(decode_patched(write_last, 14, 0, 0xc2), DDP_E_VERSION);
	assert_int_equal(decode_patched(read_request, 46, 0, 0x42), DDP_E_UNTAGGED_VERSION);
	/* mutation: any RDMAP version */
	assert_int_equal(decode_patched(write_last, 14, 1, 0x00), RDMAP_E_VERSION);
	assert_int_equal(decode_patched(write_last, 14, 1, 0x80), RDMAP_E_VERSION);
	/* mutation: do not compare opcode and T bit */
	assert_int_equal(decode_patched(write_last, 14, 1, 0x41), RDMAP_E_OPCODE);
	assert_int_equal(decode_patched(read_request, 46, 1, 0x40), RDMAP_E_OPCODE);
	for (uint8_t opcode = 8; opcode < 16; opcode++)
		assert_int_equal(decode_patched(read_request, 46, 1, 0x40 | opcode), RDMAP_E_OPCODE);
	/* mutation: any queue */
	assert_int_equal(decode_patched(read_request, 46, 9, 3), DDP_E_QUEUE);
	assert_int_equal(decode_patched(read_request, 46, 6, 1), DDP_E_QUEUE);
	assert_int_equal(decode_patched(read_request, 46, 9, 2), RDMAP_E_OPCODE);
	assert_int_equal(decode_patched(read_request, 46, 9, 0), RDMAP_E_OPCODE);
	assert_int_equal(rdmap_decode(send_invalidate, 18, 18, &h), RDMAP_FINE);
	assert_int_equal(h.stag, 0x01020304);
}

static void test_short(void **state)
{
	struct rdmap_header h;

	for (size_t n = 0; n < DDP_TAGGED_SIZE; n++) {
		uint8_t *exact = malloc(n ? n : 1);

		memcpy(exact, write_last, n);
		assert_int_equal(rdmap_decode(exact, n, 100, &h), RDMAP_MORE);
		/* mutation: trust that a ULPDU holds its header */
		assert_int_equal(rdmap_decode(exact, n, n, &h), DDP_E_CATASTROPHIC);
		free(exact);
	}
	for (size_t n = 2; n < DDP_UNTAGGED_SIZE; n++) {
		uint8_t *exact = malloc(n);

		memcpy(exact, read_request, n);
		assert_int_equal(rdmap_decode(exact, n, 46, &h), RDMAP_MORE);
		assert_int_equal(rdmap_decode(exact, n, n, &h), DDP_E_CATASTROPHIC);
		free(exact);
	}
}

static void test_terminate_of_a_read(void **state)
{
	struct rdmap_terminate t = {.code = RDMAP_E_STAG, .has_header = true, .has_read = true, .ulpdu = 46}, back;
	uint8_t buf[RDMAP_TERMINATE_MAX];

	rdmap_decode(read_request, 46, 46, &t.header);
	rdmap_read_decode(read_request + DDP_UNTAGGED_SIZE, &t.read);
	assert_int_equal(rdmap_terminate_encode(buf, &t), RDMAP_TERMINATE_MAX);
	assert_memory_equal(buf, "\x41\x47\0\0\0\0\0\0\0\2\0\0\0\1\0\0\0\0", DDP_UNTAGGED_SIZE);
	/* What tshark shows as "Remote Protection Error / Invalid STag". mutation: siw's bit order */
	assert_memory_equal(buf + DDP_UNTAGGED_SIZE, "\x01\x00\xe0\x00\x00\x2e", 6);
	assert_memory_equal(buf + DDP_UNTAGGED_SIZE + 6, read_request, 46);
	assert_true(rdmap_terminate_decode(buf + DDP_UNTAGGED_SIZE, sizeof(buf) - DDP_UNTAGGED_SIZE, &back));
	assert_int_equal(back.code, RDMAP_E_STAG);
	assert_true(back.has_header && back.has_read);
	assert_int_equal(back.header.msn, 9);
	assert_int_equal(back.read.sink_stag, 0xdeadbeef);
}

static void test_terminate_of_a_write(void **state)
{
	struct rdmap_terminate t = {.code = DDP_E_BOUNDS, .has_header = true, .ulpdu = 114}, back;
	uint8_t buf[RDMAP_TERMINATE_MAX];
	size_t n;

	rdmap_decode(write_last, 14, 114, &t.header);
	n = rdmap_terminate_encode(buf, &t);
	assert_int_equal(n, 18 + 4 + 2 + 14);
	assert_memory_equal(buf + 18, "\x11\x01\xc0\x00\x00\x72", 6);
	assert_memory_equal(buf + 24, write_last, 14);
	assert_true(rdmap_terminate_decode(buf + 18, n - 18, &back));
	assert_int_equal(back.code, DDP_E_BOUNDS);
	assert_true(back.has_header);
	assert_false(back.has_read);
	assert_int_equal(back.header.to, UINT64_C(0x1000002030));
}

/* The four that were seen from siw: bit-fields the wrong way round. */
static void test_terminate_of_siw(void **state)
{
	static const struct {
		uint8_t bytes[4];
		enum rdmap_code code;
	} rows[] = {
		{{0x10, 0x00, 0x07, 0}, RDMAP_E_STAG},
		{{0x10, 0x01, 0x07, 0}, RDMAP_E_BOUNDS},
		{{0x11, 0x00, 0x03, 0}, DDP_E_STAG},
		{{0x02, 0x02, 0x00, 0}, MPA_E_CRC},
		/* and the RFC's */
		{{0x01, 0x00, 0xe0, 0}, RDMAP_E_STAG},
		{{0x11, 0x00, 0xc0, 0}, DDP_E_STAG},
		{{0x20, 0x02, 0x00, 0}, MPA_E_CRC},
		{{0x02, 0x05, 0x00, 0}, RDMAP_E_VERSION},
		{{0x12, 0x02, 0x00, 0}, DDP_E_NO_BUFFER},
	};
	struct rdmap_terminate t;

	/* mutation: read all in the RFC's order */
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(rdmap_terminate_decode(rows[i].bytes, 4, &t));
		assert_int_equal(t.code, rows[i].code);
		assert_false(t.has_header || t.has_read);
	}
	assert_false(rdmap_terminate_decode(rows[0].bytes, 3, &t));
}

static uint64_t seed;
static uint64_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* Headers and Terminates with a few bytes changed and cut anywhere, in buffers of exactly their size. */
static void test_mutations(void **state)
{
	enum { ROUNDS = 1000000 };
	static const struct {
		const uint8_t *bytes;
		size_t size;
	} seeds[] = {{write_last, 14}, {response_more, 14}, {read_request, 46}, {send_invalidate, 18}};
	struct rdmap_terminate term = {.code = RDMAP_E_STAG, .has_header = true, .has_read = true}, t;
	uint8_t terminate[RDMAP_TERMINATE_MAX];
	unsigned fine = 0, copies = 0;
	struct rdmap_header h;

	rdmap_decode(read_request, 46, 46, &term.header);
	rdmap_terminate_encode(terminate, &term);
	seed = 362436069;
	for (int i = 0; i < ROUNDS; i++) {
		bool is_term = draw() % 2;
		unsigned k = draw() % 4;
		size_t size = is_term ? 52 : seeds[k].size, len = draw() % 2 ? size : draw() % (size + 1);
		uint8_t *buf = malloc(len ? len : 1);

		memcpy(buf, is_term ? terminate + 18 : seeds[k].bytes, len);
		for (uint64_t n = draw() % 3; n && len; n--)
			buf[draw() % len] = draw();
		if (is_term) {
			rdmap_terminate_decode(buf, len, &t);
			assert_true(!t.has_read || t.has_header);
			copies += t.has_read;
		} else if (rdmap_decode(buf, len, len + draw() % 3, &h) == RDMAP_FINE) {
			fine++;
			assert_true(h.size <= len && h.opcode <= RDMAP_TERMINATE && (h.tagged || h.queue <= QUEUE_TERMINATE));
		}
		free(buf);
	}
	assert_true(fine > ROUNDS / 10);
	assert_true(copies > ROUNDS / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_response),
		cmocka_unit_test(test_read_request),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_terminate_of_a_read),
		cmocka_unit_test(test_terminate_of_a_write),
		cmocka_unit_test(test_terminate_of_siw),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
