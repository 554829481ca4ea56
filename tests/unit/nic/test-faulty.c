/* SPDX-License-Identifier: MIT */
/* The faulty provider in front of the fake one, with the NIC layer on top. */
#include "tests/unit/nic/rig.h"

#include <stdlib.h>

#include "nicd/faulty.h"

enum { TIMERS = 16 };

struct timer {
	uint64_t at;
	void (*fn)(void *arg);
	void *arg;
};

struct stage {
	struct nic_faulty_host host;
	struct fake_env env;
	struct nic nic;
	struct fake *fake;
	struct nic_provider *faulty;
	struct nic_adapter *adapter;
	struct nic_owner owner;
	struct nic_memory *memory;
	struct nic_pd *pd;
	struct nic_mr *mr;
	unsigned confirmed, device_state;
	struct timer timers[TIMERS];
	unsigned n_timers;
	struct rig_done done;
};

static void stage_timer(const struct nic_faulty_host *host, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
	struct stage *stage = (struct stage *)((char *)(uintptr_t)host - offsetof(struct stage, host));

	assert_true(stage->n_timers < TIMERS);
	stage->timers[stage->n_timers++] = (struct timer){ stage->env.now + delay_ns, fn, arg };
}

static void stage_later(struct stage *stage, uint64_t ns)
{
	stage->env.now += ns;
	for (unsigned i = 0; i < stage->n_timers; i++)
		if (stage->timers[i].fn && stage->timers[i].at <= stage->env.now) {
			void (*fn)(void *arg) = stage->timers[i].fn;

			stage->timers[i].fn = NULL;
			fn(stage->timers[i].arg);
		}
	nic_tick(&stage->nic);
}

static void on_event(struct nic_owner *owner, struct nic_object *object, enum nic_event event, uint64_t serial,
		     const struct nicd_error *error)
{
	struct stage *stage = (struct stage *)((char *)owner - offsetof(struct stage, owner));

	stage->confirmed += event == NIC_EVENT_REVOKE_CONFIRMED;
	stage->device_state += event == NIC_EVENT_DEVICE_STATE;
}

static struct stage *stage_new(const char *spec)
{
	struct nic_memory_facts facts = { .fd = 3, .size = RIG_PAGE, .page_size = RIG_PAGE, .writable = true };
	struct nic_settings settings = { .revoke_timeout_ns = 5000 };
	struct stage *stage = calloc(1, sizeof(*stage));
	struct nic_account *account;
	struct nicd_error err;

	stage->host.timer = stage_timer;
	fake_env_init(&stage->env);
	nic_init(&stage->nic, &stage->env.env, NULL, &settings);
	stage->fake = fake_new();
	assert_int_equal(nic_faulty_new(&stage->faulty, &stage->fake->provider, spec, &stage->host, &err), 0);
	assert_int_equal(nic_adapter_new(&stage->adapter, &stage->nic, stage->faulty), 0);
	assert_int_equal(nic_account_get(&stage->nic.accounts, "uid:1", &account), 0);
	nic_owner_init(&stage->owner, &stage->nic, account, 1);
	nic_account_unref(account);
	stage->owner.event = on_event;
	assert_int_equal(nic_memory_new(&stage->memory, &stage->owner, &facts, true, &err), 0);
	assert_int_equal(nic_pd_new(&stage->pd, &stage->owner, stage->adapter, &err), 0);
	assert_int_equal(nic_mr_new(&stage->mr, stage->pd, &err), 0);
	return stage;
}

static void stage_free(struct stage *stage)
{
	struct nicd_error err;

	while (nic_owner_release(&stage->owner, 10))
		;
	assert_int_equal(nic_faulty_set(stage->faulty, "", &err), 0);
	for (unsigned i = 0; i < 5; i++)
		stage_later(stage, 1000000000);
	assert_int_equal(stage->owner.n_objects, 0);
	nic_owner_deinit(&stage->owner);
	nic_deinit(&stage->nic);
	assert_int_equal(stage->env.live_blocks, 0);
	free(stage);
}

static struct rig_done *stage_register(struct stage *stage)
{
	assert_int_equal(rig_register(stage->mr, stage->memory, 0, 1, NIC_REMOTE_READ, &stage->done), 0);
	return &stage->done;
}

static struct rig_done *stage_deregister(struct stage *stage)
{
	struct nicd_error err;

	assert_int_equal(nic_mr_deregister(stage->mr, rig_done(&stage->done), &err), 0);
	return &stage->done;
}

/* mutation: change anything that passes through when no rule fits */
static void test_no_rules(void **state)
{
	struct stage *stage = stage_new("");

	assert_string_equal(stage->adapter->provider->ops->name, "fake");
	assert_int_equal(stage->adapter->provider->incarnation, 4711);
	for (unsigned i = 0; i < 3; i++) {
		assert_ended(*stage_register(stage));
		assert_int_not_equal(stage->mr->remote_token, 0);
		assert_ended(*stage_deregister(stage));
	}
	nic_push(&stage->nic);
	assert_int_equal(stage->fake->pushes, 1);
	stage_free(stage);
}

/* mutation: answer before the delay is over, or let the effect wait with the answer */
static void test_delay(void **state)
{
	struct stage *stage = stage_new("tag_drop:delay=3us");

	stage_register(stage);
	stage_deregister(stage);
	assert_int_equal(stage->done.calls, 0);
	assert_int_equal(fake_tag_token(stage->fake, stage->mr->object.serial), 0);
	stage_later(stage, 2999);
	assert_int_equal(stage->done.calls, 0);
	stage_later(stage, 1);
	assert_ended(stage->done);
	stage_free(stage);
}

/* mutation: confirm what is never to be confirmed, or not when the next spec comes */
static void test_never(void **state)
{
	struct stage *stage = stage_new("tag_drop:never");
	struct nicd_error err;

	stage_register(stage);
	stage_deregister(stage);
	stage_later(stage, 5000);
	assert_refused(stage->done, REVOKE_UNCONFIRMED);
	assert_int_equal(stage->nic.quarantined, 1);
	stage_later(stage, 500000);
	assert_int_equal(stage->confirmed, 0);
	assert_int_equal(nic_faulty_set(stage->faulty, "tag_drop:delay=1s", &err), 0);
	assert_int_equal(stage->confirmed, 1);
	assert_int_equal(stage->mr->state, NIC_MR_CREATED);
	stage_free(stage);
}

/* mutation: count commands of other ops, start every at the first, or ask the device when it is to fail */
static void test_every_third_fails(void **state)
{
	struct stage *stage = stage_new("tag_drop:delay=200ms:every=3:fail");

	stage->nic.settings.revoke_timeout_ns = 1000000000;
	for (unsigned i = 1; i <= 9; i++) {
		unsigned asked = stage->fake->calls[FAKE_TAG_DROP];

		if (stage->mr->state == NIC_MR_CREATED)
			stage_register(stage);
		stage_deregister(stage);
		if (i % 3 == 0) {
			assert_int_equal(stage->fake->calls[FAKE_TAG_DROP], asked);
			assert_int_equal(stage->done.calls, 0);
			stage_later(stage, 200000000);
			assert_refused(stage->done, DEVICE_FAILED);
			assert_int_equal(stage->mr->state, NIC_MR_ERROR);
		} else {
			assert_ended(stage->done);
		}
	}
	stage_free(stage);
}

/* mutation: mix up skip, every and times; take the second rule that fits */
static void test_counting(void **state)
{
	/* f: fails */
	static const struct {
		const char *spec, *want;
	} rows[] = {
		{ "tag_add:fail", "ffffff" },
		{ "tag_add:skip=2:fail", "..ffff" },
		{ "tag_add:times=2:fail", "ff...." },
		{ "tag_add:skip=1:times=1:fail", ".f...." },
		{ "tag_add:every=2:fail", ".f.f.f" },
		{ "tag_add:skip=1:every=2:times=1:fail", "..f..." },
		{ "tag_add:times=1,tag_add:fail", ".fffff" },
		{ "tag_drop:never,tag_add:fail=TAGS_EXHAUSTED", "ffffff" },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct stage *stage = stage_new(rows[i].spec);

		for (unsigned j = 0; rows[i].want[j]; j++) {
			stage_register(stage);
			assert_int_equal(stage->done.calls, 1);
			if ((stage->done.error.reason != NICD_R_NONE) != (rows[i].want[j] == 'f'))
				fail_msg("%s: registration %u", rows[i].spec, j + 1);
			if (stage->done.error.reason == NICD_R_NONE)
				assert_ended(*stage_deregister(stage));
		}
		stage_free(stage);
	}
}

/* mutation: let `any` fit no op, or only one */
static void test_any(void **state)
{
	struct stage *stage = stage_new("any:fail=DEVICE_BUSY:times=2");

	assert_refused(*stage_register(stage), DEVICE_BUSY);   /* attach */
	assert_refused(*stage_register(stage), DEVICE_BUSY);   /* attach again */
	assert_ended(*stage_register(stage));
	stage_free(stage);
}

/* mutation: accept anything that the grammar does not have */
static void test_bad_specs(void **state)
{
	static const char *const specs[] = { "x", "tag_dro", "tag_dropp", "tag_drop:", "tag_drop:x", "tag_drop:delay", "tag_drop:delay=",
					     "tag_drop:delay=5", "tag_drop:delay=5m", "tag_drop:delay=-5ms", "tag_drop:every=0",
					     "tag_drop:fail=NO_SUCH_REASON", "tag_drop:fail=", "tag_drop:neverr", "tag_drop,", ",",
					     "tag_drop,,tag_add", "tag_drop:delay=99999999999999999999s", "tag_drop:times=0",
					     "any,any,any,any,any,any,any,any,any,any,any,any,any,any,any,any,any" };
	struct fake *fake = fake_new();
	struct nic_provider *p = NULL;
	struct nicd_error err;

	for (unsigned i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		if (nic_faulty_new(&p, &fake->provider, specs[i], NULL, &err) == 0)
			fail_msg("accepted: %s", specs[i]);
		assert_int_equal(err.reason, NICD_R_VALUE);
		assert_null(p);
	}
	assert_int_equal(nic_faulty_new(&p, &fake->provider, "any", NULL, &err), 0);
	assert_int_equal(nic_faulty_set(p, "any:any", &err), -EINVAL);
	assert_int_equal(err.observed, 4);
	p->ops->free(p);
}

/* mutation: let a delayed or held answer outlive the device, or touch the freed provider from its timer */
static void test_lost_and_freed(void **state)
{
	static const char *const specs[] = { "tag_drop:never", "tag_drop:delay=1s", "", "tag_drop:delay=1s" };

	for (unsigned i = 0; i < 8; i++) {
		struct stage *stage = stage_new(specs[i / 2]);
		bool lose = i & 1, held = i >= 4;

		stage_register(stage);
		fake_hold(stage->fake, FAKE_TAG_DROP, held);
		stage_deregister(stage);
		assert_int_equal(stage->done.calls, 0);
		if (lose) {
			fake_lose(stage->fake, false);
			assert_ended(stage->done);
			assert_int_equal(stage->device_state, 1);
		}
		while (nic_owner_release(&stage->owner, 10))
			;
		nic_adapter_free(stage->adapter);
		assert_ended(stage->done);
		assert_int_equal(stage->owner.n_objects, 0);
		assert_int_equal(stage->n_timers, i / 2 == 1);   /* none for what a lost device ended */
		nic_owner_deinit(&stage->owner);
		nic_deinit(&stage->nic);
		stage_later(stage, 2000000000);
		assert_int_equal(stage->env.live_blocks, 0);
		free(stage);
	}
}

/* mutation: hand events to the inner provider's adapter */
static void test_events_pass(void **state)
{
	struct stage *stage = stage_new("door_add:delay=1us");
	struct nic_door_terms terms = { .name = "data", .rights = NIC_REMOTE_READ };
	struct nic_counters counters = { .peer_read = 5 };
	struct nic_export *door;
	struct nicd_error err;
	uint64_t stream;

	stage_register(stage);
	assert_int_equal(nic_export_new(&door, stage->mr, &terms, rig_done(&stage->done), &err), 0);
	assert_int_equal(stage->done.calls, 0);
	stream = fake_stream_open(stage->fake, door->object.serial, "127.0.0.2:5");   /* before its answer */
	assert_int_equal(stage->nic.count[NIC_QP], 1);
	stage_later(stage, 1000);
	assert_ended(stage->done);
	fake_stream_close(stage->fake, stream, NICD_R_PEER_CLOSED, &counters);
	assert_int_equal(stage->nic.count[NIC_QP], 0);
	fake_expire(stage->fake, door->object.serial);
	assert_int_equal(door->state, NIC_DOOR_DEAD);
	stage_free(stage);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_rules),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_never),
		cmocka_unit_test(test_every_third_fails),
		cmocka_unit_test(test_counting),
		cmocka_unit_test(test_any),
		cmocka_unit_test(test_bad_specs),
		cmocka_unit_test(test_lost_and_freed),
		cmocka_unit_test(test_events_pass),
	};

	return cmocka_run_group_tests_name("faulty", tests, NULL, NULL);
}
