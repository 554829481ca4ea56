# SPDX-License-Identifier: MIT
"""Bytes on the Unix socket. Every bad frame has its fate: a violation (one Fatal with the right reason, then the end; nothing of
the frame took effect), or a refusal (the session lives). Another session is never disturbed, and no descriptor is lost: the
fixture `nicd` counts them after every test."""
import os
import random
import select
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicdtest import limits
from nicdtest.locator import build
from nicdtest.memory import BAD_FDS, Buffer, memfd
from nicdtest.pair import silent_listener
from nicdtest.pb import REMOTE_READ, pb
from nicdtest.wire import check_error, check_refused, ref, request, send_packet


@pytest.fixture
def victim(nicd):
    """A session that must not notice anything, with a registered MR."""
    with nicd.session(label="victim") as s, Buffer(4096) as buffer:
        mr = s.region(s.create_pd(), buffer.fd, 4096, REMOTE_READ)
        yield s, mr
        assert s.remote_token(mr) == mr.remote_token
        s.create_pd()
        assert not s.events


@pytest.fixture
def attacker(nicd, victim):
    with nicd.session(label="attacker") as s:
        yield s


def violation(attacker, data, reason, limit=None, observed=None, fds=()):
    """Sends the packet; the session must end with this Fatal and nothing else."""
    before = len(attacker.order)
    attacker.send_raw(data, fds)
    fatal = attacker.wait_end()
    assert fatal is not None, "the session ended without Fatal"
    check_error(fatal, reason, limit, observed)
    assert len(attacker.order) == before, "a request of a frame that is a violation was answered"
    assert not attacker.events


def frame(*requests):
    return pb.Frame(requests=requests).SerializeToString()


def varint(n):
    out = b""
    while True:
        out += bytes([n & 0x7f | (0x80 if n > 0x7f else 0)])
        n >>= 7
        if not n:
            return out


def field(number, wire_type, payload):
    head = varint(number << 3 | wire_type)
    return head + (varint(len(payload)) + payload if wire_type == 2 else payload)


def good(id_=1):
    return request(id_, pb.CreatePd())


# ---- what is no frame

def test_empty_packet(attacker):
    # mutation: treat an empty packet as "nothing there" and spin
    attacker.send_raw(b"")
    fatal = attacker.wait_end()
    if fatal is not None:   # to a reader an empty packet is the end of the socket
        check_error(fatal, "FRAME_EMPTY")


@pytest.mark.parametrize("data", [field(99, 2, b"unknown"), field(15, 0, b"\1"), field(77, 2, b"")])
def test_frame_of_nothing(attacker, data):
    # mutation: accept a frame without requests
    violation(attacker, data, "FRAME_EMPTY")


def padded(size):
    """A good frame of exactly this size, filled with an unknown field."""
    data = frame(good(attacker_id))
    for length in range(size - len(data) - 8, size):
        filler = field(1000, 2, b"x" * length) if length > 0 else b""
        if len(data) + len(filler) == size:
            return data + filler
    raise AssertionError(size)


attacker_id = 500


def test_largest_frame(attacker):
    # mutation: a buffer of one byte less
    attacker.in_flight.add(attacker_id)
    attacker.send_raw(padded(limits.FRAME_MAX))
    reply, = attacker.wait([attacker_id])
    assert reply.object.id


@pytest.mark.parametrize("size", [limits.FRAME_MAX + 1, limits.FRAME_MAX + 2, 100000, 200000])
def test_oversize(attacker, size):
    # mutation: cut the packet at the buffer's end and decode what is left
    violation(attacker, padded(size), "FRAME_TOO_BIG", limit=limits.FRAME_MAX)


def test_oversize_with_descriptors(attacker):
    # mutation: close descriptors only of packets that fit
    fds = [memfd(4096) for _ in range(10)]
    violation(attacker, padded(limits.FRAME_MAX + 1), "FRAME_TOO_BIG", fds=fds)
    for fd in fds:
        os.close(fd)


SAMPLE = frame(request(5, pb.CreatePd()), request(6, pb.RegisterMr(mr=pb.Ref(id=1 << 60), iova=4096, flags=2, ranges=[
    pb.Range(memory=pb.Ref(result_of=5), offset=77, length=4096)])), request(7, pb.Hello(major=1, client="x" * 20)))


@pytest.mark.parametrize("cut", range(1, len(SAMPLE)))
def test_truncated(nicd, victim, cut):
    # mutation: take what could be decoded
    with nicd.session() as attacker:
        data = SAMPLE[:cut]
        try:
            pb.Frame.FromString(data)
        except Exception:
            violation(attacker, data, "FRAME_UNDECODABLE")


@pytest.mark.parametrize("data", [
    b"\0", b"\xff", b"\xff" * 100, b"\0" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x0a\x05\x08",
    field(1, 2, b"\x80" * 20),                              # a varint without an end
    field(1, 2, b"\x08" + b"\xff" * 10 + b"\1"),            # a varint of eleven bytes
    b"\x0a" + varint(2 ** 31) + b"x",                       # a length beyond the packet
    b"\x0a" + varint(2 ** 32 - 1) + b"x",
    b"\x0a" + varint(2 ** 63) + b"x",
    b"\x0a" + varint(2 ** 64 - 1) + b"x",
    field(1, 2, field(25, 2, b"\x0a\xff\xff\xff\xff\x0f")),  # the same, deeper
    field(1, 3, b""), field(1, 4, b""), field(1, 6, b""), field(1, 7, b""),   # groups, and wire types that there are not
    b"\x02\x00",                                            # field number 0
])
def test_garbage(attacker, data):
    # mutation: trust a length; skip groups
    violation(attacker, data, ("FRAME_UNDECODABLE", "FRAME_EMPTY", "REQUEST_ID", "REQUEST_EMPTY"))


def test_deep_nesting(attacker):
    # mutation: a message type that contains itself
    data = b""
    for _ in range(3000):
        data = field(1, 2, data)
    violation(attacker, data, ("FRAME_UNDECODABLE", "REQUEST_ID", "REQUEST_EMPTY", "FRAME_BUDGET"))


# ---- unknown fields, as proto3 says

@pytest.mark.parametrize("where", ["frame", "request", "call", "inner"])
def test_unknown_fields_are_skipped(attacker, where):
    # mutation: refuse fields of a newer minor version
    more = field(900, 0, varint(5)) + field(901, 1, b"8 bytes.") + field(902, 2, b"text") + field(903, 5, b"four")
    adapter = attacker.hello.adapters[0].id
    inner = field(1, 1, struct.pack("<Q", adapter)) + (more if where == "inner" else b"")
    call = field(1, 2, inner) + (more if where == "call" else b"")
    body = field(1, 0, varint(77)) + field(25, 2, call) + (more if where == "request" else b"")
    attacker.in_flight.add(77)
    attacker.send_raw(field(1, 2, body) + (more if where == "frame" else b""))
    reply, = attacker.wait([77])
    assert reply.object.id


def test_call_of_a_newer_version(attacker):
    # mutation: answer a request without a call
    violation(attacker, frame(pb.Request(id=3)), "REQUEST_EMPTY")


def test_unknown_call(attacker):
    # mutation: start the requests before all have been looked at
    violation(attacker, frame(good(2)) + field(1, 2, field(1, 0, varint(3)) + field(99, 2, b"")), "REQUEST_EMPTY")


def test_two_calls_in_one_request(attacker):
    # mutation: run both
    body = field(1, 0, varint(9)) + field(25, 2, b"") + field(30, 2, b"")
    attacker.in_flight.add(9)
    attacker.send_raw(field(1, 2, body))
    reply, = attacker.wait([9])
    check_refused(reply, "HANDLE")   # the last one counts: CreateMr without a PD


def test_merged_messages(attacker):
    # mutation: let a second part of a message replace its checks
    inner = field(25, 2, field(1, 2, field(1, 1, struct.pack("<Q", 1234567)))) + field(25, 2, b"")
    attacker.in_flight.add(9)
    attacker.send_raw(field(1, 2, field(1, 0, varint(9)) + inner))
    attacker.wait([9])
    attacker.create_pd()


# ---- amplification

@pytest.mark.parametrize("name, data", {
    "requests": field(1, 2, b"") * 32000,
    "ranges": field(1, 2, field(1, 0, b"\1") + field(31, 2, field(2, 2, b"") * 30000)),
    "ranges of requests": (field(1, 2, field(1, 0, b"\1") + field(31, 2, field(2, 2, field(1, 2, b"")) * 70))) * 220,
    "replies": field(2, 2, b"") * 32000,
    "events": field(3, 2, b"") * 32000,
}.items())
def test_a_great_many_messages(attacker, name, data):
    # mutation: give protobuf-c malloc
    assert len(data) <= limits.FRAME_MAX
    violation(attacker, data, ("FRAME_BUDGET", "FRAME_REQUESTS", "FRAME_DIRECTION"))


def test_the_budget_is_no_trap(attacker):
    # mutation: a budget below what honest frames need
    batch = attacker.batch()
    for _ in range(limits.FRAME_REQUESTS):
        batch.add(pb.RegisterMr(mr=pb.Ref(id=5), iova=4096, ranges=[pb.Range(memory=pb.Ref(id=6), offset=1 << 20, length=4096)] * 3))
    assert len(batch.frame.SerializeToString()) < limits.FRAME_MAX
    for reply in batch.run():
        check_refused(reply, "HANDLE")


# ---- batches

def test_most_requests(attacker):
    # mutation: one less
    batch = attacker.batch()
    for _ in range(limits.FRAME_REQUESTS):
        batch.add(pb.CreatePd())
    assert all(r.object.id for r in batch.run())


@pytest.mark.parametrize("n", [limits.FRAME_REQUESTS + 1, 1000])
def test_too_many_requests(attacker, n):
    # mutation: run the first 256
    violation(attacker, frame(*[good(i + 1) for i in range(n)]), "FRAME_REQUESTS", limit=limits.FRAME_REQUESTS, observed=n)


@pytest.mark.parametrize("wrong", [pb.Frame(replies=[pb.Reply(id=1)]), pb.Frame(events=[pb.Event(kind=1)]),
                                   pb.Frame(fatal=pb.Fatal(reason=1)), pb.Frame(requests=[good()], replies=[pb.Reply(id=1)]),
                                   pb.Frame(requests=[good()], events=[pb.Event()]), pb.Frame(requests=[good()], fatal=pb.Fatal()),
                                   pb.Frame(replies=[pb.Reply(id=2 ** 32 - 1, token=5)])])
def test_what_only_nicd_says(attacker, wrong):
    # mutation: ignore what a client should not send
    violation(attacker, wrong.SerializeToString(), "FRAME_DIRECTION")


@pytest.mark.parametrize("ids", [[0], [1, 0], [600, 600], [601, 602, 601], list(range(1000, 1200)) + [1000]])
def test_request_ids(attacker, ids):
    # mutation: compare with the request before only
    violation(attacker, frame(*[good(i) for i in ids]), "REQUEST_ID")


def test_request_id_in_flight(attacker):
    # mutation: look for repeated ids inside the frame only
    with silent_listener() as silent:
        pd = attacker.create_pd()
        held = attacker.start(pb.ConnectQp(pd=ref(pd), locator=build(*silent.getsockname(), b"t" * 16), timeout_ms=60000))
        attacker.quiet(0.2)
        violation(attacker, frame(good(held)), "REQUEST_ID")


def test_request_id_of_a_close_that_waits(attacker):
    # mutation: forget the id of a deferred reply
    pd = attacker.create_pd()
    attacker.create_mr(pd)
    held = attacker.start(pb.Close(object=ref(pd)))
    attacker.quiet(0.1)
    violation(attacker, frame(good(held)), "REQUEST_ID")


def use(id_, target):
    return request(id_, pb.CreateMr(pd=pb.Ref(result_of=target)))


@pytest.mark.parametrize("requests", [
    [use(51, 51)],                                  # itself
    [use(51, 52), good(52)],                        # a later one
    [use(51, 52), use(52, 51)],                     # a circle
    [use(51, 53), use(52, 51), use(53, 52)],        # a wider one
    [good(51), use(52, 54)],                        # nobody
    [good(51), use(52, 0)],                         # 0
    [good(51), use(52, 2 ** 32 - 1)],
    [good(51), request(52, pb.RegisterMr(mr=pb.Ref(id=5), iova=1, ranges=[pb.Range(memory=pb.Ref(result_of=77), length=1)]))],
    [good(51), request(52, pb.FastRegister(mr=pb.Ref(id=5), qp=pb.Ref(result_of=99)))],
    [good(51), request(52, pb.Close(object=pb.Ref(result_of=53))), good(53)],
])
def test_references(attacker, requests):
    # mutation: resolve references while requests run; look at the first Ref of a call only
    violation(attacker, frame(*requests), "REFERENCE_ORDER")


def test_reference_to_an_earlier_frame(attacker):
    # mutation: keep results of earlier frames
    pd = attacker.start(pb.CreatePd())
    attacker.wait([pd])
    violation(attacker, frame(use(900, pd)), "REFERENCE_ORDER")


@pytest.mark.parametrize("message", [pb.CreateMr(), pb.CreateMr(pd=pb.Ref()), pb.Close(), pb.Close(object=pb.Ref(id=0))])
def test_references_that_say_nothing(attacker, message):
    # mutation: take a missing Ref for a pointer
    reply, = attacker.wait([attacker.start(message)])
    check_refused(reply, "HANDLE")


# ---- descriptors

@pytest.mark.parametrize("counts, n", [([1], 0), ([0], 1), ([1], 2), ([2], 1), ([1, 1], 1), ([1, 1], 3), ([0, 0], 2), ([64], 63),
                                       ([2 ** 32 - 1], 0), ([2 ** 31, 2 ** 31], 0), ([2 ** 32 - 1, 2], 1), ([65], 64)])
def test_descriptor_counts(attacker, counts, n):
    # mutation: add the counts in 32 bits; close only the surplus
    fds = [memfd(4096) for _ in range(n)]
    requests = [request(60 + i, pb.AddMemory(), count) for i, count in enumerate(counts)]
    violation(attacker, frame(*requests), "FRAME_FDS_MISMATCH", fds=fds)
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("n", [65, 66, 128, 253])
def test_too_many_descriptors(attacker, n):
    # mutation: leave those open that fit into the padding of the control buffer
    fd = memfd(4096)
    violation(attacker, frame(request(60, pb.AddMemory(), n)), "FRAME_FDS_TRUNCATED", limit=limits.FRAME_FDS, fds=[fd] * n)
    os.close(fd)


def test_descriptors_in_several_control_messages(attacker):
    # mutation: look at the first control message only
    fd = memfd(4096)
    import array
    one = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 2))
    requests = [request(60 + i, pb.AddMemory(), 1) for i in range(4)]
    attacker.in_flight.update(r.id for r in requests)
    try:
        attacker.sock.sendmsg([frame(*requests)], [one, one])
    except OSError:
        pytest.skip("the kernel takes one SCM_RIGHTS per packet")
    finally:
        os.close(fd)
    try:
        replies = attacker.wait([r.id for r in requests])
    except Exception:
        check_error(attacker.fatal, ("FRAME_FDS_MISMATCH", "FRAME_FDS_TRUNCATED"))
    else:
        assert all(r.memory.size == 4096 for r in replies)


@pytest.mark.parametrize("data, reason", [(b"\xff\xff", "FRAME_UNDECODABLE"), (field(99, 2, b"x"), "FRAME_EMPTY"),
                                          (frame(good(0)), "REQUEST_ID"), (frame(good(5), good(5)), "REQUEST_ID"),
                                          (pb.Frame(replies=[pb.Reply(id=1)]).SerializeToString(), "FRAME_DIRECTION"),
                                          (frame(pb.Request(id=1, fds=64)), "REQUEST_EMPTY"),
                                          (frame(use(5, 5)), "REFERENCE_ORDER"),
                                          (field(1, 2, b"") * 32000, ("FRAME_BUDGET", "FRAME_REQUESTS"))])
@pytest.mark.parametrize("kind", ["memfd", "pipe-read", "unix-stream-socket", "path-of-file", "directory"])
def test_descriptors_of_bad_frames(attacker, data, reason, kind):
    # mutation: leave the descriptors of a frame open that is judged before they are counted
    fd = memfd(4096) if kind == "memfd" else BAD_FDS[kind][0]()
    reasons = (reason,) if isinstance(reason, str) else reason
    violation(attacker, data, reasons + ("FRAME_FDS_MISMATCH",), fds=[fd] * 64)
    os.close(fd)


def test_a_socket_of_nicd_itself(nicd, attacker):
    # mutation: keep a descriptor that holds its own session open
    with nicd.session() as inner:
        batch = attacker.batch()
        batch.add(pb.AddMemory(), [inner.fileno()])
        batch.add(pb.AddMemory(), [attacker.fileno()])
        for reply in batch.run():
            check_refused(reply, "MEMORY_NOT_MEMFD")


def test_descriptors_in_flight_to_a_closed_session(nicd, victim):
    # mutation: close the socket with unread packets whose descriptors nobody owns
    fd = memfd(4096)
    for _ in range(20):
        with nicd.session() as s:
            for i in range(10):
                send_packet(s.sock, frame(*[request(100 + i * 8 + j, pb.AddMemory(), 1) for j in range(8)]), [fd] * 8)
    os.close(fd)


# ---- nothing of the frame takes effect

@pytest.mark.parametrize("poison, reason", [
    (lambda: good(0), "REQUEST_ID"), (lambda: good(1), "REQUEST_ID"), (lambda: use(9, 9), "REFERENCE_ORDER"),
    (lambda: pb.Request(id=9), "REQUEST_EMPTY"), (lambda: request(9, pb.AddMemory(), 1), "FRAME_FDS_MISMATCH"),
])
def test_a_violation_undoes_the_whole_frame(nicd, victim, attacker, poison, reason):
    # mutation: start requests before the whole frame has been judged
    session, mr = victim
    violation(attacker, frame(request(1, pb.Revoke(serial=mr.serial)), request(2, pb.Revoke(serial=session.hello.session)), poison()),
              reason)
    # The victim's fixture finds its MR as it was.


def test_violation_before_hello(nicd, victim):
    # mutation: send no Fatal to a session that has not said Hello
    with nicd.session(hello=False) as s:
        violation(s, frame(good(0)), "REQUEST_ID")


def test_after_a_violation_nothing_is_read(attacker):
    # mutation: go on with the next packet
    attacker.send_raw(frame(good(0)))
    try:
        for i in range(50):
            attacker.send_raw(frame(good(700 + i)))
    except OSError:
        pass
    fatal = attacker.wait_end()
    check_error(fatal, "REQUEST_ID")
    assert not attacker.replies


def test_earlier_frames_are_answered_before_fatal(attacker):
    # mutation: throw the replies away that stand before Fatal
    id_ = attacker.start(pb.CreatePd())
    attacker.send_raw(frame(good(0)))
    assert attacker.wait_end() is not None
    assert attacker.replies[id_].object.id


def test_violation_of_one_that_does_not_read(nicd, victim):
    # mutation: wait until Fatal can be sent
    with nicd.session() as s:
        s.sock.setblocking(False)
        try:
            for i in range(100000):
                s.sock.send(pb.Frame(requests=[request(1000 + i, pb.QueryTokens(mrs=[1] * 4096))]).SerializeToString())
        except BlockingIOError:
            pass
        select.select([], [s.sock], [], 0.2)
        try:
            s.sock.send(frame(good(0)))
        except BlockingIOError:
            pass
    nicd_sessions = nicd.admin().list(pb.SESSION)
    assert any(i.name == "victim" for i in nicd_sessions)


# ---- strings

@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xc3", b"a\x00b", b"\x00"])
@pytest.mark.parametrize("where", ["label", "export", "locator"])
def test_bad_utf8(nicd, victim, where, text):
    # mutation: trust protobuf-c, which does not look at strings; stop at a NUL
    with nicd.session(hello=where != "label") as s, Buffer(4096) as buffer:
        if where == "label":
            body = field(10, 2, field(1, 0, b"\1") + field(3, 2, text))
        elif where == "export":
            mr = s.region(s.create_pd(), buffer.fd, 4096, REMOTE_READ)
            body = field(61, 2, field(1, 2, field(1, 1, struct.pack("<Q", mr.id))) + field(2, 2, text) + field(5, 0, b"\2"))
        else:
            pd = s.create_pd()
            body = field(50, 2, field(1, 2, field(1, 1, struct.pack("<Q", pd.id))) + field(2, 2, text))
        s.in_flight.add(9999)
        s.send_raw(field(1, 2, field(1, 0, varint(9999)) + body))
        try:
            reply, = s.wait([9999])
        except Exception:
            check_error(s.fatal, "FRAME_UNDECODABLE")
        else:
            check_refused(reply, ("STRING", "LOCATOR"))
            assert not s.list(pb.EXPORT) if where == "export" else True


# ---- random bytes

def send_and_drain(session, data):
    """Sends bytes that may or may not be a frame, then one that ends the session, and reads to the end."""
    session.sock.settimeout(5)
    try:
        session.send_raw(data)
        session.send_raw(frame(good(0)))
        while session.sock.recv(70000):
            pass
    except (BrokenPipeError, ConnectionResetError):
        pass


def test_random_bytes(nicd, victim):
    # mutation: any slip in decoding, seen by the sanitizers
    rng = random.Random(11)
    for _ in range(150):
        with nicd.session() as s:
            send_and_drain(s, rng.randbytes(rng.randrange(1, 300)))


def test_mutated_frames(nicd, victim):
    # mutation: any slip in the checks of a frame, seen by the sanitizers
    rng = random.Random(12)
    seeds = [SAMPLE, frame(*[good(i + 1) for i in range(20)]),
             frame(request(1, pb.QueryTokens(mrs=list(range(100))))),
             frame(request(1, pb.List(type=5)), request(2, pb.Ledger()), request(3, pb.CreateExport(name="n" * 50, length=9, flags=2))),
             frame(request(1, pb.TransferList(entries=bytes(320))), request(2, pb.ConnectQp(locator="nicd1:" + "A" * 96)))]
    for i in range(400):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at] = rng.choice([0, 0x7f, 0x80, 0xff])
            elif kind == 2 and len(data) > 1:
                del data[at:at + rng.randrange(1, 4)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 4))
        if not data:
            continue
        with nicd.session() as s:
            send_and_drain(s, bytes(data))


MESSAGES = st.recursive(
    st.one_of(st.integers(0, 2 ** 64 - 1).map(lambda n: (0, varint(n))), st.binary(max_size=20).map(lambda b: (2, b)),
              st.binary(min_size=8, max_size=8).map(lambda b: (1, b)), st.binary(min_size=4, max_size=4).map(lambda b: (5, b))),
    lambda inner: st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 10, 20, 25, 30, 31, 35, 50, 53, 61, 65, 70, 72, 73]), inner),
                           max_size=6).map(lambda fields: (2, b"".join(field(n, t, p) for n, (t, p) in fields))), max_leaves=20)


def test_structured_frames(nicd, victim):
    # mutation: any slip behind the decoder, seen by the sanitizers
    @settings(max_examples=120)
    @given(st.lists(MESSAGES, min_size=1, max_size=5), st.booleans())
    def run(bodies, ids):
        data = b""
        for i, (_, body) in enumerate(bodies):
            data += field(1, 2, (field(1, 0, varint(i + 1)) if ids else b"") + body)
        if not 0 < len(data) <= limits.FRAME_MAX:
            return
        with nicd.session() as s:
            send_and_drain(s, data)

    run()
