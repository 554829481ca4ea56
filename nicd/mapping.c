/* SPDX-License-Identifier: MIT */
/*
 * Mappings. One lives from nic_mapping_build until its building has failed or its close has ended; whoever uses it meanwhile (a fast registration)
 * is counted. What is under way at the device has mapping->cmd, one thing after the other: attachments, mapping_add, mapping_drop.
 *
 * mapping_end is the only place where one goes.
 */
#include "nicd/mapping.h"

#include <assert.h>

enum {
	DRAWS = 64,   /* addresses that are tried */
};
/* Addresses have 47 bits, as those of processes; the first page is nobody's. */
static const uint64_t addresses_end = UINT64_C(1) << 47;

#define mapping_of(ptr, member) ((struct nic_mapping *)((char *)(ptr) - offsetof(struct nic_mapping, member)))

static int nic_mapping_compare(struct nic_mapping *a, struct nic_mapping *b)
{
	return a->address < b->address ? -1 : a->address > b->address;
}
RB_GENERATE_INTERNAL(nic_mappings, nic_mapping, by_address, nic_mapping_compare, static __attribute__((unused)))

static struct nic *mapping_nic(const struct nic_mapping *mapping)
{
	return mapping->object.owner->nic;
}

const char *nic_mapping_state_name(const struct nic_mapping *mapping)
{
	if (mapping->state == NIC_MAPPING_BUILDING)
		return "building";
	return mapping->closing ? "closing" : "built";
}

/* ---- addresses */

/* Does a mapping of the owner's have one of these bytes? */
static bool address_taken(struct nic_owner *owner, uint64_t address, uint64_t length)
{
	struct nic_mapping key = { .address = address };
	struct nic_mapping *next = RB_NFIND(nic_mappings, &owner->mappings, &key);
	struct nic_mapping *before = next ? RB_PREV(nic_mappings, &owner->mappings, next) : RB_MAX(nic_mappings, &owner->mappings);

	return (next && next->address - address < length) || (before && address - before->address < before->length);
}

/* At random, so that an address says nothing of where anything is, and a mistaken one hits nothing. */
static int address_draw(struct nic_mapping *mapping, struct nicd_error *err)
{
	struct nic_owner *owner = mapping->object.owner;
	struct nic_env *env = owner->nic->env;
	uint64_t first_byte = mapping->ranges[0].offset % NICD_PAGE;
	uint64_t pages = (addresses_end - mapping->length) / NICD_PAGE - 1;

	for (unsigned i = 0; i < DRAWS; i++) {
		uint64_t address;

		env->random(env, &address, sizeof(address));
		address = (address % pages + 1) * NICD_PAGE + first_byte;
		if (address_taken(owner, address, mapping->length))
			continue;
		mapping->address = address;
		RB_INSERT(nic_mappings, &owner->mappings, mapping);
		return 0;
	}
	return nicd_refuse_at(err, NICD_R_QUOTA, addresses_end, mapping->length);
}

/* ---- the end */

static void adapter_leave(struct nic_mapping *mapping)
{
	if (mapping->adapter)
		mapping->adapter->users--;
	mapping->adapter = NULL;
	mapping->at_device = false;
}

/* `error`: of its building, answered to mapping->done; then its close, if that was asked for. */
static void mapping_end(struct nic_mapping *mapping, const struct nicd_error *error)
{
	struct nic_owner *owner = mapping->object.owner;
	struct nic *nic = owner->nic;

	assert(mapping->users == 0 && !mapping->at_device);
	nic_object_unname(&mapping->object);
	RB_REMOVE(nic_mappings, &owner->mappings, mapping);
	nic_deadline_disarm(nic, &mapping->deadline);
	adapter_leave(mapping);
	nic_object_unlink(&mapping->object, nic);
	nic_charge_release(&mapping->charge);
	nic_charge_release(&mapping->charge_pinned);
	nic_done_end(nic_done_steal(&mapping->done), error);
	nic_done_end(nic_done_steal(&mapping->closed), NULL);
	for (unsigned i = 0; i < mapping->n_ranges; i++)
		nic_memory_unuse(mapping->ranges[i].memory);
	nic->env->free(nic->env, mapping, sizeof(*mapping) + mapping->n_ranges * sizeof(mapping->ranges[0]));
	nic_owner_leave(owner);
}

static void mapping_dropped(struct nic_cmd *cmd)
{
	struct nic_mapping *mapping = mapping_of(cmd, cmd);

	if (nic_cmd_gone(cmd)) {
		mapping->at_device = false;
		mapping_end(mapping, NULL);
	} else {
		nic_deadline_arm(mapping_nic(mapping), &mapping->deadline);
	}
}

static void mapping_drop(struct nic_mapping *mapping)
{
	nic_cmd_begin(&mapping->cmd, mapping_dropped);
	nic_adapter_mapping_drop(mapping->adapter, mapping->object.serial, &mapping->cmd);
}

static void mapping_retry(struct nic_deadline *deadline)
{
	mapping_drop(mapping_of(deadline, deadline));
}

/* Goes on with its close when nothing is in the way any more. */
static void mapping_settle(struct nic_mapping *mapping)
{
	if (!mapping->closing || mapping->users > 0 || mapping->state != NIC_MAPPING_BUILT)
		return;
	mapping->state = NIC_MAPPING_DROPPING;
	if (mapping->at_device)
		mapping_drop(mapping);
	else
		mapping_end(mapping, NULL);
}

/* ---- building */

static void mapping_failed(struct nic_mapping *mapping, const struct nicd_error *error)
{
	struct nicd_error why = *error;

	nic_ranges_cancel(mapping->ranges + mapping->n_attached, mapping->n_ranges - mapping->n_attached, mapping->adapter);
	mapping_end(mapping, &why);
}

/* All that it stands on is there. Closed meanwhile: its address is told nobody. */
static void mapping_built(struct nic_mapping *mapping)
{
	struct nicd_error error = { 0 };

	mapping->state = NIC_MAPPING_BUILT;
	if (mapping->closing)
		nicd_refuse(&error, NICD_R_FLUSHED);
	mapping->users++;
	nic_done_end(nic_done_steal(&mapping->done), &error);
	nic_mapping_unuse(mapping);
}

static void mapping_added(struct nic_cmd *cmd)
{
	struct nic_mapping *mapping = mapping_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (error.reason == NICD_R_NONE && !mapping->adapter->provider->up)
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
	if (error.reason != NICD_R_NONE) {
		mapping_failed(mapping, &error);
		return;
	}
	mapping->at_device = true;
	mapping_built(mapping);
}

static void mapping_add(struct nic_mapping *mapping)
{
	struct nic_provider *provider = mapping->adapter->provider;
	struct nic_tag_range ranges[NICD_RANGES];
	struct nic_map what = {
		.serial = mapping->object.serial,
		.owner = mapping->object.owner->session,
		.address = mapping->address,
		.length = mapping->length,
		.ranges = ranges,
	};

	what.n_ranges = nic_ranges_cut(mapping->ranges, mapping->n_ranges, 0, mapping->length, ranges);
	nic_cmd_begin(&mapping->cmd, mapping_added);
	provider->ops->mapping_add(provider, &what, &mapping->cmd);
}

/* Waits for one attachment after the other, then tells the device, if that is to know. */
static void mapping_go_on(struct nic_mapping *mapping)
{
	struct nicd_error error;

	if (!nic_ranges_attach(mapping->ranges, mapping->n_ranges, &mapping->n_attached, mapping->adapter, &mapping->waiter))
		return;
	if (mapping->closing || !mapping->adapter->provider->up) {
		nicd_refuse(&error, mapping->closing ? NICD_R_FLUSHED : NICD_R_DEVICE_LOST);
		mapping_failed(mapping, &error);
	} else if (mapping->object.owner->privileged) {
		mapping_add(mapping);
	} else {
		mapping_built(mapping);
	}
}

static void mapping_attached(struct nic_waiter *waiter, const struct nicd_error *error)
{
	struct nic_mapping *mapping = mapping_of(waiter, waiter);

	if (error)
		mapping_failed(mapping, error);
	else
		mapping_go_on(mapping);
}

static int mapping_check(const struct nic_adapter *adapter, const struct nic_range *ranges, unsigned n, uint64_t *length,
			 struct nicd_error *err)
{
	uint64_t max = adapter->provider->max_registration;
	int r;

	if (!adapter->provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	r = nic_ranges_check(ranges, n, 0, length, err);
	if (r < 0)
		return r;
	if (max == 0 || max > addresses_end / 2)
		max = addresses_end / 2;
	return *length > max ? nicd_refuse_at(err, NICD_R_LENGTH_LIMIT, max, *length) : 0;
}

/* What it costs, its attachments, its place and its address; on failure nothing of it is left. */
static int mapping_take(struct nic_mapping *mapping, struct nic_owner *owner, struct nic_adapter *adapter, struct nicd_error *err)
{
	struct nic_provider *provider = adapter->provider;
	int r = nic_charge(owner->account, &mapping->charge, NIC_SLOT_MAPPINGS, 1, err);

	if (r == 0)
		r = nic_charge(owner->account, &mapping->charge_pinned, NIC_SLOT_PINNED,
			       provider->ops->cost(provider, NIC_COST_TAG, mapping->length), err);
	mapping->object.owner = owner;
	if (r == 0)
		r = address_draw(mapping, err);
	if (r < 0)
		goto release;
	r = nic_ranges_reserve(mapping->ranges, mapping->n_ranges, adapter, err);
	if (r < 0)
		goto undraw;
	if (nic_object_link(&mapping->object, owner->nic, owner, NIC_MAPPING, true) == 0)
		return 0;
	r = nicd_refuse(err, NICD_R_NO_MEMORY);
	nic_ranges_cancel(mapping->ranges, mapping->n_ranges, adapter);
undraw:
	RB_REMOVE(nic_mappings, &owner->mappings, mapping);
release:
	nic_charge_release(&mapping->charge);
	nic_charge_release(&mapping->charge_pinned);
	return r;
}

int nic_mapping_build(struct nic_mapping **ret, struct nic_owner *owner, struct nic_adapter *adapter, const struct nic_range *ranges,
		      unsigned n, struct nic_done *done, struct nicd_error *err)
{
	struct nic_env *env = owner->nic->env;
	struct nic_mapping *mapping;
	uint64_t length;
	size_t size;
	int r = mapping_check(adapter, ranges, n, &length, err);

	if (r < 0)
		return r;
	size = sizeof(*mapping) + n * sizeof(*ranges);
	mapping = env->alloc(env, size);
	if (!mapping)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	mapping->length = length;
	mapping->n_ranges = n;
	for (unsigned i = 0; i < n; i++)
		mapping->ranges[i] = ranges[i];
	r = mapping_take(mapping, owner, adapter, err);
	if (r < 0) {
		env->free(env, mapping, size);
		return r;
	}
	for (unsigned i = 0; i < n; i++)
		nic_memory_use(ranges[i].memory);
	mapping->adapter = adapter;
	adapter->users++;
	mapping->waiter.fn = mapping_attached;
	mapping->deadline.fn = mapping_retry;
	mapping->done = done;
	*ret = mapping;
	mapping_go_on(mapping);
	return 0;
}

void nic_mapping_close(struct nic_mapping *mapping, struct nic_done *done)
{
	assert(!mapping->closed || !done);
	if (done)
		mapping->closed = done;
	if (mapping->closing)
		return;
	mapping->closing = true;
	nic_object_unname(&mapping->object);
	/* The work that is in it, and who uses it, are its owner's to end; of one that dies their end has begun. */
	nic_object_wait(&mapping->object, !mapping->object.owner->dying);
	mapping_settle(mapping);
}

/* ---- use */

int nic_mapping_use(struct nic_mapping *mapping, struct nicd_error *err)
{
	if (mapping->closing || mapping->state != NIC_MAPPING_BUILT)
		return nicd_refuse(err, NICD_R_HANDLE);
	mapping->users++;
	return 0;
}

void nic_mapping_unuse(struct nic_mapping *mapping)
{
	assert(mapping->users > 0);
	mapping->users--;
	mapping_settle(mapping);
}

/* A command under way is the provider's to end; a drop that waits for its next try has nothing to wait for any more. */
void nic_mapping_lost(struct nic_mapping *mapping)
{
	if (mapping->state == NIC_MAPPING_DROPPING && mapping->deadline.armed) {
		nic_deadline_disarm(mapping_nic(mapping), &mapping->deadline);
		mapping->at_device = false;
		mapping_end(mapping, NULL);
	} else if (mapping->state == NIC_MAPPING_BUILT) {
		adapter_leave(mapping);
	}
}
