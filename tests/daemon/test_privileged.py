# SPDX-License-Identifier: MIT
"""The privileged token: by policy only, for local sides of work requests only, on what the session itself has mapped."""
import os

import pytest

from nicdtest.daemon import configuration
from nicdtest.memory import Buffer, memfd, pattern, reopen, seal
from nicdtest.pair import ALL, OWNER_IOVA, Pair
from nicdtest.pb import LOCAL_WRITE, pb
from nicdtest.wire import expect_refused, ref

PAGE, SIZE = 4096, 16 * 4096
READ, WRITE = pb.TransferList.READ, pb.TransferList.WRITE
YES = configuration(nicd={"privileged-token": "yes"})


def token_of(session, pd):
    return session.call(pb.GetPrivilegedToken(pd=ref(pd))).privileged.value


def build(session, *ranges):
    message = pb.BuildMapping()
    for memory, offset, length in ranges:
        message.ranges.add(memory=ref(memory), offset=offset, length=length)
    return session.call(message).mapping


def test_by_policy_only(nicd, own_nicd):
    # mutation: give everybody one, or say in AdapterInfo what is not so
    with nicd.session() as session:
        assert not session.hello.adapters[0].privileged_token
        with expect_refused("PRIVILEGED_DENIED"):
            token_of(session, session.create_pd())
    with own_nicd(config=YES).session() as session:
        assert session.hello.adapters[0].privileged_token
        one, two = session.create_pd(), session.create_pd()
        assert token_of(session, one) == token_of(session, one) != 0
        assert token_of(session, one) != token_of(session, two)
        with expect_refused("HANDLE_TYPE"):
            token_of(session, session.create_mr(one))


class Privileged:
    """A user who has mapped its memory and may use it unregistered, connected to an owner on another nicd."""

    def __init__(self, pair):
        self.pair, self.session = pair, pair.user.session
        self.buffer = Buffer(SIZE, 3)
        self.memory = self.session.add_memory(self.buffer.fd)
        self.mapping = build(self.session, (self.memory, 0, SIZE))
        self.token = token_of(self.session, pair.user.pd)

    def message(self, kind, at, remote, length, token=None, address=None):
        return self.pair.message(kind, remote=remote, length=length, local_token=self.token if token is None else token,
                                 local_address=self.mapping.logical_address + at if address is None else address)

    def call(self, *args, **kw):
        return self.session.call(self.message(*args, **kw)).completion


@pytest.fixture
def privileged(own_nicd, peer_nicd):
    with Pair(peer_nicd, own_nicd(config=YES)) as pair:
        yield Privileged(pair.by_export())


def test_bytes(privileged):
    # mutation: place them by another mapping, or one page off
    p = privileged
    assert p.call(pb.Read, 100, 5000, 30000).bytes == 30000
    assert p.buffer[100:30100] == p.pair.owner.buffer[5000:35000]
    assert p.call(pb.Write, 40000, 111, 20000).bytes == 20000
    assert p.pair.owner.buffer[111:20111] == p.buffer[40000:60000]


def test_list_of_both_kinds(privileged):
    # mutation: let the first entry's kind decide for all
    p, pair = privileged, privileged.pair
    entries = [(p.token, pair.grant.remote_token, p.mapping.logical_address, OWNER_IOVA, 1000),
               (pair.user.mr.local_token, pair.grant.remote_token, pair.user.iova + 7, OWNER_IOVA + 2000, 1000),
               (p.token, pair.grant.remote_token, p.mapping.logical_address + 5000, OWNER_IOVA + 4000, 1000)]
    assert pair.transfer(READ, entries).bytes == 3000
    owner = pair.owner.buffer
    assert (p.buffer[0:1000], pair.user.buffer[7:1007], p.buffer[5000:6000]) == (owner[0:1000], owner[2000:3000], owner[4000:5000])


def test_several_ranges(privileged):
    # mutation: use the first range for all
    p = privileged
    mapping = build(p.session, (p.memory, 8 * PAGE, PAGE), (p.memory, 0, PAGE), (p.memory, 4 * PAGE, 100))
    assert p.call(pb.Read, 0, 0, 2 * PAGE + 100, address=mapping.logical_address).bytes == 2 * PAGE + 100
    owner = p.pair.owner.buffer
    assert p.buffer[8 * PAGE:9 * PAGE] == owner[:PAGE] and p.buffer[:PAGE] == owner[PAGE:2 * PAGE]
    assert p.buffer[4 * PAGE:4 * PAGE + 100] == owner[2 * PAGE:2 * PAGE + 100]


@pytest.mark.parametrize("at, length", [(-1, 1), (SIZE, 1), (0, SIZE + 1), (SIZE - 1, 2), (2**40, 1)])
@pytest.mark.parametrize("kind", [pb.Read, pb.Write])
def test_outside(privileged, kind, at, length):
    # mutation: forget the end, or the beginning, of a mapping
    p = privileged
    with expect_refused("LOCAL_RANGE"):
        p.call(kind, at, 0, length)


def test_messages(privileged):
    # mutation: let a receive take any address by the key
    p, pair = privileged, privileged.pair
    theirs = pair.receive(0, 1000)
    p.session.call(pb.Send(qp=ref(pair.qp), local_token=p.token, local_addr=p.mapping.logical_address + 9, length=500))
    reply, = pair.owner.session.wait([theirs])
    assert reply.completion.bytes == 500 and pair.owner.buffer[0:500] == p.buffer[9:509]
    mine = p.session.start(pb.Receive(qp=ref(pair.qp), local_token=p.token, local_addr=p.mapping.logical_address + 50, length=100))
    pair.owner.session.wait([pair.send(0, 77, qp=pair.inbound(), side=pair.owner)])
    reply, = p.session.wait([mine])
    assert reply.completion.bytes == 77 and p.buffer[50:127] == pair.owner.buffer[0:77]
    with expect_refused("LOCAL_RANGE"):
        p.session.call(pb.Receive(qp=ref(pair.qp), local_token=p.token, local_addr=p.mapping.logical_address + SIZE, length=1))


def test_read_only_memory(privileged):
    # mutation: give a mapping the right to write, whatever it is of
    p = privileged
    fd = memfd(SIZE)
    memory = p.session.add_memory(reopen(fd, os.O_RDONLY))
    mapping = build(p.session, (memory, 0, SIZE))
    p.call(pb.Write, 0, 0, 100, address=mapping.logical_address)
    with expect_refused("LOCAL_RIGHTS"):
        p.call(pb.Read, 0, 0, 100, address=mapping.logical_address)
    os.close(fd)


def test_only_in_its_pd(privileged):
    # mutation: take the key of any PD
    p = privileged
    other = p.session.create_pd()
    with expect_refused("LOCAL_TOKEN"):
        p.call(pb.Read, 0, 0, 1, token=token_of(p.session, other))


def test_only_what_the_session_mapped(privileged):
    # mutation: look a logical address up among all sessions'
    p = privileged
    with p.pair.user.nicd.session() as other:
        memory = other.add_memory(memfd(SIZE))
        foreign = build(other, (memory, 0, SIZE))
        with expect_refused("LOCAL_RANGE"):
            p.call(pb.Read, 0, 0, 1, address=foreign.logical_address)


def test_never_remote(own_nicd, peer_nicd):
    # mutation: look keys up where peers' tokens are
    with Pair(own_nicd(config=YES), peer_nicd) as pair:
        session = pair.owner.session
        token = token_of(session, pair.owner.pd)
        mapping = build(session, (session.add_memory(pair.owner.buffer.fd), 0, SIZE))
        before = pair.owner.buffer.bytes()
        for by in (lambda: pair.by_export(name="one"), pair.by_ticket):
            for kind in (pb.Read, pb.Write):
                by()
                with expect_refused("REMOTE_TOKEN"):
                    pair.user.session.call(pair.message(kind, length=64, token=token, address=mapping.logical_address))
                if by is not pair.by_ticket:
                    session.close_object(pair.door)
        assert pair.owner.buffer.bytes() == before


def test_close_waits_for_work(privileged):
    # mutation: drop the mapping under a receive that waits
    p, pair = privileged, privileged.pair
    receive = p.session.start(pb.Receive(qp=ref(pair.qp), local_token=p.token, local_addr=p.mapping.logical_address, length=100))
    closing = p.session.start(pb.Close(object=ref(p.mapping)))
    p.session.query_qp(pair.qp)
    with expect_refused("LOCAL_RANGE"):   # nobody new
        p.session.call(pb.Receive(qp=ref(pair.qp), local_token=p.token, local_addr=p.mapping.logical_address, length=100))
    assert closing not in p.session.replies
    pair.owner.session.wait([pair.send(0, 77, qp=pair.inbound(), side=pair.owner)])
    done, closed = p.session.wait([receive, closing])
    assert done.completion.bytes == 77 and not closed.HasField("error")
    assert p.buffer[:77] == pair.owner.buffer[:77]


@pytest.mark.parametrize("end", ["flush", "disconnect", "session"])
def test_ends_with_work_under_way(privileged, end):
    # mutation: count the work of a mapping and never give it back
    p, pair = privileged, privileged.pair
    receives = [p.session.start(pb.Receive(qp=ref(pair.qp), local_token=p.token, local_addr=p.mapping.logical_address + i, length=9))
                for i in range(100)]
    closing = p.session.start(pb.Close(object=ref(p.mapping)))
    if end == "session":
        p.session.close()
        pair.user.nicd.assert_clean()
        return
    p.session.call(pb.Flush(qp=ref(pair.qp)) if end == "flush" else pb.Disconnect(qp=ref(pair.qp)))
    for reply in p.session.wait([*receives, closing])[:-1]:
        assert reply.error.name == "FLUSHED"


def test_session_dies_in_each_state(own_nicd):
    # mutation: keep a key or a mapping at the device when the session has gone
    nicd = own_nicd(config=YES)
    for asked in range(4):
        with nicd.session() as session:
            pd, memory = session.create_pd(), session.add_memory(memfd(SIZE))
            message = pb.BuildMapping()
            message.ranges.add(memory=ref(memory), offset=0, length=SIZE)
            session.start(pb.GetPrivilegedToken(pd=ref(pd)))
            for _ in range(asked * 100):
                session.start(message)
            if asked == 3:
                session.start(pb.Close(object=ref(pd)))
        nicd.assert_clean()


def test_pd_closed_with_its_key(own_nicd):
    # mutation: answer the close before the device has dropped the key, or take the key along to the next PD
    nicd = own_nicd(config=YES)
    with nicd.session() as session:
        tokens = set()
        for _ in range(50):
            pd = session.create_pd()
            tokens.add(token_of(session, pd))
            session.close_object(pd)
        assert len(tokens) == 50 and 0 not in tokens
