#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tap.py PROGRAM [ARGUMENT...]: runs a program that speaks TAP, and mends what cmocka says of a skipped test.

cmocka's "not ok N # SKIP name" is a failure to whoever reads TAP, and has no reason. It becomes "ok N - name # SKIP reason"; the reason is the comment
before it, without which a test may not be skipped.
"""
import re
import subprocess
import sys

SKIPPED = re.compile(r"not ok (\d+) # SKIP (\S+)\s*$")
ENDED = re.compile(r"(not )?ok \d+")


def mend(lines):
    """The lines as they should be."""
    reason = None
    for line in lines:
        skipped = SKIPPED.match(line)
        if skipped and reason:
            line = f"ok {skipped[1]} - {skipped[2]} # SKIP {reason}\n"
        if line.startswith("# "):
            reason = line[2:].strip()
        elif ENDED.match(line):
            reason = None
        yield line


def run(program, **how):
    """Answers its exit code; the rest is subprocess.run's. Tests are short: what they say is told when they end."""
    out, code = "", 1
    try:
        done = subprocess.run(program, stdout=subprocess.PIPE, check=False, **how)
        out, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        out = late.stdout or b""
        print(f"# too late: {late}", file=sys.stderr)
    finally:
        sys.stdout.writelines(mend(out.decode(errors="replace").splitlines(keepends=True) if out else []))
        sys.stdout.flush()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
