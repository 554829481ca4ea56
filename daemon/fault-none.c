/* SPDX-License-Identifier: MIT */
/* --fault in builds that have none: nothing that runs for users can be told to fail. */
#include <errno.h>
#include <stdio.h>

#include "daemon/fault.h"

int fault_wrap(struct nic_provider **provider, struct nic_env *env, const char *spec, char *message, size_t size)
{
	snprintf(message, size, "--fault: this nicd is built without it; use a build with -Dfaults=true");
	return -EOPNOTSUPP;
}
