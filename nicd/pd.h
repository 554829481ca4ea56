/* SPDX-License-Identifier: MIT */
#pragma once
/* A protection domain: the scope of tokens. Closing drops the id at once and ends when its last child (MR, Qp, ticket) is gone. */
#include "nicd/adapter.h"
#include "nicd/nic.h"

struct nic_pd {
	struct nic_object object;
	struct nic_adapter *adapter;
	struct nic_charge charge;
	uint32_t children;             /* MRs, windows, Qps, doors, and questions for its key */
	bool closing;
	bool keyed;                    /* the device was asked for its privileged key */
	bool dropping;                 /* and to drop it */
	struct nic_cmd cmd;
	struct nic_deadline deadline;  /* to ask again when it refused */
	struct nic_done *closed;
};

/* NO_ADAPTER (down), QUOTA, NO_MEMORY. */
int nic_pd_new(struct nic_pd **ret, struct nic_owner *owner, struct nic_adapter *adapter, struct nicd_error *err);
void nic_pd_close(struct nic_pd *pd, struct nic_done *done);
/* A question for the PD's privileged token; the caller's until done. */
struct nic_key {
	struct nic_cmd cmd;            /* in the callback: cmd.key, which whoever reads it wipes */
	struct nic_pd *pd;
	struct nic_done *done;
};
/*
 * NdkGetPrivilegedMemoryRegionToken: the same one for the PD's life, known to the device alone. Refuses with PRIVILEGED_DENIED (nic_owner.privileged),
 * HANDLE (closing), NO_ADAPTER; else done is called.
 */
int nic_pd_privileged(struct nic_pd *pd, struct nic_key *key, struct nic_done *done, struct nicd_error *err);

/* For nicd/. */
void nic_pd_lost(struct nic_pd *pd);
/* For nicd/: children take and give back. */
void nic_pd_ref(struct nic_pd *pd);
void nic_pd_unref(struct nic_pd *pd);
