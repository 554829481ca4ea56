/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The two doors to a PD. A ticket (NDK's own model) admits a peer to the PD, where every remote token of the PD works. An
 * export is a named range of a registered MR with rights and a token of its own; its ticket admits a peer to that range only.
 * The secret itself is in the locator that `nic_door_locator` prints once; here and in the device there is only its hash.
 *
 * An export whose MR is deregistered stays listed, dead, until it is closed. The exporter prepays the Qps of its peers
 * (max_streams), so a connecting stranger never waits for nicd and never spends more than the owner agreed to.
 */
#include "nicd/mr.h"
#include "nicd/revocation.h"

enum nic_door_state {
	NIC_DOOR_OPENING,
	NIC_DOOR_OPEN,
	NIC_DOOR_EXPIRED,   /* no new peers; those inside stay until it is closed (ticket) or are cut (export) */
	NIC_DOOR_CLOSING,
	NIC_DOOR_DEAD,
};
const char *nic_door_state_name(enum nic_door_state state);

struct nic_door_terms {
	const char *name;        /* export: 1 to 255 bytes, checked by the caller for UTF-8; ticket: NULL */
	uint64_t offset, length; /* export: in the MR; length 0: to the end */
	uint32_t rights;         /* export: NIC_REMOTE_READ, NIC_REMOTE_WRITE */
	uint32_t uses;           /* 0: 1 */
	uint32_t max_streams;    /* 0: the smaller of uses and 16 */
	uint32_t ttl_ms;         /* 0: 60,000 for tickets, 86,400,000 for exports */
};

/* Tickets and exports are both doors; an export is linked to its MR too. */
struct nic_export {
	struct nic_object object;           /* NIC_TICKET or NIC_EXPORT */
	TAILQ_ENTRY(nic_export) of_mr;      /* those killed are behind the others */
	RB_ENTRY(nic_export) by_name;       /* in nic->names while `named` */
	struct nic_mr *mr;                  /* export: NULL once dead; ticket: NULL */
	struct nic_pd *pd;                  /* referenced */
	enum nic_door_state state;
	char *name;                         /* export; kept for lists when dead */
	uint64_t mr_serial;
	uint64_t iova, length;
	uint32_t rights;
	uint32_t remote_token;
	uint32_t uses_left, max_streams;
	uint32_t streams;                   /* none once it is shut */
	uint32_t grants;                    /* ended by its revocation */
	uint32_t streams_cut;               /* by its revocation */
	uint64_t notified;                  /* by its peers */
	uint64_t since_ns, until_ns;        /* wall clock */
	uint8_t ticket[NICD_TICKET_SIZE];   /* wiped when the opening is answered */
	struct nic_charge charge, charge_qps, charge_pinned;
	struct nic_cmd cmd;
	struct nic_done *done;              /* of the opening */
	struct nic_done *revoked;
	struct nic_done *closed;
	struct nic_revocation revocation;
	struct nicd_error failed;           /* the opening's, answered when the device holds nothing of it any more */
	TAILQ_HEAD(, nic_qp) qps;           /* inbound, that came in by it */
	TAILQ_ENTRY(nic_export) of_shut;    /* in nic->shut while `emptying` */
	unsigned held;                      /* we are in the middle of it: it is freed later */
	bool named;
	bool has_tag, has_door;             /* what the device holds of it */
	bool killed;                        /* its revocation has begun, or begins when the opening's command ends */
	bool expired;                       /* told by the device while it was opening */
	bool shut;                          /* the device has confirmed that nobody is inside; see nic_qp_is_cut */
	bool emptying;
	bool closing, ended;
};

/*
 * Both check first and return refusals at once; 0: done is called with the outcome, and *ret is valid from now on (gone when done
 * is called with an error). MR_STATE, NO_REMOTE_RIGHTS, RIGHTS_EXCEED, FLAGS, RANGE_*, STRING, NAME_TAKEN, QUOTA, NO_MEMORY. An opening that is revoked or
 * closed meanwhile ends with REVOKED. max_streams above uses is taken as uses.
 */
int nic_ticket_new(struct nic_export **ret, struct nic_mr *mr, const struct nic_door_terms *terms, struct nic_done *done,
		   struct nicd_error *err);
int nic_export_new(struct nic_export **ret, struct nic_mr *mr, const struct nic_door_terms *terms, struct nic_done *done,
		   struct nicd_error *err);
/* What the peers get, and the locator's secret; only in the done callback of _new. */
void nic_door_grant(const struct nic_export *door, struct nic_grant_info *ret);
/* Revokes, cuts the streams that came in by it, drops its tag, and ends last. Works from every state; `done` may be NULL. */
void nic_door_close(struct nic_export *door, struct nic_done *done);
/*
 * For nic_mr_deregister: revokes, and stays dead; the owner hears REVOKED. `done` (may be NULL) as in nic_mr_deregister, only that
 * the device's refusal is not an answer: it is asked again until it confirms.
 */
void nic_door_kill(struct nic_export *door, struct nic_done *done);

/* Only for nicd/. `why` NULL: the owner is not told. DEAD; DEVICE_BUSY: somebody waits for its revocation already. */
int nic_door_revoke(struct nic_export *door, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err);
void nic_door_lost(struct nic_export *door);
/* Ends at most `budget` Qps of doors that are shut. False: there are no more. */
bool nic_doors_empty(struct nic *nic, unsigned budget);
void nic_door_expired(struct nic_adapter *adapter, uint64_t serial);
void nic_door_stream_opened(struct nic_adapter *adapter, uint64_t stream, uint64_t door, const char *peer);

RB_PROTOTYPE(nic_names, nic_export, by_name, nic_export_compare)
