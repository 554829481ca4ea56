/* SPDX-License-Identifier: MIT */
/* nicctl status, device show, extension list, ledger, errors. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/nicctl/nicctl.h"

#define COLUMNS(array) (array), sizeof(array) / sizeof((array)[0])

static const char *const show_roles[] = {
	[NICD_ROLE_CLIENT] = "client",
	[NICD_ROLE_GATEWAY] = "gateway",
	[NICD_ROLE_ADMIN] = "admin",
};

static void show_session(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "DAEMON", NICCTL_TEXT }, { "PROTOCOL", NICCTL_TEXT }, { "ROLE", NICCTL_TEXT }, { "ACCOUNT", NICCTL_TEXT },
		{ "SESSION", NICCTL_NUMBER }, { "BOOT_ID", NICCTL_TEXT },
	};
	struct nicctl_table *table = nicctl_table_new(c, "status", true, COLUMNS(columns));
	const struct nicd_session_info *info = nicd_session(c->n);
	char text[2 * sizeof(info->boot_id) + 1];

	nicctl_row(table);
	nicctl_cell(table, info->daemon);
	snprintf(text, sizeof(text), "%u.%u", info->major, info->minor);
	nicctl_cell(table, text);
	nicctl_cell(table, info->role < sizeof(show_roles) / sizeof(show_roles[0]) ? show_roles[info->role] : "?");
	nicctl_cell(table, info->account);
	nicctl_cell_number(table, info->serial);
	for (unsigned i = 0; i < sizeof(info->boot_id); i++)
		snprintf(text + 2 * i, 3, "%02x", info->boot_id[i]);
	nicctl_cell(table, text);
}

int nicctl_status(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "DEVICE", NICCTL_TEXT }, { "PROVIDER", NICCTL_TEXT }, { "UP", NICCTL_BOOL }, { "ADDRESS", NICCTL_TEXT },
	};
	struct nicctl_table *table;

	show_session(c);
	table = nicctl_table_new(c, "devices", false, COLUMNS(columns));
	for (unsigned i = 0; i < nicd_adapter_count(c->n); i++) {
		const struct nicd_adapter_info *info = nicd_adapter(c->n, i);

		nicctl_row(table);
		nicctl_cell(table, info->name);
		nicctl_cell(table, info->provider);
		nicctl_cell_bool(table, info->up);
		nicctl_cell(table, info->data_address);
	}
	return nicctl_print(c);
}

static void show_adapter_flags(struct nicctl_table *table, uint32_t flags)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} names[] = {
		{ NICD_ADAPTER_IN_ORDER_DMA, "IN_ORDER_DMA" },
		{ NICD_ADAPTER_READ_SINK_NOT_REQUIRED, "READ_SINK_NOT_REQUIRED" },
		{ NICD_ADAPTER_CQ_INTERRUPT_MODERATION, "CQ_INTERRUPT_MODERATION" },
		{ NICD_ADAPTER_MULTI_ENGINE, "MULTI_ENGINE" },
		{ NICD_ADAPTER_READ_LOCAL_INVALIDATE, "READ_LOCAL_INVALIDATE" },
		{ NICD_ADAPTER_CQ_RESIZE, "CQ_RESIZE" },
		{ NICD_ADAPTER_LOOPBACK, "LOOPBACK" },
	};
	char text[256] = "";
	size_t len = 0;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (flags & names[i].flag)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len ? "," : "", names[i].name);
	}
	nicctl_cell(table, text);
}

/* 0: the device knows no limit. */
static void show_device_limit(struct nicctl_table *table, uint64_t limit, bool bytes)
{
	if (!limit)
		nicctl_cell_unknown(table);
	else if (bytes)
		nicctl_cell_bytes(table, limit);
	else
		nicctl_cell_number(table, limit);
}

int nicctl_device_show(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "NAME", NICCTL_TEXT }, { "PROVIDER", NICCTL_TEXT }, { "UP", NICCTL_BOOL }, { "ADDRESS", NICCTL_TEXT },
		{ "SERIAL", NICCTL_NUMBER }, { "INCARNATION", NICCTL_TEXT }, { "FLAGS", NICCTL_TEXT },
		{ "MAX_REGISTRATION_SIZE", NICCTL_NUMBER }, { "MAX_WINDOW_SIZE", NICCTL_NUMBER },
		{ "MAX_TRANSFER_LENGTH", NICCTL_NUMBER }, { "MAX_TRANSFER_ENTRIES", NICCTL_NUMBER },
		{ "MAX_PINNED_BYTES", NICCTL_NUMBER }, { "MAX_PD", NICCTL_NUMBER }, { "MAX_MR", NICCTL_NUMBER },
		{ "MAX_MW", NICCTL_NUMBER }, { "MAX_QP", NICCTL_NUMBER }, { "MAX_RANGES", NICCTL_NUMBER },
		{ "MAX_INBOUND_READ", NICCTL_NUMBER }, { "MAX_OUTBOUND_READ", NICCTL_NUMBER },
		{ "FRMR_PAGE_COUNT", NICCTL_NUMBER }, { "MAX_FAST_PAGES", NICCTL_NUMBER }, { "MAX_INLINE", NICCTL_NUMBER },
		{ "MAX_MAPPINGS", NICCTL_NUMBER }, { "PRIVILEGED_TOKEN", NICCTL_BOOL }, { "DEVICE_MAX_PD", NICCTL_NUMBER },
		{ "DEVICE_MAX_MR", NICCTL_NUMBER }, { "DEVICE_MAX_MW", NICCTL_NUMBER }, { "DEVICE_MAX_QP", NICCTL_NUMBER },
		{ "DEVICE_MAX_PINNED_BYTES", NICCTL_NUMBER },
	};
	struct nicctl_table *table = nicctl_table_new(c, "devices", true, COLUMNS(columns));

	for (unsigned i = 0; i < nicd_adapter_count(c->n); i++) {
		const struct nicd_adapter_info *info;

		if (nicd_adapter_query(c->n, i) < 0)
			return nicctl_failed(c);
		info = nicd_adapter(c->n, i);
		nicctl_row(table);
		nicctl_cell(table, info->name);
		nicctl_cell(table, info->provider);
		nicctl_cell_bool(table, info->up);
		nicctl_cell(table, info->data_address);
		nicctl_cell_number(table, info->serial);
		nicctl_cell_hex(table, info->incarnation);
		show_adapter_flags(table, info->flags);
		nicctl_cell_bytes(table, info->max_registration_size);
		nicctl_cell_bytes(table, info->max_window_size);
		nicctl_cell_bytes(table, info->max_transfer_length);
		nicctl_cell_number(table, info->max_transfer_entries);
		nicctl_cell_bytes(table, info->max_pinned_bytes);
		nicctl_cell_number(table, info->max_pd);
		nicctl_cell_number(table, info->max_mr);
		nicctl_cell_number(table, info->max_mw);
		nicctl_cell_number(table, info->max_qp);
		nicctl_cell_number(table, info->max_ranges);
		nicctl_cell_number(table, info->max_inbound_read);
		nicctl_cell_number(table, info->max_outbound_read);
		nicctl_cell_number(table, info->frmr_page_count);
		nicctl_cell_number(table, info->max_fast_pages);
		nicctl_cell_number(table, info->max_inline);
		nicctl_cell_number(table, info->max_mappings);
		nicctl_cell_bool(table, info->privileged_token);
		show_device_limit(table, info->device_max_pd, false);
		show_device_limit(table, info->device_max_mr, false);
		show_device_limit(table, info->device_max_mw, false);
		show_device_limit(table, info->device_max_qp, false);
		show_device_limit(table, info->device_max_pinned_bytes, true);
	}
	return nicctl_print(c);
}

static void show_extension_objects(struct nicctl_table *table, uint32_t objects)
{
	static const char *const names[] = {
		[NICD_TYPE_ADAPTER] = "device", [NICD_TYPE_MEMORY] = "memory", [NICD_TYPE_PD] = "pd", [NICD_TYPE_MR] = "mr",
		[NICD_TYPE_MW] = "mw", [NICD_TYPE_MAPPING] = "mapping", [NICD_TYPE_QP] = "qp", [NICD_TYPE_TICKET] = "ticket",
		[NICD_TYPE_EXPORT] = "export",
	};
	char text[128] = "";
	size_t len = 0;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i] && (objects & 1u << i))
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len ? "," : "", names[i]);
	}
	nicctl_cell(table, text);
}

static void show_uuid(struct nicctl_table *table, const uint8_t uuid[16])
{
	char text[37];
	size_t len = 0;

	for (unsigned i = 0; i < 16; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	nicctl_cell(table, text);
}

int nicctl_extension_list(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "DEVICE", NICCTL_TEXT }, { "NAME", NICCTL_TEXT }, { "VERSION", NICCTL_NUMBER }, { "UUID", NICCTL_TEXT },
		{ "OBJECTS", NICCTL_TEXT }, { "CALLS", NICCTL_TEXT },
	};
	struct nicctl_table *table = nicctl_table_new(c, "extensions", false, COLUMNS(columns));
	struct nicd_extension extensions[64];

	for (unsigned i = 0; i < nicd_adapter_count(c->n); i++) {
		unsigned count = sizeof(extensions) / sizeof(extensions[0]);
		const struct nicd_adapter_info *info = nicd_adapter(c->n, i);

		for (unsigned j = 0; j < count; j++)
			extensions[j].size = sizeof(extensions[j]);
		if (nicd_query_extension(c->n, NICD_TYPE_ADAPTER, info, NULL, 0, extensions, &count) < 0)
			return nicctl_failed(c);
		for (unsigned j = 0; j < count && j < sizeof(extensions) / sizeof(extensions[0]); j++) {
			nicctl_row(table);
			nicctl_cell(table, info->name);
			nicctl_cell(table, extensions[j].name);
			nicctl_cell_number(table, extensions[j].version);
			show_uuid(table, extensions[j].uuid);
			show_extension_objects(table, extensions[j].objects);
			nicctl_cell(table, extensions[j].calls);
		}
	}
	return nicctl_print(c);
}

static void show_admins_cell(struct nicctl *c, struct nicctl_table *table, uint64_t value)
{
	if (nicd_session(c->n)->role == NICD_ROLE_ADMIN)
		nicctl_cell_number(table, value);
	else
		nicctl_cell_unknown(table);
}

/* What the daemon and its devices hold as a whole only admins are told. */
static void show_totals(struct nicctl *c, struct nicctl_table *table, const struct nicd_ledger_totals *totals)
{
	nicctl_row(table);
	nicctl_cell_number(table, totals->sessions);
	nicctl_cell_number(table, totals->admin_sessions);
	nicctl_cell_number(table, totals->objects);
	nicctl_cell_number(table, totals->calls);
	show_admins_cell(c, table, totals->open_fds);
	nicctl_cell_number(table, totals->held_fds);
	show_admins_cell(c, table, totals->provider_tags);
	show_admins_cell(c, table, totals->provider_memories);
	show_admins_cell(c, table, totals->provider_streams);
	show_admins_cell(c, table, totals->provider_tickets);
	show_admins_cell(c, table, totals->quarantined);
	show_admins_cell(c, table, totals->turns);
	show_admins_cell(c, table, totals->slow_turns);
	show_admins_cell(c, table, totals->longest_turn_us);
	show_admins_cell(c, table, totals->longest_turn_cpu_us);
	show_admins_cell(c, table, totals->provider_turns);
	show_admins_cell(c, table, totals->provider_slow_turns);
	show_admins_cell(c, table, totals->provider_longest_turn_us);
	show_admins_cell(c, table, totals->provider_longest_turn_cpu_us);
}

static void show_account(struct nicctl_table *table, const struct nicd_account *account)
{
	for (unsigned i = 0; i < account->n_charges; i++) {
		const struct nicd_charge *charge = &account->charges[i];

		nicctl_row(table);
		nicctl_cell(table, account->account);
		nicctl_cell(table, charge->slot);
		nicctl_cell_number(table, charge->used);
		nicctl_cell_number(table, charge->max);
	}
}

static void show_caps(struct nicctl_table *table, const struct nicd_ledger_totals *totals)
{
	for (uint64_t i = 0; i < totals->n_caps; i++) {
		const struct nicd_cap *cap = &totals->caps[i];

		nicctl_row(table);
		nicctl_cell(table, cap->adapter);
		nicctl_cell(table, cap->name);
		nicctl_cell_number(table, cap->limit);
		if (cap->counted)
			nicctl_cell_number(table, cap->now);
		else
			nicctl_cell_unknown(table);
		nicctl_cell_number(table, cap->refused);
	}
}

int nicctl_ledger(struct nicctl *c)
{
	static const struct nicctl_column cap_columns[] = {
		{ "ADAPTER", NICCTL_TEXT }, { "CAP", NICCTL_TEXT }, { "LIMIT", NICCTL_NUMBER }, { "NOW", NICCTL_NUMBER },
		{ "REFUSED", NICCTL_NUMBER },
	};
	static const struct nicctl_column totals_columns[] = {
		{ "SESSIONS", NICCTL_NUMBER }, { "ADMIN_SESSIONS", NICCTL_NUMBER }, { "OBJECTS", NICCTL_NUMBER },
		{ "CALLS", NICCTL_NUMBER }, { "OPEN_FDS", NICCTL_NUMBER }, { "HELD_FDS", NICCTL_NUMBER },
		{ "PROVIDER_TAGS", NICCTL_NUMBER }, { "PROVIDER_MEMORIES", NICCTL_NUMBER }, { "PROVIDER_STREAMS", NICCTL_NUMBER },
		{ "PROVIDER_TICKETS", NICCTL_NUMBER }, { "QUARANTINED", NICCTL_NUMBER },
		{ "TURNS", NICCTL_NUMBER }, { "SLOW_TURNS", NICCTL_NUMBER }, { "LONGEST_TURN_US", NICCTL_NUMBER },
		{ "LONGEST_TURN_CPU_US", NICCTL_NUMBER }, { "PROVIDER_TURNS", NICCTL_NUMBER },
		{ "PROVIDER_SLOW_TURNS", NICCTL_NUMBER }, { "PROVIDER_LONGEST_TURN_US", NICCTL_NUMBER },
		{ "PROVIDER_LONGEST_TURN_CPU_US", NICCTL_NUMBER },
	};
	static const struct nicctl_column charge_columns[] = {
		{ "ACCOUNT", NICCTL_TEXT }, { "SLOT", NICCTL_TEXT }, { "USED", NICCTL_NUMBER }, { "MAX", NICCTL_NUMBER },
	};
	struct nicctl_table *totals = nicctl_table_new(c, "totals", true, COLUMNS(totals_columns));
	struct nicctl_table *charges = nicctl_table_new(c, "charges", false, COLUMNS(charge_columns));
	struct nicctl_table *caps = NULL;
	const struct nicd_account *account;
	struct nicd_ledger *ledger;
	int count;

	if (nicd_session(c->n)->role == NICD_ROLE_ADMIN)
		caps = nicctl_table_new(c, "caps", false, COLUMNS(cap_columns));

	if (nicd_ledger_new(c->n, &ledger) < 0)
		return nicctl_failed(c);
	while ((count = nicd_ledger_fetch(ledger)) > 0) {
		while ((account = nicd_ledger_next(ledger)))
			show_account(charges, account);
	}
	if (count < 0)
		return nicctl_failed(c);
	show_totals(c, totals, nicd_ledger_total(ledger));
	if (caps)
		show_caps(caps, nicd_ledger_total(ledger));
	nicd_ledger_free(ledger);
	return nicctl_print(c);
}

/* The table of errors is in the library: nicd need not run. */
int nicctl_errors(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "REASON", NICCTL_NUMBER }, { "NAME", NICCTL_TEXT }, { "STATUS", NICCTL_TEXT }, { "NTSTATUS", NICCTL_TEXT },
		{ "ERRNO", NICCTL_TEXT }, { "WIRE", NICCTL_TEXT }, { "TEXT", NICCTL_TEXT }, { "CURE", NICCTL_TEXT },
	};
	struct nicctl_table *table = nicctl_table_new(c, "errors", false, COLUMNS(columns));
	struct nicd_error_row row = { .size = sizeof(row) };
	char text[NICD_ERROR_WIRE * 8];

	for (unsigned i = 0; nicd_error_get(i, &row) == 0; i++) {
		const char *name = row.error ? strerrorname_np(-row.error) : NULL;
		size_t len = 0;

		nicctl_row(table);
		nicctl_cell_number(table, row.reason);
		nicctl_cell(table, row.name);
		nicctl_cell(table, row.status);
		nicctl_cell_hex(table, row.ntstatus);
		nicctl_cell(table, name);
		text[0] = 0;
		for (unsigned j = 0; j < row.n_wire; j++)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s0x%04x", j ? "," : "", row.wire[j]);
		nicctl_cell(table, text);
		nicctl_cell(table, row.text);
		nicctl_cell(table, row.cure);
	}
	return nicctl_print(c);
}
