/* SPDX-License-Identifier: MIT */
/*
 * A peer that is nobody's but librdmacm's: one connection, as client or as server, told what to do line by line.
 *
 *	verbs-peer FILE
 *
 * FILE is mapped and registered whole, so whoever gives the commands fills and checks the bytes. Each line on the input
 * gets one line on the output; the first word of an answer tells what happened, "error STEP ERRNO" that a call failed.
 * Numbers are decimal, private data is hex or "-". Knows nothing of nicd.
 *
 *	connect HOST PORT IRD ORD DATA    established IRD ORD DATA | rejected STATUS DATA | EVENT STATUS
 *	listen HOST                       listening PORT
 *	request MS                        request IRD ORD DATA
 *	accept IRD ORD DATA               established IRD ORD DATA | EVENT STATUS
 *	reject DATA                       ok
 *	region                            region RKEY ADDRESS LENGTH   (after connect or request)
 *	post KIND ID AT LENGTH RKEY TO    ok       KIND: read, write, send, invalidate (RKEY), receive
 *	wait COUNT MS                     completions ID:STATUS:BYTES...   (fewer when the time is over)
 *	event MS                          event NAME STATUS | event none 0
 *	bench KIND LENGTH DEPTH COUNT RKEY TO    bench NANOSECONDS
 *	disconnect                        ok
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 512, DATA_MAX = 512, RESOLVE_MS = 15000, ESTABLISH_MS = 30000, WORDS = 8 };

struct peer {
	void *memory;
	size_t size;
	struct rdma_event_channel *channel;
	struct rdma_cm_id *listener, *id;
	struct ibv_mr *mr;
};

struct event {
	enum rdma_cm_event_type type;
	int status;
	struct rdma_cm_id *id;
	struct rdma_conn_param conn;
	uint8_t data[DATA_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void failed(const char *step)
{
	printf("error %s %d\n", step, errno);
}

/* ---- private data */

static uint8_t hex_digit(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
}

static uint8_t data_parse(const char *text, uint8_t *data)
{
	size_t n = strcmp(text, "-") ? strlen(text) / 2 : 0;

	for (size_t i = 0; i < n && i < DATA_MAX; i++)
		data[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return (uint8_t)n;
}

static void data_print(const struct event *event)
{
	putchar(' ');
	if (!event->conn.private_data_len)
		putchar('-');
	for (unsigned i = 0; i < event->conn.private_data_len; i++)
		printf("%02x", event->data[i]);
	putchar('\n');
}

/* ---- events */

/* False: none came in time. */
static bool event_wait(struct peer *peer, int ms, struct event *ret)
{
	struct pollfd pollfd = { .fd = peer->channel->fd, .events = POLLIN };
	struct rdma_cm_event *event;

	if (poll(&pollfd, 1, ms) != 1 || rdma_get_cm_event(peer->channel, &event) < 0)
		return false;
	*ret = (struct event){ .type = event->event, .status = event->status, .id = event->id, .conn = event->param.conn };
	if (ret->conn.private_data && ret->conn.private_data_len)
		memcpy(ret->data, ret->conn.private_data, ret->conn.private_data_len);
	else
		ret->conn.private_data_len = 0;
	rdma_ack_cm_event(event);
	return true;
}

static bool event_expect(struct peer *peer, enum rdma_cm_event_type type, int ms, struct event *ret)
{
	if (!event_wait(peer, ms, ret)) {
		errno = ETIMEDOUT;
		failed(rdma_event_str(type));
		return false;
	}
	if (ret->type == type)
		return true;
	printf("%s %d", ret->type == RDMA_CM_EVENT_REJECTED ? "rejected" : rdma_event_str(ret->type), ret->status);
	data_print(ret);
	return false;
}

/* The answer to connect and accept. */
static void established(struct peer *peer)
{
	struct event event;

	if (!event_expect(peer, RDMA_CM_EVENT_ESTABLISHED, ESTABLISH_MS, &event))
		return;
	printf("established %u %u", event.conn.responder_resources, event.conn.initiator_depth);
	data_print(&event);
}

/* ---- a connection */

static bool endpoint_make(struct peer *peer)
{
	struct ibv_qp_init_attr attr = {
		.cap = { .max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC, .sq_sig_all = 1,
	};

	attr.send_cq = attr.recv_cq = ibv_create_cq(peer->id->verbs, 2 * DEPTH, NULL, NULL, 0);
	if (!attr.send_cq || rdma_create_qp(peer->id, NULL, &attr) < 0) {
		failed("rdma_create_qp");
		return false;
	}
	peer->mr = ibv_reg_mr(peer->id->pd, peer->memory, peer->size,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
	if (!peer->mr)
		failed("ibv_reg_mr");
	return peer->mr;
}

static struct rdma_conn_param conn_param(char **word, uint8_t *data)
{
	return (struct rdma_conn_param){
		.responder_resources = (uint8_t)atoi(word[0]), .initiator_depth = (uint8_t)atoi(word[1]),
		.private_data_len = data_parse(word[2], data), .private_data = data,
	};
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	inet_pton(AF_INET, host, &addr.sin_addr);
	return addr;
}

static void do_connect(struct peer *peer, char **word)
{
	struct sockaddr_in addr = address(word[0], word[1]);
	uint8_t data[DATA_MAX];
	struct rdma_conn_param conn = conn_param(word + 2, data);
	struct event event;

	if (rdma_create_id(peer->channel, &peer->id, NULL, RDMA_PS_TCP) < 0 ||
	    rdma_resolve_addr(peer->id, NULL, (struct sockaddr *)&addr, RESOLVE_MS) < 0) {
		failed("rdma_resolve_addr");
		return;
	}
	if (!event_expect(peer, RDMA_CM_EVENT_ADDR_RESOLVED, RESOLVE_MS, &event))
		return;
	if (rdma_resolve_route(peer->id, RESOLVE_MS) < 0) {
		failed("rdma_resolve_route");
		return;
	}
	if (!event_expect(peer, RDMA_CM_EVENT_ROUTE_RESOLVED, RESOLVE_MS, &event) || !endpoint_make(peer))
		return;
	if (rdma_connect(peer->id, &conn) < 0)
		failed("rdma_connect");
	else
		established(peer);
}

static void do_listen(struct peer *peer, char **word)
{
	struct sockaddr_in addr = address(word[0], "0");

	if (rdma_create_id(peer->channel, &peer->listener, NULL, RDMA_PS_TCP) < 0 ||
	    rdma_bind_addr(peer->listener, (struct sockaddr *)&addr) < 0 || rdma_listen(peer->listener, 4) < 0)
		failed("rdma_listen");
	else
		printf("listening %u\n", ntohs(rdma_get_src_port(peer->listener)));
}

static void do_request(struct peer *peer, char **word)
{
	struct event event;

	if (!event_expect(peer, RDMA_CM_EVENT_CONNECT_REQUEST, atoi(word[0]), &event))
		return;
	peer->id = event.id;
	if (!endpoint_make(peer))
		return;
	printf("request %u %u", event.conn.responder_resources, event.conn.initiator_depth);
	data_print(&event);
}

static void do_accept(struct peer *peer, char **word)
{
	uint8_t data[DATA_MAX];
	struct rdma_conn_param conn = conn_param(word, data);

	if (rdma_accept(peer->id, &conn) < 0)
		failed("rdma_accept");
	else
		established(peer);
}

static void do_reject(struct peer *peer, char **word)
{
	uint8_t data[DATA_MAX];
	uint8_t n = data_parse(word[0], data);

	if (rdma_reject(peer->id, data, n) < 0)
		failed("rdma_reject");
	else
		puts("ok");
}

static void do_region(struct peer *peer, char **word)
{
	(void)word;
	printf("region %u %" PRIu64 " %zu\n", peer->mr->rkey, (uint64_t)(uintptr_t)peer->memory, peer->size);
}

static void do_event(struct peer *peer, char **word)
{
	struct event event;

	if (event_wait(peer, atoi(word[0]), &event))
		printf("event %s %d\n", rdma_event_str(event.type), event.status);
	else
		puts("event none 0");
}

static void do_disconnect(struct peer *peer, char **word)
{
	(void)word;
	if (rdma_disconnect(peer->id) < 0)
		failed("rdma_disconnect");
	else
		puts("ok");
}

/* ---- work */

static const struct kind {
	const char *name;
	enum ibv_wr_opcode opcode;
} kinds[] = {
	{ "read", IBV_WR_RDMA_READ }, { "write", IBV_WR_RDMA_WRITE }, { "send", IBV_WR_SEND }, { "invalidate", IBV_WR_SEND_WITH_INV },
};

struct transfer {
	const char *kind;
	uint64_t id, at;
	uint32_t length, rkey;
	uint64_t to;
};

/* What ibv_post_send returns: 0, or an errno. */
static int post(struct peer *peer, const struct transfer *t)
{
	struct ibv_sge sge = { .addr = (uintptr_t)peer->memory + t->at, .length = t->length, .lkey = peer->mr->lkey };
	struct ibv_send_wr wr = { .wr_id = t->id, .sg_list = &sge, .num_sge = t->length != 0 }, *bad;
	struct ibv_recv_wr receive = { .wr_id = t->id, .sg_list = &sge, .num_sge = 1 }, *bad_receive;

	if (!strcmp(t->kind, "receive"))
		return ibv_post_recv(peer->id->qp, &receive, &bad_receive);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(t->kind, kinds[i].name))
			continue;
		wr.opcode = kinds[i].opcode;
		if (wr.opcode == IBV_WR_SEND_WITH_INV) {
			wr.invalidate_rkey = t->rkey;
		} else {
			wr.wr.rdma.rkey = t->rkey;
			wr.wr.rdma.remote_addr = t->to;
		}
		return ibv_post_send(peer->id->qp, &wr, &bad);
	}
	return EINVAL;
}

static void do_post(struct peer *peer, char **word)
{
	struct transfer t = {
		.kind = word[0], .id = strtoull(word[1], NULL, 10), .at = strtoull(word[2], NULL, 10),
		.length = (uint32_t)strtoul(word[3], NULL, 10), .rkey = (uint32_t)strtoul(word[4], NULL, 10),
		.to = strtoull(word[5], NULL, 10),
	};

	errno = post(peer, &t);
	if (errno)
		failed("post");
	else
		puts("ok");
}

static void do_wait(struct peer *peer, char **word)
{
	int left = atoi(word[0]);
	uint64_t deadline = now_ns() + strtoull(word[1], NULL, 10) * 1000000;
	struct ibv_wc wc;

	printf("completions");
	while (left > 0 && now_ns() < deadline) {
		if (ibv_poll_cq(peer->id->qp->send_cq, 1, &wc) != 1) {
			usleep(100);
			continue;
		}
		printf(" %" PRIu64 ":%d:%u", wc.wr_id, wc.status, wc.byte_len);
		left--;
	}
	putchar('\n');
}

/* `depth` transfers under way until `count` are done, then a read of one byte: what was written is there. */
static int bench(struct peer *peer, struct transfer *t, unsigned depth, unsigned count)
{
	unsigned posted = 0, done = 0;
	struct ibv_wc wc[16];
	int n;

	while (done < count + 1) {
		while (posted < count && posted - done < depth) {
			t->at = t->id = 0;
			if (post(peer, t))
				return -1;
			posted++;
		}
		if (posted == count && done == count) {
			struct transfer flush = { .kind = "read", .length = 1, .rkey = t->rkey, .to = t->to };

			if (post(peer, &flush))
				return -1;
			posted++;
		}
		n = ibv_poll_cq(peer->id->qp->send_cq, 16, wc);
		for (int i = 0; i < n; i++) {
			if (wc[i].status) {
				errno = wc[i].status;
				return -1;
			}
		}
		done += n > 0 ? (unsigned)n : 0;
	}
	return 0;
}

static void do_bench(struct peer *peer, char **word)
{
	struct transfer t = {
		.kind = word[0], .length = (uint32_t)strtoul(word[1], NULL, 10), .rkey = (uint32_t)strtoul(word[4], NULL, 10),
		.to = strtoull(word[5], NULL, 10),
	};
	uint64_t start = now_ns();

	errno = 0;
	if (bench(peer, &t, (unsigned)atoi(word[2]), (unsigned)atoi(word[3])) < 0)
		failed("bench");
	else
		printf("bench %" PRIu64 "\n", now_ns() - start);
}

/* ---- commands */

static const struct command {
	const char *name;
	int words;
	void (*run)(struct peer *peer, char **word);
} commands[] = {
	{ "connect", 5, do_connect }, { "listen", 1, do_listen }, { "request", 1, do_request }, { "accept", 3, do_accept },
	{ "reject", 1, do_reject }, { "region", 0, do_region }, { "post", 6, do_post }, { "wait", 2, do_wait },
	{ "event", 1, do_event }, { "bench", 6, do_bench }, { "disconnect", 0, do_disconnect },
};

static void obey(struct peer *peer, char *line)
{
	char *word[WORDS + 1] = { 0 }, *save = NULL;
	int n = 0;

	for (char *w = strtok_r(line, " \n", &save); w && n < WORDS; w = strtok_r(NULL, " \n", &save))
		word[n++] = w;
	for (unsigned i = 0; n && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(word[0], commands[i].name) && n == commands[i].words + 1) {
			commands[i].run(peer, word + 1);
			return;
		}
	}
	errno = EINVAL;
	failed("command");
}

int main(int argc, char **argv)
{
	struct peer peer = { 0 };
	struct stat st;
	char line[4096];
	int fd = argc == 2 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "verbs-peer FILE: the memory to register\n");
		return 2;
	}
	peer.size = (size_t)st.st_size;
	peer.memory = mmap(NULL, peer.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	peer.channel = rdma_create_event_channel();
	if (peer.memory == MAP_FAILED || !peer.channel) {
		perror("verbs-peer");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin))
		obey(&peer, line);
	return 0;
}
