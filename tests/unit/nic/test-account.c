/* SPDX-License-Identifier: MIT */
/* Accounts: balance, refusal, sharing. */
#include "tests/unit/nic/rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct bank {
	struct fake_env env;
	struct nic_accounts accounts;
};

static void bank_init(struct bank *bank, uint64_t max)
{
	struct nic_limits limits = nic_limits_default;

	limits.max[NIC_SLOT_MRS] = max;
	fake_env_init(&bank->env);
	nic_accounts_init(&bank->accounts, &bank->env.env, &limits);
}

static void bank_deinit(struct bank *bank)
{
	nic_accounts_deinit(&bank->accounts);
	assert_int_equal(bank->env.live_blocks, 0);
}

/* mutation: compare used + n with the maximum by > instead of >=, or forget the sum in the refusal */
static void test_balance_and_refusal(void **state)
{
	struct nic_charge one = { 0 }, two = { 0 }, none = { 0 };
	struct nic_account *account;
	struct nicd_error err;
	struct bank bank;

	bank_init(&bank, 10);
	assert_int_equal(nic_account_get(&bank.accounts, "uid:1", &account), 0);
	assert_int_equal(nic_charge(account, &one, NIC_SLOT_MRS, 7, &err), 0);
	assert_refusal(nic_charge(account, &two, NIC_SLOT_MRS, 4, &err), err, QUOTA, 10, 11);
	assert_null(two.account);
	assert_int_equal(account->used[NIC_SLOT_MRS], 7);
	assert_int_equal(nic_charge(account, &two, NIC_SLOT_MRS, 3, &err), 0);
	assert_int_equal(nic_charge(account, &none, NIC_SLOT_MRS, 0, &err), 0);
	assert_int_equal(bank.accounts.used[NIC_SLOT_MRS], 10);
	nic_charge_release(&none);
	nic_charge_release(&one);
	nic_charge_release(&one);   /* a zero charge: nothing */
	assert_int_equal(account->used[NIC_SLOT_MRS], 3);
	nic_charge_release(&two);
	assert_int_equal(bank.accounts.used[NIC_SLOT_MRS], 0);
	nic_account_unref(account);
	bank_deinit(&bank);
}

/* mutation: check used + n > max without minding the wrap */
static void test_charge_does_not_wrap(void **state)
{
	struct nic_charge one = { 0 }, two = { 0 };
	struct nic_account *account;
	struct nicd_error err;
	struct bank bank;

	bank_init(&bank, UINT64_MAX - 1);
	assert_int_equal(nic_account_get(&bank.accounts, "uid:1", &account), 0);
	assert_int_equal(nic_charge(account, &one, NIC_SLOT_MRS, 5, &err), 0);
	assert_refusal(nic_charge(account, &two, NIC_SLOT_MRS, UINT64_MAX - 2, &err), err, QUOTA, UINT64_MAX - 1, UINT64_MAX);
	nic_charge_release(&one);
	nic_account_unref(account);
	bank_deinit(&bank);
}

/* mutation: make a second account for the same key, or let one account's use refuse another */
static void test_accounts_by_key(void **state)
{
	struct nic_account *one, *again, *other;
	struct nic_charge a = { 0 }, b = { 0 };
	struct nicd_error err;
	struct bank bank;

	bank_init(&bank, 5);
	assert_int_equal(nic_account_get(&bank.accounts, "uid:1", &one), 0);
	assert_int_equal(nic_account_get(&bank.accounts, "uid:1", &again), 0);
	assert_int_equal(nic_account_get(&bank.accounts, "uid:10", &other), 0);
	assert_ptr_equal(one, again);
	assert_ptr_not_equal(one, other);
	assert_int_equal(nic_charge(one, &a, NIC_SLOT_MRS, 5, &err), 0);
	assert_int_equal(nic_charge(other, &b, NIC_SLOT_MRS, 5, &err), 0);
	nic_charge_release(&a);
	nic_charge_release(&b);
	assert_null(nic_account_unref(one));
	assert_string_equal(again->key, "uid:1");
	nic_account_unref(again);
	nic_account_unref(other);
	assert_null(nic_account_unref(NULL));
	bank_deinit(&bank);
}

static void test_many_accounts(void **state)
{
	enum { N = 2000 };
	static struct nic_account *all[N];
	struct bank bank;
	char key[32];

	bank_init(&bank, 1);
	for (unsigned i = 0; i < N; i++) {
		snprintf(key, sizeof(key), "uid:%u", i);
		assert_int_equal(nic_account_get(&bank.accounts, key, &all[i]), 0);
	}
	for (unsigned i = 0; i < N; i++)
		nic_account_unref(all[(i * 7919) % N]);
	bank_deinit(&bank);
}

/* mutation: leave uthash's own malloc, or do not look whether the account got into the table */
static void test_no_memory(void **state)
{
	struct nic_account *account = NULL;
	struct bank bank;
	unsigned k;

	for (k = 1; k < 10; k++) {
		bank_init(&bank, 1);
		bank.env.fail_at = k;
		if (nic_account_get(&bank.accounts, "uid:1", &account) == 0) {
			nic_account_unref(account);
			bank_deinit(&bank);
			break;
		}
		assert_null(account);
		bank_deinit(&bank);
	}
	assert_true(k > 2);
	assert_true(k < 10);
}

static void test_long_key(void **state)
{
	struct nic_account *account;
	char key[300];
	struct bank bank;

	bank_init(&bank, 1);
	memset(key, 'x', sizeof(key) - 1);
	key[sizeof(key) - 1] = 0;
	assert_int_equal(nic_account_get(&bank.accounts, key, &account), -ENAMETOOLONG);
	bank_deinit(&bank);
}

/*
 * One that takes all it can, then another, then a third: each gets something, and what is given back is there for the others.
 * mutation: account_max returns the account's own maximum: the first one has all
 * mutation: account_max divides by the number of accounts without one more: the first one has all
 */
static void test_nobody_takes_what_others_are_guaranteed(void **state)
{
	enum { POOL = 3600, ACCOUNTS = 5 };
	struct nic_account *accounts[ACCOUNTS];
	struct nic_charge charges[POOL] = { 0 };
	uint64_t taken[ACCOUNTS] = { 0 };
	struct nicd_error err;
	struct bank bank;
	unsigned n = 0;
	char key[16];

	bank_init(&bank, POOL);
	bank.accounts.pool[NIC_SLOT_MRS] = POOL;
	for (unsigned i = 0; i < ACCOUNTS; i++) {
		snprintf(key, sizeof(key), "uid:%u", i);
		assert_int_equal(nic_account_get(&bank.accounts, key, &accounts[i]), 0);
		while (nic_charge(accounts[i], &charges[n], NIC_SLOT_MRS, 1, &err) == 0) {
			n++;
			taken[i]++;
		}
		assert_int_equal(err.reason, NICD_R_QUOTA);
		assert_int_equal(err.limit, taken[i]);
		assert_int_equal(err.observed, taken[i] + 1);
	}
	assert_int_equal(taken[0], POOL / 2);
	assert_int_equal(taken[1], POOL / 2 / 3);
	for (unsigned i = 0; i < ACCOUNTS; i++)
		assert_true(taken[i] >= POOL / ((ACCOUNTS + 1) * (ACCOUNTS + 1)));
	for (unsigned i = 0; i < taken[0]; i++)
		nic_charge_release(&charges[i]);
	assert_int_equal(nic_charge(accounts[4], &charges[0], NIC_SLOT_MRS, 200, &err), 0);
	/* Another slot has no pool. */
	assert_int_equal(nic_charge(accounts[4], &charges[1], NIC_SLOT_PDS, bank.accounts.limits.max[NIC_SLOT_PDS], &err), 0);
	while (n)
		nic_charge_release(&charges[--n]);
	for (unsigned i = 0; i < ACCOUNTS; i++)
		nic_account_unref(accounts[i]);
	bank_deinit(&bank);
}

/* mutation: nic_charge_adjust refuses above the maximum, or forgets what was charged before */
static void test_what_cannot_be_refused(void **state)
{
	struct nic_account *account;
	struct nic_charge charge = { 0 };
	struct bank bank;

	bank_init(&bank, 10);
	assert_int_equal(nic_account_get(&bank.accounts, "uid:1", &account), 0);
	nic_charge_adjust(account, &charge, NIC_SLOT_MRS, 7);
	nic_charge_adjust(account, &charge, NIC_SLOT_MRS, 25);
	assert_int_equal(account->used[NIC_SLOT_MRS], 25);
	assert_int_equal(bank.accounts.used[NIC_SLOT_MRS], 25);
	nic_charge_adjust(account, &charge, NIC_SLOT_MRS, 3);
	assert_int_equal(account->used[NIC_SLOT_MRS], 3);
	nic_charge_adjust(account, &charge, NIC_SLOT_MRS, 0);
	assert_int_equal(account->used[NIC_SLOT_MRS], 0);
	nic_account_unref(account);
	bank_deinit(&bank);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_balance_and_refusal),
		cmocka_unit_test(test_charge_does_not_wrap),
		cmocka_unit_test(test_accounts_by_key),
		cmocka_unit_test(test_many_accounts),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_long_key),
		cmocka_unit_test(test_nobody_takes_what_others_are_guaranteed),
		cmocka_unit_test(test_what_cannot_be_refused),
	};

	return cmocka_run_group_tests_name("account", tests, NULL, NULL);
}
