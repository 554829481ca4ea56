/* SPDX-License-Identifier: MIT */
/*
 * nicd_open and nicd_free, and what Hello tells: the session and the adapters. A session that could not be opened is never
 * seen by the caller; why is copied into the attribute's error.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "client/api.h"
#include "client/attr.h"

enum { OPEN_TIMEOUT_MS = 10000 };

#define SYSTEM_SOCKET "/run/nicd/nicd.sock"

/* -------------------------------------------------------------------------------------------------------- where nicd is */

/* The fallback of a rootless nicd lies where everybody can write: only a directory that is ours alone will do. */
static bool path_is_ours(const char *directory, const char *path)
{
	struct stat st;

	if (lstat(directory, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return false;
	return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == geteuid();
}

static bool path_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* The path of the socket for ordinary clients. Returns its length; one that is too long for a socket is not cut silently. */
static int path_default(char *path, size_t size)
{
	const char *env = secure_getenv("NICD_SOCKET");
	char directory[64];
	int len;

	if (env && env[0])
		return snprintf(path, size, "%s", env);
	env = secure_getenv("XDG_RUNTIME_DIR");
	if (env && env[0]) {
		len = snprintf(path, size, "%s/nicd/nicd.sock", env);
		if ((size_t)len < size && path_exists(path))
			return len;
	}
	snprintf(directory, sizeof(directory), "/tmp/nicd-%u", (unsigned)geteuid());
	len = snprintf(path, size, "%s/nicd.sock", directory);
	if (path_is_ours(directory, path))
		return len;
	return snprintf(path, size, "%s", SYSTEM_SOCKET);
}

/* "/run/nicd/nicd.sock" → "/run/nicd/admin.sock" */
static int path_admin(char *path, size_t size)
{
	char *slash = strrchr(path, '/');
	size_t at = slash ? (size_t)(slash - path) + 1 : 0;

	return (int)at + snprintf(path + at, size - at, "admin.sock");
}

static int open_path(const struct nicd_open_attr *attr, struct sockaddr_un *addr, struct nicd_error_info *error)
{
	size_t size = sizeof(addr->sun_path);
	int len = attr->socket ? snprintf(addr->sun_path, size, "%s", attr->socket) : path_default(addr->sun_path, size);

	if (len > 0 && (size_t)len < size && (attr->flags & NICD_OPEN_ADMIN))
		len = path_admin(addr->sun_path, size);
	if (len <= 0 || (size_t)len >= size)
		return error_system(error, len <= 0 ? EINVAL : ENAMETOOLONG, "the path of nicd's socket",
				    "name a socket with a path of 1 to 107 bytes");
	return 0;
}

/* ----------------------------------------------------------------------------------------------------------- connecting */

/* Nobody answers at the path, or not to us. */
static int open_refused(struct nicd *n, const struct nicd_open_attr *attr, const char *path, int err)
{
	const char *env = secure_getenv("NICD_SOCKET");
	char what[200];

	if (err == EACCES || err == EPERM)
		return conn_fail_system(n, err, path, "join the group that may use the socket (`ls -l` shows it), or start one's own: "
						      "`nicd --rootless`");
	/* The last one of those that path_default knows. */
	if (!attr->socket && !(env && env[0]) && strncmp(path, "/run/nicd/", 10) == 0)
		snprintf(what, sizeof(what), "%s (nor in $XDG_RUNTIME_DIR/nicd, nor in /tmp/nicd-%u)", path, (unsigned)geteuid());
	else
		snprintf(what, sizeof(what), "%s", path);
	return conn_fail_system(n, err, what, "start nicd: `systemctl start nicd.socket`, or `nicd --rootless` without root; "
					      "or name the socket of one that runs with $NICD_SOCKET");
}

static int open_connect(struct nicd *n, const struct nicd_open_attr *attr)
{
	struct timeval timeout = { .tv_sec = attr->timeout_ms / 1000, .tv_usec = attr->timeout_ms % 1000 * 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int r = open_path(attr, &addr, &n->error);

	if (r < 0)
		return r;
	n->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (n->fd < 0)
		return conn_fail_system(n, errno, "socket", "");
	/* connect() waits while nicd's backlog is full. */
	setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	do
		r = connect(n->fd, (struct sockaddr *)&addr, sizeof(addr));
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		return conn_fail(n, ERROR_GREETING_TIMEOUT, 0, 0);
	if (r < 0)
		return open_refused(n, attr, addr.sun_path, errno);
	return 0;
}

/* The caller's socket. */
static int open_take(struct nicd *n, int fd)
{
	socklen_t len = sizeof(int);
	int type = 0;

	n->fd = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return conn_fail_system(n, errno, "nicd_open_attr.fd", "pass a connected socket");
	if (type != SOCK_SEQPACKET)
		return conn_fail_system(n, EPROTOTYPE, "nicd_open_attr.fd", "pass a socket of type SOCK_SEQPACKET");
	return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- Hello */

/* Replaces the adapter's facts. false: no memory, and the old ones stay. */
static bool adapter_take(struct adapter *adapter, const Nicd__AdapterInfo *from)
{
	char *name = strdup(from->name), *provider = strdup(from->provider), *address = strdup(from->data_address);

	if (!name || !provider || !address) {
		free(name);
		free(provider);
		free(address);
		return false;
	}
	free((char *)adapter->info.name);
	free((char *)adapter->info.provider);
	free((char *)adapter->info.data_address);
	adapter->id = from->id;
	adapter->info = (struct nicd_adapter_info){
		.size = sizeof(adapter->info),
		.up = from->up,
		.name = name,
		.provider = provider,
		.data_address = address,
		.serial = from->serial,
		.incarnation = from->incarnation,
		.flags = from->flags,
		.frmr_page_count = from->frmr_page_count,
		.max_registration_size = from->max_registration_size,
		.max_window_size = from->max_window_size,
		.max_transfer_length = from->max_transfer_length,
		.max_pinned_bytes = from->max_pinned_bytes,
		.max_mr = from->max_mr,
		.max_mw = from->max_mw,
		.max_pd = from->max_pd,
		.max_qp = from->max_qp,
		.max_ranges = from->max_ranges,
		.max_transfer_entries = from->max_transfer_entries,
		.max_inbound_read = from->max_inbound_read,
		.max_outbound_read = from->max_outbound_read,
		.max_mappings = from->max_mappings,
		.max_inline = from->max_inline,
		.max_fast_pages = from->max_fast_pages,
		.privileged_token = from->privileged_token,
		.device_max_mr = from->device_max_mr,
		.device_max_mw = from->device_max_mw,
		.device_max_pd = from->device_max_pd,
		.device_max_qp = from->device_max_qp,
		.device_max_pinned_bytes = from->device_max_pinned_bytes,
	};
	return true;
}

static void bytes_take(uint8_t *to, size_t size, const ProtobufCBinaryData *from)
{
	if (from->len == size)
		memcpy(to, from->data, size);
}

static int hello_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct nicd *n = call->n;
	const Nicd__HelloReply *hello;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_HELLO)
		return -EPROTO;
	hello = reply->hello;
	n->session = (struct nicd_session_info){
		.size = sizeof(n->session),
		.major = hello->major,
		.minor = hello->minor,
		.role = (uint32_t)hello->role,
		.serial = hello->session,
		.daemon = strdup(hello->daemon),
		.account = strdup(hello->account),
	};
	bytes_take(n->session.boot_id, sizeof(n->session.boot_id), &hello->boot_id);
	bytes_take(n->session.resume_secret, sizeof(n->session.resume_secret), &hello->resume_secret);
	n->adapters = calloc(hello->n_adapters + 1, sizeof(*n->adapters));
	if (!n->session.daemon || !n->session.account || !n->adapters)
		return -ENOMEM;
	for (; n->n_adapters < hello->n_adapters; n->n_adapters++)
		if (!adapter_take(&n->adapters[n->n_adapters], hello->adapters[n->n_adapters]))
			return -ENOMEM;
	return 0;
}

/* The program's name, of which only what every name may hold. */
static void hello_label(char *label, size_t size)
{
	size_t at = 0;

	for (const char *p = program_invocation_short_name; *p && at + 1 < size; p++)
		label[at++] = *p > ' ' && *p < 0x7f && *p != '/' ? *p : '_';
	label[at] = '\0';
}

static int open_hello(struct nicd *n, const struct nicd_open_attr *attr)
{
	Nicd__Hello hello = NICD__HELLO__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	char label[NICD_STRING + 1];
	struct call *call;
	int r;

	hello_label(label, sizeof(label));
	hello.major = NICD_MAJOR;
	hello.min_minor = NICD_MINOR;
	hello.client = attr->client ? (char *)attr->client : label;
	request.call_case = NICD__REQUEST__CALL_HELLO;
	request.hello = &hello;
	r = call_new(&call, n, NULL, hello_finish);
	if (r >= 0)
		r = call_submit(call, &request, NULL, 0);
	if (r < 0)
		return r;
	if (conn_wait(n, call, (int)attr->timeout_ms) < 0) {
		/* It is in the table of calls, and goes with the session. */
		return conn_fail(n, ERROR_GREETING_TIMEOUT, 0, 0);
	}
	r = call_wait(call);
	if (r == -ENOMEM && !n->error.reason)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	/* Whoever ends the connection at once, or talks nonsense, is not nicd. */
	if (r == -ECONNRESET && n->lost && !n->loss.reason)
		return conn_fail(n, ERROR_NOT_NICD, 0, 0);
	return r;
}

static int open_session(struct nicd *n, struct nicd_open_attr *attr)
{
	int r;

	n->log = attr->log;
	n->log_userdata = attr->log_userdata;
	if (!attr->timeout_ms)
		attr->timeout_ms = OPEN_TIMEOUT_MS;
	r = attr->flags & NICD_OPEN_FD ? open_take(n, attr->fd) : open_connect(n, attr);
	return r < 0 ? r : open_hello(n, attr);
}

/* What a failed open leaves: the reason in the caller's struct, and the caller's socket closed. */
static int open_failed(const struct nicd_open_attr *attr, bool taken, const struct nicd_error_info *error)
{
	if (!taken && (attr->flags & NICD_OPEN_FD) && attr->fd >= 0)
		close(attr->fd);
	if (attr->error && attr->error->size >= sizeof(*attr->error))
		attr_put(attr->error, error, sizeof(*error));
	return error->error;
}

NICD_API int nicd_open(struct nicd **ret, const struct nicd_open_attr *user_attr)
{
	struct nicd_error_info error = { 0 };
	struct nicd_open_attr attr;
	struct nicd *n;
	int r = attr_get(&error, &attr, sizeof(attr), sizeof(attr), user_attr);

	/* A struct of the wrong size is not believed: not even that it holds a socket or a place for the error. */
	if (r < 0)
		return r;
	if (!ret || (attr.flags & ~(uint32_t)(NICD_OPEN_ADMIN | NICD_OPEN_FD)) || attr.timeout_ms > INT32_MAX) {
		error_local(&error, ERROR_ARGUMENT, 0, 0);
		return open_failed(&attr, false, &error);
	}
	r = conn_new(&n);
	if (r < 0) {
		error_system(&error, -r, "the session's memory", "release memory");
		return open_failed(&attr, false, &error);
	}
	r = open_session(n, &attr);
	if (r < 0) {
		error = n->error;
		/* The error that is returned is the one that is told. */
		error.error = r;
		conn_free(n);
		return open_failed(&attr, true, &error);
	}
	*ret = n;
	return 0;
}

NICD_API void nicd_free(struct nicd *n)
{
	struct nicd_error_info why;
	bool nested;

	if (!n || n->freeing)
		return;
	if (conn_forked(n)) {
		conn_free(n);
		return;
	}
	nested = n->calling;
	n->freeing = true;
	n->calling = true;
	error_local(&why, ERROR_SESSION_CLOSED, 0, 0);
	conn_lose(n, &why);
	while (n->n_ready > 0)
		call_deliver(TAILQ_FIRST(&n->ready));
	/* Inside a callback nicd_dispatch frees it when that has returned. */
	if (!nested)
		conn_free(n);
}

/* -------------------------------------------------------------------------------------------------------- what is known */

NICD_API const struct nicd_session_info *nicd_session(struct nicd *n)
{
	return &n->session;
}

NICD_API const struct nicd_error_info *nicd_last_error(struct nicd *n)
{
	return &n->error;
}

NICD_API void nicd_set_event_callback(struct nicd *n, nicd_event_callback cb, void *userdata)
{
	n->event = cb;
	n->event_userdata = userdata;
}

NICD_API unsigned nicd_adapter_count(struct nicd *n)
{
	return n->n_adapters;
}

NICD_API const struct nicd_adapter_info *nicd_adapter(struct nicd *n, unsigned index)
{
	return index < n->n_adapters ? &n->adapters[index].info : NULL;
}

static int adapter_query_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_ADAPTER)
		return -EPROTO;
	return adapter_take(call->ret, reply->adapter) ? 0 : -ENOMEM;
}

static int adapter_query_start(struct nicd *n, unsigned index, struct call **call)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__QueryAdapter body = NICD__QUERY_ADAPTER__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	int r = conn_check(n);

	if (r >= 0 && index >= n->n_adapters)
		r = conn_refuse(n, NICD_R_NO_ADAPTER, n->n_adapters, index);
	if (r >= 0)
		r = call_new(call, n, NULL, adapter_query_finish);
	if (r < 0)
		return r;
	(*call)->ret = &n->adapters[index];
	ref.of_case = NICD__REF__OF_ID;
	ref.id = n->adapters[index].id;
	body.adapter = &ref;
	request.call_case = NICD__REQUEST__CALL_QUERY_ADAPTER;
	request.query_adapter = &body;
	return call_submit(*call, &request, NULL, 0);
}

CALL_TWINS(nicd_adapter_query, (struct nicd *n, unsigned index), adapter_query_start(n, index, &call))
