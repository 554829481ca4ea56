/* SPDX-License-Identifier: MIT */
/* Exports and tickets: opening, what the device is told, revoking in every way, and the peers that come in by them. */
#include "tests/unit/nic/rig.h"

#include <stdio.h>
#include <string.h>

#include "proto/locator.h"

/* mutation: give the export the MR's token, range or rights; or give its peers the PD's scope */
static void test_what_an_export_is(void **state)
{
	struct rig *rig = *state;
	struct nic_door_terms terms = { .name = "data", .offset = 5 * RIG_PAGE + 7, .length = 100, .rights = NIC_REMOTE_WRITE,
					.uses = 3, .ttl_ms = 1000 };
	struct rig_done done = { 0 };
	struct nic_grant_info grant;
	struct nic_export *door;
	struct nicd_error err;

	rig_registered(rig);
	assert_int_equal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(door->state, NIC_DOOR_OPEN);
	assert_int_equal(rig->fake->tag.serial, door->object.serial);
	assert_int_equal(rig->fake->tag.door, door->object.serial);
	assert_int_equal(rig->fake->tag.pd, rig->pd->object.serial);
	assert_int_equal(rig->fake->tag.rights, NIC_REMOTE_WRITE);
	assert_int_equal(rig->fake->tag.iova, 0x7000000 + 5 * RIG_PAGE + 7);
	assert_int_equal(rig->fake->tag.length, 100);
	assert_int_equal(rig->fake->tag.n_ranges, 1);
	assert_int_equal(rig->fake->ranges[0].offset, 5 * RIG_PAGE + 7);
	assert_int_equal(rig->fake->door.door, door->object.serial);
	assert_int_equal(rig->fake->door.uses, 3);
	assert_int_equal(rig->fake->door.max_streams, 3);
	assert_int_equal(rig->fake->door.ttl_ms, 1000);
	nic_door_grant(door, &grant);
	assert_memory_equal(&grant, &rig->fake->door.grant, sizeof(grant));
	assert_int_equal(grant.remote_token, fake_tag_token(rig->fake, door->object.serial));
	assert_int_not_equal(grant.remote_token, rig->mr->remote_token);
	assert_int_equal(grant.incarnation, 4711);
	assert_int_equal(door->until_ns - door->since_ns, 1000 * 1000000ull);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 1);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 3);
}

/* mutation: cut the ranges of an export wrong at a boundary */
static void test_export_over_several_ranges(void **state)
{
	struct rig *rig = *state;
	struct nic_memory *two = rig_memory(rig, 4, true), *three = rig_memory(rig, 4, true);
	struct nic_range ranges[] = { { rig->memory, 100, RIG_PAGE - 100 }, { two, RIG_PAGE, 2 * RIG_PAGE }, { three, 0, RIG_PAGE } };
	struct nic_register what = { .ranges = ranges, .n_ranges = 3, .iova = 0x100000 + 100, .flags = NIC_REMOTE_READ };
	struct nic_door_terms terms = { .name = "data", .offset = RIG_PAGE - 100, .length = 2 * RIG_PAGE + 1, .rights = NIC_REMOTE_READ };
	struct rig_done done = { 0 };
	struct nic_export *door;
	struct nicd_error err;

	assert_int_equal(nic_mr_register(rig->mr, &what, rig_done(&done), &err), 0);
	assert_int_equal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->fake->tag.n_ranges, 2);
	assert_int_equal(rig->fake->tag.iova, 0x101000);
	assert_int_equal(rig->fake->ranges[0].memory, two->object.serial);
	assert_int_equal(rig->fake->ranges[0].offset, RIG_PAGE);
	assert_int_equal(rig->fake->ranges[0].length, 2 * RIG_PAGE);
	assert_int_equal(rig->fake->ranges[1].memory, three->object.serial);
	assert_int_equal(rig->fake->ranges[1].length, 1);
	terms.name = "inner";
	terms.offset = RIG_PAGE;
	terms.length = 10;
	assert_int_equal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), 0);
	assert_int_equal(rig->fake->tag.n_ranges, 1);
	assert_int_equal(rig->fake->ranges[0].offset, RIG_PAGE + 100);
}

/* mutation: open the export to the device with the secret itself, or keep it once it was told */
static uint8_t told[NICD_TICKET_SIZE];
static struct nic_export *told_door;

static void remember_ticket(struct rig_done *done)
{
	memcpy(told, told_door->ticket, sizeof(told));
}

static void test_the_secret(void **state)
{
	struct rig *rig = *state;
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ };
	struct rig_done done = { .then = remember_ticket };
	uint8_t hash[NICD_TICKET_HASH_SIZE], zero[NICD_TICKET_SIZE] = { 0 };
	struct nicd_error err;

	rig_registered(rig);
	assert_int_equal(nic_export_new(&told_door, rig->mr, &terms, rig_done(&done), &err), 0);
	assert_ended(done);
	locator_ticket_hash(told, hash);
	assert_memory_equal(hash, rig->fake->door.hash, sizeof(hash));
	assert_memory_not_equal(told, zero, sizeof(zero));
	assert_memory_equal(told_door->ticket, zero, sizeof(zero));
}

/* What the owner itself may do is no right of those who come by a ticket. */
static void test_ticket_gives_rights_of_peers(void **state)
{
	struct rig *rig = *state;
	struct nic_grant_info grant;
	struct nic_export *door;
	struct rig_done done = { 0 };

	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 4, NIC_LOCAL_WRITE | NIC_REMOTE_READ, &done), 0);
	door = rig_ticket(rig, rig->mr, 0, &done);
	nic_door_grant(door, &grant);
	/* mutation: give a ticket the rights of the MR that have a bit in common with remote ones */
	assert_int_equal(grant.rights, NIC_REMOTE_READ);
	assert_int_equal(rig->fake->door.grant.rights, NIC_REMOTE_READ);
}

/* mutation: let a ticket have a tag of its own, a name, or the export's scope */
static void test_what_a_ticket_is(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_export *door;

	rig_registered(rig);
	door = rig_ticket(rig, rig->mr, 0, &done);
	assert_ended(done);
	assert_int_equal(rig->fake->calls[FAKE_TAG_ADD], 1);   /* the MR's */
	assert_int_equal(rig->fake->door.serial, door->object.serial);
	assert_int_equal(rig->fake->door.door, 0);
	assert_int_equal(rig->fake->door.pd, rig->pd->object.serial);
	assert_int_equal(rig->fake->door.uses, 1);
	assert_int_equal(rig->fake->door.ttl_ms, 60000);
	assert_int_equal(rig->fake->door.grant.remote_token, rig->mr->remote_token);
	assert_int_equal(rig->fake->door.grant.length, 16 * RIG_PAGE);
	assert_int_equal(rig->fake->door.grant.rights, 7);
	assert_null(door->mr);
	assert_null(door->name);
}

/* mutation: leave out or reorder any check of export_check; forget to take the smaller of uses and streams */
static void test_refusals(void **state)
{
	static const struct {
		const char *name;
		uint64_t offset, length;
		uint32_t rights;
		enum nicd_reason reason;
		uint64_t limit, observed;
	} rows[] = {
		{ "x", 0, 0, 0, NICD_R_FLAGS, 7, 0 },
		{ "x", 0, 0, 1, NICD_R_FLAGS, 7, 1 },
		{ "x", 0, 0, 3, NICD_R_FLAGS, 7, 3 },
		{ "x", 0, 0, 4, NICD_R_FLAGS, 7, 4 },
		{ "x", 0, 0, 6, NICD_R_FLAGS, 7, 6 },
		{ "x", 0, 0, 8 | 2, NICD_R_FLAGS, 7, 10 },
		{ "x", 0, 0, 5, NICD_R_RIGHTS_EXCEED, 3, 5 },
		{ "x", 0, 0, 7, NICD_R_RIGHTS_EXCEED, 3, 7 },
		{ "x", RIG_PAGE, 0, 2, NICD_R_RANGE_BEYOND, RIG_PAGE, RIG_PAGE },
		{ "x", RIG_PAGE + 1, 0, 2, NICD_R_RANGE_BEYOND, RIG_PAGE, RIG_PAGE + 1 },
		{ "x", 1, RIG_PAGE, 2, NICD_R_RANGE_BEYOND, RIG_PAGE, RIG_PAGE + 1 },
		{ "x", 2, UINT64_MAX, 2, NICD_R_RANGE_OVERFLOW, UINT64_MAX - 2, UINT64_MAX },
		{ "", 0, 0, 2, NICD_R_STRING, 255, 0 },
		{ NULL, 0, 0, 2, NICD_R_STRING, 255, 0 },
	};
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_export *door;
	struct nic_door_terms terms = { .name = "x", .rights = 2 };

	assert_refusal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), err, MR_STATE, NIC_MR_REGISTERED, NIC_MR_CREATED);
	assert_refusal(nic_ticket_new(&door, rig->mr, &terms, rig_done(&done), &err), err, MR_STATE, NIC_MR_REGISTERED, NIC_MR_CREATED);
	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, NIC_LOCAL_WRITE, &done), 0);
	assert_refusal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), err, NO_REMOTE_RIGHTS, 2, 1);
	assert_refusal(nic_ticket_new(&door, rig->mr, &terms, rig_done(&done), &err), err, NO_REMOTE_RIGHTS, 2, 1);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(rig_register(rig->mr, rig->memory, 0, 1, NIC_LOCAL_WRITE | NIC_REMOTE_READ, &done), 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		terms = (struct nic_door_terms){
			.name = rows[i].name, .offset = rows[i].offset, .length = rows[i].length, .rights = rows[i].rights };
		assert_refusal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), err, NONE + rows[i].reason, rows[i].limit,
			       rows[i].observed);
		assert_int_equal(done.calls, 0);
	}
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 0);
}

/* mutation: keep names of the dead, compare names of all accounts alike, or leave the name when something later refuses */
static void test_names(void **state)
{
	struct rig *rig = *state;
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ };
	struct rig_done done = { 0 };
	struct nic_export *one, *two;
	struct nicd_error err;

	rig_registered(rig);
	one = rig_export(rig, rig->mr, "data", 1, &done);
	assert_int_equal(nic_export_new(&two, rig->mr, &terms, rig_done(&done), &err), -EEXIST);
	assert_int_equal(err.reason, NICD_R_NAME_TAKEN);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 1);
	nic_door_kill(one, NULL);
	assert_string_equal(one->name, "data");
	two = rig_export(rig, rig->mr, "data", 1, &done);
	nic_door_close(one, NULL);
	assert_int_equal(nic_export_new(&one, rig->mr, &terms, rig_done(&done), &err), -EEXIST);
	nic_door_close(two, NULL);
	rig->owner.account->limits.max[NIC_SLOT_PINNED] = 16 * RIG_PAGE;
	rig->fake->tag_percent = 100;
	assert_int_equal(nic_export_new(&one, rig->mr, &terms, rig_done(&done), &err), -EDQUOT);
	rig->fake->tag_percent = 0;
	one = rig_export(rig, rig->mr, "data", 1, &done);
	assert_ended(done);
}

/* mutation: let two accounts share names, or the peers of an export be free */
static void test_names_of_two_accounts(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct rig *other;
	struct nic_account *account;
	void *own;

	rig_setup(&own);
	other = own;
	rig_registered(other);
	rig_export(other, other->mr, "data", 1, &done);
	assert_ended(done);
	rig_teardown(&own);

	/* In one nic: a second owner with another account. */
	assert_int_equal(nic_account_get(&rig->nic.accounts, "uid:2", &account), 0);
	rig_registered(rig);
	rig_export(rig, rig->mr, "data", 1, &done);
	assert_ended(done);
	struct nic_owner stranger;
	struct nic_pd *pd;
	struct nic_mr *mr;
	struct nicd_error err;
	struct nic_memory *memory;
	struct nic_memory_facts facts = { .fd = 5, .size = RIG_PAGE, .page_size = RIG_PAGE };

	nic_owner_init(&stranger, &rig->nic, account, nic_serial(&rig->nic));
	nic_account_unref(account);
	assert_int_equal(nic_pd_new(&pd, &stranger, rig->adapter, &err), 0);
	assert_int_equal(nic_mr_new(&mr, pd, &err), 0);
	assert_int_equal(nic_memory_new(&memory, &stranger, &facts, true, &err), 0);
	assert_int_equal(rig_register(mr, memory, 0, 1, NIC_REMOTE_READ, &done), 0);
	rig_export(rig, mr, "data", 1, &done);
	assert_ended(done);
	assert_int_equal(stranger.account->used[NIC_SLOT_QPS], 1);
	while (nic_owner_release(&stranger, 100))
		;
	nic_owner_deinit(&stranger);
}

/* mutation: charge the peers when they come instead of when the export is made */
static void test_peers_are_prepaid(void **state)
{
	struct rig *rig = *state;
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ, .uses = 100 };
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_export *door;

	rig_registered(rig);
	rig->owner.account->limits.max[NIC_SLOT_QPS] = 15;
	assert_refusal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), err, QUOTA, 15, 16);
	terms.max_streams = 15;
	assert_int_equal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), 0);
	assert_ended(done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:99");
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 15);
	nic_door_kill(door, NULL);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 1);
}

/* mutation: leave the tag at the device when door_add fails, or answer before it is gone */
static void test_opening_fails(void **state)
{
	static const enum fake_op ops[] = { FAKE_TAG_ADD, FAKE_DOOR_ADD };
	struct rig *rig = *state;
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ };

	rig_registered(rig);
	for (unsigned i = 0; i < 2; i++) {
		struct rig_done done = { 0 };
		struct nicd_error err;
		struct nic_export *door;

		fake_fail(rig->fake, ops[i], 0, 1, NICD_R_TAGS_EXHAUSTED);
		assert_int_equal(nic_export_new(&door, rig->mr, &terms, rig_done(&done), &err), 0);
		assert_refused(done, TAGS_EXHAUSTED);
		assert_int_equal(rig->nic.count[NIC_EXPORT], 0);
		assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 0);
		assert_true(!rig->mr->tenants || TAILQ_EMPTY(&rig->mr->tenants->exports));
	}
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	fake_fail(rig->fake, FAKE_DOOR_ADD, 0, 1, NICD_R_DEVICE_FAILED);
	struct rig_done late = { 0 };

	rig_export(rig, rig->mr, "data", 1, &late);
	assert_int_equal(late.calls, 0);
	fake_complete_all(rig->fake);
	assert_refused(late, DEVICE_FAILED);
	assert_int_equal(rig->nic.count[NIC_EXPORT], 0);
}

/* mutation: wait for ever for the answer of an opening whose tag the device does not drop */
static void test_opening_fails_and_its_tag_stays(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };

	rig_registered(rig);
	fake_hold(rig->fake, FAKE_TAG_DROP, true);
	fake_fail(rig->fake, FAKE_DOOR_ADD, 0, 1, NICD_R_DEVICE_FAILED);
	rig_export(rig, rig->mr, "data", 1, &done);
	rig_later(rig, 5000);
	assert_refused(done, DEVICE_FAILED);
	assert_int_equal(rig->nic.quarantined, 1);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 1);
	fake_complete_all(rig->fake);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 0);
	assert_int_equal(done.calls, 1);
	assert_int_equal(rig->n_events, 0);
}

/* mutation: close or deregister under an opening by freeing it, or open it all the same */
static void test_overtaken_opening(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		enum fake_op op = i & 1 ? FAKE_DOOR_ADD : FAKE_TAG_ADD;
		struct rig_done done = { 0 }, ended = { 0 };
		struct nic_export *door;
		struct nicd_error err;
		struct rig *rig;
		void *own;

		rig_setup(&own);
		rig = own;
		rig_registered(rig);
		fake_hold(rig->fake, op, true);
		door = rig_export(rig, rig->mr, "data", 1, &done);
		if (i & 2)
			nic_door_close(door, rig_done(&ended));
		else
			assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&ended), &err), 0);
		assert_int_equal(done.calls + ended.calls, 0);
		fake_complete_all(rig->fake);
		assert_refused(done, REVOKED);
		assert_ended(ended);
		if (!(i & 2))
			assert_int_equal(rig_receipt.n_exports, 1);
		assert_int_equal(rig->nic.count[NIC_EXPORT], 0);
		assert_int_equal(rig->n_events, 0);
		rig_teardown(&own);
	}
}

/* mutation: kill all exports at once, do not tell the next one when one has died, or count one twice that its owner closes meanwhile */
static void test_exports_die_in_pieces(void **state)
{
	enum { N = 1000, AT_ONCE = 256 };
	struct rig *rig = *state;
	struct rig_done done = { 0 }, exported = { 0 }, closed = { 0 };
	static struct nic_export *doors[N];
	struct nicd_error err;
	char name[16];

	rig_registered(rig);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "data%u", i);
		doors[i] = rig_export(rig, rig->mr, name, 1, &exported);
		assert_ended(exported);
	}
	rig->owner.event = NULL;
	fake_hold(rig->fake, FAKE_DOOR_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(fake_pending(rig->fake, FAKE_DOOR_DROP), AT_ONCE);
	nic_door_close(doors[0], rig_done(&closed));   /* the oldest: its turn has not come */
	assert_int_equal(fake_pending(rig->fake, FAKE_DOOR_DROP), AT_ONCE + 1);
	while (fake_complete(rig->fake, FAKE_DOOR_DROP))
		assert_true(fake_pending(rig->fake, FAKE_DOOR_DROP) <= AT_ONCE + 1);
	assert_ended(done);
	assert_ended(closed);
	assert_int_equal(rig_receipt.n_exports, N);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
}

/* mutation: drop the MR's tag before its exports are dead, or leave one out of the receipt */
static void test_deregister_with_exports(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, dereg = { 0 };
	struct nic_export *doors[3];
	struct nicd_error err;

	rig_registered(rig);
	doors[0] = rig_export(rig, rig->mr, "a", 2, &done);
	doors[1] = rig_export(rig, rig->mr, "b", 2, &done);
	doors[2] = rig_export(rig, rig->mr, "c", 2, &done);
	fake_stream_open(rig->fake, doors[1]->object.serial, "127.0.0.2:1");
	fake_stream_open(rig->fake, doors[1]->object.serial, "127.0.0.2:2");
	fake_stream_open(rig->fake, doors[2]->object.serial, "127.0.0.2:3");
	assert_int_equal(rig->nic.count[NIC_GRANT], 3);
	fake_hold(rig->fake, FAKE_OPS, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&dereg), &err), 0);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, 0), 3);
	assert_int_equal(fake_pending(rig->fake, FAKE_DOOR_DROP), 3);
	while (fake_complete_newest(rig->fake, FAKE_DOOR_DROP))
		;
	assert_int_equal(fake_pending(rig->fake, FAKE_TAG_DROP), 3);   /* of the exports */
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	assert_true(fake_complete_newest(rig->fake, FAKE_TAG_DROP));
	assert_true(fake_complete_newest(rig->fake, FAKE_TAG_DROP));
	assert_int_equal(dereg.calls, 0);
	assert_int_equal(fake_pending(rig->fake, FAKE_TAG_DROP), 1);
	assert_true(fake_complete(rig->fake, FAKE_TAG_DROP));
	assert_int_equal(fake_pending(rig->fake, FAKE_TAG_DROP), 1);   /* the MR's */
	assert_int_equal(rig->fake->serial, rig->mr->object.serial);
	assert_true(fake_complete(rig->fake, FAKE_TAG_DROP));
	assert_ended(dereg);
	assert_int_equal(rig_receipt.n_exports, 3);
	assert_int_equal(rig_receipt.grants, 3);
	assert_int_equal(rig_receipt.streams_cut, 3);
	for (unsigned i = 0; i < 3; i++) {
		bool listed = false;

		assert_int_equal(doors[i]->state, NIC_DOOR_DEAD);
		assert_null(doors[i]->mr);
		assert_int_equal(doors[i]->mr_serial, rig->mr->object.serial);
		for (unsigned j = 0; j < 3; j++)
			listed |= rig_receipt.exports[j] == doors[i]->object.serial;
		assert_true(listed);
	}
	fake_hold(rig->fake, FAKE_OPS, false);
	assert_int_equal(nic_revoke(&rig->nic, &doors[0]->object, rig_done(&done), &err), -ESTALE);
	assert_int_equal(err.reason, NICD_R_DEAD);
	nic_door_close(doors[0], rig_done(&done));
	assert_ended(done);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS), 2);
}

/* mutation: write the 65th serial behind the receipt's end */
static void test_more_exports_than_the_receipt_holds(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	char name[8];

	rig_registered(rig);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "e%u", i);
		rig_export(rig, rig->mr, name, 1, &done);
		assert_ended(done);
	}
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig_receipt.n_exports, 100);
	for (unsigned i = 0; i < NIC_RECEIPT_EXPORTS; i++)
		assert_int_not_equal(rig_receipt.exports[i], 0);
	rig_registered(rig);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_int_equal(rig_receipt.n_exports, 0);
}

/* mutation: answer success at the deadline, or forget the event */
static void test_revoke_unconfirmed(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_export *door;
	struct nicd_error err;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	fake_hold(rig->fake, FAKE_DOOR_DROP, true);
	assert_int_equal(nic_revoke(&rig->nic, &door->object, rig_done(&done), &err), 0);
	assert_int_equal(nic_revoke(&rig->nic, &door->object, rig_done(&done), &err), -EBUSY);
	rig_later(rig, 5000);
	assert_refused(done, REVOKE_UNCONFIRMED);
	assert_int_equal(rig->nic.quarantined, 1);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 1);
	assert_true(fake_complete_with(rig->fake, FAKE_DOOR_DROP, NICD_R_DEVICE_BUSY));
	rig_later(rig, 5000);   /* asked again */
	fake_complete_all(rig->fake);
	assert_int_equal(rig->nic.quarantined, 0);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, door->object.serial), 1);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKE_CONFIRMED, door->object.serial), 1);
	assert_int_equal(door->state, NIC_DOOR_DEAD);
	assert_int_equal(done.calls, 1);
}

/* The MR waits for an export that the device does not let go of, and says so in time. */
/* mutation: arm the MR's deadline only when its own drop begins */
static void test_deregister_waits_for_an_export(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, dereg = { 0 };
	struct nic_export *door;
	struct nicd_error err;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	fake_hold(rig->fake, FAKE_DOOR_DROP, true);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&dereg), &err), 0);
	rig_later(rig, 5000);
	assert_refused(dereg, REVOKE_UNCONFIRMED);
	assert_int_equal(rig->nic.quarantined, 2);
	nic_door_close(door, rig_done(&done));
	assert_int_equal(done.calls, 0);
	fake_complete_all(rig->fake);
	assert_ended(done);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKE_CONFIRMED, 0), 1);   /* the MR's: the export's was not promised */
}

/* mutation: keep an expired export's tag, or cut an expired ticket's peers */
static void test_expiry(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_export *export, *ticket;
	uint64_t memories, tags, doors, streams;

	rig_registered(rig);
	export = rig_export(rig, rig->mr, "data", 1, &done);
	ticket = rig_ticket(rig, rig->mr, 1, &done);
	fake_stream_open(rig->fake, export->object.serial, "127.0.0.2:1");
	fake_stream_open(rig->fake, ticket->object.serial, "127.0.0.2:2");
	fake_expire(rig->fake, export->object.serial);
	fake_expire(rig->fake, ticket->object.serial);
	fake_expire(rig->fake, ticket->object.serial);
	fake_expire(rig->fake, 999999);
	assert_int_equal(export->state, NIC_DOOR_DEAD);
	assert_int_equal(ticket->state, NIC_DOOR_EXPIRED);
	assert_int_equal(rig_events(rig, NIC_EVENT_EXPIRED, 0), 2);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, 0), 0);
	fake_stats(rig->fake, &memories, &tags, &doors, &streams);
	assert_int_equal(tags, 1);
	assert_int_equal(streams, 1);
	assert_int_equal(rig->nic.count[NIC_QP], 1);
	assert_int_equal(rig->nic.count[NIC_GRANT], 0);
	nic_door_close(ticket, rig_done(&done));
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

static void close_the_door(struct rig *rig, struct nic_object *object, enum nic_event event)
{
	if ((object->type == NIC_EXPORT || object->type == NIC_TICKET) && !object->ending)
		nic_door_close((struct nic_export *)object, NULL);
}

static void close_told_door(struct rig_done *done)
{
	nic_door_close(told_door, NULL);
}

/* mutation: touch the door after a callback without holding it */
static void test_close_inside_callbacks(void **state)
{
	struct rig *rig = *state;
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ };
	struct rig_done done = { .then = close_told_door };
	struct nic_export *door;
	struct nicd_error err;

	rig_registered(rig);
	assert_int_equal(nic_export_new(&told_door, rig->mr, &terms, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_EXPORT], 0);
	done.then = NULL;
	rig->on_event = close_the_door;
	fake_expire(rig->fake, rig_export(rig, rig->mr, "data", 1, &done)->object.serial);
	fake_expire(rig->fake, rig_ticket(rig, rig->mr, 1, &done)->object.serial);
	fake_stream_open(rig->fake, rig_export(rig, rig->mr, "data", 1, &done)->object.serial, "127.0.0.2:1");
	door = rig_export(rig, rig->mr, "data", 1, &done);
	assert_int_equal(nic_revoke(&rig->nic, &door->object, rig_done(&done), &err), 0);
	assert_ended(done);
	rig_export(rig, rig->mr, "data", 1, &done);
	rig_export(rig, rig->mr, "two", 1, &done);
	assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_EXPORT] + rig->nic.count[NIC_TICKET], 0);
}

/* A device that answers slowly may tell of a peer, or of the expiry, before it has answered the opening. */
/* mutation: ignore door_expired, or a peer, while the door is opening */
static void test_news_before_the_answer(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_export *door;

	rig_registered(rig);
	fake_hold(rig->fake, FAKE_DOOR_ADD, true);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	assert_int_equal(rig->nic.count[NIC_QP], 1);
	fake_expire(rig->fake, door->object.serial);
	assert_int_equal(done.calls, 0);
	fake_complete_all(rig->fake);
	assert_ended(done);
	assert_int_equal(door->state, NIC_DOOR_DEAD);
	assert_int_equal(rig_events(rig, NIC_EVENT_EXPIRED, 0), 1);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

/* mutation: let a Memory or PD end under a dead export, or keep the PD for ever */
static void test_dead_export_and_its_pd(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, pd = { 0 };
	struct nic_export *door;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	nic_mr_close(rig->mr, NULL);
	nic_pd_close(rig->pd, rig_done(&pd));
	assert_int_equal(door->state, NIC_DOOR_DEAD);
	assert_int_equal(pd.calls, 0);
	nic_door_close(door, NULL);
	assert_ended(pd);
}

enum { CROWD = 600, AT_ONCE = 64, PER_TICK = 256 };
static unsigned crowd_left;   /* of how many the owner heard that they have gone */

static void crowd_leaves(struct nic_owner *owner, struct nic_object *object, enum nic_event event, uint64_t serial,
			 const struct nicd_error *error)
{
	crowd_left += event == NIC_EVENT_DISCONNECTED;
}

/* A door with a crowd inside that the device has just been asked to shut for good. Who waits for that is answered with what it did. */
static struct nic_qp *crowd_shut_out(struct rig *rig, enum nic_type type, uint64_t streams[CROWD], struct rig_done *closed)
{
	struct rig_done done = { 0 };
	struct nic_export *door;

	rig_registered(rig);
	rig->owner.event = crowd_leaves;
	rig->owner.empty = NULL;
	door = type == NIC_EXPORT ? rig_export(rig, rig->mr, "crowd", CROWD, &done) : rig_ticket(rig, rig->mr, CROWD, &done);
	assert_int_equal(door->max_streams, 16);
	for (unsigned i = 0; i < CROWD; i++) {
		door->max_streams = CROWD;   /* paid for or not: nobody counts that here */
		streams[i] = fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	}
	assert_int_equal(door->streams, CROWD);
	rig->fake->silent_cut = true;   /* the device tells of each later, if at all */
	crowd_left = 0;
	nic_door_close(door, rig_done(closed));
	/* mutation: end all of them before the answer; answer when the last of them has ended */
	assert_ended(*closed);
	assert_int_equal(rig->nic.count[type], 0);
	assert_int_equal(rig->nic.count[NIC_QP], CROWD - AT_ONCE);
	assert_int_equal(crowd_left, AT_ONCE);
	assert_int_equal(rig_used(rig, NIC_SLOT_DOORS) + rig_used(rig, NIC_SLOT_QPS), 0);
	assert_int_equal(nic_next_deadline(&rig->nic), 0);
	return (struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0);
}

/* mutation: keep the door's memory no longer than its close; nic_tick ends none, or all of them in one turn */
static void test_crowd_goes_in_turns(void **state)
{
	static uint64_t streams[CROWD];
	struct nic_counters counters = { .peer_read = 7 };
	struct rig *rig = *state;
	struct rig_done closed = { 0 }, done = { 0 };
	struct nicd_error err;
	struct nic_qp *qp;

	for (enum nic_type type = NIC_TICKET; type <= NIC_EXPORT; type++) {
		uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = { 0 };
		struct nic_request what = { .operation = NIC_READ, .entries = entry, .len = sizeof(entry) };
		struct nic_work work;
		unsigned left = CROWD - AT_ONCE;

		if (type != NIC_TICKET && type != NIC_EXPORT)
			continue;
		qp = crowd_shut_out(rig, type, streams, &closed);
		/* Until their turn comes they are over. mutation: nic_qp_is_cut is never true */
		assert_int_equal(nic_qp_state(qp), NIC_QP_DISCONNECTED);
		assert_refusal(nic_qp_post(qp, &what, &work, rig_done(&done), &err), err, QP_STATE, NIC_QP_CONNECTED, NIC_QP_DISCONNECTED);
		assert_refusal(nic_qp_disconnect(qp, rig_done(&done), &err), err, QP_STATE, NIC_QP_CONNECTED, NIC_QP_DISCONNECTED);
		assert_int_equal(nic_qp_query(qp, &work, rig_done(&done), &err), 0);
		assert_ended(done);
		/* What its peer still has to say is for nobody; its end, from the device, comes before its turn. */
		rig->fake->provider.events->stream_notified(rig->adapter, qp->stream, 1);
		rig->fake->provider.events->stream_closed(rig->adapter, qp->stream, &err, &counters);
		assert_int_equal(rig->nic.count[NIC_QP], --left);
		/* And one is closed by its owner, with nothing to ask the device for. */
		nic_qp_close((struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0), rig_done(&done));
		assert_ended(done);
		assert_int_equal(rig->nic.count[NIC_QP], --left);
		assert_int_equal(rig->nic.count[NIC_GRANT], type == NIC_EXPORT ? left : 0);
		for (; left > 0; left -= left < PER_TICK ? left : PER_TICK) {
			assert_int_equal(rig->nic.count[NIC_QP], left);
			assert_int_equal(nic_next_deadline(&rig->nic), 0);
			nic_tick(&rig->nic);
		}
		assert_int_equal(rig->nic.count[NIC_QP] + rig->nic.count[NIC_GRANT], 0);
		assert_int_equal(nic_next_deadline(&rig->nic), UINT64_MAX);
		/* The one that was closed is not told of. */
		assert_int_equal(crowd_left, CROWD - 1);
		assert_int_equal(nic_mr_deregister(rig->mr, rig_done(&done), &err), 0);
		assert_ended(done);
	}
}

static void then_count_grants(struct rig_done *done)
{
	struct nic_export *door = (struct nic_export *)nic_next(&done->rig->nic, NIC_EXPORT, 0);

	/* mutation: count grants one by one, as they end */
	assert_int_equal(door->grants, CROWD);
	assert_int_equal(door->streams_cut, CROWD);
}

/* Its owner goes, or the device does, or all of us, while most of the crowd waits. */
static void test_crowd_is_overtaken(void **state)
{
	static uint64_t streams[CROWD];
	struct rig_done closed = { 0 }, revoked = { 0 }, done = { 0 };
	struct nic_export *door;
	struct nicd_error err;
	struct rig *rig;
	void *own;

	for (unsigned how = 0; how < 2; how++) {
		rig_setup(&own);
		rig = own;
		crowd_shut_out(rig, NIC_EXPORT, streams, &closed);
		if (how == 1)
			fake_lose(rig->fake, true);
		while (nic_owner_release(&rig->owner, 100))
			;
		/* mutation: a door that was answered does not count in its owner */
		assert_true(rig->owner.n_objects > 0);
		while (nic_next_deadline(&rig->nic) == 0)
			nic_tick(&rig->nic);
		assert_int_equal(rig->owner.n_objects, 0);
		rig_teardown(&own);
	}
	rig = *state;
	rig_registered(rig);
	rig->owner.event = crowd_leaves;
	door = rig_export(rig, rig->mr, "crowd", CROWD, &done);
	for (unsigned i = 0; i < CROWD; i++) {
		door->max_streams = CROWD;
		fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	}
	rig->fake->silent_cut = true;
	revoked.then = then_count_grants;
	revoked.rig = rig;
	assert_int_equal(nic_door_revoke(door, NULL, rig_done(&revoked), &err), 0);
	assert_ended(revoked);
	assert_int_equal(door->streams, 0);
	/* Closed while it is being emptied: answered at once. */
	nic_door_close(door, rig_done(&closed));
	assert_ended(closed);
	while (nic_next_deadline(&rig->nic) == 0)
		nic_tick(&rig->nic);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

/* mutation: an adapter that is freed does not end who came in by doors that its last commands shut */
static void test_crowd_and_the_end_of_all(void **state)
{
	struct rig_done done = { 0 };
	struct nic_export *door;
	struct rig *rig;
	void *own;

	rig_setup(&own);
	rig = own;
	rig_registered(rig);
	rig->owner.event = NULL;
	rig->owner.empty = nic_owner_deinit;
	door = rig_export(rig, rig->mr, "crowd", CROWD, &done);
	for (unsigned i = 0; i < CROWD; i++) {
		door->max_streams = CROWD;
		fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	}
	rig->fake->silent_cut = true;
	fake_hold(rig->fake, FAKE_OPS, true);
	while (nic_owner_release(&rig->owner, 100))
		;
	assert_true(fake_complete(rig->fake, FAKE_DOOR_DROP));
	nic_deinit(&rig->nic);
	assert_int_equal(rig->env.live_blocks, 0);
	free(rig);
}

static void test_state_names(void **state)
{
	assert_string_equal(nic_door_state_name(NIC_DOOR_OPENING), "OPENING");
	assert_string_equal(nic_door_state_name(NIC_DOOR_DEAD), "DEAD");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_what_an_export_is),
		rig_test(test_export_over_several_ranges),
		rig_test(test_the_secret),
		rig_test(test_ticket_gives_rights_of_peers),
		rig_test(test_what_a_ticket_is),
		rig_test(test_refusals),
		rig_test(test_names),
		rig_test(test_names_of_two_accounts),
		rig_test(test_peers_are_prepaid),
		rig_test(test_opening_fails),
		rig_test(test_opening_fails_and_its_tag_stays),
		cmocka_unit_test(test_overtaken_opening),
		rig_test(test_exports_die_in_pieces),
		rig_test(test_deregister_with_exports),
		rig_test(test_more_exports_than_the_receipt_holds),
		rig_test(test_revoke_unconfirmed),
		rig_test(test_deregister_waits_for_an_export),
		rig_test(test_expiry),
		rig_test(test_close_inside_callbacks),
		rig_test(test_news_before_the_answer),
		rig_test(test_dead_export_and_its_pd),
		rig_test(test_crowd_goes_in_turns),
		rig_test(test_crowd_is_overtaken),
		cmocka_unit_test(test_crowd_and_the_end_of_all),
		rig_test(test_state_names),
	};

	return cmocka_run_group_tests_name("door", tests, NULL, NULL);
}
