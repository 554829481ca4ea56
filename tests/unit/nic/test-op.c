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

/* mutation: take bits that the request does not know; take 0x20 without 0x10 */
static void test_refused(void **state)
{
	static const struct {
		enum nic_op op;
		uint32_t flags, limit;
	} cases[] = {
		{ NIC_OP_FAST_REGISTER, 0x4, 0x2bb }, { NIC_OP_FAST_REGISTER, 0x20, 0x2bb }, { NIC_OP_FAST_REGISTER, 0x40, 0x2bb },
		{ NIC_OP_FAST_REGISTER, 0x100, 0x2bb }, { NIC_OP_FAST_REGISTER, 0x10000, 0x2bb },
		{ NIC_OP_FAST_REGISTER, UINT32_MAX, 0x2bb }, { NIC_OP_BIND, 0x10, 0x23b }, { NIC_OP_BIND, 0x20, 0x23b },
		{ NIC_OP_BIND, 0x80, 0x23b }, { NIC_OP_BIND, 0x40, 0x23b }, { NIC_OP_INVALIDATE, 0x8, 0x203 },
		{ NIC_OP_INVALIDATE, 0x30, 0x203 }, { NIC_OP_INVALIDATE, 0x4, 0x203 },
	};
	struct nicd_error err;
	uint32_t rights;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_refusal(nic_op_rights(cases[i].op, cases[i].flags, &rights, &err), err, OP_FLAGS, cases[i].limit, cases[i].flags);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fast_register),
		cmocka_unit_test(test_bind),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("op", tests, NULL, NULL);
}
