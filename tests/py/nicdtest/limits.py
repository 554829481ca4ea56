# SPDX-License-Identifier: MIT
"""The numbers of proto/limits.h, as the protocol's text states them."""
MAJOR, MINOR = 1, 0
FRAME_MAX = 65536
FRAME_FDS = 64
FRAME_REQUESTS = 256
RANGES = 16
TRANSFER_ENTRIES = 1024
TRANSFER_ENTRY_SIZE = 32
QP_RECEIVES = 256
QUERY_IDS = 4096
STRING = 255
PAGE = 4096
