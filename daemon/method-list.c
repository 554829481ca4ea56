/* SPDX-License-Identifier: MIT */
/*
 * Methods that look: List and Who. A page is made in the order of serials and ends when it is full, when the reply would not fit a
 * frame, or when enough objects of others were skipped for one turn; then the cursor is the last serial seen.
 *
 * What Qps have carried only the device knows: it is asked for one Qp of the page after the other before the page is made.
 */
#include "daemon/method.h"
#include "daemon/util.h"
#include "daemon/visible.h"

enum {
	LIST_ITEMS = 256,
	LIST_STEPS = 4096,
	LIST_BYTES = NICD_FRAME_MAX - 1024,
};

static char empty[] = "";

struct page {
	struct client *client;
	Nicd__Item *items;
	Nicd__Item **pointers;
	size_t n, max, bytes;
	unsigned steps;
	uint64_t cursor;   /* the last serial seen */
	bool more;
};

static int page_init(struct page *page, const struct call *call, struct answer *answer, struct nicd_error *err)
{
	struct client *client = call->client;

	*page = (struct page){ .client = client, .max = call->list.max, .cursor = call->list.cursor };
	page->items = answer_alloc(answer, client->host->env, page->max * (sizeof(*page->items) + sizeof(*page->pointers)));
	if (!page->items)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	page->pointers = (Nicd__Item **)(page->items + page->max);
	return 0;
}

static void page_answer(const struct page *page, struct answer *answer)
{
	nicd__list_reply__init(&answer->list);
	answer->list.n_items = page->n;
	answer->list.items = page->pointers;
	answer->list.cursor = page->more ? page->cursor : 0;
	answer->reply.list = &answer->list;
	answer->reply.result_case = NICD__REPLY__RESULT_LIST;
}

/* Where the next item is filled in, or NULL: the page is full. */
static Nicd__Item *page_room(struct page *page)
{
	if (page->n < page->max && page->steps++ < LIST_STEPS)
		return &page->items[page->n];
	page->more = true;
	return NULL;
}

/* The item that was filled in stays. False: it does not fit the frame. */
static bool page_keep(struct page *page, Nicd__Item *item)
{
	size_t size = nicd__item__get_packed_size(item) + 4;

	if (page->bytes + size > LIST_BYTES) {
		page->more = true;
		return false;
	}
	page->bytes += size;
	page->pointers[page->n++] = item;
	page->cursor = item->serial;
	return true;
}

/* ---- one item of each type */

static void item_adapter(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_adapter *adapter = container_of(object, struct nic_adapter, object);

	item->state = adapter->provider->up ? "up" : "down";
	item->name = adapter->provider->name;
}

static void item_memory(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_memory *memory = container_of(object, struct nic_memory, object);

	item->state = memory->closing ? "closing" : "open";
	item->size = memory->facts.size;
	item->count = memory->users;
}

static void item_pd(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_pd *pd = container_of(object, struct nic_pd, object);

	item->state = pd->closing ? "closing" : "open";
	item->parent = pd->adapter->object.serial;
	item->count = pd->children;
}

static void item_mr(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_mr *mr = container_of(object, struct nic_mr, object);

	item->state = (char *)nic_mr_state_name(mr->state);
	item->parent = mr->pd->object.serial;
	item->size = mr->length;
	item->iova = mr->iova;
	item->flags = mr->rights;
	item->count = mr->n_ranges;
}

static void item_traffic(const struct nic_qp *qp, Nicd__Item *item)
{
	item->peer = (char *)qp->peer;
	item->bytes_read = qp->counters.bytes_read;
	item->bytes_written = qp->counters.bytes_written;
	item->peer_read = qp->counters.peer_read;
	item->peer_written = qp->counters.peer_written;
	item->inbound = qp->inbound;
}

static void item_qp(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_qp *qp = container_of(object, struct nic_qp, object);

	item_traffic(qp, item);
	item->state = (char *)nic_qp_state_name(qp->state);
	item->parent = qp->pd->object.serial;
	item->count = qp->posted;
	item->since_ns = qp->since_ns;
}

static void item_door(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_export *door = container_of(object, struct nic_export, object);

	item->state = (char *)nic_door_state_name(door->state);
	item->name = door->name ? door->name : empty;
	item->parent = door->mr_serial;
	item->size = door->length;
	item->iova = door->iova;
	item->flags = door->rights;
	item->count = door->uses_left;
	item->since_ns = door->since_ns;
	item->until_ns = door->until_ns;
}

static void item_grant(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_grant *grant = container_of(object, struct nic_grant, object);

	item_traffic(grant->qp, item);
	item->state = (char *)nic_qp_state_name(grant->qp->state);
	item->parent = grant->door->object.serial;
	item->size = grant->door->length;
	item->iova = grant->door->iova;
	item->flags = grant->door->rights;
	item->since_ns = grant->since_ns;
}

static void (*const describers[NIC_TYPE_COUNT])(const struct nic_object *object, Nicd__Item *item) = {
	[NIC_ADAPTER] = item_adapter,
	[NIC_MEMORY] = item_memory,
	[NIC_PD] = item_pd,
	[NIC_MR] = item_mr,
	[NIC_QP] = item_qp,
	[NIC_TICKET] = item_door,
	[NIC_EXPORT] = item_door,
	[NIC_GRANT] = item_grant,
};

static void item_object(const struct nic_object *object, Nicd__Item *item)
{
	nicd__item__init(item);
	item->type = (Nicd__Type)object->type;
	item->serial = object->serial;
	if (object->owner) {
		item->account = object->owner->account->key;
		item->session = object->owner->session;
	}
	if (describers[object->type])
		describers[object->type](object, item);
}

static void item_session(struct client *client, Nicd__Item *item)
{
	static char *const states[] = { [CLIENT_NEW] = "new", [CLIENT_READY] = "ready", [CLIENT_CLOSING] = "closing" };

	nicd__item__init(item);
	item->type = NICD__TYPE__SESSION;
	item->serial = client->serial;
	item->account = client->owner.account->key;
	item->session = client->serial;
	item->state = states[client->state];
	item->name = client->label;
	item->pid = client->identity.pid;
	item->uid = client->identity.uid;
	item->count = (uint32_t)client->owner.n_objects;
	item->since_ns = client->since_ns;
	item->alive = client->host->alive(client);
}

/* ---- List */

static void list_sessions(struct page *page)
{
	uint64_t after = page->cursor;
	struct client *client;
	Nicd__Item *item;

	TAILQ_FOREACH(client, &page->client->host->clients, of_host) {
		if (client->serial <= after || !visible_account(page->client, client->owner.account))
			continue;
		item = page_room(page);
		if (!item)
			return;
		item_session(client, item);
		if (!page_keep(page, item))
			return;
	}
}

static void list_objects(struct page *page, enum nic_type type)
{
	struct nic *nic = page->client->host->nic;
	struct nic_object *object;
	Nicd__Item *item;

	for (object = nic_next(nic, type, page->cursor); object; object = nic_next(nic, type, object->serial)) {
		item = page_room(page);
		if (!item)
			return;
		if (!visible_object(page->client, object)) {
			page->cursor = object->serial;
			continue;
		}
		item_object(object, item);
		if (!page_keep(page, item))
			return;
	}
}

/* ---- what Qps have carried */

static void refresh_next(struct call *call);

static void refresh_done(struct nic_done *done, const struct nicd_error *error)
{
	refresh_next(container_of(done, struct call, done));
}

/* The Qp of which this object's item tells the traffic; NULL: none. */
static struct nic_qp *traffic_of(struct nic_object *object)
{
	if (object->type == NIC_GRANT)
		return container_of(object, struct nic_grant, object)->qp;
	return object->type == NIC_QP ? container_of(object, struct nic_qp, object) : NULL;
}

/* Asks for the next one that the page will show, at most for as many as it can show. */
static void refresh_next(struct call *call)
{
	struct nicd_error ignored = { 0 };
	struct nic_object *object;

	while (call->list.steps && (object = call->list.next(call->client->host->nic, call->list.type, call->list.at))) {
		struct nic_qp *qp = traffic_of(object);

		call->list.at = object->serial;
		call->list.steps--;
		if (!visible_object(call->client, object) || qp->state != NIC_QP_CONNECTED)
			continue;
		call->done.fn = refresh_done;
		/* The last known figures will do where the device does not answer. */
		if (nic_qp_query(qp, &call->work, &call->done, &ignored) == 0)
			return;
	}
	call_answer(call, NULL);
}

static int list_start(struct call *call, uint64_t cursor, uint32_t max, struct nicd_error *err)
{
	uint64_t last = call->client->host->nic->last_serial;

	if (cursor > last)
		return nicd_refuse_at(err, NICD_R_CURSOR, last, cursor);
	call->list.cursor = cursor;
	call->list.at = cursor;
	call->list.max = max && max < LIST_ITEMS ? max : LIST_ITEMS;
	call->list.steps = call->list.next ? call->list.max : 0;
	refresh_next(call);
	return 0;
}

int method_list(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__List *args = request->args;

	if (args->type <= NICD__TYPE__TYPE_NONE || args->type >= (int)NIC_TYPE_COUNT)
		return nicd_refuse_at(err, NICD_R_VALUE, NIC_TYPE_COUNT - 1, (uint64_t)args->type);
	call->list.type = (enum nic_type)args->type;
	call->list.next = call->list.type == NIC_QP || call->list.type == NIC_GRANT ? nic_next : NULL;
	return list_start(call, args->cursor, args->max, err);
}

void method_list_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	struct page page = { 0 };
	struct nicd_error err = { 0 };

	if (page_init(&page, call, answer, &err) < 0) {
		answer_refuse(answer, &err);
		return;
	}
	if (call->list.type == NIC_SESSION)
		list_sessions(&page);
	else
		list_objects(&page, call->list.type);
	page_answer(&page, answer);
}

/* ---- Who */

/* Does this grant or Qp reach that MR or export? */
static bool who_reaches(const struct nic_object *who, const struct nic_object *what)
{
	const struct nic_qp *qp;
	const struct nic_grant *grant;

	if (who->type == NIC_GRANT) {
		grant = container_of(who, struct nic_grant, object);
		return &grant->door->object == what || (grant->door->mr && &grant->door->mr->object == what);
	}
	qp = container_of(who, struct nic_qp, object);
	/* Those that came by an export reach its range only, which their grant says. */
	return what->type == NIC_MR && qp->inbound && !qp->grant &&
	       qp->pd == container_of(what, struct nic_mr, object)->pd;
}

/* Grants and Qps in one order. */
static struct nic_object *who_next(struct nic *nic, enum nic_type type, uint64_t after)
{
	struct nic_object *grant = nic_next(nic, NIC_GRANT, after), *qp = nic_next(nic, NIC_QP, after);

	if (!grant || !qp)
		return grant ? grant : qp;
	return grant->serial < qp->serial ? grant : qp;
}

int method_who(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Who *args = request->args;
	struct nic_object *what = visible_find(request->client, args->serial);

	if (!what)
		return nicd_refuse_at(err, NICD_R_SERIAL, 0, args->serial);
	if (what->type != NIC_MR && what->type != NIC_EXPORT)
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, NIC_MR, what->type);
	call->list.what = args->serial;
	call->list.next = who_next;
	return list_start(call, args->cursor, 0, err);
}

void method_who_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	struct nic *nic = call->client->host->nic;
	struct nic_object *what = visible_find(call->client, call->list.what), *who;
	struct page page = { 0 };
	struct nicd_error err = { 0 };
	Nicd__Item *item;

	if (!what)   /* gone while the device was asked */
		nicd_refuse_at(&err, NICD_R_SERIAL, 0, call->list.what);
	if (!what || page_init(&page, call, answer, &err) < 0) {
		answer_refuse(answer, &err);
		return;
	}
	for (who = who_next(nic, NIC_NONE, page.cursor); who && (item = page_room(&page));
	     who = who_next(nic, NIC_NONE, who->serial)) {
		if (!who_reaches(who, what)) {
			page.cursor = who->serial;
			continue;
		}
		item_object(who, item);
		if (!page_keep(&page, item))
			break;
	}
	page_answer(&page, answer);
}
