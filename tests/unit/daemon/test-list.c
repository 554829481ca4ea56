/* SPDX-License-Identifier: MIT */
/* Looking and ending by serial: List, Who, Revoke, Ledger; what an account may see and what it may not. */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

static const Nicd__Reply *list(struct rig_client *c, int type, uint64_t cursor, uint32_t max)
{
	Nicd__List args = NICD__LIST__INIT;

	args.type = (Nicd__Type)type;
	args.cursor = cursor;
	args.max = max;
	return rig_call(c, NICD__REQUEST__CALL_LIST, &args);
}

/* The only page. */
static const Nicd__ListReply *listed(struct rig_client *c, int type)
{
	const Nicd__Reply *reply = list(c, type, 0, 0);

	assert_done(reply);
	assert_int_equal(reply->list->cursor, 0);
	return reply->list;
}

static const Nicd__Reply *revoke(struct rig_client *c, uint64_t serial)
{
	Nicd__Revoke args = NICD__REVOKE__INIT;

	args.serial = serial;
	return rig_call(c, NICD__REQUEST__CALL_REVOKE, &args);
}

static const Nicd__Reply *who(struct rig_client *c, uint64_t serial)
{
	Nicd__Who args = NICD__WHO__INIT;

	args.serial = serial;
	return rig_call(c, NICD__REQUEST__CALL_WHO, &args);
}

static const Nicd__LedgerReply *ledger(struct rig_client *c, uint64_t cursor)
{
	Nicd__Ledger args = NICD__LEDGER__INIT;
	const Nicd__Reply *reply;

	args.cursor = cursor;
	reply = rig_call(c, NICD__REQUEST__CALL_LEDGER, &args);
	assert_done(reply);
	return reply->ledger;
}

static const Nicd__DoorInfo *export(struct rig_client *c, uint64_t mr, const char *name)
{
	Nicd__CreateExport args = NICD__CREATE_EXPORT__INIT;
	const Nicd__Reply *reply;

	args.mr = rig_id(c, mr);
	args.name = (char *)name;
	args.flags = NIC_REMOTE_READ;
	reply = rig_call(c, NICD__REQUEST__CALL_CREATE_EXPORT, &args);
	assert_done(reply);
	return reply->door;
}

static const Nicd__DoorInfo *ticket(struct rig_client *c, uint64_t mr)
{
	Nicd__CreateTicket args = NICD__CREATE_TICKET__INIT;
	const Nicd__Reply *reply;

	args.mr = rig_id(c, mr);
	reply = rig_call(c, NICD__REQUEST__CALL_CREATE_TICKET, &args);
	assert_done(reply);
	return reply->door;
}

/* ---- List */

static void test_every_type(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ), mr_serial = rig_serial_of(c, mr);
	uint64_t door = export(c, mr, "x")->serial, pass = ticket(c, mr)->serial;
	const Nicd__Item *item;

	fake_stream_open(c->rig->fake, door, "127.0.0.9:4000");
	fake_stream_open(c->rig->fake, pass, "127.0.0.8:4000");

	assert_int_equal(listed(c, NIC_ADAPTER)->n_items, 1);
	item = listed(c, NIC_ADAPTER)->items[0];
	assert_string_equal(item->name, "fake0");
	assert_string_equal(item->state, "up");

	item = listed(c, NIC_SESSION)->items[0];
	assert_int_equal(item->serial, c->client->serial);
	assert_string_equal(item->account, "uid:1000");
	assert_int_equal(item->pid, 42);
	assert_int_equal(item->uid, 1000);
	assert_string_equal(item->state, "ready");
	assert_true(item->alive);
	assert_int_equal(item->since_ns, c->rig->env.wall);

	item = listed(c, NIC_MEMORY)->items[0];
	assert_int_equal(item->size, 65536);
	assert_int_equal(item->count, 1);
	assert_int_equal(item->session, c->client->serial);

	/* The MR, the export, the ticket and the two that came in. */
	/* mutation: count MRs only */
	assert_int_equal(listed(c, NIC_PD)->items[0]->count, 5);

	item = listed(c, NIC_MR)->items[0];
	assert_int_equal(item->type, NICD__TYPE__MR);
	assert_int_equal(item->serial, mr_serial);
	assert_int_equal(item->parent, listed(c, NIC_PD)->items[0]->serial);
	assert_int_equal(item->iova, 0x10000);
	assert_int_equal(item->size, 65536);
	assert_int_equal(item->flags, NIC_REMOTE_READ);

	item = listed(c, NIC_EXPORT)->items[0];
	assert_int_equal(item->serial, door);
	assert_string_equal(item->name, "x");
	assert_int_equal(item->parent, mr_serial);
	assert_int_equal(item->count, 0);
	assert_int_equal(item->until_ns, item->since_ns + UINT64_C(86400000000000));
	item = listed(c, NIC_TICKET)->items[0];
	assert_int_equal(item->serial, pass);

	item = listed(c, NIC_GRANT)->items[0];
	assert_int_equal(item->parent, door);
	assert_string_equal(item->peer, "127.0.0.9:4000");
	assert_int_equal(listed(c, NIC_QP)->n_items, 2);
	assert_true(listed(c, NIC_QP)->items[0]->inbound);

	assert_int_equal(listed(c, NIC_MW)->n_items, 0);
	assert_int_equal(listed(c, NIC_MAPPING)->n_items, 0);
	assert_reason(list(c, 0, 0, 0), VALUE);
	assert_reason(list(c, 12, 0, 0), VALUE);
	assert_reason(list(c, -1, 0, 0), VALUE);
}

/* Each object once, whatever the size of the page. */
static void test_paging(void **state)
{
	static const uint32_t sizes[] = { 1, 7, 300, 0 };
	struct rig_client *c = client(state);
	enum { OBJECTS = 700 };

	for (unsigned i = 0; i < OBJECTS; i++)
		rig_pd(c);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t cursor = 0, last = 0;
		unsigned n = 0;

		rig_forget(c);
		do {
			const Nicd__Reply *reply = list(c, NIC_PD, cursor, sizes[i]);

			assert_done(reply);
			for (size_t j = 0; j < reply->list->n_items; j++) {
				/* mutation: cursor one too high or too low */
				assert_true(reply->list->items[j]->serial > last);
				last = reply->list->items[j]->serial;
				n++;
			}
			if (sizes[i])
				assert_true(reply->list->n_items <= sizes[i]);
			cursor = reply->list->cursor;
		} while (cursor);
		assert_int_equal(n, OBJECTS);
	}
	/* mutation: take any cursor */
	assert_reason(list(c, NIC_PD, c->rig->nic.last_serial + 1, 0), CURSOR);
	assert_done(list(c, NIC_PD, c->rig->nic.last_serial, 0));
}

static void test_paging_sessions(void **state)
{
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	uint64_t cursor = 0, last = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < 6; i++)
		client(state);
	do {
		const Nicd__Reply *reply = list(admin, NIC_SESSION, cursor, 3);

		assert_done(reply);
		for (size_t i = 0; i < reply->list->n_items; i++, n++) {
			/* mutation: the cursor is the first one that was left out */
			assert_true(reply->list->items[i]->serial > last);
			last = reply->list->items[i]->serial;
		}
		cursor = reply->list->cursor;
	} while (cursor);
	assert_int_equal(n, 7);
}

/* Items as long as they can be: the reply still fits a frame. */
static void test_page_fits_frame(void **state)
{
	char account[250];
	struct rig_client *c;
	uint64_t mr, cursor = 0;
	unsigned n = 0, pages = 0;

	memset(account, 'a', sizeof(account));
	account[249] = 0;
	c = rig_hello(*state, account, CLIENT_ROLE_CLIENT);
	mr = rig_region(c, NIC_REMOTE_READ);
	for (unsigned i = 0; i < 250; i++) {
		char name[256];

		memset(name, 'n', sizeof(name));
		name[255] = 0;
		name[0] = (char)('a' + i / 26);
		name[1] = (char)('a' + i % 26);
		export(c, mr, name);
	}
	rig_forget(c);
	do {
		/* mutation: no LIST_BYTES, and the reply is INTERNAL */
		const Nicd__Reply *reply = list(c, NIC_EXPORT, cursor, 0);

		assert_done(reply);
		n += (unsigned)reply->list->n_items;
		pages++;
		cursor = reply->list->cursor;
	} while (cursor);
	assert_int_equal(n, 250);
	assert_in_range(pages, 2, 4);
}

/* Objects of others cost a page, not the loop's time without end. */
static void test_many_of_others(void **state)
{
	struct rig_client *a = client(state), *b = rig_hello(*state, "uid:2", CLIENT_ROLE_CLIENT);
	uint64_t mine, cursor = 0;
	unsigned pages = 0, n = 0;

	for (unsigned i = 0; i < 4090; i++) {
		rig_pd(a);
		if (i % 256 == 255)
			rig_forget(a);
	}
	rig_forget(a);
	a->client->owner.account->limits.max[NIC_SLOT_PDS] = 10000;
	for (unsigned i = 0; i < 100; i++)
		rig_pd(a);
	mine = rig_pd(b);
	do {
		const Nicd__Reply *reply = list(b, NIC_PD, cursor, 0);

		for (size_t i = 0; i < reply->list->n_items; i++)
			assert_int_equal(reply->list->items[i]->serial, rig_serial_of(b, mine));
		n += (unsigned)reply->list->n_items;
		cursor = reply->list->cursor;
		pages++;
	} while (cursor);
	assert_int_equal(n, 1);
	/* mutation: no LIST_STEPS */
	assert_int_equal(pages, 2);
}

/* A frame of Lists looks at no more than a few of them would; each gets on all the same. */
static void test_frame_shares_steps(void **state)
{
	struct rig_client *a = client(state), *b = rig_hello(*state, "uid:2", CLIENT_ROLE_CLIENT);
	Nicd__Ledger whole = NICD__LEDGER__INIT;
	Nicd__List args = NICD__LIST__INIT;
	uint64_t seen = 0;
	uint32_t first;

	a->client->owner.account->limits.max[NIC_SLOT_PDS] = 10000;
	for (unsigned i = 0; i < 5000; i++) {
		rig_pd(a);
		if (i % 256 == 255)
			rig_forget(a);
	}
	args.type = NICD__TYPE__PD;
	first = b->last_id + 1;
	for (unsigned i = 0; i < 20; i++)
		rig_add(b, first + i, NICD__REQUEST__CALL_LIST, &args);
	rig_add(b, first + 20, NICD__REQUEST__CALL_LEDGER, &whole);
	assert_true(rig_send(b, NULL, 0));
	for (unsigned i = 0; i < 20; i++) {
		const Nicd__Reply *reply = rig_reply(b, first + i);

		assert_done(reply);
		assert_int_equal(reply->list->n_items, 0);
		/* mutation: no step for a request when the frame has none left, and 0 says that this is all */
		assert_int_not_equal(reply->list->cursor, 0);
		if (i == 0)
			seen = reply->list->cursor;
		else if (i > 1)
			/* mutation: LIST_STEPS for each request, whatever bulk_steps says */
			assert_true(reply->list->cursor < seen);
	}
	/* mutation: a Ledger counts sessions for nothing */
	assert_reason(rig_reply(b, first + 20), IN_FLIGHT);
	b->last_id = first + 20;
	/* mutation: client_frame does not set bulk_steps again */
	assert_int_equal(list(b, NIC_PD, 0, 0)->list->cursor, seen);
	assert_int_equal(ledger(b, 0)->sessions, 1);
}

/* Sessions too, and each of them is listed once. */
static void test_frame_shares_steps_sessions(void **state)
{
	enum { SESSIONS = 300, LISTS = 40 };
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN), *b = NULL;
	Nicd__List args = NICD__LIST__INIT;
	uint32_t first = admin->last_id + 1;
	size_t items = 0;

	admin->rig->policy.max_output = UINT32_MAX;
	for (unsigned i = 0; i < SESSIONS; i++)
		b = rig_hello(*state, i % 2 ? "uid:2" : "uid:3", CLIENT_ROLE_CLIENT);
	args.type = NICD__TYPE__SESSION;
	for (unsigned i = 0; i < LISTS; i++)
		rig_add(admin, first + i, NICD__REQUEST__CALL_LIST, &args);
	assert_true(rig_send(admin, NULL, 0));
	for (unsigned i = 0; i < LISTS; i++) {
		assert_done(rig_reply(admin, first + i));
		items += rig_reply(admin, first + i)->list->n_items;
		assert_int_not_equal(rig_reply(admin, first + i)->list->cursor, 0);
	}
	/* mutation: page_sessions without walk_step */
	assert_in_range(items, CLIENT_BULK_STEPS - 200, CLIENT_BULK_STEPS + LISTS);
	/* mutation: client_next with no look at the account */
	assert_int_equal(listed(b, NIC_SESSION)->n_items, SESSIONS / 2);
	assert_int_equal(ledger(b, 0)->sessions, SESSIONS / 2);
}

static void test_accounts_apart(void **state)
{
	struct rig_client *a = client(state), *again = client(state);
	struct rig_client *b = rig_hello(*state, "uid:2", CLIENT_ROLE_CLIENT);
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	uint64_t mr = rig_region(a, NIC_REMOTE_READ), serial = rig_serial_of(a, mr);

	assert_int_equal(listed(a, NIC_MR)->n_items, 1);
	assert_int_equal(listed(again, NIC_MR)->n_items, 1);
	/* mutation: show all to everybody */
	assert_int_equal(listed(b, NIC_MR)->n_items, 0);
	assert_int_equal(listed(admin, NIC_MR)->n_items, 1);
	assert_string_equal(listed(admin, NIC_MR)->items[0]->account, "uid:1000");
	assert_int_equal(listed(a, NIC_SESSION)->n_items, 2);
	assert_int_equal(listed(b, NIC_SESSION)->n_items, 1);
	assert_int_equal(listed(admin, NIC_SESSION)->n_items, 4);
	/* Foreign and absent are the same. */
	assert_reason(who(b, serial), SERIAL);
	assert_reason(revoke(b, serial), SERIAL);
	assert_reason(revoke(b, a->client->serial), SERIAL);
	assert_reason(revoke(b, 999999), SERIAL);
	assert_int_equal(rig_reply(b, b->last_id)->error->observed, 999999);
	assert_false(a->kicked);
	assert_done(who(again, serial));
	assert_done(who(admin, serial));
}

/* ---- Who */

static void test_who(void **state)
{
	struct rig_client *c = client(state);
	uint64_t pd = rig_pd(c), memory = rig_memory(c, 4096), mr = rig_mr(c, pd), other = rig_mr(c, pd);
	uint64_t serial = rig_serial_of(c, mr), door, pass;
	const Nicd__Reply *reply;

	assert_done(rig_register(c, mr, memory, 4096, NIC_REMOTE_READ));
	assert_done(rig_register(c, other, memory, 4096, NIC_REMOTE_READ));
	door = export(c, mr, "x")->serial;
	pass = ticket(c, other)->serial;
	export(c, other, "y");
	reply = who(c, serial);
	assert_done(reply);
	assert_int_equal(reply->list->n_items, 0);
	fake_stream_open(c->rig->fake, door, "127.0.0.9:1");
	fake_stream_open(c->rig->fake, pass, "127.0.0.9:2");

	/* By the export: its grant. By a ticket of another MR: the whole PD. */
	reply = who(c, serial);
	assert_done(reply);
	assert_int_equal(reply->list->n_items, 2);
	assert_int_equal(reply->list->items[0]->type, NICD__TYPE__GRANT);
	assert_string_equal(reply->list->items[0]->peer, "127.0.0.9:1");
	assert_int_equal(reply->list->items[1]->type, NICD__TYPE__QP);
	assert_string_equal(reply->list->items[1]->peer, "127.0.0.9:2");
	/* The other MR: only who came by the ticket. */
	reply = who(c, rig_serial_of(c, other));
	/* mutation: count those that came by an export of another MR */
	assert_int_equal(reply->list->n_items, 1);
	assert_string_equal(reply->list->items[0]->peer, "127.0.0.9:2");
	reply = who(c, door);
	assert_int_equal(reply->list->n_items, 1);
	assert_int_equal(reply->list->items[0]->parent, door);
	assert_reason(who(c, rig_serial_of(c, pd)), HANDLE_TYPE);
}

/* ---- the counters of connections */

/* Asked for before the page is made; all of the page at once, and only of the page. */
static void test_counters_are_asked_for(void **state)
{
	struct rig_client *c = client(state), *other = rig_hello(*state, "uid:2", CLIENT_ROLE_CLIENT);
	struct fake *fake = c->rig->fake;
	Nicd__CreateExport args = NICD__CREATE_EXPORT__INIT;
	const Nicd__Reply *reply;
	uint32_t lists[3];
	uint64_t door;

	args.mr = rig_id(c, rig_region(c, NIC_REMOTE_READ));
	args.name = (char *)"x";
	args.flags = NIC_REMOTE_READ;
	args.uses = args.peers = 2;
	reply = rig_call(c, NICD__REQUEST__CALL_CREATE_EXPORT, &args);
	assert_done(reply);
	door = reply->door->serial;
	fake_stream_open(fake, door, "127.0.0.9:1");
	fake_stream_open(fake, door, "127.0.0.9:2");
	fake_stream_open(fake, ticket(other, rig_region(other, NIC_REMOTE_READ))->serial, "127.0.0.9:3");
	fake_hold(fake, FAKE_QUERY, true);
	assert_null(list(c, NIC_QP, 0, 1));
	lists[0] = c->last_id;
	/* mutation: ask for more than the page shows, or for those of others */
	assert_int_equal(fake_pending(fake, FAKE_QUERY), 1);
	assert_null(list(c, NIC_GRANT, 0, 0));
	lists[1] = c->last_id;
	assert_int_equal(fake_pending(fake, FAKE_QUERY), 3);
	assert_null(who(c, door));
	lists[2] = c->last_id;
	assert_int_equal(fake_pending(fake, FAKE_QUERY), 5);
	/* What has no counters does not wait. */
	assert_done(list(c, NIC_MR, 0, 0));
	/* In any order, and a refusal is no reason to refuse. */
	fake_complete_newest(fake, FAKE_QUERY);
	assert_null(rig_reply(c, lists[2]));
	fake_complete_with(fake, FAKE_QUERY, NICD_R_DEVICE_FAILED);
	reply = rig_reply(c, lists[0]);
	assert_done(reply);
	assert_int_equal(reply->list->n_items, 1);
	assert_int_not_equal(reply->list->cursor, 0);
	fake_complete_all(fake);
	for (unsigned i = 1; i < 3; i++) {
		reply = rig_reply(c, lists[i]);
		assert_done(reply);
		assert_int_equal(reply->list->n_items, 2);
		for (unsigned j = 0; j < 2; j++) {
			/* mutation: answer before the device has */
			assert_int_equal(reply->list->items[j]->bytes_read, 1);
			assert_int_equal(reply->list->items[j]->peer_written, 4);
		}
	}
	assert_int_equal(c->client->owner.account->used[NIC_SLOT_BUFFERED], 0);
}

/* What was to be on the page goes meanwhile; or what Who asked for; or who asks. */
static void test_gone_while_asking(void **state)
{
	struct rig_client *c = client(state);
	struct fake *fake = c->rig->fake;
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);
	const Nicd__DoorInfo *door = export(c, mr, "x");
	uint64_t door_id = door->id, serial = door->serial;
	uint32_t list_id, who_id;

	fake_stream_open(fake, serial, "127.0.0.9:1");
	fake_hold(fake, FAKE_QUERY, true);
	assert_null(list(c, NIC_GRANT, 0, 0));
	list_id = c->last_id;
	assert_null(who(c, serial));
	who_id = c->last_id;
	rig_close(c, door_id);
	fake_complete_all(fake);
	assert_done(rig_reply(c, list_id));
	assert_int_equal(rig_reply(c, list_id)->list->n_items, 0);
	/* mutation: keep the pointer that Who found */
	assert_reason(rig_reply(c, who_id), SERIAL);
	fake_stream_open(fake, ticket(c, mr)->serial, "127.0.0.9:1");
	assert_null(list(c, NIC_QP, 0, 0));
	rig_end(c);
	fake_complete_all(fake);
	rig_end(c);
	assert_null(c->client);
}

/* The device goes away at the first question: the Qps of the others are gone when their turn comes. */
static void lose_at_query(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd)
{
	fake_lose((struct fake *)p, true);
	nicd_refuse(&cmd->error, NICD_R_DEVICE_LOST);
	cmd->done(cmd);
}

static void test_lost_while_asking(void **state)
{
	struct rig_client *c = client(state);
	struct fake *fake = c->rig->fake;
	struct nic_provider_ops ops = *fake->provider.ops;
	const struct nic_provider_ops *before = fake->provider.ops;
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);

	for (unsigned i = 0; i < 3; i++)
		fake_stream_open(fake, ticket(c, mr)->serial, "127.0.0.9:1");
	ops.qp_query = lose_at_query;
	fake->provider.ops = &ops;
	/* mutation: wait for the answer of one that was not asked */
	assert_done(list(c, NIC_QP, 0, 0));
	assert_int_equal(rig_reply(c, c->last_id)->list->n_items, 0);
	fake->provider.ops = before;
}

static void test_many_connections(void **state)
{
	struct rig_client *c = client(state);
	struct rig *rig = c->rig;
	uint64_t cursor = 0, pass;
	unsigned n = 0;
	Nicd__CreateTicket args = NICD__CREATE_TICKET__INIT;

	args.mr = rig_id(c, rig_region(c, NIC_REMOTE_READ));
	args.uses = args.peers = 200;
	assert_done(rig_call(c, NICD__REQUEST__CALL_CREATE_TICKET, &args));
	pass = rig_reply(c, c->last_id)->door->serial;
	for (unsigned i = 0; i < 150; i++)
		fake_stream_open(rig->fake, pass, "127.0.0.9:1");
	do {
		const Nicd__Reply *reply = list(c, NIC_QP, cursor, 100);

		assert_done(reply);
		for (size_t i = 0; i < reply->list->n_items; i++)
			assert_int_equal(reply->list->items[i]->bytes_read, 1);
		n += (unsigned)reply->list->n_items;
		cursor = reply->list->cursor;
	} while (cursor);
	assert_int_equal(n, 150);
	/* mutation: don't charge what the asking takes */
	c->client->owner.account->limits.max[NIC_SLOT_BUFFERED] = 1000;
	assert_reason(list(c, NIC_QP, 0, 0), QUOTA);
	assert_done(list(c, NIC_QP, 0, 1));
}

/* ---- Revoke */

static void test_revoke_mr(void **state)
{
	struct rig_client *c = client(state), *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ), serial = rig_serial_of(c, mr), door = export(c, mr, "x")->serial;
	Nicd__GetLocalToken local = NICD__GET_LOCAL_TOKEN__INIT;
	const Nicd__Reply *reply = revoke(admin, serial);
	const Nicd__Event *event;

	assert_done(reply);
	assert_int_equal(reply->receipt->serial, serial);
	assert_int_equal(reply->receipt->n_exports, 1);
	assert_int_equal(reply->receipt->exports[0], door);
	assert_string_equal(c->rig->last_method, "Revoke");
	assert_int_equal(c->rig->last_log.observed, serial);
	event = rig_event(c, NICD__EVENT__KIND__REVOKED);
	assert_non_null(event);
	local.mr = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_GET_LOCAL_TOKEN, &local), MR_STATE);
	assert_reason(revoke(admin, serial), MR_STATE);
}

static void test_revoke_door_and_qp(void **state)
{
	struct rig_client *c = client(state), *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ), door = export(c, mr, "x")->serial, pass = ticket(c, mr)->serial, qp;
	const Nicd__Reply *reply;

	fake_stream_open(c->rig->fake, door, "127.0.0.9:1");
	fake_stream_open(c->rig->fake, pass, "127.0.0.9:2");
	qp = listed(c, NIC_QP)->items[1]->serial;
	assert_done(revoke(admin, qp));
	assert_int_equal(listed(c, NIC_QP)->n_items, 1);
	reply = revoke(admin, door);
	assert_done(reply);
	assert_int_equal(reply->receipt->grants, 1);
	assert_int_equal(listed(c, NIC_QP)->n_items, 0);
	assert_string_equal(listed(c, NIC_EXPORT)->items[0]->state, "DEAD");
	assert_reason(revoke(admin, door), DEAD);
	assert_done(revoke(admin, pass));
	assert_reason(revoke(admin, rig_serial_of(c, mr) - 1), HANDLE_TYPE);
}

/* A session: answered when nothing of it is left. */
static void test_revoke_session(void **state)
{
	struct rig_client *c = client(state), *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	uint64_t serial = c->client->serial, mr, door;
	const Nicd__Reply *reply;

	mr = rig_region(c, NIC_REMOTE_READ);
	door = export(c, mr, "x")->serial;
	assert_done(revoke(c, export(c, mr, "dead")->serial));
	fake_stream_open(c->rig->fake, door, "127.0.0.9:1");
	fake_stream_open(c->rig->fake, ticket(c, mr)->serial, "127.0.0.9:2");
	fake_hold(c->rig->fake, FAKE_TAG_DROP, true);
	assert_null(revoke(admin, serial));
	assert_true(c->kicked);
	rig_kicked(c->rig);
	/* mutation: answer when the session was told to end */
	assert_null(rig_reply(admin, admin->last_id));
	fake_complete_all(c->rig->fake);
	rig_kicked(c->rig);
	assert_null(c->client);
	reply = rig_reply(admin, admin->last_id);
	assert_done(reply);
	assert_int_equal(reply->receipt->serial, serial);
	/* mutation: answer a receipt without figures, or count what was dead already */
	assert_int_equal(reply->receipt->n_exports, 1);
	assert_int_equal(reply->receipt->exports[0], door);
	assert_int_equal(reply->receipt->grants, 1);
	assert_int_equal(reply->receipt->streams_cut, 2);
	rig_advance(c->rig, UINT64_C(10000000000));
	assert_ptr_equal(rig_reply(admin, admin->last_id), reply);
}

static void test_revoke_session_late(void **state)
{
	struct rig_client *c = client(state), *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);

	rig_region(c, NIC_REMOTE_READ);
	fake_hold(c->rig->fake, FAKE_TAG_DROP, true);
	assert_null(revoke(admin, c->client->serial));
	rig_kicked(c->rig);
	rig_advance(c->rig, UINT64_C(5000000000));
	assert_reason(rig_reply(admin, admin->last_id), REVOKE_UNCONFIRMED);
	fake_complete_all(c->rig->fake);
	rig_kicked(c->rig);
	assert_null(c->client);
}

/* The one who waits for it ends first; or revokes itself. */
static void test_revoke_session_and_end(void **state)
{
	struct rig_client *c = client(state), *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);

	assert_null(revoke(admin, c->client->serial));
	rig_end(admin);
	assert_null(admin->client);
	/* mutation: leave the call among the watchers */
	rig_kicked(c->rig);
	assert_null(c->client);
	c = client(state);
	assert_null(revoke(c, c->client->serial));
	rig_kicked(c->rig);
	assert_null(c->client);
	rig_advance(c->rig, UINT64_C(10000000000));
}

/* ---- Ledger */

static uint64_t used(const Nicd__LedgerReply *reply, const char *account, const char *slot)
{
	for (size_t i = 0; i < reply->n_accounts; i++) {
		if (strcmp(reply->accounts[i]->account, account))
			continue;
		for (size_t j = 0; j < reply->accounts[i]->n_charges; j++) {
			if (!strcmp(reply->accounts[i]->charges[j]->slot, slot))
				return reply->accounts[i]->charges[j]->used;
		}
	}
	fail();
	return 0;
}

static void check_zero(const Nicd__LedgerReply *reply)
{
	assert_int_equal(reply->sessions, 0);
	assert_int_equal(reply->held_fds, 0);
	assert_int_equal(reply->objects, 0);
	/* mutation: count the Ledger itself */
	assert_int_equal(reply->calls, 0);
	assert_int_equal(reply->provider_tags, 0);
	assert_int_equal(reply->provider_memories, 0);
	assert_int_equal(reply->provider_streams, 0);
	assert_int_equal(reply->provider_tickets, 0);
	assert_int_equal(reply->quarantined, 0);
	/* mutation: charge the sessions of the admin socket */
	for (size_t i = 0; i < reply->n_accounts; i++) {
		for (size_t j = 0; j < reply->accounts[i]->n_charges; j++)
			assert_int_equal(reply->accounts[i]->charges[j]->used, 0);
	}
}

static void test_ledger(void **state)
{
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN), *c;
	const Nicd__LedgerReply *reply = ledger(admin, 0);

	check_zero(reply);
	assert_int_equal(reply->admin_sessions, 1);
	assert_true(reply->open_fds >= admin->rig->n_fds);
	c = client(state);
	ticket(c, rig_region(c, NIC_REMOTE_READ));
	reply = ledger(admin, 0);
	assert_int_equal(reply->sessions, 1);
	assert_int_equal(reply->held_fds, 1);
	assert_int_equal(reply->objects, 4);
	assert_int_equal(reply->provider_tags, 1);
	assert_int_equal(reply->provider_memories, 1);
	assert_int_equal(reply->provider_tickets, 1);
	assert_int_equal(used(reply, "uid:1000", "sessions"), 1);
	assert_int_equal(used(reply, "uid:1000", "pinned_bytes"), 65536);
	assert_int_equal(used(reply, "uid:1000", "mrs"), 1);
	rig_end(c);
	check_zero(ledger(admin, 0));
}

/* The device answers later; it is not in the way of others, and may be gone. */
static void test_ledger_asynchronous(void **state)
{
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	Nicd__Ledger args = NICD__LEDGER__INIT;
	uint32_t first;

	fake_hold(admin->rig->fake, FAKE_STATS, true);
	assert_null(rig_call(admin, NICD__REQUEST__CALL_LEDGER, &args));
	first = admin->last_id;
	assert_done(list(admin, NIC_PD, 0, 0));
	fake_complete_all(admin->rig->fake);
	assert_done(rig_reply(admin, first));
	assert_null(rig_call(admin, NICD__REQUEST__CALL_LEDGER, &args));
	fake_lose(admin->rig->fake, true);
	assert_done(rig_reply(admin, admin->last_id));
	/* mutation: ask a device that is down */
	assert_done(rig_call(admin, NICD__REQUEST__CALL_LEDGER, &args));
}

/* The session ends while the device is asked. */
static void test_ledger_and_end(void **state)
{
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	Nicd__Ledger args = NICD__LEDGER__INIT;
	unsigned wakes;

	fake_hold(admin->rig->fake, FAKE_STATS, true);
	assert_null(rig_call(admin, NICD__REQUEST__CALL_LEDGER, &args));
	rig_end(admin);
	/* mutation: free the session under the device's command */
	assert_non_null(admin->client);
	wakes = admin->wakes;
	fake_complete_all(admin->rig->fake);
	/* mutation: tell nobody that it is gone now */
	assert_int_equal(admin->wakes, wakes + 1);
	rig_end(admin);
	assert_null(admin->client);
}

/* A client sees its own account, and nothing of the whole. */
static void test_ledger_own(void **state)
{
	struct rig_client *a = client(state), *b = rig_hello(*state, "uid:2", CLIENT_ROLE_CLIENT);
	const Nicd__LedgerReply *reply;

	rig_region(a, NIC_REMOTE_READ);
	reply = ledger(b, 0);
	/* mutation: all accounts for everybody */
	assert_int_equal(reply->n_accounts, 1);
	assert_string_equal(reply->accounts[0]->account, "uid:2");
	assert_int_equal(reply->sessions, 1);
	assert_int_equal(reply->objects, 0);
	assert_int_equal(reply->calls, 0);
	assert_int_equal(reply->provider_tags, 0);
	assert_int_equal(reply->open_fds, 0);
	assert_int_equal(b->rig->fake->calls[FAKE_STATS], 0);
	reply = ledger(a, 0);
	assert_int_equal(reply->objects, 3);
	assert_int_equal(reply->held_fds, 1);
}

static void test_ledger_pages(void **state)
{
	struct rig_client *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	uint64_t cursor = 0;
	unsigned n = 0, pages = 0;

	for (unsigned i = 0; i < 150; i++) {
		char account[200];

		/* Some as long as they can be. */
		snprintf(account, sizeof(account), "%0*u", i % 2 ? 10 : 190, i);
		rig_hello(*state, account, CLIENT_ROLE_CLIENT);
	}
	do {
		const Nicd__LedgerReply *reply = ledger(admin, cursor);

		/* mutation: cursor one off */
		n += (unsigned)reply->n_accounts;
		cursor = reply->cursor;
		pages++;
	} while (cursor);
	assert_int_equal(n, 151);
	assert_int_equal(pages, 3);
}

/* mutation: let the cursor count places: then who comes after one that went is left out */
static void test_ledger_pages_while_they_go(void **state)
{
	struct rig_client *clients[100], *admin = rig_hello(*state, "uid:0", CLIENT_ROLE_ADMIN);
	const Nicd__LedgerReply *reply;
	unsigned n;

	for (unsigned i = 0; i < 100; i++) {
		char account[16];

		snprintf(account, sizeof(account), "uid:%u", 1000 + i);
		clients[i] = rig_hello(*state, account, CLIENT_ROLE_CLIENT);
	}
	reply = ledger(admin, 0);
	n = (unsigned)reply->n_accounts;
	for (unsigned i = 0; i < 20; i++)
		rig_end(clients[i]);
	reply = ledger(admin, reply->cursor);
	assert_int_equal(reply->cursor, 0);
	assert_int_equal(n + reply->n_accounts, 101);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_every_type),
		rig_test(test_paging),
		rig_test(test_paging_sessions),
		rig_test(test_page_fits_frame),
		rig_test(test_many_of_others),
		rig_test(test_frame_shares_steps),
		rig_test(test_frame_shares_steps_sessions),
		rig_test(test_accounts_apart),
		rig_test(test_who),
		rig_test(test_counters_are_asked_for),
		rig_test(test_gone_while_asking),
		rig_test(test_lost_while_asking),
		rig_test(test_many_connections),
		rig_test(test_revoke_mr),
		rig_test(test_revoke_door_and_qp),
		rig_test(test_revoke_session),
		rig_test(test_revoke_session_late),
		rig_test(test_revoke_session_and_end),
		rig_test(test_ledger),
		rig_test(test_ledger_asynchronous),
		rig_test(test_ledger_and_end),
		rig_test(test_ledger_own),
		rig_test(test_ledger_pages),
		rig_test(test_ledger_pages_while_they_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
