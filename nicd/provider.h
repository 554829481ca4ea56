/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The seam between the NIC layer and a device. A provider executes commands: it attaches memory, adds and drops tags, admits
 * peers by tickets, connects, transfers. It knows no session, account or name, and nothing calls it but nicd/.
 *
 * Every command is asynchronous and has one kind of end: cmd->done(cmd) is called exactly once, with cmd->error and the result
 * filled in; it may be called before the op returns, and then the object that embeds the command may be gone already. A command in
 * flight belongs to the provider; the arguments (`what`) are borrowed during the call only. Commands on one object are given one after the
 * other, but a stream may be disconnected while it connects, which ends the connecting, and a tag may be dropped at once while a drop of it
 * waits for its turn; commands of one provider take effect in the order given, but for those that are work of a stream.
 *
 * Every op exists: nic_provider_none (provider.c) answers NOT_SUPPORTED, and providers copy what they do not have from it.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "nicd/ptok.h"
#include "proto/limits.h"
#include "proto/reason.h"
#include "proto/turns.h"

struct nic_provider;
struct nic_adapter;

/* What a locator's door gives: memory on the other side, or on this one when we are the peer. */
struct nic_grant_info {
	uint32_t remote_token;
	uint32_t rights;        /* NIC_REMOTE_READ, NIC_REMOTE_WRITE */
	uint64_t iova;
	uint64_t length;
	uint64_t incarnation;   /* of the device that holds the memory */
};

struct nic_counters {
	uint64_t bytes_read, bytes_written;   /* by our work requests */
	uint64_t peer_read, peer_written;     /* by the peer's */
};

/* What a device lets in at most, and what that kept out. */
enum { NIC_CAPS = 8 };
struct nic_caps {
	unsigned n;
	struct nic_cap {
		char name[40];        /* as the device's option is called */
		uint64_t limit, now, refused;
		bool counted;         /* `now` is known */
	} cap[NIC_CAPS];
};

struct nic_cmd {
	void (*done)(struct nic_cmd *cmd);
	struct nicd_error error;  /* reason 0: success */
	union {
		struct {
			uint32_t local_token;
			uint32_t remote_token;
		} tags;                       /* tag_add */
		struct nic_ptok key;          /* key_add; whoever reads it wipes it */
		struct {
			uint32_t streams_cut;
		} dropped;                    /* tag_drop, door_drop */
		struct {
			struct nic_grant_info grant;
			char peer[64];        /* "127.0.0.2:7190" */
		} connected;                  /* qp_connect */
		struct {
			uint64_t bytes;
			uint32_t entries;     /* completed */
			uint32_t failed;      /* index of the first failed one, when error */
			bool inexact;
			bool solicited, invalidated;   /* of a message received */
			uint32_t token;       /* what it invalidated */
		} completion;                 /* qp_post; also valid with an error */
		struct {
			struct nic_counters counters;
			bool connected;
		} stream;                     /* qp_query; qp_disconnect: as it was, counted only if connected */
		struct {
			uint64_t memories, tags, tickets, streams;
			struct turns_report turns;   /* of its loop, since it was last asked */
			struct nic_caps *caps;       /* where these go, empty; set by who asks; NULL: nowhere */
		} stats;
	};
	/* The provider's own while the command is in flight. */
	uint32_t id;
	uint32_t kind;
	STAILQ_ENTRY(nic_cmd) next;
	uint64_t cookie;
};

struct nic_attach {
	uint64_t memory;   /* serial */
	int fd;            /* borrowed; the provider duplicates what it keeps */
	uint64_t size;
	bool writable;
};

struct nic_tag_range {
	uint64_t memory;   /* serial, attached */
	uint64_t offset;
	uint64_t length;
};

/* A command as work of a stream. Where one is asked for, NULL, or qp 0: at once. */
struct nic_order {
	uint64_t qp;           /* stream: after what was posted on it before and has not read its memory yet */
	bool fence;            /* and after its reads */
};

struct nic_tag {
	uint64_t serial;       /* of the MR, export or window */
	uint32_t generation;
	uint32_t rights;       /* NIC_LOCAL_WRITE, …; NIC_INVALIDATABLE */
	uint64_t pd;           /* serial: scope of the local token, and of the remote one when door is 0 */
	uint64_t door;         /* serial of the export whose peers alone may use the remote token; then there is no local one */
	uint64_t iova;
	uint64_t length;
	unsigned n_ranges;
	const struct nic_tag_range *ranges;
	struct nic_order order; /* connected; when it ends first the command ends with FLUSHED or QP_LOST */
	bool only_qp;          /* a window: no local token, the remote one for the peer of order.qp alone; the device drops it with that stream */
	bool reserve;          /* both tokens, but they grant nothing and are of no ranges: no other tag gets them */
};

/* A logical address range of an owner's; those of one owner do not overlap. */
struct nic_map {
	uint64_t serial;       /* of the mapping */
	uint64_t owner;        /* serial of the session */
	uint64_t address;
	uint64_t length;
	unsigned n_ranges;
	const struct nic_tag_range *ranges;
};

struct nic_door {
	uint64_t serial;       /* of the ticket or export */
	uint64_t pd;
	uint64_t door;         /* 0: the peer gets the PD's scope; else the export's serial: that export only */
	uint8_t hash[NICD_TICKET_HASH_SIZE]; /* SHA-256 of the ticket */
	uint32_t uses;
	uint32_t max_streams;  /* at the same time */
	uint32_t ttl_ms;
	struct nic_grant_info grant;
};

struct nic_connect {
	uint64_t qp;           /* serial */
	uint64_t pd;           /* serial: scope of local tokens */
	struct sockaddr_storage addr;
	uint8_t ticket[NICD_TICKET_SIZE];
	uint32_t timeout_ms;
};

enum nic_operation { NIC_READ, NIC_WRITE, NIC_SEND, NIC_RECEIVE };

struct nic_post {
	uint64_t qp;
	enum nic_operation operation;
	const uint8_t *entries;   /* as in nicd.TransferList, checked: whole, flags 0; of messages, both ways, one with a local side only */
	uint32_t n_entries;
	bool notify;              /* NIC_WRITE: the owner of the peer's door is told when it is placed */
	bool solicited;           /* NIC_SEND */
	bool invalidate;          /* NIC_SEND */
	uint32_t invalidate_token;
	bool fence;               /* begins when the reads that were posted on this stream before have ended; not of NIC_RECEIVE */
	bool is_inline;           /* NIC_WRITE, NIC_SEND of one entry: its bytes are these, its local side is ignored */
	const uint8_t *inline_data;   /* the entry's length of them, at most NICD_INLINE */
};

enum nic_cost {
	NIC_COST_ATTACH,   /* pinned bytes of a Memory of `bytes`, once per device */
	NIC_COST_TAG,      /* pinned bytes of an MR or export of `bytes` */
};

struct nic_provider_ops {
	const char *name;

	/* What must be charged before the thing is asked for. */
	uint64_t (*cost)(struct nic_provider *p, enum nic_cost what, uint64_t bytes);

	void (*memory_attach)(struct nic_provider *p, const struct nic_attach *what, struct nic_cmd *cmd);
	void (*memory_detach)(struct nic_provider *p, uint64_t memory, struct nic_cmd *cmd);

	/* Draws the tokens. */
	void (*tag_add)(struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd);
	/* Done only when no byte of it can be read or placed any more. An order whose stream ends first is over then. */
	void (*tag_drop)(struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order,
			 struct nic_cmd *cmd);

	/* For work requests that name a privileged key of this owner, and for nobody else. */
	void (*mapping_add)(struct nic_provider *p, const struct nic_map *what, struct nic_cmd *cmd);
	/* No new work uses it from now on; done when what was posted before has ended. */
	void (*mapping_drop)(struct nic_provider *p, uint64_t serial, struct nic_cmd *cmd);
	/* The key of this PD, drawn when there is none yet (it may be asked for while it is being asked for): local rights on what `owner` has mapped, in work requests on streams of the PD. */
	void (*key_add)(struct nic_provider *p, uint64_t pd, uint64_t owner, struct nic_cmd *cmd);
	void (*key_drop)(struct nic_provider *p, uint64_t pd, struct nic_cmd *cmd);

	void (*door_add)(struct nic_provider *p, const struct nic_door *what, struct nic_cmd *cmd);
	/* `cut`: streams that came in by it end first. */
	void (*door_drop)(struct nic_provider *p, uint64_t serial, bool cut, struct nic_cmd *cmd);

	void (*qp_connect)(struct nic_provider *p, const struct nic_connect *what, struct nic_cmd *cmd);
	void (*qp_post)(struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd);
	void (*qp_flush)(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd);
	void (*qp_disconnect)(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd);
	void (*qp_query)(struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd);

	void (*stats)(struct nic_provider *p, struct nic_cmd *cmd);

	/* The caller's turn ends: what was queued goes out now. */
	void (*push)(struct nic_provider *p);
	/* All commands in flight end with DEVICE_LOST first. */
	void (*free)(struct nic_provider *p);
};

/* What the device says unasked. Set by the adapter when the provider is handed to it. */
struct nic_provider_events {
	/* A peer came in by door (serial). `stream`: the number to use as `qp` in commands. */
	void (*stream_opened)(struct nic_adapter *a, uint64_t stream, uint64_t door, const char *peer);
	/* Inbound or outbound. */
	void (*stream_closed)(struct nic_adapter *a, uint64_t stream, const struct nicd_error *why,
			      const struct nic_counters *counters);
	void (*door_expired)(struct nic_adapter *a, uint64_t door);
	/* The peer of an inbound stream says that what it wrote is there: `count` times so far. Those of a short time may come as one. */
	void (*stream_notified)(struct nic_adapter *a, uint64_t stream, uint64_t count);
	/* A peer's message invalidated this tag, as tag_drop does. Comes before the end of the message's receive. */
	void (*tag_invalidated)(struct nic_adapter *a, uint64_t serial, uint32_t generation);
	/* The device is gone; every tag and stream of it is dead. */
	void (*lost)(struct nic_adapter *a);
};

/* First member of every provider. The facts are valid when the provider is handed over. */
struct nic_provider {
	const struct nic_provider_ops *ops;
	const struct nic_provider_events *events;
	struct nic_adapter *adapter;       /* for events; set by nic_adapter_new */
	char name[32];                     /* "soft0" */
	uint64_t incarnation;
	struct sockaddr_storage data_addr; /* as advertised; family 0: none */
	uint32_t adapter_flags;            /* NDK_ADAPTER_FLAG_* */
	uint64_t max_registration;
	uint64_t max_transfer;
	uint32_t max_inbound_read, max_outbound_read;
	uint64_t max_window;               /* bytes of one window; 0: there are none */
	uint32_t max_fast_pages;           /* of one fast registration; 0: there are none */
	uint32_t frmr_pages;               /* NDK's FRMRPageCount: of these there are the most; at least 16 */
	uint32_t max_inline;               /* bytes; 0: NIC_WORK_INLINE is not known */
	/* What there is of each for all together; 0: the device knows no limit. */
	uint32_t max_mr, max_mw, max_pd, max_qp;
	uint64_t max_pinned;               /* bytes */
	bool up;
};

extern const struct nic_provider_ops nic_provider_none;
