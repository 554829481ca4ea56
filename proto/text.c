/* SPDX-License-Identifier: MIT */
/*
 * Text from clients: protobuf-c does not look into strings, so whoever stores or prints one asks here first.
 */
#include <string.h>
#include <unictype.h>
#include <unistr.h>

#include "proto/frame.h"

/* Bytes of `text`, or -1: more than `max`, or not UTF-8. */
static ssize_t text_measure(const char *text, size_t max)
{
	size_t len = strnlen(text, max + 1);

	return len <= max && !u8_check((const uint8_t *)text, len) ? (ssize_t)len : -1;
}

bool text_is_name(const char *text, size_t max)
{
	const uint8_t *at = (const uint8_t *)text;
	ssize_t len = text ? text_measure(text, max) : -1;

	if (len <= 0)
		return false;
	for (ssize_t i = 0; i < len;) {
		ucs4_t uc;

		i += u8_mbtouc(&uc, at + i, (size_t)(len - i));
		if (uc == '/' || uc_is_cntrl(uc))
			return false;
	}
	return true;
}

bool text_is_utf8(const char *text, size_t max)
{
	return !text || text_measure(text, max) >= 0;
}
