/* SPDX-License-Identifier: MIT */
/* From the simulation's words to the protocol's bytes and back, with nothing but the generated code. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "nicd/account.h"
#include "proto/locator.h"
#include "proto/nicd.pb-c.h"
#include "tests/sim/world.h"

union args {
	ProtobufCMessage message;
	Nicd__Hello hello;
	Nicd__Resume resume;
	Nicd__QueryAdapter query_adapter;
	Nicd__QueryExtension query_extension;
	Nicd__AddMemory add_memory;
	Nicd__CreatePd create_pd;
	Nicd__GetPrivilegedToken get_privileged_token;
	Nicd__CreateMr create_mr;
	Nicd__RegisterMr register_mr;
	Nicd__DeregisterMr deregister_mr;
	Nicd__GetLocalToken get_local_token;
	Nicd__GetRemoteToken get_remote_token;
	Nicd__QueryTokens query_tokens;
	Nicd__InitializeFastRegister initialize_fast_register;
	Nicd__FastRegister fast_register;
	Nicd__Invalidate invalidate;
	Nicd__CreateMw create_mw;
	Nicd__BindMw bind_mw;
	Nicd__BuildMapping build_mapping;
	Nicd__ConnectQp connect_qp;
	Nicd__Read read;
	Nicd__Write write;
	Nicd__TransferList transfer_list;
	Nicd__Send send;
	Nicd__Receive receive;
	Nicd__Flush flush;
	Nicd__Disconnect disconnect;
	Nicd__QueryQp query_qp;
	Nicd__CreateTicket create_ticket;
	Nicd__CreateExport create_export;
	Nicd__Close close;
	Nicd__List list;
	Nicd__Who who;
	Nicd__Revoke revoke;
	Nicd__Ledger ledger;
};

/* What one frame is put together from; one at a time. */
static struct {
	Nicd__Request requests[64], *pointers[64];
	Nicd__Ref refs[64 * (SIM_RANGES + 3)];
	Nicd__Range ranges[64 * SIM_RANGES], *range_pointers[64 * SIM_RANGES];
	uint8_t entries[40000];
	union args args[64];
	unsigned n_refs, n_ranges;
} say;

static Nicd__Ref *encode_ref(const struct sim_ref *from)
{
	Nicd__Ref *ref = &say.refs[say.n_refs];

	if (from->kind == REF_ABSENT)
		return NULL;
	say.n_refs++;
	nicd__ref__init(ref);
	ref->of_case = from->kind == REF_ID ? NICD__REF__OF_ID : NICD__REF__OF_RESULT_OF;
	if (from->kind == REF_ID)
		ref->id = from->v;
	else
		ref->result_of = (uint32_t)from->v;
	return ref;
}

static Nicd__Range **encode_ranges(const struct sim_request *from)
{
	Nicd__Range **pointers = &say.range_pointers[say.n_ranges];

	for (unsigned i = 0; i < from->n_ranges; i++) {
		Nicd__Range *range = &say.ranges[say.n_ranges];

		nicd__range__init(range);
		range->memory = encode_ref(&from->ranges[i].memory);
		range->offset = from->ranges[i].offset;
		range->length = from->ranges[i].length;
		say.range_pointers[say.n_ranges++] = range;
	}
	return pointers;
}

/* ---- what calls have besides refs */

static ProtobufCBinaryData encode_bytes(uint32_t n)
{
	return (ProtobufCBinaryData){ .data = say.entries, .len = n };
}

static void fill_hello(const struct sim_request *from, union args *to)
{
	to->hello.major = from->major;
	to->hello.min_minor = from->minor;
	to->hello.client = (char *)from->text;
}

static void fill_create_mr(const struct sim_request *from, union args *to)
{
	to->create_mr.fast_register = from->fast;
}

static void fill_register_mr(const struct sim_request *from, union args *to)
{
	to->register_mr.n_ranges = from->n_ranges;
	to->register_mr.ranges = encode_ranges(from);
	to->register_mr.iova = from->iova;
	to->register_mr.length = from->length;
	to->register_mr.flags = from->flags;
}

static void fill_query_tokens(const struct sim_request *from, union args *to)
{
	to->query_tokens.n_mrs = from->n_ids;
	to->query_tokens.mrs = (uint64_t *)from->ids;
}

static void fill_initialize(const struct sim_request *from, union args *to)
{
	to->initialize_fast_register.adapter_page_count = from->pages;
	to->initialize_fast_register.remote_access = from->remote_access;
}

static void fill_fast_register(const struct sim_request *from, union args *to)
{
	to->fast_register.n_ranges = from->n_ranges;
	to->fast_register.ranges = encode_ranges(from);
	to->fast_register.first_byte_offset = (uint32_t)from->offset;
	to->fast_register.length = from->length;
	to->fast_register.iova = from->iova;
	to->fast_register.flags = from->flags;
}

static void fill_invalidate(const struct sim_request *from, union args *to)
{
	to->invalidate.flags = from->flags;
}

static void fill_bind(const struct sim_request *from, union args *to)
{
	to->bind_mw.iova = from->iova;
	to->bind_mw.length = from->length;
	to->bind_mw.flags = from->flags;
}

static void fill_build_mapping(const struct sim_request *from, union args *to)
{
	to->build_mapping.n_ranges = from->n_ranges;
	to->build_mapping.ranges = encode_ranges(from);
}

static void fill_connect_qp(const struct sim_request *from, union args *to)
{
	to->connect_qp.locator = (char *)from->text;
	to->connect_qp.timeout_ms = from->ttl_ms;
}

/* The fields of Write lie where those of Read do. */
static void fill_read(const struct sim_request *from, union args *to)
{
	to->read.local_token = from->local_token;
	to->read.local_addr = from->local_addr;
	to->read.remote_token = from->remote_token;
	to->read.remote_addr = from->remote_addr;
	to->read.length = (uint32_t)from->length;
	to->read.flags = from->flags;
}

static void fill_write(const struct sim_request *from, union args *to)
{
	fill_read(from, to);
	to->write.inline_data = encode_bytes(from->n_inline);
}

static void fill_transfer_list(const struct sim_request *from, union args *to)
{
	to->transfer_list.operation = (Nicd__TransferList__Operation)from->operation;
	to->transfer_list.flags = from->flags;
	to->transfer_list.entries = encode_bytes(from->n_bytes);
}

static void fill_send(const struct sim_request *from, union args *to)
{
	to->send.local_token = from->local_token;
	to->send.local_addr = from->local_addr;
	to->send.length = (uint32_t)from->length;
	to->send.flags = from->flags;
	to->send.invalidate_token = from->invalidate_token;
	to->send.inline_data = encode_bytes(from->n_inline);
}

static void fill_receive(const struct sim_request *from, union args *to)
{
	to->receive.local_token = from->local_token;
	to->receive.local_addr = from->local_addr;
	to->receive.length = (uint32_t)from->length;
}

static void fill_query_qp(const struct sim_request *from, union args *to)
{
	to->query_qp.serial = from->serial;
}

static void fill_ticket(const struct sim_request *from, union args *to)
{
	to->create_ticket.uses = from->uses;
	to->create_ticket.ttl_ms = from->ttl_ms;
	to->create_ticket.peers = from->peers;
}

static void fill_export(const struct sim_request *from, union args *to)
{
	to->create_export.name = (char *)from->text;
	to->create_export.offset = from->offset;
	to->create_export.length = from->length;
	to->create_export.flags = from->flags;
	to->create_export.uses = from->uses;
	to->create_export.ttl_ms = from->ttl_ms;
	to->create_export.peers = from->peers;
}

static void fill_list(const struct sim_request *from, union args *to)
{
	to->list.type = (Nicd__Type)from->type;
	to->list.cursor = from->cursor;
	to->list.max = from->max;
}

static void fill_who(const struct sim_request *from, union args *to)
{
	to->who.serial = from->serial;
	to->who.cursor = from->cursor;
}

static void fill_revoke(const struct sim_request *from, union args *to)
{
	to->revoke.serial = from->serial;
}

/* A call's message, where its refs are in it (0: it has no more), and the rest of it. */
#define ARGS(name) &nicd__##name##__descriptor
#define REF(name, field) offsetof(union args, name.field)
static const struct {
	const ProtobufCMessageDescriptor *descriptor;
	size_t refs[3];
	void (*fill)(const struct sim_request *from, union args *to);
} rows[CALL_COUNT] = {
	[CALL_HELLO] = { ARGS(hello), { 0 }, fill_hello },
	[CALL_RESUME] = { ARGS(resume), { 0 }, NULL },
	[CALL_QUERY_ADAPTER] = { ARGS(query_adapter), { REF(query_adapter, adapter) }, NULL },
	[CALL_QUERY_EXTENSION] = { ARGS(query_extension), { REF(query_extension, object) }, NULL },
	[CALL_ADD_MEMORY] = { ARGS(add_memory), { 0 }, NULL },
	[CALL_CREATE_PD] = { ARGS(create_pd), { REF(create_pd, adapter) }, NULL },
	[CALL_GET_PRIVILEGED_TOKEN] = { ARGS(get_privileged_token), { REF(get_privileged_token, pd) }, NULL },
	[CALL_CREATE_MR] = { ARGS(create_mr), { REF(create_mr, pd) }, fill_create_mr },
	[CALL_REGISTER_MR] = { ARGS(register_mr), { REF(register_mr, mr) }, fill_register_mr },
	[CALL_DEREGISTER_MR] = { ARGS(deregister_mr), { REF(deregister_mr, mr) }, NULL },
	[CALL_GET_LOCAL_TOKEN] = { ARGS(get_local_token), { REF(get_local_token, mr) }, NULL },
	[CALL_GET_REMOTE_TOKEN] = { ARGS(get_remote_token), { REF(get_remote_token, mr) }, NULL },
	[CALL_QUERY_TOKENS] = { ARGS(query_tokens), { 0 }, fill_query_tokens },
	[CALL_INITIALIZE_FAST_REGISTER] = { ARGS(initialize_fast_register), { REF(initialize_fast_register, mr) }, fill_initialize },
	[CALL_FAST_REGISTER] = { ARGS(fast_register), { REF(fast_register, mr), REF(fast_register, qp), REF(fast_register, mapping) },
				 fill_fast_register },
	[CALL_INVALIDATE] = { ARGS(invalidate), { REF(invalidate, object), REF(invalidate, qp) }, fill_invalidate },
	[CALL_CREATE_MW] = { ARGS(create_mw), { REF(create_mw, pd) }, NULL },
	[CALL_BIND_MW] = { ARGS(bind_mw), { REF(bind_mw, mw), REF(bind_mw, mr), REF(bind_mw, qp) }, fill_bind },
	[CALL_BUILD_MAPPING] = { ARGS(build_mapping), { 0 }, fill_build_mapping },
	[CALL_CONNECT_QP] = { ARGS(connect_qp), { REF(connect_qp, pd) }, fill_connect_qp },
	[CALL_READ] = { ARGS(read), { REF(read, qp) }, fill_read },
	[CALL_WRITE] = { ARGS(write), { REF(write, qp) }, fill_write },
	[CALL_TRANSFER_LIST] = { ARGS(transfer_list), { REF(transfer_list, qp) }, fill_transfer_list },
	[CALL_SEND] = { ARGS(send), { REF(send, qp) }, fill_send },
	[CALL_RECEIVE] = { ARGS(receive), { REF(receive, qp) }, fill_receive },
	[CALL_FLUSH] = { ARGS(flush), { REF(flush, qp) }, NULL },
	[CALL_DISCONNECT] = { ARGS(disconnect), { REF(disconnect, qp) }, NULL },
	[CALL_QUERY_QP] = { ARGS(query_qp), { REF(query_qp, qp) }, fill_query_qp },
	[CALL_CREATE_TICKET] = { ARGS(create_ticket), { REF(create_ticket, mr) }, fill_ticket },
	[CALL_CREATE_EXPORT] = { ARGS(create_export), { REF(create_export, mr) }, fill_export },
	[CALL_CLOSE] = { ARGS(close), { REF(close, object) }, NULL },
	[CALL_LIST] = { ARGS(list), { 0 }, fill_list },
	[CALL_WHO] = { ARGS(who), { 0 }, fill_who },
	[CALL_REVOKE] = { ARGS(revoke), { 0 }, fill_revoke },
	[CALL_LEDGER] = { ARGS(ledger), { 0 }, NULL },
};

static void encode_args(const struct sim_request *from, union args *to)
{
	protobuf_c_message_init(rows[from->call].descriptor, to);
	for (unsigned i = 0; i < 3 && rows[from->call].refs[i]; i++) {
		Nicd__Ref *ref = encode_ref(&from->ref[i]);

		memcpy((char *)to + rows[from->call].refs[i], &ref, sizeof(ref));
	}
	if (rows[from->call].fill)
		rows[from->call].fill(from, to);
}

size_t say_encode(const struct sim_request *requests, unsigned n, uint8_t *data, size_t size)
{
	Nicd__Frame frame = NICD__FRAME__INIT;
	size_t len;

	say.n_refs = say.n_ranges = 0;
	for (unsigned i = 0; i < n; i++) {
		Nicd__Request *request = &say.requests[i];

		nicd__request__init(request);
		request->id = requests[i].id;
		request->fds = requests[i].fds;
		request->call_case = (Nicd__Request__CallCase)requests[i].call;
		encode_args(&requests[i], &say.args[i]);
		request->hello = &say.args[i].hello;
		say.pointers[i] = request;
	}
	frame.n_requests = n;
	frame.requests = say.pointers;
	len = nicd__frame__get_packed_size(&frame);
	sim_must(len <= size, "a frame too big to be encoded");
	return nicd__frame__pack(&frame, data);
}

/* ---- replies */

static void decode_ledger(const Nicd__LedgerReply *from, struct sim_reply *to)
{
	static const char *const names[SLOT_COUNT] = { "sessions", "memories", "fds", "pinned_bytes", "pds", "mrs", "qps", "doors", "calls",
						       "buffered_bytes", "receives", "mws", "mappings" };

	to->sessions = from->sessions;
	to->admin_sessions = from->admin_sessions;
	to->held_fds = from->held_fds;
	to->objects = from->objects;
	for (size_t i = 0; i < from->n_accounts && i < 8; i++) {
		const Nicd__AccountLedger *account = from->accounts[i];

		memset(to->used[i], 0, sizeof(to->used[i]));
		snprintf(to->accounts[i], sizeof(to->accounts[i]), "%s", account->account);
		to->n_accounts++;
		for (size_t j = 0; j < account->n_charges; j++)
			for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
				if (!strcmp(names[slot], account->charges[j]->slot)) {
					to->used[i][slot] = account->charges[j]->used;
					to->max[i][slot] = account->charges[j]->max;
				}
	}
}

static void decode_grant(const Nicd__Grant *from, struct sim_reply *to)
{
	to->remote = from->remote_token;
	to->iova = from->iova;
	to->length = from->length;
	to->flags = from->flags;
}

static void decode_door(const Nicd__DoorInfo *from, struct sim_reply *to)
{
	struct locator locator;
	struct nicd_error error;

	to->object = from->id;
	to->serial = from->serial;
	if (from->grant)
		decode_grant(from->grant, to);
	if (locator_parse(from->locator, &locator, &error) == 0) {
		locator_ticket_hash(locator.ticket, to->hash);
		to->has_hash = true;
	}
}

static void decode_completion(const Nicd__Completion *from, struct sim_completion *to)
{
	*to = (struct sim_completion){
		.entries = from->entries, .bytes = from->bytes, .failed = from->failed, .inexact = from->inexact,
		.solicited = from->solicited, .invalidated = from->invalidated, .token = from->invalidated_token };
}

static void decode_result(const Nicd__Reply *from, struct sim_reply *to)
{
	switch (from->result_case) {
	case NICD__REPLY__RESULT_HELLO:
		to->serial = from->hello->session;
		break;
	case NICD__REPLY__RESULT_ADAPTER:
		to->object = from->adapter->id;
		to->serial = from->adapter->serial;
		to->up = from->adapter->up;
		break;
	case NICD__REPLY__RESULT_MEMORY:
		to->object = from->memory->id;
		to->serial = from->memory->serial;
		to->size = from->memory->size;
		to->page = from->memory->page_size;
		to->writable = from->memory->writable;
		break;
	case NICD__REPLY__RESULT_OBJECT:
		to->object = from->object->id;
		to->serial = from->object->serial;
		break;
	case NICD__REPLY__RESULT_MR:
		to->object = from->mr->id;
		to->serial = from->mr->serial;
		to->local = from->mr->local_token;
		to->remote = from->mr->remote_token;
		to->iova = from->mr->iova;
		to->length = from->mr->length;
		to->flags = from->mr->flags;
		to->generation = from->mr->generation;
		break;
	case NICD__REPLY__RESULT_RECEIPT:
		to->serial = from->receipt->serial;
		to->grants = from->receipt->grants;
		to->streams_cut = from->receipt->streams_cut;
		to->n_exports = (uint32_t)from->receipt->n_exports;
		for (uint32_t i = 0; i < to->n_exports && i < 64; i++)
			to->exports[i] = from->receipt->exports[i];
		break;
	case NICD__REPLY__RESULT_TOKEN:
		to->token = from->token;
		break;
	case NICD__REPLY__RESULT_PRIVILEGED:
		to->token = from->privileged->value;
		break;
	case NICD__REPLY__RESULT_MAPPING:
		to->object = from->mapping->id;
		to->serial = from->mapping->serial;
		to->iova = from->mapping->logical_address;
		to->length = from->mapping->length;
		to->first_byte = from->mapping->first_byte_offset;
		to->pages = from->mapping->pages;
		break;
	case NICD__REPLY__RESULT_TOKENS:
		to->n_tokens = (unsigned)from->tokens->n_local_tokens;
		for (unsigned i = 0; i < to->n_tokens && i < SIM_IDS; i++) {
			to->locals[i] = from->tokens->local_tokens[i];
			to->remotes[i] = from->tokens->remote_tokens[i];
		}
		break;
	case NICD__REPLY__RESULT_QP:
		to->object = from->qp->id;
		to->serial = from->qp->serial;
		to->connected = from->qp->connected;
		to->inbound = from->qp->inbound;
		break;
	case NICD__REPLY__RESULT_COMPLETION:
		decode_completion(from->completion, &to->completion);
		break;
	case NICD__REPLY__RESULT_DOOR:
		decode_door(from->door, to);
		break;
	case NICD__REPLY__RESULT_LIST:
		to->cursor = from->list->cursor;
		to->n_items = (unsigned)from->list->n_items;
		for (unsigned i = 0; i < to->n_items && i < SIM_ITEMS; i++) {
			to->items[i].type = (uint32_t)from->list->items[i]->type;
			to->items[i].serial = from->list->items[i]->serial;
			to->items[i].parent = from->list->items[i]->parent;
			to->items[i].session = from->list->items[i]->session;
		}
		break;
	case NICD__REPLY__RESULT_LEDGER:
		decode_ledger(from->ledger, to);
		break;
	default:
		break;
	}
}

void say_decode_reply(const uint8_t *data, size_t len, struct sim_reply *to)
{
	Nicd__Reply *from = nicd__reply__unpack(NULL, len, data);

	sim_must(from, "a reply cannot be decoded");
	memset(to, 0, offsetof(struct sim_reply, accounts));
	to->id = from->id;
	to->status = from->error ? (uint32_t)from->error->status : 0;
	to->result = (uint32_t)from->result_case;
	sim_must(!from->error || to->status, "an error that is a success");
	decode_result(from, to);
	nicd__reply__free_unpacked(from, NULL);
}

void say_decode_event(const uint8_t *data, size_t len, enum sim_event *kind, uint64_t *object, uint64_t *serial,
		      uint64_t *count)
{
	Nicd__Event *from = nicd__event__unpack(NULL, len, data);

	sim_must(from, "an event cannot be decoded");
	*kind = (enum sim_event)from->kind;
	*object = from->object;
	*serial = from->serial;
	*count = from->count;
	nicd__event__free_unpacked(from, NULL);
}
