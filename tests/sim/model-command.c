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

		if (other != o && other->tag && (other->local == token || other->remote == token))
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

static void check_tag(struct model *m, const struct m_object *o, int adapter, const struct sim_op_args *args)
{
	const struct m_object *mr = o->type == T_EXPORT ? o->mr : o;
	uint64_t skip = o->type == T_EXPORT ? o->iova - mr->iova : 0, left = o->length;
	unsigned n = 0;

	sim_must(!o->tag, "a tag is added twice");
	sim_must(args->pd == o->parent->serial, "a tag in another PD");
	sim_must(args->door == (o->type == T_EXPORT ? o->serial : 0), "a tag behind another door");
	sim_must(args->rights == o->rights && args->iova == o->iova && args->length == o->length, "a tag with other rights or another place");
	sim_must(o->type == T_EXPORT || (o->state == M_REGISTERING && args->generation > o->generation), "a tag that nobody asked for, or an old one");
	sim_must(o->type == T_MR || o->state == M_OPENING, "a tag for a door that is not opening");
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
		check_tag(m, o, k->adapter, args);
		o->generation = args->generation;
		o->tag = true;   /* from now on somebody may use it */
		break;
	case OP_TAG_DROP:
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
	if (k->object) {
		begin(m, k, args);
		k->object->inflight++;
	}
	if (k->request)
		k->request->commands++;
}

/* A lost device holds nothing: what was to be taken away from it is. */
bool model_let_go(uint32_t status)
{
	return status == S_SUCCESS || status == S_DEVICE_REMOVED;
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
		o->tag = ok;
		if (ok) {
			token_new(m, o, local);
			token_new(m, o, remote);
			sim_must(!local || local != remote, "the two tokens are one");
			o->local = local;
			o->remote = remote;
		}
		if (o->type == T_EXPORT)
			model_end_door(m, o, ok);
		else if (ok && o->closing)
			model_revoke_mr(m, o, false);
		break;
	case OP_TAG_DROP:
		o->stuck = !model_let_go(status);
		if (model_let_go(status)) {
			o->tag = false;
		} else if (o->type == T_MR && !o->closing && !o->promised) {
			o->state = M_ERROR;
		}
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
	if (!k->object)
		return;
	k->object->inflight--;
	if (k->op == OP_TAG_DROP && model_let_go(status) && k->object->tag) {
		/* The tokens of a tag that is dropped rest, whatever the model thinks they are by now. */
		model_token_rests(m, k->adapter, local);
		model_token_rests(m, k->adapter, remote);
	}
	end(m, k, status, local, remote);
	model_settle(m);
}

void model_command_over(struct model *m)
{
	m->current = NULL;
}
