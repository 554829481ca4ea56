# SPDX-License-Identifier: MIT
"""What comes from elsewhere, in every state in which it can: the device's answers, good and bad, the loss of the device, and what is gone
by itself, with its Qp or by a peer's message.

nicd --fault holds the device's answer back where something is to happen meanwhile. A peer cannot invalidate a fast registration whose
token it has not been told (VALID_PENDING), or that is dropped already (INVALIDATING): these two are left to tests/unit/nic."""
import os
import signal

import pytest

from nicdtest.daemon import wait_until
from nicdtest.pair import Pair
from nicdtest.pb import pb

from cells import KIND, TABLE, Subject

# Tags that the user's device is asked to add before the one that is under way: the pair's MR, and what the way there needs.
BEFORE = {"REGISTERING": 1, "INITIALIZING": 1, "VALID_PENDING": 2, "BIND_PENDING": 2}
DONE, FAILED, LOST, GONE = (sorted(k for k in TABLE.outcome if k[2] == step) for step in ("DONE", "FAILED", "LOST", "GONE"))


def fault(state, how):
    if state in BEFORE:
        return f"tag_add:{how}:skip={BEFORE[state]}:times=1"
    return f"tag_drop:{how}:times=1"


class Inbound:
    """The owner's side of a pair in the place of the user's: there the peer may name all tokens of the PD."""

    def __init__(self, pair):
        self.user, self.qp, self.peer = pair.owner, pair.inbound(), pair


@pytest.fixture
def subject(nicd, own_nicd, provider):
    """Makes an object of this kind in a session of a nicd of its own, whose device has the fault."""
    made = []

    def make(kind, spec=None, inbound=False):
        mine = own_nicd("127.0.0.3", options=["--fault", spec] if spec else (), provider=provider.name)
        pair = Pair(mine, nicd) if inbound else Pair(nicd, mine)
        made.append(pair)
        pair.by_ticket().await_inside()
        made.insert(0, Subject(Inbound(pair) if inbound else pair, KIND[kind]))
        return made[0]

    yield make
    for thing in made:
        thing.close()


@pytest.mark.parametrize("cell", DONE, ids="-".join)
def test_done(subject, cell):
    # mutation: another step in the device's answer
    it = subject(cell[0])
    batch = it.session.batch()
    it.go(cell[1], batch)
    assert not any(r.HasField("error") for r in batch.run())
    assert it.state() == TABLE.outcome[cell]


@pytest.mark.parametrize("cell", FAILED, ids="-".join)
def test_failed(subject, cell):
    # mutation: stay in the state that waits for the device
    it = subject(cell[0], fault(cell[1], "fail"))
    batch = it.session.batch()
    it.go(cell[1], batch)
    reply, = batch.run()
    assert reply.error.name == "DEVICE_FAILED", reply
    assert it.state() == TABLE.outcome[cell]


@pytest.mark.parametrize("cell", LOST, ids="-".join)
def test_lost(subject, cell):
    # mutation: leave an object in a state that only its device could end
    kind, state, _ = cell
    waits = (kind, state, "DONE") in TABLE.outcome
    it = subject(kind, fault(state, "never") if waits else fault(state, "fail") if state == "ERROR" else None)
    batch = it.session.batch()
    it.go(state, batch)
    ids = batch.send() if waits else []
    assert it.state() == state
    os.kill(it.pair.user.nicd.soft_pid, signal.SIGKILL)
    it.session.wait_event(pb.Event.DEVICE_STATE)
    # What was asked for came to nothing; what was to be dropped is gone with the device.
    after = TABLE.settled(kind, TABLE.outcome[cell])
    if state in BEFORE:
        after = TABLE.outcome[kind, state, "FAILED"]
    assert wait_until(lambda: it.state() == after), it.state()
    for reply in it.session.wait(ids):
        assert reply.HasField("error") == (state in BEFORE), reply


@pytest.mark.parametrize("cell", [c for c in GONE if c[0] == "WINDOW"], ids="-".join)
def test_gone_with_its_qp(subject, cell):
    # mutation: leave a window bound whose Qp is gone; end it twice
    kind, state, _ = cell
    waits = (kind, state, "DONE") in TABLE.outcome
    it = subject(kind, fault(state, "delay=300ms") if waits else fault(state, "fail") if state == "ERROR" else None)
    batch = it.session.batch()
    it.go(state, batch)
    ids = batch.send() if waits else []
    assert it.state() == state
    it.session.close_object(it.pair.qp)
    after = TABLE.settled(kind, TABLE.outcome[cell])
    assert wait_until(lambda: it.state() == after), it.state()
    for reply in it.session.wait(ids):
        assert not reply.HasField("error") or reply.error.name in ("QP_LOST", "FLUSHED"), reply
    # It can be bound again, on another Qp.
    it.pair.qp = it.session.connect_qp(it.pd, it.pair.owner.session.ticket(it.pair.owner.mr).locator)
    it.run("BIND")
    assert it.state() == "BOUND"


@pytest.mark.parametrize("cell", [c for c in GONE if c[0] == "FAST" and c[1] in ("VALID", "ERROR")], ids="-".join)
def test_gone_by_a_message(subject, cell):
    # mutation: keep the state that the client's calls have led to
    kind, state, _ = cell
    it = subject(kind, fault(state, "fail") if state == "ERROR" else None, inbound=True)
    it.go(state, it.session.batch())
    pair = it.pair.peer
    receive = pair.receive(length=10, qp=it.pair.qp)
    pair.user.session.wait([pair.send(length=1, invalidate=it.tokens.remote_token)])
    reply, = it.session.wait([receive])
    assert reply.completion.invalidated_token == it.tokens.remote_token
    assert it.state() == TABLE.outcome[cell]
