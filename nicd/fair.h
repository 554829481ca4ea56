/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A fair queue: work waits in the queues of those who pay for it, and whose turn it is is decided among them, not among
 * the pieces of work, so that one who brings sixty times as much waits sixty times as long and nobody else does.
 * Deficit round robin: each queue in turn gets a quantum to spend; what a piece cost is known when it is done, and who
 * has spent too much sits out.
 *
 * Besides it keeps windows: of each queue at most `share` pieces are in service at a time while others have some too,
 * and up to `full` when it is alone. Whoever was not alone is not at once so again: that takes as many pieces as the
 * full window holds.
 *
 * It holds pointers only, calls nobody and knows no clock. Queues and items are embedded by their owners, who may lock around it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct nic_fair_item {
	TAILQ_ENTRY(nic_fair_item) next;
	struct nic_fair_queue *queue;   /* NULL: does not wait */
};

enum nic_fair_state {
	NIC_FAIR_IDLE,     /* nothing waits */
	NIC_FAIR_RING,     /* waits for its turn */
	NIC_FAIR_PARKED,   /* its window is full: until something of it is done */
};

struct nic_fair_queue {
	TAILQ_ENTRY(nic_fair_queue) next;       /* in the ring */
	TAILQ_HEAD(, nic_fair_item) items;
	enum nic_fair_state state;
	uint32_t busy;                          /* in service */
	int64_t credit;
	bool over;                              /* its turn, as it left the ring */
	uint64_t round;                         /* a debt of an earlier one is forgiven */
};

struct nic_fair {
	TAILQ_HEAD(, nic_fair_queue) ring;
	uint32_t quantum, share, full;
	uint32_t active;                        /* queues that wait or are in service */
	uint32_t crowded;                       /* pieces until who is alone now counts as alone */
	uint64_t round;                         /* how often the ring was empty */
};

void nic_fair_init(struct nic_fair *fair, uint32_t quantum, uint32_t share, uint32_t full);
void nic_fair_queue_init(struct nic_fair_queue *queue);
/* Asserts that nothing waits and nothing is in service. */
void nic_fair_queue_deinit(struct nic_fair_queue *queue);

/* Waits behind the others of its queue. */
void nic_fair_add(struct nic_fair *fair, struct nic_fair_queue *queue, struct nic_fair_item *item);
/* Does not wait any more; nothing if it did not. */
void nic_fair_remove(struct nic_fair *fair, struct nic_fair_item *item);

/* The next piece, from now on in service; NULL: none waits that may. */
struct nic_fair_item *nic_fair_take(struct nic_fair *fair);
/* The same for a piece that has not waited: false: it must, because others of its queue do, or the window is full. */
bool nic_fair_enter(struct nic_fair *fair, struct nic_fair_queue *queue);
/* Would it? */
bool nic_fair_may_enter(const struct nic_fair *fair, const struct nic_fair_queue *queue);
/* A piece is done, and has cost so much besides the 1 that was spent for it when it was taken. */
void nic_fair_leave(struct nic_fair *fair, struct nic_fair_queue *queue, uint32_t more);

/* What may still be spent before another's turn comes, at least 1; without others there is no end. */
static inline uint32_t nic_fair_credit(const struct nic_fair *fair, const struct nic_fair_queue *queue)
{
	if (TAILQ_EMPTY(&fair->ring) || (TAILQ_FIRST(&fair->ring) == queue && !TAILQ_NEXT(queue, next)))
		return UINT32_MAX;
	return queue->credit > 0 ? (uint32_t)queue->credit : 1;
}
