# SPDX-License-Identifier: MIT
"""A peer that reads no more: what waits behind the work that is stuck with it, and all that must not wait."""
import contextlib

import pytest

from nicdtest import locator
from nicdtest.iwarp import Peer, hello
from nicdtest.pair import Side
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import check_refused, expect_refused, ref

SIZE = 32 << 20
IOVA = 0x1_0000_0000_0000


class Stuck:
    """An owner whose Qp has a Send under way that its peer does not take."""

    def __init__(self, nicd):
        self.side = Side(nicd, SIZE, LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE, IOVA, 1, "owner")
        self.session, self.pd, self.mr = self.side.session, self.side.pd, self.side.mr
        self.peers = [self.peer(nicd), self.peer(nicd)]
        self.memory = self.session.add_memory(self.side.buffer.fd)
        self.free, self.qp = (self.inbound(i) for i in (0, 1))
        self.send = self.session.start(pb.Send(qp=ref(self.qp), local_token=self.mr.local_token, local_addr=IOVA, length=SIZE))

    def peer(self, nicd):
        door = self.session.ticket(self.mr)
        peer = Peer(nicd.data_address(), hello(locator.parse(door.locator).ticket))
        peer.flush()
        self.session.wait_event(pb.Event.CONNECTED)
        return peer

    def inbound(self, i):
        serials = sorted(item.serial for item in self.session.list(pb.QP) if item.inbound)
        return self.session.call(pb.QueryQp(serial=serials[i])).qp

    def window(self):
        return self.session.call(pb.CreateMw(pd=ref(self.pd))).object

    def bind_message(self, mw, qp=None, length=1000):
        return pb.BindMw(mw=ref(mw), mr=ref(self.mr), qp=ref(qp or self.qp), iova=IOVA, length=length, flags=pb.OP_ALLOW_REMOTE_READ)

    def fast(self):
        mr = self.session.call(pb.CreateMr(pd=ref(self.pd), fast_register=True)).object
        self.session.call(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=1))
        return mr

    def fast_message(self, mr, qp=None):
        ranges = [pb.Range(memory=ref(self.memory), length=4096)]
        return pb.FastRegister(mr=ref(mr), qp=ref(qp or self.qp), ranges=ranges, length=4096, iova=IOVA)

    def close(self):
        for peer in self.peers:
            peer.close()
        self.side.close()


@pytest.fixture
def stuck(nicd):
    with contextlib.closing(Stuck(nicd)) as s:
        yield s


def ended(stuck, waiting, close):
    """Both are answered although the Send in front of them is not."""
    replies = {r.id: r for r in stuck.session.wait([waiting, close])}
    assert not replies[close].HasField("error")
    assert stuck.send in stuck.session.in_flight
    return replies[waiting]


def test_close_of_a_window_that_waits(stuck):
    # mutation: leave an AddTag that is overtaken in the queue of its stream
    mw = stuck.window()
    bind = stuck.session.start(stuck.bind_message(mw))
    check_refused(ended(stuck, bind, stuck.session.start(pb.Close(object=ref(mw)))), "REVOKED")


def test_revoke_of_a_window_that_waits(nicd, stuck):
    # mutation: refuse the admin and leave it waiting
    for invalidates in (False, True):
        mw = stuck.window()
        if invalidates:
            stuck.session.call(stuck.bind_message(mw, stuck.free))
        message = pb.Invalidate(object=ref(mw), qp=ref(stuck.qp)) if invalidates else stuck.bind_message(mw)
        waiting = stuck.session.start(message)
        stuck.session.list(pb.MW)
        with expect_refused("DEVICE_BUSY"):
            nicd.admin().call(pb.Revoke(serial=mw.serial))
        reply, = stuck.session.wait([waiting])
        assert stuck.send in stuck.session.in_flight
        if invalidates:
            assert not reply.HasField("error")
        else:
            check_refused(reply, "REVOKED")


def test_close_of_a_fast_mr_that_waits(stuck):
    # mutation: nic_frmr_close without frmr_hurry
    mr = stuck.fast()
    register = stuck.session.start(stuck.fast_message(mr))
    stuck.session.list(pb.MR)
    check_refused(ended(stuck, register, stuck.session.start(pb.Close(object=ref(mr)))), "REVOKED")


def test_revoke_of_a_fast_mr_that_waits(nicd, stuck):
    # mutation: refuse the admin and leave it waiting
    mr = stuck.fast()
    register = stuck.session.start(stuck.fast_message(mr))
    stuck.session.list(pb.MR)
    with expect_refused("DEVICE_BUSY"):
        nicd.admin().call(pb.Revoke(serial=mr.serial))
    reply, = stuck.session.wait([register])
    check_refused(reply, "REVOKED")
    assert stuck.send in stuck.session.in_flight
    stuck.session.call(stuck.fast_message(mr, stuck.free))
