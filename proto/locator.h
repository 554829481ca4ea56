/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Locators, "nicd1:…": where a peer's memory is and the right to connect to it. Printable base64url of a fixed-size binary
 * form with a CRC-32C, so that a damaged copy is told from an expired one. Whoever holds it may use it: treat it like a password.
 *
 * And the private data that carries the ticket in a connection request and the grant in its accept; the same bytes on MPA and
 * on rdma_cm, so that any librdmacm program can be a peer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#include "proto/limits.h"
#include "proto/reason.h"

enum { LOCATOR_TEXT_MAX = 160 };

struct locator_grant {
	uint32_t remote_token;
	uint32_t rights;        /* nicd.MrFlag */
	uint64_t iova;
	uint64_t length;
	uint64_t incarnation;
};

struct locator {
	struct sockaddr_storage addr;   /* IPv4 or IPv6, and port */
	uint8_t ticket[NICD_TICKET_SIZE];
	bool has_grant;                 /* of a PD ticket; an export's grant comes with the accept */
	struct locator_grant grant;
};

/* Writes the NUL-terminated text. */
void locator_print(const struct locator *locator, char text[LOCATOR_TEXT_MAX]);
/* White space around it is allowed. LOCATOR. */
int locator_parse(const char *text, struct locator *ret, struct nicd_error *err);

/* "127.0.0.1:7190", "[::1]:7190". Numeric only; parse: -EINVAL. `text` has room for 64 bytes. */
void locator_addr_print(const struct sockaddr_storage *addr, char text[64]);
int locator_addr_parse(const char *text, struct sockaddr_storage *ret);

/* SHA-256: what is stored of a ticket. */
void locator_ticket_hash(const uint8_t ticket[NICD_TICKET_SIZE], uint8_t hash[NICD_TICKET_HASH_SIZE]);

/* Private data of a connection request: "nicd", version 1, three zero bytes, ticket. */
enum { PEER_HELLO_SIZE = 24, PEER_GRANT_SIZE = 40 };
void peer_hello_encode(uint8_t buf[PEER_HELLO_SIZE], const uint8_t ticket[NICD_TICKET_SIZE]);
/* Trailing bytes are allowed (rdma_cm pads). false: not ours. */
bool peer_hello_decode(const uint8_t *buf, size_t len, uint8_t ticket[NICD_TICKET_SIZE]);
/*
 * Private data of the accept, big-endian: "nicd", version 1, flags (bit 0: a grant follows), two zero bytes, u32 token,
 * u32 rights, u64 iova, u64 length, u64 incarnation.
 */
void peer_grant_encode(uint8_t buf[PEER_GRANT_SIZE], const struct locator_grant *grant);
bool peer_grant_decode(const uint8_t *buf, size_t len, struct locator_grant *ret);
/*
 * What an end of ours can beyond the RFCs, right behind either of them: "caps", u32 of bits, big-endian. A connection
 * has what both ends say; unknown bits are let be, and who knows nothing of this finds trailing bytes. It is answered
 * only where it was said, in an accept without a grant behind the first eight bytes with flags 0.
 */
enum { PEER_CAPS_SIZE = 8, PEER_HELLO_MAX = PEER_HELLO_SIZE + PEER_CAPS_SIZE, PEER_ACCEPT_MAX = PEER_GRANT_SIZE + PEER_CAPS_SIZE };
enum {
	PEER_CAP_LARGE_FRAMES = 1u << 0,   /* takes frames of up to 64 KiB, whatever the segments of the path */
};
/* Bytes written, up to PEER_HELLO_MAX and PEER_ACCEPT_MAX. `grant` NULL: none; neither a grant nor bits: 0. */
size_t peer_hello_encode_caps(uint8_t buf[PEER_HELLO_MAX], const uint8_t ticket[NICD_TICKET_SIZE], uint32_t caps);
size_t peer_accept_encode(uint8_t buf[PEER_ACCEPT_MAX], const struct locator_grant *grant, uint32_t caps);
/* The bits behind a hello, and in an accept; 0: none are said. */
uint32_t peer_hello_caps(const uint8_t *buf, size_t len);
uint32_t peer_accept_caps(const uint8_t *buf, size_t len);
