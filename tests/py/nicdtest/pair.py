# SPDX-License-Identifier: MIT
"""Two hosts: an owner of memory on one nicd, and a user on another that reads and writes it."""
import contextlib

from .memory import Buffer
from .pb import LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, pb
from .wire import ref, transfer_entries

OWNER_IOVA, USER_IOVA = 0x1_0000_0000_0000, 0x2_0000_0000_0000
ALL = REMOTE_READ | REMOTE_WRITE


class Side:
    """A session with one registered buffer."""

    def __init__(self, nicd, size, flags, iova, fill, label):
        self.nicd = nicd
        self.session = nicd.session(label=label)
        self.buffer = Buffer(size, fill)
        self.pd = self.session.create_pd()
        self.mr = self.session.region(self.pd, self.buffer.fd, size, flags, iova)
        self.iova, self.size = iova, size

    def close(self):
        self.session.close()
        self.buffer.close()


class Pair:
    def __init__(self, owner_nicd, user_nicd, size=65536, owner_flags=ALL, user_flags=LOCAL_WRITE):
        self.owner = Side(owner_nicd, size, owner_flags, OWNER_IOVA, 1, "owner")
        self.user = Side(user_nicd, size, user_flags, USER_IOVA, 2, "user")
        self.door = self.qp = self.grant = None

    def close(self):
        self.user.close()
        self.owner.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def connect(self, door, timeout_ms=5000):
        """Another Qp of the user, by this door of the owner."""
        qp = self.user.session.connect_qp(self.user.pd, door.locator, timeout_ms)
        assert qp.connected and not qp.inbound
        return qp

    def by_export(self, flags=ALL, name="shared", **terms):
        self.door = self.owner.session.export(self.owner.mr, name, flags, **terms)
        self.qp = self.connect(self.door)
        self.grant = self.qp.grant
        return self

    def by_ticket(self, **terms):
        self.door = self.owner.session.ticket(self.owner.mr, **terms)
        self.qp = self.connect(self.door)
        self.grant = self.qp.grant
        return self

    def await_inside(self):
        """The owner's nicd learns of a peer by its first frame, a moment after the user's nicd is connected."""
        self.owner.session.wait_event(pb.Event.CONNECTED)
        return self

    def message(self, kind, local=0, remote=0, length=0, token=None, address=None, qp=None, local_token=None, local_address=None):
        return kind(qp=ref(qp or self.qp), local_token=self.user.mr.local_token if local_token is None else local_token,
                    local_addr=self.user.iova + local if local_address is None else local_address,
                    remote_token=self.grant.remote_token if token is None else token,
                    remote_addr=self.grant.iova + remote if address is None else address, length=length)

    def read(self, *args, **kw):
        """user[local…] = owner[remote…]; the Completion."""
        return self.user.session.call(self.message(pb.Read, *args, **kw)).completion

    def write(self, *args, **kw):
        return self.user.session.call(self.message(pb.Write, *args, **kw)).completion

    def start(self, kind, *args, **kw):
        return self.user.session.start(self.message(kind, *args, **kw))

    def send(self, at=0, length=0, qp=None, side=None, flags=0, invalidate=0):
        """Starts a Send on the user's Qp, or on `qp` of that side."""
        side = side or self.user
        return side.session.start(pb.Send(qp=ref(qp or self.qp), local_token=side.mr.local_token, local_addr=side.iova + at,
                                          length=length, flags=flags, invalidate_token=invalidate))

    def receive(self, at=0, length=0, qp=None, side=None):
        """Starts a Receive on the owner's inbound Qp, or on `qp` of that side."""
        side = side or self.owner
        return side.session.start(pb.Receive(qp=ref(qp or self.inbound()), local_token=side.mr.local_token,
                                             local_addr=side.iova + at, length=length))

    def inbound(self):
        """The owner's end of the newest connection, by the serial that lists show."""
        serial = max(i.serial for i in self.owner.session.list(pb.QP) if i.inbound)
        return self.owner.session.call(pb.QueryQp(serial=serial)).qp

    def list_message(self, operation, entries, qp=None):
        """entries: (local offset, remote offset, length) or whole tuples of five."""
        whole = [e if len(e) == 5 else (self.user.mr.local_token, self.grant.remote_token, self.user.iova + e[0],
                                        self.grant.iova + e[1], e[2]) for e in entries]
        return pb.TransferList(qp=ref(qp or self.qp), operation=operation, entries=transfer_entries(whole))

    def transfer(self, operation, entries):
        return self.user.session.call(self.list_message(operation, entries)).completion

    def counters(self, qp=None):
        """(what the user's Qp counted, what the owner's inbound Qp counted)."""
        mine = self.user.session.query_qp(qp or self.qp)
        theirs, = (i for i in self.owner.session.list(pb.QP) if i.inbound)
        return mine, theirs

    def await_disconnected(self, qp=None):
        event = self.user.session.wait_event(pb.Event.DISCONNECTED, (qp or self.qp).serial)
        assert not self.user.session.query_qp(qp or self.qp).connected
        return event


@contextlib.contextmanager
def silent_listener(answer=None):
    """A TCP listener that accepts and says nothing: (host, port)."""
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener
