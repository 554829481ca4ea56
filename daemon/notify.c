/* SPDX-License-Identifier: MIT */
/*
 * What sd_notify does, and the same for those who started nicd from a shell: a line on stderr and a descriptor as s6
 * has it. No state.
 *
 * sd_notify waits while the manager is busy. That is right once, for READY; later news are sent here and dropped when
 * nobody takes them, because clients are waiting meanwhile.
 */
#include "daemon/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/util.h"

static void send_or_drop(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	_cleanup_fd_ int fd = -1;

	if (len < 2 || len >= sizeof(addr.sun_path) || (*path != '/' && *path != '@'))
		return;
	memcpy(addr.sun_path, path, len);
	if (*path == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&addr,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}

void notify_ready(const char *status, int ready_fd)
{
	log_write(LOG_NOTICE, "ready: %s", status);
	sd_notifyf(0, "READY=1\nSTATUS=%s", status);
	if (ready_fd >= 0) {
		/* Nobody there to read it is their affair. */
		if (write(ready_fd, "\n", 1) < 0)
			log_write(LOG_WARNING, "--ready-fd: %s", strerror(errno));
		close(ready_fd);
	}
}

void notify_status(const char *format, ...)
{
	char status[512] = "STATUS=";
	size_t n = strlen(status);
	va_list args;

	va_start(args, format);
	vsnprintf(status + n, sizeof(status) - n, format, args);
	va_end(args);
	send_or_drop(status);
}

void notify_stopping(void)
{
	send_or_drop("STOPPING=1");
}
