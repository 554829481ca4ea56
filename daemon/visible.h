/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What a session may see and end by serial: what its account owns, or everything for the admin role. What it may not see and what is not
 * there are the same to it.
 */
#include "daemon/client.h"
#include "nicd/qp.h"

static inline bool visible_account(const struct client *client, const struct nic_account *account)
{
	return client->identity.role == CLIENT_ROLE_ADMIN || account == client->owner.account;
}

/* Adapters belong to nobody, and all may see them. A grant whose door is shut is over, also when its turn to end has not come yet. */
static inline bool visible_object(const struct client *client, const struct nic_object *object)
{
	if (object->type == NIC_GRANT && ((const struct nic_grant *)object)->door->shut)
		return false;
	return object->owner ? visible_account(client, object->owner->account) :
			       object->type == NIC_ADAPTER || client->identity.role == CLIENT_ROLE_ADMIN;
}

/* The object of this serial, or NULL. */
static inline struct nic_object *visible_find(const struct client *client, uint64_t serial)
{
	struct nic_object *object = nic_find(client->host->nic, NIC_NONE, serial);

	return object && visible_object(client, object) ? object : NULL;
}

/* The session of this serial, or NULL. */
static inline struct client *visible_session(const struct client *client, uint64_t serial)
{
	struct client *other = client_find(client->host, serial);

	return other && visible_account(client, other->owner.account) ? other : NULL;
}
