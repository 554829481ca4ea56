/* SPDX-License-Identifier: MIT */
/*
 * Every token there is, through soft_tag_check: a stranger who tries them all hits exactly what is granted to its
 * stream and nothing else. All 32 bits take most of a minute, so that is a benchmark (meson test --benchmark
 * soft-sweep); the test draws its tokens from 22 bits.
 */
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
#include "tests/unit/soft/narrow.h"

enum { BITS = 22 };

static uint64_t n_tags = 4096;

/* A quarter each: of the stream's PD, of another, behind a door that it has, behind one that it has not; rights in turn. */
static struct soft_tags *populate(void)
{
	static const uint32_t rights[] = {
		NIC_REMOTE_READ, NIC_REMOTE_WRITE, NIC_REMOTE_READ | NIC_REMOTE_WRITE, NIC_REMOTE_READ,
	};
	struct soft_tags *tags = soft_tags_new(narrow_draw, narrow_now);
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, NICD_PAGE), 0);
	assert_int_equal(soft_memory_attach(tags, 1, fd, NICD_PAGE, true, NULL), 0);
	close(fd);
	for (uint64_t i = 0; i < n_tags; i++) {
		struct soft_tag_terms terms = {
			.serial = 1000 + i, .generation = 1, .rights = rights[i / 4 % 4], .pd = i % 4 == 1 ? 6 : 5,
			.door = i % 4 == 2 ? 70 : i % 4 == 3 ? 71 : 0, .iova = 0x1000, .length = NICD_PAGE, .n_ranges = 1,
			.ranges = {{1, 0, NICD_PAGE}},
		};
		struct soft_tag *tag;

		assert_int_equal(soft_tag_add(tags, &terms, &tag, NULL), 0);
	}
	return tags;
}

static uint64_t sweep(struct soft_tags *tags, const struct soft_scope *scope, enum soft_access access)
{
	uint64_t hits = 0;
	struct soft_tag *tag;

	for (uint64_t token = 0; token < 1ull << narrow_bits; token++)
		hits += soft_tag_check(tags, scope, (uint32_t)token, 0x1000, 64, access, &tag) == NICD_R_NONE;
	return hits;
}

static void test_sweep(void **state)
{
	struct soft_tags *tags = populate();
	struct soft_scope pd = {.pd = 5}, door = {.pd = 5, .by_grant = true, .n_grants = 1, .grants = {70}};

	/* mutation: any hole in soft_tag_check or in the tables: hits are counted exactly */
	assert_int_equal(sweep(tags, &pd, SOFT_REMOTE_READ), n_tags / 4 * 3 / 4);
	assert_int_equal(sweep(tags, &door, SOFT_REMOTE_WRITE), n_tags / 4 / 2);
	assert_int_equal(sweep(tags, &pd, SOFT_LOCAL_READ), n_tags / 4);
	for (uint64_t i = 0; i < n_tags; i++)
		soft_tag_drop(tags, 1000 + i, 1);
	/* mutation: leave a dropped tag's token in a table */
	assert_int_equal(sweep(tags, &pd, SOFT_REMOTE_READ), 0);
	soft_tags_free(tags);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_sweep)};

	narrow_bits = argc > 1 ? 32 : BITS;
	if (argc > 1) {
		n_tags = 65536;
	}

	return cmocka_run_group_tests(tests, NULL, NULL);
}
