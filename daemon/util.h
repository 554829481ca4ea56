/* SPDX-License-Identifier: MIT */
#pragma once
/* The few idioms that every file of the process uses. */
#include <stddef.h>
#include <unistd.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define ELEMENTS(array) (sizeof(array) / sizeof(*(array)))

/* Closes what is open and returns -1, so that `fd = fd_close(fd)` leaves nothing behind. */
static inline int fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
	return -1;
}

/* `_cleanup_fd_ int fd = -1;` is closed when it goes out of scope. */
static inline void fd_cleanup(int *fd)
{
	fd_close(*fd);
}
#define _cleanup_fd_ __attribute__((cleanup(fd_cleanup)))

/* Gives the descriptor away. */
static inline int fd_steal(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}
