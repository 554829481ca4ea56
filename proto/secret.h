/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Memory for what a core dump shall not have: privileged keys, and what clients say, in which these are. It is mapped for itself, and zeroed before
 * it goes back.
 */
#include <stddef.h>

/* Zeroed. NULL: no memory. */
void *secret_map(size_t size);
/* NULL allowed; returns NULL. */
void *secret_unmap(void *at, size_t size);
