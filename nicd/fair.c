/* SPDX-License-Identifier: MIT */
/*
 * The ring holds the queues in which something waits and whose window has room; its first one is in turn. A queue
 * leaves it when it is empty or its window is full; a full window has pieces in service, and the end of one of them
 * brings it back.
 *
 * Whoever comes while others wait gets one quantum; what it spends too much stays its debt as long as the ring is never
 * empty, also while nothing of it waits, or bringing one costly piece after the other would be free.
 */
#include "nicd/fair.h"

#include <assert.h>
#include <stddef.h>

void nic_fair_init(struct nic_fair *fair, uint32_t quantum, uint32_t share, uint32_t full)
{
	assert(quantum && share && share <= full);
	*fair = (struct nic_fair){ .quantum = quantum, .share = share, .full = full, .round = 1 };
	TAILQ_INIT(&fair->ring);
}

void nic_fair_queue_init(struct nic_fair_queue *queue)
{
	*queue = (struct nic_fair_queue){ .state = NIC_FAIR_IDLE };
	TAILQ_INIT(&queue->items);
}

void nic_fair_queue_deinit(struct nic_fair_queue *queue)
{
	assert(TAILQ_EMPTY(&queue->items) && !queue->busy && queue->state == NIC_FAIR_IDLE);
}

static bool is_active(const struct nic_fair_queue *queue)
{
	return queue->busy || !TAILQ_EMPTY(&queue->items);
}

/* Whatever was done to the queue may have made it active, or made an end of that. */
static void count_active(struct nic_fair *fair, const struct nic_fair_queue *queue, bool was)
{
	bool is = is_active(queue);

	if (is && !was)
		fair->active++;
	else if (!is && was)
		fair->active--;
	if (fair->active > 1)
		fair->crowded = fair->full;
}

static bool has_room(const struct nic_fair *fair, const struct nic_fair_queue *queue)
{
	return queue->busy < (fair->crowded ? fair->share : fair->full);
}

/* ---- the ring */

/* Who brings one piece after the other leaves it each time: with something left to spend its turn is not over. */
static void ring_join(struct nic_fair *fair, struct nic_fair_queue *queue)
{
	bool same = queue->round == fair->round;

	if (!same)
		queue->credit = fair->quantum;
	queue->round = fair->round;
	queue->state = NIC_FAIR_RING;
	if (same && queue->credit > 0 && !queue->over)
		TAILQ_INSERT_HEAD(&fair->ring, queue, next);
	else
		TAILQ_INSERT_TAIL(&fair->ring, queue, next);
	queue->over = false;
}

static void ring_leave(struct nic_fair *fair, struct nic_fair_queue *queue, enum nic_fair_state state)
{
	if (queue->state == NIC_FAIR_RING) {
		TAILQ_REMOVE(&fair->ring, queue, next);
		/* Nobody is kept waiting: whoever owed something owes it to nobody. */
		if (TAILQ_EMPTY(&fair->ring))
			fair->round++;
	}
	queue->state = state;
}

/* Its turn is over: to the end of the ring, with another quantum. */
static void ring_pass(struct nic_fair *fair, struct nic_fair_queue *queue)
{
	queue->credit += fair->quantum;
	if (queue->state != NIC_FAIR_RING) {
		queue->over = true;
		return;
	}
	TAILQ_REMOVE(&fair->ring, queue, next);
	TAILQ_INSERT_TAIL(&fair->ring, queue, next);
}

/* Where the queue belongs now. */
static void ring_place(struct nic_fair *fair, struct nic_fair_queue *queue)
{
	if (TAILQ_EMPTY(&queue->items))
		ring_leave(fair, queue, NIC_FAIR_IDLE);
	else if (!has_room(fair, queue))
		ring_leave(fair, queue, NIC_FAIR_PARKED);
	else if (queue->state != NIC_FAIR_RING)
		ring_join(fair, queue);
}

/* Nobody is owed anything by who has not kept anybody waiting. */
static void spend(const struct nic_fair *fair, struct nic_fair_queue *queue, uint32_t n)
{
	if (queue->round == fair->round)
		queue->credit -= n;
}

/* ---- work */

void nic_fair_add(struct nic_fair *fair, struct nic_fair_queue *queue, struct nic_fair_item *item)
{
	bool was = is_active(queue);

	assert(!item->queue);
	item->queue = queue;
	TAILQ_INSERT_TAIL(&queue->items, item, next);
	count_active(fair, queue, was);
	ring_place(fair, queue);
}

void nic_fair_remove(struct nic_fair *fair, struct nic_fair_item *item)
{
	struct nic_fair_queue *queue = item->queue;

	if (!queue)
		return;
	item->queue = NULL;
	TAILQ_REMOVE(&queue->items, item, next);
	count_active(fair, queue, true);
	ring_place(fair, queue);
}

struct nic_fair_item *nic_fair_take(struct nic_fair *fair)
{
	struct nic_fair_queue *queue;
	struct nic_fair_item *item;

	while ((queue = TAILQ_FIRST(&fair->ring))) {
		/* Another may have come since it was put there. */
		if (!has_room(fair, queue)) {
			ring_leave(fair, queue, NIC_FAIR_PARKED);
			continue;
		}
		if (queue->credit > 0)
			break;
		ring_pass(fair, queue);
	}
	if (!queue)
		return NULL;
	item = TAILQ_FIRST(&queue->items);
	TAILQ_REMOVE(&queue->items, item, next);
	item->queue = NULL;
	queue->busy++;
	spend(fair, queue, 1);
	ring_place(fair, queue);
	if (queue->credit <= 0)
		ring_pass(fair, queue);
	return item;
}

bool nic_fair_may_enter(const struct nic_fair *fair, const struct nic_fair_queue *queue)
{
	return TAILQ_EMPTY(&queue->items) && has_room(fair, queue);
}

bool nic_fair_enter(struct nic_fair *fair, struct nic_fair_queue *queue)
{
	bool was = is_active(queue);

	if (!nic_fair_may_enter(fair, queue))
		return false;
	queue->busy++;
	spend(fair, queue, 1);
	count_active(fair, queue, was);
	return true;
}

void nic_fair_leave(struct nic_fair *fair, struct nic_fair_queue *queue, uint32_t more)
{
	assert(queue->busy);
	queue->busy--;
	spend(fair, queue, more);
	if (fair->crowded)
		fair->crowded--;
	count_active(fair, queue, true);
	ring_place(fair, queue);
}
