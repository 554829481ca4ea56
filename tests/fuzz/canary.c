/* SPDX-License-Identifier: MIT */
/* A planted bug: the run that does not find it cannot find others. */
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	volatile size_t behind = size;   /* not for the compiler to find */
	volatile char *room;

	if (size < 4 || memcmp(data, "nicd", 4))
		return 0;
	room = malloc(4);
	room[behind] = 1;
	free((void *)room);
	return 0;
}
