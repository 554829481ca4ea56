/* SPDX-License-Identifier: MIT */
#pragma once
/* The flags of work requests are NDK's, in every table: this stands beside an enum of them, whose names begin with `prefix`. */
#include "proto/nicd.pb-c.h"

#define SAME_OP_FLAG(ours, name) _Static_assert((int)ours == (int)NICD__OP_FLAG__OP_##name, "OpFlag " #name)
#define SAME_OP_FLAGS(prefix) \
	SAME_OP_FLAG(prefix##SILENT_SUCCESS, SILENT_SUCCESS); \
	SAME_OP_FLAG(prefix##READ_FENCE, READ_FENCE); \
	SAME_OP_FLAG(prefix##SOLICIT_EVENT, SEND_AND_SOLICIT_EVENT); \
	SAME_OP_FLAG(prefix##REMOTE_READ, ALLOW_REMOTE_READ); \
	SAME_OP_FLAG(prefix##LOCAL_WRITE, ALLOW_LOCAL_WRITE); \
	SAME_OP_FLAG(prefix##REMOTE_WRITE, ALLOW_REMOTE_WRITE); \
	SAME_OP_FLAG(prefix##INLINE, INLINE); \
	SAME_OP_FLAG(prefix##READ_SINK, RDMA_READ_SINK); \
	SAME_OP_FLAG(prefix##READ_LOCAL_INVALIDATE, RDMA_READ_LOCAL_INVALIDATE); \
	SAME_OP_FLAG(prefix##DEFER, DEFER); \
	SAME_OP_FLAG(prefix##NOTIFY, NOTIFY)
