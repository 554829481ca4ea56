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

enum { FIRST_PAGES = 4 };
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

enum { SLOT_FREE = 1, PREFETCH_BEHIND = 8 };

static uint64_t slot_free(uint32_t generation, uint32_t next)
{
	return (uint64_t)generation << 33 | (uint64_t)next << 1 | SLOT_FREE;
}

void nic_table_pool_init(struct nic_pool *pool, struct nic_env *env)
{
	nic_pool_init(pool, env, sizeof(struct nic_table_page));
}

void nic_table_init(struct nic_table *table, struct nic_pool *pool)
{
	*table = (struct nic_table){ .env = pool->env, .pool = pool, .first_free = no_slot };
}

static void page_free(struct nic_table *table, uint32_t i)
{
	if (table->pages[i])
		nic_pool_give(table->pool, table->pages[i], table->pages[i]->place);
	table->pages[i] = NULL;
}

void nic_table_deinit(struct nic_table *table)
{
	assert(table->n_used == 0);
	for (uint32_t i = 0; i < table->n_pages; i++)
		page_free(table, i);
	if (table->pages)
		table->env->free(table->env, table->pages, table->max_pages * sizeof(*table->pages));
	nic_table_init(table, table->pool);
}

/* Room for one more page; what is copied are pointers, 8 bytes for NIC_TABLE_PAGE objects. */
static int pages_grow(struct nic_table *table)
{
	uint32_t max = table->max_pages ? table->max_pages * 2 : FIRST_PAGES;
	struct nic_table_page **pages;

	if (table->n_pages < table->max_pages)
		return 0;
	if (max > UINT32_MAX / NIC_TABLE_PAGE / 2)
		return -ENOMEM;
	pages = table->env->alloc(table->env, max * sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	if (table->pages) {
		memcpy(pages, table->pages, table->n_pages * sizeof(*pages));
		table->env->free(table->env, table->pages, table->max_pages * sizeof(*pages));
	}
	table->pages = pages;
	table->max_pages = max;
	return 0;
}

static int table_grow(struct nic_table *table)
{
	uint32_t first = table->n_pages * NIC_TABLE_PAGE;
	struct nic_table_page *page;
	uint16_t place;

	if (pages_grow(table) < 0)
		return -ENOMEM;
	page = nic_pool_take(table->pool, &place);
	if (!page)
		return -ENOMEM;
	page->place = place;
	for (uint32_t i = 0; i < NIC_TABLE_PAGE; i++)
		page->slots[i] = slot_free(0, i + 1 < NIC_TABLE_PAGE ? first + i + 1 : no_slot);
	table->pages[table->n_pages++] = page;
	table->first_free = first;
	return 0;
}

int nic_table_add(struct nic_table *table, struct nic_object *object)
{
	struct nic_table_page *page;
	uint32_t index;
	uint64_t *slot;

	assert(!table->closing && object->type != NIC_NONE);
	if (table->first_free == no_slot && table_grow(table) < 0)
		return -ENOMEM;
	index = table->first_free;
	page = table->pages[index / NIC_TABLE_PAGE];
	slot = &page->slots[index % NIC_TABLE_PAGE];
	table->first_free = (uint32_t)(*slot >> 1);
	object->id = (uint64_t)object->type << 56 | ((*slot >> 33) + 1) << 32 | index;
	*slot = (uintptr_t)object;
	page->n_used++;
	table->n_used++;
	return 0;
}

void nic_table_remove(struct nic_table *table, struct nic_object *object)
{
	uint32_t index = (uint32_t)object->id, generation = (uint32_t)(object->id >> 32) % NIC_TABLE_GENERATIONS;
	bool retired = generation == NIC_TABLE_GENERATIONS - 1;
	struct nic_table_page *page;
	uint64_t *slot;

	if (object->id == 0)
		return;
	page = table->pages[index / NIC_TABLE_PAGE];
	slot = &page->slots[index % NIC_TABLE_PAGE];
	assert(*slot == (uintptr_t)object);
	object->id = 0;
	*slot = slot_free(generation, retired ? no_slot : table->first_free);
	page->n_used--;
	table->n_used--;
	if (table->closing && page->n_used == 0)
		page_free(table, index / NIC_TABLE_PAGE);
	else if (retired)
		table->n_retired++;
	else
		table->first_free = index;
}

/* NULL: there is no such place. */
static const uint64_t *slot_at(const struct nic_table *table, uint64_t id)
{
	uint32_t i = (uint32_t)id / NIC_TABLE_PAGE;
	const struct nic_table_page *page = i < table->n_pages ? table->pages[i] : NULL;

	return page ? &page->slots[(uint32_t)id % NIC_TABLE_PAGE] : NULL;
}

/* Who has the slot, whatever the rest of the id says. */
static struct nic_object *slot_object(const uint64_t *slot)
{
	return slot && !(*slot & SLOT_FREE) ? (struct nic_object *)(uintptr_t)*slot : NULL;
}

struct nic_object *nic_table_find(const struct nic_table *table, uint64_t id)
{
	struct nic_object *object = slot_object(slot_at(table, id));

	return object && object->id == id ? object : NULL;
}

void nic_table_prefetch_slot(const struct nic_table *table, uint64_t id)
{
	const uint64_t *slot = slot_at(table, id);

	if (slot)
		__builtin_prefetch(slot);
}

void nic_table_prefetch_object(const struct nic_table *table, uint64_t id)
{
	const struct nic_object *object = slot_object(slot_at(table, id));

	if (!object)
		return;
	/* Its id, and what an MR begins with behind it: two lines when it lies so. */
	__builtin_prefetch(&object->id);
	__builtin_prefetch((const char *)(object + 1) + PREFETCH_BEHIND);
}

void nic_table_close(struct nic_table *table)
{
	table->closing = true;
	for (uint32_t i = 0; i < table->n_pages && table->n_used == 0; i++)
		page_free(table, i);
}

/* ---- places */

int nic_object_link(struct nic_object *object, struct nic *nic, struct nic_owner *owner, enum nic_type type, bool named)
{
	object->type = (uint8_t)type;
	object->owner = owner;
	/* Peers come in even while their door's owner goes, and nobody is there to name them. */
	if (named && !owner->dying && nic_table_add(&owner->ids, object) < 0)
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

/* What the device must be asked about before it is gone, and nothing else of its owner. */
static bool is_closing_at_device(const struct nic_object *object)
{
	return object->ending && !object->waits &&
	       (object->type == NIC_QP || object->type == NIC_EXPORT || object->type == NIC_TICKET || object->type == NIC_MR ||
		object->type == NIC_MW || object->type == NIC_MAPPING);
}

void nic_object_unname(struct nic_object *object)
{
	struct nic_objects *list = &object->owner->objects[object->type];

	if (object->ending)
		return;
	object->ending = true;
	object->owner->n_closing += is_closing_at_device(object);
	nic_table_remove(&object->owner->ids, object);
	TAILQ_REMOVE(list, object, of_owner);
	TAILQ_INSERT_TAIL(list, object, of_owner);
}

void nic_object_wait(struct nic_object *object, bool waits)
{
	bool before = is_closing_at_device(object);

	object->waits = waits;
	if (before && waits)
		object->owner->n_closing--;
	else if (!before && !waits)
		object->owner->n_closing += is_closing_at_device(object);
}

void nic_object_unlink(struct nic_object *object, struct nic *nic)
{
	struct nic_owner *owner = object->owner;

	RB_REMOVE(nic_registry, &nic->registry[object->type], object);
	nic->count[object->type]--;
	if (owner) {
		owner->n_closing -= is_closing_at_device(object);
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
