/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Events on their way to a client: state, not a log. One pending per object and kind, the latest wins; above the cap
 * one RESYNC.
 */
#include "daemon/client.h"

void news_add(struct client *client, const struct nic_object *object, enum nic_event event, uint64_t serial,
	      const struct nicd_error *error);
/* As frames into client->out, as long as that is short. */
void news_flush(struct client *client);
/* Forgets all. */
void news_drop(struct client *client);
