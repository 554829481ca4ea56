# SPDX-License-Identifier: MIT
"""Descriptors whose close() hangs, because the file system behind them is the client's: only the client feels it."""
import os
import statistics
import time

import pytest

from nicdtest.daemon import wait_until
from nicdtest.fuse import slow_file_new
from nicdtest.memory import Buffer
from nicdtest.pb import pb
from nicdtest.wire import expect_refused, ref


@pytest.fixture
def slow_file():
    with slow_file_new() as slow:
        yield slow


def latency(session, n=200):
    adapter, times = session.hello.adapters[0], []
    for _ in range(n):
        started = time.monotonic()
        session.call(pb.QueryAdapter(adapter=ref(adapter)))
        times.append(time.monotonic() - started)
    return statistics.quantiles(times, n=100)[98]


def test_refused_at_once(own_nicd, slow_file):
    nicd = own_nicd()
    nicd.remember_fds()
    fds = [os.open(slow_file.path, os.O_RDWR) for _ in range(8)]
    with nicd.session() as attacker, nicd.session() as other, Buffer(4096) as buffer:
        before = latency(other)
        for fd in fds:
            started = time.monotonic()
            # mutation: fstat or map it before the seals are asked
            with expect_refused("MEMORY_NOT_MEMFD"):
                attacker.add_memory(fd)
            # mutation: close it in the loop
            assert time.monotonic() - started < 1.0
        assert wait_until(lambda: slow_file.flushing)
        # Others do everything, also what needs workers.
        assert latency(other) < max(10 * before, 0.05)
        memory = other.add_memory(buffer.fd)
        other.close_object(memory)
        with Buffer(8 << 20) as big:
            # mutation: the same threads for all closes
            started = time.monotonic()
            memory = other.add_memory(big.fd)
            other.close_object(memory)
        assert time.monotonic() - started < 5.0
        attacker.create_pd()
    # The session is over, its descriptors are not yet; nothing else is left.
    assert wait_until(lambda: not nicd.debts(fds=False))
    # Ours wait for the server too.
    slow_file.let_go()
    for fd in fds:
        os.close(fd)
    # mutation: forget the descriptors that hang
    nicd.assert_clean()


def test_stops_while_they_hang(own_nicd, slow_file):
    """The kernel lets a process end only when its closes have ended: nicd is told to stop, and has done all that it can."""
    nicd = own_nicd()
    fd = os.open(slow_file.path, os.O_RDWR)
    with nicd.session() as attacker:
        with expect_refused("MEMORY_NOT_MEMFD"):
            attacker.add_memory(fd)
        assert wait_until(lambda: slow_file.flushing)
    nicd.drop_admin()
    nicd.process.terminate()
    # mutation: wait for the threads that hang before the sockets go
    assert wait_until(lambda: not nicd.socket.exists(), 10)
    slow_file.let_go()
    os.close(fd)
    assert nicd.process.wait(10) == 0
