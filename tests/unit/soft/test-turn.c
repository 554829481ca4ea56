/* SPDX-License-Identifier: MIT */
/* What has its turn in the queue of a stream: behind posted work that has not read its memory yet, with a fence behind reads, at the end at the latest. */
#include <string.h>

#include "pair.h"

enum { NUMBER = 5, SIZE = 8 << 20, FROM = 0x10000000, TO = 0x20000000 };

struct world {
	struct pair pair;
	struct mem from, to;
	struct soft_tag *local, *remote;
	uint64_t local_serial;   /* of the local tag, which goes */
	uint32_t local_token, local_generation;
};

static void world_new(struct world *w)
{
	*w = (struct world){0};
	pair_new(&w->pair, NULL, NULL);
	w->from = mem_new(&w->pair.a, SIZE);
	w->to = mem_new(&w->pair.b, SIZE);
	fill(w->from.map, SIZE, 1);
	w->local = tag_new(&w->pair.a, &w->from, PD, 0, NIC_LOCAL_WRITE, FROM);
	w->local_token = w->local->local_token;
	w->local_serial = w->local->serial;
	w->local_generation = w->local->generation;
	w->remote = tag_new(&w->pair.b, &w->to, PD, 0, NIC_REMOTE_READ | NIC_REMOTE_WRITE, TO);
	connect_pd(&w->pair, NUMBER);
}

static void world_free(struct world *w)
{
	pair_free(&w->pair);
	mem_free(&w->from);
	mem_free(&w->to);
}

static void post_all(struct world *w, enum nic_operation operation, struct posted *posted)
{
	const struct entry entry = {w->local_token, w->remote->remote_token, FROM, TO, SIZE};

	post(&w->pair.a, NUMBER, operation, &entry, 1, posted);
}

/* A drop of the local tag when it is its turn. */
struct turn {
	struct world *w;
	bool came;
	struct nicd_error error;
	const struct posted *before;
	bool before_was_done;
};

static void on_turn(void *userdata, const struct nicd_error *error, const struct soft_completion *result)
{
	struct turn *turn = userdata;

	turn->came = true;
	turn->error = *error;
	turn->before_was_done = turn->before && turn->before->done;
	soft_tag_drop(turn->w->pair.a.tags, turn->w->local_serial, turn->w->local_generation);
}

static void wait_turn(struct world *w, struct turn *turn, bool fence, const struct posted *before)
{
	*turn = (struct turn){.w = w, .before = before};
	assert_true(soft_turn_wait(w->pair.a.engine, NUMBER, fence, on_turn, turn));
}

/* mutation: let an empty queue wait, or a stream that is not there take work */
static void test_now_or_never(void **state)
{
	struct world w;

	world_new(&w);
	assert_int_equal(soft_turn_of(w.pair.a.engine, NUMBER, false), SOFT_TURN_NOW);
	assert_int_equal(soft_turn_of(w.pair.a.engine, NUMBER, true), SOFT_TURN_NOW);
	assert_int_equal(soft_turn_of(w.pair.a.engine, NUMBER + 1, false), SOFT_TURN_NEVER);
	world_free(&w);
}

/* mutation: work_takes_turn without work_is_clear, or ahead of the cursor: the write finds its memory gone */
static void test_write_reads_its_memory(void **state)
{
	struct posted write, behind;
	struct turn turn;
	struct world w;

	world_new(&w);
	post_all(&w, NIC_WRITE, &write);
	assert_int_equal(soft_turn_of(w.pair.a.engine, NUMBER, false), SOFT_TURN_LATER);
	wait_turn(&w, &turn, false, &write);
	/* mutation: send what is behind it before it was told: this would still find the tag */
	post_all(&w, NIC_WRITE, &behind);
	run_until(&w.pair.loop, &write.done);
	assert_int_equal(write.error.reason, NICD_R_NONE);
	assert_memory_equal(w.from.map, w.to.map, SIZE);
	run_until(&w.pair.loop, &turn.came);
	assert_int_equal(turn.error.reason, NICD_R_NONE);
	run_until(&w.pair.loop, &behind.done);
	assert_int_equal(behind.error.reason, NICD_R_LOCAL_TOKEN);
	world_free(&w);
}

/* mutation: forget the fence, or wait for ever because nobody wakes the stream */
static void test_fence_behind_reads(void **state)
{
	struct posted read;
	struct turn turn;
	struct world w;

	world_new(&w);
	fill(w.to.map, SIZE, 2);
	post_all(&w, NIC_READ, &read);
	assert_int_equal(soft_turn_of(w.pair.a.engine, NUMBER, true), SOFT_TURN_LATER);
	wait_turn(&w, &turn, true, &read);
	run_until(&w.pair.loop, &turn.came);
	assert_int_equal(turn.error.reason, NICD_R_NONE);
	run_until(&w.pair.loop, &read.done);
	assert_int_equal(read.error.reason, NICD_R_NONE);
	assert_memory_equal(w.from.map, w.to.map, SIZE);
	/* Nothing is under way any more. */
	assert_int_equal(soft_turn_of(w.pair.a.engine, NUMBER, true), SOFT_TURN_NOW);
	world_free(&w);
}

/* mutation: lose those that wait when the stream ends, or tell them that it is their turn */
static void test_stream_ends_first(void **state)
{
	for (unsigned how = 0; how < 3; how++) {
		struct posted write;
		struct turn turns[3];
		struct world w;

		world_new(&w);
		post_all(&w, NIC_WRITE, &write);
		for (unsigned i = 0; i < 3; i++)
			wait_turn(&w, &turns[i], i == 1, &write);
		if (how == 0)
			soft_flush(w.pair.a.engine, NUMBER);
		else if (how == 1)
			soft_disconnect(w.pair.a.engine, NUMBER);
		else
			soft_engine_reset(w.pair.b.engine);
		for (unsigned i = 0; i < 3; i++) {
			run_until(&w.pair.loop, &turns[i].came);
			assert_true(turns[i].error.reason == NICD_R_FLUSHED || turns[i].error.reason == NICD_R_QP_LOST);
		}
		run_until(&w.pair.loop, &write.done);
		world_free(&w);
	}
}

/* mutation: leave the cursor at what is forgotten; do not wake the stream; count it still; forget what has had its turn */
static void test_forgotten(void **state)
{
	struct soft_stream_info info;
	struct posted write, behind;
	struct soft_work *waits;
	struct turn turns[3];
	struct world w;

	world_new(&w);
	post_all(&w, NIC_WRITE, &write);
	for (unsigned i = 0; i < 1000; i++) {
		turns[0] = (struct turn){.w = &w};
		waits = soft_turn_wait(w.pair.a.engine, NUMBER, i % 2, on_turn, &turns[0]);
		assert_non_null(waits);
		assert_true(soft_turn_forget(waits));
	}
	assert_true(soft_stream_info(w.pair.a.engine, NUMBER, &info));
	assert_int_equal(info.posted, 1);
	/* With others around it. */
	turns[1] = (struct turn){.w = &w};
	waits = soft_turn_wait(w.pair.a.engine, NUMBER, false, on_turn, &turns[1]);
	post_all(&w, NIC_WRITE, &behind);
	assert_true(soft_turn_forget(waits));
	run_until(&w.pair.loop, &behind.done);
	assert_int_equal(write.error.reason, NICD_R_NONE);
	assert_int_equal(behind.error.reason, NICD_R_NONE);
	/* At the cursor: a fence behind a read that is out already. */
	post_all(&w, NIC_READ, &write);
	while (soft_turn_of(w.pair.a.engine, NUMBER, false) != SOFT_TURN_NOW)
		uv_run(&w.pair.loop, UV_RUN_ONCE);
	turns[2] = (struct turn){.w = &w};
	waits = soft_turn_wait(w.pair.a.engine, NUMBER, true, on_turn, &turns[2]);
	post_all(&w, NIC_WRITE, &behind);
	assert_true(soft_turn_forget(waits));
	run_until(&w.pair.loop, &behind.done);
	assert_int_equal(behind.error.reason, NICD_R_NONE);
	for (unsigned i = 0; i < 3; i++)
		assert_false(turns[i].came);
	world_free(&w);
}

/* mutation: index reserved tokens with the others without a look at whose they are; draw them again */
static void test_reserved(void **state)
{
	const struct soft_tag_terms bad[] = {
		{.serial = 901, .generation = 1, .pd = PD, .reserve = true, .rights = NIC_REMOTE_READ},
		{.serial = 901, .generation = 1, .pd = PD, .reserve = true, .length = 1},
		{.serial = 901, .generation = 1, .pd = PD, .reserve = true, .door = EXPORT},
		{.serial = 0, .generation = 1, .pd = PD, .reserve = true},
	};
	const struct soft_tag_terms terms = {.serial = 900, .generation = 1, .pd = PD, .reserve = true};
	const struct soft_scope scope = {.pd = PD}, nobody = {.pd = 0};
	struct soft_tag *tag, *other, *found;
	struct nicd_error err;
	struct world w;

	world_new(&w);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(soft_tag_add(w.pair.a.tags, &bad[i], &tag, &err) < 0);
	assert_int_equal(soft_tag_add(w.pair.a.tags, &terms, &tag, &err), 0);
	assert_true(tag->local_token && tag->remote_token && tag->local_token != tag->remote_token);
	assert_int_equal(soft_tag_add(w.pair.a.tags, &terms, &other, &err), 0);
	assert_ptr_equal(other, tag);
	for (enum soft_access access = SOFT_REMOTE_READ; access <= SOFT_LOCAL_WRITE; access++)
		for (uint64_t length = 0; length < 2; length++) {
			assert_int_not_equal(soft_tag_check(w.pair.a.tags, &scope, tag->local_token, 0, length, access, &found), NICD_R_NONE);
			assert_int_not_equal(soft_tag_check(w.pair.a.tags, &scope, tag->remote_token, 0, length, access, &found), NICD_R_NONE);
			assert_int_not_equal(soft_tag_check(w.pair.a.tags, &nobody, tag->local_token, 0, length, access, &found), NICD_R_NONE);
			assert_int_not_equal(soft_tag_check(w.pair.a.tags, &nobody, tag->remote_token, 0, length, access, &found), NICD_R_NONE);
		}
	assert_null(soft_tag_invalidatable(w.pair.a.tags, &scope, tag->remote_token));
	assert_true(soft_token_taken(w.pair.a.tags, tag->local_token) && soft_token_taken(w.pair.a.tags, tag->remote_token));
	soft_tag_drop(w.pair.a.tags, 900, 1);
	assert_null(soft_tag_find(w.pair.a.tags, 900));
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_now_or_never),
		cmocka_unit_test(test_write_reads_its_memory),
		cmocka_unit_test(test_fence_behind_reads),
		cmocka_unit_test(test_stream_ends_first),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_reserved),
	};

	return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}
