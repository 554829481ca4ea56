/* SPDX-License-Identifier: MIT */
/* Events: state, not a log. */
#include "tests/unit/daemon/rig.h"

#include <string.h>

#include "daemon/news.h"

static struct rig_client *client(void **state)
{
	return rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
}

static struct nic_object *object_of(struct rig_client *c, uint64_t id)
{
	return nic_table_find(&c->client->owner.ids, id);
}

static void test_latest_wins(void **state)
{
	struct rig_client *c = client(state);
	struct nic_object *pd = object_of(c, rig_pd(c)), *other = object_of(c, rig_pd(c));
	struct nicd_error error = { .reason = NICD_R_PEER_CLOSED, .observed = 3 };
	const Nicd__Event *event;

	for (unsigned i = 0; i < 10; i++)
		news_add(c->client, pd, NIC_EVENT_CONNECTED, 100 + i, NULL);
	news_add(c->client, pd, NIC_EVENT_DISCONNECTED, 7, &error);
	news_add(c->client, other, NIC_EVENT_CONNECTED, 8, NULL);
	assert_int_equal(c->client->n_news, 3);
	/* mutation: a log instead of state */
	assert_int_equal(rig_n_events(c), 3);
	event = c->frames[c->n_frames - 1]->events[0];
	assert_int_equal(event->kind, NICD__EVENT__KIND__CONNECTED);
	assert_int_equal(event->object, pd->id);
	/* mutation: keep the first instead of the latest */
	assert_int_equal(event->serial, 109);
	assert_null(event->error);
	event = rig_event(c, NICD__EVENT__KIND__DISCONNECTED);
	assert_string_equal(event->error->name, "PEER_CLOSED");
	assert_int_equal(event->error->observed, 3);
	/* Told: it may come again. */
	news_add(c->client, pd, NIC_EVENT_CONNECTED, 5, NULL);
	assert_int_equal(rig_n_events(c), 4);
}

static void test_error_is_replaced_too(void **state)
{
	struct rig_client *c = client(state);
	struct nic_object *pd = object_of(c, rig_pd(c));

	news_add(c->client, pd, NIC_EVENT_REVOKED, 1, &(struct nicd_error){ .reason = NICD_R_REVOKED });
	news_add(c->client, pd, NIC_EVENT_REVOKED, 2, NULL);
	assert_null(rig_event(c, NICD__EVENT__KIND__REVOKED)->error);
}

static void test_resync(void **state)
{
	struct rig_client *c = client(state);
	struct nic_object *pds[5];

	c->rig->policy.max_news = 3;
	for (unsigned i = 0; i < 5; i++)
		pds[i] = object_of(c, rig_pd(c));
	rig_forget(c);
	for (unsigned i = 0; i < 3; i++)
		news_add(c->client, pds[i], NIC_EVENT_REVOKED, i, NULL);
	assert_int_equal(c->client->n_news, 3);
	/* One that is pending may still change. */
	news_add(c->client, pds[0], NIC_EVENT_REVOKED, 9, NULL);
	assert_false(c->client->resync);
	/* mutation: no cap */
	news_add(c->client, pds[3], NIC_EVENT_REVOKED, 3, NULL);
	assert_true(c->client->resync);
	assert_int_equal(c->client->n_news, 0);
	news_add(c->client, pds[4], NIC_EVENT_REVOKED, 4, NULL);
	/* mutation: go on collecting before the RESYNC is told */
	assert_int_equal(rig_n_events(c), 1);
	assert_non_null(rig_event(c, NICD__EVENT__KIND__RESYNC));
	assert_int_equal(rig_event(c, NICD__EVENT__KIND__RESYNC)->object, 0);
	rig_forget(c);
	news_add(c->client, pds[4], NIC_EVENT_REVOKED, 4, NULL);
	assert_int_equal(rig_n_events(c), 1);
	assert_non_null(rig_event(c, NICD__EVENT__KIND__REVOKED));
}

/* Without memory for news they become a RESYNC, too. */
static void test_no_memory(void **state)
{
	struct rig_client *c = client(state);
	struct nic_object *pd = object_of(c, rig_pd(c));

	rig_forget(c);
	c->rig->env.fail_at = c->rig->env.allocs + 1;
	news_add(c->client, pd, NIC_EVENT_REVOKED, 1, NULL);
	c->rig->env.fail_at = 0;
	assert_non_null(rig_event(c, NICD__EVENT__KIND__RESYNC));
}

/* News wait while much is queued, so that they cannot pile up in the output. */
static void test_wait_for_output(void **state)
{
	struct rig_client *c = client(state);
	struct nic_object *pd = object_of(c, rig_pd(c));
	Nicd__List list = NICD__LIST__INIT;

	for (unsigned i = 0; i < 300; i++)
		rig_pd(c);
	rig_forget(c);
	list.type = NICD__TYPE__PD;
	for (unsigned i = 0; i < 12; i++)
		rig_add(c, i + 1, NICD__REQUEST__CALL_LIST, &list);
	assert_true(rig_send(c, NULL, 0));
	assert_true(c->client->out.bytes > NICD_FRAME_MAX);
	news_add(c->client, pd, NIC_EVENT_REVOKED, 1, NULL);
	client_prepare_output(c->client);
	/* mutation: encode news whatever is queued */
	assert_int_equal(c->client->n_news, 1);
	rig_forget(c);
	assert_int_equal(rig_n_events(c), 1);
}

/* Many at once are told in pieces, and a RESYNC waits its turn, too. */
static void test_told_in_pieces(void **state)
{
	struct rig_client *c = client(state);
	struct nicd_error error = { .reason = NICD_R_QP_LOST };
	uint64_t pds[1000];

	for (unsigned i = 0; i < 1000; i++)
		pds[i] = rig_pd(c);
	rig_forget(c);
	for (unsigned i = 0; i < 1000; i++)
		news_add(c->client, object_of(c, pds[i]), NIC_EVENT_REVOKED, i, &error);
	client_prepare_output(c->client);
	/* mutation: encode all that there is */
	assert_in_range(c->client->out.bytes, NICD_FRAME_MAX, NICD_FRAME_MAX + 1000);
	assert_true(c->client->n_news > 100);
	c->rig->policy.max_news = 1;
	news_add(c->client, object_of(c, rig_pd(c)), NIC_EVENT_CONNECTED, 1, NULL);
	for (unsigned i = 0; i < 300; i++)
		news_add(c->client, object_of(c, pds[i]), NIC_EVENT_CONNECTED, 1, &error);
	rig_forget(c);
	assert_int_equal(c->client->n_news + c->client->resync, 0);
}

static void test_resync_waits(void **state)
{
	struct rig_client *c = client(state);
	Nicd__List list = NICD__LIST__INIT;
	struct nic_object *pd = object_of(c, rig_pd(c));

	for (unsigned i = 0; i < 300; i++)
		rig_pd(c);
	rig_forget(c);
	list.type = NICD__TYPE__PD;
	for (unsigned i = 0; i < 12; i++)
		rig_add(c, i + 1, NICD__REQUEST__CALL_LIST, &list);
	assert_true(rig_send(c, NULL, 0));
	c->rig->policy.max_news = 0;
	news_add(c->client, pd, NIC_EVENT_REVOKED, 1, NULL);
	client_prepare_output(c->client);
	/* mutation: a RESYNC whatever is queued */
	assert_true(c->client->resync);
	rig_forget(c);
	assert_non_null(rig_event(c, NICD__EVENT__KIND__RESYNC));
}

/* A device that goes away is news for everybody; the object may be gone when it is told. */
static void test_device_state(void **state)
{
	struct rig_client *a = client(state), *b = client(state);
	const Nicd__Event *event;

	fake_lose(a->rig->fake, true);
	event = rig_event(a, NICD__EVENT__KIND__DEVICE_STATE);
	assert_non_null(event);
	assert_int_equal(event->object >> 56, NIC_ADAPTER);
	assert_string_equal(event->error->name, "DEVICE_LOST");
	assert_non_null(rig_event(b, NICD__EVENT__KIND__DEVICE_STATE));
}

static void test_none_after_the_end(void **state)
{
	struct rig_client *c = client(state);
	struct nic_object *pd = object_of(c, rig_pd(c));

	rig_forget(c);
	news_add(c->client, pd, NIC_EVENT_REVOKED, 1, NULL);
	client_violation(c->client, NICD_R_FRAME_EMPTY, 0, 0);
	news_add(c->client, pd, NIC_EVENT_CONNECTED, 1, NULL);
	/* mutation: news behind the Fatal */
	assert_int_equal(c->client->n_news, 1);
	assert_violation(c, FRAME_EMPTY);
	assert_int_equal(rig_n_events(c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_latest_wins),
		rig_test(test_error_is_replaced_too),
		rig_test(test_resync),
		rig_test(test_no_memory),
		rig_test(test_wait_for_output),
		rig_test(test_told_in_pieces),
		rig_test(test_resync_waits),
		rig_test(test_device_state),
		rig_test(test_none_after_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
