/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A Memory: one memfd that a client handed over. The caller has checked it (kind, seals, size, pages present); this layer
 * holds the descriptor, the charges, and per device the attachment, made when the first MR needs it and kept until the
 * Memory goes. Everything else names ranges of it.
 *
 * Closing drops the id at once and ends when no range names it any more and every device has let go of it.
 */
#include "nicd/adapter.h"
#include "nicd/nic.h"

/* Somebody who wants to go on when an attachment is there, or has failed. */
struct nic_waiter {
	TAILQ_ENTRY(nic_waiter) next;
	void (*fn)(struct nic_waiter *waiter, const struct nicd_error *error);
};
TAILQ_HEAD(nic_waiters, nic_waiter);

enum nic_attachment_state {
	NIC_ATTACHMENT_RESERVED,   /* charged, not asked for yet */
	NIC_ATTACHMENT_STARTED,
	NIC_ATTACHMENT_READY,
	NIC_ATTACHMENT_DETACHING,
};

/* A Memory in a device. One that failed is gone at once: the next registration tries again. */
struct nic_attachment {
	LIST_ENTRY(nic_attachment) of_memory;
	struct nic_memory *memory;
	struct nic_adapter *adapter;
	enum nic_attachment_state state;
	struct nic_charge charge;
	struct nic_cmd cmd;
	struct nic_waiters waiters;
	struct nic_deadline deadline;   /* to ask again when the device refused to let go */
};

struct nic_memory_facts {
	int fd;
	uint64_t size;
	uint32_t page_size;
	bool writable;
};

struct nic_memory {
	struct nic_object object;
	struct nic *nic;
	struct nic_memory_facts facts;
	struct nic_charge charge, charge_fd;
	uint32_t users;                       /* ranges of registered MRs, and of registrations and revocations under way */
	bool settling;
	LIST_HEAD(, nic_attachment) attachments;  /* one per adapter */
	bool closing;
	struct nic_done *closed;
};

/*
 * Takes facts->fd, also on failure. `named` false: nobody can close it by id; it goes with its last user, and the caller must
 * call nic_memory_close(m, NULL) once it has used it (or failed to). QUOTA, NO_MEMORY.
 */
int nic_memory_new(struct nic_memory **ret, struct nic_owner *owner, const struct nic_memory_facts *facts, bool named,
		   struct nicd_error *err);
/* `done` may be NULL. */
void nic_memory_close(struct nic_memory *memory, struct nic_done *done);

/*
 * Only for nicd/. A registration first reserves an attachment per range (charged: QUOTA, NO_MEMORY; those made by it
 * are cancelled when a later check fails), then uses the memories, then starts the attachments and waits. Using keeps
 * memory and attachment.
 */
int nic_memory_reserve(struct nic_memory *memory, struct nic_adapter *adapter, struct nicd_error *err);
void nic_memory_cancel(struct nic_memory *memory, struct nic_adapter *adapter);
void nic_memory_use(struct nic_memory *memory);
void nic_memory_unuse(struct nic_memory *memory);   /* the memory may be gone afterwards */
bool nic_memory_attached(const struct nic_memory *memory, const struct nic_adapter *adapter);
/* When it is not: asks for it and waits. The waiter's fn may be called before this returns. */
void nic_memory_attach(struct nic_memory *memory, struct nic_adapter *adapter, struct nic_waiter *waiter);
/* The device is gone, and with it the attachment. */
void nic_memory_lost(struct nic_memory *memory, struct nic_adapter *adapter);
