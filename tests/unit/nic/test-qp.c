/* SPDX-License-Identifier: MIT */
/* Queue pairs, inbound and outbound, their work and grants. */
#include "tests/unit/nic/rig.h"

#include <string.h>

static void entry(uint8_t *at, uint8_t length, uint8_t flags)
{
	memset(at, 0, NICD_TRANSFER_ENTRY_SIZE);
	at[24] = length;
	at[28] = flags;
}

static int post_list(struct nic_qp *qp, enum nic_operation operation, const uint8_t *entries, size_t len, struct nic_work *work,
		     struct nic_done *done, struct nicd_error *err)
{
	return nic_qp_post(qp, &(struct nic_request){ .operation = operation, .entries = entries, .len = len }, work, done, err);
}

static int post(struct nic_qp *qp, struct nic_work *work, struct rig_done *done, struct nicd_error *err)
{
	uint8_t entries[2 * NICD_TRANSFER_ENTRY_SIZE];

	entry(entries, 100, 0);
	entry(entries + NICD_TRANSFER_ENTRY_SIZE, 28, 0);
	return post_list(qp, NIC_WRITE, entries, sizeof(entries), work, rig_done(done), err);
}

/* mutation: connect without a charge, or with another number, PD or ticket */
static void test_connect(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_qp *qp;

	fake_hold(rig->fake, FAKE_CONNECT, true);
	qp = rig_connect(rig, &done);
	assert_int_equal(qp->state, NIC_QP_CONNECTING);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 1);
	assert_int_equal(rig->fake->connect.qp, qp->object.serial);
	assert_int_equal(rig->fake->connect.pd, rig->pd->object.serial);
	assert_string_equal((const char *)rig->fake->connect.ticket, "0123456789abcde");
	assert_int_equal(rig->fake->connect.timeout_ms, 1000);
	fake_complete_all(rig->fake);
	assert_ended(done);
	assert_int_equal(qp->state, NIC_QP_CONNECTED);
	assert_int_equal(qp->gives.remote_token, 0x5151);
	assert_string_equal(qp->peer, "127.0.0.2:7190");
	assert_false(qp->inbound);
}

/* mutation: keep a Qp whose connecting failed */
static void test_connect_fails(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };

	fake_fail(rig->fake, FAKE_CONNECT, 0, 1, NICD_R_CONNECT);
	rig_connect(rig, &done);
	assert_refused(done, CONNECT);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 0);
	assert_true(RB_EMPTY(&rig->adapter->streams));
}

static void test_connect_refusals(void **state)
{
	struct rig *rig = *state;
	struct nic_connect_terms terms = { 0 };
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_qp *qp;

	rig->owner.account->limits.max[NIC_SLOT_QPS] = 0;
	assert_refusal(nic_qp_connect(&qp, rig->pd, &terms, rig_done(&done), &err), err, QUOTA, 0, 1);
	rig->owner.account->limits.max[NIC_SLOT_QPS] = 1;
	nic_pd_close(rig->pd, NULL);
	assert_refusal(nic_qp_connect(&qp, rig->pd, &terms, rig_done(&done), &err), err, HANDLE, 0, 0);
	fake_lose(rig->fake, false);
	rig->pd->closing = false;
	assert_refusal(nic_qp_connect(&qp, rig->pd, &terms, rig_done(&done), &err), err, NO_ADAPTER, 0, 0);
	rig->pd->closing = true;
	assert_int_equal(done.calls, 0);
	assert_int_equal(rig->fake->calls[FAKE_CONNECT], 0);
}

/* mutation: post on a Qp that is not connected, or check entries after counting the work */
static void test_post(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_work work;
	struct nicd_error err;
	struct nic_qp *qp;

	qp = rig_connect(rig, &done);
	assert_int_equal(post(qp, &work, &done, &err), 0);
	assert_ended(done);
	assert_int_equal(work.cmd.completion.bytes, 128);
	assert_int_equal(work.cmd.completion.entries, 2);
	assert_int_equal(rig->fake->post.operation, NIC_WRITE);
	assert_int_equal(rig->fake->post.qp, qp->stream);
	assert_int_equal(qp->posted, 0);
	assert_int_equal(nic_qp_disconnect(qp, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_refusal(post(qp, &work, &done, &err), err, QP_STATE, NIC_QP_CONNECTED, NIC_QP_DISCONNECTED);
	assert_int_equal(nic_qp_flush(qp, &work, rig_done(&done), &err), -ENOTCONN);
	assert_int_equal(nic_qp_disconnect(qp, rig_done(&done), &err), -ENOTCONN);
	assert_int_equal(done.calls, 0);
}

/* mutation: drop one of the checks of check_entries, or shift an offset of entry_u32 */
static void test_entries(void **state)
{
	static uint8_t entries[(NICD_TRANSFER_ENTRIES + 1) * NICD_TRANSFER_ENTRY_SIZE];
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_work work;
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	memset(entries, 0, sizeof(entries));
	assert_refusal(post_list(qp, NIC_READ, entries, 0, &work, &done.done, &err), err, TRANSFER_ENTRIES, 1024, 0);
	assert_refusal(post_list(qp, NIC_READ, entries, 33, &work, &done.done, &err), err, TRANSFER_ENTRIES, 1024, 1);
	assert_refusal(post_list(qp, NIC_READ, entries, sizeof(entries), &work, &done.done, &err), err, TRANSFER_ENTRIES, 1024, 1025);
	entries[32 + 31] = 1;
	assert_refusal(post_list(qp, NIC_READ, entries, 64, &work, &done.done, &err), err, OP_FLAGS, 0, 1u << 24);
	entries[32 + 31] = 0;
	memset(entries + 24, 0xff, 4);
	memset(entries + 32 + 24, 0xff, 4);
	assert_refusal(post_list(qp, NIC_READ, entries, 64, &work, &done.done, &err), err, TRANSFER_LENGTH, 1u << 30,
		       UINT64_C(2) * UINT32_MAX);
	memset(entries, 0, sizeof(entries));
	assert_int_equal(post_list(qp, NIC_READ, entries, sizeof(entries) - 32, &work, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(work.cmd.completion.entries, 1024);
}

/* mutation: take a list that is not paid for, refuse it after counting it, or charge the number of entries */
static void test_post_is_charged(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, one = { 0 }, two = { 0 };
	struct nic_work work[2];
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	rig->owner.account->limits.max[NIC_SLOT_BUFFERED] = 100;
	fake_hold(rig->fake, FAKE_OPS, true);
	assert_int_equal(post(qp, &work[0], &one, &err), 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 64);
	assert_refusal(post(qp, &work[1], &two, &err), err, QUOTA, 100, 128);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 64);
	assert_int_equal(rig->fake->calls[FAKE_POST], 1);
	assert_int_equal(qp->posted, 1);
	/* mutation: charge a flush */
	assert_int_equal(nic_qp_flush(qp, &work[1], rig_done(&two), &err), 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 64);
	assert_true(fake_complete(rig->fake, FAKE_POST));
	assert_ended(one);
	/* mutation: keep the charge until the Qp is gone */
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 0);
	assert_int_equal(post(qp, &work[0], &one, &err), 0);
	fake_complete_all(rig->fake);
	assert_ended(one);
	assert_ended(two);
	/* mutation: keep the charge of a list that failed */
	assert_int_equal(post(qp, &work[0], &one, &err), 0);
	assert_true(fake_complete_with(rig->fake, FAKE_POST, NICD_R_FLUSHED));
	assert_refused(one, FLUSHED);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 0);
	assert_refusal(post_list(qp, NIC_READ, NULL, 0, &work[0], &done.done, &err), err, TRANSFER_ENTRIES, 1024, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 0);
}

static struct rig *to_look;

static void nothing_charged(struct rig_done *done)
{
	assert_int_equal(rig_used(to_look, NIC_SLOT_BUFFERED), 0);
}

/* mutation: answer before the charge is released: the work may be gone by then, and who posts again is refused */
static void test_charge_ends_before_the_answer(void **state)
{
	struct rig_done done = { .then = NULL };
	struct nic_work work;
	struct nicd_error err;
	struct nic_qp *qp;

	to_look = *state;
	qp = rig_connect(to_look, &done);
	done.then = nothing_charged;
	assert_int_equal(post(qp, &work, &done, &err), 0);
	assert_ended(done);
}

/* mutation: don't count flushes, allow one more, or give a place back only at the end */
static void test_work_in_flight(void **state)
{
	static struct nic_work work[NICD_QP_WORK + 1];
	struct rig *rig = *state;
	struct rig_done done = { 0 }, each = { 0 }, queried = { 0 };
	struct nic_work query;
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done), *other = rig_connect(rig, &done);

	fake_hold(rig->fake, FAKE_OPS, true);
	/* mutation: count queries, which anybody who lists makes */
	assert_int_equal(nic_qp_query(qp, &query, rig_done(&queried), &err), 0);
	assert_int_equal(nic_qp_flush(qp, &work[0], rig_done(&each), &err), 0);
	for (unsigned i = 1; i < NICD_QP_WORK; i++)
		assert_int_equal(post(qp, &work[i], &each, &err), 0);
	assert_refusal(post(qp, &work[NICD_QP_WORK], &done, &err), err, IN_FLIGHT, 1024, 1025);
	assert_refusal(nic_qp_flush(qp, &work[NICD_QP_WORK], &done.done, &err), err, IN_FLIGHT, 1024, 1025);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), (NICD_QP_WORK - 1) * 2 * NICD_TRANSFER_ENTRY_SIZE);
	/* mutation: refuse a query of a full Qp, or count for all Qps together */
	assert_int_equal(nic_qp_query(qp, &work[NICD_QP_WORK], rig_done(&done), &err), 0);
	assert_true(fake_complete(rig->fake, FAKE_QUERY));
	assert_true(fake_complete(rig->fake, FAKE_QUERY));
	assert_ended(queried);
	assert_ended(done);
	assert_int_equal(post(other, &work[NICD_QP_WORK], &done, &err), 0);
	assert_true(fake_complete_newest(rig->fake, FAKE_POST));
	assert_ended(done);
	assert_true(fake_complete(rig->fake, FAKE_FLUSH));
	assert_int_equal(post(qp, &work[NICD_QP_WORK], &done, &err), 0);
	fake_complete_all(rig->fake);
	assert_ended(done);
	assert_int_equal(each.calls, NICD_QP_WORK);
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 0);
}

/* mutation: end the Qp under its work, or answer the close before the work */
static void test_close_waits_for_work(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, one = { 0 }, two = { 0 }, closed = { 0 };
	struct nic_work work[2];
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	fake_hold(rig->fake, FAKE_OPS, true);
	assert_int_equal(post(qp, &work[0], &one, &err), 0);
	assert_int_equal(post(qp, &work[1], &two, &err), 0);
	nic_qp_close(qp, rig_done(&closed));
	assert_int_equal(fake_pending(rig->fake, FAKE_DISCONNECT), 1);
	assert_true(fake_complete(rig->fake, FAKE_DISCONNECT));
	assert_int_equal(closed.calls, 0);
	assert_true(fake_complete_with(rig->fake, FAKE_POST, NICD_R_FLUSHED));
	assert_int_equal(closed.calls, 0);
	assert_true(fake_complete_with(rig->fake, FAKE_POST, NICD_R_FLUSHED));
	assert_refused(one, FLUSHED);
	assert_refused(two, FLUSHED);
	assert_ended(closed);
	assert_true(two.order < closed.order);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 0);
}

static struct nic_qp *to_close;

static void close_qp(struct rig_done *done)
{
	nic_qp_close(to_close, NULL);
}

static void close_on_event(struct rig *rig, struct nic_object *object, enum nic_event event)
{
	if (object->type == NIC_QP && !object->ending)
		nic_qp_close((struct nic_qp *)object, NULL);
}

/* mutation: touch the Qp after a callback without holding it */
static void test_close_inside_callbacks(void **state)
{
	struct rig *rig = *state;
	struct nic_connect_terms terms = { 0 };
	struct rig_done done = { .then = close_qp };
	struct nicd_error err;
	struct nic_work work;
	struct nic_qp *qp;

	assert_int_equal(nic_qp_connect(&to_close, rig->pd, &terms, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	done.then = NULL;
	to_close = rig_connect(rig, &done);
	done.then = close_qp;
	assert_int_equal(post(to_close, &work, &done, &err), 0);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	done.then = NULL;
	to_close = rig_connect(rig, &done);
	done.then = close_qp;
	assert_int_equal(nic_qp_disconnect(to_close, rig_done(&done), &err), 0);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	done.then = NULL;
	rig->on_event = close_on_event;
	qp = rig_connect(rig, &done);
	fake_stream_close(rig->fake, qp->stream, NICD_R_PEER_CLOSED, NULL);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	qp = rig_connect(rig, &done);
	assert_int_equal(nic_revoke(&rig->nic, &qp->object, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

/* mutation: free a connecting Qp that is closed, or answer its connecting with success */
static void test_close_while_connecting(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, closed = { 0 };

	for (unsigned i = 0; i < 2; i++) {
		fake_hold(rig->fake, FAKE_CONNECT, true);
		nic_qp_close(rig_connect(rig, &done), rig_done(&closed));
		assert_int_equal(done.calls + closed.calls, 0);
		/* mutation: wait until the peer answers or the time is over */
		assert_int_equal(rig->fake->calls[FAKE_DISCONNECT], 1 + 2 * i);
		fake_complete_with(rig->fake, FAKE_CONNECT, i ? NICD_R_CONNECT : NICD_R_NONE);
		assert_int_equal(done.calls, 1);
		assert_int_equal(done.error.reason, i ? NICD_R_CONNECT : NICD_R_FLUSHED);
		assert_ended(closed);
		assert_true(done.order < closed.order);
		assert_true(fake_holds_nothing(rig->fake));
	}
}

/* mutation: keep the Qp CONNECTED, tell nobody, or lose the counters */
static void test_peer_goes_away(void **state)
{
	struct rig *rig = *state;
	struct nic_counters counters = { 10, 20, 30, 40 };
	struct rig_done done = { 0 };
	struct nic_work work;
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	fake_stream_close(rig->fake, qp->stream, NICD_R_REMOTE_TERMINATE, &counters);
	assert_int_equal(qp->state, NIC_QP_DISCONNECTED);
	assert_int_equal(qp->why.reason, NICD_R_REMOTE_TERMINATE);
	assert_int_equal(rig_events(rig, NIC_EVENT_DISCONNECTED, qp->object.serial), 1);
	assert_int_equal(rig->events[0].reason, NICD_R_REMOTE_TERMINATE);
	assert_int_equal(nic_qp_query(qp, &work, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->fake->calls[FAKE_QUERY], 0);
	assert_int_equal(qp->counters.peer_written, 40);
	assert_true(RB_EMPTY(&rig->adapter->streams));
	nic_qp_close(qp, rig_done(&done));
	assert_ended(done);
	assert_int_equal(rig->fake->calls[FAKE_DISCONNECT], 0);
}

/* mutation: drop a stream_closed that overtakes the answer to connect or disconnect */
static void test_news_before_the_answer(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err, why = { .reason = NICD_R_PEER_CLOSED };
	struct nic_counters counters = { 1, 2, 3, 4 };
	struct nic_qp *qp;

	fake_hold(rig->fake, FAKE_CONNECT, true);
	qp = rig_connect(rig, &done);
	rig->fake->provider.events->stream_closed(rig->adapter, qp->stream, &why, &counters);
	assert_int_equal(rig->n_events, 0);
	fake_complete_all(rig->fake);
	assert_ended(done);
	assert_int_equal(qp->state, NIC_QP_DISCONNECTED);
	assert_int_equal(rig_events(rig, NIC_EVENT_DISCONNECTED, qp->object.serial), 1);
	fake_hold(rig->fake, FAKE_CONNECT, false);
	qp = rig_connect(rig, &done);
	fake_hold(rig->fake, FAKE_DISCONNECT, true);
	assert_int_equal(nic_qp_disconnect(qp, rig_done(&done), &err), 0);
	fake_stream_close(rig->fake, qp->stream, NICD_R_PEER_CLOSED, &counters);
	fake_complete_with(rig->fake, FAKE_DISCONNECT, NICD_R_QP_STATE);
	assert_ended(done);
	assert_int_equal(qp->state, NIC_QP_DISCONNECTED);
	assert_int_equal(qp->counters.bytes_written, 2);
	/* The test's own stream of the first Qp. */
	fake_hold(rig->fake, FAKE_OPS, false);
	fake_stream_close(rig->fake, nic_next(&rig->nic, NIC_QP, 0)->serial, NICD_R_PEER_CLOSED, NULL);
}

/* mutation: take a refused disconnect for done, or don't ask again when closing */
static void test_disconnect_refused(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	fake_fail(rig->fake, FAKE_DISCONNECT, 0, 3, NICD_R_DEVICE_BUSY);
	assert_int_equal(nic_qp_disconnect(qp, rig_done(&done), &err), 0);
	assert_refused(done, DEVICE_FAILED);
	assert_int_equal(qp->state, NIC_QP_CONNECTED);
	nic_qp_close(qp, rig_done(&done));
	assert_int_equal(done.calls, 0);
	rig_later(rig, 5000);
	assert_int_equal(done.calls, 0);
	rig_later(rig, 5000);
	assert_ended(done);
	assert_int_equal(rig->fake->calls[FAKE_DISCONNECT], 4);
}

/* mutation: lose fresh counters, or refuse a query whose stream ended meanwhile */
static void test_query(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_work work;
	struct nic_qp *qp = rig_connect(rig, &done);

	assert_int_equal(nic_qp_query(qp, &work, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(qp->counters.peer_read, 3);
	fake_fail(rig->fake, FAKE_QUERY, 0, 1, NICD_R_QP_STATE);
	assert_int_equal(nic_qp_query(qp, &work, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(qp->counters.peer_read, 3);
	assert_int_equal(nic_qp_flush(qp, &work, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->fake->calls[FAKE_FLUSH], 1);
}

/* mutation: make the inbound Qp somebody else's, charge it again, or leave its grant */
static void test_inbound(void **state)
{
	struct rig *rig = *state;
	struct nic_counters counters = { 0, 0, 500, 600 };
	struct rig_done done = { 0 };
	struct nic_export *door;
	struct nic_qp *qp;
	uint64_t stream;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 5, &done);
	stream = fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:4000");
	qp = (struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0);
	assert_non_null(qp);
	assert_true(qp->inbound);
	assert_int_equal(qp->state, NIC_QP_CONNECTED);
	assert_int_equal(qp->stream, stream);
	assert_int_equal(qp->door, door->object.serial);
	assert_ptr_equal(qp->object.owner, &rig->owner);
	assert_ptr_equal(qp->pd, rig->pd);
	assert_string_equal(qp->peer, "127.0.0.2:4000");
	assert_int_not_equal(qp->object.id, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 5);
	assert_int_equal(door->streams, 1);
	assert_int_equal(door->uses_left, 4);
	assert_ptr_equal(qp->grant->door, door);
	assert_int_equal(qp->grant->object.type, NIC_GRANT);
	assert_int_equal(rig->nic.count[NIC_GRANT], 1);
	assert_int_equal(rig_events(rig, NIC_EVENT_CONNECTED, door->object.serial), 1);
	assert_int_equal(rig->events[0].serial, qp->object.serial);
	fake_stream_close(rig->fake, stream, NICD_R_PEER_CLOSED, &counters);
	assert_int_equal(rig_events(rig, NIC_EVENT_DISCONNECTED, 0), 1);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	assert_int_equal(rig->nic.count[NIC_GRANT], 0);
	assert_int_equal(door->streams, 0);
	assert_int_equal(door->grants, 0);
	assert_int_equal(rig_used(rig, NIC_SLOT_QPS), 5);
}

/* mutation: give a PD ticket's peer a grant, or forget to disconnect it at the device */
static void test_inbound_by_ticket_closed_by_owner(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, closed = { 0 };
	struct nicd_error err;
	struct nic_work work;
	struct nic_export *door;
	struct nic_qp *qp;

	rig_registered(rig);
	door = rig_ticket(rig, rig->mr, 1, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:4000");
	qp = (struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0);
	assert_null(qp->grant);
	assert_int_equal(post(qp, &work, &done, &err), 0);   /* a Qp like any other */
	assert_ended(done);
	nic_qp_close(qp, rig_done(&closed));
	assert_ended(closed);
	assert_int_equal(rig->fake->calls[FAKE_DISCONNECT], 1);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	assert_int_equal(rig_events(rig, NIC_EVENT_DISCONNECTED, 0), 0);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:4001");
	qp = (struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0);
	assert_int_equal(nic_qp_disconnect(qp, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_QP], 0);   /* inbound ones go */
}

/* mutation: leave Qps of a door that the device has shut, when it does not report them one by one */
static void test_silent_cut(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 }, work_done = { 0 };
	struct nicd_error err;
	struct nic_work work;
	struct nic_export *door;
	struct nic_qp *qp;

	rig_registered(rig);
	rig->fake->silent_cut = true;
	door = rig_export(rig, rig->mr, "data", 3, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:2");
	qp = (struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0);
	fake_hold(rig->fake, FAKE_POST, true);
	assert_int_equal(post(qp, &work, &work_done, &err), 0);
	nic_door_close(door, rig_done(&done));
	assert_ended(done);
	assert_int_equal(rig_events(rig, NIC_EVENT_DISCONNECTED, 0), 2);
	assert_int_equal(rig->nic.count[NIC_QP], 1);   /* waits for its work */
	fake_complete_with(rig->fake, FAKE_POST, NICD_R_QP_LOST);
	assert_refused(work_done, QP_LOST);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

/* mutation: leave a Qp connected whose door was shut while the device refused to disconnect it */
static void test_door_shut_under_a_disconnect(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_export *door;
	struct nic_qp *qp;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 3, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	qp = (struct nic_qp *)nic_next(&rig->nic, NIC_QP, 0);
	rig->fake->silent_cut = true;
	fake_hold(rig->fake, FAKE_DISCONNECT, true);
	assert_int_equal(nic_qp_disconnect(qp, rig_done(&done), &err), 0);
	nic_door_kill(door, NULL);
	assert_int_equal(done.calls, 0);
	fake_complete_with(rig->fake, FAKE_DISCONNECT, NICD_R_DEVICE_FAILED);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
}

/* mutation: take in more peers than were paid for */
static void test_more_streams_than_paid_for(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_export *door;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:2");
	assert_int_equal(rig->nic.count[NIC_QP], 1);
	assert_int_equal(rig->fake->calls[FAKE_DISCONNECT], 1);
	assert_int_equal(rig_events(rig, NIC_EVENT_CONNECTED, 0), 1);
}

/* mutation: let a peer in unseen when there is no memory to list it */
static void test_no_memory_for_a_peer(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };

	rig_registered(rig);
	for (unsigned i = 1; i <= 2; i++) {
		struct nic_export *door = rig_export(rig, rig->mr, "data", 1, &done);

		rig->env.fail_at = rig->env.allocs + i;
		fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
		assert_int_equal(door->state, NIC_DOOR_DEAD);
		assert_int_equal(rig->nic.count[NIC_QP] + rig->nic.count[NIC_GRANT], 0);
		assert_int_equal(rig->events[rig->n_events - 1].event, NIC_EVENT_REVOKED);
		assert_int_equal(rig->events[rig->n_events - 1].reason, NICD_R_NO_MEMORY);
	}
}

/* mutation: revoke a Qp without telling its owner; refuse a grant */
static void test_revoke(void **state)
{
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nicd_error err;
	struct nic_export *door;
	struct nic_qp *qp;

	rig_registered(rig);
	qp = rig_connect(rig, &done);
	assert_int_equal(nic_revoke(&rig->nic, &qp->object, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(qp->state, NIC_QP_DISCONNECTED);
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, qp->object.serial), 1);
	assert_int_equal(nic_revoke(&rig->nic, &qp->object, rig_done(&done), &err), -ENOTCONN);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	assert_int_equal(nic_revoke(&rig->nic, nic_next(&rig->nic, NIC_GRANT, 0), rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->nic.count[NIC_GRANT], 0);
	assert_int_equal(door->state, NIC_DOOR_OPEN);
}

static void test_unknown_streams(void **state)
{
	struct rig *rig = *state;
	struct nicd_error why = { .reason = NICD_R_PEER_CLOSED };
	struct nic_counters counters = { 0 };

	rig->fake->provider.events->stream_closed(rig->adapter, 12345, &why, &counters);
	rig->fake->provider.events->stream_opened(rig->adapter, 12345, 999, "127.0.0.2:1");
	rig->fake->provider.events->stream_opened(rig->adapter, 12346, rig->mr->object.serial, "127.0.0.2:1");
	assert_int_equal(rig->n_events, 0);
	assert_int_equal(rig->nic.count[NIC_QP], 0);
	assert_string_equal(nic_qp_state_name(NIC_QP_CONNECTED), "CONNECTED");
}

static int receive(struct nic_qp *qp, struct nic_work *work, struct rig_done *done, struct nicd_error *err)
{
	uint8_t one[NICD_TRANSFER_ENTRY_SIZE];

	entry(one, 100, 0);
	return nic_qp_post(qp, &(struct nic_request){ .operation = NIC_RECEIVE, .entries = one, .len = sizeof(one) }, work,
			   rig_done(done), err);
}

/* Receives wait for others: they have a count and a charge of their own, and take no place of what would fill them. */
static void test_receives(void **state)
{
	static struct nic_work work[NICD_QP_RECEIVES + 2];
	struct rig *rig = *state;
	struct rig_done done = { 0 }, each = { 0 };
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	fake_hold(rig->fake, FAKE_POST, true);
	for (unsigned i = 0; i < NICD_QP_RECEIVES; i++)
		assert_int_equal(receive(qp, &work[i], &each, &err), 0);
	/* mutation: no cap; or that of work requests */
	assert_refusal(receive(qp, &work[NICD_QP_RECEIVES], &done, &err), err, IN_FLIGHT, 256, 257);
	assert_int_equal(rig_used(rig, NIC_SLOT_RECEIVES), NICD_QP_RECEIVES);
	/* mutation: charge them as buffered bytes */
	assert_int_equal(rig_used(rig, NIC_SLOT_BUFFERED), 0);
	assert_int_equal(post(qp, &work[NICD_QP_RECEIVES], &done, &err), 0);
	assert_true(fake_complete(rig->fake, FAKE_POST));
	assert_int_equal(rig_used(rig, NIC_SLOT_RECEIVES), NICD_QP_RECEIVES - 1);
	/* mutation: give the place back only at the end */
	rig->owner.account->limits.max[NIC_SLOT_RECEIVES] = NICD_QP_RECEIVES - 1;
	assert_refusal(receive(qp, &work[NICD_QP_RECEIVES + 1], &done, &err), err, QUOTA, 255, 256);
	rig->owner.account->limits.max[NIC_SLOT_RECEIVES] = NICD_QP_RECEIVES;
	assert_int_equal(receive(qp, &work[NICD_QP_RECEIVES + 1], &each, &err), 0);
	fake_complete_all(rig->fake);
	assert_int_equal(rig_used(rig, NIC_SLOT_RECEIVES), 0);
	assert_int_equal(qp->receives, 0);
}

/* What a Send says reaches the device. */
static void test_send(void **state)
{
	uint8_t one[NICD_TRANSFER_ENTRY_SIZE];
	struct nic_request what = {
		.operation = NIC_SEND, .entries = one, .len = sizeof(one), .solicited = true, .invalidate = true,
		.invalidate_token = 0x77,
	};
	struct rig *rig = *state;
	struct rig_done done = { 0 };
	struct nic_work work;
	struct nicd_error err;
	struct nic_qp *qp = rig_connect(rig, &done);

	entry(one, 100, 0);
	assert_int_equal(nic_qp_post(qp, &what, &work, rig_done(&done), &err), 0);
	assert_ended(done);
	assert_int_equal(rig->fake->post.operation, NIC_SEND);
	assert_true(rig->fake->post.solicited && rig->fake->post.invalidate && !rig->fake->post.notify);
	assert_int_equal(rig->fake->post.invalidate_token, 0x77);
	what = (struct nic_request){ .operation = NIC_WRITE, .entries = one, .len = sizeof(one), .notify = true };
	assert_int_equal(nic_qp_post(qp, &what, &work, rig_done(&done), &err), 0);
	assert_true(rig->fake->post.notify);
}

/* Two peers of one door: their notices are counted together, once each, whatever the device repeats. */
static void test_notified(void **state)
{
	struct rig *rig = *state;
	const struct nic_provider_events *events = rig->fake->provider.events;
	struct rig_done done = { 0 };
	struct nic_export *door;
	uint64_t first, second;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 2, &done);
	first = fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:1");
	second = fake_stream_open(rig->fake, door->object.serial, "127.0.0.2:2");
	events->stream_notified(rig->adapter, first, 3);
	events->stream_notified(rig->adapter, second, 1);
	assert_int_equal(door->notified, 4);
	assert_int_equal(rig_events(rig, NIC_EVENT_NOTIFIED, door->object.serial), 2);
	/* mutation: add what the device says again */
	events->stream_notified(rig->adapter, first, 3);
	events->stream_notified(rig->adapter, first, 2);
	events->stream_notified(rig->adapter, 999, 1);
	assert_int_equal(door->notified, 4);
	assert_int_equal(rig_events(rig, NIC_EVENT_NOTIFIED, 0), 2);
}

/* The device says that a tag is gone: its MR is not registered any more, and what stood on it has died. */
static void test_remote_invalidated(void **state)
{
	struct rig *rig = *state;
	const struct nic_provider_events *events = rig->fake->provider.events;
	struct rig_done done = { 0 };
	uint64_t serial = rig->mr->object.serial;
	struct nic_export *door;

	rig_registered(rig);
	door = rig_export(rig, rig->mr, "data", 1, &done);
	/* mutation: whatever its generation */
	events->tag_invalidated(rig->adapter, serial, rig->mr->generation + 1);
	events->tag_invalidated(rig->adapter, serial + 1000, rig->mr->generation);
	assert_int_equal(rig->mr->state, NIC_MR_REGISTERED);
	events->tag_invalidated(rig->adapter, serial, rig->mr->generation);
	assert_int_equal(rig_events(rig, NIC_EVENT_REMOTE_INVALIDATED, serial), 1);
	assert_int_equal(rig->mr->state, NIC_MR_CREATED);
	assert_int_equal(door->state, NIC_DOOR_DEAD);
	/* mutation: tell of it as of a revocation */
	assert_int_equal(rig_events(rig, NIC_EVENT_REVOKED, serial), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_receives),
		rig_test(test_send),
		rig_test(test_notified),
		rig_test(test_remote_invalidated),
		rig_test(test_connect),
		rig_test(test_connect_fails),
		rig_test(test_connect_refusals),
		rig_test(test_post),
		rig_test(test_entries),
		rig_test(test_post_is_charged),
		rig_test(test_charge_ends_before_the_answer),
		rig_test(test_work_in_flight),
		rig_test(test_close_waits_for_work),
		rig_test(test_close_inside_callbacks),
		rig_test(test_close_while_connecting),
		rig_test(test_peer_goes_away),
		rig_test(test_news_before_the_answer),
		rig_test(test_disconnect_refused),
		rig_test(test_query),
		rig_test(test_inbound),
		rig_test(test_inbound_by_ticket_closed_by_owner),
		rig_test(test_silent_cut),
		rig_test(test_door_shut_under_a_disconnect),
		rig_test(test_more_streams_than_paid_for),
		rig_test(test_no_memory_for_a_peer),
		rig_test(test_revoke),
		rig_test(test_unknown_streams),
	};

	return cmocka_run_group_tests_name("qp", tests, NULL, NULL);
}
