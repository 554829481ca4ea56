/* SPDX-License-Identifier: MIT */
/*
 * Accounts. One exists while somebody holds a reference to it (a session, mostly); the last one to let go frees it. Charges don't
 * hold references: whoever embeds one belongs to an owner, and the owner holds the account.
 */
/* uthash's hash function falls through on purpose; clang sees that in our file. */
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"

/* uthash takes its tables from the environment like everybody else, and says so when there is none. */
#define HASH_NONFATAL_OOM 1
#define uthash_malloc(size) accounts->env->alloc(accounts->env, size)
#define uthash_free(ptr, size) accounts->env->free(accounts->env, ptr, size)

#include "nicd/account.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

const char *const nic_slot_names[NIC_SLOT_COUNT] = {
#define X(name, max, text) [NIC_SLOT_##name] = text,
	NIC_SLOTS(X)
#undef X
};

const struct nic_limits nic_limits_default = {
	.max = {
#define X(name, max, text) [NIC_SLOT_##name] = max,
		NIC_SLOTS(X)
#undef X
	},
};

static int nic_account_compare(struct nic_account *a, struct nic_account *b)
{
	return a->number < b->number ? -1 : a->number > b->number;
}
RB_GENERATE_INTERNAL(nic_account_numbers, nic_account, by_number, nic_account_compare, static __attribute__((unused)))

void nic_accounts_init(struct nic_accounts *accounts, struct nic_env *env, const struct nic_limits *limits)
{
	memset(accounts, 0, sizeof(*accounts));
	accounts->env = env;
	RB_INIT(&accounts->by_number);
	accounts->limits = limits ? *limits : nic_limits_default;
}

void nic_accounts_deinit(struct nic_accounts *accounts)
{
	assert(!accounts->by_key);
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++)
		assert(accounts->used[i] == 0);
}

int nic_account_get(struct nic_accounts *accounts, const char *key, struct nic_account **ret)
{
	struct nic_account *account;

	HASH_FIND_STR(accounts->by_key, key, account);
	if (account) {
		*ret = nic_account_ref(account);
		return 0;
	}
	if (strlen(key) >= sizeof(account->key))
		return -ENAMETOOLONG;
	account = accounts->env->alloc(accounts->env, sizeof(*account));
	if (!account)
		return -ENOMEM;
	account->accounts = accounts;
	account->refs = 1;
	account->limits = accounts->limits;
	for (unsigned i = 0; i < NIC_TURN_COUNT; i++)
		nic_fair_queue_init(&account->turns[i]);
	strcpy(account->key, key);
	HASH_ADD_STR(accounts->by_key, key, account);
	if (!account->hh.tbl) {
		accounts->env->free(accounts->env, account, sizeof(*account));
		return -ENOMEM;
	}
	account->number = ++accounts->last_number;
	RB_INSERT(nic_account_numbers, &accounts->by_number, account);
	*ret = account;
	return 0;
}

struct nic_account *nic_account_ref(struct nic_account *account)
{
	account->refs++;
	return account;
}

struct nic_account *nic_account_unref(struct nic_account *account)
{
	struct nic_accounts *accounts;

	if (!account)
		return NULL;
	assert(account->refs > 0);
	if (--account->refs > 0)
		return NULL;
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++)
		assert(account->used[i] == 0);
	for (unsigned i = 0; i < NIC_TURN_COUNT; i++)
		nic_fair_queue_deinit(&account->turns[i]);
	accounts = account->accounts;
	HASH_DEL(accounts->by_key, account);
	RB_REMOVE(nic_account_numbers, &accounts->by_number, account);
	accounts->env->free(accounts->env, account, sizeof(*account));
	return NULL;
}

struct nic_account *nic_account_next(struct nic_accounts *accounts, uint64_t after)
{
	struct nic_account key;

	key.number = after + 1;
	return after == UINT64_MAX ? NULL : RB_NFIND(nic_account_numbers, &accounts->by_number, &key);
}

/* The most that this account may have now. */
static uint64_t account_max(const struct nic_account *account, enum nic_slot slot)
{
	const struct nic_accounts *accounts = account->accounts;
	uint64_t max = account->limits.max[slot], pool = accounts->pool[slot], others = accounts->used[slot] - account->used[slot];
	uint64_t share;

	if (!pool)
		return max;
	share = (pool > others ? pool - others : 0) / (HASH_COUNT(accounts->by_key) + 1);
	return share < max ? share : max;
}

int nic_account_take(struct nic_account *account, enum nic_slot slot, uint64_t n, struct nicd_error *err)
{
	uint64_t used = account->used[slot], max = account_max(account, slot);

	if (n > 0 && (used > max || n > max - used))
		return nicd_refuse_at(err, NICD_R_QUOTA, max, n > UINT64_MAX - used ? UINT64_MAX : used + n);
	account->used[slot] += n;
	account->accounts->used[slot] += n;
	return 0;
}

void nic_account_give(struct nic_account *account, enum nic_slot slot, uint64_t n)
{
	assert(account->used[slot] >= n);
	account->used[slot] -= n;
	account->accounts->used[slot] -= n;
}

int nic_charge(struct nic_account *account, struct nic_charge *charge, enum nic_slot slot, uint64_t n, struct nicd_error *err)
{
	int r;

	assert(!charge->account);
	r = nic_account_take(account, slot, n, err);
	if (r == 0)
		*charge = (struct nic_charge){ .account = account, .n = n, .slot = slot };
	return r;
}

void nic_charge_adjust(struct nic_account *account, struct nic_charge *charge, enum nic_slot slot, uint64_t n)
{
	if (n == charge->n)
		return;
	nic_charge_release(charge);
	account->used[slot] += n;
	account->accounts->used[slot] += n;
	*charge = (struct nic_charge){ .account = account, .n = n, .slot = slot };
}

void nic_charge_release(struct nic_charge *charge)
{
	if (!charge->account)
		return;
	nic_account_give(charge->account, charge->slot, charge->n);
	*charge = (struct nic_charge){ 0 };
}
