/* SPDX-License-Identifier: MIT */
/*
 * Tags: what a token opens. Added (both tokens drawn, hashed) -> looked up by soft_tag_check for every piece of every transfer -> dropped
 * (unhashed, whoever is in the middle of it cut, freed). Owned by soft_tags, found by serial; the soft_use of a stream
 * borrows one between begin and end, and ends at the latest when it is cut.
 *
 * A soft_tag never outlives its drop, so nobody keeps a pointer to one but through a soft_use.
 */
#include <assert.h>
#include <stdlib.h>

#include "nicd/object.h"   /* rights and ranges */
#include "nicd/soft/table.h"

/* Most tags have one range; they live in slabs, which is several times faster than malloc when much comes and goes. */
enum {
	RESET_STEP = 64,   /* tags */
	SLAB_TAGS = 256,
	SLAB_TAG_SIZE = sizeof(struct soft_tag) + sizeof(struct soft_tag_range),
};
struct soft_tag_spare {
	SLIST_ENTRY(soft_tag_spare) next;
};
struct soft_tag_slab {
	SLIST_ENTRY(soft_tag_slab) next;
	_Alignas(struct soft_tag) char room[SLAB_TAGS][SLAB_TAG_SIZE];
};
_Static_assert(SLAB_TAG_SIZE % _Alignof(struct soft_tag) == 0, "tags in a slab are aligned");

static int tag_compare(const struct soft_tag *a, const struct soft_tag *b)
{
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}
RB_GENERATE_INTERNAL(soft_tags_tree, soft_tag, by_serial, tag_compare, static __attribute__((unused)))

struct soft_tags *soft_tags_new(void (*random)(void *buf, size_t len), uint64_t (*now)(void))
{
	struct soft_tags *tags = calloc(1, sizeof(*tags));

	if (!tags)
		return NULL;
	if (soft_tokens_init(&tags->tokens, random, now) < 0) {
		free(tags);
		return NULL;
	}
	RB_INIT(&tags->tags);
	RB_INIT(&tags->memories);
	SLIST_INIT(&tags->spare);
	SLIST_INIT(&tags->slabs);
	STAILQ_INIT(&tags->unmapping);
	return tags;
}

/* Only when there is no tag. True: there are more slabs. */
static bool slab_free(struct soft_tags *tags)
{
	struct soft_tag_slab *slab = SLIST_FIRST(&tags->slabs);

	SLIST_INIT(&tags->spare);
	if (!slab)
		return false;
	SLIST_REMOVE_HEAD(&tags->slabs, next);
	free(slab);
	return true;
}

bool soft_tags_reset_step(struct soft_tags *tags)
{
	struct soft_tag *tag = NULL;

	for (unsigned i = 0; i < RESET_STEP && (tag = RB_MIN(soft_tags_tree, &tags->tags)); i++)
		soft_tag_drop(tags, tag->serial, tag->generation);
	return tag || slab_free(tags) || soft_memories_reset_step(tags);
}

void soft_tags_reset(struct soft_tags *tags)
{
	while (soft_tags_reset_step(tags))
		;
}

void soft_tags_free(struct soft_tags *tags)
{
	if (!tags)
		return;
	soft_tags_reset(tags);
	soft_memories_deinit(tags);
	soft_tokens_deinit(&tags->tokens);
	free(tags);
}

void soft_tags_stats(const struct soft_tags *tags, struct soft_tags_stats *ret)
{
	*ret = (struct soft_tags_stats){
		.memories = tags->n_memories,
		.tags = tags->n_tags,
		.quarantined = soft_tokens_quarantined(&tags->tokens),
	};
}

static struct soft_tag *tag_alloc(struct soft_tags *tags, unsigned n_ranges)
{
	struct soft_tag_spare *spare;
	struct soft_tag_slab *slab;

	if (n_ranges > 1)
		return malloc(sizeof(struct soft_tag) + n_ranges * sizeof(struct soft_tag_range));
	if (SLIST_EMPTY(&tags->spare)) {
		slab = malloc(sizeof(*slab));
		if (!slab)
			return NULL;
		SLIST_INSERT_HEAD(&tags->slabs, slab, next);
		for (unsigned i = 0; i < SLAB_TAGS; i++) {
			spare = (struct soft_tag_spare *)slab->room[i];
			SLIST_INSERT_HEAD(&tags->spare, spare, next);
		}
	}
	spare = SLIST_FIRST(&tags->spare);
	SLIST_REMOVE_HEAD(&tags->spare, next);
	return (struct soft_tag *)spare;
}

static void tag_recycle(struct soft_tags *tags, struct soft_tag *tag)
{
	struct soft_tag_spare *spare = (struct soft_tag_spare *)tag;

	if (tag->n_ranges > 1) {
		free(tag);
		return;
	}
	SLIST_INSERT_HEAD(&tags->spare, spare, next);
}

static int range_check(struct soft_tags *tags, const struct soft_tag_terms *terms, unsigned i, struct soft_tag_range *ret,
		       struct nicd_error *err)
{
	uint64_t offset = terms->ranges[i].offset, length = terms->ranges[i].length;
	struct soft_memory *memory = soft_memory_find(tags, terms->ranges[i].memory);

	if (!memory)
		return nicd_refuse_at(err, NICD_R_SERIAL, 0, terms->ranges[i].memory);
	if (length == 0)
		return nicd_refuse(err, NICD_R_LENGTH_ZERO);
	if (offset > UINT64_MAX - length)
		return nicd_refuse_at(err, NICD_R_RANGE_OVERFLOW, UINT64_MAX - length, offset);
	if (!nic_range_ok(offset, length, memory->size))
		return nicd_refuse_at(err, NICD_R_RANGE_BEYOND, memory->size, offset + length);
	if (nic_rights_has(terms->rights, NIC_LOCAL_WRITE) && !memory->writable)
		return nicd_refuse(err, NICD_R_MEMORY_READ_ONLY);
	*ret = (struct soft_tag_range){memory, offset, length};
	return 0;
}

static int rights_check(const struct soft_tag_terms *terms, struct nicd_error *err)
{
	/* Bit 0x4 is remote write's own, and means nothing without the local write that is in 0x5. */
	if ((terms->rights & ~(NIC_RIGHTS_ALL | NIC_INVALIDATABLE)) ||
	    ((terms->rights & 0x4) && !nic_rights_has(terms->rights, NIC_REMOTE_WRITE)))
		return nicd_refuse_at(err, NICD_R_FLAGS, NIC_RIGHTS_ALL, terms->rights);
	if (terms->door && !nic_rights_remote(terms->rights))
		return nicd_refuse(err, NICD_R_NO_REMOTE_RIGHTS);
	return 0;
}

/* All that was checked before is checked again: a device trusts nobody. */
static int terms_check(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_tag_range *ranges,
		       struct nicd_error *err)
{
	uint64_t total = 0;   /* cannot wrap: all of it is mapped */
	int r;

	if (terms->serial == 0)
		return nicd_refuse(err, NICD_R_SERIAL);
	r = rights_check(terms, err);
	if (r < 0)
		return r;
	if (terms->n_ranges == 0 || terms->n_ranges > NICD_RANGES)
		return nicd_refuse_at(err, NICD_R_COUNT, NICD_RANGES, terms->n_ranges);
	for (unsigned i = 0; i < terms->n_ranges; i++) {
		r = range_check(tags, terms, i, &ranges[i], err);
		if (r < 0)
			return r;
		total += ranges[i].length;
	}
	if (terms->length == 0)
		return nicd_refuse(err, NICD_R_LENGTH_ZERO);
	if (terms->length > total)
		return nicd_refuse_at(err, NICD_R_LENGTH_BEYOND, total, terms->length);
	if (terms->iova == 0)
		return nicd_refuse(err, NICD_R_IOVA_ZERO);
	if (terms->iova > UINT64_MAX - terms->length)
		return nicd_refuse_at(err, NICD_R_IOVA_OVERFLOW, UINT64_MAX - terms->length, terms->iova);
	return 0;
}

/* Draws what the tag needs; soft_tokens_reserve has made room. */
static int tokens_draw(struct soft_tags *tags, struct soft_tag *tag, struct nicd_error *err)
{
	struct soft_tokens *tokens = &tags->tokens;

	if (tag->door == 0) {
		tag->local_token = soft_tokens_draw(tokens);
		if (tag->local_token == 0)
			return nicd_refuse(err, NICD_R_TAGS_EXHAUSTED);
		soft_token_bind(&tokens->local, tag->local_token, tag);
	}
	if (nic_rights_remote(tag->rights)) {
		tag->remote_token = soft_tokens_draw(tokens);
		if (tag->remote_token == 0) {
			soft_token_release(tokens, &tokens->local, tag->local_token, soft_tokens_ms(tokens));
			return nicd_refuse(err, NICD_R_TAGS_EXHAUSTED);
		}
		soft_token_bind(&tokens->remote, tag->remote_token, tag);
	}
	return 0;
}

static void tag_link(struct soft_tags *tags, struct soft_tag *tag)
{
	for (unsigned i = 0; i < tag->n_ranges; i++)
		tag->ranges[i].memory->tags++;
	RB_INSERT(soft_tags_tree, &tags->tags, tag);
	tags->n_tags++;
}

int soft_tag_add(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_tag **ret, struct nicd_error *err)
{
	struct soft_tag *tag = soft_tag_find(tags, terms->serial);
	struct soft_tag_range ranges[NICD_RANGES];
	int r;

	if (tag && tag->generation == terms->generation) {
		*ret = tag;
		return 0;
	}
	if (tag)
		return nicd_refuse_at(err, NICD_R_DEVICE_BUSY, tag->generation, terms->generation);
	r = terms_check(tags, terms, ranges, err);
	if (r < 0)
		return r;
	if (soft_tokens_reserve(&tags->tokens) < 0 || !(tag = tag_alloc(tags, terms->n_ranges)))
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	*tag = (struct soft_tag){
		.serial = terms->serial, .generation = terms->generation, .rights = terms->rights, .pd = terms->pd,
		.door = terms->door, .iova = terms->iova, .length = terms->length, .n_ranges = terms->n_ranges,
	};
	for (unsigned i = 0; i < terms->n_ranges; i++)
		tag->ranges[i] = ranges[i];
	r = tokens_draw(tags, tag, err);
	if (r < 0) {
		tag_recycle(tags, tag);
		return r;
	}
	tag_link(tags, tag);
	*ret = tag;
	return 0;
}

/* Each cut may end other uses of the same tag, and of others; it cannot begin a new one, for the tokens are gone already. */
static unsigned tag_cut(struct soft_tag *tag)
{
	struct soft_use *use;
	unsigned n = 0;

	while ((use = LIST_FIRST(&tag->uses))) {
		n += !use->waits;
		use->cut(use);
		assert(LIST_FIRST(&tag->uses) != use);
	}
	return n;
}

unsigned soft_tag_drop(struct soft_tags *tags, uint64_t serial, uint32_t generation)
{
	struct soft_tag *tag = soft_tag_find(tags, serial);
	uint32_t ms;
	unsigned n;

	if (!tag || tag->generation != generation)
		return 0;
	RB_REMOVE(soft_tags_tree, &tags->tags, tag);
	tags->n_tags--;
	ms = soft_tokens_ms(&tags->tokens);
	soft_token_release(&tags->tokens, &tags->tokens.local, tag->local_token, ms);
	soft_token_release(&tags->tokens, &tags->tokens.remote, tag->remote_token, ms);
	n = tag_cut(tag);
	for (unsigned i = 0; i < tag->n_ranges; i++)
		tag->ranges[i].memory->tags--;
	tag_recycle(tags, tag);
	return n;
}

struct soft_tag *soft_tag_find(struct soft_tags *tags, uint64_t serial)
{
	struct soft_tag key = {.serial = serial};

	return RB_FIND(soft_tags_tree, &tags->tags, &key);
}

struct soft_tag *soft_tag_next(struct soft_tags *tags, uint64_t after)
{
	struct soft_tag key = {.serial = after + 1};

	return after == UINT64_MAX ? NULL : RB_NFIND(soft_tags_tree, &tags->tags, &key);
}

bool soft_token_taken(const struct soft_tags *tags, uint32_t token)
{
	return soft_tokens_taken(&tags->tokens, token);
}

/* What an access needs, where its token is looked up, and what it is told when it may not. */
static const struct access {
	uint32_t rights;
	bool local;
	enum nicd_reason token, range, denied;
} accesses[] = {
	[SOFT_REMOTE_READ] = {NIC_REMOTE_READ, false, NICD_R_REMOTE_TOKEN, NICD_R_REMOTE_RANGE, NICD_R_REMOTE_RIGHTS},
	[SOFT_REMOTE_WRITE] = {NIC_REMOTE_WRITE, false, NICD_R_REMOTE_TOKEN, NICD_R_REMOTE_RANGE, NICD_R_REMOTE_RIGHTS},
	[SOFT_LOCAL_READ] = {0, true, NICD_R_LOCAL_TOKEN, NICD_R_LOCAL_RANGE, NICD_R_LOCAL_RIGHTS},
	[SOFT_LOCAL_WRITE] = {NIC_LOCAL_WRITE, true, NICD_R_LOCAL_TOKEN, NICD_R_LOCAL_RANGE, NICD_R_LOCAL_RIGHTS},
};

/* An export's tag is for the streams that hold its grant and for nobody else, not even for those of its PD. */
static bool remote_in_scope(const struct soft_scope *scope, const struct soft_tag *tag)
{
	if (!scope->by_grant)
		return tag->door == 0 && tag->pd == scope->pd;
	for (unsigned i = 0; i < scope->n_grants; i++)
		if (tag->door != 0 && tag->door == scope->grants[i])
			return true;
	return false;
}

enum nicd_reason soft_tag_check(struct soft_tags *tags, const struct soft_scope *scope, uint32_t token, uint64_t addr,
				uint64_t len, enum soft_access access, struct soft_tag **ret)
{
	const struct access *a = &accesses[access];
	struct soft_tag *tag = soft_token_find(a->local ? &tags->tokens.local : &tags->tokens.remote, token);

	if (!tag)
		return a->token;
	if (a->local ? tag->pd != scope->pd : !remote_in_scope(scope, tag))
		return a->token;
	if (!nic_rights_has(tag->rights, a->rights))
		return a->denied;
	if (addr < tag->iova || len > tag->length || addr - tag->iova > tag->length - len)
		return a->range;
	*ret = tag;
	return NICD_R_NONE;
}

struct soft_tag *soft_tag_invalidatable(struct soft_tags *tags, const struct soft_scope *scope, uint32_t token)
{
	struct soft_tag *tag = soft_token_find(&tags->tokens.remote, token);

	return tag && remote_in_scope(scope, tag) && (tag->rights & NIC_INVALIDATABLE) ? tag : NULL;
}

unsigned soft_tag_iov(const struct soft_tag *tag, uint64_t addr, uint64_t len, struct iovec *iov, unsigned max,
		      uint64_t *covered)
{
	uint64_t skip = addr - tag->iova;
	unsigned n = 0;

	assert(addr >= tag->iova && len <= tag->length && skip <= tag->length - len);
	*covered = 0;
	for (unsigned i = 0; i < tag->n_ranges && n < max && *covered < len; i++) {
		const struct soft_tag_range *range = &tag->ranges[i];
		uint64_t piece = range->length - skip;

		if (skip >= range->length) {
			skip -= range->length;
			continue;
		}
		if (piece > len - *covered)
			piece = len - *covered;
		iov[n++] = (struct iovec){range->memory->map + range->offset + skip, piece};
		*covered += piece;
		skip = 0;
	}
	return n;
}

void soft_use_begin(struct soft_use *use, struct soft_tag *tag)
{
	assert(!use->tag && use->cut);
	use->tag = tag;
	LIST_INSERT_HEAD(&tag->uses, use, next);
}

void soft_use_end(struct soft_use *use)
{
	if (!use->tag)
		return;
	LIST_REMOVE(use, next);
	use->tag = NULL;
}
