/* SPDX-License-Identifier: MIT */
/* The turns of a loop, on clocks that the test turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "proto/turns.h"

static uint64_t worked;
static unsigned looks;

static uint64_t cpu(void)
{
	looks++;
	return worked;
}

/* mutation: in turns_end do not subtract the wait: longest becomes 5,000,700 */
static void test_waiting_is_no_turn(void **state)
{
	struct turns turns;
	struct turns_report report;

	turns_init(&turns, 1000000);
	turns_end(&turns, 1000000 + 300000, 100000, cpu);                /* 200 us */
	turns_end(&turns, 1000000 + 5001000000, 100000 + 5000000000, cpu);   /* 700 us after five seconds of waiting */
	report = turns_take(&turns, 6002000000);
	assert_int_equal(report.turns, 2);
	assert_int_equal(report.longest_us, 700);
	assert_int_equal(report.slow, 0);
}

/* mutation: >= in place of > at TURNS_SLOW_US counts 2 */
static void test_slow_is_longer_than_a_millisecond(void **state)
{
	struct turns turns;
	struct turns_report report;

	turns_init(&turns, 0);
	turns_end(&turns, 1000000, 0, cpu);
	turns_end(&turns, 2000001, 0, cpu);
	report = turns_take(&turns, 2000001);
	assert_int_equal(report.slow, 1);
	assert_int_equal(report.longest_us, 1001);   /* rounded up: never told shorter than it was */
}

/* mutation: turns_take without clearing: the second report is the first */
static void test_since_the_last_look(void **state)
{
	struct turns turns;
	struct turns_report report;

	turns_init(&turns, 0);
	turns_end(&turns, 3000000, 0, cpu);
	turns_take(&turns, 3000000);
	turns_end(&turns, 3010000, 0, cpu);
	report = turns_take(&turns, 3010000);
	assert_int_equal(report.turns, 1);
	assert_int_equal(report.longest_us, 10);
	assert_int_equal(report.slow, 0);
}

/* mutation: in turns_end leave cpu_ns when not watched: the first turn of the second watch counts all that lay between */
static void test_processor_time_only_while_watched(void **state)
{
	const uint64_t over = UINT64_C(1000000000) * TURNS_WATCH_S;
	struct turns turns;
	struct turns_report report;

	looks = 0;
	turns_init(&turns, 0);
	turns_end(&turns, 1000, 0, cpu);
	assert_int_equal(looks, 0);
	turns_take(&turns, 1000);
	worked = 1000;
	turns_end(&turns, 2000, 0, cpu);
	worked = 41000;
	turns_end(&turns, 900000, 0, cpu);
	assert_int_equal(looks, 2);
	turns_end(&turns, 1000 + over, over, cpu);
	assert_int_equal(looks, 2);
	report = turns_take(&turns, 1000 + over);
	assert_int_equal(report.longest_cpu_us, 40);
	worked = 900000000;
	turns_end(&turns, 2000 + over, over, cpu);
	assert_int_equal(turns_take(&turns, 2000 + over).longest_cpu_us, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waiting_is_no_turn),
		cmocka_unit_test(test_slow_is_longer_than_a_millisecond),
		cmocka_unit_test(test_since_the_last_look),
		cmocka_unit_test(test_processor_time_only_while_watched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
