# SPDX-License-Identifier: MIT
"""What was found out, by rule and by cell, and CONFORMANCE.md, which is made of it and of nothing else."""
import pathlib

import pytest

from cells import CELLS, CLOSED, KINDS, NEWS, TABLE, describe
from providers import FACTS, PROVIDERS
from rules import PAGES, RULES

KEY = pytest.StashKey()
FILE = pathlib.Path(__file__).resolve().parent / "CONFORMANCE.md"

HEAD = """\
<!-- Made by `tests/run --update conformance`. Do not edit: tests/run fails when this is not what the suite finds out. -->
# NDKPI, rule by rule

What nicd does of NDKPI's memory-region surface, shown by tests on a real nicd. Pages are those of Microsoft's documentation
(`windows-driver-docs-ddi`, and `windows-driver-docs` for those without a prefix); ND2 is Network Direct 2's specification, which says
what NDKPI leaves open.

Who says so: **NDK**: the page. **ND2**: NDKPI is silent or vague, ND2 is not. **nicd**: neither says anything, nicd defines it.
**differs**: nicd does something else on purpose; why is in [Deliberate differences](#deliberate-differences).
Result: **ok**: all cases of the rule passed. **FAILS**: one did not, or the rule has no case.
"""


CELLS_HEAD = """\
The states and what leads from one to the other are `nicd/life.h`, from which nicd itself works; each cell was driven on a real nicd.
CLOSED: the object's close has begun, or is over. A name: success, and the state that follows when the device has answered. The last four
rows are what comes from elsewhere: the device has done or refused what was asked of it, the object's tag is gone by itself (a peer's
message, the end of its Qp), or the device is lost, and the state that this leads to at once; "-": cannot be; (unit): no client can bring
it about from outside, `tests/unit/nic` does.
"""


class Results:
    def __init__(self):
        self.tests = {}       # rule -> names of its cases
        self.outcomes = {}    # (rule, provider) -> all passed
        self.cells = {}       # (kind, state, step, provider) -> passed
        self.partial = False  # not all of the suite is run

    def expect_all(self, items):
        for item in items:
            for marker in item.iter_markers("rule"):
                for rule in marker.args:
                    names = self.tests.setdefault(rule, [])
                    name = f"{item.path.name}::{item.originalname}"
                    if name not in names:
                        names.append(name)

    def add(self, item, call, result):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if "provider" not in params or (result.when != "call" and result.passed):
            return
        provider = params["provider"].name
        for marker in item.iter_markers("rule"):
            for rule in marker.args:
                key = rule, provider
                self.outcomes[key] = self.outcomes.get(key, True) and result.passed
        if "cell" in params:
            key = (*params["cell"], provider)
            self.cells[key] = self.cells.get(key, True) and result.passed

    def ok(self, rule, provider):
        return self.outcomes.get((rule, provider), False)

    def text(self):
        return "\n".join([HEAD, *self._summary(), *self._pages(), *self._cells(), *self._facts(), *self._differences()]) + "\n"

    def _summary(self):
        yield f"{len(RULES)} rules, of which nicd differs in {sum(1 for r in RULES.values() if r.why)} on purpose; {len(CELLS)} cells. Passed: "
        for provider in PROVIDERS:
            rules = sum(self.ok(rule, provider.name) for rule in RULES)
            cells = sum(self.cells.get((*cell, provider.name), False) for cell in CELLS)
            yield f"- {provider.name}: {rules} rules, {cells} cells"
        yield ""

    def _pages(self):
        names = [p.name for p in PROVIDERS]
        for page in PAGES:
            yield f"## {page.call}: `{page.name}`\n"
            yield f"| rule | what it says | who | test | {' | '.join(names)} |"
            yield "|---" * (4 + len(names)) + "|"
            for rule in page.rules:
                tests = "<br>".join(f"`{t}`" for t in sorted(self.tests.get(rule.id, ["none"])))
                results = " | ".join("ok" if self.ok(rule.id, n) else "**FAILS**" for n in names)
                yield f"| {rule.id} | {rule.says} | {'differs' if rule.why else rule.who} | {tests} | {results} |"
            yield ""

    def _cells(self):
        yield "## Every call in every state\n"
        yield CELLS_HEAD
        for kind in KINDS:
            states = TABLE.states(kind)
            yield f"### {kind.title}\n"
            yield f"| | {' | '.join(states)} |"
            yield "|---" * (1 + len(states)) + "|"
            for step in TABLE.calls(kind):
                cells = []
                for state in states:
                    failing = [p.name for p in PROVIDERS if not self.cells.get((kind.name, state, step, p.name), False)]
                    cells.append(describe(kind, state, step) + (f" **FAILS on {', '.join(failing)}**" if failing else ""))
                yield f"| {step} | {' | '.join(cells)} |"
            for step in NEWS:
                yield f"| {step} | {' | '.join(self._news(kind, state, step) for state in states)} |"
            yield ""

    def _news(self, kind, state, step):
        outcome = TABLE.outcome.get((kind.name, state, step))
        if not outcome:
            return "" if state == CLOSED else "-"
        results = {p.name: self.cells.get((kind.name, state, step, p.name)) for p in PROVIDERS}
        failing = [name for name, ok in results.items() if ok is False]
        return outcome + (" (unit)" if None in results.values() else "") + (f" **FAILS on {', '.join(failing)}**" if failing else "")

    def _facts(self):
        yield "## What providers do differently\n"
        yield f"| fact | {' | '.join(p.name for p in PROVIDERS)} |"
        yield "|---" * (1 + len(PROVIDERS)) + "|"
        for fact in FACTS.values():
            values = (fact.values[p.name] for p in PROVIDERS)
            yield f"| {fact.says} | {' | '.join(f'`{v.value}`: {v.why}' for v in values)} |"
        yield ""

    def _differences(self):
        yield "## Deliberate differences\n"
        yield "| rule | NDKPI | nicd | why |"
        yield "|---|---|---|---|"
        for rule in RULES.values():
            if rule.why:
                yield f"| {rule.id} | {rule.ndk} | {rule.says} | {rule.why} |"
