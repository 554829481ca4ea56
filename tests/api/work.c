/* SPDX-License-Identifier: MIT */
#include "tests/api/work.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "client/nicd.h"

enum { SIZE = 65536, CALLS = 48, DEADLINE_MS = 60000 };

struct told {
	struct work *work;
	unsigned called;
	int error;
};

struct side {
	struct nicd *n;
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;      /* registered */
	struct nicd_mr *other;   /* being registered */
	struct nicd_mr *third;   /* being deregistered */
	struct nicd_qp *qp;
	bool freed;
};

struct work {
	struct side owner, peer;
	struct nicd_export *door;
	struct nicd_mw *mw;
	struct nicd_mr *fast;
	uint64_t inbound;        /* serial */
	enum work_end end;
	bool ended;
	struct told told[CALLS];
	unsigned n_told, n_called;
};

static void end_now(struct work *work);

/* mutation: call a callback for a call that was refused, twice, or never */
static void on_told(struct nicd *n, int error, void *userdata)
{
	struct told *told = userdata;
	struct work *work = told->work;

	(void)n;
	told->called++;
	told->error = error;
	work->n_called++;
	if (!work->ended && (work->end == WORK_IN_CALLBACK || work->end == WORK_FREE_IN_CALLBACK))
		end_now(work);
}

static struct told *told_new(struct work *work)
{
	struct told *told = &work->told[work->n_told++];

	told->work = work;
	return told;
}

#define TELL on_told, told_new(work)
#define MUST(call) \
	do { \
		if ((call) < 0) { \
			*what = #call; \
			return __LINE__; \
		} \
	} while (0)

/* ---- making */

static int side_open(struct side *side, const char *socket, const char **what)
{
	struct nicd_open_attr open = { .size = sizeof(open), .socket = socket };
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE };

	MUST(nicd_open(&side->n, &open));
	MUST(nicd_buffer_new(side->n, SIZE, 0, &side->buffer));
	MUST(nicd_pd_create(side->n, 0, &side->pd));
	attr.buffer = side->buffer;
	MUST(nicd_mr_new(side->pd, &attr, &side->mr));
	MUST(nicd_mr_create(side->pd, &side->other));
	MUST(nicd_mr_new(side->pd, &attr, &side->third));
	return 0;
}

static void on_event(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	struct work *work = userdata;

	(void)n;
	if (event->kind == NICD_EVENT_CONNECTED)
		work->inbound = event->serial;
}

static int connect_sides(struct work *work, unsigned number, const char **what)
{
	char name[64];
	struct nicd_export_attr door = { .size = sizeof(door), .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE, .name = name, .uses = 2 };
	struct nicd_connect_attr attr = { .size = sizeof(attr) };

	snprintf(name, sizeof(name), "work-%u", number);
	nicd_set_event_callback(work->owner.n, on_event, work);
	MUST(nicd_export_create(work->owner.mr, &door, &work->door));
	attr.locator = nicd_export_locator(work->door);
	MUST(nicd_qp_connect(work->peer.pd, &attr, &work->peer.qp));
	while (!work->inbound)
		MUST(nicd_dispatch(work->owner.n, DEADLINE_MS) > 0 ? 0 : -1);
	MUST(nicd_qp_open(work->owner.n, work->inbound, &work->owner.qp));
	MUST(nicd_mw_new(work->owner.pd, &work->mw));
	MUST(nicd_mr_create_fast(work->owner.pd, &work->fast));
	return 0;
}

/* ---- one call of every kind */

static int owner_begin(struct work *work, const char **what)
{
	struct side *side = &work->owner;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_LOCAL_WRITE, .buffer = side->buffer };
	struct nicd_message room = { .local_token = nicd_mr_local_token(side->mr), .local_addr = nicd_mr_iova(side->mr), .length = 64 };
	struct nicd_bind_attr bind = {
		.size = sizeof(bind), .flags = NICD_OP_REMOTE_READ, .mr = side->mr, .qp = side->qp, .iova = nicd_mr_iova(side->mr), .length = 64 };
	struct nicd_range page = { .memory = nicd_buffer_memory(side->buffer), .length = 4096 };
	struct nicd_fast_attr fast = {
		.size = sizeof(fast), .flags = NICD_OP_REMOTE_READ, .qp = side->qp, .ranges = &page, .n_ranges = 1, .length = 4096, .iova = 4096 };

	MUST(nicd_mr_register_async(side->other, &attr, TELL));
	MUST(nicd_mr_deregister_async(side->third, NULL, TELL));
	MUST(nicd_qp_receive_async(side->qp, &room, NULL, TELL));
	MUST(nicd_qp_receive_async(side->qp, &room, NULL, TELL));
	MUST(nicd_mw_bind_async(work->mw, &bind, TELL));
	MUST(nicd_mw_invalidate_async(work->mw, side->qp, 0, NULL, TELL));
	MUST(nicd_mr_init_fast_register_async(work->fast, 4, 1, TELL));
	MUST(nicd_mr_fast_register_async(work->fast, &fast, TELL));
	MUST(nicd_mr_invalidate_async(work->fast, side->qp, 0, NULL, TELL));
	MUST(nicd_mr_fast_register_async(work->fast, &fast, TELL));
	MUST(nicd_adapter_query_async(side->n, 0, TELL));
	return 0;
}

static int peer_begin(struct work *work, struct nicd_completion *completions, struct nicd_qp_info *info, const char **what)
{
	struct side *side = &work->peer;
	const struct nicd_grant *grant = nicd_qp_grant(side->qp);
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_LOCAL_WRITE, .buffer = side->buffer };
	struct nicd_transfer transfer = {
		.local_token = nicd_mr_local_token(side->mr), .local_addr = nicd_mr_iova(side->mr), .remote_token = grant->remote_token,
		.remote_addr = grant->iova, .length = SIZE };
	struct nicd_message message = { .local_token = transfer.local_token, .local_addr = transfer.local_addr, .length = 32 };

	MUST(nicd_mr_register_async(side->other, &attr, TELL));
	MUST(nicd_qp_read_async(side->qp, &transfer, &completions[0], TELL));
	MUST(nicd_qp_write_async(side->qp, &transfer, &completions[1], TELL));
	MUST(nicd_qp_send_async(side->qp, &message, &completions[2], TELL));
	MUST(nicd_qp_receive_async(side->qp, &message, &completions[3], TELL));
	MUST(nicd_qp_flush_async(side->qp, TELL));
	MUST(nicd_qp_query_async(side->qp, info, TELL));
	MUST(nicd_mr_deregister_async(side->third, NULL, TELL));
	return 0;
}

/* ---- ending */

static void close_successors(struct work *work, struct side *side)
{
	nicd_qp_close_async(side->qp, TELL);
	nicd_mr_close_async(side->third, TELL);
	nicd_mr_close_async(side->other, TELL);
	nicd_mr_close_async(side->mr, TELL);
}

static void close_antecedents(struct work *work, struct side *side)
{
	nicd_pd_close_async(side->pd, TELL);
	nicd_buffer_close_async(side->buffer, TELL);
}

static void close_all(struct work *work)
{
	bool first = work->end != WORK_SUCCESSORS_FIRST;

	if (first) {
		close_antecedents(work, &work->owner);
		close_antecedents(work, &work->peer);
	}
	close_successors(work, &work->peer);
	nicd_export_close_async(work->door, TELL);
	close_successors(work, &work->owner);
	nicd_mw_close_async(work->mw, TELL);
	nicd_mr_close_async(work->fast, TELL);
	if (!first) {
		close_antecedents(work, &work->owner);
		close_antecedents(work, &work->peer);
	}
}

static void free_all(struct work *work)
{
	work->owner.freed = work->peer.freed = true;
	nicd_free(work->owner.n);
	nicd_free(work->peer.n);
}

static void end_now(struct work *work)
{
	work->ended = true;
	if (work->end == WORK_FREE || work->end == WORK_FREE_IN_CALLBACK)
		free_all(work);
	else
		close_all(work);
}

static int drain(struct work *work, const char **what)
{
	for (unsigned turn = 0; work->n_called < work->n_told; turn++) {
		if (turn == DEADLINE_MS / 10) {
			*what = "not every call was answered";
			return __LINE__;
		}
		if (!work->owner.freed && nicd_dispatch(work->owner.n, 5) == -ECANCELED)
			break;
		if (!work->peer.freed && nicd_dispatch(work->peer.n, 5) == -ECANCELED)
			break;
	}
	for (unsigned i = 0; i < work->n_told; i++)
		if (work->told[i].called != 1) {
			*what = "a call was not answered exactly once";
			return __LINE__;
		}
	return 0;
}

int work_run(const char *owner_socket, const char *peer_socket, enum work_end end, unsigned number, const char **what)
{
	struct nicd_completion completions[4] = { { .size = sizeof(completions[0]) }, { .size = sizeof(completions[0]) },
						  { .size = sizeof(completions[0]) }, { .size = sizeof(completions[0]) } };
	struct nicd_qp_info info = { .size = sizeof(info) };
	struct work work = { .end = end };
	int line;

	line = side_open(&work.owner, owner_socket, what);
	if (!line)
		line = side_open(&work.peer, peer_socket, what);
	if (!line)
		line = connect_sides(&work, number, what);
	if (!line)
		line = owner_begin(&work, what);
	if (!line)
		line = peer_begin(&work, completions, &info, what);
	if (!line && end != WORK_IN_CALLBACK && end != WORK_FREE_IN_CALLBACK)
		end_now(&work);
	if (!line)
		line = drain(&work, what);
	if (!work.owner.freed)
		free_all(&work);
	return line;
}
