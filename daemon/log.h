/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The journal of the process: one line per fact, by whoever decides. Under systemd with fields, else on stderr. Never
 * blocks: a line that does not fit is dropped and counted. Tokens, tickets and secrets have no business here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <syslog.h>

/* Whom a line is about. */
struct log_client {
	uint32_t pid, uid;
	uint64_t session;      /* serial */
	const char *method;    /* NULL: none */
	const char *reason;    /* "MEMORY_NOT_SEALED"; NULL: none */
};

/* `priority`: the least important one that is written (LOG_INFO). */
void log_init(int priority);
bool log_wants(int priority);
void log_write(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What clients cause: limited in rate, so that no client can fill the journal. */
void log_client(int priority, const struct log_client *who, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Copies text with everything but printable ASCII as \xNN; always ends it. Returns dst. */
char *log_escape(char *dst, size_t size, const char *text);
