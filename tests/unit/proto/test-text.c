/* SPDX-License-Identifier: MIT */
/* Which text may be a name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/frame.h"

static void test_names(void **state)
{
	static const char *const good[] = { "a", "weights.bin", " ", "gr\xc3\xbc\xc3\x9f", "\xf0\x9f\x90\xa7", "a\\b", "..", "%s%n" };

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(text_is_name(good[i], NICD_STRING));
}

static void test_not_names(void **state)
{
	static const char *const bad[] = {
		"", "a/b", "/", "a\nb", "\x1b[31m", "\x7f", "\x01",
		"\xc2\x85",             /* NEL: a control character of two bytes */
		"\xc2\x9b[31m",         /* CSI, what many terminals take for ESC [ */
		"\xff\xfe",             /* not UTF-8 at all */
		"a\x80",                /* continuation without a start */
		"\xc3",                 /* cut short */
		"\xc0\xaf",             /* '/' in two bytes */
		"\xe0\x80\xaf",         /* '/' in three */
		"\xed\xa0\x80",         /* half a surrogate pair */
		"\xf4\x90\x80\x80",     /* beyond Unicode */
	};

	/* mutation: text_is_name without NULL */
	assert_false(text_is_name(NULL, NICD_STRING));
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		/* mutation: text_is_name without u8_check, '/', uc_is_cntrl, or the empty string */
		assert_false(text_is_name(bad[i], NICD_STRING));
	}
}

static void test_length(void **state)
{
	char text[300];

	memset(text, 'a', sizeof(text));
	text[NICD_STRING] = '\0';
	assert_true(text_is_name(text, NICD_STRING));
	text[NICD_STRING] = 'a';
	text[NICD_STRING + 1] = '\0';
	/* mutation: text_measure with < instead of <= */
	assert_false(text_is_name(text, NICD_STRING));
	assert_false(text_is_utf8(text, NICD_STRING));
	/* The limit counts bytes, and never looks further than one beyond it. */
	assert_false(text_is_name("\xc3\xbc", 1));
	assert_true(text_is_name("\xc3\xbc", 2));
}

static void test_utf8(void **state)
{
	assert_true(text_is_utf8(NULL, 10));
	assert_true(text_is_utf8("", 10));
	assert_true(text_is_utf8("a/b\n", 10));
	/* mutation: text_measure without u8_check */
	assert_false(text_is_utf8("\xff", 10));
	assert_false(text_is_utf8("\xc3", 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_not_names),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
