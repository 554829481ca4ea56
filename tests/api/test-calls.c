/* SPDX-License-Identifier: MIT */
/* Async calls: order, callbacks, waiting calls, the loss of the connection, and the end. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "tests/api/fake.h"

static struct nicd_pd *open_pd(struct fake *fake, uint32_t id, uint64_t object)
{
	struct nicd_pd *pd = NULL;

	fake_reply_object(fake, id, object);
	fake_send(fake);
	assert_int_equal(nicd_pd_create(fake->n, 0, &pd), 0);
	fake_read(fake);
	return pd;
}

/* mutation: conn_deliver called in conn_input */
static void test_callbacks_only_in_dispatch(void **state)
{
	struct fake *fake = *state;
	struct told one = { 0 };
	struct nicd_pd *pd, *other;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &one), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_reply_object(fake, 2, 102);
	fake_reply_object(fake, 3, 103);
	fake_send(fake);
	/* A waiting call reads both answers, and keeps the callback of the other. */
	assert_int_equal(nicd_get_timeout(fake->n), -1);
	assert_int_equal(nicd_pd_create(fake->n, 0, &other), 0);
	assert_int_equal(one.called, 0);
	/* The handle is filled in all the same. */
	assert_int_equal(nicd_pd_serial(pd), 1102);
	assert_int_equal(nicd_get_timeout(fake->n), 0);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(one.called, 1);
	assert_int_equal(one.error, 0);
	assert_int_equal(nicd_get_timeout(fake->n), -1);
	assert_int_equal(nicd_dispatch(fake->n, 0), 0);
	assert_int_equal(one.called, 1);
}

/* mutation: call_queue with TAILQ_INSERT_HEAD */
static void test_answers_in_any_order(void **state)
{
	struct fake *fake = *state;
	struct told told[4] = { 0 };
	struct nicd_pd *pd[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[i], tell, &told[i]), 0);
	assert_int_equal(nicd_get_events(fake->n), POLLIN | POLLOUT);
	assert_int_equal(nicd_flush(fake->n), 0);
	assert_int_equal(nicd_get_events(fake->n), POLLIN);
	assert_int_equal(fake_read(fake)->n_requests, 4);
	fake_reply_object(fake, 4, 104);
	fake_reply_error(fake, 2, NICD_R_QUOTA);
	fake_reply_object(fake, 5, 105);
	fake_reply_object(fake, 3, 103);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 4);
	for (int i = 0; i < 4; i++)
		assert_int_equal(told[i].called, 1);
	assert_int_equal(told[2].at, 1);
	assert_int_equal(told[0].at, 2);
	assert_int_equal(told[3].at, 3);
	assert_int_equal(told[1].at, 4);
	assert_int_equal(told[0].error, -EDQUOT);
	assert_string_equal(told[0].reason, "QUOTA");
	assert_int_equal(nicd_pd_serial(pd[3]), 1105);
	assert_int_equal(nicd_pd_serial(pd[0]), 0);
}

/* mutation: call_abort without call_end */
static void test_loss_calls_back_once(void **state)
{
	struct fake *fake = *state;
	struct told told[300] = { 0 };
	struct nicd_pd *pd[300];

	for (int i = 0; i < 300; i++)
		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[i], tell, &told[i]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_reply_object(fake, 3, 103);
	fake_send(fake);
	fake_hang_up(fake);
	/* What was answered before the end is an answer. */
	assert_int_equal(nicd_dispatch(fake->n, -1), 300);
	assert_int_equal(told[1].error, 0);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(told[i].called, 1);
		assert_int_equal(told[i].error, i == 1 ? 0 : -ECONNRESET);
	}
	assert_string_equal(told[0].reason, "CONNECTION_LOST");
	assert_int_equal(nicd_dispatch(fake->n, 0), -ENOTCONN);
}

/* mutation: conn_check without the look at n->lost */
static void test_loss_is_sticky(void **state)
{
	struct fake *fake = *state;
	struct nicd_pd *pd = open_pd(fake, 2, 102), *other = NULL;
	struct nicd_mr *mr = NULL;
	struct nicd_list *list = NULL;
	struct told told = { 0 };

	fake_hang_up(fake);
	assert_int_equal(nicd_mr_create(pd, &mr), -ECONNRESET);
	assert_int_equal(nicd_pd_create(fake->n, 0, &other), -ENOTCONN);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &other, tell, &told), -ENOTCONN);
	assert_int_equal(nicd_list_new(fake->n, NICD_TYPE_MR, &list), -ENOTCONN);
	assert_string_equal(nicd_last_error(fake->n)->name, "NOT_CONNECTED");
	assert_int_equal(nicd_flush(fake->n), -ENOTCONN);
	assert_int_equal(nicd_dispatch(fake->n, -1), -ENOTCONN);
	assert_int_equal(nicd_get_fd(fake->n), -1);
	assert_int_equal(nicd_get_timeout(fake->n), 0);
	assert_null(mr);
	assert_null(other);
	assert_int_equal(told.called, 0);
	/* A handle is freed whatever closing it returns; AddressSanitizer sees whether it was. */
	assert_int_equal(nicd_pd_close(pd), -ENOTCONN);
}

struct closer {
	struct nicd_pd *pd;
	struct told told, closed;
	int dispatch;
};

static void close_it(struct nicd *n, int error, void *userdata)
{
	struct closer *closer = userdata;

	tell(n, error, &closer->told);
	closer->dispatch = nicd_dispatch(n, 0);
	assert_string_equal(nicd_last_error(n)->name, "IN_CALLBACK");
	assert_int_equal(nicd_pd_close_async(closer->pd, tell, &closer->closed), 0);
}

/* mutation: nicd_dispatch without the last conn_output */
/* mutation: conn_deliver without n->calling = true */
static void test_close_inside_callback(void **state)
{
	struct fake *fake = *state;
	struct closer closer = { 0 };
	Nicd__Frame *frame;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &closer.pd, close_it, &closer), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_read(fake);
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(closer.dispatch, -EBUSY);
	frame = fake_read(fake);
	assert_int_equal(frame->n_requests, 1);
	assert_int_equal(frame->requests[0]->call_case, NICD__REQUEST__CALL_CLOSE);
	assert_int_equal(frame->requests[0]->close->object->id, 102);
	fake_reply_ok(fake, 3);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(closer.closed.called, 1);
	assert_int_equal(closer.closed.error, 0);
}

struct waiter {
	struct fake *fake;
	struct told told;
	int called_meanwhile;
	const struct told *other;
};

/* The answer is sent here, because dispatch has read all that was there before. */
static void wait_inside(struct nicd *n, int error, void *userdata)
{
	struct waiter *waiter = userdata;
	struct nicd_pd *pd;

	tell(n, error, &waiter->told);
	fake_reply_object(waiter->fake, 3, 103);
	fake_reply_object(waiter->fake, 4, 104);
	fake_send(waiter->fake);
	assert_int_equal(nicd_pd_create(n, 0, &pd), 0);
	assert_int_equal(nicd_pd_serial(pd), 1104);
	waiter->called_meanwhile = waiter->other->called;
}

/* mutation: conn_wait calling conn_deliver */
/* mutation: conn_deliver running on while n->ready is not empty */
static void test_waiting_inside_callback(void **state)
{
	struct fake *fake = *state;
	struct told other = { 0 };
	struct waiter waiter = { .fake = fake, .other = &other };
	struct nicd_pd *pd;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, wait_inside, &waiter), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &other), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(waiter.told.called, 1);
	assert_int_equal(waiter.called_meanwhile, 0);
	assert_int_equal(other.called, 0);
	assert_int_equal(nicd_get_timeout(fake->n), 0);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(other.called, 1);
}

static void free_inside(struct nicd *n, int error, void *userdata)
{
	tell(n, error, userdata);
	nicd_free(n);
}

static void create_inside(struct nicd *n, int error, void *userdata)
{
	struct nicd_pd *pd;

	tell(n, error, userdata);
	assert_int_equal(nicd_pd_create_async(n, 0, &pd, tell, userdata), -ENOTCONN);
	nicd_free(n);
}

/* mutation: nicd_free calling conn_free when nested */
static void test_free_inside_callback(void **state)
{
	struct fake *fake = *state;
	struct told told[3] = { 0 };
	struct nicd_pd *pd[3];

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[0], free_inside, &told[0]), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[1], tell, &told[1]), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[2], create_inside, &told[2]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	fake_reply_object(fake, 2, 102);
	fake_reply_object(fake, 3, 103);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), -ECANCELED);
	fake->n = NULL;
	for (int i = 0; i < 3; i++)
		assert_int_equal(told[i].called, 1);
	/* One was answered, one was not. */
	assert_int_equal(told[1].error, 0);
	assert_int_equal(told[2].error, -ECANCELED);
	assert_string_equal(told[2].reason, "SESSION_CLOSED");
}

/* mutation: nicd_free without the loop over n->ready */
static void test_free_with_work_in_flight(void **state)
{
	struct fake *fake = *state;
	struct told told[5] = { 0 };
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	uint32_t token;
	struct nicd_list *list;

	assert_int_equal(nicd_list_new(fake->n, NICD_TYPE_MR, &list), 0);
	assert_int_equal(nicd_list_fetch_async(list, tell, &told[4]), 0);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &told[0]), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	/* Kept here until the PD is there, */
	assert_int_equal(nicd_mr_create_async(pd, &mr, tell, &told[1]), 0);
	assert_int_equal(nicd_mr_get_local_token_async(mr, &token, tell, &told[2]), 0);
	/* and one that has no callback. */
	assert_int_equal(nicd_pd_close_async(pd, NULL, NULL), 0);
	assert_int_equal(nicd_mr_close_async(mr, tell, &told[3]), 0);
	fake_free(fake);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(told[i].called, 1);
		assert_int_equal(told[i].error, -ECANCELED);
	}
}

static void on_alarm(int signal)
{
}

/* mutation: conn_turn going on after -EINTR */
static void test_signal_ends_dispatch_not_waiting(void **state)
{
	struct fake *fake = *state;
	struct sigaction action = { .sa_handler = on_alarm }, before;
	struct itimerval soon = { .it_value = { .tv_usec = 20000 } };

	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
	assert_int_equal(nicd_dispatch(fake->n, -1), -EINTR);
	assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
}

/* mutation: conn_left_ms returning timeout_ms */
static void test_dispatch_times_out(void **state)
{
	struct fake *fake = *state;

	assert_int_equal(nicd_dispatch(fake->n, 0), 0);
	assert_int_equal(nicd_dispatch(fake->n, 20), 0);
	/* What has no callback is no reason to return early. */
	{
		struct told told = { 0 };
		struct nicd_pd *pd;

		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, tell, &told), 0);
		assert_int_equal(nicd_flush(fake->n), 0);
		fake_reply_object(fake, 2, 102);
		fake_send(fake);
		fake_reply_object(fake, 3, 103);
		fake_send(fake);
		assert_int_equal(nicd_dispatch(fake->n, -1), 1);
		assert_int_equal(told.called, 1);
	}
}

/* mutation: call_wait without setting n->error */
/* mutation: conn_check_ret does not look at ret */
static void test_no_place_for_the_handle(void **state)
{
	struct fake *fake = *state;

	assert_int_equal(nicd_pd_create(fake->n, 0, NULL), -EINVAL);
	assert_string_equal(nicd_last_error(fake->n)->name, "ARGUMENT");
	assert_int_equal(nicd_pd_create_async(fake->n, 0, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(nicd_memory_add(fake->n, -1, NULL), -EINVAL);
	assert_int_equal(nicd_buffer_new(fake->n, 4096, 0, NULL), -EINVAL);
	assert_int_equal(nicd_buffer_from_fd_async(fake->n, -1, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(nicd_list_new(fake->n, NICD_TYPE_PD, NULL), -EINVAL);
	assert_int_equal(nicd_list_who(fake->n, 1, NULL), -EINVAL);
	assert_int_equal(nicd_ledger_new(fake->n, NULL), -EINVAL);
	assert_int_equal(nicd_open(NULL, NULL), -EINVAL);
}

static void test_error_of_each_call(void **state)
{
	struct fake *fake = *state;
	const struct nicd_error_info *error;
	struct nicd_pd *pd = NULL;
	char text[1024], small[16];
	int len;

	assert_int_equal(nicd_last_error(fake->n)->error, 0);
	fake_reply_error(fake, 2, NICD_R_QUOTA);
	fake_send(fake);
	assert_int_equal(nicd_pd_create(fake->n, 0, &pd), -EDQUOT);
	assert_null(pd);
	error = nicd_last_error(fake->n);
	assert_int_equal(error->error, -EDQUOT);
	assert_int_equal(error->reason, NICD_R_QUOTA);
	assert_int_equal(error->ntstatus, 0xC000009A);
	assert_string_equal(error->status, "INSUFFICIENT_RESOURCES");
	assert_string_equal(error->name, "QUOTA");
	assert_int_equal(error->limit, 11);
	assert_int_equal(error->observed, 22);
	assert_int_equal(error->provider_error, 5);
	len = nicd_error_print(error, text, sizeof(text));
	assert_int_equal(len, strlen(text));
	assert_non_null(strstr(text, "QUOTA: the account's share"));
	assert_non_null(strstr(text, "limit 11, observed 22"));
	assert_non_null(strstr(text, "EIO"));
	assert_int_equal(nicd_error_print(error, small, sizeof(small)), len);
	assert_int_equal(strlen(small), sizeof(small) - 1);
	assert_int_equal(nicd_pd_create(fake->n, 1, &pd), -ENODEV);
	assert_string_equal(nicd_last_error(fake->n)->name, "NO_ADAPTER");
}

/* One call stays unanswered while the ids of others go round its place in the table more than once. */
/* mutation: call_table_reserve without the skip of taken places */
static void test_one_stays(void **state)
{
	struct fake *fake = *state;
	struct told told = { 0 };
	struct nicd_pd *stays, *pd;

	assert_int_equal(nicd_pd_create_async(fake->n, 0, &stays, tell, &told), 0);
	for (int i = 0; i < 600; i++) {
		uint32_t id;

		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd, NULL, NULL), 0);
		assert_int_equal(nicd_flush(fake->n), 0);
		id = fake_read(fake)->requests[i == 0]->id;
		assert_int_not_equal(id, 2);
		fake_reply_object(fake, id, 1000 + id);
		fake_send(fake);
		assert_int_equal(nicd_dispatch(fake->n, 0), 0);
	}
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, 0), 1);
	assert_int_equal(told.error, 0);
	assert_int_equal(nicd_pd_serial(stays), 1102);
}

/* mutation: call_table_grow keeping the old size */
static void test_many_in_flight(void **state)
{
	struct fake *fake = *state;
	enum { MANY = 5000 };
	static struct told told[MANY];
	static struct nicd_pd *pd[MANY];
	unsigned answered = 0;

	memset(told, 0, sizeof(told));
	for (int i = 0; i < MANY; i++)
		assert_int_equal(nicd_pd_create_async(fake->n, 0, &pd[i], tell, &told[i]), 0);
	while (answered < MANY) {
		Nicd__Frame *frame;
		size_t n;

		assert_int_equal(nicd_flush(fake->n), 0);
		frame = fake_read(fake);
		assert_true(frame->n_requests <= NICD_FRAME_REQUESTS);
		n = frame->n_requests;
		for (size_t i = 0; i < n; i++)
			fake_reply_object(fake, frame->requests[i]->id, 100 + frame->requests[i]->id);
		fake_send(fake);
		assert_int_equal(nicd_dispatch(fake->n, -1), n);
		answered += (unsigned)n;
	}
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(told[i].called, 1);
		assert_int_equal(nicd_pd_serial(pd[i]), 1100 + 2 + i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_open(test_callbacks_only_in_dispatch),
		test_open(test_answers_in_any_order),
		test_open(test_loss_calls_back_once),
		test_open(test_loss_is_sticky),
		test_open(test_close_inside_callback),
		test_open(test_waiting_inside_callback),
		test_open(test_free_inside_callback),
		test_open(test_free_with_work_in_flight),
		test_open(test_signal_ends_dispatch_not_waiting),
		test_open(test_dispatch_times_out),
		test_open(test_no_place_for_the_handle),
		test_open(test_error_of_each_call),
		test_open(test_one_stays),
		test_open(test_many_in_flight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
