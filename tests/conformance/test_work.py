# SPDX-License-Identifier: MIT
"""Work requests on a Qp: reads, writes, messages, flags, flushing, disconnecting, completions."""
import pytest

from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_refused, ref

from parts import IOVA, PAGE, SIZE, Owned, other_connection
from rules import rule


@pytest.fixture
def o(pair):
    with Owned(pair) as owned:
        yield owned


@pytest.fixture
def tokens(o):
    return o.normal(REMOTE_READ | REMOTE_WRITE)


def remote(tokens, at=0, **kw):
    return {"token": tokens.remote_token, "address": IOVA + at, **kw}


# ---- reads and writes

@rule("read.bytes", "write.bytes", "result.provider-error")
@pytest.mark.parametrize("length", [0, 1, PAGE + 1, SIZE])
def test_bytes(o, tokens, length):
    # mutation: one byte more, or less
    user = o.pair.user
    before = user.buffer.bytes()
    completion = o.pair.read(**remote(tokens, SIZE - length, length=length))
    assert (completion.bytes, completion.entries) == (length, 1)
    assert user.buffer.bytes() == o.buffer[SIZE - length:] + before[length:]
    user.buffer[:] = b"\xa5" * SIZE
    before = o.buffer.bytes()
    assert o.pair.write(**remote(tokens, length=length)).bytes == length
    assert o.buffer.bytes() == b"\xa5" * length + before[length:]


@rule("read.remote-size")
def test_past_the_end(o, tokens, provider):
    # mutation: carry what there is
    for at, length in ((SIZE, 1), (SIZE - 1, 2), (SIZE - PAGE, PAGE + 1)):
        reply = o.peer_refused(pb.Read, tokens.remote_token, at, length, why=provider.expect("remote_errors")["range"])
        assert reply.error.status == pb.REMOTE_RESOURCES


@rule("read.local-invalidate")
def test_local_invalidate(o, tokens, provider):
    # mutation: refuse the flag
    if provider.expect("read_local_invalidate"):
        pytest.fail("a provider that carries it out needs a case for that")
    message = o.pair.message(pb.Read, length=PAGE, token=tokens.remote_token, address=IOVA)
    message.flags = pb.OP_RDMA_READ_LOCAL_INVALIDATE
    for _ in range(2):   # the sink's token lives
        o.pair.user.session.call(message)


# ---- messages

def receive(o, length=PAGE, at=0, qp=None):
    """The owner's, into its second half."""
    return o.pair.receive(at=at, length=length, qp=qp or o.qp)


def outcome(session, id_):
    reply, = session.wait([id_])
    return reply


@rule("send.fills", "completion.one")
def test_receives_in_order(o):
    # mutation: fill the newest receive; complete one of them twice
    user, owner = o.pair.user.session, o.session
    receives = [receive(o, at=i * PAGE) for i in range(4)]
    sent = [o.pair.send(i * 100, 10 * i) for i in range(4)]
    user.wait(sent)
    replies = owner.wait(receives)
    assert [r.completion.bytes for r in replies] == [0, 10, 20, 30]
    for i in range(4):
        assert o.pair.owner.buffer[i * PAGE:i * PAGE + 10 * i] == o.pair.user.buffer[i * 100:i * 100 + 10 * i]
    assert [i for i in owner.order if i in receives] == receives and [i for i in user.order if i in sent] == sent
    owner.quiet(0.1)
    assert not owner.replies


@rule("send.too-long")
def test_too_long(o, provider):
    # mutation: place what fits
    want = provider.expect("message_too_long")
    qp, inbound = other_connection(o.pair)
    before = o.pair.owner.buffer.bytes()
    waiting = receive(o, length=100, qp=inbound)
    sent = outcome(o.pair.user.session, o.pair.send(0, 101, qp=qp))
    received = outcome(o.session, waiting)
    check_refused(sent, want["sender"])
    check_refused(received, want["receiver"])
    assert received.error.status == pb.BUFFER_TOO_SMALL
    assert o.pair.owner.buffer.bytes() == before


@rule("send.solicited")
def test_solicited(o):
    # mutation: lose the flag, or keep it
    for flags in (0, pb.OP_SEND_AND_SOLICIT_EVENT, 0):
        waiting = receive(o)
        o.pair.user.session.wait([o.pair.send(0, 10, flags=flags)])
        assert outcome(o.session, waiting).completion.solicited == bool(flags)


# ---- ends

@rule("flush.cancelled")
def test_flush(o):
    # mutation: answer Flush first; end the connection
    waiting = [receive(o) for _ in range(5)]
    flush = o.session.start(pb.Flush(qp=ref(o.qp)))
    for reply in o.session.wait(waiting):
        assert check_refused(reply, "FLUSHED").status == pb.CANCELLED
    o.session.wait([flush])
    assert o.session.order[-1] == flush
    waiting = receive(o)
    o.pair.user.session.wait([o.pair.send(0, 3)])
    assert outcome(o.session, waiting).completion.bytes == 3


@rule("disconnect.flushes")
def test_disconnect(o, tokens):
    # mutation: leave posted work waiting
    waiting = [receive(o) for _ in range(3)]
    bye = o.session.start(pb.Disconnect(qp=ref(o.qp)))
    replies = o.session.wait([*waiting, bye])
    assert all(check_refused(r, "FLUSHED").status == pb.CANCELLED for r in replies[:-1]) and not replies[-1].HasField("error")
    assert o.session.order[-1] == bye
    o.pair.await_disconnected()
    reply = outcome(o.pair.user.session, o.pair.start(pb.Read, **remote(tokens, length=1)))
    assert check_refused(reply, "QP_STATE").status == pb.CONNECTION_INVALID


@rule("life.in-flight")
def test_close_with_work_in_flight(o, tokens):
    # mutation: answer Close before the work; free what the device still reads
    user, ids = o.pair.user.session, []
    qp, _ = other_connection(o.pair)
    for i in range(32):
        ids.append(o.pair.start(pb.Read, qp=qp, **remote(tokens, length=SIZE)))
        ids.append(user.start(pb.Receive(qp=ref(qp), local_token=o.pair.user.mr.local_token, local_addr=o.pair.user.iova, length=PAGE)))
    close = user.start(pb.Close(object=ref(qp)))
    replies = user.wait([*ids, close])
    assert user.order[-1] == close and not replies[-1].HasField("error")
    for reply in replies[:-1]:
        assert not reply.HasField("error") or reply.error.status == pb.CANCELLED, reply


# ---- completions

@rule("completion.in-order")
def test_in_order(o, tokens):
    # mutation: tell of a read when its first bytes are there
    user, batch = o.pair.user.session, o.pair.user.session.batch()
    for length in (SIZE, 1, 0, SIZE, 100):
        batch.add(o.pair.message(pb.Read, length=length, **remote(tokens)))
        batch.add(o.pair.message(pb.Write, length=length, **remote(tokens)))
    ids = batch.send()
    assert not any(r.HasField("error") for r in user.wait(ids))
    assert [i for i in user.order if i in ids] == ids


@rule("completion.refused")
def test_refused_has_no_completion(o, tokens):
    # mutation: a completion behind the refusal
    user = o.pair.user.session
    message = o.pair.message(pb.Read, length=1, **remote(tokens))
    message.flags = 1 << 31
    id_ = user.start(message)
    reply = outcome(user, id_)
    check_refused(reply, "FLAGS")
    assert reply.completion.entries == reply.completion.bytes == 0
    user.quiet(0.1)
    assert not user.replies
    o.pair.read(**remote(tokens, length=1))


# ---- flags

@rule("flags.undefined")
def test_undefined_flags(o, tokens):
    # mutation: mask them away
    for kind in (pb.Read, pb.Write):
        for flag in (0x400, 0x800, 1 << 30):
            message = o.pair.message(kind, length=1, **remote(tokens))
            message.flags = flag
            check_refused(outcome(o.pair.user.session, o.pair.user.session.start(message)), "FLAGS")
    o.refused(o.fast_message(o.fast(), 0x400), "FLAGS")
    o.refused(o.bind_message(o.window(), tokens, 0x408), "FLAGS")
    mr = o.fast()
    o.fast_register(mr)
    o.refused(pb.Invalidate(object=ref(mr), qp=ref(o.qp), flags=0x400), "FLAGS")


@rule("flags.silent-success")
def test_silent_success(o, tokens):
    # mutation: keep a failure back, too; lose the success
    user = o.pair.user.session
    silent = o.pair.message(pb.Write, length=10, **remote(tokens))
    silent.flags = pb.OP_SILENT_SUCCESS
    good = user.start(silent)
    o.pair.read(**remote(tokens, length=1))
    assert not outcome(user, good).HasField("error")
    qp, _ = other_connection(o.pair)
    bad = o.pair.message(pb.Write, length=10, qp=qp, token=0x77, address=IOVA)
    bad.flags = pb.OP_SILENT_SUCCESS
    assert outcome(user, user.start(bad)).HasField("error")


@rule("flags.read-fence")
def test_read_fence(o, tokens):
    # mutation: send before the bytes that were read are there
    for round_ in range(5):
        o.buffer[:] = bytes([round_ + 1]) * SIZE
        waiting = receive(o)
        batch = o.pair.user.session.batch()
        batch.add(o.pair.message(pb.Read, length=SIZE, **remote(tokens)))
        batch.add(pb.Send(qp=ref(o.pair.qp), local_token=o.pair.user.mr.local_token, local_addr=o.pair.user.iova + SIZE - PAGE,
                          length=PAGE, flags=pb.OP_READ_FENCE))
        assert not any(r.HasField("error") for r in batch.run())
        outcome(o.session, waiting)
        assert o.pair.owner.buffer[:PAGE] == bytes([round_ + 1]) * PAGE


@rule("flags.inline", "sge.inline")
def test_inline(o, tokens):
    # mutation: look the token up; take more than there may be
    user = o.pair.user.session
    most = user.hello.adapters[0].max_inline
    for length in (0, 1, most):
        data = bytes(i % 251 for i in range(length))
        message = pb.Write(qp=ref(o.pair.qp), local_token=0xdead, local_addr=1, remote_token=tokens.remote_token, remote_addr=IOVA,
                           length=length, flags=pb.OP_INLINE, inline_data=data)
        user.call(message)
        assert o.buffer[:length] == data
        waiting = receive(o)
        user.call(pb.Send(qp=ref(o.pair.qp), local_token=0xdead, length=length, flags=pb.OP_INLINE, inline_data=data))
        assert outcome(o.session, waiting).completion.bytes == length and o.pair.owner.buffer[:length] == data
    for length, data in ((most + 1, bytes(most + 1)), (5, b"four"), (0, b"x")):
        check_refused(outcome(user, user.start(pb.Send(qp=ref(o.pair.qp), length=length, flags=pb.OP_INLINE, inline_data=data))),
                      "INLINE_LENGTH")


@rule("flags.defer")
def test_defer(o, tokens):
    # mutation: wait for a request that never comes
    user, ids = o.pair.user.session, []
    for flags in (pb.OP_DEFER, pb.OP_DEFER, 0, pb.OP_DEFER):
        message = o.pair.message(pb.Write, length=100, **remote(tokens))
        message.flags = flags
        ids.append(user.start(message))
    assert not any(r.HasField("error") for r in user.wait(ids))
    mr = o.fast()
    o.session.call(o.fast_message(mr, pb.OP_ALLOW_LOCAL_WRITE | pb.OP_DEFER))
    o.session.call(pb.Invalidate(object=ref(mr), qp=ref(o.qp), flags=pb.OP_DEFER))


@rule("sge.address")
def test_addresses_of_an_mr(o):
    # mutation: count from the MR's start; check one end
    tokens = o.normal(LOCAL_WRITE)
    for address, length in ((0, 1), (IOVA - 1, 1), (IOVA - 1, 2), (IOVA + SIZE, 1), (IOVA + SIZE - 1, 2), (2 ** 64 - 1, 2)):
        message = pb.Receive(qp=ref(o.qp), local_token=tokens.local_token, local_addr=address, length=length)
        assert o.refused(message, "LOCAL_RANGE").error.status == pb.ACCESS_VIOLATION
