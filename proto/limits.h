/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The limits of the protocols: what one frame may hold and how long names may be. Everything that an admin may set (objects,
 * bytes, requests in flight) is policy and lives in nicd/account.h and the configuration.
 */

enum {
	NICD_MAJOR = 1,
	NICD_MINOR = 0,

	NICD_FRAME_MAX = 65536,      /* bytes of one packet */
	NICD_FRAME_FDS = 64,         /* descriptors of one packet */
	NICD_FRAME_REQUESTS = 256,   /* requests of one frame */
	/* Enough for 256 registrations of 16 ranges (9,478 and 733 KiB); only what is used is ever touched. */
	NICD_FRAME_ALLOCS = 12288,   /* allocations that decoding one frame may make */
	NICD_FRAME_ARENA = 1024 * 1024, /* bytes that decoding one frame may take */

	NICD_RANGES = 16,            /* of one registration, or mapping */
	NICD_FAST_PAGES = 256,       /* of one fast registration: at most */
	NICD_FRMR_PAGES = 256,       /* NDK_ADAPTER_INFO.FRMRPageCount, at least 16 */
	NICD_INLINE = 4096,          /* bytes of a work request with OP_INLINE */
	NICD_TRANSFER_ENTRIES = 1024,
	NICD_TRANSFER_ENTRY_SIZE = 32,
	NICD_QP_WORK = 1024,         /* work requests in flight of one Qp */
	NICD_QP_WINDOWS = 4096,      /* bound for the peer of one Qp */
	NICD_QP_RECEIVES = 256,      /* posted receives of one Qp */
	NICD_QUERY_IDS = 4096,
	NICD_STRING = 255,           /* bytes of a name */

	NICD_PAGE = 4096,

	NICD_TICKET_SIZE = 16,
	NICD_TICKET_HASH_SIZE = 32,
	NICD_BOOT_ID_SIZE = 16,
	NICD_RESUME_SECRET_SIZE = 32,

	NICD_DATA_PORT = 7190,       /* TCP port of the data plane */
};
