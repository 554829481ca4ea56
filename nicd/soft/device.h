/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The device behind the control socket: memory, tags, tickets and the engine, and the commands of soft.proto that act
 * on them. It knows messages but no socket; control.c moves the bytes.
 *
 * Like a real NIC it outlives its controller. Whether what a controller made is kept when that one goes is what it said
 * in its Hello.
 */
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "nicd/soft/engine.h"
#include "proto/soft.pb-c.h"
#include "proto/wire.h"

struct soft_device;

/* To the controller. The messages are borrowed during the call. */
struct soft_device_hooks {
	void (*answer)(void *userdata, const Soft__Reply *reply);
	void (*event)(void *userdata, const Soft__Event *event);
	void *userdata;
};

/* Starts with nothing and an incarnation of its own. -ENOMEM or what libuv or the engine says. */
int soft_device_new(struct soft_device **ret, uv_loop_t *loop, const struct soft_device_hooks *hooks);
/* Ends everything; the loop must run until `closed`, in which the device may be freed. */
void soft_device_close(struct soft_device *device, void (*closed)(void *userdata), void *userdata);
void soft_device_free(struct soft_device *device);

struct soft_engine *soft_device_engine(struct soft_device *device);
/* Memories that may be attached at the same time, those that are still being unmapped included. */
void soft_device_limit_mappings(struct soft_device *device, uint32_t max);
/* So many tags were dropped that the rest can wait for the next turn: the answers go first, so that nicd works on while we do. */
bool soft_device_is_spent(const struct soft_device *device);
/* Call it last before the loop waits. */
void soft_device_turn_end(struct soft_device *device);
/* What Hello answers as the address for peers: "127.0.0.1:7190"; empty: not listening. */
void soft_device_advertise(struct soft_device *device, const char *address);

/* Tells of one stream whose peer has notified; false: there is none, or nobody to tell. */
bool soft_device_notice(struct soft_device *device);

/* A controller went. What it asked for and was not answered is answered to nobody; without `keep` all is dropped. */
void soft_device_abandon(struct soft_device *device);

/* Something of this id is not answered yet. */
bool soft_device_in_flight(const struct soft_device *device, uint32_t id);
/* Runs one request, which takes its descriptors from the packet; hooks->answer is called exactly once, now or later. */
void soft_device_run(struct soft_device *device, const Soft__Request *request, struct wire_packet *packet);
