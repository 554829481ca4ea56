/* SPDX-License-Identifier: MIT */
#pragma once
/* An engine without a network, for tests of what stands around it: it records what it is told and does what the test says. */
#include "nicd/soft/engine.h"

extern struct fake_engine {
	struct soft_engine_events events;
	unsigned resets, cuts, more_cuts;   /* of a door; turns that it takes before the last one */
	bool closed;
	struct soft_stream_info streams[4];
	unsigned n_streams;
	/* The last connect and post, not ended yet. */
	struct soft_connect_terms connect;
	void (*connected)(void *userdata, const struct nicd_error *error, const struct soft_connected *result);
	void *connect_userdata;
	void (*posted)(void *userdata, const struct nicd_error *error, const struct soft_completion *result);
	void *post_userdata;
	struct soft_post post;
	uint32_t post_entries;
	enum nic_operation operation;
	uint8_t first_entry[NICD_TRANSFER_ENTRY_SIZE];
	uint64_t disconnected, cut;
	/* What is told of turns, and what was asked last. */
	enum soft_turn turn;
	uint64_t turn_stream;
	bool turn_fence, turn_has_come;
	unsigned turns_forgotten;
	/* How many streams have news from their peers, and how many were told. */
	unsigned notices, noticed;
} fake;

/* Ends what is pending, with this reason. */
void fake_end_connect(enum nicd_reason reason);
void fake_end_post(enum nicd_reason reason, uint32_t entries);
