# SPDX-License-Identifier: MIT
"""Drives tests/vm/verbs-peer: a librdmacm program with one connection and one registered memory, which is ours too. For the guests
of tests/vm/; knows nothing of the device."""
import collections
import os
import select
import subprocess
import time

from .memory import Buffer
from .paths import BUILD

Established = collections.namedtuple("Established", "ird ord private")
Completion = collections.namedtuple("Completion", "id status bytes")
SUCCESS, FLUSHED = 0, 5   # enum ibv_wc_status


class Failed(Exception):
    """A call of librdmacm or libibverbs failed, or the connection was not established: the words of the answer."""

    def __init__(self, words):
        self.words = words
        super().__init__(" ".join(words))

    @property
    def what(self):
        return self.words[0]

    @property
    def status(self):
        """What came with the event."""
        return int(self.words[1])

    @property
    def private(self):
        return unhex(self.words[2])


def unhex(text):
    return b"" if text == "-" else bytes.fromhex(text)


class VerbsPeer:
    def __init__(self, size, fill=None, prefix=()):
        """`prefix`: a command that runs it elsewhere."""
        self.memory = Buffer(size, fill)
        self.size = size
        self.process = subprocess.Popen([*prefix, BUILD / "tests" / "vm" / "verbs-peer", f"/proc/self/fd/{self.memory.fd}"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self.memory.fd])
        self.rest = b""
        self.last_id = 0
        self.rkey = self.address = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Ends without a word to the peer, as a process does that dies."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.memory.close()

    # Commands.

    def start(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

    def answer(self, timeout=40.0):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("verbs-peer does not answer")
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"verbs-peer died: {self.process.wait()}"
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode().split()

    def expect(self, word, timeout=40.0):
        words = self.answer(timeout)
        if words[0] != word:
            raise Failed(words)
        return words[1:]

    def call(self, word, *command):
        self.start(*command)
        return self.expect(word)

    # Connecting.

    @staticmethod
    def _terms(responder, initiator, private):
        """For iWARP rdma_cm's event has the two depths the other way round than its parameters."""
        return Established(int(initiator), int(responder), unhex(private))

    def _established(self):
        terms = self._terms(*self.expect("established"))
        if self.rkey is None:
            self._region()
        return terms

    def _region(self):
        rkey, address, _ = self.call("region", "region")
        self.rkey, self.address = int(rkey), int(address)

    def connect(self, host, port, private=b"", ird=16, ord=16):
        self.start("connect", host, port, ird, ord, private.hex() or "-")
        return self._established()

    def listen(self, host):
        return int(self.call("listening", "listen", host)[0])

    def request(self, timeout_ms=20000):
        """The connection request that comes next."""
        terms = self._terms(*self.call("request", "request", timeout_ms))
        self._region()
        return terms

    def accept(self, private=b"", ird=16, ord=16):
        self.start("accept", ird, ord, private.hex() or "-")
        return self._established()

    def reject(self, private=b""):
        self.call("ok", "reject", private.hex() or "-")

    def disconnect(self):
        self.call("ok", "disconnect")

    def event(self, timeout_ms=15000):
        name, _ = self.call("event", "event", timeout_ms)
        return name

    def await_disconnected(self):
        """The one sure sign that a connection is over: work posted on it may never complete."""
        for _ in range(4):
            name = self.event()
            if name == "RDMA_CM_EVENT_DISCONNECTED":
                return
            assert name != "none", "no DISCONNECTED"

    # Work.

    def post(self, kind, at=0, length=0, rkey=0, to=0):
        self.last_id += 1
        self.call("ok", "post", kind, self.last_id, at, length, rkey, to)
        return self.last_id

    def wait(self, count=1, timeout_ms=30000):
        """As many completions as come."""
        words = self.call("completions", "wait", count, timeout_ms)
        return [Completion(*map(int, word.split(":"))) for word in words]

    def transfer(self, *args, **kw):
        """One transfer that must be done."""
        id_ = self.post(*args, **kw)
        done = self.wait()
        assert [(c.id, c.status) for c in done] == [(id_, SUCCESS)], done

    def read(self, at, length, rkey, to):
        self.transfer("read", at, length, rkey, to)

    def write(self, at, length, rkey, to):
        self.transfer("write", at, length, rkey, to)

    def flush(self):
        """A read of nothing: what was written before it is placed when it comes back."""
        self.transfer("read")

    def bench(self, kind, length, depth, count, rkey, to):
        """Seconds."""
        return int(self.call("bench", "bench", kind, length, depth, count, rkey, to)[0]) / 1e9
