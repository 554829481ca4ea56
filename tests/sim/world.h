/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The world of one run: the real session core (daemon_core) over the real NIC layer, with a clock, memory and descriptors that the seed
 * decides about, clients without sockets, and devices without hardware. Everything that passes is told to the model. One world is alive at a
 * time.
 */
#include "daemon/client.h"
#include "tests/sim/model.h"
#include "tests/sim/trace.h"

enum { WORLD_FDS = 4096, WORLD_TIMERS = 256, WORLD_DEVICES = 3, WORLD_DATA = 4 * NICD_FRAME_MAX };

struct device;

/* How hard life is; each in one of so many cases, 0: never. */
struct profile {
	const char *name;
	unsigned batch;         /* a frame has several requests */
	unsigned inline_end;    /* a command ends before the op returns */
	unsigned fail;          /* a command fails */
	unsigned oom;           /* memory is short in a turn */
	unsigned lose;          /* the device goes away, per step */
	unsigned die;           /* a session ends, per step */
	unsigned slow;          /* a client does not read, per step */
	unsigned bad;           /* a frame breaks the protocol */
	unsigned wild;          /* an argument is nonsense */
	unsigned jump;          /* time passes, per step */
	bool tight;             /* accounts may have little */
	unsigned news;          /* the device tells something, per step */
	unsigned narrow;        /* runs in which requests for the device wait for those before them */
};

struct world_client {
	struct client *client;          /* NULL: nobody */
	bool kicked, slow, releasing, fatal_seen;
	bool woken;                     /* since it was last served */
	bool dead;                      /* nobody hears it any more */
	size_t left_bytes;              /* in its output when it ended */
	uint64_t frames_seen;           /* of its output, parsed to the end and dropped */
	unsigned at_frame;              /* of what is queued: where parsing goes on */
	size_t at;
	uint32_t last_id;
};

/* A peer is coming in, and the model has not heard of its Qp yet. */
struct world_opening {
	int device;
	uint64_t stream, door, before;   /* stream 0: nobody */
};

struct world {
	struct nic_env env;
	uint64_t now;
	struct sim_random random;       /* what the seed decides */
	struct sim_random dice;         /* what nicd draws */
	uint64_t live_blocks;
	unsigned fail_in, fail_for;     /* allocations: after so many, so many fail */
	struct nic nic;
	struct policy policy;
	struct client_host host;
	const struct profile *profile;
	struct model *model;
	struct world_client clients[MODEL_CLIENTS];
	struct device *devices[WORLD_DEVICES];
	struct world_opening opening;
	bool woken;                     /* somebody, since the last look */
	bool quiet;                     /* what is heard now has woken nobody */
	unsigned n_device_names;
	struct sim_fd fds[WORLD_FDS];
	bool fd_open[WORLD_FDS];
	unsigned n_fds_open, next_fd;
	bool lose_fd;                   /* a frame that names descriptors comes with one less for each request */
	struct {
		uint64_t at;
		void (*fn)(void *arg);
		void *arg;
	} timers[WORLD_TIMERS];
	unsigned n_timers;
	uint8_t data[WORLD_DATA];
	uint64_t steps, requests, commands, replies;
};

extern struct world *world;   /* the one that is alive */

void world_begin(uint64_t seed, const struct profile *profile);
/* Brings everything to its end, and checks that nothing is left. */
void world_end(void);

int world_fd(const struct sim_fd *what);
bool world_connect(int client, int account, enum sim_role role);
/* Tells the model what is waiting to be read. */
void world_outputs(void);
/* Gives a frame to nicd. */
void world_send(int client, struct sim_request *requests, unsigned n, bool bad);
void world_send_raw(int client, const void *data, size_t len, unsigned n_fds);
void world_hang_up(int client);
void world_release(int client, unsigned budget);
void world_pass(uint64_t ns);
/* The end of a turn: output is made and read, timers run, everything is checked. */
void world_turn(void);

/* play.c: one step of a run: somebody does something. */
void play_step(void);
/* Closes one of a session's objects; false: it has none. */
bool play_close(int client);

/* say.c: to the wire and from it. */
size_t say_encode(const struct sim_request *requests, unsigned n, uint8_t *data, size_t size);
void say_decode_reply(const uint8_t *data, size_t len, struct sim_reply *reply);
void say_decode_event(const uint8_t *data, size_t len, enum sim_event *kind, uint64_t *object, uint64_t *serial,
		      uint64_t *count);

/* device.c */
struct device *device_new(void);
/* One of the commands in flight ends, if there is one. */
bool device_step(struct device *device, bool may_fail);
void device_news(struct device *device);
void device_lose(struct device *device);
bool device_lost(const struct device *device);
bool device_empty(const struct device *device);
unsigned device_pending(const struct device *device);
struct nic_provider *device_provider(struct device *device);

/* For tap.c: something was said to a client that woke nobody. */
void world_overhear(struct client *client);
