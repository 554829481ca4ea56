/* SPDX-License-Identifier: MIT */
#pragma once
/* Memory that can be registered, made and mapped here: sealed, populated memfds. Knows nothing of sessions. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/error.h"

struct buffer {
	int fd;            /* owned */
	void *address;     /* NULL: not mapped */
	size_t size, page_size;
};

/* Makes one of `size` bytes, rounded up to whole pages. `flags`: NICD_BUFFER_… */
int buffer_init(struct buffer *buffer, size_t size, uint32_t flags, struct nicd_error_info *error);
/* Maps a copy of the caller's. */
int buffer_init_fd(struct buffer *buffer, int fd, struct nicd_error_info *error);
void buffer_deinit(struct buffer *buffer);

/* The size of the pages behind a memfd. -errno. */
int buffer_page_size(int fd, size_t *ret);
