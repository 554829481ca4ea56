/* SPDX-License-Identifier: MIT */
/*
 * Memory that can be registered. A memfd is allocated whole before it is mapped (so that being out of memory is an error
 * here and never a SIGBUS later), then sealed against changing its size: nicd takes nothing that could be cut off under the
 * device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "client/buffer.h"

#define HUGE_PAGE ((size_t)2 << 20)

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

int buffer_page_size(int fd, size_t *ret)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*ret = fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
	return 0;
}

/* A memfd of whole pages that are all there. */
static int buffer_create(size_t size, bool huge)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
	int fd = memfd_create("nicd buffer", flags);
	int r;

	if (fd < 0)
		return -errno;
	r = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	while (r == 0 && fallocate(fd, 0, 0, (off_t)size) < 0)
		if (errno != EINTR)
			r = -errno;
	if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		r = -errno;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static bool buffer_round(size_t size, size_t page, size_t *ret)
{
	/* Neither the sum nor an off_t may wrap. */
	if (size == 0 || size > (size_t)PTRDIFF_MAX - page)
		return false;
	*ret = (size + page - 1) / page * page;
	return true;
}

/*
 * A memfd has no limit of its own: allocating more than the machine has would not fail but end in the hands of the OOM
 * killer. What is less may still be too much, but not by a slip of the pen.
 */
static bool buffer_is_possible(size_t size)
{
	struct sysinfo info;

	return sysinfo(&info) == 0 && size / info.mem_unit <= info.totalram + info.totalswap;
}

static int buffer_try(struct buffer *buffer, size_t size, size_t page, bool huge)
{
	*buffer = (struct buffer){ .fd = -1, .page_size = page };
	if (!buffer_round(size, page, &buffer->size) || !buffer_is_possible(buffer->size))
		return -ENOMEM;
	buffer->fd = buffer_create(buffer->size, huge);
	return buffer->fd < 0 ? buffer->fd : 0;
}

static int buffer_map(struct buffer *buffer, bool writable, struct nicd_error_info *error)
{
	int protection = PROT_READ | (writable ? PROT_WRITE : 0);
	void *address = mmap(NULL, buffer->size, protection, MAP_SHARED | MAP_POPULATE, buffer->fd, 0);

	if (address == MAP_FAILED) {
		int err = errno;

		buffer_deinit(buffer);
		return error_system(error, err, "mapping the buffer", "use a smaller one, or release memory");
	}
	buffer->address = address;
	return 0;
}

int buffer_init(struct buffer *buffer, size_t size, uint32_t flags, struct nicd_error_info *error)
{
	bool huge = flags & (NICD_BUFFER_HUGE | NICD_BUFFER_HUGE_ONLY);
	int r = -ENOMEM;

	if (size == 0 || (flags & ~(uint32_t)(NICD_BUFFER_HUGE | NICD_BUFFER_HUGE_ONLY)))
		return error_local(error, ERROR_ARGUMENT, 0, 0);
	if (huge)
		r = buffer_try(buffer, size, HUGE_PAGE, true);
	if (r < 0 && (flags & NICD_BUFFER_HUGE_ONLY))
		return error_local(error, ERROR_HUGE_PAGES, 0, 0);
	if (r < 0)
		r = buffer_try(buffer, size, (size_t)sysconf(_SC_PAGESIZE), false);
	if (r < 0)
		return error_system(error, -r, "allocating the buffer", "use a smaller one, or release memory");
	return buffer_map(buffer, true, error);
}

int buffer_init_fd(struct buffer *buffer, int fd, struct nicd_error_info *error)
{
	struct stat st;
	int seals, mode, r;

	*buffer = (struct buffer){ .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0) };
	if (buffer->fd < 0)
		return error_system(error, errno, "the buffer's fd", "pass an open memfd");
	seals = fcntl(buffer->fd, F_GET_SEALS);
	mode = fcntl(buffer->fd, F_GETFL) & O_ACCMODE;
	r = buffer_page_size(buffer->fd, &buffer->page_size);
	if (r == 0 && fstat(buffer->fd, &st) < 0)
		r = -errno;
	if (r < 0) {
		buffer_deinit(buffer);
		return error_system(error, -r, "the buffer's fd", "pass an open memfd");
	}
	/* By nicd's own rules, and before it is mapped: what can shrink would kill whoever reads it. */
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || st.st_size <= 0) {
		const struct nicd_error refusal = {
			.reason = seals < 0 ? NICD_R_MEMORY_NOT_MEMFD :
				  st.st_size <= 0 ? NICD_R_MEMORY_EMPTY : NICD_R_MEMORY_NOT_SEALED,
			.limit = F_SEAL_SHRINK,
			.observed = seals < 0 ? 0 : (uint64_t)seals,
		};

		buffer_deinit(buffer);
		return error_reason(error, &refusal);
	}
	buffer->size = (size_t)st.st_size;
	return buffer_map(buffer, mode == O_RDWR && !(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)), error);
}

void buffer_deinit(struct buffer *buffer)
{
	if (buffer->address)
		munmap(buffer->address, buffer->size);
	if (buffer->fd >= 0)
		close(buffer->fd);
	*buffer = (struct buffer){ .fd = -1 };
}
