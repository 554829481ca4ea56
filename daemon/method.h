/* SPDX-License-Identifier: MIT */
#pragma once
/* The methods, for the table in dispatch-table.c: what each of them does is said in proto/nicd.proto. */
#include "daemon/dispatch.h"

/* session */
int method_hello(struct request *request, struct answer *answer, struct nicd_error *err);
int method_query_adapter(struct request *request, struct answer *answer, struct nicd_error *err);

/* extensions */
int method_query_extension(struct request *request, struct answer *answer, struct nicd_error *err);

/* memory, PD */
int method_add_memory(struct request *request, struct answer *answer, struct nicd_error *err);
int method_create_pd(struct request *request, struct answer *answer, struct nicd_error *err);

/* MR */
int method_create_mr(struct request *request, struct answer *answer, struct nicd_error *err);
int method_register_mr(struct request *request, struct call *call, struct nicd_error *err);
void method_register_mr_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
int method_deregister_mr(struct request *request, struct call *call, struct nicd_error *err);
void method_deregister_mr_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
int method_get_local_token(struct request *request, struct answer *answer, struct nicd_error *err);
int method_get_remote_token(struct request *request, struct answer *answer, struct nicd_error *err);
int method_query_tokens(struct request *request, struct answer *answer, struct nicd_error *err);

/* fast-register MRs */
int method_initialize_fast_register(struct request *request, struct call *call, struct nicd_error *err);
int method_fast_register(struct request *request, struct call *call, struct nicd_error *err);
void method_fast_finish(struct call *call, const struct nicd_error *error, struct answer *answer);

/* Work requests: of a success nobody is told at once, if the flags (enum nic_op_flag, checked) say so and the Qp has room for more. */
void method_silence(struct call *call, const struct nic_qp *qp, uint32_t flags);

/* MW */
int method_create_mw(struct request *request, struct answer *answer, struct nicd_error *err);
int method_bind_mw(struct request *request, struct call *call, struct nicd_error *err);
void method_bind_mw_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
int method_invalidate(struct request *request, struct call *call, struct nicd_error *err);   /* finish: method_end_finish */

/* Qp */
int method_connect_qp(struct request *request, struct call *call, struct nicd_error *err);
int method_read(struct request *request, struct call *call, struct nicd_error *err);
int method_write(struct request *request, struct call *call, struct nicd_error *err);
int method_transfer_list(struct request *request, struct call *call, struct nicd_error *err);
int method_send(struct request *request, struct call *call, struct nicd_error *err);
int method_receive(struct request *request, struct call *call, struct nicd_error *err);
int method_flush(struct request *request, struct call *call, struct nicd_error *err);
int method_disconnect(struct request *request, struct call *call, struct nicd_error *err);
int method_query_qp(struct request *request, struct call *call, struct nicd_error *err);
void method_qp_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
void method_transfer_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
void method_nothing_finish(struct call *call, const struct nicd_error *error, struct answer *answer);

/* mappings */
int method_build_mapping(struct request *request, struct call *call, struct nicd_error *err);
void method_build_mapping_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
int method_get_privileged_token(struct request *request, struct call *call, struct nicd_error *err);
void method_get_privileged_token_finish(struct call *call, const struct nicd_error *error, struct answer *answer);

/* doors */
int method_create_ticket(struct request *request, struct call *call, struct nicd_error *err);
int method_create_export(struct request *request, struct call *call, struct nicd_error *err);
void method_door_finish(struct call *call, const struct nicd_error *error, struct answer *answer);

/* the end of objects */
int method_close(struct request *request, struct call *call, struct nicd_error *err);
int method_revoke(struct request *request, struct call *call, struct nicd_error *err);
void method_end_finish(struct call *call, const struct nicd_error *error, struct answer *answer);

/* by serial */
int method_list(struct request *request, struct call *call, struct nicd_error *err);
void method_list_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
int method_who(struct request *request, struct call *call, struct nicd_error *err);
int method_ledger(struct request *request, struct call *call, struct nicd_error *err);
void method_ledger_finish(struct call *call, const struct nicd_error *error, struct answer *answer);
