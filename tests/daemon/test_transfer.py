# SPDX-License-Identifier: MIT
"""Two nicds, 127.0.0.1 and 127.0.0.2: bytes by read, write and transfer list, and everything that must not get through."""
import random
import time

import pytest

from nicdtest import limits, locator
from nicdtest.memory import Buffer, pattern
from nicdtest.pair import ALL, OWNER_IOVA, Pair, silent_listener
from nicdtest.pb import LOCAL_READ, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_error, check_refused, expect_refused, ref

LOST = ("REMOTE_TOKEN", "REMOTE_TERMINATE", "QP_LOST", "PEER_CLOSED", "QP_STATE")
READ, WRITE = pb.TransferList.READ, pb.TransferList.WRITE


@pytest.fixture
def pair(nicd, peer_nicd):
    with Pair(nicd, peer_nicd) as pair:
        yield pair


@pytest.fixture(params=["export", "ticket"])
def connected(request, pair):
    return pair.by_export() if request.param == "export" else pair.by_ticket()


# ---- bytes

def test_read(connected):
    # mutation: place the bytes one page off, or forget the last segment
    p = connected
    before = p.user.buffer.bytes()
    assert p.read(100, 5000, 30000).bytes == 30000
    assert p.user.buffer[100:30100] == p.owner.buffer[5000:35000]
    assert p.user.buffer[:100] == before[:100] and p.user.buffer[30100:] == before[30100:]


def test_write(connected):
    # mutation: answer a write before the read behind it has come back
    p = connected
    before = p.owner.buffer.bytes()
    assert p.write(777, 333, 40001).bytes == 40001
    assert p.owner.buffer[333:40334] == p.user.buffer[777:40778]
    assert p.owner.buffer[:333] == before[:333] and p.owner.buffer[40334:] == before[40334:]


def test_counters_of_both_sides(connected):
    # mutation: count what was asked for instead of what was carried
    p = connected
    p.read(0, 0, 12345)
    p.write(0, 0, 54321)
    p.read(0, 0, 0)
    mine, theirs = p.counters()
    assert (mine.bytes_read, mine.bytes_written, mine.peer_read, mine.peer_written) == (12345, 54321, 0, 0)
    assert (theirs.bytes_read, theirs.bytes_written, theirs.peer_read, theirs.peer_written) == (0, 0, 12345, 54321)
    mine_too, = p.user.session.list(pb.QP)
    assert (mine_too.bytes_read, mine_too.bytes_written, mine_too.inbound) == (12345, 54321, False)


def test_what_the_qp_says(connected):
    # mutation: leave the grant out of an export's accept, or take the MR's
    p = connected
    grant = p.qp.grant
    assert (grant.iova, grant.length, grant.flags) == (OWNER_IOVA, p.owner.size, p.owner.mr.flags & ~1 | (grant.flags & 1))
    assert grant.remote_token == p.door.grant.remote_token
    assert grant.incarnation == p.owner.session.hello.adapters[0].incarnation
    host, port = p.owner.nicd.data_address()
    assert p.qp.peer == f"{host}:{port}"
    theirs, = (i for i in p.await_inside().owner.session.list(pb.QP) if i.inbound)
    assert theirs.peer.startswith("127.0.0.")


@pytest.mark.parametrize("length", [0, 1, 3, 4095, 4096, 65535, 65536])
def test_every_length(pair, length):
    # mutation: split at the wrong byte, or treat 0 as "all"
    p = pair.by_export()
    p.owner.buffer[:] = pattern(p.owner.size, 7)
    p.user.buffer[:] = pattern(p.user.size, 8)
    assert p.read(0, 0, length).bytes == length
    assert p.user.buffer[:] == pattern(p.owner.size, 7)[:length] + pattern(p.user.size, 8)[length:]
    p.user.buffer[:] = pattern(p.user.size, 9)
    assert p.write(0, 0, length).bytes == length
    assert p.owner.buffer[:] == pattern(p.user.size, 9)[:length] + pattern(p.owner.size, 7)[length:]


def test_megabytes(nicd, peer_nicd):
    # mutation: keep lengths in 16 bits, or never go on after a short send
    size = 24 << 20
    with Pair(nicd, peer_nicd, size) as p:
        p.by_export()
        assert p.read(0, 0, size).bytes == size
        assert p.user.buffer.bytes() == p.owner.buffer.bytes()
        p.user.buffer[:] = pattern(size, 5)
        assert p.write(0, 0, size).bytes == size
        assert p.owner.buffer.bytes() == pattern(size, 5)


def test_many_at_once(pair):
    # mutation: answer completions out of the order of the reads, or give one work request another's buffer
    p = pair.by_export()
    pieces = [(i * 256, (255 - i) * 256, 256) for i in range(256)]
    ids = []
    for i in range(0, 256, 64):
        batch = p.user.session.batch()
        for local, remote, n in pieces[i:i + 64]:
            batch.add(p.message(pb.Read, local, remote, n))
        ids += batch.send()
    for reply in p.user.session.wait(ids):
        assert reply.completion.bytes == 256
    assert p.user.session.order[-256:] == ids
    for local, remote, n in pieces:
        assert p.user.buffer[local:local + n] == p.owner.buffer[remote:remote + n]


def test_through_a_chain_of_ranges(nicd, peer_nicd):
    # mutation: look up only the first range, or forget the offset of the first page
    rng = random.Random(3)
    with nicd.session() as owner, peer_nicd.session() as user, Buffer(65536, 4) as a, Buffer(65536, 5) as b, Buffer(131072) as sink:
        memories = [owner.add_memory(a.fd), owner.add_memory(b.fd)]
        chain = [(0, 3 * 4096 + 100, 4096 * 2 - 100)]
        chain += [(rng.randrange(2), rng.randrange(15) * 4096, 4096) for _ in range(14)] + [(1, 8192, 333)]
        expected = b"".join((a, b)[m][o:o + n] for m, o, n in chain)
        mr = owner.register(owner.create_mr(owner.create_pd()), [(memories[m], o, n) for m, o, n in chain],
                            iova=OWNER_IOVA + 100, flags=ALL)
        assert mr.length == len(expected)
        door = owner.export(mr, "chain", REMOTE_READ)
        pd = user.create_pd()
        local = user.region(pd, sink.fd, 131072, LOCAL_WRITE)
        qp = user.connect_qp(pd, door.locator)
        user.call(pb.Read(qp=ref(qp), local_token=local.local_token, local_addr=local.iova, remote_token=qp.grant.remote_token,
                          remote_addr=qp.grant.iova, length=len(expected)))
        assert sink[:len(expected)] == expected
        for _ in range(20):
            at = rng.randrange(len(expected) - 1)
            n = rng.randrange(1, min(len(expected) - at, 9000))
            user.call(pb.Read(qp=ref(qp), local_token=local.local_token, local_addr=local.iova + 7,
                              remote_token=qp.grant.remote_token, remote_addr=qp.grant.iova + at, length=n))
            assert sink[7:7 + n] == expected[at:at + n]


def test_back_to_oneself(nicd):
    # mutation: find streams by address instead of by number
    with Pair(nicd, nicd) as p:
        p.by_export()
        p.read(0, 0, 65536)
        assert p.user.buffer.bytes() == p.owner.buffer.bytes()


# ---- transfer lists

def test_lists(connected):
    # mutation: stop at a batch's border, or complete a list of writes without the read behind it
    p = connected
    rng = random.Random(2)
    entries = [(i * 64, rng.randrange(1024) * 64, 64) for i in range(limits.TRANSFER_ENTRIES)]
    done = p.transfer(READ, entries)
    assert (done.entries, done.bytes) == (1024, 65536)
    for local, remote, n in entries:
        assert p.user.buffer[local:local + n] == p.owner.buffer[remote:remote + n]
    p.user.buffer[:] = pattern(65536, 11)
    done = p.transfer(WRITE, [(i * 64, i * 64, 64) for i in reversed(range(1024))])
    assert (done.entries, done.bytes) == (1024, 65536)
    assert p.owner.buffer.bytes() == p.user.buffer.bytes()
    mine, theirs = p.counters()
    assert (mine.bytes_read, mine.bytes_written) == (theirs.peer_read, theirs.peer_written) == (65536, 65536)


def test_writes_of_a_list_land_in_order(pair):
    # mutation: reorder small writes behind large ones
    p = pair.by_export()
    p.transfer(WRITE, [(i * 16, 0, 16) for i in range(1024)])
    assert p.owner.buffer[:16] == p.user.buffer[1023 * 16:1024 * 16]


@pytest.mark.parametrize("data, observed", [(b"", None), (b"x" * 31, None), (b"\0" * 33, None), (b"\0" * 32 * 1025, None)])
def test_lists_that_are_none(pair, data, observed):
    # mutation: divide by 32 and forget the rest
    p = pair.by_export()
    with expect_refused("TRANSFER_ENTRIES", limit=limits.TRANSFER_ENTRIES):
        p.user.session.call(pb.TransferList(qp=ref(p.qp), operation=READ, entries=data))
    assert p.read(0, 0, 100).bytes == 100


def test_list_with_something_in_the_reserved_field(pair):
    # mutation: do not look at the reserved field
    p = pair.by_export()
    message = p.list_message(READ, [(0, 0, 64)])
    message.entries = message.entries[:-4] + b"\1\0\0\0"
    with expect_refused(("VALUE", "TRANSFER_ENTRIES", "OP_FLAGS")):
        p.user.session.call(message)
    with expect_refused("VALUE"):
        p.user.session.call(pb.TransferList(qp=ref(p.qp), operation=7, entries=bytes(32)))
    assert p.read(0, 0, 100).bytes == 100


@pytest.mark.parametrize("flags", [4, 8, 0x10, 0x20, 0x30, 0x80, 0x400, 0x20000, 0x80000000])
def test_flags_of_other_requests(pair, flags):
    # mutation: ignore flags
    p = pair.by_export()
    for call in (p.message(pb.Read, 0, 0, 64), p.message(pb.Write, 0, 0, 64), p.list_message(READ, [(0, 0, 64)])):
        call.flags = flags
        with expect_refused("OP_FLAGS" if flags < 0x400 and flags != 0x20 else "FLAGS"):
            p.user.session.call(call)
    assert p.read(0, 0, 100).bytes == 100


# ---- what must not get through

def refused_on_the_wire(p, call, reasons, placed=None):
    """The call fails with the reason, the Qp is lost, the event says so, the owner's bytes are untouched. `placed`: what a write
    that begins inside may have placed before its first segment that ends outside."""
    owner, user = p.owner.buffer.bytes(), p.user.buffer.bytes()
    reply, = p.user.session.wait([p.user.session.start(call)])
    check_refused(reply, reasons)
    p.await_disconnected()
    now = p.owner.buffer.bytes()
    same = next((i for i in range(len(now)) if placed is None or now[i] != placed[i]), len(now))
    assert now[same:] == owner[same:]
    assert p.user.buffer.bytes() == user
    with expect_refused("QP_STATE"):
        p.read(0, 0, 1)
    return reply


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
@pytest.mark.parametrize("token", ["one bit", "zero", "random", "local"])
def test_wrong_token(connected, kind, token):
    # mutation: find tags by index and leave out the rest; take a local token on the wire
    p = connected
    token = {"one bit": p.grant.remote_token ^ 1, "zero": 0, "random": 0x12345678, "local": p.owner.mr.local_token}[token]
    refused_on_the_wire(p, p.message(kind, 0, 0, 100, token=token), "REMOTE_TOKEN")


OUTSIDE = {
    "one byte more": (0, 65537), "the last byte and one more": (65535, 2), "behind": (65536, 1), "far behind": (1 << 40, 8),
    "before": (-1, 1), "across the start": (-1, 2), "address 0": (-OWNER_IOVA, 8), "wrapping": (2 ** 64 - OWNER_IOVA - 4, 8),
    "all": (0, 2 ** 32 - 1), "minus": (-OWNER_IOVA + 2 ** 64 - 1, 1),
}


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
@pytest.mark.parametrize("where", OUTSIDE)
def test_out_of_bounds(nicd, peer_nicd, kind, where):
    # mutation: addr + len > iova + length in 64 bits; forget the lower bound
    offset, length = OUTSIDE[where]
    local = 1 << 17   # so that the local range is not what is wrong
    with Pair(nicd, peer_nicd) as p, Buffer(local, 6) as large:
        p.by_export()
        mr = p.user.session.region(p.user.pd, large.fd, local, LOCAL_WRITE)
        call = p.message(kind, length=length, address=(OWNER_IOVA + offset) % 2 ** 64, local_token=mr.local_token,
                         local_address=mr.iova)
        if length > local:
            reply, = p.user.session.wait([p.user.session.start(call)])
            check_refused(reply, ("REMOTE_RANGE", "LOCAL_RANGE", "TRANSFER_LENGTH"))
        else:
            refused_on_the_wire(p, call, "REMOTE_RANGE", large.bytes() if offset == 0 and kind is pb.Write else None)
        assert large.bytes() == pattern(local, 6)


@pytest.mark.parametrize("door", ["export", "ticket"])
@pytest.mark.parametrize("flags, kind", [(REMOTE_READ, pb.Write), (REMOTE_WRITE, pb.Read), (REMOTE_READ | LOCAL_WRITE, pb.Write)])
def test_missing_right(nicd, peer_nicd, door, flags, kind):
    # mutation: any-of in place of all-of when rights are checked
    with Pair(nicd, peer_nicd, owner_flags=flags) as p:
        p.by_export(flags & ~1 if flags == REMOTE_READ | LOCAL_WRITE else flags) if door == "export" else p.by_ticket()
        # DDP has no code for a right that is missing: a write says "bad token".
        refused_on_the_wire(p, p.message(kind, 0, 0, 100), "REMOTE_RIGHTS" if kind is pb.Read else ("REMOTE_RIGHTS", "REMOTE_TOKEN"))


def test_an_export_with_fewer_rights_than_its_region(pair):
    # mutation: check the MR's rights instead of the export's
    p = pair.by_export(REMOTE_READ)
    assert p.read(0, 0, 100).bytes == 100
    refused_on_the_wire(p, p.message(pb.Write, 0, 0, 100), ("REMOTE_RIGHTS", "REMOTE_TOKEN"))


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
@pytest.mark.parametrize("offset, length", [(3999, 1), (8192 + 4000, 1), (3999, 2), (4000, 8193)])
def test_outside_of_a_part(pair, kind, offset, length):
    # mutation: give the export the bounds of its MR
    p = pair.by_export(offset=4000, length=8192)
    assert (p.grant.iova, p.grant.length) == (OWNER_IOVA + 4000, 8192)
    assert p.read(0, 0, 8192).bytes == 8192
    assert p.user.buffer[:8192] == p.owner.buffer[4000:12192]
    refused_on_the_wire(p, p.message(kind, 0, length=length, address=OWNER_IOVA + offset), "REMOTE_RANGE")


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_the_regions_own_token_through_an_export(pair, kind):
    # mutation: let an export's stream use the tags of its PD
    p = pair.by_export()
    refused_on_the_wire(p, p.message(kind, 0, 0, 100, token=p.owner.mr.remote_token), "REMOTE_TOKEN")


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_another_exports_token(pair, kind):
    # mutation: let a stream use every export of its PD
    p = pair
    other = p.owner.session.export(p.owner.mr, "other", ALL)
    p.by_export()
    assert other.grant.remote_token != p.grant.remote_token
    refused_on_the_wire(p, p.message(kind, 0, 0, 100, token=other.grant.remote_token), "REMOTE_TOKEN")


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_an_exports_token_through_a_pd_ticket(pair, kind):
    # mutation: put an export's tag into the PD's scope
    p = pair
    other = p.owner.session.export(p.owner.mr, "other", ALL)
    p.by_ticket()
    refused_on_the_wire(p, p.message(kind, 0, 0, 100, token=other.grant.remote_token), "REMOTE_TOKEN")


def test_a_pd_ticket_opens_the_pd(pair):
    # mutation: let a PD ticket open its MR only
    p = pair.by_ticket()
    with Buffer(4096, 9) as more:
        mr = p.owner.session.region(p.owner.pd, more.fd, 4096, REMOTE_READ, iova=OWNER_IOVA * 2)
        p.read(0, length=4096, token=mr.remote_token, address=mr.iova)
        assert p.user.buffer[:4096] == more.bytes()


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_another_pds_token_through_a_pd_ticket(pair, kind):
    # mutation: leave the PD out of the scope
    p = pair.by_ticket()
    with Buffer(65536, 9) as more:
        mr = p.owner.session.region(p.owner.session.create_pd(), more.fd, 65536, ALL, iova=OWNER_IOVA)
        refused_on_the_wire(p, p.message(kind, 0, 0, 100, token=mr.remote_token), "REMOTE_TOKEN")
        assert more.bytes() == pattern(65536, 9)


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_another_sessions_token(nicd, pair, kind):
    # mutation: number PDs per session in the device
    p = pair.by_ticket()
    with nicd.session() as other, Buffer(65536, 9) as more:
        mr = other.region(other.create_pd(), more.fd, 65536, ALL, iova=OWNER_IOVA)
        refused_on_the_wire(p, p.message(kind, 0, 0, 100, token=mr.remote_token), "REMOTE_TOKEN")


@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_revoked_token(connected, kind):
    # mutation: answer Deregister before the tag is gone
    p = connected
    assert p.read(0, 0, 100).bytes == 100
    p.owner.session.deregister(p.owner.mr)
    reply, = p.user.session.wait([p.start(kind, 0, 0, 100)])
    # The export's stream may be gone already; a PD's stream stays and its next use fails.
    check_refused(reply, ("REMOTE_TOKEN", "QP_STATE", "QP_LOST", "PEER_CLOSED"))
    assert not p.user.session.query_qp(p.qp).connected


def test_no_byte_after_deregister(pair):
    # mutation: drop the tag after the reply
    p = pair.by_ticket()
    ids = [p.start(pb.Write, 0, 0, 65536) for _ in range(30)]
    p.owner.session.deregister(p.owner.mr)
    p.owner.buffer[:] = b"\xee" * 65536
    p.user.session.wait(ids)
    time.sleep(0.1)
    assert p.owner.buffer.bytes() == b"\xee" * 65536


def test_registered_again_is_another_token(pair):
    # mutation: keep the token over a deregistration
    p = pair.by_ticket()
    p.owner.session.deregister(p.owner.mr)
    p.owner.session.register(p.owner.mr, [(None, 0, 65536)], OWNER_IOVA, flags=ALL, fd=p.owner.buffer.fd)
    refused_on_the_wire(p, p.message(pb.Read, 0, 0, 100), "REMOTE_TOKEN")


# ---- this side

def local_refused(p, reason, **kw):
    user = p.user.buffer.bytes()
    for kind in kw.pop("kinds", (pb.Read, pb.Write)):
        reply, = p.user.session.wait([p.user.session.start(p.message(kind, **kw))])
        if reply.error.name != "QP_STATE":
            check_refused(reply, reason)
    assert p.user.buffer.bytes() == user


@pytest.mark.parametrize("token", ["remote", "zero", "one bit", "other pd", "other session"])
def test_local_token(nicd, peer_nicd, token):
    # mutation: take any token of the device for a work request
    with Pair(nicd, peer_nicd, user_flags=ALL) as p, peer_nicd.session() as other, Buffer(65536, 3) as more:
        p.by_export()
        if token == "other pd":
            value = p.user.session.region(p.user.session.create_pd(), more.fd, 65536, ALL, p.user.iova).local_token
        elif token == "other session":
            value = other.region(other.create_pd(), more.fd, 65536, ALL, p.user.iova).local_token
        else:
            value = {"remote": p.user.mr.remote_token, "zero": 0, "one bit": p.user.mr.local_token ^ 1}[token]
        local_refused(p, "LOCAL_TOKEN", local_token=value, length=100)
        assert more.bytes() == pattern(65536, 3)


@pytest.mark.parametrize("offset, length", [(65535, 2), (65536, 1), (-1, 1), (-1, 2), (0, 65537), (1 << 40, 1)])
def test_local_range(pair, offset, length):
    # mutation: check the local range with addr + len
    p = pair.by_export()
    local_refused(p, ("LOCAL_RANGE", "REMOTE_RANGE") if length > 65536 else "LOCAL_RANGE", local=offset, length=length)


@pytest.mark.parametrize("address, length", [(2 ** 64 - 4, 8), (2 ** 64 - 1, 2), (2 ** 64 - 1, 1), (0, 1), (2 ** 64 - 65536, 65536 + 100)])
def test_local_range_that_wraps(pair, address, length):
    # mutation: addr + len > iova + length for the local side, where no check of the wire stands before it
    p = pair.by_export()
    local_refused(p, ("LOCAL_RANGE", "REMOTE_RANGE") if length > 65536 else "LOCAL_RANGE", local_address=address, length=length)


def test_local_rights(nicd, peer_nicd):
    # mutation: let a read write into memory without local write
    with Pair(nicd, peer_nicd, user_flags=LOCAL_READ) as p:
        p.by_export()
        assert p.write(0, 0, 4096).bytes == 4096
        assert p.owner.buffer[:4096] == p.user.buffer[:4096]
        local_refused(p, "LOCAL_RIGHTS", length=100, kinds=(pb.Read,))


def test_local_memory_deregistered(pair):
    # mutation: look the local token up when the Qp is made
    p = pair.by_export()
    p.read(0, 0, 100)
    token = p.user.mr.local_token
    p.user.session.deregister(p.user.mr)
    local_refused(p, "LOCAL_TOKEN", local_token=token, length=100)


# ---- failing lists

@pytest.mark.parametrize("operation", [READ, WRITE])
@pytest.mark.parametrize("bad", [0, 5, 500, 1023])
def test_first_failure_of_a_list(pair, operation, bad):
    # mutation: name the last entry posted, or 0
    p = pair.by_export()
    entries = [(i * 8, i * 8, 8) for i in range(1024)]
    entries[bad] = (entries[bad][0], p.owner.size, 8)
    reply, = p.user.session.wait([p.user.session.start(p.list_message(operation, entries))])
    check_refused(reply, "REMOTE_RANGE")
    done = reply.completion
    assert done.failed <= bad
    assert done.failed == bad or done.inexact
    if operation == READ:
        assert not done.inexact and done.entries == bad and done.bytes == bad * 8
    for i in range(done.failed):
        a, b = p.user.buffer[i * 8:i * 8 + 8], p.owner.buffer[i * 8:i * 8 + 8]
        assert a == b
    p.await_disconnected()


def test_first_failure_on_this_side(pair):
    # mutation: check all entries before the first is posted, and name the wrong one
    p = pair.by_export()
    entries = [(i * 8, i * 8, 8) for i in range(100)]
    entries[50] = (p.user.size, 0, 8)
    reply, = p.user.session.wait([p.user.session.start(p.list_message(READ, entries))])
    check_refused(reply, "LOCAL_RANGE")
    assert reply.completion.failed == 50
    assert p.user.buffer[408:] == pattern(65536, 2)[408:]


# ---- flush, disconnect, close

def test_flush_with_nothing_posted(connected):
    # mutation: end the connection in any flush
    p = connected
    p.user.session.call(pb.Flush(qp=ref(p.qp)))
    assert p.read(0, 0, 64).bytes == 64


def test_flush_answers_what_is_posted_first(nicd, peer_nicd):
    # mutation: answer Flush before what it cancelled, or lose a reply
    size = 16 << 20
    with Pair(nicd, peer_nicd, size) as p:
        p.by_export()
        posted = [p.start(pb.Read, 0, 0, size) for _ in range(6)]
        flush = p.user.session.start(pb.Flush(qp=ref(p.qp)))
        replies = p.user.session.wait(posted + [flush])
        assert p.user.session.order[-1] == flush
        assert not replies[-1].HasField("error")
        for reply in replies[:-1]:
            if reply.HasField("error"):
                check_error(reply.error, "FLUSHED")
                assert reply.error.status == pb.CANCELLED
        assert any(r.HasField("error") for r in replies[:-1])


def test_disconnect(connected):
    # mutation: keep the peer's side connected
    p = connected
    p.read(0, 0, 64)
    p.user.session.call(pb.Disconnect(qp=ref(p.qp)))
    assert not p.user.session.query_qp(p.qp).connected
    for call in (p.message(pb.Read, 0, 0, 1), p.message(pb.Write, 0, 0, 1), p.list_message(READ, [(0, 0, 1)]), pb.Disconnect(qp=ref(p.qp))):
        with expect_refused("QP_STATE"):
            p.user.session.call(call)
    assert p.user.session.query_qp(p.qp).bytes_read == 64
    from nicdtest.daemon import wait_until
    assert wait_until(lambda: not [i for i in p.owner.session.list(pb.QP) if i.inbound])


def test_close_of_a_working_qp(nicd, peer_nicd):
    # mutation: free the Qp under its posted work
    size = 16 << 20
    with Pair(nicd, peer_nicd, size) as p:
        p.by_export()
        posted = [p.start(pb.Read, 0, 0, size) for _ in range(4)]
        close = p.user.session.start(pb.Close(object=ref(p.qp)))
        with expect_refused("HANDLE"):
            p.user.session.query_qp(p.qp)
        p.user.session.wait(posted + [close])
        assert p.user.session.order.index(close) > max(p.user.session.order.index(i) for i in posted)
        assert p.user.session.list(pb.QP) == []


def test_pd_waits_for_its_qps(pair):
    # mutation: close a PD under its Qp
    p = pair.by_export()
    p.user.session.close_object(p.user.mr)
    closing = p.user.session.start(pb.Close(object=ref(p.user.pd)))
    assert p.user.session.query_qp(p.qp).connected
    assert closing not in p.user.session.replies
    p.user.session.close_object(p.qp)
    p.user.session.wait([closing])


def test_user_dies_in_the_middle(nicd, peer_nicd):
    # mutation: keep a stream, a tag or a mapping of a session that is gone
    size = 16 << 20
    with Pair(nicd, peer_nicd, size) as p:
        p.by_export()
        for _ in range(4):
            p.start(pb.Read, 0, 0, size)
            p.start(pb.Write, 0, 0, size)
        p.user.close()
        p.owner.session.wait_event(pb.Event.CONNECTED, timeout=5)
    nicd.assert_clean()
    peer_nicd.assert_clean()


def test_owner_dies_in_the_middle(nicd, peer_nicd):
    # mutation: leave a request unanswered when its stream is lost
    size = 16 << 20
    with Pair(nicd, peer_nicd, size) as p:
        p.by_export()
        posted = [p.start(kind, 0, 0, size) for kind in (pb.Read, pb.Write) * 4]
        p.owner.close()
        failed = [r.error for r in p.user.session.wait(posted) if r.HasField("error")]
        # The first says why; those behind it never started.
        for i, error in enumerate(failed):
            check_error(error, LOST if i == 0 else LOST + ("FLUSHED",))
        p.await_disconnected()


# ---- connecting

def connect_error(session, pd, text, timeout_ms):
    started = time.monotonic()
    reply, = session.wait([session.start(pb.ConnectQp(pd=ref(pd), locator=text, timeout_ms=timeout_ms))])
    return check_refused(reply, "CONNECT"), time.monotonic() - started


def test_all_ways_of_not_connecting_look_alike(pair):
    # mutation: answer at once when policy forbids the network, or when nobody listens; tell the errno
    p = pair
    door = p.owner.session.export(p.owner.mr, "spent", ALL)
    p.user.session.close_object(p.connect(door))
    real = locator.parse(door.locator)
    with silent_listener() as silent:
        ways = {
            "network not allowed": locator.build("10.255.255.1", real.port, b"t" * 16),
            "address not allowed": locator.build("192.0.2.1", 80, b"t" * 16),
            "IPv6 not allowed": locator.build("fe80::1", 7190, b"t" * 16),
            "nobody listens": locator.build("127.0.0.3", 1, b"t" * 16),
            "nobody answers": locator.build(*silent.getsockname(), b"t" * 16),
            "unknown ticket": locator.build(real.host, real.port, b"t" * 16),
            "spent ticket": door.locator,
        }
        session = p.user.session
        started = time.monotonic()
        ids = {name: session.start(pb.ConnectQp(pd=ref(p.user.pd), locator=text, timeout_ms=700)) for name, text in ways.items()}
        errors, took = {}, {}
        while len(took) < len(ids):
            session.receive()
            for name, id_ in ids.items():
                if id_ in session.replies and name not in took:
                    took[name] = time.monotonic() - started
                    errors[name] = check_refused(session.replies[id_], "CONNECT").SerializeToString()
    assert len(set(errors.values())) == 1, "the errors differ"
    for name, seconds in took.items():
        assert 0.65 < seconds < 1.5, f"{name} took {seconds:.3f} s; all must take 0.7"
    assert max(took.values()) - min(took.values()) < 0.3, took
    assert session.list(pb.QP) == []


def test_forbidden_networks_are_never_asked(nicd, own_nicd):
    # mutation: connect first and judge then
    from nicdtest.daemon import configuration
    strict = own_nicd("127.0.0.3", config=configuration(connect={"allow": "127.0.0.9"}))
    with strict.session() as s, silent_listener() as silent:
        connect_error(s, s.create_pd(), locator.build(*silent.getsockname(), b"t" * 16), 500)
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.parametrize("text", ["", "nicd1:", "nicd2:" + "A" * 96, "nicd1:" + "A" * 96, "nicd1:" + "A" * 95, "x" * 255,
                                  "nicd1:" + "!" * 96])
def test_locators_that_are_none(session, text):
    # mutation: leave out the checksum
    with expect_refused(("LOCATOR", "STRING")):
        session.connect_qp(session.create_pd(), text)


def test_damaged_locators(pair):
    # mutation: check part of the text
    door = pair.owner.session.export(pair.owner.mr, "damaged", ALL)
    rng = random.Random(4)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for at in range(6, len(door.locator)):
        other = rng.choice([c for c in alphabet if c != door.locator[at]])
        with expect_refused("LOCATOR"):
            pair.user.session.connect_qp(pair.user.pd, door.locator[:at] + other + door.locator[at + 1:])
    for text in (door.locator[:-1], door.locator + "A", door.locator[1:], door.locator.upper()):
        with expect_refused("LOCATOR"):
            pair.user.session.connect_qp(pair.user.pd, text)
    for kw in ({"flags": 4}, {"flags": 0x80}, {"zero": 1}):
        real = locator.parse(door.locator)
        with expect_refused("LOCATOR"):
            pair.user.session.connect_qp(pair.user.pd, locator.build(real.host, real.port, real.ticket, **kw))


@pytest.mark.parametrize("timeout_ms", [60001, 2 ** 32 - 1])
def test_timeout_has_a_limit(pair, timeout_ms):
    # mutation: wait as long as a client likes
    door = pair.owner.session.export(pair.owner.mr, "timeout", ALL)
    with expect_refused("VALUE", limit=60000, observed=timeout_ms):
        pair.user.session.connect_qp(pair.user.pd, door.locator, timeout_ms)


def test_close_while_connecting(pair):
    # mutation: let a session wait for its connects when it ends
    with silent_listener() as silent:
        pair.user.session.start(pb.ConnectQp(pd=ref(pair.user.pd), locator=locator.build(*silent.getsockname(), b"t" * 16),
                                             timeout_ms=60000))
        pair.user.session.quiet(0.1)
        pair.user.close()
        pair.user.nicd.assert_clean(timeout=5)
