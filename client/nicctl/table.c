/* SPDX-License-Identifier: MIT */
/*
 * What nicctl tells on stdout. A command makes its tables, fills them row by row, and prints them all at once: for people one
 * below the other, as JSON one document whose members are the tables. Out of memory ends the program.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libsmartcols.h>

#include "client/nicctl/nicctl.h"

struct nicctl_table {
	struct libscols_table *scols;
	struct libscols_line *line;   /* being filled */
	unsigned next;                /* cell */
	bool record, json;
};

static const int table_json_types[] = {
	[NICCTL_TEXT] = SCOLS_JSON_STRING,
	[NICCTL_NUMBER] = SCOLS_JSON_NUMBER,
	[NICCTL_BOOL] = SCOLS_JSON_BOOLEAN,
};

static struct libscols_table *table_scols_new(bool json)
{
	struct libscols_table *scols = scols_new_table();

	if (!scols)
		nicctl_no_memory(json);
	return scols;
}

struct nicctl_table *nicctl_table_new(struct nicctl *c, const char *name, bool record, const struct nicctl_column *columns,
				      unsigned n_columns)
{
	struct nicctl_table *table = calloc(1, sizeof(*table));

	if (!table || c->n_tables == sizeof(c->tables) / sizeof(c->tables[0]))
		nicctl_no_memory(c->json);
	table->scols = table_scols_new(c->json);
	table->record = record;
	table->json = c->json;
	if (scols_table_set_name(table->scols, name) || scols_table_enable_json(table->scols, c->json))
		nicctl_no_memory(table->json);
	for (unsigned i = 0; i < n_columns; i++) {
		int flags = columns[i].kind == NICCTL_NUMBER ? SCOLS_FL_RIGHT : 0;
		struct libscols_column *column = scols_table_new_column(table->scols, columns[i].name, 0, flags);

		if (!column || scols_column_set_json_type(column, table_json_types[columns[i].kind]))
			nicctl_no_memory(table->json);
	}
	c->tables[c->n_tables++] = table;
	return table;
}

void nicctl_row(struct nicctl_table *table)
{
	table->line = scols_table_new_line(table->scols, NULL);
	table->next = 0;
	if (!table->line)
		nicctl_no_memory(table->json);
}

void nicctl_cell(struct nicctl_table *table, const char *text)
{
	if (scols_line_set_data(table->line, table->next++, text ? text : ""))
		nicctl_no_memory(table->json);
}

void nicctl_cell_number(struct nicctl_table *table, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	nicctl_cell(table, text);
}

void nicctl_cell_serial(struct nicctl_table *table, uint64_t serial)
{
	if (serial)
		nicctl_cell_number(table, serial);
	else
		nicctl_cell(table, "");
}

void nicctl_cell_hex(struct nicctl_table *table, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	nicctl_cell(table, text);
}

void nicctl_bytes_text(char text[32], uint64_t bytes)
{
	static const char units[] = "BKMGTPE";
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1024 && units[unit + 1]) {
		value /= 1024;
		unit++;
	}
	if (unit == 0)
		snprintf(text, 32, "%u", (unsigned)bytes);
	else
		snprintf(text, 32, "%.*f%c", bytes % (1ULL << 10 * unit) ? 1 : 0, value, units[unit]);
}

void nicctl_cell_bytes(struct nicctl_table *table, uint64_t bytes)
{
	char text[32];

	if (table->json) {
		nicctl_cell_number(table, bytes);
		return;
	}
	nicctl_bytes_text(text, bytes);
	nicctl_cell(table, text);
}

void nicctl_cell_unknown(struct nicctl_table *table)
{
	nicctl_cell(table, table->json ? NULL : "-");
}

void nicctl_cell_bool(struct nicctl_table *table, bool value)
{
	/* libsmartcols takes what begins with n for false. */
	nicctl_cell(table, value ? "yes" : "no");
}

void nicctl_cell_time(struct nicctl_table *table, uint64_t realtime_ns)
{
	time_t seconds = (time_t)(realtime_ns / 1000000000);
	char text[64] = "";
	struct tm tm;

	if (realtime_ns && gmtime_r(&seconds, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	nicctl_cell(table, text);
}

void nicctl_cell_access(struct nicctl_table *table, uint32_t flags)
{
	bool write = (flags & NICD_MR_REMOTE_WRITE) == NICD_MR_REMOTE_WRITE;
	bool read = flags & NICD_MR_REMOTE_READ;

	nicctl_cell(table, read && write ? "rw" : read ? "r" : write ? "w" : "");
}

void nicctl_cell_micros(struct nicctl_table *table, uint64_t ns)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu.%llu", (unsigned long long)(ns / 1000), (unsigned long long)(ns / 100 % 10));
	nicctl_cell(table, text);
}

/* Of a table without rows, of which libsmartcols prints nothing: nobody should wonder whether it was asked at all. */
static void table_print_header(struct nicctl_table *table)
{
	size_t n_columns = scols_table_get_ncols(table->scols);

	for (size_t i = 0; i < n_columns; i++)
		printf("%s%s", i ? " " : "", scols_column_get_name(scols_table_get_column(table->scols, i)));
	putchar('\n');
}

/* Every row as lines "name  value". */
static void table_print_record(struct nicctl_table *table)
{
	size_t n_columns = scols_table_get_ncols(table->scols), n_rows = scols_table_get_nlines(table->scols);

	for (size_t row = 0; row < n_rows; row++) {
		struct libscols_line *from = scols_table_get_line(table->scols, row);
		struct libscols_table *scols = table_scols_new(table->json);

		scols_table_enable_noheadings(scols, 1);
		if (!scols_table_new_column(scols, "name", 0, 0) || !scols_table_new_column(scols, "value", 0, 0))
			nicctl_no_memory(table->json);
		for (size_t i = 0; i < n_columns; i++) {
			struct libscols_column *column = scols_table_get_column(table->scols, i);
			struct libscols_line *line = scols_table_new_line(scols, NULL);

			if (!line || scols_line_set_data(line, 0, scols_column_get_name(column)) ||
			    scols_line_set_data(line, 1, scols_line_get_column_data(from, column)))
				nicctl_no_memory(table->json);
		}
		if (row)
			putchar('\n');
		scols_print_table(scols);
		scols_unref_table(scols);
	}
}

/* The members of the document that libsmartcols prints for one table: what is between the outermost braces. */
static char *table_json_members(struct nicctl_table *table)
{
	char *text, *open, *close;

	if (scols_print_table_to_string(table->scols, &text) || !text)
		nicctl_no_memory(table->json);
	open = strchr(text, '{');
	close = strrchr(text, '}');
	if (!open || !close || close <= open)
		nicctl_no_memory(table->json);
	*close = '\0';
	while (close > open && (close[-1] == '\n' || close[-1] == ' '))
		*--close = '\0';
	memmove(text, open + 1, strlen(open + 1) + 1);
	return text;
}

void nicctl_discard(struct nicctl *c)
{
	for (unsigned i = 0; i < c->n_tables; i++) {
		scols_unref_table(c->tables[i]->scols);
		free(c->tables[i]);
	}
	c->n_tables = 0;
}

int nicctl_print(struct nicctl *c)
{
	if (c->json)
		putchar('{');
	for (unsigned i = 0; i < c->n_tables; i++) {
		struct nicctl_table *table = c->tables[i];

		if (c->json) {
			char *members = table_json_members(table);

			printf("%s%s", i ? "," : "", members);
			free(members);
		} else {
			if (i)
				putchar('\n');
			if (table->record)
				table_print_record(table);
			else if (scols_table_is_empty(table->scols))
				table_print_header(table);
			else
				scols_print_table(table->scols);
		}
	}
	if (c->json)
		puts("\n}");
	nicctl_discard(c);
	/* Now: the reader may act on it while we hold. */
	if (fflush(stdout) != 0)
		return nicctl_fail(c, errno, NULL, "cannot write to stdout");
	return NICCTL_OK;
}
