# SPDX-License-Identifier: MIT
"""What may be handed over as memory, and what may not."""
import errno
import os
import socket

import pytest

from nicdtest import limits, memory
from nicdtest.daemon import wait_until
from nicdtest.pb import LOCAL_WRITE, READ_SINK, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.root import lacking
from nicdtest.wire import Refused, check_error, check_refused, expect_refused


def make(name):
    maker, reasons, figures = memory.BAD_FDS[name]
    try:
        return maker(), reasons, figures
    except OSError as error:
        lacking(name, error)


def refused_by_the_kernel(name, fd):
    """Since Linux 6.8, and Debian's 6.1 today, nobody can hand an io_uring over at all: there is nothing left for nicd to refuse."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        try:
            socket.send_fds(a, [b"x"], [fd])
        except OSError as error:
            assert (name, error.errno) == ("io-uring", errno.EINVAL)
            return True
        return False


@pytest.mark.parametrize("name", memory.BAD_FDS)
def test_what_is_not_memory_is_refused(session, name):
    # mutation: leave out the check of seals, size or present pages
    fd, reasons, figures = make(name)
    try:
        if refused_by_the_kernel(name, fd):
            return
        with pytest.raises(Refused) as refused:
            session.add_memory(fd)
        check_error(refused.value.error, reasons, *(figures or ()))
        # Brought with a registration it is judged alike, and the MR stays as it was.
        mr = session.create_mr(session.create_pd())
        for flags in (0, LOCAL_WRITE, REMOTE_READ, REMOTE_READ | REMOTE_WRITE):
            with pytest.raises(Refused) as refused:
                session.register(mr, [(None, 0, 4096)], fd=fd, flags=flags)
            check_error(refused.value.error, reasons)
        with expect_refused("MR_STATE"):
            session.local_token(mr)
        assert session.list(pb.MEMORY) == []
    finally:
        os.close(fd)


@pytest.mark.parametrize("seals", [memory.SEAL_SHRINK, memory.SEAL_SHRINK | memory.SEAL_GROW,
                                   memory.SEAL_SHRINK | memory.SEAL_GROW | memory.SEAL_SEAL])
def test_sealed_memfd(session, seals):
    # mutation: demand exactly F_SEAL_SHRINK instead of at least it
    fd = memory.memfd(12288, seals)
    info = session.add_memory(fd)
    assert (info.size, info.page_size, info.writable) == (12288, limits.PAGE, True)
    os.close(fd)
    assert [i.serial for i in session.list(pb.MEMORY)] == [info.serial]


def test_size_that_is_not_whole_pages(session):
    # mutation: round the size up to a page, or forget the last part of one
    fd = memory.memfd(5000)
    info = session.add_memory(fd)
    os.close(fd)
    assert info.size == 5000
    mr = session.create_mr(session.create_pd())
    with expect_refused("RANGE_BEYOND", limit=5000, observed=5001):
        session.register(mr, [(info, 0, 5001)])
    session.register(mr, [(info, 0, 5000)])


def read_only_fds():
    sealed, future = memory.memfd(8192, memory.SEAL_SHRINK | memory.SEAL_WRITE), \
        memory.memfd(8192, memory.SEAL_SHRINK | memory.SEAL_FUTURE_WRITE)
    plain = memory.memfd(8192)
    opened = memory.reopen(plain, os.O_RDONLY)
    os.close(plain)
    return {"sealed against writing": sealed, "sealed against future writing": future, "opened read-only": opened}


@pytest.mark.parametrize("kind", ["sealed against writing", "sealed against future writing", "opened read-only"])
@pytest.mark.parametrize("flags", [LOCAL_WRITE, REMOTE_WRITE, READ_SINK, REMOTE_READ | REMOTE_WRITE])
def test_read_only_memory_gives_no_write_rights(session, kind, flags):
    # mutation: ask F_GET_SEALS only, or F_GETFL only; test REMOTE_WRITE by `& 0x4`
    fds = read_only_fds()
    try:
        info = session.add_memory(fds[kind])
        assert not info.writable
        mr = session.create_mr(session.create_pd())
        with expect_refused("MEMORY_READ_ONLY"):
            session.register(mr, [(info, 0, 8192)], flags=flags)
        tokens = session.register(mr, [(info, 0, 8192)], flags=REMOTE_READ)
        assert tokens.flags == REMOTE_READ and tokens.remote_token
    finally:
        for fd in fds.values():
            os.close(fd)


@pytest.mark.parametrize("n", [0, 2])
def test_number_of_descriptors(session, n):
    # mutation: take the first descriptor and leave the rest open
    fds = [memory.memfd(4096) for _ in range(n)]
    with expect_refused("FDS", limit=1, observed=n):
        session.call(pb.AddMemory(), fds)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("name", memory.BAD_FDS)
def test_where_no_descriptor_belongs(session, name):
    """Every request there is, each with one of this kind."""
    # mutation: look at a descriptor before it is known that the request takes one
    fd, _, _ = make(name)
    if not refused_by_the_kernel(name, fd):
        batch = session.batch()
        for field in pb.Request.DESCRIPTOR.oneofs_by_name["call"].fields:
            if field.name not in ("hello", "add_memory", "register_mr"):
                batch.add(getattr(pb, field.message_type.name)(), [fd])
        for reply in batch.run():
            check_refused(reply, "FDS", limit=0, observed=1)
        session.create_pd()
    os.close(fd)


def test_calls_that_take_no_descriptors(session):
    # mutation: leave a descriptor that nobody asked for open
    fd = memory.memfd(4096)
    for call in (pb.CreatePd(), pb.QueryAdapter(), pb.Ledger(), pb.Close(), pb.List(type=pb.MR)):
        with expect_refused("FDS", limit=0, observed=1):
            session.call(call, [fd])
    os.close(fd)


def test_register_with_two_descriptors(session):
    # mutation: use the first descriptor and leave the second open
    mr = session.create_mr(session.create_pd())
    fds = [memory.memfd(4096), memory.memfd(4096)]
    batch = session.batch()
    batch.add(pb.RegisterMr(mr=pb.Ref(id=mr.id), ranges=[pb.Range(length=4096)], iova=4096), fds)
    check_refused(batch.run()[0], "FDS", limit=1, observed=2)
    for fd in fds:
        os.close(fd)


def test_sixty_four_descriptors_in_one_frame(nicd, session):
    # mutation: room for one descriptor less in the control buffer
    fds = [memory.memfd(4096 * (i + 1)) for i in range(limits.FRAME_FDS)]
    batch = session.batch()
    for fd in fds:
        batch.add(pb.AddMemory(), [fd])
    replies = batch.run()
    assert [r.memory.size for r in replies] == [4096 * (i + 1) for i in range(limits.FRAME_FDS)]
    assert nicd.ledger().held_fds == limits.FRAME_FDS
    for fd in fds:
        os.close(fd)


def test_descriptors_go_to_their_requests(session):
    # mutation: hand the descriptors out in the order of the replies, or forget those of a refused request
    small, pipe, large = memory.memfd(4096), memory.BAD_FDS["pipe-read"][0](), memory.memfd(8192)
    batch = session.batch()
    batch.add(pb.AddMemory(), [small])
    batch.add(pb.CreatePd(), [])
    batch.add(pb.AddMemory(), [pipe])
    batch.add(pb.AddMemory(), [large])
    first, _, bad, last = batch.run()
    assert (first.memory.size, last.memory.size) == (4096, 8192)
    check_refused(bad, "MEMORY_NOT_MEMFD")
    for fd in (small, pipe, large):
        os.close(fd)


def test_the_same_memory_twice(nicd, session):
    # mutation: find Memories by inode and count one
    fd = memory.memfd(4096)
    one, two = session.add_memory(fd), session.add_memory(fd)
    os.close(fd)
    assert one.id != two.id and one.serial != two.serial
    session.close_object(one)
    with expect_refused("HANDLE"):
        session.close_object(one)
    mr = session.create_mr(session.create_pd())
    session.register(mr, [(two, 0, 4096)])


def test_close_waits_for_the_last_region(session):
    # mutation: unmap when the Memory is closed, or answer Close at once
    fd = memory.memfd(8192)
    info = session.add_memory(fd)
    os.close(fd)
    pd = session.create_pd()
    mr = session.create_mr(pd)
    tokens = session.register(mr, [(info, 0, 8192)], flags=REMOTE_READ)
    closing = session.start(pb.Close(object=pb.Ref(id=info.id)))
    other = session.create_mr(pd)
    with expect_refused("HANDLE"):
        session.register(other, [(info, 0, 4096)])
    assert session.local_token(mr) == tokens.local_token
    assert closing not in session.replies
    session.deregister(mr)
    reply, = session.wait([closing])
    assert not reply.HasField("error")
    assert session.list(pb.MEMORY) == []


def test_memory_of_a_registration_lives_as_long(nicd, session):
    # mutation: keep the implied Memory until the session ends
    fd = memory.memfd(8192)
    mr = session.create_mr(session.create_pd())
    for _ in range(3):
        session.register(mr, [(None, 0, 8192)], fd=fd, flags=REMOTE_READ)
        item, = session.list(pb.MEMORY)
        assert (item.size, item.count) == (8192, 1)
        assert nicd.ledger().held_fds == 1
        session.deregister(mr)
        # The answer says that nobody can reach the bytes; the mapping goes a moment later.
        assert wait_until(lambda: session.list(pb.MEMORY) == [])
        assert nicd.ledger().held_fds == 0
    os.close(fd)


def test_implied_and_named_memory_in_one_chain(session):
    # mutation: use the implied memory for all ranges
    fd, other = memory.memfd(8192), memory.memfd(4096)
    named = session.add_memory(other)
    mr = session.create_mr(session.create_pd())
    tokens = session.register(mr, [(None, 0, 8192), (named, 0, 4096), (None, 4096, 4096)], fd=fd)
    assert tokens.length == 16384
    os.close(fd)
    os.close(other)


def test_sparse_is_judged_by_the_whole_memory(session):
    # mutation: compare st_blocks with the length rounded down
    fd = memory.memfd(4096 * 3 + 100, populate=False)
    os.pwrite(fd, b"x" * (4096 * 3), 0)
    with expect_refused("MEMORY_SPARSE"):
        session.add_memory(fd)
    os.pwrite(fd, b"x", 4096 * 3 + 50)
    assert session.add_memory(fd).size == 4096 * 3 + 100
    os.close(fd)
