# SPDX-License-Identifier: MIT
"""Where the value of a privileged token may be: in its owner's own session, and in memory of nicd and nicd-soft that no core dump has. It is looked for
in what a core would be made of, in the journal, in what others are told, and in every byte between the hosts."""
import pathlib
import re
import socket
import threading

import pytest

from nicdtest import locator
from nicdtest.daemon import configuration
from nicdtest.memory import Buffer
from nicdtest.pair import ALL, Pair
from nicdtest.pb import pb
from nicdtest.wire import ref

SIZE = 65536
YES = configuration(nicd={"privileged-token": "yes"})


def dumpable(pid):
    """(start, end) of each region that a core dump has."""
    region = None
    for line in pathlib.Path("/proc", str(pid), "smaps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+)", line)
        if found:
            region = int(found[1], 16), int(found[2], 16), found[3]
        elif line.startswith("VmFlags:") and "dd" not in line.split() and region[2].startswith("r") and region[1] < 1 << 63:
            yield region[0], region[1]


def in_core(pid, value):
    """Whether a core dump of the process would have this number somewhere."""
    needle = value.to_bytes(4, "little")
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in dumpable(pid):
            at = start
            while at < end:
                try:
                    memory.seek(at)
                    data = memory.read(min(end - at, 1 << 24))
                except OSError:   # [vvar], and pages behind the end of a file
                    break
                if not data:
                    break
                if needle in data:
                    return True
                at += len(data)
    return False


class Relay:
    """Between the hosts: everything that goes either way, kept."""

    def __init__(self, to):
        self.to, self.heard, self.threads = to, [b"", b""], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        ours, _ = self.listener.accept()
        theirs = socket.create_connection(self.to)
        for way, (a, b) in enumerate(((ours, theirs), (theirs, ours))):
            self.threads.append(threading.Thread(target=self.carry, args=(way, a, b), daemon=True))
            self.threads[-1].start()

    def carry(self, way, source, sink):
        try:
            while data := source.recv(65536):
                self.heard[way] += data
                sink.sendall(data)
        except OSError:
            pass
        sink.close()

    def close(self):
        self.listener.close()


@pytest.fixture
def relay(peer_nicd):
    relay = Relay(peer_nicd.data_address())
    yield relay
    relay.close()


class Scene:
    """A user of a privileged token, at work with an owner on another host, and somebody else on the same one."""

    def __init__(self, nicd, peer_nicd, relay):
        self.nicd, self.relay = nicd, relay
        self.pair = pair = Pair(peer_nicd, nicd, size=SIZE)
        self.session = pair.user.session
        pair.door = pair.owner.session.export(pair.owner.mr, "canary", ALL)
        pair.qp = self.session.connect_qp(pair.user.pd, self.detour(pair.door.locator))
        pair.grant = pair.qp.grant
        self.buffer = Buffer(SIZE)
        message = pb.BuildMapping()
        message.ranges.add(memory=ref(self.session.add_memory(self.buffer.fd)), offset=0, length=SIZE)
        self.mapping = self.session.call(message).mapping
        self.token = self.session.call(pb.GetPrivilegedToken(pd=ref(pair.user.pd))).privileged.value

    def detour(self, text):
        host, port = self.relay.listener.getsockname()
        place = locator.parse(text)
        return locator.build(host, port, place.ticket, place.grant)

    def work(self):
        """Reads, writes, messages, lists, work that is refused, requests that wait for others, and receives that stay posted."""
        at, qp = self.mapping.logical_address, self.pair.qp
        local = {"local_token": self.token, "local_address": at}
        for i in range(20):
            self.session.call(self.pair.message(pb.Read, length=1000 + i, **local))
            self.session.call(self.pair.message(pb.Write, length=1000 + i, **local))
        entries = [(self.token, self.pair.grant.remote_token, at + i * 64, self.pair.grant.iova, 64) for i in range(500)]
        self.session.call(self.pair.list_message(pb.TransferList.READ, entries))
        batch = self.session.batch()
        memory = batch.add(pb.AddMemory(), [self.buffer.fd])
        batch.add(pb.Close(object=ref(memory)))
        batch.add(self.pair.message(pb.Read, length=10, **local))
        batch.run()
        self.receives = [self.session.start(pb.Receive(qp=ref(qp), local_token=self.token, local_addr=at, length=9)) for _ in range(50)]
        self.session.query_qp(qp)

    def others(self):
        """All that another session, the peer and the admin are told."""
        heard = []
        with self.nicd.session() as other:
            for session in (other, self.pair.owner.session, self.nicd.admin()):
                heard += [item.SerializeToString() for type_ in range(1, 12) for item in session.list(type_)]
                heard.append(session.ledger().SerializeToString() if session is not other else b"")
        return b"".join(heard)

    def close(self):
        self.pair.close()
        self.buffer.close()


@pytest.fixture
def scene(own_nicd, peer_nicd, relay):
    scene = Scene(own_nicd(config=YES, options=["--log-level", "debug"]), peer_nicd, relay)
    yield scene
    scene.close()


def test_in_no_core(scene):
    # mutation: keep keys in memory that a dump has, or the key in posted work
    scene.work()
    pids = scene.nicd.pid, scene.nicd.soft_pid
    # A token of an MR is found in both: the search sees what there is.
    assert all(in_core(pid, scene.pair.user.mr.local_token) for pid in pids)
    values = [scene.token]
    # One of 2^32 numbers may be somewhere by chance; two of them not.
    values.append(scene.session.call(pb.GetPrivilegedToken(pd=ref(scene.session.create_pd()))).privileged.value)
    for pid in pids:
        assert not all(in_core(pid, value) for value in values)
        if in_core(pid, scene.token):
            pytest.fail(f"the token is in what a core of {pid} would have")


def test_in_no_log_and_nobody_elses_socket(scene):
    # mutation: say the token where work is refused, or in a grant
    scene.work()
    little, big = (scene.token.to_bytes(4, order) for order in ("little", "big"))
    for way in scene.relay.heard:
        assert way and little not in way and big not in way
    assert scene.pair.grant.remote_token.to_bytes(4, "big") in scene.relay.heard[0]
    others = scene.others()
    assert others and little not in others
    log = scene.nicd.log_text()
    assert log and all(text not in log.lower() for text in (str(scene.token), f"{scene.token:x}", f"{scene.token:08x}"))
