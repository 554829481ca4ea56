/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Flags of work requests (NDK_OP_FLAG_*), and what those of them that give rights come to as rights of an MR (NDK_MR_FLAG_*): NDK has
 * two enums with other bits for the same right, so nobody else converts between them.
 */
#include <stdbool.h>
#include <stdint.h>

#include "proto/reason.h"

/* The numbers are NDK's, and those of enum OpFlag in nicd.proto. Test remote write with nic_rights_has(), never with &. */
enum nic_op_flag {
	NIC_OP_SILENT_SUCCESS = 0x1,
	NIC_OP_READ_FENCE = 0x2,
	NIC_OP_SOLICIT_EVENT = 0x4,
	NIC_OP_REMOTE_READ = 0x8,
	NIC_OP_LOCAL_WRITE = 0x10,
	NIC_OP_REMOTE_WRITE = 0x30,
	NIC_OP_INLINE = 0x40,
	NIC_OP_READ_SINK = 0x80,
	NIC_OP_READ_LOCAL_INVALIDATE = 0x100,
	NIC_OP_DEFER = 0x200,
	NIC_OP_NOTIFY = 0x10000,   /* nicd's own */
	/* What every work request takes; receives have no flags. */
	NIC_OP_ANY = NIC_OP_SILENT_SUCCESS | NIC_OP_READ_FENCE | NIC_OP_DEFER,
};

/* The work requests, each with its row of flags. */
enum nic_op {
	NIC_OP_READ,
	NIC_OP_WRITE,
	NIC_OP_READ_LIST,
	NIC_OP_WRITE_LIST,
	NIC_OP_SEND,
	NIC_OP_FAST_REGISTER,
	NIC_OP_BIND,
	NIC_OP_INVALIDATE,
	NIC_OP_COUNT
};

/*
 * May this work request have these flags? FLAGS: bits that mean nothing, or half of remote write; OP_FLAGS: bits that are for others. Both say
 * in limit what it takes. Half of remote write is the upper half; 0x10 alone is local write.
 */
int nic_op_check(enum nic_op op, uint32_t flags, struct nicd_error *err);

/*
 * The rights that the flags of such a work request ask for: NIC_LOCAL_WRITE, NIC_REMOTE_READ, NIC_REMOTE_WRITE (with the local one that is in
 * it), NIC_READ_SINK; maybe none. The refusals of nic_op_check; and a window takes no local write alone (OP_FLAGS).
 */
int nic_op_rights(enum nic_op op, uint32_t flags, uint32_t *rights, struct nicd_error *err);
