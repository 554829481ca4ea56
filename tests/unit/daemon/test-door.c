/* SPDX-License-Identifier: MIT */
/* Tickets and exports through the protocol: what the locator says, what is refused, and the news of who comes and goes. */
#include "tests/unit/daemon/rig.h"

#include <string.h>

#include "proto/locator.h"

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

static const Nicd__Reply *ticket(struct rig_client *c, uint64_t mr, uint32_t uses)
{
	Nicd__CreateTicket args = NICD__CREATE_TICKET__INIT;

	args.mr = rig_id(c, mr);
	args.uses = uses;
	return rig_call(c, NICD__REQUEST__CALL_CREATE_TICKET, &args);
}

static const Nicd__Reply *export(struct rig_client *c, uint64_t mr, const char *name, uint64_t offset, uint64_t length,
				 uint32_t flags)
{
	Nicd__CreateExport args = NICD__CREATE_EXPORT__INIT;

	args.mr = rig_id(c, mr);
	args.name = (char *)name;
	args.offset = offset;
	args.length = length;
	args.flags = flags;
	return rig_call(c, NICD__REQUEST__CALL_CREATE_EXPORT, &args);
}

/* The secret in the locator is the one whose hash the device has. */
static void check_secret(struct rig_client *c, const struct locator *locator)
{
	uint8_t hash[NICD_TICKET_HASH_SIZE];
	char addr[64];

	locator_ticket_hash(locator->ticket, hash);
	assert_memory_equal(hash, c->rig->fake->door.hash, sizeof(hash));
	locator_addr_print(&locator->addr, addr);
	assert_string_equal(addr, "127.0.0.1:7190");
}

static void test_ticket(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ | NIC_REMOTE_WRITE);
	uint32_t token = rig_reply(c, c->last_id)->mr->remote_token;
	const Nicd__Reply *reply = ticket(c, mr, 3);
	struct locator locator;
	struct nicd_error err;

	assert_done(reply);
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT_DOOR);
	assert_int_equal(reply->door->id >> 56, NIC_TICKET);
	assert_int_equal(locator_parse(reply->door->locator, &locator, &err), 0);
	check_secret(c, &locator);
	/* mutation: has_grant for exports instead of tickets */
	assert_true(locator.has_grant);
	assert_int_equal(locator.grant.remote_token, token);
	assert_int_equal(locator.grant.iova, 0x10000);
	assert_int_equal(locator.grant.length, 65536);
	assert_int_equal(reply->door->grant->remote_token, token);
	assert_int_equal(reply->door->grant->incarnation, 4711);
	assert_int_equal(c->rig->fake->door.uses, 3);
	assert_int_equal(c->rig->fake->door.door, 0);
}

static void test_export(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ | NIC_REMOTE_WRITE);
	uint32_t token = rig_reply(c, c->last_id)->mr->remote_token;
	const Nicd__Reply *reply = export(c, mr, "weights", 4096, 8192, NIC_REMOTE_READ);
	struct locator locator;
	struct nicd_error err;

	assert_done(reply);
	assert_int_equal(reply->door->id >> 56, NIC_EXPORT);
	assert_int_equal(locator_parse(reply->door->locator, &locator, &err), 0);
	check_secret(c, &locator);
	assert_false(locator.has_grant);
	/* A token of its own, over exactly its range and rights. */
	assert_int_not_equal(reply->door->grant->remote_token, token);
	assert_int_equal(reply->door->grant->iova, 0x11000);
	assert_int_equal(reply->door->grant->length, 8192);
	assert_int_equal(reply->door->grant->flags, NIC_REMOTE_READ);
	assert_int_equal(c->rig->fake->door.door, reply->door->serial);
	assert_done(export(c, mr, "rest", 4096, 0, NIC_REMOTE_READ));
	assert_int_equal(rig_reply(c, c->last_id)->door->grant->length, 65536 - 4096);
}

static void test_refused(void **state)
{
	struct rig_client *c = client(state), *other = rig_hello(*state, "uid:2", CLIENT_ROLE_CLIENT);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ), local = rig_region(c, NIC_LOCAL_WRITE), bare = rig_mr(c, rig_pd(c));
	char name[257];

	memset(name, 'n', sizeof(name));
	name[256] = 0;
	/* mutation: no check of the name */
	assert_reason(export(c, mr, "", 0, 0, NIC_REMOTE_READ), STRING);
	assert_reason(export(c, mr, "a/b", 0, 0, NIC_REMOTE_READ), STRING);
	assert_reason(export(c, mr, "a\nb", 0, 0, NIC_REMOTE_READ), STRING);
	assert_reason(export(c, mr, "\xc3", 0, 0, NIC_REMOTE_READ), STRING);
	assert_reason(export(c, mr, name, 0, 0, NIC_REMOTE_READ), STRING);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, NICD_STRING);
	name[255] = 0;
	assert_done(export(c, mr, name, 0, 0, NIC_REMOTE_READ));
	assert_reason(export(c, mr, name, 0, 0, NIC_REMOTE_READ), NAME_TAKEN);
	assert_reason(export(c, mr, "x", 0, 65537, NIC_REMOTE_READ), RANGE_BEYOND);
	assert_reason(export(c, mr, "x", 65535, UINT64_MAX, NIC_REMOTE_READ), RANGE_OVERFLOW);
	assert_reason(export(c, mr, "x", 65536, 0, NIC_REMOTE_READ), RANGE_BEYOND);
	assert_reason(export(c, mr, "x", 0, 0, 0), FLAGS);
	assert_reason(export(c, mr, "x", 0, 0, NIC_REMOTE_WRITE), RIGHTS_EXCEED);
	assert_reason(export(c, local, "x", 0, 0, NIC_REMOTE_READ), NO_REMOTE_RIGHTS);
	assert_reason(export(c, bare, "x", 0, 0, NIC_REMOTE_READ), MR_STATE);
	assert_reason(ticket(c, local, 0), NO_REMOTE_RIGHTS);
	assert_reason(ticket(c, bare, 0), MR_STATE);
	/* The name is the account's: another may have it, another session of this one may not. */
	assert_done(export(other, rig_region(other, NIC_REMOTE_READ), name, 0, 0, NIC_REMOTE_READ));
	other = client(state);
	assert_reason(export(other, rig_region(other, NIC_REMOTE_READ), name, 0, 0, NIC_REMOTE_READ), NAME_TAKEN);
	/* A device that peers cannot reach opens no doors. */
	c->rig->fake->provider.data_addr.ss_family = 0;
	assert_reason(ticket(c, mr, 0), NO_ADAPTER);
	assert_reason(export(c, mr, "x", 0, 0, NIC_REMOTE_READ), NO_ADAPTER);
	assert_int_equal(c->rig->nic.count[NIC_EXPORT] + c->rig->nic.count[NIC_TICKET], 2);
}

static void test_device_refuses(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);

	fake_fail(c->rig->fake, FAKE_DOOR_ADD, 0, 2, NICD_R_DEVICE_FAILED);
	assert_reason(ticket(c, mr, 0), DEVICE_FAILED);
	assert_reason(export(c, mr, "x", 0, 0, NIC_REMOTE_READ), DEVICE_FAILED);
	assert_int_equal(c->rig->nic.count[NIC_EXPORT] + c->rig->nic.count[NIC_TICKET], 0);
	assert_done(export(c, mr, "x", 0, 0, NIC_REMOTE_READ));
}

/* Who comes and goes; and closing the door shows them out, with a receipt. */
static void test_peers(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);
	const Nicd__Reply *door = export(c, mr, "x", 0, 0, NIC_REMOTE_READ), *reply;
	const Nicd__Event *event;
	uint64_t door_id = door->door->id, door_serial = door->door->serial;

	fake_stream_open(c->rig->fake, door_serial, "127.0.0.9:4000");
	event = rig_event(c, NICD__EVENT__KIND__CONNECTED);
	assert_non_null(event);
	assert_int_equal(event->object, door_id);
	/* `serial` is the Qp's. */
	assert_non_null(nic_find(&c->rig->nic, NIC_QP, event->serial));
	reply = rig_close(c, door_id);
	assert_done(reply);
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT_RECEIPT);
	assert_int_equal(reply->receipt->serial, door_serial);
	assert_int_equal(reply->receipt->grants, 1);
	assert_int_equal(reply->receipt->streams_cut, 1);
	assert_int_equal(c->rig->nic.count[NIC_QP], 0);
}

/* Deregistering the MR kills its exports and lists them. */
static void test_deregister_lists_exports(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);
	const Nicd__Reply *reply = export(c, mr, "x", 0, 0, NIC_REMOTE_READ);
	Nicd__DeregisterMr deregister = NICD__DEREGISTER_MR__INIT;
	uint64_t id = reply->door->id, serial = reply->door->serial;
	const Nicd__Event *event;

	deregister.mr = rig_id(c, mr);
	reply = rig_call(c, NICD__REQUEST__CALL_DEREGISTER_MR, &deregister);
	assert_done(reply);
	/* mutation: no exports in the receipt */
	assert_int_equal(reply->receipt->n_exports, 1);
	assert_int_equal(reply->receipt->exports[0], serial);
	event = rig_event(c, NICD__EVENT__KIND__REVOKED);
	assert_non_null(event);
	assert_int_equal(event->object, id);
	/* It stays, dead, until it is closed. */
	assert_int_equal(c->rig->nic.count[NIC_EXPORT], 1);
	assert_done(rig_close(c, id));
	assert_int_equal(c->rig->nic.count[NIC_EXPORT], 0);
}

static void test_expired(void **state)
{
	struct rig_client *c = client(state);
	const Nicd__Reply *reply = ticket(c, rig_region(c, NIC_REMOTE_READ), 0);
	const Nicd__Event *event;

	fake_expire(c->rig->fake, reply->door->serial);
	event = rig_event(c, NICD__EVENT__KIND__EXPIRED);
	assert_non_null(event);
	assert_int_equal(event->object, reply->door->id);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_ticket),
		rig_test(test_export),
		rig_test(test_refused),
		rig_test(test_device_refuses),
		rig_test(test_peers),
		rig_test(test_deregister_lists_exports),
		rig_test(test_expired),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
