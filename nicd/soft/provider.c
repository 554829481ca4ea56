/* SPDX-License-Identifier: MIT */
/*
 * A soft_provider owns the socket to nicd-soft and the commands in flight on it. New (Hello answered) -> up -> lost (end of socket, or
 * nicd-soft broke the protocol): every command in flight ends with DEVICE_LOST, later ones at once. Freed by nicd in either state.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nicd/soft/provider-private.h"
#include "proto/nicd.pb-c.h"
#include "proto/secret.h"

enum {
	READS = 32,           /* frames per dispatch; the caller's poll comes again */
	LOST_PER_TURN = 1024, /* commands that end in a dispatch once the device is lost */
	LOST_SLOTS = 16,      /* empty slots cost as much as one of them */
	DROPS_READ = 256,     /* ended in a dispatch, then the rest waits: with each of them goes an MR */
};

/*
 * Not the socket's fault, and over in a while: no memory, or too many descriptors of our user are in flight (rootless, of anybody's program).
 * It is tried again as if the socket were full; who would lose the device for that would lose all tokens.
 */
static bool kernel_is_short(int r)
{
	return r == -ETOOMANYREFS || r == -ENOBUFS || r == -ENOMEM;
}

void soft_provider_push(struct nic_provider *provider)
{
	struct soft_provider *p = soft_provider(provider);
	int r;

	if (p->lost)
		return;
	soft_drops_send(p);
	if (p->failed || frame_out_empty(&p->out))
		return;
	r = frame_flush(&p->out, p->sock);
	p->starved = kernel_is_short(r);
	if (r == 0 || r == -EAGAIN || p->starved)
		return;
	/* Commands do not end in here, where nobody expects it: the end of the socket now shows in dispatch. */
	p->failed = true;
	shutdown(p->sock, SHUT_RDWR);
}

/* Ends all commands; new ones that their callbacks give end at once, because the socket is gone first. */
static void lose_begin(struct soft_provider *p)
{
	p->lost = true;
	p->base.up = false;
	/* Whatever the reason, dispatch is called again for as long as it is open. */
	shutdown(p->sock, SHUT_RDWR);
	frame_out_deinit(&p->out);
	soft_drops_lose(p);
}

/* True: nothing is in flight any more. */
static bool lose_step(struct soft_provider *p, uint64_t budget)
{
	uint64_t spent = 0;

	for (; p->n_ended < p->n_slots && spent < budget; p->n_ended++)
		spent += 1 + LOST_SLOTS * (uint64_t)soft_cmds_end(soft_slot_give(p, p->n_ended + 1), NICD_R_DEVICE_LOST);
	if (p->n_ended < p->n_slots)
		return false;
	close(p->sock);
	p->sock = -1;
	return true;
}

/* false: the device is not to be talked to any more. */
static bool on_frame(struct soft_provider *p, const struct wire_packet *packet)
{
	struct nicd_error err;
	Soft__Frame *frame;
	bool good;

	frame = (Soft__Frame *)frame_decode(&soft__frame__descriptor, &p->arena, packet->data, packet->len, &err);
	good = frame && !frame->n_requests && !frame->fatal && packet->n_fds == 0;
	for (size_t i = 0; good && i < frame->n_replies; i++)
		good = soft_provider_reply(p, frame->replies[i]);
	for (size_t i = 0; good && i < frame->n_events; i++)
		soft_provider_event(p, frame->events[i]);
	arena_reset(&p->arena);
	return good;
}

/* true: there may be more. */
static bool read_frame(struct soft_provider *p, bool *lost)
{
	struct wire_packet packet;
	enum wire_result result = wire_recv(p->sock, p->buf, SOFT_PROVIDER_BUF, &packet);

	if (result == WIRE_AGAIN)
		return false;
	*lost = result != WIRE_PACKET || !on_frame(p, &packet);
	if (result == WIRE_PACKET)
		wire_release(&packet);
	return !*lost;
}

void soft_provider_dispatch(struct nic_provider *provider)
{
	struct soft_provider *p = soft_provider(provider);
	bool lost = false;
	unsigned max, n = 0;

	if (p->sock < 0)
		return;
	p->n_dropped = 0;
	max = wire_pace_begin(&p->pace, READS);
	while (!p->lost && n < max && p->n_dropped < DROPS_READ && read_frame(p, &lost))
		n++;
	wire_pace_end(&p->pace, max, n);
	if (lost)
		lose_begin(p);
	if (!p->lost)
		soft_provider_push(provider);
	else if (lose_step(p, LOST_PER_TURN * LOST_SLOTS) && p->base.events)
		p->base.events->lost(p->base.adapter);
}

int soft_provider_fd(const struct nic_provider *provider)
{
	return ((const struct soft_provider *)provider)->sock;
}

bool soft_provider_wants_write(const struct nic_provider *provider)
{
	const struct soft_provider *p = (const struct soft_provider *)provider;

	return !p->lost && !p->failed && !p->starved && (p->drops.first || !frame_out_empty(&p->out));
}

bool soft_provider_is_starved(const struct nic_provider *provider)
{
	const struct soft_provider *p = (const struct soft_provider *)provider;

	return !p->lost && !p->failed && p->starved;
}

void soft_provider_free(struct nic_provider *provider)
{
	struct soft_provider *p = soft_provider(provider);

	if (!p)
		return;
	if (!p->lost)
		lose_begin(p);
	if (p->sock >= 0)
		lose_step(p, UINT64_MAX);
	frame_out_deinit(&p->out);
	arena_deinit(&p->arena);
	secret_unmap(p->buf, SOFT_PROVIDER_BUF);
	free(p->slots);
	free(p);
}

int soft_provider_new(struct nic_provider **ret, int sock, struct nicd_error *err)
{
	struct soft_provider *p = calloc(1, sizeof(*p));
	int r;

	if (!p || !(p->buf = secret_map(SOFT_PROVIDER_BUF)) || arena_init(&p->arena, NICD_FRAME_ARENA, NICD_FRAME_ALLOCS) < 0) {
		if (p)
			secret_unmap(p->buf, SOFT_PROVIDER_BUF);
		free(p);
		close(sock);
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	}
	p->sock = sock;
	p->first_free = SOFT_NO_SLOT;
	frame_out_init(&p->out);
	p->out.secret = true;
	p->base = (struct nic_provider){
		.ops = &soft_provider_ops,
		.name = "soft0",
		.adapter_flags = NICD__ADAPTER_FLAG__RDMA_READ_SINK_NOT_REQUIRED | NICD__ADAPTER_FLAG__LOOPBACK,
		.max_registration = 1ull << 46,
		.max_transfer = UINT32_MAX,
		.max_window = 1ull << 46,
		.max_fast_pages = NICD_FAST_PAGES,
		.frmr_pages = NICD_FRMR_PAGES,
		.max_inline = NICD_INLINE,
		.up = true,
	};
	r = soft_provider_hello(p, err);
	if (r < 0) {
		soft_provider_free(&p->base);
		return r;
	}
	*ret = &p->base;
	return 0;
}
