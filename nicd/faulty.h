/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A provider in front of another one that delays and fails it, so that what real devices do once a year happens in
 * every test run. Built only with the option `faults`.
 *
 * A spec is a list of rules, separated by commas; the first that fits a command is applied to it:
 *
 *	rule  = op *( ":" what )
 *	op    = "memory_attach" | "memory_detach" | "tag_add" | "tag_drop" | "door_add" | "door_drop" | "qp_connect" | "qp_post" |
 *	        "qp_flush" | "qp_disconnect" | "qp_query" | "stats" | "any"
 *	what  = "delay=" NUMBER ( "ns" | "us" | "ms" | "s" )   the answer comes so much later
 *	      | "never"                                        the answer waits for the next spec
 *	      | "fail" [ "=" REASON ]                          the device is not asked; default DEVICE_FAILED
 *	      | "skip=" N | "every=" N | "times=" N            not the first N; of those every Nth; of those the first N
 *
 * "tag_drop:delay=200ms:every=3:fail" delays and fails every third tag_drop. A delayed command has its effect at once; only its
 * confirmation is late. When the device is lost, or freed, nothing waits any more.
 */
#include "nicd/provider.h"

struct nic_faulty_host {
	/* Calls fn(arg) once, so much later. Cannot be cancelled. */
	void (*timer)(const struct nic_faulty_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg);
};

/*
 * Takes inner, when it succeeds. `host` is borrowed for as long as the provider, or a timer, lives. VALUE (observed:
 * where in spec), NO_MEMORY.
 */
int nic_faulty_new(struct nic_provider **ret, struct nic_provider *inner, const char *spec, const struct nic_faulty_host *host,
		   struct nicd_error *err);
/* Another spec for a provider made by nic_faulty_new; answers that waited for it are given. VALUE: the old one stays. */
int nic_faulty_set(struct nic_provider *provider, const char *spec, struct nicd_error *err);
