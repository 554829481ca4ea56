/* SPDX-License-Identifier: MIT */
/*
 * Methods that look: List and Who. A page is made in the order of serials and ends when it is full, when the reply would not fit a
 * frame, or when enough was looked at for one turn; then the cursor is the last serial seen. All requests of a frame share
 * host->bulk_steps, so that a frame full of them is no longer in the way of others than one of them. Each may take one step even
 * when they are used up: so it gets on.
 *
 * What connections have carried only their device knows: before a page of Qps or grants is made, it is asked for the counters of those that
 * will be on it. The page itself is made from what is there when the last answer has come.
 */
#include "daemon/method.h"

#include <errno.h>
#include <sys/param.h>

#include "daemon/util.h"
#include "daemon/visible.h"
#include "nicd/mapping.h"
#include "nicd/mw.h"

enum {
	LIST_ITEMS = 256,
	LIST_CONNECTIONS = 64,   /* items of a page whose device is asked */
	LIST_STEPS = 4096,
	LIST_BYTES = NICD_FRAME_MAX - 1024,
};

static char empty[] = "";

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
	const struct nic_region region = nic_region(object);

	item->state = (char *)nic_life_state_name(object->kind, region.state);
	item->parent = region.pd->object.serial;
	item->size = region.length;
	item->iova = region.iova;
	item->flags = region.rights;
	item->count = region.n_ranges;
	item->fast_register = object->kind == NIC_KIND_FAST;
}

static void item_mw(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_mw *mw = container_of(object, struct nic_mw, object);

	item->state = (char *)nic_life_state_name(NIC_KIND_WINDOW, mw->state);
	item->parent = mw->tenants ? mw->tenants->mr->serial : 0;
	item->qp = mw->qp ? mw->qp->object.serial : 0;
	item->size = mw->length;
	item->iova = mw->iova;
	item->flags = mw->rights;
}

static void item_mapping(const struct nic_object *object, Nicd__Item *item)
{
	const struct nic_mapping *mapping = container_of(object, struct nic_mapping, object);

	item->state = (char *)nic_mapping_state_name(mapping);
	item->size = mapping->length;
	item->iova = mapping->address;
	item->count = mapping->users;
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
	item->state = (char *)nic_qp_state_name(nic_qp_state(qp));
	item->parent = qp->pd->object.serial;
	item->count = qp->posted - qp->queries;   /* List itself queries */
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
	[NIC_MW] = item_mw,
	[NIC_MAPPING] = item_mapping,
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

/* ---- what is looked at, one after the other */

struct walk {
	struct client *client;
	enum nic_type type;              /* NIC_NONE: grants and Qps, those that reach `what` */
	const struct nic_object *what;   /* Who: the MR, window or export */
	uint64_t at;                     /* the last serial seen */
	uint32_t steps;                  /* that it may still take */
	bool more;
};

/* Has its peer a window on that MR? To look at many of them takes steps. */
static bool who_has_window(struct walk *walk, const struct nic_qp *qp, const struct nic_object *mr)
{
	const struct nic_mw *mw;

	TAILQ_FOREACH(mw, &qp->windows, of_qp) {
		if (mw->state == NIC_MW_BOUND && mw->tenants->mr == mr)
			return true;
		walk->steps -= walk->steps > 1;
	}
	return false;
}

/* Does this grant or Qp reach that MR, window or export? */
static bool who_reaches(struct walk *walk, const struct nic_object *who, const struct nic_object *what)
{
	const struct nic_grant *grant;
	const struct nic_qp *qp;

	if (who->type == NIC_GRANT) {
		grant = container_of(who, struct nic_grant, object);
		return !grant->door->shut &&
		       (&grant->door->object == what || (grant->door->mr && &grant->door->mr->object == what));
	}
	qp = container_of(who, struct nic_qp, object);
	if (nic_qp_is_cut(qp) || what->type == NIC_EXPORT)
		return false;
	if (what->type == NIC_MW)
		return container_of(what, struct nic_mw, object)->qp == qp;
	/* Those that came by an export reach its range only, which their grant says. */
	return (qp->inbound && !qp->grant && qp->pd == nic_region(what).pd) || who_has_window(walk, qp, what);
}

/* Grants and Qps in one order. */
static struct nic_object *who_next(struct nic *nic, uint64_t after)
{
	struct nic_object *grant = nic_next(nic, NIC_GRANT, after), *qp = nic_next(nic, NIC_QP, after);

	if (!grant || !qp)
		return grant ? grant : qp;
	return grant->serial < qp->serial ? grant : qp;
}

/* False: enough for one turn. */
static bool walk_step(struct walk *walk)
{
	uint32_t *frame = &walk->client->host->bulk_steps;

	if (!walk->steps) {
		walk->more = true;
		return false;
	}
	walk->steps--;
	*frame -= *frame > 0;
	return true;
}

/* NULL: no more, or (walk->more) enough for one turn. */
static struct nic_object *walk_next(struct walk *walk)
{
	struct nic *nic = walk->client->host->nic;
	struct nic_object *object;

	while ((object = walk->what ? who_next(nic, walk->at) : nic_next(nic, walk->type, walk->at))) {
		if (!walk_step(walk))
			return NULL;
		walk->at = object->serial;
		if (walk->what ? who_reaches(walk, object, walk->what) : visible_object(walk->client, object))
			return object;
	}
	return NULL;
}

/* False: what Who asked for is not there any more. */
static bool walk_init(struct walk *walk, const struct call *call)
{
	*walk = (struct walk){
		.client = call->client,
		.type = call->list.type,
		.at = call->list.cursor,
		.steps = call->list.steps,
	};
	if (call->list.what)
		walk->what = visible_find(call->client, call->list.what);
	return walk->what || !call->list.what;
}

/* ---- the counters of connections */

struct list_query {
	struct nic_work work;
	struct nic_done done;
	struct call *call;
};

static void list_told(struct call *call)
{
	if (!--call->list.pending)
		call_answer(call, NULL);
}

/* Whatever the device says: then the last known ones are shown. */
static void list_query_done(struct nic_done *done, const struct nicd_error *error)
{
	list_told(container_of(done, struct list_query, done)->call);
}

static struct nic_qp *list_qp(const struct nic_object *object)
{
	if (object->type == NIC_GRANT)
		return container_of(object, struct nic_grant, object)->qp;
	return container_of(object, struct nic_qp, object);
}

/*
 * The serials of the Qps on the page to come. The page may be made outside of the frame, with many others at once: it takes no more steps
 * than this did.
 */
static unsigned list_connections(struct call *call, uint64_t serials[LIST_CONNECTIONS])
{
	const struct nic_object *object;
	struct walk walk;
	unsigned n = 0;

	if (!walk_init(&walk, call))
		return 0;
	while (n < call->list.max && (object = walk_next(&walk)))
		serials[n++] = list_qp(object)->object.serial;
	call->list.steps = MAX(call->list.steps - walk.steps, 1);
	return n;
}

/* Each answer may change what there is, so that a Qp is looked up again when its turn comes. */
static int list_ask(struct call *call, struct nicd_error *err)
{
	struct nic *nic = call->client->host->nic;
	uint64_t serials[LIST_CONNECTIONS];
	struct list_query *queries;
	unsigned n = list_connections(call, serials);

	queries = n ? call_alloc(call, n * sizeof(*queries), err) : NULL;
	if (n && !queries)
		return -ENOMEM;
	call->list.pending = 1;
	for (unsigned i = 0; i < n; i++) {
		struct nic_object *object = nic_find(nic, NIC_QP, serials[i]);

		queries[i].call = call;
		queries[i].done.fn = list_query_done;
		call->list.pending++;
		if (!object || nic_qp_query(list_qp(object), &queries[i].work, &queries[i].done, NULL) < 0)
			call->list.pending--;
	}
	list_told(call);
	return 0;
}

/* ---- the page */

struct page {
	Nicd__Item *items;
	Nicd__Item **pointers;
	size_t n, max, bytes;
};

/* Where the next item is filled in; NULL: the page is full. */
static Nicd__Item *page_room(struct page *page)
{
	return page->n < page->max ? &page->items[page->n] : NULL;
}

/* The item that was filled in stays. False: it does not fit the frame. */
static bool page_keep(struct page *page)
{
	Nicd__Item *item = &page->items[page->n];
	size_t size = nicd__item__get_packed_size(item) + 4;

	if (page->bytes + size > LIST_BYTES)
		return false;
	page->bytes += size;
	page->pointers[page->n++] = item;
	return true;
}

/* Returns the cursor. */
static uint64_t page_sessions(struct page *page, struct walk *walk)
{
	const struct client *asks = walk->client;
	const struct nic_account *account = asks->identity.role == CLIENT_ROLE_ADMIN ? NULL : asks->owner.account;
	struct client *client;
	Nicd__Item *item;

	while ((client = client_next(asks->host, account, walk->at))) {
		item = walk_step(walk) ? page_room(page) : NULL;
		if (item)
			item_session(client, item);
		if (!item || !page_keep(page))
			return walk->at;
		walk->at = client->serial;
	}
	return 0;
}

static uint64_t page_objects(struct page *page, struct walk *walk)
{
	struct nic_object *object;
	uint64_t before = walk->at;
	Nicd__Item *item;

	while ((object = walk_next(walk))) {
		item = page_room(page);
		if (item)
			item_object(object, item);
		if (!item || !page_keep(page))
			return before;
		before = walk->at;
	}
	return walk->more ? walk->at : 0;
}

void method_list_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	struct page page = { .max = call->list.max };
	struct nicd_error refused = { 0 };
	struct walk walk;

	nicd__list_reply__init(&answer->list);
	page.items = answer_alloc(answer, call->client->host->env, page.max * (sizeof(*page.items) + sizeof(*page.pointers)));
	if (!page.items) {
		nicd_refuse(&refused, NICD_R_NO_MEMORY);
		answer_refuse(answer, &refused);
		return;
	}
	if (!walk_init(&walk, call)) {
		nicd_refuse_at(&refused, NICD_R_SERIAL, 0, call->list.what);
		answer_refuse(answer, &refused);
		return;
	}
	page.pointers = (Nicd__Item **)(page.items + page.max);
	answer->list.cursor = call->list.type == NIC_SESSION ? page_sessions(&page, &walk) : page_objects(&page, &walk);
	answer->list.n_items = page.n;
	answer->list.items = page.pointers;
	answer->reply.list = &answer->list;
	answer->reply.result_case = NICD__REPLY__RESULT_LIST;
}

/* ---- List and Who */

static int list_begin(struct call *call, uint64_t cursor, struct nicd_error *err)
{
	struct client_host *host = call->client->host;
	uint64_t last = host->nic->last_serial;

	call->list.steps = MAX(MIN(host->bulk_steps, (uint32_t)LIST_STEPS), 1);
	call->list.cursor = cursor;
	return cursor > last ? nicd_refuse_at(err, NICD_R_CURSOR, last, cursor) : 0;
}

int method_list(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__List *args = request->args;
	bool connections = args->type == NICD__TYPE__QP || args->type == NICD__TYPE__GRANT;
	uint32_t max = connections ? LIST_CONNECTIONS : LIST_ITEMS;
	int r;

	if (args->type <= NICD__TYPE__TYPE_NONE || args->type >= (int)NIC_TYPE_COUNT)
		return nicd_refuse_at(err, NICD_R_VALUE, NIC_TYPE_COUNT - 1, (uint64_t)args->type);
	r = list_begin(call, args->cursor, err);
	if (r < 0)
		return r;
	call->list.type = (enum nic_type)args->type;
	call->list.max = args->max && args->max < max ? args->max : max;
	if (connections)
		return list_ask(call, err);
	call_answer(call, NULL);
	return 0;
}

int method_who(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Who *args = request->args;
	const struct nic_object *what = visible_find(request->client, args->serial);
	int r;

	if (!what)
		return nicd_refuse_at(err, NICD_R_SERIAL, 0, args->serial);
	if (what->type != NIC_MR && what->type != NIC_MW && what->type != NIC_EXPORT)
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, NIC_MR, what->type);
	r = list_begin(call, args->cursor, err);
	if (r < 0)
		return r;
	call->list.what = args->serial;
	call->list.max = LIST_CONNECTIONS;
	return list_ask(call, err);
}
