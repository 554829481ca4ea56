/* SPDX-License-Identifier: MIT */
/*
 * Doors that are being shut: a DropTicket waits here until the last who came in by it is out. A door may have thousands inside, and a client
 * may close a hundred doors at once; they are taken one after the other, in turns of the loop. Owned by the device; one whose controller has
 * gone is gone through with all the same.
 */
#include <stdlib.h>

#include "nicd/soft/device-private.h"

enum { CUT_NS = 400000 };   /* of a turn, for all doors together */

static bool has_time(struct soft_device *device)
{
	uint64_t now = soft_now();

	if (!device->cut_until)
		device->cut_until = now + CUT_NS;
	return now < device->cut_until;
}

void soft_dropped_put(Soft__Reply *reply, Soft__Dropped *dropped, unsigned streams_cut)
{
	soft__dropped__init(dropped);
	dropped->streams_cut = streams_cut;
	reply->result_case = SOFT__REPLY__RESULT_DROPPED;
	reply->dropped = dropped;
}

bool soft_device_cut(struct soft_device *device, uint64_t serial, uint32_t id, unsigned *n)
{
	struct soft_pending *pending;
	struct soft_cut *cut;

	if (STAILQ_EMPTY(&device->cuts) && has_time(device) && !soft_engine_cut_door(device->engine, serial, device->cut_until, n))
		return true;
	cut = malloc(sizeof(*cut));
	pending = cut ? soft_pending_new(device, id) : NULL;
	if (!pending) {   /* a long turn is better than a door that stays open */
		free(cut);
		while (soft_engine_cut_door(device->engine, serial, UINT64_MAX, n))
			;
		return true;
	}
	*cut = (struct soft_cut){.pending = pending, .serial = serial, .n = *n};
	STAILQ_INSERT_TAIL(&device->cuts, cut, next);
	soft_device_tidy(device);
	return false;
}

static void cut_end(struct soft_cut *cut)
{
	Soft__Reply reply = SOFT__REPLY__INIT;
	Soft__Dropped dropped;

	soft_dropped_put(&reply, &dropped, cut->n);
	soft_pending_answer(cut->pending, &reply);
	free(cut);
}

void soft_device_cut_turn(struct soft_device *device)
{
	struct soft_cut *cut;

	while ((cut = STAILQ_FIRST(&device->cuts))) {
		if (!has_time(device) || soft_engine_cut_door(device->engine, cut->serial, device->cut_until, &cut->n))
			return;
		STAILQ_REMOVE_HEAD(&device->cuts, next);
		cut_end(cut);
	}
}

void soft_device_cut_all(struct soft_device *device)
{
	device->cut_until = UINT64_MAX;
	soft_device_cut_turn(device);
}
