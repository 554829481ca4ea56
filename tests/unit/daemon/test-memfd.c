/* SPDX-License-Identifier: MIT */
/*
 * Descriptors passed as memory: what is taken, and that everything else is refused with what teaches, closed, and never
 * waited for.
 */
#include "tests/unit/daemon/rig.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/memfd.h"

static enum nicd_reason check(int fd, struct nic_memory_facts *facts, struct nicd_error *err)
{
	int r;

	assert_true(fd >= 0);
	*err = (struct nicd_error){ 0 };
	r = memfd_check(fd, facts, err);
	assert_int_equal(r < 0, err->reason != NICD_R_NONE);
	return err->reason;
}

/* Takes the descriptor. */
static void refused(int fd, enum nicd_reason reason)
{
	struct nic_memory_facts facts;
	struct nicd_error err;

	assert_int_equal(check(fd, &facts, &err), reason);
	close(fd);
}

static int reopen(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	close(fd);
	return again;
}

static void test_good(void **state)
{
	struct nic_memory_facts facts;
	struct nicd_error err;
	int fd = rig_memfd(10000, F_SEAL_SHRINK);

	assert_int_equal(check(fd, &facts, &err), NICD_R_NONE);
	assert_int_equal(facts.fd, fd);
	assert_int_equal(facts.size, 10000);
	assert_int_equal(facts.page_size, 4096);
	assert_true(facts.writable);
	close(fd);
}

static void test_read_only(void **state)
{
	static const int seals[] = { F_SEAL_WRITE, F_SEAL_FUTURE_WRITE };
	struct nic_memory_facts facts;
	struct nicd_error err;
	int fd = reopen(rig_memfd(4096, F_SEAL_SHRINK), O_RDONLY);

	assert_int_equal(check(fd, &facts, &err), NICD_R_NONE);
	/* mutation: writable whatever the mode */
	assert_false(facts.writable);
	close(fd);
	for (unsigned i = 0; i < 2; i++) {
		fd = rig_memfd(4096, F_SEAL_SHRINK | seals[i]);
		assert_int_equal(check(fd, &facts, &err), NICD_R_NONE);
		/* mutation: forget one of the two seals */
		assert_false(facts.writable);
		close(fd);
	}
}

static void test_write_only(void **state)
{
	/* mutation: take what is not read-only */
	refused(reopen(rig_memfd(4096, F_SEAL_SHRINK), O_WRONLY), NICD_R_MEMORY_WRITE_ONLY);
}

static void test_not_memfd(void **state)
{
	char path[] = "/tmp/nicd-test-XXXXXX", shm[] = "/dev/shm/nicd-test-XXXXXX";
	int pair[2], fd;

	assert_int_equal(pipe(pair), 0);
	refused(pair[0], NICD_R_MEMORY_NOT_MEMFD);
	refused(pair[1], NICD_R_MEMORY_NOT_MEMFD);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	refused(pair[0], NICD_R_MEMORY_NOT_MEMFD);
	refused(pair[1], NICD_R_MEMORY_NOT_MEMFD);
	refused(eventfd(0, 0), NICD_R_MEMORY_NOT_MEMFD);
	refused(epoll_create1(0), NICD_R_MEMORY_NOT_MEMFD);
	refused(open("/dev/zero", O_RDWR), NICD_R_MEMORY_NOT_MEMFD);
	refused(open("/proc/self/status", O_RDONLY), NICD_R_MEMORY_NOT_MEMFD);
	refused(open("/", O_RDONLY | O_DIRECTORY), NICD_R_MEMORY_NOT_MEMFD);
	refused(reopen(rig_memfd(4096, F_SEAL_SHRINK), O_PATH), NICD_R_MEMORY_NOT_MEMFD);
	fd = mkstemp(path);
	assert_int_equal(ftruncate(fd, 4096), 0);
	unlink(path);
	refused(fd, NICD_R_MEMORY_NOT_MEMFD);
	/* A file of a tmpfs has a seal, but it is not the one that counts. */
	fd = mkstemp(shm);
	if (fd >= 0) {
		unlink(shm);
		assert_int_equal(posix_fallocate(fd, 0, 4096), 0);
		/* mutation: take whatever has seals */
		refused(fd, NICD_R_MEMORY_NOT_MEMFD);
	}
	/* A memfd that can never be sealed. */
	fd = memfd_create("rig", MFD_CLOEXEC);
	assert_int_equal(posix_fallocate(fd, 0, 4096), 0);
	refused(fd, NICD_R_MEMORY_NOT_MEMFD);
#ifdef SYS_memfd_secret
	fd = (int)syscall(SYS_memfd_secret, 0);
	if (fd >= 0)
		refused(fd, NICD_R_MEMORY_NOT_MEMFD);
#endif
}

static void test_not_sealed(void **state)
{
	static const int seals[] = { 0, F_SEAL_GROW, F_SEAL_GROW | F_SEAL_WRITE, F_SEAL_SEAL | F_SEAL_GROW };
	struct nic_memory_facts facts;
	struct nicd_error err;

	for (unsigned i = 0; i < 4; i++) {
		int fd = rig_memfd(4096, seals[i]);

		/* mutation: any seal will do */
		assert_int_equal(check(fd, &facts, &err), NICD_R_MEMORY_NOT_SEALED);
		assert_int_equal(err.limit, F_SEAL_SHRINK);
		assert_int_equal(err.observed, seals[i]);
		close(fd);
	}
}

static void test_size(void **state)
{
	struct nic_memory_facts facts;
	struct nicd_error err;
	int fd = rig_memfd(0, F_SEAL_SHRINK);

	refused(fd, NICD_R_MEMORY_EMPTY);
	/* Sparse: never touched, and touched all but one page. */
	fd = memfd_create("rig", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(check(fd, &facts, &err), NICD_R_MEMORY_SPARSE);
	assert_int_equal(err.limit, 1 << 20);
	assert_int_equal(err.observed, 0);
	assert_int_equal(fallocate(fd, 0, 0, (1 << 20) - 4096), 0);
	/* mutation: compare blocks with pages */
	assert_int_equal(check(fd, &facts, &err), NICD_R_MEMORY_SPARSE);
	assert_int_equal(err.observed, (1 << 20) - 4096);
	assert_int_equal(fallocate(fd, 0, (1 << 20) - 4096, 4096), 0);
	assert_int_equal(check(fd, &facts, &err), NICD_R_NONE);
	/* Grown since: the size is the one now, and the new part is not there. */
	assert_int_equal(ftruncate(fd, 2 << 20), 0);
	assert_int_equal(check(fd, &facts, &err), NICD_R_MEMORY_SPARSE);
	/* Punched. */
	assert_int_equal(fallocate(fd, 0, 0, 2 << 20), 0);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
	assert_int_equal(check(fd, &facts, &err), NICD_R_MEMORY_SPARSE);
	close(fd);
}

/* -1: this machine has no huge page to spare. */
static int hugetlb_memfd(void)
{
	int fd = memfd_create("rig", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

	if (fd < 0 || (ftruncate(fd, 2 << 20) == 0 && fallocate(fd, 0, 0, 2 << 20) == 0))
		return fd;
	close(fd);
	return -1;
}

static void test_hugetlb(void **state)
{
	struct nic_memory_facts facts;
	struct nicd_error err;
	int fd = hugetlb_memfd();

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(check(fd, &facts, &err), NICD_R_NONE);
	/* mutation: always 4096 */
	assert_int_equal(facts.page_size, 2 << 20);
	close(fd);
}

/* linux/udmabuf.h */
struct udmabuf_create_args {
	uint32_t memfd, flags;
	uint64_t offset, size;
};

static void test_dmabuf(void **state)
{
	struct udmabuf_create_args args = { .size = 4096 };
	int dev = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), memfd, fd;

	assert_true(dev >= 0);
	memfd = rig_memfd(4096, F_SEAL_SHRINK);
	args.memfd = (uint32_t)memfd;
	fd = (int)syscall(SYS_ioctl, dev, 0x40187542, &args);
	close(memfd);
	close(dev);
	/* mutation: no look at the name */
	refused(fd, NICD_R_MEMORY_KIND);
}

/* Through the protocol: whatever was wrong with it, the descriptor is closed and the session lives (rig_teardown counts). */
static void test_add_memory(void **state)
{
	struct rig_client *c = rig_hello(*state, "uid:1000", CLIENT_ROLE_CLIENT);
	Nicd__AddMemory args = NICD__ADD_MEMORY__INIT;
	const Nicd__Reply *reply;

	assert_reason(rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &args, eventfd(0, EFD_CLOEXEC)), MEMORY_NOT_MEMFD);
	assert_int_equal(c->rig->env.n_closed, 1);
	assert_reason(rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &args, rig_memfd(4096, 0)), MEMORY_NOT_SEALED);
	reply = rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &args, rig_memfd(4096, F_SEAL_SHRINK));
	assert_done(reply);
	assert_int_equal(reply->memory->id >> 56, NIC_MEMORY);
	assert_int_equal(reply->memory->page_size, 4096);
	assert_true(reply->memory->writable);
	assert_int_equal(c->rig->nic.held_fds, 1);
	c->client->owner.account->limits.max[NIC_SLOT_MEMORIES] = 1;
	assert_reason(rig_call_fd(c, NICD__REQUEST__CALL_ADD_MEMORY, &args, rig_memfd(4096, F_SEAL_SHRINK)), QUOTA);
	/* Checked and counted, but neither mapped nor known to the device before somebody needs it. */
	assert_int_equal(c->rig->fake->calls[FAKE_ATTACH], 0);
	assert_done(rig_close(c, reply->memory->id));
	assert_int_equal(c->rig->nic.held_fds, 0);
}

/* cmocka's own skipping says "not ok". */
static size_t keep(struct CMUnitTest *tests, size_t n, struct CMUnitTest test, bool can)
{
	if (can)
		tests[n++] = test;
	else
		fprintf(stderr, "left out, because this machine cannot: %s\n", test.name);
	return n;
}

static bool hugetlb_there(void)
{
	int fd = hugetlb_memfd();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int main(void)
{
	struct CMUnitTest tests[16] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_write_only),
		cmocka_unit_test(test_not_memfd),
		cmocka_unit_test(test_not_sealed),
		cmocka_unit_test(test_size),
		rig_test(test_add_memory),
	};
	size_t n = 7;

	n = keep(tests, n, (struct CMUnitTest)cmocka_unit_test(test_hugetlb), hugetlb_there());
	n = keep(tests, n, (struct CMUnitTest)cmocka_unit_test(test_dmabuf), access("/dev/udmabuf", R_OK | W_OK) == 0);
	return _cmocka_run_group_tests("tests", tests, n, NULL, NULL);
}
