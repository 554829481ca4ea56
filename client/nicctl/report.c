/* SPDX-License-Identifier: MIT */
/*
 * What nicctl tells on stderr: failures, with the five facts, and notices. For people they are lines; with --json each is a
 * JSON document of its own.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libsmartcols.h>

#include "client/nicctl/nicctl.h"

struct report_field {
	const char *name;
	const char *value;
	int json;
};

/* Nothing that would be built of memory: the document is there already. */
void nicctl_no_memory(bool json)
{
	fputs(json ? "{\n   \"error\": [\n      {\n         \"name\": \"ENOMEM\", \"status\": \"\", \"text\": \"out of memory\", "
		     "\"limit\": 0, \"observed\": 0, \"cure\": \"\", \"reason\": 0, \"errno\": 12, \"provider_error\": 0\n      }\n   ]\n}\n" :
		     "nicctl: out of memory\n", stderr);
	exit(NICCTL_REFUSED);
}

static void report_json(const char *name, const struct report_field *fields, unsigned n_fields)
{
	struct libscols_table *table = scols_new_table();
	struct libscols_line *line;

	if (!table || scols_table_set_name(table, name) || scols_table_enable_json(table, 1) ||
	    scols_table_set_stream(table, stderr))
		nicctl_no_memory(true);
	for (unsigned i = 0; i < n_fields; i++) {
		struct libscols_column *column = scols_table_new_column(table, fields[i].name, 0, 0);

		if (!column || scols_column_set_json_type(column, fields[i].json))
			nicctl_no_memory(true);
	}
	line = scols_table_new_line(table, NULL);
	if (!line)
		nicctl_no_memory(true);
	for (unsigned i = 0; i < n_fields; i++) {
		if (scols_line_set_data(line, i, fields[i].value))
			nicctl_no_memory(true);
	}
	scols_print_table(table);
	fputc('\n', stderr);
	scols_unref_table(table);
}

/* The daemon is away: before, or in the midst of it. */
static bool report_is_no_daemon(const struct nicd_error_info *info)
{
	static const int errors[] = { ENOENT, ECONNREFUSED, ETIMEDOUT, ENOTCONN, ECONNRESET, ENOTDIR };

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (info->reason == 0 && info->error == -errors[i])
			return true;
	}
	return false;
}

static void report_error(struct nicctl *c, const struct nicd_error_info *info)
{
	char limit[24], observed[24], reason[16], error[16], provider[16];
	const struct report_field fields[] = {
		{ "name", info->name, SCOLS_JSON_STRING },
		{ "status", info->status, SCOLS_JSON_STRING },
		{ "text", info->text, SCOLS_JSON_STRING },
		{ "limit", limit, SCOLS_JSON_NUMBER },
		{ "observed", observed, SCOLS_JSON_NUMBER },
		{ "cure", info->cure, SCOLS_JSON_STRING },
		{ "reason", reason, SCOLS_JSON_NUMBER },
		{ "errno", error, SCOLS_JSON_NUMBER },
		{ "provider_error", provider, SCOLS_JSON_NUMBER },
	};

	snprintf(limit, sizeof(limit), "%llu", (unsigned long long)info->limit);
	snprintf(observed, sizeof(observed), "%llu", (unsigned long long)info->observed);
	snprintf(reason, sizeof(reason), "%u", info->reason);
	snprintf(error, sizeof(error), "%d", -info->error);
	snprintf(provider, sizeof(provider), "%d", info->provider_error);
	if (c->json) {
		report_json("error", fields, sizeof(fields) / sizeof(fields[0]));
		return;
	}
	fprintf(stderr, "nicctl: %s", info->name);
	if (info->status[0])
		fprintf(stderr, " (%s)", info->status);
	fprintf(stderr, ": %s\n", info->text);
	if (info->limit || info->observed)
		fprintf(stderr, "  limit:    %s\n  observed: %s\n", limit, observed);
	if (info->provider_error)
		fprintf(stderr, "  device:   %s\n", strerror(info->provider_error));
	if (info->cure[0])
		fprintf(stderr, "  cure:     %s\n", info->cure);
}

int nicctl_failed_info(struct nicctl *c, const struct nicd_error_info *info)
{
	bool no_daemon = report_is_no_daemon(info);

	/* The connection broke, and nicd is there: it was meant. */
	if (no_daemon && c->n && nicctl_answers(c))
		return nicctl_fail(c, ECANCELED, "try again, if it was not revoked on purpose: nicd's journal says why",
				   "nicd ended this session");
	report_error(c, info);
	return no_daemon ? NICCTL_NO_DAEMON : NICCTL_REFUSED;
}

int nicctl_failed(struct nicctl *c)
{
	return nicctl_failed_info(c, nicd_last_error(c->n));
}

int nicctl_fail(struct nicctl *c, int error, const char *cure, const char *format, ...)
{
	struct nicd_error_info info = { .size = sizeof(info), .error = -error };
	const char *name = strerrorname_np(error);
	va_list ap;
	int len;

	va_start(ap, format);
	len = vsnprintf(info.text, sizeof(info.text), format, ap);
	va_end(ap);
	if (len >= 0 && (size_t)len < sizeof(info.text))
		snprintf(info.text + len, sizeof(info.text) - (size_t)len, ": %s", strerror(error));
	snprintf(info.name, sizeof(info.name), "%s", name ? name : "?");
	snprintf(info.cure, sizeof(info.cure), "%s", cure ? cure : "");
	report_error(c, &info);
	return NICCTL_REFUSED;
}

static void report_text(struct nicctl *c, const char *kind, const char *format, va_list ap)
{
	struct report_field field = { "text", NULL, SCOLS_JSON_STRING };
	char *text;

	if (vasprintf(&text, format, ap) < 0)
		nicctl_no_memory(c->json);
	field.value = text;
	if (c->json)
		report_json(kind, &field, 1);
	else
		fprintf(stderr, "nicctl: %s\n", text);
	free(text);
}

int nicctl_usage(struct nicctl *c, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	report_text(c, "usage", format, ap);
	va_end(ap);
	return NICCTL_USAGE;
}

void nicctl_notice(struct nicctl *c, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	report_text(c, "notice", format, ap);
	va_end(ap);
}
