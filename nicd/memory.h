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
	uint32_t users;                       /* ranges of registered MRs and exports, and registrations under way */
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
