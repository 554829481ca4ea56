/* SPDX-License-Identifier: MIT */
/*
 * Flags of posted work in the engine. The read fence, against a peer of plain bytes that answers reads when it likes; inline data, between two
 * engines and into a socket that is full.
 */
#include <string.h>
#include <sys/socket.h>

#include "raw.h"

#include "nicd/soft/bytes.h"

enum { IOVA = 0x7000000, SIZE = 1 << 20, THERE = 0x1000, STAG = 0x0a0b0c0d, STREAM = 5 };

static const uint8_t ticket[NICD_TICKET_SIZE] = "0123456789abcde";
static const struct mpa_frame good_reply = {.reply = true, .revision = 2, .enhanced = true, .ird = 4, .ord = 4};

struct world {
	uv_loop_t loop;
	struct host host;
	struct mem mem;
	struct soft_tag *tag;
	struct raw listener, raw;
	struct soft_connect_terms terms;
};

static void respond(struct world *w, uint32_t stag, uint64_t to, bool last, const void *payload, size_t len)
{
	const struct rdmap_header h = {.tagged = true, .last = last, .opcode = RDMAP_READ_RESPONSE, .stag = stag, .to = to};

	raw_fpdu(&w->raw, &h, payload, len);
}

/* The next frame is a read request of this size. */
static struct rdmap_read take_read(struct world *w, uint32_t size)
{
	static uint8_t buf[FPDU_MAX];
	struct rdmap_header h;
	struct rdmap_read read;

	assert_int_equal(raw_frame(&w->raw, &h, buf), RDMAP_READ_SIZE);
	assert_int_equal(h.opcode, RDMAP_READ_REQUEST);
	rdmap_read_decode(buf, &read);
	assert_int_equal(read.size, size);
	return read;
}

static void take(struct world *w, enum rdmap_opcode opcode, const void *payload, size_t len)
{
	static uint8_t buf[FPDU_MAX];
	struct rdmap_header h;

	assert_int_equal(raw_frame(&w->raw, &h, buf), len);
	assert_int_equal(h.opcode, opcode);
	assert_memory_equal(buf, payload, len);
}

static void world_new(struct world *w, const struct soft_engine_options *options)
{
	struct connected connected = {0};
	uint8_t buf[MPA_FRAME_MAX];

	assert_int_equal(uv_loop_init(&w->loop), 0);
	host_new(&w->host, &w->loop, options);
	w->mem = mem_new(&w->host, SIZE);
	fill(w->mem.map, SIZE, 3);
	w->tag = tag_new(&w->host, &w->mem, PD, 0, NIC_LOCAL_WRITE, IOVA);
	w->terms = (struct soft_connect_terms){.stream = STREAM, .pd = PD, .timeout_ms = 5000};
	w->listener = raw_listen(&w->loop, &w->terms.addr);
	memcpy(w->terms.ticket, ticket, sizeof(ticket));
	soft_connect(w->host.engine, &w->terms, on_connected, &connected);
	w->raw = raw_accept(&w->listener);
	raw_recv(&w->raw, buf, MPA_FRAME_HEADER);
	raw_recv(&w->raw, buf + MPA_FRAME_HEADER, get_be16(buf + 18));
	raw_request(&w->raw, &good_reply, NULL);
	w->raw.crc = options && options->crc;
	respond(w, take_read(w, 0).sink_stag, 0, true, NULL, 0);
	run_until(&w->loop, &connected.done);
	assert_int_equal(connected.error.reason, NICD_R_NONE);
}

static void world_free(struct world *w)
{
	raw_close(&w->raw);
	raw_close(&w->listener);
	host_free(&w->host);
	assert_int_equal(uv_loop_close(&w->loop), 0);
	mem_free(&w->mem);
}

/* One entry: `length` bytes from or to the start of the memory. */
static void post_flags(struct host *host, const struct soft_tag *tag, uint64_t addr, struct soft_post what, uint32_t length,
		       struct posted *posted)
{
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = {0};

	put_le32(entry, tag ? tag->local_token : 0x5eed);
	put_le32(entry + 4, STAG);
	put_le64(entry + 8, addr);
	put_le64(entry + 16, THERE);
	put_le32(entry + 24, length);
	what.entries = entry;
	what.n_entries = 1;
	*posted = (struct posted){0};
	soft_post(host->engine, STREAM, &what, on_posted, posted);
}

static void post_one(struct world *w, enum nic_operation operation, uint32_t length, bool fence, struct posted *posted)
{
	post_flags(&w->host, w->tag, IOVA, (struct soft_post){.operation = operation, .fence = fence}, length, posted);
}

static void ends(struct world *w, struct posted *posted, enum nicd_reason reason)
{
	run_until(&w->loop, &posted->done);
	assert_int_equal(posted->error.reason, reason);
}

/* ---- the fence */

static void fenced(struct world *w, enum nic_operation operation, bool fence)
{
	static const uint8_t data[100] = {1, 2, 3};
	static struct posted reads[2], work, behind;
	struct rdmap_read one, two;

	post_one(w, NIC_READ, 100, false, &reads[0]);
	post_one(w, NIC_READ, 60, false, &reads[1]);
	post_one(w, operation, 10, fence, &work);
	post_one(w, NIC_WRITE, 20, false, &behind);
	one = take_read(w, 100);
	two = take_read(w, 60);
	if (fence) {
		assert_true(raw_is_silent(&w->raw, 20));
		respond(w, one.sink_stag, one.sink_to, true, data, 100);
		/* mutation: wait for one read only */
		assert_true(raw_is_silent(&w->raw, 20));
		respond(w, two.sink_stag, two.sink_to, false, data, 30);
		/* mutation: count a read as ended when its first bytes come */
		assert_true(raw_is_silent(&w->raw, 20));
		respond(w, two.sink_stag, two.sink_to + 30, true, data, 30);
		/* What was read is there before what is sent leaves. mutation: no fence */
		memcpy(w->mem.map, data, 10);
	}
	if (operation == NIC_READ)
		one = fence ? take_read(w, 10) : (take_read(w, 10), one);
	else
		take(w, operation == NIC_WRITE ? RDMAP_WRITE : RDMAP_SEND, w->mem.map, 10);
	if (operation != NIC_READ)
		take_read(w, 0);
	/* What is posted behind a fence waits with it, and keeps its place. */
	take(w, RDMAP_WRITE, w->mem.map, 20);
	take_read(w, 0);
}

static void test_fence(void **state)
{
	static const enum nic_operation operations[] = {NIC_WRITE, NIC_SEND, NIC_READ};
	struct world w;

	for (unsigned i = 0; i < 6; i++) {
		/* mutation: a fence that nobody asked for */
		world_new(&w, NULL);
		fenced(&w, operations[i / 2], i % 2);
		world_free(&w);
	}
}

/* A fence is for reads: writes in front of it are not waited for. */
static void test_fence_behind_writes(void **state)
{
	struct posted write, work;
	struct world w;

	world_new(&w, NULL);
	post_one(&w, NIC_WRITE, 30, false, &write);
	post_one(&w, NIC_WRITE, 10, true, &work);
	take(&w, RDMAP_WRITE, w.mem.map, 30);
	take_read(&w, 0);
	/* mutation: take the zero-length read behind writes for one */
	take(&w, RDMAP_WRITE, w.mem.map, 10);
	take_read(&w, 0);
	assert_false(write.done);
	world_free(&w);
}

/* Nothing of a fenced request is looked at before its turn: not even its token. */
static void test_fence_and_bad_token(void **state)
{
	static const uint8_t data[100];
	struct posted read, bad;
	struct rdmap_read one;
	struct world w;

	world_new(&w, NULL);
	post_one(&w, NIC_READ, 100, false, &read);
	post_flags(&w.host, NULL, IOVA, (struct soft_post){.operation = NIC_WRITE, .fence = true}, 5, &bad);
	one = take_read(&w, 100);
	assert_true(raw_is_silent(&w.raw, 20));
	assert_false(bad.done);
	respond(&w, one.sink_stag, one.sink_to, true, data, 100);
	ends(&w, &read, NICD_R_NONE);
	ends(&w, &bad, NICD_R_LOCAL_TOKEN);
	world_free(&w);
}

/* Flush answers all in order, those behind a fence too. */
static void test_fence_and_flush(void **state)
{
	struct posted posted[3];
	struct world w;

	world_new(&w, NULL);
	post_one(&w, NIC_READ, 100, false, &posted[0]);
	post_one(&w, NIC_WRITE, 10, true, &posted[1]);
	post_one(&w, NIC_SEND, 10, true, &posted[2]);
	take_read(&w, 100);
	assert_true(raw_is_silent(&w.raw, 20));
	soft_flush(w.host.engine, STREAM);
	for (unsigned i = 0; i < 3; i++) {
		/* mutation: leave what waits behind a fence when the rest is flushed */
		assert_true(posted[i].done);
		assert_int_equal(posted[i].times, 1);
		assert_int_equal(posted[i].error.reason, NICD_R_FLUSHED);
	}
	world_free(&w);
}

/* ---- inline */

static void inlines(const struct soft_engine_options *options)
{
	static const uint32_t lengths[] = {0, 1, 3, 100, 490, 1424, 1425, 2000, NICD_INLINE};
	uint8_t data[NICD_INLINE], keep[NICD_INLINE];
	struct posted sent, received;
	struct soft_tag *remote;
	struct pair pair;
	struct mem to;

	pair_new(&pair, options, options);
	to = mem_new(&pair.b, SIZE);
	remote = tag_new(&pair.b, &to, PD, 0, NIC_LOCAL_WRITE | NIC_REMOTE_WRITE, THERE);
	connect_pd(&pair, STREAM);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		const struct soft_post write = {.operation = NIC_WRITE, .is_inline = true, .inline_data = data};
		const struct soft_post send = {.operation = NIC_SEND, .is_inline = true, .inline_data = data};
		uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = {0};
		struct soft_post what = write;

		fill(data, sizeof(data), i);
		memcpy(keep, data, sizeof(data));
		put_le32(entry + 4, remote->remote_token);
		put_le64(entry + 16, THERE + 7);
		put_le32(entry + 24, lengths[i]);
		what.entries = entry;
		what.n_entries = 1;
		sent = (struct posted){0};
		/* mutation: look at the token of the local side, which is none */
		soft_post(pair.a.engine, STREAM, &what, on_posted, &sent);
		post_receive(&pair.b, pair.b.stream, remote, THERE + 10000, SIZE / 2, &received);
		memset(data, 0xee, sizeof(data));
		run_until(&pair.loop, &sent.done);
		assert_int_equal(sent.error.reason, NICD_R_NONE);
		assert_int_equal(sent.completion.bytes, lengths[i]);
		/* mutation: borrow the bytes; begin each segment at the first */
		assert_memory_equal(to.map + 7, keep, lengths[i]);
		memcpy(data, keep, sizeof(data));
		post_flags(&pair.a, NULL, 0, send, lengths[i], &sent);
		memset(data, 0xee, sizeof(data));
		run_until(&pair.loop, &sent.done);
		assert_int_equal(sent.error.reason, NICD_R_NONE);
		run_until(&pair.loop, &received.done);
		assert_int_equal(received.completion.bytes, lengths[i]);
		assert_memory_equal(to.map + 10000, keep, lengths[i]);
	}
	pair_free(&pair);
	mem_free(&to);
}

static void test_inline(void **state)
{
	const struct soft_engine_options crc = {.crc = true}, small = {.fpdu = 512}, both = {.crc = true, .fpdu = 512};

	inlines(NULL);
	/* mutation: no checksum over the inline bytes, or one over what the last turn left in the buffer */
	inlines(&crc);
	inlines(&small);
	inlines(&both);
}

/* The local side means nothing: that its tag goes while the request waits has no effect. */
static void test_inline_without_its_tag(void **state)
{
	static const uint8_t data[100], bytes[10] = "inline";
	struct posted read, work;
	struct soft_tag *other;
	struct rdmap_read one;
	struct world w;

	world_new(&w, NULL);
	other = tag_new(&w.host, &w.mem, PD, 0, 0, IOVA);
	post_one(&w, NIC_READ, 100, false, &read);
	post_flags(&w.host, other, IOVA,
		   (struct soft_post){.operation = NIC_WRITE, .fence = true, .is_inline = true, .inline_data = bytes}, 10, &work);
	one = take_read(&w, 100);
	assert_int_equal(soft_tag_drop(w.host.tags, other->serial, other->generation), 0);
	respond(&w, one.sink_stag, one.sink_to, true, data, 100);
	/* mutation: hold a use of the tag */
	take(&w, RDMAP_WRITE, bytes, 10);
	take_read(&w, 0);
	world_free(&w);
}

/* Into a socket that takes frames in part; tags that go meanwhile cut nothing. */
static void full(const struct soft_engine_options *options)
{
	enum { POSTS = 24, LENGTH = NICD_INLINE };
	static struct posted posted[POSTS];
	static uint8_t buf[FPDU_MAX], data[LENGTH], wanted[LENGTH];
	struct soft_tag *other;
	struct rdmap_header h;
	struct world w;
	uint32_t got;

	world_new(&w, options);
	other = tag_new(&w.host, &w.mem, PD, 0, 0, IOVA);
	setsockopt(w.raw.fd, SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int));
	for (unsigned i = 0; i < POSTS; i++) {
		fill(data, LENGTH, i);
		post_flags(&w.host, other, IOVA, (struct soft_post){.operation = NIC_WRITE, .is_inline = true, .inline_data = data}, LENGTH,
			   &posted[i]);
	}
	run_ms(&w.loop, 20);
	assert_int_equal(soft_tag_drop(w.host.tags, other->serial, other->generation), 0);
	/* The four reads that may be under way let no more than these out at once. */
	for (unsigned i = 0; i < POSTS; i++) {
		fill(wanted, LENGTH, i);
		for (got = 0; got < LENGTH;) {
			size_t n = raw_frame(&w.raw, &h, buf);

			if (h.opcode == RDMAP_READ_REQUEST) {
				struct rdmap_read read;

				rdmap_read_decode(buf, &read);
				respond(&w, read.sink_stag, 0, true, NULL, 0);
				continue;
			}
			assert_int_equal(h.opcode, RDMAP_WRITE);
			assert_int_equal(h.to, THERE + got);
			/* mutation: send the rest of a half sent frame from elsewhere */
			assert_memory_equal(buf, wanted + got, n);
			got += n;
		}
	}
	respond(&w, take_read(&w, 0).sink_stag, 0, true, NULL, 0);
	for (unsigned i = 0; i < POSTS; i++)
		ends(&w, &posted[i], NICD_R_NONE);
	world_free(&w);
}

static void test_inline_full(void **state)
{
	const struct soft_engine_options crc = {.crc = true, .fpdu = 512};

	full(NULL);
	full(&crc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fence),
		cmocka_unit_test(test_fence_behind_writes),
		cmocka_unit_test(test_fence_and_bad_token),
		cmocka_unit_test(test_fence_and_flush),
		cmocka_unit_test(test_inline),
		cmocka_unit_test(test_inline_without_its_tag),
		cmocka_unit_test(test_inline_full),
	};

	return cmocka_run_group_tests_name("flags", tests, NULL, NULL);
}
