/* SPDX-License-Identifier: MIT */
/*
 * Tickets and exports: two doors, one handle behind both. The locator is a secret: its memory is wiped before it is freed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"

struct nicd_ticket {
	struct door door;
};

struct nicd_export {
	struct door door;
};

static void door_fini(struct object *object)
{
	struct door *door = (struct door *)object;

	if (door->locator)
		explicit_bzero(door->locator, strlen(door->locator));
	free(door->locator);
	door->locator = NULL;
}

static int door_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	struct door *door = (struct door *)call->object;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_DOOR ||
	    !object_live(call->object, reply->door->id, reply->door->serial))
		return -EPROTO;
	grant_take(&door->grant, reply->door->grant);
	door->locator = strdup(reply->door->locator);
	return door->locator ? 0 : -ENOMEM;
}

/* The PD is the door's parent: it outlives the MR's handle. */
static int door_new(struct nicd_mr *mr, uint32_t type, struct door **ret, struct call **call)
{
	struct nicd *n = mr->object.n;
	struct door *door = object_new(n, type, sizeof(*door), mr->object.parent, door_fini);
	int r;

	if (!door)
		return conn_fail(n, ERROR_NO_MEMORY, 0, 0);
	r = call_new(call, n, &door->object, door_finish);
	if (r < 0) {
		object_close(&door->object);
		return r;
	}
	(*call)->makes = true;
	(*call)->order = CALL_SETTLED;
	*ret = door;
	return 0;
}

/* -------------------------------------------------------------------------------------------------------------- tickets */

static int ticket_start(struct nicd_mr *mr, const struct nicd_ticket_attr *user_attr, struct door **door, struct call **call)
{
	struct nicd *n = mr->object.n;
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__CreateTicket body = NICD__CREATE_TICKET__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &mr->object;
	struct nicd_ticket_attr attr;
	int r = conn_check(n);

	if (r >= 0)
		r = attr_get(&n->error, &attr, sizeof(attr), sizeof(attr), user_attr);
	if (r >= 0)
		r = door_new(mr, NICD_TYPE_TICKET, door, call);
	if (r < 0)
		return r;
	body.mr = &ref;
	body.uses = attr.uses;
	body.ttl_ms = attr.ttl_ms;
	body.peers = attr.peers;
	request.call_case = NICD__REQUEST__CALL_CREATE_TICKET;
	request.create_ticket = &body;
	r = call_submit(*call, &request, &dep, 1);
	if (r < 0)
		object_close(&(*door)->object);
	return r;
}

NICD_API int nicd_ticket_create(struct nicd_mr *mr, const struct nicd_ticket_attr *attr, struct nicd_ticket **ret)
{
	struct door *door;
	struct call *call;
	int r = conn_check_ret(mr->object.n, ret);

	if (r >= 0)
		r = ticket_start(mr, attr, &door, &call);
	if (r >= 0)
		r = handle_wait(&door->object, call);
	if (r >= 0)
		*ret = (struct nicd_ticket *)door;
	return r;
}

NICD_API int nicd_ticket_create_async(struct nicd_mr *mr, const struct nicd_ticket_attr *attr, struct nicd_ticket **ret,
				      nicd_callback cb, void *userdata)
{
	struct door *door;
	struct call *call;
	int r = conn_check_ret(mr->object.n, ret);

	if (r >= 0)
		r = ticket_start(mr, attr, &door, &call);
	if (r < 0)
		return r;
	*ret = (struct nicd_ticket *)door;
	return call_later(call, cb, userdata);
}

NICD_API const char *nicd_ticket_locator(const struct nicd_ticket *ticket)
{
	return ticket->door.locator ? ticket->door.locator : "";
}

NICD_API const struct nicd_grant *nicd_ticket_grant(const struct nicd_ticket *ticket)
{
	return &ticket->door.grant;
}

NICD_API uint64_t nicd_ticket_serial(const struct nicd_ticket *ticket)
{
	return ticket->door.object.serial;
}

NICD_API int nicd_ticket_close(struct nicd_ticket *ticket)
{
	return handle_close(ticket ? &ticket->door.object : NULL, NULL);
}

NICD_API int nicd_ticket_close_async(struct nicd_ticket *ticket, nicd_callback cb, void *userdata)
{
	return handle_close_async(ticket ? &ticket->door.object : NULL, NULL, cb, userdata);
}

/* -------------------------------------------------------------------------------------------------------------- exports */

static int export_submit(struct call *call, struct nicd_mr *mr, const struct nicd_export_attr *attr)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__CreateExport body = NICD__CREATE_EXPORT__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *dep = &mr->object;

	body.mr = &ref;
	body.name = (char *)(attr->name ? attr->name : "");
	body.offset = attr->offset;
	body.length = attr->length;
	body.flags = attr->flags;
	body.uses = attr->uses;
	body.ttl_ms = attr->ttl_ms;
	body.peers = attr->peers;
	request.call_case = NICD__REQUEST__CALL_CREATE_EXPORT;
	request.create_export = &body;
	return call_submit(call, &request, &dep, 1);
}

static int export_start(struct nicd_mr *mr, const struct nicd_export_attr *user_attr, struct door **door, struct call **call)
{
	struct nicd *n = mr->object.n;
	struct nicd_export_attr attr;
	int r = conn_check(n);

	if (r >= 0)
		r = attr_get(&n->error, &attr, sizeof(attr), sizeof(attr), user_attr);
	if (r >= 0 && attr.reserved)
		r = conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (r >= 0)
		r = door_new(mr, NICD_TYPE_EXPORT, door, call);
	if (r < 0)
		return r;
	r = export_submit(*call, mr, &attr);
	if (r < 0)
		object_close(&(*door)->object);
	return r;
}

NICD_API int nicd_export_create(struct nicd_mr *mr, const struct nicd_export_attr *attr, struct nicd_export **ret)
{
	struct door *door;
	struct call *call;
	int r = conn_check_ret(mr->object.n, ret);

	if (r >= 0)
		r = export_start(mr, attr, &door, &call);
	if (r >= 0)
		r = handle_wait(&door->object, call);
	if (r >= 0)
		*ret = (struct nicd_export *)door;
	return r;
}

NICD_API int nicd_export_create_async(struct nicd_mr *mr, const struct nicd_export_attr *attr, struct nicd_export **ret,
				      nicd_callback cb, void *userdata)
{
	struct door *door;
	struct call *call;
	int r = conn_check_ret(mr->object.n, ret);

	if (r >= 0)
		r = export_start(mr, attr, &door, &call);
	if (r < 0)
		return r;
	*ret = (struct nicd_export *)door;
	return call_later(call, cb, userdata);
}

NICD_API const char *nicd_export_locator(const struct nicd_export *door)
{
	return door->door.locator ? door->door.locator : "";
}

NICD_API const struct nicd_grant *nicd_export_grant(const struct nicd_export *door)
{
	return &door->door.grant;
}

NICD_API uint64_t nicd_export_serial(const struct nicd_export *door)
{
	return door->door.object.serial;
}

NICD_API int nicd_export_close(struct nicd_export *door)
{
	return handle_close(door ? &door->door.object : NULL, NULL);
}

NICD_API int nicd_export_close_async(struct nicd_export *door, nicd_callback cb, void *userdata)
{
	return handle_close_async(door ? &door->door.object : NULL, NULL, cb, userdata);
}
