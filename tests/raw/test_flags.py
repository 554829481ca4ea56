# SPDX-License-Identifier: MIT
"""Replies to silent successes, seen from the socket: what is held is there, in its place, whatever the session does next."""
import pytest

from nicdtest.pair import Pair
from nicdtest.pb import pb

SILENT = pb.OP_SILENT_SUCCESS


@pytest.fixture
def p(nicd, peer_nicd):
    with Pair(nicd, peer_nicd) as pair:
        yield pair.by_export(uses=4, peers=4).await_inside()


def silent_writes(p, n):
    ids = []
    for i in range(n):
        it = p.message(pb.Write, 0, 0, 1 + i)
        it.flags = SILENT
        ids.append(p.user.session.start(it))
    p.user.session.quiet(0.3)
    return ids


def test_before_fatal(p):
    """A session that breaks the protocol hears first of what has succeeded."""
    ids = silent_writes(p, 1)
    assert ids[0] in p.user.session.in_flight
    p.user.session.send_raw(b"\xff\xff\xff")
    # mutation: drop what is held when the session ends by a violation
    assert p.user.session.wait_end().name == "FRAME_UNDECODABLE"
    assert not p.user.session.in_flight


def test_next_frame_of_any_kind(p):
    """Also one to which nothing is answered yet: a receive."""
    ids = silent_writes(p, 1)
    assert ids[0] in p.user.session.in_flight
    receive = p.receive(0, 10, p.qp, p.user)
    # mutation: bring them out with replies only
    reply, = p.user.session.wait(ids)
    assert reply.completion.bytes == 1
    assert receive in p.user.session.in_flight


def test_end_with_held_ones(p):
    """The session goes: nothing of them is left (each test ends with a look at the ledger)."""
    silent_writes(p, 3)
    p.user.session.close()
