/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A remote procedure call of gRPC C-core, unary, over a unix socket: what stands beside our token query. Only where
 * libgrpc-dev is installed.
 */
#include <stdbool.h>

/* Starts the server as a process, pinned, and connects. False: built without gRPC. */
bool rpc_start(int cpu);
/* One call with a request and a reply as small as those of a token query. */
void rpc_call(void);
void rpc_stop(void);
