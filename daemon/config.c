/* SPDX-License-Identifier: MIT */
/*
 * Reads the configuration file once, at start. inih splits lines, the options table knows keys and values; this file
 * adds what inih does not tell: the line of the first error, lines that are too long for it, and files that are no
 * text. Holds nothing afterwards.
 */
#include "daemon/config.h"

#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "daemon/options.h"

struct reading {
	struct options *options;
	const char *path;
	FILE *file;
	unsigned line;
	bool failed;
	unsigned failed_line;
	char *message;
	size_t size;
};

/* The first error is the one that is told. */
static void reading_fail(struct reading *reading, const char *what)
{
	if (reading->failed)
		return;
	reading->failed = true;
	reading->failed_line = reading->line;
	snprintf(reading->message, reading->size, "%s:%u: %s", reading->path, reading->line, what);
}

static char *reading_line(char *buf, int size, void *userdata)
{
	struct reading *reading = userdata;

	if (reading->failed || !fgets(buf, size, reading->file))
		return NULL;
	reading->line++;
	if (!strchr(buf, '\n') && !feof(reading->file)) {
		reading_fail(reading, "the line is too long, or has a byte 0 in it; lines have at most 197 bytes");
		return NULL;
	}
	return buf;
}

static int reading_key(void *userdata, const char *section, const char *key, const char *value)
{
	struct reading *reading = userdata;
	const char *wrong = options_set(reading->options, section, key, value);

	if (wrong)
		reading_fail(reading, wrong);
	return !wrong;
}

int config_read(struct options *options, const char *path, char *message, size_t size)
{
	struct reading reading = { .options = options, .path = path, .message = message, .size = size };
	int r;

	reading.file = fopen(path, "re");
	if (!reading.file) {
		r = -errno;
		snprintf(message, size, "%s: cannot be read: %s", path, strerror(-r));
		return r;
	}
	r = ini_parse_stream(reading_line, &reading, reading_key, &reading);
	/* inih knows the first line that went wrong, and goes on: what was found wrong behind it may only follow from it. */
	if (r > 0 && (!reading.failed || (unsigned)r < reading.failed_line)) {
		reading.line = (unsigned)r;
		reading.failed = false;
		reading_fail(&reading, "is neither [section] nor key = value");
	}
	if (!reading.failed && (r < 0 || ferror(reading.file)))
		reading_fail(&reading, "reading failed");
	fclose(reading.file);
	return reading.failed ? -EINVAL : 0;
}
