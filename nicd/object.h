/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What all objects of the NIC layer have: a type, a serial (daemon-wide, 64 bits, never used twice), an id (meaningful to their owner
 * only; 0 once closed), and an owner. An object is found in a registry (by serial; by id in the owner's table) and held in
 * the owner's list, from which everything goes when the session goes. The model is dbus-broker's registry/owner/slot.
 */
#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "nicd/account.h"
#include "nicd/env.h"
#include "nicd/pool.h"
#include "proto/reason.h"

struct nic;
struct nic_mapping;
struct nic_owner;

/* The numbers are those of enum Type in nicd.proto. */
enum nic_type {
	NIC_NONE = 0,
	NIC_ADAPTER = 1,
	NIC_SESSION = 2,
	NIC_MEMORY = 3,
	NIC_PD = 4,
	NIC_MR = 5,
	NIC_MW = 6,
	NIC_MAPPING = 7,
	NIC_QP = 8,
	NIC_TICKET = 9,
	NIC_EXPORT = 10,
	NIC_GRANT = 11,
	NIC_TYPE_COUNT
};

/* NDK_MR_FLAG_*, as in nicd.proto. Test remote write with nic_rights_has(), never with &. */
enum nic_mr_flag {
	NIC_LOCAL_WRITE = 0x1,
	NIC_REMOTE_READ = 0x2,
	NIC_REMOTE_WRITE = 0x5,
	NIC_READ_SINK = 0x8,
	NIC_RIGHTS_ALL = 0xf,
	/* nicd's own, and never a client's to ask for: peers may invalidate the tag. */
	NIC_INVALIDATABLE = 0x100,
};
static inline bool nic_rights_has(uint32_t rights, uint32_t want)
{
	return (rights & want) == want;
}
static inline bool nic_rights_remote(uint32_t rights)
{
	return nic_rights_has(rights, NIC_REMOTE_READ) || nic_rights_has(rights, NIC_REMOTE_WRITE);
}
/* What of them a peer gets: local write without the remote one is not for it. */
static inline uint32_t nic_rights_of_peers(uint32_t rights)
{
	return (nic_rights_has(rights, NIC_REMOTE_READ) ? NIC_REMOTE_READ : 0) |
	       (nic_rights_has(rights, NIC_REMOTE_WRITE) ? NIC_REMOTE_WRITE : 0);
}

/* offset + length <= size, without wrapping, and length > 0. */
static inline bool nic_range_ok(uint64_t offset, uint64_t length, uint64_t size)
{
	return length > 0 && length <= size && offset <= size - length;
}

struct nic_object {
	TAILQ_ENTRY(nic_object) of_owner;
	RB_ENTRY(nic_object) by_serial;
	struct nic_owner *owner;              /* NULL: an adapter */
	uint64_t serial;
	uint64_t id;
	uint8_t type;                         /* enum nic_type */
	bool ending;                          /* its close has begun */
	uint8_t kind;                         /* enum nic_kind of life.h: an MR that is NIC_KIND_FAST is a struct nic_frmr */
	uint16_t place;                       /* in its slab, of those that live in a nic_pool */
	bool waits;                           /* ending, but for its owner first, not for the device */
};
TAILQ_HEAD(nic_objects, nic_object);
RB_HEAD(nic_registry, nic_object);
RB_PROTOTYPE(nic_registry, nic_object, by_serial, nic_object_compare)

/* News for an owner, as in enum Event.Kind of nicd.proto. */
enum nic_event {
	NIC_EVENT_REVOKED = 1,
	NIC_EVENT_REVOKE_CONFIRMED = 2,
	NIC_EVENT_EXPIRED = 3,
	NIC_EVENT_DISCONNECTED = 4,
	NIC_EVENT_CONNECTED = 5,
	NIC_EVENT_DEVICE_STATE = 6,
	NIC_EVENT_REMOTE_INVALIDATED = 8,
	NIC_EVENT_NOTIFIED = 9,
};

/*
 * The end of an asynchronous operation of the NIC layer; embedded by the caller, called exactly once, maybe before the call that took
 * it returns. error->reason 0: success. Results are read from the object in the callback.
 */
struct nic_done {
	void (*fn)(struct nic_done *done, const struct nicd_error *error);
};
/* Calls it, if there is one; error NULL: success. Whatever the caller of this held may be gone afterwards. */
void nic_done_end(struct nic_done *done, const struct nicd_error *error);
/* The one in *slot, which is empty from now on. */
static inline struct nic_done *nic_done_steal(struct nic_done **slot)
{
	struct nic_done *done = *slot;

	*slot = NULL;
	return done;
}

/*
 * id → object. Ids are type << 56 | generation << 32 | index; a slot's generation changes at every use, and a slot whose 2^24
 * generations are used up is never used again: no id ever means a second object.
 *
 * A slot that is used is the object's address, and whether an id is the object's is asked of the object: among a million of them a look-up
 * reads one line of the table and one of the object. A free slot is odd: generation << 33 | the next free slot << 1 | 1.
 *
 * Slots come in pages, so that a table grows by one page at a time, whatever its size.
 */
enum { NIC_TABLE_PAGE = 64, NIC_TABLE_GENERATIONS = 1 << 24 };
struct nic_table_page {
	uint64_t slots[NIC_TABLE_PAGE];
	uint16_t n_used;
	uint16_t place;                  /* its own, in the pool */
};
struct nic_table {
	struct nic_env *env;
	struct nic_pool *pool;           /* of pages */
	struct nic_table_page **pages;
	uint32_t n_pages, max_pages;
	uint32_t n_used, n_retired, first_free;
	bool closing;                    /* nothing comes any more: a page goes with its last object */
};
/* A pool for the pages of many tables. They are small, and spread over the heap a million objects would lose in them what they gain elsewhere. */
void nic_table_pool_init(struct nic_pool *pool, struct nic_env *env);
void nic_table_init(struct nic_table *table, struct nic_pool *pool);
void nic_table_deinit(struct nic_table *table);
/* Sets object->id. -ENOMEM. */
int nic_table_add(struct nic_table *table, struct nic_object *object);
/* Clears object->id; does nothing when it is 0. */
void nic_table_remove(struct nic_table *table, struct nic_object *object);
struct nic_object *nic_table_find(const struct nic_table *table, uint64_t id);
/* Fetches what looking up `id` will read into the cache: the slot, and some time later the object. Any id will do. */
void nic_table_prefetch_slot(const struct nic_table *table, uint64_t id);
void nic_table_prefetch_object(const struct nic_table *table, uint64_t id);
/* Nothing is added any more; what is not needed any more is given back with the objects. */
void nic_table_close(struct nic_table *table);

/* Who holds objects: one per session. */
struct nic_owner {
	struct nic *nic;
	struct nic_account *account;     /* referenced */
	uint64_t session;                /* serial */
	struct nic_table ids;
	TAILQ_ENTRY(nic_owner) of_nic, of_stranded;
	struct nic_objects objects[NIC_TYPE_COUNT];   /* those that are ending are behind the others */
	RB_HEAD(nic_mappings, nic_mapping) mappings;  /* by logical address */
	uint64_t n_objects;              /* an object counts until its close was answered and its memory is freed */
	uint32_t n_closing;              /* of these, Qps, doors, MRs, windows and mappings that the device is to end */
	bool dying;                      /* nic_owner_release was called; hears no more events */
	bool releasing;                  /* we are inside that call */
	bool held_back;                  /* so many are closing that the next one waits until one has gone */
	bool stranded;                   /* held back, and all that was closing has gone: nic_tick goes on */
	bool privileged;                 /* policy gives it privileged tokens; set by the session, before it has anything */
	/* Set by the session. event: `object` may be gone after the call. empty: the last object of a dying owner went. */
	void (*event)(struct nic_owner *owner, struct nic_object *object, enum nic_event event, uint64_t serial,
		      const struct nicd_error *error);
	void (*empty)(struct nic_owner *owner);
};

/* Takes a reference to the account. */
void nic_owner_init(struct nic_owner *owner, struct nic *nic, struct nic_account *account, uint64_t session);
/* Asserts that it is empty. */
void nic_owner_deinit(struct nic_owner *owner);
/*
 * Closes everything, Qps first, then exports and tickets, windows, MRs, mappings, Memories, PDs; at most `budget` objects now. Returns true when it
 * is to be called again. Not more than NIC_OWNER_CLOSING are at the device at a time, so that others' commands don't queue behind a
 * million: when it comes to that, it returns false, and when NIC_OWNER_BATCH of them have gone as many are started: while the device drops
 * one batch, another is on its way there, and we end what it has dropped before. Objects whose device has not answered yet are still counted
 * in n_objects, and owner->empty is called when the last has gone (never from inside this call).
 */
enum { NIC_OWNER_BATCH = 256, NIC_OWNER_CLOSING = 3 * NIC_OWNER_BATCH };
bool nic_owner_release(struct nic_owner *owner, unsigned budget);

/*
 * The object of this id, if its type is `type` (NIC_NONE: any). Refuses with HANDLE (also for a generation that is over) or
 * HANDLE_TYPE. Adapters are found too: they belong to nobody, and have one id, type << 56 | serial, for all.
 */
int nic_owner_find(struct nic_owner *owner, uint64_t id, enum nic_type type, struct nic_object **ret, struct nicd_error *err);

/*
 * Only for nicd/. A new object gets its serial, place and id (if named). Closing begins with unname: the id is void, the object
 * goes behind the others of its owner. It ends with unlink, the answer, free, and leave, in this order, so that an
 * owner is never empty while something of it is being answered.
 */
int nic_object_link(struct nic_object *object, struct nic *nic, struct nic_owner *owner, enum nic_type type, bool named);
void nic_object_unname(struct nic_object *object);
/* Of one that was unnamed: what its owner holds keeps it from ending, so that it is in nobody's way. */
void nic_object_wait(struct nic_object *object, bool waits);
void nic_object_unlink(struct nic_object *object, struct nic *nic);
void nic_owner_leave(struct nic_owner *owner);
/* The next ones of one that was held back; its empty may be called. */
void nic_owner_go_on(struct nic_owner *owner);
/* Tells the owner, unless it is dying. Anything may have been closed by it afterwards. */
void nic_object_emit(struct nic_object *object, enum nic_event event, uint64_t serial, const struct nicd_error *error);
