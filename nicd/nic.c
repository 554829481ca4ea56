/* SPDX-License-Identifier: MIT */
/* The NIC layer as a whole. Made once per process; freed when all owners were released. */
#include "nicd/nic.h"

#include <assert.h>
#include <string.h>

#include "nicd/mw.h"
#include "nicd/region.h"

enum { TICK = 256 };   /* deadlines, lost objects or owners told of it, and Qps of shut doors, of one nic_tick */

static const uint64_t default_revoke_timeout_ns = UINT64_C(5) * 1000 * 1000 * 1000;

void nic_init(struct nic *nic, struct nic_env *env, const struct nic_limits *limits, const struct nic_settings *settings)
{
	memset(nic, 0, sizeof(*nic));
	nic->env = env;
	if (settings)
		nic->settings = *settings;
	if (nic->settings.revoke_timeout_ns == 0)
		nic->settings.revoke_timeout_ns = default_revoke_timeout_ns;
	nic_accounts_init(&nic->accounts, env, limits);
	for (unsigned i = 0; i < NIC_TYPE_COUNT; i++)
		RB_INIT(&nic->registry[i]);
	RB_INIT(&nic->names);
	nic_pool_init(&nic->mrs, env, sizeof(struct nic_mr));
	nic_pool_init(&nic->frmrs, env, sizeof(struct nic_frmr));
	nic_pool_init(&nic->frmr_ops, env, nic_frmr_op_size());
	nic_table_pool_init(&nic->table_pages, env);
	TAILQ_INIT(&nic->deadlines);
	TAILQ_INIT(&nic->adapters);
	TAILQ_INIT(&nic->owners);
	TAILQ_INIT(&nic->stranded);
	TAILQ_INIT(&nic->shut);
}

void nic_deinit(struct nic *nic)
{
	struct nic_object *object;

	while ((object = TAILQ_FIRST(&nic->adapters)))
		nic_adapter_free((struct nic_adapter *)object);
	for (unsigned i = 0; i < NIC_TYPE_COUNT; i++)
		assert(nic->count[i] == 0);
	assert(TAILQ_EMPTY(&nic->owners));
	assert(TAILQ_EMPTY(&nic->deadlines));
	assert(nic->held_fds == 0 && nic->quarantined == 0);
	assert(!nic->telling);
	nic_mr_ops_free(nic);
	nic_pool_deinit(&nic->mrs);
	nic_pool_deinit(&nic->frmrs);
	nic_pool_deinit(&nic->frmr_ops);
	nic_pool_deinit(&nic->table_pages);
	nic_accounts_deinit(&nic->accounts);
}

uint64_t nic_serial(struct nic *nic)
{
	return ++nic->last_serial;
}

struct nic_object *nic_find(struct nic *nic, enum nic_type type, uint64_t serial)
{
	struct nic_object key = { .serial = serial };

	if (type != NIC_NONE)
		return RB_FIND(nic_registry, &nic->registry[type], &key);
	for (unsigned i = 1; i < NIC_TYPE_COUNT; i++) {
		struct nic_object *object = RB_FIND(nic_registry, &nic->registry[i], &key);

		if (object)
			return object;
	}
	return NULL;
}

struct nic_object *nic_next(struct nic *nic, enum nic_type type, uint64_t after)
{
	struct nic_object key = { .serial = after + 1 }, *first = NULL;

	if (after == UINT64_MAX)
		return NULL;
	if (type != NIC_NONE)
		return RB_NFIND(nic_registry, &nic->registry[type], &key);
	for (unsigned i = 1; i < NIC_TYPE_COUNT; i++) {
		struct nic_object *object = RB_NFIND(nic_registry, &nic->registry[i], &key);

		if (object && (!first || object->serial < first->serial))
			first = object;
	}
	return first;
}

/* ---- deadlines: all are equally long, so the list is in order */

void nic_deadline_arm(struct nic *nic, struct nic_deadline *deadline)
{
	nic_deadline_disarm(nic, deadline);
	deadline->at = (nic->clock_ns ? nic->clock_ns : nic->env->now(nic->env)) + nic->settings.revoke_timeout_ns;
	deadline->armed = true;
	TAILQ_INSERT_TAIL(&nic->deadlines, deadline, next);
}

void nic_deadline_disarm(struct nic *nic, struct nic_deadline *deadline)
{
	if (!deadline->armed)
		return;
	deadline->armed = false;
	TAILQ_REMOVE(&nic->deadlines, deadline, next);
}

uint64_t nic_next_deadline(const struct nic *nic)
{
	const struct nic_deadline *first = TAILQ_FIRST(&nic->deadlines);
	const struct nic_object *object;

	if (!TAILQ_EMPTY(&nic->stranded) || !TAILQ_EMPTY(&nic->shut))
		return 0;
	TAILQ_FOREACH(object, &nic->adapters, of_owner)
		if (((const struct nic_adapter *)object)->ending || ((const struct nic_adapter *)object)->telling)
			return 0;
	return first ? first->at : UINT64_MAX;
}

void nic_tick(struct nic *nic)
{
	uint64_t now = nic->env->now(nic->env);
	struct nic_deadline *first;
	struct nic_object *object;

	for (unsigned n = 0; n < TICK && (first = TAILQ_FIRST(&nic->deadlines)) && first->at <= now; n++) {
		nic_deadline_disarm(nic, first);
		first->fn(first);
	}
	/* One of them is enough for one turn, and anything may be gone after it. */
	TAILQ_FOREACH(object, &nic->adapters, of_owner)
		if (((struct nic_adapter *)object)->telling) {
			nic_adapter_tell((struct nic_adapter *)object, TICK);
			break;
		} else if (((struct nic_adapter *)object)->ending) {
			nic_adapter_go_on((struct nic_adapter *)object, TICK);
			break;
		}
	nic_doors_empty(nic, TICK);
	if (!TAILQ_EMPTY(&nic->stranded))
		nic_owner_go_on(TAILQ_FIRST(&nic->stranded));
}

void nic_push(struct nic *nic)
{
	struct nic_object *object, *next;

	for (object = TAILQ_FIRST(&nic->adapters); object; object = next) {
		struct nic_provider *provider = ((struct nic_adapter *)object)->provider;

		next = TAILQ_NEXT(object, of_owner);
		provider->ops->push(provider);
	}
}

int nic_revoke(struct nic *nic, struct nic_object *object, struct nic_done *done, struct nicd_error *err)
{
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_REVOKED);
	switch (object->type) {
	case NIC_MR:
		return nic_region_revoke(object, &why, done, err);
	case NIC_MW:
		return nic_mw_revoke((struct nic_mw *)object, &why, done, err);
	case NIC_EXPORT:
	case NIC_TICKET:
		return nic_door_revoke((struct nic_export *)object, &why, done, err);
	case NIC_QP:
		return nic_qp_revoke((struct nic_qp *)object, &why, done, err);
	case NIC_GRANT:
		return nic_qp_revoke(((struct nic_grant *)object)->qp, &why, done, err);
	default:
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, NIC_MR, object->type);
	}
}
