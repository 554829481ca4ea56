/* SPDX-License-Identifier: MIT */
/*
 * Locators and the private data of connections: text from anybody. The first byte of an input says what the rest is; a
 * locator's checksum is put right for half of them, else no mutation would ever pass it.
 */
#include <isa-l/crc.h>

#include "proto/locator.h"
#include "tests/fuzz/input.h"

enum { BODY = 68 };   /* what stands before the checksum */

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void base64_print(const uint8_t *bytes, size_t len, char *to)
{
	for (size_t i = 0; i < len * 8; i += 6) {
		unsigned v = (unsigned)bytes[i / 8] << 8 | (i / 8 + 1 < len ? bytes[i / 8 + 1] : 0);

		*to++ = base64[v >> (10 - i % 8) & 63];
	}
	*to = 0;
}

/* What is taken can be printed, and the print is taken for the same. */
static void parse(const char *text)
{
	char again[LOCATOR_TEXT_MAX], third[LOCATOR_TEXT_MAX];
	struct locator locator, twin;
	struct nicd_error err = { 0 };

	if (locator_parse(text, &locator, &err) < 0) {
		must(err.reason != NICD_R_NONE);
		return;
	}
	locator_print(&locator, again);
	must(strlen(again) < sizeof(again));
	must(locator_parse(again, &twin, &err) == 0);
	must(!memcmp(locator.ticket, twin.ticket, sizeof(twin.ticket)) && locator.has_grant == twin.has_grant);
	must(!locator.has_grant || !memcmp(&locator.grant, &twin.grant, sizeof(twin.grant)));
	locator_print(&twin, third);
	must(!strcmp(again, third));
}

static void parse_body(const uint8_t *data, size_t size)
{
	uint8_t body[BODY + 4] = { 0 };
	char text[16 + 2 * sizeof(body)] = "nicd1:";
	uint32_t crc;

	memcpy(body, data, size < BODY ? size : BODY);
	crc = ~crc32_iscsi(body, BODY, ~0u);
	for (unsigned i = 0; i < 4; i++)
		body[BODY + i] = (uint8_t)(crc >> (24 - 8 * i));
	base64_print(body, sizeof(body), text + strlen(text));
	parse(text);
}

static void parse_address(const char *text)
{
	struct sockaddr_storage addr;
	char again[64];

	if (locator_addr_parse(text, &addr) < 0)
		return;
	locator_addr_print(&addr, again);
	must(locator_addr_parse(again, &addr) == 0);
}

static void peer_data(const uint8_t *data, size_t size)
{
	uint8_t ticket[NICD_TICKET_SIZE], buf[PEER_GRANT_SIZE], hello[PEER_HELLO_SIZE];
	struct locator_grant grant, twin;

	if (peer_hello_decode(data, size, ticket)) {
		peer_hello_encode(hello, ticket);
		must(size >= sizeof(hello) && !memcmp(hello + 8, data + 8, sizeof(ticket)));
	}
	must(!peer_hello_caps(data, size) || peer_hello_decode(data, size, ticket));
	must(!peer_accept_caps(data, size) || size >= 8 + PEER_CAPS_SIZE);
	if (!peer_grant_decode(data, size, &grant))
		return;
	peer_grant_encode(buf, &grant);
	must(peer_grant_decode(buf, sizeof(buf), &twin) && twin.iova == grant.iova && twin.length == grant.length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	/* Exactly as long as it is, so that a read behind it shows. */
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (data[0] % 4) {
	case 0:
		parse(text);
		break;
	case 1:
		parse_body((const uint8_t *)text, size - 1);
		break;
	case 2:
		parse_address(text);
		break;
	case 3:
		peer_data((const uint8_t *)text, size - 1);
		break;
	}
	free(text);
	return 0;
}
