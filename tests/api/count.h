/* SPDX-License-Identifier: MIT */
#pragma once
/* What a process has: descriptors in /proc/self/fd, threads in /proc/self/task. */
#include <dirent.h>

static inline unsigned count(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}
