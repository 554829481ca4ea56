# SPDX-License-Identifier: MIT
"""Clients that do not read, ask too much, or are too many: only they feel it."""
import select
import socket
import time

import pytest

from nicdtest import limits, locator
from nicdtest.daemon import configuration
from nicdtest.memory import Buffer
from nicdtest.pair import silent_listener
from nicdtest.pb import pb
from nicdtest.wire import ref, request


def memory_of(nicd):
    status = open(f"/proc/{nicd.pid}/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_who_does_not_read_is_not_read(nicd):
    # mutation: go on reading from a client whose output piles up
    with nicd.session() as deaf, nicd.session() as other:
        pd = other.create_pd()
        call = pb.QueryTokens(mrs=[1] * limits.QUERY_IDS)   # 32 KiB of reply
        deaf.sock.setblocking(False)
        sent, stuck, before = 0, False, memory_of(nicd)
        deadline = time.monotonic() + 15
        while not stuck and time.monotonic() < deadline:
            request_id = deaf.next_id()
            frame = pb.Frame(requests=[request(request_id, call)])
            try:
                deaf.sock.send(frame.SerializeToString())
                deaf.in_flight.add(request_id)
                sent += 1
            except BlockingIOError:
                stuck = not select.select([], [deaf.sock], [], 1.0)[1]
            started = time.monotonic()
            other.close_object(other.create_mr(pd))
            assert time.monotonic() - started < 2.0
        assert stuck, f"{sent} requests of a client that reads nothing were taken"
        assert sent < 400
        assert memory_of(nicd) - before < 16 << 20
        # It was only waiting: everything is answered, once.
        deaf.sock.setblocking(True)
        replies = deaf.wait(sorted(deaf.in_flight))
        assert len(replies) == sent and all(len(r.tokens.local_tokens) == limits.QUERY_IDS for r in replies)
        deaf.create_pd()


def test_a_deaf_one_can_be_ended(nicd):
    # mutation: wait for a client's output before its objects are released
    deaf = nicd.session()
    deaf.create_pd()
    deaf.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        for i in range(100000):
            deaf.sock.send(pb.Frame(requests=[request(1000 + i, pb.QueryTokens(mrs=[1] * 4096))]).SerializeToString())
    deaf.close()
    nicd.assert_clean()


def test_too_many_in_flight(own_nicd, peer_nicd):
    # mutation: count requests per frame only
    nicd = own_nicd(config=configuration(session={"max_calls": 300}))
    with nicd.session() as s, silent_listener() as silent:
        pd = s.create_pd()
        text = locator.build(*silent.getsockname(), b"t" * 16)
        held = []
        for _ in range(3):
            batch = s.batch()
            for _ in range(100):
                batch.add(pb.ConnectQp(pd=ref(pd), locator=text, timeout_ms=800))
            held += batch.send()
        s.quiet(0.3)
        extra = [s.start(pb.ConnectQp(pd=ref(pd), locator=text, timeout_ms=800)) for _ in range(3)]
        replies = s.wait(extra + held, 30)
        names = {r.error.name for r in replies}
        assert names <= {"CONNECT", "IN_FLIGHT"}, names
        # Either the frames above the limit wait in the socket, or they are refused; none is lost, and the limit holds.
        assert len([r for r in replies if r.error.name == "CONNECT"]) >= 300
        s.create_pd()


def test_many_sessions(nicd):
    # mutation: leave a session's descriptor open
    sessions = [nicd.session() for _ in range(200)]
    try:
        assert nicd.ledger().sessions == 200
        for s in sessions:
            s.create_pd()
    finally:
        for s in sessions:
            s.close()


def test_those_who_connect_and_say_nothing(nicd):
    # mutation: make a session's objects wait for its first frame
    idle = []
    for _ in range(200):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(nicd.socket))
        idle.append(sock)
    with nicd.session() as s:
        started = time.monotonic()
        for _ in range(20):
            s.create_pd()
        assert time.monotonic() - started < 5
    for sock in idle:
        sock.close()


def test_a_storm_leaves_room_for_others(nicd):
    # mutation: read everything that one client has sent before looking at the next
    with nicd.session() as storm, nicd.session() as quiet, Buffer(4096) as buffer:
        storm_pd, quiet_pd = storm.create_pd(), quiet.create_pd()
        memory = storm.add_memory(buffer.fd)
        slowest, in_flight = 0.0, []
        end = time.monotonic() + 2
        while time.monotonic() < end:
            if len(in_flight) < 8:
                batch = storm.batch()
                for _ in range(60):
                    mr = batch.add(pb.CreateMr(pd=ref(storm_pd)))
                    registered = batch.add(pb.RegisterMr(mr=ref(mr), ranges=[pb.Range(memory=ref(memory), length=4096)], iova=4096,
                                                         flags=2))
                    batch.add(pb.Close(object=ref(registered)))
                in_flight.append(batch.send())
            else:
                storm.wait(in_flight.pop(0))
            started = time.monotonic()
            quiet.close_object(quiet.create_mr(quiet_pd))
            slowest = max(slowest, time.monotonic() - started)
        for ids in in_flight:
            storm.wait(ids)
        assert slowest < 1.0, f"a call took {slowest:.3f} s beside a storm"


def test_replies_come_together(session):
    # mutation: one packet per reply
    packets = 0
    batch = session.batch()
    for _ in range(256):
        batch.add(pb.CreatePd())
    ids = batch.send()
    while any(i not in session.replies for i in ids):
        session.receive()
        packets += 1
    assert packets <= 32, f"256 replies came in {packets} packets"


def test_large_answers_are_split(session):
    # mutation: end the session when the replies of a frame do not fit into one
    batch = session.batch()
    for _ in range(6):
        batch.add(pb.QueryTokens(mrs=[1] * 1000))
    assert all(len(r.tokens.local_tokens) == 1000 for r in batch.run())
