# SPDX-License-Identifier: MIT
"""An iWARP peer on a plain TCP socket, from the RFCs: MPA (5044, 6581), DDP (5041), RDMAP (5040). It can keep the rules, and it
can break any of them: every frame may also be built by hand and sent as bytes."""
import collections
import os
import select
import socket
import struct
import time

# CRC-32C (Castagnoli), reflected.
_TABLE = []
for _i in range(256):
    _c = _i
    for _ in range(8):
        _c = (_c >> 1) ^ 0x82F63B78 if _c & 1 else _c >> 1
    _TABLE.append(_c)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283

# MPA.
REQUEST_KEY, REPLY_KEY = b"MPA ID Req Frame", b"MPA ID Rep Frame"
MPA_MARKERS, MPA_CRC, MPA_REJECT, MPA_ENHANCED = 0x8000, 0x4000, 0x2000, 0x1000
MPA_LARGE = 0x0800   # siw's own
MPA_HEADER = 20

# RDMAP opcodes and DDP queues.
WRITE, READ_REQUEST, READ_RESPONSE, SEND, SEND_INVALIDATE, SEND_SE, SEND_SE_INVALIDATE, TERMINATE = range(8)
QN_SEND, QN_READ, QN_TERMINATE = 0, 1, 2
TAGGED, LAST, DDP_VERSION, RDMAP_VERSION = 0x80, 0x40, 0x01, 0x40

# Terminate: (layer, type, code) of RFC 5040 and 5041.
RDMAP_BAD_STAG, RDMAP_BOUNDS, RDMAP_RIGHTS, RDMAP_NOT_ASSOCIATED = (0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 1, 3)
RDMAP_TO_WRAP, RDMAP_VERSION_ERROR, RDMAP_OPCODE, RDMAP_UNSPECIFIED = (0, 1, 4), (0, 2, 5), (0, 2, 6), (0, 2, 0xFF)
DDP_BAD_STAG, DDP_BOUNDS, DDP_NOT_ASSOCIATED, DDP_TO_WRAP, DDP_TAGGED_VERSION = (1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 1, 4)
DDP_BAD_QN, DDP_NO_BUFFER, DDP_BAD_MSN, DDP_BAD_MO, DDP_TOO_LONG, DDP_UNTAGGED_VERSION = ((1, 2, n) for n in range(1, 7))
MPA_CRC_ERROR = (2, 0, 2)

Header = collections.namedtuple("Header", "opcode tagged last stag to qn msn mo payload ddp rdmap")
Grant = collections.namedtuple("Grant", "token rights iova length incarnation")
Reply = collections.namedtuple("Reply", "flags revision enhanced ird ord private")
Terminate = collections.namedtuple("Terminate", "layer type code m d r ddp_length ddp_header rdmap_header")


class Closed(Exception):
    """The peer ended the TCP stream; `reset` by RST."""

    def __init__(self, reset):
        self.reset = reset
        super().__init__("reset" if reset else "end of stream")


class Terminated(Exception):
    def __init__(self, terminate):
        self.terminate = terminate
        self.code = (terminate.layer, terminate.type, terminate.code)
        super().__init__(f"Terminate {terminate}")


class Rejected(Exception):
    def __init__(self, reply):
        self.reply = reply
        super().__init__(f"MPA reject {reply}")


CAP_LARGE_FRAMES = 1


def caps_bytes(caps):
    return b"caps" + struct.pack(">I", caps) if caps else b""


def hello(ticket, caps=0):
    """The private data that carries a ticket (proto/locator.h), and what the sender can beyond the RFCs."""
    return b"nicd" + bytes([1, 0, 0, 0]) + ticket + caps_bytes(caps)


def parse_grant(private):
    """The private data of an accept; None: it gives nothing."""
    if not private:
        return None
    assert private[:5] == b"nicd\x01", private
    flags = private[5]
    assert not flags & ~1 and private[6:8] == b"\0\0"
    return Grant(*struct.unpack(">IIQQQ", private[8:40])) if flags & 1 else None


def parse_caps(private):
    """What the sender of an accept can."""
    rest = private[40:] if private[5:6] == b"\x01" else private[8:]
    assert not rest or (len(rest) == 8 and rest[:4] == b"caps"), private
    return struct.unpack(">I", rest[4:])[0] if rest else 0


def grant_private(grant, caps=0):
    """The private data of an accept that gives a Grant."""
    return b"nicd" + bytes([1, 1, 0, 0]) + struct.pack(">IIQQQ", *grant) + caps_bytes(caps)


def mpa_request(private, revision=2, crc=False, markers=False, ird=16, ord=16, flags=0, pd_length=None, key=REQUEST_KEY):
    if revision == 2:
        flags |= MPA_ENHANCED
        private = struct.pack(">HH", ird, ord) + private
    flags |= (MPA_CRC if crc else 0) | (MPA_MARKERS if markers else 0)
    length = len(private) if pd_length is None else pd_length
    return key + struct.pack(">HH", flags | revision, length) + private


def fpdu(ulpdu, crc=False, length=None):
    """One FPDU; `length` may lie."""
    body = struct.pack(">H", len(ulpdu) if length is None else length) + ulpdu
    body += b"\0" * (-len(body) % 4)
    return body + struct.pack("<I", crc32c(body) if crc else 0)


def tagged(opcode, stag, to, payload=b"", last=True, ddp=TAGGED | DDP_VERSION, rdmap=RDMAP_VERSION):
    return struct.pack(">BBIQ", ddp | (LAST if last else 0), rdmap | opcode, stag & 0xFFFFFFFF, to & 0xFFFFFFFFFFFFFFFF) + payload


def untagged(opcode, qn, msn, payload=b"", mo=0, last=True, reserved=0, ddp=DDP_VERSION, rdmap=RDMAP_VERSION):
    return struct.pack(">BBIIII", ddp | (LAST if last else 0), rdmap | opcode, reserved, qn, msn & 0xFFFFFFFF, mo) + payload


def read_request_payload(sink_stag, sink_to, size, source_stag, source_to):
    return struct.pack(">IQIIQ", sink_stag, sink_to, size, source_stag, source_to)


def parse_ulpdu(data):
    ddp, rdmap = data[0], data[1]
    if ddp & TAGGED:
        stag, to = struct.unpack(">IQ", data[2:14])
        return Header(rdmap & 0xF, True, bool(ddp & LAST), stag, to, None, None, None, data[14:], ddp, rdmap)
    reserved, qn, msn, mo = struct.unpack(">IIII", data[2:18])
    return Header(rdmap & 0xF, False, bool(ddp & LAST), reserved, None, qn, msn, mo, data[18:], ddp, rdmap)


def parse_terminate(payload):
    word, = struct.unpack(">I", payload[:4])
    m, d, r = bool(word & 0x8000), bool(word & 0x4000), bool(word & 0x2000)
    rest, ddp_length, ddp_header, rdmap_header = payload[4:], None, None, None
    if m:
        ddp_length, rest = struct.unpack(">H", rest[:2])[0], rest[2:]
    if d:
        size = 14 if rest[0] & TAGGED else 18
        ddp_header, rest = rest[:size], rest[size:]
    if r:
        rdmap_header, rest = rest[:28], rest[28:]
    return Terminate(word >> 28, word >> 24 & 0xF, word >> 16 & 0xFF, m, d, r, ddp_length, ddp_header, rdmap_header)


class Tcp:
    """A TCP connection with timeouts that knows how it ended."""

    def __init__(self, address, timeout=10.0, sock=None):
        self.sock = sock or socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed(True) from None

    def readable(self, timeout):
        poll = select.poll()   # select() knows 1,024 descriptors only
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(1000 * max(0.0, timeout)))

    def receive(self, n, timeout=10.0):
        deadline = time.monotonic() + timeout
        while len(self.buffer) < n:
            if not self.readable(deadline - time.monotonic()):
                raise TimeoutError(f"{n - len(self.buffer)} bytes missing")
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                raise Closed(True) from None
            if not data:
                raise Closed(False)
            self.buffer += data
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def end(self, timeout=10.0):
        """Everything up to the end of the stream; it must end in time."""
        deadline, data = time.monotonic() + timeout, b""
        while True:
            try:
                data += self.receive(1, max(0.0, deadline - time.monotonic()))
            except Closed:
                return data


class Stream(Tcp):
    """The frames of an iWARP stream, whichever side we are."""
    crc = False

    # Frames.

    def send_ulpdu(self, ulpdu, **kw):
        self.send(fpdu(ulpdu, self.crc, **kw))

    def next_ulpdu(self, timeout=10.0):
        length_bytes = self.receive(2, timeout)
        length, = struct.unpack(">H", length_bytes)
        pad = -(2 + length) % 4
        rest = self.receive(length + pad + 4, timeout)
        crc, = struct.unpack("<I", rest[-4:])
        assert not any(rest[length:length + pad]), "padding that is not zero"
        if self.crc:
            assert crc == crc32c(length_bytes + rest[:-4]), "a bad CRC"
        return parse_ulpdu(rest[:length])

    def next_frame(self, timeout=10.0):
        """The next frame; raises Terminated."""
        header = self.next_ulpdu(timeout)
        assert header.ddp & 3 == DDP_VERSION and header.rdmap & 0xC0 == RDMAP_VERSION
        if header.opcode == TERMINATE:
            assert not header.tagged and header.qn == QN_TERMINATE and header.msn == 1
            raise Terminated(parse_terminate(header.payload))
        return header

    def wait_terminate(self, timeout=10.0):
        """The code of the Terminate that comes next, then the end of the stream. None: the stream ended without one."""
        try:
            while True:
                self.next_frame(timeout)
        except Terminated as t:
            rest = self.end(timeout)
            assert not rest, "bytes after Terminate"
            self.terminate = t.terminate
            return t.code
        except Closed:
            return None


    messages_out = messages_in = 0

    def send_message(self, data=b"", opcode=SEND, invalidate=0, chunk=8192):
        """A Send in segments."""
        self.messages_out += 1
        pieces = [data[i:i + chunk] for i in range(0, len(data), chunk)] or [b""]
        for i, piece in enumerate(pieces):
            self.send_ulpdu(untagged(opcode, QN_SEND, self.messages_out, piece, mo=i * chunk, last=i == len(pieces) - 1,
                                     reserved=invalidate))

    def next_message(self, timeout=10.0):
        """(opcode, the token to invalidate, bytes) of the next Send."""
        self.messages_in += 1
        data, first = b"", None
        while True:
            header = self.next_frame(timeout)
            first = first or header
            assert not header.tagged and header.qn == QN_SEND and header.msn == self.messages_in, header
            assert (header.opcode, header.stag) == (first.opcode, first.stag) and header.mo == len(data), header
            data += header.payload
            if header.last:
                return header.opcode, header.stag, data


class Peer(Stream):
    """An initiator that keeps the rules, until told otherwise."""

    def __init__(self, address, private, revision=2, crc=False, ird=16, ord=16, handshake=True, **kw):
        super().__init__(address, **kw)
        self.msn = {QN_SEND: 1, QN_READ: 1, QN_TERMINATE: 1}
        self.crc = crc
        self.reply = None
        if handshake:
            self.send(mpa_request(private, revision, crc, ird=ird, ord=ord))
            self.accept()
            if self.reply.flags & MPA_REJECT:
                raise Rejected(self.reply)

    def accept(self, timeout=10.0):
        """Reads the MPA reply and takes over what it settled."""
        head = self.receive(MPA_HEADER, timeout)
        assert head[:16] == REPLY_KEY, head
        word, length = struct.unpack(">HH", head[16:])
        private = self.receive(length, timeout)
        enhanced, ird, ord = bool(word & MPA_ENHANCED), None, None
        if enhanced:
            assert length >= 4
            ird, ord = struct.unpack(">HH", private[:4])
            private = private[4:]
        assert length <= 256 and len(private) <= 252, "a reply that would take a siw client's kernel down"
        self.reply = Reply(word & 0xF800, word & 0xFF, enhanced, ird, ord, private)
        self.crc = self.crc or bool(word & MPA_CRC)
        return self.reply

    @property
    def grant(self):
        return parse_grant(self.reply.private)

    # Operations.

    def write(self, stag, to, data, chunk=8192):
        """An RDMA Write, in segments."""
        pieces = [data[i:i + chunk] for i in range(0, len(data), chunk)] or [b""]
        at = to
        for i, piece in enumerate(pieces):
            self.send_ulpdu(tagged(WRITE, stag, at, piece, last=i == len(pieces) - 1))
            at += len(piece)

    def post_read(self, sink_stag, sink_to, size, stag, to):
        self.send_ulpdu(untagged(READ_REQUEST, QN_READ, self.msn[QN_READ],
                                 read_request_payload(sink_stag, sink_to, size, stag, to)))
        self.msn[QN_READ] += 1

    def read(self, stag, to, size, sink_stag=None, sink_to=0x1000, timeout=10.0):
        """An RDMA Read and its whole response."""
        sink_stag = int.from_bytes(os.urandom(4), "big") if sink_stag is None else sink_stag
        self.post_read(sink_stag, sink_to, size, stag, to)
        return self.read_response(sink_stag, sink_to, size, timeout)

    def read_response(self, sink_stag, sink_to, size, timeout=10.0):
        data = b""
        while True:
            header = self.next_frame(timeout)
            assert header.opcode == READ_RESPONSE and header.tagged
            assert header.stag == sink_stag and header.to == sink_to + len(data), header
            data += header.payload
            assert len(data) <= size, "more than was asked for"
            if header.last:
                assert len(data) == size, "less than was asked for"
                return data

    def flush(self, timeout=10.0):
        """A zero-length read: what was written before it is placed when it comes back."""
        return self.read(0, 0, 0, timeout=timeout)


class Responder(Stream):
    """The other side of a connection that nicd makes; answers what it is told to, which need not be right."""

    def __init__(self, listener, timeout=10.0):
        listener.settimeout(timeout)
        super().__init__(None, sock=listener.accept()[0])
        head = self.receive(MPA_HEADER)
        assert head[:16] == REQUEST_KEY, head
        self.word, length = struct.unpack(">HH", head[16:])
        private = self.receive(length)
        self.ird = self.ord = None
        if self.word & MPA_ENHANCED:
            self.ird, self.ord = struct.unpack(">HH", private[:4])
            private = private[4:]
        self.private = private

    def reply(self, private=b"", flags=0, revision=2, ird=16, ord=16, pd_length=None, key=REPLY_KEY):
        if revision == 2:
            flags |= MPA_ENHANCED
            private = struct.pack(">HH", ird, ord) + private
        self.crc = bool((flags | self.word) & MPA_CRC)
        length = len(private) if pd_length is None else pd_length
        self.send(key + struct.pack(">HH", flags | (self.word & MPA_CRC) | revision, length) + private)

    def next_read_request(self, timeout=10.0):
        """(sink STag, sink TO, size, source STag, source TO)"""
        header = self.next_frame(timeout)
        assert header.opcode == READ_REQUEST and not header.tagged and header.qn == QN_READ and len(header.payload) == 28
        return struct.unpack(">IQIIQ", header.payload)

    def respond(self, stag, to, data, chunk=8192):
        pieces = [data[i:i + chunk] for i in range(0, len(data), chunk)] or [b""]
        for i, piece in enumerate(pieces):
            self.send_ulpdu(tagged(READ_RESPONSE, stag, to, piece, last=i == len(pieces) - 1))
            to += len(piece)
