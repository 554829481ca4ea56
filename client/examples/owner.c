/* SPDX-License-Identifier: MIT */
/*
 * Owns memory: makes a buffer, registers it, exports it by a locator, and takes the access away again.
 *
 *	owner [--socket PATH] [BYTES]
 *
 * Prints the two tokens and the locator; waits for a line on its input; deregisters and prints the receipt; ends at the
 * end of its input. Its peer is peer.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nicd.h"

static int failed(struct nicd *n, const char *what)
{
	char text[512];

	nicd_error_print(nicd_last_error(n), text, sizeof(text));
	fprintf(stderr, "owner: %s: %s\n", what, text);
	return 1;
}

static struct nicd *open_session(const char *socket)
{
	struct nicd_error_info error = { .size = sizeof(error) };
	struct nicd_open_attr attr = { .size = sizeof(attr), .socket = socket, .client = "owner", .error = &error };
	struct nicd *n = NULL;
	char text[512];

	if (nicd_open(&n, &attr) < 0) {
		nicd_error_print(&error, text, sizeof(text));
		fprintf(stderr, "owner: no session with nicd: %s\n", text);
	}
	return n;
}

/* What the peer expects to find: byte i is i modulo 251. */
static void fill(struct nicd_buffer *buffer)
{
	unsigned char *p = nicd_buffer_address(buffer);

	for (size_t i = 0; i < nicd_buffer_size(buffer); i++)
		p[i] = (unsigned char)(i % 251);
}

/* What the peer leaves: the same, upside down. */
static size_t count_changed(struct nicd_buffer *buffer)
{
	const unsigned char *p = nicd_buffer_address(buffer);
	size_t changed = 0;

	for (size_t i = 0; i < nicd_buffer_size(buffer); i++)
		changed += p[i] == (unsigned char)~(i % 251);
	return changed;
}

static int wait_for_line(void)
{
	int c;

	fflush(stdout);
	while ((c = getchar()) != EOF && c != '\n')
		continue;
	return c;
}

static int serve(struct nicd *n, size_t size)
{
	struct nicd_buffer *buffer;
	struct nicd_pd *pd;
	struct nicd_mr *mr;
	struct nicd_export *export;
	struct nicd_mr_attr mr_attr = { .size = sizeof(mr_attr), .flags = NICD_MR_REMOTE_READ | NICD_MR_REMOTE_WRITE };
	struct nicd_export_attr export_attr = { .size = sizeof(export_attr), .name = "example", .uses = 10 };
	struct nicd_receipt receipt = { .size = sizeof(receipt) };

	if (nicd_buffer_new(n, size, 0, &buffer) < 0)
		return failed(n, "buffer");
	fill(buffer);
	if (nicd_pd_create(n, 0, &pd) < 0)
		return failed(n, "PD");
	mr_attr.buffer = buffer;
	if (nicd_mr_new(pd, &mr_attr, &mr) < 0)
		return failed(n, "register");
	printf("registered %zu bytes: local token 0x%08x, remote token 0x%08x\n", nicd_buffer_size(buffer), nicd_mr_local_token(mr),
	       nicd_mr_remote_token(mr));
	export_attr.flags = mr_attr.flags;
	if (nicd_export_create(mr, &export_attr, &export) < 0)
		return failed(n, "export");
	printf("locator %s\n", nicd_export_locator(export));

	if (wait_for_line() == EOF)
		return 0;
	printf("%zu bytes of my memory are now what the peer wrote\n", count_changed(buffer));
	if (nicd_mr_deregister(mr, &receipt) < 0)
		return failed(n, "deregister");
	printf("deregistered: %u export%s and %u grant%s ended, %u connection%s cut\n", receipt.n_exports,
	       receipt.n_exports == 1 ? "" : "s", receipt.grants, receipt.grants == 1 ? "" : "s", receipt.streams_cut,
	       receipt.streams_cut == 1 ? "" : "s");
	while (wait_for_line() != EOF)
		continue;
	return 0;
}

int main(int argc, char **argv)
{
	const char *socket = NULL;
	size_t size = 1 << 20;
	struct nicd *n;
	int result;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--socket") && i + 1 < argc)
			socket = argv[++i];
		else
			size = strtoull(argv[i], NULL, 0);
	}
	n = open_session(socket);
	if (!n)
		return 1;
	result = serve(n, size);
	nicd_free(n);   /* closes everything */
	return result;
}
