/* SPDX-License-Identifier: MIT */
/*
 * Methods that end: Close of one's own objects by id, Revoke by serial of whatever one may see. A receipt is written when the device has
 * confirmed, for what a peer could reach.
 */
#include "daemon/method.h"

#include <errno.h>

#include "daemon/util.h"
#include "daemon/visible.h"
#include "nicd/mapping.h"
#include "nicd/mw.h"

static void close_memory(struct nic_object *object, struct nic_done *done)
{
	nic_memory_close(container_of(object, struct nic_memory, object), done);
}

static void close_pd(struct nic_object *object, struct nic_done *done)
{
	nic_pd_close(container_of(object, struct nic_pd, object), done);
}

static void close_mr(struct nic_object *object, struct nic_done *done)
{
	nic_region_close(object, done);
}

static void close_mw(struct nic_object *object, struct nic_done *done)
{
	nic_mw_close(container_of(object, struct nic_mw, object), done);
}

static void close_mapping(struct nic_object *object, struct nic_done *done)
{
	nic_mapping_close(container_of(object, struct nic_mapping, object), done);
}

static void close_qp(struct nic_object *object, struct nic_done *done)
{
	nic_qp_close(container_of(object, struct nic_qp, object), done);
}

static void close_door(struct nic_object *object, struct nic_done *done)
{
	nic_door_close(container_of(object, struct nic_export, object), done);
}

static void (*const closers[NIC_TYPE_COUNT])(struct nic_object *object, struct nic_done *done) = {
	[NIC_MEMORY] = close_memory,
	[NIC_PD] = close_pd,
	[NIC_MR] = close_mr,
	[NIC_MW] = close_mw,
	[NIC_MAPPING] = close_mapping,
	[NIC_QP] = close_qp,
	[NIC_TICKET] = close_door,
	[NIC_EXPORT] = close_door,
};

/* Could a peer reach memory by it until now? */
static bool end_was_reachable(const struct nic_object *object)
{
	if (object->type == NIC_TICKET || object->type == NIC_EXPORT)
		return true;
	if (object->type == NIC_MW)
		return container_of(object, struct nic_mw, object)->state != NIC_MW_FREE;
	if (object->type != NIC_MR)
		return false;
	return nic_rights_remote(nic_region(object).rights);
}

/* What its end did. MRs, windows and doors live until their end is answered; of a Qp only its serial is left. */
static void end_receipt(const struct call *call, struct answer *answer)
{
	struct nic_env *env = call->client->host->env;
	struct nic_receipt receipt = { .at_ns = env->wall(env) };
	const struct nic_export *door;
	const struct nic_mw *mw;

	switch (call->ended.type) {
	case NIC_MR:
		answer_receipt(answer, call->ended.serial, nic_mr_receipt(call->client->host->nic));
		return;
	case NIC_MW:
		mw = container_of(call->ended.object, struct nic_mw, object);
		receipt.at_ns = mw->at_ns;
		receipt.streams_cut = mw->streams_cut;
		break;
	case NIC_TICKET:
	case NIC_EXPORT:
		door = container_of(call->ended.object, struct nic_export, object);
		receipt.grants = door->grants;
		receipt.streams_cut = door->streams_cut;
		break;
	case NIC_QP:
	case NIC_GRANT:
		receipt.streams_cut = 1;
		break;
	case NIC_SESSION:
		receipt = call->ended.held;
		receipt.at_ns = env->wall(env);
		break;
	default:
		break;
	}
	answer_receipt(answer, call->ended.serial, &receipt);
}

static void end_remember(struct call *call, struct nic_object *object, bool receipt)
{
	call->ended.object = object;
	call->ended.type = object->type;
	call->ended.serial = object->serial;
	call->ended.receipt = receipt;
}

void method_end_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	if (call->ended.receipt)
		end_receipt(call, answer);
}

static bool close_is_deferred(const struct nic_object *object)
{
	return (object->type == NIC_MEMORY && container_of(object, struct nic_memory, object)->users) ||
	       (object->type == NIC_MAPPING && nic_mapping_busy(container_of(object, struct nic_mapping, object))) ||
	       (object->type == NIC_PD && container_of(object, struct nic_pd, object)->children) ||
	       (object->type == NIC_MR && nic_tenants_check(nic_region_tenants(object), NULL) < 0);
}

int method_close(struct request *request, struct call *call, struct nicd_error *err)
{
	struct nic_object *object = request->objects[0];
	int r;

	/* Adapters are everybody's. */
	if (!closers[object->type])
		return nicd_refuse_at(err, NICD_R_HANDLE_TYPE, NIC_NONE, object->type);
	end_remember(call, object, end_was_reachable(object));
	if (object->type == NIC_MR) {
		r = nic_region_prepare_close(object, err);
		if (r < 0)
			return r;
	}
	/* It may wait for what its client closes later, which must not wait for it. */
	if (close_is_deferred(object))
		call_unserve(call);
	closers[object->type](object, &call->done);
	return 0;
}

/* ---- Revoke */

static void revoke_late(struct call *call)
{
	call_answer(call, &(struct nicd_error){ .reason = NICD_R_REVOKE_UNCONFIRMED });
}

/* What ends with the session, as far as peers could reach it. QUOTA, NO_MEMORY. */
static int revoke_sum(struct call *call, const struct nic_owner *owner, struct nicd_error *err)
{
	struct nic_receipt *sum = &call->ended.held;
	const struct nic_object *object;

	*sum = (struct nic_receipt){ .exports = call_alloc(call, NIC_RECEIPT_EXPORTS * sizeof(*sum->exports), err) };
	if (!sum->exports)
		return -ENOMEM;
	TAILQ_FOREACH(object, &owner->objects[NIC_EXPORT], of_owner) {
		if (container_of(object, struct nic_export, object)->state == NIC_DOOR_DEAD)
			continue;
		if (sum->n_exports < NIC_RECEIPT_EXPORTS)
			sum->exports[sum->n_exports] = object->serial;
		sum->n_exports++;
	}
	TAILQ_FOREACH(object, &owner->objects[NIC_GRANT], of_owner)
		sum->grants += !nic_qp_is_cut(container_of(object, struct nic_grant, object)->qp);
	TAILQ_FOREACH(object, &owner->objects[NIC_QP], of_owner)
		sum->streams_cut += nic_qp_state(container_of(object, struct nic_qp, object)) == NIC_QP_CONNECTED;
	return 0;
}

/* Answered by client_free, when nothing of the session is at the device any more, or when that takes too long. */
static int revoke_session(struct call *call, struct client *session, struct nicd_error *err)
{
	struct client_host *host = session->host;
	int r = revoke_sum(call, &session->owner, err);

	if (r < 0)
		return r;
	if (call_sleeper(call, revoke_late) < 0)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	call->ended.object = NULL;
	call->ended.type = NIC_SESSION;
	call->ended.serial = session->serial;
	call->ended.receipt = true;
	call->idle = true;
	call->watched = session;
	TAILQ_INSERT_TAIL(&session->watchers, call, link);
	call_sleep(call, host->policy->revoke_timeout_ns);
	host->kick(session);
	return 0;
}

int method_revoke(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__Revoke *args = request->args;
	struct client_host *host = request->client->host;
	struct client *session = visible_session(request->client, args->serial);
	struct nic_object *object = visible_find(request->client, args->serial);
	int r;

	if (session) {
		r = revoke_session(call, session, err);
	} else if (object) {
		end_remember(call, object, true);
		r = nic_revoke(host->nic, object, &call->done, err);
	} else {
		return nicd_refuse_at(err, NICD_R_SERIAL, 0, args->serial);
	}
	if (r >= 0)
		host->log(host, request->client, request->method->name,
			  &(struct nicd_error){ .reason = NICD_R_NONE, .observed = args->serial });
	return r;
}
