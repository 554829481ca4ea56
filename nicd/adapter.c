/* SPDX-License-Identifier: MIT */
/*
 * Adapters: where providers' events come in. An adapter owns its provider. It is freed with the whole NIC layer, or when it is down and
 * nothing stands on it any more, so nobody counts references to it.
 */
#include "nicd/adapter.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "nicd/mapping.h"
#include "nicd/mw.h"
#include "nicd/nic.h"
#include "nicd/region.h"

static void adapter_lost(struct nic_adapter *adapter);
static void adapter_tag_invalidated(struct nic_adapter *adapter, uint64_t serial, uint32_t generation);

static const struct nic_provider_events adapter_events = {
	.stream_opened = nic_door_stream_opened,
	.stream_closed = nic_qp_stream_closed,
	.door_expired = nic_door_expired,
	.stream_notified = nic_qp_stream_notified,
	.tag_invalidated = adapter_tag_invalidated,
	.lost = adapter_lost,
};

int nic_adapter_new(struct nic_adapter **ret, struct nic *nic, struct nic_provider *provider)
{
	struct nic_adapter *adapter = nic->env->alloc(nic->env, sizeof(*adapter));

	if (!adapter || nic_mr_ops_reserve(nic) < 0) {
		if (adapter)
			nic->env->free(nic->env, adapter, sizeof(*adapter));
		provider->ops->free(provider);
		return -ENOMEM;
	}
	adapter->nic = nic;
	adapter->provider = provider;
	RB_INIT(&adapter->streams);
	nic_object_link(&adapter->object, nic, NULL, NIC_ADAPTER, false);   /* cannot fail without a name */
	adapter->object.id = (uint64_t)NIC_ADAPTER << 56 | adapter->object.serial;
	/* The newest first: it is what a client gets that names none. */
	TAILQ_INSERT_HEAD(&nic->adapters, &adapter->object, of_owner);
	provider->adapter = adapter;
	provider->events = &adapter_events;
	*ret = adapter;
	return 0;
}

/* ---- the end of what it held */

enum { ENDED_AT_ONCE = 1024 };   /* looked at, and owners told, when the device is lost; the rest by nic_tick */

static bool lose_qp(struct nic_adapter *adapter, struct nic_object *object)
{
	if (((struct nic_qp *)object)->pd->adapter == adapter)
		nic_qp_lost((struct nic_qp *)object);
	return true;
}

static bool lose_mr(struct nic_adapter *adapter, struct nic_object *object)
{
	return nic_region(object).pd->adapter != adapter || nic_region_lost(object);
}

static bool lose_mw(struct nic_adapter *adapter, struct nic_object *object)
{
	if (((struct nic_mw *)object)->pd->adapter == adapter)
		nic_mw_lost((struct nic_mw *)object);
	return true;
}

static bool lose_door(struct nic_adapter *adapter, struct nic_object *object)
{
	if (((struct nic_export *)object)->pd->adapter == adapter)
		nic_door_lost((struct nic_export *)object);
	return true;
}

static bool lose_memory(struct nic_adapter *adapter, struct nic_object *object)
{
	nic_memory_lost((struct nic_memory *)object, adapter);
	return true;
}

static bool lose_mapping(struct nic_adapter *adapter, struct nic_object *object)
{
	if (((struct nic_mapping *)object)->adapter == adapter)
		nic_mapping_lost((struct nic_mapping *)object);
	return true;
}

static bool lose_pd(struct nic_adapter *adapter, struct nic_object *object)
{
	if (((struct nic_pd *)object)->adapter == adapter)
		nic_pd_lost((struct nic_pd *)object);
	return true;
}

static const struct {
	enum nic_type type;
	bool (*lose)(struct nic_adapter *adapter, struct nic_object *object);   /* false: not now */
} lost_order[] = {
	{ NIC_QP, lose_qp },
	{ NIC_EXPORT, lose_door },
	{ NIC_TICKET, lose_door },
	{ NIC_MW, lose_mw },
	{ NIC_MR, lose_mr },
	{ NIC_MAPPING, lose_mapping },
	{ NIC_MEMORY, lose_memory },
	{ NIC_PD, lose_pd },
};

/* Every object there is, by type and serial. Found anew each time: anything may be gone after a step. */
void nic_adapter_go_on(struct nic_adapter *adapter, unsigned budget)
{
	struct nic_object *object;

	for (; adapter->ending_type < sizeof(lost_order) / sizeof(lost_order[0]); adapter->ending_type++) {
		unsigned i = adapter->ending_type;

		while ((object = nic_next(adapter->nic, lost_order[i].type, adapter->ending_serial))) {
			uint64_t serial = object->serial;
			unsigned weight = object->type == NIC_QP ? nic_qp_weight((struct nic_qp *)object) : 1;

			if (budget == 0 || !lost_order[i].lose(adapter, object))
				return;
			budget -= weight < budget ? weight : budget;
			adapter->ending_serial = serial;
		}
		adapter->ending_serial = 0;
	}
	adapter->ending = false;
}

/* Commands in flight are the provider's to end, with DEVICE_LOST, before or after this. */
static void adapter_end(struct nic_adapter *adapter, unsigned budget)
{
	adapter->provider->up = false;
	adapter->ending = true;
	adapter->ending_type = 0;
	adapter->ending_serial = 0;
	nic_adapter_go_on(adapter, budget);
}

void nic_adapter_tell(struct nic_adapter *adapter, unsigned budget)
{
	struct nic_owner *owner;
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_DEVICE_LOST);
	while ((owner = adapter->telling) && budget-- > 0) {
		/* Whoever goes meanwhile moves this on: nic_owner_deinit. */
		adapter->telling = TAILQ_NEXT(owner, of_nic);
		if (!owner->dying && owner->event)
			owner->event(owner, &adapter->object, NIC_EVENT_DEVICE_STATE, adapter->object.serial, &why);
	}
}

static void adapter_lost(struct nic_adapter *adapter)
{
	/* The provider may have said before that it is down. */
	if (adapter->lost)
		return;
	adapter->lost = true;
	adapter_end(adapter, ENDED_AT_ONCE);
	adapter->telling = TAILQ_FIRST(&adapter->nic->owners);
	nic_adapter_tell(adapter, ENDED_AT_ONCE);
}

/* Of a normal MR, which is not made so that peers may: it is taken down as by its owner's own deregistering, and its owner is told. */
static void mr_invalidated(struct nic_adapter *adapter, struct nic_mr *mr, uint32_t generation)
{
	uint64_t serial = mr->object.serial;
	struct nicd_error err;

	if (mr->generation != generation || mr->state != NIC_MR_REGISTERED)
		return;
	nic_object_emit(&mr->object, NIC_EVENT_REMOTE_INVALIDATED, serial, NULL);
	mr = (struct nic_mr *)nic_find(adapter->nic, NIC_MR, serial);
	/* Without memory it stays registered, with tokens that nobody knows any more, until it is deregistered. */
	if (mr && mr->state == NIC_MR_REGISTERED && mr->generation == generation)
		nic_mr_revoke(mr, NULL, NULL, &err);
}

/* The device is ahead of us. */
static void adapter_tag_invalidated(struct nic_adapter *adapter, uint64_t serial, uint32_t generation)
{
	struct nic_object *object = nic_find(adapter->nic, NIC_MR, serial);
	struct nic_mw *mw = (struct nic_mw *)nic_find(adapter->nic, NIC_MW, serial);

	if (mw && mw->pd->adapter == adapter)
		nic_mw_invalidated(mw, generation);
	if (!object || nic_region(object).pd->adapter != adapter)
		return;
	if (nic_is_frmr(object))
		nic_frmr_invalidated((struct nic_frmr *)object, generation);
	else
		mr_invalidated(adapter, (struct nic_mr *)object, generation);
}

bool nic_adapter_used(const struct nic_adapter *adapter)
{
	return adapter->users > 0 || adapter->telling;
}

struct nic_adapter *nic_adapter_free(struct nic_adapter *adapter)
{
	struct nic *nic;

	if (!adapter)
		return NULL;
	nic = adapter->nic;
	adapter_end(adapter, UINT_MAX);
	adapter->provider->ops->free(adapter->provider);
	/* Doors that the last of its commands has shut. */
	while (adapter->users > 0 && nic_doors_empty(nic, UINT_MAX))
		;
	nic_object_unlink(&adapter->object, nic);
	TAILQ_REMOVE(&nic->adapters, &adapter->object, of_owner);
	nic->env->free(nic->env, adapter, sizeof(*adapter));
	return NULL;
}

/* ---- commands */

void nic_cmd_begin(struct nic_cmd *cmd, void (*done)(struct nic_cmd *cmd))
{
	memset(cmd, 0, sizeof(*cmd));
	cmd->done = done;
}

void nic_cmd_end(struct nic_cmd *cmd, enum nicd_reason reason)
{
	if (reason != NICD_R_NONE)
		nicd_refuse(&cmd->error, reason);
	cmd->done(cmd);
}

void nic_adapter_detach(struct nic_adapter *adapter, uint64_t memory, struct nic_cmd *cmd)
{
	struct nic_provider *provider = adapter->provider;

	if (provider->up)
		provider->ops->memory_detach(provider, memory, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}

void nic_adapter_tag_drop(struct nic_adapter *adapter, uint64_t serial, uint32_t generation, const struct nic_order *order,
			  struct nic_cmd *cmd)
{
	struct nic_provider *provider = adapter->provider;

	if (provider->up)
		provider->ops->tag_drop(provider, serial, generation, order, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}

void nic_adapter_door_drop(struct nic_adapter *adapter, uint64_t serial, struct nic_cmd *cmd)
{
	struct nic_provider *provider = adapter->provider;

	if (provider->up)
		provider->ops->door_drop(provider, serial, true, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}

void nic_adapter_stats(struct nic_adapter *adapter, struct nic_cmd *cmd, void (*done)(struct nic_cmd *cmd))
{
	struct nic_provider *provider = adapter->provider;

	nic_cmd_begin(cmd, done);
	adapter->caps.n = 0;
	cmd->stats.caps = &adapter->caps;
	if (provider->up)
		provider->ops->stats(provider, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}

void nic_adapter_disconnect(struct nic_adapter *adapter, uint64_t stream, struct nic_cmd *cmd)
{
	struct nic_provider *provider = adapter->provider;

	if (provider->up)
		provider->ops->qp_disconnect(provider, stream, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}

void nic_adapter_mapping_drop(struct nic_adapter *adapter, uint64_t serial, struct nic_cmd *cmd)
{
	struct nic_provider *provider = adapter->provider;

	if (provider->up)
		provider->ops->mapping_drop(provider, serial, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}

void nic_adapter_key_drop(struct nic_adapter *adapter, uint64_t pd, struct nic_cmd *cmd)
{
	struct nic_provider *provider = adapter->provider;

	if (provider->up)
		provider->ops->key_drop(provider, pd, cmd);
	else
		nic_cmd_end(cmd, NICD_R_NONE);
}
