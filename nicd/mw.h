/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A memory window (NdkCreateMw, NdkBind): a part of an MR that the peer of one Qp, and nobody else, may reach by a token of its own.
 *
 * Its states and what leads from one to the other: life.h, NIC_WINDOW_LIFE.
 *
 * Binding and invalidating are work of a Qp, in the order of its other work. A revocation (close, revoke, what ends the MR) waits for no
 * other work: it overtakes a bind or Invalidate that does. The token is valid in BOUND only. The window is FREE again when its Qp ends
 * (the owner hears REVOKED) or when the peer's message invalidates it (REMOTE_INVALIDATED). A drop that the device does not confirm in
 * time is answered and counted as that of an MR; an Invalidate, which may wait for other work, has no such time.
 */
#include "nicd/qp.h"
#include "nicd/revocation.h"

struct nic_mw {
	struct nic_object object;
	TAILQ_ENTRY(nic_mw) of_mr, of_qp;
	struct nic_pd *pd;              /* referenced */
	struct nic_tenants *tenants;    /* of its MR; NULL: the device holds nothing of it */
	struct nic_qp *qp;              /* whose peer may use it; NULL: none, or it has ended */
	uint64_t iova, length;
	uint64_t pinned;                /* charged */
	uint32_t generation;            /* counts bindings */
	uint32_t remote_token;
	uint8_t state;                  /* enum nic_mw_state */
	uint8_t rights;                 /* NIC_REMOTE_READ, NIC_REMOTE_WRITE */
	bool closing;
	bool evicted;                   /* it is to go, by other orders than its owner's */
	bool ordered;                   /* what is under way may wait for other work of a Qp */
	bool gone;                      /* binding: the peer has invalidated it before we heard that it is there */
	bool rushing;                   /* `rush` is under way */
	bool rush_counts;               /* what it comes to says that the tag is gone */
	unsigned held;                  /* we are in the middle of it: it is freed later */
	uint64_t at_ns;                 /* wall clock, when it was dropped; of the last time */
	uint32_t streams_cut;           /* by that */
	struct nic_done *done;          /* of the bind, invalidate or revoke */
	struct nic_done *closed;
	struct nic_revocation revocation;
	struct nic_qp *work;            /* whose work `cmd` is, and who waits for it; NULL: nobody */
	struct nic_cmd cmd;             /* adds or drops the tag */
	struct nic_cmd rush;            /* drops it at once, beside an ordered cmd */
};

struct nic_bind {
	struct nic_object *mr;          /* NIC_MR, of either kind */
	struct nic_qp *qp;
	uint64_t iova;                  /* as the MR counts */
	uint64_t length;
	uint32_t flags;                 /* NIC_OP_* */
};

/* HANDLE (PD closing), QUOTA, NO_MEMORY. */
int nic_mw_new(struct nic_mw **ret, struct nic_pd *pd, struct nicd_error *err);

/*
 * Checks everything before it takes or sends anything; refusals are returned at once and then done is not called. The order of
 * checks: MW_STATE, PD_MISMATCH, MR_STATE, QP_STATE, FLAGS or OP_FLAGS, WINDOW_RIGHTS, LENGTH_ZERO, IOVA_OVERFLOW, WINDOW_RANGE,
 * NO_ADAPTER; last what must be taken: IN_FLIGHT, QP_WINDOWS, QUOTA, NO_MEMORY. done: success; QP_LOST or FLUSHED: the Qp ended first; REVOKED; what the device says.
 */
int nic_mw_bind(struct nic_mw *mw, const struct nic_bind *what, struct nic_done *done, struct nicd_error *err);
/*
 * As work of any connected Qp of its PD. MW_STATE, PD_MISMATCH, QP_STATE, OP_FLAGS, IN_FLIGHT; else done is called: success, also when the window went by
 * itself meanwhile, or DEVICE_FAILED.
 */
int nic_mw_invalidate(struct nic_mw *mw, struct nic_qp *qp, uint32_t flags, struct nic_done *done, struct nicd_error *err);
int nic_mw_remote_token(const struct nic_mw *mw, uint32_t *ret, struct nicd_error *err);   /* MW_STATE */
/* Cannot fail. */
void nic_mw_close(struct nic_mw *mw, struct nic_done *done);

/*
 * Only for nicd/. `why` NULL: the owner is not told. MW_STATE; DEVICE_BUSY: a bind or Invalidate under way, which is overtaken; else done is
 * called: success or REVOKE_UNCONFIRMED.
 */
int nic_mw_revoke(struct nic_mw *mw, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
/* For its MR's tenants: it is to go, as soon as the device lets it. */
void nic_mw_evict(struct nic_mw *mw, const struct nicd_error *why);
/* Its Qp has ended, and the device's tag of it with that. */
void nic_mw_qp_gone(struct nic_mw *mw, const struct nicd_error *why);
/* The device has dropped it, because the peer's message said so. */
void nic_mw_invalidated(struct nic_mw *mw, uint32_t generation);
void nic_mw_lost(struct nic_mw *mw);
