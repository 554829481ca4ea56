/* SPDX-License-Identifier: MIT */
/*
 * Privileged keys are nothing to peers: every token there is, said by each kind of connection for each kind of inbound operation, through the access
 * check that the engine calls, while keys live whose mappings are at the very address that is tried. It finds exactly what was granted.
 *
 * The same program is built without each of the walls, where it must find the same, and without all of them, where it must find more. All 32 bits are a
 * benchmark (meson test --benchmark walls-sweep); the test draws tokens and keys from 20 bits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "nicd/object.h"
#include "nicd/soft/table.h"
#include "tests/unit/soft/narrow.h"

enum { BITS = 20 };

enum { PD = 5, OTHER_PD = 6, NO_PD = 7, EXPORT = 70, OTHER_EXPORT = 71, STREAM = 9, OTHER_STREAM = 8, ADDRESS = 0x1000, KEYS = 3, OWNER = 300 };

static unsigned n_each = 64;   /* tags of a kind */
static const char *walls = "";   /* those that this program is built without */
static bool broken;            /* there is no wall left: every key opens what it maps to everybody */

enum operation { READ, WRITE, INVALIDATE, OPERATIONS };

/* Those who may be there: who came by a PD's ticket, by an export's, whose stream has windows, and who belongs elsewhere. */
enum connection { BY_PD, BY_EXPORT, BY_WINDOW, ELSEWHERE, CONNECTIONS };
static const struct soft_scope scopes[CONNECTIONS] = {
	[BY_PD] = {.pd = PD, .stream = 1},
	[BY_EXPORT] = {.pd = PD, .stream = 2, .by_grant = true, .n_grants = 1, .grants = {EXPORT}},
	[BY_WINDOW] = {.pd = PD, .stream = STREAM, .by_grant = true},
	[ELSEWHERE] = {.pd = NO_PD, .stream = 3},
};

/* The kinds of tags; each has one of these rights. */
static const struct kind {
	uint64_t pd, door, window;
	enum connection who;   /* may use it; CONNECTIONS: nobody of ours */
} kinds[] = {
	{PD, 0, 0, BY_PD},
	{PD, EXPORT, 0, BY_EXPORT},
	{PD, 0, STREAM, BY_WINDOW},
	{OTHER_PD, 0, 0, CONNECTIONS},
	{PD, OTHER_EXPORT, 0, CONNECTIONS},
	{PD, 0, OTHER_STREAM, CONNECTIONS},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
static const uint32_t rights[] = {
	NIC_REMOTE_READ, NIC_REMOTE_WRITE, NIC_REMOTE_READ | NIC_REMOTE_WRITE | NIC_INVALIDATABLE, NIC_LOCAL_WRITE,
};
static const uint32_t wanted[OPERATIONS] = {NIC_REMOTE_READ, NIC_REMOTE_WRITE, NIC_INVALIDATABLE};

struct world {
	struct soft_tags *tags;
	struct soft_windows windows[2];
	struct nic_ptok keys[KEYS];
	uint64_t granted[CONNECTIONS][OPERATIONS];
};

static void add_tag(struct world *w, const struct kind *kind, uint64_t serial, uint32_t tag_rights)
{
	struct soft_tag_terms terms = {
		.serial = serial, .generation = 1, .rights = tag_rights, .pd = kind->pd, .door = kind->door, .iova = ADDRESS,
		.length = NICD_PAGE, .n_ranges = 1, .ranges = {{1, 0, NICD_PAGE}},
		.stream = kind->window, .windows = kind->window ? &w->windows[kind->window == STREAM] : NULL,
	};
	struct soft_tag *tag;

	if ((kind->door || kind->window) && !nic_rights_remote(tag_rights))
		return;
	assert_int_equal(soft_tag_add(w->tags, &terms, &tag, NULL), 0);
	for (enum operation op = 0; op < OPERATIONS && kind->who < CONNECTIONS; op++)
		w->granted[kind->who][op] += nic_rights_has(tag_rights, wanted[op]) && nic_rights_remote(tag_rights);
}

/* A key of the PD that peers came to, one of another of its session's PDs, one of another session. Each opens a page at ADDRESS. */
static void add_keys(struct world *w)
{
	static const struct { uint64_t pd, owner; } rows[KEYS] = {{PD, OWNER}, {OTHER_PD, OWNER}, {NO_PD, OWNER + 1}};

	for (unsigned i = 0; i < 2; i++) {
		struct soft_tag_terms terms = {
			.serial = 500 + i, .iova = ADDRESS, .length = NICD_PAGE, .n_ranges = 1, .ranges = {{1, 0, NICD_PAGE}},
		};

		assert_int_equal(soft_mapping_add(w->tags, OWNER + i, &terms, NULL), 0);
	}
	for (unsigned i = 0; i < KEYS; i++)
		assert_int_equal(soft_key_add(w->tags, rows[i].pd, rows[i].owner, &w->keys[i], NULL), 0);
}

static void world_new(struct world *w)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	uint64_t serial = 1000;

	*w = (struct world){.tags = soft_tags_new(narrow_draw, narrow_now)};
	assert_int_equal(ftruncate(fd, NICD_PAGE), 0);
	assert_int_equal(soft_memory_attach(w->tags, 1, fd, NICD_PAGE, true, NULL), 0);
	close(fd);
	add_keys(w);
	for (unsigned i = 0; i < n_each; i++)
		for (unsigned k = 0; k < KINDS; k++)
			add_tag(w, &kinds[k], serial++, rights[i % 4]);
}

static bool opens(struct world *w, enum connection who, enum operation op, uint32_t token)
{
	static const enum soft_access accesses[] = {[READ] = SOFT_REMOTE_READ, [WRITE] = SOFT_REMOTE_WRITE};
	struct soft_tag *tag;

	if (op == INVALIDATE)
		return soft_tag_invalidatable(w->tags, &scopes[who], token);
	return soft_tag_check(w->tags, &scopes[who], token, ADDRESS, 64, accesses[op], &tag) == NICD_R_NONE;
}

/* What [first, end) opens, to each and for each. */
static void sweep(struct world *w, uint64_t first, uint64_t end, uint64_t hits[CONNECTIONS][OPERATIONS])
{
	memset(hits, 0, CONNECTIONS * sizeof(hits[0]));
	for (uint64_t token = first; token < end; token++)
		for (enum connection who = 0; who < CONNECTIONS; who++)
			for (enum operation op = 0; op < OPERATIONS; op++)
				hits[who][op] += opens(w, who, op, (uint32_t)token);
}

/* Each of `n` processes takes its part. */
static void sweep_all(struct world *w, unsigned n, uint64_t hits[CONNECTIONS][OPERATIONS])
{
	uint64_t (*parts)[CONNECTIONS][OPERATIONS] =
		mmap(NULL, n * sizeof(*parts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t share = (UINT64_C(1) << narrow_bits) / n;
	int status;

	assert_true(parts != MAP_FAILED);
	for (unsigned i = 0; i < n; i++)
		if (fork() == 0) {
			sweep(w, i * share, i + 1 == n ? UINT64_C(1) << narrow_bits : (i + 1) * share, parts[i]);
			_exit(0);
		}
	for (unsigned i = 0; i < n; i++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	memset(hits, 0, CONNECTIONS * sizeof(hits[0]));
	for (unsigned i = 0; i < n; i++)
		for (enum connection who = 0; who < CONNECTIONS; who++)
			for (enum operation op = 0; op < OPERATIONS; op++)
				hits[who][op] += parts[i][who][op];
	munmap(parts, n * sizeof(*parts));
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/*
 * mutation: any one of the walls taken out (planted by `mutate`: type, rights, inbound; the same must be found), or all of them (more must be)
 */
static void test_every_token(void **state)
{
	uint64_t hits[CONNECTIONS][OPERATIONS];
	unsigned n = narrow_bits > BITS ? (unsigned)sysconf(_SC_NPROCESSORS_ONLN) : 1;
	double began = seconds();
	struct world w;

	world_new(&w);
	sweep_all(&w, n, hits);
	for (enum connection who = 0; who < CONNECTIONS; who++)
		for (enum operation op = 0; op < OPERATIONS; op++)
			assert_int_equal(hits[who][op], w.granted[who][op] + (broken ? KEYS : 0));
	/* The owners themselves: a key is no local token of a tag, either. */
	for (unsigned i = 0; i < KEYS && !strstr(walls, "type"); i++) {
		struct soft_tag *tag;

		assert_int_equal(soft_tag_check(w.tags, &scopes[BY_PD], w.keys[i].v, ADDRESS, 1, SOFT_LOCAL_READ, &tag), NICD_R_LOCAL_TOKEN);
	}
	if (narrow_bits > BITS)
		fprintf(stderr, "# 2^%u tokens, %u connections, %u operations each: %.0f s on %u cores\n", narrow_bits, CONNECTIONS,
			OPERATIONS, seconds() - began, n);
	soft_tags_free(w.tags);
}

/* What is granted is no small number, and what is not granted is there to be hit. */
/* mutation: sweep a world in which nothing is, or grant nothing */
static void test_there_is_something(void **state)
{
	struct world w;

	world_new(&w);
	for (enum operation op = 0; op < OPERATIONS; op++) {
		assert_true(w.granted[BY_PD][op] > 0 && w.granted[BY_EXPORT][op] > 0 && w.granted[BY_WINDOW][op] > 0);
		assert_int_equal(w.granted[ELSEWHERE][op], 0);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		assert_int_not_equal(w.keys[i].v, 0);
		assert_true(soft_token_taken(w.tags, w.keys[i].v));
	}
	soft_tags_free(w.tags);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_there_is_something), cmocka_unit_test(test_every_token)};

	narrow_bits = BITS;
	if (argc > 2 && strcmp(argv[1], "without") == 0) {
		walls = argv[2];
		broken = strcmp(walls, "type+rights+inbound") == 0;
	} else if (argc > 1) {
		narrow_bits = argc > 2 ? (unsigned)atoi(argv[2]) : 32;
		n_each = 4096;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
