/* SPDX-License-Identifier: MIT */
#pragma once
/* A peer made of a plain socket and bytes, for what no engine of ours would say. The loop of the engine runs while it waits. */
#include "pair.h"

#include "nicd/soft/mpa.h"
#include "nicd/soft/rdmap.h"

struct raw {
	uv_loop_t *loop;
	int fd;
	bool crc;    /* agreed by raw_open */
};

/* A connected one, nothing said yet. */
struct raw raw_connect(struct host *host);
struct raw raw_connect_from(struct host *host, const char *address);
/* One that takes no TCP segments longer than FAR_MSS, as on a network; on a listener, the same for who connects to it. */
enum { FAR_MSS = 1400 };
struct raw raw_connect_far(struct host *host);
void raw_far(struct raw *raw);
/* A listening one, for an engine to connect to. */
struct raw raw_listen(uv_loop_t *loop, struct sockaddr_storage *addr);
struct raw raw_accept(struct raw *listener);
void raw_close(struct raw *raw);

void raw_send(struct raw *raw, const void *buf, size_t len);
/* Exactly that many bytes; fails the test after 5 s or at the end of the stream. */
void raw_recv(struct raw *raw, void *buf, size_t len);
/* How many bytes come before the end, at most `max`; -1: a reset. Fails the test after `ms`. */
ssize_t raw_drain(struct raw *raw, void *buf, size_t max, unsigned ms);
/* True: nothing comes within `ms`, and the connection stands. */
bool raw_is_silent(struct raw *raw, unsigned ms);

/* Sends this request with the ticket as private data (NULL: none). */
void raw_request(struct raw *raw, const struct mpa_frame *frame, const uint8_t *ticket);
/* The reply; private data points into buf. */
struct mpa_frame raw_reply(struct raw *raw, uint8_t buf[MPA_FRAME_MAX]);
/* Request and reply of revision 2, IRD and ORD 4, CRC if the engine wants it; then an empty write, so that the stream is open. */
void raw_open(struct raw *raw, struct host *host, const uint8_t *ticket);

/* One FPDU: header, then payload, pad and CRC. */
void raw_fpdu(struct raw *raw, const struct rdmap_header *header, const void *payload, size_t len);
void raw_write(struct raw *raw, uint32_t stag, uint64_t to, bool last, const void *payload, size_t len);
void raw_read(struct raw *raw, uint32_t msn, const struct rdmap_read *read);
/* The next FPDU: its header, and its payload in buf. */
size_t raw_frame(struct raw *raw, struct rdmap_header *header, uint8_t buf[FPDU_MAX]);
/* Takes the frames of one tagged message of `size` bytes; the longest payload. */
size_t raw_longest(struct raw *raw, enum rdmap_opcode opcode, size_t size);
/* The next FPDU must be a Terminate with this code; then the end of the stream. */
struct rdmap_terminate raw_expect_terminate(struct raw *raw, enum rdmap_code code);
