/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * One open NIC: a provider with a serial. Lives as long as the NIC layer; when its device goes away it stays, down, and everything that
 * the device held is ended here: tokens, streams, attachments.
 */
#include "nicd/object.h"
#include "nicd/provider.h"

struct nic_adapter {
	struct nic_object object;
	struct nic *nic;
	struct nic_provider *provider;
	bool lost;                              /* and everybody was told */
	bool ending;                            /* what it held is not all ended yet; how far that is: */
	unsigned ending_type;
	uint64_t ending_serial;
	struct nic_owner *telling;              /* the next one who is told that it is lost; NULL: nobody */
	uint64_t users;                         /* PDs, attachments and mappings */
	struct nic_caps caps;                   /* as nic_adapter_stats was told last */
	RB_HEAD(nic_streams, nic_qp) streams;   /* inbound Qps and outbound ones not yet disconnected, by stream number */
};

/* Takes the provider, also on failure. -ENOMEM. */
int nic_adapter_new(struct nic_adapter **ret, struct nic *nic, struct nic_provider *provider);
/* Does a PD, an attachment or a mapping stand on it, or is its loss still being told? One that is down and unused may be freed. */
bool nic_adapter_used(const struct nic_adapter *adapter);
struct nic_adapter *nic_adapter_free(struct nic_adapter *adapter);

/* What the device holds, into cmd->stats; nothing when it is gone. */
void nic_adapter_stats(struct nic_adapter *adapter, struct nic_cmd *cmd, void (*done)(struct nic_cmd *cmd));

/* Only for nicd/. Of an adapter that is ending: looks at `budget` more of the objects there are. */
void nic_adapter_go_on(struct nic_adapter *adapter, unsigned budget);
/* Of an adapter that is lost: tells `budget` more owners. */
void nic_adapter_tell(struct nic_adapter *adapter, unsigned budget);
/*
 * The commands that take something away: from a device that is gone nothing is left to take, and they succeed at
 * once. nic_cmd_gone is how their end is judged.
 */
void nic_cmd_begin(struct nic_cmd *cmd, void (*done)(struct nic_cmd *cmd));
void nic_cmd_end(struct nic_cmd *cmd, enum nicd_reason reason);
static inline bool nic_cmd_gone(const struct nic_cmd *cmd)
{
	return cmd->error.reason == NICD_R_NONE || cmd->error.reason == NICD_R_DEVICE_LOST;
}
void nic_adapter_detach(struct nic_adapter *adapter, uint64_t memory, struct nic_cmd *cmd);
void nic_adapter_tag_drop(struct nic_adapter *adapter, uint64_t serial, uint32_t generation, const struct nic_order *order,
			  struct nic_cmd *cmd);
void nic_adapter_door_drop(struct nic_adapter *adapter, uint64_t serial, struct nic_cmd *cmd);
void nic_adapter_disconnect(struct nic_adapter *adapter, uint64_t stream, struct nic_cmd *cmd);
void nic_adapter_mapping_drop(struct nic_adapter *adapter, uint64_t serial, struct nic_cmd *cmd);
void nic_adapter_key_drop(struct nic_adapter *adapter, uint64_t pd, struct nic_cmd *cmd);
