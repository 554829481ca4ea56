/* SPDX-License-Identifier: MIT */
/* The board: anonymous shared memory, made before the peers are forked. See board.h. */
#include "board.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct board *board_new(bool reading)
{
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (board == MAP_FAILED)
		abort();
	board->reading = reading;
	return board;
}

void board_free(struct board *board)
{
	munmap(board, sizeof(*board));
}

void board_tell(struct board_slot *slot, uint64_t state)
{
	atomic_store(&slot->state, state);
	atomic_store(&slot->state32, (uint32_t)state);
	syscall(SYS_futex, &slot->state32, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void board_sleep(struct board_slot *slot, uint64_t state)
{
	const struct timespec some = {.tv_nsec = 20000000};

	syscall(SYS_futex, &slot->state32, FUTEX_WAIT, (uint32_t)state, &some, NULL, 0);
}
