/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A queue pair: one connection to one peer, in a PD. Outbound ones are made by nic_qp_connect; inbound ones appear when a peer comes
 * in by a door of the PD, belong to the door's owner, and go when the peer goes. A grant stands for an inbound Qp that came
 * by an export: one peer's access.
 *
 *   CONNECTING --ok--> CONNECTED --lost, disconnect--> DISCONNECTED --close--> gone
 */
#include "nicd/door.h"

struct nic_mw;

enum nic_qp_state {
	NIC_QP_CONNECTING,
	NIC_QP_CONNECTED,
	NIC_QP_DISCONNECTING,
	NIC_QP_DISCONNECTED,
};
const char *nic_qp_state_name(enum nic_qp_state state);

struct nic_grant {
	struct nic_object object;
	struct nic_export *door;
	struct nic_qp *qp;
	uint64_t since_ns;
};

struct nic_qp {
	struct nic_object object;
	RB_ENTRY(nic_qp) by_stream;        /* in adapter->streams while `streaming` */
	TAILQ_ENTRY(nic_qp) of_door;
	TAILQ_HEAD(, nic_mw) windows;      /* that its peer may use, or is to */
	uint32_t n_windows;
	struct nic_export *by_door;        /* inbound: until it has left the door */
	struct nic_pd *pd;                 /* referenced */
	uint64_t stream;                   /* number at the provider: the serial of outbound ones */
	enum nic_qp_state state;
	bool inbound;
	bool closing;
	char peer[64];
	uint64_t door;                     /* serial; inbound */
	struct nic_grant *grant;           /* inbound by an export */
	struct nic_grant_info gives;       /* outbound */
	struct nic_counters counters;      /* last known */
	uint64_t since_ns;
	struct nic_charge charge;
	struct nic_cmd cmd;                /* connect, disconnect */
	struct nic_cmd abort;              /* the disconnection of one that is closed while it connects; counted in `posted` */
	struct nic_done *done;
	struct nic_done *closed;
	uint32_t posted;                   /* work requests, receives and queries at the provider */
	uint32_t queries, receives;        /* of these */
	uint64_t notified;                 /* by the peer; inbound */
	struct nicd_error why;             /* of the disconnection */
	struct nic_deadline deadline;      /* to ask again when the device refused to disconnect */
	unsigned held;                     /* we are in the middle of it: it is freed later */
	bool streaming;
	bool gone;                         /* the stream ended while connecting or disconnecting it was under way */
};

/* Its door is shut: the stream has ended, and its own end comes in its turn. Nothing may be done with it any more. */
static inline bool nic_qp_is_cut(const struct nic_qp *qp)
{
	return qp->by_door && qp->by_door->shut;
}
/* What there is to be seen of it. */
static inline enum nic_qp_state nic_qp_state(const struct nic_qp *qp)
{
	return nic_qp_is_cut(qp) ? NIC_QP_DISCONNECTED : qp->state;
}

struct nic_connect_terms {
	struct sockaddr_storage addr;      /* checked against policy by the caller */
	uint8_t ticket[NICD_TICKET_SIZE];
	uint32_t timeout_ms;
};

/* 0: done is called; *ret is valid from now on, gone when done is called with an error. QUOTA, NO_MEMORY, NO_ADAPTER. */
int nic_qp_connect(struct nic_qp **ret, struct nic_pd *pd, const struct nic_connect_terms *terms, struct nic_done *done,
		   struct nicd_error *err);

/* A work request under way. */
struct nic_work {
	struct nic_cmd cmd;                /* completion or counters: read cmd.completion in the callback */
	struct nic_qp *qp;
	struct nic_done *done;
	struct nic_charge charge;          /* BUFFERED: the device's copy of the entries and inline data; or RECEIVES */
};

struct nic_request {
	enum nic_operation operation;
	const uint8_t *entries;            /* borrowed during the call; of messages, both ways, one with a local side only */
	size_t len;
	bool notify, solicited, invalidate, fence, is_inline;
	uint32_t invalidate_token;
	const uint8_t *inline_data;        /* borrowed, too */
	size_t inline_len;                 /* is_inline: the entry's length; else 0 */
};

/*
 * Posts a transfer list, a message, or a receive; done reads work->cmd.completion. `work` is the caller's, until done. Receives are counted
 * apart: a Qp may have NICD_QP_RECEIVES of them. QP_STATE, TRANSFER_ENTRIES, TRANSFER_LENGTH, INLINE_LENGTH, IN_FLIGHT, QUOTA.
 */
int nic_qp_post(struct nic_qp *qp, const struct nic_request *request, struct nic_work *work, struct nic_done *done,
		struct nicd_error *err);
/* Is half of the work requests that it may have under way? */
bool nic_qp_is_half_full(const struct nic_qp *qp);
/* QP_STATE, IN_FLIGHT. */
int nic_qp_flush(struct nic_qp *qp, struct nic_work *work, struct nic_done *done, struct nicd_error *err);
/* Fresh counters into qp->counters; the last known ones when it is disconnected. */
int nic_qp_query(struct nic_qp *qp, struct nic_work *work, struct nic_done *done, struct nicd_error *err);
/* QP_STATE unless CONNECTED. */
int nic_qp_disconnect(struct nic_qp *qp, struct nic_done *done, struct nicd_error *err);
/* Disconnects, waits for posted work (answered FLUSHED), ends last. */
void nic_qp_close(struct nic_qp *qp, struct nic_done *done);

/*
 * Only for nicd/. What the device does in the order of this Qp's work, for another object of the same PD: it is counted like a post, and the
 * Qp waits for its end, which comes after its answer. PD_MISMATCH, QP_STATE, IN_FLIGHT.
 */
int nic_qp_begin_work(struct nic_qp *qp, const struct nic_pd *pd, struct nicd_error *err);
void nic_qp_end_work(struct nic_qp *qp);   /* the Qp may be gone afterwards */
int nic_qp_revoke(struct nic_qp *qp, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
/* A peer came in by this door. NO_MEMORY. */
int nic_qp_accept(struct nic_qp **ret, struct nic_export *door, uint64_t stream, const char *peer, struct nicd_error *err);
/* Of its end, in the budgets of turns: its windows go with it. */
static inline unsigned nic_qp_weight(const struct nic_qp *qp)
{
	return 1 + qp->n_windows;
}

/* The door is shut: its remaining streams have ended. */
void nic_qp_leave_door(struct nic_qp *qp, const struct nicd_error *why);
void nic_qp_lost(struct nic_qp *qp);
void nic_qp_stream_closed(struct nic_adapter *adapter, uint64_t stream, const struct nicd_error *why,
			  const struct nic_counters *counters);
void nic_qp_stream_notified(struct nic_adapter *adapter, uint64_t stream, uint64_t count);

RB_PROTOTYPE(nic_streams, nic_qp, by_stream, nic_qp_compare)
