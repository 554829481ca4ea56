/* SPDX-License-Identifier: MIT */
/* The fair queue alone: who is served how often is counted, nothing is timed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "nicd/fair.h"

enum { QUEUES = 8, ITEMS = 60, QUANTUM = 4, SHARE = 3, FULL = 10, NO_WINDOW = 1000000 };

struct payer {
	struct nic_fair_queue queue;
	struct nic_fair_item items[ITEMS];
	unsigned cost;                 /* of each of its pieces; 0: 1 */
	unsigned served, spent;
};

static struct nic_fair fair;
static struct payer payers[QUEUES];

static void begin(uint32_t share, uint32_t full)
{
	memset(payers, 0, sizeof(payers));
	nic_fair_init(&fair, QUANTUM, share, full);
	for (unsigned i = 0; i < QUEUES; i++)
		nic_fair_queue_init(&payers[i].queue);
}

static void end(void)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		for (unsigned k = 0; k < ITEMS; k++)
			nic_fair_remove(&fair, &payers[i].items[k]);
		while (payers[i].queue.busy)
			nic_fair_leave(&fair, &payers[i].queue, 0);
		nic_fair_queue_deinit(&payers[i].queue);
	}
	assert_int_equal(fair.active, 0);
	assert_true(TAILQ_EMPTY(&fair.ring));
}

static void add(struct payer *payer, unsigned n)
{
	for (unsigned k = 0; n; k++) {
		if (payer->items[k].queue)
			continue;
		nic_fair_add(&fair, &payer->queue, &payer->items[k]);
		n--;
	}
}

static struct payer *payer_of(const struct nic_fair_item *item)
{
	for (unsigned i = 0; i < QUEUES; i++)
		if (item >= payers[i].items && item < payers[i].items + ITEMS)
			return &payers[i];
	fail();
	return NULL;
}

/* Takes one, which is done at once and comes back. NULL: none. */
static struct payer *serve(bool again)
{
	struct nic_fair_item *item = nic_fair_take(&fair);
	struct payer *payer = item ? payer_of(item) : NULL;
	unsigned cost;

	if (!payer)
		return NULL;
	cost = payer->cost ? payer->cost : 1;
	payer->served++;
	payer->spent += cost;
	nic_fair_leave(&fair, &payer->queue, cost - 1);
	if (again)
		nic_fair_add(&fair, &payer->queue, item);
	return payer;
}

/* mutation: ring_pass is left out in nic_fair_take: the first one is served for ever */
/* mutation: ring_join always goes to the end: who brings one at a time gets one where the storm gets a quantum */
/* mutation: nic_fair_take takes from any queue in the order in which items came: the storm gets 60 of 67 */
static void test_sixty_weigh_no_more_than_one(void **state)
{
	begin(NO_WINDOW, NO_WINDOW);
	add(&payers[0], 60);
	for (unsigned i = 1; i < QUEUES; i++)
		add(&payers[i], 1);
	for (unsigned i = 0; i < QUEUES * 100; i++)
		assert_non_null(serve(true));
	for (unsigned i = 0; i < QUEUES; i++) {
		assert_true(payers[i].served >= 100 - QUANTUM);
		assert_true(payers[i].served <= 100 + QUANTUM);
	}
	end();
}

/* mutation: spend does nothing with what a piece cost besides: the costly ones get fifty times as much */
static void test_cost_counts_not_pieces(void **state)
{
	begin(NO_WINDOW, NO_WINDOW);
	add(&payers[0], 30);
	add(&payers[1], 30);
	payers[0].cost = 50;
	while (payers[1].spent < 5000)
		assert_non_null(serve(true));
	assert_true(payers[0].spent <= 5000 + 50 + QUANTUM);
	assert_true(payers[0].spent >= 5000 - 50 - QUANTUM);
	end();
}

/* mutation: ring_join always gives a quantum: who brings one costly piece at a time is served every other time */
static void test_debts_stay_while_others_wait(void **state)
{
	unsigned others = 0;

	begin(NO_WINDOW, NO_WINDOW);
	add(&payers[1], 10);
	add(&payers[0], 1);
	payers[0].cost = 40;
	while (!payers[0].served)
		assert_non_null(serve(true));
	/* It is idle for a moment. */
	nic_fair_remove(&fair, &payers[0].items[0]);
	assert_ptr_equal(serve(true), &payers[1]);
	add(&payers[0], 1);
	for (; payers[0].served < 2; others++)
		assert_non_null(serve(true));
	assert_true(others >= 40 - QUANTUM);
	end();
}

/* mutation: ring_leave does not count rounds: the debt of the first hour is paid in the second */
static void test_alone_nobody_owes_anything(void **state)
{
	begin(NO_WINDOW, NO_WINDOW);
	add(&payers[0], 1);
	payers[0].cost = 1000;
	for (unsigned i = 0; i < 20; i++) {
		assert_non_null(serve(false));
		add(&payers[0], 1);
	}
	add(&payers[1], 1);
	assert_ptr_equal(serve(false), &payers[0]);
	end();
}

/* mutation: has_room looks at `share` always: 3 */
/* mutation: has_room looks at `full` always: the second part fails */
static void test_the_window_is_wide_alone_and_narrow_with_others(void **state)
{
	unsigned n = 0;

	begin(SHARE, FULL);
	add(&payers[0], 40);
	while (nic_fair_take(&fair))
		n++;
	assert_int_equal(n, FULL);
	/* Another comes: it is served at once, and the first not before it is down to its share. */
	assert_true(nic_fair_enter(&fair, &payers[1].queue));
	for (unsigned i = 0; i < FULL - SHARE; i++) {
		nic_fair_leave(&fair, &payers[0].queue, 0);
		assert_null(nic_fair_take(&fair));
	}
	nic_fair_leave(&fair, &payers[0].queue, 0);
	/* mutation: nic_fair_leave does not call ring_place: parked for ever */
	assert_ptr_equal(payer_of(nic_fair_take(&fair)), &payers[0]);
	assert_null(nic_fair_take(&fair));
	end();
}

/* mutation: count_active clears `crowded` when one is left: whoever asks one thing at a time meets a full window every time */
static void test_who_was_not_alone_is_so_only_after_a_while(void **state)
{
	begin(SHARE, FULL);
	add(&payers[0], 40);
	while (nic_fair_take(&fair))
		;
	assert_true(nic_fair_enter(&fair, &payers[1].queue));
	nic_fair_leave(&fair, &payers[1].queue, 0);
	for (unsigned i = 0; i < FULL - 1; i++) {
		nic_fair_leave(&fair, &payers[0].queue, 0);
		nic_fair_take(&fair);
		assert_true(payers[0].queue.busy >= SHARE || i < FULL - SHARE);
		assert_true(payers[0].queue.busy <= SHARE || i < FULL - SHARE);
	}
	while (nic_fair_take(&fair))
		;
	assert_int_equal(payers[0].queue.busy, FULL);
	end();
}

/* Many in the ring, their windows open: each has its share in service, however much the first one brings. */
static void test_each_has_its_share_of_the_window(void **state)
{
	begin(SHARE, FULL);
	add(&payers[0], 60);
	for (unsigned i = 1; i < QUEUES; i++)
		add(&payers[i], 5);
	while (nic_fair_take(&fair))
		;
	for (unsigned i = 0; i < QUEUES; i++)
		assert_int_equal(payers[i].queue.busy, SHARE);
	end();
}

/* mutation: nic_fair_enter without a look at the items: later ones overtake earlier ones */
static void test_nobody_overtakes_in_a_queue(void **state)
{
	begin(1, 1);
	assert_true(nic_fair_enter(&fair, &payers[0].queue));
	assert_false(nic_fair_enter(&fair, &payers[0].queue));
	add(&payers[0], 2);
	nic_fair_leave(&fair, &payers[0].queue, 0);
	assert_false(nic_fair_enter(&fair, &payers[0].queue));
	assert_ptr_equal(nic_fair_take(&fair), &payers[0].items[0]);
	nic_fair_leave(&fair, &payers[0].queue, 0);
	assert_ptr_equal(nic_fair_take(&fair), &payers[0].items[1]);
	end();
}

static void test_what_is_removed_is_not_served(void **state)
{
	begin(NO_WINDOW, NO_WINDOW);
	add(&payers[0], 3);
	add(&payers[1], 1);
	nic_fair_remove(&fair, &payers[0].items[1]);
	/* mutation: nic_fair_remove leaves an empty queue in the ring: taken from nothing */
	nic_fair_remove(&fair, &payers[1].items[0]);
	nic_fair_remove(&fair, &payers[1].items[0]);
	assert_ptr_equal(nic_fair_take(&fair), &payers[0].items[0]);
	assert_ptr_equal(nic_fair_take(&fair), &payers[0].items[2]);
	assert_null(nic_fair_take(&fair));
	end();
}

/* How far a session may go on without a look at the others. */
static void test_credit(void **state)
{
	begin(NO_WINDOW, NO_WINDOW);
	add(&payers[0], 2);
	assert_non_null(nic_fair_take(&fair));
	/* mutation: nic_fair_credit without a look at the ring: who is alone is interrupted */
	assert_int_equal(nic_fair_credit(&fair, &payers[0].queue), UINT32_MAX);
	add(&payers[1], 1);
	assert_int_equal(nic_fair_credit(&fair, &payers[0].queue), QUANTUM - 1);
	nic_fair_leave(&fair, &payers[0].queue, 100);
	assert_int_equal(nic_fair_credit(&fair, &payers[0].queue), 1);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sixty_weigh_no_more_than_one),
		cmocka_unit_test(test_cost_counts_not_pieces),
		cmocka_unit_test(test_debts_stay_while_others_wait),
		cmocka_unit_test(test_alone_nobody_owes_anything),
		cmocka_unit_test(test_the_window_is_wide_alone_and_narrow_with_others),
		cmocka_unit_test(test_who_was_not_alone_is_so_only_after_a_while),
		cmocka_unit_test(test_each_has_its_share_of_the_window),
		cmocka_unit_test(test_nobody_overtakes_in_a_queue),
		cmocka_unit_test(test_what_is_removed_is_not_served),
		cmocka_unit_test(test_credit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
