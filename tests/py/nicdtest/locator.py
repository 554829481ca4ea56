# SPDX-License-Identifier: MIT
"""The printable locator: "nicd1:" and 96 characters of base64url of 72 big-endian bytes: flags (1: IPv6, 2: a grant), 0, u16 port, 16
bytes of address, 16 of ticket, u32 token, u32 rights, u64 iova, u64 length, u64 incarnation, u32 CRC-32C."""
import base64
import collections
import ipaddress
import struct

from .iwarp import Grant, crc32c

PREFIX = "nicd1:"
_FORM = struct.Struct(">BBH16s16sIIQQQ")

Locator = collections.namedtuple("Locator", "host port ticket grant")


def parse(text):
    assert text.startswith(PREFIX) and len(text) == len(PREFIX) + 96, text
    data = base64.b64decode(text[len(PREFIX):], altchars=b"-_", validate=True)
    assert len(data) == 72
    crc, = struct.unpack(">I", data[68:])
    assert crc == crc32c(data[:68])
    flags, zero, port, address, ticket, *grant = _FORM.unpack(data[:68])
    assert flags & ~3 == 0 and zero == 0
    if flags & 1:
        host = ipaddress.IPv6Address(address)
    else:
        assert not any(address[4:])
        host = ipaddress.IPv4Address(address[:4])
    assert flags & 2 or not any(grant)
    return Locator(str(host), port, ticket, Grant(*grant) if flags & 2 else None)


def build(host, port, ticket, grant=None, flags=0, zero=0, crc=None):
    """The text; `flags`, `zero` and `crc` may make it wrong."""
    host = ipaddress.ip_address(host)
    flags |= (host.version == 6) | (2 if grant else 0)
    data = _FORM.pack(flags, zero, port, host.packed.ljust(16, b"\0"), ticket, *(grant or (0,) * 5))
    data += struct.pack(">I", crc32c(data) if crc is None else crc)
    return PREFIX + base64.b64encode(data, altchars=b"-_").decode()
