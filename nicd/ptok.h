/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The privileged token of a PD: as local token of work requests on Qps of that PD it reads and writes what the session has mapped, by logical
 * addresses. It must never be of any use to a peer. That it is a type of its own, which no function takes that writes to peers, is the first of the
 * walls around it:
 *
 *   1. this type: it is not a token of a tag, and nothing that goes to a peer is made of it;
 *   2. no protocol towards peers has a field that it could be in (grant, locator, accept, private data);
 *   3. at the device a key has local rights only, in a table of its own that no tag's token is looked up in;
 *   4. what comes from a peer is looked up among tags only, and a key's value is refused there before.
 *
 * nicd keeps none: it asks the device each time, hands the answer on to the session that asked, and wipes it.
 */
#include <stdint.h>

struct nic_ptok {
	uint32_t v;
};
