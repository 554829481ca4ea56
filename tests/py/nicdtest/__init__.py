# SPDX-License-Identifier: MIT
"""An independent client, peer and house for nicd's tests, written from proto/nicd.proto and the RFCs, not from the C code.

    pb        the messages, generated from proto/nicd.proto when the tests start
    reasons   the table of proto/reason.h, read as text
    wire      one session: frames, descriptors, calls, batches, events
    memory    descriptors of every kind, good and bad
    locator   the printable locator
    iwarp     an iWARP peer on a plain TCP socket: MPA, DDP, RDMAP, CRC-32C
    daemon    the real nicd with its nicd-soft, and what must hold when it stops
"""
