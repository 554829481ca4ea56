/* SPDX-License-Identifier: MIT */
#pragma once
/* Memory regions of either kind, for those who do not care which: an object of type NIC_MR is a struct nic_mr or a struct nic_frmr. */
#include "nicd/frmr.h"

struct nic_region {
	struct nic_pd *pd;
	uint64_t iova, length;
	uint32_t rights;        /* effective; 0: nothing is registered */
	uint8_t state;          /* of its kind, in life.h */
	uint8_t n_ranges;
	bool closing;
};

static inline bool nic_is_frmr(const struct nic_object *object)
{
	return object->type == NIC_MR && object->kind == NIC_KIND_FAST;
}
/* NULL: it is of the other kind. */
static inline struct nic_mr *nic_object_mr(struct nic_object *object)
{
	return object->type != NIC_MR || nic_is_frmr(object) ? NULL : (struct nic_mr *)object;
}
static inline struct nic_frmr *nic_object_frmr(struct nic_object *object)
{
	return nic_is_frmr(object) ? (struct nic_frmr *)object : NULL;
}

struct nic_region nic_region(const struct nic_object *object);
/* As those of mr.h and frmr.h. */
int nic_region_prepare_close(struct nic_object *object, struct nicd_error *err);
void nic_region_close(struct nic_object *object, struct nic_done *done);
int nic_region_revoke(struct nic_object *object, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
bool nic_region_lost(struct nic_object *object);
int nic_region_local_token(const struct nic_object *object, uint32_t *ret, struct nicd_error *err);
int nic_region_remote_token(const struct nic_object *object, uint32_t *ret, struct nicd_error *err);
/* What stands on it; NULL: nothing. */
const struct nic_tenants *nic_region_tenants(const struct nic_object *object);
/* What stands on it, made when there was nothing yet; NULL: NO_MEMORY. */
struct nic_tenants *nic_region_expect(struct nic_object *object, struct nicd_error *err);
unsigned nic_region_tag_ranges(const struct nic_object *object, uint64_t offset, uint64_t length, struct nic_tag_range *ret);
