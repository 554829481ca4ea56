/* SPDX-License-Identifier: MIT */
/* From the simulation's words to the protocol's bytes and back, with nothing but the generated code. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "nicd/account.h"
#include "proto/locator.h"
#include "proto/nicd.pb-c.h"
#include "tests/sim/world.h"

/* What one frame is put together from; one at a time. */
static struct {
	Nicd__Request requests[64], *pointers[64];
	Nicd__Ref refs[64 * (SIM_RANGES + 3)];
	Nicd__Range ranges[64 * SIM_RANGES], *range_pointers[64 * SIM_RANGES];
	uint8_t entries[40000];
	union {
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
	} args[64];
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

#define ARGS(type, field) \
	type *field = &say.args[i].field; \
	protobuf_c_message_init(&type##__descriptor, field)
#define nicd_one_ref(Type, type, field) \
	nicd__##type##__init(&say.args[i].type); \
	say.args[i].type.field = encode_ref(&from->ref[0])

static void encode_door(const struct sim_request *from, unsigned i)
{
	if (from->call == CALL_CREATE_TICKET) {
		Nicd__CreateTicket *args = &say.args[i].create_ticket;

		nicd__create_ticket__init(args);
		args->mr = encode_ref(&from->ref[0]);
		args->uses = from->uses;
		args->ttl_ms = from->ttl_ms;
		args->peers = from->peers;
	} else {
		Nicd__CreateExport *args = &say.args[i].create_export;

		nicd__create_export__init(args);
		args->mr = encode_ref(&from->ref[0]);
		args->name = (char *)from->text;
		args->offset = from->offset;
		args->length = from->length;
		args->flags = from->flags;
		args->uses = from->uses;
		args->ttl_ms = from->ttl_ms;
		args->peers = from->peers;
	}
}

static void encode_transfer(const struct sim_request *from, unsigned i)
{
	Nicd__TransferList *list = &say.args[i].transfer_list;
	Nicd__Read *one = &say.args[i].read;

	if (from->call == CALL_TRANSFER_LIST) {
		nicd__transfer_list__init(list);
		list->qp = encode_ref(&from->ref[0]);
		list->operation = (Nicd__TransferList__Operation)from->operation;
		list->flags = from->flags;
		list->entries.data = say.entries;
		list->entries.len = from->n_bytes;
		return;
	}
	if (from->call == CALL_WRITE)
		nicd__write__init(&say.args[i].write);
	else
		nicd__read__init(one);
	one->qp = encode_ref(&from->ref[0]);   /* the fields of Write lie where those of Read do */
	one->local_token = from->local_token;
	one->local_addr = from->local_addr;
	one->remote_token = from->remote_token;
	one->remote_addr = from->remote_addr;
	one->length = (uint32_t)from->length;
	one->flags = from->flags;
}

static void encode_message(const struct sim_request *from, unsigned i)
{
	Nicd__Receive *receive = &say.args[i].receive;
	Nicd__Send *send = &say.args[i].send;

	if (from->call == CALL_RECEIVE) {
		nicd__receive__init(receive);
		receive->qp = encode_ref(&from->ref[0]);
		receive->local_token = from->local_token;
		receive->local_addr = from->local_addr;
		receive->length = (uint32_t)from->length;
		return;
	}
	nicd__send__init(send);
	send->qp = encode_ref(&from->ref[0]);
	send->local_token = from->local_token;
	send->local_addr = from->local_addr;
	send->length = (uint32_t)from->length;
	send->flags = from->flags;
	send->invalidate_token = from->invalidate_token;
}

static void encode_register(const struct sim_request *from, unsigned i)
{
	Nicd__RegisterMr *args = &say.args[i].register_mr;

	nicd__register_mr__init(args);
	args->mr = encode_ref(&from->ref[0]);
	args->n_ranges = from->n_ranges;
	args->ranges = encode_ranges(from);
	args->iova = from->iova;
	args->length = from->length;
	args->flags = from->flags;
}

static void encode_session(const struct sim_request *from, unsigned i)
{
	if (from->call == CALL_HELLO) {
		nicd__hello__init(&say.args[i].hello);
		say.args[i].hello.major = from->major;
		say.args[i].hello.min_minor = from->minor;
		say.args[i].hello.client = (char *)from->text;
	} else {
		nicd__resume__init(&say.args[i].resume);
	}
}

static void encode_look(const struct sim_request *from, unsigned i)
{
	switch (from->call) {
	case CALL_LIST:
		nicd__list__init(&say.args[i].list);
		say.args[i].list.type = (Nicd__Type)from->type;
		say.args[i].list.cursor = from->cursor;
		say.args[i].list.max = from->max;
		break;
	case CALL_WHO:
		nicd__who__init(&say.args[i].who);
		say.args[i].who.serial = from->serial;
		say.args[i].who.cursor = from->cursor;
		break;
	case CALL_REVOKE:
		nicd__revoke__init(&say.args[i].revoke);
		say.args[i].revoke.serial = from->serial;
		break;
	default:
		nicd__ledger__init(&say.args[i].ledger);
		break;
	}
}

static void encode_fast(const struct sim_request *from, unsigned i)
{
	switch (from->call) {
	case CALL_FAST_REGISTER:
		nicd__fast_register__init(&say.args[i].fast_register);
		say.args[i].fast_register.mr = encode_ref(&from->ref[0]);
		say.args[i].fast_register.n_ranges = from->n_ranges;
		say.args[i].fast_register.ranges = encode_ranges(from);
		break;
	case CALL_BIND_MW:
		nicd__bind_mw__init(&say.args[i].bind_mw);
		say.args[i].bind_mw.mr = encode_ref(&from->ref[1]);
		say.args[i].bind_mw.qp = encode_ref(&from->ref[2]);
		break;
	default:
		nicd__build_mapping__init(&say.args[i].build_mapping);
		say.args[i].build_mapping.n_ranges = from->n_ranges;
		say.args[i].build_mapping.ranges = encode_ranges(from);
		break;
	}
}

static void encode_args(const struct sim_request *from, unsigned i)
{
	switch (from->call) {
	case CALL_HELLO:
	case CALL_RESUME:
		encode_session(from, i);
		break;
	case CALL_QUERY_ADAPTER:
		nicd_one_ref(QueryAdapter, query_adapter, adapter);
		break;
	case CALL_QUERY_EXTENSION:
		nicd_one_ref(QueryExtension, query_extension, object);
		break;
	case CALL_ADD_MEMORY:
		nicd__add_memory__init(&say.args[i].add_memory);
		break;
	case CALL_CREATE_PD:
		nicd_one_ref(CreatePd, create_pd, adapter);
		break;
	case CALL_GET_PRIVILEGED_TOKEN:
		nicd_one_ref(GetPrivilegedToken, get_privileged_token, pd);
		break;
	case CALL_CREATE_MR:
		nicd_one_ref(CreateMr, create_mr, pd);
		say.args[i].create_mr.fast_register = from->fast;
		break;
	case CALL_REGISTER_MR:
		encode_register(from, i);
		break;
	case CALL_DEREGISTER_MR:
		nicd_one_ref(DeregisterMr, deregister_mr, mr);
		break;
	case CALL_GET_LOCAL_TOKEN:
		nicd_one_ref(GetLocalToken, get_local_token, mr);
		break;
	case CALL_GET_REMOTE_TOKEN:
		nicd_one_ref(GetRemoteToken, get_remote_token, mr);
		break;
	case CALL_QUERY_TOKENS:
		nicd__query_tokens__init(&say.args[i].query_tokens);
		say.args[i].query_tokens.n_mrs = from->n_ids;
		say.args[i].query_tokens.mrs = (uint64_t *)from->ids;
		break;
	case CALL_INITIALIZE_FAST_REGISTER:
		nicd_one_ref(InitializeFastRegister, initialize_fast_register, mr);
		break;
	case CALL_INVALIDATE:
		nicd_one_ref(Invalidate, invalidate, object);
		break;
	case CALL_CREATE_MW:
		nicd_one_ref(CreateMw, create_mw, pd);
		break;
	case CALL_FAST_REGISTER:
	case CALL_BIND_MW:
	case CALL_BUILD_MAPPING:
		encode_fast(from, i);
		break;
	case CALL_CONNECT_QP:
		nicd_one_ref(ConnectQp, connect_qp, pd);
		say.args[i].connect_qp.locator = (char *)from->text;
		say.args[i].connect_qp.timeout_ms = from->ttl_ms;
		break;
	case CALL_READ:
	case CALL_WRITE:
	case CALL_TRANSFER_LIST:
		encode_transfer(from, i);
		break;
	case CALL_SEND:
	case CALL_RECEIVE:
		encode_message(from, i);
		break;
	case CALL_FLUSH:
		nicd_one_ref(Flush, flush, qp);
		break;
	case CALL_DISCONNECT:
		nicd_one_ref(Disconnect, disconnect, qp);
		break;
	case CALL_QUERY_QP:
		nicd_one_ref(QueryQp, query_qp, qp);
		say.args[i].query_qp.serial = from->serial;
		break;
	case CALL_CREATE_TICKET:
	case CALL_CREATE_EXPORT:
		encode_door(from, i);
		break;
	case CALL_CLOSE:
		nicd_one_ref(Close, close, object);
		break;
	default:
		encode_look(from, i);
		break;
	}
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
		encode_args(&requests[i], i);
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
