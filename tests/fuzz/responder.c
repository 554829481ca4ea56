/* SPDX-License-Identifier: MIT */
/*
 * The engine as responder: a stranger connects to the data port and says what the input tells it. The first byte chooses CRC, and a
 * handshake that succeeds, so that inputs need not find out about it first.
 */
#include <signal.h>

#include "nicd/soft/bytes.h"
#include "proto/locator.h"
#include "tests/fuzz/peer.h"

enum { CRC = 1, GREET = 2, EXPORT_DOOR = 4 };

static struct peer peers[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	signal(SIGPIPE, SIG_IGN);
	peer_init(&peers[0], false);
	peer_init(&peers[1], true);
	return 0;
}

/* The controller shuts a door, or drops everything; or the export's owner works on the stream, too. */
static void act(struct peer *peer, struct input *in)
{
	uint8_t what = input_u8(in);
	unsigned n = 0;

	if (what < 8)
		soft_engine_reset(peer->engine);
	else if (what < 64)
		soft_engine_cut_door(peer->engine, 200 + (what & 1), UINT64_MAX, &n);
	else
		peer_work(peer, in);
	peer_turn(peer, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A request of revision 2 for four reads, and the empty write that opens the stream. */
	static const uint8_t greet[] = { 2, 8, 0x48, 0, 3, 1, 0, 0, 0, 0, 0 }, greet_export[] = { 2, 8, 0x48, 2, 3, 1, 1, 0, 0, 0, 0 };
	struct input in = { data, size }, first = { greet, sizeof(greet) };
	uint8_t flags = input_u8(&in);
	struct peer *peer = &peers[flags & CRC];

	if (flags & EXPORT_DOOR)
		first.at = greet_export;
	peer_begin();
	peer_dial(peer);
	if (flags & GREET) {
		unsigned told = peer->told;

		peer_run(peer, &first, act);
		must(peer->told == told + 1);
		peer->greeted = true;
	}
	peer_run(peer, &in, act);
	peer_finish(peer);
	return 0;
}
