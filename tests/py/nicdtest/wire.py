# SPDX-License-Identifier: MIT
"""One session with nicd: packets with descriptors, calls, batches, events. Judges what comes back: every request is answered
once, every error says what the table of reasons says."""
import array
import contextlib
import os
import select
import socket
import time

from . import limits
from .pb import CALL_FIELDS, pb
from .reasons import BY_NUMBER, REASONS

TIMEOUT = 20.0


class Refused(Exception):
    """The request was answered with an Error."""

    def __init__(self, reply):
        self.reply = reply
        self.error = reply.error
        super().__init__(f"{self.error.name}: {self.error.text} (limit {self.error.limit}, observed {self.error.observed})")


class Ended(Exception):
    """nicd closed the session; `fatal` is what it said last, or None."""

    def __init__(self, fatal):
        self.fatal = fatal
        super().__init__(f"the session ended: {fatal.name if fatal else 'without Fatal'}")


def check_error(error, name, limit=None, observed=None):
    """`error` (an Error or a Fatal) is the reason `name` (or one of several), and teaches."""
    names = (name,) if isinstance(name, str) else tuple(name)
    assert error.name in names, f"{error.name} ({error.text}; limit {error.limit}, observed {error.observed}), not {names}"
    row = REASONS[error.name]
    assert error.reason == row.number
    if isinstance(error, pb.Error):
        assert pb.Status.Name(error.status) == row.status
    assert error.text and error.cure
    if limit is not None:
        assert error.limit == limit, f"{error.name}: limit {error.limit:#x}, not {limit:#x}"
    if observed is not None:
        assert error.observed == observed, f"{error.name}: observed {error.observed:#x}, not {observed:#x}"
    return error


def check_refused(reply, name, limit=None, observed=None):
    assert reply.HasField("error"), f"was not refused, but answered {reply}"
    return check_error(reply.error, name, limit, observed)


@contextlib.contextmanager
def expect_refused(name, limit=None, observed=None):
    try:
        yield
    except Refused as refused:
        check_error(refused.error, name, limit, observed)
        return
    raise AssertionError(f"was not refused with {name}")


class Handle:
    """A request of a batch under way; `ref(handle)` names its result."""

    def __init__(self, request_id):
        self.request_id = request_id


def ref(what):
    """A Ref to an id, to an earlier request of the same frame, or to whatever has an `id`."""
    if isinstance(what, pb.Ref):
        return what
    if isinstance(what, Handle):
        return pb.Ref(result_of=what.request_id)
    if isinstance(what, int):
        return pb.Ref(id=what)
    return pb.Ref(id=what.id)


def request(request_id, call, n_fds=0):
    message = pb.Request(id=request_id, fds=n_fds)
    getattr(message, CALL_FIELDS[call.DESCRIPTOR.full_name]).CopyFrom(call)
    getattr(message, CALL_FIELDS[call.DESCRIPTOR.full_name]).SetInParent()
    return message


def send_packet(sock, data, fds=()):
    """One packet. `data` may be anything, the descriptors too."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], control, socket.MSG_NOSIGNAL)


class Batch:
    """Requests of one frame. `add` gives a Handle that later requests may name with ref()."""

    def __init__(self, session):
        self.session = session
        self.frame = pb.Frame()
        self.fds = []

    def add(self, call, fds=()):
        request_id = self.session.next_id()
        self.frame.requests.append(request(request_id, call, len(fds)))
        self.fds += fds
        return Handle(request_id)

    def send(self):
        ids = [r.id for r in self.frame.requests]
        self.session.send_frame(self.frame, self.fds)
        return ids

    def run(self, timeout=TIMEOUT):
        """The replies, in the order of the requests, whether refused or not."""
        return self.session.wait(self.send(), timeout)


class Session:
    def __init__(self, path, hello=True, label="test"):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(path))
        self.last_id = 0
        self.in_flight = set()
        self.replies = {}      # by request id: came, not yet asked for
        self.order = []        # ids in the order of their replies
        self.events = []
        self.fatal = None
        self.ended = False
        self.hello = None
        if hello:
            self.hello = self.call(pb.Hello(major=limits.MAJOR, min_minor=limits.MINOR, client=label)).hello

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()

    def fileno(self):
        return self.sock.fileno()

    # Sending.

    def next_id(self):
        self.last_id += 1
        return self.last_id

    def send_raw(self, data, fds=()):
        send_packet(self.sock, data, fds)

    def send_frame(self, frame, fds=()):
        self.in_flight.update(r.id for r in frame.requests)
        self.send_raw(frame.SerializeToString(), fds)

    def start(self, call, fds=()):
        """Sends one request, and answers its id."""
        batch = Batch(self)
        handle = batch.add(call, fds)
        batch.send()
        return handle.request_id

    def batch(self):
        return Batch(self)

    # Receiving.

    def receive(self, timeout=TIMEOUT):
        """Reads one packet and files what is in it. False: the session ended."""
        if not select.select([self.sock], [], [], timeout)[0]:
            raise TimeoutError(f"nothing from nicd in {timeout} s; in flight: {sorted(self.in_flight)[:8]}")
        try:
            data, control, flags, _ = self.sock.recvmsg(limits.FRAME_MAX + 1, socket.CMSG_SPACE(256 * 4), socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            data, control, flags = b"", [], 0
        fds = array.array("i")
        for level, kind, payload in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload)
        for fd in fds:
            os.close(fd)
        assert not fds, "nicd sent descriptors to a client"
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) and len(data) <= limits.FRAME_MAX, "an oversize frame"
        if not data:
            self.ended = True
            return False
        assert self.fatal is None, "nicd spoke after Fatal"
        self._file(pb.Frame.FromString(data))
        return True

    def _file(self, frame):
        assert not frame.requests, "nicd sent requests"
        kinds = bool(frame.replies) + bool(frame.events) + frame.HasField("fatal")
        assert kinds >= 1, "nicd sent an empty frame"
        for reply in frame.replies:
            assert reply.id in self.in_flight, f"a reply to {reply.id}, which is not in flight: {reply}"
            self.in_flight.remove(reply.id)
            if reply.HasField("error"):
                row = BY_NUMBER[reply.error.reason]
                assert reply.error.reason != 0 and reply.error.name == row.name
            self.replies[reply.id] = reply
            self.order.append(reply.id)
        self.events += frame.events
        if frame.HasField("fatal"):
            self.fatal = frame.fatal

    def wait(self, ids, timeout=TIMEOUT):
        """The replies to these requests, in this order."""
        deadline = time.monotonic() + timeout
        while any(i not in self.replies for i in ids):
            if not self.receive(max(0.0, deadline - time.monotonic())):
                raise Ended(self.fatal)
        return [self.replies.pop(i) for i in ids]

    def call(self, call, fds=(), timeout=TIMEOUT):
        """One request and its reply; raises Refused."""
        reply, = self.wait([self.start(call, fds)], timeout)
        if reply.HasField("error"):
            raise Refused(reply)
        return reply

    def wait_end(self, timeout=TIMEOUT):
        """Reads to the end of the session; the Fatal, or None."""
        deadline = time.monotonic() + timeout
        while not self.ended:
            self.receive(max(0.0, deadline - time.monotonic()))
        return self.fatal

    def wait_event(self, kind, serial=None, timeout=TIMEOUT):
        """The first event of this kind (about this serial), taken from those that came."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events:
                if event.kind == kind and serial in (None, event.serial):
                    self.events.remove(event)
                    return event
            try:
                alive = self.receive(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                name = pb.Event.Kind.Name(kind)
                raise AssertionError(f"no event {name} of {serial} in {timeout} s; seen: {self.events}") from None
            if not alive:
                raise Ended(self.fatal)

    def quiet(self, seconds=0.2):
        """Files what comes for a while."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                return
            if not self.receive(0):
                raise Ended(self.fatal)

    # Calls, short.

    def create_pd(self):
        return self.call(pb.CreatePd()).object

    def create_mr(self, pd):
        return self.call(pb.CreateMr(pd=ref(pd))).object

    def add_memory(self, fd):
        return self.call(pb.AddMemory(), [fd]).memory

    def register(self, mr, ranges=None, iova=None, length=0, flags=0, fd=None):
        """Registers [(memory, offset, length)…]; with `fd`, memory None means that descriptor."""
        message = register_message(mr, ranges, iova, length, flags)
        return self.call(message, [fd] if fd is not None else []).mr

    def region(self, pd, fd, size, flags, iova=None, offset=0):
        """An MR over a new memory: its MrTokens."""
        return self.register(self.create_mr(pd), [(None, offset, size)], iova, 0, flags, fd)

    def deregister(self, mr):
        return self.call(pb.DeregisterMr(mr=ref(mr))).receipt

    def local_token(self, mr):
        return self.call(pb.GetLocalToken(mr=ref(mr))).token

    def remote_token(self, mr):
        return self.call(pb.GetRemoteToken(mr=ref(mr))).token

    def close_object(self, what):
        return self.call(pb.Close(object=ref(what)))

    def export(self, mr, name, flags, offset=0, length=0, uses=0, ttl_ms=0, peers=0):
        return self.call(pb.CreateExport(mr=ref(mr), name=name, offset=offset, length=length, flags=flags, uses=uses,
                                         ttl_ms=ttl_ms, peers=peers)).door

    def ticket(self, mr, uses=0, ttl_ms=0, peers=0):
        return self.call(pb.CreateTicket(mr=ref(mr), uses=uses, ttl_ms=ttl_ms, peers=peers)).door

    def connect_qp(self, pd, locator, timeout_ms=0):
        return self.call(pb.ConnectQp(pd=ref(pd), locator=locator, timeout_ms=timeout_ms)).qp

    def query_qp(self, qp):
        return self.call(pb.QueryQp(qp=ref(qp))).qp

    def list(self, type_, max_=0):
        """All of one type, page by page."""
        items, cursor = [], 0
        while True:
            page = self.call(pb.List(type=type_, cursor=cursor, max=max_)).list
            items += page.items
            cursor = page.cursor
            if cursor == 0:
                return items
            assert page.items, "an empty page that is not the last"

    def ledger(self):
        """Ledger, its pages joined."""
        whole = self.call(pb.Ledger()).ledger
        cursor = whole.cursor
        while cursor:
            page = self.call(pb.Ledger(cursor=cursor)).ledger
            whole.accounts.extend(page.accounts)
            cursor = page.cursor
        return whole


def register_message(mr, ranges, iova=None, length=0, flags=0):
    message = pb.RegisterMr(mr=ref(mr), length=length, flags=flags)
    for memory, offset, size in ranges or ():
        piece = message.ranges.add(offset=offset, length=size)
        if memory is not None:
            piece.memory.CopyFrom(ref(memory))
    if iova is None:
        iova = 0x7000_0000_0000 + (ranges[0][1] % limits.PAGE if ranges else 0)
    message.iova = iova
    return message


def transfer_entries(entries):
    """[(local_token, remote_token, local_addr, remote_addr, length)…] as TransferList.entries."""
    import struct
    return b"".join(struct.pack("<IIQQII", lt, rt, la, ra, n, 0) for lt, rt, la, ra, n in entries)
