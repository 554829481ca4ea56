/* SPDX-License-Identifier: MIT */
/* Without gRPC there is nothing to stand beside. */
#include "tests/bench/rpc.h"

bool rpc_start(int cpu)
{
	return false;
}

void rpc_call(void)
{
}

void rpc_stop(void)
{
}
