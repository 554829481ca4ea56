/* SPDX-License-Identifier: MIT */
/* Revocations under way. They own nothing but their deadline; who has one begins it, and ends it before it goes. */
#include "nicd/revocation.h"

#include <assert.h>

void nic_revocation_begin(struct nic *nic, struct nic_revocation *revocation)
{
	nic_deadline_arm(nic, &revocation->deadline);
}

void nic_revocation_end(struct nic *nic, struct nic_revocation *revocation)
{
	nic_deadline_disarm(nic, &revocation->deadline);
	nic->quarantined -= revocation->unconfirmed;
	revocation->unconfirmed = false;
}

void nic_revocation_move(struct nic *nic, struct nic_revocation *to, struct nic_revocation *from)
{
	assert(!to->unconfirmed && !to->deadline.armed);
	to->promised = from->promised;
	to->unconfirmed = from->unconfirmed;
	from->unconfirmed = false;
	nic_deadline_disarm(nic, &from->deadline);
	nic_deadline_arm(nic, &to->deadline);
}

void nic_revocation_keep(struct nic *nic, struct nic_revocation *revocation)
{
	revocation->retry = true;
	if (!revocation->deadline.armed)
		nic_deadline_arm(nic, &revocation->deadline);
}

bool nic_revocation_again(struct nic *nic, struct nic_revocation *revocation)
{
	if (!nic_revocation_hurry(revocation))
		return false;
	nic_deadline_arm(nic, &revocation->deadline);
	return true;
}

bool nic_revocation_hurry(struct nic_revocation *revocation)
{
	bool retry = revocation->retry;

	revocation->retry = false;
	return retry;
}

void nic_revocation_late(struct nic *nic, struct nic_revocation *revocation)
{
	nic->quarantined += !revocation->unconfirmed;
	revocation->unconfirmed = true;
}

struct nicd_error nic_revocation_promise(struct nic_revocation *revocation)
{
	struct nicd_error error;

	revocation->promised = true;
	nicd_refuse(&error, NICD_R_REVOKE_UNCONFIRMED);
	return error;
}

struct nicd_error nic_revocation_refused(const struct nicd_error *cause)
{
	struct nicd_error error;

	nicd_refuse(&error, NICD_R_DEVICE_FAILED);
	error.provider_error = cause->provider_error ? cause->provider_error : nicd_reason_info(cause->reason)->err;
	error.observed = cause->reason;
	return error;
}
