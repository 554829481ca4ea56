/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What stands on an MR: its exports and the windows bound to it. Their tags name its memory, so they go before its own tag does. Exports are told
 * to die; windows are the owner's to end, who is refused or waited for meanwhile, unless the MR ends by other orders than its own.
 */
#include "nicd/object.h"

struct nic_export;
struct nic_mw;
struct nic_receipt;

struct nic_tenants {
	TAILQ_HEAD(, nic_export) exports;   /* those that are dying are behind the others; so it is with the windows */
	TAILQ_HEAD(, nic_mw) windows;
	struct nic_env *env;
	struct nic_object *mr;
	void (*left)(struct nic_object *mr);
	struct nic_receipt *receipt;        /* while they are ending: where that is written down */
	uint64_t *died;                     /* room for it to name exports; NULL: there never were any */
	unsigned n_dying;                   /* of those that were told */
	bool ending, evicting, telling;
};

/*
 * Those of an MR, made when it has none yet; `left` is called when nic_tenants_end has come to its end, and may free them. `exports`:
 * with room to name some in a receipt. NO_MEMORY.
 */
int nic_tenants_expect(struct nic_tenants **tenants, struct nic_object *mr, void (*left)(struct nic_object *mr), bool exports,
		       struct nicd_error *err);
/* Asserts that there are none any more. NULL allowed. */
void nic_tenants_free(struct nic_tenants *tenants);

/* NULL allowed. WINDOW_BOUND. */
int nic_tenants_check(const struct nic_tenants *tenants, struct nicd_error *err);
/*
 * Ends exports, and with `evict` windows (their owner hears REVOKED), else waits until these are gone. Then calls `left`, maybe before this
 * returns. Said again: with `evict` from now on.
 */
void nic_tenants_end(struct nic_tenants *tenants, bool evict, struct nic_receipt *receipt);

/* For nicd/: one of them has gone, and is out of its list. The MR may be gone afterwards. */
void nic_tenants_export_died(struct nic_tenants *tenants, const struct nic_export *door);
void nic_tenants_window_gone(struct nic_tenants *tenants, uint32_t streams_cut);
