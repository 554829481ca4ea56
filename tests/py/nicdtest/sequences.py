# SPDX-License-Identifier: MIT
"""Random calls of one client, and a model of what must be there: for hypothesis."""
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from .memory import Buffer
from .pb import pb
from .wire import register_message


class Client(RuleBasedStateMachine):
    """Random calls on random objects, alive or not, in frames of random length; a model of what is there."""
    nicd = None

    def __init__(self):
        super().__init__()
        self.session = None

    @initialize()
    def connect(self):
        self.session = self.nicd.session(label="random")
        self.buffers = [Buffer(4096 * (i + 1)) for i in range(3)]
        self.pds, self.memories, self.mrs, self.doors = {}, {}, {}, {}   # id -> what is known
        self.dead = [1, 2 ** 63]
        self.names = 0

    def pick(self, data, table):
        return data.draw(st.sampled_from(sorted(table) + self.dead[-3:]))

    def frame(self, data, calls):
        batch = self.session.batch()
        for call, fds in calls:
            batch.add(call, fds)
        return batch.run()

    @rule()
    def create_pd(self):
        self.pds[self.session.create_pd().id] = 0

    @rule(data=st.data())
    def add_memory(self, data):
        buffer = data.draw(st.sampled_from(self.buffers))
        info = self.session.add_memory(buffer.fd)
        assert info.size == buffer.size
        self.memories[info.id] = buffer.size

    @rule(data=st.data(), n=st.integers(1, 20))
    def create_mrs(self, data, n):
        pds = [self.pick(data, self.pds) for _ in range(n)]
        for pd, reply in zip(pds, self.frame(data, [(pb.CreateMr(pd=pb.Ref(id=p)), []) for p in pds])):
            assert reply.HasField("error") == (pd not in self.pds)
            if not reply.HasField("error"):
                self.mrs[reply.object.id] = None

    @rule(data=st.data(), offset=st.integers(0, 8), length=st.integers(0, 10), flags=st.sampled_from([0, 1, 2, 5, 7, 8, 4]))
    def register(self, data, offset, length, flags):
        mr, memory = self.pick(data, self.mrs), self.pick(data, self.memories)
        reply, = self.frame(data, [(register_message(mr, [(memory, offset * 512, length * 1024)], flags=flags), [])])
        good = mr in self.mrs and self.mrs[mr] is None and memory in self.memories and length and flags != 4 and \
            offset * 512 + length * 1024 <= self.memories[memory]
        assert reply.HasField("error") == (not good), reply
        if good:
            self.mrs[mr] = reply.mr
            assert bool(reply.mr.remote_token) == bool(flags & 6)

    @rule(data=st.data())
    def tokens(self, data):
        mr = self.pick(data, self.mrs)
        local, remote = self.frame(data, [(pb.GetLocalToken(mr=pb.Ref(id=mr)), []), (pb.GetRemoteToken(mr=pb.Ref(id=mr)), [])])
        known = self.mrs.get(mr)
        assert local.HasField("error") == (known is None)
        if known is not None:
            assert local.token == known.local_token
            assert remote.HasField("error") == (known.remote_token == 0)
            assert remote.token == known.remote_token

    @rule(data=st.data())
    def deregister(self, data):
        mr = self.pick(data, self.mrs)
        reply, = self.frame(data, [(pb.DeregisterMr(mr=pb.Ref(id=mr)), [])])
        assert reply.HasField("error") == (self.mrs.get(mr) is None)
        if mr in self.mrs:
            self.mrs[mr] = None

    @rule(data=st.data(), flags=st.sampled_from([2, 5, 7]), ticket=st.booleans())
    def door(self, data, flags, ticket):
        mr = self.pick(data, self.mrs)
        self.names += 1
        name = f"{self.session.hello.session} {self.names}"
        call = pb.CreateTicket(mr=pb.Ref(id=mr)) if ticket else pb.CreateExport(mr=pb.Ref(id=mr), name=name, flags=flags)
        reply, = self.frame(data, [(call, [])])
        known = self.mrs.get(mr)
        good = known is not None and known.remote_token and (ticket or known.flags & flags == flags)
        assert reply.HasField("error") == (not good), reply
        if good:
            self.doors[reply.door.id] = True

    @rule(data=st.data())
    def close_mr_or_door(self, data):
        id_ = self.pick(data, {**self.mrs, **self.doors})
        reply, = self.frame(data, [(pb.Close(object=pb.Ref(id=id_)), [])])
        assert reply.HasField("error") == (id_ not in self.mrs and id_ not in self.doors)
        self.mrs.pop(id_, None)
        self.doors.pop(id_, None)
        self.dead.append(id_)

    @precondition(lambda self: self.pds or self.memories)
    @rule(data=st.data())
    def close_parent(self, data):
        """The reply comes when what stands on it is gone, maybe never; the id is dead at once."""
        id_ = data.draw(st.sampled_from(sorted({**self.pds, **self.memories})))
        self.session.start(pb.Close(object=pb.Ref(id=id_)))
        self.pds.pop(id_, None)
        self.memories.pop(id_, None)
        self.dead.append(id_)

    @rule()
    def leave(self):
        """Goes in the middle, and comes again as another."""
        self.session.close()
        self.connect()

    @invariant()
    def lists_agree(self):
        if self.session is not None and self.session.last_id % 5 == 0:
            mine = [i for i in self.session.list(pb.MR) if i.session == self.session.hello.session]
            assert len(mine) == len(self.mrs)

    def teardown(self):
        if self.session is not None:
            self.session.close()
            self.nicd.assert_clean()
