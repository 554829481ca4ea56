/* SPDX-License-Identifier: MIT */
/*
 * The tenants of an MR: made with its first export or window, owned by the MR, and freed by it when it is registered no more. All that ends an MR
 * comes by nic_tenants_end first.
 */
#include "nicd/tenants.h"

#include <assert.h>

#include "nicd/mw.h"
#include "nicd/nic.h"

enum { AT_ONCE = 256 };   /* of one MR that are told to end: thousands of them take no turn for themselves */

int nic_tenants_expect(struct nic_tenants **tenants, struct nic_object *mr, void (*left)(struct nic_object *mr), bool exports,
		       struct nicd_error *err)
{
	struct nic_env *env = mr->owner->nic->env;

	if (!*tenants) {
		struct nic_tenants *made = env->alloc(env, sizeof(*made));

		if (!made)
			return nicd_refuse(err, NICD_R_NO_MEMORY);
		TAILQ_INIT(&made->exports);
		TAILQ_INIT(&made->windows);
		made->env = env;
		made->mr = mr;
		made->left = left;
		*tenants = made;
	}
	if (exports && !(*tenants)->died)
		(*tenants)->died = env->alloc(env, NIC_RECEIPT_EXPORTS * sizeof(uint64_t));
	return exports && !(*tenants)->died ? nicd_refuse(err, NICD_R_NO_MEMORY) : 0;
}

void nic_tenants_free(struct nic_tenants *tenants)
{
	struct nic_env *env;

	if (!tenants)
		return;
	env = tenants->env;
	assert(TAILQ_EMPTY(&tenants->exports) && TAILQ_EMPTY(&tenants->windows) && !tenants->telling);
	if (tenants->died)
		env->free(env, tenants->died, NIC_RECEIPT_EXPORTS * sizeof(uint64_t));
	env->free(env, tenants, sizeof(*tenants));
}

int nic_tenants_check(const struct nic_tenants *tenants, struct nicd_error *err)
{
	return !tenants || TAILQ_EMPTY(&tenants->windows) ? 0 : nicd_refuse(err, NICD_R_WINDOW_BOUND);
}

/* Tells so many at a time; the next one is told when one has gone. Those that were told stand behind the others: the first of them is the end. */
static void tenants_tell(struct nic_tenants *tenants)
{
	struct nic_export *door;
	struct nicd_error why;
	struct nic_mw *mw;

	nicd_refuse(&why, NICD_R_REVOKED);
	tenants->telling = true;
	while (tenants->n_dying < AT_ONCE && (door = TAILQ_FIRST(&tenants->exports)) && !door->killed) {
		tenants->n_dying++;
		nic_door_kill(door, NULL);
	}
	while (tenants->evicting && tenants->n_dying < AT_ONCE && (mw = TAILQ_FIRST(&tenants->windows)) && !mw->evicted) {
		tenants->n_dying++;
		nic_mw_evict(mw, &why);
	}
	tenants->telling = false;
}

static void tenants_go_on(struct nic_tenants *tenants)
{
	if (!tenants->ending || tenants->telling)
		return;
	tenants_tell(tenants);
	if (!TAILQ_EMPTY(&tenants->exports) || !TAILQ_EMPTY(&tenants->windows))
		return;
	tenants->ending = tenants->evicting = false;
	tenants->receipt = NULL;
	tenants->left(tenants->mr);
}

void nic_tenants_end(struct nic_tenants *tenants, bool evict, struct nic_receipt *receipt)
{
	tenants->ending = true;
	tenants->evicting |= evict;
	tenants->receipt = receipt;
	receipt->exports = tenants->died;
	tenants_go_on(tenants);
}

static void tenants_one_less(struct nic_tenants *tenants)
{
	if (tenants->n_dying > 0)
		tenants->n_dying--;
	tenants_go_on(tenants);
}

void nic_tenants_export_died(struct nic_tenants *tenants, const struct nic_export *door)
{
	struct nic_receipt *receipt = tenants->receipt;

	if (receipt) {
		if (receipt->n_exports < NIC_RECEIPT_EXPORTS)
			receipt->exports[receipt->n_exports] = door->object.serial;
		receipt->n_exports++;
		receipt->grants += door->grants;
		receipt->streams_cut += door->streams_cut;
	}
	tenants_one_less(tenants);
}

void nic_tenants_window_gone(struct nic_tenants *tenants, uint32_t streams_cut)
{
	if (tenants->receipt)
		tenants->receipt->streams_cut += streams_cut;
	tenants_one_less(tenants);
}
