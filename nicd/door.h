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
	TAILQ_ENTRY(nic_export) of_mr;
	struct nic_mr *mr;                  /* export: NULL once dead; ticket: NULL */
	struct nic_pd *pd;                  /* referenced */
	enum nic_door_state state;
	char *name;                         /* export */
	uint64_t mr_serial;
	uint64_t iova, length;
	uint32_t rights;
	uint32_t remote_token;
	uint32_t uses_left, max_streams, streams;
	uint32_t grants;                    /* ended by its revocation */
	uint64_t since_ns, until_ns;        /* wall clock */
	uint8_t ticket[NICD_TICKET_SIZE];   /* wiped when the opening is answered */
	struct nic_charge charge, charge_qps, charge_pinned;
	struct nic_cmd cmd;
	struct nic_done *done;
	struct nic_done *closed;
	bool closing;
};

/*
 * Both check first and return refusals at once; 0: done is called with the outcome, and *ret is valid from now on (gone when done
 * is called with an error). MR_STATE, NO_REMOTE_RIGHTS, RIGHTS_EXCEED, FLAGS, RANGE_*, NAME_TAKEN, QUOTA, VALUE.
 */
int nic_ticket_new(struct nic_export **ret, struct nic_mr *mr, const struct nic_door_terms *terms, struct nic_done *done,
		   struct nicd_error *err);
int nic_export_new(struct nic_export **ret, struct nic_mr *mr, const struct nic_door_terms *terms, struct nic_done *done,
		   struct nicd_error *err);
/* What the peers get, and the locator's secret; only in the done callback of _new. */
void nic_door_grant(const struct nic_export *door, struct nic_grant_info *ret);
/* Revokes, cuts the streams that came in by it, drops its tag, and ends last. */
void nic_door_close(struct nic_export *door, struct nic_done *done);
/* For nic_mr_deregister: revokes, and stays dead. */
void nic_door_kill(struct nic_export *door, struct nic_done *done);
