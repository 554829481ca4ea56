# SPDX-License-Identifier: MIT
"""Two nicds that send messages to each other, and writes whose owner is told."""
import pytest

from nicdtest import limits
from nicdtest.daemon import wait_until
from nicdtest.pair import OWNER_IOVA, Pair
from nicdtest.pb import pb
from nicdtest.wire import check_refused, expect_refused, ref

SOLICIT, NOTIFY = pb.OP_SEND_AND_SOLICIT_EVENT, pb.OP_NOTIFY
READ, WRITE = pb.TransferList.READ, pb.TransferList.WRITE


@pytest.fixture
def pair(nicd, peer_nicd):
    with Pair(nicd, peer_nicd) as pair:
        yield pair


@pytest.fixture(params=["export", "ticket"])
def connected(request, pair):
    pair = pair.by_export(uses=4, peers=4) if request.param == "export" else pair.by_ticket(uses=4, peers=4)
    return pair.await_inside()


def done(side, id_):
    reply, = side.session.wait([id_])
    assert not reply.HasField("error"), reply
    return reply.completion


# ---- messages

@pytest.mark.parametrize("length", [0, 1, 1000, 65000])
def test_send_and_receive(connected, length):
    # mutation: answer a Send before its message is placed; fill the receive from its end
    p = connected
    before = p.owner.buffer.bytes()
    receive = p.receive(300, 65200)
    sent = done(p.user, p.send(100, length))
    assert (sent.entries, sent.bytes) == (1, length)
    assert p.owner.buffer[300:300 + length] == p.user.buffer[100:100 + length]
    assert p.owner.buffer[:300] == before[:300] and p.owner.buffer[300 + length:] == before[300 + length:]
    got = done(p.owner, receive)
    assert (got.bytes, got.solicited, got.invalidated) == (length, False, False)


def test_in_order_and_both_ways(connected):
    p = connected
    inbound = p.inbound()
    there = [p.receive(i * 100, 100, inbound) for i in range(50)]
    back = [p.receive(10000 + i * 100, 100, p.qp, p.user) for i in range(50)]
    sends = [p.send(i, i) for i in range(1, 50)]
    answers = [p.send(i, i, inbound, p.owner, flags=SOLICIT) for i in range(1, 50)]
    for i in range(1, 50):
        done(p.user, sends[i - 1])
        done(p.owner, answers[i - 1])
        # mutation: the newest receive first
        assert done(p.owner, there[i - 1]).bytes == i
        got = done(p.user, back[i - 1])
        assert (got.bytes, got.solicited) == (i, True)
    # The last ones wait; the ends of the sessions take them along.
    p.user.session.quiet(0.1)
    assert there[49] in p.owner.session.in_flight and back[49] in p.user.session.in_flight


def test_solicited_and_empty(connected):
    """From who connected: a notice. From the owner's side: a message."""
    p = connected
    inbound = p.inbound()
    there, back = p.receive(0, 10, inbound), p.receive(0, 10, p.qp, p.user)
    done(p.owner, p.send(0, 0, inbound, p.owner, flags=SOLICIT))
    got = done(p.user, back)
    assert (got.bytes, got.solicited) == (0, True)
    done(p.user, p.send(0, 0, flags=SOLICIT))
    p.owner.session.wait_event(pb.Event.NOTIFIED, inbound.serial)
    assert there in p.owner.session.in_flight


def test_too_long(connected):
    p = connected
    receive, second = p.receive(0, 100), p.receive(0, 1000)
    reply, = p.user.session.wait([p.send(0, 101)])
    check_refused(reply, "REMOTE_RECEIVE")
    reply, = p.owner.session.wait([receive])
    check_refused(reply, "RECEIVE_TOO_SMALL")
    assert reply.error.status == pb.BUFFER_TOO_SMALL and (reply.error.limit, reply.error.observed) == (100, 101)
    # Sessions are read in turns: the message may even overtake the second receive, which then finds the Qp ended.
    check_refused(p.owner.session.wait([second])[0], ("QP_LOST", "FLUSHED", "QP_STATE"))
    p.await_disconnected()


def test_nobody_receives(connected):
    # mutation: drop the message; or read on
    p = connected
    send = p.send(0, 1000)
    # Others, and other requests of the same session, go on meanwhile.
    other = p.connect(p.door)
    assert p.read(0, 0, 100, qp=other).bytes == 100
    reply, = p.user.session.wait([send])
    check_refused(reply, "NO_RECEIVE")
    assert reply.error.status == pb.REMOTE_RESOURCES
    p.await_disconnected()
    assert p.read(0, 0, 100, qp=other).bytes == 100


def test_late_receive(connected):
    p = connected
    sends = [p.send(i, 3000) for i in range(8)]
    p.user.session.quiet(0.3)
    assert set(sends) <= p.user.session.in_flight
    for i in range(8):
        assert done(p.owner, p.receive(0, 3000)).bytes == 3000
        assert p.owner.buffer[:3000] == p.user.buffer[i:3000 + i]
    for send in sends:
        done(p.user, send)


def test_receives_have_their_own_count(connected):
    # mutation: count them as requests in flight, or not at all
    p = connected
    inbound = p.inbound()
    receives = [p.receive(0, 10, inbound) for _ in range(limits.QP_RECEIVES)]
    with expect_refused("IN_FLIGHT", limit=limits.QP_RECEIVES, observed=limits.QP_RECEIVES + 1):
        p.owner.session.call(pb.Receive(qp=ref(inbound), local_token=p.owner.mr.local_token, local_addr=OWNER_IOVA, length=1))
    slots = {c.slot: c.used for a in p.owner.session.ledger().accounts for c in a.charges}
    assert slots["receives"] == limits.QP_RECEIVES
    assert slots["calls"] <= 1
    p.owner.session.call(pb.Flush(qp=ref(inbound)))
    for receive in receives:
        check_refused(p.owner.session.wait([receive])[0], "FLUSHED")
    # The Qp lives, and its room is free again.
    receive = p.receive(0, 10, inbound)
    done(p.user, p.send(0, 10))
    done(p.owner, receive)


@pytest.mark.parametrize("how, reasons", [("flush", ("FLUSHED",)), ("close", ("FLUSHED",)), ("disconnect", ("FLUSHED",)),
                                          ("peer", ("PEER_CLOSED",)), ("deregister", ("LOCAL_GONE", "QP_LOST"))])
def test_the_end_of_a_receive(connected, how, reasons):
    # mutation: forget receives when the Qp ends
    p = connected
    inbound = p.inbound()
    receive = p.receive(0, 10, inbound)
    if how == "peer":
        p.user.session.call(pb.Close(object=ref(p.qp)))
    elif how == "deregister":
        p.owner.session.deregister(p.owner.mr)   # an export's peers are cut with it
    else:
        what = {"flush": pb.Flush(qp=ref(inbound)), "close": pb.Close(object=ref(inbound)), "disconnect": pb.Disconnect(qp=ref(inbound))}
        p.owner.session.call(what[how])
    reply, = p.owner.session.wait([receive])
    check_refused(reply, reasons)


def test_posting_is_refused(connected):
    p = connected
    token = p.owner.mr.local_token
    for bad, reason in ((dict(local_token=token ^ 1), "LOCAL_TOKEN"), (dict(local_addr=OWNER_IOVA + 65530), "LOCAL_RANGE")):
        terms = dict(local_token=token, local_addr=OWNER_IOVA, length=10) | bad
        with expect_refused(reason):
            p.owner.session.call(pb.Receive(qp=ref(p.inbound()), **terms))
    for flags in (8, 0x80, 0x100, NOTIFY, SOLICIT | 8):
        with expect_refused("OP_FLAGS"):
            p.user.session.call(pb.Send(qp=ref(p.qp), flags=flags))
    with expect_refused("HANDLE"):
        p.owner.session.call(pb.Receive(qp=ref(p.qp.id ^ 1 << 40)))


def test_inbound_by_serial(connected, peer_nicd):
    # mutation: find a Qp of another session of the account
    p = connected
    inbound = p.inbound()
    assert inbound.inbound and inbound.id and inbound.serial
    with peer_nicd.session() as other, expect_refused("SERIAL"):
        other.call(pb.QueryQp(serial=p.qp.serial))
    with expect_refused("SERIAL"):
        p.owner.session.call(pb.QueryQp(serial=1 << 60))
    with expect_refused("HANDLE"):
        p.owner.session.call(pb.QueryQp())
    # Its result may be named in the same frame.
    batch = p.owner.session.batch()
    query = batch.add(pb.QueryQp(serial=inbound.serial))
    receive = batch.add(pb.Receive(qp=pb.Ref(result_of=query.request_id), local_token=p.owner.mr.local_token,
                                   local_addr=OWNER_IOVA, length=10))
    batch.send()
    done(p.user, p.send(0, 10))
    assert done(p.owner, receive.request_id).bytes == 10


# ---- notices

@pytest.mark.parametrize("how", ["write", "list"])
def test_write_with_notify(connected, how):
    # mutation: notify before the data; not at all; as the user's own event
    p = connected
    serial = p.inbound().serial
    for i in range(3):
        if how == "write":
            call = p.message(pb.Write, 100 * i, 0, 5000)
        else:
            call = p.list_message(WRITE, [(100 * i, 0, 5000), (0, 10000, 1)])
        call.flags = NOTIFY
        p.user.session.call(call)
        event = p.owner.session.wait_event(pb.Event.NOTIFIED, serial)
        assert event.object == p.door.id and event.count == i + 1
        assert p.owner.buffer[:5000] == p.user.buffer[100 * i:5000 + 100 * i]
    assert not p.user.session.events
    p.write(0, 0, 100)
    p.owner.session.quiet(0.1)
    assert not [e for e in p.owner.session.events if e.kind == pb.Event.NOTIFIED]


def test_notices_are_state(connected):
    """Two peers of one door: the count is of both, and nothing of it is lost however late it is read."""
    # mutation: one event each; a count for each peer
    p = connected
    qps = [p.qp, p.connect(p.door)]
    p.await_inside()
    ids = []
    for i in range(200):
        call = p.message(pb.Write, 0, 0, 8, qp=qps[i % 2])
        call.flags = NOTIFY
        ids.append(p.user.session.start(call))
    for id_ in ids:
        done(p.user, id_)
    counts = []
    assert wait_until(lambda: (p.owner.session.quiet(0.05), counts.extend(
        e.count for e in p.owner.session.events if e.kind == pb.Event.NOTIFIED), counts and counts[-1] == 200)[-1])
    seen = [e.count for e in p.owner.session.events if e.kind == pb.Event.NOTIFIED]
    assert seen == sorted(seen) and seen[-1] == 200


def test_notify_of_a_failed_write(connected):
    # mutation: notify all the same
    p = connected
    call = p.message(pb.Write, 0, 65530, 100)
    call.flags = NOTIFY
    reply, = p.user.session.wait([p.user.session.start(call)])
    assert reply.HasField("error")
    p.owner.session.quiet(0.2)
    assert not [e for e in p.owner.session.events if e.kind == pb.Event.NOTIFIED]


def test_notify_of_a_read_is_refused(connected):
    p = connected
    for call in (p.message(pb.Read, 0, 0, 64), p.list_message(READ, [(0, 0, 64)])):
        call.flags = NOTIFY
        with expect_refused("OP_FLAGS"):
            p.user.session.call(call)


# ---- invalidation

def test_normal_mrs_cannot_be_invalidated(connected):
    # mutation: drop whatever the peer names
    p = connected
    receive = p.receive(0, 100)
    reply, = p.user.session.wait([p.send(0, 10, invalidate=p.grant.remote_token)])
    check_refused(reply, "REMOTE_INVALIDATE")
    check_refused(p.owner.session.wait([receive])[0], "QP_LOST")
    p.await_disconnected()
    other = p.connect(p.door)
    assert p.read(0, 0, 100, qp=other).bytes == 100


def test_a_receiver_that_dies(nicd, peer_nicd):
    """A session with 256 receives posted, and a peer in the middle of one of its messages, ends as any other."""
    with Pair(nicd, peer_nicd) as p:
        p.by_export().await_inside()
        inbound = p.inbound()
        for _ in range(limits.QP_RECEIVES):
            p.receive(0, 60000, inbound)
        sends = [p.send(0, 60000) for _ in range(100)]
        p.owner.session.close()
        for reply in p.user.session.wait(sends):
            pass
