/* SPDX-License-Identifier: MIT */
/* The table of lives itself: that every cell is one that can be meant, and that no state is a place without a way out. */
#include "tests/unit/nic/rig.h"

#include "nicd/life.h"

#include <string.h>

#define CALLS(X) + 1
enum { N_CALLS = 0 NIC_LIFE_CALLS(CALLS) };
#undef CALLS

static const struct {
	uint8_t n_states, error;
	uint8_t start;
} kinds[NIC_KIND_COUNT] = {
	[NIC_KIND_NORMAL] = { NIC_MR_STATES, NIC_MR_ERROR, NIC_MR_CREATED },
	[NIC_KIND_FAST] = { NIC_FAST_STATE_COUNT, NIC_FAST_ERROR, NIC_FAST_CREATED },
	[NIC_KIND_WINDOW] = { NIC_MW_STATES, NIC_MW_ERROR, NIC_MW_FREE },
};

/* News that the table holds impossible are asserted, so they are not asked for here: which those are is said once more. */
static bool possible(enum nic_kind kind, uint8_t state, enum nic_life_step step)
{
	static const uint32_t answered[NIC_KIND_COUNT] = {
		[NIC_KIND_NORMAL] = 1u << NIC_MR_REGISTERING | 1u << NIC_MR_REVOKING,
		[NIC_KIND_FAST] = 1u << NIC_FAST_INITIALIZING | 1u << NIC_FAST_VALID_PENDING | 1u << NIC_FAST_INVALIDATING,
		[NIC_KIND_WINDOW] = 1u << NIC_MW_BIND_PENDING | 1u << NIC_MW_INVALIDATING,
	};
	static const uint32_t gone[NIC_KIND_COUNT] = {
		[NIC_KIND_FAST] = 1u << NIC_FAST_VALID_PENDING | 1u << NIC_FAST_VALID | 1u << NIC_FAST_INVALIDATING | 1u << NIC_FAST_ERROR,
		[NIC_KIND_WINDOW] = 1u << NIC_MW_BIND_PENDING | 1u << NIC_MW_BOUND | 1u << NIC_MW_INVALIDATING | 1u << NIC_MW_ERROR,
	};

	if (step == NIC_STEP_DONE || step == NIC_STEP_FAILED)
		return answered[kind] & 1u << state;
	return step != NIC_STEP_GONE || (gone[kind] & 1u << state);
}

static enum nicd_reason ask(enum nic_kind kind, uint8_t *state, enum nic_life_step step)
{
	struct nicd_error err = { 0 };

	return nic_life_step(kind, state, step, &err) == 0 ? NICD_R_NONE : err.reason;
}

/* mutation: a row with a column too few: the last state has no word */
/* mutation: nic_life_step taking a step that nic_life_check refuses */
static void test_every_cell(void **state)
{
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++)
		for (uint8_t from = 0; from < kinds[kind].n_states; from++)
			for (unsigned step = 0; step < NIC_STEP_COUNT; step++) {
				uint8_t to = from;
				struct nicd_error err = { 0 };
				enum nicd_reason wrong = kind == NIC_KIND_WINDOW ? NICD_R_MW_STATE : NICD_R_MR_STATE, got;
				int r;

				if (!possible(kind, from, step))
					continue;
				r = nic_life_check(kind, from, step, &err);
				got = ask(kind, &to, step);
				assert_int_equal(got, r == 0 ? NICD_R_NONE : err.reason);
				assert_true(to < kinds[kind].n_states);
				assert_true(got == NICD_R_NONE || got == wrong || got == NICD_R_MR_KIND);
				/* What is refused stays; what comes from the device is never refused. */
				assert_true(got == NICD_R_NONE || to == from);
				assert_true(got == NICD_R_NONE || step < N_CALLS);
				if (got == wrong) {
					uint8_t limit = (uint8_t)err.limit;

					assert_int_equal(err.observed, from);
					/* The cure is a state in which it is allowed, if there is one. */
					assert_true(limit < kinds[kind].n_states);
					assert_int_equal(nic_life_check(kind, limit, step, &err), 0);
				}
			}
}

/* The kind is chosen for ever: who refuses it in one state refuses it in all. */
/* mutation: STATE in place of one KIND */
static void test_kind_is_for_ever(void **state)
{
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++)
		for (unsigned step = 0; step < N_CALLS; step++) {
			unsigned n = 0;

			for (uint8_t from = 0; from < kinds[kind].n_states; from++) {
				uint8_t to = from;

				n += ask(kind, &to, step) == NICD_R_MR_KIND;
			}
			assert_true(n == 0 || n == kinds[kind].n_states);
		}
}

/* From each state every other can be reached, and the first one by what the client does and the device answers alone. */
/* mutation: DEREGISTER refused in ERROR: a state without a way out */
/* mutation: FAILED leading back to where it was */
static void test_no_way_is_lost(void **state)
{
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++)
		for (uint8_t from = 0; from < kinds[kind].n_states; from++) {
			uint32_t reached = 1u << from, before;

			do {
				before = reached;
				for (uint8_t at = 0; at < kinds[kind].n_states; at++)
					for (unsigned step = 0; (reached & 1u << at) && step < NIC_STEP_COUNT; step++) {
						uint8_t to = at;

						if (step == NIC_STEP_GONE || step == NIC_STEP_LOST || step == NIC_STEP_CLOSE)
							continue;
						if (possible(kind, at, step) && ask(kind, &to, step) == NICD_R_NONE)
							reached |= 1u << to;
					}
			} while (reached != before);
			/* INITIALIZED stays initialized: an MR for fast registration never goes back to CREATED. */
			if (kind == NIC_KIND_FAST && from != NIC_FAST_CREATED && from != NIC_FAST_INITIALIZING)
				reached |= 1u << NIC_FAST_CREATED | 1u << NIC_FAST_INITIALIZING;
			assert_int_equal(reached, (1u << kinds[kind].n_states) - 1);
		}
}

/* NDK: close never fails; what it leads to is what was there already, or what ends it. The loss of the device does the same. */
/* mutation: CLOSE refused in a state */
static void test_close_and_loss(void **state)
{
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++)
		for (uint8_t from = 0; from < kinds[kind].n_states; from++) {
			uint8_t closed = from, lost = from;

			assert_int_equal(ask(kind, &closed, NIC_STEP_CLOSE), NICD_R_NONE);
			assert_int_equal(ask(kind, &lost, NIC_STEP_LOST), NICD_R_NONE);
			assert_int_equal(closed, lost);
			assert_true(closed == from || possible(kind, closed, NIC_STEP_DONE));
		}
}

/* Tokens are told only where there is something to tell: in no state that waits for the device. */
/* mutation: GET_LOCAL_TOKEN allowed while it is being registered */
static void test_tokens_wait_for_the_device(void **state)
{
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++)
		for (uint8_t from = 0; from < kinds[kind].n_states; from++) {
			uint8_t at = from;
			bool settled = from != kinds[kind].error && !possible(kind, from, NIC_STEP_DONE) &&
				       !(from == kinds[kind].start);

			assert_int_equal(ask(kind, &at, NIC_STEP_GET_REMOTE_TOKEN) == NICD_R_NONE, settled);
			if (kind != NIC_KIND_WINDOW)
				assert_int_equal(ask(kind, &at, NIC_STEP_GET_LOCAL_TOKEN) == NICD_R_NONE, settled);
			assert_int_equal(at, from);
		}
}

static void assert_name(const char *name)
{
	assert_non_null(name);
	assert_true(name[0] && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == strlen(name));
}

/* mutation: a name left out, or used twice */
static void test_names(void **state)
{
	for (unsigned step = 0; step < NIC_STEP_COUNT; step++) {
		assert_name(nic_life_step_name(step));
		for (unsigned other = 0; other < step; other++)
			assert_string_not_equal(nic_life_step_name(step), nic_life_step_name(other));
	}
	for (unsigned kind = 0; kind < NIC_KIND_COUNT; kind++) {
		assert_int_equal(nic_life_states(kind), kinds[kind].n_states);
		for (uint8_t at = 0; at < kinds[kind].n_states; at++) {
			assert_name(nic_life_state_name(kind, at));
			for (uint8_t other = 0; other < at; other++)
				assert_string_not_equal(nic_life_state_name(kind, at), nic_life_state_name(kind, other));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cell),
		cmocka_unit_test(test_kind_is_for_ever),
		cmocka_unit_test(test_no_way_is_lost),
		cmocka_unit_test(test_close_and_loss),
		cmocka_unit_test(test_tokens_wait_for_the_device),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
