# SPDX-License-Identifier: MIT
"""NDK's flags of work requests, between two nicds: silent successes, the read fence, inline data, hints; and what Flush leaves."""
import pytest

from nicdtest.pair import Pair
from nicdtest.pb import pb
from nicdtest.wire import check_refused, expect_refused, ref

SILENT, FENCE, SOLICIT, INLINE, DEFER = pb.OP_SILENT_SUCCESS, pb.OP_READ_FENCE, pb.OP_SEND_AND_SOLICIT_EVENT, pb.OP_INLINE, pb.OP_DEFER
READ, WRITE = pb.TransferList.READ, pb.TransferList.WRITE
HELD = 64


@pytest.fixture
def p(nicd, peer_nicd):
    with Pair(nicd, peer_nicd) as pair:
        yield pair.by_export(uses=4, peers=4).await_inside()


def message(p, kind, *args, flags=0, data=None, **kw):
    it = p.message(kind, *args, **kw)
    it.flags = flags
    if data is not None:
        it.inline_data = data
    return it


def done(side, *ids):
    replies = side.session.wait(ids)
    assert not any(r.HasField("error") for r in replies), replies
    return [r.completion for r in replies]


# ---- silent success

def test_silent_success(p):
    """Each has its one reply, which comes with something else and in its place."""
    id_ = p.user.session.start(message(p, pb.Write, 0, 0, 50, flags=SILENT))
    p.user.session.quiet(0.3)
    # mutation: wake for silent successes
    assert id_ in p.user.session.in_flight
    assert p.owner.buffer[0:50] == p.user.buffer[0:50]
    p.user.session.query_qp(p.qp)
    assert done(p.user, id_)[0].bytes == 50
    assert p.user.session.order.index(id_) < len(p.user.session.order) - 1


def test_silent_and_loud_in_order(p):
    kinds = [SILENT, SILENT | DEFER, SILENT, 0]
    ids = [p.user.session.start(message(p, pb.Write, 0, 0, 10 + i, flags=f)) for i, f in enumerate(kinds)]
    assert [c.bytes for c in done(p.user, *ids)] == [10, 11, 12, 13]
    # mutation: put what was held at the end
    assert p.user.session.order[-4:] == ids


def test_sixty_four_silent(p):
    """In one frame, so that no later one brings them out."""
    batch = p.user.session.batch()
    for _ in range(HELD):
        batch.add(message(p, pb.Write, 0, 0, 4, flags=SILENT))
    # mutation: hold any number
    assert not any(r.HasField("error") for r in batch.run())


def test_failures_are_told(p):
    id_ = p.user.session.start(message(p, pb.Read, 0, 0, 64, flags=SILENT, token=0x12345678))
    # mutation: hold failures too
    check_refused(p.user.session.wait([id_])[0], "REMOTE_TOKEN")


def test_silent_list_and_messages(p):
    receives = [p.receive(1000 * i, 1000) for i in range(2)]
    silent = p.list_message(WRITE, [(i, 20000 + i, 1) for i in range(100)])
    silent.flags = SILENT
    ids = [p.user.session.start(silent), p.send(0, 900, flags=SILENT), p.send(0, 800, flags=SOLICIT)]
    assert [c.bytes for c in done(p.user, *ids)] == [100, 900, 800]
    assert [(c.bytes, c.solicited) for c in done(p.owner, *receives)] == [(900, False), (800, True)]
    assert p.owner.buffer[20000:20100] == p.user.buffer[0:100]


# ---- inline

@pytest.mark.parametrize("length", [0, 1, 77, 1400, 4096])
def test_inline(p, length):
    data = bytes((i * 7 + length) % 251 for i in range(length))
    # No token, no address: mutation: look at them
    sent = p.user.session.call(message(p, pb.Write, 0, 5, length, local_token=0, local_address=0, flags=INLINE, data=data)).completion
    assert (sent.entries, sent.bytes) == (1, length)
    assert p.owner.buffer[5:5 + length] == data
    receive = p.receive(30000, 5000)
    it = pb.Send(qp=ref(p.qp), length=length, flags=INLINE, inline_data=data)
    assert p.user.session.call(it).completion.bytes == length
    assert done(p.owner, receive)[0].bytes == length
    assert p.owner.buffer[30000:30000 + length] == data


def test_inline_misfits(p):
    for flags, length, data in ((INLINE, 5, b"four"), (INLINE, 5, b"sixsix"), (INLINE, 5, None), (INLINE, 4097, bytes(4097)), (0, 4, b"four")):
        with expect_refused("INLINE_LENGTH", limit=4096 if flags else 0):
            p.user.session.call(message(p, pb.Write, 0, 0, length, flags=flags, data=data))
    with expect_refused("OP_FLAGS"):
        p.user.session.call(message(p, pb.Read, 0, 0, 4, flags=INLINE))
    assert p.read(0, 0, 100).bytes == 100


# ---- the fence, and hints

def test_fence(p):
    """What is written behind a fence comes from what was read before it: from there to here, and from here back elsewhere."""
    for i in range(20):
        p.owner.buffer[0:20000] = bytes([i + 1]) * 20000
        read = p.user.session.start(message(p, pb.Read, 0, 0, 20000))
        write = p.user.session.start(message(p, pb.Write, 0, 40000, 20000, flags=FENCE))
        done(p.user, read, write)
        # mutation: let the write start before the read has ended (between two machines in one, it is likely to)
        assert p.owner.buffer[40000:60000] == bytes([i + 1]) * 20000


def test_fence_on_all(p):
    receive = p.receive(0, 100)
    fenced = p.list_message(READ, [(i, i, 1) for i in range(100)])
    fenced.flags = FENCE | DEFER | SILENT
    ids = [p.user.session.start(message(p, pb.Read, 0, 0, 60000)), p.user.session.start(fenced), p.send(0, 5, flags=FENCE | DEFER)]
    assert [c.bytes for c in done(p.user, *ids)] == [60000, 100, 5]
    done(p.owner, receive)


def test_read_local_invalidate_is_ignored(p):
    """As NDK says of adapters that do not have it."""
    p.user.session.call(message(p, pb.Read, 0, 0, 100, flags=pb.OP_RDMA_READ_LOCAL_INVALIDATE))
    # mutation: invalidate the token
    assert p.read(0, 0, 100).bytes == 100


# ---- Flush

def test_flush_cancels_in_order_and_keeps_mrs(p):
    receives = [p.receive(100 * i, 100) for i in range(5)]
    inbound = p.inbound()
    p.owner.session.call(pb.Flush(qp=ref(inbound)))
    for reply in p.owner.session.wait(receives):
        check_refused(reply, "FLUSHED")
        assert reply.error.status == pb.CANCELLED
    # mutation: the newest first
    assert [i for i in p.owner.session.order if i in receives] == receives
    # mutation: let Flush deregister
    assert p.owner.session.local_token(p.owner.mr) == p.owner.mr.local_token
    assert p.read(0, 0, 100).bytes == 100
    p.user.session.call(pb.Disconnect(qp=ref(p.qp)))
    assert p.user.session.local_token(p.user.mr) == p.user.mr.local_token
