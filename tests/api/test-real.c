/* SPDX-License-Identifier: MIT */
/*
 * The library against two real nicds (see with-nicd): memory of a client of the first is read and written by a client of
 * the second. Nothing is closed in the teardown but the sessions: with-nicd then looks whether both nicds hold nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/nicd.h"

enum { SIZE = 256 * 1024 };

/* One host's side. */
struct side {
	struct nicd *n;
	struct nicd_buffer *buffer;
	unsigned char *bytes;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
};

struct world {
	struct side owner, peer;
	struct nicd_export *door;
	struct nicd_qp *qp;
	const struct nicd_grant *grant;
};

static struct nicd *session(const char *variable)
{
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = { .size = sizeof(attr), .socket = getenv(variable), .error = &error };
	struct nicd *n = NULL;

	if (nicd_open(&n, &attr) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return n;
}

static void must(struct nicd *n, int r)
{
	char text[512];

	if (r >= 0)
		return;
	nicd_error_print(nicd_last_error(n), text, sizeof(text));
	fail_msg("%s", text);
}

static void open_side(struct side *side, const char *variable, uint32_t flags)
{
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = flags };

	side->n = session(variable);
	must(side->n, nicd_buffer_new(side->n, SIZE, 0, &side->buffer));
	must(side->n, nicd_pd_create(side->n, 0, &side->pd));
	attr.buffer = side->buffer;
	must(side->n, nicd_mr_new(side->pd, &attr, &side->mr));
	side->bytes = nicd_buffer_address(side->buffer);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	open_side(&w->owner, "NICD_TEST_1", NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	open_side(&w->peer, "NICD_TEST_2", NICD_MR_LOCAL_WRITE);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	nicd_free(w->owner.n);
	nicd_free(w->peer.n);
	free(w);
	return 0;
}

static void connect_to(struct world *w, const char *locator)
{
	struct nicd_connect_attr attr = { .size = sizeof(attr), .locator = locator };

	must(w->peer.n, nicd_qp_connect(w->peer.pd, &attr, &w->qp));
	w->grant = nicd_qp_grant(w->qp);
}

static void connect_export(struct world *w, uint64_t offset, uint64_t length, uint32_t flags)
{
	struct nicd_export_attr attr = { .size = sizeof(attr), .name = "test", .flags = flags, .offset = offset, .length = length };

	must(w->owner.n, nicd_export_create(w->owner.mr, &attr, &w->door));
	connect_to(w, nicd_export_locator(w->door));
}

static struct nicd_transfer transfer(const struct world *w, uint64_t local, uint64_t remote, uint32_t length)
{
	return (struct nicd_transfer){
		.local_token = nicd_mr_local_token(w->peer.mr),
		.local_addr = nicd_mr_iova(w->peer.mr) + local,
		.remote_token = w->grant->remote_token,
		.remote_addr = w->grant->iova + remote,
		.length = length,
	};
}

/* --------------------------------------------------------------------------------------------------------------- memory */

/* mutation: memory_finish taking the page size as the size */
static void test_tokens(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_mr *mrs[2] = { w->owner.mr, NULL };
	uint32_t local = 0, remote = 0, locals[2] = { 0 }, remotes[2] = { 0 };

	assert_int_equal(nicd_memory_size(nicd_buffer_memory(w->owner.buffer)), SIZE);
	assert_int_equal(nicd_memory_page_size(nicd_buffer_memory(w->owner.buffer)), 4096);
	assert_int_equal(nicd_memory_writable(nicd_buffer_memory(w->owner.buffer)), 1);
	assert_int_equal(nicd_mr_length(w->owner.mr), SIZE);
	assert_int_equal(nicd_mr_flags(w->owner.mr), 7);
	assert_int_not_equal(nicd_mr_serial(w->owner.mr), 0);
	must(n, nicd_mr_get_local_token(w->owner.mr, &local));
	must(n, nicd_mr_get_remote_token(w->owner.mr, &remote));
	assert_int_equal(local, nicd_mr_local_token(w->owner.mr));
	assert_int_equal(remote, nicd_mr_remote_token(w->owner.mr));
	must(n, nicd_mr_create(w->owner.pd, &mrs[1]));
	must(n, nicd_query_tokens(n, mrs, 2, locals, remotes));
	assert_int_equal(locals[0], local);
	assert_int_equal(remotes[0], remote);
	assert_int_equal(locals[1] | remotes[1], 0);
	assert_int_equal(nicd_mr_get_local_token(mrs[1], &local), -EBUSY);
	assert_string_equal(nicd_last_error(n)->name, "MR_STATE");
	assert_string_equal(nicd_last_error(n)->status, "INVALID_DEVICE_STATE");
	assert_int_equal(nicd_mr_get_remote_token(w->peer.mr, &remote), -EACCES);
	assert_int_equal(nicd_mr_remote_token(w->peer.mr), 0);
}

/* mutation: memory_add sending another descriptor */
static void test_what_cannot_be_handed_over(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_memory *memory = NULL;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(nicd_memory_add(n, STDIN_FILENO, &memory), -EINVAL);
	assert_string_equal(nicd_last_error(n)->name, "MEMORY_NOT_MEMFD");
	assert_true(nicd_last_error(n)->cure[0] != '\0');
	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(nicd_memory_add(n, fd, &memory), -EINVAL);
	assert_string_equal(nicd_last_error(n)->name, "MEMORY_NOT_SEALED");
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(nicd_memory_add(n, fd, &memory), -EINVAL);
	assert_string_equal(nicd_last_error(n)->name, "MEMORY_SPARSE");
	assert_int_equal(nicd_last_error(n)->limit, 8192);
	assert_int_equal(fallocate(fd, 0, 0, 8192), 0);
	must(n, nicd_memory_add(n, fd, &memory));
	close(fd);
	must(n, nicd_memory_close(memory));
}

/* mutation: plan_add_fd registering nothing */
static void test_register_with_descriptor(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ };
	struct nicd_range range = { .offset = 4096, .length = 100 };
	struct nicd_mr *mr;
	uint32_t token;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(fallocate(fd, 0, 0, 8192), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	must(n, nicd_mr_create(w->owner.pd, &mr));
	must(n, nicd_mr_register_fd(mr, fd, &attr));
	assert_int_equal(nicd_mr_length(mr), 8192);
	assert_int_equal(nicd_mr_generation(mr), 1);
	token = nicd_mr_remote_token(mr);
	must(n, nicd_mr_deregister(mr, NULL));
	attr.ranges = &range;
	attr.n_ranges = 1;
	must(n, nicd_mr_register_fd(mr, fd, &attr));
	assert_int_equal(nicd_mr_length(mr), 100);
	assert_int_equal(nicd_mr_generation(mr), 2);
	assert_int_not_equal(nicd_mr_remote_token(mr), token);
	must(n, nicd_mr_close(mr));
	close(fd);
}

/* Two memories as one region, the second first. */
/* mutation: plan_add with all ranges at offset 0 */
static void test_joined_ranges(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ, .n_ranges = 2 };
	struct nicd_range ranges[2] = { { .offset = 4096 + 4000, .length = 96 }, { .offset = 8192, .length = 1000 } };
	struct nicd_export_attr export_attr = { .size = sizeof(export_attr), .name = "joined", .flags = NICD_MR_REMOTE_READ };
	struct nicd_buffer *second;
	struct nicd_transfer t;
	struct nicd_export *door;
	struct nicd_mr *mr;

	must(n, nicd_buffer_new(n, 16384, 0, &second));
	ranges[0].memory = nicd_buffer_memory(second);
	ranges[1].memory = nicd_buffer_memory(w->owner.buffer);
	memset((char *)nicd_buffer_address(second) + 4096 + 4000, 'a', 96);
	memset(w->owner.bytes + 8192, 'b', 1000);
	attr.ranges = ranges;
	must(n, nicd_mr_new(w->owner.pd, &attr, &mr));
	assert_int_equal(nicd_mr_length(mr), 1096);
	assert_int_equal(nicd_mr_iova(mr) % 4096, 4000);
	must(n, nicd_export_create(mr, &export_attr, &door));
	connect_to(w, nicd_export_locator(door));
	t = transfer(w, 0, 0, 1096);
	must(w->peer.n, nicd_qp_read(w->qp, &t, NULL));
	for (int i = 0; i < 1096; i++)
		assert_int_equal(w->peer.bytes[i], i < 96 ? 'a' : 'b');
	ranges[0].length = 95;
	assert_int_equal(nicd_mr_new(w->owner.pd, &attr, &mr), -EINVAL);
	assert_string_equal(nicd_last_error(n)->name, "RANGE_NOT_JOINED");
}

/* ------------------------------------------------------------------------------------------------------------ transfers */

/* mutation: read_start with local and remote address exchanged */
/* mutation: write_start with local and remote token exchanged */
static void test_read_and_write(void **state)
{
	struct world *w = *state;
	struct nicd_completion done = { .size = sizeof(done) };
	struct nicd_qp_info info = { .size = sizeof(info) };
	struct nicd_transfer t;

	for (int i = 0; i < SIZE; i++)
		w->owner.bytes[i] = (unsigned char)(i * 7 + i / 256);
	connect_export(w, 0, 0, NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	assert_int_equal(w->grant->length, SIZE);
	t = transfer(w, 0, 0, SIZE);
	must(w->peer.n, nicd_qp_read(w->qp, &t, &done));
	assert_int_equal(done.entries, 1);
	assert_int_equal(done.bytes, SIZE);
	assert_memory_equal(w->peer.bytes, w->owner.bytes, SIZE);
	memset(w->peer.bytes, 0x77, 5000);
	t = transfer(w, 0, 1001, 5000);
	must(w->peer.n, nicd_qp_write(w->qp, &t, NULL));
	assert_memory_equal(w->owner.bytes + 1001, w->peer.bytes, 5000);
	assert_int_equal(w->owner.bytes[1000], (unsigned char)(1000 * 7 + 3));
	assert_int_equal(w->owner.bytes[6001], (unsigned char)(6001 * 7 + 23));
	must(w->peer.n, nicd_qp_query(w->qp, &info));
	assert_int_equal(info.bytes_read, SIZE);
	assert_int_equal(info.bytes_written, 5000);
	assert_int_equal(info.connected, 1);
	assert_int_equal(info.inbound, 0);
	must(w->peer.n, nicd_qp_flush(w->qp));
	must(w->peer.n, nicd_qp_disconnect(w->qp));
	assert_int_equal(nicd_qp_read(w->qp, &t, NULL), -ENOTCONN);
	assert_string_equal(nicd_last_error(w->peer.n)->name, "QP_STATE");
	/* That was the Qp's connection, not the session's. */
	must(w->peer.n, nicd_qp_close(w->qp));
}

struct told {
	uint64_t connected, notified, count;
	unsigned disconnected;
	void *door, *qp;
};

static void on_told(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	struct told *news = userdata;

	if (event->kind == NICD_EVENT_CONNECTED)
		news->connected = event->serial;
	if (event->kind == NICD_EVENT_NOTIFIED) {
		news->notified = event->serial;
		news->count = event->count;
		news->door = event->object;
	}
	if (event->kind == NICD_EVENT_DISCONNECTED) {
		news->disconnected++;
		news->qp = event->object;
	}
}

struct ended {
	unsigned called;
	int error;
};

static void on_ended(struct nicd *n, int error, void *userdata)
{
	struct ended *ended = userdata;

	ended->called++;
	ended->error = error;
}

/* Both ways, on the peer's Qp and on the owner's handle of its own end. */
/* mutation: send_start or receive_start with two fields exchanged; open_start naming the first Qp there is */
static void test_messages(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_completion got = { .size = sizeof(got) }, sent = { .size = sizeof(sent) };
	struct nicd_message room = { .length = 1000 }, message = { .length = 600, .flags = NICD_OP_SOLICIT_EVENT };
	struct nicd_transfer t;
	struct ended ended = { 0 };
	struct told news = { 0 };
	struct nicd_qp *inbound, *again;

	nicd_set_event_callback(n, on_told, &news);
	connect_export(w, 0, 0, NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	while (!news.connected)
		assert_true(nicd_dispatch(n, 10000) > 0);
	assert_int_equal(nicd_qp_open(n, news.connected + 1000, &inbound), -ENOENT);
	must(n, nicd_qp_open(n, news.connected, &inbound));
	assert_int_equal(nicd_qp_serial(inbound), news.connected);
	assert_int_equal(nicd_qp_open(n, news.connected, &again), -EEXIST);

	room.local_token = nicd_mr_local_token(w->owner.mr);
	room.local_addr = nicd_mr_iova(w->owner.mr) + 5000;
	message.local_token = nicd_mr_local_token(w->peer.mr);
	message.local_addr = nicd_mr_iova(w->peer.mr) + 100;
	memset(w->peer.bytes + 100, 0x5a, 600);
	must(n, nicd_qp_receive_async(inbound, &room, &got, on_ended, &ended));
	must(n, nicd_flush(n));
	must(w->peer.n, nicd_qp_send(w->qp, &message, &sent));
	assert_int_equal(sent.bytes, 600);
	while (!ended.called)
		assert_true(nicd_dispatch(n, 10000) > 0);
	must(n, ended.error);
	assert_int_equal(got.bytes, 600);
	assert_int_equal(got.solicited, 1);
	assert_int_equal(got.invalidated_token, 0);
	assert_memory_equal(w->owner.bytes + 5000, w->peer.bytes + 100, 600);

	/* And back. */
	ended = (struct ended){ 0 };
	room.local_token = message.local_token;
	room.local_addr = nicd_mr_iova(w->peer.mr);
	must(w->peer.n, nicd_qp_receive_async(w->qp, &room, &got, on_ended, &ended));
	must(w->peer.n, nicd_flush(w->peer.n));
	message = (struct nicd_message){ .local_token = nicd_mr_local_token(w->owner.mr), .length = 7,
					 .local_addr = nicd_mr_iova(w->owner.mr) };
	memcpy(w->owner.bytes, "answers", 7);
	must(n, nicd_qp_send(inbound, &message, NULL));
	while (!ended.called)
		assert_true(nicd_dispatch(w->peer.n, 10000) > 0);
	assert_int_equal(got.bytes, 7);
	assert_int_equal(got.solicited, 0);
	assert_memory_equal(w->peer.bytes, "answers", 7);
	room.flags = 1;
	assert_int_equal(nicd_qp_receive(w->qp, &room, NULL), -EINVAL);

	t = transfer(w, 0, 0, 100);
	must(w->peer.n, nicd_qp_write_notify(w->qp, &t, 1, &sent));
	assert_int_equal(sent.entries, 1);
	while (!news.notified)
		assert_true(nicd_dispatch(n, 10000) > 0);
	assert_int_equal(news.notified, nicd_qp_serial(inbound));
	assert_int_equal(news.count, 1);
	assert_non_null(news.door);

	/* The peer goes first: the handle is still there to be closed. */
	must(w->peer.n, nicd_qp_close(w->qp));
	while (!news.disconnected)
		assert_true(nicd_dispatch(n, 10000) > 0);
	assert_ptr_equal(news.qp, inbound);
	must(n, nicd_qp_close(inbound));
	nicd_set_event_callback(n, NULL, NULL);
}

static void count_call(struct nicd *n, int error, void *count)
{
	++*(int *)count;
	assert_int_equal(error, 0);
}

/* Silent work, then a fenced read of what it wrote: one completion for what asks for one, none for the others, and all is done. */
static void test_flags(void **state)
{
	enum { WRITES = 300 };
	struct world *w = *state;
	struct nicd_transfer t;
	struct nicd_work_attr attr = { .size = sizeof(attr), .operation = NICD_WORK_WRITE, .transfers = &t, .count = 1 };
	int silent = 0, loud = 0;

	connect_export(w, 0, 0, NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	attr.flags = NICD_OP_SILENT_SUCCESS | NICD_OP_INLINE | NICD_OP_DEFER;
	for (int i = 0; i < WRITES; i++) {
		char byte = (char)(i + 1);

		t = transfer(w, 0, (uint64_t)i, 1);
		t.local_token = 0;
		attr.inline_data = &byte;
		must(w->peer.n, nicd_qp_post_async(w->qp, &attr, NULL, count_call, &silent));
	}
	t = transfer(w, 0, 0, WRITES);
	attr.operation = NICD_WORK_READ;
	attr.flags = NICD_OP_READ_FENCE;
	must(w->peer.n, nicd_qp_post_async(w->qp, &attr, NULL, count_call, &loud));
	while (!loud)
		assert_true(nicd_dispatch(w->peer.n, 10000) >= 0);
	for (int i = 0; i < WRITES; i++)
		assert_int_equal((char)w->peer.bytes[i], (char)(i + 1));
	must(w->peer.n, nicd_qp_flush(w->qp));
	nicd_dispatch(w->peer.n, 0);
	/* mutation: call back for silent successes, or twice for one */
	assert_int_equal(silent, 0);
	assert_int_equal(loud, 1);
	attr.flags = NICD_OP_SILENT_SUCCESS | NICD_OP_SOLICIT_EVENT;
	assert_int_equal(nicd_qp_post(w->qp, &attr, NULL), -EINVAL);
	assert_string_equal(nicd_last_error(w->peer.n)->name, "OP_FLAGS");
	assert_int_equal(nicd_last_error(w->peer.n)->limit,
			 NICD_OP_SILENT_SUCCESS | NICD_OP_READ_FENCE | NICD_OP_DEFER | NICD_OP_READ_LOCAL_INVALIDATE);
}

/* mutation: submit_list stopping after the first entry */
static void test_transfer_list(void **state)
{
	struct world *w = *state;
	struct nicd_completion done = { .size = sizeof(done) };
	struct nicd_transfer list[64];

	connect_export(w, 0, 0, NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	for (int i = 0; i < 64; i++) {
		list[i] = transfer(w, (uint64_t)i * 100, (uint64_t)(63 - i) * 100, 100);
		memset(w->peer.bytes + i * 100, i, 100);
	}
	must(w->peer.n, nicd_qp_write_list(w->qp, list, 64, &done));
	assert_int_equal(done.entries, 64);
	assert_int_equal(done.bytes, 6400);
	for (int i = 0; i < 64; i++)
		assert_int_equal(w->owner.bytes[(63 - i) * 100 + 99], i);
	memset(w->peer.bytes, 0xff, 6400);
	must(w->peer.n, nicd_qp_read_list(w->qp, list, 64, &done));
	for (int i = 0; i < 64; i++)
		assert_int_equal(w->peer.bytes[i * 100], i);
	/* The third leaves the export. */
	list[2].remote_addr = w->grant->iova + SIZE - 50;
	assert_int_equal(nicd_qp_read_list(w->qp, list, 64, &done), -EREMOTEIO);
	assert_true(done.failed == 2 || done.inexact);
	assert_int_equal(nicd_qp_read_list(w->qp, list, 1, NULL), -ENOTCONN);
}

struct many {
	unsigned called, failed;
};

static void count(struct nicd *n, int error, void *userdata)
{
	struct many *many = userdata;

	many->called++;
	many->failed += error < 0;
}

/* Three frames of requests at once, each with its own place in both memories. */
/* mutation: call_send giving every call the same id */
static void test_many_at_once(void **state)
{
	enum { MANY = 600, EACH = 400 };
	struct world *w = *state;
	struct many many = { 0 };

	for (int i = 0; i < MANY * EACH; i++)
		w->owner.bytes[i] = (unsigned char)(i / EACH + i % EACH);
	connect_export(w, 0, 0, NICD_MR_REMOTE_READ);
	for (unsigned i = 0; i < MANY; i++) {
		struct nicd_transfer t = transfer(w, (uint64_t)i * EACH, (uint64_t)i * EACH, EACH);

		assert_int_equal(nicd_qp_read_async(w->qp, &t, NULL, count, &many), 0);
	}
	while (many.called < MANY)
		assert_true(nicd_dispatch(w->peer.n, 5000) >= 0);
	assert_int_equal(many.called, MANY);
	assert_int_equal(many.failed, 0);
	assert_memory_equal(w->peer.bytes, w->owner.bytes, MANY * EACH);
}

/* Everything from the PD to the locator in one frame, and all handles used before anything is answered. */
/* mutation: call_resolve always using ids */
static void test_one_go(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ };
	struct nicd_export_attr export_attr = { .size = sizeof(export_attr), .name = "at once", .flags = NICD_MR_REMOTE_READ };
	struct many many = { 0 };
	struct nicd_buffer *buffer;
	struct nicd_export *door;
	struct nicd_transfer t;
	struct nicd_pd *pd;
	struct nicd_mr *mr;

	assert_int_equal(nicd_buffer_new_async(n, 4096, 0, &buffer, count, &many), 0);
	memset(nicd_buffer_address(buffer), 0x42, 4096);
	assert_int_equal(nicd_pd_create_async(n, 0, &pd, count, &many), 0);
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_new_async(pd, &attr, &mr, count, &many), 0);
	assert_int_equal(nicd_export_create_async(mr, &export_attr, &door, count, &many), 0);
	while (many.called < 4)
		assert_true(nicd_dispatch(n, 5000) >= 0);
	assert_int_equal(many.failed, 0);
	connect_to(w, nicd_export_locator(door));
	t = transfer(w, 0, 0, 4096);
	must(w->peer.n, nicd_qp_read(w->qp, &t, NULL));
	assert_memory_equal(w->peer.bytes, nicd_buffer_address(buffer), 4096);
	/* NDK's order of closing: any. */
	many = (struct many){ 0 };
	assert_int_equal(nicd_pd_close_async(pd, count, &many), 0);
	assert_int_equal(nicd_buffer_close_async(buffer, count, &many), 0);
	assert_int_equal(nicd_export_close_async(door, count, &many), 0);
	assert_int_equal(nicd_mr_close_async(mr, count, &many), 0);
	while (many.called < 4)
		assert_true(nicd_dispatch(n, 5000) >= 0);
	assert_int_equal(many.failed, 0);
}

/* ------------------------------------------------------------------------------------------------------ what is refused */

/* mutation: export_submit without the offset */
static void test_an_exports_borders(void **state)
{
	static const struct {
		int64_t offset;
		uint32_t length;
		bool write;
		uint32_t token;   /* xor */
		const char *name;   /* NULL: iWARP does not say */
	} cases[] = {
		{ -1, 10, false, 0, "REMOTE_RANGE" },
		{ 4090, 10, false, 0, "REMOTE_RANGE" },
		{ 0, 10, true, 0, NULL },
		{ 0, 10, false, 0x5a5a5a5a, "REMOTE_TOKEN" },
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nicd_transfer t;

		connect_export(w, 8192, 4096, NICD_MR_REMOTE_READ);
		assert_int_equal(w->grant->length, 4096);
		memset(w->owner.bytes, 1, SIZE);
		memset(w->owner.bytes + 8192, 2, 4096);
		t = transfer(w, 0, 0, 4096);
		must(w->peer.n, nicd_qp_read(w->qp, &t, NULL));
		assert_int_equal(w->peer.bytes[0] + w->peer.bytes[4095], 4);
		t = transfer(w, 0, (uint64_t)cases[i].offset, cases[i].length);
		t.remote_token ^= cases[i].token;
		assert_int_equal(cases[i].write ? nicd_qp_write(w->qp, &t, NULL) : nicd_qp_read(w->qp, &t, NULL), -EREMOTEIO);
		if (cases[i].name)
			assert_string_equal(nicd_last_error(w->peer.n)->name, cases[i].name);
		/* The parent's token is no use behind this door. */
		must(w->owner.n, nicd_export_close(w->door));
	}
}

/* mutation: register_finish not storing the tokens */
static void test_local_errors(void **state)
{
	struct world *w = *state;
	struct nicd_transfer t;

	connect_export(w, 0, 0, NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	t = transfer(w, 0, 0, 100);
	t.local_token ^= 1;
	assert_int_equal(nicd_qp_read(w->qp, &t, NULL), -EFAULT);
	assert_string_equal(nicd_last_error(w->peer.n)->name, "LOCAL_TOKEN");
}

/* mutation: connect_submit without the locator */
static void test_connect_errors(void **state)
{
	struct world *w = *state;
	struct nicd_export_attr attr = { .size = sizeof(attr), .name = "once", .flags = NICD_MR_REMOTE_READ };
	struct nicd_connect_attr connect = { .size = sizeof(connect), .locator = "nicd1:AAAA", .timeout_ms = 1000 };
	struct nicd_export *door;
	struct nicd_qp *qp = NULL;

	assert_int_equal(nicd_qp_connect(w->peer.pd, &connect, &qp), -EINVAL);
	assert_string_equal(nicd_last_error(w->peer.n)->name, "LOCATOR");
	must(w->owner.n, nicd_export_create(w->owner.mr, &attr, &door));
	connect_to(w, nicd_export_locator(door));
	/* One use was allowed. */
	connect.locator = nicd_export_locator(door);
	assert_int_equal(nicd_qp_connect(w->peer.pd, &connect, &qp), -ECONNREFUSED);
	assert_null(qp);
	assert_int_equal(nicd_export_create(w->owner.mr, &attr, &door), -EEXIST);
	attr.name = "a/b";
	assert_int_equal(nicd_export_create(w->owner.mr, &attr, &door), -EINVAL);
	attr.name = NULL;
	assert_int_equal(nicd_export_create(w->owner.mr, &attr, &door), -EINVAL);
	assert_string_equal(nicd_last_error(w->owner.n)->name, "STRING");
}

/* mutation: ticket_start sending an export */
static void test_ticket(void **state)
{
	struct world *w = *state;
	struct nicd_ticket_attr attr = { .size = sizeof(attr), .uses = 2 };
	struct nicd_ticket *ticket;
	struct nicd_transfer t;

	must(w->owner.n, nicd_ticket_create(w->owner.mr, &attr, &ticket));
	/* NDK's model: the region's own token. */
	assert_int_equal(nicd_ticket_grant(ticket)->remote_token, nicd_mr_remote_token(w->owner.mr));
	connect_to(w, nicd_ticket_locator(ticket));
	assert_int_equal(w->grant->remote_token, nicd_mr_remote_token(w->owner.mr));
	memset(w->peer.bytes, 0x31, SIZE);
	t = transfer(w, 0, 0, SIZE);
	must(w->peer.n, nicd_qp_write(w->qp, &t, NULL));
	assert_int_equal(w->owner.bytes[SIZE - 1], 0x31);
	must(w->owner.n, nicd_ticket_close(ticket));
}

/* ---------------------------------------------------------------------------------------------------- the end of access */

struct news {
	struct nicd_event last;
	unsigned count[16];
};

static void hear(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	struct news *news = userdata;

	news->last = *event;
	news->count[event->kind & 15]++;
}

/* mutation: receipt_finish not taking the exports */
static void test_deregister(void **state)
{
	struct world *w = *state;
	struct nicd_receipt receipt = { .size = sizeof(receipt) };
	struct nicd_transfer t;

	connect_export(w, 0, 0, NICD_MR_REMOTE_READ);
	t = transfer(w, 0, 0, 100);
	must(w->peer.n, nicd_qp_read(w->qp, &t, NULL));
	must(w->owner.n, nicd_mr_deregister(w->owner.mr, &receipt));
	assert_int_equal(receipt.n_exports, 1);
	assert_int_equal(receipt.exports[0], nicd_export_serial(w->door));
	assert_int_equal(receipt.serial, nicd_mr_serial(w->owner.mr));
	assert_true(receipt.at_ns > UINT64_C(1500000000000000000));
	assert_int_equal(nicd_mr_remote_token(w->owner.mr), 0);
	assert_true(nicd_qp_read(w->qp, &t, NULL) < 0);
	must(w->owner.n, nicd_buffer_close(w->owner.buffer));
	assert_int_equal(nicd_mr_deregister(w->owner.mr, NULL), -EBUSY);
}

/* A second session of the same account revokes by serial; the owner and the peer are told. */
/* mutation: call_event_new not queueing */
static void test_revoke_and_events(void **state)
{
	struct world *w = *state;
	struct nicd *other = session("NICD_TEST_1");
	struct nicd_receipt receipt = { .size = sizeof(receipt) };
	struct news owner = { 0 }, peer = { 0 };
	struct nicd_list *list;
	const struct nicd_item *item;
	unsigned grants = 0;

	nicd_set_event_callback(w->owner.n, hear, &owner);
	nicd_set_event_callback(w->peer.n, hear, &peer);
	connect_export(w, 0, 0, NICD_MR_REMOTE_READ);
	while (!owner.count[NICD_EVENT_CONNECTED])
		assert_true(nicd_dispatch(w->owner.n, 5000) > 0);
	assert_ptr_equal(owner.last.object, w->door);
	assert_int_equal(owner.last.type, NICD_TYPE_EXPORT);
	assert_int_not_equal(owner.last.serial, 0);
	/* Who can touch it. */
	must(other, nicd_list_who(other, nicd_export_serial(w->door), &list));
	while (nicd_list_fetch(list) > 0)
		while ((item = nicd_list_next(list)))
			grants += item->type == NICD_TYPE_GRANT && item->parent == nicd_export_serial(w->door);
	assert_int_equal(grants, 1);
	must(other, nicd_revoke(other, nicd_export_serial(w->door), &receipt));
	assert_int_equal(receipt.serial, nicd_export_serial(w->door));
	assert_int_equal(receipt.grants, 1);
	while (!owner.count[NICD_EVENT_REVOKED])
		assert_true(nicd_dispatch(w->owner.n, 5000) >= 0);
	while (!peer.count[NICD_EVENT_DISCONNECTED])
		assert_true(nicd_dispatch(w->peer.n, 5000) >= 0);
	assert_ptr_equal(peer.last.object, w->qp);
	assert_int_equal(nicd_revoke(other, 999999999, NULL), -ENOENT);
	nicd_free(other);
}

/* -------------------------------------------------------------------------------------------------------------- looking */

static unsigned count_items(struct nicd *n, uint32_t type, uint64_t serial)
{
	const struct nicd_item *item;
	struct nicd_list *list;
	unsigned found = 0;
	int r;

	must(n, nicd_list_new(n, type, &list));
	while ((r = nicd_list_fetch(list)) > 0)
		while ((item = nicd_list_next(list)))
			found += item->type == type && (serial == 0 || item->serial == serial);
	must(n, r);
	nicd_list_free(list);
	return found;
}

/* More items than a page holds. */
/* mutation: list_take not taking the cursor */
static void test_lists(void **state)
{
	enum { MANY = 700 };
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_mr *mrs[MANY];
	struct many many = { 0 };

	assert_int_equal(count_items(n, NICD_TYPE_SESSION, nicd_session(n)->serial), 1);
	assert_int_equal(count_items(n, NICD_TYPE_ADAPTER, 0), nicd_adapter_count(n));
	assert_int_equal(count_items(n, NICD_TYPE_MR, nicd_mr_serial(w->owner.mr)), 1);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(nicd_mr_create_async(w->owner.pd, &mrs[i], count, &many), 0);
	while (many.called < MANY)
		assert_true(nicd_dispatch(n, 5000) >= 0);
	assert_int_equal(many.failed, 0);
	assert_int_equal(count_items(n, NICD_TYPE_MR, 0), MANY + 1);
	must(n, nicd_adapter_query(n, 0));
	assert_true(nicd_adapter(n, 0)->max_mr > 0);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(nicd_mr_close_async(mrs[i], count, &many), 0);
	while (many.called < 2 * MANY)
		assert_true(nicd_dispatch(n, 5000) >= 0);
	assert_int_equal(count_items(n, NICD_TYPE_MR, 0), 1);
}

/* The struct as a later version has it. */
struct newer_extension {
	struct nicd_extension known;
	uint64_t unknown;
};

/* mutation: extension_start naming the adapter for every object */
/* mutation: extension_finish counting what it had room for */
/* mutation: extension_finish filling elements of its own size */
static void test_extensions(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	const void *adapter = nicd_adapter(n, 0);
	struct nicd_extension one = { .size = sizeof(one) };
	struct newer_extension newer[64];
	unsigned room = 1, all, of_mr = 64;
	struct many many = { 0 };

	must(n, nicd_query_extension(n, NICD_TYPE_ADAPTER, adapter, NULL, 0, &one, &room));
	all = room;
	assert_true(all > 1 && strncmp(one.name, "nicd.", 5) == 0 && one.calls[0] && one.version == 1);
	room = 0;
	must(n, nicd_query_extension(n, NICD_TYPE_ADAPTER, adapter, NULL, 0, NULL, &room));
	assert_int_equal(room, all);
	for (int i = 0; i < 64; i++) {
		newer[i].known.size = sizeof(newer[i]);
		newer[i].unknown = 1;
	}
	assert_int_equal(nicd_query_extension_async(n, NICD_TYPE_MR, w->owner.mr, NULL, 0, &newer[0].known, &of_mr, count, &many), 0);
	while (many.called < 1)
		assert_true(nicd_dispatch(n, 5000) >= 0);
	assert_true(of_mr > 0 && of_mr < all);
	for (unsigned i = 0; i < of_mr; i++) {
		assert_true(newer[i].known.objects & 1u << NICD_TYPE_MR);
		assert_int_equal(newer[i].unknown, 0);
		room = 1;
		must(n, nicd_query_extension(n, NICD_TYPE_MR, w->owner.mr, newer[i].known.uuid, 1, &one, &room));
		assert_string_equal(one.name, newer[i].known.name);
		assert_int_equal(nicd_query_extension(n, NICD_TYPE_MR, w->owner.mr, one.uuid, 2, &one, &room), -EOPNOTSUPP);
		assert_string_equal(nicd_last_error(n)->status, "NOT_SUPPORTED");
	}
	assert_int_equal(nicd_query_extension(n, NICD_TYPE_PD, w->owner.mr, NULL, 0, &one, &room), -EINVAL);
	assert_int_equal(nicd_query_extension(n, NICD_TYPE_ADAPTER, w->owner.mr, NULL, 0, &one, &room), -ENODEV);
	one.size = 8;
	assert_int_equal(nicd_query_extension(n, NICD_TYPE_MR, w->owner.mr, NULL, 0, &one, &room), -EINVAL);
	assert_int_equal(nicd_query_extension(n, NICD_TYPE_MR, w->owner.mr, NULL, 0, NULL, NULL), -EINVAL);
}

struct window_news {
	uint64_t connected;
	unsigned revoked;
	void *object;
};

static void on_window(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	struct window_news *news = userdata;

	if (event->kind == NICD_EVENT_CONNECTED)
		news->connected = event->serial;
	if (event->kind == NICD_EVENT_REVOKED) {
		news->revoked++;
		news->object = event->object;
	}
}

static int read_window(const struct world *w, const struct nicd_mw *mw)
{
	struct nicd_transfer t = transfer(w, 0, 0, 64);

	t.remote_token = nicd_mw_remote_token(mw);
	t.remote_addr = nicd_mw_iova(mw);
	return nicd_qp_read(w->qp, &t, NULL);
}

/* mutation: bind_submit with two deps exchanged; invalidate_finish that keeps the token */
static void test_window(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_receipt receipt = { .size = sizeof(receipt) };
	struct nicd_bind_attr attr = { .size = sizeof(attr), .flags = NICD_OP_REMOTE_READ, .mr = w->owner.mr, .length = 64 };
	struct window_news news = { 0 };
	struct ended bound = { 0 }, ended = { 0 };
	uint32_t token = 0;
	struct nicd_qp *inbound;
	struct nicd_mw *mw;

	nicd_set_event_callback(n, on_window, &news);
	connect_export(w, 4096, 4096, NICD_MR_REMOTE_READ);
	while (!news.connected)
		assert_true(nicd_dispatch(n, 10000) > 0);
	must(n, nicd_qp_open(n, news.connected, &inbound));
	must(n, nicd_mw_new(w->owner.pd, &mw));
	assert_true(nicd_mw_serial(mw) > 0);
	assert_int_equal(nicd_mw_get_remote_token(mw, &token), -EBUSY);
	assert_int_equal(nicd_mw_bind(mw, &attr), -EINVAL);
	attr.qp = inbound;
	assert_int_equal(nicd_mw_bind(mw, &attr), -EINVAL);
	attr.iova = nicd_mr_iova(w->owner.mr) + 100;
	must(n, nicd_mw_bind(mw, &attr));
	must(n, nicd_mw_get_remote_token(mw, &token));
	assert_int_equal(token, nicd_mw_remote_token(mw));
	assert_int_equal(nicd_mw_iova(mw), attr.iova);
	assert_int_equal(nicd_mw_length(mw), 64);
	assert_int_equal(nicd_mw_flags(mw), NICD_MR_REMOTE_READ);
	assert_int_equal(nicd_mw_generation(mw), 1);
	memcpy(w->owner.bytes + 100, "window", 7);
	must(w->peer.n, read_window(w, mw));
	assert_string_equal(w->peer.bytes, "window");
	assert_int_equal(nicd_mr_deregister(w->owner.mr, NULL), -EBUSY);
	must(n, nicd_mw_invalidate(mw, inbound, 0, &receipt));
	assert_int_equal(receipt.serial, nicd_mw_serial(mw));
	assert_true(receipt.at_ns > 0);
	assert_int_equal(nicd_mw_remote_token(mw), 0);

	/* One after the other without waiting, the second silently. */
	must(n, nicd_mw_bind_async(mw, &attr, on_ended, &bound));
	must(n, nicd_mw_invalidate_async(mw, inbound, 0, NULL, on_ended, &ended));
	attr.flags |= NICD_OP_SILENT_SUCCESS;
	must(n, nicd_mw_bind_async(mw, &attr, on_ended, &bound));
	while (!ended.called)
		assert_true(nicd_dispatch(n, 10000) > 0);
	must(n, nicd_mw_get_remote_token(mw, &token));
	assert_int_equal(bound.called, 1);
	must(n, bound.error);
	must(n, ended.error);
	assert_int_equal(token, nicd_mw_remote_token(mw));

	must(w->peer.n, nicd_qp_close(w->qp));
	while (!news.revoked)
		assert_true(nicd_dispatch(n, 10000) > 0);
	assert_ptr_equal(news.object, mw);
	assert_int_equal(nicd_mw_get_remote_token(mw, &token), -EBUSY);
	assert_int_equal(nicd_mw_bind(mw, &attr), -EBADF);   /* an inbound Qp goes with its peer */
	must(n, nicd_mw_close(mw));
	must(n, nicd_qp_close(inbound));
	must(n, nicd_mr_deregister(w->owner.mr, NULL));
	nicd_set_event_callback(n, NULL, NULL);
}

static int read_fast(const struct world *w, const struct nicd_mr *mr)
{
	struct nicd_transfer t = transfer(w, 0, 0, 64);

	t.remote_token = nicd_mr_remote_token(mr);
	t.remote_addr = nicd_mr_iova(mr);
	return nicd_qp_read(w->qp, &t, NULL);
}

/* mutation: fast_start with Qp and MR exchanged, or without the offset; invalidate_finish that keeps the tokens */
static void test_fast_register(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->owner.n;
	struct nicd_receipt receipt = { .size = sizeof(receipt) };
	struct nicd_ticket_attr door = { .size = sizeof(door), .uses = 2 };
	struct nicd_range range = { .offset = 4096, .length = 8192 };
	struct nicd_fast_attr attr = {
		.size = sizeof(attr), .flags = NICD_OP_REMOTE_READ, .ranges = &range, .n_ranges = 1, .first_byte_offset = 100,
		.length = 1000, .iova = 0x10000000064 };
	struct nicd_mr_attr normal = { .size = sizeof(normal), .buffer = w->owner.buffer };
	struct window_news news = { 0 };
	struct ended valid = { 0 }, ended = { 0 };
	struct nicd_qp *inbound;
	struct nicd_ticket *ticket;
	uint32_t reserved, token;
	struct nicd_mr *mr;

	nicd_set_event_callback(n, on_window, &news);
	must(n, nicd_ticket_create(w->owner.mr, &door, &ticket));
	connect_to(w, nicd_ticket_locator(ticket));
	must(n, nicd_memory_add(n, nicd_buffer_fd(w->owner.buffer), &range.memory));
	while (!news.connected)
		assert_true(nicd_dispatch(n, 10000) > 0);
	must(n, nicd_qp_open(n, news.connected, &inbound));
	must(n, nicd_mr_create_fast(w->owner.pd, &mr));
	assert_int_equal(nicd_mr_register(mr, &normal), -EINVAL);
	assert_int_equal(nicd_mr_init_fast_register(w->owner.mr, 4, 1), -EINVAL);
	assert_int_equal(nicd_mr_init_fast_register(mr, 1 << 20, 1), -E2BIG);
	must(n, nicd_mr_init_fast_register(mr, 4, 1));
	must(n, nicd_mr_get_remote_token(mr, &reserved));
	assert_int_equal(reserved, nicd_mr_remote_token(mr));
	assert_int_equal(nicd_mr_fast_register(mr, &attr), -EINVAL);   /* without a Qp */
	attr.qp = inbound;
	must(n, nicd_mr_fast_register(mr, &attr));
	assert_int_not_equal(nicd_mr_remote_token(mr), reserved);
	assert_int_equal(nicd_mr_iova(mr), attr.iova);
	assert_int_equal(nicd_mr_length(mr), 1000);
	assert_int_equal(nicd_mr_generation(mr), 1);
	memcpy(w->owner.bytes + 4096 + 100, "fast", 5);
	must(w->peer.n, read_fast(w, mr));
	assert_string_equal(w->peer.bytes, "fast");
	assert_int_equal(nicd_mr_fast_register(mr, &attr), -EBUSY);
	must(n, nicd_mr_invalidate(mr, inbound, 0, &receipt));
	assert_int_equal(receipt.serial, nicd_mr_serial(mr));
	assert_int_equal(nicd_mr_remote_token(mr), 0);
	must(n, nicd_mr_get_remote_token(mr, &token));
	assert_int_equal(token, reserved);
	assert_int_equal(nicd_mr_invalidate(mr, inbound, 0, NULL), -EBUSY);

	/* One after the other without waiting. */
	must(n, nicd_mr_fast_register_async(mr, &attr, on_ended, &valid));
	must(n, nicd_mr_invalidate_async(mr, inbound, NICD_OP_READ_FENCE, NULL, on_ended, &ended));
	while (!ended.called)
		assert_true(nicd_dispatch(n, 10000) > 0);
	must(n, valid.error);
	must(n, ended.error);
	must(n, nicd_mr_fast_register(mr, &attr));
	must(n, nicd_mr_close(mr));
	nicd_set_event_callback(n, NULL, NULL);
}

/* mutation: a mapping that leaves its memory free to go, tells another's address, or names ranges beside a mapping */
static void test_mapping(void **state)
{
	struct world *w = *state;
	struct nicd *n = w->peer.n;
	struct nicd_range range = { .memory = nicd_buffer_memory(w->peer.buffer), .offset = 4096 + 100, .length = 8192 };
	struct nicd_transfer t;
	struct nicd_mapping *mapping, *other;
	struct nicd_memory *memory;
	struct ended built = { 0 };
	uint32_t token, again;

	assert_int_equal(nicd_pd_privileged_token(w->owner.pd, &token), -EACCES);
	assert_int_equal(nicd_mapping_build(n, &range, 0, &mapping), -EINVAL);
	must(n, nicd_mapping_build(n, &range, 1, &mapping));
	assert_int_equal(nicd_mapping_address(mapping) % 4096, 100);
	assert_int_equal(nicd_mapping_length(mapping), 8192);
	assert_int_equal(nicd_mapping_pages(mapping), 3);
	assert_int_not_equal(nicd_mapping_serial(mapping), 0);

	/* Its memory is in use by it. */
	must(n, nicd_memory_add(n, nicd_buffer_fd(w->peer.buffer), &memory));
	range.memory = memory;
	must(n, nicd_mapping_build_async(n, &range, 1, &other, on_ended, &built));
	while (!built.called)
		assert_true(nicd_dispatch(n, 10000) > 0);
	must(n, built.error);
	assert_int_equal(nicd_memory_close(memory), -EBUSY);
	must(n, nicd_mapping_close(other));
	must(n, nicd_memory_close(memory));

	must(n, nicd_pd_privileged_token(w->peer.pd, &token));
	must(n, nicd_pd_privileged_token(w->peer.pd, &again));
	assert_int_equal(token, again);
	connect_export(w, 0, SIZE, NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE);
	t = transfer(w, 0, 0, 8192);
	t.local_token = token;
	t.local_addr = nicd_mapping_address(mapping);
	memset(w->owner.bytes, 7, 8192);
	must(n, nicd_qp_read(w->qp, &t, NULL));
	assert_memory_equal(w->peer.bytes + 4096 + 100, w->owner.bytes, 8192);
	t.local_addr++;
	assert_int_equal(nicd_qp_read(w->qp, &t, NULL), -EFAULT);
	must(n, nicd_mapping_close(mapping));
}

/* mutation: ledger_totals without the sessions */
/* mutation: NICD_OPEN_ADMIN ignored */
static void test_ledger(void **state)
{
	struct world *w = *state;
	struct nicd_open_attr attr = { .size = sizeof(attr), .socket = getenv("NICD_TEST_ADMIN_1") };
	const struct nicd_account *account;
	struct nicd_ledger *ledger;
	struct nicd *admin;
	unsigned used = 0;

	assert_int_equal(nicd_open(&admin, &attr), 0);
	assert_int_equal(nicd_session(admin)->role, NICD_ROLE_ADMIN);
	assert_int_equal(nicd_session(w->owner.n)->role, NICD_ROLE_CLIENT);
	must(admin, nicd_ledger_new(admin, &ledger));
	while (nicd_ledger_fetch(ledger) > 0)
		while ((account = nicd_ledger_next(ledger)))
			for (uint32_t i = 0; i < account->n_charges; i++)
				used += account->charges[i].used > 0;
	assert_true(used >= 3);
	assert_int_equal(nicd_ledger_total(ledger)->sessions, 1);
	assert_true(nicd_ledger_total(ledger)->admin_sessions >= 1);
	assert_true(nicd_ledger_total(ledger)->held_fds >= 1);
	nicd_free(admin);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_tokens),
		test(test_what_cannot_be_handed_over),
		test(test_register_with_descriptor),
		test(test_joined_ranges),
		test(test_read_and_write),
		test(test_messages),
		test(test_transfer_list),
		test(test_flags),
		test(test_many_at_once),
		test(test_one_go),
		test(test_an_exports_borders),
		test(test_local_errors),
		test(test_connect_errors),
		test(test_ticket),
		test(test_deregister),
		test(test_revoke_and_events),
		test(test_lists),
		test(test_extensions),
		test(test_window),
		test(test_fast_register),
		test(test_mapping),
		test(test_ledger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
