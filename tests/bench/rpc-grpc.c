/* SPDX-License-Identifier: MIT */
/*
 * Echo by gRPC C-core: the server is a process that answers one call after the other, the client makes one call after
 * the other, both with a completion queue that they wait on, and neither does anything else. The process is made before
 * gRPC is started, because it has threads.
 */
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/rpc.h"

#define METHOD "/nicd.bench/Echo"
enum { PAYLOAD = 13 };   /* bytes: as a token query and its reply */

static struct {
	pid_t server;
	char dir[64], target[96];
	grpc_completion_queue *cq;
	grpc_channel *channel;
	void *method;
} rpc;

/* Waits for the end of the only thing that is under way. */
static void wait_for(grpc_completion_queue *cq)
{
	grpc_event event = grpc_completion_queue_next(cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

	if (event.type != GRPC_OP_COMPLETE || !event.success)
		bench_die("gRPC");
}

/* ---- the server */

static void serve_one(grpc_server *server, grpc_completion_queue *cq, void *method)
{
	grpc_metadata_array metadata;
	grpc_byte_buffer *payload = NULL;
	gpr_timespec deadline;
	grpc_call *call;
	int cancelled;

	grpc_metadata_array_init(&metadata);
	if (grpc_server_request_registered_call(server, method, &call, &deadline, &metadata, &payload, cq, cq, &call) != GRPC_CALL_OK)
		bench_die("gRPC: request_registered_call");
	wait_for(cq);
	grpc_op ops[] = {
		{ .op = GRPC_OP_SEND_INITIAL_METADATA },
		{ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = payload },
		{ .op = GRPC_OP_SEND_STATUS_FROM_SERVER, .data.send_status_from_server.status = GRPC_STATUS_OK },
		{ .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &cancelled },
	};
	if (grpc_call_start_batch(call, ops, sizeof(ops) / sizeof(*ops), &call, NULL) != GRPC_CALL_OK)
		bench_die("gRPC: the server's batch");
	wait_for(cq);
	grpc_byte_buffer_destroy(payload);
	grpc_metadata_array_destroy(&metadata);
	grpc_call_unref(call);
}

_Noreturn static void serve(int cpu, int ready)
{
	grpc_server_credentials *credentials;
	grpc_completion_queue *cq;
	grpc_server *server;
	void *method;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_pin(0, cpu);
	grpc_init();
	server = grpc_server_create(NULL, NULL);
	cq = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(server, cq, NULL);
	method = grpc_server_register_method(server, METHOD, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
	credentials = grpc_insecure_server_credentials_create();
	if (!method || !grpc_server_add_http2_port(server, rpc.target, credentials))
		bench_die("gRPC: no port");
	grpc_server_start(server);
	if (write(ready, "", 1) != 1)
		_exit(1);
	for (;;)
		serve_one(server, cq, method);
}

/* ---- the client */

bool rpc_start(int cpu)
{
	grpc_channel_credentials *credentials;
	int ready[2];
	char byte;

	strcpy(rpc.dir, "/tmp/nicd-bench-rpc-XXXXXX");
	if (!mkdtemp(rpc.dir) || pipe(ready) < 0)
		bench_die("mkdtemp");
	snprintf(rpc.target, sizeof(rpc.target), "unix:%s/sock", rpc.dir);
	rpc.server = fork();
	if (rpc.server < 0)
		bench_die("fork");
	if (!rpc.server)
		serve(cpu, ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		bench_die("the server of gRPC did not start");
	close(ready[0]);
	/* Its threads take the processor from whoever makes them. */
	bench_pin(0, cpu);
	grpc_init();
	rpc.cq = grpc_completion_queue_create_for_next(NULL);
	credentials = grpc_insecure_credentials_create();
	rpc.channel = grpc_channel_create(rpc.target, credentials, NULL);
	rpc.method = grpc_channel_register_call(rpc.channel, METHOD, "localhost", NULL);
	grpc_channel_credentials_release(credentials);
	return true;
}

void rpc_call(void)
{
	static const char bytes[PAYLOAD] = "a token query";
	grpc_metadata_array initial, trailing;
	grpc_byte_buffer *reply = NULL, *request;
	grpc_slice slice = grpc_slice_from_static_buffer(bytes, PAYLOAD), details;
	grpc_status_code status;
	grpc_call *call = grpc_channel_create_registered_call(rpc.channel, NULL, GRPC_PROPAGATE_DEFAULTS, rpc.cq, rpc.method,
							      gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

	request = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_metadata_array_init(&initial);
	grpc_metadata_array_init(&trailing);
	grpc_op ops[] = {
		{ .op = GRPC_OP_SEND_INITIAL_METADATA },
		{ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = request },
		{ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
		{ .op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &initial },
		{ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &reply },
		{ .op = GRPC_OP_RECV_STATUS_ON_CLIENT, .data.recv_status_on_client = {
			.trailing_metadata = &trailing, .status = &status, .status_details = &details } },
	};
	if (grpc_call_start_batch(call, ops, sizeof(ops) / sizeof(*ops), call, NULL) != GRPC_CALL_OK)
		bench_die("gRPC: the client's batch");
	wait_for(rpc.cq);
	if (status != GRPC_STATUS_OK || !reply || grpc_byte_buffer_length(reply) != PAYLOAD)
		bench_die("gRPC: a wrong answer");
	grpc_byte_buffer_destroy(reply);
	grpc_byte_buffer_destroy(request);
	grpc_metadata_array_destroy(&initial);
	grpc_metadata_array_destroy(&trailing);
	grpc_slice_unref(details);
	grpc_call_unref(call);
}

void rpc_stop(void)
{
	char path[96];

	grpc_channel_destroy(rpc.channel);
	grpc_completion_queue_shutdown(rpc.cq);
	while (grpc_completion_queue_next(rpc.cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type != GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(rpc.cq);
	kill(rpc.server, SIGKILL);
	waitpid(rpc.server, NULL, 0);
	snprintf(path, sizeof(path), "%s/sock", rpc.dir);
	unlink(path);
	rmdir(rpc.dir);
}
