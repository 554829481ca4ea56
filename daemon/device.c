/* SPDX-License-Identifier: MIT */
/*
 * struct device is embedded in the daemon. The provider belongs to the NIC layer's adapter as soon as there is one; this file polls its
 * socket and tells it when there is something to read.
 *
 * Opening means waiting for an answer: connecting, checking whose process listens, Hello. While clients are served it is done on a
 * worker. A device that is lost is looked for again with growing patience.
 */
#include "daemon/device.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/util.h"
#include "nicd/soft/provider.h"

enum { RETRY_MIN_MS = 100, RETRY_MAX_MS = 5000 };

/* Lives while a worker has it. */
struct device_opening {
	uv_work_t work;
	struct device *device;      /* not looked at by the worker */
	int fd;                     /* connected already, or -1 */
	uid_t uid;                  /* who must listen there */
	char path[OPTIONS_PATH];
	bool spawned;
	struct nic_provider *provider;
	char message[512];
};

static void device_retry(struct device *device, const char *why);

/* ---- on the worker */

static int opening_connect(struct device_opening *opening)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(addr.sun_path, opening->path);
	opening->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (opening->fd >= 0 && !connect(opening->fd, (struct sockaddr *)&addr, sizeof(addr)))
		return 0;
	snprintf(opening->message, sizeof(opening->message),
		 "nicd-soft does not answer at %s: %s; start nicd-soft, or use --rootless, or name its socket with --soft-socket",
		 opening->path, strerror(errno));
	return -1;
}

/* Whoever listens there is told all memory of all clients. With a socket of the service manager that is root. */
static int opening_check_peer(struct device_opening *opening)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (!getsockopt(opening->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) && (cred.uid == opening->uid || cred.uid == 0))
		return 0;
	snprintf(opening->message, sizeof(opening->message),
		 "who listens at %s is uid %u, not %u; find out who that is, or name it with --soft-uid", opening->path, cred.uid,
		 opening->uid);
	return -1;
}

static void opening_run(uv_work_t *work)
{
	struct device_opening *opening = container_of(work, struct device_opening, work);
	struct nicd_error error = { 0 };
	int fd;

	if ((opening->fd < 0 && opening_connect(opening)) || opening_check_peer(opening)) {
		opening->fd = fd_close(opening->fd);
		return;
	}
	fd = fd_steal(&opening->fd);
	if (soft_provider_new(&opening->provider, fd, &error) < 0) {
		const struct nicd_reason_info *info = nicd_reason_info(error.reason);

		opening->provider = NULL;
		/* One that we started ourselves and that has ended has said why. */
		if (opening->spawned && error.reason == NICD_R_DEVICE_LOST)
			snprintf(opening->message, sizeof(opening->message),
				 "nicd-soft could not start; its own line above says why. If its address is in use, name another with "
				 "--data-listen ADDR:PORT; 127.0.0.2:%u keeps the default port and so needs no --allow-connect",
				 NICD_DATA_PORT);
		else
			snprintf(opening->message, sizeof(opening->message), "nicd-soft did not say Hello: %s; %s", info->text,
				 info->cure);
	}
}

/* ---- up */

static void on_retry(uv_timer_t *timer);

static void on_device(uv_poll_t *poll, int status, int events)
{
	struct device *device = poll->data;

	/* An error stops the polling; reading finds out what it is. */
	if (status < 0)
		device->events = 0;
	soft_provider_dispatch(device->soft);
	device_turn(device);
}

static void on_poll_closed(uv_handle_t *handle)
{
	struct device *device = handle->data;

	device->open_handles--;
	free(handle);
	device->changed(device);
}

static int device_watch(struct device *device)
{
	int r;

	device->poll = malloc(sizeof(*device->poll));
	if (!device->poll)
		return -ENOMEM;
	r = uv_poll_init(device->loop, device->poll, soft_provider_fd(device->soft));
	if (r < 0) {
		free(device->poll);
		device->poll = NULL;
		return r;
	}
	device->poll->data = device;
	device->open_handles++;
	device->events = 0;
	return 0;
}

static void device_unwatch(struct device *device)
{
	if (!device->poll)
		return;
	uv_close((uv_handle_t *)device->poll, on_poll_closed);
	device->poll = NULL;
}

/* Adapters of earlier times, as far as nothing of them is left. */
static void forget_lost(struct device *device)
{
	struct nic_object *object, *next;

	for (object = TAILQ_FIRST(&device->nic->adapters); object; object = next) {
		struct nic_adapter *adapter = (struct nic_adapter *)object;

		next = TAILQ_NEXT(object, of_owner);
		if (!adapter->provider->up && !nic_adapter_used(adapter))
			nic_adapter_free(adapter);
	}
}

static void device_up(struct device *device, struct nic_provider *soft)
{
	struct nic_provider *provider = soft;
	struct nicd_error error;

	device->soft = soft;
	forget_lost(device);
	if (device->options->fault[0] &&
	    fault_wrap(&device->fault, &provider, device->options->fault, device->message, sizeof(device->message)) < 0) {
		soft->ops->free(soft);
		device_retry(device, device->message);
		return;
	}
	if (device_watch(device) < 0) {
		provider->ops->free(provider);
		device_retry(device, "out of memory");
		return;
	}
	if (nic_adapter_new(&device->adapter, device->nic, provider) < 0) {
		device_unwatch(device);
		device_retry(device, nicd_reason_info(nicd_refuse(&error, NICD_R_NO_MEMORY) ? error.reason : 0)->text);
		return;
	}
	device->state = DEVICE_UP;
	device->failures = 0;
	device_turn(device);
	device->changed(device);
}

/* The adapter has told everybody; it stays with the NIC layer, down. */
static void device_lost(struct device *device)
{
	device_unwatch(device);
	device->adapter = NULL;
	device->soft = NULL;
	if (device->state == DEVICE_UP) {
		device->state = DEVICE_WAITING;
		device_retry(device, "the device is lost; all its tokens are dead");
	}
}

void device_turn(struct device *device)
{
	int events;

	if (!device->poll)
		return;
	if (soft_provider_fd(device->soft) < 0) {
		device_lost(device);
		return;
	}
	if (soft_provider_is_starved(device->soft) && !uv_is_active((uv_handle_t *)&device->retry))
		uv_timer_start(&device->retry, on_retry, SOFT_PROVIDER_STARVED_MS, 0);
	events = UV_READABLE | (soft_provider_wants_write(device->soft) ? UV_WRITABLE : 0);
	if (events != device->events && !uv_poll_start(device->poll, events, on_device))
		device->events = events;
}

void device_describe(const struct device *device, char *text, size_t size)
{
	const struct nic_provider *provider = device->adapter ? device->adapter->provider : NULL;
	char host[INET6_ADDRSTRLEN] = "";

	if (!provider) {
		snprintf(text, size, "none");
		return;
	}
	if (provider->data_addr.ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)&provider->data_addr;

		snprintf(text, size, "%s data %s:%u", provider->name, inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)),
			 ntohs(in->sin_port));
	} else if (provider->data_addr.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)&provider->data_addr;

		snprintf(text, size, "%s data [%s]:%u", provider->name, inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)),
			 ntohs(in6->sin6_port));
	} else {
		snprintf(text, size, "%s without a data address", provider->name);
	}
}

/* ---- opening */

static void opening_done(uv_work_t *work, int status)
{
	struct device_opening *opening = container_of(work, struct device_opening, work);
	struct device *device = opening->device;

	device->opening = NULL;
	if (device->state != DEVICE_OPENING) {
		if (opening->provider)
			opening->provider->ops->free(opening->provider);
		device->changed(device);
	} else if (opening->provider) {
		device_up(device, opening->provider);
	} else {
		device_retry(device, opening->message);
	}
	fd_close(opening->fd);
	free(opening);
}

/* In rootless mode the child is made here, on the loop's own thread, and connected to already. */
static int opening_prepare(struct device *device, struct device_opening *opening)
{
	opening->fd = -1;
	snprintf(opening->message, sizeof(opening->message), "nicd-soft cannot be asked: no thread to do it");
	opening->device = device;
	opening->uid = device->options->soft_uid;
	if (!device->options->rootless) {
		strcpy(opening->path, device->options->soft_socket);
		return 0;
	}
	opening->spawned = true;
	opening->fd = softproc_start(&device->softproc, opening->message, sizeof(opening->message));
	return opening->fd < 0 ? -1 : 0;
}

static void device_open(struct device *device, bool wait)
{
	struct device_opening *opening = calloc(1, sizeof(*opening));

	device->state = DEVICE_OPENING;
	if (!opening) {
		device_retry(device, "out of memory");
		return;
	}
	if (opening_prepare(device, opening) < 0) {
		device_retry(device, opening->message);
		free(opening);
		return;
	}
	device->opening = opening;
	if (wait)
		opening_run(&opening->work);
	if (wait || uv_queue_work(device->loop, &opening->work, opening_run, opening_done) < 0)
		opening_done(&opening->work, 0);
}

static void on_retry(uv_timer_t *timer)
{
	struct device *device = container_of(timer, struct device, retry);

	/* The old child must be gone: its end is told, and then this is called again. */
	if (device->state == DEVICE_WAITING && !device->softproc.pid)
		device_open(device, false);
	if (device->poll) {   /* it was starved */
		device->soft->ops->push(device->soft);
		device_turn(device);
	}
}

/* Said once, not with each attempt. */
static void device_retry(struct device *device, const char *why)
{
	unsigned delay = RETRY_MIN_MS << (device->failures < 6 ? device->failures : 6);

	if (device->state == DEVICE_STOPPED)
		return;
	device->state = DEVICE_WAITING;
	if (why != device->message)
		snprintf(device->message, sizeof(device->message), "%s", why);
	if (!device->failures++)
		log_write(LOG_ERR, "%s", device->message);
	if (device->softproc.pid)
		softproc_stop(&device->softproc);
	uv_timer_start(&device->retry, on_retry, delay < RETRY_MAX_MS ? delay : RETRY_MAX_MS, 0);
	device->changed(device);
}

static void on_child_ended(struct softproc *softproc, const char *how)
{
	struct device *device = container_of(softproc, struct device, softproc);

	if (device->state == DEVICE_STOPPED) {
		device->changed(device);
		return;
	}
	log_write(LOG_ERR, "nicd-soft ended: %s", how);
	/* Its socket tells the rest; a retry that came too early is made up for. */
	if (device->state == DEVICE_WAITING && !uv_is_active((uv_handle_t *)&device->retry))
		uv_timer_start(&device->retry, on_retry, RETRY_MIN_MS, 0);
}

/* ---- from the daemon */

int device_init(struct device *device, uv_loop_t *loop, struct nic *nic, const struct options *options)
{
	device->loop = loop;
	device->nic = nic;
	device->options = options;
	device->state = DEVICE_OFF;
	uv_timer_init(loop, &device->retry);
	fault_init(&device->fault, loop);
	device->open_handles = 1;
	device->softproc.ended = on_child_ended;
	return softproc_init(&device->softproc, loop, options);
}

/* Nobody is served yet, so nobody waits with us; and no worker is started that an idle nicd would keep. */
void device_start(struct device *device)
{
	device_open(device, true);
}

void device_stop(struct device *device)
{
	device->state = DEVICE_STOPPED;
	uv_timer_stop(&device->retry);
	device_cut(device);
	softproc_stop(&device->softproc);
	device->changed(device);
}

bool device_stopped(const struct device *device)
{
	return device->state == DEVICE_STOPPED && !device->softproc.pid && !device->opening && !device->poll;
}

void device_cut(struct device *device)
{
	if (device->poll)
		shutdown(soft_provider_fd(device->soft), SHUT_RDWR);
}

static void on_retry_closed(uv_handle_t *handle)
{
	((struct device *)handle->data)->open_handles--;
}

void device_close(struct device *device)
{
	device->retry.data = device;
	uv_close((uv_handle_t *)&device->retry, on_retry_closed);
	fault_deinit(&device->fault);
	softproc_close(&device->softproc);
}

bool device_closed(const struct device *device)
{
	return !device->open_handles && !device->softproc.open_handles;
}
