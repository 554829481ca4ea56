# SPDX-License-Identifier: MIT
"""Where the source tree and the build are."""
import os
import pathlib

SOURCE = pathlib.Path(os.environ.get("NICD_SOURCE") or pathlib.Path(__file__).resolve().parents[3])
BUILD = pathlib.Path(os.environ.get("NICD_BUILD", SOURCE / "build" / "test")).resolve()


def nicd_binary():
    return BUILD / "daemon" / "nicd"


def soft_binary():
    """NICD_SOFT: another one than that of the build."""
    return pathlib.Path(os.environ["NICD_SOFT"]) if "NICD_SOFT" in os.environ else BUILD / "nicd" / "soft" / "nicd-soft"
