# SPDX-License-Identifier: MIT
"""For the cases that run in a guest: the link, the daemons on it, and what is asserted after every case. The device's type is in
$DEVICE."""
import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "py"))

from nicdtest.daemon import warm_up  # noqa: E402
from nicdtest.link import MTU, Capture, LinkNicd, join, set_mtu  # noqa: E402
from nicdtest.memory import Buffer, pattern  # noqa: E402
from nicdtest.pb import REMOTE_READ, REMOTE_WRITE  # noqa: E402
from nicdtest.verbs import VerbsPeer  # noqa: E402

TEST_TIMEOUT = 60
ALL = REMOTE_READ | REMOTE_WRITE


@pytest.fixture(autouse=True)
def time_limit():
    """A case that hangs fails."""
    def expired(*_):
        raise TimeoutError(f"the case took more than {TEST_TIMEOUT} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_TIMEOUT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session", autouse=True)
def link():
    join(os.environ["DEVICE"])
    capture = Capture("link.pcap")
    yield
    capture.stop()


class Daemons:
    """By the options of their nicd-soft, started when first asked for."""

    def __init__(self):
        self.running = {}

    def get(self, soft_options=""):
        nicd = self.running.get(soft_options)
        if nicd is None or not nicd.alive():
            nicd = self.running[soft_options] = LinkNicd(soft_options)
            warm_up(nicd)
        return nicd

    def check(self):
        for options, nicd in list(self.running.items()):
            try:
                nicd.assert_healthy()
                nicd.assert_clean()
            except BaseException:
                del self.running[options]
                nicd.kill()
                raise

    def stop(self):
        for nicd in self.running.values():
            nicd.stop()


@pytest.fixture(scope="session")
def all_daemons():
    daemons = Daemons()
    yield daemons
    daemons.stop()


@pytest.fixture
def daemons(all_daemons):
    yield all_daemons
    all_daemons.check()


@pytest.fixture
def large_mtu():
    set_mtu(65535)
    yield
    set_mtu(MTU)


@pytest.fixture
def verbs_peer():
    """Makes peers that are gone after the case."""
    made = []

    def make(size=65536, fill=2):
        made.append(VerbsPeer(size, fill))
        return made[-1]

    yield make
    for peer in made:
        peer.close()
