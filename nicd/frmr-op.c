/* SPDX-License-Identifier: MIT */
/*
 * What is under way of a fast-register MR, from a pool. Its MR has it until it ends; whoever ends it takes it out first, calls back, and
 * gives it back last. One that was overtaken is its MR's no more, and ends when the device answers.
 */
#include "nicd/frmr-private.h"

size_t nic_frmr_op_size(void)
{
	return sizeof(struct nic_frmr_op);
}

struct nic_frmr_op *frmr_op_new(struct nic_frmr *frmr, struct nicd_error *err)
{
	struct nic *nic = frmr_nic(frmr);
	struct nic_frmr_op *op;
	uint16_t place;

	op = nic_pool_take(&nic->frmr_ops, &place);
	if (!op) {
		nicd_refuse(err, NICD_R_NO_MEMORY);
		return NULL;
	}
	op->frmr = frmr;
	op->nic = nic;
	op->place = place;
	op->waiter.fn = frmr_attached;
	op->revocation.deadline.fn = frmr_deadline;
	return op;
}

int frmr_op_begin(struct nic_frmr *frmr, struct nicd_error *err)
{
	if (!frmr->op)
		frmr->op = frmr_op_new(frmr, err);
	return frmr->op ? 0 : -ENOMEM;
}

struct nic_frmr_op *frmr_op_steal(struct nic_frmr *frmr)
{
	struct nic_frmr_op *op = frmr->op;

	frmr->op = NULL;
	return op;
}

void frmr_op_tell(struct nic_frmr_op *op, struct nic_done *done, const struct nicd_error *error)
{
	const struct nic_receipt *outer = op->nic->telling;

	op->nic->telling = &op->receipt;
	nic_done_end(done, error);
	op->nic->telling = outer;
}

void frmr_op_leave_qp(struct nic_frmr_op *op)
{
	struct nic_qp *qp = op->qp;

	op->qp = NULL;
	if (qp)
		nic_qp_end_work(qp);
}

void frmr_op_end(struct nic_frmr_op *op)
{
	struct nic_qp *qp = op->qp;

	assert(!op->revocation.deadline.armed && !op->revocation.unconfirmed);
	nic_pool_give(&op->nic->frmr_ops, op, op->place);
	if (qp)
		nic_qp_end_work(qp);
}
