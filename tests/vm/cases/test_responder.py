# SPDX-License-Identifier: MIT
"""A librdmacm program on the kernel's device connects by our locators and reads and writes: nicd as the responder. What it reports is what siw
reports; the device's own errors are read in the kernel's log."""
import re

import pytest

from conftest import ALL
from nicdtest import iwarp, locator
from nicdtest.daemon import wait_until
from nicdtest.link import kernel_log
from nicdtest.memory import Buffer, pattern
from nicdtest.pb import REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.verbs import FLUSHED, SUCCESS, Failed

IOVA = 0x3_0000_0000_0000
SIZE = 65536
BIG = 8 << 20
MSS = 1448        # of a link with MTU 1500
PAYLOAD = 1428    # of an FPDU that fills such a segment
SIZES = {
    "tiny": (0, 1, 3), "page": (4095, 4096, 4097), "segment": (PAYLOAD - 1, PAYLOAD, PAYLOAD + 1, MSS - 1, MSS, MSS + 1),
    "64K": (65535, 65536, 65537), "1M": (1 << 20,), "8M": (BIG - 3,),
}
SOME_SIZES = (1, 4097, 65537, 1 << 19)
OUR_DEPTH = 64


class Owner:
    """A session of nicd with a registered buffer that strangers are let into."""

    def __init__(self, nicd, size=SIZE, flags=ALL):
        self.nicd = nicd
        self.session = nicd.session(label="owner")
        self.buffer = Buffer(size, 1)
        self.size = size
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, size, flags, IOVA)
        self.n = 0

    def close(self):
        self.session.close()
        self.buffer.close()

    def door(self, ticket=False, flags=ALL, uses=10, peers=10, **terms):
        self.n += 1
        if ticket:
            return self.session.ticket(self.mr, uses=uses, peers=peers, **terms)
        return self.session.export(self.mr, f"door {self.n}", flags, uses=uses, peers=peers, **terms)


@pytest.fixture
def owner(daemons):
    made = []

    def make(soft_options="", **kw):
        made.append(Owner(daemons.get(soft_options), **kw))
        return made[-1]

    yield make
    for owner in made:
        owner.close()


@pytest.fixture
def let_in(verbs_peer):
    """A peer that is connected by a door: (peer, token)."""
    def enter(owner, door=None, size=SIZE, **terms):
        peer = verbs_peer(size)
        door = door or owner.door()
        there = locator.parse(door.locator)
        peer.established = peer.connect(there.host, there.port, iwarp.hello(there.ticket), **terms)
        grant = iwarp.parse_grant(peer.established.private) or there.grant
        assert (grant.iova, grant.length) == (IOVA, owner.size)
        return peer, grant.token
    return enter


def check_transfer(owner, peer, token, size, there, here):
    """Reads, writes other bytes, and reads those back: exactly these bytes change, on both sides."""
    mine, theirs = bytearray(peer.memory.bytes()), bytearray(owner.buffer.bytes())
    peer.read(here, size, token, IOVA + there)
    mine[here:here + size] = theirs[there:there + size]
    assert peer.memory.bytes() == mine
    new = pattern(size, size % 97 + there % 13 + 5)
    peer.memory[here:here + size] = new
    mine[here:here + size] = new
    peer.write(here, size, token, IOVA + there)
    peer.flush()
    theirs[there:there + size] = new
    assert owner.buffer.bytes() == theirs
    assert peer.memory.bytes() == mine


# ---- transfers

@pytest.mark.parametrize("ticket", [False, True], ids=["export", "ticket"])
def test_connects(owner, let_in, ticket):
    # mutation: answer a request of revision 2 without the enhanced header; leave the grant out of the reply
    o = owner()
    peer, token = let_in(o, o.door(ticket=ticket))
    peer.read(0, 4096, token, IOVA)
    assert peer.memory[:4096] == o.buffer[:4096]
    o.session.wait_event(pb.Event.CONNECTED)
    inbound, = (i for i in o.session.list(pb.QP) if i.inbound)
    assert inbound.peer.startswith("10.77.0.1:")
    peer.disconnect()
    assert wait_until(lambda: not o.session.list(pb.QP), 10.0)


def check_sizes(owner, let_in, soft_options, sizes, places):
    """On one connection."""
    room = max(sizes) + 4200
    o = owner(soft_options, size=room)
    peer, token = let_in(o, size=room)
    for size in sizes:
        for there, here in places:
            check_transfer(o, peer, token, size, there, here)


@pytest.mark.parametrize("soft_options", ["", "--crc"], ids=["plain", "crc"])
@pytest.mark.parametrize("name", SIZES)
def test_transfers(owner, let_in, name, soft_options):
    # mutation: place a segment one byte off; take the pad of an FPDU for payload; start a CRC over at every segment
    small = max(SIZES[name]) < 1 << 20
    check_sizes(owner, let_in, soft_options, SIZES[name], ((0, 0), (1, 2), (4093, 77)) if small else ((3, 1),))


@pytest.mark.parametrize("soft_options", ["--fpdu 1448", "--fpdu 65535", "--fpdu 65535 --crc", "--fpdu 128"])
def test_frames_of_every_size_from_us(owner, let_in, soft_options):
    # mutation: let the payload of the largest frame pass 65,535 - 14
    check_sizes(owner, let_in, soft_options, SOME_SIZES, ((5, 3),))


@pytest.mark.parametrize("soft_options", ["", "--crc"], ids=["plain", "crc"])
def test_frames_of_64k_from_the_peer(owner, let_in, large_mtu, soft_options):
    # mutation: drop an FPDU that is larger than the buffer's rest
    check_sizes(owner, let_in, soft_options, SOME_SIZES, ((5, 3),))


@pytest.mark.parametrize("soft_options", ["", "--crc"], ids=["plain", "crc"])
def test_64_reads_in_flight(owner, let_in, soft_options):
    # mutation: grant one more than the queue of reads holds
    o = owner(soft_options, size=1 << 20)
    peer, token = let_in(o, size=1 << 20, ord=OUR_DEPTH)
    assert peer.established.ord == OUR_DEPTH
    n, each = 192, 5001
    ids = [peer.post("read", i * each, each, token, IOVA + (n - 1 - i) * each) for i in range(n)]
    done = peer.wait(n)
    assert [(c.id, c.status) for c in done] == [(i, SUCCESS) for i in ids]
    for i in range(n):
        at = (n - 1 - i) * each
        assert peer.memory[i * each:(i + 1) * each] == o.buffer[at:at + each]


def test_writes_before_reads(owner, let_in):
    # mutation: answer a read before the writes before it are placed
    o = owner()
    peer, token = let_in(o)
    for i in range(50):
        peer.memory[0:1000] = bytes([i]) * 1000
        write = peer.post("write", 0, 1000, token, IOVA + i)
        read = peer.post("read", 2000, 1000, token, IOVA + i)
        assert [(c.id, c.status) for c in peer.wait(2)] == [(write, SUCCESS), (read, SUCCESS)]
        assert peer.memory[2000:3000] == bytes([i]) * 1000


def test_two_peers_at_once(owner, let_in):
    o = owner(size=1 << 20)
    door = o.door()
    peers = [let_in(o, door, size=1 << 20) for _ in range(2)]
    half = 1 << 19
    for i in range(8):
        for n, (peer, token) in enumerate(peers):
            peer.post("write", 0, half, token, IOVA + n * half)
            peer.post("read", half, half, token, IOVA + n * half)
        for n, (peer, _) in enumerate(peers):
            assert all(c.status == SUCCESS for c in peer.wait(2))
            assert peer.memory[:half] == peer.memory[half:] == o.buffer[n * half:(n + 1) * half]
            peer.memory[:half] = pattern(half, 10 + 2 * i + n)


# ---- negotiation

@pytest.mark.parametrize("ask", [1, 2, 63, 64, 65, 128])
def test_depth_of_reads(owner, let_in, ask):
    # mutation: answer the peer's ORD with our own maximum; grant what was asked for
    o = owner()
    peer, token = let_in(o, ord=ask, ird=5)
    assert (peer.established.ord, peer.established.ird) == (min(ask, OUR_DEPTH), 5)
    for i in range(70):
        peer.post("read", i * 64, 64, token, IOVA + i * 64)
    assert [c.status for c in peer.wait(70)] == [SUCCESS] * 70
    assert peer.memory[:70 * 64] == o.buffer[:70 * 64]


def test_no_reads_at_all(owner, let_in):
    # mutation: grant at least one; divide by the depth
    o = owner()
    peer, token = let_in(o, ord=0, ird=0)
    assert (peer.established.ord, peer.established.ird) == (0, 0)
    peer.write(0, 5000, token, IOVA + 3)
    assert wait_until(lambda: o.buffer[3:5003] == peer.memory[:5000], 10.0)
    with pytest.raises(Failed):
        peer.post("read", 0, 64, token, IOVA)


def test_reject(owner, verbs_peer):
    # mutation: close instead of answering with the R bit
    o = owner()
    there = locator.parse(o.door(uses=1).locator)
    for ticket in (b"\0" * 16, there.ticket[:-1] + bytes([there.ticket[-1] ^ 1])):
        with pytest.raises(Failed) as failed:
            verbs_peer().connect(there.host, there.port, iwarp.hello(ticket))
        assert (failed.value.what, failed.value.private) == ("rejected", b"")
    with pytest.raises(Failed) as failed:
        verbs_peer().connect(there.host, there.port)
    assert failed.value.what == "rejected"
    peer = verbs_peer()
    peer.connect(there.host, there.port, iwarp.hello(there.ticket))
    peer.flush()
    with pytest.raises(Failed) as failed:
        verbs_peer().connect(there.host, there.port, iwarp.hello(there.ticket))
    assert failed.value.what == "rejected", "a ticket for one was good for two"


@pytest.mark.parametrize("length", [24, 25, 196, 251])
def test_private_data(owner, let_in, verbs_peer, length):
    # mutation: want exactly 24 bytes
    o = owner()
    there = locator.parse(o.door().locator)
    peer = verbs_peer()
    accepted = peer.connect(there.host, there.port, iwarp.hello(there.ticket).ljust(length, b"\0"))
    token = iwarp.parse_grant(accepted.private).token
    peer.read(0, 100, token, IOVA)
    assert peer.memory[:100] == o.buffer[:100]


@pytest.mark.parametrize("length", [252, 253, 255])
def test_private_data_that_siw_cannot_say(owner, let_in, verbs_peer, length):
    """siw writes a length of 0 to 3 for these, which has no room for the enhanced header."""
    # mutation: read the enhanced header whatever PD_Length says
    o = owner()
    there = locator.parse(o.door().locator)
    with pytest.raises(Failed):
        verbs_peer().connect(there.host, there.port, iwarp.hello(there.ticket).ljust(length, b"\0"))
    peer, token = let_in(o)
    peer.read(0, 100, token, IOVA)


# ---- errors

def terminates(log):
    """(layer, type, code) of the Terminates that siw says it got, in the order of RFC 5040: it takes layer and type for each other."""
    found = re.findall(r"got TERMINATE\. layer (\d+), type (\d+), code (\d+)", log)
    return [(int(t), int(layer), int(code)) for layer, t, code in found]


BAD = {
    # name: (kind, what to add to the token, where, rights of the door, what we must say)
    "read-token": ("read", 0x100, 0, ALL, iwarp.RDMAP_BAD_STAG),
    "read-bounds": ("read", 0, SIZE - 99, ALL, iwarp.RDMAP_BOUNDS),
    "read-before": ("read", 0, -1, ALL, iwarp.RDMAP_BOUNDS),
    "read-right": ("read", 0, 0, REMOTE_WRITE, iwarp.RDMAP_RIGHTS),
    "write-token": ("write", 0x100, 0, ALL, iwarp.DDP_BAD_STAG),
    "write-bounds": ("write", 0, SIZE - 99, ALL, iwarp.DDP_BOUNDS),
    "write-before": ("write", 0, -1, ALL, iwarp.DDP_BOUNDS),
    "write-right": ("write", 0, 0, REMOTE_READ, iwarp.DDP_BAD_STAG),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(owner, let_in, name):
    # mutation: leave the check of bounds (rights, token) out; close without Terminate; cut the bystander too
    kind, twist, at, flags, code = BAD[name]
    o = owner()
    peer, token = let_in(o, o.door(flags=flags))
    bystander, stag = let_in(o)
    before, log = o.buffer.bytes(), len(kernel_log())
    peer.post(kind, 0, 100, token ^ twist, IOVA + at)
    read = peer.post("read", 200, 10, token, IOVA)
    peer.await_disconnected()
    assert (read, SUCCESS) not in [(c.id, c.status) for c in peer.wait(2, 300)]
    assert wait_until(lambda: code in terminates(kernel_log()[log:]), 5.0), kernel_log()[log:]
    assert o.buffer.bytes() == before
    assert peer.memory.bytes() == pattern(SIZE, 2)
    bystander.read(0, 100, stag, IOVA)
    assert bystander.memory[:100] == before[:100]


@pytest.mark.parametrize("kind", ["send", "invalidate"])
def test_a_message_that_nobody_waits_for(owner, let_in, kind):
    # mutation: drop it; let it invalidate the token all the same
    o = owner()
    peer, token = let_in(o)
    bystander, stag = let_in(o)
    log = len(kernel_log())
    peer.post(kind, 0, 100, token if kind == "invalidate" else 0)
    peer.await_disconnected()
    assert wait_until(lambda: iwarp.DDP_NO_BUFFER in terminates(kernel_log()[log:]), 5.0), kernel_log()[log:]
    bystander.read(0, 100, stag, IOVA)


def test_what_was_right_before_is_done(owner, let_in):
    # mutation: terminate before the answers that are due
    o = owner()
    peer, token = let_in(o)
    good = [peer.post("read", i * 1000, 1000, token, IOVA + i) for i in range(3)]
    bad = peer.post("read", 0, 10, token ^ 0x100, IOVA)
    peer.post("read", 0, 10, token, IOVA)
    done = peer.wait(5, 3000)
    assert [(c.id, c.status) for c in done[:3]] == [(i, SUCCESS) for i in good]
    assert all(c.status == FLUSHED for c in done[3:]) and bad not in [c.id for c in done[:3]]
    peer.await_disconnected()
    for i in range(3):
        assert peer.memory[i * 1000:(i + 1) * 1000] == o.buffer[i:i + 1000]


def test_a_token_of_another_door(owner, let_in):
    # mutation: look tokens up without the stream's grants
    o = owner()
    peer, _ = let_in(o)
    _, other = let_in(o)
    peer.post("read", 0, 10, other, IOVA)
    peer.await_disconnected()
    assert peer.memory.bytes() == pattern(SIZE, 2)


def test_deregistered(owner, let_in):
    # mutation: keep the tag of a grant when its MR goes
    o = owner()
    peer, token = let_in(o)
    peer.read(0, 100, token, IOVA)
    o.session.deregister(o.mr)
    before = o.buffer.bytes()
    peer.post("write", 0, 4096, token, IOVA)
    peer.await_disconnected()
    assert o.buffer.bytes() == before


def test_deregistered_under_a_stream_of_writes(owner, let_in):
    o = owner(size=BIG)
    peer, token = let_in(o, size=BIG)
    for _ in range(16):
        peer.post("write", 0, BIG - 3, token, IOVA)
    assert wait_until(lambda: o.buffer[:100] == peer.memory[:100], 10.0)
    o.session.deregister(o.mr)
    o.buffer[:] = bytes(BIG)
    peer.await_disconnected()
    assert not any(o.buffer.bytes()), "written after the reply"


@pytest.mark.parametrize("what", ["idle", "reading", "writing"])
def test_a_peer_that_dies(owner, let_in, what):
    # mutation: keep a stream whose peer is gone
    o = owner(size=BIG)
    peer, token = let_in(o, size=BIG)
    peer.flush()
    for _ in range(8 if what != "idle" else 0):
        peer.post("read" if what == "reading" else "write", 0, BIG - 3, token, IOVA)
    peer.close()
    assert wait_until(lambda: not o.session.list(pb.QP), 20.0)


def test_the_owner_dies(owner, let_in):
    o = owner()
    peer, token = let_in(o)
    peer.read(0, 100, token, IOVA)
    o.session.close()
    peer.await_disconnected()
