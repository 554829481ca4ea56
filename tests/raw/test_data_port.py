# SPDX-License-Identifier: MIT
"""Bytes on the data port, from a peer that is not nicd: the handshake, reads and writes compared with the memfd, and everything a
stranger may try. A protection error ends that stream with the Terminate that the RFCs name, and nothing else."""
import os
import random
import select
import socket
import struct
import time

import pytest

from nicdtest import iwarp, locator
from nicdtest.daemon import wait_until
from nicdtest.iwarp import Closed, Peer, Rejected, Tcp, fpdu, hello, mpa_request, tagged, untagged
from nicdtest.memory import Buffer, pattern
from nicdtest.pb import REMOTE_READ, REMOTE_WRITE, pb

ALL = REMOTE_READ | REMOTE_WRITE
SIZE, IOVA = 65536, 0x3_0000_0000_0000


class Owner:
    """A session with a registered buffer that strangers are let into."""

    def __init__(self, nicd, flags=ALL):
        self.nicd = nicd
        self.session = nicd.session(label="owner")
        self.buffer = Buffer(SIZE, 1)
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, SIZE, flags, IOVA)
        self.n = 0

    def close(self):
        self.session.close()
        self.buffer.close()

    def door(self, flags=ALL, ticket=False, uses=100, peers=16, **terms):
        self.n += 1
        if ticket:
            return self.session.ticket(self.mr, uses=uses, peers=peers, **terms)
        return self.session.export(self.mr, f"raw {self.n}", flags, uses=uses, peers=peers, **terms)

    def peer(self, door=None, **kw):
        place = locator.parse((door or self.door()).locator)
        return Peer((place.host, place.port), hello(place.ticket), **kw)

    def address(self):
        return self.nicd.data_address()

    def inbound(self):
        return [i for i in self.session.list(pb.QP) if i.inbound]


@pytest.fixture
def owner(nicd):
    owner = Owner(nicd)
    yield owner
    owner.close()


@pytest.fixture
def bystander(owner):
    """Another stream of the same owner that must not notice anything."""
    with owner.peer() as peer:
        stag = peer.grant.token
        assert peer.read(stag, IOVA, 10) == owner.buffer[:10]
        yield peer
        assert peer.read(stag, IOVA + 5, 100) == owner.buffer[5:105]


# ---- handshake

@pytest.mark.parametrize("asked", [False, True])
def test_large_frames_are_granted_to_who_asks(owner, asked):
    # mutation: set a reserved bit for everybody; grant it and go on with small ones (tests/vm sees that)
    place = locator.parse(owner.door().locator)
    with Peer((place.host, place.port), hello(place.ticket), handshake=False) as peer:
        peer.send(mpa_request(hello(place.ticket), flags=iwarp.MPA_LARGE if asked else 0))
        assert bool(peer.accept().flags & iwarp.MPA_LARGE) == asked
        assert peer.read(peer.grant.token, IOVA, 100) == owner.buffer[:100]


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize("ticket", [False, True], ids=["export", "ticket"])
def test_handshake(owner, revision, crc, ticket):
    # mutation: answer revision 1 with revision 2; leave the C bit out of the reply; forget the grant
    door = owner.door(ticket=ticket)
    with owner.peer(door, revision=revision, crc=crc) as peer:
        reply = peer.reply
        assert reply.revision == revision and reply.enhanced == (revision == 2)
        assert not reply.flags & (iwarp.MPA_REJECT | iwarp.MPA_MARKERS)
        if crc:
            assert reply.flags & iwarp.MPA_CRC
        if not ticket:
            grant = peer.grant
            assert (grant.token, grant.iova, grant.length) == (door.grant.remote_token, IOVA, SIZE)
            assert grant.incarnation == owner.session.hello.adapters[0].incarnation
            assert grant.rights & ALL == ALL
        data = os.urandom(5001)
        peer.write(door.grant.remote_token, IOVA + 77, data)
        assert peer.read(door.grant.remote_token, IOVA + 77, 5001) == data == owner.buffer[77:5078]


def test_depths_are_crossed(owner):
    # mutation: grant more than was asked for; answer IRD with IRD
    with owner.peer(ird=3, ord=5) as peer:
        assert 1 <= peer.reply.ird <= 5   # as many reads of ours as it takes, and no more than we make
        assert peer.reply.ord <= 3
    with owner.peer(ird=0x3fff, ord=0x3fff) as peer:
        assert peer.reply.ird & 0x3fff >= 1


def refused(address, data, timeout=9.0, half=False):
    """What the port answers to this start of a connection, which must not be an accept: b"" or a reject."""
    with Tcp(address) as tcp:
        tcp.send(data)
        if not half:
            try:
                tcp.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        answer = tcp.end(timeout)
        if answer:
            assert answer[:16] == iwarp.REPLY_KEY and len(answer) >= 20
            word, length = struct.unpack(">HH", answer[16:20])
            assert word & iwarp.MPA_REJECT, "an accept"
            assert length <= 256 and len(answer) == 20 + length
        return answer


GARBAGE = {
    "zeroes": bytes(100),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + bytes(200),
    "random": random.Random(1).randbytes(500),
    "the reply's key": mpa_request(hello(b"t" * 16), key=iwarp.REPLY_KEY),
    "a key with one wrong byte": mpa_request(hello(b"t" * 16), key=b"MPA ID Req Framf"),
    "no private data": mpa_request(b""),
    "revision 0": mpa_request(hello(b"t" * 16), revision=0),
    "revision 3": mpa_request(hello(b"t" * 16), revision=3),
    "revision 255": mpa_request(hello(b"t" * 16), revision=255),
    "rejecting": mpa_request(hello(b"t" * 16), flags=iwarp.MPA_REJECT),
    "short private data": mpa_request(hello(b"t" * 15)),
    "long private data": mpa_request(hello(b"t" * 16) + bytes(600)),
    "513 bytes": mpa_request(bytes(509)),
    "PD_Length 65535": mpa_request(hello(b"t" * 16), pd_length=65535) + bytes(65535),
    "PD_Length too small for the header": mpa_request(b"", pd_length=3),
    "PD_Length 0 with S": mpa_request(b"", pd_length=0),
    "another magic": mpa_request(b"nicx\1\0\0\0" + b"t" * 16),
    "another version": mpa_request(b"nicd\2\0\0\0" + b"t" * 16),
    "an unknown ticket": mpa_request(hello(b"t" * 16)),
    "a ticket of zeroes": mpa_request(hello(bytes(16))),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_handshake(owner, bystander, name):
    # mutation: trust PD_Length; compare only a part of the key, magic or ticket
    refused(owner.address(), GARBAGE[name])


def test_with_a_good_ticket_too(owner, bystander):
    # mutation: look at the ticket before the rest of the request
    ticket = locator.parse(owner.door().locator).ticket
    for data in (mpa_request(hello(ticket), revision=3), mpa_request(hello(ticket), revision=0), mpa_request(hello(ticket[:15])),
                 mpa_request(b"nicx\1\0\0\0" + ticket), mpa_request(hello(ticket), key=iwarp.REPLY_KEY),
                 mpa_request(hello(ticket), pd_length=2), mpa_request(b"x" + hello(ticket)),
                 mpa_request(hello(ticket) + bytes(600))):
        refused(owner.address(), data)
    assert owner.session.list(pb.EXPORT)[-1].count == 100, "a use was spent"


def test_markers_are_rejected(owner, bystander):
    # mutation: accept a peer that wants markers and send none
    ticket = locator.parse(owner.door().locator).ticket
    refused(owner.address(), mpa_request(hello(ticket), markers=True))


def test_all_bad_tickets_look_alike(owner, bystander):
    # mutation: another answer for a ticket that was good once
    spent, expired, full = owner.door(uses=1), owner.door(ttl_ms=200), owner.door(uses=9, peers=1)
    closed = owner.door()
    owner.session.close_object(closed)
    with owner.peer(spent) as p:
        p.read(spent.grant.remote_token, IOVA, 1)
    inside = owner.peer(full)
    inside.read(full.grant.remote_token, IOVA, 1)
    owner.session.wait_event(pb.Event.EXPIRED, expired.serial)
    answers, times = {}, {}
    for name, ticket in (("unknown", b"t" * 16), *((n, locator.parse(d.locator).ticket) for n, d in
                         (("spent", spent), ("expired", expired), ("full", full), ("closed", closed)))):
        started = time.monotonic()
        answers[name] = refused(owner.address(), mpa_request(hello(ticket)))
        times[name] = time.monotonic() - started
    inside.close()
    assert len(set(answers.values())) == 1, answers
    assert max(times.values()) - min(times.values()) < 0.5, times


def test_one_bit_of_the_ticket(owner, bystander):
    # mutation: compare the first bytes of the hash
    ticket = locator.parse(owner.door().locator).ticket
    for bit in range(0, 128, 7):
        wrong = (int.from_bytes(ticket, "big") ^ 1 << bit).to_bytes(16, "big")
        refused(owner.address(), mpa_request(hello(wrong)))


@pytest.mark.time_limit(30)
def test_half_a_request_and_silence(owner, bystander):
    # mutation: no timer for the handshake
    ticket = locator.parse(owner.door().locator).ticket
    whole = mpa_request(hello(ticket))
    started = time.monotonic()
    half = [Tcp(owner.address()) for _ in range(len(whole))]
    for n, tcp in enumerate(half):
        tcp.send(whole[:n])
    for tcp in half:
        assert tcp.end(max(0.1, started + 9 - time.monotonic())) == b""
        tcp.close()
    assert 4 < time.monotonic() - started < 9
    assert owner.session.list(pb.EXPORT)[-1].count == 100


def test_a_request_byte_by_byte(owner):
    # mutation: expect the request in one piece
    door = owner.door()
    ticket = locator.parse(door.locator).ticket
    with Peer(owner.address(), b"", handshake=False) as peer:
        for byte in mpa_request(hello(ticket)):
            peer.send(bytes([byte]))
            time.sleep(0.002)
        peer.accept()
        data = untagged(iwarp.READ_REQUEST, iwarp.QN_READ, 1, iwarp.read_request_payload(7, 8, 50, door.grant.remote_token, IOVA))
        for byte in fpdu(data):
            peer.send(bytes([byte]))
            time.sleep(0.001)
        assert peer.read_response(7, 8, 50) == owner.buffer[:50]


def test_many_half_open(owner, bystander):
    # mutation: no cap on half-open streams, or one that shuts everybody out for ever
    half = []
    for _ in range(300):
        try:
            half.append(Tcp(owner.address(), timeout=2))
        except OSError:
            break
    for tcp in half:
        tcp.close()
    with wait_until_peer(owner) as peer:
        peer.read(peer.grant.token, IOVA, 10)


def wait_until_peer(owner):
    door = owner.door()
    for _ in range(50):
        try:
            return owner.peer(door)
        except (Closed, Rejected, OSError):
            time.sleep(0.1)
    raise AssertionError("nobody gets in any more")


def test_reply_is_never_too_long_for_siw(owner):
    # mutation: append to the accept's private data
    with Tcp(owner.address()) as tcp:
        tcp.send(mpa_request(hello(locator.parse(owner.door().locator).ticket) + bytes(200)))
        head = tcp.receive(20)
        word, length = struct.unpack(">HH", head[16:])
        assert not word & iwarp.MPA_REJECT and length <= 256
        tcp.receive(length)


@pytest.mark.parametrize("control", [0x4000, 0x8000])
def test_peer_to_peer_mode(owner, control):
    # mutation: answer the A bit without choosing a ready-to-receive frame
    door = owner.door()
    ticket = locator.parse(door.locator).ticket
    with Peer(owner.address(), b"", handshake=False) as peer:
        ird, ord_ = 16 | 0x8000, 16 | control
        peer.send(mpa_request(hello(ticket), ird=ird, ord=ord_))
        try:
            peer.accept()
        except Closed:
            pytest.skip("this responder takes no peer-to-peer mode")
        if peer.reply.flags & iwarp.MPA_REJECT:
            return
        if peer.reply.ird & 0x8000:
            assert peer.reply.ord & 0xc000 == control or peer.reply.ird & 0x4000
            if control == 0x8000:
                peer.send_ulpdu(tagged(iwarp.WRITE, 1, 0))
            else:
                peer.flush()
        assert peer.read(door.grant.remote_token, IOVA, 10) == owner.buffer[:10]


# ---- reads and writes

@pytest.mark.parametrize("crc", [False, True])
def test_bytes_by_read(owner, crc):
    # mutation: start a segment at the wrong offset
    rng = random.Random(3)
    with owner.peer(crc=crc) as peer:
        for _ in range(40):
            at = rng.randrange(SIZE)
            n = rng.randrange(SIZE - at + 1) if rng.random() < 0.3 else min(rng.randrange(3000), SIZE - at)
            assert peer.read(peer.grant.token, IOVA + at, n, sink_to=rng.getrandbits(60)) == owner.buffer[at:at + n]


@pytest.mark.parametrize("crc", [False, True])
def test_bytes_by_write(owner, crc):
    # mutation: place a segment by its order instead of its TO
    rng = random.Random(4)
    expected = bytearray(owner.buffer.bytes())
    with owner.peer(crc=crc) as peer:
        for _ in range(60):
            at = rng.randrange(SIZE)
            data = rng.randbytes(min(rng.randrange(5000), SIZE - at))
            peer.write(peer.grant.token, IOVA + at, data, chunk=rng.choice([1, 7, 100, 1428, 8192, 65521]) if len(data) < 500 else 1428)
            expected[at:at + len(data)] = data
        peer.flush()
        assert owner.buffer.bytes() == bytes(expected)


def test_many_reads_at_once(owner):
    # mutation: mix the responses of two reads; forget what is over the granted depth
    with owner.peer(ird=16, ord=16) as peer:
        depth = peer.reply.ird & 0x3fff
        asked = [(100 + i, 0x1000 * i, 3000 + i, i * 900) for i in range(min(depth, 16))]
        for stag, to, n, at in asked:
            peer.post_read(stag, to, n, peer.grant.token, IOVA + at)
        for stag, to, n, at in asked:
            assert peer.read_response(stag, to, n) == owner.buffer[at:at + n]


def test_write_then_read_in_one_packet(owner):
    # mutation: answer a read before the write in front of it is placed
    with owner.peer() as peer:
        stag = peer.grant.token
        for i in range(50):
            data = os.urandom(3000)
            peer.send(fpdu(tagged(iwarp.WRITE, stag, IOVA + 10, data)) +
                      fpdu(untagged(iwarp.READ_REQUEST, 1, i + 1, iwarp.read_request_payload(9, 0, 3000, stag, IOVA + 10))))
            assert peer.read_response(9, 0, 3000) == data


def test_zero_length(owner):
    # mutation: look up the tag of nothing; answer a read of nothing with nothing
    with owner.peer() as peer:
        peer.send_ulpdu(tagged(iwarp.WRITE, 1, 0))
        assert peer.flush() == b""
        assert peer.read(peer.grant.token, IOVA + SIZE, 0) == b""
        assert owner.buffer.bytes() == pattern(SIZE, 1)


def test_largest_frames(owner):
    # mutation: keep the length of a frame in 15 bits
    with owner.peer() as peer:
        data = os.urandom(SIZE - 1 - 14)
        peer.send_ulpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA, data))
        peer.flush()
        assert owner.buffer[:len(data)] == data


def test_counters(owner):
    # mutation: count frames with their headers
    door = owner.door()
    with owner.peer(door) as peer:
        peer.write(door.grant.remote_token, IOVA, bytes(1234))
        peer.read(door.grant.remote_token, IOVA, 777)
        item, = owner.inbound()
        assert (item.peer_written, item.peer_read, item.bytes_read, item.bytes_written) == (1234, 777, 0, 0)


def test_slow_peers(owner, bystander):
    # mutation: wait in one stream's send
    with owner.peer() as slow:
        for _ in range(16):
            slow.post_read(5, 0, SIZE, slow.grant.token, IOVA)
        time.sleep(0.2)
        started = time.monotonic()
        for _ in range(20):
            bystander.read(bystander.grant.token, IOVA, 100)
        assert time.monotonic() - started < 3
        for _ in range(16):
            assert slow.read_response(5, 0, SIZE) == owner.buffer.bytes()


def test_end_of_stream(owner):
    # mutation: wait for a Terminate
    for how in (socket.SHUT_WR, None):
        peer = owner.peer()
        peer.read(peer.grant.token, IOVA, 10)
        assert len(owner.inbound()) == 1
        if how is None:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        else:
            peer.sock.shutdown(how)
            assert peer.end() == b""
            peer.close()
        assert wait_until(lambda: not owner.inbound())


# ---- what is not allowed

READ_ERRORS = {
    # name: (stag, to, length, code)
    "stag one bit off": (lambda g: (g.token ^ 1, IOVA, 10), iwarp.RDMAP_BAD_STAG),
    "stag 0": (lambda g: (0, IOVA, 10), iwarp.RDMAP_BAD_STAG),
    "stag 1": (lambda g: (1, IOVA, 10), iwarp.RDMAP_BAD_STAG),
    "one byte beyond": (lambda g: (g.token, IOVA, SIZE + 1), iwarp.RDMAP_BOUNDS),
    "starts at the end": (lambda g: (g.token, IOVA + SIZE, 1), iwarp.RDMAP_BOUNDS),
    "starts before": (lambda g: (g.token, IOVA - 1, 1), iwarp.RDMAP_BOUNDS),
    "across the start": (lambda g: (g.token, IOVA - 1, 2), iwarp.RDMAP_BOUNDS),
    "address 0": (lambda g: (g.token, 0, 1), iwarp.RDMAP_BOUNDS),
    "wraps": (lambda g: (g.token, 2 ** 64 - 1, 2), (iwarp.RDMAP_BOUNDS, iwarp.RDMAP_TO_WRAP)),
    "wraps into it": (lambda g: (g.token, 2 ** 64 - 4, 2 ** 32 - 1), (iwarp.RDMAP_BOUNDS, iwarp.RDMAP_TO_WRAP)),
    "4 GiB": (lambda g: (g.token, IOVA, 2 ** 32 - 1), iwarp.RDMAP_BOUNDS),
}


def expect_end(peer, codes, owner, before):
    code = peer.wait_terminate()
    codes = codes if isinstance(codes[0], tuple) else (codes,)
    assert code in codes, f"Terminate {code}, not {codes}"
    assert owner.buffer.bytes() == before, "memory was changed"
    peer.close()


@pytest.mark.parametrize("crc", [False, True], ids=["", "crc"])
@pytest.mark.parametrize("name", READ_ERRORS)
def test_bad_reads(owner, bystander, name, crc):
    # mutation: `to + len > iova + length`; any-of rights; a token found without its scope
    make, code = READ_ERRORS[name]
    before = owner.buffer.bytes()
    with owner.peer(crc=crc) as peer:
        stag, to, n = make(peer.grant)
        peer.post_read(0x77, 0x1000, n, stag, to)
        expect_end(peer, code, owner, before)
        # The Terminate carries the headers of what was wrong: the initiator finds its read by them.
        t = peer.terminate
        assert t.d and t.r and t.rdmap_header == iwarp.read_request_payload(0x77, 0x1000, n, stag, to)
        assert t.ddp_header[1] & 0xf == iwarp.READ_REQUEST


WRITE_ERRORS = {
    "stag one bit off": (lambda g: (g.token ^ 1, IOVA, 10), iwarp.DDP_BAD_STAG),
    "stag 0": (lambda g: (0, IOVA, 10), iwarp.DDP_BAD_STAG),
    "one byte beyond": (lambda g: (g.token, IOVA + SIZE - 9, 10), iwarp.DDP_BOUNDS),
    "starts at the end": (lambda g: (g.token, IOVA + SIZE, 1), iwarp.DDP_BOUNDS),
    "starts before": (lambda g: (g.token, IOVA - 1, 1), iwarp.DDP_BOUNDS),
    "across the start": (lambda g: (g.token, IOVA - 5, 10), iwarp.DDP_BOUNDS),
    "address 0": (lambda g: (g.token, 0, 10), iwarp.DDP_BOUNDS),
    "wraps": (lambda g: (g.token, 2 ** 64 - 5, 10), (iwarp.DDP_BOUNDS, iwarp.DDP_TO_WRAP)),
}


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", WRITE_ERRORS)
def test_bad_writes(owner, bystander, name, last):
    # mutation: check only the first, or only the last segment
    make, code = WRITE_ERRORS[name]
    before = owner.buffer.bytes()
    with owner.peer() as peer:
        stag, to, n = make(peer.grant)
        peer.send_ulpdu(tagged(iwarp.WRITE, stag, to, b"\xee" * n, last=last))
        expect_end(peer, code, owner, before)
        assert peer.terminate.d and peer.terminate.ddp_header[2:14] == struct.pack(">IQ", stag, to)


def test_second_segment_out_of_bounds(owner, bystander):
    # mutation: check the message's first segment only
    with owner.peer() as peer:
        peer.send_ulpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA + SIZE - 10, b"\xee" * 10, last=False))
        peer.send_ulpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA + SIZE, b"\xee" * 10))
        assert peer.wait_terminate() == iwarp.DDP_BOUNDS


def test_bulk_write_to_a_bad_stag(owner, bystander):
    # mutation: close with unread data: the reset overtakes the Terminate
    before = owner.buffer.bytes()
    with owner.peer() as peer:
        peer.sock.settimeout(5)
        try:
            for _ in range(200):
                peer.send_ulpdu(tagged(iwarp.WRITE, 0xbad, IOVA, bytes(30000)))
        except (Closed, TimeoutError):
            pass
        assert peer.wait_terminate() == iwarp.DDP_BAD_STAG
    assert owner.buffer.bytes() == before


@pytest.mark.parametrize("flags, operation", [(REMOTE_READ, "write"), (REMOTE_WRITE, "read")])
@pytest.mark.parametrize("ticket", [False, True], ids=["export", "ticket"])
def test_rights(nicd, flags, operation, ticket):
    # mutation: any-of in place of all-of
    owner = Owner(nicd, flags)
    try:
        before, door = owner.buffer.bytes(), owner.door(flags, ticket)
        with owner.peer(door) as peer:
            if operation == "read":
                peer.post_read(5, 0, 10, door.grant.remote_token, IOVA)
                expect_end(peer, iwarp.RDMAP_RIGHTS, owner, before)
            else:
                peer.write(door.grant.remote_token, IOVA, b"\xee" * 10)
                expect_end(peer, (iwarp.DDP_BAD_STAG, iwarp.RDMAP_RIGHTS), owner, before)
    finally:
        owner.close()


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("token", ["region's", "region's local", "other export's", "other pd's", "other session's"])
def test_tokens_behind_other_doors(nicd, owner, bystander, operation, token):
    # mutation: look tokens up without the stream's scope
    with nicd.session() as other, Buffer(SIZE, 6) as more:
        stag = {
            "region's": lambda: owner.mr.remote_token,
            "region's local": lambda: owner.mr.local_token,
            "other export's": lambda: owner.door().grant.remote_token,
            "other pd's": lambda: owner.session.region(owner.session.create_pd(), more.fd, SIZE, ALL, IOVA).remote_token,
            "other session's": lambda: other.region(other.create_pd(), more.fd, SIZE, ALL, IOVA).remote_token,
        }[token]()
        before = owner.buffer.bytes()
        with owner.peer() as peer:
            if operation == "read":
                peer.post_read(5, 0, 10, stag, IOVA)
            else:
                peer.write(stag, IOVA, b"\xee" * 10)
            expect_end(peer, iwarp.RDMAP_BAD_STAG if operation == "read" else iwarp.DDP_BAD_STAG, owner, before)
        assert more.bytes() == pattern(SIZE, 6)


def test_a_sweep_of_tokens(owner, bystander):
    # mutation: any token that opens more than its grant; count 64 streams per sweep
    rng = random.Random(5)
    door = owner.door(uses=100)
    for _ in range(60):
        with owner.peer(door) as peer:
            near = rng.choice([door.grant.remote_token, owner.mr.remote_token])
            stag = rng.choice([rng.getrandbits(32), near ^ (1 << rng.randrange(32)), (near + rng.randrange(1, 256)) & 0xffffffff])
            if stag == door.grant.remote_token:
                continue
            peer.post_read(5, 0, 10, stag, IOVA)
            assert peer.wait_terminate() == iwarp.RDMAP_BAD_STAG


def test_after_deregister(owner):
    # mutation: answer Deregister before the tag is gone
    door = owner.door(ticket=True)
    with owner.peer(door) as peer:
        peer.read(owner.mr.remote_token, IOVA, 10)
        owner.session.deregister(owner.mr)
        before = owner.buffer.bytes()
        peer.write(owner.mr.remote_token, IOVA, b"\xee" * 10)
        expect_end(peer, iwarp.DDP_BAD_STAG, owner, before)


def test_deregister_in_the_middle_of_a_frame(owner, bystander):
    # mutation: go on placing an FPDU that had started; the receipt does not count the stream
    door = owner.door(ticket=True)
    with Buffer(SIZE, 8) as more:
        mr = owner.session.region(owner.pd, more.fd, SIZE, ALL, IOVA * 2)
        with owner.peer(door) as peer:
            peer.read(mr.remote_token, mr.iova, 10)
            data = fpdu(tagged(iwarp.WRITE, mr.remote_token, mr.iova, b"\xee" * 40000))
            peer.send(data[:30000])
            time.sleep(0.2)
            receipt = owner.session.deregister(mr)
            held = more.bytes()
            try:
                peer.send(data[30000:])
            except Closed:
                pass
            peer.end(5)
            assert more.bytes() == held
            assert receipt.streams_cut <= 1


def test_deregister_under_many_writers(owner):
    # mutation: a window between the reply and the last placed byte
    door = owner.door(ticket=True, uses=50, peers=8)
    for round_ in range(5):
        writers = [owner.peer(door) for _ in range(4)]
        for w in writers:
            w.sock.setblocking(False)
        chunk = b"".join(fpdu(tagged(iwarp.WRITE, owner.mr.remote_token, IOVA, b"\xee" * 30000)) for _ in range(4))
        for w in writers:
            try:
                while True:
                    w.sock.send(chunk)   # a part of a frame may be left over: the stream is cut in the middle
            except OSError:
                pass
        owner.session.deregister(owner.mr)
        owner.buffer[:] = b"\x11" * SIZE
        time.sleep(0.1)
        assert owner.buffer.bytes() == b"\x11" * SIZE
        for w in writers:
            w.close()
        tokens = owner.session.register(owner.mr, [(None, 0, SIZE)], IOVA, flags=ALL, fd=owner.buffer.fd)
        assert tokens.remote_token != owner.mr.remote_token
        owner.mr = tokens
        door = owner.door(ticket=True, uses=50, peers=8)


# ---- frames that break the rules

FRAME_ERRORS = {
    # name: (bytes or a function of the token, codes; () means: any end)
    "unknown opcode": (lambda t: fpdu(untagged(9, 0, 1)), (iwarp.RDMAP_OPCODE,)),
    "opcode 15": (lambda t: fpdu(untagged(15, 1, 1)), (iwarp.RDMAP_OPCODE,)),
    "atomic request": (lambda t: fpdu(untagged(10, 1, 1, bytes(52))), (iwarp.RDMAP_OPCODE,)),
    "write without a tag": (lambda t: fpdu(untagged(iwarp.WRITE, 0, 1, b"x")), (iwarp.RDMAP_OPCODE,)),
    "read request with a tag": (lambda t: fpdu(tagged(iwarp.READ_REQUEST, t, IOVA, bytes(28))), (iwarp.RDMAP_OPCODE,)),
    "RDMAP version 0": (lambda t: fpdu(tagged(iwarp.WRITE, t, IOVA, b"\xee", rdmap=0)), (iwarp.RDMAP_VERSION_ERROR,)),
    "RDMAP version 3": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, bytes(28), rdmap=0xc0)), (iwarp.RDMAP_VERSION_ERROR,)),
    "DDP version 0": (lambda t: fpdu(tagged(iwarp.WRITE, t, IOVA, b"\xee", ddp=0x80)), (iwarp.DDP_TAGGED_VERSION,)),
    "DDP version 2, untagged": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, bytes(28), ddp=2)), (iwarp.DDP_UNTAGGED_VERSION,)),
    "MSN 0": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 0, iwarp.read_request_payload(5, 0, 1, t, IOVA))), (iwarp.DDP_BAD_MSN,)),
    "MSN 2": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 2, iwarp.read_request_payload(5, 0, 1, t, IOVA))), (iwarp.DDP_BAD_MSN,)),
    "read request on queue 0": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 0, 1, iwarp.read_request_payload(5, 0, 1, t, IOVA))),
                                (iwarp.DDP_BAD_QN, iwarp.RDMAP_OPCODE)),
    "queue 3": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 3, 1, iwarp.read_request_payload(5, 0, 1, t, IOVA))),
                (iwarp.DDP_BAD_QN,)),
    "queue 2^32-1": (lambda t: fpdu(untagged(iwarp.SEND, 2 ** 32 - 1, 1, b"x")), (iwarp.DDP_BAD_QN,)),
    "send without a receive": (lambda t: fpdu(untagged(iwarp.SEND, 0, 1, b"hello")), (iwarp.DDP_NO_BUFFER,)),
    "send with invalidate": (lambda t: fpdu(untagged(iwarp.SEND_INVALIDATE, 0, 1, b"hello", reserved=t)),
                             (iwarp.DDP_NO_BUFFER, (0, 1, 9), (0, 2, 9), iwarp.RDMAP_OPCODE)),
    "read request with an offset": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, iwarp.read_request_payload(5, 0, 1, t, IOVA),
                                                            mo=4)), (iwarp.DDP_BAD_MO, iwarp.DDP_BAD_MSN)),
    "read request too long": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, iwarp.read_request_payload(5, 0, 1, t, IOVA) + b"x")),
                              (iwarp.DDP_TOO_LONG, iwarp.RDMAP_UNSPECIFIED)),
    "read request too short": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, bytes(27))), ()),
    "read request in two": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, bytes(14), last=False)), ()),
    "a response nobody asked for": (lambda t: fpdu(tagged(iwarp.READ_RESPONSE, t, IOVA, b"\xee" * 8)),
                                    (iwarp.DDP_BAD_STAG, iwarp.RDMAP_OPCODE, (0, 2, 0xff))),
    "length 0": (lambda t: fpdu(b""), ()),
    "length 1": (lambda t: fpdu(b"\xc1"), ()),
    "tagged header cut": (lambda t: fpdu(tagged(iwarp.WRITE, t, IOVA)[:13]), ()),
    "untagged header cut": (lambda t: fpdu(untagged(iwarp.READ_REQUEST, 1, 1)[:17]), ()),
    "terminate": (lambda t: fpdu(untagged(iwarp.TERMINATE, 2, 1, struct.pack(">I", 0x01000000))), ()),
    "terminate of nothing": (lambda t: fpdu(untagged(iwarp.TERMINATE, 2, 1, b"")), ()),
    "terminate in siw's order": (lambda t: fpdu(untagged(iwarp.TERMINATE, 2, 1, bytes.fromhex("10000700"))), ()),
    "garbage": (lambda t: b"\x00\x20" + bytes(range(34)) + bytes(4), ()),
    "all ones": (lambda t: b"\xff" * 70000, ()),
}


@pytest.mark.parametrize("name", FRAME_ERRORS)
def test_bad_frames(owner, bystander, name):
    # mutation: leave out the check of version, opcode, queue, MSN or length
    make, codes = FRAME_ERRORS[name]
    before = owner.buffer.bytes()
    with owner.peer() as peer:
        # A good frame first: with a bad one in its place the handshake dies without a word.
        peer.send_ulpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA))
        assert wait_until(lambda: len(owner.inbound()) == 2)
        try:
            peer.send(make(peer.grant.token))
            if not codes:
                peer.sock.shutdown(socket.SHUT_WR)
        except (Closed, OSError):
            pass
        code = peer.wait_terminate()
        if codes:
            assert code in codes, f"Terminate {code}, not {codes}"
    assert owner.buffer.bytes() == before
    assert wait_until(lambda: len(owner.inbound()) == 1)   # the bystander


@pytest.mark.parametrize("name", FRAME_ERRORS)
def test_bad_first_frames(owner, bystander, name):
    # mutation: spend the ticket on a frame that is none
    before, door = owner.buffer.bytes(), owner.door(uses=1)
    with owner.peer(door) as peer:
        try:
            peer.send(FRAME_ERRORS[name][0](door.grant.remote_token))
            peer.sock.shutdown(socket.SHUT_WR)
        except (Closed, OSError):
            pass
        peer.wait_terminate()
    assert owner.buffer.bytes() == before
    assert wait_until(lambda: len(owner.inbound()) == 1)


def test_msn_counts(owner, bystander):
    # mutation: check the first MSN only
    with owner.peer() as peer:
        for _ in range(5):
            peer.read(peer.grant.token, IOVA, 10)
        peer.msn[iwarp.QN_READ] -= 1
        peer.post_read(5, 0, 10, peer.grant.token, IOVA)
        assert peer.wait_terminate() == iwarp.DDP_BAD_MSN


@pytest.mark.parametrize("what", ["crc", "payload", "stag", "length"])
def test_bad_crc(owner, bystander, what):
    # mutation: place bytes before their CRC is known to be right
    before = owner.buffer.bytes()
    with owner.peer(crc=True) as peer:
        peer.read(peer.grant.token, IOVA, 10)
        data = bytearray(fpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA + 100, b"\xee" * 500), crc=True))
        at = {"crc": len(data) - 1, "payload": 100, "stag": 5, "length": len(data) - 5}[what]
        data[at] ^= 0x10
        peer.send(bytes(data))
        expect_end(peer, iwarp.MPA_CRC_ERROR, owner, before)


def test_crc_that_nobody_asked_for(owner):
    # mutation: check the CRC field when CRC is off
    with owner.peer(crc=False) as peer:
        if peer.crc:
            pytest.skip("this responder always wants CRC")
        data = bytearray(fpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA, b"no crc!!")))
        data[-4:] = b"\xde\xad\xbe\xef"
        peer.send(bytes(data))
        peer.flush()
        assert owner.buffer[:8] == b"no crc!!"


@pytest.mark.parametrize("second, code", [
    ("another good stag", iwarp.DDP_BAD_STAG),
    ("a hole", iwarp.DDP_BOUNDS),
    ("back again", iwarp.DDP_BOUNDS),
    ("a read request", None),
    ("another message", None),
])
def test_a_message_is_one_piece(owner, bystander, second, code):
    # mutation: check each segment alone
    door = owner.door(ticket=True)
    with Buffer(SIZE, 8) as more, owner.peer(door) as peer:
        other = owner.session.region(owner.pd, more.fd, SIZE, ALL, IOVA)   # the same addresses, so that only the STag differs
        stag = owner.mr.remote_token
        peer.read(stag, IOVA, 1)
        before = owner.buffer.bytes()
        peer.send_ulpdu(tagged(iwarp.WRITE, stag, IOVA, before[:8], last=False))
        peer.send_ulpdu({
            "another good stag": tagged(iwarp.WRITE, other.remote_token, IOVA + 8, b"\xee" * 8),
            "a hole": tagged(iwarp.WRITE, stag, IOVA + 16, b"\xee" * 8),
            "back again": tagged(iwarp.WRITE, stag, IOVA, b"\xee" * 8),
            "a read request": untagged(iwarp.READ_REQUEST, 1, 2, iwarp.read_request_payload(5, 0, 8, stag, IOVA)),
            "another message": tagged(iwarp.READ_RESPONSE, stag, IOVA + 8, b"\xee" * 8),
        }[second])
        got = peer.wait_terminate()
        assert got is not None and code in (None, got), got
        assert owner.buffer.bytes() == before and more.bytes() == pattern(SIZE, 8)


def test_more_reads_than_granted(owner, bystander):
    # mutation: queue whatever comes
    with owner.peer(ird=2, ord=2) as peer:
        depth = peer.reply.ird & 0x3fff
        for _ in range(depth + 2000):
            try:
                peer.post_read(5, 0, SIZE, peer.grant.token, IOVA)
            except Closed:
                break
        peer.sock.settimeout(10)
        assert peer.wait_terminate() == iwarp.DDP_NO_BUFFER


def test_half_a_frame_and_gone(owner, bystander):
    # mutation: keep a stream whose peer has gone in the middle of a frame
    for cut in (1, 2, 3, 10, 15, 16, 17, 500):
        with owner.peer() as peer:
            peer.read(peer.grant.token, IOVA, 1)
            peer.send(fpdu(tagged(iwarp.WRITE, peer.grant.token, IOVA + 4096, b"\xee" * 1000))[:cut])
    assert wait_until(lambda: len(owner.inbound()) == 1)


def test_punched_memory(owner, bystander):
    # mutation: touch client memory by load or store: SIGBUS, or wrong zeroes
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    with Buffer(SIZE, 9) as more:
        mr = owner.session.region(owner.pd, more.fd, SIZE, ALL, IOVA * 2)
        door = owner.session.ticket(mr, uses=3)
        with owner.peer(door) as peer:
            assert libc.fallocate(more.fd, 3, ctypes.c_long(8192), ctypes.c_long(16384)) == 0
            assert peer.read(mr.remote_token, mr.iova, SIZE) == more.bytes()
            peer.write(mr.remote_token, mr.iova + 10000, b"\xaa" * 5000)
            peer.flush()
            assert more[10000:15000] == b"\xaa" * 5000


def test_random_frames(owner, bystander):
    # mutation: any slip behind the framing, seen by the sanitizers
    rng = random.Random(6)
    door = owner.door(flags=REMOTE_READ, uses=1000)
    before = owner.buffer.bytes()
    for _ in range(120):
        with owner.peer(door, crc=rng.random() < 0.2) as peer:
            try:
                for _ in range(rng.randrange(1, 5)):
                    opcode, payload = rng.randrange(16), rng.randbytes(rng.choice([0, 1, 4, 28, 28, 28, 60, 500]))
                    if rng.random() < 0.5:
                        data = tagged(opcode, rng.choice([peer.grant.token, rng.getrandbits(32)]), IOVA + rng.randrange(-10, SIZE + 10),
                                      payload, last=rng.random() < 0.7, ddp=rng.choice([0x81, 0x81, 0x81, rng.randrange(256)]))
                    else:
                        if opcode == iwarp.READ_REQUEST and rng.random() < 0.8:
                            payload = iwarp.read_request_payload(rng.getrandbits(32), rng.getrandbits(64), rng.randrange(2 * SIZE),
                                                                 peer.grant.token, IOVA + rng.randrange(SIZE))
                        data = untagged(opcode, rng.choice([0, 1, 1, 1, 2, rng.getrandbits(32)]), rng.choice([1, 1, 1, 2, 3]), payload,
                                        mo=rng.choice([0, 0, 0, 4]), ddp=rng.choice([0x01, 0x01, 0x41, rng.randrange(256)]))
                    peer.send_ulpdu(data)
                peer.sock.shutdown(socket.SHUT_WR)
                peer.end(10)
            except (Closed, OSError):
                pass
    assert owner.buffer.bytes() == before


def test_random_streams(owner, bystander):
    # mutation: any slip in the framing, seen by the sanitizers
    rng = random.Random(7)
    door = owner.door(flags=REMOTE_READ, uses=1000)
    for _ in range(100):
        with owner.peer(door) as peer:
            try:
                peer.send(rng.randbytes(rng.randrange(1, 3000)))
                peer.sock.shutdown(socket.SHUT_WR)
                peer.end(10)
            except (Closed, OSError):
                pass


def test_nobody_reads_the_answers(owner, bystander):
    # mutation: queue answers without end for a peer that does not read
    with owner.peer() as peer:
        depth = peer.reply.ird & 0x3fff
        for _ in range(min(depth, 16)):
            peer.post_read(5, 0, SIZE, peer.grant.token, IOVA)
        assert select.select([peer.sock], [], [], 5)[0]
    assert wait_until(lambda: len(owner.inbound()) == 1)
