/* SPDX-License-Identifier: MIT */
/* Where clients may connect to: what is understood, what is refused, and what then matches. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/policy.h"
#include "proto/limits.h"

static struct sockaddr_storage address(const char *host, uint16_t port)
{
	struct sockaddr_storage addr = { 0 };
	struct sockaddr_in *in = (void *)&addr;
	struct sockaddr_in6 *in6 = (void *)&addr;

	if (strchr(host, ':')) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, host, &in6->sin6_addr), 1);
	} else {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		assert_int_equal(inet_pton(AF_INET, host, &in->sin_addr), 1);
	}
	return addr;
}

static bool may(const struct policy *policy, const char *host, uint16_t port)
{
	struct sockaddr_storage addr = address(host, port);

	return policy_may_connect(policy, &addr);
}

static void empty(struct policy *policy)
{
	policy_init(policy);
	policy->n_networks = 0;
}

static void test_default(void **state)
{
	struct policy policy;

	policy_init(&policy);
	assert_true(may(&policy, "127.0.0.1", NICD_DATA_PORT));
	assert_true(may(&policy, "127.255.0.2", NICD_DATA_PORT));
	assert_true(may(&policy, "::1", NICD_DATA_PORT));
	/* mutation: leave out the port of the default networks */
	assert_false(may(&policy, "127.0.0.1", 22));
	assert_false(may(&policy, "::1", 22));
	/* mutation: prefix 0 instead of 8 for the loopback */
	assert_false(may(&policy, "10.0.0.1", NICD_DATA_PORT));
	/* Linux connects it to itself, but it is none of the addresses that were allowed. */
	assert_false(may(&policy, "0.0.0.0", NICD_DATA_PORT));
	assert_false(may(&policy, "::", NICD_DATA_PORT));
	assert_int_equal(policy.account_by, POLICY_BY_UID);
	assert_int_equal(policy.limits.max[NIC_SLOT_PINNED], nic_limits_default.max[NIC_SLOT_PINNED]);
}

static void test_prefix(void **state)
{
	struct policy policy;

	empty(&policy);
	assert_int_equal(policy_add_network(&policy, "10.16.0.0/12"), 0);
	assert_true(may(&policy, "10.16.0.0", 1));
	assert_true(may(&policy, "10.31.255.255", 65535));
	/* mutation: prefix_equal compares whole bytes only */
	assert_false(may(&policy, "10.32.0.0", 1));
	assert_false(may(&policy, "10.15.255.255", 1));
	assert_int_equal(policy_add_network(&policy, "[fd00:10::]/28:7190-7191"), 0);
	assert_true(may(&policy, "fd00:1f::1", 7191));
	assert_false(may(&policy, "fd00:20::1", 7191));
	/* mutation: port <= port_max + 1 */
	assert_false(may(&policy, "fd00:1f::1", 7192));
	assert_false(may(&policy, "fd00:1f::1", 7189));
	assert_int_equal(policy_add_network(&policy, "192.0.2.7:80"), 0);
	assert_true(may(&policy, "192.0.2.7", 80));
	assert_false(may(&policy, "192.0.2.6", 80));
	/* mutation: ports start at 0 */
	assert_false(may(&policy, "10.16.0.0", 0));
}

static void test_all_and_none(void **state)
{
	struct policy policy;

	empty(&policy);
	assert_false(may(&policy, "127.0.0.1", NICD_DATA_PORT));
	assert_int_equal(policy_add_network(&policy, "0.0.0.0/0"), 0);
	assert_true(may(&policy, "203.0.113.9", 9));
	/* mutation: compare families by nothing, so that IPv4 networks match IPv6 */
	assert_false(may(&policy, "2001:db8::1", 9));
}

/* An IPv4 address in IPv6 clothes is judged as what it connects to. */
static void test_mapped(void **state)
{
	struct policy policy;

	empty(&policy);
	assert_int_equal(policy_add_network(&policy, "[::]/0"), 0);
	/* mutation: treat mapped addresses as IPv6 */
	assert_false(may(&policy, "::ffff:10.0.0.1", 9));
	assert_int_equal(policy_add_network(&policy, "10.0.0.0/8"), 0);
	assert_true(may(&policy, "::ffff:10.0.0.1", 9));
	assert_int_equal(policy_add_network(&policy, "[::ffff:10.0.0.0]/104"), -EINVAL);
}

static void test_refused(void **state)
{
	static const char *const wrong[] = {
		"", "x", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/ 8", "10.0.0/8", "10.0.0.0/8:", "10.0.0.0/8:0", "10.0.0.0/8:65536",
		"10.0.0.0/8:99999999999999999999", "10.0.0.0/8:20-10", "10.0.0.0/8:1-", "10.0.0.0/8:1-2-3", "10.0.0.0/8 ", "10.0.0.0/",
		"[::1", "::1", "[::1]/129", "[::1]x", "[]", "[10.0.0.0]/8", "localhost", "10.0.0.0/8:+1",
		"1111111111111111111111111111111111111111111111111111111111111111111111111",
		/* mutation: leave out host_bits_zero */
		"10.1.2.3/8", "[fd00::1]/8", "10.0.0.16/27",
	};
	struct policy policy;

	empty(&policy);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		if (policy_add_network(&policy, wrong[i]) != -EINVAL)
			fail_msg("'%s' was taken", wrong[i]);
	}
	assert_int_equal(policy.n_networks, 0);
}

static void test_full(void **state)
{
	struct policy policy;

	empty(&policy);
	for (unsigned i = 0; i < POLICY_NETWORKS; i++)
		assert_int_equal(policy_add_network(&policy, "10.0.0.0/8"), 0);
	/* mutation: leave out the check of n_networks */
	assert_int_equal(policy_add_network(&policy, "10.0.0.0/8"), -ENOSPC);
	assert_int_equal(policy.n_networks, POLICY_NETWORKS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default), cmocka_unit_test(test_prefix), cmocka_unit_test(test_all_and_none),
		cmocka_unit_test(test_mapped),  cmocka_unit_test(test_refused), cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
