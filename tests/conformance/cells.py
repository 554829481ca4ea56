# SPDX-License-Identifier: MIT
"""Every call in every state: nicd's own table (nicd/life.h, as tests/spin/print-life prints it), and how a real nicd is driven into
each cell of it.

The states that last only until the device answers are reached in one frame with the call: requests start in order, and the device is
another process. ERROR is reached behind a device that refuses now and then to let go (nicd --fault)."""
import collections
import subprocess

from nicdtest.memory import Buffer
from nicdtest.pair import ALL
from nicdtest.paths import BUILD
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, pb
from nicdtest.reasons import REASONS
from nicdtest.wire import Refused, check_refused, ref, register_message

SIZE = 8192
IOVA = 0x3_0000_0000_0000
CLOSED = "CLOSED"
NEWS = ("DONE", "FAILED", "GONE", "LOST")
RIGHTS = pb.OP_ALLOW_REMOTE_READ | pb.OP_ALLOW_REMOTE_WRITE

Kind = collections.namedtuple("Kind", "name title type wrong_state")
KINDS = [
    Kind("NORMAL", "Normal memory regions", pb.MR, "MR_STATE"),
    Kind("FAST", "Fast-register memory regions", pb.MR, "MR_STATE"),
    Kind("WINDOW", "Memory windows", pb.MW, "MW_STATE"),
]
KIND = {k.name: k for k in KINDS}


class Table:
    """outcome[kind, state, step]: a state, "STATE" or "KIND"; what cannot be is not there."""

    def __init__(self):
        self.outcome = {}
        self.order = {"states": [], "calls": []}
        for line in subprocess.run([str(BUILD / "tests" / "spin" / "print-life"), "cells"], capture_output=True, check=True,
                                   text=True).stdout.splitlines():
            _, state, step, outcome = line.split()
            kind, state = state.split("_", 1)
            outcome = outcome if outcome in ("STATE", "KIND") else outcome.split("_", 1)[1]
            step = step.split("_", 1)[1]
            self.outcome[kind, state, step] = outcome
            self._note("states", (kind, state))
            if step not in NEWS:
                self._note("calls", (kind, step))

    def _note(self, what, name):
        if name not in self.order[what]:
            self.order[what].append(name)

    def states(self, kind):
        return [s for k, s in self.order["states"] if k == kind.name] + [CLOSED]

    def calls(self, kind):
        return [s for k, s in self.order["calls"] if k == kind.name]

    def settled(self, kind, state):
        """The state when the device has answered what is under way."""
        return self.outcome.get((kind, state, "DONE"), state)


TABLE = Table()
CELLS = [(k.name, state, step) for k in KINDS for state in TABLE.states(k) for step in TABLE.calls(k)]

# What the call's id must be of: another type is refused before anybody asks for the state.
TAKES = {"BIND": (pb.MW,), "GET_REMOTE_TOKEN": (pb.MR, pb.MW), "INVALIDATE": (pb.MR, pb.MW), "CLOSE": (pb.MR, pb.MW)}


def refusal(kind, state, step):
    """The reason that the cell gives; None: it is allowed."""
    if kind.type not in TAKES.get(step, (pb.MR,)):
        return "HANDLE_TYPE" if state != CLOSED else "HANDLE"
    if state == CLOSED:
        return "HANDLE"
    outcome = TABLE.outcome[kind.name, state, step]
    return {"STATE": kind.wrong_state, "KIND": "MR_KIND"}.get(outcome)


def describe(kind, state, step):
    reason = refusal(kind, state, step)
    if reason:
        return REASONS[reason].status
    if step == "CLOSE":
        return "(closed)"
    return TABLE.settled(kind.name, TABLE.outcome[kind.name, state, step])


class Subject:
    """One object in the user's session of a pair, and what brings it where."""

    def __init__(self, pair, kind):
        self.pair, self.kind, self.session, self.pd = pair, kind, pair.user.session, pair.user.pd
        self.buffer = Buffer(SIZE, 3)
        self.memory = self.session.add_memory(self.buffer.fd)
        create = {"NORMAL": pb.CreateMr(pd=ref(self.pd)), "FAST": pb.CreateMr(pd=ref(self.pd), fast_register=True),
                  "WINDOW": pb.CreateMw(pd=ref(self.pd))}[kind.name]
        self.it = self.session.call(create).object
        self.tokens = None   # of the last call that told some
        self.mr = None       # what the window is bound to
        if kind.name == "WINDOW":
            self.mr = self.session.register(self.session.create_mr(self.pd), [(self.memory, 0, SIZE)], IOVA, 0, LOCAL_WRITE)

    def close(self):
        self.buffer.close()

    # The calls, as the rows of the table are called.

    def register(self):
        return register_message(self.it, [(self.memory, 0, SIZE)], IOVA, flags=ALL)

    def fast_register(self):
        message = pb.FastRegister(mr=ref(self.it), qp=ref(self.pair.qp), length=SIZE, iova=IOVA, flags=RIGHTS)
        message.ranges.add(memory=ref(self.memory), length=SIZE)
        return message

    def bind(self, mw, mr):
        return pb.BindMw(mw=ref(mw), mr=ref(mr), qp=ref(self.pair.qp), iova=IOVA, length=SIZE, flags=RIGHTS)

    def messages(self, step):
        it = ref(self.it)
        calls = {
            "GET_LOCAL_TOKEN": lambda: [pb.GetLocalToken(mr=it)],
            "GET_REMOTE_TOKEN": lambda: [pb.GetRemoteToken(mr=it)],
            "REGISTER": lambda: [self.register()],
            "DEREGISTER": lambda: [pb.DeregisterMr(mr=it)],
            "INITIALIZE": lambda: [pb.InitializeFastRegister(mr=it, adapter_page_count=2, remote_access=True)],
            "FAST_REGISTER": lambda: [self.fast_register()],
            "INVALIDATE": lambda: [pb.Invalidate(object=it, qp=ref(self.pair.qp))],
            "BIND": lambda: [self.bind(self.it, self.mr or self.pair.user.mr)],
            "BIND_TO": lambda: [self.bind(self.session.call(pb.CreateMw(pd=ref(self.pd))).object, self.it)],
            "EXPORT": lambda: [pb.CreateExport(mr=it, name="cell", flags=REMOTE_READ), pb.CreateTicket(mr=it)],
            "CLOSE": lambda: [pb.Close(object=it)],
        }
        return calls[step]()

    def run(self, step):
        for message in self.messages(step):
            reply = self.session.call(message)
            self.tokens = reply.mr if reply.HasField("mr") else self.tokens

    # The way to each state: calls that are answered, then those that are still under way when the cell's call comes.

    WAYS = {
        ("NORMAL", "CREATED"): ([], []),
        ("NORMAL", "REGISTERING"): ([], ["REGISTER"]),
        ("NORMAL", "REGISTERED"): (["REGISTER"], []),
        ("NORMAL", "REVOKING"): (["REGISTER"], ["DEREGISTER"]),
        ("NORMAL", "ERROR"): ([], []),
        ("NORMAL", CLOSED): (["REGISTER"], ["CLOSE"]),
        ("FAST", "CREATED"): ([], []),
        ("FAST", "INITIALIZING"): ([], ["INITIALIZE"]),
        ("FAST", "FREE"): (["INITIALIZE"], []),
        ("FAST", "VALID_PENDING"): (["INITIALIZE"], ["FAST_REGISTER"]),
        ("FAST", "VALID"): (["INITIALIZE", "FAST_REGISTER"], []),
        ("FAST", "INVALIDATING"): (["INITIALIZE", "FAST_REGISTER"], ["INVALIDATE"]),
        ("FAST", "ERROR"): (["INITIALIZE"], []),
        ("FAST", CLOSED): (["INITIALIZE", "FAST_REGISTER"], ["CLOSE"]),
        ("WINDOW", "FREE"): ([], []),
        ("WINDOW", "BIND_PENDING"): ([], ["BIND"]),
        ("WINDOW", "BOUND"): (["BIND"], []),
        ("WINDOW", "INVALIDATING"): (["BIND"], ["INVALIDATE"]),
        ("WINDOW", "ERROR"): ([], []),
        ("WINDOW", CLOSED): (["BIND"], ["CLOSE"]),
    }
    THERE_AND_BACK = {"NORMAL": ("REGISTER", "DEREGISTER"), "FAST": ("FAST_REGISTER", "INVALIDATE"), "WINDOW": ("BIND", "INVALIDATE")}

    def go(self, state, batch):
        answered, under_way = self.WAYS[self.kind.name, state]
        for step in answered:
            self.run(step)
        for step in under_way:
            for message in self.messages(step):
                batch.add(message)
        if state == "ERROR":
            self.break_it()

    def break_it(self):
        there, back = self.THERE_AND_BACK[self.kind.name]
        for _ in range(8):
            self.run(there)
            try:
                self.run(back)
            except Refused as refused:
                assert refused.error.name == "DEVICE_FAILED"
                return
        raise AssertionError("the device let go every time")

    def state(self):
        found = [i.state for i in self.session.list(self.kind.type) if i.serial == self.it.serial]
        return found[0] if found else CLOSED


def drive(pair, cell):
    kind, state, step = KIND[cell[0]], cell[1], cell[2]
    subject = Subject(pair, kind)
    try:
        batch = subject.session.batch()
        subject.go(state, batch)
        if state != CLOSED and not batch.frame.requests:
            assert subject.state() == state
        n_before = len(batch.frame.requests)
        for message in subject.messages(step):
            batch.add(message)
        batch.add(pb.List(type=kind.type))
        ids = batch.send()
        replies = subject.session.wait(ids)
        order = [i for i in subject.session.order if i in ids]
        check(subject, state, step, replies[:n_before], replies[n_before:-1])
        if step == "CLOSE" and n_before and state != CLOSED:
            # Close is the last to be answered.
            assert order.index(ids[n_before]) > order.index(ids[0])
        seen = [i.state for i in replies[-1].list.items if i.serial == subject.it.serial]
        assert seen or state == CLOSED or step == "CLOSE"
        if seen and state != CLOSED:
            assert seen[0] in (led_to(kind, state, step), TABLE.settled(kind.name, led_to(kind, state, step)))
    finally:
        subject.close()


def led_to(kind, state, step):
    """The state at once: refused or not."""
    return state if refusal(kind, state, step) else TABLE.outcome[kind.name, state, step]


def check(subject, state, step, before, replies):
    kind = subject.kind
    reason = refusal(kind, state, step)
    for reply in before:
        # What a close finds under way it may cancel.
        assert not reply.HasField("error") or (step == "CLOSE" and reply.error.name == "REVOKED"), reply
    for reply in replies:
        if reason:
            check_refused(reply, reason)
        else:
            assert not reply.HasField("error"), reply
            if step.startswith("GET_"):
                assert reply.token
    after = CLOSED if state == CLOSED or (step == "CLOSE" and not reason) else TABLE.settled(kind.name, led_to(kind, state, step))
    assert subject.state() == after
