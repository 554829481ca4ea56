/* SPDX-License-Identifier: MIT */
/*
 * The memory behind a locator: a PD, a connection, and a buffer here that the peer's memory is copied to or from.
 * Nothing is closed one by one: all goes with the session.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/nicctl/nicctl.h"

enum { PEER_LOCATOR_MAX = 4096 };   /* far more than a locator is */

uint64_t nicctl_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int peer_read_locator(struct nicctl *c, const char *path, char text[PEER_LOCATOR_MAX])
{
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	size_t len = 0;
	ssize_t n = 0;
	int error;

	if (fd >= 0) {
		while (len < PEER_LOCATOR_MAX - 1 && (n = read(fd, text + len, PEER_LOCATOR_MAX - 1 - len)) > 0) {
			len += (size_t)n;
			/* A pipe whose writer holds on (nicctl export create) ends at the line. */
			if (!path && memchr(text, '\n', len))
				break;
		}
	}
	error = errno;
	text[len] = '\0';
	if (path && fd >= 0)
		close(fd);
	if (fd < 0 || n < 0)
		return nicctl_fail(c, error, NULL, "cannot read the locator from %s", path ? path : "stdin");
	/* An embedded NUL would hide what follows it. */
	if (strlen(text) != len || len == PEER_LOCATOR_MAX - 1)
		return nicctl_fail(c, EINVAL, "the file holds one line, beginning with nicd1:", "there is no locator in %s",
				   path ? path : "stdin");
	return NICCTL_OK;
}

/* The text is the caller's to wipe. */
static int peer_locator(struct nicctl *c, char *arg, char text[PEER_LOCATOR_MAX])
{
	size_t len = strlen(arg);

	if (arg[0] == '@')
		return peer_read_locator(c, arg + 1, text);
	if (strcmp(arg, "-") == 0)
		return peer_read_locator(c, NULL, text);
	if (len >= PEER_LOCATOR_MAX)
		return nicctl_usage(c, "this is no locator: it is too long");
	nicctl_notice(c, "warning: other users can see a locator that stands on the command line; "
			 "pass it as @FILE, or - for stdin");
	memcpy(text, arg, len + 1);
	/* They could until now. */
	explicit_bzero(arg, len);
	return NICCTL_OK;
}

/* The first adapter that is up, or else the first. */
static unsigned peer_adapter(struct nicctl *c)
{
	for (unsigned i = 0; i < nicd_adapter_count(c->n); i++) {
		if (nicd_adapter(c->n, i)->up)
			return i;
	}
	return 0;
}

struct peer_answer {
	bool here;
	int error;
	struct nicd_error_info info;   /* of error */
};

static void peer_answered(struct nicd *n, int error, void *userdata)
{
	struct peer_answer *answer = userdata;

	answer->here = true;
	answer->error = error;
	if (error)
		answer->info = *nicd_last_error(n);
}

/* Not the waiting call, for a signal ends this one. */
static int peer_connect(struct nicctl *c, const struct nicd_connect_attr *attr, struct nicctl_peer *peer)
{
	struct peer_answer answer = { .here = false };

	if (nicd_qp_connect_async(peer->pd, attr, &peer->qp, peer_answered, &answer) < 0)
		return nicctl_failed(c);
	while (!answer.here) {
		int n = nicctl_interrupted() ? 0 : nicd_dispatch(c->n, -1);

		if (nicctl_interrupted()) {
			nicctl_close(c);   /* which tells `answer` */
			return nicctl_fail(c, EINTR, NULL, "nothing had been copied");
		}
		if (n < 0 && n != -EINTR) {
			n = nicctl_failed(c);
			nicctl_close(c);
			return n;
		}
	}
	return answer.error ? nicctl_failed_info(c, &answer.info) : NICCTL_OK;
}

int nicctl_peer_open(struct nicctl *c, char *arg, struct nicctl_peer *peer)
{
	unsigned adapter = peer_adapter(c);
	const struct nicd_adapter_info *info = nicd_adapter(c->n, adapter);
	struct nicd_connect_attr attr = { .size = sizeof(attr) };
	char text[PEER_LOCATOR_MAX];
	int r;

	*peer = (struct nicctl_peer){ 0 };
	r = peer_locator(c, arg, text);
	if (r != NICCTL_OK)
		return r;
	attr.locator = text;
	r = nicd_pd_create(c->n, adapter, &peer->pd) < 0 ? nicctl_failed(c) : peer_connect(c, &attr, peer);
	explicit_bzero(text, sizeof(text));
	if (r != NICCTL_OK)
		return r;
	peer->grant = *nicd_qp_grant(peer->qp);
	peer->max_entries = info && info->max_transfer_entries ? info->max_transfer_entries : 1;
	peer->max_length = info && info->max_transfer_length ? info->max_transfer_length : 1 << 20;
	return NICCTL_OK;
}

int nicctl_peer_buffer(struct nicctl *c, struct nicctl_peer *peer, size_t size)
{
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_LOCAL_WRITE };

	if (nicd_buffer_new(c->n, size, 0, &peer->buffer) < 0)
		return nicctl_failed(c);
	attr.buffer = peer->buffer;
	return nicd_mr_new(peer->pd, &attr, &peer->mr) < 0 ? nicctl_failed(c) : NICCTL_OK;
}

struct nicd_transfer nicctl_peer_transfer(const struct nicctl_peer *peer, uint64_t here, uint64_t there, uint32_t length)
{
	return (struct nicd_transfer){
		.local_token = nicd_mr_local_token(peer->mr),
		.remote_token = peer->grant.remote_token,
		.local_addr = nicd_mr_iova(peer->mr) + here,
		.remote_addr = peer->grant.iova + there,
		.length = length,
	};
}
