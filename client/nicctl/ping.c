/* SPDX-License-Identifier: MIT */
/* nicctl ping: connects to a locator and measures reads of nothing, and of one byte where the locator allows reading. */
#include <stdlib.h>

#include "client/nicctl/nicctl.h"

enum { PING_COUNT = 10 };

static int ping_compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void ping_row(struct nicctl_table *table, const char *what, uint64_t *ns, unsigned count)
{
	qsort(ns, count, sizeof(*ns), ping_compare);
	nicctl_row(table);
	nicctl_cell(table, what);
	nicctl_cell_number(table, count);
	nicctl_cell_micros(table, ns[0]);
	nicctl_cell_micros(table, ns[count / 2]);
	nicctl_cell_micros(table, ns[count - 1]);
}

static int ping_reads(struct nicctl *c, const struct nicctl_peer *peer, uint32_t length, uint64_t *ns, unsigned count)
{
	struct nicd_transfer transfer = nicctl_peer_transfer(peer, 0, 0, length);

	for (unsigned i = 0; i < count; i++) {
		uint64_t start = nicctl_now_ns();

		if (nicd_qp_read(peer->qp, &transfer, NULL) < 0)
			return nicctl_failed(c);
		ns[i] = nicctl_now_ns() - start;
	}
	return NICCTL_OK;
}

int nicctl_ping(struct nicctl *c)
{
	static const struct nicctl_column columns[] = {
		{ "WHAT", NICCTL_TEXT }, { "COUNT", NICCTL_NUMBER }, { "MIN_US", NICCTL_NUMBER }, { "MEDIAN_US", NICCTL_NUMBER },
		{ "MAX_US", NICCTL_NUMBER },
	};
	static const char *const names[] = { "read of 0 bytes", "read of 1 byte" };
	unsigned count = c->count ? c->count : PING_COUNT;
	uint64_t start = nicctl_now_ns(), connected;
	uint64_t *ns = calloc(count, sizeof(*ns));
	struct nicctl_table *table;
	struct nicctl_peer peer;
	int r;

	if (!ns)
		nicctl_no_memory(c->json);
	r = nicctl_peer_open(c, c->args[0], &peer);
	connected = nicctl_now_ns() - start;
	if (r == NICCTL_OK)
		r = nicctl_peer_buffer(c, &peer, 1);
	table = nicctl_table_new(c, "ping", false, columns, sizeof(columns) / sizeof(columns[0]));
	ping_row(table, "connect", &connected, 1);
	for (uint32_t length = 0; r == NICCTL_OK && length <= (peer.grant.flags & NICD_MR_REMOTE_READ ? 1 : 0); length++) {
		r = ping_reads(c, &peer, length, ns, count);
		if (r == NICCTL_OK)
			ping_row(table, names[length], ns, count);
	}
	free(ns);
	return r == NICCTL_OK ? nicctl_print(c) : r;
}
