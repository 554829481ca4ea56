# SPDX-License-Identifier: MIT
"""Behind a device that delays and fails (nicd --fault, nicd/faulty.h): the states that pass too quickly otherwise, confirmations that
come late or never, and clients that die meanwhile."""
import time

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from nicdtest.daemon import Nicd, configuration, wait_until
from nicdtest.memory import Buffer
from nicdtest.pair import ALL, Pair
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, pb
from nicdtest.sequences import Client
from nicdtest.wire import check_error, check_refused, expect_refused, ref, register_message

SIZE = 8192


@pytest.fixture
def faulty(own_nicd):
    """Makes a nicd whose device has these faults, and gives up on revocations after a second."""
    def make(spec, **kw):
        try:
            return own_nicd(options=["--fault", spec], config=configuration(nicd={"revoke_timeout": 1}), **kw)
        except AssertionError as failure:
            if "built without" in str(failure):
                pytest.skip("this nicd is built without -Dfaults=true")
            raise
    return make


def region(session, flags=ALL):
    buffer = Buffer(SIZE, 1)
    return session.region(session.create_pd(), buffer.fd, SIZE, flags), buffer


def used(nicd, session, slot):
    account, = (a for a in nicd.ledger().accounts if a.account == session.hello.account)
    return {c.slot: c.used for c in account.charges}[slot]


# ---- revocations that are confirmed late, or never

def test_late_confirmation(faulty):
    # mutation: answer success when the time is over; give the charge back before the device has confirmed
    nicd = faulty("tag_drop:delay=2500ms")
    with nicd.session() as s:
        mr, _buffer = region(s)
        started = time.monotonic()
        reply, = s.wait([s.start(pb.DeregisterMr(mr=ref(mr)))])
        check_refused(reply, "REVOKE_UNCONFIRMED")
        assert reply.error.status == pb.REVOKE_PENDING
        assert 0.9 < time.monotonic() - started < 2.0
        ledger = nicd.ledger()
        assert ledger.quarantined == 1 and used(nicd, s, "mrs") == 1 and used(nicd, s, "pinned_bytes") > 0
        assert ledger.held_fds == 1
        for call in (pb.GetLocalToken(mr=ref(mr)), pb.GetRemoteToken(mr=ref(mr)), pb.DeregisterMr(mr=ref(mr)),
                     register_message(mr, [(None, 0, SIZE)])):
            with expect_refused(("MR_STATE", "HANDLE", "FDS")):
                s.call(call)
        event = s.wait_event(pb.Event.REVOKE_CONFIRMED, mr.serial)
        assert event.object == mr.id
        assert 2.4 < time.monotonic() - started < 5
        assert nicd.ledger().quarantined == 0 and nicd.ledger().held_fds == 0
        with Buffer(SIZE) as again:
            s.register(mr, [(None, 0, SIZE)], fd=again.fd)


def test_in_time_is_no_event(faulty):
    # mutation: send REVOKE_CONFIRMED after every revocation
    nicd = faulty("tag_drop:delay=300ms")
    with nicd.session() as s:
        mr, _buffer = region(s)
        started = time.monotonic()
        assert s.deregister(mr).serial == mr.serial
        assert time.monotonic() - started > 0.29
        s.quiet(1.2)
        assert not s.events


def test_late_confirmation_of_revoke(faulty):
    # mutation: let Revoke answer before the device, unlike Deregister
    nicd = faulty("tag_drop:delay=2000ms")
    with nicd.session() as s:
        mr, _buffer = region(s)
        reply, = nicd.admin().wait([nicd.admin().start(pb.Revoke(serial=mr.serial))])
        check_refused(reply, "REVOKE_UNCONFIRMED")
        s.wait_event(pb.Event.REVOKED, mr.serial)
        with expect_refused("MR_STATE"):
            s.remote_token(mr)
        s.wait_event(pb.Event.REVOKE_CONFIRMED, mr.serial)


def test_late_confirmation_of_close(faulty):
    # mutation: say that a close is done while the device still has the memory
    nicd = faulty("tag_drop:delay=2000ms")
    with nicd.session() as s:
        mr, _buffer = region(s)
        started = time.monotonic()
        reply, = s.wait([s.start(pb.Close(object=ref(mr)))])
        took = time.monotonic() - started
        if reply.HasField("error"):
            check_refused(reply, "REVOKE_UNCONFIRMED")
            s.wait_event(pb.Event.REVOKE_CONFIRMED, mr.serial)
        else:
            assert took > 1.95
        with expect_refused("HANDLE"):
            s.local_token(mr)


def test_confirmed_never(faulty):
    # mutation: forget a session whose memory the device still has; hang when stopping
    nicd = faulty("tag_drop:never")
    with nicd.session() as s:
        mr, _buffer = region(s)
        with expect_refused("REVOKE_UNCONFIRMED"):
            s.deregister(mr)
    assert wait_until(lambda: nicd.ledger().objects == 3)   # the MR, its PD and its Memory
    assert [i.state for i in nicd.admin().list(pb.SESSION) if i.serial == s.hello.session] in ([], ["closing"])
    ledger = nicd.ledger()
    assert ledger.quarantined == 1 and ledger.held_fds == 1
    assert sum(c.used for a in ledger.accounts for c in a.charges if c.slot == "mrs") == 1
    with nicd.session() as other:   # and everybody else works on
        other.create_mr(other.create_pd())


def test_dead_sessions_are_confirmed_later(faulty):
    # mutation: give charges back when the session dies
    nicd = faulty("tag_drop:delay=1500ms")
    with nicd.session() as s:
        pd, buffer = s.create_pd(), Buffer(SIZE)
        memory = s.add_memory(buffer.fd)
        for _ in range(20):
            s.register(s.create_mr(pd), [(memory, 0, SIZE)], flags=ALL)
    time.sleep(0.3)
    ledger = nicd.ledger()
    assert ledger.held_fds == 1 and ledger.objects >= 20
    nicd.assert_clean()


def test_exports_are_late_too(faulty):
    # mutation: wait for the MR's tag only
    nicd = faulty("door_drop:delay=1800ms")
    with nicd.session() as s:
        mr, _buffer = region(s)
        s.export(mr, "late", REMOTE_READ)
        with expect_refused("REVOKE_UNCONFIRMED"):
            s.deregister(mr)
        s.wait_event(pb.Event.REVOKE_CONFIRMED, mr.serial)


# ---- every call while it lasts

CALLS = {
    "GetLocalToken": (lambda mr: pb.GetLocalToken(mr=ref(mr)), "MR_STATE"),
    "GetRemoteToken": (lambda mr: pb.GetRemoteToken(mr=ref(mr)), "MR_STATE"),
    "Register": (lambda mr: register_message(mr, [(mr.memory, 0, SIZE)]), "MR_STATE"),
    "Deregister": (lambda mr: pb.DeregisterMr(mr=ref(mr)), "MR_STATE"),
    "InitializeFastRegister": (lambda mr: pb.InitializeFastRegister(mr=ref(mr)), "MR_KIND"),
    "FastRegister": (lambda mr: pb.FastRegister(mr=ref(mr)), "MR_KIND"),
    "Invalidate": (lambda mr: pb.Invalidate(object=ref(mr)), "MR_KIND"),
    "CreateExport": (lambda mr: pb.CreateExport(mr=ref(mr), name="x", flags=2), "MR_STATE"),
    "CreateTicket": (lambda mr: pb.CreateTicket(mr=ref(mr)), "MR_STATE"),
}


class Mr:
    def __init__(self, session):
        self.session = session
        self.buffer = Buffer(SIZE, 1)
        self.memory = session.add_memory(self.buffer.fd)
        self.id = session.create_mr(session.create_pd()).id

    def register(self):
        return self.session.start(register_message(self, [(self.memory, 0, SIZE)], flags=ALL))


@pytest.mark.parametrize("state", ["REGISTERING", "DEREGISTERING"])
def test_calls_meanwhile(faulty, state):
    # mutation: let any call see the state that comes next
    nicd = faulty("tag_add:delay=700ms,tag_drop:delay=700ms")
    with nicd.session() as s:
        mr = Mr(s)
        under_way = mr.register()
        if state == "DEREGISTERING":
            s.wait([under_way])
            under_way = s.start(pb.DeregisterMr(mr=ref(mr)))
        for call, reason in CALLS.values():
            with expect_refused(reason):
                s.call(call(mr))
        assert under_way not in s.replies
        reply, = s.wait([under_way])
        assert not reply.HasField("error")


@pytest.mark.parametrize("state", ["REGISTERING", "DEREGISTERING"])
def test_close_meanwhile(faulty, state):
    # mutation: answer Close first; forget one of the two replies
    nicd = faulty("tag_add:delay=500ms,tag_drop:delay=500ms")
    with nicd.session() as s:
        mr = Mr(s)
        under_way = mr.register()
        if state == "DEREGISTERING":
            s.wait([under_way])
            under_way = s.start(pb.DeregisterMr(mr=ref(mr)))
        close = s.start(pb.Close(object=ref(mr)))
        again = s.start(pb.Close(object=ref(mr)))
        s.wait([under_way, close])
        check_refused(s.wait([again])[0], "HANDLE")
        assert s.order.index(under_way) < s.order.index(close)
        assert s.list(pb.MR) == []


@pytest.mark.parametrize("state", ["REGISTERING", "DEREGISTERING"])
@pytest.mark.parametrize("parents", [False, True])
def test_death_meanwhile(faulty, state, parents):
    # mutation: free an MR that the device still answers for
    nicd = faulty("tag_add:delay=400ms,tag_drop:delay=400ms,memory_detach:delay=200ms")
    with nicd.session() as s:
        mr = Mr(s)
        under_way = mr.register()
        if state == "DEREGISTERING":
            s.wait([under_way])
            s.start(pb.DeregisterMr(mr=ref(mr)))
        if parents:
            s.start(pb.Close(object=ref(mr.memory)))
    nicd.assert_clean()


def test_events_of_a_state_that_lasts(faulty):
    # mutation: list the state that comes next
    nicd = faulty("tag_add:delay=500ms,tag_drop:delay=500ms")
    with nicd.session() as s:
        mr = Mr(s)
        seen = [s.list(pb.MR)[0].state]
        id_ = mr.register()
        seen.append(s.list(pb.MR)[0].state)
        s.wait([id_])
        seen.append(s.list(pb.MR)[0].state)
        id_ = s.start(pb.DeregisterMr(mr=ref(mr)))
        seen.append(s.list(pb.MR)[0].state)
        s.wait([id_])
        assert len(set(seen)) == 4
        assert s.list(pb.MR)[0].state == seen[0]


def test_others_do_not_wait(faulty):
    # mutation: one queue for all commands to the device
    nicd = faulty("tag_add:delay=1500ms:times=1")
    with nicd.session() as slow, nicd.session() as other:
        first = Mr(slow)
        id_ = first.register()
        started = time.monotonic()
        mr = Mr(other)
        other.wait([mr.register()])
        assert time.monotonic() - started < 1.0
        slow.wait([id_])


# ---- failures

def test_registration_fails_late(faulty):
    # mutation: leave the MR registering, its charge taken or its memory held
    nicd = faulty("tag_add:delay=300ms:fail:times=1")
    with nicd.session() as s, Buffer(SIZE) as buffer:
        mr = s.create_mr(s.create_pd())
        started = time.monotonic()
        with expect_refused("DEVICE_FAILED"):
            s.register(mr, [(None, 0, SIZE)], fd=buffer.fd)
        assert time.monotonic() - started > 0.29
        with expect_refused("MR_STATE"):
            s.local_token(mr)
        assert wait_until(lambda: nicd.ledger().held_fds == 0) and used(nicd, s, "pinned_bytes") == 0
        assert s.list(pb.MEMORY) == []
        s.register(mr, [(None, 0, SIZE)], fd=buffer.fd)


def test_attaching_fails(faulty):
    # mutation: keep the attachment that failed
    nicd = faulty("memory_attach:fail=MEMORY_MAP:times=1")
    with nicd.session() as s, Buffer(SIZE) as buffer:
        memory = s.add_memory(buffer.fd)
        mrs = [s.create_mr(s.create_pd()) for _ in range(3)]
        batch = s.batch()
        for mr in mrs:
            batch.add(register_message(mr, [(memory, 0, SIZE)]))
        replies = batch.run()
        check_refused(replies[0], ("MEMORY_MAP", "DEVICE_FAILED"))
        for mr, reply in zip(mrs, replies):
            if reply.HasField("error"):
                check_error(reply.error, ("MEMORY_MAP", "DEVICE_FAILED"))
                s.register(mr, [(memory, 0, SIZE)])


def test_deregistration_fails(faulty):
    # mutation: take a refusal of the device for its confirmation
    nicd = faulty("tag_drop:delay=100ms:fail:times=1")
    with nicd.session() as s:
        mr, _buffer = region(s)
        with expect_refused("DEVICE_FAILED"):
            s.deregister(mr)
        # ERROR, the last row of the table of states.
        for call, reason in CALLS.values():
            if call is not CALLS["Deregister"][0] and call is not CALLS["Register"][0]:
                with expect_refused(reason):
                    s.call(call(mr))
        with expect_refused("MR_STATE"), Buffer(SIZE) as buffer:
            s.register(mr, [(None, 0, SIZE)], fd=buffer.fd)
        assert nicd.ledger().held_fds == 1 and used(nicd, s, "mrs") == 1
        assert s.deregister(mr).serial == mr.serial
        assert wait_until(lambda: nicd.ledger().held_fds == 0)


def test_close_after_a_failed_deregistration(faulty):
    # mutation: close an MR in ERROR without asking the device again
    nicd = faulty("tag_drop:fail:times=1")
    with nicd.session() as s:
        mr, _buffer = region(s)
        with expect_refused("DEVICE_FAILED"):
            s.deregister(mr)
        s.close_object(mr)
        assert nicd.ledger().provider_tags == 0
        assert s.list(pb.MR) == []


def test_death_and_refusals(faulty):
    # mutation: give up on an object whose release the device refuses once
    nicd = faulty("tag_drop:fail:times=3,door_drop:fail:times=2,memory_detach:fail:times=1")
    with nicd.session() as s, Buffer(SIZE) as buffer:
        memory, pd = s.add_memory(buffer.fd), s.create_pd()
        for i in range(5):
            mr = s.register(s.create_mr(pd), [(memory, 0, SIZE)], flags=ALL)
            s.export(mr, f"refused {i}", REMOTE_READ)
    nicd.assert_clean(timeout=20)


def test_doors_fail(faulty):
    # mutation: keep the name, the tag or the charge of an export that failed
    nicd = faulty("door_add:delay=100ms:fail:times=2")
    with nicd.session() as s:
        mr, _buffer = region(s)
        tags = nicd.ledger().provider_tags
        with expect_refused("DEVICE_FAILED"):
            s.export(mr, "once", REMOTE_READ)
        with expect_refused("DEVICE_FAILED"):
            s.ticket(mr)
        assert s.list(pb.EXPORT) == s.list(pb.TICKET) == []
        assert wait_until(lambda: nicd.ledger().provider_tags == tags) and used(nicd, s, "doors") == 0
        s.export(mr, "once", REMOTE_READ)


def test_region_goes_while_its_export_comes(faulty):
    # mutation: link an export to an MR that is deregistered meanwhile
    nicd = faulty("door_add:delay=300ms")
    with nicd.session() as s:
        mr, _buffer = region(s)
        export = s.start(pb.CreateExport(mr=ref(mr), name="late", flags=REMOTE_READ))
        gone = s.start(pb.DeregisterMr(mr=ref(mr)))
        made, receipt = s.wait([export, gone])
        assert not receipt.HasField("error")
        if not made.HasField("error"):
            assert [i.state.lower() for i in s.list(pb.EXPORT)] == ["dead"]
        ledger = nicd.ledger()
        assert (ledger.provider_tags, ledger.provider_tickets) == (0, 0)


# ---- queue pairs

def test_slow_posts(faulty, peer_nicd):
    # mutation: free a Qp under a completion that is late
    nicd = faulty("qp_post:delay=400ms")
    with Pair(peer_nicd, nicd) as p:
        p.by_export()
        posted = [p.start(pb.Read, 0, 0, 100), p.start(pb.Write, 0, 0, 100)]
        close = p.user.session.start(pb.Close(object=ref(p.qp)))
        p.user.session.wait(posted + [close])
        assert p.user.session.order[-1] == close
    nicd.assert_clean()


def test_death_under_slow_posts(faulty, peer_nicd):
    # mutation: the same, with the session gone as well
    nicd = faulty("qp_post:delay=400ms,qp_disconnect:delay=200ms,qp_connect:delay=100ms")
    with Pair(peer_nicd, nicd) as p:
        p.by_export()
        for _ in range(5):
            p.start(pb.Read, 0, 0, 100)
    nicd.assert_clean()


def test_failing_connects_look_alike_still(faulty, peer_nicd):
    # mutation: pass the device's failure through
    nicd = faulty("qp_connect:fail:times=1")
    with Pair(peer_nicd, nicd) as p:
        door = p.owner.session.export(p.owner.mr, "fails", ALL)
        with expect_refused(("CONNECT", "DEVICE_FAILED")):
            p.connect(door)
        p.connect(door)


def test_posts_fail(faulty, peer_nicd):
    # mutation: count what the device refused
    nicd = faulty("qp_post:fail=LOCAL_GONE:times=1")
    with Pair(peer_nicd, nicd) as p:
        p.by_export()
        reply, = p.user.session.wait([p.start(pb.Read, 0, 0, 100)])
        check_refused(reply, "LOCAL_GONE")
        assert reply.completion.bytes == 0


def test_queries_fail(faulty, peer_nicd):
    # mutation: answer a list or a query with garbage when the device does not answer
    nicd = faulty("qp_query:fail:times=1")
    with Pair(peer_nicd, nicd) as p:
        p.by_export()
        reply, = p.user.session.wait([p.user.session.start(pb.QueryQp(qp=ref(p.qp)))])
        if reply.HasField("error"):
            check_error(reply.error, "DEVICE_FAILED")
        assert p.user.session.query_qp(p.qp).connected


# ---- everything slow

@pytest.mark.parametrize("spec", ["any:delay=3ms", "any:delay=2ms:every=3", "tag_drop:delay=5ms,door_drop:delay=9ms,tag_add:delay=1ms"])
def test_random_sequences_on_a_slow_device(faulty, spec):
    # mutation: any slip that needs an answer at another time than usual
    nicd = faulty(spec)
    machine = type("Machine", (Client,), {"nicd": nicd})
    run_state_machine_as_test(machine, settings=settings(max_examples=8, stateful_step_count=25))


def test_a_pair_on_slow_devices(faulty):
    # mutation: the same, for doors and streams
    one, two = faulty("any:delay=20ms"), faulty("any:delay=15ms", address="127.0.0.2")
    with Pair(one, two, user_flags=LOCAL_WRITE) as p:
        p.by_export(uses=4)
        p.read(0, 0, 65536)
        assert p.user.buffer.bytes() == p.owner.buffer.bytes()
        p.write(0, 0, 1000)
        p.owner.session.deregister(p.owner.mr)
        p.await_disconnected()
    one.assert_clean()
    two.assert_clean()


def test_bad_specs():
    # mutation: run without the fault that was asked for
    for spec in ("nonsense", "tag_drop:delay=5", "tag_drop:", "tag_drop:every=0", "tag_drop:fail=NO_SUCH_REASON", ","):
        nicd = None
        try:
            nicd = Nicd(options=["--fault", spec])
        except AssertionError as failure:
            assert "--fault" in str(failure)
        else:
            with nicd.session() as s:
                assert not any(a.up for a in s.hello.adapters)
            assert "--fault" in nicd.log_text()
            nicd.stop()
