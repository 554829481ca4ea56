/* SPDX-License-Identifier: MIT */
/* Mappings and privileged keys in nicd-soft's tables: what is refused, who keeps whom, and what a reset leaves. */
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
#include "nicd/soft/table.h"
#include "tests/unit/soft/narrow.h"

enum { OWNER = 7, AT = 0x10000, PAGES = 4 };


static int setup(void **state)
{
	struct soft_tags *tags = soft_tags_new(narrow_draw, narrow_now);
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, PAGES * NICD_PAGE), 0);
	assert_int_equal(soft_memory_attach(tags, 1, fd, PAGES * NICD_PAGE, true, NULL), 0);
	assert_int_equal(soft_memory_attach(tags, 2, fd, PAGES * NICD_PAGE, false, NULL), 0);
	close(fd);
	*state = tags;
	return 0;
}

static int teardown(void **state)
{
	soft_tags_free(*state);
	return 0;
}

static int add(struct soft_tags *tags, uint64_t serial, uint64_t owner, uint64_t memory, uint64_t address, uint64_t length)
{
	struct soft_tag_terms terms = {
		.serial = serial, .iova = address, .length = length, .n_ranges = 1, .ranges = {{memory, 0, length}},
	};
	struct nicd_error err;

	return soft_mapping_add(tags, owner, &terms, &err);
}

/* mutation: look only at the mapping before, or at all owners' */
static void test_overlap(void **state)
{
	struct soft_tags *tags = *state;

	assert_int_equal(add(tags, 10, OWNER, 1, AT, 2 * NICD_PAGE), 0);
	assert_int_equal(add(tags, 10, OWNER, 1, AT, 2 * NICD_PAGE), 0);   /* said again */
	assert_int_equal(add(tags, 11, OWNER, 1, AT, NICD_PAGE), -EBUSY);
	assert_int_equal(add(tags, 11, OWNER, 1, AT + NICD_PAGE, NICD_PAGE), -EBUSY);
	assert_int_equal(add(tags, 11, OWNER, 1, AT - NICD_PAGE, 2 * NICD_PAGE), -EBUSY);
	assert_int_equal(add(tags, 11, OWNER, 1, AT - NICD_PAGE, 4 * NICD_PAGE), -EBUSY);
	assert_int_equal(add(tags, 11, OWNER, 1, AT - NICD_PAGE, NICD_PAGE), 0);
	assert_int_equal(add(tags, 12, OWNER, 1, AT + 2 * NICD_PAGE, NICD_PAGE), 0);
	assert_int_equal(add(tags, 13, OWNER + 1, 1, AT, NICD_PAGE), 0);
}

/* mutation: trust what the controller says of ranges, addresses and owners */
static void test_refused(void **state)
{
	struct soft_tags *tags = *state;

	assert_true(add(tags, 0, OWNER, 1, AT, NICD_PAGE) < 0);
	assert_true(add(tags, 10, 0, 1, AT, NICD_PAGE) < 0);
	assert_true(add(tags, 10, OWNER, 3, AT, NICD_PAGE) < 0);
	assert_true(add(tags, 10, OWNER, 1, 0, NICD_PAGE) < 0);
	assert_true(add(tags, 10, OWNER, 1, AT, 0) < 0);
	assert_true(add(tags, 10, OWNER, 1, AT, PAGES * NICD_PAGE + 1) < 0);
	assert_true(add(tags, 10, OWNER, 1, UINT64_MAX - 100, NICD_PAGE) < 0);
	assert_int_equal(tags->mappings.n, 0);
	assert_int_equal(soft_memory_find(tags, 1)->tags, 0);
}

static void note(void *userdata)
{
	++*(unsigned *)userdata;
}

/* mutation: end a mapping under work, let new work in, or forget to say when it is gone */
static void test_work_keeps_it(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag *tag;
	unsigned dropped = 0;
	uint32_t place;

	assert_int_equal(add(tags, 10, OWNER, 1, AT, 2 * NICD_PAGE), 0);
	assert_int_equal(soft_mapping_enter(tags, OWNER, AT - 1), 0);
	assert_int_equal(soft_mapping_enter(tags, OWNER, AT + 2 * NICD_PAGE + 1), 0);
	assert_int_equal(soft_mapping_enter(tags, OWNER + 1, AT), 0);
	place = soft_mapping_enter(tags, OWNER, AT + 5);
	assert_int_not_equal(place, 0);
	assert_int_equal(soft_mapping_enter(tags, OWNER, AT), place);
	assert_false(soft_mapping_drop(tags, 10, note, &dropped));
	assert_int_equal(soft_mapping_enter(tags, OWNER, AT), 0);
	assert_int_equal(soft_mapping_check(tags, place, AT + 5, 100, SOFT_LOCAL_WRITE, &tag), NICD_R_NONE);
	assert_int_equal(soft_mapping_check(tags, place, AT, 2 * NICD_PAGE + 1, SOFT_LOCAL_READ, &tag), NICD_R_LOCAL_RANGE);
	assert_int_equal(add(tags, 11, OWNER, 1, AT, NICD_PAGE), 0);   /* its address is free */
	soft_mapping_leave(tags, place);
	assert_int_equal(dropped, 0);
	soft_mapping_leave(tags, place);
	assert_int_equal(dropped, 1);
	assert_true(soft_mapping_drop(tags, 10, note, &dropped));      /* unknown: gone */
	assert_int_equal(soft_memory_detach(tags, 1, note, &dropped, NULL), -EBUSY);
}

/* Local rights and no others, whatever the access; on read-only memory not to write. */
/* mutation: give a mapping remote rights, or the right to write to what is read-only */
static void test_rights(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag *tag;
	uint32_t writable, readable;

	assert_int_equal(add(tags, 10, OWNER, 1, AT, NICD_PAGE), 0);
	assert_int_equal(add(tags, 11, OWNER, 2, 2 * AT, NICD_PAGE), 0);
	writable = soft_mapping_enter(tags, OWNER, AT);
	readable = soft_mapping_enter(tags, OWNER, 2 * AT);
	assert_int_equal(soft_mapping_check(tags, writable, AT, 1, SOFT_LOCAL_WRITE, &tag), NICD_R_NONE);
	assert_int_equal(soft_mapping_check(tags, writable, AT, 1, SOFT_REMOTE_READ, &tag), NICD_R_REMOTE_RIGHTS);
	assert_int_equal(soft_mapping_check(tags, writable, AT, 1, SOFT_REMOTE_WRITE, &tag), NICD_R_REMOTE_RIGHTS);
	assert_int_equal(soft_mapping_check(tags, readable, 2 * AT, 1, SOFT_LOCAL_READ, &tag), NICD_R_NONE);
	assert_int_equal(soft_mapping_check(tags, readable, 2 * AT, 1, SOFT_LOCAL_WRITE, &tag), NICD_R_LOCAL_RIGHTS);
	soft_mapping_leave(tags, writable);
	soft_mapping_leave(tags, readable);
}

/* mutation: leave a mapping open to the work that a reset finds in it, or free it under that */
static void test_reset_under_work(void **state)
{
	struct soft_tags *tags = *state;
	struct soft_tag *tag;
	uint32_t place;

	assert_int_equal(add(tags, 10, OWNER, 1, AT, NICD_PAGE), 0);
	place = soft_mapping_enter(tags, OWNER, AT);
	soft_tags_reset(tags);
	assert_int_equal(soft_mapping_check(tags, place, AT, 1, SOFT_LOCAL_READ, &tag), NICD_R_LOCAL_TOKEN);
	soft_mapping_leave(tags, place);
	assert_int_equal(tags->mappings.n, 0);
}

/* mutation: draw a key anew when it is asked for again, or give it to another owner */
static void test_keys(void **state)
{
	struct soft_tags *tags = *state;
	struct nic_ptok one, again, other;
	struct nicd_error err;

	assert_null(soft_key_of(tags, 5));
	assert_int_equal(soft_key_add(tags, 5, OWNER, &one, &err), 0);
	assert_int_equal(soft_key_add(tags, 5, OWNER, &again, &err), 0);
	assert_int_equal(soft_key_add(tags, 6, OWNER, &other, &err), 0);
	assert_int_equal(one.v, again.v);
	assert_int_not_equal(one.v, other.v);
	assert_int_equal(soft_key_add(tags, 5, OWNER + 1, &again, &err), -EBUSY);
	assert_true(soft_key_add(tags, 0, OWNER, &again, &err) < 0);
	assert_true(soft_key_is(tags, soft_key_of(tags, 5), one.v));
	assert_false(soft_key_is(tags, soft_key_of(tags, 5), other.v));
	soft_key_drop(tags, 5);
	assert_null(soft_key_of(tags, 5));
	assert_false(soft_keys_have(&tags->keys, one.v));
	assert_true(soft_token_taken(tags, one.v));   /* not drawn again soon */
	soft_tags_reset(tags);
	assert_int_equal(tags->keys.n, 0);
}

/* From a space so small that keys and tokens must meet: no two are the same. */
/* mutation: draw tokens without looking among the keys */
static void test_no_key_is_a_token(void **state)
{
	enum { EACH = 100 };
	struct soft_tags *tags = *state;
	struct soft_tag_terms terms = {
		.generation = 1, .rights = NIC_REMOTE_READ, .pd = 3, .iova = AT, .length = 1, .n_ranges = 1, .ranges = {{1, 0, 1}},
	};
	bool seen[1 << 9] = {false};
	struct nic_ptok key;
	struct soft_tag *tag;

	narrow_bits = 9;
	for (unsigned i = 0; i < EACH; i++) {
		terms.serial = 1000 + i;
		assert_int_equal(soft_key_add(tags, 100 + i, OWNER, &key, NULL), 0);
		assert_int_equal(soft_tag_add(tags, &terms, &tag, NULL), 0);
		assert_false(seen[key.v] || seen[tag->local_token] || seen[tag->remote_token]);
		seen[key.v] = seen[tag->local_token] = seen[tag->remote_token] = true;
	}
	narrow_bits = 32;
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_overlap), test(test_refused), test(test_work_keeps_it), test(test_rights), test(test_reset_under_work),
		test(test_keys), test(test_no_key_is_a_token),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
