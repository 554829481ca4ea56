/* SPDX-License-Identifier: MIT */
/* What nicd asks of a device, in the words of soft.proto: a function for each operation, in the order of struct nic_provider_ops. */
#include <errno.h>
#include <fcntl.h>

#include "nicd/soft/bytes.h"
#include "nicd/soft/provider-private.h"
#include "proto/locator.h"

static uint64_t soft_cost(struct nic_provider *provider, enum nic_cost what, uint64_t bytes)
{
	return what == NIC_COST_ATTACH ? bytes : 0;
}

static void soft_memory_attach(struct nic_provider *provider, const struct nic_attach *what, struct nic_cmd *cmd)
{
	Soft__AttachMemory attach = SOFT__ATTACH_MEMORY__INIT;
	int fd = fcntl(what->fd, F_DUPFD_CLOEXEC, 3);

	if (fd < 0) {
		soft_cmd_end(cmd, NICD_R_DEVICE_FAILED, errno);
		return;
	}
	attach.serial = what->memory;
	attach.size = what->size;
	attach.writable = what->writable;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_ATTACH_MEMORY, &attach, fd);
}

static void soft_memory_detach(struct nic_provider *provider, uint64_t memory, struct nic_cmd *cmd)
{
	Soft__DetachMemory detach = SOFT__DETACH_MEMORY__INIT;

	detach.serial = memory;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_DETACH_MEMORY, &detach, -1);
}

/* Ranges as a message has them. */
struct put_ranges {
	Soft__TagRange ranges[NICD_RANGES], *pointers[NICD_RANGES];
};

static void put_ranges(struct put_ranges *put, const struct nic_tag_range *ranges, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		put->ranges[i] = (Soft__TagRange)SOFT__TAG_RANGE__INIT;
		put->ranges[i].memory = ranges[i].memory;
		put->ranges[i].offset = ranges[i].offset;
		put->ranges[i].length = ranges[i].length;
		put->pointers[i] = &put->ranges[i];
	}
}

static void soft_tag_add(struct nic_provider *provider, const struct nic_tag *what, struct nic_cmd *cmd)
{
	Soft__AddTag add = SOFT__ADD_TAG__INIT;
	struct put_ranges ranges;

	if (what->n_ranges < !what->reserve || what->n_ranges > NICD_RANGES) {
		soft_cmd_end(cmd, NICD_R_COUNT, 0);
		return;
	}
	put_ranges(&ranges, what->ranges, what->n_ranges);
	add.serial = what->serial;
	add.generation = what->generation;
	add.pd = what->pd;
	add.door = what->door;
	add.n_ranges = what->n_ranges;
	add.ranges = ranges.pointers;
	add.iova = what->iova;
	add.length = what->length;
	add.rights = what->rights;
	add.stream = what->order.qp;
	add.fence = what->order.fence;
	add.only_stream = what->only_qp;
	add.reserve = what->reserve;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_ADD_TAG, &add, -1);
}

/* In no order it goes with others. */
static void soft_tag_drop(struct nic_provider *provider, uint64_t serial, uint32_t generation, const struct nic_order *order,
			  struct nic_cmd *cmd)
{
	struct soft_provider *p = soft_provider(provider);
	Soft__DropTag drop = SOFT__DROP_TAG__INIT;

	if (!order || !order->qp) {
		soft_drops_add(p, serial, generation, cmd);
		return;
	}
	drop.serial = serial;
	drop.generation = generation;
	drop.stream = order->qp;
	drop.fence = order->fence;
	soft_send(p, cmd, SOFT__REQUEST__CALL_DROP_TAG, &drop, -1);
}

static void soft_mapping_add(struct nic_provider *provider, const struct nic_map *what, struct nic_cmd *cmd)
{
	Soft__AddMapping add = SOFT__ADD_MAPPING__INIT;
	struct put_ranges ranges;

	if (what->n_ranges == 0 || what->n_ranges > NICD_RANGES) {
		soft_cmd_end(cmd, NICD_R_COUNT, 0);
		return;
	}
	put_ranges(&ranges, what->ranges, what->n_ranges);
	add.serial = what->serial;
	add.owner = what->owner;
	add.n_ranges = what->n_ranges;
	add.ranges = ranges.pointers;
	add.address = what->address;
	add.length = what->length;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_ADD_MAPPING, &add, -1);
}

static void soft_mapping_drop(struct nic_provider *provider, uint64_t serial, struct nic_cmd *cmd)
{
	Soft__DropMapping drop = SOFT__DROP_MAPPING__INIT;

	drop.serial = serial;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_DROP_MAPPING, &drop, -1);
}

static void soft_key_add(struct nic_provider *provider, uint64_t pd, uint64_t owner, struct nic_cmd *cmd)
{
	Soft__AddKey add = SOFT__ADD_KEY__INIT;

	add.serial = pd;
	add.owner = owner;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_ADD_KEY, &add, -1);
}

static void soft_key_drop(struct nic_provider *provider, uint64_t pd, struct nic_cmd *cmd)
{
	Soft__DropKey drop = SOFT__DROP_KEY__INIT;

	drop.serial = pd;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_DROP_KEY, &drop, -1);
}

static void soft_door_add(struct nic_provider *provider, const struct nic_door *what, struct nic_cmd *cmd)
{
	Soft__AddTicket add = SOFT__ADD_TICKET__INIT;
	Soft__GrantInfo grant = SOFT__GRANT_INFO__INIT;

	grant.remote_token = what->grant.remote_token;
	grant.iova = what->grant.iova;
	grant.length = what->grant.length;
	grant.rights = what->grant.rights;
	grant.incarnation = what->grant.incarnation;
	add.serial = what->serial;
	add.hash.data = (uint8_t *)what->hash;
	add.hash.len = sizeof(what->hash);
	add.pd = what->pd;
	add.door = what->door;
	add.uses = what->uses;
	add.ttl_ms = what->ttl_ms;
	add.grant = &grant;
	add.max_streams = what->max_streams;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_ADD_TICKET, &add, -1);
}

static void soft_door_drop(struct nic_provider *provider, uint64_t serial, bool cut, struct nic_cmd *cmd)
{
	Soft__DropTicket drop = SOFT__DROP_TICKET__INIT;

	drop.serial = serial;
	drop.cut = cut;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_DROP_TICKET, &drop, -1);
}

static void soft_qp_connect(struct nic_provider *provider, const struct nic_connect *what, struct nic_cmd *cmd)
{
	Soft__Connect connect = SOFT__CONNECT__INIT;
	char address[64];

	locator_addr_print(&what->addr, address);
	connect.stream = what->qp;
	connect.pd = what->pd;
	connect.address = address;
	connect.ticket.data = (uint8_t *)what->ticket;
	connect.ticket.len = sizeof(what->ticket);
	connect.timeout_ms = what->timeout_ms;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_CONNECT, &connect, -1);
}

static void soft_receive_post(struct nic_provider *provider, const struct nic_post *what, struct nic_cmd *cmd)
{
	Soft__Receive receive = SOFT__RECEIVE__INIT;

	receive.stream = what->qp;
	receive.local_token = get_le32(what->entries);
	receive.local_addr = get_le64(what->entries + 8);
	receive.length = get_le32(what->entries + 24);
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_RECEIVE, &receive, -1);
}

static void soft_qp_post(struct nic_provider *provider, const struct nic_post *what, struct nic_cmd *cmd)
{
	static const Soft__Post__Operation operations[] = {
		[NIC_READ] = SOFT__POST__OPERATION__READ, [NIC_WRITE] = SOFT__POST__OPERATION__WRITE,
		[NIC_SEND] = SOFT__POST__OPERATION__SEND,
	};
	Soft__Post post = SOFT__POST__INIT;

	if (what->n_entries > NICD_TRANSFER_ENTRIES) {
		soft_cmd_end(cmd, NICD_R_TRANSFER_ENTRIES, 0);
		return;
	}
	if (what->operation == NIC_RECEIVE) {
		soft_receive_post(provider, what, cmd);
		return;
	}
	post.stream = what->qp;
	post.operation = operations[what->operation];
	post.notify = what->notify;
	post.solicited = what->solicited;
	post.invalidate = what->invalidate;
	post.invalidate_token = what->invalidate_token;
	post.fence = what->fence;
	post.is_inline = what->is_inline;
	if (what->is_inline) {
		post.inline_data.data = (uint8_t *)what->inline_data;
		post.inline_data.len = get_le32(what->entries + 24);
	}
	post.entries.data = (uint8_t *)what->entries;
	post.entries.len = (size_t)what->n_entries * NICD_TRANSFER_ENTRY_SIZE;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_POST, &post, -1);
}

static void soft_qp_flush(struct nic_provider *provider, uint64_t qp, struct nic_cmd *cmd)
{
	Soft__Flush flush = SOFT__FLUSH__INIT;

	flush.stream = qp;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_FLUSH, &flush, -1);
}

static void soft_qp_disconnect(struct nic_provider *provider, uint64_t qp, struct nic_cmd *cmd)
{
	Soft__Disconnect disconnect = SOFT__DISCONNECT__INIT;

	disconnect.stream = qp;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_DISCONNECT, &disconnect, -1);
}

static void soft_qp_query(struct nic_provider *provider, uint64_t qp, struct nic_cmd *cmd)
{
	Soft__QueryStream query = SOFT__QUERY_STREAM__INIT;

	query.stream = qp;
	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_QUERY_STREAM, &query, -1);
}

static void soft_stats(struct nic_provider *provider, struct nic_cmd *cmd)
{
	Soft__Stats stats = SOFT__STATS__INIT;

	soft_send(soft_provider(provider), cmd, SOFT__REQUEST__CALL_STATS, &stats, -1);
}

const struct nic_provider_ops soft_provider_ops = {
	.name = "soft",
	.cost = soft_cost,
	.memory_attach = soft_memory_attach,
	.memory_detach = soft_memory_detach,
	.tag_add = soft_tag_add,
	.tag_drop = soft_tag_drop,
	.mapping_add = soft_mapping_add,
	.mapping_drop = soft_mapping_drop,
	.key_add = soft_key_add,
	.key_drop = soft_key_drop,
	.door_add = soft_door_add,
	.door_drop = soft_door_drop,
	.qp_connect = soft_qp_connect,
	.qp_post = soft_qp_post,
	.qp_flush = soft_qp_flush,
	.qp_disconnect = soft_qp_disconnect,
	.qp_query = soft_qp_query,
	.stats = soft_stats,
	.push = soft_provider_push,
	.free = soft_provider_free,
};
