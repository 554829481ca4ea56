/* SPDX-License-Identifier: MIT */
/*
 * Commands to the device: each must be what some request, or the end of something, led to, and say what was asked for. Tokens are never in two
 * hands.
 */
#include <string.h>

#include "tests/sim/model-private.h"

static void token_new(struct model *m, const struct m_object *o, uint32_t token)
{
	if (!token)
		return;
	for (unsigned i = 0; i < m->n_live; i++) {
		const struct m_object *other = m->live[i];

		if (other != o && ((other->tag && (other->local == token || other->remote == token)) ||
				   (other->reserved && (other->reserved_local == token || other->reserved_remote == token))))
			sim_must(!model_on(other, o->parent->parent->adapter), "token %x of %llx is a living one of %llx", token,
				 (unsigned long long)o->serial, (unsigned long long)other->serial);
	}
	for (unsigned i = 0; i < m->n_released; i++)
		sim_must(m->released[i].token != token || m->released[i].adapter != o->parent->parent->adapter || m->now - m->released[i].at > UINT64_C(10000000000),
			 "token %x is drawn again in its quarantine", token);
}

void model_token_rests(struct model *m, int adapter, uint32_t token)
{
	if (!token)
		return;
	m->released[m->n_released % 4096].token = token;
	m->released[m->n_released % 4096].adapter = adapter;
	m->released[m->n_released % 4096].at = m->now;
	if (m->n_released < 4095)
		m->n_released++;
}

/* Rights that a device must know of: those with remote ones may be taken away by peers. */
static uint32_t rights_of(const struct m_object *o)
{
	return o->type == T_MW || (o->fast && model_remote_rights(o->rights)) ? o->rights | RIGHT_INVALIDATABLE : o->rights;
}

static void check_reservation(const struct m_object *o, const struct sim_op_args *args)
{
	sim_must(o->type == T_MR && o->state == M_INITIALIZING && !o->reserved, "tokens are reserved that nobody asked for");
	sim_must(args->pd == o->parent->serial && !args->door && !args->order && !args->only_qp, "tokens are reserved elsewhere");
	sim_must(!args->n_ranges && !args->rights && !args->length, "tokens that grant nothing are of something");
}

static void check_state(const struct m_object *o, const struct sim_op_args *args)
{
	enum m_state wanted = o->type == T_EXPORT ? M_OPENING : o->type == T_MW ? M_BIND_PENDING : o->fast ? M_VALID_PENDING : M_REGISTERING;

	sim_must(!o->tag, "a tag is added twice");
	sim_must(o->state == wanted && (o->type == T_EXPORT || args->generation > o->generation), "a tag that nobody asked for, or an old one");
	sim_must(args->only_qp == (o->type == T_MW), "a tag for other peers than asked for");
	if (o->type == T_MW || o->fast)
		sim_must(o->qp && args->order == o->qp->stream && args->fence == o->fence, "a tag in the order of other work than asked for");
	else
		sim_must(!args->order, "a tag as work of a Qp, and nobody asked for that");
}

static void check_tag(struct model *m, const struct m_object *o, int adapter, const struct sim_op_args *args)
{
	const struct m_object *mr = o->type == T_EXPORT || o->type == T_MW ? o->mr : o;
	uint64_t skip = mr == o ? 0 : o->iova - mr->iova, left = o->length;
	unsigned n = 0;

	check_state(o, args);
	sim_must(args->pd == o->parent->serial, "a tag in another PD");
	sim_must(args->door == (o->type == T_EXPORT ? o->serial : 0), "a tag behind another door");
	sim_must(args->rights == rights_of(o) && args->iova == o->iova && args->length == o->length, "a tag with other rights or another place");
	for (unsigned i = 0; i < mr->n_ranges && left; i++) {
		uint64_t part = mr->ranges[i].length;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part = part - skip < left ? part - skip : left;
		sim_must(n < args->n_ranges && args->ranges[n].memory == mr->ranges[i].memory->serial &&
			 args->ranges[n].offset == mr->ranges[i].offset + skip && args->ranges[n].length == part,
			 "a tag over other memory than asked for");
		sim_must(mr->ranges[i].memory->attached[adapter] == M_ATTACHED, "a tag over memory that the device does not have");
		left -= part;
		skip = 0;
		n++;
	}
	sim_must(n == args->n_ranges && !left, "a tag over other memory than asked for");
}

static void check_door(struct model *m, struct m_object *o, const struct sim_op_args *args)
{
	sim_must(o->state == M_OPENING && !o->door, "a door that nobody asked for");
	sim_must(args->pd == o->parent->serial && args->door == (o->type == T_EXPORT ? o->serial : 0), "a door to something else");
	sim_must(args->rights == o->rights && args->iova == o->iova && args->length == o->length, "a door gives something else");
	sim_must(args->max_streams == o->max_streams, "a door lets in %u, not %u", args->max_streams, o->max_streams);
	if (o->type == T_EXPORT)
		sim_must(args->token == o->remote && o->tag, "a door gives a token that is not its own");
	memcpy(o->hash, args->hash, sizeof(o->hash));
}

/* The Memory that came with a registration is seen here for the first time: its descriptor says which it is. */
static struct m_object *memory_of_attach(struct model *m, uint64_t serial, uint32_t fd)
{
	struct m_object *o = model_serial(m, serial);

	for (unsigned i = 0; i < m->n_live && !o; i++)
		if (m->live[i]->type == T_MEMORY && !m->live[i]->serial && m->live[i]->fd == fd)
			o = m->live[i];
	if (o)
		o->serial = serial;
	return o;
}

static struct m_object *object_of(struct model *m, enum sim_op op, int adapter, uint64_t serial, const struct sim_op_args *args)
{
	struct m_request *r = m->current;

	switch (op) {
	case OP_ATTACH:
		return memory_of_attach(m, serial, args->fd);
	case OP_POST:
	case OP_FLUSH:
	case OP_DISCONNECT:
	case OP_QUERY:
		return model_stream(m, adapter, serial);
	case OP_STATS:
		return NULL;
	case OP_TAG_ADD:
		if (args->reserve && r && r->object) {
			r->object->reservation = serial;
			return r->object;
		}
		break;
	case OP_TAG_DROP:
		for (unsigned i = 0; i < m->n_live; i++)
			if (m->live[i]->reservation == serial)
				return m->live[i];
		break;
	default:
		break;
	}
	/* What a request makes has no serial yet when the device first hears of it. */
	if (!model_serial(m, serial) && r && r->object && !r->object->serial) {
		r->object->serial = serial;
		r->object->stream = op == OP_CONNECT ? serial : 0;
	}
	return model_serial(m, serial);
}

/*
 * An Invalidate is work of a Qp; whatever else drops a tag waits for no work, and overtakes one that does. Of an Invalidate of a region the overtaken
 * one counts no more; of a window, and of what adds a tag, the overtaking one does not count.
 */
static void begin_drop(struct model *m, struct m_command *k, const struct sim_op_args *args)
{
	struct m_object *o = k->object;
	const struct m_request *r = m->current;

	if (k->reserve) {
		sim_must(o->closing || model_leaving(m, o), "tokens are not reserved any more for a region that has them");
		return;
	}
	if (r && r->say.call == CALL_INVALIDATE && r->object == o && !r->commands)
		sim_must(args->order == model_resolve(m, r, &r->say.ref[1])->stream && args->fence == o->fence, "invalidated in the order of other work");
	else
		sim_must(!args->order, "a revocation waits for work of a Qp");
	for (unsigned i = 0; i < m->n_commands; i++) {
		struct m_command *other = &m->commands[i];

		if (other == k || !other->live || other->object != o || other->aside || (other->op != OP_TAG_DROP && other->op != OP_TAG_ADD))
			continue;
		sim_must(other->qp && !k->aside, "a tag is dropped twice");
		k->aside = o->type == T_MW || other->op == OP_TAG_ADD;
		k->counts = o->state == M_INVALIDATING;
		if (!k->aside) {
			other->object = NULL;
			o->inflight--;
		}
	}
	/* Its session ends: that closes it. */
	o->killed |= model_leaving(m, o);
	if (model_leaving(m, o) && (o->state == M_BOUND || o->state == M_VALID || o->state == M_ERROR))
		model_invalidate(m, o);
	o->ordered = args->order;   /* an overtaken one needs no further one */
	sim_must(o->state == M_INVALIDATING || (k->aside && (o->closing || o->killed)) || model_leaving(m, o), "a tag is dropped that nobody revoked");
}

static void begin(struct model *m, struct m_command *k, const struct sim_op_args *args)
{
	struct m_object *o = k->object;

	switch (k->op) {
	case OP_ATTACH:
		sim_must(o->fd == args->fd, "memory is attached by the descriptor of another");
		sim_must(o->attached[k->adapter] == M_NOT_ATTACHED, "memory is attached twice");
		o->attached[k->adapter] = M_ATTACHING;
		break;
	case OP_DETACH:
		sim_must(o->attached[k->adapter] == M_ATTACHED || o->attached[k->adapter] == M_DETACH_FAILED, "memory is detached that is not there");
		sim_must(!model_memory_users(m, o) || model_leaving(m, o), "memory is detached under a region");
		o->attached[k->adapter] = M_DETACHING;
		break;
	case OP_TAG_ADD:
		if (k->reserve) {
			check_reservation(o, args);
			break;
		}
		check_tag(m, o, k->adapter, args);
		o->generation = args->generation;
		o->tag = true;   /* from now on somebody may use it */
		break;
	case OP_TAG_DROP:
		if (o->type == T_MW || o->fast) {
			begin_drop(m, k, args);
			break;
		}
		sim_must(!args->order, "a revocation waits for work of a Qp");
		for (unsigned i = 0; i < m->n_live; i++)
			sim_must(m->live[i]->mr != o || !m->live[i]->tag, "a region's tag is dropped while %llx stands on it",
				 (unsigned long long)m->live[i]->serial);
		sim_must(o->type == T_EXPORT || o->state == M_REVOKING || model_leaving(m, o), "a tag is dropped that nobody revoked");
		if (o->type == T_EXPORT)
			sim_must(o->killed || model_leaving(m, o), "an export's tag is dropped, and nobody revoked it");
		break;
	case OP_DOOR_ADD:
		check_door(m, o, args);
		o->door = true;
		break;
	case OP_DOOR_DROP:
		sim_must(o->killed || model_leaving(m, o), "a door is dropped that nobody revoked");
		break;
	case OP_DISCONNECT:
		if (o->state == M_CONNECTING) {
			k->abort = true;
			o->aborts++;
		} else {
			o->state = M_DISCONNECTING;
		}
		break;
	case OP_POST:
		model_post(m, k, args);
		break;
	case OP_FLUSH:
		o->works++;
		break;
	case OP_MAPPING_ADD:
		model_map(m, o, args);
		break;
	case OP_MAPPING_DROP:
		sim_must(o->tag && (o->closing || model_leaving(m, o)), "a mapping is dropped that nobody closed");
		for (unsigned i = 0; i < m->n_live; i++)
			sim_must(m->live[i]->mapping != o || model_leaving(m, o), "a mapping is dropped under a region");
		break;
	case OP_KEY_ADD:
		model_key(m, o, args);
		break;
	case OP_KEY_DROP:
		sim_must(o->tag && (o->closing || model_leaving(m, o)), "a privileged key is dropped whose PD is not closed");
		break;
	default:
		break;
	}
}

void model_command(struct model *m, int adapter, unsigned number, enum sim_op op, uint64_t serial, const struct sim_op_args *args)
{
	struct m_command *k = &m->commands[number];

	sim_must(number < MODEL_COMMANDS, "too many commands for the model");
	memset(k, 0, sizeof(*k));
	k->op = op;
	k->live = true;
	k->adapter = adapter;
	k->request = m->current;
	k->object = object_of(m, op, adapter, serial, args);
	if (number >= m->n_commands)
		m->n_commands = number + 1;
	sim_must(op == OP_STATS || k->object, "command %u on %llx, which is nothing that a client has", op, (unsigned long long)serial);
	k->account = k->object ? k->object->account : -1;
	sim_must(!m->adapters[adapter]->lost, "a command to a device that is gone");
	/* What the end of one thing leads to for another is nobody's request. */
	if (op == OP_TAG_DROP && k->request && k->request->object != k->object)
		k->request = NULL;
	k->reserve = k->object && (op == OP_TAG_ADD || op == OP_TAG_DROP) && k->object->reservation == serial;
	if (k->object) {
		begin(m, k, args);
		k->object->inflight++;
	}
	k->qp = args && args->order ? model_stream(m, adapter, args->order) : NULL;
	if (k->qp)
		k->qp->inflight++;
	if (k->request)
		k->request->commands++;
}

/* A lost device holds nothing: what was to be taken away from it is. */
bool model_let_go(uint32_t status)
{
	return status == S_SUCCESS || status == S_DEVICE_REMOVED;
}

static void end_tag_add(struct model *m, struct m_command *k, uint32_t status, uint32_t local, uint32_t remote)
{
	struct m_object *o = k->object;
	uint32_t verdict = 0;

	if (status == S_SUCCESS) {
		token_new(m, o, local);
		token_new(m, o, remote);
		sim_must(!local || local != remote, "the two tokens are one");
	}
	if (k->reserve) {
		model_reserved(m, o, status, local, remote);
		return;
	}
	o->tag = status == S_SUCCESS;
	if (o->type == T_MW)
		verdict = model_bound(m, o, status, remote);
	else if (o->fast)
		verdict = model_fast_registered(m, o, status, local, remote);
	else if (status == S_SUCCESS) {
		o->local = local;
		o->remote = remote;
	}
	o->verdict = verdict;
	if (o->type == T_EXPORT)
		model_end_door(m, o, status == S_SUCCESS);
	else if (status == S_SUCCESS && o->closing && o->state == M_REGISTERING)
		model_revoke_mr(m, o, false);
}

static void end_tag_drop(struct model *m, struct m_command *k, uint32_t status)
{
	struct m_object *o = k->object;
	bool gone = model_let_go(status);

	if (k->reserve) {
		o->stuck = !gone;
		o->reserved &= !gone;
		return;
	}
	if (gone && o->state != M_BIND_PENDING && o->state != M_VALID_PENDING)
		o->tag = false;
	o->left |= k->aside && k->counts && gone && o->state == M_INVALIDATING;
	/* Beside one that the device has refused it is the only one. */
	if (k->aside && (!k->counts || !gone || !o->stuck || o->inflight))
		return;
	o->stuck = !gone;
	o->let_go = gone;
	if (!gone && o->type == T_MR && !o->fast && !o->closing && !o->promised)
		o->state = M_ERROR;
	if (!gone && o->state == M_INVALIDATING && !o->closing && !model_leaving(m, o) && !o->promised && !o->killed)
		o->state = M_ERROR;
}

static void end(struct model *m, struct m_command *k, uint32_t status, uint32_t local, uint32_t remote)
{
	struct m_object *o = k->object;
	bool ok = status == S_SUCCESS;

	switch (k->op) {
	case OP_ATTACH:
		o->attached[k->adapter] = ok ? M_ATTACHED : M_NOT_ATTACHED;
		break;
	case OP_DETACH:
		o->attached[k->adapter] = model_let_go(status) ? M_NOT_ATTACHED : M_DETACH_FAILED;
		break;
	case OP_TAG_ADD:
		end_tag_add(m, k, status, local, remote);
		break;
	case OP_TAG_DROP:
		end_tag_drop(m, k, status);
		break;
	case OP_DOOR_ADD:
		o->door = ok;
		model_end_door(m, o, ok);
		if (!o->killed) {
			o->state = M_OPEN;
			if (o->expired) {
				o->state = M_EXPIRED;
				model_owe(m, o, EV_EXPIRED);
				if (o->type == T_EXPORT)
					model_kill_door(m, o, false);
			}
		}
		break;
	case OP_DOOR_DROP:
		o->stuck = !model_let_go(status);
		if (model_let_go(status)) {
			o->door = false;
			model_door_shut(m, o);
		}
		break;
	case OP_CONNECT:
		model_end_connect(m, o, ok);
		break;
	case OP_POST:
		model_unpost(m, k);
		break;
	case OP_FLUSH:
		o->works--;
		break;
	case OP_MAPPING_ADD:
		o->tag = ok && m->adapters[k->adapter]->up;
		break;
	case OP_KEY_ADD:
		sim_must(!ok || !o->key || o->key == local, "a PD has two privileged keys");
		o->key = ok ? local : o->key;
		break;
	case OP_MAPPING_DROP:
	case OP_KEY_DROP:
		o->stuck = !model_let_go(status);
		o->tag &= o->stuck;
		break;
	case OP_DISCONNECT:
		model_end_disconnect(m, k, status);
		break;
	default:
		break;
	}
}

void model_command_end(struct model *m, unsigned number, uint32_t status, uint32_t local, uint32_t remote)
{
	struct m_command *k = &m->commands[number];

	sim_must(k->live, "a command ends twice");
	k->live = false;
	m->current = k->request;
	if (k->request) {
		k->request->commands--;
		k->request->ended = BIT(status);
	}
	if (k->qp)
		k->qp->inflight--;
	if (k->op == OP_TAG_DROP && model_let_go(status)) {
		/* The tokens of a tag that is dropped rest, whatever the model thinks they are by now. */
		model_token_rests(m, k->adapter, local);
		model_token_rests(m, k->adapter, remote);
	}
	if (!k->object) {
		model_settle(m);
		return;
	}
	k->object->inflight--;
	end(m, k, status, local, remote);
	model_settle(m);
}

void model_command_over(struct model *m)
{
	m->current = NULL;
}
