/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The fast path of the protobuf encoding, over protobuf-c's own descriptors and structs. It knows messages as every encoder
 * writes them and nothing else; for the rest (unknown fields, a field twice, packed lists in pieces, damage) it says
 * so, and the caller asks protobuf-c, which has the last word. Both give the same messages and the same bytes:
 * tests/unit/proto/test-codec.c compares them.
 *
 * It exists because protobuf-c takes more than half of the time of a token query (tests/bench).
 */
#include <sys/types.h>

#include "proto/frame.h"

/*
 * The message, in the arena; NULL: not for the fast path (or the arena is spent). A NUL inside a string has become the
 * byte 0xff, which is not UTF-8: nothing is cut off unseen.
 */
ProtobufCMessage *codec_unpack(const ProtobufCMessageDescriptor *descriptor, struct arena *arena, const uint8_t *data, size_t len);

/*
 * Makes the same of NULs inside strings of a message that protobuf-c is to unpack, which would end the string there. As
 * far as it is sound.
 */
void codec_expose_nuls(const ProtobufCMessageDescriptor *descriptor, uint8_t *data, size_t len);

/*
 * Writes the message as an element of field `id` of its envelope: key, length, content. `to` has room for `room` bytes.
 * Returns how many it wrote, or -1: no room, or not for the fast path.
 */
ssize_t codec_pack_element(unsigned id, const ProtobufCMessage *message, uint8_t *to, size_t room);
