/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * nicctl: nicd from the command line. It is a client like any other and knows nothing but nicd.h. Functions that can fail say
 * why themselves and return an exit status, 0 being success.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/nicd.h"

enum nicctl_exit {
	NICCTL_OK = 0,
	NICCTL_REFUSED = 1,    /* nicd, the peer, or the system said no */
	NICCTL_USAGE = 2,
	NICCTL_NO_DAEMON = 3,  /* nicd does not run there, or went away */
};

/* Options; a command's row says which it takes. The first four are everybody's. */
enum nicctl_option {
	NICCTL_SOCKET = 1u << 0,
	NICCTL_ADMIN = 1u << 1,
	NICCTL_JSON = 1u << 2,
	NICCTL_HELP = 1u << 3,
	NICCTL_SIZE = 1u << 4,
	NICCTL_NAME = 1u << 5,
	NICCTL_ACCESS = 1u << 6,
	NICCTL_USES = 1u << 7,
	NICCTL_TTL = 1u << 8,
	NICCTL_PEERS = 1u << 9,
	NICCTL_OUTPUT = 1u << 10,
	NICCTL_COUNT = 1u << 11,
	NICCTL_OP = 1u << 12,
	NICCTL_DEPTH = 1u << 13,
	NICCTL_LIST = 1u << 14,
	NICCTL_SECONDS = 1u << 15,
	NICCTL_SCRATCH = 1u << 16,
	NICCTL_PROGRESS = 1u << 17,
	NICCTL_NO_PROGRESS = 1u << 18,
	NICCTL_HUGE = 1u << 19,
	NICCTL_NOTIFY = 1u << 20,
};

struct nicctl_table;

/* One run of the program. */
struct nicctl {
	struct nicd *n;                  /* open while the command runs, unless it closes it itself: nicctl_close */
	const struct nicctl_command *command;

	char wrong[64];                  /* the option being looked at, for a message */
	unsigned given;                  /* NICCTL_… options */
	const char *socket;
	bool admin, json;
	uint64_t size;
	const char *name;
	uint32_t access;                 /* NICD_MR_REMOTE_… */
	uint32_t uses, ttl_ms, peers;
	const char *output;
	uint32_t count;
	uint32_t operations;             /* NICD_MR_REMOTE_… */
	uint32_t depth, list, seconds;
	bool scratch;

	char **args;                     /* what follows the command's words */
	unsigned n_args;

	struct nicctl_table *tables[4];  /* what this command prints, in order */
	unsigned n_tables;
};

struct nicctl_command {
	const char *words;     /* "export create" */
	const char *args;      /* for the help */
	unsigned min_args, max_args;
	unsigned options;      /* besides those everybody takes */
	unsigned required;     /* of these */
	int (*fn)(struct nicctl *c);
	unsigned param;        /* what fn makes of it: one function may serve many rows */
	const char *help;
	bool offline;          /* asks nicd nothing: c->n is not there */
};

void nicctl_close(struct nicctl *c);
/* Whether nicd answers to a new session, where c's own has ended. */
bool nicctl_answers(struct nicctl *c);

/* ---- report.c: what is told on stderr; with --json each is a document of its own. */

/* The failure of the last call on c->n (or of nicd_open). */
int nicctl_failed(struct nicctl *c);
int nicctl_failed_info(struct nicctl *c, const struct nicd_error_info *info);
/* A failure that nicd knows nothing of; `error` is a positive errno, `cure` may be NULL. */
int nicctl_fail(struct nicctl *c, int error, const char *cure, const char *format, ...) __attribute__((format(printf, 4, 5)));
int nicctl_usage(struct nicctl *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nicctl_notice(struct nicctl *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `json`: it is told in that form. */
void nicctl_no_memory(bool json) __attribute__((noreturn));

/* ---- table.c: what is told on stdout, as tables or as one JSON document. */

enum nicctl_kind { NICCTL_TEXT, NICCTL_NUMBER, NICCTL_BOOL };
struct nicctl_column {
	const char *name;   /* upper case; the JSON key is the same in lower case */
	enum nicctl_kind kind;
};

/* The table is c's. `record`: people see each row as lines "name  value". */
struct nicctl_table *nicctl_table_new(struct nicctl *c, const char *name, bool record, const struct nicctl_column *columns,
				      unsigned n_columns);
void nicctl_row(struct nicctl_table *table);
/* The cells of the row, from the left. People see bytes as "1.5M", JSON as a number. */
void nicctl_cell(struct nicctl_table *table, const char *text);   /* NULL, "": nothing */
void nicctl_cell_number(struct nicctl_table *table, uint64_t value);
void nicctl_cell_serial(struct nicctl_table *table, uint64_t serial);   /* 0: nothing */
void nicctl_cell_unknown(struct nicctl_table *table);   /* "-", in JSON null: nicd does not tell it */
void nicctl_cell_hex(struct nicctl_table *table, uint64_t value);
void nicctl_cell_bytes(struct nicctl_table *table, uint64_t bytes);
void nicctl_cell_bool(struct nicctl_table *table, bool value);
void nicctl_cell_time(struct nicctl_table *table, uint64_t realtime_ns);   /* 0: nothing */
void nicctl_cell_access(struct nicctl_table *table, uint32_t flags);   /* "r", "w", "rw" for peers */
void nicctl_cell_micros(struct nicctl_table *table, uint64_t ns);   /* microseconds, one decimal */
/* Prints all of c's tables and forgets them. */
int nicctl_print(struct nicctl *c);
/* Forgets what was not printed. */
void nicctl_discard(struct nicctl *c);

void nicctl_bytes_text(char text[32], uint64_t bytes);

/* ---- peer.c: the memory behind a locator, and a buffer here. */

struct nicctl_peer {
	struct nicd_pd *pd;
	struct nicd_qp *qp;
	struct nicd_grant grant;
	struct nicd_buffer *buffer;   /* with local write */
	struct nicd_mr *mr;
	uint32_t max_entries;
	uint64_t max_length;          /* of one work request */
};
/* Connects to the locator that `arg` names: "@FILE", "-" (stdin), or the text itself. */
int nicctl_peer_open(struct nicctl *c, char *arg, struct nicctl_peer *peer);
int nicctl_peer_buffer(struct nicctl *c, struct nicctl_peer *peer, size_t size);
/* One transfer between the buffer and the grant, from `offset` of both. */
struct nicd_transfer nicctl_peer_transfer(const struct nicctl_peer *peer, uint64_t here, uint64_t there, uint32_t length);

uint64_t nicctl_now_ns(void);

/* ---- output.c: a file that keeps what it holds until all of the new is there. */

struct nicctl_output {
	int fd;         /* to write to */
	char *path;
	char *beside;   /* the name until then; NULL: fd is path itself, which is no regular file */
};
int nicctl_output_open(struct nicctl *c, const char *file, struct nicctl_output *output);
/* `r` is the status until now: with NICCTL_OK the file gets its name, else it goes. Returns the status that remains. */
int nicctl_output_close(struct nicctl *c, struct nicctl_output *output, int r);

/* ---- interrupt.c: signals that end a copy cleanly. */

void nicctl_interrupts_catch(void);
bool nicctl_interrupted(void);
/* Ends the program by the signal that was caught, if one was: whoever started it sees that. */
void nicctl_interrupts_raise(void);

/* ---- progress.c: how far a copy is, on stderr. */

struct nicctl_progress {
	struct nicctl *c;
	uint64_t total;      /* 0: nobody knows */
	uint64_t start_ns, shown_ns;
	bool show, over;     /* at all; over the line before */
};
void nicctl_progress_init(struct nicctl_progress *progress, struct nicctl *c, uint64_t total);
void nicctl_progress_show(struct nicctl_progress *progress, uint64_t done);
/* The line is free again. */
void nicctl_progress_end(struct nicctl_progress *progress);

/* ---- the commands */
int nicctl_status(struct nicctl *c);
int nicctl_device_show(struct nicctl *c);
int nicctl_extension_list(struct nicctl *c);
int nicctl_ledger(struct nicctl *c);
int nicctl_errors(struct nicctl *c);
int nicctl_list(struct nicctl *c);   /* param: NICD_TYPE_… */
int nicctl_who(struct nicctl *c);
int nicctl_revoke(struct nicctl *c);
int nicctl_export_create(struct nicctl *c);
int nicctl_get(struct nicctl *c);
int nicctl_put(struct nicctl *c);
int nicctl_ping(struct nicctl *c);
int nicctl_perf(struct nicctl *c);

/* A serial as an argument, or usage. */
int nicctl_serial_parse(struct nicctl *c, const char *text, uint64_t *ret);
