/* SPDX-License-Identifier: MIT */
#pragma once
/* For soft_tags_new: a clock that stands, and random numbers of so few bits that all there are can be swept. For one .c of a program. */
#include <sys/random.h>

static unsigned narrow_bits = 32;

static uint64_t narrow_now(void)
{
	return 0;
}

static void narrow_draw(void *buf, size_t len)
{
	uint32_t *words = buf;

	assert_int_equal(getrandom(buf, len, 0), (ssize_t)len);
	for (size_t i = 0; i < len / sizeof(*words); i++)
		words[i] &= UINT32_MAX >> (32 - narrow_bits);
}
