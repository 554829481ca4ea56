/* SPDX-License-Identifier: MIT */
/*
 * nicctl export create: memory of this process under a name, until a signal or the export's end. A file is copied, because only
 * memory that nobody can shrink under the device may be registered.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/nicctl/nicctl.h"

struct export {
	struct nicctl *c;
	uint64_t size;
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	struct nicd_export *door;
	int output;          /* -1: none */
	uint32_t ended;      /* NICD_EVENT_REVOKED or _EXPIRED */
	bool lost;           /* the session has ended */
	struct nicd_error_info why;   /* what came with it; error 0: nothing */
};

static int export_read(struct export *e, int fd, const char *file)
{
	uint8_t *to = nicd_buffer_address(e->buffer);
	uint64_t left = e->size;

	while (left > 0) {
		ssize_t n = read(fd, to, left < 1 << 30 ? (size_t)left : 1 << 30);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return nicctl_fail(e->c, errno, NULL, "cannot read %s", file);
		if (n == 0)
			return nicctl_fail(e->c, EIO, "try again when nobody changes it", "%s became shorter while it was copied", file);
		to += n;
		left -= (uint64_t)n;
	}
	return NICCTL_OK;
}

static int export_buffer(struct export *e)
{
	bool huge = e->c->given & NICCTL_HUGE;

	if (e->size > SIZE_MAX)
		return nicctl_fail(e->c, EFBIG, NULL, "the export is larger than memory can be");
	if (nicd_buffer_new(e->c->n, (size_t)e->size, huge ? NICD_BUFFER_HUGE : 0, &e->buffer) < 0)
		return nicctl_failed(e->c);
	if (huge && nicd_buffer_page_size(e->buffer) < 1 << 20)
		nicctl_notice(e->c, "there are not enough free huge pages, so the memory is of normal ones; "
			      "see nr_hugepages in /sys/kernel/mm/hugepages/hugepages-2048kB");
	return NICCTL_OK;
}

static int export_copy_file(struct export *e, const char *file)
{
	/* Does not wait for the writer of a pipe, which is refused anyway. */
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return nicctl_fail(e->c, errno, NULL, "cannot open %s", file);
	if (!S_ISREG(st.st_mode))
		r = nicctl_fail(e->c, EINVAL, "copy it into a file first", "%s is not a regular file", file);
	else if (st.st_size == 0)
		r = nicctl_fail(e->c, ENODATA, "use --size N for new memory", "%s is empty", file);
	else {
		e->size = (uint64_t)st.st_size;
		r = export_buffer(e);
		if (r == NICCTL_OK)
			r = export_read(e, fd, file);
	}
	close(fd);
	return r;
}

static void export_tell_copied(struct export *e, const char *file)
{
	const char *written = "";

	if (e->c->access & NICD_MR_REMOTE_WRITE)
		written = e->output >= 0 ? ", and what peers write does not reach it" :
					   ", and what peers write does not reach it (--output FILE saves it at the end)";
	nicctl_notice(e->c, "%s was copied into %llu bytes of sealed memory: later changes of the file are not seen%s", file,
		      (unsigned long long)e->size, written);
}

/* The one string that nicd may have refused is the name. */
static int export_refused(struct export *e)
{
	struct nicd_error_info info = *nicd_last_error(e->c->n);
	char text[sizeof(info.text)];

	if (strcmp(info.name, "STRING") == 0) {
		memcpy(text, info.text, sizeof(text));
		snprintf(info.text, sizeof(info.text), "--name: %.240s", text);
	}
	return nicctl_failed_info(e->c, &info);
}

static int export_register(struct export *e)
{
	struct nicctl *c = e->c;
	struct nicd_mr_attr mr_attr = { .size = sizeof(mr_attr), .flags = c->access, .buffer = e->buffer, .length = e->size };
	struct nicd_export_attr attr = {
		.size = sizeof(attr),
		.flags = c->access,
		.name = c->name,
		.uses = c->uses,
		.ttl_ms = c->ttl_ms,
		.peers = c->peers,
	};

	if (nicd_pd_create(c->n, 0, &e->pd) < 0 || nicd_mr_new(e->pd, &mr_attr, &e->mr) < 0 ||
	    nicd_export_create(e->mr, &attr, &e->door) < 0)
		return export_refused(e);
	return NICCTL_OK;
}

/* The locator alone for people and pipes; all of it as JSON. */
static int export_print(struct export *e)
{
	static const struct nicctl_column columns[] = {
		{ "SERIAL", NICCTL_NUMBER }, { "NAME", NICCTL_TEXT }, { "SIZE", NICCTL_NUMBER }, { "ACCESS", NICCTL_TEXT },
		{ "LOCATOR", NICCTL_TEXT }, { "PID", NICCTL_NUMBER }, { "PAGE_SIZE", NICCTL_NUMBER },
	};
	struct nicctl *c = e->c;
	struct nicctl_table *table;

	if (!c->json) {
		puts(nicd_export_locator(e->door));
		return fflush(stdout) == 0 ? NICCTL_OK : nicctl_fail(c, errno, NULL, "cannot write to stdout");
	}
	table = nicctl_table_new(c, "export", true, columns, sizeof(columns) / sizeof(columns[0]));
	nicctl_row(table);
	nicctl_cell_number(table, nicd_export_serial(e->door));
	nicctl_cell(table, c->name);
	nicctl_cell_bytes(table, e->size);
	nicctl_cell_access(table, c->access);
	nicctl_cell(table, nicd_export_locator(e->door));
	nicctl_cell_number(table, (uint64_t)getpid());
	nicctl_cell_number(table, nicd_buffer_page_size(e->buffer));
	return nicctl_print(c);
}

/* The first word of its end counts: what follows is its consequence. */
static void export_ended(struct export *e, const struct nicd_event *event)
{
	if (e->ended)
		return;
	e->ended = event->kind;
	if (event->error)
		e->why = *event->error;
}

/* For people on stderr; as JSON an object of its own on stdout, each time. */
static void export_notified(struct export *e, const struct nicd_event *event)
{
	static const struct nicctl_column columns[] = {
		{ "QP", NICCTL_NUMBER }, { "COUNT", NICCTL_NUMBER },
	};
	struct nicctl *c = e->c;
	struct nicctl_table *table;

	nicctl_notice(c, "a peer says that what it wrote is there (qp %llu, count %llu)", (unsigned long long)event->serial,
		      (unsigned long long)event->count);
	if (!c->json)
		return;
	table = nicctl_table_new(c, "notified", false, columns, sizeof(columns) / sizeof(columns[0]));
	nicctl_row(table);
	nicctl_cell_number(table, event->serial);
	nicctl_cell_number(table, event->count);
	nicctl_print(c);
}

static void export_event(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	struct export *e = userdata;

	switch (event->kind) {
	case NICD_EVENT_CONNECTED:
		nicctl_notice(e->c, "a peer connected (qp %llu)", (unsigned long long)event->serial);
		break;
	case NICD_EVENT_NOTIFIED:
		export_notified(e, event);
		break;
	case NICD_EVENT_DISCONNECTED:
		nicctl_notice(e->c, "a peer disconnected (qp %llu)", (unsigned long long)event->serial);
		break;
	case NICD_EVENT_REVOKED:
	case NICD_EVENT_EXPIRED:
		if (event->object == e->door || event->object == e->mr)
			export_ended(e, event);
		break;
	default:
		break;
	}
}

/* Until a signal, or the export's end. */
static int export_hold(struct export *e, int signals)
{
	struct nicd *n = e->c->n;
	int r;

	while (!e->ended) {
		struct pollfd polls[] = {
			{ .fd = signals, .events = POLLIN },
			{ .fd = nicd_get_fd(n), .events = (short)nicd_get_events(n) },
		};

		if (poll(polls, 2, nicd_get_timeout(n)) < 0 && errno != EINTR)
			return nicctl_fail(e->c, errno, NULL, "cannot wait");
		if (polls[0].revents)
			return NICCTL_OK;
		r = nicd_dispatch(n, 0);
		if (r < 0 && r != -EINTR) {
			e->lost = true;
			return nicctl_failed(e->c);
		}
	}
	if (e->ended == NICD_EVENT_EXPIRED) {
		nicctl_notice(e->c, "the export has expired");
		return NICCTL_OK;
	}
	if (e->why.error && e->why.error != -ECANCELED)
		return nicctl_failed_info(e->c, &e->why);
	return nicctl_fail(e->c, ECANCELED, NULL, "the export was revoked");
}

/* After this nobody else writes to the memory. */
static int export_end(struct export *e)
{
	int r = nicd_export_close(e->door);

	if (r == 0)
		r = nicd_mr_close(e->mr);
	return r < 0 ? nicctl_failed(e->c) : NICCTL_OK;
}

static int export_save(struct export *e)
{
	const uint8_t *from = nicd_buffer_address(e->buffer);
	uint64_t left = e->size;

	/* What the file held before and is not overwritten goes. Pipes and devices have no length. */
	if (ftruncate(e->output, 0) < 0 && errno != EINVAL)
		return nicctl_fail(e->c, errno, NULL, "cannot truncate %s", e->c->output);
	while (left > 0) {
		ssize_t n = write(e->output, from, left < 1 << 30 ? (size_t)left : 1 << 30);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return nicctl_fail(e->c, errno, NULL, "cannot write to %s", e->c->output);
		from += n;
		left -= (uint64_t)n;
	}
	nicctl_notice(e->c, "%llu bytes of memory were saved to %s", (unsigned long long)e->size, e->c->output);
	return NICCTL_OK;
}

/* From now on they are read, where they would have killed: what is to be revoked and saved is there. */
static int export_catch_signals(struct export *e, int *ret)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0 || (*ret = signalfd(-1, &signals, SFD_CLOEXEC)) < 0)
		return nicctl_fail(e->c, errno, NULL, "cannot wait for signals");
	return NICCTL_OK;
}

static int export_run(struct export *e)
{
	struct nicctl *c = e->c;
	int signals = -1;
	int r, held;

	if (c->n_args) {
		r = export_copy_file(e, c->args[0]);
	} else {
		e->size = c->size;
		r = export_buffer(e);
	}
	if (r == NICCTL_OK)
		r = export_catch_signals(e, &signals);
	if (r == NICCTL_OK)
		r = export_register(e);
	if (r == NICCTL_OK && c->n_args)
		export_tell_copied(e, c->args[0]);
	if (r == NICCTL_OK)
		r = export_print(e);
	if (r != NICCTL_OK)
		return r;
	held = export_hold(e, signals);
	close(signals);
	if (!e->lost)
		r = export_end(e);
	/* Also when the session has ended: the memory is ours. */
	if (r == NICCTL_OK && e->output >= 0)
		r = export_save(e);
	return held != NICCTL_OK ? held : r;
}

int nicctl_export_create(struct nicctl *c)
{
	struct export e = { .c = c, .output = -1 };
	int r;

	if ((c->n_args == 1) == !!(c->given & NICCTL_SIZE))
		return nicctl_usage(c, "export create takes a FILE or --size N");
	/* Opened first: better to learn now than at the end that it can't be. */
	if (c->output)
		e.output = open(c->output, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (c->output && e.output < 0)
		return nicctl_fail(c, errno, NULL, "cannot open %s", c->output);
	nicd_set_event_callback(c->n, export_event, &e);
	r = export_run(&e);
	/* No event may come any more: `e` ends here. */
	nicctl_close(c);
	if (e.output >= 0 && close(e.output) < 0 && r == NICCTL_OK)
		r = nicctl_fail(c, errno, NULL, "cannot write to %s", c->output);
	return r;
}
