/* SPDX-License-Identifier: MIT */
/*
 * Answers: from objects and errors to the messages of the protocol. An answer is made, packed and forgotten within one call;
 * nothing here keeps anything.
 */
#include "daemon/answer.h"

#include <string.h>

#include "nicd/mapping.h"
#include "nicd/mw.h"

static char empty[] = "";

void answer_init(struct answer *answer, uint32_t request)
{
	nicd__reply__init(&answer->reply);
	answer->reply.id = request;
	answer->result = 0;
	answer->mem = NULL;
}

void answer_deinit(struct answer *answer)
{
	if (answer->mem)
		answer->env->free(answer->env, answer->mem, answer->mem_size);
	answer->mem = NULL;
	if (answer->reply.result_case == NICD__REPLY__RESULT_PRIVILEGED)
		explicit_bzero(&answer->privileged, sizeof(answer->privileged));
}

void *answer_alloc(struct answer *answer, struct nic_env *env, size_t size)
{
	answer->mem = env->alloc(env, size);
	answer->mem_size = size;
	answer->env = env;
	return answer->mem;
}

void answer_error(Nicd__Error *ret, const struct nicd_error *error)
{
	const struct nicd_reason_info *info = nicd_reason_info(error->reason);

	nicd__error__init(ret);
	ret->status = (Nicd__Status)info->status;
	ret->reason = info->reason;
	/* protobuf-c has no const strings; nothing writes to a message that is packed. */
	ret->name = (char *)info->name;
	ret->text = (char *)info->text;
	ret->cure = (char *)info->cure;
	ret->limit = error->limit;
	ret->observed = error->observed;
	ret->provider_error = error->provider_error;
}

void answer_refuse(struct answer *answer, const struct nicd_error *error)
{
	answer_error(&answer->error, error);
	answer->reply.error = &answer->error;
}

/* Of what policy gives an account and what the device has, 0 being no limit. */
static uint64_t smaller(uint64_t policy, uint64_t device)
{
	return device && device < policy ? device : policy;
}

static uint32_t yours(const struct nic_limits *limits, enum nic_slot slot, uint64_t device)
{
	uint64_t value = smaller(limits->max[slot], device);

	return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

void answer_fill_adapter(Nicd__AdapterInfo *info, const struct nic_adapter *adapter, const struct nic_owner *owner, char *text)
{
	const struct nic_provider *provider = adapter->provider;
	const struct nic_limits *limits = &owner->account->limits;

	nicd__adapter_info__init(info);
	info->id = adapter->object.id;
	info->serial = adapter->object.serial;
	info->name = (char *)provider->name;
	info->provider = (char *)provider->ops->name;
	info->incarnation = provider->incarnation;
	info->data_address = empty;
	if (provider->data_addr.ss_family) {
		locator_addr_print(&provider->data_addr, text);
		info->data_address = text;
	}
	info->flags = provider->adapter_flags;
	info->max_registration_size = provider->max_registration;
	info->max_window_size = provider->max_window;
	info->frmr_page_count = provider->frmr_pages;
	info->max_fast_pages = provider->max_fast_pages;
	info->max_inline = provider->max_inline;
	info->max_mr = yours(limits, NIC_SLOT_MRS, provider->max_mr);
	info->max_mw = provider->max_window ? yours(limits, NIC_SLOT_MWS, provider->max_mw) : 0;
	info->max_pd = yours(limits, NIC_SLOT_PDS, provider->max_pd);
	info->max_qp = yours(limits, NIC_SLOT_QPS, provider->max_qp);
	info->max_mappings = yours(limits, NIC_SLOT_MAPPINGS, 0);
	info->max_ranges = NICD_RANGES;
	info->max_transfer_entries = NICD_TRANSFER_ENTRIES;
	info->max_transfer_length = provider->max_transfer;
	info->max_inbound_read = provider->max_inbound_read;
	info->max_outbound_read = provider->max_outbound_read;
	info->max_pinned_bytes = smaller(limits->max[NIC_SLOT_PINNED], provider->max_pinned);
	info->device_max_mr = provider->max_mr;
	info->device_max_mw = provider->max_mw;
	info->device_max_pd = provider->max_pd;
	info->device_max_qp = provider->max_qp;
	info->device_max_pinned_bytes = provider->max_pinned;
	info->privileged_token = owner->privileged;
	info->up = provider->up;
}

void answer_adapter(struct answer *answer, const struct nic_adapter *adapter, const struct nic_owner *owner)
{
	answer_fill_adapter(&answer->adapter, adapter, owner, answer->text);
	answer->reply.adapter = &answer->adapter;
	answer->reply.result_case = NICD__REPLY__RESULT_ADAPTER;
	answer->result = answer->adapter.id;
}

void answer_memory(struct answer *answer, const struct nic_memory *memory)
{
	nicd__memory_info__init(&answer->memory);
	answer->memory.id = memory->object.id;
	answer->memory.serial = memory->object.serial;
	answer->memory.size = memory->facts.size;
	answer->memory.page_size = memory->facts.page_size;
	answer->memory.writable = memory->facts.writable;
	answer->reply.memory = &answer->memory;
	answer->reply.result_case = NICD__REPLY__RESULT_MEMORY;
	answer->result = memory->object.id;
}

void answer_object(struct answer *answer, const struct nic_object *object)
{
	nicd__object_info__init(&answer->object);
	answer->object.id = object->id;
	answer->object.serial = object->serial;
	answer->reply.object = &answer->object;
	answer->reply.result_case = NICD__REPLY__RESULT_OBJECT;
	answer->result = object->id;
}

static void mr_tokens(struct answer *answer, const struct nic_object *mr, uint32_t local, uint32_t remote, uint32_t generation)
{
	const struct nic_region region = nic_region(mr);

	nicd__mr_tokens__init(&answer->mr);
	answer->mr.id = mr->id;
	answer->mr.serial = mr->serial;
	answer->mr.local_token = local;
	answer->mr.remote_token = remote;
	answer->mr.iova = region.iova;
	answer->mr.length = region.length;
	answer->mr.flags = region.rights;
	answer->mr.generation = generation;
	answer->reply.mr = &answer->mr;
	answer->reply.result_case = NICD__REPLY__RESULT_MR;
	answer->result = mr->id;
}

void answer_mr(struct answer *answer, const struct nic_mr *mr)
{
	mr_tokens(answer, &mr->object, mr->local_token, nic_rights_remote(mr->rights) ? mr->remote_token : 0, mr->generation);
}

void answer_frmr(struct answer *answer, const struct nic_frmr *frmr)
{
	uint32_t local = 0, remote = 0;

	(void)nic_frmr_local_token(frmr, &local, NULL);
	(void)nic_frmr_remote_token(frmr, &remote, NULL);
	mr_tokens(answer, &frmr->object, local, remote, frmr->generation);
}

void answer_mw(struct answer *answer, const struct nic_mw *mw)
{
	nicd__mr_tokens__init(&answer->mr);
	answer->mr.id = mw->object.id;
	answer->mr.serial = mw->object.serial;
	answer->mr.remote_token = mw->remote_token;
	answer->mr.iova = mw->iova;
	answer->mr.length = mw->length;
	answer->mr.flags = mw->rights;
	answer->mr.generation = mw->generation;
	answer->reply.mr = &answer->mr;
	answer->reply.result_case = NICD__REPLY__RESULT_MR;
	answer->result = mw->object.id;
}

void answer_receipt(struct answer *answer, uint64_t serial, const struct nic_receipt *receipt)
{
	nicd__receipt__init(&answer->receipt);
	answer->receipt.serial = serial;
	answer->receipt.at_ns = receipt->at_ns;
	answer->receipt.streams_cut = receipt->streams_cut;
	answer->receipt.grants = receipt->grants;
	answer->receipt.n_exports = receipt->n_exports < NIC_RECEIPT_EXPORTS ? receipt->n_exports : NIC_RECEIPT_EXPORTS;
	answer->receipt.exports = receipt->exports;
	answer->reply.receipt = &answer->receipt;
	answer->reply.result_case = NICD__REPLY__RESULT_RECEIPT;
}

void answer_token(struct answer *answer, uint32_t token)
{
	answer->reply.token = token;
	answer->reply.result_case = NICD__REPLY__RESULT_TOKEN;
}

void answer_mapping(struct answer *answer, const struct nic_mapping *mapping)
{
	nicd__mapping_info__init(&answer->mapping);
	answer->mapping.id = mapping->object.id;
	answer->mapping.serial = mapping->object.serial;
	answer->mapping.logical_address = mapping->address;
	answer->mapping.length = mapping->length;
	answer->mapping.first_byte_offset = nic_mapping_first_byte(mapping);
	answer->mapping.pages = (uint32_t)nic_mapping_pages(mapping);
	answer->reply.mapping = &answer->mapping;
	answer->reply.result_case = NICD__REPLY__RESULT_MAPPING;
	answer->result = mapping->object.id;
}

void answer_privileged(struct answer *answer, struct nic_ptok token)
{
	nicd__privileged_token__init(&answer->privileged);
	answer->privileged.value = token.v;
	answer->reply.privileged = &answer->privileged;
	answer->reply.result_case = NICD__REPLY__RESULT_PRIVILEGED;
}

static void answer_grant(struct answer *answer, const struct nic_grant_info *grant)
{
	nicd__grant__init(&answer->grant);
	answer->grant.remote_token = grant->remote_token;
	answer->grant.iova = grant->iova;
	answer->grant.length = grant->length;
	answer->grant.flags = grant->rights;
	answer->grant.incarnation = grant->incarnation;
}

void answer_qp(struct answer *answer, const struct nic_qp *qp)
{
	Nicd__QpInfo *info = &answer->qp;

	nicd__qp_info__init(info);
	info->id = qp->object.id;
	info->serial = qp->object.serial;
	info->peer = (char *)qp->peer;
	if (!qp->inbound) {
		answer_grant(answer, &qp->gives);
		info->grant = &answer->grant;
	}
	info->bytes_read = qp->counters.bytes_read;
	info->bytes_written = qp->counters.bytes_written;
	info->peer_read = qp->counters.peer_read;
	info->peer_written = qp->counters.peer_written;
	info->connected = nic_qp_state(qp) == NIC_QP_CONNECTED;
	info->inbound = qp->inbound;
	info->door = qp->door;
	answer->reply.qp = info;
	answer->reply.result_case = NICD__REPLY__RESULT_QP;
	answer->result = qp->object.id;
}

void answer_completion(struct answer *answer, const struct nic_cmd *cmd)
{
	nicd__completion__init(&answer->completion);
	answer->completion.entries = cmd->completion.entries;
	answer->completion.bytes = cmd->completion.bytes;
	answer->completion.failed = cmd->completion.failed;
	answer->completion.inexact = cmd->completion.inexact;
	answer->completion.solicited = cmd->completion.solicited;
	answer->completion.invalidated = cmd->completion.invalidated;
	answer->completion.invalidated_token = cmd->completion.token;
	answer->reply.completion = &answer->completion;
	answer->reply.result_case = NICD__REPLY__RESULT_COMPLETION;
}

void answer_door(struct answer *answer, const struct nic_export *door)
{
	const struct nic_provider *provider = door->pd->adapter->provider;
	struct locator locator = { .addr = provider->data_addr, .has_grant = door->object.type == NIC_TICKET };
	struct nic_grant_info grant;

	nic_door_grant(door, &grant);
	memcpy(locator.ticket, door->ticket, sizeof(locator.ticket));
	locator.grant = (struct locator_grant){
		.remote_token = grant.remote_token,
		.rights = grant.rights,
		.iova = grant.iova,
		.length = grant.length,
		.incarnation = grant.incarnation,
	};
	locator_print(&locator, answer->text);
	explicit_bzero(&locator, sizeof(locator));
	answer_grant(answer, &grant);
	nicd__door_info__init(&answer->door);
	answer->door.id = door->object.id;
	answer->door.serial = door->object.serial;
	answer->door.locator = answer->text;
	answer->door.grant = &answer->grant;
	answer->reply.door = &answer->door;
	answer->reply.result_case = NICD__REPLY__RESULT_DOOR;
	answer->result = door->object.id;
}
