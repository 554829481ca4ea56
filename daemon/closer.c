/* SPDX-License-Identifier: MIT */
/*
 * struct closer is embedded in the environment and belongs to the loop. Its threads are made when they are needed and
 * end when there is nothing that they may do. They share a queue in memory of its own, because a thread that hangs may
 * outlive the closer; the last one frees it. Whose descriptor is next is fair: who brings sixty waits sixty times as
 * long as who brings one.
 */
#include "daemon/closer.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/util.h"
#include "nicd/fair.h"

struct closer_user {
	uint32_t uid;
	uint32_t pending;             /* the loop's; freed at 0 */
	struct nic_fair_queue turns;  /* its jobs; under the lock */
	LIST_ENTRY(closer_user) next;
};

struct closer_job {
	STAILQ_ENTRY(closer_job) next;   /* done */
	struct nic_fair_item turn;       /* to do */
	int fd;
	struct closer_user *user;
};

struct closer_shared {
	uv_mutex_t mutex;
	struct nic_fair todo;
	struct closer_jobs done;
	unsigned threads;             /* each of them holds a reference */
	bool over;                    /* the loop has let go: nobody wants to hear */
	struct closer_users users;    /* then these are ours */
	uv_async_t *async;
	int (*close)(int fd);
};

/* ---- the threads */

static void shared_free(struct closer_shared *shared)
{
	struct closer_user *user;
	struct closer_job *job;

	while ((job = STAILQ_FIRST(&shared->done))) {
		STAILQ_REMOVE_HEAD(&shared->done, next);
		free(job);
	}
	while ((user = LIST_FIRST(&shared->users))) {
		LIST_REMOVE(user, next);
		free(user);
	}
	uv_mutex_destroy(&shared->mutex);
	free(shared);
}

/* Called with the lock. NULL: none that a thread may take. */
static struct closer_job *job_pick(struct closer_shared *shared)
{
	struct nic_fair_item *item = nic_fair_take(&shared->todo);

	return item ? container_of(item, struct closer_job, turn) : NULL;
}

static void *thread_run(void *arg)
{
	struct closer_shared *shared = arg;
	struct closer_job *job;
	bool last;

	uv_mutex_lock(&shared->mutex);
	while ((job = job_pick(shared))) {
		uv_mutex_unlock(&shared->mutex);
		shared->close(job->fd);
		uv_mutex_lock(&shared->mutex);
		nic_fair_leave(&shared->todo, &job->user->turns, 0);
		STAILQ_INSERT_TAIL(&shared->done, job, next);
		if (!shared->over)
			uv_async_send(shared->async);
	}
	last = --shared->threads == 0 && shared->over;
	uv_mutex_unlock(&shared->mutex);
	if (last)
		shared_free(shared);
	return NULL;
}

/* Called with the lock. Detached, because who hangs cannot be waited for. */
static bool thread_start(struct closer_shared *shared)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool ok;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ok = !pthread_create(&thread, &attr, thread_run, shared);
	pthread_attr_destroy(&attr);
	shared->threads += ok;
	return ok;
}

/* ---- the loop */

/* There are as many as have something pending: few, most often none. */
static struct closer_user *user_find(const struct closer *closer, uint32_t uid)
{
	struct closer_user *user;

	LIST_FOREACH(user, &closer->users, next)
		if (user->uid == uid)
			break;
	return user;
}

static struct closer_user *user_get(struct closer *closer, uint32_t uid)
{
	struct closer_user *user = user_find(closer, uid);

	if (user)
		return user;
	user = calloc(1, sizeof(*user));
	if (user) {
		user->uid = uid;
		nic_fair_queue_init(&user->turns);
		LIST_INSERT_HEAD(&closer->users, user, next);
	}
	return user;
}

static void job_free(struct closer *closer, struct closer_job *job)
{
	closer->pending--;
	if (!--job->user->pending) {
		LIST_REMOVE(job->user, next);
		free(job->user);
	}
	free(job);
}

static struct closer_job *job_new(struct closer *closer, int fd, uint32_t uid)
{
	struct closer_user *user = user_get(closer, uid);
	struct closer_job *job = user ? malloc(sizeof(*job)) : NULL;

	if (!job)
		return NULL;   /* the user stays, for the next */
	*job = (struct closer_job){ .fd = fd, .user = user };
	user->pending++;
	closer->pending++;
	return job;
}

static void on_async(uv_async_t *async)
{
	struct closer *closer = async->data;
	struct closer_jobs done = STAILQ_HEAD_INITIALIZER(done);
	struct closer_job *job;

	uv_mutex_lock(&closer->shared->mutex);
	STAILQ_CONCAT(&done, &closer->shared->done);
	uv_mutex_unlock(&closer->shared->mutex);
	while ((job = STAILQ_FIRST(&done))) {
		STAILQ_REMOVE_HEAD(&done, next);
		job_free(closer, job);
	}
}

static void async_free(uv_handle_t *handle)
{
	free(handle);
}

/* When the first descriptor comes. */
static bool shared_make(struct closer *closer)
{
	struct closer_shared *shared = calloc(1, sizeof(*shared));
	uv_async_t *async = calloc(1, sizeof(*async));

	if (!shared || !async || uv_mutex_init(&shared->mutex)) {
		free(shared);
		free(async);
		return false;
	}
	if (uv_async_init(closer->loop, async, on_async)) {
		uv_mutex_destroy(&shared->mutex);
		free(shared);
		free(async);
		return false;
	}
	uv_unref((uv_handle_t *)async);
	async->data = closer;
	nic_fair_init(&shared->todo, 1, CLOSER_THREADS_PER_USER, CLOSER_THREADS_PER_USER);
	STAILQ_INIT(&shared->done);
	shared->async = async;
	shared->close = closer->close;
	closer->shared = shared;
	closer->async = async;
	return true;
}

void closer_init(struct closer *closer, uv_loop_t *loop)
{
	*closer = (struct closer){ .loop = loop, .close = close };
}

/* False: nobody will ever do it. */
static bool job_give(struct closer_shared *shared, struct closer_job *job)
{
	bool taken;

	uv_mutex_lock(&shared->mutex);
	nic_fair_add(&shared->todo, &job->user->turns, &job->turn);
	if (job->user->turns.busy < CLOSER_THREADS_PER_USER && shared->threads < CLOSER_THREADS)
		(void)thread_start(shared);
	taken = shared->threads > 0;
	if (!taken)
		nic_fair_remove(&shared->todo, &job->turn);
	uv_mutex_unlock(&shared->mutex);
	return taken;
}

void closer_close(struct closer *closer, int fd, uint32_t uid)
{
	struct closer_job *job = closer->shared || shared_make(closer) ? job_new(closer, fd, uid) : NULL;

	if (job && job_give(closer->shared, job))
		return;
	closer->close(fd);
	if (job)
		job_free(closer, job);
}

bool closer_has_room(const struct closer *closer, uint32_t uid)
{
	const struct closer_user *user = user_find(closer, uid);

	return !user || user->pending < CLOSER_PER_USER;
}

/* Threads that hang keep the queue, and what it names. */
void closer_deinit(struct closer *closer)
{
	struct closer_shared *shared = closer->shared;
	struct closer_user *user;
	bool idle;

	if (!shared)
		return;
	on_async(closer->async);
	uv_mutex_lock(&shared->mutex);
	shared->over = true;
	while ((user = LIST_FIRST(&closer->users))) {
		LIST_REMOVE(user, next);
		LIST_INSERT_HEAD(&shared->users, user, next);
	}
	idle = !shared->threads;
	uv_mutex_unlock(&shared->mutex);
	if (idle)
		shared_free(shared);
	closer->shared = NULL;
	uv_close((uv_handle_t *)closer->async, async_free);
}
