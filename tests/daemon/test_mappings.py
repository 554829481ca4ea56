# SPDX-License-Identifier: MIT
"""Mappings, NDK's logical address maps: what BuildMapping checks and says, lists, accounts, and the order of closes."""
import pytest

from nicdtest import limits
from nicdtest.memory import Buffer, memfd
from nicdtest.pb import pb
from nicdtest.wire import check_refused, expect_refused, ref

PAGE, SIZE = 4096, 16 * 4096


@pytest.fixture
def memory(session):
    with Buffer(SIZE) as buffer:
        yield session.add_memory(buffer.fd)


def build_message(*ranges):
    message = pb.BuildMapping()
    for memory, offset, length in ranges:
        message.ranges.add(memory=ref(memory) if memory else None, offset=offset, length=length)
    return message


def build(session, *ranges):
    return session.call(build_message(*ranges)).mapping


def charges(nicd, slot):
    return {c.slot: c.used for a in nicd.ledger().accounts for c in a.charges}.get(slot, 0)


def test_what_it_says(session, memory):
    # mutation: forget the first byte's offset, or round the pages down
    one = build(session, (memory, 100, 2 * PAGE))
    assert (one.first_byte_offset, one.length, one.pages) == (100, 2 * PAGE, 3)
    assert one.logical_address % PAGE == 100 and 0 < one.logical_address < 1 << 47
    two = build(session, (memory, 0, PAGE), (memory, 4 * PAGE, 10))
    assert (two.first_byte_offset, two.length, two.pages) == (0, PAGE + 10, 2)
    assert len({one.logical_address, two.logical_address}) == 2 and one.serial < two.serial


@pytest.mark.parametrize("ranges, reason", [
    ((), "COUNT"), (((0, 0),), "LENGTH_ZERO"), (((0, SIZE + 1),), "RANGE_BEYOND"), (((SIZE, 1),), "RANGE_BEYOND"),
    (((1 << 63, 1 << 63),), "RANGE_OVERFLOW"), (((2**64 - 1, 2),), "RANGE_OVERFLOW"),
    (((0, 100), (0, PAGE)), "RANGE_NOT_JOINED"), (((0, PAGE), (100, PAGE)), "RANGE_NOT_JOINED"),
    (tuple((0, PAGE) for _ in range(limits.RANGES + 1)), "COUNT"),
])
def test_bad_ranges(nicd, session, memory, ranges, reason):
    # mutation: check fewer things than RegisterMr does
    with expect_refused(reason):
        build(session, *((memory, offset, length) for offset, length in ranges))
    assert charges(nicd, "mappings") == 0


def test_bad_memories(nicd, session, memory):
    # mutation: take the memory of another session, or an object of another type
    with expect_refused("HANDLE"):
        build(session, (None, 0, PAGE))
    with expect_refused("HANDLE_TYPE"):
        build(session, (session.create_pd(), 0, PAGE))
    with nicd.session() as other, expect_refused("HANDLE"):
        build(other, (memory, 0, PAGE))
    session.close_object(memory)
    with expect_refused("HANDLE"):
        build(session, (memory, 0, PAGE))


def test_listed_and_counted(nicd, session, memory):
    # mutation: list none, or another's; charge nothing
    mapping = build(session, (memory, 100, 5000))
    item, = session.list(pb.MAPPING)
    assert (item.serial, item.size, item.iova, item.state) == (mapping.serial, 5000, mapping.logical_address, "built")
    assert session.list(pb.MEMORY)[0].count == 1
    assert charges(nicd, "mappings") == 1 and charges(nicd, "pinned_bytes") == SIZE
    session.close_object(mapping)
    assert not session.list(pb.MAPPING) and charges(nicd, "mappings") == 0


def test_close(session, memory):
    # mutation: let the id live on, or keep the Memory
    mapping = build(session, (memory, 0, SIZE))
    closing = session.start(pb.Close(object=ref(memory)))
    assert not session.quiet(0.05) or closing not in session.replies
    reply = session.call(pb.Close(object=ref(mapping)))
    assert not reply.HasField("receipt")   # nobody remote could reach it
    session.wait([closing])
    with expect_refused("HANDLE"):
        session.close_object(mapping)


def test_no_stranger_revokes_it(session, memory):
    # mutation: revoke what gives nothing away
    with expect_refused("HANDLE_TYPE"):
        session.call(pb.Revoke(serial=build(session, (memory, 0, PAGE)).serial))


def test_made_and_named_in_one_frame(session):
    # mutation: leave the id out of the answer's result
    with Buffer(SIZE) as buffer:
        batch = session.batch()
        memory = batch.add(pb.AddMemory(), [buffer.fd])
        mapping = batch.add(build_message((memory, 0, SIZE)))
        batch.add(pb.Close(object=ref(mapping)))
        for reply in batch.run():
            assert not reply.HasField("error")


def test_closed_while_it_is_built(session, memory):
    # mutation: answer the build and not the close, or tell an address that is gone
    batch = session.batch()
    mapping = batch.add(build_message((memory, 0, SIZE)))
    batch.add(pb.Close(object=ref(mapping)))
    built, closed = batch.run()
    assert not closed.HasField("error")
    if built.HasField("error"):
        check_refused(built, "FLUSHED")


def test_quota(own_nicd):
    # mutation: charge after the address is drawn and keep that
    from nicdtest.daemon import configuration
    nicd = own_nicd(config=configuration(limits={"mappings": 3}))
    with nicd.session() as session, Buffer(SIZE) as buffer:
        memory = session.add_memory(buffer.fd)
        made = [build(session, (memory, 0, PAGE)) for _ in range(3)]
        with expect_refused("QUOTA", limit=3, observed=4):
            build(session, (memory, 0, PAGE))
        session.close_object(made[0])
        build(session, (memory, 0, PAGE))


def test_session_dies_with_many(nicd):
    # mutation: leave mappings out of what a session's end closes
    for held in (1, 700):
        with nicd.session() as session:
            memory = session.add_memory(memfd(SIZE))
            for _ in range(held):
                session.start(build_message((memory, 0, PAGE)))
            if held == 1:
                build(session, (memory, 0, PAGE))
        nicd.assert_clean()
