/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A normal memory region.
 *
 *   CREATED --register--> REGISTERING --ok--> REGISTERED --deregister--> REVOKING --confirmed--> CREATED
 *               ^------------- failed ---'                                  '--- refused ---> ERROR --deregister--> REVOKING
 *
 * Tokens are valid in REGISTERED only: they die when deregister starts. Deregistering first cuts the exports made of the
 * MR, then drops the tag. Closing works from every state: it waits for a registration under way, deregisters what is
 * registered, and ends last. A revocation that the device does not confirm in time is answered REVOKE_UNCONFIRMED; the MR
 * stays charged and counted in nic->quarantined, and the owner hears REVOKE_CONFIRMED later.
 */
#include "nicd/memory.h"
#include "nicd/pd.h"
#include "nicd/provider.h"

enum nic_mr_state {
	NIC_MR_CREATED,
	NIC_MR_REGISTERING,
	NIC_MR_REGISTERED,
	NIC_MR_REVOKING,
	NIC_MR_ERROR,
};
const char *nic_mr_state_name(enum nic_mr_state state);

struct nic_range {
	struct nic_memory *memory;
	uint64_t offset;
	uint64_t length;
};

struct nic_register {
	const struct nic_range *ranges;
	unsigned n_ranges;
	uint64_t iova;
	uint64_t length;   /* 0: all of the ranges */
	uint32_t flags;
};

/* What the last revocation did; valid in its done callback and after it. */
struct nic_receipt {
	uint64_t at_ns;             /* wall clock */
	uint32_t streams_cut;
	uint32_t grants;
	uint32_t n_exports;         /* how many died; the serials of the first NIC_RECEIPT_EXPORTS of them: */
	uint64_t *exports;          /* owned by the MR */
};
enum { NIC_RECEIPT_EXPORTS = 64 };

struct nic_mr {
	struct nic_object object;
	struct nic_pd *pd;              /* referenced */
	enum nic_mr_state state;
	uint32_t generation;
	uint32_t rights;                /* effective */
	uint64_t iova, length;
	uint32_t local_token, remote_token;
	struct nic_range *ranges;       /* n_ranges, each a user of its memory; &one when there is only one */
	struct nic_range one;
	unsigned n_ranges;
	unsigned n_attached;            /* registering: the first of them whose memories the device has */
	struct nic_waiter waiter;
	struct nic_charge charge, charge_pinned;
	TAILQ_HEAD(, nic_export) exports;
	struct nic_cmd cmd;
	struct nic_done *done;          /* of the register or deregister under way */
	struct nic_done *closed;
	struct nic_deadline deadline;
	struct nic_receipt *receipt;    /* = &last */
	struct nic_receipt last;
	bool closing;
	bool unconfirmed;               /* counted in nic->quarantined */
	bool promised;                  /* REVOKE_UNCONFIRMED was answered: the owner is owed REVOKE_CONFIRMED */
	bool retry;                     /* the device refused, nobody is there to ask again: the deadline will */
	bool killing;                   /* its exports are being told */
};

/* PD closing, QUOTA, NO_MEMORY. */
int nic_mr_new(struct nic_mr **ret, struct nic_pd *pd, struct nicd_error *err);

/*
 * Checks everything before it takes anything; refusals are returned at once and then done is not called. 0: done is called with
 * the outcome. The order of checks: MR_STATE, NO_ADAPTER, COUNT, FLAGS; per range HANDLE (its memory is closing), LENGTH_ZERO,
 * RANGE_OVERFLOW, RANGE_BEYOND, RANGE_NOT_JOINED; then LENGTH_BEYOND, LENGTH_LIMIT, IOVA_ZERO, IOVA_MISFIT, IOVA_OVERFLOW,
 * MEMORY_READ_ONLY; last what must be taken: QUOTA, NO_MEMORY. Ranges behind `length` are checked and not used.
 */
int nic_mr_register(struct nic_mr *mr, const struct nic_register *what, struct nic_done *done, struct nicd_error *err);

/* MR_STATE when not REGISTERED (or ERROR), else done is called: success, REVOKE_UNCONFIRMED, or DEVICE_FAILED. */
int nic_mr_deregister(struct nic_mr *mr, struct nic_done *done, struct nicd_error *err);

/* Cannot fail. */
void nic_mr_close(struct nic_mr *mr, struct nic_done *done);

int nic_mr_local_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err);   /* MR_STATE */
int nic_mr_remote_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err);  /* MR_STATE, NO_REMOTE_RIGHTS */

/* Only for nicd/. Deregisters; `why` (may be NULL): the owner hears REVOKED. */
int nic_mr_revoke(struct nic_mr *mr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
void nic_mr_lost(struct nic_mr *mr);
/* Room for the receipt to list exports. NO_MEMORY. */
int nic_mr_expect_exports(struct nic_mr *mr, struct nicd_error *err);
/* An export died and is out of mr->exports; the MR may be gone afterwards. */
void nic_mr_export_died(struct nic_mr *mr, const struct nic_export *door);
/* The ranges of [offset, offset + length) of the MR, for a tag; returns how many. */
unsigned nic_mr_tag_ranges(const struct nic_mr *mr, uint64_t offset, uint64_t length, struct nic_tag_range *ret);
