/* SPDX-License-Identifier: MIT */
/*
 * The fast path of the encoding against protobuf-c: where it takes bytes, protobuf-c takes them for the same message,
 * and what both write is the same.
 */
#include "proto/codec.h"
#include "proto/nicd.pb-c.h"
#include "proto/soft.pb-c.h"
#include "tests/fuzz/input.h"

enum { INPUT_MAX = NICD_FRAME_MAX, ROOM = 4 * NICD_FRAME_MAX };

static const ProtobufCMessageDescriptor *const envelopes[] = { &nicd__frame__descriptor, &soft__frame__descriptor };

static void compare(const ProtobufCMessage *fast, const ProtobufCMessage *slow)
{
	static uint8_t a[ROOM], b[ROOM], element[ROOM + 16];
	size_t n = protobuf_c_message_get_packed_size(slow);
	ssize_t len;

	/* Numbers and keys may come shorter than they are written, never so much longer. */
	must(n <= ROOM && protobuf_c_message_get_packed_size(fast) == n);
	protobuf_c_message_pack(fast, a);
	protobuf_c_message_pack(slow, b);
	must(!memcmp(a, b, n));
	len = codec_pack_element(1, slow, element, sizeof(element));
	must(len < 0 || ((size_t)len > n && !memcmp(element + len - n, b, n)));
	/* Nothing is written where there is no room: what stands behind it is the sanitizer's. */
	if (n) {
		uint8_t *tight = malloc(n);

		must(codec_pack_element(1, slow, tight, n) < 0);
		free(tight);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct arena arena;
	const ProtobufCMessageDescriptor *d;
	ProtobufCMessage *fast, *slow;
	uint8_t *exact;

	if (!size || size > INPUT_MAX)
		return 0;
	if (!arena.mem)
		must(arena_init(&arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS) == 0);
	arena_reset(&arena);
	d = envelopes[data[0] % 2];
	exact = malloc(size);
	memcpy(exact, data + 1, --size);
	fast = codec_unpack(d, &arena, exact, size);
	codec_expose_nuls(d, exact, size);
	slow = protobuf_c_message_unpack(d, NULL, size, exact);
	if (fast) {
		must(slow);
		compare(fast, slow);
	}
	if (slow)
		protobuf_c_message_free_unpacked(slow, NULL);
	free(exact);
	return 0;
}
