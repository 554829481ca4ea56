/* SPDX-License-Identifier: MIT */
/*
 * One pass each way. Unpacking counts the elements of a repeated field when it meets the first one, so that its array
 * is taken once; packing leaves one byte for the length of a sub-message and moves it when it needs more. Recursion is
 * as deep as the schema, which has no recursive type (tests/proto/check-fields sees to that).
 */
#include <string.h>
#include <sys/types.h>

#include "proto/codec.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct input {
	const uint8_t *at, *end;
};

/* ---- in */

static inline bool take_number(struct input *in, uint64_t *ret, unsigned bits)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < bits && in->at < in->end; shift += 7) {
		uint8_t byte = *in->at++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return true;
		}
	}
	return false;
}

static inline bool take(struct input *in, void *to, size_t n)
{
	if ((size_t)(in->end - in->at) < n)
		return false;
	memcpy(to, in->at, n);
	in->at += n;
	return true;
}

static inline bool take_varint(struct input *in, uint64_t *ret)
{
	return take_number(in, ret, 64);
}

/* A key or a length: protobuf-c takes no more than five bytes for one, however many zeros are in them. */
static inline bool take_prefix(struct input *in, uint64_t *ret)
{
	return take_number(in, ret, 35);
}

/* A length, and the bytes that it promises. */
static inline bool take_piece(struct input *in, struct input *ret)
{
	uint64_t len;

	if (!take_prefix(in, &len) || len > (uint64_t)(in->end - in->at))
		return false;
	*ret = (struct input){ in->at, in->at + len };
	in->at += len;
	return true;
}

static bool skip(struct input *in, unsigned wire)
{
	struct input piece;
	uint64_t value;

	switch (wire) {
	case WIRE_VARINT:
		return take_varint(in, &value);
	case WIRE_64:
		return take(in, &value, 8);
	case WIRE_32:
		return take(in, &value, 4);
	case WIRE_BYTES:
		return take_piece(in, &piece);
	default:
		return false;
	}
}

/* How many elements of this field there are from here on. */
static size_t count(struct input in, uint64_t wanted)
{
	size_t n = 0;
	uint64_t key;

	while (in.at < in.end && take_prefix(&in, &key) && skip(&in, key & 7))
		n += key == wanted;
	return n;
}

static const ProtobufCFieldDescriptor *find(const ProtobufCMessageDescriptor *d, uint64_t id)
{
	unsigned low = 0, n = d->n_field_ranges;

	/* The ranges end with one more, whose orig_index is the number of fields. */
	while (n > 0) {
		unsigned middle = low + n / 2;
		const ProtobufCIntRange *range = &d->field_ranges[middle];

		if (id < (uint64_t)range->start_value) {
			n /= 2;
		} else if (id - (uint64_t)range->start_value >= range[1].orig_index - range->orig_index) {
			n -= n / 2 + 1;
			low = middle + 1;
		} else {
			return &d->fields[range->orig_index + (unsigned)(id - (uint64_t)range->start_value)];
		}
	}
	return NULL;
}

static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *d, struct arena *arena, struct input *in);

/*
 * What is behind a NUL would be hidden from everybody: as a byte that UTF-8 does not have it is seen by whoever checks
 * the text.
 */
static void expose_nuls(uint8_t *text, size_t len)
{
	uint8_t *nul;

	while ((nul = memchr(text, 0, len))) {
		*nul = 0xff;
		len -= (size_t)(nul - text);
		text = nul;
	}
}

static bool unpack_bytes(const ProtobufCFieldDescriptor *f, struct arena *arena, const struct input *piece, void *member)
{
	size_t len = (size_t)(piece->end - piece->at);
	bool text = f->type == PROTOBUF_C_TYPE_STRING;
	uint8_t *copy = NULL;

	if (text || len > 0) {
		copy = arena_alloc(arena, len + text);
		if (!copy)
			return false;
		memcpy(copy, piece->at, len);
	}
	if (text) {
		expose_nuls(copy, len);
		copy[len] = 0;
		*(char **)member = (char *)copy;
	} else {
		*(ProtobufCBinaryData *)member = (ProtobufCBinaryData){ len, copy };
	}
	return true;
}

static bool unpack_number(const ProtobufCFieldDescriptor *f, struct input *in, void *member)
{
	uint64_t value = 0;

	if (f->type == PROTOBUF_C_TYPE_FIXED64)
		return take(in, member, 8);
	if (f->type == PROTOBUF_C_TYPE_FIXED32)
		return take(in, member, 4);
	if (!take_varint(in, &value))
		return false;
	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)member = value;
		return true;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_ENUM:
		*(uint32_t *)member = (uint32_t)value;
		return true;
	case PROTOBUF_C_TYPE_SINT32:
		*(uint32_t *)member = (uint32_t)value >> 1 ^ -((uint32_t)value & 1);
		return true;
	case PROTOBUF_C_TYPE_BOOL:
		/* What is neither 0 nor 1 is protobuf-c's to judge. */
		*(protobuf_c_boolean *)member = value != 0;
		return value <= 1;
	default:
		return false;
	}
}

/* The wire type that this field has when an encoder writes it. */
static unsigned wire_of(const ProtobufCFieldDescriptor *f)
{
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return WIRE_BYTES;
	switch (f->type) {
	case PROTOBUF_C_TYPE_FIXED64:
		return WIRE_64;
	case PROTOBUF_C_TYPE_FIXED32:
		return WIRE_32;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE:
		return WIRE_BYTES;
	default:
		return WIRE_VARINT;
	}
}

static bool unpack_single(const ProtobufCFieldDescriptor *f, struct arena *arena, struct input *in, ProtobufCMessage *message)
{
	uint8_t *member = (uint8_t *)message + f->offset;
	struct input piece;

	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		uint32_t *which = (uint32_t *)((uint8_t *)message + f->quantifier_offset);

		if (*which)
			return false;   /* the second of a oneof */
		*which = f->id;
	}
	if (wire_of(f) != WIRE_BYTES)
		return unpack_number(f, in, member);
	if (!take_piece(in, &piece))
		return false;
	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return unpack_bytes(f, arena, &piece, member);
	if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(void **)member)
		return false;   /* twice: to be merged */
	return (*(ProtobufCMessage **)member = unpack(f->descriptor, arena, &piece)) != NULL;
}

static bool unpack_packed(const ProtobufCFieldDescriptor *f, struct arena *arena, struct input *in, size_t *n, void *array)
{
	size_t size = f->type == PROTOBUF_C_TYPE_FIXED64 ? 8 : f->type == PROTOBUF_C_TYPE_FIXED32 ? 4 : 0;
	struct input piece;

	if (!size || *n || !take_piece(in, &piece) || piece.at == piece.end || (size_t)(piece.end - piece.at) % size)
		return false;
	*n = (size_t)(piece.end - piece.at) / size;
	*(void **)array = arena_alloc(arena, *n * size);
	return *(void **)array && take(&piece, *(void **)array, *n * size);
}

static bool unpack_repeated(const ProtobufCFieldDescriptor *f, struct arena *arena, struct input *in, ProtobufCMessage *message,
			    uint64_t key)
{
	size_t *n = (size_t *)((uint8_t *)message + f->quantifier_offset);
	ProtobufCMessage ***array = (ProtobufCMessage ***)((uint8_t *)message + f->offset);
	struct input piece;

	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return unpack_packed(f, arena, in, n, array);
	if (!take_piece(in, &piece))
		return false;
	if (!*array) {
		*array = arena_alloc(arena, (1 + count(*in, key)) * sizeof(**array));
		if (!*array)
			return false;
	}
	(*array)[*n] = unpack(f->descriptor, arena, &piece);
	return (*array)[(*n)++] != NULL;
}

static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *d, struct arena *arena, struct input *in)
{
	ProtobufCMessage *message = arena_alloc(arena, d->sizeof_message);
	bool good = true;

	if (!message)
		return NULL;
	d->message_init(message);
	while (good && in->at < in->end) {
		const ProtobufCFieldDescriptor *f;
		uint64_t key;

		if (!take_prefix(in, &key) || !(f = find(d, key >> 3)) || wire_of(f) != (key & 7))
			return NULL;
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			good = unpack_repeated(f, arena, in, message, key);
		else
			good = unpack_single(f, arena, in, message);
	}
	return good ? message : NULL;
}

ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *descriptor, struct arena *arena, const uint8_t *data, size_t len)
{
	struct input in = { data, data + len };

	return unpack(descriptor, arena, &in);
}

void codec_expose_nuls(const ProtobufCMessageDescriptor *descriptor, uint8_t *data, size_t len)
{
	struct input in = { data, data + len }, piece;
	uint64_t key;

	while (in.at < in.end && take_prefix(&in, &key)) {
		const ProtobufCFieldDescriptor *f = (key & 7) == WIRE_BYTES ? find(descriptor, key >> 3) : NULL;

		if (!f ? !skip(&in, key & 7) : !take_piece(&in, &piece))
			return;
		if (f && f->type == PROTOBUF_C_TYPE_STRING)
			expose_nuls(data + (piece.at - data), (size_t)(piece.end - piece.at));
		else if (f && f->type == PROTOBUF_C_TYPE_MESSAGE)
			codec_expose_nuls(f->descriptor, data + (piece.at - data), (size_t)(piece.end - piece.at));
	}
}

/* ---- out */

struct output {
	uint8_t *at, *end;
};

static inline bool put_varint(struct output *out, uint64_t value)
{
	for (; out->at < out->end; value >>= 7) {
		if (value < 0x80) {
			*out->at++ = (uint8_t)value;
			return true;
		}
		*out->at++ = (uint8_t)value | 0x80;
	}
	return false;
}

static inline bool put(struct output *out, const void *from, size_t n)
{
	if ((size_t)(out->end - out->at) < n)
		return false;
	if (n)
		memcpy(out->at, from, n);
	out->at += n;
	return true;
}

static inline bool put_key(struct output *out, const ProtobufCFieldDescriptor *f)
{
	return put_varint(out, (uint64_t)f->id << 3 | wire_of(f));
}

static bool put_piece(struct output *out, const ProtobufCFieldDescriptor *f, const void *from, size_t n)
{
	return put_key(out, f) && put_varint(out, n) && put(out, from, n);
}

static bool pack(struct output *out, const ProtobufCMessage *message);

static bool pack_message(struct output *out, uint32_t id, const ProtobufCMessage *message)
{
	struct output len;
	uint8_t *start;
	size_t n, more = 0;

	if (!put_varint(out, (uint64_t)id << 3 | WIRE_BYTES) || out->at == out->end)
		return false;
	len = (struct output){ out->at, out->end };
	start = ++out->at;
	if (!pack(out, message))
		return false;
	n = (size_t)(out->at - start);
	for (size_t rest = n >> 7; rest; rest >>= 7)
		more++;
	if (more) {
		if ((size_t)(out->end - out->at) < more)
			return false;
		memmove(start + more, start, n);
		out->at += more;
	}
	return put_varint(&len, n);
}

static bool pack_number(struct output *out, const ProtobufCFieldDescriptor *f, const void *member, bool always)
{
	uint64_t value;

	switch (f->type) {
	case PROTOBUF_C_TYPE_FIXED64:
		value = *(const uint64_t *)member;
		return (!value && !always) || (put_key(out, f) && put(out, &value, 8));
	case PROTOBUF_C_TYPE_FIXED32:
		value = *(const uint32_t *)member;
		return (!value && !always) || (put_key(out, f) && put(out, member, 4));
	case PROTOBUF_C_TYPE_UINT64:
		value = *(const uint64_t *)member;
		break;
	case PROTOBUF_C_TYPE_UINT32:
		value = *(const uint32_t *)member;
		break;
	case PROTOBUF_C_TYPE_ENUM:
		value = (uint64_t)*(const int32_t *)member;
		break;
	case PROTOBUF_C_TYPE_SINT32:
		value = (uint32_t)*(const int32_t *)member << 1 ^ -((uint32_t)*(const int32_t *)member >> 31);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		value = *(const protobuf_c_boolean *)member != 0;
		break;
	default:
		return false;
	}
	return (!value && !always) || (put_key(out, f) && put_varint(out, value));
}

static bool pack_single(struct output *out, const ProtobufCFieldDescriptor *f, const void *member, bool always)
{
	const ProtobufCBinaryData *bytes;
	const char *text;

	switch (f->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		return !*(void *const *)member || pack_message(out, f->id, *(const ProtobufCMessage *const *)member);
	case PROTOBUF_C_TYPE_STRING:
		text = *(const char *const *)member;
		return ((!text || !*text) && !always) || put_piece(out, f, text, text ? strlen(text) : 0);
	case PROTOBUF_C_TYPE_BYTES:
		bytes = member;
		return (!bytes->len && !always) || put_piece(out, f, bytes->data, bytes->len);
	default:
		return pack_number(out, f, member, always);
	}
}

static bool pack_repeated(struct output *out, const ProtobufCFieldDescriptor *f, size_t n, const void *array)
{
	if (f->type == PROTOBUF_C_TYPE_FIXED64 || f->type == PROTOBUF_C_TYPE_FIXED32)
		return !n || put_piece(out, f, array, n * (f->type == PROTOBUF_C_TYPE_FIXED64 ? 8 : 4));
	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return n == 0;
	for (size_t i = 0; i < n; i++) {
		if (!pack_message(out, f->id, ((const ProtobufCMessage *const *)array)[i]))
			return false;
	}
	return true;
}

static bool pack(struct output *out, const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *d = message->descriptor;
	bool good = !message->n_unknown_fields;

	for (unsigned i = 0; good && i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const uint8_t *quantifier = (const uint8_t *)message + f->quantifier_offset;
		const uint8_t *member = (const uint8_t *)message + f->offset;

		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
			good = *(const uint32_t *)quantifier != f->id || pack_single(out, f, member, true);
		else if (f->label == PROTOBUF_C_LABEL_REPEATED)
			good = pack_repeated(out, f, *(const size_t *)quantifier, *(void *const *)member);
		else
			good = pack_single(out, f, member, false);
	}
	return good;
}

ssize_t codec_pack_element(unsigned id, const ProtobufCMessage *message, uint8_t *to, size_t room)
{
	struct output out = { to, to + room };

	return pack_message(&out, id, message) ? out.at - to : -1;
}
