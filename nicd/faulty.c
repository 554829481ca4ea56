/* SPDX-License-Identifier: MIT */
/*
 * The faulty provider. Every command that passes through is a `shot`: it owns the command that the inner provider sees, and gives its
 * outcome to the outer one when the rules say so. A shot lives until the outer command has ended and no timer holds it any
 * more. The inner provider's events come in by a handle that is really the faulty provider.
 */
#include "nicd/faulty.h"

#include <stdlib.h>
#include <string.h>

enum op {
	OP_MEMORY_ATTACH,
	OP_MEMORY_DETACH,
	OP_TAG_ADD,
	OP_TAG_DROP,
	OP_MAPPING_ADD,
	OP_MAPPING_DROP,
	OP_KEY_ADD,
	OP_KEY_DROP,
	OP_DOOR_ADD,
	OP_DOOR_DROP,
	OP_QP_CONNECT,
	OP_QP_POST,
	OP_QP_FLUSH,
	OP_QP_DISCONNECT,
	OP_QP_QUERY,
	OP_STATS,
	OP_ANY,
	OP_COUNT
};

static const char *const op_names[OP_COUNT] = {
	"memory_attach", "memory_detach", "tag_add", "tag_drop", "mapping_add", "mapping_drop", "key_add", "key_drop",
	"door_add", "door_drop", "qp_connect", "qp_post", "qp_flush", "qp_disconnect", "qp_query", "stats", "any",
};

enum { RULES = 16 };

struct rule {
	enum op op;
	uint64_t delay_ns;
	bool never;
	enum nicd_reason fail;
	uint64_t skip, every, times;   /* every, times: 0: no limit */
	uint64_t seen, hits;
};

struct rules {
	unsigned n;
	struct rule rule[RULES];
};

struct shot {
	TAILQ_ENTRY(shot) next;
	struct nic_faulty *faulty;   /* NULL: the outer command has ended */
	struct nic_cmd *outer;
	struct nic_cmd cmd;
	uint64_t delay_ns;
	bool never;
	bool asked;                  /* the inner provider has it */
	bool timed;                  /* a timer has it */
};

struct nic_faulty {
	struct nic_provider provider;
	struct nic_provider_ops ops;
	struct nic_provider *inner;
	const struct nic_faulty_host *host;
	struct rules rules;
	TAILQ_HEAD(, shot) shots;
};

/* ---- specs */

static bool parse_number(const char **text, uint64_t *ret)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	*ret = strtoull(*text, &end, 10);
	*text = end;
	return true;
}

static bool parse_delay(const char **text, uint64_t *ret)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = { { "ns", 1 }, { "us", 1000 }, { "ms", 1000 * 1000 }, { "s", 1000 * 1000 * 1000 } };

	if (!parse_number(text, ret))
		return false;
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t len = strlen(units[i].name);

		if (strncmp(*text, units[i].name, len) == 0) {
			*text += len;
			return !__builtin_mul_overflow(*ret, units[i].ns, ret);
		}
	}
	return false;
}

static bool parse_reason(const char **text, enum nicd_reason *ret)
{
	size_t len = strcspn(*text, ":,");

	for (uint32_t i = 1; i < 256; i++) {
		const struct nicd_reason_info *info = nicd_reason_info(i);

		if (info->reason == i && strlen(info->name) == len && strncmp(info->name, *text, len) == 0) {
			*ret = info->reason;
			*text += len;
			return true;
		}
	}
	return false;
}

static bool parse_word(const char **text, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*text, word, len) != 0)
		return false;
	*text += len;
	return true;
}

static bool parse_what(const char **text, struct rule *rule)
{
	if (parse_word(text, "delay="))
		return parse_delay(text, &rule->delay_ns);
	if (parse_word(text, "skip="))
		return parse_number(text, &rule->skip);
	if (parse_word(text, "every="))
		return parse_number(text, &rule->every) && rule->every > 0;
	if (parse_word(text, "times="))
		return parse_number(text, &rule->times) && rule->times > 0;
	if (parse_word(text, "fail="))
		return parse_reason(text, &rule->fail);
	if (parse_word(text, "fail")) {
		rule->fail = NICD_R_DEVICE_FAILED;
		return true;
	}
	rule->never = parse_word(text, "never");
	return rule->never;
}

static bool parse_rule(const char **text, struct rule *rule)
{
	size_t len = strcspn(*text, ":,");

	*rule = (struct rule){ .op = OP_COUNT };
	for (unsigned i = 0; i < OP_COUNT; i++)
		if (strlen(op_names[i]) == len && strncmp(op_names[i], *text, len) == 0)
			rule->op = i;
	if (rule->op == OP_COUNT)
		return false;
	*text += len;
	while (**text == ':') {
		++*text;
		if (!parse_what(text, rule))
			return false;
	}
	return **text == ',' || **text == 0;
}

/* The empty spec has no rules. */
static int parse_rules(struct rules *rules, const char *spec, struct nicd_error *err)
{
	const char *text = spec;

	*rules = (struct rules){ 0 };
	while (*text) {
		if (rules->n == RULES || !parse_rule(&text, &rules->rule[rules->n]))
			return nicd_refuse_at(err, NICD_R_VALUE, 0, (uint64_t)(text - spec));
		rules->n++;
		if (*text == ',' && *++text == 0)
			return nicd_refuse_at(err, NICD_R_VALUE, 0, (uint64_t)(text - spec));
	}
	return 0;
}

static const struct rule *rules_hit(struct rules *rules, enum op op)
{
	for (unsigned i = 0; i < rules->n; i++) {
		struct rule *rule = &rules->rule[i];

		if (rule->op != op && rule->op != OP_ANY)
			continue;
		if (rule->seen++ < rule->skip)
			continue;
		if (rule->every > 0 && (rule->seen - rule->skip) % rule->every != 0)
			continue;
		if (rule->times > 0 && rule->hits == rule->times)
			continue;
		rule->hits++;
		return rule;
	}
	return NULL;
}

/* ---- shots */

static void shot_free(struct shot *shot)
{
	if (!shot->faulty && !shot->timed)
		free(shot);
}

/* The outer command ends, with what the inner one ended with or `reason`. */
static void shot_end(struct shot *shot, enum nicd_reason reason)
{
	struct nic_cmd *outer = shot->outer, result = shot->cmd;

	if (reason != NICD_R_NONE)
		nicd_refuse(&result.error, reason);
	result.done = outer->done;
	TAILQ_REMOVE(&shot->faulty->shots, shot, next);
	shot->faulty = NULL;
	shot_free(shot);
	*outer = result;
	outer->done(outer);
}

static void shot_timer(void *arg)
{
	struct shot *shot = arg;

	shot->timed = false;
	if (shot->faulty)
		shot_end(shot, NICD_R_NONE);
	else
		shot_free(shot);
}

/* The outcome is known. A lost device's is never late; a shot that is `never` stays where it is, and end_waiting finds it. */
static void shot_over(struct shot *shot)
{
	const struct nic_faulty_host *host = shot->faulty->host;
	bool lost = shot->cmd.error.reason == NICD_R_DEVICE_LOST;

	if (lost || (shot->delay_ns == 0 && !shot->never)) {
		shot_end(shot, NICD_R_NONE);
	} else if (!shot->never) {
		shot->timed = true;
		host->timer(host, shot->delay_ns, shot_timer, shot);
	}
}

static void shot_done(struct nic_cmd *cmd)
{
	struct shot *shot = (struct shot *)((char *)cmd - offsetof(struct shot, cmd));

	shot->asked = false;
	shot_over(shot);
}

/* The command for the inner provider; NULL: it is not to be asked, the rest is done. */
static struct nic_cmd *shot_new(struct nic_faulty *faulty, enum op op, struct nic_cmd *outer)
{
	const struct rule *rule = rules_hit(&faulty->rules, op);
	struct shot *shot = calloc(1, sizeof(*shot));

	if (!shot) {
		nicd_refuse(&outer->error, NICD_R_NO_MEMORY);
		outer->done(outer);
		return NULL;
	}
	shot->faulty = faulty;
	shot->outer = outer;
	shot->cmd.done = shot_done;
	if (rule) {
		shot->delay_ns = rule->delay_ns;
		shot->never = rule->never;
	}
	TAILQ_INSERT_TAIL(&faulty->shots, shot, next);
	if (rule && rule->fail != NICD_R_NONE) {
		nicd_refuse(&shot->cmd.error, rule->fail);
		shot_over(shot);
		return NULL;
	}
	shot->asked = true;
	return &shot->cmd;
}

/* Ends those that only wait for us; what the inner provider still has is its own to end. */
static void end_waiting(struct nic_faulty *faulty, bool only_never, enum nicd_reason reason)
{
	struct shot *shot;
	bool found = true;

	while (found) {
		found = false;
		TAILQ_FOREACH(shot, &faulty->shots, next)
			if (!shot->asked && (shot->never || !only_never)) {
				shot_end(shot, reason);
				found = true;
				break;
			}
	}
}

/* ---- ops */

static struct nic_faulty *faulty_of(struct nic_provider *p)
{
	return (struct nic_faulty *)p;
}

static uint64_t faulty_cost(struct nic_provider *p, enum nic_cost what, uint64_t bytes)
{
	struct nic_provider *inner = faulty_of(p)->inner;

	return inner->ops->cost(inner, what, bytes);
}

/* One op like the other: through a shot to the inner provider. */
#define FAULTY_OP(name, op, args, ...) \
	static void faulty_##name args \
	{ \
		struct nic_provider *inner = faulty_of(p)->inner; \
\
		cmd = shot_new(faulty_of(p), op, cmd); \
		if (cmd) \
			inner->ops->name(inner, __VA_ARGS__); \
	}

FAULTY_OP(memory_attach, OP_MEMORY_ATTACH, (struct nic_provider *p, const struct nic_attach *what, struct nic_cmd *cmd), what, cmd)
FAULTY_OP(memory_detach, OP_MEMORY_DETACH, (struct nic_provider *p, uint64_t memory, struct nic_cmd *cmd), memory, cmd)
FAULTY_OP(tag_add, OP_TAG_ADD, (struct nic_provider *p, const struct nic_tag *what, struct nic_cmd *cmd), what, cmd)
FAULTY_OP(tag_drop, OP_TAG_DROP,
	  (struct nic_provider *p, uint64_t serial, uint32_t generation, const struct nic_order *order, struct nic_cmd *cmd), serial,
	  generation, order, cmd)
FAULTY_OP(mapping_add, OP_MAPPING_ADD, (struct nic_provider *p, const struct nic_map *what, struct nic_cmd *cmd), what, cmd)
FAULTY_OP(mapping_drop, OP_MAPPING_DROP, (struct nic_provider *p, uint64_t serial, struct nic_cmd *cmd), serial, cmd)
FAULTY_OP(key_add, OP_KEY_ADD, (struct nic_provider *p, uint64_t pd, uint64_t owner, struct nic_cmd *cmd), pd, owner, cmd)
FAULTY_OP(key_drop, OP_KEY_DROP, (struct nic_provider *p, uint64_t pd, struct nic_cmd *cmd), pd, cmd)
FAULTY_OP(door_add, OP_DOOR_ADD, (struct nic_provider *p, const struct nic_door *what, struct nic_cmd *cmd), what, cmd)
FAULTY_OP(door_drop, OP_DOOR_DROP, (struct nic_provider *p, uint64_t serial, bool cut, struct nic_cmd *cmd), serial, cut, cmd)
FAULTY_OP(qp_connect, OP_QP_CONNECT, (struct nic_provider *p, const struct nic_connect *what, struct nic_cmd *cmd), what, cmd)
FAULTY_OP(qp_post, OP_QP_POST, (struct nic_provider *p, const struct nic_post *what, struct nic_cmd *cmd), what, cmd)
FAULTY_OP(qp_flush, OP_QP_FLUSH, (struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd), qp, cmd)
FAULTY_OP(qp_disconnect, OP_QP_DISCONNECT, (struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd), qp, cmd)
FAULTY_OP(qp_query, OP_QP_QUERY, (struct nic_provider *p, uint64_t qp, struct nic_cmd *cmd), qp, cmd)
FAULTY_OP(stats, OP_STATS, (struct nic_provider *p, struct nic_cmd *cmd), cmd)

static void faulty_push(struct nic_provider *p)
{
	struct nic_provider *inner = faulty_of(p)->inner;

	inner->ops->push(inner);
}

static void faulty_free(struct nic_provider *p)
{
	struct nic_faulty *faulty = faulty_of(p);

	faulty->inner->ops->free(faulty->inner);
	end_waiting(faulty, false, NICD_R_DEVICE_LOST);
	free(faulty);
}

static const struct nic_provider_ops faulty_ops = {
	.cost = faulty_cost,
	.memory_attach = faulty_memory_attach,
	.memory_detach = faulty_memory_detach,
	.tag_add = faulty_tag_add,
	.tag_drop = faulty_tag_drop,
	.mapping_add = faulty_mapping_add,
	.mapping_drop = faulty_mapping_drop,
	.key_add = faulty_key_add,
	.key_drop = faulty_key_drop,
	.door_add = faulty_door_add,
	.door_drop = faulty_door_drop,
	.qp_connect = faulty_qp_connect,
	.qp_post = faulty_qp_post,
	.qp_flush = faulty_qp_flush,
	.qp_disconnect = faulty_qp_disconnect,
	.qp_query = faulty_qp_query,
	.stats = faulty_stats,
	.push = faulty_push,
	.free = faulty_free,
};

/* ---- events: the inner provider's adapter is ourselves */

static struct nic_provider *outer_of(struct nic_adapter *handle)
{
	return &((struct nic_faulty *)(void *)handle)->provider;
}

static void on_stream_opened(struct nic_adapter *handle, uint64_t stream, uint64_t door, const char *peer)
{
	struct nic_provider *p = outer_of(handle);

	p->events->stream_opened(p->adapter, stream, door, peer);
}

static void on_stream_closed(struct nic_adapter *handle, uint64_t stream, const struct nicd_error *why,
			     const struct nic_counters *counters)
{
	struct nic_provider *p = outer_of(handle);

	p->events->stream_closed(p->adapter, stream, why, counters);
}

static void on_door_expired(struct nic_adapter *handle, uint64_t door)
{
	struct nic_provider *p = outer_of(handle);

	p->events->door_expired(p->adapter, door);
}

static void on_stream_notified(struct nic_adapter *handle, uint64_t stream, uint64_t count)
{
	struct nic_provider *p = outer_of(handle);

	p->events->stream_notified(p->adapter, stream, count);
}

static void on_tag_invalidated(struct nic_adapter *handle, uint64_t serial, uint32_t generation)
{
	struct nic_provider *p = outer_of(handle);

	p->events->tag_invalidated(p->adapter, serial, generation);
}

static void on_lost(struct nic_adapter *handle)
{
	struct nic_provider *p = outer_of(handle);

	end_waiting(faulty_of(p), false, NICD_R_DEVICE_LOST);
	p->events->lost(p->adapter);
}

static const struct nic_provider_events inner_events = {
	.stream_opened = on_stream_opened,
	.stream_closed = on_stream_closed,
	.door_expired = on_door_expired,
	.stream_notified = on_stream_notified,
	.tag_invalidated = on_tag_invalidated,
	.lost = on_lost,
};

int nic_faulty_new(struct nic_provider **ret, struct nic_provider *inner, const char *spec, const struct nic_faulty_host *host,
		   struct nicd_error *err)
{
	struct nic_faulty *faulty = calloc(1, sizeof(*faulty));
	int r;

	if (!faulty)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	r = parse_rules(&faulty->rules, spec, err);
	if (r < 0) {
		free(faulty);
		return r;
	}
	faulty->provider = *inner;
	faulty->ops = faulty_ops;
	faulty->ops.name = inner->ops->name;
	faulty->provider.ops = &faulty->ops;
	faulty->inner = inner;
	faulty->host = host;
	TAILQ_INIT(&faulty->shots);
	inner->adapter = (struct nic_adapter *)(void *)faulty;
	inner->events = &inner_events;
	*ret = &faulty->provider;
	return 0;
}

int nic_faulty_set(struct nic_provider *provider, const char *spec, struct nicd_error *err)
{
	struct nic_faulty *faulty = faulty_of(provider);
	struct rules rules;
	int r = parse_rules(&rules, spec, err);

	if (r < 0)
		return r;
	faulty->rules = rules;
	end_waiting(faulty, true, NICD_R_NONE);
	return 0;
}
