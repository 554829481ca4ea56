# SPDX-License-Identifier: MIT
"""siw built to insist on CRC, to ask for peer-to-peer mode and to send large frames (tests/vm/module/siw)."""
import pytest

from nicdtest import iwarp, locator
from nicdtest.pb import pb
from test_responder import IOVA, check_sizes, let_in, owner  # noqa: F401


def test_peer_to_peer(owner, let_in):  # noqa: F811
    """The first frame comes at once, and is one of a write of nothing."""
    # mutation: leave the A bit, or the choice of C and D, out of the reply; want a first frame with payload
    o = owner()
    peer, token = let_in(o)
    o.session.wait_event(pb.Event.CONNECTED)
    peer.read(0, 100, token, IOVA)
    assert peer.memory[:100] == o.buffer[:100]


def test_reject_in_peer_to_peer(owner, verbs_peer):  # noqa: F811
    there = locator.parse(owner().door().locator)
    with pytest.raises(Exception, match="rejected"):
        verbs_peer().connect(there.host, there.port, iwarp.hello(bytes(16)))


@pytest.mark.parametrize("soft_options", ["", "--fpdu 65535"])
def test_large_frames(owner, let_in, soft_options):  # noqa: F811
    check_sizes(owner, let_in, soft_options, (1 << 20, (4 << 20) + 1), ((7, 2),))
