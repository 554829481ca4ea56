/* SPDX-License-Identifier: MIT */
/* The table of life.h, made of its rows: a cell is one of the words below, or FIRST and the state that it leads to. */
#include "nicd/life.h"

#include <assert.h>

enum { KIND, STATE, SAME, NEVER, FIRST };
enum { MAX_STATES = NIC_FAST_STATE_COUNT };

struct life {
	uint8_t n_states;
	enum nicd_reason wrong_state;
	const char *states[MAX_STATES];
	uint8_t cells[NIC_STEP_COUNT][MAX_STATES];
};

/* The words of each kind's rows. */
enum {
	NORMAL_KIND = KIND, NORMAL_STATE = STATE, NORMAL_SAME = SAME, NORMAL_NEVER = NEVER,
	FAST_KIND = KIND, FAST_STATE = STATE, FAST_SAME = SAME, FAST_NEVER = NEVER,
	WINDOW_KIND = KIND, WINDOW_STATE = STATE, WINDOW_SAME = SAME, WINDOW_NEVER = NEVER,
#define X(name) NORMAL_##name = FIRST + NIC_MR_##name,
	NIC_NORMAL_STATES(X)
#undef X
#define X(name) FAST_##name = FIRST + NIC_FAST_##name,
	NIC_FAST_STATES(X)
#undef X
#define X(name) WINDOW_##name = FIRST + NIC_MW_##name,
	NIC_WINDOW_STATES(X)
#undef X
};

static const struct life lives[NIC_KIND_COUNT] = {
#define NAME(name) #name,
	[NIC_KIND_NORMAL] = {
		.n_states = NIC_MR_STATES, .wrong_state = NICD_R_MR_STATE, .states = { NIC_NORMAL_STATES(NAME) },
#define X(step, a, b, c, d, e) .cells[NIC_STEP_##step] = { NORMAL_##a, NORMAL_##b, NORMAL_##c, NORMAL_##d, NORMAL_##e },
		NIC_NORMAL_LIFE(X)
#undef X
	},
	[NIC_KIND_FAST] = {
		.n_states = NIC_FAST_STATE_COUNT, .wrong_state = NICD_R_MR_STATE, .states = { NIC_FAST_STATES(NAME) },
#define X(step, a, b, c, d, e, f, g) \
		.cells[NIC_STEP_##step] = { FAST_##a, FAST_##b, FAST_##c, FAST_##d, FAST_##e, FAST_##f, FAST_##g },
		NIC_FAST_LIFE(X)
#undef X
	},
	[NIC_KIND_WINDOW] = {
		.n_states = NIC_MW_STATES, .wrong_state = NICD_R_MW_STATE, .states = { NIC_WINDOW_STATES(NAME) },
#define X(step, a, b, c, d, e) .cells[NIC_STEP_##step] = { WINDOW_##a, WINDOW_##b, WINDOW_##c, WINDOW_##d, WINDOW_##e },
		NIC_WINDOW_LIFE(X)
#undef X
	},
#undef NAME
};

static const char *const step_names[NIC_STEP_COUNT] = {
#define X(name) [NIC_STEP_##name] = #name,
	NIC_LIFE_CALLS(X)
	NIC_LIFE_NEWS(X)
#undef X
};

static bool allowed(uint8_t cell)
{
	return cell == SAME || cell >= FIRST;
}

/* The first state in which the step is allowed. */
static uint8_t wanted(const struct life *life, enum nic_life_step step)
{
	uint8_t state = 0;

	while (state + 1 < life->n_states && !allowed(life->cells[step][state]))
		state++;
	return state;
}

int nic_life_check(enum nic_kind kind, uint8_t state, enum nic_life_step step, struct nicd_error *err)
{
	const struct life *life = &lives[kind];
	uint8_t cell = life->cells[step][state];

	assert(state < life->n_states && cell != NEVER);
	if (allowed(cell))
		return 0;
	if (cell == KIND)
		return nicd_refuse(err, NICD_R_MR_KIND);
	return nicd_refuse_at(err, life->wrong_state, wanted(life, step), state);
}

int nic_life_step(enum nic_kind kind, uint8_t *state, enum nic_life_step step, struct nicd_error *err)
{
	uint8_t cell = lives[kind].cells[step][*state];
	int r = nic_life_check(kind, *state, step, err);

	if (r == 0 && cell >= FIRST)
		*state = cell - FIRST;
	return r;
}

const char *nic_life_state_name(enum nic_kind kind, uint8_t state)
{
	return lives[kind].states[state];
}

const char *nic_life_step_name(enum nic_life_step step)
{
	return step_names[step];
}

uint8_t nic_life_states(enum nic_kind kind)
{
	return lives[kind].n_states;
}
