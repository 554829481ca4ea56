# SPDX-License-Identifier: MIT
"""Exports and tickets: names, rights, uses, expiry, revocation; who is told of what; who can see whom."""
import time

import pytest

from nicdtest import limits, locator
from nicdtest.daemon import wait_until
from nicdtest.iwarp import Peer, hello
from nicdtest.memory import Buffer
from nicdtest.pair import ALL, OWNER_IOVA, Pair
from nicdtest.pb import LOCAL_READ, LOCAL_WRITE, READ_SINK, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import Ended, check_error, check_refused, expect_refused, ref

Event = pb.Event


@pytest.fixture
def pair(nicd, peer_nicd):
    with Pair(nicd, peer_nicd) as pair:
        yield pair


@pytest.fixture
def owner(pair):
    return pair.owner.session


def refuse_connect(pair, door):
    with expect_refused("CONNECT"):
        pair.connect(door, timeout_ms=200)


# ---- making them

def test_what_an_export_answers(pair, owner):
    # mutation: give the export the MR's token, or put the grant into the locator
    door = owner.export(pair.owner.mr, "scene", REMOTE_READ, offset=100, length=5000)
    assert door.id and door.serial > pair.owner.mr.serial
    grant = door.grant
    assert (grant.iova, grant.length) == (OWNER_IOVA + 100, 5000)
    assert grant.flags & ~LOCAL_WRITE == REMOTE_READ
    assert grant.remote_token not in (0, pair.owner.mr.remote_token, pair.owner.mr.local_token)
    assert grant.incarnation == owner.hello.adapters[0].incarnation
    place = locator.parse(door.locator)
    assert (place.host, place.port) == pair.owner.nicd.data_address()
    assert place.grant is None
    assert len(set(place.ticket)) > 4


def test_what_a_ticket_answers(pair, owner):
    # mutation: leave the grant out of a PD ticket's locator
    door = owner.ticket(pair.owner.mr)
    place = locator.parse(door.locator)
    assert place.grant == (pair.owner.mr.remote_token, place.grant.rights, OWNER_IOVA, 65536, owner.hello.adapters[0].incarnation)
    assert place.grant.rights == door.grant.flags
    assert door.grant.flags & ALL == ALL


def test_tickets_are_drawn(pair, owner):
    # mutation: draw tickets from a counter
    tickets = {locator.parse(owner.ticket(pair.owner.mr).locator).ticket for _ in range(50)}
    assert len(tickets) == 50
    assert len({t[:4] for t in tickets}) == len({t[-4:] for t in tickets}) == 50


def test_the_whole_rest(pair, owner):
    # mutation: take length 0 for the MR's length, offset not taken off
    door = owner.export(pair.owner.mr, "rest", ALL, offset=60000)
    assert (door.grant.iova, door.grant.length) == (OWNER_IOVA + 60000, 5536)


@pytest.mark.parametrize("name", ["", "x" * 256, "a/b", "/", "a\nb", "\x7f", "\x1b[0m", "\u0085", "ä" * 128])
def test_bad_names(pair, owner, name):
    # mutation: copy the name to lists and files as it is; count characters instead of bytes
    with expect_refused("STRING", limit=limits.STRING):
        owner.export(pair.owner.mr, name, REMOTE_READ)


@pytest.mark.parametrize("name", ["x", "x" * 255, "ä" * 127, "with space", "..", "日本", "%s%n"])
def test_good_names(pair, owner, name):
    # mutation: allow ASCII only
    door = owner.export(pair.owner.mr, name, REMOTE_READ)
    item, = owner.list(pb.EXPORT)
    assert (item.name, item.serial, item.parent) == (name, door.serial, pair.owner.mr.serial)


def test_names_are_unique_in_the_account(nicd, pair, owner):
    # mutation: look for the name in the session only; keep a closed one's name
    door = owner.export(pair.owner.mr, "one", REMOTE_READ)
    with expect_refused("NAME_TAKEN"):
        owner.export(pair.owner.mr, "one", REMOTE_READ)
    with nicd.session() as other, Buffer(4096) as buffer:
        mr = other.region(other.create_pd(), buffer.fd, 4096, ALL)
        with expect_refused("NAME_TAKEN"):
            other.export(mr, "one", REMOTE_READ)
        owner.close_object(door)
        other.export(mr, "one", REMOTE_READ)
        with expect_refused("NAME_TAKEN"):
            owner.export(pair.owner.mr, "one", REMOTE_READ)
    assert wait_until(lambda: not owner.list(pb.EXPORT))
    owner.export(pair.owner.mr, "one", REMOTE_READ)


TOP = 2 ** 64


@pytest.mark.parametrize("offset, length, reason, limit, observed", [
    (0, 65537, "RANGE_BEYOND", 65536, 65537),
    (65536, 1, "RANGE_BEYOND", 65536, 65537),
    (65535, 2, "RANGE_BEYOND", 65536, 65537),
    (TOP - 1, 2, "RANGE_OVERFLOW", None, None),
    (4096, TOP - 4095, "RANGE_OVERFLOW", None, None),
    (65536, 0, ("RANGE_BEYOND", "LENGTH_ZERO"), None, None),
    (70000, 0, "RANGE_BEYOND", 65536, None),
    (TOP - 1, 0, ("RANGE_BEYOND", "RANGE_OVERFLOW"), None, None),
])
def test_ranges(pair, owner, offset, length, reason, limit, observed):
    # mutation: add before comparing
    with expect_refused(reason, limit, observed):
        owner.export(pair.owner.mr, "range", REMOTE_READ, offset=offset, length=length)
    assert owner.list(pb.EXPORT) == []
    owner.export(pair.owner.mr, "range", REMOTE_READ)


@pytest.mark.parametrize("has, asked, reason", [
    (REMOTE_READ, REMOTE_WRITE, "RIGHTS_EXCEED"),
    (REMOTE_READ | LOCAL_WRITE, REMOTE_WRITE, "RIGHTS_EXCEED"),
    (REMOTE_READ, REMOTE_READ | REMOTE_WRITE, "RIGHTS_EXCEED"),
    (REMOTE_WRITE, REMOTE_READ, "RIGHTS_EXCEED"),
    (LOCAL_WRITE, REMOTE_READ, ("RIGHTS_EXCEED", "NO_REMOTE_RIGHTS")),
    (READ_SINK, REMOTE_WRITE, ("RIGHTS_EXCEED", "NO_REMOTE_RIGHTS")),
    (ALL, 0x4, "FLAGS"),
    (ALL, 0x10, "FLAGS"),
    (ALL, 0x80000002, "FLAGS"),
    (ALL, 0, ("FLAGS", "NO_REMOTE_RIGHTS")),
    (ALL, LOCAL_WRITE, ("FLAGS", "NO_REMOTE_RIGHTS")),
])
def test_rights(nicd, session, has, asked, reason):
    # mutation: `has & asked` instead of `(has & asked) == asked`
    with Buffer(8192) as buffer:
        mr = session.region(session.create_pd(), buffer.fd, 8192, has)
        exceed = reason == "RIGHTS_EXCEED"
        with expect_refused(reason, has if exceed else None, asked if exceed else None):
            session.export(mr, "rights", asked)
        assert session.list(pb.EXPORT) == []


def test_ticket_needs_remote_rights(session):
    # mutation: make a ticket whose locator has token 0
    with Buffer(8192) as buffer:
        mr = session.region(session.create_pd(), buffer.fd, 8192, LOCAL_WRITE)
        with expect_refused("NO_REMOTE_RIGHTS"):
            session.ticket(mr)


def test_doors_need_a_registered_region(session):
    # mutation: do not look at the MR's state
    mr = session.create_mr(session.create_pd())
    for make in (lambda: session.ticket(mr), lambda: session.export(mr, "x", REMOTE_READ)):
        with expect_refused("MR_STATE"):
            make()
    with Buffer(8192) as buffer:
        session.register(mr, [(None, 0, 8192)], fd=buffer.fd, flags=ALL)
        session.deregister(mr)
        for make in (lambda: session.ticket(mr), lambda: session.export(mr, "x", REMOTE_READ)):
            with expect_refused("MR_STATE"):
                make()
    pd = session.create_pd()
    with expect_refused("HANDLE_TYPE", limit=pb.MR, observed=pb.PD):
        session.ticket(pd)


# ---- uses

def test_uses(pair, owner):
    # mutation: spend when the handshake starts, or never
    door = owner.export(pair.owner.mr, "twice", REMOTE_READ, uses=2)
    assert owner.list(pb.EXPORT)[0].count == 2
    first = pair.connect(door)
    assert wait_until(lambda: owner.list(pb.EXPORT)[0].count == 1)
    pair.user.session.close_object(first)
    pair.user.session.close_object(pair.connect(door))
    refuse_connect(pair, door)
    assert owner.list(pb.EXPORT)[0].count == 0


@pytest.mark.parametrize("kind", ["export", "ticket"])
def test_one_use_if_nothing_is_said(pair, owner, kind):
    # mutation: 0 uses without end
    door = owner.ticket(pair.owner.mr) if kind == "ticket" else owner.export(pair.owner.mr, "once", REMOTE_READ)
    pair.connect(door)
    refuse_connect(pair, door)


@pytest.mark.parametrize("kind", ["export", "ticket"])
def test_peers_at_the_same_time(pair, owner, kind):
    # mutation: count peers that have gone
    terms = {"uses": 10, "peers": 2}
    door = owner.ticket(pair.owner.mr, **terms) if kind == "ticket" else owner.export(pair.owner.mr, "few", REMOTE_READ, **terms)
    a, b = pair.connect(door), pair.connect(door)
    refuse_connect(pair, door)
    pair.user.session.close_object(a)
    assert wait_until(lambda: len([i for i in owner.list(pb.QP) if i.inbound]) == 1)
    c = pair.connect(door)
    refuse_connect(pair, door)
    for qp in (b, c):
        assert pair.user.session.query_qp(qp).connected


def test_a_handshake_that_dies_spends_nothing(pair, owner):
    # mutation: spend the use when the ticket is named
    door = owner.export(pair.owner.mr, "given back", REMOTE_READ)
    place = locator.parse(door.locator)
    for _ in range(3):
        Peer((place.host, place.port), hello(place.ticket)).close()   # accepted, but never a first frame
        time.sleep(0.1)
    assert owner.list(pb.EXPORT)[0].count == 1
    pair.connect(door)


# ---- expiry

@pytest.mark.parametrize("kind", ["export", "ticket"])
def test_expired(pair, owner, kind):
    # mutation: compare with the wall clock, or never
    made = time.time_ns()
    door = owner.ticket(pair.owner.mr, ttl_ms=300, uses=9) if kind == "ticket" else \
        owner.export(pair.owner.mr, "soon", REMOTE_READ, ttl_ms=300, uses=9)
    item, = owner.list(pb.EXPORT if kind == "export" else pb.TICKET)
    assert made <= item.since_ns and 250_000_000 < item.until_ns - item.since_ns < 350_000_000
    pair.user.session.close_object(pair.connect(door))
    event = owner.wait_event(Event.EXPIRED, door.serial)
    assert event.object == door.id
    assert time.time_ns() - made >= 290_000_000
    refuse_connect(pair, door)
    item, = owner.list(pb.EXPORT if kind == "export" else pb.TICKET)
    assert item.state.lower() != "open"
    owner.close_object(door)


def test_those_inside_an_export_are_cut_when_it_expires(pair, owner):
    # mutation: let a lease end for newcomers only
    pair.by_export(ttl_ms=400, uses=3)
    pair.read(0, 0, 100)
    owner.wait_event(Event.EXPIRED, pair.door.serial)
    pair.await_disconnected()
    assert not owner.list(pb.GRANT)


def test_those_inside_a_ticket_stay(pair, owner):
    # mutation: cut a PD's peers when the ticket expires
    pair.by_ticket(ttl_ms=400)
    owner.wait_event(Event.EXPIRED, pair.door.serial)
    assert pair.read(0, 0, 100).bytes == 100


# ---- ends

@pytest.mark.parametrize("how", ["deregister", "close the region", "register again"])
def test_exports_die_with_their_region(pair, owner, how):
    # mutation: leave an export's tag when its MR goes; forget it in the receipt
    p = pair.by_export(uses=5).await_inside()
    dead = [p.door] + [owner.export(p.owner.mr, f"more {i}", REMOTE_READ) for i in range(3)]
    assert owner.list(pb.GRANT)
    receipt = owner.close_object(p.owner.mr).receipt if how == "close the region" else owner.deregister(p.owner.mr)
    assert receipt.serial == p.owner.mr.serial
    assert sorted(receipt.exports) == sorted(d.serial for d in dead)
    assert receipt.grants == 1
    if how == "register again":
        owner.register(p.owner.mr, [(None, 0, 65536)], OWNER_IOVA, flags=ALL, fd=p.owner.buffer.fd)
    p.await_disconnected()
    items = owner.list(pb.EXPORT)
    assert [i.state.lower() for i in items] == ["dead"] * 4
    assert not owner.list(pb.GRANT)
    refuse_connect(p, p.door)
    for door in dead:
        owner.close_object(door)
    assert owner.list(pb.EXPORT) == []


def test_deregister_does_not_touch_other_regions(pair, owner):
    # mutation: cut all streams of the PD
    p = pair.by_ticket(uses=3)
    with Buffer(4096, 3) as more:
        other = owner.region(p.owner.pd, more.fd, 4096, ALL, iova=OWNER_IOVA * 2)
        receipt = owner.deregister(other)
        assert (receipt.streams_cut, list(receipt.exports)) == (0, [])
    assert p.read(0, 0, 100).bytes == 100


def test_closing_an_export(pair, owner):
    # mutation: leave the peers of a closed export inside
    p = pair.by_export(uses=5).await_inside()
    receipt = owner.close_object(p.door).receipt
    assert receipt.serial == p.door.serial and receipt.grants == 1
    p.await_disconnected()
    refuse_connect(p, p.door)
    assert owner.list(pb.EXPORT) == owner.list(pb.GRANT) == []
    assert owner.remote_token(p.owner.mr) == p.owner.mr.remote_token


def test_closing_a_ticket(pair, owner):
    # mutation: only stop newcomers
    p = pair.by_ticket(uses=5)
    owner.close_object(p.door)
    p.await_disconnected()
    refuse_connect(p, p.door)
    assert owner.list(pb.TICKET) == []


# ---- who

def test_who(pair, owner):
    # mutation: list the grants of other exports too
    p = pair
    doors = [owner.export(p.owner.mr, f"e{i}", REMOTE_READ, uses=4) for i in range(3)]
    qps = [p.connect(doors[0]), p.connect(doors[0]), p.connect(doors[1])]
    ticket = owner.ticket(p.owner.mr)
    inside = p.connect(ticket)
    assert wait_until(lambda: len([i for i in owner.list(pb.QP) if i.inbound]) == 4)
    assert wait_until(lambda: len(owner.list(pb.GRANT)) == 3)
    assert sorted(i.parent for i in owner.list(pb.GRANT)) == sorted([doors[0].serial] * 2 + [doors[1].serial])
    assert not any(i.until_ns and i.until_ns < time.time_ns() for i in owner.list(pb.GRANT))

    def who(serial):
        items, cursor = [], 0
        while True:
            page = owner.call(pb.Who(serial=serial, cursor=cursor)).list
            items += page.items
            cursor = page.cursor
            if not cursor:
                return items

    assert len(who(doors[0].serial)) == 2
    assert {i.type for i in who(doors[0].serial)} == {pb.GRANT}
    assert len(who(doors[1].serial)) == 1
    assert who(doors[2].serial) == []
    of_mr = who(p.owner.mr.serial)
    assert len([i for i in of_mr if i.type == pb.GRANT]) == 3
    assert [i.inbound for i in of_mr if i.type == pb.QP].count(True) >= 1
    assert all(i.peer.startswith("127.0.0.") for i in of_mr)
    for qp in qps:
        p.user.session.close_object(qp)
    assert wait_until(lambda: not owner.list(pb.GRANT))
    assert len(who(p.owner.mr.serial)) == 1 and p.user.session.query_qp(inside).connected
    with expect_refused("SERIAL"):
        who(10 ** 15)


# ---- events

def test_connected_and_gone(pair, owner):
    # mutation: tell of a peer when it has only shaken hands; name the wrong door
    p = pair.by_export()
    event = owner.wait_event(Event.CONNECTED)
    item, = (i for i in owner.list(pb.QP) if i.inbound)
    assert event.object == p.door.id and event.serial == item.serial
    assert item.parent == p.owner.pd.serial
    p.user.session.close_object(p.qp)
    assert wait_until(lambda: not owner.list(pb.QP))


def test_disconnected_says_why(pair, owner):
    # mutation: say only that it is gone
    p = pair.by_export()
    owner.close_object(p.door)
    event = p.user.session.wait_event(Event.DISCONNECTED, p.qp.serial)
    assert event.object == p.qp.id
    check_error(event.error, ("PEER_CLOSED", "QP_LOST", "REMOTE_TERMINATE", "REMOTE_TOKEN"))


def test_events_are_state(pair, owner):
    # mutation: queue every news of an object
    p = pair
    door = owner.export(p.owner.mr, "busy", REMOTE_READ, uses=1000, peers=16)
    for _ in range(30):
        p.user.session.close_object(p.connect(door))
    owner.quiet(0.5)
    assert 1 <= len([e for e in owner.events if e.kind == Event.CONNECTED]) <= 30
    assert all(e.kind != Event.RESYNC for e in owner.events)


def test_resync(own_nicd, peer_nicd):
    # mutation: drop news over the cap without a word
    from nicdtest.daemon import configuration
    nicd = own_nicd(config=configuration(session={"max_events": 4}))
    with nicd.session() as s, Buffer(4096) as buffer:
        mr = s.region(s.create_pd(), buffer.fd, 4096, ALL)
        doors = [s.ticket(mr, ttl_ms=300) for _ in range(64)]
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not any(e.kind == Event.RESYNC for e in s.events):
            s.quiet(0.1)
            if len([e for e in s.events if e.kind == Event.EXPIRED]) == len(doors):
                break   # it was quick enough to tell all
        told = [e.serial for e in s.events if e.kind == Event.EXPIRED]
        assert len(told) == 64 or any(e.kind == Event.RESYNC and e.object == 0 for e in s.events)
        assert len(s.list(pb.TICKET)) == 64


# ---- revoke

@pytest.fixture(params=["admin", "another session of the account"])
def revoker(request, nicd):
    if request.param == "admin":
        yield nicd.admin()
    else:
        with nicd.session() as other:
            yield other


def test_revoke_a_region(pair, owner, revoker):
    # mutation: revoke the exports and leave the MR's own token
    p = pair.by_ticket()
    export = owner.export(p.owner.mr, "x", REMOTE_READ)
    receipt = revoker.call(pb.Revoke(serial=p.owner.mr.serial)).receipt
    assert receipt.serial == p.owner.mr.serial and list(receipt.exports) == [export.serial]
    event = owner.wait_event(Event.REVOKED, p.owner.mr.serial)
    assert event.object == p.owner.mr.id
    with expect_refused("MR_STATE"):
        owner.remote_token(p.owner.mr)
    reply, = p.user.session.wait([p.start(pb.Read, 0, 0, 100)])
    check_refused(reply, ("REMOTE_TOKEN", "QP_STATE", "QP_LOST"))
    owner.register(p.owner.mr, [(None, 0, 65536)], OWNER_IOVA, flags=ALL, fd=p.owner.buffer.fd)


def test_revoke_an_export(pair, owner, revoker):
    # mutation: leave the peers inside; revoke the MR as well
    p = pair.by_export(uses=3).await_inside()
    receipt = revoker.call(pb.Revoke(serial=p.door.serial)).receipt
    assert receipt.serial == p.door.serial and receipt.grants == 1
    owner.wait_event(Event.REVOKED, p.door.serial)
    p.await_disconnected()
    refuse_connect(p, p.door)
    assert owner.remote_token(p.owner.mr) == p.owner.mr.remote_token


def test_revoke_a_ticket(pair, owner, revoker):
    # mutation: revoke newcomers only
    p = pair.by_ticket(uses=3)
    revoker.call(pb.Revoke(serial=p.door.serial))
    owner.wait_event(Event.REVOKED, p.door.serial)
    p.await_disconnected()
    refuse_connect(p, p.door)


def test_revoke_a_qp(pair, owner, revoker):
    # mutation: end only one end
    p = pair.by_export(uses=3)
    owner.wait_event(Event.CONNECTED)
    inbound, = (i for i in owner.list(pb.QP) if i.inbound)
    revoker.call(pb.Revoke(serial=inbound.serial))
    p.await_disconnected()
    assert wait_until(lambda: not [i for i in owner.list(pb.QP) if i.inbound])
    pair.connect(p.door)


def test_revoke_a_session(pair, owner, revoker):
    # mutation: close the socket and keep the objects
    p = pair.by_export(uses=3)
    revoker.call(pb.Revoke(serial=owner.hello.session))
    try:
        owner.wait_end()
    except Ended:
        pass
    assert owner.ended
    p.await_disconnected()
    assert not [i for i in p.owner.nicd.admin().list(pb.MR) if i.session == owner.hello.session]


def test_revoking_twice(pair, owner, revoker):
    # mutation: answer success for what is already gone
    revoker.call(pb.Revoke(serial=pair.owner.mr.serial))
    with expect_refused(("MR_STATE", "REVOKED", "SERIAL")):
        revoker.call(pb.Revoke(serial=pair.owner.mr.serial))


def test_what_cannot_be_revoked(pair, owner):
    # mutation: let Revoke close anything
    with expect_refused(("SERIAL", "HANDLE_TYPE", "VALUE")):
        owner.call(pb.Revoke(serial=pair.owner.pd.serial))
    with expect_refused(("SERIAL", "HANDLE_TYPE", "VALUE", "NOT_PERMITTED")):
        owner.call(pb.Revoke(serial=owner.hello.adapters[0].serial))
    with expect_refused("SERIAL"):
        owner.call(pb.Revoke(serial=0))
    owner.create_mr(pair.owner.pd)
