/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The NIC layer as a whole: registries by serial, adapters, accounts, deadlines. Single-threaded; one per process.
 */
#include "nicd/object.h"
#include "nicd/pool.h"

struct nic_adapter;
struct nic_mr_op;
struct nic_receipt;
struct nic_deadline;
struct nic_export;

struct nic_settings {
	uint64_t revoke_timeout_ns;   /* after it a revocation answers REVOKE_PENDING; default 5 s */
};

struct nic {
	struct nic_env *env;
	struct nic_settings settings;
	struct nic_accounts accounts;
	struct nic_registry registry[NIC_TYPE_COUNT];
	uint64_t count[NIC_TYPE_COUNT];       /* live objects */
	uint64_t last_serial;
	struct nic_pool mrs, frmrs, frmr_ops, table_pages;
	struct nic_mr_op *spare_ops;          /* of mr.c */
	uint32_t n_spare_ops;
	const struct nic_receipt *telling;    /* of the one whose callbacks are being called */
	uint64_t held_fds;
	uint64_t quarantined;                 /* objects whose revocation is not confirmed in time */
	TAILQ_HEAD(, nic_deadline) deadlines; /* in order: all have the same length */
	uint64_t clock_ns;                    /* while many are armed at a time: what the clock said before; 0: it is asked */
	struct nic_objects adapters;          /* by of_owner */
	TAILQ_HEAD(, nic_owner) owners, stranded;
	TAILQ_HEAD(, nic_export) shut;        /* doors whose Qps are still to end */
	RB_HEAD(nic_names, nic_export) names; /* of exports that live: by account and name */
};

void nic_init(struct nic *nic, struct nic_env *env, const struct nic_limits *limits, const struct nic_settings *settings);
/*
 * Frees the adapters; with them ends what devices still owed to objects that are closing. Asserts that nothing is left then but owners'
 * accounts: all owners must have been released.
 */
void nic_deinit(struct nic *nic);

uint64_t nic_serial(struct nic *nic);   /* draws the next one (sessions take theirs here too) */

/* The object of this serial and type (NIC_NONE: any), or NULL. */
struct nic_object *nic_find(struct nic *nic, enum nic_type type, uint64_t serial);
/* The first one with a serial above `after`, or NULL: for paging. */
struct nic_object *nic_next(struct nic *nic, enum nic_type type, uint64_t after);

/*
 * When nic_tick wants to be called, on env's clock; 0: as soon as others had their turn; UINT64_MAX: never. It does a piece of what
 * there is to do: of the deadlines that are over, of the objects of devices that are lost, and of who came in by doors that are shut.
 */
uint64_t nic_next_deadline(const struct nic *nic);
void nic_tick(struct nic *nic);
/* The caller's turn ends: providers send what they queued. */
void nic_push(struct nic *nic);

/*
 * Ends remote access by order of somebody else than the owner, who hears REVOKED: an MR is deregistered with its exports and windows, a
 * window invalidated, an export or ticket revoked (and stays listed, dead), a Qp or a grant's Qp disconnected. done as in nic_mr_deregister; the receipt is
 * nic_mr_receipt's, the counts in the door. Refuses with MR_STATE, MW_STATE, NO_MEMORY, DEAD, QP_STATE, DEVICE_BUSY (a revocation is under way),
 * HANDLE_TYPE (other objects).
 */
int nic_revoke(struct nic *nic, struct nic_object *object, struct nic_done *done, struct nicd_error *err);

/* For nicd/ only. */
struct nic_deadline {
	TAILQ_ENTRY(nic_deadline) next;
	uint64_t at;
	void (*fn)(struct nic_deadline *deadline);
	bool armed;
};
void nic_deadline_arm(struct nic *nic, struct nic_deadline *deadline);
void nic_deadline_disarm(struct nic *nic, struct nic_deadline *deadline);
