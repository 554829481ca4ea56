/* SPDX-License-Identifier: MIT */
/*
 * The checks of a descriptor that a client passed as memory. It may be anything: a FUSE file whose server sleeps, a pipe, a
 * socket. So the seals are asked first: that never leaves the kernel, and only shmem and hugetlbfs inodes have any. A
 * plain file of a tmpfs answers F_SEAL_SEAL alone, which is why F_SEAL_SHRINK is what counts.
 *
 * Nothing here is kept, and nothing is mapped.
 */
#include "daemon/memfd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/util.h"

/*
 * The name of a dma-buf says what it is. Asking for it needs no ioctl on a descriptor that may be anything, and takes
 * no longer for any: the fdinfo would, since an epoll lists all it watches there.
 */
static bool memfd_is_dmabuf(int fd)
{
	static const char prefix[] = "/dmabuf:";
	char path[64], name[sizeof(prefix) - 1];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name));
	return n == (ssize_t)sizeof(name) && !memcmp(name, prefix, sizeof(name));
}

/* shmem may answer the size of a huge page it would like to use; only that of hugetlbfs is what the memory is made of. */
static uint32_t memfd_page_size(int fd, const struct stat *st)
{
	struct statfs fs;

	if (st->st_blksize <= NICD_PAGE || fstatfs(fd, &fs) < 0 || fs.f_type != HUGETLBFS_MAGIC)
		return NICD_PAGE;
	return (uint32_t)fs.f_bsize;
}

int memfd_check(int fd, struct nic_memory_facts *ret, struct nicd_error *err)
{
	int seals, mode;
	uint64_t size, there;
	struct stat st;

	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return nicd_refuse(err, memfd_is_dmabuf(fd) ? NICD_R_MEMORY_KIND : NICD_R_MEMORY_NOT_MEMFD);
	if (seals == F_SEAL_SEAL)
		return nicd_refuse(err, NICD_R_MEMORY_NOT_MEMFD);
	if (!(seals & F_SEAL_SHRINK))
		return nicd_refuse_at(err, NICD_R_MEMORY_NOT_SEALED, F_SEAL_SHRINK, (uint64_t)seals);
	mode = fcntl(fd, F_GETFL);
	if (mode < 0 || fstat(fd, &st) < 0)
		return nicd_refuse(err, NICD_R_MEMORY_NOT_MEMFD);
	mode &= O_ACCMODE;
	if (mode != O_RDONLY && mode != O_RDWR)
		return nicd_refuse(err, NICD_R_MEMORY_WRITE_ONLY);
	/* The size is read after the seals: it can only grow now. */
	size = (uint64_t)st.st_size;
	there = (uint64_t)st.st_blocks * 512;
	if (!size)
		return nicd_refuse(err, NICD_R_MEMORY_EMPTY);
	if (there < size)
		return nicd_refuse_at(err, NICD_R_MEMORY_SPARSE, size, there);
	*ret = (struct nic_memory_facts){
		.fd = fd,
		.size = size,
		.page_size = memfd_page_size(fd, &st),
		.writable = mode == O_RDWR && !(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)),
	};
	return 0;
}
