/* SPDX-License-Identifier: MIT */
/* PDs, MRs and tokens through the protocol: each method good, and each way to get it wrong. */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

static const Nicd__Reply *deregister(struct rig_client *c, uint64_t mr)
{
	Nicd__DeregisterMr args = NICD__DEREGISTER_MR__INIT;

	args.mr = rig_id(c, mr);
	return rig_call(c, NICD__REQUEST__CALL_DEREGISTER_MR, &args);
}

static const Nicd__Reply *local_token(struct rig_client *c, uint64_t mr)
{
	Nicd__GetLocalToken args = NICD__GET_LOCAL_TOKEN__INIT;

	args.mr = rig_id(c, mr);
	return rig_call(c, NICD__REQUEST__CALL_GET_LOCAL_TOKEN, &args);
}

static const Nicd__Reply *remote_token(struct rig_client *c, uint64_t mr)
{
	Nicd__GetRemoteToken args = NICD__GET_REMOTE_TOKEN__INIT;

	args.mr = rig_id(c, mr);
	return rig_call(c, NICD__REQUEST__CALL_GET_REMOTE_TOKEN, &args);
}

static void test_story(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_mr(c, rig_pd(c)), memory = rig_memory(c, 65536);
	const Nicd__Reply *reply;

	reply = rig_register(c, mr, memory, 65536, NIC_REMOTE_READ | NIC_REMOTE_WRITE);
	assert_done(reply);
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT_MR);
	assert_int_equal(reply->mr->id, mr);
	assert_int_equal(reply->mr->serial, rig_serial_of(c, mr));
	assert_int_equal(reply->mr->length, 65536);
	assert_int_equal(reply->mr->iova, 0x10000);
	assert_int_equal(reply->mr->generation, 1);
	assert_int_equal(reply->mr->flags, 0x7);
	assert_int_not_equal(reply->mr->local_token, 0);
	/* mutation: answer_mr with both tokens the same */
	assert_int_equal(reply->mr->remote_token, fake_tag_token(c->rig->fake, reply->mr->serial));
	assert_int_not_equal(reply->mr->local_token, reply->mr->remote_token);

	assert_done(local_token(c, mr));
	assert_int_equal(rig_reply(c, c->last_id)->token, reply->mr->local_token);
	assert_done(remote_token(c, mr));
	assert_int_equal(rig_reply(c, c->last_id)->token, reply->mr->remote_token);

	reply = deregister(c, mr);
	assert_done(reply);
	assert_int_equal(reply->receipt->serial, rig_serial_of(c, mr));
	assert_int_equal(reply->receipt->at_ns, c->rig->env.wall);
	assert_reason(local_token(c, mr), MR_STATE);
	assert_reason(remote_token(c, mr), MR_STATE);
	assert_reason(deregister(c, mr), MR_STATE);

	/* Again: another generation. */
	reply = rig_register(c, mr, memory, 4096, NIC_LOCAL_WRITE);
	assert_done(reply);
	assert_int_equal(reply->mr->generation, 2);
	assert_reason(rig_register(c, mr, memory, 4096, 0), MR_STATE);
	assert_done(rig_close(c, mr));
	assert_reason(rig_close(c, mr), HANDLE);
	assert_done(rig_close(c, memory));
}

/* No remote rights: the device drew a token all the same, and nobody is told. */
static void test_no_remote_rights(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_LOCAL_WRITE);

	/* mutation: pass the device's token through */
	assert_int_equal(rig_reply(c, c->last_id)->mr->remote_token, 0);
	assert_reason(remote_token(c, mr), NO_REMOTE_RIGHTS);
	assert_int_equal(rig_reply(c, c->last_id)->error->status, NICD__STATUS__ACCESS_DENIED);
	assert_done(local_token(c, mr));
}

/* The rights in the reply are the effective ones. */
static void test_effective_rights(void **state)
{
	struct rig_client *c = client(state);

	rig_region(c, NIC_READ_SINK);
	assert_int_equal(rig_reply(c, c->last_id)->mr->flags, NIC_READ_SINK | NIC_LOCAL_WRITE);
	assert_int_equal(rig_reply(c, c->last_id)->mr->remote_token, 0);
}

static void test_create_refused(void **state)
{
	struct rig_client *c = client(state);
	Nicd__CreatePd pd = NICD__CREATE_PD__INIT;
	Nicd__CreateMr mr = NICD__CREATE_MR__INIT;
	uint64_t id = rig_pd(c);

	pd.adapter = rig_id(c, UINT64_C(1) << 56 | 9999);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &pd), HANDLE);
	pd.adapter = rig_id(c, id);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_PD, &pd), HANDLE_TYPE);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, NIC_ADAPTER);
	assert_int_equal(rig_reply(c, c->last_id)->error->observed, NIC_PD);
	/* mutation: REF_OPTIONAL for the pd of CreateMr */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &mr), HANDLE);
	mr.pd = rig_id(c, 0);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &mr), HANDLE);
	mr.pd = rig_id(c, id + (UINT64_C(1) << 32));
	/* A generation that never was. */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &mr), HANDLE);
	mr.pd = rig_id(c, id);
	c->client->owner.account->limits.max[NIC_SLOT_MRS] = 0;
	mr.pd = rig_id(c, id);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &mr), QUOTA);
	/* mutation: charge nothing for the other kind */
	mr.pd = rig_id(c, id);
	mr.fast_register = true;
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &mr), QUOTA);
	assert_string_equal(c->rig->last_method, "CreateMr");
}

/* Another session's ids mean nothing here, even of the same account. */
static void test_foreign_ids(void **state)
{
	struct rig_client *a = client(state), *b = client(state);
	uint64_t mr = rig_region(a, NIC_REMOTE_READ);
	Nicd__QueryTokens query = NICD__QUERY_TOKENS__INIT;
	const Nicd__Reply *reply;

	/* mutation: look ids up in all owners */
	assert_reason(local_token(b, mr), HANDLE);
	assert_reason(rig_close(b, mr), HANDLE);
	query.n_mrs = 1;
	query.mrs = &mr;
	reply = rig_call(b, NICD__REQUEST__CALL_QUERY_TOKENS, &query);
	assert_done(reply);
	assert_int_equal(reply->tokens->local_tokens[0], 0);
	assert_done(local_token(a, mr));
}

static void test_register_refused(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 65536), mr = rig_mr(c, rig_pd(c));
	Nicd__RegisterMr args = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[NICD_RANGES + 1];

	for (unsigned i = 0; i <= NICD_RANGES; i++)
		ranges[i] = &range;
	args.ranges = ranges;
	args.iova = 0x10000;
	range.length = 4096;

	args.mr = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_REGISTER_MR, &args), COUNT);
	args.n_ranges = NICD_RANGES + 1;
	args.mr = rig_id(c, mr);
	range.memory = rig_id(c, memory);
	/* mutation: no limit of ranges before the memories are looked up */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_REGISTER_MR, &args), COUNT);
	args.n_ranges = 1;
	args.mr = rig_id(c, mr);
	range.memory = NULL;
	/* mutation: a range without memory and without a descriptor is let through */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_REGISTER_MR, &args), HANDLE);
	args.mr = rig_id(c, mr);
	range.memory = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_REGISTER_MR, &args), HANDLE_TYPE);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, NIC_MEMORY);
	assert_reason(rig_register(c, memory, memory, 4096, 0), HANDLE_TYPE);
	assert_reason(rig_register(c, mr, memory, 65537, 0), RANGE_BEYOND);
	assert_reason(rig_register(c, mr, memory, 0, 0), LENGTH_ZERO);
	assert_reason(rig_register(c, mr, memory, 4096, 0x4), FLAGS);
	assert_reason(rig_register(c, mr, memory, 4096, 0x10), FLAGS);
	assert_int_equal(c->rig->fake->calls[FAKE_TAG_ADD], 0);
	assert_int_equal(c->rig->host.n_calls, 0);
	assert_done(rig_register(c, mr, memory, 4096, 0));
}

/* What the device says later is the one final reply. */
static void test_asynchronous(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 65536), pd = rig_pd(c), mrs[3];
	uint32_t ids[3];

	fake_hold(c->rig->fake, FAKE_OPS, true);
	for (unsigned i = 0; i < 3; i++) {
		mrs[i] = rig_mr(c, pd);
		assert_null(rig_register(c, mrs[i], memory, 4096, 0));
		ids[i] = c->last_id;
	}
	assert_int_equal(c->rig->host.n_calls, 3);
	assert_reason(local_token(c, mrs[0]), MR_STATE);
	fake_complete(c->rig->fake, FAKE_ATTACH);
	assert_null(rig_reply(c, ids[0]));
	/* Out of order. */
	assert_true(fake_complete_newest(c->rig->fake, FAKE_TAG_ADD));
	assert_null(rig_reply(c, ids[0]));
	assert_null(rig_reply(c, ids[1]));
	assert_done(rig_reply(c, ids[2]));
	assert_true(fake_complete_with(c->rig->fake, FAKE_TAG_ADD, NICD_R_TAGS_EXHAUSTED));
	assert_reason(rig_reply(c, ids[0]), TAGS_EXHAUSTED);
	fake_complete_all(c->rig->fake);
	assert_done(rig_reply(c, ids[1]));
	assert_int_equal(c->rig->host.n_calls, 0);
	assert_done(local_token(c, mrs[2]));
	assert_reason(local_token(c, mrs[0]), MR_STATE);
}

/* The device does not confirm in time: REVOKE_PENDING, the charge stays, and the event follows. */
static void test_revoke_pending(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);
	const Nicd__Event *event;

	fake_hold(c->rig->fake, FAKE_TAG_DROP, true);
	assert_null(deregister(c, mr));
	rig_advance(c->rig, UINT64_C(6000000000));
	assert_reason(rig_reply(c, c->last_id), REVOKE_UNCONFIRMED);
	assert_int_equal(rig_reply(c, c->last_id)->error->status, NICD__STATUS__REVOKE_PENDING);
	assert_int_equal(c->rig->last_log.reason, NICD_R_REVOKE_UNCONFIRMED);
	assert_reason(local_token(c, mr), MR_STATE);
	assert_null(rig_event(c, NICD__EVENT__KIND__REVOKE_CONFIRMED));
	fake_complete_all(c->rig->fake);
	event = rig_event(c, NICD__EVENT__KIND__REVOKE_CONFIRMED);
	assert_non_null(event);
	assert_int_equal(event->object, mr);
	assert_int_equal(event->serial, rig_serial_of(c, mr));
	assert_done(rig_close(c, mr));
}

/* ---- a descriptor with the registration */

static const Nicd__Reply *register_fd(struct rig_client *c, uint64_t mr, int fd, uint64_t length, uint32_t flags)
{
	Nicd__RegisterMr args = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };

	range.length = length;
	args.mr = rig_id(c, mr);
	args.n_ranges = 1;
	args.ranges = ranges;
	args.iova = 0x10000;
	args.flags = flags;
	return rig_call_fd(c, NICD__REQUEST__CALL_REGISTER_MR, &args, fd);
}

static void test_register_with_fd(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_mr(c, rig_pd(c));

	assert_done(register_fd(c, mr, rig_memfd(8192, F_SEAL_SHRINK), 8192, NIC_REMOTE_READ));
	assert_int_equal(c->rig->nic.count[NIC_MEMORY], 1);
	assert_int_equal(c->rig->nic.held_fds, 1);
	assert_done(deregister(c, mr));
	/* mutation: keep the nameless Memory open after the registration */
	assert_int_equal(c->rig->nic.count[NIC_MEMORY], 0);
	assert_int_equal(c->rig->nic.held_fds, 0);
}

/* However it fails, the descriptor and the Memory are gone. */
static void test_register_with_fd_refused(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_mr(c, rig_pd(c));
	int pipefd[2];

	assert_int_equal(pipe(pipefd), 0);
	close(pipefd[1]);
	assert_reason(register_fd(c, mr, pipefd[0], 4096, 0), MEMORY_NOT_MEMFD);
	assert_reason(register_fd(c, mr, rig_memfd(4096, 0), 4096, 0), MEMORY_NOT_SEALED);
	assert_reason(register_fd(c, mr, rig_memfd(4096, F_SEAL_SHRINK), 8192, 0), RANGE_BEYOND);
	assert_reason(register_fd(c, mr, rig_memfd(4096, F_SEAL_SHRINK | F_SEAL_WRITE), 4096, NIC_LOCAL_WRITE), MEMORY_READ_ONLY);
	assert_reason(register_fd(c, mr + 1, rig_memfd(4096, F_SEAL_SHRINK), 4096, 0), HANDLE);
	fake_fail(c->rig->fake, FAKE_ATTACH, 0, 1, NICD_R_MEMORY_MAP);
	assert_reason(register_fd(c, mr, rig_memfd(4096, F_SEAL_SHRINK), 4096, 0), MEMORY_MAP);
	fake_fail(c->rig->fake, FAKE_TAG_ADD, 0, 1, NICD_R_TAGS_EXHAUSTED);
	assert_reason(register_fd(c, mr, rig_memfd(4096, F_SEAL_SHRINK), 4096, 0), TAGS_EXHAUSTED);
	c->client->owner.account->limits.max[NIC_SLOT_FDS] = 0;
	assert_reason(register_fd(c, mr, rig_memfd(4096, F_SEAL_SHRINK), 4096, 0), QUOTA);
	assert_int_equal(c->rig->nic.count[NIC_MEMORY], 0);
	assert_int_equal(c->rig->nic.held_fds, 0);
	assert_true(fake_holds_nothing(c->rig->fake));
}

/* ---- many tokens at once */

static void test_query_tokens(void **state)
{
	struct rig_client *c = client(state);
	uint64_t pd = rig_pd(c), memory = rig_memory(c, 4096), ids[6];
	Nicd__QueryTokens args = NICD__QUERY_TOKENS__INIT;
	const Nicd__Reply *reply;

	ids[0] = rig_mr(c, pd);
	assert_done(rig_register(c, ids[0], memory, 4096, NIC_REMOTE_READ));
	ids[1] = rig_mr(c, pd);   /* not registered */
	ids[2] = rig_mr(c, pd);
	assert_done(rig_register(c, ids[2], memory, 4096, 0));   /* no remote rights */
	ids[3] = pd;
	ids[4] = 0;
	/* A PD's place in the table under an MR's type. */
	ids[5] = (pd & (UINT64_MAX >> 8)) | (uint64_t)NIC_MR << 56;
	args.n_mrs = 6;
	args.mrs = ids;
	reply = rig_call(c, NICD__REQUEST__CALL_QUERY_TOKENS, &args);
	assert_done(reply);
	assert_int_equal(reply->tokens->n_local_tokens, 6);
	assert_int_equal(reply->tokens->n_remote_tokens, 6);
	for (unsigned i = 0; i < 6; i++) {
		/* mutation: skip ids without tokens instead of answering 0 */
		assert_int_equal(!!reply->tokens->local_tokens[i], i == 0 || i == 2);
		assert_int_equal(!!reply->tokens->remote_tokens[i], i == 0);
	}
	assert_int_equal(reply->tokens->remote_tokens[0], fake_tag_token(c->rig->fake, rig_serial_of(c, ids[0])));
}

static void test_query_tokens_count(void **state)
{
	static uint64_t ids[NICD_QUERY_IDS + 1];
	struct rig_client *c = client(state);
	Nicd__QueryTokens args = NICD__QUERY_TOKENS__INIT;

	args.mrs = ids;
	assert_reason(rig_call(c, NICD__REQUEST__CALL_QUERY_TOKENS, &args), COUNT);
	args.n_mrs = NICD_QUERY_IDS + 1;
	/* mutation: no limit, and the lists in the dispatch are overrun */
	assert_reason(rig_call(c, NICD__REQUEST__CALL_QUERY_TOKENS, &args), COUNT);
	assert_int_equal(rig_reply(c, c->last_id)->error->limit, NICD_QUERY_IDS);
	args.n_mrs = NICD_QUERY_IDS;
	assert_done(rig_call(c, NICD__REQUEST__CALL_QUERY_TOKENS, &args));
	assert_int_equal(rig_reply(c, c->last_id)->tokens->n_local_tokens, NICD_QUERY_IDS);
}

/* ---- calls to come */

static void test_to_come(void **state)
{
	struct rig_client *c = client(state);
	uint64_t mr = rig_region(c, 0);
	Nicd__InitializeFastRegister init = NICD__INITIALIZE_FAST_REGISTER__INIT;
	Nicd__FastRegister fast = NICD__FAST_REGISTER__INIT;
	Nicd__Invalidate invalidate = NICD__INVALIDATE__INIT;
	Nicd__GetPrivilegedToken privileged = NICD__GET_PRIVILEGED_TOKEN__INIT;
	Nicd__BuildMapping mapping = NICD__BUILD_MAPPING__INIT;
	Nicd__Resume resume = NICD__RESUME__INIT;

	/* mutation: method_to_come for the three of a normal MR */
	init.mr = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER, &init), MR_KIND);
	assert_int_equal(rig_reply(c, c->last_id)->error->status, NICD__STATUS__INVALID_PARAMETER);
	fast.mr = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_FAST_REGISTER, &fast), MR_KIND);
	invalidate.object = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_INVALIDATE, &invalidate), MR_KIND);
	init.mr = rig_id(c, mr + 1);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER, &init), HANDLE);
	init.mr = NULL;
	assert_reason(rig_call(c, NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER, &init), HANDLE);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_GET_PRIVILEGED_TOKEN, &privileged), HANDLE);
	privileged.pd = rig_id(c, mr);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_GET_PRIVILEGED_TOKEN, &privileged), HANDLE_TYPE);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_BUILD_MAPPING, &mapping), COUNT);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_RESUME, &resume), NOT_SUPPORTED);
}

/* ---- Close */

/* Closing never fails, and what others stand on ends last. */
static void test_close_order(void **state)
{
	struct rig_client *c = client(state);
	uint64_t pd = rig_pd(c), mr = rig_mr(c, pd), memory = rig_memory(c, 4096);
	uint32_t pd_close, memory_close, pending = c->rig->host.n_calls;
	Nicd__CreateMr args = NICD__CREATE_MR__INIT;

	assert_done(rig_register(c, mr, memory, 4096, NIC_REMOTE_READ));
	assert_null(rig_close(c, pd));
	pd_close = c->last_id;
	assert_null(rig_close(c, memory));
	memory_close = c->last_id;
	/* mutation: count a deferred close as in flight */
	assert_int_equal(c->rig->host.n_calls, pending);
	assert_int_equal(c->client->owner.account->used[NIC_SLOT_CALLS], 0);
	/* The ids are gone at once, the objects are not. */
	assert_reason(rig_close(c, pd), HANDLE);
	args.pd = rig_id(c, pd);
	assert_reason(rig_call(c, NICD__REQUEST__CALL_CREATE_MR, &args), HANDLE);
	assert_done(local_token(c, mr));
	/* The request ids are in flight all the same. */
	assert_non_null(c->client->calls.rbh_root);

	assert_done(rig_close(c, mr));
	assert_int_equal(rig_reply(c, c->last_id)->result_case, NICD__REPLY__RESULT_RECEIPT);
	assert_done(rig_reply(c, pd_close));
	assert_int_equal(rig_reply(c, pd_close)->result_case, NICD__REPLY__RESULT__NOT_SET);
	assert_done(rig_reply(c, memory_close));
	assert_null(c->client->calls.rbh_root);
}

static void test_close_receipt(void **state)
{
	struct rig_client *c = client(state);
	uint64_t remote = rig_region(c, NIC_REMOTE_READ), local = rig_region(c, NIC_LOCAL_WRITE);
	uint64_t serial = rig_serial_of(c, remote);
	Nicd__QueryAdapter query = NICD__QUERY_ADAPTER__INIT;
	const Nicd__Reply *reply;

	c->rig->fake->cut_by_tag = 3;
	reply = rig_close(c, remote);
	assert_done(reply);
	assert_int_equal(reply->receipt->serial, serial);
	assert_int_equal(reply->receipt->streams_cut, 3);
	/* Nobody but us could reach it. */
	reply = rig_close(c, local);
	assert_done(reply);
	assert_int_equal(reply->result_case, NICD__REPLY__RESULT__NOT_SET);

	query.adapter = rig_id(c, UINT64_C(1) << 56 | 1);
	reply = rig_call(c, NICD__REQUEST__CALL_QUERY_ADAPTER, &query);
	assert_done(reply);
	assert_reason(rig_close(c, reply->adapter->id), HANDLE_TYPE);
}

/* Close while registering: the registration is answered, then the close. */
static void test_close_while_registering(void **state)
{
	struct rig_client *c = client(state);
	uint64_t memory = rig_memory(c, 4096), mr = rig_mr(c, rig_pd(c));
	uint32_t registering;

	fake_hold(c->rig->fake, FAKE_TAG_ADD, true);
	assert_null(rig_register(c, mr, memory, 4096, NIC_REMOTE_READ));
	registering = c->last_id;
	assert_null(rig_close(c, mr));
	fake_complete_all(c->rig->fake);
	assert_reason(rig_reply(c, registering), REVOKED);
	assert_done(rig_reply(c, c->last_id));
	assert_int_equal(c->rig->nic.count[NIC_MR], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_story),
		rig_test(test_no_remote_rights),
		rig_test(test_effective_rights),
		rig_test(test_create_refused),
		rig_test(test_foreign_ids),
		rig_test(test_register_refused),
		rig_test(test_asynchronous),
		rig_test(test_revoke_pending),
		rig_test(test_register_with_fd),
		rig_test(test_register_with_fd_refused),
		rig_test(test_query_tokens),
		rig_test(test_query_tokens_count),
		rig_test(test_to_come),
		rig_test(test_close_order),
		rig_test(test_close_receipt),
		rig_test(test_close_while_registering),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
