/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Tickets of the software RNIC: the right to connect. Only hashes are kept. A ticket is reserved when a handshake names it,
 * spent at the peer's first frame, given back when the handshake dies.
 */
#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>

#include "nicd/soft/tag.h"
#include "proto/locator.h"

struct soft_ticket {
	uint64_t serial;
	uint8_t hash[NICD_TICKET_HASH_SIZE];
	uint64_t pd, door;
	uint32_t uses_left, reserved;
	uint32_t max_streams, streams;     /* admitted or in handshake */
	uint64_t expires_ns;
	bool expired, spent_told, dropped; /* dropped: freed with its last stream */
	struct locator_grant grant;
	RB_ENTRY(soft_ticket) by_serial, by_hash, by_expiry;
};

struct soft_tickets;
struct soft_tickets *soft_tickets_new(uint64_t (*now)(void));
/* No stream may hold one any more. */
void soft_tickets_free(struct soft_tickets *tickets);
/* Drops everything, one by one (true: there are more) or at once. */
bool soft_tickets_reset_step(struct soft_tickets *tickets);
void soft_tickets_reset(struct soft_tickets *tickets);
int soft_ticket_add(struct soft_tickets *tickets, const struct soft_ticket *terms, struct nicd_error *err);
struct soft_ticket *soft_ticket_find(struct soft_tickets *tickets, uint64_t serial);
/* No new peers from now on; streams that came in by it keep the struct alive until soft_ticket_left. */
void soft_ticket_drop(struct soft_tickets *tickets, uint64_t serial);
uint64_t soft_tickets_count(const struct soft_tickets *tickets);
struct soft_ticket *soft_ticket_next(struct soft_tickets *tickets, uint64_t after);

/* The ticket that this secret opens, a use of it reserved; NULL: unknown, spent, expired, or too many streams: all alike. */
struct soft_ticket *soft_ticket_reserve(struct soft_tickets *tickets, const uint8_t secret[NICD_TICKET_SIZE]);
void soft_ticket_spend(struct soft_tickets *tickets, struct soft_ticket *ticket);      /* the reserved use is gone for good */
void soft_ticket_give_back(struct soft_tickets *tickets, struct soft_ticket *ticket);  /* the handshake died */
void soft_ticket_left(struct soft_tickets *tickets, struct soft_ticket *ticket);       /* a stream that had spent it ended */
void soft_ticket_scope(const struct soft_ticket *ticket, struct soft_scope *ret);

/*
 * When the next one expires, ns; UINT64_MAX: none. _expire tells of each that has, a turn's worth at most: a client may
 * let a hundred thousand expire at once. One that it has not come to is refused all the same.
 */
enum { SOFT_TICKETS_EXPIRE = 256 };
uint64_t soft_tickets_next_expiry(const struct soft_tickets *tickets);
void soft_tickets_expire(struct soft_tickets *tickets, void (*expired)(void *userdata, struct soft_ticket *ticket), void *userdata);
