/* SPDX-License-Identifier: MIT */
/*
 * Memory that can be registered. A memfd is allocated whole before it is mapped (so that being out of memory is an error
 * here and never a SIGBUS later), then sealed against changing its size: nicd takes nothing that could be cut off under the
 * device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "client/buffer.h"

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

enum { HUGE_2M = 21, HUGE_1G = 30, NORMAL = 0 };   /* bits of a page's size */

int buffer_page_size(int fd, size_t *ret)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*ret = fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
	return 0;
}

/* A memfd of whole pages that are all there. */
static int buffer_create(size_t size, unsigned huge)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | huge << MFD_HUGE_SHIFT : 0);
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

/* `huge`: HUGE_2M, HUGE_1G, or NORMAL. */
static int buffer_try(struct buffer *buffer, size_t size, unsigned huge)
{
	size_t page = huge ? (size_t)1 << huge : (size_t)sysconf(_SC_PAGESIZE);

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

/* A file of the kernel's about huge pages of that size. False: it has none. */
static bool huge_count(unsigned huge, const char *name, uint64_t *ret)
{
	char path[96], text[24];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s", 1ULL << (huge - 10), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	*ret = strtoull(text, NULL, 10);
	return true;
}

/* Why there are no huge pages: what can be done about it depends on it. */
static int huge_refuse(struct nicd_error_info *error, unsigned huge, size_t size)
{
	uint64_t needed = size / ((uint64_t)1 << huge) + (size % ((uint64_t)1 << huge) != 0);
	uint64_t free_pages = 0, reserved = 0;

	if (!huge_count(huge, "free_hugepages", &free_pages))
		return error_local(error, ERROR_HUGE_PAGES_SIZE, 0, (uint64_t)1 << huge);
	/* What others have mapped and not touched is free only by name. */
	if (huge_count(huge, "resv_hugepages", &reserved))
		free_pages -= reserved < free_pages ? reserved : free_pages;
	return error_local(error, free_pages < needed ? ERROR_HUGE_PAGES : ERROR_HUGE_PAGES_GROUP, free_pages, needed);
}

int buffer_init(struct buffer *buffer, size_t size, uint32_t flags, struct nicd_error_info *error)
{
	const uint32_t huge = NICD_BUFFER_HUGE | NICD_BUFFER_HUGE_ONLY;
	unsigned first = flags & NICD_BUFFER_HUGE_1G ? HUGE_1G : HUGE_2M;
	int r = -ENOMEM;

	if (size == 0 || (flags & ~(huge | NICD_BUFFER_HUGE_1G)) || (flags & (huge | NICD_BUFFER_HUGE_1G)) == NICD_BUFFER_HUGE_1G)
		return error_local(error, ERROR_ARGUMENT, 0, 0);
	if (flags & huge)
		r = buffer_try(buffer, size, first);
	if (r < 0 && (flags & NICD_BUFFER_HUGE_ONLY))
		return huge_refuse(error, first, size);
	if (r < 0 && (flags & huge) && first != HUGE_2M)
		r = buffer_try(buffer, size, HUGE_2M);
	if (r < 0)
		r = buffer_try(buffer, size, NORMAL);
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
