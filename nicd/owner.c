/* SPDX-License-Identifier: MIT */
/*
 * Owners: what one session holds. An owner is embedded by its session, which releases it in chunks when the socket ends and may free it
 * once it is empty.
 */
#include <assert.h>

#include "nicd/mapping.h"
#include "nicd/mw.h"
#include "nicd/nic.h"
#include "nicd/region.h"

void nic_owner_init(struct nic_owner *owner, struct nic *nic, struct nic_account *account, uint64_t session)
{
	*owner = (struct nic_owner){ .nic = nic, .account = nic_account_ref(account), .session = session };
	nic_table_init(&owner->ids, &nic->table_pages);
	RB_INIT(&owner->mappings);
	for (unsigned i = 0; i < NIC_TYPE_COUNT; i++)
		TAILQ_INIT(&owner->objects[i]);
	TAILQ_INSERT_TAIL(&nic->owners, owner, of_nic);
}

void nic_owner_deinit(struct nic_owner *owner)
{
	struct nic_object *adapter;

	assert(owner->n_objects == 0 && !owner->stranded);
	for (unsigned i = 0; i < NIC_TYPE_COUNT; i++)
		assert(TAILQ_EMPTY(&owner->objects[i]));
	nic_table_deinit(&owner->ids);
	owner->account = nic_account_unref(owner->account);
	TAILQ_FOREACH(adapter, &owner->nic->adapters, of_owner)
		if (((struct nic_adapter *)adapter)->telling == owner)
			((struct nic_adapter *)adapter)->telling = TAILQ_NEXT(owner, of_nic);
	TAILQ_REMOVE(&owner->nic->owners, owner, of_nic);
}

static void stranded_set(struct nic_owner *owner, bool stranded)
{
	if (owner->stranded == stranded)
		return;
	owner->stranded = stranded;
	if (stranded)
		TAILQ_INSERT_TAIL(&owner->nic->stranded, owner, of_stranded);
	else
		TAILQ_REMOVE(&owner->nic->stranded, owner, of_stranded);
}

/* Many at a time: the device is woken for each message that it gets. */
void nic_owner_go_on(struct nic_owner *owner)
{
	bool more = nic_owner_release(owner, NIC_OWNER_BATCH);

	/* A device that is lost ends everything at once: then no end is left that would bring the rest on. */
	stranded_set(owner, more && owner->n_closing == 0);
	if (owner->n_objects == 0 && owner->empty)
		owner->empty(owner);
}

void nic_owner_leave(struct nic_owner *owner)
{
	assert(owner->n_objects > 0);
	owner->n_objects--;
	if (owner->held_back && !owner->releasing && owner->n_closing <= NIC_OWNER_CLOSING - NIC_OWNER_BATCH)
		nic_owner_go_on(owner);
	else if (owner->n_objects == 0 && owner->dying && !owner->releasing && owner->empty)
		owner->empty(owner);
}

int nic_owner_find(struct nic_owner *owner, uint64_t id, enum nic_type type, struct nic_object **ret, struct nicd_error *err)
{
	struct nic_object *object;

	if (id >> 56 == NIC_ADAPTER)
		object = nic_find(owner->nic, NIC_ADAPTER, id & (UINT64_MAX >> 8));
	else
		object = nic_table_find(&owner->ids, id);
	if (!object)
		return nicd_refuse_at(err, NICD_R_HANDLE, 0, id);
	/* Its id says so, too, and is at hand. */
	if (type != NIC_NONE && id >> 56 != type)
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, type, object->type);
	*ret = object;
	return 0;
}

/* ---- release */

static bool close_qp(struct nic_object *object)
{
	nic_qp_close((struct nic_qp *)object, NULL);
	return true;
}

static bool close_door(struct nic_object *object)
{
	nic_door_close((struct nic_export *)object, NULL);
	return true;
}

static bool close_mw(struct nic_object *object)
{
	nic_mw_close((struct nic_mw *)object, NULL);
	return true;
}

static bool close_mr(struct nic_object *object)
{
	if (nic_region_prepare_close(object, NULL) < 0)
		return false;
	nic_region_close(object, NULL);
	return true;
}

static bool close_mapping(struct nic_object *object)
{
	nic_mapping_close((struct nic_mapping *)object, NULL);
	return true;
}

static bool close_memory(struct nic_object *object)
{
	nic_memory_close((struct nic_memory *)object, NULL);
	return true;
}

static bool close_pd(struct nic_object *object)
{
	nic_pd_close((struct nic_pd *)object, NULL);
	return true;
}

/* Grants go with their Qps. */
static const struct {
	enum nic_type type;
	bool at_device;                            /* only NIC_OWNER_CLOSING at a time */
	bool (*close)(struct nic_object *object);  /* false: there is no memory for it now */
} release_order[] = {
	{ NIC_QP, true, close_qp },
	{ NIC_EXPORT, true, close_door },
	{ NIC_TICKET, true, close_door },
	{ NIC_MW, true, close_mw },
	{ NIC_MR, true, close_mr },
	{ NIC_MAPPING, true, close_mapping },
	{ NIC_MEMORY, false, close_memory },
	{ NIC_PD, false, close_pd },
};

/* With a million each is where it was made. */
static void prefetch_next(const struct nic_object *object)
{
	const struct nic_object *next = TAILQ_NEXT(object, of_owner);

	if (!next)
		return;
	__builtin_prefetch(next);
	__builtin_prefetch(next + 1);
}

/* What a step of the release came to. */
enum release { RELEASE_OVER, RELEASE_MORE, RELEASE_HELD_BACK };

static enum release release_type(struct nic_owner *owner, size_t i, unsigned *budget)
{
	struct nic_object *object;

	while ((object = TAILQ_FIRST(&owner->objects[release_order[i].type])) && !object->ending) {
		if (release_order[i].at_device && owner->n_closing >= NIC_OWNER_CLOSING)
			return RELEASE_HELD_BACK;
		if (*budget == 0)
			return RELEASE_MORE;
		--*budget;
		prefetch_next(object);
		if (!release_order[i].close(object))
			return owner->n_closing > 0 ? RELEASE_HELD_BACK : RELEASE_MORE;
	}
	return RELEASE_OVER;
}

bool nic_owner_release(struct nic_owner *owner, unsigned budget)
{
	enum release release = RELEASE_OVER;

	stranded_set(owner, false);
	owner->dying = true;
	owner->releasing = true;
	owner->nic->clock_ns = owner->nic->env->now(owner->nic->env);
	nic_table_close(&owner->ids);
	for (size_t i = 0; i < sizeof(release_order) / sizeof(release_order[0]) && release == RELEASE_OVER; i++)
		release = release_type(owner, i, &budget);
	owner->releasing = false;
	owner->nic->clock_ns = 0;
	owner->held_back = release == RELEASE_HELD_BACK || (owner->held_back && release == RELEASE_MORE);
	return release == RELEASE_MORE;
}
