/* SPDX-License-Identifier: MIT */
/* sd_notify, and the same for those who started nicd from a shell: a line on stderr and a descriptor as s6 has it. No state. */
#include "daemon/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"

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

void notify_reloading(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
		   (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
}

void notify_status(const char *format, ...)
{
	char status[512];
	va_list args;

	va_start(args, format);
	vsnprintf(status, sizeof(status), format, args);
	va_end(args);
	sd_notifyf(0, "STATUS=%s", status);
}

void notify_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}
