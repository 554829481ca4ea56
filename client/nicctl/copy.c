/* SPDX-License-Identifier: MIT */
/*
 * nicctl get and put. The buffer has two slots: while the file fills or drains one, the network works on the other. A slot's work
 * is one transfer list. The session ends before the copy is freed, because calls under way point into it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/nicctl/nicctl.h"

enum {
	COPY_SLOTS = 2,
	COPY_SLOT_SIZE = 8 << 20,
	COPY_ENTRY_SIZE = 1 << 20,
	COPY_ENTRIES = COPY_SLOT_SIZE / COPY_ENTRY_SIZE,
};

struct copy_slot {
	struct copy *copy;
	uint8_t *at;                  /* in the buffer */
	uint64_t here, there;         /* offsets in the buffer and in the grant */
	size_t len;
	bool busy, answered;
	int error;
	struct nicd_error_info info;  /* of error */
	struct nicd_completion completion;
};

struct copy {
	struct nicctl *c;
	struct nicctl_peer peer;
	bool put;
	int fd;
	const char *file;             /* for messages */
	uint64_t length;              /* known, or the most there may be (put of a stream) */
	uint64_t posted, done;
	bool ended;                   /* nothing more to post */
	size_t slot_size;
	struct copy_slot slots[COPY_SLOTS];
	uint64_t start_ns;
	struct nicctl_progress progress;
};

static int copy_interrupted(struct copy *copy)
{
	nicctl_progress_end(&copy->progress);
	return nicctl_fail(copy->c, EINTR, NULL, "%llu bytes had been copied", (unsigned long long)copy->done);
}

static int copy_write_file(struct copy *copy, const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = nicctl_interrupted() ? 0 : write(copy->fd, data, len);

		if (nicctl_interrupted())
			return copy_interrupted(copy);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return nicctl_fail(copy->c, errno, NULL, "cannot write to %s", copy->file);
		data += n;
		len -= (size_t)n;
	}
	return NICCTL_OK;
}

/* Up to `len` bytes, less only at the end of the file. */
static int copy_read_file(struct copy *copy, uint8_t *data, size_t len, size_t *ret)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = nicctl_interrupted() ? 0 : read(copy->fd, data + got, len - got);

		if (nicctl_interrupted())
			return copy_interrupted(copy);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return nicctl_fail(copy->c, errno, NULL, "cannot read %s", copy->file);
		if (n == 0)
			break;
		got += (size_t)n;
	}
	*ret = got;
	return NICCTL_OK;
}

static void copy_answered(struct nicd *n, int error, void *userdata)
{
	struct copy_slot *slot = userdata;

	slot->answered = true;
	slot->error = error;
	if (error)
		slot->info = *nicd_last_error(n);
}

static int copy_post(struct copy *copy, struct copy_slot *slot)
{
	struct nicd_transfer list[COPY_ENTRIES];
	unsigned count = 0;
	int r;

	for (size_t at = 0; at < slot->len; at += COPY_ENTRY_SIZE) {
		size_t len = slot->len - at < COPY_ENTRY_SIZE ? slot->len - at : COPY_ENTRY_SIZE;

		list[count++] = nicctl_peer_transfer(&copy->peer, slot->here + at, slot->there + at, (uint32_t)len);
	}
	slot->busy = true;
	slot->answered = false;
	slot->completion.size = sizeof(slot->completion);
	if (copy->put)
		r = nicd_qp_write_list_async(copy->peer.qp, list, count, &slot->completion, copy_answered, slot);
	else
		r = nicd_qp_read_list_async(copy->peer.qp, list, count, &slot->completion, copy_answered, slot);
	if (r == 0)
		r = nicd_flush(copy->c->n);
	return r < 0 ? nicctl_failed(copy->c) : NICCTL_OK;
}

/* Puts the next piece on its way, if there is one. */
static int copy_start(struct copy *copy, struct copy_slot *slot)
{
	uint64_t left = copy->length - copy->posted;
	int r;

	slot->len = left < copy->slot_size ? (size_t)left : copy->slot_size;
	slot->there = copy->posted;
	if (copy->put && slot->len > 0) {
		size_t got = 0;

		r = copy_read_file(copy, slot->at, slot->len, &got);
		if (r != NICCTL_OK)
			return r;
		slot->len = got;
	}
	if (slot->len == 0) {
		copy->ended = true;
		return NICCTL_OK;
	}
	copy->posted += slot->len;
	return copy_post(copy, slot);
}

static int copy_finish(struct copy *copy, struct copy_slot *slot)
{
	int r = NICCTL_OK;

	if (!slot->busy)
		return NICCTL_OK;
	while (!slot->answered) {
		int n = nicctl_interrupted() ? 0 : nicd_dispatch(copy->c->n, -1);

		if (nicctl_interrupted())
			return copy_interrupted(copy);
		if (n < 0 && n != -EINTR)
			return nicctl_failed(copy->c);
	}
	slot->busy = false;
	if (slot->error)
		return nicctl_failed_info(copy->c, &slot->info);
	if (!copy->put)
		r = copy_write_file(copy, slot->at, slot->len);
	copy->done += slot->len;
	nicctl_progress_show(&copy->progress, copy->done);
	return r;
}

static int copy_run(struct copy *copy)
{
	unsigned at = 0;
	int r;

	for (;;) {
		struct copy_slot *slot = &copy->slots[at];

		r = copy_finish(copy, slot);
		if (r == NICCTL_OK && !copy->ended)
			r = copy_start(copy, slot);
		at = (at + 1) % COPY_SLOTS;
		if (r != NICCTL_OK || (copy->ended && !copy->slots[at].busy))
			return r;
	}
}

/* Connects, checks the grant, and makes the slots. */
static int copy_open(struct copy *copy)
{
	struct nicctl *c = copy->c;
	struct nicctl_peer *peer = &copy->peer;
	uint32_t need = copy->put ? NICD_MR_REMOTE_WRITE : NICD_MR_REMOTE_READ;
	uint64_t size = COPY_SLOT_SIZE;
	uint64_t most;
	int r;

	r = nicctl_peer_open(c, c->args[0], peer);
	if (r != NICCTL_OK)
		return r;
	if ((peer->grant.flags & need) != need)
		return nicctl_fail(c, EACCES, copy->put ? "ask for a locator with --access w or rw" :
							  "ask for a locator with --access r or rw",
				   "the locator does not allow to %s", copy->put ? "write" : "read");
	/* A slot is one work request. */
	most = (uint64_t)peer->max_entries * COPY_ENTRY_SIZE;
	if (most > peer->max_length)
		most = peer->max_length;
	if (size > most)
		size = most;
	if (size > peer->grant.length)
		size = peer->grant.length;
	if (size == 0)
		return nicctl_fail(c, ENODATA, NULL, "the locator names no memory");
	r = nicctl_peer_buffer(c, peer, (size_t)size * COPY_SLOTS);
	for (unsigned i = 0; r == NICCTL_OK && i < COPY_SLOTS; i++) {
		copy->slots[i].copy = copy;
		copy->slots[i].here = i * size;
		copy->slots[i].at = (uint8_t *)nicd_buffer_address(peer->buffer) + i * size;
	}
	copy->slot_size = (size_t)size;
	copy->length = peer->grant.length;
	copy->start_ns = nicctl_now_ns();
	return r;
}

static int copy_report(struct copy *copy)
{
	static const struct nicctl_column columns[] = {
		{ "BYTES", NICCTL_NUMBER }, { "SECONDS", NICCTL_NUMBER }, { "PEER", NICCTL_TEXT }, { "FILE", NICCTL_TEXT },
	};
	struct nicctl *c = copy->c;
	struct nicd_qp_info info = { .size = sizeof(info) };
	double seconds = (double)(nicctl_now_ns() - copy->start_ns) / 1e9;
	struct nicctl_table *table;
	char text[32], rate[32];

	if (nicd_qp_query(copy->peer.qp, &info) < 0)
		return nicctl_failed(c);
	if (c->json && copy->fd != STDOUT_FILENO) {
		table = nicctl_table_new(c, copy->put ? "put" : "get", true, columns, sizeof(columns) / sizeof(columns[0]));
		nicctl_row(table);
		nicctl_cell_number(table, copy->done);
		snprintf(text, sizeof(text), "%.6f", seconds);
		nicctl_cell(table, text);
		nicctl_cell(table, info.peer);
		nicctl_cell(table, copy->file);
		return nicctl_print(c);
	}
	nicctl_bytes_text(rate, seconds > 0 ? (uint64_t)((double)copy->done / seconds) : 0);
	nicctl_notice(c, "%llu bytes %s %s in %.3f s, %s/s", (unsigned long long)copy->done, copy->put ? "to" : "from", info.peer,
		      seconds, rate);
	return NICCTL_OK;
}

/* All is placed: an empty write that tells the owner so. */
static int copy_notify(struct copy *copy)
{
	const struct nicd_transfer nothing = nicctl_peer_transfer(&copy->peer, 0, 0, 0);

	return nicd_qp_write_notify(copy->peer.qp, &nothing, 1, NULL) < 0 ? nicctl_failed(copy->c) : NICCTL_OK;
}

/* The file and its name are the caller's. The locator is the first argument. */
static int copy_all(struct nicctl *c, bool put, int fd, const char *file, uint64_t size)
{
	struct copy *copy = calloc(1, sizeof(*copy));
	int r;

	nicctl_interrupts_catch();
	if (!copy)
		nicctl_no_memory(c->json);
	copy->c = c;
	copy->put = put;
	copy->fd = fd;
	copy->file = file;
	r = copy_open(copy);
	if (r == NICCTL_OK && put && size > copy->length)
		r = nicctl_fail(c, EFBIG, "ask for a larger export", "%s has %llu bytes, and the memory of the peer %llu, "
				"as connecting told, which is one of the locator's uses", file, (unsigned long long)size,
				(unsigned long long)copy->length);
	if (r == NICCTL_OK && put && size)
		copy->length = size;
	nicctl_progress_init(&copy->progress, c, put && !size ? 0 : copy->length);
	if (r == NICCTL_OK)
		r = copy_run(copy);
	/* A stream whose length nobody knew must not just be cut. */
	if (r == NICCTL_OK && put && !size && copy->done == copy->length) {
		uint8_t more;
		size_t got = 0;

		r = copy_read_file(copy, &more, 1, &got);
		if (r == NICCTL_OK && got)
			r = nicctl_fail(c, EFBIG, "ask for a larger export", "%s goes on after the %llu bytes of the peer's memory",
					file, (unsigned long long)copy->length);
	}
	nicctl_progress_end(&copy->progress);
	if (r == NICCTL_OK && (c->given & NICCTL_NOTIFY))
		r = copy_notify(copy);
	if (r == NICCTL_OK)
		r = copy_report(copy);
	nicctl_close(c);
	free(copy);
	return r;
}

int nicctl_get(struct nicctl *c)
{
	bool to_stdout = !c->output || strcmp(c->output, "-") == 0;
	struct nicctl_output output;
	int r;

	if (to_stdout && c->json)
		return nicctl_usage(c, "get --json needs -o FILE: both would go to stdout");
	if (!c->output && isatty(STDOUT_FILENO))
		return nicctl_usage(c, "get would write raw bytes to the terminal; use -o FILE (-o - if you mean it)");
	if (to_stdout)
		return copy_all(c, false, STDOUT_FILENO, "stdout", 0);
	/* Before connecting, which uses up the locator. */
	r = nicctl_output_open(c, c->output, &output);
	if (r != NICCTL_OK)
		return r;
	r = copy_all(c, false, output.fd, c->output, 0);
	return nicctl_output_close(c, &output, r);
}

int nicctl_put(struct nicctl *c)
{
	const char *file = c->args[1];
	bool from_stdin = strcmp(file, "-") == 0;
	struct stat st;
	int fd, r;

	if (from_stdin && strcmp(c->args[0], "-") == 0)
		return nicctl_usage(c, "stdin can be the locator or the file, not both");
	fd = from_stdin ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return nicctl_fail(c, errno, NULL, "cannot open %s", file);
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		r = nicctl_fail(c, ENODATA, NULL, "%s is empty", file);
	else
		r = copy_all(c, true, fd, from_stdin ? "stdin" : file, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0);
	if (!from_stdin)
		close(fd);
	return r;
}
