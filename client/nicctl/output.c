/* SPDX-License-Identifier: MIT */
/*
 * The file that a get writes. What stood there before stays until all of the new is there: a file is written under another name
 * beside it, which it loses at the end. What is no file, as a pipe or a device, is written as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/nicctl/nicctl.h"

/* What the new file may be used for: as the old one, or as any file that one creates. */
static mode_t output_mode(const struct stat *old)
{
	mode_t mask;

	if (old)
		return old->st_mode & 0777;
	mask = umask(0);
	umask(mask);
	return 0666 & ~mask;
}

/* `old` is NULL where there is nothing yet. */
static int output_beside(struct nicctl *c, struct nicctl_output *output, const struct stat *old)
{
	int error;

	/* Renaming would not ask. */
	if (old && access(output->path, W_OK) < 0)
		return nicctl_fail(c, errno, NULL, "cannot write to %s", output->path);
	if (asprintf(&output->beside, "%s.XXXXXX", output->path) < 0)
		nicctl_no_memory(c->json);
	output->fd = mkostemp(output->beside, O_CLOEXEC);
	if (output->fd >= 0 && fchmod(output->fd, output_mode(old)) == 0)
		return NICCTL_OK;
	error = errno;
	if (output->fd >= 0) {
		close(output->fd);
		unlink(output->beside);
	}
	return nicctl_fail(c, error, NULL, "cannot make a file beside %s", output->path);
}

int nicctl_output_open(struct nicctl *c, const char *file, struct nicctl_output *output)
{
	struct stat st;
	bool exists = stat(file, &st) == 0;
	int r = NICCTL_OK;

	/* A link stays, and what it names is replaced. */
	*output = (struct nicctl_output){ .fd = -1, .path = exists ? realpath(file, NULL) : strdup(file) };
	if (!output->path)
		r = nicctl_fail(c, errno, NULL, "cannot open %s", file);
	else if (!exists || S_ISREG(st.st_mode))
		r = output_beside(c, output, exists ? &st : NULL);
	else if ((output->fd = open(file, O_WRONLY | O_CLOEXEC)) < 0)
		r = nicctl_fail(c, errno, NULL, "cannot open %s", file);
	if (r != NICCTL_OK) {
		free(output->path);
		free(output->beside);
	}
	return r;
}

int nicctl_output_close(struct nicctl *c, struct nicctl_output *output, int r)
{
	if (close(output->fd) < 0 && r == NICCTL_OK)
		r = nicctl_fail(c, errno, NULL, "cannot write to %s", output->path);
	if (output->beside && r == NICCTL_OK && rename(output->beside, output->path) < 0)
		r = nicctl_fail(c, errno, NULL, "cannot replace %s", output->path);
	if (output->beside && r != NICCTL_OK)
		unlink(output->beside);
	free(output->path);
	free(output->beside);
	return r;
}
