/* SPDX-License-Identifier: MIT */
/* What objects have beyond NDKPI. The answer is copied to the caller's array; nothing of it is kept here. */
#include <errno.h>
#include <string.h>

#include "client/api.h"
#include "client/attr.h"

static void text_take(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size - 1);

	memcpy(to, from, len);
	memset(to + len, 0, size - len);
}

static int extension_finish(struct call *call, const Nicd__Reply *reply, int error)
{
	char *ret = call->ret;
	unsigned *count = call->ret2;
	const Nicd__ExtensionList *list;

	if (error < 0 || !reply)
		return error;
	if (reply->result_case != NICD__REPLY__RESULT_EXTENSIONS || reply->extensions->n_extensions > UINT32_MAX)
		return -EPROTO;
	list = reply->extensions;
	for (size_t i = 0; i < list->n_extensions && i < *count; i++) {
		const Nicd__Extension *from = list->extensions[i];
		struct nicd_extension extension = { .size = sizeof(extension), .version = from->version, .objects = from->objects };
		uint32_t size;

		if (from->uuid.len != sizeof(extension.uuid))
			return -EPROTO;
		memcpy(extension.uuid, from->uuid.data, sizeof(extension.uuid));
		text_take(extension.name, sizeof(extension.name), from->name);
		text_take(extension.calls, sizeof(extension.calls), from->calls);
		/* The caller's elements are as large as its own struct. */
		memcpy(&size, ret, sizeof(size));
		attr_put(ret, &extension, sizeof(extension));
		ret += size;
	}
	*count = (unsigned)list->n_extensions;
	return 0;
}

/* The adapter that this is the info of; n_adapters: none. */
static unsigned adapter_index(const struct nicd *n, const void *info)
{
	unsigned i = 0;

	while (i < n->n_adapters && info != &n->adapters[i].info)
		i++;
	return i;
}

/* The first of the array says how large each is: all must. */
static int extension_check(struct nicd *n, const struct nicd_extension *ret, const unsigned *count)
{
	const char *at = (const char *)ret;
	uint32_t first, size;

	if (!count || (*count > 0 && !ret))
		return conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (*count == 0)
		return 0;
	memcpy(&first, at, sizeof(first));
	for (unsigned i = 0; i < *count; i++, at += first) {
		memcpy(&size, at, sizeof(size));
		if (first < sizeof(*ret) || size != first)
			return conn_fail(n, ERROR_STRUCT_SIZE, sizeof(*ret), size);
	}
	return 0;
}

static int extension_start(struct nicd *n, uint32_t type, const void *object, const uint8_t *uuid, uint32_t version,
			   struct nicd_extension *ret, unsigned *count, struct call **call)
{
	Nicd__Ref ref = NICD__REF__INIT;
	Nicd__QueryExtension body = NICD__QUERY_EXTENSION__INIT;
	Nicd__Request request = NICD__REQUEST__INIT;
	struct object *handle = type == NICD_TYPE_ADAPTER ? NULL : (struct object *)object;
	unsigned adapter = n->n_adapters;
	int r = conn_check(n);

	if (r >= 0)
		r = extension_check(n, ret, count);
	if (r >= 0 && type == NICD_TYPE_ADAPTER && (adapter = adapter_index(n, object)) == n->n_adapters)
		r = conn_refuse(n, NICD_R_NO_ADAPTER, n->n_adapters, adapter);
	if (r >= 0 && type != NICD_TYPE_ADAPTER && (!handle || handle->type != type || handle->n != n))
		r = conn_fail(n, ERROR_ARGUMENT, 0, 0);
	if (r >= 0)
		r = call_new(call, n, handle, extension_finish);
	if (r < 0)
		return r;
	(*call)->ret = ret;
	(*call)->ret2 = count;
	ref.of_case = NICD__REF__OF_ID;
	ref.id = handle ? 0 : n->adapters[adapter].id;
	body.object = &ref;
	body.version = version;
	if (uuid)
		body.uuid = (ProtobufCBinaryData){ 16, (uint8_t *)uuid };
	request.call_case = NICD__REQUEST__CALL_QUERY_EXTENSION;
	request.query_extension = &body;
	return call_submit(*call, &request, &handle, handle ? 1 : 0);
}

CALL_TWINS(nicd_query_extension,
	   (struct nicd *n, uint32_t type, const void *object, const uint8_t *uuid,
	    uint32_t version, struct nicd_extension *ret, unsigned *count),
	   extension_start(n, type, object, uuid, version, ret, count, &call))
