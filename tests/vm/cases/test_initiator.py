# SPDX-License-Identifier: MIT
"""nicd connects to a librdmacm program on the kernel's device, which takes our ticket and gives a grant as nicd would: nicd as the
initiator. libnicd is played by the tests' own session; once by nicctl."""
import os
import subprocess

import pytest

from nicdtest import iwarp, locator
from nicdtest.daemon import wait_until
from nicdtest.link import HERE
from nicdtest.memory import Buffer, pattern
from nicdtest.paths import BUILD
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_refused, ref, transfer_entries

IOVA = 0x5_0000_0000_0000
SIZE = 65536
BIG = 8 << 20
OUR_DEPTH = 64
READ, WRITE = pb.TransferList.READ, pb.TransferList.WRITE
TICKET = bytes(range(16))
SIZES = {
    "tiny": (0, 1, 3), "page": (4095, 4096, 4097), "segment": (1427, 1428, 1429, 1447, 1448, 1449), "64K": (65535, 65536, 65537),
    "1M": (1 << 20,), "8M": (BIG - 3,),
}
SOME_SIZES = (1, 4097, 65537, 1 << 19)


class User:
    """A session of nicd with a registered buffer, and a server of the kernel's that it connects to."""

    def __init__(self, nicd, server, size):
        self.session = nicd.session(label="user")
        self.nicd = nicd
        self.buffer = Buffer(size, 1)
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, size, LOCAL_WRITE, IOVA)
        self.server = server
        self.qp = self.requested = self.grant = None

    def close(self):
        self.session.close()
        self.buffer.close()

    def start(self, timeout_ms=20000):
        """Calls the server, which has the request then."""
        text = locator.build(HERE, self.server.listen(HERE), TICKET)
        id_ = self.session.start(pb.ConnectQp(pd=ref(self.pd), locator=text, timeout_ms=timeout_ms))
        self.requested = self.server.request()
        self.grant = iwarp.Grant(self.server.rkey, REMOTE_READ | REMOTE_WRITE, self.server.address, self.server.size, 7)
        return id_

    def connect(self, **terms):
        id_ = self.start()
        self.server.accept(iwarp.grant_private(self.grant), **{"ird": 64, "ord": 0, **terms})
        self.qp = self.reply(id_).qp
        assert self.qp.connected and self.qp.grant.remote_token == self.server.rkey
        return self

    def reply(self, id_):
        return self.session.wait([id_], 40.0)[0]

    def transfer(self, operation, *entries):
        """[(here, there, length)…], or with a token as the fourth: the reply."""
        whole = [(self.mr.local_token, e[3] if len(e) > 3 else self.grant.token, IOVA + e[0], self.grant.iova + e[1], e[2])
                 for e in entries]
        return self.reply(self.session.start(pb.TransferList(qp=ref(self.qp), operation=operation, entries=transfer_entries(whole))))

    def read(self, *entries):
        return self.transfer(READ, *entries)

    def write(self, *entries):
        return self.transfer(WRITE, *entries)


@pytest.fixture
def user(daemons, verbs_peer):
    made = []

    def make(soft_options="", size=SIZE):
        made.append(User(daemons.get(soft_options), verbs_peer(size), size))
        return made[-1]

    yield make
    for user in made:
        user.close()


def check_transfer(user, size, here, there):
    """Reads, writes other bytes, and that is there when the answer is: exactly these bytes change, on both sides."""
    mine, theirs = bytearray(user.buffer.bytes()), bytearray(user.server.memory.bytes())
    assert user.read((here, there, size)).completion.bytes == size
    mine[here:here + size] = theirs[there:there + size]
    assert user.buffer.bytes() == mine
    new = pattern(size, size % 97 + here % 13 + 5)
    user.buffer[here:here + size] = new
    mine[here:here + size] = new
    assert user.write((here, there, size)).completion.bytes == size
    theirs[there:there + size] = new
    assert user.server.memory.bytes() == theirs
    assert user.buffer.bytes() == mine


def check_sizes(user, soft_options, sizes, places):
    u = user(soft_options, max(sizes) + 4200).connect()
    for size in sizes:
        for here, there in places:
            check_transfer(u, size, here, there)


# ---- transfers

def test_connects(user):
    # mutation: send the hash of the ticket; ask for no reads
    u = user()
    id_ = u.start()
    assert u.requested.private == iwarp.hello(TICKET, iwarp.CAP_LARGE_FRAMES)
    # The device's own ORD is what we can answer, and the other way round.
    assert (u.requested.ird, u.requested.ord) == (OUR_DEPTH, OUR_DEPTH)
    u.server.accept(iwarp.grant_private(u.grant), ird=64, ord=64)
    qp = u.reply(id_).qp
    assert qp.connected
    assert (qp.grant.iova, qp.grant.length, qp.grant.incarnation) == (u.server.address, SIZE, 7)


@pytest.mark.parametrize("soft_options", ["", "--crc"], ids=["plain", "crc"])
@pytest.mark.parametrize("name", SIZES)
def test_transfers(user, name, soft_options):
    # mutation: answer a write before the read behind it has come back; leave the last byte out
    small = max(SIZES[name]) < 1 << 20
    check_sizes(user, soft_options, SIZES[name], ((0, 0), (1, 2), (4093, 77)) if small else ((3, 1),))


@pytest.mark.parametrize("soft_options", ["--fpdu 1448", "--fpdu 65535", "--fpdu 65535 --crc", "--fpdu 128"])
def test_frames_of_every_size_from_us(user, soft_options):
    # mutation: set Last on the wrong frame
    check_sizes(user, soft_options, SOME_SIZES, ((5, 3),))


@pytest.mark.parametrize("soft_options", ["", "--crc"], ids=["plain", "crc"])
def test_frames_of_64k_from_the_peer(user, large_mtu, soft_options):
    # mutation: want a Read Response in one FPDU
    check_sizes(user, soft_options, SOME_SIZES, ((5, 3),))


@pytest.mark.parametrize("granted", [0, 64, 128])
def test_depth_of_reads(user, granted):
    """siw raises a smaller number to what we ask for, so this many are under way in all cases."""
    # mutation: have more reads in flight than the peer grants (siw terminates the stream then)
    u = user().connect(ird=granted)
    entries = [(i * 256, SIZE - 256 - i * 256, 251) for i in range(200)]
    assert u.read(*entries).completion.entries == 200
    for here, there, n in entries:
        assert u.buffer[here:here + n] == u.server.memory[there:there + n]


def test_lists_of_both_kinds_at_once(user):
    u = user(size=1 << 20).connect()
    whole = bytearray(u.server.memory.bytes())
    started = []
    for i in range(16):
        at = i * 32768
        for operation, here in ((READ, at), (WRITE, (1 << 19) + at)):
            entries = transfer_entries([(u.mr.local_token, u.grant.token, IOVA + here + j * 4096, u.grant.iova + here + j * 4096, 4095)
                                        for j in range(8)])
            started.append(u.session.start(pb.TransferList(qp=ref(u.qp), operation=operation, entries=entries)))
    for reply in u.session.wait(started, 40.0):
        assert reply.completion.entries == 8
    for i in range(128):
        assert u.buffer[i * 4096:i * 4096 + 4095] == whole[i * 4096:i * 4096 + 4095]
        at = (1 << 19) + i * 4096
        assert u.server.memory[at:at + 4095] == u.buffer[at:at + 4095]


def test_nicctl_gets_and_puts(user):
    u = user()
    text = locator.build(HERE, u.server.listen(HERE), TICKET)
    results = []
    for command, data in ((("get", "-"), None), (("put", "-", "FILE"), pattern(SIZE, 77))):
        file = u.nicd.directory / "FILE"
        file.write_bytes(data or b"")
        words = [str(file) if w == "FILE" else w for w in command]
        nicctl = subprocess.Popen([BUILD / "client" / "nicctl", *words, "--socket", u.nicd.socket], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        nicctl.stdin.write(text.encode() + b"\n")
        nicctl.stdin.flush()
        u.server.request()
        u.server.accept(iwarp.grant_private(iwarp.Grant(u.server.rkey, REMOTE_READ | REMOTE_WRITE, u.server.address, SIZE, 7)), ird=16)
        before = u.server.memory.bytes()
        results.append(nicctl.communicate(timeout=40)[0])
        assert nicctl.returncode == 0
        u.server.await_disconnected()
        if data is None:
            assert results[0] == before
        else:
            assert u.server.memory.bytes() == data
        file.unlink()


# ---- what the peer may answer

def check_no_connection(user, id_):
    check_refused(user.reply(id_), "CONNECT")
    assert not user.session.list(pb.QP)


@pytest.mark.parametrize("private", [b"", b"no", bytes(148)], ids=["silent", "no", "148"])
def test_reject(user, private):
    # mutation: take a reply with the R bit for an accept
    u = user()
    id_ = u.start(2000)
    u.server.reject(private)
    check_no_connection(u, id_)


@pytest.mark.parametrize("length", [40, 41, 196, 251])
def test_private_data(user, length):
    # mutation: want exactly 40 bytes
    u = user()
    id_ = u.start()
    u.server.accept(iwarp.grant_private(u.grant).ljust(length, b"\0"), ird=16)
    assert u.reply(id_).qp.grant.remote_token == u.server.rkey


@pytest.mark.parametrize("length", [252, 255])
def test_private_data_that_siw_cannot_say(user, length):
    # mutation: read the enhanced header whatever PD_Length says
    u = user()
    id_ = u.start(2000)
    try:
        u.server.accept(iwarp.grant_private(u.grant).ljust(length, b"\0"), ird=16)
    except Exception as told:
        assert told.args
    check_no_connection(u, id_)


def test_nobody_listens(user):
    u = user()
    text = locator.build(HERE, 9, TICKET)
    check_no_connection(u, u.session.start(pb.ConnectQp(pd=ref(u.pd), locator=text, timeout_ms=1000)))


def test_a_server_that_does_not_answer(user):
    u = user()
    check_no_connection(u, u.start(2000))


# ---- errors

BAD = {
    # name: (operation, what to add to the token, where, the reason that we must give)
    "read-token": (READ, 0x100, 0, "REMOTE_TOKEN"),
    "read-bounds": (READ, 0, SIZE - 99, "REMOTE_RANGE"),
    "read-before": (READ, 0, -1, "REMOTE_RANGE"),
    "write-token": (WRITE, 0x100, 0, "REMOTE_TOKEN"),
    "write-bounds": (WRITE, 0, SIZE - 99, "REMOTE_RANGE"),
    "write-before": (WRITE, 0, -1, "REMOTE_RANGE"),
}


@pytest.mark.parametrize("name", BAD)
def test_terminated(user, name):
    """siw writes the word of its Terminate in the wrong order of bits."""
    # mutation: read the Terminate of a peer in RFC 5040's order only
    operation, twist, at, reason = BAD[name]
    u = user().connect()
    before = u.buffer.bytes(), u.server.memory.bytes()
    reply = u.transfer(operation, (0, at, 100, u.grant.token ^ twist))
    check_refused(reply, reason)
    assert reply.completion.bytes == 0
    u.session.wait_event(pb.Event.DISCONNECTED, u.qp.serial)
    u.server.await_disconnected()
    assert (u.buffer.bytes(), u.server.memory.bytes()) == before


def test_a_long_write_that_is_terminated(user):
    """siw closes with our bytes unread, so its reset may overtake what it said."""
    u = user(size=BIG).connect()
    reply = u.write((0, 1, BIG))
    check_refused(reply, ("REMOTE_RANGE", "QP_LOST", "PEER_CLOSED"))
    u.session.wait_event(pb.Event.DISCONNECTED, u.qp.serial)


def test_what_was_right_before_is_done(user):
    u = user().connect()
    theirs = u.server.memory.bytes()
    reply = u.read((0, 0, 100), (200, 200, 100), (400, 400, 100, u.grant.token ^ 0x100), (600, 600, 100))
    check_refused(reply, "REMOTE_TOKEN")
    assert (reply.completion.entries, reply.completion.bytes) == (2, 200)
    assert u.buffer[:100] == theirs[:100] and u.buffer[200:300] == theirs[200:300]
    assert u.buffer[400:] == pattern(SIZE, 1)[400:]


@pytest.mark.parametrize("how", ["disconnects", "dies"])
def test_the_server_goes(user, how):
    u = user().connect()
    assert u.read((0, 0, 100)).completion.bytes == 100
    u.server.disconnect() if how == "disconnects" else u.server.close()
    u.session.wait_event(pb.Event.DISCONNECTED, u.qp.serial)
    check_refused(u.read((0, 0, 100)), ("QP_STATE", "QP_LOST", "PEER_CLOSED"))


def test_we_go(user):
    u = user().connect()
    u.session.close()
    u.server.await_disconnected()


def test_the_server_may_not_reach_us(user):
    # mutation: let a peer that we called use the tokens of our PD
    u = user().connect(ord=16)
    secret = u.buffer.bytes()
    for token in (u.mr.local_token, u.mr.remote_token):
        if token:
            u.server.post("read", 0, 100, token, IOVA)
    u.server.await_disconnected()
    assert u.server.memory.bytes() == pattern(SIZE, 2) and u.buffer.bytes() == secret
    assert wait_until(lambda: not u.session.query_qp(u.qp).connected, 10.0)
