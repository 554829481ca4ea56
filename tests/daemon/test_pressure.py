# SPDX-License-Identifier: MIT
"""Clients that do not read, ask too much, or are too many: only they feel it."""
import contextlib
import resource
import select
import socket
import time

import pytest

from nicdtest import limits, locator
from nicdtest.daemon import configuration, wait_until
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


# ---- many

def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(path))
    except BlockingIOError:
        sock.close()
        return None
    return sock


HELLO = pb.Frame(requests=[request(1, pb.Hello(major=limits.MAJOR, min_minor=limits.MINOR, client="many"))]).SerializeToString()


def readable(sock, timeout):
    """select() knows no descriptors above 1,023."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def greet(socks):
    """Says Hello on all of them, then hears what each is told: role accepted, or the reason of the Fatal."""
    told = []
    for sock in socks:
        with contextlib.suppress(BrokenPipeError):
            sock.send(HELLO)
    for sock in socks:
        assert readable(sock, 30)
        frame = pb.Frame.FromString(sock.recv(limits.FRAME_MAX))
        told.append(frame.fatal.name if frame.HasField("fatal") else frame.replies[0].error.name)
    return told


def close_all(socks):
    for sock in socks:
        sock.close()


def test_a_thousand_at_once(nicd):
    """All connect before any is served, as far as the backlog holds, and say Hello at the same time."""
    # mutation: ACCEPT_TURN 0, or listener_stop without listener_start: some wait for ever
    socks, deadline = [], time.monotonic() + 30
    while len(socks) < 1000 and time.monotonic() < deadline:
        sock = connect(nicd.socket)
        if sock:
            socks.append(sock)
        else:
            time.sleep(0.001)
    assert len(socks) == 1000
    assert set(greet(socks)) == {""}
    assert nicd.ledger().sessions == 1000
    close_all(socks)


def test_no_more_sessions_than_an_account_may_have(own_nicd):
    """Who is beyond the cap is told so; nobody else feels it, and who leaves makes room."""
    nicd = own_nicd(config=configuration({"sessions": 50}))
    socks = [connect(nicd.socket) for _ in range(60)]
    told = greet(socks)
    # mutation: client_new does not charge SESSIONS: 60
    assert sorted(told) == [""] * 50 + ["QUOTA"] * 10
    assert nicd.admin().list(pb.SESSION)
    close_all(socks[:5])
    nicd_has = lambda n: wait_until(lambda: nicd.ledger().sessions == n)
    assert nicd_has(45)
    again = [connect(nicd.socket) for _ in range(5)]
    assert set(greet(again)) == {""}
    close_all(socks[5:] + again)


@pytest.mark.time_limit(120)
def test_ten_thousand_sessions(own_nicd):
    """Open at the same time, idle: one more works as if it were alone, and an idle one costs little."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 16384:
        pytest.fail(f"this test needs 16,384 descriptors (ulimit -Hn); the hard limit is {before[1]}")
    # mutation: pidfd_spare does nothing: two descriptors for each session are too many where the limit is 20,000
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 20000), before[1]))
    nicd = own_nicd(config=configuration({"sessions": 20000}))
    socks = []
    nicd.admin()
    try:
        with nicd.session() as first:
            pd = first.create_pd()
            while len(socks) < 10000:
                batch = []
                while len(batch) < 500:
                    sock = connect(nicd.socket)
                    if sock:
                        batch.append(sock)
                    else:
                        time.sleep(0.001)
                socks += batch
                assert set(greet(batch)) == {""}
            ledger = nicd.ledger()
            assert ledger.sessions == 10001
            for _ in range(50):
                first.close_object(first.create_mr(pd))
            nicd.ledger()
            time.sleep(1.0)
            # mutation: a timer, or an idle handle, for each session: the loop turns without end
            assert nicd.ledger().turns < 100
    finally:
        close_all(socks)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    # mutation: leave something of a session that is gone
    assert wait_until(lambda: nicd.ledger().sessions == 0, 30)
    nicd.assert_clean()


def test_the_listener_rests_at_the_cap(own_nicd):
    """Beyond max-sessions connections wait in the backlog, and the loop sleeps meanwhile."""
    nicd = own_nicd(config=configuration(session={"max_sessions": 20}))
    socks = [connect(nicd.socket) for _ in range(20)]
    assert set(greet(socks)) == {""}
    waiting = [connect(nicd.socket) for _ in range(10)]
    assert all(waiting)
    nicd.ledger()
    time.sleep(0.5)
    # mutation: on_accepted always says that there is room, or the listener is polled while it is stopped
    assert nicd.ledger().turns < 100
    assert not select.select(waiting, [], [], 0)[0]
    close_all(socks)
    assert set(greet(waiting)) == {""}
    close_all(waiting)


def test_who_connects_and_says_nothing(own_nicd):
    """Is hung up on, and told why; who has said Hello may be silent."""
    nicd = own_nicd(config=configuration(session={"hello_timeout": 1}))
    with nicd.session() as polite:
        sock = connect(nicd.socket)
        # mutation: no deadline before Hello
        assert select.select([sock], [], [], 20)[0]
        frame = pb.Frame.FromString(sock.recv(limits.FRAME_MAX))
        assert (frame.fatal.name, frame.fatal.limit) == ("HELLO_FIRST", 1000) and frame.fatal.observed >= 1000
        assert select.select([sock], [], [], 20)[0]
        assert sock.recv(1) == b""
        sock.close()
        polite.create_pd()


def test_slow_readers(own_nicd):
    """Many that ask and never read cost a bounded amount together, are ended in the end, and nobody waits for them."""
    nicd = own_nicd(config=configuration({"buffered_bytes": "2M"}, session={"stall_timeout": 1}))
    call = pb.QueryTokens(mrs=[1] * limits.QUERY_IDS)
    deaf = [nicd.session() for _ in range(40)]
    ids = {s: 1000 for s in deaf}
    for s in deaf:
        s.sock.setblocking(False)
    # The same uid, but an account full of output does not keep an admin out.
    before = memory_of(nicd)
    for _ in range(40):
        for s in deaf:
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                ids[s] += 1
                s.sock.send(pb.Frame(requests=[request(ids[s], call)]).SerializeToString())
        nicd.ledger()
    # mutation: client_charge_output does nothing: 40 times 256 KiB are queued
    # 2 MiB of output, a frame over the limit for each, the sanitizer's own, and what it holds back.
    assert memory_of(nicd) - before < 48 << 20
    # mutation: on_stall looks at the output of one session only
    assert wait_until(lambda: nicd.ledger().sessions <= 8, 30)
    for s in deaf:
        s.sock.close()
