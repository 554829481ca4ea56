/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What the targets share: reading numbers out of an input, and a complaint that the fuzzer sees. A read behind the end
 * of the input gives zeros, so that every input means something.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct input {
	const uint8_t *at;
	size_t left;
};

/* Copies what is there; the rest of `to` is zeros. */
static inline void input_bytes(struct input *in, void *to, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	memset(to, 0, len);
	if (n)
		memcpy(to, in->at, n);
	in->at += n;
	in->left -= n;
}

/* At most `len` bytes of the input itself. */
static inline const uint8_t *input_take(struct input *in, size_t len, size_t *got)
{
	const uint8_t *p = in->at;

	*got = len < in->left ? len : in->left;
	in->at += *got;
	in->left -= *got;
	return p;
}

static inline uint8_t input_u8(struct input *in)
{
	uint8_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

/* Little-endian, as this machine has it. */
static inline uint16_t input_u16(struct input *in)
{
	uint16_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint32_t input_u32(struct input *in)
{
	uint32_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

/* Unlike assert also in builds without assertions. */
#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: this must hold: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
