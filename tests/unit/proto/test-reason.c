/* SPDX-License-Identifier: MIT */
/* The table of reasons: complete, unique, and told in words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/nicd.pb-c.h"
#include "proto/reason.h"

static const uint32_t numbers[] = {
#define X(number, name, status, err, text, cure) number,
	NICD_REASONS(X)
#undef X
};
enum { N_REASONS = sizeof(numbers) / sizeof(numbers[0]) };

static void test_unique(void **state)
{
	for (unsigned i = 0; i < N_REASONS; i++) {
		for (unsigned k = i + 1; k < N_REASONS; k++) {
			/* mutation: two rows of NICD_REASONS with one number, or one name */
			assert_int_not_equal(numbers[i], numbers[k]);
			assert_string_not_equal(nicd_reason_info(numbers[i])->name, nicd_reason_info(numbers[k])->name);
		}
	}
}

static void test_rows(void **state)
{
	for (unsigned i = 0; i < N_REASONS; i++) {
		const struct nicd_reason_info *info = nicd_reason_info(numbers[i]);

		/* mutation: nicd_reason_info answers by position in place of number */
		assert_int_equal(info->reason, numbers[i]);
		assert_true(info->name[0] && info->text[0]);
		/* Only success needs no errno, no cure, and has this status. */
		assert_int_equal(info->err == 0, numbers[i] == 0);
		assert_int_equal(info->status == NICD_STATUS_SUCCESS, numbers[i] == 0);
		assert_int_equal(info->cure[0] == '\0', numbers[i] == 0);
		/* Violations and nothing else end sessions. */
		assert_int_equal(info->status == NICD_STATUS_PROTOCOL_VIOLATION, numbers[i] >= 1 && numbers[i] < 20);
	}
}

static void test_unknown(void **state)
{
	static const uint32_t unknown[] = { 13, 19, 40, 99, 1000, UINT32_MAX };

	for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		/* mutation: nicd_reason_info without the test of the bound, or of the name */
		assert_int_equal(nicd_reason_info(unknown[i])->reason, NICD_R_INTERNAL);
	}
}

static void test_statuses(void **state)
{
	const ProtobufCEnumDescriptor *d = &nicd__status__descriptor;

	/* mutation: a Status added to nicd.proto only */
	for (unsigned i = 0; i < d->n_values; i++)
		assert_string_equal(nicd_status_name((uint32_t)d->values[i].value), d->values[i].name);
	/* mutation: nicd_status_name without the test of the bound */
	assert_string_equal(nicd_status_name(d->n_values), "?");
	assert_string_equal(nicd_status_name(UINT32_MAX), "?");
	assert_int_equal(nicd_status_ntstatus(NICD_STATUS_INVALID_PARAMETER), 0xC000000D);
	assert_int_equal(nicd_status_ntstatus(UINT32_MAX), 0xC0000001);
}

static void test_refuse(void **state)
{
	struct nicd_error err = { .provider_error = 5, .limit = 6, .observed = 7 };

	/* mutation: nicd_refuse answers the positive errno */
	assert_int_equal(nicd_refuse(NULL, NICD_R_QUOTA), -EDQUOT);
	assert_int_equal(nicd_refuse(&err, NICD_R_QUOTA), -EDQUOT);
	assert_int_equal(err.reason, NICD_R_QUOTA);
	/* mutation: nicd_refuse_at leaves the older figures standing */
	assert_int_equal(err.provider_error, 0);
	assert_int_equal(err.limit, 0);
	assert_int_equal(err.observed, 0);
	assert_int_equal(nicd_refuse_at(&err, NICD_R_RANGE_BEYOND, 4096, 8192), -EINVAL);
	assert_int_equal(err.limit, 4096);
	assert_int_equal(err.observed, 8192);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unique),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_refuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
