/* SPDX-License-Identifier: MIT */
#pragma once
/* What a passed descriptor must be to back memory regions. */
#include "nicd/memory.h"

/*
 * Fills *ret, with fd, which stays the caller's. Never calls into a file system before the descriptor is known to be a memfd.
 * MEMORY_NOT_MEMFD, MEMORY_NOT_SEALED, MEMORY_KIND, MEMORY_WRITE_ONLY, MEMORY_EMPTY, MEMORY_SPARSE.
 */
int memfd_check(int fd, struct nic_memory_facts *ret, struct nicd_error *err);
