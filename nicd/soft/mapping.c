/* SPDX-License-Identifier: MIT */
/* Mappings: added -> entered by posted work -> dropped: nobody new, and gone with the last work in it. Owned by soft_tags. */
#include "nicd/soft/mapping.h"

#include <assert.h>

#include "nicd/object.h"   /* rights */
#include "nicd/soft/table.h"

static int address_compare(const struct soft_mapping *a, const struct soft_mapping *b)
{
	if (a->owner != b->owner)
		return a->owner < b->owner ? -1 : 1;
	return a->tag.iova < b->tag.iova ? -1 : a->tag.iova > b->tag.iova;
}
RB_GENERATE_INTERNAL(soft_mapping_addresses, soft_mapping, by_address, address_compare, static __attribute__((unused)))

static int serial_compare(const struct soft_mapping *a, const struct soft_mapping *b)
{
	return a->tag.serial < b->tag.serial ? -1 : a->tag.serial > b->tag.serial;
}
RB_GENERATE_INTERNAL(soft_mapping_serials, soft_mapping, by_serial, serial_compare, static __attribute__((unused)))

static struct soft_mapping *mapping_at(const struct soft_tags *tags, uint32_t place)
{
	return soft_pool_at(&tags->mappings.pool, place);
}

void soft_mappings_init(struct soft_mappings *mappings)
{
	soft_pool_init(&mappings->pool, sizeof(struct soft_mapping));
	RB_INIT(&mappings->by_address);
	RB_INIT(&mappings->by_serial);
}

void soft_mappings_deinit(struct soft_mappings *mappings)
{
	assert(mappings->n == 0);
	soft_pool_deinit(&mappings->pool);
}

/* The last of the owner's that begins at `addr` or before. */
static struct soft_mapping *mapping_before(struct soft_tags *tags, uint64_t owner, uint64_t addr)
{
	struct soft_mapping key = {.owner = owner, .tag.iova = addr};
	struct soft_mapping *next = RB_NFIND(soft_mapping_addresses, &tags->mappings.by_address, &key);

	if (next && next->owner == owner && next->tag.iova == addr)
		return next;
	next = next ? RB_PREV(soft_mapping_addresses, &tags->mappings.by_address, next) :
		      RB_MAX(soft_mapping_addresses, &tags->mappings.by_address);
	return next && next->owner == owner ? next : NULL;
}

static int overlap_check(struct soft_tags *tags, uint64_t owner, const struct soft_tag_terms *terms, struct nicd_error *err)
{
	struct soft_mapping *last = mapping_before(tags, owner, terms->iova + terms->length - 1);

	if (last && terms->iova < last->tag.iova + soft_tag_length(tags, &last->tag))
		return nicd_refuse_at(err, NICD_R_DEVICE_BUSY, last->tag.iova, terms->iova);
	return 0;
}

/* Local ones, and writing only where all of it may be written. */
static uint32_t rights_of(struct soft_tags *tags, const struct soft_tag_terms *terms)
{
	for (unsigned i = 0; i < terms->n_ranges; i++) {
		const struct soft_memory *memory = soft_memory_find(tags, terms->ranges[i].memory);

		if (memory && !memory->writable)
			return 0;
	}
	return NIC_LOCAL_WRITE;
}

int soft_mapping_add(struct soft_tags *tags, uint64_t owner, const struct soft_tag_terms *asked, struct nicd_error *err)
{
	struct soft_mapping key = {.tag.serial = asked->serial}, *mapping;
	struct soft_tag_terms terms = *asked;
	struct soft_tag tag;
	uint32_t place;
	int r;

	if (RB_FIND(soft_mapping_serials, &tags->mappings.by_serial, &key))
		return 0;
	if (owner == 0)
		return nicd_refuse(err, NICD_R_SERIAL);
	if (terms.n_ranges <= NICD_RANGES)
		terms.rights = rights_of(tags, &terms);
	r = soft_tag_bare(tags, &terms, &tag, err);
	if (r < 0)
		return r;
	r = overlap_check(tags, owner, &terms, err);
	place = r < 0 ? 0 : soft_pool_take(&tags->mappings.pool);
	if (!place) {
		soft_tag_bare_end(tags, &tag);
		return r < 0 ? r : nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	mapping = mapping_at(tags, place);
	*mapping = (struct soft_mapping){.tag = tag, .owner = owner, .place = place};
	RB_INSERT(soft_mapping_addresses, &tags->mappings.by_address, mapping);
	RB_INSERT(soft_mapping_serials, &tags->mappings.by_serial, mapping);
	tags->mappings.n++;
	return 0;
}

static void mapping_close(struct soft_tags *tags, struct soft_mapping *mapping)
{
	if (!mapping->gone)
		soft_tag_bare_end(tags, &mapping->tag);
	mapping->gone = true;
}

static void mapping_end(struct soft_tags *tags, struct soft_mapping *mapping)
{
	void (*dropped)(void *userdata) = mapping->dropped;
	void *userdata = mapping->userdata;

	assert(mapping->works == 0);
	mapping_close(tags, mapping);
	tags->mappings.n--;
	soft_pool_give(&tags->mappings.pool, mapping->place);
	if (dropped)
		dropped(userdata);
}

bool soft_mapping_drop(struct soft_tags *tags, uint64_t serial, void (*done)(void *userdata), void *userdata)
{
	struct soft_mapping key = {.tag.serial = serial};
	struct soft_mapping *mapping = RB_FIND(soft_mapping_serials, &tags->mappings.by_serial, &key);

	if (!mapping)
		return true;
	RB_REMOVE(soft_mapping_addresses, &tags->mappings.by_address, mapping);
	RB_REMOVE(soft_mapping_serials, &tags->mappings.by_serial, mapping);
	mapping->dropping = true;
	if (mapping->works == 0) {
		mapping_end(tags, mapping);
		return true;
	}
	mapping->dropped = done;
	mapping->userdata = userdata;
	return false;
}

void soft_mappings_drop_all(struct soft_tags *tags)
{
	uint32_t place = 0;

	for (uint32_t at = 0; at < soft_pool_end(&tags->mappings.pool); at = place ? place + 1 : (at / SOFT_POOL_SLAB + 1) * SOFT_POOL_SLAB) {
		struct soft_mapping *mapping;

		place = soft_pool_next(&tags->mappings.pool, at);
		mapping = place ? mapping_at(tags, place) : NULL;
		if (!mapping)
			continue;
		mapping_close(tags, mapping);
		if (!mapping->dropping)
			soft_mapping_drop(tags, mapping->tag.serial, NULL, NULL);
	}
}

uint32_t soft_mapping_enter(struct soft_tags *tags, uint64_t owner, uint64_t addr)
{
	struct soft_mapping *mapping = mapping_before(tags, owner, addr);

	if (!mapping || addr - mapping->tag.iova > soft_tag_length(tags, &mapping->tag))
		return 0;
	mapping->works++;
	return mapping->place;
}

void soft_mapping_leave(struct soft_tags *tags, uint32_t place)
{
	struct soft_mapping *mapping = mapping_at(tags, place);

	assert(mapping->works > 0);
	if (--mapping->works == 0 && mapping->dropping)
		mapping_end(tags, mapping);
}

enum nicd_reason soft_mapping_check(struct soft_tags *tags, uint32_t place, uint64_t addr, uint64_t len, enum soft_access access,
				    struct soft_tag **ret)
{
	struct soft_mapping *mapping = mapping_at(tags, place);

	return mapping->gone ? NICD_R_LOCAL_TOKEN : soft_tag_allows(tags, &mapping->tag, addr, len, access, ret);
}
