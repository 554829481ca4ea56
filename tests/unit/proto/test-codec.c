/* SPDX-License-Identifier: MIT */
/*
 * The fast path against protobuf-c: random messages of both protocols, packed and unpacked by both, and the same
 * damaged. Where the fast path answers at all, it must answer what protobuf-c answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/codec.h"
#include "proto/nicd.pb-c.h"
#include "proto/soft.pb-c.h"

enum { ROUNDS = 4000, ROOM = 1 << 17 };

static uint64_t state;

/* splitmix64 */
static uint64_t draw(void)
{
	uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

/* Often small, often at the edge of a varint's length. */
static uint64_t draw_number(void)
{
	return draw() >> draw() % 64;
}

static ProtobufCMessage *random_message(const ProtobufCMessageDescriptor *d, unsigned depth);

static void random_single(const ProtobufCFieldDescriptor *f, void *member, unsigned depth)
{
	size_t len = draw() % 200;
	char *text;

	switch (f->type) {
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)member = draw_number();
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)member = draw() % 2;
		break;
	case PROTOBUF_C_TYPE_STRING:
		text = malloc(len + 1);
		memset(text, 'x', len);
		text[len] = 0;
		*(char **)member = text;
		break;
	case PROTOBUF_C_TYPE_BYTES:
		*(ProtobufCBinaryData *)member = (ProtobufCBinaryData){ len, len ? calloc(1, len) : NULL };
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)member = random_message(f->descriptor, depth + 1);
		break;
	default:
		*(uint32_t *)member = (uint32_t)draw_number();
		break;
	}
}

static void random_repeated(const ProtobufCFieldDescriptor *f, size_t *n, void *member, unsigned depth)
{
	size_t size = f->type == PROTOBUF_C_TYPE_FIXED32 ? 4 : 8;
	uint8_t *array;

	*n = draw() % (depth == 0 ? 6 : 4);
	array = calloc(*n + 1, size);
	for (size_t i = 0; i < *n; i++)
		random_single(f, array + i * size, depth);
	*(void **)member = array;
}

static ProtobufCMessage *random_message(const ProtobufCMessageDescriptor *d, unsigned depth)
{
	ProtobufCMessage *m = malloc(d->sizeof_message);
	uint8_t *at = (uint8_t *)m;

	d->message_init(m);
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];

		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			uint32_t *which = (uint32_t *)(at + f->quantifier_offset);

			if (*which || draw() % d->n_fields)
				continue;
			*which = f->id;
			random_single(f, at + f->offset, depth);
		} else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			random_repeated(f, (size_t *)(at + f->quantifier_offset), at + f->offset, depth);
		} else if (draw() % 3) {
			random_single(f, at + f->offset, depth);
		}
	}
	return m;
}

static const ProtobufCMessageDescriptor *const envelopes[] = { &nicd__frame__descriptor, &soft__frame__descriptor };

static void assert_same(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	static uint8_t x[ROOM], y[ROOM];
	size_t n = protobuf_c_message_get_packed_size(a);

	assert_true(n <= ROOM);
	assert_int_equal(n, protobuf_c_message_get_packed_size(b));
	protobuf_c_message_pack(a, x);
	protobuf_c_message_pack(b, y);
	assert_memory_equal(x, y, n);
}

/* mutation: in pack_number drop `&& !always` (a oneof's zero vanishes), or drop the memmove of pack_message */
static void test_packs_the_same_bytes(void **data)
{
	static uint8_t fast[ROOM + 8], slow[ROOM];

	for (unsigned i = 0; i < ROUNDS; i++) {
		ProtobufCMessage *m = random_message(envelopes[i % 2], 0);
		size_t n = protobuf_c_message_pack(m, slow);
		ssize_t len = codec_pack_element(2, m, fast, sizeof(fast));
		size_t head = 1, rest = n;

		assert_true(len > 0);
		for (; rest > 0x7f; rest >>= 7)
			head++;
		head++;
		assert_int_equal(len, head + n);
		assert_int_equal(fast[0], 2 << 3 | 2);
		assert_memory_equal(fast + head, slow, n);
		protobuf_c_message_free_unpacked(m, NULL);
	}
}

/* mutation: in put, drop the check of the room (AddressSanitizer tells) */
static void test_never_writes_beyond_its_room(void **data)
{
	for (unsigned i = 0; i < 300; i++) {
		ProtobufCMessage *m = random_message(envelopes[i % 2], 0);
		size_t n = protobuf_c_message_get_packed_size(m);

		for (unsigned j = 0; j < 20; j++) {
			size_t room = draw() % (n + 4);
			uint8_t *to = malloc(room + 1);

			if (room < n)
				assert_int_equal(codec_pack_element(2, m, to, room), -1);
			free(to);
		}
		protobuf_c_message_free_unpacked(m, NULL);
	}
}

/* mutation: in unpack_number, SINT32 without the zigzag; in find, an off-by-one of the ranges */
static void test_unpacks_the_same_message(void **data)
{
	static uint8_t bytes[ROOM];
	struct arena arena;

	assert_int_equal(arena_init(&arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		ProtobufCMessage *m = random_message(envelopes[i % 2], 0), *again;
		size_t n = protobuf_c_message_pack(m, bytes);

		again = codec_unpack(envelopes[i % 2], &arena, bytes, n);
		assert_non_null(again);
		assert_same(m, again);
		arena_reset(&arena);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	arena_deinit(&arena);
}

static void damage(uint8_t *bytes, size_t *n)
{
	switch (draw() % 4) {
	case 0:
		*n = draw() % (*n + 1);
		break;
	case 1:
		bytes[draw() % *n] ^= (uint8_t)(1u << draw() % 8);
		break;
	case 2:
		bytes[draw() % *n] = (uint8_t)draw();
		break;
	default:   /* a piece again: fields twice, oneofs with two members */
		memmove(bytes + *n, bytes, *n / 2);
		*n += *n / 2;
		break;
	}
}

/*
 * mutation: in unpack_single, let the second of a oneof or a sub-message replace the first; in unpack_packed, forget
 * *n; in unpack, ignore unknown fields; in take_piece, forget to compare the length
 */
static void test_agrees_on_damaged_messages(void **data)
{
	static uint8_t bytes[2 * ROOM];
	struct arena arena;
	unsigned agreed = 0;

	assert_int_equal(arena_init(&arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		const ProtobufCMessageDescriptor *d = envelopes[i % 2];
		ProtobufCMessage *m = random_message(d, 0), *fast, *slow;
		size_t n = protobuf_c_message_pack(m, bytes);

		protobuf_c_message_free_unpacked(m, NULL);
		for (unsigned k = draw() % 3; n && k < 3; k++)
			damage(bytes, &n);
		if (n > ROOM)
			continue;
		/* A buffer of exactly that size, so that reading beyond it is seen. */
		uint8_t *exact = malloc(n + !n);
		memcpy(exact, bytes, n);
		fast = codec_unpack(d, &arena, exact, n);
		/* Else protobuf-c cuts a string where damage put a NUL. Never reaches beyond the bytes either. */
		codec_expose_nuls(d, exact, n);
		if (fast) {
			slow = protobuf_c_message_unpack(d, NULL, n, exact);
			assert_non_null(slow);
			assert_same(slow, fast);
			protobuf_c_message_free_unpacked(slow, NULL);
			agreed++;
		}
		free(exact);
		arena_reset(&arena);
	}
	assert_true(agreed > ROUNDS / 20);
	arena_deinit(&arena);
}

/* Keys and lengths with zeros behind them: five bytes are taken by both, six by neither. */
static void test_agrees_on_long_prefixes(void **data)
{
	/* mutation: in take_prefix, ten bytes as for any number */
	static const struct {
		uint8_t bytes[12];
		size_t len;
		bool good;
	} cases[] = {
		{ { 0x0a, 0x80, 0x80, 0x80, 0x80, 0x00 }, 6, true },
		{ { 0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 }, 7, false },
		{ { 0x8a, 0x80, 0x80, 0x80, 0x00, 0x00 }, 6, true },
		{ { 0x8a, 0x80, 0x80, 0x80, 0x80, 0x00, 0x00 }, 7, false },
	};
	struct arena arena;

	assert_int_equal(arena_init(&arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS), 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ProtobufCMessage *slow = protobuf_c_message_unpack(envelopes[0], NULL, cases[i].len, cases[i].bytes);

		assert_int_equal(codec_unpack(envelopes[0], &arena, cases[i].bytes, cases[i].len) != NULL, cases[i].good);
		assert_int_equal(slow != NULL, cases[i].good);
		protobuf_c_message_free_unpacked(slow, NULL);
	}
	arena_deinit(&arena);
}

static int seed(void **data)
{
	state = 20261120;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_packs_the_same_bytes, seed),
		cmocka_unit_test_setup(test_never_writes_beyond_its_room, seed),
		cmocka_unit_test_setup(test_unpacks_the_same_message, seed),
		cmocka_unit_test_setup(test_agrees_on_damaged_messages, seed),
		cmocka_unit_test(test_agrees_on_long_prefixes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
