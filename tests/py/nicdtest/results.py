# SPDX-License-Identifier: MIT
"""Counts what a runner did: `results.py meson JSON JUNIT CODE` or `results.py pytest JUNIT CODE`. Prints "PASSED FAILED", and then a line
per skipped test. What a runner did not write down before it crashed counts as one failure; what was skipped never
counts as passed."""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


class Totals:
    def __init__(self):
        self.passed = self.failed = 0
        self.skipped = []

    def add_cases(self, suite):
        """The cases below an element; answers how many of them failed."""
        failed = 0
        for case in suite.iter("testcase"):
            name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif skipped is not None:
                why = skipped.get("message") or skipped.text or case.findtext("system-out") or ""
                self.skipped.append(f"{name}: {why.strip()}")
            else:
                self.passed += 1
        self.failed += failed
        return failed


def read_xml(path):
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return None


def count_pytest(junit, code):
    totals = Totals()
    root = read_xml(junit)
    failed = totals.add_cases(root) if root is not None else 0
    # 0: all passed, 1: some failed, 5: there are none. Everything else is a runner that did not come to its end.
    if root is None or code not in (0, 1, 5) or (code == 1 and not failed):
        totals.failed += 1
    return totals


def count_meson(log, junit, code):
    totals = Totals()
    root = read_xml(junit)
    failed = totals.add_cases(root) if root is not None else 0
    try:
        programs = [json.loads(line) for line in pathlib.Path(log).read_text().splitlines()]
    except (OSError, ValueError):
        programs = []
    # A program that crashed behind its last TAP line has only good cases in the JUnit file.
    crashed = 0
    for program in programs:
        if program["result"] in ("OK", "EXPECTEDFAIL", "SKIP"):
            continue
        name = program["name"].split(" / ")[-1]
        suites = [s for s in (root.iter("testsuite") if root is not None else ()) if s.get("name", "").split(".")[-1] == name]
        told = any(c.find("failure") is not None or c.find("error") is not None for s in suites for c in s.iter("testcase"))
        in_project = root is not None and any(c.get("name") == name and (c.find("failure") is not None or c.find("error") is not None)
                                              for c in root.iter("testcase"))
        if not told and not in_project:
            crashed += 1
    totals.failed += crashed
    if code != 0 and not failed and not crashed:
        totals.failed += 1
    return totals


def main(arguments):
    kind, *files, code = arguments
    totals = {"pytest": count_pytest, "meson": count_meson}[kind](*files, int(code))
    print(totals.passed, totals.failed)
    for line in totals.skipped:
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
