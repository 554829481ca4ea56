/* SPDX-License-Identifier: MIT */
/*
 * Random clients over a random device: frames of random requests with random references, a device that answers late, out of order, or
 * not well, sessions that end at any moment. What must hold whatever happens: each request of a good frame is answered exactly once or
 * its session has ended, and at the end nothing is left. A failing seed is printed and plays the same again.
 */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/dispatch.h"
#include "nicd/door.h"
#include "proto/locator.h"

enum { SEEDS = 60, TURNS = 60, FRAME = 12, CLIENTS = 3, KNOWN = 64 };

struct dice {
	uint64_t state;
};

static uint32_t roll(struct dice *dice, uint32_t n)
{
	dice->state ^= dice->state << 13;
	dice->state ^= dice->state >> 7;
	dice->state ^= dice->state << 17;
	return (uint32_t)(dice->state >> 11) % n;
}

/* What a player remembers: ids that it was told, serials, requests that were not answered. */
struct player {
	struct rig_client *c;
	uint64_t ids[NIC_TYPE_COUNT][KNOWN];
	unsigned n_ids[NIC_TYPE_COUNT];
	uint32_t next_request;
	uint8_t open[1 << 16];   /* by request id: 1 sent, 2 answered */
};

struct frame {
	union {
		ProtobufCMessage message;
		Nicd__RegisterMr reg;
		Nicd__CreateExport export;
		char room[256];
	} args[FRAME];
	Nicd__Range ranges[FRAME][2], *pointers[FRAME][2];
	char names[FRAME][4];
	enum nic_type makes[FRAME];   /* what this request will have made */
	uint32_t first;
};

static uint64_t playing;   /* the seed */
static char locators[3][LOCATOR_TEXT_MAX];

/* Mostly one of the type that is wanted. */
static uint64_t some_id(struct player *p, struct dice *dice, enum nic_type type)
{
	if (type == NIC_NONE || !roll(dice, 15))
		type = (enum nic_type)roll(dice, NIC_TYPE_COUNT);
	if (p->n_ids[type] && roll(dice, 20))
		return p->ids[type][roll(dice, p->n_ids[type] < KNOWN ? p->n_ids[type] : KNOWN)];
	return roll(dice, 2) ? 0 : (uint64_t)type << 56 | UINT64_C(1) << 32 | roll(dice, 5);
}

/* For the i-th request of the frame: an id, or the result of an earlier one. */
static Nicd__Ref *some_ref(struct player *p, struct dice *dice, const struct frame *frame, unsigned i, enum nic_type type)
{
	if (!roll(dice, 30))
		return NULL;
	for (unsigned tries = 0; i && tries < 4; tries++) {
		unsigned earlier = roll(dice, i);

		if (frame->makes[earlier] == type || !roll(dice, 30))
			return rig_result(p->c, frame->first + earlier);
	}
	return rig_id(p->c, some_id(p, dice, type));
}

static enum nic_type wanted_type(const struct method *method, size_t at)
{
	for (unsigned i = 0; i < METHOD_REFS; i++) {
		if (method->refs[i].need && method->refs[i].at == at)
			return (enum nic_type)method->refs[i].type;
	}
	return NIC_NONE;
}

/* Fills the fields of any message with what might fit, by its descriptor. */
static void fill(struct player *p, struct dice *dice, struct frame *frame, unsigned i, const struct method *method)
{
	ProtobufCMessage *message = &frame->args[i].message;
	uint64_t last = p->c->rig->nic.last_serial;

	for (unsigned j = 0; j < message->descriptor->n_fields; j++) {
		const ProtobufCFieldDescriptor *f = &message->descriptor->fields[j];
		void *at = (char *)message + f->offset;

		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			continue;
		if (f->type == PROTOBUF_C_TYPE_MESSAGE && f->descriptor == &nicd__ref__descriptor)
			*(Nicd__Ref **)at = some_ref(p, dice, frame, i, wanted_type(method, f->offset));
		else if (!strcmp(f->name, "flags"))
			*(uint32_t *)at = roll(dice, 6) ? roll(dice, 2) ? NIC_REMOTE_READ : 0 : roll(dice, 16);
		else if (f->type == PROTOBUF_C_TYPE_UINT32 || f->type == PROTOBUF_C_TYPE_FIXED32)
			*(uint32_t *)at = roll(dice, 4);
		else if (f->type == PROTOBUF_C_TYPE_ENUM)
			*(uint32_t *)at = roll(dice, 13);
		else if (f->type == PROTOBUF_C_TYPE_UINT64)
			*(uint64_t *)at = roll(dice, 8) ? 0 : roll(dice, 3) * 4096;
		else if (!strcmp(f->name, "serial"))
			*(uint64_t *)at = roll(dice, (uint32_t)last + 3);
		else if (f->type == PROTOBUF_C_TYPE_FIXED64)
			*(uint64_t *)at = roll(dice, 4) ? 0 : roll(dice, (uint32_t)last + 2);
		else if (f->type == PROTOBUF_C_TYPE_STRING)
			*(char **)at = locators[roll(dice, 3)];
	}
}

static void fill_register(struct player *p, struct dice *dice, struct frame *frame, unsigned i)
{
	Nicd__RegisterMr *reg = &frame->args[i].reg;

	reg->n_ranges = 1 + !roll(dice, 4);
	reg->ranges = frame->pointers[i];
	for (unsigned j = 0; j < 2; j++) {
		frame->pointers[i][j] = &frame->ranges[i][j];
		nicd__range__init(&frame->ranges[i][j]);
		frame->ranges[i][j].memory = some_ref(p, dice, frame, i, NIC_MEMORY);
		frame->ranges[i][j].length = 4096;
	}
	reg->iova = 0x1000 * (1 + roll(dice, 5));
	reg->length = 0;
}

/* Mostly calls that make something or go on with it. */
static Nicd__Request__CallCase some_call(struct dice *dice)
{
	static const uint8_t likely[] = { 20, 25, 30, 30, 31, 31, 31, 31, 32, 33, 34, 50, 51, 52, 53, 57, 58,
					  60, 61, 61, 65, 65, 70, 71, 72, 73 };
	const ProtobufCMessageDescriptor *d = &nicd__request__descriptor;
	uint32_t id;

	if (roll(dice, 8))
		return (Nicd__Request__CallCase)likely[roll(dice, sizeof(likely))];
	do
		id = d->fields[roll(dice, d->n_fields)].id;
	while (id < 10);
	return (Nicd__Request__CallCase)id;
}

/* Returns whether it brings a descriptor. */
static bool play_request(struct player *p, struct dice *dice, struct frame *frame, unsigned i)
{
	uint32_t id = p->next_request++;
	Nicd__Request__CallCase call = some_call(dice);
	const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(&nicd__request__descriptor, call);
	Nicd__Request *request;

	memset(&frame->args[i], 0, sizeof(frame->args[i]));
	protobuf_c_message_init(field->descriptor, &frame->args[i].message);
	fill(p, dice, frame, i, method_find(call));
	frame->makes[i] = rig_makes(call);
	if (call == NICD__REQUEST__CALL_REGISTER_MR)
		fill_register(p, dice, frame, i);
	if (call == NICD__REQUEST__CALL_CREATE_EXPORT) {
		snprintf(frame->names[i], sizeof(frame->names[i]), "%u", roll(dice, 50));
		frame->args[i].export.name = frame->names[i];
	}
	request = rig_add(p->c, id, call, &frame->args[i].message);
	request->fds = call == NICD__REQUEST__CALL_ADD_MEMORY ? !!roll(dice, 20) : !roll(dice, 40);
	p->open[id] = 1;
	return request->fds;
}

static void play_frame(struct player *p, struct dice *dice)
{
	static struct frame frame;
	unsigned n = 1 + roll(dice, FRAME), n_fds = 0;
	int fds[FRAME];

	frame.first = p->next_request;
	for (unsigned i = 0; i < n; i++) {
		if (play_request(p, dice, &frame, i))
			fds[n_fds++] = rig_memfd(4096 * (1 + roll(dice, 2)), roll(dice, 10) ? F_SEAL_SHRINK : 0);
	}
	assert_true(rig_send(p->c, fds, n_fds));
}

static void learn(struct player *p, uint64_t id)
{
	if (id)
		p->ids[id >> 56][p->n_ids[id >> 56]++ % KNOWN] = id;
}

/* Every reply is to a request that was sent and not answered. */
static void hear(struct player *p)
{
	rig_n_replies(p->c);
	for (unsigned i = 0; i < p->c->n_frames; i++) {
		for (size_t j = 0; j < p->c->frames[i]->n_replies; j++) {
			const Nicd__Reply *reply = p->c->frames[i]->replies[j];

			/* mutation: answer twice, or somebody else */
			if (p->open[reply->id] != 1)
				fail_msg("seed %lu: request %u was answered again", (unsigned long)playing, reply->id);
			p->open[reply->id] = 2;
			if (reply->result_case == NICD__REPLY__RESULT_OBJECT)
				learn(p, reply->object->id);
			else if (reply->result_case == NICD__REPLY__RESULT_MEMORY)
				learn(p, reply->memory->id);
			else if (reply->result_case == NICD__REPLY__RESULT_QP)
				learn(p, reply->qp->id);
			else if (reply->result_case == NICD__REPLY__RESULT_DOOR)
				learn(p, reply->door->id);
		}
	}
	rig_forget(p->c);
}

static void play_device(struct rig *rig, struct dice *dice)
{
	static const enum nicd_reason reasons[] = { NICD_R_DEVICE_FAILED, NICD_R_CONNECT, NICD_R_QP_LOST, NICD_R_TAGS_EXHAUSTED };
	enum fake_op op = (enum fake_op)roll(dice, FAKE_OPS);
	struct nic_object *door;

	switch (roll(dice, 8)) {
	case 0:
		fake_hold(rig->fake, op, roll(dice, 2));
		break;
	case 1:
		if (op != FAKE_DETACH && op != FAKE_TAG_DROP && op != FAKE_DOOR_DROP && op != FAKE_DISCONNECT)
			fake_fail(rig->fake, op, roll(dice, 3), 1, reasons[roll(dice, 4)]);
		break;
	case 2:
		door = nic_next(&rig->nic, roll(dice, 2) ? NIC_TICKET : NIC_EXPORT, 0);
		if (door && ((struct nic_export *)door)->state == NIC_DOOR_OPEN)
			fake_stream_open(rig->fake, door->serial, "127.0.0.9:1");
		break;
	case 3:
		rig_advance(rig, UINT64_C(1000000) * roll(dice, 8000));
		break;
	case 4:
		fake_complete_newest(rig->fake, FAKE_OPS);
		break;
	default:
		fake_complete(rig->fake, FAKE_OPS);
		break;
	}
}

static void player_start(struct player *p, struct rig *rig, struct dice *dice)
{
	memset(p, 0, sizeof(*p));
	p->next_request = 1000;
	p->c = rig_hello(rig, roll(dice, 2) ? "uid:1" : "uid:2", roll(dice, 4) ? CLIENT_ROLE_CLIENT : CLIENT_ROLE_ADMIN);
	learn(p, TAILQ_FIRST(&rig->nic.adapters)->id);
}

static void play(struct rig *rig, struct dice *dice)
{
	static struct player players[CLIENTS];

	for (unsigned i = 0; i < CLIENTS; i++)
		player_start(&players[i], rig, dice);
	for (unsigned turn = 0; turn < TURNS; turn++) {
		struct player *p = &players[roll(dice, CLIENTS)];

		play_frame(p, dice);
		for (unsigned i = roll(dice, 10); i; i--)
			play_device(rig, dice);
		hear(p);
		if (!roll(dice, 25) || p->c->kicked) {
			rig_end(p->c);
			player_start(p, rig, dice);
		}
	}
	/* Everything that was asked for comes to its end. */
	fake_hold(rig->fake, FAKE_OPS, false);
	for (unsigned i = 0; i < 300; i++) {
		fake_complete_all(rig->fake);
		for (unsigned j = 0; j < CLIENTS; j++)
			hear(&players[j]);
		rig_advance(rig, UINT64_C(1000000000));
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (players[i].c->kicked)
			continue;
		for (uint32_t request = 0; request < players[i].next_request; request++) {
			struct call *call = call_find(players[i].c->client, request);

			/* A Close waits for what stands on the object, and others may wait for the Close. */
			if (players[i].open[request] != 1 || (call && call->state == CALL_WAITING))
				continue;
			if (!call || strcmp(call->method->name, "Close"))
				fail_msg("seed %lu: request %u (%s) was never answered", (unsigned long)playing, request,
					 call ? call->method->name : "gone");
		}
	}
}

static void test_random(void **state)
{
	/* For more of them, by hand. */
	const char *wanted = getenv("NICD_TEST_SEEDS");
	uint64_t seeds = wanted ? strtoull(wanted, NULL, 10) : SEEDS;
	struct locator locator = { .ticket = "0123456789abcde" };

	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(locator_addr_parse(i ? i > 1 ? "10.1.1.1:1" : "127.0.0.2:7190" : "127.0.0.3:7190", &locator.addr), 0);
		locator_print(&locator, locators[i]);
	}
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		struct dice dice = { .state = seed * UINT64_C(0x9E3779B97F4A7C15) };

		rig_teardown(state);
		rig_setup(state);
		playing = seed;
		play(*state, &dice);
	}
}

/* Bytes: good frames with some of them changed, cut or doubled. Whatever comes of it, it is an answer or a Fatal. */
static void test_bytes(void **state)
{
	struct dice dice = { .state = 12345 };
	struct rig *rig = *state;
	struct rig_client *c = rig_hello(rig, "uid:1", CLIENT_ROLE_CLIENT);
	uint64_t mr = rig_region(c, NIC_REMOTE_READ);
	Nicd__Frame frame = NICD__FRAME__INIT;
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range, &range };
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__Request requests[3], *pointers[] = { &requests[0], &requests[1], &requests[2] };
	Nicd__Hello hello = NICD__HELLO__INIT;
	Nicd__List list = NICD__LIST__INIT;
	uint8_t good[512], bad[512];
	size_t len;

	for (unsigned i = 0; i < 3; i++) {
		nicd__request__init(&requests[i]);
		requests[i].id = i + 1;
	}
	ref.of_case = NICD__REF__OF_ID;
	ref.id = mr;
	range.memory = &ref;
	range.length = 4096;
	reg.mr = &ref;
	reg.n_ranges = 2;
	reg.ranges = ranges;
	hello.major = 1;
	hello.client = (char *)"somebody";
	list.type = NICD__TYPE__MR;
	requests[0].call_case = NICD__REQUEST__CALL_HELLO;
	requests[0].hello = &hello;
	requests[1].call_case = NICD__REQUEST__CALL_REGISTER_MR;
	requests[1].register_mr = &reg;
	requests[2].call_case = NICD__REQUEST__CALL_LIST;
	requests[2].list = &list;
	frame.n_requests = 3;
	frame.requests = pointers;
	len = nicd__frame__pack(&frame, good);
	for (unsigned i = 0; i < 20000; i++) {
		size_t n = roll(&dice, 8) ? len : roll(&dice, (uint32_t)len);

		memcpy(bad, good, len);
		for (unsigned j = roll(&dice, 4); j; j--)
			bad[roll(&dice, (uint32_t)len)] = (uint8_t)roll(&dice, 256);
		if (rig_send_raw(c, bad, n, NULL, 0)) {
			rig_forget(c);
			continue;
		}
		assert_non_null(rig_fatal(c));
		rig_end(c);
		assert_null(c->client);
		TAILQ_REMOVE(&rig->clients, c, next);
		rig_forget(c);
		close(c->sock[0]);
		close(c->sock[1]);
		free(c);
		c = rig_connect(rig, "uid:1", CLIENT_ROLE_CLIENT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_random),
		rig_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
