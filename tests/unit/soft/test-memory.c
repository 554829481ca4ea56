/* SPDX-License-Identifier: MIT */
/* Memory: attached once, unmapped in pieces, answered when the last piece is gone. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "nicd/soft/tag.h"

enum { MIB = 1 << 20 };

static uint64_t now(void)
{
	return 1;
}

static void draw(void *buf, size_t len)
{
	assert_int_equal(getrandom(buf, len, 0), (ssize_t)len);
}

static int setup(void **state)
{
	*state = soft_tags_new(draw, now);
	assert_non_null(*state);
	return 0;
}

static int teardown(void **state)
{
	soft_tags_free(*state);
	return 0;
}

static int memfd(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static int attach(struct soft_tags *tags, uint64_t serial, uint64_t size, bool writable, struct nicd_error *err)
{
	int fd = memfd(size), r = soft_memory_attach(tags, serial, fd, size, writable, err);

	close(fd);
	return r;
}

static bool mapped(const void *at)
{
	unsigned char vec;

	return mincore((void *)((uintptr_t)at & ~(uintptr_t)(NICD_PAGE - 1)), 1, &vec) == 0;
}

static void count(void *userdata)
{
	++*(unsigned *)userdata;
}

static void test_attach(void **state)
{
	struct soft_tags *tags = *state;
	struct nicd_error err;
	struct soft_memory *memory;
	int fd = memfd(100);

	assert_int_equal(pwrite(fd, "hello", 5, 0), 5);
	assert_int_equal(soft_memory_attach(tags, 1, fd, 100, true, &err), 0);
	memory = soft_memory_find(tags, 1);
	assert_memory_equal(memory->map, "hello", 5);
	/* mutation: map again when it is said again */
	assert_int_equal(soft_memory_attach(tags, 1, fd, 100, true, &err), 0);
	assert_ptr_equal(soft_memory_find(tags, 1), memory);
	/* mutation: take other terms under the same serial for the same thing */
	assert_true(soft_memory_attach(tags, 1, fd, 99, true, &err) < 0);
	assert_int_equal(err.reason, NICD_R_DEVICE_BUSY);
	assert_true(soft_memory_attach(tags, 1, fd, 100, false, &err) < 0);
	assert_int_equal(err.reason, NICD_R_DEVICE_BUSY);
	/* The mapping needs the descriptor no longer. */
	close(fd);
	assert_memory_equal(memory->map, "hello", 5);
}

static void test_attach_refused(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tags_stats stats;
	struct nicd_error err;
	int fds[2], fd = memfd(4096), read_only;
	char path[64];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_true(soft_memory_attach(tags, 1, fds[0], 4096, false, &err) < 0);
	assert_int_equal(err.reason, NICD_R_MEMORY_MAP);
	assert_int_equal(err.provider_error, ENODEV);
	assert_true(soft_memory_attach(tags, 1, fd, UINT64_MAX, false, &err) < 0);
	assert_int_equal(err.reason, NICD_R_MEMORY_MAP);
	assert_true(soft_memory_attach(tags, 1, fd, 0, false, &err) < 0);
	assert_int_equal(err.reason, NICD_R_MEMORY_MAP);
	assert_true(soft_memory_attach(tags, 0, fd, 4096, false, &err) < 0);
	assert_int_equal(err.reason, NICD_R_SERIAL);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read_only >= 0);
	/* mutation: map for reading only, whatever was asked for */
	assert_true(soft_memory_attach(tags, 1, read_only, 4096, true, &err) < 0);
	assert_int_equal(err.provider_error, EACCES);
	soft_tags_stats(tags, &stats);
	assert_int_equal(stats.memories, 0);
	close(read_only);
	close(fd);
	close(fds[0]);
	close(fds[1]);
}

static void test_detach_small(void **state)
{
	struct soft_tags *tags = *state;
	unsigned done = 0;
	uint8_t *map;

	attach(tags, 1, MIB, true, NULL);
	map = soft_memory_find(tags, 1)->map;
	assert_int_equal(soft_memory_detach(tags, 1, count, &done, NULL), 0);
	assert_int_equal(done, 1);
	assert_null(soft_memory_find(tags, 1));
	/* mutation: answer a detach without unmapping */
	assert_false(mapped(map));
	assert_false(soft_memory_step(tags));
	/* mutation: refuse to detach what is gone */
	assert_int_equal(soft_memory_detach(tags, 1, count, &done, NULL), 0);
	assert_int_equal(done, 2);
}

static void test_detach_in_pieces(void **state)
{
	struct soft_tags *tags = *state;
	unsigned done = 0, again = 0, small = 0, steps = 0;
	uint8_t *map;

	attach(tags, 1, 40 * MIB, true, NULL);
	attach(tags, 2, 4096, true, NULL);
	map = soft_memory_find(tags, 1)->map;
	assert_int_equal(soft_memory_detach(tags, 1, count, &done, NULL), 0);
	assert_null(soft_memory_find(tags, 1));
	/* mutation: unmap all of it at once */
	assert_true(mapped(map));
	/* mutation: answer before the last piece is gone, also when asked again */
	assert_int_equal(soft_memory_detach(tags, 1, count, &again, NULL), 0);
	assert_int_equal(soft_memory_detach(tags, 2, count, &small, NULL), 0);
	while (soft_memory_step(tags)) {
		steps++;
		assert_true(done == !mapped(map));
		assert_true(again <= done && small <= again);
		/* mutation: unmap more than 4 MiB per step */
		assert_true(done == (steps >= 10));
	}
	assert_true(done == 1 && again == 1 && small == 1);
	assert_int_equal(steps, 11);
}

/* Pages of [0, n) of a mapping that this process has in its page table. */
static unsigned present(const uint8_t *map, unsigned n)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entries[1024];
	unsigned sum = 0;

	assert_true(fd >= 0 && n <= 1024);
	assert_int_equal(pread(fd, entries, n * sizeof(*entries), (off_t)((uintptr_t)map / NICD_PAGE * sizeof(*entries))),
			 n * sizeof(*entries));
	close(fd);
	for (unsigned i = 0; i < n; i++)
		sum += entries[i] >> 63;
	return sum;
}

/* What is in memory is mapped ahead, in pieces; what is not stays away. */
static void test_populate(void **state)
{
	enum { PAGES = 1024, HOLE = 512 };
	struct soft_tags *tags = *state;
	static char page[NICD_PAGE];
	int fd = memfd(PAGES * (uint64_t)NICD_PAGE);
	unsigned steps = 0;
	struct stat st;
	uint8_t *map;

	for (unsigned i = 0; i < PAGES; i++)
		if (i < 100 || i >= HOLE)
			assert_int_equal(pwrite(fd, page, sizeof(page), (off_t)i * NICD_PAGE), sizeof(page));
	assert_int_equal(soft_memory_attach(tags, 1, fd, PAGES * (uint64_t)NICD_PAGE, true, NULL), 0);
	map = soft_memory_find(tags, 1)->map;
	assert_int_equal(present(map, PAGES), 0);
	while (soft_memory_step(tags)) {
		steps++;
		/* mutation: populate all at once */
		assert_true(present(map, PAGES) <= (steps + 1) * 64);
	}
	/* mutation: do not populate */
	assert_int_equal(present(map, PAGES), PAGES - HOLE + 100);
	assert_int_equal(fstat(fd, &st), 0);
	/* mutation: populate holes: their pages are made at our cost */
	assert_int_equal(st.st_blocks * 512, (PAGES - HOLE + 100) * NICD_PAGE);
	close(fd);
}

/* mutation: leave one in the queue of those to be populated when it is detached */
static void test_detach_while_populating(void **state)
{
	struct soft_tags *tags = *state;
	unsigned done = 0;

	attach(tags, 1, MIB, true, NULL);
	attach(tags, 2, 40 * MIB, true, NULL);
	attach(tags, 3, MIB, true, NULL);
	assert_true(soft_memory_step(tags));
	soft_memory_detach(tags, 1, count, &done, NULL);
	soft_memory_detach(tags, 2, count, &done, NULL);
	while (soft_memory_step(tags))
		;
	assert_int_equal(done, 2);
	assert_non_null(soft_memory_find(tags, 3));
}

/* Given away while pieces are left: the callbacks come all the same, and nothing stays mapped. */
static void test_free_while_unmapping(void **state)
{
	struct soft_tags *tags = soft_tags_new(draw, now);
	unsigned done = 0;
	uint8_t *map;

	attach(tags, 1, 64 * MIB, false, NULL);
	attach(tags, 2, 64 * MIB, false, NULL);
	map = soft_memory_find(tags, 1)->map;
	soft_memory_detach(tags, 1, count, &done, NULL);
	assert_int_equal(done, 0);
	soft_tags_free(tags);
	/* mutation: forget the queue when everything is freed */
	assert_int_equal(done, 1);
	assert_false(mapped(map));
}

static void test_mappings(void **state)
{
	struct soft_tags *tags = *state;
	struct nicd_error err = {0};
	unsigned done = 0;

	soft_memories_limit(tags, 2);
	assert_int_equal(attach(tags, 1, 4096, false, NULL), 0);
	assert_int_equal(attach(tags, 2, 64 * MIB, false, NULL), 0);
	/* mutation: no cap but the kernel's */
	assert_true(attach(tags, 3, 4096, false, &err) < 0);
	assert_int_equal(err.reason, NICD_R_DEVICE_MAPPINGS);
	assert_int_equal(err.limit, 2);
	/* mutation: count before asking whether it is there already */
	assert_int_equal(attach(tags, 2, 64 * MIB, false, NULL), 0);
	soft_memory_detach(tags, 2, count, &done, NULL);
	/* mutation: what is still being unmapped counts no more */
	assert_true(attach(tags, 3, 4096, false, &err) < 0);
	soft_memory_detach(tags, 2, count, &done, NULL);   /* asked again: nothing is mapped for it */
	while (soft_memory_step(tags))
		;
	assert_int_equal(done, 2);
	assert_int_equal(attach(tags, 3, 4096, false, NULL), 0);
	/* mutation: the repeated detach counts as a mapping given back */
	assert_true(attach(tags, 4, 4096, false, &err) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_attach, setup, teardown),
		cmocka_unit_test_setup_teardown(test_attach_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detach_small, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detach_in_pieces, setup, teardown),
		cmocka_unit_test(test_free_while_unmapping),
		cmocka_unit_test_setup_teardown(test_populate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detach_while_populating, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mappings, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
