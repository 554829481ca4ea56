/* SPDX-License-Identifier: MIT */
/* struct peer: static, of the target; the engine lives as long as the process, streams as long as one input. */
#include "tests/fuzz/peer.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sanitizer/lsan_interface.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/object.h"
#include "nicd/soft/bytes.h"
#include "proto/locator.h"
#include "tests/fuzz/fds.h"

enum { PAGE = 4096, EXPORT = 1000, TURNS = 3, MEMORY = 1, FIRST_TAG = 100, COMMANDS = 200, RUN = 32, SETTLE = 64 };
#define PATIENCE_NS UINT64_C(20000000000)

/* Where the tags lie, and who may use them. All other pages are nobody's. */
static const struct {
	unsigned page, pages;
	uint32_t rights;
	uint64_t pd, door;
} places[PEER_TAGS] = {
	{ 1, 2, NIC_REMOTE_READ | NIC_REMOTE_WRITE, PEER_PD, 0 },
	{ 5, 1, NIC_REMOTE_READ | NIC_REMOTE_WRITE, PEER_PD, EXPORT },
	{ 8, 1, NIC_REMOTE_READ, PEER_PD, 0 },
	{ 10, 1, NIC_LOCAL_WRITE, PEER_PD, 0 },
	{ 12, 1, NIC_REMOTE_READ | NIC_REMOTE_WRITE, PEER_PD + 1, 0 },
};
enum { TAG_READ_ONLY = 2, TAG_LOCAL = 3, TAG_FOREIGN = 4 };

static const uint8_t secrets[2][NICD_TICKET_SIZE] = { "the PD's ticket", "the export's" };
static uint8_t poison[RUN];   /* drawn anew in every process: no input can know it */

/* Of the process. */
static struct {
	struct peer *peers[2];
	unsigned n, runs;
	unsigned sockets;   /* when the first run began */
} all;

const uint8_t *peer_secret(unsigned which)
{
	return secrets[which % 2];
}

static void random_bytes(void *buf, size_t len)
{
	/* The same tokens in every process: inputs may name them. */
	static uint64_t state = 20261120;

	for (size_t i = 0; i < len; i++) {
		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		((uint8_t *)buf)[i] = (uint8_t)(state >> 33);
	}
}

static uint64_t now_ns(void)
{
	return uv_hrtime();
}

/* ---- memory and doors */

static bool is_poison(unsigned page)
{
	for (unsigned i = 0; i < PEER_TAGS; i++) {
		if (page >= places[i].page && page < places[i].page + places[i].pages)
			return i == TAG_FOREIGN || i == TAG_READ_ONLY;
	}
	return true;
}

static void memory_init(struct peer *peer)
{
	static bool drawn;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd >= 0 && ftruncate(fd, PEER_PAGES * PAGE) == 0);
	peer->map = mmap(NULL, PEER_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(peer->map != MAP_FAILED);
	/* Of all peers the same. */
	must(drawn || getrandom(poison, sizeof(poison), 0) == sizeof(poison));
	drawn = true;
	for (unsigned page = 0; page < PEER_PAGES; page++) {
		for (unsigned i = 0; is_poison(page) && i < PAGE; i += RUN)
			memcpy(peer->map + page * PAGE + i, poison, RUN);
	}
	/* What may be read is not poison. */
	memset(peer->map + places[TAG_READ_ONLY].page * PAGE, 'r', PAGE);
	must(soft_memory_attach(peer->tags, MEMORY, fd, PEER_PAGES * PAGE, true, NULL) == 0);
	close(fd);
}

static void tag_init(struct peer *peer, unsigned i)
{
	struct soft_tag_terms terms = {
		.serial = places[i].door ? places[i].door : FIRST_TAG + i,
		.generation = 1, .rights = places[i].rights, .pd = places[i].pd, .door = places[i].door,
		.iova = (uint64_t)places[i].page * PAGE, .length = (uint64_t)places[i].pages * PAGE,
		.n_ranges = 1, .ranges = { { MEMORY, (uint64_t)places[i].page * PAGE, (uint64_t)places[i].pages * PAGE } },
	};
	struct soft_tag *tag;

	/* What a tag holds is found through memory that the leak checker does not search. */
	__lsan_disable();
	must(soft_tag_add(peer->tags, &terms, &tag, NULL) == 0);
	__lsan_enable();
	peer->remote[i] = tag->remote_token;
	peer->local[i] = tag->local_token;
}

static void tickets_init(struct peer *peer)
{
	for (unsigned i = 0; i < 2; i++) {
		struct soft_ticket ticket = { .serial = 200 + i, .pd = PEER_PD, .door = i ? EXPORT : 0, .uses_left = UINT32_MAX,
					      .max_streams = UINT32_MAX, .expires_ns = UINT64_MAX };

		if (i)
			ticket.grant = (struct locator_grant){ peer->remote[1], places[1].rights, 5 * PAGE, PAGE, 6 };
		locator_ticket_hash(secrets[i], ticket.hash);
		must(soft_ticket_add(peer->tickets, &ticket, NULL) == 0);
	}
}

static void on_opened(void *userdata, uint64_t stream, const struct soft_ticket *ticket, const char *name)
{
	struct peer *peer = userdata;

	must(ticket && name[0]);
	peer->told++;
	peer->stream = stream;
}

static void on_closed(void *userdata, uint64_t stream, const struct nicd_error *why, const struct nic_counters *counters)
{
	must(nicd_reason_info(why->reason)->text);
}

static void on_notified(void *userdata, uint64_t stream, uint64_t door, uint64_t count)
{
	must(count);
}

/* Only what the peer may name. */
static void on_invalidated(void *userdata, uint64_t stream, uint64_t tag, uint32_t generation)
{
	must(tag != FIRST_TAG + TAG_FOREIGN && !soft_tag_find(((struct peer *)userdata)->tags, tag));
}

void peer_init(struct peer *peer, bool crc)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct soft_engine_events events = { on_opened, on_closed, on_notified, on_invalidated, peer };
	/* Two segments of the smallest size are a whole transfer's worth of frames. */
	const struct soft_engine_options options = { .incarnation = 1, .crc = crc, .fpdu = crc ? 256 : 0, .max_ird = 4, .max_ord = 4 };

	must(all.n < 2 && uv_loop_init(&peer->loop) == 0);
	all.peers[all.n++] = peer;
	peer->tags = soft_tags_new(random_bytes, now_ns);
	peer->tickets = soft_tickets_new(now_ns);
	must(peer->tags && peer->tickets);
	memory_init(peer);
	for (unsigned i = 0; i < PEER_TAGS; i++)
		tag_init(peer, i);
	tickets_init(peer);
	must(soft_engine_new(&peer->engine, &peer->loop, peer->tags, peer->tickets, &options, &events) == 0);
	must(soft_engine_listen(peer->engine, (const struct sockaddr *)&any, &peer->addr) == 0);
	peer_turn(peer, 2);
	peer->fd = -1;
}

void peer_begin(void)
{
	if (!all.runs)
		all.sockets = fd_sockets();
}

/* ---- what the peer hears */

/* Not seen by the fuzzer: comparing would tell it what to look for. */
#ifdef __clang__
__attribute__((no_sanitize("coverage")))
#endif
static bool leaks(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i + RUN / 2 <= len; i++) {
		for (unsigned from = 0; from < RUN; from += RUN / 2) {
			unsigned same = 0;

			while (same < RUN / 2 && bytes[i + same] == poison[from + same])
				same++;
			if (same == RUN / 2)
				return true;
		}
	}
	return false;
}

static size_t hear_mpa(struct peer *peer)
{
	struct mpa_frame frame;
	size_t used = 0;

	if (mpa_decode(peer->in, peer->n_in, !peer->is_responder, &frame, &used) != MPA_DONE)
		return 0;
	peer->mpa_done = true;
	peer->crc = peer->crc || frame.crc;
	return used;
}

static size_t hear_fpdu(struct peer *peer)
{
	struct rdmap_header header;
	size_t ulpdu, size;

	if (peer->n_in < FPDU_LENGTH_SIZE)
		return 0;
	ulpdu = get_be16(peer->in);
	size = fpdu_size(ulpdu);
	if (peer->n_in < size)
		return 0;
	/* What the engine says is always well-formed, when we know what was agreed. */
	must(!peer->crc || !peer->greeted || fpdu_crc_ok(peer->in, size));
	must(rdmap_decode(peer->in + FPDU_LENGTH_SIZE, ulpdu, ulpdu, &header) == RDMAP_FINE);
	if (header.opcode == RDMAP_READ_REQUEST) {
		must(ulpdu == RDMAP_READ_ULPDU);
		rdmap_read_decode(peer->in + FPDU_LENGTH_SIZE + header.size, &peer->last_read);
	}
	return size;
}

static void hear(struct peer *peer)
{
	ssize_t n;
	size_t used;

	if (peer->fd < 0)
		return;
	while ((n = recv(peer->fd, peer->in + peer->n_in, sizeof(peer->in) - peer->n_in, MSG_DONTWAIT)) > 0) {
		must(!leaks(peer->in + peer->n_in, (size_t)n));
		peer->n_in += (size_t)n;
		while ((used = peer->mpa_done ? hear_fpdu(peer) : hear_mpa(peer)) > 0) {
			memmove(peer->in, peer->in + used, peer->n_in - used);
			peer->n_in -= used;
		}
		must(peer->n_in < sizeof(peer->in));
	}
}

void peer_turn(struct peer *peer, unsigned n)
{
	while (n--) {
		uv_run(&peer->loop, UV_RUN_NOWAIT);
		if (peer->fd >= 0)
			hear(peer);
	}
}

/* ---- what the peer says */

void peer_dial(struct peer *peer)
{
	const int one = 1;

	peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(peer->fd >= 0 && connect(peer->fd, (struct sockaddr *)&peer->addr, sizeof(struct sockaddr_in)) == 0);
	setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* A full socket is a peer that was not read: what does not fit is lost, and so is the stream. */
static void flush(struct peer *peer, size_t len)
{
	size_t done = 0;
	ssize_t n = 0;

	for (unsigned tries = 0; peer->fd >= 0 && done < len && tries < 50; tries++) {
		n = send(peer->fd, peer->out + done, len - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			break;
		done += n > 0 ? (size_t)n : 0;
		peer_turn(peer, 1);
	}
	memmove(peer->out, peer->out + len, peer->n_out - len);
	peer->n_out -= len;
}

static void put(struct peer *peer, const void *bytes, size_t len)
{
	if (len > sizeof(peer->out) - peer->n_out)
		return;
	if (len)
		memcpy(peer->out + peer->n_out, bytes, len);
	peer->n_out += len;
}

static void put_fpdu(struct peer *peer, const uint8_t *ulpdu, size_t len, bool damaged)
{
	uint8_t tail[FPDU_TAIL_MAX] = { 0 }, head[FPDU_LENGTH_SIZE];
	size_t start = peer->n_out;
	uint32_t crc;

	if (fpdu_size(len) > sizeof(peer->out) - peer->n_out)
		return;
	put_be16(head, (uint16_t)len);
	put(peer, head, sizeof(head));
	put(peer, ulpdu, len);
	put(peer, tail, fpdu_pad(len));
	crc = peer->crc ? fpdu_crc(FPDU_CRC_START, peer->out + start, peer->n_out - start) : 0;
	if (peer->crc)
		fpdu_crc_put(tail, crc);
	tail[0] ^= damaged;
	put(peer, tail, FPDU_CRC_SIZE);
}

static void say_mpa(struct peer *peer, struct input *in)
{
	uint8_t flags = input_u8(in), how = input_u8(in), buf[MPA_FRAME_MAX], pd[256] = { 0 };
	struct mpa_frame frame = {
		.reply = peer->is_responder, .revision = how & 1 ? 1 : 2, .markers = flags & 1, .crc = flags & 2, .reject = flags & 4,
		.enhanced = flags & 8, .peer_to_peer = flags & 16, .rtr_send = flags & 32, .rtr_write = flags & 64,
		.rtr_read = flags & 128, .pd = pd,
	};
	struct locator_grant grant = { 1, 7, 4096, 4096, 9 };

	frame.ird = (how & 0xf0) == 0xf0 ? MPA_NOT_NEGOTIATED : how >> 4;
	frame.ord = (how & 0x0e) == 0x0e ? MPA_NOT_NEGOTIATED : how >> 1 & 7;
	switch (input_u8(in) % 6) {
	case 0:
	case 1:
		peer_hello_encode(pd, peer_secret(0));
		frame.pd_len = PEER_HELLO_SIZE;
		break;
	case 2:
		frame.pd_len = peer_hello_encode_caps(pd, peer_secret(1), how);
		break;
	case 3:
		frame.pd_len = peer_accept_encode(pd, how & 16 ? &grant : NULL, how & 15);
		break;
	case 4:
		frame.pd_len = input_u8(in);
		input_bytes(in, pd, frame.pd_len);
		break;
	}
	put(peer, buf, mpa_encode(buf, sizeof(buf), &frame));
	if (!peer->greeted)
		peer->crc = peer->crc || frame.crc;
}

static uint32_t some_stag(const struct peer *peer, uint8_t which)
{
	if (which < 0x80)
		return peer->remote[which % PEER_TAGS];
	if (which < 0xa0)
		return peer->local[which % PEER_TAGS];
	return which < 0xe0 ? peer->last_read.sink_stag : which;
}

static uint64_t some_address(const struct peer *peer, uint8_t which, uint16_t offset)
{
	if (which < 0xa0)
		return (uint64_t)places[which % PEER_TAGS].page * PAGE + (uint64_t)(int64_t)(int16_t)offset;
	return which < 0xe0 ? peer->last_read.sink_to + offset : UINT64_MAX - offset;
}

/* A write or a read response, its payload made up. */
static void say_tagged(struct peer *peer, struct input *in, enum rdmap_opcode opcode)
{
	static uint8_t buf[FPDU_MAX];
	uint8_t flags = input_u8(in), which = input_u8(in);
	uint64_t to = some_address(peer, which, input_u16(in));
	size_t len = input_u16(in);
	struct rdmap_header header = { .tagged = true, .last = flags & 1, .opcode = opcode, .stag = some_stag(peer, which), .to = to };
	size_t head = rdmap_encode(buf, &header);

	if (!(flags & 4))
		len %= 1024;
	if (len > FPDU_ULPDU_MAX - head)
		len = FPDU_ULPDU_MAX - head;
	memset(buf + head, 'w', len);
	put_fpdu(peer, buf, head + len, flags & 2);
}

static void say_read(struct peer *peer, struct input *in)
{
	uint8_t buf[RDMAP_READ_ULPDU], flags = input_u8(in), which = input_u8(in);
	struct rdmap_header header = { .last = !(flags & 1), .opcode = RDMAP_READ_REQUEST, .queue = QUEUE_READ };
	struct rdmap_read read = { .sink_stag = input_u8(in), .source_stag = some_stag(peer, which) };

	read.source_to = some_address(peer, which, input_u16(in));
	read.size = input_u16(in);
	if (flags & 4)
		read.size <<= 16;
	read.sink_to = flags & 8 ? UINT64_MAX - 5 : 0x1000;
	header.msn = flags & 16 ? (uint32_t)input_u8(in) : ++peer->msn[QUEUE_READ];
	rdmap_read_encode(buf + rdmap_encode(buf, &header), &read);
	put_fpdu(peer, buf, sizeof(buf), flags & 2);
}

static void say_untagged(struct peer *peer, struct input *in)
{
	static uint8_t buf[FPDU_MAX];
	uint8_t flags = input_u8(in), queue = input_u8(in) % 5;
	struct rdmap_header header = { .last = flags & 1, .opcode = flags >> 2 & 7, .queue = queue, .stag = some_stag(peer, flags) };
	size_t head, got;
	const uint8_t *bytes;

	header.msn = flags & 32 ? (uint32_t)input_u8(in) : queue < 3 ? ++peer->msn[queue] : 1;
	header.mo = flags & 64 ? input_u16(in) : 0;
	head = rdmap_encode(buf, &header);
	bytes = input_take(in, input_u8(in), &got);
	if (got)
		memcpy(buf + head, bytes, got);
	put_fpdu(peer, buf, head + got, flags & 2);
}

static void say_bytes(struct peer *peer, struct input *in, bool framed)
{
	size_t got;
	const uint8_t *bytes = input_take(in, input_u8(in), &got);

	if (framed)
		put_fpdu(peer, bytes, got, false);
	else
		put(peer, bytes, got);
}

/* ---- what is asked of the engine */

static void on_posted(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	bool *done = userdata;

	must(!*done);
	*done = true;
	must(error->reason || !result->failed);
}

static void put_entry(const struct peer *peer, uint8_t *p, uint8_t which)
{
	static const uint32_t lengths[] = { 0, 1, 100, 4096, 8192, 4095, 200, UINT32_MAX };

	memset(p, 0, NICD_TRANSFER_ENTRY_SIZE);
	/* Mostly the tag that is there for it, and its start. */
	put_le32(p, peer->local[which & 0x10 ? which % PEER_TAGS : (unsigned)TAG_LOCAL]);
	put_le32(p + 4, 0x01020304);
	put_le32(p + 8, which & 0x20 ? (unsigned)which << 4 : places[TAG_LOCAL].page * PAGE);
	put_le32(p + 16, PAGE);
	put_le32(p + 24, lengths[which % 8]);
}

void peer_work(struct peer *peer, struct input *in)
{
	uint8_t entries[4 * NICD_TRANSFER_ENTRY_SIZE], what = input_u8(in);
	struct soft_post post = { .operation = what & 2 ? NIC_SEND : what & 1 ? NIC_READ : NIC_WRITE, .entries = entries,
				  .n_entries = 1 + (what >> 6) };
	bool *done = &peer->done[peer->asked];

	if (peer->asked == PEER_POSTS)
		return;
	if (post.operation == NIC_SEND)
		post.n_entries = 1;
	for (unsigned i = 0; i < post.n_entries; i++)
		put_entry(peer, entries + i * NICD_TRANSFER_ENTRY_SIZE, input_u8(in));
	post.notify = what & 8 && post.operation == NIC_WRITE;
	post.solicited = what & 8 && post.operation == NIC_SEND;
	post.invalidate = what & 16 && post.operation == NIC_SEND;
	post.invalidate_token = 0x01020304;
	*done = false;
	peer->asked++;
	if (what & 4)
		soft_receive(peer->engine, peer->stream, entries, on_posted, done);
	else
		soft_post(peer->engine, peer->stream, &post, on_posted, done);
}

/* Those that the peer has invalidated are made again. */
static void tags_renew(struct peer *peer)
{
	for (unsigned i = 0; i < PEER_TAGS; i++) {
		if (!soft_tag_find(peer->tags, places[i].door ? places[i].door : FIRST_TAG + i))
			tag_init(peer, i);
	}
}

/* Somebody drops a tag, in the middle of whatever is on its way. */
static void drop_tag(struct peer *peer, unsigned i)
{
	soft_tag_drop(peer->tags, places[i].door ? places[i].door : FIRST_TAG + i, 1);
	peer_turn(peer, 1);
	tags_renew(peer);
}

static void command(struct peer *peer, struct input *in, uint8_t what, void (*act)(struct peer *peer, struct input *in))
{
	switch (what % 10) {
	case 0:
		say_bytes(peer, in, false);
		break;
	case 1:
		say_bytes(peer, in, true);
		break;
	case 2:
		say_mpa(peer, in);
		break;
	case 3:
	case 4:
		say_tagged(peer, in, RDMAP_WRITE);
		break;
	case 5:
		say_tagged(peer, in, RDMAP_READ_RESPONSE);
		break;
	case 6:
		say_read(peer, in);
		break;
	case 7:
		say_untagged(peer, in);
		break;
	case 8:
		drop_tag(peer, input_u8(in) % PEER_TAGS);
		break;
	case 9:
		act(peer, in);
		break;
	}
}

void peer_run(struct peer *peer, struct input *in, void (*act)(struct peer *peer, struct input *in))
{
	for (unsigned i = 0; i < COMMANDS && in->left; i++) {
		uint8_t what = input_u8(in);

		command(peer, in, what, act);
		/* Most go out at once; some with what follows; some half now and half later. */
		if (what >= 0xf0 || !peer->n_out)
			continue;
		if (what >= 0xc0)
			flush(peer, peer->n_out / 2);
		flush(peer, what >= 0xa0 && what < 0xc0 ? peer->n_out - peer->n_out / 3 : peer->n_out);
		peer_turn(peer, TURNS);
	}
	flush(peer, peer->n_out);
	peer_turn(peer, TURNS);
}

static void check_memory(const struct peer *peer)
{
	for (unsigned page = 0; page < PEER_PAGES; page++) {
		if (page == places[TAG_READ_ONLY].page)
			must(peer->map[page * PAGE] == 'r' && !memcmp(peer->map + page * PAGE, peer->map + page * PAGE + 1, PAGE - 1));
		else if (is_poison(page))
			must(!memcmp(peer->map + page * PAGE, poison, RUN) &&
			     !memcmp(peer->map + page * PAGE, peer->map + page * PAGE + RUN, PAGE - RUN));
	}
}

/*
 * Engines close what has ended a while later, by a timer. That is waited for now and then: then as many are open as in
 * the beginning.
 */
static void settle(void)
{
	uint64_t until = uv_hrtime() + PATIENCE_NS;

	while (fd_sockets() > all.sockets) {
		must(uv_hrtime() < until);
		for (unsigned i = 0; i < all.n; i++)
			uv_run(&all.peers[i]->loop, UV_RUN_NOWAIT);
		usleep(500);
	}
}

/* What was posted on a connection that was cut is answered when the engine buries it. */
static void await_answers(struct peer *peer)
{
	uint64_t until = uv_hrtime() + PATIENCE_NS;

	for (unsigned i = 0; i < peer->asked; i++) {
		while (!peer->done[i]) {
			must(uv_hrtime() < until);
			uv_run(&peer->loop, UV_RUN_NOWAIT);
			usleep(100);
		}
	}
}

void peer_finish(struct peer *peer)
{
	const struct linger reset = { .l_onoff = 1 };
	struct soft_engine_stats stats;

	if (peer->fd >= 0) {
		/* So that no port stays taken. */
		setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(peer->fd);
	}
	peer->fd = -1;
	uv_run(&peer->loop, UV_RUN_NOWAIT);
	soft_engine_reset(peer->engine);
	for (unsigned i = 0; i < 5; i++)
		uv_run(&peer->loop, UV_RUN_NOWAIT);
	soft_engine_stats(peer->engine, &stats);
	must(!stats.streams && !stats.half_open);
	if (++all.runs % SETTLE == 0)
		settle();
	await_answers(peer);
	check_memory(peer);
	tags_renew(peer);
	peer->asked = 0;
	peer->stream = 0;
	peer->n_in = peer->n_out = 0;
	peer->crc = peer->mpa_done = peer->greeted = false;
	memset(peer->msn, 0, sizeof(peer->msn));
	memset(&peer->last_read, 0, sizeof(peer->last_read));
}
