/* SPDX-License-Identifier: MIT */
/*
 * How nicd is asked to run: arguments, one a line up to an empty line, then the text of a configuration file. Whatever
 * it says, reading it ends with an answer and with figures that the table of settings allows.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/options.h"
#include "tests/fuzz/input.h"

enum { ARGUMENTS = 32, TEXT_MAX = 16384 };

static int file;
static char path[32];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	file = memfd_create("nicd.conf", MFD_CLOEXEC);
	must(file >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	return 0;
}

/* Cuts the arguments out of `text`; returns where the file begins. */
static char *cut_arguments(char *text, char *argv[ARGUMENTS + 4], int *argc)
{
	while (*text && *text != '\n' && *argc < ARGUMENTS) {
		size_t len = strcspn(text, "\n");
		char *next = text[len] ? text + len + 1 : text + len;

		text[len] = 0;
		/* Of all files, only ours is read. */
		if (strncmp(text, "--c", 3))
			argv[(*argc)++] = text;
		text = next;
	}
	return *text ? text + 1 : text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct options options;
	char name[] = "nicd", option[] = "--config", *argv[ARGUMENTS + 4] = { name, option, path }, *text, *rest;
	enum options_result result;
	int argc = 3;

	if (size > TEXT_MAX)
		return 0;
	text = malloc(size + 1);
	memcpy(text, data, size);
	text[size] = 0;
	rest = cut_arguments(text, argv, &argc);
	must(ftruncate(file, 0) == 0);
	must(pwrite(file, rest, size - (size_t)(rest - text), 0) == (ssize_t)(size - (size_t)(rest - text)));
	options_init(&options);
	result = options_read(&options, argc, argv);
	if (result == OPTIONS_RUN) {
		must(memchr(options.socket, 0, sizeof(options.socket)) && memchr(options.data_listen, 0, sizeof(options.data_listen)));
		must(memchr(options.config, 0, sizeof(options.config)) && options.max_sessions);
	}
	free(text);
	return 0;
}
