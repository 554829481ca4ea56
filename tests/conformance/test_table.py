# SPDX-License-Identifier: MIT
"""The rules, the cases and CONFORMANCE.md are held against each other."""
import difflib

import pytest

import report
from cells import CELLS, KINDS, TABLE
from rules import RULES


def test_every_rule_has_a_case_and_every_case_a_rule(request):
    # mutation: a rule that nothing shows; a case of a rule that is not in the table
    results = request.config.stash[report.KEY]
    if results.partial:
        pytest.skip("only a part of the suite is run")
    assert set(results.tests) == set(RULES)


def test_every_cell_has_a_case():
    # mutation: forget a call, or a state
    assert {c[:3] for c in CELLS} == {(k.name, state, step) for k in KINDS for state in TABLE.states(k) for step in TABLE.calls(k)}


def test_the_table_is_current(request):
    # mutation: leave CONFORMANCE.md as it is after a rule, a case or a cell was changed
    results = request.config.stash[report.KEY]
    if results.partial:
        pytest.skip("only a part of the suite is run")
    text = results.text()
    if request.config.getoption("--update"):
        report.FILE.write_text(text)
    committed = report.FILE.read_text() if report.FILE.exists() else ""
    changes = "\n".join(difflib.unified_diff(committed.splitlines(), text.splitlines(), "CONFORMANCE.md", "what was found out",
                                             lineterm="", n=0))
    assert not changes, f"CONFORMANCE.md is stale: tests/run --update conformance\n{changes}"
