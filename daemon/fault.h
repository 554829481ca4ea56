/* SPDX-License-Identifier: MIT */
#pragma once
/* --fault: a provider in front of the real one that delays and fails. Only in builds for tests. */
#include <stddef.h>

struct nic_env;
struct nic_provider;

/*
 * Puts the faulty provider that `spec` describes in front of *provider, which it then owns. Negative errno with a message; *provider is
 * unchanged.
 */
int fault_wrap(struct nic_provider **provider, struct nic_env *env, const char *spec, char *message, size_t size);
