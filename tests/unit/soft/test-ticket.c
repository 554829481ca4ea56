/* SPDX-License-Identifier: MIT */
/* Tickets: reserved, spent, given back, expired, dropped; and that all failures look alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/soft/ticket.h"

static uint64_t clock_ns;

static uint64_t now(void)
{
	return clock_ns;
}

static int setup(void **state)
{
	clock_ns = 1000;
	*state = soft_tickets_new(now);
	assert_non_null(*state);
	return 0;
}

static int teardown(void **state)
{
	soft_tickets_free(*state);
	return 0;
}

static const uint8_t *secret_of(uint64_t serial)
{
	static uint8_t secret[NICD_TICKET_SIZE];

	memset(secret, 0x5e, sizeof(secret));
	memcpy(secret, &serial, sizeof(serial));
	return secret;
}

static struct soft_ticket terms_of(uint64_t serial, uint32_t uses, uint32_t streams, uint64_t expires)
{
	struct soft_ticket terms = {
		.serial = serial, .pd = 10, .uses_left = uses, .max_streams = streams, .expires_ns = expires,
	};

	locator_ticket_hash(secret_of(serial), terms.hash);
	return terms;
}

static struct soft_ticket *add(struct soft_tickets *tickets, uint64_t serial, uint32_t uses, uint32_t streams, uint64_t expires)
{
	struct soft_ticket terms = terms_of(serial, uses, streams, expires);

	assert_int_equal(soft_ticket_add(tickets, &terms, NULL), 0);
	return soft_ticket_find(tickets, serial);
}

static void test_life(void **state)
{
	struct soft_tickets *tickets = *state;
	struct soft_ticket *ticket = add(tickets, 1, 2, 2, UINT64_MAX);

	assert_ptr_equal(soft_ticket_reserve(tickets, secret_of(1)), ticket);
	assert_ptr_equal(soft_ticket_reserve(tickets, secret_of(1)), ticket);
	assert_int_equal(ticket->reserved, 2);
	/* mutation: reserve more uses than there are */
	assert_null(soft_ticket_reserve(tickets, secret_of(1)));
	soft_ticket_give_back(tickets, ticket);
	/* mutation: keep the use of a handshake that died */
	assert_ptr_equal(soft_ticket_reserve(tickets, secret_of(1)), ticket);
	soft_ticket_spend(tickets, ticket);
	soft_ticket_spend(tickets, ticket);
	assert_int_equal(ticket->reserved, 0);
	soft_ticket_left(tickets, ticket);
	soft_ticket_left(tickets, ticket);
	assert_int_equal(ticket->streams, 0);
	/* mutation: give a spent use back when its stream leaves */
	assert_null(soft_ticket_reserve(tickets, secret_of(1)));
}

static void test_max_streams(void **state)
{
	struct soft_tickets *tickets = *state;
	struct soft_ticket *ticket = add(tickets, 1, 100, 1, UINT64_MAX);

	assert_ptr_equal(soft_ticket_reserve(tickets, secret_of(1)), ticket);
	/* mutation: count streams only from their first frame */
	assert_null(soft_ticket_reserve(tickets, secret_of(1)));
	soft_ticket_spend(tickets, ticket);
	assert_null(soft_ticket_reserve(tickets, secret_of(1)));
	soft_ticket_left(tickets, ticket);
	/* mutation: count a stream for ever */
	assert_ptr_equal(soft_ticket_reserve(tickets, secret_of(1)), ticket);
	soft_ticket_give_back(tickets, ticket);
	assert_int_equal(ticket->streams, 0);
	assert_int_equal(ticket->uses_left, 99);
}

/* Wrong in one bit anywhere, or with a hash that is right in the part by which it is found. */
static void test_wrong_secret(void **state)
{
	struct soft_tickets *tickets = *state;
	struct soft_ticket twin;
	uint8_t secret[NICD_TICKET_SIZE];

	add(tickets, 1, 1000, 1000, UINT64_MAX);
	for (unsigned bit = 0; bit < 8 * NICD_TICKET_SIZE; bit++) {
		memcpy(secret, secret_of(1), sizeof(secret));
		secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
		/* mutation: admit whoever comes */
		assert_null(soft_ticket_reserve(tickets, secret));
	}
	for (unsigned byte = 8; byte < NICD_TICKET_HASH_SIZE; byte++) {
		twin = terms_of(2, 1, 1, UINT64_MAX);
		twin.hash[byte] ^= 1;
		assert_int_equal(soft_ticket_add(tickets, &twin, NULL), 0);
		/* mutation: compare only the bytes by which it is found, or leave out the last byte */
		assert_null(soft_ticket_reserve(tickets, secret_of(2)));
		soft_ticket_drop(tickets, 2);
	}
}

static unsigned n_expired;

static void on_expired(void *userdata, struct soft_ticket *ticket)
{
	uint64_t *serials = userdata;

	serials[n_expired++] = ticket->serial;
}

/* Many that expire at once are told of in turns, each once, and none of them lets anybody in meanwhile. */
static void test_expiry_of_many(void **state)
{
	enum { N = 3 * SOFT_TICKETS_EXPIRE + 7 };
	struct soft_tickets *tickets = *state;
	static uint64_t serials[N];
	unsigned before, laps = 0;

	for (unsigned i = 1; i <= N; i++)
		add(tickets, i, 9, 9, 2000);
	clock_ns = 2000;
	n_expired = 0;
	while (soft_tickets_next_expiry(tickets) != UINT64_MAX && laps++ < 10) {
		before = n_expired;
		soft_tickets_expire(tickets, on_expired, serials);
		/* mutation: soft_tickets_expire goes on to the end */
		assert_in_range(n_expired - before, 1, SOFT_TICKETS_EXPIRE);
		assert_null(soft_ticket_reserve(tickets, secret_of(N)));
	}
	assert_int_equal(laps, 4);
	assert_int_equal(n_expired, N);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(serials[i], i + 1);
}

static void test_expiry(void **state)
{
	struct soft_tickets *tickets = *state;
	uint64_t serials[4];

	assert_int_equal(soft_tickets_next_expiry(tickets), UINT64_MAX);
	add(tickets, 1, 9, 9, 3000);
	add(tickets, 2, 9, 9, 2000);
	add(tickets, 3, 9, 9, UINT64_MAX);
	add(tickets, 4, 9, 9, 2000);
	/* mutation: answer the first one added, not the first to expire */
	assert_int_equal(soft_tickets_next_expiry(tickets), 2000);
	n_expired = 0;
	soft_tickets_expire(tickets, on_expired, serials);
	assert_int_equal(n_expired, 0);
	clock_ns = 1999;
	assert_non_null(soft_ticket_reserve(tickets, secret_of(2)));
	clock_ns = 2000;
	/* mutation: rely on the timer to have run */
	assert_null(soft_ticket_reserve(tickets, secret_of(2)));
	soft_tickets_expire(tickets, on_expired, serials);
	assert_int_equal(n_expired, 2);
	assert_int_equal(serials[0], 2);
	assert_int_equal(serials[1], 4);
	assert_int_equal(soft_tickets_next_expiry(tickets), 3000);
	/* mutation: tell of the same one twice */
	soft_tickets_expire(tickets, on_expired, serials);
	assert_int_equal(n_expired, 2);
	/* mutation: take an expired one out of its tree a second time when it is dropped */
	soft_ticket_give_back(tickets, soft_ticket_find(tickets, 2));
	soft_ticket_drop(tickets, 2);
	soft_ticket_drop(tickets, 1);
	assert_int_equal(soft_tickets_next_expiry(tickets), UINT64_MAX);
	assert_non_null(soft_ticket_reserve(tickets, secret_of(3)));
	soft_ticket_give_back(tickets, soft_ticket_find(tickets, 3));
}

/* Dropped while a handshake and a stream hold it: nobody new, and freed with the last of them (the sanitizer sees it). */
static void test_drop_while_held(void **state)
{
	struct soft_tickets *tickets = *state;
	struct soft_ticket *ticket = add(tickets, 1, 9, 9, 5000);

	soft_ticket_reserve(tickets, secret_of(1));
	soft_ticket_spend(tickets, ticket);
	soft_ticket_reserve(tickets, secret_of(1));
	/* mutation: free a dropped ticket under its streams */
	soft_ticket_drop(tickets, 1);
	assert_true(ticket->dropped);
	assert_null(soft_ticket_find(tickets, 1));
	assert_int_equal(soft_tickets_count(tickets), 0);
	/* mutation: leave a dropped one findable by its hash */
	assert_null(soft_ticket_reserve(tickets, secret_of(1)));
	soft_ticket_give_back(tickets, ticket);
	assert_int_equal(ticket->streams, 1);
	/* mutation: never free a dropped ticket */
	soft_ticket_left(tickets, ticket);
	soft_ticket_drop(tickets, 1);
}

static void test_add_refused(void **state)
{
	struct soft_tickets *tickets = *state;
	struct soft_ticket terms = terms_of(1, 5, 5, UINT64_MAX), *ticket = add(tickets, 1, 5, 5, UINT64_MAX);
	struct nicd_error err;

	soft_ticket_reserve(tickets, secret_of(1));
	/* mutation: start again with all uses when it is said again */
	assert_int_equal(soft_ticket_add(tickets, &terms, &err), 0);
	assert_int_equal(ticket->uses_left, 4);
	soft_ticket_give_back(tickets, ticket);
	terms.hash[31] ^= 1;
	/* mutation: take another secret under the same serial */
	assert_true(soft_ticket_add(tickets, &terms, &err) < 0);
	assert_int_equal(err.reason, NICD_R_DEVICE_BUSY);
	terms = terms_of(1, 5, 5, UINT64_MAX);
	terms.serial = 2;
	/* mutation: let two tickets have one secret */
	assert_true(soft_ticket_add(tickets, &terms, &err) < 0);
	assert_int_equal(err.reason, NICD_R_DEVICE_BUSY);
	terms = terms_of(3, 0, 1, UINT64_MAX);
	/* mutation: take 0 uses for without end */
	assert_true(soft_ticket_add(tickets, &terms, &err) < 0);
	assert_int_equal(err.reason, NICD_R_VALUE);
	terms = terms_of(3, 1, 0, UINT64_MAX);
	assert_true(soft_ticket_add(tickets, &terms, &err) < 0);
	assert_int_equal(err.reason, NICD_R_VALUE);
	terms = terms_of(3, 1, 1, UINT64_MAX);
	terms.serial = 0;
	assert_true(soft_ticket_add(tickets, &terms, &err) < 0);
	assert_int_equal(err.reason, NICD_R_SERIAL);
	assert_int_equal(soft_tickets_count(tickets), 1);
}

static void test_scope(void **state)
{
	struct soft_tickets *tickets = *state;
	struct soft_ticket terms = terms_of(1, 1, 1, UINT64_MAX);
	struct soft_scope scope;

	soft_ticket_scope(&terms, &scope);
	assert_false(scope.by_grant);
	assert_int_equal(scope.pd, 10);
	terms.door = 77;
	terms.grant.remote_token = 0x1234;
	assert_int_equal(soft_ticket_add(tickets, &terms, NULL), 0);
	soft_ticket_scope(soft_ticket_find(tickets, 1), &scope);
	/* mutation: give an export's peer the scope of the PD */
	assert_true(scope.by_grant);
	assert_int_equal(scope.n_grants, 1);
	assert_int_equal(scope.grants[0], 77);
	assert_int_equal(soft_ticket_find(tickets, 1)->grant.remote_token, 0x1234);
}

static void test_next_and_reset(void **state)
{
	struct soft_tickets *tickets = *state;

	add(tickets, 5, 1, 1, 2000);
	add(tickets, 3, 1, 1, UINT64_MAX);
	assert_int_equal(soft_ticket_next(tickets, 0)->serial, 3);
	assert_int_equal(soft_ticket_next(tickets, 3)->serial, 5);
	assert_null(soft_ticket_next(tickets, 5));
	assert_null(soft_ticket_next(tickets, UINT64_MAX));
	soft_tickets_reset(tickets);
	assert_int_equal(soft_tickets_count(tickets), 0);
	/* mutation: forget one of the trees on reset */
	assert_null(soft_ticket_reserve(tickets, secret_of(5)));
	assert_int_equal(soft_tickets_next_expiry(tickets), UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_max_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_secret, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expiry_of_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drop_while_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scope, setup, teardown),
		cmocka_unit_test_setup_teardown(test_next_and_reset, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
