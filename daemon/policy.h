/* SPDX-License-Identifier: MIT */
#pragma once
/* What clients may do, as configured. Read once, immutable afterwards. */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "nicd/account.h"

enum policy_account_by { POLICY_BY_UID, POLICY_BY_GID, POLICY_BY_CGROUP, POLICY_BY_SESSION };

struct policy_network {
	struct sockaddr_storage addr;   /* IPv4 or IPv6 */
	unsigned prefix;                /* bits */
	uint16_t port_min, port_max;
};

enum { POLICY_NETWORKS = 64 };

struct policy {
	enum policy_account_by account_by;
	struct nic_limits limits;        /* of every account */
	unsigned n_networks;
	struct policy_network connect[POLICY_NETWORKS];   /* where ConnectQp may go; default: 127.0.0.0/8 and ::1, the data port */
	uint32_t max_calls;              /* requests in flight of one session */
	uint32_t max_news;               /* pending events of one session; above it: RESYNC */
	uint64_t max_output;             /* bytes queued to a session before it is not read any more */
	uint64_t revoke_timeout_ns;
	uint64_t hello_timeout_ns;       /* a session that has not said Hello then ends */
	uint64_t stall_timeout_ns;       /* one whose output is full and that takes nothing for so long, too */
	bool privileged_token;           /* sessions get privileged tokens; default: no */
	uint64_t all_memories;           /* of all accounts together, shared so that each can get some */
	/* Requests of one account at the device at a time: when it has it for itself, and while other accounts have some there, too. */
	uint32_t device_window, device_share;
	uint32_t connect_window, connect_share;   /* the same of connections being made */
};

void policy_init(struct policy *policy);   /* the defaults */
/* "10.0.0.0/8", "10.0.0.0/8:7190", "10.1.2.3:1024-65535", "[fd00::]/8:7190". -EINVAL, -ENOSPC. */
int policy_add_network(struct policy *policy, const char *text);
bool policy_may_connect(const struct policy *policy, const struct sockaddr_storage *addr);
/* 0: another family than IPv4 and IPv6. */
uint16_t policy_port(const struct sockaddr_storage *addr);
