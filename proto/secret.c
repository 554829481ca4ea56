/* SPDX-License-Identifier: MIT */
#include "proto/secret.h"

#include <string.h>
#include <sys/mman.h>

void *secret_map(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	/* Where the kernel knows no such advice there are no core dumps of parts either: what is lost is secrecy in a dump, not work. */
	(void)madvise(at, size, MADV_DONTDUMP);
	return at;
}

void *secret_unmap(void *at, size_t size)
{
	if (!at)
		return NULL;
	explicit_bzero(at, size);
	munmap(at, size);
	return NULL;
}
