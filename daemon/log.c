/* SPDX-License-Identifier: MIT */
/*
 * The only global of the process. It knows where lines go: to journald's socket with fields when stderr is the journal, else to
 * stderr. The datagram is written here and not by sd_journal_send, because that one waits when journald is busy, and the loop
 * must not.
 */
#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon/util.h"

enum {
	LINE_MAX_BYTES = 1024,
	BURST = 100,          /* lines of clients at once */
	PER_SECOND = 20,
};

static struct {
	int priority;
	int journal;          /* -1: stderr */
	bool ready;
	uint64_t dropped;     /* lines that nobody took */
	uint64_t suppressed;  /* lines over the rate */
	unsigned burst;
	time_t refilled;
} log_state = { .priority = LOG_INFO, .journal = -1 };

/* systemd says in JOURNAL_STREAM which file stderr is, if it is the journal. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && !fstat(STDERR_FILENO, &st) && st.st_dev == dev &&
	       st.st_ino == ino;
}

static int journal_open(void)
{
	static const struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		fd = fd_close(fd);
	return fd;
}

void log_init(int priority)
{
	log_state.priority = priority;
	log_state.burst = BURST;
	if (!log_state.ready && stderr_is_journal())
		log_state.journal = journal_open();
	log_state.ready = true;
}

bool log_wants(int priority)
{
	return priority <= log_state.priority;
}

char *log_escape(char *dst, size_t size, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (; *text && n + 1 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= 0x20 && c < 0x7f) {
			dst[n++] = (char)c;
			continue;
		}
		if (n + 5 > size)
			break;
		dst[n++] = '\\';
		dst[n++] = 'x';
		dst[n++] = hex[c >> 4];
		dst[n++] = hex[c & 15];
	}
	dst[n] = '\0';
	return dst;
}

/* A pipe that polls writable takes PIPE_BUF bytes without waiting. */
static bool stderr_write(int priority, const char *line, const struct log_client *who)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	char buf[LINE_MAX_BYTES + 128];
	int n;

	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return false;
	if (who)
		n = snprintf(buf, sizeof(buf), "nicd: session %llu uid %u pid %u: %s\n", (unsigned long long)who->session,
			     who->uid, who->pid, line);
	else
		n = snprintf(buf, sizeof(buf), "nicd: %s\n", line);
	return write(STDERR_FILENO, buf, (size_t)n) == n;
}

static bool journal_write(int priority, const char *line, const struct log_client *who)
{
	char buf[LINE_MAX_BYTES + 512];
	int n;

	n = snprintf(buf, sizeof(buf), "PRIORITY=%d\nSYSLOG_IDENTIFIER=nicd\nMESSAGE=%s\n", priority, line);
	if (who)
		n += snprintf(buf + n, sizeof(buf) - (size_t)n, "CLIENT_PID=%u\nCLIENT_UID=%u\nSESSION=%llu\n%s%s%s%s%s%s", who->pid,
			      who->uid, (unsigned long long)who->session, who->method ? "METHOD=" : "",
			      who->method ? who->method : "", who->method ? "\n" : "", who->reason ? "REASON=" : "",
			      who->reason ? who->reason : "", who->reason ? "\n" : "");
	if ((size_t)n >= sizeof(buf))
		return false;
	return send(log_state.journal, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n;
}

static void line_write(int priority, const struct log_client *who, const char *format, va_list args)
{
	char raw[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
	int saved = errno;

	vsnprintf(raw, sizeof(raw), format, args);
	log_escape(line, sizeof(line), raw);
	if (!(log_state.journal >= 0 ? journal_write : stderr_write)(priority, line, who))
		log_state.dropped++;
	errno = saved;
}

void log_write(int priority, const char *format, ...)
{
	va_list args;

	if (!log_wants(priority))
		return;
	va_start(args, format);
	line_write(priority, NULL, format, args);
	va_end(args);
}

/* A bucket of BURST lines, refilled with PER_SECOND. */
static bool rate_allows(void)
{
	struct timespec now;
	time_t passed;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	passed = now.tv_sec - log_state.refilled;
	if (passed > 0) {
		log_state.refilled = now.tv_sec;
		log_state.burst = passed >= BURST / PER_SECOND || log_state.burst + passed * PER_SECOND > BURST ?
			BURST : log_state.burst + (unsigned)passed * PER_SECOND;
	}
	if (!log_state.burst) {
		log_state.suppressed++;
		return false;
	}
	log_state.burst--;
	return true;
}

void log_client(int priority, const struct log_client *who, const char *format, ...)
{
	va_list args;

	if (!log_wants(priority) || !rate_allows())
		return;
	if (log_state.suppressed || log_state.dropped) {
		unsigned long long lost = log_state.suppressed + log_state.dropped;

		log_state.suppressed = log_state.dropped = 0;
		log_write(LOG_WARNING, "%llu lines left out, too many at once", lost);
	}
	va_start(args, format);
	line_write(priority, who, format, args);
	va_end(args);
}
