/* SPDX-License-Identifier: MIT */
/* Locators: one text for each, no damage unseen. And the private data of connections. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/locator.h"

static struct locator make_locator(const char *addr, bool has_grant)
{
	struct locator locator = { .has_grant = has_grant };

	assert_int_equal(locator_addr_parse(addr, &locator.addr), 0);
	for (unsigned i = 0; i < NICD_TICKET_SIZE; i++)
		locator.ticket[i] = (uint8_t)(0xf0 + i);
	if (has_grant)
		locator.grant = (struct locator_grant){ 0x12345678, 0x7, 0x1122334455667788, 1 << 20, 0xfedcba9876543210 };
	return locator;
}

static void check_refused(const char *text)
{
	struct nicd_error err = { 0 };
	struct locator got;

	assert_int_equal(locator_parse(text, &got, &err), -EINVAL);
	assert_int_equal(err.reason, NICD_R_LOCATOR);
	assert_int_equal(err.limit, 102);
}

static void check_round_trip(const char *addr, bool has_grant)
{
	struct locator locator = make_locator(addr, has_grant), got;
	char text[LOCATOR_TEXT_MAX], again[LOCATOR_TEXT_MAX], addr_text[64];

	locator_print(&locator, text);
	assert_int_equal(strlen(text), 102);
	assert_memory_equal(text, "nicd1:", 6);
	assert_int_equal(locator_parse(text, &got, NULL), 0);
	assert_memory_equal(&got.addr, &locator.addr, sizeof(got.addr));
	assert_memory_equal(got.ticket, locator.ticket, sizeof(got.ticket));
	assert_int_equal(got.has_grant, has_grant);
	assert_int_equal(got.grant.remote_token, locator.grant.remote_token);
	assert_int_equal(got.grant.rights, locator.grant.rights);
	assert_int_equal(got.grant.iova, locator.grant.iova);
	assert_int_equal(got.grant.length, locator.grant.length);
	assert_int_equal(got.grant.incarnation, locator.grant.incarnation);
	locator_print(&got, again);
	assert_string_equal(again, text);
	locator_addr_print(&got.addr, addr_text);
	assert_string_equal(addr_text, addr);
}

static void test_round_trip(void **state)
{
	check_round_trip("127.0.0.1:7190", false);
	check_round_trip("127.0.0.2:65535", true);
	check_round_trip("[::1]:7190", false);
	check_round_trip("[2001:db8::1:2]:1", true);
}

/* The text is stable: locators of other versions are told by it. */
static void test_known(void **state)
{
	struct locator locator = make_locator("127.0.0.1:7190", false);
	char text[LOCATOR_TEXT_MAX];

	locator_print(&locator, text);
	/* mutation: any change of the layout; crc32_iscsi without the two inversions */
	assert_string_equal(text, "nicd1:AAAcFn8AAAEAAAAAAAAAAAAAAADw8fLz9PX29_j5-vv8_f7_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACfMxBY");
}

/* Every character in turn becomes every other one: always refused, and nothing is written. */
static void test_damage(void **state)
{
	struct locator locator = make_locator("[2001:db8::1:2]:4791", true);
	char text[LOCATOR_TEXT_MAX];

	locator_print(&locator, text);
	for (size_t i = 0; text[i]; i++) {
		char was = text[i];

		for (int c = 1; c < 256; c++) {
			/* White space at the ends makes it too short: refused as well. */
			if ((char)c == was)
				continue;
			text[i] = (char)c;
			/* mutation: locator_encode leaves the CRC out; locator_unprint takes any character */
			check_refused(text);
		}
		text[i] = was;
	}
}

static void test_swapped_and_cut(void **state)
{
	struct locator locator = make_locator("127.0.0.1:7190", true);
	char text[LOCATOR_TEXT_MAX * 2];
	size_t len;

	locator_print(&locator, text);
	len = strlen(text);
	for (size_t i = 0; i + 1 < len; i++) {
		char a = text[i], b = text[i + 1];

		if (a == b)
			continue;
		text[i] = b;
		text[i + 1] = a;
		check_refused(text);
		text[i] = a;
		text[i + 1] = b;
	}
	for (size_t i = 0; i < len; i++) {
		char was = text[i];

		text[i] = '\0';
		check_refused(text);
		text[i] = was;
	}
	/* mutation: locator_parse compares with < LOCATOR_TEXT */
	memcpy(text + len, "A", 2);
	check_refused(text);
	memcpy(text + len, "====", 5);
	check_refused(text);
	memcpy(text + len, " A", 3);
	check_refused(text);
}

static void test_overlong(void **state)
{
	char *text = malloc(1 << 20);

	memset(text, 'A', (1 << 20) - 1);
	text[(1 << 20) - 1] = '\0';
	memcpy(text, "nicd1:", 6);
	check_refused(text);
	memset(text, ' ', (1 << 20) - 1);
	check_refused(text);
	free(text);
	check_refused("");
	check_refused("nicd1:");
	check_refused("nicd2:");
}

static void test_white_space(void **state)
{
	struct locator locator = make_locator("127.0.0.1:7190", false), got;
	char text[LOCATOR_TEXT_MAX], around[LOCATOR_TEXT_MAX * 2];

	locator_print(&locator, text);
	snprintf(around, sizeof(around), " \t\r\n%s\r\n", text);
	assert_int_equal(locator_parse(around, &got, NULL), 0);
	snprintf(around, sizeof(around), "nicd1: %s", text + 6);
	check_refused(around);
}

/* What is unused is zero: unknown flags and stray bytes with a good CRC are refused. */
static void test_one_text_only(void **state)
{
	struct locator locator = make_locator("127.0.0.1:7190", false), got;
	char text[LOCATOR_TEXT_MAX];

	/* Without has_grant, the grant is neither written nor read. */
	locator.grant.remote_token = 1;
	locator_print(&locator, text);
	assert_int_equal(locator_parse(text, &got, NULL), 0);
	assert_int_equal(got.grant.remote_token, 0);
	/* mutation: locator_decode compares the CRC only. Text: flags 0x80, and IPv4 with a 17th byte; CRCs computed outside. */
	check_refused("nicd1:gAAcFn8AAAEAAAAAAAAAAAAAAADw8fLz9PX29_j5-vv8_f7_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACgq4x2");
	check_refused("nicd1:AAAcFn8AAAEBAAAAAAAAAAAAAADw8fLz9PX29_j5-vv8_f7_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADqiLQD");
}

static void test_addr(void **state)
{
	static const char *const bad[] = {
		"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1: 1", "127.0.0.1:65536",
		"127.0.0.1:99999", "127.0.0.1:100000", "127.0.0.1:1x", "localhost:1", ":1", "::1:1", "[::1]", "[::1]:", "[::1:1",
		"::1]:1", "[127.0.0.1]:1", "127.0.0.1.1:1", "[]:1", "[:1", " 127.0.0.1:1", "127.0.0.1 :1", "[::1]x:1", "[fe80::1%lo]:1",
		"0000000000000000000000000000000000000000000000000000000000127.0.0.1:1",
	};
	struct sockaddr_storage addr;
	char text[64];

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		/* mutation: locator_port_parse by strtoul alone */
		assert_int_equal(locator_addr_parse(bad[i], &addr), -EINVAL);
	}
	assert_int_equal(locator_addr_parse("0.0.0.0:0", &addr), 0);
	assert_int_equal(addr.ss_family, AF_INET);
	assert_int_equal(locator_addr_parse("[::ffff:255.255.255.255]:65535", &addr), 0);
	locator_addr_print(&addr, text);
	assert_string_equal(text, "[::ffff:255.255.255.255]:65535");
	addr.ss_family = AF_UNSPEC;
	locator_addr_print(&addr, text);
	assert_string_equal(text, "?");
}

static void test_ticket_hash(void **state)
{
	/* SHA-256 of 16 zero bytes. */
	static const uint8_t want[NICD_TICKET_HASH_SIZE] = {
		0x37, 0x47, 0x08, 0xff, 0xf7, 0x71, 0x9d, 0xd5, 0x97, 0x9e, 0xc8, 0x75, 0xd5, 0x6c, 0xd2, 0x28,
		0x6f, 0x6d, 0x3c, 0xf7, 0xec, 0x31, 0x7a, 0x3b, 0x25, 0x63, 0x2a, 0xab, 0x28, 0xec, 0x37, 0xbb,
	};
	uint8_t ticket[NICD_TICKET_SIZE] = { 0 }, hash[NICD_TICKET_HASH_SIZE];

	locator_ticket_hash(ticket, hash);
	assert_memory_equal(hash, want, sizeof(want));
}

static void test_hello(void **state)
{
	uint8_t buf[PEER_HELLO_SIZE + 32] = { 0 }, ticket[NICD_TICKET_SIZE], got[NICD_TICKET_SIZE];

	for (unsigned i = 0; i < NICD_TICKET_SIZE; i++)
		ticket[i] = (uint8_t)i;
	peer_hello_encode(buf, ticket);
	assert_memory_equal(buf, "nicd\1\0\0\0\0\1\2", 11);
	assert_true(peer_hello_decode(buf, PEER_HELLO_SIZE, got));
	assert_memory_equal(got, ticket, sizeof(ticket));
	assert_true(peer_hello_decode(buf, sizeof(buf), got));
	for (size_t len = 0; len < PEER_HELLO_SIZE; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, buf, len);
		/* mutation: peer_head_decode does not compare the length */
		assert_false(peer_hello_decode(exact, len, got));
		free(exact);
	}
	for (unsigned i = 0; i < 8; i++) {
		buf[i] ^= 1;
		/* mutation: peer_head_decode compares the first four bytes only */
		assert_false(peer_hello_decode(buf, PEER_HELLO_SIZE, got));
		buf[i] ^= 1;
	}
}

static void test_grant(void **state)
{
	struct locator_grant grant = { 0x01020304, 0x7, 0x1112131415161718, 0x2122232425262728, 0x3132333435363738 }, got;
	static const uint8_t want[PEER_GRANT_SIZE] = {
		'n', 'i', 'c', 'd', 1, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 7, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
		0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
	};
	uint8_t buf[PEER_GRANT_SIZE];

	peer_grant_encode(buf, &grant);
	/* mutation: put32 in host order */
	assert_memory_equal(buf, want, sizeof(want));
	assert_true(peer_grant_decode(buf, sizeof(buf), &got));
	assert_memory_equal(&got, &grant, sizeof(got));
	assert_false(peer_grant_decode(buf, sizeof(buf) - 1, &got));
	buf[5] = 0;
	assert_false(peer_grant_decode(buf, sizeof(buf), &got));
}

static void test_caps(void **state)
{
	const struct locator_grant grant = { 1, 7, 3, 4, 5 };
	uint8_t buf[PEER_ACCEPT_MAX + 32] = { 0 }, ticket[NICD_TICKET_SIZE] = { 9 }, got[NICD_TICKET_SIZE];
	struct locator_grant back;

	/* mutation: put them into the eight bytes of the head, where an older end refuses them */
	assert_int_equal(peer_hello_encode_caps(buf, ticket, 0x80000001), PEER_HELLO_MAX);
	assert_memory_equal(buf, "nicd\1\0\0\0\11", 9);
	assert_memory_equal(buf + PEER_HELLO_SIZE, "caps\x80\0\0\1", PEER_CAPS_SIZE);
	assert_true(peer_hello_decode(buf, PEER_HELLO_MAX, got));
	assert_int_equal(peer_hello_caps(buf, PEER_HELLO_MAX), 0x80000001);
	assert_int_equal(peer_hello_caps(buf, sizeof(buf)), 0x80000001);
	for (size_t len = 0; len < PEER_HELLO_MAX; len++) {
		uint8_t *exact = malloc(len + 1);

		memcpy(exact, buf, len);
		/* mutation: peer_caps_decode does not compare the length */
		assert_int_equal(peer_hello_caps(exact, len), 0);
		free(exact);
	}
	for (unsigned i = 0; i < PEER_HELLO_MAX - 4; i++) {
		if (i >= 8 && i < PEER_HELLO_SIZE)
			continue;
		buf[i] ^= 1;
		/* mutation: take any trailing bytes for capabilities */
		assert_int_equal(peer_hello_caps(buf, PEER_HELLO_MAX), 0);
		buf[i] ^= 1;
	}
	/* What says nothing is what it always was. */
	assert_int_equal(peer_hello_encode_caps(buf, ticket, 0), PEER_HELLO_SIZE);
	assert_int_equal(peer_accept_encode(buf, &grant, 0), PEER_GRANT_SIZE);
	assert_int_equal(peer_accept_encode(buf, NULL, 0), 0);

	assert_int_equal(peer_accept_encode(buf, &grant, 5), PEER_ACCEPT_MAX);
	assert_true(peer_grant_decode(buf, PEER_ACCEPT_MAX, &back));
	assert_memory_equal(&back, &grant, sizeof(back));
	assert_int_equal(peer_accept_caps(buf, PEER_ACCEPT_MAX), 5);
	assert_int_equal(peer_accept_caps(buf, PEER_ACCEPT_MAX - 1), 0);
	assert_int_equal(peer_hello_caps(buf, PEER_ACCEPT_MAX), 0);

	assert_int_equal(peer_accept_encode(buf, NULL, 5), 8 + PEER_CAPS_SIZE);
	/* mutation: say a grant of nothing */
	assert_false(peer_grant_decode(buf, sizeof(buf), &back));
	assert_int_equal(peer_accept_caps(buf, 8 + PEER_CAPS_SIZE), 5);
	assert_int_equal(peer_accept_caps(buf, 8 + PEER_CAPS_SIZE - 1), 0);
	assert_int_equal(peer_accept_caps(NULL, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_swapped_and_cut),
		cmocka_unit_test(test_overlong),
		cmocka_unit_test(test_white_space),
		cmocka_unit_test(test_one_text_only),
		cmocka_unit_test(test_addr),
		cmocka_unit_test(test_ticket_hash),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_grant),
		cmocka_unit_test(test_caps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
