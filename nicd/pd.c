/* SPDX-License-Identifier: MIT */
/*
 * Protection domains. The device knows a PD only by its serial, as the scope of tags, doors and streams, so making and ending
 * one asks nothing of it, unless somebody wanted its privileged key: that is dropped last. Children hold a reference each.
 */
#include "nicd/pd.h"

#include <assert.h>
#include <stddef.h>

static void pd_retry(struct nic_deadline *deadline);

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
	pd->deadline.fn = pd_retry;
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

static void pd_key_dropped(struct nic_cmd *cmd)
{
	struct nic_pd *pd = (struct nic_pd *)((char *)cmd - offsetof(struct nic_pd, cmd));

	if (nic_cmd_gone(cmd))
		pd_end(pd);
	else
		nic_deadline_arm(pd->object.owner->nic, &pd->deadline);
}

static void pd_key_drop(struct nic_pd *pd)
{
	nic_cmd_begin(&pd->cmd, pd_key_dropped);
	nic_adapter_key_drop(pd->adapter, pd->object.serial, &pd->cmd);
}

static void pd_retry(struct nic_deadline *deadline)
{
	pd_key_drop((struct nic_pd *)((char *)deadline - offsetof(struct nic_pd, deadline)));
}

static void pd_settle(struct nic_pd *pd)
{
	if (!pd->closing || pd->children > 0 || pd->dropping)
		return;
	pd->dropping = true;
	if (pd->keyed)
		pd_key_drop(pd);
	else
		pd_end(pd);
}

void nic_pd_close(struct nic_pd *pd, struct nic_done *done)
{
	assert(!pd->closed || !done);
	if (done)
		pd->closed = done;
	pd->closing = true;
	nic_object_unname(&pd->object);
	pd_settle(pd);
}

void nic_pd_ref(struct nic_pd *pd)
{
	pd->children++;
}

void nic_pd_unref(struct nic_pd *pd)
{
	assert(pd->children > 0);
	pd->children--;
	pd_settle(pd);
}

void nic_pd_lost(struct nic_pd *pd)
{
	if (!pd->deadline.armed)
		return;
	nic_deadline_disarm(pd->object.owner->nic, &pd->deadline);
	pd_key_drop(pd);
}

/* ---- the privileged key */

static void key_added(struct nic_cmd *cmd)
{
	struct nic_key *key = (struct nic_key *)((char *)cmd - offsetof(struct nic_key, cmd));
	struct nicd_error error = cmd->error;
	struct nic_pd *pd = key->pd;

	nic_done_end(key->done, &error);
	nic_pd_unref(pd);
}

int nic_pd_privileged(struct nic_pd *pd, struct nic_key *key, struct nic_done *done, struct nicd_error *err)
{
	struct nic_owner *owner = pd->object.owner;
	struct nic_provider *provider = pd->adapter->provider;

	if (!owner->privileged)
		return nicd_refuse(err, NICD_R_PRIVILEGED_DENIED);
	if (pd->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	if (!provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	key->pd = pd;
	key->done = done;
	pd->keyed = true;
	nic_pd_ref(pd);
	nic_cmd_begin(&key->cmd, key_added);
	provider->ops->key_add(provider, pd->object.serial, owner->session, &key->cmd);
	return 0;
}
