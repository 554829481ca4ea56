/* SPDX-License-Identifier: MIT */
/* Methods of mappings, and of the privileged token that uses their addresses. */
#include "daemon/method.h"

#include <string.h>

#include "daemon/util.h"
#include "nicd/mapping.h"

static struct nic_adapter *first_adapter(const struct client *client)
{
	struct nic_object *adapter = TAILQ_FIRST(&client->host->nic->adapters);

	return adapter ? container_of(adapter, struct nic_adapter, object) : NULL;
}

int method_build_mapping(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__BuildMapping *args = request->args;
	struct nic_adapter *adapter = first_adapter(request->client);
	struct nic_range ranges[NICD_RANGES];

	if (!adapter)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	for (unsigned i = 0; i < args->n_ranges; i++) {
		ranges[i].memory = request->memories[i];
		ranges[i].offset = args->ranges[i]->offset;
		ranges[i].length = args->ranges[i]->length;
		if (!ranges[i].memory)
			return nicd_refuse(err, NICD_R_HANDLE);
	}
	return nic_mapping_build(&call->mapping, &request->client->owner, adapter, ranges, (unsigned)args->n_ranges, &call->done, err);
}

void method_build_mapping_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_mapping(answer, call->mapping);
}

/* nicd forgets it as soon as it is told. */
int method_get_privileged_token(struct request *request, struct call *call, struct nicd_error *err)
{
	call->key = call_alloc(call, sizeof(*call->key), err);
	if (!call->key)
		return -ENOMEM;
	return nic_pd_privileged(container_of(request->objects[0], struct nic_pd, object), call->key, &call->done, err);
}

void method_get_privileged_token_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_privileged(answer, call->key->cmd.key);
	explicit_bzero(&call->key->cmd.key, sizeof(call->key->cmd.key));
}
