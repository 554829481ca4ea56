/* SPDX-License-Identifier: MIT */
/* Tags: who may touch which bytes with which token, and that a dropped one is gone for good. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "nicd/object.h"
#include "nicd/soft/tag.h"

enum { MEMORY = 7, MEMORY_READ_ONLY = 8, MEMORY_SIZE = 8 * NICD_PAGE, PD = 100, EXPORT = 200, SECOND = 1000 };

static uint64_t clock_ns;
static uint32_t seed;
static uint32_t token_mask, token_low;

static uint64_t now(void)
{
	return clock_ns;
}

/* A generator with a seed; every token is masked into the space that a test wants. */
static void draw(void *buf, size_t len)
{
	uint32_t *words = buf;

	for (size_t i = 0; i < len / sizeof(*words); i++) {
		seed = seed * 1664525u + 1013904223u;
		words[i] = ((seed >> 16 | seed << 16) & token_mask) | token_low;
	}
}

static struct soft_tags *tags_of(uint32_t mask)
{
	struct soft_tags *tags;

	clock_ns = 5ull * SECOND * 1000000;
	seed = 1;
	token_mask = mask;
	token_low = 0;
	tags = soft_tags_new(draw, now);
	assert_non_null(tags);
	return tags;
}

static void attach(struct soft_tags *tags, uint64_t serial, uint64_t size, bool writable)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(soft_memory_attach(tags, serial, fd, size, writable, NULL), 0);
	close(fd);
}

static int setup(void **state)
{
	struct soft_tags *tags = tags_of(UINT32_MAX);

	attach(tags, MEMORY, MEMORY_SIZE, true);
	attach(tags, MEMORY_READ_ONLY, MEMORY_SIZE, false);
	*state = tags;
	return 0;
}

static int teardown(void **state)
{
	soft_tags_free(*state);
	return 0;
}

/* One range at the start of MEMORY, addressed from 0x10000. */
static struct soft_tag_terms terms_of(uint64_t serial, uint64_t length, uint32_t rights)
{
	return (struct soft_tag_terms){
		.serial = serial, .generation = 1, .rights = rights, .pd = PD, .iova = 0x10000, .length = length, .n_ranges = 1,
		.ranges = {{MEMORY, 0, length}},
	};
}

static struct soft_tag *add(struct soft_tags *tags, const struct soft_tag_terms *terms)
{
	struct nicd_error err;
	struct soft_tag *tag = NULL;

	assert_int_equal(soft_tag_add(tags, terms, &tag, &err), 0);
	assert_non_null(tag);
	return tag;
}

static enum nicd_reason refusal(struct soft_tags *tags, const struct soft_tag_terms *terms)
{
	struct nicd_error err = {.reason = NICD_R_NONE};
	struct soft_tag *tag = NULL;
	struct soft_tags_stats before, after;

	soft_tags_stats(tags, &before);
	assert_true(soft_tag_add(tags, terms, &tag, &err) < 0);
	assert_null(tag);
	soft_tags_stats(tags, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	return err.reason;
}

static const struct soft_scope in_pd = {.pd = PD};

static enum nicd_reason check(struct soft_tags *tags, uint32_t token, uint64_t addr, uint64_t len, enum soft_access access)
{
	struct soft_tag *tag = NULL;
	enum nicd_reason reason = soft_tag_check(tags, &in_pd, token, addr, len, access, &tag);

	assert_true((reason == NICD_R_NONE) == (tag != NULL));
	return reason;
}

static void test_kinds_apart(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = terms_of(1, 64, NIC_LOCAL_WRITE | NIC_REMOTE_READ | NIC_REMOTE_WRITE);
	struct soft_tag *tag = add(tags, &terms);

	assert_int_not_equal(tag->local_token, 0);
	assert_int_not_equal(tag->remote_token, 0);
	/* mutation: give both kinds the same token (remote_token = local_token) */
	assert_int_not_equal(tag->local_token, tag->remote_token);
	/* mutation: look both kinds up in one map */
	assert_int_equal(check(tags, tag->local_token, 0x10000, 64, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	assert_int_equal(check(tags, tag->remote_token, 0x10000, 64, SOFT_LOCAL_READ), NICD_R_LOCAL_TOKEN);
	assert_int_equal(check(tags, tag->local_token, 0x10000, 64, SOFT_LOCAL_WRITE), NICD_R_NONE);
	assert_int_equal(check(tags, tag->remote_token, 0x10000, 64, SOFT_REMOTE_WRITE), NICD_R_NONE);
	/* mutation: compare before testing for a free slot, so that 0 finds one */
	assert_int_equal(check(tags, 0, 0x10000, 0, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	assert_int_equal(check(tags, 0, 0x10000, 0, SOFT_LOCAL_READ), NICD_R_LOCAL_TOKEN);
}

static void test_tokens_given(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = terms_of(1, 64, NIC_LOCAL_WRITE);

	/* mutation: draw a remote token without remote rights */
	assert_int_equal(add(tags, &terms)->remote_token, 0);
	terms = terms_of(2, 64, NIC_REMOTE_READ);
	terms.door = EXPORT;
	/* mutation: draw a local token for a tag behind a door */
	assert_int_equal(add(tags, &terms)->local_token, 0);
}

static void test_scope(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms mr = terms_of(1, 64, NIC_REMOTE_READ), door = terms_of(EXPORT, 64, NIC_REMOTE_READ), other;
	struct soft_scope grant = {.pd = PD, .by_grant = true, .n_grants = 1, .grants = {EXPORT}};
	struct soft_scope no_grant = {.pd = PD, .by_grant = true};
	struct soft_scope zero_grant = {.pd = PD, .by_grant = true, .n_grants = 1, .grants = {0}};
	struct soft_scope two = {.pd = PD + 1, .by_grant = true, .n_grants = 2, .grants = {EXPORT + 1, EXPORT}};
	struct soft_tag *of_mr, *of_door, *of_other, *ret;

	door.door = EXPORT;
	other = terms_of(3, 64, NIC_REMOTE_READ);
	other.pd = PD + 1;
	of_mr = add(tags, &mr);
	of_door = add(tags, &door);
	of_other = add(tags, &other);
	/* mutation: leave the PD out of the scope */
	assert_int_equal(check(tags, of_other->remote_token, 0x10000, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	assert_int_equal(check(tags, of_other->local_token, 0x10000, 1, SOFT_LOCAL_READ), NICD_R_LOCAL_TOKEN);
	/* mutation: let a PD's streams use the tags of its exports */
	assert_int_equal(check(tags, of_door->remote_token, 0x10000, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	assert_int_equal(soft_tag_check(tags, &grant, of_door->remote_token, 0x10000, 1, SOFT_REMOTE_READ, &ret), NICD_R_NONE);
	assert_int_equal(soft_tag_check(tags, &two, of_door->remote_token, 0x10000, 1, SOFT_REMOTE_READ, &ret), NICD_R_NONE);
	/* mutation: let a stream with a grant use the PD's tags too */
	assert_int_equal(soft_tag_check(tags, &grant, of_mr->remote_token, 0x10000, 1, SOFT_REMOTE_READ, &ret),
			 NICD_R_REMOTE_TOKEN);
	/* mutation: take an empty grant list for "all" */
	assert_int_equal(soft_tag_check(tags, &no_grant, of_door->remote_token, 0x10000, 1, SOFT_REMOTE_READ, &ret),
			 NICD_R_REMOTE_TOKEN);
	/* mutation: compare door with grant without asking for a door */
	assert_int_equal(soft_tag_check(tags, &zero_grant, of_mr->remote_token, 0x10000, 1, SOFT_REMOTE_READ, &ret),
			 NICD_R_REMOTE_TOKEN);
}

/* All 16 values of the rights against all accesses; what is allowed is written out here a second time. */
static void test_rights(void **state)
{
	struct soft_tags *tags = *state;

	for (uint32_t rights = 0; rights < 16; rights++) {
		struct soft_tag_terms terms = terms_of(100 + rights, 64, rights);
		struct soft_tag *tag;

		/* mutation: accept 0x4 without 0x1 */
		if ((rights & 5) == 4) {
			assert_int_equal(refusal(tags, &terms), NICD_R_FLAGS);
			continue;
		}
		tag = add(tags, &terms);
		assert_int_equal(check(tags, tag->local_token, 0x10000, 1, SOFT_LOCAL_READ), NICD_R_NONE);
		assert_int_equal(check(tags, tag->local_token, 0x10000, 1, SOFT_LOCAL_WRITE),
				 rights & 1 ? NICD_R_NONE : NICD_R_LOCAL_RIGHTS);
		if (!tag->remote_token)
			continue;
		/* mutation: any-of in place of all-of: 0x3 would allow remote write, 0x5 remote read */
		assert_int_equal(check(tags, tag->remote_token, 0x10000, 1, SOFT_REMOTE_READ),
				 rights & 2 ? NICD_R_NONE : NICD_R_REMOTE_RIGHTS);
		assert_int_equal(check(tags, tag->remote_token, 0x10000, 1, SOFT_REMOTE_WRITE),
				 (rights & 5) == 5 ? NICD_R_NONE : NICD_R_REMOTE_RIGHTS);
	}
}

/* Every (length, address, len) of a small world against sums that cannot wrap, at the bottom and at the top of 64 bits. */
static void test_ranges(void **state)
{
	struct soft_tags *tags = *state;
	uint64_t serial = 1;

	for (unsigned length = 1; length <= 12; length++) {
		for (unsigned top = 0; top < 2; top++) {
			uint64_t iova = top ? UINT64_MAX - length : 5;
			struct soft_tag_terms terms = terms_of(serial++, length, NIC_REMOTE_READ);
			uint32_t token;

			terms.iova = iova;
			token = add(tags, &terms)->remote_token;
			for (int at = -5; at <= 20; at++) {
				for (unsigned i = 0; i <= 40; i++) {
					uint64_t addr = iova + (uint64_t)(int64_t)at;
					/* A few small ones, and those that wrap when they are added to something. */
					uint64_t len = i <= 20 ? i : UINT64_MAX - (i - 21);
					bool inside = at >= 0 && addr >= iova && (unsigned)at <= length && len <= length &&
						      (unsigned)at + len <= length;

					/* mutation: addr + len > iova + length, which wraps */
					/* mutation: < in place of <= at the end, or the other way round */
					assert_int_equal(check(tags, token, addr, len, SOFT_REMOTE_READ),
							 inside ? NICD_R_NONE : NICD_R_REMOTE_RANGE);
				}
			}
		}
	}
}

static void test_range_reasons(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = terms_of(1, 64, NIC_REMOTE_READ);
	struct soft_tag *tag = add(tags, &terms);

	assert_int_equal(check(tags, tag->local_token, 0x10000, 65, SOFT_LOCAL_READ), NICD_R_LOCAL_RANGE);
	/* One past the end, for nothing: allowed. */
	assert_int_equal(check(tags, tag->remote_token, 0x10040, 0, SOFT_REMOTE_READ), NICD_R_NONE);
	assert_int_equal(check(tags, tag->remote_token, 0x10041, 0, SOFT_REMOTE_READ), NICD_R_REMOTE_RANGE);
	/* mutation: check the range before the rights */
	assert_int_equal(check(tags, tag->remote_token, 0, 1, SOFT_REMOTE_WRITE), NICD_R_REMOTE_RIGHTS);
}

static void test_add_refused(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms t;

#define REFUSED(change, why) \
	do { \
		t = terms_of(1, 64, NIC_LOCAL_WRITE); \
		change; \
		assert_int_equal(refusal(tags, &t), why); \
	} while (0)
	REFUSED(t.serial = 0, NICD_R_SERIAL);
	/* mutation: drop the check of n_ranges (an array is overrun) */
	REFUSED(t.n_ranges = 0, NICD_R_COUNT);
	REFUSED(t.n_ranges = NICD_RANGES + 1, NICD_R_COUNT);
	REFUSED(t.rights = 0x10, NICD_R_FLAGS);
	REFUSED(t.length = 0, NICD_R_LENGTH_ZERO);
	REFUSED(t.ranges[0].length = 0, NICD_R_LENGTH_ZERO);
	/* mutation: drop the check that the ranges hold the length */
	REFUSED(t.length = 65, NICD_R_LENGTH_BEYOND);
	REFUSED(t.iova = 0, NICD_R_IOVA_ZERO);
	/* mutation: drop the check that iova + length fits */
	REFUSED(t.iova = UINT64_MAX - 63, NICD_R_IOVA_OVERFLOW);
	REFUSED(t.ranges[0].memory = 99, NICD_R_SERIAL);
	/* mutation: offset + length > size without the check for wrapping */
	REFUSED(t.ranges[0].offset = UINT64_MAX - 63, NICD_R_RANGE_OVERFLOW);
	REFUSED(t.ranges[0].offset = UINT64_MAX - 64, NICD_R_RANGE_BEYOND);
	REFUSED(t.ranges[0].offset = MEMORY_SIZE - 63, NICD_R_RANGE_BEYOND);
	REFUSED(t.ranges[0].length = MEMORY_SIZE + 1, NICD_R_RANGE_BEYOND);
	/* mutation: drop the check for write rights on memory attached read-only */
	REFUSED(t.ranges[0].memory = MEMORY_READ_ONLY, NICD_R_MEMORY_READ_ONLY);
	/* mutation: accept a door's tag that nobody could use */
	REFUSED(t.door = EXPORT, NICD_R_NO_REMOTE_RIGHTS);
#undef REFUSED
	t = terms_of(1, 64, NIC_REMOTE_READ);
	t.ranges[0].memory = MEMORY_READ_ONLY;
	add(tags, &t);
}

static void test_idempotent(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = terms_of(1, 64, NIC_REMOTE_READ);
	struct soft_tag *tag = add(tags, &terms);
	uint32_t local = tag->local_token, remote = tag->remote_token;
	struct soft_tags_stats stats;

	/* mutation: draw new tokens when it is said again */
	assert_ptr_equal(add(tags, &terms), tag);
	assert_int_equal(tag->local_token, local);
	assert_int_equal(tag->remote_token, remote);
	terms.generation = 2;
	/* mutation: ignore the generation in add */
	assert_int_equal(refusal(tags, &terms), NICD_R_DEVICE_BUSY);
	/* mutation: ignore the generation in drop */
	assert_int_equal(soft_tag_drop(tags, 1, 2), 0);
	assert_ptr_equal(soft_tag_find(tags, 1), tag);
	soft_tag_drop(tags, 1, 1);
	assert_null(soft_tag_find(tags, 1));
	assert_int_equal(soft_tag_drop(tags, 1, 1), 0);
	assert_int_equal(check(tags, local, 0x10000, 1, SOFT_LOCAL_READ), NICD_R_LOCAL_TOKEN);
	assert_int_equal(check(tags, remote, 0x10000, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	soft_tags_stats(tags, &stats);
	assert_int_equal(stats.tags, 0);
	/* mutation: count the released tokens of one kind only */
	assert_int_equal(stats.quarantined, 2);
	assert_int_equal(add(tags, &terms)->generation, 2);
}

/* A stream with two uses of one tag; ending it ends both. */
struct stream {
	struct soft_use rx, tx;
	struct soft_tags *tags;
	uint32_t token;
	unsigned cuts;
};

static void cut_rx(struct soft_use *use)
{
	struct stream *stream = (struct stream *)((char *)use - offsetof(struct stream, rx));

	/* mutation: cut before the token is unhashed */
	assert_int_equal(check(stream->tags, stream->token, 0x10000, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	stream->cuts++;
	soft_use_end(&stream->rx);
	soft_use_end(&stream->tx);
}

static void cut_tx(struct soft_use *use)
{
	cut_rx(&((struct stream *)((char *)use - offsetof(struct stream, tx)))->rx);
}

static void test_drop_cuts(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms a = terms_of(1, 64, NIC_REMOTE_READ), b = terms_of(2, 64, NIC_REMOTE_READ);
	struct soft_tag *tag = add(tags, &a), *other = add(tags, &b);
	struct stream one = {.rx.cut = cut_rx, .tx.cut = cut_tx, .tags = tags, .token = tag->remote_token}, two = one, third = one;

	soft_use_begin(tags, &one.rx, tag);
	soft_use_begin(tags, &one.tx, tag);
	soft_use_begin(tags, &two.rx, tag);
	soft_use_begin(tags, &third.rx, other);
	/* mutation: cut only the first use */
	/* mutation: count uses in place of streams */
	assert_int_equal(soft_tag_drop(tags, 1, 1), 2);
	assert_int_equal(one.cuts, 1);
	assert_int_equal(two.cuts, 1);
	/* mutation: cut the uses of other tags */
	assert_int_equal(third.cuts, 0);
	assert_ptr_equal(third.rx.tag, other);
	assert_null(one.rx.tag);
	soft_use_end(&third.rx);
	soft_use_end(&third.rx);
	assert_int_equal(soft_tag_drop(tags, 2, 1), 0);
}

/* It takes long. */
static void cut_slowly(struct soft_use *use)
{
	clock_ns += 8ull * SECOND * 1000000;
	soft_use_end(use);
}

static void test_drop_many(void **state)
{
	enum { N = 100 };
	struct soft_tags *tags = *state;
	uint64_t serials[N + 3];
	uint32_t generations[N + 3], cut[N + 3], tokens[N];
	struct soft_use use = {.cut = cut_slowly};
	struct soft_tags_stats stats;

	for (unsigned i = 0; i < N; i++) {
		struct soft_tag_terms terms = terms_of(i + 1, 64, NIC_REMOTE_READ);
		struct soft_tag *tag = add(tags, &terms);

		serials[i] = i + 1;
		generations[i] = 1;
		tokens[i] = tag->remote_token;
		if (i == 20)
			soft_use_begin(tags, &use, tag);
	}
	serials[N] = serials[N + 1] = 1;                  /* twice more */
	generations[N] = generations[N + 1] = generations[N + 2] = 1;
	serials[N + 2] = UINT64_MAX;                      /* none */
	generations[50] = 2;                              /* not this one */
	assert_true(soft_tags_drop(tags, serials, generations, N + 3, cut));
	soft_tags_stats(tags, &stats);
	/* mutation: take the place that was looked up before for that of the tag: it may be another's by now */
	assert_int_equal(stats.tags, 1);
	assert_non_null(soft_tag_find(tags, 51));
	for (unsigned i = 0; i < N + 3; i++)
		assert_int_equal(cut[i], i == 20);
	/* mutation: say that nobody was cut */
	assert_false(soft_tags_drop(tags, serials, generations, 20, cut));
	clock_ns += 3ull * SECOND * 1000000;
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(check(tags, tokens[i], 0x10000, 1, SOFT_REMOTE_READ), i == 50 ? NICD_R_NONE : NICD_R_REMOTE_TOKEN);
	}
	/* Those before are over after 11 s. mutation: look at the clock only before: then those after it rest too short */
	soft_tags_stats(tags, &stats);
	assert_int_equal(stats.quarantined, 2 * (N - 1 - 21));
	generations[50] = 1;
	assert_false(soft_tags_drop(tags, &serials[50], &generations[50], 1, cut));
}

static void test_reset(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = terms_of(1, 64, NIC_REMOTE_READ);
	struct soft_tag *tag = add(tags, &terms);
	struct stream stream = {.rx.cut = cut_rx, .tags = tags, .token = tag->remote_token};
	struct soft_tags_stats stats;

	soft_use_begin(tags, &stream.rx, tag);
	soft_tags_reset(tags);
	/* mutation: forget the uses on reset */
	assert_int_equal(stream.cuts, 1);
	/* mutation: forget the token maps on reset */
	assert_int_equal(check(tags, stream.token, 0x10000, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
	soft_tags_stats(tags, &stats);
	assert_int_equal(stats.tags, 0);
	assert_int_equal(stats.memories, 0);
	/* mutation: forget the quarantine on reset */
	assert_true(soft_token_taken(tags, stream.token));
	attach(tags, MEMORY, MEMORY_SIZE, true);
	add(tags, &terms);
}

/* mutation: drop all in one step, or leave one out whose place a step came by */
static void test_reset_in_steps(void **state)
{
	enum { N = 5000 };
	struct soft_tags *tags = *state;
	static uint32_t tokens[N];
	struct soft_tags_stats stats;
	unsigned steps = 0, left = N;

	for (unsigned i = 0; i < N; i++) {
		struct soft_tag_terms terms = terms_of(i + 1, 64, NIC_REMOTE_READ);

		tokens[i] = add(tags, &terms)->remote_token;
	}
	for (unsigned i = 0; i < N; i += 3)
		soft_tag_drop(tags, i + 1, 1);
	soft_tags_stats(tags, &stats);
	left = (unsigned)stats.tags;
	while (soft_tags_reset_step(tags)) {
		soft_tags_stats(tags, &stats);
		assert_true(left - stats.tags <= 64);
		left = (unsigned)stats.tags;
		steps++;
	}
	assert_true(steps >= N * 2 / 3 / 64 && steps < N);
	soft_tags_stats(tags, &stats);
	assert_int_equal(stats.tags + stats.memories, 0);
	/* mutation: a token that a reset dropped may be drawn again at once */
	assert_int_equal(stats.quarantined, 2 * N);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(check(tags, tokens[i], 0x10000, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_TOKEN);
		assert_true(soft_token_taken(tags, tokens[i]));
		assert_null(soft_tag_find(tags, i + 1));
	}
}

/* Both ways in which a tag is kept come to the same: a shared home, and one of its own for whatever does not fit that. */
static void test_homes(void **state)
{
	struct soft_tags *tags = *state;
	static const struct {
		uint64_t offset, length, iova;
	} cases[] = {
		{0, 64, 0x10000}, {NICD_PAGE + 5, 100, 0x20005},   /* the iova is as far into its page as the offset */
		{5, 100, 0x20000}, {7 * NICD_PAGE, NICD_PAGE, 17}, /* it is not */
	};
	const uint8_t *map = soft_memory_find(tags, MEMORY)->map;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct soft_tag_terms terms = terms_of(i + 1, cases[i].length, NIC_REMOTE_READ);
		struct soft_tag *tag;
		uint64_t covered;
		struct iovec iov;

		terms.iova = cases[i].iova;
		terms.ranges[0].offset = cases[i].offset;
		tag = add(tags, &terms);
		assert_int_equal(soft_tag_length(tags, tag), cases[i].length);
		assert_int_equal(soft_tag_ranges(tags, tag), 1);
		assert_int_equal(soft_tag_iov(tags, tag, cases[i].iova + 3, 20, &iov, 1, &covered), 1);
		/* mutation: share a home with a tag whose iova does not fit its offset */
		assert_ptr_equal(iov.iov_base, map + cases[i].offset + 3);
		assert_int_equal(covered, 20);
	}
	/* Other rights, other PD: another home. mutation: leave one out of the comparison of homes */
	for (unsigned i = 0; i < 4; i++) {
		struct soft_tag_terms terms = terms_of(100 + i, 64, i & 1 ? NIC_REMOTE_READ : NIC_REMOTE_WRITE);
		struct soft_tag *tag;

		terms.pd = i & 2 ? PD : PD + 1;
		tag = add(tags, &terms);
		assert_int_equal(check(tags, tag->remote_token, 0x10000, 1, SOFT_REMOTE_READ),
				 !(i & 2) ? NICD_R_REMOTE_TOKEN : i & 1 ? NICD_R_NONE : NICD_R_REMOTE_RIGHTS);
	}
	/* mutation: forget the ranges of a tag that shares */
	assert_int_equal(soft_memory_find(tags, MEMORY)->tags, 8);
	for (unsigned i = 0; i < 4; i++) {
		soft_tag_drop(tags, i + 1, 1);
		soft_tag_drop(tags, 100 + i, 1);
	}
	assert_int_equal(soft_memory_find(tags, MEMORY)->tags, 0);
	assert_int_equal(soft_memory_detach(tags, MEMORY, NULL, NULL, NULL), 0);
}

/* 5 GiB of address space, of which nothing is touched. mutation: cut lengths to 32 bits */
static void test_long_tag(void **state)
{
	struct soft_tags *tags = *state;
	const uint64_t size = 5ull << 30;
	struct soft_tag_terms terms = terms_of(1, size, NIC_REMOTE_READ);
	struct soft_tag *tag;

	attach(tags, 50, size, true);
	terms.ranges[0].memory = 50;
	tag = add(tags, &terms);
	assert_int_equal(soft_tag_length(tags, tag), size);
	assert_int_equal(check(tags, tag->remote_token, 0x10000 + size - 1, 1, SOFT_REMOTE_READ), NICD_R_NONE);
	assert_int_equal(check(tags, tag->remote_token, 0x10000 + size, 1, SOFT_REMOTE_READ), NICD_R_REMOTE_RANGE);
}

/* Three ranges of different sizes in two memories; every part of it is asked for in pieces and put together again. */
static void test_iov(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = {
		.serial = 1, .generation = 1, .pd = PD, .iova = 1000, .length = 40, .n_ranges = 3,
		.ranges = {{MEMORY, 100, 10}, {MEMORY_READ_ONLY, 0, 1}, {MEMORY, NICD_PAGE, 100}},
	};
	const uint8_t *first = soft_memory_find(tags, MEMORY)->map, *second = soft_memory_find(tags, MEMORY_READ_ONLY)->map;
	struct soft_tag *tag = add(tags, &terms);

	for (uint64_t at = 0; at <= 40; at++) {
		for (uint64_t len = 0; at + len <= 40; len++) {
			for (unsigned max = 0; max <= 4; max++) {
				struct iovec iov[4];
				uint64_t covered = 99, sum = 0;
				unsigned n = soft_tag_iov(tags, tag, terms.iova + at, len, iov, max, &covered);

				assert_true(n <= max);
				for (unsigned i = 0; i < n; i++) {
					assert_true(iov[i].iov_len > 0);
					for (size_t j = 0; j < iov[i].iov_len; j++, sum++) {
						uint64_t k = at + sum;
						const uint8_t *want = k < 10 ? first + 100 + k :
								      k < 11 ? second :
									       first + NICD_PAGE + (k - 11);

						/* mutation: forget to skip within the first piece */
						/* mutation: forget a range's own offset */
						assert_ptr_equal((uint8_t *)iov[i].iov_base + j, want);
					}
				}
				assert_int_equal(covered, sum);
				/* mutation: stop before the last range, or run beyond len */
				if (max == 4)
					assert_int_equal(sum, len);
				else
					assert_true(sum <= len);
			}
		}
	}
}

static void test_busy(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = terms_of(1, 64, 0);
	struct nicd_error err;

	terms.n_ranges = 2;
	terms.length = 128;
	terms.ranges[1] = terms.ranges[0];
	add(tags, &terms);
	/* mutation: let memory go that a tag names */
	assert_true(soft_memory_detach(tags, MEMORY, NULL, NULL, &err) < 0);
	assert_int_equal(err.reason, NICD_R_DEVICE_BUSY);
	assert_int_equal(err.observed, 2);
	soft_tag_drop(tags, 1, 1);
	/* mutation: count a dropped tag's ranges once, not each */
	assert_int_equal(soft_memory_detach(tags, MEMORY, NULL, NULL, &err), 0);
	assert_null(soft_memory_find(tags, MEMORY));
}

static void test_next(void **state)
{
	struct soft_tags *tags = *state;
	static const uint64_t serials[] = {9, 1, UINT64_MAX, 5};
	unsigned seen[4] = {0};
	uint64_t cursor = 0;

	for (unsigned i = 0; i < 4; i++) {
		struct soft_tag_terms terms = terms_of(serials[i], 64, 0);

		add(tags, &terms);
	}
	for (unsigned i = 0; i < 4; i++) {
		struct soft_tag *tag = soft_tag_next(tags, &cursor);

		/* mutation: answer the cursor's own tag again */
		for (unsigned k = 0; k < 4; k++)
			seen[k] += tag->serial == serials[k];
	}
	for (unsigned k = 0; k < 4; k++)
		assert_int_equal(seen[k], 1);
	assert_null(soft_tag_next(tags, &cursor));
	cursor = UINT64_MAX;
	assert_null(soft_tag_next(tags, &cursor));
	assert_int_equal(soft_memory_next(tags, 0)->serial, MEMORY);
	assert_int_equal(soft_memory_next(tags, MEMORY)->serial, MEMORY_READ_ONLY);
	assert_null(soft_memory_next(tags, MEMORY_READ_ONLY));
	assert_null(soft_memory_next(tags, UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kinds_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tokens_given, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scope, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ranges, setup, teardown),
		cmocka_unit_test_setup_teardown(test_range_reasons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idempotent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drop_cuts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drop_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_in_steps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_homes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_tag, setup, teardown),
		cmocka_unit_test_setup_teardown(test_iov, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_next, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
