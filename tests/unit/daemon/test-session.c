/* SPDX-License-Identifier: MIT */
/*
 * The sockets of clients, with a core of echo behind them: what is sent is answered, some request ids have a meaning of
 * their own. Real sockets on a real loop, driven turn by turn from the test's own thread.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/client.h"
#include "daemon/descriptors.h"
#include "daemon/env.h"
#include "daemon/session.h"
#include "proto/nicd.pb-c.h"

enum { FIELD_REPLIES = 2, FIELD_FATAL = 4 };
/* Requests that mean something to the core of echo. */
enum { DO_VIOLATE = 666, DO_BIG = 777, DO_KICK = 888, DO_FATAL = 999 };
enum { BIG_REPLY = 60000 };

static struct world {
	uv_loop_t loop;
	uv_prepare_t prepare;
	uv_check_t check;
	struct env env;
	struct nic nic;
	struct policy policy;
	struct client_host host;
	struct descriptors descriptors;
	struct identity_rules rules;
	struct sessions sessions;
	unsigned open_before, ended;
	bool prepared;

	/* The core of echo. */
	enum nicd_reason refuse;       /* the next client */
	struct client *last;
	const char *account;           /* of the next client; NULL: by uid */
	unsigned objects;              /* of the next client */
	unsigned frame_us, output_us;  /* what one frame costs, and a look for output */
	unsigned release_us;           /* what one chunk costs */
	bool held;                     /* released clients are not gone yet */
	unsigned frames, fds, turns_with_output;
} w;

struct echo {
	struct client client;
	unsigned frames;
	unsigned objects;
	bool released;
};

/* ---- a core of echo */

static void busy(unsigned us)
{
	uint64_t until = uv_hrtime() + us * UINT64_C(1000);

	while (us && uv_hrtime() < until)
		;
}

int client_new(struct client **ret, struct client_host *host, const struct client_identity *identity, void *userdata, struct nicd_error *err)
{
	struct echo *echo;

	if (w.refuse)
		return nicd_refuse_at(err, w.refuse, 7, 8);
	echo = calloc(1, sizeof(*echo));
	echo->client.host = host;
	echo->client.identity = *identity;
	echo->client.userdata = userdata;
	echo->objects = w.objects;
	assert_int_equal(nic_account_get(&w.nic.accounts, w.account ? w.account : identity->account, &echo->client.owner.account), 0);
	frame_out_init(&echo->client.out);
	w.last = *ret = &echo->client;
	return 0;
}

static void echo_wake(struct client *client)
{
	if (client->woken)
		return;
	client->woken = true;
	client->host->wake(client);
}

void client_violation(struct client *client, enum nicd_reason reason, uint64_t limit, uint64_t observed)
{
	Nicd__Fatal fatal = NICD__FATAL__INIT;

	fatal.reason = reason;
	fatal.limit = limit;
	assert_int_equal(frame_put(&client->out, FIELD_FATAL, &fatal.base, NULL, 0), 0);
	client->fatal = true;
	client->state = CLIENT_CLOSING;
	echo_wake(client);
}

static void echo_reply(struct client *client, uint32_t id)
{
	static char text[BIG_REPLY + 1];
	Nicd__Reply reply = NICD__REPLY__INIT;
	Nicd__Error error = NICD__ERROR__INIT;

	memset(text, 'x', BIG_REPLY);
	error.text = text;
	reply.id = id;
	reply.error = id == DO_BIG ? &error : NULL;
	assert_int_equal(frame_put(&client->out, FIELD_REPLIES, &reply.base, NULL, 0), 0);
	echo_wake(client);
}

bool client_frame(struct client *client, struct wire_packet *packet)
{
	struct nicd_error violation;
	const Nicd__Frame *frame;

	arena_reset(&client->host->arena);
	frame = (const Nicd__Frame *)frame_decode(&nicd__frame__descriptor, &client->host->arena, packet->data, packet->len, &violation);
	assert_non_null(frame);
	w.frames++;
	((struct echo *)client)->frames++;
	client->state = CLIENT_READY;
	client->host->work += frame->n_requests;
	busy(w.frame_us);
	w.fds += packet->n_fds;
	for (int fd; (fd = wire_take_fd(packet)) >= 0;)
		w.env.nic.close_fd(&w.env.nic, fd, UINT64_MAX);
	for (size_t i = 0; i < frame->n_requests; i++) {
		uint32_t id = frame->requests[i]->id;

		if (id == DO_VIOLATE) {
			client_violation(client, NICD_R_REQUEST_ID, 0, id);
			return false;
		}
		if (id == DO_KICK)
			client->host->kick(client);
		if (id == DO_FATAL) {
			client->fatal = true;
			client->state = CLIENT_CLOSING;
			echo_wake(client);
			return true;
		}
		echo_reply(client, id);
	}
	return true;
}

bool client_wants_input(const struct client *client)
{
	return client->out.bytes < client->host->policy->max_output;
}

void client_prepare_output(struct client *client)
{
	busy(w.output_us);
	w.turns_with_output++;
}

void client_flushed(struct client *client)
{
	client->woken = false;
}

bool client_release(struct client *client, unsigned budget)
{
	struct echo *echo = (struct echo *)client;

	busy(w.release_us);
	client->state = CLIENT_CLOSING;
	echo->released = true;
	echo->objects -= echo->objects < budget ? echo->objects : budget;
	return echo->objects > 0;
}

bool client_gone(const struct client *client)
{
	const struct echo *echo = (const struct echo *)client;

	return echo->released && !echo->objects && !w.held;
}

struct client *client_free(struct client *client)
{
	assert_true(client_gone(client));
	frame_out_deinit(&client->out);
	nic_account_unref(client->owner.account);
	free(client);
	return NULL;
}

/* daemon.c in the same library wants these too; nothing here calls them. */
int client_host_init(struct client_host *host)
{
	return -ENOSYS;
}

void client_host_deinit(struct client_host *host)
{
}

/* ---- the world */

static void on_prepare(uv_prepare_t *prepare)
{
	sessions_turn(&w.sessions);
	(void)sessions_settled(&w.sessions);
}

static void on_check(uv_check_t *check)
{
	sessions_read(&w.sessions);
	sessions_turn(&w.sessions);
	(void)sessions_settled(&w.sessions);
}

static void on_ended(struct sessions *sessions)
{
	w.ended++;
}

static int setup_terms(uint32_t max, bool bind_to_pid, uint32_t stall_ms)
{
	struct sessions_terms terms = { &w.loop, &w.host, &w.descriptors, &w.env, &w.rules, max, bind_to_pid, stall_ms, 0 };

	memset(&w, 0, sizeof(w));
	w.open_before = descriptors_open();
	uv_loop_init(&w.loop);
	env_init(&w.env, &w.loop);
	policy_init(&w.policy);
	nic_accounts_init(&w.nic.accounts, &w.env.nic, NULL);
	w.host.policy = &w.policy;
	w.host.env = &w.env.nic;
	arena_init(&w.host.arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS);
	if (descriptors_init(&w.descriptors, &w.nic, &w.env) || sessions_init(&w.sessions, &terms))
		return -1;
	w.sessions.ended = on_ended;
	uv_prepare_init(&w.loop, &w.prepare);
	uv_prepare_start(&w.prepare, on_prepare);
	uv_check_init(&w.loop, &w.check);
	uv_check_start(&w.check, on_check);
	return 0;
}

static int setup(void **state)
{
	return setup_terms(100, false, 0);
}

static int setup_bound(void **state)
{
	return setup_terms(100, true, 0);
}

static int setup_impatient(void **state)
{
	return setup_terms(100, false, 40);
}

static void turn(unsigned n)
{
	while (n--)
		uv_run(&w.loop, UV_RUN_NOWAIT);
}

static void turn_until_gone(void)
{
	time_t until = time(NULL) + 10;

	while ((w.sessions.n_all || w.sessions.burying || w.env.closer.pending) && time(NULL) < until)
		turn(1);
	assert_int_equal(w.sessions.n_all, 0);
}

/* Nothing may be left: no session, no handle, no descriptor. */
static int teardown(void **state)
{
	w.held = false;
	sessions_end(&w.sessions);
	turn_until_gone();
	assert_int_equal(w.descriptors.sessions, 0);
	assert_int_equal(w.sessions.n_blocked, 0);
	sessions_close(&w.sessions);
	uv_close((uv_handle_t *)&w.prepare, NULL);
	uv_close((uv_handle_t *)&w.check, NULL);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	sessions_deinit(&w.sessions);
	arena_deinit(&w.host.arena);
	nic_accounts_deinit(&w.nic.accounts);
	env_deinit(&w.env);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w.loop), 0);
	assert_int_equal(descriptors_open(), w.open_before);
	return 0;
}

/* The client's end. */
static int dial(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	session_accept(&w.sessions, pair[0], false);
	return pair[1];
}

static size_t pack(uint8_t *buf, unsigned n, const uint32_t *ids)
{
	Nicd__Frame frame = NICD__FRAME__INIT;
	Nicd__Request requests[8], *pointers[8];

	for (unsigned i = 0; i < n; i++) {
		nicd__request__init(&requests[i]);
		requests[i].id = ids[i];
		pointers[i] = &requests[i];
	}
	frame.n_requests = n;
	frame.requests = pointers;
	return nicd__frame__pack(&frame, buf);
}

static bool ask(int fd, uint32_t id)
{
	uint8_t buf[256];

	return wire_send(fd, buf, pack(buf, 1, &id), NULL, 0) == 0;
}

/* Reads one packet: how many replies, -1: Fatal, 0: the end, -2: nothing, -3: an error. *first is the first id, or the reason. */
static int hear(int fd, uint32_t *first)
{
	static uint8_t buf[NICD_FRAME_MAX + 1];
	struct wire_packet packet;
	Nicd__Frame *frame;
	int n = -3;

	switch (wire_recv(fd, buf, sizeof(buf), &packet)) {
	case WIRE_END:
		return 0;
	case WIRE_AGAIN:
		return -2;
	case WIRE_PACKET:
		break;
	default:
		return -3;
	}
	frame = nicd__frame__unpack(NULL, packet.len, packet.data);
	assert_non_null(frame);
	if (frame->fatal) {
		*first = frame->fatal->reason;
		n = -1;
	} else if (frame->n_replies) {
		*first = frame->replies[0]->id;
		n = (int)frame->n_replies;
	}
	nicd__frame__free_unpacked(frame, NULL);
	return n;
}

/* ---- tests */

static void wait_ms(unsigned ms)
{
	uint64_t until = uv_hrtime() + ms * UINT64_C(1000000);

	while (uv_hrtime() < until)
		turn(1);
}

static void test_echo(void **state)
{
	int fd = dial();
	uint32_t id = 0;

	assert_int_equal(w.sessions.n_open, 1);
	assert_true(ask(fd, 5));
	turn(2);
	assert_int_equal(hear(fd, &id), 1);
	assert_int_equal(id, 5);
	assert_int_equal(hear(fd, &id), -2);
	close(fd);
	turn_until_gone();
	assert_true(w.ended > 0);
}

/* The answers to all that came in one turn leave in one packet. */
static void test_coalesced(void **state)
{
	int fd = dial();
	uint32_t id;

	for (uint32_t i = 1; i <= 10; i++)
		assert_true(ask(fd, i));
	turn(2);
	/* mutation: flush after each packet */
	assert_int_equal(hear(fd, &id), 10);
	close(fd);
}

/* One that floods has its share of a turn and no more. */
static void test_share(void **state)
{
	int loud = dial(), quiet = dial();
	uint32_t id;
	unsigned sent = 0;

	while (ask(loud, ++sent))
		;
	assert_true(sent > 64);
	assert_true(ask(quiet, 1));
	turn(1);
	/* mutation: read until nothing is there */
	assert_true(w.frames <= 33);
	turn(1);
	assert_int_equal(hear(quiet, &id), 1);
	for (unsigned i = 0; i < 100 && w.frames < sent; i++)
		turn(1);
	assert_int_equal(w.frames, sent - 1 + 1);
	close(loud);
	close(quiet);
}

/*
 * Sixty sessions of one account that always have something to say, and seven of others: each turn has time for a few
 * frames only, and over many turns each account has had as many read.
 */
static void test_share_by_account(void **state)
{
	enum { STORM = 60, NORMAL = 7, ROUNDS = 400 };
	static char account[32];
	struct echo *echo[STORM + NORMAL];
	int fds[STORM + NORMAL];
	unsigned storm = 0, least = UINT32_MAX;
	uint32_t id;

	for (unsigned i = 0; i < STORM + NORMAL; i++) {
		snprintf(account, sizeof(account), "uid:%u", i < STORM ? 1 : 2 + i);
		w.account = account;
		fds[i] = dial();
		echo[i] = (struct echo *)w.last;
	}
	w.frame_us = 100;
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < STORM + NORMAL; i++) {
			while (hear(fds[i], &id) > 0)
				;
			for (unsigned k = 0; k < 2; k++)
				(void)ask(fds[i], 1);
		}
		turn(1);
	}
	for (unsigned i = 0; i < STORM + NORMAL; i++) {
		storm += i < STORM ? echo[i]->frames : 0;
		least = i >= STORM && echo[i]->frames < least ? echo[i]->frames : least;
	}
	/* mutation: read_enough is always false: all are read in each turn, the storm sixty times as much */
	/* mutation: on_socket reads at once: the same */
	/* mutation: all sessions in one queue: the same */
	assert_true(w.frames > ROUNDS);
	assert_true(storm <= w.frames / (NORMAL + 1) + 2 * 32);
	assert_true(least + 2 * 32 >= w.frames / (NORMAL + 1));
	/* mutation: sessions_read loses those that were left when the time was up: some are never read */
	for (unsigned i = STORM; i < STORM + NORMAL; i++)
		assert_true(echo[i]->frames > 0);
	w.frame_us = 0;
	for (unsigned i = 0; i < STORM + NORMAL; i++)
		close(fds[i]);
}

/* A turn ends in time, whatever there is to read: what is left comes with the next. */
static void test_a_turn_has_an_end(void **state)
{
	int fds[40];
	unsigned turns = 0;

	for (unsigned i = 0; i < 40; i++) {
		fds[i] = dial();
		assert_true(ask(fds[i], 1));
	}
	w.frame_us = 200;
	while (w.frames < 40) {
		unsigned before = w.frames;

		turn(1);
		/* mutation: READ_NS for each session: 40 in the first turn */
		assert_true(w.frames - before <= 3);
		turns++;
	}
	assert_true(turns >= 13);
	w.frame_us = 0;
	for (unsigned i = 0; i < 40; i++)
		close(fds[i]);
}

/* The same with what is to be sent. */
static void test_serving_has_an_end_too(void **state)
{
	int fds[60];
	uint32_t id;

	for (unsigned i = 0; i < 60; i++)
		fds[i] = dial();
	for (unsigned i = 0; i < 60; i++)
		assert_true(ask(fds[i], 1));
	w.output_us = 100;
	for (unsigned n = 0, turns = 0; n < 60; turns++) {
		unsigned before = w.turns_with_output;

		assert_true(turns < 1000);
		turn(1);
		/* mutation: sessions_turn without serve_enough: all 60 at once */
		assert_true(w.turns_with_output - before <= 8);
		for (unsigned i = 0; i < 60; i++)
			n += hear(fds[i], &id) == 1;
	}
	w.output_us = 0;
	for (unsigned i = 0; i < 60; i++)
		close(fds[i]);
}

/* Who connects and says nothing is told so, and hung up on; who has said Hello may be silent. */
static void test_no_hello(void **state)
{
	int silent = dial(), polite = dial();
	uint32_t reason;

	assert_true(ask(polite, 1));
	turn(2);
	assert_int_equal(hear(polite, &reason), 1);
	assert_int_equal(w.sessions.n_open, 2);
	/* Only now, however long that took, it counts. */
	w.sessions.hello_ms = 40;
	uv_timer_stop(&w.sessions.greeting_timer);
	for (unsigned i = 0; i < 100 && w.sessions.n_open > 1; i++)
		wait_ms(20);
	/* mutation: the greeting timer is never started */
	assert_int_equal(w.sessions.n_open, 1);
	assert_int_equal(hear(silent, &reason), -1);
	assert_int_equal(reason, NICD_R_HELLO_FIRST);
	assert_int_equal(hear(silent, &reason), 0);
	/* mutation: session_read without session_greets: the polite one too */
	assert_int_equal(hear(polite, &reason), -2);
	/* mutation: sessions_watch leaves it running */
	assert_false(uv_is_active((uv_handle_t *)&w.sessions.greeting_timer));
	close(silent);
	close(polite);
}

/* What the sessions of an account have queued counts together: full, none of them is read, and others are. */
static void test_output_of_an_account(void **state)
{
	struct nic_account *account;
	int mine = dial(), other;
	uint32_t id;

	account = w.last->owner.account;
	w.account = "uid:77";
	other = dial();
	account->used[NIC_SLOT_BUFFERED] = account->limits.max[NIC_SLOT_BUFFERED];
	assert_true(ask(mine, 1));
	assert_true(ask(other, 2));
	turn(4);
	/* mutation: may_read without client_output_is_full */
	assert_int_equal(w.frames, 1);
	assert_int_equal(hear(other, &id), 1);
	account->used[NIC_SLOT_BUFFERED] = 0;
	turn(4);
	/* mutation: starving_look does nothing */
	assert_int_equal(w.frames, 2);
	assert_int_equal(hear(mine, &id), 1);
	close(mine);
	close(other);
}

static void test_one_at_a_time(void **state)
{
	int fd = dial();
	uint32_t id;

	/* Past the point where only one packet is asked for; then several at once must still all be answered. */
	for (uint32_t i = 1; i < 12; i++) {
		assert_true(ask(fd, i));
		turn(2);
		assert_int_equal(hear(fd, &id), 1);
		assert_int_equal(id, i);
	}
	for (uint32_t i = 1; i <= 5; i++)
		assert_true(ask(fd, i));
	turn(8);
	assert_int_equal(w.frames, 16);
	close(fd);
}

static void test_violation(void **state)
{
	int fd = dial();
	uint32_t reason;

	assert_true(ask(fd, DO_VIOLATE));
	/* Left unread in the socket; the last words must come through nevertheless. */
	for (uint32_t i = 1; i < 20; i++)
		assert_true(ask(fd, i));
	turn_until_gone();
	assert_int_equal(w.frames, 1);
	/* mutation: close the socket without emptying it: the first thing heard is ECONNRESET */
	assert_int_equal(hear(fd, &reason), -1);
	assert_int_equal(reason, NICD_R_REQUEST_ID);
	assert_int_equal(hear(fd, &reason), 0);
	close(fd);
}

/* Packets without bytes, which the kernel does not count as unread, and which may bring the last reference to something big. */
static void test_empty_packets(void **state)
{
	int fd = dial();
	bool buried = false;
	uint32_t reason;

	assert_true(ask(fd, DO_VIOLATE));
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(send(fd, "", 0, 0), 0);
	for (unsigned i = 0; i < 100 && !buried; i++) {
		turn(1);
		buried = w.sessions.burying;
	}
	/* mutation: close on the loop what SIOCINQ calls empty */
	assert_true(buried);
	assert_int_not_equal(w.env.closing, 0);
	turn_until_gone();
	assert_int_equal(w.env.closing, 0);
	/* mutation: stop emptying at an empty packet: the first thing heard is ECONNRESET */
	assert_int_equal(hear(fd, &reason), -1);
	assert_int_equal(reason, NICD_R_REQUEST_ID);
	assert_int_equal(hear(fd, &reason), 0);
	close(fd);
}

static void test_oversize(void **state)
{
	static uint8_t big[NICD_FRAME_MAX + 1];
	int fd = dial();
	uint32_t reason;

	assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
	turn_until_gone();
	assert_int_equal(hear(fd, &reason), -1);
	assert_int_equal(reason, NICD_R_FRAME_TOO_BIG);
	assert_int_equal(w.frames, 0);
	close(fd);
}

static void send_fds(int fd, unsigned n)
{
	union {
		char bytes[CMSG_SPACE((NICD_FRAME_FDS + 1) * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	char byte = 1;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int pass = dup(fd);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (unsigned i = 0; i < n; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &pass, sizeof(pass));
	assert_int_equal(sendmsg(fd, &msg, 0), 1);
	close(pass);
}

static void test_too_many_fds(void **state)
{
	int fd = dial();
	uint32_t reason;

	send_fds(fd, NICD_FRAME_FDS + 1);
	turn_until_gone();
	assert_int_equal(hear(fd, &reason), -1);
	/* teardown counts: mutation: leak one of them */
	assert_int_equal(reason, NICD_R_FRAME_FDS_TRUNCATED);
	close(fd);
}

/* nicd's own table is full: no fault of the client's, and it is not told that it sent too many. */
static void test_lost_fds(void **state)
{
	int fd = dial(), top;
	struct rlimit old, low;
	uint32_t reason;

	/* What the loop and its workers open once is open. */
	assert_true(ask(fd, 1));
	turn(4);
	assert_int_equal(hear(fd, &reason), 1);
	send_fds(fd, 10);
	top = dup(fd);
	close(top);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)top + 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	turn(4);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	turn_until_gone();
	assert_int_equal(hear(fd, &reason), -1);
	/* mutation: FRAME_FDS_TRUNCATED whatever came */
	assert_int_equal(reason, NICD_R_FRAME_FDS_LOST);
	close(fd);
}

/* The core itself gives up on the client, not while reading. */
static void test_fatal_later(void **state)
{
	int fd = dial();
	uint32_t id;

	assert_true(ask(fd, DO_FATAL));
	/* mutation: look at client->fatal only after client_frame */
	turn_until_gone();
	assert_int_equal(hear(fd, &id), 0);
	close(fd);
}

/* Who does not read is not read; who reads on gets everything. */
static void test_back_pressure(void **state)
{
	int fd = dial();
	unsigned asked = 0, heard = 0;
	uint32_t id;
	int n;

	for (unsigned i = 0; i < 2000; i++) {
		if (ask(fd, DO_BIG))
			asked++;
		turn(1);
	}
	/* The socket's buffer, the output allowed, and the requests that wait in the other direction. mutation: read on */
	assert_true(w.frames < 20);
	assert_true(w.last->out.bytes < w.policy.max_output + 2 * NICD_FRAME_MAX);
	assert_int_equal(w.sessions.n_blocked, 1);
	for (unsigned i = 0; i < 20000 && heard < asked; i++) {
		turn(1);
		while ((n = hear(fd, &id)) > 0)
			heard += (unsigned)n;
	}
	/* mutation: do not poll for reading again after the output has gone */
	assert_int_equal(heard, asked);
	assert_int_equal(w.sessions.n_blocked, 0);
	close(fd);
}

static void test_stalled(void **state)
{
	int fd = dial(), idle = dial();

	for (unsigned i = 0; i < 200; i++) {
		(void)ask(fd, DO_BIG);
		turn(1);
	}
	assert_int_equal(w.sessions.n_open, 2);
	wait_ms(150);
	/* mutation: never start the stall timer */
	assert_int_equal(w.sessions.n_open, 1);
	close(fd);
	close(idle);
}

/* Blocked, but with little to say: that is no stall. */
static void test_slow_but_small(void **state)
{
	int fd = dial();

	w.policy.max_output = 64u << 20;
	for (unsigned i = 0; i < 50; i++) {
		(void)ask(fd, DO_BIG);
		turn(1);
	}
	assert_int_equal(w.sessions.n_blocked, 1);
	wait_ms(150);
	/* mutation: end every session that is blocked for long */
	assert_int_equal(w.sessions.n_open, 1);
	close(fd);
}

static void test_half_closed(void **state)
{
	int fd = dial();
	uint32_t id;

	assert_true(ask(fd, 3));
	shutdown(fd, SHUT_WR);
	turn_until_gone();
	/* mutation: end without flushing */
	assert_int_equal(hear(fd, &id), 1);
	assert_int_equal(hear(fd, &id), 0);
	close(fd);
}

static void test_kicked(void **state)
{
	int fd = dial();
	uint32_t id;

	assert_true(ask(fd, DO_KICK));
	turn_until_gone();
	assert_int_equal(hear(fd, &id), 1);
	assert_int_equal(hear(fd, &id), 0);
	close(fd);
}

/* A big release and a small client at the same time. */
static void test_release_in_pieces(void **state)
{
	int big, small;
	uint32_t id;
	unsigned turns = 0;

	w.objects = 4000;
	w.release_us = 100;
	big = dial();
	w.objects = 0;
	small = dial();
	close(big);
	turn(2);
	assert_int_equal(w.sessions.n_open, 1);
	while (w.sessions.n_all > 1) {
		assert_true(ask(small, 1));
		turn(1);
		turns++;
		(void)hear(small, &id);
	}
	/* 250 chunks of 0.1 ms, 0.2 ms a turn. mutation: release all at once */
	assert_true(turns > 80);
	assert_true(w.frames > 80);
	close(small);
}

/* The device has not confirmed: the session is over, the client stays until the core says so. */
static void test_waits_for_device(void **state)
{
	int fd = dial();
	struct client *client = w.last;

	w.held = true;
	close(fd);
	turn(10);
	assert_int_equal(w.sessions.n_open, 0);
	/* mutation: free after client_release has said false */
	assert_int_equal(w.sessions.n_all, 1);
	assert_false(uv_is_active((uv_handle_t *)&w.sessions.idle));
	w.held = false;
	w.host.wake(client);
	turn(2);
	assert_int_equal(w.sessions.n_all, 0);
}

static void test_starved(void **state)
{
	int fd = dial(), other;
	uint32_t limit = w.descriptors.limit, id;

	w.descriptors.limit = w.descriptors.base + w.descriptors.sessions + w.descriptors.pidfds + DESCRIPTORS_RESERVE +
			      DESCRIPTORS_ADMINS - 1;
	assert_false(sessions_have_room(&w.sessions, false));
	assert_true(ask(fd, 9));
	turn(10);
	/* mutation: read with fewer descriptors free than a frame may bring */
	assert_int_equal(w.frames, 0);
	w.descriptors.limit = limit;
	assert_true(sessions_have_room(&w.sessions, false));
	turn(3);
	/* mutation: forget those that were starved */
	assert_int_equal(w.frames, 1);
	assert_int_equal(hear(fd, &id), 1);
	/* A starved one that goes is noticed too. */
	other = dial();
	w.descriptors.limit = 10;
	(void)ask(other, 1);
	turn(3);
	close(other);
	turn(5);
	assert_int_equal(w.sessions.n_open, 1);
	w.descriptors.limit = limit;
	close(fd);
}

/* The last descriptors are kept for those who can make room. */
static void test_starved_admin(void **state)
{
	int pair[2], fd = dial();
	uint32_t limit = w.descriptors.limit, few, id;

	w.rules.admin_uid = geteuid();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	session_accept(&w.sessions, pair[0], true);
	few = w.descriptors.base + w.descriptors.sessions + w.descriptors.pidfds + DESCRIPTORS_RESERVE;
	w.descriptors.limit = few + 2 * DESCRIPTORS_PER_SESSION;
	assert_false(sessions_have_room(&w.sessions, false));
	/* mutation: the same reserve for all */
	assert_true(sessions_have_room(&w.sessions, true));
	assert_true(ask(fd, 1));
	assert_true(ask(pair[1], 2));
	turn(3);
	assert_int_equal(w.frames, 1);
	assert_int_equal(hear(pair[1], &id), 1);
	/* Admins have no right to truncated packets either. */
	w.descriptors.limit = few - 1;
	assert_true(ask(pair[1], 3));
	turn(3);
	assert_int_equal(w.frames, 1);
	w.descriptors.limit = few;
	turn(3);
	assert_int_equal(w.frames, 2);
	w.descriptors.limit = limit;
	turn(3);
	assert_int_equal(w.frames, 3);
	close(fd);
	close(pair[1]);
}

static atomic_bool hang;

static int slow_close(int fd)
{
	while (hang)
		usleep(1000);
	return close(fd);
}

/* Whose descriptors take for ever to close brings no more of them. */
static void test_hanging_closes(void **state)
{
	int fd = dial(), pass[NICD_FRAME_FDS];
	uint8_t buf[64];
	uint32_t one = 1, id;

	hang = true;
	w.env.closer.close = slow_close;
	for (unsigned i = 0; i < NICD_FRAME_FDS; i++)
		pass[i] = STDIN_FILENO;
	assert_int_equal(wire_send(fd, buf, pack(buf, 1, &one), pass, NICD_FRAME_FDS), 0);
	assert_true(ask(fd, 2));
	turn(5);
	assert_int_equal(w.fds, NICD_FRAME_FDS);
	assert_int_equal(w.env.closer.pending, NICD_FRAME_FDS);
	/* mutation: may_read without closer_has_room */
	assert_int_equal(w.frames, 1);
	assert_int_equal(hear(fd, &id), 1);
	hang = false;
	for (unsigned i = 0; i < 5000 && w.frames < 2; i++) {
		turn(1);
		usleep(1000);
	}
	assert_int_equal(w.frames, 2);
	close(fd);
}

static void test_room(void **state)
{
	int fds[100];

	for (unsigned i = 0; i < 100; i++)
		fds[i] = dial();
	/* mutation: <= for < */
	assert_false(sessions_have_room(&w.sessions, false));
	assert_true(sessions_have_room(&w.sessions, true));
	close(fds[0]);
	turn(5);
	assert_true(sessions_have_room(&w.sessions, false));
	for (unsigned i = 1; i < 100; i++)
		close(fds[i]);
}

static void test_refused(void **state)
{
	uint32_t reason;
	int fd;

	w.refuse = NICD_R_QUOTA;
	fd = dial();
	w.refuse = NICD_R_NONE;
	/* mutation: hang up without a word */
	assert_int_equal(hear(fd, &reason), -1);
	assert_int_equal(reason, NICD_R_QUOTA);
	assert_int_equal(hear(fd, &reason), 0);
	assert_int_equal(w.sessions.n_all, 0);
	close(fd);
}

static void test_admins_only(void **state)
{
	int pair[2];
	uint32_t reason;
	bool root = geteuid() == 0;

	/* The credentials of a pair are those of its making; root would always be an admin. */
	if (root)
		assert_int_equal(seteuid(54321), 0);
	w.rules.admin_uid = geteuid() + 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	if (root)
		assert_int_equal(seteuid(0), 0);
	/* mutation: let everybody in on the admin socket */
	session_accept(&w.sessions, pair[0], true);
	assert_int_equal(hear(pair[1], &reason), -1);
	assert_int_equal(reason, NICD_R_NOT_PERMITTED);
	close(pair[1]);
}

/* The peer's process forks, and the child holds on to the socket: what then ends the session is policy. */
static void dial_orphan(pid_t *holder)
{
	int tell[2], listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd;
	struct sockaddr_un { sa_family_t family; char path[108]; } addr = { .family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	pid_t pid;

	assert_int_equal(bind(listener, (struct sockaddr *)&addr, len), 0);   /* an abstract name of the kernel's choice */
	len = sizeof(addr);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(pipe(tell), 0);
	pid = fork();
	if (!pid) {
		fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		if (connect(fd, (struct sockaddr *)&addr, len))
			_exit(1);
		pid = fork();
		if (!pid) {
			close(tell[0]);
			close(tell[1]);
			pause();
			_exit(0);
		}
		_exit(write(tell[1], &pid, sizeof(pid)) == sizeof(pid) ? 0 : 1);
	}
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_int_equal(read(tell[0], holder, sizeof(*holder)), sizeof(*holder));
	session_accept(&w.sessions, fd, false);
	waitpid(pid, NULL, 0);
	close(tell[0]);
	close(tell[1]);
	close(listener);
}

static void test_bound_to_pid(void **state)
{
	pid_t holder;

	dial_orphan(&holder);
	turn(5);
	/* mutation: do not poll the pidfd */
	assert_int_equal(w.sessions.n_open, 0);
	kill(holder, SIGKILL);
}

static void test_not_bound_to_pid(void **state)
{
	pid_t holder;

	dial_orphan(&holder);
	turn(5);
	/* mutation: end on the pidfd whatever the policy */
	assert_int_equal(w.sessions.n_open, 1);
	assert_false(w.host.alive(w.last));
	kill(holder, SIGKILL);
	for (unsigned i = 0; i < 2000 && w.sessions.n_open; i++)
		wait_ms(1);
	assert_int_equal(w.sessions.n_open, 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_echo), T(test_coalesced), T(test_share), T(test_share_by_account),
		T(test_a_turn_has_an_end), T(test_serving_has_an_end_too), T(test_output_of_an_account),
		T(test_no_hello), T(test_one_at_a_time), T(test_violation), T(test_oversize),
		T(test_too_many_fds), T(test_lost_fds), T(test_empty_packets), T(test_fatal_later), T(test_back_pressure),
		cmocka_unit_test_setup_teardown(test_stalled, setup_impatient, teardown),
		cmocka_unit_test_setup_teardown(test_slow_but_small, setup_impatient, teardown),
		T(test_half_closed), T(test_kicked), T(test_release_in_pieces), T(test_waits_for_device), T(test_starved), T(test_starved_admin), T(test_hanging_closes),
		T(test_room),
		T(test_refused), T(test_admins_only),
		cmocka_unit_test_setup_teardown(test_bound_to_pid, setup_bound, teardown),
		T(test_not_bound_to_pid),
	};
	uv_loop_t first;

	/* What libuv opens once per process is no leak of a test. */
	uv_loop_init(&first);
	uv_loop_close(&first);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
