# SPDX-License-Identifier: MIT
"""The frame of the suite: who is asked (a provider), what was found out (by rule and cell), and the table that is made of it."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from nicdtest.pair import Pair  # noqa: E402

import report  # noqa: E402
from providers import PROVIDERS  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write tests/conformance/CONFORMANCE.md anew")


def pytest_configure(config):
    config.addinivalue_line("markers", "rule(id...): what of NDKPI the case shows")
    config.stash[report.KEY] = report.Results()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """The table is made last, whatever the order of the others."""
    mine = [i for i in items if "conformance" in i.path.parts]
    config.stash[report.KEY].expect_all(mine)
    items.sort(key=lambda item: item.originalname == "test_the_table_is_current")


def pytest_deselected(items):
    for item in items:
        item.config.stash[report.KEY].partial = True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    item.config.stash[report.KEY].add(item, call, outcome.get_result())


def pytest_generate_tests(metafunc):
    if "provider" in metafunc.fixturenames:
        metafunc.parametrize("provider", PROVIDERS, ids=repr, scope="session")


@pytest.fixture
def nicd(pool, provider):
    nicd = pool.get("127.0.0.1", provider=provider.name)
    yield nicd
    pool.check(nicd)


@pytest.fixture
def peer_nicd(pool, provider):
    nicd = pool.get("127.0.0.2", provider=provider.name)
    yield nicd
    pool.check(nicd)


@pytest.fixture
def pair(nicd, peer_nicd):
    """Both sides with a normal MR; the user is connected by a ticket, so that each may name all tokens of the other's PD."""
    with Pair(nicd, peer_nicd) as pair:
        yield pair.by_ticket(uses=64, peers=64).await_inside()
