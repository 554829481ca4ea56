# SPDX-License-Identifier: MIT
"""Fast-register MRs, end to end: real nicd, real device, and a peer that reads and writes by the tokens. Every call in every state that a
client can see, what peers may invalidate, and sessions that die in the middle."""
import pytest

from nicdtest.daemon import wait_until
from nicdtest.memory import Buffer
from nicdtest.pair import OWNER_IOVA, Pair
from nicdtest.pb import LOCAL_READ, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_refused, expect_refused, ref, register_message

PAGE = 4096
IOVA = 0x5_0000_0000_0000
READ, LOCAL, WRITE, SINK = pb.OP_ALLOW_REMOTE_READ, pb.OP_ALLOW_LOCAL_WRITE, pb.OP_ALLOW_REMOTE_WRITE, pb.OP_RDMA_READ_SINK
FENCE = pb.OP_READ_FENCE


class Fast:
    """A fast-register MR of one side's, its memory, and that side's end of the connection."""

    def __init__(self, pair, remote=True, pages=16, side=None):
        side = side or pair.owner
        self.pair, self.session = pair, side.session
        self.buffer = Buffer(16 * PAGE, 7)
        self.memory = self.session.add_memory(self.buffer.fd)
        self.mr = self.session.call(pb.CreateMr(pd=ref(side.pd), fast_register=True)).object
        self.qp = pair.qp if side is pair.user else pair.inbound()
        if pages:
            self.initialize(pages, remote)

    def initialize(self, pages=16, remote=True):
        return self.session.call(pb.InitializeFastRegister(mr=ref(self.mr), adapter_page_count=pages, remote_access=remote)).mr

    def message(self, ranges=None, offset=0, length=None, iova=None, flags=READ | WRITE, qp=None, memory=None):
        ranges = [(0, 16 * PAGE)] if ranges is None else ranges
        total = sum(n for _, n in ranges)
        return pb.FastRegister(
            mr=ref(self.mr), qp=ref(qp or self.qp), first_byte_offset=offset, flags=flags, iova=IOVA + offset if iova is None else iova,
            length=total - offset if length is None else length,
            ranges=[pb.Range(memory=ref(memory or self.memory), offset=o, length=n) for o, n in ranges])

    def register(self, *args, **kw):
        return self.session.call(self.message(*args, **kw)).mr

    def invalidate_message(self, flags=0, qp=None):
        return pb.Invalidate(object=ref(self.mr), qp=ref(qp or self.qp), flags=flags)

    def invalidate(self, **kw):
        return self.session.call(self.invalidate_message(**kw)).receipt

    def local_token(self):
        return self.session.call(pb.GetLocalToken(mr=ref(self.mr))).token

    def remote_token(self):
        return self.session.call(pb.GetRemoteToken(mr=ref(self.mr))).token

    def item(self):
        item, = (i for i in self.session.list(pb.MR) if i.serial == self.mr.serial)
        return item


@pytest.fixture
def pair(nicd, peer_nicd):
    with Pair(nicd, peer_nicd) as pair:
        yield pair.by_ticket(uses=100, peers=100).await_inside()


@pytest.fixture
def admin(nicd):
    return nicd.admin()


@pytest.fixture
def fast(pair):
    return Fast(pair)


def await_cut(pair):
    pair.await_disconnected()


# ---- what it is for

def test_peer_reads_and_writes(pair, fast):
    # mutation: let the tag begin at the page, or leave out a range
    tokens = fast.register([(PAGE, PAGE), (8 * PAGE, 3 * PAGE)], offset=0x123, flags=READ | WRITE)
    assert tokens.iova == IOVA + 0x123 and tokens.length == 4 * PAGE - 0x123 and tokens.flags == REMOTE_READ | REMOTE_WRITE
    want = (fast.buffer[PAGE:2 * PAGE] + fast.buffer[8 * PAGE:11 * PAGE])[0x123:]
    assert pair.read(0, length=tokens.length, token=tokens.remote_token, address=tokens.iova).bytes == tokens.length
    assert pair.user.buffer[:tokens.length] == want
    assert pair.write(20000, length=6000, token=tokens.remote_token, address=tokens.iova + 2000).bytes == 6000
    there = fast.buffer[PAGE:2 * PAGE] + fast.buffer[8 * PAGE:11 * PAGE]
    assert there[0x123 + 2000:0x123 + 8000] == pair.user.buffer[20000:26000]
    receipt = fast.invalidate()
    assert receipt.serial == fast.mr.serial and receipt.at_ns > 0 and receipt.streams_cut == 0


def test_local_token(pair, fast):
    """The owner's own work requests use it, too: a message is received into it."""
    tokens = fast.register(flags=LOCAL)
    assert tokens.remote_token == 0
    receive = fast.session.start(pb.Receive(qp=ref(fast.qp), local_token=tokens.local_token, local_addr=IOVA + 100, length=1000))
    pair.user.session.wait([pair.send(0, 1000)])
    reply, = fast.session.wait([receive])
    assert reply.completion.bytes == 1000
    assert fast.buffer[100:1100] == pair.user.buffer[:1000]


@pytest.mark.parametrize("flags,read,write", [(READ, True, False), (WRITE, False, True), (LOCAL, False, False)])
def test_rights(pair, flags, read, write):
    # mutation: give a tag all rights, or those of the wrong enum
    fast = Fast(pair)
    tokens = fast.register(flags=flags)
    for kind, allowed in (("read", read), ("write", write)):
        qp = pair.connect(pair.door)
        message = pair.message(pb.Read if kind == "read" else pb.Write, 0, length=100, token=tokens.remote_token or 1, address=IOVA, qp=qp)
        reply, = pair.user.session.wait([pair.user.session.start(message)])
        if allowed:
            assert reply.completion.bytes == 100
        else:
            check_refused(reply, ("REMOTE_RIGHTS", "REMOTE_TOKEN"))


def test_stale_token(pair, fast):
    """After an invalidation, by a new token, and after a close: what was known opens nothing."""
    seen = set()
    for end in ("invalidate", "again", "close"):
        tokens = fast.register()
        assert tokens.remote_token not in seen and tokens.local_token not in seen
        seen |= {tokens.remote_token, tokens.local_token}
        if end == "close":
            fast.session.call(pb.Close(object=ref(fast.mr)))
        else:
            fast.invalidate()
        if end == "again":
            new = fast.register()
            assert new.remote_token != tokens.remote_token
        qp = pair.connect(pair.door)
        # mutation: keep the token in the device's index
        reply, = pair.user.session.wait([pair.user.session.start(
            pair.message(pb.Read, 0, length=1, token=tokens.remote_token, address=IOVA, qp=qp))])
        check_refused(reply, "REMOTE_TOKEN")
        if end == "again":
            fast.invalidate()


def test_reserved_tokens_grant_nothing(pair, fast):
    # mutation: index the reserved tokens with the others, or give them out again
    local, remote = fast.local_token(), fast.remote_token()
    assert local and remote and local != remote
    for token in (local, remote):
        for length in (0, 1):
            qp = pair.connect(pair.door)
            reply, = pair.user.session.wait([pair.user.session.start(pair.message(pb.Read, 0, length=length, token=token, address=0, qp=qp))])
            if length:
                check_refused(reply, "REMOTE_TOKEN")
    for length in (0, 1):
        reply, = fast.session.wait([fast.session.start(
            pb.Receive(qp=ref(fast.qp), local_token=local, local_addr=0, length=1))])
        check_refused(reply, "LOCAL_TOKEN")
    fast.register()
    assert fast.local_token() != local
    fast.invalidate()
    assert (fast.local_token(), fast.remote_token()) == (local, remote)


def test_rounds(pair, fast, admin):
    """More often than the tags of a hardware key have bits for: no token comes twice."""
    seen = set()
    for i in range(300):
        tokens = fast.register([(i % 16 * PAGE, PAGE)])
        assert tokens.generation == i + 1
        assert {tokens.local_token, tokens.remote_token}.isdisjoint(seen)
        seen |= {tokens.local_token, tokens.remote_token}
        if i % 50 == 0:
            assert pair.read(0, length=PAGE, token=tokens.remote_token, address=IOVA).bytes == PAGE
            assert pair.user.buffer[:PAGE] == fast.buffer[i % 16 * PAGE:i % 16 * PAGE + PAGE]
        fast.invalidate()
    assert len(seen) == 600


# ---- states

CALLS = {
    "GetLocalToken": lambda f: pb.GetLocalToken(mr=ref(f.mr)),
    "GetRemoteToken": lambda f: pb.GetRemoteToken(mr=ref(f.mr)),
    "InitializeFastRegister": lambda f: pb.InitializeFastRegister(mr=ref(f.mr), adapter_page_count=16, remote_access=True),
    "FastRegister": lambda f: f.message(),
    "Invalidate": lambda f: f.invalidate_message(),
    "RegisterMr": lambda f: register_message(f.mr, [(f.memory, 0, PAGE)]),
    "DeregisterMr": lambda f: pb.DeregisterMr(mr=ref(f.mr)),
    "CreateExport": lambda f: pb.CreateExport(mr=ref(f.mr), name="x", flags=REMOTE_READ, uses=1),
    "CreateTicket": lambda f: pb.CreateTicket(mr=ref(f.mr), uses=1),
}
KIND = {name: "MR_KIND" for name in ("RegisterMr", "DeregisterMr", "CreateExport", "CreateTicket")}
ALLOWED = {
    "CREATED": {"InitializeFastRegister"},
    "FREE": {"GetLocalToken", "GetRemoteToken", "InitializeFastRegister", "FastRegister"},
    "VALID": {"GetLocalToken", "GetRemoteToken", "Invalidate"},
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("call", CALLS)
def test_states(pair, state, call):
    # mutation: let a call pass in a state that does not have it
    fast = Fast(pair, pages=0 if state == "CREATED" else 16)
    if state == "VALID":
        fast.register()
    item = fast.item()
    assert item.state == state and item.fast_register
    reply, = fast.session.wait([fast.session.start(CALLS[call](fast))])
    if call in KIND:
        check_refused(reply, "MR_KIND")
    elif call in ALLOWED[state]:
        assert not reply.HasField("error"), reply
    else:
        check_refused(reply, "MR_STATE")
        assert fast.item().state == state


def test_tokens_only_after_the_reply(pair, fast):
    """In one frame: what comes behind a FastRegister finds it under way."""
    # mutation: show the new tokens, or take an Invalidate, before the device has answered
    batch = fast.session.batch()
    for message in (fast.message(), pb.GetRemoteToken(mr=ref(fast.mr)), fast.invalidate_message()):
        batch.add(message)
    replies = batch.run()
    assert replies[0].mr.remote_token
    check_refused(replies[1], "MR_STATE")
    check_refused(replies[2], "MR_STATE")


# ---- bad input, by a client

def test_bad_input(pair, fast):
    """Each check of the NIC layer's own test once more through the socket, and those that are the daemon's."""
    other = fast.session.create_pd()
    fast2 = Fast(pair, remote=False, pages=2)
    cases = [
        ("FLAGS", fast.message(flags=0x20)),
        ("OP_FLAGS", fast.message(flags=pb.OP_INLINE)),
        ("MAPPING_OR_RANGES", fast.message(ranges=[], length=1)),
        ("LENGTH_ZERO", fast.message(length=0)),
        ("LENGTH_BEYOND", fast.message(length=16 * PAGE + 1)),
        ("FIRST_BYTE", fast.message(offset=PAGE, length=1)),
        ("RANGE_NOT_JOINED", fast.message(ranges=[(1, PAGE)])),
        ("RANGE_BEYOND", fast.message(ranges=[(16 * PAGE, PAGE)])),
        ("IOVA_ZERO", fast.message(iova=0)),
        ("IOVA_MISFIT", fast.message(iova=IOVA + 1)),
        ("IOVA_OVERFLOW", fast.message(iova=2**64 - PAGE)),
        ("PAGES_BEYOND", fast2.message(ranges=[(0, 3 * PAGE)], flags=LOCAL)),
        ("NO_REMOTE_ACCESS", fast2.message(ranges=[(0, PAGE)], flags=READ)),
        ("HANDLE", fast.message(qp=pb.QpInfo(id=fast.qp.id + (1 << 32)))),
        ("HANDLE_TYPE", fast.message(qp=other)),
        ("HANDLE", pb.Invalidate(object=ref(fast.mr))),
        ("HANDLE_TYPE", pb.Invalidate(object=ref(other), qp=ref(fast.qp))),
        ("MR_KIND", pb.Invalidate(object=ref(pair.owner.mr), qp=ref(fast.qp))),
        ("PAGE_COUNT", pb.InitializeFastRegister(mr=ref(fast.mr), adapter_page_count=0)),
        ("PAGE_COUNT", pb.InitializeFastRegister(mr=ref(fast.mr), adapter_page_count=257)),
    ]
    for reason, message in cases:
        reply, = fast.session.wait([fast.session.start(message)])
        check_refused(reply, reason)
    # Somebody else's.
    with pair.owner.nicd.session(label="other") as stranger:
        with expect_refused("HANDLE"):
            stranger.call(fast.invalidate_message())
    assert fast.item().state == "FREE"


def test_other_pd(pair, fast):
    pd = fast.session.create_pd()
    mr = fast.session.call(pb.CreateMr(pd=ref(pd), fast_register=True)).object
    fast.session.call(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=1))
    fast.mr = mr
    with expect_refused("PD_MISMATCH"):
        fast.register([(0, PAGE)], flags=LOCAL)


# ---- peers that invalidate

def test_remote_invalidation(pair, fast):
    # mutation: leave the state as it is; tell no event; let a peer invalidate what has no remote rights
    tokens = fast.register()
    receive = pair.receive(0, 100)
    reply, = pair.user.session.wait([pair.send(0, 10, invalidate=tokens.remote_token)])
    assert not reply.HasField("error"), reply
    reply, = fast.session.wait([receive])
    assert reply.completion.invalidated and reply.completion.invalidated_token == tokens.remote_token
    event = fast.session.wait_event(pb.Event.REMOTE_INVALIDATED, fast.mr.serial)
    assert event.serial == fast.mr.serial
    assert fast.item().state == "FREE"
    with expect_refused("MR_STATE"):
        fast.invalidate()
    again = fast.register()
    assert again.remote_token != tokens.remote_token
    assert pair.read(0, length=100, token=again.remote_token, address=IOVA).bytes == 100


@pytest.mark.parametrize("what", ["normal", "free", "local"])
def test_not_to_be_invalidated(pair, fast, what):
    """A normal MR, reserved tokens, or one without remote rights: the peer is cut off instead."""
    if what == "normal":
        token = pair.owner.mr.remote_token
    elif what == "free":
        token = fast.remote_token()
    else:
        token = fast.register(flags=LOCAL).local_token
    pair.receive(0, 100)
    reply, = pair.user.session.wait([pair.send(0, 10, invalidate=token)])
    check_refused(reply, "REMOTE_INVALIDATE")
    await_cut(pair)


# ---- mappings

def test_mapping(pair, fast):
    """Pages of a Mapping in place of ranges: what is before its first byte is not its own, and it cannot go while it is in use."""
    # mutation: forget to use the mapping; let the first byte be before its own; take both, or neither
    build = pb.BuildMapping(ranges=[pb.Range(memory=ref(fast.memory), offset=PAGE + 0x100, length=2 * PAGE)])
    mapping = fast.session.call(build).mapping
    assert mapping.first_byte_offset == 0x100

    def message(**kw):
        whole = dict(mr=ref(fast.mr), qp=ref(fast.qp), mapping=ref(mapping), first_byte_offset=0x100, length=2 * PAGE, iova=IOVA + 0x100,
                     flags=READ)
        return pb.FastRegister(**(whole | kw))

    for reason, bad in (("RANGE_BEYOND", message(first_byte_offset=0xff, iova=IOVA + 0xff)), ("LENGTH_BEYOND", message(length=2 * PAGE + 1)),
                        ("MAPPING_OR_RANGES", message(ranges=[pb.Range(memory=ref(fast.memory), length=PAGE)]))):
        reply, = fast.session.wait([fast.session.start(bad)])
        check_refused(reply, reason)
    tokens = fast.session.call(message(first_byte_offset=0x200, iova=IOVA + 0x200, length=PAGE)).mr
    assert pair.read(0, length=PAGE, token=tokens.remote_token, address=IOVA + 0x200).bytes == PAGE
    assert pair.user.buffer[:PAGE] == fast.buffer[PAGE + 0x200:2 * PAGE + 0x200]
    close = fast.session.start(pb.Close(object=ref(mapping)))
    fast.session.quiet(0.1)
    assert close in fast.session.in_flight
    fast.invalidate()
    reply, = fast.session.wait([close])
    assert not reply.HasField("error"), reply


# ---- the end

def test_close_in_each_state(pair, admin):
    for state in ("CREATED", "FREE", "VALID", "INITIALIZING", "VALID_PENDING", "INVALIDATING"):
        fast = Fast(pair, pages=0 if state in ("CREATED", "INITIALIZING") else 16)
        close = pb.Close(object=ref(fast.mr))
        if state in ("VALID", "INVALIDATING"):
            fast.register()
        before = {"INITIALIZING": CALLS["InitializeFastRegister"], "VALID_PENDING": CALLS["FastRegister"],
                  "INVALIDATING": CALLS["Invalidate"]}.get(state)
        ids = [fast.session.start(m) for m in ([before(fast)] if before else []) + [close]]
        replies = fast.session.wait(ids)
        assert not replies[-1].HasField("error"), (state, replies)
        assert fast.mr.serial not in [i.serial for i in fast.session.list(pb.MR)]


@pytest.mark.parametrize("state", ["CREATED", "FREE", "VALID", "VALID_PENDING", "INVALIDATING"])
def test_session_dies(pair, admin, state):
    # mutation: forget tag or reservation of a session that goes
    with Pair(pair.owner.nicd, pair.user.nicd) as other:
        other.by_ticket(uses=2).await_inside()
        many = [Fast(other, pages=0 if state == "CREATED" else 16) for _ in range(10)]
        for fast in many:
            if state in ("VALID", "INVALIDATING"):
                fast.register()
        for fast in many:
            if state == "VALID_PENDING":
                fast.session.start(fast.message())
            elif state == "INVALIDATING":
                fast.session.start(fast.invalidate_message())
        serials = {f.mr.serial for f in many}
    wait_until(lambda: serials.isdisjoint(i.serial for i in admin.list(pb.MR)))


def test_revoke(pair, fast, admin):
    """The admin's Revoke is an Invalidate that needs no Qp."""
    tokens = fast.register()
    receipt = admin.call(pb.Revoke(serial=fast.mr.serial)).receipt
    assert receipt.serial == fast.mr.serial
    event = fast.session.wait_event(pb.Event.REVOKED, fast.mr.serial)
    assert event.serial == fast.mr.serial
    assert fast.item().state == "FREE"
    reply, = pair.user.session.wait([pair.user.session.start(
        pair.message(pb.Read, 0, length=1, token=tokens.remote_token, address=IOVA))])
    check_refused(reply, "REMOTE_TOKEN")


def test_after_disconnect(pair, fast):
    fast.register()
    fast.session.call(pb.Disconnect(qp=ref(fast.qp)))
    with expect_refused(("QP_STATE", "HANDLE")):
        fast.invalidate()
    fast.session.call(pb.Close(object=ref(fast.mr)))


# ---- order

def test_fence_and_order(pair):
    """Work of the same Qp: writes that were posted before an Invalidate read their memory first, reads with a fence end first."""
    # mutation: drop the tag at once (the writes and reads of what it was fail, and the Qp with them)
    fast = Fast(pair, side=pair.user)
    for round_ in range(20):
        tokens = fast.register(flags=LOCAL)
        kind = pb.Read if round_ % 2 else pb.Write
        work = [pair.message(kind, remote=i * 100, length=60000, local_token=tokens.local_token, local_address=IOVA + i) for i in range(4)]
        batch = fast.session.batch()
        for message in work + [fast.invalidate_message(flags=FENCE if kind is pb.Read else 0)]:
            batch.add(message)
        replies = batch.run()
        assert not any(r.HasField("error") for r in replies), replies
        if kind is pb.Write:
            assert pair.owner.buffer[300:60300] == fast.buffer[3:60003]
        else:
            assert fast.buffer[3:60003] == pair.owner.buffer[300:60300]


def test_silent_success(pair, fast):
    """The reply waits for the session's next frame, whichever that is once the device has answered."""
    first = fast.session.start(fast.message(flags=READ | pb.OP_SILENT_SUCCESS))
    wait_until(lambda: fast.item().state == "VALID")
    reply, = fast.session.wait([first])
    assert reply.mr.remote_token


# ---- ledger

def test_ledger(pair, admin):
    before = admin.call(pb.Ledger()).ledger
    many = [Fast(pair) for _ in range(20)]
    for fast in many[:10]:
        fast.register()
    during = admin.call(pb.Ledger()).ledger
    # Each has a reservation, and each of the first ten a tag.
    assert during.provider_tags - before.provider_tags == 30
    for fast in many:
        fast.session.call(pb.Close(object=ref(fast.mr)))
    after = admin.call(pb.Ledger()).ledger
    assert after.provider_tags == before.provider_tags and after.quarantined == 0
