/* SPDX-License-Identifier: MIT */
/*
 * A ticket: added by the controller -> each use of it reserved by a handshake, then spent or given back -> expired,
 * spent or dropped. Owned by soft_tickets until it is dropped; from then on by the streams that came in by it, and
 * freed with the last of them.
 *
 * Only SHA-256 of the secret is kept. It is found by the first eight bytes of that hash, and all of it is compared in constant
 * time: what timing tells of a prefix of a hash helps nobody to find the 128 random bits behind it.
 */
#include "nicd/soft/ticket.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

RB_HEAD(tickets_by_serial, soft_ticket);
RB_HEAD(tickets_by_hash, soft_ticket);
RB_HEAD(tickets_by_expiry, soft_ticket);

struct soft_tickets {
	uint64_t (*now)(void);
	struct tickets_by_serial by_serial;
	struct tickets_by_hash by_hash;
	struct tickets_by_expiry by_expiry;   /* those that have not expired and ever will */
	uint64_t count;
	uint64_t dropped;                     /* held by streams only */
};

static int serial_compare(const struct soft_ticket *a, const struct soft_ticket *b)
{
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}

static int hash_compare(const struct soft_ticket *a, const struct soft_ticket *b)
{
	return memcmp(a->hash, b->hash, sizeof(uint64_t));
}

static int expiry_compare(const struct soft_ticket *a, const struct soft_ticket *b)
{
	if (a->expires_ns != b->expires_ns)
		return a->expires_ns < b->expires_ns ? -1 : 1;
	return serial_compare(a, b);
}

RB_GENERATE_INTERNAL(tickets_by_serial, soft_ticket, by_serial, serial_compare, static __attribute__((unused)))
RB_GENERATE_INTERNAL(tickets_by_hash, soft_ticket, by_hash, hash_compare, static __attribute__((unused)))
RB_GENERATE_INTERNAL(tickets_by_expiry, soft_ticket, by_expiry, expiry_compare, static __attribute__((unused)))

struct soft_tickets *soft_tickets_new(uint64_t (*now)(void))
{
	struct soft_tickets *tickets = calloc(1, sizeof(*tickets));

	if (!tickets)
		return NULL;
	tickets->now = now;
	RB_INIT(&tickets->by_serial);
	RB_INIT(&tickets->by_hash);
	RB_INIT(&tickets->by_expiry);
	return tickets;
}

bool soft_tickets_reset_step(struct soft_tickets *tickets)
{
	struct soft_ticket *ticket = RB_MIN(tickets_by_serial, &tickets->by_serial);

	if (ticket)
		soft_ticket_drop(tickets, ticket->serial);
	return ticket;
}

void soft_tickets_reset(struct soft_tickets *tickets)
{
	while (soft_tickets_reset_step(tickets))
		;
}

void soft_tickets_free(struct soft_tickets *tickets)
{
	if (!tickets)
		return;
	soft_tickets_reset(tickets);
	assert(tickets->dropped == 0);
	free(tickets);
}

static bool hash_equal(const uint8_t *a, const uint8_t *b)
{
	volatile uint8_t differs = 0;

	for (unsigned i = 0; i < NICD_TICKET_HASH_SIZE; i++)
		differs |= a[i] ^ b[i];
	return differs == 0;
}

int soft_ticket_add(struct soft_tickets *tickets, const struct soft_ticket *terms, struct nicd_error *err)
{
	struct soft_ticket *ticket = soft_ticket_find(tickets, terms->serial);

	if (ticket && hash_equal(ticket->hash, terms->hash))
		return 0;
	if (ticket || RB_FIND(tickets_by_hash, &tickets->by_hash, (struct soft_ticket *)terms))
		return nicd_refuse(err, NICD_R_DEVICE_BUSY);
	if (terms->serial == 0)
		return nicd_refuse(err, NICD_R_SERIAL);
	if (terms->uses_left == 0 || terms->max_streams == 0)
		return nicd_refuse_at(err, NICD_R_VALUE, UINT32_MAX, 0);
	ticket = calloc(1, sizeof(*ticket));
	if (!ticket)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	ticket->serial = terms->serial;
	memcpy(ticket->hash, terms->hash, sizeof(ticket->hash));
	ticket->pd = terms->pd;
	ticket->door = terms->door;
	ticket->uses_left = terms->uses_left;
	ticket->max_streams = terms->max_streams;
	ticket->expires_ns = terms->expires_ns;
	ticket->grant = terms->grant;
	RB_INSERT(tickets_by_serial, &tickets->by_serial, ticket);
	RB_INSERT(tickets_by_hash, &tickets->by_hash, ticket);
	if (ticket->expires_ns != UINT64_MAX)
		RB_INSERT(tickets_by_expiry, &tickets->by_expiry, ticket);
	tickets->count++;
	return 0;
}

struct soft_ticket *soft_ticket_find(struct soft_tickets *tickets, uint64_t serial)
{
	struct soft_ticket key = {.serial = serial};

	return RB_FIND(tickets_by_serial, &tickets->by_serial, &key);
}

struct soft_ticket *soft_ticket_next(struct soft_tickets *tickets, uint64_t after)
{
	struct soft_ticket key = {.serial = after + 1};

	return after == UINT64_MAX ? NULL : RB_NFIND(tickets_by_serial, &tickets->by_serial, &key);
}

uint64_t soft_tickets_count(const struct soft_tickets *tickets)
{
	return tickets->count;
}

/* A dropped one lives as long as a stream, handshakes included, counts in it. */
static void release(struct soft_tickets *tickets, struct soft_ticket *ticket)
{
	if (!ticket->dropped || ticket->streams > 0)
		return;
	tickets->dropped--;
	free(ticket);
}

void soft_ticket_drop(struct soft_tickets *tickets, uint64_t serial)
{
	struct soft_ticket *ticket = soft_ticket_find(tickets, serial);

	if (!ticket)
		return;
	RB_REMOVE(tickets_by_serial, &tickets->by_serial, ticket);
	RB_REMOVE(tickets_by_hash, &tickets->by_hash, ticket);
	if (!ticket->expired && ticket->expires_ns != UINT64_MAX)
		RB_REMOVE(tickets_by_expiry, &tickets->by_expiry, ticket);
	ticket->dropped = true;
	tickets->count--;
	tickets->dropped++;
	release(tickets, ticket);
}

struct soft_ticket *soft_ticket_reserve(struct soft_tickets *tickets, const uint8_t secret[NICD_TICKET_SIZE])
{
	struct soft_ticket key = {.serial = 0}, *ticket;

	locator_ticket_hash(secret, key.hash);
	ticket = RB_FIND(tickets_by_hash, &tickets->by_hash, &key);
	if (!ticket || !hash_equal(ticket->hash, key.hash))
		return NULL;
	if (ticket->expired || ticket->expires_ns <= tickets->now())
		return NULL;
	if (ticket->uses_left == 0 || ticket->streams >= ticket->max_streams)
		return NULL;
	ticket->uses_left--;
	ticket->reserved++;
	ticket->streams++;
	return ticket;
}

void soft_ticket_spend(struct soft_tickets *tickets, struct soft_ticket *ticket)
{
	assert(ticket->reserved > 0);
	ticket->reserved--;
}

void soft_ticket_give_back(struct soft_tickets *tickets, struct soft_ticket *ticket)
{
	assert(ticket->reserved > 0 && ticket->streams > 0);
	ticket->reserved--;
	ticket->uses_left++;
	ticket->streams--;
	release(tickets, ticket);
}

void soft_ticket_left(struct soft_tickets *tickets, struct soft_ticket *ticket)
{
	assert(ticket->streams > ticket->reserved);
	ticket->streams--;
	release(tickets, ticket);
}

void soft_ticket_scope(const struct soft_ticket *ticket, struct soft_scope *ret)
{
	*ret = (struct soft_scope){.pd = ticket->pd};
	if (ticket->door == 0)
		return;
	ret->by_grant = true;
	ret->n_grants = 1;
	ret->grants[0] = ticket->door;
}

uint64_t soft_tickets_next_expiry(const struct soft_tickets *tickets)
{
	struct tickets_by_expiry *tree = (struct tickets_by_expiry *)&tickets->by_expiry;
	struct soft_ticket *first = RB_MIN(tickets_by_expiry, tree);

	return first ? first->expires_ns : UINT64_MAX;
}

void soft_tickets_expire(struct soft_tickets *tickets, void (*expired)(void *userdata, struct soft_ticket *ticket), void *userdata)
{
	uint64_t now = tickets->now();
	struct soft_ticket *ticket;

	for (unsigned n = 0; n < SOFT_TICKETS_EXPIRE; n++) {
		ticket = RB_MIN(tickets_by_expiry, &tickets->by_expiry);
		if (!ticket || ticket->expires_ns > now)
			return;
		RB_REMOVE(tickets_by_expiry, &tickets->by_expiry, ticket);
		ticket->expired = true;
		if (expired)
			expired(userdata, ticket);
	}
}
