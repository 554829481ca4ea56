/* SPDX-License-Identifier: MIT */
/* Methods that open doors: tickets to a PD and exports. Both answer with the locator, which nobody is told again. */
#include "daemon/method.h"
#include "daemon/util.h"

/* A locator names the address that peers reach; without one no door can be told. */
static int door_check(const struct nic_mr *mr, struct nicd_error *err)
{
	if (!mr)
		return nicd_refuse(err, NICD_R_MR_KIND);
	return mr->pd->adapter->provider->data_addr.ss_family ? 0 : nicd_refuse(err, NICD_R_NO_ADAPTER);
}

int method_create_ticket(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__CreateTicket *args = request->args;
	struct nic_mr *mr = nic_object_mr(request->objects[0]);
	struct nic_door_terms terms = { .uses = args->uses, .ttl_ms = args->ttl_ms, .max_streams = args->peers };
	int r;

	r = door_check(mr, err);
	return r < 0 ? r : nic_ticket_new(&call->door, mr, &terms, &call->done, err);
}

int method_create_export(struct request *request, struct call *call, struct nicd_error *err)
{
	const Nicd__CreateExport *args = request->args;
	struct nic_mr *mr = nic_object_mr(request->objects[0]);
	struct nic_door_terms terms = {
		.name = args->name,
		.offset = args->offset,
		.length = args->length,
		.rights = args->flags,
		.uses = args->uses,
		.max_streams = args->peers,
		.ttl_ms = args->ttl_ms,
	};
	int r;

	if (!text_is_name(args->name, NICD_STRING))
		return nicd_refuse_at(err, NICD_R_STRING, NICD_STRING, args->name ? strlen(args->name) : 0);
	r = door_check(mr, err);
	return r < 0 ? r : nic_export_new(&call->door, mr, &terms, &call->done, err);
}

void method_door_finish(struct call *call, const struct nicd_error *error, struct answer *answer)
{
	answer_door(answer, call->door);
}
