/* SPDX-License-Identifier: MIT */
#pragma once
/* Which tokens were released, and when: so that one that comes again within its quarantine is seen. */
#include <stdbool.h>
#include <stdint.h>

struct tokens;

/* Room for `max` releases. */
struct tokens *tokens_new(uint64_t max);
void tokens_free(struct tokens *tokens);
/* `ns`: not after the token was released. 0 is none. */
void tokens_released(struct tokens *tokens, uint32_t token, uint64_t ns);
/* `ns`: not before it was drawn. True: it may be drawn, because it was never released, or 10 s or 2^20 releases ago. */
bool tokens_drawn(const struct tokens *tokens, uint32_t token, uint64_t ns);
