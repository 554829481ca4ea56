/* SPDX-License-Identifier: MIT */
/* The privileged key of a PD: who gets one, one for the PD's life, dropped last. */
#include "tests/unit/nic/rig.h"

/* mutation: ask the device without asking policy */
static void test_policy(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_key key = { 0 };
	struct nicd_error err;

	assert_refusal(nic_pd_privileged(rig->pd, &key, rig_done(&done), &err), err, PRIVILEGED_DENIED, 0, 0);
	assert_int_equal(done.calls, 0);
	assert_int_equal(rig->fake->calls[FAKE_KEY_ADD], 0);
	nic_pd_close(rig->pd, NULL);
}

/* mutation: ask for the key of another PD or owner */
static void test_one_for_the_pd(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_key first = { 0 }, again = { 0 }, other = { 0 };
	struct nicd_error err;
	struct nic_pd *pd;

	rig->owner.privileged = true;
	assert_int_equal(nic_pd_new(&pd, &rig->owner, rig->adapter, &err), 0);
	assert_int_equal(nic_pd_privileged(rig->pd, &first, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(nic_pd_privileged(rig->pd, &again, rig_done(&done), &err), 0);
	assert_int_equal(nic_pd_privileged(pd, &other, rig_done(&done), &err), 0);
	assert_int_not_equal(first.cmd.key.v, 0);
	assert_int_equal(again.cmd.key.v, first.cmd.key.v);
	assert_int_not_equal(other.cmd.key.v, first.cmd.key.v);
}

/* mutation: end the PD before the device has dropped its key, or while somebody still asks for it */
static void test_dropped_last(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, closed = { 0 };
	struct nic_key key = { 0 };
	struct nicd_error err;

	rig->owner.privileged = true;
	nic_mr_close(rig->mr, NULL);
	fake_hold(rig->fake, FAKE_KEY_ADD, true);
	fake_hold(rig->fake, FAKE_KEY_DROP, true);
	assert_int_equal(nic_pd_privileged(rig->pd, &key, rig_done(&done), &err), 0);
	nic_pd_close(rig->pd, rig_done(&closed));
	assert_refusal(nic_pd_privileged(rig->pd, &key, rig_done(&done), &err), err, HANDLE, 0, 0);
	assert_int_equal(rig->fake->calls[FAKE_KEY_DROP], 0);
	fake_complete(rig->fake, FAKE_KEY_ADD);
	assert_ended(done);
	assert_int_equal(closed.calls, 0);
	fake_complete_with(rig->fake, FAKE_KEY_DROP, NICD_R_DEVICE_FAILED);
	assert_int_equal(closed.calls, 0);
	rig_later(rig, 6000);
	fake_complete(rig->fake, FAKE_KEY_DROP);
	assert_ended(closed);
}

/* mutation: drop a key that nobody has asked for */
static void test_no_key_nothing_to_drop(void **state)
{
	struct rig *rig = *state;
	struct rig_done closed = { 0 };

	rig->owner.privileged = true;
	nic_mr_close(rig->mr, NULL);
	nic_pd_close(rig->pd, rig_done(&closed));
	assert_ended(closed);
	assert_int_equal(rig->fake->calls[FAKE_KEY_DROP], 0);
}

/* mutation: wait for the next try of a drop when the device is gone; ask a device that is down */
static void test_lost(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, closed = { 0 };
	struct nic_key key = { 0 };
	struct nicd_error err;

	rig->owner.privileged = true;
	nic_mr_close(rig->mr, NULL);
	assert_int_equal(nic_pd_privileged(rig->pd, &key, rig_done(&done), &err), 0);
	fake_fail(rig->fake, FAKE_KEY_DROP, 0, 1, NICD_R_DEVICE_FAILED);
	nic_pd_close(rig->pd, rig_done(&closed));
	assert_int_equal(closed.calls, 0);
	fake_lose(rig->fake, false);
	assert_ended(closed);
}

/* mutation: count one question where there are two */
static void test_asked_twice_at_once(void **state)
{
	struct rig *rig = *state;
	struct rig_done one = { 0 }, two = { 0 }, closed = { 0 };
	struct nic_key first = { 0 }, second = { 0 };
	struct nicd_error err;

	rig->owner.privileged = true;
	nic_mr_close(rig->mr, NULL);
	fake_hold(rig->fake, FAKE_KEY_ADD, true);
	assert_int_equal(nic_pd_privileged(rig->pd, &first, rig_done(&one), &err), 0);
	assert_int_equal(nic_pd_privileged(rig->pd, &second, rig_done(&two), &err), 0);
	nic_pd_close(rig->pd, rig_done(&closed));
	fake_complete(rig->fake, FAKE_KEY_ADD);
	assert_ended(one);
	assert_int_equal(closed.calls, 0);
	fake_complete(rig->fake, FAKE_KEY_ADD);
	assert_ended(two);
	assert_ended(closed);
	assert_int_equal(first.cmd.key.v, second.cmd.key.v);
}

/* mutation: leave the answer out when the device goes while it is asked */
static void test_lost_while_asking(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_key key = { 0 };
	struct nicd_error err;

	rig->owner.privileged = true;
	fake_hold(rig->fake, FAKE_KEY_ADD, true);
	assert_int_equal(nic_pd_privileged(rig->pd, &key, rig_done(&done), &err), 0);
	fake_lose(rig->fake, true);
	assert_refused(done, DEVICE_LOST);
	assert_refusal(nic_pd_privileged(rig->pd, &key, rig_done(&done), &err), err, NO_ADAPTER, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_policy),
		rig_test(test_one_for_the_pd),
		rig_test(test_dropped_last),
		rig_test(test_no_key_nothing_to_drop),
		rig_test(test_lost),
		rig_test(test_asked_twice_at_once),
		rig_test(test_lost_while_asking),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
