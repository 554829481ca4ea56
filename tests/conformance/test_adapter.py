# SPDX-License-Identifier: MIT
"""The adapter: opening, closing, what it says of itself, extensions."""
import pytest

from nicdtest import limits
from nicdtest.memory import Buffer
from nicdtest.pb import LOCAL_WRITE, REMOTE_READ, pb
from nicdtest.wire import check_refused, expect_refused, ref

from parts import PAGE, Owned
from rules import rule


def info_of(session):
    return session.call(pb.QueryAdapter(adapter=ref(session.hello.adapters[0]))).adapter


@rule("open.version")
def test_version(nicd):
    # mutation: compare the minor the wrong way round
    for major, minor in ((limits.MAJOR + 1, 0), (limits.MAJOR, limits.MINOR + 1), (0, 0)):
        with nicd.session(hello=False) as s:
            with expect_refused("VERSION"):
                s.call(pb.Hello(major=major, min_minor=minor))
            assert s.call(pb.Hello(major=limits.MAJOR, min_minor=0)).hello.minor == limits.MINOR


@rule("open.many")
def test_many_times(nicd):
    # mutation: admit one session at a time
    with nicd.session() as a, nicd.session() as b:
        assert a.hello.adapters == b.hello.adapters
        assert a.create_pd().id and b.create_pd().id


@rule("close-adapter.all")
def test_close_ends_all(pair):
    # mutation: leave an object of a session that has ended
    with Owned(pair) as o:
        mw = o.window()
        o.bind(mw, o.normal())
        o.fast_register(o.fast())
    pair.owner.session.close()
    pair.owner.nicd.assert_clean()


@rule("info.frmr-pages")
def test_frmr_pages(pair):
    # mutation: recommend what InitializeFastRegister refuses
    info = info_of(pair.owner.session)
    assert info.frmr_page_count >= 16
    with Owned(pair) as o:
        o.fast(pages=info.frmr_page_count)


@rule("info.flags")
def test_flags(nicd, provider):
    # mutation: a flag more, or less
    with nicd.session() as s:
        assert info_of(s).flags == provider.expect("adapter_flags")


@rule("info.sizes")
@pytest.mark.parametrize("field", ["max_registration_size", "max_window_size", "max_transfer_length", "max_inline", "max_ranges",
                                   "max_transfer_entries", "max_outbound_read", "max_fast_pages"])
def test_sizes(nicd, provider, field):
    # mutation: leave a field of AdapterInfo 0
    with nicd.session() as s:
        info = info_of(s)
        assert getattr(info, field) > 0
        assert info.max_inbound_read == provider.expect("max_inbound_read")


@rule("info.limits-hold")
def test_limits_hold(pair):
    # mutation: check one more, or one less, than is told
    info = info_of(pair.owner.session)
    with Owned(pair) as o:
        o.fast(pages=info.max_fast_pages)
        mr = o.session.call(pb.CreateMr(pd=ref(o.pd), fast_register=True)).object
        o.refused(pb.InitializeFastRegister(mr=ref(mr), adapter_page_count=info.max_fast_pages + 1), "PAGE_COUNT", pb.IMPLEMENTATION_LIMIT)
        o.session.call(o.register_message(o.mr(), [(0, PAGE)] * info.max_ranges))
        o.refused(o.register_message(o.mr(), [(0, PAGE)] * (info.max_ranges + 1)), "COUNT")
        user, one = o.pair.user.session, (0, 0, 1)
        assert o.pair.transfer(pb.TransferList.WRITE, [one] * info.max_transfer_entries).entries == info.max_transfer_entries
        for entries, reason in (([one] * (info.max_transfer_entries + 1), "TRANSFER_ENTRIES"),
                                ([(0, 0, 2 ** 32 - 1), one] if info.max_transfer_length == 2 ** 32 - 1 else
                                 [(0, 0, info.max_transfer_length + 1)], "TRANSFER_LENGTH")):
            reply, = user.wait([user.start(o.pair.list_message(pb.TransferList.WRITE, entries))])
            check_refused(reply, reason)


@rule("caps.yours")
def test_yours_and_the_devices(nicd):
    # mutation: tell the device's in place of yours
    with nicd.session() as s:
        info = info_of(s)
        for name in ("max_mr", "max_mw", "max_pd", "max_qp"):
            device = getattr(info, "device_" + name)
            assert 0 < getattr(info, name) <= (device or 2 ** 32)
        assert 0 < info.max_pinned_bytes <= (info.device_max_pinned_bytes or 2 ** 64)


@rule("extension.every-object", "extension.unknown", "extension.list")
def test_extensions(pair):
    # mutation: leave out an object; an empty list in place of NOT_SUPPORTED
    with Owned(pair) as o, Buffer(PAGE) as buffer:
        mr = o.normal(REMOTE_READ | LOCAL_WRITE)
        things = [o.session.hello.adapters[0], o.session.add_memory(buffer.fd), o.pd, mr, o.fast(), o.window(), o.mapping(), o.qp,
                  pair.door, o.session.export(mr, "x", REMOTE_READ)]
        for thing in things:
            found = o.session.call(pb.QueryExtension(object=ref(thing))).extensions.extensions
            assert found
            for extension in found:
                assert list(o.session.call(pb.QueryExtension(object=ref(thing), uuid=extension.uuid, version=extension.version))
                            .extensions.extensions) == [extension]
                o.refused(pb.QueryExtension(object=ref(thing), uuid=extension.uuid, version=extension.version + 1), "EXTENSION",
                          pb.NOT_SUPPORTED)
            o.refused(pb.QueryExtension(object=ref(thing), uuid=b"nobody's uuid..."), "EXTENSION", pb.NOT_SUPPORTED)
