/* SPDX-License-Identifier: MIT */
/* Listings page by page. See pages.h. */
#include <errno.h>
#include <stdlib.h>

#include "client/pages.h"

void pages_init(struct pages *pages, struct nicd *n)
{
	pages->n = n;
	LIST_INSERT_HEAD(&n->pages, pages, of_session);
}

static void pages_clear(struct pages *pages)
{
	free(pages->page);
	pages->page = NULL;
	pages->count = 0;
	pages->next = 0;
}

static bool pages_empty(const struct pages *pages)
{
	return !pages->count && pages->cursor;
}

/* The daemon found nothing in its turn, but has not seen all: another call goes on for the one that has the callback. */
static int pages_again(struct pages *pages, struct call *call)
{
	struct nicd *n = pages->n;
	struct call *again;
	int r = call_new(&again, n, NULL, call->finish);

	if (r >= 0) {
		again->ret = pages;
		r = pages->ask(pages, again);
	}
	if (r < 0) {
		call->why = malloc(sizeof(*call->why));
		if (call->why)
			*call->why = n->error;
		return r;
	}
	pages->fetching = again;
	call_later(again, call->cb, call->userdata);
	/* Nobody waits for this one any more. */
	call->cb = NULL;
	return 0;
}

static int pages_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct pages *pages = call->ret;

	if (!pages) {
		if (!call->why)
			call->why = malloc(sizeof(*call->why));
		return call->why ? error_local(call->why, ERROR_LIST_FREED, 0, 0) : -ECANCELED;
	}
	pages->fetching = NULL;
	if (error < 0 || !reply)
		return error;
	pages_clear(pages);
	pages->started = true;
	error = pages->take(pages, reply);
	if (error == -ENOMEM && (call->why = malloc(sizeof(*call->why))))
		error_local(call->why, ERROR_NO_MEMORY, 0, 0);
	if (error >= 0 && call->mode == CALL_LATER && call->cb && pages_empty(pages))
		error = pages_again(pages, call);
	return error;
}

static int pages_start(struct pages *pages, struct call **ret)
{
	struct call *call;
	int r;

	if (pages->fetching)
		return conn_fail(pages->n, ERROR_FETCHING, 0, 0);
	r = call_new(&call, pages->n, NULL, pages_finish);
	if (r < 0)
		return r;
	call->ret = pages;
	*ret = call;
	if (pages->started && !pages->cursor) {
		pages_clear(pages);
		call_answer(call, 0);
		return 0;
	}
	r = pages->ask(pages, call);
	if (r >= 0)
		pages->fetching = call;
	return r;
}

int pages_fetch(struct pages *pages)
{
	struct call *call;
	int r;

	do {
		r = pages_start(pages, &call);
		if (r >= 0)
			r = call_wait(call);
	} while (r >= 0 && pages_empty(pages));
	return r < 0 ? r : (int)pages->count;
}

int pages_fetch_async(struct pages *pages, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = pages_start(pages, &call);

	return r < 0 ? r : call_later(call, cb, userdata);
}

void pages_free(struct pages *pages)
{
	if (!pages)
		return;
	if (pages->fetching)
		pages->fetching->ret = NULL;
	LIST_REMOVE(pages, of_session);
	pages_clear(pages);
	free(pages);
}

void pages_free_all(struct nicd *n)
{
	while (!LIST_EMPTY(&n->pages))
		pages_free(LIST_FIRST(&n->pages));
}
