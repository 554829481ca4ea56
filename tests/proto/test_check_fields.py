# SPDX-License-Identifier: MIT
"""check-fields itself: each way to break the protocol must turn it red."""
import os
import subprocess

import pytest

CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check-fields")
PROTO = """
syntax = "proto3";
package p;
message Frame { repeated A as = 1; }
message A {
  uint32 x = 1;
  repeated bytes y = 2;
  oneof o { E e = 3; }
}
enum E { ZERO = 0; ONE = 1; }
"""


def check(path, *args):
    return subprocess.run([CHECK, "--lock", "lock", *args, "p.proto"], cwd=path, capture_output=True, text=True)


@pytest.fixture
def locked(tmp_path):
    """A directory with PROTO and its lock; call it with edits to see what the check says."""
    def edit(*edits, update=False):
        text = PROTO
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "p.proto").write_text(text)
        return check(tmp_path, *(["--update"] if update else []))
    assert edit(update=True).returncode == 0
    edit.lock = tmp_path / "lock"
    return edit


def test_same(locked):
    result = locked()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("edit,word", [
    # mutation: compare() does not look at keys that are gone
    (("uint32 x = 1;", ""), "removed"),
    (("uint32 x = 1;", "reserved 1;"), "removed"),
    (("ONE = 1;", ""), "removed"),
    # mutation: compare() does not compare what a line says
    (("uint32 x = 1;", "uint64 x = 1;"), "changed"),
    (("uint32 x = 1;", "repeated uint32 x = 1;"), "changed"),
    (("repeated bytes y = 2;", "bytes y = 2;"), "changed"),
    (("uint32 x = 1;", "uint32 z = 1;"), "changed"),
    (("oneof o { E e = 3; }", "E e = 3;"), "changed"),
    (("ONE = 1;", "UNO = 1;"), "changed"),
    # mutation: compare() without the names that moved
    (("uint32 x = 1;", "uint32 x = 9;"), "renumbered"),
    (("ONE = 1;", "ONE = 2;"), "renumbered"),
])
def test_changed(locked, edit, word):
    for update in (False, True):
        result = locked(edit, update=update)
        assert result.returncode == 1
        assert word in result.stderr


def test_added(locked):
    edit = ("uint32 x = 1;", "uint32 x = 1; uint32 z = 4;")
    before = locked.lock.read_text()
    # mutation: main() does not mind what is not in the lock
    assert "not in the lock" in locked(edit).stderr
    assert locked.lock.read_text() == before
    assert locked(edit, update=True).returncode == 0
    assert set(before.splitlines()) < set(locked.lock.read_text().splitlines())
    assert locked(edit).returncode == 0
    assert "removed" in locked().stderr


@pytest.mark.parametrize("edit,word", [
    # mutation: recursive() answers nothing
    (("uint32 x = 1;", "uint32 x = 1; A inner = 4;"), "contains itself"),
    (("uint32 x = 1;", "uint32 x = 1; Frame outer = 4;"), "contains itself"),
    (("uint32 x = 1;", "uint32 x = 1; uint32 base = 4;"), "`base`"),
    (("uint32 x = 1;", "uint32 x = 1; optional uint32 z = 4;"), "optional"),
    (("uint32 x = 1;", "uint32 x = 1; map<uint32, uint32> z = 4;"), "maps"),
    (("repeated A as = 1;", "repeated A as = 1; A more = 16;"), "up to 15"),
])
def test_lint(locked, edit, word):
    result = locked(edit, update=True)
    assert result.returncode == 1
    assert word in result.stderr


def test_line_twice(tmp_path):
    (tmp_path / "p.proto").write_text(PROTO)
    (tmp_path / "lock").write_text("field p.A 1 x single uint32\nfield p.A 1 z single uint32\n")
    assert "two lines" in check(tmp_path).stderr
