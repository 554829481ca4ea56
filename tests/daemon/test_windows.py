# SPDX-License-Identifier: MIT
"""Memory windows between real peers: who may use one, what of a token is left when it has gone, and many clients at once."""
import random

import pytest

from nicdtest.daemon import wait_until
from nicdtest.memory import Buffer
from nicdtest.pair import OWNER_IOVA, Pair
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import expect_refused, ref

READ, WRITE = pb.OP_ALLOW_REMOTE_READ, pb.OP_ALLOW_REMOTE_WRITE
PEERS = 8


@pytest.fixture
def pair(nicd, peer_nicd):
    """The owner's MR lets nobody in by itself; a second one of no use has the ticket."""
    with Pair(nicd, peer_nicd, owner_flags=LOCAL_WRITE) as p:
        side = p.owner
        p.door_mr = side.session.region(side.pd, side.buffer.fd, 4096, REMOTE_READ)
        p.door = side.session.ticket(p.door_mr, uses=PEERS, peers=PEERS)
        p.qp = p.connect(p.door)
        p.grant = p.qp.grant
        p.await_inside()
        p.end = p.inbound()
        yield p


def another(p):
    """A second peer of the same PD: (its Qp, the owner's end)."""
    qp = p.connect(p.door)
    p.await_inside()
    return qp, p.inbound()


def window(p):
    return p.owner.session.call(pb.CreateMw(pd=ref(p.owner.pd))).object


def bind_message(p, mw, offset=0, length=1000, flags=READ, qp=None, mr=None):
    return pb.BindMw(mw=ref(mw), mr=ref(mr or p.owner.mr), qp=ref(qp or p.end), iova=OWNER_IOVA + offset, length=length, flags=flags)


def bind(p, mw, *args, **kw):
    return p.owner.session.call(bind_message(p, mw, *args, **kw)).mr


def invalidate(p, mw, qp=None):
    return p.owner.session.call(pb.Invalidate(object=ref(mw), qp=ref(qp or p.end))).receipt


def read(p, token, offset=0, length=16, qp=None):
    p.read(0, 0, length, token=token, address=OWNER_IOVA + offset, qp=qp)
    return p.user.buffer[:length]


def refused_read(p, token, *args, reason="REMOTE_TOKEN", **kw):
    with expect_refused(reason):
        read(p, token, *args, **kw)


def state_of(p, mw):
    item, = (i for i in p.owner.session.list(pb.MW) if i.serial == mw.serial)
    return item


def test_one_peer_alone(pair):
    # mutation: a window for all of the PD
    p = pair
    qp, _ = another(p)
    mw = window(p)
    tokens = bind(p, mw, 100, 1000)
    assert (tokens.local_token, tokens.iova, tokens.length, tokens.flags) == (0, OWNER_IOVA + 100, 1000, REMOTE_READ)
    assert read(p, tokens.remote_token, 100, 1000) == p.owner.buffer[100:1100]
    refused_read(p, tokens.remote_token, 100, qp=qp)
    assert read(p, tokens.remote_token, 100, 1000) == p.owner.buffer[100:1100]
    # Inside the MR, outside the window.
    refused_read(p, tokens.remote_token, 1100, 1, reason="REMOTE_RANGE")


def test_other_door(pair):
    # mutation: let a stream of an export use the windows of its PD
    p = pair
    exported = p.owner.session.region(p.owner.pd, p.owner.buffer.fd, 4096, REMOTE_READ, iova=0x3_0000_0000_0000)
    door = p.owner.session.export(exported, "window", REMOTE_READ)
    mw = window(p)
    token = bind(p, mw).remote_token
    qp = p.connect(door)
    p.await_inside()
    end = p.inbound()
    refused_read(p, token, qp=qp)
    # but of its own: the owner may open more to this peer than the export does
    assert wait_until(lambda: not any(i.serial == end.serial for i in p.owner.session.list(pb.QP)))
    door = p.owner.session.export(exported, "more", REMOTE_READ)
    qp = p.connect(door)
    p.await_inside()
    token = bind(p, window(p), 200, 100, WRITE, qp=p.inbound()).remote_token
    p.write(0, 0, 100, token=token, address=OWNER_IOVA + 200, qp=qp)
    assert p.owner.buffer[200:300] == p.user.buffer[:100]


def test_overlapping(pair):
    # mutation: give all windows of an MR the same rights
    p = pair
    reads, writes = (window(p) for _ in range(2))
    for_read, for_write = bind(p, reads, 0, 4096, READ).remote_token, bind(p, writes, 2048, 4096, WRITE).remote_token
    p.write(0, 0, 100, token=for_write, address=OWNER_IOVA + 3000)
    assert read(p, for_read, 3000, 100) == p.owner.buffer[3000:3100] == p.user.buffer[:100]
    before = p.owner.buffer[:100]
    with expect_refused("REMOTE_TOKEN"):
        p.write(200, 0, 100, token=for_read, address=OWNER_IOVA)
    assert p.owner.buffer[:100] == before


@pytest.mark.parametrize("how", ["invalidate", "close", "rebind", "qp", "revoke", "revoke MR", "message"])
def test_stale_token(pair, how):
    """After each of its ends, an old token opens nothing."""
    # mutation: answer before the tag is gone; draw the same token again
    p = pair
    owner = p.owner.session
    mw = window(p)
    token = bind(p, mw).remote_token
    assert read(p, token) == p.owner.buffer[:16]
    if how == "invalidate":
        assert invalidate(p, mw).serial == mw.serial
    elif how == "close":
        assert owner.call(pb.Close(object=ref(mw))).receipt.serial == mw.serial
    elif how == "rebind":
        for generation in range(2, 258):
            invalidate(p, mw)
            again = bind(p, mw)
            assert again.generation == generation and again.remote_token != token
    elif how == "qp":
        owner.call(pb.Disconnect(qp=ref(p.end)))
        event = owner.wait_event(pb.Event.REVOKED, mw.serial)
        assert (event.object, event.error.name) == (mw.id, "QP_LOST")
        p.qp, p.end = another(p)
    elif how == "revoke":
        owner.call(pb.Revoke(serial=mw.serial))
        owner.wait_event(pb.Event.REVOKED, mw.serial)
    elif how == "revoke MR":
        owner.call(pb.Revoke(serial=p.owner.mr.serial))
        owner.wait_event(pb.Event.REVOKED, mw.serial)
    else:
        sink = owner.region(p.owner.pd, p.owner.buffer.fd, 4096, LOCAL_WRITE, iova=0x4_0000_0000_0000)
        room = owner.start(pb.Receive(qp=ref(p.end), local_token=sink.local_token, local_addr=sink.iova, length=16))
        p.user.session.wait([p.send(0, 8, invalidate=token)])
        reply, = owner.wait([room])
        assert reply.completion.invalidated_token == token
        owner.wait_event(pb.Event.REMOTE_INVALIDATED, mw.serial)
    if how not in ("close", "rebind"):
        item = state_of(p, mw)
        assert (item.state, item.parent, item.qp, item.size) == ("FREE", 0, 0, 0)
        with expect_refused("MW_STATE"):
            owner.call(pb.GetRemoteToken(mr=ref(mw)))
        with expect_refused("MW_STATE"):
            invalidate(p, mw)
    refused_read(p, token)


def test_mr_under_windows(pair):
    # mutation: deregister under a window; end the close before the last one
    p = pair
    owner = p.owner.session
    first, second = window(p), window(p)
    bind(p, first)
    bind(p, second, 500)
    with expect_refused("WINDOW_BOUND"):
        owner.call(pb.DeregisterMr(mr=ref(p.owner.mr)))
    assert owner.local_token(p.owner.mr) == p.owner.mr.local_token
    closing = owner.start(pb.Close(object=ref(p.owner.mr)))
    invalidate(p, first)
    owner.quiet(0.1)
    assert closing in owner.in_flight
    owner.call(pb.Close(object=ref(second)))
    reply, = owner.wait([closing])
    assert not reply.HasField("error")
    with expect_refused("HANDLE"):
        bind(p, first)


def test_seen(pair):
    # mutation: forget windows in one of the lists
    p = pair
    owner = p.owner.session
    mw = window(p)
    assert (state_of(p, mw).state, state_of(p, mw).parent) == ("FREE", 0)
    bind(p, mw, 64, 128, WRITE)
    item = state_of(p, mw)
    assert (item.state, item.parent, item.qp) == ("BOUND", p.owner.mr.serial, p.end.serial)
    assert (item.iova, item.size, item.flags) == (OWNER_IOVA + 64, 128, REMOTE_WRITE)
    for what in (mw.serial, p.owner.mr.serial):
        assert p.end.serial in [i.serial for i in owner.call(pb.Who(serial=what)).list.items]
    used = {c.slot: c.used for a in owner.ledger().accounts for c in a.charges}
    assert used["mws"] == 1
    invalidate(p, mw)
    assert [i.serial for i in owner.call(pb.Who(serial=mw.serial)).list.items] == []


def test_in_one_frame(pair):
    """A window that is being bound is not there yet; its bind's result is."""
    # mutation: let the result of a bind name nothing, or the MR
    p = pair
    owner = p.owner.session
    mw = window(p)
    batch = owner.batch()
    bound = batch.add(bind_message(p, mw))
    batch.add(bind_message(p, mw))
    batch.add(pb.Invalidate(object=ref(bound), qp=ref(p.end)))
    bound, again, ended = batch.run()
    assert not bound.HasField("error") and not ended.HasField("error")
    assert again.error.name == "MW_STATE" and state_of(p, mw).state == "FREE"


ALLOWED = {"", "MW_STATE", "MR_STATE", "WINDOW_BOUND", "HANDLE", "DEPENDENCY", "PD_MISMATCH", "REVOKED"}


@pytest.mark.time_limit(120)
def test_many_clients(nicd):
    """64 clients, each at random, none waiting for itself; all of it must be given back (the fixture looks)."""
    # mutation: leave a charge, a window or a tenant behind in any race of bind, invalidate, register and close
    draw = random.Random(5)
    clients = []
    for i in range(64):
        session = nicd.session(label=f"racer {i}")
        buffer = Buffer(65536, i)
        pd = session.create_pd()
        mr = session.region(pd, buffer.fd, 65536, LOCAL_WRITE | REMOTE_READ, OWNER_IOVA)
        qp = session.connect_qp(pd, session.ticket(mr, uses=1, peers=1).locator, 20000)
        clients.append((session, buffer, pd, mr, qp, [session.call(pb.CreateMw(pd=ref(pd))).object for _ in range(4)]))
    seen = set()
    for _ in range(12):
        for session, buffer, pd, mr, qp, windows in clients:
            batch = session.batch()
            for _ in range(16):
                mw = draw.choice(windows)
                batch.add(draw.choice([
                    lambda: pb.BindMw(mw=ref(mw), mr=ref(mr), qp=ref(qp), iova=OWNER_IOVA + draw.randrange(60000), length=100,
                                      flags=draw.choice([READ, WRITE, READ | WRITE])),
                    lambda: pb.Invalidate(object=ref(mw), qp=ref(qp), flags=draw.choice([0, pb.OP_READ_FENCE])),
                    lambda: pb.GetRemoteToken(mr=ref(mw)),
                    lambda: pb.DeregisterMr(mr=ref(mr)),
                    lambda: pb.Close(object=ref(mw)) if draw.random() < 0.1 else pb.GetRemoteToken(mr=ref(mr)),
                ])())
            batch.send()
        for session, *_ in clients:
            for reply in session.wait(list(session.in_flight)):
                seen.add(reply.error.name)
    assert seen <= ALLOWED | {"NO_REMOTE_RIGHTS"}, seen
    assert {"", "MW_STATE", "WINDOW_BOUND"} <= seen
    draw.shuffle(clients)
    for session, buffer, *_ in clients:
        session.close()
        buffer.close()
