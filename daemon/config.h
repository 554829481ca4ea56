/* SPDX-License-Identifier: MIT */
#pragma once
/* The configuration file: sections and keys of the options table, with inih. */
#include <stddef.h>

struct options;

/*
 * Reads `path` into options. 0; or a negative errno with the message "FILE:LINE: what, and what to do" in `message`:
 * -EINVAL for what is in the file, others for the file itself.
 */
int config_read(struct options *options, const char *path, char *message, size_t size);
