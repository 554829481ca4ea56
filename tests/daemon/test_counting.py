# SPDX-License-Identifier: MIT
"""tests/run's totals: what died counts as failed, what was skipped never as passed."""
import json

import pytest

from nicdtest.results import count_meson, count_pytest

CASES = """<testsuites><testsuite name="pytest">
<testcase classname="a" name="good"/>
<testcase classname="a" name="bad"><failure message="x"/></testcase>
<testcase classname="a" name="broken fixture"><error message="x"/></testcase>
<testcase classname="a" name="left out"><skipped message="no reason"/></testcase>
</testsuite></testsuites>"""
GOOD = "<testsuites><testsuite name='p.one'><testcase name='t1'/><testcase name='t2'/></testsuite></testsuites>"


@pytest.mark.parametrize("text, code, passed, failed, skipped", [
    (CASES, 1, 1, 2, 1),
    (GOOD, 0, 2, 0, 0),
    (GOOD, 1, 2, 1, 0),          # it says that something failed, and does not say what
    (GOOD, 3, 2, 1, 0),          # pytest's own failure
    (GOOD, 139, 2, 1, 0),        # it died
    ("<testsuites>", 0, 0, 1, 0),
    (None, 139, 0, 1, 0),
    ("<testsuites/>", 5, 0, 0, 0),
])
def test_pytest(tmp_path, text, code, passed, failed, skipped):
    # mutation: count from the runner's exit code alone, or from its file alone
    junit = tmp_path / "junit.xml"
    if text is not None:
        junit.write_text(text)
    totals = count_pytest(junit, code)
    assert (totals.passed, totals.failed, len(totals.skipped)) == (passed, failed, skipped)


@pytest.mark.parametrize("result, text, code, passed, failed", [
    ("OK", GOOD, 0, 2, 0),
    ("FAIL", GOOD, 1, 2, 1),     # crashed behind its last good line
    ("TIMEOUT", GOOD, 1, 2, 1),
    ("ERROR", "<testsuites/>", 1, 0, 1),
    ("FAIL", "<testsuites><testsuite name='p.one'><testcase name='t1'/><testcase name='t2'><failure/></testcase></testsuite></testsuites>",
     1, 1, 1),
    ("FAIL", "<testsuites><testsuite name='p'><testcase name='one'><failure/></testcase></testsuite></testsuites>", 1, 0, 1),
    ("SKIP", "<testsuites><testsuite name='p'><testcase name='one'><skipped/></testcase></testsuite></testsuites>", 0, 0, 0),
    ("OK", GOOD, 2, 2, 1),       # meson itself failed
])
def test_meson(tmp_path, result, text, code, passed, failed):
    # mutation: trust the TAP lines of a program that crashed
    junit, log = tmp_path / "junit.xml", tmp_path / "log.json"
    junit.write_text(text)
    log.write_text(json.dumps({"name": "p / one", "result": result}) + "\n")
    totals = count_meson(log, junit, code)
    assert (totals.passed, totals.failed) == (passed, failed)
