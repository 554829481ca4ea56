/* SPDX-License-Identifier: MIT */
/*
 * struct env: one per process, embedded in the daemon, alive as long as its loop. Everything that the NIC layer and the
 * request path want from the outside comes through it.
 *
 * Randomness is drawn in blocks because tokens and tickets want it in small pieces; what is handed out is wiped here. Small
 * memory is closed at once, the last close of a big memfd frees its pages and is left to a worker. What is no memory,
 * nobody knows how long it takes: that is the closer's.
 */
#include "daemon/env.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/util.h"

enum { CLOSE_INLINE = 1024 * 1024 };

struct close_work {
	uv_work_t work;
	struct env *env;
	int fd;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* BOOTTIME, because leases go on while the machine sleeps. */
static uint64_t env_now(struct nic_env *nic)
{
	return clock_ns(CLOCK_BOOTTIME);
}

static uint64_t env_wall(struct nic_env *nic)
{
	return clock_ns(CLOCK_REALTIME);
}

/* The kernel's generator does not fail once it is seeded; without it no token may be drawn. */
static void random_read(uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = getrandom(buf, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			abort();
		buf += n;
		len -= (size_t)n;
	}
}

static void env_random(struct nic_env *nic, void *buf, size_t len)
{
	struct env *env = container_of(nic, struct env, nic);
	uint8_t *out = buf;

	if (len > sizeof(env->random)) {
		random_read(buf, len);
		return;
	}
	if (len > env->random_left) {
		random_read(env->random, sizeof(env->random));
		env->random_left = sizeof(env->random);
	}
	env->random_left -= len;
	memcpy(out, env->random + env->random_left, len);
	explicit_bzero(env->random + env->random_left, len);
}

static void *env_alloc(struct nic_env *nic, size_t size)
{
	return size == NIC_SLAB ? slabs_take(&container_of(nic, struct env, nic)->slabs) : calloc(1, size);
}

static void env_free(struct nic_env *nic, void *ptr, size_t size)
{
	if (size == NIC_SLAB)
		slabs_give(&container_of(nic, struct env, nic)->slabs, ptr);
	else
		free(ptr);
}

static void close_run(uv_work_t *work)
{
	close(container_of(work, struct close_work, work)->fd);
}

static void close_done(uv_work_t *work, int status)
{
	struct close_work *w = container_of(work, struct close_work, work);

	w->env->closing--;
	free(w);
}

/* Asking for seals never leaves the kernel, and only memory has any; its size may then be asked too. */
static bool memory_size(int fd, uint64_t *size)
{
	struct stat st;

	if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st) < 0)
		return false;
	*size = (uint64_t)st.st_blocks * 512;
	return true;
}

static void env_close_fd(struct nic_env *nic, int fd, uint64_t size)
{
	struct env *env = container_of(nic, struct env, nic);
	struct close_work *w;

	if (size == UINT64_MAX && !memory_size(fd, &size)) {
		closer_close(&env->closer, fd, env->uid);
		return;
	}
	w = size > CLOSE_INLINE ? malloc(sizeof(*w)) : NULL;
	if (!w) {
		close(fd);
		return;
	}
	*w = (struct close_work){ .env = env, .fd = fd };
	env->closing++;
	if (uv_queue_work(env->loop, &w->work, close_run, close_done) < 0) {
		env->closing--;
		free(w);
		close(fd);
	}
}

static void env_close_dropped(const struct wire_closer *closer, int fd)
{
	struct env *env = container_of(closer, struct env, wire);

	env_close_fd(&env->nic, fd, UINT64_MAX);
}

void env_init(struct env *env, uv_loop_t *loop)
{
	*env = (struct env){
		.nic = {
			.now = env_now,
			.wall = env_wall,
			.random = env_random,
			.alloc = env_alloc,
			.free = env_free,
			.close_fd = env_close_fd,
		},
		.loop = loop,
		.wire.close = env_close_dropped,
	};
	slabs_init(&env->slabs);
	closer_init(&env->closer, loop);
}

void env_deinit(struct env *env)
{
	assert(!env->closing);
	closer_deinit(&env->closer);
	slabs_deinit(&env->slabs);
	explicit_bzero(env->random, sizeof(env->random));
}
