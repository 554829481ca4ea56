/* SPDX-License-Identifier: MIT */
/* A session with as little of its own as possible: frames are encoded before the clock starts, replies are counted, not unpacked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/bench.h"

void frame_add(struct frame *frame, Nicd__Request *request)
{
	size_t n = nicd__request__get_packed_size(request), v = n;

	if (frame->len + n + 4 > sizeof frame->data)
		bench_die("the frame is too big");
	frame->data[frame->len++] = 1 << 3 | 2;
	for (; v > 0x7f; v >>= 7)
		frame->data[frame->len++] = (uint8_t)((v & 0x7f) | 0x80);
	frame->data[frame->len++] = (uint8_t)v;
	frame->len += nicd__request__pack(request, frame->data + frame->len);
}

void frame_add_query(struct frame *frame, uint32_t id, uint64_t mr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__GetLocalToken get = NICD__GET_LOCAL_TOKEN__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = mr;
	get.mr = &ref;
	request.id = id;
	request.call_case = NICD__REQUEST__CALL_GET_LOCAL_TOKEN;
	request.get_local_token = &get;
	frame_add(frame, &request);
}

void frame_send(int sock, const struct frame *frame, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { (void *)frame->data, frame->len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		bench_die("send");
}

static Nicd__Frame *peer_receive(struct peer *peer)
{
	ssize_t n = recv(peer->sock, peer->buf, sizeof peer->buf, 0);
	Nicd__Frame *f = n > 0 ? nicd__frame__unpack(NULL, (size_t)n, peer->buf) : NULL;

	if (!f)
		bench_die("nicd ended the session");
	if (f->fatal)
		bench_die(f->fatal->text);
	for (size_t i = 0; i < f->n_replies; i++) {
		const Nicd__Error *e = f->replies[i]->error;
		if (!e)
			continue;
		fprintf(stderr, "bench: refused: %s: %s (limit %llu, observed %llu)\n", e->name, e->text,
			(unsigned long long)e->limit, (unsigned long long)e->observed);
		exit(1);
	}
	return f;
}

unsigned peer_replies(struct peer *peer, bool check)
{
	unsigned replies = 0;

	if (check) {
		Nicd__Frame *f = peer_receive(peer);
		replies = (unsigned)f->n_replies;
		nicd__frame__free_unpacked(f, NULL);
		return replies;
	}
	ssize_t n = recv(peer->sock, peer->buf, sizeof peer->buf, 0);
	if (n <= 0)
		bench_die("nicd ended the session");
	for (const uint8_t *p = peer->buf, *end = p + n; p < end; replies++) {
		size_t len = 0;
		unsigned shift = 0;
		if (*p++ != (2 << 3 | 2))
			bench_die("not a reply");
		do {
			len |= (size_t)(*p & 0x7f) << shift;
			shift += 7;
		} while (*p++ & 0x80);
		p += len;
	}
	return replies;
}

Nicd__Reply *peer_call(struct peer *peer, Nicd__Request *request, int fd)
{
	static struct frame frame;

	request->id = ++peer->next_id;
	request->fds = fd >= 0;
	frame.len = 0;
	frame_add(&frame, request);
	frame_send(peer->sock, &frame, fd);
	Nicd__Frame *f = peer_receive(peer);
	if (f->n_replies != 1 || f->replies[0]->id != request->id)
		bench_die("another reply than expected");
	Nicd__Reply *reply = f->replies[0];
	f->n_replies = 0;
	nicd__frame__free_unpacked(f, NULL);
	return reply;
}

#define REQUEST(field, CASE, message) \
	Nicd__Request request = NICD__REQUEST__INIT; \
	request.call_case = NICD__REQUEST__CALL_##CASE; \
	request.field = &(message)

static void peer_open_at(struct peer *peer, const struct daemon *daemon, const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	Nicd__Hello hello = NICD__HELLO__INIT;

	hello.major = 1;
	hello.client = (char *)"bench";
	snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", daemon->dir, name);
	peer->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	peer->next_id = 0;
	if (connect(peer->sock, (void *)&sun, sizeof sun) < 0)
		bench_die("connect");
	REQUEST(hello, HELLO, hello);
	nicd__reply__free_unpacked(peer_call(peer, &request, -1), NULL);
}

void peer_open(struct peer *peer, const struct daemon *daemon)
{
	peer_open_at(peer, daemon, "nicd.sock");
}

void peer_open_admin(struct peer *peer, const struct daemon *daemon)
{
	peer_open_at(peer, daemon, "admin.sock");
}

uint64_t peer_add_memory(struct peer *peer, int fd)
{
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;
	REQUEST(add_memory, ADD_MEMORY, add);
	Nicd__Reply *r = peer_call(peer, &request, fd);
	uint64_t id = r->memory->id;
	nicd__reply__free_unpacked(r, NULL);
	return id;
}

static uint64_t peer_create(struct peer *peer, Nicd__Request *request)
{
	Nicd__Reply *r = peer_call(peer, request, -1);
	uint64_t id = r->object->id;
	nicd__reply__free_unpacked(r, NULL);
	return id;
}

uint64_t peer_create_pd(struct peer *peer)
{
	Nicd__CreatePd create = NICD__CREATE_PD__INIT;
	REQUEST(create_pd, CREATE_PD, create);
	return peer_create(peer, &request);
}

uint64_t peer_create_mr(struct peer *peer, uint64_t pd)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__CreateMr create = NICD__CREATE_MR__INIT;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = pd;
	create.pd = &ref;
	REQUEST(create_mr, CREATE_MR, create);
	return peer_create(peer, &request);
}

uint64_t peer_create_fast(struct peer *peer, uint64_t pd)
{
	Nicd__Ref ref = NICD__REF__INIT, mr = NICD__REF__INIT;
	Nicd__CreateMr create = NICD__CREATE_MR__INIT;
	Nicd__InitializeFastRegister init = NICD__INITIALIZE_FAST_REGISTER__INIT;

	ref.of_case = mr.of_case = NICD__REF__OF_ID;
	ref.id = pd;
	create.pd = &ref;
	create.fast_register = true;
	REQUEST(create_mr, CREATE_MR, create);
	mr.id = peer_create(peer, &request);
	init.mr = &mr;
	init.adapter_page_count = 16;
	init.remote_access = true;
	Nicd__Request second = NICD__REQUEST__INIT;
	second.call_case = NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER;
	second.initialize_fast_register = &init;
	nicd__reply__free_unpacked(peer_call(peer, &second, -1), NULL);
	return mr.id;
}

uint64_t peer_create_mw(struct peer *peer, uint64_t pd)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__CreateMw create = NICD__CREATE_MW__INIT;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = pd;
	create.pd = &ref;
	REQUEST(create_mw, CREATE_MW, create);
	return peer_create(peer, &request);
}

char *peer_ticket(struct peer *peer, uint64_t mr, uint32_t uses)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__CreateTicket create = NICD__CREATE_TICKET__INIT;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = mr;
	create.mr = &ref;
	create.uses = create.peers = uses;
	REQUEST(create_ticket, CREATE_TICKET, create);
	Nicd__Reply *reply = peer_call(peer, &request, -1);
	char *locator = strdup(reply->door->locator);
	nicd__reply__free_unpacked(reply, NULL);
	return locator;
}

uint64_t peer_connect(struct peer *peer, uint64_t pd, const char *locator)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__ConnectQp to = NICD__CONNECT_QP__INIT;

	ref.of_case = NICD__REF__OF_ID;
	ref.id = pd;
	to.pd = &ref;
	to.locator = (char *)locator;
	REQUEST(connect_qp, CONNECT_QP, to);
	Nicd__Reply *reply = peer_call(peer, &request, -1);
	uint64_t id = reply->qp->id;
	nicd__reply__free_unpacked(reply, NULL);
	return id;
}

void peer_register(struct peer *peer, uint64_t mr, uint64_t memory)
{
	Nicd__Ref mr_ref = NICD__REF__INIT, memory_ref = NICD__REF__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges = &range;
	Nicd__RegisterMr reg = NICD__REGISTER_MR__INIT;

	mr_ref.of_case = memory_ref.of_case = NICD__REF__OF_ID;
	mr_ref.id = mr;
	memory_ref.id = memory;
	range.memory = &memory_ref;
	range.length = 4096;
	reg.mr = &mr_ref;
	reg.n_ranges = 1;
	reg.ranges = &ranges;
	reg.iova = 0x10000;
	reg.flags = NICD__MR_FLAG__MR_ALLOW_REMOTE_WRITE | NICD__MR_FLAG__MR_ALLOW_REMOTE_READ;
	REQUEST(register_mr, REGISTER_MR, reg);
	nicd__reply__free_unpacked(peer_call(peer, &request, -1), NULL);
}
