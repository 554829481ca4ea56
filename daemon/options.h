/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How this process was asked to run. Every setting is a row of one table, with its name on the command line, its section and
 * key in the configuration file, and one function that reads its value for both. The command line wins.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "daemon/policy.h"

enum options_provider { OPTIONS_AUTO, OPTIONS_SOFT, OPTIONS_NONE };

enum { OPTIONS_PATH = sizeof(((struct sockaddr_un *)0)->sun_path), OPTIONS_FILE = 4096, OPTIONS_TEXT = 256 };

struct options {
	enum options_provider provider;
	bool rootless;
	char socket[OPTIONS_PATH];
	char admin_socket[OPTIONS_PATH];
	char soft_socket[OPTIONS_PATH];
	bool has_soft_uid;
	uid_t soft_uid;
	char soft_program[OPTIONS_FILE];   /* rootless; "": look for it */
	char data_listen[OPTIONS_TEXT];    /* for the nicd-soft that is spawned */
	char data_advertise[OPTIONS_TEXT];
	char soft_options[OPTIONS_TEXT];   /* more words for its command line */
	bool has_gateway_uid;
	uid_t gateway_uid;
	bool bind_to_pid;
	uint32_t max_sessions;
	int log_priority;
	int ready_fd;                      /* -1: none */
	char config[OPTIONS_FILE];         /* "": none was named */
	char fault[OPTIONS_TEXT];
	struct policy policy;
	char wrong[512];                   /* what options_set found */
	/* Where the allowed networks come from: a list that is given replaces one of lower rank. */
	enum options_rank { OPTIONS_DEFAULT, OPTIONS_FROM_FILE, OPTIONS_FROM_ARGV } rank, connect_rank;
};

/* What the caller shall do. */
enum options_result { OPTIONS_RUN, OPTIONS_EXIT, OPTIONS_USAGE, OPTIONS_FAILED };

void options_init(struct options *options);
/*
 * Reads argv and the configuration file that it or the default names, then fills in paths that were left open. Help,
 * version and errors are printed. OPTIONS_USAGE: the command line is wrong; OPTIONS_FAILED: the configuration or the
 * environment is.
 */
enum options_result options_read(struct options *options, int argc, char **argv);

/*
 * For the configuration file: sets section.key to value. NULL: done; else what is wrong with it, in
 * options->wrong.
 */
const char *options_set(struct options *options, const char *section, const char *key, const char *value);

/* For tests: tells every section and key. */
void options_each_key(void (*fn)(void *userdata, const char *section, const char *key), void *userdata);
