/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A normal memory region.
 *
 * Its states and what leads from one to the other: life.h, NIC_NORMAL_LIFE.
 *
 * Tokens are valid in REGISTERED only: they die when deregister starts. Deregistering first cuts the exports made of the
 * MR, then drops the tag. Windows bound to it are the owner's to end: until then it is refused, while closing waits for them; all other
 * revocations end them, too. Closing works from every state: it waits for a registration under way, deregisters what is
 * registered, and ends last. A revocation that the device does not confirm in time is answered REVOKE_UNCONFIRMED; the MR
 * stays charged and counted in nic->quarantined, and the owner hears REVOKE_CONFIRMED later.
 */
#include "nicd/life.h"
#include "nicd/pd.h"
#include "nicd/provider.h"
#include "nicd/tenants.h"
#include "nicd/range.h"

struct nic_register {
	const struct nic_range *ranges;
	unsigned n_ranges;
	uint64_t iova;
	uint64_t length;   /* 0: all of the ranges */
	uint32_t flags;
};

/* What a revocation did. */
struct nic_receipt {
	uint64_t at_ns;             /* wall clock */
	uint32_t streams_cut;
	uint32_t grants;
	uint32_t n_exports;         /* how many died; the serials of the first NIC_RECEIPT_EXPORTS of them: */
	uint64_t *exports;          /* as long as the receipt; NULL: there never were any */
};
enum { NIC_RECEIPT_EXPORTS = 64 };

/*
 * There may be a million of them: what an MR needs only while it is registered or revoked is in its `op`, made then. Nearly all have
 * one range, which is in the MR itself.
 */
struct nic_mr {
	struct nic_object object;
	uint32_t local_token, remote_token;
	uint32_t generation;
	uint8_t state;                  /* enum nic_mr_state */
	uint8_t rights;                 /* effective */
	uint8_t n_ranges;
	bool closing;
	uint64_t iova, length;
	struct nic_pd *pd;              /* referenced */
	union {
		struct {                /* n_ranges 1: `length` bytes of */
			struct nic_memory *memory;
			uint64_t offset;
		} one;
		struct nic_range *many; /* n_ranges of them */
	};                              /* each range is a user of its memory */
	uint64_t pinned;                /* charged */
	struct nic_mr_op *op;           /* NULL: nothing is under way */
	struct nic_tenants *tenants;    /* NULL: there were none since it was registered */
};
_Static_assert(sizeof(struct nic_mr) <= 168, "with its place in the tables an MR stays well below 192 bytes");

/* PD closing, QUOTA, NO_MEMORY. */
int nic_mr_new(struct nic_mr **ret, struct nic_pd *pd, struct nicd_error *err);

/*
 * Checks everything before it takes anything; refusals are returned at once and then done is not called. 0: done is called with
 * the outcome. The order of checks: MR_STATE, NO_ADAPTER, COUNT, FLAGS; per range HANDLE (its memory is closing), LENGTH_ZERO,
 * RANGE_OVERFLOW, RANGE_BEYOND, RANGE_NOT_JOINED; then LENGTH_BEYOND, LENGTH_LIMIT, IOVA_ZERO, IOVA_MISFIT, IOVA_OVERFLOW,
 * MEMORY_READ_ONLY; last what must be taken: QUOTA, NO_MEMORY. Ranges behind `length` are checked and not used.
 */
int nic_mr_register(struct nic_mr *mr, const struct nic_register *what, struct nic_done *done, struct nicd_error *err);

/* MR_STATE when not REGISTERED (or ERROR), WINDOW_BOUND, NO_MEMORY; else done is called: success, REVOKE_UNCONFIRMED, or DEVICE_FAILED. */
int nic_mr_deregister(struct nic_mr *mr, struct nic_done *done, struct nicd_error *err);

/* Sees to it that closing cannot fail for lack of memory. NO_MEMORY. */
int nic_mr_prepare_close(struct nic_mr *mr, struct nicd_error *err);
/* Cannot fail; aborts when there is no memory and nic_mr_prepare_close was not asked. */
void nic_mr_close(struct nic_mr *mr, struct nic_done *done);

int nic_mr_local_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err);   /* MR_STATE */
int nic_mr_remote_token(const struct nic_mr *mr, uint32_t *ret, struct nicd_error *err);  /* MR_STATE, NO_REMOTE_RIGHTS */

/* Inside the done callback of a revocation or close: what it did. All zero when there was nothing to revoke. */
const struct nic_receipt *nic_mr_receipt(const struct nic *nic);

/* Only for nicd/. Deregisters; `why` (may be NULL): the owner hears REVOKED. */
int nic_mr_revoke(struct nic_mr *mr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
/* False: there is no memory for it now; ask again. */
bool nic_mr_lost(struct nic_mr *mr);
/* Memory for so many operations is kept ready, for those that may not fail. -ENOMEM. */
int nic_mr_ops_reserve(struct nic *nic);
void nic_mr_ops_free(struct nic *nic);
/* Sees to it that it has mr->tenants, for an export or a window. NO_MEMORY. */
int nic_mr_expect(struct nic_mr *mr, bool exports, struct nicd_error *err);
/* The ranges of [offset, offset + length) of the MR, for a tag; returns how many. */
unsigned nic_mr_tag_ranges(const struct nic_mr *mr, uint64_t offset, uint64_t length, struct nic_tag_range *ret);
