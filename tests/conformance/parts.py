# SPDX-License-Identifier: MIT
"""What many cases are made of. The owner of a pair is whose memory it is about; the user is the peer."""
from nicdtest.memory import Buffer
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, pb
from nicdtest.wire import check_refused, ref, register_message

PAGE = 4096
SIZE = 16 * PAGE
IOVA = 0x3_0000_0000_0000
BOTH = pb.OP_ALLOW_REMOTE_READ | pb.OP_ALLOW_REMOTE_WRITE
REMOTE_ERRORS = ("REMOTE_TOKEN", "REMOTE_RANGE", "REMOTE_RIGHTS", "REMOTE_TERMINATE", "QP_LOST", "PEER_CLOSED", "QP_STATE")


class Owned:
    """More memory of the owner's, and the calls on what is made of it."""

    def __init__(self, pair):
        self.pair, self.session, self.pd = pair, pair.owner.session, pair.owner.pd
        self.buffer = Buffer(SIZE, 7)
        self.memory = self.session.add_memory(self.buffer.fd)
        self.qp = pair.inbound()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.buffer.close()

    def ask(self, message, fds=()):
        """The reply, whatever it says."""
        reply, = self.session.wait([self.session.start(message, fds)])
        return reply

    def refused(self, message, reason, status=None):
        reply = self.ask(message)
        check_refused(reply, reason)
        assert status is None or reply.error.status == status, reply
        return reply

    # Normal MRs.

    def mr(self):
        return self.session.create_mr(self.pd)

    def register_message(self, mr, ranges=((0, SIZE),), iova=IOVA, length=0, flags=REMOTE_READ):
        return register_message(mr, [(self.memory, *r) for r in ranges], iova, length, flags)

    def normal(self, flags=LOCAL_WRITE, **kw):
        return self.session.call(self.register_message(self.mr(), flags=flags, **kw)).mr

    # Fast-register MRs.

    def fast(self, pages=SIZE // PAGE, remote=True):
        mr = self.session.call(pb.CreateMr(pd=ref(self.pd), fast_register=True)).object
        return self.session.call(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=pages, remote_access=remote)).mr

    def fast_message(self, mr, flags=BOTH, length=SIZE, offset=0, size=SIZE, fbo=0, iova=IOVA, qp=None, mapping=None):
        message = pb.FastRegister(mr=ref(mr), qp=ref(qp or self.qp), first_byte_offset=fbo, length=length, iova=iova, flags=flags)
        if mapping is None:
            message.ranges.add(memory=ref(self.memory), offset=offset, length=size)
        else:
            message.mapping.CopyFrom(ref(mapping))
        return message

    def fast_register(self, mr, flags=BOTH, **kw):
        return self.session.call(self.fast_message(mr, flags, **kw)).mr

    def invalidate(self, what, qp=None):
        return self.session.call(pb.Invalidate(object=ref(what), qp=ref(qp or self.qp)))

    # Windows and mappings.

    def window(self):
        return self.session.call(pb.CreateMw(pd=ref(self.pd))).object

    def bind_message(self, mw, mr, flags=BOTH, iova=IOVA, length=SIZE, qp=None):
        return pb.BindMw(mw=ref(mw), mr=ref(mr), qp=ref(qp or self.qp), iova=iova, length=length, flags=flags)

    def bind(self, mw, mr, flags=BOTH, **kw):
        return self.session.call(self.bind_message(mw, mr, flags, **kw)).mr

    def mapping(self, ranges=((0, SIZE),)):
        message = pb.BuildMapping()
        for offset, length in ranges:
            message.ranges.add(memory=ref(self.memory), offset=offset, length=length)
        return self.session.call(message).mapping

    # The peer.

    def can_read(self, token, at=0, length=PAGE, iova=IOVA):
        """The peer reads by this token, and gets what the memory holds."""
        self.pair.read(0, length=length, token=token, address=iova + at)
        return self.pair.user.buffer[:length]

    def can_write(self, token, at=0, length=PAGE, iova=IOVA):
        self.pair.user.buffer[:length] = bytes([0x5a]) * length
        self.pair.write(0, length=length, token=token, address=iova + at)

    def peer_refused(self, kind, token, at=0, length=PAGE, iova=IOVA, why=REMOTE_ERRORS, connection=None):
        """The peer tries, by a connection of its own, and is refused; that connection is gone."""
        pair = self.pair
        qp = connection or pair.connect(pair.door)
        reply, = pair.user.session.wait([pair.start(kind, 0, length=length, token=token, address=iova + at, qp=qp)])
        check_refused(reply, why)
        return reply


def other_connection(pair):
    """Another connection of the same peer, and the owner's end of it."""
    qp = pair.connect(pair.door)
    pair.owner.session.wait_event(pb.Event.CONNECTED)
    return qp, pair.inbound()


def state_of(session, what, kind=pb.MR):
    item, = (i for i in session.list(kind) if i.serial == what.serial)
    return item.state
