# SPDX-License-Identifier: MIT
"""The table of proto/reason.h, read as text: what every number must say, everywhere."""
import collections
import errno
import re

from .paths import SOURCE

Reason = collections.namedtuple("Reason", "number name status errno text cure")


def _string(text):
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))


def _read():
    text = (SOURCE / "proto" / "reason.h").read_text()
    body = text[text.index("#define NICD_REASONS(X)"):text.index("enum nicd_reason {")].replace("\\\n", " ")
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    table = {}
    row = r'X\(\s*(\d+),\s*(\w+),\s*(\w+),\s*(\w+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+)\)'
    for m in re.finditer(row, body):
        number, name, status, err, what, cure = m.groups()
        err = int(err) if err.isdigit() else getattr(errno, err)
        table[name] = Reason(int(number), name, status, err, _string(what), _string(cure))
    return table


REASONS = _read()
BY_NUMBER = {r.number: r for r in REASONS.values()}
