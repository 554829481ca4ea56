/* SPDX-License-Identifier: MIT */
/* Which of the two kinds an MR is, and off to that. */
#include "nicd/region.h"

struct nic_region nic_region(const struct nic_object *object)
{
	const struct nic_frmr *frmr = (const struct nic_frmr *)object;
	const struct nic_mr *mr = (const struct nic_mr *)object;

	if (nic_is_frmr(object))
		return (struct nic_region){ frmr->pd, frmr->iova, frmr->length, frmr->rights, frmr->state, frmr->n_ranges, frmr->closing };
	return (struct nic_region){ mr->pd, mr->iova, mr->length, mr->rights, mr->state, mr->n_ranges, mr->closing };
}

int nic_region_prepare_close(struct nic_object *object, struct nicd_error *err)
{
	if (nic_is_frmr(object))
		return nic_frmr_prepare_close((struct nic_frmr *)object, err);
	return nic_mr_prepare_close((struct nic_mr *)object, err);
}

void nic_region_close(struct nic_object *object, struct nic_done *done)
{
	if (nic_is_frmr(object))
		nic_frmr_close((struct nic_frmr *)object, done);
	else
		nic_mr_close((struct nic_mr *)object, done);
}

int nic_region_revoke(struct nic_object *object, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	if (nic_is_frmr(object))
		return nic_frmr_revoke((struct nic_frmr *)object, why, done, err);
	return nic_mr_revoke((struct nic_mr *)object, why, done, err);
}

bool nic_region_lost(struct nic_object *object)
{
	if (nic_is_frmr(object))
		return nic_frmr_lost((struct nic_frmr *)object);
	return nic_mr_lost((struct nic_mr *)object);
}

int nic_region_local_token(const struct nic_object *object, uint32_t *ret, struct nicd_error *err)
{
	if (nic_is_frmr(object))
		return nic_frmr_local_token((const struct nic_frmr *)object, ret, err);
	return nic_mr_local_token((const struct nic_mr *)object, ret, err);
}

int nic_region_remote_token(const struct nic_object *object, uint32_t *ret, struct nicd_error *err)
{
	if (nic_is_frmr(object))
		return nic_frmr_remote_token((const struct nic_frmr *)object, ret, err);
	return nic_mr_remote_token((const struct nic_mr *)object, ret, err);
}

unsigned nic_region_tag_ranges(const struct nic_object *object, uint64_t offset, uint64_t length, struct nic_tag_range *ret)
{
	if (nic_is_frmr(object))
		return nic_frmr_tag_ranges((const struct nic_frmr *)object, offset, length, ret);
	return nic_mr_tag_ranges((const struct nic_mr *)object, offset, length, ret);
}

const struct nic_tenants *nic_region_tenants(const struct nic_object *object)
{
	if (nic_is_frmr(object))
		return ((const struct nic_frmr *)object)->tenants;
	return ((const struct nic_mr *)object)->tenants;
}

struct nic_tenants *nic_region_expect(struct nic_object *object, struct nicd_error *err)
{
	struct nic_frmr *frmr = (struct nic_frmr *)object;
	struct nic_mr *mr = (struct nic_mr *)object;

	if (nic_is_frmr(object))
		return nic_frmr_expect(frmr, err) < 0 ? NULL : frmr->tenants;
	return nic_mr_expect(mr, false, err) < 0 ? NULL : mr->tenants;
}
