/* SPDX-License-Identifier: MIT */
/*
 * Doors: exports and tickets. A door lives from its making until it was closed; between revocation and close it is listed, dead, and costs
 * its owner one DOORS. The device knows it as up to two things, a tag (exports) and the right to connect; `has_tag` and
 * `has_door` say which. Opening makes them in this order, revoking takes them away in the other one, whoever asks for it:
 *
 *   door_kill -> door_drop -> door_dropped (once or twice) -> door_dead
 *
 * When the device has confirmed that a door is shut, nobody who came by it can reach anything, and whoever waits for that is answered:
 * thousands of Qps end afterwards, in turns of nic_tick. A door that was closed meanwhile is freed with the last of them.
 *
 * `held` keeps a door while callbacks run that may close it.
 */
#include "nicd/door.h"

#include <assert.h>
#include <string.h>

#include "nicd/qp.h"
#include "proto/locator.h"

static void door_tagged(struct nic_cmd *cmd);
static void door_opened(struct nic_cmd *cmd);
static void door_dropped(struct nic_cmd *cmd);
static void door_deadline(struct nic_deadline *deadline);
static void door_drop(struct nic_export *door);

#define door_of(ptr, member) ((struct nic_export *)((char *)(ptr) - offsetof(struct nic_export, member)))

enum { EMPTIED_AT_ONCE = 64 };   /* Qps of a door that is shut; the rest by nic_tick */
enum { DEFAULT_STREAMS = 16, TICKET_TTL_MS = 60 * 1000, EXPORT_TTL_MS = 24 * 60 * 60 * 1000, TAG_GENERATION = 1 };

static int nic_export_compare(struct nic_export *a, struct nic_export *b)
{
	const struct nic_account *one = a->object.owner->account, *two = b->object.owner->account;

	if (one != two)
		return one < two ? -1 : 1;
	return strcmp(a->name, b->name);
}
RB_GENERATE(nic_names, nic_export, by_name, nic_export_compare)

const char *nic_door_state_name(enum nic_door_state state)
{
	static const char *const names[] = {
		[NIC_DOOR_OPENING] = "OPENING",
		[NIC_DOOR_OPEN] = "OPEN",
		[NIC_DOOR_EXPIRED] = "EXPIRED",
		[NIC_DOOR_CLOSING] = "CLOSING",
		[NIC_DOOR_DEAD] = "DEAD",
	};

	return names[state];
}

static struct nic *door_nic(const struct nic_export *door)
{
	return door->object.owner->nic;
}

/* ---- the end of a door */

static void door_free(struct nic_export *door)
{
	struct nic_env *env = door_nic(door)->env;

	if (door->named)
		RB_REMOVE(nic_names, &door_nic(door)->names, door);
	nic_charge_release(&door->charge);
	nic_charge_release(&door->charge_qps);
	nic_charge_release(&door->charge_pinned);
	if (door->name)
		env->free(env, door->name, strlen(door->name) + 1);
	explicit_bzero(door->ticket, sizeof(door->ticket));
	env->free(env, door, sizeof(*door));
}

/* Its close is over. Qps that are still to end know it by its memory only. */
static void door_end(struct nic_export *door)
{
	struct nic_owner *owner = door->object.owner;
	struct nic_pd *pd = door->pd;

	assert(door->state == NIC_DOOR_DEAD && !door->mr);
	if (!door->ended) {
		door->ended = true;
		nic_object_unlink(&door->object, owner->nic);
		nic_charge_release(&door->charge);
		nic_done_end(nic_done_steal(&door->closed), NULL);
	}
	if (door->emptying)
		return;
	assert(TAILQ_EMPTY(&door->qps));
	door_free(door);
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

static void door_hold(struct nic_export *door)
{
	door->held++;
}

static void door_let_go(struct nic_export *door)
{
	if (--door->held == 0 && door->closing && door->state == NIC_DOOR_DEAD)
		door_end(door);
}

/* ---- revoke */

/* The device holds nothing of it any more. */
static void door_dead(struct nic_export *door)
{
	struct nic *nic = door_nic(door);
	struct nic_mr *mr = door->mr;
	bool promised = door->revocation.promised;

	door_hold(door);
	door->state = NIC_DOOR_DEAD;
	nic_revocation_end(nic, &door->revocation);
	door->revocation.promised = false;
	nic_charge_release(&door->charge_qps);
	nic_charge_release(&door->charge_pinned);
	if (door->named)
		RB_REMOVE(nic_names, &nic->names, door);
	door->named = false;
	door->remote_token = 0;
	if (mr) {
		TAILQ_REMOVE(&mr->tenants->exports, door, of_mr);
		door->mr = NULL;
		nic_tenants_export_died(mr->tenants, door);
	}
	if (promised)
		nic_object_emit(&door->object, NIC_EVENT_REVOKE_CONFIRMED, door->object.serial, NULL);
	nic_done_end(nic_done_steal(&door->done), &door->failed);
	nic_done_end(nic_done_steal(&door->revoked), NULL);
	door_let_go(door);
}

/* A Qp counts with its windows, which all go in its turn; so a turn may be longer than its budget by those of one. */
static void door_empty(struct nic_export *door, unsigned budget)
{
	uint64_t spent = 0;
	struct nic *nic = door_nic(door);
	struct nicd_error why;
	struct nic_qp *qp;

	nicd_refuse(&why, NICD_R_REVOKED);
	while (spent < budget && (qp = TAILQ_FIRST(&door->qps))) {
		spent += nic_qp_weight(qp);
		nic_qp_leave_door(qp, &why);
	}
	if (door->emptying == !TAILQ_EMPTY(&door->qps))
		return;
	door->emptying = !door->emptying;
	if (door->emptying)
		TAILQ_INSERT_TAIL(&nic->shut, door, of_shut);
	else
		TAILQ_REMOVE(&nic->shut, door, of_shut);
}

bool nic_doors_empty(struct nic *nic, unsigned budget)
{
	struct nic_export *door = TAILQ_FIRST(&nic->shut);

	if (!door)
		return false;
	door_hold(door);
	door_empty(door, budget);
	door_let_go(door);
	return true;
}

/* Streams that the device did not report yet have ended all the same when it confirms that the door is shut. */
static void door_shut(struct nic_export *door)
{
	door->shut = true;
	door->grants += door->object.type == NIC_EXPORT ? door->streams : 0;
	door->streams = 0;
	door_hold(door);
	door_empty(door, EMPTIED_AT_ONCE);
	door->held--;   /* not dead yet, so there is nothing to end */
}

static void door_dropped(struct nic_cmd *cmd)
{
	struct nic_export *door = door_of(cmd, cmd);

	if (!nic_cmd_gone(cmd)) {   /* the deadline asks again */
		nic_revocation_keep(door_nic(door), &door->revocation);
		return;
	}
	if (cmd->error.reason == NICD_R_NONE)
		door->streams_cut += cmd->dropped.streams_cut;
	if (door->has_door) {
		door->has_door = false;
		door_shut(door);
	} else {
		door->has_tag = false;
	}
	door_drop(door);
}

static void door_drop(struct nic_export *door)
{
	nic_cmd_begin(&door->cmd, door_dropped);
	if (door->has_door)
		nic_adapter_door_drop(door->pd->adapter, door->object.serial, &door->cmd);
	else if (door->has_tag)
		nic_adapter_tag_drop(door->pd->adapter, door->object.serial, TAG_GENERATION, NULL, &door->cmd);
	else
		door_dead(door);
}

/* Begins its revocation; one that is opening goes on when the command under way ends. `why` NULL: the owner is not told. */
static void door_kill(struct nic_export *door, const struct nicd_error *why)
{
	bool opening = door->state == NIC_DOOR_OPENING;

	if (door->killed)
		return;
	door->killed = true;
	if (door->mr) {
		TAILQ_REMOVE(&door->mr->tenants->exports, door, of_mr);
		TAILQ_INSERT_TAIL(&door->mr->tenants->exports, door, of_mr);
	}
	nic_revocation_begin(door_nic(door), &door->revocation);
	if (opening)
		return;
	door->state = NIC_DOOR_CLOSING;
	if (why)
		nic_object_emit(&door->object, NIC_EVENT_REVOKED, door->object.serial, why);
	door_drop(door);
}

/* Not confirmed in time: answers who waits, and asks again if the device had refused. */
static void door_deadline(struct nic_deadline *deadline)
{
	struct nic_export *door = door_of(deadline, revocation.deadline);
	struct nic *nic = door_nic(door);
	struct nicd_error error;

	nic_revocation_late(nic, &door->revocation);
	door_hold(door);
	if (door->revoked) {
		error = nic_revocation_promise(&door->revocation);
		nic_done_end(nic_done_steal(&door->revoked), &error);
	}
	if (door->failed.reason != NICD_R_NONE)
		nic_done_end(nic_done_steal(&door->done), &door->failed);
	if (nic_revocation_again(nic, &door->revocation))
		door_drop(door);
	door_let_go(door);
}

int nic_door_revoke(struct nic_export *door, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	if (door->state == NIC_DOOR_DEAD)
		return nicd_refuse(err, NICD_R_DEAD);
	if (door->killed)
		return nicd_refuse(err, NICD_R_DEVICE_BUSY);
	door->revoked = done;
	door_kill(door, why);
	return 0;
}

void nic_door_kill(struct nic_export *door, struct nic_done *done)
{
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_REVOKED);
	if (door->state == NIC_DOOR_DEAD) {
		nic_done_end(done, NULL);
		return;
	}
	assert(!door->revoked || !done);
	if (done)
		door->revoked = done;
	door_kill(door, &why);
}

void nic_door_close(struct nic_export *door, struct nic_done *done)
{
	assert(!door->closed || !done);
	if (done)
		door->closed = done;
	if (door->closing)
		return;
	nic_object_unname(&door->object);
	door_hold(door);
	door->closing = true;
	door_kill(door, NULL);
	door_let_go(door);
}

void nic_door_lost(struct nic_export *door)
{
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_DEVICE_LOST);
	if (nic_revocation_hurry(&door->revocation)) {
		door_drop(door);
	} else if (door->state == NIC_DOOR_OPEN || door->state == NIC_DOOR_EXPIRED) {
		door_kill(door, &why);
	}
}

/* An export ends with its time; a ticket only lets nobody else in. */
static void door_expire(struct nic_export *door)
{
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_EXPIRED);
	door_hold(door);
	door->state = NIC_DOOR_EXPIRED;
	nic_object_emit(&door->object, NIC_EVENT_EXPIRED, door->object.serial, &why);
	if (door->object.type == NIC_EXPORT && door->state == NIC_DOOR_EXPIRED)
		door_kill(door, NULL);
	door_let_go(door);
}

static struct nic_export *door_find(struct nic_adapter *adapter, uint64_t serial)
{
	struct nic_object *object = nic_find(adapter->nic, NIC_EXPORT, serial);
	struct nic_export *door;

	if (!object)
		object = nic_find(adapter->nic, NIC_TICKET, serial);
	door = (struct nic_export *)object;
	return door && door->pd->adapter == adapter ? door : NULL;
}

void nic_door_expired(struct nic_adapter *adapter, uint64_t serial)
{
	struct nic_export *door = door_find(adapter, serial);

	if (door && door->state == NIC_DOOR_OPENING)
		door->expired = true;
	else if (door && door->state == NIC_DOOR_OPEN)
		door_expire(door);
}

/*
 * A peer that we have no memory to list must not stay unseen: its door is shut, which needs none. One more than the owner paid for is a
 * device's mistake, and ends at once.
 */
void nic_door_stream_opened(struct nic_adapter *adapter, uint64_t stream, uint64_t serial, const char *peer)
{
	struct nic_export *door = door_find(adapter, serial);
	struct nicd_error error;
	struct nic_qp *qp;

	if (!door || door->shut || door->state == NIC_DOOR_DEAD)
		return;
	if (nic_qp_accept(&qp, door, stream, peer, &error) < 0) {
		door_kill(door, &error);
		return;
	}
	if (door->uses_left > 0)
		door->uses_left--;
	if (door->streams > door->max_streams)
		nic_qp_close(qp, NULL);
	else
		nic_object_emit(&door->object, NIC_EVENT_CONNECTED, qp->object.serial, NULL);
}

/* ---- open */

static void door_open_failed(struct nic_export *door, const struct nicd_error *error)
{
	door_hold(door);
	door->failed = *error;
	nic_object_unname(&door->object);
	door->closing = true;
	if (!door->killed) {
		door->state = NIC_DOOR_CLOSING;
		door_kill(door, NULL);
	} else {
		door->state = NIC_DOOR_CLOSING;
		door_drop(door);
	}
	door_let_go(door);
}

/* True, and on its way out, when it was revoked, closed or lost while the device was busy with it. */
static bool door_overtaken(struct nic_export *door)
{
	struct nicd_error error;

	if (!door->killed && door->pd->adapter->provider->up)
		return false;
	nicd_refuse(&error, door->killed ? NICD_R_REVOKED : NICD_R_DEVICE_LOST);
	door_open_failed(door, &error);
	return true;
}

static void door_add(struct nic_export *door)
{
	struct nic_provider *provider = door->pd->adapter->provider;
	struct nic_door what = {
		.serial = door->object.serial,
		.pd = door->pd->object.serial,
		.door = door->object.type == NIC_EXPORT ? door->object.serial : 0,
		.uses = door->uses_left,
		.max_streams = door->max_streams,
		.ttl_ms = (uint32_t)((door->until_ns - door->since_ns) / 1000000),
	};

	locator_ticket_hash(door->ticket, what.hash);
	nic_door_grant(door, &what.grant);
	nic_cmd_begin(&door->cmd, door_opened);
	provider->ops->door_add(provider, &what, &door->cmd);
}

static void door_add_tag(struct nic_export *door)
{
	struct nic_provider *provider = door->pd->adapter->provider;
	struct nic_tag_range ranges[NICD_RANGES];
	struct nic_tag what = {
		.serial = door->object.serial,
		.generation = TAG_GENERATION,
		.rights = door->rights,
		.pd = door->pd->object.serial,
		.door = door->object.serial,
		.iova = door->iova,
		.length = door->length,
		.ranges = ranges,
	};

	what.n_ranges = nic_mr_tag_ranges(door->mr, door->iova - door->mr->iova, door->length, ranges);
	nic_cmd_begin(&door->cmd, door_tagged);
	provider->ops->tag_add(provider, &what, &door->cmd);
}

static void door_tagged(struct nic_cmd *cmd)
{
	struct nic_export *door = door_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (error.reason != NICD_R_NONE) {
		door_open_failed(door, &error);
		return;
	}
	door->has_tag = true;
	door->remote_token = cmd->tags.remote_token;
	if (!door_overtaken(door))
		door_add(door);
}

static void door_opened(struct nic_cmd *cmd)
{
	struct nic_export *door = door_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (error.reason != NICD_R_NONE) {
		door_open_failed(door, &error);
		return;
	}
	door->has_door = true;
	if (door_overtaken(door))
		return;
	door_hold(door);
	door->state = NIC_DOOR_OPEN;
	nic_done_end(nic_done_steal(&door->done), NULL);
	explicit_bzero(door->ticket, sizeof(door->ticket));
	if (door->expired && door->state == NIC_DOOR_OPEN)
		door_expire(door);
	door_let_go(door);
}

void nic_door_grant(const struct nic_export *door, struct nic_grant_info *ret)
{
	*ret = (struct nic_grant_info){
		.remote_token = door->remote_token,
		.rights = door->rights,
		.iova = door->iova,
		.length = door->length,
		.incarnation = door->pd->adapter->provider->incarnation,
	};
}

/* What both kinds need. On failure nothing is left. */
static int door_new(struct nic_export **ret, struct nic_mr *mr, enum nic_type type, const struct nic_door_terms *terms,
		    struct nicd_error *err)
{
	struct nic_owner *owner = mr->object.owner;
	struct nic_env *env = owner->nic->env;
	uint32_t ttl_ms = terms->ttl_ms ? terms->ttl_ms : type == NIC_EXPORT ? EXPORT_TTL_MS : TICKET_TTL_MS;
	uint32_t uses = terms->uses ? terms->uses : 1, streams = terms->max_streams ? terms->max_streams : DEFAULT_STREAMS;
	struct nic_export *door = env->alloc(env, sizeof(*door));
	int r;

	if (!door)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	door->object.owner = owner;
	door->pd = mr->pd;
	door->mr_serial = mr->object.serial;
	door->uses_left = uses;
	door->max_streams = streams < uses ? streams : uses;
	door->since_ns = env->wall(env);
	door->until_ns = door->since_ns + ttl_ms * UINT64_C(1000000);
	door->revocation.deadline.fn = door_deadline;
	TAILQ_INIT(&door->qps);
	env->random(env, door->ticket, sizeof(door->ticket));
	r = nic_charge(owner->account, &door->charge, NIC_SLOT_DOORS, 1, err);
	if (r == 0)
		r = nic_charge(owner->account, &door->charge_qps, NIC_SLOT_QPS, door->max_streams, err);
	if (r < 0) {
		door_free(door);
		return r;
	}
	*ret = door;
	return 0;
}

static int door_link(struct nic_export *door, enum nic_type type, struct nic_done *done, struct nicd_error *err)
{
	if (nic_object_link(&door->object, door_nic(door), door->object.owner, type, true) < 0)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	nic_pd_ref(door->pd);
	door->done = done;
	return 0;
}

int nic_ticket_new(struct nic_export **ret, struct nic_mr *mr, const struct nic_door_terms *terms, struct nic_done *done,
		   struct nicd_error *err)
{
	struct nic_export *door;
	int r;

	r = nic_life_check(NIC_KIND_NORMAL, mr->state, NIC_STEP_EXPORT, err);
	if (r < 0)
		return r;
	if (!nic_rights_remote(mr->rights))
		return nicd_refuse_at(err, NICD_R_NO_REMOTE_RIGHTS, NIC_REMOTE_READ, mr->rights);
	r = door_new(&door, mr, NIC_TICKET, terms, err);
	if (r < 0)
		return r;
	door->iova = mr->iova;
	door->length = mr->length;
	door->rights = nic_rights_of_peers(mr->rights);
	door->remote_token = mr->remote_token;
	r = door_link(door, NIC_TICKET, done, err);
	if (r < 0) {
		door_free(door);
		return r;
	}
	*ret = door;
	door_add(door);
	return 0;
}

static int export_check(const struct nic_mr *mr, const struct nic_door_terms *terms, struct nicd_error *err)
{
	uint32_t rights = terms->rights, all = NIC_REMOTE_READ | NIC_REMOTE_WRITE;
	bool inside = terms->offset < mr->length;
	uint64_t length = terms->length ? terms->length : inside ? mr->length - terms->offset : 0;
	int r = nic_life_check(NIC_KIND_NORMAL, mr->state, NIC_STEP_EXPORT, err);
	if (r < 0)
		return r;
	if (!nic_rights_remote(mr->rights))
		return nicd_refuse_at(err, NICD_R_NO_REMOTE_RIGHTS, NIC_REMOTE_READ, mr->rights);
	if ((rights & ~all) || !nic_rights_remote(rights) || !(rights & 0x4) != !(rights & NIC_LOCAL_WRITE))
		return nicd_refuse_at(err, NICD_R_FLAGS, all, rights);
	if (!nic_rights_has(mr->rights, rights))
		return nicd_refuse_at(err, NICD_R_RIGHTS_EXCEED, mr->rights, rights);
	if (length > UINT64_MAX - terms->offset)
		return nicd_refuse_at(err, NICD_R_RANGE_OVERFLOW, UINT64_MAX - terms->offset, length);
	if (!inside || !nic_range_ok(terms->offset, length, mr->length))
		return nicd_refuse_at(err, NICD_R_RANGE_BEYOND, mr->length, terms->offset + length);
	if (!terms->name || terms->name[0] == 0 || strnlen(terms->name, NICD_STRING + 1) > NICD_STRING)
		return nicd_refuse_at(err, NICD_R_STRING, NICD_STRING, terms->name ? strlen(terms->name) : 0);
	return 0;
}

static int export_name(struct nic_export *door, const char *name, struct nicd_error *err)
{
	struct nic_env *env = door_nic(door)->env;

	door->name = env->alloc(env, strlen(name) + 1);
	if (!door->name)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	strcpy(door->name, name);
	door->named = !RB_INSERT(nic_names, &door_nic(door)->names, door);
	return door->named ? 0 : nicd_refuse(err, NICD_R_NAME_TAKEN);
}

int nic_export_new(struct nic_export **ret, struct nic_mr *mr, const struct nic_door_terms *terms, struct nic_done *done,
		   struct nicd_error *err)
{
	struct nic_provider *provider = mr->pd->adapter->provider;
	struct nic_export *door;
	int r;

	r = export_check(mr, terms, err);
	if (r == 0)
		r = nic_mr_expect(mr, true, err);
	if (r == 0)
		r = door_new(&door, mr, NIC_EXPORT, terms, err);
	if (r < 0)
		return r;
	door->iova = mr->iova + terms->offset;
	door->length = terms->length ? terms->length : mr->length - terms->offset;
	door->rights = terms->rights;
	r = export_name(door, terms->name, err);
	if (r == 0)
		r = nic_charge(door->object.owner->account, &door->charge_pinned, NIC_SLOT_PINNED,
			       provider->ops->cost(provider, NIC_COST_TAG, door->length), err);
	if (r == 0)
		r = door_link(door, NIC_EXPORT, done, err);
	if (r < 0) {
		door_free(door);
		return r;
	}
	door->mr = mr;
	TAILQ_INSERT_HEAD(&mr->tenants->exports, door, of_mr);
	*ret = door;
	door_add_tag(door);
	return 0;
}
