/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What lists and the ledger have in common: one page at a time, asked for with the cursor of the one before. Embedded first
 * in struct nicd_list and struct nicd_ledger; owned by the caller until freed, and by the session like handles.
 */
#include "client/conn.h"

struct pages {
	struct nicd *n;
	LIST_ENTRY(pages) of_session;
	/* Submits the request for the page at the cursor. */
	int (*ask)(const struct pages *pages, struct call *call);
	/* Takes a page: sets page, count and cursor. -ENOMEM, -EPROTO. */
	int (*take)(struct pages *pages, const Nicd__Reply *reply);
	struct call *fetching;
	uint64_t cursor;
	bool started;
	void *page;       /* one block: the elements, then their strings */
	unsigned count;
	unsigned next;    /* the element that _next will return */
};

/* `pages` is zeroed, with ask and take set. */
void pages_init(struct pages *pages, struct nicd *n);
int pages_fetch(struct pages *pages);
int pages_fetch_async(struct pages *pages, nicd_callback cb, void *userdata);
void pages_free(struct pages *pages);
void pages_free_all(struct nicd *n);
