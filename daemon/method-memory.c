/* SPDX-License-Identifier: MIT */
/* Methods that make what regions are made of: Memories and protection domains. */
#include "daemon/method.h"
#include "daemon/util.h"

int method_add_memory(struct request *request, struct answer *answer, struct nicd_error *err)
{
	struct nic_memory_facts facts;
	struct nic_memory *memory;
	int r;

	r = request->client->host->check_memory(request->fd, &facts, err);
	if (r < 0)
		return r;
	request->fd = -1;
	r = nic_memory_new(&memory, &request->client->owner, &facts, true, err);
	if (r < 0)
		return r;
	answer_memory(answer, memory);
	return 0;
}

int method_create_pd(struct request *request, struct answer *answer, struct nicd_error *err)
{
	struct nic_object *adapter = request->objects[0];
	struct nic_pd *pd;
	int r;

	if (!adapter)
		adapter = TAILQ_FIRST(&request->client->host->nic->adapters);
	if (!adapter)
		return nicd_refuse(err, NICD_R_NO_ADAPTER);
	r = nic_pd_new(&pd, &request->client->owner, container_of(adapter, struct nic_adapter, object), err);
	if (r < 0)
		return r;
	answer_object(answer, &pd->object);
	return 0;
}
