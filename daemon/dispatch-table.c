/* SPDX-License-Identifier: MIT */
/*
 * The table of calls: who may make them, when, with which descriptors, naming which objects. A row for each call of
 * nicd.Request; nothing else in the daemon knows their numbers.
 */
#include <stddef.h>

#include "daemon/method.h"

#define ROLE_CLIENT (1u << CLIENT_ROLE_CLIENT)
#define ROLE_ADMIN (1u << CLIENT_ROLE_ADMIN)
#define ROLE_GATEWAY (1u << CLIENT_ROLE_GATEWAY)
/* Owning memory and connections is not for the gateway, which strangers on the network talk to. */
#define OWNERS (ROLE_CLIENT | ROLE_ADMIN)
#define ALL (ROLE_CLIENT | ROLE_ADMIN | ROLE_GATEWAY)

#define NEW (1u << CLIENT_NEW)
#define READY (1u << CLIENT_READY)

#define CALL(NAME) [NICD__REQUEST__CALL_##NAME]
#define RESULT(NAME) .result = NICD__REPLY__RESULT_##NAME
#define REF(message, field, wanted, needed) { offsetof(Nicd__##message, field), NIC_##wanted, REF_##needed }
#define RANGES(message) .ranges = offsetof(Nicd__##message, n_ranges)
#define LATER(who) .roles = (who), .states = READY, .answer = method_to_come

static const struct method methods[] = {
	CALL(HELLO) = { "Hello", ALL, NEW, RESULT(HELLO), .answer = method_hello },
	CALL(RESUME) = { "Resume", LATER(ALL) },

	CALL(QUERY_ADAPTER) = { "QueryAdapter", ALL, READY, .refs = { REF(QueryAdapter, adapter, ADAPTER, REQUIRED) },
				RESULT(ADAPTER), .answer = method_query_adapter },
	CALL(QUERY_EXTENSION) = { "QueryExtension", ALL, READY, .refs = { REF(QueryExtension, object, NONE, REQUIRED) },
				  RESULT(EXTENSIONS), .answer = method_query_extension },

	CALL(ADD_MEMORY) = { "AddMemory", OWNERS, READY, 1, 1, RESULT(MEMORY), .answer = method_add_memory },

	CALL(CREATE_PD) = { "CreatePd", OWNERS, READY, .refs = { REF(CreatePd, adapter, ADAPTER, OPTIONAL) }, RESULT(OBJECT),
			    .answer = method_create_pd },
	CALL(GET_PRIVILEGED_TOKEN) = { "GetPrivilegedToken", OWNERS, READY, .refs = { REF(GetPrivilegedToken, pd, PD, REQUIRED) },
				       RESULT(PRIVILEGED), .turn = NIC_TURN_DEVICE, .start = method_get_privileged_token,
				       .finish = method_get_privileged_token_finish },

	CALL(CREATE_MR) = { "CreateMr", OWNERS, READY, .refs = { REF(CreateMr, pd, PD, REQUIRED) }, RESULT(OBJECT),
			    .answer = method_create_mr },
	CALL(REGISTER_MR) = { "RegisterMr", OWNERS, READY, 0, 1, .refs = { REF(RegisterMr, mr, MR, REQUIRED) },
			      RANGES(RegisterMr), RESULT(MR), .turn = NIC_TURN_DEVICE,
			      .start = method_register_mr, .finish = method_register_mr_finish },
	CALL(DEREGISTER_MR) = { "DeregisterMr", OWNERS, READY, .refs = { REF(DeregisterMr, mr, MR, REQUIRED) },
				RESULT(RECEIPT), .turn = NIC_TURN_DEVICE, .start = method_deregister_mr,
				.finish = method_deregister_mr_finish },
	CALL(GET_LOCAL_TOKEN) = { "GetLocalToken", OWNERS, READY, .refs = { REF(GetLocalToken, mr, MR, REQUIRED) },
				  RESULT(TOKEN), .answer = method_get_local_token },
	CALL(GET_REMOTE_TOKEN) = { "GetRemoteToken", OWNERS, READY, .refs = { REF(GetRemoteToken, mr, NONE, REQUIRED) },
				   RESULT(TOKEN), .answer = method_get_remote_token },
	CALL(QUERY_TOKENS) = { "QueryTokens", OWNERS, READY, RESULT(TOKENS), .answer = method_query_tokens },
	CALL(INITIALIZE_FAST_REGISTER) = { "InitializeFastRegister", OWNERS, READY,
					   .refs = { REF(InitializeFastRegister, mr, MR, REQUIRED) }, RESULT(MR),
					   .turn = NIC_TURN_DEVICE, .start = method_initialize_fast_register,
					   .finish = method_fast_finish },
	CALL(FAST_REGISTER) = { "FastRegister", OWNERS, READY,
				.refs = { REF(FastRegister, mr, MR, REQUIRED), REF(FastRegister, qp, QP, OPTIONAL),
					  REF(FastRegister, mapping, MAPPING, OPTIONAL) },
				RANGES(FastRegister), RESULT(MR), .start = method_fast_register, .finish = method_fast_finish },
	CALL(INVALIDATE) = { "Invalidate", OWNERS, READY,
			     .refs = { REF(Invalidate, object, NONE, REQUIRED), REF(Invalidate, qp, QP, OPTIONAL) }, RESULT(RECEIPT),
			     .start = method_invalidate, .finish = method_end_finish },

	CALL(CREATE_MW) = { "CreateMw", OWNERS, READY, .refs = { REF(CreateMw, pd, PD, REQUIRED) }, RESULT(OBJECT),
			    .answer = method_create_mw },
	CALL(BIND_MW) = { "BindMw", OWNERS, READY,
			  .refs = { REF(BindMw, mw, MW, REQUIRED), REF(BindMw, mr, MR, REQUIRED), REF(BindMw, qp, QP, REQUIRED) },
			  RESULT(MR), .start = method_bind_mw, .finish = method_bind_mw_finish },
	CALL(BUILD_MAPPING) = { "BuildMapping", OWNERS, READY, RANGES(BuildMapping), RESULT(MAPPING), .turn = NIC_TURN_DEVICE,
				.start = method_build_mapping, .finish = method_build_mapping_finish },

	CALL(CONNECT_QP) = { "ConnectQp", OWNERS, READY, .refs = { REF(ConnectQp, pd, PD, REQUIRED) }, RESULT(QP),
			     .turn = NIC_TURN_CONNECT, .start = method_connect_qp, .finish = method_qp_finish },
	CALL(READ) = { "Read", OWNERS, READY, .flags = METHOD_ALWAYS, .refs = { REF(Read, qp, QP, REQUIRED) },
		       RESULT(COMPLETION), .start = method_read, .finish = method_transfer_finish },
	CALL(WRITE) = { "Write", OWNERS, READY, .flags = METHOD_ALWAYS, .refs = { REF(Write, qp, QP, REQUIRED) },
			RESULT(COMPLETION), .start = method_write, .finish = method_transfer_finish },
	CALL(TRANSFER_LIST) = { "TransferList", OWNERS, READY, .flags = METHOD_ALWAYS,
				.refs = { REF(TransferList, qp, QP, REQUIRED) }, RESULT(COMPLETION),
				.start = method_transfer_list, .finish = method_transfer_finish },
	CALL(SEND) = { "Send", OWNERS, READY, .flags = METHOD_ALWAYS, .refs = { REF(Send, qp, QP, REQUIRED) },
		       RESULT(COMPLETION), .start = method_send, .finish = method_transfer_finish },
	CALL(RECEIVE) = { "Receive", OWNERS, READY, .flags = METHOD_ALWAYS | METHOD_DEFERRED,
			  .refs = { REF(Receive, qp, QP, REQUIRED) }, RESULT(COMPLETION), .start = method_receive,
			  .finish = method_transfer_finish },
	CALL(FLUSH) = { "Flush", OWNERS, READY, .refs = { REF(Flush, qp, QP, REQUIRED) }, .start = method_flush,
			.finish = method_nothing_finish },
	CALL(DISCONNECT) = { "Disconnect", OWNERS, READY, .refs = { REF(Disconnect, qp, QP, REQUIRED) },
			     .start = method_disconnect, .finish = method_nothing_finish },
	CALL(QUERY_QP) = { "QueryQp", OWNERS, READY, .refs = { REF(QueryQp, qp, QP, OPTIONAL) }, RESULT(QP),
			   .start = method_query_qp, .finish = method_qp_finish },

	CALL(CREATE_TICKET) = { "CreateTicket", OWNERS, READY, .refs = { REF(CreateTicket, mr, MR, REQUIRED) }, RESULT(DOOR),
				.turn = NIC_TURN_DEVICE, .start = method_create_ticket, .finish = method_door_finish },
	CALL(CREATE_EXPORT) = { "CreateExport", OWNERS, READY, .refs = { REF(CreateExport, mr, MR, REQUIRED) }, RESULT(DOOR),
				.turn = NIC_TURN_DEVICE, .start = method_create_export, .finish = method_door_finish },

	CALL(CLOSE) = { "Close", ALL, READY, .flags = METHOD_DEFERRED, .refs = { REF(Close, object, NONE, REQUIRED) },
			RESULT(RECEIPT), .turn = NIC_TURN_DEVICE, .start = method_close, .finish = method_end_finish },

	CALL(LIST) = { "List", ALL, READY, .flags = METHOD_BULK, RESULT(LIST), .start = method_list,
		       .finish = method_list_finish },
	CALL(WHO) = { "Who", ALL, READY, .flags = METHOD_BULK, RESULT(LIST), .start = method_who,
		      .finish = method_list_finish },
	CALL(REVOKE) = { "Revoke", OWNERS, READY, RESULT(RECEIPT), .start = method_revoke, .finish = method_end_finish },
	CALL(LEDGER) = { "Ledger", OWNERS, READY, .flags = METHOD_BULK, RESULT(LEDGER), .start = method_ledger,
			 .finish = method_ledger_finish },
};

#define RANGES_ARE_TOGETHER(message) \
	_Static_assert(offsetof(Nicd__##message, ranges) == offsetof(Nicd__##message, n_ranges) + sizeof(size_t), "")
RANGES_ARE_TOGETHER(RegisterMr);
RANGES_ARE_TOGETHER(FastRegister);
RANGES_ARE_TOGETHER(BuildMapping);
/* The numbers are used as one in both directions. */
_Static_assert((int)NIC_GRANT == NICD__TYPE__GRANT && (int)CLIENT_ROLE_ADMIN == NICD__ROLE__ADMIN, "");

const struct method *method_find(unsigned call_case)
{
	if (call_case >= sizeof(methods) / sizeof(*methods) || !methods[call_case].name)
		return NULL;
	return &methods[call_case];
}
