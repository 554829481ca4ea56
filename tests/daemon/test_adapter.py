# SPDX-License-Identifier: MIT
"""What an adapter says of itself (NDK_ADAPTER_INFO, NDIS_NDK_CAPABILITIES), and what its objects have beyond NDKPI (NdkQueryExtension)."""
import json
import re
import subprocess
import uuid

import pytest

from nicdtest import limits
from nicdtest.daemon import configuration, sanitizer_environment
from nicdtest.memory import Buffer
from nicdtest.pair import Pair
from nicdtest.paths import BUILD, SOURCE
from nicdtest.pb import CALL_FIELDS, REMOTE_READ, pb
from nicdtest.wire import ref

NICCTL = BUILD / "client" / "nicctl"
LIMITS = {name: int(value) for name, value in re.findall(r"NICD_(\w+) = (\d+),", (SOURCE / "proto" / "limits.h").read_text())}
PLACES = (1 << 24) - 1   # nicd-soft's tags

# What nicd-soft has, by field; and what of policy's limits, by the slot of the ledger.
DEVICE = {
    "max_registration_size": 1 << 46, "max_window_size": 1 << 46, "max_transfer_length": 2 ** 32 - 1, "max_ranges": limits.RANGES,
    "max_transfer_entries": limits.TRANSFER_ENTRIES, "frmr_page_count": LIMITS["FRMR_PAGES"], "max_fast_pages": LIMITS["FAST_PAGES"],
    "max_inline": LIMITS["INLINE"], "max_inbound_read": 64, "max_outbound_read": 64, "device_max_mr": PLACES, "device_max_mw": PLACES,
    "device_max_pd": 0, "device_max_pinned_bytes": 0,
}
YOURS = {"max_mr": "mrs", "max_mw": "mws", "max_pd": "pds", "max_qp": "qps", "max_mappings": "mappings", "max_pinned_bytes": "pinned_bytes"}
IDENTITY = {"id", "serial", "name", "provider", "incarnation", "data_address", "flags", "up", "device_max_qp", "privileged_token"}


def adapter_info(session):
    return session.call(pb.QueryAdapter(adapter=ref(session.hello.adapters[0]))).adapter


def test_no_field_is_forgotten():
    # mutation: a field of AdapterInfo that no test below knows
    assert {f.name for f in pb.AdapterInfo.DESCRIPTOR.fields} == set(DEVICE) | set(YOURS) | IDENTITY


@pytest.mark.parametrize("field", DEVICE)
def test_fact_of_the_device(session, field):
    # mutation: leave the field out of answer_fill_adapter, or of the provider's facts
    assert getattr(adapter_info(session), field) == DEVICE[field]


@pytest.mark.parametrize("field", YOURS)
def test_limit_of_yours(nicd, session, field):
    # mutation: take another slot's limit
    mine, = (a for a in session.ledger().accounts if a.account == session.hello.account)
    slot, = (c for c in mine.charges if c.slot == YOURS[field])
    assert getattr(adapter_info(session), field) == slot.max > 0


def test_recommended_page_count_is_ndks(session):
    # NDK: "must be at least 16". mutation: a recommendation below 16, or above what is possible
    info = adapter_info(session)
    assert 16 <= info.frmr_page_count <= info.max_fast_pages


def test_identity(session):
    # mutation: the flags of another provider
    info = adapter_info(session)
    assert info == session.hello.adapters[0]
    assert info.flags == pb.RDMA_READ_SINK_NOT_REQUIRED | pb.LOOPBACK
    assert info.up and info.name == "soft0" and info.provider == "soft" and info.id and info.serial and info.incarnation
    assert info.device_max_qp > 64   # descriptors of nicd-soft


def test_policy_makes_yours_smaller_than_the_devices(own_nicd):
    # mutation: tell the device's limit, or the larger of the two
    nicd = own_nicd(config=configuration({"mrs": 5, "mws": 6, "pds": 3, "qps": 7, "mappings": 4, "pinned_bytes": 65536}))
    with nicd.session() as s:
        info = adapter_info(s)
        assert (info.max_mr, info.max_mw, info.max_pd, info.max_qp, info.max_mappings) == (5, 6, 3, 7, 4)
        assert info.max_pinned_bytes == 65536
        assert info.device_max_mr == PLACES


def test_device_makes_yours_smaller_than_policys(own_nicd):
    # mutation: tell policy's limit alone
    nicd = own_nicd(config=configuration({"mrs": 2 ** 30}))
    with nicd.session() as s:
        assert adapter_info(s).max_mr == PLACES


# ---- extensions

def extensions(session, what, identity=b"", version=0):
    return list(session.call(pb.QueryExtension(object=ref(what), uuid=identity, version=version)).extensions.extensions)


@pytest.fixture
def objects(nicd, peer_nicd):
    """One object of each type that a session can make, by its name: (session, object)."""
    with Pair(nicd, peer_nicd) as pair, Buffer(8192) as buffer:
        pair.by_ticket()
        s = pair.user.session
        mr = s.region(pair.user.pd, buffer.fd, 4096, REMOTE_READ)
        yield {"ADAPTER": (s, s.hello.adapters[0]), "MEMORY": (s, s.add_memory(buffer.fd)), "PD": (s, pair.user.pd),
               "MR": (s, mr), "QP": (s, pair.qp), "TICKET": (pair.owner.session, pair.door), "EXPORT": (s, s.export(mr, "x", REMOTE_READ))}


OBJECTS = ["ADAPTER", "MEMORY", "PD", "MR", "QP", "TICKET", "EXPORT"]
CALLS = set(CALL_FIELDS.values())


@pytest.mark.parametrize("kind", OBJECTS)
def test_extensions_of_each_object(objects, kind):
    # mutation: forget the object in extension_fill; tell another version; a call that the protocol does not have
    session, what = objects[kind]
    found = extensions(session, what)
    assert found and len({e.uuid for e in found}) == len({e.name for e in found}) == len(found)
    bit = 1 << pb.Type.Value(kind)
    for extension in found:
        assert extension.objects & bit or kind == "ADAPTER"
        assert extension.version == 1 and extension.name.startswith("nicd.")
        assert set(extension.calls.split(" ")) <= CALLS and extension.calls
        # NDK: a uuid and a version; a lower version is in the higher one.
        for version in (0, 1):
            assert extensions(session, what, extension.uuid, version) == [extension]
    # The adapter has those of all, and nobody else more than that.
    everything = {e.uuid: e for e in extensions(session, session.hello.adapters[0])}
    assert {e.uuid for e in everything.values() if e.objects & bit or kind == "ADAPTER"} == {e.uuid for e in found}


@pytest.mark.parametrize("kind", OBJECTS)
def test_unknown_or_newer(objects, kind):
    # mutation: an empty list in place of the refusal; compare the version the wrong way round
    session, what = objects[kind]
    newest = extensions(session, what)[0]
    for identity, version, limit in ((b"u" * 16, 0, 0), (bytes(16), 1, 0), (newest.uuid, newest.version + 1, newest.version),
                                     (newest.uuid, 2 ** 32 - 1, newest.version)):
        batch = session.batch()
        batch.add(pb.QueryExtension(object=ref(what), uuid=identity, version=version))
        reply, = batch.run()
        assert (reply.error.name, reply.error.limit, reply.error.observed) == ("EXTENSION", limit, version)
        assert reply.error.status == pb.NOT_SUPPORTED
    assert extensions(session, what)[0] == newest


def test_extension_of_another_object(objects):
    # mutation: look the uuid up without the object
    session, pd = objects["PD"]
    notify, = (e for e in extensions(session, session.hello.adapters[0]) if e.name == "nicd.notify")
    reply, = session.wait([session.start(pb.QueryExtension(object=ref(pd), uuid=notify.uuid))])
    assert reply.error.name == "EXTENSION"


@pytest.mark.parametrize("length", [1, 15, 17, 4096])
def test_uuid_of_another_length(session, length):
    # mutation: compare 16 bytes of what is shorter
    reply, = session.wait([session.start(pb.QueryExtension(object=ref(session.hello.adapters[0]), uuid=b"u" * length))])
    assert (reply.error.name, reply.error.limit, reply.error.observed) == ("VALUE", 16, length)


def test_extension_of_nothing(session):
    # mutation: let the object be absent
    for message in (pb.QueryExtension(), pb.QueryExtension(object=pb.Ref(id=77))):
        reply, = session.wait([session.start(message)])
        assert reply.error.name == "HANDLE"


def test_uuids_are_for_ever(session):
    # mutation: draw any of them anew
    found = {e.name: str(uuid.UUID(bytes=e.uuid)) for e in extensions(session, session.hello.adapters[0])}
    assert found == {
        "nicd.list": "0b96dac1-4e8e-46a4-90f2-9a96596e5655",
        "nicd.ledger": "6be11b2f-1047-40a7-8512-d7e47dd558ca",
        "nicd.memory": "4615b7b4-d967-4c8d-ba80-6f4e83a6a607",
        "nicd.tokens": "dc777a88-a9a5-434b-a811-354594beb338",
        "nicd.who": "27a580dc-0fc7-4757-9ea4-b4102f2c87a1",
        "nicd.revoke": "e41c1d3e-327f-4c7c-ad0e-519cf9b072e7",
        "nicd.ticket": "500da1df-d541-4775-8e87-a47a41e4b84a",
        "nicd.export": "64a7d265-7d59-4295-a4d1-6649b8b95784",
        "nicd.connect": "3c343aff-213a-479b-a94c-803ba691c6b0",
        "nicd.transfer-list": "e6c3e9ef-aa66-4eb9-84f5-d376581403b1",
        "nicd.notify": "1c3e6358-61c1-4f1e-9064-3f897d7f540b",
    }


def test_nicctl_shows_them(nicd, session):
    # mutation: leave a column out of nicctl's tables
    def told(*args):
        return json.loads(subprocess.run([str(NICCTL), "--socket", str(nicd.socket), "--json", *args], capture_output=True, check=True,
                                         timeout=40, env=sanitizer_environment(nicd.directory)).stdout)

    info = adapter_info(session)
    device, = told("device", "show")["devices"]
    for field in [*DEVICE, *YOURS, "device_max_qp"]:
        assert device[field] == (getattr(info, field) or (None if field.startswith("device_") else 0)), field
    assert device["privileged_token"] is info.privileged_token
    listed = {e["uuid"]: e for e in told("extension", "list")["extensions"]}
    mine = extensions(session, session.hello.adapters[0])
    assert set(listed) == {str(uuid.UUID(bytes=e.uuid)) for e in mine}
    for extension in mine:
        row = listed[str(uuid.UUID(bytes=extension.uuid))]
        assert (row["name"], row["version"], row["calls"], row["device"]) == (extension.name, extension.version, extension.calls, info.name)
        kinds = {"device" if n == "ADAPTER" else n.lower() for n, v in pb.Type.items() if extension.objects & 1 << v}
        assert set(row["objects"].split(",")) == kinds
