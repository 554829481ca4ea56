/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What most tests of the NIC layer start with: an environment, a fake device, one owner. Its teardown releases the
 * owner, lets the device answer what it still owes, and asserts that charges, objects, blocks of memory and the device
 * are all back to nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nicd/nic.h"
#include "nicd/qp.h"
#include "tests/unit/nic/fake.h"

enum { RIG_EVENTS = 256, RIG_PAGE = 4096 };

struct rig_event {
	enum nic_event event;
	enum nic_type type;
	uint64_t object, serial;
	uint64_t id;
	enum nicd_reason reason;
};

struct rig {
	struct fake_env env;
	struct nic nic;
	struct fake *fake;
	struct nic_adapter *adapter;
	struct nic_owner owner;
	unsigned n_events, n_empty;
	struct rig_event events[RIG_EVENTS];
	void (*on_event)(struct rig *rig, struct nic_object *object, enum nic_event event);
	struct nic_memory *memory;   /* 16 pages */
	struct nic_pd *pd;
	struct nic_mr *mr;
};

/* An answer. */
struct rig_done {
	struct nic_done done;
	unsigned calls;
	struct nicd_error error;
	void (*then)(struct rig_done *done);
	struct rig *rig;
	unsigned order;              /* drawn from rig_order when called */
};
extern unsigned rig_order;
struct nic_done *rig_done(struct rig_done *done);   /* resets it */
/* The last receipt that there was in a done. */
extern struct nic_receipt rig_receipt;
#define assert_refused(d, why) \
	do { \
		const struct rig_done *d_ = &(d); \
\
		assert_int_equal(d_->calls, 1); \
		assert_int_equal(d_->error.reason, NICD_R_##why); \
	} while (0)
#define assert_ended(d) assert_refused(d, NONE)
/* A call that refused at once. */
#define assert_refusal(r, e, why, lim, obs) \
	do { \
		assert_int_equal((r), -nicd_reason_info(NICD_R_##why)->err); \
		assert_int_equal((e).reason, NICD_R_##why); \
		assert_int_equal((e).limit, (lim)); \
		assert_int_equal((e).observed, (obs)); \
	} while (0)

int rig_setup(void **state);      /* with memory, pd and mr */
int rig_teardown(void **state);

struct nic_memory *rig_memory(struct rig *rig, uint64_t pages, bool writable);
struct nic_mr *rig_mr(struct rig *rig);
/* Registers pages [first, first + n) of a memory. */
int rig_register(struct nic_mr *mr, struct nic_memory *memory, uint64_t first, uint64_t n, uint32_t flags, struct rig_done *done);
/* Registers the rig's mr over all of its memory with all rights; asserts success. */
void rig_registered(struct rig *rig);
struct nic_export *rig_export(struct rig *rig, struct nic_mr *mr, const char *name, uint32_t uses, struct rig_done *done);
struct nic_export *rig_ticket(struct rig *rig, struct nic_mr *mr, uint32_t uses, struct rig_done *done);
struct nic_qp *rig_connect(struct rig *rig, struct rig_done *done);
uint64_t rig_used(const struct rig *rig, enum nic_slot slot);
/* How many events of this kind there were about this object (serial; 0: any). */
unsigned rig_events(const struct rig *rig, enum nic_event event, uint64_t object);
void rig_later(struct rig *rig, uint64_t ns);   /* turns the clock and ticks */

#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
