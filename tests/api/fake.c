/* SPDX-License-Identifier: MIT */
/* The other end of a session, in the test's hand. See fake.h. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/api/fake.h"

enum { FIELD_REPLIES = 2, FIELD_EVENTS = 3 };

unsigned told_count;

unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void tell(struct nicd *n, int error, void *userdata)
{
	struct told *told = userdata;

	told->called++;
	told->error = error;
	told->at = ++told_count;
	snprintf(told->reason, sizeof(told->reason), "%s", error < 0 ? nicd_last_error(n)->name : "");
}

int fake_setup_closed(void **state)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	if (!fake || arena_init(&fake->arena, 4 << 20, 65536) < 0)
		return -1;
	frame_out_init(&fake->out);
	fake->fds_before = count_fds();
	fake->sock = -1;
	told_count = 0;
	*state = fake;
	return 0;
}

int fake_setup(void **state)
{
	struct fake *fake;

	if (fake_setup_closed(state) < 0)
		return -1;
	fake = *state;
	assert_int_equal(fake_open(fake, NULL), 0);
	assert_int_equal(fake_read(fake)->requests[0]->call_case, NICD__REQUEST__CALL_HELLO);
	return 0;
}

void fake_free(struct fake *fake)
{
	nicd_free(fake->n);
	fake->n = NULL;
}

static void fake_close_fds(struct fake *fake)
{
	while (fake->n_fds > 0)
		close(fake->fds[--fake->n_fds]);
}

int fake_teardown(void **state)
{
	struct fake *fake = *state;
	unsigned before = fake->fds_before;

	fake_free(fake);
	fake_hang_up(fake);
	fake_close_fds(fake);
	frame_out_deinit(&fake->out);
	arena_deinit(&fake->arena);
	free(fake);
	assert_int_equal(count_fds(), before);
	return 0;
}

void fake_say_hello(struct fake *fake)
{
	Nicd__AdapterInfo adapter = NICD__ADAPTER_INFO__INIT;
	Nicd__AdapterInfo *adapters[] = { &adapter };
	Nicd__HelloReply hello = NICD__HELLO_REPLY__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	uint8_t boot_id[NICD_BOOT_ID_SIZE] = { 0xb0, 0x07 };

	adapter.id = 0x0100000000000001;
	adapter.serial = 1;
	adapter.name = (char *)"soft0";
	adapter.provider = (char *)"soft";
	adapter.data_address = (char *)"127.0.0.1:7190";
	adapter.up = true;
	hello.major = NICD_MAJOR;
	hello.minor = 3;
	hello.daemon = (char *)"nicd fake";
	hello.account = (char *)"uid:7";
	hello.session = 42;
	hello.boot_id = (ProtobufCBinaryData){ .len = sizeof(boot_id), .data = boot_id };
	hello.adapters = adapters;
	hello.n_adapters = 1;
	reply.id = 1;
	reply.result_case = NICD__REPLY__RESULT_HELLO;
	reply.hello = &hello;
	fake_reply(fake, &reply);
	fake_send(fake);
}

int fake_open(struct fake *fake, struct nicd_open_attr *attr)
{
	struct nicd_open_attr own = { .size = sizeof(own), .client = "test" };
	int pair[2];

	if (!attr)
		attr = &own;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	fake->sock = pair[0];
	attr->fd = pair[1];
	attr->flags |= NICD_OPEN_FD;
	if (attr == &own)
		fake_say_hello(fake);
	return nicd_open(&fake->n, attr);
}

Nicd__Frame *fake_read(struct fake *fake)
{
	struct wire_packet packet;
	Nicd__Frame *frame;
	struct nicd_error why = { 0 };

	fake_close_fds(fake);
	arena_reset(&fake->arena);
	assert_int_equal(wire_recv(fake->sock, fake->in, sizeof(fake->in), &packet), WIRE_PACKET);
	for (int fd; (fd = wire_take_fd(&packet)) >= 0;)
		fake->fds[fake->n_fds++] = fd;
	frame = (Nicd__Frame *)frame_decode(&nicd__frame__descriptor, &fake->arena, packet.data, packet.len, &why);
	assert_int_equal(why.reason, 0);
	assert_non_null(frame);
	return frame;
}

void fake_silent(struct fake *fake)
{
	struct wire_packet packet;

	assert_int_equal(wire_recv(fake->sock, fake->in, sizeof(fake->in), &packet), WIRE_AGAIN);
}

void fake_reply(struct fake *fake, Nicd__Reply *reply)
{
	assert_int_equal(frame_put(&fake->out, FIELD_REPLIES, &reply->base, NULL, 0), 0);
}

void fake_reply_ok(struct fake *fake, uint32_t id)
{
	Nicd__Reply reply = NICD__REPLY__INIT;

	reply.id = id;
	fake_reply(fake, &reply);
}

void fake_reply_object(struct fake *fake, uint32_t id, uint64_t object)
{
	Nicd__ObjectInfo info = NICD__OBJECT_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	info.id = object;
	info.serial = object + 1000;
	reply.id = id;
	reply.result_case = NICD__REPLY__RESULT_OBJECT;
	reply.object = &info;
	fake_reply(fake, &reply);
}

void fake_reply_memory(struct fake *fake, uint32_t id, uint64_t object)
{
	Nicd__MemoryInfo info = NICD__MEMORY_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	info.id = object;
	info.serial = object + 1000;
	info.size = 65536;
	info.page_size = 4096;
	info.writable = true;
	reply.id = id;
	reply.result_case = NICD__REPLY__RESULT_MEMORY;
	reply.memory = &info;
	fake_reply(fake, &reply);
}

void fake_reply_mr(struct fake *fake, uint32_t id, uint32_t local, uint32_t remote)
{
	Nicd__MrTokens info = NICD__MR_TOKENS__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	info.local_token = local;
	info.remote_token = remote;
	info.iova = 0x7000;
	info.length = 4096;
	info.flags = NICD_MR_REMOTE_READ;
	info.generation = 1;
	reply.id = id;
	reply.result_case = NICD__REPLY__RESULT_MR;
	reply.mr = &info;
	fake_reply(fake, &reply);
}

void fake_reply_error(struct fake *fake, uint32_t id, enum nicd_reason reason)
{
	const struct nicd_reason_info *info = nicd_reason_info(reason);
	Nicd__Error error = NICD__ERROR__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	error.status = (Nicd__Status)info->status;
	error.reason = reason;
	error.name = (char *)info->name;
	error.text = (char *)info->text;
	error.cure = (char *)info->cure;
	error.limit = 11;
	error.observed = 22;
	error.provider_error = 5;
	reply.id = id;
	reply.error = &error;
	fake_reply(fake, &reply);
}

void fake_event(struct fake *fake, Nicd__Event__Kind kind, uint64_t object, uint64_t serial)
{
	Nicd__Event event = NICD__EVENT__INIT;

	event.kind = kind;
	event.object = object;
	event.serial = serial;
	assert_int_equal(frame_put(&fake->out, FIELD_EVENTS, &event.base, NULL, 0), 0);
}

void fake_send(struct fake *fake)
{
	assert_int_equal(frame_flush(&fake->out, fake->sock), 0);
}

void fake_send_bytes(struct fake *fake, const void *data, size_t len)
{
	assert_int_equal(send(fake->sock, data, len, MSG_NOSIGNAL), len);
}

void fake_hang_up(struct fake *fake)
{
	if (fake->sock >= 0)
		close(fake->sock);
	fake->sock = -1;
}
