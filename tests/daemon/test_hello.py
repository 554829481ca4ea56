# SPDX-License-Identifier: MIT
"""Hello, the version rule, what a session is told, and what it may not do before."""
import pytest

from nicdtest import limits
from nicdtest.pb import pb
from nicdtest.wire import Refused, check_error, check_refused, expect_refused, request


def hello(major=limits.MAJOR, min_minor=limits.MINOR, client="t"):
    return pb.Hello(major=major, min_minor=min_minor, client=client)


def test_reply_says_who_and_where(nicd):
    # mutation: leave resume_secret zero, or take it from the clock: the two are equal
    with nicd.session() as a, nicd.session() as b:
        assert (a.hello.major, a.hello.minor) == (limits.MAJOR, limits.MINOR)
        assert a.hello.daemon.startswith("nicd ")
        assert a.hello.role == pb.CLIENT
        assert len(a.hello.boot_id) == 16 and a.hello.boot_id == b.hello.boot_id and any(a.hello.boot_id)
        assert len(a.hello.resume_secret) == 32 and a.hello.resume_secret != b.hello.resume_secret
        assert any(a.hello.resume_secret)
        assert a.hello.session and b.hello.session > a.hello.session
        assert a.hello.account == b.hello.account != ""
        assert len(a.hello.adapters) == 1


def test_boot_id_is_of_the_host(nicd, peer_nicd):
    # mutation: draw the boot id at random in each nicd
    with nicd.session() as a, peer_nicd.session() as b:
        assert a.hello.boot_id == b.hello.boot_id
        kernel = open("/proc/sys/kernel/random/boot_id").read().strip().replace("-", "")
        assert a.hello.boot_id == bytes.fromhex(kernel)
        assert a.hello.adapters[0].incarnation != b.hello.adapters[0].incarnation


def test_adapter_facts(nicd, session):
    # mutation: leave a field of AdapterInfo out
    adapter = session.hello.adapters[0]
    assert adapter.provider == "soft" and adapter.name and adapter.id and adapter.serial and adapter.incarnation
    assert adapter.up
    assert adapter.data_address.startswith("127.0.0.1:")
    assert adapter.flags & pb.RDMA_READ_SINK_NOT_REQUIRED
    assert adapter.max_ranges == limits.RANGES
    assert adapter.max_transfer_entries == limits.TRANSFER_ENTRIES
    assert adapter.max_registration_size > 0 and adapter.max_transfer_length > 0
    assert adapter.max_mr > 0 and adapter.max_pd > 0 and adapter.max_qp > 0 and adapter.max_pinned_bytes > 0
    assert session.call(pb.QueryAdapter(adapter=pb.Ref(id=adapter.id))).adapter == adapter


@pytest.mark.parametrize("major, minor", [(0, 0), (2, 0), (1, 1), (1, 2 ** 32 - 1), (2 ** 32 - 1, 0)])
def test_other_version_is_refused_and_may_be_tried_again(nicd, major, minor):
    # mutation: compare min_minor with > the wrong way, or take any major
    with nicd.session(hello=False) as s:
        with expect_refused("VERSION", limit=limits.MAJOR * 1000 + limits.MINOR):
            s.call(hello(major, minor))
        with expect_refused("HELLO_FIRST"):
            s.call(pb.CreatePd())
        assert s.call(hello()).hello.major == limits.MAJOR


def test_hello_twice(session):
    # mutation: let a second Hello through
    with expect_refused("HELLO_AGAIN"):
        session.call(hello())
    session.create_pd()


CALLS = [name for name in pb.Request.DESCRIPTOR.fields_by_name if name not in ("id", "fds", "hello")]


@pytest.mark.parametrize("name", CALLS)
def test_every_other_call_waits_for_hello(nicd, name):
    # mutation: let a row of the table of calls allow the state NEW
    with nicd.session(hello=False) as s:
        message = pb.Request(id=7)
        getattr(message, name).SetInParent()
        s.send_frame(pb.Frame(requests=[message]))
        reply, = s.wait([7])
        check_refused(reply, "HELLO_FIRST")
        s.call(hello())


def test_hello_and_work_in_one_frame(nicd):
    # mutation: judge the session's state for the whole frame at once
    with nicd.session(hello=False) as s:
        s.send_frame(pb.Frame(requests=[request(1, pb.CreatePd()), request(2, hello()), request(3, pb.CreatePd())]))
        early, greeted, made = s.wait([1, 2, 3])
        check_refused(early, "HELLO_FIRST")
        assert greeted.hello.major == limits.MAJOR and made.object.id


def test_label_is_listed_and_bounded(nicd):
    # mutation: do not check the label's length, or copy it without its end
    with nicd.session(hello=False) as s:
        with expect_refused("STRING", limit=limits.STRING):
            s.call(hello(client="x" * 256))
        s.call(hello(client="ä" * 127 + "x"))
        mine, = (i for i in nicd.admin().list(pb.SESSION) if i.name.endswith("äx"))
        assert mine.name == "ä" * 127 + "x" and mine.alive


@pytest.mark.parametrize("label", ["a\nforged line", "\x1b[31mforged", "tab\tforged"])
def test_label_cannot_forge_the_journal(nicd, label):
    # mutation: write the label to the journal as it is
    with nicd.session(hello=False) as s:
        try:
            s.call(hello(client=label))
        except Refused as refused:
            check_error(refused.error, "STRING")
        with expect_refused("HANDLE"):
            s.close_object(1234)
    assert label not in nicd.log_text() and "\nforged" not in nicd.log_text()


def test_admin_role_is_the_sockets(nicd):
    # mutation: give the admin role by uid alone
    assert nicd.admin().hello.role == pb.ADMIN
    with nicd.session() as s:
        assert s.hello.role == pb.CLIENT


def test_account_is_the_uid(nicd, session):
    # mutation: use the pid as the key
    import os
    assert session.hello.account == f"uid:{os.getuid()}"


def test_not_built_yet(session):
    # mutation: let it succeed or end the session
    with expect_refused("NOT_SUPPORTED"):
        session.call(pb.Resume(secret=session.hello.resume_secret))
    session.create_pd()
