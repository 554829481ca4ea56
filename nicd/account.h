/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Accounts: who pays. An account is an opaque key that policy derives from uid, gid, cgroup or session. Everything that costs
 * something embeds a charge and is charged before the thing is taken; the destructor releases it; nic_account_unref
 * asserts that nothing is left, so a leak is a crash in the tests. The model is dbus-broker's user accounting.
 */
#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "nicd/env.h"
#include "nicd/fair.h"
#include "proto/reason.h"

/* X(NAME, default maximum, name in lists) */
#define NIC_SLOTS(X) \
	X(SESSIONS, 1024, "sessions") \
	X(MEMORIES, 65536, "memories") \
	X(FDS, 8192, "fds") \
	X(PINNED, UINT64_C(64) << 30, "pinned_bytes") \
	X(PDS, 4096, "pds") \
	X(MRS, 1u << 20, "mrs") \
	X(MWS, 65536, "mws") \
	X(MAPPINGS, 65536, "mappings") \
	X(QPS, 4096, "qps") \
	X(DOORS, 16384, "doors") \
	X(CALLS, 65536, "calls") \
	X(RECEIVES, 16384, "receives") \
	X(BUFFERED, UINT64_C(64) << 20, "buffered_bytes")

enum nic_slot {
#define X(name, max, text) NIC_SLOT_##name,
	NIC_SLOTS(X)
#undef X
	NIC_SLOT_COUNT
};

/* What an account waits for among others, in a queue for each. */
enum nic_turn {
	NIC_TURN_NONE,
	NIC_TURN_READ,      /* its sessions have something to read */
	NIC_TURN_DEVICE,    /* requests that the device works on: registering, deregistering, doors, closing */
	NIC_TURN_CONNECT,   /* connections that it makes */
	NIC_TURN_RELEASE,   /* sessions that have ended, whose objects are closed */
	NIC_TURN_COUNT
};

extern const char *const nic_slot_names[NIC_SLOT_COUNT];

struct nic_limits {
	uint64_t max[NIC_SLOT_COUNT];
};
extern const struct nic_limits nic_limits_default;

RB_HEAD(nic_account_numbers, nic_account);

struct nic_accounts {
	struct nic_env *env;
	struct nic_account *by_key;   /* uthash */
	struct nic_account_numbers by_number;
	uint64_t last_number;
	struct nic_limits limits;     /* of every account */
	uint64_t used[NIC_SLOT_COUNT];/* of all accounts */
	/*
	 * What there is for all of them together; 0: no end. Of that nobody takes what others are guaranteed: what is
	 * left must let each account there is have as much as this one would. The first one gets half, the nth of n at
	 * least 1/(n+1)^2 of all.
	 */
	uint64_t pool[NIC_SLOT_COUNT];
};

struct nic_account {
	struct nic_accounts *accounts;
	uint64_t number;              /* from 1, in the order in which they came; never used twice */
	RB_ENTRY(nic_account) by_number;
	unsigned refs;
	uint64_t used[NIC_SLOT_COUNT];
	struct nic_limits limits;
	struct nic_fair_queue turns[NIC_TURN_COUNT];
	UT_hash_handle hh;
	char key[256];                /* "uid:1000" */
};

/* A charge in force; all zero: none. */
struct nic_charge {
	struct nic_account *account;  /* borrowed: whoever embeds this holds a reference to the account */
	uint64_t n;
	enum nic_slot slot;
};

void nic_accounts_init(struct nic_accounts *accounts, struct nic_env *env, const struct nic_limits *limits);
/* Asserts that no account is left. */
void nic_accounts_deinit(struct nic_accounts *accounts);

/* The account of this key, made when there is none; *ret is a reference to give back with nic_account_unref. -ENOMEM. */
int nic_account_get(struct nic_accounts *accounts, const char *key, struct nic_account **ret);
struct nic_account *nic_account_ref(struct nic_account *account);
/* At the last one asserts that all slots are zero. NULL allowed; returns NULL. */
struct nic_account *nic_account_unref(struct nic_account *account);

/* The one with the lowest number above `after`, or NULL: for paging. */
struct nic_account *nic_account_next(struct nic_accounts *accounts, uint64_t after);

/* Takes n of a slot, or refuses with QUOTA (limit: the maximum, observed: what it would come to). n may be 0. */
int nic_charge(struct nic_account *account, struct nic_charge *charge, enum nic_slot slot, uint64_t n, struct nicd_error *err);
/* Takes or gives back what makes it n, also above the maximum: for what cannot be refused any more. */
void nic_charge_adjust(struct nic_account *account, struct nic_charge *charge, enum nic_slot slot, uint64_t n);
/* Gives it back; does nothing on a zero charge. */
void nic_charge_release(struct nic_charge *charge);
/* The same two for whoever knows account, slot and n without a charge of its own, because there are a million of it. */
int nic_account_take(struct nic_account *account, enum nic_slot slot, uint64_t n, struct nicd_error *err);
void nic_account_give(struct nic_account *account, enum nic_slot slot, uint64_t n);
