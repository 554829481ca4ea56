/* SPDX-License-Identifier: MIT */
/*
 * What clients may do. A policy is filled once, from defaults, configuration and options, and never changed afterwards; it
 * belongs to whoever started the process. The part with a parser is where ConnectQp may go: a list of networks with
 * ports, because nicd has a network of its own that its clients may be shut out of.
 */
#include "daemon/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"

static const char *const policy_loopback[] = { "127.0.0.0/8", "[::1]" };

static int network_parse(struct policy_network *network, const char *text);

void policy_init(struct policy *policy)
{
	*policy = (struct policy){
		.account_by = POLICY_BY_UID,
		.limits = nic_limits_default,
		.max_calls = 4096,
		.max_news = 1024,
		.max_output = 256 * 1024,
		.revoke_timeout_ns = UINT64_C(5000000000),
		.hello_timeout_ns = UINT64_C(10000000000),
		.stall_timeout_ns = UINT64_C(30000000000),
		.all_memories = 60000,   /* nicd-soft maps each of them once, and vm.max_map_count is 65,530 */
		.device_window = 1024,
		.device_share = 64,
		.connect_window = 1024,
		.connect_share = 256,
	};
	for (unsigned i = 0; i < sizeof(policy_loopback) / sizeof(*policy_loopback); i++) {
		struct policy_network *network = &policy->connect[policy->n_networks++];

		(void)network_parse(network, policy_loopback[i]);
		network->port_min = network->port_max = NICD_DATA_PORT;
	}
}

/* The address as bytes; IPv4 in IPv6 clothes counts as IPv4. Returns how many, 0: another family. */
static unsigned address_bytes(const struct sockaddr_storage *addr, const uint8_t **bytes, uint16_t *port)
{
	if (addr->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)addr;

		*bytes = (const uint8_t *)&in->sin_addr;
		*port = ntohs(in->sin_port);
		return 4;
	}
	if (addr->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)addr;
		bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		*bytes = in6->sin6_addr.s6_addr + (mapped ? 12 : 0);
		*port = ntohs(in6->sin6_port);
		return mapped ? 4 : 16;
	}
	return 0;
}

uint16_t policy_port(const struct sockaddr_storage *addr)
{
	const uint8_t *bytes;
	uint16_t port = 0;

	return address_bytes(addr, &bytes, &port) ? port : 0;
}

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole))
		return false;
	return !rest || !((a[whole] ^ b[whole]) >> (8 - rest));
}

/* "10.0.0.0/8" meant as "10.1.2.3/8" is a mistake that should not pass as either. */
static bool host_bits_zero(const uint8_t *bytes, unsigned n, unsigned prefix)
{
	for (unsigned bit = prefix; bit < n * 8; bit++) {
		if (bytes[bit / 8] & (0x80u >> (bit % 8)))
			return false;
	}
	return true;
}

/* Digits only, up to `max`; the rest of the text in *end. */
static int number_parse(const char *text, unsigned long max, unsigned long *ret, const char **end)
{
	char *stop;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	*ret = strtoul(text, &stop, 10);
	*end = stop;
	return *ret <= max && stop - text <= 5 ? 0 : -EINVAL;
}

/* "", ":7190" or ":1024-65535". */
static int ports_parse(struct policy_network *network, const char *text)
{
	unsigned long first, last;

	network->port_min = 1;
	network->port_max = 65535;
	if (!*text)
		return 0;
	if (*text != ':' || number_parse(text + 1, 65535, &first, &text))
		return -EINVAL;
	last = first;
	if (*text == '-' && number_parse(text + 1, 65535, &last, &text))
		return -EINVAL;
	if (*text || !first || last < first)
		return -EINVAL;
	network->port_min = first;
	network->port_max = last;
	return 0;
}

/* The address before any '/', ':' or ']' that ends it; *rest is what follows. */
static int address_parse(struct sockaddr_storage *addr, const char *text, const char **rest)
{
	bool six = *text == '[';
	const char *start = text + six;
	size_t len = strcspn(start, six ? "]" : "/:");
	char host[INET6_ADDRSTRLEN];

	if (len >= sizeof(host) || (six && start[len] != ']'))
		return -EINVAL;
	memcpy(host, start, len);
	host[len] = '\0';
	*rest = start + len + six;
	addr->ss_family = six ? AF_INET6 : AF_INET;
	return inet_pton(addr->ss_family, host,
			 six ? (void *)&((struct sockaddr_in6 *)addr)->sin6_addr : (void *)&((struct sockaddr_in *)addr)->sin_addr) == 1 ?
		0 : -EINVAL;
}

static int network_parse(struct policy_network *network, const char *text)
{
	struct policy_network parsed = { 0 };
	const uint8_t *bytes = NULL;
	unsigned long prefix;
	unsigned n;
	uint16_t port;

	if (address_parse(&parsed.addr, text, &text))
		return -EINVAL;
	n = address_bytes(&parsed.addr, &bytes, &port);
	/* ::ffff:10.0.0.0 would be compared as IPv4, with a prefix that counts from elsewhere. */
	if (n == 4 && parsed.addr.ss_family == AF_INET6)
		return -EINVAL;
	prefix = n * 8;
	if (*text == '/' && number_parse(text + 1, n * 8, &prefix, &text))
		return -EINVAL;
	if (!host_bits_zero(bytes, n, prefix) || ports_parse(&parsed, text))
		return -EINVAL;
	parsed.prefix = prefix;
	*network = parsed;
	return 0;
}

int policy_add_network(struct policy *policy, const char *text)
{
	struct policy_network network;
	int r = network_parse(&network, text);

	if (r < 0)
		return r;
	if (policy->n_networks == POLICY_NETWORKS)
		return -ENOSPC;
	policy->connect[policy->n_networks++] = network;
	return 0;
}

bool policy_may_connect(const struct policy *policy, const struct sockaddr_storage *addr)
{
	const uint8_t *bytes = NULL, *net = NULL;
	uint16_t port = 0, net_port;
	unsigned n = address_bytes(addr, &bytes, &port);

	for (unsigned i = 0; n && i < policy->n_networks; i++) {
		const struct policy_network *network = &policy->connect[i];

		if (address_bytes(&network->addr, &net, &net_port) == n && prefix_equal(bytes, net, network->prefix) &&
		    port >= network->port_min && port <= network->port_max)
			return true;
	}
	return false;
}
