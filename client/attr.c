/* SPDX-License-Identifier: MIT */
/* Public structs that may grow. See attr.h. They are the caller's; nothing is kept here. */
#include <string.h>

#include "client/attr.h"

static uint32_t attr_size(const void *attr)
{
	uint32_t size;

	memcpy(&size, attr, sizeof(size));
	return size;
}

int attr_get(struct nicd_error_info *error, void *to, size_t size, size_t least, const void *from)
{
	size_t given;

	memset(to, 0, size);
	if (!from)
		return 0;
	given = attr_size(from);
	if (given < least)
		return error_local(error, ERROR_STRUCT_SIZE, least, given);
	for (size_t i = size; i < given; i++)
		if (((const uint8_t *)from)[i])
			return error_local(error, ERROR_STRUCT_NEWER, size, given);
	memcpy(to, from, given < size ? given : size);
	return 0;
}

int attr_check(struct nicd *n, const void *to, size_t least)
{
	if (!to || attr_size(to) >= least)
		return 0;
	return conn_fail(n, ERROR_STRUCT_SIZE, least, attr_size(to));
}

void attr_put(void *to, const void *from, size_t size)
{
	uint32_t given;

	if (!to)
		return;
	given = attr_size(to);
	if (given > size)
		memset((uint8_t *)to + size, 0, given - size);
	memcpy((uint8_t *)to + sizeof(given), (const uint8_t *)from + sizeof(given), (given < size ? given : size) - sizeof(given));
}
