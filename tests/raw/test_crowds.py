# SPDX-License-Identifier: MIT
"""Thousands of peers on the data port that say nothing, say it slowly, or do not listen: whoever has work to do does not notice."""
import os
import resource
import socket
import time

import pytest

from nicdtest import iwarp, locator
from nicdtest.daemon import configuration, wait_until
from nicdtest.iwarp import Closed, Peer, Rejected, Tcp, hello, mpa_request, tagged
from nicdtest.memory import Buffer
from nicdtest.pb import REMOTE_READ, REMOTE_WRITE, pb

ALL = REMOTE_READ | REMOTE_WRITE
SIZE, IOVA = 1 << 20, 0x3_0000_0000_0000
CROWD = int(os.environ.get("NICD_CROWD", 10000))
SILENT, SILENT_PER_ADDRESS = 256, 128   # nicd-soft's defaults


class Owner:
    """A session that lets many in."""

    def __init__(self, nicd):
        self.nicd = nicd
        self.session = nicd.session(label="owner")
        self.buffer = Buffer(SIZE, 1)
        self.mr = self.session.region(self.session.create_pd(), self.buffer.fd, SIZE, ALL, IOVA)
        self.door = self.session.export(self.mr, "crowd", ALL, uses=10 * CROWD, peers=CROWD + 100)
        self.place = locator.parse(self.door.locator)
        self.address = self.place.host, self.place.port

    def close(self):
        self.session.close()
        self.buffer.close()

    def peer(self, **kw):
        return Peer(self.address, hello(self.place.ticket), **kw)

    def check(self, peer):
        assert peer.read(peer.grant.token, IOVA + 7, 1000) == self.buffer[7:1007]


@pytest.fixture
def owner(own_nicd):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= CROWD + 1000, f"the hard limit of open files is {hard}: too few for {CROWD} connections"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    owner = Owner(own_nicd(config=configuration(limits={"qps": 2 * CROWD})))
    yield owner
    owner.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def sockets_of(pid):
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
        except OSError:
            continue
    return found


def close_all(crowd):
    for sock in crowd:
        sock.close()


@pytest.mark.time_limit(240)
def test_half_open(owner):
    with owner.peer() as busy:
        owner.check(busy)
        crowd = []
        try:
            for i in range(CROWD):
                crowd.append(socket.create_connection(owner.address, 20))
                if i % 1000 == 0:
                    owner.check(busy)
            # mutation: no cap on those who have no ticket
            assert wait_until(lambda: sockets_of(owner.nicd.soft_pid) < SILENT_PER_ADDRESS + 20)
            owner.check(busy)
            # mutation: at the cap the newest is turned away
            with owner.peer() as late:
                owner.check(late)
        finally:
            close_all(crowd)
        # mutation: reach a cap without a word
        assert wait_until(lambda: "--max-half-open-per-address" in owner.nicd.log_text())
        # mutation: a line for each
        assert owner.nicd.log_text().count("--max-half-open-per-address") < 30


@pytest.mark.time_limit(240)
def test_idle(owner):
    crowd = []
    request = mpa_request(hello(owner.place.ticket))
    first = iwarp.fpdu(tagged(iwarp.WRITE, 1, 0))
    try:
        with owner.peer() as busy:
            for i in range(CROWD):
                sock = socket.create_connection(owner.address, 20)
                crowd.append(sock)
                sock.sendall(request)
                assert sock.recv(20, socket.MSG_WAITALL)[:16] == iwarp.REPLY_KEY
                sock.sendall(first)
                if i % 1000 == 0:
                    owner.check(busy)
            # mutation: a smaller cap on streams than is stated
            assert wait_until(lambda: sum(q.inbound for q in owner.session.list(pb.QP)) == CROWD + 1, 30)
            owner.check(busy)
            # All of them go with the door, which is gone before the last socket is.
            owner.session.close_object(owner.door)
            assert wait_until(lambda: sockets_of(owner.nicd.soft_pid) < 20, 30)
            assert not owner.session.list(pb.QP)
            # mutation: forget to end some
            for sock in crowd:
                sock.settimeout(10)
                with pytest.raises(ConnectionResetError):
                    while sock.recv(1000):
                        pass
    finally:
        close_all(crowd)


@pytest.mark.time_limit(60)
def test_a_byte_a_moment(owner):
    """Whoever spins out the handshake is out when its time is up, however regularly it speaks."""
    request = mpa_request(hello(owner.place.ticket))
    slow = [Tcp(owner.address) for _ in range(100)]
    started, sent = time.monotonic(), 0
    with owner.peer() as busy:
        while slow and time.monotonic() - started < 15:
            for tcp in list(slow):
                try:
                    tcp.send(request[sent % len(request):][:1])
                    tcp.receive(1, 0)
                except TimeoutError:
                    continue
                except Closed:
                    slow.remove(tcp)
                    tcp.close()
            sent = min(sent + 1, len(request) - 10)
            owner.check(busy)
            time.sleep(0.2)
        # mutation: start the timer again with each byte
        assert not slow
        assert not [d for d in owner.session.list(pb.EXPORT) if d.count != 10 * CROWD - 1]


@pytest.mark.time_limit(90)
@pytest.mark.parametrize("crc", [False, True])
def test_who_does_not_read(owner, crc):
    """Peers that ask for a lot and never take it hold up nobody, and not a revocation either."""
    deaf = [owner.peer(crc=crc, ird=16, ord=64) for _ in range(32)]
    with owner.peer() as busy:
        for peer in deaf:
            for _ in range(min(64, peer.reply.ird)):
                peer.post_read(5, 0, SIZE, peer.grant.token, IOVA)
        # mutation: wait for one peer's socket; give it more than its quantum at a time
        for _ in range(50):
            owner.check(busy)
        receipt = owner.session.deregister(owner.mr)
        # mutation: wait for those who do not read; leave out those who have a part of a frame
        assert receipt.streams_cut >= len(deaf)
    for peer in deaf:
        peer.close()


def test_caps_are_policy(own_nicd):
    """What --soft-options says is what holds."""
    nicd = own_nicd(options=["--soft-options", "--max-streams 2"])
    owner = Owner.__new__(Owner)
    owner.nicd, owner.session, owner.buffer = nicd, nicd.session(label="owner"), Buffer(SIZE, 1)
    mr = owner.session.region(owner.session.create_pd(), owner.buffer.fd, SIZE, ALL, IOVA)
    owner.door = owner.session.export(mr, "few", ALL, uses=10, peers=10)
    owner.place = locator.parse(owner.door.locator)
    owner.address = owner.place.host, owner.place.port
    with owner.peer() as one, owner.peer() as two:
        owner.check(one)
        owner.check(two)
        with pytest.raises(Rejected):
            owner.peer()
        # mutation: refuse without a word, or without naming the option
        assert wait_until(lambda: "raise --max-streams if" in nicd.log_text())
        # mutation: count what was refused under another cap, or not at all
        admin = nicd.admin()
        cap, = (c for c in admin.ledger().caps if c.name == "--max-streams")
        assert (cap.limit, cap.now, cap.counted, cap.refused) == (2, 2, True, 1)
        # mutation: tell everybody what other accounts' peers do
        assert not owner.session.ledger().caps
    assert wait_until(lambda: not owner.session.list(pb.QP))
    with owner.peer() as three:
        owner.check(three)
    owner.close()
