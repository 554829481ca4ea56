/* SPDX-License-Identifier: MIT */
/*
 * Client memory as the device sees it: mapped when the controller attaches it, a number of ranges of tags that name it,
 * unmapped when it is detached. Owned by soft_tags, found by serial.
 *
 * Unmapping a resident gigabyte takes 34 ms, so what is larger than a piece is unmapped in pieces by soft_memory_step,
 * between other work. A detach is answered when the last piece is gone; detaches end in the order in which they were
 * asked for.
 *
 * Likewise a mapping is populated in pieces when there is nothing else to do, so that the first transfers do not fault
 * page by page. What is not in memory is left alone: asking for it would make pages of holes at our cost.
 */
#include <assert.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "nicd/soft/table.h"

enum {
	PIECE = 4 << 20,           /* of munmap: well below 1 ms */
	PAGES_AHEAD = 64,          /* populated in one step */
};

static int memory_compare(const struct soft_memory *a, const struct soft_memory *b)
{
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}
RB_GENERATE_INTERNAL(soft_memories, soft_memory, by_serial, memory_compare, static __attribute__((unused)))

/* A mapping of huge pages can only be taken and given back in whole ones. */
static uint64_t page_size(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC && fs.f_bsize > NICD_PAGE)
		return (uint64_t)fs.f_bsize;
	return NICD_PAGE;
}

static int memory_map(struct soft_memory *memory, int fd, struct nicd_error *err)
{
	uint64_t size;
	void *map;

	memory->page = page_size(fd);
	if (memory->size == 0 || memory->size > SIZE_MAX - memory->page)
		return nicd_refuse_at(err, NICD_R_MEMORY_MAP, SIZE_MAX - memory->page, memory->size);
	size = (memory->size + memory->page - 1) / memory->page * memory->page;
	map = mmap(NULL, size, PROT_READ | (memory->writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		int r = errno;

		nicd_refuse(err, NICD_R_MEMORY_MAP);
		if (err)
			err->provider_error = r;
		return -r;
	}
	memory->map = map;
	memory->mapped = size;
	return 0;
}

void soft_memories_limit(struct soft_tags *tags, uint32_t max)
{
	tags->max_mappings = max;
}

int soft_memory_attach(struct soft_tags *tags, uint64_t serial, int fd, uint64_t size, bool writable, struct nicd_error *err)
{
	struct soft_memory *memory = soft_memory_find(tags, serial);
	int r;

	if (memory && memory->size == size && memory->writable == writable)
		return 0;
	if (memory)
		return nicd_refuse_at(err, NICD_R_DEVICE_BUSY, memory->size, size);
	if (serial == 0)
		return nicd_refuse(err, NICD_R_SERIAL);
	if (tags->max_mappings && tags->n_mappings >= tags->max_mappings)
		return nicd_refuse_at(err, NICD_R_DEVICE_MAPPINGS, tags->max_mappings, tags->n_mappings);
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	memory->serial = serial;
	memory->size = size;
	memory->writable = writable;
	r = memory_map(memory, fd, err);
	if (r < 0) {
		free(memory);
		return r;
	}
	RB_INSERT(soft_memories, &tags->memories, memory);
	memory->populating = true;
	TAILQ_INSERT_TAIL(&tags->populating, memory, to_populate);
	tags->n_memories++;
	tags->n_mappings++;
	return 0;
}

/* ---- populating */

static void populate_end(struct soft_tags *tags, struct soft_memory *memory)
{
	if (memory->populating)
		TAILQ_REMOVE(&tags->populating, memory, to_populate);
	memory->populating = false;
}

/* Of the pages from `at` on, how many in a row are in memory, or are not. */
static unsigned run_length(const unsigned char *in_memory, unsigned at, unsigned n)
{
	unsigned end = at;

	while (end < n && (in_memory[end] & 1) == (in_memory[at] & 1))
		end++;
	return end - at;
}

/* Whoever cannot be populated faults when it is used, and that is answered with EFAULT to the one who uses it. */
static void populate_piece(struct soft_tags *tags, struct soft_memory *memory)
{
	uint8_t *at = memory->map + memory->populated;
	uint64_t pages = (memory->mapped - memory->populated) / NICD_PAGE;
	unsigned n = pages < PAGES_AHEAD ? (unsigned)pages : PAGES_AHEAD, run;
	unsigned char in_memory[PAGES_AHEAD];
	bool ok = n > 0 && mincore(at, (size_t)n * NICD_PAGE, in_memory) == 0;

	for (unsigned i = 0; ok && i < n; i += run) {
		run = run_length(in_memory, i, n);
		if (in_memory[i] & 1)
			ok = madvise(at + (size_t)i * NICD_PAGE, (size_t)run * NICD_PAGE, MADV_POPULATE_READ) == 0;
	}
	memory->populated += (uint64_t)n * NICD_PAGE;
	if (!ok || memory->populated == memory->mapped)
		populate_end(tags, memory);
}

/* ---- unmapping */

/* Gives back at most one piece, from the end, in whole pages. */
static void unmap_piece(struct soft_memory *memory)
{
	uint64_t piece = memory->page > PIECE ? memory->page : PIECE;
	int r;

	if (memory->mapped == 0)
		return;
	if (piece > memory->mapped)
		piece = memory->mapped;
	memory->mapped -= piece;
	r = munmap(memory->map + memory->mapped, piece);
	assert(r == 0);
	(void)r;
}

static void unmapped(struct soft_tags *tags, struct soft_memory *memory)
{
	void (*done)(void *userdata) = memory->unmapped;
	void *userdata = memory->userdata;

	STAILQ_REMOVE_HEAD(&tags->unmapping, next);
	tags->n_mappings -= memory->map != NULL;
	free(memory);
	if (done)
		done(userdata);
}

/* At the head of the queue. */
static void unmap_step(struct soft_tags *tags)
{
	struct soft_memory *memory = STAILQ_FIRST(&tags->unmapping);

	unmap_piece(memory);
	if (memory->mapped == 0)
		unmapped(tags, memory);
}

bool soft_memory_step(struct soft_tags *tags)
{
	if (!STAILQ_EMPTY(&tags->unmapping))
		unmap_step(tags);
	else if (!TAILQ_EMPTY(&tags->populating))
		populate_piece(tags, TAILQ_FIRST(&tags->populating));
	return !STAILQ_EMPTY(&tags->unmapping) || !TAILQ_EMPTY(&tags->populating);
}

static bool is_unmapping(struct soft_tags *tags, uint64_t serial)
{
	struct soft_memory *memory;

	STAILQ_FOREACH(memory, &tags->unmapping, next)
		if (memory->serial == serial)
			return true;
	return false;
}

/* Takes it out of the names; the small one at the head of an empty queue is gone at once. */
static void memory_retire(struct soft_tags *tags, struct soft_memory *memory, void (*done)(void *userdata), void *userdata)
{
	bool first = STAILQ_EMPTY(&tags->unmapping);

	populate_end(tags, memory);
	memory->unmapped = done;
	memory->userdata = userdata;
	STAILQ_INSERT_TAIL(&tags->unmapping, memory, next);
	if (first && memory->mapped <= PIECE)
		unmap_step(tags);
}

int soft_memory_detach(struct soft_tags *tags, uint64_t serial, void (*done)(void *userdata), void *userdata,
		       struct nicd_error *err)
{
	struct soft_memory *memory = soft_memory_find(tags, serial);

	if (memory && memory->tags > 0)
		return nicd_refuse_at(err, NICD_R_DEVICE_BUSY, 0, memory->tags);
	if (memory) {
		RB_REMOVE(soft_memories, &tags->memories, memory);
		tags->n_memories--;
		memory_retire(tags, memory, done, userdata);
		return 0;
	}
	if (!is_unmapping(tags, serial)) {
		if (done)
			done(userdata);
		return 0;
	}
	/* Asked again before the first one ended: one with nothing mapped, in line behind it. */
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return nicd_refuse(err, NICD_R_NO_MEMORY);
	memory->serial = serial;
	memory_retire(tags, memory, done, userdata);
	return 0;
}

struct soft_memory *soft_memory_find(struct soft_tags *tags, uint64_t serial)
{
	struct soft_memory key = {.serial = serial};

	return RB_FIND(soft_memories, &tags->memories, &key);
}

struct soft_memory *soft_memory_next(struct soft_tags *tags, uint64_t after)
{
	struct soft_memory key = {.serial = after + 1};

	return after == UINT64_MAX ? NULL : RB_NFIND(soft_memories, &tags->memories, &key);
}

bool soft_memories_reset_step(struct soft_tags *tags)
{
	struct soft_memory *memory = RB_MIN(soft_memories, &tags->memories);

	if (!memory)
		return false;
	assert(memory->tags == 0);
	RB_REMOVE(soft_memories, &tags->memories, memory);
	tags->n_memories--;
	memory_retire(tags, memory, NULL, NULL);
	return true;
}
