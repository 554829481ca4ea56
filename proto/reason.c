/* SPDX-License-Identifier: MIT */
/*
 * The tables of reasons and statuses, straight from the lists in reason.h. A number that is given twice does not compile
 * (-Woverride-init), nor does a status whose value is not the one of nicd.proto.
 */
#include <assert.h>

#include "proto/nicd.pb-c.h"
#include "proto/reason.h"
#include "proto/terminate.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Indexed by number; the gaps between the groups have no name. */
static const struct nicd_reason_info reasons[] = {
#define X(number, label, status_of, errno_of, text_of, cure_of)                                                                  \
	[number] = { .reason = NICD_R_##label,                                                                                   \
		     .status = NICD_STATUS_##status_of,                                                                          \
		     .err = errno_of,                                                                                            \
		     .name = #label,                                                                                             \
		     .text = text_of,                                                                                            \
		     .cure = cure_of },
	NICD_REASONS(X)
#undef X
};

static const struct {
	const char *name;
	uint32_t ntstatus;
} statuses[] = {
#define X(value, label, ntstatus_of) [value] = { .name = #label, .ntstatus = ntstatus_of },
	NICD_STATUSES(X)
#undef X
};

#define X(value, label, ntstatus_of)                                                                                             \
	static_assert((int)NICD_STATUS_##label == (int)NICD__STATUS__##label, "NICD_STATUS_" #label " differs from nicd.proto");
NICD_STATUSES(X)
#undef X

const struct nicd_reason_info *nicd_reason_info(uint32_t reason)
{
	if (reason >= ARRAY_SIZE(reasons) || !reasons[reason].name)
		reason = NICD_R_INTERNAL;
	return &reasons[reason];
}

const struct nicd_reason_info *nicd_reason_at(unsigned index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].name && index-- == 0)
			return &reasons[i];
	return NULL;
}

static const struct {
	uint32_t code;
	enum nicd_reason reason;
} terminates[] = {
#define X(number, label, reason_of, text_of) { number, NICD_R_##reason_of },
	NICD_TERMINATES(X)
#undef X
};

enum nicd_reason nicd_terminate_reason(uint32_t code)
{
	for (unsigned i = 0; i < ARRAY_SIZE(terminates); i++)
		if (terminates[i].code == code)
			return terminates[i].reason;
	return NICD_R_REMOTE_TERMINATE;
}

int nicd_terminate_code(enum nicd_reason reason, unsigned index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(terminates); i++)
		if (terminates[i].reason == reason && index-- == 0)
			return (int)terminates[i].code;
	return -1;
}

const char *nicd_status_name(uint32_t status)
{
	return status < ARRAY_SIZE(statuses) ? statuses[status].name : "?";
}

uint32_t nicd_status_ntstatus(uint32_t status)
{
	return status < ARRAY_SIZE(statuses) ? statuses[status].ntstatus : 0xC0000001u;   /* STATUS_UNSUCCESSFUL */
}

int nicd_refuse(struct nicd_error *err, enum nicd_reason reason)
{
	return nicd_refuse_at(err, reason, 0, 0);
}

int nicd_refuse_at(struct nicd_error *err, enum nicd_reason reason, uint64_t limit, uint64_t observed)
{
	if (err)
		*err = (struct nicd_error){ .reason = reason, .limit = limit, .observed = observed };
	return -nicd_reason_info(reason)->err;
}
