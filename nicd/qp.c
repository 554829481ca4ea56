/* SPDX-License-Identifier: MIT */
/*
 * Queue pairs and grants. An outbound Qp lives from nic_qp_connect until its close ends (or its connecting fails); an inbound one from the
 * peer's coming until the peer is gone. Both wait for the work that is at the device. A grant lives as long as its Qp is
 * counted by an export.
 *
 * qp_settle decides what is next whenever something ended; `held` keeps a Qp while callbacks run that may close it.
 */
#include "nicd/qp.h"

#include <assert.h>
#include <string.h>

#include "nicd/mw.h"

static void qp_connected(struct nic_cmd *cmd);
static void qp_disconnected(struct nic_cmd *cmd);
static void qp_retry(struct nic_deadline *deadline);

#define qp_of(ptr, member) ((struct nic_qp *)((char *)(ptr) - offsetof(struct nic_qp, member)))

static int nic_qp_compare(struct nic_qp *a, struct nic_qp *b)
{
	return a->stream < b->stream ? -1 : a->stream > b->stream;
}
RB_GENERATE(nic_streams, nic_qp, by_stream, nic_qp_compare)

const char *nic_qp_state_name(enum nic_qp_state state)
{
	static const char *const names[] = {
		[NIC_QP_CONNECTING] = "CONNECTING",
		[NIC_QP_CONNECTED] = "CONNECTED",
		[NIC_QP_DISCONNECTING] = "DISCONNECTING",
		[NIC_QP_DISCONNECTED] = "DISCONNECTED",
	};

	return names[state];
}

static struct nic *qp_nic(const struct nic_qp *qp)
{
	return qp->object.owner->nic;
}

/* ---- making and ending */

static int qp_new(struct nic_qp **ret, struct nic_owner *owner, struct nic_pd *pd, struct nicd_error *err)
{
	struct nic_env *env = owner->nic->env;
	struct nic_qp *qp = env->alloc(env, sizeof(*qp));

	if (!qp)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	if (nic_object_link(&qp->object, owner->nic, owner, NIC_QP, true) < 0) {
		env->free(env, qp, sizeof(*qp));
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	qp->pd = pd;
	qp->stream = qp->object.serial;
	qp->since_ns = env->wall(env);
	qp->deadline.fn = qp_retry;
	TAILQ_INIT(&qp->windows);
	nic_pd_ref(pd);
	*ret = qp;
	return 0;
}

static void qp_enter_stream(struct nic_qp *qp, uint64_t stream)
{
	qp->stream = stream;
	qp->streaming = !RB_INSERT(nic_streams, &qp->pd->adapter->streams, qp);
}

static void qp_leave_stream(struct nic_qp *qp)
{
	if (qp->streaming)
		RB_REMOVE(nic_streams, &qp->pd->adapter->streams, qp);
	qp->streaming = false;
}

static void grant_end(struct nic_grant *grant)
{
	struct nic_owner *owner = grant->object.owner;
	struct nic_env *env = owner->nic->env;

	nic_object_unlink(&grant->object, owner->nic);
	env->free(env, grant, sizeof(*grant));
	nic_owner_leave(owner);
}

/* The door counts it no more, and its grant is over. */
static void qp_leave_door(struct nic_qp *qp)
{
	struct nic_export *door = qp->by_door;

	if (!door)
		return;
	qp->by_door = NULL;
	TAILQ_REMOVE(&door->qps, qp, of_door);
	if (!door->shut) {   /* else they were counted together */
		door->streams--;
		door->grants += qp->grant && door->killed;
	}
	if (qp->grant)
		grant_end(qp->grant);
	qp->grant = NULL;
}

/* `error`: of its connecting, answered to qp->done; then its close, if that was asked for. */
static void qp_end(struct nic_qp *qp, const struct nicd_error *error)
{
	struct nic_owner *owner = qp->object.owner;
	struct nic_env *env = owner->nic->env;
	struct nic_pd *pd = qp->pd;

	assert(qp->posted == 0 && qp->held == 0 && TAILQ_EMPTY(&qp->windows));
	nic_object_unname(&qp->object);
	qp_leave_stream(qp);
	qp_leave_door(qp);
	nic_deadline_disarm(owner->nic, &qp->deadline);
	nic_object_unlink(&qp->object, owner->nic);
	nic_charge_release(&qp->charge);
	nic_done_end(nic_done_steal(&qp->done), error);
	nic_done_end(nic_done_steal(&qp->closed), NULL);
	env->free(env, qp, sizeof(*qp));
	nic_pd_unref(pd);
	nic_owner_leave(owner);
}

static void qp_disconnect(struct nic_qp *qp)
{
	qp->state = NIC_QP_DISCONNECTING;
	nic_cmd_begin(&qp->cmd, qp_disconnected);
	nic_adapter_disconnect(qp->pd->adapter, qp->stream, &qp->cmd);
}

/* With the stream the device has dropped its windows, or drops what comes of those that are being bound. Held by the caller. */
static void qp_lose_windows(struct nic_qp *qp)
{
	struct nicd_error why;
	struct nic_mw *mw;

	nicd_refuse(&why, qp->why.reason == NICD_R_DEVICE_LOST ? NICD_R_DEVICE_LOST : NICD_R_QP_LOST);
	while ((mw = TAILQ_FIRST(&qp->windows)))
		nic_mw_qp_gone(mw, &why);
}

static void qp_set_disconnected(struct nic_qp *qp, const struct nicd_error *why)
{
	qp->state = NIC_QP_DISCONNECTED;
	if (why)
		qp->why = *why;
	qp_leave_stream(qp);
	qp_leave_door(qp);
	qp->held++;
	qp_lose_windows(qp);
	qp->held--;
}

/* Anything may have ended: goes on with what is next. The Qp may be gone afterwards. */
static void qp_settle(struct nic_qp *qp)
{
	const struct nicd_error revoked = { .reason = NICD_R_REVOKED };

	if (qp->held > 0)
		return;
	if (qp->state == NIC_QP_CONNECTED && qp->closing && nic_qp_is_cut(qp))
		qp_set_disconnected(qp, &revoked);
	if (qp->state == NIC_QP_CONNECTED && qp->closing && !qp->deadline.armed)
		qp_disconnect(qp);
	else if (qp->state == NIC_QP_DISCONNECTED && (qp->closing || qp->inbound) && qp->posted == 0)
		qp_end(qp, NULL);
}

/* The stream ended without our doing. */
static void qp_dropped(struct nic_qp *qp, const struct nicd_error *why)
{
	qp_set_disconnected(qp, why);
	qp->held++;
	nic_object_emit(&qp->object, NIC_EVENT_DISCONNECTED, qp->object.serial, why);
	qp->held--;
	qp_settle(qp);
}

/* ---- outbound */

int nic_qp_connect(struct nic_qp **ret, struct nic_pd *pd, const struct nic_connect_terms *terms, struct nic_done *done,
		   struct nicd_error *err)
{
	struct nic_provider *provider = pd->adapter->provider;
	struct nic_connect what = { .pd = pd->object.serial, .addr = terms->addr, .timeout_ms = terms->timeout_ms };
	struct nic_charge charge = { 0 };
	struct nic_qp *qp;
	int r;

	if (pd->closing)
		return nicd_refuse(err, NICD_R_HANDLE);
	if (!provider->up)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	r = nic_charge(pd->object.owner->account, &charge, NIC_SLOT_QPS, 1, err);
	if (r == 0)
		r = qp_new(&qp, pd->object.owner, pd, err);
	if (r < 0) {
		nic_charge_release(&charge);
		return r;
	}
	qp->charge = charge;
	qp->done = done;
	qp_enter_stream(qp, qp->object.serial);
	what.qp = qp->stream;
	memcpy(what.ticket, terms->ticket, sizeof(what.ticket));
	*ret = qp;
	nic_cmd_begin(&qp->cmd, qp_connected);
	provider->ops->qp_connect(provider, &what, &qp->cmd);
	explicit_bzero(what.ticket, sizeof(what.ticket));
	return 0;
}

static void qp_connected(struct nic_cmd *cmd)
{
	struct nic_qp *qp = qp_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (error.reason == NICD_R_NONE && !qp->pd->adapter->provider->up)
		nicd_refuse(&error, NICD_R_DEVICE_LOST);
	if (error.reason != NICD_R_NONE) {
		qp->state = NIC_QP_DISCONNECTED;
		if (qp->posted > 0)   /* its abort ends it */
			nic_done_end(nic_done_steal(&qp->done), &error);
		else
			qp_end(qp, &error);
		return;
	}
	qp->gives = cmd->connected.grant;
	memcpy(qp->peer, cmd->connected.peer, sizeof(qp->peer));
	qp->peer[sizeof(qp->peer) - 1] = 0;
	qp->since_ns = qp_nic(qp)->env->wall(qp_nic(qp)->env);
	/* Closed meanwhile: if its abort is still under way, that is the disconnection. */
	qp->state = qp->posted > 0 ? NIC_QP_DISCONNECTING : NIC_QP_CONNECTED;
	if (qp->closing)
		nicd_refuse(&error, NICD_R_FLUSHED);
	qp->held++;
	nic_done_end(nic_done_steal(&qp->done), &error);
	qp->held--;
	if (qp->gone && qp->state == NIC_QP_CONNECTED)
		qp_dropped(qp, &qp->why);
	else
		qp_settle(qp);
}

static void qp_disconnected(struct nic_cmd *cmd)
{
	struct nic_qp *qp = qp_of(cmd, cmd);
	struct nicd_error error = cmd->error;

	if (cmd->error.reason == NICD_R_NONE && cmd->stream.connected)
		qp->counters = cmd->stream.counters;
	if (nic_cmd_gone(cmd) || qp->gone) {
		error = (struct nicd_error){ 0 };
		qp_set_disconnected(qp, NULL);
	} else {
		nicd_refuse(&error, NICD_R_DEVICE_FAILED);
		error.provider_error = cmd->error.provider_error;
		error.observed = cmd->error.reason;
		qp->state = NIC_QP_CONNECTED;
		if (qp->closing)
			nic_deadline_arm(qp_nic(qp), &qp->deadline);
	}
	qp->held++;
	nic_done_end(nic_done_steal(&qp->done), &error);
	qp->held--;
	qp_settle(qp);
}

static void qp_retry(struct nic_deadline *deadline)
{
	qp_settle(qp_of(deadline, deadline));
}

int nic_qp_revoke(struct nic_qp *qp, const struct nicd_error *why, struct nic_done *done, struct nicd_error *err)
{
	if (nic_qp_state(qp) != NIC_QP_CONNECTED || qp->closing)
		return nicd_refuse_at(err, NICD_R_QP_STATE, NIC_QP_CONNECTED, nic_qp_state(qp));
	qp->done = done;
	qp->state = NIC_QP_DISCONNECTING;
	if (why)
		nic_object_emit(&qp->object, NIC_EVENT_REVOKED, qp->object.serial, why);
	qp_disconnect(qp);
	return 0;
}

int nic_qp_disconnect(struct nic_qp *qp, struct nic_done *done, struct nicd_error *err)
{
	return nic_qp_revoke(qp, NULL, done, err);
}

static void qp_aborted(struct nic_cmd *cmd)
{
	struct nic_qp *qp = qp_of(cmd, abort);

	qp->posted--;
	if (qp->state == NIC_QP_DISCONNECTING && (nic_cmd_gone(cmd) || qp->gone))
		qp_set_disconnected(qp, NULL);
	else if (qp->state == NIC_QP_DISCONNECTING)
		qp->state = NIC_QP_CONNECTED;
	qp_settle(qp);
}

/* A peer that does not answer must not hold what is closed until the time for connecting is over. */
static void qp_abort(struct nic_qp *qp)
{
	qp->posted++;
	nic_cmd_begin(&qp->abort, qp_aborted);
	nic_adapter_disconnect(qp->pd->adapter, qp->stream, &qp->abort);
}

void nic_qp_close(struct nic_qp *qp, struct nic_done *done)
{
	assert(!qp->closed || !done);
	if (done)
		qp->closed = done;
	if (qp->closing)
		return;
	qp->closing = true;
	nic_object_unname(&qp->object);
	if (qp->state == NIC_QP_CONNECTING)
		qp_abort(qp);
	else
		qp_settle(qp);
}

/* ---- inbound */

int nic_qp_accept(struct nic_qp **ret, struct nic_export *door, uint64_t stream, const char *peer, struct nicd_error *err)
{
	struct nic_owner *owner = door->object.owner;
	struct nic_env *env = owner->nic->env;
	struct nic_grant *grant = NULL;
	struct nic_qp *qp;

	if (door->object.type == NIC_EXPORT) {
		grant = env->alloc(env, sizeof(*grant));
		if (!grant)
			return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	if (qp_new(&qp, owner, door->pd, err) < 0) {
		if (grant)
			env->free(env, grant, sizeof(*grant));
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	qp->inbound = true;
	qp->state = NIC_QP_CONNECTED;
	qp->door = door->object.serial;
	qp->by_door = door;
	strncpy(qp->peer, peer, sizeof(qp->peer) - 1);
	qp_enter_stream(qp, stream);
	TAILQ_INSERT_TAIL(&door->qps, qp, of_door);
	door->streams++;
	if (grant) {
		grant->door = door;
		grant->qp = qp;
		grant->since_ns = qp->since_ns;
		nic_object_link(&grant->object, owner->nic, owner, NIC_GRANT, false);   /* cannot fail without a name */
		qp->grant = grant;
	}
	*ret = qp;
	return 0;
}

void nic_qp_leave_door(struct nic_qp *qp, const struct nicd_error *why)
{
	if (qp->state == NIC_QP_CONNECTED) {
		qp_dropped(qp, why);
	} else {   /* its disconnection is under way, and will find it gone */
		qp->gone = true;
		qp_leave_door(qp);
	}
}

void nic_qp_stream_closed(struct nic_adapter *adapter, uint64_t stream, const struct nicd_error *why,
			  const struct nic_counters *counters)
{
	struct nic_qp key = { .stream = stream };
	struct nic_qp *qp = RB_FIND(nic_streams, &adapter->streams, &key);

	if (!qp)
		return;
	qp->counters = *counters;
	if (qp->state == NIC_QP_CONNECTED) {
		qp_dropped(qp, why);
	} else {
		qp->gone = true;
		qp->why = *why;
	}
}

/* A door's owner hears how often its peers have notified, all together, and who was the last. */
void nic_qp_stream_notified(struct nic_adapter *adapter, uint64_t stream, uint64_t count)
{
	struct nic_qp key = { .stream = stream };
	struct nic_qp *qp = RB_FIND(nic_streams, &adapter->streams, &key);
	struct nic_export *door = qp ? qp->by_door : NULL;

	if (!door || door->shut || count <= qp->notified)
		return;
	door->notified += count - qp->notified;
	qp->notified = count;
	nic_object_emit(&door->object, NIC_EVENT_NOTIFIED, qp->object.serial, NULL);
}

void nic_qp_lost(struct nic_qp *qp)
{
	struct nicd_error why;

	nicd_refuse(&why, NICD_R_DEVICE_LOST);
	if (qp->state == NIC_QP_CONNECTED)
		qp_dropped(qp, &why);
}

/* ---- work */

/* The Qp outlives its work: its last answer goes out before the close's. */
static void work_end(struct nic_work *work, bool query, bool receive)
{
	struct nic_qp *qp = work->qp;
	struct nicd_error error = work->cmd.error;

	nic_charge_release(&work->charge);
	nic_done_end(work->done, &error);
	qp->queries -= query;
	qp->receives -= receive;
	qp->posted--;
	qp_settle(qp);
}

static struct nic_work *work_of(struct nic_cmd *cmd)
{
	return (struct nic_work *)((char *)cmd - offsetof(struct nic_work, cmd));
}

static void work_done(struct nic_cmd *cmd)
{
	work_end(work_of(cmd), false, false);
}

static void receive_done(struct nic_cmd *cmd)
{
	work_end(work_of(cmd), false, true);
}

static void query_done(struct nic_cmd *cmd)
{
	struct nic_work *work = work_of(cmd);

	if (cmd->error.reason == NICD_R_NONE)
		work->qp->counters = cmd->stream.counters;
	else if (cmd->error.reason == NICD_R_QP_STATE || cmd->error.reason == NICD_R_DEVICE_LOST)
		cmd->error = (struct nicd_error){ 0 };   /* it ended meanwhile: the last known ones */
	work_end(work, true, false);
}

/* Queries are none: the admin's List asks too, and must not fill somebody's Qp. */
static uint32_t work_count(const struct nic_qp *qp)
{
	return qp->posted - qp->queries - qp->receives;
}

bool nic_qp_is_half_full(const struct nic_qp *qp)
{
	return work_count(qp) >= NICD_QP_WORK / 2;
}

/*
 * May there be one more work request, or receive? Receives wait for others, and must not keep what would make those others send from being
 * posted.
 */
static int work_check(const struct nic_qp *qp, bool receive, struct nicd_error *err)
{
	uint32_t n = receive ? qp->receives : work_count(qp);
	uint32_t max = receive ? NICD_QP_RECEIVES : NICD_QP_WORK;

	if (nic_qp_state(qp) != NIC_QP_CONNECTED || qp->closing)
		return nicd_refuse_at(err, NICD_R_QP_STATE, NIC_QP_CONNECTED, nic_qp_state(qp));
	if (n >= max)
		return nicd_refuse_at(err, NICD_R_IN_FLIGHT, max, n + 1);
	return 0;
}

int nic_qp_begin_work(struct nic_qp *qp, const struct nic_pd *pd, struct nicd_error *err)
{
	int r;

	if (qp->pd != pd)
		return nicd_refuse(err, NICD_R_PD_MISMATCH);
	r = work_check(qp, false, err);
	qp->posted += r == 0;
	return r;
}

void nic_qp_end_work(struct nic_qp *qp)
{
	qp->posted--;
	qp_settle(qp);
}

/* `charge` becomes the work's, released before its answer. */
static void work_begin(struct nic_qp *qp, struct nic_work *work, const struct nic_charge *charge, struct nic_done *done,
		       void (*fn)(struct nic_cmd *cmd))
{
	nic_cmd_begin(&work->cmd, fn);
	work->qp = qp;
	work->done = done;
	work->charge = *charge;
	qp->posted++;
}

/* Entries are little-endian: u32, u32, u64, u64, u32 length, u32 zero. */
static uint32_t entry_u32(const uint8_t *entry, unsigned offset)
{
	return (uint32_t)entry[offset] | (uint32_t)entry[offset + 1] << 8 | (uint32_t)entry[offset + 2] << 16 |
	       (uint32_t)entry[offset + 3] << 24;
}

static int check_entries(const struct nic_provider *provider, const uint8_t *entries, size_t len, struct nicd_error *err)
{
	size_t max = (size_t)NICD_TRANSFER_ENTRIES * NICD_TRANSFER_ENTRY_SIZE;
	uint64_t total = 0;

	if (len == 0 || len > max || len % NICD_TRANSFER_ENTRY_SIZE != 0)
		return nicd_refuse_at(err, NICD_R_TRANSFER_ENTRIES, NICD_TRANSFER_ENTRIES, len / NICD_TRANSFER_ENTRY_SIZE);
	for (size_t i = 0; i < len; i += NICD_TRANSFER_ENTRY_SIZE) {
		if (entry_u32(entries + i, 28) != 0)
			return nicd_refuse_at(err, NICD_R_OP_FLAGS, 0, entry_u32(entries + i, 28));
		total += entry_u32(entries + i, 24);
	}
	if (provider->max_transfer > 0 && total > provider->max_transfer)
		return nicd_refuse_at(err, NICD_R_TRANSFER_LENGTH, provider->max_transfer, total);
	return 0;
}

/* Whoever sends bytes along says how many, twice. */
static int check_inline(const struct nic_request *request, struct nicd_error *err)
{
	uint32_t max = request->is_inline ? NICD_INLINE : 0;

	if (request->inline_len > max || (request->is_inline && request->inline_len != entry_u32(request->entries, 24)))
		return nicd_refuse_at(err, NICD_R_INLINE_LENGTH, max, request->inline_len);
	return 0;
}

int nic_qp_post(struct nic_qp *qp, const struct nic_request *request, struct nic_work *work, struct nic_done *done,
		struct nicd_error *err)
{
	struct nic_provider *provider = qp->pd->adapter->provider;
	bool receive = request->operation == NIC_RECEIVE;
	struct nic_post what = {
		.qp = qp->stream,
		.operation = request->operation,
		.entries = request->entries,
		.n_entries = (uint32_t)(request->len / NICD_TRANSFER_ENTRY_SIZE),
		.notify = request->notify,
		.solicited = request->solicited,
		.invalidate = request->invalidate,
		.invalidate_token = request->invalidate_token,
		.fence = request->fence,
		.is_inline = request->is_inline,
		.inline_data = request->inline_data,
	};
	struct nic_charge charge = { 0 };
	int r = check_entries(provider, request->entries, request->len, err);

	if (r == 0)
		r = check_inline(request, err);
	if (r == 0)
		r = work_check(qp, receive, err);
	if (r == 0)   /* the device keeps a copy until it is done */
		r = nic_charge(qp->object.owner->account, &charge, receive ? NIC_SLOT_RECEIVES : NIC_SLOT_BUFFERED,
			       receive ? 1 : request->len + request->inline_len, err);
	if (r < 0)
		return r;
	work_begin(qp, work, &charge, done, receive ? receive_done : work_done);
	qp->receives += receive;
	provider->ops->qp_post(provider, &what, &work->cmd);
	return 0;
}

int nic_qp_flush(struct nic_qp *qp, struct nic_work *work, struct nic_done *done, struct nicd_error *err)
{
	struct nic_provider *provider = qp->pd->adapter->provider;
	const struct nic_charge nothing = { 0 };
	int r = work_check(qp, false, err);

	if (r < 0)
		return r;
	work_begin(qp, work, &nothing, done, work_done);
	provider->ops->qp_flush(provider, qp->stream, &work->cmd);
	return 0;
}

int nic_qp_query(struct nic_qp *qp, struct nic_work *work, struct nic_done *done, struct nicd_error *err)
{
	struct nic_provider *provider = qp->pd->adapter->provider;
	const struct nic_charge nothing = { 0 };

	if (nic_qp_state(qp) != NIC_QP_CONNECTED || qp->closing) {
		nic_done_end(done, NULL);
		return 0;
	}
	work_begin(qp, work, &nothing, done, query_done);
	qp->queries++;
	provider->ops->qp_query(provider, qp->stream, &work->cmd);
	return 0;
}
