# SPDX-License-Identifier: MIT
"""Messages between nicd and a peer that is not nicd: what it sends and what it takes, and messages that break a rule."""
import socket

import pytest

from nicdtest import iwarp, locator
from nicdtest.daemon import wait_until
from nicdtest.iwarp import SEND, SEND_INVALIDATE, SEND_SE, SEND_SE_INVALIDATE, Grant, Peer, Responder, grant_private, hello, untagged
from nicdtest.pair import ALL, Side
from nicdtest.pb import LOCAL_WRITE, pb
from nicdtest.wire import check_refused, ref

SIZE, IOVA = 65536, 0x3_0000_0000_0000
GIVEN = Grant(1, 3, 4096, 4096, 7)


@pytest.fixture
def owner(nicd):
    owner = Side(nicd, SIZE, ALL, IOVA, 1, "owner")
    yield owner
    owner.close()


class User(Side):
    """Connects to us."""

    def __init__(self, nicd):
        super().__init__(nicd, SIZE, LOCAL_WRITE, IOVA, 1, "user")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.peer = None

    def close(self):
        super().close()
        self.listener.close()
        if self.peer:
            self.peer.close()

    def start(self):
        text = locator.build(*self.listener.getsockname(), bytes(range(16)))
        id_ = self.session.start(pb.ConnectQp(pd=ref(self.pd), locator=text, timeout_ms=5000))
        self.peer = Responder(self.listener)
        return id_

    def connect(self, flags=0):
        id_ = self.start()
        self.peer.reply(grant_private(GIVEN), flags=flags)
        sink, to, _, _, _ = self.peer.next_read_request()
        self.peer.respond(sink, to, b"")
        self.qp = reply(self.session, id_).qp


@pytest.fixture
def user(nicd):
    user = User(nicd)
    yield user
    user.close()


def new_door(owner):
    return owner.session.export(owner.mr, "raw", ALL, uses=20, peers=4)


def come_in(owner, door=None, **kw):
    """A peer that is inside, and the owner's Qp to it."""
    place = locator.parse((door or new_door(owner)).locator)
    peer = Peer((place.host, place.port), hello(place.ticket), **kw)
    peer.flush()
    serial = owner.session.wait_event(pb.Event.CONNECTED).serial
    return peer, owner.session.call(pb.QueryQp(serial=serial)).qp


def receive(owner, qp, at=0, length=10000):
    return owner.session.start(pb.Receive(qp=ref(qp), local_token=owner.mr.local_token, local_addr=IOVA + at, length=length))


def reply(session, id_):
    return session.wait([id_])[0]


# ---- a stranger sends

@pytest.mark.parametrize("crc", [False, True])
def test_received_from_a_stranger(owner, crc):
    # mutation: place by the segment's number instead of its offset
    peer, qp = come_in(owner, crc=crc)
    with peer:
        for n, chunk, opcode in ((0, 10, SEND), (1, 10, SEND_SE), (5000, 7, SEND), (5000, 8192, SEND_SE), (9999, 1000, SEND)):
            id_ = receive(owner, qp, 50)
            data = bytes(i * 7 & 0xff for i in range(n))
            peer.send_message(data, opcode, chunk=chunk)
            got = reply(owner.session, id_).completion
            assert (got.bytes, got.solicited, got.invalidated) == (n, opcode == SEND_SE, False)
            assert owner.buffer[50:50 + n] == data
        # The stream carries everything else as before.
        peer.write(peer.grant.token, IOVA, b"written")
        assert peer.read(peer.grant.token, IOVA, 7) == b"written"


def test_notices_from_a_stranger(owner):
    # mutation: take every Send with solicited event for a notice
    peer, qp = come_in(owner)
    with peer:
        peer.write(peer.grant.token, IOVA, b"data")
        peer.send_message(b"", SEND_SE)
        event = owner.session.wait_event(pb.Event.NOTIFIED, qp.serial)
        assert event.count == 1 and owner.buffer[:4] == b"data"
        # A flood of them is one event with a number, and others are served meanwhile.
        for _ in range(3000):
            peer.messages_out += 1
            peer.send_ulpdu(untagged(SEND_SE, 0, peer.messages_out))
        peer.flush()
        assert wait_until(lambda: (owner.session.quiet(0.05), owner.session.events[-1].count == 3001)[-1])
        assert len(owner.session.events) < 1000


@pytest.mark.parametrize("opcode", [SEND_INVALIDATE, SEND_SE_INVALIDATE])
def test_invalidation_by_a_stranger(owner, opcode):
    # mutation: drop the tag of a normal MR because a peer says so
    door = new_door(owner)
    for token in (door.grant.remote_token, owner.mr.remote_token, owner.mr.local_token, 0, 0xdeadbeef):
        peer, qp = come_in(owner, door=door)
        with peer:
            id_ = receive(owner, qp)
            peer.send_message(b"bye", opcode, invalidate=token)
            assert peer.wait_terminate() == (0, 1, 9)
        check_refused(reply(owner.session, id_), "QP_LOST")
        owner.session.wait_event(pb.Event.DISCONNECTED, qp.serial)
    with come_in(owner, door)[0] as peer:
        assert peer.read(peer.grant.token, IOVA, 10) == owner.buffer[:10]


BROKEN = {
    "MSN 2": ([untagged(SEND, 0, 2, b"x")], iwarp.DDP_BAD_MSN),
    "MSN twice": ([untagged(SEND, 0, 1, b"x"), untagged(SEND, 0, 1, b"x")], iwarp.DDP_BAD_MSN),
    "an offset": ([untagged(SEND, 0, 1, b"x", mo=1)], iwarp.DDP_BAD_MO),
    "a hole": ([untagged(SEND, 0, 1, b"xy", last=False), untagged(SEND, 0, 1, b"x", mo=3)], iwarp.DDP_BAD_MO),
    "back again": ([untagged(SEND, 0, 1, b"xy", last=False), untagged(SEND, 0, 1, b"x", mo=1)], iwarp.DDP_BAD_MO),
    "an offset that wraps": ([untagged(SEND, 0, 1, b"xy", mo=2 ** 32 - 1)], iwarp.DDP_BAD_MO),
    "another message": ([untagged(SEND, 0, 1, b"xy", last=False), untagged(SEND, 0, 2, b"x")], iwarp.DDP_BAD_MSN),
    "another kind": ([untagged(SEND, 0, 1, b"xy", last=False), untagged(SEND_SE, 0, 1, b"x", mo=2)], iwarp.RDMAP_OPCODE),
    "a notice amid it": ([untagged(SEND, 0, 1, b"xy", last=False), untagged(SEND_SE, 0, 2)], iwarp.RDMAP_OPCODE),
    "a write amid it": ([untagged(SEND, 0, 1, b"xy", last=False), iwarp.tagged(iwarp.WRITE, 1, 0)], iwarp.RDMAP_OPCODE),
    "a read amid it": ([untagged(SEND, 0, 1, b"xy", last=False), untagged(iwarp.READ_REQUEST, 1, 2, bytes(28))], iwarp.RDMAP_OPCODE),
    "nothing, for ever": ([untagged(SEND, 0, 1, b"", last=False)], (1, 0, 0)),
    "too long": ([untagged(SEND, 0, 1, bytes(10001))], iwarp.DDP_TOO_LONG),
    "too long in two": ([untagged(SEND, 0, 1, bytes(10000), last=False), untagged(SEND, 0, 1, b"x", mo=10000)], iwarp.DDP_TOO_LONG),
    "queue 1": ([untagged(SEND, 1, 1, b"x")], iwarp.RDMAP_OPCODE),
    "no receive": ([untagged(SEND, 0, 1, b"x"), untagged(SEND, 0, 2, b"x")], iwarp.DDP_NO_BUFFER),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_messages(owner, name):
    # mutation: leave out the check of MSN, offset, length, or of what comes in between
    frames, code = BROKEN[name]
    before = owner.buffer.bytes()
    peer, qp = come_in(owner)
    with peer:
        id_ = receive(owner, qp)
        for frame in frames:
            peer.send_ulpdu(frame)
        assert peer.wait_terminate() == code
        owner.session.wait([id_])
    assert owner.buffer[10000:] == before[10000:]


def test_broken_off(owner):
    """A peer that goes in the middle of a message."""
    peer, qp = come_in(owner)
    with peer:
        id_ = receive(owner, qp)
        peer.send_ulpdu(untagged(SEND, 0, 1, b"half", last=False))
    check_refused(reply(owner.session, id_), "QP_LOST")


# ---- nicd sends to a stranger

def post(user, kind, n, **kw):
    return user.session.start(kind(qp=ref(user.qp), local_token=user.mr.local_token, local_addr=IOVA, length=n, **kw))


@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize("n", [0, 1, 100, 65000])
def test_sent_to_a_stranger(user, crc, n):
    # mutation: the read that confirms before the message; no number for the second one
    user.connect(flags=iwarp.MPA_CRC if crc else 0)
    terms = ((0, 0, SEND), (pb.OP_SEND_AND_SOLICIT_EVENT, 0, SEND_SE), (0, 0x01020304, SEND_INVALIDATE),
             (pb.OP_SEND_AND_SOLICIT_EVENT, 0x01020304, SEND_SE_INVALIDATE))
    for flags, invalidate, opcode in terms:
        id_ = post(user, pb.Send, n, flags=flags, invalidate_token=invalidate)
        assert user.peer.next_message() == (opcode, invalidate, user.buffer[:n])
        sink, to, size, _, _ = user.peer.next_read_request()
        assert size == 0
        user.session.quiet(0.05)
        # mutation: answer when it is sent
        assert id_ in user.session.in_flight
        user.peer.respond(sink, to, b"")
        assert reply(user.session, id_).completion.bytes == n


def test_notify_to_a_stranger(user):
    """On the wire: the data, an empty Send with Solicited Event, the empty read."""
    user.connect()
    id_ = user.session.start(pb.Write(qp=ref(user.qp), local_token=user.mr.local_token, local_addr=IOVA, remote_token=5,
                                      remote_addr=77, length=1000, flags=pb.OP_NOTIFY))
    header = user.peer.next_frame()
    assert (header.opcode, header.stag, header.to, header.payload) == (iwarp.WRITE, 5, 77, user.buffer[:1000])
    assert user.peer.next_message() == (SEND_SE, 0, b"")
    sink, to, size, _, _ = user.peer.next_read_request()
    user.peer.respond(sink, to, b"")
    assert reply(user.session, id_).completion.bytes == 1000


@pytest.mark.parametrize("code, reason", [((1, 2, 2), "NO_RECEIVE"), ((1, 2, 5), "REMOTE_RECEIVE"), ((0, 1, 9), "REMOTE_INVALIDATE"),
                                          ((0, 2, 9), "REMOTE_INVALIDATE"), ((1, 2, 3), "REMOTE_TERMINATE")])
def test_what_a_stranger_refuses(user, code, reason):
    user.connect()
    first = user.session.start(pb.Write(qp=ref(user.qp), local_token=user.mr.local_token, local_addr=IOVA, remote_token=5,
                                        remote_addr=77, length=100))
    assert user.peer.next_frame().opcode == iwarp.WRITE
    sink, to, _, _, _ = user.peer.next_read_request()
    id_ = post(user, pb.Send, 100)
    header = untagged(SEND, 0, 1)
    user.peer.next_message()
    user.peer.respond(sink, to, b"")
    word = code[0] << 28 | code[1] << 24 | code[2] << 16 | 0xc000
    user.peer.send_ulpdu(untagged(iwarp.TERMINATE, 2, 1, word.to_bytes(4, "big") + (118).to_bytes(2, "big") + header))
    assert not reply(user.session, first).HasField("error")
    failed = reply(user.session, id_)
    # mutation: blame the first one there is
    check_refused(failed, reason)
    assert not failed.completion.inexact


def test_sent_by_a_responder_before_its_first_answer(user):
    """A peer that has our first frame may send at once; what it sends waits until there is somebody to receive it."""
    # mutation: read nothing until the answer has come, or connected only then
    id_ = user.start()
    user.peer.reply(grant_private(GIVEN))
    sink, to, _, _, _ = user.peer.next_read_request()
    user.peer.send_message(b"early")
    user.peer.respond(sink, to, b"")
    user.qp = reply(user.session, id_).qp
    got = reply(user.session, post(user, pb.Receive, 100))
    assert got.completion.bytes == 5 and user.buffer[:5] == b"early"
