/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The inside of fast-register MRs, for frmr.c (their life, and who may use them), frmr-op.c (what is under way), frmr-register.c and
 * frmr-drop.c only.
 */
#include <assert.h>

#include "nicd/frmr.h"
#include "nicd/revocation.h"

struct nic_frmr_op {
	struct nic_frmr *frmr;          /* NULL: an orphan */
	struct nic *nic;
	struct nic_qp *qp;              /* whose work it is; NULL: nobody's */
	struct nic_order order;
	struct nic_waiter waiter;
	struct nic_revocation revocation;   /* of a drop, of the reservation, too */
	struct nic_done *done;
	struct nic_done *closed;
	struct nic_receipt receipt;
	unsigned n_attached;            /* registering: the first of its ranges whose memories the device does not have */
	uint16_t place;
	uint32_t generation;            /* of a hurry: whose tag it drops */
	bool gone;                      /* registering: a peer has invalidated it before we heard that it is there */
	bool waits;                     /* closing: for windows, which the owner is to end */
	struct nic_cmd cmd;
};

#define frmr_op_of(ptr, member) ((struct nic_frmr_op *)((char *)(ptr) - offsetof(struct nic_frmr_op, member)))

/* What an owner hears of a drop that it did not ask for. */
struct frmr_news {
	enum nic_event event;
	const struct nicd_error *why;
};

/* What it had in use, to be let go when the MR itself may be gone. */
struct frmr_users {
	struct nic_tenants *tenants;
	struct nic_mapping *mapping;
	struct nic_memory *memories[NICD_RANGES];
	unsigned n;
};

static inline struct nic *frmr_nic(const struct nic_frmr *frmr)
{
	return frmr->object.owner->nic;
}

static inline const struct nic_range *frmr_ranges(const struct nic_frmr *frmr)
{
	return frmr->n_ranges > 1 ? frmr->many : &frmr->one;
}

/* frmr.c: a step that is allowed; whether it is. */
void frmr_step(struct nic_frmr *frmr, enum nic_life_step step);
int frmr_check(const struct nic_frmr *frmr, enum nic_life_step step, struct nicd_error *err);
/* Nothing of a registration is left; what it had in use is let go when the MR itself may be gone. */
void frmr_reset(struct nic_frmr *frmr, struct frmr_users *users);
/* By a step that leads to FREE, and all that. */
void frmr_set_free(struct nic_frmr *frmr, enum nic_life_step step, struct frmr_users *users);
void frmr_users_let_go(const struct frmr_users *users);
/* Its close is over. `op` NULL: there was nothing to do for it. */
void frmr_end(struct nic_frmr *frmr, struct nic_frmr_op *op, struct nic_done *closed);

/* frmr-op.c. NO_MEMORY. */
struct nic_frmr_op *frmr_op_new(struct nic_frmr *frmr, struct nicd_error *err);
/* Sees to it that it has one. NO_MEMORY. */
int frmr_op_begin(struct nic_frmr *frmr, struct nicd_error *err);
struct nic_frmr_op *frmr_op_steal(struct nic_frmr *frmr);
/* The callback may read its receipt. */
void frmr_op_tell(struct nic_frmr_op *op, struct nic_done *done, const struct nicd_error *error);
/* What is still to do is nobody's work: the Qp may go. */
void frmr_op_leave_qp(struct nic_frmr_op *op);
/* Its answer was given; the Qp that it was work of may go. */
void frmr_op_end(struct nic_frmr_op *op);

/* frmr-register.c */
void frmr_attached(struct nic_waiter *waiter, const struct nicd_error *error);

/* frmr-drop.c: with an op, by a step that leads to INVALIDATING: the tokens are void from here on. `waits`: not for the device yet. */
void frmr_drop_start(struct nic_frmr *frmr, enum nic_life_step step, bool waits, const struct frmr_news *news);
void frmr_deadline(struct nic_deadline *deadline);
/* Closing, with nothing registered: the reservation goes, then it ends. */
void frmr_release(struct nic_frmr *frmr);
