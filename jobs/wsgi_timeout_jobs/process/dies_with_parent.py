"""A worker process and its pool: it ends with its parent, and wakes it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def wake_parent() -> None:
    """Have the pool look at its children now, as when one of them ends."""
    os.kill(os.getppid(), signal.SIGCHLD)


def die_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent dies; on other systems it ends when its lease is lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # The parent may have died before the call above.
    if os.getppid() != parent:
        os._exit(1)
