/* SPDX-License-Identifier: MIT */
/*
 * Looking and ending by serial: List, Who, Ledger, Revoke. A page is one block of memory that belongs to its list: the
 * elements, then the strings they point to.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"
#include "client/pages.h"

struct nicd_list {
	struct pages pages;
	uint32_t type;    /* List */
	uint64_t serial;  /* Who */
};

/* A device has a handful of caps, and they outlive the page that they came with. */
enum { LEDGER_CAPS = 32, LEDGER_CAP_NAME = 40 };
struct nicd_ledger {
	struct pages pages;
	struct nicd_ledger_totals totals;
	struct nicd_cap caps[LEDGER_CAPS];
	char names[LEDGER_CAPS][2][LEDGER_CAP_NAME];
};

/* Copies a string to *at, and moves that behind it. */
static const char *string_put(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *to = memcpy(*at, text, size);

	*at += size;
	return to;
}

/* ------------------------------------------------------------------------------------------------------------ List, Who */

static int list_ask(const struct pages *pages, struct call *call)
{
	const struct nicd_list *list = (const struct nicd_list *)pages;
	Nicd__List body = NICD__LIST__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	body.type = (Nicd__Type)list->type;
	body.cursor = pages->cursor;
	request.call_case = NICD__REQUEST__CALL_LIST;
	request.list = &body;
	return call_submit(call, &request, NULL, 0);
}

static int list_ask_who(const struct pages *pages, struct call *call)
{
	const struct nicd_list *list = (const struct nicd_list *)pages;
	Nicd__Who body = NICD__WHO__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	body.serial = list->serial;
	body.cursor = pages->cursor;
	request.call_case = NICD__REQUEST__CALL_WHO;
	request.who = &body;
	return call_submit(call, &request, NULL, 0);
}

static struct nicd_item list_item(const Nicd__Item *from, char **at)
{
	return (struct nicd_item){
		.size = sizeof(struct nicd_item),
		.type = (uint32_t)from->type,
		.serial = from->serial,
		.session = from->session,
		.parent = from->parent,
		.account = string_put(at, from->account),
		.state = string_put(at, from->state),
		.name = string_put(at, from->name),
		.peer = string_put(at, from->peer),
		.pid = from->pid,
		.uid = from->uid,
		.length = from->size,
		.iova = from->iova,
		.flags = from->flags,
		.count = from->count,
		.bytes_read = from->bytes_read,
		.bytes_written = from->bytes_written,
		.peer_read = from->peer_read,
		.peer_written = from->peer_written,
		.since_ns = from->since_ns,
		.until_ns = from->until_ns,
		.inbound = from->inbound,
		.alive = from->alive,
		.qp = from->qp,
		.fast_register = from->fast_register,
	};
}

static int list_take(struct pages *pages, const Nicd__Reply *reply)
{
	const Nicd__ListReply *list = reply->list;
	struct nicd_item *items;
	size_t size = 1;
	char *at;

	if (reply->result_case != NICD__REPLY__RESULT_LIST)
		return -EPROTO;
	for (size_t i = 0; i < list->n_items; i++)
		size += sizeof(*items) + strlen(list->items[i]->account) + strlen(list->items[i]->state) +
			strlen(list->items[i]->name) + strlen(list->items[i]->peer) + 4;
	items = malloc(size);
	if (!items)
		return -ENOMEM;
	at = (char *)(items + list->n_items);
	for (size_t i = 0; i < list->n_items; i++)
		items[i] = list_item(list->items[i], &at);
	pages->page = items;
	pages->count = (unsigned)list->n_items;
	pages->cursor = list->cursor;
	return 0;
}

static int list_new(struct nicd *n, struct nicd_list **ret, int (*ask)(const struct pages *pages, struct call *call),
		    uint32_t type, uint64_t serial)
{
	struct nicd_list *list;
	int r = conn_check_ret(n, ret);

	if (r < 0)
		return r;
	list = calloc(1, sizeof(*list));
	if (!list)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	list->pages.ask = ask;
	list->pages.take = list_take;
	list->type = type;
	list->serial = serial;
	pages_init(&list->pages, n);
	*ret = list;
	return 0;
}

NICD_API int nicd_list_new(struct nicd *n, uint32_t type, struct nicd_list **ret)
{
	return list_new(n, ret, list_ask, type, 0);
}

NICD_API int nicd_list_who(struct nicd *n, uint64_t serial, struct nicd_list **ret)
{
	return list_new(n, ret, list_ask_who, 0, serial);
}

NICD_API int nicd_list_fetch(struct nicd_list *list)
{
	return pages_fetch(&list->pages);
}

NICD_API int nicd_list_fetch_async(struct nicd_list *list, nicd_callback cb, void *userdata)
{
	return pages_fetch_async(&list->pages, cb, userdata);
}

NICD_API const struct nicd_item *nicd_list_next(struct nicd_list *list)
{
	const struct nicd_item *items = list->pages.page;

	return list->pages.next < list->pages.count ? &items[list->pages.next++] : NULL;
}

NICD_API void nicd_list_free(struct nicd_list *list)
{
	pages_free(list ? &list->pages : NULL);
}

/* --------------------------------------------------------------------------------------------------------------- Ledger */

static int ledger_ask(const struct pages *pages, struct call *call)
{
	Nicd__Ledger body = NICD__LEDGER__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	body.cursor = pages->cursor;
	request.call_case = NICD__REQUEST__CALL_LEDGER;
	request.ledger = &body;
	return call_submit(call, &request, NULL, 0);
}

static struct nicd_ledger_totals ledger_totals(const Nicd__LedgerReply *from)
{
	return (struct nicd_ledger_totals){
		.size = sizeof(struct nicd_ledger_totals),
		.sessions = from->sessions,
		.admin_sessions = from->admin_sessions,
		.open_fds = from->open_fds,
		.held_fds = from->held_fds,
		.objects = from->objects,
		.calls = from->calls,
		.provider_tags = from->provider_tags,
		.provider_memories = from->provider_memories,
		.provider_streams = from->provider_streams,
		.provider_tickets = from->provider_tickets,
		.quarantined = from->quarantined,
		.turns = from->turns,
		.slow_turns = from->slow_turns,
		.longest_turn_us = from->longest_turn_us,
		.longest_turn_cpu_us = from->longest_turn_cpu_us,
		.provider_turns = from->provider_turns,
		.provider_slow_turns = from->provider_slow_turns,
		.provider_longest_turn_us = from->provider_longest_turn_us,
		.provider_longest_turn_cpu_us = from->provider_longest_turn_cpu_us,
	};
}

static void ledger_caps(struct nicd_ledger *ledger, const Nicd__LedgerReply *from)
{
	ledger->totals.caps = ledger->caps;
	ledger->totals.n_caps = from->n_caps < LEDGER_CAPS ? from->n_caps : LEDGER_CAPS;
	for (size_t i = 0; i < ledger->totals.n_caps; i++) {
		const Nicd__Cap *cap = from->caps[i];
		char (*names)[LEDGER_CAP_NAME] = ledger->names[i];

		snprintf(names[0], LEDGER_CAP_NAME, "%s", cap->adapter);
		snprintf(names[1], LEDGER_CAP_NAME, "%s", cap->name);
		ledger->caps[i] = (struct nicd_cap){
			.size = sizeof(struct nicd_cap),
			.counted = cap->counted,
			.adapter = names[0],
			.name = names[1],
			.limit = cap->limit,
			.now = cap->now,
			.refused = cap->refused,
		};
	}
}

static size_t ledger_size(const Nicd__AccountLedger *from)
{
	size_t size = sizeof(struct nicd_account) + strlen(from->account) + 1;

	for (size_t i = 0; i < from->n_charges; i++)
		size += sizeof(struct nicd_charge) + strlen(from->charges[i]->slot) + 1;
	return size;
}

static struct nicd_account ledger_account(const Nicd__AccountLedger *from, struct nicd_charge **charges, char **at)
{
	struct nicd_account account = {
		.size = sizeof(account),
		.n_charges = (uint32_t)from->n_charges,
		.account = string_put(at, from->account),
		.charges = *charges,
	};

	for (size_t i = 0; i < from->n_charges; i++)
		*(*charges)++ = (struct nicd_charge){
			.slot = string_put(at, from->charges[i]->slot),
			.used = from->charges[i]->used,
			.max = from->charges[i]->max,
		};
	return account;
}

static int ledger_take(struct pages *pages, const Nicd__Reply *reply)
{
	const Nicd__LedgerReply *from = reply->ledger;
	struct nicd_account *accounts;
	struct nicd_charge *charges;
	size_t size = 1, n_charges = 0;
	char *at;

	if (reply->result_case != NICD__REPLY__RESULT_LEDGER)
		return -EPROTO;
	for (size_t i = 0; i < from->n_accounts; i++) {
		size += ledger_size(from->accounts[i]);
		n_charges += from->accounts[i]->n_charges;
	}
	accounts = malloc(size);
	if (!accounts)
		return -ENOMEM;
	charges = (struct nicd_charge *)(accounts + from->n_accounts);
	at = (char *)(charges + n_charges);
	for (size_t i = 0; i < from->n_accounts; i++)
		accounts[i] = ledger_account(from->accounts[i], &charges, &at);
	pages->page = accounts;
	pages->count = (unsigned)from->n_accounts;
	pages->cursor = from->cursor;
	((struct nicd_ledger *)pages)->totals = ledger_totals(from);
	ledger_caps((struct nicd_ledger *)pages, from);
	return 0;
}

NICD_API int nicd_ledger_new(struct nicd *n, struct nicd_ledger **ret)
{
	struct nicd_ledger *ledger;
	int r = conn_check_ret(n, ret);

	if (r < 0)
		return r;
	ledger = calloc(1, sizeof(*ledger));
	if (!ledger)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	ledger->pages.ask = ledger_ask;
	ledger->pages.take = ledger_take;
	ledger->totals.size = sizeof(ledger->totals);
	pages_init(&ledger->pages, n);
	*ret = ledger;
	return 0;
}

NICD_API int nicd_ledger_fetch(struct nicd_ledger *ledger)
{
	return pages_fetch(&ledger->pages);
}

NICD_API int nicd_ledger_fetch_async(struct nicd_ledger *ledger, nicd_callback cb, void *userdata)
{
	return pages_fetch_async(&ledger->pages, cb, userdata);
}

NICD_API const struct nicd_account *nicd_ledger_next(struct nicd_ledger *ledger)
{
	const struct nicd_account *accounts = ledger->pages.page;

	return ledger->pages.next < ledger->pages.count ? &accounts[ledger->pages.next++] : NULL;
}

NICD_API const struct nicd_ledger_totals *nicd_ledger_total(const struct nicd_ledger *ledger)
{
	return &ledger->totals;
}

NICD_API void nicd_ledger_free(struct nicd_ledger *ledger)
{
	pages_free(ledger ? &ledger->pages : NULL);
}

/* --------------------------------------------------------------------------------------------------------------- Revoke */

static int revoke_start(struct nicd *n, uint64_t serial, struct nicd_receipt *ret, struct call **call)
{
	Nicd__Revoke body = NICD__REVOKE__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	int r = attr_check(n, ret, sizeof(*ret));

	if (r >= 0)
		r = call_new(call, n, NULL, receipt_finish);
	if (r < 0)
		return r;
	(*call)->ret = ret;
	body.serial = serial;
	request.call_case = NICD__REQUEST__CALL_REVOKE;
	request.revoke = &body;
	return call_submit(*call, &request, NULL, 0);
}

CALL_TWINS(nicd_revoke, (struct nicd *n, uint64_t serial, struct nicd_receipt *ret),
	   revoke_start(n, serial, ret, &call))
