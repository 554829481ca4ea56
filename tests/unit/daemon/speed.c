/* SPDX-License-Identifier: MIT */
/*
 * Not a test: what the session core alone costs per request, without sockets and with a device that answers at once. Frames are
 * encoded before the clock starts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "daemon/client.h"
#include "nicd/adapter.h"
#include "nicd/mr.h"
#include "nicd/pd.h"
#include "proto/nicd.pb-c.h"

enum { MRS = 4096, SOCKET_ROOM = 1 << 20 };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* ---- environment, device, hooks */

static uint64_t env_time(struct nic_env *env)
{
	return 1;
}

static void env_random(struct nic_env *env, void *buf, size_t len)
{
	memset(buf, 7, len);
}

static void *env_alloc(struct nic_env *env, size_t size)
{
	return calloc(1, size);
}

static void env_free(struct nic_env *env, void *ptr, size_t size)
{
	free(ptr);
}

static void env_close_fd(struct nic_env *env, int fd, uint64_t size)
{
}

static uint64_t device_cost(struct nic_provider *p, enum nic_cost what, uint64_t bytes)
{
	return 0;
}

static void device_attach(struct nic_provider *p, const struct nic_attach *what, struct nic_cmd *cmd)
{
	cmd->done(cmd);
}

static void device_tag_add(struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd)
{
	cmd->tags.local_token = (uint32_t)what->serial;
	cmd->tags.remote_token = (uint32_t)what->serial + 1;
	cmd->done(cmd);
}

static void device_tag_drop(struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order,
			    struct nic_cmd *cmd)
{
	cmd->done(cmd);
}

static void hook_client(struct client *client)
{
}

static void hook_log(struct client_host *host, struct client *client, const char *method, const struct nicd_error *error)
{
}

/* ---- the rig */

static struct nic_provider device;
static struct nic_provider_ops device_ops;
static struct nic_env env = { env_time, env_time, env_random, env_alloc, env_free, env_close_fd };
static struct nic nic;
static struct policy policy;
static struct client_host host;
static struct client *client;
static uint64_t mrs[MRS], memory_id;
static uint8_t frames[8][NICD_FRAME_MAX];
static size_t frame_len[8];

static void must(int r)
{
	if (r < 0)
		abort();
}

static void setup(void)
{
	static const struct client_identity identity = { .account = "uid:1" };
	struct nic_memory_facts facts = { .fd = 99, .size = UINT64_C(1) << 30, .page_size = 4096, .writable = true };
	struct nic_register what = { .n_ranges = 1, .iova = 0x1000, .flags = NIC_REMOTE_READ };
	struct nic_done done = { 0 };
	struct nic_adapter *adapter;
	struct nic_memory *memory;
	struct nicd_error err;
	struct nic_range range;
	struct nic_pd *pd;

	device_ops = nic_provider_none;
	device_ops.cost = device_cost;
	device_ops.memory_attach = device_attach;
	device_ops.tag_add = device_tag_add;
	device_ops.tag_drop = device_tag_drop;
	device.ops = &device_ops;
	device.up = true;
	policy_init(&policy);
	nic_init(&nic, &env, NULL, NULL);
	must(nic_adapter_new(&adapter, &nic, &device));
	host.nic = &nic;
	host.env = &env;
	host.policy = &policy;
	host.wake = host.kick = hook_client;
	host.log = hook_log;
	must(client_host_init(&host));
	must(client_new(&client, &host, &identity, NULL, &err));
	client->state = CLIENT_READY;
	must(nic_memory_new(&memory, &client->owner, &facts, true, &err));
	memory_id = memory->object.id;
	must(nic_pd_new(&pd, &client->owner, adapter, &err));
	range = (struct nic_range){ .memory = memory, .length = 4096 };
	what.ranges = &range;
	(void)done;
	for (unsigned i = 0; i < MRS; i++) {
		struct nic_mr *mr;

		must(nic_mr_new(&mr, pd, &err));
		mrs[i] = mr->object.id;
		if (i >= 256)
			must(nic_mr_register(mr, &what, NULL, &err));
	}
}

static void encode(unsigned which, Nicd__Request **requests, size_t n)
{
	Nicd__Frame frame = NICD__FRAME__INIT;

	frame.requests = requests;
	frame.n_requests = n;
	frame_len[which] = nicd__frame__get_packed_size(&frame);
	if (frame_len[which] > NICD_FRAME_MAX)
		abort();
	nicd__frame__pack(&frame, frames[which]);
}

/* Replies are thrown away without a socket: that is somebody else's time. */
static void run(unsigned which)
{
	struct wire_packet packet = { .data = frames[which], .len = frame_len[which] };

	if (!client_frame(client, &packet))
		abort();
	client_prepare_output(client);
	frame_out_deinit(&client->out);
	client_flushed(client);
}

/* `calls` frames of `n` things each, one kind of frame after the other. */
static void measure(const char *name, unsigned first, unsigned last, unsigned n, double goal)
{
	double best = 0;

	for (unsigned round = 0; round < 7; round++) {
		uint64_t start = now_ns(), ns;
		unsigned frames_done = 0;

		do {
			for (unsigned i = first; i <= last; i++)
				run(i);
			frames_done++;
			ns = now_ns() - start;
		} while (ns < UINT64_C(100000000));
		if ((double)n * frames_done * 1e9 / (double)ns > best)
			best = (double)n * frames_done * 1e9 / (double)ns;
	}
	printf("%-48s %8.2f M/s  %7.1f ns  goal %.2f M/s\n", name, best / 1e6, 1e9 / best, goal);
}

int main(void)
{
	static Nicd__Request requests[NICD_FRAME_REQUESTS], *pointers[NICD_FRAME_REQUESTS];
	static Nicd__GetLocalToken tokens[NICD_FRAME_REQUESTS];
	static Nicd__RegisterMr regs[NICD_FRAME_REQUESTS];
	static Nicd__DeregisterMr deregs[NICD_FRAME_REQUESTS];
	static Nicd__Ref refs[NICD_FRAME_REQUESTS], memory_ref = NICD__REF__INIT;
	static Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	Nicd__QueryTokens query = NICD__QUERY_TOKENS__INIT;

	setup();
	memory_ref.of_case = NICD__REF__OF_ID;
	memory_ref.id = memory_id;
	range.memory = &memory_ref;
	range.length = 4096;
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++) {
		nicd__request__init(&requests[i]);
		nicd__get_local_token__init(&tokens[i]);
		nicd__register_mr__init(&regs[i]);
		nicd__deregister_mr__init(&deregs[i]);
		nicd__ref__init(&refs[i]);
		pointers[i] = &requests[i];
		refs[i].of_case = NICD__REF__OF_ID;
		refs[i].id = mrs[256 + i * 13];
		requests[i].id = 1000000 + i;
		requests[i].call_case = NICD__REQUEST__CALL_GET_LOCAL_TOKEN;
		requests[i].get_local_token = &tokens[i];
		tokens[i].mr = &refs[i];
	}
	encode(0, pointers, NICD_FRAME_REQUESTS);
	encode(1, pointers, 1);
	encode(2, pointers, 16);
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++) {
		refs[i].id = mrs[i];
		requests[i].call_case = NICD__REQUEST__CALL_REGISTER_MR;
		requests[i].register_mr = &regs[i];
		regs[i].mr = &refs[i];
		regs[i].n_ranges = 1;
		regs[i].ranges = ranges;
		regs[i].iova = 0x1000;
		regs[i].flags = NIC_REMOTE_READ;
	}
	encode(3, pointers, NICD_FRAME_REQUESTS);
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++) {
		requests[i].call_case = NICD__REQUEST__CALL_DEREGISTER_MR;
		requests[i].deregister_mr = &deregs[i];
		deregs[i].mr = &refs[i];
	}
	encode(4, pointers, NICD_FRAME_REQUESTS);
	query.n_mrs = 3840;
	query.mrs = mrs + 256;
	requests[0].call_case = NICD__REQUEST__CALL_QUERY_TOKENS;
	requests[0].query_tokens = &query;
	encode(5, pointers, 1);

	measure("GetLocalToken, 1 in a frame", 1, 1, 1, 0.7);
	measure("GetLocalToken, 16 in a frame", 2, 2, 16, 0);
	measure("GetLocalToken, 256 in a frame", 0, 0, 256, 5);
	measure("QueryTokens, 3840 ids in a request", 5, 5, 3840, 20);
	measure("RegisterMr and DeregisterMr, 256 in a frame", 3, 4, 256, 0.5);
	return 0;
}
