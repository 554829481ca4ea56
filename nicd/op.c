/* SPDX-License-Identifier: MIT */
/* What work requests take of NDK's operation flags, and the rights that these stand for. */
#include "nicd/op.h"

#include "nicd/object.h"

static const uint32_t taken[NIC_OP_COUNT] = {
	[NIC_OP_READ] = NIC_OP_ANY | NIC_OP_READ_LOCAL_INVALIDATE,
	[NIC_OP_WRITE] = NIC_OP_ANY | NIC_OP_INLINE | NIC_OP_NOTIFY,
	[NIC_OP_READ_LIST] = NIC_OP_ANY | NIC_OP_READ_LOCAL_INVALIDATE,
	[NIC_OP_WRITE_LIST] = NIC_OP_ANY | NIC_OP_NOTIFY,
	[NIC_OP_SEND] = NIC_OP_ANY | NIC_OP_SOLICIT_EVENT | NIC_OP_INLINE,
	[NIC_OP_FAST_REGISTER] = NIC_OP_ANY | NIC_OP_REMOTE_READ | NIC_OP_REMOTE_WRITE | NIC_OP_READ_SINK,
	[NIC_OP_BIND] = NIC_OP_ANY | NIC_OP_REMOTE_READ | NIC_OP_REMOTE_WRITE,
	[NIC_OP_INVALIDATE] = NIC_OP_ANY,
};

static const struct {
	uint32_t op, right;
} rows[] = {
	{ NIC_OP_REMOTE_READ, NIC_REMOTE_READ },
	{ NIC_OP_LOCAL_WRITE, NIC_LOCAL_WRITE },
	{ NIC_OP_REMOTE_WRITE, NIC_REMOTE_WRITE },
	{ NIC_OP_READ_SINK, NIC_READ_SINK },
};

enum {
	DEFINED = NIC_OP_ANY | NIC_OP_SOLICIT_EVENT | NIC_OP_REMOTE_READ | NIC_OP_REMOTE_WRITE | NIC_OP_INLINE | NIC_OP_READ_SINK |
		  NIC_OP_READ_LOCAL_INVALIDATE | NIC_OP_NOTIFY,
};

int nic_op_check(enum nic_op op, uint32_t flags, struct nicd_error *err)
{
	bool half = (flags & NIC_OP_REMOTE_WRITE & ~(uint32_t)NIC_OP_LOCAL_WRITE) && !(flags & NIC_OP_LOCAL_WRITE);

	if ((flags & ~(uint32_t)DEFINED) || half)
		return nicd_refuse_at(err, NICD_R_FLAGS, taken[op], flags);
	if (flags & ~taken[op])
		return nicd_refuse_at(err, NICD_R_OP_FLAGS, taken[op], flags);
	return 0;
}

int nic_op_rights(enum nic_op op, uint32_t flags, uint32_t *rights, struct nicd_error *err)
{
	int r = nic_op_check(op, flags, err);

	if (r < 0)
		return r;
	/* A window knows local write only as the half of remote write that NDK put into it. */
	if (op == NIC_OP_BIND && (flags & NIC_OP_LOCAL_WRITE) && !nic_rights_has(flags, NIC_OP_REMOTE_WRITE))
		return nicd_refuse_at(err, NICD_R_OP_FLAGS, taken[op], flags);
	*rights = 0;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (nic_rights_has(flags, rows[i].op))
			*rights |= rows[i].right;
	return 0;
}
