/* SPDX-License-Identifier: MIT */
/*
 * Sequences of requests by several clients, over a device that is late, out of order or broken, while time passes and memory fails. An input is a
 * program for this: instructions of eight bytes, each an operation, what it is about, and six operands; fields of messages are filled from the operands
 * by the messages' own descriptors, references with what earlier requests have made.
 *
 * Whatever is asked: each request is answered exactly once or its session has ended, and at the end (rig_teardown) nothing is left.
 */
#include "tests/unit/daemon/rig.h"

#include <unistd.h>

#include "daemon/dispatch.h"
#include "nicd/door.h"
#include "proto/locator.h"
#include "tests/fuzz/fds.h"
#include "tests/fuzz/input.h"

enum { CLIENTS = 3, REQUESTS = 24, KNOWN = 16, IDS = 4096, STEPS = 300, OPERANDS = 6, STEP = 2 + OPERANDS, FIRST_ID = 1 };
enum { OP_SEND = 9, OP_DEVICE = 11, OP_TIME, OP_CLIENT, OP_SWITCH, OP_MEMORY, OPS };

/* One client, and what it knows. */
struct player {
	struct rig_client *c;              /* NULL: not there */
	uint64_t ids[NIC_TYPE_COUNT][KNOWN];
	unsigned n_ids[NIC_TYPE_COUNT];
	uint32_t next, first;              /* request ids; of the frame */
	enum { UNKNOWN, SENT, ANSWERED } requests[IDS];
	enum nic_type makes[REQUESTS];
	ProtobufCMessage *args[REQUESTS];
	int fds[REQUESTS];
	unsigned n, n_fds;                 /* of the frame being put together */
};

static struct rig *rig;
static struct player players[CLIENTS];
static char locators[3][LOCATOR_TEXT_MAX];

struct operands {
	const uint8_t *bytes;
	unsigned at;
};

static uint8_t next(struct operands *o)
{
	return o->bytes[o->at++ % OPERANDS];
}

/* ---- what requests are made of */

static uint64_t some_id(const struct player *p, enum nic_type type, uint8_t which)
{
	unsigned known;

	if (type == NIC_NONE)
		type = (enum nic_type)(1 + which % (NIC_TYPE_COUNT - 1));
	known = p->n_ids[type] < KNOWN ? p->n_ids[type] : KNOWN;
	if (which >= 0xf8)
		type = (enum nic_type)(which & 7);
	if (!known || which >= 0xf0)
		return which & 1 ? 0 : (uint64_t)type << 56 | UINT64_C(1) << 32 | (which & 3);
	return p->ids[type][which % known];
}

/* Half of them name an earlier request of the frame, if there is one that makes what is wanted. */
static Nicd__Ref *some_ref(struct player *p, enum nic_type type, uint8_t which)
{
	if (which == 0xff)
		return NULL;
	for (unsigned i = p->n; (which & 0x80) && i--;) {
		if (p->makes[i] == type || which == 0xfe)
			return rig_result(p->c, p->first + i);
	}
	return rig_id(p->c, some_id(p, type, which & 0x7f));
}

static enum nic_type wanted_type(const struct method *method, size_t at)
{
	for (unsigned i = 0; i < METHOD_REFS; i++) {
		if (method->refs[i].need && method->refs[i].at == at)
			return (enum nic_type)method->refs[i].type;
	}
	return NIC_NONE;
}

static char *some_text(uint8_t which)
{
	static const char *const texts[] = { "a", "b", "c", "", "a/b", "\xff\xfe", "nicd1:", "\xc3\xa4" };

	return which & 8 ? locators[which % 3] : (char *)(uintptr_t)texts[which % 8];
}

static uint64_t some_number(const ProtobufCFieldDescriptor *f, uint8_t which)
{
	static const uint64_t edges[] = { UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX };

	if (which >= 0xfa)
		return edges[which - 0xfa];
	if (!strcmp(f->name, "iova"))
		return (uint64_t)(which + 1) << 12;
	if (!strcmp(f->name, "length") || !strcmp(f->name, "offset"))
		return which & 0x40 ? (uint64_t)(which & 7) << 12 : which & 0x3f;
	return which;
}

/* What is long comes first in its frame: two of them would be more than a frame may hold. */
static void fill_bytes(ProtobufCBinaryData *data, uint8_t which, bool first)
{
	static uint8_t zeros[(NICD_TRANSFER_ENTRIES + 1) * NICD_TRANSFER_ENTRY_SIZE];
	static const size_t sizes[] = { 0, 16, 32, 64, 96, 1024, sizeof(zeros), sizeof(zeros) - NICD_TRANSFER_ENTRY_SIZE };

	*data = (ProtobufCBinaryData){ sizes[which % (first ? 8 : 6)], zeros };
}

static void fill_field(struct player *p, const struct method *method, const ProtobufCFieldDescriptor *f, void *at, uint8_t which)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		if (f->descriptor == &nicd__ref__descriptor)
			*(Nicd__Ref **)at = some_ref(p, wanted_type(method, f->offset), which);
		break;
	case PROTOBUF_C_TYPE_STRING:
		*(char **)at = some_text(which);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		fill_bytes(at, which, !p->n);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = which & 1;
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*(uint64_t *)at = some_number(f, which);
		break;
	default:
		*(uint32_t *)at = (uint32_t)some_number(f, which);
		break;
	}
}

static void fill_ranges(struct player *p, size_t *n, Nicd__Range ***ranges, struct operands *o)
{
	static Nicd__Range room[REQUESTS][NICD_RANGES + 1];
	static Nicd__Range *pointers[REQUESTS][NICD_RANGES + 1];
	uint8_t shape = next(o);

	*n = shape & 0x80 ? (shape & 0x1f) % (NICD_RANGES + 2) : 1 + (shape & 1);
	*ranges = pointers[p->n];
	for (size_t i = 0; i < *n; i++) {
		uint8_t which = next(o);

		nicd__range__init(&room[p->n][i]);
		room[p->n][i].memory = which == 0xf0 ? NULL : some_ref(p, NIC_MEMORY, which);
		room[p->n][i].length = shape & 0x40 ? some_number(&nicd__range__descriptor.fields[2], which) : 4096;
		room[p->n][i].offset = shape & 0x20 ? some_number(&nicd__range__descriptor.fields[1], which) : 0;
		pointers[p->n][i] = &room[p->n][i];
	}
}

static void fill_ids(struct player *p, size_t *n, uint64_t **ids, struct operands *o)
{
	static uint64_t room[REQUESTS][KNOWN];

	*n = next(o) % KNOWN;
	*ids = room[p->n];
	for (size_t i = 0; i < *n; i++)
		room[p->n][i] = some_id(p, NIC_MR, next(o));
}

static void fill(struct player *p, const struct method *method, ProtobufCMessage *message, struct operands *o)
{
	for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &message->descriptor->fields[i];
		char *at = (char *)message;
		size_t *n = (size_t *)(void *)(at + f->quantifier_offset);

		if (f->label != PROTOBUF_C_LABEL_REPEATED)
			fill_field(p, method, f, at + f->offset, next(o));
		else if (f->descriptor == &nicd__range__descriptor)
			fill_ranges(p, n, (Nicd__Range ***)(void *)(at + f->offset), o);
		else if (f->type == PROTOBUF_C_TYPE_FIXED64)
			fill_ids(p, n, (uint64_t **)(void *)(at + f->offset), o);
	}
}

/* ---- clients */

static void player_start(struct player *p, uint8_t how)
{
	static const char *const accounts[] = { "uid:1", "uid:2" };

	rig->env.fail_at = 0;
	memset(p, 0, sizeof(*p));
	p->next = FIRST_ID;
	p->c = rig_hello(rig, accounts[how & 1], how & 2 ? CLIENT_ROLE_ADMIN : how & 4 ? CLIENT_ROLE_GATEWAY : CLIENT_ROLE_CLIENT);
	p->c->last_id = IDS * 2;
	p->ids[NIC_ADAPTER][p->n_ids[NIC_ADAPTER]++] = TAILQ_FIRST(&rig->nic.adapters)->id;
}

static void frame_drop(struct player *p)
{
	for (unsigned i = 0; i < p->n; i++)
		free(p->args[i]);
	for (unsigned i = 0; i < p->n_fds; i++)
		close(p->fds[i]);
	p->n = p->n_fds = 0;
	p->c->n_requests = p->c->n_refs = 0;
}

/* Its session is over; what is left of it is rig_teardown's. */
static void player_end(struct player *p)
{
	frame_drop(p);
	rig_end(p->c);
	rig_forget(p->c);
	p->c = NULL;
}

static void learn(struct player *p, uint64_t id)
{
	enum nic_type type = (enum nic_type)(id >> 56);

	if (id)
		p->ids[type][p->n_ids[type]++ % KNOWN] = id;
}

static void hear_reply(struct player *p, const Nicd__Reply *reply)
{
	if (reply->id >= IDS)
		return;   /* to the Hello of rig_hello */
	must(p->requests[reply->id] == SENT);
	p->requests[reply->id] = ANSWERED;
	if (reply->result_case == NICD__REPLY__RESULT_OBJECT)
		learn(p, reply->object->id);
	else if (reply->result_case == NICD__REPLY__RESULT_MEMORY)
		learn(p, reply->memory->id);
	else if (reply->result_case == NICD__REPLY__RESULT_QP)
		learn(p, reply->qp->id);
	else if (reply->result_case == NICD__REPLY__RESULT_DOOR)
		learn(p, reply->door->id);
}

static void hear(struct player *p)
{
	rig_n_replies(p->c);
	for (unsigned i = 0; i < p->c->n_frames; i++) {
		for (size_t j = 0; j < p->c->frames[i]->n_replies; j++)
			hear_reply(p, p->c->frames[i]->replies[j]);
	}
	if (p->c->kicked || !p->c->client || p->c->client->fatal)
		player_end(p);
	else
		rig_forget(p->c);
}

static void hear_all(void)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (players[i].c)
			hear(&players[i]);
	}
}

/* ---- instructions */

static void add_request(struct player *p, uint8_t op, uint8_t call, struct operands *o)
{
	const ProtobufCMessageDescriptor *d = &nicd__request__descriptor;
	const ProtobufCFieldDescriptor *f = &d->fields[call % d->n_fields];
	const ProtobufCMessageDescriptor *args = f->descriptor;
	Nicd__Request *request;
	uint8_t fd = next(o);

	if (f->id < 10 || p->n == REQUESTS || p->next == IDS)
		return;
	if (!p->n)
		p->first = p->next;
	p->args[p->n] = calloc(1, args->sizeof_message);
	protobuf_c_message_init(args, p->args[p->n]);
	fill(p, method_find(f->id), p->args[p->n], o);
	request = rig_add(p->c, p->next++, (Nicd__Request__CallCase)f->id, p->args[p->n]);
	p->makes[p->n++] = rig_makes(request->call_case);
	/* Mostly one where one belongs; any kind, anywhere, when the operand says so. */
	if (request->call_case == NICD__REQUEST__CALL_ADD_MEMORY ? fd < 0xf0 : fd >= 0xf0) {
		request->fds = 1;
		p->fds[p->n_fds++] = fd_make(fd & 0x80 ? fd : fd % 2);
	}
	/* The same id again is a violation. */
	if (op == OP_SEND - 1 && fd == 0xee)
		request->id = p->first;
}

static void send_frame(struct player *p)
{
	bool good;

	if (!p->n)
		return;
	for (unsigned i = 0; i < p->n; i++)
		p->requests[p->first + i] = SENT;
	good = rig_send(p->c, p->fds, p->n_fds);
	p->n_fds = 0;   /* given away */
	frame_drop(p);
	if (!good) {
		/* Without memory there is nothing to say it with. */
		must(p->c->client->fatal || rig->env.failed);
		player_end(p);
	}
	hear_all();
}

static void play_device(struct operands *o)
{
	static const enum nicd_reason reasons[] = { NICD_R_DEVICE_FAILED, NICD_R_CONNECT, NICD_R_QP_LOST, NICD_R_TAGS_EXHAUSTED };
	enum fake_op op = (enum fake_op)(next(o) % FAKE_OPS);
	uint8_t what = next(o), how = next(o);
	struct nic_object *door;

	switch (what % 8) {
	case 0:
		fake_hold(rig->fake, op, true);
		break;
	case 1:
		if (op != FAKE_DETACH && op != FAKE_TAG_DROP && op != FAKE_DOOR_DROP && op != FAKE_DISCONNECT)
			fake_fail(rig->fake, op, how % 4, 1, reasons[how >> 6]);
		break;
	case 2:
		door = nic_next(&rig->nic, how & 1 ? NIC_TICKET : NIC_EXPORT, 0);
		if (door && ((struct nic_export *)door)->state == NIC_DOOR_OPEN)
			fake_stream_open(rig->fake, door->serial, "127.0.0.9:1");
		break;
	case 3:
		fake_complete_newest(rig->fake, FAKE_OPS);
		break;
	case 4:
		fake_hold(rig->fake, FAKE_OPS, false);
		fake_complete_all(rig->fake);
		break;
	default:
		fake_complete(rig->fake, how & 1 ? op : FAKE_OPS);
		break;
	}
	hear_all();
}

/* Returns whose turn it is next. */
static struct player *step(struct player *p, const uint8_t code[STEP])
{
	struct operands o = { code + 2, 0 };
	uint8_t op = code[0] % OPS;

	if (op == OP_SWITCH || op == OP_CLIENT) {
		p = &players[code[1] % CLIENTS];
		if (op == OP_CLIENT && p->c)
			player_end(p);
	}
	if (!p->c)
		player_start(p, code[2]);
	if (op < OP_SEND)
		add_request(p, op, code[1], &o);
	else if (op < OP_DEVICE)
		send_frame(p);
	else if (op == OP_DEVICE)
		play_device(&o);
	else if (op == OP_TIME)
		rig_advance(rig, UINT64_C(1000000) * code[1] * code[2]);
	if (op == OP_MEMORY) {
		rig->env.failed = false;
		rig->env.fail_at = rig->env.allocs + 1 + code[1] % 64;
		rig->env.fail_on = code[2] == 0xff;
	} else if (op >= OP_SEND) {
		rig->env.fail_at = 0;
	}
	return p;
}

/* A Close waits for what stands on its object, and others may wait for the Close. */
static void must_be_answered(const struct player *p, uint32_t id)
{
	const struct call *call = call_find(p->c->client, id);

	must(call && (call->state == CALL_WAITING || !strcmp(call->method->name, "Close")));
}

static void finish(void)
{
	rig->env.fail_at = 0;
	fake_hold(rig->fake, FAKE_OPS, false);
	for (unsigned i = 0; i < 10; i++) {
		fake_complete_all(rig->fake);
		hear_all();
		rig_advance(rig, UINT64_C(10000000000));
	}
	hear_all();
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (!players[i].c)
			continue;
		frame_drop(&players[i]);
		for (uint32_t id = FIRST_ID; id < players[i].next; id++) {
			if (players[i].requests[id] == SENT)
				must_be_answered(&players[i], id);
		}
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct locator locator = { .ticket = "0123456789abcde" };
	static const char *const addresses[] = { "127.0.0.3:7190", "127.0.0.2:7190", "10.1.1.1:1" };

	for (unsigned i = 0; i < 3; i++) {
		must(locator_addr_parse(addresses[i], &locator.addr) == 0);
		locator_print(&locator, locators[i]);
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct player *p = &players[0];
	void *state;

	rig_setup(&state);
	rig = state;
	for (unsigned i = 0; i < STEPS && (i + 1) * STEP <= size; i++)
		p = step(p, data + i * STEP);
	finish();
	memset(players, 0, sizeof(players));
	rig_teardown(&state);
	return 0;
}
