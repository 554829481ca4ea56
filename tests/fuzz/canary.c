/* SPDX-License-Identifier: MIT */
/* A planted bug: the run that does not find it cannot find others. */
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	volatile char *room;

	if (size < 4 || memcmp(data, "nicd", 4))
		return 0;
	room = malloc(4);
	room[size] = 1;
	free((void *)room);
	return 0;
}
