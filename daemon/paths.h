/* SPDX-License-Identifier: MIT */
#pragma once
/* Where things are when nobody says: sockets, the runtime directory of rootless mode, the nicd-soft to start. */
#include <stddef.h>

struct options;

/* Fills in what options left open. Negative errno, with what, why and a cure in `message`. */
int paths_complete(struct options *options, char *message, size_t size);

/*
 * For rootless mode: makes `path` a directory of ours alone, or finds it so. Refuses a link, another's directory, and
 * one that others may enter. As above.
 */
int paths_private_directory(const char *path, char *message, size_t size);
