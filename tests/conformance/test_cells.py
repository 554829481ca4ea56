# SPDX-License-Identifier: MIT
"""Every call in every state of every kind, cell by cell of nicd/life.h."""
import pytest

from nicdtest.pair import Pair

from cells import CELLS, drive

# What is dropped when a case is over is less than five, so that nothing waits for a second try then.
REFUSES_TO_LET_GO = ("--fault", "tag_drop:fail:every=5")


@pytest.fixture
def user_nicd(pool, provider, cell):
    """The nicd under test; where the way leads through ERROR, one whose device refuses now and then to let go."""
    options = REFUSES_TO_LET_GO if cell[1] == "ERROR" else ()
    nicd = pool.get("127.0.0.2", options, provider=provider.name)
    yield nicd
    pool.check(nicd)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_cell(nicd, user_nicd, cell):
    # mutation: any cell of nicd/life.h in nicd, but not in the table that this is held against (mr.c asking for another step)
    with Pair(nicd, user_nicd) as pair:
        drive(pair.by_ticket(), cell)
