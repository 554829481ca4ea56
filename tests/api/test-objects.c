/* SPDX-License-Identifier: MIT */
/* Memories, buffers, MRs, Qps, doors, lists, events: what is sent, what is filled in, who is in use. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/api.h"
#include "tests/api/fake.h"

/* PD 102, buffer 103 of 16 KiB, MR 104: requests 2 to 4. */
struct world {
	struct fake *fake;
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
};

static void make_world(struct world *w, struct fake *fake)
{
	w->fake = fake;
	fake_reply_object(fake, 2, 102);
	fake_send(fake);
	fake_reply_memory(fake, 3, 103);
	fake_send(fake);
	fake_reply_object(fake, 4, 104);
	fake_send(fake);
	assert_int_equal(nicd_pd_create_async(fake->n, 0, &w->pd, NULL, NULL), 0);
	assert_int_equal(nicd_buffer_new_async(fake->n, 16384, 0, &w->buffer, NULL, NULL), 0);
	assert_int_equal(nicd_mr_create(w->pd, &w->mr), 0);
	fake_read(fake);
}

static const Nicd__Request *sent(struct world *w)
{
	Nicd__Frame *frame;

	assert_int_equal(nicd_flush(w->fake->n), 0);
	frame = fake_read(w->fake);
	assert_int_equal(frame->n_requests, 1);
	return frame->requests[0];
}

/* Refuses what was sent, so that the next of its kind may go. */
static void refuse(struct world *w, uint32_t id)
{
	fake_reply_error(w->fake, id, NICD_R_QUOTA);
	fake_send(w->fake);
	assert_int_equal(nicd_dispatch(w->fake->n, 0), 0);
}

/* --------------------------------------------------------------------------------------------------------------- memory */

/* mutation: buffer_create without F_ADD_SEALS */
/* mutation: buffer_create without fallocate */
static void test_buffer(void **state)
{
	struct fake *fake = *state;
	struct nicd_buffer *buffer;
	unsigned char *p;
	struct stat st;
	int fd;

	fake_reply_memory(fake, 2, 103);
	fake_send(fake);
	assert_int_equal(nicd_buffer_new(fake->n, 5000, 0, &buffer), 0);
	fd = nicd_buffer_fd(buffer);
	assert_int_equal(nicd_buffer_size(buffer), 8192);
	assert_int_equal(nicd_buffer_page_size(buffer), 4096);
	assert_int_equal(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8192);
	assert_int_equal(st.st_blocks, 16);
	p = nicd_buffer_address(buffer);
	memset(p, 0x5a, 8192);
	fake_read(fake);
	assert_int_equal(fake->n_fds, 1);
	/* What nicd got is the same memory. */
	assert_int_equal(pread(fake->fds[0], &st, 1, 8191), 1);
	assert_int_equal(*(unsigned char *)&st, 0x5a);
	assert_int_equal(nicd_memory_serial(nicd_buffer_memory(buffer)), 1103);
	assert_int_equal(nicd_memory_size(nicd_buffer_memory(buffer)), 65536);
	fake_reply_ok(fake, 3);
	fake_send(fake);
	assert_int_equal(nicd_buffer_close(buffer), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* mutation: buffer_init_fd without the check of the seals */
/* mutation: buffer_map always writable */
static void test_buffer_from_fd(void **state)
{
	struct fake *fake = *state;
	struct nicd_buffer *buffer = NULL, *again = NULL;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(nicd_buffer_from_fd(fake->n, -1, &buffer), -EBADF);
	assert_int_equal(nicd_buffer_from_fd(fake->n, STDIN_FILENO, &buffer), -EINVAL);
	assert_string_equal(nicd_last_error(fake->n)->name, "MEMORY_NOT_MEMFD");
	assert_int_equal(nicd_buffer_from_fd(fake->n, fd, &buffer), -EINVAL);
	assert_string_equal(nicd_last_error(fake->n)->name, "MEMORY_EMPTY");
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(nicd_buffer_from_fd(fake->n, fd, &buffer), -EINVAL);
	assert_string_equal(nicd_last_error(fake->n)->name, "MEMORY_NOT_SEALED");
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE), 0);
	assert_null(buffer);
	fake_silent(fake);
	fake_reply_memory(fake, 2, 103);
	fake_send(fake);
	fake_reply_error(fake, 3, NICD_R_QUOTA);
	fake_send(fake);
	assert_int_equal(nicd_buffer_from_fd(fake->n, fd, &buffer), 0);
	close(fd);
	assert_int_equal(*(char *)nicd_buffer_address(buffer), 'x');
	assert_int_equal(nicd_buffer_from_fd(fake->n, nicd_buffer_fd(buffer), &again), -EDQUOT);
	assert_null(again);
}

/* mutation: buffer_round without its first check */
/* mutation: buffer_is_possible returning true */
static void test_buffer_arguments(void **state)
{
	struct fake *fake = *state;
	struct nicd_buffer *buffer = NULL;

	assert_int_equal(nicd_buffer_new(fake->n, 0, 0, &buffer), -EINVAL);
	assert_int_equal(nicd_buffer_new(fake->n, 1, 0x80, &buffer), -EINVAL);
	assert_int_equal(nicd_buffer_new(fake->n, SIZE_MAX, 0, &buffer), -ENOMEM);
	assert_true(nicd_buffer_new(fake->n, (size_t)1 << 62, 0, &buffer) < 0);
	assert_true(nicd_buffer_new(fake->n, (size_t)1 << 62, NICD_BUFFER_HUGE_ONLY, &buffer) < 0);
	assert_null(buffer);
	fake_silent(fake);
}

/* Huge pages if there are any: in both cases the page size says the truth. */
/* mutation: buffer_init without the second buffer_try */
static void test_huge(void **state)
{
	struct fake *fake = *state;
	struct nicd_buffer *buffer = NULL;
	size_t page;
	int r;

	fake_reply_memory(fake, 2, 103);
	fake_send(fake);
	fake_reply_memory(fake, 3, 104);
	fake_send(fake);
	assert_int_equal(nicd_buffer_new(fake->n, 4096, NICD_BUFFER_HUGE, &buffer), 0);
	page = nicd_buffer_page_size(buffer);
	assert_true(page == 4096 || page == 2 << 20);
	assert_int_equal(nicd_buffer_size(buffer), page);
	r = nicd_buffer_new(fake->n, 4096, NICD_BUFFER_HUGE_ONLY, &buffer);
	assert_true(r == 0 ? nicd_buffer_page_size(buffer) == 2 << 20 : r == -ENOMEM);
}

/* ---------------------------------------------------------------------------------------------------------- registering */

/* mutation: plan_iova without the offset */
/* mutation: plan_iova starting at page 0 */
static void test_iova(void **state)
{
	struct world w;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ, .offset = 4096 + 77, .length = 100 };
	uint64_t seen = 0;

	make_world(&w, *state);
	attr.buffer = w.buffer;
	for (int i = 0; i < 200; i++) {
		const Nicd__Request *request;
		const Nicd__RegisterMr *body;

		assert_int_equal(nicd_mr_register_async(w.mr, &attr, NULL, NULL), 0);
		request = sent(&w);
		body = request->register_mr;
		assert_int_equal(body->iova % 4096, 77);
		assert_true(body->iova >= 4096 && body->iova + 100 <= (uint64_t)1 << 47);
		assert_int_not_equal(body->iova, seen);
		seen = body->iova;
		assert_int_equal(body->n_ranges, 1);
		assert_int_equal(body->ranges[0]->offset, 4096 + 77);
		assert_int_equal(body->ranges[0]->length, 100);
		assert_int_equal(body->flags, NICD_MR_REMOTE_READ);
		refuse(&w, request->id);
	}
	attr.iova = 0x123456;
	assert_int_equal(nicd_mr_register_async(w.mr, &attr, NULL, NULL), 0);
	assert_int_equal(sent(&w)->register_mr->iova, 0x123456);
}

/* Lengths that leave no room, or wrap: nicd refuses them, and the address is a number nevertheless. */
/* mutation: plan_iova without the comparison of the length */
static void test_iova_of_nonsense(void **state)
{
	struct world w;
	struct nicd_range ranges[2] = { { .length = UINT64_MAX }, { .length = UINT64_MAX - 5 } };
	struct nicd_mr_attr attr = { .size = sizeof(attr), .ranges = ranges, .n_ranges = 2 };

	make_world(&w, *state);
	ranges[0].memory = ranges[1].memory = nicd_buffer_memory(w.buffer);
	for (unsigned shift = 30; shift < 64; shift++) {
		const Nicd__Request *request;
		uint64_t iova;

		attr.length = (uint64_t)1 << shift;
		assert_int_equal(nicd_mr_register_async(w.mr, &attr, NULL, NULL), 0);
		request = sent(&w);
		iova = request->register_mr->iova;
		assert_true(iova >= 4096 && iova < (uint64_t)1 << 47);
		refuse(&w, request->id);
	}
	attr.length = 0;
	assert_int_equal(nicd_mr_register_async(w.mr, &attr, NULL, NULL), 0);
	sent(&w);
}

/* mutation: plan_add_ranges without the check of n_ranges */
/* mutation: plan_add_buffer without the comparison of the session */
static void test_register_arguments(void **state)
{
	struct world w;
	struct nicd_range ranges[17] = { { .offset = 0 } };
	struct nicd_mr_attr none = { .size = sizeof(none) }, attr = none;
	struct nicd_memory foreign = { .object = { .n = NULL } };

	make_world(&w, *state);
	assert_int_equal(nicd_mr_register(w.mr, &none), -EINVAL);
	assert_int_equal(nicd_mr_register(w.mr, NULL), -EINVAL);
	attr.ranges = ranges;
	attr.n_ranges = 17;
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EINVAL);
	assert_string_equal(nicd_last_error(w.fake->n)->name, "COUNT");
	assert_int_equal(nicd_last_error(w.fake->n)->limit, 16);
	attr.n_ranges = 1;
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EINVAL);
	ranges[0].memory = &foreign;
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EINVAL);
	ranges[0].memory = nicd_buffer_memory(w.buffer);
	attr.buffer = w.buffer;
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EINVAL);
	attr = none;
	attr.buffer = w.buffer;
	attr.offset = 16384;
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EINVAL);
	assert_string_equal(nicd_last_error(w.fake->n)->name, "RANGE_BEYOND");
	attr.offset = 0;
	attr.reserved = 1;
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EINVAL);
	attr.reserved = 0;
	assert_int_equal(nicd_mr_register_fd(w.mr, STDIN_FILENO, &attr), -EINVAL);
	fake_silent(w.fake);
}

/* mutation: use_new without memory->users++ */
/* mutation: deregister_finish without mr_release */
/* mutation: handle_close without the look at users */
static void test_in_use(void **state)
{
	struct world w;
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_REMOTE_READ };
	struct nicd_receipt receipt = { .size = sizeof(receipt) };
	Nicd__Receipt from = NICD__RECEIPT__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	make_world(&w, *state);
	attr.buffer = w.buffer;
	fake_reply_mr(w.fake, 5, 0x1111, 0x2222);
	fake_send(w.fake);
	assert_int_equal(nicd_mr_register(w.mr, &attr), 0);
	assert_int_equal(nicd_mr_local_token(w.mr), 0x1111);
	assert_int_equal(nicd_mr_remote_token(w.mr), 0x2222);
	assert_int_equal(nicd_mr_iova(w.mr), 0x7000);
	assert_int_equal(nicd_mr_length(w.mr), 4096);
	assert_int_equal(nicd_mr_generation(w.mr), 1);
	assert_int_equal(nicd_mr_flags(w.mr), NICD_MR_REMOTE_READ);
	assert_int_equal(nicd_buffer_close(w.buffer), -EBUSY);
	assert_string_equal(nicd_last_error(w.fake->n)->name, "STILL_USED");
	assert_int_equal(nicd_pd_close(w.pd), -EBUSY);
	/* A second registration that is refused changes nothing. */
	fake_reply_error(w.fake, 6, NICD_R_MR_STATE);
	fake_send(w.fake);
	assert_int_equal(nicd_mr_register(w.mr, &attr), -EBUSY);
	assert_int_equal(nicd_mr_local_token(w.mr), 0x1111);
	assert_int_equal(nicd_buffer_close(w.buffer), -EBUSY);
	/* The device has not confirmed: the tokens are dead, the memory is not free. */
	fake_reply_error(w.fake, 7, NICD_R_REVOKE_UNCONFIRMED);
	fake_send(w.fake);
	assert_int_equal(nicd_mr_deregister(w.mr, &receipt), -EINPROGRESS);
	assert_int_equal(nicd_mr_local_token(w.mr), 0);
	assert_int_equal(nicd_buffer_close(w.buffer), -EBUSY);
	fake_event(w.fake, NICD__EVENT__KIND__REVOKE_CONFIRMED, 104, 1104);
	fake_send(w.fake);
	assert_int_equal(nicd_dispatch(w.fake->n, 0), 0);
	fake_reply_ok(w.fake, 8);
	fake_send(w.fake);
	assert_int_equal(nicd_buffer_close(w.buffer), 0);
	/* And once more in peace. */
	fake_reply_memory(w.fake, 9, 109);
	fake_send(w.fake);
	fake_reply_mr(w.fake, 10, 0x3333, 0);
	fake_send(w.fake);
	from.serial = 1104;
	from.streams_cut = 2;
	reply.id = 11;
	reply.result_case = NICD__REPLY__RESULT_RECEIPT;
	reply.receipt = &from;
	fake_reply(w.fake, &reply);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 12);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 13);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 14);
	fake_send(w.fake);
	assert_int_equal(nicd_buffer_new_async(w.fake->n, 100, 0, &w.buffer, NULL, NULL), 0);
	attr.buffer = w.buffer;
	assert_int_equal(nicd_mr_register_async(w.mr, &attr, NULL, NULL), 0);
	assert_int_equal(nicd_mr_deregister(w.mr, &receipt), 0);
	assert_int_equal(receipt.streams_cut, 2);
	assert_int_equal(nicd_buffer_close(w.buffer), 0);
	assert_int_equal(nicd_mr_close(w.mr), 0);
	assert_int_equal(nicd_pd_close(w.pd), 0);
}

/* mutation: mr_before_close doing nothing */
static void test_closing_lets_go(void **state)
{
	struct world w;
	struct nicd_mr_attr attr = { .size = sizeof(attr) };

	make_world(&w, *state);
	attr.buffer = w.buffer;
	/* Closed while the registration is under way. */
	assert_int_equal(nicd_mr_register_async(w.mr, &attr, NULL, NULL), 0);
	assert_int_equal(nicd_mr_close_async(w.mr, NULL, NULL), 0);
	fake_reply_mr(w.fake, 5, 1, 2);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 6);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 7);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 8);
	fake_send(w.fake);
	assert_int_equal(nicd_buffer_close(w.buffer), 0);
	assert_int_equal(nicd_pd_close(w.pd), 0);
}

/* mutation: query_finish without comparing the counts */
static void test_query_tokens(void **state)
{
	struct world w;
	struct nicd_mr *mrs[2], *late;
	uint32_t local[2] = { 9, 9 }, remote[2] = { 9, 9 };
	uint32_t l[2] = { 11, 0 }, r[2] = { 22, 0 };
	Nicd__TokenList tokens = NICD__TOKEN_LIST__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	const Nicd__QueryTokens *body;

	make_world(&w, *state);
	assert_int_equal(nicd_mr_create_async(w.pd, &late, NULL, NULL), 0);
	assert_int_equal(nicd_flush(w.fake->n), 0);
	fake_read(w.fake);
	mrs[0] = w.mr;
	mrs[1] = late;
	assert_int_equal(nicd_query_tokens(w.fake->n, mrs, 0, local, remote), -EINVAL);
	assert_int_equal(nicd_query_tokens(w.fake->n, mrs, 4097, local, remote), -EINVAL);
	tokens.local_tokens = l;
	tokens.remote_tokens = r;
	tokens.n_local_tokens = tokens.n_remote_tokens = 2;
	reply.id = 6;
	reply.result_case = NICD__REPLY__RESULT_TOKENS;
	reply.tokens = &tokens;
	fake_reply(w.fake, &reply);
	fake_send(w.fake);
	assert_int_equal(nicd_query_tokens(w.fake->n, mrs, 2, local, remote), 0);
	body = fake_read(w.fake)->requests[0]->query_tokens;
	assert_int_equal(body->n_mrs, 2);
	assert_int_equal(body->mrs[0], 104);
	assert_int_equal(body->mrs[1], 0);
	assert_int_equal(local[0], 11);
	assert_int_equal(remote[1], 0);
	/* More tokens than asked for would be written behind the arrays. */
	reply.id = 7;
	fake_reply(w.fake, &reply);
	fake_send(w.fake);
	assert_int_equal(nicd_query_tokens(w.fake->n, mrs, 1, local, NULL), -ECONNRESET);
}

/* -------------------------------------------------------------------------------------------------------- Qps and doors */

static void fake_reply_completion(struct fake *fake, uint32_t id, uint32_t failed)
{
	const struct nicd_reason_info *info = nicd_reason_info(NICD_R_REMOTE_RANGE);
	Nicd__Completion completion = NICD__COMPLETION__INIT;
	Nicd__Error error = NICD__ERROR__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	completion.entries = failed ? failed : 3;
	completion.bytes = 300;
	completion.failed = failed;
	completion.inexact = failed != 0;
	error.reason = NICD_R_REMOTE_RANGE;
	error.status = (Nicd__Status)info->status;
	reply.id = id;
	reply.error = failed ? &error : NULL;
	reply.result_case = NICD__REPLY__RESULT_COMPLETION;
	reply.completion = &completion;
	fake_reply(fake, &reply);
	fake_send(fake);
}

static struct nicd_qp *connect_qp(struct world *w, uint32_t id)
{
	struct nicd_connect_attr attr = { .size = sizeof(attr), .locator = "nicd1:x" };
	Nicd__QpInfo info = NICD__QP_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	struct nicd_qp *qp = NULL;

	info.id = 105;
	info.serial = 1105;
	info.peer = (char *)"127.0.0.2:7190";
	reply.id = id;
	reply.result_case = NICD__REPLY__RESULT_QP;
	reply.qp = &info;
	fake_reply(w->fake, &reply);
	fake_send(w->fake);
	assert_int_equal(nicd_qp_connect(w->pd, &attr, &qp), 0);
	fake_read(w->fake);
	return qp;
}

/* Each request has one answer; of the success of a silent one nobody hears, and nothing is written. */
static void test_silent(void **state)
{
	const struct nicd_transfer list[2] = { { .length = 3 }, { .length = 4 } };
	struct nicd_work_attr attr = {
		.size = sizeof(attr), .operation = NICD_WORK_WRITE, .transfers = list, .count = 1, .flags = NICD_OP_SILENT_SUCCESS,
	};
	struct nicd_completion completion[4] = { { 0 } };
	struct told told[4] = { 0 };
	const Nicd__Frame *frame;
	struct nicd_qp *qp;
	struct world w;

	make_world(&w, *state);
	qp = connect_qp(&w, 5);
	for (int i = 0; i < 4; i++) {
		completion[i].size = sizeof(completion[i]);
		completion[i].entries = 77;
		attr.count = i == 3 ? 2 : 1;
		attr.flags = i == 2 ? NICD_OP_READ_FENCE : NICD_OP_SILENT_SUCCESS | NICD_OP_DEFER;
		assert_int_equal(nicd_qp_post_async(qp, &attr, &completion[i], tell, &told[i]), 0);
	}
	assert_int_equal(nicd_flush(w.fake->n), 0);
	frame = fake_read(w.fake);
	assert_int_equal(frame->n_requests, 4);
	/* mutation: lose flags on the way */
	assert_int_equal(frame->requests[0]->write->flags, 0x201);
	assert_int_equal(frame->requests[2]->write->flags, 2);
	assert_int_equal(frame->requests[3]->call_case, NICD__REQUEST__CALL_TRANSFER_LIST);
	assert_int_equal(frame->requests[3]->transfer_list->flags, 0x201);
	fake_reply_completion(w.fake, 6, 0);
	fake_reply_completion(w.fake, 7, 2);
	fake_reply_completion(w.fake, 8, 0);
	fake_reply_completion(w.fake, 9, 0);
	/* mutation: call back for silent successes */
	assert_int_equal(nicd_dispatch(w.fake->n, -1), 2);
	assert_int_equal(nicd_dispatch(w.fake->n, 0), 0);
	assert_int_equal(told[0].called + told[3].called, 0);
	assert_int_equal(completion[0].entries, 77);
	assert_int_equal(completion[3].entries, 77);
	/* mutation: be silent about failures */
	assert_int_equal(told[1].called, 1);
	assert_int_equal(told[1].error, -EREMOTEIO);
	assert_int_equal(completion[1].entries, 2);
	assert_int_equal(told[2].error, 0);
	assert_int_equal(completion[2].entries, 3);
	/* Whoever waits is not silent: it would wait for ever. mutation: send the flag */
	attr.flags = NICD_OP_SILENT_SUCCESS | NICD_OP_READ_FENCE;
	attr.count = 1;
	fake_reply_completion(w.fake, 10, 0);
	assert_int_equal(nicd_qp_post(qp, &attr, &completion[0]), 0);
	assert_int_equal(fake_read(w.fake)->requests[0]->write->flags, NICD_OP_READ_FENCE);
	assert_int_equal(completion[0].entries, 3);
	/* In flight when the connection goes: told, though silent. */
	attr.flags = NICD_OP_SILENT_SUCCESS;
	assert_int_equal(nicd_qp_post_async(qp, &attr, NULL, tell, &told[0]), 0);
	assert_int_equal(nicd_flush(w.fake->n), 0);
	fake_hang_up(w.fake);
	nicd_dispatch(w.fake->n, 0);
	assert_int_equal(told[0].called, 1);
	assert_int_equal(told[0].error, -ECONNRESET);
}

/* What is wrong on this side is refused here; what is sent is what was given. */
static void test_post(void **state)
{
	const struct nicd_transfer list[2] = { { .length = 3 }, { .length = NICD_INLINE + 1 } };
	const struct nicd_message message = { .length = 5, .flags = NICD_OP_SOLICIT_EVENT };
	struct nicd_work_attr attr = { .size = sizeof(attr), .operation = NICD_WORK_WRITE, .transfers = list, .count = 1 };
	struct nicd_qp *qp;
	struct world w;
	const Nicd__Frame *frame;
	char data[8] = "bytes...";

	make_world(&w, *state);
	qp = connect_qp(&w, 5);
	attr.flags = NICD_OP_INLINE;
	/* mutation: read bytes where none were given */
	assert_int_equal(nicd_qp_post(qp, &attr, NULL), -EINVAL);
	attr.inline_data = data;
	attr.transfers = &list[1];
	/* mutation: read as many as it says, however many these are */
	assert_int_equal(nicd_qp_post(qp, &attr, NULL), -EINVAL);
	assert_string_equal(nicd_last_error(w.fake->n)->name, "INLINE_LENGTH");
	assert_int_equal(nicd_last_error(w.fake->n)->limit, NICD_INLINE);
	attr.operation = 4;
	assert_int_equal(nicd_qp_post(qp, &attr, NULL), -EINVAL);
	attr.operation = NICD_WORK_SEND;
	/* mutation: no look at whether there is a message */
	assert_int_equal(nicd_qp_post(qp, &attr, NULL), -EINVAL);
	attr.operation = NICD_WORK_RECEIVE;
	attr.message = &message;
	assert_int_equal(nicd_qp_post(qp, &attr, NULL), -EINVAL);
	attr.operation = NICD_WORK_READ;
	attr.transfers = NULL;
	attr.message = NULL;
	assert_int_equal(nicd_qp_post(qp, &attr, NULL), -EINVAL);
	fake_silent(w.fake);

	attr.transfers = list;
	attr.operation = NICD_WORK_WRITE;
	assert_int_equal(nicd_qp_post_async(qp, &attr, NULL, NULL, NULL), 0);
	attr.operation = NICD_WORK_SEND;
	attr.message = &message;
	assert_int_equal(nicd_qp_post_async(qp, &attr, NULL, NULL, NULL), 0);
	memset(data, 0, sizeof(data));
	assert_int_equal(nicd_flush(w.fake->n), 0);
	frame = fake_read(w.fake);
	/* mutation: borrow the bytes until they are sent */
	assert_int_equal(frame->requests[0]->write->inline_data.len, 3);
	assert_memory_equal(frame->requests[0]->write->inline_data.data, "byt", 3);
	assert_int_equal(frame->requests[1]->send->inline_data.len, 5);
	assert_memory_equal(frame->requests[1]->send->inline_data.data, "bytes", 5);
	/* mutation: the flags of the message or of the request alone */
	assert_int_equal(frame->requests[1]->send->flags, NICD_OP_INLINE | NICD_OP_SOLICIT_EVENT);
}

/* mutation: work_finish returning before it reads the completion of a failure */
/* mutation: post_check without the check of count */
static void test_transfers(void **state)
{
	struct world w;
	struct nicd_connect_attr attr = { .size = sizeof(attr), .locator = "nicd1:x", .timeout_ms = 5 };
	struct nicd_completion completion = { .size = sizeof(completion) };
	struct nicd_transfer list[3] = { { .local_token = 0x01020304, .remote_addr = 0x1122334455667788, .length = 9 } };
	Nicd__Grant grant = NICD__GRANT__INIT;
	Nicd__QpInfo qp_info = NICD__QP_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	const Nicd__Request *request;
	struct nicd_qp_info info = { .size = sizeof(info) };
	struct nicd_qp *qp = NULL;

	make_world(&w, *state);
	grant.remote_token = 0xabc;
	grant.length = 4096;
	qp_info.id = 105;
	qp_info.serial = 1105;
	qp_info.grant = &grant;
	qp_info.peer = (char *)"127.0.0.2:7190";
	qp_info.bytes_read = 17;
	qp_info.connected = true;
	reply.id = 5;
	reply.result_case = NICD__REPLY__RESULT_QP;
	reply.qp = &qp_info;
	fake_reply(w.fake, &reply);
	fake_send(w.fake);
	fake_reply_completion(w.fake, 6, 0);
	fake_send(w.fake);
	fake_reply_completion(w.fake, 7, 2);
	fake_send(w.fake);
	reply.id = 8;
	fake_reply(w.fake, &reply);
	fake_send(w.fake);
	assert_int_equal(nicd_qp_connect(w.pd, &attr, &qp), 0);
	request = fake_read(w.fake)->requests[0];
	assert_string_equal(request->connect_qp->locator, "nicd1:x");
	assert_int_equal(request->connect_qp->pd->id, 102);
	assert_int_equal(nicd_qp_grant(qp)->remote_token, 0xabc);
	assert_int_equal(nicd_qp_serial(qp), 1105);
	assert_int_equal(nicd_qp_write_list(qp, list, 3, &completion), 0);
	request = fake_read(w.fake)->requests[0];
	assert_int_equal(request->transfer_list->operation, NICD__TRANSFER_LIST__OPERATION__WRITE);
	assert_int_equal(request->transfer_list->entries.len, 96);
	assert_memory_equal(request->transfer_list->entries.data, "\4\3\2\1\0\0\0\0", 8);
	assert_memory_equal(request->transfer_list->entries.data + 16, "\x88\x77\x66\x55\x44\x33\x22\x11\x09\0\0\0", 12);
	assert_int_equal(completion.entries, 3);
	assert_int_equal(nicd_qp_read(qp, &list[0], &completion), -EREMOTEIO);
	assert_int_equal(completion.entries, 2);
	assert_int_equal(completion.failed, 2);
	assert_int_equal(completion.inexact, 1);
	assert_int_equal(nicd_qp_query(qp, &info), 0);
	assert_string_equal(info.peer, "127.0.0.2:7190");
	assert_int_equal(info.bytes_read, 17);
	assert_int_equal(info.connected, 1);
	assert_int_equal(nicd_qp_read_list(qp, list, 0, NULL), -EINVAL);
	assert_int_equal(nicd_qp_read_list(qp, list, 1025, NULL), -EINVAL);
	assert_string_equal(nicd_last_error(w.fake->n)->name, "TRANSFER_ENTRIES");
	attr.locator = NULL;
	assert_int_equal(nicd_qp_connect(w.pd, &attr, &qp), -EINVAL);
}

/* mutation: door_new with the MR as parent */
static void test_doors(void **state)
{
	struct world w;
	struct nicd_export_attr attr = { .size = sizeof(attr), .name = "name", .flags = NICD_MR_REMOTE_WRITE, .uses = 3 };
	Nicd__Grant grant = NICD__GRANT__INIT;
	Nicd__DoorInfo info = NICD__DOOR_INFO__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	const Nicd__CreateExport *body;
	struct nicd_ticket *ticket;
	struct nicd_export *door;

	make_world(&w, *state);
	grant.iova = 0x9000;
	info.id = 105;
	info.locator = (char *)"nicd1:secret";
	info.grant = &grant;
	reply.id = 5;
	reply.result_case = NICD__REPLY__RESULT_DOOR;
	reply.door = &info;
	fake_reply(w.fake, &reply);
	fake_send(w.fake);
	assert_int_equal(nicd_export_create(w.mr, &attr, &door), 0);
	body = fake_read(w.fake)->requests[0]->create_export;
	assert_string_equal(body->name, "name");
	assert_int_equal(body->flags, 5);
	assert_int_equal(body->uses, 3);
	assert_string_equal(nicd_export_locator(door), "nicd1:secret");
	assert_int_equal(nicd_export_grant(door)->iova, 0x9000);
	assert_int_equal(nicd_ticket_create_async(w.mr, NULL, &ticket, NULL, NULL), 0);
	assert_string_equal(nicd_ticket_locator(ticket), "");
	assert_int_equal(sent(&w)->create_ticket->mr->id, 104);
	/* The doors stand on the PD, not on the MR's handle. */
	assert_int_equal(nicd_mr_close_async(w.mr, NULL, NULL), 0);
	assert_int_equal(nicd_pd_close(w.pd), -EBUSY);
	assert_int_equal(nicd_last_error(w.fake->n)->observed, 2);
	assert_int_equal(nicd_export_close_async(door, NULL, NULL), 0);
	assert_int_equal(nicd_ticket_close_async(ticket, NULL, NULL), 0);
	assert_int_equal(nicd_pd_close_async(w.pd, NULL, NULL), 0);
}

/* ---------------------------------------------------------------------------------------------------------------- lists */

static void fake_reply_list(struct fake *fake, uint32_t id, unsigned count, uint64_t cursor)
{
	Nicd__Item item = NICD__ITEM__INIT;
	Nicd__Item *items[4] = { &item, &item, &item, &item };
	Nicd__ListReply list = NICD__LIST_REPLY__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;

	item.type = NICD__TYPE__MR;
	item.serial = cursor + 1;
	item.account = (char *)"uid:7";
	item.state = (char *)"REGISTERED";
	list.items = items;
	list.n_items = count;
	list.cursor = cursor;
	reply.id = id;
	reply.result_case = NICD__REPLY__RESULT_LIST;
	reply.list = &list;
	fake_reply(fake, &reply);
	fake_send(fake);
}

/* An empty page is not the end while it has a cursor. */
static void test_list_empty_pages(void **state)
{
	struct fake *fake = *state;
	struct told told = { 0 };
	struct nicd_list *list;

	assert_int_equal(nicd_list_new(fake->n, NICD_TYPE_MR, &list), 0);
	fake_silent(fake);
	for (uint32_t id = 2; id < 5; id++) {
		fake_reply_list(fake, id, id == 4 ? 2 : 0, id * 10);
		fake_send(fake);
	}
	/* mutation: pages_fetch without the loop */
	assert_int_equal(nicd_list_fetch(list), 2);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(fake_read(fake)->requests[0]->list->cursor, i ? (i + 1) * 10 : 0);
	assert_int_equal(nicd_list_fetch_async(list, tell, &told), 0);
	assert_int_equal(nicd_flush(fake->n), 0);
	assert_int_equal(fake_read(fake)->requests[0]->list->cursor, 40);
	fake_reply_list(fake, 5, 0, 50);
	fake_send(fake);
	/* mutation: pages_finish without pages_again */
	assert_int_equal(nicd_dispatch(fake->n, 0), 0);
	assert_int_equal(told.called, 0);
	/* mutation: pages_again does not set fetching */
	assert_int_equal(nicd_list_fetch(list), -EBUSY);
	assert_int_equal(nicd_flush(fake->n), 0);
	assert_int_equal(fake_read(fake)->requests[0]->list->cursor, 50);
	fake_reply_list(fake, 6, 1, 0);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(told.called, 1);
	assert_int_equal(told.error, 0);
	assert_non_null(nicd_list_next(list));
	assert_null(nicd_list_next(list));
	assert_int_equal(nicd_list_fetch(list), 0);
	nicd_list_free(list);
}

/* mutation: pages_start asking again at the end */
/* mutation: pages_start without the look at fetching */
static void test_list(void **state)
{
	struct fake *fake = *state;
	struct told told[3] = { 0 };
	struct nicd_list *list;
	const struct nicd_item *item;

	assert_int_equal(nicd_list_new(fake->n, NICD_TYPE_MR, &list), 0);
	assert_null(nicd_list_next(list));
	fake_silent(fake);
	fake_reply_list(fake, 2, 4, 77);
	fake_send(fake);
	fake_reply_list(fake, 3, 1, 0);
	fake_send(fake);
	assert_int_equal(nicd_list_fetch(list), 4);
	assert_int_equal(fake_read(fake)->requests[0]->list->cursor, 0);
	item = nicd_list_next(list);
	assert_int_equal(item->serial, 78);
	assert_string_equal(item->account, "uid:7");
	assert_string_equal(item->state, "REGISTERED");
	assert_string_equal(item->peer, "");
	assert_int_equal(nicd_list_fetch(list), 1);
	assert_int_equal(fake_read(fake)->requests[0]->list->cursor, 77);
	assert_non_null(nicd_list_next(list));
	assert_null(nicd_list_next(list));
	assert_int_equal(nicd_list_fetch(list), 0);
	assert_null(nicd_list_next(list));
	assert_int_equal(nicd_list_fetch_async(list, tell, &told[0]), 0);
	assert_int_equal(nicd_dispatch(fake->n, 0), 1);
	assert_int_equal(told[0].error, 0);
	nicd_list_free(list);
	fake_silent(fake);
	/* One that is freed while its page is under way. */
	assert_int_equal(nicd_list_who(fake->n, 5, &list), 0);
	assert_int_equal(nicd_list_fetch_async(list, tell, &told[1]), 0);
	assert_int_equal(nicd_list_fetch_async(list, tell, &told[2]), -EBUSY);
	assert_int_equal(nicd_list_fetch(list), -EBUSY);
	nicd_list_free(list);
	nicd_list_free(NULL);
	assert_int_equal(nicd_flush(fake->n), 0);
	assert_int_equal(fake_read(fake)->requests[0]->who->serial, 5);
	fake_reply_list(fake, 4 + 1, 1, 0);
	fake_send(fake);
	assert_int_equal(nicd_dispatch(fake->n, -1), 1);
	assert_int_equal(told[1].error, -ECANCELED);
	assert_string_equal(told[1].reason, "LIST_FREED");
	assert_int_equal(told[2].called, 0);
}

/* mutation: ledger_size without the strings */
static void test_ledger(void **state)
{
	struct fake *fake = *state;
	Nicd__Charge charge = NICD__CHARGE__INIT;
	Nicd__Charge *charges[3] = { &charge, &charge, &charge };
	Nicd__AccountLedger account = NICD__ACCOUNT_LEDGER__INIT;
	Nicd__AccountLedger *accounts[2] = { &account, &account };
	Nicd__Cap cap = NICD__CAP__INIT;
	Nicd__Cap *caps[40];   /* more than a nicd would say */
	Nicd__LedgerReply from = NICD__LEDGER_REPLY__INIT;
	Nicd__Reply reply = NICD__REPLY__INIT;
	const struct nicd_account *seen;
	struct nicd_ledger *ledger;

	charge.slot = (char *)"pinned bytes";
	charge.used = 5;
	charge.max = 9;
	account.account = (char *)"uid:7";
	account.charges = charges;
	account.n_charges = 3;
	from.accounts = accounts;
	from.n_accounts = 2;
	from.held_fds = 4;
	cap.adapter = (char *)"soft0";
	cap.name = (char *)"--a name that is longer than any option is, and is cut";
	cap.limit = 3;
	cap.now = 2;
	cap.counted = true;
	cap.refused = 7;
	for (unsigned i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		caps[i] = &cap;
	from.caps = caps;
	from.n_caps = sizeof(caps) / sizeof(caps[0]);
	reply.id = 2;
	reply.result_case = NICD__REPLY__RESULT_LEDGER;
	reply.ledger = &from;
	fake_reply(fake, &reply);
	fake_send(fake);
	assert_int_equal(nicd_ledger_new(fake->n, &ledger), 0);
	assert_int_equal(nicd_ledger_fetch(ledger), 2);
	for (int i = 0; i < 2; i++) {
		seen = nicd_ledger_next(ledger);
		assert_string_equal(seen->account, "uid:7");
		assert_int_equal(seen->n_charges, 3);
		assert_string_equal(seen->charges[2].slot, "pinned bytes");
		assert_int_equal(seen->charges[2].max, 9);
	}
	assert_null(nicd_ledger_next(ledger));
	assert_int_equal(nicd_ledger_total(ledger)->held_fds, 4);
	assert_int_equal(nicd_ledger_fetch(ledger), 0);
	/* mutation: keep the caps in the page, which is gone by now */
	assert_in_range(nicd_ledger_total(ledger)->n_caps, 6, 39);
	for (uint64_t i = 0; i < nicd_ledger_total(ledger)->n_caps; i++) {
		const struct nicd_cap *got = &nicd_ledger_total(ledger)->caps[i];

		assert_string_equal(got->adapter, "soft0");
		assert_int_equal(strncmp(got->name, cap.name, strlen(got->name)), 0);
		assert_true(got->limit == 3 && got->now == 2 && got->counted && got->refused == 7);
	}
}

/* --------------------------------------------------------------------------------------------------------------- events */

struct news {
	unsigned count;
	struct nicd_event last;
};

static void hear(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	struct news *news = userdata;

	news->count++;
	news->last = *event;
}

/* mutation: call_event_find returning NULL */
/* mutation: call_deliver_event giving a closed object */
static void test_events(void **state)
{
	struct world w;
	struct news news = { 0 };

	make_world(&w, *state);
	/* Without a callback they are dropped. */
	fake_event(w.fake, NICD__EVENT__KIND__REVOKED, 104, 1104);
	fake_send(w.fake);
	assert_int_equal(nicd_dispatch(w.fake->n, 0), 0);
	nicd_set_event_callback(w.fake->n, hear, &news);
	assert_int_equal(nicd_dispatch(w.fake->n, 0), 0);
	fake_event(w.fake, NICD__EVENT__KIND__REVOKED, 104, 1104);
	fake_send(w.fake);
	assert_int_equal(nicd_dispatch(w.fake->n, -1), 1);
	assert_int_equal(news.count, 1);
	assert_ptr_equal(news.last.object, w.mr);
	assert_int_equal(news.last.type, NICD_TYPE_MR);
	assert_int_equal(news.last.kind, NICD_EVENT_REVOKED);
	assert_int_equal(news.last.serial, 1104);
	/* Of one object and kind the latest wins, also here. */
	for (unsigned i = 0; i < 100; i++)
		fake_event(w.fake, NICD__EVENT__KIND__CONNECTED, 104, i);
	fake_event(w.fake, NICD__EVENT__KIND__RESYNC, 0, 0);
	fake_send(w.fake);
	fake_event(w.fake, NICD__EVENT__KIND__RESYNC, 0, 0);
	fake_send(w.fake);
	fake_event(w.fake, 77, 104, 0);
	fake_send(w.fake);
	fake_event(w.fake, NICD__EVENT__KIND__NONE, 104, 0);
	fake_send(w.fake);
	assert_int_equal(nicd_dispatch(w.fake->n, -1), 2);
	assert_int_equal(news.count, 3);
	/* An object that is closed after its news came and before they are told. */
	fake_event(w.fake, NICD__EVENT__KIND__REVOKED, 104, 1104);
	fake_send(w.fake);
	fake_reply_error(w.fake, 5, NICD_R_NO_ADAPTER);
	fake_send(w.fake);
	fake_reply_ok(w.fake, 6);
	fake_send(w.fake);
	assert_int_equal(nicd_adapter_query(w.fake->n, 0), -ENODEV);
	assert_int_equal(nicd_mr_close(w.mr), 0);
	assert_int_equal(nicd_dispatch(w.fake->n, -1), 1);
	assert_int_equal(news.last.kind, NICD_EVENT_REVOKED);
	assert_null(news.last.object);
}

static void free_at_news(struct nicd *n, const struct nicd_event *event, void *userdata)
{
	(*(int *)userdata)++;
	nicd_free(n);
}

/* mutation: conn_deliver without the look at freeing */
static void test_free_inside_event(void **state)
{
	struct world w;
	int called = 0;

	make_world(&w, *state);
	nicd_set_event_callback(w.fake->n, free_at_news, &called);
	fake_event(w.fake, NICD__EVENT__KIND__REVOKED, 104, 1104);
	fake_send(w.fake);
	fake_event(w.fake, NICD__EVENT__KIND__RESYNC, 0, 0);
	fake_send(w.fake);
	assert_int_equal(nicd_dispatch(w.fake->n, -1), -ECANCELED);
	w.fake->n = NULL;
	assert_int_equal(called, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_open(test_buffer),
		test_open(test_buffer_from_fd),
		test_open(test_buffer_arguments),
		test_open(test_huge),
		test_open(test_iova),
		test_open(test_iova_of_nonsense),
		test_open(test_register_arguments),
		test_open(test_in_use),
		test_open(test_closing_lets_go),
		test_open(test_query_tokens),
		test_open(test_transfers),
		test_open(test_silent),
		test_open(test_post),
		test_open(test_doors),
		test_open(test_list),
		test_open(test_list_empty_pages),
		test_open(test_ledger),
		test_open(test_events),
		test_open(test_free_inside_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
