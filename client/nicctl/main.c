/* SPDX-License-Identifier: MIT */
/*
 * nicctl's start: options, the table of commands, help. All commands share one set of options, and their rows say which of
 * them they take, so that options may stand anywhere on the line.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/nicctl/nicctl.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum { NICCTL_EVERYBODYS = NICCTL_SOCKET | NICCTL_ADMIN | NICCTL_JSON | NICCTL_HELP };

static const struct nicctl_command nicctl_commands[] = {
	{ "status", "", 0, 0, 0, 0, nicctl_status, 0, "whether nicd runs, who one is to it, and its devices" },
	{ "device show", "", 0, 0, 0, 0, nicctl_device_show, 0, "the devices and their limits" },
	{ "extension list", "", 0, 0, 0, 0, nicctl_extension_list, 0, "what the devices and their objects have beyond NDKPI" },
	{ "session list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_SESSION, "connected clients" },
	{ "memory list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_MEMORY, "memory that was handed over" },
	{ "pd list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_PD, "protection domains" },
	{ "mr list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_MR, "memory regions" },
	{ "mw list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_MW, "memory windows" },
	{ "mapping list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_MAPPING, "logical addresses of memory" },
	{ "qp list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_QP, "connections to and from peers" },
	{ "ticket list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_TICKET, "rights to connect to a PD" },
	{ "export list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_EXPORT, "exported memory" },
	{ "grant list", "", 0, 0, 0, 0, nicctl_list, NICD_TYPE_GRANT, "who was given access to an export" },
	{ "export create", "FILE|--size N --name X --access r|w|rw", 0, 1,
	  NICCTL_SIZE | NICCTL_NAME | NICCTL_ACCESS | NICCTL_USES | NICCTL_TTL | NICCTL_PEERS | NICCTL_OUTPUT | NICCTL_HUGE,
	  NICCTL_NAME | NICCTL_ACCESS, nicctl_export_create, 0,
	  "exports a copy of FILE, or N zero bytes; prints the locator; holds until interrupted" },
	{ "get", "LOCATOR [-o FILE]", 1, 1, NICCTL_OUTPUT | NICCTL_PROGRESS | NICCTL_NO_PROGRESS, 0,
	  nicctl_get, 0, "reads what the locator names into FILE or stdout" },
	{ "put", "LOCATOR FILE", 2, 2, NICCTL_PROGRESS | NICCTL_NO_PROGRESS | NICCTL_NOTIFY, 0, nicctl_put, 0, "writes FILE (- is stdin) into what the locator names" },
	{ "ping", "LOCATOR", 1, 1, NICCTL_COUNT, 0, nicctl_ping, 0, "connects and measures reads of 0 and 1 bytes" },
	{ "perf", "LOCATOR", 1, 1,
	  NICCTL_SIZE | NICCTL_DEPTH | NICCTL_LIST | NICCTL_SECONDS | NICCTL_COUNT | NICCTL_OP | NICCTL_SCRATCH, 0, nicctl_perf, 0,
	  "measures reads; writes only with --op, which write back what was read, or with --scratch" },
	{ "revoke", "SERIAL", 1, 1, 0, 0, nicctl_revoke, 0, "ends remote access of an MR, window, export, ticket, qp or session" },
	{ "who", "SERIAL", 1, 1, 0, 0, nicctl_who, 0, "who can touch this MR, window or export" },
	{ "ledger", "", 0, 0, 0, 0, nicctl_ledger, 0, "all objects, descriptors, bytes and charges, by account" },
	{ "errors", "", 0, 0, 0, 0, nicctl_errors, 0, "every reason for which something is refused or fails, in all its forms", true },
};

/* What an option takes, and what becomes of that. */
enum takes { TAKES_NOTHING, TAKES_TEXT, TAKES_NUMBER, TAKES_SECONDS, TAKES_BYTES, TAKES_ACCESS };

/* The options, by their bit. `at`: the field of struct nicctl that gets the value (true of those that take none); 0: there is none. */
static const struct nicctl_option_row {
	const char *name;
	enum takes takes;
	int letter;              /* short form; 0: none */
	size_t at;
	uint32_t max;            /* of numbers */
	const char *help;
} nicctl_options[] = {
#define ROW(bit) [__builtin_ctz(NICCTL_##bit)]
	ROW(SOCKET) = { "socket", TAKES_TEXT, .at = offsetof(struct nicctl, socket),
		.help = "--socket PATH         nicd's socket (else as libnicd looks for it)" },
	ROW(ADMIN) = { "admin", TAKES_NOTHING, .at = offsetof(struct nicctl, admin),
		.help = "--admin               use the admin socket" },
	ROW(JSON) = { "json", TAKES_NOTHING, .at = offsetof(struct nicctl, json),
		.help = "--json                print JSON" },
	ROW(HELP) = { "help", TAKES_NOTHING, .letter = 'h',
		.help = "--help                print this" },
	ROW(SIZE) = { "size", TAKES_BYTES, .at = offsetof(struct nicctl, size),
		.help = "--size N              bytes of new memory, with K, M or G" },
	ROW(NAME) = { "name", TAKES_TEXT, .at = offsetof(struct nicctl, name),
		.help = "--name X              name of the export" },
	ROW(ACCESS) = { "access", TAKES_ACCESS, .at = offsetof(struct nicctl, access),
		.help = "--access r|w|rw       what peers may do" },
	ROW(USES) = { "uses", TAKES_NUMBER, .at = offsetof(struct nicctl, uses), .max = UINT32_MAX,
		.help = "--uses N              how often peers may connect (default 1); every get, put and ping is once" },
	ROW(TTL) = { "ttl", TAKES_SECONDS, .at = offsetof(struct nicctl, ttl_ms), .max = UINT32_MAX / 1000,
		.help = "--ttl SECONDS         how long the export lasts (default a day)" },
	ROW(PEERS) = { "peers", TAKES_NUMBER, .at = offsetof(struct nicctl, peers), .max = UINT32_MAX,
		.help = "--peers N             how many may be connected at the same time" },
	ROW(OUTPUT) = { "output", TAKES_TEXT, .letter = 'o', .at = offsetof(struct nicctl, output),
		.help = "-o, --output FILE     where to" },
	ROW(COUNT) = { "count", TAKES_NUMBER, .at = offsetof(struct nicctl, count), .max = 100000,
		.help = "--count N             how many reads of each size (default 10)" },
	ROW(OP) = { "op", TAKES_ACCESS, .at = offsetof(struct nicctl, operations),
		.help = "--op r|w|rw           read (default), write back what was read before (and so undo what others write meanwhile), or both" },
	ROW(DEPTH) = { "depth", TAKES_NUMBER, .at = offsetof(struct nicctl, depth), .max = 1024,
		.help = "--depth N             lists under way at the same time (default 1 to 16, by size)" },
	ROW(LIST) = { "list", TAKES_NUMBER, .at = offsetof(struct nicctl, list), .max = 1024,
		.help = "--list N              transfers in a list (default 1)" },
	ROW(SECONDS) = { "seconds", TAKES_NUMBER, .at = offsetof(struct nicctl, seconds), .max = 86400,
		.help = "--seconds N           how long each row is measured (default 2)" },
	ROW(SCRATCH) = { "scratch", TAKES_NOTHING, .at = offsetof(struct nicctl, scratch),
		.help = "--scratch             writes may destroy what the memory holds" },
	ROW(PROGRESS) = { "progress", TAKES_NOTHING,
		.help = "--progress            tell how far it is, also where stderr is no terminal" },
	ROW(NO_PROGRESS) = { "no-progress", TAKES_NOTHING,
		.help = "--no-progress         do not" },
	ROW(HUGE) = { "huge", TAKES_NOTHING,
		.help = "--huge                of huge pages, if there are any free" },
	ROW(NOTIFY) = { "notify", TAKES_NOTHING,
		.help = "--notify              tell the owner when all is there" },
#undef ROW
};
enum { OPTION_VERSION = 'V', OPTION_FIRST = 256 };   /* what getopt calls them, besides their letters */

/* What some commands mean by an option is something else. */
static const struct {
	int (*fn)(struct nicctl *c);
	unsigned option;
	const char *help;
} nicctl_other_help[] = {
	{ nicctl_get, NICCTL_OUTPUT, "-o, --output FILE     where to; what it held is replaced when all has come" },
	{ nicctl_export_create, NICCTL_OUTPUT, "-o, --output FILE     where the memory is saved at the end" },
	{ nicctl_perf, NICCTL_SIZE, "--size N              bytes of a transfer, with K or M (default: a row for each of some)" },
	{ nicctl_perf, NICCTL_COUNT, "--count N             how many lists are posted for a row, in place of --seconds" },
};

static const char *option_help(const struct nicctl_command *command, unsigned bit)
{
	for (unsigned i = 0; command && i < ARRAY_SIZE(nicctl_other_help); i++)
		if (nicctl_other_help[i].fn == command->fn && nicctl_other_help[i].option == 1u << bit)
			return nicctl_other_help[i].help;
	return nicctl_options[bit].help;
}

static void print_options(const struct nicctl_command *command, unsigned options)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_options); i++) {
		if (options & 1u << i)
			printf("  %s\n", option_help(command, i));
	}
}

static void help_row(struct nicctl_table *table, const struct nicctl_command *command)
{
	char options[256] = "";
	size_t len = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_options); i++) {
		const char *help = option_help(command, i), *end = strstr(help, "  ");

		if ((command->options & 1u << i) && end && len < sizeof(options))
			len += (size_t)snprintf(options + len, sizeof(options) - len, "%s%.*s", len ? "; " : "", (int)(end - help), help);
	}
	nicctl_row(table);
	nicctl_cell(table, command->words);
	nicctl_cell(table, command->args);
	nicctl_cell(table, options);
	nicctl_cell(table, command->help);
}

/* One command's, or (NULL) all. */
static int print_help_json(struct nicctl *c, const struct nicctl_command *command)
{
	static const struct nicctl_column columns[] = {
		{ "COMMAND", NICCTL_TEXT }, { "ARGUMENTS", NICCTL_TEXT }, { "OPTIONS", NICCTL_TEXT }, { "HELP", NICCTL_TEXT },
	};
	struct nicctl_table *table = nicctl_table_new(c, "help", false, columns, ARRAY_SIZE(columns));

	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_commands); i++) {
		if (!command || command == &nicctl_commands[i])
			help_row(table, &nicctl_commands[i]);
	}
	return nicctl_print(c);
}

static int print_version(struct nicctl *c)
{
	static const struct nicctl_column columns[] = { { "NICCTL", NICCTL_TEXT } };
	struct nicctl_table *table;

	if (!c->json) {
		printf("nicctl %s\n", NICD_VERSION);
		return NICCTL_OK;
	}
	table = nicctl_table_new(c, "version", true, columns, ARRAY_SIZE(columns));
	nicctl_row(table);
	nicctl_cell(table, NICD_VERSION);
	return nicctl_print(c);
}

static void print_help(const struct nicctl_command *command)
{
	if (command) {
		printf("usage: nicctl %s%s%s\n%s\n\n", command->words, command->args[0] ? " " : "", command->args, command->help);
		print_options(command, command->options | NICCTL_EVERYBODYS);
		return;
	}
	printf("usage: nicctl [OPTION…] COMMAND …\n\n");
	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_commands); i++)
		printf("  %-14s %s\n", nicctl_commands[i].words, nicctl_commands[i].help);
	printf("\nA LOCATOR is @FILE, - (stdin), or the text itself, which others can then see in the list of processes.\n"
	       "Options of all commands (see `nicctl COMMAND --help` for the others):\n");
	print_options(NULL, NICCTL_EVERYBODYS);
	printf("  --version             print the version\n"
	       "\nExit status: 0 done, 1 refused, 2 wrong usage, 3 nicd does not run.\n");
}

/* A number with an optional suffix of `units` (each 1,024 times the one before), between 1 and max. */
static int parse_number(struct nicctl *c, const char *what, const char *text, const char *units, uint64_t max, uint64_t *ret)
{
	const char *unit;
	uint64_t value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || errno)
		return nicctl_usage(c, "%s takes a number, not '%s'", what, text);
	unit = *end ? strchr(units, *end) : NULL;
	if (*end && (!unit || end[1]))
		return nicctl_usage(c, "%s takes a number, not '%s'", what, text);
	for (const char *u = units; unit && u <= unit; u++) {
		if (__builtin_mul_overflow(value, 1024, &value))
			value = UINT64_MAX;
	}
	if (value < 1 || value > max)
		return nicctl_usage(c, "%s takes a number from 1 to %llu", what, (unsigned long long)max);
	*ret = value;
	return NICCTL_OK;
}

static int parse_u32(struct nicctl *c, const char *what, const char *text, uint32_t max, uint32_t *ret)
{
	uint64_t value;
	int r = parse_number(c, what, text, "", max, &value);

	if (r == NICCTL_OK)
		*ret = (uint32_t)value;
	return r;
}

static int parse_access(struct nicctl *c, const char *what, const char *text, uint32_t *ret)
{
	static const struct {
		const char *text;
		uint32_t flags;
	} words[] = {
		{ "r", NICD_MR_REMOTE_READ },
		{ "w", NICD_MR_REMOTE_WRITE },
		{ "rw", NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(text, words[i].text) == 0) {
			*ret = words[i].flags;
			return NICCTL_OK;
		}
	}
	return nicctl_usage(c, "%s takes r, w or rw, not '%s'", what, text);
}

static int parse_value(struct nicctl *c, const struct nicctl_option_row *row)
{
	void *at = (char *)c + row->at;
	char what[32];
	int r;

	snprintf(what, sizeof(what), "--%s", row->name);
	switch (row->takes) {
	case TAKES_NOTHING:
		if (row->at)
			*(bool *)at = true;
		return NICCTL_OK;
	case TAKES_TEXT:
		*(const char **)at = optarg;
		return NICCTL_OK;
	case TAKES_NUMBER:
		return parse_u32(c, what, optarg, row->max, at);
	case TAKES_SECONDS:
		r = parse_u32(c, what, optarg, row->max, at);
		if (r == NICCTL_OK)
			*(uint32_t *)at *= 1000;
		return r;
	case TAKES_BYTES:
		return parse_number(c, what, optarg, "KMGT", INT64_MAX, at);
	case TAKES_ACCESS:
	default:
		return parse_access(c, what, optarg, at);
	}
}

static int parse_option(struct nicctl *c, int option)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_options); i++) {
		if (option != nicctl_options[i].letter && option != (int)(OPTION_FIRST + i))
			continue;
		c->given |= 1u << i;
		return parse_value(c, &nicctl_options[i]);
	}
	/* getopt has named it, but not with --json. */
	return nicctl_usage(c, "%s%ssee nicctl --help", c->json ? "wrong option: " : "", c->json ? c->wrong : "");
}

/* For getopt_long; `ret` has room for all, --version, and the end. */
static void list_options(struct option *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_options); i++)
		ret[i] = (struct option){
			.name = nicctl_options[i].name, .has_arg = nicctl_options[i].takes ? required_argument : no_argument,
			.val = (int)(OPTION_FIRST + i),
		};
	ret[ARRAY_SIZE(nicctl_options)] = (struct option){ .name = "version", .val = OPTION_VERSION };
	ret[ARRAY_SIZE(nicctl_options) + 1] = (struct option){ 0 };
}

/* The row whose words the arguments begin with; takes them off. */
static const struct nicctl_command *find_command(struct nicctl *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_commands); i++) {
		const char *words = nicctl_commands[i].words;
		unsigned used = 0;

		while (used < c->n_args) {
			size_t len = strcspn(words, " ");

			if (strncmp(words, c->args[used], len) != 0 || c->args[used][len])
				break;
			used++;
			if (!words[len]) {
				c->args += used;
				c->n_args -= used;
				return &nicctl_commands[i];
			}
			words += len + 1;
		}
	}
	return NULL;
}

/* `options`: the first is named, without what its help says of it. */
static int usage_option(struct nicctl *c, const char *verb, unsigned options)
{
	const char *help = nicctl_options[__builtin_ctz(options)].help;
	const char *end = strstr(help, "  ");

	return nicctl_usage(c, "%s %s %.*s", c->command->words, verb, (int)(end ? end - help : 0), help);
}

/* No command, or only the first word of some: those are named. */
static int usage_command(struct nicctl *c)
{
	char words[256] = "";
	size_t len = 0;

	if (!c->n_args)
		return nicctl_usage(c, "which command? see nicctl --help");
	for (unsigned i = 0; i < ARRAY_SIZE(nicctl_commands); i++) {
		const char *all = nicctl_commands[i].words;
		size_t first = strcspn(all, " ");

		if (all[first] && strncmp(all, c->args[0], first) == 0 && !c->args[0][first] && len < sizeof(words))
			len += (size_t)snprintf(words + len, sizeof(words) - len, "%s%s", len ? ", " : "", all + first + 1);
	}
	if (!words[0])
		return nicctl_usage(c, "there is no such command: %s", c->args[0]);
	if (c->n_args > 1)
		return nicctl_usage(c, "there is no such command: %s %s; %s has: %s", c->args[0], c->args[1], c->args[0], words);
	return nicctl_usage(c, "%s has: %s", c->args[0], words);
}

static int check_usage(struct nicctl *c)
{
	const struct nicctl_command *command = c->command;
	unsigned allowed = command->options | NICCTL_EVERYBODYS;
	unsigned missing = command->required & ~c->given;

	if (c->given & ~allowed)
		return usage_option(c, "does not take", c->given & ~allowed);
	if (c->n_args < command->min_args || c->n_args > command->max_args)
		return nicctl_usage(c, "usage: nicctl %s%s%s", command->words, command->args[0] ? " " : "", command->args);
	if (missing)
		return usage_option(c, "needs", missing);
	return NICCTL_OK;
}

static struct nicd_open_attr open_attr(const struct nicctl *c, struct nicd_error_info *error)
{
	return (struct nicd_open_attr){
		.size = sizeof(struct nicd_open_attr),
		.flags = c->admin ? NICD_OPEN_ADMIN : 0,
		.socket = c->socket,
		.client = "nicctl",
		.error = error,
	};
}

static int nicctl_open(struct nicctl *c)
{
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = open_attr(c, &error);

	if (nicd_open(&c->n, &attr) < 0)
		return nicctl_failed_info(c, &error);
	return NICCTL_OK;
}

bool nicctl_answers(struct nicctl *c)
{
	struct nicd_open_attr attr = open_attr(c, NULL);
	struct nicd *again;

	if (nicd_open(&again, &attr) < 0)
		return false;
	nicd_free(again);
	return true;
}

void nicctl_close(struct nicctl *c)
{
	nicd_free(c->n);
	c->n = NULL;
}

static int nicctl_run(struct nicctl *c, int argc, char **argv)
{
	struct option options[ARRAY_SIZE(nicctl_options) + 2];
	int option, r = NICCTL_OK;

	list_options(options);
	/* First of all, so that a wrong option is told in the form asked for, too. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		c->json |= strcmp(argv[i], "--json") == 0;
	opterr = !c->json;
	while (r == NICCTL_OK && (option = getopt_long(argc, argv, "ho:", options, NULL)) != -1) {
		snprintf(c->wrong, sizeof(c->wrong), "%s; ", argv[optind - 1]);
		if (option == OPTION_VERSION)
			return print_version(c);
		r = parse_option(c, option);
	}
	if (r != NICCTL_OK)
		return r;
	c->args = argv + optind;
	c->n_args = (unsigned)(argc - optind);
	c->command = find_command(c);
	if (c->given & NICCTL_HELP) {
		if (c->json)
			return print_help_json(c, c->command);
		print_help(c->command);
		return NICCTL_OK;
	}
	if (!c->command)
		return usage_command(c);
	r = check_usage(c);
	if (r == NICCTL_OK && !c->command->offline)
		r = nicctl_open(c);
	if (r == NICCTL_OK)
		r = c->command->fn(c);
	nicctl_discard(c);
	nicctl_close(c);
	return r;
}

int main(int argc, char **argv)
{
	struct nicctl c = { 0 };
	int r;

	/* For the width of what is printed; numbers stay as JSON wants them. */
	setlocale(LC_CTYPE, "");
	r = nicctl_run(&c, argc, argv);
	/* A full disk behind stdout is a failure, too. */
	if (fflush(stdout) != 0 && r == NICCTL_OK)
		r = nicctl_fail(&c, errno, NULL, "cannot write to stdout");
	nicctl_interrupts_raise();
	return r;
}
