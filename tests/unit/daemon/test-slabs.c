/* SPDX-License-Identifier: MIT */
/* Slabs and the regions they are cut from, with the kernel's own account of what is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/slabs.h"

enum { REGIONS = 4, N = REGIONS * SLABS_IN_REGION };

static bool is_zero(const char *slab)
{
	for (size_t i = 0; i < NIC_SLAB; i++)
		if (slab[i])
			return false;
	return true;
}

/* How many pages of the slab take memory. */
static unsigned resident(void *slab)
{
	unsigned char pages[NIC_SLAB / 4096];
	unsigned n = 0;

	assert_int_equal(sysconf(_SC_PAGESIZE), 4096);
	if (mincore(slab, NIC_SLAB, pages) < 0)
		return 0;   /* not even mapped */
	for (size_t i = 0; i < sizeof(pages); i++)
		n += pages[i] & 1;
	return n;
}

static void test_regions(void **state)
{
	struct slabs slabs;
	char *all[N];

	slabs_init(&slabs);
	for (unsigned i = 0; i < N; i++) {
		all[i] = slabs_take(&slabs);
		assert_non_null(all[i]);
		/* mutation: a region for each slab */
		assert_int_equal(slabs.n_regions, i / SLABS_IN_REGION + 1);
		/* mutation: give one to two; cut beyond the end of a region */
		assert_true(is_zero(all[i]));
		memset(all[i], (int)i + 1, NIC_SLAB);
		/* mutation: do not align regions: then a slab does not find its own */
		assert_int_equal((uintptr_t)all[i] / SLABS_REGION, (uintptr_t)all[i - i % SLABS_IN_REGION] / SLABS_REGION);
	}
	for (unsigned i = 0; i < N; i++)
		assert_true(all[i][0] == (char)(i + 1) && all[i][NIC_SLAB - 1] == (char)(i + 1));
	/* mutation: keep what a slab has used until its region goes */
	for (unsigned i = 0; i < N; i += 2) {
		slabs_give(&slabs, all[i]);
		assert_int_equal(resident(all[i]), 0);
		assert_int_equal(resident(all[i + 1]), NIC_SLAB / 4096);
	}
	/* mutation: map a region while others have room; hand out what the last one left in it */
	for (unsigned i = 0; i < N; i += 2) {
		all[i] = slabs_take(&slabs);
		assert_true(is_zero(all[i]));
	}
	assert_int_equal(slabs.n_regions, REGIONS);
	for (unsigned i = 1; i < N; i += 2)
		assert_true(all[i][0] == (char)(i + 1));
	for (unsigned i = 0; i < N; i++)
		slabs_give(&slabs, all[i]);
	/* mutation: keep a region whose last slab has gone */
	assert_int_equal(slabs.n_regions, 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(resident(all[i]), 0);
	slabs_deinit(&slabs);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_regions) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
