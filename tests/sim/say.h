/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What clients and nicd say to each other, in the simulation's own words. The numbers are those of the comments of proto/nicd.proto,
 * written down a second time on purpose: the model shares no file with nicd/.
 */
#include <stdbool.h>
#include <stdint.h>

enum sim_call {
	CALL_HELLO = 10, CALL_RESUME = 11, CALL_QUERY_ADAPTER = 15, CALL_QUERY_EXTENSION = 16, CALL_ADD_MEMORY = 20, CALL_CREATE_PD = 25,
	CALL_GET_PRIVILEGED_TOKEN = 26, CALL_CREATE_MR = 30, CALL_REGISTER_MR = 31, CALL_DEREGISTER_MR = 32, CALL_GET_LOCAL_TOKEN = 33,
	CALL_GET_REMOTE_TOKEN = 34, CALL_QUERY_TOKENS = 35, CALL_INITIALIZE_FAST_REGISTER = 36, CALL_FAST_REGISTER = 37,
	CALL_INVALIDATE = 38, CALL_CREATE_MW = 40, CALL_BIND_MW = 41, CALL_BUILD_MAPPING = 45, CALL_CONNECT_QP = 50, CALL_READ = 51,
	CALL_WRITE = 52, CALL_TRANSFER_LIST = 53, CALL_SEND = 54, CALL_RECEIVE = 55, CALL_FLUSH = 56, CALL_DISCONNECT = 57, CALL_QUERY_QP = 58, CALL_CREATE_TICKET = 60,
	CALL_CREATE_EXPORT = 61, CALL_CLOSE = 65, CALL_LIST = 70, CALL_WHO = 71, CALL_REVOKE = 72, CALL_LEDGER = 73,
	CALL_COUNT = 80,
};

enum sim_status {
	S_SUCCESS = 0, S_ACCESS_VIOLATION = 1, S_INVALID_PARAMETER = 2, S_BUFFER_TOO_SMALL = 3, S_INSUFFICIENT_RESOURCES = 4,
	S_NOT_SUPPORTED = 5, S_CANCELLED = 6, S_REMOTE_RESOURCES = 7, S_CONNECTION_INVALID = 8, S_IMPLEMENTATION_LIMIT = 9, S_DEVICE_BUSY = 10, S_DEVICE_REMOVED = 11, S_INVALID_DEVICE_STATE = 12,
	S_INVALID_HANDLE = 13, S_ACCESS_DENIED = 14, S_BAD_VERSION = 15, S_CONNECTION_REFUSED = 16, S_DEPENDENCY_FAILED = 18,
	S_REVOKE_PENDING = 19, S_REMOTE_ERROR = 22,
};

enum sim_type { T_ANY, T_ADAPTER, T_SESSION, T_MEMORY, T_PD, T_MR, T_MW, T_MAPPING, T_QP, T_TICKET, T_EXPORT, T_GRANT, T_COUNT };

enum sim_event {
	EV_REVOKED = 1, EV_REVOKE_CONFIRMED = 2, EV_EXPIRED = 3, EV_DISCONNECTED = 4, EV_CONNECTED = 5, EV_DEVICE_STATE = 6, EV_RESYNC = 7,
	EV_REMOTE_INVALIDATED = 8, EV_NOTIFIED = 9,
};

enum sim_role { ROLE_CLIENT, ROLE_GATEWAY, ROLE_ADMIN };

/* What an account pays for: the names are those that Ledger shows. */
enum sim_slot {
	SLOT_SESSIONS, SLOT_MEMORIES, SLOT_FDS, SLOT_PINNED, SLOT_PDS, SLOT_MRS, SLOT_QPS, SLOT_DOORS, SLOT_CALLS, SLOT_BUFFERED, SLOT_RECEIVES,
	SLOT_MWS, SLOT_MAPPINGS,
	SLOT_COUNT
};

enum { SIM_RANGES = 18, SIM_IDS = 24, SIM_ITEMS = 256, SIM_PAGE = 4096 };

struct sim_ref {
	enum { REF_ABSENT, REF_ID, REF_RESULT } kind;
	uint64_t v;
};

enum sim_operation { WORK_READ, WORK_WRITE, WORK_SEND, WORK_RECEIVE };

enum {
	FLAG_SILENT = 0x1, FLAG_FENCE = 0x2, FLAG_SOLICIT = 0x4, FLAG_REMOTE_READ = 0x8, FLAG_LOCAL_WRITE = 0x10, FLAG_REMOTE_WRITE = 0x30,
	FLAG_INLINE = 0x40, FLAG_READ_SINK = 0x80, FLAG_LOCAL_INVALIDATE = 0x100, FLAG_DEFER = 0x200, FLAG_NOTIFY = 0x10000,
	FLAG_ANY = FLAG_SILENT | FLAG_FENCE | FLAG_DEFER,
};
/* Rights of MRs. INVALIDATABLE is said to devices only: peers may take it away. */
enum { RIGHT_WRITE = 1, RIGHT_REMOTE_READ = 2, RIGHT_REMOTE_WRITE = 5, RIGHT_SINK = 8, RIGHT_INVALIDATABLE = 0x100 };
enum { SIM_FAST_PAGES = 256, SIM_INLINE = 4096, SIM_HELD = 64, SIM_QP_WORK = 1024, SIM_QP_RECEIVES = 256 };

/* One entry of a work request, and how the whole of it is meant. */
struct sim_work {
	enum sim_operation operation;
	bool notify, solicited, invalidate, fence, is_inline;
	uint32_t local_token, remote_token, length, invalidate_token;
	uint64_t local_addr, remote_addr;
};

/* How a work request ended. */
struct sim_completion {
	uint64_t entries, bytes;
	uint32_t failed, token;
	bool inexact, solicited, invalidated;
};

/* A descriptor that a client passes: what is behind it, and how nicd is to answer. */
struct sim_fd {
	uint32_t status;   /* enum sim_status */
	uint64_t size;
	uint32_t page;
	bool writable;
	uint32_t number;
};

struct sim_request {
	uint32_t id, fds;
	enum sim_call call;
	struct sim_ref ref[3];          /* in the order of the call's fields */
	struct {
		struct sim_ref memory;
		uint64_t offset, length;
	} ranges[SIM_RANGES];
	unsigned n_ranges;
	struct sim_fd fd;               /* the first it brings */
	uint64_t iova, offset, length;
	uint32_t flags, uses, ttl_ms, peers;
	const char *text;               /* name, label, locator */
	bool text_ok;                   /* text is what it should be */
	bool allowed;                   /* ConnectQp: policy lets it */
	uint32_t major, minor;
	bool fast;                      /* CreateMr */
	uint32_t operation;
	uint32_t n_bytes;               /* of entries and inline data */
	uint32_t n_inline;              /* of these, inline data */
	uint32_t pages;                 /* InitializeFastRegister */
	bool remote_access;
	bool entries_ok;
	uint32_t local_token, remote_token, invalidate_token;
	uint64_t local_addr, remote_addr;
	uint64_t serial, cursor;
	uint32_t type, max;
	unsigned n_ids;
	uint64_t ids[SIM_IDS];
};

struct sim_item {
	uint32_t type;
	uint64_t serial, parent, session;
};

struct sim_reply {
	uint32_t id, status, result;    /* result: the number of the field of Reply, 0: none */
	uint64_t object, serial, size, iova, length;
	uint32_t page, local, remote, flags, generation, token, first_byte, pages;
	bool writable, up, connected, inbound;
	uint32_t n_exports, grants, streams_cut;
	uint64_t exports[64];
	unsigned n_tokens;
	uint32_t locals[SIM_IDS], remotes[SIM_IDS];
	uint8_t hash[32];               /* of the ticket in the locator */
	bool has_hash;
	uint64_t cursor;
	unsigned n_items;
	struct sim_completion completion;
	uint32_t sessions, admin_sessions, held_fds;
	uint64_t objects, tags, memories, streams, tickets;
	unsigned n_accounts;
	/* Only so many of each of these are there; the rest is not even zero. */
	char accounts[8][32];
	uint64_t used[8][SLOT_COUNT], max[8][SLOT_COUNT];
	struct sim_item items[SIM_ITEMS];
};

/* Commands to the device. */
enum sim_op {
	OP_ATTACH, OP_DETACH, OP_TAG_ADD, OP_TAG_DROP, OP_DOOR_ADD, OP_DOOR_DROP, OP_CONNECT, OP_POST, OP_FLUSH, OP_DISCONNECT, OP_QUERY,
	OP_STATS, OP_MAPPING_ADD, OP_MAPPING_DROP, OP_KEY_ADD, OP_KEY_DROP, OP_COUNT
};

struct sim_op_args {
	uint64_t pd, door, iova, length;
	uint32_t rights, generation, uses, max_streams, bytes;
	unsigned n_ranges;
	struct {
		uint64_t memory, offset, length;
	} ranges[SIM_RANGES];
	uint8_t hash[32];
	uint32_t token;   /* of the grant */
	uint64_t order;                 /* a tag as work of this stream; 0: at once */
	bool fence, only_qp, reserve;
	uint64_t owner;                 /* of a mapping or key */
	struct sim_work work;           /* its first entry */
	uint32_t fd;
};
