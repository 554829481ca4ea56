/* SPDX-License-Identifier: MIT */
/* NDK's operation flags against the rights they stand for: the whole of both, bit by bit. */
#include "tests/unit/nic/rig.h"

#include "nicd/op.h"

static void assert_rights(enum nic_op op, uint32_t flags, uint32_t rights)
{
	struct nicd_error err = { 0 };
	uint32_t got = 0xdead;

	assert_int_equal(nic_op_rights(op, flags, &got, &err), 0);
	assert_int_equal(got, rights);
}

/* mutation: let remote write stand for 0x4 alone, or remote read for 0x8 */
static void test_fast_register(void **state)
{
	assert_rights(NIC_OP_FAST_REGISTER, 0, 0);
	assert_rights(NIC_OP_FAST_REGISTER, NIC_OP_ANY, 0);
	assert_rights(NIC_OP_FAST_REGISTER, 0x8, NIC_REMOTE_READ);
	assert_rights(NIC_OP_FAST_REGISTER, 0x10, NIC_LOCAL_WRITE);
	assert_rights(NIC_OP_FAST_REGISTER, 0x30, NIC_REMOTE_WRITE);
	assert_rights(NIC_OP_FAST_REGISTER, 0x80, NIC_READ_SINK);
	assert_rights(NIC_OP_FAST_REGISTER, 0xb8 | 0x203, NIC_RIGHTS_ALL);
}

/* mutation: let a window take local write alone */
static void test_bind(void **state)
{
	assert_rights(NIC_OP_BIND, 0, 0);
	assert_rights(NIC_OP_BIND, 0x38, NIC_REMOTE_READ | NIC_REMOTE_WRITE);
	assert_rights(NIC_OP_BIND, 0x30 | 0x2, NIC_REMOTE_WRITE);
}

/* mutation: let a window take 0x10 without 0x20 */
static void test_refused(void **state)
{
	static const struct {
		enum nic_op op;
		uint32_t flags, limit;
	} cases[] = {
		{ NIC_OP_FAST_REGISTER, 0x4, 0x2bb }, { NIC_OP_FAST_REGISTER, 0x40, 0x2bb }, { NIC_OP_FAST_REGISTER, 0x100, 0x2bb },
		{ NIC_OP_FAST_REGISTER, 0x10000, 0x2bb }, { NIC_OP_BIND, 0x10, 0x23b }, { NIC_OP_BIND, 0x80, 0x23b },
		{ NIC_OP_BIND, 0x40, 0x23b }, { NIC_OP_INVALIDATE, 0x8, 0x203 }, { NIC_OP_INVALIDATE, 0x30, 0x203 },
		{ NIC_OP_INVALIDATE, 0x4, 0x203 },
	};
	struct nicd_error err;
	uint32_t rights = 7;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_refusal(nic_op_rights(cases[i].op, cases[i].flags, &rights, &err), err, OP_FLAGS, cases[i].limit, cases[i].flags);
	assert_int_equal(rights, 7);
}

/* What each request takes, as NDK's pages say, and nothing else: every bit of the 32. */
static void test_taken(void **state)
{
	static const uint32_t any = 0x1 | 0x2 | 0x200, taken[NIC_OP_COUNT] = {
		[NIC_OP_READ] = any | 0x100,
		[NIC_OP_READ_LIST] = any | 0x100,
		[NIC_OP_WRITE] = any | 0x40 | 0x10000,
		[NIC_OP_WRITE_LIST] = any | 0x10000,
		[NIC_OP_SEND] = any | 0x4 | 0x40,
		[NIC_OP_FAST_REGISTER] = any | 0x8 | 0x30 | 0x80,
		[NIC_OP_BIND] = any | 0x8 | 0x30,
		[NIC_OP_INVALIDATE] = any,
	};
	struct nicd_error err;

	for (unsigned op = 0; op < NIC_OP_COUNT; op++) {
		assert_int_equal(nic_op_check(op, 0, &err), 0);
		/* mutation: refuse 0x10 where 0x20 comes with it */
		assert_int_equal(nic_op_check(op, taken[op], &err), 0);
		for (unsigned bit = 0; bit < 32; bit++) {
			uint32_t flag = UINT32_C(1) << bit;
			bool defined = flag < 0x400 || flag == 0x10000;

			/* mutation: take 0x20 without 0x10; take a bit that the request does not know; answer another limit */
			if (flag == 0x20 || !defined)
				assert_refusal(nic_op_check(op, flag, &err), err, FLAGS, taken[op], flag);
			else if (!(taken[op] & flag))
				assert_refusal(nic_op_check(op, flag, &err), err, OP_FLAGS, taken[op], flag);
			else
				assert_int_equal(nic_op_check(op, flag, &err), 0);
		}
		assert_refusal(nic_op_check(op, UINT32_MAX, &err), err, FLAGS, taken[op], UINT32_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fast_register),
		cmocka_unit_test(test_bind),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_taken),
	};

	return cmocka_run_group_tests_name("op", tests, NULL, NULL);
}
