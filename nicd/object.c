/* SPDX-License-Identifier: MIT */
/*
 * What all objects have in common: the registry by serial, the table of ids, the place in the owner's list. Objects are made and
 * freed by their own files; here they are only found, told of, and counted.
 */
#include "nicd/object.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "nicd/nic.h"

enum { FIRST_SLOTS = 16, GENERATIONS = 1 << 24 };
static const uint32_t no_slot = UINT32_MAX;

static int nic_object_compare(struct nic_object *a, struct nic_object *b)
{
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}
RB_GENERATE(nic_registry, nic_object, by_serial, nic_object_compare)

void nic_done_end(struct nic_done *done, const struct nicd_error *error)
{
	static const struct nicd_error success;

	if (done)
		done->fn(done, error ? error : &success);
}

/* ---- ids */

void nic_table_init(struct nic_table *table, struct nic_env *env)
{
	*table = (struct nic_table){ .env = env, .first_free = no_slot };
}

void nic_table_deinit(struct nic_table *table)
{
	assert(table->n_used == 0);
	if (table->slots)
		table->env->free(table->env, table->slots, table->n_slots * sizeof(*table->slots));
	nic_table_init(table, table->env);
}

static int table_grow(struct nic_table *table)
{
	uint32_t n = table->n_slots ? table->n_slots * 2 : FIRST_SLOTS;
	struct nic_table_slot *slots;

	if (table->n_slots > UINT32_MAX / 4)
		return -ENOMEM;
	slots = table->env->alloc(table->env, n * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	if (table->slots) {
		memcpy(slots, table->slots, table->n_slots * sizeof(*slots));
		table->env->free(table->env, table->slots, table->n_slots * sizeof(*slots));
	}
	for (uint32_t i = table->n_slots; i < n; i++)
		slots[i].next_free = i + 1 < n ? i + 1 : no_slot;
	table->first_free = table->n_slots;
	table->slots = slots;
	table->n_slots = n;
	return 0;
}

int nic_table_add(struct nic_table *table, struct nic_object *object)
{
	struct nic_table_slot *slot;
	uint32_t index;

	if (table->first_free == no_slot && table_grow(table) < 0)
		return -ENOMEM;
	index = table->first_free;
	slot = &table->slots[index];
	table->first_free = slot->next_free;
	slot->object = object;
	slot->generation = (slot->generation + 1) % GENERATIONS;
	table->n_used++;
	object->id = (uint64_t)object->type << 56 | (uint64_t)slot->generation << 32 | index;
	return 0;
}

void nic_table_remove(struct nic_table *table, struct nic_object *object)
{
	uint32_t index = (uint32_t)object->id;

	if (object->id == 0)
		return;
	assert(index < table->n_slots && table->slots[index].object == object);
	table->slots[index].object = NULL;
	table->slots[index].next_free = table->first_free;
	table->first_free = index;
	table->n_used--;
	object->id = 0;
}

struct nic_object *nic_table_find(const struct nic_table *table, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	struct nic_object *object;

	if (index >= table->n_slots)
		return NULL;
	object = table->slots[index].object;
	return object && object->id == id ? object : NULL;
}

/* ---- places */

int nic_object_link(struct nic_object *object, struct nic *nic, struct nic_owner *owner, enum nic_type type, bool named)
{
	object->type = type;
	object->owner = owner;
	if (named && nic_table_add(&owner->ids, object) < 0)
		return -ENOMEM;
	object->serial = nic_serial(nic);
	RB_INSERT(nic_registry, &nic->registry[type], object);
	nic->count[type]++;
	if (owner) {
		TAILQ_INSERT_HEAD(&owner->objects[type], object, of_owner);
		owner->n_objects++;
	}
	return 0;
}

void nic_object_unname(struct nic_object *object)
{
	struct nic_objects *list = &object->owner->objects[object->type];

	if (object->ending)
		return;
	object->ending = true;
	nic_table_remove(&object->owner->ids, object);
	TAILQ_REMOVE(list, object, of_owner);
	TAILQ_INSERT_TAIL(list, object, of_owner);
}

void nic_object_unlink(struct nic_object *object, struct nic *nic)
{
	struct nic_owner *owner = object->owner;

	RB_REMOVE(nic_registry, &nic->registry[object->type], object);
	nic->count[object->type]--;
	if (owner) {
		nic_table_remove(&owner->ids, object);
		TAILQ_REMOVE(&owner->objects[object->type], object, of_owner);
	}
}

void nic_object_emit(struct nic_object *object, enum nic_event event, uint64_t serial, const struct nicd_error *error)
{
	static const struct nicd_error none;
	struct nic_owner *owner = object->owner;

	if (!owner->dying && owner->event)
		owner->event(owner, object, event, serial, error ? error : &none);
}
