/* SPDX-License-Identifier: MIT */
/* Ids, serials, registries, ranges, deadlines. */
#include "tests/unit/nic/rig.h"

#include <errno.h>
#include <string.h>

/* mutation: drop any of the three comparisons, or write offset + length <= size */
static void test_range_ok_in_8_bits(void **state)
{
	unsigned wrong = 0;

	/* All triples, also scaled to the top of 64 bits, where sums wrap; plain arithmetic on wider numbers is the judge. */
	for (unsigned offset = 0; offset < 256; offset++)
		for (unsigned length = 0; length < 256; length++)
			for (unsigned size = 0; size < 256; size++) {
				bool want = length > 0 && offset + length <= size;

				wrong += nic_range_ok(offset, length, size) != want;
				wrong += nic_range_ok((uint64_t)offset << 56, (uint64_t)length << 56, (uint64_t)size << 56) != want;
			}
	assert_int_equal(wrong, 0);
}

/* mutation: as above */
static void test_range_ok_at_the_edges(void **state)
{
	static const uint64_t edges[] = { 0, 1, 2, 4095, 4096, 4097, (1ull << 32) - 1, 1ull << 32, (1ull << 63) - 1, 1ull << 63,
					  (1ull << 63) + 1, UINT64_MAX - 1, UINT64_MAX };
	enum { N = sizeof(edges) / sizeof(edges[0]) };

	for (unsigned i = 0; i < N; i++)
		for (unsigned j = 0; j < N; j++)
			for (unsigned k = 0; k < N; k++) {
				__uint128_t end = (__uint128_t)edges[i] + edges[j];

				assert_int_equal(nic_range_ok(edges[i], edges[j], edges[k]), edges[j] > 0 && end <= edges[k]);
			}
}

/* mutation: test rights with & alone */
static void test_rights(void **state)
{
	assert_true(nic_rights_has(0x7, NIC_REMOTE_WRITE));
	assert_false(nic_rights_has(0x3, NIC_REMOTE_WRITE));
	assert_false(nic_rights_has(0x1, NIC_REMOTE_WRITE));
	assert_false(nic_rights_remote(NIC_LOCAL_WRITE | NIC_READ_SINK));
	assert_true(nic_rights_remote(NIC_REMOTE_READ));
	assert_true(nic_rights_remote(NIC_REMOTE_WRITE));
}

/* mutation: do not change the generation of a slot that is used again */
static void test_stale_ids(void **state)
{
	struct fake_env env;
	struct nic_table table;
	struct nic_pool pages;
	struct nic_object objects[3] = { { .type = NIC_MR }, { .type = NIC_MR }, { .type = NIC_PD } };
	uint64_t seen[1000];

	fake_env_init(&env);
	nic_table_pool_init(&pages, &env.env);
	nic_table_init(&table, &pages);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(nic_table_add(&table, &objects[0]), 0);
		seen[i] = objects[0].id;
		assert_int_equal(seen[i] >> 56, NIC_MR);
		assert_ptr_equal(nic_table_find(&table, seen[i]), &objects[0]);
		for (unsigned j = 0; j < i; j++)
			assert_null(nic_table_find(&table, seen[j]));
		nic_table_remove(&table, &objects[0]);
		assert_int_equal(objects[0].id, 0);
		assert_null(nic_table_find(&table, seen[i]));
	}
	nic_table_remove(&table, &objects[0]);   /* has no id: nothing */
	assert_int_equal(nic_table_add(&table, &objects[1]), 0);
	assert_int_equal(nic_table_add(&table, &objects[2]), 0);
	assert_null(nic_table_find(&table, 0));
	assert_null(nic_table_find(&table, UINT64_MAX));
	/* Right slot, wrong type or generation. */
	assert_null(nic_table_find(&table, (objects[1].id & (UINT64_MAX >> 8)) | (uint64_t)NIC_PD << 56));
	assert_null(nic_table_find(&table, objects[1].id ^ (uint64_t)1 << 32));
	nic_table_remove(&table, &objects[1]);
	nic_table_remove(&table, &objects[2]);
	nic_table_deinit(&table);
	nic_pool_deinit(&pages);
	assert_int_equal(env.live_blocks, 0);
}

/* mutation: lose slots or objects when the table grows */
static void test_table_grows(void **state)
{
	enum { N = 5000 };
	static struct nic_object objects[N];
	struct fake_env env;
	struct nic_table table;
	struct nic_pool pages;

	fake_env_init(&env);
	nic_table_pool_init(&pages, &env.env);
	nic_table_init(&table, &pages);
	for (unsigned i = 0; i < N; i++) {
		objects[i].type = NIC_MR;
		assert_int_equal(nic_table_add(&table, &objects[i]), 0);
	}
	for (unsigned i = 0; i < N; i++)
		assert_ptr_equal(nic_table_find(&table, objects[i].id), &objects[i]);
	for (unsigned i = 0; i < N; i += 2)
		nic_table_remove(&table, &objects[i]);
	assert_int_equal(table.n_used, N / 2);
	env.fail_at = env.allocs + 1;
	for (unsigned i = 0; i < N; i += 2)
		assert_int_equal(nic_table_add(&table, &objects[i]), 0);   /* old slots, no memory needed */
	for (unsigned i = 0; i < N; i++)
		nic_table_remove(&table, &objects[i]);
	nic_table_deinit(&table);
	nic_pool_deinit(&pages);
	assert_int_equal(env.live_blocks, 0);
}

/* mutation: do not retire a slot: its generation reaches into the type, or begins anew and an old id means a new object */
static void test_generations_end(void **state)
{
	struct fake_env env;
	struct nic_table table;
	struct nic_pool pages;
	struct nic_object object = { .type = NIC_QP };
	uint64_t last;

	fake_env_init(&env);
	nic_table_pool_init(&pages, &env.env);
	nic_table_init(&table, &pages);
	assert_int_equal(nic_table_add(&table, &object), 0);
	nic_table_remove(&table, &object);
	table.pages[0]->slots[0] = (uint64_t)(NIC_TABLE_GENERATIONS - 2) << 33 | (table.pages[0]->slots[0] & UINT32_MAX);
	assert_int_equal(nic_table_add(&table, &object), 0);
	last = object.id;
	assert_int_equal(last >> 32, (uint64_t)NIC_QP << 24 | (NIC_TABLE_GENERATIONS - 1));
	assert_ptr_equal(nic_table_find(&table, last), &object);
	nic_table_remove(&table, &object);
	assert_int_equal(table.n_retired, 1);
	for (unsigned i = 0; i < 3 * NIC_TABLE_PAGE; i++) {
		assert_int_equal(nic_table_add(&table, &object), 0);
		assert_int_not_equal((uint32_t)object.id, 0);
		assert_null(nic_table_find(&table, last));
		nic_table_remove(&table, &object);
	}
	nic_table_deinit(&table);
	nic_pool_deinit(&pages);
	assert_int_equal(env.live_blocks, 0);
}

/* mutation: look at the slot alone, or not at the generation, or not at the type */
static void test_used_slots(void **state)
{
	struct fake_env env;
	struct nic_table table, other;
	struct nic_pool pages;
	struct nic_object first = { .type = NIC_MR }, second = { .type = NIC_MR }, foreign = { .type = NIC_MR };
	uint64_t old;

	fake_env_init(&env);
	nic_table_pool_init(&pages, &env.env);
	nic_table_init(&table, &pages);
	nic_table_init(&other, &pages);
	assert_int_equal(nic_table_add(&table, &first), 0);
	old = first.id;
	nic_table_remove(&table, &first);
	assert_int_equal(nic_table_add(&table, &second), 0);
	assert_int_equal((uint32_t)second.id, (uint32_t)old);
	assert_int_equal(second.id >> 32, (old >> 32) + 1);
	assert_null(nic_table_find(&table, old));
	for (unsigned bit = 0; bit < 64; bit++)
		assert_null(nic_table_find(&table, second.id ^ UINT64_C(1) << bit));
	assert_ptr_equal(nic_table_find(&table, second.id), &second);
	/* An id of another session's finds what has the same id here, and nothing else. */
	assert_int_equal(nic_table_add(&other, &foreign), 0);
	assert_int_equal(foreign.id, old);
	assert_null(nic_table_find(&table, foreign.id));
	assert_null(nic_table_find(&other, second.id));
	nic_table_remove(&other, &foreign);
	nic_table_remove(&table, &second);
	nic_table_deinit(&other);
	nic_table_deinit(&table);
	nic_pool_deinit(&pages);
}

/* mutation: take what a free slot is for an address */
static void test_free_slots(void **state)
{
	struct fake_env env;
	struct nic_table table;
	struct nic_pool pages;
	struct nic_object object = { .type = NIC_MR };
	uint64_t id;

	fake_env_init(&env);
	nic_table_pool_init(&pages, &env.env);
	nic_table_init(&table, &pages);
	assert_int_equal(nic_table_add(&table, &object), 0);
	id = object.id;
	nic_table_remove(&table, &object);
	for (uint64_t generation = 0; generation < 4; generation++)
		for (unsigned type = 0; type < NIC_TYPE_COUNT; type++)
			assert_null(nic_table_find(&table, (uint64_t)type << 56 | generation << 32 | (uint32_t)id));
	nic_table_prefetch_slot(&table, id);
	nic_table_prefetch_object(&table, id);
	nic_table_prefetch_slot(&table, UINT64_MAX);
	nic_table_prefetch_object(&table, UINT64_MAX);
	nic_table_deinit(&table);
	nic_pool_deinit(&pages);
}

/* mutation: a closing table keeps its pages to the last: then they all go in one turn of the loop */
static void test_table_closes(void **state)
{
	enum { N = 100 * NIC_TABLE_PAGE };
	static struct nic_object objects[N];
	struct fake_env env;
	struct nic_table table;
	struct nic_pool pages;
	uint64_t n_pages;

	fake_env_init(&env);
	nic_table_pool_init(&pages, &env.env);
	nic_table_init(&table, &pages);
	for (unsigned i = 0; i < N; i++) {
		objects[i].type = NIC_MR;
		assert_int_equal(nic_table_add(&table, &objects[i]), 0);
	}
	n_pages = pages.n_items;
	nic_table_close(&table);
	assert_int_equal(pages.n_items, n_pages);
	for (unsigned i = 0; i < N; i++) {
		uint64_t id = objects[i].id;

		nic_table_remove(&table, &objects[i]);
		assert_null(nic_table_find(&table, id));
		assert_int_equal(pages.n_items, n_pages - (i + 1) / NIC_TABLE_PAGE);
	}
	nic_table_deinit(&table);
	nic_pool_deinit(&pages);
	assert_int_equal(env.live_blocks, 0);
}

/* mutation: leave out the type check in nic_owner_find, or the ids of another owner's table would do */
static void test_find_by_owner(void **state)
{
	struct rig *rig = *state;
	struct nic_owner other;
	struct nic_object *object;
	struct nicd_error err;
	uint64_t id = rig->mr->object.id;

	assert_int_equal(nic_owner_find(&rig->owner, id, NIC_MR, &object, &err), 0);
	assert_ptr_equal(object, &rig->mr->object);
	assert_int_equal(nic_owner_find(&rig->owner, id, NIC_NONE, &object, &err), 0);
	assert_refusal(nic_owner_find(&rig->owner, id, NIC_PD, &object, &err), err, HANDLE_TYPE, NIC_PD, NIC_MR);
	nic_owner_init(&other, &rig->nic, rig->owner.account, nic_serial(&rig->nic));
	assert_refusal(nic_owner_find(&other, id, NIC_MR, &object, &err), err, HANDLE, 0, id);
	nic_owner_deinit(&other);
	nic_mr_close(rig->mr, NULL);
	assert_refusal(nic_owner_find(&rig->owner, id, NIC_MR, &object, &err), err, HANDLE, 0, id);
	id = rig->adapter->object.id;
	assert_int_equal(nic_owner_find(&rig->owner, id, NIC_ADAPTER, &object, &err), 0);
	assert_ptr_equal(object, &rig->adapter->object);
	assert_refusal(nic_owner_find(&rig->owner, id + 1, NIC_ADAPTER, &object, &err), err, HANDLE, 0, id + 1);
}

/* mutation: put objects into the wrong registry, or page with >= */
static void test_serials_and_paging(void **state)
{
	struct rig *rig = *state;
	struct nic_object *object;
	uint64_t last = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < 50; i++)
		rig_mr(rig);
	for (object = nic_next(&rig->nic, NIC_MR, 0); object; object = nic_next(&rig->nic, NIC_MR, object->serial)) {
		assert_true(object->serial > last);
		assert_ptr_equal(nic_find(&rig->nic, NIC_MR, object->serial), object);
		assert_ptr_equal(nic_find(&rig->nic, NIC_NONE, object->serial), object);
		assert_null(nic_find(&rig->nic, NIC_PD, object->serial));
		last = object->serial;
		n++;
	}
	assert_int_equal(n, 51);
	assert_int_equal(rig->nic.count[NIC_MR], 51);
	n = 0;
	last = 0;
	for (object = nic_next(&rig->nic, NIC_NONE, 0); object; object = nic_next(&rig->nic, NIC_NONE, object->serial)) {
		assert_true(object->serial > last);
		last = object->serial;
		n++;
	}
	assert_int_equal(n, 54);   /* adapter, memory, PD, MRs */
	assert_null(nic_next(&rig->nic, NIC_MR, UINT64_MAX));
	assert_null(nic_find(&rig->nic, NIC_MR, last + 1));
}

static void count_deadline(struct nic_deadline *deadline)
{
	deadline->at = 0;
}

/* mutation: fire a deadline early, keep a disarmed one, or fire one twice */
static void test_deadlines(void **state)
{
	struct rig *rig = *state;
	struct nic_deadline one = { .fn = count_deadline }, two = { .fn = count_deadline }, three = { .fn = count_deadline };
	uint64_t start = rig->env.now;

	assert_int_equal(nic_next_deadline(&rig->nic), UINT64_MAX);
	nic_deadline_arm(&rig->nic, &one);
	rig->env.now += 10;
	nic_deadline_arm(&rig->nic, &two);
	nic_deadline_arm(&rig->nic, &three);
	nic_deadline_disarm(&rig->nic, &two);
	nic_deadline_disarm(&rig->nic, &two);
	assert_int_equal(nic_next_deadline(&rig->nic), start + 5000);
	rig_later(rig, 4990);
	assert_false(one.armed);
	assert_int_equal(one.at, 0);
	assert_int_equal(nic_next_deadline(&rig->nic), start + 5010);
	nic_deadline_arm(&rig->nic, &three);   /* again: from now */
	assert_int_equal(nic_next_deadline(&rig->nic), rig->env.now + 5000);
	nic_deadline_disarm(&rig->nic, &three);
	assert_int_not_equal(two.at, 0);
}

/* mutation: forget one of the ops of nic_provider_none, or end it with success */
static void test_provider_none(void **state)
{
	struct nic_provider provider = { .ops = &nic_provider_none };
	const void *const *ops = (const void *const *)&nic_provider_none;

	for (unsigned i = 0; i < sizeof(nic_provider_none) / sizeof(void *); i++)
		assert_non_null(ops[i]);
	assert_int_equal(provider.ops->cost(&provider, NIC_COST_TAG, 4096), 0);
	provider.ops->push(&provider);
	provider.ops->free(&provider);
}

static unsigned not_supported;

static void count_cmd(struct nic_cmd *cmd)
{
	assert_int_equal(cmd->error.reason, NICD_R_NOT_SUPPORTED);
	not_supported++;
}

/* mutation: as above */
static void test_provider_none_commands(void **state)
{
	struct nic_provider p = { .ops = &nic_provider_none };
	struct nic_cmd cmd = { .done = count_cmd };

	p.ops->memory_attach(&p, NULL, &cmd);
	p.ops->memory_detach(&p, 1, &cmd);
	p.ops->tag_add(&p, NULL, &cmd);
	p.ops->tag_drop(&p, 1, 1, NULL, &cmd);
	p.ops->door_add(&p, NULL, &cmd);
	p.ops->door_drop(&p, 1, true, &cmd);
	p.ops->qp_connect(&p, NULL, &cmd);
	p.ops->qp_post(&p, NULL, &cmd);
	p.ops->qp_flush(&p, 1, &cmd);
	p.ops->qp_disconnect(&p, 1, &cmd);
	p.ops->qp_query(&p, 1, &cmd);
	p.ops->stats(&p, &cmd);
	assert_int_equal(not_supported, 12);
}

static void test_push(void **state)
{
	struct rig *rig = *state;

	nic_push(&rig->nic);
	assert_int_equal(rig->fake->pushes, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range_ok_in_8_bits),
		cmocka_unit_test(test_range_ok_at_the_edges),
		cmocka_unit_test(test_rights),
		cmocka_unit_test(test_stale_ids),
		cmocka_unit_test(test_table_grows),
		cmocka_unit_test(test_generations_end),
		cmocka_unit_test(test_used_slots),
		cmocka_unit_test(test_free_slots),
		cmocka_unit_test(test_table_closes),
		rig_test(test_find_by_owner),
		rig_test(test_serials_and_paging),
		rig_test(test_deadlines),
		cmocka_unit_test(test_provider_none),
		cmocka_unit_test(test_provider_none_commands),
		rig_test(test_push),
	};

	return cmocka_run_group_tests_name("object", tests, NULL, NULL);
}
