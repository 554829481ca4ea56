/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A revocation under way: what is the same for whatever it takes away. It begins when the device is asked, and ends when that has confirmed, or
 * has refused to somebody who may ask again. Not confirmed in time, it is counted in nic->quarantined until its end, and who waits for it is
 * promised to hear of that later. A device that refuses when nobody may ask again is asked again at the next deadline.
 *
 * Part of its object (or of what that has under way), zeroed by who makes that but for deadline.fn.
 */
#include "nicd/nic.h"
#include "nicd/provider.h"

struct nic_revocation {
	struct nic_deadline deadline;
	bool unconfirmed;   /* counted in nic->quarantined */
	bool promised;      /* REVOKE_UNCONFIRMED was answered: the owner is owed REVOKE_CONFIRMED */
	bool retry;         /* the device refused, nobody is there to ask again: the deadline will */
};

void nic_revocation_begin(struct nic *nic, struct nic_revocation *revocation);
/* The device has answered, if it was to be asked at all. What was promised stays so. */
void nic_revocation_end(struct nic *nic, struct nic_revocation *revocation);
/* What is under way goes on as `to`, with a time of its own. */
void nic_revocation_move(struct nic *nic, struct nic_revocation *to, struct nic_revocation *from);

/* The device refused, and the deadline is to ask again. */
void nic_revocation_keep(struct nic *nic, struct nic_revocation *revocation);
/* For the deadline: true when the device is to be asked again now, which takes its time. */
bool nic_revocation_again(struct nic *nic, struct nic_revocation *revocation);
/* The device is lost, so there is nothing to wait for: true when it is to be asked again now. */
bool nic_revocation_hurry(struct nic_revocation *revocation);

/* For the deadline: not confirmed in time. */
void nic_revocation_late(struct nic *nic, struct nic_revocation *revocation);
/* What who waits for it is told then. */
struct nicd_error nic_revocation_promise(struct nic_revocation *revocation);
/* What who waits for it is told of a refusal: DEVICE_FAILED. */
struct nicd_error nic_revocation_refused(const struct nicd_error *cause);
