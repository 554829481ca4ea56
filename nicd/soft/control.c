/* SPDX-License-Identifier: MIT */
/*
 * soft_control is made once and owns the device, the listening socket and at most one controller. A controller is a connection:
 * admitted -> reading frames and writing replies -> broken (end of socket, violation, out of memory) -> ended, freed by libuv's
 * close callback. While it is broken, nothing of it runs any more; the next turn of the loop ends it.
 *
 * Replies and events are put into frames where they arise and sent before the loop sleeps, so that all of a turn share packets.
 */
#include "nicd/soft/control.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/soft/device.h"
#include "proto/frame.h"
#include "proto/secret.h"

enum {
	FIELD_REPLIES = 2,
	FIELD_EVENTS = 3,
	FIELD_FATAL = 4,

	READS = 16,                    /* frames per turn; streams want their share */
	QUEUED_MAX = 1 << 20,          /* bytes of replies above which nothing more is read */
	NOTICES_MAX = 64 * 1024,       /* bytes above which no more notices are put */
	EVENTS_MAX = 8 << 20,          /* bytes above which a controller that does not read is given up */
	RETRY_MS = 100,                /* until accept is tried again after it failed */
	SEEN = 2 * NICD_FRAME_REQUESTS,
	BUF = NICD_FRAME_MAX + 1,
};

struct controller {
	struct soft_control *control;
	uv_poll_t poll;
	int fd;
	int events;                    /* what poll waits for */
	bool broken;
	struct wire_pace pace;
	struct frame_out out;
};

struct soft_control {
	uv_loop_t *loop;
	struct soft_control_options options;
	struct soft_device *device;
	struct controller *controller;
	uv_poll_t listener;
	int listen_fd;                 /* -1: none */
	uv_timer_t retry;
	uv_prepare_t turn;
	struct arena arena;
	unsigned open_handles;
	void (*closed)(void *userdata);
	void *userdata;
	uint32_t seen[SEEN];           /* request ids of the frame at hand, hashed */
	uint8_t *buf;                  /* BUF */
};

static void on_poll(uv_poll_t *poll, int status, int events);
static void on_listener(uv_poll_t *poll, int status, int events);

static void handle_closed(struct soft_control *control)
{
	if (--control->open_handles == 0 && control->closed)
		control->closed(control->userdata);
}

static void on_controller_closed(uv_handle_t *handle)
{
	struct controller *controller = handle->data;
	struct soft_control *control = controller->control;

	free(controller);
	handle_closed(control);
}

static void controller_end(struct controller *controller)
{
	struct soft_control *control = controller->control;

	control->controller = NULL;
	uv_close((uv_handle_t *)&controller->poll, on_controller_closed);
	close(controller->fd);
	frame_out_deinit(&controller->out);
	soft_device_abandon(control->device);
	if (control->options.gone && !control->closed)
		control->options.gone(control->options.userdata);
}

/* Waits for what there is reason to wait for. */
static void controller_wait(struct controller *controller)
{
	int events = (controller->out.bytes <= QUEUED_MAX ? UV_READABLE : 0) |
		     (frame_out_empty(&controller->out) ? 0 : UV_WRITABLE);

	if (events == controller->events)
		return;
	controller->events = events;
	if (uv_poll_start(&controller->poll, events, on_poll) < 0)
		controller->broken = true;
}

static void controller_turn(struct controller *controller)
{
	int r;

	/* Those that do not fit are told later, and then only how many there were: peers cannot make them pile up. */
	while (!controller->broken && controller->out.bytes < NOTICES_MAX && soft_device_notice(controller->control->device))
		;
	if (!controller->broken && !frame_out_empty(&controller->out)) {
		r = frame_flush(&controller->out, controller->fd);
		if (r < 0 && r != -EAGAIN)
			controller->broken = true;
	}
	if (!controller->broken)
		controller_wait(controller);
	if (controller->broken)
		controller_end(controller);
}

static void on_turn(uv_prepare_t *prepare)
{
	struct soft_control *control = prepare->data;

	if (control->controller)
		controller_turn(control->controller);
	soft_device_turn_end(control->device);
}

static void controller_put(struct soft_control *control, unsigned field, const ProtobufCMessage *message)
{
	struct controller *controller = control->controller;

	if (!controller || controller->broken)
		return;
	if (frame_put(&controller->out, field, message, NULL, 0) < 0)
		controller->broken = true;
}

static void on_answer(void *userdata, const Soft__Reply *reply)
{
	controller_put(userdata, FIELD_REPLIES, &reply->base);
}

static void on_event(void *userdata, const Soft__Event *event)
{
	struct soft_control *control = userdata;
	struct controller *controller = control->controller;
	int r;

	controller_put(control, FIELD_EVENTS, &event->base);
	if (!controller)
		return;
	if (controller->out.bytes > EVENTS_MAX)
		controller->broken = true;
	/* Told at once: the peer is answered next, and whoever hears of that may ask nicd. */
	if (event->kind != SOFT__EVENT__KIND__STREAM_OPENED || controller->broken)
		return;
	r = frame_flush(&controller->out, controller->fd);
	if (r < 0 && r != -EAGAIN)
		controller->broken = true;
}

/* What was answered before goes first, then the reason, if the socket takes them. */
static void violate(struct controller *controller, const struct nicd_error *why)
{
	Soft__Fatal fatal = SOFT__FATAL__INIT;

	fatal.reason = why->reason;
	fatal.limit = why->limit;
	fatal.observed = why->observed;
	if (frame_put(&controller->out, FIELD_FATAL, &fatal.base, NULL, 0) == 0)
		frame_flush(&controller->out, controller->fd);
	controller->broken = true;
}

/* true: this id was in the frame already. `seen` starts out zero and has twice as many places as a frame has requests. */
static bool seen_before(uint32_t *seen, uint32_t id)
{
	uint32_t i = (id * 2654435761u) % SEEN;

	for (; seen[i]; i = (i + 1) % SEEN)
		if (seen[i] == id)
			return true;
	seen[i] = id;
	return false;
}

static int id_check(struct soft_control *control, uint32_t id, struct nicd_error *err)
{
	if (id == 0 || seen_before(control->seen, id) || soft_device_in_flight(control->device, id))
		return nicd_refuse_at(err, NICD_R_REQUEST_ID, 0, id);
	return 0;
}

static int request_check(struct soft_control *control, const Soft__Request *request, struct nicd_error *err)
{
	int r = id_check(control, request->id, err);

	if (r < 0)
		return r;
	if (request->call_case == SOFT__REQUEST__CALL__NOT_SET)
		return nicd_refuse_at(err, NICD_R_REQUEST_EMPTY, 0, request->id);
	return 0;
}

/* All of a frame is judged before any of it runs. */
static int frame_check(struct soft_control *control, const Soft__Frame *frame, const struct wire_packet *packet,
		       struct nicd_error *err)
{
	uint64_t fds = 0;

	if (frame->n_replies || frame->n_events || frame->fatal)
		return nicd_refuse(err, NICD_R_FRAME_DIRECTION);
	if (frame->n_requests > NICD_FRAME_REQUESTS)
		return nicd_refuse_at(err, NICD_R_FRAME_REQUESTS, NICD_FRAME_REQUESTS, frame->n_requests);
	memset(control->seen, 0, sizeof(control->seen));
	for (size_t i = 0; i < frame->n_requests; i++) {
		int r = request_check(control, frame->requests[i], err);

		if (r < 0)
			return r;
		fds += frame->requests[i]->fds;
	}
	if (fds != packet->n_fds)
		return nicd_refuse_at(err, NICD_R_FRAME_FDS_MISMATCH, fds, packet->n_fds);
	return 0;
}

static void controller_frame(struct controller *controller, struct wire_packet *packet)
{
	struct soft_control *control = controller->control;
	struct nicd_error err = {.reason = NICD_R_NONE};
	Soft__Frame *frame;

	frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &control->arena, packet->data, packet->len, &err);
	if (!frame || frame_check(control, frame, packet, &err) < 0)
		violate(controller, &err);
	else
		for (size_t i = 0; i < frame->n_requests && !controller->broken; i++)
			soft_device_run(control->device, frame->requests[i], packet);
	arena_reset(&control->arena);
	wire_release(packet);
}

/* false: nothing more to read now. */
static bool controller_read(struct controller *controller)
{
	struct soft_control *control = controller->control;
	struct nicd_error err = {.reason = NICD_R_NONE};
	struct wire_packet packet;

	switch (wire_recv(controller->fd, control->buf, BUF, &packet)) {
	case WIRE_PACKET:
		controller_frame(controller, &packet);
		return true;
	case WIRE_AGAIN:
		return false;
	case WIRE_TOO_BIG:
		nicd_refuse_at(&err, NICD_R_FRAME_TOO_BIG, NICD_FRAME_MAX, BUF);
		violate(controller, &err);
		return false;
	case WIRE_FDS:
		nicd_refuse_at(&err, NICD_R_FRAME_FDS_TRUNCATED, NICD_FRAME_FDS, NICD_FRAME_FDS + 1);
		violate(controller, &err);
		return false;
	case WIRE_END:
	case WIRE_ERROR:
		break;
	}
	controller->broken = true;
	return false;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct controller *controller = poll->data;
	unsigned max, n = 0;

	if (status < 0) {
		controller->broken = true;
		return;
	}
	if (!(events & UV_READABLE))
		return;   /* writable: on_turn sends */
	max = wire_pace_begin(&controller->pace, READS);
	while (n < max && !controller->broken && controller->out.bytes <= QUEUED_MAX &&
	       !soft_device_is_spent(controller->control->device) && controller_read(controller))
		n++;
	wire_pace_end(&controller->pace, max, n);
}

static bool peer_is(int fd, uid_t uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == uid;
}

/* The one there was may have gone without our having been told yet: its successor must not be turned away for that. */
static bool has_hung_up(const struct controller *controller)
{
	struct pollfd p = {.fd = controller->fd};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
}

int soft_control_admit(struct soft_control *control, int fd)
{
	struct controller *controller = control->controller;
	int r = -EPERM;

	if (!peer_is(fd, control->options.uid))
		goto refused;
	if (controller && (controller->broken || has_hung_up(controller)))
		controller_end(controller);
	r = -EBUSY;
	if (control->controller)
		goto refused;
	controller = calloc(1, sizeof(*controller));
	r = controller ? uv_poll_init(control->loop, &controller->poll, fd) : -ENOMEM;
	if (r < 0) {
		free(controller);
		goto refused;
	}
	controller->control = control;
	controller->poll.data = controller;
	controller->fd = fd;
	frame_out_init(&controller->out);
	controller->out.secret = true;
	control->controller = controller;
	control->open_handles++;
	controller_wait(controller);
	return 0;
refused:
	close(fd);
	return r;
}

static void on_retry(uv_timer_t *timer)
{
	struct soft_control *control = timer->data;

	uv_poll_start(&control->listener, UV_READABLE, on_listener);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
	struct soft_control *control = poll->data;
	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		soft_control_admit(control, fd);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	/* Out of descriptors or memory: the connection stays in line, and asking again at once would only burn the processor. */
	uv_poll_stop(poll);
	uv_timer_start(&control->retry, on_retry, RETRY_MS, 0);
}

int soft_control_listen(struct soft_control *control, int fd)
{
	int r = uv_poll_init(control->loop, &control->listener, fd);

	if (r < 0) {
		close(fd);
		return r;
	}
	control->listen_fd = fd;
	control->listener.data = control;
	control->open_handles++;
	return uv_poll_start(&control->listener, UV_READABLE, on_listener);
}

struct soft_device *soft_control_device(struct soft_control *control)
{
	return control->device;
}

int soft_control_new(struct soft_control **ret, uv_loop_t *loop, const struct soft_control_options *options)
{
	struct soft_control *control = calloc(1, sizeof(*control));
	struct soft_device_hooks hooks = {.answer = on_answer, .event = on_event, .userdata = control};
	int r;

	if (!control)
		return -ENOMEM;
	control->loop = loop;
	control->options = *options;
	control->listen_fd = -1;
	control->buf = secret_map(BUF);
	r = control->buf ? arena_init(&control->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS) : -ENOMEM;
	if (r == 0)
		r = soft_device_new(&control->device, loop, &hooks);
	if (r < 0) {
		arena_deinit(&control->arena);
		secret_unmap(control->buf, BUF);
		free(control);
		return r;
	}
	uv_timer_init(loop, &control->retry);
	uv_prepare_init(loop, &control->turn);
	control->retry.data = control;
	control->turn.data = control;
	uv_prepare_start(&control->turn, on_turn);
	uv_unref((uv_handle_t *)&control->turn);
	*ret = control;
	return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

static void on_device_closed(void *userdata)
{
	handle_closed(userdata);
}

void soft_control_close(struct soft_control *control, void (*closed)(void *userdata), void *userdata)
{
	control->closed = closed;
	control->userdata = userdata;
	control->open_handles += 3;   /* two of its own and the device, besides listener and controllers */
	if (control->controller)
		controller_end(control->controller);
	if (control->listen_fd >= 0) {
		uv_close((uv_handle_t *)&control->listener, on_handle_closed);
		close(control->listen_fd);
	}
	uv_close((uv_handle_t *)&control->retry, on_handle_closed);
	uv_close((uv_handle_t *)&control->turn, on_handle_closed);
	soft_device_close(control->device, on_device_closed, control);
}

void soft_control_free(struct soft_control *control)
{
	if (!control)
		return;
	soft_device_free(control->device);
	arena_deinit(&control->arena);
	secret_unmap(control->buf, BUF);
	free(control);
}
