/* SPDX-License-Identifier: MIT */
/*
 * Tags: what a token opens. Added (both tokens drawn and indexed) -> looked up by soft_tag_check for every piece of every transfer ->
 * dropped (out of the indexes, whoever is in the middle of it cut, freed). Owned by soft_tags, found by serial; the soft_use of a
 * stream borrows one between begin and end, and ends at the latest when it is cut.
 *
 * A soft_tag never outlives its drop, so nobody keeps a pointer to one but through a soft_use.
 */
#include <assert.h>
#include <stdlib.h>

#include "nicd/object.h"   /* rights and ranges */
#include "nicd/soft/table.h"

enum {
	FIRST_TAGS = 512,
	RESET_STEP = 64,   /* tags */
	DROPS_AHEAD = 16,  /* tags that are to be dropped: what their indexes hold of them is fetched while others are */
};

static int home_compare(const struct soft_home *a, const struct soft_home *b)
{
	if (a->memory != b->memory)
		return a->memory < b->memory ? -1 : 1;
	if (a->pd != b->pd)
		return a->pd < b->pd ? -1 : 1;
	return a->rights < b->rights ? -1 : a->rights > b->rights;
}
RB_GENERATE_INTERNAL(soft_homes, soft_home, of_tags, home_compare, static __attribute__((unused)))

static struct soft_tag *tag_at(const struct soft_tags *tags, uint32_t place)
{
	return soft_pool_at(&tags->pool, place);
}

static struct soft_home *home_at(const struct soft_tags *tags, const struct soft_tag *tag)
{
	return soft_pool_at(&tags->home_pool, tag->home);
}

static uint64_t local_of(const void *owner, uint32_t place)
{
	return tag_at(owner, place)->local_token;
}

static uint64_t remote_of(const void *owner, uint32_t place)
{
	return tag_at(owner, place)->remote_token;
}

static uint64_t serial_of(const void *owner, uint32_t place)
{
	return tag_at(owner, place)->serial;
}

struct soft_tags *soft_tags_new(void (*random)(void *buf, size_t len), uint64_t (*now)(void))
{
	struct soft_tags *tags = calloc(1, sizeof(*tags));

	if (!tags)
		return NULL;
	if (soft_tokens_init(&tags->tokens, random, now, local_of, remote_of, tags) < 0 ||
	    soft_index_init(&tags->by_serial, FIRST_TAGS, serial_of, tags) < 0 || soft_keys_init(&tags->keys) < 0) {
		soft_index_deinit(&tags->by_serial);
		soft_tokens_deinit(&tags->tokens);
		free(tags);
		return NULL;
	}
	tags->tokens.keys = &tags->keys;
	soft_mappings_init(&tags->mappings);
	soft_pool_init(&tags->pool, sizeof(struct soft_tag));
	soft_pool_init(&tags->home_pool, sizeof(struct soft_home));
	RB_INIT(&tags->homes);
	RB_INIT(&tags->memories);
	STAILQ_INIT(&tags->unmapping);
	TAILQ_INIT(&tags->populating);
	for (unsigned i = 0; i < SOFT_USES; i++)
		LIST_INIT(&tags->uses[i]);
	return tags;
}

void soft_tags_free(struct soft_tags *tags)
{
	if (!tags)
		return;
	soft_tags_reset(tags);
	while (soft_memory_step(tags))
		;
	soft_mappings_deinit(&tags->mappings);
	soft_keys_deinit(&tags->keys);
	soft_pool_deinit(&tags->pool);
	soft_pool_deinit(&tags->home_pool);
	soft_index_deinit(&tags->by_serial);
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

/* ---- homes */

/* Those that a shared home can tell. */
static bool is_ordinary(const struct soft_tag_terms *terms)
{
	return terms->n_ranges == 1 && terms->door == 0 && !terms->windows && terms->length <= UINT32_MAX &&
	       terms->ranges[0].offset % NICD_PAGE == terms->iova % NICD_PAGE && terms->ranges[0].offset / NICD_PAGE <= UINT32_MAX;
}

/* 0: no memory. */
static uint32_t home_new(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_home **ret)
{
	uint32_t place = soft_pool_take(&tags->home_pool);

	if (!place)
		return 0;
	*ret = soft_pool_at(&tags->home_pool, place);
	(*ret)->place = place;
	(*ret)->pd = terms->pd;
	(*ret)->door = terms->door;
	(*ret)->rights = terms->rights;
	return place;
}

static uint32_t home_own(struct soft_tags *tags, uint32_t tag, const struct soft_tag_terms *terms, const struct soft_tag_range *ranges)
{
	struct soft_tag_range *copy = malloc(terms->n_ranges * sizeof(*copy));
	struct soft_home *home;
	uint32_t place = copy ? home_new(tags, terms, &home) : 0;

	if (!place) {
		free(copy);
		return 0;
	}
	for (unsigned i = 0; i < terms->n_ranges; i++)
		copy[i] = ranges[i];
	home->ranges = copy;
	home->n_ranges = (uint16_t)terms->n_ranges;
	home->length = terms->length;
	if (terms->windows) {
		home->window = true;
		home->only.stream = terms->stream;
		home->only.tag = tag;
		LIST_INSERT_HEAD(terms->windows, home, only.of_stream);
	}
	return place;
}

static uint32_t home_shared(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_memory *memory)
{
	struct soft_home key = {.memory = memory, .pd = terms->pd, .rights = terms->rights};
	struct soft_home *home = RB_FIND(soft_homes, &tags->homes, &key);
	uint32_t place;

	if (home)
		return home->place;
	place = home_new(tags, terms, &home);
	if (!place)
		return 0;
	home->memory = memory;
	RB_INSERT(soft_homes, &tags->homes, home);
	return place;
}

static uint32_t home_reserved(struct soft_tags *tags)
{
	const struct soft_tag_terms nothing = {0};
	struct soft_home *home;

	if (tags->reserved)
		return tags->reserved;
	tags->reserved = home_new(tags, &nothing, &home);
	if (tags->reserved)
		home->reserved = true;
	return tags->reserved;
}

static void home_enter(struct soft_home *home)
{
	home->n_tags++;
	if (home->memory)
		home->memory->tags++;
	for (unsigned i = 0; i < home->n_ranges; i++)
		home->ranges[i].memory->tags++;
}

static void home_leave_stream(struct soft_home *home)
{
	if (home->window)
		LIST_REMOVE(home, only.of_stream);
	home->window = false;
}

static void home_free(struct soft_tags *tags, struct soft_home *home)
{
	if (home->memory)
		RB_REMOVE(soft_homes, &tags->homes, home);
	if (home->reserved)
		tags->reserved = 0;
	home_leave_stream(home);
	free(home->ranges);
	soft_pool_give(&tags->home_pool, home->place);
}

static void home_leave(struct soft_tags *tags, struct soft_home *home)
{
	if (home->memory)
		home->memory->tags--;
	for (unsigned i = 0; i < home->n_ranges; i++)
		home->ranges[i].memory->tags--;
	if (--home->n_tags == 0)
		home_free(tags, home);
}

/* ---- add */

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
	if ((terms->door || terms->windows) && !nic_rights_remote(terms->rights))
		return nicd_refuse(err, NICD_R_NO_REMOTE_RIGHTS);
	if (terms->windows && (terms->door || terms->stream == 0))
		return nicd_refuse_at(err, NICD_R_VALUE, 0, terms->door);
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
	if (terms->reserve && (terms->rights || terms->n_ranges || terms->length || terms->door || terms->windows))
		return nicd_refuse_at(err, NICD_R_VALUE, 0, terms->rights);
	if (terms->reserve)
		return 0;
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

/* Draws what the tag needs, and indexes it; soft_tokens_reserve has made room. */
static int tokens_draw(struct soft_tags *tags, struct soft_tag *tag, uint32_t place, const struct soft_tag_terms *terms,
		       struct nicd_error *err)
{
	struct soft_tokens *tokens = &tags->tokens;

	if (terms->door == 0 && !terms->windows) {
		tag->local_token = soft_tokens_draw(tokens);
		if (tag->local_token == 0)
			return nicd_refuse(err, NICD_R_TAGS_EXHAUSTED);
		soft_index_add(&tokens->local, tag->local_token, place);
	}
	if (nic_rights_remote(terms->rights) || terms->reserve) {
		tag->remote_token = soft_tokens_draw(tokens);
		if (tag->remote_token == 0) {
			if (tag->local_token)
				soft_index_remove(&tokens->local, tag->local_token, place);
			return nicd_refuse(err, NICD_R_TAGS_EXHAUSTED);
		}
		soft_index_add(&tokens->remote, tag->remote_token, place);
	}
	return 0;
}

/* All but the serial's index. */
static int tag_fill(struct soft_tags *tags, struct soft_tag *tag, uint32_t place, const struct soft_tag_terms *terms,
		    const struct soft_tag_range *ranges, struct nicd_error *err)
{
	int r;

	*tag = (struct soft_tag){.serial = terms->serial, .generation = terms->generation, .iova = terms->iova};
	if (terms->reserve) {
		tag->home = home_reserved(tags) & 0xffffff;
	} else if (is_ordinary(terms)) {
		tag->home = home_shared(tags, terms, ranges[0].memory) & 0xffffff;
		tag->length = (uint32_t)terms->length;
		tag->page = (uint32_t)(ranges[0].offset / NICD_PAGE);
	} else {
		tag->home = home_own(tags, place, terms, ranges) & 0xffffff;
	}
	if (!tag->home)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	r = tokens_draw(tags, tag, place, terms, err);
	if (r < 0 && home_at(tags, tag)->n_tags == 0)
		home_free(tags, home_at(tags, tag));
	return r;
}

int soft_tag_add(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_tag **ret, struct nicd_error *err)
{
	struct soft_tag *tag = soft_tag_find(tags, terms->serial);
	struct soft_tag_range ranges[NICD_RANGES];
	uint32_t place;
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
	if (tags->n_tags >= SOFT_PLACES - 1)
		return nicd_refuse_at(err, NICD_R_TAGS_EXHAUSTED, SOFT_PLACES - 1, tags->n_tags);
	if (soft_tokens_reserve(&tags->tokens) < 0 || soft_index_reserve(&tags->by_serial) < 0 ||
	    !(place = soft_pool_take(&tags->pool)))
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	tag = tag_at(tags, place);
	r = tag_fill(tags, tag, place, terms, ranges, err);
	if (r < 0) {
		soft_pool_give(&tags->pool, place);
		return r;
	}
	soft_index_add(&tags->by_serial, tag->serial, place);
	home_enter(home_at(tags, tag));
	tags->n_tags++;
	*ret = tag;
	return 0;
}

/* ---- drop */

static struct soft_use *use_of(struct soft_tags *tags, const struct soft_tag *tag)
{
	struct soft_use *use;

	LIST_FOREACH(use, &tags->uses[(uintptr_t)tag / sizeof(*tag) % SOFT_USES], next)
		if (use->tag == tag)
			break;
	return use;
}

int soft_tag_bare(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_tag *ret, struct nicd_error *err)
{
	struct soft_tag_range ranges[NICD_RANGES];
	struct soft_tag tag = {.serial = terms->serial, .iova = terms->iova};
	int r = terms_check(tags, terms, ranges, err);

	if (r < 0)
		return r;
	tag.home = home_own(tags, 0, terms, ranges) & 0xffffff;
	if (!tag.home)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	home_enter(home_at(tags, &tag));
	*ret = tag;
	return 0;
}

static unsigned tag_cut(struct soft_tags *tags, const struct soft_tag *tag);

void soft_tag_bare_end(struct soft_tags *tags, struct soft_tag *tag)
{
	tag_cut(tags, tag);
	home_leave(tags, home_at(tags, tag));
}

/* Each cut may end other uses of the same tag, and of others; it cannot begin a new one, for the tokens are gone already. */
static unsigned tag_cut(struct soft_tags *tags, const struct soft_tag *tag)
{
	struct soft_use *use;
	unsigned n = 0;

	while (tag->used && (use = use_of(tags, tag))) {
		n += !use->waits;
		use->cut(use);
		assert(!use->tag);
	}
	return n;
}

static unsigned tag_end(struct soft_tags *tags, uint32_t place, uint32_t ms)
{
	struct soft_tag *tag = tag_at(tags, place);
	unsigned n;

	tags->n_tags--;
	soft_index_remove(&tags->by_serial, tag->serial, place);
	soft_token_release(&tags->tokens, &tags->tokens.local, tag->local_token, place, ms);
	soft_token_release(&tags->tokens, &tags->tokens.remote, tag->remote_token, place, ms);
	home_leave_stream(home_at(tags, tag));   /* which may end by the cut, and drop what it has */
	n = tag_cut(tags, tag);
	home_leave(tags, home_at(tags, tag));
	soft_pool_give(&tags->pool, place);
	return n;
}

unsigned soft_tag_drop(struct soft_tags *tags, uint64_t serial, uint32_t generation)
{
	unsigned cut;

	soft_tags_drop(tags, &serial, &generation, 1, &cut);
	return cut;
}

void soft_windows_drop(struct soft_tags *tags, struct soft_windows *windows)
{
	uint32_t ms = LIST_EMPTY(windows) ? 0 : soft_tokens_ms(&tags->tokens);
	struct soft_home *home;

	while ((home = LIST_FIRST(windows)))
		tag_end(tags, home->only.tag, ms);
}

/* Tokens are all over the tables; the tags themselves lie side by side as they came. */
static void drops_prefetch(const struct soft_tags *tags, const uint64_t *serials, size_t n)
{
	for (size_t i = 0; i < n; i++)
		soft_index_prefetch(&tags->by_serial, serials[i]);
	for (size_t i = 0; i < n; i++) {
		uint32_t place = soft_index_find(&tags->by_serial, serials[i]);

		if (!place)
			continue;
		soft_tokens_prefetch(&tags->tokens, tag_at(tags, place)->local_token);
		soft_tokens_prefetch(&tags->tokens, tag_at(tags, place)->remote_token);
	}
}

bool soft_tags_drop(struct soft_tags *tags, const uint64_t *serials, const uint32_t *generations, size_t n, uint32_t *cut)
{
	uint32_t ms = 0, any = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t place;

		if (i % DROPS_AHEAD == 0 && n > 1)
			drops_prefetch(tags, serials + i, n - i < DROPS_AHEAD ? n - i : DROPS_AHEAD);
		/* To cut somebody may have taken a while. */
		if (i % DROPS_AHEAD == 0 || cut[i - 1])
			ms = soft_tokens_ms(&tags->tokens);
		place = soft_index_find(&tags->by_serial, serials[i]);
		cut[i] = place && tag_at(tags, place)->generation == generations[i] ? tag_end(tags, place, ms) : 0;
		any |= cut[i];
	}
	return any;
}

bool soft_tags_reset_step(struct soft_tags *tags)
{
	uint32_t ms = soft_tokens_ms(&tags->tokens);

	for (unsigned i = 0; i < RESET_STEP && tags->n_tags > 0; i++) {
		uint32_t place = soft_pool_next(&tags->pool, tags->reset);

		tags->reset = place ? place + 1 : (tags->reset / SOFT_POOL_SLAB + 1) * SOFT_POOL_SLAB;
		if (place)
			tag_end(tags, place, ms);
	}
	if (tags->n_tags > 0)
		return true;
	tags->reset = 0;
	soft_keys_drop_all(tags);
	soft_mappings_drop_all(tags);
	return soft_memories_reset_step(tags);
}

void soft_tags_reset(struct soft_tags *tags)
{
	while (soft_tags_reset_step(tags))
		;
}

/* ---- look-up */

struct soft_tag *soft_tag_find(struct soft_tags *tags, uint64_t serial)
{
	uint32_t place = soft_index_find(&tags->by_serial, serial);

	return place ? tag_at(tags, place) : NULL;
}

struct soft_tag *soft_tag_next(struct soft_tags *tags, uint64_t *cursor)
{
	uint32_t at = *cursor < SOFT_PLACES ? (uint32_t)*cursor : SOFT_PLACES;

	while (at < soft_pool_end(&tags->pool)) {
		uint32_t place = soft_pool_next(&tags->pool, at);

		at = place ? place + 1 : (at / SOFT_POOL_SLAB + 1) * SOFT_POOL_SLAB;
		*cursor = at;
		if (place)
			return tag_at(tags, place);
	}
	return NULL;
}

uint64_t soft_tag_length(const struct soft_tags *tags, const struct soft_tag *tag)
{
	const struct soft_home *home = home_at(tags, tag);

	return home->memory ? tag->length : home->length;
}

unsigned soft_tag_ranges(const struct soft_tags *tags, const struct soft_tag *tag)
{
	const struct soft_home *home = home_at(tags, tag);

	return home->memory ? 1 : home->n_ranges;
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

/*
 * An export's tag is for the streams that hold its grant and for nobody else, not even for those of its PD; a window for its stream, by whatever
 * door that came.
 */
static bool remote_in_scope(const struct soft_scope *scope, const struct soft_home *home)
{
	if (home->window)
		return home->only.stream == scope->stream && home->pd == scope->pd;
	if (!scope->by_grant)
		return home->door == 0 && home->pd == scope->pd;
	for (unsigned i = 0; i < scope->n_grants; i++)
		if (home->door != 0 && home->door == scope->grants[i])
			return true;
	return false;
}

enum nicd_reason soft_tag_allows(const struct soft_tags *tags, struct soft_tag *tag, uint64_t addr, uint64_t len, enum soft_access access,
				 struct soft_tag **ret)
{
	const struct access *a = &accesses[access];
	const struct soft_home *home = home_at(tags, tag);
	uint64_t length;

	if (!nic_rights_has(home->rights, a->rights))
		return a->denied;
	length = home->memory ? tag->length : home->length;
	if (addr < tag->iova || len > length || addr - tag->iova > length - len)
		return a->range;
	*ret = tag;
	return NICD_R_NONE;
}

/* A privileged key is nothing to a peer, whatever else has its number. */
static bool peer_says_key(const struct soft_tags *tags, uint32_t token)
{
	return soft_keys_have(&tags->keys, token);
}

enum nicd_reason soft_tag_check(struct soft_tags *tags, const struct soft_scope *scope, uint32_t token, uint64_t addr,
				uint64_t len, enum soft_access access, struct soft_tag **ret)
{
	const struct access *a = &accesses[access];
	const struct soft_home *home;
	struct soft_tag *tag;
	uint32_t place;

	if (!a->local && peer_says_key(tags, token))
		return a->token;
	place = soft_index_find(a->local ? &tags->tokens.local : &tags->tokens.remote, token);
	if (!place)
		return a->token;
	tag = tag_at(tags, place);
	home = home_at(tags, tag);
	if (home->reserved)
		return a->token;
	if (a->local ? home->pd != scope->pd : !remote_in_scope(scope, home))
		return a->token;
	return soft_tag_allows(tags, tag, addr, len, access, ret);
}

struct soft_tag *soft_tag_invalidatable(struct soft_tags *tags, const struct soft_scope *scope, uint32_t token)
{
	uint32_t place = soft_index_find(&tags->tokens.remote, token);
	const struct soft_home *home = place ? home_at(tags, tag_at(tags, place)) : NULL;

	if (peer_says_key(tags, token))
		return NULL;
	return home && remote_in_scope(scope, home) && (home->rights & NIC_INVALIDATABLE) ? tag_at(tags, place) : NULL;
}

unsigned soft_tag_iov(const struct soft_tags *tags, const struct soft_tag *tag, uint64_t addr, uint64_t len, struct iovec *iov,
		      unsigned max, uint64_t *covered)
{
	const struct soft_home *home = home_at(tags, tag);
	struct soft_tag_range one = {home->memory, (uint64_t)tag->page * NICD_PAGE + tag->iova % NICD_PAGE, tag->length};
	const struct soft_tag_range *range = home->memory ? &one : home->ranges;
	const struct soft_tag_range *end = range + (home->memory ? 1 : home->n_ranges);
	uint64_t skip = addr - tag->iova;
	unsigned n = 0;

	assert(addr >= tag->iova && len <= soft_tag_length(tags, tag) && skip <= soft_tag_length(tags, tag) - len);
	*covered = 0;
	for (; range < end && n < max && *covered < len; range++) {
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

void soft_use_begin(struct soft_tags *tags, struct soft_use *use, struct soft_tag *tag)
{
	assert(!use->tag && use->cut);
	use->tag = tag;
	tag->used = 1;
	LIST_INSERT_HEAD(&tags->uses[(uintptr_t)tag / sizeof(*tag) % SOFT_USES], use, next);
}

void soft_use_end(struct soft_use *use)
{
	if (!use->tag)
		return;
	LIST_REMOVE(use, next);
	use->tag = NULL;
}
