/* SPDX-License-Identifier: MIT */
#pragma once
/* One open NIC: a provider with a serial. Lives as long as the NIC layer; when its device goes away it stays, down. */
#include "nicd/object.h"
#include "nicd/provider.h"

struct nic_adapter {
	struct nic_object object;
	struct nic *nic;
	struct nic_provider *provider;
	TAILQ_HEAD(, nic_qp) streams;   /* inbound Qps and connected outbound ones, to find by stream number */
};

/* Takes the provider. -ENOMEM. */
int nic_adapter_new(struct nic_adapter **ret, struct nic *nic, struct nic_provider *provider);
struct nic_adapter *nic_adapter_free(struct nic_adapter *adapter);
