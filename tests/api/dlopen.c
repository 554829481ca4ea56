/* SPDX-License-Identifier: MIT */
/*
 * dlopen LIBRARY: the library can be loaded, used and unloaded, again and again, and leaves nothing behind: no descriptor,
 * no thread.
 *
 * mutation: -z nodelete among the library's link arguments
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

#include "client/nicd.h"
#include "tests/api/count.h"

static int use(const char *path)
{
	struct nicd_open_attr attr = { .size = sizeof(attr), .socket = "/nonexistent" };
	struct nicd *n = NULL;
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	int (*open_session)(struct nicd **, const struct nicd_open_attr *);
	void *symbol;
	int r;

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	symbol = dlsym(library, "nicd_open");
	*(void **)&open_session = symbol;
	r = open_session(&n, &attr);
	if (dlclose(library) != 0 || r != -ENOENT)
		return 1;
	return dlopen(path, RTLD_NOW | RTLD_NOLOAD) ? 1 : 0;
}

int main(int argc, char **argv)
{
	unsigned fds = count("/proc/self/fd"), tasks = count("/proc/self/task");

	for (int i = 0; i < 3; i++)
		if (argc < 2 || use(argv[1]))
			return 1;
	return count("/proc/self/fd") != fds || count("/proc/self/task") != tasks;
}
