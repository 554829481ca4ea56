/* SPDX-License-Identifier: MIT */
/*
 * An arena: the memory of one decoded frame. Its block is taken once and lives as long as the arena; allocation moves a mark
 * up, free does nothing, reset moves the mark back. The bytes and the number of allocations are budgeted, because 64 KiB of
 * empty sub-messages would otherwise unpack to 4 MB in 32,000 pieces. Once a budget is exceeded every further
 * allocation fails, so that protobuf-c gives up instead of going on with what is left.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "proto/frame.h"

/* With AddressSanitizer there is a gap between allocations, and it sees who reaches beyond one. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { ARENA_GAP = 16 };
#else
#define ASAN_POISON_MEMORY_REGION(addr, size) ((void)(addr), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(addr, size) ((void)(addr), (void)(size))
enum { ARENA_GAP = 0 };
#endif

enum {
	ARENA_ALIGN = 16,
	/*
	 * More than honest frames take. What a greedy one touched above it goes back to the kernel, so that an idle
	 * process is small.
	 */
	ARENA_KEEP = 128 * 1024,
};

static size_t arena_round(size_t size, size_t to)
{
	return (size + to - 1) & ~(to - 1);
}

static void *arena_allocator_alloc(void *data, size_t size)
{
	return arena_alloc(data, size);
}

static void arena_allocator_free(void *data, void *mem)
{
}

int arena_init(struct arena *arena, size_t size, unsigned max_allocs)
{
	size = arena_round(size, NICD_PAGE);
	*arena = (struct arena){
		.allocator = { .alloc = arena_allocator_alloc, .free = arena_allocator_free, .allocator_data = arena },
		.mem = aligned_alloc(NICD_PAGE, size),
		.size = size,
		.max_allocs = max_allocs,
	};
	if (!arena->mem)
		return -ENOMEM;
	(void)madvise(arena->mem, size, MADV_DONTDUMP);   /* what was said is nothing for a core dump */
	ASAN_POISON_MEMORY_REGION(arena->mem, size);
	return 0;
}

void arena_deinit(struct arena *arena)
{
	ASAN_UNPOISON_MEMORY_REGION(arena->mem, arena->size);
	if (arena->mem) {   /* whoever has it next wants to see it in one */
		madvise(arena->mem, arena->size, MADV_DONTNEED);
		madvise(arena->mem, arena->size, MADV_DODUMP);
	}
	free(arena->mem);
	*arena = (struct arena){ 0 };
}

void *arena_alloc(struct arena *arena, size_t size)
{
	size_t left;
	void *mem;

	if (arena->spent)
		return NULL;
	arena->allocs++;
	left = arena->size - arena->used;
	/* `used` is a multiple of the alignment and so is `left`: what fits unrounded also fits rounded. */
	if (arena->allocs > arena->max_allocs || size > left) {
		arena->spent = true;
		/* Counts what was asked for, so that the refusal can say how much it would have been. */
		if (__builtin_add_overflow(arena->used, size, &arena->used))
			arena->used = SIZE_MAX;
		return NULL;
	}
	mem = arena->mem + arena->used;
	ASAN_UNPOISON_MEMORY_REGION(mem, size);
	arena->used += arena_round(size, ARENA_ALIGN) + ARENA_GAP;
	if (arena->used > arena->size)
		arena->used = arena->size;
	return mem;
}

void arena_reset(struct arena *arena)
{
	if ((arena->used > ARENA_KEEP || arena->spent) && arena->size > ARENA_KEEP)
		madvise(arena->mem + ARENA_KEEP, arena->size - ARENA_KEEP, MADV_DONTNEED);
	ASAN_POISON_MEMORY_REGION(arena->mem, arena->size);
	arena->used = 0;
	arena->allocs = 0;
	arena->spent = false;
}
