/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Posted transfer lists, for nicd/soft's stream only. A list is queued on its stream, turned into frames by tx_work, confirmed
 * by the Read Responses that come back, and ends on the engine's list of news, from where `done` is called once.
 */
#include "nicd/soft/engine.h"
#include "nicd/soft/rdmap.h"

struct tx_cursor;
struct tx_frame;

struct work_entry {
	uint32_t local_token, remote_token, length;
	uint32_t mapping;                  /* place of the one that the privileged key opens; WORK_NOWHERE; 0: local_token counts */
	uint64_t local_addr, remote_addr;
};

struct soft_work {
	TAILQ_ENTRY(soft_work) next;       /* of the stream: posted, or ended and not told */
	enum nic_operation operation;
	uint32_t n_entries;
	uint32_t limit;                    /* entries to send: all, or those before the one that failed here */
	uint32_t confirmed;                /* entries that are done, from the first */
	struct nicd_error error;           /* of the entry at `limit`, or of the end */
	bool notify, solicited, invalidate, fence;
	bool privileged;                   /* it has entered mappings */
	bool is_turn;                      /* no list: something else is done when its turn comes, by `done` */
	uint32_t invalidate_token;
	uint8_t *inline_data;              /* behind the entries; NULL: the bytes are in the memory behind the local token */
	uint32_t msn;                      /* of its message, while `numbered`: once that is on the wire (0 is a number, too) */
	bool numbered;
	struct soft_completion completion; /* valid when ended */
	void (*done)(void *userdata, const struct nicd_error *error, const struct soft_completion *result);
	void *userdata;
	struct soft_stream *stream;        /* of a receive, and of a turn that waits */
	/* A receive. */
	struct soft_use use;               /* of its buffer */
	uint64_t tag;                      /* what its message invalidated */
	uint32_t generation;
	uint8_t entries[];
};
TAILQ_HEAD(soft_works, soft_work);

#define WORK_NOWHERE UINT32_MAX             /* the key was said, and no mapping is there */

void work_entry_get(const struct soft_work *work, uint32_t i, struct work_entry *ret);
/* NULL: out of memory, or too many entries. What it takes is copied. */
struct soft_work *work_new(const struct soft_post *what);
/*
 * Of work for this stream: where an entry names the privileged key of the PD, the mapping that it opens is entered, and the key is forgotten. Work
 * keeps its mappings until work_free.
 */
void work_enter_mappings(const struct soft_stream *s, struct soft_work *work);
void work_free(const struct soft_stream *s, struct soft_work *work);
/* The access check of an entry's local side. */
enum nicd_reason work_check(const struct soft_stream *s, const struct work_entry *e, uint64_t addr, uint64_t len, enum soft_access access,
			    struct soft_tag **ret);

/* Of what is done in the order of a stream's work. */
struct soft_work *work_new_turn(struct soft_stream *s, bool fence);
/* Has all that such a one would wait for been done? */
bool work_is_clear(const struct soft_stream *s, bool fence);
/*
 * True: what is next is such a one, and its turn has come. It is told before the stream goes on, which it must not do in this turn of its own.
 */
bool work_takes_turn(struct soft_stream *s);
/* Takes one that waits out of its queue, and frees it. False: its turn has come, or its stream has ended. */
bool work_forget_turn(struct soft_work *work);

enum tx_result { TX_FRAME, TX_NOTHING, TX_FAULT };
/* The next frame of posted work at this cursor. TX_FAULT: *why says what is wrong with the entry's local side. */
enum tx_result work_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame, enum nicd_reason *why);
/*
 * The initiator's first frame: an empty read. By it the responder knows that its reply has arrived, and by the answer we know that
 * the ticket is spent and the owner has been told; so whoever is connected is known on both sides.
 */
enum tx_result work_first_frame(struct soft_stream *s, const struct tx_cursor *at, struct tx_frame *frame);
/* The entry at the stream's cursor cannot go on. True: the stream goes on until what was posted before it is done. */
bool work_fault(struct soft_stream *s, enum nicd_reason why);

/* The oldest read in flight is complete: its bytes are placed. */
void work_confirm(struct soft_stream *s);
/* Ends lists whose entries are all confirmed. True: the list that failed here is next: the stream must end with *why. */
bool work_settle(struct soft_stream *s, struct nicd_error *why);

/* All posted lists end: what is on the wire with `begun`, what is not with FLUSHED. */
void work_lost(struct soft_stream *s, enum nicd_reason begun, int provider_error);
/* The same, and this entry is to blame, with *why. */
void work_blame(struct soft_stream *s, struct soft_work *work, uint32_t entry, bool inexact, const struct nicd_error *why);
/* The peer's Terminate ends all; *why is what it means. */
void work_terminated(struct soft_stream *s, const struct rdmap_terminate *terminate, struct nicd_error *why);
/* True: frames of posted work have been sent, even in part, and are not confirmed. */
bool work_on_wire(const struct soft_stream *s);
