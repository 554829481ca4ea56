/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes memory that somebody else owns, on another host: connects to a locator of owner.c, reads all of it, checks it,
 * writes other bytes there, reads them back, and prints what both directions carried.
 *
 *	peer [--socket PATH] [--wrong-token] < LOCATOR
 *
 * Then it waits for a second line on its input and reads once more: when the owner has deregistered by then, that is
 * refused. With --wrong-token it makes one read with a token that it was not given.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nicd.h"

struct peer {
	struct nicd *n;
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	struct nicd_qp *qp;
	const struct nicd_grant *grant;
	unsigned char *bytes;
};

static int failed(struct nicd *n, const char *what)
{
	char text[512];

	nicd_error_print(nicd_last_error(n), text, sizeof(text));
	fprintf(stderr, "peer: %s: %s\n", what, text);
	return 1;
}

static struct nicd *open_session(const char *socket)
{
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = { .size = sizeof(attr), .socket = socket, .client = "peer", .error = &error };
	struct nicd *n = NULL;
	char text[512];

	if (nicd_open(&n, &attr) < 0) {
		nicd_error_print(&error, text, sizeof(text));
		fprintf(stderr, "peer: no session with nicd: %s\n", text);
	}
	return n;
}

static int prepare(struct peer *p, const char *locator)
{
	struct nicd_connect_attr connect = { .size = sizeof(connect), .locator = locator, .timeout_ms = 3000 };
	struct nicd_mr_attr attr = { .size = sizeof(attr), .flags = NICD_MR_LOCAL_WRITE };

	if (nicd_pd_create(p->n, 0, &p->pd) < 0)
		return failed(p->n, "PD");
	if (nicd_qp_connect(p->pd, &connect, &p->qp) < 0)
		return failed(p->n, "connect");
	p->grant = nicd_qp_grant(p->qp);
	if (nicd_buffer_new(p->n, p->grant->length, 0, &p->buffer) < 0)
		return failed(p->n, "buffer");
	p->bytes = nicd_buffer_address(p->buffer);
	attr.buffer = p->buffer;
	if (nicd_mr_new(p->pd, &attr, &p->mr) < 0)
		return failed(p->n, "register");
	printf("connected: %llu bytes at 0x%llx behind token 0x%08x\n", (unsigned long long)p->grant->length,
	       (unsigned long long)p->grant->iova, p->grant->remote_token);
	return 0;
}

/* Everything between here and there; the device moves at most 4 GiB - 1 at once. */
static struct nicd_transfer everything(const struct peer *p)
{
	return (struct nicd_transfer){
		.local_token = nicd_mr_local_token(p->mr),
		.local_addr = nicd_mr_iova(p->mr),
		.remote_token = p->grant->remote_token,
		.remote_addr = p->grant->iova,
		.length = (uint32_t)p->grant->length,
	};
}

static size_t wrong_bytes(const struct peer *p, unsigned char upside_down)
{
	size_t wrong = 0;

	for (size_t i = 0; i < p->grant->length; i++)
		wrong += p->bytes[i] != (unsigned char)(upside_down ^ i % 251);
	return wrong;
}

static int transfer(struct peer *p)
{
	struct nicd_transfer t = everything(p);
	struct nicd_qp_info info = { .size = sizeof(info) };

	if (nicd_qp_read(p->qp, &t, NULL) < 0)
		return failed(p->n, "read");
	printf("read %u bytes, %zu of them wrong\n", t.length, wrong_bytes(p, 0));
	if (wrong_bytes(p, 0))
		return 1;
	for (size_t i = 0; i < t.length; i++)
		p->bytes[i] = (unsigned char)~p->bytes[i];
	if (nicd_qp_write(p->qp, &t, NULL) < 0)
		return failed(p->n, "write");
	memset(p->bytes, 0, t.length);
	if (nicd_qp_read(p->qp, &t, NULL) < 0)
		return failed(p->n, "read back");
	printf("wrote %u bytes, read them back, %zu of them wrong\n", t.length, wrong_bytes(p, 0xff));
	if (wrong_bytes(p, 0xff))
		return 1;
	if (nicd_qp_query(p->qp, &info) < 0)
		return failed(p->n, "query");
	printf("my side counted %llu bytes read and %llu written\n", (unsigned long long)info.bytes_read,
	       (unsigned long long)info.bytes_written);
	return 0;
}

/* A read that must be refused. */
static int refused(struct peer *p, uint32_t token)
{
	struct nicd_transfer t = everything(p);

	t.remote_token = token;
	if (nicd_qp_read(p->qp, &t, NULL) == 0) {
		fprintf(stderr, "peer: this read should have been refused\n");
		return 1;
	}
	printf("refused: %s\n", nicd_last_error(p->n)->name);
	return 0;
}

int main(int argc, char **argv)
{
	struct peer p = { 0 };
	char locator[256], line[16];
	const char *socket = NULL;
	int wrong = 0, result;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--socket") && i + 1 < argc)
			socket = argv[++i];
		else if (!strcmp(argv[i], "--wrong-token"))
			wrong = 1;
	}
	if (!fgets(locator, sizeof(locator), stdin)) {
		fprintf(stderr, "peer: give me a locator on my input\n");
		return 2;
	}
	p.n = open_session(socket);
	if (!p.n)
		return 1;
	result = prepare(&p, locator);
	if (!result)
		result = wrong ? refused(&p, p.grant->remote_token ^ 0x5a5a5a5a) : transfer(&p);
	fflush(stdout);
	if (!result && !wrong && fgets(line, sizeof(line), stdin))
		result = refused(&p, p.grant->remote_token);
	nicd_free(p.n);   /* closes everything */
	return result;
}
