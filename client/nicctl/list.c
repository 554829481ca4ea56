/* SPDX-License-Identifier: MIT */
/* nicctl … list, who, revoke: what is named by serial. A listing is a row of columns; a column knows its cell. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/nicctl/nicctl.h"

typedef void (*list_cell)(struct nicctl_table *table, const struct nicd_item *item);

#define CELL(name, call)                                                                                                         \
	static void list_##name(struct nicctl_table *table, const struct nicd_item *item)                                        \
	{                                                                                                                        \
		call;                                                                                                            \
	}
CELL(serial, nicctl_cell_number(table, item->serial))
CELL(account, nicctl_cell(table, item->account))
CELL(session, nicctl_cell_serial(table, item->session))
CELL(state, nicctl_cell(table, item->state))
CELL(name, nicctl_cell(table, item->name))
CELL(parent, nicctl_cell_serial(table, item->parent))
CELL(pid, nicctl_cell_number(table, item->pid))
CELL(uid, nicctl_cell_number(table, item->uid))
CELL(size, nicctl_cell_bytes(table, item->length))
CELL(iova, nicctl_cell_hex(table, item->iova))
CELL(access, nicctl_cell_access(table, item->flags))
CELL(flags, nicctl_cell_hex(table, item->flags))
CELL(count, nicctl_cell_number(table, item->count))
CELL(peer, nicctl_cell(table, item->peer))
CELL(bytes_read, nicctl_cell_number(table, item->bytes_read))
CELL(bytes_written, nicctl_cell_number(table, item->bytes_written))
CELL(peer_read, nicctl_cell_number(table, item->peer_read))
CELL(peer_written, nicctl_cell_number(table, item->peer_written))
CELL(since, nicctl_cell_time(table, item->since_ns))
CELL(until, nicctl_cell_time(table, item->until_ns))
CELL(inbound, nicctl_cell_bool(table, item->inbound))
CELL(alive, nicctl_cell_bool(table, item->alive))
CELL(qp, nicctl_cell_serial(table, item->qp))

/* Of any type, for who. */
static void list_type(struct nicctl_table *table, const struct nicd_item *item)
{
	static const char *const names[] = {
		[NICD_TYPE_ADAPTER] = "adapter", [NICD_TYPE_SESSION] = "session", [NICD_TYPE_MEMORY] = "memory",
		[NICD_TYPE_PD] = "pd", [NICD_TYPE_MR] = "mr", [NICD_TYPE_MW] = "mw", [NICD_TYPE_MAPPING] = "mapping",
		[NICD_TYPE_QP] = "qp", [NICD_TYPE_TICKET] = "ticket", [NICD_TYPE_EXPORT] = "export", [NICD_TYPE_GRANT] = "grant",
	};

	nicctl_cell(table, item->type < sizeof(names) / sizeof(names[0]) ? names[item->type] : NULL);
}

static void list_kind_of_mr(struct nicctl_table *table, const struct nicd_item *item)
{
	nicctl_cell(table, item->fast_register ? "fast" : "normal");
}

struct list_column {
	struct nicctl_column column;
	list_cell cell;
};

enum { LIST_COLUMNS = 16 };

struct list_kind {
	const char *name;   /* in JSON */
	struct list_column columns[LIST_COLUMNS];
};

static const struct list_kind list_kinds[] = {
	[NICD_TYPE_SESSION] = { "sessions", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "CLIENT", NICCTL_TEXT }, list_name },
		{ { "PID", NICCTL_NUMBER }, list_pid },
		{ { "UID", NICCTL_NUMBER }, list_uid },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "ALIVE", NICCTL_BOOL }, list_alive },
		{ { "OBJECTS", NICCTL_NUMBER }, list_count },
		{ { "SINCE", NICCTL_TEXT }, list_since },
	} },
	[NICD_TYPE_MEMORY] = { "memories", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "SIZE", NICCTL_NUMBER }, list_size },
		{ { "RANGES", NICCTL_NUMBER }, list_count },
	} },
	[NICD_TYPE_PD] = { "pds", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "CHILDREN", NICCTL_NUMBER }, list_count },
	} },
	[NICD_TYPE_MR] = { "mrs", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "PD", NICCTL_NUMBER }, list_parent },
		{ { "KIND", NICCTL_TEXT }, list_kind_of_mr },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "SIZE", NICCTL_NUMBER }, list_size },
		{ { "IOVA", NICCTL_TEXT }, list_iova },
		{ { "ACCESS", NICCTL_TEXT }, list_access },
		{ { "FLAGS", NICCTL_TEXT }, list_flags },
	} },
	[NICD_TYPE_MW] = { "mws", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "MR", NICCTL_NUMBER }, list_parent },
		{ { "QP", NICCTL_NUMBER }, list_qp },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "SIZE", NICCTL_NUMBER }, list_size },
		{ { "IOVA", NICCTL_TEXT }, list_iova },
		{ { "ACCESS", NICCTL_TEXT }, list_access },
		{ { "FLAGS", NICCTL_TEXT }, list_flags },
	} },
	[NICD_TYPE_MAPPING] = { "mappings", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "SIZE", NICCTL_NUMBER }, list_size },
		{ { "ADDRESS", NICCTL_TEXT }, list_iova },
		{ { "USES", NICCTL_NUMBER }, list_count },
	} },
	[NICD_TYPE_QP] = { "qps", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "PD", NICCTL_NUMBER }, list_parent },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "PEER", NICCTL_TEXT }, list_peer },
		{ { "INBOUND", NICCTL_BOOL }, list_inbound },
		{ { "IN_FLIGHT", NICCTL_NUMBER }, list_count },
		{ { "BYTES_READ", NICCTL_NUMBER }, list_bytes_read },
		{ { "BYTES_WRITTEN", NICCTL_NUMBER }, list_bytes_written },
		{ { "PEER_READ", NICCTL_NUMBER }, list_peer_read },
		{ { "PEER_WRITTEN", NICCTL_NUMBER }, list_peer_written },
		{ { "SINCE", NICCTL_TEXT }, list_since },
	} },
	[NICD_TYPE_TICKET] = { "tickets", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "MR", NICCTL_NUMBER }, list_parent },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "USES_LEFT", NICCTL_NUMBER }, list_count },
		{ { "UNTIL", NICCTL_TEXT }, list_until },
	} },
	[NICD_TYPE_EXPORT] = { "exports", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "MR", NICCTL_NUMBER }, list_parent },
		{ { "NAME", NICCTL_TEXT }, list_name },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "SIZE", NICCTL_NUMBER }, list_size },
		{ { "ACCESS", NICCTL_TEXT }, list_access },
		{ { "USES_LEFT", NICCTL_NUMBER }, list_count },
		{ { "SINCE", NICCTL_TEXT }, list_since },
		{ { "UNTIL", NICCTL_TEXT }, list_until },
	} },
	[NICD_TYPE_GRANT] = { "grants", {
		{ { "SERIAL", NICCTL_NUMBER }, list_serial },
		{ { "ACCOUNT", NICCTL_TEXT }, list_account },
		{ { "SESSION", NICCTL_NUMBER }, list_session },
		{ { "EXPORT", NICCTL_NUMBER }, list_parent },
		{ { "STATE", NICCTL_TEXT }, list_state },
		{ { "PEER", NICCTL_TEXT }, list_peer },
		{ { "ACCESS", NICCTL_TEXT }, list_access },
		{ { "SIZE", NICCTL_NUMBER }, list_size },
		{ { "SINCE", NICCTL_TEXT }, list_since },
		{ { "UNTIL", NICCTL_TEXT }, list_until },
	} },
};

static const struct list_kind list_kind_who = { "who", {
	{ { "TYPE", NICCTL_TEXT }, list_type },
	{ { "SERIAL", NICCTL_NUMBER }, list_serial },
	{ { "PARENT", NICCTL_NUMBER }, list_parent },
	{ { "STATE", NICCTL_TEXT }, list_state },
	{ { "PEER", NICCTL_TEXT }, list_peer },
	{ { "ACCESS", NICCTL_TEXT }, list_access },
	{ { "PEER_READ", NICCTL_NUMBER }, list_peer_read },
	{ { "PEER_WRITTEN", NICCTL_NUMBER }, list_peer_written },
	{ { "SINCE", NICCTL_TEXT }, list_since },
	{ { "UNTIL", NICCTL_TEXT }, list_until },
} };

/* Takes the list. */
static int list_print(struct nicctl *c, const struct list_kind *kind, struct nicd_list *list)
{
	struct nicctl_column columns[LIST_COLUMNS];
	const struct nicd_item *item;
	struct nicctl_table *table;
	unsigned n;
	int count;

	for (n = 0; n < LIST_COLUMNS && kind->columns[n].cell; n++)
		columns[n] = kind->columns[n].column;
	table = nicctl_table_new(c, kind->name, false, columns, n);
	while ((count = nicd_list_fetch(list)) > 0) {
		while ((item = nicd_list_next(list))) {
			nicctl_row(table);
			for (unsigned i = 0; i < n; i++)
				kind->columns[i].cell(table, item);
		}
	}
	if (count < 0)
		return nicctl_failed(c);
	nicd_list_free(list);
	return nicctl_print(c);
}

int nicctl_list(struct nicctl *c)
{
	struct nicd_list *list;

	if (nicd_list_new(c->n, c->command->param, &list) < 0)
		return nicctl_failed(c);
	return list_print(c, &list_kinds[c->command->param], list);
}

int nicctl_serial_parse(struct nicctl *c, const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno)
		return nicctl_usage(c, "a serial is a number as the lists show it, not '%s'", text);
	return NICCTL_OK;
}

int nicctl_who(struct nicctl *c)
{
	struct nicd_list *list;
	uint64_t serial;
	int r = nicctl_serial_parse(c, c->args[0], &serial);

	if (r != NICCTL_OK)
		return r;
	if (nicd_list_who(c->n, serial, &list) < 0)
		return nicctl_failed(c);
	return list_print(c, &list_kind_who, list);
}

int nicctl_revoke(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "SERIAL", NICCTL_NUMBER }, { "AT", NICCTL_TEXT }, { "STREAMS_CUT", NICCTL_NUMBER }, { "EXPORTS", NICCTL_NUMBER },
		{ "GRANTS", NICCTL_NUMBER },
	};
	struct nicd_receipt receipt = { .size = sizeof(receipt) };
	struct nicctl_table *table;
	uint64_t serial;
	int r = nicctl_serial_parse(c, c->args[0], &serial);

	if (r != NICCTL_OK)
		return r;
	if (nicd_revoke(c->n, serial, &receipt) < 0)
		return nicctl_failed(c);
	table = nicctl_table_new(c, "receipt", true, columns, sizeof(columns) / sizeof(columns[0]));
	nicctl_row(table);
	nicctl_cell_number(table, receipt.serial);
	nicctl_cell_time(table, receipt.at_ns);
	nicctl_cell_number(table, receipt.streams_cut);
	nicctl_cell_number(table, receipt.n_exports);
	nicctl_cell_number(table, receipt.grants);
	return nicctl_print(c);
}
