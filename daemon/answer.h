/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * An answer: one Reply with everything it points to, on the stack of whoever makes it. It is packed into the client's output at once, so
 * strings and lists may be borrowed from objects that are alive right now.
 */
#include "nicd/door.h"
#include "nicd/qp.h"
#include "nicd/region.h"
#include "proto/locator.h"
#include "proto/nicd.pb-c.h"

struct client;
struct nic_mapping;

struct answer {
	Nicd__Reply reply;
	uint64_t result;          /* the id of the object that a result_of names; 0: none */
	Nicd__Error error;
	Nicd__Grant grant;
	union {
		Nicd__HelloReply hello;
		Nicd__AdapterInfo adapter;
		Nicd__ExtensionList extensions;
		Nicd__MemoryInfo memory;
		Nicd__ObjectInfo object;
		Nicd__MrTokens mr;
		Nicd__Receipt receipt;
		Nicd__TokenList tokens;
		Nicd__QpInfo qp;
		Nicd__Completion completion;
		Nicd__DoorInfo door;
		Nicd__MappingInfo mapping;
		Nicd__PrivilegedToken privileged;
		Nicd__ListReply list;
		Nicd__LedgerReply ledger;
	};
	char text[LOCATOR_TEXT_MAX];
	/* For results of many parts; given back by answer_deinit. */
	struct nic_env *env;
	void *mem;
	size_t mem_size;
};

void answer_init(struct answer *answer, uint32_t request);
void answer_deinit(struct answer *answer);
/* Zeroed memory that lives as long as the answer, once. NULL: none. */
void *answer_alloc(struct answer *answer, struct nic_env *env, size_t size);

/* The reply becomes a refusal; a result that is there stays (a failed transfer has its completion). */
void answer_refuse(struct answer *answer, const struct nicd_error *error);
/* All of a reason's row. */
void answer_error(Nicd__Error *ret, const struct nicd_error *error);

/* One result each. */
void answer_adapter(struct answer *answer, const struct nic_adapter *adapter, const struct nic_owner *owner);
void answer_memory(struct answer *answer, const struct nic_memory *memory);
void answer_object(struct answer *answer, const struct nic_object *object);
void answer_mr(struct answer *answer, const struct nic_mr *mr);
void answer_mw(struct answer *answer, const struct nic_mw *mw);
void answer_frmr(struct answer *answer, const struct nic_frmr *frmr);
void answer_receipt(struct answer *answer, uint64_t serial, const struct nic_receipt *receipt);
void answer_token(struct answer *answer, uint32_t token);
void answer_qp(struct answer *answer, const struct nic_qp *qp);
void answer_completion(struct answer *answer, const struct nic_cmd *cmd);
void answer_mapping(struct answer *answer, const struct nic_mapping *mapping);
/* answer_deinit wipes it. */
void answer_privileged(struct answer *answer, struct nic_ptok token);
/* Prints the locator: only in the done callback of the door's opening. */
void answer_door(struct answer *answer, const struct nic_export *door);

/* Pieces that Hello uses too. `text` is where the data address is printed and has room for 64 bytes. */
void answer_fill_adapter(Nicd__AdapterInfo *info, const struct nic_adapter *adapter, const struct nic_owner *owner, char *text);
