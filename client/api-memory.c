/* SPDX-License-Identifier: MIT */
/*
 * Memory that is handed over, and buffers: memory that was made and mapped here. A buffer is a memory with its mapping; its
 * handle is the memory's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "client/api.h"
#include "client/buffer.h"

struct nicd_buffer {
	struct nicd_memory memory;
	struct buffer buffer;
};

/* --------------------------------------------------------------------------------------------------------- handing over */

static int memory_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd_memory *memory = (struct nicd_memory *)call->object;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_MEMORY ||
	    !object_live(call->object, reply->memory->id, reply->memory->serial))
		return -EPROTO;
	memory->size = reply->memory->size;
	memory->page_size = reply->memory->page_size;
	memory->writable = reply->memory->writable;
	return 0;
}

/* Sends a copy of the descriptor. */
static int memory_add(struct nicd_memory *memory, int fd, struct call **ret)
{
	struct nicd *n = memory->object.n;
	Nicd__AddMemory body = NICD__ADD_MEMORY__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct call *call;
	int r = call_new(&call, n, &memory->object, memory_finish);

	if (r < 0)
		return r;
	call->makes = true;
	call->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (call->fd < 0) {
		r = conn_fail_system(n, errno, "the memory's fd", "pass an open memfd");
		call_free(call);
		return r;
	}
	request.call_case = NICD__REQUEST__CALL_ADD_MEMORY;
	request.add_memory = &body;
	*ret = call;
	return call_submit(call, &request, NULL, 0);
}

static int memory_start(struct nicd *n, int fd, struct nicd_memory **ret, struct call **call)
{
	struct nicd_memory *memory;
	size_t page_size = NICD_PAGE;
	int r = conn_check(n);

	if (r < 0)
		return r;
	memory = object_new(n, NICD_TYPE_MEMORY, sizeof(*memory), NULL, NULL);
	if (!memory)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	/* A registration may come before the answer, and needs it for its address. */
	buffer_page_size(fd, &page_size);
	memory->page_size = (uint32_t)page_size;
	r = memory_add(memory, fd, call);
	if (r < 0)
		object_close(&memory->object);
	else
		*ret = memory;
	return r;
}

NICD_API int nicd_memory_add(struct nicd *n, int fd, struct nicd_memory **ret)
{
	struct nicd_memory *memory;
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = memory_start(n, fd, &memory, &call);
	if (r >= 0)
		r = handle_wait(&memory->object, call);
	if (r >= 0)
		*ret = memory;
	return r;
}

NICD_API int nicd_memory_add_async(struct nicd *n, int fd, struct nicd_memory **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = memory_start(n, fd, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API uint64_t nicd_memory_size(const struct nicd_memory *memory)
{
	return memory->size;
}

NICD_API uint32_t nicd_memory_page_size(const struct nicd_memory *memory)
{
	return memory->page_size;
}

NICD_API int nicd_memory_writable(const struct nicd_memory *memory)
{
	return memory->writable;
}

NICD_API uint64_t nicd_memory_serial(const struct nicd_memory *memory)
{
	return memory->object.serial;
}

NICD_API int nicd_memory_close(struct nicd_memory *memory)
{
	return handle_close(memory ? &memory->object : NULL, NULL);
}

NICD_API int nicd_memory_close_async(struct nicd_memory *memory, nicd_callback cb, void *userdata)
{
	return handle_close_async(memory ? &memory->object : NULL, NULL, cb, userdata);
}

/* -------------------------------------------------------------------------------------------------------------- buffers */

static void buffer_fini(struct object *object)
{
	buffer_deinit(&((struct nicd_buffer *)object)->buffer);
}

/* Takes `made`, also on failure. */
static int buffer_start(struct nicd *n, struct buffer *made, struct nicd_buffer **ret, struct call **call)
{
	struct nicd_buffer *buffer = object_new(n, NICD_TYPE_MEMORY, sizeof(*buffer), NULL, buffer_fini);
	int r;

	if (!buffer) {
		buffer_deinit(made);
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	}
	buffer->buffer = *made;
	buffer->memory.page_size = (uint32_t)made->page_size;
	r = memory_add(&buffer->memory, made->fd, call);
	if (r < 0)
		object_close(&buffer->memory.object);
	else
		*ret = buffer;
	return r;
}

static int buffer_new(struct nicd *n, size_t size, uint32_t flags, struct nicd_buffer **ret, struct call **call)
{
	struct buffer made;
	int r = conn_check(n);

	if (r >= 0)
		r = buffer_init(&made, size, flags, &n->error);
	return r < 0 ? r : buffer_start(n, &made, ret, call);
}

static int buffer_from_fd(struct nicd *n, int fd, struct nicd_buffer **ret, struct call **call)
{
	struct buffer made;
	int r = conn_check(n);

	if (r >= 0)
		r = buffer_init_fd(&made, fd, &n->error);
	return r < 0 ? r : buffer_start(n, &made, ret, call);
}

NICD_API int nicd_buffer_new(struct nicd *n, size_t size, uint32_t flags, struct nicd_buffer **ret)
{
	struct nicd_buffer *buffer;
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = buffer_new(n, size, flags, &buffer, &call);
	if (r >= 0)
		r = handle_wait(&buffer->memory.object, call);
	if (r >= 0)
		*ret = buffer;
	return r;
}

NICD_API int nicd_buffer_new_async(struct nicd *n, size_t size, uint32_t flags, struct nicd_buffer **ret, nicd_callback cb,
				   void *userdata)
{
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = buffer_new(n, size, flags, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API int nicd_buffer_from_fd(struct nicd *n, int fd, struct nicd_buffer **ret)
{
	struct nicd_buffer *buffer;
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = buffer_from_fd(n, fd, &buffer, &call);
	if (r >= 0)
		r = handle_wait(&buffer->memory.object, call);
	if (r >= 0)
		*ret = buffer;
	return r;
}

NICD_API int nicd_buffer_from_fd_async(struct nicd *n, int fd, struct nicd_buffer **ret, nicd_callback cb, void *userdata)
{
	struct call *call;
	int r = conn_check_ret(n, ret);

	if (r >= 0)
		r = buffer_from_fd(n, fd, ret, &call);
	return r < 0 ? r : call_later(call, cb, userdata);
}

NICD_API void *nicd_buffer_address(const struct nicd_buffer *buffer)
{
	return buffer->buffer.address;
}

NICD_API size_t nicd_buffer_size(const struct nicd_buffer *buffer)
{
	return buffer->buffer.size;
}

NICD_API size_t nicd_buffer_page_size(const struct nicd_buffer *buffer)
{
	return buffer->buffer.page_size;
}

NICD_API int nicd_buffer_fd(const struct nicd_buffer *buffer)
{
	return buffer->buffer.fd;
}

NICD_API struct nicd_memory *nicd_buffer_memory(struct nicd_buffer *buffer)
{
	return &buffer->memory;
}

NICD_API int nicd_buffer_close(struct nicd_buffer *buffer)
{
	return handle_close(buffer ? &buffer->memory.object : NULL, buffer_fini);
}

NICD_API int nicd_buffer_close_async(struct nicd_buffer *buffer, nicd_callback cb, void *userdata)
{
	return handle_close_async(buffer ? &buffer->memory.object : NULL, buffer_fini, cb, userdata);
}
