/* SPDX-License-Identifier: MIT */
/*
 * The commands of soft.proto, one row and one function each. A function gets a decoded request, checks what the message can get wrong, and
 * calls the object that checks the rest. It answers at once through `answer`, or later through a soft_pending.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "nicd/soft/bytes.h"
#include "proto/entry.h"
#include "nicd/soft/device-private.h"
#include "nicd/soft/key.h"
#include "nicd/soft/mapping.h"
#include "nicd/soft/pool.h"

/* A reply and the message inside it. */
struct answer {
	Soft__Reply reply;
	union {
		Soft__HelloReply hello;
		Soft__Tags tags;
		Soft__Dropped dropped;
		Soft__Key key;
		Soft__Completion completion;
		Soft__Stream stream;
		Soft__ListReply list;
		struct {
			Soft__StatsReply stats;
			Soft__Cap caps[SOFT_CAPS];
			Soft__Cap *cap_pointers[SOFT_CAPS];
		};
	};
};

struct run {
	struct soft_device *device;
	const Soft__Request *request;
	int fd;                     /* of commands that take one; borrowed */
	struct nicd_error err;
	struct answer answer;
};

/* What a command function says, besides a negative errno for "refused, see run->err". */
enum { RUN_NOW = 0, RUN_LATER = 1 };

enum { CONNECT_TIMEOUT_MS = 10000, CONNECT_TIMEOUT_MAX_MS = 60000 };

static const uint64_t INBOUND_STREAM = 1ull << 63;

/* Each takes a descriptor. */
static uint32_t max_streams(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > UINT32_MAX ? 0 : (uint32_t)limit.rlim_cur;
}

void soft_hello_put(const struct soft_device *device, Soft__Reply *reply, Soft__HelloReply *hello)
{
	soft__hello_reply__init(hello);
	hello->major = NICD_MAJOR;
	hello->incarnation = device->incarnation;
	hello->data_address = (char *)device->data_address;
	hello->max_inbound_read = SOFT_MAX_READS;
	hello->max_outbound_read = SOFT_MAX_READS;
	hello->max_tags = SOFT_PLACES - 1;
	hello->max_streams = max_streams();
	reply->result_case = SOFT__REPLY__RESULT_HELLO;
	reply->hello = hello;
}

static int run_hello(struct run *run)
{
	const Soft__Hello *hello = run->request->hello;
	struct soft_device *device = run->device;

	if (device->controlled || device->hello)
		return nicd_refuse(&run->err, NICD_R_HELLO_AGAIN);
	if (hello->major != NICD_MAJOR)
		return nicd_refuse_at(&run->err, NICD_R_VERSION, NICD_MAJOR * 1000 + NICD_MINOR, hello->major * 1000ull);
	device->keep = hello->keep;
	/* What an earlier controller left may be on its way out still; one that wants to keep what there is finds it gone. */
	if ((hello->keep && !device->dropping) || soft_device_drop(device)) {
		device->controlled = true;
		soft_hello_put(device, &run->answer.reply, &run->answer.hello);
		return RUN_NOW;
	}
	device->hello = soft_pending_new(device, run->request->id);
	return device->hello ? RUN_LATER : nicd_refuse(&run->err, NICD_R_NO_MEMORY);
}

static int run_attach_memory(struct run *run)
{
	const Soft__AttachMemory *attach = run->request->attach_memory;
	int r = soft_memory_attach(run->device->tags, attach->serial, run->fd, attach->size, attach->writable, &run->err);

	soft_device_tidy(run->device);
	return r;
}

/* Ends a pending request that has nothing to say but that it is done. */
static void answer_done(void *userdata)
{
	Soft__Reply reply = SOFT__REPLY__INIT;

	soft_pending_answer(userdata, &reply);
}

/* Ends a pending request that is refused after all. */
static int answer_refused(struct soft_pending *pending, const struct nicd_error *err)
{
	Soft__Reply reply = SOFT__REPLY__INIT;

	soft_reply_refuse(&reply, err);
	soft_pending_answer(pending, &reply);
	return RUN_LATER;
}

static int run_detach_memory(struct run *run)
{
	struct soft_pending *pending = soft_pending_new(run->device, run->request->id);
	int r;

	if (!pending)
		return nicd_refuse(&run->err, NICD_R_NO_MEMORY);
	r = soft_memory_detach(run->device->tags, run->request->detach_memory->serial, answer_done, pending, &run->err);
	if (r < 0)
		return answer_refused(pending, &run->err);
	soft_device_tidy(run->device);
	return RUN_LATER;
}

/* ---- tags: now, or in the order of a stream's work */

/* All but the ranges that there are not. */
static void terms_fill(struct soft_tag_terms *terms, const Soft__AddTag *add)
{
	terms->serial = add->serial;
	terms->generation = add->generation;
	terms->rights = add->rights;
	terms->pd = add->pd;
	terms->door = add->door;
	terms->iova = add->iova;
	terms->length = add->length;
	terms->stream = add->only_stream ? add->stream : 0;
	terms->windows = NULL;
	terms->reserve = add->reserve;
	terms->n_ranges = (uint32_t)add->n_ranges;
	for (size_t i = 0; i < add->n_ranges; i++) {
		terms->ranges[i].memory = add->ranges[i]->memory;
		terms->ranges[i].offset = add->ranges[i]->offset;
		terms->ranges[i].length = add->ranges[i]->length;
	}
}

static void put_tags(Soft__Reply *reply, Soft__Tags *tags, const struct soft_tag *tag)
{
	soft__tags__init(tags);
	tags->local_token = tag->local_token;
	tags->remote_token = tag->remote_token;
	reply->result_case = SOFT__REPLY__RESULT_TAGS;
	reply->tags = tags;
}

/* A window goes with its stream, so there must be one. */
static int tag_add(struct soft_device *device, struct soft_tag_terms *terms, struct soft_tag **ret, struct nicd_error *err)
{
	if (terms->stream) {
		terms->windows = soft_stream_windows(device->engine, terms->stream);
		if (!terms->windows)
			return nicd_refuse(err, NICD_R_QP_LOST);
	}
	return soft_tag_add(device->tags, terms, ret, err);
}

/* One that waits for its turn. */
struct tag_turn {
	RB_ENTRY(tag_turn) by_serial;
	struct soft_work *work;        /* its place in the stream's queue */
	struct soft_pending *pending;  /* NULL: a drop that waits for nobody has answered it just before it was told that its turn has come */
	bool adds;
	uintptr_t own;                 /* its address: there may be more than one of a serial, and the key for all of them has 0 */
	struct soft_tag_terms terms;   /* dropping: serial and generation */
};

static int turn_compare(const struct tag_turn *a, const struct tag_turn *b)
{
	if (a->terms.serial != b->terms.serial)
		return a->terms.serial < b->terms.serial ? -1 : 1;
	return a->own < b->own ? -1 : a->own > b->own;
}
RB_GENERATE_INTERNAL(tag_turns, tag_turn, by_serial, turn_compare, static __attribute__((unused)))

static void turn_refuse(struct tag_turn *turn, const struct nicd_error *err)
{
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Dropped dropped;

	if (turn->adds)
		soft_reply_refuse(&reply, err);
	else
		soft_dropped_put(&reply, &dropped, 0);
	soft_pending_answer(turn->pending, &reply);
}

/*
 * What is dropped now is not added later, and needs no other drop: whoever waits for that is answered. It leaves the stream's queue, too: the
 * controller counts it no more, so that there could be any number of them.
 */
static void turns_overtake(struct soft_device *device, uint64_t serial, uint32_t generation)
{
	const struct nicd_error flushed = {.reason = NICD_R_FLUSHED};
	struct tag_turn key = {.terms.serial = serial}, *turn, *next;

	if (RB_EMPTY(&device->tag_turns))
		return;
	for (turn = RB_NFIND(tag_turns, &device->tag_turns, &key); turn && turn->terms.serial == serial; turn = next) {
		next = RB_NEXT(tag_turns, &device->tag_turns, turn);
		if (turn->terms.generation != generation)
			continue;
		RB_REMOVE(tag_turns, &device->tag_turns, turn);
		turn_refuse(turn, &flushed);
		if (soft_turn_forget(turn->work))
			free(turn);
		else
			turn->pending = NULL;
	}
}

/* False: it was overtaken, and is gone. */
static bool turn_begin(struct tag_turn *turn)
{
	if (turn->pending) {
		RB_REMOVE(tag_turns, &turn->pending->device->tag_turns, turn);
		return true;
	}
	free(turn);
	return false;
}

static struct tag_turn *turn_new(struct run *run, const struct soft_tag_terms *terms)
{
	struct tag_turn *turn = malloc(sizeof(*turn));

	if (!turn)
		return NULL;
	turn->pending = soft_pending_new(run->device, run->request->id);
	turn->terms = *terms;
	if (!turn->pending) {
		free(turn);
		return NULL;
	}
	return turn;
}

static void on_turn_to_add(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	struct tag_turn *turn = userdata;
	struct nicd_error err = error ? *error : (struct nicd_error){0};
	Soft__Reply reply = SOFT__REPLY__INIT;
	struct soft_tag *tag;
	Soft__Tags tags;

	if (!turn_begin(turn))
		return;
	if (err.reason != NICD_R_NONE && err.reason != NICD_R_FLUSHED)
		nicd_refuse(&err, NICD_R_QP_LOST);
	if (turn->pending->device->dropping)   /* everything; nothing may come behind it */
		nicd_refuse(&err, NICD_R_FLUSHED);
	if (err.reason == NICD_R_NONE && tag_add(turn->pending->device, &turn->terms, &tag, &err) >= 0)
		put_tags(&reply, &tags, tag);
	else
		soft_reply_refuse(&reply, &err);
	soft_pending_answer(turn->pending, &reply);
	free(turn);
}

/* The end of the stream is its turn, too. */
static void on_turn_to_drop(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	struct tag_turn *turn = userdata;
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Dropped dropped;

	if (!turn_begin(turn))
		return;
	soft_dropped_put(&reply, &dropped, soft_tag_drop(turn->pending->device->tags, turn->terms.serial, turn->terms.generation));
	soft_pending_answer(turn->pending, &reply);
	free(turn);
}

/* RUN_LATER: `fn` is called with a tag_turn when it is its turn, or the stream has ended. */
static int turn_wait(struct run *run, uint64_t stream, bool fence, const struct soft_tag_terms *terms,
		     void (*fn)(void *userdata, const struct nicd_error *error, const struct soft_completion *result))
{
	struct tag_turn *turn = turn_new(run, terms);

	if (!turn)
		return nicd_refuse(&run->err, NICD_R_NO_MEMORY);
	turn->adds = fn == on_turn_to_add;
	turn->own = (uintptr_t)turn;
	RB_INSERT(tag_turns, &run->device->tag_turns, turn);
	turn->work = soft_turn_wait(run->device->engine, stream, fence, fn, turn);
	if (!turn->work) {
		nicd_refuse(&run->err, NICD_R_NO_MEMORY);
		RB_REMOVE(tag_turns, &run->device->tag_turns, turn);
		answer_refused(turn->pending, &run->err);
		free(turn);
	}
	return RUN_LATER;
}

static int run_add_tag(struct run *run)
{
	const Soft__AddTag *add = run->request->add_tag;
	struct soft_tag_terms terms;
	enum soft_turn turn = SOFT_TURN_NOW;
	struct soft_tag *tag;
	int r;

	if (add->n_ranges > NICD_RANGES)
		return nicd_refuse_at(&run->err, NICD_R_COUNT, NICD_RANGES, add->n_ranges);
	terms_fill(&terms, add);
	if (add->stream)
		turn = soft_turn_of(run->device->engine, add->stream, add->fence);
	if (turn == SOFT_TURN_NEVER)
		return nicd_refuse(&run->err, NICD_R_QP_LOST);
	if (turn == SOFT_TURN_LATER)
		return turn_wait(run, add->stream, add->fence, &terms, on_turn_to_add);
	r = tag_add(run->device, &terms, &tag, &run->err);
	if (r < 0)
		return r;
	put_tags(&run->answer.reply, &run->answer.tags, tag);
	return RUN_NOW;
}

static int answer_dropped(struct run *run, unsigned streams_cut)
{
	soft_dropped_put(&run->answer.reply, &run->answer.dropped, streams_cut);
	return RUN_NOW;
}

/* Alone. */
static int run_drop_in_order(struct run *run)
{
	const Soft__DropTag *drop = run->request->drop_tag;
	const struct soft_tag_terms terms = {.serial = drop->serial, .generation = drop->generation};

	if (drop->n_more_serials || drop->n_more_generations)
		return nicd_refuse_at(&run->err, NICD_R_COUNT, 0, drop->n_more_serials);
	if (soft_turn_of(run->device->engine, drop->stream, drop->fence) == SOFT_TURN_LATER)
		return turn_wait(run, drop->stream, drop->fence, &terms, on_turn_to_drop);
	run->device->dropped++;
	return answer_dropped(run, soft_tag_drop(run->device->tags, drop->serial, drop->generation));
}

static int run_drop_tag(struct run *run)
{
	const Soft__DropTag *drop = run->request->drop_tag;
	uint32_t *cut = run->device->page->cut;

	if (drop->stream)
		return run_drop_in_order(run);
	if (drop->n_more_serials > SOFT_DROPS || drop->n_more_generations != drop->n_more_serials)
		return nicd_refuse_at(&run->err, NICD_R_COUNT, SOFT_DROPS, drop->n_more_serials);
	turns_overtake(run->device, drop->serial, drop->generation);
	for (size_t i = 0; i < drop->n_more_serials; i++)
		turns_overtake(run->device, drop->more_serials[i], drop->more_generations[i]);
	answer_dropped(run, soft_tag_drop(run->device->tags, drop->serial, drop->generation));
	run->device->dropped += 1 + drop->n_more_serials;
	if (soft_tags_drop(run->device->tags, drop->more_serials, drop->more_generations, drop->n_more_serials, cut)) {
		run->answer.dropped.n_more_streams_cut = drop->n_more_serials;
		run->answer.dropped.more_streams_cut = cut;
	}
	return RUN_NOW;
}

static int run_add_mapping(struct run *run)
{
	const Soft__AddMapping *add = run->request->add_mapping;
	struct soft_tag_terms terms = {
		.serial = add->serial, .iova = add->address, .length = add->length, .n_ranges = (uint32_t)add->n_ranges,
	};

	if (add->n_ranges > NICD_RANGES)
		return nicd_refuse_at(&run->err, NICD_R_COUNT, NICD_RANGES, add->n_ranges);
	for (size_t i = 0; i < add->n_ranges; i++) {
		terms.ranges[i].memory = add->ranges[i]->memory;
		terms.ranges[i].offset = add->ranges[i]->offset;
		terms.ranges[i].length = add->ranges[i]->length;
	}
	return soft_mapping_add(run->device->tags, add->owner, &terms, &run->err);
}

static int run_drop_mapping(struct run *run)
{
	struct soft_pending *pending = soft_pending_new(run->device, run->request->id);

	if (!pending)
		return nicd_refuse(&run->err, NICD_R_NO_MEMORY);
	if (soft_mapping_drop(run->device->tags, run->request->drop_mapping->serial, answer_done, pending))
		answer_done(pending);
	return RUN_LATER;
}

static int run_add_key(struct run *run)
{
	const Soft__AddKey *add = run->request->add_key;
	struct nic_ptok value;
	int r = soft_key_add(run->device->tags, add->serial, add->owner, &value, &run->err);

	if (r < 0)
		return r;
	soft__key__init(&run->answer.key);
	run->answer.key.privileged = value.v;
	run->answer.reply.result_case = SOFT__REPLY__RESULT_KEY;
	run->answer.reply.key = &run->answer.key;
	return RUN_NOW;
}

static int run_drop_key(struct run *run)
{
	soft_key_drop(run->device->tags, run->request->drop_key->serial);
	return RUN_NOW;
}

static int run_add_ticket(struct run *run)
{
	const Soft__AddTicket *add = run->request->add_ticket;
	struct soft_ticket terms = {
		.serial = add->serial, .pd = add->pd, .door = add->door, .uses_left = add->uses, .max_streams = add->max_streams,
		.expires_ns = soft_now() + add->ttl_ms * 1000000ull,
	};
	int r;

	if (add->hash.len != NICD_TICKET_HASH_SIZE)
		return nicd_refuse_at(&run->err, NICD_R_VALUE, NICD_TICKET_HASH_SIZE, add->hash.len);
	if (add->ttl_ms == 0)
		return nicd_refuse_at(&run->err, NICD_R_VALUE, UINT32_MAX, 0);
	memcpy(terms.hash, add->hash.data, sizeof(terms.hash));
	if (add->grant)
		terms.grant = (struct locator_grant){
			.remote_token = add->grant->remote_token, .rights = add->grant->rights, .iova = add->grant->iova,
			.length = add->grant->length, .incarnation = add->grant->incarnation,
		};
	r = soft_ticket_add(run->device->tickets, &terms, &run->err);
	if (r < 0)
		return r;
	soft_device_arm_expiry(run->device);
	return RUN_NOW;
}

/* First nobody new, then out with those who are in. */
static int run_drop_ticket(struct run *run)
{
	const Soft__DropTicket *drop = run->request->drop_ticket;
	unsigned n = 0;

	soft_ticket_drop(run->device->tickets, drop->serial);
	soft_device_arm_expiry(run->device);
	if (drop->cut && !soft_device_cut(run->device, drop->serial, run->request->id, &n))
		return RUN_LATER;
	return answer_dropped(run, n);
}

static void on_connected(void *userdata, const struct nicd_error *error, const struct soft_connected *result)
{
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Connected connected = SOFT__CONNECTED__INIT;
	Soft__GrantInfo grant = SOFT__GRANT_INFO__INIT;

	if (error && error->reason != NICD_R_NONE) {
		answer_refused(userdata, error);
		return;
	}
	connected.peer = (char *)result->peer;
	if (result->has_grant) {
		grant.remote_token = result->grant.remote_token;
		grant.iova = result->grant.iova;
		grant.length = result->grant.length;
		grant.rights = result->grant.rights;
		grant.incarnation = result->grant.incarnation;
		connected.grant = &grant;
	}
	reply.result_case = SOFT__REPLY__RESULT_CONNECTED;
	reply.connected = &connected;
	soft_pending_answer(userdata, &reply);
}

static int connect_terms(const Soft__Connect *connect, struct soft_connect_terms *terms, struct nicd_error *err)
{
	*terms = (struct soft_connect_terms){.stream = connect->stream, .pd = connect->pd, .timeout_ms = connect->timeout_ms};
	if (connect->stream == 0 || (connect->stream & INBOUND_STREAM))
		return nicd_refuse_at(err, NICD_R_VALUE, INBOUND_STREAM - 1, connect->stream);
	if (connect->ticket.len != NICD_TICKET_SIZE)
		return nicd_refuse_at(err, NICD_R_VALUE, NICD_TICKET_SIZE, connect->ticket.len);
	if (locator_addr_parse(connect->address, &terms->addr) < 0)
		return nicd_refuse(err, NICD_R_CONNECT);
	if (terms->timeout_ms == 0)
		terms->timeout_ms = CONNECT_TIMEOUT_MS;
	if (terms->timeout_ms > CONNECT_TIMEOUT_MAX_MS)
		return nicd_refuse_at(err, NICD_R_VALUE, CONNECT_TIMEOUT_MAX_MS, terms->timeout_ms);
	memcpy(terms->ticket, connect->ticket.data, sizeof(terms->ticket));
	return 0;
}

static int run_connect(struct run *run)
{
	struct soft_connect_terms terms;
	struct soft_pending *pending;
	int r = connect_terms(run->request->connect, &terms, &run->err);

	if (r < 0)
		return r;
	pending = soft_pending_new(run->device, run->request->id);
	if (!pending)
		return nicd_refuse(&run->err, NICD_R_NO_MEMORY);
	soft_connect(run->device->engine, &terms, on_connected, pending);
	return RUN_LATER;
}

/* A failed list, too, says how far it came. */
static void on_posted(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Completion completion = SOFT__COMPLETION__INIT;

	if (error)
		soft_reply_refuse(&reply, error);
	if (result) {
		completion.entries = result->entries;
		completion.bytes = result->bytes;
		completion.failed = result->failed;
		completion.inexact = result->inexact;
		completion.solicited = result->solicited;
		completion.invalidated = result->invalidated;
		completion.invalidated_token = result->token;
		reply.result_case = SOFT__REPLY__RESULT_COMPLETION;
		reply.completion = &completion;
	}
	soft_pending_answer(userdata, &reply);
}

/* Only what goes out can be in the request, alone, and as long as it says. */
static bool post_inline_is_sane(const Soft__Post *post)
{
	if (!post->is_inline)
		return post->inline_data.len == 0;
	return post->operation != SOFT__POST__OPERATION__READ && post->entries.len == NICD_TRANSFER_ENTRY_SIZE &&
	       post->inline_data.len <= NICD_INLINE && post->inline_data.len == get_le32(post->entries.data + 24);
}

static int run_post(struct run *run)
{
	static const enum nic_operation operations[] = {
		[SOFT__POST__OPERATION__READ] = NIC_READ, [SOFT__POST__OPERATION__WRITE] = NIC_WRITE,
		[SOFT__POST__OPERATION__SEND] = NIC_SEND,
	};
	const Soft__Post *post = run->request->post;
	size_t n = post->entries.len / NICD_TRANSFER_ENTRY_SIZE;
	struct soft_post what = {
		.notify = post->notify, .solicited = post->solicited, .invalidate = post->invalidate,
		.invalidate_token = post->invalidate_token, .fence = post->fence, .is_inline = post->is_inline,
		.inline_data = post->inline_data.data, .entries = post->entries.data, .n_entries = (uint32_t)n,
	};
	struct soft_pending *pending;

	if (post->entries.len % NICD_TRANSFER_ENTRY_SIZE || n == 0 || n > NICD_TRANSFER_ENTRIES)
		return nicd_refuse_at(&run->err, NICD_R_TRANSFER_ENTRIES, NICD_TRANSFER_ENTRIES, n);
	if ((size_t)post->operation >= sizeof(operations) / sizeof(operations[0]))
		return nicd_refuse_at(&run->err, NICD_R_VALUE, SOFT__POST__OPERATION__SEND, (uint64_t)post->operation);
	what.operation = operations[post->operation];
	if (!post_inline_is_sane(post))
		return nicd_refuse_at(&run->err, NICD_R_INLINE_LENGTH, NICD_INLINE, post->inline_data.len);
	pending = soft_pending_new(run->device, run->request->id);
	if (!pending)
		return nicd_refuse(&run->err, NICD_R_NO_MEMORY);
	soft_post(run->device->engine, post->stream, &what, on_posted, pending);
	return RUN_LATER;
}

static int run_receive(struct run *run)
{
	const Soft__Receive *receive = run->request->receive;
	uint8_t entry[NICD_TRANSFER_ENTRY_SIZE] = {0};
	struct soft_pending *pending = soft_pending_new(run->device, run->request->id);

	if (!pending)
		return nicd_refuse(&run->err, NICD_R_NO_MEMORY);
	nicd_entry_put_local(entry, receive->local_token, receive->local_addr, receive->length);
	soft_receive(run->device->engine, receive->stream, entry, on_posted, pending);
	explicit_bzero(entry, sizeof(entry));
	return RUN_LATER;
}

static int run_flush(struct run *run)
{
	soft_flush(run->device->engine, run->request->flush->stream);
	return RUN_NOW;
}

/* false: there is none; it answers so, too. */
static bool answer_stream(struct run *run, uint64_t number)
{
	Soft__Stream *stream = &run->answer.stream;
	struct soft_stream_info info = {0};
	bool there = soft_stream_info(run->device->engine, number, &info);

	soft__stream__init(stream);
	stream->stream = number;
	stream->door = info.door;
	stream->pd = info.pd;
	stream->connected = info.connected;
	soft_counters_put(stream, &info.counters);
	run->answer.reply.result_case = SOFT__REPLY__RESULT_STREAM;
	run->answer.reply.stream = stream;
	return there;
}

static int run_disconnect(struct run *run)
{
	answer_stream(run, run->request->disconnect->stream);
	soft_disconnect(run->device->engine, run->request->disconnect->stream);
	return RUN_NOW;
}

static int run_query_stream(struct run *run)
{
	if (answer_stream(run, run->request->query_stream->stream))
		return RUN_NOW;
	run->answer.reply.result_case = SOFT__REPLY__RESULT__NOT_SET;
	return nicd_refuse(&run->err, NICD_R_QP_STATE);
}

/* The next entry behind the cursor, which goes on; false: there is none. */
static bool next_memory(struct soft_device *device, uint64_t *cursor, Soft__Entry *entry)
{
	const struct soft_memory *memory = soft_memory_next(device->tags, *cursor);

	if (!memory)
		return false;
	*cursor = entry->serial = memory->serial;
	entry->size = memory->size;
	entry->count = memory->tags;
	return true;
}

static bool next_tag(struct soft_device *device, uint64_t *cursor, Soft__Entry *entry)
{
	const struct soft_tag *tag = soft_tag_next(device->tags, cursor);

	if (!tag)
		return false;
	entry->serial = tag->serial;
	entry->generation = tag->generation;
	entry->size = soft_tag_length(device->tags, tag);
	return true;
}

static bool next_ticket(struct soft_device *device, uint64_t *cursor, Soft__Entry *entry)
{
	const struct soft_ticket *ticket = soft_ticket_next(device->tickets, *cursor);

	if (!ticket)
		return false;
	*cursor = entry->serial = ticket->serial;
	entry->count = ticket->uses_left;
	return true;
}

static bool next_stream(struct soft_device *device, uint64_t *cursor, Soft__Entry *entry)
{
	struct soft_stream_info info;

	if (!soft_stream_next(device->engine, *cursor, &info))
		return false;
	*cursor = entry->serial = info.stream;
	entry->count = info.posted;
	return true;
}

static int run_list(struct run *run)
{
	static bool (*const next[])(struct soft_device *device, uint64_t *cursor, Soft__Entry *entry) = {
		[SOFT__LIST__KIND__MEMORY] = next_memory,
		[SOFT__LIST__KIND__TAG] = next_tag,
		[SOFT__LIST__KIND__TICKET] = next_ticket,
		[SOFT__LIST__KIND__STREAM] = next_stream,
	};
	const Soft__List *list = run->request->list;
	struct soft_page *page = run->device->page;
	Soft__ListReply *reply = &run->answer.list;
	uint64_t cursor = list->cursor;

	if ((size_t)list->kind >= sizeof(next) / sizeof(next[0]))
		return nicd_refuse_at(&run->err, NICD_R_VALUE, SOFT__LIST__KIND__STREAM, (uint64_t)list->kind);
	soft__list_reply__init(reply);
	reply->entries = page->pointers;
	while (reply->n_entries < SOFT_LIST_PAGE) {
		Soft__Entry *entry = &page->entries[reply->n_entries];

		soft__entry__init(entry);
		if (!next[list->kind](run->device, &cursor, entry))
			break;
		page->pointers[reply->n_entries++] = entry;
	}
	reply->cursor = reply->n_entries == SOFT_LIST_PAGE ? cursor : 0;
	run->answer.reply.result_case = SOFT__REPLY__RESULT_LIST;
	run->answer.reply.list = reply;
	return RUN_NOW;
}

static void caps_put(struct run *run, const struct soft_engine_stats *engine)
{
	for (unsigned i = 0; i < SOFT_CAPS; i++) {
		Soft__Cap *cap = &run->answer.caps[i];

		soft__cap__init(cap);
		cap->name = (char *)soft_cap_rows[i].name;
		cap->limit = engine->caps[i].limit;
		cap->now = engine->caps[i].now;
		cap->counted = engine->caps[i].counted;
		cap->refused = engine->caps[i].refused;
		run->answer.cap_pointers[i] = cap;
	}
	run->answer.stats.caps = run->answer.cap_pointers;
	run->answer.stats.n_caps = SOFT_CAPS;
}

static int run_stats(struct run *run)
{
	Soft__StatsReply *reply = &run->answer.stats;
	struct soft_engine_stats engine;
	struct turns_report turns = turns_take(&run->device->turns, soft_now());
	struct soft_tags_stats tags;

	soft_tags_stats(run->device->tags, &tags);
	soft_engine_stats(run->device->engine, &engine);
	soft__stats_reply__init(reply);
	reply->memories = tags.memories;
	reply->tags = tags.tags;
	reply->tickets = soft_tickets_count(run->device->tickets);
	reply->streams = engine.streams;
	reply->half_open = engine.half_open;
	reply->quarantined_tokens = tags.quarantined;
	reply->longest_turn_us = turns.longest_us;
	reply->longest_turn_cpu_us = turns.longest_cpu_us;
	reply->turns = turns.turns;
	reply->slow_turns = turns.slow;
	caps_put(run, &engine);
	run->answer.reply.result_case = SOFT__REPLY__RESULT_STATS;
	run->answer.reply.stats = reply;
	return RUN_NOW;
}

static const struct command {
	int (*run)(struct run *run);
	unsigned fds;
	bool before_hello;
} commands[] = {
	[SOFT__REQUEST__CALL_HELLO] = {run_hello, .before_hello = true},
	[SOFT__REQUEST__CALL_ATTACH_MEMORY] = {run_attach_memory, .fds = 1},
	[SOFT__REQUEST__CALL_DETACH_MEMORY] = {run_detach_memory},
	[SOFT__REQUEST__CALL_ADD_TAG] = {run_add_tag},
	[SOFT__REQUEST__CALL_DROP_TAG] = {run_drop_tag},
	[SOFT__REQUEST__CALL_ADD_TICKET] = {run_add_ticket},
	[SOFT__REQUEST__CALL_DROP_TICKET] = {run_drop_ticket},
	[SOFT__REQUEST__CALL_CONNECT] = {run_connect},
	[SOFT__REQUEST__CALL_POST] = {run_post},
	[SOFT__REQUEST__CALL_FLUSH] = {run_flush},
	[SOFT__REQUEST__CALL_DISCONNECT] = {run_disconnect},
	[SOFT__REQUEST__CALL_QUERY_STREAM] = {run_query_stream},
	[SOFT__REQUEST__CALL_LIST] = {run_list},
	[SOFT__REQUEST__CALL_STATS] = {run_stats},
	[SOFT__REQUEST__CALL_RECEIVE] = {run_receive},
	[SOFT__REQUEST__CALL_ADD_MAPPING] = {run_add_mapping},
	[SOFT__REQUEST__CALL_DROP_MAPPING] = {run_drop_mapping},
	[SOFT__REQUEST__CALL_ADD_KEY] = {run_add_key},
	[SOFT__REQUEST__CALL_DROP_KEY] = {run_drop_key},
};

static int run_checked(struct run *run, struct wire_packet *packet)
{
	const struct command *command = &commands[run->request->call_case];
	int r;

	if (!command->before_hello && !run->device->controlled)
		return nicd_refuse(&run->err, NICD_R_HELLO_FIRST);
	if (run->request->fds != command->fds)
		return nicd_refuse_at(&run->err, NICD_R_FDS, command->fds, run->request->fds);
	if (command->fds)
		run->fd = wire_take_fd(packet);
	r = command->run(run);
	if (command->fds)
		close(run->fd);
	return r;
}

void soft_device_run(struct soft_device *device, const Soft__Request *request, struct wire_packet *packet)
{
	struct run run = {.device = device, .request = request};
	unsigned next_fd = packet->next_fd + request->fds;
	int r;

	soft__reply__init(&run.answer.reply);
	run.answer.reply.id = request->id;
	r = run_checked(&run, packet);
	/* A refused request takes its descriptors along, so that the next one gets its own. */
	while (packet->next_fd < next_fd)
		close(wire_take_fd(packet));
	if (r == RUN_LATER)
		return;
	if (r < 0)
		soft_reply_refuse(&run.answer.reply, &run.err);
	device->hooks.answer(device->hooks.userdata, &run.answer.reply);
}
