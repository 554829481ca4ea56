/* SPDX-License-Identifier: MIT */
/*
 * Revocation is exact, shown on the real nicd and nicd-soft (see tests/api/with-nicd):
 *
 *   test-revoke [--count N]        N deregistrations race eight writers, and shares of N the readers, exports and work of our own; nothing may be
 *                                  touched after an answer
 *   test-revoke --without WHAT     the same against a nicd-soft from which `mutate` has taken WHAT: the test must see that it is missing
 *   test-revoke --tokens           tokens alone: no one is drawn again in its quarantine
 *
 * A test that sees no races proves nothing, so they are counted, and too few are a failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "local.h"
#include "owner.h"

enum { READS_ONE_IN = 80, EXPORTS_ONE_IN = 10, LOCAL_ONE_IN = 200, ENOUGH_ROUNDS = 2000 };

static uint64_t count = 20000;

static uint64_t share(uint64_t one_in)
{
	return count / one_in > 100 ? count / one_in : 100;
}

static struct owner_tally run(const struct owner_terms *terms)
{
	struct owner_terms t = *terms;
	struct owner_tally tally;

	t.socket = getenv("NICD_TEST_1");
	assert_true(owner_run(&t, &tally));
	print_message("# %llu rounds in %.1f s: %llu raced, %llu half under way, %llu streams cut, %llu with bytes of peers; %llu shots, "
		      "%llu stale, %llu answered, %llu connects, %llu bytes read\n",
		      (unsigned long long)tally.rounds, tally.seconds, (unsigned long long)tally.raced, (unsigned long long)tally.half,
		      (unsigned long long)tally.cut, (unsigned long long)tally.landed, (unsigned long long)tally.shots,
		      (unsigned long long)tally.stale, (unsigned long long)tally.answered, (unsigned long long)tally.connects,
		      (unsigned long long)tally.read_bytes);
	return tally;
}

static void assert_exact(const struct owner_tally *tally, uint64_t rounds)
{
	assert_int_equal(tally->rounds, rounds);
	assert_int_equal(tally->changed, 0);
	assert_int_equal(tally->outside, 0);
	assert_int_equal(tally->leaked, 0);
	assert_int_equal(tally->redrawn, 0);
}

/* mutation: soft_tag_drop without tag_cut (planted by `mutate`: test_writes_after) */
static void test_writes(void **state)
{
	struct owner_tally tally = run(&(struct owner_terms){.count = count});

	assert_exact(&tally, count);
	assert_true(tally.raced >= count / 2);
	assert_true(tally.half >= count / 2);
	assert_true(tally.cut >= count / 8);
	assert_true(tally.landed >= count / 8);
	assert_true(tally.stale > 0);
}

/* mutation: the same (test_reads_after) */
static void test_reads(void **state)
{
	uint64_t n = share(READS_ONE_IN);
	struct owner_tally tally = run(&(struct owner_terms){.count = n, .reading = true});

	assert_exact(&tally, n);
	assert_true(tally.half >= n / 4);
	assert_true(tally.cut >= n / 8);
	assert_true(tally.read_bytes > n * 1000);
}

/* mutation: the same, and DropTicket does not cut (test_exports_after) */
static void test_exports(void **state)
{
	uint64_t n = share(EXPORTS_ONE_IN);
	struct owner_tally tally = run(&(struct owner_terms){.count = n, .exports = true});

	assert_exact(&tally, n);
	assert_true(tally.half >= n / 4);
	assert_true(tally.landed >= n / 8);
}

static struct local_tally run_local(const struct local_terms *terms)
{
	struct local_terms t = *terms;
	struct local_tally tally;

	t.socket = getenv("NICD_TEST_1");
	assert_true(local_run(&t, &tally));
	print_message("# %llu rounds in %.1f s: %llu streams cut\n", (unsigned long long)tally.rounds, tally.seconds,
		      (unsigned long long)tally.cut);
	return tally;
}

static void local_is_exact(bool writing, bool receiving)
{
	uint64_t n = share(LOCAL_ONE_IN);
	struct local_tally tally = run_local(&(struct local_terms){.count = n, .writing = writing, .receiving = receiving});

	assert_int_equal(tally.rounds, n);
	assert_int_equal(tally.changed, 0);
	assert_true(tally.cut >= n / 4);
}

/* mutation: the same (test_own_reads_after) */
static void test_own_reads(void **state)
{
	local_is_exact(false, false);
}

/* mutation: the same (test_own_writes_after) */
static void test_own_writes(void **state)
{
	local_is_exact(true, false);
}

/* mutation: the same (test_own_receives_after) */
static void test_own_receives(void **state)
{
	local_is_exact(false, true);
}

/* ---- what is missing is seen */

static void test_writes_after(void **state)
{
	struct owner_tally tally = run(&(struct owner_terms){.count = ENOUGH_ROUNDS, .first = true});

	assert_true(tally.changed > 0);
	assert_int_equal(tally.outside, 0);
	assert_int_equal(tally.redrawn, 0);
}

static void test_reads_after(void **state)
{
	struct owner_tally tally = run(&(struct owner_terms){.count = ENOUGH_ROUNDS, .first = true, .reading = true});

	assert_true(tally.leaked > 0);
}

static void test_exports_after(void **state)
{
	struct owner_tally tally = run(&(struct owner_terms){.count = ENOUGH_ROUNDS, .first = true, .exports = true});

	assert_true(tally.changed > 0);
}

static void test_own_reads_after(void **state)
{
	assert_true(run_local(&(struct local_terms){.count = ENOUGH_ROUNDS, .first = true}).changed > 0);
}

static void test_own_writes_after(void **state)
{
	assert_true(run_local(&(struct local_terms){.count = ENOUGH_ROUNDS, .first = true, .writing = true}).changed > 0);
}

static void test_own_receives_after(void **state)
{
	assert_true(run_local(&(struct local_terms){.count = ENOUGH_ROUNDS, .first = true, .receiving = true}).changed > 0);
}

/* ---- tokens, drawn from a million instead of four thousand million, so that they would come again soon */

/* mutation: soft_token_release does not remember (planted by `mutate`: test_redrawn) */
static void test_quarantine(void **state)
{
	struct owner_tally tally = run(&(struct owner_terms){.count = count});

	assert_exact(&tally, count);
}

static void test_redrawn(void **state)
{
	struct owner_tally tally = run(&(struct owner_terms){.count = 4 * ENOUGH_ROUNDS, .first = true});

	assert_true(tally.redrawn > 0);
	assert_int_equal(tally.changed, 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest exact[] = {
		cmocka_unit_test(test_writes), cmocka_unit_test(test_reads), cmocka_unit_test(test_exports),
		cmocka_unit_test(test_own_reads), cmocka_unit_test(test_own_writes), cmocka_unit_test(test_own_receives),
	};
	static const struct CMUnitTest without_quiescence[] = {
		cmocka_unit_test(test_writes_after), cmocka_unit_test(test_reads_after), cmocka_unit_test(test_own_reads_after),
		cmocka_unit_test(test_own_writes_after), cmocka_unit_test(test_own_receives_after),
	};
	static const struct CMUnitTest without_cut[] = {cmocka_unit_test(test_exports_after)};
	static const struct CMUnitTest tokens[] = {cmocka_unit_test(test_quarantine)};
	static const struct CMUnitTest without_quarantine[] = {cmocka_unit_test(test_redrawn)};

	setvbuf(stdout, NULL, _IOLBF, 0);
	cmocka_set_test_filter(getenv("NICD_TEST_FILTER"));
	if (argc == 3 && strcmp(argv[1], "--count") == 0 && strtoull(argv[2], NULL, 10) > 0)
		count = strtoull(argv[2], NULL, 10);
	else if (argc == 2 && strcmp(argv[1], "--tokens") == 0)
		return cmocka_run_group_tests(tokens, NULL, NULL);
	else if (argc == 3 && strcmp(argv[1], "--without") == 0 && strcmp(argv[2], "quiescence") == 0)
		return cmocka_run_group_tests(without_quiescence, NULL, NULL);
	else if (argc == 3 && strcmp(argv[1], "--without") == 0 && strcmp(argv[2], "cut") == 0)
		return cmocka_run_group_tests(without_cut, NULL, NULL);
	else if (argc == 3 && strcmp(argv[1], "--without") == 0 && strcmp(argv[2], "quarantine") == 0)
		return cmocka_run_group_tests(without_quarantine, NULL, NULL);
	else if (argc != 1) {
		fprintf(stderr, "usage: test-revoke [--count N | --tokens | --without quiescence|cut|quarantine]\n");
		return 2;
	}
	return cmocka_run_group_tests(exact, NULL, NULL);
}
