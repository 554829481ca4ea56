/* SPDX-License-Identifier: MIT */
#pragma once
/* What the service manager, or a script that waits, is told. */

/* Serves clients. Also one line on stderr, and a newline on ready_fd, which is closed (-1: none). */
void notify_ready(const char *status, int ready_fd);
void notify_reloading(void);
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
void notify_stopping(void);
