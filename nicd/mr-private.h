/* SPDX-License-Identifier: MIT */
#pragma once
/* The inside of normal MRs, for mr.c (their life, what is under way, and revoking) and mr-register.c only. */
#include <assert.h>

#include "nicd/mr.h"
#include "nicd/revocation.h"

struct nic_mr_op {
	struct nic_mr *mr;
	struct nic_waiter waiter;
	struct nic_revocation revocation;
	struct nic_done *done;          /* of the register or deregister */
	struct nic_done *closed;
	struct nic_receipt receipt;
	struct nic_mr_op *next;         /* spare */
	const struct nic_receipt *outer;   /* what was told before this one's */
	unsigned n_attached;            /* registering: the first of its ranges whose memories the device does not have */
	bool waits;                     /* closing: for windows, which only their owner ends */
	struct nic_cmd cmd;             /* the last: set by nic_cmd_begin */
};

#define mr_op_of(ptr, member) ((struct nic_mr_op *)((char *)(ptr) - offsetof(struct nic_mr_op, member)))

/* Ranges taken from an MR, to be let go when the MR itself may be gone. */
struct mr_ranges {
	struct nic *nic;
	struct nic_memory *one;
	struct nic_range *many;
	unsigned n;
};

static inline struct nic *mr_nic(const struct nic_mr *mr)
{
	return mr->object.owner->nic;
}

/* mr.c: a step that is allowed. */
void mr_step(struct nic_mr *mr, enum nic_life_step step);
/* Sees to it that it has an op. `must`: the last ones are for it, too. NO_MEMORY. */
int mr_op_begin(struct nic_mr *mr, bool must, struct nicd_error *err);
/* Callbacks until mr_op_end may read its receipt. */
struct nic_mr_op *mr_op_steal(struct nic_mr *mr);
void mr_op_end(struct nic *nic, struct nic_mr_op *op);
/* Where they are; `one` is room for the one that is in the MR itself. */
const struct nic_range *mr_ranges(const struct nic_mr *mr, struct nic_range *one);
/* Back to CREATED: nothing of a registration is left. The caller lets go of the ranges when it is done with the MR. */
struct mr_ranges mr_reset(struct nic_mr *mr);
void mr_ranges_let_go(struct mr_ranges *ranges);
/* With an op, by a step that leads to REVOKING: the tokens are void from here on. `waits`: not for the device yet. */
void mr_revoke_start(struct nic_mr *mr, enum nic_life_step step, bool waits, const struct nicd_error *why);
/* Its close is over. */
void mr_end(struct nic_mr *mr, struct nic_done *closed);

/* mr-register.c */
void mr_attached(struct nic_waiter *waiter, const struct nicd_error *error);
