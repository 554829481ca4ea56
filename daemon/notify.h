/* SPDX-License-Identifier: MIT */
#pragma once
/* What the service manager, or a script that waits, is told. */

/* nicd serves clients. Also one line on stderr, and a newline on ready_fd, which is closed (-1: none). */
void notify_ready(const char *status, int ready_fd);
/* These two never wait; a manager that is busy misses them. */
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void notify_stopping(void);
