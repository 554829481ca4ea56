/* SPDX-License-Identifier: MIT */
/*
 * libfabric's tcp provider, the software RMA that others would take: message endpoints, one connection, reads and
 * writes with delivery complete, both sides waiting in fi_cq_sread.
 */
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_rma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/data.h"

enum { KEY = 77 };

struct node {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_eq *eq;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_ep *ep;
	struct fid_mr *mr;
	char *buffer;
	uint64_t remote;           /* address to name: 0, or the peer's pointer */
	uint64_t key;
};

/* What the server says of itself. */
struct place {
	uint8_t addr[64];
	uint64_t base, key;
};

#define MUST(call) \
	do { \
		if ((call) < 0) \
			bench_die(#call); \
	} while (0)

static struct fi_info *info_get(const char *port, uint64_t flags)
{
	struct fi_info *hints = fi_allocinfo(), *info = NULL;

	hints->caps = FI_RMA | FI_MSG;
	hints->ep_attr->type = FI_EP_MSG;
	hints->addr_format = FI_SOCKADDR_IN;
	hints->fabric_attr->prov_name = strdup("tcp");
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	if (fi_getinfo(FI_VERSION(1, 9), "127.0.0.1", port, flags, hints, &info) < 0)
		info = NULL;
	fi_freeinfo(hints);
	return info;
}

static void open_domain(struct node *node, struct fi_info *info)
{
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD, .size = 256 };

	node->info = info;
	node->buffer = data_buffer(NULL);
	MUST(fi_domain(node->fabric, info, &node->domain, NULL));
	MUST(fi_cq_open(node->domain, &cq, &node->cq, NULL));
	MUST(fi_endpoint(node->domain, info, &node->ep, NULL));
	MUST(fi_ep_bind(node->ep, &node->eq->fid, 0));
	MUST(fi_ep_bind(node->ep, &node->cq->fid, FI_TRANSMIT | FI_RECV));
	MUST(fi_mr_reg(node->domain, node->buffer, DATA_BUFFER, FI_REMOTE_READ | FI_REMOTE_WRITE | FI_READ | FI_WRITE, 0, KEY, 0,
		       &node->mr, NULL));
	MUST(fi_enable(node->ep));
}

static void open_fabric(struct node *node, struct fi_info *info)
{
	struct fi_eq_attr eq = { .wait_obj = FI_WAIT_FD };

	MUST(fi_fabric(info->fabric_attr, &node->fabric, NULL));
	MUST(fi_eq_open(node->fabric, &eq, &node->eq, NULL));
}

static struct fi_info *wait_event(struct node *node, uint32_t want)
{
	struct fi_eq_cm_entry entry = { 0 };
	uint32_t event = 0;

	if (fi_eq_sread(node->eq, &event, &entry, sizeof entry, 10000, 0) < 0 || event != want)
		bench_die("libfabric: connecting");
	return entry.info;
}

_Noreturn static void serve(int sock)
{
	struct fi_info *info = info_get("0", FI_SOURCE);
	struct fid_pep *pep;
	struct node node = { 0 };
	struct place place = { 0 };
	size_t len = sizeof place.addr;
	struct fi_cq_entry entry;

	open_fabric(&node, info);
	MUST(fi_passive_ep(node.fabric, info, &pep, NULL));
	MUST(fi_pep_bind(pep, &node.eq->fid, 0));
	MUST(fi_listen(pep));
	MUST(fi_getname(&pep->fid, place.addr, &len));
	data_put(sock, &place, sizeof place);
	open_domain(&node, wait_event(&node, FI_CONNREQ));
	MUST(fi_accept(node.ep, NULL, 0));
	wait_event(&node, FI_CONNECTED);
	place.key = fi_mr_key(node.mr);
	place.base = node.info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)node.buffer : 0;
	data_put(sock, &place, sizeof place);
	for (;;)
		fi_cq_sread(node.cq, &entry, 1, NULL, -1);
}

static void post(struct node *node, const struct order *o, uint32_t i)
{
	uint64_t at = (uint64_t)(i % o->depth) * o->size;
	struct iovec iov = { node->buffer + at, o->size };
	void *desc = fi_mr_desc(node->mr);
	struct fi_rma_iov rma = { node->remote + at, o->size, node->key };
	struct fi_msg_rma msg = { .msg_iov = &iov, .desc = &desc, .iov_count = 1, .rma_iov = &rma, .rma_iov_count = 1 };
	struct fi_cq_entry entry;
	ssize_t r;

	while ((r = o->write ? fi_writemsg(node->ep, &msg, FI_DELIVERY_COMPLETE | FI_COMPLETION) :
			       fi_readmsg(node->ep, &msg, FI_COMPLETION)) == -FI_EAGAIN)
		fi_cq_read(node->cq, &entry, 0);
	if (r < 0)
		bench_die("libfabric: post");
}

static void run(void *userdata, const struct order *order)
{
	struct node *node = userdata;
	struct fi_cq_entry entries[64];
	uint32_t posted = 0, done = 0;

	while (done < order->count) {
		for (; posted < order->count && posted - done < order->depth; posted++)
			post(node, order, posted);
		ssize_t n = fi_cq_sread(node->cq, entries, 64, NULL, -1);
		if (n > 0)
			done += (uint32_t)n;
		else if (n != -FI_EAGAIN && n != -FI_EINTR)
			bench_die("libfabric: completion");
	}
}

bool fabric_start(struct contender *c)
{
	struct fi_info *info = info_get(NULL, 0);
	int hello[2], sock[2];

	if (!info) {
		puts("libfabric has no tcp provider here: left out");
		return false;
	}
	fi_freeinfo(info);
	data_pair(hello);
	data_pair(sock);
	if (data_fork(c, SERVER_CPU) == 0)
		serve(hello[0]);
	if (data_fork(c, CLIENT_CPU) == 0) {
		struct node node = { 0 };
		struct place place;
		char port[8];

		close(sock[0]);
		data_get(hello[1], &place, sizeof place);
		snprintf(port, sizeof port, "%u", place.addr[2] << 8 | place.addr[3]);
		info = info_get(port, 0);
		open_fabric(&node, info);
		open_domain(&node, info);
		MUST(fi_connect(node.ep, info->dest_addr, NULL, 0));
		wait_event(&node, FI_CONNECTED);
		data_get(hello[1], &place, sizeof place);
		node.remote = place.base;
		node.key = place.key;
		data_serve_orders(sock[1], run, &node);
	}
	close(sock[1]);
	c->orders = sock[0];
	return true;
}
