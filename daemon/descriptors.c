/* SPDX-License-Identifier: MIT */
/*
 * Counting descriptors without asking the kernel each time: what was open at start, the sessions, client memory as the NIC layer
 * counts it, and those that a worker is closing. What passes through unseen (duplicates on their way to the device,
 * requests that wait) is covered by a margin. Embedded in the daemon.
 */
#include "daemon/descriptors.h"

#include <dirent.h>
#include <errno.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "daemon/env.h"
#include "nicd/nic.h"

enum { MARGIN_MAX = 512, MARGIN_SHARE = 16, USEFUL_SESSIONS = 4 };

uint32_t descriptors_open(void)
{
	struct stat st;
	uint32_t n = 0;
	DIR *dir;

	/* Since Linux 6.2 the size of the directory is the number. */
	if (!stat("/proc/self/fd", &st) && st.st_size > 0)
		return (uint32_t)st.st_size;
	dir = opendir("/proc/self/fd");
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n > 3 ? n - 3 : 0;   /* ".", ".." and the directory itself */
}

int descriptors_init(struct descriptors *descriptors, const struct nic *nic, const struct env *env)
{
	struct rlimit limit;
	uint32_t margin;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	if (limit.rlim_cur < limit.rlim_max) {
		struct rlimit raised = { limit.rlim_max, limit.rlim_max };

		if (!setrlimit(RLIMIT_NOFILE, &raised))
			limit = raised;
	}
	*descriptors = (struct descriptors){
		.limit = limit.rlim_cur > UINT32_MAX ? UINT32_MAX : (uint32_t)limit.rlim_cur,
		.nic = nic,
		.env = env,
	};
	margin = descriptors->limit / MARGIN_SHARE;
	descriptors->base = descriptors_open() + (margin > MARGIN_MAX ? MARGIN_MAX : margin);
	return descriptors_free(descriptors, DESCRIPTORS_RESERVE + DESCRIPTORS_ADMINS + USEFUL_SESSIONS * DESCRIPTORS_PER_SESSION) ? 0 : -EMFILE;
}

bool descriptors_free(const struct descriptors *descriptors, uint32_t want)
{
	uint64_t used = (uint64_t)descriptors->base + descriptors->sessions + descriptors->pidfds +
			descriptors->env->closing + descriptors->env->closer.pending + descriptors->nic->held_fds;

	return used + want <= descriptors->limit;
}
