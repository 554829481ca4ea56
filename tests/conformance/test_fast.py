# SPDX-License-Identifier: MIT
"""Fast-register memory regions: initializing, fast registration, invalidation, and invalidation by a peer's message."""
import pytest

from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, pb
from nicdtest.wire import check_refused, ref

from parts import BOTH, IOVA, PAGE, REMOTE_ERRORS, SIZE, Owned, other_connection, state_of
from rules import rule

READ, WRITE = pb.OP_ALLOW_REMOTE_READ, pb.OP_ALLOW_REMOTE_WRITE


@pytest.fixture
def o(pair):
    with Owned(pair) as owned:
        yield owned


def disconnected(o):
    """A Qp of the owner's that has no peer any more, but is one still."""
    user = o.pair.user
    theirs = user.session.region(user.pd, user.buffer.fd, user.size, REMOTE_READ)
    qp = o.session.connect_qp(o.pd, user.session.ticket(theirs).locator)
    o.session.call(pb.Disconnect(qp=ref(qp)))
    return qp


# ---- initializing

@rule("init-fast.pages")
def test_page_count(o):
    # mutation: initialize for more pages than a registration can have
    mr = o.session.call(pb.CreateMr(pd=ref(o.pd), fast_register=True)).object
    most = o.session.call(pb.QueryAdapter(adapter=ref(o.session.hello.adapters[0]))).adapter.max_fast_pages
    for pages in (most + 1, 2 ** 32 - 1):
        o.refused(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=pages), "PAGE_COUNT", pb.IMPLEMENTATION_LIMIT)
    assert state_of(o.session, mr) == "CREATED"
    o.session.call(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=most))


@rule("init-fast.tokens", "local-token.when")
def test_tokens_grant_nothing(o):
    # mutation: tokens that are the next registration's; an index that finds them
    mr = o.fast()
    assert o.session.local_token(mr) == mr.local_token != 0 and o.session.remote_token(mr) == mr.remote_token != 0
    o.peer_refused(pb.Read, mr.remote_token)
    o.refused(pb.Receive(qp=ref(o.qp), local_token=mr.local_token, local_addr=IOVA, length=1), "LOCAL_TOKEN")
    o.fast_register(mr)
    o.peer_refused(pb.Read, mr.remote_token)


@rule("init-fast.again")
def test_initialize_again(o):
    # mutation: draw new tokens; take other arguments in use
    mr = o.fast(pages=16)
    for pages in (16, 16, 2):
        message = pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=pages, remote_access=True)
        assert o.session.call(message).mr.remote_token
    o.refused(o.fast_message(mr), "PAGES_BEYOND")
    o.session.call(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=16, remote_access=True))
    o.fast_register(mr)
    for pages in (16, 2):
        o.refused(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=pages, remote_access=True), "MR_STATE", pb.INVALID_DEVICE_STATE)


# ---- registering

@rule("fast-register.reach", "fast-register.ranges", "fast-register.flags")
@pytest.mark.parametrize("flags, reads, writes", [(0, False, False), (READ, True, False), (WRITE, False, True), (BOTH, True, True),
                                                  (pb.OP_ALLOW_LOCAL_WRITE, False, False)])
def test_reach(o, flags, reads, writes):
    # mutation: take the operation flags for MR flags: 0x8 is READ_SINK there
    tokens = o.fast_register(o.fast(), flags)
    token = tokens.remote_token or tokens.local_token
    assert bool(tokens.remote_token) == (reads or writes)
    if reads:
        assert o.can_read(token, 100, 60) == o.buffer[100:160]
    else:
        o.peer_refused(pb.Read, token)
    if writes:
        o.can_write(token)
        assert o.buffer[:PAGE] == b"\x5a" * PAGE
    else:
        o.peer_refused(pb.Write, token)


@rule("fast-register.token", "remote-token.own")
def test_new_token_each_time(o):
    # mutation: the token of the initialization, for ever
    mr = o.fast()
    seen = {mr.remote_token}
    for _ in range(4):
        tokens = o.fast_register(mr)
        assert tokens.remote_token not in seen and o.session.remote_token(mr) == tokens.remote_token
        o.can_read(tokens.remote_token)
        o.invalidate(mr)
        o.peer_refused(pb.Read, tokens.remote_token)
        seen.add(tokens.remote_token)


@rule("fast-register.token-when", "invalidate.behind")
def test_behind_each_other(o):
    # mutation: show the reserved token, or that of the one before, while the device has not answered; start before what it names is there
    mr = o.fast()
    batch = o.session.batch()
    registered = batch.add(o.fast_message(mr))
    for message in (pb.GetRemoteToken(mr=ref(mr)), pb.GetLocalToken(mr=ref(mr)), pb.Invalidate(object=ref(mr), qp=ref(o.qp))):
        batch.add(message)
    batch.add(pb.Invalidate(object=ref(registered), qp=ref(o.qp)))
    first, *early, last = batch.run()
    assert first.mr.remote_token and not last.HasField("error"), last
    for reply in early:
        assert check_refused(reply, "MR_STATE").status == pb.INVALID_DEVICE_STATE
    assert state_of(o.session, mr) == "FREE"


@rule("fast-register.mapping")
def test_of_a_mapping(o):
    # mutation: begin at the mapping's first byte and not in its first page
    tokens = o.fast_register(o.fast(), mapping=o.mapping([(2 * PAGE, PAGE), (0, PAGE)]), length=2 * PAGE)
    assert o.can_read(tokens.remote_token, 0, 2 * PAGE) == o.buffer[2 * PAGE:3 * PAGE] + o.buffer[:PAGE]
    message = o.fast_message(o.fast(), length=2 * PAGE)
    message.mapping.CopyFrom(ref(o.mapping()))
    o.refused(message, "MAPPING_OR_RANGES")


@rule("fast-register.fbo", "fast-register.base")
def test_first_byte(o):
    # mutation: <= in place of <; compare without the offset
    mr = o.fast(pages=2)
    pages = {"size": 2 * PAGE}
    o.refused(o.fast_message(mr, fbo=PAGE, iova=IOVA, length=1, **pages), "FIRST_BYTE", pb.INVALID_PARAMETER)
    o.refused(o.fast_message(mr, fbo=100, iova=IOVA + 100, length=2 * PAGE - 99, **pages), "LENGTH_BEYOND", pb.INVALID_PARAMETER)
    o.refused(o.fast_message(mr, length=0, **pages), "LENGTH_ZERO", pb.INVALID_PARAMETER)
    o.refused(o.fast_message(mr, fbo=100, iova=IOVA, length=1, **pages), "IOVA_MISFIT", pb.INVALID_PARAMETER)
    o.refused(o.fast_message(mr, fbo=0, iova=2 ** 64 - PAGE, length=2 * PAGE, **pages), "IOVA_OVERFLOW", pb.INVALID_PARAMETER)
    tokens = o.fast_register(mr, fbo=100, iova=IOVA + 100, length=2 * PAGE - 100, **pages)
    assert o.can_read(tokens.remote_token, 100, 2 * PAGE - 100) == o.buffer[100:2 * PAGE]
    o.peer_refused(pb.Read, tokens.remote_token, 99, 1)
    o.peer_refused(pb.Read, tokens.remote_token, 2 * PAGE - 1, 2)


@rule("fast-register.base-zero")
def test_base_zero(o):
    # mutation: allow it where the first byte's offset is 0
    o.refused(o.fast_message(o.fast(), iova=0), "IOVA_ZERO", pb.INVALID_PARAMETER)


@rule("fast-register.pages")
def test_pages(o):
    # mutation: count bytes in place of pages
    mr = o.fast(pages=2)
    o.refused(o.fast_message(mr, size=3 * PAGE, length=PAGE), "PAGES_BEYOND", pb.INVALID_PARAMETER)
    o.fast_register(mr, size=2 * PAGE, length=2 * PAGE)


@rule("fast-register.remote-access")
@pytest.mark.parametrize("flags", [READ, WRITE, BOTH])
def test_remote_access(o, flags):
    # mutation: forget what it was initialized with
    mr = o.fast(remote=False)
    o.refused(o.fast_message(mr, flags), "NO_REMOTE_ACCESS", pb.ACCESS_VIOLATION)
    assert o.fast_register(mr, pb.OP_ALLOW_LOCAL_WRITE).remote_token == 0


@rule("fast-register.connected", "invalidate.connected", "bind.connected")
def test_not_connected(o):
    # mutation: post, and find out there
    qp, valid, normal = disconnected(o), o.fast(), o.normal()
    o.fast_register(valid)
    for message in (o.fast_message(o.fast(), qp=qp), pb.Invalidate(object=ref(valid), qp=ref(qp)),
                    o.bind_message(o.window(), normal, qp=qp)):
        o.refused(message, "QP_STATE", pb.CONNECTION_INVALID)
    assert state_of(o.session, valid) == "VALID"


@rule("fast-register.free")
def test_only_when_free(o):
    # mutation: register over what is registered
    mr = o.fast()
    tokens = o.fast_register(mr)
    o.refused(o.fast_message(mr), "MR_STATE", pb.INVALID_DEVICE_STATE)
    assert o.can_read(tokens.remote_token) == o.buffer[:PAGE]


@rule("fast-register.ordered", "completion.in-order")
def test_in_order(o):
    # mutation: drop the tag before work that was posted earlier has taken its bytes
    user, mr = o.pair.user, o.fast()
    tokens = o.fast_register(mr, pb.OP_ALLOW_LOCAL_WRITE)
    receives = [user.session.start(pb.Receive(qp=ref(o.pair.qp), local_token=user.mr.local_token, local_addr=user.iova + i * PAGE,
                                              length=PAGE)) for i in range(3)]
    batch = o.session.batch()
    for i in range(3):
        batch.add(pb.Send(qp=ref(o.qp), local_token=tokens.local_token, local_addr=IOVA + i * PAGE, length=PAGE))
    batch.add(pb.Invalidate(object=ref(mr), qp=ref(o.qp)))
    batch.add(pb.Send(qp=ref(o.qp), local_token=tokens.local_token, local_addr=IOVA, length=1))
    *sent, last = batch.run()
    assert not [r for r in sent if r.HasField("error")], sent
    check_refused(last, ("LOCAL_TOKEN", "LOCAL_GONE"))
    user.session.wait(receives)
    assert user.buffer[:3 * PAGE] == o.buffer[:3 * PAGE]
    assert user.session.order[-3:] == receives


# ---- invalidating

@rule("invalidate.fast", "invalidate.twice", "invalidate.kills", "deregister-mr.quiescent")
def test_invalidate(o, provider):
    # mutation: answer before the device; let a FREE one be invalidated
    mr = o.fast()
    o.refused(pb.Invalidate(object=ref(mr), qp=ref(o.qp)), "MR_STATE", pb.INVALID_DEVICE_STATE)
    for _ in range(3):
        token = o.fast_register(mr).remote_token
        assert o.can_read(token) == o.buffer[:PAGE]
        o.invalidate(mr)
        assert state_of(o.session, mr) == "FREE"
        o.refused(pb.Invalidate(object=ref(mr), qp=ref(o.qp)), "MR_STATE", pb.INVALID_DEVICE_STATE)
    qp, _ = other_connection(o.pair)
    o.peer_refused(pb.Read, token, connection=qp)
    assert provider.expect("qp_after_error") == "disconnected"
    o.pair.await_disconnected(qp)


# ---- by a peer's message

def send_and_invalidate(o, token, qp=None, receive_on=None):
    """The peer's message; (the Send's reply, the Receive's)."""
    sink = o.normal()
    receive = o.session.start(pb.Receive(qp=ref(receive_on or o.qp), local_token=sink.local_token, local_addr=IOVA, length=PAGE))
    send = o.pair.send(length=10, invalidate=token, qp=qp)
    sent, = o.pair.user.session.wait([send])
    received, = o.session.wait([receive])
    return sent, received


@rule("send-invalidate.fast", "result.invalidated", "send-invalidate.later", "result.provider-error")
def test_remote_invalidate(o):
    # mutation: tell the receive before the state has changed; keep the state
    mr = o.fast()
    token = o.fast_register(mr).remote_token
    sent, received = send_and_invalidate(o, token)
    assert not sent.HasField("error") and not received.HasField("error")
    assert received.completion.invalidated and received.completion.invalidated_token == token
    assert state_of(o.session, mr) == "FREE"
    assert o.session.wait_event(pb.Event.REMOTE_INVALIDATED, mr.serial)
    o.refused(pb.Invalidate(object=ref(mr), qp=ref(o.qp)), "MR_STATE", pb.INVALID_DEVICE_STATE)
    o.peer_refused(pb.Read, token)
    o.can_read(o.fast_register(mr).remote_token)


@rule("send-invalidate.wrong", "send-invalidate.normal")
@pytest.mark.parametrize("which", ["nothing", "normal", "free", "local", "without rights"])
def test_remote_invalidate_of_what_is_not_to_be(o, which):
    # mutation: take any token that is known
    normal, fast = o.normal(REMOTE_READ | LOCAL_WRITE), o.fast()
    private = o.fast()
    token = {"nothing": lambda: 0x12345678, "normal": lambda: normal.remote_token, "free": lambda: fast.remote_token,
             "local": lambda: o.fast_register(fast).local_token,
             "without rights": lambda: o.fast_register(private, pb.OP_ALLOW_LOCAL_WRITE).local_token}[which]()
    qp, inbound = other_connection(o.pair)
    sent, received = send_and_invalidate(o, token, qp, inbound)
    check_refused(sent, ("REMOTE_INVALIDATE", *REMOTE_ERRORS))
    assert received.HasField("error")
    o.pair.await_disconnected(qp)
    assert state_of(o.session, normal) == "REGISTERED"
    if which == "local":
        assert state_of(o.session, fast) == "VALID"
