# SPDX-License-Identifier: MIT
"""PDs and normal memory regions: creating, registering, deregistering, tokens, closing."""
import os

import pytest

from nicdtest.daemon import configuration
from nicdtest.memory import SEAL_FUTURE_WRITE, SEAL_SHRINK, Buffer, memfd
from nicdtest.pb import LOCAL_WRITE, READ_SINK, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_refused, ref, register_message

from parts import IOVA, PAGE, SIZE, Owned, state_of
from rules import rule


@pytest.fixture
def o(pair):
    with Owned(pair) as owned:
        yield owned


@pytest.fixture
def small(own_nicd, provider):
    """A nicd that gives an account two of each."""
    nicd = own_nicd(config=configuration({"pds": 2, "mrs": 2, "mws": 2, "pinned_bytes": 2 * SIZE}), provider=provider.name)
    with nicd.session() as session:
        yield session


# ---- creating

@rule("create-pd.isolates", "local-token.scope", "bind.pd")
def test_pds_are_walls(o):
    # mutation: look a local token up in all PDs; leave out a check of the PD
    there = o.session.create_pd()
    foreign = o.session.region(there, o.buffer.fd, SIZE, LOCAL_WRITE | REMOTE_READ, IOVA)
    receive = pb.Receive(qp=ref(o.qp), local_token=foreign.local_token, local_addr=IOVA, length=PAGE)
    check_refused(o.ask(receive), "LOCAL_TOKEN")
    window = o.session.call(pb.CreateMw(pd=ref(there))).object
    o.refused(o.bind_message(window, o.normal()), "PD_MISMATCH")
    o.refused(o.bind_message(o.window(), foreign), "PD_MISMATCH")
    o.refused(o.bind_message(window, foreign), "PD_MISMATCH")
    fast = o.session.call(pb.CreateMr(pd=ref(there), fast_register=True)).object
    o.session.call(pb.InitializeFastRegister(mr=ref(fast), adapter_page_count=16, remote_access=True))
    o.refused(o.fast_message(fast), "PD_MISMATCH")
    o.peer_refused(pb.Read, foreign.remote_token)


@rule("create-pd.resources", "create-mr.resources", "create-mw.resources")
def test_create_resources(small):
    # mutation: charge after making; leave an object behind the refusal
    def refused(message):
        reply, = small.wait([small.start(message)])
        check_refused(reply, "QUOTA")
        assert reply.error.status == pb.INSUFFICIENT_RESOURCES and not reply.HasField("object")

    pd, _ = small.create_pd(), small.create_pd()
    refused(pb.CreatePd())
    small.create_mr(pd)
    last = small.create_mr(pd)
    refused(pb.CreateMr(pd=ref(pd)))
    refused(pb.CreateMr(pd=ref(pd), fast_register=True))
    for _ in range(2):
        window = small.call(pb.CreateMw(pd=ref(pd))).object
    refused(pb.CreateMw(pd=ref(pd)))
    for thing, again in ((last, pb.CreateMr(pd=ref(pd))), (window, pb.CreateMw(pd=ref(pd)))):
        small.close_object(thing)
        small.call(again)


@rule("create-mr.registers-nothing")
def test_create_registers_nothing(o):
    # mutation: charge bytes, or ask the device, for an MR that is only made
    before = o.pair.owner.nicd.ledger().provider_tags
    mr = o.mr()
    assert o.pair.owner.nicd.ledger().provider_tags == before
    assert state_of(o.session, mr) == "CREATED"


@rule("create-mr.kind", "init-fast.kind", "invalidate.normal")
def test_kind_is_for_ever(o):
    # mutation: one kind of MR that can do all
    normal, fast = o.mr(), o.fast()
    for message in (pb.InitializeFastRegister(mr=ref(normal), adapter_page_count=1), o.fast_message(normal),
                    pb.Invalidate(object=ref(normal), qp=ref(o.qp)), pb.Invalidate(object=ref(o.normal()), qp=ref(o.qp)),
                    o.register_message(fast), pb.DeregisterMr(mr=ref(fast))):
        o.refused(message, "MR_KIND", pb.INVALID_PARAMETER)
    o.session.call(o.register_message(normal))
    o.fast_register(fast)
    o.refused(o.register_message(fast), "MR_KIND", pb.INVALID_PARAMETER)


# ---- registering

@rule("register-mr.tokens", "register-mr.index", "remote-token.own")
def test_registered_is_reached(o):
    # mutation: use the address for anything but as an index
    tokens = o.normal(REMOTE_READ | REMOTE_WRITE)
    assert o.can_read(tokens.remote_token, 5000, 300) == o.buffer[5000:5300]
    o.can_write(tokens.remote_token, 100, 50)
    assert o.buffer[100:150] == b"\x5a" * 50
    assert o.session.remote_token(tokens) == tokens.remote_token and o.session.local_token(tokens) == tokens.local_token
    # An address at which nothing of nicd or the client is, and the last there is.
    for iova in (PAGE, 2 ** 64 - 2 * SIZE):
        tokens = o.normal(REMOTE_READ, iova=iova)
        assert o.can_read(tokens.remote_token, 77, 10, iova) == o.buffer[77:87]


@rule("register-mr.contiguous")
@pytest.mark.parametrize("ranges", [[(0, 100), (PAGE, PAGE)], [(0, PAGE), (100, PAGE)], [(0, PAGE), (PAGE, 10), (2 * PAGE, PAGE)]])
def test_contiguous(o, ranges):
    # mutation: join what does not meet on a page
    o.refused(o.register_message(o.mr(), ranges), "RANGE_NOT_JOINED", pb.INVALID_PARAMETER)


@rule("register-mr.repeats")
def test_repeated_pages(o):
    # mutation: refuse ranges that overlap
    tokens = o.normal(REMOTE_READ, ranges=[(PAGE, PAGE), (0, PAGE), (PAGE, PAGE)])
    assert o.can_read(tokens.remote_token, 0, 3 * PAGE) == o.buffer[PAGE:2 * PAGE] + o.buffer[:PAGE] + o.buffer[PAGE:2 * PAGE]


@rule("register-mr.length", "register-mr.zero")
def test_length(o):
    # mutation: believe the length; take 0 bytes for a registration
    mr = o.mr()
    o.refused(o.register_message(mr, [(0, PAGE), (PAGE, PAGE)], length=2 * PAGE + 1), "LENGTH_BEYOND", pb.INVALID_PARAMETER)
    o.refused(o.register_message(mr, [(0, 0)]), "LENGTH_ZERO", pb.INVALID_PARAMETER)
    o.refused(o.register_message(mr, [(0, SIZE + 1)]), "RANGE_BEYOND", pb.INVALID_PARAMETER)
    o.refused(o.register_message(mr, [(2 ** 64 - PAGE, 2 * PAGE)]), "RANGE_OVERFLOW", pb.INVALID_PARAMETER)
    tokens = o.session.call(o.register_message(mr, [(0, PAGE), (PAGE, PAGE)], length=PAGE + 1)).mr
    assert o.can_read(tokens.remote_token, 0, PAGE + 1) == o.buffer[:PAGE + 1]
    o.peer_refused(pb.Read, tokens.remote_token, 0, PAGE + 2)


@rule("register-mr.zero-based")
def test_zero_based(o):
    # mutation: let 0 through
    o.refused(o.register_message(o.mr(), iova=0), "IOVA_ZERO", pb.INVALID_PARAMETER)
    o.refused(o.register_message(o.mr(), iova=2 ** 64 - PAGE), "IOVA_OVERFLOW", pb.INVALID_PARAMETER)
    o.refused(o.register_message(o.mr(), iova=IOVA + 1), "IOVA_MISFIT", pb.INVALID_PARAMETER)


@rule("register-mr.rights")
def test_rights(o):
    # mutation: test remote write with a bit of it
    assert o.normal(REMOTE_WRITE).flags & LOCAL_WRITE
    assert not o.normal(REMOTE_READ).flags & LOCAL_WRITE
    for undefined in (0x4, 0x6, 0x10, 0x80000000):
        o.refused(o.register_message(o.mr(), flags=undefined), "FLAGS", pb.INVALID_PARAMETER)
    # Local read has no bit: what has no flags can be sent.
    tokens = o.normal(0)
    receive = o.pair.user.session.start(pb.Receive(qp=ref(o.pair.qp), local_token=o.pair.user.mr.local_token,
                                                   local_addr=o.pair.user.iova, length=100))
    o.session.call(pb.Send(qp=ref(o.qp), local_token=tokens.local_token, local_addr=IOVA + 9, length=100))
    o.pair.user.session.wait([receive])
    assert o.pair.user.buffer[:100] == o.buffer[9:109]


@rule("register-mr.rights-hold", "write.rights")
@pytest.mark.parametrize("flags, reads, writes", [(0, False, False), (LOCAL_WRITE, False, False), (REMOTE_READ, True, False),
                                                  (REMOTE_WRITE, False, True), (REMOTE_READ | REMOTE_WRITE, True, True)])
def test_rights_hold(o, provider, flags, reads, writes):
    # mutation: look at one right for both operations
    tokens = o.normal(flags)
    token = tokens.remote_token or tokens.local_token
    why = provider.expect("remote_errors")
    before = o.buffer.bytes()
    if reads:
        o.can_read(token)
    else:
        o.peer_refused(pb.Read, token, why=why["rights to read" if tokens.remote_token else "token"])
    if writes:
        o.can_write(token)
        assert o.buffer[:PAGE] == b"\x5a" * PAGE
    else:
        o.peer_refused(pb.Write, token, why=why["rights to write" if tokens.remote_token else "token"])
        assert o.buffer.bytes() == before


@rule("register-mr.read-sink", "read.sink")
def test_read_sink(o):
    # mutation: give a remote right with it, as iWARP providers do; refuse it
    for flags in (0, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_READ | REMOTE_WRITE):
        tokens = o.normal(flags | READ_SINK)
        assert bool(tokens.remote_token) == bool(flags & (REMOTE_READ | 0x4))
        assert tokens.flags & LOCAL_WRITE
    o.peer_refused(pb.Write, o.normal(READ_SINK).local_token)
    source, user = o.normal(REMOTE_READ), o.pair.user
    for flags in (READ_SINK, LOCAL_WRITE):   # with it and without it
        with Buffer(SIZE) as buffer:
            sink = user.session.region(user.pd, buffer.fd, SIZE, flags, IOVA)
            o.pair.read(token=source.remote_token, address=IOVA, length=SIZE, local_token=sink.local_token, local_address=IOVA)
            assert buffer.bytes() == o.buffer.bytes()


@rule("register-mr.once", "deregister-mr.again", "deregister-mr.quiescent")
def test_register_again(o):
    # mutation: keep the tokens of the registration before
    mr, seen = o.mr(), set()
    for _ in range(3):
        tokens = o.session.call(o.register_message(mr)).mr
        o.refused(o.register_message(mr), "MR_STATE", pb.INVALID_DEVICE_STATE)
        assert not {tokens.local_token, tokens.remote_token} & seen
        for old in seen:
            o.peer_refused(pb.Read, old)
        o.can_read(tokens.remote_token)
        seen |= {tokens.local_token, tokens.remote_token}
        o.session.deregister(mr)
        o.peer_refused(pb.Read, tokens.remote_token)
    assert state_of(o.session, mr) == "CREATED"


@rule("register-mr.memory")
def test_memory(o):
    # mutation: take what can be shrunk, or has holes
    for fd, reason in ((memfd(PAGE, seals=0), "MEMORY_NOT_SEALED"), (memfd(PAGE, populate=False), "MEMORY_SPARSE"),
                       (os.open("/dev/null", os.O_RDWR), "MEMORY_NOT_MEMFD")):
        check_refused(o.ask(pb.AddMemory(), [fd]), reason)
        os.close(fd)


@rule("register-mr.read-only")
@pytest.mark.parametrize("flags", [LOCAL_WRITE, REMOTE_WRITE, READ_SINK])
def test_read_only(o, flags):
    # mutation: map it writable, or find out at the first write
    fd = memfd(PAGE, seals=SEAL_SHRINK | SEAL_FUTURE_WRITE)
    memory = o.session.add_memory(fd)
    os.close(fd)
    mr = o.mr()
    o.refused(register_message(mr, [(memory, 0, PAGE)], IOVA, 0, flags), "MEMORY_READ_ONLY", pb.ACCESS_VIOLATION)
    o.session.call(register_message(mr, [(memory, 0, PAGE)], IOVA, 0, REMOTE_READ))


@rule("register-mr.resources")
def test_register_resources(small):
    # mutation: leave the MR in another state, or a part of the charge
    with Buffer(4 * SIZE) as buffer:
        memory, mr = small.add_memory(buffer.fd), small.create_mr(small.create_pd())
        reply, = small.wait([small.start(register_message(mr, [(memory, 0, 4 * SIZE)], IOVA))])
        check_refused(reply, "QUOTA")
        assert reply.error.status == pb.INSUFFICIENT_RESOURCES and state_of(small, mr) == "CREATED"
    with Buffer(SIZE) as buffer:
        small.register(mr, [(None, 0, SIZE)], fd=buffer.fd)


@rule("register-mr.pending", "register-mr.resources")
def test_register_pending(own_nicd, provider):
    # mutation: answer at once and later, or never
    nicd = own_nicd(options=["--fault", "tag_add:fail=TAGS_EXHAUSTED:delay=50ms:every=2,tag_drop:delay=20ms"], provider=provider.name)
    with nicd.session() as s, Buffer(SIZE) as buffer:
        memory, pd = s.add_memory(buffer.fd), s.create_pd()
        mrs = [s.create_mr(pd) for _ in range(10)]
        ids = [s.start(register_message(mr, [(memory, 0, SIZE)], IOVA)) for mr in mrs]
        replies = s.wait(ids)
        failed = [reply for reply in replies if reply.HasField("error")]
        assert len(failed) == 5 and all(r.error.status == pb.INSUFFICIENT_RESOURCES and not r.HasField("mr") for r in failed)
        s.quiet(0.2)
        assert not set(ids) & set(s.replies) and sorted(i for i in s.order if i in ids) == ids
        states = [state_of(s, mr) for mr in mrs]
        assert states == ["CREATED" if r.HasField("error") else "REGISTERED" for r in replies]


@rule("deregister-mr.device-fails")
def test_device_does_not_let_go(own_nicd, provider):
    # mutation: take the device's refusal for its confirmation
    nicd = own_nicd(options=["--fault", "tag_drop:fail:times=1"], provider=provider.name)
    with nicd.session() as s, Buffer(SIZE) as buffer:
        mr = s.region(s.create_pd(), buffer.fd, SIZE, REMOTE_READ)
        reply, = s.wait([s.start(pb.DeregisterMr(mr=ref(mr)))])
        check_refused(reply, "DEVICE_FAILED")
        assert state_of(s, mr) == "ERROR" and nicd.ledger().held_fds == 1
        s.deregister(mr)
        assert state_of(s, mr) == "CREATED"


# ---- tokens

@rule("local-token.when", "local-token.error")
def test_tokens_by_state(o):
    # mutation: answer 0, or what was, in place of an error
    mr = o.mr()
    for ask in (pb.GetLocalToken, pb.GetRemoteToken):
        o.refused(ask(mr=ref(mr)), "MR_STATE", pb.INVALID_DEVICE_STATE)
    tokens = o.session.call(o.register_message(mr)).mr
    assert o.ask(pb.GetLocalToken(mr=ref(mr))).token == tokens.local_token != 0
    o.session.deregister(mr)
    for ask in (pb.GetLocalToken, pb.GetRemoteToken):
        o.refused(ask(mr=ref(mr)), "MR_STATE", pb.INVALID_DEVICE_STATE)
    # While it is being registered there is none yet.
    batch = o.session.batch()
    batch.add(o.register_message(mr))
    batch.add(pb.GetLocalToken(mr=ref(mr)))
    check_refused(batch.run()[1], "MR_STATE")


@rule("remote-token.no-rights")
def test_no_remote_rights(o):
    # mutation: tell the local token, or 0
    for flags in (0, LOCAL_WRITE, READ_SINK):
        tokens = o.normal(flags)
        assert tokens.remote_token == 0
        o.refused(pb.GetRemoteToken(mr=ref(tokens)), "NO_REMOTE_RIGHTS", pb.ACCESS_DENIED)


@rule("remote-token.not-local")
def test_tokens_are_of_two_kinds(o):
    # mutation: one index for both
    tokens = o.normal(REMOTE_READ | REMOTE_WRITE)
    o.peer_refused(pb.Read, tokens.local_token)
    o.refused(pb.Receive(qp=ref(o.qp), local_token=tokens.remote_token, local_addr=IOVA, length=1), "LOCAL_TOKEN", pb.ACCESS_VIOLATION)


# ---- closing

@rule("close.never-fails", "close.deregisters")
def test_close_in_every_state(o):
    # mutation: refuse to close what is registered; leave its tag
    things = [o.mr(), o.normal(REMOTE_READ), o.fast(), o.session.call(pb.CreateMr(pd=ref(o.pd), fast_register=True)).object, o.window()]
    valid, mw, over = o.fast(), o.window(), o.normal()
    token = o.fast_register(valid).remote_token
    window = o.bind(mw, over).remote_token
    o.can_read(token)
    o.can_read(window)
    for thing in [*things, valid, mw, over]:
        assert not o.ask(pb.Close(object=ref(thing))).HasField("error")
    for dead in (token, window):
        o.peer_refused(pb.Read, dead)


@rule("close.handle")
def test_closed_handle(o):
    # mutation: drop the name only when the device has answered
    mr = o.normal(REMOTE_READ)
    batch = o.session.batch()
    batch.add(pb.Close(object=ref(mr)))
    for message in (pb.GetLocalToken(mr=ref(mr)), pb.DeregisterMr(mr=ref(mr)), o.register_message(mr), pb.Close(object=ref(mr))):
        batch.add(message)
    closed, *others = batch.run()
    assert not closed.HasField("error")
    for reply in others:
        assert check_refused(reply, "HANDLE").status == pb.INVALID_HANDLE


@rule("close.last", "completion.one")
def test_close_is_last(o):
    # mutation: answer Close before what is under way; answer either of them twice
    mr = o.mr()
    batch = o.session.batch()
    batch.add(o.register_message(mr))
    batch.add(pb.Close(object=ref(mr)))
    ids = batch.send()
    o.session.wait(ids)
    assert [i for i in o.session.order if i in ids] == ids
    o.session.quiet(0.1)
    assert not o.session.replies


@rule("life.pd-first")
def test_pd_first(o):
    # mutation: refuse, or answer at once, or end the MRs
    tokens = o.normal(REMOTE_READ)
    closing = o.session.start(pb.Close(object=ref(o.pd)))
    o.refused(pb.CreateMr(pd=ref(o.pd)), "HANDLE")
    assert o.can_read(tokens.remote_token) == o.buffer[:PAGE]
    assert closing not in o.session.replies
    # All that stands on it: the pair's own MR, door and connection, too.
    last = [o.session.start(pb.Close(object=ref(thing))) for thing in (o.qp, o.pair.door, o.pair.owner.mr, tokens)]
    o.session.wait(last)
    reply, = o.session.wait([closing])
    assert not reply.HasField("error") and o.session.list(pb.PD) == []


@rule("life.qp-not-mr")
def test_connection_ends(o):
    # mutation: end with a connection what is not its own
    tokens = o.normal(REMOTE_READ)
    o.session.call(pb.Disconnect(qp=ref(o.qp)))
    o.pair.await_disconnected()
    assert state_of(o.session, tokens) == "REGISTERED" and o.session.remote_token(tokens) == tokens.remote_token
    o.pair.qp = o.pair.connect(o.pair.door)
    assert o.can_read(tokens.remote_token) == o.buffer[:PAGE]
