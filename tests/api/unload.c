/* SPDX-License-Identifier: MIT */
/*
 * unload PLUGIN LIBRARY: a plugin that works with libnicd is loaded, ends in the middle of its work, and is unloaded with the library, again and
 * again; afterwards the process has the descriptors, threads and mappings that it had.
 *
 * mutation: keep anything in a variable of the library, or one mapping or descriptor of a session that is freed
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/api/count.h"
#include "tests/api/work.h"

enum { ROUNDS = 4 };

/* Of memfds: the buffers. */
static unsigned count_buffers(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		for (const char *at = line; *at; at++)
			n += at[0] == 'm' && at[1] == 'e' && at[2] == 'm' && at[3] == 'f' && at[4] == 'd' && at[5] == ':';
	}
	if (maps)
		fclose(maps);
	return n;
}

static int round_of(const char *plugin, const char *library, unsigned i)
{
	void *loaded = dlopen(plugin, RTLD_NOW | RTLD_LOCAL), *symbol;
	const char *what = "";
	work_run_fn run;
	int line;

	if (!loaded) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	symbol = dlsym(loaded, "work_run");
	*(void **)&run = symbol;
	line = run(getenv("NICD_TEST_1"), getenv("NICD_TEST_2"), i % WORK_ENDS, 5000 + i, &what);
	if (line)
		fprintf(stderr, "work.c:%d: %s\n", line, what);
	if (dlclose(loaded) != 0 || dlopen(library, RTLD_NOW | RTLD_NOLOAD)) {
		fprintf(stderr, "the library stays\n");
		return 1;
	}
	return line != 0;
}

int main(int argc, char **argv)
{
	unsigned fds = count("/proc/self/fd"), tasks = count("/proc/self/task");

	for (unsigned i = 0; i < ROUNDS * WORK_ENDS; i++)
		if (argc < 3 || round_of(argv[1], argv[2], i))
			return 1;
	if (count("/proc/self/fd") == fds && count("/proc/self/task") == tasks && count_buffers() == 0)
		return 0;
	fprintf(stderr, "%u descriptors, before %u; %u threads, before %u; %u buffers\n", count("/proc/self/fd"), fds, count("/proc/self/task"), tasks,
		count_buffers());
	return 1;
}
