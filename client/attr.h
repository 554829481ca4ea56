/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Public structs that may grow: they begin with `size`, what their user was compiled with. Both ways between such a struct
 * and the one this library was compiled with.
 */
#include "client/conn.h"

/*
 * Copies the user's struct into one of `size` bytes (zeroed), of which `least` were there in the first version. `from`
 * NULL: all zero. -EINVAL: too small; -E2BIG: larger, and what is unknown is not zero.
 */
int attr_get(struct nicd_error_info *error, void *to, size_t size, size_t least, const void *from);
/* Before the call: is there room for the first version? NULL is allowed. -EINVAL. */
int attr_check(struct nicd *n, const void *to, size_t least);
/* Fills the user's struct as far as there is room; its `size` stays. NULL is allowed. */
void attr_put(void *to, const void *from, size_t size);
