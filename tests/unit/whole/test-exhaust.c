/* SPDX-License-Identifier: MIT */
/*
 * A client that makes every request there is, while the n-th allocation fails, in nicd or in nicd-soft, for n from 1
 * until it passes untouched; and the same with the n-th descriptor. Each time every request has a typed answer or the
 * session has ended, nothing is left, and the next client is served in full, unless the device itself was lost: then
 * the next one is told so. The linker puts functions of this file in place of those of the C library in our own code.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "whole.h"

enum { CONNECT_MS = 400, SIZE = 8192 };

/* ---- what fails */

enum resource { NOTHING, MEMORY, DESCRIPTORS, FLIGHT };

static struct {
	enum resource what;   /* that fails, while armed */
	unsigned until;       /* until one fails */
	bool on;              /* and all after it */
	bool failed;
	long live;            /* allocations of our own code */
} lack;

static bool fails(enum resource what)
{
	if (lack.what != what || (lack.failed && !lack.on))
		return false;
	if (!lack.failed && --lack.until > 0)
		return false;
	lack.failed = true;
	errno = what == MEMORY ? ENOMEM : what == FLIGHT ? ETOOMANYREFS : EMFILE;
	return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *mem, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *mem);
int __real_socket(int domain, int type, int protocol);
int __real_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __real_fcntl64(int fd, int cmd, long arg);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
ssize_t __real_recvmsg(int fd, struct msghdr *msg, int flags);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *mem, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *mem);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_fcntl64(int fd, int cmd, long arg);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);

void *__wrap_malloc(size_t size)
{
	if (fails(MEMORY))
		return NULL;
	__atomic_add_fetch(&lack.live, 1, __ATOMIC_RELAXED);
	return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	if (fails(MEMORY))
		return NULL;
	__atomic_add_fetch(&lack.live, 1, __ATOMIC_RELAXED);
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *mem, size_t size)
{
	if (fails(MEMORY))
		return NULL;
	__atomic_add_fetch(&lack.live, !mem, __ATOMIC_RELAXED);
	return __real_realloc(mem, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	if (fails(MEMORY))
		return NULL;
	__atomic_add_fetch(&lack.live, 1, __ATOMIC_RELAXED);
	return __real_aligned_alloc(align, size);
}

void __wrap_free(void *mem)
{
	__atomic_sub_fetch(&lack.live, mem != NULL, __ATOMIC_RELAXED);
	__real_free(mem);
}

int __wrap_socket(int domain, int type, int protocol)
{
	return fails(DESCRIPTORS) ? -1 : __real_socket(domain, type, protocol);
}

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int taken = __real_accept4(fd, addr, len, flags);

	/* Only one that there is something for. The kernel would keep the connection; here it is lost, which is worse. */
	if (taken < 0 || !fails(DESCRIPTORS))
		return taken;
	close(taken);
	errno = EMFILE;
	return -1;
}

int __wrap_fcntl64(int fd, int cmd, long arg)
{
	return (cmd == F_DUPFD_CLOEXEC || cmd == F_DUPFD) && fails(DESCRIPTORS) ? -1 : __real_fcntl64(fd, cmd, arg);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	enum { PEERPIDFD = 77 };

	return level == SOL_SOCKET && name == PEERPIDFD && fails(DESCRIPTORS) ? -1 : __real_getsockopt(fd, level, name, value, len);
}

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	return number == SYS_pidfd_open && fails(DESCRIPTORS) ? -1 : __real_syscall(number, a, b, c, d, e, f);
}

/* The kernel gives what fits into the table, and says that it was not all. */
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t n = __real_recvmsg(fd, msg, flags);
	struct cmsghdr *c = n > 0 && msg->msg_control ? CMSG_FIRSTHDR(msg) : NULL;
	int came;

	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(sizeof(int)) || !fails(DESCRIPTORS))
		return n;
	for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
		memcpy(&came, CMSG_DATA(c) + i * sizeof(int), sizeof(came));
		close(came);
	}
	msg->msg_controllen = 0;
	msg->msg_flags |= MSG_CTRUNC;
	return n;
}

/* Nothing with descriptors can be sent now: the user has too many of them in flight. */
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return msg->msg_controllen && fails(FLIGHT) ? -1 : __real_sendmsg(fd, msg, flags);
}

/* ---- the script */

static struct script {
	struct whole_client client;
	Nicd__Request requests[32], *pointers[32];
	Nicd__Ref refs[64];
	unsigned n, n_refs;
	uint32_t next;
	int fds[4];
	unsigned n_fds;
	bool all;                     /* each has succeeded so far */
	enum nicd_reason first;       /* what the first one that has not was told */
} s;

static Nicd__Ref *some_ref(void)
{
	Nicd__Ref *ref = &s.refs[s.n_refs++];

	assert_true(s.n_refs <= 64);
	nicd__ref__init(ref);
	return ref;
}

static Nicd__Ref *id_ref(uint64_t id)
{
	Nicd__Ref *ref = some_ref();

	ref->of_case = NICD__REF__OF_ID;
	ref->id = id;
	return ref;
}

static Nicd__Ref *result_ref(uint32_t request)
{
	Nicd__Ref *ref = some_ref();

	ref->of_case = NICD__REF__OF_RESULT_OF;
	ref->result_of = request;
	return ref;
}

/* Its request id. */
static uint32_t say(Nicd__Request__CallCase call, void *args)
{
	Nicd__Request *request = &s.requests[s.n];

	assert_true(s.n < 32);
	nicd__request__init(request);
	request->id = ++s.next;
	request->call_case = call;
	request->hello = args;
	s.pointers[s.n++] = request;
	return request->id;
}

static int memfd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0 && ftruncate(fd, SIZE) == 0 && fallocate(fd, 0, 0, SIZE) == 0);
	/* Not through our own fcntl. */
	assert_int_equal(__real_fcntl64(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	return fd;
}

static uint32_t say_with_memory(Nicd__Request__CallCase call, void *args)
{
	uint32_t id = say(call, args);

	s.requests[s.n - 1].fds = 1;
	s.fds[s.n_fds++] = memfd();
	return id;
}

/* Sends what was said. Each answer is success, or says what is wrong. */
static void ask(void)
{
	whole_ask(&s.client, s.pointers, s.n, s.fds, s.n_fds);
	for (unsigned i = 0; i < s.n; i++) {
		const Nicd__Reply *reply = whole_reply(&s.client, s.requests[i].id);

		if (reply && !reply->error)
			continue;
		if (s.all)
			s.first = reply ? (enum nicd_reason)reply->error->reason : NICD_R_NO_MEMORY;
		s.all = false;
		if (reply) {
			assert_string_equal(reply->error->name, nicd_reason_info((enum nicd_reason)reply->error->reason)->name);
			assert_int_not_equal(reply->error->reason, NICD_R_INTERNAL);
		}
	}
	while (s.n_fds)
		close(s.fds[--s.n_fds]);
	s.n = s.n_refs = 0;
}

static const Nicd__Reply *good(uint32_t id)
{
	const Nicd__Reply *reply = whole_reply(&s.client, id);

	return reply && !reply->error ? reply : NULL;
}

/* What the first act leaves for those that follow. */
struct props {
	uint64_t adapter, memory, pd, mr, mr_local, ticket, export, export_serial, qp[2], fast, window, mapping;
	uint32_t local_token;
	uint64_t local_iova;
	Nicd__Grant grant[2];
	char locators[2][256];
};

static uint64_t object_of(uint32_t id)
{
	const Nicd__Reply *reply = good(id);

	return reply && reply->result_case == NICD__REPLY__RESULT_OBJECT ? reply->object->id : 0;
}

static void act_objects(struct props *p)
{
	Nicd__Hello hello = NICD__HELLO__INIT;
	Nicd__AddMemory add = NICD__ADD_MEMORY__INIT;
	Nicd__CreatePd pd = NICD__CREATE_PD__INIT;
	Nicd__CreateMr mr[2] = { NICD__CREATE_MR__INIT, NICD__CREATE_MR__INIT };
	Nicd__RegisterMr reg[2] = { NICD__REGISTER_MR__INIT, NICD__REGISTER_MR__INIT };
	Nicd__Range range[2] = { NICD__RANGE__INIT, NICD__RANGE__INIT }, *ranges[2] = { &range[0], &range[1] };
	Nicd__GetLocalToken local = NICD__GET_LOCAL_TOKEN__INIT;
	Nicd__GetRemoteToken remote = NICD__GET_REMOTE_TOKEN__INIT;
	Nicd__CreateTicket ticket = NICD__CREATE_TICKET__INIT;
	Nicd__CreateExport export = NICD__CREATE_EXPORT__INIT;
	uint32_t ids[12];
	const Nicd__Reply *reply;

	hello.major = NICD_MAJOR;
	hello.client = (char *)(uintptr_t)"exhaust";
	ids[0] = say(NICD__REQUEST__CALL_HELLO, &hello);
	ids[1] = say_with_memory(NICD__REQUEST__CALL_ADD_MEMORY, &add);
	ids[2] = say(NICD__REQUEST__CALL_CREATE_PD, &pd);
	for (unsigned i = 0; i < 2; i++) {
		mr[i].pd = result_ref(ids[2]);
		ids[3 + i] = say(NICD__REQUEST__CALL_CREATE_MR, &mr[i]);
		range[i].length = SIZE;
		reg[i].mr = result_ref(ids[3 + i]);
		reg[i].n_ranges = 1;
		reg[i].ranges = &ranges[i];
		reg[i].iova = 0x10000;
		reg[i].flags = i ? NIC_LOCAL_WRITE : NIC_REMOTE_READ | NIC_REMOTE_WRITE;
	}
	range[0].memory = result_ref(ids[1]);
	ids[5] = say(NICD__REQUEST__CALL_REGISTER_MR, &reg[0]);
	ids[6] = say_with_memory(NICD__REQUEST__CALL_REGISTER_MR, &reg[1]);
	local.mr = result_ref(ids[6]);
	ids[7] = say(NICD__REQUEST__CALL_GET_LOCAL_TOKEN, &local);
	remote.mr = result_ref(ids[5]);
	ids[8] = say(NICD__REQUEST__CALL_GET_REMOTE_TOKEN, &remote);
	ticket.mr = result_ref(ids[5]);
	ids[9] = say(NICD__REQUEST__CALL_CREATE_TICKET, &ticket);
	export.mr = result_ref(ids[5]);
	export.name = (char *)(uintptr_t)"a name that is so long that its request does not fit into the call which waits for its registration "
					 "and needs memory of its own";
	export.flags = NIC_REMOTE_READ | NIC_REMOTE_WRITE;
	ids[10] = say(NICD__REQUEST__CALL_CREATE_EXPORT, &export);
	ask();
	if ((reply = good(ids[0])) && reply->hello->n_adapters)
		p->adapter = reply->hello->adapters[0]->id;
	if ((reply = good(ids[1])))
		p->memory = reply->memory->id;
	p->pd = object_of(ids[2]);
	p->mr = object_of(ids[3]);
	p->mr_local = object_of(ids[4]);
	if ((reply = good(ids[6]))) {
		p->local_token = reply->mr->local_token;
		p->local_iova = reply->mr->iova;
	}
	for (unsigned i = 0; i < 2; i++) {
		if (!(reply = good(ids[9 + i])))
			continue;
		*(i ? &p->export : &p->ticket) = reply->door->id;
		if (i)
			p->export_serial = reply->door->serial;
		snprintf(p->locators[i], sizeof(p->locators[i]), "%s", reply->door->locator);
		if (reply->door->grant) {
			nicd__grant__init(&p->grant[i]);
			p->grant[i].remote_token = reply->door->grant->remote_token;
			p->grant[i].iova = reply->door->grant->iova;
		}
	}
}

static void act_connect(struct props *p)
{
	Nicd__ConnectQp connect[2] = { NICD__CONNECT_QP__INIT, NICD__CONNECT_QP__INIT };
	Nicd__QueryAdapter adapter = NICD__QUERY_ADAPTER__INIT;
	Nicd__QueryTokens tokens = NICD__QUERY_TOKENS__INIT;
	uint64_t mrs[2] = { p->mr, p->mr_local };
	uint32_t ids[2];

	adapter.adapter = id_ref(p->adapter);
	say(NICD__REQUEST__CALL_QUERY_ADAPTER, &adapter);
	tokens.n_mrs = 2;
	tokens.mrs = mrs;
	say(NICD__REQUEST__CALL_QUERY_TOKENS, &tokens);
	for (unsigned i = 0; i < 2; i++) {
		connect[i].pd = id_ref(p->pd);
		connect[i].locator = p->locators[i];
		connect[i].timeout_ms = CONNECT_MS;
		ids[i] = say(NICD__REQUEST__CALL_CONNECT_QP, &connect[i]);
	}
	ask();
	for (unsigned i = 0; i < 2; i++) {
		const Nicd__Reply *reply = good(ids[i]);

		if (!reply)
			continue;
		p->qp[i] = reply->qp->id;
		if (reply->qp->grant) {
			p->grant[i].remote_token = reply->qp->grant->remote_token;
			p->grant[i].iova = reply->qp->grant->iova;
		}
	}
}

static void put_entry(uint8_t *to, const struct props *p, unsigned i)
{
	const uint32_t length = 4096;

	memset(to, 0, NICD_TRANSFER_ENTRY_SIZE);
	memcpy(to, &p->local_token, 4);
	memcpy(to + 4, &p->grant[i].remote_token, 4);
	memcpy(to + 8, &p->local_iova, 8);
	memcpy(to + 16, &p->grant[i].iova, 8);
	memcpy(to + 24, &length, 4);
}

static void act_transfer(struct props *p)
{
	Nicd__Read read = NICD__READ__INIT;
	Nicd__Write write = NICD__WRITE__INIT;
	Nicd__TransferList list = NICD__TRANSFER_LIST__INIT;
	Nicd__QueryQp query = NICD__QUERY_QP__INIT;
	Nicd__Flush flush = NICD__FLUSH__INIT;
	uint8_t entries[2 * NICD_TRANSFER_ENTRY_SIZE];

	read.qp = id_ref(p->qp[0]);
	write.qp = list.qp = id_ref(p->qp[1]);
	read.local_token = write.local_token = p->local_token;
	read.local_addr = write.local_addr = p->local_iova;
	read.remote_token = p->grant[0].remote_token;
	read.remote_addr = p->grant[0].iova;
	write.remote_token = p->grant[1].remote_token;
	write.remote_addr = p->grant[1].iova;
	read.length = write.length = SIZE;
	put_entry(entries, p, 1);
	put_entry(entries + NICD_TRANSFER_ENTRY_SIZE, p, 1);
	list.operation = NICD__TRANSFER_LIST__OPERATION__WRITE;
	list.entries = (ProtobufCBinaryData){ sizeof(entries), entries };
	query.qp = id_ref(p->qp[0]);
	say(NICD__REQUEST__CALL_READ, &read);
	say(NICD__REQUEST__CALL_WRITE, &write);
	say(NICD__REQUEST__CALL_TRANSFER_LIST, &list);
	say(NICD__REQUEST__CALL_QUERY_QP, &query);
	ask();
	flush.qp = id_ref(p->qp[0]);
	say(NICD__REQUEST__CALL_FLUSH, &flush);
	ask();
}

/* A fast registration of a mapping, and a window on a normal region: made, used up, made void. */
static void act_work_regions(struct props *p)
{
	Nicd__FastRegister fast = NICD__FAST_REGISTER__INIT;
	Nicd__BindMw bind = NICD__BIND_MW__INIT;
	Nicd__GetRemoteToken token = NICD__GET_REMOTE_TOKEN__INIT;
	Nicd__Invalidate invalidate[2] = { NICD__INVALIDATE__INIT, NICD__INVALIDATE__INIT };

	fast.mr = id_ref(p->fast);
	fast.qp = id_ref(p->qp[0]);
	fast.mapping = id_ref(p->mapping);
	fast.length = SIZE;
	fast.iova = 0x10000;
	fast.flags = NICD__OP_FLAG__OP_ALLOW_REMOTE_WRITE | NICD__OP_FLAG__OP_READ_FENCE;
	say(NICD__REQUEST__CALL_FAST_REGISTER, &fast);
	bind.mw = id_ref(p->window);
	bind.mr = id_ref(p->mr);
	bind.qp = id_ref(p->qp[1]);
	bind.iova = 0x10000;
	bind.length = 4096;
	bind.flags = NICD__OP_FLAG__OP_ALLOW_REMOTE_READ;
	say(NICD__REQUEST__CALL_BIND_MW, &bind);
	ask();
	token.mr = id_ref(p->window);
	say(NICD__REQUEST__CALL_GET_REMOTE_TOKEN, &token);
	for (unsigned i = 0; i < 2; i++) {
		invalidate[i].object = id_ref(i ? p->window : p->fast);
		invalidate[i].qp = id_ref(p->qp[0]);
		say(NICD__REQUEST__CALL_INVALIDATE, &invalidate[i]);
	}
	ask();
}

static void act_regions(struct props *p)
{
	Nicd__BuildMapping mapping = NICD__BUILD_MAPPING__INIT;
	Nicd__Range range = NICD__RANGE__INIT, *ranges[] = { &range };
	Nicd__CreateMr mr = NICD__CREATE_MR__INIT;
	Nicd__InitializeFastRegister initialize = NICD__INITIALIZE_FAST_REGISTER__INIT;
	Nicd__CreateMw mw = NICD__CREATE_MW__INIT;
	Nicd__GetPrivilegedToken privileged = NICD__GET_PRIVILEGED_TOKEN__INIT;
	const Nicd__Reply *reply;
	uint32_t ids[4];

	privileged.pd = id_ref(p->pd);
	say(NICD__REQUEST__CALL_GET_PRIVILEGED_TOKEN, &privileged);
	range.memory = id_ref(p->memory);
	range.length = SIZE;
	mapping.n_ranges = 1;
	mapping.ranges = ranges;
	ids[0] = say(NICD__REQUEST__CALL_BUILD_MAPPING, &mapping);
	mr.pd = id_ref(p->pd);
	mr.fast_register = true;
	ids[1] = say(NICD__REQUEST__CALL_CREATE_MR, &mr);
	initialize.mr = result_ref(ids[1]);
	initialize.adapter_page_count = SIZE / 4096;
	initialize.remote_access = true;
	ids[2] = say(NICD__REQUEST__CALL_INITIALIZE_FAST_REGISTER, &initialize);
	mw.pd = id_ref(p->pd);
	ids[3] = say(NICD__REQUEST__CALL_CREATE_MW, &mw);
	ask();
	if ((reply = good(ids[0])))
		p->mapping = reply->mapping->id;
	p->fast = object_of(ids[1]);
	p->window = object_of(ids[3]);
	act_work_regions(p);
}

static void act_look(struct props *p)
{
	static const Nicd__Type types[] = { NICD__TYPE__SESSION, NICD__TYPE__MEMORY, NICD__TYPE__MR, NICD__TYPE__QP, NICD__TYPE__TICKET,
					    NICD__TYPE__EXPORT, NICD__TYPE__GRANT };
	enum { TYPES = sizeof(types) / sizeof(*types) };
	Nicd__List list[TYPES];
	Nicd__Who who = NICD__WHO__INIT;
	Nicd__Ledger ledger = NICD__LEDGER__INIT;

	for (unsigned i = 0; i < TYPES; i++) {
		nicd__list__init(&list[i]);
		list[i].type = types[i];
		say(NICD__REQUEST__CALL_LIST, &list[i]);
	}
	who.serial = p->export_serial;
	say(NICD__REQUEST__CALL_WHO, &who);
	say(NICD__REQUEST__CALL_LEDGER, &ledger);
	ask();
}

static void act_end(struct props *p)
{
	const uint64_t last[] = { p->qp[0], p->qp[1], p->window, p->ticket, p->export, p->mr, p->mr_local, p->fast, p->mapping, p->memory,
				  p->pd };
	enum { LAST = sizeof(last) / sizeof(*last) };
	Nicd__Disconnect disconnect = NICD__DISCONNECT__INIT;
	Nicd__Revoke revoke = NICD__REVOKE__INIT;
	Nicd__DeregisterMr deregister = NICD__DEREGISTER_MR__INIT;
	Nicd__Close close[LAST];

	disconnect.qp = id_ref(p->qp[0]);
	say(NICD__REQUEST__CALL_DISCONNECT, &disconnect);
	revoke.serial = p->export_serial;
	say(NICD__REQUEST__CALL_REVOKE, &revoke);
	ask();
	deregister.mr = id_ref(p->mr);
	say(NICD__REQUEST__CALL_DEREGISTER_MR, &deregister);
	ask();
	/* What others stand on comes last: that waits for ever when one of those could not be closed. */
	for (unsigned i = 0; i < LAST && (i < LAST - 2 || s.all); i++) {
		if (i == LAST - 2)
			ask();
		nicd__close__init(&close[i]);
		close[i].object = id_ref(last[i]);
		say(NICD__REQUEST__CALL_CLOSE, &close[i]);
	}
	ask();
}

/* A client's whole life. True: it had everything that it asked for. */
static bool play(struct whole *whole)
{
	static void (*const acts[])(struct props *) = { act_objects, act_connect, act_transfer, act_regions, act_look, act_end };
	enum { ACTS = sizeof(acts) / sizeof(*acts) };
	struct props props = { 0 };

	memset(&s, 0, sizeof(s));
	s.all = true;
	whole_dial(whole, &s.client);
	for (unsigned i = 0; i < ACTS && !s.client.ended; i++) {
		/* To give things back takes memory, too: with none for ever it would be tried for ever. */
		if (lack.on && i == ACTS - 1)
			lack.what = NOTHING;
		acts[i](&props);
	}
	s.all &= !s.client.ended;
	whole_hang_up(&s.client);
	if (lack.on)
		lack.what = NOTHING;
	whole_until_clean(whole);
	return s.all;
}

/* ---- */

/* The n-th one fails, and, `on`, all that follow until the client closes what it has. */
static void exhaust(enum resource what, bool on, unsigned least)
{
	unsigned n = 1, lost = 0;

	/* What the process opens once is open. */
	struct whole whole;
	uint32_t fds;

	whole_new(&whole);
	if (!play(&whole))
		fail_msg("refused although nothing fails: %s", nicd_reason_info(s.first)->name);
	whole_free(&whole);
	for (lack.failed = true; lack.failed; n++) {
		long live = lack.live;
		bool all;

		fds = descriptors_open();
		lack.failed = false;
		lack.until = n;
		lack.on = on;
		whole_new(&whole);
		lack.what = what;
		all = play(&whole);
		lack.what = NOTHING;
		if (!lack.failed && !all)
			fail_msg("%u: refused although nothing failed: %s", n, nicd_reason_info(s.first)->name);
		/* The next one. mutation: any error path that forgets to give something back, or leaves a stream waiting */
		if (!whole_device_lost(&whole) && !play(&whole))
			fail_msg("%u: the next client was refused: %s", n, nicd_reason_info(s.first)->name);
		lost += whole_device_lost(&whole);
		/* mutation: take any error of the provider's socket for its end */
		if (what == FLIGHT && (lost || !all))
			fail_msg("%u: it should have been tried again", n);
		whole_free(&whole);
		if (lack.live != live)
			fail_msg("%u: %ld allocations are left", n, lack.live - live);
		if (descriptors_open() != fds)
			fail_msg("%u: %u descriptors, not %u", n, descriptors_open(), fds);
	}
	fprintf(stderr, "%u points, at %u of them the device was lost\n", n - 2, lost);
	assert_true(n > least);
}

static void test_memory(void **state)
{
	exhaust(MEMORY, false, 50);
}

static void test_memory_on(void **state)
{
	exhaust(MEMORY, true, 50);
}

static void test_descriptors(void **state)
{
	exhaust(DESCRIPTORS, false, 6);
}

static void test_descriptors_on(void **state)
{
	exhaust(DESCRIPTORS, true, 6);
}

static void test_flight(void **state)
{
	exhaust(FLIGHT, false, 3);
}

/* Also of a test that failed. */
static int plenty(void **state)
{
	lack.what = NOTHING;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_memory, plenty),
		cmocka_unit_test_teardown(test_memory_on, plenty),
		cmocka_unit_test_teardown(test_descriptors, plenty),
		cmocka_unit_test_teardown(test_descriptors_on, plenty),
		cmocka_unit_test_teardown(test_flight, plenty),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
