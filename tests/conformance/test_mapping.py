# SPDX-License-Identifier: MIT
"""Logical address mappings, and the privileged token of a PD."""
import pytest

from nicdtest.daemon import configuration
from nicdtest.pair import Pair
from nicdtest.pb import pb
from nicdtest.wire import check_refused, ref

from parts import IOVA, PAGE, SIZE, Owned
from rules import rule


@pytest.fixture
def o(pair):
    with Owned(pair) as owned:
        yield owned


@pytest.fixture
def privileged(own_nicd, nicd, provider):
    """A pair whose owner policy allows privileged tokens."""
    mine = own_nicd("127.0.0.3", config=configuration(nicd={"privileged_token": "yes"}), provider=provider.name)
    with Pair(mine, nicd) as pair, Owned(pair.by_ticket(uses=8, peers=8).await_inside()) as owned:
        yield owned


# ---- mappings

@rule("lam.pages", "lam.no-physical")
def test_pages(o):
    # mutation: count a page too few; an address that is where the memory is
    for ranges, fbo, pages in (([(0, PAGE)], 0, 1), ([(100, 100)], 100, 1), ([(100, PAGE)], 100, 2), ([(PAGE, PAGE), (0, 1)], 0, 2)):
        one, two = o.mapping(ranges), o.mapping(ranges)
        for mapping in (one, two):
            assert (mapping.first_byte_offset, mapping.pages, mapping.length) == (fbo, pages, sum(n for _, n in ranges))
            assert mapping.logical_address % PAGE == fbo and mapping.logical_address >= PAGE
        first, last = sorted((one, two), key=lambda m: m.logical_address)
        assert first.logical_address + first.length <= last.logical_address


@rule("lam.contiguous")
@pytest.mark.parametrize("ranges, reason", [([(0, 100), (PAGE, PAGE)], "RANGE_NOT_JOINED"), ([(0, PAGE), (100, PAGE)], "RANGE_NOT_JOINED"),
                                            ([], "COUNT"), ([(0, 0)], "LENGTH_ZERO"), ([(0, SIZE + 1)], "RANGE_BEYOND")])
def test_contiguous(o, ranges, reason):
    # mutation: checks of its own, not those of RegisterMr
    message = pb.BuildMapping()
    for offset, length in ranges:
        message.ranges.add(memory=ref(o.memory), offset=offset, length=length)
    o.refused(message, reason, pb.INVALID_PARAMETER)


@rule("release-lam.users", "release-lam.memory")
def test_release(o):
    # mutation: answer while a registration stands on it; touch the memory
    before, mapping, mr = o.buffer.bytes(), o.mapping(), o.fast()
    token = o.fast_register(mr, mapping=mapping).remote_token
    closing = o.session.start(pb.Close(object=ref(mapping)))
    o.refused(o.fast_message(o.fast(), mapping=mapping), "HANDLE")
    assert o.can_read(token) == before[:PAGE]
    assert closing not in o.session.replies
    o.invalidate(mr)
    reply, = o.session.wait([closing])
    assert not reply.HasField("error") and o.buffer.bytes() == before


# ---- the privileged token

def token_of(o, pd=None):
    return o.session.call(pb.GetPrivilegedToken(pd=ref(pd or o.pd))).privileged.value


@rule("privileged.policy")
def test_policy(o):
    # mutation: give it to everybody
    assert not o.session.hello.adapters[0].privileged_token
    o.refused(pb.GetPrivilegedToken(pd=ref(o.pd)), "PRIVILEGED_DENIED", pb.ACCESS_DENIED)


@rule("privileged.local", "sge.address")
def test_local(privileged):
    # mutation: local read alone; addresses of an MR
    o, token = privileged, token_of(privileged)
    user, mapping, mr = o.pair.user, o.mapping([(PAGE, 2 * PAGE)]), o.normal()
    receive = o.session.start(pb.Receive(qp=ref(o.qp), local_token=token, local_addr=mapping.logical_address + 10, length=PAGE))
    sent = o.pair.send(0, PAGE)
    for session, id_ in ((user.session, sent), (o.session, receive)):
        reply, = session.wait([id_])
        assert not reply.HasField("error"), reply
    assert o.buffer[PAGE + 10:2 * PAGE + 10] == user.buffer[:PAGE]
    receive = user.session.start(pb.Receive(qp=ref(o.pair.qp), local_token=user.mr.local_token, local_addr=user.iova, length=PAGE))
    o.session.call(pb.Send(qp=ref(o.qp), local_token=token, local_addr=mapping.logical_address + PAGE, length=PAGE))
    user.session.wait([receive])
    assert user.buffer[:PAGE] == o.buffer[2 * PAGE:3 * PAGE]
    # An MR's token takes an MR's addresses, and the privileged one those of a mapping, from its first byte to its last.
    for local_token, address in ((token, IOVA), (mr.local_token, mapping.logical_address), (token, mapping.logical_address - 1),
                                 (token, mapping.logical_address + PAGE + 1)):
        message = pb.Receive(qp=ref(o.qp), local_token=local_token, local_addr=address, length=PAGE)
        assert o.refused(message, ("LOCAL_TOKEN", "LOCAL_RANGE")).error.status == pb.ACCESS_VIOLATION


@rule("privileged.never-remote")
def test_never_remote(privileged):
    # mutation: look it up where tokens of peers are looked up
    o, token = privileged, token_of(privileged)
    mapping, before = o.mapping(), o.buffer.bytes()
    for kind in (pb.Read, pb.Write):
        for address in (mapping.logical_address, IOVA):
            o.peer_refused(kind, token, iova=address)
    assert o.buffer.bytes() == before


@rule("privileged.one")
def test_one_per_pd(privileged):
    # mutation: a new one each time, or one for all PDs
    o = privileged
    other = o.session.create_pd()
    mine, theirs = token_of(o), token_of(o, other)
    assert mine == token_of(o) != 0 and theirs == token_of(o, other) not in (0, mine)
    mapping = o.mapping()
    reply = o.ask(pb.Receive(qp=ref(o.qp), local_token=theirs, local_addr=mapping.logical_address, length=1))
    check_refused(reply, "LOCAL_TOKEN")
