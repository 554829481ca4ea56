# SPDX-License-Identifier: MIT
"""The life of a normal memory region: every call in every state, every refusal, rights and tokens.

The states that last only until the device answers (REGISTERING, DEREGISTERING) are reached by sending the next request in the same
frame: requests start in order, and the device is another process."""
import pytest

from nicdtest import limits
from nicdtest.memory import Buffer
from nicdtest.pb import LOCAL_READ, LOCAL_WRITE, READ_SINK, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_refused, expect_refused, ref, register_message

SIZE = 65536


@pytest.fixture
def memory(session):
    with Buffer(SIZE) as buffer:
        info = session.add_memory(buffer.fd)
        yield info


@pytest.fixture
def pd(session):
    return session.create_pd()


@pytest.fixture
def mr(session, pd):
    return session.create_mr(pd)


def register(mr, memory, flags=REMOTE_READ):
    return register_message(mr, [(memory, 0, SIZE)], flags=flags)


def deregister(mr):
    return pb.DeregisterMr(mr=ref(mr))


# Each call on an MR, as a row of the table of states has it.
COLUMNS = {
    "GetLocalToken": lambda mr, memory: pb.GetLocalToken(mr=ref(mr)),
    "GetRemoteToken": lambda mr, memory: pb.GetRemoteToken(mr=ref(mr)),
    "Register": register,
    "Deregister": lambda mr, memory: deregister(mr),
    "InitializeFastRegister": lambda mr, memory: pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=1),
    "FastRegister": lambda mr, memory: pb.FastRegister(mr=ref(mr)),
    "Invalidate": lambda mr, memory: pb.Invalidate(object=ref(mr)),
    "Bind": lambda mr, memory: pb.BindMw(mr=ref(mr)),
    "Close": lambda mr, memory: pb.Close(object=ref(mr)),
}
WRONG_KIND = {"InitializeFastRegister": "MR_KIND", "FastRegister": "MR_KIND", "Invalidate": "MR_KIND", "Bind": "HANDLE"}
OK = None
TABLE = {
    "CREATED": {"GetLocalToken": "MR_STATE", "GetRemoteToken": "MR_STATE", "Register": OK, "Deregister": "MR_STATE", "Close": OK},
    "REGISTERING": {"GetLocalToken": "MR_STATE", "GetRemoteToken": "MR_STATE", "Register": "MR_STATE", "Deregister": "MR_STATE",
                    "Close": OK},
    "REGISTERED": {"GetLocalToken": OK, "GetRemoteToken": OK, "Register": "MR_STATE", "Deregister": OK, "Close": OK},
    "DEREGISTERING": {"GetLocalToken": "MR_STATE", "GetRemoteToken": "MR_STATE", "Register": "MR_STATE", "Deregister": "MR_STATE",
                      "Close": OK},
    "CREATED again": {"GetLocalToken": "MR_STATE", "GetRemoteToken": "MR_STATE", "Register": OK, "Deregister": "MR_STATE",
                      "Close": OK},
}
STATUS = {"MR_STATE": pb.INVALID_DEVICE_STATE, "MR_KIND": pb.INVALID_PARAMETER, "NOT_SUPPORTED": pb.NOT_SUPPORTED, "HANDLE": pb.INVALID_HANDLE}


def bring_to(session, state, mr, memory, batch):
    """Brings the MR to the state, or puts into the batch what does."""
    if state in ("REGISTERED", "DEREGISTERING", "CREATED again"):
        session.call(register(mr, memory))
    if state == "CREATED again":
        session.call(deregister(mr))
    if state == "REGISTERING":
        batch.add(register(mr, memory))
    if state == "DEREGISTERING":
        batch.add(deregister(mr))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("state", TABLE)
def test_every_call_in_every_state(session, memory, mr, state, column):
    # mutation: let any cell of the table of MR states answer as another one
    expected = {**WRONG_KIND, **TABLE[state]}[column]
    batch = session.batch()
    bring_to(session, state, mr, memory, batch)
    batch.add(COLUMNS[column](mr, memory))
    *before, reply = batch.run()
    for earlier in before:
        # Closing while a registration is under way may end it either way; whatever else goes its way.
        assert not earlier.HasField("error") or column == "Close", earlier
    if expected is OK:
        assert not reply.HasField("error"), reply
    else:
        check_refused(reply, expected)
        assert reply.error.status == STATUS[expected]
    # What was refused has changed nothing.
    if expected is not OK:
        alive = {"CREATED": False, "REGISTERING": True, "REGISTERED": True, "DEREGISTERING": False, "CREATED again": False}[state]
        if alive:
            assert session.local_token(mr)
        else:
            with expect_refused("MR_STATE"):
                session.local_token(mr)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("how", ["closed", "closing"])
def test_every_call_on_a_closed_one(session, memory, mr, how, column):
    # mutation: drop the name of an MR only when the device has answered
    session.call(register(mr, memory))
    close = pb.Close(object=ref(mr))
    if how == "closed":
        session.call(close)
    batch = session.batch()
    if how == "closing":
        batch.add(close)
    batch.add(COLUMNS[column](mr, memory))
    reply = batch.run()[-1]
    check_refused(reply, "HANDLE")


@pytest.mark.parametrize("state", TABLE)
def test_close_answers_last(session, memory, mr, state):
    # mutation: answer Close before the registration or deregistration under way
    batch = session.batch()
    bring_to(session, state, mr, memory, batch)
    close = batch.add(pb.Close(object=ref(mr)))
    ids = batch.send()
    session.wait(ids)
    assert session.order[-1] == close.request_id
    assert session.list(pb.MR) == []


def test_tokens_of_a_registration(session, memory, mr):
    # mutation: one token for both, or 0
    tokens = session.call(register(mr, memory, REMOTE_READ | REMOTE_WRITE)).mr
    assert tokens.id == mr.id and tokens.serial == mr.serial
    assert tokens.local_token and tokens.remote_token and tokens.local_token != tokens.remote_token
    assert session.local_token(mr) == tokens.local_token
    assert session.remote_token(mr) == tokens.remote_token
    assert tokens.length == SIZE and tokens.flags == REMOTE_READ | REMOTE_WRITE


def test_tokens_of_an_earlier_registration_are_not_drawn_again(session, memory, mr):
    # mutation: keep the tokens over a deregistration; leave out the quarantine; do not count generations
    seen, generation = set(), 0
    for _ in range(50):
        tokens = session.call(register(mr, memory)).mr
        assert not seen & {tokens.local_token, tokens.remote_token}
        seen |= {tokens.local_token, tokens.remote_token}
        assert tokens.generation > generation
        generation = tokens.generation
        session.deregister(mr)


@pytest.mark.parametrize("flags, effective, remote", [
    (LOCAL_READ, 0, False),
    (LOCAL_WRITE, 1, False),
    (REMOTE_READ, 2, True),
    (REMOTE_READ | LOCAL_WRITE, 3, True),
    (REMOTE_WRITE, 5, True),
    (REMOTE_READ | REMOTE_WRITE, 7, True),
    (READ_SINK, 1, False),
    (READ_SINK | REMOTE_READ, 3, True),
    (READ_SINK | LOCAL_WRITE, 1, False),
])
def test_effective_rights(session, memory, mr, flags, effective, remote):
    # mutation: READ_SINK gives a remote right, as it does to a careless iWARP provider; remote write without local write
    tokens = session.call(register(mr, memory, flags)).mr
    assert tokens.flags & ~READ_SINK == effective
    assert bool(tokens.remote_token) == remote
    if remote:
        assert session.remote_token(mr) == tokens.remote_token
    else:
        with expect_refused("NO_REMOTE_RIGHTS"):
            session.remote_token(mr)
    assert session.local_token(mr) == tokens.local_token != 0
    item, = session.list(pb.MR)
    assert item.flags == tokens.flags and item.size == SIZE and item.iova == tokens.iova


@pytest.mark.parametrize("flags", [0x4, 0x6, 0xc, 0xe, 0x10, 0x15, 0x80, 0x80000000, 0xffffffff])
def test_undefined_flags(session, memory, mr, flags):
    # mutation: mask undefined bits away, or take 0x4 alone for remote write
    with expect_refused("FLAGS"):
        session.call(register(mr, memory, flags))
    session.call(register(mr, memory))


TOP = 2 ** 64
BAD_REGISTRATIONS = {
    # name: (ranges as (offset, length), iova, length, reason, limit, observed)
    "no range": ([], 4096, 0, "COUNT", limits.RANGES, 0),
    "17 ranges": ([(0, 4096)] * 17, 4096, 0, "COUNT", limits.RANGES, 17),
    "a range of nothing": ([(0, 0)], 4096, 0, "LENGTH_ZERO", None, None),
    "nothing at the end": ([(SIZE, 0)], 4096, 0, "LENGTH_ZERO", None, None),
    "nothing in the middle": ([(0, 4096), (4096, 0), (0, 4096)], 4096, 0, "LENGTH_ZERO", None, None),
    "one byte beyond": ([(0, SIZE + 1)], 4096, 0, "RANGE_BEYOND", SIZE, SIZE + 1),
    "starts at the end": ([(SIZE, 1)], 4096, 0, "RANGE_BEYOND", SIZE, SIZE + 1),
    "starts beyond": ([(SIZE * 2, 4096)], 4096, 0, "RANGE_BEYOND", SIZE, SIZE * 2 + 4096),
    "ends one byte beyond": ([(4096, SIZE - 4095)], 4096, 0, "RANGE_BEYOND", SIZE, SIZE + 1),
    "the second beyond": ([(0, 4096), (0, SIZE * 2)], 4096, 0, "RANGE_BEYOND", SIZE, SIZE * 2),
    "all there is": ([(0, TOP - 1)], 4096, 0, "RANGE_BEYOND", SIZE, TOP - 1),
    "offset and length overflow": ([(TOP - 4096, 8192)], 4096, 0, "RANGE_OVERFLOW", None, None),
    "overflow to 0": ([(TOP - 4096, 4096)], 4096, 0, ("RANGE_OVERFLOW", "RANGE_BEYOND"), None, None),
    "overflow to inside": ([(4096, TOP - 1)], 4096, 0, "RANGE_OVERFLOW", None, None),
    "the first ends inside a page": ([(0, 5000), (8192, 4096)], 4096, 0, "RANGE_NOT_JOINED", limits.PAGE, None),
    "the second starts inside a page": ([(0, 4096), (8193, 4096)], 4096, 0, "RANGE_NOT_JOINED", limits.PAGE, None),
    "the middle one is not whole": ([(0, 4096), (4096, 100), (8192, 4096)], 4096, 0, "RANGE_NOT_JOINED", limits.PAGE, None),
    "longer than the ranges": ([(0, 4096)], 4096, 4097, "LENGTH_BEYOND", 4096, 4097),
    "much longer than the ranges": ([(0, 4096), (0, 4096)], 4096, TOP - 1, "LENGTH_BEYOND", 8192, TOP - 1),
    "iova 0": ([(0, 4096)], 0, 0, "IOVA_ZERO", None, None),
    "iova misfit": ([(0, 4096)], 4097, 0, "IOVA_MISFIT", 0, 1),
    "iova misfit to an offset": ([(100, 96)], 4096, 0, "IOVA_MISFIT", 100, 0),
    "iova wraps": ([(0, 8192)], TOP - 4096, 0, "IOVA_OVERFLOW", None, None),
}


@pytest.mark.parametrize("name", BAD_REGISTRATIONS)
def test_refused_registrations(nicd, session, memory, mr, name):
    # mutation: add before comparing; leave out any one of these checks
    ranges, iova, length, reason, limit, observed = BAD_REGISTRATIONS[name]
    before = nicd.ledger()
    with expect_refused(reason, limit, observed):
        session.register(mr, [(memory, *r) for r in ranges], iova, length, REMOTE_READ)
    after = nicd.ledger()
    assert (after.objects, after.provider_tags, after.accounts) == (before.objects, before.provider_tags, before.accounts)
    session.call(register(mr, memory))


def test_ranges_need_a_memory(session, mr):
    # mutation: take "absent" for the memory of id 0
    with expect_refused(("HANDLE", "FDS")):
        session.register(mr, [(None, 0, 4096)])


@pytest.mark.parametrize("ranges, iova, length", [
    ([(0, 1)], 4096, 0),
    ([(SIZE - 1, 1)], 2 ** 40 + 4095, 0),
    ([(100, 96), ], 4096 * 5 + 100, 0),
    ([(100, 3996), (0, 4096), (0, 50)], 4096 + 100, 0),
    ([(4096, 4096), (4096, 4096)], 4096, 0),                        # the same page twice, as MDLs may
    ([(i * 4096, 4096) for i in reversed(range(16))], 1 << 47, 0),  # 16 of them
    ([(0, SIZE)], 4096, 1),
    ([(0, SIZE)], TOP - SIZE - 4096, 0),
    ([(0, 4096)], TOP - 8192, 0),
])
def test_good_registrations(session, memory, mr, ranges, iova, length):
    # mutation: refuse overlapping ranges, or a length that is not whole pages
    tokens = session.register(mr, [(memory, *r) for r in ranges], iova, length, REMOTE_READ)
    assert tokens.iova == iova and tokens.length == (length or sum(n for _, n in ranges))


def test_iova_up_to_the_last_byte(session, memory, mr):
    # mutation: refuse iova + length == 2^64 on one side only, or wrap at it
    try:
        tokens = session.register(mr, [(memory, 0, 4096)], TOP - 4096, 0, REMOTE_READ)
        assert tokens.iova == TOP - 4096
    except Exception as refused:
        assert refused.error.name == "IOVA_OVERFLOW"


def test_many_regions_of_one_memory(nicd, session, pd, memory):
    # mutation: map or charge per MR
    mrs = [session.create_mr(pd) for _ in range(100)]
    tokens = [session.call(register(mr, memory)).mr for mr in mrs]
    assert len({t.remote_token for t in tokens} | {t.local_token for t in tokens}) == 200
    ledger = nicd.ledger()
    assert (ledger.provider_memories, ledger.provider_tags, ledger.held_fds) == (1, 100, 1)
    item, = session.list(pb.MEMORY)
    assert item.count == 100


def test_pd_closes_when_its_regions_are_gone(session, pd, memory, mr):
    # mutation: answer Close of a PD at once, refuse it, or kill its MRs
    tokens = session.call(register(mr, memory)).mr
    closing = session.start(pb.Close(object=ref(pd)))
    with expect_refused("HANDLE"):
        session.create_mr(pd)
    assert session.local_token(mr) == tokens.local_token
    assert closing not in session.replies
    session.deregister(mr)
    session.call(register(mr, memory))
    assert closing not in session.replies
    session.close_object(mr)
    reply, = session.wait([closing])
    assert not reply.HasField("error")
    assert session.list(pb.PD) == []


def test_receipt(session, memory, mr):
    # mutation: take the time when the revocation starts, or a monotonic one
    import time
    session.call(register(mr, memory))
    before = time.time_ns()
    receipt = session.deregister(mr)
    assert receipt.serial == mr.serial
    assert before <= receipt.at_ns <= time.time_ns()
    assert (receipt.streams_cut, list(receipt.exports), receipt.grants) == (0, [], 0)


def test_close_of_a_registered_one_has_a_receipt(session, memory, mr):
    # mutation: close without deregistering
    session.call(register(mr, memory))
    assert session.close_object(mr).receipt.serial == mr.serial


def test_state_names_in_lists(session, memory, mr):
    # mutation: list a name of the state before
    created = session.list(pb.MR)[0].state
    session.call(register(mr, memory))
    registered = session.list(pb.MR)[0].state
    session.deregister(mr)
    assert session.list(pb.MR)[0].state == created != registered
