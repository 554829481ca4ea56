# SPDX-License-Identifier: MIT
"""Descriptors that this kernel makes, and others do not."""
import fcntl
import os
import struct

from nicdtest import memory
from nicdtest.pb import pb
from nicdtest.wire import expect_refused

CREATE_DUMB, HANDLE_TO_FD = 0xc02064b2, 0xc00c642d   # DRM_IOCTL_MODE_CREATE_DUMB, DRM_IOCTL_PRIME_HANDLE_TO_FD


def offered(session, fd, reason):
    mr = session.create_mr(session.create_pd())
    with expect_refused(reason):
        session.add_memory(fd)
    with expect_refused(reason):
        session.register(mr, [(None, 0, 4096)], fd=fd)
    with expect_refused("FDS", limit=0, observed=1):
        session.call(pb.CreatePd(), [fd])
    os.close(fd)


def dma_buf():
    """A buffer of the virtual GEM device."""
    card = os.open("/dev/dri/card0", os.O_RDWR | os.O_CLOEXEC)
    try:
        dumb = bytearray(struct.pack("=IIIIIIQ", 1, 4096, 8, 0, 0, 0, 0))
        fcntl.ioctl(card, CREATE_DUMB, dumb)
        handle = struct.unpack_from("=I", dumb, 16)[0]
        prime = bytearray(struct.pack("=IIi", handle, os.O_CLOEXEC | os.O_RDWR, -1))
        fcntl.ioctl(card, HANDLE_TO_FD, prime)
        return struct.unpack_from("=i", prime, 8)[0]
    finally:
        os.close(card)


def test_dma_buf(session):
    # mutation: no look at the name, and it is told as something that is no memory at all
    offered(session, dma_buf(), "MEMORY_KIND")


def test_memfd_secret(session):
    fd = memory.BAD_FDS["memfd-secret"][0]()
    offered(session, fd, "MEMORY_NOT_MEMFD")


def test_hugetlb(session):
    # mutation: always 4096
    fd = memory.memfd(2 << 20, flags=os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    info = session.add_memory(fd)
    assert (info.page_size, info.size) == (2 << 20, 2 << 20)
    os.close(fd)
