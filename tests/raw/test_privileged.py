# SPDX-License-Identifier: MIT
"""A stranger who tries tokens over the wire, with a privileged one among them: reads, writes and messages that invalidate, each on a connection of its
own, because a wrong token ends it. The whole of the 2^32 are swept in process (tests/walls)."""
import os
import random

import pytest

from nicdtest import iwarp, locator
from nicdtest.daemon import configuration, wait_until
from nicdtest.iwarp import Peer, hello
from nicdtest.memory import Buffer
from nicdtest.pb import REMOTE_READ, REMOTE_WRITE, pb
from nicdtest.wire import ref

TOKENS = int(os.environ.get("NICD_TOKENS", 10000))
READ, WRITE, INVALIDATE = range(3)
UNKNOWN = {READ: iwarp.RDMAP_BAD_STAG, WRITE: iwarp.DDP_BAD_STAG, INVALIDATE: (0, 1, 9)}
SIZE, IOVA = 65536, 0x3_0000_0000_0000
ALL = REMOTE_READ | REMOTE_WRITE


class Scene:
    def __init__(self, nicd):
        self.session = nicd.session()
        self.buffer = Buffer(SIZE, 1)
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, SIZE, ALL, IOVA)
        message = pb.BuildMapping()
        message.ranges.add(memory=ref(self.session.add_memory(self.buffer.fd)), offset=0, length=SIZE)
        self.mapping = self.session.call(message).mapping
        self.token = self.session.call(pb.GetPrivilegedToken(pd=ref(self.pd))).privileged.value
        self.doors = [self.session.ticket(self.mr, uses=2 * TOKENS, peers=16),
                      self.session.export(self.mr, "swept", ALL, uses=2 * TOKENS, peers=16)]
        self.granted = {self.mr.remote_token, self.doors[1].grant.remote_token}

    def close(self):
        self.session.close()
        self.buffer.close()

    def inbound(self, peer):
        """The serial of our end of this connection, of which nicd hears a moment after its peer."""
        name = "{}:{}".format(*peer.sock.getsockname())
        return wait_until(lambda: next((i.serial for i in self.session.list(pb.QP) if i.inbound and i.peer == name), 0))

    def attempt(self, way, door, token, address):
        """The code of the Terminate that a stranger gets who says this token."""
        place = locator.parse(door.locator)
        with Peer((place.host, place.port), hello(place.ticket)) as peer:
            peer.flush()
            if way == READ:
                peer.post_read(0x77, 0x1000, 64, token, address)
            elif way == WRITE:
                peer.write(token, address, b"\xee" * 64)
            else:
                qp = self.session.call(pb.QueryQp(serial=self.inbound(peer))).qp
                self.session.start(pb.Receive(qp=ref(qp), local_token=self.mr.local_token, local_addr=IOVA, length=64))
                self.session.query_qp(qp)
                peer.send_message(b"x", opcode=iwarp.SEND_INVALIDATE, invalidate=token)
            return peer.wait_terminate()


@pytest.fixture
def scene(own_nicd):
    scene = Scene(own_nicd(config=configuration(nicd={"privileged-token": "yes"})))
    yield scene
    scene.close()


@pytest.mark.parametrize("door", [0, 1], ids=["PD ticket", "export"])
def test_the_privileged_one(scene, door):
    # mutation: look keys up where peers' tokens are
    before = scene.buffer.bytes()
    for address in (scene.mapping.logical_address, IOVA, 0):
        for way in (READ, WRITE):
            assert scene.attempt(way, scene.doors[door], scene.token, address) == UNKNOWN[way]
    assert scene.attempt(INVALIDATE, scene.doors[door], scene.token, 0) == UNKNOWN[INVALIDATE]
    assert scene.buffer.bytes()[1:] == before[1:]   # the message is placed before what it invalidates is looked at
    # It is still good for what it is for.
    assert scene.session.call(pb.GetPrivilegedToken(pd=ref(scene.pd))).privileged.value == scene.token


def test_random_ones(scene):
    # mutation: let any number through, or end more than the connection that said it
    dice = random.Random(4)
    before = scene.buffer.bytes()
    for i in range(TOKENS):
        token = dice.getrandbits(32)
        if token not in scene.granted:
            way = INVALIDATE if i % 100 == 99 else i % 2
            address = scene.mapping.logical_address if i % 3 else IOVA
            assert scene.attempt(way, scene.doors[i // 2 % 2], token, address) == UNKNOWN[way]
    assert scene.buffer.bytes()[1:] == before[1:]
    place = locator.parse(scene.doors[0].locator)
    with Peer((place.host, place.port), hello(place.ticket)) as peer:
        assert peer.read(scene.mr.remote_token, IOVA + 1, 100) == before[1:101]
