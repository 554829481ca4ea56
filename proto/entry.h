/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * An entry of a transfer list, as nicd.proto has it: NICD_TRANSFER_ENTRY_SIZE bytes, little-endian: local token, remote token, local address,
 * remote address, length, zero. A token may be a privileged one, so nothing here keeps a copy of it: who has the entry wipes it.
 */
#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "proto/limits.h"

static inline void nicd_entry_put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof(v));
}

static inline void nicd_entry_put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
}

static inline void nicd_entry_put_local(uint8_t *entry, uint32_t token, uint64_t addr, uint32_t length)
{
	nicd_entry_put32(entry, token);
	nicd_entry_put64(entry + 8, addr);
	nicd_entry_put32(entry + 24, length);
}

static inline void nicd_entry_put_remote(uint8_t *entry, uint32_t token, uint64_t addr)
{
	nicd_entry_put32(entry + 4, token);
	nicd_entry_put64(entry + 16, addr);
}
