/* SPDX-License-Identifier: MIT */
/*
 * nicctl perf: how fast the memory behind a locator can be read and written. A row is one operation, size and depth: `depth` lists are under way at the
 * same time, and each that is answered is posted again until the time is up. The session ends before what the calls point into is freed.
 *
 * Reading harms nobody, and is all that is done unasked. A write is asked for: it writes back what was read before, byte by byte, which takes back only
 * what others write meanwhile; or, as scratch, whatever the buffer holds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/nicctl/nicctl.h"

enum {
	PERF_SECONDS = 2,
	PERF_SAMPLES = 1 << 20,       /* the latest that are kept */
	PERF_BUFFER_MAX = 1 << 30,
	PERF_DEPTH_MAX = 1024,
};

struct perf_slot {
	struct perf *perf;
	unsigned number;
	uint64_t posted_ns;
};

struct perf {
	struct nicctl *c;
	struct nicctl_peer peer;
	struct nicctl_table *table;

	/* Of this row. */
	bool write;
	uint32_t size, list, depth;
	uint64_t count;               /* lists to post; 0: until `until_ns` */
	uint64_t until_ns, posted, done, last_ns;
	unsigned busy;
	int error;
	struct nicd_error_info info;  /* of error */
	struct nicd_transfer *transfers;   /* of one list */
	struct perf_slot *slots;
	uint64_t *samples;
};

/* Every list has its own piece of the buffer, and its own place over there as long as there is room. */
static void perf_list(struct perf *perf, unsigned slot)
{
	uint64_t places = perf->peer.grant.length / perf->size;

	for (uint32_t i = 0; i < perf->list; i++) {
		uint64_t at = (uint64_t)slot * perf->list + i;

		perf->transfers[i] = nicctl_peer_transfer(&perf->peer, at * perf->size, at % places * perf->size, perf->size);
	}
}

static void perf_post(struct perf *perf, struct perf_slot *slot);

static void perf_answered(struct nicd *n, int error, void *userdata)
{
	struct perf_slot *slot = userdata;
	struct perf *perf = slot->perf;
	uint64_t now = nicctl_now_ns();

	perf->busy--;
	if (error && !perf->error) {
		perf->error = error;
		perf->info = *nicd_last_error(n);
	}
	if (error)
		return;
	perf->samples[perf->done++ % PERF_SAMPLES] = now - slot->posted_ns;
	perf->last_ns = now;
	if (!perf->error && (perf->count ? perf->posted < perf->count : now < perf->until_ns))
		perf_post(perf, slot);
}

static void perf_post(struct perf *perf, struct perf_slot *slot)
{
	int r;

	perf_list(perf, slot->number);
	slot->posted_ns = nicctl_now_ns();
	if (perf->write)
		r = nicd_qp_write_list_async(perf->peer.qp, perf->transfers, perf->list, NULL, perf_answered, slot);
	else
		r = nicd_qp_read_list_async(perf->peer.qp, perf->transfers, perf->list, NULL, perf_answered, slot);
	if (r < 0 && !perf->error) {
		perf->error = r;
		perf->info = *nicd_last_error(perf->c->n);
	}
	perf->busy += r == 0;
	perf->posted += r == 0;
}

/* Posts and waits until nothing is under way. */
static int perf_lists(struct perf *perf)
{
	uint64_t first = perf->count && perf->count < perf->depth ? perf->count : perf->depth;

	perf->posted = perf->done = 0;
	for (unsigned i = 0; i < first && !perf->error; i++) {
		perf->slots[i] = (struct perf_slot){ .perf = perf, .number = i };
		perf_post(perf, &perf->slots[i]);
	}
	while (perf->busy > 0) {
		int n = nicd_dispatch(perf->c->n, -1);

		if (n < 0 && n != -EINTR)
			return nicctl_failed(perf->c);
	}
	return perf->error ? nicctl_failed_info(perf->c, &perf->info) : NICCTL_OK;
}

static int perf_compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void perf_report(struct perf *perf, uint64_t start_ns)
{
	uint64_t kept = perf->done < PERF_SAMPLES ? perf->done : PERF_SAMPLES;
	double seconds = (double)(perf->last_ns - start_ns) / 1e9;
	struct nicctl_table *table = perf->table;
	char text[32];

	qsort(perf->samples, kept, sizeof(*perf->samples), perf_compare);
	nicctl_row(table);
	nicctl_cell(table, perf->write ? "write" : "read");
	nicctl_cell_bytes(table, perf->size);
	nicctl_cell_number(table, perf->list);
	nicctl_cell_number(table, perf->depth);
	nicctl_cell_number(table, perf->done);
	snprintf(text, sizeof(text), "%.6f", seconds);
	nicctl_cell(table, text);
	nicctl_cell_micros(table, perf->samples[kept / 2]);
	nicctl_cell_micros(table, perf->samples[(kept * 99 + 99) / 100 - 1]);
	nicctl_cell_number(table, (uint64_t)((double)perf->done * perf->list / seconds));
	nicctl_cell_bytes(table, (uint64_t)((double)perf->done * perf->list * perf->size / seconds));
}

static int perf_row(struct perf *perf, bool write)
{
	struct nicctl *c = perf->c;
	uint64_t start;
	int r = NICCTL_OK;

	/* What is to be written back. */
	perf->write = false;
	perf->count = perf->depth;
	if (write && !c->scratch)
		r = perf_lists(perf);
	perf->write = write;
	perf->count = c->count;
	start = nicctl_now_ns();
	perf->until_ns = start + (c->seconds ? c->seconds : PERF_SECONDS) * UINT64_C(1000000000);
	if (r == NICCTL_OK)
		r = perf_lists(perf);
	if (r == NICCTL_OK)
		perf_report(perf, start);
	return r;
}

/* What of --op the locator allows, and what is safe. */
static int perf_operations(struct perf *perf, uint32_t *ret)
{
	struct nicctl *c = perf->c;
	uint32_t may = perf->peer.grant.flags & (NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	uint32_t want = c->given & NICCTL_OP ? c->operations : c->scratch ? may : NICD_MR_REMOTE_READ;

	if ((want & may) != want)
		return nicctl_fail(c, EACCES, may & NICD_MR_REMOTE_READ ? "measure with --op r" :
				   "if its bytes may be lost, measure with --op w --scratch",
				   "the locator does not allow to %s", want & ~may & NICD_MR_REMOTE_READ ? "read" : "write");
	if ((want & NICD_MR_REMOTE_WRITE) && !(may & NICD_MR_REMOTE_READ) && !c->scratch)
		return nicctl_fail(c, EACCES, "if its bytes may be lost, add --scratch",
				   "what is there cannot be read, so it could not be written back");
	*ret = want;
	return NICCTL_OK;
}

/* The rows: one that was asked for, or some that show the range. */
static int perf_rows(struct perf *perf, uint32_t operations)
{
	static const struct {
		uint32_t size, depth;
	} usual[] = { { 4 << 10, 1 }, { 4 << 10, 16 }, { 64 << 10, 8 }, { 1 << 20, 4 } };
	struct nicctl *c = perf->c;
	unsigned n = c->size || c->depth ? 1 : sizeof(usual) / sizeof(usual[0]);
	int r = NICCTL_OK;

	for (unsigned i = 0; r == NICCTL_OK && i < 2 * n; i++) {
		bool write = i >= n;

		perf->size = c->size ? (uint32_t)c->size : usual[i % n].size;
		perf->depth = c->depth ? c->depth : c->size ? usual[1].depth : usual[i % n].depth;
		if (perf->size > perf->peer.grant.length)
			perf->size = (uint32_t)perf->peer.grant.length;
		if (operations & (write ? NICD_MR_REMOTE_WRITE & ~NICD_MR_LOCAL_WRITE : NICD_MR_REMOTE_READ))
			r = perf_row(perf, write);
	}
	return r;
}

static int perf_open(struct perf *perf)
{
	struct nicctl *c = perf->c;
	uint32_t depth = c->depth ? c->depth : 16;
	uint64_t size = c->size ? c->size : 1 << 20;

	perf->list = c->list ? c->list : 1;
	if (depth > PERF_DEPTH_MAX || size > UINT32_MAX || size > PERF_BUFFER_MAX / perf->list / depth)
		return nicctl_usage(c, "--size × --list × --depth is at most 1G, and --depth %u", PERF_DEPTH_MAX);
	if (nicctl_peer_open(c, c->args[0], &perf->peer) != NICCTL_OK)
		return NICCTL_REFUSED;
	if (perf->peer.grant.length == 0)
		return nicctl_fail(c, ENODATA, NULL, "the locator names no memory");
	if (perf->list > perf->peer.max_entries)
		return nicctl_fail(c, EINVAL, "use a smaller --list", "a list has at most %u entries", perf->peer.max_entries);
	if (size > perf->peer.max_length / perf->list)
		return nicctl_fail(c, EINVAL, "use a smaller --size or --list", "a list moves at most %llu bytes",
				   (unsigned long long)perf->peer.max_length);
	return nicctl_peer_buffer(c, &perf->peer, (size_t)(size * perf->list * depth));
}

int nicctl_perf(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "OP", NICCTL_TEXT }, { "SIZE", NICCTL_NUMBER }, { "LIST", NICCTL_NUMBER }, { "DEPTH", NICCTL_NUMBER },
		{ "COUNT", NICCTL_NUMBER }, { "SECONDS", NICCTL_NUMBER }, { "P50_US", NICCTL_NUMBER }, { "P99_US", NICCTL_NUMBER },
		{ "PER_SECOND", NICCTL_NUMBER }, { "BYTES_PER_SECOND", NICCTL_NUMBER },
	};
	struct perf *perf = calloc(1, sizeof(*perf));
	uint32_t operations = 0;
	int r;

	if (!perf)
		nicctl_no_memory(c->json);
	perf->c = c;
	perf->table = nicctl_table_new(c, "perf", false, columns, sizeof(columns) / sizeof(columns[0]));
	perf->transfers = calloc(c->list ? c->list : 1, sizeof(*perf->transfers));
	perf->slots = calloc(PERF_DEPTH_MAX, sizeof(*perf->slots));
	perf->samples = calloc(PERF_SAMPLES, sizeof(*perf->samples));
	if (!perf->transfers || !perf->slots || !perf->samples)
		nicctl_no_memory(c->json);
	r = perf_open(perf);
	if (r == NICCTL_OK)
		r = perf_operations(perf, &operations);
	if (r == NICCTL_OK)
		r = perf_rows(perf, operations);
	if (r == NICCTL_OK)
		r = nicctl_print(c);
	nicctl_close(c);
	free(perf->transfers);
	free(perf->slots);
	free(perf->samples);
	free(perf);
	return r;
}
