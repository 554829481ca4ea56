# SPDX-License-Identifier: MIT
"""Messages between nicd and a librdmacm program, both ways."""
import pytest

from nicdtest.daemon import wait_until
from nicdtest.link import kernel_log
from nicdtest.memory import pattern
from nicdtest.pb import pb
from nicdtest.verbs import SUCCESS
from nicdtest.wire import check_refused, ref
from test_initiator import IOVA as USER_IOVA
from test_initiator import user  # noqa: F401
from test_responder import IOVA, SIZE, let_in, owner, terminates  # noqa: F401

LENGTHS = (1, 3, 1428, 1429, 5000, SIZE - 50)


def inside(o, peer):
    """The owner's Qp to a peer that is connected."""
    peer.flush()
    serial = o.session.wait_event(pb.Event.CONNECTED).serial
    return o.session.call(pb.QueryQp(serial=serial)).qp


def receive(o, qp, at=0, length=SIZE - 50):
    return o.session.start(pb.Receive(qp=ref(qp), local_token=o.mr.local_token, local_addr=IOVA + at, length=length))


@pytest.mark.parametrize("soft_options", ["", "--crc"], ids=["plain", "crc"])
def test_siw_sends(owner, let_in, soft_options):  # noqa: F811
    # mutation: place a message by the segment's number instead of its offset
    o = owner(soft_options)
    peer, token = let_in(o)
    qp = inside(o, peer)
    for n in LENGTHS:
        id_ = receive(o, qp, 50)
        peer.memory[:n] = pattern(n, n % 90)
        peer.transfer("send", 0, n)
        assert o.session.wait([id_])[0].completion.bytes == n
        assert o.buffer[50:50 + n] == pattern(n, n % 90)
    peer.read(0, 100, token, IOVA)


def test_siw_may_not_invalidate_a_normal_mr(owner, let_in):  # noqa: F811
    """The message is not taken, and the Terminate names the reason."""
    # mutation: read the STag from the header's wrong place; drop the tag of a normal MR because a peer says so
    o = owner()
    peer, token = let_in(o)
    bystander, stag = let_in(o)
    qp = inside(o, peer)
    id_, log = receive(o, qp), len(kernel_log())
    peer.post("invalidate", 0, 100, token)
    peer.await_disconnected()
    check_refused(o.session.wait([id_])[0], "QP_LOST")
    assert wait_until(lambda: (0, 1, 9) in terminates(kernel_log()[log:]), 5.0), kernel_log()[log:]
    bystander.read(0, 100, stag, IOVA)
    assert bystander.memory[:100] == o.buffer[:100]


def test_we_send(user):  # noqa: F811
    # mutation: count MSN from 0; forget MO
    u = user().connect()
    for n in LENGTHS:
        u.buffer[:n] = pattern(n, n % 90)
        posted = u.server.post("receive", 50, SIZE - 50)
        id_ = u.session.start(pb.Send(qp=ref(u.qp), local_token=u.mr.local_token, local_addr=USER_IOVA, length=n))
        done, = u.server.wait()
        assert (done.id, done.status, done.bytes) == (posted, SUCCESS, n)
        assert u.reply(id_).completion.bytes == n
        assert u.server.memory[50:50 + n] == pattern(n, n % 90)


def test_we_send_more_than_siw_waits_for(user):  # noqa: F811
    """siw says the same as if there were no receive at all."""
    # mutation: take every Terminate for a lost connection
    u = user().connect()
    u.server.post("receive", 0, 10)
    id_ = u.session.start(pb.Send(qp=ref(u.qp), local_token=u.mr.local_token, local_addr=USER_IOVA, length=11))
    check_refused(u.reply(id_), ("REMOTE_RECEIVE", "NO_RECEIVE"))
    u.session.wait_event(pb.Event.DISCONNECTED, u.qp.serial)
