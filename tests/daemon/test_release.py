# SPDX-License-Identifier: MIT
"""Whatever a client held, and however it goes, all is given back; and the others do not notice. The fixture `nicd` asserts
after every test that the ledger is zero and that the processes have as many descriptors as before."""
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from nicdtest import limits, paths
from nicdtest.memory import Buffer
from nicdtest.pair import ALL, Pair
from nicdtest.pb import REMOTE_READ, pb
from nicdtest.sequences import Client
from nicdtest.wire import ref, register_message


def fill(session, buffers, n):
    """n registered MRs over a few Memories in two PDs, an export and a ticket for every tenth."""
    pds = [session.create_pd() for _ in range(2)]
    memories = [session.add_memory(b.fd) for b in buffers]
    for start in range(0, n, 100):
        batch = session.batch()
        for i in range(start, min(start + 100, n)):
            mr = batch.add(pb.CreateMr(pd=ref(pds[i % 2])))
            batch.add(register_message(mr, [(memories[i % len(memories)], 0, 4096)], flags=ALL))
        replies = batch.run()
        assert not any(r.HasField("error") for r in replies)
        mr = replies[1].mr
        session.export(mr, f"{session.hello.session}-{start}", REMOTE_READ)
        session.ticket(mr)
    return pds


CHILD = """
import sys
sys.dont_write_bytecode = True
sys.path[:0] = [{py!r}, {here!r}]
from nicdtest.memory import Buffer
from nicdtest.wire import Session, ref
from nicdtest.pb import pb
session = Session({socket!r}, label="doomed")
buffers = [Buffer(8192) for _ in range(3)]
from importlib import util
spec = util.spec_from_file_location("release", {file!r})
module = util.module_from_spec(spec)
spec.loader.exec_module(module)
module.fill(session, buffers, {n})
print("ready", flush=True)
while True:
    batch = session.batch()
    for _ in range(50):
        pd, memory = batch.add(pb.CreatePd()), batch.add(pb.AddMemory(), [buffers[0].fd])
        # There are quotas, and nobody knows how long the others of its account take to start.
        batch.add(pb.Close(object=ref(pd)))
        batch.add(pb.Close(object=ref(memory)))
    {loop}
"""


def doomed(nicd, n, loop):
    here = os.path.dirname(os.path.abspath(__file__))
    code = CHILD.format(py=str(paths.SOURCE / "tests" / "py"), here=here, file=os.path.abspath(__file__), socket=str(nicd.socket), n=n,
                        loop=loop)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("loop", ["batch.run()", "batch.send()", "import time; time.sleep(100)"],
                         ids=["working", "not reading", "idle"])
def test_kill(nicd, loop):
    # mutation: release a session's objects when it says goodbye only
    for _ in range(2):
        child = doomed(nicd, 600, loop)
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.1)
            pid_item = [i for i in nicd.admin().list(pb.SESSION) if i.pid == child.pid]
            assert len(pid_item) == 1 and pid_item[0].alive and pid_item[0].uid == os.getuid()
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
        nicd.assert_clean()


def test_many_at_once(nicd):
    # mutation: release one session after the other, each waiting for the device
    children = [doomed(nicd, 100, "batch.run()") for _ in range(6)]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n"
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
            child.stdout.close()
    nicd.assert_clean()


def test_normal_end(nicd):
    # mutation: forget one type of object when a session ends
    buffers = [Buffer(8192) for _ in range(3)]
    with nicd.session() as s:
        fill(s, buffers, 300)
        ledger = nicd.ledger()
        assert (ledger.sessions, ledger.held_fds, ledger.provider_memories) == (1, 3, 3)
        # 2 PDs, 3 Memories, 300 MRs, 3 exports, 3 tickets
        assert ledger.objects == 311
        assert (ledger.provider_tags, ledger.provider_tickets) == (303, 6)
        account, = (a for a in ledger.accounts if a.account == s.hello.account)
        used = {c.slot: c.used for c in account.charges}
        assert (used["sessions"], used["memories"], used["pds"], used["mrs"], used["doors"], used["fds"]) == (1, 3, 2, 300, 6, 3)
        assert used["pinned_bytes"] >= 3 * 8192
    nicd.assert_clean()


def test_ledger_says_what_the_kernel_says(nicd, session):
    # mutation: count descriptors by hand
    fds = [Buffer(4096) for _ in range(20)]
    for buffer in fds:
        session.add_memory(buffer.fd)
    ledger = nicd.ledger()
    assert ledger.open_fds == nicd.open_fds()
    assert ledger.held_fds == 20


def test_shut_down_instead_of_close(nicd):
    # mutation: wait for the socket's close only
    import socket
    with nicd.session() as s, Buffer(4096) as buffer:
        s.region(s.create_pd(), buffer.fd, 4096, ALL)
        s.sock.shutdown(socket.SHUT_WR)
        s.wait_end()
        nicd.assert_clean()


def test_fork_holds_the_session(nicd):
    # mutation: release when the pid that connected dies
    with nicd.session() as s:
        pd = s.create_pd()
        pid = os.fork()
        if pid == 0:
            s.sock.close()
            os._exit(0)
        os.waitpid(pid, 0)
        s.create_mr(pd)


@pytest.mark.parametrize("after", [0.0, 0.002, 0.01])
def test_end_in_the_middle_of_everything(nicd, after):
    # mutation: free a session under its requests in flight
    with Buffer(1 << 20) as buffer:
        for _ in range(8):
            s = nicd.session()
            for _ in range(5):
                batch = s.batch()
                pd = batch.add(pb.CreatePd())
                memory = batch.add(pb.AddMemory(), [buffer.fd])
                for _ in range(10):
                    mr = batch.add(pb.CreateMr(pd=ref(pd)))
                    registered = batch.add(register_message(mr, [(memory, 0, 1 << 20)], flags=ALL))
                    batch.add(pb.CreateTicket(mr=ref(registered)))
                    batch.add(pb.DeregisterMr(mr=ref(registered)))
                batch.add(pb.Close(object=ref(memory)))
                batch.add(pb.Close(object=ref(pd)))
                batch.send()
            time.sleep(after)
            s.close()
    nicd.assert_clean()


def test_others_work_on_meanwhile(nicd):
    # mutation: release all objects of a session in one turn of the loop
    buffers = [Buffer(8192) for _ in range(3)]
    with nicd.session() as worker:
        pd = worker.create_pd()
        big = nicd.session()
        fill(big, buffers, 3000)
        big.close()
        slowest, n, end = 0.0, 0, time.monotonic() + 1.0
        while time.monotonic() < end:
            started = time.monotonic()
            worker.close_object(worker.create_mr(pd))
            slowest = max(slowest, time.monotonic() - started)
            n += 1
        assert slowest < 0.5 and n > 20, f"the slowest of {n} calls took {slowest:.3f} s"
    nicd.assert_clean()


# ---- random sequences

@pytest.mark.time_limit(120)
def test_random_sequences(nicd):
    # mutation: any slip in the states, references and charges of MRs, Memories, PDs and doors
    machine = type("Machine", (Client,), {"nicd": nicd})
    run_state_machine_as_test(machine, settings=settings(max_examples=30, stateful_step_count=40))


CALLS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=40)


@pytest.mark.time_limit(120)
def test_random_frames_with_references(nicd):
    # mutation: any slip in references between requests of one frame, above all where the earlier one fails
    with Buffer(8192) as buffer:

        @settings(max_examples=60)
        @given(st.lists(CALLS, min_size=1, max_size=4), st.booleans())
        def run(frames, read):
            session = nicd.session(label="frames")
            expected = []
            for calls in frames:
                batch = session.batch()
                first = session.last_id + 1
                for kind, a, b in calls:
                    def earlier(back):
                        target = session.last_id + 1 - back
                        return pb.Ref(result_of=target) if target >= first else pb.Ref(id=7)
                    x, y = earlier(a), earlier(b)
                    fds = []
                    if kind <= 1:
                        call = pb.CreatePd()
                    elif kind == 2:
                        call, fds = pb.AddMemory(), [buffer.fd]
                    elif kind <= 4:
                        call = pb.CreateMr(pd=x)
                    elif kind == 5:
                        call = pb.RegisterMr(mr=x, ranges=[pb.Range(memory=y, length=8192)], iova=4096, flags=7)
                    elif kind == 6:
                        call = pb.DeregisterMr(mr=x)
                    elif kind == 7:
                        call = pb.CreateTicket(mr=x)
                    else:
                        call = pb.Close(object=x)
                    if len(batch.fds) + len(fds) > limits.FRAME_FDS:
                        continue
                    batch.add(call, fds)
                expected += batch.send() if batch.frame.requests else []
            if read:
                # A Close may wait for what is never closed; all else has its reply.
                session.call(pb.QueryAdapter(adapter=pb.Ref(id=session.hello.adapters[0].id)))
            session.close()
            nicd.assert_clean()

        run()


# ---- two hosts

@pytest.mark.parametrize("who", ["user", "owner", "both"])
def test_transfers_under_way(nicd, peer_nicd, who):
    # mutation: keep a stream of a session that is gone
    rng = random.Random(7)
    for _ in range(6):
        p = Pair(nicd, peer_nicd, 8 << 20).by_export(uses=4)
        for _ in range(rng.randrange(1, 12)):
            p.start(rng.choice([pb.Read, pb.Write]), 0, 0, 8 << 20)
        time.sleep(rng.random() * 0.02)
        if who in ("user", "both"):
            p.user.close()
        if who in ("owner", "both"):
            p.owner.close()
        if who == "owner":
            p.await_disconnected()
        p.close()
        nicd.assert_clean()
        peer_nicd.assert_clean()
