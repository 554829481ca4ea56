# SPDX-License-Identifier: MIT
"""How long the frames are that nicd-soft sends: what fits one TCP segment to a stranger, 64 KiB to who says in the handshake's private
data that it takes them. The segments of this host's loopback are made short, as a network's are."""
import contextlib
import os
import socket
import struct
import threading

import pytest

from nicdtest import iwarp, locator
from nicdtest.iwarp import CAP_LARGE_FRAMES, Peer, hello
from nicdtest.memory import Buffer, pattern
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import ref

ALL = REMOTE_READ | REMOTE_WRITE
SIZE, IOVA = 0x50000, 0x3_0000_0000_0000
MSS = 1400
UNKNOWN = 0x8000_0100   # of the bits


def far_socket():
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS)
    return sock


def far_connection(address):
    sock = far_socket()
    sock.settimeout(10)
    sock.connect(address)
    return sock


@pytest.fixture
def far_nicd(own_nicd):
    """Takes nobody's loopback for a reason to send large frames."""
    return own_nicd(options=["--soft-options", "--fpdu mss"])


class Side:
    def __init__(self, nicd, flags):
        self.session = nicd.session(label="frames")
        self.buffer = Buffer(SIZE, 1)
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, SIZE, flags, IOVA)

    def close(self):
        self.session.close()
        self.buffer.close()


@pytest.fixture
def side(far_nicd):
    with contextlib.closing(Side(far_nicd, ALL)) as side:
        yield side


def longest_response(peer, stag):
    peer.post_read(7, 0, SIZE, stag, IOVA)
    data, longest = b"", 0
    while len(data) < SIZE:
        header = peer.next_frame()
        data += header.payload
        longest = max(longest, len(header.payload))
    assert data == pattern(SIZE, 1)
    return longest


@pytest.mark.parametrize("ticket", [False, True], ids=["export", "ticket"])
@pytest.mark.parametrize("crc", [False, True], ids=["plain", "crc"])
@pytest.mark.parametrize("caps", [0, UNKNOWN, CAP_LARGE_FRAMES, CAP_LARGE_FRAMES | UNKNOWN])
def test_to_who_connects(side, caps, crc, ticket):
    # mutation: large frames for everybody, or for any bit; say bits that are unknown here; say it unasked, which an old peer need not understand
    door = (side.session.ticket(side.mr, uses=1, peers=1) if ticket else
            side.session.export(side.mr, "frames", ALL, uses=1, peers=1))
    place = locator.parse(door.locator)
    address = place.host, place.port
    with Peer(address, hello(place.ticket, caps), crc=crc, sock=far_connection(address)) as peer:
        assert len(peer.reply.private) <= 252
        assert iwarp.parse_caps(peer.reply.private) == caps & CAP_LARGE_FRAMES
        if not caps & CAP_LARGE_FRAMES:
            assert len(peer.reply.private) == 40, "not what peers of ours that are older know"
        stag = door.grant.remote_token
        assert (peer.grant.token, peer.grant.iova, peer.grant.length) == (stag, IOVA, SIZE)
        longest = longest_response(peer, stag)
        assert longest > 60_000 if caps & CAP_LARGE_FRAMES else 1000 < longest < MSS


class Wire:
    """A listener in front of another, with short segments to both sides; notes what is said both ways."""

    def __init__(self, address):
        self.listener = far_socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1)
        self.listener.settimeout(10)
        self.address, self.said = address, [bytearray(), bytearray()]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with self.listener.accept()[0] as near, far_connection(self.address) as far:
            near.settimeout(10)
            pumps = [threading.Thread(target=self.pump, args=a) for a in ((near, far, 0), (far, near, 1))]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()

    def pump(self, source, sink, way):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.said[way] += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.thread.join(20)
        self.listener.close()

    def frames(self, way):
        """The private data of the handshake, and the lengths of the frames behind it."""
        said = bytes(self.said[way])
        at = 20 + struct.unpack(">H", said[18:20])[0]
        private, lengths = said[24:at], []
        while at + 2 <= len(said):
            lengths.append(struct.unpack(">H", said[at:at + 2])[0])
            at += (2 + lengths[-1] + 3 & ~3) + 4
        return private, lengths


@pytest.mark.parametrize("crc", ["", " --crc"], ids=["plain", "crc"])
def test_between_two_of_ours(own_nicd, crc):
    # mutation: agree, and only one of the two sends them
    options = ["--soft-options", "--fpdu mss" + crc]
    with contextlib.closing(Side(own_nicd(options=options), ALL)) as owner, \
            contextlib.closing(Side(own_nicd(options=options), LOCAL_WRITE)) as user:
        door = owner.session.export(owner.mr, "frames", ALL, uses=1, peers=1)
        place = locator.parse(door.locator)
        wire = Wire((place.host, place.port))
        qp = user.session.call(pb.ConnectQp(pd=ref(user.pd), locator=locator.build(*wire.listener.getsockname(), place.ticket),
                                            timeout_ms=5000)).qp
        assert qp.grant.remote_token == door.grant.remote_token
        entry = dict(qp=ref(qp), local_token=user.mr.local_token, local_addr=IOVA, remote_token=qp.grant.remote_token,
                     remote_addr=qp.grant.iova, length=SIZE)
        data = os.urandom(SIZE)
        user.buffer[0:SIZE] = data
        user.session.call(pb.Write(**entry))
        assert owner.buffer[0:SIZE] == data
        user.buffer[0:SIZE] = bytes(SIZE)
        user.session.call(pb.Read(**entry))
        assert user.buffer[0:SIZE] == data
    wire.close()
    said, lengths = wire.frames(0)
    assert said == hello(place.ticket, CAP_LARGE_FRAMES)
    assert max(lengths) > 60_000
    said, lengths = wire.frames(1)
    assert iwarp.parse_caps(said) == CAP_LARGE_FRAMES and len(said) <= 252
    assert max(lengths) > 60_000
