/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A fast-register memory region (NdkCreateMr with FastRegister): the MR of NdkInitializeFastRegisterMr, NdkFastRegister and NdkInvalidate.
 *
 * Its states and what leads from one to the other: life.h, NIC_FAST_LIFE.
 *
 * Initializing has the device reserve a pair of tokens that grant nothing; they are what an MR that is FREE shows, and no other tag gets
 * them while it lives. Each fast registration is a tag of its own with new tokens, which are shown from its completion on. It is work of a
 * connected Qp of the same PD, in the order of that Qp's other work; so is Invalidate. A revocation (close, revoke, the end of the
 * session) waits for no other work: it overtakes an Invalidate or a registration that does.
 *
 * Peers may invalidate what has remote rights; then it is FREE without a call of the owner's, who hears REMOTE_INVALIDATED. A drop
 * that the device does not confirm in time is answered and counted as that of a normal MR.
 */
#include "nicd/mapping.h"
#include "nicd/mr.h"
#include "nicd/qp.h"
#include "nicd/tenants.h"

struct nic_frmr_tokens {
	uint32_t local, remote;
};

struct nic_frmr {
	struct nic_object object;       /* NIC_MR, NIC_KIND_FAST */
	uint32_t generation;            /* of its tag: fast registrations so far */
	uint32_t pages;                 /* of NICD_PAGE, that one of them may name; 0: not initialized */
	struct nic_frmr_tokens reserved, valid;
	uint8_t state;                  /* enum nic_fast_state */
	uint8_t rights;                 /* effective */
	uint8_t n_ranges;
	bool remote_access;
	bool closing;
	bool evicted;                   /* the registration is to go, by other orders than its owner's */
	uint64_t reservation;           /* serial of the reserved tag; 0: the device has none */
	uint64_t iova, length;
	uint64_t pinned;                /* charged */
	struct nic_pd *pd;              /* referenced */
	struct nic_range one;           /* n_ranges 1 */
	struct nic_mapping *mapping;    /* used; NULL: ranges were named */
	struct nic_range *many;         /* NICD_RANGES of them, made for the first registration that has more than one, and kept */
	struct nic_frmr_op *op;         /* NULL: nothing is under way */
	struct nic_frmr_op *spare;      /* for a close that overtakes what is under way */
	struct nic_frmr_op *hurry;      /* a drop beside a registration that may be waiting, of this generation or a former one; NULL: none */
	struct nic_tenants *tenants;    /* windows bound to it; NULL: there were none since it is VALID */
};

/* PD closing (HANDLE), QUOTA, NO_MEMORY. */
int nic_frmr_new(struct nic_frmr **ret, struct nic_pd *pd, struct nicd_error *err);

/*
 * In FREE with other arguments, too: they count from the next registration on, and done is called before this returns. Refuses with
 * MR_STATE, NO_ADAPTER, PAGE_COUNT, NO_MEMORY.
 */
int nic_frmr_initialize(struct nic_frmr *frmr, uint32_t pages, bool remote_access, struct nic_done *done, struct nicd_error *err);

struct nic_fast_register {
	struct nic_mapping *mapping;      /* of the same owner; or, when NULL: */
	const struct nic_range *ranges;   /* each from a page on; only the last may end inside one */
	unsigned n_ranges;
	uint32_t first_byte_offset;       /* in the first page; not before the first byte of a mapping */
	uint64_t length;
	uint64_t iova;
	uint32_t flags;                   /* NIC_OP_* */
};

/*
 * Checks everything before anything is taken or sent; refusals are returned at once and then done is not called. The order of checks:
 * MR_STATE, NO_ADAPTER, FLAGS, OP_FLAGS, MAPPING_OR_RANGES, those of nic_ranges_check, PAGES_BEYOND, FIRST_BYTE, LENGTH_ZERO, LENGTH_BEYOND, IOVA_ZERO, IOVA_MISFIT,
 * IOVA_OVERFLOW, NO_REMOTE_ACCESS, MEMORY_READ_ONLY, PD_MISMATCH, QP_STATE, IN_FLIGHT; last what must be taken: HANDLE (the mapping is closing, or not there yet), QUOTA, NO_MEMORY.
 */
int nic_frmr_register(struct nic_frmr *frmr, struct nic_qp *qp, const struct nic_fast_register *what, struct nic_done *done,
		      struct nicd_error *err);

/*
 * MR_STATE, FLAGS, OP_FLAGS, WINDOW_BOUND, PD_MISMATCH, QP_STATE, IN_FLIGHT, NO_MEMORY; else done is called: success, REVOKE_UNCONFIRMED, or
 * DEVICE_FAILED.
 */
int nic_frmr_invalidate(struct nic_frmr *frmr, struct nic_qp *qp, uint32_t flags, struct nic_done *done, struct nicd_error *err);

/* Sees to it that closing cannot fail for lack of memory. NO_MEMORY. */
int nic_frmr_prepare_close(struct nic_frmr *frmr, struct nicd_error *err);
/* Cannot fail; aborts when there is no memory and nic_frmr_prepare_close was not asked. Waits for the owner's windows. */
void nic_frmr_close(struct nic_frmr *frmr, struct nic_done *done);

int nic_frmr_local_token(const struct nic_frmr *frmr, uint32_t *ret, struct nicd_error *err);   /* MR_STATE */
int nic_frmr_remote_token(const struct nic_frmr *frmr, uint32_t *ret, struct nicd_error *err);  /* MR_STATE, NO_REMOTE_RIGHTS */

/* Only for nicd/. Invalidates, at once; `why` (may be NULL): the owner hears REVOKED. MR_STATE, NO_MEMORY;
 * DEVICE_BUSY: a registration or Invalidate under way, which is overtaken. */
int nic_frmr_revoke(struct nic_frmr *frmr, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
/* False: there is no memory for it now; ask again. */
bool nic_frmr_lost(struct nic_frmr *frmr);
/* The device has dropped its tag, because a peer's message said so. The MR may be gone afterwards. */
void nic_frmr_invalidated(struct nic_frmr *frmr, uint32_t generation);
/* Room for a window to stand on what is VALID. NO_MEMORY. */
int nic_frmr_expect(struct nic_frmr *frmr, struct nicd_error *err);
/* The ranges of [offset, offset + length) of what is VALID, for a tag; returns how many. */
unsigned nic_frmr_tag_ranges(const struct nic_frmr *frmr, uint64_t offset, uint64_t length, struct nic_tag_range *ret);
/* For nic_init: what nic->frmrs and nic->frmr_ops are pools of. */
size_t nic_frmr_op_size(void);
