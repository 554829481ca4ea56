/* SPDX-License-Identifier: MIT */
/*
 * Buffers of huge pages, with the real nicds (see with-nicd). Pages are reserved for the test and given back, which
 * takes root; a kernel without huge pages is a failure. Without root nothing can be reserved, and what needs it is
 * skipped, but never in CI.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/nicd.h"

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

enum { HUGE = 2 << 20, PAGES = 4 };

static unsigned long pool_read(const char *name)
{
	unsigned long n;
	FILE *f = fopen(name, "re");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &n), 1);
	fclose(f);
	return n;
}

static int pool_write(unsigned long n)
{
	FILE *f = fopen(POOL "nr_hugepages", "we");

	if (!f)
		return -errno;
	fprintf(f, "%lu", n);
	return fclose(f) == 0 ? 0 : -errno;
}

struct pool {
	unsigned long before;
	int error;   /* of reserving */
};

/* PAGES more than there were, until the test is over, however it ends. */
static int setup(void **state)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -1;
	pool->before = pool_read(POOL "nr_hugepages");
	pool->error = pool_write(pool->before + PAGES);
	*state = pool;
	return 0;
}

static int teardown(void **state)
{
	struct pool *pool = *state;
	int r = pool->error ? 0 : pool_write(pool->before);

	free(pool);
	return r;
}

static void need_pool(const struct pool *pool)
{
	if (pool->error == 0) {
		assert_in_range(pool_read(POOL "nr_hugepages"), PAGES, ULONG_MAX);
		return;
	}
	if (geteuid() == 0 || getenv("CI"))
		fail_msg("huge pages cannot be reserved: %s", strerror(-pool->error));
	print_message("# not root: no huge pages can be reserved\n");
	skip();
}

static struct nicd *session(const char *variable)
{
	struct nicd_open_attr attr = { .size = sizeof(attr), .socket = getenv(variable) };
	struct nicd *n = NULL;

	assert_int_equal(nicd_open(&n, &attr), 0);
	return n;
}

/* An export over the border of two huge pages is read by the other host. */
static void read_across(struct nicd *n, struct nicd_pd *pd, struct nicd_mr *mr, uint8_t *bytes)
{
	struct nicd_export_attr export_attr = { .size = sizeof(export_attr), .flags = NICD_MR_REMOTE_READ, .name = "huge" };
	struct nicd_connect_attr connect_attr = { .size = sizeof(connect_attr) };
	struct nicd_mr_attr mr_attr = { .size = sizeof(mr_attr), .flags = NICD_MR_LOCAL_WRITE };
	struct nicd *far = session("NICD_TEST_2");
	struct nicd_transfer t = { .length = 200000 };
	struct nicd_buffer *to;
	struct nicd_pd *far_pd;
	struct nicd_export *door;
	struct nicd_qp *qp;
	struct nicd_mr *far_mr;

	for (uint32_t i = 0; i < t.length; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(nicd_export_create(mr, &export_attr, &door), 0);
	assert_int_equal(nicd_buffer_new(far, t.length, NICD_BUFFER_HUGE_ONLY, &to), 0);
	assert_int_equal(nicd_pd_create(far, 0, &far_pd), 0);
	mr_attr.buffer = to;
	assert_int_equal(nicd_mr_new(far_pd, &mr_attr, &far_mr), 0);
	connect_attr.locator = nicd_export_locator(door);
	assert_int_equal(nicd_qp_connect(far_pd, &connect_attr, &qp), 0);
	t.local_token = nicd_mr_local_token(far_mr);
	t.local_addr = nicd_mr_iova(far_mr);
	t.remote_token = nicd_qp_grant(qp)->remote_token;
	t.remote_addr = nicd_qp_grant(qp)->iova;
	assert_int_equal(nicd_qp_read(qp, &t, NULL), 0);
	assert_memory_equal(nicd_buffer_address(to), bytes, t.length);
	nicd_free(far);
}

/* mutation: buffer_create without MFD_HUGETLB; buffer_start forgets the page size (plan_iova then draws multiples of 4 KiB) */
static void test_huge(void **state)
{
	struct nicd *n;
	struct nicd_mr_attr attr = {
		.size = sizeof(attr), .flags = NICD_MR_REMOTE_READ, .offset = HUGE - 100000, .length = 200000,
	};
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;

	need_pool(*state);
	n = session("NICD_TEST_1");
	/* In one message: the address of the first registration is drawn before nicd has told the size of a page. */
	assert_int_equal(nicd_buffer_new_async(n, HUGE + 1, NICD_BUFFER_HUGE_ONLY, &buffer, NULL, NULL), 0);
	assert_int_equal(nicd_pd_create_async(n, 0, &pd, NULL, NULL), 0);
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_create_async(pd, &mr, NULL, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		if (i)
			assert_int_equal(nicd_mr_deregister(mr, NULL), 0);
		assert_int_equal(nicd_mr_register(mr, &attr), 0);
		assert_int_equal(nicd_mr_iova(mr) % HUGE, HUGE - 100000);
	}
	assert_int_equal(nicd_buffer_page_size(buffer), HUGE);
	assert_int_equal(nicd_buffer_size(buffer), 2 * HUGE);
	assert_int_equal(nicd_memory_page_size(nicd_buffer_memory(buffer)), HUGE);
	read_across(n, pd, mr, (uint8_t *)nicd_buffer_address(buffer) + attr.offset);
	nicd_free(n);
}

/* mutation: huge_refuse does not count; buffer_init without the last buffer_try */
static void test_too_few(void **state)
{
	struct nicd *n = session("NICD_TEST_1");
	unsigned long there = pool_read(POOL "free_hugepages") - pool_read(POOL "resv_hugepages");
	struct nicd_buffer *buffer = NULL;
	const struct nicd_error_info *error;

	assert_int_equal(nicd_buffer_new(n, there * HUGE + 1, NICD_BUFFER_HUGE_ONLY, &buffer), -ENOMEM);
	error = nicd_last_error(n);
	assert_string_equal(error->name, "HUGE_PAGES");
	assert_int_equal(error->limit, there);
	assert_int_equal(error->observed, there + 1);
	assert_non_null(strstr(error->cure, "nr_hugepages"));
	assert_null(buffer);
	assert_int_equal(nicd_buffer_new(n, there * HUGE + 1, NICD_BUFFER_HUGE, &buffer), 0);
	assert_int_equal(nicd_buffer_page_size(buffer), sysconf(_SC_PAGESIZE));
	nicd_free(n);
}

/* mutation: buffer_init tries 2 MiB where only 1 GiB was asked for, or not at all */
static void test_gigantic(void **state)
{
	static const char gigantic[] = "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages";
	struct nicd_buffer *buffer = NULL;
	const struct nicd_error_info *error;
	struct nicd *n;

	need_pool(*state);
	n = session("NICD_TEST_1");
	assert_int_equal(nicd_buffer_new(n, 4096, NICD_BUFFER_HUGE_1G, &buffer), -EINVAL);
	if (access(gigantic, R_OK) != 0 || pool_read(gigantic) == 0) {
		assert_int_equal(nicd_buffer_new(n, 4096, NICD_BUFFER_HUGE_ONLY | NICD_BUFFER_HUGE_1G, &buffer), -ENOMEM);
		error = nicd_last_error(n);
		assert_string_equal(error->name, access(gigantic, R_OK) == 0 ? "HUGE_PAGES" : "HUGE_PAGES_SIZE");
		assert_int_equal(nicd_buffer_new(n, 4096, NICD_BUFFER_HUGE | NICD_BUFFER_HUGE_1G, &buffer), 0);
		assert_int_equal(nicd_buffer_page_size(buffer), HUGE);
	} else {
		assert_int_equal(nicd_buffer_new(n, 4096, NICD_BUFFER_HUGE_ONLY | NICD_BUFFER_HUGE_1G, &buffer), 0);
		assert_int_equal(nicd_buffer_page_size(buffer), 1 << 30);
	}
	nicd_free(n);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_too_few),
		cmocka_unit_test_setup_teardown(test_huge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gigantic, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
