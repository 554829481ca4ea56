# SPDX-License-Identifier: MIT
"""Memory windows: making, binding, tokens, invalidating, and what they do to their MR."""
import pytest

from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, pb
from nicdtest.wire import check_refused, ref

from parts import BOTH, IOVA, PAGE, SIZE, Owned, other_connection, state_of
from rules import rule
from test_fast import send_and_invalidate

READ, WRITE = pb.OP_ALLOW_REMOTE_READ, pb.OP_ALLOW_REMOTE_WRITE


@pytest.fixture
def o(pair):
    with Owned(pair) as owned:
        yield owned


@rule("create-mw.unbound")
def test_unbound(o):
    # mutation: a token for a window that is bound to nothing
    before = o.pair.owner.nicd.ledger().provider_tags
    mw = o.window()
    assert state_of(o.session, mw, pb.MW) == "FREE" and o.pair.owner.nicd.ledger().provider_tags == before
    o.refused(pb.GetRemoteToken(mr=ref(mw)), "MW_STATE", pb.INVALID_DEVICE_STATE)


@rule("bind.range", "bind.zero")
def test_range(o):
    # mutation: add before comparing; compare one end only
    mr, mw = o.normal(LOCAL_WRITE, ranges=[(0, 4 * PAGE)]), o.window()
    end = IOVA + 4 * PAGE
    for iova, length in ((IOVA - 1, 1), (IOVA - 1, 4 * PAGE), (IOVA, 4 * PAGE + 1), (end, 1), (end - 1, 2), (1, SIZE)):
        o.refused(o.bind_message(mw, mr, iova=iova, length=length), "WINDOW_RANGE", pb.INVALID_PARAMETER)
    o.refused(o.bind_message(mw, mr, iova=IOVA + PAGE, length=2 ** 64 - PAGE), ("WINDOW_RANGE", "IOVA_OVERFLOW"), pb.INVALID_PARAMETER)
    o.refused(o.bind_message(mw, mr, length=0), "LENGTH_ZERO", pb.INVALID_PARAMETER)
    assert o.can_read(o.bind(mw, mr, iova=end - 1, length=1).remote_token, 4 * PAGE - 1, 1) == o.buffer[4 * PAGE - 1:4 * PAGE]


@rule("bind.reach", "bind.no-remote-needed")
@pytest.mark.parametrize("flags, reads, writes", [(READ, True, False), (WRITE, False, True), (BOTH, True, True)])
def test_reach(o, flags, reads, writes):
    # mutation: give the MR's range, or the MR's rights, to the window
    mr = o.normal(LOCAL_WRITE)
    wrong = [pb.Read] * (not reads) + [pb.Write] * (not writes)
    # A refusal ends the connection and, with it, the window: each has its own.
    for kind in (None, *wrong, "before", "behind"):
        qp, inbound = other_connection(o.pair)
        token = o.bind(o.window(), mr, flags, iova=IOVA + 100, length=1000, qp=inbound).remote_token
        o.pair.qp = qp
        if kind is None:
            if reads:
                assert o.can_read(token, 100, 1000) == o.buffer[100:1100]
            if writes:
                o.can_write(token, 200, 300)
                assert o.buffer[200:500] == b"\x5a" * 300
        elif kind in ("before", "behind"):
            at = {"before": 99, "behind": 1099}[kind]
            o.peer_refused(pb.Read if reads else pb.Write, token, at, 2, connection=qp)
        else:
            o.peer_refused(kind, token, 100, 10, connection=qp)


@rule("bind.write", "bind.rights")
def test_rights(o):
    # mutation: take remote write without the MR's local write; bind with no right at all
    mr, mw = o.normal(REMOTE_READ), o.window()
    for flags in (WRITE, BOTH):
        o.refused(o.bind_message(mw, mr, flags), "WINDOW_RIGHTS", pb.ACCESS_VIOLATION)
    for flags in (0, pb.OP_READ_FENCE, 0x20):
        o.refused(o.bind_message(mw, mr, flags), "FLAGS", pb.INVALID_PARAMETER)
    o.bind(mw, mr, READ)


@rule("bind.overlap")
def test_overlap(o):
    # mutation: one window per MR
    mr = o.normal(LOCAL_WRITE)
    reader = o.bind(o.window(), mr, READ, length=2 * PAGE).remote_token
    writer = o.bind(o.window(), mr, WRITE, iova=IOVA + PAGE, length=2 * PAGE).remote_token
    same = o.bind(o.window(), mr, READ, length=2 * PAGE).remote_token
    assert len({reader, writer, same}) == 3
    o.can_write(writer, PAGE, PAGE)
    assert o.can_read(reader, PAGE) == o.can_read(same, PAGE) == b"\x5a" * PAGE


@rule("bind.one-qp")
def test_for_one_peer(o):
    # mutation: let the whole PD's peers use it
    token = o.bind(o.window(), o.normal()).remote_token
    o.peer_refused(pb.Read, token)
    assert o.can_read(token) == o.buffer[:PAGE]


@rule("bind.twice", "mw-token.when", "invalidate.window")
def test_bind_again(o):
    # mutation: bind over what is bound; the same token again
    mr, mw, seen = o.normal(), o.window(), set()
    for _ in range(3):
        tokens = o.bind(mw, mr)
        o.refused(o.bind_message(mw, mr), "MW_STATE", pb.INVALID_DEVICE_STATE)
        assert o.session.remote_token(mw) == tokens.remote_token not in seen
        o.can_read(tokens.remote_token)
        o.invalidate(mw)
        assert state_of(o.session, mw, pb.MW) == "FREE"
        o.refused(pb.GetRemoteToken(mr=ref(mw)), "MW_STATE")
        o.refused(pb.Invalidate(object=ref(mw), qp=ref(o.qp)), "MW_STATE", pb.INVALID_DEVICE_STATE)
        seen.add(tokens.remote_token)
    o.bind(mw, mr)
    qp, _ = other_connection(o.pair)
    for token in seen:
        o.peer_refused(pb.Read, token)


@rule("bind.fast", "invalidate.bound")
def test_of_a_fast_registered_one(o):
    # mutation: invalidate an MR under its window
    mr, mw = o.fast(), o.window()
    o.refused(o.bind_message(mw, mr), "MR_STATE", pb.INVALID_DEVICE_STATE)
    o.fast_register(mr, pb.OP_ALLOW_LOCAL_WRITE)
    token = o.bind(mw, mr).remote_token
    o.refused(pb.Invalidate(object=ref(mr), qp=ref(o.qp)), "WINDOW_BOUND", pb.DEVICE_BUSY)
    assert o.can_read(token) == o.buffer[:PAGE]
    o.invalidate(mw)
    o.invalidate(mr)


@rule("deregister-mr.bound")
def test_deregister_under_a_window(o):
    # mutation: deregister, or leave the MR unusable, or count a window that is free again
    mr, mw = o.normal(LOCAL_WRITE | REMOTE_READ), o.window()
    token = o.bind(mw, mr).remote_token
    o.refused(pb.DeregisterMr(mr=ref(mr)), "WINDOW_BOUND", pb.DEVICE_BUSY)
    assert o.can_read(token) == o.can_read(o.session.remote_token(mr)) == o.buffer[:PAGE]
    o.invalidate(mw)
    o.session.deregister(mr)


@rule("life.mr-before-window")
@pytest.mark.parametrize("kind", ["normal", "fast"])
@pytest.mark.parametrize("end", ["invalidate", "close"])
def test_mr_before_window(o, kind, end):
    # mutation: refuse to close it, answer at once, or end the window
    mr = o.normal() if kind == "normal" else o.fast()
    if kind == "fast":
        o.fast_register(mr, pb.OP_ALLOW_LOCAL_WRITE)
    windows = [o.window() for _ in range(2)]
    tokens = [o.bind(mw, mr).remote_token for mw in windows]
    closing = o.session.start(pb.Close(object=ref(mr)))
    for mw, token in zip(windows, tokens):
        assert o.can_read(token) == o.buffer[:PAGE]
        assert closing not in o.session.replies
        if end == "invalidate":
            o.invalidate(mw)
        else:
            o.session.close_object(mw)
    reply, = o.session.wait([closing])
    assert not reply.HasField("error")


@rule("life.window-of-qp")
def test_end_of_the_qp(o):
    # mutation: leave a window bound whose peer is gone
    mr, mw = o.normal(), o.window()
    qp, inbound = other_connection(o.pair)
    o.bind(mw, mr, qp=inbound)
    o.pair.user.session.close_object(qp)
    event = o.session.wait_event(pb.Event.REVOKED, mw.serial)
    assert event.error.name == "QP_LOST" and state_of(o.session, mw, pb.MW) == "FREE"
    o.session.deregister(mr)


@rule("send-invalidate.window")
def test_remote_invalidate(o):
    # mutation: let another peer do it, or none
    mr, mw = o.normal(), o.window()
    token = o.bind(mw, mr).remote_token
    qp, inbound = other_connection(o.pair)
    sent, _ = send_and_invalidate(o, token, qp, inbound)
    check_refused(sent, ("REMOTE_INVALIDATE", "REMOTE_TERMINATE", "QP_LOST", "PEER_CLOSED"))
    assert state_of(o.session, mw, pb.MW) == "BOUND"
    sent, received = send_and_invalidate(o, token)
    assert not sent.HasField("error") and received.completion.invalidated_token == token
    assert state_of(o.session, mw, pb.MW) == "FREE"
    assert o.session.wait_event(pb.Event.REMOTE_INVALIDATED, mw.serial)
    o.session.deregister(mr)
