/* SPDX-License-Identifier: MIT */
/* The beginning of a session, its roles, and the adapters. */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <string.h>

#include "daemon/dispatch.h"
#include "nicd/adapter.h"
#include "proto/locator.h"

static const Nicd__Reply *hello(struct rig_client *c, uint32_t major, uint32_t minor, const char *label)
{
	Nicd__Hello args = NICD__HELLO__INIT;

	args.major = major;
	args.min_minor = minor;
	args.client = (char *)label;
	return rig_call(c, NICD__REQUEST__CALL_HELLO, &args);
}

static void test_reply(void **state)
{
	struct rig *rig = *state;
	struct rig_client *c = rig_connect(rig, "uid:1000", CLIENT_ROLE_CLIENT);
	const Nicd__Reply *reply = hello(c, 1, 0, "a test");
	const Nicd__AdapterInfo *adapter;
	uint8_t secret[NICD_RESUME_SECRET_SIZE];

	assert_done(reply);
	assert_int_equal(reply->hello->major, NICD_MAJOR);
	assert_int_equal(reply->hello->minor, NICD_MINOR);
	assert_string_equal(reply->hello->daemon, "nicd " NICD_VERSION);
	assert_int_equal(reply->hello->role, NICD__ROLE__CLIENT);
	assert_int_equal(reply->hello->boot_id.len, 16);
	assert_memory_equal(reply->hello->boot_id.data, "0123456789abcde", 16);
	assert_int_equal(reply->hello->session, c->client->serial);
	assert_string_equal(reply->hello->account, "uid:1000");
	assert_string_equal(c->client->label, "a test");
	assert_int_equal(c->client->state, CLIENT_READY);
	assert_int_equal(reply->hello->n_adapters, 1);
	adapter = reply->hello->adapters[0];
	assert_string_equal(adapter->name, "fake0");
	assert_string_equal(adapter->provider, "fake");
	assert_string_equal(adapter->data_address, "127.0.0.1:7190");
	assert_int_equal(adapter->incarnation, 4711);
	assert_int_equal(adapter->max_ranges, NICD_RANGES);
	assert_int_equal(adapter->max_mr, rig->policy.limits.max[NIC_SLOT_MRS]);
	assert_int_equal(adapter->max_pinned_bytes, rig->policy.limits.max[NIC_SLOT_PINNED]);
	assert_true(adapter->up);
	/* A secret of its own for each session. */
	assert_int_equal(reply->hello->resume_secret.len, sizeof(secret));
	memcpy(secret, reply->hello->resume_secret.data, sizeof(secret));
	c = rig_connect(rig, "uid:1000", CLIENT_ROLE_CLIENT);
	reply = hello(c, 1, 0, "");
	/* mutation: no randomness in the resume secret */
	assert_memory_not_equal(reply->hello->resume_secret.data, secret, sizeof(secret));
}

static void test_two_adapters(void **state)
{
	struct rig *rig = *state;
	struct fake *second = fake_new();
	struct nic_adapter *adapter;
	struct rig_client *c;
	const Nicd__Reply *reply;
	Nicd__QueryAdapter query = NICD__QUERY_ADAPTER__INIT;
	Nicd__CreatePd pd = NICD__CREATE_PD__INIT;

	strcpy(second->provider.name, "fake1");
	assert_int_equal(nic_adapter_new(&adapter, &rig->nic, &second->provider), 0);
	c = rig_connect(rig, "uid:1000", CLIENT_ROLE_CLIENT);
	reply = hello(c, 1, 0, "");
	assert_int_equal(reply->hello->n_adapters, 2);
	for (unsigned i = 0; i < 2; i++) {
		const Nicd__AdapterInfo *info = reply->hello->adapters[i];

		query.adapter = rig_id(c, info->id);
		assert_done(rig_call(c, NICD__REQUEST__CALL_QUERY_ADAPTER, &query));
		assert_string_equal(rig_reply(c, c->last_id)->adapter->name, info->name);
		assert_string_equal(info->data_address, strcmp(info->name, "fake1") ? "127.0.0.1:7190" : "");
		pd.adapter = rig_id(c, info->id);
		assert_done(rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &pd));
	}
	/* Without an adapter: the first of Hello. */
	pd.adapter = NULL;
	assert_done(rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &pd));
	fake_lose(second, true);
	fake_lose(rig->fake, true);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &pd), NO_ADAPTER);
	query.adapter = rig_id(c, reply->hello->adapters[0]->id);
	assert_done(rig_call(c, NICD__REQUEST__CALL_QUERY_ADAPTER, &query));
	assert_false(rig_reply(c, c->last_id)->adapter->up);
	query.adapter = NULL;
	assert_reason(rig_call(c, NICD__REQUEST__CALL_QUERY_ADAPTER, &query), HANDLE);
}

static void test_version(void **state)
{
	/* mutation: compare with <= or only the major */
	static const uint32_t wrong[][2] = { { 0, 0 }, { 2, 0 }, { 1, 1 }, { 1, UINT32_MAX }, { UINT32_MAX, UINT32_MAX } };
	struct rig_client *c = rig_connect(*state, "uid:1000", CLIENT_ROLE_CLIENT);

	for (unsigned i = 0; i < 5; i++) {
		assert_reason(hello(c, wrong[i][0], wrong[i][1], ""), VERSION);
		assert_int_equal(rig_reply(c, c->last_id)->error->status, NICD__STATUS__BAD_VERSION);
		assert_int_equal(rig_reply(c, c->last_id)->error->limit, 1000);
		assert_int_equal(rig_reply(c, c->last_id)->error->observed, wrong[i][0] * UINT64_C(1000) + wrong[i][1]);
		assert_int_equal(c->client->state, CLIENT_NEW);
	}
	/* It may be tried again. */
	assert_done(hello(c, 1, 0, ""));
	assert_reason(hello(c, 1, 0, ""), HELLO_AGAIN);
	assert_done(rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &(Nicd__CreatePd)NICD__CREATE_PD__INIT));
}

static void test_label(void **state)
{
	struct rig_client *c = rig_connect(*state, "uid:1000", CLIENT_ROLE_CLIENT);
	char label[258];

	memset(label, 'x', sizeof(label));
	label[256] = 0;
	/* mutation: no check, and the label is overrun */
	assert_reason(hello(c, 1, 0, label), STRING);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, NICD_STRING);
	assert_reason(hello(c, 1, 0, "\xff\xfe"), STRING);
	label[255] = 0;
	assert_done(hello(c, 1, 0, label));
	assert_string_equal(c->client->label, label);
}

/* Everything else waits for Hello; what stands behind it in the same frame need not. */
static void test_hello_first(void **state)
{
	struct rig_client *c = rig_connect(*state, "uid:1000", CLIENT_ROLE_CLIENT);
	const ProtobufCMessageDescriptor *d = &nicd__request__descriptor;
	static union {
		ProtobufCMessage message;
		char room[256];
	} args[64];
	Nicd__Hello args_hello = NICD__HELLO__INIT;

	for (unsigned i = 0; i < d->n_fields; i++) {
		if (!(d->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) || d->fields[i].id == NICD__REQUEST__CALL_HELLO)
			continue;
		protobuf_c_message_init(d->fields[i].descriptor, &args[i]);
		rig_add(c, i + 1, (Nicd__Request__CallCase)d->fields[i].id, &args[i]);
	}
	assert_true(rig_send(c, NULL, 0));
	for (unsigned i = 0; i < d->n_fields; i++) {
		const Nicd__Reply *reply = rig_reply(c, i + 1);

		/* mutation: a row with the state NEW too */
		if (reply)
			assert_reason(reply, HELLO_FIRST);
	}
	assert_int_equal(rig_n_replies(c), 34);
	rig_forget(c);
	args_hello.major = 1;
	rig_add(c, 1, NICD__REQUEST__CALL_HELLO, &args_hello);
	rig_add(c, 2, NICD__REQUEST__CALL_CREATE_PD, &(Nicd__CreatePd)NICD__CREATE_PD__INIT);
	assert_true(rig_send(c, NULL, 0));
	assert_done(rig_reply(c, 1));
	assert_done(rig_reply(c, 2));
}

/* The gateway, which strangers talk to, owns nothing. */
static void test_gateway(void **state)
{
	static const Nicd__Request__CallCase owners[] = {
		NICD__REQUEST__CALL_CREATE_PD, NICD__REQUEST__CALL_CREATE_MR, NICD__REQUEST__CALL_REGISTER_MR,
		NICD__REQUEST__CALL_DEREGISTER_MR, NICD__REQUEST__CALL_GET_LOCAL_TOKEN, NICD__REQUEST__CALL_GET_REMOTE_TOKEN,
		NICD__REQUEST__CALL_QUERY_TOKENS, NICD__REQUEST__CALL_CONNECT_QP, NICD__REQUEST__CALL_READ,
		NICD__REQUEST__CALL_WRITE, NICD__REQUEST__CALL_TRANSFER_LIST, NICD__REQUEST__CALL_FLUSH,
		NICD__REQUEST__CALL_DISCONNECT, NICD__REQUEST__CALL_QUERY_QP, NICD__REQUEST__CALL_CREATE_TICKET,
		NICD__REQUEST__CALL_CREATE_EXPORT, NICD__REQUEST__CALL_REVOKE, NICD__REQUEST__CALL_LEDGER,
		NICD__REQUEST__CALL_GET_PRIVILEGED_TOKEN,
	};
	struct rig_client *c = rig_hello(*state, "uid:55", CLIENT_ROLE_GATEWAY);
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;
	Nicd__List list = NICD__LIST__INIT;

	for (unsigned i = 0; i < sizeof(owners) / sizeof(*owners); i++) {
		static union {
			ProtobufCMessage message;
			char room[256];
		} args;
		const ProtobufCFieldDescriptor *field =
			protobuf_c_message_descriptor_get_field(&nicd__request__descriptor, owners[i]);

		protobuf_c_message_init(field->descriptor, &args);
		/* mutation: ALL instead of OWNERS in one of the rows */
		assert_reason(rig_call(c, owners[i], &args), NOT_PERMITTED);
		assert_string_equal(c->rig->last_method, method_find(owners[i])->name);
	}
	assert_reason(rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &add, rig_memfd(4096, F_SEAL_SHRINK)), NOT_PERMITTED);
	list.type = NICD__TYPE__SESSION;
	assert_done(rig_call(c, NICD__REQUEST__CALL_LIST, &list));
}

/* Sessions are charged, those of the admin socket are not. */
static void test_sessions_are_charged(void **state)
{
	struct rig *rig = *state;
	struct client_identity identity = { .account = "uid:7" };
	struct rig_client *c = rig_connect(rig, "uid:7", CLIENT_ROLE_CLIENT), *admin;
	struct nicd_error err = { 0 };
	struct client *client;

	assert_int_equal(c->client->owner.account->used[NIC_SLOT_SESSIONS], 1);
	assert_int_equal(rig->host.n_clients, 1);
	c->client->owner.account->limits.max[NIC_SLOT_SESSIONS] = 1;
	/* mutation: take the session before its charge */
	assert_true(client_new(&client, &rig->host, &identity, NULL, &err) < 0);
	assert_int_equal(err.reason, NICD_R_QUOTA);
	assert_int_equal(rig->host.n_clients, 1);
	admin = rig_connect(rig, "uid:7", CLIENT_ROLE_ADMIN);
	assert_int_equal(rig->host.n_clients, 1);
	assert_int_equal(rig->host.n_admins, 1);
	assert_int_equal(c->client->owner.account->used[NIC_SLOT_SESSIONS], 1);
	rig_end(admin);
	rig_end(c);
	assert_null(c->client);
	assert_int_equal(rig->host.n_clients + rig->host.n_admins, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_reply),
		rig_test(test_two_adapters),
		rig_test(test_version),
		rig_test(test_label),
		rig_test(test_hello_first),
		rig_test(test_gateway),
		rig_test(test_sessions_are_charged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
