/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The provider that drives nicd-soft from inside nicd. It knows the socket and soft.proto, and no loop: whoever owns it polls its fd and calls
 * dispatch. Commands are queued and leave with ops->push.
 */
#include <stdbool.h>

#include "nicd/provider.h"

/*
 * Takes a connected SOCK_SEQPACKET socket (also on failure), whose other side's uid the caller has checked. Says Hello and waits for the
 * answer at most 5 s; never blocks afterwards. VERSION, NO_MEMORY, DEVICE_LOST, or what the device refused with.
 */
int soft_provider_new(struct nic_provider **ret, int sock, struct nicd_error *err);

/* To poll for reading always, for writing when it says so; -1 once the device is lost. */
int soft_provider_fd(const struct nic_provider *provider);
bool soft_provider_wants_write(const struct nic_provider *provider);
/* The kernel could not take what is queued, and does not tell when it can: ops->push is to be called again in SOFT_PROVIDER_STARVED_MS. */
enum { SOFT_PROVIDER_STARVED_MS = 20 };
bool soft_provider_is_starved(const struct nic_provider *provider);
/*
 * Reads what is there, ends commands, tells events, sends what is queued. The end of the socket ends all commands with DEVICE_LOST, some per
 * call; until they have ended the fd stays, readable, and then the loss is told.
 */
void soft_provider_dispatch(struct nic_provider *provider);
