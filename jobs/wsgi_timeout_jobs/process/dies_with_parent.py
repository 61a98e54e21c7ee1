"""A process that ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def die_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent dies; on other systems it ends when its lease is lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # The parent may have died before the call above.
    if os.getppid() != parent:
        os._exit(1)
