/* SPDX-License-Identifier: MIT */
/*
 * Filling nicd_error_info. All texts are copied into the struct, so whoever holds one owns all of it. What nicd says is
 * taken as it says it, because a newer one may know reasons that are not in the table here; only the errno comes from the
 * table (a reason that is not there is EIO).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/attr.h"
#include "client/error.h"
#include "proto/terminate.h"

static const struct {
	const char *name;
	enum nicd_status status;
	int err;
	const char *text;
	const char *cure;
} locals[ERROR_LOCAL_COUNT] = {
#define X(label, status_of, errno_of, text_of, cure_of)                                                                          \
	[ERROR_##label] = { .name = #label,                                                                                      \
			    .status = NICD_STATUS_##status_of,                                                                   \
			    .err = errno_of,                                                                                     \
			    .text = text_of,                                                                                     \
			    .cure = cure_of },
	ERROR_LOCALS(X)
#undef X
};

static void error_copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
}

static int error_fill(struct nicd_error_info *ret, int err, uint32_t status, const char *name, const char *text, const char *cure)
{
	*ret = (struct nicd_error_info){
		.size = sizeof(*ret),
		.error = -err,
		.ntstatus = nicd_status_ntstatus(status),
	};
	error_copy(ret->name, sizeof(ret->name), name);
	error_copy(ret->status, sizeof(ret->status), nicd_status_name(status));
	error_copy(ret->text, sizeof(ret->text), text);
	error_copy(ret->cure, sizeof(ret->cure), cure);
	return -err;
}

int error_local(struct nicd_error_info *ret, enum error_local which, uint64_t limit, uint64_t observed)
{
	int r = error_fill(ret, locals[which].err, locals[which].status, locals[which].name, locals[which].text, locals[which].cure);

	ret->limit = limit;
	ret->observed = observed;
	return r;
}

int error_reason(struct nicd_error_info *ret, const struct nicd_error *error)
{
	const struct nicd_reason_info *info = nicd_reason_info(error->reason);
	int r = error_fill(ret, info->err, info->status, info->name, info->text, info->cure);

	ret->reason = error->reason;
	ret->provider_error = error->provider_error;
	ret->limit = error->limit;
	ret->observed = error->observed;
	return r;
}

static uint32_t error_system_status(int err)
{
	static const struct {
		int err;
		enum nicd_status status;
	} known[] = {
		{ ENOENT, NICD_STATUS_CONNECTION_REFUSED },
		{ ENOTDIR, NICD_STATUS_CONNECTION_REFUSED },
		{ ECONNREFUSED, NICD_STATUS_CONNECTION_REFUSED },
		{ EACCES, NICD_STATUS_ACCESS_DENIED },
		{ EPERM, NICD_STATUS_ACCESS_DENIED },
		{ ECONNRESET, NICD_STATUS_DEVICE_REMOVED },
		{ EPIPE, NICD_STATUS_DEVICE_REMOVED },
		{ EINVAL, NICD_STATUS_INVALID_PARAMETER },
		{ ENAMETOOLONG, NICD_STATUS_INVALID_PARAMETER },
		{ EBADF, NICD_STATUS_INVALID_PARAMETER },
		{ ENOTSOCK, NICD_STATUS_INVALID_PARAMETER },
		{ EPROTOTYPE, NICD_STATUS_INVALID_PARAMETER },
	};

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i].err == err)
			return known[i].status;
	}
	return NICD_STATUS_INSUFFICIENT_RESOURCES;
}

int error_system(struct nicd_error_info *ret, int err, const char *what, const char *cure)
{
	const char *why = strerrordesc_np(err);
	char text[sizeof(ret->text)];

	snprintf(text, sizeof(text), "%s: %s", what, why ? why : "unknown error");
	return error_fill(ret, err, error_system_status(err), "SYSTEM", text, cure);
}

/* A success that is no success (reason NONE inside an error) is INTERNAL, like any number that is not in the table. */
static int error_errno(uint32_t reason)
{
	int err = nicd_reason_info(reason)->err;

	return err ? err : EIO;
}

int error_reply(struct nicd_error_info *ret, const Nicd__Error *error)
{
	int r = error_fill(ret, error_errno(error->reason), error->status, error->name, error->text, error->cure);

	ret->reason = error->reason;
	ret->provider_error = error->provider_error;
	ret->limit = error->limit;
	ret->observed = error->observed;
	return r;
}

/* The session is over, whatever the reason: what is asked from now on gets -ENOTCONN, what was under way this. */
int error_fatal(struct nicd_error_info *ret, const Nicd__Fatal *fatal)
{
	int r = error_fill(ret, ECONNRESET, NICD_STATUS_PROTOCOL_VIOLATION, fatal->name, fatal->text, fatal->cure);

	ret->reason = fatal->reason;
	ret->limit = fatal->limit;
	ret->observed = fatal->observed;
	return r;
}

static int error_append(char *text, size_t size, int at, const char *before, const char *what, const char *after)
{
	size_t used = (size_t)at < size ? (size_t)at : size;

	return at + snprintf(text + used, size - used, "%s%s%s", before, what, after);
}

NICD_API int nicd_error_print(const struct nicd_error_info *error, char *text, size_t size)
{
	char numbers[64];
	int at = 0;

	if (error->error == 0)
		return snprintf(text, size, "success");
	at = error_append(text, size, at, error->name, ": ", error->text);
	if (error->limit || error->observed) {
		snprintf(numbers, sizeof(numbers), "limit %llu, observed %llu", (unsigned long long)error->limit,
			 (unsigned long long)error->observed);
		at = error_append(text, size, at, " (", numbers, ")");
	}
	if (error->provider_error) {
		const char *why = strerrorname_np(error->provider_error);

		at = error_append(text, size, at, ", device: ", why ? why : "unknown error", "");
	}
	if (error->cure[0])
		at = error_append(text, size, at, "; ", error->cure, "");
	snprintf(numbers, sizeof(numbers), "0x%08x", error->ntstatus);
	at = error_append(text, size, at, " [", error->status, " ");
	return error_append(text, size, at, "", numbers, "]");
}

NICD_API int nicd_error_get(unsigned index, struct nicd_error_row *ret)
{
	const struct nicd_reason_info *info = nicd_reason_at(index);
	struct nicd_error_row row = { 0 };
	int code;

	if (!info)
		return -ENOENT;
	if (ret->size < sizeof(ret->size))
		return -EINVAL;
	row.reason = info->reason;
	row.error = -info->err;
	row.ntstatus = nicd_status_ntstatus(info->status);
	row.name = info->name;
	row.status = nicd_status_name(info->status);
	row.text = info->text;
	row.cure = info->cure;
	while (row.n_wire < NICD_ERROR_WIRE && (code = nicd_terminate_code(info->reason, row.n_wire)) >= 0)
		row.wire[row.n_wire++] = (uint32_t)code;
	attr_put(ret, &row, sizeof(row));
	return 0;
}
