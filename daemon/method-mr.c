/* SPDX-License-Identifier: MIT */
/* Methods of memory regions: making, registering and deregistering them, and their tokens. */
#include "daemon/method.h"
#include "daemon/util.h"
#include "nicd/mw.h"

enum { QUERY_AHEAD = 32 };   /* ids of QueryTokens that are fetched into the cache */

/* Of the kind that the call is for. */
static int request_mr(const struct request *request, struct nic_mr **ret, struct nicd_error *err)
{
	*ret = nic_object_mr(request->objects[0]);
	return *ret ? 0 : nicd_refuse(err, NICD_R_MR_KIND);
}

int method_create_mr(struct request *request, struct answer *answer, struct nicd_error *err)
{
	const Nicd__CreateMr *args = request->args;
	struct nic_pd *pd = container_of(request->objects[0], struct nic_pd, object);
	struct nic_frmr *frmr;
	struct nic_mr *mr;
	int r;

	r = args->fast_register ? nic_frmr_new(&frmr, pd, err) : nic_mr_new(&mr, pd, err);
	if (r < 0)
		return r;
	answer_object(answer, args->fast_register ? &frmr->object : &mr->object);
	return 0;
}

/* The Memory of a descriptor that came with RegisterMr: nameless, so it goes with the registration that it is for. */
static int register_memory(struct request *request, struct nic_memory **ret, struct nicd_error *err)
{
	struct nic_memory_facts facts;
	int r;

	if (request->fd < 0)
		return 0;
	r = request->client->host->check_memory(request->fd, &facts, err);
	if (r < 0)
		return r;
	request->fd = -1;
	return nic_memory_new(ret, &request->client->owner, &facts, false, err);
}

static int register_ranges(const struct request *request, struct nic_memory *brought, struct nic_range *ranges,
			   struct nicd_error *err)
{
	const Nicd__RegisterMr *args = request->args;

	for (unsigned i = 0; i < args->n_ranges; i++) {
		ranges[i].memory = request->memories[i] ? request->memories[i] : brought;
		ranges[i].offset = args->ranges[i]->offset;
		ranges[i].length = args->ranges[i]->length;
		if (!ranges[i].memory)
			return nicd_refuse(err, NICD_R_HANDLE);
	}
	return 0;
}

int method_register_mr(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__RegisterMr *args = request->args;
	struct nic_memory *brought = NULL;
	struct nic_range ranges[NICD_RANGES];
	struct nic_register what = {
		.ranges = ranges,
		.n_ranges = (unsigned)args->n_ranges,
		.iova = args->iova,
		.length = args->length,
		.flags = args->flags,
	};
	int r;

	r = request_mr(request, &call->mr, err);
	if (r >= 0)
		r = register_memory(request, &brought, err);
	if (r < 0)
		return r;
	r = register_ranges(request, brought, ranges, err);
	if (r >= 0)
		r = nic_mr_register(call->mr, &what, &call->done, err);
	if (brought)
		nic_memory_close(brought, NULL);
	return r;
}

void method_register_mr_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_mr(answer, call->mr);
}

int method_deregister_mr(struct request *request, struct call *call, struct nicd_error *err)
{
	int r = request_mr(request, &call->mr, err);

	return r < 0 ? r : nic_mr_deregister(call->mr, &call->done, err);
}

void method_deregister_mr_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_receipt(answer, call->mr->object.serial, nic_mr_receipt(call->client->host->nic));
}

int method_get_local_token(struct request *request, struct answer *answer, struct nicd_error *err)
{
	uint32_t token;
	int r;

	r = nic_region_local_token(request->objects[0], &token, err);
	if (r < 0)
		return r;
	answer_token(answer, token);
	return 0;
}

int method_get_remote_token(struct request *request, struct answer *answer, struct nicd_error *err)
{
	struct nic_object *object = request->objects[0];
	uint32_t token;
	int r;

	if (object->type == NIC_MW)
		r = nic_mw_remote_token(container_of(object, struct nic_mw, object), &token, err);
	else if (object->type == NIC_MR)
		r = nic_region_remote_token(object, &token, err);
	else
		r = nicd_refuse_at(err, NICD_R_HANDLE_TYPE, NIC_MR, object->type);
	if (r < 0)
		return r;
	answer_token(answer, token);
	return 0;
}

/* A foreign, stale or tokenless id is 0 in both lists: with thousands of them no single one refuses the rest. */
static void query_token(struct client *client, uint64_t id, uint32_t *local, uint32_t *remote)
{
	struct nic_object *object = id >> 56 == NIC_MR ? nic_table_find(&client->owner.ids, id) : NULL;

	*local = *remote = 0;
	if (!object)
		return;
	(void)nic_region_local_token(object, local, NULL);
	(void)nic_region_remote_token(object, remote, NULL);
}

int method_query_tokens(struct request *request, struct answer *answer, struct nicd_error *err)
{
	const Nicd__QueryTokens *args = request->args;
	struct dispatch *dispatch = request->client->host->dispatch;
	const struct nic_table *ids = &request->client->owner.ids;

	if (!args->n_mrs || args->n_mrs > NICD_QUERY_IDS)
		return nicd_refuse_at(err, NICD_R_COUNT, NICD_QUERY_IDS, args->n_mrs);
	for (size_t i = 0; i < args->n_mrs; i++) {
		/* They may be anywhere in memory: fetched ahead, first the slots, then the MRs. */
		if (i + QUERY_AHEAD < args->n_mrs)
			nic_table_prefetch_slot(ids, args->mrs[i + QUERY_AHEAD]);
		if (i + QUERY_AHEAD / 2 < args->n_mrs)
			nic_table_prefetch_object(ids, args->mrs[i + QUERY_AHEAD / 2]);
		query_token(request->client, args->mrs[i], &dispatch->tokens[0][i], &dispatch->tokens[1][i]);
	}
	nicd__token_list__init(&answer->tokens);
	answer->tokens.n_local_tokens = answer->tokens.n_remote_tokens = args->n_mrs;
	answer->tokens.local_tokens = dispatch->tokens[0];
	answer->tokens.remote_tokens = dispatch->tokens[1];
	answer->reply.tokens = &answer->tokens;
	answer->reply.result_case = NICD__REPLY__RESULT_TOKENS;
	return 0;
}
