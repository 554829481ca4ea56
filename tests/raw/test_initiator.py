# SPDX-License-Identifier: MIT
"""nicd as the one that connects, to a peer that is not nicd and need not be honest: what it sends, and what it lets such a peer
do to its memory."""
import random
import socket
import struct
import threading
import time

import pytest

from nicdtest import iwarp, locator
from nicdtest.iwarp import Closed, Grant, Responder, fpdu, grant_private, hello, read_request_payload, tagged, untagged
from nicdtest.memory import Buffer, pattern
from nicdtest.pair import silent_listener
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_error, check_refused, ref, transfer_entries

SIZE, IOVA = 65536, 0x5_0000_0000_0000
GIVEN = Grant(0xabcd1234, REMOTE_READ | REMOTE_WRITE, 0x1000, 1 << 20, 77)
TICKET = bytes(range(16))
LOST = ("QP_LOST", "PEER_CLOSED", "REMOTE_TERMINATE", "REMOTE_TOKEN", "QP_STATE")


class User:
    """A session that connects to us."""

    def __init__(self, nicd, flags=LOCAL_WRITE):
        self.session = nicd.session(label="user")
        self.buffer = Buffer(SIZE, 1)
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, SIZE, flags, IOVA)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.qp = self.peer = None

    def close(self):
        self.session.close()
        self.buffer.close()
        self.listener.close()
        if self.peer:
            self.peer.close()

    def start(self, timeout_ms=3000):
        text = locator.build(*self.listener.getsockname(), TICKET)
        id_ = self.session.start(pb.ConnectQp(pd=ref(self.pd), locator=text, timeout_ms=timeout_ms))
        self.peer = Responder(self.listener)
        return id_

    def connect(self, **reply):
        id_ = self.start()
        self.peer.reply(grant_private(GIVEN), **reply)
        self.greet()
        self.qp = self.session.wait([id_])[0].qp
        assert self.qp.connected, self.qp
        return self

    def greet(self):
        """The initiator speaks first, even if it has nothing to say: a read of nothing, and its answer makes the connection."""
        sink, to, size, _, _ = self.peer.next_read_request()
        assert size == 0
        self.peer.respond(sink, to, b"")

    def read(self, n=4096, at=0, remote=0):
        return self.session.start(pb.Read(qp=ref(self.qp), local_token=self.mr.local_token, local_addr=IOVA + at,
                                          remote_token=GIVEN.token, remote_addr=GIVEN.iova + remote, length=n))

    def write(self, n=4096, at=0, remote=0):
        return self.session.start(pb.Write(qp=ref(self.qp), local_token=self.mr.local_token, local_addr=IOVA + at,
                                           remote_token=GIVEN.token, remote_addr=GIVEN.iova + remote, length=n))

    def reply(self, id_):
        return self.session.wait([id_])[0]


@pytest.fixture
def user(nicd):
    user = User(nicd)
    yield user
    user.close()


def test_the_request(user):
    # mutation: send the locator, or the ticket's hash, instead of the ticket; be connected as soon as the reply is there
    id_ = user.start()
    peer = user.peer
    assert peer.private == hello(TICKET, iwarp.CAP_LARGE_FRAMES)
    assert peer.word & 0xff == 2 and peer.word & iwarp.MPA_ENHANCED
    assert not peer.word & (iwarp.MPA_MARKERS | iwarp.MPA_REJECT)
    assert peer.ird & 0x3fff >= 1 and peer.ord & 0x3fff >= 1
    assert len(peer.private) <= 252 - 4
    peer.reply(grant_private(GIVEN))
    user.session.quiet(0.1)
    assert id_ not in user.session.replies, "connected before the peer has answered the first frame"
    user.greet()
    qp = user.reply(id_).qp
    g = qp.grant
    assert (g.remote_token, g.iova, g.length, g.flags, g.incarnation) == (GIVEN.token, GIVEN.iova, GIVEN.length, GIVEN.rights, 77)
    assert qp.peer == "127.0.0.1:%d" % user.listener.getsockname()[1]


@pytest.mark.parametrize("crc", [False, True])
def test_read_and_write(user, crc):
    # mutation: forget the CRC when the peer asks for it
    user.connect(flags=iwarp.MPA_CRC if crc else 0)
    peer = user.peer
    id_ = user.read(5000, 100, 700)
    sink, to, n, stag, source = peer.next_read_request()
    assert (n, stag, source) == (5000, GIVEN.token, GIVEN.iova + 700)
    data = pattern(5000, 9)
    peer.respond(sink, to, data, chunk=1000)
    assert user.reply(id_).completion.bytes == 5000
    assert user.buffer[100:5100] == data
    id_ = user.write(5000, 100, 50)
    got, at = b"", GIVEN.iova + 50
    while True:
        header = peer.next_frame()
        if header.opcode == iwarp.READ_REQUEST:
            break
        assert (header.opcode, header.stag, header.to) == (iwarp.WRITE, GIVEN.token, at + len(got))
        got += header.payload
    assert got == data
    assert id_ not in user.session.replies
    sink, to, n, _, _ = struct.unpack(">IQIIQ", header.payload)
    assert n == 0
    user.session.quiet(0.1)
    assert id_ not in user.session.replies, "a write was answered before the read behind it came back"
    peer.respond(sink, to, b"")
    assert user.reply(id_).completion.bytes == 5000


def test_sinks_are_drawn_per_read(user):
    # mutation: put the MR's local token on the wire as the sink
    user.connect()
    ids, sinks = [], []
    for i in range(40):
        ids.append(user.read(64, i * 64, 0))
        sinks.append(user.peer.next_read_request())
        user.peer.respond(sinks[-1][0], sinks[-1][1], bytes([i]) * 64)
        user.reply(ids[-1])
    stags = {s[0] for s in sinks}
    assert len(stags) == 40 and not stags & {0, user.mr.local_token, user.mr.remote_token}
    assert user.buffer[:40 * 64] == b"".join(bytes([i]) * 64 for i in range(40))
    ordered = sorted(stags)
    assert len({b - a for a, b in zip(ordered, ordered[1:])}) > 30, "drawn in steps"


def test_reads_within_the_granted_depth(user):
    # mutation: send all reads at once
    user.connect(ird=2, ord=2)
    entries = [(user.mr.local_token, GIVEN.token, IOVA + i * 16, GIVEN.iova, 16) for i in range(64)]
    id_ = user.session.start(pb.TransferList(qp=ref(user.qp), operation=0, entries=transfer_entries(entries)))
    for i in range(0, 64, 2):
        asked = [user.peer.next_read_request(), user.peer.next_read_request()]
        with pytest.raises(TimeoutError):
            user.peer.receive(1, 0.02)
        for sink, to, n, _, _ in asked:
            user.peer.respond(sink, to, bytes([i]) * n)
    assert user.reply(id_).completion.entries == 64


# ---- dishonest answers to reads

ATTACKS = {
    # name: (sink, to, n) -> frames
    "another stag": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s ^ 1, to, b"\xee" * n)),
    "stag 0": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, 0, to, b"\xee" * n)),
    "another place": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to + 1, b"\xee" * n)),
    "a place before": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to - 1, b"\xee" * n)),
    "a place far off": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to + (1 << 40), b"\xee" * n)),
    "a place that wraps": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, 2 ** 64 - 4, b"\xee" * n)),
    "one byte too many": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to, b"\xee" * (n + 1))),
    "one byte too few": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to, b"\xee" * (n - 1))),
    "nothing": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to, b"")),
    "too many in a second frame": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to, b"\xee" * n, last=False)) +
    fpdu(tagged(iwarp.READ_RESPONSE, s, to + n, b"\xee" * 8)),
    "a hole": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to, b"\xee" * 8, last=False)) +
    fpdu(tagged(iwarp.READ_RESPONSE, s, to + 16, b"\xee" * (n - 16))),
    "a write to the sink": lambda s, to, n: fpdu(tagged(iwarp.WRITE, s, to, b"\xee" * n)),
    "a write behind the sink": lambda s, to, n: fpdu(tagged(iwarp.WRITE, s, to + n, b"\xee" * n)),
    "a read of the sink": lambda s, to, n: fpdu(untagged(iwarp.READ_REQUEST, 1, 1, read_request_payload(1, 0, n, s, to))),
    "send": lambda s, to, n: fpdu(untagged(iwarp.SEND, 0, 1, b"\xee" * n)),
    "send with invalidate": lambda s, to, n: fpdu(untagged(iwarp.SEND_INVALIDATE, 0, 1, b"", reserved=s)),
    "an untagged response": lambda s, to, n: fpdu(untagged(iwarp.READ_RESPONSE, 0, 1, b"\xee" * n)),
    "garbage": lambda s, to, n: b"\xee" * 3000,
    "half a frame": lambda s, to, n: fpdu(tagged(iwarp.READ_RESPONSE, s, to, b"\xee" * n))[:50],
    "the end": lambda s, to, n: b"",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_dishonest_responses(user, name):
    # mutation: look the sink up like any tag; take the response's length or place for the request's
    user.connect()
    id_ = user.read(4096, 8192)
    sink, to, n, _, _ = user.peer.next_read_request()
    user.peer.send(ATTACKS[name](sink, to, n))
    try:
        user.peer.sock.shutdown(socket.SHUT_WR)
        user.peer.wait_terminate()
    except (Closed, OSError):
        pass
    reply = user.reply(id_)
    check_refused(reply, LOST)
    assert reply.completion.bytes == 0 and reply.completion.entries == 0
    outside = pattern(SIZE, 1)
    assert user.buffer[:8192] == outside[:8192] and user.buffer[12288:] == outside[12288:], "bytes outside the sink were changed"
    if name in ("another stag", "stag 0", "another place", "a write to the sink", "a write behind the sink", "send", "garbage",
                "a place before", "a place far off", "a place that wraps", "one byte too many"):
        assert user.buffer.bytes() == outside
    user.session.wait_event(pb.Event.DISCONNECTED, user.qp.serial)
    user.session.create_pd()


@pytest.mark.parametrize("sizes", [[1], [4096], [100, 100], [60000, 60000, 3]])
@pytest.mark.parametrize("crc", [False, True])
def test_more_than_nothing_for_nothing(user, sizes, crc):
    """siw answers a read of nothing with as many bytes as the read before it wanted. They go nowhere, and what follows is right."""
    # mutation: terminate such a stream; place such bytes; count them as read
    user.connect(flags=iwarp.MPA_CRC if crc else 0)
    write = user.write(100)
    while (header := user.peer.next_frame()).opcode == iwarp.WRITE:
        pass
    read = user.read(5000, 100)
    sink, to, n, _, _ = struct.unpack(">IQIIQ", header.payload)
    assert n == 0
    for i, size in enumerate(sizes):
        user.peer.send_ulpdu(tagged(iwarp.READ_RESPONSE, sink, to, b"\xee" * size, last=i == len(sizes) - 1))
        to += size
    assert user.reply(write).completion.bytes == 100
    assert user.buffer.bytes() == pattern(SIZE, 1)
    sink, to, n, _, _ = user.peer.next_read_request()
    user.peer.respond(sink, to, pattern(5000, 9))
    assert user.reply(read).completion.bytes == 5000
    assert user.buffer.bytes() == pattern(SIZE, 1)[:100] + pattern(5000, 9) + pattern(SIZE, 1)[5100:]
    assert user.session.query_qp(user.qp).bytes_read == 5000


def test_a_peer_that_missed_the_first_frame(user):
    """siw may not look at what comes right behind its reply until more comes."""
    # mutation: send the first frame and nothing more; knock with something that names a token
    id_ = user.start(20000)
    user.peer.reply(grant_private(GIVEN))
    sink, to, size, _, _ = user.peer.next_read_request()
    for _ in range(2):
        knock = user.peer.next_frame()
        assert (knock.opcode, knock.stag, knock.to, knock.payload, knock.last) == (iwarp.WRITE, 0, 0, b"", True)
    user.peer.respond(sink, to, b"")
    assert user.reply(id_).qp.connected


def test_a_sink_dies_with_its_read(user):
    # mutation: leave the sink's STag valid until the stream ends
    user.connect()
    id_ = user.read(4096)
    sink, to, n, _, _ = user.peer.next_read_request()
    user.peer.respond(sink, to, b"\x22" * n)
    user.reply(id_)
    user.peer.send_ulpdu(tagged(iwarp.READ_RESPONSE, sink, to, b"\xee" * n))
    assert user.peer.wait_terminate() is not None
    assert user.buffer[:4096] == b"\x22" * 4096


def test_responses_out_of_order(user):
    # mutation: find the read by its sink and take any
    user.connect()
    ids = [user.read(64, i * 64) for i in range(2)]
    first, second = user.peer.next_read_request(), user.peer.next_read_request()
    user.peer.respond(second[0], second[1], b"\xee" * 64)
    user.peer.wait_terminate()
    for id_ in ids:
        check_refused(user.reply(id_), LOST)
    assert user.buffer.bytes() == pattern(SIZE, 1)
    assert first


@pytest.mark.parametrize("flags", [LOCAL_WRITE, LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE])
@pytest.mark.parametrize("kind", ["local", "remote"])
@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_peer_that_we_called_has_no_rights_here(nicd, flags, kind, operation):
    # mutation: give an outbound stream the scope of its PD for inbound work too... for a peer's local token at least
    user = User(nicd, flags)
    try:
        user.connect()
        token = user.mr.local_token if kind == "local" else user.mr.remote_token
        if operation == "write":
            user.peer.send_ulpdu(tagged(iwarp.WRITE, token, IOVA, b"\xee" * 64))
        else:
            user.peer.send_ulpdu(untagged(iwarp.READ_REQUEST, 1, 1, read_request_payload(1, 0, 64, token, IOVA)))
        try:
            header = user.peer.next_frame(3)
        except (iwarp.Terminated, Closed):
            pass
        else:
            raise AssertionError(f"answered {header}")
        assert user.buffer.bytes() == pattern(SIZE, 1)
    finally:
        user.close()


# ---- dishonest answers to the handshake

REPLIES = {
    "reject": dict(flags=iwarp.MPA_REJECT),
    "wrong key": dict(key=b"MPA ID Rep Framf"),
    "the request's key": dict(key=iwarp.REQUEST_KEY),
    "revision 0": dict(revision=0),
    "revision 3": dict(revision=3),
    "markers": dict(flags=iwarp.MPA_MARKERS),
    "PD_Length 65535": dict(pd_length=65535),
    "PD_Length 3": dict(pd_length=3),
    "no private data": dict(private=b""),
    "another magic": dict(private=b"nicx" + grant_private(GIVEN)[4:]),
    "half a grant": dict(private=grant_private(GIVEN)[:20]),
    "garbage": None,
    "half a reply": b"MPA ID Rep",
    "nothing": b"",
}


def test_dishonest_handshakes(user):
    # mutation: trust any reply; tell which failure it was; answer before the deadline
    ids, peers = {}, []
    for name, how in REPLIES.items():
        ids[name] = user.start(timeout_ms=1500)
        peer = user.peer
        peers.append(peer)
        if isinstance(how, dict):
            private = how.pop("private", grant_private(GIVEN))
            peer.reply(private, **how)
            try:
                user.greet()
            except (Closed, AssertionError):
                pass   # it has seen through us
        else:
            peer.send(random.Random(1).randbytes(200) if how is None else how)
            if how == b"":
                peer.sock.shutdown(socket.SHUT_WR)
    answers = {name: user.reply(id_) for name, id_ in ids.items()}
    odd = {n: a for n, a in answers.items() if not a.HasField("error")}
    # Whose private data is no grant of ours may still be a peer (any RDMA program can be one), and gives nothing.
    assert set(odd) <= {"no private data", "another magic", "half a grant"}, odd
    assert all(a.qp.grant == pb.Grant() for a in odd.values())
    assert len({a.error.SerializeToString() for a in answers.values() if a.HasField("error")}) == 1
    for a in answers.values():
        if a.HasField("error"):
            check_error(a.error, "CONNECT")
    for peer in peers:
        peer.close()


def test_frames_right_behind_the_reply(user):
    # mutation: drop what came in the same packet as the reply
    id_ = user.start()
    reply = grant_private(GIVEN)
    head = iwarp.REPLY_KEY + struct.pack(">HH", iwarp.MPA_ENHANCED | 2, len(reply) + 4) + struct.pack(">HH", 16, 16) + reply
    user.peer.crc = False
    # The responder may send nothing before the initiator's first frame: being early is a fault of its own.
    user.peer.send(head + fpdu(tagged(iwarp.WRITE, 0xbad, 0, b"\xee" * 10)))
    answer = user.reply(id_)
    if not answer.HasField("error"):
        user.session.wait_event(pb.Event.DISCONNECTED, answer.qp.serial)
    assert user.buffer.bytes() == pattern(SIZE, 1)


# ---- terminates

TERMINATES = {
    "stag": (iwarp.RDMAP_BAD_STAG, "REMOTE_TOKEN"),
    "bounds": (iwarp.RDMAP_BOUNDS, "REMOTE_RANGE"),
    "rights": (iwarp.RDMAP_RIGHTS, "REMOTE_RIGHTS"),
    "catastrophic": ((0, 0, 0), "REMOTE_TERMINATE"),
    "crc": (iwarp.MPA_CRC_ERROR, "REMOTE_TERMINATE"),
    "nonsense": ((15, 15, 255), "REMOTE_TERMINATE"),
}


def terminate(code, headers=b"", bits=0, siw=False):
    layer, kind, number = code
    if siw:   # the kernel driver's bit fields: layer in the low nibble, M, D, R in the low bits
        word = bytes([kind << 4 | layer, number, 0x07 if headers else 0, 0])
    else:
        word = bytes([layer << 4 | kind, number, bits, 0])
    return fpdu(untagged(iwarp.TERMINATE, iwarp.QN_TERMINATE, 1, word + headers))


@pytest.mark.parametrize("name, siw", [(name, siw) for name in TERMINATES for siw in (False, True)
                                       if not (siw and name == "nonsense")])   # the same in both orders
def test_terminates_name_the_read(user, name, siw):
    # mutation: say that the first read failed; take the bits in one order only
    code, reason = TERMINATES[name]
    user.connect()
    entries = [(user.mr.local_token, GIVEN.token, IOVA + i * 64, GIVEN.iova + i * 64, 64) for i in range(10)]
    id_ = user.session.start(pb.TransferList(qp=ref(user.qp), operation=0, entries=transfer_entries(entries)))
    asked = [user.peer.next_read_request() for _ in range(10)]
    for sink, to, n, _, _ in asked[:4]:
        user.peer.respond(sink, to, b"\x33" * n)
    payload = read_request_payload(*asked[4])
    ddp = struct.pack(">BBIIII", 0x41, 0x41, 0, 1, 6, 0)   # MSN 1 was the first frame
    user.peer.send(terminate(code, struct.pack(">H", 46) + ddp + payload, 0xe0, siw))
    user.peer.sock.shutdown(socket.SHUT_WR)
    reply = user.reply(id_)
    names = (reason,) if not siw else (reason, "REMOTE_TERMINATE")
    check_refused(reply, names)
    assert reply.completion.entries == 4 and reply.completion.failed == 4
    assert user.buffer[:256] == b"\x33" * 256 and user.buffer[256:] == pattern(SIZE, 1)[256:]


@pytest.mark.parametrize("payload", [b"", b"\0", b"\x01\x00\xe0", b"\x01\x00\xe0\x00", b"\x01\x00\xe0\x00" + bytes(5),
                                     b"\x01\x00\xff\xff" + b"\xff" * 60, b"\x01\x00\xe0\x00\x00\x2e" + b"\xc1" * 14])
def test_terminates_that_are_cut(user, payload):
    # mutation: read the copied headers without looking at the length
    user.connect()
    id_ = user.read(64)
    user.peer.next_read_request()
    user.peer.send_ulpdu(untagged(iwarp.TERMINATE, iwarp.QN_TERMINATE, 1, payload))
    user.peer.sock.shutdown(socket.SHUT_WR)
    check_refused(user.reply(id_), LOST)


def test_terminates_that_name_what_was_never_sent(user):
    # mutation: index the posted reads by the Terminate's numbers
    user.connect()
    id_ = user.read(64)
    user.peer.next_read_request()
    ddp = struct.pack(">BBIIII", 0x41, 0x41, 0, 1, 0xffffffff, 0)
    user.peer.send(terminate(iwarp.RDMAP_BAD_STAG, struct.pack(">H", 46) + ddp + read_request_payload(1, 2, 3, 4, 5), 0xe0))
    user.peer.sock.shutdown(socket.SHUT_WR)
    reply = user.reply(id_)
    check_refused(reply, LOST)
    assert reply.completion.failed == 0


# ---- a peer that stops

def test_a_peer_that_does_not_answer(user):
    # mutation: wait for a peer when the Qp is closed
    user.connect()
    ids = [user.read(4096), user.write(4096)]
    started = time.monotonic()
    close = user.session.start(pb.Close(object=ref(user.qp)))
    for reply in user.session.wait(ids):
        check_refused(reply, "FLUSHED")
    user.session.wait([close])
    assert time.monotonic() - started < 5


def test_a_peer_that_does_not_read(user):
    # mutation: block in the send of one stream
    with Buffer(16 << 20, 3) as big, silent_listener():
        mr = user.session.region(user.pd, big.fd, 16 << 20, LOCAL_WRITE, IOVA * 2)
        user.connect()
        ids = [user.session.start(pb.Write(qp=ref(user.qp), local_token=mr.local_token, local_addr=mr.iova,
                                           remote_token=GIVEN.token, remote_addr=GIVEN.iova, length=16 << 20)) for _ in range(3)]
        started = time.monotonic()
        for _ in range(10):
            user.session.call(pb.GetLocalToken(mr=ref(mr)))
        assert time.monotonic() - started < 2
        receipt = user.session.deregister(mr)   # must not wait for the peer either
        assert receipt.serial == mr.serial and time.monotonic() - started < 5
        for reply in user.session.wait(ids):
            check_refused(reply, LOST + ("LOCAL_GONE", "LOCAL_TOKEN", "FLUSHED"))


def test_both_write_and_nobody_reads_first(nicd, user):
    # mutation: stop reading while something waits to be sent: two such peers stand still for ever
    size = 8 << 20
    with Buffer(size, 4) as big:
        mr = user.session.region(user.pd, big.fd, size, LOCAL_WRITE, IOVA * 2)
        user.connect()
        id_ = user.session.start(pb.TransferList(qp=ref(user.qp), operation=0, entries=transfer_entries(
            [(mr.local_token, GIVEN.token, mr.iova, GIVEN.iova, size // 2)])))
        sink, to, n, _, _ = user.peer.next_read_request()
        write = user.session.start(pb.Write(qp=ref(user.qp), local_token=mr.local_token, local_addr=mr.iova + size // 2,
                                            remote_token=GIVEN.token, remote_addr=GIVEN.iova, length=size // 2))
        answer = threading.Thread(target=user.peer.respond, args=(sink, to, pattern(n, 5)), kwargs={"chunk": 60000})
        answer.start()
        assert user.session.wait([id_])[0].completion.bytes == n   # although we have read nothing of the write yet
        answer.join()
        assert big[:size // 2] == pattern(n, 5)
        got = 0
        while got < size // 2:
            got += len(user.peer.next_frame().payload)
        sink, to, n, _, _ = user.peer.next_read_request()
        user.peer.respond(sink, to, b"")
        assert user.session.wait([write])[0].completion.bytes == size // 2
