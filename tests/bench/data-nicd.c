/* SPDX-License-Identifier: MIT */
/*
 * All of it: two nicds with their nicd-softs, an owner and a peer on libnicd. The peer posts lists of 8; nicd on its
 * way sees a request per list. The server's side is on one processor, the client's on the other.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/nicd.h"
#include "tests/bench/bench.h"
#include "tests/bench/data.h"

enum { LIST = 8 };

struct peer_side {
	struct nicd *n;
	struct nicd_mr *mr;
	struct nicd_qp *qp;
	const struct order *order;
	uint32_t posted, done;
};

static struct daemon daemons[2];

static struct nicd *open_session(const struct daemon *daemon)
{
	struct nicd_open_attr attr = { .size = sizeof attr };
	struct nicd *n = NULL;
	char path[96];

	snprintf(path, sizeof path, "%s/nicd.sock", daemon->dir);
	attr.socket = path;
	if (nicd_open(&n, &attr) < 0)
		bench_die("nicd_open");
	return n;
}

static struct nicd_mr *region(struct nicd *n, uint32_t flags, struct nicd_pd **pd)
{
	struct nicd_mr_attr attr = { .size = sizeof attr, .flags = flags };
	struct nicd_mr *mr = NULL;

	if (nicd_pd_create(n, 0, pd) < 0 || nicd_buffer_new(n, DATA_BUFFER, 0, &attr.buffer) < 0 || nicd_mr_new(*pd, &attr, &mr) < 0)
		bench_die("region");
	memset(nicd_buffer_address(attr.buffer), 1, DATA_BUFFER);
	return mr;
}

static void own(int sock)
{
	struct nicd_export_attr attr = { .size = sizeof attr, .name = "bench", .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE };
	struct nicd *n = open_session(&daemons[0]);
	struct nicd_export *export = NULL;
	struct nicd_pd *pd;
	struct nicd_mr *mr = region(n, attr.flags, &pd);
	char locator[256] = "";

	if (nicd_export_create(mr, &attr, &export) < 0)
		bench_die("export");
	snprintf(locator, sizeof locator, "%s", nicd_export_locator(export));
	data_put(sock, locator, sizeof locator);
	while (nicd_dispatch(n, -1) >= 0)
		;
	_exit(0);
}

static void post_next(struct peer_side *p);

static void on_list(struct nicd *n, int error, void *userdata)
{
	struct peer_side *p = userdata;

	if (error)
		bench_die("a list failed");
	p->done += LIST;
	post_next(p);
}

static void post_next(struct peer_side *p)
{
	const struct nicd_grant *grant = nicd_qp_grant(p->qp);
	const struct order *o = p->order;
	struct nicd_transfer list[LIST];

	if (p->posted >= o->count)
		return;
	for (unsigned i = 0; i < LIST; i++) {
		uint64_t at = (uint64_t)((p->posted + i) % o->depth) * o->size;

		list[i] = (struct nicd_transfer){
			nicd_mr_local_token(p->mr), grant->remote_token, nicd_mr_iova(p->mr) + at, grant->iova + at, o->size, 0,
		};
	}
	p->posted += LIST;
	if ((o->write ? nicd_qp_write_list_async : nicd_qp_read_list_async)(p->qp, list, LIST, NULL, on_list, p) < 0)
		bench_die("post");
}

static void run(void *userdata, const struct order *order)
{
	struct peer_side *p = userdata;

	p->order = order;
	p->posted = p->done = 0;
	for (uint32_t i = 0; i < order->depth; i += LIST)
		post_next(p);
	while (p->done < order->count)
		if (nicd_dispatch(p->n, -1) < 0)
			bench_die("dispatch");
}

bool nicd_start(struct contender *c)
{
	int hello[2], sock[2];

	if (!c->nicd || !c->soft)
		return false;
	for (int i = 0; i < 2; i++) {
		daemon_start(&daemons[i], c->nicd, c->soft, i ? CLIENT_CPU : SERVER_CPU);
		c->pids[c->n_pids++] = daemons[i].pid;
		c->pids[c->n_pids++] = daemons[i].soft;
	}
	c->first_own = c->n_pids;
	data_pair(hello);
	data_pair(sock);
	if (data_fork(c, SERVER_CPU) == 0)
		own(hello[0]);
	if (data_fork(c, CLIENT_CPU) == 0) {
		struct nicd_connect_attr attr = { .size = sizeof attr };
		struct peer_side p = { .n = open_session(&daemons[1]) };
		struct nicd_pd *pd;
		char locator[256];

		close(sock[0]);
		p.mr = region(p.n, NICD_MR_LOCAL_WRITE, &pd);
		data_get(hello[1], locator, sizeof locator);
		attr.locator = locator;
		if (nicd_qp_connect(pd, &attr, &p.qp) < 0)
			bench_die("connect");
		data_serve_orders(sock[1], run, &p);
	}
	close(sock[1]);
	c->orders = sock[0];
	return true;
}

void nicd_stop(void)
{
	for (int i = 0; i < 2; i++)
		if (daemons[i].pid)
			daemon_stop(&daemons[i]);
}
