/* SPDX-License-Identifier: MIT */
/* What leaves and when: batches, references to objects that are being made, order; and nonsense that comes in. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/api/fake.h"

static const Nicd__Request *find(const Nicd__Frame *frame, Nicd__Request__CallCase call_case)
{
	for (size_t i = 0; i < frame->n_requests; i++)
		if (frame->requests[i]->call_case == call_case)
			return frame->requests[i];
	fail_msg("the frame has no such request");
	return NULL;
}

/* ----------------------------------------------------------------------------------------------------------- references */

/* mutation: call_resolve always deferring what is pending */
static void test_one_frame(void **state)
{
	struct fake *fake = *state;
	struct nicd_export_attr export_attr = { .size = sizeof(export_attr), .name = "x", .flags = NICD_MR_REMOTE_READ };
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ };
	struct nicd_buffer *buffer;
	struct nicd_export *door;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	const Nicd__Request *add, *create_pd, *create, *register_mr, *export;
	Nicd__Frame *frame;

	assert_int_equal(nicd_buffer_new_async(fake->n, 8192, 0, &buffer, NULL, NULL), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_new_async(pd, &attr, &mr, NULL, NULL), 0);
	assert_int_equal(nicd_export_create_async(mr, &export_attr, &door, NULL, NULL), 0);
	fake_silent(fake);
	assert_int_equal(nicd_flush(fake->n), 0);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, 5);
	assert_int_equal(fake->n_fds, 1);
	add = find(frame, NICD__REQUEST__CALL_ADD_MEMORY);
	create_pd = find(frame, NICD__REQUEST__CALL_CREATE_PD);
	create = find(frame, NICD__REQUEST__CALL_CREATE_MR);
	register_mr = find(frame, NICD__REQUEST__CALL_REGISTER_MR);
	export = find(frame, NICD__REQUEST__CALL_CREATE_EXPORT);
	assert_int_equal(add->fds, 1);
	assert_int_equal(create_pd->fds, 0);
	assert_int_equal(create_pd->create_pd->adapter->id, 0x0100000000000001);
	assert_int_equal(create->create_mr->pd->of_case, NICD__REF__OF_RESULT_OF);
	assert_int_equal(create->create_mr->pd->result_of, create_pd->id);
	assert_int_equal(register_mr->register_mr->mr->result_of, create->id);
	assert_int_equal(register_mr->register_mr->ranges[0]->memory->result_of, add->id);
	/* Not before it is registered. */
	assert_int_equal(export->create_export->mr->result_of, register_mr->id);
}

/* mutation: call_release not called from conn_packet */
static void test_kept_until_answered(void **state)
{
	struct fake *fake = *state;
	struct told told[3] = { 0 };
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	uint32_t token = 0;
	Nicd__Frame *frame;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &told[0]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_read(fake);
	assert_int_equal(nicd_mr_create_async(pd, &mr, tell, &told[1]), 0);
	assert_int_equal(nicd_mr_get_local_token_async(mr, &token, tell, &told[2]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_silent(fake);
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	frame = fake_read(fake);
	/* Both at once: the second by the result of the first. */
	assert_int_equal(frame->n_requests, 2);
	assert_int_equal(frame->requests[0]->create_mr->pd->of_case, NICD__REF__OF_ID);
	assert_int_equal(frame->requests[0]->create_mr->pd->id, 102);
	assert_int_equal(frame->requests[1]->get_local_token->mr->result_of, frame->requests[0]->id);
	fake_free(fake);
}

/* mutation: call_must_queue returning false */
/* mutation: call_is_blocked without the look at passed */
static void test_no_overtaking_on_one_object(void **state)
{
	struct fake *fake = *state;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ };
	struct nicd_buffer *buffer;
	struct nicd_pd *pd, *other;
	struct nicd_mr *mr;
	uint32_t token = 0;
	Nicd__Frame *frame;

	fake_reply_object(fake, 2, 102);
	fake_reply_object(fake, 3, 103);
	fake_send(fake);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
	assert_int_equal(nicd_mr_create(pd, &mr), 0);
	fake_read(fake);
	assert_int_equal(nicd_buffer_new_async(fake->n, 4096, 0, &buffer, NULL, NULL), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_read(fake);
	/* Waits for the memory; */
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_register_async(mr, &attr, NULL, NULL), 0);
	/* this is ready to go, but comes after; */
	assert_int_equal(nicd_mr_get_local_token_async(mr, &token, NULL, NULL), 0);
	/* this has nothing to do with it. */
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &other, NULL, NULL), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, 1);
	assert_int_equal(frame->requests[0]->call_case, NICD__REQUEST__CALL_CREATE_PD);
	/* Something else is answered: still kept. */
	fake_reply_object(fake, frame->requests[0]->id, 104);
	fake_send(fake);
	nicd_dispatch(fake->n, 0);
	fake_silent(fake);
	fake_reply_memory(fake, 4, 200);
	fake_send(fake);
	nicd_dispatch(fake->n, 0);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, 2);
	assert_int_equal(frame->requests[0]->call_case, NICD__REQUEST__CALL_REGISTER_MR);
	assert_int_equal(frame->requests[0]->register_mr->ranges[0]->memory->id, 200);
	assert_int_equal(frame->requests[0]->register_mr->mr->id, 103);
	assert_int_equal(frame->requests[1]->call_case, NICD__REQUEST__CALL_GET_LOCAL_TOKEN);
}

/*
 * Registering and deregistering change what other calls on the MR find: they come in order, named while that can be, kept
 * when not.
 */
/* mutation: register_start without order */
/* mutation: call_may_name without the look at settling */
static void test_order_of_states(void **state)
{
	struct fake *fake = *state;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ };
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	uint32_t token = 0;
	Nicd__Frame *frame;

	fake_reply_memory(fake, 2, 102);
	fake_reply_object(fake, 3, 103);
	fake_reply_object(fake, 4, 104);
	fake_send(fake);
	assert_int_equal(nicd_buffer_new_async(fake->n, 4096, 0, &buffer, NULL, NULL), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
	assert_int_equal(nicd_mr_create(pd, &mr), 0);
	fake_read(fake);
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_register_async(mr, &attr, NULL, NULL), 0);          /* 5 */
	assert_int_equal(nicd_mr_get_local_token_async(mr, &token, NULL, NULL), 0);  /* 6 */
	assert_int_equal(nicd_mr_deregister_async(mr, NULL, NULL, NULL), 0);         /* 7 */
	assert_int_equal(nicd_mr_register_async(mr, &attr, NULL, NULL), 0);          /* kept: the answer to 7 holds no MR */
	assert_int_equal(nicd_mr_close_async(mr, NULL, NULL), 0);                    /* kept: after that */
	assert_int_equal(nicd_flush(fake->n), 0);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, 3);
	assert_int_equal(frame->requests[0]->register_mr->mr->id, 104);
	assert_int_equal(frame->requests[1]->get_local_token->mr->result_of, 5);
	assert_int_equal(frame->requests[2]->deregister_mr->mr->result_of, 5);
	fake_reply_mr(fake, 5, 1, 2);
	fake_send(fake);
	nicd_dispatch(fake->n, 0);
	fake_silent(fake);
	fake_reply_ok(fake, 7);
	fake_send(fake);
	nicd_dispatch(fake->n, 0);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, 2);
	assert_int_equal(frame->requests[0]->register_mr->mr->id, 104);
	/* Closing waits for nothing: nicd does. */
	assert_int_equal(frame->requests[1]->close->object->id, 104);
	fake_free(fake);
}

/* Made and closed in one frame: when the making is refused, so is the close, and there is nothing to close. */
/* mutation: handle_close_finish without the look at DEPENDENCY */
static void test_close_of_what_was_never_made(void **state)
{
	struct fake *fake = *state;
	struct told told[2] = { 0 };
	struct nicd_pd *pd;
	Nicd__Frame *frame;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &told[0]), 0);
	assert_int_equal(nicd_pd_close_async(pd, tell, &told[1]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	frame = fake_read(fake);
	assert_int_equal(frame->requests[1]->close->object->result_of, 2);
	fake_reply_error(fake, 2, NICD_R_QUOTA);
	fake_reply_error(fake, 3, NICD_R_DEPENDENCY);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 2);
	assert_int_equal(told[0].error, -EDQUOT);
	assert_int_equal(told[1].error, 0);
}

/* mutation: object_fail not called in call_end */
static void test_failed_making(void **state)
{
	struct fake *fake = *state;
	struct told told[4] = { 0 };
	struct nicd_mr_attr attr = { .size = sizeof(attr) };
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	uint32_t token;

	fake_reply_memory(fake, 2, 200);
	fake_send(fake);
	assert_int_equal(nicd_buffer_new(fake->n, 4096, 0, &buffer), 0);
	fake_read(fake);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &told[0]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_read(fake);
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_new_async(pd, &attr, &mr, tell, &told[1]), 0);
	fake_reply_error(fake, 3, NICD_R_QUOTA);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 2);
	assert_int_equal(told[0].error, -EDQUOT);
	/* The MR's making was refused for the PD's sake, and that is the first error of the two. */
	assert_int_equal(told[1].error, -ECANCELED);
	assert_string_equal(told[1].reason, "DEPENDENCY");
	/* Calls on it need not ask; closing it is no error. */
	assert_int_equal(nicd_mr_get_local_token(mr, &token), -ECANCELED);
	assert_string_equal(nicd_last_error(fake->n)->name, "DEPENDENCY");
	assert_int_equal(nicd_mr_get_local_token_async(mr, &token, tell, &told[2]), 0);
	assert_int_equal(nicd_mr_close_async(mr, tell, &told[3]), 0);
	assert_int_equal(nicd_pd_close(pd), 0);
	assert_int_equal(nicd_dispatch(fake->n, 0), 2);
	assert_int_equal(told[2].error, -ECANCELED);
	assert_int_equal(told[3].error, 0);
	fake_silent(fake);
}

/* mutation: register_new_finish returning register_finish's error */
static void test_first_error_of_two(void **state)
{
	struct fake *fake = *state;
	struct nicd_mr_attr attr = { .size = sizeof(attr) };
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr = NULL;
	Nicd__Frame *frame;

	fake_reply_memory(fake, 2, 200);
	fake_reply_object(fake, 3, 102);
	fake_reply_error(fake, 4, NICD_R_QUOTA);
	fake_reply_error(fake, 5, NICD_R_DEPENDENCY);
	fake_send(fake);
	assert_int_equal(nicd_buffer_new_async(fake->n, 4096, 0, &buffer, NULL, NULL), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
	attr.buffer = buffer;
	assert_int_equal(nicd_mr_new(pd, &attr, &mr), -EDQUOT);
	assert_string_equal(nicd_last_error(fake->n)->name, "QUOTA");
	assert_null(mr);
	fake_read(fake);
	fake_silent(fake);
	/* Made but not registered: it is closed again. */
	fake_reply_object(fake, 6, 104);
	fake_reply_error(fake, 7, NICD_R_TAGS_EXHAUSTED);
	fake_send(fake);
	assert_int_equal(nicd_mr_new(pd, &attr, &mr), -ENOSPC);
	assert_string_equal(nicd_last_error(fake->n)->name, "TAGS_EXHAUSTED");
	assert_null(mr);
	fake_read(fake);
	frame = fake_read(fake);
	assert_int_equal(frame->requests[0]->close->object->id, 104);
}

/* Frames fill up; what names a result of the frame before is kept rather than sent with a bad reference. */
/* mutation: call_resolve without frame_joins */
static void test_frame_border(void **state)
{
	struct fake *fake = *state;
	struct nicd_pd *pd[NICD_FRAME_REQUESTS];
	struct nicd_mr *mr;
	Nicd__Frame *frame;

	for (int i = 0; i < NICD_FRAME_REQUESTS; i++)
		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[i], NULL, NULL), 0);
	assert_int_equal(nicd_mr_create_async(pd[NICD_FRAME_REQUESTS - 1], &mr, NULL, NULL), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, NICD_FRAME_REQUESTS);
	fake_silent(fake);
	fake_reply_object(fake, 1 + NICD_FRAME_REQUESTS, 500);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, 0), 0);
	frame = fake_read(fake);
	assert_int_equal(frame->requests[0]->create_mr->pd->id, 500);
}

/* mutation: call_free without close(call->fd) */
static void test_kept_descriptor(void **state)
{
	struct fake *fake = *state;
	struct nicd_mr_attr attr = { .size = sizeof(attr) };
	struct nicd_range range = { .memory = NULL, .offset = 4096, .length = 100 };
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	struct told told = { 0 };

	attr.ranges = &range;
	attr.n_ranges = 1;
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
	assert_int_equal(nicd_mr_create_async(pd, &mr, NULL, NULL), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_read(fake);
	assert_int_equal(nicd_mr_register_fd_async(mr, STDIN_FILENO, &attr, tell, &told), 0);
	fake_reply_object(fake, 2, 102);
	fake_reply_object(fake, 3, 103);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, 0), 0);
	assert_int_equal(fake_read(fake)->requests[0]->fds, 1);
	assert_int_equal(fake->n_fds, 1);
	/* And one that is never sent. */
	assert_int_equal(nicd_mr_create_async(pd, &mr, NULL, NULL), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	assert_int_equal(nicd_mr_register_fd_async(mr, STDIN_FILENO, &attr, tell, &told), 0);
	assert_int_equal(nicd_mr_register_fd_async(mr, -1, &attr, tell, &told), -EINVAL);
	assert_int_equal(nicd_mr_register_fd_async(mr, 1000, &attr, tell, &told), -EBADF);
	fake_free(fake);
}

/* ------------------------------------------------------------------------------------------------------------- nonsense */

static void reply_hello(struct fake *fake)
{
	fake_say_hello(fake);
}

static void reply_unasked(struct fake *fake)
{
	fake_reply_ok(fake, 77);
	fake_send(fake);
}

static void reply_twice(struct fake *fake)
{
	fake_reply_object(fake, 2, 102);
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
}

static void reply_zero(struct fake *fake)
{
	fake_reply_ok(fake, 0);
	fake_send(fake);
}

static void reply_wrong_result(struct fake *fake)
{
	fake_reply_memory(fake, 2, 102);
	fake_send(fake);
}

static void reply_without_result(struct fake *fake)
{
	fake_reply_ok(fake, 2);
	fake_send(fake);
}

static void reply_no_id(struct fake *fake)
{
	fake_reply_object(fake, 2, 0);
	fake_send(fake);
}

static void reply_same_object(struct fake *fake)
{
	fake_reply_object(fake, 2, 102);
	fake_reply_object(fake, 3, 102);
	fake_send(fake);
}

static void garbage(struct fake *fake)
{
	fake_send_bytes(fake, "\xff\xff\xff\xff garbage", 12);
}

static void hollow(struct fake *fake)
{
	fake_send_bytes(fake, "\x7a\x00", 2);
}

static void too_big(struct fake *fake)
{
	static uint8_t bytes[NICD_FRAME_MAX + 1];

	fake_send_bytes(fake, bytes, sizeof(bytes));
}

static void sub_messages(struct fake *fake)
{
	uint8_t bytes[60000];

	/* 30,000 empty events. */
	for (size_t i = 0; i < sizeof(bytes); i += 2) {
		bytes[i] = 0x1a;
		bytes[i + 1] = 0;
	}
	fake_send_bytes(fake, bytes, sizeof(bytes));
	fake_hang_up(fake);
}

static void requests(struct fake *fake)
{
	Nicd__Request request = NICD__REQUEST__INIT;

	request.id = 2;
	assert_int_equal(frame_put(&fake->out, 1, &request.base, NULL, 0), 0);
	fake_send(fake);
}

static void descriptors(struct fake *fake)
{
	int fd = dup(0);
	Nicd__Reply reply = NICD__REPLY__INIT;

	reply.id = 99;
	assert_int_equal(frame_put(&fake->out, 2, &reply.base, &fd, 1), 0);
	fake_send(fake);
}

static void hang_up(struct fake *fake)
{
	fake_hang_up(fake);
}

/* mutation: conn_packet ignoring `sane` */
/* mutation: object_live accepting id 0 */
/* mutation: query of result_case left out of object_info_finish */
static void test_nonsense_ends_the_session(void **state)
{
	static const struct {
		const char *what;
		void (*say)(struct fake *fake);
	} cases[] = {
		{ "Hello again", reply_hello },
		{ "a reply nobody asked for", reply_unasked },
		{ "two replies", reply_twice },
		{ "request id 0", reply_zero },
		{ "another result", reply_wrong_result },
		{ "no result", reply_without_result },
		{ "object id 0", reply_no_id },
		{ "the same object twice", reply_same_object },
		{ "garbage", garbage },
		{ "an unknown field only", hollow },
		{ "an oversize packet", too_big },
		{ "30,000 empty messages", sub_messages },
		{ "requests", requests },
		{ "descriptors", descriptors },
		{ "the end", hang_up },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fake *fake;
		void *one = NULL;
		struct told told[2] = { 0 };
		struct nicd_pd *pd[2], *other = NULL;

		assert_int_equal(fake_setup(&one), 0);
		fake = one;
		for (int k = 0; k < 2; k++)
			assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[k], tell, &told[k]), 0);
		assert_int_equal(nicd_flush(fake->n), 0);
		cases[i].say(fake);
		while (nicd_dispatch(fake->n, 1000) > 0)
			;
		if (nicd_dispatch(fake->n, 0) != -ENOTCONN)
			fail_msg("%s: the session lives", cases[i].what);
		assert_int_equal(told[0].called, 1);
		assert_int_equal(told[1].called, 1);
		assert_int_equal(told[1].error, -ECONNRESET);
		assert_int_equal(nicd_pd_create(fake->n, 0, &other), -ENOTCONN);
		assert_int_equal(fake_teardown(&one), 0);
	}
	(void)state;
}

/* What nicd says last is the reason, also when it comes with the end and with requests that it never read. */
static void fatal_is_the_reason(struct fake *fake, bool send)
{
	Nicd__Fatal fatal = NICD__FATAL__INIT;
	struct nicd_pd *pd[2];
	struct told told[2] = { 0 };

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[0], tell, &told[0]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fatal.reason = NICD_R_FRAME_REQUESTS;
	fatal.name = (char *)"FRAME_REQUESTS";
	fatal.text = (char *)"the frame holds too many requests";
	assert_int_equal(frame_put(&fake->out, 4, &fatal.base, NULL, 0), 0);
	fake_send(fake);
	/* The request is still unread: the client's socket gets a reset. */
	fake_hang_up(fake);
	if (send)
		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[1], tell, &told[1]), 0);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1 + send);
	assert_int_equal(told[0].error, -ECONNRESET);
	assert_string_equal(told[0].reason, "FRAME_REQUESTS");
	if (send)
		assert_string_equal(told[1].reason, "FRAME_REQUESTS");
}

/* mutation: conn_input losing the connection at the first WIRE_END */
static void test_fatal_is_the_reason(void **state)
{
	fatal_is_the_reason(*state, false);
}

/* mutation: conn_output losing the connection at EPIPE */
static void test_fatal_is_the_reason_also_when_sending(void **state)
{
	fatal_is_the_reason(*state, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_open(test_one_frame),
		test_open(test_kept_until_answered),
		test_open(test_no_overtaking_on_one_object),
		test_open(test_order_of_states),
		test_open(test_close_of_what_was_never_made),
		test_open(test_failed_making),
		test_open(test_first_error_of_two),
		test_open(test_frame_border),
		test_open(test_kept_descriptor),
		test_open(test_nonsense_ends_the_session),
		test_open(test_fatal_is_the_reason),
		test_open(test_fatal_is_the_reason_also_when_sending),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
