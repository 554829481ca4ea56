/* SPDX-License-Identifier: MIT */
/*
 * The engine as initiator: it connects to a peer that answers as the input tells it, and reads, writes, sends and receives
 * through it.
 */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/soft/bytes.h"
#include "proto/locator.h"
#include "tests/fuzz/peer.h"

enum { CRC = 1, GREET = 2, STREAM = 5, TIMEOUT_MS = 60000 };

static struct peer peers[2];
static int listener;
static struct sockaddr_storage address;
static unsigned connected;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);

	signal(SIGPIPE, SIG_IGN);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	must(bind(listener, (const struct sockaddr *)&any, sizeof(any)) == 0 && listen(listener, 8) == 0);
	must(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	peer_init(&peers[0], false);
	peer_init(&peers[1], true);
	peers[0].is_responder = peers[1].is_responder = true;
	return 0;
}

static void on_connected(void *userdata, const struct nicd_error *error, const struct soft_connected *result)
{
	must(!connected++);
}

static void act(struct peer *peer, struct input *in)
{
	uint8_t what = input_u8(in);

	if (what < 0xf0)
		peer_work(peer, in);
	else if (what < 0xf8)
		soft_flush(peer->engine, STREAM);
	else
		soft_disconnect(peer->engine, STREAM);
	peer_turn(peer, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A reply of revision 2, then the answer to the engine's first frame, a read of nothing. */
	static const uint8_t greet[] = { 2, 8, 0x48, 3, 5, 1, 0xa0, 0, 0, 0, 0 };
	struct soft_connect_terms terms = { .stream = STREAM, .pd = PEER_PD, .addr = address, .timeout_ms = TIMEOUT_MS };
	struct input in = { data, size }, first = { greet, sizeof(greet) };
	uint8_t flags = input_u8(&in);
	struct peer *peer = &peers[flags & CRC];

	connected = 0;
	memcpy(terms.ticket, peer_secret(0), sizeof(terms.ticket));
	peer_begin();
	peer->stream = STREAM;
	soft_connect(peer->engine, &terms, on_connected, NULL);
	peer->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	must(peer->fd >= 0);
	peer_turn(peer, 2);
	if (flags & GREET) {
		peer_run(peer, &first, act);
		must(connected == 1);
		peer->greeted = true;
	}
	peer_run(peer, &in, act);
	peer_finish(peer);
	must(connected <= 1);
	return 0;
}
