/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Memory and tags of the software RNIC: what a real NIC keeps in its translation and protection tables.
 *
 * Client memory is mapped here and never loaded from or stored to in user space: the engine hands pieces of the mapping to
 * recvmsg, sendmsg and process_vm_writev/readv, which answer EFAULT where a load would be a SIGBUS.
 *
 * A tag has two tokens drawn apart: the local one for work requests of its PD's streams, the remote one for peers. Tokens are
 * random, never 0, never equal to a live one, and not drawn again for 10 s or 2^20 later releases.
 */
#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "proto/limits.h"
#include "proto/reason.h"

struct soft_memory {
	uint64_t serial;
	uint8_t *map;
	uint64_t size;
	bool writable;
	uint32_t tags;          /* ranges of tags that name it */
	/* memory.c only */
	uint64_t populated;     /* from the start */
	bool populating;        /* in the queue */
	uint64_t mapped;        /* bytes of address space still taken; huge pages round it up */
	uint64_t page;
	void (*unmapped)(void *userdata);
	void *userdata;
	RB_ENTRY(soft_memory) by_serial;
	STAILQ_ENTRY(soft_memory) next;   /* waits to be unmapped */
	TAILQ_ENTRY(soft_memory) to_populate;
};

struct soft_tag_range {
	struct soft_memory *memory;
	uint64_t offset, length;
};

/* Somebody is in the middle of reading or placing bytes: a half sent or half placed FPDU. */
struct soft_use {
	LIST_ENTRY(soft_use) next;
	struct soft_tag *tag;                     /* NULL: not in use */
	void (*cut)(struct soft_use *use);        /* the tag goes: end it now; must unuse before it returns */
	bool waits;                               /* not in the middle of it yet: to cut it ends no stream */
};

/* There may be a million of them. What is behind `generation` is tag.c's; others ask soft_tag_length and so on. */
struct soft_tag {
	uint64_t serial;
	uint64_t iova;
	uint32_t local_token, remote_token;   /* 0: none */
	uint32_t generation;
	uint32_t home : 24;     /* its place */
	uint32_t used : 1;      /* there is a soft_use, or was one */
	uint32_t length, page;  /* in a shared home; the offset is so many pages, and what iova is into one */
};
_Static_assert(sizeof(struct soft_tag) == 40, "with three places in indexes a tag stays below 64 bytes");

struct soft_tags;
struct soft_home;
/* Those of one stream, for as long as it lives: embedded by the stream, kept by tag.c. */
LIST_HEAD(soft_windows, soft_home);

struct soft_tags_stats {
	uint64_t memories, tags, quarantined;
};

/* What a stream may name: the tags of its PD, or only those of these doors (its grant list); and its own windows. */
struct soft_scope {
	uint64_t pd;
	uint64_t stream;        /* its number */
	bool by_grant;
	unsigned n_grants;
	uint64_t grants[4];     /* serials of exports */
};

enum soft_access { SOFT_REMOTE_READ, SOFT_REMOTE_WRITE, SOFT_LOCAL_READ, SOFT_LOCAL_WRITE };

/* `random` and `now` (ns) are handed in, so that a test can draw from a small space and turn the clock. */
struct soft_tags *soft_tags_new(void (*random)(void *buf, size_t len), uint64_t (*now)(void));
void soft_tags_free(struct soft_tags *tags);   /* drops everything */
/*
 * Drops everything, cutting whoever is in the middle of it; what is large is unmapped by soft_memory_step. In steps, none of which takes
 * long (true: there is more; no tag may be added meanwhile), or at once.
 */
bool soft_tags_reset_step(struct soft_tags *tags);
void soft_tags_reset(struct soft_tags *tags);
void soft_tags_stats(const struct soft_tags *tags, struct soft_tags_stats *ret);

/* Maps a duplicate of fd (borrowed). Said again: success. MEMORY_MAP. */
int soft_memory_attach(struct soft_tags *tags, uint64_t serial, int fd, uint64_t size, bool writable, struct nicd_error *err);
/* At most so many mappings, those that are still being unmapped included; above that attach says DEVICE_MAPPINGS. 0, as at first: no limit. */
void soft_memories_limit(struct soft_tags *tags, uint32_t max);
/* Starts unmapping; `done` when nothing is mapped any more (inline for small ones; others in pieces by soft_memory_step). DEVICE_BUSY. */
int soft_memory_detach(struct soft_tags *tags, uint64_t serial, void (*done)(void *userdata), void *userdata, struct nicd_error *err);
/* Unmaps a piece, or populates one ahead of its first use (well below 1 ms); true: call again soon. */
bool soft_memory_step(struct soft_tags *tags);
struct soft_memory *soft_memory_find(struct soft_tags *tags, uint64_t serial);

struct soft_tag_terms {
	uint64_t serial;
	uint32_t generation, rights;
	uint64_t pd, door, iova, length;
	uint64_t stream;                /* a window: for the peer of this stream alone, with no local token, */
	struct soft_windows *windows;   /* and in its list; NULL: no window */
	bool reserve;                   /* tokens and nothing else */
	uint32_t n_ranges;
	struct {
		uint64_t memory, offset, length;
	} ranges[NICD_RANGES];
};
/*
 * Checks all ranges again (a device trusts nobody). Same serial and generation: the tag there is. One that is reserved has both tokens, which
 * nobody else is given, and which are unknown to every access.
 */
int soft_tag_add(struct soft_tags *tags, const struct soft_tag_terms *terms, struct soft_tag **ret, struct nicd_error *err);
/* Cuts whoever is in the middle of it; afterwards no byte of it can be read or placed. Returns how many were cut. */
unsigned soft_tag_drop(struct soft_tags *tags, uint64_t serial, uint32_t generation);
/* So many, one after the other; `cut` gets what each would have returned. True: one of them is not 0. */
bool soft_tags_drop(struct soft_tags *tags, const uint64_t *serials, const uint32_t *generations, size_t n, uint32_t *cut);
/* The stream ends: drops its windows. */
void soft_windows_drop(struct soft_tags *tags, struct soft_windows *windows);
struct soft_tag *soft_tag_find(struct soft_tags *tags, uint64_t serial);
/* True: the 32-bit value is a live or quarantined token. Per-read sink STags must not be one. */
bool soft_token_taken(const struct soft_tags *tags, uint32_t token);

/*
 * The access check, the only way from a token to memory. All of the rights, inside the range without wrapping, in scope. Answers
 * NICD_R_NONE and *ret, or REMOTE_TOKEN, REMOTE_RANGE, REMOTE_RIGHTS, LOCAL_TOKEN, LOCAL_RANGE, LOCAL_RIGHTS. len 0 is checked like
 * any other length, except that its address may be one past the end.
 */
enum nicd_reason soft_tag_check(struct soft_tags *tags, const struct soft_scope *scope, uint32_t token, uint64_t addr,
				uint64_t len, enum soft_access access, struct soft_tag **ret);
/* What a peer with this scope may invalidate by this token; NULL: nothing. */
struct soft_tag *soft_tag_invalidatable(struct soft_tags *tags, const struct soft_scope *scope, uint32_t token);
/* The pieces of the mapping behind [addr, addr + len), at most `max`; returns how many, *covered the bytes in them. */
unsigned soft_tag_iov(const struct soft_tags *tags, const struct soft_tag *tag, uint64_t addr, uint64_t len, struct iovec *iov,
		      unsigned max, uint64_t *covered);
/* At most so many pieces. */
unsigned soft_tag_ranges(const struct soft_tags *tags, const struct soft_tag *tag);
uint64_t soft_tag_length(const struct soft_tags *tags, const struct soft_tag *tag);

void soft_use_begin(struct soft_tags *tags, struct soft_use *use, struct soft_tag *tag);
void soft_use_end(struct soft_use *use);       /* does nothing when not in use */

/* For List: the first of them with a serial above `after`, by serial. */
struct soft_memory *soft_memory_next(struct soft_tags *tags, uint64_t after);
/* The next one in an order of their own, which one that stays keeps; *cursor: where to go on, 0 from the start. NULL: no more. */
struct soft_tag *soft_tag_next(struct soft_tags *tags, uint64_t *cursor);
