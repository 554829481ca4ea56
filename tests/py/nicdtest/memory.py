# SPDX-License-Identifier: MIT
"""Descriptors to hand to nicd: good memory, and everything else that is not."""
import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import socket
import struct
import tempfile

F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_WRITE, SEAL_FUTURE_WRITE = 1, 2, 4, 8, 16

_libc = ctypes.CDLL(None, use_errno=True)


def seal(fd, seals):
    fcntl.fcntl(fd, F_ADD_SEALS, seals)


def seals_of(fd):
    return fcntl.fcntl(fd, F_GET_SEALS)


def memfd(size, seals=SEAL_SHRINK, populate=True, flags=os.MFD_ALLOW_SEALING):
    fd = os.memfd_create("nicd-test", flags | os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    if populate and size:
        os.posix_fallocate(fd, 0, size)
    if seals:
        seal(fd, seals)
    return fd


def reopen(fd, flags):
    """Another open file description of the same file."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


class Buffer:
    """A sealed, populated memfd, mapped here too: what a well-behaved client has."""

    def __init__(self, size, fill=None):
        self.size = size
        self.fd = memfd(size)
        self.map = mmap.mmap(self.fd, size)
        if fill is not None:
            self.map[:] = pattern(size, fill)

    def __getitem__(self, where):
        return self.map[where]

    def __setitem__(self, where, data):
        self.map[where] = data

    def bytes(self):
        return self.map[:]

    def close(self):
        if self.fd >= 0:
            self.map.close()
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __del__(self):
        with contextlib.suppress(Exception):
            self.close()


def pattern(size, seed):
    """Bytes that repeat at no power of two and differ by seed."""
    unit = bytes((i * 7 + seed * 13 + (i >> 8)) & 0xff for i in range(4099))
    return (unit * (size // len(unit) + 1))[:size]


def _syscall(number, *args):
    fd = _libc.syscall(number, *args)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


SYS_signalfd4, SYS_eventfd2, SYS_inotify_init1, SYS_timerfd_create = 289, 290, 294, 283
SYS_perf_event_open, SYS_bpf, SYS_open_tree = 298, 321, 428
SYS_userfaultfd, SYS_io_uring_setup, SYS_memfd_secret, SYS_fanotify_init, SYS_fsopen = 323, 425, 447, 300, 430


def _pipe(end):
    ends = os.pipe2(os.O_CLOEXEC)
    os.close(ends[1 - end])
    return ends[end]


def _detached(sock):
    return sock.detach()


def _file(directory, size=8192):
    fd, path = tempfile.mkstemp(dir=directory)
    os.unlink(path)
    os.write(fd, b"x" * size)
    return fd


def _alien(fd, mode):
    try:
        return reopen(fd, mode)
    finally:
        os.close(fd)


def _signalfd():
    mask = (ctypes.c_uint64 * 16)()
    return _syscall(SYS_signalfd4, -1, ctypes.byref(mask), 8, os.O_CLOEXEC)


def _io_uring():
    params = (ctypes.c_uint8 * 120)()
    return _syscall(SYS_io_uring_setup, 4, ctypes.byref(params))


def _memfd_secret():
    fd = _syscall(SYS_memfd_secret, os.O_CLOEXEC)
    os.ftruncate(fd, 4096)
    return fd


def _pty():
    master, slave = os.openpty()
    os.close(slave)
    return master


def _epoll():
    epoll = select.epoll()
    try:
        return os.dup(epoll.fileno())
    finally:
        epoll.close()


def _cut(size):
    """Was populated, then truncated to nothing, then sealed."""
    fd = memfd(size, seals=0)
    os.ftruncate(fd, 0)
    seal(fd, SEAL_SHRINK)
    return fd


def _half(size):
    fd = memfd(size, seals=SEAL_SHRINK, populate=False)
    os.pwrite(fd, b"x" * (size // 2), 0)
    return fd


def _punched(size):
    fd = memfd(size)
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
    if _libc.fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, ctypes.c_long(4096), ctypes.c_long(4096)):
        raise OSError(ctypes.get_errno(), "fallocate")
    return fd


def _fifo():
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "fifo")
    os.mkfifo(path)
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.unlink(path)
        os.rmdir(directory)


def _listener(family, address):
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind(address)
    sock.listen(1)
    return sock.detach()


def _carrier():
    """A socket with a good memfd in flight inside it, and itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = memfd(8192)
    with theirs:
        socket.send_fds(theirs, [b"x"], [fd, ours.fileno()])
    os.close(fd)
    return ours.detach()


def _tty():
    master, slave = os.openpty()
    os.close(master)
    return slave


def _perf_event():
    attr = ctypes.create_string_buffer(struct.pack("<IIQQQQQ", 1, 112, 9, 0, 0, 0, 1 | 1 << 5 | 1 << 6) + bytes(64))   # SW_DUMMY
    return _syscall(SYS_perf_event_open, ctypes.byref(attr), 0, -1, -1, 8)


def _bpf_map():
    attr = ctypes.create_string_buffer(struct.pack("<IIIII", 2, 4, 8, 1, 0) + bytes(100))   # an array of one
    return _syscall(SYS_bpf, 0, ctypes.byref(attr), 72)


NOT_MEMFD, NOT_SEALED = ("MEMORY_NOT_MEMFD",), ("MEMORY_NOT_SEALED",)
NEITHER = ("MEMORY_NOT_MEMFD", "MEMORY_NOT_SEALED")   # where the kernel does not tell them apart, or a device might take it
OTHER = NEITHER + ("MEMORY_KIND", "MEMORY_READ_ONLY")

# name -> (maker, reasons that may be given, (limit, observed) where they are defined)
BAD_FDS = {
    "pipe-read": (lambda: _pipe(0), NOT_MEMFD, None),
    "pipe-write": (lambda: _pipe(1), NOT_MEMFD, None),
    "unix-stream-socket": (lambda: _detached(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)), NOT_MEMFD, None),
    "unix-seqpacket-socket": (lambda: _detached(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)), NOT_MEMFD, None),
    "tcp-socket": (lambda: _detached(socket.socket(socket.AF_INET, socket.SOCK_STREAM)), NOT_MEMFD, None),
    "file": (lambda: _file("/var/tmp"), NEITHER, None),
    "tmpfs-file": (lambda: _file("/dev/shm"), NEITHER, None),
    "directory": (lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), NOT_MEMFD, None),
    "path-of-file": (lambda: os.open("/etc/passwd", os.O_PATH | os.O_CLOEXEC), NOT_MEMFD, None),
    "path-of-memfd": (lambda: _alien(memfd(8192), os.O_PATH), OTHER, None),
    "write-only-memfd": (lambda: _alien(memfd(8192), os.O_WRONLY), ("MEMORY_WRITE_ONLY",), None),
    "epoll": (_epoll, NOT_MEMFD, None),
    "eventfd": (lambda: _syscall(SYS_eventfd2, 0, os.O_CLOEXEC), NOT_MEMFD, None),
    "timerfd": (lambda: _syscall(SYS_timerfd_create, 1, os.O_CLOEXEC), NOT_MEMFD, None),
    "signalfd": (_signalfd, NOT_MEMFD, None),
    "inotify": (lambda: _syscall(SYS_inotify_init1, os.O_CLOEXEC), NOT_MEMFD, None),
    "fanotify": (lambda: _syscall(SYS_fanotify_init, 0x200, 0), NOT_MEMFD, None),
    "pidfd": (lambda: os.pidfd_open(os.getpid()), NOT_MEMFD, None),
    "userfaultfd": (lambda: _syscall(SYS_userfaultfd, os.O_CLOEXEC | 1), NOT_MEMFD, None),
    "io-uring": (_io_uring, NOT_MEMFD, None),
    "memfd-secret": (_memfd_secret, NEITHER, None),
    "fs-context": (lambda: _syscall(SYS_fsopen, b"tmpfs", 1), NOT_MEMFD, None),
    "fifo": (_fifo, NOT_MEMFD, None),
    "netlink-socket": (lambda: _detached(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)), NOT_MEMFD, None),
    "listening-unix-socket": (lambda: _listener(socket.AF_UNIX, ""), NOT_MEMFD, None),
    "listening-tcp-socket": (lambda: _listener(socket.AF_INET, ("127.0.0.1", 0)), NOT_MEMFD, None),
    "socket-with-descriptors-in-flight": (_carrier, NOT_MEMFD, None),
    "path-of-directory": (lambda: os.open("/", os.O_PATH | os.O_CLOEXEC), NOT_MEMFD, None),
    "tty": (_tty, NOT_MEMFD, None),
    "perf-event": (_perf_event, NOT_MEMFD, None),
    "bpf-map": (_bpf_map, NOT_MEMFD, None),
    "mount": (lambda: _syscall(SYS_open_tree, -100, b"/proc", 1 | os.O_CLOEXEC), NOT_MEMFD, None),
    "namespace": (lambda: os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), NOT_MEMFD, None),
    "fuse-device": (lambda: os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC), NOT_MEMFD, None),
    "null-device": (lambda: os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), NOT_MEMFD, None),
    "zero-device": (lambda: os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC), NOT_MEMFD, None),
    "pty": (_pty, NOT_MEMFD, None),
    "proc-file": (lambda: os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC), NOT_MEMFD, None),
    "proc-mem": (lambda: os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC), NOT_MEMFD, None),
    "unsealed-memfd": (lambda: memfd(8192, seals=0), NOT_SEALED, (SEAL_SHRINK, 0)),
    "grow-sealed-memfd": (lambda: memfd(8192, seals=SEAL_GROW), NOT_SEALED, (SEAL_SHRINK, SEAL_GROW)),
    "write-sealed-memfd": (lambda: memfd(8192, seals=SEAL_WRITE), NOT_SEALED, (SEAL_SHRINK, SEAL_WRITE)),
    "future-write-sealed-memfd": (lambda: memfd(8192, seals=SEAL_FUTURE_WRITE), NOT_SEALED, (SEAL_SHRINK, SEAL_FUTURE_WRITE)),
    "seal-sealed-memfd": (lambda: memfd(8192, seals=SEAL_SEAL), NOT_MEMFD, None),
    "unsealable-memfd": (lambda: memfd(8192, seals=0, flags=0), NEITHER, None),
    "sparse-memfd": (lambda: memfd(8192, populate=False), ("MEMORY_SPARSE",), (8192, 0)),
    "half-sparse-memfd": (lambda: _half(16384), ("MEMORY_SPARSE",), (16384, 8192)),
    "punched-memfd": (lambda: _punched(16384), ("MEMORY_SPARSE",), (16384, 12288)),
    "empty-memfd": (lambda: memfd(0), ("MEMORY_EMPTY",), None),
    "truncated-memfd": (lambda: _cut(8192), ("MEMORY_EMPTY",), None),
    "huge-sparse-memfd": (lambda: memfd(1 << 50, populate=False), ("MEMORY_SPARSE",), (1 << 50, 0)),
    "hugetlb-without-pages": (lambda: memfd(2 << 20, populate=False, flags=os.MFD_ALLOW_SEALING | os.MFD_HUGETLB),
                              ("MEMORY_SPARSE",), (2 << 20, 0)),
}
