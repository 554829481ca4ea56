/* SPDX-License-Identifier: MIT */
/*
 * Locators and the private data of connections. A locator is 72 bytes, big-endian, as 96 characters of base64url behind "nicd1:".
 * 72 is a multiple of three, so every bit of the text counts, and what is unused is zero: a locator has exactly one text, and the
 * CRC finds every change of up to 32 bits in a row, thus of any five characters side by side.
 *
 *    0  u8   flags: bit 0 IPv6, bit 1 a grant is there
 *    1  u8   zero
 *    2  u16  port
 *    4  16 bytes of address, IPv4 in the first four
 *   20  16 bytes of ticket
 *   36  u32 token, u32 rights, u64 iova, u64 length, u64 incarnation
 *   68  u32 CRC-32C of what is before
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <isa-l/crc.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/locator.h"

#define LOCATOR_PREFIX "nicd1:"

enum {
	LOCATOR_IPV6 = 1u << 0,
	LOCATOR_GRANT = 1u << 1,

	LOCATOR_AT_PORT = 2,
	LOCATOR_AT_ADDR = 4,
	LOCATOR_AT_TICKET = 20,
	LOCATOR_AT_GRANT = 36,
	LOCATOR_AT_CRC = 68,
	LOCATOR_SIZE = 72,
	LOCATOR_CHARS = LOCATOR_SIZE / 3 * 4,
	LOCATOR_TEXT = sizeof(LOCATOR_PREFIX) - 1 + LOCATOR_CHARS,
};
_Static_assert((int)LOCATOR_TEXT < (int)LOCATOR_TEXT_MAX, "a locator does not fit into its text");

static const char locator_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void put16(uint8_t *at, uint16_t value)
{
	value = htobe16(value);
	memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htobe32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htobe64(value);
	memcpy(at, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return be16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return be32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return be64toh(value);
}

/* 32 bytes: u32 token, u32 rights, u64 iova, u64 length, u64 incarnation. */
static void locator_put_grant(uint8_t *at, const struct locator_grant *grant)
{
	put32(at, grant->remote_token);
	put32(at + 4, grant->rights);
	put64(at + 8, grant->iova);
	put64(at + 16, grant->length);
	put64(at + 24, grant->incarnation);
}

static void locator_get_grant(const uint8_t *at, struct locator_grant *ret)
{
	*ret = (struct locator_grant){
		.remote_token = get32(at),
		.rights = get32(at + 4),
		.iova = get64(at + 8),
		.length = get64(at + 16),
		.incarnation = get64(at + 24),
	};
}

static uint32_t locator_crc(const uint8_t buf[LOCATOR_SIZE])
{
	return ~crc32_iscsi((unsigned char *)buf, LOCATOR_AT_CRC, ~0u);
}

static void locator_encode(const struct locator *locator, uint8_t buf[LOCATOR_SIZE])
{
	const struct sockaddr_in6 *in6 = (const void *)&locator->addr;
	const struct sockaddr_in *in = (const void *)&locator->addr;

	memset(buf, 0, LOCATOR_SIZE);
	if (locator->addr.ss_family == AF_INET6) {
		buf[0] |= LOCATOR_IPV6;
		put16(buf + LOCATOR_AT_PORT, ntohs(in6->sin6_port));
		memcpy(buf + LOCATOR_AT_ADDR, &in6->sin6_addr, sizeof(in6->sin6_addr));
	} else {
		put16(buf + LOCATOR_AT_PORT, ntohs(in->sin_port));
		memcpy(buf + LOCATOR_AT_ADDR, &in->sin_addr, sizeof(in->sin_addr));
	}
	memcpy(buf + LOCATOR_AT_TICKET, locator->ticket, NICD_TICKET_SIZE);
	if (locator->has_grant) {
		buf[0] |= LOCATOR_GRANT;
		locator_put_grant(buf + LOCATOR_AT_GRANT, &locator->grant);
	}
	put32(buf + LOCATOR_AT_CRC, locator_crc(buf));
}

static bool locator_decode(const uint8_t buf[LOCATOR_SIZE], struct locator *ret)
{
	struct sockaddr_in6 *in6 = (void *)&ret->addr;
	struct sockaddr_in *in = (void *)&ret->addr;
	uint8_t again[LOCATOR_SIZE];

	*ret = (struct locator){ .has_grant = buf[0] & LOCATOR_GRANT };
	if (buf[0] & LOCATOR_IPV6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(get16(buf + LOCATOR_AT_PORT));
		memcpy(&in6->sin6_addr, buf + LOCATOR_AT_ADDR, sizeof(in6->sin6_addr));
	} else {
		in->sin_family = AF_INET;
		in->sin_port = htons(get16(buf + LOCATOR_AT_PORT));
		memcpy(&in->sin_addr, buf + LOCATOR_AT_ADDR, sizeof(in->sin_addr));
	}
	memcpy(ret->ticket, buf + LOCATOR_AT_TICKET, NICD_TICKET_SIZE);
	if (ret->has_grant)
		locator_get_grant(buf + LOCATOR_AT_GRANT, &ret->grant);

	/* The CRC, the unknown flags and the unused bytes, all in one. */
	locator_encode(ret, again);
	return memcmp(buf, again, LOCATOR_SIZE) == 0;
}

void locator_print(const struct locator *locator, char text[LOCATOR_TEXT_MAX])
{
	uint8_t buf[LOCATOR_SIZE];
	char *to = stpcpy(text, LOCATOR_PREFIX);

	locator_encode(locator, buf);
	for (size_t i = 0; i < LOCATOR_SIZE; i += 3) {
		uint32_t bits = (uint32_t)buf[i] << 16 | (uint32_t)buf[i + 1] << 8 | buf[i + 2];

		for (int shift = 18; shift >= 0; shift -= 6)
			*to++ = locator_alphabet[bits >> shift & 63];
	}
	*to = '\0';
}

static bool locator_unprint(const char *text, uint8_t buf[LOCATOR_SIZE])
{
	for (size_t i = 0; i < LOCATOR_SIZE; i += 3) {
		uint32_t bits = 0;

		for (unsigned n = 0; n < 4; n++) {
			const char *at = memchr(locator_alphabet, *text++, sizeof(locator_alphabet) - 1);

			if (!at)
				return false;
			bits = bits << 6 | (uint32_t)(at - locator_alphabet);
		}
		buf[i] = (uint8_t)(bits >> 16);
		buf[i + 1] = (uint8_t)(bits >> 8);
		buf[i + 2] = (uint8_t)bits;
	}
	return true;
}

int locator_parse(const char *text, struct locator *ret, struct nicd_error *err)
{
	static const char blanks[] = " \t\r\n\v\f";
	const size_t prefix = sizeof(LOCATOR_PREFIX) - 1;
	struct locator locator;
	uint8_t buf[LOCATOR_SIZE];
	size_t len;

	text += strspn(text, blanks);
	len = strlen(text);
	while (len > 0 && strchr(blanks, text[len - 1]))
		len--;
	if (len != LOCATOR_TEXT || strncmp(text, LOCATOR_PREFIX, prefix) != 0 || !locator_unprint(text + prefix, buf) ||
	    !locator_decode(buf, &locator))
		return nicd_refuse_at(err, NICD_R_LOCATOR, LOCATOR_TEXT, len);
	*ret = locator;
	return 0;
}

void locator_addr_print(const struct sockaddr_storage *addr, char text[64])
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;
	char host[INET6_ADDRSTRLEN] = "";

	if (addr->ss_family == AF_INET6)
		snprintf(text, 64, "[%s]:%u", inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)), ntohs(in6->sin6_port));
	else if (addr->ss_family == AF_INET)
		snprintf(text, 64, "%s:%u", inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)), ntohs(in->sin_port));
	else
		snprintf(text, 64, "?");
}

/* 1 to 5 digits and nothing else. */
static int locator_port_parse(const char *text, in_port_t *ret)
{
	size_t len = strspn(text, "0123456789");
	unsigned long port;

	if (len < 1 || len > 5 || text[len])
		return -EINVAL;
	port = strtoul(text, NULL, 10);
	if (port > UINT16_MAX)
		return -EINVAL;
	*ret = htons((uint16_t)port);
	return 0;
}

int locator_addr_parse(const char *text, struct sockaddr_storage *ret)
{
	const char *colon = strrchr(text, ':');
	struct sockaddr_storage addr = { 0 };
	struct sockaddr_in6 *in6 = (void *)&addr;
	struct sockaddr_in *in = (void *)&addr;
	bool brackets = text[0] == '[';
	char host[INET6_ADDRSTRLEN];
	size_t len;
	in_port_t port;

	if (!colon || locator_port_parse(colon + 1, &port) < 0)
		return -EINVAL;
	len = (size_t)(colon - text);
	if (brackets) {
		if (len < 2 || text[len - 1] != ']')
			return -EINVAL;
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (brackets) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
	} else {
		in->sin_family = AF_INET;
		in->sin_port = port;
	}
	if (inet_pton(addr.ss_family, host, brackets ? (void *)&in6->sin6_addr : (void *)&in->sin_addr) != 1)
		return -EINVAL;
	*ret = addr;
	return 0;
}

void locator_ticket_hash(const uint8_t ticket[NICD_TICKET_SIZE], uint8_t hash[NICD_TICKET_HASH_SIZE])
{
	SHA2_CTX ctx;

	SHA256Init(&ctx);
	SHA256Update(&ctx, ticket, NICD_TICKET_SIZE);
	SHA256Final(hash, &ctx);
	explicit_bzero(&ctx, sizeof(ctx));
}

enum { PEER_HEAD_SIZE = 8 };

/* "nicd", version 1, what `flags` means, two zero bytes. */
static void peer_head_encode(uint8_t *buf, uint8_t flags)
{
	memcpy(buf, "nicd", 4);
	buf[4] = 1;
	buf[5] = flags;
	buf[6] = 0;
	buf[7] = 0;
}

static bool peer_head_decode(const uint8_t *buf, size_t len, size_t size, uint8_t flags)
{
	uint8_t head[PEER_HEAD_SIZE];

	peer_head_encode(head, flags);
	return len >= size && memcmp(buf, head, sizeof(head)) == 0;
}

void peer_hello_encode(uint8_t buf[PEER_HELLO_SIZE], const uint8_t ticket[NICD_TICKET_SIZE])
{
	peer_head_encode(buf, 0);
	memcpy(buf + PEER_HEAD_SIZE, ticket, NICD_TICKET_SIZE);
}

bool peer_hello_decode(const uint8_t *buf, size_t len, uint8_t ticket[NICD_TICKET_SIZE])
{
	if (!peer_head_decode(buf, len, PEER_HELLO_SIZE, 0))
		return false;
	memcpy(ticket, buf + PEER_HEAD_SIZE, NICD_TICKET_SIZE);
	return true;
}

void peer_grant_encode(uint8_t buf[PEER_GRANT_SIZE], const struct locator_grant *grant)
{
	peer_head_encode(buf, 1);
	locator_put_grant(buf + PEER_HEAD_SIZE, grant);
}

bool peer_grant_decode(const uint8_t *buf, size_t len, struct locator_grant *ret)
{
	if (!peer_head_decode(buf, len, PEER_GRANT_SIZE, 1))
		return false;
	locator_get_grant(buf + PEER_HEAD_SIZE, ret);
	return true;
}

static size_t peer_caps_encode(uint8_t *buf, uint32_t caps)
{
	if (!caps)
		return 0;
	memcpy(buf, "caps", 4);
	put32(buf + 4, caps);
	return PEER_CAPS_SIZE;
}

static uint32_t peer_caps_decode(const uint8_t *buf, size_t len, size_t at)
{
	if (len < at + PEER_CAPS_SIZE || memcmp(buf + at, "caps", 4) != 0)
		return 0;
	return get32(buf + at + 4);
}

size_t peer_hello_encode_caps(uint8_t buf[PEER_HELLO_MAX], const uint8_t ticket[NICD_TICKET_SIZE], uint32_t caps)
{
	peer_hello_encode(buf, ticket);
	return PEER_HELLO_SIZE + peer_caps_encode(buf + PEER_HELLO_SIZE, caps);
}

size_t peer_accept_encode(uint8_t buf[PEER_ACCEPT_MAX], const struct locator_grant *grant, uint32_t caps)
{
	size_t n = grant ? PEER_GRANT_SIZE : PEER_HEAD_SIZE;

	if (!grant && !caps)
		return 0;
	if (grant)
		peer_grant_encode(buf, grant);
	else
		peer_head_encode(buf, 0);
	return n + peer_caps_encode(buf + n, caps);
}

uint32_t peer_hello_caps(const uint8_t *buf, size_t len)
{
	return peer_head_decode(buf, len, PEER_HELLO_SIZE, 0) ? peer_caps_decode(buf, len, PEER_HELLO_SIZE) : 0;
}

uint32_t peer_accept_caps(const uint8_t *buf, size_t len)
{
	if (peer_head_decode(buf, len, PEER_GRANT_SIZE, 1))
		return peer_caps_decode(buf, len, PEER_GRANT_SIZE);
	return peer_head_decode(buf, len, PEER_HEAD_SIZE, 0) ? peer_caps_decode(buf, len, PEER_HEAD_SIZE) : 0;
}
