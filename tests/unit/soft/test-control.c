/* SPDX-License-Identifier: MIT */
/*
 * The control socket as bytes see it: what a good controller gets, what a bad one gets, and what is left when either goes. The device is the
 * real one, its engine a fake, the loop real, all in one process.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "fake-engine.h"
#include "nicd/soft/control.h"
#include "nicd/soft/device.h"
#include "proto/frame.h"
#include "proto/soft.pb-c.h"

enum { FIELD_REQUESTS = 1, FIELD_REPLIES = 2, FIELD_EVENTS = 3, FIELD_FATAL = 4, MIB = 1 << 20 };

struct fixture {
	uv_loop_t loop;
	struct soft_control *control;
	unsigned gone;
	bool closed;
	int sock;              /* the controller's end */
	uint32_t id;           /* of the last request */
	struct frame_out out;
	struct arena arena;
	int fds;               /* open at the start */
	uint8_t buf[NICD_FRAME_MAX + 1];
};

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = -3;   /* ".", "..", and the directory itself */

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void on_gone(void *userdata)
{
	((struct fixture *)userdata)->gone++;
}

static void on_closed(void *userdata)
{
	((struct fixture *)userdata)->closed = true;
}

static void turn(struct fixture *f)
{
	for (unsigned i = 0; i < 4; i++)
		uv_run(&f->loop, UV_RUN_NOWAIT);
}

static int join(struct fixture *f)
{
	int pair[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	r = soft_control_admit(f->control, pair[0]);
	f->sock = pair[1];
	return r;
}

static void leave(struct fixture *f)
{
	close(f->sock);
	f->sock = -1;
	turn(f);
}

static void start(struct fixture *f, uid_t uid)
{
	struct soft_control_options options = {.uid = uid, .gone = on_gone, .userdata = f};

	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(soft_control_new(&f->control, &f->loop, &options), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->fds = count_fds();
	start(f, getuid());
	soft_device_advertise(soft_control_device(f->control), "127.0.0.1:7190");
	frame_out_init(&f->out);
	assert_int_equal(arena_init(&f->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS), 0);
	assert_int_equal(join(f), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->sock >= 0)
		close(f->sock);
	soft_control_close(f->control, on_closed, f);
	assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
	assert_true(f->closed);
	soft_control_free(f->control);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	frame_out_deinit(&f->out);
	arena_deinit(&f->arena);
	/* mutation: leave any descriptor open, anywhere in here */
	assert_int_equal(count_fds(), f->fds);
	free(f);
	return 0;
}

/* ---- saying */

static void put(struct fixture *f, Soft__Request *request, int fd)
{
	request->id = request->id ? request->id : ++f->id;
	if (fd >= 0)
		request->fds = 1;
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &request->base, &fd, fd >= 0), 0);
}

static void flush(struct fixture *f)
{
	assert_int_equal(frame_flush(&f->out, f->sock), 0);
	turn(f);
}

static void send_bytes(struct fixture *f, const void *data, size_t len)
{
	assert_int_equal(send(f->sock, data, len, MSG_NOSIGNAL), (ssize_t)len);
	turn(f);
}

#define REQUEST(name, CASE, type, TYPE, ...) \
	Soft__##type name##_message = SOFT__##TYPE##__INIT; \
	Soft__Request name = SOFT__REQUEST__INIT; \
	name.call_case = SOFT__REQUEST__CALL_##TYPE; \
	name.CASE = &name##_message

/* ---- hearing */

/* The next frame, valid until the next one is read; NULL: nothing there. */
static Soft__Frame *hear(struct fixture *f)
{
	struct wire_packet packet;
	struct nicd_error err;
	Soft__Frame *frame;

	arena_reset(&f->arena);
	if (wire_recv(f->sock, f->buf, sizeof(f->buf), &packet) != WIRE_PACKET)
		return NULL;
	assert_int_equal(packet.n_fds, 0);
	frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &f->arena, packet.data, packet.len, &err);
	assert_non_null(frame);
	assert_int_equal(frame->n_requests, 0);
	return frame;
}

/* The frame with the one reply to the last request. */
static Soft__Reply *hear_reply(struct fixture *f)
{
	Soft__Frame *frame = hear(f);

	assert_non_null(frame);
	assert_int_equal(frame->n_replies, 1);
	assert_int_equal(frame->replies[0]->id, f->id);
	return frame->replies[0];
}

static Soft__Reply *ask_fd(struct fixture *f, Soft__Request *request, int fd)
{
	put(f, request, fd);
	flush(f);
	return hear_reply(f);
}

static Soft__Reply *ask(struct fixture *f, Soft__Request *request)
{
	return ask_fd(f, request, -1);
}

static uint64_t say_hello(struct fixture *f, bool keep)
{
	Soft__Reply *reply;
	REQUEST(request, hello, Hello, HELLO);

	request.hello->major = NICD_MAJOR;
	request.hello->keep = keep;
	reply = ask(f, &request);
	assert_int_equal(reply->reason, NICD_R_NONE);
	assert_int_equal(reply->result_case, SOFT__REPLY__RESULT_HELLO);
	assert_string_equal(reply->hello->data_address, "127.0.0.1:7190");
	assert_int_not_equal(reply->hello->incarnation, 0);
	return reply->hello->incarnation;
}

static int memfd(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static uint32_t attach(struct fixture *f, uint64_t serial, uint64_t size)
{
	REQUEST(request, attach_memory, AttachMemory, ATTACH_MEMORY);

	request.attach_memory->serial = serial;
	request.attach_memory->size = size;
	request.attach_memory->writable = true;
	return ask_fd(f, &request, memfd(size))->reason;
}

/* One page of memory 1; the message for reuse. */
static Soft__AddTag *add_terms(Soft__AddTag *add, Soft__TagRange *range, Soft__TagRange **pointer, uint64_t serial)
{
	*range = (Soft__TagRange)SOFT__TAG_RANGE__INIT;
	range->memory = 1;
	range->length = NICD_PAGE;
	*pointer = range;
	*add = (Soft__AddTag)SOFT__ADD_TAG__INIT;
	add->serial = serial;
	add->generation = 1;
	add->pd = 5;
	add->n_ranges = 1;
	add->ranges = pointer;
	add->iova = 0x1000;
	add->length = NICD_PAGE;
	add->rights = 2;
	return add;
}

static Soft__Reply *add_tag(struct fixture *f, uint64_t serial)
{
	Soft__TagRange range, *pointer;
	REQUEST(request, add_tag, AddTag, ADD_TAG);

	add_terms(request.add_tag, &range, &pointer, serial);
	return ask(f, &request);
}

static Soft__StatsReply *stats(struct fixture *f)
{
	Soft__Reply *reply;
	REQUEST(request, stats, Stats, STATS);

	reply = ask(f, &request);
	assert_int_equal(reply->result_case, SOFT__REPLY__RESULT_STATS);
	return reply->stats;
}

/* ---- the good controller */

static void test_hello_rules(void **state)
{
	struct fixture *f = *state;
	Soft__Reply *reply;
	REQUEST(hello, hello, Hello, HELLO);
	REQUEST(early, stats, Stats, STATS);

	/* mutation: run commands before Hello */
	assert_int_equal(ask(f, &early)->reason, NICD_R_HELLO_FIRST);
	assert_int_equal(add_tag(f, 10)->reason, NICD_R_HELLO_FIRST);
	hello.hello->major = NICD_MAJOR + 1;
	reply = ask(f, &hello);
	/* mutation: take any version */
	assert_int_equal(reply->reason, NICD_R_VERSION);
	assert_int_equal(reply->limit, NICD_MAJOR * 1000 + NICD_MINOR);
	say_hello(f, false);
	hello.id = 0;
	hello.hello->major = NICD_MAJOR;
	/* mutation: let a second Hello drop everything */
	assert_int_equal(ask(f, &hello)->reason, NICD_R_HELLO_AGAIN);
	assert_int_equal(stats(f)->half_open, 7);
}

static void test_tag_life(void **state)
{
	struct fixture *f = *state;
	Soft__Reply *reply;
	uint32_t local, remote;
	REQUEST(detach, detach_memory, DetachMemory, DETACH_MEMORY);
	REQUEST(drop, drop_tag, DropTag, DROP_TAG);

	say_hello(f, false);
	assert_int_equal(attach(f, 1, 2 * NICD_PAGE), NICD_R_NONE);
	reply = add_tag(f, 10);
	assert_int_equal(reply->result_case, SOFT__REPLY__RESULT_TAGS);
	local = reply->tags->local_token;
	remote = reply->tags->remote_token;
	assert_true(local && remote && local != remote);
	/* Said again, it answers what it answered before. */
	reply = add_tag(f, 10);
	assert_int_equal(reply->tags->local_token, local);
	assert_int_equal(reply->tags->remote_token, remote);
	detach.detach_memory->serial = 1;
	reply = ask(f, &detach);
	assert_int_equal(reply->reason, NICD_R_DEVICE_BUSY);
	assert_int_equal(reply->observed, 1);
	drop.drop_tag->serial = 10;
	drop.drop_tag->generation = 1;
	reply = ask(f, &drop);
	assert_int_equal(reply->result_case, SOFT__REPLY__RESULT_DROPPED);
	drop.id = 0;
	assert_int_equal(ask(f, &drop)->reason, NICD_R_NONE);
	detach.id = 0;
	assert_int_equal(ask(f, &detach)->reason, NICD_R_NONE);
	assert_int_equal(stats(f)->memories, 0);
	assert_int_equal(stats(f)->quarantined_tokens, 2);
}

/* A drop that waits for nobody answers an AddTag or DropTag that does, and that is over then. */
static void test_overtaken(void **state)
{
	for (unsigned drops = 0; drops < 2; drops++) {
		unsigned forgotten = fake.turns_forgotten;
		struct fixture *f = *state;
		Soft__TagRange range, *pointer;
		Soft__Frame *frame;
		REQUEST(add, add_tag, AddTag, ADD_TAG);
		REQUEST(ordered, drop_tag, DropTag, DROP_TAG);
		REQUEST(drop, drop_tag, DropTag, DROP_TAG);

		if (drops == 0) {
			say_hello(f, false);
			assert_int_equal(attach(f, 1, 2 * NICD_PAGE), NICD_R_NONE);
		} else {
			add_tag(f, 10);
		}
		fake.turn = SOFT_TURN_LATER;
		fake.turn_has_come = drops;
		add_terms(add.add_tag, &range, &pointer, 10);
		add.add_tag->stream = ordered.drop_tag->stream = 5;
		ordered.drop_tag->serial = drop.drop_tag->serial = 10;
		ordered.drop_tag->generation = drop.drop_tag->generation = 1;
		put(f, drops ? &ordered : &add, -1);
		put(f, &drop, -1);
		flush(f);
		/* mutation: leave what waits in its queue, or answer a drop with a refusal; compare serials only */
		frame = hear(f);
		assert_non_null(frame);
		assert_int_equal(frame->replies[0]->id, f->id - 1);
		assert_int_equal(frame->replies[0]->reason, drops ? NICD_R_NONE : NICD_R_FLUSHED);
		if (frame->n_replies == 1)
			assert_int_equal(hear_reply(f)->reason, NICD_R_NONE);
		else
			assert_int_equal(frame->replies[1]->reason, NICD_R_NONE);
		/* mutation: leave it in the queue of the stream, where nobody counts it; free it although it is about to be told */
		assert_int_equal(fake.turns_forgotten - forgotten, !fake.turn_has_come);
		/* mutation: add it when its turn comes after all */
		fake_end_post(NICD_R_NONE, 0);
		fake.turn = SOFT_TURN_NOW;
		assert_int_equal(stats(f)->tags, 0);
	}
}

/* Answers to some go before the next ones are dropped: nicd works on meanwhile, and streams have their share. */
static void test_drops_in_turns(void **state)
{
	enum { FRAMES = 2 * WIRE_PROBE_TURNS, MORE = 255 };   /* most turns ask for one packet only: one of these asks for more */
	struct fixture *f = *state;
	static uint64_t serials[MORE];
	static uint32_t generations[MORE];
	Soft__Frame *frame;
	REQUEST(query, stats, Stats, STATS);

	say_hello(f, false);
	for (unsigned i = 0; i < FRAMES; i++) {
		REQUEST(drop, drop_tag, DropTag, DROP_TAG);

		drop.drop_tag->serial = 10;
		drop.drop_tag->n_more_serials = drop.drop_tag->n_more_generations = MORE;
		drop.drop_tag->more_serials = serials;
		drop.drop_tag->more_generations = generations;
		put(f, &drop, -1);
		assert_int_equal(frame_flush(&f->out, f->sock), 0);
	}
	put(f, &query, -1);
	assert_int_equal(frame_flush(&f->out, f->sock), 0);
	for (unsigned i = 0; i < FRAMES; i++) {
		uv_run(&f->loop, UV_RUN_NOWAIT);   /* the answers go when the next turn begins */
		uv_run(&f->loop, UV_RUN_NOWAIT);
		frame = hear(f);
		assert_non_null(frame);
		/* mutation: run all that there is, and answer then; or begin no new turn after so many */
		assert_int_equal(frame->n_replies, 1);
		assert_int_equal(frame->replies[0]->id, f->id - FRAMES + i);
	}
	turn(f);
	assert_int_equal(hear_reply(f)->reason, NICD_R_NONE);
}

/* Unmapping much takes turns of the loop; the answer comes after the last, and other commands meanwhile. */
static void test_slow_detach(void **state)
{
	struct fixture *f = *state;
	Soft__Frame *frame;
	REQUEST(detach, detach_memory, DetachMemory, DETACH_MEMORY);
	REQUEST(query, stats, Stats, STATS);

	say_hello(f, false);
	attach(f, 1, 256 * MIB);
	detach.detach_memory->serial = 1;
	put(f, &detach, -1);
	put(f, &query, -1);
	assert_int_equal(frame_flush(&f->out, f->sock), 0);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	frame = hear(f);
	/* mutation: unmap all in the command */
	assert_int_equal(frame->n_replies, 1);
	assert_int_equal(frame->replies[0]->id, query.id);
	for (unsigned i = 0; i < 80; i++)
		turn(f);
	frame = hear(f);
	assert_int_equal(frame->replies[0]->id, detach.id);
	assert_int_equal(frame->replies[0]->reason, NICD_R_NONE);
}

/* A frame's answers leave in a frame. */
static void test_coalesced(void **state)
{
	struct fixture *f = *state;
	Soft__Frame *frame;

	say_hello(f, false);
	for (unsigned i = 0; i < NICD_FRAME_REQUESTS; i++) {
		REQUEST(request, stats, Stats, STATS);

		put(f, &request, -1);
	}
	flush(f);
	frame = hear(f);
	/* mutation: send every reply by itself */
	assert_int_equal(frame->n_replies, NICD_FRAME_REQUESTS);
	assert_int_equal(frame->replies[255]->id, f->id);
	assert_null(hear(f));
}

static void test_list(void **state)
{
	enum { N = 3000 };
	struct fixture *f = *state;
	static bool seen[N];
	uint64_t cursor = 0;
	unsigned n = 0, pages = 0;
	Soft__Reply *reply;

	memset(seen, 0, sizeof(seen));
	say_hello(f, false);
	attach(f, 1, NICD_PAGE);
	for (unsigned i = 0; i < N; i++) {
		Soft__TagRange range, *pointer;
		REQUEST(request, add_tag, AddTag, ADD_TAG);

		add_terms(request.add_tag, &range, &pointer, 100000 - i);
		put(f, &request, -1);
		if (i % 200 == 199)
			flush(f);
	}
	while (hear(f))
		;
	do {
		REQUEST(request, list, List, LIST);

		request.list->kind = SOFT__LIST__KIND__TAG;
		request.list->cursor = cursor;
		reply = ask(f, &request);
		assert_int_equal(reply->result_case, SOFT__REPLY__RESULT_LIST);
		for (size_t i = 0; i < reply->list->n_entries; i++, n++) {
			Soft__Entry *entry = reply->list->entries[i];

			/* mutation: leave one out, or say one twice, at a page's end or within */
			assert_true(entry->serial <= 100000 && entry->serial > 100000 - N);
			assert_false(seen[100000 - entry->serial]);
			seen[100000 - entry->serial] = true;
			assert_int_equal(entry->generation, 1);
			assert_int_equal(entry->size, NICD_PAGE);
		}
		cursor = reply->list->cursor;
		pages++;
	} while (cursor);
	/* mutation: leave out the entry at a page's end, or say it twice */
	assert_int_equal(n, N);
	assert_int_equal(pages, 3);
}

static void test_list_kinds(void **state)
{
	struct fixture *f = *state;
	Soft__Reply *reply;
	REQUEST(request, list, List, LIST);

	say_hello(f, false);
	attach(f, 1, 3 * NICD_PAGE);
	reply = ask(f, &request);
	assert_int_equal(reply->list->n_entries, 1);
	assert_int_equal(reply->list->entries[0]->size, 3 * NICD_PAGE);
	assert_int_equal(reply->list->cursor, 0);
	fake.n_streams = 1;
	fake.streams[0] = (struct soft_stream_info){.stream = 1ull << 63 | 4, .posted = 6};
	request.id = 0;
	request.list->kind = SOFT__LIST__KIND__STREAM;
	reply = ask(f, &request);
	assert_int_equal(reply->list->n_entries, 1);
	assert_true(reply->list->entries[0]->serial == (1ull << 63 | 4));
	assert_int_equal(reply->list->entries[0]->count, 6);
	request.id = 0;
	request.list->kind = (Soft__List__Kind)4;
	/* mutation: index the table of kinds with whatever came */
	assert_int_equal(ask(f, &request)->reason, NICD_R_VALUE);
	request.id = 0;
	request.list->kind = (Soft__List__Kind)-1;
	assert_int_equal(ask(f, &request)->reason, NICD_R_VALUE);
}

static void test_streams(void **state)
{
	struct fixture *f = *state;
	Soft__Reply *reply;
	Soft__Frame *frame;
	uint8_t ticket[NICD_TICKET_SIZE] = {7}, entries[2 * NICD_TRANSFER_ENTRY_SIZE] = {9};
	char address[] = "127.0.0.2:7190";
	REQUEST(connect, connect, Connect, CONNECT);
	REQUEST(post, post, Post, POST);
	REQUEST(flushing, flush, Flush, FLUSH);
	REQUEST(query, query_stream, QueryStream, QUERY_STREAM);
	REQUEST(disconnect, disconnect, Disconnect, DISCONNECT);

	say_hello(f, false);
	connect.connect->stream = 50;
	connect.connect->address = address;
	connect.connect->ticket.data = ticket;
	connect.connect->ticket.len = sizeof(ticket);
	put(f, &connect, -1);
	flush(f);
	assert_null(hear(f));
	assert_int_equal(fake.connect.timeout_ms, 10000);
	assert_memory_equal(fake.connect.ticket, ticket, sizeof(ticket));
	fake_end_connect(NICD_R_NONE);
	turn(f);
	reply = hear_reply(f);
	assert_string_equal(reply->connected->peer, "127.0.0.2:7190");
	assert_int_equal(reply->connected->grant->incarnation, 5);

	post.post->stream = 50;
	post.post->operation = SOFT__POST__OPERATION__WRITE;
	post.post->entries.data = entries;
	post.post->entries.len = sizeof(entries);
	put(f, &post, -1);
	flushing.flush->stream = 50;
	put(f, &flushing, -1);
	flush(f);
	assert_int_equal(fake.operation, NIC_WRITE);
	assert_int_equal(fake.post_entries, 2);
	assert_int_equal(fake.first_entry[0], 9);
	frame = hear(f);
	assert_int_equal(frame->n_replies, 2);
	/* mutation: answer the flush before what it flushed */
	assert_int_equal(frame->replies[0]->id, post.id);
	assert_int_equal(frame->replies[0]->reason, NICD_R_FLUSHED);
	/* mutation: leave the completion out of a failed post's reply */
	assert_int_equal(frame->replies[0]->completion->entries, 3);
	assert_int_equal(frame->replies[1]->reason, NICD_R_NONE);

	query.query_stream->stream = 50;
	assert_int_equal(ask(f, &query)->reason, NICD_R_QP_STATE);
	fake.n_streams = 1;
	fake.streams[0] = (struct soft_stream_info){.stream = 50, .connected = true, .counters = {1, 2, 3, 4}};
	query.id = 0;
	reply = ask(f, &query);
	assert_true(reply->stream->connected);
	assert_int_equal(reply->stream->peer_written, 4);
	disconnect.disconnect->stream = 50;
	assert_int_equal(ask(f, &disconnect)->reason, NICD_R_NONE);
	assert_int_equal(fake.disconnected, 50);
}

/* More notices than a controller that does not read can be told: they wait, and it is not given up for them. */
static void test_notices(void **state)
{
	struct fixture *f = *state;
	const Soft__Frame *frame;
	unsigned heard = 0;

	say_hello(f, false);
	fake.notices = 1000000;
	for (unsigned i = 0; i < 50; i++)
		turn(f);
	/* mutation: put all of them at once (the controller ends at 8 MiB of events) */
	assert_in_range(fake.noticed, 1, 999999);
	for (unsigned i = 0; i < 20 && (frame = hear(f)); i++) {
		heard += frame->n_events;
		turn(f);
	}
	assert_true(heard > 0);
	fake.notices = 0;
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[NICD_TRANSFER_ENTRIES * NICD_TRANSFER_ENTRY_SIZE + NICD_TRANSFER_ENTRY_SIZE] = {0};
	char address[] = "127.0.0.2:7190", name[] = "localhost:7190";
	Soft__TagRange range, *ranges[NICD_RANGES + 1];
	REQUEST(connect, connect, Connect, CONNECT);
	REQUEST(post, post, Post, POST);
	REQUEST(add, add_tag, AddTag, ADD_TAG);
	REQUEST(drop, drop_tag, DropTag, DROP_TAG);
	static uint64_t serials[256];
	static uint32_t generations[256];

	say_hello(f, false);
	connect.connect->stream = 50;
	connect.connect->address = address;
	connect.connect->ticket.data = bytes;
	connect.connect->ticket.len = NICD_TICKET_SIZE;
	connect.connect->timeout_ms = 1;
	/* mutation: use a pending request after its callback came early */
	assert_int_equal(ask(f, &connect)->reason, NICD_R_CONNECT);
#define REFUSED(message, change, undo, why) \
	do { \
		message.id = 0; \
		change; \
		assert_int_equal(ask(f, &message)->reason, why); \
		undo; \
	} while (0)
	/* mutation: copy a ticket of whatever length */
	REFUSED(connect, connect.connect->ticket.len = 15, connect.connect->ticket.len = 16, NICD_R_VALUE);
	/* mutation: let the controller use the numbers of inbound streams */
	REFUSED(connect, connect.connect->stream = 1ull << 63, connect.connect->stream = 50, NICD_R_VALUE);
	REFUSED(connect, connect.connect->stream = 0, connect.connect->stream = 50, NICD_R_VALUE);
	REFUSED(connect, connect.connect->timeout_ms = 60001, connect.connect->timeout_ms = 1, NICD_R_VALUE);
	REFUSED(connect, connect.connect->address = name, connect.connect->address = address, NICD_R_CONNECT);

	post.post->stream = 50;
	post.post->entries.data = bytes;
	/* mutation: post what is not whole entries */
	REFUSED(post, post.post->entries.len = 33, , NICD_R_TRANSFER_ENTRIES);
	REFUSED(post, post.post->entries.len = 0, , NICD_R_TRANSFER_ENTRIES);
	REFUSED(post, post.post->entries.len = sizeof(bytes), post.post->entries.len = 32, NICD_R_TRANSFER_ENTRIES);
	/* mutation: index the table of operations with whatever came */
	REFUSED(post, post.post->operation = (Soft__Post__Operation)3, , NICD_R_VALUE);
	REFUSED(post, post.post->operation = (Soft__Post__Operation)-2, , NICD_R_VALUE);

	add_terms(add.add_tag, &range, ranges, 1);
	for (unsigned i = 0; i <= NICD_RANGES; i++)
		ranges[i] = &range;
	/* mutation: copy more ranges than there is room for */
	REFUSED(add, add.add_tag->n_ranges = NICD_RANGES + 1, , NICD_R_COUNT);
	drop.drop_tag->more_serials = serials;
	drop.drop_tag->more_generations = generations;
	/* mutation: read a generation for each serial, or write down more cuts than there is room for */
	REFUSED(drop, drop.drop_tag->n_more_serials = 2, , NICD_R_COUNT);
	REFUSED(drop, drop.drop_tag->n_more_serials = drop.drop_tag->n_more_generations = 256, , NICD_R_COUNT);
#undef REFUSED
	assert_int_equal(stats(f)->tags, 0);
	assert_int_equal(f->gone, 0);
}

static Soft__AddTicket *ticket_terms(Soft__AddTicket *add, uint8_t hash[NICD_TICKET_HASH_SIZE], uint64_t serial)
{
	static uint8_t secret[NICD_TICKET_SIZE];

	secret[0] = (uint8_t)serial;
	locator_ticket_hash(secret, hash);
	add->serial = serial;
	add->hash.data = hash;
	add->hash.len = NICD_TICKET_HASH_SIZE;
	add->pd = 5;
	add->uses = 1;
	add->max_streams = 1;
	add->ttl_ms = 60000;
	return add;
}

static void test_tickets(void **state)
{
	struct fixture *f = *state;
	uint8_t hash[NICD_TICKET_HASH_SIZE];
	Soft__Reply *reply;
	REQUEST(add, add_ticket, AddTicket, ADD_TICKET);
	REQUEST(drop, drop_ticket, DropTicket, DROP_TICKET);

	say_hello(f, false);
	ticket_terms(add.add_ticket, hash, 20);
	add.add_ticket->hash.len = 31;
	/* mutation: copy a hash of whatever length */
	assert_int_equal(ask(f, &add)->reason, NICD_R_VALUE);
	add.add_ticket->hash.len = 32;
	add.add_ticket->ttl_ms = 0;
	add.id = 0;
	/* mutation: take a ttl of 0 for without end */
	assert_int_equal(ask(f, &add)->reason, NICD_R_VALUE);
	add.add_ticket->ttl_ms = 60000;
	add.id = 0;
	assert_int_equal(ask(f, &add)->reason, NICD_R_NONE);
	assert_int_equal(stats(f)->tickets, 1);
	fake.cuts = 3;
	fake.cut = 0;
	drop.drop_ticket->serial = 20;
	reply = ask(f, &drop);
	assert_int_equal(reply->dropped->streams_cut, 0);
	/* mutation: cut streams that are to stay */
	assert_int_equal(fake.cut, 0);
	drop.id = 0;
	drop.drop_ticket->cut = true;
	assert_int_equal(ask(f, &drop)->dropped->streams_cut, 3);
	assert_int_equal(fake.cut, 20);
	assert_int_equal(stats(f)->tickets, 0);
}

static void put_shut(struct fixture *f, uint64_t serial)
{
	REQUEST(drop, drop_ticket, DropTicket, DROP_TICKET);

	drop.drop_ticket->serial = serial;
	drop.drop_ticket->cut = true;
	put(f, &drop, -1);
}

static void assert_shut(struct fixture *f, const Soft__Reply *reply, uint32_t id, uint32_t streams_cut)
{
	assert_int_equal(reply->id, id);
	assert_int_equal(reply->reason, NICD_R_NONE);
	assert_int_equal(reply->dropped->streams_cut, streams_cut);
}

/* A door with many inside is shut in turns, and answered when the last is out; so is the one behind it. Who asks for something else does not wait. */
static void test_doors_in_turns(void **state)
{
	struct fixture *f = *state;
	Soft__Frame *frame;
	uint32_t first;

	say_hello(f, true);
	fake.cuts = 3;
	fake.more_cuts = 2;
	put_shut(f, 20);
	first = f->id;
	put_shut(f, 21);
	assert_int_equal(frame_flush(&f->out, f->sock), 0);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	/* mutation: answer when the first turn is over */
	assert_null(hear(f));
	/* mutation: begin with the second in the turn of the first, which has used it up */
	assert_int_equal(fake.cut, 20);
	assert_true(soft_device_in_flight(soft_control_device(f->control), first));
	for (unsigned n = 0; n < 2;) {
		turn(f);
		frame = hear(f);
		for (size_t i = 0; frame && i < frame->n_replies; i++, n++)
			assert_shut(f, frame->replies[i], first + n, n == 0 ? 9 : 3);
	}
	assert_int_equal(fake.cut, 21);
}

/* mutation: forget them with who asked, or with the device */
static void test_doors_without_controller(void **state)
{
	struct fixture *f = *state;

	say_hello(f, true);
	fake.more_cuts = 3;
	put_shut(f, 20);
	put_shut(f, 21);
	assert_int_equal(frame_flush(&f->out, f->sock), 0);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	leave(f);
	turn(f);
	assert_int_equal(fake.cut, 21);
	assert_int_equal(fake.more_cuts, 0);
	assert_int_equal(join(f), 0);
	say_hello(f, true);
	fake.more_cuts = 1000;
	put_shut(f, 22);
	put_shut(f, 23);
	assert_int_equal(frame_flush(&f->out, f->sock), 0);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(fake.cut, 22);
}

/* A stream opens, which spends the door; closes; another door expires by the clock. */
static void test_events(void **state)
{
	struct fixture *f = *state;
	struct nicd_error why = {.reason = NICD_R_PEER_CLOSED};
	struct nic_counters counters = {.peer_read = 11};
	struct soft_ticket seen = {.serial = 20};
	uint8_t hash[NICD_TICKET_HASH_SIZE];
	Soft__Frame *frame;
	REQUEST(one, add_ticket, AddTicket, ADD_TICKET);
	REQUEST(two, add_ticket, AddTicket, ADD_TICKET);

	/* mutation: tell events to who has not said Hello */
	fake.events.opened(fake.events.userdata, 1ull << 63, &seen, "127.0.0.1:1");
	turn(f);
	assert_null(hear(f));
	say_hello(f, false);
	ticket_terms(one.add_ticket, hash, 20);
	ask(f, &one);
	fake.events.opened(fake.events.userdata, 1ull << 63, &seen, "127.0.0.1:4711");
	/* mutation: tell it at the end of the turn */
	frame = hear(f);
	/* A use is left: not spent. */
	assert_int_equal(frame->n_events, 1);
	assert_int_equal(frame->events[0]->kind, SOFT__EVENT__KIND__STREAM_OPENED);
	assert_int_equal(frame->events[0]->door, 20);
	assert_string_equal(frame->events[0]->peer, "127.0.0.1:4711");
	fake.events.closed(fake.events.userdata, 1ull << 63, &why, &counters);
	turn(f);
	frame = hear(f);
	assert_int_equal(frame->events[0]->kind, SOFT__EVENT__KIND__STREAM_CLOSED);
	assert_int_equal(frame->events[0]->reason, NICD_R_PEER_CLOSED);
	assert_int_equal(frame->events[0]->counters->peer_read, 11);
	ticket_terms(two.add_ticket, hash, 21);
	two.add_ticket->ttl_ms = 1;
	ask(f, &two);
	for (unsigned i = 0; i < 100 && !(frame = hear(f)); i++) {
		usleep(1000);
		turn(f);
	}
	/* mutation: never set the timer, or set it to the last to expire */
	assert_non_null(frame);
	assert_int_equal(frame->events[0]->kind, SOFT__EVENT__KIND__DOOR_EXPIRED);
	assert_int_equal(frame->events[0]->door, 21);
}

/* ---- who may */

static void test_one_at_a_time(void **state)
{
	struct fixture *f = *state;
	int first = f->sock, second;

	say_hello(f, false);
	/* mutation: admit a second controller */
	assert_int_equal(join(f), -EBUSY);
	second = f->sock;
	assert_int_equal(recv(second, f->buf, 1, 0), 0);
	close(second);
	f->sock = first;
	assert_int_equal(stats(f)->half_open, 7);
	/* The first has gone, and nobody was told yet when the next one comes. */
	close(first);
	/* mutation: turn away the successor of one that has hung up */
	assert_int_equal(join(f), 0);
	assert_int_equal(f->gone, 1);
	say_hello(f, false);
}

static void test_other_uid(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	start(f, getuid() + 1);
	/* mutation: admit whoever connects */
	assert_int_equal(join(f), -EPERM);
	assert_int_equal(recv(f->sock, f->buf, 1, 0), 0);
	close(f->sock);
	soft_control_close(f->control, on_closed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	soft_control_free(f->control);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
}

/* ---- what is left */

static void test_gone(void **state)
{
	struct fixture *f = *state;
	uint64_t first = say_hello(f, false);
	unsigned resets = fake.resets;

	attach(f, 1, NICD_PAGE);
	add_tag(f, 10);
	leave(f);
	assert_int_equal(f->gone, 1);
	/* mutation: keep serving for a controller that did not ask for it */
	assert_true(fake.resets > resets);
	join(f);
	/* mutation: keep the incarnation of tags that died */
	assert_true(say_hello(f, true) != first);
	assert_int_equal(stats(f)->tags, 0);
	assert_int_equal(stats(f)->memories, 0);
	assert_int_equal(stats(f)->quarantined_tokens, 2);
}

static void test_keep(void **state)
{
	struct fixture *f = *state;
	uint64_t first = say_hello(f, true);
	uint32_t token;

	attach(f, 1, NICD_PAGE);
	token = add_tag(f, 10)->tags->remote_token;
	leave(f);
	/* One that comes and goes without a word changes nothing. */
	join(f);
	leave(f);
	join(f);
	/* mutation: drop what shall be kept, or what a silent one did not make */
	assert_true(say_hello(f, true) == first);
	assert_int_equal(add_tag(f, 10)->tags->remote_token, token);
	leave(f);
	join(f);
	/* mutation: keep what the new controller does not want */
	assert_true(say_hello(f, false) != first);
	assert_int_equal(stats(f)->tags, 0);
}

/* What was asked for and not answered is answered to nobody; the next one may use the id. */
static void test_orphans(void **state)
{
	struct fixture *f = *state;
	uint8_t ticket[NICD_TICKET_SIZE] = {0};
	char address[] = "127.0.0.2:7190";
	REQUEST(connect, connect, Connect, CONNECT);

	connect.connect->stream = 50;
	connect.connect->address = address;
	connect.connect->ticket.data = ticket;
	connect.connect->ticket.len = sizeof(ticket);
	say_hello(f, true);
	put(f, &connect, -1);
	flush(f);
	leave(f);
	join(f);
	f->id = 0;
	say_hello(f, true);
	/* mutation: answer the old controller's request to the new one */
	fake_end_connect(NICD_R_NONE);
	turn(f);
	assert_null(hear(f));
	/* mutation: hold the ids of a controller that is gone */
	assert_int_equal(stats(f)->tags, 0);
	/* And one that is left when everything ends is freed with it. */
	connect.id = 0;
	put(f, &connect, -1);
	flush(f);
}

/* A device full of tags is emptied in many turns; Hello waits for the end of it, and whoever goes meanwhile is not waited for. */
static void test_long_drop(void **state)
{
	enum { N = 40000 };
	struct fixture *f = *state;
	uint64_t first = say_hello(f, true);
	Soft__Frame *frame = NULL;
	unsigned turns = 0;
	REQUEST(hello, hello, Hello, HELLO);

	attach(f, 1, NICD_PAGE);
	for (unsigned i = 0; i < N; i++) {
		Soft__TagRange range, *pointer;
		REQUEST(request, add_tag, AddTag, ADD_TAG);

		add_terms(request.add_tag, &range, &pointer, 100 + i);
		put(f, &request, -1);
		if (i % 200 == 199) {
			flush(f);
			while (hear(f))
				;
		}
	}
	assert_int_equal(stats(f)->tags, N);
	leave(f);
	hello.hello->major = NICD_MAJOR;
	/* The first goes before it is answered. */
	for (int i = 0; i < 2; i++) {
		join(f);
		hello.id = 0;
		put(f, &hello, -1);
		assert_int_equal(frame_flush(&f->out, f->sock), 0);
		uv_run(&f->loop, UV_RUN_NOWAIT);
		/* mutation: drop all in one turn */
		assert_null(hear(f));
		if (i == 0)
			leave(f);
	}
	/* A second Hello of the same one. mutation: two Hellos wait */
	hello.id = 0;
	hello.hello->keep = true;
	assert_int_equal(ask(f, &hello)->reason, NICD_R_HELLO_AGAIN);
	while (!(frame = hear(f))) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		turns++;
	}
	assert_true(turns >= 2);
	assert_int_equal(frame->n_replies, 1);
	/* mutation: answer the one that is gone */
	assert_int_equal(frame->replies[0]->id, f->id - 1);
	assert_true(frame->replies[0]->hello->incarnation != first);
	/* mutation: answer before all is gone */
	assert_int_equal(stats(f)->tags, 0);
	assert_int_equal(stats(f)->memories, 0);
	assert_int_equal(add_tag(f, 10)->reason, NICD_R_SERIAL);
}

/* ---- the bad controller */

/* The end: a Fatal with this reason, the end of the socket, and nothing of the device left. */
static void assert_ended(struct fixture *f, enum nicd_reason reason)
{
	Soft__Frame *frame = hear(f);

	assert_non_null(frame);
	assert_non_null(frame->fatal);
	assert_int_equal(frame->fatal->reason, reason);
	assert_int_equal(recv(f->sock, f->buf, 1, 0), 0);
	assert_int_equal(f->gone, 1);
	close(f->sock);
	join(f);
	say_hello(f, true);
	assert_int_equal(stats(f)->memories, 0);
	assert_int_equal(stats(f)->tags, 0);
}

static struct fixture *prepared(void **state)
{
	struct fixture *f = *state;

	say_hello(f, false);
	attach(f, 1, NICD_PAGE);
	add_tag(f, 10);
	return f;
}

static void test_undecodable(void **state)
{
	struct fixture *f = prepared(state);

	send_bytes(f, "\x0a\xff", 2);
	/* mutation: ignore what cannot be decoded */
	assert_ended(f, NICD_R_FRAME_UNDECODABLE);
}

static void test_too_big(void **state)
{
	struct fixture *f = prepared(state);
	int size = 4 * NICD_FRAME_MAX;

	setsockopt(f->sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	send_bytes(f, f->buf, NICD_FRAME_MAX + 1);
	/* mutation: take an oversize packet for the end of the socket */
	assert_ended(f, NICD_R_FRAME_TOO_BIG);
}

static void test_empty_frame(void **state)
{
	struct fixture *f = prepared(state);

	send_bytes(f, "\x78\x01", 2);   /* an unknown field and nothing else */
	assert_ended(f, NICD_R_FRAME_EMPTY);
}

static void test_budget(void **state)
{
	struct fixture *f = prepared(state);

	for (unsigned i = 0; i < NICD_FRAME_MAX; i += 2)
		memcpy(f->buf + i, "\x0a\x00", 2);
	send_bytes(f, f->buf, NICD_FRAME_MAX);
	/* mutation: decode without a budget */
	assert_ended(f, NICD_R_FRAME_BUDGET);
}

static void test_direction(void **state)
{
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Event event = SOFT__EVENT__INIT;
	Soft__Fatal fatal = SOFT__FATAL__INIT;
	const struct {
		unsigned field;
		const ProtobufCMessage *message;
	} wrong[] = {{FIELD_REPLIES, &reply.base}, {FIELD_EVENTS, &event.base}, {FIELD_FATAL, &fatal.base}};
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		f->gone = 0;
		assert_int_equal(frame_put(&f->out, wrong[i].field, wrong[i].message, NULL, 0), 0);
		flush(f);
		/* mutation: ignore replies, events or Fatal from a controller */
		assert_ended(f, NICD_R_FRAME_DIRECTION);
		leave(f);
		join(f);
	}
}

static void test_too_many_requests(void **state)
{
	struct fixture *f = prepared(state);
	uint8_t frame[257 * 5], *at = frame;

	/* Requests {id}, by hand: frame_put would start a second frame. */
	for (unsigned i = 1; i <= 257; i++, at += 5)
		memcpy(at, (const uint8_t[]){0x0a, 0x03, 0x08, 0x80 | (i & 0x7f), (uint8_t)(i >> 7)}, 5);
	send_bytes(f, frame, (size_t)(at - frame));
	/* mutation: accept 257 requests (the table of ids seen would run full) */
	assert_ended(f, NICD_R_FRAME_REQUESTS);
}

static void test_bad_ids(void **state)
{
	static const uint8_t zero[] = {0x0a, 0x03, 0xba, 0x01, 0x00};
	static const uint8_t twice[] = {0x0a, 0x05, 0x08, 0x07, 0xba, 0x01, 0x00, 0x0a, 0x05, 0x08, 0x07, 0xba, 0x01, 0x00};
	struct fixture *f = *state;
	uint8_t ticket[NICD_TICKET_SIZE] = {0};
	char address[] = "127.0.0.2:7190";
	REQUEST(connect, connect, Connect, CONNECT);
	REQUEST(same, stats, Stats, STATS);

	send_bytes(f, zero, sizeof(zero));
	/* mutation: accept request id 0 */
	assert_ended(f, NICD_R_REQUEST_ID);
	f->gone = 0;
	send_bytes(f, twice, sizeof(twice));
	/* mutation: accept an id twice in a frame */
	assert_ended(f, NICD_R_REQUEST_ID);
	f->gone = 0;
	connect.connect->stream = 50;
	connect.connect->address = address;
	connect.connect->ticket.data = ticket;
	connect.connect->ticket.len = sizeof(ticket);
	put(f, &connect, -1);
	flush(f);
	same.id = connect.id;
	put(f, &same, -1);
	flush(f);
	/* mutation: accept an id that is in flight */
	assert_ended(f, NICD_R_REQUEST_ID);
}

static void test_no_call(void **state)
{
	static const uint8_t request[] = {0x0a, 0x02, 0x08, 0x07};
	static const uint8_t newer[] = {0x0a, 0x05, 0x08, 0x07, 0xfa, 0x06, 0x00};   /* field 111 */
	struct fixture *f = *state;

	send_bytes(f, request, sizeof(request));
	/* mutation: look up a call that is none */
	assert_ended(f, NICD_R_REQUEST_EMPTY);
	f->gone = 0;
	send_bytes(f, newer, sizeof(newer));
	assert_ended(f, NICD_R_REQUEST_EMPTY);
}

static void test_bad_fds(void **state)
{
	struct fixture *f = prepared(state);
	int fds[NICD_FRAME_FDS + 1], before = count_fds();
	union {
		char bytes[CMSG_SPACE(sizeof(fds))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(char *)"x", 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	REQUEST(missing, attach_memory, AttachMemory, ATTACH_MEMORY);
	REQUEST(surplus, stats, Stats, STATS);
	REQUEST(two, attach_memory, AttachMemory, ATTACH_MEMORY);

	missing.fds = 1;
	put(f, &missing, -1);
	flush(f);
	/* mutation: let a request name descriptors that did not come */
	assert_ended(f, NICD_R_FRAME_FDS_MISMATCH);

	f->gone = 0;
	fds[0] = memfd(1);
	surplus.id = ++f->id;
	assert_int_equal(frame_put(&f->out, FIELD_REQUESTS, &surplus.base, fds, 1), 0);
	flush(f);
	/* mutation: keep descriptors that nobody named */
	assert_ended(f, NICD_R_FRAME_FDS_MISMATCH);

	/* Named, but not what the call takes: refused, closed, and the next request still gets its own. */
	f->gone = 0;
	surplus.id = 0;
	put(f, &surplus, dup(f->sock));
	two.attach_memory->serial = 9;
	two.attach_memory->size = 100;
	put(f, &two, memfd(100));
	flush(f);
	{
		Soft__Frame *frame = hear(f);

		assert_int_equal(frame->n_replies, 2);
		/* mutation: ignore descriptors that a call does not take */
		assert_int_equal(frame->replies[0]->reason, NICD_R_FDS);
		assert_int_equal(frame->replies[0]->limit, 0);
		assert_int_equal(frame->replies[1]->reason, NICD_R_NONE);
	}
	assert_int_equal(stats(f)->memories, 1);

	for (unsigned i = 0; i < NICD_FRAME_FDS + 1; i++)
		fds[i] = f->sock;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	assert_int_equal(sendmsg(f->sock, &msg, 0), 1);
	turn(f);
	/* mutation: go on after descriptors were lost */
	{
		Soft__Frame *frame = hear(f);

		assert_int_equal(frame->fatal->reason, NICD_R_FRAME_FDS_TRUNCATED);
	}
	assert_int_equal(count_fds(), before - 1);   /* the server's end is closed */
}

/* A controller that asks and does not listen is not read from; when it listens again it gets every answer. */
static void test_back_pressure(void **state)
{
	struct fixture *f = *state;
	uint32_t asked = 0, heard = 0;
	unsigned stuck = 0;
	Soft__Frame *frame;

	say_hello(f, false);
	attach(f, 1, NICD_PAGE);
	for (unsigned i = 0; i < 1024; i++) {
		Soft__TagRange range, *pointer;
		REQUEST(request, add_tag, AddTag, ADD_TAG);

		add_terms(request.add_tag, &range, &pointer, 1000 + i);
		put(f, &request, -1);
	}
	flush(f);
	while (hear(f))
		;
	for (unsigned i = 0; i < 3000 && stuck < 20; i++) {
		REQUEST(request, list, List, LIST);

		request.list->kind = SOFT__LIST__KIND__TAG;
		put(f, &request, -1);
		asked++;
		stuck = frame_flush(&f->out, f->sock) < 0 ? stuck + 1 : 0;
		turn(f);
	}
	/* mutation: read on, however much is queued */
	assert_int_equal(stuck, 20);
	/* mutation: wait for reading while nothing is read (the loop would spin) */
	assert_int_equal(poll(&(struct pollfd){.fd = uv_backend_fd(&f->loop), .events = POLLIN}, 1, 0), 0);
	for (unsigned i = 0; i < 10000 && heard < asked; i++) {
		frame_flush(&f->out, f->sock);
		turn(f);
		while ((frame = hear(f)))
			heard += (uint32_t)frame->n_replies;
	}
	/* mutation: never read again */
	assert_int_equal(heard, asked);
}

/* Events cannot wait for ever either. */
static void test_events_unread(void **state)
{
	struct fixture *f = *state;
	struct nic_counters counters = {0};
	unsigned i;

	say_hello(f, false);
	for (i = 0; i < 1000000 && f->gone == 0; i++) {
		fake.events.closed(fake.events.userdata, 1ull << 63 | i, NULL, &counters);
		if (i % 1000 == 0)
			turn(f);
	}
	/* mutation: queue events without bound */
	assert_int_equal(f->gone, 1);
	assert_true(i > 10000);
}

/* One of every call, some with descriptors, most of them acceptable. */
static void put_any(struct fixture *f, unsigned which)
{
	static uint8_t hash[NICD_TICKET_HASH_SIZE], entries[2 * NICD_TRANSFER_ENTRY_SIZE];
	static char address[] = "127.0.0.2:7190";
	Soft__TagRange range, *pointer;
	Soft__GrantInfo grant = SOFT__GRANT_INFO__INIT;
	REQUEST(hello, hello, Hello, HELLO);
	REQUEST(attaching, attach_memory, AttachMemory, ATTACH_MEMORY);
	REQUEST(detach, detach_memory, DetachMemory, DETACH_MEMORY);
	REQUEST(add, add_tag, AddTag, ADD_TAG);
	REQUEST(drop, drop_tag, DropTag, DROP_TAG);
	REQUEST(ticket, add_ticket, AddTicket, ADD_TICKET);
	REQUEST(untick, drop_ticket, DropTicket, DROP_TICKET);
	REQUEST(connect, connect, Connect, CONNECT);
	REQUEST(post, post, Post, POST);
	REQUEST(list, list, List, LIST);
	REQUEST(query, query_stream, QueryStream, QUERY_STREAM);
	Soft__Request *all[] = {&hello, &attaching, &detach, &add, &drop, &ticket, &untick, &connect, &post, &list, &query};
	Soft__Request *request = all[which % (sizeof(all) / sizeof(all[0]))];

	hello.hello->major = NICD_MAJOR;
	attaching.attach_memory->serial = 1;
	attaching.attach_memory->size = 2 * NICD_PAGE;
	attaching.attach_memory->writable = true;
	detach.detach_memory->serial = 1;
	add_terms(add.add_tag, &range, &pointer, 10);
	drop.drop_tag->serial = 10;
	drop.drop_tag->generation = 1;
	ticket_terms(ticket.add_ticket, hash, 20);
	ticket.add_ticket->grant = &grant;
	untick.drop_ticket->serial = 20;
	untick.drop_ticket->cut = true;
	connect.connect->stream = 50;
	connect.connect->address = address;
	connect.connect->ticket.data = hash;
	connect.connect->ticket.len = NICD_TICKET_SIZE;
	post.post->stream = 50;
	post.post->entries.data = entries;
	post.post->entries.len = sizeof(entries);
	list.list->kind = (Soft__List__Kind)(which % 4);
	put(f, request, request == &attaching ? memfd(2 * NICD_PAGE) : -1);
}

/* What the frames of this test look like on the wire, so that they can be spoiled. */
static size_t frame_bytes(struct fixture *f, uint8_t *buf, int *fd)
{
	struct wire_packet packet;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(frame_flush(&f->out, pair[0]), 0);
	assert_int_equal(wire_recv(pair[1], buf, NICD_FRAME_MAX + 1, &packet), WIRE_PACKET);
	*fd = wire_take_fd(&packet);
	wire_release(&packet);
	close(pair[0]);
	close(pair[1]);
	return packet.len;
}

/* Thousands of spoiled frames: every one is answered, refused, or ends the connection, and nothing leaks. */
static void test_spoiled(void **state)
{
	struct fixture *f = *state;
	unsigned ended = 0, answered = 0;
	uint8_t *buf = malloc(NICD_FRAME_MAX + 1);

	srand(7);
	say_hello(f, false);
	for (unsigned i = 0; i < 4000; i++) {
		Soft__Frame *frame;
		size_t len;
		int fd;

		for (unsigned n = (unsigned)rand() % 4 + 1, which = (unsigned)rand(); n > 0; n--)
			put_any(f, which++);
		len = frame_bytes(f, buf, &fd);
		for (unsigned n = (unsigned)rand() % 4; n > 0; n--)
			buf[(size_t)rand() % len] ^= (uint8_t)(1u << rand() % 8);
		wire_send(f->sock, buf, len - (size_t)(rand() % 8 == 0), &fd, fd >= 0);
		if (fd >= 0)
			close(fd);
		turn(f);
		f->gone = 0;
		while ((frame = hear(f))) {
			answered += frame->n_replies > 0;
			ended += frame->fatal != NULL;
			if (!frame->fatal)
				continue;
			close(f->sock);
			assert_int_equal(join(f), 0);
			say_hello(f, i % 2);
			break;
		}
	}
	/* mutation: go on after a violation */
	assert_true(ended > 300 && answered > 300);
	free(buf);
}

/* libuv's first loop opens descriptors that it keeps for the process. */
static int warm_up(void **state)
{
	uv_loop_t loop;

	return uv_loop_init(&loop) < 0 || uv_loop_close(&loop) < 0 ? -1 : 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(hello_rules), TEST(tag_life), TEST(overtaken), TEST(drops_in_turns), TEST(slow_detach), TEST(coalesced), TEST(list), TEST(list_kinds),
		TEST(streams), TEST(notices), TEST(refused), TEST(tickets), TEST(doors_in_turns), TEST(doors_without_controller), TEST(events), TEST(one_at_a_time),
		cmocka_unit_test(test_other_uid), TEST(gone), TEST(keep), TEST(orphans), TEST(long_drop), TEST(undecodable), TEST(too_big),
		TEST(empty_frame), TEST(budget), TEST(direction), TEST(too_many_requests), TEST(bad_ids), TEST(no_call),
		TEST(bad_fds), TEST(spoiled), TEST(back_pressure), TEST(events_unread),
	};

	return cmocka_run_group_tests(tests, warm_up, NULL);
}
