/* SPDX-License-Identifier: MIT */
/* The provider that has nothing: every command ends at once with NOT_SUPPORTED. Others copy from it what they do not have. */
#include "nicd/provider.h"

static void not_supported(struct nic_cmd *cmd)
{
	nicd_refuse(&cmd->error, NICD_R_NOT_SUPPORTED);
	cmd->done(cmd);
}

static uint64_t none_cost(struct nic_provider *p, enum nic_cost what, uint64_t bytes)
{
	return 0;
}

static void none_memory_attach(struct nic_provider *p, const struct nic_attach *what, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_memory_detach(struct nic_provider *p, uint64_t memory, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_tag_add(struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_tag_drop(struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order,
			  struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_mapping_add(struct nic_provider *p, const struct nic_map *what, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_key_add(struct nic_provider *p, uint64_t pd, uint64_t owner, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_door_add(struct nic_provider *p, const struct nic_door *what, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_door_drop(struct nic_provider *p, uint64_t serial, bool cut, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_qp_connect(struct nic_provider *p, const struct nic_connect *what, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_qp_post(struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_serial(struct nic_provider *p, uint64_t serial, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_stats(struct nic_provider *p, struct nic_cmd *cmd)
{
	not_supported(cmd);
}

static void none_push(struct nic_provider *p)
{
}

static void none_free(struct nic_provider *p)
{
}

const struct nic_provider_ops nic_provider_none = {
	.name = "none",
	.cost = none_cost,
	.memory_attach = none_memory_attach,
	.memory_detach = none_memory_detach,
	.tag_add = none_tag_add,
	.tag_drop = none_tag_drop,
	.mapping_add = none_mapping_add,
	.mapping_drop = none_serial,
	.key_add = none_key_add,
	.key_drop = none_serial,
	.door_add = none_door_add,
	.door_drop = none_door_drop,
	.qp_connect = none_qp_connect,
	.qp_post = none_qp_post,
	.qp_flush = none_serial,
	.qp_disconnect = none_serial,
	.qp_query = none_serial,
	.stats = none_stats,
	.push = none_push,
	.free = none_free,
};
