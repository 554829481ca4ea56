# SPDX-License-Identifier: MIT
"""What the suites `daemon` and `raw` share: the daemons, and what is asserted after every test.

The daemons live as long as the run; after each test all that clients held must be given back, to the last descriptor. A daemon that
a test has broken is ended there and then, and the next test gets a new one.
"""
import os
import pathlib
import random
import signal
import sys

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "py"))

from hypothesis import HealthCheck, settings  # noqa: E402

from nicdtest.daemon import Nicd, warm_up  # noqa: E402

TEST_TIMEOUT = 60

# The same examples in every run: a failure seen once is seen again.
settings.register_profile("nicd", database=None, derandomize=True, deadline=None, print_blob=False,
                          suppress_health_check=list(HealthCheck))
settings.load_profile("nicd")


@pytest.fixture(autouse=True)
def time_limit(request):
    """A test that hangs fails."""
    marker = request.node.get_closest_marker("time_limit")

    def expired(*_):
        raise TimeoutError(f"the test took more than {limit} s")

    limit = marker.args[0] if marker else TEST_TIMEOUT
    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(limit)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_collection_modifyitems(items):
    """NICD_TEST_ORDER=SEED: in another order, which must make no difference."""
    if "NICD_TEST_ORDER" in os.environ:
        random.Random(os.environ["NICD_TEST_ORDER"]).shuffle(items)


def pytest_configure(config):
    config.addinivalue_line("markers", "time_limit(seconds): instead of the usual 60")


class Pool:
    """Daemons by address and options, started when first asked for."""

    def __init__(self):
        self.running = {}

    def get(self, address="127.0.0.1", options=(), provider="soft"):
        key = address, tuple(options), provider
        nicd = self.running.get(key)
        if nicd is not None and not nicd.alive():
            self.drop(nicd)
            nicd = None
        if nicd is None:
            nicd = self.running[key] = Nicd(address, options, provider=provider)
            warm_up(nicd)
        return nicd

    def drop(self, nicd):
        self.running = {key: n for key, n in self.running.items() if n is not nicd}
        nicd.kill()

    def check(self, nicd):
        try:
            nicd.assert_healthy()
            nicd.assert_clean()
        except BaseException:
            self.drop(nicd)
            raise

    def stop(self):
        failures = []
        for nicd in self.running.values():
            try:
                nicd.stop()
            except AssertionError as failure:
                failures.append(failure)
        self.running = {}
        if failures:
            raise failures[0]


@pytest.fixture(scope="session")
def pool():
    pool = Pool()
    yield pool
    pool.stop()


@pytest.fixture
def nicd(pool):
    """A nicd on 127.0.0.1 with nobody connected."""
    nicd = pool.get()
    yield nicd
    pool.check(nicd)


@pytest.fixture
def peer_nicd(pool):
    """Another one, on 127.0.0.2: the other host."""
    nicd = pool.get("127.0.0.2")
    yield nicd
    pool.check(nicd)


@pytest.fixture
def session(nicd):
    with nicd.session() as session:
        yield session


@pytest.fixture
def own_nicd():
    """Makes daemons of the test's own; they must stop as they should."""
    made = []

    def make(*args, **kw):
        made.append(Nicd(*args, **kw))
        return made[-1]

    yield make
    failures = []
    for nicd in made:
        try:
            nicd.stop()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
