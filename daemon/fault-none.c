/* SPDX-License-Identifier: MIT */
/* --fault in builds that have none: nothing that runs for users can be told to fail. */
#include <errno.h>
#include <stdio.h>

#include "daemon/fault.h"

void fault_init(struct fault *fault, uv_loop_t *loop)
{
}

int fault_wrap(struct fault *fault, struct nic_provider **provider, const char *spec, char *message, size_t size)
{
	snprintf(message, size, "--fault: this nicd is built without it; use a build with -Dfaults=true");
	return -EOPNOTSUPP;
}

void fault_deinit(struct fault *fault)
{
}
