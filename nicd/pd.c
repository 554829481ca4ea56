/* SPDX-License-Identifier: MIT */
/*
 * Protection domains. The device knows a PD only by its serial, as the scope of tags, doors and streams, so making and ending
 * one asks nothing of it. Children hold a reference each.
 */
#include "nicd/pd.h"

#include <assert.h>

int nic_pd_new(struct nic_pd **ret, struct nic_owner *owner, struct nic_adapter *adapter, struct nicd_error *err)
{
	struct nic *nic = owner->nic;
	struct nic_pd *pd;
	int r;

	if (!adapter->provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	pd = nic->env->alloc(nic->env, sizeof(*pd));
	if (!pd)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	pd->adapter = adapter;
	r = nic_charge(owner->account, &pd->charge, NIC_SLOT_PDS, 1, err);
	if (r == 0 && nic_object_link(&pd->object, nic, owner, NIC_PD, true) < 0)
		r = nicd_refuse(err, NICD_R_NO_MEMORY);
	if (r < 0) {
		nic_charge_release(&pd->charge);
		nic->env->free(nic->env, pd, sizeof(*pd));
		return r;
	}
	adapter->users++;
	*ret = pd;
	return 0;
}

static void pd_end(struct nic_pd *pd)
{
	struct nic_owner *owner = pd->object.owner;
	struct nic *nic = owner->nic;
	struct nic_done *closed = nic_done_steal(&pd->closed);

	nic_object_unlink(&pd->object, nic);
	nic_charge_release(&pd->charge);
	pd->adapter->users--;
	nic_done_end(closed, NULL);
	nic->env->free(nic->env, pd, sizeof(*pd));
	nic_owner_leave(owner);
}

void nic_pd_close(struct nic_pd *pd, struct nic_done *done)
{
	assert(!pd->closed || !done);
	if (done)
		pd->closed = done;
	pd->closing = true;
	nic_object_unname(&pd->object);
	if (pd->children == 0)
		pd_end(pd);
}

void nic_pd_ref(struct nic_pd *pd)
{
	pd->children++;
}

void nic_pd_unref(struct nic_pd *pd)
{
	assert(pd->children > 0);
	if (--pd->children == 0 && pd->closing)
		pd_end(pd);
}
