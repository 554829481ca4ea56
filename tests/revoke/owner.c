/* SPDX-License-Identifier: MIT */
/*
 * A region's round: FREE -> REGISTERING -> LIVE, peers at it -> DYING -> answered: what is there is judged, filled
 * anew, and its end is told -> SETTLING until no peer is in the middle of it -> judged again -> FREE. Some settle for a
 * tenth of a second longer.
 *
 * What is asked is asked for at the worst moment: when a peer has begun a frame, or, in a quarter of the rounds, when
 * one is sending whole ones, or blindly.
 */
#include "owner.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "board.h"
#include "client/nicd.h"
#include "tokens.h"

enum { WRITE_REGION = 8192, READ_REGION = 200000, MARGIN = 1000, LINGER_ONE_IN = 256, BLIND_VISITS = 30, ENOUGH = 3 };

enum status { FREE, REGISTERING, LIVE, DYING, SETTLING };

struct region {
	struct owner *owner;
	struct board_slot *slot;
	uint8_t *bytes;                /* `length` of them; MARGIN and more before and behind */
	uint64_t offset, state;
	struct nicd_mr *mr;
	struct nicd_export *door;
	enum status status;
	unsigned plan, visits;
	uint64_t asked_ns, until_ns;
	struct nicd_receipt receipt;
	char name[32];
};

struct owner {
	const struct owner_terms *terms;
	struct owner_tally tally;
	struct nicd *n;
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *anchor;        /* what the ticket is made of; peers never touch it */
	struct nicd_ticket *ticket;
	struct board *board;
	struct tokens *tokens;
	struct region regions[BOARD_SLOTS];
	uint32_t length;
	uint64_t stride, started, random;
	pid_t peers[BOARD_PEERS];
	bool failed;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint32_t draw(struct owner *owner, uint32_t n)
{
	owner->random = owner->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(owner->random >> 33) % n;
}

static bool must(struct owner *owner, int r, const char *what)
{
	char text[512];

	if (r >= 0)
		return true;
	nicd_error_print(nicd_last_error(owner->n), text, sizeof(text));
	fprintf(stderr, "revoke: %s: %s\n", what, text);
	owner->failed = true;
	return false;
}

/* ---- judging */

static bool all_are(const uint8_t *p, size_t n, uint8_t byte)
{
	return n == 0 || (p[0] == byte && memcmp(p, p + 1, n - 1) == 0);
}

/* Until the answer: what was there, or what peers wrote. */
static void judge_live(struct region *region)
{
	struct owner_tally *tally = &region->owner->tally;
	uint8_t live = byte_live(region->state);
	size_t landed = 0, wrong = 0;

	for (size_t i = 0; i < region->owner->length; i++) {
		landed += region->bytes[i] >= BYTE_PEER;
		wrong += region->bytes[i] < BYTE_PEER && region->bytes[i] != live;
	}
	tally->landed += landed > 0;
	tally->outside += wrong;
}

/* Afterwards: nothing has come, here or beside it. */
static void judge_dead(struct region *region)
{
	struct owner *owner = region->owner;
	uint8_t *start = region->bytes - MARGIN;
	size_t behind = owner->stride - MARGIN - owner->length;

	if (!all_are(region->bytes, owner->length, byte_dead(region->state)) && owner->tally.changed++ == 0)
		fprintf(stderr, "revoke: a region changed after the answer, in round %llu\n", (unsigned long long)owner->tally.rounds);
	if (!all_are(start, MARGIN, BYTE_GUARD) || !all_are(region->bytes + owner->length, behind, BYTE_GUARD))
		owner->tally.outside++;
}

static unsigned peers_at(const struct region *region, enum board_phase least)
{
	const struct board *board = region->owner->board;
	uint32_t at = (uint32_t)(region->slot - board->slots) + 1;
	unsigned n = 0;

	for (unsigned i = 0; i < BOARD_PEERS; i++)
		n += atomic_load(&board->peers[i].at) == at && atomic_load(&board->peers[i].phase) >= least;
	return n;
}

/* ---- a round */

static void note_tokens(struct region *region, bool drawn)
{
	struct owner *owner = region->owner;
	const uint32_t of[] = {region->slot->token, owner->terms->exports ? 0 : nicd_mr_local_token(region->mr)};

	for (unsigned i = 0; i < 2; i++) {
		if (!drawn)
			tokens_released(owner->tokens, of[i], region->asked_ns);
		else if (!tokens_drawn(owner->tokens, of[i], now_ns()))
			owner->tally.redrawn++;
	}
}

static void on_registered(struct nicd *n, int error, void *userdata)
{
	struct region *region = userdata;
	struct owner *owner = region->owner;

	if (!must(owner, error, "registering"))
		return;
	if (owner->terms->exports) {
		const struct nicd_grant *grant = nicd_export_grant(region->door);

		region->slot->token = grant->remote_token;
		region->slot->iova = grant->iova;
		snprintf(region->slot->locator, sizeof(region->slot->locator), "%s", nicd_export_locator(region->door));
	} else {
		region->slot->token = nicd_mr_remote_token(region->mr);
		region->slot->iova = nicd_mr_iova(region->mr);
	}
	region->slot->length = owner->length;
	note_tokens(region, true);
	region->plan = draw(owner, 8);
	region->visits = 0;
	region->status = LIVE;
	board_tell(region->slot, ++region->state);
}

static struct nicd_mr_attr registration(const struct region *region)
{
	return (struct nicd_mr_attr){
		.size = sizeof(struct nicd_mr_attr), .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE,
		.buffer = region->owner->buffer, .offset = region->offset, .length = region->owner->length,
	};
}

static int start_export(struct region *region)
{
	struct nicd_export_attr attr = {
		.size = sizeof(attr), .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE, .name = region->name,
		.uses = 1000, .peers = BOARD_PEERS,
	};

	snprintf(region->name, sizeof(region->name), "round %llu", (unsigned long long)region->owner->started);
	return nicd_export_create_async(region->mr, &attr, &region->door, on_registered, region);
}

static int start_registration(struct region *region)
{
	struct nicd_mr_attr attr = registration(region);

	return nicd_mr_register_async(region->mr, &attr, on_registered, region);
}

static void round_start(struct region *region)
{
	struct owner *owner = region->owner;

	owner->started++;
	region->state = (region->state + 1) & ~UINT64_C(1);
	memset(region->bytes, byte_live(region->state + 1), owner->length);
	region->status = REGISTERING;
	must(owner, owner->terms->exports ? start_export(region) : start_registration(region), "registering");
}

static void on_closed(struct nicd *n, int error, void *userdata)
{
	must(userdata, error, "closing an export");
}

/* The answer is here: from now on nothing may change. */
static void on_revoked(struct nicd *n, int error, void *userdata)
{
	struct region *region = userdata;
	struct owner *owner = region->owner;
	struct owner_tally *tally = &owner->tally;

	if (!must(owner, error, "deregistering"))
		return;
	tally->rounds++;
	tally->raced += peers_at(region, PHASE_IN) > 0;
	tally->cut += region->receipt.streams_cut;
	judge_live(region);
	memset(region->bytes, byte_dead(region->state), owner->length);
	region->until_ns = draw(owner, LINGER_ONE_IN) == 0 ? now_ns() + 100000000 : 0;
	region->status = SETTLING;
	if (region->door && region->receipt.serial)
		must(owner, nicd_export_close_async(region->door, on_closed, owner), "closing an export");
	region->door = NULL;
	board_tell(region->slot, region->state + 1);
}

static void round_end(struct region *region)
{
	struct owner *owner = region->owner;
	int r;

	owner->tally.half += peers_at(region, PHASE_HALF) > 0;
	region->receipt = (struct nicd_receipt){.size = sizeof(region->receipt)};
	region->status = DYING;
	region->asked_ns = now_ns();
	note_tokens(region, false);
	if (!owner->terms->exports)
		r = nicd_mr_deregister_async(region->mr, &region->receipt, on_revoked, region);
	else if (region->plan % 2)
		r = nicd_revoke_async(owner->n, nicd_export_serial(region->door), &region->receipt, on_revoked, region);
	else
		r = nicd_export_close_async(region->door, on_revoked, region);
	must(owner, r, "deregistering");
}

/* Is it the moment? */
static bool is_ripe(struct region *region)
{
	if (peers_at(region, PHASE_HALF) > 0)
		return true;
	if (region->plan == 0)
		return ++region->visits > BLIND_VISITS;
	return region->plan == 1 && peers_at(region, PHASE_IN) > 0;
}

/* True: something was done. */
static bool region_step(struct region *region, bool more)
{
	switch (region->status) {
	case FREE:
		if (!more || region->owner->started == region->owner->terms->count)
			return false;
		round_start(region);
		return true;
	case LIVE:
		if (more && !is_ripe(region))
			return false;
		round_end(region);
		return true;
	case SETTLING:
		if (peers_at(region, PHASE_OUT) > 0 || (region->until_ns && now_ns() < region->until_ns))
			return false;
		judge_dead(region);
		region->status = FREE;
		return true;
	default:
		return false;
	}
}

static bool has_enough(const struct owner *owner)
{
	const struct owner_tally *tally = &owner->tally;
	uint64_t leaked = 0;

	for (unsigned i = 0; i < BOARD_PEERS; i++)
		leaked += owner->board->peers[i].leaked;
	return owner->terms->first && tally->changed + tally->outside + tally->redrawn + leaked >= ENOUGH;
}

static bool any_busy(const struct owner *owner)
{
	for (unsigned i = 0; i < BOARD_SLOTS; i++)
		if (owner->regions[i].status != FREE)
			return true;
	return false;
}

static void owner_loop(struct owner *owner)
{
	const struct timespec pause = {.tv_nsec = 100000};
	bool more = true;

	while (!owner->failed && (more || any_busy(owner))) {
		bool progress = false;
		int r = nicd_dispatch(owner->n, 0);

		if (!must(owner, r == -EINTR ? 0 : r, "dispatching"))
			return;
		more = more && owner->started < owner->terms->count && !has_enough(owner);
		for (unsigned i = 0; i < BOARD_SLOTS; i++)
			progress |= region_step(&owner->regions[i], more);
		if (!progress && !r) {
			struct pollfd p = {nicd_get_fd(owner->n), (short)nicd_get_events(owner->n), 0};

			ppoll(&p, 1, &pause, NULL);
		}
	}
}

/* ---- beginning and end */

/* Before the session: it must not be in their hands. */
static void peers_start(struct owner *owner)
{
	for (unsigned i = 0; i < BOARD_PEERS; i++) {
		owner->peers[i] = fork();
		if (owner->peers[i] == 0)
			hammer_run(owner->board, i);
		if (owner->peers[i] < 0)
			abort();
	}
}

static void peers_stop(struct owner *owner)
{
	struct owner_tally *tally = &owner->tally;
	int status;

	atomic_store(&owner->board->stop, 1);
	atomic_store(&owner->board->ready, 1);
	for (unsigned i = 0; i < BOARD_PEERS; i++) {
		const struct board_peer *peer = &owner->board->peers[i];

		if (waitpid(owner->peers[i], &status, 0) < 0 || status != 0) {
			fprintf(stderr, "revoke: peer %u ended with status 0x%x\n", i, (unsigned)status);
			owner->failed = true;
		}
		tally->connects += peer->connects;
		tally->shots += peer->shots;
		tally->stale += peer->stale;
		tally->answered += peer->answered;
		tally->leaked += peer->leaked;
		tally->read_bytes += peer->bytes;
	}
}

static bool region_init(struct owner *owner, unsigned i)
{
	struct region *region = &owner->regions[i];
	struct nicd_mr_attr attr;

	region->owner = owner;
	region->slot = &owner->board->slots[i];
	region->offset = i * owner->stride + MARGIN;
	region->bytes = (uint8_t *)nicd_buffer_address(owner->buffer) + region->offset;
	attr = registration(region);
	if (!must(owner, nicd_mr_create(owner->pd, &region->mr), "creating an MR"))
		return false;
	return !owner->terms->exports || must(owner, nicd_mr_register(region->mr, &attr), "registering");
}

static bool owner_open(struct owner *owner)
{
	struct nicd_open_attr open_attr = {.size = sizeof(open_attr), .socket = owner->terms->socket};
	struct nicd_mr_attr mr_attr = {.size = sizeof(mr_attr), .flags = NICD_MR_REMOTE_READ, .length = 4096};
	struct nicd_ticket_attr ticket_attr = {
		.size = sizeof(ticket_attr), .uses = UINT32_MAX, .ttl_ms = 24 * 3600 * 1000, .peers = 8 * BOARD_PEERS,
	};

	owner->length = owner->terms->reading ? READ_REGION : WRITE_REGION;
	owner->stride = (owner->length + 2 * MARGIN + 4095) & ~4095u;
	if (nicd_open(&owner->n, &open_attr) < 0) {
		fprintf(stderr, "revoke: there is no nicd at %s\n", owner->terms->socket);
		return false;
	}
	if (!must(owner, nicd_buffer_new(owner->n, owner->stride * BOARD_SLOTS + 4096, 0, &owner->buffer), "a buffer") ||
	    !must(owner, nicd_pd_create(owner->n, 0, &owner->pd), "a PD"))
		return false;
	memset(nicd_buffer_address(owner->buffer), BYTE_GUARD, nicd_buffer_size(owner->buffer));
	mr_attr.buffer = owner->buffer;
	mr_attr.offset = owner->stride * BOARD_SLOTS;
	if (!must(owner, nicd_mr_new(owner->pd, &mr_attr, &owner->anchor), "an MR") ||
	    !must(owner, nicd_ticket_create(owner->anchor, &ticket_attr, &owner->ticket), "a ticket"))
		return false;
	for (unsigned i = 0; i < BOARD_SLOTS; i++)
		if (!region_init(owner, i))
			return false;
	snprintf(owner->board->locator, sizeof(owner->board->locator), "%s", nicd_ticket_locator(owner->ticket));
	atomic_store(&owner->board->ready, 1);
	return true;
}

bool owner_run(const struct owner_terms *terms, struct owner_tally *ret)
{
	struct owner *owner = calloc(1, sizeof(*owner));
	uint64_t start = now_ns();
	bool ok;

	if (!owner)
		abort();
	owner->terms = terms;
	owner->random = 1;
	owner->board = board_new(terms->reading);
	owner->tokens = tokens_new(2 * terms->count);
	peers_start(owner);
	ok = owner_open(owner);
	if (ok)
		owner_loop(owner);
	peers_stop(owner);
	if (ok && !owner->failed)
		for (unsigned i = 0; i < BOARD_SLOTS; i++)
			if (owner->regions[i].state)
				judge_dead(&owner->regions[i]);
	ok = ok && !owner->failed;
	owner->tally.seconds = (double)(now_ns() - start) / 1e9;
	*ret = owner->tally;
	nicd_free(owner->n);
	tokens_free(owner->tokens);
	board_free(owner->board);
	free(owner);
	return ok;
}
