/* SPDX-License-Identifier: MIT */
#include "tests/unit/nic/rig.h"

#include <stdlib.h>
#include <string.h>

unsigned rig_order;
struct nic_receipt rig_receipt;
static uint64_t receipt_exports[NIC_RECEIPT_EXPORTS];
static struct nic *receipt_nic;

static void receipt_keep(void)
{
	const struct nic_receipt *receipt = nic_mr_receipt(receipt_nic);

	if (receipt->at_ns == 0)
		return;
	rig_receipt = *receipt;
	if (rig_receipt.exports)
		rig_receipt.exports = memcpy(receipt_exports, rig_receipt.exports, sizeof(receipt_exports));
}

static void done_fn(struct nic_done *d, const struct nicd_error *error)
{
	struct rig_done *done = (struct rig_done *)d;

	done->calls++;
	done->error = *error;
	done->order = ++rig_order;
	if (receipt_nic)
		receipt_keep();
	if (done->then)
		done->then(done);
}

struct nic_done *rig_done(struct rig_done *done)
{
	done->done.fn = done_fn;
	done->calls = 0;
	done->error = (struct nicd_error){ 0 };
	return &done->done;
}

static void on_event(struct nic_owner *owner, struct nic_object *object, enum nic_event event, uint64_t serial,
		     const struct nicd_error *error)
{
	struct rig *rig = (struct rig *)((char *)owner - offsetof(struct rig, owner));

	assert_true(rig->n_events < RIG_EVENTS);
	rig->events[rig->n_events++] = (struct rig_event){
		.event = event,
		.type = object->type,
		.object = object->serial,
		.serial = serial,
		.id = object->id,
		.reason = error->reason,
	};
	if (rig->on_event)
		rig->on_event(rig, object, event);
}

static void on_empty(struct nic_owner *owner)
{
	struct rig *rig = (struct rig *)((char *)owner - offsetof(struct rig, owner));

	assert_int_equal(owner->n_objects, 0);
	assert_false(owner->releasing);
	rig->n_empty++;
}

int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct nic_settings settings = { .revoke_timeout_ns = 5000 };
	struct nic_account *account;
	struct nicd_error err;

	fake_env_init(&rig->env);
	nic_init(&rig->nic, &rig->env.env, NULL, &settings);
	receipt_nic = &rig->nic;
	rig->fake = fake_new();
	assert_int_equal(nic_adapter_new(&rig->adapter, &rig->nic, &rig->fake->provider), 0);
	assert_int_equal(nic_account_get(&rig->nic.accounts, "uid:1000", &account), 0);
	nic_owner_init(&rig->owner, &rig->nic, account, nic_serial(&rig->nic));
	nic_account_unref(account);
	rig->owner.event = on_event;
	rig->owner.empty = on_empty;
	rig->memory = rig_memory(rig, 16, true);
	assert_int_equal(nic_pd_new(&rig->pd, &rig->owner, rig->adapter, &err), 0);
	rig->mr = rig_mr(rig);
	*state = rig;
	return 0;
}

/* mutation: any charge, reference, block or device object that is not given back turns every test of a rig red, here */
int rig_teardown(void **state)
{
	struct rig *rig = *state;

	while (nic_owner_release(&rig->owner, 7))
		;
	for (unsigned i = 0; i < FAKE_OPS; i++)
		rig->fake->fail[i].times = 0;
	fake_hold(rig->fake, FAKE_OPS, false);
	fake_complete_all(rig->fake);
	rig_later(rig, 10000);
	rig_later(rig, 10000);
	assert_int_equal(rig->owner.n_objects, 0);
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++)
		assert_int_equal(rig->owner.account->used[i], 0);
	assert_int_equal(rig->nic.held_fds, 0);
	assert_int_equal(rig->nic.quarantined, 0);
	assert_int_equal(nic_next_deadline(&rig->nic), UINT64_MAX);
	if (!rig->fake->lost)
		assert_true(fake_holds_nothing(rig->fake));
	nic_owner_deinit(&rig->owner);
	nic_deinit(&rig->nic);
	receipt_nic = NULL;
	assert_int_equal(rig->env.live_blocks, 0);
	assert_int_equal(rig->env.live_bytes, 0);
	free(rig);
	return 0;
}

struct nic_memory *rig_memory(struct rig *rig, uint64_t pages, bool writable)
{
	struct nic_memory_facts facts = { .fd = 100, .size = pages * RIG_PAGE, .page_size = RIG_PAGE, .writable = writable };
	struct nic_memory *memory;
	struct nicd_error err;

	assert_int_equal(nic_memory_new(&memory, &rig->owner, &facts, true, &err), 0);
	return memory;
}

struct nic_mr *rig_mr(struct rig *rig)
{
	struct nicd_error err;
	struct nic_mr *mr;

	assert_int_equal(nic_mr_new(&mr, rig->pd, &err), 0);
	return mr;
}

int rig_register(struct nic_mr *mr, struct nic_memory *memory, uint64_t first, uint64_t n, uint32_t flags, struct rig_done *done)
{
	struct nic_range range = { memory, first * RIG_PAGE, n * RIG_PAGE };
	struct nic_register what = { .ranges = &range, .n_ranges = 1, .iova = 0x7000000, .flags = flags };
	struct nicd_error err;

	return nic_mr_register(mr, &what, rig_done(done), &err);
}

void rig_registered(struct rig *rig)
{
	struct rig_done done = { 0 };

	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 16, NIC_REMOTE_READ | NIC_REMOTE_WRITE, &done), 0);
	assert_ended(done);
}

struct nic_export *rig_export(struct rig *rig, struct nic_mr *mr, const char *name, uint32_t uses, struct rig_done *done)
{
	struct nic_door_terms terms = { .name = name, .rights = NIC_REMOTE_READ, .uses = uses };
	struct nic_export *door = NULL;
	struct nicd_error err;

	assert_int_equal(nic_export_new(&door, mr, &terms, rig_done(done), &err), 0);
	return door;
}

struct nic_export *rig_ticket(struct rig *rig, struct nic_mr *mr, uint32_t uses, struct rig_done *done)
{
	struct nic_door_terms terms = { .uses = uses };
	struct nic_export *door = NULL;
	struct nicd_error err;

	assert_int_equal(nic_ticket_new(&door, mr, &terms, rig_done(done), &err), 0);
	return door;
}

struct nic_qp *rig_connect(struct rig *rig, struct rig_done *done)
{
	struct nic_connect_terms terms = { .ticket = "0123456789abcde", .timeout_ms = 1000 };
	struct nicd_error err;
	struct nic_qp *qp;

	assert_int_equal(nic_qp_connect(&qp, rig->pd, &terms, rig_done(done), &err), 0);
	return qp;
}

uint64_t rig_used(const struct rig *rig, enum nic_slot slot)
{
	return rig->owner.account->used[slot];
}

unsigned rig_events(const struct rig *rig, enum nic_event event, uint64_t object)
{
	unsigned n = 0;

	for (unsigned i = 0; i < rig->n_events; i++)
		n += rig->events[i].event == event && (object == 0 || rig->events[i].object == object);
	return n;
}

void rig_later(struct rig *rig, uint64_t ns)
{
	rig->env.now += ns;
	nic_tick(&rig->nic);
}
