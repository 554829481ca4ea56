/* SPDX-License-Identifier: MIT */
/*
 * Ledger: every object, descriptor, byte and charge there is, so that a leak shows. The devices are asked one after the
 * other what they hold; the rest is counted when the last has answered.
 */
#include "daemon/method.h"

#include <sys/param.h>

#include "daemon/util.h"

enum {
	LEDGER_ACCOUNTS = 54,
	LEDGER_CHARGE = 64,   /* bytes of an encoded charge, at most */
	LEDGER_CAPS = 2 * NIC_CAPS,
	LEDGER_CAP = 128,
};
_Static_assert(LEDGER_ACCOUNTS * (sizeof(((struct nic_account *)0)->key) + NIC_SLOT_COUNT * LEDGER_CHARGE) +
	       LEDGER_CAPS * LEDGER_CAP + 1024 < NICD_FRAME_MAX,
	       "a page fits a frame");

/* An account's row with all that it points to. */
struct ledger_row {
	Nicd__AccountLedger account;
	Nicd__Charge charges[NIC_SLOT_COUNT];
	Nicd__Charge *pointers[NIC_SLOT_COUNT];
};

struct ledger_page {
	Nicd__AccountLedger *accounts[LEDGER_ACCOUNTS];
	struct ledger_row rows[LEDGER_ACCOUNTS];
	Nicd__Cap *cap_pointers[LEDGER_CAPS];
	Nicd__Cap caps[LEDGER_CAPS];
};

/* ---- the devices */

static void ledger_ask(struct call *call);

static void ledger_device_turns(struct turns_report *all, const struct turns_report *one)
{
	all->turns += one->turns;
	all->slow += one->slow;
	if (one->longest_us > all->longest_us)
		all->longest_us = one->longest_us;
	if (one->longest_cpu_us > all->longest_cpu_us)
		all->longest_cpu_us = one->longest_cpu_us;
}

static void ledger_told(struct nic_cmd *cmd)
{
	struct call *call = container_of(cmd, struct call, work.cmd);

	if (cmd->error.reason == NICD_R_NONE) {
		call->ledger.memories += cmd->stats.memories;
		call->ledger.tags += cmd->stats.tags;
		call->ledger.tickets += cmd->stats.tickets;
		call->ledger.streams += cmd->stats.streams;
		ledger_device_turns(&call->client->host->device_turns, &cmd->stats.turns);
	}
	call->ledger.asked = TAILQ_NEXT(call->ledger.asked, of_owner);
	ledger_ask(call);
}

static void ledger_ask(struct call *call)
{
	if (call->ledger.asked)
		nic_adapter_stats(container_of(call->ledger.asked, struct nic_adapter, object), &call->work.cmd, ledger_told);
	else
		call_answer(call, NULL);
}

int method_ledger(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Ledger *args = request->args;
	struct client *client = request->client;

	call->ledger.cursor = args->cursor;
	/* One's own sessions are counted one by one, as List does; an admin's page is so many accounts. */
	if (!client->host->bulk_steps)
		return nicd_refuse(err, NICD_R_IN_FLIGHT);
	if (client->identity.role == CLIENT_ROLE_ADMIN)
		client->host->bulk_steps -= MIN(client->host->bulk_steps, (uint32_t)LEDGER_ACCOUNTS);
	/* What devices hold is not one account's. */
	if (client->identity.role == CLIENT_ROLE_ADMIN)
		call->ledger.asked = TAILQ_FIRST(&client->host->nic->adapters);
	ledger_ask(call);
	return 0;
}

/* ---- accounts */

static void ledger_row_fill(struct ledger_row *row, const struct nic_account *account)
{
	nicd__account_ledger__init(&row->account);
	row->account.account = (char *)account->key;
	row->account.n_charges = NIC_SLOT_COUNT;
	row->account.charges = row->pointers;
	for (unsigned i = 0; i < NIC_SLOT_COUNT; i++) {
		nicd__charge__init(&row->charges[i]);
		row->charges[i].slot = (char *)nic_slot_names[i];
		row->charges[i].used = account->used[i];
		row->charges[i].max = account->limits.max[i];
		row->pointers[i] = &row->charges[i];
	}
}

/* The cursor is the number of the last account shown. */
static void ledger_accounts(struct call *call, struct ledger_page *page, Nicd__LedgerReply *reply)
{
	struct client *client = call->client;
	struct nic_accounts *accounts = &client->host->nic->accounts;
	struct nic_account *account;

	reply->accounts = page->accounts;
	if (client->identity.role != CLIENT_ROLE_ADMIN) {
		if (call->ledger.cursor)
			return;
		ledger_row_fill(&page->rows[0], client->owner.account);
		page->accounts[reply->n_accounts++] = &page->rows[0].account;
		return;
	}
	account = nic_account_next(accounts, call->ledger.cursor);
	while (account && reply->n_accounts < LEDGER_ACCOUNTS) {
		struct ledger_row *row = &page->rows[reply->n_accounts];

		ledger_row_fill(row, account);
		page->accounts[reply->n_accounts++] = &row->account;
		reply->cursor = account->number;
		account = nic_account_next(accounts, account->number);
	}
	if (!account)
		reply->cursor = 0;
}

/* ---- totals */

/* With the last page, because what is told is forgotten. */
static void ledger_turns(struct client_host *host, Nicd__LedgerReply *reply)
{
	struct turns_report own = turns_take(&host->turns, host->env->now(host->env)), *device = &host->device_turns;

	reply->turns = own.turns;
	reply->slow_turns = own.slow;
	reply->longest_turn_us = own.longest_us;
	reply->longest_turn_cpu_us = own.longest_cpu_us;
	reply->provider_turns = device->turns;
	reply->provider_slow_turns = device->slow;
	reply->provider_longest_turn_us = device->longest_us;
	reply->provider_longest_turn_cpu_us = device->longest_cpu_us;
	*device = (struct turns_report){ 0 };
}

static void ledger_caps(const struct client_host *host, struct ledger_page *page, Nicd__LedgerReply *reply)
{
	const struct nic_object *object;

	reply->caps = page->cap_pointers;
	TAILQ_FOREACH(object, &host->nic->adapters, of_owner) {
		const struct nic_adapter *adapter = container_of(object, const struct nic_adapter, object);

		for (unsigned i = 0; i < adapter->caps.n && reply->n_caps < LEDGER_CAPS; i++) {
			Nicd__Cap *cap = &page->caps[reply->n_caps];

			nicd__cap__init(cap);
			cap->adapter = (char *)adapter->provider->name;
			cap->name = (char *)adapter->caps.cap[i].name;
			cap->limit = adapter->caps.cap[i].limit;
			cap->now = adapter->caps.cap[i].now;
			cap->counted = adapter->caps.cap[i].counted;
			cap->refused = adapter->caps.cap[i].refused;
			page->cap_pointers[reply->n_caps++] = cap;
		}
	}
}

static void ledger_all(const struct call *call, struct ledger_page *page, Nicd__LedgerReply *reply)
{
	struct client_host *host = call->client->host;

	reply->sessions = host->n_clients;
	reply->admin_sessions = host->n_admins;
	reply->open_fds = host->open_fds(host);
	reply->held_fds = (uint32_t)host->nic->held_fds;
	for (unsigned type = NIC_MEMORY; type < NIC_TYPE_COUNT; type++)
		reply->objects += host->nic->count[type];
	reply->calls = host->n_calls - 1;
	reply->provider_tags = call->ledger.tags;
	reply->provider_memories = call->ledger.memories;
	reply->provider_streams = call->ledger.streams;
	reply->provider_tickets = call->ledger.tickets;
	reply->quarantined = host->nic->quarantined;
	if (!reply->cursor) {
		ledger_turns(host, reply);
		ledger_caps(host, page, reply);
	}
}

static void ledger_own(const struct call *call, Nicd__LedgerReply *reply)
{
	const struct nic_account *account = call->client->owner.account;
	struct client_host *host = call->client->host;
	struct client *client = client_next(host, account, 0);

	/* Those of one account stand together. */
	for (; client && client->owner.account == account; client = RB_NEXT(client_accounts, &host->accounts, client)) {
		reply->sessions += !client->identity.admin_socket;
		reply->admin_sessions += client->identity.admin_socket;
		reply->objects += client->owner.n_objects;
		reply->calls += client->n_calls;
		host->bulk_steps -= host->bulk_steps > 0;
	}
	reply->calls--;
	reply->held_fds = (uint32_t)account->used[NIC_SLOT_FDS];
}

void method_ledger_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	struct client *client = call->client;
	struct nicd_error refused = { 0 };
	struct ledger_page *page = answer_alloc(answer, client->host->env, sizeof(*page));

	if (!page) {
		nicd_refuse(&refused, NICD_R_NO_MEMORY);
		answer_refuse(answer, &refused);
		return;
	}
	nicd__ledger_reply__init(&answer->ledger);
	ledger_accounts(call, page, &answer->ledger);
	if (client->identity.role == CLIENT_ROLE_ADMIN)
		ledger_all(call, page, &answer->ledger);
	else
		ledger_own(call, &answer->ledger);
	answer->reply.ledger = &answer->ledger;
	answer->reply.result_case = NICD__REPLY__RESULT_LEDGER;
}
