/* SPDX-License-Identifier: MIT */
/* Without libfabric-dev. */
#include <stdio.h>

#include "tests/bench/data.h"

bool fabric_start(struct contender *c)
{
	puts("libfabric is not installed (libfabric-dev): left out");
	return false;
}
