/* SPDX-License-Identifier: MIT */
/*
 * Owners: what one session holds. An owner is embedded by its session, which releases it in chunks when the socket ends and may free it
 * once it is empty.
 */
#include <assert.h>

#include "nicd/nic.h"
#include "nicd/qp.h"

void nic_owner_init(struct nic_owner *owner, struct nic *nic, struct nic_account *account, uint64_t session)
{
	*owner = (struct nic_owner){ .nic = nic, .account = nic_account_ref(account), .session = session };
	nic_table_init(&owner->ids, nic->env);
	for (unsigned i = 0; i < NIC_TYPE_COUNT; i++)
		TAILQ_INIT(&owner->objects[i]);
	TAILQ_INSERT_TAIL(&nic->owners, owner, of_nic);
}

void nic_owner_deinit(struct nic_owner *owner)
{
	assert(owner->n_objects == 0);
	for (unsigned i = 0; i < NIC_TYPE_COUNT; i++)
		assert(TAILQ_EMPTY(&owner->objects[i]));
	nic_table_deinit(&owner->ids);
	owner->account = nic_account_unref(owner->account);
	TAILQ_REMOVE(&owner->nic->owners, owner, of_nic);
}

void nic_owner_leave(struct nic_owner *owner)
{
	assert(owner->n_objects > 0);
	owner->n_objects--;
	if (owner->n_objects == 0 && owner->dying && !owner->releasing && owner->empty)
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
	if (type != NIC_NONE && object->type != type)
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, type, object->type);
	*ret = object;
	return 0;
}

/* ---- release */

static void close_qp(struct nic_object *object)
{
	nic_qp_close((struct nic_qp *)object, NULL);
}

static void close_door(struct nic_object *object)
{
	nic_door_close((struct nic_export *)object, NULL);
}

static void close_mr(struct nic_object *object)
{
	nic_mr_close((struct nic_mr *)object, NULL);
}

static void close_memory(struct nic_object *object)
{
	nic_memory_close((struct nic_memory *)object, NULL);
}

static void close_pd(struct nic_object *object)
{
	nic_pd_close((struct nic_pd *)object, NULL);
}

/* Grants go with their Qps. */
static const struct {
	enum nic_type type;
	void (*close)(struct nic_object *object);
} release_order[] = {
	{ NIC_QP, close_qp },
	{ NIC_EXPORT, close_door },
	{ NIC_TICKET, close_door },
	{ NIC_MR, close_mr },
	{ NIC_MEMORY, close_memory },
	{ NIC_PD, close_pd },
};

bool nic_owner_release(struct nic_owner *owner, unsigned budget)
{
	struct nic_object *object;
	bool more = false;

	owner->dying = true;
	owner->releasing = true;
	for (size_t i = 0; i < sizeof(release_order) / sizeof(release_order[0]) && !more; i++)
		while ((object = TAILQ_FIRST(&owner->objects[release_order[i].type])) && !object->ending) {
			more = budget == 0;
			if (more)
				break;
			budget--;
			release_order[i].close(object);
		}
	owner->releasing = false;
	return more;
}
