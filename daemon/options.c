/* SPDX-License-Identifier: MIT */
/*
 * The table of settings and the two ways into it. The command line is gone through twice: first for what decides which
 * configuration file is read, and again afterwards, so that it wins. struct options is plain data of main's.
 */
#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/util.h"

#define OPTIONS_CONFIG "/etc/nicd/nicd.conf"

enum options_pass { PASS_FIRST, PASS_SECOND };

/* Reads one value; NULL, or what is wrong with it. `at`: the field. */
typedef const char *(*setting_fn)(struct options *options, void *at, const char *value);

struct setting {
	const char *option;    /* "socket"; NULL: only in the file */
	const char *section;   /* NULL: only on the command line */
	const char *key;
	const char *argument;  /* NULL: a flag */
	setting_fn set;
	size_t at;             /* offset in struct options */
	bool first;            /* needed before the file is read */
	bool repeats;
	const char *help;
};

/* ---- readers of values */

static const char *copy(char *dst, size_t size, const char *value, const char *too_long)
{
	if (!*value)
		return "is empty";
	if (strlen(value) >= size)
		return too_long;
	strcpy(dst, value);
	return NULL;
}

static const char *set_socket(struct options *options, void *at, const char *value)
{
	return *value == '/' || options->rank == OPTIONS_FROM_ARGV ?
		copy(at, OPTIONS_PATH, value, "is too long: the path of a socket has at most 107 bytes") : "is not an absolute path";
}

static const char *set_file(struct options *options, void *at, const char *value)
{
	return copy(at, OPTIONS_FILE, value, "is too long for a path");
}

static const char *set_text(struct options *options, void *at, const char *value)
{
	return copy(at, OPTIONS_TEXT, value, "is too long");
}

static const char *set_flag(struct options *options, void *at, const char *value)
{
	static const char *const words[][2] = { { "no", "yes" }, { "false", "true" }, { "off", "on" }, { "0", "1" } };

	for (unsigned i = 0; i < ELEMENTS(words) * 2; i++) {
		if (!strcasecmp(value, words[i / 2][i % 2])) {
			*(bool *)at = i % 2;
			return NULL;
		}
	}
	return "is neither yes nor no";
}

struct word {
	const char *name;
	int value;
};

static const char *set_word(int *at, const char *value, const struct word *words, const char *wrong)
{
	for (; words->name; words++) {
		if (!strcmp(value, words->name)) {
			*at = words->value;
			return NULL;
		}
	}
	return wrong;
}

static const char *set_provider(struct options *options, void *at, const char *value)
{
	static const struct word words[] = { { "auto", OPTIONS_AUTO }, { "soft", OPTIONS_SOFT }, { "none", OPTIONS_NONE }, { 0 } };
	int provider;
	const char *wrong;

	if (!strcmp(value, "verbs"))
		return "names a provider that is not built into this nicd; use soft";
	wrong = set_word(&provider, value, words, "is no provider; use auto, soft or none");
	if (!wrong)
		options->provider = (enum options_provider)provider;
	return wrong;
}

static const char *set_account_by(struct options *options, void *at, const char *value)
{
	static const struct word words[] = {
		{ "uid", POLICY_BY_UID }, { "gid", POLICY_BY_GID }, { "cgroup", POLICY_BY_CGROUP },
		{ "session", POLICY_BY_SESSION }, { 0 }
	};
	int by;
	const char *wrong = set_word(&by, value, words, "is no way to tell accounts; use uid, gid, cgroup or session");

	if (!wrong)
		options->policy.account_by = (enum policy_account_by)by;
	return wrong;
}

static const char *set_log_level(struct options *options, void *at, const char *value)
{
	static const struct word words[] = {
		{ "error", LOG_ERR }, { "warning", LOG_WARNING }, { "notice", LOG_NOTICE }, { "info", LOG_INFO },
		{ "debug", LOG_DEBUG }, { 0 }
	};

	return set_word(at, value, words, "is no level; use error, warning, notice, info or debug");
}

/* Digits with an optional K, M, G or T; no sign, no wrap. */
static bool number(const char *value, uint64_t *ret)
{
	static const char units[] = "KMGT";
	char *end;
	const char *unit;
	unsigned shift = 0;

	if (*value < '0' || *value > '9')
		return false;
	errno = 0;
	*ret = strtoull(value, &end, 10);
	if (errno)
		return false;
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (*end || *ret > UINT64_MAX >> shift)
		return false;
	*ret <<= shift;
	return true;
}

static const char *set_u64(struct options *options, void *at, const char *value)
{
	return number(value, at) ? NULL : "is no number; write digits, and K, M, G or T behind them for powers of 1024";
}

static const char *set_u32(struct options *options, void *at, const char *value)
{
	uint64_t n;

	if (!number(value, &n) || n == 0 || n > UINT32_MAX)
		return "is no number from 1 to 4294967295";
	*(uint32_t *)at = (uint32_t)n;
	return NULL;
}

/* A share that no account of nicd could keep track of any more is as wrong as none. */
static const char *set_seconds(struct options *options, void *at, const char *value)
{
	uint64_t n;

	if (!number(value, &n) || n == 0 || n > 3600)
		return "is no number of seconds from 1 to 3600";
	*(uint64_t *)at = n * UINT64_C(1000000000);
	return NULL;
}

static const char *set_fd(struct options *options, void *at, const char *value)
{
	uint64_t n;

	if (!number(value, &n) || n > 1 << 20)
		return "is no descriptor";
	*(int *)at = (int)n;
	return NULL;
}

static const char *uid_of(const char *value, uid_t *ret)
{
	const struct passwd *user;
	uint64_t n;

	if (number(value, &n)) {
		*ret = (uid_t)n;
		return n < UINT32_MAX ? NULL : "is no uid";
	}
	user = getpwnam(value);
	if (!user)
		return "is no user of this machine; name one, or give a uid";
	*ret = user->pw_uid;
	return NULL;
}

static const char *set_soft_uid(struct options *options, void *at, const char *value)
{
	options->has_soft_uid = true;
	return uid_of(value, at);
}

static const char *set_gateway_uid(struct options *options, void *at, const char *value)
{
	options->has_gateway_uid = true;
	return uid_of(value, at);
}

static const char *set_connect(struct options *options, void *at, const char *value)
{
	if (options->connect_rank < options->rank) {
		options->connect_rank = options->rank;
		options->policy.n_networks = 0;
	}
	if (!strcmp(value, "none"))
		return NULL;
	switch (policy_add_network(&options->policy, value)) {
	case 0:
		return NULL;
	case -ENOSPC:
		return "is one network too many; there is room for 64";
	default:
		return "is no network; write 10.0.0.0/8, 10.0.0.0/8:7190, 10.1.2.3:1024-65535, [fd00::]/8:7190 or none, "
		       "with zeros behind the prefix";
	}
}

/* ---- the table */

#define FIELD(name) offsetof(struct options, name)
#define LIMIT(slot) offsetof(struct options, policy.limits.max[NIC_SLOT_##slot])

static const struct setting settings[] = {
	{ "provider", "nicd", "provider", "soft|none|auto", set_provider, FIELD(provider), .help = "the NIC (auto: soft)" },
	{ "rootless", NULL, NULL, NULL, set_flag, FIELD(rootless), .first = true,
	  .help = "as an ordinary user: sockets in XDG_RUNTIME_DIR, an own nicd-soft, admin = own uid" },
	{ "socket", "nicd", "socket", "PATH", set_socket, FIELD(socket), .help = "where clients connect (/run/nicd/nicd.sock)" },
	{ "admin-socket", "nicd", "admin-socket", "PATH", set_socket, FIELD(admin_socket),
	  .help = "where admins connect (admin.sock beside it)" },
	{ "account-by", "nicd", "account-by", "uid|gid|cgroup|session", set_account_by, 0, .help = "who pays (uid)" },
	{ "log-level", "nicd", "log-level", "LEVEL", set_log_level, FIELD(log_priority),
	  .help = "error, warning, notice, info or debug (info)" },
	{ NULL, "nicd", "gateway-user", "UID|NAME", set_gateway_uid, FIELD(gateway_uid) },
	{ NULL, "nicd", "bind-to-pid", "yes|no", set_flag, FIELD(bind_to_pid) },
	{ "privileged-token", "nicd", "privileged-token", "yes|no", set_flag, FIELD(policy.privileged_token),
	  .help = "clients may use what they have mapped without registering it (no)" },
	{ NULL, "nicd", "revoke-timeout", "SECONDS", set_seconds, FIELD(policy.revoke_timeout_ns) },
	{ "soft-socket", "soft", "socket", "PATH", set_socket, FIELD(soft_socket),
	  .help = "nicd-soft's control socket (/run/nicd-soft/control.sock)" },
	{ "soft-uid", "soft", "uid", "UID|NAME", set_soft_uid, FIELD(soft_uid), .help = "whose nicd-soft is trusted (nicd-soft, or own)" },
	{ "soft-program", "soft", "program", "PATH", set_file, FIELD(soft_program), .help = "the nicd-soft to start (rootless)" },
	{ "data-listen", "soft", "data-listen", "ADDR:PORT", set_text, FIELD(data_listen),
	  .help = "where the started nicd-soft listens for peers (rootless)" },
	{ "data-advertise", "soft", "data-advertise", "ADDR:PORT", set_text, FIELD(data_advertise),
	  .help = "what it tells peers to connect to (rootless)" },
	{ "soft-options", "soft", "options", "WORDS", set_text, FIELD(soft_options),
	  .help = "more options for it, as nicd-soft --help has them (rootless)" },
	{ "allow-connect", "connect", "allow", "NET", set_connect, 0, .repeats = true,
	  .help = "where clients may connect to, repeatable (127.0.0.0/8:7190, [::1]:7190)" },
	{ NULL, "session", "max-sessions", "N", set_u32, FIELD(max_sessions) },
	{ NULL, "session", "max-calls", "N", set_u32, FIELD(policy.max_calls) },
	{ NULL, "session", "max-events", "N", set_u32, FIELD(policy.max_news) },
	{ NULL, "session", "max-output", "BYTES", set_u64, FIELD(policy.max_output) },
	{ NULL, "session", "hello-timeout", "SECONDS", set_seconds, FIELD(policy.hello_timeout_ns) },
	{ NULL, "session", "stall-timeout", "SECONDS", set_seconds, FIELD(policy.stall_timeout_ns) },
	{ NULL, "fair", "device-window", "N", set_u32, FIELD(policy.device_window) },
	{ NULL, "fair", "device-share", "N", set_u32, FIELD(policy.device_share) },
	{ NULL, "fair", "connect-window", "N", set_u32, FIELD(policy.connect_window) },
	{ NULL, "fair", "connect-share", "N", set_u32, FIELD(policy.connect_share) },
	{ NULL, "limits", "all-memories", "N", set_u64, FIELD(policy.all_memories) },
	{ NULL, "limits", "sessions", "N", set_u64, LIMIT(SESSIONS) },
	{ NULL, "limits", "memories", "N", set_u64, LIMIT(MEMORIES) },
	{ NULL, "limits", "fds", "N", set_u64, LIMIT(FDS) },
	{ NULL, "limits", "pinned-bytes", "BYTES", set_u64, LIMIT(PINNED) },
	{ NULL, "limits", "pds", "N", set_u64, LIMIT(PDS) },
	{ NULL, "limits", "mrs", "N", set_u64, LIMIT(MRS) },
	{ NULL, "limits", "mws", "N", set_u64, LIMIT(MWS) },
	{ NULL, "limits", "mappings", "N", set_u64, LIMIT(MAPPINGS) },
	{ NULL, "limits", "qps", "N", set_u64, LIMIT(QPS) },
	{ NULL, "limits", "doors", "N", set_u64, LIMIT(DOORS) },
	{ NULL, "limits", "calls", "N", set_u64, LIMIT(CALLS) },
	{ NULL, "limits", "receives", "N", set_u64, LIMIT(RECEIVES) },
	{ NULL, "limits", "buffered-bytes", "BYTES", set_u64, LIMIT(BUFFERED) },
	{ "config", NULL, NULL, "FILE", set_file, FIELD(config), .first = true,
	  .help = "configuration (" OPTIONS_CONFIG ", when it is there and not rootless)" },
	{ "ready-fd", NULL, NULL, "N", set_fd, FIELD(ready_fd), .help = "write a newline to this descriptor when ready" },
	{ "fault", NULL, NULL, "SPEC", set_text, FIELD(fault), .help = "delays and failures of the device, in builds for tests" },
	{ "version", NULL, NULL, NULL, NULL, 0, .first = true, .help = "print the version" },
	{ "help", NULL, NULL, NULL, NULL, 0, .first = true, .help = "print this" },
};

static const char *setting_apply(struct options *options, const struct setting *setting, const char *value)
{
	return setting->set(options, (char *)options + setting->at, value);
}

void options_each_key(void (*fn)(void *userdata, const char *section, const char *key), void *userdata)
{
	for (unsigned i = 0; i < ELEMENTS(settings); i++) {
		if (settings[i].section)
			fn(userdata, settings[i].section, settings[i].key);
	}
}

/* ---- the configuration file */

const char *options_set(struct options *options, const char *section, const char *key, const char *value)
{
	const char *what;
	bool section_known = false;

	options->rank = OPTIONS_FROM_FILE;
	for (unsigned i = 0; i < ELEMENTS(settings); i++) {
		const struct setting *setting = &settings[i];

		if (!setting->section || strcmp(setting->section, section))
			continue;
		section_known = true;
		if (strcmp(setting->key, key))
			continue;
		what = setting_apply(options, setting, value);
		if (!what)
			return NULL;
		snprintf(options->wrong, sizeof(options->wrong), "%s = '%.100s' %s", key, value, what);
		return options->wrong;
	}
	snprintf(options->wrong, sizeof(options->wrong), "'%.100s' is no %s; the sample nicd.conf names them all",
		 section_known ? key : section, section_known ? "key of this section" : "section");
	return options->wrong;
}

/* ---- the command line */

static void print_help(void)
{
	printf("Usage: nicd [OPTION…]\n\nOwns the RDMA NIC of this host and lends memory regions to unprivileged processes.\n\n");
	for (unsigned i = 0; i < ELEMENTS(settings); i++) {
		const struct setting *setting = &settings[i];
		char left[64];

		if (!setting->option)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", setting->option, setting->argument ? " " : "",
			 setting->argument ? setting->argument : "");
		printf("  %-34s %s\n", left, setting->help);
	}
	printf("\nMore keys of the configuration file: see the sample, nicd.conf.\n");
}

static enum options_result option_apply(struct options *options, const struct setting *setting, const char *value, enum options_pass pass)
{
	const char *what;

	if (setting->first != (pass == PASS_FIRST))
		return OPTIONS_RUN;
	if (!setting->set) {
		if (!strcmp(setting->option, "help"))
			print_help();
		else
			printf("nicd %s\n", NICD_VERSION);
		return OPTIONS_EXIT;
	}
	options->rank = OPTIONS_FROM_ARGV;
	what = setting_apply(options, setting, value ? value : "yes");
	if (!what)
		return OPTIONS_RUN;
	fprintf(stderr, "nicd: --%s '%s' %s\n", setting->option, value, what);
	return OPTIONS_USAGE;
}

static enum options_result argv_read(struct options *options, int argc, char **argv, enum options_pass pass)
{
	struct option table[ELEMENTS(settings) + 1] = { 0 };
	enum options_result result = OPTIONS_RUN;
	unsigned n = 0;
	int c;

	for (unsigned i = 0; i < ELEMENTS(settings); i++) {
		if (settings[i].option)
			table[n++] = (struct option){ settings[i].option, settings[i].argument ? required_argument : no_argument,
						      NULL, (int)i + 256 };
	}
	optind = 0;
	opterr = pass == PASS_FIRST;
	while (result == OPTIONS_RUN && (c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (c < 256) {
			fprintf(stderr, "Try 'nicd --help'.\n");
			return OPTIONS_USAGE;
		}
		result = option_apply(options, &settings[c - 256], optarg, pass);
	}
	if (result == OPTIONS_RUN && optind < argc) {
		fprintf(stderr, "nicd: '%s' is no option. Try 'nicd --help'.\n", argv[optind]);
		return OPTIONS_USAGE;
	}
	return result;
}

/* The file that was named must be there; the default one need not. */
static enum options_result file_read(struct options *options)
{
	char message[1024];
	bool named = options->config[0];

	if (!named && (options->rootless || access(OPTIONS_CONFIG, F_OK)))
		return OPTIONS_RUN;
	if (!named)
		strcpy(options->config, OPTIONS_CONFIG);
	if (!config_read(options, options->config, message, sizeof(message)))
		return OPTIONS_RUN;
	fprintf(stderr, "nicd: %s\n", message);
	return OPTIONS_FAILED;
}

void options_init(struct options *options)
{
	memset(options, 0, sizeof(*options));
	options->log_priority = LOG_INFO;
	options->ready_fd = -1;
	options->max_sessions = 16384;
	policy_init(&options->policy);
}

enum options_result options_read(struct options *options, int argc, char **argv)
{
	enum options_result result = argv_read(options, argc, argv, PASS_FIRST);

	if (result == OPTIONS_RUN)
		result = file_read(options);
	if (result == OPTIONS_RUN)
		result = argv_read(options, argc, argv, PASS_SECOND);
	return result;
}
