/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The lives of memory regions and windows, as one table: which call is allowed in which state, and where each call and
 * each answer of the device leads. Whoever holds a state asks here before it does anything, so this is what the code
 * does, not what it should do; the conformance suite and the model in tests/spin are held against it cell by cell.
 *
 * A kind's states are columns; a call's row says for each of them the state that it leads to, or who refuses:
 *
 *   STATE  MR_STATE or MW_STATE: INVALID_DEVICE_STATE. NDKPI names no status: its consumers are trusted not to ask.
 *   KIND   MR_KIND: INVALID_PARAMETER. The kind is chosen by NdkCreateMr for ever.
 *   SAME   allowed, and the state stays.
 *   NEVER  cannot be: asserted.
 *
 * A call that has no row is KIND everywhere.
 *
 * The NDKPI pages: nc-ndkpi-ndk_fn_register_mr, -deregister_mr, -initialize_fast_register_mr, -fast_register, -invalidate, -bind.
 */
#include <stdbool.h>
#include <stdint.h>

#include "proto/reason.h"

enum nic_kind { NIC_KIND_NORMAL, NIC_KIND_FAST, NIC_KIND_WINDOW, NIC_KIND_COUNT };

/* X(NAME) */
#define NIC_NORMAL_STATES(X) X(CREATED) X(REGISTERING) X(REGISTERED) X(REVOKING) X(ERROR)
#define NIC_FAST_STATES(X) X(CREATED) X(INITIALIZING) X(FREE) X(VALID_PENDING) X(VALID) X(INVALIDATING) X(ERROR)
#define NIC_WINDOW_STATES(X) X(FREE) X(BIND_PENDING) X(BOUND) X(INVALIDATING) X(ERROR)

/* What a client calls. BIND_TO: binding a window, seen from the MR. EXPORT: making an export or ticket of it. */
#define NIC_LIFE_CALLS(X) \
	X(GET_LOCAL_TOKEN) X(GET_REMOTE_TOKEN) X(REGISTER) X(DEREGISTER) X(INITIALIZE) X(FAST_REGISTER) X(INVALIDATE) X(BIND) X(BIND_TO) \
	X(EXPORT) X(CLOSE)

/*
 * What comes from elsewhere: the device's answer to what is under way; GONE: the device has dropped it by itself,
 * because a peer's message invalidated it or because its Qp ended (windows); LOST: the device went away, and dropping
 * it will say so.
 */
#define NIC_LIFE_NEWS(X) X(DONE) X(FAILED) X(GONE) X(LOST)

/* ---- X(CALL, what it does in each state, in their order) */

/*                       CREATED       REGISTERING  REGISTERED  REVOKING     ERROR */
#define NIC_NORMAL_LIFE(X) \
	X(GET_LOCAL_TOKEN,  STATE,        STATE,       SAME,       STATE,       STATE) \
	X(GET_REMOTE_TOKEN, STATE,        STATE,       SAME,       STATE,       STATE) \
	X(REGISTER,         REGISTERING,  STATE,       STATE,      STATE,       STATE) \
	X(DEREGISTER,       STATE,        STATE,       REVOKING,   STATE,       REVOKING) \
	X(INITIALIZE,       KIND,         KIND,        KIND,       KIND,        KIND) \
	X(FAST_REGISTER,    KIND,         KIND,        KIND,       KIND,        KIND) \
	X(INVALIDATE,       KIND,         KIND,        KIND,       KIND,        KIND) \
	X(BIND,             KIND,         KIND,        KIND,       KIND,        KIND) \
	X(BIND_TO,          STATE,        STATE,       SAME,       STATE,       STATE) \
	X(EXPORT,           STATE,        STATE,       SAME,       STATE,       STATE) \
	X(CLOSE,            SAME,         SAME,        REVOKING,   SAME,        REVOKING) \
	X(DONE,             NEVER,        REGISTERED,  NEVER,      CREATED,     NEVER) \
	X(FAILED,           NEVER,        CREATED,     NEVER,      ERROR,       NEVER) \
	X(GONE,             NEVER,        NEVER,       NEVER,      NEVER,       NEVER) \
	X(LOST,             SAME,         SAME,        REVOKING,   SAME,        REVOKING)

/*                       CREATED       INITIALIZING FREE           VALID_PENDING VALID         INVALIDATING ERROR */
#define NIC_FAST_LIFE(X) \
	X(GET_LOCAL_TOKEN,  STATE,        STATE,       SAME,          STATE,        SAME,         STATE,       STATE) \
	X(GET_REMOTE_TOKEN, STATE,        STATE,       SAME,          STATE,        SAME,         STATE,       STATE) \
	X(REGISTER,         KIND,         KIND,        KIND,          KIND,         KIND,         KIND,        KIND) \
	X(DEREGISTER,       KIND,         KIND,        KIND,          KIND,         KIND,         KIND,        KIND) \
	X(INITIALIZE,       INITIALIZING, STATE,       SAME,          STATE,        STATE,        STATE,       STATE) \
	X(FAST_REGISTER,    STATE,        STATE,       VALID_PENDING, STATE,        STATE,        STATE,       STATE) \
	X(INVALIDATE,       STATE,        STATE,       STATE,         STATE,        INVALIDATING, STATE,       INVALIDATING) \
	X(BIND,             KIND,         KIND,        KIND,          KIND,         KIND,         KIND,        KIND) \
	X(BIND_TO,          STATE,        STATE,       STATE,         STATE,        SAME,         STATE,       STATE) \
	X(EXPORT,           KIND,         KIND,        KIND,          KIND,         KIND,         KIND,        KIND) \
	X(CLOSE,            SAME,         SAME,        SAME,          SAME,         INVALIDATING, SAME,        INVALIDATING) \
	X(DONE,             NEVER,        FREE,        NEVER,         VALID,        NEVER,        FREE,        NEVER) \
	X(FAILED,           NEVER,        CREATED,     NEVER,         FREE,         NEVER,        ERROR,       NEVER) \
	X(GONE,             NEVER,        NEVER,       NEVER,         FREE,         FREE,         SAME,        FREE) \
	X(LOST,             SAME,         SAME,        SAME,          SAME,         INVALIDATING, SAME,        INVALIDATING)

/*                       FREE          BIND_PENDING BOUND         INVALIDATING ERROR */
#define NIC_WINDOW_LIFE(X) \
	X(GET_REMOTE_TOKEN, STATE,        STATE,       SAME,         STATE,       STATE) \
	X(INVALIDATE,       STATE,        STATE,       INVALIDATING, STATE,       INVALIDATING) \
	X(BIND,             BIND_PENDING, STATE,       STATE,        STATE,       STATE) \
	X(CLOSE,            SAME,         SAME,        INVALIDATING, SAME,        INVALIDATING) \
	X(DONE,             NEVER,        BOUND,       NEVER,        FREE,        NEVER) \
	X(FAILED,           NEVER,        FREE,        NEVER,        ERROR,       NEVER) \
	X(GONE,             NEVER,        FREE,        FREE,         SAME,        FREE) \
	X(LOST,             SAME,         SAME,        INVALIDATING, SAME,        INVALIDATING)

enum nic_life_step {
#define X(name) NIC_STEP_##name,
	NIC_LIFE_CALLS(X)
	NIC_LIFE_NEWS(X)
#undef X
	NIC_STEP_COUNT
};

#define X(name) NIC_MR_##name,
enum nic_mr_state { NIC_NORMAL_STATES(X) NIC_MR_STATES };
#undef X
#define X(name) NIC_FAST_##name,
enum nic_fast_state { NIC_FAST_STATES(X) NIC_FAST_STATE_COUNT };
#undef X
#define X(name) NIC_MW_##name,
enum nic_mw_state { NIC_WINDOW_STATES(X) NIC_MW_STATES };
#undef X

/*
 * Takes the step, if it is allowed: 0, and *state is where it leads. Else refuses with the cell's reason, and *state
 * stays; limit is the first state in which the call is allowed, observed this one. News where the table has none are a
 * fault of ours (asserted).
 */
int nic_life_step(enum nic_kind kind, uint8_t *state, enum nic_life_step step, struct nicd_error *err);
/* Whether it would, without taking it. */
int nic_life_check(enum nic_kind kind, uint8_t state, enum nic_life_step step, struct nicd_error *err);

/* "REGISTERED", "FAST_REGISTER". */
const char *nic_life_state_name(enum nic_kind kind, uint8_t state);
const char *nic_life_step_name(enum nic_life_step step);
uint8_t nic_life_states(enum nic_kind kind);   /* how many */
