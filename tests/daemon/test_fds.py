# SPDX-License-Identifier: MIT
"""Descriptors whose server never answers, and too few of them: at nicd, at nicd-soft, at a client, and in flight."""
import os
import resource
import subprocess

import pytest

from nicdtest import limits, memory
from nicdtest.daemon import Nicd, wait_until
from nicdtest.fuse import FLUSH, RELEASE, slow_file_new
from nicdtest.memory import Buffer
from nicdtest.paths import BUILD
from nicdtest.pb import REMOTE_READ, pb
from nicdtest.wire import Ended, Refused, Session, check_refused, expect_refused, ref

HANG_US = 5_000_000   # of a turn of the loop: it waited for somebody


def work(nicd):
    """What any client should be able to do."""
    with nicd.session() as s, Buffer(8192) as buffer:
        mr = s.region(s.create_pd(), buffer.fd, 8192, REMOTE_READ)
        s.export(mr, "work", REMOTE_READ)
        s.deregister(mr)


def test_a_file_server_that_never_answers(own_nicd):
    """Not a question reaches it but that its file is closed, and nobody but it waits."""
    nicd = own_nicd()
    work(nicd)
    wait_until(lambda: not nicd.debts(fds=False))
    nicd.remember_fds()
    with slow_file_new() as slow:
        fds = [os.open(slow.path, os.O_RDWR) for _ in range(6)]
        nicd.ledger()
        slow.freeze()
        with nicd.session() as attacker:
            mr = attacker.create_mr(attacker.create_pd())
            # mutation: fstat, map or read it before the seals are asked
            with expect_refused("MEMORY_NOT_MEMFD"):
                attacker.add_memory(fds[0])
            with expect_refused("MEMORY_NOT_MEMFD"):
                attacker.register(mr, [(None, 0, 4096)], fd=fds[1])
            # Where none belongs, in a request that waits, and in a frame that is a violation.
            with expect_refused("FDS"):
                attacker.call(pb.CreatePd(), [fds[2]])
            batch = attacker.batch()
            pd = batch.add(pb.CreatePd())
            made = batch.add(pb.CreateMr(pd=ref(pd)))
            batch.add(pb.RegisterMr(mr=ref(made), ranges=[pb.Range(length=4096)], iova=4096), [fds[3]])
            check_refused(batch.run()[2], "MEMORY_NOT_MEMFD")
            attacker.send_raw(b"\xff", [fds[4], fds[5]])
            with pytest.raises(Ended):
                attacker.quiet(30)
        assert wait_until(lambda: slow.flushing)
        for _ in range(3):
            work(nicd)
        # mutation: close what may be anything in the loop
        assert nicd.ledger().longest_turn_us < HANG_US
        assert set(slow.seen) <= {FLUSH, RELEASE}
        slow.let_go()
        for fd in fds:
            os.close(fd)
        nicd.assert_clean()


class Small(Nicd):
    """With room for so many descriptors, in nicd and in the nicd-soft that it starts."""

    def __init__(self, n, **kw):
        self.n = n
        super().__init__(**kw)

    def before_exec(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.n, self.n))


@pytest.fixture
def small():
    nicd = Small(700)
    yield nicd
    nicd.stop()


def test_all_descriptors_of_nicd(small):
    """Who takes all there are is not served any more, the admin makes room, and everybody is served again."""
    work(small)
    wait_until(lambda: not small.debts(fds=False))
    small.remember_fds()
    greedy = small.session()
    fd = memory.memfd(4096)
    taken = 0
    # mutation: read on while a packet may bring more than there is room for: MSG_CTRUNC would be nicd's own doing
    for _ in range(small.n):
        try:
            greedy.call(pb.AddMemory(), [fd], timeout=2)
            taken += 1
        except Refused as refused:
            assert refused.reply.error.name == "QUOTA"
            break
        except TimeoutError:
            break
    os.close(fd)
    assert 100 < taken < small.n - limits.FRAME_FDS
    # The admin still comes in, sees it, and ends it.
    with Session(small.admin_socket, label="another admin") as admin:
        item, = [i for i in admin.list(pb.SESSION) if i.count > 100]
        admin.call(pb.Revoke(serial=item.serial))
    with pytest.raises(Ended):
        greedy.wait(sorted(greedy.in_flight) or [1], 10)
    greedy.close()
    work(small)
    small.assert_clean()


def test_a_client_without_descriptors(nicd):
    """The library says what is missing, and does not crash: from no room for a socket to room enough."""
    nicctl, codes = str(BUILD / "client" / "nicctl"), set()
    for n in range(3, 12):
        done = subprocess.run(["prlimit", f"--nofile={n}:{n}", nicctl, "status", "--socket", str(nicd.socket)], capture_output=True,
                              text=True, timeout=30, check=False, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        # mutation: use a descriptor that could not be had. 127: not even its libraries could be opened
        assert done.returncode in (0, 1, 3, 127), (n, done.returncode, done.stderr)
        assert done.returncode == 0 or done.stderr, n
        codes.add(done.returncode)
    assert 0 in codes and len(codes) > 1


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody whose descriptors in flight are counted")
def test_too_many_in_flight(nicd):
    """ETOOMANYREFS: one whose sockets are full of sockets is stopped by the kernel, and nobody else."""
    program = """
import errno, os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
os.setresuid(60103, 60103, 60103)
chain, sent = [], 0
try:
    while True:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held = a
        for _ in range(60):
            c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with c, d:
                # A socket with others in flight inside it, in flight itself.
                socket.send_fds(b, [b'x'], [c.fileno(), d.fileno()])
            sent += 1
        chain.append((a, b))
except OSError as error:
    assert error.errno == errno.ETOOMANYREFS, error
print(sent, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(["/usr/bin/python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.readline()) > 60
        # mutation: count what is in flight of anybody
        work(nicd)
        nested = memory.BAD_FDS["socket-with-descriptors-in-flight"][0]()
        with nicd.session() as s:
            with expect_refused("MEMORY_NOT_MEMFD"):
                s.add_memory(nested)
        os.close(nested)
        process.stdin.close()
        assert process.wait(10) == 0
