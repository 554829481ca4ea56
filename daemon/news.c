/* SPDX-License-Identifier: MIT */
/*
 * News: events that a client has not been told yet. They wait here, not in the output, so that a later one of the same
 * object and kind replaces an earlier one, and a client that reads slowly costs a bounded amount. Each belongs to its
 * client until it is encoded or dropped.
 */
#include "daemon/news.h"

#include "daemon/answer.h"
#include "proto/nicd.pb-c.h"

enum {
	FRAME_EVENTS = 3,               /* field of nicd.Frame */
	NEWS_OUTPUT = NICD_FRAME_MAX,   /* news wait while more than this is queued */
};

struct client_news {
	TAILQ_ENTRY(client_news) next;
	RB_ENTRY(client_news) of_tree;
	uint64_t key;                   /* serial of the object, which may be gone */
	enum nic_event event;
	uint64_t id, serial;
	uint64_t count;                 /* NOTIFIED */
	struct nicd_error error;        /* reason 0: none */
};

_Static_assert((int)NIC_EVENT_DEVICE_STATE == NICD__EVENT__KIND__DEVICE_STATE &&
	       (int)NIC_EVENT_NOTIFIED == NICD__EVENT__KIND__NOTIFIED, "");

static int news_compare(const struct client_news *a, const struct client_news *b)
{
	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return (int)a->event - (int)b->event;
}
RB_PROTOTYPE(news_tree, client_news, of_tree, news_compare)
RB_GENERATE(news_tree, client_news, of_tree, news_compare)

static void news_free(struct client *client, struct client_news *news)
{
	struct nic_env *env = client->host->env;

	TAILQ_REMOVE(&client->news, news, next);
	RB_REMOVE(news_tree, &client->news_tree, news);
	client->n_news--;
	env->free(env, news, sizeof(*news));
}

void news_drop(struct client *client)
{
	struct client_news *news;

	while ((news = TAILQ_FIRST(&client->news)))
		news_free(client, news);
	client->resync = false;
}

/* The pending one of this key, or a new one; NULL: too many, or no memory. */
static struct client_news *news_get(struct client *client, uint64_t key, enum nic_event event)
{
	struct nic_env *env = client->host->env;
	struct client_news wanted = { .key = key, .event = event };
	struct client_news *news = RB_FIND(news_tree, &client->news_tree, &wanted);

	if (news || client->n_news >= client->host->policy->max_news)
		return news;
	news = env->alloc(env, sizeof(*news));
	if (!news)
		return NULL;
	news->key = key;
	news->event = event;
	TAILQ_INSERT_TAIL(&client->news, news, next);
	RB_INSERT(news_tree, &client->news_tree, news);
	client->n_news++;
	return news;
}

void news_add(struct client *client, const struct nic_object *object, enum nic_event event, uint64_t serial,
	      const struct nicd_error *error)
{
	struct client_news *news;

	/* After a RESYNC that is not told yet, nothing is news. */
	if (client->state == CLIENT_CLOSING || client->resync)
		return;
	news = news_get(client, object->serial, event);
	if (news) {
		news->id = object->id;
		news->serial = serial;
		if (event == NIC_EVENT_NOTIFIED)
			news->count = ((const struct nic_export *)object)->notified;
		news->error = error ? *error : (struct nicd_error){ 0 };
	} else {
		news_drop(client);
		client->resync = true;
	}
	client_wake(client);
}

static int news_put(struct client *client, Nicd__Event__Kind kind, const struct client_news *news)
{
	Nicd__Event event;
	Nicd__Error error;

	nicd__event__init(&event);
	event.kind = kind;
	if (news) {
		event.object = news->id;
		event.serial = news->serial;
		event.count = news->count;
	}
	if (news && news->error.reason != NICD_R_NONE) {
		answer_error(&error, &news->error);
		event.error = &error;
	}
	return frame_put(&client->out, FRAME_EVENTS, &event.base, NULL, 0);
}

void news_flush(struct client *client)
{
	struct client_news *news;

	if (client->resync && client->out.bytes < NEWS_OUTPUT && news_put(client, NICD__EVENT__KIND__RESYNC, NULL) >= 0)
		client->resync = false;
	/* Without memory they wait for the next flush. */
	while (client->out.bytes < NEWS_OUTPUT && (news = TAILQ_FIRST(&client->news))) {
		if (news_put(client, (Nicd__Event__Kind)news->event, news) < 0)
			return;
		news_free(client, news);
	}
}
