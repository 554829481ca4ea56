/* SPDX-License-Identifier: MIT */
#pragma once
/* A protection domain: the scope of tokens. Closing drops the id at once and ends when its last child (MR, Qp, ticket) is gone. */
#include "nicd/adapter.h"
#include "nicd/nic.h"

struct nic_pd {
	struct nic_object object;
	struct nic_adapter *adapter;
	struct nic_charge charge;
	uint32_t children;
	bool closing;
	struct nic_done *closed;
};

/* NO_ADAPTER (down), QUOTA, NO_MEMORY. */
int nic_pd_new(struct nic_pd **ret, struct nic_owner *owner, struct nic_adapter *adapter, struct nicd_error *err);
void nic_pd_close(struct nic_pd *pd, struct nic_done *done);
/* For nicd/: children take and give back. */
void nic_pd_ref(struct nic_pd *pd);
void nic_pd_unref(struct nic_pd *pd);
