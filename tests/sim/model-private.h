/* SPDX-License-Identifier: MIT */
#pragma once
/* What the parts of the model tell each other. */
#include <stddef.h>

#include "tests/sim/model.h"
#include "tests/sim/trace.h"

#define BIT(n) (1u << (n))

/* ---- model.c */

struct m_object *model_new(struct model *m, enum sim_type type, int client, struct m_object *parent);
void model_over(struct model *m, struct m_object *o);
/* Of a PD: its adapter is up. */
bool model_adapter_up(const struct m_object *pd);
/* It stands in a PD of this adapter. */
bool model_on(const struct m_object *o, int adapter);
/* Its session is being released: nobody knows how far that is. */
bool model_leaving(const struct model *m, const struct m_object *o);
bool model_visible(const struct model *m, int client, const struct m_object *object);
bool model_holds(const struct m_object *o, const struct m_object *pd);
void model_owe(struct model *m, struct m_object *object, enum sim_event kind);
uint64_t model_tag_cost(const struct model *m, uint64_t bytes);
uint64_t model_attach_cost(const struct model *m, uint64_t bytes);
unsigned model_memory_users(const struct model *m, const struct m_object *memory);

/* ---- model-mr.c, model-door.c, model-qp.c; model_settle_…: did anything change? */

bool model_remote_rights(uint32_t rights);
/* Nothing of what was revoked is there any more. */
bool model_is_revoked(const struct m_object *o);
/* Its revocation takes longer than whoever waits for it does. */
bool model_late(const struct model *m, const struct m_object *o);
void model_revoke_mr(struct model *m, struct m_object *mr, bool tell);
bool model_settle_mr(struct model *m, struct m_object *o);
void model_kill_door(struct model *m, struct m_object *door, bool tell);
void model_door_shut(struct model *m, struct m_object *o);
void model_end_door(struct model *m, struct m_object *o, bool ok);
bool model_settle_door(struct model *m, struct m_object *o);
struct m_object *model_stream(const struct model *m, int adapter, uint64_t stream);
void model_grant_over(struct model *m, struct m_object *qp);
void model_disconnected(struct model *m, struct m_object *qp, bool tell);
void model_end_connect(struct model *m, struct m_object *o, bool ok);
void model_end_disconnect(struct model *m, struct m_command *k, uint32_t status);
bool model_settle_qp(struct model *m, struct m_object *o);

/* ---- model-mw.c, model-fast.c */

bool model_waits_for_windows(const struct model *m, const struct m_object *mr);
bool model_has_windows(const struct model *m, const struct m_object *mr);
/* They go, whatever their owner says. */
void model_evict(struct model *m, struct m_object *mr);
void model_overtake(struct m_object *o);
void model_invalidate(struct model *m, struct m_object *o);
/* It is being invalidated, and the device has let it go. */
bool model_dropped(const struct m_object *o);
void model_qp_lost(struct model *m, struct m_object *qp);
bool model_settle_mw(struct model *m, struct m_object *o);
bool model_settle_fast(struct model *m, struct m_object *o);
/* The device has answered: with which statuses may nicd? */
uint32_t model_bound(struct model *m, struct m_object *o, uint32_t status, uint32_t remote);
uint32_t model_fast_registered(struct model *m, struct m_object *o, uint32_t status, uint32_t local, uint32_t remote);
void model_reserved(struct model *m, struct m_object *o, uint32_t status, uint32_t local, uint32_t remote);
void model_fast_failed(struct m_object *o);
void model_bind_failed(struct m_object *o);
bool model_mw_invalidated(struct model *m, struct m_object *o);
bool model_fast_invalidated(struct model *m, struct m_object *o);
void model_let_qp_go(struct m_object *o);
uint32_t model_flags_refused(uint32_t flags, uint32_t taken);
/* Operation flags as rights of an MR. */
uint32_t model_rights_of(uint32_t flags);
uint32_t model_work_refused(const struct m_object *qp, const struct m_object *pd);
uint32_t model_begin_create_mw(struct model *m, struct m_request *r, uint32_t *maybe);
uint32_t model_begin_bind(struct model *m, struct m_request *r, uint32_t *maybe);
uint32_t model_begin_invalidate(struct model *m, struct m_request *r);
uint32_t model_begin_initialize(struct model *m, struct m_request *r);
uint32_t model_begin_fast_register(struct model *m, struct m_request *r, uint32_t *maybe);

/* ---- model-mapping.c */

struct m_object *model_newest_adapter(const struct model *m);
bool model_mapping_stands(const struct model *m, const struct m_object *o);
bool model_settle_mapping(struct model *m, struct m_object *o);
void model_mapping_lost(struct m_object *o);
uint32_t model_begin_mapping(struct model *m, struct m_request *r, uint32_t *maybe);
uint32_t model_begin_privileged(struct model *m, struct m_request *r);
void model_check_mapping(struct model *m, struct m_request *r, const struct sim_reply *p);
void model_map(struct model *m, struct m_object *o, const struct sim_op_args *args);
void model_key(struct model *m, struct m_object *pd, const struct sim_op_args *args);

/* ---- model-command.c */

/* With this status the device has nothing any more of what was to be taken from it: a lost one holds nothing. */
bool model_let_go(uint32_t status);
/* A token that died is not to come again for 10 s. */
void model_token_rests(struct model *m, int adapter, uint32_t token);

/* ---- model-request.c, model-begin.c, model-work.c */

bool model_is_call(enum sim_call call);
/* It counts as one of its session's and account's requests in flight. */
bool model_counts_as_call(const struct m_request *r);
/* Memory was refused to a request before it had done anything: all is as it was. */
void model_restore(struct model *m);
/* With which statuses it must be refused before its method sees it; 0: none. */
uint32_t model_admission(struct model *m, struct m_request *r, bool *waits);
bool model_may_queue(const struct model *m, const struct m_request *r);
uint32_t model_unstarted(struct model *m, struct m_request *r);
struct m_object *model_resolve(struct model *m, const struct m_request *r, const struct sim_ref *ref);
/* It begins. The statuses with which it must be refused; 0: none. */
uint32_t model_begin(struct model *m, struct m_request *r, uint32_t *maybe);
/* What it takes of the account: too much, or maybe too much. */
/* A range that a request names; without a memory when there is none. */
struct m_range model_range(struct model *m, const struct m_request *r, unsigned i);
/* `page` 0: each memory's own. */
uint32_t model_check_chain(const struct m_range *ranges, unsigned n, uint32_t page, uint64_t *total);
uint64_t model_attach_need(const struct model *m, const struct m_object *o, int adapter);
void model_need(struct model *m, struct m_request *r, enum sim_slot slot, uint64_t n, uint32_t *refused, uint32_t *maybe);
uint32_t model_begin_connect(struct model *m, struct m_request *r, uint32_t *maybe);
uint32_t model_begin_work(struct model *m, struct m_request *r, uint32_t *maybe);
uint32_t model_begin_query(struct model *m, struct m_request *r);
void model_post(struct model *m, struct m_command *k, const struct sim_op_args *args);
void model_unpost(struct model *m, struct m_command *k);
bool model_is_post(enum sim_call call);
void model_check_completion(struct model *m, const struct m_request *r, const struct sim_reply *p);
/* Of this Qp nothing may be unanswered that was posted before. */
void model_check_flushed(struct model *m, const struct m_request *r, const struct m_object *qp);

/* ---- model-usage.c */

/* Would n more be too many? 0: no, 1: maybe, 2: yes. */
int model_quota(const struct model *m, int account, enum sim_slot slot, uint64_t n);
