# SPDX-License-Identifier: MIT
"""What only root can have: tests that need it are skipped for others, and say so."""
import os

import pytest


def lacking(what, error):
    """The test ends here. Root has it, or something is wrong; and CI is to say so too."""
    if os.geteuid() == 0 or os.environ.get("CI"):
        pytest.fail(f"this machine has no {what}: {error}")
    if isinstance(error, PermissionError):
        pytest.skip(f"needs root for a {what}")
    pytest.fail(f"there is no {what}: {error}")
