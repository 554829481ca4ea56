# SPDX-License-Identifier: MIT
"""Ids, serials, references inside a frame, QueryTokens, lists and their pages, quotas."""
import random

import pytest

from nicdtest import limits
from nicdtest.daemon import configuration, wait_until
from nicdtest.memory import Buffer
from nicdtest.pb import REMOTE_READ, pb
from nicdtest.wire import check_refused, expect_refused, ref, register_message, request


def create_mrs(session, pd, n):
    mrs = []
    while len(mrs) < n:
        batch = session.batch()
        for _ in range(min(limits.FRAME_REQUESTS, n - len(mrs))):
            batch.add(pb.CreateMr(pd=ref(pd)))
        mrs += [r.object for r in batch.run()]
    return mrs


# ---- ids

def test_another_sessions_id_means_nothing(nicd, session):
    # mutation: one table of ids for all sessions
    pd = session.create_pd()
    mr = session.create_mr(pd)
    with nicd.session() as other:
        for what in (pd, mr):
            with expect_refused("HANDLE") as _:
                other.close_object(what)
        with expect_refused("HANDLE"):
            other.create_mr(pd)
        with expect_refused("HANDLE"):
            other.local_token(mr)
    session.create_mr(pd)


def test_foreign_and_absent_ids_look_alike(nicd, session):
    # mutation: tell in the error that the id exists elsewhere
    mr = session.create_mr(session.create_pd())
    with nicd.session() as other:
        other.create_pd()
        errors = []
        for id_ in (mr.id, mr.id + 5):
            reply, = other.wait([other.start(pb.GetLocalToken(mr=pb.Ref(id=id_)))])
            assert reply.error.observed == id_
            reply.error.observed = 0
            errors.append(reply.error.SerializeToString())
        assert errors[0] == errors[1]


def test_stale_generation(session):
    # mutation: keep a slot's generation when it is used again
    pd = session.create_pd()
    old = set()
    for _ in range(300):
        mr = session.create_mr(pd)
        assert mr.id not in old
        session.close_object(mr)
        old.add(mr.id)
    live = session.create_mr(pd)
    for id_ in old:
        with expect_refused("HANDLE"):
            session.local_token(id_)
    with expect_refused("MR_STATE"):
        session.local_token(live)


def test_wrong_type(session):
    # mutation: look ids up without their type
    pd = session.create_pd()
    mr = session.create_mr(pd)
    with expect_refused("HANDLE_TYPE", limit=pb.MR, observed=pb.PD):
        session.local_token(pd)
    with expect_refused("HANDLE_TYPE", limit=pb.PD, observed=pb.MR):
        session.create_mr(mr)
    with expect_refused("HANDLE_TYPE", limit=pb.QP, observed=pb.MR):
        session.query_qp(mr)
    with expect_refused("HANDLE_TYPE", limit=pb.MEMORY, observed=pb.PD):
        session.register(mr, [(pd, 0, 4096)])
    with expect_refused("HANDLE_TYPE", limit=pb.ADAPTER, observed=pb.PD):
        session.call(pb.CreatePd(adapter=ref(pd)))
    with expect_refused("HANDLE_TYPE", limit=pb.PD, observed=pb.ADAPTER):
        session.create_mr(session.hello.adapters[0])


def test_random_ids(session):
    # mutation: index the table without comparing its size
    rng = random.Random(1)
    pd = session.create_pd()
    known = [pd.id, session.create_mr(pd).id]
    for _ in range(40):
        batch = session.batch()
        for _ in range(250):
            id_ = rng.choice([rng.getrandbits(64), rng.getrandbits(32), rng.choice(known) ^ (1 << rng.randrange(64)), 0, 2 ** 64 - 1])
            batch.add(rng.choice([lambda: pb.GetLocalToken(mr=pb.Ref(id=id_)), lambda: pb.Close(object=pb.Ref(id=id_)),
                                  lambda: pb.CreateMr(pd=pb.Ref(id=id_)), lambda: pb.QueryQp(qp=pb.Ref(id=id_))])())
        for reply in batch.run():
            check_refused(reply, ("HANDLE", "HANDLE_TYPE"))


def test_an_adapter_cannot_be_closed(session):
    # mutation: let Close take any type
    with expect_refused(("HANDLE", "HANDLE_TYPE")):
        session.close_object(session.hello.adapters[0])
    session.create_pd()


# ---- references

def test_a_whole_set_up_in_one_frame(session):
    # mutation: resolve references when the frame comes, not when the earlier request has its reply
    with Buffer(8192) as buffer:
        batch = session.batch()
        pd = batch.add(pb.CreatePd())
        memory = batch.add(pb.AddMemory(), [buffer.fd])
        mr = batch.add(pb.CreateMr(pd=ref(pd)))
        batch.add(register_message(mr, [(memory, 0, 8192)], flags=REMOTE_READ))
        replies = batch.run()
    assert not any(r.HasField("error") for r in replies), replies
    assert replies[3].mr.id == replies[2].object.id and replies[3].mr.remote_token


def test_reference_to_a_registration(session):
    # mutation: start a request before the one that it names has its final reply
    with Buffer(8192) as buffer:
        batch = session.batch()
        mr = batch.add(pb.CreateMr(pd=ref(session.create_pd())))
        registered = batch.add(register_message(mr, [(None, 0, 8192)], flags=REMOTE_READ), [buffer.fd])
        batch.add(pb.CreateExport(mr=ref(registered), name="of a reference", flags=REMOTE_READ))
        batch.add(pb.GetLocalToken(mr=ref(registered)))
        _, tokens, door, local = batch.run()
    assert door.door.locator.startswith("nicd1:")
    assert local.token == tokens.mr.local_token


def test_references_to_what_was_refused(nicd, session):
    # mutation: start a request whose reference failed, or never answer it
    batch = session.batch()
    bad = batch.add(pb.CreatePd(adapter=pb.Ref(id=12345)))
    mr = batch.add(pb.CreateMr(pd=ref(bad)))
    batch.add(pb.GetLocalToken(mr=ref(mr)))
    good = batch.add(pb.CreatePd())
    batch.add(pb.CreateMr(pd=ref(good)))
    first, second, third, fourth, fifth = batch.run()
    check_refused(first, "HANDLE")
    check_refused(second, "DEPENDENCY")
    check_refused(third, "DEPENDENCY")
    assert second.error.status == pb.DEPENDENCY_FAILED
    assert fourth.object.id and fifth.object.id


def test_descriptors_of_a_request_that_never_started(nicd, session):
    # mutation: forget the descriptors of a request whose reference failed
    with Buffer(8192) as buffer:
        batch = session.batch()
        bad = batch.add(pb.CreateMr(pd=pb.Ref(id=99)))
        batch.add(register_message(bad, [(None, 0, 8192)]), [buffer.fd])
        check_refused(batch.run()[1], "DEPENDENCY")
    session.close()
    nicd.assert_clean()


def test_reference_to_what_makes_nothing(session):
    # mutation: take 0 or left-over bytes for the result
    batch = session.batch()
    query = batch.add(pb.QueryAdapter(adapter=pb.Ref(id=session.hello.adapters[0].id)))
    batch.add(pb.CreateMr(pd=ref(query)))
    check_refused(batch.run()[1], ("HANDLE", "HANDLE_TYPE", "DEPENDENCY"))


def test_reference_of_the_wrong_type(session):
    # mutation: check types for ids only
    batch = session.batch()
    pd = batch.add(pb.CreatePd())
    batch.add(pb.GetLocalToken(mr=ref(pd)))
    check_refused(batch.run()[1], "HANDLE_TYPE", limit=pb.MR, observed=pb.PD)


def test_long_chain(session):
    # mutation: resolve references by recursion, or in quadratic time
    batch = session.batch()
    pd = batch.add(pb.CreatePd())
    for _ in range(limits.FRAME_REQUESTS - 2):
        batch.add(pb.CreateMr(pd=ref(pd)))
    batch.add(pb.Close(object=ref(pd)))
    *made, closed = batch.send()
    replies = session.wait(made)
    assert not any(r.HasField("error") for r in replies)
    assert closed not in session.replies   # it stands under 254 MRs
    for reply in replies[1:]:
        session.close_object(reply.object)
    session.wait([closed])


def test_ids_may_be_used_again_and_need_no_order(session):
    # mutation: demand growing request ids
    for id_ in (0xffffffff, 1, 7, 7, 1, 0x80000000):
        session.send_frame(pb.Frame(requests=[request(id_, pb.CreatePd())]))
        session.wait([id_])


# ---- QueryTokens

def test_query_tokens(session):
    # mutation: skip ids without tokens and shift the lists
    with Buffer(8192) as buffer:
        memory = session.add_memory(buffer.fd)
    pd = session.create_pd()
    mrs = create_mrs(session, pd, 6)
    tokens = {}
    for mr, flags in zip(mrs[:4], (REMOTE_READ, 0, REMOTE_READ, REMOTE_READ)):
        tokens[mr.id] = session.register(mr, [(memory, 0, 8192)], flags=flags)
    session.deregister(mrs[2])
    ids = [mrs[0].id, mrs[1].id, mrs[2].id, mrs[3].id, mrs[4].id, pd.id, 0, 2 ** 64 - 1, mrs[0].id]
    answer = session.call(pb.QueryTokens(mrs=ids)).tokens
    t = tokens
    a, b, d = t[mrs[0].id], t[mrs[1].id], t[mrs[3].id]
    assert list(answer.local_tokens) == [a.local_token, b.local_token, 0, d.local_token, 0, 0, 0, 0, a.local_token]
    assert list(answer.remote_tokens) == [a.remote_token, 0, 0, d.remote_token, 0, 0, 0, 0, a.remote_token]


def test_query_tokens_limits(session):
    # mutation: take one id more than there is room for in the reply
    answer = session.call(pb.QueryTokens(mrs=[5] * limits.QUERY_IDS)).tokens
    assert list(answer.local_tokens) == list(answer.remote_tokens) == [0] * limits.QUERY_IDS
    for n in (0, limits.QUERY_IDS + 1):
        with expect_refused("COUNT", limit=limits.QUERY_IDS, observed=n):
            session.call(pb.QueryTokens(mrs=[5] * n))


# ---- lists

def test_pages_of_a_long_list(nicd, session):
    # mutation: put the last item of a page on the next one too, or lose it
    pd = session.create_pd()
    serials = {m.serial for m in create_mrs(session, pd, 1500)}
    for max_ in (0, 7, 1000, 5000):
        items = session.list(pb.MR, max_)
        assert [i.serial for i in items] == sorted(serials)
        assert {(i.type, i.parent, i.session, i.account) for i in items} == {
            (pb.MR, pd.serial, session.hello.session, session.hello.account)}
    page = session.call(pb.List(type=pb.MR, max=7)).list
    assert len(page.items) == 7 and page.cursor
    item, = session.list(pb.PD)
    assert item.count == 1500
    mine, = (i for i in session.list(pb.SESSION) if i.serial == session.hello.session)
    assert mine.count == 1501


def test_lists_while_things_go(session):
    # mutation: keep a pointer to the next object as the cursor
    pd = session.create_pd()
    mrs = create_mrs(session, pd, 600)
    page = session.call(pb.List(type=pb.MR, max=100)).list
    for mr in mrs[90:200]:
        session.close_object(mr)
    rest, cursor = [], page.cursor
    while cursor:
        page = session.call(pb.List(type=pb.MR, cursor=cursor, max=100)).list
        rest += [i.serial for i in page.items]
        cursor = page.cursor
    assert rest == [m.serial for m in mrs[200:]]


def test_list_of_nothing_and_of_no_type(session):
    # mutation: index the registries by a type that there is not
    for type_ in (pb.MW, pb.MAPPING, pb.TICKET, pb.EXPORT, pb.GRANT, pb.QP):
        assert session.list(type_) == []
    for type_ in (pb.TYPE_NONE, 12, 1000, -1):
        with expect_refused("VALUE"):
            session.call(pb.List(type=type_))


def test_serials_grow_and_are_never_used_again(nicd, session):
    # mutation: number objects per session or per type
    last = session.hello.session
    for _ in range(5):
        pd = session.create_pd()
        mr = session.create_mr(pd)
        assert last < pd.serial < mr.serial
        last = mr.serial
        session.close_object(mr)
        session.close_object(pd)
    with nicd.session() as other:
        assert other.hello.session > last


def test_serials_of_another_account(own_nicd):
    # mutation: leave out the account in the look-up by serial
    nicd = own_nicd(config=configuration(nicd={"account_by": "session"}))
    with nicd.session() as a, nicd.session() as b, Buffer(4096) as buffer:
        assert a.hello.account != b.hello.account
        mr = a.region(a.create_pd(), buffer.fd, 4096, REMOTE_READ)
        door = a.export(mr, "mine", REMOTE_READ)
        for type_ in (pb.MR, pb.PD, pb.EXPORT, pb.MEMORY):
            assert b.list(type_) == [] and len(a.list(type_)) == 1 and len(nicd.admin().list(type_)) == 1
        assert [i.serial for i in b.list(pb.SESSION)] == [b.hello.session]
        foreign = []
        for serial in (mr.serial, door.serial, a.hello.session, 10 ** 12):
            for call in (pb.Revoke(serial=serial), pb.Who(serial=serial)):
                reply, = b.wait([b.start(call)])
                error = check_refused(reply, "SERIAL")
                error.observed = 0   # what was asked for
                foreign.append(error.SerializeToString())
        assert len(set(foreign)) == 1, "a foreign serial and one that there is not must look alike"
        assert a.remote_token(mr) == mr.remote_token
        b.export(b.region(b.create_pd(), buffer.fd, 4096, REMOTE_READ), "mine", REMOTE_READ)   # names are per account
        assert nicd.admin().call(pb.Revoke(serial=mr.serial)).receipt.serial == mr.serial


# ---- quotas

def test_quotas(own_nicd):
    # mutation: charge after taking, or not give back what a refused call had charged
    nicd = own_nicd(config=configuration({"pds": 3, "mrs": 5, "memories": 2, "pinned_bytes": 65536}))
    with nicd.session() as s, Buffer(32768) as buffer, Buffer(65536) as big:
        pds = [s.create_pd() for _ in range(3)]
        with expect_refused("QUOTA", limit=3, observed=4):
            s.create_pd()
        s.close_object(pds.pop())
        pds.append(s.create_pd())
        mrs = create_mrs(s, pds[0], 5)
        with nicd.session() as same_account:
            with expect_refused("QUOTA", limit=3, observed=4):
                same_account.create_pd()
        with expect_refused("QUOTA", limit=5, observed=6):
            s.create_mr(pds[1])
        tokens = s.register(mrs[0], [(None, 0, 32768)], fd=buffer.fd)
        with expect_refused("QUOTA", limit=65536, observed=98304):
            s.register(mrs[1], [(None, 0, 65536)], fd=big.fd)
        with expect_refused("MR_STATE"):
            s.local_token(mrs[1])
        assert s.local_token(mrs[0]) == tokens.local_token
        s.deregister(mrs[0])
        assert wait_until(lambda: nicd.ledger().held_fds == 0)   # the implied Memory goes right after its registration
        s.register(mrs[1], [(None, 0, 65536)], fd=big.fd)
        s.deregister(mrs[1])
        assert wait_until(lambda: nicd.ledger().held_fds == 0)
        with Buffer(4096) as small:
            for _ in range(2):
                s.add_memory(small.fd)
            with expect_refused("QUOTA", limit=2, observed=3):
                s.add_memory(small.fd)
    nicd.assert_clean()


def test_quota_of_sessions(own_nicd):
    # mutation: count sessions when they have said Hello
    nicd = own_nicd(config=configuration({"sessions": 3}))
    sessions = [nicd.session() for _ in range(3)]
    refused = nicd.session(hello=False)
    try:
        reply = refused.call(pb.Hello(major=1))
    except Exception as what:   # refused, or ended at once
        assert "QUOTA" in str(what) or "ended" in str(what) or isinstance(what, OSError), what
    else:
        raise AssertionError(f"a fourth session: {reply}")
    refused.close()
    sessions.pop().close()
    assert wait_until(lambda: nicd.ledger().sessions == 2)
    nicd.session().close()
    for s in sessions:
        s.close()
    nicd.assert_clean()
